//! A SOCK_SEQPACKET link between two of our processes: one datagram is one frame, descriptors travel
//! beside it (SCM_RIGHTS, unix(7)). Blocking unless asked otherwise call by call, so that both ends
//! may share one open file description.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use crate::base::limits::{FRAME_BYTES_MAX, FRAME_FDS_MAX};

/// Room for one control message with [`FRAME_FDS_MAX`] descriptors.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(FRAME_FDS_MAX));
/// The kernel charges a frame with its bookkeeping; unix(7) doubles the value asked for.
const SEND_BUFFER_BYTES: usize = 2 * FRAME_BYTES_MAX;

/// One end of a link.
#[derive(Debug)]
pub struct SeqPacket {
    fd: OwnedFd,
}

/// Two connected ends, both closed on exec.
pub fn pair() -> io::Result<(SeqPacket, SeqPacket)> {
    let (left, right) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    Ok((SeqPacket::from_fd(left)?, SeqPacket::from_fd(right)?))
}

impl SeqPacket {
    /// Takes an inherited or accepted end and gives it room for the largest frame.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        rustix::net::sockopt::set_socket_send_buffer_size(&fd, SEND_BUFFER_BYTES)?;
        Ok(SeqPacket { fd })
    }

    /// The end itself, to hand it on.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Another handle of the same end.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(SeqPacket { fd: self.fd.try_clone()? })
    }

    /// Sends one frame; waits while the peer's queue is full. `InvalidInput` where it is longer than
    /// [`FRAME_BYTES_MAX`] or carries more than [`FRAME_FDS_MAX`] descriptors.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_flags(bytes, fds, SendFlags::NOSIGNAL)
    }

    /// As [`Self::send`], but `WouldBlock` where the peer's queue is full.
    pub fn try_send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.send_flags(bytes, fds, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    /// Receives one frame through `buf`, which bounds its length; waits for it. An empty frame
    /// without descriptors means that the peer has closed its end.
    pub fn recv(&self, buf: &mut [u8]) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        self.recv_flags(buf, RecvFlags::CMSG_CLOEXEC)
    }

    /// As [`Self::recv`], but `WouldBlock` where there is none.
    pub fn try_recv(&self, buf: &mut [u8]) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        self.recv_flags(buf, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT)
    }

    /// As [`Self::try_recv`], but leaves the frame where it is; the descriptors are copies.
    pub fn try_peek(&self, buf: &mut [u8]) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        self.recv_flags(buf, RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT | RecvFlags::PEEK)
    }

    fn send_flags(&self, bytes: &[u8], fds: &[BorrowedFd<'_>], flags: SendFlags) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > FRAME_BYTES_MAX || fds.len() > FRAME_FDS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "frame of {} bytes and {} descriptors, expected 1 to {FRAME_BYTES_MAX} bytes \
                     and at most {FRAME_FDS_MAX} descriptors",
                    bytes.len(),
                    fds.len()
                ),
            ));
        }
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            let fits = ancillary.push(SendAncillaryMessage::ScmRights(fds));
            assert!(fits, "the space is made for FRAME_FDS_MAX descriptors");
        }
        let slices = [io::IoSlice::new(bytes)];
        loop {
            match rustix::net::sendmsg(&self.fd, &slices, &mut ancillary, flags) {
                // A SEQPACKET datagram goes whole or not at all.
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn recv_flags(&self, buf: &mut [u8], flags: RecvFlags) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let message = loop {
            let mut slices = [io::IoSliceMut::new(buf)];
            match rustix::net::recvmsg(&self.fd, &mut slices, &mut ancillary, flags) {
                Ok(message) => break message,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        // What came is owned from here on, so an error below closes it.
        let mut fds = Vec::new();
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "frame cut short: longer than the buffer, or no room for its descriptors",
            ));
        }
        Ok((buf[..message.bytes].to_vec(), fds))
    }
}

impl AsFd for SeqPacket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for SeqPacket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_frame_arrives_whole_with_its_descriptors() {
        let (left, right) = pair().expect("socketpair");
        let memory =
            rustix::fs::memfd_create("frame", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        let mut file = File::from(memory);
        file.write_all(b"hello").expect("memfd takes bytes");
        let frame = vec![7; FRAME_BYTES_MAX];
        left.send(&frame, &[file.as_fd(), file.as_fd()]).expect("room for one frame");
        let mut buf = vec![0; FRAME_BYTES_MAX];
        let (bytes, mut fds) = right.recv(&mut buf).expect("just sent");
        assert_eq!((bytes, fds.len()), (frame, 2));
        let mut back = File::from(fds.remove(0));
        back.rewind().expect("memfd seeks");
        let mut text = String::new();
        back.read_to_string(&mut text).expect("memfd reads");
        assert_eq!(text, "hello");
    }

    #[test]
    fn an_empty_queue_would_block_and_a_closed_peer_is_seen() {
        let (left, right) = pair().expect("socketpair");
        let mut buf = [0; 16];
        let error = right.try_recv(&mut buf).expect_err("nothing sent");
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        drop(left);
        let (bytes, fds) = right.try_recv(&mut buf).expect("end of file is no error");
        assert!(bytes.is_empty() && fds.is_empty());
    }

    #[test]
    fn frames_that_do_not_fit_are_refused_on_both_sides() {
        let (left, right) = pair().expect("socketpair");
        assert!(left.send(&vec![0; FRAME_BYTES_MAX + 1], &[]).is_err());
        assert!(left.send(&[], &[]).is_err());
        let many = vec![left.as_fd(); FRAME_FDS_MAX + 1];
        assert!(left.send(b"x", &many).is_err());
        left.send(b"longer than the buffer", &[]).expect("room");
        let error = right.recv(&mut [0; 4]).expect_err("cut short");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn a_full_queue_refuses_instead_of_waiting() {
        let (left, _right) = pair().expect("socketpair");
        let frame = vec![1; FRAME_BYTES_MAX];
        let refused = (0..1_000).find_map(|_| left.try_send(&frame, &[]).err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
