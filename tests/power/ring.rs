//! Copies the rings of a running media as they fill, straight out of keeper's memfds, so that the
//! judge knows every record that the product ever called durable. The offsets are those of
//! `src/plane/handoff/layout.rs`, written again here: the judge's side shares nothing with it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const MAGIC: u64 = u64::from_le_bytes(*b"FTSTATE1");
const AT_MAGIC: u64 = 0;
const AT_RING_BYTES: u64 = 32;
const AT_TAIL: u64 = 128;
const AT_DURABLE: u64 = 256;
const AT_SEALED: u64 = 320;
const AT_COMMIT_SINCE: u64 = 520;
const AT_COMMIT_TOOK: u64 = 528;

/// One worker's memory.
struct Source {
    worker: u32,
    state: File,
    ring: File,
    ring_bytes: u64,
    first: u64,
    at: u64,
    copy: Vec<u8>,
}

/// What is known of one worker when its life is over.
pub(crate) struct Copy {
    pub(crate) worker: u32,
    pub(crate) first: u64,
    pub(crate) durable: u64,
    pub(crate) tail: u64,
    pub(crate) ring_bytes: u64,
    pub(crate) bytes: Vec<u8>,
}

fn word(file: &File, offset: u64) -> u64 {
    // Twice the same: a read of shared memory is no atomic load.
    let one = || {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset).map_or(0, |()| u64::from_le_bytes(bytes))
    };
    let mut before = one();
    loop {
        let now = one();
        if now == before {
            return now;
        }
        before = now;
    }
}

/// Memfds of that name that a process holds: the worker's number and an open file.
fn memfds(pid: u32, part: &str) -> Vec<(u32, File)> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let wanted = format!("/memfd:floortape-{part}-");
    let mut found: Vec<(u32, File)> = Vec::new();
    for entry in entries.flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        let name = target.to_string_lossy();
        let number = name.strip_prefix(&wanted).and_then(|rest| rest.split(' ').next());
        let Some(worker) = number.and_then(|number| number.parse().ok()) else { continue };
        if found.iter().all(|(known, _)| *known != worker)
            && let Ok(file) = File::open(entry.path())
        {
            found.push((worker, file));
        }
    }
    found.sort_by_key(|(worker, _)| *worker);
    found
}

impl Source {
    fn copy_on(&mut self) {
        let tail = word(&self.state, AT_TAIL);
        while self.at < tail {
            let place = self.at % self.ring_bytes;
            let count = (tail - self.at).min(self.ring_bytes - place) as usize;
            let old = self.copy.len();
            self.copy.resize(old + count, 0);
            if self.ring.read_exact_at(&mut self.copy[old..], place).is_err() {
                self.copy.truncate(old);
                return;
            }
            self.at += count as u64;
        }
    }
}

/// Follows the rings in a thread of its own until told to end.
pub(crate) struct Follower {
    end: Arc<AtomicBool>,
    sealed: Arc<AtomicU64>,
    states: Vec<(u32, File)>,
    thread: JoinHandle<Vec<Source>>,
}

impl Follower {
    /// Looks for the memory of `pid`; `None` while it is not there or not made yet.
    pub(crate) fn attach(pid: u32) -> Option<Self> {
        let rings = memfds(pid, "ring");
        let states = memfds(pid, "state");
        if rings.is_empty() || rings.len() != states.len() {
            return None;
        }
        let (mut sources, mut words) = (Vec::new(), Vec::new());
        for ((worker, ring), (_, state)) in rings.into_iter().zip(states) {
            if word(&state, AT_MAGIC) != MAGIC {
                return None;
            }
            let (first, ring_bytes) = (word(&state, AT_SEALED), word(&state, AT_RING_BYTES));
            let copy = Vec::new();
            words.push((worker, state.try_clone().ok()?));
            sources.push(Source { worker, state, ring, ring_bytes, first, at: first, copy });
        }
        let end = Arc::new(AtomicBool::new(false));
        let sealed = Arc::new(AtomicU64::new(0));
        let (ended, seal_mark) = (end.clone(), sealed.clone());
        let thread = std::thread::spawn(move || {
            loop {
                // The last look is after everybody is dead.
                let last = ended.load(Ordering::Acquire);
                for source in &mut sources {
                    source.copy_on();
                }
                if let Some(source) = sources.first() {
                    seal_mark.store(word(&source.state, AT_SEALED), Ordering::Release);
                }
                if last {
                    return sources;
                }
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        Some(Follower { end, sealed, states: words, thread })
    }

    /// How far the first worker had sealed a moment ago.
    pub(crate) fn sealed(&self) -> u64 {
        self.sealed.load(Ordering::Acquire)
    }

    /// The durable marks at this instant, by worker.
    pub(crate) fn durable(&self) -> Vec<(u32, u64)> {
        self.states.iter().map(|(worker, state)| (*worker, word(state, AT_DURABLE))).collect()
    }

    /// What a cut at this instant may take at most, ns, as the spool itself knows its commits: what
    /// came since the last one took its records, which is the interval or, where that one took
    /// longer, as long as that; and what the one under way has taken so far.
    pub(crate) fn exposed(&self, interval_ns: u64, now: u64) -> u64 {
        let states = self.states.iter().map(|(_, state)| {
            let (since, took) = (word(state, AT_COMMIT_SINCE), word(state, AT_COMMIT_TOOK));
            took.max(interval_ns) + if since > 0 { now.saturating_sub(since) } else { 0 }
        });
        states.max().unwrap_or(interval_ns)
    }

    /// The end of this life: call it when the processes are gone.
    pub(crate) fn end(self) -> Vec<Copy> {
        self.end.store(true, Ordering::Release);
        let sources = self.thread.join().expect("it only reads");
        sources
            .into_iter()
            .map(|source| Copy {
                worker: source.worker,
                first: source.first,
                // The mark moves only when a sync has come back, so at death it still holds.
                durable: word(&source.state, AT_DURABLE),
                tail: source.at,
                ring_bytes: source.ring_bytes,
                bytes: source.copy,
            })
            .collect()
    }
}

impl Copy {
    /// Writes what the judge reads.
    pub(crate) fn save(
        &self,
        folder: &Path,
        name: &str,
        cut_ns: Option<u64>,
    ) -> std::io::Result<()> {
        let file = |end: &str| -> PathBuf { folder.join(format!("{name}-w{}.{end}", self.worker)) };
        std::fs::write(file("ring"), &self.bytes)?;
        let said = serde_json::json!({
            "first": self.first, "durable": self.durable, "tail": self.tail,
            "ring_bytes": self.ring_bytes, "cut_ns": cut_ns,
        });
        std::fs::write(file("json"), said.to_string())
    }
}
