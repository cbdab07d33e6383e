//! A verb of somebody who cannot read the store's files: the server does it, and we show what it says.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::pipe::PipeFlags;

use super::store::StoreArgs;
use crate::base::ids::RsId;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::{Read, Reply};
use crate::shell::serve::verbs;
use crate::store::export::tar::{BLOCK_BYTES, Part};

/// Where too many read already, we ask again for so long.
const BUSY_WAIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// Has the server do it, where the files are not ours to read; `None`: they are, or nobody can tell.
pub(crate) fn instead(
    store: &StoreArgs,
    read: impl FnOnce() -> Result<Read, Failure>,
) -> Result<Option<Exit>, Failure> {
    let Some(dir) = store.shut() else { return Ok(None) };
    here(&dir, &read()?).map(Some)
}

/// Has the server of `dir` do it, and show it where we would.
pub(crate) fn here(dir: &Path, read: &Read) -> Result<Exit, Failure> {
    let (out, errors) = (io::stdout(), io::stderr());
    ask(dir, read, out.as_fd(), errors.as_fd())
}

/// The same for an export into `folder`, which is there and empty.
pub(crate) fn export_instead(dir: &Path, read: &Read, folder: &Path) -> Result<Exit, Failure> {
    let (from, to) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
    let unpack = {
        let folder = folder.to_owned();
        move || unpack(File::from(from), &folder)
    };
    let unpacking = std::thread::spawn(unpack);
    let errors = io::stderr();
    let exit = ask(dir, read, to.as_fd(), errors.as_fd());
    // The last copy of this end.
    drop(to);
    let unpacked = unpacking.join().map_err(|_| Failure::new(Exit::Io, "unpacking has failed"))?;
    let exit = exit?;
    // A reader that failed has said so, and sent nothing.
    if matches!(exit, Exit::Yes | Exit::No) {
        unpacked?;
    }
    Ok(exit)
}

/// The same to a descriptor of ours.
pub(crate) fn read_to(dir: &Path, read: &Read, out: BorrowedFd<'_>) -> Result<Exit, Failure> {
    ask(dir, read, out, io::stderr().as_fd())
}

fn ask(
    dir: &Path,
    read: &Read,
    out: BorrowedFd<'_>,
    errors: BorrowedFd<'_>,
) -> Result<Exit, Failure> {
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        let reply = verbs::read(dir, read, &[out, errors]).map_err(|error| {
            let why = format!(
                "the files of {} are not yours to read, and no server reads them for you: {error}",
                dir.display()
            );
            let exit = match error.kind() {
                io::ErrorKind::PermissionDenied => Exit::Refused,
                _ => Exit::Unreachable,
            };
            Failure::new(exit, why)
        })?;
        return match reply {
            Reply::Exited(code) => {
                let exit = Exit::ALL.into_iter().find(|exit| *exit as u8 == code);
                exit.ok_or_else(|| Failure::new(Exit::Io, format!("the reader ended with {code}")))
            }
            Reply::Missing(why) => Err(Failure::new(Exit::NotFound, why)),
            Reply::Refused(why) => Err(Failure::new(Exit::Refused, format!("refused: {why}"))),
            Reply::Failed(why) => Err(Failure::new(Exit::TryAgain, why)),
            Reply::Busy if Instant::now() < deadline => {
                std::thread::sleep(PAUSE);
                continue;
            }
            Reply::Busy => {
                Err(Failure::new(Exit::TryAgain, "the server reads for too many others just now"))
            }
        };
    }
}

/// The recording that `text` names; that there is no such one only the server can say.
pub(crate) fn id(text: &str) -> Result<RsId, Failure> {
    text.parse().map_err(|_| Failure::new(Exit::NotFound, format!("no recording {text}")))
}

/// Makes the files of a tar stream below `folder`. Nothing is written over, and nothing outside.
fn unpack(mut from: File, folder: &Path) -> io::Result<()> {
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    loop {
        let mut block = [0; BLOCK_BYTES];
        from.read_exact(&mut block)
            .map_err(|_| wrong("the export ends in the middle".to_owned()))?;
        let part = Part::parse(&block).map_err(|error| wrong(error.to_string()))?;
        match part {
            // Whoever sends has more to say to nobody: what comes is let through, so that it can end.
            None => return io::copy(&mut from, &mut io::sink()).map(drop),
            Some(Part::Folder { path }) => {
                DirBuilder::new().mode(0o700).create(within(folder, &path)?)?;
            }
            Some(Part::File { path, bytes }) => {
                let mut wanted = OpenOptions::new();
                let path = within(folder, &path)?;
                let mut file = wanted.write(true).create_new(true).mode(0o600).open(&path)?;
                let copied = io::copy(&mut (&from).take(bytes), &mut file)?;
                if copied != bytes {
                    return Err(wrong(format!("{} ends in the middle", path.display())));
                }
                file.flush()?;
                from.read_exact(&mut block[..Part::padding(bytes)])?;
            }
        }
    }
}

/// `path` below `folder`, where no folder on the way is a link: we made them all.
fn within(folder: &Path, path: &str) -> io::Result<PathBuf> {
    let mut whole = folder.to_owned();
    for part in path.split('/') {
        if !fs::symlink_metadata(&whole)?.is_dir() && whole != folder {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        whole.push(part);
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder =
            std::env::temp_dir().join(format!("floortape-unpack-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("a temp folder");
        folder
    }

    fn stream(folder: &Path, parts: &[(Part, &[u8])], end: &[u8]) -> File {
        let mut bytes = Vec::new();
        for (part, content) in parts {
            bytes.extend_from_slice(&part.header().expect("safe"));
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        bytes.extend_from_slice(end);
        let path = folder.with_extension("tar");
        fs::write(&path, bytes).expect("ours");
        let file = File::open(&path).expect("just written");
        fs::remove_file(path).expect("ours");
        file
    }

    fn file(path: &str, bytes: u64) -> Part {
        Part::File { path: path.to_owned(), bytes }
    }

    #[test]
    fn files_come_out_as_they_went_in_and_nothing_is_written_over() {
        let folder = folder("good");
        let below = Part::Folder { path: "metadata".to_owned() };
        let end = [0; 2 * BLOCK_BYTES];
        let parts: [(Part, &[u8]); 3] =
            [(file("a.wav", 600), &[7; 600]), (below, &[]), (file("metadata/1.xml", 3), b"<x>")];
        unpack(stream(&folder, &parts, &end), &folder).expect("unpacked");
        assert_eq!(fs::read(folder.join("a.wav")).expect("there"), [7; 600]);
        assert_eq!(fs::read(folder.join("metadata/1.xml")).expect("there"), b"<x>");
        let again = unpack(stream(&folder, &parts, &end), &folder).expect_err("there already");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        fs::remove_dir_all(folder).expect("ours");
    }

    #[test]
    fn a_stream_that_is_cut_or_leads_through_a_link_fails() {
        let folder = folder("bad");
        for end in [&[][..], &[0; 100], &[1; BLOCK_BYTES]] {
            let _ = fs::remove_file(folder.join("a"));
            let parts: [(Part, &[u8]); 1] = [(file("a", 1), b"x")];
            assert!(unpack(stream(&folder, &parts, end), &folder).is_err());
        }
        std::os::unix::fs::symlink("/tmp", folder.join("link")).expect("ours");
        let parts: [(Part, &[u8]); 1] = [(file("link/floortape-escaped", 1), b"x")];
        assert!(unpack(stream(&folder, &parts, &[0; 1024]), &folder).is_err());
        assert!(!Path::new("/tmp/floortape-escaped").exists());
        fs::remove_dir_all(folder).expect("ours");
    }
}
