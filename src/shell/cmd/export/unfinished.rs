//! What an export that was broken off leaves in its folder, for the same command to go on.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::ids::RsId;
use crate::base::time::Wall;
use crate::host::exported::sizes;
use crate::shell::exit::{Exit, Failure};
use crate::store::archive::Seen;
use crate::store::export::manifest;

/// Its name; it goes when the export is whole.
pub(super) const FILE: &str = ".floortape-export.json";
/// The same while it is written.
const NEW: &str = ".floortape-export.json.new";
const VERSION: u32 = 1;
/// It is a few hundred bytes, and as long as the labels asked for.
const BYTES_MAX: u64 = 1 << 20;

/// What was asked for: the same again, or it is another export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Request {
    pub(super) recording: RsId,
    pub(super) from: Option<Wall>,
    pub(super) to: Option<Wall>,
    /// The times and their zone as they were said: `-1h` is another instant when it is said again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) said: Option<[Option<String>; 3]>,
    pub(super) session: Option<String>,
    pub(super) streams: Vec<String>,
    pub(super) format: String,
    pub(super) mono: bool,
    pub(super) pack: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) tones: bool,
}

impl Request {
    /// Whether the same is asked for, in whatever words.
    fn is_same(&self, other: &Request) -> bool {
        *self == Request { said: self.said.clone(), ..other.clone() }
    }
}

/// How far it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unfinished {
    version: u32,
    pub(super) request: Request,
    /// When it was begun: the manifest says so.
    pub(super) created: Wall,
    /// Records of which all that becomes of them is on disk.
    pub(super) records: Records,
    /// Frames of the mix that are; 0 while there are records to come.
    pub(super) mixed: u64,
}

/// Records that were read, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Records {
    pub(super) count: u64,
    /// Tells whether they are the same, in the same order. Nobody is kept from forging it: it is the
    /// folder of whoever exports.
    sum: u64,
}

impl Records {
    pub(super) fn add(&mut self, seen: &Seen<'_>) {
        let meta = &seen.record.meta;
        let facts = [meta.source.0, meta.index.0, meta.arrival.0, seen.record.raw.len() as u64];
        for fact in facts {
            // The step of FxHash: one multiplication a word.
            self.sum = (self.sum.rotate_left(5) ^ fact).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
        self.count += 1;
    }
}

/// Makes the folder and takes it: two that wrote the same files would undo each other's checkpoints. It is
/// free again when that is dropped, or its process dies.
pub(super) fn lock(dir: &Path) -> Result<File, Failure> {
    let named = |error: io::Error| Failure::new(Exit::Io, format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(named)?;
    let folder = File::open(dir).map_err(named)?;
    match folder.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let why = format!("{}: another export writes there", dir.display());
            Err(Failure::new(Exit::TryAgain, why))
        }
        // Some network file systems know no locks on folders.
        Err(TryLockError::Error(_)) | Ok(()) => Ok(folder),
    }
}

/// What was begun in a folder, if anything can be read of it.
pub(super) fn begun(dir: &Path) -> Option<Request> {
    read(&path(dir)).ok()??.ok().map(|found| found.request)
}

impl Unfinished {
    /// Begins in an empty folder, or goes on in one where the same was begun and `resume` says so.
    /// Nothing is written until it is saved.
    pub(super) fn open(
        dir: &Path,
        request: Request,
        resume: bool,
        now: Wall,
    ) -> Result<Unfinished, Failure> {
        let named =
            |error: io::Error| Failure::new(Exit::Io, format!("{}: {error}", dir.display()));
        let usage = |why: String| Err(Failure::new(Exit::Usage, why));
        let shown = dir.display();
        if resume {
            // What is gone on with is written to: nobody is to have put a way to another place there.
            sizes(dir).map_err(named)?;
        }
        match read(&path(dir)).map_err(named)? {
            Some(_) if !resume => {
                usage(format!("{shown} holds an unfinished export: --resume goes on with it"))
            }
            Some(Err(why)) => usage(format!("{shown}/{FILE} cannot be read: {why}")),
            Some(Ok(found)) if !found.request.is_same(&request) => {
                usage(format!("{shown} holds an unfinished export of something else"))
            }
            Some(Ok(found)) => Ok(found),
            None if resume && dir.join(manifest::FILE).exists() => usage(format!(
                "{shown} holds an export that is whole: nothing is left to go on with"
            )),
            None if is_used(dir).map_err(named)? => usage(format!("{shown} is not empty")),
            None => {
                let records = Records::default();
                Ok(Unfinished { version: VERSION, request, created: now, records, mixed: 0 })
            }
        }
    }

    /// Writes it, so that either this or the one before is there.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        let new = dir.join(NEW);
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        fs::rename(new, path(dir))?;
        File::open(dir)?.sync_all()
    }

    /// Begins anew in its own folder: the records are not those that they were.
    pub(super) fn begin_anew(&mut self, dir: &Path) -> io::Result<()> {
        (self.records, self.mixed) = (Records::default(), 0);
        self.save(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.file_name() == FILE {
                continue;
            }
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }

    /// It is whole.
    pub(super) fn done(dir: &Path) -> io::Result<()> {
        Self::clear(dir, NEW)?;
        fs::remove_file(path(dir))
    }

    /// Removes a file that an attempt may have left.
    pub(super) fn clear(dir: &Path, name: &str) -> io::Result<()> {
        match fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether there is anything but what an attempt leaves that could not begin.
fn is_used(dir: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(dir)? {
        if entry?.file_name() != NEW {
            return Ok(true);
        }
    }
    Ok(false)
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

fn read(path: &Path) -> io::Result<Option<Result<Unfinished, String>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(found) if found.len() > BYTES_MAX => Ok(Some(Err("it is too long".to_owned()))),
        Ok(_) => Ok(Some(parse(&fs::read(path)?))),
    }
}

fn parse(bytes: &[u8]) -> Result<Unfinished, String> {
    let found: Unfinished = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match found.version {
        VERSION => Ok(found),
        other => Err(format!("version {VERSION} expected, {other} found")),
    }
}
