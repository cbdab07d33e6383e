//! Reading recordings for those who cannot read the store's files: the server runs the same verb for them, in a
//! process of its own that stands back behind all recording, with their own descriptors for what it says. What
//! they ask for is typed, never words of a command line.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::estate;
use super::keeping::Keeping;
use super::tapping::{self, Rings, Taps};
use crate::base::ids::RsId;
use crate::base::time::Wall;
use crate::config::access::Right;
use crate::config::model::Config;
use crate::config::reserve_shortfall;
use crate::host::door::Peer;
use crate::host::facts;
use crate::host::seqpacket::SeqPacket;
use crate::host::{unlocked, volume};
use crate::plane::handoff::frame::WireStoreKey;
use crate::shell::access::{self, Answer, Asker, Wish};
use crate::shell::exit::Exit;
use crate::store::audit::action;
use crate::store::query::Moment;

/// `argv[0]` of the process that reads.
pub(crate) const NAME: &str = "floortape-reader";
/// Readers at once, over all and of one user: each reads from the disk that is recorded to.
const READERS_MAX: usize = 4;
const READERS_OF_ONE: usize = 2;
/// A reader that takes longer is ended: an export of a day of 30 lines takes some minutes.
const READ_WAIT: Duration = Duration::from_secs(3_600);
const PAUSE: Duration = Duration::from_millis(20);
/// How often the disk's room is looked at while somebody exports.
const ROOM_LOOK: Duration = Duration::from_secs(1);
/// What an export is made in, below the folder of the sockets.
const EXPORTS: &str = "export-";

/// What somebody wants to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Read {
    /// `ls`.
    Ls {
        json: bool,
        live: bool,
        own: bool,
        #[serde(default)]
        tz: Option<String>,
    },
    /// `search QUERY`.
    Search(Box<Sought>),
    /// `show ID`.
    Show {
        id: RsId,
        json: bool,
        #[serde(default)]
        tz: Option<String>,
    },
    /// `show --session TEXT`.
    ShowSession {
        session: String,
        json: bool,
        #[serde(default)]
        tz: Option<String>,
    },
    /// `verify ID`.
    Verify { id: RsId, complete: bool, json: bool },
    /// `export ID`: a tar stream.
    Export {
        id: RsId,
        from: Option<Moment>,
        to: Option<Moment>,
        session: Option<String>,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        streams: Vec<String>,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        mono: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pack: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        tones: bool,
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        dry_run: bool,
        format: Format,
        reason: Option<String>,
    },
    /// `play ID`: a WAV.
    Play {
        id: RsId,
        from: Option<Moment>,
        to: Option<Moment>,
        stream: Vec<String>,
        party: Option<String>,
        reason: Option<String>,
    },
    /// `peaks ID`.
    Peaks {
        id: RsId,
        from: Option<Moment>,
        to: Option<Moment>,
        stream: Vec<String>,
        points: u32,
        json: bool,
        tz: Option<String>,
        reason: Option<String>,
    },
    /// `tap ID`.
    Tap {
        id: RsId,
        from: Option<Moment>,
        stream: Vec<String>,
        party: Option<String>,
        format: TapFormat,
        resume: Option<String>,
        reason: Option<String>,
    },
    /// `hold` and `retention`.
    Keep(Box<Keeping>),
    /// `audit`.
    Audit { json: bool, since: Option<Wall>, action: Option<String>, of: Option<String> },
}

/// What somebody searches for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sought {
    pub(crate) query: String,
    pub(crate) json: bool,
    pub(crate) count: bool,
    pub(crate) oldest: bool,
    pub(crate) own: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) after: Option<String>,
    pub(crate) tz: Option<String>,
}

/// Formats of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Wav,
    Rtp,
    Pcapng,
}

/// What a tap gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TapFormat {
    Wav,
    Raw,
    Jsonl,
}

impl TapFormat {
    const fn name(self) -> &'static str {
        match self {
            TapFormat::Wav => "wav",
            TapFormat::Raw => "raw",
            TapFormat::Jsonl => "jsonl",
        }
    }
}

impl Format {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Format::Wav => "wav",
            Format::Rtp => "rtp",
            Format::Pcapng => "pcapng",
        }
    }
}

/// What a reader is told to do.
#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    pub(crate) store: PathBuf,
    pub(crate) read: Read,
    /// Where it makes an export; gone when it has ended.
    pub(crate) folder: Option<PathBuf>,
    /// Its entry in the audit trail.
    pub(crate) entry: u64,
    /// Of an encrypted store: its volume id and its keys.
    pub(crate) keys: Option<([u8; 16], Vec<WireStoreKey>)>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// It ended so; what it had to say it has said.
    Exited(u8),
    /// There is no such thing.
    Missing(String),
    /// It may not be done.
    Refused(String),
    /// It was not done, or not to its end.
    Failed(String),
    /// Too many read already.
    Busy,
}

impl Read {
    const fn right(&self) -> Right {
        match self {
            Read::Ls { .. } | Read::Search(_) | Read::Show { .. } | Read::ShowSession { .. } => {
                Right::See
            }
            Read::Verify { .. } => Right::Verify,
            Read::Export { dry_run: true, .. } => Right::See,
            Read::Export { .. } | Read::Play { .. } | Read::Peaks { .. } | Read::Tap { .. } => {
                Right::Hear
            }
            Read::Keep(_) => Right::Keep,
            Read::Audit { .. } => Right::Trail,
        }
    }

    /// What the audit trail says of it.
    fn wish(&self) -> Result<Wish, String> {
        let read = |verb: &str, object: String| {
            Wish::new(action::READ, object).with("verb", Some(verb.to_owned()))
        };
        Ok(match self {
            Read::Ls { .. } => read("ls", String::new()),
            Read::Search(sought) => {
                read("search", String::new()).with("search", Some(sought.query.clone()))
            }
            Read::Show { id, .. } => read("show", id.to_string()),
            Read::ShowSession { session, .. } => {
                read("show", String::new()).with("session", Some(session.clone()))
            }
            Read::Verify { id, .. } => read("verify", id.to_string()),
            Read::Export { id, dry_run: true, .. } => read("export --dry-run", id.to_string()),
            Read::Export { id, from, to, session, streams, format, reason, .. } => {
                Wish::new(action::EXPORT, id.to_string())
                    .because(reason.clone())
                    .with("format", Some(format.name()))
                    .with("from", from.map(|from| from.to_string()))
                    .with("to", to.map(|to| to.to_string()))
                    .with("session", session.clone())
                    .with("streams", (!streams.is_empty()).then(|| streams.join(", ")))
                    .with("by", Some("server"))
            }
            Read::Play { id, from, to, stream, party, reason } => {
                Wish::new(action::LISTEN, id.to_string())
                    .because(reason.clone())
                    .with("verb", Some("play"))
                    .with("from", from.map(|from| from.to_string()))
                    .with("to", to.map(|to| to.to_string()))
                    .with("stream", (!stream.is_empty()).then(|| stream.clone()))
                    .with("party", party.clone())
                    .with("by", Some("server"))
            }
            Read::Peaks { id, from, to, stream, reason, .. } => read("peaks", id.to_string())
                .because(reason.clone())
                .with("from", from.map(|from| from.to_string()))
                .with("to", to.map(|to| to.to_string()))
                .with("stream", (!stream.is_empty()).then(|| stream.clone()))
                .with("by", Some("server")),
            Read::Tap { id, from, stream, party, format, resume, reason } => {
                Wish::new(action::LISTEN, id.to_string())
                    .because(reason.clone())
                    .with("verb", Some("tap"))
                    .with("format", Some(format.name()))
                    .with("from", from.map(|from| from.to_string()))
                    .with("stream", (!stream.is_empty()).then(|| stream.clone()))
                    .with("party", party.clone())
                    .with("resumed", resume.is_some().then_some(true))
            }
            Read::Keep(asked) => asked.wish()?,
            Read::Audit { .. } => Wish::new(action::AUDIT, String::new()),
        })
    }

    /// The verb's words. Each value is one word, behind its key and a `=`, and can be nothing else.
    pub(crate) fn words(&self, store: &Path, folder: Option<&Path>) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["floortape".into()];
        let mut tail = Vec::new();
        let flag = |words: &mut Vec<OsString>, on: bool, name: &str| {
            words.extend(on.then(|| name.into()));
        };
        let value = |words: &mut Vec<OsString>, key: &str, value: Option<String>| {
            words.extend(value.map(|value| format!("--{key}={value}").into()));
        };
        match self {
            Read::Ls { json, live, own, tz } => {
                words.push("ls".into());
                flag(&mut words, *json, "--json");
                flag(&mut words, *live, "--live");
                flag(&mut words, *own, "--own");
                value(&mut words, "tz", tz.clone());
            }
            Read::Search(sought) => {
                let Sought { query, json, count, oldest, own, limit, after, tz } = &**sought;
                words.push("search".into());
                flag(&mut words, *json, "--json");
                flag(&mut words, *count, "--count");
                flag(&mut words, *oldest, "--oldest");
                flag(&mut words, *own, "--own");
                value(&mut words, "limit", limit.map(|limit| limit.to_string()));
                value(&mut words, "after", after.clone());
                value(&mut words, "tz", tz.clone());
                value(&mut words, "query", Some(query.clone()));
            }
            Read::Show { id, json, tz } => {
                words.extend(["show".into(), id.to_string().into()]);
                flag(&mut words, *json, "--json");
                value(&mut words, "tz", tz.clone());
            }
            Read::ShowSession { session, json, tz } => {
                words.push("show".into());
                value(&mut words, "session", Some(session.clone()));
                flag(&mut words, *json, "--json");
                value(&mut words, "tz", tz.clone());
            }
            Read::Verify { id, complete, json } => {
                words.extend(["verify".into(), id.to_string().into()]);
                flag(&mut words, *complete, "--complete");
                flag(&mut words, *json, "--json");
            }
            Read::Export {
                id,
                from,
                to,
                session,
                streams,
                mono,
                pack,
                tones,
                dry_run,
                format,
                reason: _,
            } => {
                words.extend(["export".into(), id.to_string().into()]);
                words.extend(folder.into_iter().flat_map(|folder| ["-o".into(), folder.into()]));
                value(&mut words, "from", from.map(|from| from.to_string()));
                value(&mut words, "to", to.map(|to| to.to_string()));
                value(&mut words, "session", session.clone());
                for label in streams {
                    value(&mut words, "stream", Some(label.clone()));
                }
                flag(&mut words, *mono, "--mono");
                flag(&mut words, *pack, "--pack");
                flag(&mut words, *tones, "--tones");
                flag(&mut words, *dry_run, "--dry-run");
                value(&mut words, "format", Some(format.name().to_owned()));
            }
            Read::Play { id, from, to, stream, party, reason: _ } => {
                words.extend(["play".into(), id.to_string().into()]);
                value(&mut words, "from", from.map(|from| from.to_string()));
                value(&mut words, "to", to.map(|to| to.to_string()));
                for label in stream {
                    value(&mut words, "stream", Some(label.clone()));
                }
                value(&mut words, "party", party.clone());
            }
            Read::Peaks { id, from, to, stream, points, json, tz, reason: _ } => {
                words.extend(["peaks".into(), id.to_string().into()]);
                value(&mut words, "from", from.map(|from| from.to_string()));
                value(&mut words, "to", to.map(|to| to.to_string()));
                for label in stream {
                    value(&mut words, "stream", Some(label.clone()));
                }
                value(&mut words, "points", Some(points.to_string()));
                flag(&mut words, *json, "--json");
                value(&mut words, "tz", tz.clone());
            }
            // Never a verb of a reader's command line: see `tapping`.
            Read::Tap { id, .. } => words.extend(["tap".into(), id.to_string().into()]),
            Read::Keep(asked) => {
                let (own, last) = asked.words();
                words.extend(own);
                tail = last;
            }
            Read::Audit { json, since, action, of } => {
                words.push("audit".into());
                flag(&mut words, *json, "--json");
                value(&mut words, "since", since.map(|since| since.to_string()));
                value(&mut words, "action", action.clone());
                value(&mut words, "of", of.clone());
            }
        }
        let mut at = OsString::from("--store=");
        at.push(store);
        words.push(at);
        if !tail.is_empty() {
            words.push("--".into());
            words.extend(tail);
        }
        words
    }
}

/// What all threads that serve verbs share.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) readers: Readers,
    pub(super) taps: Taps,
    pub(super) rings: Rings,
}

/// Who reads at present.
#[derive(Clone, Default)]
pub(super) struct Readers(Arc<Mutex<HashMap<u32, usize>>>);

/// A place among them, given back when dropped.
struct Seat<'a> {
    readers: &'a Readers,
    uid: u32,
}

impl Readers {
    fn sit(&self, uid: u32) -> Option<Seat<'_>> {
        let mut all = self.0.lock().expect("nobody panics with it");
        let own = all.get(&uid).copied().unwrap_or(0);
        if own >= READERS_OF_ONE || all.values().sum::<usize>() >= READERS_MAX {
            return None;
        }
        all.insert(uid, own + 1);
        Some(Seat { readers: self, uid })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut all = self.readers.0.lock().expect("nobody panics with it");
        if let Some(count) = all.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.uid);
            }
        }
    }
}

/// What a refusal is told to, besides whoever asked.
pub(super) type Refused<'a> = &'a dyn Fn();

/// Records the wish and has it done, or records that it is refused. `fds`: where it says what it has to say,
/// and what went wrong.
pub(super) fn serve(
    Shared { config, readers, taps, rings }: &Shared,
    socket: &SeqPacket,
    peer: Peer,
    read: Read,
    fds: Vec<OwnedFd>,
    refused: Refused<'_>,
) -> Reply {
    let Ok([out, errors]) = <[OwnedFd; 2]>::try_from(fds) else {
        return Reply::Failed("expected two descriptors beside the request".to_owned());
    };
    // What is heard takes as long as it takes.
    let is_tap = matches!(read, Read::Tap { .. });
    let is_long = is_tap || matches!(read, Read::Play { .. });
    let seat = (!is_long).then(|| readers.sit(peer.uid)).flatten();
    let tap_seat = is_long.then(|| taps.sit(peer.uid)).flatten();
    if seat.is_none() && tap_seat.is_none() {
        return Reply::Busy;
    }
    let store = &config.store.dir;
    let asker = Asker { uid: peer.uid, pid: peer.pid };
    if let Read::Keep(asked) = &read {
        match asked.stopped(store, asker) {
            Ok(None) => {}
            Ok(Some(reply)) => {
                refused_by(&reply, refused);
                return reply;
            }
            Err(error) => return Reply::Failed(error.to_string()),
        }
    }
    let wish = match read.wish() {
        Ok(wish) => wish,
        Err(why) => return Reply::Failed(why),
    };
    let entry = match access::ask(store, asker, read.right(), wish) {
        Ok(Answer::Allowed(entry)) => entry,
        Ok(Answer::Refused(why)) => {
            refused();
            return Reply::Refused(why);
        }
        Err(error) => {
            return Reply::Failed(format!("not done, because it cannot be recorded: {error}"));
        }
    };
    if matches!(&read, Read::Keep(asked) if asked.is_done_by_entry()) {
        return Reply::Exited(Exit::Yes as u8);
    }
    let done = if is_tap {
        let task = task(store, read, None, entry.number);
        tapping::serve(rings, socket, task, entry.clone(), [out, errors])
    } else {
        run(config, socket, (read, entry.number), [out, errors])
    };
    let ended = done.unwrap_or_else(|error| {
        Reply::Failed(format!("the server cannot read for others: {error}"))
    });
    if let Reply::Failed(why) = &ended {
        let failed = access::failed(store, &entry, why);
        failed.unwrap_or_else(|error| tracing::error!("{error}"));
    }
    ended
}

/// Counts a reply that is a refusal.
fn refused_by(reply: &Reply, refused: Refused<'_>) {
    if let Reply::Refused(_) = reply {
        refused();
    }
}

fn task(store: &Path, read: Read, folder: Option<PathBuf>, entry: u64) -> Task {
    let keys = unlocked::of_store(store)
        .map(|unlocked| (unlocked.volume, unlocked.keys.iter().map(WireStoreKey::new).collect()));
    Task { store: store.to_owned(), read, folder, entry, keys }
}

fn run(
    config: &Config,
    socket: &SeqPacket,
    (read, entry): (Read, u64),
    [out, errors]: [OwnedFd; 2],
) -> io::Result<Reply> {
    let store = config.store.dir.clone();
    let room = match read {
        Read::Export { dry_run: false, .. } => Some(Room::make(&store)?),
        _ => None,
    };
    let folder = room.as_ref().map(|room| room.0.clone());
    let limit = (!matches!(read, Read::Play { .. })).then_some(READ_WAIT);
    let task = Zeroizing::new(serde_json::to_vec(&task(&store, read, folder, entry))?);
    // Nothing of our environment is the reader's business.
    let mut child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(out)
        .stderr(errors)
        .spawn()?;
    let told = child.stdin.take().expect("piped").write_all(&task);
    let reply = wait(config, &mut child, socket, room.as_ref(), limit);
    // Whatever came of it, nothing of it goes on.
    let _ = child.kill();
    let status = child.wait()?;
    told?;
    Ok(match reply {
        Some(reply) => reply,
        None => match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) => Reply::Exited(code),
            None => Reply::Failed(format!("the reader ended by {status}")),
        },
    })
}

/// Waits for its end; a reply where it must not go on.
fn wait(
    config: &Config,
    child: &mut Child,
    socket: &SeqPacket,
    room: Option<&Room>,
    limit: Option<Duration>,
) -> Option<Reply> {
    let memory = facts::memory_free().unwrap_or(0) / MEMORY_PARTS;
    let began = Instant::now();
    let mut look_at = Instant::now();
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return None;
        }
        // Who asked has gone: nothing else is ever sent.
        if !matches!(socket.try_recv(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
        {
            return Some(Reply::Failed("whoever asked for it has gone".to_owned()));
        }
        let now = Instant::now();
        if let Some(limit) = limit.filter(|limit| began.elapsed() >= *limit) {
            let limit_s = limit.as_secs();
            return Some(Reply::Failed(format!("it took longer than {limit_s} s and was ended")));
        }
        if let Some(Room(folder)) = room
            && now >= look_at
        {
            look_at = now + ROOM_LOOK;
            if folder.starts_with(IN_MEMORY) && bytes_below(folder) > memory {
                let why = "it is longer than what may stand in memory; cut it by --from and --to, or \
                           export where the key is";
                return Some(Reply::Failed(why.to_owned()));
            }
            let free = facts::disk_free_bytes(&config.store.dir).ok();
            if let Some(why) = free.and_then(|free| reserve_shortfall(config, free)) {
                return Some(Reply::Failed(format!("ended for want of room to export in: {why}")));
            }
        }
        std::thread::sleep(PAUSE);
    }
}

/// A file system in memory: nothing that stands there in clear is ever on a disk.
const IN_MEMORY: &str = "/dev/shm";
/// Of an encrypted store an export takes at most this part of the memory that is free.
const MEMORY_PARTS: u64 = 4;

/// A folder for one export; it goes away with this. On the store's disk, but of an encrypted store in memory.
struct Room(PathBuf);

impl Room {
    fn make(store: &Path) -> io::Result<Self> {
        let encrypted = unlocked::of_store(store).is_some();
        let above = if encrypted { memory_of(store)? } else { estate::make_folder(store)? };
        for number in 0..1_000_u32 {
            let folder = above.join(format!("{EXPORTS}{number}"));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Room(folder)),
            }
        }
        Err(io::Error::other("no free name for a folder"))
    }
}

/// Where the exports of an encrypted store are made, for our own user only.
fn memory_of(store: &Path) -> io::Result<PathBuf> {
    let id = volume::read(store).map_err(io::Error::other)?.id;
    let folder = Path::new(IN_MEMORY).join(format!("floortape-{id}"));
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map(|()| folder),
    }
    // Others may write there, too: one that was not made by us is not ours.
    let found = std::fs::symlink_metadata(&folder)?;
    let is_ours = found.is_dir()
        && found.uid() == rustix::process::geteuid().as_raw()
        && found.mode() & 0o077 == 0;
    let foreign = || io::Error::other(format!("{} is somebody else's", folder.display()));
    if is_ours { Ok(folder) } else { Err(foreign()) }
}

/// Bytes of all files below `folder`.
fn bytes_below(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("{}: {error}", self.0.display());
        }
    }
}

/// Removes what a predecessor that was killed has left of exports; its readers died with it.
pub(super) fn sweep(store: &Path) {
    if unlocked::of_store(store).is_some() {
        let swept = memory_of(store).and_then(std::fs::remove_dir_all);
        swept.unwrap_or_else(|error| tracing::warn!("exports in {IN_MEMORY}: {error}"));
    }
    for entry in std::fs::read_dir(estate::folder(store)).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(EXPORTS));
        if is_ours && let Err(error) = std::fs::remove_dir_all(entry.path()) {
            tracing::warn!("{}: {error}", entry.path().display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_one_user_and_four_of_all_read_at_once() {
        let readers = Readers::default();
        let (first, second) = (readers.sit(1), readers.sit(1));
        assert!(first.is_some() && second.is_some() && readers.sit(1).is_none());
        let others = (readers.sit(2), readers.sit(3));
        assert!(others.0.is_some() && others.1.is_some() && readers.sit(4).is_none());
        drop(first);
        assert!(readers.sit(1).is_some());
        drop((second, others));
        assert!(readers.0.lock().unwrap().is_empty());
    }

    #[test]
    fn no_text_becomes_another_word_of_the_command_line() {
        let read = Read::Audit {
            json: false,
            since: None,
            action: Some("--json --of=x".to_owned()),
            of: Some("-c /etc/shadow".to_owned()),
        };
        let words = read.words(Path::new("/store"), None);
        let wanted = [
            "floortape",
            "audit",
            "--action=--json --of=x",
            "--of=-c /etc/shadow",
            "--store=/store",
        ];
        assert_eq!(words, wanted);
    }

    #[test]
    fn requests_with_other_fields_are_not_taken() {
        let good = r#"{"ls":{"json":true,"live":false,"own":false}}"#;
        assert!(serde_json::from_str::<Read>(good).is_ok());
        for bad in [
            r#"{"ls":{"json":true,"live":false,"own":false,"store":"/etc"}}"#,
            r#"{"show":{"id":"../../etc","json":true}}"#,
            r#"{"serve":{}}"#,
            r#"{"export":{"id":"","from":null,"to":null,"session":null,"format":"wav","reason":null}}"#,
        ] {
            assert!(serde_json::from_str::<Read>(bad).is_err(), "{bad}");
        }
    }
}
