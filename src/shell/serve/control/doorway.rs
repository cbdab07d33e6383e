//! The doorway of TLS: handshakes under way, each bounded in time, by source and in number (F55).
//!
//! A connection stands in it from `accept` until its handshake is over. Who stands there has proven
//! nothing, so the one that has stood longest without a word gives way when room is wanted. Shared by
//! the listeners' tasks, all on control's one thread.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

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
/// Of all sources: 64 sources that all come back at once, at some 30 KB each.
const DOORWAY_MAX: usize = 512;
/// Connections that wait for their source to have fewer. They hold a descriptor and nothing else.
const WAITING_MAX: usize = 512;
/// How long, and how often they look.
const WAIT: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);
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
    waiting: usize,
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
    number: u64,
    gave_way: oneshot::Receiver<()>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.doorway.state().standing.remove(&self.number);
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

    /// Shakes hands with a client that has just been accepted; `None`: it was refused, and counted.
    pub(super) async fn welcome(&self, stream: TcpStream, peer: SocketAddr) -> Option<Shaken> {
        match self.shake(stream, peer.ip()).await {
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

    async fn shake(&self, stream: TcpStream, source: IpAddr) -> Result<Shaken, Refusal> {
        let mut place = self.place(source).await?;
        let number = place.number;
        let server = self.state().server.clone().ok_or(Refusal::NotReady)?;
        let handshake = async {
            match timeout(FIRST_BYTE, stream.peek(&mut [0])).await {
                Err(_) => return Err(Refusal::Silent),
                Ok(Ok(1)) => {}
                Ok(_) => return Err(Refusal::Closed),
            }
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

    /// A place, at once or within [`WAIT`].
    async fn place(&self, source: IpAddr) -> Result<Place, Refusal> {
        if let Some(place) = self.enter(source) {
            return Ok(place);
        }
        if self.state().waiting >= WAITING_MAX {
            return Err(Refusal::TooMany);
        }
        self.state().waiting += 1;
        let patience = Instant::now() + WAIT;
        let place = loop {
            tokio::time::sleep(LOOK).await;
            match self.enter(source) {
                Some(place) => break Ok(place),
                None if Instant::now() >= patience => break Err(Refusal::TooMany),
                None => {}
            }
        };
        self.state().waiting -= 1;
        place
    }

    /// A place, if there is one or somebody has to give way: of the same source where that has as
    /// many as it may, of all where all are too many.
    fn enter(&self, source: IpAddr) -> Option<Place> {
        let now = Instant::now();
        let mut state = self.state();
        let own = state.standing.values().filter(|other| other.source == source).count();
        let crowded = own >= SOURCE_MAX;
        if crowded || state.standing.len() >= DOORWAY_MAX {
            let candidates = state.standing.iter().filter(|(_, other)| {
                let stuck = !other.spoke || now.duration_since(other.since) >= GRACE;
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
        let standing = Standing { source, since: now, spoke: false, _stay: stay };
        state.standing.insert(number, standing);
        Some(Place { doorway: self.clone(), number, gave_way })
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

#[cfg(test)]
mod tests {
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
        let mut other = doorway.enter(source(2)).expect("room");
        let mut own: Vec<Place> =
            (0..SOURCE_MAX).map(|_| doorway.enter(source(1)).expect("room")).collect();
        spoke(&doorway, &own[0]);
        let ninth = doorway.enter(source(1)).expect("the silent give way");
        assert!(gave_way(&mut own[1]), "the oldest that said nothing");
        assert!(own.iter_mut().enumerate().all(|(at, place)| at == 1 || !gave_way(place)));
        assert!(!gave_way(&mut other), "another source is not asked to");
        assert_eq!(doorway.state().standing.len(), 1 + SOURCE_MAX);
        // None that is on its way gives way before its time.
        for place in own.iter().skip(2).chain([&ninth]) {
            spoke(&doorway, place);
        }
        assert!(doorway.enter(source(1)).is_none());
        drop(ninth);
        assert!(doorway.enter(source(1)).is_some(), "a place is given back");
    }

    #[test]
    fn f55_all_sources_together_are_bounded() {
        let doorway = Doorway::default();
        let mut places: Vec<Place> = (0..DOORWAY_MAX)
            .map(|number| {
                let address = [10, 0, (number >> 8) as u8, number as u8];
                doorway.enter(IpAddr::from(address)).expect("room")
            })
            .collect();
        let _last = doorway.enter(source(1)).expect("the oldest gives way");
        assert!(gave_way(&mut places[0]) && !gave_way(&mut places[1]));
        assert_eq!(doorway.state().standing.len(), DOORWAY_MAX);
    }
}
