//! Who may have how much of control's time, before a byte of it is understood (F52).
//!
//! Each source address has a bucket of tokens. One that has an RS here, or a rule in the
//! configuration, has a larger one and a queue of its own, so that a flood of strangers never stands
//! before it. Owned by the sockets' tasks of control, all on one thread; the role tells it who is
//! known.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::base::limits::{SIP_KNOWN_RATE, SIP_REFUSAL_RATE, SIP_SOURCES_MAX, SIP_STRANGER_RATE};
use crate::base::time::Mono;

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// To the queue of those who have an RS.
    Known,
    /// To the queue of all others.
    Stranger,
    /// Over its rate: 503.
    Refuse,
    /// Far over its rate: nothing.
    Drop,
}

/// Longest that all streams of a source rest together: 64·T1, after which SIP gives up anyway.
const DEBT_S: i64 = 32;
/// How often a full table is looked through.
const SWEEP_MS: u64 = 1_000;
/// After so long any bucket is full.
const HOUR_MS: u64 = 3_600_000;

/// Tokens that come back with time.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Tokens, in thousandths. Below zero: what streams have taken beyond their rate.
    level: i64,
    at: Mono,
}

impl Bucket {
    fn full(now: Mono, rate: u32) -> Self {
        Bucket { level: capacity(rate), at: now }
    }

    fn fill(&mut self, now: Mono, rate: u32) {
        // Tokens a second are thousandths a millisecond.
        let passed_ms = now.since(self.at) / 1_000_000;
        if passed_ms > 0 {
            let gained = passed_ms.min(HOUR_MS) as i64 * i64::from(rate);
            self.level = (self.level + gained).min(capacity(rate));
            self.at = Mono(self.at.0 + passed_ms * 1_000_000);
        }
    }

    fn take(&mut self, now: Mono, rate: u32) -> bool {
        self.fill(now, rate);
        let paid = self.level >= 1_000;
        self.level -= if paid { 1_000 } else { 0 };
        paid
    }

    /// Takes that many tokens, there or not. Returns how long it is until they all have been there,
    /// ms.
    fn owe(&mut self, now: Mono, rate: u32, tokens: usize) -> u64 {
        self.fill(now, rate);
        let lowest = -DEBT_S * 1_000 * i64::from(rate);
        self.level = (self.level - tokens as i64 * 1_000).max(lowest);
        (-self.level).max(0).unsigned_abs().div_ceil(u64::from(rate))
    }
}

/// Two seconds' worth may come at once.
fn capacity(rate: u32) -> i64 {
    i64::from(rate) * 2_000
}

/// What is kept of a source.
#[derive(Clone, Copy, Debug)]
struct Source {
    messages: Bucket,
    refusals: Bucket,
    /// Refused, dropped or held back since the last report.
    held: u64,
}

impl Source {
    fn new(now: Mono, rate: u32) -> Self {
        let refusals = Bucket::full(now, SIP_REFUSAL_RATE);
        Source { messages: Bucket::full(now, rate), refusals, held: 0 }
    }
}

/// The buckets of all sources.
#[derive(Debug)]
pub struct Gate {
    sources: HashMap<IpAddr, Source>,
    /// Of all that the table has no room for.
    others: Source,
    known: HashSet<IpAddr>,
    /// Refused, dropped or held back since the start, as far as it was reported.
    held: u64,
    /// When the table was last rid of sources whose bucket is full again.
    swept: Mono,
}

impl Gate {
    /// A gate that knows nobody.
    pub fn new(now: Mono) -> Self {
        let others = Source::new(now, SIP_STRANGER_RATE);
        Gate { sources: HashMap::new(), others, known: HashSet::new(), held: 0, swept: now }
    }

    /// Says who has an RS here, or a rule in the configuration.
    pub fn know(&mut self, known: HashSet<IpAddr>) {
        self.known = known;
    }

    /// Whether that source has a queue of its own.
    pub fn knows(&self, source: IpAddr) -> bool {
        self.known.contains(&source.to_canonical())
    }

    /// Judges a datagram.
    pub fn datagram(&mut self, now: Mono, source: IpAddr) -> Pass {
        let known = self.knows(source);
        let rate = rate(known);
        let source = self.source(now, source, rate);
        if source.messages.take(now, rate) {
            return if known { Pass::Known } else { Pass::Stranger };
        }
        source.held += 1;
        if source.refusals.take(now, SIP_REFUSAL_RATE) { Pass::Refuse } else { Pass::Drop }
    }

    /// Takes the price of bytes that came over a stream. Returns how long its reader rests, ms: the
    /// network then holds the peer back, and nothing is refused.
    pub fn stream(&mut self, now: Mono, source: IpAddr, bytes: &[u8]) -> u64 {
        let rate = rate(self.knows(source));
        let source = self.source(now, source, rate);
        // Its streams share one debt: opening more of them gains nothing.
        let tokens = price(bytes);
        let rest_ms = source.messages.owe(now, rate, tokens);
        source.held += if rest_ms > 0 { tokens as u64 } else { 0 };
        rest_ms
    }

    /// What was held back since the last report, in words; `None`: nothing.
    pub fn report(&mut self) -> Option<String> {
        /// Sources that are named.
        const NAMED: usize = 3;
        let mut held: Vec<(u64, IpAddr)> = self
            .sources
            .iter_mut()
            .map(|(ip, source)| (std::mem::take(&mut source.held), *ip))
            .filter(|(held, _)| *held > 0)
            .collect();
        let others = std::mem::take(&mut self.others.held);
        let total = others + held.iter().map(|(held, _)| held).sum::<u64>();
        if total == 0 {
            return None;
        }
        self.held += total;
        held.sort_unstable_by(|one, other| other.cmp(one));
        let named = held.iter().take(NAMED).map(|(held, ip)| format!("{held} from {ip}"));
        let named = named.chain((others > 0).then(|| format!("{others} from new sources")));
        let named: Vec<String> = named.collect();
        Some(format!("{total} SIP messages over the rate: {}", named.join(", ")))
    }

    /// Messages over their source's rate since the start, as far as they were reported.
    pub fn held(&self) -> u64 {
        self.held
    }

    fn source(&mut self, now: Mono, source: IpAddr, rate: u32) -> &mut Source {
        let key = network(source);
        if !self.sources.contains_key(&key) && self.sources.len() >= SIP_SOURCES_MAX {
            // Whose bucket is full again has nothing to be remembered for. Not for each new source:
            // to look through the table is what forged addresses would want.
            if now >= self.swept.plus_ms(SWEEP_MS) {
                self.swept = now;
                self.sources.retain(|_, own| {
                    own.messages.fill(now, SIP_STRANGER_RATE);
                    own.held > 0 || own.messages.level < capacity(SIP_STRANGER_RATE)
                });
            }
            // Who is known always has a place: those are bounded by our dialogs.
            if self.sources.len() >= SIP_SOURCES_MAX && !self.known.contains(&source.to_canonical())
            {
                return &mut self.others;
            }
        }
        self.sources.entry(key).or_insert_with(|| Source::new(now, rate))
    }
}

fn rate(known: bool) -> u32 {
    if known { SIP_KNOWN_RATE } else { SIP_STRANGER_RATE }
}

/// A host of IPv6 has a whole /64 to send from.
fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        v4 => v4,
    }
}

/// Messages that may end in `bytes`: blank lines, of which keep-alives are made as well.
fn price(bytes: &[u8]) -> usize {
    let ends = memchr::memmem::find_iter(bytes, b"\n\r\n").count();
    (ends + memchr::memmem::find_iter(bytes, b"\n\n").count()).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Mono {
        Mono(ms * 1_000_000)
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn a_stranger_has_a_burst_and_a_rate_then_refusals_then_silence() {
        let mut gate = Gate::new(at(0));
        let (flood, honest) = (ip("203.0.113.9"), ip("198.51.100.1"));
        let mut count = HashMap::new();
        for number in 0..50_000_u64 {
            // 5,000 a second for 10 s.
            let pass = gate.datagram(at(number / 5), flood);
            *count.entry(format!("{pass:?}")).or_insert(0_u64) += 1;
            if number % 500 == 0 {
                assert_eq!(gate.datagram(at(number / 5), honest), Pass::Stranger);
            }
        }
        let rates = [u64::from(SIP_STRANGER_RATE), u64::from(SIP_REFUSAL_RATE)];
        assert!(count["Stranger"].abs_diff(rates[0] * 12) < 10, "{count:?}");
        assert!(count["Refuse"] <= rates[1] * 12 && count["Refuse"] > rates[1] * 10, "{count:?}");
        let said = gate.report().expect("much was held back");
        assert!(said.contains("from 203.0.113.9") && !said.contains("198.51.100.1"), "{said}");
        assert_eq!(gate.report(), None);
    }

    #[test]
    fn who_is_known_has_a_queue_and_a_larger_rate() {
        let mut gate = Gate::new(at(0));
        gate.know([ip("192.0.2.1")].into());
        for number in 0..30_000 {
            // 3,000 a second, also from the address as IPv6 writes it.
            let source = ip(if number % 2 == 0 { "192.0.2.1" } else { "::ffff:192.0.2.1" });
            assert_eq!(gate.datagram(at(number / 3), source), Pass::Known);
        }
        assert!((0..20_000).any(|_| gate.datagram(at(10_000), ip("192.0.2.1")) == Pass::Refuse));
    }

    #[test]
    fn a_million_sources_share_one_bucket_beyond_the_table() {
        let mut gate = Gate::new(at(0));
        let known = ip("192.0.2.1");
        gate.know([known].into());
        let mut passed = 0;
        for number in 0..1_000_000_u32 {
            let source = IpAddr::from(number.to_be_bytes());
            passed += u32::from(gate.datagram(at(0), source) == Pass::Stranger);
            assert!(gate.sources.len() <= SIP_SOURCES_MAX);
        }
        assert_eq!(passed, SIP_SOURCES_MAX as u32 + 2 * SIP_STRANGER_RATE);
        assert_eq!(gate.datagram(at(0), known), Pass::Known);
        // Later the table has room again.
        assert_eq!(gate.datagram(at(5_000), ip("198.51.100.1")), Pass::Stranger);
        assert!(gate.sources.len() < 10, "{}", gate.sources.len());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let mut gate = Gate::new(at(0));
        for number in 0..100_000_u64 {
            let host =
                IpAddr::from([0x2001, 0xdb8, 0, 7, 0, 0, (number >> 16) as u16, number as u16]);
            gate.datagram(at(0), host);
        }
        assert_eq!(gate.sources.len(), 1);
    }

    #[test]
    fn a_stream_rests_as_long_as_its_messages_cost() {
        let mut gate = Gate::new(at(0));
        let source = ip("203.0.113.9");
        let burst = b"x\r\n\r\n".repeat(2 * SIP_STRANGER_RATE as usize);
        assert_eq!(gate.stream(at(0), source, &burst), 0);
        assert_eq!(gate.stream(at(0), source, b"one\r\n\r\ntwo\n\nthree"), 2);
        assert_eq!(gate.stream(at(0), source, b"a byte"), 3, "another stream waits for both");
        assert_eq!(gate.datagram(at(0), source), Pass::Refuse);
        assert_eq!(gate.stream(at(1_000), source, b"a byte"), 0);
        assert_eq!(gate.stream(at(1_000), source, &b"\n\n".repeat(1 << 20)), 32_000);
    }
}
