//! A load: calls set up together, their streams sent together, ended together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::leg::{Leg, Sockets};
use super::pace::Pace;
use super::signalling::{Signalling, Target, TargetError};
use crate::base::ports::{Clock, Entropy};
use crate::base::prng::Prng;
use crate::base::suite::Suite;
use crate::base::time::Wall;
use crate::client::g711::Law;
use crate::client::offer::{AnswerError, accept, invite_body};
use crate::client::rota::PERIOD_NS;
use crate::client::sender::Origin;
use crate::client::{Call, Drops, Event, Identity, Media, ProtectError, Sender, Uac};
use crate::host::clock::SystemClock;
use crate::host::entropy::SystemEntropy;
use crate::host::facts;

/// INVITEs without an answer at a time: an SRS may take half a second for each, and has a queue.
const INVITES_AT_ONCE: usize = 64;
/// Between the last 200 and the first packet, ms.
const LEAD_MS: u64 = 20;

/// What to send.
pub struct Plan {
    /// Whom to call.
    pub target: Target,
    /// Suite of every line; `None`: plain RTP.
    pub suite: Option<Suite>,
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
    /// Its start line.
    pub line: String,
    /// Which dialog.
    pub call_id: String,
}

/// All of it.
pub struct Outcome {
    /// Streams, in order of setup.
    pub streams: Vec<Sent>,
    /// SIP messages.
    pub ladder: Vec<Step>,
    /// Calls that the SRS ended before we did, with its reason.
    pub ended_by_peer: Vec<String>,
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

/// A call being set up.
struct Dialog {
    uac: Uac,
    call: Call,
    sockets: Vec<Sockets>,
    lines: Option<Vec<crate::client::offer::Accepted>>,
}

struct Load<'a> {
    plan: &'a Plan,
    stop: &'a AtomicBool,
    clock: SystemClock,
    signalling: Signalling,
    dialogs: Vec<Dialog>,
    by_call_id: HashMap<String, usize>,
    ladder: Vec<Step>,
    ended_by_peer: Vec<String>,
}

/// Makes the calls, sends, ends them. `stop` ends it early and in order; `progress` hears a line of
/// talk at each stage.
pub fn run(
    plan: &Plan,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(&str),
) -> Result<Outcome, LoadError> {
    facts::raise_descriptors();
    let signalling = Signalling::connect(&plan.target).map_err(|error| gone(plan, &error))?;
    let mut load = Load {
        plan,
        stop,
        clock: SystemClock,
        signalling,
        dialogs: Vec::new(),
        by_call_id: HashMap::new(),
        ladder: Vec::new(),
        ended_by_peer: Vec::new(),
    };
    load.prepare()?;
    let calls = load.dialogs.len();
    progress(&format!("inviting: {calls} calls, {} streams", plan.streams));
    if let Err(error) = load.set_up() {
        // Calls that are up already must not be left behind.
        let _ = load.tear_down();
        return Err(error);
    }
    progress("sending");
    let legs = load.send()?;
    progress("ending");
    load.tear_down()?;
    Ok(load.outcome(legs))
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
            let mut seed = [0; 8];
            entropy.fill(&mut seed);
            let call_id = format!("{}@floortape", call.session.hex());
            let identity = Identity {
                target: self.plan.target.uri.clone(),
                local,
                transport: self.plan.target.transport,
                call_id: call_id.clone(),
                session_id: format!("{};remote={}", call.group.hex(), "0".repeat(32)),
                user: "src".to_owned(),
            };
            let uac = Uac::new(identity, Prng::new(u64::from_le_bytes(seed)));
            self.by_call_id.insert(call_id, self.dialogs.len());
            self.dialogs.push(Dialog { uac, call, sockets, lines: None });
        }
        Ok(())
    }

    fn set_up(&mut self) -> Result<(), LoadError> {
        let mut next = 0;
        loop {
            let waiting = self.dialogs[..next].iter().filter(|dialog| dialog.uac.is_waiting());
            let free = INVITES_AT_ONCE.saturating_sub(waiting.count());
            let last = (next + free).min(self.dialogs.len());
            for dialog in &mut self.dialogs[next..last] {
                let now = self.clock.map();
                let at = in_milliseconds(now.wall);
                let local = self.signalling.local.ip();
                let (content_type, body) = invite_body(&dialog.call, local, &at);
                dialog.uac.invite(now.mono, &content_type, &body);
            }
            next = last;
            for (place, event) in self.turn()? {
                self.set_up_event(place, event)?;
            }
            if self.dialogs.iter().all(|dialog| dialog.lines.is_some()) {
                return Ok(());
            }
            if self.stop.load(Ordering::Relaxed) {
                return Err(LoadError::Interrupted);
            }
        }
    }

    fn set_up_event(&mut self, place: usize, event: Event) -> Result<(), LoadError> {
        match event {
            Event::Answered { body, .. } => {
                let dialog = &mut self.dialogs[place];
                dialog.lines = Some(accept(&dialog.call, &body)?);
                Ok(())
            }
            Event::Refused { code, reason, retry_after } => {
                Err(LoadError::Refused { code, reason, retry_after })
            }
            Event::Silent => Err(gone(self.plan, &"no answer to INVITE")),
            Event::Ended => Ok(()),
            Event::EndedByPeer { reason } => {
                self.ended_by_peer.push(reason);
                Ok(())
            }
        }
    }

    fn send(&mut self) -> Result<Vec<(String, String, Leg)>, LoadError> {
        let start = self.clock.mono().plus_ms(LEAD_MS);
        let mut names = Vec::new();
        let mut legs = Vec::new();
        for dialog in &mut self.dialogs {
            let lines = dialog.lines.take().expect("set-up ended with every call answered");
            let sockets = dialog.sockets.drain(..);
            for ((plan, line), sockets) in dialog.call.streams.iter().zip(lines).zip(sockets) {
                let sender = sender(self.plan, legs.len(), line.protector);
                names.push((dialog.uac.call_id().to_owned(), plan.label.clone()));
                legs.push(Leg::new(sender, sockets, line.rtp_to, line.rtcp_to, start));
            }
        }
        let pace = Pace::start(legs, start, self.plan.packets);
        while !pace.is_done() {
            for (_, event) in self.turn()? {
                if let Event::EndedByPeer { reason } = event {
                    self.ended_by_peer.push(reason);
                }
            }
            // Nothing is left to send to when the SRS has ended every call.
            if self.stop.load(Ordering::Relaxed) || self.dialogs.iter().all(|d| !d.uac.is_up()) {
                pace.stop();
            }
        }
        let legs = pace.join()?;
        Ok(names.into_iter().zip(legs).map(|((id, label), leg)| (id, label, leg)).collect())
    }

    /// BYE for every call that is up, until all are answered or given up.
    fn tear_down(&mut self) -> Result<(), LoadError> {
        let mut next = 0;
        loop {
            let waiting = self.dialogs.iter().filter(|dialog| dialog.uac.is_waiting()).count();
            let free = INVITES_AT_ONCE.saturating_sub(waiting);
            let last = (next + free).min(self.dialogs.len());
            let now = self.clock.mono();
            self.dialogs[next..last].iter_mut().for_each(|dialog| dialog.uac.bye(now));
            next = last;
            self.turn()?;
            let busy = self.dialogs.iter().any(|dialog| dialog.uac.is_waiting());
            if next == self.dialogs.len() && !busy {
                return Ok(());
            }
        }
    }

    /// Sends what is to be sent, takes what has come, lets time pass.
    fn turn(&mut self) -> Result<Vec<(usize, Event)>, LoadError> {
        self.transmit()?;
        let messages = self.signalling.receive().map_err(|error| gone(self.plan, &error))?;
        let now = self.clock.map();
        for message in messages {
            let Some(call_id) = message.call_id() else { continue };
            let Some(&place) = self.by_call_id.get(call_id) else { continue };
            let line = match (message.code(), message.method()) {
                (Some(code), _) => {
                    let method = message.cseq().map(|cseq| cseq.method).unwrap_or_default();
                    format!("{code} ({method})")
                }
                (None, method) => method.unwrap_or_default().to_owned(),
            };
            self.note(now.wall, false, line, call_id.to_owned());
            self.dialogs[place].uac.handle(now.mono, &message, self.signalling.peer());
        }
        let mut events = Vec::new();
        for (place, dialog) in self.dialogs.iter_mut().enumerate() {
            dialog.uac.tick(now.mono);
            while let Some(event) = dialog.uac.poll_event() {
                events.push((place, event));
            }
        }
        self.transmit()?;
        Ok(events)
    }

    fn transmit(&mut self) -> Result<(), LoadError> {
        for place in 0..self.dialogs.len() {
            while let Some(bytes) = self.dialogs[place].uac.poll_transmit() {
                let line: Vec<u8> =
                    bytes.iter().copied().take_while(|byte| *byte != b'\r').collect();
                let line = String::from_utf8_lossy(&line);
                let line = match line.strip_prefix("SIP/2.0 ") {
                    Some(status) => status.to_owned(),
                    None => line.split(' ').next().unwrap_or_default().to_owned(),
                };
                let call_id = self.dialogs[place].uac.call_id().to_owned();
                self.note(self.clock.map().wall, true, line, call_id);
                self.signalling.send(&bytes).map_err(|error| gone(self.plan, &error))?;
            }
        }
        Ok(())
    }

    fn note(&mut self, at: Wall, outward: bool, line: String, call_id: String) {
        self.ladder.push(Step { at, outward, line, call_id });
    }

    fn outcome(self, legs: Vec<(String, String, Leg)>) -> Outcome {
        let sent = |(call_id, label, leg): (String, String, Leg)| Sent {
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
            interrupted: self.stop.load(Ordering::Relaxed),
        }
    }
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
