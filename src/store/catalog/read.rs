//! A recording put together from what the journal says and what the records show.

use std::collections::{BTreeMap, BTreeSet};

use super::controls::Action;
use super::fold::{RsEntry, StreamEntry};
use super::model::{
    Association, Control, Expiry, Gap, MediaSecurity, Recording, Retention, Seal, SealState,
    Security, Src, State, Stream, StreamState,
};
use super::people::people;
use crate::base::counter::Cause;
use crate::base::ids::{SourceId, StreamId, WorkerId};
use crate::base::suite::Agreed;
use crate::base::time::Wall;
use crate::store::archive::{Damaged, Expired, Seen, Watermark};
use crate::store::evidence::Hash;
use crate::store::journal::entry::line_name;
use crate::store::ledger::{Ledgers, Loss, StreamLedger};
use crate::store::segment::SegmentName;

/// A close is asked for until media has carried it out, while there is room in the ring: whatever
/// became of it, nothing comes so long after an end. For journals that do not tell of every close.
const CLOSED_NS: i64 = 3_600_000_000_000;

/// Collects what the records of some recordings show.
pub(super) struct Watch {
    ledgers: Ledgers,
    /// Who has records of a stream: when the last of each arrived.
    workers: BTreeMap<StreamId, BTreeMap<WorkerId, Wall>>,
    segments: BTreeMap<StreamId, BTreeSet<SegmentName>>,
    unsealed: BTreeSet<StreamId>,
    /// Of what is gone by retention: since when, and by which class.
    expired: BTreeMap<StreamId, (Wall, String)>,
}

impl Watch {
    /// Ready for the streams of `wanted`.
    pub(super) fn new(wanted: &[&RsEntry]) -> Self {
        let streams = wanted.iter().flat_map(|rs| rs.streams.iter().map(move |one| (rs, one)));
        let streams = streams
            .map(|(rs, (stream, entry))| (*stream, StreamLedger::timing(rs.turns.instants(entry))));
        let ledgers = Ledgers { streams: streams.collect(), ..Ledgers::default() };
        Watch {
            ledgers,
            workers: BTreeMap::new(),
            segments: BTreeMap::new(),
            unsealed: BTreeSet::new(),
            expired: BTreeMap::new(),
        }
    }

    /// Takes records. Those of a source stand one behind the other, so whose they are is looked up once for
    /// all of them.
    pub(super) fn run<'a>(&mut self, mut records: impl Iterator<Item = Seen<'a>>) {
        let mut next = records.next();
        while let Some(first) = next {
            let source = first.record.meta.source;
            let (mut waits, mut last) = (Some(first), first.wall());
            next = None;
            self.ledgers.feed(source.stream()).records(&mut || {
                let seen = waits.take().or_else(|| records.next())?;
                if seen.record.meta.source != source {
                    next = Some(seen);
                    return None;
                }
                last = last.max(seen.wall());
                Some((seen.record, seen.clock))
            });
            self.stands(source.stream(), (first.worker, first.place.segment), last);
        }
    }

    /// Records of `stream` stand there, of which the last arrived at `at`.
    fn stands(
        &mut self,
        stream: StreamId,
        (worker, segment): (WorkerId, Option<SegmentName>),
        at: Wall,
    ) {
        let last = self.workers.entry(stream).or_default().entry(worker).or_insert(at);
        *last = at.max(*last);
        match segment {
            Some(segment) if !stream.is_host() => {
                // Per worker the newest only: it vouches for those before it.
                let segments = self.segments.entry(stream).or_default();
                segments.retain(|known| known.worker != segment.worker || *known > segment);
                if !segments.iter().any(|known| known.worker == segment.worker) {
                    segments.insert(segment);
                }
            }
            Some(_) => {}
            None => {
                self.unsealed.insert(stream);
            }
        }
    }

    /// Takes what could not be read.
    pub(super) fn damaged(&mut self, damage: &Damaged) {
        let Some(lost) = damage.lost else { return };
        let loss = Loss {
            since: lost.since.unwrap_or(Wall(i64::MIN)),
            until: lost.until.unwrap_or(Wall(i64::MAX)),
            durable: lost.durable,
            tail: lost.tail,
            why: damage.why.clone(),
        };
        match damage.source.and_then(|one| self.ledgers.streams.get_mut(&one.stream())) {
            Some(ledger) => ledger.lose(&loss),
            None => self.ledgers.host.lose(loss),
        }
    }

    /// Takes that all records were seen: of streams whose own end is in a segment nothing stands in a log.
    pub(super) fn all_seen(&mut self) {
        for (stream, ledger) in &mut self.ledgers.streams {
            if !self.unsealed.contains(stream) {
                ledger.seal_end();
            }
        }
    }

    /// Whether each stream of a recording is sealed to its own last record.
    pub(super) fn ends_sealed(&self, rs: &RsEntry) -> bool {
        let is_sealed =
            |stream| self.ledgers.streams.get(stream).is_some_and(|ledger| ledger.has_sealed_end());
        !rs.streams.is_empty() && rs.streams.keys().all(is_sealed)
    }

    /// Takes what is gone by retention.
    pub(super) fn expired(&mut self, one: &Expired) {
        let stream = one.source.stream();
        if let Some(ledger) = self.ledgers.streams.get_mut(&stream) {
            ledger.expire(one.source.ordinal(), one.indexes);
        }
        let known = self.expired.entry(stream).or_insert_with(|| (Wall(0), String::new()));
        if known.0 <= one.gone.since {
            *known = (one.gone.since, one.gone.rule.clone());
        }
    }

    /// What is gone of a recording.
    fn expiry(&self, rs: &RsEntry) -> Option<Expiry> {
        let gone = rs.streams.keys().filter_map(|stream| self.expired.get(stream));
        let (since, class) = gone.max_by_key(|(since, _)| *since)?.clone();
        let here = rs.streams.keys().any(|stream| self.workers.contains_key(stream));
        Some(Expiry { since, class, whole: rs.end.is_some() && !here })
    }

    /// Records that were durable and are there no more.
    pub(super) fn losses(&self) -> Vec<Loss> {
        self.ledgers.host.losses().iter().filter(|loss| loss.durable).cloned().collect()
    }

    /// SSRCs by source, as far as events and packets told.
    pub(super) fn ssrcs(&self) -> BTreeMap<SourceId, u32> {
        let streams = self.ledgers.streams.iter();
        streams
            .flat_map(|(stream, ledger)| {
                ledger.ssrcs().map(|(ordinal, ssrc)| (SourceId::new(*stream, ordinal), ssrc))
            })
            .collect()
    }

    /// The watermarks that say how far a stream is known: that of the worker with its last record,
    /// since a stream goes to another one only when all memory is made anew, and nothing more comes
    /// of the one before; those of all where nobody has a record, since any of them may have had it.
    /// `None`: of a worker that came into being meanwhile.
    fn marks<'a>(
        &self,
        stream: StreamId,
        all: &'a BTreeMap<WorkerId, Watermark>,
    ) -> Option<Vec<&'a Watermark>> {
        match self.workers.get(&stream) {
            Some(own) => {
                let last = own.iter().max_by_key(|(_, at)| **at).map(|(worker, _)| worker);
                last.map(|worker| all.get(worker)).into_iter().collect()
            }
            None => Some(all.values().collect()),
        }
    }

    /// Everything of the recording that was captured up to then is durable.
    fn through(&self, rs: &RsEntry, all: &BTreeMap<WorkerId, Watermark>) -> Option<Wall> {
        let streams = rs.streams.keys();
        let marks = streams.filter_map(|stream| self.marks(*stream, all)).flatten();
        marks.filter_map(|mark| mark.durable_through).min()
    }

    /// Whether every record that there will ever be of a stream is on disk: it was closed, and what
    /// stood in the ring then is in segments, or the log is known beyond that instant.
    fn is_over(
        &self,
        rs: &RsEntry,
        entry: &StreamEntry,
        all: &BTreeMap<WorkerId, Watermark>,
    ) -> bool {
        let closed = entry.closed.or(rs.end.map(|end| Wall(end.0.saturating_add(CLOSED_NS))));
        if entry.through.is_none() && closed.is_some_and(|closed| self.was_left(entry, closed)) {
            return true;
        }
        let is_known = |mark: &&Watermark| {
            entry.through.is_some_and(|through| mark.sealed >= through)
                || closed.is_some_and(|closed| mark.durable_through > Some(closed))
        };
        let marks = self.marks(entry.description.stream, all);
        marks.is_some_and(|marks| !marks.is_empty() && marks.iter().all(is_known))
    }

    /// Whether a stream that media did not hold when it was closed is not in its memory because that
    /// was made anew since the stream's last record: what there is of it is on disk.
    fn was_left(&self, entry: &StreamEntry, closed: Wall) -> bool {
        let last = self.ledgers.streams[&entry.description.stream].last_seen();
        let mut absences = self.ledgers.host.absences().iter();
        absences.any(|(since, start)| *since <= closed && last.is_none_or(|last| last < *start))
    }

    /// Whether nothing can change any more of what is said of a recording, so that it may be kept: it
    /// is sealed, and the counters of the host, which explain gaps, were read since.
    pub(super) fn is_final(&self, recording: &Recording) -> bool {
        let sources = recording.streams.iter().flat_map(|stream| &stream.sources);
        // Nobody counted anything while the recorder was down, nor what the disk has lost.
        let counted = |gap: &Gap| !matches!(gap.cause, Some(Cause::Power | Cause::Damage));
        let gaps = sources.clone().any(|source| source.gaps.iter().any(counted));
        let last = sources.filter_map(|source| source.last_arrival).max();
        recording.seal.state == SealState::Sealed
            && (!gaps || self.ledgers.host.sampled_through() >= last)
    }

    pub(super) fn last_segments(&self) -> BTreeSet<SegmentName> {
        self.segments.values().flatten().copied().collect()
    }
}

/// What is said of a recording without any of its records: its ledger is empty, and its oddities are those of
/// its documents alone.
pub fn sketch(rs: &RsEntry) -> Recording {
    let recording = assemble(rs, &Watch::new(&[rs]), &BTreeMap::new(), &BTreeMap::new());
    // Whether it is sealed only its records tell.
    Recording { seal: Seal { state: SealState::Open, head: None }, ..recording }
}

/// The recording of `rs`. `heads`: when each segment was sealed, and its chain head. `marks`: how far
/// each worker's records go; read before the records.
pub(super) fn assemble(
    rs: &RsEntry,
    watch: &Watch,
    heads: &BTreeMap<SegmentName, (Wall, Hash)>,
    marks: &BTreeMap<WorkerId, Watermark>,
) -> Recording {
    let people = people(rs);
    let through = watch.through(rs, marks);
    let is_over = rs.streams.values().all(|entry| watch.is_over(rs, entry, marks));
    let seal = seal(rs, watch, heads, is_over);
    let mut streams: Vec<Stream> = rs
        .streams
        .values()
        .map(|entry| {
            let mut stream = stream(rs, entry, watch, through);
            (stream.participants, stream.associations) = people.on(entry);
            stream.controls = controls(rs, entry, watch, &stream.associations);
            stream
        })
        .collect();
    streams.sort_by_key(|stream| {
        let line = rs.streams[&stream.stream].description.line;
        (line, stream.stream)
    });
    let media = rs
        .streams
        .values()
        .map(|entry| protection(entry.description.suite))
        .min()
        .unwrap_or(MediaSecurity::Rtp);
    let mut quirks = rs.quirks.clone();
    for quirk in people.quirks(rs, &streams) {
        if !quirks.contains(&quirk) {
            quirks.push(quirk);
        }
    }
    Recording {
        id: rs.id,
        state: rs.state,
        start: rs.start,
        end: rs.end,
        call_id: rs.dialog.call_id.clone(),
        src: Src {
            address: rs.src.address.map(|address| address.to_string()).unwrap_or_default(),
            identity: rs.src.identity.clone(),
            user_agent: rs.src.user_agent.clone(),
        },
        security: Security { signalling: rs.signalling, media },
        quirks,
        sessions: people.sessions(),
        participants: people.participants(),
        streams,
        durable_through: match (through, rs.end) {
            // There is nothing else of it.
            (_, Some(end)) if seal.state == SealState::Sealed => Some(end),
            // Counters that explain its last gaps come with the end of each stream.
            (Some(through), Some(end)) if !is_over => Some(through.min(Wall(end.0 - 1))),
            (Some(through), Some(end)) => Some(through.min(end)),
            (through, _) => through,
        },
        seal,
        own: rs.own,
        metadata: people.metadata(),
        retention: match (watch.expiry(rs), rs.forgotten) {
            (None, None) => None,
            (gone, forgotten) => Some(Retention { gone, forgotten, ..Retention::default() }),
        },
        account: None,
    }
}

fn stream(rs: &RsEntry, entry: &StreamEntry, watch: &Watch, through: Option<Wall>) -> Stream {
    let description = &entry.description;
    let through = if rs.state == State::Live { through } else { rs.end.or(through) };
    let end = entry.closed.into_iter().chain(rs.end).min();
    let account =
        watch.ledgers.streams[&description.stream].account(&watch.ledgers.host, through, end);
    let format = description.formats.first();
    let (text_lines, text_cut) = account.text;
    let state = match () {
        () if rs.end.is_some() || entry.closed.is_some() => StreamState::Closed,
        () if account.state == StreamState::Active && !entry.active => StreamState::Paused,
        () => account.state,
    };
    Stream {
        label: line_name(description.label.as_deref(), description.line),
        media: description.media.clone(),
        codec: format.map(|format| format.codec.clone()).unwrap_or_default(),
        clock_rate: format.map(|format| format.clock_rate).unwrap_or_default(),
        suite: description.suite.map(String::from),
        verdict: account.verdict,
        unproven_s: account.unproven_s,
        participants: Default::default(),
        associations: Vec::new(),
        state,
        sources: account.sources,
        pauses: account.pauses,
        controls: Vec::new(),
        dtmf: account.dtmf,
        dtmf_cut: account.dtmf_cut,
        text: (!text_lines.is_empty()).then(|| {
            text_lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
        }),
        text_lines,
        text_cut,
        stream: description.stream,
        drops: account.drops,
    }
}

/// What was done to a stream. Its first start and its stop are stated by who says that he is on it: the
/// earliest and the latest of them.
fn controls(
    rs: &RsEntry,
    entry: &StreamEntry,
    watch: &Watch,
    associations: &[Association],
) -> Vec<Control> {
    let ledger = &watch.ledgers.streams[&entry.description.stream];
    let periods = || associations.iter().map(|association| &association.period);
    let first = periods().min_by_key(|period| period.from);
    let last = periods().filter(|period| period.to.is_some()).max_by_key(|period| period.to);
    rs.turns
        .of(entry)
        .into_iter()
        .map(|step| Control {
            at: step.at,
            action: step.action,
            by: step.by,
            cause: step.why,
            stated: match step.action {
                Action::Start => first.and_then(|period| period.stated_from.clone()),
                Action::Stop => last.and_then(|period| period.stated_to.clone()),
                Action::Pause | Action::Resume => None,
            },
            rtp: ledger.rtp_at(step.at),
        })
        .collect()
}

/// Sealed: ended, all its streams closed, and everything that there was of them in segments.
fn seal(
    rs: &RsEntry,
    watch: &Watch,
    heads: &BTreeMap<SegmentName, (Wall, Hash)>,
    is_over: bool,
) -> Seal {
    let segments = rs.streams.keys().filter_map(|stream| watch.segments.get(stream)).flatten();
    let head = segments.filter_map(|segment| heads.get(segment)).max_by_key(|(at, _)| *at);
    let open = rs.end.is_none()
        || !is_over
        || rs.streams.keys().any(|stream| watch.unsealed.contains(stream));
    Seal {
        state: if open { SealState::Open } else { SealState::Sealed },
        head: head.map(|(_, head)| head.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}

/// How a line's media is protected. What is authenticated and readable for all is no better kept from
/// others than plain RTP (RFC 4568 §6.3.3); that SRTCP alone is in the clear says nothing of media.
fn protection(suite: Option<Agreed>) -> MediaSecurity {
    match suite {
        Some(agreed) if !agreed.rtp_in_clear() => MediaSecurity::Sdes,
        _ => MediaSecurity::Rtp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::suite::Suite;

    #[test]
    fn media_in_the_clear_by_agreement_is_as_open_as_plain_rtp() {
        let agreed = Agreed::from(Suite::AesCm128HmacSha1_80);
        let in_clear = |rtp, rtcp| protection(agreed.in_clear(rtp, rtcp));
        assert_eq!(protection(None), MediaSecurity::Rtp);
        assert_eq!([in_clear(false, false), in_clear(false, true)], [MediaSecurity::Sdes; 2]);
        assert_eq!([in_clear(true, false), in_clear(true, true)], [MediaSecurity::Rtp; 2]);
    }
}
