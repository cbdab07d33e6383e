//! The process in which the server reads recordings for those who cannot read the files: one verb, told on
//! standard input (`shell/serve/reading.rs`). An export leaves as a tar stream.

use std::fs::File;
use std::io::{self, BufWriter, Read as _, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::ExitCode;

use zeroize::Zeroizing;

use super::{line, tap};
use crate::host::exported::files;
use crate::host::{process, unlocked};
use crate::plane::handoff::frame::WireStoreKey;
use crate::shell::access;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::{NAME, Read, Task};
use crate::store::export::tar::{BLOCK_BYTES, Part};

/// A request is at most 8 KiB.
const TASK_BYTES_MAX: u64 = 64 * 1024;

/// Does what standard input says.
pub(crate) fn main() -> ExitCode {
    process::name_self(NAME);
    process::forbid_cores();
    process::stand_back();
    access::is_asked();
    // A tap is handed more than text.
    if let Ok(link) = process::inherited_link() {
        return tap::main(link);
    }
    let done = task().and_then(|task| {
        access::is_recorded(task.entry);
        match task.folder {
            Some(folder) => export(&task.store, &task.read, &folder),
            None => line::run(task.read.words(&task.store, None)),
        }
    });
    line::ended(done)
}

fn task() -> Result<Task, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        let why = format!("this name is for the children of `floortape serve` ({why})");
        Failure::new(Exit::Usage, why)
    };
    // It may hold keys.
    let mut text = Zeroizing::new(String::with_capacity(TASK_BYTES_MAX as usize));
    io::stdin().take(TASK_BYTES_MAX).read_to_string(&mut text)?;
    let mut task: Task = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    keep_keys(&mut task).ok_or_else(|| wrong(&"expected keys of 32 bytes"))?;
    Ok(task)
}

/// Opens an encrypted store for this process; `None` where the keys are none.
pub(crate) fn keep_keys(task: &mut Task) -> Option<()> {
    if let Some((volume, keys)) = task.keys.take() {
        let keys: Option<Vec<_>> = keys.iter().map(WireStoreKey::key).collect();
        unlocked::keep(volume, keys?);
    }
    Some(())
}

/// Exports into `folder`, then sends what is there. What the verb itself prints names that folder, which is
/// nobody's business.
fn export(store: &Path, read: &Read, folder: &Path) -> Result<Exit, Failure> {
    let to = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    let exit = line::run(read.words(store, Some(folder)))?;
    send(folder, to)?;
    Ok(exit)
}

/// Sends all files below `folder`, with the folders that they are in.
fn send(folder: &Path, to: File) -> io::Result<()> {
    let mut to = BufWriter::with_capacity(1 << 20, to);
    let mut known = std::collections::BTreeSet::new();
    let unsafe_path = || io::Error::new(io::ErrorKind::InvalidData, "a path that no tar can carry");
    for file in files(folder)? {
        for (at, _) in file.path.match_indices('/') {
            if known.insert(file.path[..at].to_owned()) {
                let part = Part::Folder { path: file.path[..at].to_owned() };
                to.write_all(&part.header().ok_or_else(unsafe_path)?)?;
            }
        }
        let part = Part::File { path: file.path.clone(), bytes: file.bytes };
        to.write_all(&part.header().ok_or_else(unsafe_path)?)?;
        let mut from = File::open(folder.join(&file.path))?.take(file.bytes);
        if io::copy(&mut from, &mut to)? != file.bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        to.write_all(&[0; BLOCK_BYTES][..Part::padding(file.bytes)])?;
    }
    to.write_all(&[0; 2 * BLOCK_BYTES])?;
    to.flush()
}
