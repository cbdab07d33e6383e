//! `floortape demo`: the product shown by itself. A real `serve`, a real call, a loss on purpose,
//! and the verdict by the same verbs that a user has. Nothing here looks into the store.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::demo_report::Report;
use super::src;
use crate::base::suite::Suite;
use crate::client::Drops;
use crate::client::g711::Law;
use crate::shell::client::load::{self, Outcome, Plan};
use crate::shell::client::signalling::{Target, TlsFiles};
use crate::shell::exit::{Exit, Failure};
use crate::store::catalog::model::{Recording, State};

/// Show it all in half a minute: a server, a call with a loss on purpose, the verdict, the proof.
#[derive(clap::Args)]
pub struct Args {
    /// Keep store and export in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// 9 s at 50 packets/s: long enough for a report of the recorder to come back.
const PACKETS: u64 = 450;
/// Half a second of the first party is left out after four seconds.
const BURST: Drops = Drops { first: 200, count: 25 };
/// Patience with the server's start (the contract says 5 s) and with the end of the recording.
const PATIENCE: Duration = Duration::from_secs(15);
/// Two lines need four ports; some more, in case that somebody takes one meanwhile.
const MEDIA_PORTS: u16 = 16;

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let started = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    let report = Report::new(std::io::stdout().is_terminal());

    let mut folder = Folder::new(args.keep.as_deref())?;
    let server = Server::start(&folder.store)?;
    report.stage(&format!("serve is ready on {}: {}", server.sip, server.ready))?;
    let plan = plan(server.sip)?;
    report.stage("calling it: two parties, SRTP (AES_CM_128_HMAC_SHA1_80), 9 seconds")?;
    let outcome = load::run(&plan, &stop, &mut |_| {}).map_err(src::failure)?;
    if outcome.interrupted {
        return Ok(Exit::Interrupted);
    }
    report.ladder(&outcome)?;

    let verbs = Verbs { store: folder.store.clone() };
    let recording = verbs.ended(&outcome)?;
    let as_expected = expected(&recording, &outcome);
    report.verdict(&recording, &outcome, BURST, as_expected.as_deref())?;
    let id = recording.id.to_string();
    let (proven, told) = verbs.verify(&id)?;
    report.proof(proven, &told)?;
    verbs.export(&id, &folder.export)?;
    let (export_proven, _) = verbs.verify(&folder.export.display().to_string())?;
    folder.told = true;
    report.files(&folder.export, export_proven)?;
    drop(server);
    let is_well = as_expected.is_none() && proven && export_proven;
    report.end(is_well, started.elapsed())?;
    Ok(if is_well { Exit::Yes } else { Exit::No })
}

fn plan(sip: SocketAddr) -> Result<Plan, Failure> {
    let target = Target::parse(&format!("sip:demo@{sip};transport=tcp"))?;
    Ok(Plan {
        target,
        tls: TlsFiles::default(),
        digest: None,
        suite: Some(Suite::AesCm128HmacSha1_80.into()),
        law: Law::Mu,
        streams: 2,
        streams_per_call: 2,
        wavs: Vec::new(),
        retry_ms: 0,
        rekey_ms: 0,
        numbered: false,
        one_port: false,
        packets: PACKETS,
        drops: BURST,
        drops_in: Some(0),
        seed: src::random(),
    })
}

/// What is not as it must be, in words; `None` where the ledger has found exactly the burst.
fn expected(recording: &Recording, outcome: &Outcome) -> Option<String> {
    for sent in &outcome.streams {
        let label = &sent.label;
        let Some(stream) = recording.streams.iter().find(|stream| stream.label == *label) else {
            return Some(format!("stream {label} is not there"));
        };
        let [source] = &stream.sources[..] else {
            return Some(format!("stream {label} has {} sources, not 1", stream.sources.len()));
        };
        // The first sequence number is below 2^15, so no index has a roll-over in it.
        let first = u64::from(sent.origin.seq.0);
        if (source.ssrc, source.first_index, source.last_index)
            != (sent.origin.ssrc.0, first, first + sent.sent - 1)
        {
            return Some(format!("stream {label} does not hold the indexes that were sent"));
        }
        if source.packets != sent.sent - sent.left_out {
            return Some(format!("stream {label} holds {} packets", source.packets));
        }
        if source.rtcp_sent != Some(sent.sent) {
            return Some(format!("stream {label} lacks the sender's own count"));
        }
        let found: Vec<_> = source.gaps.iter().map(|gap| (gap.first, gap.last)).collect();
        let burst = (first + BURST.first, first + BURST.first + BURST.count - 1);
        let wanted = if sent.left_out == 0 { Vec::new() } else { vec![burst] };
        if found != wanted {
            return Some(format!("stream {label} has gaps {found:?}, not {wanted:?}"));
        }
        let lost: u64 = source.lost.values().sum::<u64>() + source.unexplained;
        if lost != sent.left_out {
            return Some(format!("stream {label} has {lost} packets lost"));
        }
    }
    None
}

/// Where store and export lie. Without `--keep` it is gone on drop, but for an export whose place was
/// told: whoever reads that goes there.
struct Folder {
    base: PathBuf,
    store: PathBuf,
    export: PathBuf,
    keep: bool,
    told: bool,
}

impl Folder {
    fn new(keep: Option<&Path>) -> Result<Self, Failure> {
        let base = match keep {
            Some(folder) => folder.to_owned(),
            None => std::env::temp_dir().join(format!("floortape-demo-{}", std::process::id())),
        };
        let (store, export) = (base.join("store"), base.join("recording"));
        for folder in [&store, &export] {
            if folder.exists() {
                let message = format!("{} is there already; name another folder", folder.display());
                return Err(Failure::new(Exit::Usage, message));
            }
        }
        std::fs::create_dir_all(&base)?;
        Ok(Folder { base, store, export, keep: keep.is_some(), told: false })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = std::fs::remove_dir_all(if self.told { &self.store } else { &self.base });
        }
    }
}

/// The server under the demo: ended on drop.
struct Server {
    child: Child,
    sip: SocketAddr,
    ready: String,
}

impl Server {
    fn start(store: &Path) -> Result<Self, Failure> {
        let (sip, media) = free_ports()?;
        let settings = [
            format!("sip.udp=[\"{sip}\"]"),
            format!("sip.tcp=[\"{sip}\"]"),
            format!("media.ports=\"{}-{}\"", media, media + MEDIA_PORTS - 1),
            "media.streams_max=4".to_owned(),
            format!("store.dir={}", toml::Value::String(store.display().to_string())),
        ];
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for setting in settings {
            command.args(["--set", &setting]);
        }
        let mut child = command.spawn()?;
        let stderr = child.stderr.take().expect("it was piped");
        let (lines, heard) = mpsc::channel();
        // Reads to the end, or the server would block on a full pipe; ends with the server.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let mut server = Server { child, sip, ready: String::new() };
        let end = Instant::now() + PATIENCE;
        let mut talk = Vec::new();
        while let Ok(line) = heard.recv_timeout(end.saturating_duration_since(Instant::now())) {
            if line.starts_with("ready") {
                server.ready = line;
                return Ok(server);
            }
            talk.push(line);
        }
        let message = format!("serve did not become ready:\n{}", talk.join("\n"));
        Err(Failure::new(Exit::No, message))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Twice: the first lets running calls end, the second does not wait for them.
        for _ in 0..2 {
            let _ = rustix::process::kill_process(
                rustix::process::Pid::from_child(&self.child),
                rustix::process::Signal::TERM,
            );
            let end = Instant::now() + Duration::from_secs(5);
            while Instant::now() < end {
                if !matches!(self.child.try_wait(), Ok(None)) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address for SIP over UDP and TCP, and the first of a run of free UDP ports.
fn free_ports() -> std::io::Result<(SocketAddr, u16)> {
    let loopback = std::net::Ipv4Addr::LOCALHOST;
    let busy = || std::io::Error::new(std::io::ErrorKind::AddrInUse, "no free ports on loopback");
    let sip = (0..64)
        .find_map(|_| {
            let tcp = TcpListener::bind((loopback, 0)).ok()?;
            let address = tcp.local_addr().ok()?;
            UdpSocket::bind(address).ok().map(|_| address)
        })
        .ok_or_else(busy)?;
    // A random start, so that two demos at once do not want the same run.
    let random = (src::random() % 400) as u16;
    let media = (0..400)
        .map(|n| 20_000 + (n + random) % 400 * MEDIA_PORTS)
        .find(|first| {
            (0..MEDIA_PORTS).all(|offset| UdpSocket::bind((loopback, first + offset)).is_ok())
        })
        .ok_or_else(busy)?;
    Ok((sip, media))
}

/// The verbs that a user has, run as a user runs them.
struct Verbs {
    store: PathBuf,
}

impl Verbs {
    fn run(&self, words: &[&str]) -> Result<(Option<i32>, String), Failure> {
        let done = Command::new(std::env::current_exe()?)
            .args(words)
            .arg("--store")
            .arg(&self.store)
            .stdin(Stdio::null())
            .output()?;
        let talk = String::from_utf8_lossy(&done.stderr).into_owned();
        let code = done.status.code();
        if !matches!(code, Some(0 | 1)) {
            let message = format!("floortape {} failed: {}", words.join(" "), talk.trim());
            return Err(Failure::new(Exit::No, message));
        }
        Ok((code, String::from_utf8_lossy(&done.stdout).into_owned()))
    }

    /// The recording of the call once it has ended and all of it is durable.
    fn ended(&self, outcome: &Outcome) -> Result<Recording, Failure> {
        let call_id = outcome.streams.first().map(|stream| stream.call_id.as_str());
        let end = Instant::now() + PATIENCE;
        loop {
            let (_, listed) = self.run(&["ls", "--json"])?;
            for line in listed.lines() {
                let recording: Recording = serde_json::from_str(line)?;
                let is_ours = Some(recording.call_id.as_str()) == call_id;
                let is_durable =
                    recording.end.is_some_and(|at| recording.durable_through >= Some(at));
                if is_ours && recording.state == State::Ended && is_durable {
                    let (_, shown) = self.run(&["show", &recording.id.to_string(), "--json"])?;
                    return Ok(serde_json::from_str(&shown)?);
                }
            }
            if Instant::now() > end {
                let message = "the recording did not become durable in time";
                return Err(Failure::new(Exit::No, message));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Whether an id or a folder is proven, and what `verify` said.
    fn verify(&self, what: &str) -> Result<(bool, String), Failure> {
        let (code, told) = self.run(&["verify", what])?;
        Ok((code == Some(0), told.trim().to_owned()))
    }

    fn export(&self, id: &str, folder: &Path) -> Result<(), Failure> {
        let folder = folder.display().to_string();
        match self.run(&["export", id, "-o", &folder])? {
            (Some(0), _) => Ok(()),
            (_, told) => Err(Failure::new(Exit::No, format!("export failed: {told}"))),
        }
    }
}

/// Flushes after each stage: the demo is watched.
pub(super) fn flush() -> std::io::Result<()> {
    std::io::stdout().flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_stays_and_nothing_else() {
        let base = std::env::temp_dir().join(format!("floortape-demo-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&base);
        for told in [false, true] {
            let mut folder = Folder::new(None).expect("a temp folder");
            for one in [&folder.store, &folder.export] {
                std::fs::create_dir_all(one).expect("ours");
            }
            folder.told = told;
            drop(folder);
            let left = ["store", "recording"].map(|name| base.join(name).exists());
            assert_eq!((base.exists(), left), (told, [false, told]));
        }
        drop(Folder::new(Some(&base.join("kept"))).expect("room"));
        assert!(base.join("kept").exists(), "asked for");
        std::fs::remove_dir_all(base).expect("ours");
    }
}
