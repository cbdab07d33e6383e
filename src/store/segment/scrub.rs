//! Reads what a segment holds against its sums, piece by piece, for whoever does so all the time and is
//! in nobody's way: no salt, no key, and no more memory than one piece.

use std::collections::BTreeSet;

use super::extent::{EXTENT_HEADER_BYTES, ExtentHeader};
use super::footer::{Footer, Row};
use crate::base::ports::DiskFile;

/// Read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// An extent that fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    /// Its row.
    pub row: Row,
    /// What is wrong.
    pub why: String,
}

/// Reads all extents of a segment whose footer was found sound, but those of `gone` rows. `pace` is told of each piece read, and
/// says whether to go on; `None`: it said no.
pub fn scrub<F: DiskFile>(
    file: &F,
    footer: &Footer,
    gone: &BTreeSet<usize>,
    pace: &mut dyn FnMut(u64) -> bool,
) -> Option<Vec<Failed>> {
    let mut failed = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    for (_, row) in footer.rows.iter().enumerate().filter(|(place, _)| !gone.contains(place)) {
        let found = extent(file, row, footer.trailer.number, &mut piece, pace)?;
        failed.extend(found.err().map(|why| Failed { row: *row, why }));
    }
    Some(failed)
}

fn extent<F: DiskFile>(
    file: &F,
    row: &Row,
    number: u64,
    piece: &mut [u8],
    pace: &mut dyn FnMut(u64) -> bool,
) -> Option<Result<(), String>> {
    let (mut at, end) = (row.offset, row.offset.saturating_add(row.bytes));
    let mut header: Option<ExtentHeader> = None;
    let mut sum = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    while at < end {
        let wanted = (end - at).min(piece.len() as u64) as usize;
        let read = match file.read_at(at, &mut piece[..wanted]) {
            Ok(0) => return Some(Err("the file ends before it".to_owned())),
            Ok(read) => read,
            Err(error) => return Some(Err(error.to_string())),
        };
        if !pace(read as u64) {
            return None;
        }
        let mut bytes = &piece[..read];
        if header.is_none() {
            let fits = ExtentHeader::parse(bytes).filter(|found| {
                (found.source, found.number) == (row.source, number)
                    && found.bytes.checked_add(EXTENT_HEADER_BYTES as u64) == Some(row.bytes)
            });
            if fits.is_none() || read < EXTENT_HEADER_BYTES {
                return Some(Err("no valid extent".to_owned()));
            }
            header = fits;
            bytes = &bytes[EXTENT_HEADER_BYTES..];
        }
        sum.update(bytes);
        at += read as u64;
    }
    let sound = header.is_some_and(|header| u64::from(header.records_crc) == sum.finalize());
    Some(if sound { Ok(()) } else { Err("its bytes fail their sum".to_owned()) })
}
