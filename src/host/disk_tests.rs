//! The spool on real files, some of whose calls fail: what the disk in memory takes for granted
//! holds there as well.

use super::disk::HostDisk;
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
