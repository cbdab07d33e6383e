//! History: what the journal said of recordings that are over, in files that never change. The
//! journal stays as long as what is live; the history is as long as what was.
//!
//! A file is a head and a run of the journal's own frames, moved byte for byte by
//! [`super::compaction`]. The head counts them, so that a file that lost its end is found out.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::Signer;
use super::entry::Entry;
use super::frame;
use super::read::{Damage, JournalError, at, numbered, read_whole, walk};
use crate::base::ports::Disk;
use crate::store::evidence::{FileMark, Hex, Signature, sha256};

/// Names a file of the history in what is signed.
const KIND: &str = "history";

/// Version of the format.
pub const VERSION: u32 = 1;
/// What follows the number in a file's name.
pub(super) const SUFFIX: &str = ".history";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    History,
}

#[derive(Serialize, Deserialize)]
struct Line {
    entry: Kind,
    body: Head,
}

#[derive(Clone, Serialize, Deserialize)]
struct Head {
    version: u32,
    /// The last journal file that any of it stood in.
    through: u32,
    /// Bytes of the frames that follow.
    bytes: u64,
    /// SHA-256 of them; from here on absent in files of versions that did not sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<Hex<32>>,
    /// The file of the history before it, whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<FileMark>,
    /// What stood in its place before words were taken out of it, oldest first: the file behind it may name
    /// any of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    replaces: Vec<FileMark>,
    /// By the store's signing key, over the head without this field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<Hex<64>>,
}

impl Head {
    /// What is signed: the head as JSON, named as a file of the history.
    fn mark(&self) -> FileMark {
        let text = serde_json::to_vec(&Head { signature: None, ..self.clone() });
        FileMark::of(self.through, &text.expect("nothing in it that JSON cannot"))
    }
}

/// Where a store keeps it.
pub fn folder(store: &Path) -> PathBuf {
    store.join("history")
}

/// The name of the file of what stood in journal files through that number.
pub(super) fn file_name(through: u32) -> String {
    format!("{through:08}{SUFFIX}")
}

/// The bytes of a file: `frames` are whole frames of entries, in the order of the journal. `previous`:
/// the file of the history before it. Signed where there is a signer.
pub fn write(
    through: u32,
    frames: &[u8],
    previous: Option<FileMark>,
    signer: Option<&Signer>,
) -> Vec<u8> {
    let previous = previous.filter(|_| signer.is_some());
    emit(through, frames, previous, Vec::new(), signer)
}

/// The same file with other frames, which says what it replaces; `None` where it has no head that we know.
pub(super) fn rewrite(file: &[u8], frames: &[u8], signer: Option<&Signer>) -> Option<Vec<u8>> {
    let (Line { body: head, .. }, _) = frame::read::<Line>(file)?;
    let mut replaces = head.replaces;
    replaces.push(FileMark::of(head.through, file));
    (head.version == VERSION).then(|| emit(head.through, frames, head.previous, replaces, signer))
}

/// Where the frames of a file begin.
pub(super) fn head_bytes(file: &[u8]) -> Option<usize> {
    frame::read::<Line>(file).map(|(_, size)| size)
}

/// Whether words were taken out of `file`, as it says itself.
pub(super) fn is_rewritten(file: &[u8]) -> bool {
    frame::read::<Line>(file).is_some_and(|(line, _)| !line.body.replaces.is_empty())
}

/// Whether `file` is what `mark` says, or says of itself that it stands in the place of that. Only what is
/// signed is believed; that it is is for [`link`].
pub(super) fn is_or_replaces(file: &[u8], mark: &FileMark) -> bool {
    if mark.bytes == file.len() as u64 && mark.begins(file) {
        return true;
    }
    let head = frame::read::<Line>(file).map(|(line, _)| line.body);
    head.is_some_and(|head| head.signature.is_some() && head.replaces.contains(mark))
}

fn emit(
    through: u32,
    frames: &[u8],
    previous: Option<FileMark>,
    replaces: Vec<FileMark>,
    signer: Option<&Signer>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(frames.len() + 512);
    let mut head = Head {
        version: VERSION,
        through,
        bytes: frames.len() as u64,
        sha256: signer.map(|_| Hex(sha256(frames))),
        previous,
        replaces,
        signature: None,
    };
    if let Some(Signer { key, volume }) = signer {
        head.signature = Some(Hex(head.mark().sign(KIND, volume, key)));
    }
    let written = frame::write(&Line { entry: Kind::History, body: head }, &mut out);
    assert!(written, "a head is shorter than a frame may be");
    out.extend_from_slice(frames);
    out
}

/// How a file of the history stands in the chain.
pub(super) enum Link {
    /// From a version that did not sign.
    None,
    /// It is what was signed, behind that file.
    Follows(Option<FileMark>),
    /// It is not: why.
    Broken(&'static str),
}

/// Checks the head of a file against its frames. `signed`: whether the store signed a hash so.
pub(super) fn link(
    number: u32,
    bytes: &[u8],
    volume: &str,
    signed: &dyn Fn(&[u8; 32], &Signature) -> bool,
) -> Link {
    let Some((Line { body: head, .. }, size)) = frame::read::<Line>(bytes) else {
        return Link::Broken("has no head that can be read");
    };
    let (Some(frames), Some(signature)) = (head.sha256, head.signature) else {
        return match (head.sha256, head.signature) {
            (None, None) => Link::None,
            _ => Link::Broken("is signed by half"),
        };
    };
    if head.through != number {
        return Link::Broken("is another file by its head");
    }
    if sha256(&bytes[size..]) != frames.0 {
        return Link::Broken("does not hold what its head says");
    }
    match signed(&head.mark().digest(KIND, volume), &signature.0) {
        true => Link::Follows(head.previous),
        false => Link::Broken("is not signed by this store's key"),
    }
}

/// The newest file of the history below `through`.
pub(super) fn newest_mark<D: Disk>(
    disk: &D,
    dir: &Path,
    through: u32,
) -> Result<Option<FileMark>, JournalError> {
    let files = numbered(disk, dir, SUFFIX)?;
    let Some((number, name)) = files.into_iter().rfind(|(number, _)| *number < through) else {
        return Ok(None);
    };
    let path = dir.join(&name);
    let bytes = read_whole(disk, &path).map_err(at("read", &path))?;
    Ok(Some(FileMark::of(number, &bytes)))
}

/// Shows each entry of one file to `learn`; what cannot be read of it. All of that is damage: a file
/// has its name only once it is whole. Total: any input gives an answer.
pub fn read(name: &str, bytes: &[u8], learn: impl FnMut(Entry)) -> Vec<Damage> {
    let damage = |from: u64, to: u64| Damage { file: name.to_owned(), from, to, middle: true };
    let (from, whole) = match frame::read::<Line>(bytes) {
        // Of a version that we do not know nothing is guessed.
        Some((line, _)) if line.body.version != VERSION => {
            return vec![damage(0, bytes.len() as u64)];
        }
        Some((line, size)) => (size, (size as u64).saturating_add(line.body.bytes)),
        None => (0, bytes.len() as u64),
    };
    let mut all = walk(name, bytes, from, learn);
    all.iter_mut().for_each(|damage| damage.middle = true);
    let found = bytes.len() as u64;
    if found != whole {
        all.push(damage(found.min(whole), found.max(whole)));
    }
    all
}

/// Shows all entries below `dir` to `learn`, in order. A folder that is not there holds none.
pub(super) fn read_all<D: Disk>(
    disk: &D,
    dir: &Path,
    mut learn: impl FnMut(Entry),
) -> Result<Vec<Damage>, JournalError> {
    let mut damage = Vec::new();
    for (_, name) in numbered(disk, dir, SUFFIX)? {
        let path = dir.join(&name);
        let bytes = read_whole(disk, &path).map_err(at("read", &path))?;
        damage.extend(read(&name, &bytes, &mut learn));
    }
    Ok(damage)
}

#[cfg(test)]
mod tests {
    use super::super::standing_tests;
    use super::*;

    fn file(count: usize) -> (Vec<Entry>, Vec<u8>) {
        let entries = standing_tests::history(5, count);
        let mut frames = Vec::new();
        assert!(entries.iter().all(|entry| frame::write(entry, &mut frames)));
        (entries, write(9, &frames, None, None))
    }

    fn entries(bytes: &[u8]) -> (Vec<Entry>, Vec<Damage>) {
        let mut found = Vec::new();
        let damage = read("h", bytes, |entry| found.push(entry));
        (found, damage)
    }

    #[test]
    fn what_is_written_is_read_and_every_cut_and_flip_is_found() {
        let (written, bytes) = file(8);
        assert_eq!(entries(&bytes), (written.clone(), Vec::new()));
        for cut in 0..bytes.len() {
            let (found, damage) = entries(&bytes[..cut]);
            assert!(written.starts_with(&found), "cut at {cut}");
            // Cut to nothing it does not say that it ever was something.
            assert!(cut == 0 || damage.iter().any(|one| one.middle), "cut at {cut}");
            let mut bad = bytes.clone();
            bad[cut] ^= 4;
            let (found, damage) = entries(&bad);
            assert!(found.len() + 1 >= written.len() && !damage.is_empty(), "byte {cut}");
        }
        assert!(!entries(&[&bytes[..], b"x"].concat()).1.is_empty(), "longer than it says");
    }

    #[test]
    fn of_a_version_that_we_do_not_know_nothing_is_guessed() {
        let mut bytes = Vec::new();
        let head = Head {
            version: VERSION + 1,
            through: 1,
            bytes: 0,
            sha256: None,
            previous: None,
            replaces: Vec::new(),
            signature: None,
        };
        frame::write(&Line { entry: Kind::History, body: head }, &mut bytes);
        let (found, damage) = entries(&bytes);
        assert!(found.is_empty() && damage[0].to == bytes.len() as u64);
    }
}
