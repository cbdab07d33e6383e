//! Where bytes come from and go to.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::base::family::Family;
use crate::wire::sip::Via;

/// Transport of a hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream without protection.
    Tcp,
    /// A stream protected by TLS.
    Tls,
}

impl Transport {
    /// `udp`, `tcp` or `tls`.
    pub const fn label(self) -> &'static str {
        match self {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
            Transport::Tls => "tls",
        }
    }

    /// Whether it is a stream.
    pub const fn is_stream(self) -> bool {
        !matches!(self, Transport::Udp)
    }

    /// The transport of a stream.
    pub(super) const fn stream(secure: bool) -> Transport {
        if secure { Transport::Tls } else { Transport::Tcp }
    }

    /// The port where a URI or Via names none (RFC 3261 §18.1.1, §26.2.2).
    pub const fn port(self) -> u16 {
        match self {
            Transport::Udp | Transport::Tcp => 5_060,
            Transport::Tls => 5_061,
        }
    }

    /// The transport of that [`label`](Self::label), in any case.
    pub fn from_label(label: &str) -> Option<Transport> {
        [Transport::Udp, Transport::Tcp, Transport::Tls]
            .into_iter()
            .find(|transport| transport.label().eq_ignore_ascii_case(label))
    }
}

/// What peers outside know one of our addresses by (RFC 3261 §18.1.1 sent-by, and Contact).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    /// Which addresses it stands for; `None`: all that no other one stands for.
    pub family: Option<Family>,
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// `None`: the port of the address.
    pub port: Option<u16>,
}

impl Outside {
    /// What stands for `local`, with its port; itself where nothing does.
    pub fn of(all: &[Outside], local: SocketAddr) -> String {
        let family = Family::of(local.ip());
        let own = all.iter().find(|one| one.family == Some(family));
        let Some(own) = own.or_else(|| all.iter().find(|one| one.family.is_none())) else {
            return local.to_string();
        };
        let port = own.port.unwrap_or(local.port());
        if own.host.contains(':') {
            format!("[{}]:{port}", own.host)
        } else {
            format!("{}:{port}", own.host)
        }
    }
}

/// A stream connection, numbered by whoever owns the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A datagram from `local` to `peer`.
    Udp {
        /// Our listening address.
        local: SocketAddr,
        /// Receiver.
        peer: SocketAddr,
    },
    /// An open connection.
    Stream {
        /// The connection.
        conn: ConnId,
        /// Its other end.
        peer: SocketAddr,
        /// Our end.
        local: SocketAddr,
        /// Whether it is TLS.
        secure: bool,
    },
    /// A new connection from the address of `local` (any port) to `peer`: open it, report
    /// [`Input::Connected`](super::Input::Connected), send the bytes; further `Dial`s to the same
    /// peer before that share it. Report [`Input::Unreachable`](super::Input::Unreachable) if it
    /// cannot be opened.
    Dial {
        /// Our address.
        local: SocketAddr,
        /// Where to.
        peer: SocketAddr,
        /// Whether it must be TLS, with a peer that is who the message is for (RFC 5922).
        secure: bool,
    },
}

impl Target {
    /// Whether the transport repeats lost bytes itself, so that our timers need not.
    pub const fn is_reliable(self) -> bool {
        !matches!(self, Target::Udp { .. })
    }

    /// The transport.
    pub const fn transport(self) -> Transport {
        match self {
            Target::Udp { .. } => Transport::Udp,
            Target::Stream { secure, .. } | Target::Dial { secure, .. } => {
                Transport::stream(secure)
            }
        }
    }

    /// Our address.
    pub const fn local(self) -> SocketAddr {
        match self {
            Target::Udp { local, .. }
            | Target::Stream { local, .. }
            | Target::Dial { local, .. } => local,
        }
    }

    /// The other address.
    pub const fn peer(self) -> SocketAddr {
        match self {
            Target::Udp { peer, .. } | Target::Stream { peer, .. } | Target::Dial { peer, .. } => {
                peer
            }
        }
    }
}

/// How a message reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) conn: Option<ConnId>,
    /// Whether the connection is TLS.
    pub(super) secure: bool,
}

impl Hop {
    pub(super) const fn transport(&self) -> Transport {
        match self.conn {
            Some(_) => Transport::stream(self.secure),
            None => Transport::Udp,
        }
    }

    /// Where the response goes (RFC 3261 §18.2.2): the connection of the request while it is
    /// `alive`, else a new one to the sent-by port; over UDP as [`Via::response_to`] says.
    pub(super) fn reply_to(&self, via: Option<&Via>, alive: bool) -> Target {
        let Hop { local, peer, conn, secure } = *self;
        match conn {
            Some(conn) if alive => Target::Stream { conn, peer, local, secure },
            Some(_) => {
                let port = via.and_then(|via| via.port).unwrap_or(self.transport().port());
                Target::Dial { local, peer: SocketAddr::new(peer.ip(), port), secure }
            }
            None => Target::Udp { local, peer: via.map_or(peer, |via| via.response_to(peer)) },
        }
    }
}
