//! Copies of a program, for tests that put another in its place.

use std::path::Path;
use std::process::Command;

/// Copies a program that is then started. By another process: a descriptor of ours that writes is
/// inherited by whatever a thread beside us starts in that instant, and no file is executed while
/// anybody can write to it (ETXTBSY).
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--").args([from, to]).status().expect("cp starts");
    assert!(copied.success(), "{} is copied", from.display());
}
