//! What `verify` says about a store, beyond its exit code.

use std::time::Duration;

use clap::Parser;

use super::anchored::Anchors;
use super::held::{self, Checked};
use super::report::{Integrity, Report};
use super::touched::Touched;
use super::verb;
use crate::base::ids::RsId;
use crate::base::time::Wall;
use crate::shell::cmd::fixture::{Fixture, RS};
use crate::shell::cmd::rebuild;
use crate::shell::cmd::store::{Store, StoreArgs};
use crate::store::catalog::model::Source;
use crate::store::journal::entry::Entry;
use crate::store::segment::SegmentName;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    store: StoreArgs,
}

#[derive(Parser)]
struct Rebuild {
    #[command(flatten)]
    args: rebuild::Args,
}

fn words(fixture: &Fixture) -> [String; 3] {
    ["floortape".to_owned(), "--store".to_owned(), fixture.store().display().to_string()]
}

fn store(fixture: &Fixture) -> Store {
    Line::parse_from(words(fixture)).store.find().expect("the fixture's store")
}

fn check(fixture: &Fixture) -> Checked {
    let store = store(fixture);
    let library = store.bare_library().expect("readable");
    let all: Vec<_> = library.journalled().expect("readable").recordings.values().collect();
    held::check(&store, &library, &all, true, &Anchors::own(&store.dir)).expect("checked")
}

fn flip(fixture: &Fixture, at: usize) {
    let mut bytes = std::fs::read(fixture.segment()).expect("there");
    bytes[at] ^= 1;
    std::fs::write(fixture.segment(), bytes).expect("ours");
}

#[test]
fn a_sound_recording_is_proven_up_to_its_own_checkpoint() {
    let checked = check(&Fixture::new("sound"));
    assert_eq!(checked.reports[0].integrity, Integrity::Ok);
    assert_eq!(
        checked.reports[0].proven,
        "proven up to checkpoint 1; not anchored: a roll-back to before it would not show"
    );
    assert!(checked.elsewhere.is_empty());
}

#[test]
fn damaged_records_are_told_once_with_their_time() {
    let fixture = Fixture::new("once");
    let half = std::fs::metadata(fixture.segment()).expect("there").len() as usize / 2;
    flip(&fixture, half);
    let report = &check(&fixture).reports[0];
    assert_eq!((report.integrity, &*report.proven), (Integrity::Bad, "not proven"));
    let [damaged] = &report.damaged[..] else { panic!("one extent: {:?}", report.damaged) };
    assert!(damaged.from.is_some() && damaged.from <= damaged.to);
    assert!(damaged.ssrc.is_some() && !damaged.label.is_empty());
}

#[test]
fn without_the_machine_key_all_is_checked_that_needs_no_salt() {
    let fixture = Fixture::new("no-salt");
    let key = crate::host::keyfile::path(&fixture.store());
    std::fs::write(&key, [3; 32]).expect("ours");
    let report = |damaged: usize, why: &str| {
        let checked = check(&fixture);
        assert!(checked.unsure && checked.elsewhere.is_empty());
        let [report] = &checked.reports[..] else { panic!("one recording") };
        assert_eq!((report.integrity, &*report.proven), (Integrity::Bad, "not proven"));
        assert_eq!((report.damaged.len(), &report.faults[..]), (damaged, &[why.to_owned()][..]));
    };
    report(0, "the machine key does not open its salt");
    std::fs::remove_file(&key).expect("ours");
    report(0, "its salt is sealed by the machine key");
    flip(&fixture, std::fs::metadata(fixture.segment()).expect("there").len() as usize / 2);
    report(1, "its salt is sealed by the machine key");
}

#[test]
fn signatures_are_held_against_the_key_that_the_store_shows() {
    let fixture = Fixture::new("shown-key");
    let (key, other) = (crate::host::signing::path(&fixture.store()), Fixture::new("other-key"));
    std::fs::remove_file(&key).expect("there");
    assert_eq!(check(&fixture).reports[0].integrity, Integrity::Ok, "whatever became of the key");
    std::fs::copy(crate::host::signing::path(&other.store()), &key).expect("ours");
    assert_eq!(check(&fixture).reports[0].integrity, Integrity::Ok);
    let shown = |fixture: &Fixture| fixture.store().join("evidence/signing.pub");
    std::fs::copy(shown(&other), shown(&fixture)).expect("ours");
    assert_eq!(check(&fixture).reports[0].integrity, Integrity::Bad, "another signer's");
}

#[test]
fn what_no_signature_covers_is_told_where_it_is_damaged() {
    let fixture = Fixture::new("aside");
    let dir = fixture.store();
    assert_eq!(check(&fixture).elsewhere, [""; 0]);
    std::fs::write(dir.join("journal/00000007.snapshot"), "no frame").expect("ours");
    assert_eq!(store(&fixture).broken_snapshots(), ["00000007.snapshot"]);
    assert_eq!(check(&fixture).elsewhere, [""; 0], "it is derived");
    let said = std::fs::read_to_string(dir.join("volume.json")).expect("there");
    let changed = said.replacen('{', "{\"sparet\": [\"/mnt\"],", 1);
    std::fs::write(dir.join("volume.json"), changed).expect("ours");
    let key = dir.join("signing.key");
    let length = std::fs::metadata(&key).expect("there").len();
    let file = std::fs::OpenOptions::new().write(true).open(&key).expect("ours");
    file.set_len(length / 2).expect("ours");
    let found = check(&fixture).elsewhere;
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("signing.key: ") && found[1].contains("sparet"), "{found:?}");
}

#[test]
fn a_journal_or_trail_that_was_made_longer_is_told_and_read_as_far_as_it_was_written() {
    let fixture = Fixture::new("longer");
    let files = ["journal/00000001.journal", "audit/00000001.audit"];
    let size = |name: &str| std::fs::metadata(fixture.store().join(name)).expect("there").len();
    let before = files.map(size);
    for name in files {
        let path = fixture.store().join(name);
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("ours");
        file.set_len(1 << 40).expect("a hole takes no room");
    }
    let checked = check(&fixture);
    assert_eq!(checked.reports[0].integrity, Integrity::Ok);
    assert_eq!(checked.elsewhere.len(), 2, "{:?}", checked.elsewhere);
    for ((told, name), before) in checked.elsewhere.iter().zip(files).zip(before) {
        let (what, file) = name.split_once('/').expect("a folder");
        let wanted = format!("{what} {file} is 1099511627776 bytes long");
        assert!(told.starts_with(&wanted), "{told}");
        let byte: u64 =
            told.rsplit(' ').next().and_then(|byte| byte.parse().ok()).expect("a place");
        assert!((before..before + 4_096).contains(&byte), "{told}");
    }
}

#[test]
fn a_flipped_byte_of_the_journal_is_one_line_with_place_time_and_recordings() {
    let fixture = Fixture::new("one-line");
    let path = fixture.store().join("journal/00000001.journal");
    let good = std::fs::read(&path).expect("there");
    let mut places = Vec::new();
    let mut at = 0;
    while let Some((_, size)) = crate::store::journal::frame::read::<Entry>(&good[at..]) {
        places.push((at, size));
        at += size;
    }
    let mut named = 0;
    // The last entry has none behind it: what is damaged there is a torn tail to whoever reads.
    for (at, size) in &places[1..places.len() - 1] {
        let mut bad = good.clone();
        bad[at + size / 2] ^= 1;
        std::fs::write(&path, bad).expect("ours");
        let store = store(&fixture);
        let said =
            verb::whole(&store, &Anchors::own(&store.dir), Duration::ZERO).expect("readable");
        let of_journal: Vec<_> =
            said.elsewhere.iter().filter(|line| line.starts_with("journal ")).collect();
        let [line] = of_journal[..] else { panic!("one line: {:?}", said.elsewhere) };
        let place = format!("journal 00000001.journal is damaged from byte {at} to {}", at + size);
        assert!(line.starts_with(&place) && line.contains(", written "), "{line}");
        let strays = said.elsewhere.iter().filter(|line| line.contains("of no recording"));
        assert!(strays.count() <= 1, "{:?}", said.elsewhere);
        named += usize::from(line.contains(&RS.to_string()));
    }
    assert!(named > 0, "whoever was up then is named");
}

#[test]
fn a_segment_that_the_catalogue_knows_is_missed() {
    let fixture = Fixture::new("gone");
    rebuild::run(Rebuild::parse_from(words(&fixture)).args).expect("rebuilt");
    std::fs::remove_file(fixture.segment()).expect("there");
    let report = &check(&fixture).reports[0];
    assert_eq!(report.integrity, Integrity::Bad);
    assert!(report.faults.iter().any(|fault| fault.contains("not in the store")));
}

#[test]
fn a_fault_of_a_segment_touches_those_with_records_in_it() {
    let fixture = Fixture::new("touch");
    let store = store(&fixture);
    let library = store.bare_library().expect("readable");
    let mine = library.journalled().expect("readable").recordings[&RS].clone();
    let mut other = mine.clone();
    other.id = RsId([7; 16]);
    other.streams.clear();
    let wanted = [&mine, &other];
    let segments = library.archive.segments().expect("listed");
    let [name] = segments[..] else { panic!("one segment") };
    let touched = Touched::of(&library, &segments, &wanted);
    assert_eq!(touched.by(name), [RS].into());
    assert_eq!((touched.last_checkpoint(RS), touched.last_checkpoint(other.id)), (Some(1), None));
    // A lost one held what came after this one: nothing of whoever had ended by then.
    let lost = SegmentName { number: 2, ..name };
    other.start = Wall(mine.end.expect("ended").0 + 60_000_000_000);
    other.end = None;
    let wanted = [&mine, &other];
    assert_eq!(Touched::of(&library, &segments, &wanted).by(lost), [other.id].into());
    // What cannot be read may have held anybody's.
    flip(&fixture, std::fs::metadata(fixture.segment()).expect("there").len() as usize - 9);
    let touched = Touched::of(&library, &segments, &wanted);
    assert_eq!(touched.by(name), [mine.id, other.id].into());
}

#[test]
fn what_is_missing_too_recently_is_judged_once_the_recording_is_over() {
    let fixture = Fixture::new("recent");
    let library = store(&fixture).bare_library().expect("readable");
    let mut recording = library.recording(RS).expect("readable").expect("there");
    let with_gap = |source: &&mut Source| !source.gaps.is_empty();
    let sources = recording.streams.iter_mut().flat_map(|stream| &mut stream.sources);
    let source = sources.into_iter().find(with_gap).expect("the fixture has one");
    source.gaps.truncate(1);
    source.lost.clear();
    let gap = &mut source.gaps[0];
    gap.cause = None;
    let (size, at) = (gap.last - gap.first + 1, gap.to.0);
    source.unexplained = size;
    let judged = |after_ms: i64, is_over: bool| {
        let mut recording = recording.clone();
        recording.durable_through = Some(Wall(at + after_ms * 1_000_000));
        recording.end = recording.durable_through.filter(|_| is_over);
        let report = Report::of(&recording);
        (report.unexplained, report.pending, report.is_good(false), report.is_good(true))
    };
    assert_eq!(judged(1_000, false), (0, size, true, false));
    assert_eq!(judged(3_900, false), (0, size, true, false));
    assert_eq!(judged(4_100, false), (size, 0, false, false));
    assert_eq!(judged(1_000, true), (size, 0, false, false));
}
