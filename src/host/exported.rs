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
use crate::store::evidence::{Digest, Keys, PublicKey, Salt};
use crate::store::export::manifest::{self, Content, FileEntry, Manifest, RECORDS, Run, hex};

/// Longest manifest read: some 230 bytes a run of records, two runs per stream and segment. Of version 1, 6 KB.
const MANIFEST_BYTES_MAX: u64 = 2 << 30;
/// Longest run of records that is read at once: a source's share of a ring is less.
const RUN_BYTES_MAX: u64 = 1 << 30;

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
    if !path.is_file() {
        return Ok(Exported::bad(format!("{} is no file", manifest::FILE)));
    }
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
    let runs = Runs { dir, content: &content, keys: keys.as_ref(), trusted };
    let (damaged, checkpoint, unsealed) = runs.judge(recording.as_ref());
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

/// The records of an export, and who may have signed them.
struct Runs<'a> {
    dir: &'a Path,
    content: &'a Content,
    keys: Option<&'a Keys>,
    trusted: Option<PublicKey>,
}

impl Runs<'_> {
    /// What of them is damaged, the last segment that vouches for some, and how many runs none does.
    fn judge(&self, recording: Option<&Recording>) -> (Vec<DamagedRun>, Option<u64>, usize) {
        let mut damaged = Vec::new();
        let mut judge = |run: &Run, judged: Result<(), String>| {
            damaged.extend(judged.err().map(|why| DamagedRun {
                label: label(recording, run.source),
                source: run.source,
                from: run.from,
                to: run.to,
                why,
            }));
        };
        let content = self.content;
        let mut file = None;
        for segment in &content.segments {
            let led = self.signer(segment.worker, segment.number).and_then(|key| {
                segment.proof().verify(&key).map(|_| ()).map_err(|error| error.to_string())
            });
            for proven in &segment.runs {
                let judged = led.clone().and_then(|()| {
                    let salt = self.salt(proven.run.source)?;
                    let records = self.records((&mut file, RECORDS), &proven.run)?;
                    proven.leaf().holds(&records, &salt).map_err(|error| error.to_string())
                });
                judge(&proven.run, judged);
            }
        }
        for run in &content.unproven {
            judge(run, self.records((&mut file, RECORDS), run).map(|_| ()));
        }
        let mut unproven = content.unproven.len();
        for old in &content.old {
            let run = Run {
                source: old.source,
                offset: old.offset,
                bytes: old.bytes,
                from: old.from,
                to: old.to,
            };
            let mut file = None;
            let judged = self.records((&mut file, &old.path), &run).and_then(|records| {
                let Some(way) = &old.proof else { return Ok(()) };
                if way.source != old.source {
                    return Err("the proof is another source's".to_owned());
                }
                let key = self.signer(way.fields.worker, way.fields.number)?;
                way.check(&records, &self.salt(old.source)?, &key)
            });
            judge(&run, judged);
            unproven += usize::from(old.proof.is_none());
        }
        let old = content.old.iter().filter_map(|run| Some(run.proof.as_ref()?.fields.number));
        let numbers = content.segments.iter().map(|segment| segment.number).chain(old);
        (damaged, numbers.max(), unproven)
    }

    fn salt(&self, source: SourceId) -> Result<Salt, String> {
        self.content.salt_of(source).ok_or_else(|| "expected a salt of 64 hex digits".to_owned())
    }

    /// The key that signed a segment. Each vouches for those after it and not for those before.
    fn signer(&self, worker: u16, number: u64) -> Result<PublicKey, String> {
        let keys = self.keys.ok_or("its keys do not vouch for each other")?;
        let signer = keys.signer(worker, number);
        let Some(trusted) = self.trusted else { return Ok(signer) };
        if keys.all().skip_while(|key| *key != trusted).any(|key| key == signer) {
            Ok(signer)
        } else {
            Err("signed by a key from before the one that is trusted".to_owned())
        }
    }

    fn records(
        &self,
        (file, path): (&mut Option<File>, &str),
        run: &Run,
    ) -> Result<Vec<u8>, String> {
        // Only a listed file, so that a path of a forged manifest leads nowhere else.
        let listed = self.content.files.iter().find(|file| file.path == path);
        let fits = listed.is_some_and(|file| {
            run.offset.checked_add(run.bytes).is_some_and(|end| end <= file.bytes)
        });
        if !fits || run.bytes > RUN_BYTES_MAX {
            return Err(format!("the records are not in {path}"));
        }
        let mut read = || {
            if file.is_none() {
                *file = Some(File::open(self.dir.join(path))?);
            }
            let file = file.as_ref().expect("opened above");
            // A file that was cut is shorter than listed; nothing is allocated for what is not there.
            let mut bytes = vec![0; run.bytes.min(file.metadata()?.len()) as usize];
            file.read_exact_at(&mut bytes, run.offset)?;
            if (bytes.len() as u64) < run.bytes {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            Ok(bytes)
        };
        read().map_err(|error: io::Error| error.to_string())
    }
}

fn label(recording: Option<&Recording>, source: SourceId) -> String {
    let of = |recording: &Recording| {
        let mut streams = recording.streams.iter();
        let stream = streams.find(|stream| stream.stream == source.stream())?;
        Some(stream.label.clone())
    };
    recording.and_then(of).unwrap_or_else(|| source.stream().0.to_string())
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
