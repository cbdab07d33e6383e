//! Brings the groups of a log into one gapless order, each position once.

use std::path::PathBuf;

use super::scan::{Doubt, Found, LogError, is_failed, open_read, read_group};
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
/// a torn write leaves old records between new ones, and those verify too.
///
/// A group that cannot be read (F13) is left out like one that is damaged, and told in
/// [`Replayed::unreadable`]: that it may be readable another time is for the caller to weigh.
pub fn replay<D: Disk>(
    disk: &D,
    groups: &mut Vec<Found>,
    from: Position,
    until: Position,
    each: &mut dyn FnMut(usize, Piece<'_>),
) -> Replayed {
    groups.retain(|group| group.header.end() > from && group.header.first < until);
    // Of two copies the one in a file that has not failed is asked first.
    groups.sort_by_key(|group| {
        (group.header.first, is_failed(&group.path), group.header.file_sequence)
    });
    let mut next = from;
    let mut unreadable = Vec::new();
    // Why the groups since the last good one are left out, if the disk is to blame.
    let mut cause: Option<String> = None;
    let mut file: Option<(PathBuf, D::File)> = None;
    for (place, found) in groups.iter().enumerate() {
        if found.header.end() <= next {
            continue;
        }
        if file.as_ref().is_none_or(|(path, _)| *path != found.path) {
            file = match open_read(disk, &found.path) {
                Ok(file) => Some((found.path.clone(), file)),
                Err(source) => {
                    let error = LogError::Disk { path: found.path.clone(), source };
                    cause = Some(error.to_string());
                    unreadable.push(error);
                    None
                }
            };
        }
        let Some((_, file)) = &file else { continue };
        let payload = match read_group(file, found) {
            Ok(Some(payload)) => payload,
            Ok(None) => continue,
            Err(error) => {
                cause = Some(error.to_string());
                unreadable.push(error);
                continue;
            }
        };
        if found.header.first > next {
            let why = cause.take();
            let why = why.unwrap_or_else(|| "no valid commit group holds these positions".into());
            each(place, Piece::Doubt(doubt(found, next, found.header.first, why)));
        }
        each(place, Piece::Group { found, payload: &payload, from: next });
        next = found.header.end();
        cause = None;
    }
    let newest = groups.iter().max_by_key(|group| group.header.end());
    if let Some(newest) = newest.filter(|newest| newest.header.end() > next) {
        // What the disk does not give is no torn end.
        let unread = cause.is_some();
        let why = cause.unwrap_or_else(|| "commit group fails its sum".into());
        let doubt = doubt(newest, next, newest.header.end(), why);
        each(0, if unread { Piece::Doubt(doubt) } else { Piece::Torn(doubt) });
    }
    Replayed { end: next, unreadable }
}

fn doubt(at: &Found, from: Position, to: Position, why: String) -> Doubt {
    Doubt { path: at.path.clone(), from, to, why }
}
