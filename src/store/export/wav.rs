//! WAV headers: RIFF below 4 GiB, RF64 (EBU Tech 3306) above.

/// Bytes per sample of one channel.
pub const SAMPLE_BYTES: u64 = 2;

/// The header of a PCM16 file whose length is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WavHeader {
    /// Channels.
    pub channels: u16,
    /// Sample rate, Hz.
    pub rate: u32,
    /// Samples per channel.
    pub frames: u64,
}

impl WavHeader {
    /// Bytes of one sample of all channels.
    pub fn frame_bytes(&self) -> u64 {
        u64::from(self.channels) * SAMPLE_BYTES
    }

    /// Bytes of audio.
    pub fn data_bytes(&self) -> u64 {
        self.frames * self.frame_bytes()
    }

    /// The bytes before the first sample.
    pub fn emit(&self) -> Vec<u8> {
        let data = self.data_bytes();
        let mut fmt = Vec::new();
        fmt.extend_from_slice(b"fmt ");
        fmt.extend_from_slice(&16_u32.to_le_bytes());
        fmt.extend_from_slice(&1_u16.to_le_bytes());
        fmt.extend_from_slice(&self.channels.to_le_bytes());
        fmt.extend_from_slice(&self.rate.to_le_bytes());
        let byte_rate = u64::from(self.rate) * self.frame_bytes();
        fmt.extend_from_slice(&(byte_rate as u32).to_le_bytes());
        fmt.extend_from_slice(&(self.frame_bytes() as u16).to_le_bytes());
        fmt.extend_from_slice(&16_u16.to_le_bytes());
        let mut out = Vec::new();
        // The longer header must fit a RIFF size too, so that either form can be chosen beforehand.
        match u32::try_from(data + 72).map(|riff| riff - 36) {
            Ok(riff) => {
                out.extend_from_slice(b"RIFF");
                out.extend_from_slice(&riff.to_le_bytes());
                out.extend_from_slice(b"WAVE");
                out.extend_from_slice(&fmt);
                out.extend_from_slice(b"data");
                out.extend_from_slice(&(data as u32).to_le_bytes());
            }
            // RF64: sizes of -1, the real ones in ds64.
            Err(_) => {
                out.extend_from_slice(b"RF64\xff\xff\xff\xffWAVEds64");
                out.extend_from_slice(&28_u32.to_le_bytes());
                out.extend_from_slice(&(data + 72).to_le_bytes());
                out.extend_from_slice(&data.to_le_bytes());
                out.extend_from_slice(&self.frames.to_le_bytes());
                out.extend_from_slice(&0_u32.to_le_bytes());
                out.extend_from_slice(&fmt);
                out.extend_from_slice(b"data\xff\xff\xff\xff");
            }
        }
        out
    }
}

impl WavHeader {
    /// The same in exactly `bytes`, which is the length of either header: a short file in the
    /// longer one has a `JUNK` chunk where `ds64` would stand (EBU Tech 3306 §3).
    pub fn emit_in(&self, bytes: usize) -> Vec<u8> {
        let mut out = self.emit();
        assert!(bytes == out.len() || bytes == out.len() + 36, "room for no header");
        if bytes > out.len() {
            let mut junk = b"JUNK\x1c\0\0\0".to_vec();
            junk.resize(36, 0);
            out.splice(12..12, junk);
            out[4..8].copy_from_slice(&((self.data_bytes() + 72) as u32).to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_file_has_the_classic_44_bytes() {
        let bytes = WavHeader { channels: 1, rate: 8_000, frames: 160 }.emit();
        assert_eq!(bytes.len(), 44);
        assert_eq!(&bytes[4..8], &356_u32.to_le_bytes());
        assert_eq!(&bytes[24..32], [64, 31, 0, 0, 128, 62, 0, 0]);
        assert_eq!(&bytes[40..], &320_u32.to_le_bytes());
    }

    #[test]
    fn the_first_byte_too_many_makes_it_rf64() {
        let frames = (u64::from(u32::MAX) - 72) / 2;
        let header = |frames| WavHeader { channels: 1, rate: 8_000, frames };
        assert!(header(frames).emit().starts_with(b"RIFF"));
        let bytes = header(frames + 1).emit();
        assert!(bytes.starts_with(b"RF64\xff\xff\xff\xffWAVEds64"));
        assert_eq!(bytes.len(), 80);
        assert_eq!(&bytes[20..28], &((frames + 1) * 2 + 72).to_le_bytes());
        assert_eq!(&bytes[28..36], &((frames + 1) * 2).to_le_bytes());
        let padded = header(5).emit_in(80);
        assert_eq!(
            (padded.len(), &padded[12..16], &padded[48..52]),
            (80, &b"JUNK"[..], &b"fmt "[..])
        );
        assert_eq!(&padded[4..8], &82_u32.to_le_bytes());
    }
}
