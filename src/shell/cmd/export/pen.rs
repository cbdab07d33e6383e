//! Writing that goes on where an attempt before was broken off.
//!
//! An attempt that is resumed reads the same records again, decodes them, and keeps quiet up to the
//! checkpoint: what it would write is on disk. Every write has its place in its file, so nothing
//! depends on where one attempt ended and the next began.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// Shared by all that write one export.
#[derive(Clone, Debug, Default)]
pub(super) struct Pen {
    resuming: bool,
    quiet: Rc<Cell<bool>>,
}

impl Pen {
    /// Of an attempt; `resuming`: files may be there from one before.
    pub(super) fn new(resuming: bool) -> Pen {
        Pen { resuming, quiet: Rc::default() }
    }

    /// From now on nothing is written, or everything is.
    pub(super) fn hush(&self, quiet: bool) {
        self.quiet.set(quiet);
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.quiet.get()
    }

    /// Makes a file, or opens the one that the attempt before has made.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let mut wanted = File::options();
        wanted.read(true).write(true);
        match self.resuming {
            true => wanted.create(true).truncate(false).open(path),
            false => wanted.create_new(true).open(path),
        }
    }

    /// Writes at a place, unless it is there already.
    pub(super) fn write(&self, file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
        if self.is_quiet() { Ok(()) } else { file.write_all_at(bytes, at) }
    }
}

/// A file that only grows.
#[derive(Debug)]
pub(super) struct Appended {
    file: File,
    pen: Pen,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl Appended {
    pub(super) fn create(path: &Path, pen: &Pen) -> io::Result<Appended> {
        let (file, pen) = (pen.open(path)?, pen.clone());
        Ok(Appended { file, pen, buffer: Vec::new(), buffer_at: 0 })
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() > BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.pen.write(&self.file, &self.buffer, self.buffer_at)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Brings it to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }

    /// Ends the file where it ends.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.file.set_len(self.buffer_at)
    }
}
