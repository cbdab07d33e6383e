//! The keys of one segment: `STORE/segments/wN-NNNNNNNNNN.keys`, beside the segment whose extents they
//! encrypt, one for each stream in it, each at a place of its own, so that it can be overwritten.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "FTSEGK01"
//!      8     4  version (1)
//!     12     4  number of the store key
//!     16    16  volume id of the store
//!     32     2  worker
//!     34     6  zero
//!     40     8  segment number
//!     48     8  entries
//!     56    68  zero
//!    124     4  CRC-32C of bytes 0..124
//!    128  96·n  entries by stream, then zeros to a block
//! ```
//!
//! An entry:
//!
//! ```text
//!      0     8  stream
//!      8     1  1 live, 2 shredded
//!      9     7  zero
//!     16     8  wall ns when it was made, or shredded
//!     24    60  nonce ‖ cipher text ‖ tag of the secret; zeros once shredded
//!     84     8  zero
//!     92     4  CRC-32C of bytes 0..92
//! ```
//!
//! The file is durable before its segment has its name. One that a writer left who was killed is
//! overwritten in place by the next one: what the other has encrypted, nobody can read.

use std::io;
use std::path::{Path, PathBuf};

use zerocopy::byteorder::little_endian::{I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroizing;

use super::store_key::StoreKey;
use crate::base::ids::{StreamId, WorkerId};
use crate::base::ports::{Disk, DiskFile, Entropy};
use crate::base::time::Wall;
use crate::store::cipher::Secret;
use crate::store::journal::keybox::{KeyBox, KeyBoxError, WRAPPED_BYTES};
use crate::store::log::{BLOCK_BYTES, crc32c};

const MAGIC: [u8; 8] = *b"FTSEGK01";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 128;
const ENTRY_BYTES: usize = 96;
/// Of a segment of the largest size there is, full of records of one packet each.
const ENTRIES_MAX: usize = 1 << 22;
/// Purpose of the derived key that wraps secrets.
const PURPOSE: &str = "floortape segments";
const LIVE: u8 = 1;
const SHREDDED: u8 = 2;

/// Where the keys of the segment at `segment` are.
pub fn path_of(segment: &Path) -> PathBuf {
    segment.with_extension("keys")
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such file, and something is encrypted under what it held.
    #[error("{}: the keys are not in the store", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file, or what it says of a stream, is not what was written.
    #[error("{}: the keys are damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// They are another segment's.
    #[error("{}: the keys are another segment's", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// Nobody has given the store's key.
    #[error("the key of the store is not there")]
    Locked,
    /// It was overwritten at the end of its retention.
    #[error("the key was destroyed")]
    Shredded {
        /// When.
        at: Wall,
    },
    /// The file has none of that stream.
    #[error("there is no key of stream {}", stream.0)]
    Unknown {
        /// Whose.
        stream: StreamId,
    },
    /// Another store key wrapped it, or it was changed.
    #[error("the key of stream {}: {why}", stream.0)]
    Changed {
        /// Whose.
        stream: StreamId,
        /// What the engine said.
        why: KeyBoxError,
    },
}

impl KeyError {
    /// Whether the file is there and not what was written.
    pub const fn is_damage(&self) -> bool {
        matches!(self, KeyError::Damaged { .. } | KeyError::Foreign { .. })
    }

    fn disk(path: &Path) -> impl FnOnce(io::Error) -> KeyError + '_ {
        move |source| match source.kind() {
            io::ErrorKind::NotFound => KeyError::Missing { path: path.to_owned() },
            _ => KeyError::Disk { path: path.to_owned(), source },
        }
    }
}

/// Whose segment it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Of {
    /// Id of the store.
    pub volume: [u8; 16],
    /// Whose record stream.
    pub worker: WorkerId,
    /// Number in the worker's chain.
    pub number: u64,
}

impl Of {
    /// What a secret is bound to.
    fn context(&self, stream: StreamId) -> String {
        format!("segment {} {} stream {}", self.worker.0, self.number, stream.0)
    }
}

/// What wraps the secrets of segments: a derived key for each store key, newest last.
pub struct Wraps(Vec<(u32, KeyBox)>);

impl Wraps {
    /// `store`: all keys of the store, newest last; there is one at least.
    pub fn new(store: &[StoreKey]) -> Self {
        let boxed = |key: &StoreKey| {
            let wraps = KeyBox::new(key.derive(PURPOSE).expose()).expect("32 bytes");
            (key.number, wraps)
        };
        Wraps(store.iter().map(boxed).collect())
    }

    /// Those of the store whose disk it is; `None`: it is in the clear, or nobody has given its key.
    pub fn of<D: Disk>(disk: &D) -> Option<Self> {
        let keys = disk.keys(PURPOSE).into_iter();
        let boxed = |(number, key): (u32, Zeroizing<[u8; 32]>)| {
            (number, KeyBox::new(key.as_ref()).expect("32 bytes"))
        };
        let wraps: Vec<_> = keys.map(boxed).collect();
        (!wraps.is_empty()).then_some(Wraps(wraps))
    }

    /// Number of the store key that wraps what is made now.
    pub fn newest(&self) -> u32 {
        self.0.last().expect("a store has a key").0
    }
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Head {
    magic: [u8; 8],
    version: U32,
    store_key: U32,
    volume: [u8; 16],
    worker: U16,
    zero: [u8; 6],
    number: U64,
    entries: U64,
    reserved: [u8; 68],
    crc: U32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Entry {
    stream: U64,
    mark: u8,
    zero: [u8; 7],
    at: I64,
    wrapped: [u8; WRAPPED_BYTES],
    reserved: [u8; 8],
    crc: U32,
}

impl Entry {
    fn new(stream: StreamId, mark: u8, at: Wall, wrapped: [u8; WRAPPED_BYTES]) -> Self {
        let mut entry = Entry {
            stream: U64::new(stream.0),
            mark,
            zero: [0; 7],
            at: I64::new(at.0),
            wrapped,
            reserved: [0; 8],
            crc: U32::new(0),
        };
        entry.crc = U32::new(crc32c(&entry.as_bytes()[..92]));
        entry
    }

    fn is_whole(&self) -> bool {
        self.crc.get() == crc32c(&self.as_bytes()[..92]) && [LIVE, SHREDDED].contains(&self.mark)
    }
}

/// Makes the secrets of `streams` (in their order, each once) and the file that holds them wrapped;
/// durable when it returns. A file that is there is overwritten: its segment never got its name.
pub(super) fn make<D: Disk>(
    disk: &D,
    path: &Path,
    of: Of,
    streams: &[StreamId],
    wraps: &Wraps,
    entropy: &dyn Entropy,
    at: Wall,
) -> Result<Vec<(StreamId, Secret)>, KeyError> {
    assert!(streams.is_sorted() && streams.len() <= ENTRIES_MAX, "each stream once, in order");
    let (store_key, keys) = wraps.0.last().expect("a store has a key");
    let mut entries = Vec::with_capacity(streams.len());
    let mut secrets = Vec::with_capacity(streams.len());
    for stream in streams {
        let secret = Secret::random(entropy);
        let wrapped = keys.wrap(entropy, secret.expose(), &of.context(*stream));
        entries.push(Entry::new(*stream, LIVE, at, wrapped));
        secrets.push((*stream, secret));
    }
    overwrite(disk, path, emit(of, *store_key, &entries)).map_err(KeyError::disk(path))?;
    Ok(secrets)
}

/// Destroys whatever the file at `path` holds, all keys of `streams`, and leaves in its place that they are
/// shredded; on the medium when it returns. For keys that are damaged.
pub fn bury<D: Disk>(
    disk: &D,
    path: &Path,
    of: Of,
    streams: &[StreamId],
    at: Wall,
) -> Result<(), KeyError> {
    let gone = |stream: &StreamId| Entry::new(*stream, SHREDDED, at, [0; WRAPPED_BYTES]);
    let bytes = emit(of, 0, &streams.iter().map(gone).collect::<Vec<_>>());
    let written = overwrite(disk, path, bytes.clone()).and_then(|()| {
        let medium = disk.open_medium(path)?;
        let found = read_all(&medium)?;
        let (same, rest) = found.split_at(found.len().min(bytes.len()));
        let gone = same == bytes && rest.iter().all(|byte| *byte == 0);
        if gone { Ok(()) } else { Err(still_there()) }
    });
    written.map_err(KeyError::disk(path))
}

fn still_there() -> io::Error {
    io::Error::other("a key that was overwritten is still there")
}

fn emit(of: Of, store_key: u32, entries: &[Entry]) -> Vec<u8> {
    let mut head = Head {
        magic: MAGIC,
        version: U32::new(VERSION),
        store_key: U32::new(store_key),
        volume: of.volume,
        worker: U16::new(of.worker.0),
        zero: [0; 6],
        number: U64::new(of.number),
        entries: U64::new(entries.len() as u64),
        reserved: [0; 68],
        crc: U32::new(0),
    };
    head.crc = U32::new(crc32c(&head.as_bytes()[..124]));
    let mut bytes = head.as_bytes().to_vec();
    entries.iter().for_each(|entry| bytes.extend_from_slice(entry.as_bytes()));
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    bytes
}

fn overwrite<D: Disk>(disk: &D, path: &Path, mut bytes: Vec<u8>) -> io::Result<()> {
    let mut file = match disk.open(path) {
        Ok(file) => {
            // Of another one no entry stays behind.
            let there = file.bytes()?.min((HEAD_BYTES + ENTRIES_MAX * ENTRY_BYTES) as u64);
            bytes.resize(bytes.len().max(there as usize), 0);
            file
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.create(path, bytes.len() as u64)?
        }
        Err(error) => return Err(error),
    };
    file.write_at(0, &bytes)?;
    file.sync()
}

/// What is wrong with the keys of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// They are those of others.
    #[error("the keys are not those of its streams")]
    Streams,
    /// Something stands behind them, or they are cut.
    #[error("the file of its keys does not end as it was written")]
    Tail,
    /// One of them.
    #[error("the key of stream {} is damaged", .0.0)]
    Entry(StreamId),
}

/// The secrets of one segment, for whoever reads it; each is unwrapped when it is asked for.
pub struct SegmentKeys {
    path: PathBuf,
    of: Of,
    store_key: u32,
    entries: Vec<Entry>,
    /// Behind them there are zeros only.
    ends_in_zeros: bool,
}

impl SegmentKeys {
    /// Reads the file at `path`. Total: any bytes give an answer.
    pub fn read<D: Disk>(disk: &D, path: &Path) -> Result<Self, KeyError> {
        let bytes = read_whole(disk, path).map_err(KeyError::disk(path))?;
        SegmentKeys::parse(path, &bytes).ok_or_else(|| KeyError::Damaged { path: path.to_owned() })
    }

    /// The same of bytes that were read; `None`: the head is damaged, or says more than there is.
    pub fn parse(path: &Path, bytes: &[u8]) -> Option<Self> {
        let (head, rest) = Head::read_from_prefix(bytes).ok()?;
        let count = usize::try_from(head.entries.get()).ok().filter(|n| *n <= ENTRIES_MAX)?;
        let fits = head.magic == MAGIC
            && head.version.get() == VERSION
            && head.crc.get() == crc32c(&bytes[..124]);
        let rows = rest.get(..count * ENTRY_BYTES).filter(|_| fits)?;
        let entries: Vec<Entry> = rows
            .as_chunks::<ENTRY_BYTES>()
            .0
            .iter()
            .map(|row| Entry::read_from_bytes(row).expect("96 bytes"))
            .collect();
        let of = Of {
            volume: head.volume,
            worker: WorkerId(head.worker.get()),
            number: head.number.get(),
        };
        let tail = &rest[count * ENTRY_BYTES..];
        let ends_in_zeros =
            bytes.len().is_multiple_of(BLOCK_BYTES) && tail.iter().all(|byte| *byte == 0);
        let (path, store_key) = (path.to_owned(), head.store_key.get());
        Some(SegmentKeys { path, of, store_key, entries, ends_in_zeros })
    }

    /// What is wrong with them, beside what whoever asks for a secret is told: of entries those that are
    /// damaged, whoever they are of. `streams`: those of the segment, in order.
    pub fn faults(&self, streams: &[StreamId]) -> Vec<KeyFault> {
        let mut faults = Vec::new();
        let mine = self.entries.iter().map(|entry| entry.stream.get());
        if !mine.eq(streams.iter().map(|stream| stream.0)) {
            faults.push(KeyFault::Streams);
        }
        if !self.ends_in_zeros {
            faults.push(KeyFault::Tail);
        }
        let damaged = self.entries.iter().filter(|entry| !entry.is_whole());
        faults.extend(damaged.map(|entry| KeyFault::Entry(StreamId(entry.stream.get()))));
        faults
    }

    /// Whose keys they are.
    pub const fn of(&self) -> Of {
        self.of
    }

    /// Where the entry of a stream is. One that is damaged may say another's stream, and be out of order: it
    /// hides no other one.
    fn entry(&self, stream: StreamId) -> Option<(usize, &Entry)> {
        let found = self.entries.binary_search_by_key(&stream.0, |entry| entry.stream.get());
        let place = match found {
            Ok(place) if self.entries[place].is_whole() => place,
            _ => {
                let says = |entry: &&Entry| entry.stream.get() == stream.0;
                let mine = || self.entries.iter().enumerate().filter(|(_, entry)| says(entry));
                mine().find(|(_, entry)| entry.is_whole()).or_else(|| mine().next())?.0
            }
        };
        Some((place, &self.entries[place]))
    }

    /// The secret of a stream.
    pub fn secret(&self, stream: StreamId, wraps: &Wraps) -> Result<Secret, KeyError> {
        let (_, entry) = self.entry(stream).ok_or(KeyError::Unknown { stream })?;
        if !entry.is_whole() {
            return Err(KeyError::Damaged { path: self.path.clone() });
        }
        if entry.mark == SHREDDED {
            return Err(KeyError::Shredded { at: Wall(entry.at.get()) });
        }
        let keys = wraps.0.iter().find(|(number, _)| *number == self.store_key);
        let opened = match keys {
            Some((_, keys)) => keys.unwrap(&entry.wrapped, &self.of.context(stream)),
            None => Err(KeyBoxError::Tag),
        };
        opened.map(Secret::new).map_err(|why| KeyError::Changed { stream, why })
    }

    /// Destroys the secrets of `streams`: overwrites them in place, syncs, and reads back from the medium
    /// that it is so. Returns how many were there. Doing it again does nothing.
    pub fn shred<D: Disk>(
        &self,
        disk: &D,
        streams: &[StreamId],
        at: Wall,
    ) -> Result<usize, KeyError> {
        let live = |stream: &StreamId| {
            let (place, entry) = self.entry(*stream)?;
            (entry.mark != SHREDDED || !entry.is_whole()).then_some((place, *stream))
        };
        // It may be one of those that say a wrong stream: nobody knows whose they are.
        let is_lost = |stream: &StreamId| self.entry(*stream).is_none();
        if streams.iter().any(is_lost) && !self.entries.iter().all(Entry::is_whole) {
            return Err(KeyError::Damaged { path: self.path.clone() });
        }
        let places: Vec<(usize, StreamId)> = streams.iter().filter_map(live).collect();
        if !places.is_empty() {
            self.overwrite(disk, &places, at).map_err(KeyError::disk(&self.path))?;
        }
        Ok(places.len())
    }

    fn overwrite<D: Disk>(
        &self,
        disk: &D,
        places: &[(usize, StreamId)],
        at: Wall,
    ) -> io::Result<()> {
        let offset = |place: usize| (HEAD_BYTES + place * ENTRY_BYTES) as u64;
        let gone = |stream| Entry::new(stream, SHREDDED, at, [0; WRAPPED_BYTES]);
        let mut file = disk.open(&self.path)?;
        for (place, stream) in places {
            file.write_at(offset(*place), gone(*stream).as_bytes())?;
        }
        file.sync()?;
        let medium = disk.open_medium(&self.path)?;
        for (place, stream) in places {
            let mut found = [0; ENTRY_BYTES];
            let count = medium.read_at(offset(*place), &mut found)?;
            if count != ENTRY_BYTES || found != gone(*stream).as_bytes() {
                return Err(still_there());
            }
        }
        Ok(())
    }
}

/// Destroys all that the file at `path` holds, whatever that is, and removes it.
pub fn destroy<D: Disk>(disk: &D, path: &Path) -> io::Result<()> {
    let mut file = disk.open(path)?;
    let bytes = file.bytes()?;
    let zeros = [0; BLOCK_BYTES];
    for at in (0..bytes).step_by(BLOCK_BYTES) {
        let count = (bytes - at).min(BLOCK_BYTES as u64) as usize;
        file.write_at(at, &zeros[..count])?;
    }
    file.sync()?;
    disk.remove(path)
}

fn read_whole<D: Disk>(disk: &D, path: &Path) -> io::Result<Vec<u8>> {
    read_all(&disk.open_read(path)?)
}

fn read_all<F: DiskFile>(file: &F) -> io::Result<Vec<u8>> {
    let most = (HEAD_BYTES + ENTRIES_MAX * ENTRY_BYTES) as u64;
    let mut bytes = vec![0; file.bytes()?.min(most) as usize];
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(done as u64, &mut bytes[done..])? {
            0 => break,
            count => done += count,
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::*;
    use crate::base::prng::{Prng, Seeded};
    use crate::store::test_disk::TestDisk;

    const OF: Of = Of { volume: [7; 16], worker: WorkerId(1), number: 9 };

    fn file() -> &'static Path {
        Path::new("/store/segments/w1-0000000009.keys")
    }

    fn wraps(byte: u8) -> Wraps {
        Wraps::new(&[StoreKey::taken_over(1, Zeroizing::new([byte; 32]))])
    }

    fn streams(count: u64) -> Vec<StreamId> {
        (0..count).map(|number| StreamId(3 + 2 * number)).collect()
    }

    fn made(disk: &TestDisk, count: u64, seed: u64) -> Vec<(StreamId, Secret)> {
        let entropy = Seeded::new(seed);
        make(disk, file(), OF, &streams(count), &wraps(1), &entropy, Wall(5)).expect("memory")
    }

    fn opens(disk: &TestDisk, stream: StreamId, secret: &Secret) -> bool {
        let keys = SegmentKeys::read(disk, file()).expect("whole");
        keys.secret(stream, &wraps(1)).is_ok_and(|found| found.expose() == secret.expose())
    }

    #[test]
    fn each_stream_has_a_secret_of_its_own_that_only_the_store_key_opens() {
        let disk = TestDisk::default();
        assert_eq!(path_of(Path::new("/store/segments/w1-0000000009.seg")), file());
        let secrets = made(&disk, 50, 1);
        let keys = SegmentKeys::read(&disk, file()).expect("whole");
        assert_eq!(keys.of(), OF);
        let mut seen = std::collections::BTreeSet::new();
        for (stream, secret) in &secrets {
            assert!(opens(&disk, *stream, secret) && seen.insert(*secret.expose()));
            let other = keys.secret(*stream, &wraps(2));
            assert!(matches!(other, Err(KeyError::Changed { .. })));
        }
        let unknown = keys.secret(StreamId(4), &wraps(1));
        assert!(matches!(unknown, Err(KeyError::Unknown { .. })));
    }

    #[test]
    fn what_was_shredded_is_in_no_byte_of_the_disk_and_others_are_untouched() {
        let disk = TestDisk::default();
        let secrets = made(&disk, 9, 1);
        let keys = SegmentKeys::read(&disk, file()).expect("whole");
        let gone = [secrets[2].0, secrets[7].0, StreamId(1_000)];
        let old: Vec<[u8; WRAPPED_BYTES]> = [2, 7].map(|at| keys.entries[at].wrapped).to_vec();
        assert_eq!(keys.shred(&disk, &gone, Wall(77)).expect("memory"), 2);
        for disk in [disk.clone(), disk.power_cut(&mut Prng::new(1))] {
            let bytes = disk.get(file());
            for wrapped in &old {
                assert!(!bytes.windows(32).any(|window| window == &wrapped[12..44]));
            }
            let keys = SegmentKeys::read(&disk, file()).expect("whole");
            assert_eq!(keys.shred(&disk, &gone, Wall(78)).expect("memory"), 0, "once");
            for (place, (stream, secret)) in secrets.iter().enumerate() {
                let found = keys.secret(*stream, &wraps(1));
                match place {
                    2 | 7 => assert!(matches!(found, Err(KeyError::Shredded { at: Wall(77) }))),
                    _ => assert_eq!(found.expect("there").expose(), secret.expose()),
                }
            }
        }
    }

    #[test]
    fn f12_a_file_of_a_writer_that_was_killed_is_overwritten_whole() {
        let disk = TestDisk::default();
        let old = made(&disk, 90, 1);
        let before = SegmentKeys::read(&disk, file()).expect("whole");
        let new = made(&disk, 3, 2);
        let bytes = disk.get(file());
        for entry in &before.entries {
            assert!(!bytes.windows(32).any(|window| window == &entry.wrapped[12..44]));
        }
        assert!(new.iter().all(|(stream, secret)| opens(&disk, *stream, secret)));
        assert!(!opens(&disk, old[0].0, &old[0].1));
    }

    #[test]
    fn any_bytes_give_an_answer_and_no_wrong_secret() {
        let disk = TestDisk::default();
        let secrets = made(&disk, 6, 1);
        let whole = disk.get(file());
        let mut random = Prng::new(4);
        for round in 0..2_000 {
            let mut bad = whole.clone();
            match random.below(3) {
                0 => bad.truncate(random.below(bad.len() as u64) as usize),
                1 => {
                    let at = random.below((HEAD_BYTES + 6 * ENTRY_BYTES) as u64) as usize;
                    bad[at] ^= 1 << random.below(8);
                }
                _ => {
                    // One stream's secret at another one's place, with a sum that fits.
                    let at = |place: u64| HEAD_BYTES + place as usize * ENTRY_BYTES;
                    let (from, to) = (at(random.below(6)), at(random.below(6)));
                    let wrapped = whole[from + 24..from + 84].to_vec();
                    bad[to + 24..to + 84].copy_from_slice(&wrapped);
                    let crc = crc32c(&bad[to..to + 92]).to_le_bytes();
                    bad[to + 92..to + 96].copy_from_slice(&crc);
                }
            }
            disk.put(file(), bad);
            let Ok(keys) = SegmentKeys::read(&disk, file()) else { continue };
            for (stream, secret) in &secrets {
                if let Ok(found) = keys.secret(*stream, &wraps(1)) {
                    assert_eq!(found.expose(), secret.expose(), "round {round}");
                }
            }
        }
    }
}
