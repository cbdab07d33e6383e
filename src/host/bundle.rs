//! Many descriptors behind one: a socket whose queue holds a single message with all of them.
//!
//! A service manager compares each descriptor that it is to keep with all those it has
//! (kcmp(2)): 1,000 sockets cost systemd 1.5 s, 3,000 cost 13 s and 6,250 a minute, in which the
//! whole machine has no first process. Bundled, 6,250 are 25.
//!
//! Opening a bundle only peeks: the message stays, so that whoever is killed between opening and
//! storing anew has lost nothing.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SocketType};

use crate::base::limits::FRAME_FDS_MAX;
use crate::host::seqpacket::{self, SeqPacket};

/// The message's bytes: other queued messages are no bundle, nor is one of another version.
const MARK: &[u8] = b"floortape bundle 1";

/// Bundles of `fds`, in their order. Each holds copies: the descriptors given may be closed.
pub fn pack(fds: &[BorrowedFd<'_>]) -> io::Result<Vec<OwnedFd>> {
    let pack = |part: &[BorrowedFd<'_>]| {
        let (sender, bundle) = seqpacket::pair()?;
        sender.send(MARK, part)?;
        // The message outlives its sender.
        Ok(bundle.into_fd())
    };
    fds.chunks(FRAME_FDS_MAX).map(pack).collect()
}

/// The descriptors of a bundle, in their order; `fd` itself where it is something else. An error
/// where it looks like a bundle and holds none that we know.
pub fn open(fd: OwnedFd) -> io::Result<Result<Vec<OwnedFd>, OwnedFd>> {
    if !is_ours(fd.as_fd()) {
        return Ok(Err(fd));
    }
    let bundle = SeqPacket::from_fd(fd)?;
    let (mark, fds) = bundle.try_peek(&mut [0; MARK.len()])?;
    if mark != MARK {
        let why = "a bundle of descriptors of an unknown version";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    Ok(Ok(fds))
}

fn is_ours(fd: BorrowedFd<'_>) -> bool {
    matches!(socket_domain(fd), Ok(AddressFamily::UNIX))
        && matches!(socket_type(fd), Ok(SocketType::SEQPACKET))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::UdpSocket;

    fn opened(bundle: &OwnedFd) -> Vec<OwnedFd> {
        open(bundle.try_clone().expect("a copy")).expect("whole").expect("a bundle")
    }

    #[test]
    fn what_is_packed_is_there_as_often_as_it_is_opened() {
        let sockets: Vec<UdpSocket> =
            (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").expect("bind")).collect();
        let home = sockets[1].local_addr().expect("bound");
        let all: Vec<BorrowedFd<'_>> =
            (0..FRAME_FDS_MAX + 7).map(|number| sockets[number % 3].as_fd()).collect();
        let bundles = pack(&all).expect("descriptors to spare");
        assert_eq!(bundles.len(), 2);
        drop(sockets);
        for _ in 0..2 {
            let mut fds = opened(&bundles[0]);
            assert_eq!((fds.len(), opened(&bundles[1]).len()), (FRAME_FDS_MAX, 7));
            let second = UdpSocket::from(fds.swap_remove(1));
            assert_eq!(second.local_addr().expect("still bound"), home);
        }
        drop(bundles);
        UdpSocket::bind(home).expect("closed with its bundle");
    }

    #[test]
    fn other_descriptors_come_back_and_other_messages_are_refused() {
        let null = OwnedFd::from(File::open("/dev/null").expect("always there"));
        assert!(open(null).expect("no error").is_err());
        let (sender, other) = seqpacket::pair().expect("socketpair");
        sender.send(b"floortape bundle 2", &[]).expect("room");
        assert!(open(other.into_fd()).is_err());
        let (_sender, empty) = seqpacket::pair().expect("socketpair");
        assert!(open(empty.into_fd()).is_err(), "an empty queue does not wait");
    }
}
