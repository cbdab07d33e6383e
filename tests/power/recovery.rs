//! How fast a log is taken back after a power cut: a log of the wished size in the product's own
//! format, then what a start does with it before it takes calls (`next_position`, `Spool::open`).

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use floortape::base::ids::{Index, Position, SourceId, StreamId, WorkerId};
use floortape::base::ports::Clock;
use floortape::base::time::{ClockMap, Mono};
use floortape::host::clock::SystemClock;
use floortape::host::disk::HostDisk;
use floortape::host::mapped::Mapped;
use floortape::plane::handoff::layout::{self, Geometry};
use floortape::plane::spool::{Spool, SpoolConfig};
use floortape::store::evidence::SigningKey;
use floortape::store::log::{
    self, BLOCK_BYTES, FileHeader, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader, crc32c,
    group_span,
};
use floortape::store::record::{self, RecordKind, RecordMeta};

const WORKER: WorkerId = WorkerId(0);
const FILE_BYTES: u64 = 64 << 20;
const STREAMS: u64 = 500;

/// Makes a log of `mib` MiB below `folder`, which must not be there, and times its recovery.
pub(crate) fn run(folder: &Path, mib: u64) -> Result<String, String> {
    let io = |error: std::io::Error| error.to_string();
    let bytes = mib << 20;
    // The ring of a machine whose log is that long; only its size matters here.
    let ring_bytes = bytes.next_power_of_two() * 2;
    let records = write(folder, bytes, ring_bytes).map_err(io)?;
    let mut told = format!("a log of {mib} MiB, {records} records of {STREAMS} streams");
    for way in ["cold", "in the page cache"] {
        if way == "cold" {
            for entry in std::fs::read_dir(log::folder(folder, WORKER)).map_err(io)?.flatten() {
                let file = File::open(entry.path()).map_err(io)?;
                file.sync_all().map_err(io)?;
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)
                    .map_err(|error| error.to_string())?;
            }
        }
        let begun = Instant::now();
        let first = log::next_position(&HostDisk, folder, WORKER).map_err(|e| e.to_string())?;
        let headers = begun.elapsed();
        let geometry = Geometry { slot_count: 1, ring_bytes };
        let memory = |bytes| Mapped::anonymous("recovery", bytes).map_err(io);
        let ring = memory(ring_bytes as usize)?;
        let state = memory(geometry.state_bytes())?;
        layout::initialise(&state, 0, &geometry, first.0);
        let config = SpoolConfig {
            store: folder.to_owned(),
            journal: folder.join("journal"),
            spare: None,
            segment_dirs: Vec::new(),
            spares: Vec::new(),
            worker: WORKER,
            volume: [1; 16],
            commit_ms: 100,
            segment_bytes: 256 << 20,
            segment_ms: 300_000,
            packing: true,
        };
        let key = Arc::new(SigningKey::from_seed(&[5; 32]));
        let now = SystemClock.map();
        let spool = Spool::open(config, ring, state, HostDisk, key, now);
        drop(spool.map_err(|error| error.to_string())?);
        let all = begun.elapsed();
        told += &format!(
            "\n{way}: end found in {} ms, taken back in {} ms, {:.2} GB/s",
            headers.as_millis(),
            all.as_millis(),
            bytes as f64 / 1e9 / all.as_secs_f64()
        );
    }
    std::fs::remove_dir_all(folder).map_err(io)?;
    Ok(told)
}

/// Writes full files of full groups; returns the records.
fn write(folder: &Path, bytes: u64, ring_bytes: u64) -> std::io::Result<u64> {
    let folder = log::folder(folder, WORKER);
    std::fs::create_dir_all(&folder)?;
    let payload = payload();
    let span = group_span(payload.len() as u64);
    let (mut first, mut group_sequence, mut previous) = (Position(0), 0, [0; 32]);
    let mut group = vec![0; span as usize];
    group[GROUP_HEADER_BYTES..GROUP_HEADER_BYTES + payload.len()].copy_from_slice(&payload);
    for file_sequence in 1..=bytes.div_ceil(FILE_BYTES) {
        let file = File::create(folder.join(format!("{file_sequence:08}.log")))?;
        let header = FileHeader {
            worker: WORKER,
            volume: [1; 16],
            file_sequence,
            first,
            ring_bytes,
            file_bytes: FILE_BYTES,
            key: None,
        };
        let mut block = vec![0; BLOCK_BYTES];
        header.emit(&mut block);
        (&file).write_all(&block)?;
        let mut at = BLOCK_BYTES as u64;
        while at + span <= FILE_BYTES {
            group_sequence += 1;
            let header = GroupHeader {
                worker: WORKER,
                file_sequence,
                group_sequence,
                incarnation: 1,
                first,
                bytes: payload.len() as u64,
                clock: ClockMap { mono: Mono(group_sequence), ..SystemClock.map() },
                previous,
                ring_bytes,
                payload_crc: crc32c(&payload),
                encrypted: false,
            };
            previous = header.emit(&mut group);
            file.write_all_at(&group, at)?;
            at += span;
            first = header.end();
        }
        file.set_len(FILE_BYTES)?;
    }
    Ok(group_sequence * (payload.len() as u64 / 208))
}

/// A group's worth of G.711 packets, 208 bytes a record.
fn payload() -> Vec<u8> {
    let mut payload = Vec::new();
    let mut number = 0;
    while payload.len() + 208 <= GROUP_BYTES_MAX {
        let meta = RecordMeta {
            kind: RecordKind::Rtp,
            flags: 0,
            generation: 1,
            source: SourceId::new(StreamId(number % STREAMS + 1), 1),
            index: Index(number / STREAMS),
            arrival: Mono(number),
        };
        let mut bytes = vec![0; 208];
        record::write(&meta, &[7; 172], &mut bytes);
        payload.extend_from_slice(&bytes);
        number += 1;
    }
    payload
}
