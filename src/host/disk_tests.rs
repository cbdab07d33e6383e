//! The spool on real files, some of whose calls fail: what the disk in memory takes for granted
//! holds there as well.

use std::path::{Path, PathBuf};

use super::disk::HostDisk;
use crate::base::ports::{Disk, DiskFile};
use crate::plane::spool::tests::faults::one_fault;
use crate::store::fault_disk::{Call, Fault};

#[test]
fn f12_calls_on_a_real_folder_fail_and_nothing_durable_is_missing() {
    let base = std::env::temp_dir().join(format!("floortape-faults-{}", std::process::id()));
    for call in [Call::Create, Call::Write, Call::Sync, Call::Rename] {
        let (mut nth, mut next) = (1, 2);
        loop {
            let _ = std::fs::remove_dir_all(&base);
            let (store, spare) = (base.join("store"), base.join("spare"));
            std::fs::create_dir_all(&store).unwrap();
            std::fs::create_dir_all(&spare).unwrap();
            let what = (call, nth, Fault::Io);
            if !one_fault(HostDisk, (&store, Some(&spare)), what, |disk| *disk) {
                break;
            }
            (nth, next) = (next, nth + next);
        }
    }
    std::fs::remove_dir_all(base).unwrap();
}

/// A file of `name` with `data` at its start, and `holes` behind it, each with an octet at its end or nothing.
fn with_holes(name: &str, data: usize, holes: &[(u64, bool)]) -> PathBuf {
    let path = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
    let mut file = std::fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, &vec![7; data]).unwrap();
    let mut end = data as u64;
    for (hole, has_data) in holes {
        end += hole;
        file.set_len(end).unwrap();
        if *has_data {
            std::os::unix::fs::FileExt::write_all_at(&file, b"x", end).unwrap();
            end += 1;
        }
    }
    path
}

#[test]
fn a_file_ends_for_its_reader_where_nobody_has_written_for_long() {
    let written = |path: &Path| {
        let file = HostDisk.open_read(path).unwrap();
        let found = (file.written(4 << 20).unwrap(), file.bytes().unwrap());
        std::fs::remove_file(path).unwrap();
        found
    };
    let block = 4_096;
    assert_eq!(written(&with_holes("whole", 10, &[])), (10, 10));
    assert_eq!(written(&with_holes("empty", 0, &[])), (0, 0));
    let tail = written(&with_holes("tail", 10, &[(1 << 30, false)]));
    assert!(tail.0 <= block && tail.1 == 10 + (1 << 30), "{tail:?}");
    let short = written(&with_holes("short", 10, &[(1 << 20, false)]));
    assert_eq!(short.0, short.1, "a power cut may leave so much");
    let bridged = written(&with_holes("bridged", 10, &[(1 << 20, true), (1 << 30, true)]));
    assert!((1 << 20..2 << 20).contains(&bridged.0), "{bridged:?}");
}
