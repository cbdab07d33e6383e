//! The journal: control's append-only memory. Persist before reply.
//!
//! Owned and written by control alone, on control's thread; read by every verb beside a running
//! server. `appliance/docs/format-journal.md` is the format's page. Nothing here holds a clock or a
//! key file: bytes, entropy and disk come in.

pub mod chain;
pub mod check;
pub mod compaction;
pub mod entry;
pub mod file;
pub mod frame;
pub mod history;
pub mod keybox;
pub mod read;
pub mod redaction;
pub mod snapshot;
mod snapshotting;
pub mod standing;

#[cfg(test)]
mod compaction_tests;
#[cfg(test)]
mod file_snapshot_tests;
#[cfg(test)]
pub(crate) mod standing_tests;

pub use chain::{Before, Signer};
pub use check::{FileFault, JournalCheck, Signed, check};
pub use compaction::{Compacted, Compaction};
pub use file::Journal;
pub use keybox::{KeyBox, KeyBoxError};
pub use read::{
    Damage, JournalError, Replay, broken_snapshots, foreign, holds_any, is_signed, marks, read,
    read_durable, read_standing, replay_file, times_around, unwritten,
};
pub(in crate::store) use read::{numbered, read_file, read_whole};
pub use redaction::{Forgetting, forget, in_journal};
pub use snapshotting::{Snapshotting, Written};
pub use standing::Standings;
