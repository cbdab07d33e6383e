//! The key that signs what the store holds, `STORE/signing.key`: Ed25519 in PKCS#8, mode 0600, made
//! at the first start. Its public half stands in every segment, and in `STORE/evidence/signing.pub`,
//! which says which key is the store's: another one is refused.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::disk::read_small;
use super::keyfile::{read_secret, write_secret};
use super::volume::VolumeError;
use crate::base::ports::Entropy;
use crate::base::time::Wall;
use crate::store::evidence::{
    Hex, KeyFields, KeyStatement, Keys, PublicKey, SigningKey, emit_keys, parse_keys,
};
use crate::store::export::manifest::hex;

/// An Ed25519 key with its public half is 83 bytes of PKCS#8 (RFC 8410); room for attributes.
const FILE_BYTES_MAX: usize = 256;
/// Bytes of a public key that people are shown.
const SHOWN: usize = 8;

/// Where the signing key of a store lies.
pub fn path(store: &Path) -> PathBuf {
    store.join("signing.key")
}

/// Where verifiers without the key find its public half: 32 bytes.
fn public_path(store: &Path) -> PathBuf {
    store.join("evidence").join("signing.pub")
}

/// Where the keys are listed, once there was more than one.
fn keys_path(store: &Path) -> PathBuf {
    store.join("evidence").join("keys")
}

/// The statements of all keys of a store; none where its key was never changed.
pub fn statements(store: &Path) -> io::Result<Vec<KeyStatement>> {
    let invalid = |error: &dyn std::error::Error| {
        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
    };
    match read_small(&keys_path(store)) {
        Ok(bytes) => parse_keys(&bytes).map_err(|error| invalid(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The keys of a store, each vouched for by the one before; `None` where it says nothing of any. An
/// error: what it says does not hold together.
pub fn keys(store: &Path) -> io::Result<Option<Keys>> {
    let listed = statements(store)?;
    if listed.is_empty() {
        let own = published(store).or_else(|| Some(load(store).ok()?.public_key()));
        return Ok(own.map(Keys::one));
    }
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let keys = Keys::of(&listed).map_err(|error| invalid(error.to_string()))?;
    match published(store) {
        Some(shown) if shown != keys.last() && !keys.all().any(|key| key == shown) => {
            Err(invalid("signing.pub is no key of the list of keys".to_owned()))
        }
        _ => Ok(Some(keys)),
    }
}

/// The next signing key, before it is one.
fn next_path(store: &Path) -> PathBuf {
    store.join("signing.key.next")
}

/// Makes a new signing key. The caller holds the store's lock, so nobody seals meanwhile. `from`: the
/// first segment of each worker that it will sign. A cut leaves the old key at work, or the new one
/// that [`find`] puts in its place.
pub fn rotate(
    store: &Path,
    entropy: &dyn Entropy,
    volume: &str,
    at: Wall,
    from: std::collections::BTreeMap<u16, u64>,
) -> Result<Keys, VolumeError> {
    let held = |error: io::Error| VolumeError::Io { path: path(store), error };
    let Some(old) = find(store)? else {
        return Err(held(io::Error::new(io::ErrorKind::NotFound, "it has no signing key yet")));
    };
    let mut seed = Zeroizing::new([0; 32]);
    entropy.fill(seed.as_mut());
    let new = SigningKey::from_seed(&seed);
    let bytes = new.to_pkcs8().ok_or_else(|| held(io::Error::other("no PKCS#8 of the key")))?;
    let mut listed = statements(store).map_err(held)?;
    let fields = |number: usize, key: &SigningKey, from| KeyFields {
        number: number as u32,
        public_key: Hex(key.public_key()),
        volume: volume.to_owned(),
        at,
        from,
    };
    if listed.is_empty() {
        listed.push(fields(1, &old, Default::default()).sign(&old));
    }
    listed.push(fields(listed.len() + 1, &new, from).sign(&old));
    let keys = Keys::of(&listed).map_err(|error| held(io::Error::other(error)))?;
    let write = || -> io::Result<()> {
        let _ = std::fs::remove_file(next_path(store));
        write_secret(&next_path(store), &bytes)?;
        // From here on the new one is the store's.
        put(store, &keys_path(store), &emit_keys(&listed))?;
        succeed(store)
    };
    write().map_err(held)?;
    publish(store, &new.public_key()).map_err(held)?;
    Ok(keys)
}

/// Puts the next key in its place; the one before is gone.
fn succeed(store: &Path) -> io::Result<()> {
    std::fs::rename(next_path(store), path(store))?;
    File::open(store)?.sync_all()
}

/// Finishes a change of keys that a cut stopped: the list of keys says whose turn it is.
fn finish(store: &Path) -> io::Result<()> {
    let listed = statements(store)?;
    let Some(last) = Keys::of(&listed).ok().map(|keys| keys.last()) else { return Ok(()) };
    let is_next = || -> io::Result<bool> {
        let bytes = read_secret(&next_path(store), FILE_BYTES_MAX)?;
        Ok(SigningKey::from_pkcs8(&bytes).is_ok_and(|key| key.public_key() == last))
    };
    match is_next() {
        Ok(true) => succeed(store)?,
        Ok(false) => std::fs::remove_file(next_path(store))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if published(store).is_some_and(|shown| shown != last)
        && load(store).is_ok_and(|key| key.public_key() == last)
    {
        publish(store, &last)?;
    }
    Ok(())
}

/// Reads the signing key of `store`. Refuses a file that others may read.
pub fn load(store: &Path) -> io::Result<SigningKey> {
    let bytes = read_secret(&path(store), FILE_BYTES_MAX)?;
    SigningKey::from_pkcs8(&bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// What `signing.pub` says.
enum Published {
    /// It is not there.
    Nothing,
    /// A power cut stopped somebody who wrote it: it is shorter, or room that was never filled.
    Cut,
    Key(PublicKey),
}

impl Published {
    fn read(store: &Path) -> io::Result<Self> {
        match read_small(&public_path(store)) {
            Ok(bytes) => match PublicKey::try_from(bytes.as_slice()) {
                Ok(key) if key != [0; 32] => Ok(Published::Key(key)),
                _ => Ok(Published::Cut),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Published::Nothing),
            Err(error) => Err(error),
        }
    }
}

/// The key that the store says is its own; `None` where it says nothing that can be read.
pub fn published(store: &Path) -> Option<PublicKey> {
    match Published::read(store) {
        Ok(Published::Key(key)) => Some(key),
        _ => None,
    }
}

/// The signing key of `store`, if it is the one whose public half the store shows. `None`: it has
/// none yet. Changes nothing.
pub fn find(store: &Path) -> Result<Option<SigningKey>, VolumeError> {
    let shown = public_path(store);
    let published =
        Published::read(store).map_err(|error| VolumeError::Io { path: shown.clone(), error })?;
    let of = |key: &PublicKey| format!("{}…", hex(&key[..SHOWN]));
    let refused = |found: String| VolumeError::Key {
        path: path(store),
        expected: match &published {
            Published::Key(key) => format!("the key of {}, {}", shown.display(), of(key)),
            _ => format!("the key of {}", shown.display()),
        },
        found,
        otherwise: format!(
            "remove {}: a new chain of trust begins, and `verify` cannot vouch for what was sealed \
             before",
            shown.display()
        ),
    };
    match load(store) {
        Ok(key) => match &published {
            Published::Key(known)
                if *known != key.public_key() && !has_followed(store, known, &key) =>
            {
                Err(refused(of(&key.public_key())))
            }
            _ => Ok(Some(key)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => match published {
            Published::Nothing => Ok(None),
            // The key is durable before its public half is begun.
            Published::Cut | Published::Key(_) => Err(refused("none".to_owned())),
        },
        Err(error) => Err(VolumeError::Io { path: path(store), error }),
    }
}

/// Whether `key` is the last in the list of keys and `shown` one before it: a cut came in between.
fn has_followed(store: &Path, shown: &PublicKey, key: &SigningKey) -> bool {
    let keys = statements(store).ok().and_then(|listed| Keys::of(&listed).ok());
    keys.is_some_and(|keys| keys.last() == key.public_key() && keys.all().any(|one| one == *shown))
}

/// Finds the signing key, or makes it at the first start. The caller holds the store's lock.
pub fn load_or_make(store: &Path, entropy: &dyn Entropy) -> Result<SigningKey, VolumeError> {
    finish(store).map_err(|error| VolumeError::Io { path: keys_path(store), error })?;
    let found = find(store)?;
    let make = || -> io::Result<SigningKey> {
        let is_begun = std::fs::read_dir(store.join("segments"))
            .is_ok_and(|mut segments| segments.next().is_some());
        if is_begun {
            tracing::error!(
                "alarm: a new chain of trust begins in {}: what was sealed before is signed by \
                 another key",
                store.display()
            );
        }
        let mut seed = Zeroizing::new([0; 32]);
        entropy.fill(seed.as_mut());
        let key = SigningKey::from_seed(&seed);
        let bytes =
            key.to_pkcs8().ok_or_else(|| io::Error::other("no PKCS#8 of the signing key"))?;
        write_secret(&path(store), &bytes)?;
        load(store)
    };
    let key = match found {
        Some(key) => key,
        None => make().map_err(|error| VolumeError::Io { path: path(store), error })?,
    };
    publish(store, &key.public_key())
        .map_err(|error| VolumeError::Io { path: public_path(store), error })?;
    Ok(key)
}

/// Puts the public half in its place, whole or not at all, where it is not there yet: its key is
/// durable by then, so that a power cut never leaves one without the other for good.
fn publish(store: &Path, key: &PublicKey) -> io::Result<()> {
    if published(store).as_ref() == Some(key) {
        return Ok(());
    }
    put(store, &public_path(store), key)
}

/// Writes a file of `STORE/evidence`, whole or not at all.
pub fn put(store: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = store.join("evidence");
    std::fs::create_dir_all(&folder)?;
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)?;
    File::open(&folder)?.sync_all()?;
    File::open(store)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::entropy::SystemEntropy;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temp folder");
        path
    }

    fn start(store: &Path) -> Result<PublicKey, VolumeError> {
        load_or_make(store, &SystemEntropy).map(|key| key.public_key())
    }

    #[test]
    fn made_once_and_the_same_ever_after() {
        let store = folder("sign");
        assert_eq!(load(&store).err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
        let made = start(&store).expect("writable");
        assert_eq!(published(&store), Some(made));
        assert_eq!(start(&store).expect("there now"), made);
        std::fs::write(path(&store), b"no key").expect("ours");
        assert_eq!(load(&store).err().map(|e| e.kind()), Some(io::ErrorKind::InvalidData));
        assert!(start(&store).is_err_and(|error| !error.is_of_identity()));
        std::fs::remove_dir_all(&store).expect("ours");
    }

    #[test]
    fn a_key_that_is_gone_or_another_one_is_refused_until_it_is_back_or_given_up() {
        let (store, other) = (folder("sign-gone"), folder("sign-other"));
        let (ours, theirs) = (start(&store).expect("room"), start(&other).expect("room"));
        let aside = store.join("aside");
        std::fs::rename(path(&store), &aside).expect("ours");
        let refused = |found: &str| {
            let error = start(&store).expect_err("not the key of this store");
            assert!(error.is_of_identity());
            let said = error.to_string();
            for words in [&hex(&ours[..8]), found, "evidence/signing.pub", "put the right one back"]
            {
                assert!(said.contains(words), "{said}");
            }
            assert_eq!(published(&store), Some(ours), "nothing is changed");
        };
        refused("found none");
        assert!(!path(&store).exists(), "none is made");
        std::fs::copy(path(&other), path(&store)).expect("ours");
        refused(&hex(&theirs[..8]));
        std::fs::rename(&aside, path(&store)).expect("ours");
        assert_eq!(start(&store).expect("it is back"), ours);
        // Given up.
        std::fs::remove_file(path(&store)).expect("ours");
        std::fs::remove_file(public_path(&store)).expect("ours");
        assert_ne!(start(&store).expect("a new chain"), ours);
        for store in [store, other] {
            std::fs::remove_dir_all(store).expect("ours");
        }
    }

    #[test]
    fn a_new_key_is_vouched_for_by_the_one_before_and_no_cut_leaves_neither() {
        let store = folder("sign-rotate");
        let first = start(&store).expect("writable");
        let rotate = |from: u64| {
            let from = [(0, from)].into();
            rotate(&store, &SystemEntropy, "v", Wall(9), from).expect("writable")
        };
        assert_eq!(keys(&store).expect("sound"), Some(Keys::one(first)));
        let aside = |name: &str| std::fs::read(store.join(name)).expect("there");
        let old = aside("signing.key");
        let two = rotate(5);
        assert_eq!((two.signer(0, 4), two.first()), (first, first));
        assert_eq!(start(&store).expect("the new one"), two.last());
        assert_ne!(two.last(), first);
        assert_eq!(keys(&store).expect("sound"), Some(two.clone()));
        // A cut behind the list: the next key has its own name, the old one is still in its place.
        let new = aside("signing.key");
        std::fs::rename(path(&store), next_path(&store)).expect("ours");
        write_secret(&path(&store), &old).expect("ours");
        std::fs::write(public_path(&store), first).expect("ours");
        assert_eq!(start(&store).expect("finished"), two.last());
        assert_eq!((aside("signing.key"), published(&store)), (new, Some(two.last())));
        assert!(!next_path(&store).exists());
        // A cut before the list: nothing has changed, and the key that nobody knows goes.
        write_secret(&next_path(&store), &old).expect("ours");
        assert_eq!(start(&store).expect("as before"), two.last());
        assert!(!next_path(&store).exists());
        let three = rotate(9);
        assert_eq!((three.signer(0, 4), three.signer(0, 8)), (first, two.last()));
        std::fs::write(keys_path(&store), b"{}").expect("ours");
        assert!(keys(&store).is_err());
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn what_a_power_cut_leaves_of_the_public_half_is_mended_and_no_key_is_made_for_it() {
        let store = folder("sign-cut");
        let ours = start(&store).expect("writable");
        for left in [None, Some(&[][..]), Some(&ours[..7]), Some(&[0; 32])] {
            match left {
                None => std::fs::remove_file(public_path(&store)).expect("ours"),
                Some(bytes) => std::fs::write(public_path(&store), bytes).expect("ours"),
            }
            assert_eq!(start(&store).expect("the key is there"), ours);
            assert_eq!(published(&store), Some(ours));
        }
        // The key was durable first: somebody took it away.
        std::fs::write(public_path(&store), &ours[..7]).expect("ours");
        std::fs::remove_file(path(&store)).expect("ours");
        assert!(start(&store).is_err_and(|error| error.is_of_identity()));
        std::fs::remove_dir_all(&store).expect("ours");
    }
}
