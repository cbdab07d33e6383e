//! `LABEL.h264`: video that a player takes as it is, and when its pictures were.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::base::time::Wall;
use crate::store::event::Format;
use crate::store::export::h264::{H264, Picked};

/// The codec's name in SDP (RFC 6184 §8.1).
const CODEC: &str = "H264";

/// Video of one stream. Each source begins anew, where a decoder can.
pub(super) struct Video {
    format: Format,
    path: PathBuf,
    out: Option<(BufWriter<File>, BufWriter<File>)>,
    source: Option<(u16, H264)>,
    /// Of the first picture: its timestamp, and when it came.
    first: Option<(u32, Wall)>,
    /// The timestamp of the last one, unwrapped from the first.
    last: (u32, i64),
}

impl Video {
    /// Of a stream that has this codec; `None`: it has not.
    pub(super) fn new(dir: &Path, stem: &str, formats: &[Format]) -> Option<Video> {
        let format =
            formats.iter().find(|format| format.codec.eq_ignore_ascii_case(CODEC))?.clone();
        let path = dir.join(format!("{stem}.h264"));
        Some(Video { format, path, out: None, source: None, first: None, last: (0, 0) })
    }

    /// Whether a payload type is of this video.
    pub(super) fn is(&self, payload_type: u8) -> bool {
        payload_type == self.format.payload_type
    }

    pub(super) fn packet(
        &mut self,
        (ordinal, index): (u16, u64),
        timestamp: u32,
        arrival: Wall,
        payload: &[u8],
    ) -> io::Result<()> {
        if self.source.as_ref().is_none_or(|(of, _)| *of != ordinal) {
            self.end_source(arrival)?;
            self.source = Some((ordinal, H264::new(self.format.fmtp.as_deref())));
        }
        let (_, video) = self.source.as_mut().expect("set above");
        let picked = video.packet(index, timestamp, payload);
        self.put(picked, arrival)
    }

    fn end_source(&mut self, arrival: Wall) -> io::Result<()> {
        match self.source.take() {
            Some((_, video)) => self.put(video.finish(), arrival),
            None => Ok(()),
        }
    }

    fn put(&mut self, picked: Picked, arrival: Wall) -> io::Result<()> {
        if picked.bytes.is_empty() {
            return Ok(());
        }
        if self.out.is_none() {
            let times = self.path.with_extension("h264.times.txt");
            let (video, mut times) =
                (File::create_new(&self.path)?, BufWriter::new(File::create_new(times)?));
            // As multiplexers read it; the rest of a line behind `#` is for people.
            writeln!(times, "# timestamp format v2")?;
            writeln!(
                times,
                "# milliseconds of each picture by RTP time; the first one came at {arrival}"
            )?;
            self.out = Some((BufWriter::new(video), times));
        }
        let (video, times) = self.out.as_mut().expect("made above");
        video.write_all(&picked.bytes)?;
        for (timestamp, _) in picked.pictures {
            let ticks = match self.first {
                None => {
                    self.first = Some((timestamp, arrival));
                    0
                }
                Some(_) => self.last.1 + i64::from(timestamp.wrapping_sub(self.last.0) as i32),
            };
            self.last = (timestamp, ticks);
            let rate = i64::from(self.format.clock_rate.max(1));
            writeln!(
                times,
                "{}.{:03}",
                ticks * 1_000 / rate,
                (ticks * 1_000_000 / rate).rem_euclid(1_000)
            )?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self, end: Wall) -> io::Result<()> {
        self.end_source(end)?;
        if let Some((mut video, mut times)) = self.out {
            video.flush()?;
            times.flush()?;
        }
        Ok(())
    }
}
