//! The two queues before control, and the gate that says who goes where (F52): one is for sources that
//! have an RS here and for connections whose certificate says who it is, one for everybody else. Runs
//! in the sockets' tasks; nothing is understood here.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::yield_now;
use tokio::time::sleep;

use super::net::Arrival;
use crate::base::ports::Clock;
use crate::host::clock::SystemClock;
use crate::plane::control::{Gate, Pass};
use crate::wire::sip::refuse_unread;

/// Datagrams and reads of known sources that may wait; then the kernel's queues hold them back.
const KNOWN_MAX: usize = 4_096;
/// The same of others: some 50 ms of control's time, since streams of known sources that were
/// strangers once still stand here.
const OTHERS_MAX: usize = 1_024;
/// Of so many arrivals one is of the others, however many known ones wait.
const TURNS: u32 = 16;
/// Of the others so many are worked off, then the sockets are read on: what waits in the kernel is known
/// to nobody, and lost once its queue is full, whoever sent it.
const OTHERS_TURN: u32 = 8;
/// Retry-After of the 503 to a source above its rate: two of them empty its bucket.
const RETRY_AFTER_S: u32 = 4;

/// Both queues are closed: control is at its end.
#[derive(Debug)]
pub(super) struct Gone;

/// The entrance.
#[derive(Clone)]
pub(super) struct Lanes {
    gate: Arc<Mutex<Gate>>,
    known: Sender<Arrival>,
    others: Sender<Arrival>,
    /// Of a connection: whose it is, and whether that was known when it opened. Its arrivals stay in
    /// one queue, so that they stay in order.
    source: Option<(IpAddr, bool)>,
}

/// The exit.
pub(super) struct Inbox {
    gate: Arc<Mutex<Gate>>,
    known: Receiver<Arrival>,
    others: Receiver<Arrival>,
    turn: u32,
    others_turn: u32,
}

pub(super) fn lanes() -> (Lanes, Inbox) {
    let gate = Arc::new(Mutex::new(Gate::new(SystemClock.mono())));
    let (known, known_out) = mpsc::channel(KNOWN_MAX);
    let (others, others_out) = mpsc::channel(OTHERS_MAX);
    let inbox = Inbox {
        gate: Arc::clone(&gate),
        known: known_out,
        others: others_out,
        turn: 0,
        others_turn: 0,
    };
    (Lanes { gate, known, others, source: None }, inbox)
}

impl Lanes {
    /// The entrance of a connection from `source`. `certified`: a certificate says who it is.
    pub(super) fn of(&self, source: IpAddr, certified: bool) -> Lanes {
        let known = certified || self.knows(source);
        Lanes { source: Some((source, known)), ..self.clone() }
    }

    /// Whether that source has an RS here, or a rule.
    pub(super) fn knows(&self, source: IpAddr) -> bool {
        self.gate().knows(source)
    }

    /// Takes something of a connection; waits while its queue is full or its source above its rate.
    pub(super) async fn send(&self, arrival: Arrival) -> Result<(), Gone> {
        if let (Some((source, _)), Arrival::Stream { bytes, .. }) = (self.source, &arrival) {
            let rest_ms = self.gate().stream(SystemClock.mono(), source, bytes);
            if rest_ms > 0 {
                sleep(Duration::from_millis(rest_ms)).await;
            }
        }
        let known = self.source.is_some_and(|(_, known)| known);
        let lane = if known { &self.known } else { &self.others };
        lane.send(arrival).await.map_err(|_| Gone)
    }

    /// Takes a datagram, or not: what comes back is the answer to send instead, and where to.
    pub(super) async fn datagram(
        &self,
        local: SocketAddr,
        peer: SocketAddr,
        bytes: &[u8],
    ) -> Result<Option<(SocketAddr, Vec<u8>)>, Gone> {
        let pass = self.gate().datagram(SystemClock.mono(), peer.ip());
        let arrival = || Arrival::Datagram { local, peer, bytes: bytes.to_vec() };
        match pass {
            Pass::Known => self.known.send(arrival()).await.map_err(|_| Gone)?,
            Pass::Stranger => match self.others.try_reserve() {
                Ok(place) => place.send(arrival()),
                // Waiting here would hold up those who are known: it asks again by itself.
                Err(mpsc::error::TrySendError::Full(())) => {}
                Err(mpsc::error::TrySendError::Closed(())) => return Err(Gone),
            },
            Pass::Refuse => return Ok(refuse_unread(bytes, peer, RETRY_AFTER_S)),
            Pass::Drop => {}
        }
        Ok(None)
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().expect("a panic ends control")
    }
}

impl Inbox {
    /// The next arrival; of known sources first, as long as the others move on as well. Nothing is lost
    /// where this is not waited for to its end.
    pub(super) async fn recv(&mut self) -> Option<Arrival> {
        if self.others_turn >= OTHERS_TURN {
            self.others_turn = 0;
            yield_now().await;
        }
        self.turn = (self.turn + 1) % TURNS;
        let (arrival, of_others) = if self.turn == 0 {
            tokio::select! {
                biased;
                Some(arrival) = self.others.recv() => (Some(arrival), true),
                arrival = self.known.recv() => (arrival, false),
            }
        } else {
            tokio::select! {
                biased;
                Some(arrival) = self.known.recv() => (Some(arrival), false),
                arrival = self.others.recv() => (arrival, true),
            }
        };
        self.others_turn += u32::from(of_others);
        arrival
    }

    /// Says who has an RS here, or a rule in the configuration.
    pub(super) fn know(&self, known: HashSet<IpAddr>) {
        self.gate.lock().expect("a panic ends control").know(known);
    }

    /// Messages over their source's rate since the start, as far as they were reported.
    pub(super) fn held(&self) -> u64 {
        self.gate.lock().expect("a panic ends control").held()
    }

    /// What was held back since the last report, in words.
    pub(super) fn report(&self) -> Option<String> {
        self.gate.lock().expect("a panic ends control").report()
    }
}
