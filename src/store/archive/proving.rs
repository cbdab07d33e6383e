//! Proof on the way: who reads all records of a store anyway holds each extent against what was sealed in the
//! same pass.

use std::collections::BTreeMap;

use crate::base::ids::StreamId;
use crate::store::evidence::{Salt, Signers};
use crate::store::segment::{SegmentName, SegmentReport};

/// What a visit is to prove, and what it found.
pub struct Proving<'a> {
    /// Every byte of a segment that is no extent, too.
    pub whole: bool,
    /// Whose extents.
    pub wants: &'a dyn Fn(StreamId) -> bool,
    /// Salt of a stream's leaves, where it is known.
    pub salt: &'a mut dyn FnMut(StreamId) -> Option<Salt>,
    /// Who may have signed of a segment; `None`: whoever it says.
    pub signers: &'a dyn Fn(SegmentName) -> Option<Signers>,
    /// By segment, of those that were there.
    pub reports: BTreeMap<SegmentName, SegmentReport>,
}
