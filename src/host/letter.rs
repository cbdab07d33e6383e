//! A frame with its descriptors that waits in the queue of a socket, for whoever gets that socket.
//! Keeper's whole estate in a few letters is what it gives to the service manager to hold.
//!
//! Why not the descriptors themselves: a service manager compares each one that it is to keep with
//! all those it has (kcmp(2)). 1,000 sockets cost systemd 1.5 s, 3,000 cost 13 s and 6,250 a minute,
//! in which the whole machine has no first process. In letters, 6,250 are 25.
//!
//! Reading only peeks: the letter stays, so that a reader who is killed has lost nothing for the
//! next one.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::base::limits::FRAME_BYTES_MAX;
use crate::host::seqpacket::{self, SeqPacket};

/// Writes a letter. It holds copies: the descriptors given may be closed. Bounds are those of
/// [`SeqPacket::send`].
pub fn write(bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<OwnedFd> {
    let (sender, letter) = seqpacket::pair()?;
    sender.try_send(bytes, fds)?;
    // What is queued outlives its sender.
    Ok(letter.into_fd())
}

/// Reads a letter, once more each time. `WouldBlock` or `UnexpectedEof` where the socket holds none.
pub fn read(letter: BorrowedFd<'_>) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let letter = SeqPacket::from_fd(letter.try_clone_to_owned()?)?;
    let (bytes, fds) = letter.try_peek(&mut vec![0; FRAME_BYTES_MAX])?;
    if bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((bytes, fds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::FRAME_FDS_MAX;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_letter_is_there_as_often_as_it_is_read_and_holds_its_descriptors() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bind");
        let home = socket.local_addr().expect("bound");
        let letter = write(b"all of it", &[socket.as_fd(); FRAME_FDS_MAX]).expect("to spare");
        drop(socket);
        for _ in 0..2 {
            let (bytes, mut fds) = read(letter.as_fd()).expect("it stays");
            assert_eq!((&bytes[..], fds.len()), (&b"all of it"[..], FRAME_FDS_MAX));
            let back = UdpSocket::from(fds.swap_remove(7));
            assert_eq!(back.local_addr().expect("still bound"), home);
        }
        drop(letter);
        UdpSocket::bind(home).expect("closed with the letter");
    }

    #[test]
    fn what_is_no_letter_is_an_error_and_never_a_wait() {
        let null = std::fs::File::open("/dev/null").expect("always there");
        assert!(read(null.as_fd()).is_err());
        let (sender, empty) = seqpacket::pair().expect("socketpair");
        let error = read(empty.as_fd()).expect_err("nothing in it");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(sender);
        let error = read(empty.as_fd()).expect_err("nothing will come");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
