//! One stream of the SRC: RTP packets (RFC 3550 §5.1) and sender reports, protected or plain.

use bytes::Bytes;

use super::g711::Law;
use super::media::{Media, PAYLOAD_BYTES};
use super::protect::{ProtectError, Protector};
use super::reports::{SenderReport, compound};
use crate::base::ids::{Seq, Ssrc};
use crate::base::prng::Prng;
use crate::base::time::{Mono, Wall};

/// Packets that are counted as sent and then not sent: injected loss, `START:COUNT`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drops {
    /// First packet left out, 0 is the first of the stream.
    pub first: u64,
    /// How many.
    pub count: u64,
}

impl Drops {
    /// Whether packet `number` is left out.
    pub const fn contains(self, number: u64) -> bool {
        number >= self.first && number - self.first < self.count
    }
}

impl std::str::FromStr for Drops {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let fault = || format!("expected START:COUNT such as 100:25, found {text}");
        let (first, count) = text.split_once(':').ok_or_else(fault)?;
        let first = first.parse().map_err(|_| fault())?;
        let count = count.parse().map_err(|_| fault())?;
        Ok(Drops { first, count })
    }
}

/// Where a stream starts; random by seed, as RFC 3550 §5.1 wants for SSRC, sequence number and
/// timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// SSRC.
    pub ssrc: Ssrc,
    /// Sequence number of packet 0.
    pub seq: Seq,
    /// Timestamp of packet 0.
    pub media: u32,
}

impl Origin {
    /// The origin of stream `stream` of a load with this seed. RFC 3711 §3.3.1 leaves the receiver
    /// to guess the roll-over counter: a start below 2^15 spares it a wrap before it has locked.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut prng = Prng::new(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Origin {
            ssrc: Ssrc(prng.next_u64() as u32),
            seq: Seq(prng.below(1 << 15) as u16),
            media: prng.next_u64() as u32,
        }
    }
}

/// One stream being sent.
pub struct Sender {
    origin: Origin,
    law: Law,
    media: Media,
    drops: Drops,
    protector: Option<Protector>,
    cname: String,
    packets: u64,
    left_out: u64,
    /// Periods without a packet: the SRS wants none.
    rested: u64,
    /// The next packet begins a talk spurt.
    begins: bool,
    first: Option<Mono>,
}

/// Octets of an RTP header without CSRC list and extension.
const HEADER_BYTES: usize = 12;

impl Sender {
    /// A stream that has not sent yet.
    pub fn new(origin: Origin, law: Law, media: Media, cname: String) -> Self {
        Sender {
            origin,
            law,
            media,
            drops: Drops::default(),
            protector: None,
            cname,
            packets: 0,
            left_out: 0,
            rested: 0,
            begins: true,
            first: None,
        }
    }

    /// Leaves these packets out.
    #[must_use]
    pub fn dropping(mut self, drops: Drops) -> Self {
        self.drops = drops;
        self
    }

    /// Protects from here on, with the keys of offer and answer.
    pub fn protect(&mut self, protector: Protector) {
        self.protector = Some(protector);
    }

    /// Where it started.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Packets sent, those left out included: what its SR says.
    pub fn packets(&self) -> u64 {
        self.packets
    }

    /// Packets left out on purpose so far.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Periods that have passed, with a packet or without.
    pub fn periods(&self) -> u64 {
        self.packets + self.rested
    }

    /// Lets a period pass without a packet: time goes on, sequence numbers do not.
    pub fn rest(&mut self) {
        self.rested += 1;
        self.begins = true;
    }

    /// Whether the media source has ended.
    pub fn is_done(&self) -> bool {
        self.media.packets().is_some_and(|packets| self.packets >= packets)
    }

    /// The next packet as it goes on the wire; `None`: counted as sent and left out.
    pub fn packet(&mut self, now: Mono) -> Result<Option<Bytes>, ProtectError> {
        let number = self.packets;
        self.first.get_or_insert(now);
        let mut packet = [0_u8; HEADER_BYTES + PAYLOAD_BYTES];
        packet[0] = 0x80;
        // RFC 3551 §4.1: the marker begins a talk spurt.
        packet[1] =
            self.law.payload_type() | if std::mem::take(&mut self.begins) { 0x80 } else { 0 };
        let seq = self.origin.seq.0.wrapping_add(number as u16);
        packet[2..4].copy_from_slice(&seq.to_be_bytes());
        packet[4..8].copy_from_slice(&self.media_at(number + self.rested).to_be_bytes());
        packet[8..12].copy_from_slice(&self.origin.ssrc.0.to_be_bytes());
        let payload = packet.last_chunk_mut().expect("the packet ends with its payload");
        self.media.fill(number, payload);
        self.packets += 1;
        // Sealed also where it is left out: the engine follows the sequence number by itself.
        let wire = match &mut self.protector {
            Some(protector) => protector.seal_rtp(&packet)?,
            None => Bytes::copy_from_slice(&packet),
        };
        if self.drops.contains(number) {
            self.left_out += 1;
            return Ok(None);
        }
        Ok(Some(wire))
    }

    /// A sender report as it goes on the wire, with BYE where `bye`; `None` before the first packet
    /// (RFC 3550 §6.4: who has not sent has no sender report).
    pub fn report(
        &mut self,
        now: Mono,
        wall: Wall,
        bye: bool,
    ) -> Result<Option<Bytes>, ProtectError> {
        let Some(first) = self.first else { return Ok(None) };
        // RTP time of this instant, not of the last packet (RFC 3550 §6.4.1).
        let elapsed = now.since(first) / 125_000;
        let report = SenderReport {
            ssrc: self.origin.ssrc,
            wall,
            media: self.origin.media.wrapping_add(elapsed as u32),
            packets: self.packets as u32,
            octets: (self.packets * PAYLOAD_BYTES as u64) as u32,
        };
        let packet = compound(&report, &self.cname, bye);
        match &mut self.protector {
            Some(protector) => protector.seal_rtcp(&packet).map(Some),
            None => Ok(Some(Bytes::from(packet))),
        }
    }

    /// The compound packet inside what came back on the RTCP port, if it is genuine.
    pub fn open_report(&mut self, datagram: &[u8], peer: Option<u32>) -> Option<Bytes> {
        match &mut self.protector {
            Some(protector) => protector.open_rtcp(datagram, peer),
            None => Some(Bytes::copy_from_slice(datagram)),
        }
    }

    fn media_at(&self, period: u64) -> u32 {
        self.origin.media.wrapping_add((period as u32).wrapping_mul(PAYLOAD_BYTES as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secret::MasterKey;
    use crate::base::suite::Suite;

    fn sender() -> Sender {
        let origin = Origin { ssrc: Ssrc(1), seq: Seq(65_535), media: u32::MAX };
        Sender::new(origin, Law::Mu, Media::Numbered { seed: 1 }, "c".to_owned())
    }

    #[test]
    fn sequence_and_timestamp_go_on_over_their_wrap() {
        let mut sender = sender();
        let one = sender.packet(Mono(0)).expect("plain").expect("not dropped");
        let two = sender.packet(Mono(1)).expect("plain").expect("not dropped");
        assert_eq!((one[1], two[1]), (0x80, 0));
        assert_eq!((&one[2..4], &two[2..4]), (&[255, 255][..], &[0, 0][..]));
        assert_eq!(two[4..8], 159_u32.to_be_bytes());
    }

    #[test]
    fn dropped_packets_count_as_sent_in_the_sender_report() {
        let mut sender = sender().dropping(Drops { first: 1, count: 2 });
        let sent: Vec<bool> =
            (0..5).map(|_| sender.packet(Mono(0)).expect("plain").is_some()).collect();
        assert_eq!(sent, [true, false, false, true, true]);
        assert_eq!((sender.packets(), sender.left_out()), (5, 2));
        let report = sender.report(Mono(0), Wall(0), false).expect("plain").expect("has sent");
        assert_eq!(report[20..24], 5_u32.to_be_bytes());
        assert_eq!(report[24..28], 800_u32.to_be_bytes());
    }

    #[test]
    fn a_protected_stream_keeps_its_index_over_a_dropped_burst_and_the_wrap() {
        // The receiving engine here is the sending one's twin: what matters is that the packets
        // after the burst open, which they do only under the right roll-over counter.
        let suite = Suite::AesCm128HmacSha1_80;
        let key = MasterKey::new(&[7; 30]).expect("30 octets");
        let mut sender = sender().dropping(Drops { first: 1, count: 40 });
        sender.protect(Protector::new(suite, &key, None).expect("right length"));
        let mut receiver = webrtc_srtp::context::Context::new(
            &key.expose()[..16],
            &key.expose()[16..],
            webrtc_srtp::protection_profile::ProtectionProfile::Aes128CmHmacSha1_80,
            None,
            None,
        )
        .expect("right length");
        let mut opened = 0;
        for _ in 0..100 {
            if let Some(packet) = sender.packet(Mono(0)).expect("sealed") {
                receiver.decrypt_rtp(&packet).expect("same key and index");
                opened += 1;
            }
        }
        assert_eq!(opened, 60);
    }

    #[test]
    fn a_rest_costs_time_and_no_sequence_number() {
        let mut sender = sender();
        let mut packet = || sender.packet(Mono(0)).expect("plain").expect("sent");
        let before = packet();
        assert_eq!(packet()[1] & 0x80, 0);
        (0..3).for_each(|_| sender.rest());
        let after = sender.packet(Mono(0)).expect("plain").expect("sent");
        let word = |packet: &[u8], at: usize| {
            u32::from_be_bytes(packet[at..at + 4].try_into().expect("4"))
        };
        assert_eq!(word(&after, 0) as u16, (word(&before, 0) as u16).wrapping_add(2));
        assert_eq!(word(&after, 4), word(&before, 4).wrapping_add(5 * 160));
        assert_eq!(after[1] & 0x80, 0x80, "a talk spurt begins");
        assert_eq!((sender.packets(), sender.periods()), (3, 6));
    }

    #[test]
    fn no_report_before_the_first_packet() {
        assert_eq!(sender().report(Mono(0), Wall(0), true), Ok(None));
    }

    #[test]
    fn drops_read_start_and_count() {
        assert_eq!("100:25".parse(), Ok(Drops { first: 100, count: 25 }));
        assert!("100".parse::<Drops>().is_err());
        assert!(Drops { first: u64::MAX, count: 1 }.contains(u64::MAX));
    }
}
