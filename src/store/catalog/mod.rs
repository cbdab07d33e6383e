//! The catalogue: which recordings there are and where their bytes lie. Everything in it can be
//! made again from the journal and the segments ([`fold`], [`library`]); the index ([`Index`]) only
//! saves the reading. The engine behind it is `host::sqlite`.

mod controls;
pub mod fold;
pub mod index;
pub mod library;
pub mod model;
mod people;
mod people_model;
mod people_view;
mod range;
mod read;
mod rest;
pub mod schema;
mod slab;
mod unsettled;

pub use controls::{Action, Step, Turns};
pub use fold::{Body, Journalled, RsEntry};
pub use index::{ExtentRow, Extents, Find, Found, Index, IndexError, Place};
pub use library::{Library, LibraryError, Reading};
pub use people::{SessionSpan, named_in, names_session, senders_of, session_span};
pub use range::Quick;
pub use read::sketch;
pub use unsettled::Unsettled;
