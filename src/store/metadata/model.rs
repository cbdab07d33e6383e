//! The machine: documents in, state and past out.

use std::collections::BTreeSet;

use super::merge::Merge;
use super::past::{
    Contribution, Direction, ExtensionPast, GroupPast, Membership, Owner, ParticipantPast,
    SessionPast, StreamPast,
};
use super::quirks::Quirks;
use super::table::Table;
use crate::base::limits::METADATA_HISTORY_MAX;
use crate::base::time::Wall;
use crate::wire::metadata::{DataMode, Dialect, Document, Id, MetadataError};

/// Weighing looks at all rows; a document makes fewer than it has nodes, 10,000.
const WEIGHED_EVERY: u32 = 32;

/// The request that brought a document.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// When it came, by our clock.
    pub at: Wall,
    /// Its method.
    pub method: &'a str,
    /// Its CSeq number: a document has no number of its own, the dialog's order is its order.
    pub cseq: u32,
}

/// Everything that the metadata of one RS said. See the module.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub(super) groups: Table<Id, GroupPast>,
    pub(super) sessions: Table<Id, SessionPast>,
    pub(super) participants: Table<Id, ParticipantPast>,
    pub(super) streams: Table<Id, StreamPast>,
    /// By participant and CS.
    pub(super) memberships: Table<(Id, Id), Membership>,
    /// By participant, stream and direction.
    pub(super) contributions: Table<(Id, Id, Direction), Contribution>,
    /// By owner, namespace and name.
    pub(super) extensions: Table<(Owner, String, String), ExtensionPast>,
    pub(super) quirks: Quirks,
    pub(super) snapshot_wanted: Option<&'static str>,
    requests: BTreeSet<(u32, String)>,
    dialects: Vec<Dialect>,
    documents: u32,
    unreadable: u32,
    has_base: bool,
    full: bool,
}

impl Model {
    /// Takes a document. Returns whether it was applied: not where the same request brought one
    /// before (a retransmission must not count twice), nor where the past is full.
    pub fn take(&mut self, arrival: &Arrival<'_>, document: Document) -> bool {
        if !self.is_new(arrival) {
            return false;
        }
        self.documents += 1;
        if !self.dialects.contains(&document.dialect) {
            self.dialects.push(document.dialect);
        }
        document.quirks.iter().for_each(|quirk| self.quirks.note(quirk));
        self.look_for_doubles(&document);
        let weigh = self.documents.is_multiple_of(WEIGHED_EVERY);
        if self.full || (weigh && self.size() > METADATA_HISTORY_MAX) {
            self.close_for_good(arrival.at);
            return false;
        }
        let says_complete = document.datamode == DataMode::Complete;
        // Boxes say complete in a BYE and list the leavers only.
        let is_bye = arrival.method.eq_ignore_ascii_case("BYE");
        if is_bye && says_complete && self.leaves_out(&document) {
            self.quirks.note(
                "the document in the BYE says complete and leaves parties or sessions out; it is \
                 taken as partial, send datamode partial",
            );
        }
        let complete = says_complete && !is_bye;
        if complete {
            (self.has_base, self.snapshot_wanted) = (true, None);
        } else if !self.has_base {
            self.want_snapshot("a partial document came before any complete one");
            self.quirks.note(
                "a partial document came before any complete one: what was not said is unknown, \
                 send datamode complete first (RFC 7865 section 5.1.2)",
            );
        }
        Merge::new(self, arrival.at, complete).apply(&document);
        true
    }

    /// Notes a document that cannot be read: its bytes are kept as they came, the state stays.
    pub fn unreadable(&mut self, arrival: &Arrival<'_>, fault: &MetadataError) {
        if self.is_new(arrival) {
            self.documents += 1;
            self.unreadable += 1;
            self.quirks.note(&format!("metadata unreadable: {fault}"));
            self.want_snapshot("a document could not be read");
        }
    }

    /// The RS has ended: nothing holds any more, by our clock.
    pub fn end(&mut self, at: Wall) {
        Merge::new(self, at, true).apply(&Document::default());
    }

    /// Notes an oddity that was found beside the documents.
    pub fn note(&mut self, quirk: &str) {
        self.quirks.note(quirk);
    }

    /// What was odd, in words that an SBC's administrator can act on.
    pub fn quirks(&self) -> &[String] {
        self.quirks.all()
    }

    /// Why the SRC should be asked for a snapshot (RFC 7866 §9.2); `None` where all is known. A
    /// complete document answers it.
    pub fn snapshot_wanted(&self) -> Option<&'static str> {
        self.snapshot_wanted
    }

    /// Documents that came, repeats aside, and how many of them could not be read.
    pub fn documents(&self) -> (u32, u32) {
        (self.documents, self.unreadable)
    }

    /// Dialects seen, in order.
    pub fn dialects(&self) -> &[Dialect] {
        &self.dialects
    }

    /// CS Groups.
    pub fn groups(&self) -> &Table<Id, GroupPast> {
        &self.groups
    }

    /// Communication Sessions.
    pub fn sessions(&self) -> &Table<Id, SessionPast> {
        &self.sessions
    }

    /// Participants.
    pub fn participants(&self) -> &Table<Id, ParticipantPast> {
        &self.participants
    }

    /// Streams.
    pub fn streams(&self) -> &Table<Id, StreamPast> {
        &self.streams
    }

    /// Participants in sessions.
    pub fn memberships(&self) -> &Table<(Id, Id), Membership> {
        &self.memberships
    }

    /// Participants on streams.
    pub fn contributions(&self) -> &Table<(Id, Id, Direction), Contribution> {
        &self.contributions
    }

    /// Extensions.
    pub fn extensions(&self) -> &Table<(Owner, String, String), ExtensionPast> {
        &self.extensions
    }

    /// Places of the contributions of one participant.
    pub(super) fn contributions_of(&self, who: &Id) -> Vec<usize> {
        // The empty id is the lowest.
        let first = (who.clone(), Id::default(), Direction::Send);
        self.contributions.run(first, |(participant, ..)| participant == who)
    }

    pub(super) fn want_snapshot(&mut self, why: &'static str) {
        self.snapshot_wanted.get_or_insert(why);
    }

    fn is_new(&mut self, arrival: &Arrival<'_>) -> bool {
        self.requests.insert((arrival.cseq, arrival.method.to_ascii_uppercase()))
    }

    /// Rows and spans: what the past weighs.
    fn size(&self) -> usize {
        let groups: usize = self.groups.iter().map(|row| 1 + row.spans.len()).sum();
        let sessions: usize = self
            .sessions
            .iter()
            .map(|row| row.spans.len() + row.recorded.len() + row.sip_session_ids.len())
            .sum();
        let participants: usize =
            self.participants.iter().map(|row| row.spans.len() + row.names.len()).sum();
        let streams: usize = self
            .streams
            .iter()
            .map(|row| row.spans.len() + row.labels.len() + row.sessions.len())
            .sum();
        let memberships: usize = self.memberships.iter().map(|row| 1 + row.spans.len()).sum();
        let contributions: usize = self.contributions.iter().map(|row| 1 + row.spans.len()).sum();
        let extensions: usize = self.extensions.iter().map(|row| 1 + row.versions.len()).sum();
        groups + sessions + participants + streams + memberships + contributions + extensions
    }

    /// Later documents are not applied, so nothing is known to hold any more.
    fn close_for_good(&mut self, at: Wall) {
        if !self.full {
            self.full = true;
            self.end(at);
            self.quirks.note(
                "the history of the metadata is full: later documents are kept as they came and \
                 are not shown, begin a new recording session",
            );
        }
    }

    /// Whether a complete document would end something that it does not name.
    fn leaves_out(&self, document: &Document) -> bool {
        self.participants.iter().any(|known| {
            known.spans.is_open() && !document.participants.iter().any(|own| own.id == known.id)
        }) || self.sessions.iter().any(|known| {
            known.spans.is_open() && !document.sessions.iter().any(|own| own.id == known.id)
        })
    }

    /// RFC 7865 §6.10: an id that names two elements at a time is an error.
    fn look_for_doubles(&mut self, document: &Document) {
        let mut ids: Vec<&Id> = document.groups.iter().map(|own| &own.id).collect();
        ids.extend(document.sessions.iter().map(|own| &own.id));
        ids.extend(document.participants.iter().map(|own| &own.id));
        ids.extend(document.streams.iter().map(|own| &own.id));
        ids.sort();
        for pair in ids.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.quirks.note(&format!("id {} names two elements (RFC 7865 section 6.10)", pair[0]));
        }
    }
}
