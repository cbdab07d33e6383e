//! Timer values (RFC 3261 §17, table 4) and the queue of deadlines.

use std::collections::BTreeSet;

use super::event::{ClientTxnId, TxnId};
use super::target::ConnId;
use crate::base::time::Mono;

/// Estimate of the round trip time.
pub(super) const T1_MS: u64 = 500;
/// An INVITE that is not answered by then gets 100 (RFC 3261 §17.2.1).
pub(super) const TRYING_MS: u64 = 200;
/// Longest interval between retransmissions.
pub(super) const T2_MS: u64 = 4_000;
/// Longest time a message stays in the network.
pub(super) const T4_MS: u64 = 5_000;
/// 64·T1: timers B, F, H, J, L, M, and D over UDP.
pub(super) const LIFE_MS: u64 = 64 * T1_MS;
/// How long a peer may ring: timer C of proxies (RFC 3261 §16.6) bounds it to more than 3 min.
pub(super) const PROCEEDING_MS: u64 = 181_000;

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owner {
    Server(TxnId),
    Client(ClientTxnId),
    /// The rest of a message is waited for.
    Stream(ConnId),
}

/// The deadlines of one transaction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deadlines {
    /// Next retransmission.
    pub(super) again: Option<Mono>,
    /// The interval that led to it.
    pub(super) interval_ms: u64,
    /// End of the present state.
    pub(super) end: Option<Mono>,
}

impl Deadlines {
    pub(super) fn first(&self) -> Option<Mono> {
        match (self.again, self.end) {
            (Some(again), Some(end)) => Some(again.min(end)),
            (again, end) => again.or(end),
        }
    }

    /// Whether a retransmission is due; if so the next one is set, doubling up to `cap_ms`.
    pub(super) fn repeat(&mut self, now: Mono, cap_ms: u64) -> bool {
        if self.again.is_none_or(|again| now < again) {
            return false;
        }
        self.interval_ms = (self.interval_ms * 2).min(cap_ms);
        self.again = Some(now.plus_ms(self.interval_ms));
        true
    }

    pub(super) fn ended(&self, now: Mono) -> bool {
        self.end.is_some_and(|end| now >= end)
    }
}

/// All deadlines, earliest first. Each owner has at most one.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Mono, Owner)>);

impl Timers {
    /// Moves `owner` from the instant it is `armed` for to `due`.
    pub(super) fn arm(&mut self, owner: Owner, armed: &mut Option<Mono>, due: Option<Mono>) {
        if *armed == due {
            return;
        }
        if let Some(at) = armed.take() {
            self.0.remove(&(at, owner));
        }
        if let Some(at) = due {
            self.0.insert((at, owner));
        }
        *armed = due;
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Mono> {
        self.0.first().map(|(at, _)| *at)
    }

    /// The owner of the earliest deadline, if that is reached.
    pub(super) fn due(&self, now: Mono) -> Option<Owner> {
        self.0.first().filter(|(at, _)| *at <= now).map(|(_, owner)| *owner)
    }
}
