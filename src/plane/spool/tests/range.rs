//! Part of a recording: what is read is what overlaps, and nothing is missing in it.

use std::collections::BTreeSet;
use std::path::Path;

use super::bench::{Bench, STORE, TestSpool, WALL, key};
use crate::base::ids::{Generation, RsId, Slot, SourceId, StreamId};
use crate::base::ports::Clock;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::store::archive::{Archive, Hint, Hints, Run, Visit};
use crate::store::catalog::{Journalled, Library, RsEntry};
use crate::store::event::{Origin, StreamDescription};
use crate::store::journal::entry::{
    DialogState, Entry, Sealed, Signalling, SrcFacts, StreamOpened,
};
use crate::store::places::Places;
use crate::store::record::RecordKind;
use crate::store::segment::{Row, Thinning, clock_at};
use crate::store::test_disk::TestDisk;

const STREAMS: u64 = 20;
const MINE: StreamId = StreamId(7);
const PACKETS: u64 = 100;
/// What stands in one segment, in milliseconds.
const SEGMENT_MS: i64 = 60_000;

/// `segments` minutes of [`STREAMS`] streams, each sealed by itself, and a minute that is in the log only.
struct Line {
    bench: Bench,
    _spool: TestSpool,
    start: i64,
}

impl Line {
    fn new(disk: TestDisk, packing: bool, segments: u64) -> Self {
        let mut bench = Bench::with_ring(disk, 16 << 20);
        bench.config.packing = packing;
        bench.config.segment_bytes = 256 << 20;
        bench.config.segment_ms = 1_000_000_000;
        let mut spool = bench.spool();
        let mut random = Prng::new(9);
        let start = bench.clock.map().wall.0;
        for minute in 0..=segments {
            for _ in 0..PACKETS {
                for stream in 1..=STREAMS {
                    let mut payload = [0; 172];
                    random.fill(&mut payload);
                    let source = SourceId::new(StreamId(stream), 1);
                    assert!(bench.append(source, RecordKind::Rtp, &payload));
                }
                bench.clock.advance(SEGMENT_MS as u64 / PACKETS);
                bench.turn(&mut spool, STREAMS as u32);
            }
            if minute < segments {
                spool.request_seal();
                bench.turn(&mut spool, STREAMS as u32);
            }
        }
        assert_eq!(bench.archive().segments().unwrap().len() as u64, segments);
        Line { bench, _spool: spool, start }
    }

    fn at(&self, ms: i64) -> Wall {
        Wall(self.start + ms * 1_000_000)
    }

    /// When the packets of [`MINE`] in these minutes arrived.
    fn arrivals(&self, minutes: std::ops::Range<i64>) -> Vec<Wall> {
        let step = SEGMENT_MS / PACKETS as i64;
        let (first, last) = (minutes.start * PACKETS as i64, minutes.end * PACKETS as i64);
        (first..last).map(|packet| self.at(packet * step)).collect()
    }
}

/// Hints as an index gives them.
fn hints(archive: &Archive<Places<TestDisk>>, span: (Wall, Wall)) -> Hints {
    let mut hints = Hints::default();
    for name in archive.segments().unwrap() {
        hints.indexed.insert(name);
        let footer = archive.rows(name).unwrap();
        let wall = |mono| clock_at(&footer.clocks, mono).wall(mono);
        hints.extents.extend(footer.rows.iter().filter_map(|row| {
            let arrivals = (wall(row.first_arrival), wall(row.last_arrival));
            let overlaps = arrivals.0 <= span.1 && arrivals.1 >= span.0;
            (row.source.stream() == MINE && overlaps).then_some(Hint {
                segment: name,
                offset: row.offset,
                bytes: row.bytes,
                source: row.source,
                indexes: (row.first_index.0, row.last_index.0),
                arrivals,
            })
        }));
    }
    hints
}

impl Hints {
    /// Of nothing in the segments, all of which are known.
    fn none_sealed(line: &Line) -> Hints {
        let indexed = line.bench.archive().segments().unwrap().into_iter().collect();
        Hints { extents: Vec::new(), indexed }
    }
}

fn visit(line: &Line, span: (Wall, Wall), hints: Option<&Hints>) -> (Visit, Vec<Wall>) {
    let (archive, mut walls) = (line.bench.archive(), Vec::new());
    let mut see = |run: &mut Run<'_>| {
        run.for_each(|seen| {
            assert_eq!(seen.record.meta.source.stream(), MINE);
            walls.push(seen.wall());
        });
    };
    let visit = archive.visit_within(&[MINE].into(), span, hints, None, &mut see).unwrap();
    assert_eq!(visit.damaged, []);
    (visit, walls)
}

fn disks() -> [(TestDisk, bool); 3] {
    let encrypted = TestDisk::default();
    encrypted.set_store_key(Some(1));
    [(TestDisk::default(), true), (TestDisk::default(), false), (encrypted, true)]
}

#[test]
fn a_range_costs_the_extents_that_it_touches_and_no_others() {
    for (disk, packing) in disks() {
        let line = Line::new(disk, packing, 6);
        // From the middle of minute 2 into minute 3.
        let span = (line.at(150_000), line.at(200_000));
        let hints = hints(&line.bench.archive(), span);
        assert_eq!(hints.extents.len(), 2);
        let own: u64 = hints.extents.iter().map(|hint| hint.bytes).sum();
        // Finding out how far everything goes costs the same for all.
        let before = (line.at(-100_000), line.at(-90_000));
        let (nothing, walls) =
            visit(&line, before, Some(&Hints { extents: vec![], ..hints.clone() }));
        assert_eq!(walls, []);
        let (by_hints, walls) = visit(&line, span, Some(&hints));
        assert_eq!((walls, by_hints.unsealed), (line.arrivals(2..4), 0));
        // Where it is encrypted each segment has its keys beside it.
        let keys = by_hints.bytes_read - nothing.bytes_read - own;
        assert!(keys <= hints.extents.len() as u64 * 4_096, "{keys}");
        // Without an index the footers are read, and the same extents.
        let (searched, walls) = visit(&line, span, None);
        assert_eq!((walls, searched.unsealed), (line.arrivals(2..4), 0));
        let searched = searched.bytes_read - nothing.bytes_read - own;
        assert!(searched - keys <= 6 * 8_192, "{searched}");
    }
}

#[test]
fn the_log_is_read_where_the_range_reaches_beyond_what_is_sealed() {
    for (disk, packing) in disks() {
        let line = Line::new(disk, packing, 2);
        // 11 s before the end of what is sealed, and at its end.
        for (to, is_there) in [(108_000, false), (120_000, true)] {
            let span = (line.at(100_000), line.at(to));
            let (seen, walls) = visit(&line, span, Some(&hints(&line.bench.archive(), span)));
            // What came in the next ten seconds may have stood before.
            let around = if is_there { 17..=18 } else { 0..=0 };
            assert!(around.contains(&seen.unsealed), "to {to}: {}", seen.unsealed);
            let whole = line.arrivals(1..3);
            let sealed = PACKETS as usize;
            assert_eq!(walls, whole[..sealed + seen.unsealed as usize], "to {to}");
        }
        // The middle of the log, its end, and more than there is of it.
        let whole = line.arrivals(2..3);
        let mut costs = Vec::new();
        for (from, to) in [(150_000, 151_000), (170_000, 1_000_000), (0, 1_000_000)] {
            let span = (line.at(from), line.at(to));
            let (seen, walls) = visit(&line, span, Some(&Hints::none_sealed(&line)));
            let wanted: Vec<Wall> =
                whole.iter().copied().filter(|at| (span.0..=span.1).contains(at)).collect();
            let begins = walls.iter().position(|at| *at == wanted[0]).expect("all of it is shown");
            assert_eq!(walls[begins..][..wanted.len()], wanted);
            let more = walls.len() - wanted.len();
            assert!(more <= 2 * 18, "{from} to {to}: {more} more");
            costs.push(seen.bytes_read);
        }
        let log: u64 = PACKETS * STREAMS * 200;
        assert!(costs[0] + log / 2 < costs[2] && costs[1] + log / 2 < costs[2], "{costs:?}");
    }
}

#[test]
fn what_is_gone_is_told_of_the_range_that_it_was_in() {
    let line = Line::new(TestDisk::default(), true, 4);
    let archive = line.bench.archive();
    let name = archive.segments().unwrap()[1];
    let key = key();
    let thinning = Thinning { now: Wall(WALL), audit: 1, key: &key };
    let fate = |row: &Row| (row.source.stream() == MINE).then(|| "short".to_owned());
    let store = Path::new(STORE);
    thinning.run(&line.bench.places(), store, name, &fate, &mut |_| ()).unwrap().unwrap();
    for (minute, gone) in [(0, 0), (1, 1), (2, 0)] {
        let from = minute * SEGMENT_MS;
        let span = (line.at(from + 1_000), line.at(from + 40_000));
        let hints = hints(&archive, span);
        for hints in [None, Some(&hints)] {
            let (seen, walls) = visit(&line, span, hints);
            assert_eq!((seen.expired.len(), walls.is_empty()), (gone, gone == 1), "{minute}");
        }
    }
}

/// What the journal says of a recording with [`MINE`] and its neighbour.
fn entry(line: &Line, ended: bool) -> RsEntry {
    let rs = RsId([5; 16]);
    let opened = |number: u16| StreamOpened {
        description: StreamDescription {
            stream: StreamId(MINE.0 + u64::from(number)),
            rs,
            line: number,
            label: Some(number.to_string()),
            media: "audio".to_owned(),
            formats: Vec::new(),
            suite: None,
            transport: "RTP/AVP".to_owned(),
            slot: Slot(u32::from(number)),
            port: 20_000,
            remote: None,
        },
        generation: Generation(1),
        active: true,
        rtcp_to: None,
        rtcp_mux: false,
        crypto: None,
        barred: None,
        address: None,
    };
    let opened = Entry::Opened {
        rs,
        at: line.at(0),
        dialog: DialogState {
            call_id: "call@src".to_owned(),
            local_tag: "l".to_owned(),
            remote_tag: "r".to_owned(),
            local_uri: "<sip:srs@192.0.2.9>".to_owned(),
            remote_uri: "<sip:src@192.0.2.1>".to_owned(),
            remote_target: "sip:src@192.0.2.1".to_owned(),
            route_set: Vec::new(),
            local_cseq: 0,
            remote_cseq: 1,
            transport: "udp".to_owned(),
            peer: ([192, 0, 2, 1], 5_060).into(),
            local: ([192, 0, 2, 9], 5_060).into(),
            identity: None,
            user: None,
            answered: None,
            update: false,
        },
        src: SrcFacts::default(),
        signalling: Signalling::Udp,
        quirks: Vec::new(),
        salt: Sealed("".into()),
        streams: vec![opened(0), opened(1)],
        own: false,
        answer: String::new(),
        answer_sdp: Sealed("".into()),
        bodies: None,
        timer: None,
        retention: None,
    };
    let at = line.at(3_600_000);
    let (by, reason) = (Origin::Src, String::new());
    let over = Entry::Ended { rs, at, by, reason, remote_cseq: 2, bye: true };
    let entries = if ended { vec![opened, over] } else { vec![opened] };
    Journalled::of(&entries).recordings.remove(&rs).expect("opened")
}

#[test]
fn an_account_of_a_part_says_of_which() {
    let line = Line::new(TestDisk::default(), true, 4);
    let store = Path::new(STORE);
    let library = Library::open(line.bench.places(), store, &store.join("journal"), None).unwrap();
    let rs = entry(&line, true);
    let span = (line.at(70_000), line.at(100_000));
    let mut seen: BTreeSet<StreamId> = BTreeSet::new();
    let mine = BTreeSet::from([MINE]);
    let visit = library
        .visit_range(&rs, Some(&mine), span.0, span.1, &mut |one| {
            seen.insert(one.record.meta.source.stream());
        })
        .unwrap();
    assert_eq!((seen, visit.records), (mine.clone(), PACKETS));
    let read = |rs: &RsEntry, streams: Option<&BTreeSet<StreamId>>, span| {
        let mut count = 0;
        let reading = library.read_range_with(rs, streams, span, &mut |_| count += 1).unwrap();
        assert_eq!(reading.damaged, []);
        (reading.recordings[0].account.clone(), count)
    };
    let (account, count) = read(&rs, Some(&mine), span);
    let account = account.expect("a part");
    assert_eq!(((account.from, account.to), count), (span, PACKETS));
    assert_eq!(account.lines, Some(vec!["0".to_owned()]));
    // All of it is no part.
    let all = (line.at(0), line.at(3_600_000));
    assert_eq!(read(&rs, None, all), (None, 2 * 5 * PACKETS));
    // Of one that runs nobody knows the end.
    let (account, count) = read(&entry(&line, false), None, all);
    assert_eq!((account.expect("a part").lines, count), (None, 2 * 5 * PACKETS));
}
