//! The other folders of a store, spare ones (F12), those for segments and the journal's, and whether a folder is the one
//! that is meant (F18).

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags};

use super::disk::{HostDisk, make_folder};
use super::unlocked::{self, StoreFiles};
use super::volume::{self, Volume, VolumeError};
use super::{facts, keyfile, signing};
use crate::base::ports::Disk;
use crate::store::journal::{foreign, holds_any};
use crate::store::places::{Places, Root};

/// A store with everything that lies elsewhere of it, for reading.
pub type StoreDisk = Places<StoreFiles>;

/// The folders of `store` as its `volume.json` names them, for reading. One that is not there, or
/// is not this store's, is noted and left out.
pub fn places(store: &Path, journal: &Path) -> StoreDisk {
    let Ok(volume) = volume::read(store) else {
        let files = unlocked::files(store, journal, &[]);
        return Places::new(files, Root::of_store(store, journal, &[]));
    };
    let checked = |spare: &PathBuf| check(spare, store, &volume.id);
    let (good, bad): (Vec<_>, Vec<_>) =
        volume.spares.iter().map(|spare| (spare, checked(spare))).partition(|one| one.1.is_ok());
    let good: Vec<PathBuf> = good.into_iter().map(|(spare, _)| spare.clone()).collect();
    let files = unlocked::files(store, journal, &good);
    let places = Places::new(files, Root::of_store(store, journal, &good));
    for (spare, result) in bad {
        places.note(spare, result.err().map(|error| error.to_string()).unwrap_or_default());
    }
    if let Err(error) = check_journal(&places, journal, store, &volume) {
        places.note(journal, error.to_string());
    }
    places
}

/// The same for those who write on where the files end: all folders or nothing.
pub fn strict_places(store: &Path, journal: &Path) -> Result<StoreDisk, VolumeError> {
    let volume = volume::read(store)?;
    volume.spares.iter().try_for_each(|spare| check(spare, store, &volume.id))?;
    let files = unlocked::files(store, journal, &volume.spares);
    let places = Places::strict(files, Root::of_store(store, journal, &volume.spares));
    check_journal(&places, journal, store, &volume)?;
    Ok(places)
}

/// Makes folder `name` in the spare folder of `store`.
pub fn folder(spare: &Path, store: &Path, name: &str) -> io::Result<PathBuf> {
    let volume = volume::read(store).map_err(io::Error::other)?;
    check(spare, store, &volume.id).map_err(io::Error::other)?;
    let folder = spare.join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Notes in `volume` where else the store is: spare folders, those for segments, and the journal's, which are
/// made and marked the first time. All that were noted before must be there: they may hold the only copy of
/// what came last, and its positions would be used again without them.
pub fn record<'a>(
    store: &Path,
    volume: &mut Volume,
    more: impl IntoIterator<Item = &'a Path>,
    journal: &Path,
) -> Result<(), VolumeError> {
    volume.spares.iter().try_for_each(|known| check(known, store, &volume.id))?;
    let before = volume.clone();
    for spare in more {
        if volume.spares.iter().any(|known| known == spare) {
            continue;
        }
        mark(spare, &Volume { spare_of: Some(store.to_owned()), ..Volume::fresh(&volume.id) })?;
        check(spare, store, &volume.id)?;
        volume.spares.push(spare.to_owned());
    }
    volume.journal = (journal != store.join("journal")).then(|| journal.to_owned());
    if volume.journal_begun {
        let roots = Root::of_store(store, journal, &volume.spares);
        let files = unlocked::files(store, journal, &volume.spares);
        check_journal(&Places::new(files, roots), journal, store, volume)?;
    } else {
        let of = Volume { journal_of: Some(store.to_owned()), ..Volume::fresh(&volume.id) };
        mark(journal, &of)?;
        is_journal(journal, &volume.id).map_err(|why| not_the_journal(journal, store, why))?;
    }
    if *volume != before {
        volume::write(store, volume)
            .map_err(|error| VolumeError::Io { path: store.join("volume.json"), error })?;
    }
    Ok(())
}

/// Makes `folder` one that is `marker`, where it is none yet.
fn mark(folder: &Path, marker: &Volume) -> Result<(), VolumeError> {
    let failed = |error| VolumeError::Io { path: folder.to_owned(), error };
    make_folder(folder).map_err(failed)?;
    if !folder.join("volume.json").exists() {
        volume::write(folder, marker).map_err(failed)?;
    }
    Ok(())
}

/// Whether `spare` is the spare folder of the store with that id.
fn check(spare: &Path, store: &Path, id: &str) -> Result<(), VolumeError> {
    let found = match volume::read(spare) {
        Ok(found) if found.id == id && found.spare_of.is_some() => return Ok(()),
        Ok(found) => format!("it belongs to the store {}, expected {id}", found.id),
        Err(VolumeError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            "it is not there".to_owned()
        }
        Err(error) => error.to_string(),
    };
    let (spare, volume) = (spare.to_owned(), store.join("volume.json"));
    Err(VolumeError::Spare { spare, volume, why: found })
}

/// Whether the journal of a store has files already, in whichever folder.
pub fn has_journal(volume: &Volume, journal: &Path) -> bool {
    let spares = volume.spares.iter().map(|spare| spare.join("journal"));
    let mut folders = std::iter::once(journal.to_owned()).chain(spares);
    folders.any(|folder| holds_any(&HostDisk, &folder).unwrap_or(false))
}

/// Where the store has begun its journal: whether the folder is that one, and there are files of it,
/// in whichever folder, and no others.
fn check_journal(
    places: &StoreDisk,
    journal: &Path,
    store: &Path,
    of: &Volume,
) -> Result<(), VolumeError> {
    if !of.journal_begun {
        return Ok(());
    }
    let files = || match holds_any(places, journal) {
        Ok(true) => Ok(()),
        Ok(false) => Err("it holds no file of it".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let ours = || match foreign(places, journal, &of.id) {
        Ok(None) => Ok(()),
        Ok(Some((file, found))) => {
            Err(format!("{} was written for the store {found}", file.display()))
        }
        Err(error) => Err(error.to_string()),
    };
    is_journal(journal, &of.id)
        .and_then(|()| files())
        .and_then(|()| ours())
        .map_err(|why| not_the_journal(journal, store, why))
}

/// Whether a folder says that it is the journal of the store with that id, or why not.
fn is_journal(folder: &Path, id: &str) -> Result<(), String> {
    match volume::read(folder) {
        Ok(found) if found.id != id => Err(format!("it belongs to the store {}", found.id)),
        Ok(found) if found.journal_of.is_none() => Err("it is another folder of it".to_owned()),
        Ok(_) => Ok(()),
        Err(VolumeError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            Err("it is not there, or empty".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn not_the_journal(journal: &Path, store: &Path, why: String) -> VolumeError {
    VolumeError::Journal { journal: journal.to_owned(), volume: store.join("volume.json"), why }
}

/// Whether `store` is what the configuration means: the store with the `expected` id, on a mounted
/// disk where `require_mount`. Makes nothing.
pub fn guard(store: &Path, expected: Option<&str>, require_mount: bool) -> Result<(), VolumeError> {
    let there = facts::existing_folder(store);
    let failed = |error| VolumeError::Io { path: there.clone(), error };
    if require_mount && !is_mounted(&there).map_err(failed)? {
        return Err(VolumeError::NotMounted { store: store.to_owned() });
    }
    if let Some(expected) = expected {
        let found = match volume::read(store) {
            Ok(volume) if volume.id == expected => None,
            Ok(volume) => Some(volume.id),
            Err(VolumeError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
                Some("no store".to_owned())
            }
            Err(error) => return Err(error),
        };
        if let Some(found) = found {
            let (store, expected) = (store.to_owned(), expected.to_owned());
            return Err(VolumeError::Wrong { store, expected, found });
        }
    }
    Ok(())
}

/// Whether `store` has its identity and its keys, as far as it has begun. Changes nothing.
pub fn guard_keys(store: &Path, journal: &Path) -> Result<(), VolumeError> {
    volume::check(store)?;
    // It is yet to begin.
    let Ok(volume) = volume::read(store) else { return Ok(()) };
    keyfile::find(store, &volume, journal)?;
    signing::find(store)?;
    Ok(())
}

/// Whether `store` lies on a disk that takes writes: what a new run must have, and one that is taken
/// over need not (F12).
pub fn guard_writable(store: &Path) -> Result<(), VolumeError> {
    let there = facts::existing_folder(store);
    let found = rustix::fs::statvfs(&there);
    let flags = found.map_err(|error| VolumeError::Io { path: there, error: error.into() })?.f_flag;
    if flags.contains(StatVfsMountFlags::RDONLY) {
        return Err(VolumeError::ReadOnly { store: store.to_owned() });
    }
    Ok(())
}

/// Whether a folder lies on another device than `/`, or is itself a mount.
fn is_mounted(folder: &Path) -> io::Result<bool> {
    if HostDisk.device(folder)? != HostDisk.device(Path::new("/"))? {
        return Ok(true);
    }
    let found = rustix::fs::statx(CWD, folder, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
    Ok(folder != Path::new("/") && found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::journal::{Standings, snapshot};

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn f18_another_store_no_store_and_a_folder_of_the_root_disk_are_refused() {
        let base = folder("guard");
        let store = base.join("store");
        assert!(matches!(guard(&store, Some("a"), false), Err(VolumeError::Wrong { .. })));
        assert!(!store.exists(), "a store is never made where another one is expected");
        std::fs::create_dir_all(&store).unwrap();
        volume::open(&store, "b").unwrap();
        let wrong = guard(&store, Some("a"), false).unwrap_err().to_string();
        assert!(wrong.contains("expected the store a") && wrong.contains("found b"), "{wrong}");
        guard(&store, Some("b"), false).unwrap();
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/")).unwrap());
        assert!(matches!(guard(Path::new("/proc/x"), None, true), Ok(())));
        assert!(matches!(
            guard(Path::new("/nowhere/x"), None, true),
            Err(VolumeError::NotMounted { .. })
        ));
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn f18_a_journal_that_was_begun_must_be_there_and_be_this_stores() {
        let base = folder("journal");
        let (store, journal) = (base.join("store"), base.join("journal"));
        std::fs::create_dir_all(&store).unwrap();
        let (mut volume, _) = volume::open(&store, "id").unwrap();
        record(&store, &mut volume, None, &journal).unwrap();
        strict_places(&store, &journal).expect("no entry yet, and none is missed");
        volume::begin_journal(&store, &mut volume).unwrap();
        assert!(volume::read(&store).unwrap().journal_begun);
        let refused = |volume: &mut Volume, journal: &Path, what: &str| {
            let why = record(&store, volume, None, journal).unwrap_err().to_string();
            assert!(why.contains(what) && why.contains("`journal_begun`"), "{why}");
            let why = strict_places(&store, journal).err().expect("the same").to_string();
            assert!(why.contains(what), "{why}");
            assert_eq!(places(&store, journal).trouble().len(), 1, "readers are told");
        };
        refused(&mut volume, &journal, "it holds no file of it");
        std::fs::write(journal.join("00000001.journal"), "x").unwrap();
        record(&store, &mut volume, None, &journal).unwrap();
        assert!(strict_places(&store, &journal).is_ok());
        assert!(places(&store, &journal).trouble().is_empty());
        // What another store's journal stands for is none of ours, and looks whole.
        let snapshot = |of: &str| {
            let standings = Standings { volume: of.to_owned(), ..Standings::default() };
            let bytes = snapshot::write(&standings, 1).expect("short");
            std::fs::write(journal.join("00000001.snapshot"), bytes).unwrap();
        };
        snapshot("b");
        refused(&mut volume, &journal, "00000001.snapshot was written for the store b");
        snapshot("id");
        assert!(strict_places(&store, &journal).is_ok());
        // Another folder is configured, or nothing is mounted.
        refused(&mut volume, &base.join("other"), "it is not there");
        assert!(!base.join("other").exists(), "nothing is made in its place");
        volume::write(&journal, &Volume { journal_of: Some("/".into()), ..Volume::fresh("b") })
            .unwrap();
        refused(&mut volume, &journal, "belongs to the store b");
        volume.journal_begun = false;
        let why = record(&store, &mut volume, None, &journal).unwrap_err().to_string();
        assert!(why.contains("belongs to the store b"), "{why}");
        assert!(volume::open(&journal, "x").is_err(), "nobody records into a journal");
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn f18_a_spare_folder_is_marked_noted_and_must_be_there_from_then_on() {
        let base = folder("spare");
        let (store, spare, journal) = (base.join("store"), base.join("spare"), base.join("j"));
        std::fs::create_dir_all(&store).unwrap();
        let (mut volume, _) = volume::open(&store, "id").unwrap();
        record(&store, &mut volume, Some(spare.as_path()), &journal).unwrap();
        let read = volume::read(&store).unwrap();
        assert_eq!((read.spares, read.journal), (vec![spare.clone()], Some(journal.clone())));
        assert!(volume::open(&spare, "x").is_err(), "nobody records into a spare folder");
        record(&store, &mut volume, None, &journal).unwrap();
        assert_eq!(
            volume.spares,
            std::slice::from_ref(&spare),
            "what lies there stays part of the store"
        );
        // Unmounted: an empty folder.
        std::fs::remove_file(spare.join("volume.json")).unwrap();
        assert!(matches!(
            record(&store, &mut volume, Some(spare.as_path()), &journal),
            Err(VolumeError::Spare { .. })
        ));
        assert!(strict_places(&store, &journal).is_err());
        assert_eq!(places(&store, &journal).trouble().len(), 1);
        // Another store's.
        volume::write(&spare, &Volume { spare_of: Some("/".into()), ..Volume::fresh("b") })
            .unwrap();
        let why = record(&store, &mut volume, None, &journal).unwrap_err().to_string();
        assert!(why.contains("belongs to the store b"), "{why}");
        std::fs::remove_dir_all(base).unwrap();
    }
}
