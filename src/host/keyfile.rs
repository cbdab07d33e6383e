//! The machine key file, `STORE/machine.key`: 32 random bytes, mode 0600, made at the first start. All
//! keys and salts in the journal are sealed by it, so that a store is not served with another one:
//! `volume.json` holds its fingerprint.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::spare;
use super::volume::{self, Volume, VolumeError};
use crate::base::ports::Entropy;
use crate::store::export::manifest::hex;
use crate::store::journal::keybox::{MACHINE_KEY_BYTES, derive};

/// Stands in `volume.json` in the place of a fingerprint where an operator gives the key up.
const LOST: &str = "lost";
/// Digits of a fingerprint that people are shown: 8 bytes.
const SHOWN: usize = 16;

/// Where the machine key of a store lies.
pub fn path(store: &Path) -> PathBuf {
    store.join("machine.key")
}

/// Reads the machine key of `store`. Refuses a file that others may read: a key that was open to
/// everybody is no key.
pub fn load(store: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let key = read_secret(&path(store), MACHINE_KEY_BYTES)?;
    if key.len() != MACHINE_KEY_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected a machine key of {MACHINE_KEY_BYTES} bytes, found {}", key.len()),
        ));
    }
    Ok(key)
}

/// By which a key is known again: HMAC-SHA-256 of a text of ours under it, as hex. It stands where
/// anybody may read it and gives nothing away: the key is 32 random bytes, which nobody can try, and
/// what other keys are derived for has other texts.
pub fn fingerprint(key: &[u8]) -> String {
    hex(&derive(key, "machine key fingerprint"))
}

/// The machine key of `store`, if it is the one that the store works with. `None`: it has none yet.
/// `journal`: the journal's folder, whose files are sealed by it. Changes nothing.
pub fn find(
    store: &Path,
    volume: &Volume,
    journal: &Path,
) -> Result<Option<Zeroizing<Vec<u8>>>, VolumeError> {
    let noted = volume.machine_key.as_deref();
    let of = |fingerprint: &str| format!("the one of fingerprint {:.SHOWN$}…", fingerprint);
    let refused = |found: String| VolumeError::Key {
        path: path(store),
        expected: noted.map_or_else(|| "the key of this store".to_owned(), of),
        found,
        otherwise: format!(
            "set `machine_key` in {} to \"{LOST}\": recordings of before cannot be proven then, and calls \
             that were up are not resumed",
            store.join("volume.json").display()
        ),
    };
    let given_up = noted == Some(LOST);
    match load(store) {
        Ok(key) => {
            let found = fingerprint(&key);
            match noted {
                Some(noted) if noted != found && !given_up => Err(refused(of(&found))),
                _ => Ok(Some(key)),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // Noted or not: a journal that has begun was sealed by something.
            let begun = noted.is_some() || volume.journal_begun;
            if given_up || !(begun || spare::has_journal(volume, journal)) {
                return Ok(None);
            }
            Err(refused("none".to_owned()))
        }
        Err(error) => Err(VolumeError::Io { path: path(store), error }),
    }
}

/// Finds the machine key, or makes it at the first start; notes in `volume` which one it is, when it
/// is durable. The caller holds the store's lock.
pub fn load_or_make(
    store: &Path,
    volume: &mut Volume,
    journal: &Path,
    entropy: &dyn Entropy,
) -> Result<Zeroizing<Vec<u8>>, VolumeError> {
    let failed = |error| VolumeError::Io { path: path(store), error };
    let key = match find(store, volume, journal)? {
        Some(key) => key,
        None => {
            make(store, entropy).map_err(failed)?;
            load(store).map_err(failed)?
        }
    };
    let found = fingerprint(&key);
    if volume.machine_key.as_ref() != Some(&found) {
        volume::note_key(store, volume, found)?;
    }
    Ok(key)
}

/// The machine key where it must be there: whoever runs under keeper makes none.
pub fn load_known(store: &Path, volume: &Volume) -> Result<Zeroizing<Vec<u8>>, VolumeError> {
    let missing = || VolumeError::Io { path: path(store), error: io::ErrorKind::NotFound.into() };
    find(store, volume, &store.join("journal"))?.ok_or_else(missing)
}

fn make(store: &Path, entropy: &dyn Entropy) -> io::Result<()> {
    let mut key = Zeroizing::new([0_u8; MACHINE_KEY_BYTES]);
    entropy.fill(key.as_mut());
    write_secret(&path(store), key.as_ref())
}

/// Reads a secret of about `bytes` bytes; one more is returned where the file is longer. Refuses a
/// file that others may read, and whatever is no file: nobody waits here for who writes to a pipe.
pub fn read_secret(path: &Path, bytes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let at_once = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut file = OpenOptions::new().read(true).custom_flags(at_once).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        let why = format!("expected a file at {}", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let mode = found.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("expected mode 0600 on {}, found {mode:04o}", path.display()),
        ));
    }
    // One byte of room beyond the key shows a longer file, and no growth leaves an unwiped copy.
    let mut secret = Zeroizing::new(Vec::with_capacity(bytes + 1));
    Read::by_ref(&mut file).take(bytes as u64 + 1).read_to_end(&mut secret)?;
    Ok(secret)
}

/// Written beside its place, synced and renamed, so that a power cut leaves no secret or a whole
/// one. Mode 0600.
pub(super) fn write_secret(path: &Path, secret: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(secret)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sevens;

    impl Entropy for Sevens {
        fn fill(&self, out: &mut [u8]) {
            out.fill(7);
        }
    }

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temp folder");
        path
    }

    fn start(store: &Path) -> Result<Zeroizing<Vec<u8>>, VolumeError> {
        let (mut volume, _) = volume::open(store, "id")?;
        load_or_make(store, &mut volume, &store.join("journal"), &Sevens)
    }

    #[test]
    fn made_once_private_and_read_again() {
        let store = folder("key");
        assert_eq!(load(&store).expect_err("none yet").kind(), io::ErrorKind::NotFound);
        let made = start(&store).expect("writable");
        assert_eq!(made.as_slice(), &[7; 32]);
        let mode = std::fs::metadata(path(&store)).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(path(&store), std::fs::Permissions::from_mode(0o644))
            .expect("ours");
        let refused = start(&store).expect_err("open to all").to_string();
        assert!(refused.contains("expected mode 0600"), "{refused}");
        std::fs::remove_dir_all(&store).expect("ours");
    }

    #[test]
    fn a_key_that_is_gone_or_another_one_is_refused_until_it_is_back_or_given_up() {
        let store = folder("key-gone");
        start(&store).expect("writable");
        let noted = volume::read(&store).expect("there").machine_key.expect("noted");
        assert_eq!((noted.len(), &noted), (64, &fingerprint(&[7; 32])));
        assert!(!noted.contains("0707"), "never the key");
        let refused = |found: &str| {
            let error = start(&store).expect_err("another store, or none");
            assert!(error.is_of_identity());
            let said = error.to_string();
            for words in [&noted[..SHOWN], found, "machine.key", "`machine_key`"] {
                assert!(said.contains(words), "{said}");
            }
            let volume = volume::read(&store).expect("there");
            assert!(load_known(&store, &volume).is_err());
        };
        write_secret(&path(&store), &[8; 32]).expect("ours");
        refused(&fingerprint(&[8; 32])[..SHOWN]);
        std::fs::remove_file(path(&store)).expect("ours");
        refused("found none");
        assert!(!path(&store).exists(), "none is made");
        write_secret(&path(&store), &[7; 32]).expect("ours");
        start(&store).expect("it is back");
        // Given up.
        std::fs::remove_file(path(&store)).expect("ours");
        let text = std::fs::read_to_string(store.join("volume.json")).expect("there");
        std::fs::write(store.join("volume.json"), text.replace(&noted, LOST)).expect("ours");
        start(&store).expect("a new one");
        assert_eq!(volume::read(&store).expect("there").machine_key, Some(noted));
        std::fs::remove_dir_all(&store).expect("ours");
    }

    #[test]
    fn a_store_of_before_the_note_gets_it_and_misses_its_key_by_its_journal() {
        let store = folder("key-old");
        let (mut volume, _) = volume::open(&store, "id").expect("fresh");
        volume::begin_journal(&store, &mut volume).expect("room");
        let said = start(&store).expect_err("its journal is sealed by something").to_string();
        assert!(said.contains("expected the key of this store, found none"), "{said}");
        write_secret(&path(&store), &[9; 32]).expect("ours");
        start(&store).expect("it is there");
        let noted = volume::read(&store).expect("there").machine_key;
        assert_eq!(noted, Some(fingerprint(&[9; 32])));
        // The note that the journal has begun may be missing yet.
        let other = folder("key-older");
        volume::open(&other, "id").expect("fresh");
        std::fs::create_dir_all(other.join("journal")).expect("ours");
        std::fs::write(other.join("journal/00000001.journal"), "").expect("ours");
        assert!(start(&other).is_err());
        for store in [store, other] {
            std::fs::remove_dir_all(store).expect("ours");
        }
    }
}
