//! `LABEL.txt`: what was typed, a line each, with the time and who; `LABEL.pcapng.txt`: how audio is heard that has no
//! decoder here.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::track::Range;
use crate::store::catalog::model::Stream;
use crate::store::event::StreamDescription;
use crate::store::export::announce::note;
use crate::store::export::encoding::decoded;

/// Writes the lines of `stream` that were begun in `range`; no file where there are none.
pub(super) fn write(dir: &Path, stem: &str, stream: &Stream, range: Range) -> io::Result<()> {
    let mut lines = stream.text_lines.iter().filter(|line| range.holds(line.at)).peekable();
    if lines.peek().is_none() {
        return Ok(());
    }
    let several = stream.sources.len() > 1;
    let mut out = BufWriter::new(File::create(dir.join(format!("{stem}.txt")))?);
    for line in lines {
        match several {
            true => writeln!(out, "{} {:08x} {}", line.at, line.ssrc, line.text)?,
            false => writeln!(out, "{} {}", line.at, line.text)?,
        }
    }
    if stream.text_cut {
        writeln!(out, "… and more, which is in the packets")?;
    }
    out.flush()
}

/// Writes what is said of a line of audio without a decoder; no file for any other.
pub(super) fn write_note(dir: &Path, stem: &str, stream: &StreamDescription) -> io::Result<()> {
    let packets = format!("{stem}.pcapng");
    match note(stream, &packets).filter(|_| decoded(stream).is_none()) {
        Some(note) => std::fs::write(dir.join(format!("{packets}.txt")), note),
        None => Ok(()),
    }
}
