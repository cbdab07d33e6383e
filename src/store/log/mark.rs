//! What the journal remembers of a log: a store that holds less than that has lost something, however
//! neat it looks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::ids::{Position, WorkerId};
use crate::base::time::Wall;

/// How far a worker's stream was on disk at an instant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The worker.
    pub worker: WorkerId,
    /// Everything before this position was durable, in the log or in segments.
    pub durable: Position,
    /// Number of the last segment in place; 0: none, as far as was known.
    pub segment: u64,
    /// When it was so.
    pub at: Wall,
}

/// The newest mark of each worker.
pub type Marks = BTreeMap<WorkerId, Mark>;

/// Takes marks into `known`. Neither positions nor numbers ever go back.
pub fn learn_marks(known: &mut Marks, news: &[Mark]) {
    for mark in news {
        let before = known.entry(mark.worker).or_insert(*mark);
        let segment = before.segment.max(mark.segment);
        if mark.durable >= before.durable {
            *before = *mark;
        }
        before.segment = segment;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_never_go_back() {
        let mark = |durable, segment, at| Mark {
            durable: Position(durable),
            segment,
            at: Wall(at),
            ..Mark::default()
        };
        let mut known = Marks::new();
        learn_marks(&mut known, &[mark(8, 2, 1), mark(24, 1, 2), mark(16, 3, 3)]);
        assert_eq!(known.values().copied().collect::<Vec<_>>(), [mark(24, 3, 2)]);
    }
}
