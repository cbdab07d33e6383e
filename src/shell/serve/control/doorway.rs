//! The doorway of TLS: handshakes under way, each bounded in time, by source and in number (F55).
//!
//! A connection stands in it from `accept` until its handshake is over. Who stands there has proven
//! nothing, so the one that has stood longest without a word gives way when room is wanted. Behind it
//! connections queue, by source: an SBC that comes back with 2,000 of them at once gets them all in, a
//! few at a time. Shared by the listeners' tasks, all on control's one thread.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, sleep_until, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::base::limits::SIP_CONNECTIONS_MAX;
use crate::config::model::Sip;
use crate::shell::tls::{
    self, ClientSettings, Refusal, Term, TlsError, acceptor, identity, server_name,
};

/// A whole handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(2);
/// Handshakes under way of one source.
const SOURCE_MAX: usize = 8;
/// The same of one that has an RS here, or a rule: 2,000 connections over a line of 100 ms take some
/// 5 s then, and not 40.
const KNOWN_MAX: usize = 64;
/// Of all sources: 64 sources that all come back at once, at some 30 KB each.
const DOORWAY_MAX: usize = 512;
/// Connections that wait for their source to have fewer: as many as there may be at all. They hold a
/// descriptor, and a task of less than 1 KB.
const WAITING_MAX: usize = SIP_CONNECTIONS_MAX;
/// How long: 2,000 handshakes of one source take some 3 s of control's time. A peer gives up after 4 s
/// or more.
const WAIT: Duration = Duration::from_secs(4);
/// How often the first of a source looks whether one that stands has become old enough to give way.
const LOOK: Duration = Duration::from_millis(50);
/// A handshake within this is still on its way: one over a slow line takes some 300 ms.
const GRACE: Duration = Duration::from_secs(1);
/// The same reason is told again after this, with its count.
const TELL_AGAIN: Duration = Duration::from_secs(10);

/// A stream as the network's tasks use it.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A connection whose handshake is over.
pub(super) struct Shaken {
    /// Where to read and write.
    pub(super) stream: Box<dyn Wire>,
    /// Whom the peer's certificate names; `None` without one.
    pub(super) identity: Option<String>,
}

/// One handshake under way.
struct Standing {
    source: IpAddr,
    since: Instant,
    /// Whether anything has come.
    spoke: bool,
    /// Dropped when it has to give way.
    _stay: oneshot::Sender<()>,
}

#[derive(Default)]
struct State {
    server: Option<Arc<rustls::ServerConfig>>,
    client: Option<Arc<rustls::ClientConfig>>,
    standing: BTreeMap<u64, Standing>,
    last: u64,
    /// By source, the oldest first; no source without any.
    waiting: HashMap<IpAddr, VecDeque<Waiting>>,
    waiting_count: usize,
    /// Connections of known sources that have said nothing yet.
    hushed: usize,
    /// Ended in vain, by reason; and when that was told last.
    refused: BTreeMap<Refusal, (u64, Option<Instant>)>,
    shaken: u64,
    /// What was last said about our certificate's end.
    term_told: Option<i64>,
}

/// See the module.
#[derive(Clone, Default)]
pub(super) struct Doorway(Arc<Mutex<State>>);

/// A place in the doorway, given back on drop.
struct Place {
    doorway: Doorway,
    source: IpAddr,
    number: u64,
    gave_way: oneshot::Receiver<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorway.state().standing.remove(&self.number);
        self.doorway.admit(self.source);
    }
}

/// Who wants a place.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// A connection that has just been accepted.
    Now,
    /// One of the queue, and whether anything has come over it.
    Waited {
        /// Whether.
        spoke: bool,
    },
}

/// A connection that waits for a place.
struct Waiting {
    number: u64,
    /// How many handshakes of its source may be under way.
    most: usize,
    /// Whether anything has come.
    spoke: bool,
    go: oneshot::Sender<Place>,
}

/// Stands for a connection that may be silent for a while, before it takes a place.
struct Hushed(Doorway);

impl Drop for Hushed {
    fn drop(&mut self) {
        self.0.state().hushed -= 1;
    }
}

/// A place in the queue, given back on drop.
struct Ticket {
    doorway: Doorway,
    source: IpAddr,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.doorway.state().leave(self.source, Some(self.number));
    }
}

impl State {
    /// Takes one of a source out of the queue: that one, or the newest.
    fn leave(&mut self, source: IpAddr, number: Option<u64>) {
        let Some(queue) = self.waiting.get_mut(&source) else { return };
        let gone = match number {
            None => queue.pop_back(),
            // Numbers grow.
            Some(number) => queue
                .binary_search_by_key(&number, |waiting| waiting.number)
                .ok()
                .and_then(|at| queue.remove(at)),
        };
        self.waiting_count -= usize::from(gone.is_some());
        if queue.is_empty() {
            self.waiting.remove(&source);
        }
    }

    /// Takes the first of a source out of the queue.
    fn first(&mut self, source: IpAddr) -> Option<Waiting> {
        let queue = self.waiting.get_mut(&source)?;
        let first = queue.pop_front();
        self.waiting_count -= usize::from(first.is_some());
        if queue.is_empty() {
            self.waiting.remove(&source);
        }
        first
    }
}

impl Doorway {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics while holding it")
    }

    /// Reads certificates, key and CAs. What cannot be read leaves what was there in force, so that
    /// a half-written renewal locks nobody out.
    pub(super) fn load(&self, sip: &Sip) {
        if sip.cert.is_none() && sip.client_ca.is_none() && sip.tls.is_empty() {
            return;
        }
        let told = |what: &str, error: &TlsError| tracing::error!("TLS: {what}: {error}");
        if !sip.tls.is_empty() {
            match acceptor(sip) {
                Ok(server) => self.state().server = Some(server),
                Err(error) => told("certificates not taken", &error),
            }
        }
        let own = sip.cert.as_deref().zip(sip.key.as_deref());
        match tls::caller(ClientSettings { ca: sip.client_ca.as_deref(), own }) {
            Ok(client) => self.state().client = Some(client),
            Err(error) => told("calling back", &error),
        }
        self.state().term_told = None;
        self.watch_term(tls::term(sip));
    }

    /// F62: says 30, 7 and 1 days before it, and when it is there, that our certificate ends.
    pub(super) fn watch_term(&self, term: Option<Term>) {
        let level = term.and_then(Term::level);
        let mut state = self.state();
        if let (Some(term), Some(_)) = (term, level)
            && state.term_told != level
        {
            match term.is_over() {
                true => tracing::error!("TLS: our certificate {term}"),
                false => tracing::warn!("TLS: our certificate {term}"),
            }
        }
        state.term_told = level;
    }

    /// Handshakes that went well, and those in vain by reason, since the start.
    pub(super) fn figures(&self) -> (u64, Vec<(Refusal, u64)>) {
        let state = self.state();
        let refused = state.refused.iter().map(|(why, (count, _))| (*why, *count));
        (state.shaken, refused.collect())
    }

    /// Shakes hands with a client that has just been accepted; `None`: it was refused, and counted.
    /// `known`: its source has an RS here, or a rule.
    pub(super) async fn welcome(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        known: bool,
    ) -> Option<Shaken> {
        match self.shake(stream, peer.ip(), known).await {
            Ok(shaken) => {
                self.state().shaken += 1;
                Some(shaken)
            }
            Err(why) => {
                self.refused(why, peer);
                None
            }
        }
    }

    async fn shake(
        &self,
        stream: TcpStream,
        source: IpAddr,
        known: bool,
    ) -> Result<Shaken, Refusal> {
        let most = if known { KNOWN_MAX } else { SOURCE_MAX };
        if known {
            // A client that opens 2,000 connections at once begins its handshakes when they are open:
            // none of them must push out another one meanwhile.
            let _hushed = self.hush()?;
            first_byte(&stream).await?;
        }
        let mut place = self.place(source, most, first_byte(&stream)).await?;
        let number = place.number;
        let server = self.state().server.clone().ok_or(Refusal::NotReady)?;
        let handshake = async {
            first_byte(&stream).await?;
            if let Some(standing) = self.state().standing.get_mut(&number) {
                standing.spoke = true;
            }
            TlsAcceptor::from(server).accept(stream).await.map_err(|error| Refusal::of(&error))
        };
        let stream = tokio::select! {
            _ = &mut place.gave_way => return Err(Refusal::GaveWay),
            shaken = timeout(HANDSHAKE, handshake) => shaken.map_err(|_| Refusal::Slow)??,
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let identity = certificates.and_then(<[_]>::first).map(identity);
        Ok(Shaken { stream: Box::new(stream), identity })
    }

    fn hush(&self) -> Result<Hushed, Refusal> {
        let mut state = self.state();
        if state.hushed >= WAITING_MAX {
            return Err(Refusal::TooMany);
        }
        state.hushed += 1;
        Ok(Hushed(self.clone()))
    }

    /// A place, at once or within [`WAIT`]. `heard`: what ends when something has come, or says why
    /// nothing will.
    async fn place(
        &self,
        source: IpAddr,
        most: usize,
        heard: impl Future<Output = Result<(), Refusal>>,
    ) -> Result<Place, Refusal> {
        // Who comes later waits behind those who wait.
        let queues = self.state().waiting.contains_key(&source);
        if let Some(place) = (!queues).then(|| self.enter(source, most, Comes::Now)).flatten() {
            return Ok(place);
        }
        let (ticket, mut go) = self.queue(source, most)?;
        let patience = tokio::time::Instant::now() + WAIT;
        let mut spoke = false;
        tokio::pin!(heard);
        loop {
            tokio::select! {
                biased;
                place = &mut go => return place.map_err(|_| Refusal::TooMany),
                there = &mut heard, if !spoke => {
                    there?;
                    spoke = true;
                    // Else the next one would push it out before it has had its turn.
                    if let Some(queue) = self.state().waiting.get_mut(&source)
                        && let Ok(at) = queue.binary_search_by_key(&ticket.number, |own| own.number)
                    {
                        queue[at].spoke = true;
                    }
                }
                () = sleep_until(patience) => return Err(Refusal::TooMany),
                () = sleep(LOOK) => {
                    let first = |queue: &VecDeque<Waiting>| queue.front().map(|own| own.number);
                    let first = self.state().waiting.get(&source).and_then(first);
                    if first == Some(ticket.number) {
                        self.admit(source);
                    }
                }
            }
        }
    }

    /// Joins the queue. Where it is full the newest of the source that has most in it gives way.
    fn queue(
        &self,
        source: IpAddr,
        most: usize,
    ) -> Result<(Ticket, oneshot::Receiver<Place>), Refusal> {
        let mut state = self.state();
        if state.waiting_count >= WAITING_MAX {
            let longest = state.waiting.iter().max_by_key(|(_, queue)| queue.len());
            let longest = longest.map(|(source, queue)| (*source, queue.len()));
            let own = state.waiting.get(&source).map_or(0, VecDeque::len);
            match longest {
                Some((other, length)) if length > own + 1 => state.leave(other, None),
                _ => return Err(Refusal::TooMany),
            }
        }
        state.last += 1;
        let number = state.last;
        let (go, went) = oneshot::channel();
        state.waiting.entry(source).or_default().push_back(Waiting {
            number,
            most,
            spoke: false,
            go,
        });
        state.waiting_count += 1;
        Ok((Ticket { doorway: self.clone(), source, number }, went))
    }

    /// Lets those of a source in who wait and for whom there is a place. Of them only who has said
    /// something pushes anybody out.
    fn admit(&self, source: IpAddr) {
        loop {
            let next = |queue: &VecDeque<Waiting>| queue.front().map(|own| (own.most, own.spoke));
            let next = self.state().waiting.get(&source).and_then(next);
            let Some((most, spoke)) = next else { return };
            let Some(place) = self.enter(source, most, Comes::Waited { spoke }) else { return };
            let first = self.state().first(source);
            // Whoever leaves takes his ticket along, so that he is there.
            if let Some(first) = first {
                drop(first.go.send(place));
            }
        }
    }

    /// A place, if there is one or somebody has to give way: of the same source where that has as
    /// many as it may, of all where all are too many.
    fn enter(&self, source: IpAddr, most: usize, comes: Comes) -> Option<Place> {
        let now = Instant::now();
        let mut state = self.state();
        let own = state.standing.values().filter(|other| other.source == source).count();
        let crowded = own >= most;
        if crowded || state.standing.len() >= DOORWAY_MAX {
            let candidates = state.standing.iter().filter(|(_, other)| {
                let silent = !other.spoke && comes != Comes::Waited { spoke: false };
                let stuck = silent || now.duration_since(other.since) >= GRACE;
                stuck && (!crowded || other.source == source)
            });
            // The silent before those that have begun to speak, of these the oldest.
            let leaves = candidates.min_by_key(|(_, other)| (other.spoke, other.since));
            let number = *leaves?.0;
            state.standing.remove(&number);
        }
        state.last += 1;
        let number = state.last;
        let (stay, gave_way) = oneshot::channel();
        let spoke = comes == Comes::Waited { spoke: true };
        let standing = Standing { source, since: now, spoke, _stay: stay };
        state.standing.insert(number, standing);
        Some(Place { doorway: self.clone(), source, number, gave_way })
    }

    /// Shakes hands as the client, with a peer that must be `host`.
    pub(super) async fn call(&self, stream: TcpStream, host: &str) -> Result<Shaken, String> {
        let client = self.state().client.clone();
        let client = client.ok_or_else(|| "no CA is named in sip.client_ca".to_owned())?;
        let name = server_name(host).ok_or_else(|| format!("{host} is no name"))?;
        let shaking = TlsConnector::from(client).connect(name, stream);
        let stream = match timeout(HANDSHAKE, shaking).await {
            Ok(shaken) => shaken.map_err(|error| error.to_string())?,
            Err(_) => return Err(Refusal::Slow.text().to_owned()),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        let identity = certificates.and_then(<[_]>::first).map(identity);
        Ok(Shaken { stream: Box::new(stream), identity })
    }

    fn refused(&self, why: Refusal, peer: SocketAddr) {
        let mut state = self.state();
        let (standing, shaken) = (state.standing.len(), state.shaken);
        let now = Instant::now();
        let (count, told) = state.refused.entry(why).or_default();
        *count += 1;
        if told.is_none_or(|told| now.duration_since(told) >= TELL_AGAIN) {
            *told = Some(now);
            tracing::warn!(
                "TLS from {peer} refused: {} ({count} so far; {standing} handshakes under way, \
                 {shaken} done)",
                why.text()
            );
        }
    }
}

/// Waits until something has come, which stays where it is.
async fn first_byte(stream: &TcpStream) -> Result<(), Refusal> {
    match timeout(FIRST_BYTE, stream.peek(&mut [0])).await {
        Err(_) => Err(Refusal::Silent),
        Ok(Ok(1)) => Ok(()),
        Ok(_) => Err(Refusal::Closed),
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn source(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    fn spoke(doorway: &Doorway, place: &Place) {
        doorway.state().standing.get_mut(&place.number).expect("it stands").spoke = true;
    }

    fn gave_way(place: &mut Place) -> bool {
        place.gave_way.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn f55_the_oldest_silent_one_of_a_crowded_source_gives_way() {
        let doorway = Doorway::default();
        let mut other = doorway.enter(source(2), SOURCE_MAX, Comes::Now).expect("room");
        let mut own: Vec<Place> = (0..SOURCE_MAX)
            .map(|_| doorway.enter(source(1), SOURCE_MAX, Comes::Now).expect("room"))
            .collect();
        spoke(&doorway, &own[0]);
        let ninth = doorway.enter(source(1), SOURCE_MAX, Comes::Now).expect("the silent give way");
        assert!(gave_way(&mut own[1]), "the oldest that said nothing");
        assert!(own.iter_mut().enumerate().all(|(at, place)| at == 1 || !gave_way(place)));
        assert!(!gave_way(&mut other), "another source is not asked to");
        assert_eq!(doorway.state().standing.len(), 1 + SOURCE_MAX);
        // None that is on its way gives way before its time.
        for place in own.iter().skip(2).chain([&ninth]) {
            spoke(&doorway, place);
        }
        assert!(doorway.enter(source(1), SOURCE_MAX, Comes::Now).is_none());
        drop(ninth);
        assert!(
            doorway.enter(source(1), SOURCE_MAX, Comes::Now).is_some(),
            "a place is given back"
        );
    }

    #[test]
    fn f55_all_sources_together_are_bounded() {
        let doorway = Doorway::default();
        let mut places: Vec<Place> = (0..DOORWAY_MAX)
            .map(|number| {
                let address = [10, 0, (number >> 8) as u8, number as u8];
                doorway.enter(IpAddr::from(address), SOURCE_MAX, Comes::Now).expect("room")
            })
            .collect();
        let _last = doorway.enter(source(1), SOURCE_MAX, Comes::Now).expect("the oldest gives way");
        assert!(gave_way(&mut places[0]) && !gave_way(&mut places[1]));
        assert_eq!(doorway.state().standing.len(), DOORWAY_MAX);
    }

    /// Runs tasks of the doorway until none of them can go on.
    fn turned<T>(test: impl AsyncFnOnce() -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime
            .expect("a runtime")
            .block_on(async { tokio::task::LocalSet::new().run_until(test()).await })
    }

    async fn settle() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn those_who_wait_get_in_one_by_one_in_their_order() {
        turned(async || {
            let doorway = Doorway::default();
            let mut standing: VecDeque<Place> = (0..SOURCE_MAX)
                .map(|_| doorway.enter(source(1), SOURCE_MAX, Comes::Now).expect("room"))
                .collect();
            standing.iter().for_each(|place| spoke(&doorway, place));
            let mut waiting = Vec::new();
            for _ in 0..3 {
                let doorway = doorway.clone();
                let place =
                    async move { doorway.place(source(1), SOURCE_MAX, ready(Ok(()))).await };
                waiting.push(tokio::task::spawn_local(place));
                settle().await;
            }
            assert_eq!(doorway.state().waiting_count, 3);
            let other = doorway.place(source(2), SOURCE_MAX, ready(Ok(()))).await;
            assert!(other.is_ok(), "another source need not wait");
            for done in 1..=3 {
                drop(standing.pop_front());
                settle().await;
                let finished: Vec<bool> = waiting.iter().map(|task| task.is_finished()).collect();
                assert_eq!(finished, [true, done > 1, done > 2]);
            }
            drop(other);
            // What has come is known of those who waited: none of them gives way.
            assert!(doorway.state().standing.values().all(|standing| standing.spoke));
            assert_eq!(doorway.state().standing.len(), SOURCE_MAX);
            // Who leaves the queue leaves nothing behind.
            let doorway_too = doorway.clone();
            let gone = tokio::task::spawn_local(async move {
                doorway_too.place(source(1), SOURCE_MAX, ready(Ok(()))).await.map(drop)
            });
            settle().await;
            assert_eq!(doorway.state().waiting_count, 1);
            gone.abort();
            settle().await;
            assert_eq!(doorway.state().waiting_count, 0);
            assert!(doorway.state().waiting.is_empty());
        });
    }

    #[test]
    fn who_waited_and_has_said_nothing_pushes_nobody_out() {
        turned(async || {
            let doorway = Doorway::default();
            let mut standing: VecDeque<Place> = (0..SOURCE_MAX)
                .map(|_| doorway.enter(source(1), SOURCE_MAX, Comes::Now).expect("room"))
                .collect();
            standing.iter().for_each(|place| spoke(&doorway, place));
            let silent = || {
                let doorway = doorway.clone();
                let place = async move { doorway.place(source(1), SOURCE_MAX, pending()).await };
                tokio::task::spawn_local(place)
            };
            let (first, second) = (silent(), silent());
            settle().await;
            drop(standing.pop_front());
            settle().await;
            assert!(first.is_finished() && !second.is_finished());
            let mut first = first.await.expect("no panic").expect("a place");
            assert!(!gave_way(&mut first), "it has not had its turn yet");
            assert_eq!(doorway.state().waiting_count, 1);
        });
    }

    #[test]
    fn a_full_queue_is_shared_by_the_sources() {
        let doorway = Doorway::default();
        let queue = |last| doorway.queue(source(last), SOURCE_MAX);
        let mut greedy: Vec<_> = (0..WAITING_MAX).map(|_| queue(1).expect("room")).collect();
        assert_eq!(queue(1).map(drop), Err(Refusal::TooMany));
        let (_ticket, _go) = queue(2).expect("the newest of the greedy gives way");
        let (_, newest) = greedy.last_mut().expect("many");
        assert!(newest.try_recv().is_err_and(|why| why == oneshot::error::TryRecvError::Closed));
        let (_, before) = &mut greedy[WAITING_MAX - 2];
        assert!(before.try_recv().is_err_and(|why| why == oneshot::error::TryRecvError::Empty));
        assert_eq!(doorway.state().waiting_count, WAITING_MAX);
        drop(greedy);
        assert_eq!(doorway.state().waiting_count, 1);
    }
}
