//! The way from the verbs to a running server: a socket in `STORE/run`, one JSON object each way. Who
//! may write the store may ask; the kernel says who it is.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self as channel, RecvTimeoutError};
use std::thread::Builder;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use tokio::sync::mpsc::UnboundedSender;

use super::estate;
use crate::host::door::{self, Peer};
use crate::host::seqpacket::SeqPacket;
use crate::plane::control::{Outcome, Verb};

const DOOR: &str = "verbs.sock";
/// Verbs at once.
const VERBS_MAX: usize = 16;
/// Bytes of a verb, and of its outcome.
const BYTES_MAX: usize = 8_192;
/// Whoever has connected says what it wants.
const ASK_WAIT: Duration = Duration::from_secs(2);
/// A resume waits for the SRC: 64·T1, and a moment for a way that is busy.
const OUTCOME_WAIT: Duration = Duration::from_secs(35);

/// A verb on its way to control.
pub(super) struct Call {
    pub(super) uid: u32,
    pub(super) verb: Verb,
    /// Where its outcome goes.
    pub(super) reply: channel::Sender<Outcome>,
}

/// Takes verbs from now on, on threads of their own, and passes them to control.
pub(super) fn listen(store: &Path, to: UnboundedSender<Call>) -> io::Result<()> {
    let door = door::listen(&estate::make_folder(store)?, DOOR)?;
    let under_way = Arc::new(AtomicUsize::new(0));
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
            let work = move || {
                if let Err(error) = serve_one(&socket, peer, &to) {
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

fn serve_one(socket: &SeqPacket, peer: Peer, to: &UnboundedSender<Call>) -> io::Result<()> {
    estate::allowed(peer.uid)?;
    set_socket_timeout(socket, Timeout::Recv, Some(ASK_WAIT))?;
    set_socket_timeout(socket, Timeout::Send, Some(ASK_WAIT))?;
    let mut bytes = vec![0; BYTES_MAX];
    let (asked, _) = socket.recv(&mut bytes)?;
    let verb = serde_json::from_slice(&asked)?;
    let (reply, outcome) = channel::channel();
    // Where control ends, the other end of either channel is gone.
    let outcome = match to.send(Call { uid: peer.uid, verb, reply }) {
        Ok(()) => outcome.recv_timeout(OUTCOME_WAIT),
        Err(_) => Err(RecvTimeoutError::Disconnected),
    };
    say(socket, &outcome.unwrap_or_else(no_outcome))
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

fn say(socket: &SeqPacket, outcome: &Outcome) -> io::Result<()> {
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
