//! Files of the store. Block-aligned writes go past the page cache (O_DIRECT) where the file system
//! takes them, everything else through it; one fdatasync makes both durable. Reads are plain reads
//! by offset: disk files are never mapped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, SeekFrom};

use crate::base::ports::{Disk, DiskFile};

/// Alignment that every file system's O_DIRECT is content with.
const DIRECT_ALIGN: usize = 4096;

/// The operating system's files.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostDisk;

/// One open file.
pub struct HostFile {
    file: File,
    direct: Option<File>,
    /// Reads go past the page cache too: `file` is open for that.
    past_cache: bool,
}

impl HostFile {
    const fn new(file: File, direct: Option<File>) -> Self {
        HostFile { file, direct, past_cache: false }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// Makes a folder and those above it that are missing; each of their names is durable before this
/// returns (a synced file in a folder that a power cut takes is lost).
pub fn make_folder(path: &Path) -> io::Result<()> {
    let missing = path.ancestors().take_while(|one| !one.as_os_str().is_empty() && !one.exists());
    let missing: Vec<&Path> = missing.collect();
    std::fs::create_dir_all(path)?;
    missing.into_iter().rev().try_for_each(sync_folder)
}

fn open_direct(path: &Path) -> Option<File> {
    let flags = libc::O_DIRECT | libc::O_NONBLOCK;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

/// Opens a file that is one: a pipe of its name would hold up whoever opens it, and a device might never end.
fn open_file(path: &Path, wanted: &mut OpenOptions, flags: i32) -> io::Result<File> {
    let file = wanted.custom_flags(flags | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.file_type() {
        found if found.is_file() || found.is_dir() => Ok(file),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file")),
    }
}

/// Largest file that is read as a whole where it is no file of records.
const SMALL_BYTES_MAX: u64 = 1 << 20;

/// Reads a small file of the store; what is no file, or longer than any of ours, is an error.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let file = open_file(path, OpenOptions::new().read(true), 0)?;
    let mut bytes = Vec::new();
    file.take(SMALL_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SMALL_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is longer than any of ours"));
    }
    Ok(bytes)
}

/// The same of text.
pub fn read_small_text(path: &Path) -> io::Result<String> {
    String::from_utf8(read_small(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

/// Whether a file is there and not ours to read.
pub fn is_shut(path: &Path) -> bool {
    open_file(path, OpenOptions::new().read(true), 0)
        .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

impl Disk for HostDisk {
    type File = HostFile;

    fn create(&self, path: &Path, bytes: u64) -> io::Result<HostFile> {
        if let Some(parent) = path.parent() {
            make_folder(parent)?;
        }
        // 0600: what is recorded is nobody else's to read.
        let file =
            OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        let made = if bytes == 0 { Ok(()) } else { preallocate(&file, bytes) };
        if let Err(error) = made.and_then(|()| sync_folder(path)) {
            // Best effort: a file without its room only takes a name.
            let _ = std::fs::remove_file(path);
            return Err(error);
        }
        let direct = if bytes == 0 { None } else { open_direct(path) };
        Ok(HostFile::new(file, direct))
    }

    fn open(&self, path: &Path) -> io::Result<HostFile> {
        let file = open_file(path, OpenOptions::new().read(true).write(true), 0)?;
        Ok(HostFile::new(file, open_direct(path)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)?;
        sync_folder(to)
    }

    fn open_read(&self, path: &Path) -> io::Result<HostFile> {
        let file = open_file(path, OpenOptions::new().read(true), 0)?;
        // Readers pick extents out of large files; read-ahead would fetch what others recorded.
        // Only advice: where it is refused the bytes are the same.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random);
        Ok(HostFile::new(file, None))
    }

    fn open_medium(&self, path: &Path) -> io::Result<HostFile> {
        // A file system without O_DIRECT (one in memory) has no medium to differ from.
        let Ok(file) = open_file(path, OpenOptions::new().read(true), libc::O_DIRECT) else {
            return self.open_read(path);
        };
        match read_direct(&file, 0, &mut [0]) {
            // Opened so, and not read so after all.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.open_read(path),
            _ => Ok(HostFile { past_cache: true, ..HostFile::new(file, None) }),
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            // A name that is not UTF-8 is none of ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn sync_names(&self, folder: &Path) -> io::Result<()> {
        match File::open(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            opened => opened?.sync_all(),
        }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn device(&self, folder: &Path) -> io::Result<String> {
        let found = rustix::fs::stat(folder)?;
        let (major, minor) = (rustix::fs::major(found.st_dev), rustix::fs::minor(found.st_dev));
        Ok(format!("{major}:{minor}"))
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

fn preallocate(file: &File, bytes: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, bytes) {
        // Such a file system cannot promise the room; the size at least is right.
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(bytes),
        other => other.map_err(io::Error::from),
    }
}

impl HostFile {
    fn goes_direct(offset: u64, bytes: &[u8]) -> bool {
        !bytes.is_empty()
            && offset.is_multiple_of(DIRECT_ALIGN as u64)
            && bytes.len().is_multiple_of(DIRECT_ALIGN)
            && bytes.as_ptr().addr().is_multiple_of(DIRECT_ALIGN)
    }
}

impl DiskFile for HostFile {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if let Some(direct) = self.direct.as_ref().filter(|_| Self::goes_direct(offset, bytes)) {
            match direct.write_all_at(bytes, offset) {
                // The file system opened it but does not take such writes after all: no failure of
                // the disk, only of the way.
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.direct = None,
                other => return other,
            }
        }
        self.file.write_all_at(bytes, offset)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        if self.past_cache {
            return read_direct(&self.file, offset, out);
        }
        read_retrying(&self.file, offset, out)
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        // A changed length is written with the data: without it they could not be read.
        self.file.sync_data()
    }

    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn written(&self, longest: u64) -> io::Result<u64> {
        let size = self.bytes()?;
        let mut at = 0;
        while at < size {
            // Reads go by offset: nobody misses the place that is moved here.
            let hole = match rustix::fs::seek(&self.file, SeekFrom::Hole(at)) {
                Ok(hole) => hole,
                // Cut meanwhile, or a file system that does not tell.
                Err(_) => return Ok(size),
            };
            let data = match rustix::fs::seek(&self.file, SeekFrom::Data(hole)) {
                Ok(data) => data,
                Err(rustix::io::Errno::NXIO) => size,
                Err(_) => return Ok(size),
            };
            if data.saturating_sub(hole) >= longest {
                return Ok(hole);
            }
            at = data;
        }
        Ok(size)
    }
}

fn read_retrying(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    loop {
        match file.read_at(out, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// Reads whole blocks into aligned memory and copies what was asked for.
fn read_direct(file: &File, offset: u64, out: &mut [u8]) -> io::Result<usize> {
    let skipped = (offset % DIRECT_ALIGN as u64) as usize;
    let span = (skipped + out.len()).next_multiple_of(DIRECT_ALIGN);
    let mut room = vec![0; span + DIRECT_ALIGN];
    let start = room.as_ptr().addr().next_multiple_of(DIRECT_ALIGN) - room.as_ptr().addr();
    let block = &mut room[start..start + span];
    let got = read_retrying(file, offset - skipped as u64, block)?;
    let count = got.saturating_sub(skipped).min(out.len());
    out[..count].copy_from_slice(&block[skipped..skipped + count]);
    Ok(count)
}

/// Tries an O_DIRECT write in `folder`. `None`: it works. Else the reason why writes there will go
/// through the page cache, for one line at start (F75).
pub fn direct_refused(folder: &Path) -> Option<String> {
    let path: PathBuf = folder.join(format!(".direct-{}", std::process::id()));
    let attempt = || -> io::Result<()> {
        std::fs::create_dir_all(folder)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(libc::O_DIRECT)
            .open(&path)?;
        let room = vec![0; DIRECT_ALIGN * 2];
        let start = room.as_ptr().addr().next_multiple_of(DIRECT_ALIGN) - room.as_ptr().addr();
        file.write_all_at(&room[start..start + DIRECT_ALIGN], 0)
    };
    let refused = attempt().err().map(|error| error.to_string());
    let _ = std::fs::remove_file(&path);
    refused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_with_all_that_is_missing_above_them() {
        let folder = std::env::temp_dir().join(format!("floortape-folders-{}", std::process::id()));
        make_folder(&folder.join("a/b/c")).expect("temp folder");
        make_folder(&folder.join("a/b")).expect("there already");
        assert!(folder.join("a/b/c").is_dir());
        std::fs::write(folder.join("file"), "").expect("ours");
        assert!(make_folder(&folder.join("file/d")).is_err());
        std::fs::remove_dir_all(folder).expect("ours");
    }

    #[test]
    fn what_is_no_file_is_not_opened_and_holds_up_nobody() {
        let folder = std::env::temp_dir().join(format!("floortape-odd-{}", std::process::id()));
        make_folder(&folder).expect("temp folder");
        let pipe = folder.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).expect("ours");
        let device = folder.join("device");
        std::os::unix::fs::symlink("/dev/zero", &device).expect("ours");
        for path in [&pipe, &device] {
            assert!(read_small(path).is_err(), "{}", path.display());
            let opened =
                [HostDisk.open(path), HostDisk.open_read(path), HostDisk.open_medium(path)];
            for error in opened.map(|opened| opened.map(drop).expect_err("no file")) {
                assert!(error.to_string().contains("no file"), "{}: {error}", path.display());
            }
        }
        std::fs::remove_dir_all(folder).expect("ours");
    }

    #[test]
    fn direct_and_buffered_writes_of_one_file_are_both_read_back() {
        let folder = std::env::temp_dir().join(format!("floortape-disk-{}", std::process::id()));
        let path = folder.join("deep").join("a");
        let disk = HostDisk;
        let mut file = disk.create(&path, 64 * 1024).expect("temp folder");
        assert!(disk.create(&path, 1).is_err(), "exists");
        let room = vec![7; DIRECT_ALIGN * 3];
        let start = room.as_ptr().addr().next_multiple_of(DIRECT_ALIGN) - room.as_ptr().addr();
        file.write_at(8192, &room[start..start + 8192]).expect("aligned");
        file.write_at(5, b"unaligned").expect("unaligned");
        file.sync().expect("sync");
        drop(file);
        let file = disk.open_read(&path).expect("there");
        let mut out = [0; 8192];
        assert_eq!(file.read_at(8192, &mut out).expect("read"), 8192);
        assert!(out.iter().all(|byte| *byte == 7));
        assert_eq!(file.read_at(5, &mut out[..9]).expect("read"), 9);
        assert_eq!(&out[..9], b"unaligned");
        assert_eq!(file.bytes().expect("stat"), 64 * 1024);
        assert_eq!(file.read_at(64 * 1024, &mut out).expect("read"), 0);
        let medium = disk.open_medium(&path).expect("there");
        for (offset, length) in [(0, 4096), (8192, 8192), (8_190, 7), (5, 20_000), (65_000, 4096)] {
            let (mut cached, mut stored) = (vec![1; length], vec![2; length]);
            let count = file.read_at(offset, &mut cached).expect("read");
            assert_eq!(medium.read_at(offset, &mut stored).expect("read"), count);
            assert_eq!(cached[..count], stored[..count], "at {offset}");
        }
        assert_eq!(medium.read_at(64 * 1024, &mut out).expect("read"), 0, "the end");
        let mut file = disk.open(&path).expect("there");
        file.cut(8_192).expect("shorter");
        file.sync().expect("sync");
        assert_eq!(file.bytes().expect("stat"), 8_192);
        assert_eq!(file.read_at(8_192, &mut out).expect("read"), 0);
        assert_eq!(disk.list(&folder.join("deep")).expect("list"), ["a"]);
        assert!(disk.list(&folder.join("none")).expect("list").is_empty());
        assert!(disk.free_bytes(&folder).expect("statvfs") > 0);
        std::fs::remove_dir_all(folder).expect("ours");
    }
}
