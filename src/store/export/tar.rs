//! An export on its way through a pipe: files and folders as a tar stream (POSIX.1-2001 ustar), one header
//! block before the bytes of each. Only what an export holds can be said: plain files and folders below one
//! folder, under relative paths.
//!
//! ```text
//! offset  size  field
//!      0   100  name                      124    12  size: octal, or 0x80 and 11 bytes, big-endian
//!    100    24  mode, uid, gid: octal     136    12  mtime: 0
//!    148     8  checksum: octal, over the block with this field as spaces
//!    156     1  '0' file, '5' folder      257     8  "ustar\0" "00"
//!    345   155  prefix: what stands before the name and a '/'
//! ```

/// Headers, and the ends of files, are multiples of this.
pub const BLOCK_BYTES: usize = 512;
/// Bytes of a path.
pub const PATH_BYTES_MAX: usize = 255;
const NAME_BYTES: usize = 100;
const PREFIX_BYTES: usize = 155;

/// One header block.
pub type Block = [u8; BLOCK_BYTES];

/// What a header announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many bytes follow, filled up to whole blocks.
    File {
        /// Below the export's folder.
        path: String,
        /// How many.
        bytes: u64,
    },
    /// Nothing follows.
    Folder {
        /// Below the export's folder.
        path: String,
    },
}

/// A block that is no header of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TarError {
    /// The checksum does not fit.
    #[error("expected a header of a tar stream, found something else")]
    Checksum,
    /// A number that is none, or too large.
    #[error("a header's size is no number")]
    Size,
    /// Neither file nor folder.
    #[error("expected a file or a folder, found type {0:#x}")]
    Kind(u8),
    /// A path that could lead out of the folder, or that no file of ours has.
    #[error("a path that leads elsewhere: {0:?}")]
    Path(String),
}

/// Whether a path stays below the folder that it is put into, whoever made it up.
pub fn is_safe(path: &str) -> bool {
    !path.is_empty()
        && path.len() <= PATH_BYTES_MAX
        && !path.contains(|c: char| c.is_control() || c == '\\')
        && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

impl Part {
    /// Blocks of zeros that fill up the last one of its bytes: so many bytes.
    pub const fn padding(bytes: u64) -> usize {
        (bytes.wrapping_neg() % BLOCK_BYTES as u64) as usize
    }

    /// Its header; `None` where its path is not safe, or has no place to be split at.
    pub fn header(&self) -> Option<Block> {
        let (path, bytes, kind, mode) = match self {
            Part::File { path, bytes } => (path, *bytes, b'0', &b"0000600\0"[..]),
            Part::Folder { path } => (path, 0, b'5', &b"0000700\0"[..]),
        };
        if !is_safe(path) {
            return None;
        }
        let (prefix, name) = if path.len() <= NAME_BYTES {
            ("", &**path)
        } else {
            let fits = |at: &usize| *at <= PREFIX_BYTES && path.len() - at - 1 <= NAME_BYTES;
            let at = path.match_indices('/').map(|(at, _)| at).find(fits)?;
            (&path[..at], &path[at + 1..])
        };
        let mut block = [0; BLOCK_BYTES];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..108].copy_from_slice(mode);
        block[108..116].copy_from_slice(b"0000000\0");
        block[116..124].copy_from_slice(b"0000000\0");
        if bytes < 1 << 33 {
            block[124..136].copy_from_slice(format!("{bytes:011o}\0").as_bytes());
        } else {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&bytes.to_be_bytes());
        }
        block[136..148].copy_from_slice(b"00000000000\0");
        block[156] = kind;
        block[257..265].copy_from_slice(b"ustar\x0000");
        block[345..345 + prefix.len()].copy_from_slice(prefix.as_bytes());
        let sum = checksum(&block);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        Some(block)
    }

    /// Reads a header; `None` for a block of zeros, which ends the stream.
    pub fn parse(block: &Block) -> Result<Option<Self>, TarError> {
        if *block == [0; BLOCK_BYTES] {
            return Ok(None);
        }
        if octal(&block[148..156]) != Some(checksum(block).into()) {
            return Err(TarError::Checksum);
        }
        let bytes = match block[124] {
            0x80 if block[125..128] == [0; 3] => {
                u64::from_be_bytes(block[128..136].try_into().expect("eight bytes"))
            }
            _ => octal(&block[124..136]).ok_or(TarError::Size)?,
        };
        let (prefix, name) = (text(&block[345..500]), text(&block[..100]));
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        // Some writers end folders so.
        let path = path.strip_suffix('/').unwrap_or(&path).to_owned();
        if !is_safe(&path) {
            return Err(TarError::Path(path));
        }
        match block[156] {
            b'0' | 0 => Ok(Some(Part::File { path, bytes })),
            b'5' => Ok(Some(Part::Folder { path })),
            other => Err(TarError::Kind(other)),
        }
    }
}

/// A field up to its first zero.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).into_owned()
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = field.iter().position(|byte| matches!(byte, 0 | b' ')).unwrap_or(field.len());
    let text = std::str::from_utf8(&field[..digits]).ok()?;
    // `from_str_radix` would take a sign.
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    u64::from_str_radix(text, 8).ok()
}

fn checksum(block: &Block) -> u32 {
    let others = block[..148].iter().chain(&block[156..]);
    others.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, bytes: u64) -> Part {
        Part::File { path: path.to_owned(), bytes }
    }

    #[test]
    fn headers_of_files_and_folders_are_read_again() {
        let long = format!("{}/{}", "d".repeat(150), "n".repeat(100));
        for part in [
            file("recording.json", 0),
            file("metadata/001.xml", 512),
            file("mixed.wav", (1 << 33) - 1),
            file("mixed.wav", 1 << 33),
            file("mixed.wav", u64::MAX),
            file(&long, 7),
            Part::Folder { path: "metadata".to_owned() },
        ] {
            let block = part.header().expect("a safe path");
            assert_eq!(Part::parse(&block), Ok(Some(part)));
        }
        assert_eq!(Part::parse(&[0; BLOCK_BYTES]), Ok(None));
        assert_eq!([0, 1, 511, 512, 513].map(Part::padding), [0, 511, 1, 0, 511]);
    }

    #[test]
    fn paths_that_lead_elsewhere_are_neither_written_nor_read() {
        for path in ["", "/etc/passwd", "..", "a/../b", "a//b", "./a", "a/.", "a\\b", "a\nb", "a/"]
        {
            assert!(!is_safe(path), "{path:?}");
            assert_eq!(file(path, 1).header(), None, "{path:?}");
        }
        assert_eq!(file(&"x".repeat(101), 1).header(), None, "nowhere to split");
        let mut block = file("aa/etc", 1).header().expect("safe");
        block[..2].copy_from_slice(b"..");
        let sum = checksum(&block);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(Part::parse(&block), Err(TarError::Path("../etc".to_owned())));
        // A link could point anywhere.
        let mut block = file("a", 1).header().expect("safe");
        block[156] = b'2';
        let sum = checksum(&block);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        assert_eq!(Part::parse(&block), Err(TarError::Kind(b'2')));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let block = file("metadata/001.xml", 4_711).header().expect("safe");
        for bit in 0..block.len() * 8 {
            let mut bad = block;
            bad[bit / 8] ^= 1 << (bit % 8);
            let read = Part::parse(&bad);
            assert!(read.is_err() || bit / 8 == 155 || bit / 8 == 154, "bit {bit}: {read:?}");
        }
    }
}
