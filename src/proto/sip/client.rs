//! Client transactions (RFC 3261 §17.1 with RFC 6026).

use super::event::DialogId;
use super::target::Target;
use super::timer::{Deadlines, LIFE_MS, PROCEEDING_MS, T1_MS, T2_MS, T4_MS};
use crate::base::time::Mono;

/// Where a transaction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// No response yet.
    Calling,
    /// Provisional response.
    Proceeding,
    /// Final response; for an INVITE other than 2xx.
    Completed,
    /// INVITE answered by 2xx.
    Accepted,
}

/// What the ACK and the CANCEL of a request repeat of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outline {
    pub(super) uri: String,
    pub(super) via: String,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) call_id: String,
    pub(super) cseq: u32,
    pub(super) routes: Vec<String>,
}

/// One transaction.
#[derive(Debug)]
pub(super) struct ClientTxn {
    pub(super) method: String,
    pub(super) key: String,
    pub(super) outline: Outline,
    pub(super) dialog: Option<DialogId>,
    /// Whether it carries or asks for an offer: then no second one may cross it.
    pub(super) offers: bool,
    /// An INVITE that asks for an offer: its 2xx brings it, and whoever sent it gives the answer for the
    /// ACK (RFC 3264 §4, RFC 3261 §13.2.1).
    pub(super) owes_answer: bool,
    pub(super) target: Target,
    pub(super) bytes: Vec<u8>,
    /// Over UDP, for a request that is too large for that, should its stream not open.
    pub(super) fallback: Option<(Target, Vec<u8>)>,
    /// It is to be cancelled as soon as that is allowed (RFC 3261 §9.1).
    pub(super) unwanted: bool,
    /// Tags of further 2xx to a forked INVITE, and their ACKs.
    pub(super) forks: Vec<(String, Vec<u8>)>,
    pub(super) state: State,
    /// The ACK, once there is one.
    pub(super) ack: Option<Vec<u8>>,
    pub(super) deadlines: Deadlines,
    pub(super) armed: Option<Mono>,
}

/// What a response means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Already known: nothing to tell.
    Absorb,
    /// Provisional.
    Progress,
    /// First final response.
    Final,
    /// A final response again: its ACK must be repeated.
    Again,
}

impl ClientTxn {
    pub(super) fn is_invite(&self) -> bool {
        self.method == "INVITE"
    }

    /// Whether a response is still expected.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Calling | State::Proceeding)
    }

    /// Timers A and B, or E and F.
    pub(super) fn start(&mut self, now: Mono) {
        self.deadlines.end = Some(now.plus_ms(LIFE_MS));
        if !self.target.is_reliable() {
            self.deadlines.again = Some(now.plus_ms(T1_MS));
            self.deadlines.interval_ms = T1_MS;
        }
    }

    /// Takes a response with that code.
    pub(super) fn receive(&mut self, now: Mono, code: u16) -> Step {
        match self.state {
            State::Completed if self.is_invite() && code >= 300 => return Step::Again,
            State::Accepted if (200..300).contains(&code) => return Step::Again,
            State::Completed | State::Accepted => return Step::Absorb,
            State::Calling | State::Proceeding => {}
        }
        if code < 200 {
            self.state = State::Proceeding;
            if self.is_invite() {
                // RFC 3261 §17.1.1.2: timers A and B stop.
                self.deadlines.again = None;
                self.deadlines.end = Some(now.plus_ms(PROCEEDING_MS));
            } else {
                // RFC 3261 §17.1.2.2: timer E runs at T2 from now on.
                self.deadlines.interval_ms = T2_MS;
            }
            return Step::Progress;
        }
        let accepted = self.is_invite() && code < 300;
        self.state = if accepted { State::Accepted } else { State::Completed };
        // Timer M; D; K. Over a stream D and K are zero.
        let wait_ms = match (self.is_invite(), self.target.is_reliable()) {
            _ if accepted => LIFE_MS,
            (_, true) => 0,
            (true, false) => LIFE_MS,
            (false, false) => T4_MS,
        };
        self.deadlines = Deadlines { end: Some(now.plus_ms(wait_ms)), ..Deadlines::default() };
        Step::Final
    }

    /// Whether the request is to be sent again.
    pub(super) fn repeat(&mut self, now: Mono) -> bool {
        // Timer A doubles without bound until B ends it; timer E stops at T2.
        let cap_ms = if self.is_invite() { LIFE_MS } else { T2_MS };
        self.deadlines.repeat(now, cap_ms)
    }
}
