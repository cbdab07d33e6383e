//! When an SRC is asked for a snapshot of its metadata (RFC 7866 §9.2), and when no more.
//!
//! Limits, so that an SRC that cannot or will not is left alone: one request at a time, not more than
//! one in [`APART_MS`], at most [`REQUESTS_MAX`] in an RS, none after a refusal. What has been said
//! until then stands; that it is in doubt shows in the metadata's own report.

use std::collections::HashSet;

use crate::base::time::Mono;
use crate::wire::metadata::{DataMode, Document, Id};

/// Two requests in one RS are this far apart. An SRC sends its snapshot at once (RFC 7866 §9.1).
pub(super) const APART_MS: u64 = 10_000;
/// Requests in one RS.
pub(super) const REQUESTS_MAX: u8 = 3;
/// Ids that are remembered, 8 octets each: a conference of 1,000 with its streams and associations.
/// Above it unknown ids are not looked for any more.
const IDS_MAX: usize = 4_096;

/// The need for a snapshot in one RS.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// A complete document came.
    has_base: bool,
    /// Ids that documents have named, hashed.
    known: HashSet<u64>,
    wanted: Option<&'static str>,
    asked: u8,
    not_before: Mono,
    open: bool,
    refused: bool,
}

impl Snapshot {
    /// One in an RS of before a restart: what its documents said is not known here.
    pub fn after_restart(not_before: Mono) -> Self {
        let wanted = Some("the recorder was restarted");
        Snapshot { has_base: true, wanted, not_before, ..Snapshot::default() }
    }

    /// Takes a document that came in a request.
    pub fn take(&mut self, document: &Document) {
        if document.datamode == DataMode::Complete {
            self.has_base = true;
            self.wanted = None;
            self.known.clear();
        } else if !self.has_base {
            self.want("a partial document came before any complete one");
        }
        for id in named(document) {
            if self.known.len() < IDS_MAX {
                self.known.insert(hash(id));
            }
        }
        let full = self.known.len() >= IDS_MAX;
        let unknown = |id: &Id| !self.known.contains(&hash(id));
        if document.datamode == DataMode::Partial && !full && referred(document).any(unknown) {
            self.want("a document refers to an id that none has described");
        }
    }

    /// A document could not be read.
    pub fn unreadable(&mut self) {
        self.want("a document could not be read");
    }

    /// One is wanted for another reason, and not before that instant.
    pub fn ask(&mut self, why: &'static str, not_before: Mono) {
        self.want(why);
        self.not_before = self.not_before.max(not_before);
    }

    fn want(&mut self, why: &'static str) {
        self.wanted.get_or_insert(why);
    }

    /// When [`Self::poll`] has something to say; `None`: not until something happens.
    pub fn due(&self) -> Option<Mono> {
        let asks =
            self.wanted.is_some() && !self.open && !self.refused && self.asked < REQUESTS_MAX;
        asks.then_some(self.not_before)
    }

    /// Why to ask now, if so.
    pub fn poll(&self, now: Mono) -> Option<&'static str> {
        self.due().filter(|due| *due <= now).and(self.wanted)
    }

    /// The request was sent.
    pub fn sent(&mut self, now: Mono) {
        self.open = true;
        self.asked += 1;
        self.not_before = now.plus_ms(APART_MS);
    }

    /// It cannot be sent now: again in `ms`.
    pub fn later(&mut self, now: Mono, ms: u64) {
        self.not_before = now.plus_ms(ms);
    }

    /// Its answer. The snapshot itself comes in a request of its own.
    pub fn answered(&mut self, code: u16) {
        self.open = false;
        // 491 and 5xx of the moment are tried again; else the SRC knows no such thing.
        self.refused |= matches!(code, 400..=490 | 501 | 505 | 600..);
    }

    /// No answer came.
    pub fn unanswered(&mut self) {
        self.open = false;
    }

    /// A request is under way.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// It is wanted, and will not be asked for (any more).
    pub fn is_given_up(&self) -> bool {
        self.wanted.is_some() && !self.open && self.due().is_none()
    }
}

fn hash(id: &Id) -> u64 {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

/// Ids that a document describes.
fn named(document: &Document) -> impl Iterator<Item = &Id> {
    let groups = document.groups.iter().map(|own| &own.id);
    let sessions = document.sessions.iter().map(|own| &own.id);
    let participants = document.participants.iter().map(|own| &own.id);
    let streams = document.streams.iter().map(|own| &own.id);
    groups.chain(sessions).chain(participants).chain(streams)
}

/// Ids that it refers to. A group that nobody describes is common and harms nothing.
fn referred(document: &Document) -> impl Iterator<Item = &Id> {
    let of_streams = document.streams.iter().filter_map(|own| own.session.as_ref());
    let members =
        document.participant_session.iter().flat_map(|own| [&own.participant, &own.session]);
    let ends = document
        .participant_stream
        .iter()
        .flat_map(|own| std::iter::once(&own.participant).chain(&own.send).chain(&own.recv));
    of_streams.chain(members).chain(ends)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::metadata::{Root, parse};

    fn document(inner: &str) -> Document {
        let xml =
            format!("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">{inner}</recording>");
        match parse(xml.as_bytes(), None) {
            Ok(Root::Recording(document)) => *document,
            other => panic!("{other:?}"),
        }
    }

    const PARTIAL: &str = "<datamode>partial</datamode>";
    const ANN: &str = "<participant participant_id=\"AAAAAAAAAAAAAAAAAAAAAg==\"/>";
    const SENDS: &str = "<participantstreamassoc participant_id=\"AAAAAAAAAAAAAAAAAAAAAg==\">\
        <send>AAAAAAAAAAAAAAAAAAAABA==</send></participantstreamassoc>";

    #[test]
    fn it_is_asked_for_at_most_three_times_ten_seconds_apart() {
        let mut snapshot = Snapshot::default();
        snapshot.take(&document(ANN));
        assert_eq!(snapshot.due(), None, "nothing is missing");
        snapshot.unreadable();
        let mut now = Mono(5);
        for _ in 0..REQUESTS_MAX {
            assert!(snapshot.poll(now).is_some());
            snapshot.sent(now);
            assert_eq!(snapshot.poll(now.plus_ms(60_000)), None, "one at a time");
            snapshot.answered(200);
            assert_eq!(snapshot.poll(now.plus_ms(9_999)), None);
            now = now.plus_ms(APART_MS);
        }
        assert_eq!(snapshot.poll(now.plus_ms(1_000_000)), None);
        assert!(snapshot.is_given_up());
    }

    #[test]
    fn a_complete_document_answers_it_and_a_refusal_ends_it() {
        let mut snapshot = Snapshot::default();
        snapshot.take(&document(&format!("{PARTIAL}{ANN}")));
        assert_eq!(snapshot.poll(Mono(0)), Some("a partial document came before any complete one"));
        snapshot.sent(Mono(0));
        snapshot.take(&document(ANN));
        snapshot.answered(200);
        assert_eq!(snapshot.due(), None);
        snapshot.take(&document(&format!("{PARTIAL}{SENDS}")));
        assert!(snapshot.poll(Mono(0).plus_ms(APART_MS)).is_some_and(|why| why.contains("refers")));
        for (code, goes_on) in [(491, true), (500, true), (415, false), (501, false)] {
            let mut asked = snapshot.clone();
            asked.sent(Mono(0));
            asked.answered(code);
            assert_eq!(asked.due().is_some(), goes_on, "{code}");
        }
    }

    #[test]
    fn ids_described_in_any_document_are_known_and_a_complete_one_forgets_them() {
        let stream = "<stream stream_id=\"AAAAAAAAAAAAAAAAAAAABA==\"/>";
        let mut snapshot = Snapshot::default();
        snapshot.take(&document(ANN));
        snapshot.take(&document(&format!("{PARTIAL}{stream}")));
        snapshot.take(&document(&format!("{PARTIAL}{SENDS}")));
        assert_eq!(snapshot.due(), None);
        snapshot.take(&document(stream));
        snapshot.take(&document(&format!("{PARTIAL}{SENDS}")));
        assert!(snapshot.due().is_some(), "she is described no more");
        let restarted = Snapshot::after_restart(Mono(9));
        assert_eq!((restarted.poll(Mono(8)), restarted.due()), (None, Some(Mono(9))));
    }
}
