//! Exports of stores that the product's own writer has made, with clocks that do not agree.

use std::path::{Path, PathBuf};

use clap::Parser;

use super::progress::Interrupt;
use super::verb::run_until;
use super::{Args, run};
use crate::base::ids::{Index, SourceId, Ssrc, StreamId};
use crate::base::ports::Clock;
use crate::base::prng::Prng;
use crate::base::time::{Mono, Wall};
use crate::host::clock::SystemClock;
use crate::shell::cmd::fixture::{EPOCH, Fixture, MS, RS, Ring, description};
use crate::shell::exit::Exit;
use crate::store::event::{Event, Format, Origin, StreamDescription};
use crate::store::export::cover::Overlapped;
use crate::store::export::timeline::Evidence;
use crate::store::export::times::{self, Times, Why};
use crate::store::record::RecordKind;
use crate::wire::rtp::Fields;

const S: u64 = 1_000 * MS;
/// Packets come each half second, of 20 ms: speech with long pauses.
const STEP: u64 = S / 2;
const STARTS: u64 = 2 * S;
const ENDS: u64 = 3_620 * S;
/// A click on both lines at once, after an hour.
const CLICK: u64 = STARTS + 3_600 * S;
/// How fast the second line's clock runs, millionths.
const PPM: f64 = 50.0;
/// How much later than the first line's its packets come.
const LATER: u64 = 80 * MS;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

#[derive(Parser)]
struct Rebuilt {
    #[command(flatten)]
    args: crate::shell::cmd::rebuild::Args,
}

fn args(fixture: &Fixture, out: &Path, more: &[&str]) -> Args {
    let (id, store) = (RS.to_string(), fixture.store().display().to_string());
    let folder = out.display().to_string();
    let words = ["export", &id, "-o", &folder, "--store", &store];
    Line::try_parse_from([&words[..], more].concat()).expect("a command line").args
}

fn export(fixture: &Fixture, name: &str, more: &[&str]) -> PathBuf {
    let out = fixture.0.join(name);
    let ended = run(args(fixture, &out, more));
    assert_eq!(ended.unwrap_or_else(|failure| panic!("{:?}", failure.error)), Exit::Yes);
    out
}

fn ticks(line: u16, at: u64) -> u64 {
    let (rate, ppm) = if line == 0 { (8_000.0, 0.0) } else { (16_000.0, PPM) };
    (at as f64 / 1e9 * rate * (1.0 + ppm / 1e6)).round() as u64
}

/// Two lines of one client with a click at [`CLICK`]; reports come unless `lost`.
fn clicking(ring: &mut Ring, lost: bool) {
    let mut prng = Prng::new(0x5eed_0713);
    for line in 0..2 {
        let description = description(line);
        let ssrc = Ssrc(0xabc0 + u32::from(line));
        let offset = if line == 0 { 0xffff_0000 } else { 77_u32 };
        let rtp = |at: u64| offset.wrapping_add(ticks(line, at) as u32);
        let later = u64::from(line) * LATER;
        let mut at = STARTS + S;
        while !lost && at < ENDS {
            let mut report = vec![0x80, 200, 0, 6];
            report.extend(ssrc.0.to_be_bytes());
            // A sender whose wall clock is of another day.
            report.extend((3_000_000_000 + (at / S) as u32).to_be_bytes());
            report.extend((((at % S) << 32) / S).to_be_bytes()[4..].iter());
            report.extend(rtp(at).to_be_bytes());
            report.extend([0; 8]);
            report.extend([0x81, 202, 0, 3]);
            report.extend(ssrc.0.to_be_bytes());
            report.extend([1, 4, b'd', b'e', b's', b'k', 0, 0]);
            let source = SourceId::new(description.stream, 0);
            ring.put_at(RecordKind::Rtcp, source, 0, Mono(at + later), &report);
            at += 5 * S;
        }
        let (samples, width) = if line == 0 { (160, 1) } else { (320, 2) };
        let mut arrival = 0;
        for index in 0..(ENDS - STARTS) / STEP {
            let at = STARTS + index * STEP;
            let mut packet = Fields {
                marker: false,
                payload_type: description.formats[0].payload_type,
                seq: Index(index).seq(),
                timestamp: rtp(at),
                ssrc,
            }
            .emit()
            .to_vec();
            let head = packet.len();
            let silence = if line == 0 { 0xff } else { 0 };
            packet.resize(head + samples * width, silence);
            if at == CLICK {
                packet[head] = if line == 0 { 0x80 } else { 0x7d };
            }
            arrival = (at + later + prng.below(30 * MS)).max(arrival + 1);
            let source = SourceId::new(description.stream, 1);
            ring.put_at(RecordKind::Rtp, source, index, Mono(arrival), &packet);
        }
    }
}

fn samples(path: &Path, channels: usize, channel: usize) -> Vec<i16> {
    let bytes = std::fs::read(path).expect("exported");
    let all = bytes[44..].chunks_exact(2).map(|two| i16::from_le_bytes([two[0], two[1]]));
    all.skip(channel).step_by(channels).collect()
}

/// Where it is loudest.
fn click(samples: &[i16]) -> i64 {
    let loudest = samples.iter().enumerate().max_by_key(|(_, sample)| sample.unsigned_abs());
    loudest.expect("not empty").0 as i64
}

fn times(out: &Path) -> Times {
    let json = std::fs::read(out.join(times::FILE)).expect("exported");
    serde_json::from_slice(&json).expect("our own JSON")
}

#[test]
fn two_clicks_of_one_instant_are_within_20_ms_after_an_hour_also_without_reports() {
    for lost in [false, true] {
        let name = if lost { "clicks-lost" } else { "clicks" };
        let fixture = Fixture::of(name, ENDS / MS, &|ring| clicking(ring, lost));
        let out = export(&fixture, "out", &[]);
        let mixed = out.join("mixed.wav");
        let places = [0, 1].map(|channel| click(&samples(&mixed, 2, channel)));
        let off_ms = (places[0] - places[1]) as f64 / 16.0;
        // Without reports nobody can know that the second line's packets all come later.
        let known = if lost { LATER as f64 / MS as f64 } else { 0.0 };
        assert!((off_ms + known).abs() < 5.0, "{off_ms} ms, reports lost: {lost}");
        // Sample for sample, the drift of 180 ms and the way of the packets would stand between them.
        let times = times(&out);
        let evidence = if lost { Evidence::Arrival } else { Evidence::Sr };
        assert!(
            times.wavs.iter().all(|wav| wav.evidence == evidence),
            "{:?}",
            times.wavs[0].evidence
        );
        assert!((times.wavs[1].ppm - PPM).abs() < 2.0, "{}", times.wavs[1].ppm);
        assert_eq!(times.wavs[0].silences.len() as u64, (ENDS - STARTS) / STEP - 1);
        assert!(times.wavs[0].silences.iter().all(|silence| silence.why == Why::Idle));
    }
}

#[test]
fn a_range_of_a_clock_that_drifts_begins_at_its_wall_time_and_is_as_long_as_it_says() {
    let fixture = Fixture::of("clicks-range", ENDS / MS, &|ring| clicking(ring, false));
    let at = |at: u64| Wall(EPOCH + at as i64).to_string();
    let range = [at(CLICK - 5 * S), at(CLICK + 5 * S)];
    let out = export(&fixture, "out", &["--from", &range[0], "--to", &range[1]]);
    let files = ["%2E.%2Fa.wav", "b.wav"];
    for (file, rate) in files.into_iter().zip([8_000, 16_000]) {
        let samples = samples(&out.join(file), 1, 0);
        assert_eq!(samples.len(), 10 * rate);
        let off_ms = (click(&samples) - 5 * rate as i64) * 1_000 / rate as i64;
        assert!(off_ms.abs() < 20, "{file}: {off_ms} ms");
    }
    assert_eq!(samples(&out.join("mixed.wav"), 2, 0).len(), 160_000);
    assert_eq!(times(&out).mixed_start.map(|start| start.to_string()), Some(range[0].clone()));
    let one = ["--stream", "b", "--mono", "--from", &range[0], "--to", &range[1]];
    let one = export(&fixture, "one", &one);
    assert!(!one.join(files[0]).exists() && one.join(files[1]).exists());
    let mono = samples(&one.join("mixed.wav"), 1, 0);
    assert_eq!(mono.len(), 160_000);
    // Alone, a line is where its own packets came: only another line of the same clock tells that they are late.
    let late = (LATER / MS) as i64 * 16;
    assert!((click(&mono) - 80_000 - late).abs() < 16 * 20);
}

/// Two SSRCs of one line that talk at once: the file has one of them at a time, and says so.
fn talking_at_once(ring: &mut Ring) {
    let description = description(0);
    for index in 0..50 {
        for source in 1..=2_u16 {
            let fields = Fields {
                marker: false,
                payload_type: 0,
                seq: Index(index).seq(),
                timestamp: 7_000 * u32::from(source) + (index * 160) as u32,
                ssrc: Ssrc(u32::from(source)),
            };
            let packet = [&fields.emit()[..], &[0x80; 160]].concat();
            // The second begins half a second after the first, and goes on for as much longer.
            let at = STARTS + index * 20 * MS + u64::from(source - 1) * 25 * 20 * MS;
            let source = SourceId::new(description.stream, source);
            ring.put_at(RecordKind::Rtp, source, index, Mono(at), &packet);
        }
    }
}

#[test]
fn an_export_says_that_further_ssrcs_had_no_place() {
    let fixture = Fixture::of("refused-export", 5_000, &|ring| {
        talking_at_once(ring);
        let drops = [("too_many_sources".to_owned(), 12), ("keep_alive".to_owned(), 3)].into();
        let close = Event::Close { by: Origin::Src, drops, socket_drops: 0, shared: false };
        ring.event(description(0).stream, 4_500, &close);
    });
    let out = export(&fixture, "out", &["--pack"]);
    let words = "12 packet(s) of further SSRCs were not recorded: a line has place for 4 at once";
    for file in ["README.txt", "README.html"] {
        let text = std::fs::read_to_string(out.join(file)).expect("exported");
        assert_eq!(text.matches(words).count(), 1, "{file}: {text}");
        assert!(!text.contains("3 packet(s) of"), "{file}: {text}");
    }
}

#[test]
fn audio_that_other_audio_took_the_place_of_is_told() {
    let fixture = Fixture::of("overlap-export", 5_000, &talking_at_once);
    let out = export(&fixture, "out", &["--pack"]);
    let times = times(&out);
    let overlapped = times.wavs[0].overlapped;
    assert_eq!(overlapped, Some(Overlapped { packets: 25, samples: 25 * 160 }));
    assert_eq!((times.wavs[0].samples, times.wavs[1].overlapped), (75 * 160, None));
    let words = "25 packet(s) came for a place that had audio already: 0.500 s of that are not in ";
    for file in ["README.txt", "README.html"] {
        let text = std::fs::read_to_string(out.join(file)).expect("exported");
        assert!(text.contains(words), "{file}: {text}");
    }
}

/// Causes are known by the recorder's own events, which a part of what has settled does not read again.
#[test]
fn a_part_of_what_has_settled_tells_what_was_lost_of_all_of_it_and_why() {
    let fixture = Fixture::new("settled-part");
    let told = |name: &str, more: &[&str]| {
        let text = std::fs::read(export(&fixture, name, more).join("recording.json"));
        let value: serde_json::Value =
            serde_json::from_slice(&text.expect("exported")).expect("JSON");
        let streams = value["streams"].as_array().expect("lines").iter();
        let sources: Vec<_> = streams.map(|stream| stream["sources"].clone()).collect();
        (sources, value["account"].clone())
    };
    let (whole, _) = told("whole", &[]);
    let lost = |sources: &[serde_json::Value]| {
        sources
            .iter()
            .filter(|of| of[0]["lost"].as_object().is_some_and(|lost| !lost.is_empty()))
            .count()
    };
    assert!(lost(&whole) > 0, "{whole:?}");
    let at = |ms: u64| Wall(EPOCH + (ms * MS) as i64).to_string();
    let range = ["--from", &at(1_100), "--to", &at(1_500)].map(str::to_owned);
    let range: Vec<&str> = range.iter().map(String::as_str).collect();
    let (_, account) = told("unsettled", &range);
    assert!(account.is_object(), "it says of which part: {account}");
    let store = fixture.store().display().to_string();
    let rebuilt = Rebuilt::try_parse_from(["rebuild", "--store", &store]).expect("a command line");
    assert!(crate::shell::cmd::rebuild::run(rebuilt.args).is_ok());
    assert_eq!(told("settled", &range), (whole, serde_json::Value::Null));
}

/// A line on which G.711 is sent for a second, and L16 of twice the rate from then on, as a re-INVITE has it.
#[test]
fn a_line_that_changes_its_codec_is_heard_all_through() {
    let describe = |line: u16| StreamDescription {
        formats: [description(1).formats, description(0).formats].concat(),
        ..description(line)
    };
    let fixture = Fixture::speaking("codec-export", 5_000, &describe, &|ring| {
        for index in 0..100_u64 {
            let (payload_type, payload, step) = match index {
                0..50 => (0, [0x80; 160].to_vec(), 160),
                _ => (97, 32_124_i16.to_be_bytes().repeat(320), 320),
            };
            let timestamp = 9 + index.min(50) * 160 + index.saturating_sub(50) * step;
            let (seq, ssrc) = (Index(index).seq(), Ssrc(1));
            let timestamp = timestamp as u32;
            let fields = Fields { marker: false, payload_type, seq, timestamp, ssrc };
            let packet = [&fields.emit()[..], &payload[..]].concat();
            let (source, at) = (SourceId::new(StreamId(1), 1), STARTS + index * 20 * MS);
            ring.put_at(RecordKind::Rtp, source, index, Mono(at), &packet);
        }
    });
    for more in [&[][..], &["--from", "+1s", "--to", "+5s"]] {
        let out = export(&fixture, &format!("out{}", more.len()), more);
        let times = times(&out);
        assert_eq!((times.wavs[0].rate, &times.wavs[0].overlapped), (16_000, &None));
        let heard = samples(&out.join(&times.wavs[0].file), 1, 0);
        let loud = heard.iter().filter(|sample| **sample > 32_000).count();
        // But for the millisecond in which what is brought to another rate begins.
        assert!((31_900..=32_000).contains(&loud), "{loud} of {}", heard.len());
    }
}

#[test]
fn a_pack_says_what_was_dialled() {
    let describe = |line: u16| {
        let mut one = description(line);
        let own = one.formats[0].clone();
        one.formats.push(Format { payload_type: 101, codec: "telephone-event".to_owned(), ..own });
        one
    };
    let fixture = Fixture::speaking("digits-export", 5_000, &describe, &|ring| {
        for index in 0..60_u64 {
            let (payload_type, payload, timestamp) = match index {
                20..40 => (101, vec![5, 0x8a, 0, (index - 19) as u8 * 8], 20 * 160),
                _ => (0, vec![0x80; 160], index as u32 * 160),
            };
            let (seq, ssrc) = (Index(index).seq(), Ssrc(1));
            let fields = Fields { marker: false, payload_type, seq, timestamp, ssrc };
            let packet = [&fields.emit()[..], &payload[..]].concat();
            let (source, at) = (SourceId::new(StreamId(1), 1), STARTS + index * 20 * MS);
            ring.put_at(RecordKind::Rtp, source, index, Mono(at), &packet);
        }
    });
    for (more, dialled) in [(&["--pack"][..], 1), (&["--pack", "--from", "+2s"], 0)] {
        let out = export(&fixture, &format!("out{}", more.len()), more);
        for file in ["README.txt", "README.html"] {
            let text = std::fs::read_to_string(out.join(file)).expect("exported");
            assert_eq!(text.matches("Dialled 5 at ").count(), dialled, "{file}: {text}");
            assert!(dialled == 0 || text.contains("nothing sent, or nothing that is audio"));
        }
    }
}

/// An SRC that sets its timestamps back by ten seconds each second, or on by half a minute: all of it is heard, one
/// second after the other.
#[test]
fn timestamps_that_leap_lose_and_move_nothing() {
    for leap in [-80_000, 240_000] {
        leaping(leap);
    }
}

fn leaping(leap: i64) {
    let fixture = Fixture::of("leap-export", 8_000, &|ring| {
        for index in 0..250_u64 {
            let leaps = index as i64 / 50 * leap;
            let timestamp = (1_000_000 + index as i64 * 160 + leaps) as u32;
            let (seq, ssrc) = (Index(index).seq(), Ssrc(1));
            let fields = Fields { marker: false, payload_type: 0, seq, timestamp, ssrc };
            let packet = [&fields.emit()[..], &[0x80; 160]].concat();
            let (source, at) = (SourceId::new(StreamId(1), 1), STARTS + index * 20 * MS);
            ring.put_at(RecordKind::Rtp, source, index, Mono(at), &packet);
        }
    });
    for more in [&[][..], &["--from", "+1s", "--to", "+6s"]] {
        let out = export(&fixture, &format!("out{}", more.len()), more);
        let times = times(&out);
        let heard = samples(&out.join(&times.wavs[0].file), 1, 0);
        assert_eq!((heard.len(), times.wavs[0].overlapped), (250 * 160, None), "{more:?}");
        assert!(heard.iter().all(|sample| *sample == 32_124), "{more:?}");
        assert_eq!(times.wavs[0].silences, []);
    }
}

/// Ends at the checkpoint behind so many records and frames.
fn broken_off(fixture: &Fixture, out: &Path, more: &[&str], at: u64) -> Exit {
    let interrupt = Interrupt { asked: &|count| count >= at, leave: &|| {} };
    let ended = run_until(args(fixture, out, more), &interrupt);
    ended.unwrap_or_else(|failure| failure.exit)
}

/// All files but the manifest, whose time is that of its first attempt.
fn bytes(out: &Path) -> Vec<(String, Vec<u8>)> {
    let files = crate::host::exported::sizes(out).expect("readable");
    let read = |path: &str| std::fs::read(out.join(path)).expect("exported");
    files.iter().map(|(path, _)| (path.clone(), read(path))).collect()
}

fn without_manifest(out: &Path) -> Vec<(String, Vec<u8>)> {
    bytes(out).into_iter().filter(|(path, _)| path != "manifest.json").collect()
}

#[test]
fn an_export_that_is_broken_off_anywhere_and_resumed_has_the_same_bytes() {
    let fixture = Fixture::new("resume-export");
    for format in ["wav", "pcapng", "rtp"] {
        let more = ["--format", format];
        let whole = without_manifest(&export(&fixture, &format!("{format}-whole"), &more));
        // 195 packets and some events; behind them the frames of the mix.
        for at in [1, 2, 7, 63, 64, 65, 99, 150, 200, 205, 5_000, 20_000] {
            let out = fixture.0.join(format!("{format}-{at}"));
            let ended = broken_off(&fixture, &out, &more, at);
            if ended == Exit::Yes {
                assert!(at > 200 && (format != "wav" || at > 20_000), "{format} at {at}");
                continue;
            }
            assert_eq!(ended, Exit::Interrupted);
            let again = run(args(&fixture, &out, &more)).map_err(|failure| failure.exit);
            assert_eq!(again, Err(Exit::Usage), "not without --resume");
            let other = run(args(&fixture, &out, &["--resume", "--mono"]));
            assert_eq!(other.map_err(|failure| failure.exit), Err(Exit::Usage), "not another one");
            let more = [&more[..], &["--resume"]].concat();
            // Broken off once more, before and behind where it stood.
            let mut ended = broken_off(&fixture, &out, &more, at / 2 + 1);
            assert_eq!(ended, Exit::Interrupted, "{format} at {at}");
            ended = broken_off(&fixture, &out, &more, at + 3);
            if ended == Exit::Interrupted {
                ended = run(args(&fixture, &out, &more)).unwrap_or_else(|failure| failure.exit);
            }
            assert_eq!(ended, Exit::Yes, "{format} at {at}");
            assert!(without_manifest(&out) == whole, "{format} broken off at {at}");
            let found = crate::host::exported::check(&out, None).expect("an export");
            assert!(found.is_good(), "{:?}", found.faults);
        }
    }
}

/// A time that moves with the clock is, said once more, the one that was begun with.
#[test]
fn an_export_from_so_long_ago_goes_on_from_where_it_began() {
    let now = SystemClock.map().wall.0;
    let seconds = (now - EPOCH) / 1_000_000_000 - 1;
    if seconds < 1 {
        println!("skipped: this machine's clock is behind the recording");
        return;
    }
    let fixture = Fixture::new("resume-ago");
    let out = fixture.0.join("out");
    let ago = format!("--from=-{seconds}s");
    assert_eq!(broken_off(&fixture, &out, &[&ago], 20), Exit::Interrupted);
    let begun = super::unfinished::begun(&out).expect("it was broken off");
    let later = format!("--from=-{}s", seconds - 1);
    let other = run(args(&fixture, &out, &[&later, "--resume"]));
    assert_eq!(other.map_err(|failure| failure.exit), Err(Exit::Usage), "another time");
    let ended = run(args(&fixture, &out, &[&ago, "--resume"])).map_err(|failure| failure.error);
    assert_eq!(ended.expect("the same words"), Exit::Yes);
    let manifest = std::fs::read(out.join("manifest.json")).expect("whole");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    let from = begun.from.map(|from| from.to_string());
    assert!(manifest.to_string().contains(&format!("\"{}\"", from.expect("a time"))));
    // Said as what it is, it is the same, too.
    let out = fixture.0.join("again");
    assert_eq!(broken_off(&fixture, &out, &[&ago], 20), Exit::Interrupted);
    let begun = super::unfinished::begun(&out).expect("it was broken off").from.expect("a time");
    let ended = run(args(&fixture, &out, &["--resume", &format!("--from={begun}")]));
    assert_eq!(ended.unwrap_or_else(|failure| panic!("{}", failure.error)), Exit::Yes);
}

#[test]
fn what_was_written_behind_the_checkpoint_and_a_store_that_changed_do_no_harm() {
    let fixture = Fixture::new("resume-torn");
    let whole = without_manifest(&export(&fixture, "whole", &[]));
    let out = fixture.0.join("out");
    assert_eq!(broken_off(&fixture, &out, &[], 120), Exit::Interrupted);
    // As kill -9 leaves it: files are longer than the checkpoint knows, and a state is half written.
    for name in ["b.wav", "proof/records"] {
        use std::io::Write;
        let mut file = std::fs::File::options().append(true).open(out.join(name)).expect("there");
        file.write_all(&[0xee; 70_000]).expect("ours");
    }
    std::fs::write(out.join(".floortape-export.json.new"), b"{").expect("ours");
    // Somebody has put a way to another file there: nothing is written to it.
    let (moved, elsewhere) = (out.join("b.wav"), fixture.0.join("elsewhere"));
    let (kept, of_others) = (std::fs::read(&moved).expect("there"), b"of somebody else");
    std::fs::write(&elsewhere, of_others).expect("ours");
    std::fs::remove_file(&moved).expect("ours");
    std::os::unix::fs::symlink(&elsewhere, &moved).expect("ours");
    let ended = run(args(&fixture, &out, &["--resume"])).map_err(|failure| failure.exit);
    assert_eq!(ended, Err(Exit::Io));
    assert_eq!(std::fs::read(&elsewhere).expect("there"), of_others);
    std::fs::remove_file(&moved).expect("ours");
    std::fs::write(&moved, kept).expect("ours");
    let longer = fixture.0.join("longer");
    assert!(std::process::Command::new("cp").args(["-r"]).arg(&out).arg(&longer).status().is_ok());
    let ended = run(args(&fixture, &longer, &["--resume"])).map_err(|failure| failure.exit);
    assert_eq!(ended, Ok(Exit::Yes));
    assert!(without_manifest(&longer) == whole);
    // The state says that other records were read: all is written anew.
    let state = out.join(".floortape-export.json");
    let text = std::fs::read_to_string(&state).expect("there");
    let sum = text.split("\"sum\":").nth(1).and_then(|rest| rest.split('}').next()).expect("a sum");
    std::fs::write(&state, text.replace(sum, "1")).expect("ours");
    let ended = run(args(&fixture, &out, &["--resume"])).map_err(|failure| failure.exit);
    assert_eq!(ended, Ok(Exit::Yes));
    assert!(without_manifest(&out) == whole);
    std::fs::write(out.join("extra"), b"").expect("ours");
    let again = run(args(&fixture, &out, &["--resume"])).map_err(|failure| failure.exit);
    assert_eq!(again, Err(Exit::Usage), "a folder that holds something else");
}

#[test]
fn a_folder_is_of_one_export_at_a_time_and_a_whole_one_is_not_gone_on_with() {
    let fixture = Fixture::new("one-export");
    let out = fixture.0.join("out");
    let ended = |more: &[&str]| run(args(&fixture, &out, more)).map_err(|failure| failure.exit);
    let other =
        super::unfinished::lock(&out).unwrap_or_else(|failure| panic!("{:?}", failure.error));
    assert_eq!(ended(&[]), Err(Exit::TryAgain));
    assert_eq!(std::fs::read_dir(&out).expect("made").count(), 0);
    drop(other);
    assert_eq!(ended(&[]), Ok(Exit::Yes));
    let again = run(args(&fixture, &out, &["--resume"])).expect_err("nothing is left");
    assert!(again.error.to_string().contains("is whole"), "{:?}", again.error);
}

#[test]
fn a_range_in_which_nothing_ran_is_refused() {
    let fixture = Fixture::new("no-range");
    let out = fixture.0.join("out");
    for words in [["--from", "2200-01-01T00:00:00Z"], ["--to", "2000-01-01T00:00:00Z"]] {
        for more in [&[][..], &["--dry-run"]] {
            let ended = run(args(&fixture, &out, &[&words[..], more].concat()));
            assert_eq!(ended.map_err(|failure| failure.exit), Err(Exit::NotFound), "{words:?}");
        }
    }
    assert!(!out.exists(), "nothing is made");
}

#[test]
fn a_dry_run_writes_nothing_and_a_pack_is_covered_by_the_manifest() {
    let fixture = Fixture::new("pack-export");
    let out = fixture.0.join("out");
    let dry = run(args(&fixture, &out, &["--dry-run"])).map_err(|failure| failure.exit);
    assert_eq!((dry, out.exists()), (Ok(Exit::Yes), false));
    let out = export(&fixture, "out", &["--pack"]);
    let page = std::fs::read_to_string(out.join("README.html")).expect("exported");
    for wanted in [
        "<audio controls preload=\"none\" src=\"./mixed.wav\">",
        "src=\"./%252E.%252Fa.wav\"",
        "Bob, sip:bob@example.com",
        "5 packet(s) missing between ",
        "floortape verify . --key ",
    ] {
        assert!(page.contains(wanted), "{wanted}: {page}");
    }
    let key = std::fs::read_to_string(out.join("public-key.hex")).expect("exported");
    let text = std::fs::read_to_string(out.join("README.txt")).expect("exported");
    assert!(text.contains(&format!("floortape verify . --key {}", key.trim())), "{text}");
    let named = |name: &str| text.lines().filter(|line| line.starts_with(name)).count();
    assert_eq!(named("mixed.wav"), 2, "where it is heard, and in the list of files: {text}");
    assert!(text.contains("mixed.wav: all lines together, starts at "), "{text}");
    let found = crate::host::exported::check(&out, None).expect("an export");
    assert!(found.is_good(), "{:?}", found.faults);
    let page = page.replace("Bob", "Rob");
    std::fs::write(out.join("README.html"), page).expect("ours");
    let found = crate::host::exported::check(&out, None).expect("an export");
    assert_eq!(found.faults, ["README.html was changed"]);
}
