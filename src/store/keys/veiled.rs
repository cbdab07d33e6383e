//! A disk whose journal is encrypted: what is appended to a file of the folders that are veiled reaches
//! the disk below as AES-256-CTR under a random key of that file, which stands wrapped in its head.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "FTVEIL01"
//!      8     4  version (1)
//!     12     4  number of the store key
//!     16    16  volume id of the store
//!     32    60  nonce ‖ cipher text ‖ tag of the file's key; zeros once the file was given up
//!     92    16  boot id of the machine that began it: under another one nobody appends to it
//!    108    16  zero
//!    124     4  CRC-32C of bytes 0..124
//!    128     n  the file, byte n at block n/16 of the key stream
//! ```
//!
//! A key stream is never used for two texts: a file has a key of its own, it is only appended to, in one life of
//! the machine, and nobody writes it again after a failure. It hides; that nothing was changed is for the sums and
//! chains inside to prove. Whoever removes a file overwrites its head first, so that no block that the
//! file system still holds can be read.
//!
//! Files without that head are what they are: a store that was not always encrypted reads as a whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes::Aes256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use zerocopy::byteorder::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroizing;

use super::log_wraps::LogWraps;
use super::store_key::StoreKey;
use crate::base::ports::{Disk, DiskFile, Entropy, LogKeys, LogSecret, Unopened, WrappedKey};
use crate::store::cipher::Secret;
use crate::store::journal::keybox::{KeyBox, WRAPPED_BYTES};
use crate::store::log::crc32c;
use crate::store::segment::SegmentName;

const MAGIC: [u8; 8] = *b"FTVEIL01";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 128;
/// Purpose of the derived key that wraps those of files.
const PURPOSE: &str = "floortape files";
const CONTEXT: &str = "file";
/// Encrypted at once.
const PIECE_BYTES: usize = 64 << 10;

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Wire {
    magic: [u8; 8],
    version: U32,
    store_key: U32,
    volume: [u8; 16],
    wrapped: [u8; WRAPPED_BYTES],
    boot: [u8; 16],
    reserved: [u8; 16],
    crc: U32,
}

impl Wire {
    fn new(store_key: u32, volume: [u8; 16], wrapped: [u8; WRAPPED_BYTES], boot: [u8; 16]) -> Self {
        let mut wire = Wire {
            magic: MAGIC,
            version: U32::new(VERSION),
            store_key: U32::new(store_key),
            volume,
            wrapped,
            boot,
            reserved: [0; 16],
            crc: U32::new(0),
        };
        wire.crc = U32::new(crc32c(&wire.as_bytes()[..124]));
        wire
    }

    fn parse(bytes: &[u8; HEAD_BYTES]) -> Option<Self> {
        let wire = Wire::read_from_bytes(bytes).ok()?;
        let valid = wire.magic == MAGIC
            && wire.version.get() == VERSION
            && wire.crc.get() == crc32c(&bytes[..124]);
        valid.then_some(wire)
    }
}

/// The keys of files, and which ones are to have one.
pub struct Veil {
    volume: [u8; 16],
    /// Those of the store, newest last.
    store: Vec<StoreKey>,
    /// By number of the store key, newest last.
    keys: Vec<(u32, KeyBox)>,
    logs: LogWraps,
    /// New files there are veiled.
    folders: Vec<PathBuf>,
    /// Of this life of the machine.
    boot: [u8; 16],
    entropy: Box<dyn Entropy + Send + Sync>,
}

impl Veil {
    /// `store`: all keys of the store, newest last. `folders`: of the journal and of what is over.
    pub fn new(
        volume: [u8; 16],
        store: &[StoreKey],
        folders: Vec<PathBuf>,
        entropy: Box<dyn Entropy + Send + Sync>,
    ) -> Self {
        let boxed = |key: &StoreKey| {
            let wraps = KeyBox::new(key.derive(PURPOSE).expose()).expect("32 bytes");
            (key.number, wraps)
        };
        let (keys, logs) = (store.iter().map(boxed).collect(), LogWraps::new(store));
        let store = store.iter().map(StoreKey::duplicate).collect();
        Veil { volume, store, keys, logs, folders, boot: [0; 16], entropy }
    }

    /// In the life of the machine with that boot id.
    pub fn in_boot(self, boot: [u8; 16]) -> Self {
        Veil { boot, ..self }
    }

    fn covers(&self, path: &Path) -> bool {
        path.parent().is_some_and(|parent| self.folders.iter().any(|folder| folder == parent))
    }

    fn fresh(&self) -> (Secret, Wire) {
        let (number, keys) = self.keys.last().expect("an encrypted store has a key");
        let secret = Secret::random(self.entropy.as_ref());
        let wrapped = keys.wrap(self.entropy.as_ref(), secret.expose(), CONTEXT);
        (secret, Wire::new(*number, self.volume, wrapped, self.boot))
    }

    fn open(&self, wire: &Wire) -> Option<Secret> {
        let keys = self.keys.iter().find(|(number, _)| *number == wire.store_key.get());
        let opened = keys.and_then(|(_, keys)| keys.unwrap(&wire.wrapped, CONTEXT).ok());
        opened.map(Secret::new)
    }
}

/// Log files are no files that are only appended to: they have keys of their own.
impl LogKeys for Veil {
    fn make(&self, context: &str) -> (LogSecret, WrappedKey) {
        self.logs.make(self.entropy.as_ref(), context)
    }

    fn open(&self, key: &WrappedKey, context: &str) -> Result<LogSecret, Unopened> {
        self.logs.open(key, context)
    }
}

/// See the module. Without a veil it is the disk below, but that files which have one are refused.
#[derive(Clone)]
pub struct Veiled<D> {
    disk: D,
    veil: Option<Arc<Veil>>,
}

/// An open file.
pub struct VeiledFile<F> {
    file: F,
    view: View,
}

enum View {
    /// Not veiled.
    Clear,
    /// With its key.
    Veiled(Secret),
    /// Its key was destroyed: it holds nothing any more.
    Gone,
}

impl<D: Disk> Veiled<D> {
    /// `veil`: where the store is encrypted and its keys are known.
    pub fn new(disk: D, veil: Option<Arc<Veil>>) -> Self {
        Veiled { disk, veil }
    }

    /// The disk below.
    pub const fn disk(&self) -> &D {
        &self.disk
    }

    fn look(&self, file: D::File) -> io::Result<VeiledFile<D::File>> {
        let view = match head(&file)? {
            None => View::Clear,
            Some(wire) if wire.wrapped == [0; WRAPPED_BYTES] => View::Gone,
            Some(wire) => {
                let veil = self.veil.as_ref().ok_or_else(no_key)?;
                View::Veiled(veil.open(&wire).ok_or_else(no_key)?)
            }
        };
        Ok(VeiledFile { file, view })
    }

    /// Destroys the key of a file whose name goes, if it has one.
    fn give_up(file: &mut D::File) -> io::Result<()> {
        let Some(wire) = head(file)? else { return Ok(()) };
        let gone = Wire::new(wire.store_key.get(), wire.volume, [0; WRAPPED_BYTES], wire.boot);
        file.write_at(0, gone.as_bytes())?;
        file.sync()
    }
}

/// The error of whoever reads a veiled file without its key; by [`is_locked`] it is known again.
pub(crate) fn no_key() -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, Locked)
}

/// A file is encrypted, and nobody here has its key.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("it is encrypted, and the key that was given does not open it")]
struct Locked;

/// Whether an error says that a file is encrypted and its key is not known.
pub fn is_locked(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Locked>())
}

/// The head of a file; `None` where it has none.
fn head<F: DiskFile>(file: &F) -> io::Result<Option<Wire>> {
    let mut bytes = [0; HEAD_BYTES];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(done as u64, &mut bytes[done..])? {
            0 => return Ok(None),
            count => done += count,
        }
    }
    Ok(Wire::parse(&bytes))
}

fn apply(secret: &Secret, offset: u64, bytes: &mut [u8]) {
    let mut stream = Ctr128BE::<Aes256>::new(secret.expose().into(), &[0; 16].into());
    stream.seek(offset);
    stream.apply_keystream(bytes);
}

impl<D: Disk> Disk for Veiled<D> {
    type File = VeiledFile<D::File>;

    fn create(&self, path: &Path, bytes: u64) -> io::Result<Self::File> {
        let mut file = self.disk.create(path, bytes)?;
        // What is preallocated is no journal.
        let veil = self.veil.as_ref().filter(|veil| bytes == 0 && veil.covers(path));
        let Some(veil) = veil else { return Ok(VeiledFile { file, view: View::Clear }) };
        let (secret, wire) = veil.fresh();
        if let Err(error) = file.write_at(0, wire.as_bytes()) {
            // Best effort: a file without its head only takes a name.
            let _ = self.disk.remove(path);
            return Err(error);
        }
        Ok(VeiledFile { file, view: View::Veiled(secret) })
    }

    fn open(&self, path: &Path) -> io::Result<Self::File> {
        self.look(self.disk.open(path)?)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        // Of a file that is replaced the name goes with this call, and its key must go behind it: the
        // other way round a cut would leave neither of both.
        let replaced = match &self.veil {
            Some(veil) if veil.covers(to) => self.disk.open(to).ok(),
            _ => None,
        };
        self.disk.rename(from, to)?;
        match replaced {
            Some(mut file) => Self::give_up(&mut file),
            None => Ok(()),
        }
    }

    fn open_read(&self, path: &Path) -> io::Result<Self::File> {
        let file = self.disk.open_read(path)?;
        // A segment has a header of its own and no veil: a reader of some extents is spared a page of each.
        if path.file_name().and_then(|name| SegmentName::parse(name.to_str()?)).is_some() {
            return Ok(VeiledFile { file, view: View::Clear });
        }
        self.look(file)
    }

    fn open_medium(&self, path: &Path) -> io::Result<Self::File> {
        self.look(self.disk.open_medium(path)?)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn sync_names(&self, folder: &Path) -> io::Result<()> {
        self.disk.sync_names(folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if self.veil.as_ref().is_some_and(|veil| veil.covers(path)) {
            match self.disk.open(path) {
                Ok(mut file) => Self::give_up(&mut file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.disk.remove(path)
    }

    fn device(&self, folder: &Path) -> io::Result<String> {
        self.disk.device(folder)
    }

    fn free_bytes(&self, folder: &Path) -> io::Result<u64> {
        self.disk.free_bytes(folder)
    }

    fn locate(&self, path: &Path) -> PathBuf {
        self.disk.locate(path)
    }

    fn may_append(&self, path: &Path) -> io::Result<bool> {
        let Some(veil) = self.veil.as_ref().filter(|veil| veil.covers(path)) else {
            return Ok(true);
        };
        let wire = head(&self.disk.open_read(path)?)?;
        Ok(wire.is_some_and(|wire| wire.boot == veil.boot))
    }

    fn keys(&self, purpose: &str) -> Vec<(u32, Zeroizing<[u8; 32]>)> {
        let store = self.veil.iter().flat_map(|veil| &veil.store);
        store.map(|key| (key.number, Zeroizing::new(*key.derive(purpose).expose()))).collect()
    }

    fn log_keys(&self) -> Option<&dyn LogKeys> {
        self.veil.as_deref().map(|veil| veil as &dyn LogKeys)
    }
}

impl<F: DiskFile> DiskFile for VeiledFile<F> {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let View::Veiled(secret) = &self.view else {
            return self.file.write_at(offset, bytes);
        };
        let mut at = offset;
        for piece in bytes.chunks(PIECE_BYTES) {
            let mut piece = piece.to_vec();
            apply(secret, at, &mut piece);
            self.file.write_at(HEAD_BYTES as u64 + at, &piece)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        match &self.view {
            View::Clear => self.file.read_at(offset, out),
            View::Gone => Ok(0),
            View::Veiled(secret) => {
                let count = self.file.read_at(HEAD_BYTES as u64 + offset, out)?;
                apply(secret, offset, &mut out[..count]);
                Ok(count)
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync()
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        match self.view {
            View::Veiled(_) => self.file.cut(HEAD_BYTES as u64 + bytes),
            View::Clear | View::Gone => self.file.cut(bytes),
        }
    }

    fn bytes(&self) -> io::Result<u64> {
        match self.view {
            View::Clear => self.file.bytes(),
            View::Gone => Ok(0),
            View::Veiled(_) => Ok(self.file.bytes()?.saturating_sub(HEAD_BYTES as u64)),
        }
    }

    fn written(&self, longest: u64) -> io::Result<u64> {
        match self.view {
            View::Clear => self.file.written(longest),
            View::Gone => Ok(0),
            View::Veiled(_) => Ok(self.file.written(longest)?.saturating_sub(HEAD_BYTES as u64)),
        }
    }
}

#[cfg(test)]
mod tests {

    use zeroize::Zeroizing;

    use super::*;
    use crate::base::ids::StreamId;
    use crate::base::prng::{Prng, Seeded};
    use crate::base::time::Wall;
    use crate::store::journal::entry::Entry;
    use crate::store::journal::{Journal, read};
    use crate::store::test_disk::TestDisk;

    const DIR: &str = "/store/journal";
    const PAST: &str = "/store/history";

    fn veil(byte: u8) -> Option<Arc<Veil>> {
        let store = [StoreKey::taken_over(1, Zeroizing::new([byte; 32]))];
        let entropy = Box::new(Seeded::new(u64::from(byte)));
        let folders = vec![DIR.into(), PAST.into()];
        Some(Arc::new(Veil::new([7; 16], &store, folders, entropy)))
    }

    fn start(text: &str) -> Entry {
        Entry::Start { version: 1, volume: text.to_owned(), at: Wall(1), kept: false, before: None }
    }

    fn ids(next: u64) -> Entry {
        Entry::StreamIds { next: StreamId(next) }
    }

    fn holds(disk: &TestDisk, text: &str) -> bool {
        let bytes = disk.paths().into_iter().map(|path| disk.get(&path));
        bytes.into_iter().any(|bytes| bytes.windows(text.len()).any(|w| w == text.as_bytes()))
    }

    #[test]
    fn a_journal_is_read_with_its_key_and_says_nothing_without() {
        let disk = TestDisk::default();
        let (dir, past) = (Path::new(DIR), Path::new(PAST));
        let ours = Veiled::new(disk.clone(), veil(1));
        for round in 0..3 {
            let (mut journal, _) = Journal::open(ours.clone(), dir, past).expect("memory");
            journal.append_all(&[start("a-name-to-be-found"), ids(round)]).expect("memory");
            journal.sync().expect("memory");
        }
        assert!(!holds(&disk, "a-name-to-be-found") && !holds(&disk, "entry"));
        let replay = read(&ours, dir, past).expect("memory");
        assert_eq!((replay.entries.len(), replay.damage.len()), (6, 0));
        assert_eq!(replay.entries[5], ids(2));
        for other in [None, veil(2)] {
            let refused = read(&Veiled::new(disk.clone(), other), dir, past);
            assert!(refused.is_err(), "it is not taken for an empty one");
        }
    }

    #[test]
    fn what_was_in_clear_stays_readable_and_what_comes_later_is_not() {
        let disk = TestDisk::default();
        let (dir, past) = (Path::new(DIR), Path::new(PAST));
        for veil in [None, veil(1), veil(1)] {
            let disk = Veiled::new(disk.clone(), veil);
            let (mut journal, _) = Journal::open(disk, dir, past).expect("memory");
            journal.append_all(&[start("same"), ids(1)]).expect("memory");
            journal.sync().expect("memory");
        }
        let replay = read(&Veiled::new(disk, veil(1)), dir, past).expect("memory");
        assert_eq!((replay.entries.len(), replay.damage.len()), (6, 0));
    }

    #[test]
    fn a_file_that_goes_or_is_replaced_leaves_no_key_behind() {
        let disk = TestDisk::default();
        let ours = Veiled::new(disk.clone(), veil(1));
        let (one, other) = (Path::new("/store/journal/1"), Path::new("/store/journal/2"));
        for path in [one, other] {
            let mut file = ours.create(path, 0).expect("memory");
            file.write_at(0, path.to_string_lossy().as_bytes()).expect("memory");
            file.sync().expect("memory");
        }
        // Opened below, as whoever reads the blocks of a disk does.
        let (first, second) = (disk.open_read(one), disk.open_read(other));
        let key = |file: &io::Result<_>| {
            let file = file.as_ref().expect("it was there");
            head(file).expect("memory").map(|wire| wire.wrapped)
        };
        assert!(key(&first).is_some_and(|key| key != [0; WRAPPED_BYTES]));
        ours.rename(one, other).expect("memory");
        assert_eq!(key(&second), Some([0; WRAPPED_BYTES]), "replaced");
        let mut text = [0; 32];
        let count = ours.open_read(other).expect("there").read_at(0, &mut text).expect("memory");
        assert_eq!(&text[..count], b"/store/journal/1");
        ours.remove(other).expect("memory");
        assert_eq!(key(&first), Some([0; WRAPPED_BYTES]), "removed");
        assert!(disk.paths().is_empty());
    }

    #[test]
    fn f06_a_cut_between_a_keys_end_and_its_files_leaves_an_empty_file() {
        let disk = TestDisk::default();
        let ours = Veiled::new(disk.clone(), veil(1));
        let path = Path::new("/store/journal/1");
        let mut file = ours.create(path, 0).expect("memory");
        file.write_at(0, b"text").expect("memory");
        file.sync().expect("memory");
        Veiled::<TestDisk>::give_up(&mut disk.open(path).expect("there")).expect("memory");
        let after = Veiled::new(disk.power_cut(&mut Prng::new(1)), veil(1));
        let file = after.open_read(path).expect("readable");
        assert_eq!(
            (file.bytes().expect("memory"), file.read_at(0, &mut [0; 9]).ok()),
            (0, Some(0))
        );
    }

    #[test]
    fn any_offset_and_length_reads_back_and_no_two_files_have_the_same_stream() {
        let disk = TestDisk::default();
        let ours = Veiled::new(disk.clone(), veil(1));
        let mut random = Prng::new(9);
        let mut whole = vec![0; 200_000];
        random.fill(&mut whole);
        let mut files = Vec::new();
        for name in ["/store/journal/1", "/store/history/2"] {
            let mut file = ours.create(Path::new(name), 0).expect("memory");
            let mut at = 0;
            while at < whole.len() {
                let end = (at + 1 + random.below(90_000) as usize).min(whole.len());
                file.write_at(at as u64, &whole[at..end]).expect("memory");
                at = end;
            }
            files.push(disk.get(Path::new(name))[HEAD_BYTES..].to_vec());
            for _ in 0..100 {
                let at = random.below(whole.len() as u64) as usize;
                let mut out = vec![0; random.below(5_000) as usize];
                let count = file.read_at(at as u64, &mut out).expect("memory");
                assert_eq!(out[..count], whole[at..at + count]);
            }
        }
        let same = files[0].iter().zip(&files[1]).filter(|(one, other)| one == other).count();
        assert!(same < whole.len() / 100, "{same} bytes are the same");
        assert!(files.iter().all(|file| file.len() == whole.len() && *file != whole));
        // Others are left as they are.
        let mut clear = ours.create(Path::new("/store/segments/1"), 0).expect("memory");
        clear.write_at(0, b"text").expect("memory");
        assert_eq!(disk.get(Path::new("/store/segments/1")), b"text");
    }

    #[test]
    fn nobody_appends_in_another_life_of_the_machine_nor_to_what_is_in_clear() {
        let disk = TestDisk::default();
        let path = Path::new(DIR).join("a");
        let veil = |boot: u8| {
            let veil = Arc::into_inner(super::tests::veil(1).expect("one")).expect("ours");
            Veiled::new(disk.clone(), Some(Arc::new(veil.in_boot([boot; 16]))))
        };
        drop(veil(1).create(&path, 0).expect("memory"));
        assert!(veil(1).may_append(&path).expect("memory"));
        assert!(!veil(2).may_append(&path).expect("memory"));
        let clear = Path::new(DIR).join("b");
        disk.put(&clear, vec![7; 300]);
        assert!(!veil(1).may_append(&clear).expect("memory"));
        assert!(Veiled::new(disk.clone(), None).may_append(&clear).expect("memory"));
        // Elsewhere nothing is veiled.
        let other = Path::new("/store/segments/c");
        disk.put(other, vec![7; 300]);
        assert!(veil(1).may_append(other).expect("memory"));
    }
}
