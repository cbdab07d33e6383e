//! The body of a request, sorted: which part is the offer, which the metadata, and which parts
//! nobody here understands.

use std::cell::OnceCell;

use crate::wire::metadata::{self, MetadataError, Root};
use crate::wire::multipart::{self, Handling, Part};
use crate::wire::sdp::Description;

use super::policy::Policy;
use super::recognise::Refusal;

/// RFC 9806: what we send.
pub const METADATA_TYPE: &str = "application/rs-metadata+xml";
/// RFC 7866's first label, still sent by many SRCs.
pub const METADATA_TYPE_OLD: &str = "application/rs-metadata";

/// A request's (or response's) body, sorted.
#[derive(Debug, Default)]
pub struct Body {
    /// Every part, in order, as received. Parts hold keys: blank them before they are journaled
    /// ([`crate::wire::sdes::blank_keys`]).
    pub parts: Vec<Part>,
    /// The offer (or answer).
    pub offer: Option<Description>,
    /// Which part holds the offer.
    pub offer_part: Option<usize>,
    /// Which part holds the metadata.
    pub metadata_part: Option<usize>,
    /// What that says; read when somebody asks, and once.
    document: OnceCell<Result<Root, MetadataError>>,
    /// Parts that must be understood and are not.
    pub not_understood: Vec<String>,
    /// What was odd.
    pub quirks: Vec<String>,
}

impl Body {
    /// Sorts a body. `content_type` and `disposition` are the SIP header values, empty where absent.
    ///
    /// Fails with 400 where MIME or SDP cannot be read; broken metadata is no failure.
    pub fn read(
        content_type: &str,
        disposition: &str,
        bytes: &[u8],
        policy: &Policy,
    ) -> Result<Self, Refusal> {
        let mut parts = multipart::parse(content_type, bytes)
            .map_err(|error| Refusal::malformed(&format!("body: {error}")))?;
        if let [part] = parts.as_mut_slice()
            && part.disposition.is_none()
            && !disposition.is_empty()
        {
            part.set_disposition(disposition);
        }
        let mut body = Body::default();
        for (at, part) in parts.iter().enumerate() {
            body.sort(at, part, policy)?;
        }
        body.parts = parts;
        Ok(body)
    }

    /// The metadata part.
    pub fn metadata(&self) -> Option<&Part> {
        self.metadata_part.and_then(|at| self.parts.get(at))
    }

    /// What the metadata part says, if there is one.
    pub fn root(&self) -> Option<&Result<Root, MetadataError>> {
        let part = self.metadata()?;
        Some(self.document.get_or_init(|| {
            let content_type = part.header("Content-Type").unwrap_or("");
            let charset = multipart::parameter(content_type, "charset");
            metadata::parse(&part.body, charset.as_deref())
        }))
    }

    fn sort(&mut self, at: usize, part: &Part, policy: &Policy) -> Result<(), Refusal> {
        let kind = part.content_type.as_str();
        // RFC 5621 §8.1: an unknown disposition type counts like an unknown content type.
        let known_disposition = part.disposition.as_deref().is_none_or(|disposition| {
            matches!(disposition, "session" | "recording-session" | "render" | "signal")
        });
        let is_sdp = kind == "application/sdp";
        let is_metadata = kind == METADATA_TYPE || kind == METADATA_TYPE_OLD;
        if !known_disposition || !(is_sdp || is_metadata) {
            if !policy.strict && known_disposition && metadata::is_recording(&part.body) {
                self.quirks.push(format!("metadata came as {}", short(kind)));
                self.take_metadata(at);
                return Ok(());
            }
            if part.handling == Handling::Required {
                let disposition = part.disposition.as_deref().unwrap_or_default();
                self.not_understood.push(format!("{} {}", short(kind), short(disposition)));
            }
            return Ok(());
        }
        if is_metadata {
            if part.disposition.as_deref() != Some("recording-session") {
                self.quirks.push("metadata part without disposition recording-session".to_owned());
            }
            self.take_metadata(at);
        } else if self.offer.is_some() {
            self.quirks.push("more than one SDP part; the first is used".to_owned());
        } else {
            let offer = Description::parse(&part.body)
                .map_err(|error| Refusal::malformed(&format!("sdp: {error}")))?;
            self.quirks.extend(offer.quirks.iter().cloned());
            (self.offer, self.offer_part) = (Some(offer), Some(at));
        }
        Ok(())
    }

    fn take_metadata(&mut self, at: usize) {
        if self.metadata_part.is_some() {
            self.quirks.push("more than one metadata part; the first is used".to_owned());
        } else {
            self.metadata_part = Some(at);
        }
    }
}

/// A peer's word for a report.
fn short(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}
