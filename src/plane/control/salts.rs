//! Salts of RSs that are over. The spool needs the salt of every stream in a span before it seals
//! it, and a media that dies takes with it what it was told; so control remembers for as long as
//! records may still be in no segment.

use super::actor::Control;
use crate::base::ids::{RsId, StreamId};
use crate::base::time::Mono;

/// Kept at least for this long beyond the longest segment: time for a disk in trouble.
const KEPT_MS: u64 = 2 * 3_600 * 1_000;
/// Kept at most: 2,500 streams in calls of two, renewed each minute, for ten minutes.
const KEPT_MAX: usize = 16_384;

/// What is remembered of one RS.
pub(super) struct OldSalt {
    pub(super) rs: RsId,
    pub(super) salt: [u8; 32],
    pub(super) streams: Vec<StreamId>,
    pub(super) until: Mono,
}

impl Control {
    /// For how long a stream that is over may have records in no segment, ms.
    pub(super) fn salts_kept_ms(&self) -> u64 {
        KEPT_MS + self.config.store.segment_s * 1_000
    }

    /// Remembers the salt of a stream whose RS may be forgotten from now on.
    pub(super) fn keep_salt(&mut self, rs: RsId, salt: [u8; 32], stream: StreamId) {
        let until = self.now.mono.plus_ms(self.salts_kept_ms());
        let kept = self.salts.entry(rs).or_insert_with(|| OldSalt {
            rs,
            salt,
            streams: Vec::new(),
            until,
        });
        if !kept.streams.contains(&stream) {
            kept.streams.push(stream);
        }
        kept.until = until;
        self.salts_due.push_back((until, rs));
        if self.salts.len() > KEPT_MAX {
            self.forget_salts(Some(KEPT_MAX));
        }
    }

    /// Forgets what has had its time, and the oldest beyond `most`.
    pub(super) fn forget_salts(&mut self, most: Option<usize>) {
        while let Some((until, rs)) = self.salts_due.front().copied() {
            let too_many = most.is_some_and(|most| self.salts.len() > most);
            if until > self.now.mono && !too_many {
                return;
            }
            self.salts_due.pop_front();
            // One whose stream was closed later stands there once more.
            if self.salts.get(&rs).is_some_and(|kept| kept.until <= until) {
                self.salts.remove(&rs);
            }
        }
    }
}
