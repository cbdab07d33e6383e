//! A load: calls set up together, their streams sent together, ended together.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::leg::{Fresh, Leg, Rests, Sockets};
use super::pace::{Lateness, Pace};
use super::signalling::{ConnectError, Signalling, Target, TargetError, TlsFiles};
use crate::base::ports::{Clock, Entropy};
use crate::base::suite::Agreed;
use crate::base::time::{Mono, Wall};
use crate::client::g711::Law;
use crate::client::offer::{Accepted, AnswerError, Turn, accept, answer, invite_body};
use crate::client::rota::PERIOD_NS;
use crate::client::sender::Origin;
use crate::client::{Call, Drops, Media, ProtectError, Sender};
use crate::host::clock::SystemClock;
use crate::host::entropy::SystemEntropy;
use crate::host::facts;
use crate::proto::sip::{CallRef, EndpointConfig, Invite, Reply, Uac, UacOutput};
use crate::shell::secrets;
use crate::wire::sip::{Message, StartLine};

/// INVITEs without an answer at a time: an SRS may take half a second for each, and has a queue.
const INVITES_AT_ONCE: usize = 64;
/// Between the last 200 and the first packet, ms.
const LEAD_MS: u64 = 20;

/// What to send.
pub struct Plan {
    /// Whom to call.
    pub target: Target,
    /// How that is verified over TLS.
    pub tls: TlsFiles,
    /// File with `user:password` that challenges are answered with.
    pub digest: Option<PathBuf>,
    /// Suite of every line; `None`: plain RTP.
    pub suite: Option<Agreed>,
    /// Codec.
    pub law: Law,
    /// Streams in all.
    pub streams: usize,
    /// Streams of one call (the last one may have fewer).
    pub streams_per_call: usize,
    /// Samples at 8 kHz by stream, repeated over the streams; empty: melodies.
    pub wavs: Vec<Vec<i16>>,
    /// Numbered packets instead of sound.
    pub numbered: bool,
    /// Media of many streams from one port, instead of each from the port that it announces.
    pub one_port: bool,
    /// How long a call that gets 503 is made again, ms; 0: it ends the load.
    pub retry_ms: u64,
    /// New keys by re-INVITE for each call so often, ms; 0: never.
    pub rekey_ms: u64,
    /// Packets of each stream; a WAV may end before.
    pub packets: u64,
    /// Packets left out.
    pub drops: Drops,
    /// The one stream of which they are left out; `None`: each.
    pub drops_in: Option<usize>,
    /// Decides SSRCs, sequence numbers, timestamps and numbered payloads; never keys.
    pub seed: u64,
}

/// One stream when it is over.
pub struct Sent {
    /// Call-ID of its RS.
    pub call_id: String,
    /// Label.
    pub label: String,
    /// Where it started: SSRC, sequence number, timestamp.
    pub origin: Origin,
    /// Packets by its own sender report, those left out included.
    pub sent: u64,
    /// Left out on purpose.
    pub left_out: u64,
    /// Refused by our own system.
    pub unsent: u64,
    /// Genuine receiver reports of the SRS about it.
    pub reports_heard: u64,
    /// Lost by the last of them.
    pub heard_lost: Option<i32>,
}

/// One SIP message, for those who want to see the ladder.
pub struct Step {
    /// When.
    pub at: Wall,
    /// Whether we sent it.
    pub outward: bool,
    /// Its method, or its status.
    pub line: String,
}

/// All of it.
pub struct Outcome {
    /// Streams, in order of setup.
    pub streams: Vec<Sent>,
    /// SIP messages.
    pub ladder: Vec<Step>,
    /// Calls that the SRS ended before we did.
    pub ended_by_peer: usize,
    /// 503s after which a call was made again.
    pub refused: usize,
    /// Re-INVITEs that were answered by 200 and by something else.
    pub rekeyed: (usize, usize),
    /// Connections after the first one.
    pub reconnected: usize,
    /// How well the packets' times were kept.
    pub lateness: Lateness,
    /// Whether the user stopped it.
    pub interrupted: bool,
}

/// Why there was no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Whom to call is not clear.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Nobody there.
    #[error("{uri} cannot be reached: {why}")]
    Unreachable {
        /// The URI.
        uri: String,
        /// What happened.
        why: String,
    },
    /// Not who it should be, or it does not take us; or a file of ours is at fault.
    #[error("{uri} is not called: {error}")]
    NotTrusted {
        /// The URI.
        uri: String,
        /// What is wrong.
        error: ConnectError,
    },
    /// No password can be read.
    #[error("{0}")]
    Secret(String),
    /// A final answer that is no 2xx.
    #[error("refused: {code} {reason}{}", retry(*.retry_after))]
    Refused {
        /// Status code.
        code: u16,
        /// Reason and Warning.
        reason: String,
        /// Retry-After, s.
        retry_after: Option<u32>,
    },
    /// A 200 that is none.
    #[error(transparent)]
    Answer(#[from] AnswerError),
    /// A media socket.
    #[error("media socket: {0}")]
    Media(std::io::Error),
    /// A packet could not be protected.
    #[error(transparent)]
    Protect(#[from] ProtectError),
    /// Stopped by the user before media ran.
    #[error("interrupted")]
    Interrupted,
}

fn retry(after: Option<u32>) -> String {
    after.map_or(String::new(), |seconds| format!(", retry after {seconds} s"))
}

/// Call-ID, label and stream.
type Named = (String, String, Leg);

/// A call of the load.
struct Dialog {
    call: Call,
    stands: Stands,
    sockets: Vec<Sockets>,
    lines: Vec<Accepted>,
    call_id: String,
    /// Where its streams take new keys from, once they are being sent.
    fresh: Vec<Fresh>,
    /// Where its streams are told to rest.
    rests: Vec<Rests>,
    /// When it gets new keys; `None`: never, or the answer is still to come.
    rekey_due: Option<Mono>,
}

/// Where a call stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stands {
    /// To be called from then on.
    Planned(Mono),
    /// INVITE sent.
    Calling(CallRef),
    /// Answered.
    Up(CallRef),
    /// BYE sent.
    Ending,
    /// Over.
    Over,
}

struct Load<'a> {
    plan: &'a Plan,
    stop: &'a AtomicBool,
    clock: SystemClock,
    signalling: Signalling,
    uac: Uac,
    dialogs: Vec<Dialog>,
    by_call: HashMap<CallRef, usize>,
    ladder: Vec<Step>,
    ended_by_peer: usize,
    refused: usize,
    rekeyed: (usize, usize),
    reconnected: usize,
    retry_until: Mono,
    /// Whether the calls are being ended: refusals are no news then.
    is_ending: bool,
}

/// Makes the calls, sends, ends them. `stop` ends it early and in order; `progress` hears a line of
/// talk at each stage.
pub fn run(
    plan: &Plan,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, LoadError> {
    facts::raise_descriptors();
    let signalling =
        Signalling::connect(&plan.target, &plan.tls).map_err(|error| failed(plan, error))?;
    let mut load = Load {
        plan,
        stop,
        clock: SystemClock,
        signalling,
        uac: Uac::new(config()),
        dialogs: Vec::new(),
        by_call: HashMap::new(),
        ladder: Vec::new(),
        ended_by_peer: 0,
        refused: 0,
        rekeyed: (0, 0),
        reconnected: 0,
        retry_until: SystemClock.mono().plus_ms(plan.retry_ms),
        is_ending: false,
    };
    if let Some(path) = &plan.digest {
        load.uac.set_secret(secrets::read(path).map_err(LoadError::Secret)?);
    }
    if let Some(input) = load.signalling.connected() {
        load.uac.handle(load.clock.mono(), input);
    }
    load.prepare()?;
    let calls = load.dialogs.len();
    progress(&format!("inviting: {calls} calls, {} streams", plan.streams));
    if let Err(error) = load.set_up() {
        // Calls that are up already must not be left behind.
        let _ = load.tear_down();
        return Err(error);
    }
    progress("sending");
    let (legs, lateness) = load.send()?;
    progress("ending");
    load.tear_down()?;
    Ok(load.outcome(legs, lateness))
}

fn failed(plan: &Plan, error: ConnectError) -> LoadError {
    match error {
        ConnectError::Io(error) => gone(plan, &error),
        error => LoadError::NotTrusted { uri: plan.target.uri.clone(), error },
    }
}

/// The connection fell. In TLS 1.3 a server that does not take our certificate says so only then.
fn lost(plan: &Plan, error: std::io::Error) -> LoadError {
    failed(plan, ConnectError::of(error, &plan.target.host))
}

fn gone(plan: &Plan, error: &dyn std::fmt::Display) -> LoadError {
    LoadError::Unreachable { uri: plan.target.uri.clone(), why: error.to_string() }
}

impl Load<'_> {
    /// Describes every call and binds its ports.
    fn prepare(&mut self) -> Result<(), LoadError> {
        let entropy = SystemEntropy;
        let local = self.signalling.local;
        let per_call = self.plan.streams_per_call.max(1);
        for number in 0..self.plan.streams.div_ceil(per_call) {
            let count = per_call.min(self.plan.streams - number * per_call);
            let mut call = Call::new(number, count, &entropy);
            let mut sockets = Vec::with_capacity(count);
            for _ in 0..count {
                let pair = Sockets::bind(local.ip()).map_err(LoadError::Media)?;
                call.add_stream(pair.port, self.plan.law, self.plan.suite, &entropy);
                sockets.push(pair);
            }
            let call_id = String::new();
            let lines = Vec::new();
            self.dialogs.push(Dialog {
                call,
                stands: Stands::Planned(Mono(0)),
                sockets,
                lines,
                call_id,
                fresh: Vec::new(),
                rests: Vec::new(),
                rekey_due: None,
            });
        }
        Ok(())
    }

    /// How many calls stand like that.
    fn count(&self, like: impl Fn(Stands) -> bool) -> usize {
        self.dialogs.iter().filter(|dialog| like(dialog.stands)).count()
    }

    fn set_up(&mut self) -> Result<(), LoadError> {
        loop {
            let waiting = self.count(|stands| matches!(stands, Stands::Calling(_)));
            let now = self.clock.mono();
            let due = |place: &usize| matches!(self.dialogs[*place].stands, Stands::Planned(at) if at <= now);
            let places = (0..self.dialogs.len()).filter(due);
            let places: Vec<_> = places.take(INVITES_AT_ONCE.saturating_sub(waiting)).collect();
            for place in places {
                self.invite(place);
            }
            self.turn()?;
            let up = self.count(|stands| matches!(stands, Stands::Up(_) | Stands::Over));
            if up == self.dialogs.len() {
                return Ok(());
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(LoadError::Interrupted);
            }
        }
    }

    fn invite(&mut self, place: usize) {
        let now = self.clock.map();
        let local = self.signalling.local;
        let (headers, body) = self.offer(place);
        let invite = Invite {
            target: self.signalling.hop(),
            uri: self.plan.target.uri.clone(),
            from: format!("<{}:src@{local}>", self.scheme()),
            to: format!("<{}>", self.plan.target.uri),
            headers,
            body,
        };
        let call = self.uac.call(now.mono, &invite).expect("INVITE is a method and has a target");
        let dialog = &mut self.dialogs[place];
        dialog.stands = Stands::Calling(call);
        dialog.call_id = self.uac.call_id(call).unwrap_or_default().to_owned();
        self.by_call.insert(call, place);
    }

    /// A `sips:` URI is called by one (RFC 3261 §8.1.1.8).
    fn scheme(&self) -> &'static str {
        let sips = self.plan.target.uri.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("sips:"));
        if sips { "sips" } else { "sip" }
    }

    fn contact(&self) -> String {
        let (scheme, local) = (self.scheme(), self.signalling.local);
        let transport = match (scheme, self.plan.target.transport.label()) {
            ("sips", _) => String::new(),
            (_, label) => format!(";transport={label}"),
        };
        format!("<{scheme}:src@{local}{transport}>;+sip.src")
    }

    /// Headers and body of an INVITE or re-INVITE.
    fn offer(&self, place: usize) -> (Vec<(String, String)>, Vec<u8>) {
        let dialog = &self.dialogs[place];
        let local = self.signalling.local;
        let at = in_milliseconds(self.clock.map().wall);
        let (content_type, body) = invite_body(&dialog.call, local.ip(), &at);
        // RFC 7866 §6.1.1: +sip.src in Contact, siprec in Require. No `timer` in Supported: a call
        // of ours is short, and the SRS need not refresh it.
        let half = dialog.call.group.hex();
        let headers = [
            ("Contact", self.contact()),
            ("Require", "siprec".to_owned()),
            (
                "Accept",
                "application/sdp, application/rs-metadata+xml, application/rs-metadata".to_owned(),
            ),
            ("Session-ID", format!("{half};remote={}", "0".repeat(32))),
            ("Content-Type", content_type),
        ];
        (headers.map(|(name, value)| (name.to_owned(), value)).to_vec(), body)
    }

    /// Offers new keys in every call whose time has come.
    fn rekey(&mut self) {
        let now = self.clock.mono();
        if !self.signalling.is_open() {
            return;
        }
        for place in 0..self.dialogs.len() {
            let dialog = &mut self.dialogs[place];
            let Stands::Up(call) = dialog.stands else { continue };
            if dialog.rekey_due.is_none_or(|due| due > now) {
                continue;
            }
            dialog.call.rekey(&SystemEntropy);
            let (headers, body) = self.offer(place);
            let asked = self.uac.request(now, call, "INVITE", &headers, &body);
            // Refused while our last request is under way: at the next time.
            let next = now.plus_ms(self.plan.rekey_ms);
            self.dialogs[place].rekey_due = asked.is_none().then_some(next);
        }
    }

    /// The answer to an offer of new keys.
    fn rekeyed(&mut self, call: CallRef, message: &Message) -> Result<(), LoadError> {
        let Some(&place) = self.by_call.get(&call) else { return Ok(()) };
        let dialog = &mut self.dialogs[place];
        dialog.rekey_due = Some(self.clock.mono().plus_ms(self.plan.rekey_ms));
        if !matches!(message.start, StartLine::Response { code: 200..300, .. }) {
            // The session goes on as it was (RFC 3261 §14.1).
            self.rekeyed.1 += 1;
            return Ok(());
        }
        self.rekeyed.0 += 1;
        for (line, fresh) in accept(&dialog.call, &message.body)?.into_iter().zip(&dialog.fresh) {
            *fresh.lock().expect("no sending thread panics while it looks") = line.protector;
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(Vec<Named>, Lateness), LoadError> {
        let start = self.clock.mono().plus_ms(LEAD_MS);
        let mut names = Vec::new();
        let mut legs = Vec::new();
        for dialog in &mut self.dialogs {
            // Empty for a call that the SRS ended at once.
            let lines = dialog.lines.drain(..);
            let sockets = dialog.sockets.drain(..);
            for ((plan, line), sockets) in dialog.call.streams.iter().zip(lines).zip(sockets) {
                let sender = sender(self.plan, legs.len(), line.protector);
                names.push((dialog.call_id.clone(), plan.label.clone()));
                let mut leg = Leg::new(sender, sockets, line.rtp_to, line.rtcp_to, start)
                    .map_err(LoadError::Media)?;
                if self.plan.rekey_ms > 0 {
                    dialog.fresh.push(leg.fresh());
                }
                dialog.rests.push(leg.rests());
                legs.push(leg);
            }
        }
        if self.plan.rekey_ms > 0 {
            let calls = self.dialogs.len() as u64;
            for (place, dialog) in (1..).zip(&mut self.dialogs) {
                // Spread evenly.
                dialog.rekey_due = Some(start.plus_ms(self.plan.rekey_ms * place / calls));
            }
        }
        let from = self.plan.one_port.then_some(self.signalling.local.ip());
        let pace = Pace::start(legs, start, self.plan.packets, from).map_err(LoadError::Media)?;
        while !pace.is_done() {
            self.rekey();
            self.turn()?;
            // Nothing is left to send to when the SRS has ended every call.
            if self.stop.load(Ordering::Relaxed)
                || self.count(|stands| matches!(stands, Stands::Up(_))) == 0
            {
                pace.stop();
            }
        }
        let (legs, lateness) = pace.join()?;
        let named = |((id, label), leg)| (id, label, leg);
        Ok((names.into_iter().zip(legs).map(named).collect(), lateness))
    }

    /// BYE (or CANCEL) for every call that is not over, until all are.
    fn tear_down(&mut self) -> Result<(), LoadError> {
        self.is_ending = true;
        let mut next = 0;
        loop {
            let ending = self.count(|stands| stands == Stands::Ending);
            let free = INVITES_AT_ONCE.saturating_sub(ending);
            let last = (next + free).min(self.dialogs.len());
            for dialog in &mut self.dialogs[next..last] {
                if let Stands::Up(call) | Stands::Calling(call) = dialog.stands {
                    self.uac.hang_up(self.clock.mono(), call, &[], b"");
                    dialog.stands = Stands::Ending;
                }
            }
            next = last;
            self.turn()?;
            if next == self.dialogs.len() && self.uac.calls() == 0 {
                return Ok(());
            }
        }
    }

    /// Takes what has come, lets time pass, does what the SIP machine asks for.
    fn turn(&mut self) -> Result<(), LoadError> {
        if let Some(ended) = self.signalling.ended() {
            self.uac.handle(self.clock.mono(), ended);
        }
        self.drain()?;
        let again = self.signalling.reconnect().map_err(|error| failed(self.plan, error))?;
        if let Some(connected) = again {
            self.reconnected += 1;
            self.uac.handle(self.clock.mono(), connected);
        }
        let received = self.signalling.receive().map_err(|error| lost(self.plan, error))?;
        let now = self.clock.map();
        if let Some(received) = received {
            for message in &received.messages {
                self.note(now.wall, false, told(message));
            }
            self.uac.handle(now.mono, self.signalling.input(&received.bytes));
        }
        if self.uac.next_timeout().is_some_and(|due| due <= now.mono) {
            self.uac.handle(now.mono, crate::proto::sip::Input::Tick);
        }
        self.drain()
    }

    fn drain(&mut self) -> Result<(), LoadError> {
        while let Some(output) = self.uac.poll(self.clock.mono()) {
            self.act(output)?;
        }
        Ok(())
    }

    fn act(&mut self, output: UacOutput) -> Result<(), LoadError> {
        match output {
            UacOutput::Transmit { bytes, .. } => {
                self.note(self.clock.map().wall, true, start_line(&bytes));
                self.signalling.send(&bytes).map_err(|error| lost(self.plan, error))
            }
            UacOutput::Answered { call, message } => {
                let Some(&place) = self.by_call.get(&call) else { return Ok(()) };
                let dialog = &mut self.dialogs[place];
                dialog.stands = Stands::Up(call);
                dialog.lines = accept(&dialog.call, &message.body)?;
                Ok(())
            }
            UacOutput::Refused { call, message } => {
                let now = self.clock.mono();
                if message.code() == Some(503) && !self.is_ending && now < self.retry_until {
                    return self.call_later(call, &message);
                }
                self.over(call);
                if self.is_ending { Ok(()) } else { Err(refused(&message)) }
            }
            UacOutput::Failed { call, .. } => {
                self.over(call);
                if self.is_ending { Ok(()) } else { Err(gone(self.plan, &"no answer to INVITE")) }
            }
            UacOutput::Ended { call, by_peer } => {
                self.over(call);
                if by_peer {
                    self.ended_by_peer += 1;
                }
                Ok(())
            }
            UacOutput::Offer { call, txn, message } => {
                // What is not taken leaves the session as it is (RFC 3261 §14.2).
                let reply = self.answer(call, &message).unwrap_or_else(|| Reply::new(488));
                self.uac.respond(self.clock.mono(), txn, reply);
                Ok(())
            }
            UacOutput::Response { call, message, .. } => self.rekeyed(call, &message),
            UacOutput::Disconnect { .. } => Err(gone(self.plan, &"the connection was lost")),
            UacOutput::RequestFailed { call, .. } => {
                // New keys that may have been taken and whose answer is lost: newer ones at once.
                if let Some(&place) = self.by_call.get(&call) {
                    self.dialogs[place].rekey_due = Some(self.clock.mono());
                }
                Ok(())
            }
            UacOutput::Progress { .. } | UacOutput::Told { .. } => Ok(()),
        }
    }

    /// The answer to an offer of the SRS, by which our streams rest, go on or end.
    fn answer(&mut self, call: CallRef, message: &Message) -> Option<Reply> {
        let place = *self.by_call.get(&call)?;
        let address = self.signalling.local.ip();
        let dialog = &mut self.dialogs[place];
        dialog.call.version += 1;
        let (sdp, turns) = answer(&dialog.call, address, &message.body).ok()?;
        for (turn, rests) in turns.into_iter().zip(&dialog.rests) {
            rests.store(turn != Turn::Sends, Ordering::Relaxed);
        }
        let reply = Reply { body: sdp.into_bytes(), ..Reply::new(200) };
        Some(reply.with("Contact", self.contact()).with("Content-Type", "application/sdp"))
    }

    /// As RFC 3261 §21.5.4 wants: not before Retry-After.
    fn call_later(&mut self, call: CallRef, message: &Message) -> Result<(), LoadError> {
        self.refused += 1;
        let wait_s = retry_after_s(message).unwrap_or(1);
        if let Some(place) = self.by_call.remove(&call) {
            let at = self.clock.mono().plus_ms(u64::from(wait_s) * 1_000);
            self.dialogs[place].stands = Stands::Planned(at);
        }
        Ok(())
    }

    fn over(&mut self, call: CallRef) {
        if let Some(&place) = self.by_call.get(&call) {
            self.dialogs[place].stands = Stands::Over;
        }
    }

    fn note(&mut self, at: Wall, outward: bool, line: String) {
        self.ladder.push(Step { at, outward, line });
    }

    fn outcome(self, legs: Vec<Named>, lateness: Lateness) -> Outcome {
        let sent = |(call_id, label, leg): Named| Sent {
            call_id,
            label,
            origin: leg.sender.origin(),
            sent: leg.sender.packets(),
            left_out: leg.sender.left_out(),
            unsent: leg.unsent,
            reports_heard: leg.reports_heard,
            heard_lost: leg.heard.map(|heard| heard.lost),
        };
        Outcome {
            streams: legs.into_iter().map(sent).collect(),
            ladder: self.ladder,
            ended_by_peer: self.ended_by_peer,
            refused: self.refused,
            rekeyed: self.rekeyed,
            reconnected: self.reconnected,
            lateness,
            interrupted: self.stop.load(Ordering::Relaxed),
        }
    }
}

/// Unpredictable tags and branches (RFC 3261 §19.3).
fn config() -> EndpointConfig {
    let mut seed = [0; 8];
    SystemEntropy.fill(&mut seed);
    EndpointConfig {
        seed: u64::from_le_bytes(seed),
        user_agent: concat!("floortape/", env!("CARGO_PKG_VERSION")).to_owned(),
        one_connection: true,
        ..EndpointConfig::default()
    }
}

/// `INVITE`, or `200 OK (INVITE)`.
fn told(message: &Message) -> String {
    match &message.start {
        StartLine::Request { method, .. } => method.clone(),
        StartLine::Response { code, reason } => {
            let method = message.cseq().map(|cseq| cseq.method).unwrap_or_default();
            format!("{code} {reason} ({method})")
        }
    }
}

/// The same of a message of ours.
fn start_line(bytes: &[u8]) -> String {
    let line: Vec<u8> = bytes.iter().copied().take_while(|byte| *byte != b'\r').collect();
    let line = String::from_utf8_lossy(&line);
    match line.strip_prefix("SIP/2.0 ") {
        Some(status) => status.to_owned(),
        None => line.split(' ').next().unwrap_or_default().to_owned(),
    }
}

fn refused(message: &Message) -> LoadError {
    let (code, phrase) = match &message.start {
        StartLine::Response { code, reason } => (*code, reason.as_str()),
        StartLine::Request { .. } => (0, ""),
    };
    let reason = match message.headers.get("Warning") {
        Some(warning) => format!("{phrase} ({warning})"),
        None => phrase.to_owned(),
    };
    LoadError::Refused { code, reason, retry_after: retry_after_s(message) }
}

/// RFC 3261 §20.33: seconds, then comment or parameters.
fn retry_after_s(message: &Message) -> Option<u32> {
    let value = message.headers.get("Retry-After")?;
    value.split([' ', ';', '(']).next()?.parse().ok()
}

/// Stream number `number` of the plan.
fn sender(plan: &Plan, number: usize, protector: Option<crate::client::Protector>) -> Sender {
    let origin = Origin::new(plan.seed, number as u64);
    let media = if plan.numbered {
        // The checker knows seed and SSRC, and needs no order of streams.
        Media::Numbered { seed: plan.seed ^ u64::from(origin.ssrc.0) }
    } else if plan.wavs.is_empty() {
        Media::melody(number % plan.streams_per_call.max(1), plan.law)
    } else {
        Media::samples(&plan.wavs[number % plan.wavs.len()], plan.law)
    };
    // RFC 7022 §4.2: 96 random bits in base64 name the endpoint's source.
    let mut name = [0; 12];
    SystemEntropy.fill(&mut name);
    let cname = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, name);
    let is_dropping = plan.drops_in.is_none_or(|stream| stream == number);
    let drops = if is_dropping { plan.drops } else { Drops::default() };
    let mut sender = Sender::new(origin, plan.law, media, cname).dropping(drops);
    if let Some(protector) = protector {
        sender.protect(protector);
    }
    sender
}

/// RFC 3339 in whole milliseconds, as metadata wants it.
fn in_milliseconds(wall: Wall) -> String {
    let text = wall.to_string();
    format!("{}Z", &text[..text.len().min(23)])
}

/// Packets in that time.
pub fn packets(seconds: f64) -> u64 {
    (seconds * 1e9 / PERIOD_NS as f64).round() as u64
}
