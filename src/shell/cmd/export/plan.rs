//! What an export would write, said without reading a record: from the journal, and where the
//! recording is settled, from the catalogue.

use std::io::{self, Write};

use super::attempt::Wanted;
use super::packets::Form;
use super::survey::frames;
use super::video::Video;
use crate::base::time::Wall;
use crate::store::catalog::model::{Recording, Stream};
use crate::store::export::encoding::decoded;
use crate::store::export::manifest;
use crate::store::export::times;
use crate::store::export::wav::WavHeader;
use crate::store::record::record_bytes;

/// How well a size is known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Size {
    Exactly(u64),
    About(u64),
    /// Nothing says so but the records.
    Unknown,
}

/// Bytes around each packet in a file: headers of pcapng block, IPv6 and UDP, and padding.
const PCAPNG_BYTES: u64 = 32 + 48 + 4;
/// Header of rtpdump's packets.
const RTPDUMP_BYTES: u64 = 8;

/// Says it. `settled`: the recording as the catalogue keeps it.
pub(super) fn say(
    wanted: &Wanted<'_>,
    settled: Option<&Recording>,
    now: Wall,
    out: &mut dyn Write,
) -> io::Result<()> {
    let range = wanted.part.range;
    let start = range.from.unwrap_or(wanted.rs.start).max(wanted.rs.start);
    let end = wanted.rs.end.unwrap_or(now);
    let end = range.to.map_or(end, |to| to.min(end)).max(start);
    // By its own clock a stream may have more samples than by ours.
    let is_exact = range.from.is_some() && range.to.is_some();
    let (first, last) = match (range.from, range.to) {
        (Some(from), Some(to)) => (from, to),
        _ => (start, end),
    };
    let mut files = Vec::new();
    let mut mixed: Option<(u32, u16)> = None;
    for line in wanted.lines {
        let of = |recording: &Recording| {
            let own = |stream: &&Stream| stream.stream == line.description.stream;
            recording.streams.iter().find(own).cloned()
        };
        let stream = settled.and_then(of);
        match (wanted.form, decoded(line.description)) {
            (None, Some(decoded)) => {
                let (rate, channels) = (decoded.rate, u16::from(decoded.channels));
                files.push((
                    format!("{}.wav", line.stem),
                    wav(first, last, rate, channels, is_exact),
                ));
                let (highest, count) = mixed.unwrap_or((0, 0));
                mixed = Some((highest.max(rate), count + 1));
            }
            (None, None) if Video::has(&line.description.formats) => {
                let video = packets(stream.as_ref(), 0);
                files.push((format!("{}.h264", line.stem), video));
            }
            (form, _) => {
                let form = form.unwrap_or(Form::Pcapng);
                let (extension, around) = match form {
                    Form::Pcapng => ("pcapng", PCAPNG_BYTES),
                    Form::Rtpdump => ("rtpdump", RTPDUMP_BYTES),
                };
                files
                    .push((format!("{}.{extension}", line.stem), packets(stream.as_ref(), around)));
            }
        }
        files.push((
            format!("proof/records of {}", line.label),
            packets(stream.as_ref(), RECORD_BYTES),
        ));
    }
    if let Some((rate, count)) = mixed {
        let channels = if wanted.mono { 1 } else { count };
        files.push(("mixed.wav".to_owned(), wav(first, last, rate, channels, is_exact)));
    }
    let seconds = (last.0 - first.0).max(0) as f64 / 1e9;
    writeln!(out, "{} line(s), {seconds:.3} s from {first} to {last}", wanted.lines.len())?;
    let (mut total, mut unknown) = (0, 0);
    for (file, size) in files {
        let (how, bytes) = match size {
            Size::Exactly(bytes) => ("exactly", bytes.to_string()),
            Size::About(bytes) => ("about", bytes.to_string()),
            Size::Unknown => ("", "?".to_owned()),
        };
        match size {
            Size::Exactly(bytes) | Size::About(bytes) => total += bytes,
            Size::Unknown => unknown += 1,
        }
        writeln!(out, "{how:>7} {bytes:>14}  {file}")?;
    }
    writeln!(out, "{:>7} {total:>14}  in all", "about")?;
    if unknown > 0 {
        writeln!(out, "and {unknown} file(s) of which only the records say how long they are")?;
    }
    let small = [times::FILE, "recording.json", "metadata", manifest::FILE];
    writeln!(out, "and {}: as long as what there is to say", small.join(", "))
}

/// A record's header and padding.
const RECORD_BYTES: u64 = record_bytes(0) as u64 + 8;

fn wav(from: Wall, to: Wall, rate: u32, channels: u16, is_exact: bool) -> Size {
    let bytes = |frames: u64| {
        let header = WavHeader { channels, rate, frames };
        header.data_bytes() + header.emit().len() as u64
    };
    let frames = frames(from, to, rate);
    // The longer header is chosen by what could come; clocks are within 1,000 ppm, and the last packet
    // ends behind its arrival.
    if is_exact {
        Size::Exactly(bytes(frames))
    } else {
        Size::About(bytes(frames + frames / 1_000 + u64::from(rate)) + 36)
    }
}

fn packets(stream: Option<&Stream>, around: u64) -> Size {
    let Some(stream) = stream else { return Size::Unknown };
    let of = |source: &crate::store::catalog::model::Source| source.bytes + source.packets * around;
    // Its reports and events are few against a packet each 20 ms, and not counted anywhere.
    let bytes: u64 = stream.sources.iter().map(of).sum();
    Size::About(bytes + bytes / 20 + 65_536)
}
