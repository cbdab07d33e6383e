//! The key that signs what the store holds, `STORE/signing.key`: Ed25519 in PKCS#8, mode 0600, made
//! at the first start. Its public half stands in every segment.

use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::keyfile::{read_secret, write_secret};
use crate::base::ports::Entropy;
use crate::store::evidence::SigningKey;

/// An Ed25519 key with its public half is 83 bytes of PKCS#8 (RFC 8410); room for attributes.
const FILE_BYTES_MAX: usize = 256;

/// Where the signing key of a store lies.
pub fn path(store: &Path) -> PathBuf {
    store.join("signing.key")
}

/// Reads the signing key of `store`. Refuses a file that others may read.
pub fn load(store: &Path) -> io::Result<SigningKey> {
    let bytes = read_secret(&path(store), FILE_BYTES_MAX)?;
    SigningKey::from_pkcs8(&bytes).map_err(|error| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path(store).display()))
    })
}

/// Reads the signing key, or makes it at the first start. The caller holds the store's lock.
pub fn load_or_make(store: &Path, entropy: &dyn Entropy) -> io::Result<SigningKey> {
    match load(store) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.and_then(|key| publish(store, key)),
    }
    let mut seed = Zeroizing::new([0; 32]);
    entropy.fill(seed.as_mut());
    let key = SigningKey::from_seed(&seed);
    let bytes = key.to_pkcs8().ok_or_else(|| io::Error::other("no PKCS#8 of the signing key"))?;
    write_secret(&path(store), &bytes)?;
    load(store).and_then(|key| publish(store, key))
}

/// Puts the public half where verifiers without the key find it: 32 bytes in
/// `STORE/evidence/signing.pub`.
fn publish(store: &Path, key: SigningKey) -> io::Result<SigningKey> {
    let folder = store.join("evidence");
    let path = folder.join("signing.pub");
    if std::fs::read(&path).ok().as_deref() != Some(&key.public_key()[..]) {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(&path, key.public_key())?;
        std::fs::File::open(&path)?.sync_all()?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::entropy::SystemEntropy;

    #[test]
    fn made_once_and_the_same_ever_after() {
        let store = std::env::temp_dir().join(format!("floortape-sign-{}", std::process::id()));
        std::fs::create_dir_all(&store).expect("temp folder");
        assert_eq!(load(&store).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
        let made = load_or_make(&store, &SystemEntropy).expect("writable");
        let again = load_or_make(&store, &SystemEntropy).expect("there now");
        assert_eq!(made.public_key(), again.public_key());
        std::fs::write(path(&store), b"no key").expect("ours");
        assert_eq!(load(&store).err().map(|e| e.kind()), Some(io::ErrorKind::InvalidData));
        std::fs::remove_dir_all(&store).expect("ours");
    }
}
