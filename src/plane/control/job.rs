//! A job: a request that waits for media's answers and for the journal. Persist before reply, and
//! reply only what media has confirmed.

use std::collections::HashSet;

use crate::base::ids::{Generation, RsId, Slot};
use crate::base::time::ClockMap;
use crate::proto::session::{Agreed, Negotiated, People};
use crate::proto::sip::{ClientTxnId, DialogId, Reply, TxnId};
use crate::store::event::Origin;
use crate::store::journal::entry::StreamOpened;

/// An answer that is not ready after this becomes 503 (design: an INVITE never hangs).
pub(super) const ANSWER_MS: u64 = 500;

/// What a finished job does.
pub(super) enum Purpose {
    /// Answer the INVITE that starts an RS.
    Start,
    /// Answer a re-INVITE or UPDATE.
    Change,
    /// Answer a request that changes nothing: the journal should know its number, but nothing is
    /// promised by the answer.
    Answer,
    /// Refuse a request whose acceptance the journal may already hold: what takes that back comes
    /// first, unless the journal fails or hangs.
    Refusal,
    /// Answer a BYE.
    End,
    /// Acknowledge the answer to a call of ours.
    Called(ClientTxnId),
    /// Acknowledge the offer that an SRC was asked for in a running RS.
    Renewed(ClientTxnId),
    /// Pause or resume an RS as an operator wants it; the SRC hears of it then.
    Hold,
    /// Say BYE in a dialog that we end, and why: its end must be durable before, or the next start
    /// would go on with what the SRC knows is over.
    Bye(DialogId, String),
    /// Nothing is waiting for it: closing streams, metadata of no consequence.
    Quiet,
}

impl Purpose {
    /// Whether media is asked for streams that a successor takes up as they are.
    pub(super) const fn is_of_streams(&self) -> bool {
        matches!(
            self,
            Purpose::Start
                | Purpose::Called(_)
                | Purpose::Renewed(_)
                | Purpose::Change
                | Purpose::Hold
        )
    }
}

/// A request in the making.
pub(super) struct Job {
    pub(super) purpose: Purpose,
    pub(super) rs: RsId,
    /// The transaction to answer, if any.
    pub(super) txn: Option<TxnId>,
    /// The answer when all goes well.
    pub(super) reply: Option<Reply>,
    /// Media requests without an answer yet.
    pub(super) media: HashSet<u64>,
    /// What it asked of media was lost with the link; it has it when its streams are taken up again.
    pub(super) lost: bool,
    /// Journal token without an answer yet.
    pub(super) journal: Option<u64>,
    /// Why it cannot be done, once known.
    pub(super) refused: Option<String>,
    /// When media applied each request.
    pub(super) applied: Vec<(Slot, Generation, ClockMap)>,
    /// The operator who waits for it.
    pub(super) verb: Option<u64>,
    /// What a change makes of the RS.
    pub(super) plan: Option<Box<Plan>>,
    /// The session timer that its answer agrees to; `None`: it says nothing about it.
    pub(super) agreed: Option<Option<Agreed>>,
}

/// The state of an RS after a change.
#[derive(Default)]
pub(super) struct Plan {
    /// All its streams.
    pub(super) streams: Vec<StreamOpened>,
    /// Slots that were taken for it.
    pub(super) opened: Vec<Slot>,
    /// Streams that end.
    pub(super) removed: Vec<StreamOpened>,
    /// The decided offer.
    pub(super) negotiated: Option<Negotiated>,
    /// `o=` of the answer.
    pub(super) origin: (u64, u64),
    /// The answer.
    pub(super) answer_sdp: String,
    /// Whether an operator here has asked for it, not the SRC.
    pub(super) by_us: bool,
    /// What the metadata says from then on, where the recording policy asks.
    pub(super) people: Option<People>,
    /// Names that were left out are wanted now.
    pub(super) lacks_names: bool,
    /// A complete document has said it all.
    pub(super) forgets: bool,
    /// It changes nothing but which lines the policy wants.
    pub(super) by_policy: bool,
    /// The SRC is yet to hear of it, by an offer of ours.
    pub(super) tells: bool,
    /// What changes about lines, in words.
    pub(super) quirks: Vec<String>,
}

impl Plan {
    /// Who asked for what becomes of a stream: our operator, our policy, or its SRC.
    pub(super) const fn by(&self, before: &StreamOpened, after: &StreamOpened) -> Origin {
        let by_policy = before.barred.is_some() != after.barred.is_some();
        if self.by_us || by_policy { Origin::Srs } else { Origin::Src }
    }
}

impl Job {
    /// Whether nothing is missing any more.
    pub(super) fn is_ready(&self) -> bool {
        self.refused.is_some() || self.media.is_empty() && !self.lost && self.journal.is_none()
    }
}
