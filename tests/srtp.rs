//! Our SRTP engine against another implementation: what one protects, the other must unprotect,
//! for every suite, with CSRC lists, header extensions, random sizes and roll-over.

use floortape::base::ids::{Index, Seq, Ssrc};
use floortape::base::prng::Prng;
use floortape::base::secret::MasterKey;
use floortape::base::suite::{Agreed, Suite};
use floortape::proto::srtp::Context;
use floortape::proto::srtp::receiver::{Epoch, candidates};
use floortape::wire::rtcp::Writer;
use floortape::wire::rtp::Fields;
use floortape::wire::seq::{self, Verdict, WINDOW_WORDS};
use webrtc_srtp::context::Context as Oracle;
use webrtc_srtp::protection_profile::ProtectionProfile;

/// The other engine's name of a suite; it knows neither AES-192 nor f8.
fn profile(suite: Suite) -> Option<ProtectionProfile> {
    match suite {
        Suite::AesCm128HmacSha1_80 => Some(ProtectionProfile::Aes128CmHmacSha1_80),
        Suite::AesCm128HmacSha1_32 => Some(ProtectionProfile::Aes128CmHmacSha1_32),
        Suite::Aes256CmHmacSha1_80 => Some(ProtectionProfile::Aes256CmHmacSha1_80),
        Suite::Aes256CmHmacSha1_32 => Some(ProtectionProfile::Aes256CmHmacSha1_32),
        Suite::AeadAes128Gcm => Some(ProtectionProfile::AeadAes128Gcm),
        Suite::AeadAes256Gcm => Some(ProtectionProfile::AeadAes256Gcm),
        Suite::Aes192CmHmacSha1_80 | Suite::Aes192CmHmacSha1_32 | Suite::F8_128HmacSha1_80 => None,
    }
}

/// Both engines under one random key. The other one has a context for each direction.
struct Pair {
    ours: Context,
    writer: Oracle,
    reader: Oracle,
}

impl Pair {
    /// `None` where the other engine does not know the suite.
    fn new(suite: Suite, prng: &mut Prng) -> Option<Self> {
        let profile = profile(suite)?;
        let bytes = random_key(suite, prng);
        let ours = context(suite, &bytes);
        let (key, salt) = bytes.split_at(suite.key_bytes());
        let oracle = || Oracle::new(key, salt, profile, None, None).expect("its length");
        Some(Pair { ours, writer: oracle(), reader: oracle() })
    }
}

fn random_key(suite: Suite, prng: &mut Prng) -> Vec<u8> {
    let mut bytes = vec![0; suite.master_bytes()];
    prng.fill(&mut bytes);
    bytes
}

fn context(agreed: impl Into<Agreed>, bytes: &[u8]) -> Context {
    let master = MasterKey::new(bytes).expect("a suite's length");
    Context::new(agreed, &master).expect("the suite's length")
}

/// Every suite, and every suite whose SRTP need not be encrypted so: none of this depends on the other
/// engine.
fn all_agreed() -> impl Iterator<Item = Agreed> {
    let in_clear = |suite: Suite| Agreed::from(suite).in_clear(true, true);
    Suite::ALL.into_iter().map(Agreed::from).chain(Suite::ALL.into_iter().filter_map(in_clear))
}

/// An RTP packet with up to 15 CSRCs, perhaps an extension of a private profile, and up to 1,400
/// octets of payload.
fn packet(prng: &mut Prng, seq: Seq, ssrc: Ssrc) -> Vec<u8> {
    let csrcs = if prng.below(3) == 0 { prng.below(16) } else { 0 };
    let fields = Fields {
        marker: prng.below(2) == 0,
        payload_type: prng.below(128) as u8,
        seq,
        timestamp: prng.next_u64() as u32,
        ssrc,
    };
    let mut packet = fields.emit().to_vec();
    packet[0] |= csrcs as u8;
    for _ in 0..csrcs {
        packet.extend((prng.next_u64() as u32).to_be_bytes());
    }
    if prng.below(3) == 0 {
        packet[0] |= 0x10;
        let words = prng.below(5);
        packet.extend([0x12, 0x34, 0, words as u8]);
        packet.extend((0..words * 4).map(|_| prng.next_u64() as u8));
    }
    let largest = if prng.below(4) == 0 { 1_400 } else { 200 };
    let payload = 1 + prng.below(largest);
    packet.extend((0..payload).map(|_| prng.next_u64() as u8));
    packet
}

#[test]
fn both_engines_read_each_others_srtp_over_three_roll_overs() {
    let mut prng = Prng::new(0x5eed_0101);
    let mut suites = 0;
    for suite in Suite::ALL {
        let Some(mut pair) = Pair::new(suite, &mut prng) else { continue };
        suites += 1;
        let mut out = vec![0; 2_000];
        let (mut index, mut count) = (65_000_u64, 0);
        while index < 3 * 65_536 + 500 {
            let at = Index(index);
            let clear = packet(&mut prng, at.seq(), Ssrc(7));
            let wire = pair.writer.encrypt_rtp(&clear).expect("the oracle protects");
            let length = pair.ours.unprotect_rtp(&wire, at, &mut out).expect("its tag is good");
            assert_eq!(out[..length], clear, "{suite:?}, index {index}");
            let length = pair.ours.protect_rtp(&clear, at, &mut out).expect("room");
            let back = pair.reader.decrypt_rtp(&out[..length]).expect("our tag is good");
            assert_eq!(back[..], clear, "{suite:?}, index {index}");
            // Steps below half a cycle, so that both agree on the counter.
            index += 1 + if prng.below(10) == 0 { prng.below(3_000) } else { prng.below(40) };
            count += 1;
        }
        assert!(count > 500, "{suite:?}: {count} packets");
    }
    assert_eq!(suites, 6);
}

#[test]
fn both_engines_read_each_others_srtcp() {
    let mut prng = Prng::new(0x5eed_0102);
    for suite in Suite::ALL {
        let Some(mut pair) = Pair::new(suite, &mut prng) else { continue };
        let (mut clear, mut out) = ([0; 1_500], [0; 1_600]);
        for index in 1..=1_000 {
            let mut writer = Writer::new(&mut clear);
            let blocks = vec![Default::default(); prng.below(32) as usize];
            writer.receiver_report(Ssrc(9), &blocks).expect("room");
            if prng.below(4) != 0 {
                writer.cname(Ssrc(9), &"c".repeat(prng.below(256) as usize)).expect("room");
            }
            let length = writer.length();
            let clear = &clear[..length];
            // The oracle counts from 1.
            let wire = pair.writer.encrypt_rtcp(clear).expect("the oracle protects");
            let (length, found) = pair.ours.unprotect_rtcp(&wire, &mut out).expect("a good tag");
            assert_eq!((&out[..length], found), (clear, index), "{suite:?}");
            let length = pair.ours.protect_rtcp(clear, index, &mut out).expect("room");
            assert_eq!(pair.reader.decrypt_rtcp(&out[..length]).expect("a good tag"), clear);
        }
    }
}

/// A receiver as the worker runs it: guesses, tag, window.
fn receive(context: &Context, words: &mut [u64; WINDOW_WORDS], wire: &[u8]) -> Option<Index> {
    let seq = Seq(u16::from_be_bytes([wire[2], wire[3]]));
    let mut out = [0; 2_000];
    let found = candidates(seq::highest(words), seq, Epoch::Running)
        .into_iter()
        .filter(|index| seq::check(words, *index) == Verdict::New)
        .find(|index| context.unprotect_rtp(wire, *index, &mut out).is_ok())?;
    seq::accept(words, found);
    Some(found)
}

#[test]
fn loss_reorder_and_repetition_across_the_roll_over_are_all_told_apart() {
    let mut prng = Prng::new(0x5eed_0103);
    for suite in all_agreed() {
        let ours = context(suite, &random_key(suite.suite(), &mut prng));
        let mut words = [0; WINDOW_WORDS];
        let mut wires = Vec::new();
        for index in 65_000..66_500 {
            let clear = packet(&mut prng, Index(index).seq(), Ssrc(7));
            let mut wire = vec![0; 2_000];
            let length = ours.protect_rtp(&clear, Index(index), &mut wire).expect("room");
            wire.truncate(length);
            // A twentieth is lost; the order is shaken by up to thirty places.
            if prng.below(20) != 0 {
                wires.push((index + prng.below(30), index, wire));
            }
        }
        wires.sort_by_key(|(place, ..)| *place);
        for (_, index, wire) in &wires {
            assert_eq!(receive(&ours, &mut words, wire), Some(Index(*index)), "{suite:?}");
        }
        for (_, index, wire) in &wires {
            assert_eq!(receive(&ours, &mut words, wire), None, "{suite:?}, repeated {index}");
        }
    }
}

#[test]
fn a_source_that_wrapped_before_its_first_packet_came_is_received() {
    let mut prng = Prng::new(0x5eed_0104);
    for suite in all_agreed() {
        let ours = context(suite, &random_key(suite.suite(), &mut prng));
        let mut words = [0; WINDOW_WORDS];
        let mut wire = [0; 2_000];
        // 65,530 to 65,535 are lost; the first packet seen has index 65,536.
        for index in [65_536, 65_537, 65_535] {
            let clear = packet(&mut prng, Index(index).seq(), Ssrc(7));
            let length = ours.protect_rtp(&clear, Index(index), &mut wire).expect("room");
            let found = receive(&ours, &mut words, &wire[..length]);
            assert_eq!(found, Some(Index(index)), "{suite:?}");
        }
    }
}
