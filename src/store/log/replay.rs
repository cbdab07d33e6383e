//! Brings the groups of a log into one gapless order, each position once.

use std::path::PathBuf;

use super::scan::{Doubt, Found, read_group};
use crate::base::ids::Position;
use crate::base::ports::Disk;

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
    /// Positions that no valid group holds, though there are valid groups behind them.
    Doubt(Doubt),
    /// Positions of groups at the log's end that fail their sums, as a power cut leaves what no sync
    /// had covered: nothing that was called durable need be among them.
    Torn(Doubt),
}

/// Shows `each` the stream from position `from` to the end of `groups`, or to `until`. A range that
/// was written again after a failed sync (F12) stands twice in the log: the copy that verifies
/// serves. A group whose payload fails its sum is not salvaged record by record: on a recycled file
/// a torn write leaves old records between new ones, and those verify too.
///
/// Returns the position behind the last valid group, `from` where there is none.
pub fn replay<D: Disk>(
    disk: &D,
    groups: &mut Vec<Found>,
    from: Position,
    until: Position,
    each: &mut dyn FnMut(usize, Piece<'_>),
) -> Position {
    groups.retain(|group| group.header.end() > from && group.header.first < until);
    groups.sort_by_key(|group| (group.header.first, group.header.file_sequence));
    let mut next = from;
    let mut file: Option<(PathBuf, D::File)> = None;
    for (place, found) in groups.iter().enumerate() {
        if found.header.end() <= next {
            continue;
        }
        if file.as_ref().is_none_or(|(path, _)| *path != found.path) {
            file = disk.open_read(&found.path).ok().map(|file| (found.path.clone(), file));
        }
        let payload = file.as_ref().and_then(|(_, file)| read_group(file, found).ok().flatten());
        let Some(payload) = payload else { continue };
        if found.header.first > next {
            let why = "no valid commit group holds these positions";
            each(place, Piece::Doubt(doubt(found, next, found.header.first, why)));
        }
        each(place, Piece::Group { found, payload: &payload, from: next });
        next = found.header.end();
    }
    let newest = groups.iter().max_by_key(|group| group.header.end());
    if let Some(newest) = newest.filter(|newest| newest.header.end() > next) {
        let why = "commit group fails its sum";
        each(0, Piece::Torn(doubt(newest, next, newest.header.end(), why)));
    }
    next
}

fn doubt(at: &Found, from: Position, to: Position, why: &str) -> Doubt {
    Doubt { path: at.path.clone(), from, to, why: why.to_owned() }
}
