//! Every call that the store makes of a disk fails once, in every way that it can: during recording,
//! after media died, and while what a power cut left is recovered. Whatever happens, no invalid
//! record is read as valid, what was called durable is there, the durable mark never moves back,
//! and the chain verifies.

use std::collections::BTreeMap;
use std::path::Path;

use super::bench::{Bench, RING_BYTES, SPARE, STORE, TestSpool, random_stream};
use crate::base::ids::SourceId;
use crate::base::ports::{Disk, Region};
use crate::base::prng::Prng;
use crate::plane::handoff::layout::AT_TAIL;
use crate::store::archive::Archive;
use crate::store::fault_disk::{Call, Fault, FaultDisk};
use crate::store::places::{Places, Root};
use crate::store::test_disk::TestDisk;

type Payloads = BTreeMap<SourceId, Vec<Vec<u8>>>;

/// A store that is written by one disk and, after the crash, read by another.
struct Story<'a> {
    store: &'a Path,
    spare: Option<&'a Path>,
    name: String,
}

impl Story<'_> {
    fn bench<D: Disk + Clone>(&self, disk: &D) -> Bench<D> {
        let open = || Bench::at(disk.clone(), self.store, self.spare, RING_BYTES);
        // One call fails, once: whoever cannot start is started again.
        let mut bench = open().or_else(|_| open()).expect("only one call fails");
        bench.config.segment_bytes = 60_000;
        bench
    }

    fn spool<D: Disk + Clone>(&self, bench: &Bench<D>) -> TestSpool<D> {
        let opened = bench.try_spool().or_else(|_| bench.try_spool());
        let mut spool = opened.expect("only one call fails");
        (1..=9).for_each(|n| {
            let stream = crate::base::ids::StreamId(n);
            spool.set_salt(stream, super::bench::salt(stream));
        });
        spool
    }

    /// Records for a while, with a death of media in the middle. Returns all that was written and
    /// what of it was called durable.
    fn record<D: Disk + Clone>(&self, disk: &D) -> (Payloads, Payloads) {
        let mut bench = self.bench(disk);
        let mut durable = Payloads::new();
        for _ in 0..2 {
            let mut spool = self.spool(&bench);
            for _ in 0..6 {
                for _ in 0..50 {
                    assert!(bench.packet(1 + random_stream(bench.sent)), "{}", self.name);
                }
                bench.clock.advance(100);
                bench.turn(&mut spool, 1);
                if spool.durable().0 == bench.state.load(AT_TAIL) {
                    durable = bench.written.clone();
                }
            }
        }
        (bench.written, durable)
    }

    /// What readers find, from the segments and the log.
    fn found<D: Disk + Clone>(&self, disk: &D) -> Payloads {
        let mut found = Payloads::new();
        let more = self.spare.map(Path::to_owned).into_iter().collect();
        let root = Root { folder: self.store.to_owned(), more };
        let archive = Archive::open(Places::new(disk.clone(), vec![root]), self.store);
        let streams = (1..=9).map(crate::base::ids::StreamId).collect();
        let visit = archive.visit(&streams, None, &mut |seen| {
            found.entry(seen.record.meta.source).or_default().push(seen.record.payload.to_vec());
        });
        visit.unwrap();
        found
    }

    fn judge(&self, found: &Payloads, written: &Payloads, durable: &Payloads) {
        for (source, payloads) in durable {
            let found = found.get(source).map_or(&[][..], |found| found);
            assert!(found.len() >= payloads.len(), "{}: durable and not there", self.name);
        }
        for (source, found) in found {
            let all = &written[source];
            assert!(found.len() <= all.len(), "{}: a record twice", self.name);
            assert_eq!(found[..], all[..found.len()], "{}: an invalid record was read", self.name);
        }
    }

    /// Recovers what the crash left and seals it. Returns whether the fault has been met by then.
    fn recover<D: Disk + Clone>(
        &self,
        disk: &FaultDisk<D>,
        written: &Payloads,
        durable: &Payloads,
    ) -> bool {
        let mut bench = self.bench(disk);
        bench.clock.0.set(90_000_000_000);
        let mut spool = self.spool(&bench);
        bench.settle(&mut spool);
        let met = disk.has_failed();
        disk.calm();
        self.judge(&self.found(disk), written, durable);
        bench.assert_sound();
        met
    }
}

/// `crash`: what is there afterwards. Returns whether the call was made at all.
pub(crate) fn one_fault<D: Disk + Clone, E: Disk + Clone>(
    disk: D,
    place: (&Path, Option<&Path>),
    (call, nth, fault): (Call, u64, Fault),
    crash: impl FnOnce(&D) -> E,
) -> bool {
    let (store, spare) = place;
    let name = format!("{call:?} number {nth} fails with {fault:?}, spare {}", spare.is_some());
    let story = Story { store, spare, name };
    let faulty = FaultDisk::new(disk);
    faulty.fail(call, nth, fault);
    let (written, durable) = story.record(&faulty);
    let after = crash(&faulty.disk);
    story.judge(&story.found(&after), &written, &durable);
    // The plan goes on: where recording made fewer calls, recovery meets the fault.
    let faulty = faulty.over(after);
    story.recover(&faulty, &written, &durable)
}

fn faults(call: Call) -> &'static [Fault] {
    match call {
        Call::Write | Call::Rename => &[Fault::Io, Fault::Full, Fault::Short],
        Call::Create => &[Fault::Io, Fault::Full],
        _ => &[Fault::Io],
    }
}

fn every_call(store_key: Option<u8>) -> u32 {
    let mut runs = 0;
    for spare in [None, Some(Path::new(SPARE))] {
        for call in Call::ALL {
            for fault in faults(call) {
                for nth in 1.. {
                    let cut = |disk: &TestDisk| disk.power_cut(&mut Prng::new(nth));
                    let place = (Path::new(STORE), spare);
                    runs += 1;
                    let disk = TestDisk::default();
                    disk.set_store_key(store_key);
                    if !one_fault(disk, place, (call, nth, *fault), cut) {
                        break;
                    }
                }
            }
        }
    }
    runs
}

#[test]
fn f12_f13_every_call_of_the_disk_fails_once_and_a_power_cut_follows() {
    let runs = every_call(None);
    assert!(runs > 300, "the faults reached {runs} calls");
}

#[test]
fn f12_f13_the_same_where_the_store_is_encrypted() {
    let runs = every_call(Some(1));
    assert!(runs > 350, "the faults reached {runs} calls");
}
