//! Keys whose segment lies in another folder: whoever sealed it began it here, and went elsewhere when the
//! disk failed (F12).

use std::io;
use std::path::{Path, PathBuf};

use super::name::folder;
use super::thin::segment_path;
use crate::base::ports::Disk;
use crate::store::keys::{destroy, path_of};

/// Destroys them in folder `root` of `store`; which they were. Keys whose segment is nowhere stay: it may
/// come back from wherever copies are. So do those of a worker's newest one, which may be about to be
/// written again.
pub fn destroy_stray_keys<D: Disk>(
    disk: &D,
    store: &Path,
    root: &Path,
) -> io::Result<Vec<PathBuf>> {
    let mut destroyed = Vec::new();
    let here = folder(root);
    let names = super::list(disk, store)?;
    for pair in names.windows(2).filter(|pair| pair[0].worker == pair[1].worker) {
        let name = pair[0];
        let keys = here.join(path_of(Path::new(&name.file())));
        // In this folder, whatever others have under that name.
        let is_here = |file: &Path| disk.open(&here.join(file)).is_ok();
        if !is_here(&keys)
            || is_here(Path::new(&name.file()))
            || is_here(Path::new(&name.thinned_file()))
        {
            continue;
        }
        // It is somewhere: it was listed. Its own keys are beside it there, and are others.
        if path_of(&segment_path(disk, store, name)) != keys {
            destroy(disk, &keys)?;
            destroyed.push(keys);
        }
    }
    Ok(destroyed)
}
