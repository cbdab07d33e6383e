//! The keys of encrypted stores that this process works with. Whoever opens a store finds its keys here
//! by the volume id, so that they travel through no signature, frame or argument.
//!
//! Keeper makes them at a store's first start with `store.encryption`, and hands them to its roles: a
//! key-encryption key that is gone stops nothing that runs (F73). Verbs open them for themselves.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use zeroize::Zeroizing;

use super::clock::boot_id;
use super::disk::{HostDisk, make_folder};
use super::entropy::SystemEntropy;
use super::keyfile::read_secret;
use super::volume::{self, VERSION_ENCRYPTED, Volume, VolumeError};
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::config::encryption::Encryption;
use crate::store::audit;
use crate::store::journal::history;
use crate::store::keys::{
    self, Kek, KeyMaker, StoreKey, StoreKeys, StoreKeysError, Veil, Veiled, Wraps,
};

/// The files of a store, as this process can read them.
pub type StoreFiles = Veiled<HostDisk>;

/// 64 hex digits, a line's end, and a byte that shows a longer file.
const KEK_FILE_BYTES: usize = 68;
const OFF: &str = "store.encryption is \"off\", and the store was encrypted";

/// The keys of one store.
pub struct Unlocked {
    /// Its volume id.
    pub volume: [u8; 16],
    /// All store keys, newest last.
    pub keys: Vec<StoreKey>,
}

static UNLOCKED: Mutex<BTreeMap<[u8; 16], Arc<Unlocked>>> = Mutex::new(BTreeMap::new());

/// The keys of the store with that volume id; `None`: it is not encrypted, or nobody gave its key.
pub fn of(volume: &[u8; 16]) -> Option<Arc<Unlocked>> {
    UNLOCKED.lock().unwrap_or_else(PoisonError::into_inner).get(volume).cloned()
}

/// The same of the store in folder `store`.
pub fn of_store(store: &Path) -> Option<Arc<Unlocked>> {
    of(&volume_id(store)?)
}

/// The disk of a store: what its journal says is encrypted where the store is, and `journal` its folder.
pub fn files(store: &Path, journal: &Path, spares: &[PathBuf]) -> StoreFiles {
    let mut folders = vec![journal.to_owned(), history::folder(store), audit::folder(store)];
    folders.extend(spares.iter().map(|spare| spare.join("journal")));
    veiled(store, HostDisk, folders)
}

/// `disk`, on which what is made in `folders` is encrypted where the store is.
pub fn veiled<D: Disk>(store: &Path, disk: D, folders: Vec<PathBuf>) -> Veiled<D> {
    let veil = of_store(store).map(|unlocked| {
        let (volume, entropy) = (unlocked.volume, Box::new(SystemEntropy));
        Arc::new(Veil::new(volume, &unlocked.keys, folders, entropy).in_boot(boot()))
    });
    Veiled::new(disk, veil)
}

/// What makes the keys of segments in the store with that volume id; `None`: they are in the clear.
pub fn key_maker(volume: &[u8; 16]) -> Option<KeyMaker> {
    let unlocked = of(volume)?;
    Some(KeyMaker::new(Wraps::new(&unlocked.keys), Arc::new(SystemEntropy)))
}

/// The boot id as it stands in a file's head.
fn boot() -> [u8; 16] {
    uuid::Uuid::parse_str(boot_id().trim()).map_or([0; 16], uuid::Uuid::into_bytes)
}

fn volume_id(store: &Path) -> Option<[u8; 16]> {
    let id = volume::read(store).ok()?.id;
    Some(uuid::Uuid::parse_str(&id).ok()?.into_bytes())
}

/// Reads the key-encryption key; `None`: encryption is off. Refuses a file that others may read.
pub fn kek(encryption: &Encryption) -> io::Result<Option<Kek>> {
    let (path, text) = match encryption {
        Encryption::Off => return Ok(None),
        Encryption::File(path) => (path.clone(), read_secret(path, KEK_FILE_BYTES)),
        Encryption::Credential(name) => {
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or_else(|| {
                let why = format!("no service manager has handed over a credential {name}");
                io::Error::new(io::ErrorKind::NotFound, why)
            })?;
            // The manager sees to it that nobody else reads there.
            let path = PathBuf::from(folder).join(name);
            let text = fs::read(&path).map(Zeroizing::new);
            (path, text)
        }
    };
    let named =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let text = text.map_err(named)?;
    let kek = Kek::parse(&text).ok_or_else(|| {
        let why = format!("expected 32 bytes or 64 hex digits, found {} bytes", text.len());
        named(io::Error::new(io::ErrorKind::InvalidData, why))
    })?;
    Ok(Some(kek))
}

/// Opens the store keys of `store` with `kek` for this process; whether there are any.
pub fn unlock(store: &Path, kek: &Kek) -> Result<bool, VolumeError> {
    let Some(volume) = volume_id(store) else { return Ok(false) };
    let refused = |why: StoreKeysError| refused(store, why);
    let found = StoreKeys::read(&HostDisk, &keys::folder(store), volume).map_err(refused)?;
    let Some(found) = found else { return Ok(false) };
    keep(volume, found.open(kek).map_err(refused)?);
    Ok(true)
}

/// Whether `store` was ever encrypted.
pub fn is_encrypted(store: &Path) -> bool {
    let is_key = |name: &std::ffi::OsStr| Path::new(name).extension().is_some_and(|e| e == "keys");
    fs::read_dir(keys::folder(store))
        .is_ok_and(|found| found.flatten().any(|entry| is_key(&entry.file_name())))
}

/// What keeper does before anything is written: opens the store keys with the key that the configuration
/// names. A store that was encrypted is not served without it. Whether the store has keys.
pub fn unlock_as(store: &Path, encryption: &Encryption) -> Result<bool, VolumeError> {
    let refused = |why: String| VolumeError::Kek { store: store.to_owned(), why };
    match kek(encryption).map_err(|error| refused(error.to_string()))? {
        Some(kek) => unlock(store, &kek),
        None if is_encrypted(store) => Err(refused(OFF.to_owned())),
        None => Ok(false),
    }
}

/// Looks whether the next start would have its keys, and changes nothing. The fingerprint of the
/// key-encryption key; `None`: nothing is encrypted, nor to be.
pub fn probe(store: &Path, encryption: &Encryption) -> Result<Option<[u8; 16]>, VolumeError> {
    let refused = |why: String| VolumeError::Kek { store: store.to_owned(), why };
    let Some(kek) = kek(encryption).map_err(|error| refused(error.to_string()))? else {
        return match is_encrypted(store) {
            true => Err(refused(OFF.to_owned())),
            false => Ok(None),
        };
    };
    if let Some(volume) = volume_id(store) {
        let found = StoreKeys::read(&HostDisk, &keys::folder(store), volume);
        let of_store = |why| self::refused(store, why);
        found.map_err(of_store)?.map(|found| found.open(&kek)).transpose().map_err(of_store)?;
    }
    Ok(Some(kek.fingerprint()))
}

/// Makes the first store key, under the lock of the store, whose version says so before.
pub fn make(
    store: &Path,
    encryption: &Encryption,
    volume: &mut Volume,
    now: Wall,
) -> Result<(), VolumeError> {
    let named =
        |error: io::Error| VolumeError::Kek { store: store.to_owned(), why: error.to_string() };
    let Some(kek) = kek(encryption).map_err(named)? else { return Ok(()) };
    let id = volume_id(store)
        .ok_or_else(|| named(io::Error::other("volume.json has no UUID as its id")))?;
    volume.version = VERSION_ENCRYPTED;
    volume::write(store, volume).map_err(named)?;
    let folder = keys::folder(store);
    make_folder(&folder).map_err(|error| VolumeError::Io { path: folder.clone(), error })?;
    let (made, key) = StoreKeys::make(id, &kek, &SystemEntropy, now);
    made.write(&HostDisk, &folder).map_err(|why| refused(store, why))?;
    keep(id, vec![key]);
    Ok(())
}

/// Wraps the store keys of `store` by another key-encryption key. The recorder need not be stopped: it
/// has its keys.
pub fn rewrap(store: &Path, from: &Kek, to: &Kek, now: Wall) -> Result<(), VolumeError> {
    let refused = |why: StoreKeysError| refused(store, why);
    let folder = keys::folder(store);
    let missing = || VolumeError::Kek {
        store: store.to_owned(),
        why: "the store is not encrypted".to_owned(),
    };
    let volume = volume_id(store).ok_or_else(missing)?;
    let found = StoreKeys::read(&HostDisk, &folder, volume).map_err(refused)?;
    let wrapped = found.ok_or_else(missing)?.rewrapped(from, to, &SystemEntropy, now);
    wrapped.and_then(|wrapped| wrapped.write(&HostDisk, &folder)).map_err(refused)
}

/// Keeps the keys of a store for this process: those that it has read, or was handed by keeper.
pub fn keep(volume: [u8; 16], keys: Vec<StoreKey>) {
    let unlocked = Arc::new(Unlocked { volume, keys });
    UNLOCKED.lock().unwrap_or_else(PoisonError::into_inner).insert(volume, unlocked);
}

fn refused(store: &Path, error: StoreKeysError) -> VolumeError {
    let (store, why) = (store.to_owned(), error.to_string());
    match error {
        StoreKeysError::OtherKek { .. } => VolumeError::Kek { store, why },
        _ => VolumeError::StoreKeys { store, why },
    }
}
