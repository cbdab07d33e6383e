//! The folders that a spool may write to: the store, then the spare one, then those for segments. A
//! segment goes to where most room is, of the store and those for segments; all else to the first. One that
//! failed is out of use until it was checked twice (F12); one on which something else is mounted now is not
//! the store any more (F18).

use std::io;
use std::path::{Path, PathBuf};

use super::buffer::AlignedBuffer;
use super::config::SpoolConfig;
use crate::base::ports::{Disk, DiskFile};
use crate::base::time::Mono;
use crate::store::log::BLOCK_BYTES;
use crate::store::places::{Places, Root};

/// Time between two checks of a folder that failed.
const CHECK_MS: u64 = 10_000;
/// Checks that must pass, one after the other, before it is used again.
const CHECKS: u8 = 2;
/// Time between two looks at the devices.
const LOOK_MS: u64 = 1_000;

struct Folder {
    root: PathBuf,
    /// Empty where it could not be told at the start: then any will do.
    device: String,
    purpose: Purpose,
    failed: Option<Failed>,
}

/// What a folder is there for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Log and segments.
    Store,
    /// Both, where the others have failed.
    Spare,
    /// Segments; the log only where the others have failed.
    Segments,
    /// Parts of the store lie there, nothing is written there any more.
    Reads,
}

struct Failed {
    why: String,
    since: Mono,
    check_at: Mono,
    passed: u8,
    /// A check is under way.
    asked: bool,
}

/// See the module.
pub(super) struct Paths<D> {
    disk: D,
    folders: Vec<Folder>,
    /// Room that a folder must have to be sound again.
    check_bytes: u64,
    look_at: Mono,
}

impl<D: Disk + Clone> Paths<D> {
    pub(super) fn new(disk: D, config: &SpoolConfig, check_bytes: u64) -> Self {
        let used: Vec<(&PathBuf, Purpose)> = [(&config.store, Purpose::Store)]
            .into_iter()
            .chain(config.spare.iter().map(|root| (root, Purpose::Spare)))
            .chain(config.segment_dirs.iter().map(|root| (root, Purpose::Segments)))
            .collect();
        let is_used = |known: &&PathBuf| used.iter().any(|(root, _)| root == known);
        let more = config.spares.iter().filter(|known| !is_used(known));
        let roots = used.iter().copied().chain(more.map(|root| (root, Purpose::Reads)));
        let folders = roots
            .map(|(root, purpose)| {
                let device = disk.device(root).unwrap_or_default();
                Folder { root: root.clone(), device, purpose, failed: None }
            })
            .collect();
        Paths { disk, folders, check_bytes, look_at: Mono(0) }
    }

    /// All of them as one disk; every folder must be readable.
    pub(super) fn whole(&self) -> Places<D> {
        let (store, more) = self.folders.split_first().expect("the store is the first");
        let more = more.iter().map(|folder| folder.root.clone()).collect();
        Places::strict(self.disk.clone(), vec![Root { folder: store.root.clone(), more }])
    }

    /// Where the next file goes: the first sound folder; where none is, the one that failed first.
    pub(super) fn choose(&self) -> usize {
        let places = (0..self.folders.len()).filter(|place| self.is_written(*place));
        let since = |place: &usize| self.folders[*place].failed.as_ref().map(|one| one.since);
        places.min_by_key(since).expect("the store is written to")
    }

    /// Where the next segment goes: of the sound folders that take segments the one with the most room, the
    /// first of several; where there is none, as [`Self::choose`].
    pub(super) fn choose_for_segment(&self) -> usize {
        if self.folders.iter().all(|folder| folder.purpose != Purpose::Segments) {
            return self.choose();
        }
        let takes = |place: &usize| {
            matches!(self.folders[*place].purpose, Purpose::Store | Purpose::Segments)
                && self.is_sound(*place)
        };
        // One that does not answer has none.
        let room = |place: &usize| self.disk.free_bytes(self.root(*place)).unwrap_or(0);
        let places = (0..self.folders.len()).rev().filter(takes);
        places.max_by_key(room).unwrap_or_else(|| self.choose())
    }

    fn is_written(&self, place: usize) -> bool {
        self.folders[place].purpose != Purpose::Reads
    }

    pub(super) fn root(&self, place: usize) -> &Path {
        &self.folders[place].root
    }

    /// The folder that a file of the store lies in.
    pub(super) fn place_of(&self, file: &Path) -> usize {
        let inside = |folder: &Folder| file.starts_with(&folder.root);
        // A spare folder may lie below the store.
        let found = self.folders.iter().enumerate().filter(|(_, folder)| inside(folder));
        let longest = found.max_by_key(|(_, folder)| folder.root.as_os_str().len());
        longest.map_or(0, |(place, _)| place)
    }

    pub(super) fn is_sound(&self, place: usize) -> bool {
        self.folders[place].failed.is_none()
    }

    /// Whether there is a folder to go on in.
    pub(super) fn any_sound(&self) -> bool {
        self.is_sound(self.choose())
    }

    /// Something there failed: out of use until checked.
    pub(super) fn fail(&mut self, place: usize, why: &str, now: Mono) {
        let folder = &mut self.folders[place];
        let device = &folder.device;
        let why = format!("{} (device {device}): {why}", folder.root.display());
        let check_at = now.plus_ms(CHECK_MS);
        folder.failed = Some(Failed { why, since: now, check_at, passed: 0, asked: false });
    }

    /// What was written there was synced and read back, for want of a better folder: that is as
    /// good as a check.
    pub(super) fn works(&mut self, place: usize) {
        self.folders[place].failed = None;
    }

    /// Whether the folder is still on the device that it was on. Asked before a file is made: a
    /// folder that is no mount any more would be filled on the root disk.
    pub(super) fn check_device(&self, place: usize) -> io::Result<()> {
        let folder = &self.folders[place];
        // A store that is being made has no folder yet.
        if folder.device.is_empty() {
            return Ok(());
        }
        let found = self.disk.device(&folder.root)?;
        if found == folder.device {
            return Ok(());
        }
        Err(io::Error::other(format!("expected device {}, found {found}", folder.device)))
    }

    /// A sound folder whose device is another one now, looked for once a second.
    pub(super) fn lost_device(&mut self, now: Mono) -> Option<(usize, io::Error)> {
        if now < self.look_at {
            return None;
        }
        self.look_at = now.plus_ms(LOOK_MS);
        let sound = |place: &usize| self.is_sound(*place) && self.is_written(*place);
        (0..self.folders.len())
            .filter(sound)
            .find_map(|place| Some((place, self.check_device(place).err()?)))
    }

    /// A folder that is due to be checked, if another one is in use meanwhile. Answered by
    /// [`Paths::checked`].
    pub(super) fn next_check(&mut self, now: Mono) -> Option<Check> {
        if !self.any_sound() {
            // Every attempt to write is a check then.
            return None;
        }
        let folder = self.folders.iter_mut().find(|folder| {
            folder.failed.as_ref().is_some_and(|failed| !failed.asked && now >= failed.check_at)
        })?;
        folder.failed.as_mut().expect("found by it").asked = true;
        let (root, device) = (folder.root.clone(), folder.device.clone());
        Some(Check { root, device, bytes: self.check_bytes })
    }

    /// The answer to a check. Returns whether the folder is sound again.
    pub(super) fn checked(&mut self, root: &Path, passed: bool, now: Mono) -> bool {
        let Some(folder) = self.folders.iter_mut().find(|folder| folder.root == root) else {
            return false;
        };
        let Some(failed) = &mut folder.failed else { return false };
        failed.asked = false;
        failed.check_at = now.plus_ms(CHECK_MS);
        failed.passed = if passed { failed.passed + 1 } else { 0 };
        let sound = failed.passed >= CHECKS;
        if sound {
            folder.failed = None;
        }
        sound
    }

    /// The folders that are out of use, a bit each.
    pub(super) fn failed(&self) -> u64 {
        let failed = self.folders.iter().enumerate().filter(|(_, one)| one.failed.is_some());
        failed.fold(0, |all, (place, _)| all | 1 << place.min(63))
    }

    /// Which folders are out of use and why; `None`: none is.
    pub(super) fn out_of_use(&self) -> Option<String> {
        let failed = self.folders.iter().filter_map(|folder| folder.failed.as_ref());
        let texts: Vec<&str> = failed.map(|failed| failed.why.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

/// A folder to be checked, outside of the spool's thread: a disk that hangs would hold it up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The folder.
    pub root: PathBuf,
    device: String,
    bytes: u64,
}

impl Check {
    /// Makes a file of the size that is needed, writes its first and last block, syncs, reads both
    /// back and removes it.
    pub fn run<D: Disk>(&self, disk: &D) -> io::Result<()> {
        let found = disk.device(&self.root)?;
        if !self.device.is_empty() && found != self.device {
            let why = format!("expected device {}, found {found}", self.device);
            return Err(io::Error::other(why));
        }
        let path = self.root.join("log").join(".check");
        // Left by a check that failed; may well not exist.
        let _ = disk.remove(&path);
        let result = self.write(disk, &path);
        let removed = disk.remove(&path);
        result.and(removed)
    }

    fn write<D: Disk>(&self, disk: &D, path: &Path) -> io::Result<()> {
        let mut block = AlignedBuffer::new(BLOCK_BYTES);
        block.bytes_mut().fill(0xa5);
        let last =
            self.bytes.saturating_sub(BLOCK_BYTES as u64) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
        let mut file = disk.create(path, self.bytes)?;
        for at in [0, last] {
            file.write_at(at, block.bytes())?;
        }
        file.sync()?;
        let file = disk.open_read(path)?;
        for at in [0, last] {
            let mut found = vec![0; BLOCK_BYTES];
            let count = file.read_at(at, &mut found)?;
            if count != BLOCK_BYTES || found != block.bytes() {
                return Err(io::Error::other("what was written does not read back"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::WorkerId;
    use crate::store::test_disk::TestDisk;

    fn config() -> SpoolConfig {
        SpoolConfig {
            store: "/store".into(),
            journal: "/store/journal".into(),
            spare: Some("/spare".into()),
            segment_dirs: Vec::new(),
            spares: vec!["/old".into(), "/spare".into()],
            worker: WorkerId(0),
            volume: [7; 16],
            commit_ms: 100,
            segment_bytes: 1 << 20,
            segment_ms: 1_000,
            packing: true,
        }
    }

    fn paths(disk: &TestDisk) -> Paths<TestDisk> {
        Paths::new(disk.clone(), &config(), 1 << 20)
    }

    #[test]
    fn f12_a_folder_that_failed_comes_back_when_it_passes_twice() {
        let disk = TestDisk::default();
        let mut paths = paths(&disk);
        let at = |seconds: u64| Mono(seconds * 1_000_000_000);
        paths.fail(0, "EIO", at(1));
        assert_eq!((paths.choose(), paths.any_sound()), (1, true));
        assert_eq!(paths.next_check(at(10)), None, "no more often than every ten seconds");
        let check = paths.next_check(at(11)).expect("due");
        assert_eq!(paths.next_check(at(30)), None, "one at a time");
        disk.set_full_at(Path::new("/store"), true);
        assert!(!paths.checked(&check.root, check.run(&disk).is_ok(), at(31)));
        disk.set_full_at(Path::new("/store"), false);
        for (second, sound) in [(41, false), (51, true)] {
            let check = paths.next_check(at(second)).expect("due");
            check.run(&disk).expect("well again");
            assert_eq!(paths.checked(&check.root, true, at(second)), sound);
        }
        assert_eq!((paths.choose(), paths.out_of_use()), (0, None));
        assert!(disk.paths().is_empty(), "a check leaves nothing");
    }

    #[test]
    fn a_segment_goes_to_where_most_room_is_and_the_log_to_the_store() {
        let disk = TestDisk::default();
        let mut config = config();
        config.segment_dirs = vec!["/disk2".into(), "/disk3".into()];
        config.spares.extend(config.segment_dirs.clone());
        let mut paths = Paths::new(disk.clone(), &config, 1 << 20);
        assert_eq!(paths.folders.len(), 5, "none is there twice");
        let chosen = |paths: &Paths<TestDisk>| paths.root(paths.choose_for_segment()).to_owned();
        for (root, free) in [("/store", 9), ("/spare", 99), ("/old", 99), ("/disk2", 9)] {
            disk.set_free(Path::new(root), free);
        }
        assert_eq!(chosen(&paths), Path::new("/store"), "the first of those with as much");
        disk.set_free(Path::new("/disk3"), 10);
        assert_eq!(chosen(&paths), Path::new("/disk3"));
        disk.set_unreadable(Path::new("/disk3"), true);
        assert_eq!(chosen(&paths), Path::new("/store"), "one that does not answer has no room");
        disk.set_unreadable(Path::new("/disk3"), false);
        for (nth, (failing, next)) in
            [("/disk3", "/store"), ("/store", "/disk2"), ("/disk2", "/spare")]
                .into_iter()
                .enumerate()
        {
            paths.fail(paths.place_of(Path::new(failing)), "EIO", Mono(1 + nth as u64));
            assert_eq!(chosen(&paths), Path::new(next));
        }
        assert_eq!(paths.root(paths.choose()), Path::new("/spare"), "and the log as well");
        paths.fail(paths.choose(), "EIO", Mono(9));
        assert!(!paths.any_sound());
    }

    #[test]
    fn the_log_goes_on_in_a_folder_for_segments_where_there_is_no_spare_one() {
        let mut config = config();
        (config.spare, config.spares) = (None, vec!["/disk2".into()]);
        config.segment_dirs = config.spares.clone();
        let mut paths = Paths::new(TestDisk::default(), &config, 1 << 20);
        assert_eq!(paths.root(paths.choose()), Path::new("/store"));
        paths.fail(0, "EIO", Mono(1));
        assert_eq!(paths.root(paths.choose()), Path::new("/disk2"));
        assert!(paths.any_sound());
    }

    #[test]
    fn f18_another_device_is_noticed_and_nothing_is_checked_on_it() {
        let disk = TestDisk::default();
        let mut paths = paths(&disk);
        assert!(paths.lost_device(Mono(1)).is_none());
        disk.set_device(Path::new("/store"), 3);
        assert!(paths.lost_device(Mono(2)).is_none(), "once a second");
        let (place, error) = paths.lost_device(Mono(2_000_000_000)).expect("another one");
        paths.fail(place, &error.to_string(), Mono(2));
        let check = paths.next_check(Mono(60_000_000_000)).expect("due");
        assert!(check.run(&disk).is_err() && disk.paths().is_empty());
    }

    #[test]
    fn where_all_have_failed_they_take_turns_and_old_spares_are_never_written() {
        let mut paths = paths(&TestDisk::default());
        paths.fail(0, "a", Mono(1));
        paths.fail(1, "b", Mono(2));
        assert_eq!((paths.choose(), paths.any_sound()), (0, false));
        paths.fail(0, "a", Mono(3));
        assert_eq!(paths.choose(), 1);
        assert_eq!(paths.place_of(Path::new("/old/log/w0/1.log")), 2);
        assert!(
            paths.out_of_use().is_some_and(|why| why.contains("/spare") && why.contains("/store"))
        );
    }
}
