//! Taps: the server hands a process of its own the rings, to look at and nothing else, and somebody's standard
//! output. It reads at its own pace; one that stands still costs nobody but whoever reads of it.
//!
//! ```text
//! verb thread of control ── seqpacket: task, rings ──► floortape-reader ──► the asker's standard output
//!         │ waits, notes the end                              │
//!         └────────────── the asker's connection ─────────────┘ goes along: a tap outlives its control
//! ```

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::link::WorkerMemory;
use super::reading::{NAME, Reply, Task};
use crate::base::ids::WorkerId;
use crate::base::limits::FRAME_BYTES_MAX;
use crate::host::mapped::reopen_to_look;
use crate::host::ringview::RingView;
use crate::host::seqpacket::{self, SeqPacket};
use crate::plane::handoff::layout::Geometry;
use crate::shell::access;
use crate::store::audit::Entry;

/// Taps at once, over all and of one user. Each reads what all workers write: at 4,000 streams some 40 MB/s of
/// memory, and a hundredth of a core.
const TAPS_MAX: usize = 8;
const TAPS_OF_ONE: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);
/// One that is asked to end does so between two writes.
const END_WAIT: Duration = Duration::from_secs(2);

/// The rings, by descriptors through which nobody can write.
#[derive(Default)]
pub(super) struct Rings(Vec<Ring>);

struct Ring {
    worker: WorkerId,
    geometry: Geometry,
    state: OwnedFd,
    ring: OwnedFd,
}

impl Rings {
    /// Of the memory that control holds.
    pub(super) fn of(workers: &[WorkerMemory]) -> io::Result<Self> {
        let look = |memory: &WorkerMemory| {
            Ok(Ring {
                worker: memory.worker,
                geometry: memory.geometry,
                state: reopen_to_look(memory.state.as_fd())?,
                ring: reopen_to_look(memory.ring.as_fd())?,
            })
        };
        workers.iter().map(look).collect::<io::Result<_>>().map(Rings)
    }
}

/// What a tap is handed, frame by frame.
#[derive(Serialize, Deserialize)]
enum Handed {
    /// What to do, and the entry of the audit trail that allows it. With the asker's connection.
    Task(Box<Task>, Box<Entry>),
    /// A worker's memory. With its state and its ring.
    Ring { worker: WorkerId, geometry: Geometry },
    /// That was all.
    Go,
}

/// Everything that a tap works with.
pub(crate) struct Tapping {
    pub(crate) task: Task,
    pub(crate) entry: Entry,
    pub(crate) rings: Vec<RingView>,
    /// To control: a frame, or its end, says that it is over, or that control is.
    pub(crate) link: SeqPacket,
    /// To whoever asked.
    pub(crate) asker: SeqPacket,
}

/// Takes it over `link`.
pub(crate) fn take(link: SeqPacket) -> io::Result<Tapping> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let mut buffer = Zeroizing::new(vec![0; FRAME_BYTES_MAX]);
    let (mut task, mut rings) = (None, Vec::new());
    loop {
        let (frame, mut fds) = link.recv(&mut buffer)?;
        let frame = Zeroizing::new(frame);
        match serde_json::from_slice(&frame).map_err(|_| wrong("a frame of another version"))? {
            Handed::Task(what, entry) => {
                let asker = fds.pop().ok_or_else(|| wrong("no connection with the task"))?;
                task = Some((what, entry, SeqPacket::from_fd(asker)?));
            }
            Handed::Ring { worker, geometry } => {
                let [state, ring] = &fds[..] else { return Err(wrong("no memory")) };
                rings.push(RingView::open(worker, &geometry, state.as_fd(), ring.as_fd())?);
            }
            Handed::Go => {
                let (task, entry, asker) = task.ok_or_else(|| wrong("no task"))?;
                return Ok(Tapping { task: *task, entry: *entry, rings, link, asker });
            }
        }
    }
}

/// Who taps at present.
#[derive(Default)]
pub(super) struct Taps(Mutex<HashMap<u32, usize>>);

/// A place among them, given back when dropped.
pub(super) struct Seat<'a> {
    taps: &'a Taps,
    uid: u32,
}

impl Taps {
    pub(super) fn sit(&self, uid: u32) -> Option<Seat<'_>> {
        let mut all = self.0.lock().expect("nobody panics with it");
        let own = all.get(&uid).copied().unwrap_or(0);
        if own >= TAPS_OF_ONE || all.values().sum::<usize>() >= TAPS_MAX {
            return None;
        }
        all.insert(uid, own + 1);
        Some(Seat { taps: self, uid })
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut all = self.taps.0.lock().expect("nobody panics with it");
        if let Some(count) = all.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.uid);
            }
        }
    }
}

/// Has it done, and notes in the audit trail how long it was.
pub(super) fn serve(
    rings: &Rings,
    asker: &SeqPacket,
    task: Task,
    entry: Box<Entry>,
    [out, errors]: [OwnedFd; 2],
) -> io::Result<Reply> {
    if rings.0.is_empty() {
        return Err(io::Error::other("it has no access to the memory of the recorder"));
    }
    let store = task.store.clone();
    let (ours, theirs) = seqpacket::pair()?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(NAME)
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(theirs.into_fd()))
        .stdout(out)
        .stderr(errors)
        .spawn()?;
    let began = Instant::now();
    let noted = entry.clone();
    let handed = hand(rings, &ours, asker, task, entry);
    let is_ours = handed.is_ok() && wait(&mut child, asker, &ours);
    drop(ours);
    if !is_ours {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    let why = match code {
        Some(code) => format!("it ended with {code}"),
        None => format!("the reader ended by {status}"),
    };
    let seconds = began.elapsed().as_secs_f64();
    let listened = access::listened(&store, &noted, seconds, &why);
    listened.unwrap_or_else(|error| tracing::error!("{error}"));
    handed?;
    Ok(code.map_or_else(|| Reply::Failed(why), Reply::Exited))
}

fn hand(
    rings: &Rings,
    to: &SeqPacket,
    asker: &SeqPacket,
    task: Task,
    entry: Box<Entry>,
) -> io::Result<()> {
    let send = |handed: &Handed, fds: &[BorrowedFd<'_>]| {
        to.send(&Zeroizing::new(serde_json::to_vec(handed)?), fds)
    };
    send(&Handed::Task(Box::new(task), entry), &[asker.as_fd()])?;
    for Ring { worker, geometry, state, ring } in &rings.0 {
        let frame = Handed::Ring { worker: *worker, geometry: *geometry };
        send(&frame, &[state.as_fd(), ring.as_fd()])?;
    }
    send(&Handed::Go, &[])
}

/// Waits for its end. Where whoever asked has gone, or wants no more, it is asked to end; false where it does
/// not.
fn wait(child: &mut Child, asker: &SeqPacket, link: &SeqPacket) -> bool {
    let mut asked: Option<Instant> = None;
    loop {
        if !matches!(child.try_wait(), Ok(None)) {
            return true;
        }
        match asked {
            Some(at) if at.elapsed() >= END_WAIT => return false,
            Some(_) => {}
            None if is_over(asker) => {
                let _ = link.try_send(STOP, &[]);
                asked = Some(Instant::now());
            }
            None => {}
        }
        std::thread::sleep(PAUSE);
    }
}

const STOP: &[u8] = b"stop";

/// Whether whoever is at the other end has gone, or has anything to say: nothing else is ever sent.
pub(crate) fn is_over(link: &SeqPacket) -> bool {
    let found = link.try_recv(&mut [0; STOP.len()]);
    !matches!(found, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// What control has to say to a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// Nothing.
    None,
    /// End.
    Stop,
    /// It is gone.
    Gone,
}

/// Listens to control.
pub(crate) fn word(link: &SeqPacket) -> Word {
    match link.try_recv(&mut [0; STOP.len()]) {
        Ok((bytes, _)) if bytes.is_empty() => Word::Gone,
        Ok(_) => Word::Stop,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Word::None,
        Err(_) => Word::Gone,
    }
}

/// Says to whoever asked how it ended, where control cannot.
pub(crate) fn reply(asker: &SeqPacket, reply: &Reply) {
    if let Ok(bytes) = serde_json::to_vec(reply) {
        let _ = asker.try_send(&bytes, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_of_one_user_and_eight_of_all_tap_at_once() {
        let taps = Taps::default();
        let first: Vec<_> = (0..4).map(|_| taps.sit(1)).collect();
        assert!(first.iter().all(Option::is_some) && taps.sit(1).is_none());
        let others: Vec<_> = (2..6).map(|uid| taps.sit(uid)).collect();
        assert!(others.iter().all(Option::is_some) && taps.sit(9).is_none());
        drop((first, others));
        assert!(taps.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_word_is_heard_and_so_is_the_end() {
        let (ours, theirs) = seqpacket::pair().expect("a pair");
        assert_eq!(word(&theirs), Word::None);
        assert!(!is_over(&theirs));
        ours.send(STOP, &[]).expect("room");
        assert_eq!(word(&theirs), Word::Stop);
        drop(ours);
        assert_eq!(word(&theirs), Word::Gone);
        assert!(is_over(&theirs));
    }
}
