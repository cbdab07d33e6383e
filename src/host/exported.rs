//! Checks an exported folder by itself: no server, no store, no configuration. What `floortape verify DIR`
//! does, for programs.
//!
//! ```no_run
//! use floortape::host::exported;
//!
//! // The store's first public key, as it was handed over beforehand (`floortape key show`).
//! let trusted = [0; 32];
//! let found = exported::check("case-17/export".as_ref(), Some(trusted))?;
//! for fault in &found.faults {
//!     println!("{fault}");
//! }
//! for run in &found.damaged {
//!     println!("line {}, {} to {}: {}", run.label, run.from, run.to, run.why);
//! }
//! println!("{}", if found.is_good() { "as it was sealed" } else { "not as it was sealed" });
//! # Ok::<(), exported::CheckError>(())
//! ```
//!
//! What it proves: every file of the folder is the one that was exported; every record in it that was
//! sealed by then is byte for byte what lies under a chain head that the store's key signed; and that key
//! is the trusted one, or one that descends from it. Without a trusted key it proves only that nothing
//! was changed by accident: whoever makes an export anew signs it with a key of his own.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::base::ids::{RsId, SourceId};
use crate::base::time::Wall;
use crate::store::catalog::model::Recording;
use crate::store::evidence::{Digest, Keys, PublicKey};
use crate::store::export::manifest::{self, Content, FileEntry, Manifest, RecordsEntry, hex};

/// Longest manifest read: some 400 bytes a run of records, one run per stream and segment.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Why a folder cannot be checked at all.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// It has no manifest: it is no export.
    #[error("no {}", .0.display())]
    NoManifest(PathBuf),
    /// Longer than any that is written.
    #[error("{} has {bytes} bytes", path.display())]
    TooLong {
        /// The manifest.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
    },
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What checking a folder found.
#[derive(Clone, Debug)]
pub struct Exported {
    /// The recording that it is of; `None`: the manifest says nothing that can be believed.
    pub id: Option<RsId>,
    /// What it says of it: `recording.json`, where that can be read.
    pub recording: Option<Recording>,
    /// What is wrong with files: missing, changed, not of the export; signatures and keys.
    pub faults: Vec<String>,
    /// Records that are not those that were sealed.
    pub damaged: Vec<DamagedRun>,
    /// The store's keys that vouch for it, the first one first.
    pub keys: Option<Keys>,
    /// The last segment whose chain head vouches for records of it.
    pub checkpoint: Option<u64>,
    /// Runs of records that were not sealed when it was made: the export's own signature vouches for them.
    pub unsealed: usize,
}

/// Records of one line that fail their proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedRun {
    /// The line's label, else the stream's number.
    pub label: String,
    /// Whose records.
    pub source: SourceId,
    /// When the first of them came.
    pub from: Wall,
    /// And the last.
    pub to: Wall,
    /// What is wrong.
    pub why: String,
}

impl Exported {
    /// Whether everything is as it was exported and sealed.
    pub fn is_good(&self) -> bool {
        self.id.is_some() && self.faults.is_empty() && self.damaged.is_empty()
    }

    fn bad(fault: String) -> Self {
        Exported {
            id: None,
            recording: None,
            faults: vec![fault],
            damaged: Vec::new(),
            keys: None,
            checkpoint: None,
            unsealed: 0,
        }
    }
}

/// Checks the export in `dir`. `trusted`: a public key of the store that the reader had from elsewhere;
/// what was signed must descend from it.
pub fn check(dir: &Path, trusted: Option<PublicKey>) -> Result<Exported, CheckError> {
    let path = dir.join(manifest::FILE);
    let disk = |source| CheckError::Disk { path: path.clone(), source };
    let size = fs::metadata(&path).map_err(|_| CheckError::NoManifest(path.clone()))?.len();
    if size > MANIFEST_BYTES_MAX {
        return Err(CheckError::TooLong { path, bytes: size });
    }
    let content = match Manifest::parse(&fs::read(&path).map_err(disk)?) {
        Ok(manifest) => manifest.content,
        Err(error) => return Ok(Exported::bad(error.to_string())),
    };
    let found = match files(dir) {
        Ok(found) => found,
        Err(error) => return Ok(Exported::bad(error.to_string())),
    };
    let recording = fs::read(dir.join("recording.json"))
        .ok()
        .and_then(|json| serde_json::from_slice::<Recording>(&json).ok());
    let mut faults = Vec::new();
    if recording.is_none() {
        faults.push("recording.json is missing or not understood".to_owned());
    }
    compare(&content, found, &mut faults);
    let keys = content.keys();
    match (&keys, trusted) {
        (None, _) => faults.push("its keys do not vouch for each other".to_owned()),
        (Some(keys), Some(trusted)) if !keys.all().any(|key| key == trusted) => {
            faults.push("signed by another key than this store's".to_owned());
        }
        _ => {}
    }
    let damaged = content.records.iter().filter_map(|entry| {
        let judged =
            records(dir, &content, entry).and_then(|()| descends(entry, keys.as_ref(), trusted));
        judged.err().map(|why| DamagedRun {
            label: label(recording.as_ref(), entry),
            source: entry.source,
            from: entry.from,
            to: entry.to,
            why,
        })
    });
    let damaged = damaged.collect();
    let sealed = content.records.iter().filter_map(|entry| entry.proof.as_ref());
    let checkpoint = sealed.map(|proof| proof.fields.number).max();
    let unsealed = content.records.iter().filter(|entry| entry.proof.is_none()).count();
    Ok(Exported {
        id: Some(content.recording),
        recording,
        faults,
        damaged,
        keys,
        checkpoint,
        unsealed,
    })
}

/// Each key vouches for those after it and not for those before.
fn descends(
    entry: &RecordsEntry,
    keys: Option<&Keys>,
    trusted: Option<PublicKey>,
) -> Result<(), String> {
    let (Some(keys), Some(trusted), Some(proof)) = (keys, trusted, &entry.proof) else {
        return Ok(());
    };
    let signer = keys.signer(proof.fields.worker, proof.fields.number);
    let mut heirs = keys.all().skip_while(|key| *key != trusted);
    if heirs.any(|key| key == signer) {
        Ok(())
    } else {
        Err("signed by a key from before the one that is trusted".to_owned())
    }
}

/// Every file as listed, none missing, none more.
fn compare(content: &Content, found: Vec<FileEntry>, faults: &mut Vec<String>) {
    let found: Vec<FileEntry> =
        found.into_iter().filter(|file| file.path != manifest::FILE).collect();
    for listed in &content.files {
        match found.iter().find(|file| file.path == listed.path) {
            None => faults.push(format!("{} is missing", listed.path)),
            Some(file) if file != listed => faults.push(format!("{} was changed", listed.path)),
            Some(_) => {}
        }
    }
    for file in found {
        if !content.files.iter().any(|listed| listed.path == file.path) {
            faults.push(format!("{} does not belong to the export", file.path));
        }
    }
}

fn records(dir: &Path, content: &Content, entry: &RecordsEntry) -> Result<(), String> {
    // Only a listed file, so that a path of a forged manifest leads nowhere else.
    let listed = content.files.iter().find(|file| file.path == entry.path);
    let fits = listed.is_some_and(|file| {
        entry.offset.checked_add(entry.bytes).is_some_and(|end| end <= file.bytes)
    });
    if !fits {
        return Err(format!("the records are not in {}", entry.path));
    }
    let read = File::open(dir.join(&entry.path)).and_then(|file| {
        let size = file.metadata()?.len();
        // A file that was cut is shorter than listed; nothing is allocated for what is not there.
        let mut bytes = vec![0; entry.bytes.min(size) as usize];
        file.read_exact_at(&mut bytes, entry.offset)?;
        Ok(bytes)
    });
    match read {
        Ok(bytes) => content.check(entry, &bytes),
        Err(error) => Err(error.to_string()),
    }
}

fn label(recording: Option<&Recording>, entry: &RecordsEntry) -> String {
    let of = |recording: &Recording| {
        let mut streams = recording.streams.iter();
        let stream = streams.find(|stream| stream.stream == entry.source.stream())?;
        Some(stream.label.clone())
    };
    recording.and_then(of).unwrap_or_else(|| entry.source.stream().0.to_string())
}

/// All files below `dir`, sorted by path, with their hashes. Anything but files and folders is an
/// error: a link could point anywhere.
pub fn files(dir: &Path) -> io::Result<Vec<FileEntry>> {
    paths(dir)?
        .into_iter()
        .map(|path| {
            let (bytes, sha256) = hash(&dir.join(&path))?;
            Ok(FileEntry { path, bytes, sha256 })
        })
        .collect()
}

fn paths(dir: &Path) -> io::Result<Vec<String>> {
    let mut paths = Vec::new();
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(dir.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().into_string().map_err(|name| {
                io::Error::new(io::ErrorKind::InvalidData, format!("unexpected name {name:?}"))
            })?;
            let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                paths.push(path);
            } else {
                let why = format!("{path} is neither file nor folder");
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
    }
    paths.sort();
    Ok(paths)
}

/// All files below `dir` with their bytes, sorted by path.
pub fn sizes(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    paths(dir)?
        .into_iter()
        .map(|path| {
            let bytes = fs::metadata(dir.join(&path))?.len();
            Ok((path, bytes))
        })
        .collect()
}

fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let mut digest = Digest::new();
    let mut buffer = vec![0; 1 << 20];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hex(&digest.finish()))),
            count => {
                digest.update(&buffer[..count]);
                bytes += count as u64;
            }
        }
    }
}
