//! The key-encryption key of a running server: it needs it no more, its next start after a reboot does. So
//! keeper looks from time to time whether it is still there (F73).

use crate::base::time::Mono;
use crate::config::model::Store;
use crate::host::unlocked;

/// Between two looks.
const LOOK_MS: u64 = 60_000;

/// What was seen last.
#[derive(Default)]
pub(super) struct KekWatch {
    next: Mono,
    is_gone: bool,
}

impl KekWatch {
    /// Says it once when the key is gone or opens nothing, and once when it is back.
    pub(super) fn look(&mut self, store: &Store, now: Mono) {
        if now < self.next || unlocked::of_store(&store.dir).is_none() {
            return;
        }
        self.next = now.plus_ms(LOOK_MS);
        let seen = unlocked::probe(&store.dir, &store.encryption);
        let was_gone = std::mem::replace(&mut self.is_gone, seen.is_err());
        match seen {
            Err(error) if !was_gone => tracing::error!(
                "alarm: {error}; what runs goes on encrypted, the next start after a reboot will be refused"
            ),
            Ok(_) if was_gone => tracing::info!("the key-encryption key is back"),
            _ => {}
        }
    }
}
