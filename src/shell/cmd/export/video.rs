//! `LABEL.h264`: video that a player takes as it is, and when its pictures were.

use std::io;
use std::path::{Path, PathBuf};

use super::pen::{Appended, Pen};
use crate::base::time::Wall;
use crate::store::event::Format;
use crate::store::export::h264::{H264, Picked};

/// The codec's name in SDP (RFC 6184 §8.1).
const CODEC: &str = "H264";

/// Video of one stream. Each source begins anew, where a decoder can.
pub(super) struct Video {
    format: Format,
    path: PathBuf,
    pen: Pen,
    out: Option<(Appended, Appended)>,
    source: Option<(u16, H264)>,
    /// Of the first picture: its timestamp, and when it came.
    first: Option<(u32, Wall)>,
    /// The timestamp of the last one, unwrapped from the first.
    last: (u32, i64),
}

impl Video {
    /// Of a stream that has this codec; `None`: it has not.
    pub(super) fn new((dir, pen): (&Path, &Pen), stem: &str, formats: &[Format]) -> Option<Video> {
        let format =
            formats.iter().find(|format| format.codec.eq_ignore_ascii_case(CODEC))?.clone();
        let path = dir.join(format!("{stem}.h264"));
        let pen = pen.clone();
        Some(Video { format, path, pen, out: None, source: None, first: None, last: (0, 0) })
    }

    /// Whether a stream has this codec.
    pub(super) fn has(formats: &[Format]) -> bool {
        formats.iter().any(|format| format.codec.eq_ignore_ascii_case(CODEC))
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
            let video = Appended::create(&self.path, &self.pen)?;
            let mut times = Appended::create(&times, &self.pen)?;
            // As multiplexers read it; the rest of a line behind `#` is for people.
            let head = format!(
                "# timestamp format v2\n# milliseconds of each picture by RTP time; the first one \
                 came at {arrival}\n"
            );
            times.put(head.as_bytes())?;
            self.out = Some((video, times));
        }
        let (video, times) = self.out.as_mut().expect("made above");
        video.put(&picked.bytes)?;
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
            let (ms, rest) = (ticks * 1_000 / rate, (ticks * 1_000_000 / rate).rem_euclid(1_000));
            times.put(format!("{ms}.{rest:03}\n").as_bytes())?;
        }
        Ok(())
    }

    /// What came is written; `sync`: and on the disk.
    pub(super) fn flush(&mut self, sync: bool) -> io::Result<()> {
        let Some((video, times)) = &mut self.out else { return Ok(()) };
        for file in [video, times] {
            if sync { file.sync() } else { file.flush() }?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self, end: Wall) -> io::Result<()> {
        self.end_source(end)?;
        if let Some((video, times)) = self.out {
            video.finish()?;
            times.finish()?;
        }
        Ok(())
    }
}
