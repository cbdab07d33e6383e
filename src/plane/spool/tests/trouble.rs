//! Failing, full and vanished disks, power cuts.

use std::collections::BTreeMap;
use std::path::Path;

use super::bench::{Bench, SPARE, STORE, random_stream};
use crate::base::ids::{Position, SourceId, StreamId};
use crate::base::ports::Region;
use crate::base::prng::Prng;
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{AT_CHECK_UNTIL, AT_TAIL};
use crate::store::test_disk::TestDisk;
#[test]
fn f12_every_single_write_sync_create_and_rename_may_fail_and_nothing_durable_is_lost() {
    for spared in [false, true] {
        every_call_fails_once(spared);
    }
}

fn every_call_fails_once(spared: bool) {
    let on = |disk| if spared { Bench::spared(disk) } else { Bench::on(disk) };
    let mut nth = 1;
    loop {
        let mut bench = on(TestDisk::default());
        let mut spool = bench.spool();
        bench.disk.fail_nth(nth);
        let mut random = Prng::new(nth);
        let mut durable = BTreeMap::new();
        for _ in 0..24 {
            for _ in 0..150 {
                assert!(bench.packet(1 + random_stream(bench.sent)));
            }
            bench.clock.advance(100);
            bench.turn(&mut spool, 1);
            if spool.durable().0 == bench.state.load(AT_TAIL) {
                durable = bench.written.clone();
            }
        }
        // Power cut here: what was called durable must be there, whatever else is.
        let after = on(bench.disk.power_cut(&mut random));
        let after = Bench { written: durable.clone(), ..after };
        let mut found = BTreeMap::<SourceId, Vec<Vec<u8>>>::new();
        let visit = after.archive().visit(&after.streams(), None, &mut |seen| {
            found.entry(seen.record.meta.source).or_default().push(seen.record.payload.to_vec());
        });
        visit.unwrap();
        for (source, payloads) in &durable {
            let found = &found[source];
            assert!(found.len() >= payloads.len(), "nth {nth}: durable records are missing");
            assert_eq!(&found[..payloads.len()], &payloads[..], "nth {nth}");
            let all = &bench.written[source];
            assert_eq!(&all[..found.len()], &found[..], "nth {nth}: an invalid record was served");
        }
        // Without a power cut everything goes on.
        bench.settle(&mut spool);
        assert_eq!(bench.found(), bench.written, "nth {nth}");
        bench.assert_sound();
        if !bench.disk.has_failed() {
            break;
        }
        let said = bench.notices.iter().filter(|one| matches!(one, Notice::Disk { .. })).count();
        assert!(
            said == 0 || said == 2 || spared && said == 1,
            "nth {nth}: trouble and its end are both said"
        );
        nth += 1;
    }
    assert!(nth > 60, "the failures reached {nth} operations");
}

#[test]
fn f11_a_full_disk_is_reported_retried_and_left_behind() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    bench.disk.set_full(true);
    for _ in 0..20 {
        assert!(bench.packet(1));
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    assert_eq!(spool.durable(), Position(0));
    assert!(spool.disk_error().is_some());
    bench.disk.set_full(false);
    bench.clock.advance(3_000);
    bench.turn(&mut spool, 1);
    assert_eq!(spool.durable().0, bench.state.load(AT_TAIL));
    let said: Vec<bool> = bench
        .notices
        .iter()
        .filter_map(|one| match one {
            Notice::Disk { error, .. } => Some(error.is_some()),
            _ => None,
        })
        .collect();
    assert_eq!(said, [true, false]);
}

#[test]
fn after_a_power_cut_the_log_is_sealed_and_the_chain_goes_on() {
    for seed in 0..40 {
        let mut random = Prng::new(seed);
        let mut bench = Bench::new();
        let mut spool = bench.spool();
        for _ in 0..random.below(20) {
            for _ in 0..random.below(400) {
                assert!(bench.packet(1 + random_stream(bench.sent)));
            }
            bench.clock.advance(100);
            spool.turn(&bench.clock, 1);
        }
        let durable = spool.durable();
        let mut after = Bench::on(bench.disk.power_cut(&mut random));
        assert!(after.state.load(AT_TAIL) >= durable.0, "positions are never used twice");
        // The clock of another boot.
        after.clock.0.set(1_000_000_000);
        after.sent = bench.sent;
        let mut spool = after.spool();
        for _ in 0..300 {
            assert!(after.packet(2));
        }
        after.settle(&mut spool);
        after.assert_sound();
        let mut found = BTreeMap::<SourceId, Vec<Vec<u8>>>::new();
        let all = (0..8).map(StreamId).collect();
        after
            .archive()
            .visit(&all, None, &mut |seen| {
                assert!(seen.place.segment.is_some(), "all is sealed");
                let source = seen.record.meta.source;
                found.entry(source).or_default().push(seen.record.payload.to_vec());
            })
            .unwrap();
        let second = SourceId::new(StreamId(2), 1);
        let tail = found.get_mut(&second).unwrap();
        let new = tail.split_off(tail.len() - 300);
        assert_eq!(new, after.written[&second], "seed {seed}");
        for (source, found) in found {
            let all = bench.written.get(&source).map_or(&[][..], |all| &all[..]);
            assert_eq!(found, all[..found.len()], "seed {seed}: in order, none invented");
        }
    }
}

/// Of the notices: `e` an error, `w` a warning, `.` all well.
fn said(bench: &Bench) -> String {
    let disk = bench.notices.iter().filter_map(|one| match one {
        Notice::Disk { error: Some(_), .. } => Some('e'),
        Notice::Disk { warning: Some(_), .. } => Some('w'),
        Notice::Disk { .. } => Some('.'),
        _ => None,
    });
    disk.collect()
}

fn record(bench: &mut Bench, spool: &mut super::bench::TestSpool, rounds: u64) {
    for _ in 0..rounds {
        for _ in 0..100 {
            assert!(bench.packet(1 + random_stream(bench.sent)), "the ring is full");
        }
        bench.clock.advance(100);
        bench.turn(spool, 1);
    }
}

fn files(bench: &Bench, folder: &str, ending: &str) -> usize {
    let wanted = |path: &&std::path::PathBuf| {
        path.starts_with(folder) && path.to_string_lossy().ends_with(ending)
    };
    bench.disk.paths().iter().filter(wanted).count()
}

#[test]
fn f12_a_sync_error_moves_to_the_spare_folder_and_readers_find_both() {
    let mut bench = Bench::spared(TestDisk::default());
    let mut spool = bench.spool();
    record(&mut bench, &mut spool, 3);
    let before = spool.durable();
    bench.disk.set_sync_fails(Path::new(STORE), true);
    record(&mut bench, &mut spool, 30);
    assert!(spool.durable() > before && spool.durable().0 == bench.state.load(AT_TAIL));
    assert_eq!((spool.disk_error(), said(&bench).as_str()), (None, "w"));
    let warning = spool.disk_warning().unwrap();
    for part in ["/store (device 0)", "log: ", "written again", "goes on in /spare"] {
        assert!(warning.contains(part), "{warning}");
    }
    assert!(files(&bench, SPARE, ".log") > 0 && files(&bench, SPARE, ".seg") > 0);
    assert_eq!(bench.found(), bench.written);
    // A power cut: what was durable is in both folders, and the next start goes on behind it.
    let cut = Bench::spared(bench.disk.power_cut(&mut Prng::new(1)));
    let mut after = Bench { written: bench.written.clone(), ..cut };
    assert_eq!(after.found(), bench.written);
    after.disk.set_sync_fails(Path::new(STORE), false);
    after.sent = bench.sent;
    let mut spool = after.spool();
    record(&mut after, &mut spool, 2);
    after.settle(&mut spool);
    assert_eq!(after.found(), after.written);
    after.assert_sound();
}

/// Media dies after the failure: its successor has only the memory and the names.
#[test]
fn f12_a_successor_knows_what_failed_before_it() {
    let mut bench = Bench::spared(TestDisk::default());
    let mut spool = bench.spool();
    record(&mut bench, &mut spool, 3);
    bench.disk.set_sync_fails(Path::new(STORE), true);
    record(&mut bench, &mut spool, 3);
    assert_eq!(files(&bench, STORE, ".failed.log"), 1);
    assert!(bench.state.load(AT_CHECK_UNTIL) > 0, "the range that is read back");
    drop(spool);
    bench.disk.set_sync_fails(Path::new(STORE), false);
    bench.notices.clear();
    let spares = files(&bench, SPARE, ".log");
    let mut spool = bench.spool();
    record(&mut bench, &mut spool, 1);
    assert_eq!((spool.disk_error(), said(&bench).as_str()), (None, "w"));
    let warning = spool.disk_warning().unwrap();
    assert!(warning.contains("failed before the restart; goes on in /spare"), "{warning}");
    assert!(files(&bench, SPARE, ".log") > spares, "not where it had failed");
    assert_eq!(bench.found(), bench.written);
    // It passes its checks; the file is not used again even so.
    record(&mut bench, &mut spool, 300);
    bench.settle(&mut spool);
    assert_eq!(said(&bench), "w.");
    assert_eq!((files(&bench, STORE, ".failed.log"), files(&bench, STORE, ".suspect")), (0, 1));
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

/// The same with no other folder: what had failed is read back by the successor as well.
#[test]
fn f12_a_successor_reads_back_what_had_failed() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    record(&mut bench, &mut spool, 1);
    bench.disk.set_sync_fails(Path::new(STORE), true);
    record(&mut bench, &mut spool, 2);
    let until = bench.state.load(AT_CHECK_UNTIL);
    assert!(until > spool.durable().0);
    drop(spool);
    bench.disk.set_sync_fails(Path::new(STORE), false);
    bench.notices.clear();
    let mut spool = bench.spool();
    assert_eq!(spool.check_until, Position(until));
    record(&mut bench, &mut spool, 5);
    assert_eq!(spool.durable().0, bench.state.load(AT_TAIL));
    assert_eq!(said(&bench), "", "there is nowhere else to go, and it works");
    bench.settle(&mut spool);
    assert!(files(&bench, STORE, ".suspect") > 0, "those that failed are put aside");
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

#[test]
fn f12_the_store_is_used_again_when_it_passes_two_checks() {
    let mut bench = Bench::spared(TestDisk::default());
    let mut spool = bench.spool();
    bench.disk.set_sync_fails(Path::new(STORE), true);
    record(&mut bench, &mut spool, 20);
    assert_eq!(files(&bench, STORE, ".seg"), 0);
    bench.disk.set_sync_fails(Path::new(STORE), false);
    record(&mut bench, &mut spool, 150);
    assert_eq!(said(&bench), "w", "one check is not enough");
    record(&mut bench, &mut spool, 100);
    assert_eq!(said(&bench), "w.");
    record(&mut bench, &mut spool, 60);
    assert!(files(&bench, STORE, ".seg") > 0);
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
    assert_eq!(files(&bench, STORE, ".check") + files(&bench, SPARE, ".check"), 0);
    assert_eq!(files(&bench, STORE, ".suspect"), 1, "the file that failed is never used again");
}

#[test]
fn f11_on_a_full_disk_the_log_goes_on_in_its_own_room_and_segments_in_the_spare_folder() {
    let mut bench = Bench::spared(TestDisk::default());
    let mut spool = bench.spool();
    record(&mut bench, &mut spool, 2);
    bench.disk.set_full_at(Path::new(STORE), true);
    let logs = files(&bench, STORE, ".log");
    record(&mut bench, &mut spool, 60);
    assert_eq!(spool.disk_error(), None);
    assert_eq!(files(&bench, STORE, ".log"), logs, "nothing was deleted to make room");
    assert!(files(&bench, SPARE, ".seg") > 0);
    assert_eq!(files(&bench, STORE, ".tmp"), 0);
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

#[test]
fn segments_are_spread_by_room_and_all_of_them_are_one_store() {
    let mut bench = Bench::spread(TestDisk::default());
    let mut spool = bench.spool();
    bench.disk.set_free(Path::new(STORE), 5_000);
    for free in [9_000, 1_000, 9_000] {
        bench.disk.set_free(Path::new(SPARE), free);
        let before = (files(&bench, STORE, ".seg"), files(&bench, SPARE, ".seg"));
        record(&mut bench, &mut spool, 60);
        let now = (files(&bench, STORE, ".seg"), files(&bench, SPARE, ".seg"));
        let to_more = free > 5_000;
        assert_eq!(
            (now.0 == before.0, now.1 == before.1),
            (to_more, !to_more),
            "{before:?} {now:?}"
        );
    }
    assert_eq!((said(&bench).as_str(), files(&bench, SPARE, ".log")), ("", 0));
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
    // Its disk fails: segments go to the store, and it is told.
    bench.disk.set_full_at(Path::new(SPARE), true);
    record(&mut bench, &mut spool, 60);
    assert_eq!(said(&bench), "w");
    // The store's fails: the log goes there.
    bench.disk.set_full_at(Path::new(SPARE), false);
    record(&mut bench, &mut spool, 300);
    bench.disk.set_sync_fails(Path::new(STORE), true);
    record(&mut bench, &mut spool, 60);
    assert!(files(&bench, SPARE, ".log") > 0);
    bench.disk.set_sync_fails(Path::new(STORE), false);
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

#[test]
fn f11_with_both_folders_full_the_ring_fills_loudly_and_all_of_it_is_kept() {
    let mut bench = Bench::spared(TestDisk::default());
    let mut spool = bench.spool();
    bench.disk.set_full(true);
    let mut lost = 0;
    for _ in 0..140 {
        lost += (0..100).filter(|_| !bench.packet(1)).count();
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    assert!(lost > 0 && spool.disk_error().is_some(), "the worker counts these as ring_full");
    assert_eq!(said(&bench), "we", "first the one, then both");
    bench.disk.set_full(false);
    bench.clock.advance(3_000);
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    assert!(said(&bench).starts_with("wew"), "{}", said(&bench));
}

#[test]
fn f18_an_unmounted_store_is_left_at_once_and_nothing_is_made_on_what_lies_below() {
    let mut bench = Bench::spared(TestDisk::default());
    let mut spool = bench.spool();
    record(&mut bench, &mut spool, 3);
    let there = bench.disk.paths().iter().filter(|path| path.starts_with(STORE)).count();
    bench.disk.set_device(Path::new(STORE), 8);
    record(&mut bench, &mut spool, 250);
    let now = bench.disk.paths().iter().filter(|path| path.starts_with(STORE)).count();
    assert_eq!((there, said(&bench).as_str()), (now, "w"));
    bench.disk.set_device(Path::new(STORE), 0);
    record(&mut bench, &mut spool, 250);
    assert_eq!(said(&bench), "w.");
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

#[test]
fn f18_a_start_without_the_spare_folder_is_refused() {
    let mut bench = Bench::spared(TestDisk::default());
    let mut spool = bench.spool();
    bench.disk.set_sync_fails(Path::new(STORE), true);
    record(&mut bench, &mut spool, 5);
    bench.disk.set_unreadable(Path::new(SPARE), true);
    assert!(bench.try_spool().is_err(), "its positions would be used again");
    bench.disk.set_unreadable(Path::new(SPARE), false);
    bench.disk.set_sync_fails(Path::new(STORE), false);
    let mut spool = bench.spool();
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
}
