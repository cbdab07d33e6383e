//! Once all is quiet the index says what journal and records say, whatever came in which order: a
//! real spool, journal and index, and a worker that is two lines of code.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::base::counter::Cause;
use crate::base::ids::{Index as PacketIndex, Position, SourceId, Ssrc, StreamId, WorkerId};
use crate::base::ports::{Clock, Region};
use crate::base::time::{ClockMap, Mono, Wall};
use crate::host::disk::HostDisk;
use crate::host::entropy::SystemEntropy;
use crate::host::keyfile;
use crate::host::mapped::Mapped;
use crate::plane::handoff::layout::{AT_TAIL, Geometry, initialise};
use crate::plane::spool::{Spool, SpoolConfig};
use crate::shell::cmd::fixture::{self, EPOCH, MS, RS};
use crate::store::catalog::model::Recording;
use crate::store::event::{Event, Origin};
use crate::store::evidence::SigningKey;
use crate::store::journal::{Journal, KeyBox, history};
use crate::store::log;
use crate::store::record::{self, RecordKind, RecordMeta, record_bytes};
use crate::wire::rtp::Fields;

const WORKER: WorkerId = WorkerId(0);
const GEOMETRY: Geometry = Geometry { slot_count: 2, ring_bytes: 2 << 20 };
const STREAMS: [u16; 2] = [0, 1];

struct TestClock(Cell<u64>);

impl Clock for TestClock {
    fn mono(&self) -> Mono {
        Mono(self.0.get())
    }
    fn map(&self) -> ClockMap {
        ClockMap { mono: self.mono(), wall: Wall(EPOCH + self.0.get() as i64) }
    }
}

/// A store with its writers. Goes away with its folder.
struct Bench {
    root: PathBuf,
    clock: TestClock,
    ring: Mapped,
    state: Mapped,
    spool: Spool<Mapped, Mapped, HostDisk>,
    journal: Journal<HostDisk>,
    catalogue: Catalogue,
    opened: Vec<Entry>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn memory(store: &Path) -> (Mapped, Mapped) {
    let state = Mapped::anonymous("state", GEOMETRY.state_bytes()).expect("memory");
    let first = log::next_position(&HostDisk, store, WORKER).expect("readable");
    initialise(&state, 0, &GEOMETRY, first.0);
    (Mapped::anonymous("ring", GEOMETRY.ring_bytes as usize).expect("memory"), state)
}

fn spool(
    store: &Path,
    ring: &Mapped,
    state: &Mapped,
    clock: &TestClock,
) -> Spool<Mapped, Mapped, HostDisk> {
    let config = SpoolConfig {
        store: store.to_owned(),
        journal: store.join("journal"),
        spare: None,
        segment_dirs: Vec::new(),
        spares: Vec::new(),
        worker: WORKER,
        volume: [7; 16],
        commit_ms: 100,
        segment_bytes: 400_000,
        segment_ms: 300_000,
        packing: true,
    };
    let key = Arc::new(SigningKey::from_seed(&[42; 32]));
    let mut spool = Spool::open(config, ring.share(), state.share(), HostDisk, key, clock.map())
        .expect("opens");
    for line in STREAMS {
        spool.set_salt(fixture::description(line).stream, [1; 32]);
    }
    spool
}

impl Bench {
    /// A recording of two streams, accepted at 1 s.
    fn new(name: &str) -> Bench {
        let root = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let store = root.join("store");
        let folder = store.join("journal");
        std::fs::create_dir_all(&folder).expect("a temp folder");
        let (mut volume, _) = volume::open(&store, "7").expect("ours");
        let key =
            keyfile::load_or_make(&store, &mut volume, &folder, &SystemEntropy).expect("writable");
        let [start, opened, body, ..] =
            fixture::entries(&KeyBox::new(&key).expect("whole"), &[1; 32]);
        let clock = TestClock(Cell::new(1_000 * MS));
        let (ring, state) = memory(&store);
        let spool = spool(&store, &ring, &state, &clock);
        let (journal, _) =
            Journal::open(HostDisk, &folder, &history::folder(&store)).expect("empty");
        let catalogue = Catalogue {
            store,
            journal: folder,
            known: None,
            segments: 0,
            thinned: true,
            trim_at: None,
            drawer: Arc::default(),
        };
        let opened = vec![start, opened, body];
        Bench { root, clock, ring, state, spool, journal, catalogue, opened }
    }

    fn accepted(name: &str) -> Bench {
        let mut bench = Bench::new(name);
        let opened = bench.opened.clone();
        bench.journals(&opened);
        bench.open();
        for n in 0..50 {
            bench.at(1_000 + n * 20);
            for line in STREAMS {
                bench.packet(line, n);
            }
        }
        bench
    }

    fn at(&self, ms: u64) {
        assert!(ms * MS >= self.clock.0.get(), "time goes on");
        self.clock.0.set(ms * MS);
    }

    fn append(&self, source: SourceId, kind: RecordKind, index: u64, payload: &[u8]) {
        let tail = self.state.load(AT_TAIL);
        let bytes = record_bytes(payload.len());
        let left = GEOMETRY.ring_bytes - tail % GEOMETRY.ring_bytes;
        assert!(left > bytes as u64, "these tests do not go round");
        let arrival = self.clock.mono();
        let index = PacketIndex(index);
        let meta = RecordMeta { kind, flags: 0, generation: 1, source, index, arrival };
        let mut record = vec![0; bytes];
        record::write(&meta, payload, &mut record);
        self.ring.copy_in((tail % GEOMETRY.ring_bytes) as usize, &record);
        self.state.store(AT_TAIL, tail + bytes as u64);
    }

    fn event(&self, stream: StreamId, event: &Event) {
        self.append(SourceId::new(stream, 0), RecordKind::Event, 0, &event.to_payload());
    }

    fn packet(&self, line: u16, n: u64) {
        let ssrc = Ssrc(7 + u32::from(line));
        let (seq, timestamp) = (PacketIndex(n).seq(), n as u32 * 160);
        let fields = Fields { marker: false, payload_type: 0, seq, timestamp, ssrc };
        let source = SourceId::new(fixture::description(line).stream, 1);
        self.append(source, RecordKind::Rtp, n, &fields.emit());
    }

    /// What the worker has to say of itself.
    fn host(&self) {
        self.event(StreamId::host(WORKER), &Event::Clock { map: self.clock.map() });
    }

    fn open(&self) {
        for line in STREAMS {
            let description = fixture::description(line);
            self.event(description.stream, &Event::Open { description });
        }
    }

    fn close(&self) {
        for line in STREAMS {
            let close = Event::Close {
                by: Origin::Src,
                drops: Default::default(),
                socket_drops: 0,
                shared: false,
            };
            self.event(fixture::description(line).stream, &close);
        }
    }

    /// Durable, and told to the catalogue.
    fn journals(&mut self, entries: &[Entry]) {
        self.journal.append_all(entries).expect("writable");
        self.journal.sync().expect("writable");
        for entry in entries {
            assert!(!self.catalogue.note(Change::Entry(Box::new(entry.clone()))));
        }
    }

    fn ended(&self) -> Entry {
        let (at, reason) = (self.clock.map().wall, "BYE".to_owned());
        Entry::Ended { rs: RS, at, by: Origin::Src, reason, remote_cseq: 2, bye: false }
    }

    /// Media has answered the closes.
    fn closed(&mut self) {
        let (at, by) = (self.clock.map().wall, Origin::Src);
        let through = Some(Position(self.state.load(AT_TAIL)));
        let entries = STREAMS.map(|line| {
            let description = fixture::description(line);
            let (stream, slot) = (description.stream, description.slot);
            Entry::StreamClosed { rs: RS, stream, slot, at, by, through }
        });
        self.journals(&entries);
    }

    fn turns(&mut self) {
        for _ in 0..64 {
            if !self.spool.turn(&self.clock, 1).busy {
                return;
            }
        }
    }

    /// All that is in the ring goes into a segment.
    fn seals(&mut self) {
        self.spool.commit_now();
        self.spool.request_seal();
        self.turns();
        while self.spool.poll().is_some() {}
        assert!(self.spool.is_settled());
    }

    fn refresh(&mut self) {
        assert!(self.catalogue.note(Change::Sealed));
        self.catalogue.try_refresh().expect("readable");
    }

    fn kept(&self) -> Option<Recording> {
        let index = sqlite::open_read(&self.catalogue.store)?;
        index.settled(RS).expect("readable")
    }

    fn bare(&self) -> Recording {
        let (store, journal) = (&self.catalogue.store, &self.catalogue.journal);
        let library =
            Library::open(spare::places(store, journal), store, journal, None).expect("readable");
        library.recording(RS).expect("readable").expect("there")
    }

    /// Everything ends as it should, and the catalogue has what is there.
    fn comes_to_rest(&mut self) {
        self.closed();
        self.seals();
        self.refresh();
        let bare = self.bare();
        assert_eq!(bare.durable_through, bare.end);
        assert_eq!(self.kept(), Some(bare));
    }

    /// The power goes: memory is lost, and what was not in the log with it.
    fn power_cut(&mut self) {
        (self.ring, self.state) = memory(&self.catalogue.store);
        self.spool = spool(&self.catalogue.store, &self.ring, &self.state, &self.clock);
        self.turns();
        let (store, folder) = (self.catalogue.store.clone(), self.catalogue.journal.clone());
        let opened = Journal::open(HostDisk, &folder, &history::folder(&store));
        (self.journal, _) = opened.expect("readable");
        self.catalogue = Catalogue {
            store,
            journal: folder,
            known: None,
            segments: 0,
            thinned: true,
            trim_at: None,
            drawer: Arc::default(),
        };
    }

    /// Takes up its streams again, after the cut.
    fn resume(&mut self) {
        let start = self.opened[0].clone();
        self.journals(&[start]);
        self.open();
        for line in STREAMS {
            let (cause, to) = (Cause::Power, self.clock.map().wall);
            let from = Wall(EPOCH + 2_000 * MS as i64);
            self.event(fixture::description(line).stream, &Event::Gap { cause, from, to });
        }
    }
}

/// Streams are closed a grace time after the BYE: a segment that is sealed in between, and the end of
/// the RS, are not yet all of it.
#[test]
fn a_recording_does_not_settle_before_its_streams_are_closed() {
    let mut bench = Bench::accepted("grace");
    bench.at(10_000);
    let ended = bench.ended();
    bench.journals(&[ended]);
    bench.at(10_050);
    bench.host();
    bench.seals();
    bench.refresh();
    bench.at(11_500);
    bench.close();
    bench.comes_to_rest();
}

/// A close that nobody remembers: the entry of its RS's end was lost with the power. The streams go
/// on, and when their RS ends at last the new closes are in no commit group yet.
#[test]
fn a_stream_that_goes_on_after_a_close_is_not_over_before_its_last_group() {
    let mut bench = Bench::accepted("stale");
    bench.at(2_000);
    bench.close();
    bench.seals();
    bench.power_cut();
    bench.at(9_000);
    bench.resume();
    bench.at(9_050);
    let ended = bench.ended();
    bench.journals(&[ended]);
    bench.refresh();
    bench.at(9_060);
    bench.close();
    bench.comes_to_rest();
}

/// The same end, and the closes are journaled before their group is written.
#[test]
fn what_media_holds_only_in_its_ring_keeps_a_recording_from_settling() {
    let mut bench = Bench::accepted("ring");
    bench.seals();
    bench.at(9_000);
    let ended = bench.ended();
    bench.journals(&[ended]);
    bench.host();
    bench.seals();
    bench.close();
    bench.closed();
    bench.refresh();
    assert_eq!(bench.kept(), None);
    bench.comes_to_rest();
}

/// Media that died with its memory knows of no stream: its close has no position, and the log tells
/// when nothing more can come.
#[test]
fn a_stream_that_was_lost_with_the_power_settles_when_the_log_is_beyond_it() {
    let mut bench = Bench::accepted("lost");
    let ended = bench.ended();
    bench.journals(&[ended]);
    bench.seals();
    bench.power_cut();
    bench.at(9_000);
    let at = bench.clock.map().wall;
    let entries = STREAMS.map(|line| {
        let description = fixture::description(line);
        let (stream, slot, by) = (description.stream, description.slot, Origin::Src);
        Entry::StreamClosed { rs: RS, stream, slot, at, by, through: None }
    });
    bench.journals(&entries);
    bench.refresh();
    assert_eq!(bench.kept(), None, "a worker may still have had it");
    bench.at(9_200);
    bench.host();
    bench.seals();
    bench.refresh();
    let bare = bench.bare();
    assert_eq!((bench.kept(), bare.durable_through), (Some(bare.clone()), bare.end));
}

/// An end that a power cut may take back is none.
#[test]
fn nothing_settles_by_an_entry_that_is_not_durable() {
    let mut bench = Bench::accepted("unsynced");
    bench.refresh();
    bench.at(5_000);
    let ended = bench.ended();
    bench.journal.append(&ended).expect("writable");
    bench.close();
    bench.seals();
    bench.refresh();
    assert_eq!(bench.kept(), None);
    bench.journal.sync().expect("writable");
    bench.catalogue.note(Change::Entry(Box::new(ended)));
    bench.comes_to_rest();
    assert!(bench.catalogue.known.as_ref().expect("read").is_empty());
}

/// `rebuild` beside a running server empties the index; so does a version that knows it not.
#[test]
fn an_index_that_was_emptied_gets_everything_again() {
    let mut bench = Bench::accepted("emptied");
    bench.at(5_000);
    let ended = bench.ended();
    bench.journals(&[ended]);
    bench.close();
    bench.comes_to_rest();
    sqlite::open_write(&bench.catalogue.store).expect("there").clear().expect("ours");
    assert_eq!(bench.kept(), None);
    bench.refresh();
    assert_eq!(bench.kept(), Some(bench.bare()));
}
