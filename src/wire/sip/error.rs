//! What can be wrong with a SIP message.

use super::message::Message;

/// A message that cannot be taken, with as much of its head as could be read: enough to answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct SipError {
    /// What is wrong.
    pub fault: SipFault,
    /// Start line and headers as far as they were understood, with an empty body; `None` where
    /// there is not even a start line.
    pub head: Option<Box<Message>>,
}

/// The fact behind a [`SipError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SipFault {
    /// Nothing but line ends: a keep-alive.
    #[error("expected a message, found an empty datagram")]
    Empty,
    /// First line is neither a request line nor a status line.
    #[error("expected a request line or a status line")]
    StartLine,
    /// Another protocol version.
    #[error("expected SIP/2.0")]
    Version,
    /// A header line without a name or a colon.
    #[error("expected `name: value` in header line {line}")]
    Header {
        /// Line, the start line being 0.
        line: usize,
    },
    /// More header lines than taken.
    #[error("expected at most {max} header lines")]
    TooManyHeaders {
        /// The bound.
        max: usize,
    },
    /// No blank line after the headers.
    #[error("expected a blank line after the headers")]
    Unterminated,
    /// Content-Length missing on a stream, no number, or two that differ.
    #[error("expected one Content-Length with a number")]
    ContentLength,
    /// The body is cut off.
    #[error("expected a body of {expected} bytes, found {found}")]
    Short {
        /// Content-Length.
        expected: usize,
        /// Bytes there.
        found: usize,
    },
    /// Head or body longer than taken; RFC 3261 §21.4.11 answers 413.
    #[error("expected at most {max} bytes, found {found}")]
    TooLong {
        /// The bound.
        max: usize,
        /// Bytes announced or seen.
        found: usize,
    },
}
