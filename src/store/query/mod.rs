//! The language in which recordings are asked for: one for `search`, for holds, and for whatever asks next.
//!
//! Text becomes an [`Expr`] ([`parse`]), or a [`QueryError`] that points at what is wrong. What an expression
//! means is said once, by [`Expr::matches`] over the [`Facts`] of a recording. An index may answer it faster
//! and must answer the same: a test holds the two against each other.
//!
//! ```text
//! query = all { "OR" all }            all  = one { ["AND"] one }
//! one   = ("NOT" | "-") one | "(" query ")" | term
//! term  = word | word* | "a phrase" | key:value | key:"a value"
//! ```
//!
//! Pure: the instant that is now, the zone and the zones' names come in ([`Now`]).

mod error;
mod eval;
mod expr;
mod facts;
mod folding;
mod key;
mod lexer;
mod moment;
mod parser;
mod time;
mod words;

pub use error::QueryError;
pub use expr::{Bound, Expr, Field, Has, Is, Named, Term};
pub use facts::{Client, Facts, worst};
pub use folding::folded;
pub use key::{HELP, Key};
pub use moment::{Edge, Moment, MomentError, behind_start, moment};
pub use parser::{QUERY_BYTES_MAX, parse};
pub use time::{Now, Stretch, duration, offset, stretch};
pub use words::{WORDS_MAX, coded, plain_session, tokens};

#[cfg(test)]
mod tests;
