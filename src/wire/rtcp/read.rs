//! The reader: a compound packet is checked as a whole, then walked packet by packet.

use super::{BLOCK_BYTES, BYE, CNAME, RECEIVER_REPORT, SENDER_REPORT, SOURCE_DESCRIPTION};
use crate::base::ids::Ssrc;

/// Why bytes are no compound RTCP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RtcpError {
    /// A packet is longer than what is left of the datagram, or there is none.
    #[error("rtcp packet of {wanted} bytes expected, {found} bytes found")]
    Short {
        /// Bytes the packet needs.
        wanted: usize,
        /// Bytes there are.
        found: usize,
    },
    /// Not version 2.
    #[error("rtcp version 2 expected, {found} found")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Padding before the last packet, or longer than the packet.
    #[error("rtcp padding does not fit its packet")]
    Padding,
}

/// A datagram in which every packet's header and length fit.
///
/// The first packet may be of any type: RFC 3550 appendix A.2 wants a report, RFC 5506 does not, and
/// what was received is kept either way.
#[derive(Clone, Copy, Debug)]
pub struct Compound<'a> {
    bytes: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Checks all packets of `bytes` (RFC 3550 appendix A.2).
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtcpError> {
        let mut rest = bytes;
        loop {
            let packet_bytes = packet_bytes(rest)?;
            if has_padding(rest) {
                let last = rest[packet_bytes - 1];
                let fits = usize::from(last) <= packet_bytes - 4 && last != 0;
                if packet_bytes != rest.len() || !fits {
                    return Err(RtcpError::Padding);
                }
            }
            rest = &rest[packet_bytes..];
            if rest.is_empty() {
                return Ok(Compound { bytes });
            }
        }
    }

    /// The SSRC of who sent it (that of the first packet); `None` where that one is too short to
    /// have any.
    pub fn sender(&self) -> Option<Ssrc> {
        self.bytes.get(4..8).map(ssrc)
    }

    /// The packets in order. A packet whose content does not fit its own length comes out as
    /// [`Packet::Other`].
    pub fn packets(&self) -> impl Iterator<Item = Packet<'a>> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            let length = packet_bytes(rest).ok()?;
            let (packet, behind) = rest.split_at(length);
            rest = behind;
            Some(Packet::read(packet))
        })
    }
}

fn packet_bytes(rest: &[u8]) -> Result<usize, RtcpError> {
    let found = rest.len();
    if found < 4 {
        return Err(RtcpError::Short { wanted: 4, found });
    }
    if rest[0] >> 6 != 2 {
        return Err(RtcpError::Version { found: rest[0] >> 6 });
    }
    let wanted = (usize::from(u16::from_be_bytes([rest[2], rest[3]])) + 1) * 4;
    if wanted > found { Err(RtcpError::Short { wanted, found }) } else { Ok(wanted) }
}

fn has_padding(packet: &[u8]) -> bool {
    packet[0] & 0x20 != 0
}

/// One packet of a compound.
#[derive(Clone, Copy, Debug)]
pub enum Packet<'a> {
    /// SR: what its source has sent, and what it has received.
    SenderReport {
        /// Who reports.
        ssrc: Ssrc,
        /// What it has sent.
        info: SenderInfo,
        /// What it has received; see [`ReportBlock::all`].
        blocks: &'a [u8],
    },
    /// RR: what its source has received.
    ReceiverReport {
        /// Who reports.
        ssrc: Ssrc,
        /// What it has received; see [`ReportBlock::all`].
        blocks: &'a [u8],
    },
    /// SDES: see [`Chunk::all`].
    SourceDescription {
        /// Chunks there should be.
        count: u8,
        /// The chunks.
        chunks: &'a [u8],
    },
    /// BYE: these sources have ended. Four bytes an SSRC.
    Bye {
        /// The SSRCs.
        sources: &'a [u8],
    },
    /// APP, XR, feedback, unknown, or content that does not fit its length.
    Other {
        /// The packet type.
        packet_type: u8,
    },
}

impl<'a> Packet<'a> {
    /// Reads one packet whose length was checked.
    fn read(packet: &'a [u8]) -> Self {
        let (count, packet_type) = (packet[0] & 0x1f, packet[1]);
        let padding = if has_padding(packet) { packet[packet.len() - 1].into() } else { 0 };
        let body = &packet[4..packet.len() - padding];
        Self::body(packet_type, count, body).unwrap_or(Packet::Other { packet_type })
    }

    fn body(packet_type: u8, count: u8, body: &'a [u8]) -> Option<Self> {
        let blocks_bytes = usize::from(count) * BLOCK_BYTES;
        Some(match packet_type {
            SENDER_REPORT => Packet::SenderReport {
                ssrc: ssrc(body.get(..4)?),
                info: SenderInfo::read(body.get(4..24)?),
                blocks: body.get(24..24 + blocks_bytes)?,
            },
            RECEIVER_REPORT => Packet::ReceiverReport {
                ssrc: ssrc(body.get(..4)?),
                blocks: body.get(4..4 + blocks_bytes)?,
            },
            SOURCE_DESCRIPTION => Packet::SourceDescription { count, chunks: body },
            BYE => Packet::Bye { sources: body.get(..usize::from(count) * 4)? },
            _ => return None,
        })
    }

    /// The SSRCs that a BYE names; none for other packets.
    pub fn leaving(&self) -> impl Iterator<Item = Ssrc> + use<'a> {
        let sources = if let Packet::Bye { sources } = *self { sources } else { &[] };
        sources.chunks_exact(4).map(ssrc)
    }
}

/// The sender information of an SR (RFC 3550 §6.4.1). Each is kept: (NTP, RTP) pairs align streams,
/// the packet count proves what should have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderInfo {
    /// NTP timestamp of the sender's wall clock, 32.32 fixed point.
    pub ntp: u64,
    /// The same instant in RTP ticks.
    pub rtp: u32,
    /// Packets sent since the source began, modulo 2^32.
    pub packets: u32,
    /// Payload octets sent since the source began, modulo 2^32.
    pub octets: u32,
}

impl SenderInfo {
    fn read(bytes: &[u8]) -> Self {
        SenderInfo {
            ntp: u64::from(word(bytes, 0)) << 32 | u64::from(word(bytes, 4)),
            rtp: word(bytes, 8),
            packets: word(bytes, 12),
            octets: word(bytes, 16),
        }
    }
}

/// What a receiver says of one source (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: Ssrc,
    /// Share lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the beginning, -2^23..2^23; negative when duplicates outweigh loss.
    pub cumulative_lost: i32,
    /// Highest sequence number, extended by the count of its cycles.
    pub highest: u32,
    /// Interarrival jitter in RTP ticks.
    pub jitter: u32,
    /// Middle 32 bits of the NTP timestamp of the last SR; 0: none came.
    pub last_sr: u32,
    /// Delay since that SR, in 1/65,536 s; 0: none came.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    /// The blocks of a report, at most 31.
    pub fn all(blocks: &[u8]) -> impl ExactSizeIterator<Item = ReportBlock> + '_ {
        blocks.chunks_exact(BLOCK_BYTES).map(Self::read)
    }

    fn read(bytes: &[u8]) -> Self {
        ReportBlock {
            ssrc: ssrc(bytes),
            fraction_lost: bytes[4],
            // The shift to the left and back carries the sign of the 24-bit number up.
            cumulative_lost: (word(bytes, 4) << 8) as i32 >> 8,
            highest: word(bytes, 8),
            jitter: word(bytes, 12),
            last_sr: word(bytes, 16),
            delay_since_last_sr: word(bytes, 20),
        }
    }
}

/// One chunk of a source description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Whom it describes.
    pub ssrc: Ssrc,
    /// Its CNAME, if given. UTF-8 by the RFC, any bytes in the field.
    pub cname: Option<&'a [u8]>,
}

impl<'a> Chunk<'a> {
    /// Reads `count` chunks; ends early where one does not fit.
    pub fn all(count: u8, chunks: &'a [u8]) -> impl Iterator<Item = Chunk<'a>> {
        let mut rest = chunks;
        (0..count).map_while(move |_| {
            let (chunk, behind) = Self::read(rest)?;
            rest = behind;
            Some(chunk)
        })
    }

    /// Reads one chunk and what stands behind it. Items are (type, length, bytes) up to a zero
    /// octet; the chunk then ends at the next 32-bit boundary (RFC 3550 §6.5).
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut chunk = Chunk { ssrc: ssrc(bytes.get(..4)?), cname: None };
        let mut at = 4;
        // Each item takes two bytes at least, so the packet's length bounds the loop.
        while *bytes.get(at)? != 0 {
            let length = usize::from(*bytes.get(at + 1)?);
            let value = bytes.get(at + 2..at + 2 + length)?;
            if bytes[at] == CNAME && chunk.cname.is_none() {
                chunk.cname = Some(value);
            }
            at += 2 + length;
        }
        let end = (at + 1).next_multiple_of(4).min(bytes.len());
        Some((chunk, &bytes[end..]))
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn ssrc(bytes: &[u8]) -> Ssrc {
    Ssrc(word(bytes, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    /// SR with one block, SDES with two chunks, APP, BYE with reason and padding.
    fn compound() -> Vec<u8> {
        let mut bytes = vec![0x81, 200, 0, 12, 0, 0, 0, 7];
        bytes.extend([1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 11]);
        bytes.extend([0, 0, 0, 8, 64, 0xff, 0xff, 0xfe, 0, 1, 0, 2, 0, 0, 0, 3]);
        bytes.extend([0, 0, 0, 4, 0, 0, 0, 5]);
        bytes.extend([0x82, 202, 0, 6, 0, 0, 0, 7, 2, 1, b'n', 1, 3, b'a', b'@', b'b']);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0]);
        bytes.extend([0x80, 204, 0, 2, 0, 0, 0, 7, b'n', b'a', b'm', b'e']);
        bytes.extend([0xa1, 203, 0, 4, 0, 0, 0, 7, 3, b'e', b'n', b'd', 0, 0, 0, 0, 0, 0, 0, 4]);
        bytes
    }

    #[test]
    fn a_whole_compound_is_read() {
        let bytes = compound();
        let compound = Compound::parse(&bytes).expect("well formed");
        assert_eq!(compound.sender(), Some(Ssrc(7)));
        let packets: Vec<_> = compound.packets().collect();
        assert_eq!(packets.len(), 4);
        let Packet::SenderReport { ssrc, info, blocks } = packets[0] else { panic!("an SR") };
        let wanted = SenderInfo { ntp: 0x0102_0304_0506_0708, rtp: 9, packets: 10, octets: 11 };
        assert_eq!((ssrc, info), (Ssrc(7), wanted));
        let block = ReportBlock::all(blocks).next().expect("one block");
        let wanted = ReportBlock {
            ssrc: Ssrc(8),
            fraction_lost: 64,
            cumulative_lost: -2,
            highest: 0x1_0002,
            jitter: 3,
            last_sr: 4,
            delay_since_last_sr: 5,
        };
        assert_eq!(block, wanted);
        let Packet::SourceDescription { count, chunks } = packets[1] else { panic!("an SDES") };
        let chunks: Vec<_> = Chunk::all(count, chunks).collect();
        assert_eq!(chunks[0], Chunk { ssrc: Ssrc(7), cname: Some(b"a@b") });
        assert_eq!(chunks[1], Chunk { ssrc: Ssrc(8), cname: None });
        assert!(matches!(packets[2], Packet::Other { packet_type: 204 }));
        assert_eq!(packets[3].leaving().collect::<Vec<_>>(), [Ssrc(7)]);
    }

    #[test]
    fn a_cut_anywhere_but_between_packets_is_refused() {
        let bytes = compound();
        let borders = [52, 80, 92, 112];
        for cut in 0..=bytes.len() {
            let whole = borders.contains(&cut);
            assert_eq!(Compound::parse(&bytes[..cut]).is_ok(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn padding_belongs_to_the_last_packet_and_must_fit() {
        let mut early = compound();
        early[0] |= 0x20;
        assert_eq!(Compound::parse(&early).err(), Some(RtcpError::Padding));
        for padding in [0, 17, 255] {
            let mut bytes = compound();
            *bytes.last_mut().expect("not empty") = padding;
            assert_eq!(Compound::parse(&bytes).err(), Some(RtcpError::Padding), "{padding}");
        }
    }

    #[test]
    fn a_count_beyond_the_length_makes_a_packet_other() {
        let bytes = [0x9f, 201, 0, 1, 0, 0, 0, 7];
        let compound = Compound::parse(&bytes).expect("the framing is good");
        assert!(matches!(compound.packets().next(), Some(Packet::Other { packet_type: 201 })));
    }

    #[test]
    fn random_and_mutated_bytes_never_panic_and_every_walk_ends() {
        let mut prng = Prng::new(0x5eed_0004);
        let good = compound();
        for round in 0..200_000 {
            let mut bytes = good.clone();
            bytes.truncate(prng.below(good.len() as u64 + 1) as usize);
            if round % 4 == 0 {
                prng.fill(&mut bytes);
            }
            for _ in 0..3 {
                let place = prng.below(bytes.len() as u64) as usize;
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = prng.next_u64() as u8;
                }
            }
            let Ok(compound) = Compound::parse(&bytes) else { continue };
            assert!(compound.packets().count() * 4 <= bytes.len());
            for packet in compound.packets() {
                assert!(packet.leaving().count() <= 31);
                match packet {
                    Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. } => {
                        assert!(ReportBlock::all(blocks).count() <= 31);
                    }
                    Packet::SourceDescription { count, chunks } => {
                        assert!(Chunk::all(count, chunks).count() <= usize::from(count));
                    }
                    Packet::Bye { .. } | Packet::Other { .. } => {}
                }
            }
        }
    }
}
