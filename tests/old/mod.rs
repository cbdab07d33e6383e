//! Copies of the store and the export of version 0.1.0 that are checked in, to be written to: for the tests of
//! the programs, and for those of the library.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A folder that goes with it.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Folder {
    /// A name in `base` where nothing is yet; `name` keeps tests apart.
    pub(crate) fn new(base: &Path, name: &str) -> Self {
        let path = base.join(format!("floortape-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Folder(path)
    }

    /// The store.
    pub(crate) fn store(base: &Path, name: &str) -> Self {
        let folder = Folder::new(base, name);
        copy(&corpus("store-v1"), &folder.0);
        fs::remove_file(folder.0.join("README.md")).expect("there");
        folder
    }

    /// The export.
    pub(crate) fn export(base: &Path, name: &str) -> Self {
        let folder = Folder::new(base, name);
        copy(&corpus("export-v1"), &folder.0);
        folder
    }
}

/// What is checked in under that name.
pub(crate) fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name)
}

/// Copies a folder; keys are as private as those of a store must be.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("room");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("it has a name"));
        if path.is_dir() {
            copy(&path, &target);
            continue;
        }
        fs::copy(&path, &target).expect("room");
        if path.extension().is_some_and(|of| of == "key") {
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("ours");
        }
    }
}
