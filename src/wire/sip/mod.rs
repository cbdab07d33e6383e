//! SIP messages (RFC 3261 §7, §25): bytes to values and back.
//!
//! Our own lexer stands in front because a recorder must answer, not drop, what SBCs really send;
//! rsip is the model that messages are printed from. Nothing here panics on any input.

mod address;
mod cseq;
mod error;
mod headers;
mod lexer;
mod media_type;
mod message;
mod overload;
mod params;
mod print;
mod reason;
mod stream;
mod uri;
mod via;

pub use address::{NameAddr, with_tag, without_tag};
pub use cseq::CSeq;
pub use error::{SipError, SipFault};
pub use headers::{Header, Headers};
pub use media_type::{Disposition, MediaType};
pub use message::{Message, StartLine, parse_datagram};
pub use overload::refuse_unread;
pub use params::{Params, split_list};
pub use print::{Echo, print_request, print_response};
pub use reason::reason_phrase;
pub use stream::{Frame, StreamFramer};
pub use uri::Uri;
pub use via::{Via, with_source};
