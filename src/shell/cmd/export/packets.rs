//! Packets as files: pcapng or rtpdump.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::pen::{Appended, Pen};
use super::senders::Sent;
use crate::base::time::Wall;
use crate::store::event::StreamDescription;
use crate::store::export::{announce, pcapng, rtpdump};

/// Form of a packet file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Pcapng,
    Rtpdump,
}

/// A packet file; made when its first packet comes, or at the end.
pub(super) struct Packets {
    path: PathBuf,
    form: Form,
    /// Who announces what, first of all in a pcapng.
    announced: (IpAddr, Vec<u8>),
    pen: Pen,
    out: Option<(Appended, Wall)>,
}

/// Who sent a packet to whom.
#[derive(Clone, Copy)]
pub(super) struct Ends {
    pub(super) source: SocketAddr,
    pub(super) target: SocketAddr,
}

impl Ends {
    /// Of a stream: its sender, else where the SRC said it sends from, and our port. RTCP that is not multiplexed
    /// has the next port on both sides (RFC 3550 §11).
    pub(super) fn of(
        stream: &StreamDescription,
        from: Option<SocketAddr>,
        local: IpAddr,
        rtcp_port: bool,
    ) -> Ends {
        let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        let mut source = from.or(stream.remote).unwrap_or(unknown);
        let mut target = SocketAddr::new(local, stream.port);
        if rtcp_port {
            source.set_port(source.port().saturating_add(1));
            target.set_port(target.port().saturating_add(1));
        }
        Ends { source, target }
    }
}

impl Packets {
    /// Of `stream`, recorded at `local`.
    pub(super) fn new(
        (dir, stem): (&Path, &str),
        form: Form,
        (stream, local): (&StreamDescription, IpAddr),
        pen: &Pen,
    ) -> Packets {
        let extension = if form == Form::Pcapng { "pcapng" } else { "rtpdump" };
        Packets {
            path: dir.join(format!("{stem}.{extension}")),
            form,
            announced: (local, announce::announcement(stream, local)),
            pen: pen.clone(),
            out: None,
        }
    }

    pub(super) fn put(&mut self, sent: &Sent<'_>, ends: Ends) -> io::Result<()> {
        let form = self.form;
        let (out, first) = self.open(sent.arrival, ends.source)?;
        let bytes = match form {
            Form::Pcapng => pcapng::packet(sent.arrival.0, ends.source, ends.target, sent.payload),
            Form::Rtpdump => {
                let since_ms = (sent.arrival.0 - first.0).max(0) / 1_000_000;
                rtpdump::packet(since_ms as u32, sent.payload, sent.is_rtcp)
            }
        };
        out.put(&bytes)
    }

    fn open(&mut self, first: Wall, source: SocketAddr) -> io::Result<&mut (Appended, Wall)> {
        if self.out.is_none() {
            let mut out = Appended::create(&self.path, &self.pen)?;
            out.put(&match self.form {
                Form::Pcapng => pcapng::head(),
                Form::Rtpdump => rtpdump::head(first.0, source),
            })?;
            if self.form == Form::Pcapng {
                let (local, announced) = &self.announced;
                let from = SocketAddr::new(*local, announce::PORT);
                let to = SocketAddr::new(announce::group(*local), announce::PORT);
                out.put(&pcapng::commented(first.0, (from, to), announced, announce::COMMENT))?;
            }
            self.out = Some((out, first));
        }
        Ok(self.out.as_mut().expect("opened above"))
    }

    /// What was put is written; `sync`: and on the disk.
    pub(super) fn flush(&mut self, sync: bool) -> io::Result<()> {
        let Some((out, _)) = &mut self.out else { return Ok(()) };
        if sync { out.sync() } else { out.flush() }
    }

    /// Ends the file; makes an empty one where nothing came.
    pub(super) fn finish(mut self, start: Wall) -> io::Result<()> {
        self.open(start, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        let (out, _) = self.out.expect("opened above");
        out.finish()
    }
}
