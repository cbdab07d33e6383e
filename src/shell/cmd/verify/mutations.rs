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
//! - what is put behind the last seal of the newest journal file: so does whoever is writing to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::anchored::Anchors;
use super::held::Checked;
use super::verb::whole;
use crate::base::ids::WorkerId;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::host::{exported, signing, spare, volume};
use crate::shell::cmd::store::{Store, StoreArgs};
use crate::store::evidence::{ANCHOR_VERSION, Heads, Hex, WorkerHead};
use crate::store::journal::entry::Entry;
use crate::store::journal::{Journal, Signer, frame, history};
use crate::store::log::{LOOK_BEHIND_BYTES, scan_worker};
use crate::store::segment;

/// Without being asked for more.
const FEW: u64 = 300;
/// The recording that is in the log only.
const LOGGED: &str = "01a22dab5f7c7ef89a3b331dff860e5f";

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a temp folder");
    for entry in fs::read_dir(from).expect("checked in") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("room");
        }
    }
}

fn fresh(name: &str) -> Folder {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let path = base.join(format!("floortape-mutations-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    Folder(path)
}

/// The store of version 0.1.0, its journal written once more by today's writer: several files, a
/// history, and heads.
fn chained(name: &str) -> Folder {
    let folder = fresh(name);
    let dir = &folder.0;
    copy(&corpus("store-v1"), dir);
    for name in ["README.md", "catalog.sqlite"] {
        fs::remove_file(dir.join(name)).expect("there");
    }
    for key in ["machine.key", "signing.key"] {
        fs::set_permissions(dir.join(key), fs::Permissions::from_mode(0o600)).expect("ours");
    }
    let (journal_dir, past) = (dir.join("journal"), history::folder(dir));
    let said = crate::store::journal::read(&spare::places(dir, &journal_dir), &journal_dir, &past)
        .expect("readable");
    fs::remove_dir_all(&past).expect("there");
    for entry in fs::read_dir(&journal_dir).expect("there") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|of| of == "journal" || of == "snapshot") {
            fs::remove_file(path).expect("ours");
        }
    }
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
    let heads = Heads {
        version: ANCHOR_VERSION,
        at: Wall(1_796_062_540_000_000_000),
        volume,
        workers: vec![WorkerHead { worker: 0, segment: trailer.number, head: Hex(trailer.head) }],
        journal: journal.head(),
        audit: None,
        key: Hex([0; 32]),
    };
    let line = format!("{}\n", heads.sign(&key).line());
    fs::write(dir.join("evidence/heads"), line).expect("room");
    for entry in fs::read_dir(&journal_dir).expect("there") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|of| of == "snapshot") {
            fs::remove_file(path).expect("ours");
        }
    }
    folder
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
    for folder in ["segments", "journal", "history", "evidence"] {
        for entry in fs::read_dir(dir.join(folder)).expect("there") {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a name").to_str().expect("text").to_owned();
            if name != "volume.json" {
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
            let to = from + crate::store::log::GROUP_HEADER_BYTES + group.header.bytes as usize;
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
        8 if !is_export && (name.starts_with("journal/") || name.starts_with("history/")) => {
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
        8 if !is_export && name.starts_with("segments/") => {
            let file = spare::places(dir, &dir.join("journal"));
            let read = crate::base::ports::Disk::open_read(&file, &dir.join(name)).expect("there");
            let footer = segment::read_trailer(&read)
                .and_then(|trailer| segment::read_footer(&read, trailer))
                .expect("sound");
            let rows = &footer.rows;
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
                "segments" => format!("segments/w0-{next:010}.seg"),
                folder => format!("{folder}/{next:08}.{folder}"),
            };
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
    let folder = chained("store");
    let dir = &folder.0;
    assert_eq!(judged(dir), None, "sound");
    let counted = counted(dir);
    for kind in ["segments/", "journal/", "history/", "evidence/", "log/"] {
        assert!(counted.keys().any(|name| name.starts_with(kind)), "{kind} in {counted:?}");
    }
    let newest =
        counted.keys().rfind(|name| name.starts_with("journal/") && name.ends_with(".journal"));
    let newest = dir.join(newest.expect("some"));
    let (mut made, mut unfound, mut unnamed) = (0, Vec::<String>::new(), Vec::<String>::new());
    for seed in 0.. {
        if made >= asked() {
            break;
        }
        let Some(mutation) = mutate(dir, &mut Prng::new(seed), &counted, false) else { continue };
        if mutation.is_behind(&newest) {
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
        // cut by worker and number; anything else by its file.
        let names = |text: &str| {
            let words = ["stream ", "positions", "rolled back"];
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
    let folder = fresh("export");
    let dir = &folder.0;
    copy(&corpus("export-v1"), dir);
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
    let (earlier, later) = (chained("earlier"), fresh("later"));
    copy(&earlier.0, &later.0);
    for key in ["machine.key", "signing.key"] {
        fs::set_permissions(later.0.join(key), fs::Permissions::from_mode(0o600)).expect("ours");
    }
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
