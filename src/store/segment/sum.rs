//! The sum that ends each structure of a segment: CRC-32C of all before it, in its last four bytes.

use zerocopy::{Immutable, IntoBytes};

use crate::store::log::crc32c;

/// The bytes of `wire`, whose last four are filled with the sum of the rest.
pub(super) fn summed<const BYTES: usize>(wire: &(impl IntoBytes + Immutable)) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out.copy_from_slice(wire.as_bytes());
    let (body, sum) = out.split_at_mut(BYTES - 4);
    sum.copy_from_slice(&crc32c(body).to_le_bytes());
    out
}

/// Whether the sum of `wire` fits.
pub(super) fn is_sound(wire: &(impl IntoBytes + Immutable)) -> bool {
    wire.as_bytes()
        .split_last_chunk::<4>()
        .is_some_and(|(body, sum)| crc32c(body) == u32::from_le_bytes(*sum))
}
