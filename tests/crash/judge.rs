//! What was sent against what stands on disk: every numbered packet once, whole, on its own stream,
//! in order.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::reader::{self, EVENT, RTP, Record};

/// The sums of a round.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) sent: u64,
    pub(crate) recorded: u64,
    pub(crate) missing: u64,
    pub(crate) twice: u64,
    /// Another content, number, label or stream than was sent.
    pub(crate) wrong: u64,
    /// Stored behind a later packet of the same source.
    pub(crate) disorder: u64,
    /// Checksums and structures that do not hold.
    pub(crate) damaged: Vec<String>,
    /// Starts of workers: worker, monotonic ns, datagrams found in the receive buffers.
    pub(crate) starts: Vec<Start>,
    /// Where packets are missing, in words; a few.
    pub(crate) holes: Vec<String>,
}

/// A worker began.
pub(crate) struct Start {
    pub(crate) worker: u64,
    pub(crate) at_ns: u64,
    pub(crate) recovered: u64,
    /// Counts all starts, also those that died before they could say so.
    pub(crate) incarnation: u64,
}

struct Stream {
    seed: u64,
    label: String,
    first: u64,
    expected: u64,
    seen: Vec<bool>,
    last: Option<u64>,
    id: Option<u64>,
}

/// Streams from here on are the recorder's own; the rest is the worker.
const HOST: u64 = 1 << 47;

/// Judges the store in `folder` by what the loads say they sent (`floortape src call --json`).
pub(crate) fn judge(folder: &Path, loads: &[Value]) -> io::Result<Found> {
    let mut streams: HashMap<u32, Stream> = HashMap::new();
    for load in loads {
        let seed = number(&load["seed"]);
        for stream in load["streams"].as_array().into_iter().flatten() {
            let expected = number(&stream["sent"]) - number(&stream["unsent"]);
            let one = Stream {
                seed,
                label: stream["label"].as_str().unwrap_or_default().to_owned(),
                first: number(&stream["first_seq"]),
                expected,
                seen: vec![false; number(&stream["sent"]) as usize],
                last: None,
                id: None,
            };
            streams.insert(number(&stream["ssrc"]) as u32, one);
        }
    }
    let mut found = Found::default();
    let mut labels: HashMap<u64, String> = HashMap::new();
    let mut visit = |record: Record<'_>| match record.kind {
        RTP => packet(&record, &mut streams, &labels, &mut found),
        EVENT => event(&record, &mut labels, &mut found.starts),
        _ => {}
    };
    let damaged = reader::read(folder, &mut visit)?;
    found.damaged = damaged;
    for (ssrc, stream) in &streams {
        found.sent += stream.expected;
        let seen = stream.seen.iter().filter(|seen| **seen).count() as u64;
        found.recorded += seen;
        found.missing += stream.expected.saturating_sub(seen);
        if seen < stream.expected && found.holes.len() < 5 {
            let first = stream.seen.iter().position(|seen| !seen).unwrap_or_default();
            let last = stream.seen.iter().rposition(|seen| !seen).unwrap_or_default();
            let count = stream.expected - seen;
            found.holes.push(format!("SSRC {ssrc:08x}: {count} between {first} and {last}"));
        }
    }
    found.starts.sort_by_key(|start| start.at_ns);
    Ok(found)
}

fn packet(
    record: &Record<'_>,
    streams: &mut HashMap<u32, Stream>,
    labels: &HashMap<u64, String>,
    found: &mut Found,
) {
    let Some((head, payload)) = record.payload.split_first_chunk::<12>() else {
        found.wrong += 1;
        return;
    };
    let ssrc = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    let (Some(stream), Some(count)) = (streams.get_mut(&ssrc), payload.first_chunk()) else {
        found.wrong += 1;
        return;
    };
    let count = u64::from_be_bytes(*count);
    let id = record.source >> 16;
    let own = *stream.id.get_or_insert(id) == id
        && labels.get(&id).is_none_or(|label| *label == stream.label)
        && record.index == stream.first + count
        && [head[2], head[3]] == (record.index as u16).to_be_bytes()
        && is_numbered(stream.seed ^ u64::from(ssrc), count, payload);
    let Some(seen) = stream.seen.get_mut(count as usize).filter(|_| own) else {
        found.wrong += 1;
        return;
    };
    found.twice += u64::from(*seen);
    *seen = true;
    found.disorder += u64::from(stream.last.is_some_and(|last| last > count));
    stream.last = Some(count);
}

/// Whether it has the content that `floortape src call --help` documents for `--numbered`.
fn is_numbered(seed: u64, count: u64, payload: &[u8]) -> bool {
    payload.len() == 160
        && numbered(seed, count).zip(payload[8..].chunks(8)).all(|(word, chunk)| word == chunk)
}

/// That content behind its number, as words without an end.
pub(crate) fn numbered(seed: u64, count: u64) -> impl Iterator<Item = [u8; 8]> {
    let mut state = seed ^ count;
    std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31).to_le_bytes()
    })
}

fn event(record: &Record<'_>, labels: &mut HashMap<u64, String>, starts: &mut Vec<Start>) {
    let Ok(event) = serde_json::from_slice::<Value>(record.payload) else { return };
    let stream = record.source >> 16;
    starts.extend(started(stream, &event));
    if event["event"] == "open" {
        let label = event["description"]["label"].as_str().unwrap_or_default();
        labels.insert(stream, label.to_owned());
    }
}

/// The start of a worker that an event of its own stream tells of.
pub(crate) fn started(stream: u64, event: &Value) -> Option<Start> {
    (event["event"] == "started").then(|| Start {
        worker: stream & !HOST,
        at_ns: number(&event["map"]["mono"]),
        recovered: number(&event["recovered"]),
        incarnation: number(&event["incarnation"]),
    })
}

pub(crate) fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
