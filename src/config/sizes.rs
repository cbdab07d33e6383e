//! What a configuration asks of the machine, derived in one place so that `check`, keeper and media
//! agree.

use crate::base::ids::WorkerId;
use crate::base::limits::SHARED_SOCKETS_MAX;
use crate::config::cores;
use crate::config::model::{Config, PortRange};

/// Ring bytes of one stream-second: G.711 at 50 packets/s is 172 B of RTP, 32 B of record header
/// and padding each, plus RTCP and events: 10.4 KB/s (design: ring).
pub const STREAM_BYTES_PER_S: u64 = 10_400;
/// The ring is mapped and populated in pieces of this size (one huge page).
pub const RING_STEP_BYTES: u64 = 2 << 20;
/// Smallest ring: room for a burst of a few streams while the disk sleeps.
pub const RING_BYTES_MIN: u64 = 16 << 20;
/// Descriptors besides the sockets of the slots: standard streams, links, memfds, log and segment
/// files, journal, catalogue, connections of control.
pub const DESCRIPTORS_BESIDES: u64 = 512;

impl Config {
    /// Media workers: `cpu.workers`, or one per core of `cpu.rx`, at least one.
    pub fn worker_count(&self) -> u16 {
        match self.cpu.workers {
            0 => cores::parse(&self.cpu.rx).map_or(1, |cores| cores.len().max(1) as u16),
            workers => workers,
        }
    }

    /// Ring of one worker, bytes: its share of `streams_max` × `ring_seconds`, a multiple of 2 MiB.
    pub fn ring_bytes(&self) -> u64 {
        let all = u64::from(self.media.streams_max)
            .saturating_mul(u64::from(self.store.ring_seconds))
            .saturating_mul(STREAM_BYTES_PER_S);
        all.div_ceil(u64::from(self.worker_count()))
            .max(RING_BYTES_MIN)
            .next_multiple_of(RING_STEP_BYTES)
    }

    /// Largest segment in force, bytes: two must fit into the ring, so that one can be sealed from
    /// it while the next is written.
    pub fn segment_bytes(&self) -> u64 {
        (u64::from(self.store.segment_mib) << 20).min(self.ring_bytes() / 2)
    }

    /// Port pairs that keeper tries to reserve on each address: a quarter more than streams, because a
    /// port rests after its use (F58), and never more than its share of the range holds. Any address may
    /// be the one that all streams come to.
    pub fn slots_each(&self) -> u32 {
        let wanted = self.media.streams_max.saturating_add(self.media.streams_max.div_ceil(4));
        wanted.min(self.pairs_each())
    }

    /// Port pairs of all addresses.
    pub fn slot_count(&self) -> u32 {
        self.slots_each().saturating_mul(self.address_count())
    }

    /// Addresses that media is received on.
    pub fn address_count(&self) -> u32 {
        self.media.address.0.len().max(1) as u32
    }

    /// Pairs of `media.ports` that each address has. No port is used on two addresses: the port alone
    /// names the stream in what a dead worker leaves in its receive buffers.
    pub fn pairs_each(&self) -> u32 {
        self.port_pairs() / self.address_count()
    }

    /// The ports of address number `place`: the range in equal parts, in the order of the addresses.
    pub fn ports_of(&self, place: usize) -> PortRange {
        let share = 2 * self.pairs_each();
        let first = u32::from(self.media.ports.first).next_multiple_of(2) + share * place as u32;
        let port = |port: u32| port.min(u16::MAX.into()) as u16;
        PortRange { first: port(first), last: port((first + share).saturating_sub(1)) }
    }

    /// Even/odd port pairs in `media.ports` (RFC 3550 §11: RTP takes the even one).
    pub fn port_pairs(&self) -> u32 {
        let first = u32::from(self.media.ports.first).next_multiple_of(2);
        (u32::from(self.media.ports.last) + 1).saturating_sub(first) / 2
    }

    /// Slots of `worker`: slot n belongs to worker n mod workers.
    pub fn worker_slots(&self, worker: WorkerId, slot_count: u32) -> u32 {
        let workers = u32::from(self.worker_count());
        (slot_count + workers - 1 - u32::from(worker.0).min(workers - 1)) / workers
    }

    /// Descriptors that keeper and media each hold.
    pub fn descriptors(&self) -> u64 {
        let each = 8 + SHARED_SOCKETS_MAX as u64;
        2 * u64::from(self.slot_count())
            + each * u64::from(self.worker_count())
            + DESCRIPTORS_BESIDES
    }

    /// Where the journal lies.
    pub fn journal_dir(&self) -> std::path::PathBuf {
        self.store.journal_dir.clone().unwrap_or_else(|| self.store.dir.join("journal"))
    }

    /// What `streams` are expected to write, bytes/s, if `measured` is not more: G.711 each, also
    /// those that are silent now, and the two of one more call.
    pub fn load_bytes_per_s(&self, streams: u64, measured: u64) -> u64 {
        ((streams + 2) * STREAM_BYTES_PER_S).max(measured)
    }

    /// Bytes on disk that `reserve_minutes` at `bytes_per_s` need: the segments are 1.06 of what
    /// the ring held, and each worker needs a log file and a segment before the log's are used
    /// again. 0: no reserve is wanted.
    pub fn room_bytes(&self, bytes_per_s: u64) -> u64 {
        if self.store.reserve_minutes == 0 {
            return 0;
        }
        let sealed = bytes_per_s.saturating_mul(u64::from(self.store.reserve_minutes) * 60);
        let files = 2 * self.segment_bytes() * u64::from(self.worker_count());
        sealed.saturating_add(sealed / 16).saturating_add(files)
    }

    /// Minutes that `free` bytes last at `bytes_per_s`.
    pub fn minutes_left(free: u64, bytes_per_s: u64) -> u64 {
        free / (bytes_per_s + bytes_per_s / 16).max(1) / 60
    }

    /// Bytes that `reserve_minutes` of the configured load need on disk: once as log, once sealed.
    pub fn reserve_bytes(&self) -> u64 {
        2 * u64::from(self.media.streams_max)
            * u64::from(self.store.reserve_minutes)
            * 60
            * STREAM_BYTES_PER_S
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::address::Listed;

    #[test]
    fn ring_follows_the_formula_in_steps_of_two_mib() {
        let mut config = Config::default();
        config.media.streams_max = 2_000;
        assert_eq!(config.ring_bytes(), 1_249_902_592);
        assert_eq!(config.segment_bytes(), 256 << 20);
        config.media.streams_max = 1;
        assert_eq!(config.ring_bytes(), RING_BYTES_MIN);
        assert_eq!(config.segment_bytes(), RING_BYTES_MIN / 2);
    }

    #[test]
    fn f11_the_reserve_follows_the_present_load() {
        let mut config = Config::default();
        let idle = config.room_bytes(config.load_bytes_per_s(0, 0));
        let busy = config.room_bytes(config.load_bytes_per_s(64, 0));
        let wide = config.room_bytes(config.load_bytes_per_s(64, 5_000_000));
        assert!(idle < 60 << 20 && busy > 400 << 20 && wide > 3_000 << 20, "{idle} {busy} {wide}");
        assert_eq!(Config::minutes_left(1_062_500 * 60, 1_000_000), 1);
        config.store.reserve_minutes = 0;
        assert_eq!(config.room_bytes(u64::MAX), 0);
    }

    #[test]
    fn every_slot_belongs_to_one_worker() {
        let mut config = Config::default();
        for workers in 1..6 {
            config.cpu.workers = workers;
            for slots in 0..20 {
                let sum: u32 = (0..workers).map(|w| config.worker_slots(WorkerId(w), slots)).sum();
                assert_eq!(sum, slots);
            }
        }
    }

    #[test]
    fn pairs_begin_at_even_ports_and_bound_the_slots() {
        let mut config = Config::default();
        config.media.ports = PortRange { first: 20_001, last: 20_007 };
        assert_eq!(config.port_pairs(), 3);
        assert_eq!(config.slot_count(), 3);
        config.media.ports = PortRange { first: 65_534, last: 65_535 };
        assert_eq!(config.port_pairs(), 1);
    }

    #[test]
    fn addresses_share_the_range_and_each_has_pairs_for_all_streams() {
        let mut config = Config::default();
        let ip = |text: &str| text.parse().expect("an address");
        config.media.address = Listed(vec![ip("192.0.2.1"), ip("192.0.2.2"), ip("2001:db8::1")]);
        config.media.ports = PortRange { first: 20_001, last: 20_100 };
        config.media.streams_max = 10;
        assert_eq!((config.port_pairs(), config.pairs_each()), (49, 16));
        assert_eq!((config.slots_each(), config.slot_count()), (13, 39));
        assert_eq!(config.descriptors(), 2 * 39 + 8 + 64 + DESCRIPTORS_BESIDES);
        let all: Vec<(u16, u16)> =
            (0..3).map(|n| config.ports_of(n)).map(|own| (own.first, own.last)).collect();
        assert_eq!(all, [(20_002, 20_033), (20_034, 20_065), (20_066, 20_097)]);
        config.media.ports = PortRange { first: 2, last: 65_535 };
        assert_eq!(config.ports_of(2).last, 65_533);
    }
}
