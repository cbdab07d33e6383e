//! Whether io_uring may be used here at all: containers and hardened kernels forbid it.

use std::io;

/// Sets up the smallest ring there is and gives it back; the error says why not.
pub fn permitted() -> io::Result<()> {
    io_uring::IoUring::new(2).map(drop)
}
