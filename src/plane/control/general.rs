//! What RFC 3261 §8.2.2 and §8.2.3 ask of every request before anybody looks at what it wants.

use std::collections::HashSet;
use std::net::IpAddr;

use super::actor::Control;
use super::start::UNDERSTOOD;
use crate::config::model::PeerMatch;
use crate::proto::sip::{IncomingRequest, Reply};
use crate::wire::sip::{MediaType, Message};

impl Control {
    /// Sources whose messages go first: those that have an RS here, and those with a rule.
    pub fn known(&self) -> HashSet<IpAddr> {
        let ruled = self.config.peers.iter().filter_map(|rule| match &rule.matches {
            PeerMatch::Address(address) => Some(address.to_canonical()),
            PeerMatch::Name(_) | PeerMatch::User(_) => None,
        });
        self.sip.peers().into_iter().chain(ruled).collect()
    }

    /// What the endpoint has refused or dropped since this was last asked, and what the policy did not
    /// want, in words.
    pub fn refused_lately(&mut self) -> Option<String> {
        let now = self.sip.tally().clone();
        let said = now.since(&self.told);
        self.told = now;
        let said: Vec<String> = said.into_iter().chain(self.unwanted.take()).collect();
        (!said.is_empty()).then(|| said.join(", "))
    }

    /// The refusal of a request that needs something which we do not have: an extension, a coding of
    /// its body, another kind of answer than SDP.
    ///
    /// A BYE is never refused for that: its SRC would hold the session for over and we would go on
    /// recording silence. There we leave the MUST of RFC 3261 §8.2.2.3.
    pub(super) fn general(&self, request: &IncomingRequest) -> Option<Reply> {
        let message = &request.message;
        let method = message.method().unwrap_or("");
        if method == "BYE" {
            return None;
        }
        let unknown: Vec<&str> =
            message.headers.list("Require").filter(|tag| !known(tag)).collect();
        if !unknown.is_empty() {
            return Some(Reply::new(420).with("Unsupported", unknown.join(", ")));
        }
        let coded = |coding: &str| !coding.eq_ignore_ascii_case("identity");
        if !message.body.is_empty() && message.headers.list("Content-Encoding").any(coded) {
            return Some(Reply::new(415).with("Accept-Encoding", "identity"));
        }
        // RFC 4475 §3.3.15. An SRC of the field that forgets SDP there still wants to be recorded.
        let initial = method == "INVITE" && request.dialog.is_none();
        let lenient = !self.policy_of(request).strict && is_tagged(message);
        if initial && !accepts_sdp(message) && !lenient {
            let why = "399 floortape \"Accept must hold application/sdp for an INVITE\"";
            return Some(Reply::new(406).with("Warning", why));
        }
        None
    }
}

fn known(tag: &str) -> bool {
    tag.eq_ignore_ascii_case("siprec")
        || UNDERSTOOD.iter().any(|understood| understood.eq_ignore_ascii_case(tag))
}

fn is_tagged(message: &Message) -> bool {
    ["Require", "Supported"].iter().any(|name| message.headers.has_option(name, "siprec"))
}

/// Whether SDP may stand in the answer (RFC 3261 §20.1: without Accept it may).
pub(super) fn accepts_sdp(message: &Message) -> bool {
    let fits = |range: &str| {
        let found = MediaType::parse(range);
        found.is_some_and(|own| {
            ["application/sdp", "application/*", "*/*"].contains(&&*own.essence())
        })
    };
    message.headers.get("Accept").is_none() || message.headers.list("Accept").any(fits)
}
