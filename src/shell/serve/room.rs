//! Room on the disks, looked at by a thread of its own: a disk that hangs makes whoever asks it
//! hang as well, and neither media's command thread nor control may (F14).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::base::time::Mono;
use crate::host::facts;

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A disk that has not answered for this long hangs.
const HANGS: Duration = Duration::from_secs(10);

/// What the last look found.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    free: Result<u64, String>,
}

/// Free bytes of some folders, each disk counted once.
pub(super) struct Room(Arc<Mutex<Look>>);

impl Room {
    /// Looks once, then each second until it is dropped. Folders are counted where they answer.
    pub(super) fn watch(folders: Vec<PathBuf>) -> std::io::Result<Self> {
        let look = Arc::new(Mutex::new(Look { at: Instant::now(), free: look(&folders) }));
        let weak = Arc::downgrade(&look);
        std::thread::Builder::new().name("room".into()).spawn(move || watch(&folders, &weak))?;
        Ok(Room(look))
    }

    /// Free bytes; the words say why they are not known. A disk that hangs is no full disk: what
    /// was free is still free, and the ring's fill decides meanwhile.
    pub(super) fn free(&self) -> Result<u64, String> {
        let look = self.0.lock().map_err(|_| "nobody looks at it".to_owned())?;
        look.free.clone()
    }

    /// Seconds for which the disk has not answered, where it hangs.
    pub(super) fn hangs_s(&self) -> Option<u64> {
        let age = self.0.lock().ok()?.at.elapsed();
        (age > HANGS).then_some(age.as_secs())
    }
}

fn watch(folders: &[PathBuf], look_at: &Weak<Mutex<Look>>) {
    while look_at.strong_count() > 0 {
        std::thread::park_timeout(EVERY);
        let free = look(folders);
        let Some(shared) = look_at.upgrade() else { return };
        if let Ok(mut shared) = shared.lock() {
            *shared = Look { at: Instant::now(), free };
        }
    }
}

fn look(folders: &[PathBuf]) -> Result<u64, String> {
    facts::room_bytes(folders.iter().cloned())
        .map_err(|(folder, error)| format!("{}: {error}", folder.display()))
}

/// Bytes a second, from a counter that is read now and then.
#[derive(Default)]
pub(super) struct Load {
    last: Option<(Mono, u64)>,
    bytes_per_s: u64,
}

impl Load {
    /// Takes the counter; smooths over some ten readings.
    pub(super) fn note(&mut self, now: Mono, count: u64) {
        if let Some((then, before)) = self.last {
            let ms = (now.since(then) / 1_000_000).max(1);
            let rate = count.saturating_sub(before).saturating_mul(1_000) / ms;
            self.bytes_per_s = (self.bytes_per_s * 9 + rate) / 10;
        }
        self.last = Some((now, count));
    }

    /// The load.
    pub(super) const fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f11_a_disk_is_counted_once_and_a_missing_spare_not_at_all() {
        let here = std::env::temp_dir();
        let one = look(std::slice::from_ref(&here)).unwrap();
        let twice = look(&[here.clone(), here.join("."), "/nowhere/at/all".into()]).unwrap();
        assert!(one > 0 && twice < one + one / 2, "{one} {twice}");
    }

    #[test]
    fn a_load_settles_at_what_is_written() {
        let mut load = Load::default();
        for second in 0..60 {
            load.note(Mono(second * 1_000_000_000), second * 5_000);
        }
        assert!((4_800..=5_000).contains(&load.bytes_per_s()), "{}", load.bytes_per_s());
    }
}
