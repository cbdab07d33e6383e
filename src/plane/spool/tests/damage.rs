//! Damaged bytes are found and named.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::bench::{Bench, key, salt};
use crate::base::ids::{Position, SourceId, StreamId, WorkerId};
use crate::base::ports::{Disk, Region};
use crate::base::time::Wall;
use crate::plane::handoff::layout::AT_TAIL;
use crate::store::event::Event;
use crate::store::evidence::{Keys, Signers, SigningKey};
use crate::store::journal::entry::Entry;
use crate::store::journal::frame;
use crate::store::log::{self, Mark};
use crate::store::record::RecordKind;
use crate::store::segment::{SegmentName, SegmentSet};

#[test]
fn a_damaged_group_is_named_in_the_segment_that_recovery_makes() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    for _ in 0..3 {
        (0..100).for_each(|_| assert!(bench.packet(1)));
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    let path = bench.disk.paths().into_iter().find(|path| path.ends_with("00000001.log")).unwrap();
    let scan = log::scan_file(&bench.disk, &path, u64::MAX).unwrap();
    assert_eq!(scan.groups.len(), 3);
    let mut bytes = bench.disk.get(&path);
    bytes[scan.groups[1].offset as usize + 9_000] ^= 1;
    bench.disk.put(&path, bytes);
    let mut after = Bench::on(bench.disk.clone());
    let mut spool = after.spool();
    after.settle(&mut spool);
    after.assert_sound();
    let mut events = Vec::new();
    let mut packets = 0;
    let both = BTreeSet::from([StreamId(1), StreamId::host(WorkerId(0))]);
    after
        .archive()
        .visit(&both, None, &mut |seen| match seen.record.meta.kind {
            RecordKind::Event => events.push(Event::from_payload(seen.record.payload).unwrap()),
            _ => packets += 1,
        })
        .unwrap();
    let group = &scan.groups[1].header;
    assert_eq!(packets, 200);
    assert!(matches!(&events[..], [Event::InDoubt { from, to, .. }]
        if *from == group.first.0 && *to == group.end().0));
}

/// What the recorder has said of losses, as readers find it.
fn doubts(bench: &Bench) -> Vec<Event> {
    let mut events = Vec::new();
    let host = BTreeSet::from([StreamId::host(WorkerId(0))]);
    let visit = bench.archive().visit(&host, None, &mut |seen| {
        if seen.record.meta.kind == RecordKind::Event {
            events.push(Event::from_payload(seen.record.payload).unwrap());
        }
    });
    visit.unwrap();
    events.retain(|event| matches!(event, Event::InDoubt { .. }));
    events
}

/// The journal says that all was durable up to there, in segments up to that number.
fn promise(bench: &Bench, durable: u64, segment: u64) -> Mark {
    let (worker, at) = (WorkerId(0), Wall(i64::from(u32::MAX) << 20));
    let mark = Mark { worker, durable: Position(durable), segment, at };
    let volume = "7".to_owned();
    let mut bytes = Vec::new();
    for entry in [
        Entry::Start { version: 1, volume, at, kept: false, before: None },
        Entry::Durable { marks: vec![mark], seal: None },
    ] {
        assert!(frame::write(&entry, &mut bytes));
    }
    bench.disk.put(&bench.config.journal.join("00000001.journal"), bytes);
    mark
}

#[test]
fn f10_a_log_that_holds_less_than_the_journal_says_is_missed_before_and_after_a_start() {
    for left in 0..3 {
        let mut bench = Bench::new();
        let mut spool = bench.spool();
        let mut ends = Vec::new();
        for _ in 0..3 {
            (0..20).for_each(|_| assert!(bench.packet(1)));
            bench.clock.advance(100);
            bench.turn(&mut spool, 1);
            ends.push(spool.durable().0);
        }
        let mark = promise(&bench, ends[2], 4);
        let is_log = |path: &PathBuf| path.ends_with("00000001.log");
        let path = bench.disk.paths().into_iter().find(is_log).unwrap();
        let mut bytes = bench.disk.get(&path);
        let scan = log::scan_file(&bench.disk, &path, u64::MAX).unwrap();
        // The first groups stay, or nothing at all.
        bytes[scan.groups[left].offset as usize..].fill(0);
        if left == 0 {
            Disk::remove(&bench.disk, &path).unwrap();
        } else {
            bench.disk.put(&path, bytes);
        }
        let from = left.checked_sub(1).map_or(0, |last| ends[last]);
        let archive = bench.archive();
        archive.promise([(mark.worker, mark)].into());
        let visit = archive.visit(&BTreeSet::from([StreamId(1)]), None, &mut |_| ()).unwrap();
        let [damaged] = &visit.damaged[..] else { panic!("{:?}", visit.damaged) };
        let lost = damaged.lost.unwrap();
        assert!(lost.durable && !damaged.torn && lost.until == Some(mark.at));
        assert_eq!(lost.since.is_some(), left > 0);
        assert!(damaged.why.starts_with(&format!("positions {from} to {}: ", ends[2])));

        let mut after = Bench::on(bench.disk.clone());
        assert_eq!(after.state.load(AT_TAIL), ends[2], "nothing is given twice");
        let mut spool = after.spool();
        after.settle(&mut spool);
        let told = doubts(&after);
        assert!(
            matches!(&told[..], [Event::InDoubt { from: first, to, durable: true, until, .. }]
                if (*first, *to, *until) == (from, ends[2], Some(mark.at))),
            "{told:?}"
        );
        // Nor is the number of a segment that is gone.
        let names = after.archive().segments().unwrap();
        assert!(names.iter().all(|name| name.number > 4), "{names:?}");
    }
}

#[test]
fn f10_damage_that_was_synced_long_ago_is_told_from_a_cut() {
    // Groups written behind the damaged one.
    for (behind, expected) in [(1, false), (3, false), (4, true), (6, true)] {
        let mut bench = Bench::new();
        let mut spool = bench.spool();
        for _ in 0..=behind {
            (0..10).for_each(|_| assert!(bench.packet(1)));
            bench.clock.advance(100);
            bench.turn(&mut spool, 1);
        }
        let is_log = |path: &PathBuf| path.ends_with("00000001.log");
        let path = bench.disk.paths().into_iter().find(is_log).unwrap();
        let scan = log::scan_file(&bench.disk, &path, u64::MAX).unwrap();
        let mut bytes = bench.disk.get(&path);
        for damage in [200, 8] {
            // In the payload; then in the header.
            let mut bad = bytes.clone();
            bad[scan.groups[0].offset as usize + damage] ^= 1;
            bench.disk.put(&path, bad);
            let wanted = BTreeSet::from([StreamId(1)]);
            let visit = bench.archive().visit(&wanted, None, &mut |_| ()).unwrap();
            let [damaged] = &visit.damaged[..] else { panic!("{:?}", visit.damaged) };
            let durable = damaged.lost.unwrap().durable;
            assert_eq!(durable, expected, "{behind} behind, byte {damage}");
        }
        bytes[scan.groups[0].offset as usize + 200] ^= 1;
        bench.disk.put(&path, bytes);
        let mut after = Bench::on(bench.disk.clone());
        let mut spool = after.spool();
        after.settle(&mut spool);
        assert!(matches!(&doubts(&after)[..], [Event::InDoubt { durable, .. }]
            if *durable == expected));
    }
}

#[test]
fn a_bad_record_in_the_ring_costs_itself_and_is_named() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    (0..10).for_each(|_| assert!(bench.packet(1)));
    bench.ring.copy_in(208 * 4 + 100, b"!");
    bench.clock.advance(100);
    bench.settle(&mut spool);
    bench.written.values_mut().for_each(|payloads| drop(payloads.remove(4)));
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

#[test]
fn every_flipped_bit_and_every_cut_of_a_segment_is_found() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    (0..6).for_each(|n| assert!(bench.packet(1 + n % 2)));
    bench.settle(&mut spool);
    let archive = bench.archive();
    let name = archive.segments().unwrap()[0];
    let path = archive.path(name);
    let good = bench.disk.get(&path);
    let key = key().public_key();
    let check = |bytes: Vec<u8>| {
        bench.disk.put(&path, bytes);
        archive
            .verify_segment(name, None, &mut |one| Some(salt(one)), Some(&Signers::one(key)))
            .unwrap()
            .is_good()
    };
    assert!(check(good.clone()));
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(!check(bad), "bit {bit}");
    }
    for cut in 0..good.len() {
        assert!(!check(good[..cut].to_vec()), "cut at {cut}");
    }
}

#[test]
fn a_missing_a_renamed_and_a_foreign_segment_break_the_chain() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    for _ in 0..4 {
        (0..20).for_each(|_| assert!(bench.packet(1)));
        bench.settle(&mut spool);
    }
    let archive = bench.archive();
    let names = archive.segments().unwrap();
    assert_eq!(names.len(), 4);
    let key = key().public_key();
    let faults = || archive.verify_chain(WorkerId(0), Some(&Keys::one(key))).unwrap().faults;
    assert_eq!(faults(), []);
    let second = bench.disk.get(&archive.path(names[1]));
    let third = bench.disk.get(&archive.path(names[2]));
    bench.disk.put(&archive.path(names[1]), third);
    assert!(faults().iter().any(|fault| fault.segment == names[1]));
    bench.disk.put(&archive.path(names[1]), second);
    assert_eq!(faults(), []);
    assert_eq!(archive.missing(&SegmentSet::default()).unwrap(), []);
    Disk::remove(&bench.disk, &archive.path(names[1])).unwrap();
    assert_eq!(faults()[0].segment, names[1]);
    let missing = |indexed: &SegmentSet| -> Vec<_> {
        let missing = archive.missing(indexed).unwrap().into_iter();
        missing.map(|one| (one.why, one.lost.unwrap())).collect()
    };
    let [(why, lost)] = &missing(&SegmentSet::default())[..] else { panic!("one is gone") };
    assert!(why.contains("segment w0-0000000002.seg"), "{why}");
    assert!(lost.durable && lost.since < lost.until && lost.until.is_some());
    // What a catalogue has seen behind the last one, however much that is.
    let behind = SegmentSet::from([SegmentName { worker: WorkerId(0), number: u64::MAX - 1 }]);
    let all = missing(&behind);
    assert!(all.len() == 2 && all[1].0.contains("segments from w0-0000000005.seg on"), "{all:?}");
    assert!(all[1].1.until.is_none());
    let other = SigningKey::from_seed(&[1; 32]).public_key();
    assert_eq!(archive.verify_chain(WorkerId(0), Some(&Keys::one(other))).unwrap().faults.len(), 4);
}

#[test]
fn every_cut_and_every_flipped_bit_of_a_log_leaves_a_prefix_or_names_the_damage() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    for _ in 0..3 {
        (0..3).for_each(|_| assert!(bench.packet(1)));
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    let path = bench.disk.paths().into_iter().find(|path| path.ends_with("00000001.log")).unwrap();
    let scan = log::scan_file(&bench.disk, &path, u64::MAX).unwrap();
    let mut good = bench.disk.get(&path);
    good.truncate(scan.end as usize + 4_096);
    let all = bench.written[&SourceId::new(StreamId(1), 1)].clone();
    let read = |bytes: Vec<u8>| {
        bench.disk.put(&path, bytes);
        let mut found = Vec::new();
        let wanted = BTreeSet::from([StreamId(1)]);
        let visit = bench
            .archive()
            .visit(&wanted, None, &mut |seen| found.push(seen.record.payload.to_vec()))
            .unwrap();
        (found, visit.damaged.len(), visit.damaged.iter().any(|damaged| damaged.torn))
    };
    assert_eq!(read(good.clone()), (all.clone(), 0, false));
    for cut in (0..good.len()).step_by(7) {
        let (found, ..) = read(good[..cut].to_vec());
        assert_eq!(found, all[..found.len()], "cut at {cut}");
    }
    let payload_of = |group: &log::Found| {
        let start = group.offset as usize + log::GROUP_HEADER_BYTES;
        start..start + group.header.bytes as usize
    };
    for bit in (0..scan.end as usize * 8).step_by(3) {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let (found, damaged, torn) = read(bad);
        assert!(found.iter().all(|payload| all.contains(payload)), "bit {bit}");
        let hit = scan.groups.iter().any(|group| payload_of(group).contains(&(bit / 8)));
        assert!(!hit || (damaged == 1 && found.len() == 6), "bit {bit}: silent loss");
        // F10: only of the last group nobody can tell whether it was ever durable.
        let last = scan.groups.last().is_some_and(|last| payload_of(last).contains(&(bit / 8)));
        assert_eq!(torn, last, "bit {bit}");
    }
}

#[test]
fn f13_what_the_disk_refuses_to_read_is_no_torn_end() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    (0..10).for_each(|_| assert!(bench.packet(1)));
    bench.clock.advance(100);
    bench.turn(&mut spool, 1);
    let (store, worker) = (&bench.config.store, WorkerId(0));
    let scans = log::scan_worker(&bench.disk, store, worker, u64::MAX).unwrap();
    let mut groups: Vec<_> = scans.into_iter().flat_map(|scan| scan.groups).collect();
    let folder = log::folder(store, worker);
    bench.disk.set_unreadable(&folder, true);
    let range = (Position(0), Position(u64::MAX));
    let mut doubts = Vec::new();
    log::replay(&bench.disk, &mut groups, range, &Mark::default(), &mut |_, piece| match piece {
        log::Piece::Doubt(doubt) => doubts.push(doubt),
        _ => panic!("nothing can be read, and nothing is torn"),
    });
    assert!(matches!(&doubts[..], [doubt] if doubt.durable), "{doubts:?}");
}
