//! Random bytes fit for keys, from the kernel's generator (getrandom).
//!
//! Not the process-wide generator of aws-lc: it seeds itself from the jitter of the CPU at its first
//! use, 40 ms of computing that every start of a role would wait for (F01, F02).

use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::base::ports::Entropy;

/// The system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    fn fill(&self, out: &mut [u8]) {
        let mut filled = 0;
        while filled < out.len() {
            match getrandom(&mut out[filled..], GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                // A long draw was interrupted by a signal.
                Err(Errno::INTR) => {}
                Err(error) => panic!("a machine without entropy cannot make keys: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let (mut first, mut second) = ([0; 32], [0; 32]);
        SystemEntropy.fill(&mut first);
        SystemEntropy.fill(&mut second);
        assert_ne!(first, second);
        // More than the kernel gives at once where a signal comes.
        let mut long = [0; 4_096];
        SystemEntropy.fill(&mut long);
        assert!(long.chunks(32).all(|chunk| chunk != [0; 32]));
    }
}
