//! The RTP header (RFC 3550 §5.1) as a view over a datagram, and the sorting of datagrams that
//! share one port (RFC 7983, RFC 5761). Media workers call both per packet: nothing is copied,
//! nothing is allocated.
//!
//! ```text
//! offset  size  field
//!      0     1  version (2 bits, always 2), padding flag, extension flag, CSRC count (4 bits)
//!      1     1  marker, payload type (7 bits)
//!      2     2  sequence number
//!      4     4  timestamp
//!      8     4  SSRC
//!     12   4·n  CSRC list
//!      …   4+m  extension: profile (2), length in 32-bit words (2), then the words
//!      …        payload, and padding whose last byte is its length
//! ```

use std::ops::Range;

use crate::base::ids::{Seq, Ssrc};

/// Bytes of the header without CSRC list and extension.
pub const FIXED_BYTES: usize = 12;

/// What a datagram on a media port is, judged by its first two octets and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// RTP or SRTP; the fixed header is there.
    Rtp,
    /// RTCP or SRTCP; the first header and its SSRC are there.
    Rtcp,
    /// STUN (RFC 8489).
    Stun,
    /// DTLS record.
    Dtls,
    /// Carries nothing on purpose: empty, or a few octets too short for STUN (RFC 6263 §4.1).
    KeepAlive,
    /// None of these, or cut short.
    Malformed,
}

/// Sorts a datagram by RFC 7983 §7 and, for RTP against RTCP, RFC 5761 §4: a second octet of
/// 192-223 is an RTCP packet type. RTP therefore cannot use payload types 64-95 with the marker
/// set, on a port of its own either; no SRC does.
pub fn classify(datagram: &[u8]) -> Kind {
    /// RFC 8489 §5: a STUN header has 20 octets.
    const STUN_BYTES: usize = 20;
    match datagram {
        [] => Kind::KeepAlive,
        [0..=3, ..] if datagram.len() < STUN_BYTES => Kind::KeepAlive,
        [0..=3, ..] => Kind::Stun,
        [20..=63, ..] => Kind::Dtls,
        [128..=191, 192..=223, ..] if datagram.len() >= 8 => Kind::Rtcp,
        [128..=191, 192..=223, ..] => Kind::Malformed,
        [128..=191, ..] if datagram.len() >= FIXED_BYTES => Kind::Rtp,
        _ => Kind::Malformed,
    }
}

/// Why bytes are no RTP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtpError {
    /// Shorter than its header, CSRC list or extension.
    #[error("rtp header of {wanted} bytes expected, {found} bytes found")]
    Short {
        /// Bytes needed.
        wanted: usize,
        /// Bytes there are.
        found: usize,
    },
    /// Not version 2.
    #[error("rtp version 2 expected, {found} found")]
    Version {
        /// The version found.
        found: u8,
    },
    /// The padding length is zero or longer than what follows the header.
    #[error("rtp padding of {padding} bytes does not fit {room} bytes of payload")]
    Padding {
        /// The last byte.
        padding: usize,
        /// Bytes behind the header.
        room: usize,
    },
}

/// A packet whose header lies within it. Padding is judged only by [`Header::payload`]: before
/// decryption its length is cipher text (RFC 3711 §3.1).
#[derive(Clone, Copy, Debug)]
pub struct Header<'a> {
    packet: &'a [u8],
    header_bytes: usize,
}

impl<'a> Header<'a> {
    /// Checks version and bounds of the header at the start of `packet`.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Result<Self, RtpError> {
        let found = packet.len();
        if found < FIXED_BYTES {
            return Err(RtpError::Short { wanted: FIXED_BYTES, found });
        }
        if packet[0] >> 6 != 2 {
            return Err(RtpError::Version { found: packet[0] >> 6 });
        }
        let mut header_bytes = FIXED_BYTES + usize::from(packet[0] & 0x0f) * 4;
        if packet[0] & 0x10 != 0 {
            let Some(length) = packet.get(header_bytes + 2..header_bytes + 4) else {
                return Err(RtpError::Short { wanted: header_bytes + 4, found });
            };
            let words = u16::from_be_bytes([length[0], length[1]]);
            header_bytes += 4 + usize::from(words) * 4;
        }
        if found < header_bytes {
            return Err(RtpError::Short { wanted: header_bytes, found });
        }
        Ok(Header { packet, header_bytes })
    }

    /// Bytes of header, CSRC list and extension: what SRTP authenticates but does not encrypt.
    #[inline]
    pub fn header_bytes(&self) -> usize {
        self.header_bytes
    }

    /// Whether padding follows the payload.
    pub fn has_padding(&self) -> bool {
        self.packet[0] & 0x20 != 0
    }

    /// The marker bit.
    pub fn marker(&self) -> bool {
        self.packet[1] & 0x80 != 0
    }

    /// The payload type, 0-127.
    pub fn payload_type(&self) -> u8 {
        self.packet[1] & 0x7f
    }

    /// The sequence number.
    #[inline]
    pub fn seq(&self) -> Seq {
        Seq(u16::from_be_bytes([self.packet[2], self.packet[3]]))
    }

    /// The RTP timestamp, in ticks of the payload type's clock.
    pub fn timestamp(&self) -> u32 {
        word(self.packet, 4)
    }

    /// The synchronisation source.
    #[inline]
    pub fn ssrc(&self) -> Ssrc {
        Ssrc(word(self.packet, 8))
    }

    /// The contributing sources, at most 15.
    pub fn csrcs(&self) -> impl ExactSizeIterator<Item = Ssrc> + 'a {
        self.csrc_bytes().chunks_exact(4).map(|bytes| Ssrc(word(bytes, 0)))
    }

    /// The same as they stand there, four octets each.
    pub fn csrc_bytes(&self) -> &'a [u8] {
        let count = usize::from(self.packet[0] & 0x0f);
        &self.packet[FIXED_BYTES..FIXED_BYTES + count * 4]
    }

    /// The header extension: its profile and data (RFC 3550 §5.3.1).
    pub fn extension(&self) -> Option<(u16, &'a [u8])> {
        if self.packet[0] & 0x10 == 0 {
            return None;
        }
        let at = FIXED_BYTES + usize::from(self.packet[0] & 0x0f) * 4;
        let profile = u16::from_be_bytes([self.packet[at], self.packet[at + 1]]);
        Some((profile, &self.packet[at + 4..self.header_bytes]))
    }

    /// Where the payload lies in the packet, padding left out. Only for packets in the clear.
    pub fn payload_range(&self) -> Result<Range<usize>, RtpError> {
        let room = self.packet.len() - self.header_bytes;
        if !self.has_padding() {
            return Ok(self.header_bytes..self.packet.len());
        }
        let padding = if room == 0 { 0 } else { usize::from(self.packet[self.packet.len() - 1]) };
        if padding == 0 || padding > room {
            return Err(RtpError::Padding { padding, room });
        }
        Ok(self.header_bytes..self.packet.len() - padding)
    }

    /// The payload without padding. Only for packets in the clear.
    pub fn payload(&self) -> Result<&'a [u8], RtpError> {
        Ok(&self.packet[self.payload_range()?])
    }
}

/// The fields of a header without CSRC list, extension and padding, to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields {
    /// The marker bit.
    pub marker: bool,
    /// The payload type, 0-127.
    pub payload_type: u8,
    /// The sequence number.
    pub seq: Seq,
    /// The RTP timestamp.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: Ssrc,
}

impl Fields {
    /// The twelve bytes of the header.
    pub fn emit(&self) -> [u8; FIXED_BYTES] {
        debug_assert!(self.payload_type < 128);
        let mut out = [0; FIXED_BYTES];
        out[0] = 0x80;
        out[1] = u8::from(self.marker) << 7 | self.payload_type & 0x7f;
        out[2..4].copy_from_slice(&self.seq.0.to_be_bytes());
        out[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        out[8..].copy_from_slice(&self.ssrc.0.to_be_bytes());
        out
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    /// Two CSRCs, an extension of one word, four bytes of payload, three of padding.
    const FULL: [u8; 35] = [
        0xb2, 0x88, 0x12, 0x34, 0, 0, 0, 160, 0xca, 0xfe, 0xba, 0xbe, // fixed
        0, 0, 0, 1, 0, 0, 0, 2, // CSRCs
        0xbe, 0xde, 0, 1, 9, 9, 9, 9, // extension
        1, 2, 3, 4, 0, 0, 3,
    ];

    #[test]
    fn every_field_is_found_where_rfc_3550_puts_it() {
        let header = Header::parse(&FULL).expect("well formed");
        assert!(header.marker() && header.has_padding());
        assert_eq!((header.payload_type(), header.seq()), (8, Seq(0x1234)));
        assert_eq!((header.timestamp(), header.ssrc()), (160, Ssrc(0xcafe_babe)));
        assert_eq!(header.csrcs().collect::<Vec<_>>(), [Ssrc(1), Ssrc(2)]);
        assert_eq!(header.extension(), Some((0xbede, &[9, 9, 9, 9][..])));
        assert_eq!(header.header_bytes(), 28);
        assert_eq!(header.payload(), Ok(&[1, 2, 3, 4][..]));
    }

    #[test]
    fn every_cut_in_the_header_is_short_and_none_panics() {
        for cut in 0..28 {
            assert!(
                matches!(Header::parse(&FULL[..cut]), Err(RtpError::Short { .. })),
                "cut at {cut}"
            );
        }
        let header = Header::parse(&FULL[..28]).expect("an empty payload is a packet");
        assert_eq!(header.payload(), Err(RtpError::Padding { padding: 0, room: 0 }));
    }

    #[test]
    fn padding_longer_than_the_payload_is_refused() {
        let mut packet = FULL;
        packet[34] = 8;
        let header = Header::parse(&packet).expect("the header is good");
        assert_eq!(header.payload(), Err(RtpError::Padding { padding: 8, room: 7 }));
        packet[34] = 7;
        assert_eq!(Header::parse(&packet).expect("good").payload(), Ok(&[][..]));
    }

    #[test]
    fn other_versions_are_refused() {
        for version in [0, 1, 3] {
            let mut packet = FULL;
            packet[0] = packet[0] & 0x3f | version << 6;
            assert_eq!(Header::parse(&packet).err(), Some(RtpError::Version { found: version }));
        }
    }

    #[test]
    fn emitted_fields_are_read_back() {
        let fields = Fields {
            marker: true,
            payload_type: 96,
            seq: Seq(65_535),
            timestamp: u32::MAX,
            ssrc: Ssrc(7),
        };
        let bytes = fields.emit();
        let header = Header::parse(&bytes).expect("just written");
        assert!(header.marker() && !header.has_padding() && header.extension().is_none());
        assert_eq!((header.payload_type(), header.seq()), (96, Seq(65_535)));
        assert_eq!((header.timestamp(), header.ssrc()), (u32::MAX, Ssrc(7)));
    }

    #[test]
    fn first_two_octets_tell_the_kinds_apart() {
        let of = |first: u8, second: u8, length: usize| {
            let mut datagram = vec![0; length];
            datagram[0] = first;
            datagram[1] = second;
            classify(&datagram)
        };
        assert_eq!(classify(&[]), Kind::KeepAlive);
        assert_eq!(of(0, 0, 4), Kind::KeepAlive);
        assert_eq!(of(0, 1, 20), Kind::Stun);
        assert_eq!(of(22, 254, 60), Kind::Dtls);
        for second in 192..=223 {
            assert_eq!(of(128, second, 8), Kind::Rtcp, "packet type {second}");
            assert_eq!(of(128, second, 7), Kind::Malformed);
        }
        for second in (0..192).chain(224..=255) {
            assert_eq!(of(191, second, 12), Kind::Rtp, "second octet {second}");
            assert_eq!(of(191, second, 11), Kind::Malformed);
        }
        for first in (4..20).chain(64..128).chain(192..=255) {
            assert_eq!(of(first, 0, 100), Kind::Malformed, "first octet {first}");
        }
    }

    #[test]
    fn random_and_mutated_bytes_never_panic_and_ranges_stay_inside() {
        let mut prng = Prng::new(0x5eed_0001);
        for round in 0..200_000 {
            let mut packet = FULL;
            let length = prng.below(FULL.len() as u64 + 1) as usize;
            if round % 2 == 0 {
                prng.fill(&mut packet);
            } else {
                packet[prng.below(35) as usize] = prng.next_u64() as u8;
            }
            classify(&packet[..length]);
            if let Ok(header) = Header::parse(&packet[..length]) {
                assert!(header.header_bytes() <= length);
                assert!(header.csrcs().len() <= 15);
                header.extension();
                if let Ok(range) = header.payload_range() {
                    assert!(header.header_bytes() <= range.start && range.end <= length);
                }
            }
        }
    }
}
