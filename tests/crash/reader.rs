//! Reads what stands in a store by the format pages (`appliance/docs/format-*.md`): segments first,
//! then what only the log has. Shares no code with the product; `tests/checker.py` is its slower
//! twin in another language.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const HEADER: usize = 36;
const BLOCK: usize = 4_096;

/// Kinds of records that matter here.
pub(crate) const RTP: u8 = 1;
pub(crate) const EVENT: u8 = 3;

/// One record as it stands on disk.
pub(crate) struct Record<'a> {
    pub(crate) kind: u8,
    /// Stream and ordinal.
    pub(crate) source: u64,
    pub(crate) index: u64,
    pub(crate) payload: &'a [u8],
}

/// Calls `visit` with every record of the store in `folder`, those of one source in the order in
/// which they were stored. Returns what is damaged, in words.
pub(crate) fn read(folder: &Path, visit: &mut dyn FnMut(Record<'_>)) -> io::Result<Vec<String>> {
    let mut reader = Reader { crc: Crc::new(), damaged: Vec::new(), visit };
    let mut sealed: Vec<(u16, u64)> = Vec::new();
    for path in sorted(&folder.join("segments"), "seg")? {
        let bytes = fs::read(&path)?;
        if let Some((worker, through)) = reader.segment(&path, &bytes) {
            match sealed.iter_mut().find(|(known, _)| *known == worker) {
                Some((_, end)) => *end = through.max(*end),
                None => sealed.push((worker, through)),
            }
        }
    }
    for path in sorted(&folder.join("log"), "")? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(worker) = name.strip_prefix('w').and_then(|number| number.parse::<u16>().ok())
        else {
            continue;
        };
        let end = sealed.iter().find(|(known, _)| *known == worker).map_or(0, |(_, end)| *end);
        reader.log(&path, end)?;
    }
    Ok(reader.damaged)
}

/// Files of a folder with that ending (any where it is empty), by name; none where it is missing.
fn sorted(folder: &Path, ending: &str) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.retain(|path| ending.is_empty() || path.extension().is_some_and(|own| own == ending));
    paths.sort();
    Ok(paths)
}

struct Reader<'a> {
    crc: Crc,
    damaged: Vec<String>,
    visit: &'a mut dyn FnMut(Record<'_>),
}

/// A commit group of the log.
struct Group {
    first: u64,
    sequence: u64,
    end: u64,
    ring: u64,
    crc: u32,
    file: usize,
    offset: usize,
}

impl Reader<'_> {
    fn bad(&mut self, path: &Path, offset: usize, why: &str) {
        self.damaged.push(format!("{} at {offset}: {why}", path.display()));
    }

    /// format-segment.md: worker and end position.
    fn segment(&mut self, path: &Path, bytes: &[u8]) -> Option<(u16, u64)> {
        let at = bytes.len().checked_sub(512)?;
        let tail = &bytes[at..];
        if &tail[..8] != b"FTSEGEND" || self.crc.sum(&tail[..508]) != u32_at(tail, 508) {
            self.bad(path, at, "trailer");
            return None;
        }
        let (rows_at, rows) = (u64_at(tail, 64) as usize, u64_at(tail, 72) as usize);
        for row in (0..rows).map(|row| &bytes[rows_at + row * 128..][..128]) {
            let (source, offset) = (u64_at(row, 0), u64_at(row, 8) as usize);
            let (size, records) = (u64_at(row, 16) as usize, u64_at(row, 24));
            let extent = &bytes[offset..offset + size];
            let (head, body) = extent.split_at(128);
            let right = &head[..8] == b"FTEXTNT1"
                && u64_at(head, 8) == source
                && self.crc.sum(&head[..124]) == u32_at(head, 124)
                && self.crc.sum(body) == u32_at(head, 116);
            if !right {
                self.bad(path, offset, "extent");
                continue;
            }
            let mut unpacked = Vec::new();
            let body = match head[19] {
                0 => body,
                1 if unpack(body, &mut unpacked).is_some() => &unpacked[..],
                _ => {
                    self.bad(path, offset, "packing");
                    continue;
                }
            };
            let (mut at, mut count) = (0, 0);
            while at < body.len() {
                match self.record(&body[at..]) {
                    0 => break,
                    step => (at, count) = (at + step, count + 1),
                }
            }
            if at != body.len() || count != records {
                self.bad(path, offset + 128 + at, "records");
            }
        }
        Some((u16::from_le_bytes([tail[12], tail[13]]), u64_at(tail, 48)))
    }

    /// format-record.md: hands the first record of `bytes` over; its size, 0 where there is none.
    fn record(&mut self, bytes: &[u8]) -> usize {
        if bytes.len() < HEADER {
            return 0;
        }
        let length = u32_at(bytes, 0) as usize;
        let total = (HEADER + length).next_multiple_of(8);
        let kind = bytes[4];
        if total > bytes.len() || !matches!(kind, 1..=4 | 255) {
            return 0;
        }
        if kind != 255 {
            let payload = &bytes[HEADER..HEADER + length];
            let (source, index) = (u64_at(bytes, 8), u64_at(bytes, 16));
            (self.visit)(Record { kind, source, index, payload });
        }
        total
    }

    /// format-log.md: what stands behind position `sealed`.
    fn log(&mut self, folder: &Path, sealed: u64) -> io::Result<()> {
        let paths = sorted(folder, "log")?;
        let mut groups = Vec::new();
        for (file, path) in paths.iter().enumerate() {
            self.groups(file, &fs::read(path)?, &mut groups);
        }
        groups.retain(|group| group.end > sealed);
        groups.sort_by_key(|group| (group.first, group.sequence));
        let mut next = sealed;
        for group in groups.into_iter().filter(|group| group.end > sealed) {
            if group.end <= next {
                continue;
            }
            let path = &paths[group.file];
            let bytes = fs::read(path)?;
            let body = &bytes[group.offset..][..(group.end - group.first) as usize];
            if self.crc.sum(body) != group.crc {
                self.bad(path, group.offset, "commit group");
                continue;
            }
            if group.first > next {
                self.bad(path, group.offset, &format!("positions {next} to {}", group.first));
            }
            let mut at = group.first;
            while at < group.end {
                let left = group.ring - at % group.ring;
                if left < HEADER as u64 {
                    at += left;
                    continue;
                }
                let start = (at - group.first) as usize;
                let limit = body.len().min(start + left as usize);
                let step = match at < next {
                    true => (HEADER + u32_at(body, start) as usize).next_multiple_of(8),
                    false => self.record(&body[start..limit]),
                };
                if step == 0 {
                    self.bad(path, group.offset + start, "record");
                    break;
                }
                at += step as u64;
            }
            next = group.end;
        }
        Ok(())
    }

    fn groups(&self, file: usize, bytes: &[u8], groups: &mut Vec<Group>) {
        let whole = bytes.len() >= BLOCK && &bytes[..8] == b"FTLOGF01";
        if !whole || self.crc.sum(&bytes[..64]) != u32_at(bytes, 64) {
            return;
        }
        let sequence = u64_at(bytes, 32);
        let mut at = BLOCK;
        while at + 128 <= bytes.len() {
            let head = &bytes[at..at + 128];
            let length = u64_at(head, 48);
            let right = &head[..8] == b"FTGROUP1"
                && u64_at(head, 16) == sequence
                && self.crc.sum(&head[..124]) == u32_at(head, 124)
                && at + 128 + length as usize <= bytes.len();
            if !right {
                at += BLOCK;
                continue;
            }
            let (first, ring, crc) = (u64_at(head, 40), u64_at(head, 104), u32_at(head, 112));
            let (end, offset) = (first + length, at + 128);
            groups.push(Group { first, sequence, end, ring, crc, file, offset });
            at += (128 + length as usize).next_multiple_of(BLOCK);
        }
    }
}

/// format-segment.md: records of packed chunks, their sums left at 0.
fn unpack(mut chunks: &[u8], out: &mut Vec<u8>) -> Option<()> {
    while let Some((head, rest)) = chunks.split_at_checked(8) {
        let (stored, total) = (u32_at(head, 0) as usize, u32_at(head, 4) as usize);
        let (mut body, behind) = rest.split_at_checked(stored)?;
        let end = out.len() + total;
        if stored == total {
            out.extend_from_slice(body);
            body = &[];
        }
        let mut before = Before::default();
        while !body.is_empty() {
            body = before.record(body, out)?;
        }
        if out.len() != end {
            return None;
        }
        chunks = behind;
    }
    chunks.is_empty().then_some(())
}

/// What the records of a chunk tell of the next one.
#[derive(Default)]
struct Before {
    /// Kind, flags, generation, source.
    head: [u8; 12],
    count: u64,
    length: usize,
    index: u64,
    arrival: i64,
    step: i64,
    rtp: Option<[u8; 12]>,
    rtp_index: u64,
    ticks: u32,
}

impl Before {
    /// Writes the first record of `body`; what is behind it.
    fn record<'a>(&mut self, body: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
        let (what, mut rest) = body.split_first()?;
        if *what == 0x80 {
            let (raw, rest) =
                rest.split_at_checked((HEADER + u32_at(rest, 0) as usize).next_multiple_of(8))?;
            out.extend_from_slice(raw);
            return Some(rest);
        }
        let has = |bit: u8| what & bit != 0;
        if self.count == 0 {
            self.head[0] = RTP;
        }
        if has(0x01) {
            (self.head, rest) = (*rest.first_chunk()?, &rest[12..]);
        }
        let off = if has(0x02) { signed(&mut rest)? } else { 0 };
        self.index = self.index.wrapping_add(1).wrapping_add(off as u64);
        if has(0x04) {
            self.length = number(&mut rest)? as usize;
        }
        let arrival = self.arrival.wrapping_add(self.step).wrapping_add(signed(&mut rest)?);
        let distance = arrival.wrapping_sub(self.arrival);
        self.arrival = arrival;
        self.count += 1;
        match self.count {
            1 => {}
            2 => self.step = distance,
            _ => {
                let off = distance.wrapping_sub(self.step) >> 3;
                self.step = self.step.wrapping_add(off.clamp(-1 << 20, 1 << 20));
            }
        }
        let mut front = Vec::new();
        if has(0x08) {
            let mut head = self.rtp?;
            if has(0x10) {
                head[1] ^= rest.split_off_first()?;
            }
            let off = if has(0x20) { signed(&mut rest)? as u32 } else { 0 };
            let steps = self.index.wrapping_sub(self.rtp_index) as u32;
            let ticks = self.ticks.wrapping_mul(steps).wrapping_add(off);
            head[2..4].copy_from_slice(&(self.index as u16).to_be_bytes());
            let timestamp = stamp(&head).wrapping_add(ticks);
            head[4..8].copy_from_slice(&timestamp.to_be_bytes());
            front = head.to_vec();
        }
        if has(0x40) {
            rest = rest.get(4..)?;
        }
        let (behind, rest) = rest.split_at_checked(self.length.checked_sub(front.len())?)?;
        front.extend_from_slice(behind);
        if self.head[0] == RTP
            && let Some(head) = front.first_chunk::<12>()
        {
            if let Some(last) = &self.rtp
                && self.index == self.rtp_index.wrapping_add(1)
            {
                self.ticks = stamp(head).wrapping_sub(stamp(last));
            }
            (self.rtp, self.rtp_index) = (Some(*head), self.index);
        }
        out.extend_from_slice(&(self.length as u32).to_le_bytes());
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.index.to_le_bytes());
        out.extend_from_slice(&self.arrival.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&front);
        out.resize(
            out.len() + (HEADER + self.length).next_multiple_of(8) - HEADER - self.length,
            0,
        );
        Some(rest)
    }
}

fn stamp(head: &[u8; 12]) -> u32 {
    u32::from_be_bytes([head[4], head[5], head[6], head[7]])
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let octet = rest.split_off_first()?;
        value |= u64::from(octet & 127) << shift;
        if *octet < 128 {
            return Some(value);
        }
    }
    None
}

fn signed(rest: &mut &[u8]) -> Option<i64> {
    number(rest).map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("checked by the caller"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("checked by the caller"))
}

/// CRC-32C, eight bytes a step.
struct Crc([[u32; 256]; 8]);

impl Crc {
    fn new() -> Self {
        let mut tables = [[0_u32; 256]; 8];
        for (byte, entry) in tables[0].iter_mut().enumerate() {
            *entry = (0..8)
                .fold(byte as u32, |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 });
        }
        for table in 1..8 {
            for byte in 0..256 {
                let before = tables[table - 1][byte];
                tables[table][byte] = before >> 8 ^ tables[0][(before & 255) as usize];
            }
        }
        Crc(tables)
    }

    fn sum(&self, bytes: &[u8]) -> u32 {
        let Crc(tables) = self;
        let mut crc = u32::MAX;
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            let word = u64::from_le_bytes(*word) ^ u64::from(crc);
            crc = word
                .to_le_bytes()
                .into_iter()
                .zip(tables.iter().rev())
                .fold(0, |sum, (byte, table)| sum ^ table[usize::from(byte)]);
        }
        for byte in rest {
            crc = crc >> 8 ^ tables[0][((crc ^ u32::from(*byte)) & 255) as usize];
        }
        !crc
    }
}

/// What this file's own arithmetic must give: the check value of the CRC catalogue.
pub(crate) fn check() {
    assert_eq!(Crc::new().sum(b"123456789"), 0xe306_9283);
    assert_eq!(Crc::new().sum(&[0; 32]), 0x8a91_36aa);
}
