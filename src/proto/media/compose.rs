//! The compound packet we send: RR, SDES with our CNAME, and BYE with the last one.

use crate::base::ids::Ssrc;
use crate::wire::rtcp::{BLOCKS_MAX, Full, ReportBlock, Writer};

/// What to say.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Our own SSRC.
    pub ssrc: Ssrc,
    /// Our CNAME (RFC 7022).
    pub cname: &'a str,
    /// One block per source; none where nothing came, the report then only keeps the path open.
    pub blocks: &'a [ReportBlock],
    /// Whether we leave (RFC 3550 §6.6).
    pub bye: bool,
}

/// Writes `report` to `out` and returns its octets. More than 31 blocks go into further RRs of the
/// same compound (RFC 3550 §6.4.2).
///
/// RFC 3550 §6.1: every compound begins with a report and carries the CNAME; BYE comes last.
pub fn compose(report: &Report<'_>, out: &mut [u8]) -> Result<usize, Full> {
    let mut writer = Writer::new(out);
    let (first, more) = report.blocks.split_at(report.blocks.len().min(BLOCKS_MAX));
    writer.receiver_report(report.ssrc, first)?;
    for blocks in more.chunks(BLOCKS_MAX) {
        writer.receiver_report(report.ssrc, blocks)?;
    }
    writer.cname(report.ssrc, report.cname)?;
    if report.bye {
        writer.bye(report.ssrc)?;
    }
    Ok(writer.length())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::rtcp::{Chunk, Compound, Packet};

    fn report<'a>(blocks: &'a [ReportBlock], bye: bool) -> Report<'a> {
        Report { ssrc: Ssrc(5), cname: "floor@tape", blocks, bye }
    }

    fn kinds(bytes: &[u8]) -> Vec<(&'static str, usize)> {
        let compound = Compound::parse(bytes).expect("just composed");
        let kind = |packet| match packet {
            Packet::ReceiverReport { blocks, .. } => ("rr", ReportBlock::all(blocks).count()),
            Packet::SourceDescription { count, chunks } => {
                let wanted = Chunk { ssrc: Ssrc(5), cname: Some(b"floor@tape") };
                assert_eq!(Chunk::all(count, chunks).collect::<Vec<_>>(), [wanted]);
                ("sdes", 1)
            }
            Packet::Bye { .. } => ("bye", packet.leaving().count()),
            _ => ("other", 0),
        };
        compound.packets().map(kind).collect()
    }

    #[test]
    fn an_empty_report_still_says_who_we_are() {
        let mut out = [0; 200];
        let length = compose(&report(&[], false), &mut out).expect("room");
        assert_eq!(kinds(&out[..length]), [("rr", 0), ("sdes", 1)]);
    }

    #[test]
    fn the_thirty_second_block_begins_another_report_and_bye_comes_last() {
        let mut out = [0; 2_000];
        let blocks = [ReportBlock::default(); 33];
        let length = compose(&report(&blocks, true), &mut out).expect("room");
        assert_eq!(kinds(&out[..length]), [("rr", 31), ("rr", 2), ("sdes", 1), ("bye", 1)]);
        assert!(compose(&report(&blocks, true), &mut out[..length - 1]).is_err());
    }
}
