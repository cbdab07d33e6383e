//! Few sockets for many ports: makes those that a worker's ports are steered to, and puts together what a
//! worker receives and sends by.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::config::model::Config;
use crate::host::bpf::{Block, Steering};
use crate::host::socket::{self, PortPair, RECEIVE_BUFFER_BYTES};
use crate::host::sockets::{Sockets, share};
use crate::shell::serve::link::SlotPorts;

/// Queue of a socket that many streams share: 125 of them, as at 2,000 streams, fill it in 25 s, and the
/// kernel takes it only where packets wait (kill protocol, pitfall 10).
const SHARED_BYTES_MAX: usize = 128 << 20;

/// What steers the ports of one worker, and whereto. Every process that holds the worker's memory holds
/// this as well: it steers for as long as one of them lives.
pub struct Steered {
    /// Link and program, the same for all workers.
    pub steering: Steering,
    /// The sockets; the slots' addresses say which slot is steered to which ([`share`]).
    pub shared: Vec<OwnedFd>,
}

impl Steered {
    /// Another handle of the same.
    pub fn try_clone(&self) -> io::Result<Self> {
        let shared = self.shared.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()?;
        Ok(Steered { steering: self.steering.try_clone()?, shared })
    }

    /// Its descriptors as they travel.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.steering.fds().into_iter().chain(self.shared.iter().map(AsFd::as_fd))
    }

    /// The same the other way round; none where nothing is steered.
    pub fn from_fds(fds: Vec<OwnedFd>) -> io::Result<Option<Self>> {
        if fds.is_empty() {
            return Ok(None);
        }
        let mut fds = fds.into_iter();
        let (Some(link), Some(program)) = (fds.next(), fds.next()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a link without its program"));
        };
        Ok(Some(Steered { steering: Steering::held([link, program]), shared: fds.collect() }))
    }
}

/// Makes the shared sockets of every worker and steers all ports to them. An error: it is not permitted
/// here, and each port is received from its own socket.
pub(super) fn make(config: &Config, slots: &[PortPair]) -> io::Result<Vec<Steered>> {
    let workers = usize::from(config.worker_count());
    let mut places: Vec<(u16, usize, usize)> = Vec::with_capacity(slots.len() * 2);
    let mut shared: Vec<Vec<OwnedFd>> = Vec::with_capacity(workers);
    for worker in 0..workers {
        let own = || slots.iter().skip(worker).step_by(workers);
        let (steered, families) = share(own().map(|pair| pair.address.ip()));
        for (pair, socket) in own().zip(&steered) {
            let port = pair.address.port();
            places.extend([port, port + 1].map(|port| (port, worker, usize::from(*socket))));
        }
        let queue = |number: usize| {
            let streams = steered.iter().filter(|socket| usize::from(**socket) == number).count();
            (streams * RECEIVE_BUFFER_BYTES).clamp(RECEIVE_BUFFER_BYTES, SHARED_BYTES_MAX)
        };
        let bind = |(number, family)| socket::bind_shared(family, queue(number));
        shared.push(families.into_iter().enumerate().map(bind).collect::<io::Result<_>>()?);
    }
    let blocks = config.media.address.0.iter().enumerate().map(|(place, ip)| {
        let range = config.ports_of(place);
        Block { ip: *ip, first: range.first, last: range.last }
    });
    let ports =
        places.into_iter().map(|(port, worker, socket)| (port, shared[worker][socket].as_fd()));
    let steering = Steering::make(&blocks.collect::<Vec<_>>(), ports)?;
    for pair in slots {
        socket::stop_telling_drops(pair.rtp.as_fd())?;
        socket::stop_telling_drops(pair.rtcp.as_fd())?;
    }
    shared
        .into_iter()
        .map(|shared| Ok(Steered { steering: steering.try_clone()?, shared }))
        .collect()
}

/// What each worker receives and sends by: slot n belongs to worker n mod workers. `steered`: by worker.
pub(super) fn by_worker(slots: Vec<SlotPorts>, steered: Vec<Option<Steered>>) -> Vec<Sockets> {
    let workers = steered.len();
    let mut own: Vec<(Vec<OwnedFd>, Vec<SocketAddr>)> =
        (0..workers).map(|_| Default::default()).collect();
    for SlotPorts { slot, address, sockets } in slots {
        if let Some((rtp, rtcp)) = sockets {
            let (fds, addresses) = &mut own[slot.0 as usize % workers];
            fds.extend([rtp, rtcp]);
            addresses.push(address);
        }
    }
    own.into_iter()
        .zip(steered)
        .map(|((pairs, addresses), steered)| {
            let ports =
                addresses.iter().flat_map(|at| [at.port(), at.port() + 1]).collect::<Vec<_>>();
            let shared = steered.map_or_else(Vec::new, |steered| steered.shared);
            let places = match shared.is_empty() {
                true => Vec::new(),
                false => share(addresses.iter().map(SocketAddr::ip)).0,
            };
            Sockets::new(shared, pairs, ports, places)
        })
        .collect()
}
