//! The account of one stream.

use std::collections::BTreeMap;

use super::blame::{Blame, Claim, Dark, Tail};
use super::contributors::Contributors;
use super::dtmf::Digits;
use super::evidence::{HostEvidence, Loss};
use super::instants::{Anchor, Anchors};
use super::jitter::Jitters;
use super::presence::{Presence, SILENCE_NS, subtract};
use super::reports::Reports;
use super::runs::{Hole, Runs};
use super::text::{RedText, Texts};
use crate::base::counter::{Cause, Counter};
use crate::base::time::{Mono, Wall};
use crate::store::catalog::model::{Digit, Pause, RtpTime, Source, StreamState, TextLine, Verdict};
use crate::store::event::{Event, Format, Origin, StreamDescription};

/// SSRCs whose reports are kept: an SRC reports on its own few sources; the rest is noise.
const REPORTERS_MAX: usize = 64;
/// SSRCs whose CNAME is kept: a mixer names all that contribute (RFC 7866 §8.1.5), and a conference on one
/// line has hundreds at most.
const NAMES_MAX: usize = 1_024;
/// A source that was not heard for so long around an instant says nothing about it, where another was.
const NEAR_NS: i64 = 10_000_000_000;

/// One recorded RTP packet, as far as the ledger cares.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Order of appearance of its SSRC, from 1.
    pub ordinal: u16,
    /// Its SSRC.
    pub ssrc: u32,
    /// 48-bit index.
    pub index: u64,
    /// When the kernel saw it.
    pub arrival: Wall,
    /// Bytes of the whole packet after decryption.
    pub bytes: u64,
    /// Payload type.
    pub payload_type: u8,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Its CSRC list, four octets each.
    pub csrcs: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// The fold over one stream's records. Sources may come one after the other (as in a segment) or
/// mixed (as in the log).
#[derive(Clone, Debug, Default)]
pub struct StreamLedger {
    description: Option<StreamDescription>,
    /// When RTP time is asked for, sorted.
    instants: Vec<Wall>,
    sources: BTreeMap<u16, SourceAccount>,
    reports: BTreeMap<u32, Reports>,
    /// CNAMEs by SDES, of sources and of those that contribute to them.
    names: BTreeMap<u32, String>,
    digits: Digits,
    texts: Texts,
    opened: Option<Wall>,
    /// Once more, by a recorder that was down and found it still promised.
    opened_last: Option<Wall>,
    closed: Option<Wall>,
    pauses: Vec<Pause>,
    claims: Vec<Claim>,
    dark: Vec<Dark>,
    /// Its own last record, the one that closes it, stands in a segment.
    sealed_end: bool,
    /// When records of it alone cannot be read.
    lost: Vec<(Wall, Wall)>,
    drops: BTreeMap<String, u64>,
    socket_drops: u64,
    /// Some of these may be other streams' packets.
    shares_socket: bool,
    last_seen: Option<Wall>,
}

/// Where the packets of one source go.
pub struct Packets<'a> {
    ssrc: u32,
    source: &'a mut SourceAccount,
    reports: Option<&'a mut Reports>,
    description: Option<&'a StreamDescription>,
    /// Payload types, a bit each, that are digits or text.
    special: u128,
    /// The payload type that came last, and the rate of its clock.
    rate: (u8, u32),
    instants: &'a [Wall],
    digits: &'a mut Digits,
    texts: &'a mut Texts,
    last_seen: &'a mut Option<Wall>,
}

#[derive(Clone, Debug, Default)]
struct SourceAccount {
    ssrc: u32,
    runs: Runs,
    presence: Presence,
    anchors: Anchors,
    contributors: Contributors,
    jitters: Jitters,
    packets: u64,
    bytes: u64,
    duplicates: u64,
    first_arrival: Option<Wall>,
    last_arrival: Option<Wall>,
    /// First and last index of records that are gone by retention.
    expired: Vec<(u64, u64)>,
}

/// What the ledger says about a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// What the stream is, by its `open` and `changed` events.
    pub description: Option<StreamDescription>,
    /// The verdict.
    pub verdict: Verdict,
    /// Seconds neither recorded, paused nor proven idle.
    pub unproven_s: f64,
    /// Per SSRC.
    pub sources: Vec<Source>,
    /// Pauses.
    pub pauses: Vec<Pause>,
    /// DTMF.
    pub dtmf: Vec<Digit>,
    /// There was more of it than that.
    pub dtmf_cut: bool,
    /// Lines of real-time text, and whether there were more than are kept.
    pub text: (Vec<TextLine>, bool),
    /// Datagrams not recorded, by counter label.
    pub drops: BTreeMap<String, u64>,
    /// Where it stands.
    pub state: StreamState,
}

impl StreamLedger {
    /// An account without records.
    pub fn new() -> Self {
        Self::default()
    }

    /// Same; of the instants `of` it is known afterwards what RTP time was.
    pub fn timing(of: impl IntoIterator<Item = Wall>) -> Self {
        let mut instants: Vec<Wall> = of.into_iter().collect();
        instants.sort_unstable();
        instants.dedup();
        StreamLedger { instants, ..Self::default() }
    }

    /// RTP time at an instant that was named before, by each source that was heard around then; by the
    /// one that was heard nearest, where none was.
    pub fn rtp_at(&self, at: Wall) -> Vec<RtpTime> {
        let Ok(place) = self.instants.binary_search(&at) else { return Vec::new() };
        let times = self.sources.values().filter_map(|source| {
            let anchor = source.anchors.nearest(place, at)?;
            let (ssrc, timestamp) = (source.ssrc, anchor.timestamp_at(at, self.rate(anchor)?));
            let distance_ms = (at.0 - anchor.arrival.0) / 1_000_000;
            Some(RtpTime { ssrc, timestamp, distance_ms })
        });
        let mut times: Vec<RtpTime> = times.collect();
        times.sort_by_key(|time| time.distance_ms.abs());
        let near = |time: &RtpTime| time.distance_ms.abs() <= NEAR_NS / 1_000_000;
        let heard = times.iter().filter(|time| near(time)).count();
        times.truncate(heard.max(1));
        times
    }

    /// Clock rate of what a packet carries.
    fn rate(&self, anchor: Anchor) -> Option<u32> {
        format(self.description.as_ref()?, anchor.payload_type).map(|format| format.clock_rate)
    }

    /// What the stream is, as far as its events have said.
    pub fn description(&self) -> Option<&StreamDescription> {
        self.description.as_ref()
    }

    /// When it was closed for good, as far as was seen: it may be opened again after a close, where
    /// a power cut took what the journal was to say of its end.
    fn closed_last(&self) -> Option<Wall> {
        self.closed.filter(|closed| self.opened_last.is_none_or(|opened| opened <= *closed))
    }

    /// Takes that all of it that was seen stands in segments.
    pub fn seal_end(&mut self) {
        self.sealed_end = self.closed_last().is_some();
    }

    /// Whether the record that closes it is sealed: it is the last one, and none is behind the segments.
    pub const fn has_sealed_end(&self) -> bool {
        self.sealed_end
    }

    /// When its last record arrived.
    pub fn last_seen(&self) -> Option<Wall> {
        self.last_seen
    }

    /// SSRCs by ordinal, as far as events and packets told.
    pub fn ssrcs(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        self.sources.iter().map(|(ordinal, source)| (*ordinal, source.ssrc))
    }

    /// Takes a recorded RTP packet.
    pub fn packet(&mut self, packet: &Packet<'_>) {
        self.packets(packet.ordinal, packet.ssrc).take(packet);
    }

    /// Ready for packets of one source, of which all that does not change from packet to packet is looked up
    /// now.
    pub fn packets(&mut self, ordinal: u16, ssrc: u32) -> Packets<'_> {
        let StreamLedger {
            description, instants, sources, reports, digits, texts, last_seen, ..
        } = self;
        let source = sources.entry(ordinal).or_default();
        source.ssrc = ssrc;
        let special = description.as_ref().map_or(0, special);
        let (reports, description) = (reports_of(reports, ssrc), description.as_ref());
        Packets {
            ssrc,
            source,
            reports,
            description,
            special,
            rate: (u8::MAX, 0),
            instants,
            digits,
            texts,
            last_seen,
        }
    }

    /// Takes a sender report: the SSRC's own packet count (RFC 3550 §6.4.1).
    pub fn sender_report(&mut self, arrival: Wall, ssrc: u32, packets_sent: u32) {
        self.last_seen = self.last_seen.max(Some(arrival));
        if let Some(reports) = reports_of(&mut self.reports, ssrc) {
            reports.report(arrival, packets_sent);
        }
    }

    /// Takes a CNAME (RFC 3550 §6.5.1).
    pub fn cname(&mut self, ssrc: u32, cname: &str) {
        if let Some(known) = self.names.get_mut(&ssrc) {
            // Each report says it again.
            if known != cname {
                cname.clone_into(known);
            }
        } else if self.names.len() < NAMES_MAX {
            self.names.insert(ssrc, cname.to_owned());
        }
    }

    /// Takes an event of the stream. `wall` converts monotonic times of that boot.
    pub fn event(&mut self, arrival: Wall, wall: impl Fn(Mono) -> Wall, event: Event) {
        self.last_seen = self.last_seen.max(Some(arrival));
        match event {
            Event::Open { description } => {
                self.description = Some(description);
                self.opened = Some(self.opened.map_or(arrival, |opened| opened.min(arrival)));
                self.opened_last = self.opened_last.max(Some(arrival));
            }
            Event::Changed { description, .. } => self.description = Some(description),
            Event::Pause { by } if self.pauses.last().is_none_or(|pause| pause.to.is_some()) => {
                let cause = origin(by).to_owned();
                self.pauses.push(Pause { from: arrival, to: None, cause });
            }
            Event::Resume { .. } => self.end_pause(arrival),
            Event::Close { drops, socket_drops, shared, .. } => {
                self.closed = self.closed.max(Some(arrival));
                self.end_pause(arrival);
                for (label, count) in drops {
                    *self.drops.entry(label).or_default() += count;
                }
                self.socket_drops += socket_drops;
                self.shares_socket |= shared;
            }
            Event::Source { ordinal, ssrc, .. } => {
                self.sources.entry(ordinal).or_default().ssrc = ssrc.0;
            }
            Event::Dropped { cause, count, from, to, ssrc, range, shared } => {
                self.claims.push(Claim {
                    cause,
                    from: wall(from),
                    to: wall(to),
                    count,
                    ssrc: ssrc.map(|ssrc| ssrc.0),
                    range: range.map(|(first, last)| (first.0, last.0)),
                    shared,
                })
            }
            Event::Gap { cause, from, to } => self.dark.push(Dark { cause, from, to }),
            _ => {}
        }
    }

    fn end_pause(&mut self, at: Wall) {
        if let Some(pause) = self.pauses.last_mut() {
            pause.to.get_or_insert(at);
        }
    }

    /// Takes that records of the stream cannot be read any more.
    pub fn lose(&mut self, loss: &Loss) {
        self.lost.push((loss.since, loss.until));
    }

    /// Takes that records of a source are gone by retention, from the first index to the last: what is
    /// missing there is not lost.
    pub fn expire(&mut self, ordinal: u16, (first, last): (u64, u64)) {
        self.sources.entry(ordinal).or_default().expired.push((first, last));
    }

    /// The account as it stands. `through`: for a stream that is still open, records up to here are
    /// known; nothing is said about the time after. `end`: when it was closed, as far as others say.
    pub fn account(
        &self,
        host: &HostEvidence,
        through: Option<Wall>,
        end: Option<Wall>,
    ) -> Account {
        let claims = self.all_claims();
        let with_gaps =
            self.sources.values().filter(|source| source.holes().next().is_some()).count();
        let (dark, absent) = (self.all_dark(host, end), self.absences(host, end));
        let mut blame = Blame::new(&claims, &dark, host, with_gaps > 1);
        let heard = self.sources.values().filter(|source| source.packets > 0).count();
        let replayed = self.drops.get(Counter::Replayed.label()).copied().unwrap_or(0);
        let sources: Vec<Source> = self
            .sources
            .values()
            .filter(|source| source.packets > 0)
            .map(|source| {
                // The replay counter is the stream's: with one source it is that source's.
                let replayed = if heard == 1 { replayed } else { 0 };
                self.source(source, &mut blame, (&dark, &absent), replayed)
            })
            .collect();
        let unproven_s = self.unproven_s(through);
        // What came in a pause is missing on purpose.
        let meant = |source: &Source| {
            let paused = source.lost.keys().all(|cause| *cause == Cause::Paused);
            paused && source.lost_range.is_empty() && source.unexplained == 0
        };
        let gaps = sources.iter().any(|source| !source.gaps.is_empty() && !meant(source));
        // What further SSRCs of the line sent is not there, however whole those are that had a place.
        let refused =
            self.drops.get(Counter::TooManySources.label()).is_some_and(|count| *count > 0);
        let agree =
            sources.iter().all(|source| self.reports.get(&source.ssrc).is_some_and(Reports::agree));
        let verdict = match () {
            () if sources.is_empty() => Verdict::Empty,
            () if gaps || refused => Verdict::Gaps,
            () if agree && unproven_s == 0.0 => Verdict::Complete,
            () => Verdict::Continuous,
        };
        let state = match () {
            () if self.closed_last().is_some() => StreamState::Closed,
            () if self.pauses.last().is_some_and(|pause| pause.to.is_none()) => StreamState::Paused,
            () => StreamState::Active,
        };
        Account {
            description: self.description.clone(),
            verdict,
            unproven_s,
            sources,
            pauses: self.pauses.clone(),
            dtmf: self.digits.digits(),
            dtmf_cut: self.digits.is_cut(),
            text: self.texts.lines(),
            drops: self.drops.clone(),
            state,
        }
    }

    fn source(
        &self,
        source: &SourceAccount,
        blame: &mut Blame<'_>,
        (dark, absent): (&[Dark], &[Dark]),
        replayed: u64,
    ) -> Source {
        let (first_index, last_index) = source.runs.bounds().expect("has a packet");
        let reports = self.reports.get(&source.ssrc);
        let proven = reports.map(|reports| reports.proven(self.opened.unwrap_or_default()));
        let proven = proven.unwrap_or_default();
        // Where the recorder itself was away, the numbers went on without it.
        let away = |hole: &Hole| {
            let (from, to) = hole.span();
            dark.iter().any(|dark| dark.from <= to && dark.to >= from)
        };
        let holes = source.holes().filter(|hole| away(hole) || !source.jumps(hole, &proven));
        let mut verdicts = blame.source(source.ssrc, holes);
        if let Some(tail) = source.tail() {
            blame.tail(&tail, absent, &self.pauses, &mut verdicts);
        }
        verdicts.close();
        let name = |ssrc: u32| self.names.get(&ssrc).cloned();
        let (contributors, contributors_cut) = source.contributors.told(&source.runs, name);
        Source {
            ssrc: source.ssrc,
            cname: name(source.ssrc),
            first_index,
            last_index,
            packets: source.packets,
            bytes: source.bytes,
            lost: verdicts.lost,
            lost_range: verdicts.lost_range,
            duplicates: source.duplicates + replayed,
            jitter: source.jitters.told(),
            unexplained: verdicts.unexplained,
            first_arrival: source.first_arrival,
            last_arrival: source.last_arrival,
            rtcp_sent: reports.and_then(Reports::sent),
            gaps: verdicts.gaps,
            contributors,
            contributors_cut,
        }
    }

    /// When nothing of the stream was recorded, or nothing of that is left: by its own events, and by
    /// what the disk has lost. Nothing came behind its end, whatever of the disk's is gone from then.
    fn all_dark(&self, host: &HostEvidence, end: Option<Wall>) -> Vec<Dark> {
        let end = self.closed_last().or(end).unwrap_or(Wall(i64::MAX));
        let mut dark = self.dark.clone();
        let lost = self.lost.iter().map(|(from, to)| (*from, (*to).min(end)));
        lost.for_each(|lost| self.darken(&mut dark, Cause::Damage, lost));
        for loss in host.losses().iter().filter(|loss| !(loss.tail && self.sealed_end)) {
            let cause = if loss.durable { Cause::Damage } else { Cause::Power };
            self.darken(&mut dark, cause, (loss.since, loss.until.min(end)));
        }
        dark
    }

    /// Starts of the recorder that did not take the stream up again, though nobody had closed it: what
    /// came last was not on disk. Of what stands before a record that is, nothing is lost.
    fn absences(&self, host: &HostEvidence, end: Option<Wall>) -> Vec<Dark> {
        let mut dark = Vec::new();
        if self.closed_last().is_none() {
            for (from, to) in host.absences() {
                let to = end.map_or(*to, |end| end.min(*to));
                let told = |dark: &Dark| dark.from <= to && dark.to >= *from;
                if !self.dark.iter().any(told) {
                    self.darken(&mut dark, Cause::Power, (*from, to));
                }
            }
        }
        dark
    }

    fn darken(&self, all: &mut Vec<Dark>, cause: Cause, (from, to): (Wall, Wall)) {
        let from = from.max(self.opened.unwrap_or_default());
        if from < to {
            all.push(Dark { cause, from, to });
        }
    }

    /// The claims of `dropped` events, and for what the final counters hold beyond them one claim
    /// over the stream's whole life.
    fn all_claims(&self) -> Vec<Claim> {
        let mut claims = self.claims.clone();
        let mut totals: BTreeMap<Cause, u64> = BTreeMap::new();
        for counter in Counter::ALL {
            if let (Some(count), Some(cause)) = (self.drops.get(counter.label()), cause_of(counter))
            {
                *totals.entry(cause).or_default() += count;
            }
        }
        *totals.entry(Cause::Socket).or_default() += self.socket_drops;
        for (cause, total) in totals {
            let told: u64 = self
                .claims
                .iter()
                .filter(|claim| claim.cause == cause)
                .map(|claim| claim.count)
                .sum();
            if let (Some(count @ 1..), Some(from), Some(to)) =
                (total.checked_sub(told), self.opened, self.closed)
            {
                let shared = cause == Cause::Socket && self.shares_socket;
                claims.push(Claim { cause, from, to, count, ssrc: None, range: None, shared });
            }
        }
        claims
    }

    /// Seconds of the active periods in which nothing was recorded for more than a second and the
    /// SRC's counts do not prove that nothing was sent.
    fn unproven_s(&self, through: Option<Wall>) -> f64 {
        let Some(opened) = self.opened else { return 0.0 };
        let end = through.max(self.last_seen).unwrap_or(opened);
        let end = self.closed_last().unwrap_or(end);
        let mut paused: Vec<(Wall, Wall)> =
            self.pauses.iter().map(|pause| (pause.from, pause.to.unwrap_or(end))).collect();
        let mut heard: Vec<(Wall, Wall)> = self
            .sources
            .values()
            .flat_map(|source| source.presence.spans().iter().copied())
            .collect();
        let mut unproven_ns = 0;
        for active in subtract((opened, end), &mut paused) {
            for silence in subtract(active, &mut heard) {
                if silence.1.0 - silence.0.0 > SILENCE_NS {
                    unproven_ns += self.unproven_ns(opened, silence);
                }
            }
        }
        // Whole milliseconds: more digits would claim a precision that nobody has.
        (unproven_ns / 1_000_000) as f64 / 1_000.0
    }

    fn unproven_ns(&self, opened: Wall, silence: (Wall, Wall)) -> i64 {
        // Who spoke last before the silence must prove it; before the first packet, who spoke next.
        let speaker = self
            .sources
            .values()
            .filter_map(|source| {
                let before = source.presence.spans().iter().rfind(|span| span.1 <= silence.0);
                let after = source.presence.spans().iter().find(|span| span.0 >= silence.1);
                let rank = match (before, after) {
                    (Some(span), _) => (1, span.1.0),
                    (None, Some(span)) => (0, -span.0.0),
                    (None, None) => return None,
                };
                Some((rank, source.ssrc))
            })
            .max()
            .map(|(_, ssrc)| ssrc);
        let reporter = match speaker {
            Some(ssrc) => self.reports.get(&ssrc),
            // No packet at all: a report that counts zero packets proves it.
            None => self.reports.values().next(),
        };
        let mut proven = reporter.map(|reports| reports.proven(opened)).unwrap_or_default();
        subtract(silence, &mut proven).iter().map(|(from, to)| to.0 - from.0).sum()
    }
}

impl SourceAccount {
    /// Its gaps, without what is gone by retention.
    fn holes(&self) -> impl Iterator<Item = Hole> + '_ {
        self.runs.holes().flat_map(|hole| {
            let mut left = vec![hole];
            for (first, last) in &self.expired {
                left = left.into_iter().flat_map(|hole| hole.without(*first, *last)).collect();
            }
            left
        })
    }

    /// Whether the SRC began anew there instead of having lost so much (F41): more than half of all
    /// sequence numbers at once, in a time in which it could not have sent them, or over which its own
    /// reports prove that nothing is missing.
    fn jumps(&self, hole: &Hole, proven: &[(Wall, Wall)]) -> bool {
        if hole.count() < 1 << 15 {
            return false;
        }
        let (from, to) = hole.span();
        if subtract((from, to), &mut proven.to_vec()).is_empty() {
            return true;
        }
        // Four times its own pace, and half of that many again for a source that was heard for a moment.
        let step_ns = self.tail().map_or(0, |tail| tail.step_ns);
        let could = ((to.0 - from.0) as u64 * 4).checked_div(step_ns).unwrap_or(u64::MAX);
        hole.count() > could.saturating_add(1 << 14)
    }

    /// Its last packet, and how far apart they were while it was heard; `None` where none came.
    fn tail(&self) -> Option<Tail> {
        let (_, last) = self.runs.bounds()?;
        let heard: i64 = self.presence.spans().iter().map(|(from, to)| to.0 - from.0).sum();
        let steps = self.packets.saturating_sub(self.presence.spans().len() as u64);
        let step_ns = (heard as u64).checked_div(steps).unwrap_or(0);
        Some(Tail { last, at: self.last_arrival?, step_ns })
    }
}

/// What a payload type was agreed to carry; of one that was not, what the first does.
fn format(description: &StreamDescription, payload_type: u8) -> Option<&Format> {
    let formats = &description.formats;
    let own = formats.iter().find(|format| format.payload_type == payload_type);
    own.or_else(|| formats.first())
}

impl Packets<'_> {
    /// Whose they are.
    pub const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Takes the next one.
    #[inline]
    pub fn take(&mut self, packet: &Packet<'_>) {
        let source = &mut *self.source;
        source.presence.add(packet.arrival);
        source.first_arrival =
            Some(source.first_arrival.map_or(packet.arrival, |first| first.min(packet.arrival)));
        source.last_arrival = source.last_arrival.max(Some(packet.arrival));
        *self.last_seen = (*self.last_seen).max(Some(packet.arrival));
        if !source.runs.add(packet.index, packet.arrival) {
            source.duplicates += 1;
            return;
        }
        source.packets += 1;
        source.bytes += packet.bytes;
        source.contributors.packet(packet.index, packet.arrival, packet.csrcs, &source.runs);
        if let Some(reports) = &mut self.reports {
            reports.packet(packet.arrival);
        }
        let Packet { ordinal, timestamp, payload, payload_type, arrival, .. } = *packet;
        let is_special = self.special >> payload_type & 1 == 1;
        let event = if is_special { telephone_event(self.description, payload_type) } else { None };
        if let Some(clock_rate) = event {
            // Its timestamp is that of the digit's begin, however long it lasts.
            self.digits.packet(ordinal, timestamp, payload, clock_rate, arrival);
        } else {
            if self.rate.0 != payload_type {
                let format = self.description.and_then(|own| format(own, payload_type));
                self.rate = (payload_type, format.map_or(0, |format| format.clock_rate));
            }
            source.jitters.packet(arrival, timestamp, self.rate.1);
            if !self.instants.is_empty() {
                source.anchors.packet(self.instants, Anchor { arrival, timestamp, payload_type });
            }
        }
        if is_special
            && let Some(form) = self.description.and_then(|own| text_form(own, payload_type))
        {
            let from = (ordinal, packet.ssrc);
            self.texts.packet(from, packet.index, arrival, payload, form);
        }
    }
}

/// The payload types of a line, a bit each, whose payload is looked into.
fn special(description: &StreamDescription) -> u128 {
    let looked_into = |format: &&Format| {
        let payload_type = format.payload_type;
        telephone_event(Some(description), payload_type).is_some()
            || text_form(description, payload_type).is_some()
    };
    let formats = description.formats.iter().filter(|format| format.payload_type < 128);
    formats.filter(looked_into).fold(0, |all, format| all | 1 << format.payload_type)
}

/// The clock rate of what a payload type carries, where it is telephone events (RFC 4733).
fn telephone_event(description: Option<&StreamDescription>, payload_type: u8) -> Option<u32> {
    let formats = &description?.formats;
    let format = formats.iter().find(|format| format.payload_type == payload_type)?;
    format.codec.eq_ignore_ascii_case("telephone-event").then_some(format.clock_rate)
}

/// How a packet of a line of text carries it: `Some(None)`: as it is. `None`: it carries none.
fn text_form(description: &StreamDescription, payload_type: u8) -> Option<Option<RedText>> {
    if description.media != "text" {
        return None;
    }
    let formats = &description.formats;
    let is = |codec: &'static str| move |format: &&Format| format.codec.eq_ignore_ascii_case(codec);
    let own = formats.iter().find(|format| format.payload_type == payload_type)?;
    if is("t140")(&own) {
        return Some(None);
    }
    let text = formats.iter().find(is("t140"))?;
    let (text, clock_rate) = (text.payload_type, own.clock_rate);
    is("red")(&own).then_some(Some(RedText { text, clock_rate }))
}

fn reports_of(reports: &mut BTreeMap<u32, Reports>, ssrc: u32) -> Option<&mut Reports> {
    if reports.len() >= REPORTERS_MAX && !reports.contains_key(&ssrc) {
        return None;
    }
    Some(reports.entry(ssrc).or_default())
}

fn origin(by: Origin) -> &'static str {
    match by {
        Origin::Src => "src",
        Origin::Srs => "srs",
        Origin::Observed => "observed",
    }
}

/// The cause that a stream's own counter is evidence for.
fn cause_of(counter: Counter) -> Option<Cause> {
    match counter {
        Counter::AuthFailed => Some(Cause::Auth),
        Counter::Late => Some(Cause::Late),
        Counter::Truncated => Some(Cause::Truncated),
        Counter::TooManySources | Counter::Stranger => Some(Cause::Refused),
        Counter::Paused => Some(Cause::Paused),
        Counter::QuarantineExpired => Some(Cause::Quarantine),
        Counter::RingFull => Some(Cause::Ring),
        Counter::Poison => Some(Cause::Poison),
        Counter::RtpRecorded
        | Counter::RtcpRecorded
        | Counter::Malformed
        | Counter::NoStream
        | Counter::Replayed
        | Counter::KeepAlive
        | Counter::Unencrypted => None,
    }
}

#[cfg(test)]
mod tests;
