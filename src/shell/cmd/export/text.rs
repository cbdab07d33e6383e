//! `LABEL.txt`: what was typed, a line each, with the time and who.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::track::Range;
use crate::store::catalog::model::Stream;

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
