//! What wraps the secrets of log files.

use super::store_key::StoreKey;
use crate::base::ports::{Entropy, LogSecret, Unopened, WrappedKey};
use crate::store::cipher::Secret;
use crate::store::journal::keybox::KeyBox;

/// Purpose of the derived key that wraps them.
const PURPOSE: &str = "floortape logs";

/// A derived key for each store key, newest last.
pub(super) struct LogWraps(Vec<(u32, KeyBox)>);

impl LogWraps {
    /// `store`: all keys of the store, newest last; there is one at least.
    pub(super) fn new(store: &[StoreKey]) -> Self {
        let boxed = |key: &StoreKey| {
            let wraps = KeyBox::new(key.derive(PURPOSE).expose()).expect("32 bytes");
            (key.number, wraps)
        };
        LogWraps(store.iter().map(boxed).collect())
    }

    /// A new secret, as [`crate::base::ports::LogKeys::make`].
    pub(super) fn make(&self, entropy: &dyn Entropy, context: &str) -> (LogSecret, WrappedKey) {
        let (store_key, wraps) = self.0.last().expect("an encrypted store has a key");
        let secret = Secret::random(entropy);
        let bytes = wraps.wrap(entropy, secret.expose(), context);
        (LogSecret::new(*secret.expose()), WrappedKey { store_key: *store_key, bytes })
    }

    /// The secret that was wrapped, as [`crate::base::ports::LogKeys::open`].
    pub(super) fn open(&self, key: &WrappedKey, context: &str) -> Result<LogSecret, Unopened> {
        let wraps = self.0.iter().find(|(number, _)| *number == key.store_key);
        let (_, wraps) = wraps.ok_or(Unopened::NoKey)?;
        wraps.unwrap(&key.bytes, context).map_err(|_| Unopened::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Seeded;

    fn wraps(keys: &[(u32, u8)]) -> LogWraps {
        let key = |(number, byte): &(u32, u8)| StoreKey::taken_over(*number, [*byte; 32].into());
        LogWraps::new(&keys.iter().map(key).collect::<Vec<_>>())
    }

    #[test]
    fn the_newest_store_key_wraps_and_older_ones_still_open() {
        let entropy = Seeded::new(1);
        let (old, both) = (wraps(&[(1, 1)]), wraps(&[(1, 1), (2, 2)]));
        let (secret, wrapped) = old.make(&entropy, "use 1");
        assert_eq!(both.open(&wrapped, "use 1"), Ok(secret.clone()));
        assert_eq!(both.open(&wrapped, "use 2"), Err(Unopened::Changed));
        assert_eq!(wraps(&[(1, 3)]).open(&wrapped, "use 1"), Err(Unopened::Changed));
        let (newer, wrapped) = both.make(&entropy, "use 1");
        assert!(newer != secret && wrapped.store_key == 2);
        assert_eq!(old.open(&wrapped, "use 1"), Err(Unopened::NoKey));
        for bit in 0..wrapped.bytes.len() * 8 {
            let mut bad = wrapped;
            bad.bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(both.open(&bad, "use 1"), Err(Unopened::Changed), "bit {bit}");
        }
    }
}
