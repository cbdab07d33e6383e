//! The endpoint: its state, its inputs and its clock. Requests are taken in `receive`, answered in
//! `respond`; our own are made in `send`.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};

use super::client::ClientTxn;
use super::dialog::{Dialog, DialogSnapshot};
use super::event::{ClientTxnId, DialogId, EndpointConfig, Failure, Input, Output, Reply, TxnId};
use super::guard::{DigestRules, Guard, Guessing};
use super::restore::Early;
use super::server::{Due, ServerTxn};
use super::tally::{Oddity, Tally};
use super::target::{ConnId, Hop, Outside, Target};
use super::timer::{LIFE_MS, Owner, Timers};
use crate::base::limits::{SIP_CONNECTIONS_MAX, SIP_STREAMS_BYTES_MAX};
use crate::base::prng::Prng;
use crate::base::time::Mono;
use crate::wire::sip::{Frame, Message, SipError, SipFault, StreamFramer, parse_datagram};

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    framer: StreamFramer,
    /// When bytes last came.
    heard: Mono,
    local: SocketAddr,
    pub(super) peer: SocketAddr,
    pub(super) secure: bool,
    /// Whom TLS says that the peer is.
    identity: Option<String>,
    /// When the rest of a begun message must be there.
    due: Option<Mono>,
}

/// Transactions and dialogs of one SIP endpoint: bytes and time in, bytes and events out.
///
/// Call [`poll`](Self::poll) until `None` after every other call.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) config: EndpointConfig,
    pub(super) prng: Prng,
    pub(super) out: VecDeque<Output>,
    pub(super) conns: HashMap<ConnId, Connection>,
    /// Bytes in all framers.
    waiting: usize,
    pub(super) servers: HashMap<TxnId, Box<ServerTxn>>,
    /// Bytes that they keep.
    pub(super) kept: usize,
    pub(super) server_keys: HashMap<String, TxnId>,
    pub(super) merges: HashMap<String, TxnId>,
    pub(super) clients: BTreeMap<ClientTxnId, ClientTxn>,
    pub(super) client_keys: HashMap<String, ClientTxnId>,
    pub(super) dialogs: BTreeMap<DialogId, Box<Dialog>>,
    /// By Call-ID first, so that the dialogs of one are neighbours.
    pub(super) dialog_keys: BTreeMap<(String, String, String), DialogId>,
    /// Answers given before a restart, by request: our tag and the rest.
    pub(super) answers: HashMap<String, (String, Reply)>,
    pub(super) answer_order: VecDeque<String>,
    /// Requests that ask for one of them again while it is not to be said; `None`: all may be said.
    pub(super) early: Option<HashMap<String, Early>>,
    /// Answers of before a restart that are being repeated until their ACK comes.
    pub(super) resumed: HashSet<TxnId>,
    pub(super) timers: Timers,
    pub(super) guard: Guard,
    pub(super) tally: Tally,
    last_id: u64,
}

impl Endpoint {
    /// An endpoint without dialogs.
    pub fn new(config: EndpointConfig) -> Self {
        Endpoint {
            prng: Prng::new(config.seed),
            out: VecDeque::new(),
            conns: HashMap::new(),
            waiting: 0,
            servers: HashMap::new(),
            kept: 0,
            server_keys: HashMap::new(),
            merges: HashMap::new(),
            clients: BTreeMap::new(),
            client_keys: HashMap::new(),
            dialogs: BTreeMap::new(),
            dialog_keys: BTreeMap::new(),
            answers: HashMap::new(),
            answer_order: VecDeque::new(),
            early: None,
            resumed: HashSet::new(),
            timers: Timers::default(),
            // Of no consequence before there are rules, which bring a key.
            guard: Guard::new(&config.seed.to_be_bytes()),
            tally: Tally::default(),
            last_id: 0,
            config,
        }
    }

    /// Who must authenticate by digest from now on. `key` makes nonces: with the same one a successor
    /// takes those of its predecessor.
    pub fn set_digest(&mut self, key: &[u8], rules: DigestRules) {
        self.guard.set_rules(key, rules);
    }

    /// What stands for our addresses from now on.
    pub fn set_outside(&mut self, outside: Vec<Outside>) {
        self.config.outside = outside;
    }

    /// Wrong answers to challenges so far.
    pub fn digest_failures(&self) -> u64 {
        self.guard.failures
    }

    /// Sources that have to wait for their guesses, since this was asked last (F56).
    pub fn take_guessing(&mut self) -> Vec<Guessing> {
        std::mem::take(&mut self.guard.guessing)
    }

    /// Takes an input, and whatever time has brought due by `now`.
    pub fn handle(&mut self, now: Mono, input: Input<'_>) {
        self.expire(now);
        match input {
            Input::Datagram { local, peer, bytes } => {
                let hop = Hop { local, peer, conn: None, secure: false };
                match parse_datagram(bytes) {
                    Ok(message) => self.receive(now, hop, message),
                    Err(error) => self.receive_broken(hop, &error),
                }
            }
            Input::Connected { conn, local, peer, tls } => {
                let connection = Connection {
                    framer: StreamFramer::new(self.config.message_bytes_max),
                    heard: now,
                    local,
                    peer,
                    secure: tls.is_some(),
                    identity: tls.and_then(|tls| tls.identity).map(str::to_owned),
                    due: None,
                };
                self.connected(conn, connection);
            }
            Input::Stream { conn, bytes } => self.receive_stream(now, conn, bytes),
            Input::Closed { conn } => self.closed(conn),
            Input::Unreachable { peer, secure } => {
                if !secure {
                    self.fall_back(now, peer);
                }
                self.fail_clients(|target| is_dialled(target, peer, secure));
            }
            Input::Tick => {}
        }
    }

    /// The next thing to be done.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// When [`Input::Tick`] is wanted at the latest.
    pub fn next_timeout(&self) -> Option<Mono> {
        self.timers.next()
    }

    /// Server transactions alive; the gauge behind the 503.
    pub fn transactions(&self) -> usize {
        self.servers.len()
    }

    /// What was refused or dropped here.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Addresses that have a dialog with us. The ACK has proved that what we send there arrives.
    pub fn peers(&self) -> HashSet<IpAddr> {
        let proved =
            |dialog: &&Dialog| dialog.unacked.is_none_or(|(_, txn)| self.resumed.contains(&txn));
        let dialogs = self.dialogs.values().map(|dialog| &**dialog).filter(proved);
        dialogs.map(|dialog| dialog.snapshot.peer.ip().to_canonical()).collect()
    }

    /// What must be kept of a dialog; `None` where there is none of that number.
    pub fn snapshot(&self, dialog: DialogId) -> Option<DialogSnapshot> {
        self.dialogs.get(&dialog).map(|dialog| dialog.snapshot.clone())
    }

    /// Forgets a dialog: its requests get 481 from now on, a 2xx that waits for ACK is not
    /// repeated. Requests of ours that are under way (a BYE) still run to their end.
    pub fn close(&mut self, dialog: DialogId) {
        let Some(gone) = self.dialogs.remove(&dialog) else { return };
        self.dialog_keys.remove(&gone.snapshot.key());
        if let Some((_, txn)) = gone.unacked
            && let Some(server) = self.servers.get_mut(&txn)
        {
            server.acked = true;
            server.deadlines.again = None;
            self.arm_server(txn);
        }
    }

    pub(super) fn open(&mut self, snapshot: DialogSnapshot, conn: Option<ConnId>) -> DialogId {
        if let Some(known) = self.dialog_keys.get(&snapshot.key()) {
            return *known;
        }
        let id = DialogId(self.next_id());
        self.dialog_keys.insert(snapshot.key(), id);
        self.dialogs.insert(id, Box::new(Dialog::new(snapshot, conn)));
        id
    }

    pub(super) fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A token with 64 random bits (RFC 3261 §19.3 wants 32).
    pub(super) fn token(&mut self) -> String {
        format!("{:016x}", self.prng.next_u64())
    }

    pub(super) fn transmit(&mut self, target: Target, bytes: Vec<u8>) {
        self.out.push_back(Output::Transmit { target, bytes });
    }

    fn receive(&mut self, now: Mono, hop: Hop, message: Message) {
        if message.method().is_some() {
            self.receive_request(now, hop, message);
        } else {
            self.receive_response(now, hop, message);
        }
    }

    fn receive_broken(&mut self, hop: Hop, error: &SipError) {
        let Some(head) = error.head.as_deref().filter(|head| head.method().is_some()) else {
            if error.fault != SipFault::Empty {
                self.tally.count(Oddity::Unreadable);
            }
            return;
        };
        match error.fault {
            SipFault::Version => self.refuse(hop, head, 505, &[]),
            SipFault::TooLong { .. } => self.refuse(hop, head, 413, &[]),
            _ => self.refuse(hop, head, 400, &[]),
        }
    }

    /// The connection that gives way to others: none that a dialog uses (rule 6 of the failure
    /// catalogue: nothing grows on behalf of a stranger), of the rest the one with the highest rank.
    fn stranger<K: Ord>(&self, rank: impl Fn(&Connection) -> K) -> Option<ConnId> {
        let used: HashSet<ConnId> =
            self.dialogs.values().filter_map(|dialog| dialog.conn).collect();
        let strangers = self.conns.iter().filter(|(conn, _)| !used.contains(conn));
        strangers.max_by_key(|(_, connection)| rank(connection)).map(|(conn, _)| *conn)
    }

    fn drop_connection(&mut self, conn: ConnId) {
        self.out.push_back(Output::Disconnect { conn });
        self.closed(conn);
    }

    fn connected(&mut self, conn: ConnId, connection: Connection) {
        let Connection { local, peer, secure, .. } = connection;
        if self.conns.len() >= SIP_CONNECTIONS_MAX {
            // F55: who has not said by a certificate who it is goes first; of these the source with
            // the most connections, for one that floods harms itself; of its own the oldest.
            let mut of_source: HashMap<IpAddr, usize> = HashMap::new();
            for connection in self.conns.values() {
                *of_source.entry(connection.peer.ip()).or_default() += 1;
            }
            let rank = |other: &Connection| {
                let greed = of_source.get(&other.peer.ip()).copied();
                (other.identity.is_none(), greed, std::cmp::Reverse(other.heard))
            };
            self.tally.count(Oddity::Evicted);
            match self.stranger(rank) {
                Some(oldest) => self.drop_connection(oldest),
                None => return self.out.push_back(Output::Disconnect { conn }),
            }
        }
        self.conns.insert(conn, connection);
        // What was dialled for goes on over the new connection.
        let one = self.config.one_connection;
        for client in self.clients.values_mut() {
            let waits = matches!(client.target, Target::Dial { .. });
            if is_dialled(client.target, peer, secure) || one && waits {
                client.target = Target::Stream { conn, peer, local, secure };
                let dialog = client.dialog.and_then(|dialog| self.dialogs.get_mut(&dialog));
                if let Some(dialog) = dialog.filter(|dialog| dialog.conn.is_none()) {
                    dialog.conn = Some(conn);
                }
            }
        }
        self.follow(conn, peer, secure);
    }

    fn receive_stream(&mut self, now: Mono, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let Connection { local, peer, secure, .. } = *connection;
        let hop = Hop { local, peer, conn: Some(conn), secure };
        let before = connection.framer.waiting();
        connection.heard = now;
        connection.framer.push(bytes);
        self.waiting += connection.framer.waiting() - before;
        if self.waiting > SIP_STREAMS_BYTES_MAX
            && let Some(largest) = self.stranger(|connection| connection.framer.waiting())
        {
            self.drop_connection(largest);
        }
        // Handling a message may end the connection, so it is looked up each time.
        while let Some(frame) = self.pull(conn) {
            match frame {
                Frame::Message(message) => self.receive(now, hop, message),
                Frame::KeepAlive => {
                    // RFC 5626 §4.4.1: pong.
                    let target = Target::Stream { conn, peer, local, secure };
                    self.transmit(target, b"\r\n".to_vec());
                }
                Frame::Broken(error) => self.receive_broken(hop, &error),
                Frame::Lost(error) => {
                    self.receive_broken(hop, &error);
                    self.tally.count(Oddity::FramingLost);
                    self.drop_connection(conn);
                }
            }
            // What is left has begun just now.
            self.expect_rest(conn, None);
        }
        self.expect_rest(conn, Some(now));
    }

    /// Gives the rest of a begun message 64·T1 to come: a slow peer must not hold memory for ever
    /// (RFC 4475 §3.1.2.2). `since`: when it began, if that is not known; `None`: it is over.
    fn expect_rest(&mut self, conn: ConnId, since: Option<Mono>) {
        let Some(connection) = self.conns.get_mut(&conn) else { return };
        let begun = since.filter(|_| connection.framer.begun());
        let due = match connection.due {
            Some(due) if begun.is_some() => Some(due),
            _ => begun.map(|since| since.plus_ms(LIFE_MS)),
        };
        self.timers.arm(Owner::Stream(conn), &mut connection.due, due);
    }

    /// Bytes of messages that are not whole yet.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn pull(&mut self, conn: ConnId) -> Option<Frame> {
        let framer = &mut self.conns.get_mut(&conn)?.framer;
        let before = framer.waiting();
        let frame = framer.pull();
        self.waiting -= before - framer.waiting();
        frame
    }

    fn closed(&mut self, conn: ConnId) {
        let Some(mut gone) = self.conns.remove(&conn) else { return };
        self.timers.arm(Owner::Stream(conn), &mut gone.due, None);
        self.waiting -= gone.framer.waiting();
        for dialog in self.dialogs.values_mut().filter(|dialog| dialog.conn == Some(conn)) {
            dialog.conn = None;
        }
        if self.config.one_connection {
            return self.dial_again(conn);
        }
        let lost = |target: Target| matches!(target, Target::Stream { conn: on, .. } if on == conn);
        self.fail_clients(lost);
    }

    /// Our requests go over the next connection instead of `conn`; those without a final answer are
    /// said again, in the same words, since they or their answers may have been lost with it.
    fn dial_again(&mut self, conn: ConnId) {
        let mut again = Vec::new();
        for client in self.clients.values_mut() {
            let Target::Stream { conn: on, peer, local, secure } = client.target else { continue };
            if on != conn {
                continue;
            }
            client.target = Target::Dial { local, peer, secure };
            if client.is_open() {
                again.push((client.target, client.bytes.clone()));
            }
        }
        for (target, bytes) in again {
            self.transmit(target, bytes);
        }
    }

    /// Ends our requests whose way is lost (RFC 3261 §17.1.4).
    fn fail_clients(&mut self, lost: impl Fn(Target) -> bool) {
        let open =
            self.clients.iter().filter(|(_, client)| client.is_open() && lost(client.target));
        for request in open.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.fail_client(request, Failure::Transport);
        }
    }

    pub(super) fn fail_client(&mut self, request: ClientTxnId, why: Failure) {
        let Some(client) = self.remove_client(request) else { return };
        if client.is_open() {
            self.out.push_back(Output::RequestFailed { request, dialog: client.dialog, why });
        }
    }

    fn expire(&mut self, now: Mono) {
        while let Some(owner) = self.timers.due(now) {
            match owner {
                Owner::Server(txn) => self.expire_server(now, txn),
                Owner::Client(txn) => self.expire_client(now, txn),
                Owner::Stream(conn) => {
                    self.tally.count(Oddity::SlowStream);
                    self.drop_connection(conn);
                }
            }
        }
    }

    fn expire_server(&mut self, now: Mono, txn: TxnId) {
        let Some(server) = self.servers.get_mut(&txn) else { return };
        match server.expire(now) {
            Due::Nothing => {}
            Due::Repeat => self.repeat_answer(txn),
            Due::Trying => self.send_answer(txn, &Reply::new(100)),
            Due::End => return self.remove_server(txn),
            Due::EndUnacked => {
                let dialog = server.dialog.filter(|dialog| self.dialogs.contains_key(dialog));
                // The ACK of an answer from before the restart may have come then.
                let known = !self.resumed.contains(&txn);
                self.remove_server(txn);
                self.out.extend(dialog.map(|dialog| match known {
                    true => Output::AckMissing { dialog },
                    false => Output::AckUnknown { dialog },
                }));
                return;
            }
        }
        self.arm_server(txn);
    }

    fn expire_client(&mut self, now: Mono, txn: ClientTxnId) {
        let Some(client) = self.clients.get_mut(&txn) else { return };
        if client.deadlines.ended(now) {
            return self.fail_client(txn, Failure::Timeout);
        }
        if client.repeat(now) {
            let (target, bytes) = (client.target, client.bytes.clone());
            self.transmit(target, bytes);
        }
        self.arm_client(txn);
    }

    pub(super) fn repeat_answer(&mut self, txn: TxnId) {
        let Some(server) = self.servers.get(&txn).filter(|server| !server.last.is_empty()) else {
            return;
        };
        let (target, bytes) = (self.reply_target(&server.hop, server), server.last.clone());
        self.transmit(target, bytes);
    }

    pub(super) fn reply_target(&self, hop: &Hop, server: &ServerTxn) -> Target {
        hop.reply_to(Some(&server.via), self.is_alive(hop))
    }

    /// Whom TLS says that a message by `hop` is from.
    pub(super) fn identity(&self, hop: &Hop) -> Option<&str> {
        self.conns.get(&hop.conn?)?.identity.as_deref()
    }

    pub(super) fn is_alive(&self, hop: &Hop) -> bool {
        hop.conn.is_some_and(|conn| self.conns.contains_key(&conn))
    }

    /// Whether another transaction would be too many, or keep too much.
    pub(super) fn is_full(&self, servers_max: usize, bytes_max: usize) -> bool {
        self.servers.len() >= servers_max || self.kept >= bytes_max
    }

    /// Counts what a transaction keeps, after it has changed.
    pub(super) fn weigh(&mut self, txn: TxnId) {
        if let Some(server) = self.servers.get_mut(&txn) {
            let bytes = server.bytes();
            self.kept = self.kept - server.counted + bytes;
            server.counted = bytes;
        }
    }

    pub(super) fn arm_server(&mut self, txn: TxnId) {
        if let Some(server) = self.servers.get_mut(&txn) {
            let due = server.deadlines.first();
            self.timers.arm(Owner::Server(txn), &mut server.armed, due);
        }
    }

    pub(super) fn arm_client(&mut self, txn: ClientTxnId) {
        if let Some(client) = self.clients.get_mut(&txn) {
            let due = client.deadlines.first();
            self.timers.arm(Owner::Client(txn), &mut client.armed, due);
        }
    }

    pub(super) fn remove_server(&mut self, txn: TxnId) {
        let Some(mut server) = self.servers.remove(&txn) else { return };
        self.kept -= server.counted;
        self.timers.arm(Owner::Server(txn), &mut server.armed, None);
        self.server_keys.remove(&server.key);
        if self.merges.get(&server.merge) == Some(&txn) {
            self.merges.remove(&server.merge);
        }
        self.resumed.remove(&txn);
        let Some(dialog) = server.dialog.and_then(|dialog| self.dialogs.get_mut(&dialog)) else {
            return;
        };
        if dialog.asked == Some(txn) {
            dialog.asked = None;
        }
        if dialog.unacked.is_some_and(|(_, unacked)| unacked == txn) {
            dialog.unacked = None;
        }
    }

    pub(super) fn remove_client(&mut self, txn: ClientTxnId) -> Option<ClientTxn> {
        let mut client = self.clients.remove(&txn)?;
        self.timers.arm(Owner::Client(txn), &mut client.armed, None);
        self.client_keys.remove(&client.key);
        let dialog = client.dialog.and_then(|dialog| self.dialogs.get_mut(&dialog));
        if let Some(dialog) = dialog.filter(|dialog| dialog.asking == Some(txn)) {
            dialog.asking = None;
        }
        Some(client)
    }

    /// Where a request of ours in that dialog goes. What would be dialled takes a connection that is
    /// open to that very address (RFC 3261 §18): a peer whose thousand dialogs have lost theirs gets
    /// one, not a thousand. Not over TLS, where each dialog has its own idea of who that must be.
    pub(super) fn way(&self, dialog: &Dialog) -> Target {
        let target = dialog.snapshot.target(self.dialog_conn(dialog));
        let Target::Dial { peer: to, local, secure } = target else { return target };
        let one = self.config.one_connection;
        let fits = |own: &Connection| own.secure == secure && (one || !secure && own.peer == to);
        let open = self.conns.iter().filter(|(_, own)| fits(own)).map(|(conn, _)| *conn).min();
        open.map_or(target, |conn| Target::Stream { conn, peer: to, local, secure })
    }

    /// The connection of a dialog over a stream, if it is open.
    pub(super) fn dialog_conn(&self, dialog: &Dialog) -> Option<ConnId> {
        let stream = dialog.snapshot.transport.is_stream();
        dialog.conn.filter(|conn| stream && self.conns.contains_key(conn))
    }
}

/// Whether `target` waits for a connection to that peer.
fn is_dialled(target: Target, peer: SocketAddr, secure: bool) -> bool {
    matches!(target, Target::Dial { peer: to, secure: tls, .. } if (to, tls) == (peer, secure))
}
