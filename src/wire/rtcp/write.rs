//! The writer: reports, source descriptions and BYE, one behind the other into the caller's buffer.

use super::{
    BLOCK_BYTES, BYE, CNAME, RECEIVER_REPORT, ReportBlock, SENDER_REPORT, SOURCE_DESCRIPTION,
    SenderInfo,
};
use crate::base::ids::Ssrc;

/// Report blocks in one packet: the count has five bits.
pub const BLOCKS_MAX: usize = 31;

/// A packet does not fit: more items than its count can say, or no room in the buffer. Nothing of it
/// was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("rtcp packet of {wanted} bytes does not fit {room} bytes, or holds more than 31 items")]
pub struct Full {
    /// Bytes the packet needs.
    pub wanted: usize,
    /// Bytes left.
    pub room: usize,
}

/// Writes a compound packet. RFC 3550 §6.1: begin with a report, then SDES with CNAME, BYE last.
pub struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    /// Writes to the start of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Writer { out, length: 0 }
    }

    /// Bytes written so far.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Adds an SR.
    pub fn sender_report(
        &mut self,
        ssrc: Ssrc,
        info: &SenderInfo,
        blocks: &[ReportBlock],
    ) -> Result<(), Full> {
        let body_bytes = 24 + blocks.len() * BLOCK_BYTES;
        let body = self.packet(SENDER_REPORT, blocks.len(), body_bytes)?;
        put(body, 0, ssrc.0);
        body[4..12].copy_from_slice(&info.ntp.to_be_bytes());
        put(body, 12, info.rtp);
        put(body, 16, info.packets);
        put(body, 20, info.octets);
        put_blocks(&mut body[24..], blocks);
        Ok(())
    }

    /// Adds an RR. Without blocks it says only that we are here.
    pub fn receiver_report(&mut self, ssrc: Ssrc, blocks: &[ReportBlock]) -> Result<(), Full> {
        let body_bytes = 4 + blocks.len() * BLOCK_BYTES;
        let body = self.packet(RECEIVER_REPORT, blocks.len(), body_bytes)?;
        put(body, 0, ssrc.0);
        put_blocks(&mut body[4..], blocks);
        Ok(())
    }

    /// Adds an SDES with one chunk that holds a CNAME of at most 255 bytes; a longer one is cut.
    pub fn cname(&mut self, ssrc: Ssrc, cname: &str) -> Result<(), Full> {
        let cname = &cname.as_bytes()[..cname.len().min(255)];
        // SSRC, item head and value, at least one zero octet, up to a 32-bit boundary.
        let body_bytes = (4 + 2 + cname.len() + 1).next_multiple_of(4);
        let body = self.packet(SOURCE_DESCRIPTION, 1, body_bytes)?;
        put(body, 0, ssrc.0);
        body[4..6].copy_from_slice(&[CNAME, cname.len() as u8]);
        body[6..6 + cname.len()].copy_from_slice(cname);
        Ok(())
    }

    /// Adds a BYE without a reason.
    pub fn bye(&mut self, ssrc: Ssrc) -> Result<(), Full> {
        put(self.packet(BYE, 1, 4)?, 0, ssrc.0);
        Ok(())
    }

    /// Writes a packet's head and lends its body, all zeros.
    fn packet(
        &mut self,
        packet_type: u8,
        count: usize,
        body_bytes: usize,
    ) -> Result<&mut [u8], Full> {
        let (wanted, room) = (4 + body_bytes, self.out.len() - self.length);
        if count > BLOCKS_MAX || wanted > room {
            return Err(Full { wanted, room });
        }
        let packet = &mut self.out[self.length..self.length + wanted];
        self.length += wanted;
        packet.fill(0);
        packet[0] = 0x80 | count as u8;
        packet[1] = packet_type;
        // 31 blocks are 193 words: the 16-bit length cannot overflow.
        packet[2..4].copy_from_slice(&((wanted / 4 - 1) as u16).to_be_bytes());
        Ok(&mut packet[4..])
    }
}

fn put(out: &mut [u8], at: usize, value: u32) {
    out[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn put_blocks(out: &mut [u8], blocks: &[ReportBlock]) {
    for (out, block) in out.chunks_exact_mut(BLOCK_BYTES).zip(blocks) {
        debug_assert!((-(1 << 23)..1 << 23).contains(&block.cumulative_lost));
        put(out, 0, block.ssrc.0);
        put(out, 4, block.cumulative_lost as u32 & 0x00ff_ffff);
        out[4] = block.fraction_lost;
        put(out, 8, block.highest);
        put(out, 12, block.jitter);
        put(out, 16, block.last_sr);
        put(out, 20, block.delay_since_last_sr);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Chunk, Compound, Packet};
    use super::*;

    fn block(number: u32) -> ReportBlock {
        ReportBlock {
            ssrc: Ssrc(number),
            fraction_lost: 255,
            cumulative_lost: -(1 << 23),
            highest: u32::MAX - number,
            jitter: 5,
            last_sr: 6,
            delay_since_last_sr: 7,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut out = [0xff; 2_048];
        let blocks: Vec<_> = (0..31).map(block).collect();
        let info = SenderInfo { ntp: u64::MAX - 1, rtp: 2, packets: 3, octets: 4 };
        let mut writer = Writer::new(&mut out);
        writer.sender_report(Ssrc(1), &info, &blocks).expect("room");
        writer.receiver_report(Ssrc(1), &blocks[..2]).expect("room");
        writer.cname(Ssrc(1), "user@host").expect("room");
        writer.bye(Ssrc(1)).expect("room");
        let length = writer.length();
        let compound = Compound::parse(&out[..length]).expect("just written");
        let packets: Vec<_> = compound.packets().collect();
        let Packet::SenderReport { ssrc, info: read, blocks: raw } = packets[0] else {
            panic!("an SR")
        };
        assert_eq!((ssrc, read), (Ssrc(1), info));
        assert_eq!(ReportBlock::all(raw).collect::<Vec<_>>(), blocks);
        let Packet::ReceiverReport { blocks: raw, .. } = packets[1] else { panic!("an RR") };
        assert_eq!(ReportBlock::all(raw).collect::<Vec<_>>(), blocks[..2]);
        let Packet::SourceDescription { count, chunks } = packets[2] else { panic!("an SDES") };
        let wanted = Chunk { ssrc: Ssrc(1), cname: Some(b"user@host") };
        assert_eq!(Chunk::all(count, chunks).collect::<Vec<_>>(), [wanted]);
        assert_eq!(packets[3].leaving().collect::<Vec<_>>(), [Ssrc(1)]);
    }

    #[test]
    fn every_length_of_cname_is_read_back_and_stays_aligned() {
        for length in 0..300 {
            let (name, mut out) = ("x".repeat(length), [0xff; 300]);
            let mut writer = Writer::new(&mut out);
            writer.cname(Ssrc(9), &name).expect("room");
            let length = writer.length();
            assert_eq!(length % 4, 0);
            let compound = Compound::parse(&out[..length]).expect("just written");
            let Some(Packet::SourceDescription { count, chunks }) = compound.packets().next()
            else {
                panic!("an SDES")
            };
            let chunk = Chunk::all(count, chunks).next().expect("one chunk");
            assert_eq!(chunk.cname, Some(&name.as_bytes()[..name.len().min(255)]));
        }
    }

    #[test]
    fn what_does_not_fit_leaves_nothing_behind() {
        let mut out = [0; 31];
        let mut writer = Writer::new(&mut out);
        assert_eq!(
            writer.receiver_report(Ssrc(1), &[block(1)]),
            Err(Full { wanted: 32, room: 31 })
        );
        assert_eq!(writer.length(), 0);
        let many: Vec<_> = (0..32).map(block).collect();
        let mut large = [0; 2_048];
        assert!(Writer::new(&mut large).receiver_report(Ssrc(1), &many).is_err());
    }
}
