//! H.264 out of RTP (RFC 6184): a stream of NAL units with start codes (ITU-T H.264 annex B) that begins where a
//! decoder can begin.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How many packets what is missing is waited for.
const WINDOW: usize = 64;
/// Longest NAL unit that is put together: an intra frame of a very large picture.
const NAL_BYTES_MAX: usize = 8 << 20;
const START: [u8; 4] = [0, 0, 0, 1];

/// Types of NAL units (ITU-T H.264 table 7-1, RFC 6184 table 1).
mod kind {
    pub(super) const IDR: u8 = 5;
    pub(super) const SEI: u8 = 6;
    pub(super) const SPS: u8 = 7;
    pub(super) const PPS: u8 = 8;
    pub(super) const STAP_A: u8 = 24;
    pub(super) const STAP_B: u8 = 25;
    pub(super) const MTAP16: u8 = 26;
    pub(super) const MTAP24: u8 = 27;
    pub(super) const FU_A: u8 = 28;
    pub(super) const FU_B: u8 = 29;
}
/// Payload type of a recovery point in an SEI (ITU-T H.264 §D.1.8).
const RECOVERY_POINT: u8 = 6;

/// What leaves, and the RTP timestamps of its pictures.
#[derive(Debug, Default)]
pub struct Picked {
    /// NAL units, each behind a start code.
    pub bytes: Vec<u8>,
    /// Timestamps of pictures that begin in them, with their offsets.
    pub pictures: Vec<(u32, usize)>,
}

/// One source's video.
#[derive(Debug, Default)]
pub struct H264 {
    next: Option<u64>,
    waiting: BTreeMap<u64, (u32, Box<[u8]>)>,
    /// From the offer: SPS and PPS that the stream itself need not hold.
    offered: Vec<Vec<u8>>,
    has_sps: bool,
    has_pps: bool,
    begun: bool,
    /// A NAL unit that came in part.
    part: Option<Vec<u8>>,
    timestamp: Option<u32>,
    out: Picked,
}

impl H264 {
    /// `fmtp`: of its format; what it says of parameter sets is put before the first picture.
    pub fn new(fmtp: Option<&str>) -> Self {
        let value = fmtp.unwrap_or_default().split(';').find_map(|one| {
            let (key, value) = one.split_once('=')?;
            key.trim().eq_ignore_ascii_case("sprop-parameter-sets").then(|| value.trim())
        });
        let sets = value.unwrap_or_default().split(',');
        let offered =
            sets.filter_map(|one| STANDARD.decode(one).ok().filter(|one| !one.is_empty()));
        H264 { offered: offered.collect(), ..H264::default() }
    }

    /// Takes a packet; what can leave by now.
    pub fn packet(&mut self, index: u64, timestamp: u32, payload: &[u8]) -> Picked {
        if index >= *self.next.get_or_insert(index) {
            self.waiting.insert(index, (timestamp, payload.into()));
        }
        while let Some(entry) = self.waiting.first_entry() {
            if Some(*entry.key()) != self.next && self.waiting.len() <= WINDOW {
                break;
            }
            self.step();
        }
        std::mem::take(&mut self.out)
    }

    /// What was waited for to the end.
    pub fn finish(mut self) -> Picked {
        while !self.waiting.is_empty() {
            self.step();
        }
        self.out
    }

    fn step(&mut self) {
        let Some((index, (timestamp, payload))) = self.waiting.pop_first() else { return };
        if self.next != Some(index) {
            // What is not whole is not shown to a decoder.
            self.part = None;
        }
        self.next = Some(index + 1);
        self.payload(timestamp, &payload);
    }

    /// RFC 6184 §5.4: what a payload is, its first octet says.
    fn payload(&mut self, timestamp: u32, payload: &[u8]) {
        let Some((&first, rest)) = payload.split_first() else { return };
        let of = first & 0x1f;
        if !matches!(of, kind::FU_A | kind::FU_B) {
            self.part = None;
        }
        match of {
            1..=23 => self.unit(timestamp, payload),
            kind::STAP_A => self.units(timestamp, rest, 0),
            kind::STAP_B => self.units(timestamp, rest.get(2..).unwrap_or_default(), 0),
            // Each unit has its offset of order and of time before it.
            kind::MTAP16 => self.units(timestamp, rest.get(2..).unwrap_or_default(), 3),
            kind::MTAP24 => self.units(timestamp, rest.get(2..).unwrap_or_default(), 4),
            kind::FU_A | kind::FU_B => {
                let Some((&head, rest)) = rest.split_first() else { return };
                let body = if of == kind::FU_B { rest.get(2..).unwrap_or_default() } else { rest };
                let (starts, ends) = (head & 0x80 != 0, head & 0x40 != 0);
                if starts {
                    self.part = Some(vec![first & 0xe0 | head & 0x1f]);
                }
                // The middle of a unit whose start was lost is nothing.
                let Some(part) = &mut self.part else { return };
                if part.len() + body.len() > NAL_BYTES_MAX {
                    self.part = None;
                    return;
                }
                part.extend_from_slice(body);
                if ends && let Some(unit) = self.part.take() {
                    self.unit(timestamp, &unit);
                }
            }
            _ => {}
        }
    }

    /// Units with their lengths before them; `skip`: octets between length and unit that are part of neither's
    /// bits.
    fn units(&mut self, timestamp: u32, mut rest: &[u8], skip: usize) {
        while let Some((length, behind)) = rest.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length));
            let Some((unit, behind)) = behind.split_at_checked(length + skip) else { return };
            self.unit(timestamp, &unit[skip..]);
            rest = behind;
        }
    }

    fn unit(&mut self, timestamp: u32, unit: &[u8]) {
        let Some(first) = unit.first() else { return };
        let of = first & 0x1f;
        match of {
            kind::SPS => self.has_sps = true,
            kind::PPS => self.has_pps = true,
            _ => {}
        }
        if !self.begun {
            let sets = matches!(of, kind::SPS | kind::PPS);
            let begins = of == kind::IDR || is_recovery_point(unit);
            if begins && !self.offer_sets() {
                return;
            }
            if !sets && !begins {
                return;
            }
            self.begun = begins;
        }
        if self.timestamp != Some(timestamp) {
            self.timestamp = Some(timestamp);
            self.out.pictures.push((timestamp, self.out.bytes.len()));
        }
        self.emit(unit);
    }

    /// Whether there are parameter sets; those of the offer are put down where the stream had none.
    fn offer_sets(&mut self) -> bool {
        for set in std::mem::take(&mut self.offered) {
            let known = match set[0] & 0x1f {
                kind::SPS => &mut self.has_sps,
                kind::PPS => &mut self.has_pps,
                _ => continue,
            };
            if !std::mem::replace(known, true) || set[0] & 0x1f == kind::PPS {
                self.emit(&set);
            }
        }
        self.has_sps && self.has_pps
    }

    fn emit(&mut self, unit: &[u8]) {
        self.out.bytes.extend_from_slice(&START);
        self.out.bytes.extend_from_slice(unit);
    }
}

/// Whether a unit says that a decoder can begin here (streams without IDR pictures have these).
fn is_recovery_point(unit: &[u8]) -> bool {
    unit.first().is_some_and(|first| first & 0x1f == kind::SEI)
        && unit.get(1) == Some(&RECOVERY_POINT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: &[u8] = &[0x67, 66, 0, 30, 1];
    const PPS: &[u8] = &[0x68, 2];

    fn units(picked: &[u8]) -> Vec<&[u8]> {
        let mut starts: Vec<usize> =
            (0..picked.len()).filter(|at| picked[*at..].starts_with(&START)).collect();
        starts.push(picked.len());
        starts.windows(2).map(|two| &picked[two[0] + 4..two[1]]).collect()
    }

    fn play(video: H264, packets: &[(u64, u32, Vec<u8>)]) -> (Vec<u8>, Vec<u32>) {
        let mut video = video;
        let (mut bytes, mut times) = (Vec::new(), Vec::new());
        let mut take = |picked: Picked| {
            times.extend(picked.pictures.iter().map(|(timestamp, _)| *timestamp));
            bytes.extend(picked.bytes);
        };
        for (index, timestamp, payload) in packets {
            take(video.packet(*index, *timestamp, payload));
        }
        take(video.finish());
        (bytes, times)
    }

    fn fragments(unit: &[u8], size: usize) -> Vec<Vec<u8>> {
        let parts: Vec<&[u8]> = unit[1..].chunks(size).collect();
        let last = parts.len() - 1;
        let head = |place: usize| {
            u8::from(place == 0) << 7 | u8::from(place == last) << 6 | unit[0] & 0x1f
        };
        let part = |(place, part): (usize, &&[u8])| {
            [&[unit[0] & 0xe0 | kind::FU_A, head(place)][..], part].concat()
        };
        parts.iter().enumerate().map(part).collect()
    }

    fn stap(units: &[&[u8]]) -> Vec<u8> {
        let mut payload = vec![kind::STAP_A];
        for unit in units {
            payload.extend((unit.len() as u16).to_be_bytes());
            payload.extend(*unit);
        }
        payload
    }

    #[test]
    fn it_begins_at_the_first_picture_that_can_be_decoded() {
        let idr: Vec<u8> = std::iter::once(0x65).chain(0..200).collect();
        let mut packets = vec![(9, 1, vec![0x41, 1, 2]), (10, 1, vec![0x41, 3])];
        packets.push((11, 2, stap(&[SPS, PPS])));
        for (number, part) in fragments(&idr, 70).into_iter().enumerate() {
            packets.push((12 + number as u64, 2, part));
        }
        packets.push((15, 3, vec![0x41, 4]));
        let (bytes, times) = play(H264::new(None), &packets);
        assert_eq!(units(&bytes), [SPS, PPS, &idr, &[0x41, 4]]);
        assert_eq!(times, [2, 3]);
        // In another order, too.
        packets.swap(3, 5);
        packets.swap(2, 3);
        packets.remove(0);
        assert_eq!(units(&play(H264::new(None), &packets).0), [SPS, PPS, &idr, &[0x41, 4]]);
    }

    #[test]
    fn sets_of_the_offer_stand_before_the_first_picture() {
        let offer = format!(
            "profile-level-id=42e01e; sprop-parameter-sets={},{}; packetization-mode=1",
            STANDARD.encode(SPS),
            STANDARD.encode(PPS)
        );
        let packets = [(1, 1, vec![0x65, 1]), (2, 2, vec![0x41, 2])];
        let (bytes, _) = play(H264::new(Some(&offer)), &packets);
        assert_eq!(units(&bytes), [SPS, PPS, &[0x65, 1], &[0x41, 2]]);
        // Without any there is nothing that could be decoded.
        assert!(play(H264::new(None), &packets).0.is_empty());
    }

    #[test]
    fn of_a_unit_that_lost_a_part_nothing_is_shown() {
        let mut packets = vec![(1, 1, stap(&[SPS, PPS, &[0x65, 9]]))];
        let unit: Vec<u8> = std::iter::once(0x41).chain(0..90).collect();
        for (number, part) in fragments(&unit, 30).into_iter().enumerate() {
            packets.push((2 + number as u64, 2, part));
        }
        packets.push((5, 3, vec![0x41, 4]));
        for lost in 1..4 {
            let left: Vec<_> = packets
                .iter()
                .enumerate()
                .filter(|(at, _)| *at != lost)
                .map(|(_, one)| one.clone())
                .collect();
            assert_eq!(units(&play(H264::new(None), &left).0), [SPS, PPS, &[0x65, 9], &[0x41, 4]]);
        }
    }

    #[test]
    fn a_stream_of_recovery_points_begins_at_one() {
        let recovery = vec![0x06, 6, 1, 0x84, 0x80];
        let packets =
            [(1, 1, vec![0x41, 1]), (2, 2, stap(&[SPS, PPS, &recovery])), (3, 2, vec![0x41, 2])];
        let (bytes, _) = play(H264::new(None), &packets);
        assert_eq!(units(&bytes), [SPS, PPS, &recovery, &[0x41, 2]]);
    }
}
