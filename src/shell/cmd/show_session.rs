//! All parts of one Communication Session, over recordings and clients: a client may begin several
//! RSs on one call, and several clients may see the same call (RFC 6341 use cases 3 and 8).

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::show::name;
use super::table::{plain, table};
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::shell::when::When;
use crate::store::catalog::model::{Participant, Recording, Session};
use crate::store::catalog::{Library, LibraryError, names_session};
use crate::wire::metadata::Id;

/// The recordings that hold a part of the session of that id, in order of start.
pub(super) fn parts<D: Disk + Clone>(
    library: &Library<D>,
    text: &str,
) -> Result<Vec<Recording>, LibraryError> {
    let ids = ids(text);
    library.recordings(|rs| ids.iter().any(|id| names_session(rs, id)))
}

/// What a person may mean by `text`: the id as it came, or its UUID as logs write it.
pub(super) fn ids(text: &str) -> Vec<Id> {
    let text = text.trim();
    let bare = text.strip_prefix("urn:uuid:").unwrap_or(text);
    let digits: Vec<u8> = bare.bytes().filter(|byte| *byte != b'-').collect();
    let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_hex = digits.len() == 32 && digits.iter().all(u8::is_ascii_hexdigit);
    let octets: Option<Vec<u8>> =
        if is_hex { digits.chunks_exact(2).map(octet).collect() } else { None };
    let uuid = octets.and_then(|octets| octets.try_into().ok()).map(Id::from_uuid);
    [Id::new(text)].into_iter().chain(uuid).collect()
}

/// One part: a recording, the session in it, and from when to when.
struct Part<'a> {
    recording: &'a Recording,
    session: &'a Session,
    from: Wall,
    /// `None` while it lasts.
    to: Option<Wall>,
}

fn part<'a>(recording: &'a Recording, ids: &[Id]) -> Option<Part<'a>> {
    let wanted = |session: &&Session| ids.contains(&Id::new(&session.session_id));
    let session = recording.sessions.iter().find(wanted)?;
    let first = session.periods.first().map_or(recording.start, |period| period.from);
    let last = session.periods.last().and_then(|period| period.to);
    // Media may come before the words about it; what counts here is what the SRC said.
    Some(Part { recording, session, from: first, to: last.or(recording.end) })
}

/// What all parts together say about the session.
pub(super) fn heading(text: &str, recordings: &[Recording], when: &When) -> String {
    let ids = ids(text);
    let mut parts: Vec<Part<'_>> =
        recordings.iter().filter_map(|recording| part(recording, &ids)).collect();
    parts.sort_by_key(|part| part.from);
    let clients: BTreeSet<&str> =
        parts.iter().map(|part| part.recording.src.identity.as_str()).collect();
    let mut rows = vec![vec!["session".to_owned(), plain(text)]];
    let mut row = |name: &str, value: Option<String>| {
        rows.extend(value.map(|value| vec![name.to_owned(), plain(&value)]));
    };
    row("start", parts.iter().find_map(|part| part.session.start.clone()));
    row("stop", parts.iter().rev().find_map(|part| part.session.stop.clone()));
    row("group", parts.iter().find_map(|part| part.session.group.clone()));
    row("parties", Some(parties(&parts)).filter(|names| !names.is_empty()));
    row("parts", Some(format!("{} from {} client(s)", parts.len(), clients.len())));
    let mut out = table(&rows);
    let mut rows = vec![["RECORDING", "CLIENT", "FROM", "TO", "LINES"].map(str::to_owned).to_vec()];
    rows.extend(parts.iter().map(|part| {
        let labels: BTreeSet<&str> =
            part.session.lines.iter().map(|line| line.label.as_str()).collect();
        vec![
            part.recording.id.to_string(),
            plain(&part.recording.src.identity),
            when.text(part.from),
            when.or_now(part.to),
            plain(&labels.into_iter().collect::<Vec<_>>().join(", ")),
        ]
    }));
    out.push_str(&table(&rows));
    for (from, to) in gaps(parts.iter().map(|part| (part.from, part.to))) {
        let seconds = (to.0 - from.0) as f64 / 1e9;
        let (from, to) = (when.text(from), when.text(to));
        let _ = writeln!(out, "not covered: {from} to {to} ({seconds:.3} s)");
    }
    out
}

/// Who was in it, by all parts together; the same id is the same party.
fn parties(parts: &[Part<'_>]) -> String {
    let mut seen: BTreeSet<Id> = BTreeSet::new();
    let mut names = Vec::new();
    for part in parts {
        let members: BTreeSet<Id> =
            part.session.members.iter().map(|member| Id::new(&member.participant_id)).collect();
        let in_it = |participant: &&Participant| {
            // Many clients do not say who is in which session.
            members.is_empty() || members.contains(&Id::new(&participant.participant_id))
        };
        for participant in part.recording.participants.iter().filter(in_it) {
            if seen.insert(Id::new(&participant.participant_id)) {
                names.push(name(participant));
            }
        }
    }
    names.join(", ")
}

/// Time between the first and the last part that none covers. Parts come in order of beginning.
fn gaps(parts: impl Iterator<Item = (Wall, Option<Wall>)>) -> Vec<(Wall, Wall)> {
    let mut gaps = Vec::new();
    let mut through: Option<Wall> = None;
    for (from, to) in parts {
        if let Some(through) = through.filter(|through| *through < from) {
            gaps.push((through, from));
        }
        let Some(to) = to else { break };
        through = Some(through.map_or(to, |through| through.max(to)));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_its_id_or_by_the_uuid_in_it() {
        let id = Id::new("hVpd7YQgRW2nD22h7q60JQ==");
        assert_eq!(ids(" hVpd7YQgRW2nD22h7q60JQ== "), [Id::new("hVpd7YQgRW2nD22h7q60JQ==")]);
        for text in
            ["855a5ded-8420-456d-a70f-6da1eeaeb425", "urn:uuid:855A5DED8420456DA70F6DA1EEAEB425"]
        {
            assert!(ids(text).contains(&id), "{text}");
        }
        assert_eq!(ids("20260722210808064141"), [Id::new("20260722210808064141")]);
    }

    #[test]
    fn only_time_that_no_part_covers_is_a_gap() {
        let gaps = |parts: &[(i64, Option<i64>)]| {
            gaps(parts.iter().map(|(from, to)| (Wall(*from), to.map(Wall))))
        };
        assert_eq!(gaps(&[(1, Some(5)), (2, Some(3)), (6, None)]), [(Wall(5), Wall(6))]);
        assert_eq!(gaps(&[(1, Some(5)), (5, Some(6))]), []);
        assert_eq!(gaps(&[(1, None), (9, Some(10))]), []);
    }
}
