//! Sessions, participants and attribution of a recording, by its metadata bodies.

use std::collections::BTreeMap;

use super::fold::RsEntry;
use super::model::{Ends, Participant, Session};

/// Who spoke, as far as the metadata says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct People {
    pub(super) sessions: Vec<Session>,
    pub(super) participants: Vec<Participant>,
    /// By label.
    pub(super) ends: BTreeMap<String, Ends>,
}

/// Reads the bodies of `rs` in the order in which they came.
pub(super) fn people(_rs: &RsEntry) -> People {
    People::default()
}
