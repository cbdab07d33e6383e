//! SIGTERM, SIGHUP and SIGUSR2 as a descriptor (signalfd(2)), for a program without tokio. SIGINT is ctrlc's.
#![expect(unsafe_code, reason = "neither rustix nor std has signalfd or the signal mask")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// What keeper is asked by signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// SIGTERM.
    Terminate,
    /// SIGHUP.
    Reload,
    /// SIGUSR2.
    Upgrade,
}

/// The blocked signals, readable.
#[derive(Debug)]
pub struct Signals {
    fd: OwnedFd,
}

impl Signals {
    /// Blocks these signals for the calling thread and what it starts from now on. Call it before
    /// any other thread exists.
    ///
    /// Children inherit the mask, on purpose: a service manager signals the whole group, and the
    /// order in which the roles end is keeper's.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set, the others get a valid set and null where the
        // old mask is not wanted; signalfd makes a new descriptor that nobody else owns.
        // JUSTIFICATION: no safe wrapper among our dependencies.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGUSR2);
            let failed = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if failed != 0 {
                return Err(io::Error::from_raw_os_error(failed));
            }
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made by signalfd, checked not negative, and owned by nobody else.
        Ok(Signals { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// The next signal, if one is waiting.
    pub fn next(&self) -> io::Result<Option<Asked>> {
        let mut info = [0_u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut info) {
            Ok(length) if length == info.len() => {}
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // `ssi_signo`, the first field, is a u32 (signalfd(2)).
        let number = u32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        Ok(match number.cast_signed() {
            libc::SIGTERM => Some(Asked::Terminate),
            libc::SIGHUP => Some(Asked::Reload),
            libc::SIGUSR2 => Some(Asked::Upgrade),
            _ => None,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
