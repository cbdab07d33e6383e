//! The turn: which slots opened, closed, or are due.

use std::net::SocketAddr;

use super::member::{Datagram, Member};
use crate::base::ids::Slot;
use crate::base::ports::Region;
use crate::base::prng::Prng;
use crate::base::time::Mono;
use crate::plane::handoff::layout::Geometry;
use crate::plane::handoff::slot::{OPEN, SlotView};

/// Datagrams of one turn. 4,000 streams / 5 s × 50 ms between turns = 40; the rest is for many
/// closing at once. What does not fit waits for the next turn.
pub const TURN_REPORTS_MAX: usize = 256;

/// The shared state of one worker; its place in the caller's list is its number.
pub struct WorkerState<'a, R> {
    /// State region.
    pub state: &'a R,
    /// Its sizes.
    pub geometry: &'a Geometry,
}

impl<'a, R: Region> WorkerState<'a, R> {
    pub(super) fn slot(&self, number: u32) -> SlotView<'a, R> {
        SlotView::new(self.state, self.geometry, number)
    }
}

/// One RTCP or SRTCP datagram to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The slot whose socket sends it.
    pub slot: Slot,
    /// Whether from its RTP port (RTCP multiplexed); else from its RTCP port.
    pub mux: bool,
    /// Where it goes.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: Vec<u8>,
}

/// Reports on all open slots.
pub struct Reporter {
    prng: Prng,
    members: Vec<Option<Member>>,
    /// Slot with which the next turn begins, so that a full turn starves nobody.
    cursor: usize,
}

impl Reporter {
    /// A reporter for slots 0 to `slot_count` - 1. `seed`: unpredictable and new at each media
    /// start; SSRCs and delays come from it.
    pub fn new(seed: u64, slot_count: u32) -> Self {
        let members = (0..slot_count).map(|_| None).collect();
        Reporter { prng: Prng::new(seed), members, cursor: 0 }
    }

    /// Looks at every slot once and returns what is to be sent now, at most [`TURN_REPORTS_MAX`].
    /// Call it some twenty times a second; a look costs a word per slot.
    ///
    /// `workers`: all workers by number; slot n is number n div workers of worker n mod workers.
    pub fn turn<R: Region>(&mut self, now: Mono, workers: &[WorkerState<'_, R>]) -> Vec<Transmit> {
        let mut out = Vec::new();
        let slot_count = self.members.len();
        for step in 0..slot_count {
            let place = (self.cursor + step) % slot_count;
            if out.len() == TURN_REPORTS_MAX {
                self.cursor = place;
                break;
            }
            let slot = Slot(place as u32);
            let worker = &workers[place % workers.len()];
            let number = (place / workers.len()) as u32;
            if let Some(Datagram { mux, to, bytes }) = self.visit(now, place, worker, number) {
                out.push(Transmit { slot, mux, to, bytes });
            }
        }
        out
    }

    /// One slot: at most one datagram. A slot that closed and opened again first gets its BYE, the
    /// new use begins with the next turn.
    fn visit<R: Region>(
        &mut self,
        now: Mono,
        place: usize,
        worker: &WorkerState<'_, R>,
        number: u32,
    ) -> Option<Datagram> {
        let slot = worker.slot(number);
        let (open, generation) = (slot.has(OPEN), slot.generation());
        let member = &mut self.members[place];
        match member {
            Some(present) if !open || present.generation != generation => {
                let datagram = present.bye(slot);
                *member = None;
                datagram
            }
            Some(present) => {
                present.refresh(slot);
                if now < present.due {
                    return None;
                }
                present.report(now, worker, number, &mut self.prng)
            }
            None => {
                if open {
                    let mut joined = Member::join(generation, now, &mut self.prng);
                    joined.refresh(slot);
                    *member = Some(joined);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::base::ids::{Index, Ssrc};
    use crate::base::keyring::Keyring;
    use crate::base::secret::MasterKey;
    use crate::base::suite::{Agreed, Suite};
    use crate::base::time::{ClockMap, Wall};
    use crate::plane::handoff::slot::{AREA, CONTROL, Keys, LOCAL_INDEX, MUX};
    use crate::plane::handoff::source::{Account, LastSr, SourceView};
    use crate::proto::srtp::{Context, Fail};
    use crate::wire::rtcp::{Chunk, Compound, Packet, ReportBlock};
    use crate::wire::seq;

    /// A state region on the heap.
    struct Memory(RefCell<Vec<u8>>);

    impl Region for Memory {
        fn bytes(&self) -> usize {
            self.0.borrow().len()
        }

        fn load(&self, offset: usize) -> u64 {
            let mut word = [0; 8];
            self.copy_out(offset, &mut word);
            u64::from_le_bytes(word)
        }

        fn store(&self, offset: usize, value: u64) {
            self.copy_in(offset, &value.to_le_bytes());
        }

        fn copy_in(&self, offset: usize, bytes: &[u8]) {
            self.0.borrow_mut()[offset..offset + bytes.len()].copy_from_slice(bytes);
        }

        fn copy_out(&self, offset: usize, out: &mut [u8]) {
            out.copy_from_slice(&self.0.borrow()[offset..offset + out.len()]);
        }
    }

    /// Two workers with 200 slots each.
    struct Floor {
        geometry: Geometry,
        memories: [Memory; 2],
    }

    impl Floor {
        fn new() -> Self {
            let geometry = Geometry { slot_count: 200, ring_bytes: 2 << 20 };
            let memory = || Memory(RefCell::new(vec![0; geometry.state_bytes()]));
            Floor { geometry, memories: [memory(), memory()] }
        }

        fn slot(&self, slot: u32) -> SlotView<'_, Memory> {
            SlotView::new(&self.memories[slot as usize % 2], &self.geometry, slot / 2)
        }

        fn source(&self, slot: u32, place: usize) -> SourceView<'_, Memory> {
            SourceView::new(&self.memories[slot as usize % 2], &self.geometry, slot / 2, place)
        }

        fn open(&self, slot: u32, generation: u64, suite: Option<Suite>, at: Mono) {
            self.open_agreed(slot, generation, suite.map(Agreed::from), at);
        }

        fn open_agreed(&self, slot: u32, generation: u64, agreed: Option<Agreed>, at: Mono) {
            let view = self.slot(slot);
            view.set(LOCAL_INDEX, 0);
            view.set_rtcp_to(Some(to(slot)));
            view.set_cname("floor@tape");
            let keys = agreed.map(|suite| Keys {
                suite,
                remote: Keyring::one(key(suite.suite(), 1)),
                local: key(suite.suite(), 2),
            });
            view.set_applied(ClockMap { mono: at, wall: Wall(0) });
            let area = if view.set_other_keys(keys.as_ref()) { AREA } else { 0 };
            view.set(CONTROL, generation | OPEN | MUX | area);
        }

        fn close(&self, slot: u32) {
            let view = self.slot(slot);
            view.set(CONTROL, view.word(CONTROL) & !OPEN);
            view.wipe_keys();
        }

        fn turn(&self, reporter: &mut Reporter, now: Mono) -> Vec<Transmit> {
            let workers = self.memories.each_ref();
            let workers = workers.map(|state| WorkerState { state, geometry: &self.geometry });
            reporter.turn(now, &workers)
        }

        /// Turns each 50 ms from `from` until `to`, milliseconds.
        fn run(&self, reporter: &mut Reporter, from: u64, to: u64) -> Vec<(u64, Transmit)> {
            (from / 50..to / 50)
                .flat_map(|tick| {
                    let sent = self.turn(reporter, Mono(0).plus_ms(tick * 50));
                    sent.into_iter().map(move |transmit| (tick * 50, transmit))
                })
                .collect()
        }
    }

    fn to(slot: u32) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], 30_001 + 2 * slot as u16))
    }

    fn key(suite: Suite, byte: u8) -> MasterKey {
        MasterKey::new(&vec![byte; suite.master_bytes()]).expect("the suite's length")
    }

    fn unprotect(suite: Suite, wire: &[u8]) -> (Vec<u8>, u32) {
        let context = Context::new(suite, &key(suite, 2)).expect("the suite's length");
        let mut out = vec![0; wire.len()];
        let (length, index) = context.unprotect_rtcp(wire, &mut out).expect("our own key");
        out.truncate(length);
        (out, index)
    }

    /// Sender, blocks, and whether it says BYE; the CNAME is checked.
    fn read(clear: &[u8]) -> (Ssrc, Vec<ReportBlock>, bool) {
        let compound = Compound::parse(clear).expect("well formed");
        let packets: Vec<_> = compound.packets().collect();
        let Packet::ReceiverReport { ssrc, blocks } = packets[0] else { panic!("begins with RR") };
        let Packet::SourceDescription { count, chunks } = packets[1] else { panic!("then SDES") };
        let wanted = Chunk { ssrc, cname: Some(b"floor@tape") };
        assert_eq!(Chunk::all(count, chunks).collect::<Vec<_>>(), [wanted]);
        let leaving = packets.get(2).is_some_and(|packet| packet.leaving().eq([ssrc]));
        (ssrc, ReportBlock::all(blocks).collect(), leaving)
    }

    #[test]
    fn an_open_slot_without_media_gets_empty_reports_at_random_five_seconds() {
        for suite in [None].into_iter().chain(Suite::ALL.map(Some)) {
            let floor = Floor::new();
            floor.open(7, 1, suite, Mono(1));
            let mut reporter = Reporter::new(0x5eed_0401, 400);
            let sent = floor.run(&mut reporter, 0, 60_000);
            assert!((8..=24).contains(&sent.len()), "{} reports in a minute", sent.len());
            assert!((1_250..=3_800).contains(&sent[0].0), "first after {} ms", sent[0].0);
            for (pair, number) in sent.windows(2).zip(1..) {
                let apart = pair[1].0 - pair[0].0;
                assert!((2_500..=7_550).contains(&apart), "{apart} ms after report {number}");
            }
            for ((_, transmit), wanted) in sent.iter().zip(1..) {
                assert_eq!((transmit.slot, transmit.mux, transmit.to), (Slot(7), true, to(7)));
                let clear = match suite {
                    None => transmit.bytes.clone(),
                    Some(suite) => {
                        let (clear, index) = unprotect(suite, &transmit.bytes);
                        assert_eq!(index, wanted);
                        clear
                    }
                };
                let (_, blocks, leaving) = read(&clear);
                assert!(blocks.is_empty() && !leaving);
            }
        }
    }

    #[test]
    fn reports_are_in_the_clear_where_that_was_agreed_and_authentic_all_the_same() {
        for suite in Suite::ALL {
            let agreed = Agreed::from(suite).in_clear(!suite.is_aead(), true).expect("it may be");
            let floor = Floor::new();
            floor.open_agreed(7, 1, Some(agreed), Mono(1));
            let mut reporter = Reporter::new(0x5eed_0408, 400);
            let (_, sent) = floor.run(&mut reporter, 0, 20_000).remove(0);
            let context = Context::new(agreed, &key(suite, 2)).expect("the suite's length");
            let mut out = [0; 200];
            let found = context.unprotect_rtcp(&sent.bytes, &mut out).expect("our own key");
            assert_eq!(out[..found.0], sent.bytes[..found.0], "{agreed}");
            read(&out[..found.0]);
            let strict = Context::new(suite, &key(suite, 2)).expect("the suite's length");
            assert_eq!(strict.unprotect_rtcp(&sent.bytes, &mut out), Err(Fail::Unencrypted));
        }
    }

    #[test]
    fn a_source_is_reported_with_loss_jitter_and_its_last_sr() {
        let floor = Floor::new();
        floor.open(3, 1, None, Mono(1));
        let mut source = floor.source(3, 2);
        source.begin(Ssrc(0xabcd), 1, to(3), 0);
        for index in (65_530..65_630).filter(|index| index % 4 != 0) {
            seq::accept(&mut source, Index(index));
        }
        let account = Account { lowest: 65_530, packets: 75, jitter: 3 << 4, ..Account::default() };
        source.set_account(&account);
        let sr = LastSr { ntp: 0x1_2345_6789_abcd, count: 1, ..LastSr::default() };
        source.set_last_sr(&sr);
        let mut reporter = Reporter::new(0x5eed_0402, 400);
        let sent = floor.run(&mut reporter, 0, 20_000);
        let (at, first) = &sent[0];
        let (ssrc, blocks, _) = read(&first.bytes);
        assert_ne!(ssrc, Ssrc(0xabcd));
        let wanted = ReportBlock {
            ssrc: Ssrc(0xabcd),
            fraction_lost: 64,
            cumulative_lost: 25,
            highest: 65_629,
            jitter: 3,
            last_sr: 0x2345_6789,
            delay_since_last_sr: (at * 65_536 / 1_000) as u32,
        };
        assert_eq!(blocks, [wanted]);
        // Nothing came since: the next report has no block (RFC 3550 §6.4).
        assert!(read(&sent[1].1.bytes).1.is_empty());
    }

    #[test]
    fn a_closed_slot_says_bye_under_its_own_key_though_the_keys_are_wiped() {
        let floor = Floor::new();
        let suite = Suite::AeadAes128Gcm;
        floor.open(0, 1, Some(suite), Mono(1));
        let mut reporter = Reporter::new(0x5eed_0403, 400);
        let before = floor.run(&mut reporter, 0, 10_000);
        floor.close(0);
        let after = floor.run(&mut reporter, 10_000, 30_000);
        assert_eq!(after.len(), 1);
        let (last, index) = unprotect(suite, &before.last().expect("some").1.bytes);
        let (bye, bye_index) = unprotect(suite, &after[0].1.bytes);
        assert_eq!((read(&last).0, index + 1), (read(&bye).0, bye_index));
        assert!(read(&bye).2);
    }

    #[test]
    fn uc7_reports_and_the_last_words_go_to_where_the_src_was_heard() {
        let floor = Floor::new();
        floor.open(7, 1, None, Mono(1));
        let mut reporter = Reporter::new(0x5eed_0409, 400);
        let before = floor.run(&mut reporter, 0, 10_000);
        assert!(!before.is_empty() && before.iter().all(|(_, sent)| sent.to == to(7)));
        floor.slot(7).set_heard(Some(to(99)));
        let after = floor.run(&mut reporter, 10_000, 30_000);
        assert!(!after.is_empty() && after.iter().all(|(_, sent)| sent.to == to(99)));
        floor.close(7);
        let last = floor.run(&mut reporter, 30_000, 31_000);
        assert!(last.len() == 1 && last[0].1.to == to(99));
        // Of the next use nothing was heard.
        floor.open(7, 2, None, Mono(2));
        let next = floor.run(&mut reporter, 31_000, 50_000);
        assert!(!next.is_empty() && next.iter().all(|(_, sent)| sent.to == to(7)));
    }

    #[test]
    fn a_slot_that_closes_before_its_first_report_says_nothing() {
        let floor = Floor::new();
        floor.open(0, 1, None, Mono(1));
        let mut reporter = Reporter::new(0x5eed_0404, 400);
        assert!(floor.run(&mut reporter, 0, 1_000).is_empty());
        floor.close(0);
        assert!(floor.run(&mut reporter, 1_000, 30_000).is_empty());
    }

    #[test]
    fn a_successor_takes_another_ssrc_and_indexes_beyond_the_reserve() {
        let floor = Floor::new();
        let suite = Suite::AesCm128HmacSha1_80;
        floor.open(5, 1, Some(suite), Mono(1));
        let mut seen = Vec::new();
        // The same seed on purpose: shared state alone must keep them apart.
        for start in 0..3_u32 {
            let mut reporter = Reporter::new(0x5eed_0405, 400);
            let sent = floor.run(&mut reporter, 0, 10_000);
            let (clear, index) = unprotect(suite, &sent[0].1.bytes);
            assert_eq!(index, start * 1_000 + 1);
            seen.push(read(&clear).0);
        }
        assert!(seen[0] != seen[1] && seen[1] != seen[2], "{seen:?}");
    }

    #[test]
    fn indexes_never_repeat_when_a_reserve_runs_out_or_the_word_is_reset() {
        let floor = Floor::new();
        let suite = Suite::AeadAes256Gcm;
        floor.open(5, 1, Some(suite), Mono(1));
        let mut reporter = Reporter::new(0x5eed_0406, 400);
        let mut last = 0;
        for report in 0..2_500_u64 {
            if report == 1_500 {
                floor.slot(5).set(LOCAL_INDEX, 0);
            }
            for transmit in floor.turn(&mut reporter, Mono(0).plus_ms(report * 10_000)) {
                let (_, index) = unprotect(suite, &transmit.bytes);
                assert_eq!(index, last + 1);
                last = index;
            }
        }
        assert_eq!(last, 2_499);
        assert_eq!(floor.slot(5).word(LOCAL_INDEX), 3_000);
    }

    #[test]
    fn no_report_is_sent_when_the_indexes_are_used_up() {
        let floor = Floor::new();
        floor.open(5, 1, Some(Suite::AeadAes256Gcm), Mono(1));
        floor.slot(5).set(LOCAL_INDEX, (1 << 31) - 2);
        let mut reporter = Reporter::new(0x5eed_0407, 400);
        assert_eq!(floor.run(&mut reporter, 0, 60_000).len(), 1);
    }

    #[test]
    fn a_re_key_is_followed_and_the_index_runs_on() {
        let floor = Floor::new();
        let suite = Suite::AesCm128HmacSha1_32;
        floor.open(5, 1, Some(Suite::AeadAes256Gcm), Mono(1));
        let mut reporter = Reporter::new(0x5eed_0408, 400);
        let before = floor.run(&mut reporter, 0, 10_000).len() as u32;
        let index = floor.slot(5).word(LOCAL_INDEX);
        floor.open(5, 1, Some(suite), Mono(2));
        floor.slot(5).set(LOCAL_INDEX, index);
        let after = floor.run(&mut reporter, 10_000, 20_000);
        assert_eq!(unprotect(suite, &after[0].1.bytes).1, before + 1);
    }

    #[test]
    fn a_source_that_takes_our_ssrc_makes_us_take_another() {
        let floor = Floor::new();
        floor.open(5, 1, None, Mono(1));
        let mut reporter = Reporter::new(0x5eed_0409, 400);
        let ours = read(&floor.run(&mut reporter, 0, 10_000)[0].1.bytes).0;
        floor.source(5, 0).begin(ours, 1, to(5), 0);
        assert_ne!(read(&floor.run(&mut reporter, 10_000, 20_000)[0].1.bytes).0, ours);
    }

    #[test]
    fn a_full_turn_starves_nobody() {
        let floor = Floor::new();
        (0..400).for_each(|slot| floor.open(slot, 1, None, Mono(1)));
        let mut reporter = Reporter::new(0x5eed_040a, 400);
        assert!(floor.turn(&mut reporter, Mono(0)).is_empty());
        // All are due at once.
        let late = Mono(0).plus_ms(60_000);
        let mut slots: Vec<_> = floor.turn(&mut reporter, late).iter().map(|t| t.slot).collect();
        assert_eq!(slots.len(), TURN_REPORTS_MAX);
        slots.extend(floor.turn(&mut reporter, late).iter().map(|transmit| transmit.slot));
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), 400);
    }
}
