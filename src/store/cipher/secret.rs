//! Secrets that keys are made of.

use zeroize::Zeroizing;

use crate::base::ports::Entropy;

/// Octets that are drawn anew for each attempt to write an extent.
pub const FRESH_BYTES: usize = 16;
/// Such octets. They stand in the extent's header.
pub type Fresh = [u8; FRESH_BYTES];

/// 32 octets that nobody may see: no `Debug`, no `Clone`, wiped on drop.
pub struct Secret(Zeroizing<[u8; 32]>);

impl Secret {
    /// Takes them.
    pub const fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Secret(bytes)
    }

    /// Unpredictable ones.
    pub fn random(entropy: &dyn Entropy) -> Self {
        let mut bytes = Zeroizing::new([0; 32]);
        entropy.fill(bytes.as_mut());
        Secret(bytes)
    }

    /// The octets. Named so that every place that reads them can be searched for.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}
