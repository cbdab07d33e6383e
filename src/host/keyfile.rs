//! The machine key file, `STORE/machine.key`: 32 random bytes, mode 0600, made at the first start.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::base::ports::Entropy;
use crate::store::journal::keybox::MACHINE_KEY_BYTES;

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

/// Reads the machine key, or makes it at the first start. The caller holds the store's lock.
pub fn load_or_make(store: &Path, entropy: &dyn Entropy) -> io::Result<Zeroizing<Vec<u8>>> {
    match load(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(store, entropy)?,
        other => return other,
    }
    load(store)
}

fn make(store: &Path, entropy: &dyn Entropy) -> io::Result<()> {
    let mut key = Zeroizing::new([0_u8; MACHINE_KEY_BYTES]);
    entropy.fill(key.as_mut());
    write_secret(&path(store), key.as_ref())
}

/// Reads a secret of about `bytes` bytes; one more is returned where the file is longer. Refuses a
/// file that others may read.
pub fn read_secret(path: &Path, bytes: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mode = file.metadata()?.permissions().mode() & 0o777;
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

    #[test]
    fn made_once_private_and_read_again() {
        let store = std::env::temp_dir().join(format!("floortape-key-{}", std::process::id()));
        std::fs::create_dir_all(&store).expect("temp folder");
        assert_eq!(load(&store).expect_err("none yet").kind(), io::ErrorKind::NotFound);
        let made = load_or_make(&store, &Sevens).expect("writable");
        assert_eq!(made.as_slice(), &[7; 32]);
        let mode = std::fs::metadata(path(&store)).expect("made").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::set_permissions(path(&store), std::fs::Permissions::from_mode(0o644))
            .expect("ours");
        assert_eq!(
            load_or_make(&store, &Sevens).expect_err("open to all").kind(),
            io::ErrorKind::PermissionDenied
        );
        std::fs::remove_dir_all(&store).expect("ours");
    }
}
