//! A WAV file being written: samples come at any place, what nobody wrote is silence.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::pen::Pen;
use crate::store::export::wav::WavHeader;

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 256 * 1024;

/// See the module.
pub(super) struct Wave {
    file: File,
    pen: Pen,
    header: WavHeader,
    header_bytes: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl Wave {
    /// Makes the file. `frames_max`: no sample comes at or behind it; it decides whether there is
    /// to be room for the longer header of RF64.
    pub(super) fn create(
        path: &Path,
        pen: &Pen,
        (rate, channels): (u32, u16),
        frames_max: u64,
    ) -> io::Result<Wave> {
        let (file, pen) = (pen.open(path)?, pen.clone());
        let longest = WavHeader { channels, rate, frames: frames_max };
        Ok(Wave {
            file,
            pen,
            header: WavHeader { frames: 0, ..longest },
            header_bytes: longest.emit().len() as u64,
            buffer: Vec::new(),
            buffer_at: 0,
        })
    }

    pub(super) fn frame_bytes(&self) -> u64 {
        self.header.frame_bytes()
    }

    /// Puts interleaved samples at `frame`.
    pub(super) fn put(&mut self, frame: u64, samples: &[i16]) -> io::Result<()> {
        let at = frame * self.header.frame_bytes();
        if at != self.buffer_at + self.buffer.len() as u64 || self.buffer.len() > BUFFER_BYTES {
            self.flush()?;
            self.buffer_at = at;
        }
        self.buffer.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
        Ok(())
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.pen.write(&self.file, &self.buffer, self.header_bytes + self.buffer_at)?;
        self.buffer_at += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Brings it to the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }

    /// Ends the file at exactly `frames`.
    pub(super) fn finish(mut self, frames: u64) -> io::Result<Finished> {
        self.flush()?;
        self.header.frames = frames;
        self.file.set_len(self.header_bytes + self.header.data_bytes())?;
        self.file.write_all_at(&self.header.emit_in(self.header_bytes as usize), 0)?;
        Ok(Finished { file: self.file, header: self.header, header_bytes: self.header_bytes })
    }
}

/// A finished file, for the mix to read.
pub(super) struct Finished {
    file: File,
    pub(super) header: WavHeader,
    header_bytes: u64,
}

impl Finished {
    /// `count` frames from `first` on, channels averaged; silence outside of the file.
    pub(super) fn read(&self, first: i64, count: usize) -> io::Result<Vec<i16>> {
        let channels = usize::from(self.header.channels.max(1));
        let mut out = vec![0; count];
        let from = first.max(0) as u64;
        let end = first.saturating_add(count as i64).clamp(0, self.header.frames as i64) as u64;
        if from >= end {
            return Ok(out);
        }
        let mut bytes = vec![0; (end - from) as usize * channels * 2];
        let at = self.header_bytes + from * self.header.frame_bytes();
        self.file.read_exact_at(&mut bytes, at)?;
        let lead = (from as i64 - first) as usize;
        for (slot, frame) in out[lead..].iter_mut().zip(bytes.chunks_exact(channels * 2)) {
            let sum: i32 = frame
                .chunks_exact(2)
                .map(|two| i32::from(i16::from_le_bytes([two[0], two[1]])))
                .sum();
            *slot = (sum / channels as i32) as i16;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sparse file of 4 GiB and some: its header says so, and its last sample is where it was put.
    #[test]
    fn above_4_gib_a_file_is_rf64_and_whole() {
        let name = format!("floortape-rf64-{}.wav", std::process::id());
        let path = std::env::temp_dir().join(name);
        let frames = (1 << 31) + 1_000;
        let mut wave = Wave::create(&path, &Pen::new(true), (48_000, 1), frames + 5).expect("temp");
        wave.put(0, &[1, 2]).expect("temp");
        wave.put(frames - 2, &[-3, -4]).expect("temp");
        let wave = wave.finish(frames).expect("temp");
        assert_eq!(wave.read(frames as i64 - 3, 4).expect("there"), [0, -3, -4, 0]);
        let mut head = [0; 80];
        wave.file.read_exact_at(&mut head, 0).expect("there");
        assert_eq!((&head[..4], &head[8..16]), (&b"RF64"[..], &b"WAVEds64"[..]));
        assert_eq!(head[28..36], (2 * frames).to_le_bytes());
        assert_eq!(wave.file.metadata().expect("there").len(), 80 + 2 * frames);
        std::fs::remove_file(path).expect("ours");
    }
}
