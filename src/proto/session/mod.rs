//! The SIPREC side of a dialog, as values: is this INVITE a Recording Session (`recognise`), which
//! m-lines are taken and how (`negotiate`), which of them the policy wants (`selection`), and what does
//! the answer say (`answer`). What an SRC offers is the client role's, who was on which line when is
//! `store::metadata`'s.
//!
//! Called by control on its own thread. Nothing here knows a clock, a socket or a dialog; SIP values
//! come in as plain text.
//!
//! ```
//! use floortape::base::secret::MasterKey;
//! use floortape::proto::session::*;
//!
//! let sdp = b"v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
//!     m=audio 5004 RTP/AVP 0\r\na=sendonly\r\na=label:1\r\n";
//! let body = Body::read("application/sdp", "", sdp, &Policy::default()).unwrap();
//! let request = Request { require: &["siprec"], src: FeatureTag::Header, ..Request::default() };
//! let Recognition::Rs { quirks } = recognise(&request, &body, &Policy::default()) else { panic!() };
//! assert!(quirks.is_empty());
//!
//! let negotiated = negotiate(body.offer.as_ref().unwrap(), None, &Policy::default());
//! assert_eq!(negotiated.accepted().count(), 1);
//! // One entry per m-line; `None` refuses a line that could not be opened after all.
//! let locals = [Some(Local { port: 20_000, key: None, address: None })];
//! let address = "192.0.2.20".parse().unwrap();
//! let origin = AnswerOrigin { session_id: 7, version: 1, address, connection: address };
//! let answer = emit_answer(&negotiated, &locals, &origin);
//! assert!(answer.ends_with("m=audio 20000 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=label:1\r\na=recvonly\r\n"));
//! ```

mod answer;
mod body;
mod calls;
mod change;
mod line;
mod negotiate;
mod policy;
mod recognise;
mod selection;
mod snapshot;
mod timer;

pub use crate::wire::aor::{fits as aor_fits, forms as aor_forms, normal_aor};
pub use answer::{AnswerOrigin, Local, emit_answer};
pub use body::{Body, METADATA_TYPE, METADATA_TYPE_OLD};
pub use calls::Calls;
pub use change::LineChange;
pub use line::{Accepted, Chosen, Decision, Line, WhyRefused};
pub use negotiate::{Negotiated, negotiate};
pub use policy::{Policy, SrtpPolicy};
pub use recognise::{FeatureTag, Recognition, Refusal, Request, not_acceptable, recognise};
pub use selection::{LineFacts, People, Selection, SelectionRule, Verdict};
pub use snapshot::Snapshot;
pub use timer::{
    Agreed, Due, Fate, Refresher, SILENT_MS, Timer, TimerRules, TooBrief, judge_timer,
};

#[cfg(test)]
mod tests;
