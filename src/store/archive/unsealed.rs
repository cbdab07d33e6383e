//! The part of a worker's log that no segment holds yet, as one consistent picture in memory.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use super::reader::{ArchiveError, Damaged, Lost};
use crate::base::ids::{Position, StreamId, WorkerId};
use crate::base::ports::Disk;
use crate::base::time::{ClockMap, Wall};
use crate::store::log::{
    self, Doubt, Found, GROUP_BYTES_MAX, LOOK_BEHIND_BYTES, Mark, Piece, Step, Walk, scan_worker,
};
use crate::store::record::{PAYLOAD_BYTES_MAX, record_bytes};
use crate::store::segment::Span;

/// One record in [`Unsealed::bytes`].
pub(super) struct Item {
    /// Which of [`Unsealed::groups`] it came from.
    pub(super) group: usize,
    /// Its offset in that group's file.
    pub(super) offset: u64,
    /// Where its bytes are.
    pub(super) bytes: Range<usize>,
    /// Which of [`Unsealed::clocks`].
    pub(super) epoch: usize,
}

/// Records of the wanted streams behind the last segment, in order of position.
pub(super) struct Unsealed {
    pub(super) worker: WorkerId,
    pub(super) groups: Vec<Found>,
    pub(super) items: Vec<Item>,
    pub(super) bytes: Vec<u8>,
    /// Clock maps, one list per boot: monotonic time starts anew with each.
    pub(super) clocks: Vec<Vec<ClockMap>>,
    pub(super) damaged: Vec<Damaged>,
    /// End of what is durable, and up to when that is everything; `None`: nothing here says so.
    pub(super) through: Option<(Position, Option<Wall>)>,
}

/// A group this long was cut: there was more, and its clock says nothing about that.
const CUT_BYTES: u64 = (GROUP_BYTES_MAX - record_bytes(PAYLOAD_BYTES_MAX)) as u64;

/// How far `groups` go: to the end of the newest. Everything older than the newest that was not cut
/// is in them, for that one held all that there was when its clock was read.
fn through(groups: &[Found]) -> Option<(Position, Option<Wall>)> {
    let newest = groups.iter().max_by_key(|group| group.header.end())?;
    let whole = groups.iter().filter(|group| group.header.bytes < CUT_BYTES);
    let whole = whole.max_by_key(|group| group.header.end());
    Some((newest.header.end(), whole.map(|group| group.header.clock.wall)))
}

/// What is wanted of a log.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// Of whom.
    pub(super) streams: &'a BTreeSet<StreamId>,
    /// Nothing that arrived earlier or later.
    pub(super) span: (Wall, Wall),
    /// When the last record arrived that no log need hold any more; asked where no group tells.
    pub(super) sealed_at: &'a dyn Fn() -> Option<Wall>,
}

/// Records need not stand in the order of their arrival: sockets are read in turn, and what the kernel
/// has held meanwhile is seconds old at most.
const DISORDER_NS: i64 = 10_000_000_000;

/// No record from position `from` on arrived before; `None`: nothing says so.
fn since(groups: &[Found], from: Position, sealed_at: &dyn Fn() -> Option<Wall>) -> Option<Wall> {
    // One that was not cut held all that there was when its clock was read.
    let before = groups.iter().map(|group| &group.header);
    let before = before.filter(|one| one.end() <= from && one.bytes < CUT_BYTES);
    let before = before.max_by_key(|one| one.end()).map(|one| one.clock.wall);
    let before = before.or_else(sealed_at)?;
    // The clock may have been set back meanwhile.
    let behind = groups.iter().filter(|group| group.header.end() > from);
    let behind = behind.map(|group| group.header.clock.wall).min();
    let least = behind.into_iter().chain([before]).min()?;
    Some(Wall(least.0.saturating_sub(DISORDER_NS)))
}

/// The positions from `from` on that may hold something of `span`. Nothing in a group arrived after its
/// clock was read, and nothing in the next one before, but for what is out of order.
fn around(groups: &[Found], from: Position, span: (Wall, Wall)) -> (Position, Position) {
    let behind = groups.iter().map(|group| &group.header).filter(|group| group.end() > from);
    let mut behind: Vec<_> = behind.collect();
    behind.sort_by_key(|group| (group.first, group.end()));
    let (mut low, mut before) = (from, Wall(i64::MIN));
    for group in &behind {
        // Where the clock was set back, what came before that has later times than its group.
        if group.clock.wall < before || group.clock.wall.0.saturating_add(DISORDER_NS) >= span.0.0 {
            break;
        }
        (low, before) = (low.max(group.end()), group.clock.wall);
    }
    let (mut high, mut least) = (Position(u64::MAX), Wall(i64::MAX));
    for place in (1..behind.len()).rev() {
        least = least.min(behind[place].clock.wall);
        let whole = behind[..place].iter().rfind(|group| group.bytes < CUT_BYTES);
        let Some(since) = whole.map(|group| group.clock.wall.min(least)) else { break };
        if since.0.saturating_sub(DISORDER_NS) <= span.1.0 {
            break;
        }
        high = behind[place].first;
    }
    (low, high)
}

/// Reads the log of `worker` from position `from` on. `wanted`: `None`: only find out how far it goes.
/// `promised`: how far it was known to be durable. Of groups with nothing of what is wanted only the headers
/// are read.
pub(super) fn read<D: Disk>(
    disk: &D,
    store: &Path,
    worker: WorkerId,
    from: Position,
    wanted: Option<Wanted<'_>>,
    promised: &Mark,
) -> Result<Unsealed, ArchiveError> {
    let scans = scan_worker(disk, store, worker, LOOK_BEHIND_BYTES)?;
    let mut groups: Vec<Found> = scans.into_iter().flat_map(|scan| scan.groups).collect();
    let mut unsealed = Unsealed {
        worker,
        items: Vec::new(),
        bytes: Vec::new(),
        clocks: Vec::new(),
        damaged: Vec::new(),
        through: through(&groups),
        groups: Vec::new(),
    };
    if let Some(Wanted { streams, span, sealed_at }) = wanted {
        let is_later = || since(&groups, from, sealed_at).is_some_and(|since| span.1 < since);
        if span.1 < Wall(i64::MAX) && is_later() {
            return Ok(unsealed);
        }
        let range = around(&groups, from, span);
        let (from, to) = range;
        let mut clocks = Span::new(from);
        let (mut reached, mut last) = (from, None);
        log::replay(disk, &mut groups, range, promised, &mut |place, piece| match piece {
            Piece::Group { found, payload, from } => {
                let clock = found.header.clock;
                (reached, last) = (found.header.end(), Some(clock.wall));
                if clocks.clocks.last().is_some_and(|last| clock.mono < last.mono) {
                    unsealed.clocks.push(std::mem::take(&mut clocks.clocks));
                }
                clocks.add_clock(clock);
                unsealed.take(place, found, payload, from, streams, &mut clocks);
            }
            Piece::Doubt(doubt) => {
                reached = reached.max(doubt.to);
                unsealed.damaged.push(in_doubt(doubt, false));
            }
            Piece::Torn(doubt) => {
                reached = reached.max(doubt.to);
                unsealed.damaged.push(in_doubt(doubt, true));
            }
            Piece::Locked(doubt) => {
                reached = reached.max(doubt.to);
                unsealed.damaged.push(Damaged { lost: None, ..in_doubt(doubt, false) });
            }
        });
        if reached < promised.durable && to == Position(u64::MAX) {
            let gone = Doubt {
                path: log::folder(store, worker),
                from: reached,
                to: promised.durable,
                why: "was durable, and neither log nor segments hold it".to_owned(),
                durable: true,
                // Where a segment is gone, no group stands before: what was sealed by then is not in doubt.
                since: last.or_else(|| since(&groups, reached, sealed_at)),
                until: Some(promised.at),
            };
            unsealed.damaged.push(in_doubt(gone, false));
        }
        unsealed.clocks.push(clocks.clocks);
        unsealed.groups = groups;
    }
    Ok(unsealed)
}

fn in_doubt(doubt: Doubt, torn: bool) -> Damaged {
    Damaged {
        path: doubt.path,
        offset: 0,
        bytes: doubt.to.0 - doubt.from.0,
        source: None,
        torn,
        why: format!("positions {} to {}: {}", doubt.from.0, doubt.to.0, doubt.why),
        lost: Some(Lost {
            since: doubt.since,
            until: doubt.until,
            durable: doubt.durable,
            tail: true,
        }),
    }
}

impl Unsealed {
    fn take(
        &mut self,
        place: usize,
        group: &Found,
        payload: &[u8],
        next: Position,
        streams: &BTreeSet<StreamId>,
        clocks: &mut Span,
    ) {
        let payload_at = group.offset + crate::store::log::GROUP_HEADER_BYTES as u64;
        for step in Walk::new(payload, group.header.first, group.header.ring_bytes) {
            match step {
                Step::Record { at, record } if at >= next => {
                    clocks.note_clock(&record);
                    if streams.contains(&record.meta.source.stream()) {
                        let start = self.bytes.len();
                        self.bytes.extend_from_slice(record.raw);
                        self.items.push(Item {
                            group: place,
                            offset: payload_at + (at.0 - group.header.first.0),
                            bytes: start..self.bytes.len(),
                            epoch: self.clocks.len(),
                        });
                    }
                }
                Step::Damaged { at, bytes } if at >= next => self.damaged.push(Damaged {
                    path: group.path.clone(),
                    offset: payload_at + (at.0 - group.header.first.0),
                    bytes,
                    source: None,
                    torn: false,
                    why: "record fails its sum".to_owned(),
                    lost: {
                        let at = Some(group.header.clock.wall);
                        Some(Lost { since: at, until: at, durable: true, tail: true })
                    },
                }),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Mono;
    use crate::store::log::GroupHeader;

    const S: i64 = 1_000_000_000;

    fn group(first: u64, bytes: u64, wall_s: i64) -> Found {
        let header = GroupHeader {
            worker: WorkerId(0),
            file_sequence: 1,
            group_sequence: 1,
            incarnation: 1,
            first: Position(first),
            bytes,
            clock: ClockMap { mono: Mono(0), wall: Wall(wall_s * S) },
            previous: [0; 32],
            ring_bytes: 1 << 30,
            payload_crc: 0,
            encrypted: false,
        };
        Found { path: "00000001.log".into(), offset: 0, header, key: None }
    }

    #[test]
    fn what_was_committed_around_a_span_is_read_unless_the_clock_was_set_back() {
        let groups = |back: Option<usize>| -> Vec<Found> {
            let wall = |n: u64| if back == Some(n as usize) { 50 } else { 100 + 10 * n as i64 };
            (0..10).map(|n| group(n * 100, 100, wall(n))).collect()
        };
        let around = |groups: &[Found], from, to| {
            let (low, high) = around(groups, Position(100), (Wall(from * S), Wall(to * S)));
            (low.0, high.0)
        };
        let all = (100, u64::MAX);
        assert_eq!(around(&groups(None), 150, 155), (400, 800));
        assert_eq!(around(&groups(None), 0, 1_000), all);
        assert_eq!(around(&groups(None), 150, 1_000), (400, u64::MAX));
        // What is sealed is not asked for, whatever it holds.
        assert_eq!(around(&groups(None), 0, 99), (100, 200));
        assert_eq!(around(&groups(Some(3)), 150, 155), (300, 800));
        assert_eq!(around(&groups(Some(9)), 150, 155), (400, u64::MAX));
        assert_eq!(around(&[], 150, 155), all);
    }

    #[test]
    fn nothing_behind_a_position_came_before_what_is_said_of_it() {
        let told = |seconds: Option<i64>| seconds.map(|seconds| Wall((seconds - 10) * S));
        let from = 10 * CUT_BYTES;
        let since = |groups: &[Found], sealed_at: Option<i64>| {
            since(groups, Position(from), &|| sealed_at.map(|seconds| Wall(seconds * S)))
        };
        let whole = [group(from - 200, 100, 50), group(from - 100, 100, 60), group(from, 100, 70)];
        assert_eq!(since(&whole, None), told(Some(60)));
        // No group of before is left: whoever sealed it tells, or nobody.
        assert_eq!(since(&whole[2..], Some(58)), told(Some(58)));
        assert_eq!(since(&whole[2..], None), None);
        // The one before was cut: what stands behind it may be as old.
        let before = from - CUT_BYTES;
        let cut = [group(before - 9, 9, 40), group(before, CUT_BYTES, 60), group(from, 100, 70)];
        assert_eq!(since(&cut, None), told(Some(40)));
        // The clock was set back.
        let back = [group(from - 100, 100, 60), group(from, 100, 70), group(from + 100, 100, 5)];
        assert_eq!(since(&back, None), told(Some(5)));
    }
}
