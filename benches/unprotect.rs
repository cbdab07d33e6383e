//! Nanoseconds to authenticate and decrypt one SRTP packet of 160 octets of payload (G.711, 20 ms),
//! ours against webrtc-srtp, interleaved in rounds so that both meet the same machine.
//!
//! Measured from the call to its return, one thread, packets of 64 sources in turn, tables and keys
//! warm. Ours decrypts into a fixed buffer; the other one returns a new one. Prints the median round
//! and the spread of all rounds.
//!
//! `cargo bench --bench unprotect`

use std::hint::black_box;
use std::time::{Duration, Instant};

use floortape::base::ids::{Index, Seq, Ssrc};
use floortape::base::prng::Prng;
use floortape::base::secret::MasterKey;
use floortape::base::suite::{Agreed, Suite};
use floortape::proto::srtp::Context;
use floortape::wire::rtp::Fields;
use webrtc_srtp::context::Context as Oracle;
use webrtc_srtp::protection_profile::ProtectionProfile;

const ROUNDS: usize = 31;
const PACKETS: u16 = 4_096;
const PAYLOAD_BYTES: usize = 160;
const SOURCES: u32 = 64;

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

/// What one suite is measured with: both engines under one key, and packets for them.
struct Subject {
    ours: Context,
    /// `None`: it does not know the suite.
    theirs: Option<Oracle>,
    wires: Vec<Vec<u8>>,
}

impl Subject {
    fn new(suite: Suite, agreed: Agreed) -> Self {
        let mut master = vec![0; suite.master_bytes()];
        Prng::new(0x5eed_0301).fill(&mut master);
        let key = MasterKey::new(&master).expect("the suite's length");
        let ours = Context::new(agreed, &key).expect("the suite's length");
        let (key, salt) = master.split_at(suite.key_bytes());
        let theirs = profile(suite)
            .filter(|_| !agreed.rtp_in_clear())
            .map(|profile| Oracle::new(key, salt, profile, None, None).expect("its length"));
        let wires = (0..PACKETS)
            .map(|number| {
                let (payload_type, seq, marker) = (8, Seq(number), false);
                let ssrc = Ssrc(u32::from(number) % SOURCES);
                let timestamp = u32::from(number) * 160;
                let fields = Fields { marker, payload_type, seq, timestamp, ssrc };
                let mut clear = fields.emit().to_vec();
                clear.resize(clear.len() + PAYLOAD_BYTES, 0xd5);
                let mut wire = vec![0; 300];
                let length =
                    ours.protect_rtp(&clear, Index(number.into()), &mut wire).expect("room");
                wire.truncate(length);
                wire
            })
            .collect();
        Subject { ours, theirs, wires }
    }

    fn ours(&self) -> Duration {
        let mut out = [0; 2_048];
        let begin = Instant::now();
        for (number, wire) in self.wires.iter().enumerate() {
            let index = Index(number as u64);
            let length = self.ours.unprotect_rtp(black_box(wire), index, &mut out);
            assert_eq!(black_box(length), Ok(12 + PAYLOAD_BYTES));
        }
        begin.elapsed()
    }

    fn theirs(&mut self) -> Option<Duration> {
        let theirs = self.theirs.as_mut()?;
        let begin = Instant::now();
        for wire in &self.wires {
            let clear = theirs.decrypt_rtp(black_box(wire)).expect("its tag is good");
            assert_eq!(black_box(clear).len(), 12 + PAYLOAD_BYTES);
        }
        Some(begin.elapsed())
    }
}

/// Minimum, quartiles and maximum of the rounds, ns per packet.
fn spread(mut rounds: Vec<Duration>) -> String {
    rounds.sort();
    let at = |place: usize| rounds[place].as_nanos() as f64 / f64::from(PACKETS);
    let (low, high) = (at(ROUNDS / 4), at(ROUNDS * 3 / 4));
    let (min, median, max) = (at(0), at(ROUNDS / 2), at(ROUNDS - 1));
    format!("{median:6.0}   {min:.0} [{low:.0} {high:.0}] {max:.0}")
}

fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = |name| text.lines().find(|line| line.starts_with(name));
    let model = line("model name").and_then(|line| line.split(": ").nth(1)).unwrap_or("unknown");
    let flags = line("flags").unwrap_or_default();
    let has = |name: &str| flags.split(' ').any(|flag| flag == name);
    format!("{model}; aes {}, sha_ni {}, vaes {}", has("aes"), has("sha_ni"), has("vaes"))
}

fn main() {
    println!("{}", machine());
    println!(
        "{ROUNDS} rounds of {PACKETS} packets, {PAYLOAD_BYTES} octets of payload; ns a packet"
    );
    println!("{:24} {:8} median   min [quartiles] max", "suite", "engine");
    let null = Agreed::from(Suite::AesCm128HmacSha1_80).in_clear(true, false);
    for agreed in Suite::ALL.map(Agreed::from).into_iter().chain(null) {
        let mut subject = Subject::new(agreed.suite(), agreed);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(subject.ours());
            theirs.extend(subject.theirs());
        }
        let name = if agreed.rtp_in_clear() { "UNENCRYPTED_SRTP" } else { agreed.name() };
        println!("{name:24} {:8} {}", "ours", spread(ours));
        if !theirs.is_empty() {
            println!("{name:24} {:8} {}", "webrtc", spread(theirs));
        }
    }
}
