//! The store key, and the two files in which it stands wrapped by the key-encryption key.
//!
//! ```text
//! offset  size  field
//!      0     8  magic "FTSTKEY1"
//!      8     4  version (1)
//!     12     4  entries
//!     16     8  sequence: of two whole files the higher one counts
//!     24    16  volume id of the store
//!     40  96·n  entries: number 4, zero 4, fingerprint of the KEK 16, wall ns 8, wrapped key 60, zero 4
//!   4092     4  CRC-32C of bytes 0..4092
//! ```
//!
//! Both are overwritten in place, one behind the other, so that a power cut leaves one of them whole
//! and what an older KEK has wrapped does not stay behind in a block that nobody uses.

use std::io;
use std::path::{Path, PathBuf};

use zerocopy::byteorder::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};
use zeroize::Zeroizing;

use crate::base::ports::{Disk, DiskFile, Entropy};
use crate::base::time::Wall;
use crate::store::cipher::Secret;
use crate::store::journal::keybox::{self, KeyBox, KeyBoxError, WRAPPED_BYTES};
use crate::store::log::{BLOCK_BYTES, crc32c};

/// Bytes of a key-encryption key.
pub const KEK_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"FTSTKEY1";
const VERSION: u32 = 1;
const ENTRY_BYTES: usize = 96;
const HEAD_BYTES: usize = 40;
/// As many as a block has room for; each but the last is of before a new store key was made.
const ENTRIES_MAX: usize = (BLOCK_BYTES - HEAD_BYTES - 4) / ENTRY_BYTES;
const FILES: [&str; 2] = ["store-a.keys", "store-b.keys"];
const FINGERPRINT_BYTES: usize = 16;

/// Another secret, for `purpose`: HMAC-SHA-256 of the purpose. Who has it learns nothing about the one
/// that it is derived from.
pub fn derive(from: &Secret, purpose: &str) -> Secret {
    let mut bytes = Zeroizing::new([0; 32]);
    bytes.copy_from_slice(&keybox::derive(from.expose(), purpose));
    Secret::new(bytes)
}

/// By which a key is known again; it gives nothing away of 32 random bytes.
pub fn fingerprint(key: &Secret) -> [u8; FINGERPRINT_BYTES] {
    let mut out = [0; FINGERPRINT_BYTES];
    out.copy_from_slice(&derive(key, "floortape key fingerprint").expose()[..FINGERPRINT_BYTES]);
    out
}

/// The key-encryption key.
pub struct Kek(Secret);

impl Kek {
    /// Reads what a key file holds: 32 bytes, or 64 hex digits and perhaps a line's end. `None`:
    /// something else.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = Zeroizing::new([0; KEK_BYTES]);
        if text.len() == KEK_BYTES {
            bytes.copy_from_slice(text);
            return Some(Kek(Secret::new(bytes)));
        }
        let digits = text.trim_ascii();
        if digits.len() != 2 * KEK_BYTES {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? * 16 + digit(1)?) as u8;
        }
        Some(Kek(Secret::new(bytes)))
    }

    /// By which it is known again.
    pub fn fingerprint(&self) -> [u8; FINGERPRINT_BYTES] {
        fingerprint(&self.0)
    }

    fn keys(&self) -> KeyBox {
        KeyBox::new(self.0.expose()).expect("32 bytes")
    }
}

/// The store key at work.
pub struct StoreKey {
    /// Its number, 1 first.
    pub number: u32,
    secret: Secret,
}

impl StoreKey {
    /// The key for `purpose`.
    pub fn derive(&self, purpose: &str) -> Secret {
        derive(&self.secret, purpose)
    }

    /// The bytes, for whoever hands them to a process of ours.
    pub fn expose(&self) -> &[u8; 32] {
        self.secret.expose()
    }

    /// A second holder of the same key, made on purpose and visibly.
    pub fn duplicate(&self) -> Self {
        Self::taken_over(self.number, Zeroizing::new(*self.expose()))
    }

    /// The same key in that process.
    pub fn taken_over(number: u32, bytes: Zeroizing<[u8; 32]>) -> Self {
        StoreKey { number, secret: Secret::new(bytes) }
    }
}

/// Why there is no store key.
#[derive(Debug, thiserror::Error)]
pub enum StoreKeysError {
    /// The disk said no.
    #[error("{}: {source}", path.display())]
    Disk {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Neither file is whole.
    #[error("{}: neither of the two files of store keys is whole", folder.display())]
    Damaged {
        /// The folder of keys.
        folder: PathBuf,
    },
    /// They are another store's.
    #[error("{}: the store keys are another store's", folder.display())]
    Foreign {
        /// The folder of keys.
        folder: PathBuf,
    },
    /// Another KEK wrapped them.
    #[error("expected the key-encryption key of fingerprint {expected}, found {found}")]
    OtherKek {
        /// Which one did.
        expected: String,
        /// Which one was given.
        found: String,
    },
    /// The right KEK by its fingerprint, and yet the wrapped key does not open.
    #[error("store key {number} was changed: {why}")]
    Changed {
        /// Which one.
        number: u32,
        /// What the engine said.
        why: KeyBoxError,
    },
    /// There is room for so many.
    #[error("there are {ENTRIES_MAX} store keys already")]
    Full,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct WireEntry {
    number: U32,
    zero: U32,
    kek: [u8; FINGERPRINT_BYTES],
    at: I64,
    wrapped: [u8; WRAPPED_BYTES],
    reserved: [u8; 4],
}

/// A wrapped store key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wrapped {
    number: u32,
    kek: [u8; FINGERPRINT_BYTES],
    at: Wall,
    bytes: [u8; WRAPPED_BYTES],
}

/// What the two files say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreKeys {
    volume: [u8; 16],
    sequence: u64,
    entries: Vec<Wrapped>,
}

impl StoreKeys {
    /// The first key of a store, wrapped; [`StoreKeys::write`] makes it durable.
    pub fn make(volume: [u8; 16], kek: &Kek, entropy: &dyn Entropy, at: Wall) -> (Self, StoreKey) {
        let key = StoreKey { number: 1, secret: Secret::random(entropy) };
        let mut keys = StoreKeys { volume, sequence: 1, entries: Vec::new() };
        keys.entries.push(keys.wrap(&key, kek, entropy, at));
        (keys, key)
    }

    /// Reads them. `None`: the store has none, it was never encrypted.
    pub fn read<D: Disk>(
        disk: &D,
        folder: &Path,
        volume: [u8; 16],
    ) -> Result<Option<Self>, StoreKeysError> {
        let mut found: Option<StoreKeys> = None;
        let mut there = false;
        for name in FILES {
            let path = folder.join(name);
            let bytes = match read_block(disk, &path) {
                Ok(bytes) => bytes,
                Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(StoreKeysError::Disk { path, source }),
            };
            there = true;
            let newer = StoreKeys::parse(&bytes)
                .filter(|one| found.as_ref().is_none_or(|best| one.sequence > best.sequence));
            found = newer.or(found);
        }
        match found {
            Some(keys) if keys.volume != volume => {
                Err(StoreKeysError::Foreign { folder: folder.to_owned() })
            }
            None if there => Err(StoreKeysError::Damaged { folder: folder.to_owned() }),
            found => Ok(found),
        }
    }

    /// What is wrong with one of the two files while the other is whole: it should be mended (`floortape kek wrap`
    /// writes both) before that goes, too.
    pub fn faults<D: Disk>(disk: &D, folder: &Path) -> Vec<String> {
        let found = FILES.map(|name| {
            let block = read_block(disk, &folder.join(name));
            let missing = matches!(&block, Err(error) if error.kind() == io::ErrorKind::NotFound);
            let whole = block.ok().is_some_and(|bytes| StoreKeys::parse(&bytes).is_some());
            (name, missing, whole)
        });
        if found.iter().all(|(_, missing, _)| *missing) {
            return Vec::new();
        }
        let bad = found.iter().filter(|(.., whole)| !whole);
        bad.map(|(name, missing, _)| {
            let what = if *missing { "is not there" } else { "is damaged" };
            format!("keys/{name} {what}: the store's keys stand in one file only")
        })
        .collect()
    }

    /// All keys, oldest first. The last one is that under which anything new is written.
    pub fn open(&self, kek: &Kek) -> Result<Vec<StoreKey>, StoreKeysError> {
        let (boxed, mark) = (kek.keys(), kek.fingerprint());
        let open = |entry: &Wrapped| {
            if entry.kek != mark {
                let (expected, found) = (hex(&entry.kek), hex(&mark));
                return Err(StoreKeysError::OtherKek { expected, found });
            }
            let number = entry.number;
            let secret = boxed
                .unwrap(&entry.bytes, &context(&self.volume, number))
                .map_err(|why| StoreKeysError::Changed { number, why })?;
            Ok(StoreKey { number, secret: Secret::new(secret) })
        };
        self.entries.iter().map(open).collect()
    }

    /// The same keys, wrapped by another KEK: what a rotation writes.
    pub fn rewrapped(
        &self,
        from: &Kek,
        to: &Kek,
        entropy: &dyn Entropy,
        at: Wall,
    ) -> Result<Self, StoreKeysError> {
        let keys = self.open(from)?;
        let entries = keys.iter().map(|key| self.wrap(key, to, entropy, at)).collect();
        Ok(StoreKeys { volume: self.volume, sequence: self.sequence + 1, entries })
    }

    /// Writes both files, each synced and read back before the other is touched.
    pub fn write<D: Disk>(&self, disk: &D, folder: &Path) -> Result<(), StoreKeysError> {
        let bytes = self.emit();
        for name in FILES {
            let path = folder.join(name);
            write_block(disk, &path, &bytes)
                .map_err(|source| StoreKeysError::Disk { path, source })?;
        }
        Ok(())
    }

    fn wrap(&self, key: &StoreKey, kek: &Kek, entropy: &dyn Entropy, at: Wall) -> Wrapped {
        let context = context(&self.volume, key.number);
        let bytes = kek.keys().wrap(entropy, key.secret.expose(), &context);
        Wrapped { number: key.number, kek: kek.fingerprint(), at, bytes }
    }

    fn emit(&self) -> Vec<u8> {
        assert!(self.entries.len() <= ENTRIES_MAX, "no more are made");
        let mut out = Vec::with_capacity(BLOCK_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.entries.len() as u32).to_le_bytes());
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.volume);
        for entry in &self.entries {
            let wire = WireEntry {
                number: U32::new(entry.number),
                zero: U32::new(0),
                kek: entry.kek,
                at: I64::new(entry.at.0),
                wrapped: entry.bytes,
                reserved: [0; 4],
            };
            out.extend_from_slice(wire.as_bytes());
        }
        out.resize(BLOCK_BYTES - 4, 0);
        let crc = crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// Reads a block; `None` where it is not whole. Total: any bytes give an answer.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (body, crc) = bytes.split_last_chunk::<4>()?;
        let fits = bytes.len() == BLOCK_BYTES
            && bytes.starts_with(&MAGIC)
            && crc32c(body) == u32::from_le_bytes(*crc);
        if !fits {
            return None;
        }
        let (version, rest) = U32::read_from_prefix(&bytes[8..]).ok()?;
        let (count, rest) = U32::read_from_prefix(rest).ok()?;
        let (sequence, rest) = U64::read_from_prefix(rest).ok()?;
        let (volume, mut rest) = rest.split_first_chunk::<16>()?;
        let count = count.get() as usize;
        if version.get() != VERSION || count > ENTRIES_MAX {
            return None;
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let (wire, behind) = WireEntry::read_from_prefix(rest).ok()?;
            rest = behind;
            entries.push(Wrapped {
                number: wire.number.get(),
                kek: wire.kek,
                at: Wall(wire.at.get()),
                bytes: wire.wrapped,
            });
        }
        Some(StoreKeys { volume: *volume, sequence: sequence.get(), entries })
    }
}

fn context(volume: &[u8; 16], number: u32) -> String {
    format!("floortape store key {} {number}", hex(volume))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn read_block<D: Disk>(disk: &D, path: &Path) -> io::Result<Vec<u8>> {
    let file = disk.open_read(path)?;
    let mut bytes = vec![0; BLOCK_BYTES];
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

/// Overwrites a file, or makes one, which has its name only once it is whole: whoever died before has made
/// no key.
fn write_block<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> io::Result<()> {
    match disk.open(path) {
        Ok(file) => put(disk, file, path, bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let temporary = path.with_extension("tmp");
            // Left by an attempt before; may well not exist.
            let _ = disk.remove(&temporary);
            let file = disk.create(&temporary, bytes.len() as u64)?;
            put(disk, file, &temporary, bytes)?;
            disk.rename(&temporary, path)
        }
        Err(error) => Err(error),
    }
}

fn put<D: Disk>(disk: &D, mut file: D::File, path: &Path, bytes: &[u8]) -> io::Result<()> {
    file.write_at(0, bytes)?;
    file.sync()?;
    let mut found = vec![0; bytes.len()];
    let count = disk.open_medium(path)?.read_at(0, &mut found)?;
    if count != bytes.len() || found != bytes {
        return Err(io::Error::other("what was written does not read back"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::{Prng, Seeded};
    use crate::store::test_disk::TestDisk;

    fn entropy() -> Seeded {
        Seeded::new(1)
    }

    fn kek(byte: u8) -> Kek {
        Kek::parse(&[byte; 32]).expect("32 bytes")
    }

    const FOLDER: &str = "/store/keys";

    #[test]
    fn a_kek_is_32_bytes_or_64_digits_and_nothing_else() {
        let raw = kek(0xab).fingerprint();
        let text = "ab".repeat(32);
        for text in [text.clone(), format!("{text}\n"), text.to_uppercase(), format!(" {text}\r\n")]
        {
            assert_eq!(Kek::parse(text.as_bytes()).map(|kek| kek.fingerprint()), Some(raw));
        }
        for bad in [&[][..], &[1; 31], &[1; 33], &[b'g'; 64], &[b'a'; 63], &[b'a'; 66]] {
            assert!(Kek::parse(bad).is_none());
        }
    }

    #[test]
    fn a_rotation_wraps_the_same_key_anew_and_nothing_of_the_old_one_stays() {
        let disk = TestDisk::default();
        let folder = Path::new(FOLDER);
        assert!(StoreKeys::read(&disk, folder, [7; 16]).expect("readable").is_none());
        let (keys, key) = StoreKeys::make([7; 16], &kek(1), &entropy(), Wall(5));
        keys.write(&disk, folder).expect("memory");
        let read = |kek: &Kek| {
            let keys = StoreKeys::read(&disk, folder, [7; 16]).expect("readable");
            keys.expect("written").open(kek)
        };
        assert!(matches!(read(&kek(2)), Err(StoreKeysError::OtherKek { .. })));
        let rotated = keys.rewrapped(&kek(1), &kek(2), &entropy(), Wall(6)).expect("its KEK");
        rotated.write(&disk, folder).expect("memory");
        assert_eq!(read(&kek(2)).expect("its KEK")[0].expose(), key.expose());
        assert!(matches!(read(&kek(1)), Err(StoreKeysError::OtherKek { .. })));
        let old = keys.entries[0].bytes;
        for name in FILES {
            let bytes = disk.get(&folder.join(name));
            assert!(!bytes.windows(old.len()).any(|window| window == old), "{name}");
        }
        assert_eq!(StoreKeys::faults(&disk, folder), Vec::<String>::new());
        let foreign = StoreKeys::read(&disk, folder, [8; 16]);
        assert!(matches!(foreign, Err(StoreKeysError::Foreign { .. })));
        disk.remove(&folder.join(FILES[1])).expect("there");
        let [fault] = &StoreKeys::faults(&disk, folder)[..] else { panic!("one is gone") };
        assert!(fault.starts_with("keys/store-b.keys is not there"), "{fault}");
    }

    #[test]
    fn f06_a_cut_or_a_failure_at_any_instant_of_a_rotation_leaves_one_of_both_keks() {
        for nth in 1.. {
            let disk = TestDisk::default();
            let folder = Path::new(FOLDER);
            let (keys, key) = StoreKeys::make([7; 16], &kek(1), &entropy(), Wall(5));
            keys.write(&disk, folder).expect("memory");
            let rotated = keys.rewrapped(&kek(1), &kek(2), &entropy(), Wall(6)).expect("its KEK");
            disk.fail_nth(nth);
            let done = rotated.write(&disk, folder).is_ok();
            for seed in 0..8 {
                let after = disk.power_cut(&mut Prng::new(seed));
                let found = StoreKeys::read(&after, folder, [7; 16]).expect("one is whole");
                let found = found.expect("written");
                let opened = found.open(&kek(2)).or_else(|_| found.open(&kek(1)));
                assert_eq!(opened.expect("one of both")[0].expose(), key.expose(), "{nth} {seed}");
                assert!(!done || found.open(&kek(2)).is_ok());
            }
            if !disk.has_failed() {
                assert!(done && nth > 4, "the failures reached {nth} operations");
                return;
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_of_a_block_is_found() {
        let (keys, _) = StoreKeys::make([7; 16], &kek(1), &entropy(), Wall(5));
        let mut bytes = keys.emit();
        assert_eq!(StoreKeys::parse(&bytes), Some(keys));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(StoreKeys::parse(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for cut in 0..bytes.len() {
            assert_eq!(StoreKeys::parse(&bytes[..cut]), None, "cut {cut}");
        }
    }

    #[test]
    fn f06_a_cut_or_a_failure_while_the_first_key_is_made_leaves_none_or_a_whole_one() {
        let folder = Path::new("/store/keys");
        let volume = [7; 16];
        for nth in 1..16 {
            let disk = TestDisk::default();
            let (keys, _) = StoreKeys::make(volume, &kek(1), &entropy(), Wall(1));
            disk.fail_nth(nth);
            let made = keys.write(&disk, folder);
            for seed in 0..8 {
                let cut = disk.power_cut(&mut Prng::new(seed));
                let found = StoreKeys::read(&cut, folder, volume).expect("nothing or all of it");
                assert!(found.is_some() || made.is_err(), "{nth} {seed}");
                // Whoever comes next makes one where there is none.
                let (again, _) = StoreKeys::make(volume, &kek(1), &entropy(), Wall(2));
                if found.is_none() {
                    again.write(&cut, folder).expect("memory");
                }
                let found = StoreKeys::read(&cut, folder, volume).expect("whole").expect("there");
                assert_eq!(found.open(&kek(1)).expect("its key").len(), 1);
            }
        }
    }
}
