//! The ordinary way: ring, log, segments, readers.

use std::collections::BTreeSet;
use std::path::Path;

use super::bench::{Bench, RING_BYTES, STORE, TestSpool, key, random_stream, salt};
use crate::base::ids::{Position, SourceId, StreamId, WorkerId};
use crate::base::ports::{Clock, Region};
use crate::base::prng::Prng;
use crate::plane::handoff::frame::Notice;
use crate::plane::handoff::layout::{AT_DURABLE, AT_SEALED, AT_TAIL};
use crate::plane::spool::Output;
use crate::store::archive::{Hint, Hints};
use crate::store::event::Event;
use crate::store::record::RecordKind;
use crate::store::test_disk::TestDisk;
#[test]
fn a_wrapping_ring_goes_through_log_and_segments_and_every_record_is_read_once() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    let mut random = Prng::new(7);
    let mut checked = 0;
    for round in 0..12_000_u64 {
        let stream = 1 + random.below(20);
        let bytes = 12 + random.below(600) as usize;
        let source = SourceId::new(StreamId(stream), (round % 3) as u16);
        let kind = if round % 3 == 0 { RecordKind::Rtcp } else { RecordKind::Rtp };
        let payload = vec![(round % 256) as u8; bytes];
        assert!(bench.append(source, kind, &payload), "the spool keeps up");
        if round % 40 == 0 {
            bench.clock.advance(7);
            // One turn only, so that reads fall between all the steps of a seal.
            spool.turn(&bench.clock, 1);
        }
        if round % 1_500 == 0 {
            bench.clock.advance(200);
            spool.commit_now();
            while spool.durable().0 < bench.state.load(AT_TAIL) {
                spool.turn(&bench.clock, 1);
            }
            assert_eq!(bench.found(), bench.written);
            checked += 1;
        }
    }
    assert!(checked > 7 && bench.state.load(AT_TAIL) > 2 * RING_BYTES);
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    assert_eq!(bench.state.load(AT_SEALED), bench.state.load(AT_TAIL));
    assert!(bench.archive().segments().unwrap().len() > 5);
    bench.assert_sound();
    let logs =
        bench.disk.paths().iter().filter(|path| path.extension() == Some("log".as_ref())).count();
    assert!(logs <= 4, "log files are recycled, found {logs}");
}

#[test]
fn nothing_is_called_durable_before_its_sync_and_the_interval_is_kept() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    bench.turn(&mut spool, 1);
    bench.packet(1);
    bench.turn(&mut spool, 1);
    assert_eq!(spool.durable(), Position(0), "before the interval");
    bench.clock.advance(100);
    bench.turn(&mut spool, 1);
    assert_eq!(spool.durable().0, bench.state.load(AT_TAIL));
    let after = Bench { disk: bench.disk.power_cut(&mut Prng::new(1)), ..Bench::new() };
    let after = Bench { written: bench.written.clone(), ..after };
    assert_eq!(after.found(), bench.written);
}

/// A spool that is behind writes groups that were cut: their clock says when, not up to when.
#[test]
fn nothing_counts_as_durable_that_came_before_a_cut_groups_clock() {
    let mut bench = Bench::with_ring(TestDisk::default(), 8 << 20);
    let mut spool = bench.spool();
    bench.packet(1);
    bench.clock.advance(100);
    bench.turn(&mut spool, 1);
    let whole = bench.clock.map().wall;
    let through = |bench: &Bench| bench.archive().watermarks().unwrap()[0].durable_through;
    assert_eq!(through(&bench), Some(whole));
    while bench.state.load(AT_TAIL) < 6 << 20 {
        assert!(bench.packet(1));
        bench.clock.advance(1);
    }
    spool.turn(&bench.clock, 1);
    assert!(spool.durable().0 < bench.state.load(AT_TAIL), "not in one turn");
    assert_eq!(through(&bench), Some(whole), "what came since may be lost");
}

/// A segment is sealed beside what comes: its own time says nothing of that.
#[test]
fn nothing_counts_as_durable_that_came_before_a_seal() {
    let mut bench = Bench::new();
    bench.config.segment_ms = 50;
    let mut spool = bench.spool();
    bench.packet(1);
    bench.clock.advance(100);
    spool.turn(&bench.clock, 1);
    bench.clock.advance(55);
    bench.packet(1);
    let came = bench.clock.map().wall;
    bench.clock.advance(5);
    bench.turn(&mut spool, 1);
    assert_eq!(bench.archive().segments().unwrap().len(), 1);
    let mark = bench.archive().watermarks().unwrap()[0];
    assert!(mark.durable.0 < bench.state.load(AT_TAIL), "the interval has not passed");
    assert!(mark.durable_through < Some(came), "{mark:?}");
}

#[test]
fn a_finished_recording_is_sealed_a_second_later_and_the_recorders_own_events_are_not() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    let host = SourceId::new(StreamId::host(WorkerId(0)), 0);
    let clock = Event::Clock { map: bench.clock.map() }.to_payload();
    bench.append(host, RecordKind::Event, &clock);
    bench.clock.advance(5_000);
    bench.turn(&mut spool, 0);
    assert!(bench.notices.is_empty(), "only host events: nothing to hurry for");
    bench.packet(3);
    bench.clock.advance(900);
    bench.turn(&mut spool, 1);
    bench.clock.advance(900);
    bench.turn(&mut spool, 0);
    assert!(bench.notices.is_empty(), "not idle for a second yet");
    bench.clock.advance(1_000);
    bench.turn(&mut spool, 0);
    assert!(
        matches!(&bench.notices[..], [Notice::Sealed { file, .. }] if file == "w0-0000000001.seg")
    );
    bench.assert_sound();
}

#[test]
fn a_spool_over_a_small_ring_seals_what_another_left_and_keeps_none_of_its_files() {
    let mut bench = Bench::with_ring(TestDisk::default(), 8 << 20);
    bench.config.segment_bytes = 4 << 20;
    let mut spool = bench.spool();
    for _ in 0..100 {
        bench.packet(3);
    }
    bench.clock.advance(200);
    bench.turn(&mut spool, 1);
    assert_eq!(bench.state.load(AT_DURABLE), bench.state.load(AT_TAIL));
    drop(spool);
    let written = bench.written.clone();
    // The memory is gone, as is the worker: nothing is received any more.
    let mut bench = Bench::with_ring(bench.disk.clone(), RING_BYTES);
    bench.written = written;
    let mut spool = bench.spool();
    assert!(!spool.is_settled());
    for _ in 0..100 {
        bench.turn(&mut spool, 0);
    }
    assert!(spool.is_settled());
    assert_eq!(bench.archive().segments().unwrap().len(), 1);
    let paths = bench.disk.paths();
    assert!(!paths.iter().any(|path| path.starts_with("/store/log/w0")), "{paths:?}");
    bench.assert_sound();
}

#[test]
fn a_requested_seal_is_answered_when_the_segment_is_in_place_and_waits_for_salts() {
    let mut bench = Bench::new();
    let mut spool = bench.spool_without_salts();
    bench.packet(9);
    spool.request_seal();
    let answered = |spool: &mut TestSpool| {
        let mut answered = false;
        while let Some(output) = spool.poll() {
            answered |= output == Output::SealDone;
        }
        answered
    };
    for _ in 0..20 {
        spool.turn(&bench.clock, 1);
    }
    assert!(!answered(&mut spool));
    assert_eq!(spool.waits_for_salt(), Some(StreamId(9)));
    spool.set_salt(StreamId(9), salt(StreamId(9)));
    for _ in 0..20 {
        spool.turn(&bench.clock, 1);
    }
    assert!(answered(&mut spool));
    assert_eq!(bench.archive().segments().unwrap().len(), 1);
    bench.assert_sound();
}

#[test]
fn a_ring_that_fills_for_want_of_a_salt_is_sealed_without_it() {
    let mut bench = Bench::new();
    let mut spool = bench.spool_without_salts();
    for _ in 0..40_000 {
        assert!(bench.packet(1), "the worker is never stopped by a salt");
        if bench.sent.is_multiple_of(100) {
            bench.clock.advance(100);
            bench.turn(&mut spool, 1);
        }
    }
    bench.assert_sound();
}

#[test]
fn f06_a_stream_that_nobody_has_a_salt_for_does_not_hold_up_sealing() {
    let mut bench = Bench::new();
    let mut spool = bench.spool_without_salts();
    bench.packet(9);
    spool.request_seal();
    bench.turn(&mut spool, 1);
    assert_eq!(spool.waits_for_salt(), Some(StreamId(9)));
    spool.no_more_salts();
    bench.settle(&mut spool);
    assert_eq!(bench.archive().segments().unwrap().len(), 1);
    bench.assert_sound();
}

#[test]
fn media_that_died_goes_on_from_the_words_in_shared_memory() {
    // A spool is dropped at every possible turn; its successor has the same memory.
    let mut bench = Bench::new();
    let mut random = Prng::new(3);
    for _ in 0..60 {
        let mut spool = bench.spool();
        for _ in 0..random.below(12) {
            for _ in 0..random.below(900) {
                assert!(bench.packet(1 + random_stream(bench.sent)));
            }
            bench.clock.advance(60);
            spool.turn(&bench.clock, 1);
        }
    }
    let mut spool = bench.spool();
    bench.settle(&mut spool);
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}

/// 500 streams of 6 s each, read back with a catalogue's hints and without.
#[test]
fn one_stream_of_500_costs_at_most_1_3_times_its_own_rtp_bytes() {
    let mut bench = Bench::with_ring(TestDisk::default(), 80 << 20);
    bench.config.segment_bytes = 256 << 20;
    let mut spool = bench.spool();
    for _ in 0..300 {
        (1..=500).for_each(|stream| assert!(bench.packet(stream)));
        bench.clock.advance(20);
        bench.turn(&mut spool, 500);
    }
    bench.settle(&mut spool);
    let archive = bench.archive();
    assert_eq!(archive.segments().unwrap().len(), 1);
    let source = SourceId::new(StreamId(250), 1);
    let mut hints = Hints::default();
    for name in archive.segments().unwrap() {
        hints.indexed.insert(name);
        let rows = archive.rows(name).unwrap().rows;
        let mine = rows.iter().filter(|row| row.source == source);
        hints.extents.extend(mine.map(|row| Hint {
            segment: name,
            offset: row.offset,
            bytes: row.bytes,
            source,
            indexes: (row.first_index.0, row.last_index.0),
            arrivals: Default::default(),
        }));
    }
    for (hints, limit) in [(Some(&hints), 1.25), (None, 1.5)] {
        let mut payload = 0;
        let mut packets = 0;
        let wanted = BTreeSet::from([StreamId(250)]);
        let visit = archive.visit(&wanted, hints, &mut |seen| {
            payload += seen.record.payload.len() as u64;
            packets += 1;
        });
        let visit = visit.unwrap();
        assert_eq!((packets, visit.unsealed), (300, 0));
        let ratio = visit.bytes_read as f64 / payload as f64;
        assert!(ratio <= limit, "{ratio}");
    }
}

#[test]
fn an_export_is_proven_offline() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    (0..50).for_each(|n| assert!(bench.packet(1 + n % 5)));
    bench.settle(&mut spool);
    let archive = bench.archive();
    let name = archive.segments().unwrap()[0];
    let footer = archive.rows(name).unwrap();
    let sources: Vec<_> = footer.rows.iter().map(|row| row.source).collect();
    for chosen in [&sources[..], &sources[1..3], &sources[..1]] {
        let proof = archive.proof(name, chosen).unwrap();
        assert_eq!(proof.verify(&key().public_key()), Ok(footer.trailer.head));
        for leaf in &proof.leaves {
            let row = footer.rows.iter().find(|row| row.source == leaf.source).unwrap();
            let mut records = archive.extent(name, row).unwrap().records;
            let salt = salt(row.source.stream());
            assert!(leaf.holds(&records, &salt).is_ok());
            records[40] ^= 1;
            assert!(leaf.holds(&records, &salt).is_err());
        }
    }
}

/// A log file that is sealed goes while somebody reads beside the server: it is looked for once more,
/// and nothing is missing.
#[test]
fn a_log_file_that_goes_between_two_looks_is_no_fault() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    (0..50).for_each(|_| assert!(bench.packet(1)));
    bench.clock.advance(100);
    bench.turn(&mut spool, 1);
    let mark = bench.archive().watermarks().unwrap();
    let path = Path::new(STORE).join("log/w0/00000077.log");
    let look = |read: &dyn Fn()| {
        bench.disk.put(&path, vec![0; 4_096]);
        bench.disk.remove_once_listed(&path);
        read();
        assert!(!bench.disk.paths().contains(&path), "it was met");
    };
    look(&|| assert_eq!(bench.found(), bench.written));
    look(&|| assert_eq!(bench.archive().watermarks().unwrap(), mark));
}

/// F01: who takes over commits at once; what is behind it waits until its span is closed, however
/// often that happens.
#[test]
fn what_predecessors_made_durable_is_looked_at_when_its_span_is_closed() {
    let mut bench = Bench::new();
    let mut spool = bench.spool();
    for stream in 1..=4 {
        (0..100).for_each(|_| assert!(bench.packet(stream)));
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
        assert_eq!(bench.state.load(AT_DURABLE), bench.state.load(AT_TAIL));
        spool = bench.spool();
        assert_eq!((spool.indexed, spool.sealed), (Position(0), Position(0)));
    }
    // Full: closed, sealed, and what follows is indexed as it is committed.
    for _ in 0..2 {
        (0..900).for_each(|_| assert!(bench.packet(5)));
        bench.clock.advance(100);
        bench.turn(&mut spool, 1);
    }
    assert!(spool.sealed > Position(0) && spool.indexed == spool.durable);
    assert_eq!(bench.found(), bench.written);
    // A record that the ring lost meanwhile is named by whoever looks.
    (0..10).for_each(|_| assert!(bench.packet(6)));
    bench.clock.advance(100);
    bench.turn(&mut spool, 1);
    let mut spool = bench.spool();
    let bad = (bench.state.load(AT_TAIL) - 208 * 4) % RING_BYTES;
    bench.ring.copy_in(bad as usize + 100, b"!");
    bench.settle(&mut spool);
    bench.written.get_mut(&SourceId::new(StreamId(6), 1)).unwrap().remove(6);
    assert_eq!(bench.found(), bench.written);
    bench.assert_sound();
}
