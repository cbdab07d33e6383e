//! What is drawn is what an export of the same range writes, whether it was drawn beforehand or not.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::*;
use crate::base::ids::{Index, Ssrc};
use crate::base::prng::Prng;
use crate::base::time::Mono;
use crate::shell::cmd::fixture::{EPOCH, Fixture, MS, RS, Ring, description};
use crate::shell::cmd::{export, rebuild};
use crate::store::event::{Event, Format, Origin};
use crate::store::export::decoder::opus;
use crate::store::record::RecordKind;
use crate::wire::rtp::Fields;

/// The recording is of one minute.
const END_MS: u64 = 62_000;
/// Packets of 20 ms; what becomes of them.
const PACKETS: u64 = 2_900;
const LOST: std::ops::Range<u64> = 300..360;
const PAUSED: std::ops::Range<u64> = 600..900;
const IDLE: std::ops::Range<u64> = 1_300..1_500;
/// Another source goes on from here.
const CHANGE: u64 = 2_000;
/// Segments end here, where there are several.
const CUTS: [u64; 3] = [450, 1_111, 2_222];

#[derive(Parser)]
struct Line<A: clap::Args> {
    #[command(flatten)]
    args: A,
}

fn parsed<A: clap::Args>(words: &[&str]) -> A {
    Line::try_parse_from(words).unwrap_or_else(|why| panic!("{why}")).args
}

/// Two lines of these codecs.
fn codecs(pair: [&'static str; 2]) -> impl Fn(u16) -> StreamDescription {
    move |line| {
        let codec = pair[usize::from(line)];
        let (payload_type, clock_rate) = match codec {
            "PCMA" => (8, 8_000),
            "G722" => (9, 8_000),
            "L16" => (97, 16_000),
            _ => (96, 48_000),
        };
        let codec = codec.to_owned();
        let format = Format { payload_type, codec, clock_rate, channels: 1, fmtp: None };
        StreamDescription { formats: vec![format], ..description(line) }
    }
}

/// Speech of a kind: loud and silent by turns, and never the same.
fn payloads(codec: &str) -> Vec<Vec<u8>> {
    let mut random = Prng::new(u64::from(codec.as_bytes()[0]));
    let loud = |n: u64| !(n / 40).is_multiple_of(7);
    if codec == "opus" {
        let sample = |n: u64| {
            let swing = if loud(n / 960) { 9_000.0 } else { 20.0 };
            (swing * (n as f64 * (0.02 + (n as f64 / 4e7))).sin()) as i16
        };
        return opus(&(0..PACKETS * 960).map(sample).collect::<Vec<_>>());
    }
    let bytes = if codec == "L16" { 640 } else { 160 };
    let mut payload = |n: u64| -> Vec<u8> {
        let mut payload = vec![0; bytes];
        random.fill(&mut payload);
        match codec {
            "PCMA" if !loud(n) => payload.fill(0xd5),
            "L16" => payload.chunks_exact_mut(2).for_each(|two| {
                let quiet = if loud(n) { 1 } else { 900 };
                let sample = i16::from_be_bytes([two[0], two[1]]) / quiet;
                two.copy_from_slice(&sample.to_be_bytes());
            }),
            _ => {}
        }
        payload
    };
    (0..PACKETS).map(&mut payload).collect()
}

fn fill(ring: &mut Ring, describe: &dyn Fn(u16) -> StreamDescription, cuts: &[u64]) {
    let lines: Vec<_> = (0..2).map(|line| payloads(&describe(line).formats[0].codec)).collect();
    for n in 0..PACKETS {
        let at = 1_010 + n * 20;
        if cuts.contains(&n) {
            ring.cut(at);
        }
        for line in 0..2 {
            let description = describe(line);
            let stream = description.stream;
            if line == 0 && n == PAUSED.start {
                ring.event(stream, at, &Event::Pause { by: Origin::Src });
            }
            if line == 0 && n == PAUSED.end {
                ring.event(stream, at, &Event::Resume { by: Origin::Src });
            }
            let lost = LOST.contains(&n) && line == 1;
            if lost || (line == 0 && PAUSED.contains(&n)) || IDLE.contains(&n) {
                continue;
            }
            let ordinal = if n < CHANGE { 1 } else { 2 };
            let format = &description.formats[0];
            let ticks = u64::from(format.clock_rate) / 50;
            // What was not sent has no number.
            let unsent = if n >= IDLE.end { IDLE.end - IDLE.start } else { 0 };
            let begins = if ordinal == 1 { 0xffff_ff00 } else { 0x1234_5678_u32 };
            let packet = Fields {
                marker: false,
                payload_type: format.payload_type,
                seq: Index(n - unsent).seq(),
                timestamp: begins.wrapping_add((n * ticks) as u32),
                ssrc: Ssrc(0xabc0 + u32::from(line) + 16 * u32::from(ordinal)),
            };
            let mut packet = packet.emit().to_vec();
            packet.extend_from_slice(&lines[usize::from(line)][n as usize]);
            let source = SourceId::new(stream, ordinal);
            // Each source counts by itself.
            let index = n - unsent - if ordinal == 1 { 0 } else { CHANGE - 1 - unsent };
            ring.put_at(RecordKind::Rtp, source, index, Mono(at * MS), &packet);
        }
    }
}

fn fixture(name: &str, pair: [&'static str; 2], cuts: &[u64]) -> Fixture {
    let describe = codecs(pair);
    Fixture::speaking(name, END_MS, &describe, &|ring| fill(ring, &describe, cuts))
}

fn made(fixture: &Fixture) {
    let store = fixture.store().display().to_string();
    let done = rebuild::run(parsed(&["rebuild", "--peaks", "--store", &store]));
    assert_eq!(done.unwrap_or_else(|failure| panic!("{}", failure.error)), Exit::Yes);
}

/// What the verb tells.
fn picture(fixture: &Fixture, more: &[&str]) -> Picture {
    let (id, dir) = (RS.to_string(), fixture.store().display().to_string());
    let args: Args = parsed(&[&["peaks", &id, "--store", &dir], more].concat());
    let store = args.store.find().unwrap_or_else(|failure| panic!("{}", failure.error));
    let drawn = (|| {
        let library = store.library()?;
        let rs = named(&library, &args.id, &store.dir)?;
        let range = args.zone.when()?.range(("from", &args.from), &args.to)?.of(rs.start)?;
        let wanted = Wanted::of(&args, range, &rs, args.points.unwrap_or(POINTS))?;
        draw(&store, &library, &rs, &wanted)
    })();
    let (picture, visit) = drawn.unwrap_or_else(|failure| panic!("{}", failure.error));
    assert!(visit.damaged.is_empty(), "{:?}", visit.damaged);
    picture
}

fn export(fixture: &Fixture, name: &str, more: &[&str]) -> PathBuf {
    let out = fixture.0.join(name);
    let (id, dir) = (RS.to_string(), fixture.store().display().to_string());
    let folder = out.display().to_string();
    let words = ["export", &id, "-o", &folder, "--store", &dir];
    let done = export::run(parsed(&[&words[..], more].concat()));
    assert_eq!(done.unwrap_or_else(|failure| panic!("{}", failure.error)), Exit::Yes);
    out
}

fn samples(path: &Path) -> Vec<i16> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]])).collect()
}

/// Holds buckets against the samples of a WAV; returns how many are another's. `edges`: samples around which
/// they may be, since a decoder began anew there.
fn compare(line: &Drawn, wav: &[i16], edges: &[i64], is_range: bool) -> usize {
    let mut told = vec![false; wav.len()];
    let mut other = 0;
    for bucket in &line.buckets {
        let Some((from, to)) = bucket.samples else { continue };
        // A block at an edge of a range is of both sides.
        let (from, to) = (from.max(0) as usize, (to.max(0) as usize).min(wav.len()));
        let is_cut = bucket.samples != Some((from as i64, to as i64));
        let here = &wav[from..to];
        told[from..to].fill(true);
        let (min, max) = (here.iter().min().copied(), here.iter().max().copied());
        let near = edges.iter().any(|edge| {
            let slack = i64::from(line.rate) / 2;
            (from as i64 - slack..to as i64 + slack).contains(edge)
        });
        if (Some(bucket.min), Some(bucket.max)) != (min, max) {
            assert!(is_cut || near, "{}: {bucket:?} is {min:?} to {max:?}", line.label);
            other += usize::from(!is_cut);
        }
        let squares: f64 = here.iter().map(|sample| f64::from(*sample).powi(2)).sum();
        let rms = (squares / here.len() as f64).sqrt();
        let off = (f64::from(bucket.rms) - rms).abs();
        assert!(is_cut || near || off <= 1.0 + rms / 500.0, "{}: {bucket:?} {rms}", line.label);
    }
    // A block that lies in a range by less than half of it is not of the range.
    let edge = line.rate as usize / 100;
    let inner = |place: usize| !is_range || (edge..wav.len() - edge).contains(&place);
    let untold = told.iter().enumerate().filter(|(place, told)| inner(*place) && !**told);
    let untold = untold.filter(|(place, _)| wav[*place] != 0).count();
    assert_eq!(untold, 0, "{}: each sample is in a bucket", line.label);
    other
}

fn wavs(out: &Path) -> [PathBuf; 2] {
    [out.join("%2E.%2Fa.wav"), out.join("b.wav")]
}

#[test]
fn a_whole_recording_is_drawn_as_its_export_has_it() {
    for (pair, cuts) in [
        (["PCMA", "L16"], &[][..]),
        (["PCMA", "L16"], &CUTS[..]),
        (["G722", "opus"], &[][..]),
        (["G722", "opus"], &CUTS[..]),
    ] {
        let name = format!("peaks-{}-{}", pair[0], cuts.len());
        let fixture = fixture(&name, pair, cuts);
        let wavs = wavs(&export(&fixture, "out", &[]));
        for points in ["20", "57"] {
            // From the records alone, and from what was kept.
            let fresh = picture(&fixture, &["--points", points]);
            made(&fixture);
            let kept = picture(&fixture, &["--points", points]);
            for picture in [fresh, kept] {
                assert_eq!(picture.lines.len(), 2);
                for (line, wav) in picture.lines.iter().zip(&wavs) {
                    let is_plain = pair[0] == "PCMA";
                    let edge = |cut: &u64| (*cut * u64::from(line.rate) / 50) as i64;
                    let edges: Vec<i64> = match is_plain {
                        true => Vec::new(),
                        false => cuts.iter().map(edge).collect(),
                    };
                    let other = compare(line, &samples(wav), &edges, false);
                    assert!(other <= edges.len(), "{}: {other}", line.label);
                }
            }
            crate::host::sqlite::peaks::remove(&fixture.store());
        }
    }
}

#[test]
fn a_short_range_is_drawn_from_the_records_to_the_sample() {
    for pair in [["PCMA", "L16"], ["G722", "opus"]] {
        let fixture = fixture(&format!("peaks-range-{}", pair[0]), pair, &CUTS);
        let at = |ms: u64| Wall(EPOCH + (ms * MS) as i64).to_string();
        // Over a loss, and over a change of source, and over nothing.
        for (from, to) in [(4_000, 12_500), (38_000, 44_000), (7_000, 20_000)] {
            let range = [at(from), at(to)];
            let range = ["--from", &range[0], "--to", &range[1]];
            let picture = picture(&fixture, &[&range[..], &["--points", "500"]].concat());
            assert_eq!(picture.points, 500);
            let wavs = wavs(&export(&fixture, &format!("out-{from}"), &range));
            for (line, wav) in picture.lines.iter().zip(&wavs) {
                assert_eq!(compare(line, &samples(wav), &[], true), 0);
            }
            std::fs::remove_dir_all(fixture.0.join(format!("out-{from}"))).expect("ours");
        }
    }
}

#[test]
fn silences_say_why() {
    let fixture = fixture("peaks-silences", ["PCMA", "L16"], &CUTS);
    made(&fixture);
    let told = |line: &Drawn| -> Vec<(i64, i64, Reason)> {
        let place = |wall: Wall| (wall.0 - EPOCH) / MS as i64 / 20 - 50;
        let long = line.silences.iter().filter(|one| one.why != Reason::Quiet);
        long.map(|one| (place(one.from), place(one.to), one.why)).collect()
    };
    let span = |of: std::ops::Range<u64>, why| (of.start as i64, of.end as i64, why);
    let end = (PACKETS as i64, (END_MS / 20) as i64 - 50, Reason::Idle);
    for more in [&["--points", "50"][..], &["--points", "900"]] {
        let picture = picture(&fixture, more);
        let paused = [span(PAUSED, Reason::Paused), span(IDLE, Reason::Idle), end];
        let lost = [span(LOST, Reason::Lost), span(IDLE, Reason::Idle), end];
        assert_eq!(told(&picture.lines[0]), paused, "{more:?}");
        assert_eq!(told(&picture.lines[1]), lost, "{more:?}");
    }
    let text = text(&picture(&fixture, &["--points", "60"]), &zone());
    assert!(text.contains("paused  6.0"), "{text}");
    assert!(text.contains("█") && text.contains("column     1.017 s"), "{text}");
}

fn zone() -> When {
    let zone = ZoneArgs { tz: Some("UTC".to_owned()) };
    zone.when().unwrap_or_else(|failure| panic!("{}", failure.error))
}

#[test]
fn what_is_damaged_or_not_there_is_drawn_from_the_records() {
    let fixture = fixture("peaks-damaged", ["PCMA", "L16"], &CUTS);
    made(&fixture);
    // Which of it was drawn beforehand is told, and is another matter.
    let draw = || {
        let picture = picture(&fixture, &["--points", "40"]);
        serde_json::to_string(&Picture { drawn_until: None, ..picture }).expect("plain")
    };
    let whole = draw();
    let path = file::path(&fixture.store());
    let good = std::fs::read(&path).expect("kept");
    let mut random = Prng::new(11);
    for _ in 0..60 {
        let mut bad = good.clone();
        let at = 4_096 + random.below(good.len() as u64 - 4_096) as usize;
        for byte in &mut bad[at..(at + 40).min(good.len())] {
            *byte ^= random.below(255) as u8 + 1;
        }
        std::fs::write(&path, &bad).expect("ours");
        // A page of the file that is no page any more may take rows with it; never does it say what is not so.
        let told: Picture = serde_json::from_str(&draw()).expect("our own");
        let wanted: Picture = serde_json::from_str(&whole).expect("our own");
        for (told, wanted) in told.lines.iter().zip(&wanted.lines) {
            for (told, wanted) in told.buckets.iter().zip(&wanted.buckets) {
                assert!(
                    told.samples.is_none() || (told.min >= wanted.min && told.max <= wanted.max),
                    "{told:?} {wanted:?}"
                );
            }
        }
    }
    std::fs::write(&path, b"no database").expect("ours");
    assert_eq!(draw(), whole);
    std::fs::remove_file(&path).expect("ours");
    assert_eq!(draw(), whole);
}

#[test]
fn long_times_have_no_shorter_buckets_than_seconds() {
    let wanted = |seconds: i64, points: u32| {
        let range = (Wall(0), Wall(seconds * 1_000_000_000));
        let (streams, patience) = (BTreeSet::new(), PATIENCE);
        let wanted = Wanted { streams, range, from_given: true, points, patience }.bounded();
        (wanted.points, wanted.is_direct())
    };
    assert_eq!(wanted(86_400, 1_000), (1_000, false));
    assert_eq!(wanted(3_600, 10_000), (3_600, false));
    assert_eq!(wanted(600, 10_000), (10_000, true));
    assert_eq!(wanted(600, 500), (500, false));
    assert_eq!(wanted(1, 1), (1, false));
}

#[test]
fn a_nanosecond_is_one_bucket() {
    let fixture = fixture("peaks-nanosecond", ["PCMA", "L16"], &[]);
    let at = |ns: i64| Wall(EPOCH + 7_000 * MS as i64 + ns).to_string();
    for (length, points) in [(1, 1), (3, 3), (10_000_000, 500)] {
        let range = [at(0), at(length)];
        let words = ["--from", &range[0], "--to", &range[1], "--points", "500"];
        let picture = picture(&fixture, &words);
        assert_eq!(picture.points, points);
        let begins: BTreeSet<Wall> = picture.lines[0].buckets.iter().map(|one| one.at).collect();
        assert_eq!(begins.len(), points as usize, "no two begin at one instant");
    }
}

/// Once what is sealed and was not drawn takes too long, it is told from when on it is not there.
#[test]
fn what_is_not_yet_drawn_is_told_and_never_shown_as_silence() {
    let fixture = fixture("peaks-undrawn", ["PCMA", "L16"], &CUTS);
    let told = |patience| {
        let (id, dir) = (RS.to_string(), fixture.store().display().to_string());
        let args: Args = parsed(&["peaks", &id, "--store", &dir]);
        let drawn = (|| {
            let store = args.store.find()?;
            let library = store.library()?;
            let rs = named(&library, &args.id, &store.dir)?;
            let wanted = Wanted { patience, ..Wanted::of(&args, (None, None), &rs, 50)? };
            Ok::<_, Failure>(draw(&store, &library, &rs, &wanted)?.0)
        })();
        drawn.unwrap_or_else(|failure| panic!("{}", failure.error))
    };
    let all = told(PATIENCE);
    let first = all.drawn_until.expect("nothing was drawn beforehand");
    assert!((first.0 - EPOCH - 1_010 * MS as i64).abs() < 100 * MS as i64, "{first}");
    assert_eq!(all.undrawn_from, None);
    let words = text(&all, &zone());
    assert!(
        words.contains("drawn      beforehand until ") && !words.contains("not drawn"),
        "{words}"
    );
    let none = told(Duration::ZERO);
    assert_eq!((none.drawn_until, none.undrawn_from), (Some(first), Some(first)));
    assert!(text(&none, &zone()).contains("not drawn  from "));
    for (drawn, undrawn) in all.lines.iter().zip(&none.lines) {
        let is = |line: &Drawn, why| line.silences.iter().any(|one| one.why == why);
        assert!(is(undrawn, Reason::Undrawn) && !is(drawn, Reason::Undrawn));
        let covered = |at: Wall| {
            let of = |one: &Silence| one.why == Reason::Undrawn && one.from <= at && at < one.to;
            undrawn.silences.iter().any(of)
        };
        let silent = undrawn.buckets.iter().filter(|bucket| bucket.samples.is_none());
        let untold: Vec<Wall> = silent.map(|bucket| bucket.at).filter(|at| !covered(*at)).collect();
        assert!(untold.is_empty(), "{untold:?} {:?}", undrawn.silences);
    }
    made(&fixture);
    let kept = told(Duration::ZERO);
    assert_eq!(kept.undrawn_from, None, "what was drawn beforehand needs no patience");
    assert_eq!(kept.drawn_until, None);
}

#[test]
fn loudness_has_a_bar_for_each_6_db() {
    let bucket = |max| Bucket { at: Wall(0), min: 0, max, rms: 0, samples: Some((0, 1)) };
    let bars: String = [0, 100, 200, 400, 900, 2_000, 4_000, 9_000, 20_000, i16::MAX]
        .into_iter()
        .map(|max| bar(&bucket(max)))
        .collect();
    assert_eq!(bars, "▁▁▁▂▃▄▅▇██");
    assert_eq!(bar(&Bucket { samples: None, ..bucket(5) }), ' ');
}
