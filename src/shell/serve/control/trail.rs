//! What the server itself says in the audit trail, on a thread of its own: which configuration is in force,
//! and who guesses passwords. The same thread looks for the trail's newest entry, whoever wrote it, so that it
//! can be sealed with the recordings.
//!
//! A disk that takes nothing stops neither recordings nor a reload: what there is to say waits and is tried
//! again, which is told as an alarm.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tokio::sync::mpsc::UnboundedSender;

use crate::base::ports::Clock;
use crate::config::model::Config;
use crate::host::audit::{self, Locked};
use crate::host::clock::SystemClock;
use crate::proto::sip::Guessing;
use crate::store::audit::{Act, AuditError, Head, action, folder};

/// How often the newest entry is looked for; no more often it is sealed.
const LOOK: Duration = Duration::from_secs(1);
/// What could not be written is tried again after this.
const RETRY: Duration = Duration::from_secs(10);
/// What waits to be written. Configurations first: who guesses decides how often he does.
const WAITING_MAX: usize = 64;
/// Sources that are recorded for guessing, an hour: as many as anybody reads.
const GUESSING_PER_HOUR: u32 = 60;
const HOUR: Duration = Duration::from_secs(3_600);

/// What there is to say.
pub(super) enum Note {
    /// This is in force.
    Configured(Box<Config>),
    /// A source has to wait.
    Guessing(Guessing),
}

/// The way to the thread. It ends when this is dropped, and what waits is written.
pub(super) struct Trail {
    notes: Option<SyncSender<Note>>,
    thread: Option<JoinHandle<()>>,
}

impl Trail {
    /// Starts it; heads of the trail go to `heads`, each once.
    pub(super) fn start(store: PathBuf, heads: UnboundedSender<Head>) -> io::Result<Self> {
        let (notes, received) = mpsc::sync_channel(WAITING_MAX);
        let mut writer = Writer::new(store);
        let run = move || {
            loop {
                let note = received.recv_timeout(LOOK);
                let over = matches!(note, Err(RecvTimeoutError::Disconnected));
                note.into_iter().for_each(|note| writer.take(note));
                writer.write(over);
                if over {
                    return;
                }
                if let Some(head) = writer.fresh_head() {
                    // Without a receiver control is at its end, and the next one looks for itself.
                    let _ = heads.send(head);
                }
            }
        };
        let thread = Builder::new().name("audit".into()).spawn(run)?;
        Ok(Trail { notes: Some(notes), thread: Some(thread) })
    }

    /// Says something; dropped where too much waits, since nobody may wait for a disk here.
    pub(super) fn say(&self, note: Note) {
        if self.notes.as_ref().is_some_and(|notes| notes.try_send(note).is_err()) {
            tracing::warn!("audit trail: too much waits to be written; something is left out");
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        self.notes = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread knows.
struct Writer {
    store: PathBuf,
    waiting: VecDeque<Note>,
    /// It could not be written: not before.
    retry_at: Option<Instant>,
    failed: bool,
    /// The hour in which guesses are counted, those that were recorded in it, and those that were not.
    hour: (Instant, u32, u64),
    /// The newest file and its size, as they were when the head was looked for.
    seen: Option<(String, u64)>,
    head: Head,
}

impl Writer {
    fn new(store: PathBuf) -> Self {
        Writer {
            store,
            waiting: VecDeque::new(),
            retry_at: None,
            failed: false,
            hour: (Instant::now(), 0, 0),
            seen: None,
            head: Head::default(),
        }
    }

    fn take(&mut self, note: Note) {
        if let Note::Guessing(_) = note {
            if self.hour.0.elapsed() >= HOUR {
                self.hour = (Instant::now(), 0, self.hour.2);
            }
            if self.hour.1 >= GUESSING_PER_HOUR || self.waiting.len() >= WAITING_MAX {
                self.hour.2 += 1;
                return;
            }
            self.hour.1 += 1;
        }
        self.waiting.push_back(note);
    }

    /// Writes what waits. `last`: nobody comes after.
    fn write(&mut self, last: bool) {
        if self.retry_at.is_some_and(|at| Instant::now() < at) && !last {
            return;
        }
        while let Some(note) = self.waiting.front() {
            let written = match note {
                Note::Configured(config) => configured(&self.store, config),
                Note::Guessing(guessing) => guessed(&self.store, guessing, self.hour.2),
            };
            match written {
                Ok(()) => {
                    if let Some(Note::Guessing(_)) = self.waiting.pop_front() {
                        self.hour.2 = 0;
                    }
                    if std::mem::take(&mut self.failed) {
                        tracing::info!("the audit trail can be written again");
                    }
                    self.retry_at = None;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        tracing::error!(
                            "alarm: {error}; nobody can listen, export or control until it can"
                        );
                    }
                    self.retry_at = Some(Instant::now() + RETRY);
                    return;
                }
            }
        }
    }

    /// The newest entry, where it is another one than before and durable.
    fn fresh_head(&mut self) -> Option<Head> {
        let newest = newest_file(&self.store)?;
        if self.seen.as_ref() == Some(&newest) {
            return None;
        }
        // One that is not durable is looked for again.
        let head = audit::head(&self.store).ok().flatten()?;
        self.seen = Some(newest);
        let is_fresh = head.number > 0 && head != self.head;
        self.head = head;
        is_fresh.then_some(head)
    }
}

/// Name and size of the newest file of the trail.
fn newest_file(store: &Path) -> Option<(String, u64)> {
    let names = std::fs::read_dir(folder(store)).ok()?.filter_map(|entry| {
        entry.ok()?.file_name().into_string().ok().filter(|name| name.ends_with(".audit"))
    });
    let name = names.max()?;
    let bytes = std::fs::metadata(folder(store).join(&name)).ok()?.len();
    Some((name, bytes))
}

/// Records the configuration, where it is another one than the last that was recorded: a successor of
/// control has nothing new to say.
fn configured(store: &Path, config: &Config) -> Result<(), AuditError> {
    let version = env!("CARGO_PKG_VERSION");
    let fresh = serde_json::to_value(config).unwrap_or_default();
    let mut trail = Locked::take(store)?;
    let last = trail.newest(|entry| entry.action == action::CONFIGURED)?;
    let mut changed = Map::new();
    if let Some(last) = &last {
        let known = last.detail.get("config").unwrap_or(&Value::Null);
        changed = changes(known, &fresh);
        let before = last.text("version").unwrap_or_default();
        if before != version {
            changed.insert("version".to_owned(), json!({ "from": before, "to": version }));
        }
        if changed.is_empty() {
            return Ok(());
        }
    }
    let act = Act::new(SystemClock.map().wall, audit::ourselves("server"), action::CONFIGURED, "")
        .with("version", version)
        .with("changed", changed)
        .with("config", fresh);
    trail.append(act).map(drop)
}

/// Keys (`table.key`) whose values differ: what they were, and what they are. Secrets are named by paths.
fn changes(known: &Value, fresh: &Value) -> Map<String, Value> {
    let flat = |config: &Value| -> Map<String, Value> {
        let mut flat = Map::new();
        for (table, values) in config.as_object().into_iter().flatten() {
            match values {
                Value::Object(values) => flat.extend(
                    values.iter().map(|(key, value)| (format!("{table}.{key}"), value.clone())),
                ),
                list => drop(flat.insert(table.clone(), list.clone())),
            }
        }
        flat
    };
    let (known, fresh) = (flat(known), flat(fresh));
    let mut changed = Map::new();
    for key in known.keys().chain(fresh.keys()) {
        let (from, to) = (known.get(key), fresh.get(key));
        if from != to {
            changed.insert(key.clone(), json!({ "from": from, "to": to }));
        }
    }
    changed
}

/// Records that a source guesses. `more`: so many others are recorded nowhere.
fn guessed(store: &Path, guessing: &Guessing, more: u64) -> Result<(), AuditError> {
    let who = audit::ourselves("server");
    let source = guessing.source.to_string();
    let mut act = Act::new(SystemClock.map().wall, who, action::GUESSING, source)
        .with("user", guessing.user.clone())
        .with("failures", guessing.failures);
    if more > 0 {
        act = act.with("more", more);
    }
    audit::record(store, act).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::audit::Entry;

    fn store(name: &str) -> PathBuf {
        let store =
            std::env::temp_dir().join(format!("floortape-trail-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&store).expect("a temp folder");
        store
    }

    fn entries(store: &Path, of: &str) -> Vec<Entry> {
        let all = audit::read(store).expect("readable").entries;
        all.into_iter().filter(|entry| entry.action == of).collect()
    }

    #[test]
    fn a_configuration_is_recorded_once_with_what_it_changes() {
        let store = store("configured");
        let mut config = Config::default();
        configured(&store, &config).expect("recorded");
        configured(&store, &config).expect("nothing new");
        let first = entries(&store, action::CONFIGURED);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].detail["config"], serde_json::to_value(&config).expect("JSON"));
        config.media.streams_max += 1;
        config.access.listener = vec![crate::config::access::Principal::Uid(7)];
        configured(&store, &config).expect("recorded");
        let last = entries(&store, action::CONFIGURED).pop().expect("two");
        let wanted = json!({
            "media.streams_max": { "from": config.media.streams_max - 1, "to": config.media.streams_max },
            "access.listener": { "from": [], "to": ["7"] },
        });
        assert_eq!(
            Value::Object(last.detail["changed"].as_object().expect("an object").clone()),
            wanted
        );
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn f56_sources_that_guess_are_recorded_and_no_more_of_them_than_anybody_reads() {
        let store = store("guessing");
        let (heads, _kept) = tokio::sync::mpsc::unbounded_channel();
        let trail = Trail::start(store.clone(), heads).expect("a thread");
        trail.say(Note::Guessing(Guessing {
            source: [192, 0, 2, 9].into(),
            user: "kim".to_owned(),
            failures: 4,
        }));
        drop(trail);
        let said = entries(&store, action::GUESSING);
        assert_eq!(
            (said.len(), &*said[0].object, said[0].text("user")),
            (1, "192.0.2.9", Some("kim"))
        );
        let mut writer = Writer::new(store.clone());
        for failures in 0..200 {
            let source = [192, 0, 2, 1].into();
            writer.take(Note::Guessing(Guessing { source, user: String::new(), failures }));
            writer.write(false);
        }
        assert_eq!(entries(&store, action::GUESSING).len(), 1 + GUESSING_PER_HOUR as usize);
        assert_eq!(writer.hour.2, 200 - u64::from(GUESSING_PER_HOUR));
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn a_head_is_told_once_whoever_wrote_it() {
        let store = store("head");
        let mut writer = Writer::new(store.clone());
        assert_eq!(writer.fresh_head(), None, "no trail yet");
        let act =
            || Act::new(SystemClock.map().wall, audit::ourselves("owner"), action::EXPORT, "r");
        audit::record(&store, act()).expect("recorded");
        let first = writer.fresh_head().expect("two entries");
        assert_eq!(first.number, 2);
        assert_eq!(writer.fresh_head(), None);
        audit::record(&store, act()).expect("recorded");
        assert_eq!(writer.fresh_head().map(|head| head.number), Some(3));
        // A successor says it again.
        assert_eq!(Writer::new(store.clone()).fresh_head().map(|head| head.number), Some(3));
        std::fs::remove_dir_all(store).expect("ours");
    }

    #[test]
    fn f12_what_cannot_be_written_waits_until_it_can() {
        let store = store("waits");
        std::fs::write(folder(&store), "").expect("a file where the folder should be");
        let mut writer = Writer::new(store.clone());
        writer.take(Note::Configured(Box::default()));
        writer.write(false);
        assert!(writer.failed && writer.waiting.len() == 1);
        std::fs::remove_file(folder(&store)).expect("ours");
        writer.write(false);
        assert_eq!(writer.waiting.len(), 1, "not so soon");
        writer.retry_at = None;
        writer.write(false);
        assert!(!writer.failed && writer.waiting.is_empty());
        assert_eq!(entries(&store, action::CONFIGURED).len(), 1);
        std::fs::remove_dir_all(store).expect("ours");
    }
}
