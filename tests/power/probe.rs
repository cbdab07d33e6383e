//! How long a sync takes on a file system, measured beside the product: what "one sync" is in
//! "at most one commit interval and one sync is lost".

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::host::mono;

/// Between two syncs.
const PAUSE: Duration = Duration::from_millis(20);
/// Syncs that ended longer ago than this before the cut do not count, ns.
const RECENT_NS: u64 = 2_000_000_000;

/// See the module. Ends with the first sync that fails, which is the cut.
pub(crate) struct Probe {
    end: Arc<AtomicBool>,
    /// When the running sync began; 0: none runs.
    running: Arc<AtomicU64>,
    /// End and length of those that are over, ns.
    syncs: Arc<Mutex<Vec<(u64, u64)>>>,
}

impl Probe {
    pub(crate) fn start(folder: &Path) -> std::io::Result<Self> {
        let file = File::create(folder.join("probe"))?;
        let (end, running) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let probe = Probe { end: end.clone(), running: running.clone(), syncs: Arc::default() };
        let syncs = probe.syncs.clone();
        std::thread::spawn(move || {
            while !end.load(Ordering::Acquire) {
                let begun = mono();
                running.store(begun, Ordering::Release);
                if file.write_all_at(&[1; 4096], 0).and_then(|()| file.sync_data()).is_err() {
                    return;
                }
                let now = mono();
                syncs.lock().expect("no panic while held").push((now, now - begun));
                running.store(0, Ordering::Release);
                std::thread::sleep(PAUSE);
            }
        });
        Ok(probe)
    }

    /// The longest sync shortly before `at`, the one that was running then included, in ms.
    pub(crate) fn longest_ms(&self, at: u64) -> f64 {
        let running = self.running.load(Ordering::Acquire);
        let running = if running == 0 { 0 } else { at.saturating_sub(running) };
        let syncs = self.syncs.lock().expect("no panic while held");
        let recent = syncs.iter().filter(|(end, _)| end + RECENT_NS > at);
        recent.map(|(_, length)| *length).fold(running, u64::max) as f64 / 1e6
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
    }
}
