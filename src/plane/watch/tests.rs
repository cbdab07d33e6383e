//! Lines that are silent as they should be, and lines that are not.

use std::cell::RefCell;

use super::*;
use crate::base::ids::Ssrc;
use crate::plane::handoff::slot::CONTROL;
use crate::plane::handoff::source::{Account, LastSr};

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

const SLOTS: u32 = 201;
const GEOMETRY: Geometry = Geometry { slot_count: SLOTS, ring_bytes: 2 << 20 };

/// A floor of lines over one worker, told second by second.
struct Floor {
    memory: Memory,
    watch: Watch,
    second: u64,
}

impl Floor {
    fn new() -> Self {
        let memory = Memory(RefCell::new(vec![0; GEOMETRY.state_bytes()]));
        let floor = Floor { memory, watch: Watch::new(SLOTS), second: 100 };
        for number in 0..SLOTS {
            let slot = floor.slot(number);
            slot.set(OPENED, floor.now().0);
            slot.set(SINCE, floor.now().0);
            slot.set(CONTROL, 1 | OPEN | ACTIVE);
        }
        floor
    }

    fn now(&self) -> Mono {
        Mono(self.second * 1_000_000_000)
    }

    fn slot(&self, number: u32) -> SlotView<'_, Memory> {
        SlotView::new(&self.memory, &GEOMETRY, number)
    }

    fn source(&self, number: u32) -> SourceView<'_, Memory> {
        SourceView::new(&self.memory, &GEOMETRY, number, 0)
    }

    /// A second's packets of a line.
    fn speak(&self, number: u32) {
        let source = self.source(number);
        if source.identity().is_none() {
            source.begin(Ssrc(number + 1), 1, "192.0.2.1:9".parse().expect("one"), 0);
        }
        let mut account: Account = source.account();
        account.packets += 50;
        account.last_arrival = self.now().0;
        source.set_account(&account);
        self.slot(number).set(LAST_ARRIVAL, self.now().0);
    }

    /// A report of a source that has sent so many.
    fn report(&self, number: u32, packets: u32) {
        let source = self.source(number);
        let count = source.last_sr().count + 1;
        source.set_last_sr(&LastSr { packets, count, arrival: self.now(), ..LastSr::default() });
    }

    fn pass(&mut self) -> Vec<Notice> {
        self.second += 1;
        let watched = Watched { state: &self.memory, geometry: &GEOMETRY };
        self.watch.look(self.now(), &[watched])
    }
}

/// The catalogue's own case: 200 lines idle for ten minutes, one broken among them.
#[test]
fn f40_of_two_hundred_idle_lines_the_broken_one_is_an_alarm() {
    let mut floor = Floor::new();
    let broken = SLOTS - 1;
    for number in 0..SLOTS {
        floor.speak(number);
        floor.report(number, 50);
    }
    assert_eq!(floor.pass(), []);
    let mut sent = 50;
    for second in 0..600 {
        // Idle lines go on reporting what they have sent; some never report at all.
        if second % 5 == 0 {
            (0..SLOTS - 1).filter(|number| number % 3 > 0).for_each(|one| floor.report(one, 50));
        }
        if second < 60 {
            floor.speak(broken);
        }
        sent += 50;
        if second % 5 == 4 {
            floor.report(broken, sent);
        }
        let notices = floor.pass();
        // It broke at second 60, its next report comes at 64.
        match second {
            64 => {
                let missing = 5 * 50;
                let slot = Slot(broken);
                let wanted = Notice::NoMedia { slot, generation: Generation(1), missing };
                assert_eq!(notices, [wanted]);
            }
            _ => assert_eq!(notices, [], "second {second}"),
        }
    }
    floor.speak(broken);
    let back = Notice::MediaBack { slot: Slot(broken), generation: Generation(1), comes: true };
    assert_eq!(floor.pass(), [back]);
    assert_eq!(floor.pass(), []);
}

#[test]
fn f40_media_that_never_came_is_an_alarm_by_the_reports_alone() {
    let mut floor = Floor::new();
    let report = |floor: &Floor, count: u64, packets: u64| {
        floor.slot(3).set(STRANGE_REPORT, count << 32 | packets);
    };
    // Where it began to count before this recording, one report proves nothing.
    report(&floor, 1, 90_000);
    for _ in 0..5 {
        assert_eq!(floor.pass(), []);
    }
    report(&floor, 2, 90_250);
    let notice = Notice::NoMedia { slot: Slot(3), generation: Generation(1), missing: 250 };
    assert_eq!(floor.pass(), [notice]);
    report(&floor, 3, 90_500);
    assert_eq!(floor.pass(), [], "once");
    // Whoever was told is gone: the next one hears it with the next report.
    floor.watch.tell_again();
    report(&floor, 4, 90_750);
    assert_eq!(floor.pass().len(), 1);
    // A pause ends it, without media.
    floor.slot(3).set(CONTROL, 1 | OPEN);
    let over = Notice::MediaBack { slot: Slot(3), generation: Generation(1), comes: false };
    assert_eq!(floor.pass(), [over]);
}

#[test]
fn f40_a_report_that_crosses_the_last_packets_is_no_alarm() {
    let mut floor = Floor::new();
    for _ in 0..10 {
        floor.speak(0);
        let packets = floor.source(0).account().packets as u32;
        floor.report(0, packets + 3);
        assert_eq!(floor.pass(), []);
    }
    // It stops in order, and says so.
    let packets = floor.source(0).account().packets as u32;
    for _ in 0..30 {
        floor.report(0, packets + 5);
        assert_eq!(floor.pass(), []);
    }
    // An SRC that begins to count anew proves nothing either.
    floor.report(0, 0);
    assert_eq!(floor.pass(), []);
}

/// By the metadata: a call on one line, and between calls on all the others.
#[test]
fn f40_a_silent_line_of_an_open_call_is_an_alarm_and_an_idle_one_is_none() {
    let mut floor = Floor::new();
    let (slot, generation) = (Slot(5), Generation(1));
    for _ in 0..60 {
        assert_eq!(floor.pass(), [], "idle");
    }
    floor.watch.expect(&[(slot, generation, floor.now())], &[]);
    for _ in 0..3 {
        assert_eq!(floor.pass(), []);
    }
    let alarm = || [Notice::NobodyHeard { slot, generation }];
    assert_eq!(floor.pass(), alarm(), "four seconds, and told within the fifth");
    // Reports that count packets say nothing new.
    for count in 1..4 {
        floor.slot(5).set(STRANGE_REPORT, count << 32 | (90_000 + count * 250));
        assert_eq!(floor.pass(), []);
    }
    floor.speak(5);
    assert_eq!(floor.pass(), [Notice::MediaBack { slot, generation, comes: true }]);
    // It stops in mid-call, and then the call ends.
    let told: Vec<_> = (0..10).flat_map(|_| floor.pass()).collect();
    assert_eq!(told, alarm());
    floor.watch.expect(&[], &[(slot, generation)]);
    assert_eq!(floor.pass(), [Notice::MediaBack { slot, generation, comes: false }]);
    for _ in 0..600 {
        assert_eq!(floor.pass(), [], "idle again");
    }
    // In a pause nobody is expected; a resume begins anew.
    floor.watch.expect(&[(slot, generation, floor.now())], &[]);
    floor.slot(5).set(CONTROL, 1 | OPEN);
    assert_eq!((0..10).flat_map(|_| floor.pass()).count(), 0);
    floor.slot(5).set(CONTROL, 1 | OPEN | ACTIVE);
    floor.slot(5).set(SINCE, floor.now().0);
    assert_eq!((0..3).flat_map(|_| floor.pass()).count(), 0);
    assert_eq!((0..3).flat_map(|_| floor.pass()).collect::<Vec<_>>(), alarm());
    // Another use of the slot is none of it, and a new control says again what it knows.
    floor.slot(5).set(CONTROL, 2 | OPEN | ACTIVE);
    let over = Notice::MediaBack { slot, generation, comes: false };
    assert_eq!((0..10).flat_map(|_| floor.pass()).collect::<Vec<_>>(), [over]);
    floor.slot(5).set(CONTROL, 1 | OPEN | ACTIVE);
    floor.watch.tell_again();
    assert_eq!((0..10).flat_map(|_| floor.pass()).count(), 0);
    floor
        .watch
        .expect(&[(slot, generation, floor.now()), (Slot(9_999), generation, floor.now())], &[]);
    assert_eq!((0..10).flat_map(|_| floor.pass()).collect::<Vec<_>>(), alarm());
}
