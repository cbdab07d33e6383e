//! What an SRC encrypts with: a master key, or several that their MKIs tell apart (RFC 4568 §6.1).

use zeroize::Zeroizing;

use super::mki::Mki;
use super::secret::MasterKey;

/// Keys that one line may have in use.
pub const KEYRING_MAX: usize = 4;
/// The largest derivation rate, as a power of two (RFC 4568 §6.3.1).
pub const DERIVATION_RATE_MAX: u8 = 24;

/// One to four master keys of one suite, and how often session keys are derived from them. No `Debug`.
pub struct Keyring {
    keys: Vec<(MasterKey, Option<Mki>)>,
    derivation_rate: u8,
}

impl Keyring {
    /// A key without an MKI, whose session keys are derived once.
    pub fn one(key: MasterKey) -> Self {
        Keyring { keys: vec![(key, None)], derivation_rate: 0 }
    }

    /// Keys with their MKIs. `derivation_rate`: session keys change each 2^n packets; 0: never. `None`
    /// for no key, more than four, keys of several lengths, several keys without MKIs of one length, or
    /// a rate above 24.
    pub fn new(keys: Vec<(MasterKey, Option<Mki>)>, derivation_rate: u8) -> Option<Self> {
        let (first, mki) = keys.first()?;
        let alike = keys.iter().all(|(key, other)| {
            key.expose().len() == first.expose().len()
                && other.map(|mki| mki.length()) == mki.map(|mki| mki.length())
        });
        let told_apart = keys.len() == 1 || mki.is_some();
        let fits = keys.len() <= KEYRING_MAX && derivation_rate <= DERIVATION_RATE_MAX;
        (alike && told_apart && fits).then_some(Keyring { keys, derivation_rate })
    }

    /// From what [`Self::expose`] gave, with the MKIs that belong to it, in order.
    pub fn from_parts(octets: &[u8], mkis: &[Mki], derivation_rate: u8) -> Option<Self> {
        let count = mkis.len().max(1);
        let bytes = octets.len() / count;
        if bytes == 0 || !octets.len().is_multiple_of(count) {
            return None;
        }
        let mkis = mkis.iter().copied().map(Some).chain([None]);
        let keys =
            octets.chunks(bytes).zip(mkis).map(|(key, mki)| Some((MasterKey::new(key)?, mki)));
        Keyring::new(keys.collect::<Option<_>>()?, derivation_rate)
    }

    /// The keys, at least one, all of one length.
    pub fn keys(&self) -> &[(MasterKey, Option<Mki>)] {
        &self.keys
    }

    /// Session keys change each 2^n packets; 0: never.
    pub fn derivation_rate(&self) -> u8 {
        self.derivation_rate
    }

    /// Octets of each key.
    pub fn key_bytes(&self) -> usize {
        self.keys[0].0.expose().len()
    }

    /// The MKIs of all keys; none where there are none.
    pub fn mkis(&self) -> Vec<Mki> {
        self.keys.iter().filter_map(|(_, mki)| *mki).collect()
    }

    /// All keys, one behind the other. Named so that every place that reads it can be searched for.
    pub fn expose(&self) -> Zeroizing<Vec<u8>> {
        let mut octets = Zeroizing::new(Vec::with_capacity(self.keys.len() * self.key_bytes()));
        self.keys.iter().for_each(|(key, _)| octets.extend_from_slice(key.expose()));
        octets
    }

    /// A second holder of the same keys, made on purpose and visibly.
    pub fn duplicate(&self) -> Self {
        let keys = self.keys.iter().map(|(key, mki)| (key.duplicate(), *mki)).collect();
        Keyring { keys, derivation_rate: self.derivation_rate }
    }

    /// Whether both say the same.
    pub fn same(&self, other: &Keyring) -> bool {
        self.derivation_rate == other.derivation_rate
            && self.keys.len() == other.keys.len()
            && self
                .keys
                .iter()
                .zip(&other.keys)
                .all(|((own, mki), (key, other))| own.same(key) && mki == other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(fill: u8, bytes: usize) -> MasterKey {
        MasterKey::new(&vec![fill; bytes]).expect("fits")
    }

    fn mki(octets: &[u8]) -> Option<Mki> {
        Some(Mki::new(octets).expect("fits"))
    }

    #[test]
    fn several_keys_are_told_apart_and_come_back_from_their_parts() {
        let all: Vec<(MasterKey, Option<Mki>)> =
            (1..=4).map(|fill| (key(fill, 30), mki(&[0, fill]))).collect();
        let keyring = Keyring::new(all, 24).expect("four");
        let back = Keyring::from_parts(&keyring.expose(), &keyring.mkis(), 24).expect("its own");
        assert!(back.same(&keyring) && back.same(&keyring.duplicate()));
        let other = Keyring::from_parts(&keyring.expose(), &keyring.mkis(), 23).expect("another");
        assert!(!other.same(&keyring));
        let one = Keyring::one(key(1, 30));
        let back = Keyring::from_parts(&one.expose(), &one.mkis(), 0).expect("its own");
        assert!(back.same(&one) && !back.same(&keyring));
    }

    #[test]
    fn what_is_no_keyring_is_none() {
        let many = || (0..5).map(|fill| (key(fill, 30), mki(&[fill]))).collect::<Vec<_>>();
        assert!(Keyring::new(vec![], 0).is_none());
        assert!(Keyring::new(many(), 0).is_none());
        assert!(Keyring::new(vec![(key(1, 30), None)], 25).is_none());
        assert!(Keyring::new(vec![(key(1, 30), None), (key(2, 30), None)], 0).is_none());
        assert!(Keyring::new(vec![(key(1, 30), mki(&[1])), (key(2, 28), mki(&[2]))], 0).is_none());
        assert!(
            Keyring::new(vec![(key(1, 30), mki(&[1])), (key(2, 30), mki(&[0, 2]))], 0).is_none()
        );
        assert!(Keyring::from_parts(&[], &[], 0).is_none());
        let marks = [mki(&[1]).expect("one"), mki(&[2]).expect("one")];
        assert!(Keyring::from_parts(&[7; 61], &marks, 0).is_none());
    }
}
