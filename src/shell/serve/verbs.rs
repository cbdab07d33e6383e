//! The way from the verbs to a running server: a socket in `STORE/run`, one JSON object each way. The kernel
//! says who asks, and the configuration who may; either answer is in the audit trail before anything is done.

use std::collections::HashMap;
use std::fs::Permissions;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self as channel, RecvTimeoutError};
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use super::estate;
use super::reading::{self, Read, Readers, Reply, Shared};
use super::tapping::{Rings, Taps};
use crate::config::access::Right;
use crate::config::model::Config;
use crate::host::door::{self, Peer};
use crate::host::seqpacket::SeqPacket;
use crate::plane::control::{Outcome, Verb};
use crate::shell::access::{self, Answer, Asker, Wish};
use crate::store::audit::action;

const DOOR: &str = "verbs.sock";
/// Verbs at once; 8 of them may be taps, which last.
const VERBS_MAX: usize = 24;
/// Bytes of a verb, and of its outcome.
const BYTES_MAX: usize = 8_192;
/// Whoever has connected says what it wants.
const ASK_WAIT: Duration = Duration::from_secs(2);
/// A resume waits for the SRC: 64·T1, and a moment for a way that is busy.
const OUTCOME_WAIT: Duration = Duration::from_secs(35);
/// A recording in which something else is under way is asked again for so long.
const BUSY_WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);

/// A verb on its way to control.
pub(super) struct Call {
    pub(super) uid: u32,
    pub(super) verb: Verb,
    /// Where its outcome goes.
    pub(super) reply: channel::Sender<Outcome>,
}

/// Takes verbs from now on, on threads of their own, and passes them to control.
pub(super) fn listen(config: &Config, rings: Rings, to: UnboundedSender<Call>) -> io::Result<()> {
    let door = door::listen(&estate::make_folder(&config.store.dir)?, DOOR)?;
    reading::sweep(&config.store.dir);
    let under_way = Arc::new(AtomicUsize::new(0));
    let refusals = Arc::new(Mutex::new(Refusals::default()));
    let (readers, taps) = (Readers::default(), Taps::default());
    let shared = Arc::new(Shared { config: config.clone(), readers, taps, rings });
    let serve = move || {
        loop {
            let Ok((socket, peer)) = door.accept() else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if under_way.fetch_add(1, Ordering::Relaxed) >= VERBS_MAX {
                under_way.fetch_sub(1, Ordering::Relaxed);
                let _ = say(&socket, &Outcome::Busy);
                continue;
            }
            let (to, count) = (to.clone(), Arc::clone(&under_way));
            let (shared, refusals) = (Arc::clone(&shared), Arc::clone(&refusals));
            let work = move || {
                if let Err(error) = serve_one(&shared, &socket, peer, &to, &refusals) {
                    tracing::warn!("a verb of process {}: {error}", peer.pid);
                }
                count.fetch_sub(1, Ordering::Relaxed);
            };
            if Builder::new().name("verb".into()).spawn(work).is_err() {
                under_way.fetch_sub(1, Ordering::Relaxed);
            }
        }
    };
    Builder::new().name("verbs".into()).spawn(serve)?;
    Ok(())
}

/// Lets those in who have a role, beside the store's own user and root.
pub(super) fn admit(config: &Config) {
    let folder = estate::folder(&config.store.dir);
    let everybody = config.access.has_any();
    // Passing through is enough: nobody need see what else is there.
    let mode = if everybody { 0o711 } else { 0o700 };
    let admitted = std::fs::set_permissions(&folder, Permissions::from_mode(mode))
        .and_then(|()| door::admit(&folder, DOOR, everybody));
    if let (true, Err(error)) = (everybody, admitted) {
        tracing::error!("who has a role may not reach {}: {error}", folder.join(DOOR).display());
    }
}

fn serve_one(
    shared: &Shared,
    socket: &SeqPacket,
    peer: Peer,
    to: &UnboundedSender<Call>,
    refusals: &Mutex<Refusals>,
) -> io::Result<()> {
    set_socket_timeout(socket, Timeout::Recv, Some(ASK_WAIT))?;
    set_socket_timeout(socket, Timeout::Send, Some(ASK_WAIT))?;
    let mut bytes = vec![0; BYTES_MAX];
    let (asked, fds) = socket.recv(&mut bytes)?;
    match serde_json::from_slice(&asked)? {
        Asked::Verb(verb) => {
            say(socket, &permitted(&shared.config.store.dir, peer, verb, to, refusals))
        }
        Asked::Read { read } => {
            let refused = || refusals.lock().expect("nobody panics with it").add(peer.uid);
            let reply = if is_over(refusals, peer) {
                Reply::Refused(TOO_OFTEN.to_owned())
            } else {
                reading::serve(shared, socket, peer, read, fds, &refused)
            };
            say(socket, &reply)
        }
    }
}

/// What can be asked for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Asked {
    Read { read: Read },
    Verb(Verb),
}

fn is_over(refusals: &Mutex<Refusals>, peer: Peer) -> bool {
    refusals.lock().expect("nobody panics with it").of(peer.uid) >= REFUSALS_PER_HOUR
}

const TOO_OFTEN: &str = "refused too often: what is refused now is not recorded";

/// Records the verb and does it, or records that it is refused.
fn permitted(
    store: &Path,
    peer: Peer,
    verb: Verb,
    to: &UnboundedSender<Call>,
    refusals: &Mutex<Refusals>,
) -> Outcome {
    if is_over(refusals, peer) {
        return Outcome::Refused(TOO_OFTEN.to_owned());
    }
    let asker = Asker { uid: peer.uid, pid: peer.pid };
    let answer = access::ask(store, asker, Right::Control, wish(&verb));
    match answer {
        Ok(Answer::Allowed(entry)) => {
            let outcome = ask_control(peer.uid, &verb, to);
            if let Some(why) = failure(&outcome) {
                // It stands as allowed, which is what it was; this says how it went on.
                let failed = access::failed(store, &entry, why);
                failed.unwrap_or_else(|error| tracing::error!("{error}"));
            }
            outcome
        }
        Ok(Answer::Refused(why)) => {
            refusals.lock().expect("nobody panics with it").add(peer.uid);
            Outcome::Refused(why)
        }
        Err(error) => Outcome::Failed(format!("not done, because it cannot be recorded: {error}")),
    }
}

/// Control's word. One that is busy is asked again: it is one act, and one entry.
fn ask_control(uid: u32, verb: &Verb, to: &UnboundedSender<Call>) -> Outcome {
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        let (reply, outcome) = channel::channel();
        // Where control ends, the other end of either channel is gone.
        let outcome = match to.send(Call { uid, verb: verb.clone(), reply }) {
            Ok(()) => outcome.recv_timeout(OUTCOME_WAIT),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        match outcome {
            Ok(Outcome::Busy) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            outcome => return outcome.unwrap_or_else(no_outcome),
        }
    }
}

fn failure(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Done | Outcome::Started(_) => None,
        Outcome::Unknown => Some("it is not running"),
        Outcome::Busy => Some("another change was under way"),
        Outcome::Refused(why) | Outcome::Failed(why) => Some(why),
    }
}

/// What the audit trail says of it.
fn wish(verb: &Verb) -> Wish {
    match verb {
        Verb::Start { to, .. } => Wish::new(action::RS_START, to.clone()),
        Verb::Pause { rs } => Wish::new(action::RS_PAUSE, rs.to_string()),
        Verb::Resume { rs } => Wish::new(action::RS_RESUME, rs.to_string()),
        Verb::Stop { rs, reason } => {
            Wish::new(action::RS_STOP, rs.to_string()).because(Some(reason.clone()))
        }
        Verb::StopLine { rs, line, reason } => Wish::new(action::RS_STOP, rs.to_string())
            .because(Some(reason.clone()))
            .with("line", Some(line.clone())),
    }
}

/// Refusals that are recorded of one user, an hour: whoever may connect could fill the disk with them.
const REFUSALS_PER_HOUR: u32 = 60;
const HOUR: Duration = Duration::from_secs(3_600);
/// Users whose refusals are counted; more begin anew together.
const REFUSED_MAX: usize = 1_024;

/// How often each user was refused, in the hour since it was first.
#[derive(Default)]
struct Refusals(HashMap<u32, (Option<Instant>, u32)>);

impl Refusals {
    fn of(&mut self, uid: u32) -> u32 {
        self.0.retain(|_, (since, _)| since.is_some_and(|since| since.elapsed() < HOUR));
        self.0.get(&uid).map_or(0, |(_, count)| *count)
    }

    fn add(&mut self, uid: u32) {
        if self.0.len() >= REFUSED_MAX && !self.0.contains_key(&uid) {
            self.0.clear();
        }
        let (_, count) = self.0.entry(uid).or_insert((Some(Instant::now()), 0));
        *count += 1;
    }
}

fn no_outcome(why: RecvTimeoutError) -> Outcome {
    Outcome::Failed(match why {
        RecvTimeoutError::Timeout => {
            let wait_s = OUTCOME_WAIT.as_secs();
            format!("it is not decided after {wait_s} s: `floortape show` says what came of it")
        }
        RecvTimeoutError::Disconnected => "control is ending".to_owned(),
    })
}

fn say(socket: &SeqPacket, outcome: &impl Serialize) -> io::Result<()> {
    socket.send(&serde_json::to_vec(outcome)?, &[])
}

/// Why there is no outcome.
pub enum Unheard {
    /// Nobody took it. `NotFound` or `ConnectionRefused`: no control listens.
    Never(io::Error),
    /// It was sent, and whoever took it ended or was not understood: it may have been done.
    Perhaps(io::Error),
}

/// Asks the server of `store`.
pub fn ask(store: &Path, verb: &Verb) -> Result<Outcome, Unheard> {
    let verb = serde_json::to_vec(verb).map_err(|error| Unheard::Never(error.into()))?;
    let (socket, _) = door::connect(&estate::folder(store), DOOR).map_err(Unheard::Never)?;
    socket.send(&verb, &[]).map_err(Unheard::Never)?;
    let mut bytes = vec![0; BYTES_MAX];
    let (outcome, _) = socket.recv(&mut bytes).map_err(Unheard::Perhaps)?;
    if outcome.is_empty() {
        return Err(Unheard::Perhaps(io::ErrorKind::ConnectionReset.into()));
    }
    serde_json::from_slice(&outcome).map_err(|error| Unheard::Perhaps(error.into()))
}

/// Has the server of `store` read for us; what it reads goes to `fds`.
pub(crate) fn read(store: &Path, read: &Read, fds: &[BorrowedFd<'_>]) -> io::Result<Reply> {
    let socket = connect(store)?;
    read_over(&socket, read, fds)
}

/// A connection to the server of `store`.
pub(crate) fn connect(store: &Path) -> io::Result<SeqPacket> {
    Ok(door::connect(&estate::folder(store), DOOR)?.0)
}

/// As [`read`], over a connection in hand: whoever shuts it down ends what is read.
pub(crate) fn read_over(
    socket: &SeqPacket,
    read: &Read,
    fds: &[BorrowedFd<'_>],
) -> io::Result<Reply> {
    let asked = serde_json::to_vec(&serde_json::json!({ "read": read }))?;
    socket.send(&asked, fds)?;
    let (reply, _) = socket.recv(&mut vec![0; BYTES_MAX])?;
    if reply.is_empty() {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    // `Busy` is said so before it is read what is asked, whatever that is.
    Ok(serde_json::from_slice(&reply)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_that_does_not_come_is_no_end_of_control() {
        let Outcome::Failed(late) = no_outcome(RecvTimeoutError::Timeout) else { panic!("failed") };
        assert!(late.contains("35 s") && !late.contains("ending"), "{late}");
        let Outcome::Failed(gone) = no_outcome(RecvTimeoutError::Disconnected) else {
            panic!("failed")
        };
        assert!(gone.contains("ending"), "{gone}");
    }
}
