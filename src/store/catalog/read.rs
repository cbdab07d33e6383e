//! A recording put together from what the journal says and what the records show.

use std::collections::{BTreeMap, BTreeSet};

use super::fold::{RsEntry, StreamEntry};
use super::model::{
    MediaSecurity, Recording, Seal, SealState, Security, Src, State, Stream, StreamState,
};
use super::people::people;
use crate::base::ids::{SourceId, StreamId};
use crate::base::time::Wall;
use crate::store::archive::Seen;
use crate::store::evidence::Hash;
use crate::store::ledger::{Ledgers, StreamLedger};
use crate::store::segment::SegmentName;

/// Collects what the records of some recordings show.
pub(super) struct Watch {
    ledgers: Ledgers,
    segments: BTreeMap<StreamId, BTreeSet<SegmentName>>,
    unsealed: BTreeSet<StreamId>,
}

impl Watch {
    /// Ready for the streams of `wanted`.
    pub(super) fn new(wanted: &[&RsEntry]) -> Self {
        let streams = wanted.iter().flat_map(|rs| rs.streams.keys());
        let ledgers = Ledgers {
            streams: streams.map(|stream| (*stream, StreamLedger::new())).collect(),
            ..Ledgers::default()
        };
        Watch { ledgers, segments: BTreeMap::new(), unsealed: BTreeSet::new() }
    }

    /// Takes one record.
    pub(super) fn record(&mut self, seen: &Seen<'_>) {
        let stream = seen.record.meta.source.stream();
        self.ledgers.record(&seen.record, &seen.clock);
        match seen.place.segment {
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

    /// SSRCs by source, as far as events and packets told.
    pub(super) fn ssrcs(&self) -> BTreeMap<SourceId, u32> {
        let streams = self.ledgers.streams.iter();
        streams
            .flat_map(|(stream, ledger)| {
                ledger.ssrcs().map(|(ordinal, ssrc)| (SourceId::new(*stream, ordinal), ssrc))
            })
            .collect()
    }

    pub(super) fn last_segments(&self) -> BTreeSet<SegmentName> {
        self.segments.values().flatten().copied().collect()
    }
}

/// The recording of `rs`. `heads`: when each segment was sealed, and its chain head. `through`:
/// everything up to then is durable.
pub(super) fn assemble(
    rs: &RsEntry,
    watch: &Watch,
    heads: &BTreeMap<SegmentName, (Wall, Hash)>,
    through: Option<Wall>,
) -> Recording {
    let people = people(rs);
    let mut streams: Vec<Stream> = rs
        .streams
        .values()
        .map(|entry| {
            let mut stream = stream(rs, entry, watch, through);
            (stream.participants, stream.associations) = people.on(entry);
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
        .map(|entry| match entry.description.suite {
            Some(_) => MediaSecurity::Sdes,
            None => MediaSecurity::Rtp,
        })
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
            (Some(through), Some(end)) => Some(through.min(end)),
            (through, _) => through,
        },
        seal: seal(rs, watch, heads, through),
        own: rs.own,
        metadata: people.metadata(),
    }
}

fn stream(rs: &RsEntry, entry: &StreamEntry, watch: &Watch, through: Option<Wall>) -> Stream {
    let description = &entry.description;
    let through = if rs.state == State::Live { through } else { rs.end.or(through) };
    let account = watch.ledgers.streams[&description.stream].account(&watch.ledgers.host, through);
    let format = description.formats.first();
    let state = match () {
        () if rs.end.is_some() || entry.closed.is_some() => StreamState::Closed,
        () if account.state == StreamState::Active && !entry.active => StreamState::Paused,
        () => account.state,
    };
    Stream {
        label: match &description.label {
            Some(label) => label.clone(),
            None => format!("m{}", u32::from(description.line) + 1),
        },
        media: description.media.clone(),
        codec: format.map(|format| format.codec.clone()).unwrap_or_default(),
        clock_rate: format.map(|format| format.clock_rate).unwrap_or_default(),
        suite: description.suite.map(|suite| suite.name().to_owned()),
        verdict: account.verdict,
        unproven_s: account.unproven_s,
        participants: Default::default(),
        associations: Vec::new(),
        state,
        sources: account.sources,
        pauses: account.pauses,
        dtmf: account.dtmf,
        text: None,
        stream: description.stream,
        drops: account.drops,
    }
}

/// Sealed: ended, nothing of it left in a log, and the logs are known beyond its end.
fn seal(
    rs: &RsEntry,
    watch: &Watch,
    heads: &BTreeMap<SegmentName, (Wall, Hash)>,
    through: Option<Wall>,
) -> Seal {
    let segments = rs.streams.keys().filter_map(|stream| watch.segments.get(stream)).flatten();
    let head = segments.filter_map(|segment| heads.get(segment)).max_by_key(|(at, _)| *at);
    // Either every stream was seen to close, or the logs are known beyond the end.
    let whole = rs.end.is_some_and(|end| through.is_some_and(|through| through >= end))
        || rs.streams.keys().all(|stream| watch.ledgers.streams[stream].is_closed());
    let open = rs.end.is_none()
        || !whole
        || rs.streams.keys().any(|stream| watch.unsealed.contains(stream));
    Seal {
        state: if open { SealState::Open } else { SealState::Sealed },
        head: head.map(|(_, head)| head.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}
