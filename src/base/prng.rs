//! A small seeded generator for timers and simulations. Never for keys: those come from the
//! operating system through [`crate::base::ports::Entropy`].

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Prng(u64);

impl Prng {
    /// A generator that always gives the same sequence for the same seed.
    pub const fn new(seed: u64) -> Self {
        Prng(seed)
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 {
            0
        } else {
            ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
        }
    }

    /// Fills `out` with random bytes.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// For tests: bytes fit for keys in everything but that they are known.
#[cfg(test)]
pub(crate) struct Seeded(std::sync::Mutex<Prng>);

#[cfg(test)]
impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Seeded(std::sync::Mutex::new(Prng::new(seed)))
    }
}

#[cfg(test)]
impl super::ports::Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().expect("nobody panics with it").fill(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_sequence_and_below_stays_below() {
        let (mut a, mut b) = (Prng::new(7), Prng::new(7));
        for _ in 0..1_000 {
            assert_eq!(a.next_u64(), b.next_u64());
            assert!(a.below(10) < 10);
            b.below(10);
        }
        assert_eq!(a.below(0), 0);
    }
}
