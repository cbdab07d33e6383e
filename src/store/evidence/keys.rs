//! The signing keys of a store, one after the other: each new one is signed by the one before and says
//! from which segments on it counts, so that whoever trusts the first can check all that follows.
//!
//! `STORE/evidence/keys` holds one JSON line a key. A store whose key was never changed has none.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::hash::{Digest, Hash};
use super::hex::Hex;
use super::sign::{PublicKey, Signature, SigningKey, verify};
use crate::base::time::Wall;

/// What stands before the fields in the hashed text.
const DOMAIN: &[u8] = b"floortape key 1\0";
/// Keys that are read: one a day for eleven years.
const KEYS_MAX: usize = 4_096;

/// One key, as the one before it vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyStatement {
    /// What is signed.
    pub key: KeyFields,
    /// By the key before; the first signs itself.
    pub signature: Hex<64>,
}

/// What a statement says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFields {
    /// 1 for the first.
    pub number: u32,
    /// The key.
    pub public_key: Hex<32>,
    /// The store.
    pub volume: String,
    /// When it was made.
    pub at: Wall,
    /// First segment of each worker that it signs; of workers that are not named all that the keys
    /// before signed none of.
    pub from: BTreeMap<u16, u64>,
}

impl KeyFields {
    fn digest(&self) -> Hash {
        let mut digest = Digest::new();
        digest.update(DOMAIN);
        digest.update(&serde_json::to_vec(self).expect("nothing in it that JSON cannot"));
        digest.finish()
    }

    /// Signed by the key before, or by itself where it is the first.
    pub fn sign(self, by: &SigningKey) -> KeyStatement {
        let signature = Hex(by.sign(&self.digest()));
        KeyStatement { key: self, signature }
    }
}

/// Why a list of keys is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// A line is not what this program writes.
    #[error("line {0} of the list of keys is no statement of a key")]
    Line(usize),
    /// A statement is not signed by the key before it.
    #[error("key {0} is not signed by the key before it")]
    Signature(u32),
    /// A number is missing, or stands twice.
    #[error("expected key {expected} in the list of keys, found {found}")]
    Number {
        /// The next one.
        expected: u32,
        /// What is there.
        found: u32,
    },
    /// It says that it counts from a segment that a later key signs.
    #[error("key {0} counts from an earlier segment than the key before it")]
    Order(u32),
    /// It is another store's.
    #[error("key {0} is of another store")]
    Volume(u32),
}

/// All keys of a store, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    first: PublicKey,
    /// All that followed, by the first segments that they sign.
    later: Vec<(PublicKey, BTreeMap<u16, u64>)>,
}

/// Who may have signed something of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signers {
    own: PublicKey,
    /// Those that followed.
    later: Vec<PublicKey>,
}

impl Signers {
    /// Where there is one key.
    pub const fn one(key: PublicKey) -> Self {
        Signers { own: key, later: Vec::new() }
    }

    /// Who must have signed the segment itself.
    pub const fn own(&self) -> &PublicKey {
        &self.own
    }

    /// Whether `key` may have signed what is gone of it: time may have come after the key was changed.
    pub fn may_thin(&self, key: &PublicKey) -> bool {
        self.own == *key || self.later.contains(key)
    }
}

impl Keys {
    /// A store that has one.
    pub const fn one(key: PublicKey) -> Self {
        Keys { first: key, later: Vec::new() }
    }

    /// By their statements; every signature is checked. The list is not empty.
    pub fn of(statements: &[KeyStatement]) -> Result<Self, KeysError> {
        let Some(first) = statements.first() else { return Err(KeysError::Line(1)) };
        let mut keys = Keys::one(first.key.public_key.0);
        for (place, statement) in statements.iter().take(KEYS_MAX).enumerate() {
            let KeyStatement { key, signature } = statement;
            let expected = place as u32 + 1;
            if key.number != expected {
                return Err(KeysError::Number { expected, found: key.number });
            }
            if key.volume != first.key.volume {
                return Err(KeysError::Volume(key.number));
            }
            if !verify(&keys.last(), &key.digest(), &signature.0) {
                return Err(KeysError::Signature(key.number));
            }
            if place == 0 {
                continue;
            }
            let before = keys.later.last().map(|(_, from)| from);
            let is_behind = |(worker, number): (&u16, &u64)| {
                key.from.get(worker).is_some_and(|own| own >= number)
            };
            if before.is_some_and(|before| !before.iter().all(is_behind)) {
                return Err(KeysError::Order(key.number));
            }
            keys.later.push((key.public_key.0, key.from.clone()));
        }
        Ok(keys)
    }

    /// Who must have signed a segment.
    pub fn signer(&self, worker: u16, number: u64) -> PublicKey {
        let counts = |(_, from): &&(PublicKey, BTreeMap<u16, u64>)| {
            from.get(&worker).is_none_or(|first| number >= *first)
        };
        self.later.iter().rev().find(counts).map_or(self.first, |(key, _)| *key)
    }

    /// The same, and who may have signed what became of it since.
    pub fn signers(&self, worker: u16, number: u64) -> Signers {
        let own = self.signer(worker, number);
        let later = self.all().skip_while(|key| *key != own).skip(1).collect();
        Signers { own, later }
    }

    /// Who signs now.
    pub fn last(&self) -> PublicKey {
        self.later.last().map_or(self.first, |(key, _)| *key)
    }

    /// Who signed first.
    pub const fn first(&self) -> PublicKey {
        self.first
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = PublicKey> + '_ {
        std::iter::once(self.first).chain(self.later.iter().map(|(key, _)| *key))
    }

    /// Whether any of them signed `hash`.
    pub fn signed(&self, hash: &Hash, signature: &Signature) -> bool {
        self.all().any(|key| verify(&key, hash, signature))
    }
}

/// The bytes of the file.
pub fn emit_keys(statements: &[KeyStatement]) -> Vec<u8> {
    let mut out = Vec::new();
    for statement in statements {
        serde_json::to_writer(&mut out, statement).expect("nothing in it that JSON cannot");
        out.push(b'\n');
    }
    out
}

/// Reads the file: byte for byte what [`emit_keys`] writes. Total: any input gives an answer.
pub fn parse_keys(bytes: &[u8]) -> Result<Vec<KeyStatement>, KeysError> {
    let mut statements = Vec::new();
    for (place, line) in bytes.split_inclusive(|byte| *byte == b'\n').take(KEYS_MAX).enumerate() {
        let statement = serde_json::from_slice(line).map_err(|_| KeysError::Line(place + 1))?;
        statements.push(statement);
    }
    match emit_keys(&statements) == bytes {
        true => Ok(statements),
        false => Err(KeysError::Line(statements.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(number: u32, key: &SigningKey, from: &[(u16, u64)]) -> KeyFields {
        KeyFields {
            number,
            public_key: Hex(key.public_key()),
            volume: "v".to_owned(),
            at: Wall(5),
            from: from.iter().copied().collect(),
        }
    }

    fn three() -> ([SigningKey; 3], Vec<KeyStatement>) {
        let keys = [1, 2, 3].map(|seed| SigningKey::from_seed(&[seed; 32]));
        let statements = vec![
            fields(1, &keys[0], &[]).sign(&keys[0]),
            fields(2, &keys[1], &[(0, 10)]).sign(&keys[0]),
            fields(3, &keys[2], &[(0, 20), (1, 1)]).sign(&keys[1]),
        ];
        (keys, statements)
    }

    #[test]
    fn each_segment_has_the_key_that_counted_then() {
        let (keys, statements) = three();
        let found = Keys::of(&parse_keys(&emit_keys(&statements)).unwrap()).unwrap();
        let place = |worker, number| {
            keys.iter().position(|key| key.public_key() == found.signer(worker, number))
        };
        assert_eq!([place(0, 1), place(0, 9), place(0, 10)], [Some(0), Some(0), Some(1)]);
        assert_eq!([place(0, 19), place(0, 20), place(1, 1)], [Some(1), Some(2), Some(2)]);
        assert_eq!(place(7, 1), Some(2), "a worker that came later");
        assert_eq!(found.last(), keys[2].public_key());
    }

    #[test]
    fn every_changed_missing_or_swapped_byte_of_the_list_is_found() {
        let (keys, statements) = three();
        let whole = emit_keys(&statements);
        let check = |bytes: &[u8]| parse_keys(bytes).and_then(|found| Keys::of(&found));
        for at in 0..whole.len() {
            for change in [1, 0x20, 0x80] {
                let mut bad = whole.clone();
                bad[at] ^= change;
                assert!(check(&bad).is_err(), "byte {at} by {change:#x}");
            }
        }
        let swapped = [statements[0].clone(), statements[2].clone(), statements[1].clone()];
        assert!(Keys::of(&swapped).is_err());
        assert!(Keys::of(&statements[1..]).is_err() && Keys::of(&[]).is_err());
        // Signed by itself instead of the one before.
        let forged = [statements[0].clone(), fields(2, &keys[1], &[(0, 10)]).sign(&keys[1])];
        assert_eq!(Keys::of(&forged), Err(KeysError::Signature(2)));
        let back = [
            statements[0].clone(),
            statements[1].clone(),
            fields(3, &keys[2], &[(0, 9)]).sign(&keys[1]),
        ];
        assert_eq!(Keys::of(&back), Err(KeysError::Order(3)));
    }
}
