//! SDP (RFC 4566) as SIPREC uses it: a reader that keeps every line and never refuses an offer for a
//! line it does not know, and a writer for offers and answers.
//!
//! The section splitter and the types are ours; `webrtc-sdp` reads single lines ([`mod@codec`]).
//! Keys never stand in a kept line: the text of `a=crypto` and `k=` is blanked at once.
//!
//! ```
//! use floortape::wire::sdp::{Description, Direction};
//! let offer = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
//!     m=audio 5004 RTP/AVP 0\r\na=sendonly\r\na=label:1\r\n";
//! let sdp = Description::parse(offer.as_bytes()).unwrap();
//! assert_eq!(sdp.media[0].label.as_deref(), Some("1"));
//! assert_eq!(sdp.media[0].formats[0].codec, "PCMU");
//! assert_eq!(sdp.direction_of(&sdp.media[0]), Direction::SendOnly);
//! assert_eq!(sdp.rtp_address(&sdp.media[0]).unwrap().to_string(), "192.0.2.10:5004");
//! ```

mod codec;
mod description;
mod format;
mod media;
mod section;
mod veil;
mod writer;

pub use description::{Connection, Description, Origin, SdpError};
pub use format::Format;
pub use media::{Direction, Media, Profile, RtcpAddress};
pub use veil::veil;
pub use writer::Writer;

#[cfg(test)]
mod tests;
