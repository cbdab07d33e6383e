//! Brings the groups of a log into one gapless order, each position once.

use std::collections::BTreeMap;

use super::mark::Mark;
use super::read::{Content, LogFile};
use super::scan::{Doubt, Found, LogError, is_failed};
use crate::base::ids::Position;
use crate::base::ports::Disk;

/// Groups that one sync may stand for (`plane::spool`): what lies so many groups back was durable
/// when the next one was written.
pub const GROUPS_PER_SYNC: u64 = 4;

/// What comes next in the stream.
pub enum Piece<'a> {
    /// A group whose sum is right. Records below `from` stood in a group before it.
    Group {
        /// Header and place.
        found: &'a Found,
        /// Ring bytes from its first position on.
        payload: &'a [u8],
        /// First position that is new.
        from: Position,
    },
    /// Positions that no valid group holds, though there are valid groups behind them, or though
    /// they were durable.
    Doubt(Doubt),
    /// Positions of groups at the log's end that fail their sums, as a power cut leaves what no sync
    /// had covered: nothing that was called durable need be among them.
    Torn(Doubt),
    /// Positions of a group whose sum is right and whose key is not here. They are there, for whoever
    /// has it.
    Locked(Doubt),
}

/// What a replay came to.
#[derive(Debug)]
pub struct Replayed {
    /// Behind the last valid group; where the replay began if there is none.
    pub end: Position,
    /// What the disk did not give.
    pub unreadable: Vec<LogError>,
}

/// Shows `each` the stream from position `from` to the end of `groups`, or to `until`. A range that
/// was written again after a failed sync (F12) stands twice in the log: the copy that verifies
/// serves. A group whose payload fails its sum is not salvaged record by record: on a recycled file
/// a torn write leaves old records between new ones, and those verify too. One that is whole and does not
/// open under its file's key was changed by somebody: no cut does that.
///
/// `promised`: how far the log is known to have been durable. What is missing below that is damage,
/// and so is what lies further back than one sync reaches: a cut takes only what was not synced.
///
/// A group that cannot be read (F13) is left out like one that is damaged, and told in
/// [`Replayed::unreadable`]: that it may be readable another time is for the caller to weigh.
pub fn replay<D: Disk>(
    disk: &D,
    groups: &mut Vec<Found>,
    (from, until): (Position, Position),
    promised: &Mark,
    each: &mut dyn FnMut(usize, Piece<'_>),
) -> Replayed {
    // What comes behind the range shows what of it was durable.
    let highest = highest(groups);
    groups.retain(|group| group.header.end() > from && group.header.first < until);
    // Of two copies the one in a file that has not failed is asked first.
    groups.sort_by_key(|group| {
        (group.header.first, is_failed(&group.path), group.header.file_sequence)
    });
    let proof = Proof { groups, promised, highest };
    let mut next = from;
    let mut unreadable = Vec::new();
    // Why the groups since the last good one are left out, if no cut is to blame.
    let mut cause: Option<String> = None;
    let mut before: Option<&Found> = None;
    let mut file: Option<LogFile<D::File>> = None;
    for (place, found) in groups.iter().enumerate() {
        if found.header.end() <= next {
            continue;
        }
        if file.as_ref().is_none_or(|file| !file.holds(found)) {
            file = match LogFile::open(disk, found) {
                Ok(file) => Some(file),
                Err(source) => {
                    let error = LogError::Disk { path: found.path.clone(), source };
                    cause = Some(error.to_string());
                    unreadable.push(error);
                    None
                }
            };
        }
        let Some(file) = &file else { continue };
        let payload = match file.read(found) {
            Ok(Content::Whole(payload)) => Some(payload),
            Ok(Content::Locked) => None,
            Ok(Content::Damaged) => continue,
            Ok(Content::Changed) => {
                cause = Some(CHANGED.to_owned());
                continue;
            }
            Err(error) => {
                cause = Some(error.to_string());
                unreadable.push(error);
                continue;
            }
        };
        if found.header.first > next {
            let mut hole = proof.hole(before, found, next);
            if let Some(cause) = cause.take() {
                // No cut does that.
                (hole.why, hole.durable) = (cause, true);
            }
            each(place, Piece::Doubt(hole));
        }
        match &payload {
            Some(payload) => each(place, Piece::Group { found, payload, from: next }),
            None => each(place, Piece::Locked(locked(found, next))),
        }
        next = found.header.end();
        before = Some(found);
        cause = None;
    }
    let since = before.map(|group| group.header.clock.wall);
    let newest = groups.iter().max_by_key(|group| group.header.end());
    if let Some(newest) = newest.filter(|newest| newest.header.end() > next) {
        // What the disk does not give, or somebody changed, is no torn end.
        let unread = cause.is_some();
        let why = cause.unwrap_or_else(|| "commit group fails its sum".into());
        let end = newest.header.end();
        let torn = Doubt {
            path: newest.path.clone(),
            from: next,
            to: end,
            why,
            durable: unread || next < promised.durable || proof.is_durable(newest),
            since,
            until: Some(newest.header.clock.wall),
        };
        each(0, if torn.durable { Piece::Doubt(torn) } else { Piece::Torn(torn) });
    }
    Replayed { end: next, unreadable }
}

const CHANGED: &str = "commit group is not what was encrypted under its file's key";

fn locked(found: &Found, next: Position) -> Doubt {
    let at = Some(found.header.clock.wall);
    Doubt {
        path: found.path.clone(),
        from: next.max(found.header.first),
        to: found.header.end(),
        why: "commit group is encrypted, and its key is not there".to_owned(),
        durable: true,
        since: at,
        until: at,
    }
}

/// What shows that positions were durable.
struct Proof<'a> {
    groups: &'a [Found],
    promised: &'a Mark,
    /// The highest group sequence of each incarnation.
    highest: BTreeMap<u64, u64>,
}

fn highest(groups: &[Found]) -> BTreeMap<u64, u64> {
    let mut highest = BTreeMap::new();
    for Found { header, .. } in groups {
        let known = highest.entry(header.incarnation).or_insert(header.group_sequence);
        *known = header.group_sequence.max(*known);
    }
    highest
}

impl Proof<'_> {
    /// A group whose header is there was synced if the same process wrote enough others behind it.
    fn is_durable(&self, group: &Found) -> bool {
        let header = &group.header;
        let highest = self.highest.get(&header.incarnation);
        highest.is_some_and(|last| *last >= header.group_sequence.saturating_add(GROUPS_PER_SYNC))
    }

    /// Positions from `from` on up to `behind`, which is the first valid group behind them. Whoever
    /// begins with new memory begins where the last header ends. So a hole at whose end no header
    /// stands was not left by a cut before that: the writer of `behind` wrote what is missing, or
    /// it was synced long before.
    fn hole(&self, before: Option<&Found>, behind: &Found, from: Position) -> Doubt {
        let to = behind.header.first;
        let torn = self.groups.iter().filter(|group| group.header.end() == to);
        let durable = match torn.max_by_key(|group| group.header.group_sequence) {
            Some(last) => self.is_durable(last),
            None => {
                let highest = self.highest.get(&behind.header.incarnation);
                let goal = behind.header.group_sequence.saturating_add(GROUPS_PER_SYNC - 1);
                highest.is_some_and(|last| *last >= goal)
            }
        };
        Doubt {
            path: behind.path.clone(),
            from,
            to,
            why: "no valid commit group holds these positions".to_owned(),
            durable: durable || to <= self.promised.durable,
            since: before.map(|group| group.header.clock.wall),
            until: Some(behind.header.clock.wall),
        }
    }
}
