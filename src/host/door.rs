//! A listening SEQPACKET socket by which a process can be found under a name in a folder. Who
//! connects, and from which process, the kernel says (SO_PEERCRED, unix(7)).

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::seqpacket::SeqPacket;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4;

/// The listening end.
#[derive(Debug)]
pub struct Door {
    fd: OwnedFd,
}

/// The process at the other end, as it was when it connected or listened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its number.
    pub pid: u32,
    /// Its effective user.
    pub uid: u32,
}

/// Listens under `name` in `folder`, in the place of whoever did before. Only our own user can
/// connect, by the mode of the socket, until [`admit`]. Where the disk takes no new names (F11, F12), it listens
/// under an abstract one, which anybody can connect to: callers look at the [`Peer`] in any case.
pub fn listen(folder: &Path, name: &str) -> io::Result<Door> {
    listen_by_path(folder, name).or_else(|error| {
        let fd = socket()?;
        rustix::net::bind(&fd, &abstract_name(folder, name)?).map_err(|_| error)?;
        rustix::net::listen(&fd, BACKLOG)?;
        Ok(Door { fd })
    })
}

fn listen_by_path(folder: &Path, name: &str) -> io::Result<Door> {
    let (open, address) = short(folder, name)?;
    match std::fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let fd = socket()?;
    rustix::net::bind(&fd, &address)?;
    // Before anybody can connect.
    admit(folder, name, false)?;
    rustix::net::listen(&fd, BACKLOG)?;
    drop(open);
    Ok(Door { fd })
}

/// Lets everybody connect to `name` in `folder`, or our own user alone. Who may do what is then for whoever
/// listens to say, by the [`Peer`].
pub fn admit(folder: &Path, name: &str, everybody: bool) -> io::Result<()> {
    let mode = if everybody { 0o666 } else { 0o600 };
    std::fs::set_permissions(folder.join(name), Permissions::from_mode(mode))
}

/// Connects to who listens under `name` in `folder`.
pub fn connect(folder: &Path, name: &str) -> io::Result<(SeqPacket, Peer)> {
    let (open, address) = short(folder, name)?;
    let found = connect_to(&address).or_else(|error| {
        // Anybody may have taken the abstract name: only who could have the path counts.
        let own = rustix::process::geteuid().as_raw();
        let owner = std::fs::metadata(folder)?.uid();
        connect_to(&abstract_name(folder, name)?)
            .ok()
            .filter(|(_, peer)| [own, owner, 0].contains(&peer.uid))
            .ok_or(error)
    });
    drop(open);
    found
}

fn connect_to(address: &SocketAddrUnix) -> io::Result<(SeqPacket, Peer)> {
    let fd = socket()?;
    rustix::net::connect(&fd, address)?;
    let peer = peer(fd.as_fd())?;
    Ok((SeqPacket::from_fd(fd)?, peer))
}

/// A name without a file, of this very folder.
fn abstract_name(folder: &Path, name: &str) -> io::Result<SocketAddrUnix> {
    let found = std::fs::metadata(folder)?;
    let text = format!("floortape/{:x}-{:x}/{name}", found.dev(), found.ino());
    Ok(SocketAddrUnix::new_abstract_name(text.as_bytes())?)
}

impl Door {
    /// Waits for the next one to connect.
    pub fn accept(&self) -> io::Result<(SeqPacket, Peer)> {
        let fd = loop {
            match rustix::net::accept_with(&self.fd, SocketFlags::CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                accepted => break accepted?,
            }
        };
        let peer = peer(fd.as_fd())?;
        Ok((SeqPacket::from_fd(fd)?, peer))
    }
}

fn socket() -> io::Result<OwnedFd> {
    let kind = SocketType::SEQPACKET;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

/// An address takes 108 bytes; a path by way of the open folder is always shorter.
fn short(folder: &Path, name: &str) -> io::Result<(File, SocketAddrUnix)> {
    // Whoever may pass through the folder need not be one who may list it.
    let open = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())).join(name);
    let address = SocketAddrUnix::new(&path)?;
    Ok((open, address))
}

fn peer(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let credentials = rustix::net::sockopt::socket_peercred(fd)?;
    let pid = u32::try_from(credentials.pid.as_raw_nonzero().get()).unwrap_or(0);
    Ok(Peer { pid, uid: credentials.uid.as_raw() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_found_under_a_long_path_and_replaced_by_the_next() {
        let root = std::env::temp_dir().join(format!("floortape-door-{}", std::process::id()));
        let folder = root.join("d".repeat(120));
        std::fs::create_dir_all(&folder).expect("a temp folder");
        assert_eq!(
            connect(&folder, "media.sock").expect_err("nobody listens").kind(),
            io::ErrorKind::NotFound
        );
        let stale = listen(&folder, "media.sock").expect("a fresh name");
        drop(stale);
        let refused = connect(&folder, "media.sock").expect_err("nobody listens any more");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let door = listen(&folder, "media.sock").expect("the name is taken over");
        let (near, listener) = connect(&folder, "media.sock").expect("it listens");
        let (far, caller) = door.accept().expect("somebody connected");
        assert_eq!((listener, caller.pid), (caller, std::process::id()));
        near.send(b"hello", &[]).expect("room");
        assert_eq!(far.recv(&mut [0; 16]).expect("just sent").0, b"hello");
        std::fs::remove_dir_all(root).expect("ours");
    }

    #[test]
    fn f12_a_door_is_found_where_the_disk_takes_no_names() {
        let pid = std::process::id();
        let folder = std::env::temp_dir().join(format!("floortape-door-ro-{pid}"));
        // A folder that cannot be taken away stands for a disk that refuses every change.
        std::fs::create_dir_all(folder.join("media.sock")).expect("a temp folder");
        assert!(listen_by_path(&folder, "media.sock").is_err());
        assert!(connect(&folder, "media.sock").is_err(), "nobody listens");
        let door = listen(&folder, "media.sock").expect("without a file");
        let (near, listener) = connect(&folder, "media.sock").expect("it listens");
        let (far, _) = door.accept().expect("somebody connected");
        assert_eq!(listener.pid, pid);
        near.send(b"hello", &[]).expect("room");
        assert_eq!(far.recv(&mut [0; 16]).expect("just sent").0, b"hello");
        drop(door);
        assert!(connect(&folder, "media.sock").is_err(), "gone with its process");
        std::fs::remove_dir_all(folder).expect("ours");
    }
}
