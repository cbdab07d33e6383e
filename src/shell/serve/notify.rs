//! The service manager's side of a start (sd_notify(3)): readiness, the watchdog, and the store that
//! holds descriptors while none of our processes lives. Datagrams to `NOTIFY_SOCKET`; where there is
//! none, nothing is said.

use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::base::limits::FRAME_FDS_MAX;

/// Not polled: a manager that polls drops a descriptor at its first error, and an ICMP answer to a
/// report of ours is one.
const STORE: &str = "FDSTORE=1\nFDNAME=floortape\nFDPOLL=0";
const FORGET: &str = "FDSTOREREMOVE=1\nFDNAME=floortape";

/// Says `state` (such as `READY=1`) to the service manager, where there is one.
pub fn say(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&path, state, &[]) {
        tracing::warn!("NOTIFY_SOCKET {}: {error}", path.display());
    }
}

/// Gives the service manager copies of `letters` to hold ([`crate::host::letter`]); they come back
/// to each start of a keeper ([`crate::host::process::handed_over`]) until the service has stopped.
/// Whether it has room for them (`FileDescriptorStoreMax=`), it does not tell.
pub fn store(letters: &[OwnedFd]) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    for part in letters.chunks(FRAME_FDS_MAX) {
        let fds: Vec<_> = part.iter().map(AsFd::as_fd).collect();
        if let Err(error) = send(&path, STORE, &fds) {
            tracing::warn!("the service manager holds no descriptors of ours: {error}");
            return;
        }
    }
}

/// Lets go of everything that the service manager holds for us.
pub fn forget() {
    say(FORGET);
}

/// How often `WATCHDOG=1` has to be said: half of what the manager waits; `None` where it does not.
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    // Ours are the children's as well, whom the manager does not ask.
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|usec| *usec > 0).map(|usec| Duration::from_micros(usec / 2))
}

fn send(path: &OsStr, state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let address = match path.as_bytes() {
        // A leading @ names an abstract socket.
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let fits = ancillary.push(SendAncillaryMessage::ScmRights(fds));
        assert!(fits, "the space is made for FRAME_FDS_MAX descriptors");
    }
    let state = [io::IoSlice::new(state.as_bytes())];
    rustix::net::sendmsg(&socket, &state, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

    #[test]
    fn state_and_descriptors_reach_the_manager_in_one_datagram() {
        let name = format!("floortape-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("short");
        let manager = UnixDatagram::bind_addr(&address).expect("ours");
        let null = std::fs::File::open("/dev/null").expect("always there");
        let path = format!("@{name}");
        send(OsStr::new(&path), "FDSTORE=1", &[null.as_fd(), null.as_fd()]).expect("heard");
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut text = [0; 16];
        let mut slices = [io::IoSliceMut::new(&mut text)];
        let got =
            rustix::net::recvmsg(&manager, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC);
        assert_eq!(got.expect("sent").bytes, 9);
        let fds: usize = ancillary
            .drain()
            .map(|part| match part {
                RecvAncillaryMessage::ScmRights(fds) => fds.count(),
                _ => 0,
            })
            .sum();
        assert_eq!((&text[..9], fds), (&b"FDSTORE=1"[..], 2));
        drop(manager);
        assert!(send(OsStr::new(&path), "READY=1", &[]).is_err());
    }
}
