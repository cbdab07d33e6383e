//! Files that hold keys: those of the store, the head of a veiled file, a key-encryption key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use floortape::base::ports::{Disk, DiskFile, Entropy};
use floortape::base::prng::Prng;
use floortape::store::keys::{Kek, StoreKey, StoreKeys, Veil, Veiled};
use floortape::store::log::{BLOCK_BYTES, crc32c};

use super::disk::Image;

/// Volume id of the store.
pub const VOLUME: [u8; 16] = [6; 16];
const JOURNAL: &str = "store/journal";
/// Sum of a veiled file's head.
const AT_CRC: usize = 124;

/// The same numbers each time.
pub struct Seeded(Mutex<Prng>);

impl Seeded {
    /// From `seed` on.
    pub fn new(seed: u64) -> Self {
        Seeded(Mutex::new(Prng::new(seed)))
    }
}

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        let mut prng = self.0.lock().expect("nobody panics with it");
        out.fill_with(|| prng.next_u64() as u8);
    }
}

/// The key-encryption key of the corpus.
pub fn kek() -> Kek {
    Kek::parse(&[5; 32]).expect("32 bytes")
}

/// Veils what is made in `folder`, by the store key of the corpus.
pub fn veil(folder: &Path) -> Arc<Veil> {
    let key = StoreKey::taken_over(1, [4; 32].into());
    Arc::new(Veil::new(VOLUME, &[key], vec![folder.to_owned()], Box::new(Seeded::new(2))))
}

/// Any bytes give an answer: keys, a refusal, or a file's text that is no longer than the file.
pub fn store_keys(data: &[u8]) {
    if let Some(kek) = Kek::parse(data) {
        assert!([32, 64].contains(&data.trim_ascii().len()) || data.len() == 32);
        assert_ne!(kek.fingerprint(), [0; 16]);
    }
    block(data);
    veiled(data.to_vec());
    if data.len() >= BLOCK_BYTES {
        let mut whole = data[..BLOCK_BYTES].to_vec();
        let sum = crc32c(&whole[..BLOCK_BYTES - 4]);
        whole[BLOCK_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        block(&whole);
    }
    if data.len() >= AT_CRC + 4 {
        let mut whole = data.to_vec();
        let sum = crc32c(&whole[..AT_CRC]);
        whole[AT_CRC..AT_CRC + 4].copy_from_slice(&sum.to_le_bytes());
        veiled(whole);
    }
}

fn block(bytes: &[u8]) {
    let Some(keys) = StoreKeys::parse(bytes) else { return };
    if let Ok(opened) = keys.open(&kek()) {
        assert!(opened.iter().all(|key| *key.expose() != [0; 32]));
    }
}

fn veiled(image: Vec<u8>) {
    let (folder, bytes) = (Path::new(JOURNAL), image.len() as u64);
    let path: PathBuf = folder.join("a");
    for veil in [None, Some(veil(folder))] {
        let disk = Veiled::new(Image(BTreeMap::from([(path.clone(), image.clone())])), veil);
        let Ok(file) = disk.open_read(&path) else { continue };
        let length = file.bytes().expect("memory");
        assert!(length <= bytes);
        let mut out = vec![0; image.len() + 1];
        assert_eq!(file.read_at(0, &mut out).expect("memory") as u64, length);
        assert_eq!(file.read_at(length, &mut out).expect("memory"), 0);
    }
}
