//! The reading verbs over a store that the product's own code has written.

use std::path::Path;

use clap::Parser;

use super::fixture::{EPOCH, Fixture, LOST, MS, PACKETS, RS, linear, ulaw};
use super::{check, export, ls, rebuild, show, verify};
use crate::host::disk::HostDisk;
use crate::host::sqlite;
use crate::shell::exit::{Exit, Failure};
use crate::store::catalog::model::{Recording, SealState, Verdict};
use crate::store::catalog::{Index, Library};
use crate::store::export::g711::Codec;

#[derive(Parser)]
enum Line {
    Export(export::Args),
    Verify(verify::Args),
    Rebuild(rebuild::Args),
    Show(show::Args),
    Ls(ls::Args),
    Check(check::Args),
}

fn run(words: &[&str]) -> Result<Exit, Failure> {
    let line = Line::try_parse_from([&["floortape"], words].concat()).expect("a command line");
    match line {
        Line::Export(args) => export::run(args),
        Line::Verify(args) => verify::run(args),
        Line::Rebuild(args) => rebuild::run(args),
        Line::Show(args) => show::run(args),
        Line::Ls(args) => ls::run(args),
        Line::Check(args) => check::run(args),
    }
}

fn exit(words: &[&str]) -> Exit {
    run(words).unwrap_or_else(|failure| failure.exit)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temp folders are UTF-8")
}

fn recording(store: &Path, index: Option<Box<dyn Index>>) -> Recording {
    let library = Library::open(HostDisk, store, &store.join("journal"), index).expect("readable");
    library.recording(RS).expect("readable").expect("there")
}

fn exported(fixture: &Fixture, name: &str, more: &[&str]) -> std::path::PathBuf {
    let out = fixture.0.join(name);
    let (id, store) = (RS.to_string(), fixture.store());
    let words = ["export", &id, "-o", text(&out), "--store", text(&store)];
    assert_eq!(exit(&[&words, more].concat()), Exit::Yes);
    out
}

fn samples(path: &Path) -> Vec<i16> {
    let bytes = std::fs::read(path).expect("exported");
    bytes[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect()
}

/// The µ-law stream as it should be: lost packets are silence.
fn expected_a() -> Vec<i16> {
    let mut expected = Vec::new();
    for n in 0..PACKETS * 160 {
        if LOST.contains(&(n / 160)) {
            expected.push(0);
        } else {
            Codec::Pcmu.decode(&[ulaw(n)], &mut expected);
        }
    }
    expected
}

#[test]
fn the_recording_is_whole_sealed_and_its_gap_has_a_cause() {
    let fixture = Fixture::new("show");
    let recording = recording(&fixture.store(), None);
    assert_eq!(recording.seal.state, SealState::Sealed);
    assert!(recording.seal.head.is_some());
    let [a, b] = &recording.streams[..] else { panic!("two streams") };
    assert_eq!((a.verdict, b.verdict), (Verdict::Gaps, Verdict::Continuous));
    let source = &a.sources[0];
    assert_eq!((source.ssrc, source.packets), (0xabc0, PACKETS - 5));
    assert_eq!(source.lost.values().sum::<u64>(), 5);
    assert_eq!((source.unexplained, source.gaps[0].first), (0, LOST.start));
    // From its last packet (1.010 s + 99 × 20 ms) to the end.
    assert_eq!(a.unproven_s, 5.0 - 2.99);
    let bob = "srfBElmCRp2QB23b7Mpk0w==".to_owned();
    let paul = "zSfPoSvdSDCmU3A3TRDxAw==".to_owned();
    assert_eq!((&b.participants.send, &b.participants.recv), (&vec![bob], &vec![paul]));
    assert_eq!(recording.participants[0].names[0].name.as_deref(), Some("Bob"));
    assert_eq!(recording.sessions[0].session_id, "hVpd7YQgRW2nD22h7q60JQ==");
}

#[test]
fn people_are_the_same_in_show_in_an_export_and_from_the_catalogue() {
    let fixture = Fixture::new("people");
    let store = fixture.store();
    let shown = recording(&store, None);
    let ran = &shown.sessions[0];
    assert_eq!((ran.members.len(), ran.periods[0].to), (1, shown.end));
    assert_eq!(ran.lines[0].label, "b");
    let sends = &shown.streams[1].associations[0];
    assert_eq!(
        (sends.direction.as_str(), sends.period.from, sends.period.to),
        ("send", shown.start, shown.end)
    );
    assert_eq!(shown.metadata.streams[0].labels[0].label, "b");
    let out = exported(&fixture, "out", &[]);
    let json = std::fs::read(out.join("recording.json")).expect("exported");
    let exported: Recording = serde_json::from_slice(&json).expect("our own JSON");
    assert_eq!(exported, shown);
    assert_eq!(exit(&["rebuild", "--store", text(&store)]), Exit::Yes);
    let index = sqlite::open_read(&store).expect("built");
    assert_eq!(recording(&store, Some(Box::new(index))), shown);
}

#[test]
fn a_session_is_shown_over_all_its_recordings_and_clients() {
    let fixture = Fixture::new("session");
    let store = fixture.store();
    let show = |id: &str| exit(&["show", "--session", id, "--store", text(&store)]);
    assert_eq!(show("hVpd7YQgRW2nD22h7q60JQ=="), Exit::Yes);
    assert_eq!(show("855a5ded-8420-456d-a70f-6da1eeaeb425"), Exit::Yes);
    assert_eq!(show("AAAAAAAAAAAAAAAAAAAAAA=="), Exit::NotFound);
    let first = recording(&store, None);
    let mut second = first.clone();
    second.src.identity = "sip:other@192.0.2.7".to_owned();
    let later = |wall: &mut crate::base::time::Wall| wall.0 += 6_500 * MS as i64;
    second.sessions[0].periods.iter_mut().for_each(|period| {
        later(&mut period.from);
        period.to.iter_mut().for_each(later);
    });
    let heading =
        super::show_session::heading("hVpd7YQgRW2nD22h7q60JQ==", &[second, first], &utc());
    assert!(heading.contains("2 from 2 client(s)"), "{heading}");
    assert!(heading.contains("parties  Bob\n"), "{heading}");
    assert!(heading.contains("start    2026-09-21T14:13:21Z\n"), "{heading}");
    // 1.0 s to 5.0 s, 7.5 s to 11.5 s.
    assert!(heading.contains("not covered: ") && heading.contains("(2.500 s)"), "{heading}");
}

#[test]
fn export_gives_the_samples_back_exactly() {
    let fixture = Fixture::new("wav");
    let out = exported(&fixture, "out", &[]);
    assert_eq!(samples(&out.join("%2E.%2Fa.wav")), expected_a());
    let b: Vec<i16> = (0..PACKETS * 320).map(linear).collect();
    assert_eq!(samples(&out.join("b.wav")), b);
    // One second later at 16 kHz, and on the second channel.
    let mixed = samples(&out.join("mixed.wav"));
    assert_eq!(mixed.len() as u64, 2 * (16_000 + PACKETS * 320));
    assert!(mixed.iter().skip(1).step_by(2).skip(16_000).eq(&b));
    assert!(mixed.iter().step_by(4).take(100).eq(expected_a().iter().take(100)));
    let metadata = std::fs::read(out.join("metadata/001.xml")).expect("exported");
    assert_eq!(metadata, super::fixture::METADATA.as_bytes());
    assert_eq!(exit(&["verify", text(&out)]), Exit::Yes);
    assert_eq!(exit(&["verify", text(&out), "--complete"]), Exit::No);
    let (id, store) = (RS.to_string(), fixture.store());
    let again = ["export", &id, "-o", text(&out), "--store", text(&store)];
    assert_eq!(exit(&again), Exit::Usage, "the folder is not empty any more");
}

#[test]
fn a_range_is_exactly_as_long_as_it_says() {
    let fixture = Fixture::new("range");
    let at = |ms: u64| crate::base::time::Wall(EPOCH + (ms * MS) as i64).to_string();
    // From half a second before the first packet to a second and a half after it.
    let out = exported(&fixture, "out", &["--from", &at(510), "--to", &at(2_510)]);
    let a = samples(&out.join("%2E.%2Fa.wav"));
    assert_eq!(a.len(), 16_000);
    assert!(a[..4_000].iter().all(|sample| *sample == 0));
    assert_eq!(a[4_000..], expected_a()[..12_000]);
    assert_eq!(samples(&out.join("mixed.wav")).len(), 2 * 32_000);
    assert_eq!(exit(&["verify", text(&out)]), Exit::Yes);
}

#[test]
fn packets_come_out_as_pcapng_and_rtpdump() {
    let fixture = Fixture::new("packets");
    let out = exported(&fixture, "pcapng", &["--format", "pcapng"]);
    let file = std::fs::read(out.join("b.pcapng")).expect("exported");
    let mut reader = pcap_file::pcapng::PcapNgReader::new(&file[..]).expect("a section");
    let mut stamps = Vec::new();
    while let Some(block) = reader.next_block() {
        if let pcap_file::pcapng::Block::EnhancedPacket(block) = block.expect("whole") {
            stamps.push(block.timestamp.as_nanos() as i64);
        }
    }
    let arrivals: Vec<i64> = (0..PACKETS).map(|n| EPOCH + ((2_010 + n * 20) * MS) as i64).collect();
    // The announcement has the time of the first.
    assert_eq!((stamps[0], &stamps[1..]), (arrivals[0], &arrivals[..]));
    let dump = exported(&fixture, "rtp", &["--format", "rtp"]);
    let head = std::fs::read(dump.join("b.rtpdump")).expect("exported");
    assert!(head.starts_with(b"#!rtpplay1.0 192.0.2.1/4002\n"));
    assert_eq!(exit(&["verify", text(&dump)]), Exit::Yes);
}

#[test]
fn one_changed_byte_in_any_exported_file_fails() {
    let fixture = Fixture::new("tamper");
    let out = exported(&fixture, "out", &[]);
    let files = crate::host::exported::files(&out).expect("readable");
    assert!(files.len() >= 7, "{files:?}");
    for file in files {
        let path = out.join(&file.path);
        let whole = std::fs::read(&path).expect("exported");
        // Every byte of the small ones, a spread of the large ones.
        let step = (whole.len() / 40).max(1);
        for at in (0..whole.len()).step_by(step) {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).expect("ours");
            assert_eq!(exit(&["verify", text(&out)]), Exit::No, "{} byte {at}", file.path);
        }
        std::fs::remove_file(&path).expect("ours");
        assert_ne!(exit(&["verify", text(&out)]), Exit::Yes, "{} missing", file.path);
        std::fs::write(&path, &whole).expect("ours");
    }
    std::fs::write(out.join("extra"), b"").expect("ours");
    assert_eq!(exit(&["verify", text(&out)]), Exit::No);
    std::fs::remove_file(out.join("extra")).expect("ours");
    assert_eq!(exit(&["verify", text(&out)]), Exit::Yes);
}

#[test]
fn one_changed_byte_in_a_segment_fails() {
    let fixture = Fixture::new("flip");
    let (id, store) = (RS.to_string(), fixture.store());
    let (one, all) =
        (["verify", &id, "--store", text(&store)], ["verify", "--all", "--store", text(&store)]);
    assert_eq!((exit(&one), exit(&all)), (Exit::Yes, Exit::Yes));
    let whole = std::fs::read(fixture.segment()).expect("there");
    for at in (0..whole.len()).step_by(997) {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        std::fs::write(fixture.segment(), &bad).expect("ours");
        assert_eq!(exit(&all), Exit::No, "byte {at}");
    }
}

#[test]
fn a_rebuilt_catalogue_says_the_same_and_saves_the_reading() {
    let fixture = Fixture::new("rebuild");
    let store = fixture.store();
    let before = recording(&store, None);
    assert_eq!(exit(&["rebuild", "--store", text(&store)]), Exit::Yes);
    let index = sqlite::open_read(&store).expect("just made");
    assert!(index.is_settled(RS).expect("readable"));
    assert_eq!(recording(&store, Some(Box::new(index))), before);
    std::fs::remove_file(sqlite::path(&store)).expect("there");
    assert_eq!(exit(&["rebuild", "--store", text(&store)]), Exit::Yes);
    let index = sqlite::open_read(&store).expect("just made");
    assert_eq!(recording(&store, Some(Box::new(index))), before);
}

#[test]
fn a_bit_that_flips_in_the_catalogue_changes_nothing_that_is_said() {
    let fixture = Fixture::new("flipped");
    let store = fixture.store();
    let before = recording(&store, None);
    assert_eq!(exit(&["rebuild", "--store", text(&store)]), Exit::Yes);
    let whole = std::fs::read(sqlite::path(&store)).expect("there");
    for at in (0..whole.len()).filter(|at| whole[*at] != 0).step_by(29) {
        let mut bad = whole.clone();
        bad[at] ^= 1 << (at % 8);
        std::fs::write(sqlite::path(&store), &bad).expect("ours");
        let index = sqlite::open_read(&store).map(|index| Box::new(index) as Box<dyn Index>);
        assert_eq!(recording(&store, index), before, "byte {at}");
    }
    assert_eq!(exit(&["rebuild", "--store", text(&store)]), Exit::Yes);
    let index = sqlite::open_read(&store).expect("made anew");
    assert!(index.is_settled(RS).expect("readable"));
}

#[test]
fn what_is_not_there_is_not_found() {
    let fixture = Fixture::new("missing");
    let store = fixture.store();
    let other = "00".repeat(16);
    for id in [other.as_str(), "nonsense"] {
        assert_eq!(exit(&["verify", id, "--store", text(&store)]), Exit::NotFound);
    }
    assert_eq!(exit(&["verify", "--all", "--store", "/nonexistent"]), Exit::NotFound);
}

#[test]
fn a_store_without_its_identity_is_read_and_vouched_for_by_nobody() {
    let fixture = Fixture::new("nameless");
    let (id, store) = (RS.to_string(), fixture.store());
    let at = ["--store", text(&store)];
    let exit = |words: &[&str]| exit(&[words, &at].concat());
    let verbs = |number: u32| {
        let out = fixture.0.join(format!("out-{number}"));
        [
            exit(&["ls"]),
            exit(&["verify", "--all"]),
            exit(&["verify", &id]),
            exit(&["show", &id]),
            exit(&["export", &id, "-o", text(&out)]),
        ]
    };
    assert_eq!(verbs(1), [Exit::Yes; 5]);
    for cut in [false, true] {
        let volume = store.join("volume.json");
        if cut {
            std::fs::write(&volume, "{\"id\": \"te").expect("ours");
        } else {
            std::fs::remove_file(&volume).expect("there");
        }
        let io = Exit::Io;
        assert_eq!(verbs(2 + u32::from(cut)), [io, io, io, Exit::Yes, Exit::Yes]);
    }
    // One that is yet to begin misses nothing.
    let fresh = fixture.0.join("fresh");
    std::fs::create_dir_all(fresh.join("segments")).expect("ours");
    assert_eq!(super::tests::exit(&["ls", "--store", text(&fresh)]), Exit::Yes);
}

#[test]
fn check_says_beforehand_what_serve_would_refuse() {
    let fixture = Fixture::new("check-keys");
    let store = fixture.store();
    let set = format!("store.dir={:?}", text(&store));
    let fits = || {
        let words = ["check", "--set", &set, "--set", "media.streams_max=2"];
        exit(&words)
    };
    let fit = fits();
    for name in ["machine.key", "signing.key", "volume.json"] {
        let (path, aside) = (store.join(name), fixture.0.join("aside"));
        std::fs::rename(&path, &aside).expect("there");
        assert_eq!(fits(), Exit::Config, "{name}");
        std::fs::rename(&aside, &path).expect("there");
        assert_eq!(fits(), fit);
    }
    assert_eq!(fit, Exit::Yes);
}

fn utc() -> crate::shell::when::When {
    crate::shell::when::ZoneArgs { tz: Some("UTC".to_owned()) }.when().expect("a zone")
}
