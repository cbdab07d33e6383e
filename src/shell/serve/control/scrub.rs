//! The thread that reads everything that is sealed, again and again, slowly: what a disk has lost is known
//! while it can still be had from elsewhere. Where it is stands in `STORE/evidence/scrub`, so that a start
//! goes on there; that file is derived and vouches for nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::base::ids::StreamId;
use crate::base::time::Wall;
use crate::config::model::Evidence;
use crate::host::{process, signing, spare};
use crate::store::archive::Archive;
use crate::store::catalog::Library;
use crate::store::segment::{Failed, Footer, SegmentName, clock_at, scrub};

/// Read at least so fast while there is something to read.
const BYTES_PER_S_MIN: u64 = 1 << 20;
/// Longest pause at once, so that an end is heard soon.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two passes, and two looks at a store that has nothing new.
const REST: Duration = Duration::from_secs(60);
/// Where it is is noted this often.
const NOTE_AFTER: Duration = Duration::from_secs(60);
/// Extents that are kept by name.
const NAMED_MAX: usize = 1_000;

/// What a monitoring system sees.
#[derive(Clone, Debug, Default)]
pub(super) struct Scrubbed {
    /// Bytes read since the start.
    pub(super) bytes: u64,
    /// Whole passes over the store, ever.
    pub(super) passes: u64,
    /// Extents and segments found damaged.
    pub(super) damaged: u64,
}

/// Shared with the thread: what it found, and whether the disk is behind.
#[derive(Clone, Default)]
pub(super) struct Shared {
    pub(super) found: Arc<Mutex<Scrubbed>>,
    pub(super) lags: Arc<AtomicBool>,
}

/// `STORE/evidence/scrub`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Noted {
    passes: u64,
    /// The last segment that was read of this pass, by worker.
    through: BTreeMap<u16, u64>,
    damaged: BTreeSet<Named>,
}

/// Damage, as it was told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Named {
    segment: String,
    offset: u64,
    text: String,
}

/// Starts the thread; it ends soon after the sender is gone.
pub(super) fn spawn(
    (store, journal): (PathBuf, PathBuf),
    evidence: &Evidence,
    shared: Shared,
) -> io::Result<(Sender<()>, JoinHandle<()>)> {
    let (sender, ends) = channel();
    let (days, mib_s) = (u64::from(evidence.scrub_days), u64::from(evidence.scrub_mib_s));
    let noted = std::fs::read(path(&store)).ok();
    let noted = noted.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let mut scrub =
        Scrub { store, journal, days, mib_s, shared, noted, ends, noted_at: Instant::now() };
    let thread = std::thread::Builder::new().name("scrub".into()).spawn(move || {
        process::give_way();
        process::give_way_on_disk();
        if days > 0 {
            while scrub.pass() {}
            scrub.note();
        }
    })?;
    Ok((sender, thread))
}

fn path(store: &Path) -> PathBuf {
    store.join("evidence").join("scrub")
}

struct Scrub {
    store: PathBuf,
    journal: PathBuf,
    days: u64,
    mib_s: u64,
    shared: Shared,
    noted: Noted,
    ends: Receiver<()>,
    noted_at: Instant,
}

impl Scrub {
    /// One time through the store, from where it was. False: it is over.
    fn pass(&mut self) -> bool {
        if !self.rest(REST) {
            return false;
        }
        let archive = Archive::open(spare::places(&self.store, &self.journal), &self.store);
        let Ok(names) = archive.segments() else { return true };
        let size =
            |name: &SegmentName| std::fs::metadata(archive.path(*name)).map_or(0, |of| of.len());
        let whole: u64 = names.iter().map(size).sum();
        let pace = (whole / (self.days * 86_400)).clamp(BYTES_PER_S_MIN, self.mib_s << 20);
        for name in names {
            if self.noted.through.get(&name.worker.0).is_some_and(|done| name.number <= *done) {
                continue;
            }
            if !self.segment(&archive, name, pace) {
                return false;
            }
            self.noted.through.insert(name.worker.0, name.number);
            if self.noted_at.elapsed() >= NOTE_AFTER {
                self.note();
            }
        }
        self.noted.passes += 1;
        self.noted.through.clear();
        self.note();
        true
    }

    /// False: it is over.
    fn segment(
        &mut self,
        archive: &Archive<spare::StoreDisk>,
        name: SegmentName,
        pace: u64,
    ) -> bool {
        let (footer, gone) = match archive.rows_left(name) {
            Ok(found) => found,
            Err(error) => {
                // It may have gone since it was listed.
                if archive.segments().is_ok_and(|names| names.contains(&name)) {
                    self.found(name, 0, format!("segment {}: {error}", name.file()));
                }
                return true;
            }
        };
        let wrong = archive.key_faults(name, &footer);
        for why in &wrong {
            self.found(name, 0, format!("segment {}: {why}", name.file()));
        }
        let Ok(file) = archive.segment_file(name) else { return true };
        let began = Instant::now();
        let (mut read, mut over) = (0, false);
        let failed = {
            let (shared, ends) = (&self.shared, &self.ends);
            scrub(&file, &footer, &gone, &mut |bytes| {
                read += bytes;
                shared.found.lock().expect("nobody panics with it").bytes += bytes;
                over = !keep_pace(began, read, pace, &shared.lags, ends);
                !over
            })
        };
        for Failed { row, why } in failed.iter().flatten() {
            let text = self.name_it(&footer, name, row.source.stream(), row, why);
            self.found(name, row.offset, text);
        }
        if wrong.is_empty() && failed.as_ref().is_some_and(Vec::is_empty) {
            // Put back from a copy: it is sound again.
            let file = name.file();
            self.noted.damaged.retain(|named| named.segment != file);
        }
        self.tell();
        !over
    }

    /// Whose records they are, and of which second.
    fn name_it(
        &self,
        footer: &Footer,
        name: SegmentName,
        stream: StreamId,
        row: &crate::store::segment::Row,
        why: &str,
    ) -> String {
        let wall = |mono| clock_at(&footer.clocks, mono).wall(mono);
        let (from, to): (Wall, Wall) = (wall(row.first_arrival), wall(row.last_arrival));
        let places = spare::places(&self.store, &self.journal);
        let library = Library::open(places, &self.store, &self.journal, None).ok();
        let owner = library.as_ref().and_then(|library| {
            let known = &library.journalled().ok()?.recordings;
            known.values().find(|rs| rs.streams.contains_key(&stream)).map(|rs| rs.id.to_string())
        });
        let owner = match owner {
            Some(id) => format!("recording {id}"),
            None if stream.is_host() => "the recorder's own events".to_owned(),
            None => "no recording that the journal knows".to_owned(),
        };
        let (file, id) = (name.file(), stream.0);
        format!("{owner}, stream {id}, {from} to {to}, in segment {file}: {why}")
    }

    fn found(&mut self, name: SegmentName, offset: u64, text: String) {
        let named = Named { segment: name.file(), offset, text };
        if self.noted.damaged.len() < NAMED_MAX && self.noted.damaged.insert(named.clone()) {
            tracing::error!("alarm: damage found by reading: {}", named.text);
            self.note();
        }
        self.tell();
    }

    fn tell(&self) {
        let mut found = self.shared.found.lock().expect("nobody panics with it");
        (found.passes, found.damaged) = (self.noted.passes, self.noted.damaged.len() as u64);
    }

    fn note(&mut self) {
        self.noted_at = Instant::now();
        self.tell();
        let bytes = serde_json::to_vec(&self.noted).expect("nothing in it that JSON cannot");
        // A pass that begins anew costs time and nothing else.
        let _ = signing::put(&self.store, &path(&self.store), &bytes);
    }

    fn rest(&self, length: Duration) -> bool {
        !matches!(self.ends.recv_timeout(length), Err(RecvTimeoutError::Disconnected))
    }
}

/// Waits until no more has been read than may be by now, and while the disk is behind with what is
/// recorded (F25). False: it is over.
fn keep_pace(began: Instant, read: u64, pace: u64, lags: &AtomicBool, ends: &Receiver<()>) -> bool {
    let due = began + Duration::from_secs_f64(read as f64 / pace as f64);
    loop {
        let left = due.saturating_duration_since(Instant::now());
        let lagging = lags.load(Ordering::Relaxed);
        if left.is_zero() && !lagging {
            return true;
        }
        let pause = if lagging { PAUSE } else { left.min(PAUSE) };
        if ends.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::WorkerId;
    use crate::shell::cmd::fixture::{Fixture, RS};

    fn scrub(fixture: &Fixture) -> (Scrub, Sender<()>) {
        let (sender, ends) = channel();
        let store = fixture.store();
        let journal = store.join("journal");
        let (shared, noted) = (Shared::default(), Noted::default());
        let noted_at = Instant::now();
        let scrub = Scrub { store, journal, days: 7, mib_s: 100, shared, noted, ends, noted_at };
        (scrub, sender)
    }

    fn read(scrub: &mut Scrub) -> bool {
        let archive = Archive::open(spare::places(&scrub.store, &scrub.journal), &scrub.store);
        let name = SegmentName { worker: WorkerId(0), number: 1 };
        scrub.segment(&archive, name, u64::MAX)
    }

    #[test]
    fn every_flipped_byte_of_an_extent_is_found_and_named_once() {
        let fixture = Fixture::new("scrub");
        let sound = std::fs::read(fixture.segment()).expect("there");
        let (mut scrub, _sender) = scrub(&fixture);
        assert!(read(&mut scrub));
        assert_eq!(scrub.noted.damaged.len(), 0);
        assert!(scrub.shared.found.lock().expect("ours").bytes > 30_000);
        // The records of the first line, well behind its header.
        for at in [5_000, 9_000, 20_000] {
            let mut bad = sound.clone();
            bad[at] ^= 1;
            std::fs::write(fixture.segment(), bad).expect("ours");
            assert!(read(&mut scrub) && read(&mut scrub));
            let [named] = &scrub.noted.damaged.iter().collect::<Vec<_>>()[..] else {
                panic!("one extent at byte {at}: {:?}", scrub.noted.damaged)
            };
            let id = RS.to_string();
            let told = &named.text;
            assert!(told.starts_with(&format!("recording {id}, stream ")), "{told}");
            assert!(told.contains("Z to 2026-") && told.contains("w0-0000000001.seg"), "{told}");
            assert_eq!(scrub.shared.found.lock().expect("ours").damaged, 1);
            // Put back.
            std::fs::write(fixture.segment(), &sound).expect("ours");
            assert!(read(&mut scrub));
            assert_eq!(scrub.noted.damaged.len(), 0);
        }
        // The footer.
        let mut bad = sound.clone();
        let at = bad.len() - 600;
        bad[at] ^= 1;
        bad[sound.len() - 100] ^= 1;
        std::fs::write(fixture.segment(), bad).expect("ours");
        assert!(read(&mut scrub));
        assert!(scrub.noted.damaged.iter().any(|named| named.offset == 0));
    }

    #[test]
    fn it_ends_when_it_is_told_to_and_waits_while_the_disk_is_behind() {
        let (sender, ends) = channel();
        let lags = AtomicBool::new(false);
        let began = Instant::now();
        assert!(keep_pace(began, 1 << 20, 100 << 20, &lags, &ends));
        assert!(began.elapsed() >= Duration::from_millis(9));
        lags.store(true, Ordering::Relaxed);
        drop(sender);
        assert!(!keep_pace(began, 0, 1, &lags, &ends));
    }
}
