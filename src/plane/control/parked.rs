//! Requests that wait a moment for media. Its successor is up within some tens of ms, and whatever
//! is answered before only sends the SRC elsewhere: an OPTIONS that gets 503 takes a recorder out of
//! service that records.

use std::collections::VecDeque;

use super::actor::Control;
use super::effect::Grave;
use super::job::ANSWER_MS;
use crate::base::ids::RsId;
use crate::base::time::Mono;
use crate::proto::sip::{IncomingRequest, Reply, TxnId};

/// Requests that may wait. Half a second of a busy floor's INVITEs; the others get 503 at once.
const PARKED_MAX: usize = 512;

/// See the module's description. In the order of their arrival, which is that of their deadlines.
#[derive(Default)]
pub(super) struct Parked(VecDeque<Waiting>);

struct Waiting {
    /// Then it gets 503, as every request that cannot be done within [`ANSWER_MS`].
    until: Mono,
    /// What it would change.
    rs: Option<RsId>,
    request: IncomingRequest,
}

impl Parked {
    /// When the first has waited long enough.
    pub(super) fn next_timeout(&self) -> Option<Mono> {
        self.0.front().map(|first| first.until)
    }

    /// Whether a change of that RS waits.
    pub(super) fn holds(&self, rs: RsId) -> bool {
        self.0.iter().any(|waiting| waiting.rs == Some(rs))
    }

    /// Whether none waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Control {
    /// Lets a request wait where nothing stands against it but that media is being started; false:
    /// it is to be answered now.
    pub(super) fn park(&mut self, request: &IncomingRequest, rs: Option<RsId>) -> bool {
        let admission = &self.admission;
        if admission.media_up || admission.draining || self.parked.0.len() >= PARKED_MAX {
            return false;
        }
        let until = self.now.mono.plus_ms(ANSWER_MS);
        self.parked.0.push_back(Waiting { until, rs, request: request.clone() });
        true
    }

    /// Media takes calls, or nothing is taken any more: what has waited is done, in the order in which
    /// it came.
    pub(super) fn unpark(&mut self) {
        for waiting in std::mem::take(&mut self.parked.0) {
            self.dispatch(&waiting.request);
        }
    }

    /// Answers what has waited long enough.
    pub(super) fn expire_parked(&mut self) {
        let now = self.now.mono;
        while let Some(waiting) = self.parked.0.pop_front_if(|waiting| waiting.until <= now) {
            let why = "media is being started";
            let IncomingRequest { txn, peer, message, .. } = &waiting.request;
            let method = message.method().unwrap_or("");
            self.log(Grave::Error, format!("{method} from {peer} refused: {why}"));
            let reply = self.unavailable(why);
            self.reply(*txn, reply);
        }
    }

    /// A request that waits was cancelled (RFC 3261 §9.2); false: it does not wait.
    pub(super) fn cancel_parked(&mut self, txn: TxnId) -> bool {
        let place = self.parked.0.iter().position(|waiting| waiting.request.txn == txn);
        let Some(place) = place else { return false };
        self.parked.0.remove(place);
        self.reply(txn, Reply::new(487));
        true
    }
}
