//! A store and an export, each changed a little, over and over: whatever bit is flipped, whatever file,
//! frame, extent or block is taken away, doubled, swapped or cut, `verify` says so and names it.
//!
//! `MUTATIONS=10000 cargo test --release --lib mutations` makes as many of each; without it there are a
//! few hundred. Seeds count from 0, so a failure repeats.
//!
//! Left out, because nothing that anybody is told rests on it:
//! - the catalogue: derived, made anew when it is damaged, and `verify` asks it only for segments that are
//!   gone;
//! - snapshots of the journal: derived; one that fails a sum is not there, and the journal says it all;
//! - `lock`, `running`, `run/`, `journal/reserve`, `evidence/scrub`: state of a run;
//! - `signing.key`: a secret that `verify` does not ask for; a start with another one is refused;
//! - in `volume.json` all but the id: numbers that starts have used up, and where folders are;
//! - log files of the pool, what of a log is in segments already, what lies between its groups, and what
//!   came behind the last mark of the journal: a power cut may leave it so;
//! - what is put behind the last seal of the newest journal file, or behind the last entry of the audit trail: so
//!   does whoever is writing to it;
//! - a file of the audit trail that says again what the one before says: so does whoever writes and cannot know
//!   whether that is on the disk;
//! - a thinned segment beside the whole one: that counts, as long as it is there.

#[path = "../../../../tests/old/mod.rs"]
mod old;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use old::{Folder, copy};

use super::anchored::Anchors;
use super::held::Checked;
use super::verb::whole;
use crate::base::ids::{Position, SourceId, StreamId, WorkerId};
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::host::disk::HostDisk;
use crate::host::spare::StoreDisk;
use crate::host::{audit, exported, signing, spare, volume};
use crate::shell::cmd::store::{Store, StoreArgs, salt};
use crate::store::audit::{Act, Head, Who, Writer, action};
use crate::store::event::Event;
use crate::store::evidence::{ANCHOR_VERSION, AuditHead, Heads, Hex, WorkerHead};
use crate::store::journal::entry::Entry;
use crate::store::journal::{Journal, Signer, frame, history};
use crate::store::log::{LOOK_BEHIND_BYTES, scan_worker};
use crate::store::record;
use crate::store::segment::{
    self, Emitter, Footer, Row, SegmentFacts, SegmentName, Span, Thinning,
};

/// Without being asked for more.
const FEW: u64 = 300;
/// When the heads were written.
const AT: i64 = 1_796_062_540_000_000_000;
/// Of four segments.
const LAST_SEGMENT: u64 = 4;
/// The recording that is in the log only.
const LOGGED: &str = "01a22dab5f7c7ef89a3b331dff860e5f";

/// Where nothing but the tests has to be fast.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

/// The store of version 0.1.0, its journal written once more by today's writer: several files, a
/// history, and heads.
fn chained(of: &str) -> Folder {
    let folder = Folder::store(&memory(), &format!("mutations-{of}"));
    fs::remove_file(folder.0.join("catalog.sqlite")).expect("there");
    journal_again(&folder.0);
    folder
}

/// The same with all else written by today's writers, too: extents are packed, the audit trail tells of a hold
/// and of what has gone, its head stands in a segment, and one line of segment 2 is gone by retention.
fn renewed(of: &str) -> Folder {
    let folder = Folder::store(&memory(), &format!("mutations-{of}"));
    let dir = &folder.0;
    fs::remove_file(dir.join("catalog.sqlite")).expect("there");
    let who = || Who { uid: 7, user: "carol".to_owned(), role: "compliance".to_owned() };
    let act = |number, action: &str, object: &str| {
        Act::new(Wall(AT - 1_000 + number), who(), action, object)
    };
    let volume = volume::read(dir).expect("there").id;
    fs::create_dir(crate::store::audit::folder(dir)).expect("room");
    let mut trail = Writer::new(HostDisk, dir, &volume);
    trail.set_file_bytes(600);
    let mut record = |act: Act| trail.append(act).expect("room");
    let query = serde_json::json!({"recordings": [LOGGED]});
    record(act(1, action::LISTEN, LOGGED).because("a complaint"));
    record(act(2, action::HOLD_ADD, "").because("case 7").with("query", query));
    pack_again(dir, audit::head(dir).expect("readable").expect("durable"));
    let gone = record(act(3, action::RETENTION_EXPIRED, "").with("class", "short"));
    record(act(4, action::HOLD_RM, "2").because("settled"));
    let (second, key) = (SegmentName { worker: WorkerId(0), number: 2 }, signing::load(dir));
    let thinning = Thinning { now: gone.at, audit: gone.number, key: &key.expect("there") };
    let places = spare::places(dir, &dir.join("journal"));
    let rows = footer(&places, dir, second).rows;
    let lines: BTreeSet<_> = rows.iter().map(|row| row.source.stream()).collect();
    let line = lines.first();
    let fate = |row: &Row| (Some(&row.source.stream()) == line).then(|| "short".to_owned());
    let report = thinning.run(&places, dir, second, &fate, &mut |_| ()).expect("room");
    let report = report.expect("a line");
    assert!(report.gone > 0 && report.kept > 0, "{report:?}");
    journal_again(dir);
    folder
}

fn footer(places: &StoreDisk, dir: &Path, name: SegmentName) -> segment::Footer {
    let file = segment::open_segment(places, dir, name).expect("there");
    segment::read_trailer(&file)
        .and_then(|trailer| segment::read_footer(&file, trailer))
        .expect("sound")
}

/// Writes the segments once more, packed, with the same records, and the newest one with `head` as its recorder
/// would have told it.
fn pack_again(dir: &Path, head: Head) {
    let places = spare::places(dir, &dir.join("journal"));
    let key = signing::load(dir).expect("there");
    let store = store(dir);
    let keys = store.keys().expect("there");
    let library = store.bare_library().expect("readable");
    let salts: BTreeMap<_, _> = library
        .journalled()
        .expect("readable")
        .recordings
        .values()
        .flat_map(|rs| rs.streams.keys().map(|stream| (*stream, salt(&keys, rs))))
        .collect();
    let names = segment::list(&places, dir).expect("readable");
    let mut previous = [0; 32];
    for name in &names {
        let file = segment::open_segment(&places, dir, *name).expect("there");
        let Footer { trailer, rows, clocks } = footer(&places, dir, *name);
        let mut span = Span::new(trailer.from);
        clocks.iter().for_each(|map| span.add_clock(*map));
        let mut ring = Vec::new();
        for row in &rows {
            let extent = segment::read_extent(&file, row.offset, row.bytes).expect("sound");
            let mut at = 0;
            while at < extent.records.len() {
                let record = record::read(&extent.records[at..]).expect("sound");
                span.add(Position(trailer.from.0 + (ring.len() + at) as u64), &record);
                at += record.raw.len();
            }
            ring.extend(extent.records);
        }
        span.through = trailer.through;
        if Some(name) == names.last() {
            let host = SourceId::new(StreamId::host(WorkerId(0)), 0);
            let last = rows.iter().map(|row| row.last_arrival).max().expect("some");
            span.add_own(host, last, &Event::Audit { head });
        }
        let facts = SegmentFacts {
            worker: trailer.worker,
            volume: trailer.volume,
            number: trailer.number,
            created: trailer.created,
            previous,
            packed: true,
        };
        let emitter = Emitter::new(facts, span, |stream| salts.get(&stream).copied().flatten());
        let bytes = emitter.expect("its salts are known").all(&key, &mut |at, out| {
            let at = (at.0 - trailer.from.0) as usize;
            out.copy_from_slice(&ring[at..at + out.len()]);
            Ok(())
        });
        fs::write(segment::folder(dir).join(name.file()), bytes.expect("memory")).expect("room");
        previous = footer(&places, dir, *name).trailer.head;
    }
}

/// Writes the journal once more, and heads of all that is there.
fn journal_again(dir: &Path) {
    let (journal_dir, past) = (dir.join("journal"), history::folder(dir));
    let said = crate::store::journal::read(&spare::places(dir, &journal_dir), &journal_dir, &past)
        .expect("readable");
    fs::remove_dir_all(&past).expect("there");
    remove_each(&journal_dir, &["journal", "snapshot"]);
    let volume = volume::read(dir).expect("there").id;
    let key = Arc::new(signing::load(dir).expect("there"));
    let places = spare::places(dir, &journal_dir);
    let (mut journal, _) = Journal::open(places.clone(), &journal_dir, &past).expect("empty");
    journal.sign_by(Signer { key: Arc::clone(&key), volume: volume.clone() });
    journal.set_file_bytes(600);
    let mut has_start = false;
    for entry in &said.entries {
        let mut entry = entry.clone();
        if let Entry::Start { kept, .. } = &mut entry {
            if std::mem::replace(&mut has_start, true) {
                continue;
            }
            *kept = false;
        }
        journal.append(&entry).and_then(|()| journal.sync()).expect("room");
        // An acceptance is written as a whole.
        if entry.rs().is_some_and(|rs| rs.to_string() == LOGGED) {
            continue;
        }
        journal.snapshot().expect("room");
        if let Some(compaction) = journal.compaction() {
            compaction.run().expect("room");
        }
    }
    journal.seal().and_then(|()| journal.sync()).expect("room");
    let (_, trailer) = segment::last_segment(&places, dir, WorkerId(0)).expect("readable");
    let trailer = trailer.expect("four segments");
    let trail = crate::store::audit::folder(dir)
        .is_dir()
        .then(|| audit::head(dir).expect("readable"))
        .flatten();
    let heads = Heads {
        version: ANCHOR_VERSION,
        at: Wall(AT),
        volume,
        workers: vec![WorkerHead { worker: 0, segment: trailer.number, head: Hex(trailer.head) }],
        journal: journal.head(),
        audit: trail.map(|head| AuditHead { number: head.number, sha256: Hex(head.hash) }),
        key: Hex([0; 32]),
    };
    let line = format!("{}\n", heads.sign(&key).line());
    fs::write(dir.join("evidence/heads"), line).expect("room");
    remove_each(&journal_dir, &["snapshot"]);
}

fn remove_each(folder: &Path, extensions: &[&str]) {
    for entry in fs::read_dir(folder).expect("there") {
        let path = entry.expect("readable").path();
        let extension = path.extension().and_then(|of| of.to_str());
        if extension.is_some_and(|of| extensions.contains(&of)) {
            fs::remove_file(path).expect("ours");
        }
    }
}

fn store(dir: &Path) -> Store {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        store: StoreArgs,
    }
    let words = ["floortape", "--store", dir.to_str().expect("text")];
    <Line as clap::Parser>::parse_from(words).store.find().expect("a store")
}

/// What `verify --all` says, if anything is wrong.
fn judged(dir: &Path) -> Option<String> {
    let store = store(dir);
    let mut anchors = Anchors::own(dir);
    anchors.read(&[]).expect("none");
    let Checked { reports, elsewhere, unreadable, unsure } =
        match whole(&store, &anchors, Duration::ZERO) {
            Ok(checked) => checked,
            Err(failure) => return Some(format!("{:#}", failure.error)),
        };
    let bad = reports.iter().filter(|report| !report.is_good(false));
    let mut text: String = bad.map(|report| report.text()).collect();
    text.extend(elsewhere.iter().map(|fault| format!("{fault}\n")));
    if unreadable || unsure {
        text.push_str("volume.json or machine.key is not this store's\n");
    }
    (!text.is_empty()).then_some(text)
}

/// All of a file.
fn one(bytes: usize) -> Vec<std::ops::Range<usize>> {
    std::iter::once(0..bytes).collect()
}

/// The bytes of each file that count, by its path.
fn counted(dir: &Path) -> BTreeMap<String, Vec<std::ops::Range<usize>>> {
    let mut all = BTreeMap::new();
    for folder in ["segments", "journal", "history", "evidence", "audit"] {
        for entry in fs::read_dir(dir.join(folder)).into_iter().flatten() {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a name").to_str().expect("text").to_owned();
            if name != "volume.json" && name != "lock" {
                let bytes = fs::metadata(&path).expect("there").len() as usize;
                all.insert(format!("{folder}/{name}"), one(bytes));
            }
        }
    }
    all.insert("machine.key".to_owned(), one(32));
    let places = spare::places(dir, &dir.join("journal"));
    let sealed = segment::sealed_through(&places, dir, WorkerId(0)).expect("readable");
    let marks = crate::store::journal::marks(&places, &dir.join("journal")).expect("readable");
    let promised = marks[&WorkerId(0)].durable;
    for scan in scan_worker(&places, dir, WorkerId(0), LOOK_BEHIND_BYTES).expect("readable") {
        let mine = scan
            .groups
            .iter()
            .filter(|group| group.header.end() > sealed && group.header.end() <= promised);
        for group in mine {
            let name = group.path.file_name().expect("a name").to_str().expect("text");
            let from = group.offset as usize;
            let to =
                from + crate::store::log::GROUP_HEADER_BYTES + group.header.stored_bytes() as usize;
            all.entry(format!("log/w0/{name}")).or_default().push(from..to);
        }
    }
    all
}

/// One change of a folder. Whole files as they were are put back by [`Mutation::undo`].
struct Mutation {
    what: String,
    /// Path and what it held; `None`: it was not there.
    before: Vec<(PathBuf, Option<Vec<u8>>)>,
}

impl Mutation {
    fn of(what: String, dir: &Path, changes: Vec<(String, Option<Vec<u8>>)>) -> Option<Self> {
        let mut before = Vec::new();
        let mut differs = false;
        for (name, bytes) in changes {
            let path = dir.join(name);
            let held = fs::read(&path).ok();
            differs |= held != bytes;
            match &bytes {
                Some(bytes) => overwrite(&path, bytes),
                None => fs::remove_file(&path).expect("there"),
            }
            before.push((path, held));
        }
        let mutation = Mutation { what, before };
        if differs {
            return Some(mutation);
        }
        mutation.undo();
        None
    }

    /// Whether it only put something behind the end of that file: a journal's last seal covers what is
    /// before it.
    fn is_behind(&self, newest: &Path) -> bool {
        let [(path, Some(held))] = &self.before[..] else { return false };
        path == newest && fs::read(path).is_ok_and(|found| found.starts_with(held))
    }

    fn undo(self) {
        for (path, bytes) in self.before.into_iter().rev() {
            match bytes {
                Some(bytes) => overwrite(&path, &bytes),
                None => fs::remove_file(&path).expect("ours"),
            }
        }
    }
}

fn overwrite(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("room");
    if path.extension().is_some_and(|of| of == "key") {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
    }
}

/// A random position among ranges.
fn position(prng: &mut Prng, ranges: &[std::ops::Range<usize>]) -> usize {
    let whole: usize = ranges.iter().map(ExactSizeIterator::len).sum();
    let mut at = prng.below(whole as u64) as usize;
    for range in ranges {
        if at < range.len() {
            return range.start + at;
        }
        at -= range.len();
    }
    unreachable!("below the sum of all")
}

/// The frames of a file of the journal or the history.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let Some((_, size)) = frame::read::<serde_json::Value>(&bytes[at..]) else { break };
        found.push(at..at + size);
        at += size;
    }
    found
}

/// A random change. `None`: it would have changed nothing that counts.
fn mutate(
    dir: &Path,
    prng: &mut Prng,
    counted: &BTreeMap<String, Vec<std::ops::Range<usize>>>,
    is_export: bool,
) -> Option<Mutation> {
    let names: Vec<&String> = counted.keys().collect();
    let pick = |prng: &mut Prng| names[prng.below(names.len() as u64) as usize];
    let name = pick(prng);
    let ranges = &counted[name];
    let held = fs::read(dir.join(name)).expect("there");
    let is_log = name.starts_with("log/");
    let one = |what: String, bytes: Vec<u8>| {
        Mutation::of(format!("{name}: {what}"), dir, vec![(name.clone(), Some(bytes))])
    };
    match prng.below(10) {
        // Half of all are flips.
        0..=3 => {
            let at = position(prng, ranges);
            let bit = prng.below(8);
            let mut bytes = held;
            bytes[at] ^= 1 << bit;
            one(format!("bit {bit} of byte {at}"), bytes)
        }
        4 => {
            let what = format!("{name}: gone");
            Mutation::of(what, dir, vec![(name.clone(), None)])
        }
        5 => {
            let at = position(prng, ranges);
            one(format!("cut at byte {at}"), held[..at].to_vec())
        }
        6 => {
            let other = pick(prng);
            let theirs = fs::read(dir.join(other)).expect("there");
            let what = format!("{name} and {other}: swapped");
            Mutation::of(what, dir, vec![(name.clone(), Some(theirs)), (other.clone(), Some(held))])
        }
        7 if is_log => {
            let at = position(prng, ranges);
            let mut bytes = held;
            let to = (at + 64).min(bytes.len());
            bytes[at..to].fill(0);
            one(format!("zeros from byte {at} to {to}"), bytes)
        }
        // Blocks within the file: swapped, doubled, taken out.
        7 => {
            let block = [128, 512, 4_096][prng.below(3) as usize].min(held.len() / 2).max(1);
            let count = held.len() / block;
            let (from, to) = (prng.below(count as u64) as usize, prng.below(count as u64) as usize);
            let (from, to) = (from * block, to * block);
            let mut bytes = held.clone();
            let what = match prng.below(3) {
                0 => {
                    bytes[from..from + block].copy_from_slice(&held[to..to + block]);
                    bytes[to..to + block].copy_from_slice(&held[from..from + block]);
                    "swapped"
                }
                1 => {
                    let again = held[from..from + block].to_vec();
                    bytes.splice(to..to, again);
                    "doubled"
                }
                _ => {
                    bytes.drain(from..from + block);
                    "taken out"
                }
            };
            one(format!("{block} bytes at {from} (and {to}) {what}"), bytes)
        }
        // Frames with right sums: swapped, doubled, taken out, written over.
        8 if !is_export
            && ["journal/", "history/", "audit/"].iter().any(|of| name.starts_with(of)) =>
        {
            let found = frames(&held);
            let (one_of, other) = (
                found[prng.below(found.len() as u64) as usize].clone(),
                found[prng.below(found.len() as u64) as usize].clone(),
            );
            let mut order: Vec<&[u8]> = found.iter().map(|frame| &held[frame.clone()]).collect();
            let place = |frame: &std::ops::Range<usize>| {
                found.iter().position(|known| known == frame).expect("one of them")
            };
            let (from, to) = (place(&one_of), place(&other));
            let what = match prng.below(4) {
                0 => {
                    order.swap(from, to);
                    "swapped"
                }
                1 => {
                    order.insert(to, &held[one_of.clone()]);
                    "doubled"
                }
                2 => {
                    order.remove(from);
                    "taken out"
                }
                _ => {
                    order[to] = &held[one_of.clone()];
                    "written over"
                }
            };
            one(format!("frames {from} (and {to}) {what}"), order.concat())
        }
        // A segment's extents, whole: one in the place of another.
        8 if !is_export && name.ends_with(".seg") => {
            let file = Path::new(name).file_name().expect("a name").to_str().expect("text");
            let of = SegmentName::parse(file).expect("a segment");
            let rows = footer(&spare::places(dir, &dir.join("journal")), dir, of).rows;
            let (from, to) = (
                rows[prng.below(rows.len() as u64) as usize],
                rows[prng.below(rows.len() as u64) as usize],
            );
            let bytes = from.bytes.min(to.bytes) as usize;
            let mut changed = held.clone();
            let (a, b) = (from.offset as usize, to.offset as usize);
            changed[b..b + bytes].copy_from_slice(&held[a..a + bytes]);
            one(format!("extent at {a} over the one at {b}"), changed)
        }
        // A file that was never there: a copy under the next name.
        9 if !is_export && !is_log && !name.starts_with("evidence") && name != "machine.key" => {
            let digits: String = name.chars().filter(char::is_ascii_digit).collect();
            let next = prng.below(40) + 1;
            let fresh = match name.split_once('/').expect("a folder").0 {
                // Beside a whole one a thinned one does not count: its making was not finished.
                "segments" if name.ends_with(".kept") && next > LAST_SEGMENT => {
                    format!("segments/w0-{next:010}.kept")
                }
                "segments" => format!("segments/w0-{next:010}.seg"),
                folder => format!("{folder}/{next:08}.{folder}"),
            };
            // Says again what the newest one says.
            if fresh.starts_with("audit/")
                && counted.range(..fresh.clone()).next_back().map(|one| one.0) == Some(name)
            {
                return None;
            }
            let what = format!("{fresh}: a copy of {digits}");
            (!dir.join(&fresh).exists())
                .then(|| Mutation::of(what, dir, vec![(fresh, Some(held))]))?
        }
        _ => {
            let at = position(prng, ranges);
            let mut bytes = held;
            bytes[at] = prng.next_u64() as u8;
            one(format!("byte {at} is another"), bytes)
        }
    }
}

fn asked() -> u64 {
    std::env::var("MUTATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(FEW)
}

#[test]
fn every_mutation_of_a_store_is_found_and_named() {
    all_are_found(&chained("store"), &["segments/", "journal/", "history/", "evidence/", "log/"]);
}

#[test]
fn every_mutation_of_a_packed_and_thinned_store_is_found_and_named() {
    let kinds = ["segments/", ".kept", "journal/", "history/", "evidence/", "audit/", "log/"];
    all_are_found(&renewed("renewed"), &kinds);
}

/// Changes the store in `folder` over and over. `kinds`: there are files of each, and they are among those that
/// are changed.
fn all_are_found(folder: &Folder, kinds: &[&str]) {
    let dir = &folder.0;
    assert_eq!(judged(dir), None, "sound");
    let counted = counted(dir);
    for kind in kinds {
        assert!(counted.keys().any(|name| name.contains(kind)), "{kind} in {counted:?}");
    }
    // Of these more may follow.
    let newest: Vec<PathBuf> = ["journal/", "audit/"]
        .iter()
        .filter_map(|folder| counted.keys().rfind(|name| name.starts_with(folder)))
        .map(|name| dir.join(name))
        .collect();
    let (mut made, mut unfound, mut unnamed) = (0, Vec::<String>::new(), Vec::<String>::new());
    for seed in 0.. {
        if made >= asked() {
            break;
        }
        let Some(mutation) = mutate(dir, &mut Prng::new(seed), &counted, false) else { continue };
        if newest.iter().any(|newest| mutation.is_behind(newest)) {
            mutation.undo();
            continue;
        }
        made += 1;
        let said = judged(dir);
        let what = format!("seed {seed}: {}", mutation.what);
        // Of two that have changed places one will do: a log that is no log any more is missed by what
        // the journal says, which may be the other one.
        let stem = |path: &PathBuf| {
            let file = path.file_name().expect("a name").to_str().expect("text");
            file.split('.').next().expect("some").to_owned()
        };
        let stems: Vec<String> = mutation.before.iter().map(|(path, _)| stem(path)).collect();
        mutation.undo();
        // A recording's media by line and second, what is gone of a log by its positions, a chain that was
        // cut by worker and number, the trail by its entry; anything else by its file.
        let names = |text: &str| {
            let words = ["stream ", "positions", "rolled back", "audit trail"];
            let mut all = words.into_iter().chain(stems.iter().map(String::as_str));
            all.any(|words| text.contains(words))
        };
        match said {
            None => unfound.push(what),
            Some(text) if !names(&text) => unnamed.push(format!("{what}: {text}")),
            Some(_) => {}
        }
    }
    assert_eq!(judged(dir), None, "put back");
    println!("{made} mutations, {} not found, {} not named", unfound.len(), unnamed.len());
    assert!(unfound.is_empty(), "{} of {made} not found:\n{}", unfound.len(), unfound.join("\n"));
    assert!(unnamed.is_empty(), "{} of {made} not named:\n{}", unnamed.len(), unnamed.join("\n"));
}

#[test]
fn every_mutation_of_an_export_is_found_and_named() {
    let folder = Folder::export(&memory(), "mutations-export");
    let dir = &folder.0;
    let sound = exported::check(dir, None).expect("an export");
    assert!(sound.is_good(), "{:?}", sound.faults);
    let files = exported::files(dir).expect("readable");
    let counted = files.into_iter().map(|file| (file.path, one(file.bytes as usize))).collect();
    let (mut made, mut unfound) = (0, Vec::new());
    for seed in 0.. {
        if made >= asked() {
            break;
        }
        let Some(mutation) = mutate(dir, &mut Prng::new(seed), &counted, true) else { continue };
        made += 1;
        let is_manifest = mutation.what.contains("manifest.json");
        let found = exported::check(dir, None);
        let name =
            mutation.before[0].0.file_name().expect("a name").to_str().expect("text").to_owned();
        let named = match &found {
            // Without its manifest it is no export.
            Err(_) => is_manifest,
            Ok(found) if found.is_good() => false,
            Ok(found) => is_manifest || found.faults.iter().any(|fault| fault.contains(&name)),
        };
        if !named {
            unfound.push(format!("seed {seed}: {}: {found:?}", mutation.what));
        }
        mutation.undo();
    }
    assert!(exported::check(dir, None).expect("an export").is_good(), "put back");
    assert!(unfound.is_empty(), "{} of {made}:\n{}", unfound.len(), unfound.join("\n"));
}

/// A whole store put back to an earlier state holds together: only a log outside of it knows.
#[test]
fn a_store_that_was_rolled_back_is_found_by_the_last_anchor_and_without_one_verify_says_so() {
    let (earlier, later) = (chained("earlier"), Folder::new(&memory(), "mutations-later"));
    copy(&earlier.0, &later.0);
    let dir = &later.0;
    let journal_dir = dir.join("journal");
    let key = Arc::new(signing::load(dir).expect("there"));
    let volume = volume::read(dir).expect("there").id;
    let places = spare::places(dir, &journal_dir);
    let (mut journal, _) =
        Journal::open(places.clone(), &journal_dir, &history::folder(dir)).expect("there");
    journal.sign_by(Signer { key: Arc::clone(&key), volume: volume.clone() });
    let (at, kept) = (Wall(1_796_062_600_000_000_000), false);
    let start = Entry::Start { version: 1, volume: volume.clone(), at, kept, before: None };
    journal
        .append(&start)
        .and_then(|()| journal.seal())
        .and_then(|()| journal.sync())
        .expect("room");
    let (_, trailer) = segment::last_segment(&places, dir, WorkerId(0)).expect("readable");
    let mut head = trailer.map(|found| (found.number, found.head)).expect("four segments");
    let heads = |(segment, head): (u64, [u8; 32]), journal| Heads {
        version: ANCHOR_VERSION,
        at,
        volume: volume.clone(),
        workers: vec![WorkerHead { worker: 0, segment, head: Hex(head) }],
        journal,
        audit: None,
        key: Hex([0; 32]),
    };
    let log = |name: &str, line: String| {
        let path = later.0.join(name);
        fs::write(&path, format!("{line}\n")).expect("room");
        path
    };
    let said = |dir: &Path, log: &Path| {
        let mut anchors = Anchors::own(dir);
        anchors.read(&[log.to_owned()]).expect("anchors");
        let checked = whole(&store(dir), &anchors, Duration::ZERO).expect("readable");
        let proven: Vec<String> = checked.reports.into_iter().map(|one| one.proven).collect();
        (checked.elsewhere, proven)
    };
    let of_now = log("anchor.now", heads(head, journal.head()).sign(&key).line());
    let (faults, proven) = said(dir, &of_now);
    assert_eq!(faults, Vec::<String>::new());
    assert_eq!(proven[0], "proven up to checkpoint 2, anchored 2026-11-30T18:16:40.000000000Z");
    // The journal was rolled back.
    let (faults, _) = said(&earlier.0, &of_now);
    let [fault] = &faults[..] else { panic!("one: {faults:?}") };
    assert!(fault.contains("was the newest, and is gone"), "{fault}");
    // Segments as well.
    head.0 += 3;
    let of_later = log("anchor.later", heads(head, journal.head()).sign(&key).line());
    let (faults, proven) = said(&earlier.0, &of_later);
    let expected = "rolled back: the anchor of 2026-11-30T18:16:40.000000000Z says segment 7 of worker 0, \
                    the store ends at 4";
    assert!(faults.iter().any(|fault| fault == expected), "{faults:?}");
    assert_eq!(proven.len(), 2);
    // Without a log outside nothing is wrong, and what that is worth is said.
    assert_eq!(judged(&earlier.0), None);
    let anchors = Anchors::own(&earlier.0);
    let checked = whole(&store(&earlier.0), &anchors, Duration::ZERO).expect("readable");
    assert_eq!(
        checked.reports[0].proven,
        "proven up to checkpoint 2; not anchored: a roll-back to before it would not show"
    );
    // Another history, another store's key, and a changed byte.
    head = (4, [9; 32]);
    let (faults, _) = said(dir, &log("anchor.other", heads(head, None).sign(&key).line()));
    assert!(faults[0].contains("w0-0000000004.seg is another one than the anchor"), "{faults:?}");
    let stranger = crate::store::evidence::SigningKey::from_seed(&[1; 32]);
    let (faults, _) = said(dir, &log("anchor.key", heads(head, None).sign(&stranger).line()));
    assert!(faults[0].contains("a key that is not this store's"), "{faults:?}");
    let line = heads(head, None).sign(&key).line().replace("\"segment\":4", "\"segment\":5");
    let (faults, _) = said(dir, &log("anchor.changed", line));
    assert!(faults[0].ends_with("not signed by the key that it names"), "{faults:?}");
}
