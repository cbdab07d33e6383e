//! Secrets of recordings, and who is asked for them.

use zeroize::Zeroize;

use crate::base::ids::StreamId;

/// Octets that are drawn anew for each attempt to write an extent.
pub const FRESH_BYTES: usize = 16;
/// Such octets. They stand in the extent's header.
pub type Fresh = [u8; FRESH_BYTES];

/// What a recording's keys are made of. Wiped on drop.
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes the octets; the caller wipes its copy.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Secret(bytes)
    }

    /// The octets. Named so that every place that reads them can be searched for.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// What a writer asks.
pub trait WriteKeys {
    /// The secret of the recording that `stream` belongs to, and its epoch, which is not 0; `None`: not
    /// known yet, and nothing of the stream may be written.
    fn current(&self, stream: StreamId) -> Option<(u32, Secret)>;
    /// Random octets, never the same twice.
    fn fresh(&self) -> Fresh;
}

/// What a reader asks.
pub trait ReadKeys {
    /// The secret of the recording that `stream` belongs to, of that epoch; `None`: not known, or destroyed.
    fn secret(&self, stream: StreamId, epoch: u32) -> Option<Secret>;
}
