//! What an RS's metadata says over time: documents go in as they arrive, the present state and the
//! whole past come out (RFC 7865). Complete and partial documents are merged by rules that fit all
//! examples of RFC 7865 and RFC 8068; where a document contradicts the past, itself, the SDP or the
//! media, the contradiction is told in words and nobody is guessed (F57).
//!
//! A pure machine: the same documents give the same past, so live recordings, ended ones, exports and
//! a rebuilt catalogue all show the same. Times of the SRC are kept as text beside our own arrival
//! time; they never place media.
//!
//! ```
//! use floortape::base::time::Wall;
//! use floortape::store::metadata::{Arrival, Model};
//! use floortape::wire::metadata::{Root, parse};
//!
//! let mut model = Model::default();
//! let mut say = |cseq, second: i64, xml: &str| {
//!     let Ok(Root::Recording(document)) = parse(xml.as_bytes(), None) else { panic!() };
//!     model.take(&Arrival { at: Wall(second * 1_000_000_000), method: "UPDATE", cseq }, *document);
//! };
//! say(1, 10, r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1">
//!     <participant participant_id="AAAAAAAAAAAAAAAAAAAAAQ=="><nameID aor="sip:ann@x"/></participant>
//!     <stream stream_id="AAAAAAAAAAAAAAAAAAAAAg=="><label>1</label></stream>
//!     <participantstreamassoc participant_id="AAAAAAAAAAAAAAAAAAAAAQ==">
//!         <send>AAAAAAAAAAAAAAAAAAAAAg==</send></participantstreamassoc></recording>"#);
//! // Hold: she sends nothing any more.
//! say(2, 20, r#"<recording xmlns="urn:ietf:params:xml:ns:recording:1"><datamode>partial</datamode>
//!     <participantstreamassoc participant_id="AAAAAAAAAAAAAAAAAAAAAQ=="/></recording>"#);
//! let parts = model.on_label("1");
//! assert_eq!(parts[0].from.arrival, Wall(10_000_000_000));
//! assert_eq!(parts[0].to.as_ref().unwrap().arrival, Wall(20_000_000_000));
//! ```

mod association;
mod attribution;
mod crosscheck;
mod merge;
mod model;
mod on_label;
mod past;
mod quirks;
mod reference;
mod sdp_lines;
mod span;
mod state;
mod table;

pub use attribution::{Attribution, LineAttribution, attribute};
pub use crosscheck::{HeardSource, HeardStream, cross_check};
pub use model::{Arrival, Model};
pub use on_label::Part;
pub use past::{
    Contribution, Direction, ExtensionPast, GroupPast, Membership, Owner, ParticipantPast,
    SessionPast, StreamPast,
};
pub use sdp_lines::{AnnouncedSource, SdpLine, sdp_lines};
pub use span::{Moment, Span, Spans, Succession};
pub use table::Table;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_dialects;
#[cfg(test)]
mod tests_steps;
