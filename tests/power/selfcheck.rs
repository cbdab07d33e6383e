//! Checks the rig itself on the real thing: a program that writes and syncs, then writes without a
//! sync; after the cut what was synced is there for every seed, what was not is lost for some.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::disk::FaultDisk;
use crate::host::{Kind, Mounted};

const DISK_BYTES: usize = 320 << 20;
const PIECE: usize = 64 << 10;

/// Runs `seeds` cuts on each file system, loop devices with and without direct I/O.
pub(crate) fn run(folder: &Path, seeds: u64) -> Result<String, String> {
    let mut report = String::new();
    for kind in [Kind::Ext4, Kind::Xfs] {
        for direct in [true, false] {
            let (mut lost, mut torn, mut names_lost) = (0, 0, 0);
            let disk = FaultDisk::mount(&folder.join("disk"), DISK_BYTES)
                .map_err(|error| format!("fault disk: {error}"))?;
            let at = folder.join("mnt");
            let mut mounted = Mounted::make(kind, &disk.file(), &at, direct)?;
            let flushes = disk.flushes();
            for seed in 0..seeds {
                let said = |error: std::io::Error| format!("{} seed {seed}: {error}", kind.name());
                let (synced, unsynced) = (vec![seed as u8 | 1; PIECE], vec![0xee; PIECE]);
                write(&at, &synced, &unsynced).map_err(said)?;
                disk.cut(seed);
                mounted.end()?;
                disk.revive();
                mounted = Mounted::again(kind, &disk.file(), &at, direct)
                    .map_err(|error| format!("seed {seed}: {error}"))?;
                let file = std::fs::read(at.join("a")).map_err(said)?;
                if file.get(..PIECE) != Some(&synced[..]) {
                    return Err(format!("{} seed {seed}: synced data are gone", kind.name()));
                }
                let rest: Vec<bool> =
                    file[PIECE..].chunks(512).map(|sector| sector == &unsynced[..512]).collect();
                let kept = rest.iter().filter(|kept| **kept).count();
                lost += usize::from(kept == 0);
                torn += usize::from(kept != 0 && kept != PIECE / 512);
                names_lost += usize::from(!at.join("c").exists());
                if !at.join("b").exists() {
                    return Err(format!("{} seed {seed}: a synced name is gone", kind.name()));
                }
                for name in ["a", "b", "c"] {
                    let _ = std::fs::remove_file(at.join(name));
                }
                File::open(&at).and_then(|folder| folder.sync_all()).map_err(said)?;
            }
            mounted.end()?;
            Mounted::check(kind, &disk.file())?;
            let line = format!(
                "{} direct-io {}: {seeds} cuts, synced data and names all there; of what was not \
                 synced {lost} times nothing left, {torn} times torn, {names_lost} names lost; {} \
                 flushes",
                kind.name(),
                if direct { "on" } else { "off" },
                disk.flushes() - flushes,
            );
            if lost == 0 || torn == 0 || names_lost == 0 {
                return Err(format!("the rig loses nothing: {line}"));
            }
            report += &line;
            report.push('\n');
        }
    }
    Ok(report)
}

/// `a`: a preallocated file, its first half synced, its second only written, past the page cache;
/// `b`: a name that was synced; `c`: one that was not.
fn write(folder: &Path, synced: &[u8], unsynced: &[u8]) -> std::io::Result<()> {
    let path = folder.join("a");
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path)?;
    file.write_all(&vec![0; 2 * PIECE])?;
    file.sync_all()?;
    File::create(folder.join("b"))?;
    File::open(folder)?.sync_all()?;
    file.write_all_at(synced, 0)?;
    file.sync_data()?;
    let direct = std::os::unix::fs::OpenOptionsExt::custom_flags(
        OpenOptions::new().write(true),
        libc::O_DIRECT,
    )
    .open(&path)?;
    let room = vec![0; unsynced.len() + 4096];
    let start = room.as_ptr().addr().next_multiple_of(4096) - room.as_ptr().addr();
    let mut room = room;
    room[start..start + unsynced.len()].copy_from_slice(unsynced);
    direct.write_all_at(&room[start..start + unsynced.len()], PIECE as u64)?;
    File::create(folder.join("c"))?;
    Ok(())
}
