//! The RTCP that an SRC sends: SR and SDES with CNAME in one compound packet, BYE with the last one
//! (RFC 3550 §6), and the part of the SRS's reports that a sender wants to know.

use crate::base::ids::Ssrc;
use crate::base::time::Wall;

/// Seconds between 1900 (NTP) and 1970 (Unix).
const NTP_UNIX_S: i64 = 2_208_988_800;

/// What a sender report states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderReport {
    /// Who sends.
    pub ssrc: Ssrc,
    /// Wall clock of the report.
    pub wall: Wall,
    /// RTP time of the same instant.
    pub media: u32,
    /// Packets sent so far.
    pub packets: u32,
    /// Payload octets sent so far.
    pub octets: u32,
}

/// SR + SDES, and BYE where `bye`.
///
/// RFC 3550 §6.1: a compound packet starts with a report and carries SDES CNAME; BYE comes last.
pub fn compound(report: &SenderReport, cname: &str, bye: bool) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(80);
    let ssrc = report.ssrc.0.to_be_bytes();
    bytes.extend([0x80, 200, 0, 6]);
    bytes.extend(ssrc);
    bytes.extend(ntp(report.wall).to_be_bytes());
    bytes.extend(report.media.to_be_bytes());
    bytes.extend(report.packets.to_be_bytes());
    bytes.extend(report.octets.to_be_bytes());

    // RFC 3550 §6.5: chunks end with at least one zero octet, on a 32-bit border.
    let name = &cname.as_bytes()[..cname.len().min(255)];
    let chunk_bytes = (4 + 2 + name.len() + 1).next_multiple_of(4);
    bytes.extend([0x81, 202]);
    bytes.extend(((chunk_bytes / 4) as u16).to_be_bytes());
    let chunk_end = bytes.len() + chunk_bytes;
    bytes.extend(ssrc);
    bytes.extend([1, name.len() as u8]);
    bytes.extend(name);
    bytes.resize(chunk_end, 0);

    if bye {
        bytes.extend([0x81, 203, 0, 1]);
        bytes.extend(ssrc);
    }
    bytes
}

/// 64-bit NTP time of a wall clock value (RFC 3550 §4).
pub fn ntp(wall: Wall) -> u64 {
    let seconds = wall.0.div_euclid(1_000_000_000) + NTP_UNIX_S;
    let nanoseconds = wall.0.rem_euclid(1_000_000_000) as u64;
    ((seconds as u64) << 32) | ((nanoseconds << 32) / 1_000_000_000)
}

/// A reception report block about one of our SSRCs (RFC 3550 §6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Whose report it is.
    pub reporter: Ssrc,
    /// Which of our sources it is about.
    pub about: Ssrc,
    /// Packets lost so far, by its count; below 0 where duplicates came.
    pub lost: i32,
    /// Extended highest sequence number.
    pub highest: u32,
}

/// The report blocks in a compound packet, at most 31 from each report; broken tails are ignored.
pub fn heard(compound: &[u8]) -> Vec<Heard> {
    let mut found = Vec::new();
    let mut rest = compound;
    while let Some((head, _)) = rest.split_first_chunk::<4>() {
        let length = 4 * (usize::from(u16::from_be_bytes([head[2], head[3]])) + 1);
        if head[0] >> 6 != 2 || length > rest.len() {
            break;
        }
        let (packet, tail) = rest.split_at(length);
        rest = tail;
        let blocks_at = match head[1] {
            200 => 28,
            201 => 8,
            _ => continue,
        };
        let word =
            |at: usize| packet.get(at..at + 4).map(|word| [word[0], word[1], word[2], word[3]]);
        let Some(reporter) = word(4).map(u32::from_be_bytes).map(Ssrc) else { continue };
        for block in 0..usize::from(head[0] & 31) {
            let at = blocks_at + 24 * block;
            let (Some(about), Some(lost), Some(highest)) = (word(at), word(at + 4), word(at + 8))
            else {
                break;
            };
            found.push(Heard {
                reporter,
                about: Ssrc(u32::from_be_bytes(about)),
                // 24 bits with sign.
                lost: i32::from_be_bytes([lost[1], lost[2], lost[3], 0]) >> 8,
                highest: u32::from_be_bytes(highest),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    const REPORT: SenderReport = SenderReport {
        ssrc: Ssrc(0x0102_0304),
        wall: Wall(500_000_000),
        media: 77,
        packets: 3,
        octets: 480,
    };

    #[test]
    fn compound_is_whole_words_and_ends_with_bye() {
        for length in 0..40 {
            let cname = "c".repeat(length);
            let bytes = compound(&REPORT, &cname, true);
            assert_eq!(bytes.len() % 4, 0);
            assert_eq!(&bytes[bytes.len() - 8..], [0x81, 203, 0, 1, 1, 2, 3, 4]);
            let sdes_words = usize::from(u16::from_be_bytes([bytes[30], bytes[31]]));
            assert_eq!(28 + 4 + 4 * sdes_words + 8, bytes.len());
        }
    }

    #[test]
    fn ntp_starts_in_1900_and_halves_are_halves() {
        assert_eq!(ntp(Wall(0)), 2_208_988_800 << 32);
        assert_eq!(ntp(Wall(500_000_000)) as u32, 1 << 31);
    }

    #[test]
    fn blocks_about_us_are_found_and_any_bytes_are_survived() {
        let mut report = vec![0x81, 201, 0, 7, 0, 0, 0, 9, 1, 2, 3, 4];
        report.extend([128, 0xff, 0xff, 0xfe, 0, 1, 0, 5]);
        report.extend([0; 12]);
        let expected =
            Heard { reporter: Ssrc(9), about: Ssrc(0x0102_0304), lost: -2, highest: 65_541 };
        assert_eq!(heard(&report), [expected]);
        let mut prng = Prng::new(5);
        for _ in 0..20_000 {
            let mut bytes = report.clone();
            let at = prng.below(bytes.len() as u64) as usize;
            bytes[at] = prng.next_u64() as u8;
            bytes.truncate(prng.below(bytes.len() as u64 + 1) as usize);
            let _ = heard(&bytes);
        }
    }
}
