//! What goes into the packets of one stream: 160 octets, 20 ms, for packet 0, 1, 2, …

use std::sync::Arc;

use super::g711::Law;
use super::melody;
use crate::base::prng::Prng;

/// Payload octets of one packet: 20 ms of G.711.
pub const PAYLOAD_BYTES: usize = 160;

/// A media source. Cheap to clone: a thousand streams share the octets of two melodies.
#[derive(Clone, Debug)]
pub enum Media {
    /// These octets over and over.
    Round(Arc<[u8]>),
    /// These octets once; the last packet is filled up with the law's silence.
    Once(Arc<[u8]>, Law),
    /// Numbered packets: see [`numbered`].
    Numbered {
        /// Seed of the stream.
        seed: u64,
    },
}

impl Media {
    /// The melody of a party.
    pub fn melody(party: usize, law: Law) -> Self {
        Media::Round(melody::round(party).into_iter().map(|sample| law.encode(sample)).collect())
    }

    /// Samples at 8 kHz, once.
    pub fn samples(samples: &[i16], law: Law) -> Self {
        Media::Once(samples.iter().map(|sample| law.encode(*sample)).collect(), law)
    }

    /// Packets that this source has; `None`: no end.
    pub fn packets(&self) -> Option<u64> {
        match self {
            Media::Once(octets, _) => Some(octets.len().div_ceil(PAYLOAD_BYTES) as u64),
            Media::Round(_) | Media::Numbered { .. } => None,
        }
    }

    /// Writes the payload of packet `number`.
    pub fn fill(&self, number: u64, payload: &mut [u8; PAYLOAD_BYTES]) {
        match self {
            Media::Round(octets) => {
                let first = (number as usize).wrapping_mul(PAYLOAD_BYTES);
                for (place, octet) in payload.iter_mut().enumerate() {
                    *octet = octets[first.wrapping_add(place) % octets.len()];
                }
            }
            Media::Once(octets, law) => {
                payload.fill(law.silence());
                let first = number as usize * PAYLOAD_BYTES;
                let rest = octets.get(first..).unwrap_or(&[]);
                let count = rest.len().min(PAYLOAD_BYTES);
                payload[..count].copy_from_slice(&rest[..count]);
            }
            Media::Numbered { seed } => numbered(*seed, number, payload),
        }
    }
}

/// The payload of numbered packet `number`: the number as 64 bits big-endian, then the SplitMix64
/// stream whose state starts at `seed XOR number` (little-endian words). A checker that knows the
/// seed proves equality without having seen the sender.
pub fn numbered(seed: u64, number: u64, payload: &mut [u8; PAYLOAD_BYTES]) {
    payload[..8].copy_from_slice(&number.to_be_bytes());
    Prng::new(seed ^ number).fill(&mut payload[8..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_goes_on_without_a_seam() {
        let media = Media::Round((0..=255).collect());
        let mut payload = [0; PAYLOAD_BYTES];
        media.fill(1, &mut payload);
        assert_eq!((payload[0], payload[95], payload[96]), (160, 255, 0));
    }

    #[test]
    fn a_file_ends_and_its_last_packet_is_filled_with_silence() {
        let media = Media::samples(&[1_000; 170], Law::A);
        assert_eq!(media.packets(), Some(2));
        let mut payload = [0; PAYLOAD_BYTES];
        media.fill(1, &mut payload);
        assert_eq!(payload[9], Law::A.encode(1_000));
        assert!(payload[10..].iter().all(|octet| *octet == Law::A.silence()));
    }

    #[test]
    fn numbered_packets_can_be_made_again_from_seed_and_number() {
        let (mut one, mut two) = ([0; PAYLOAD_BYTES], [0; PAYLOAD_BYTES]);
        Media::Numbered { seed: 9 }.fill(70_000, &mut one);
        numbered(9, 70_000, &mut two);
        assert_eq!(one, two);
        assert_eq!(one[..8], 70_000_u64.to_be_bytes());
        numbered(9, 70_001, &mut two);
        assert_ne!(one[8..], two[8..]);
    }
}
