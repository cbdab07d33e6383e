//! Room that a store keeps for its own way out: on a disk that is full to its last block nothing could go by
//! retention, since what goes is written into the audit trail before, and its segment anew. `STORE/reserve`
//! holds that room, and nothing else; whoever removes what is due gives it back first, and takes it again
//! from what has become free. So does a server that could not start otherwise: only one that runs removes anything.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::HostDisk;
use crate::base::ports::Disk;

/// What is kept. Of a segment of 2,000 extents that goes as a whole some 300 KB stay, of its entry in the trail
/// 1 KB or, with a thousand recordings named, 40.
pub const BYTES: u64 = 16 << 20;
/// Taken only where the disk has so many times as much: nobody is to have less room for it.
const SHARE: u64 = 8;

/// Where it lies.
pub fn path(store: &Path) -> PathBuf {
    store.join("reserve")
}

/// Takes the room, where it is not held and the disk has plenty. `Ok(false)`: it has too little.
pub fn take(store: &Path) -> io::Result<bool> {
    let path = path(store);
    match std::fs::metadata(&path) {
        Ok(found) if found.len() == BYTES => return Ok(true),
        // A piece of it, by whoever was stopped.
        Ok(_) => std::fs::remove_file(&path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if HostDisk.free_bytes(store)? < SHARE * BYTES {
        return Ok(false);
    }
    HostDisk.create(&path, BYTES).map(|_| true)
}

/// Gives it back; whether there was any.
pub fn give_back(store: &Path) -> bool {
    std::fs::remove_file(path(store)).is_ok()
}

/// Whether an act failed for want of room.
pub fn is_full(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|one| one.downcast_ref()).any(wants_room)
}

/// The same of what the operating system says.
pub fn wants_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::AuditError;

    #[test]
    fn it_is_whole_or_not_there_and_is_taken_again() {
        let store = std::env::temp_dir().join(format!("floortape-reserve-{}", std::process::id()));
        std::fs::create_dir_all(&store).expect("ours");
        assert!(!give_back(&store));
        assert!(take(&store).expect("room") && take(&store).expect("there"));
        let blocks = std::os::unix::fs::MetadataExt::blocks(
            &std::fs::metadata(path(&store)).expect("just made"),
        );
        assert!(blocks * 512 >= BYTES, "{blocks} blocks");
        std::fs::write(path(&store), "a piece").expect("ours");
        assert!(take(&store).expect("room"));
        assert_eq!(std::fs::metadata(path(&store)).expect("there").len(), BYTES);
        assert!(give_back(&store) && !path(&store).exists());
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn what_failed_for_want_of_room_is_told_from_other_trouble() {
        let failed = |kind: io::ErrorKind| AuditError::Io {
            action: "append to",
            path: "a".into(),
            source: kind.into(),
        };
        assert!(is_full(&failed(io::ErrorKind::StorageFull).into()));
        assert!(!is_full(&failed(io::ErrorKind::PermissionDenied).into()));
    }
}
