//! SIPp: dialogs over UDP that never rest, of a peer that nobody here wrote. Some of its requests and
//! of the answers it gets are dropped on purpose, so that it repeats requests.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Mean time between two requests of a dialog, ms; each is within half of it.
const PAUSE_MS: u64 = 1_000;
/// Per cent of requests and answers that SIPp drops.
const LOST: u64 = 3;

/// SIPp at work. Killed on drop.
pub(crate) struct Sipp {
    child: Child,
    folder: std::path::PathBuf,
    dialogs: u64,
}

impl Sipp {
    /// Sets up `dialogs` of them with the server at `port`; they last about `seconds`.
    pub(crate) fn start(
        folder: &Path,
        port: u16,
        dialogs: u64,
        seconds: u64,
    ) -> Result<Self, String> {
        let template = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crash/dialogs.xml");
        let mut scenario = std::fs::read_to_string(template).map_err(|error| error.to_string())?;
        // A re-INVITE and an UPDATE a round.
        let rounds = (seconds * 1_000 / (2 * PAUSE_MS)).max(1);
        for (name, value) in [
            ("@MIN@", PAUSE_MS / 2),
            ("@MAX@", PAUSE_MS * 3 / 2),
            ("@ROUNDS@", rounds),
            ("@LOST@", LOST),
        ] {
            scenario = scenario.replace(name, &value.to_string());
        }
        let folder = folder.join("sipp");
        let written = std::fs::create_dir_all(&folder)
            .and_then(|()| std::fs::write(folder.join("dialogs.xml"), scenario))
            .and_then(|()| File::create(folder.join("screen")));
        let screen = written.map_err(|error| error.to_string())?;
        let mut command = Command::new("sipp");
        command.current_dir(&folder).args(["-sf", "dialogs.xml", "-i", "127.0.0.1", "-nostdin"]);
        command.arg(format!("127.0.0.1:{port}"));
        // SIPp has no client transaction for UPDATE: where its repetition was in our socket already
        // when the answer left, the second answer (RFC 3261 §17.2.2) finds it in a pause.
        command.args(["-default_behaviors", "all,-abortunexp"]);
        let rate = (dialogs / 5).max(1);
        command.args(["-m", &dialogs.to_string(), "-l", &dialogs.to_string()]);
        command.args(["-r", &rate.to_string(), "-recv_timeout", "30000"]);
        command.args(["-trace_err", "-error_file", "errors", "-trace_stat", "-stf", "stat"]);
        let child = command
            .stdin(Stdio::null())
            .stdout(screen)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("sipp: {error}; Debian has it as sip-tester"))?;
        Ok(Sipp { child, folder, dialogs })
    }

    /// Waits for the end of all its dialogs: what it complains of.
    pub(crate) fn end(mut self) -> Vec<String> {
        let status = self.child.wait();
        let mut complaints = Vec::new();
        if !matches!(&status, Ok(status) if status.success()) {
            complaints.push(format!("sipp ended with {status:?}"));
        }
        let column = |name| self.column(name);
        for name in ["SuccessfulCall(C)", "FailedCall(C)"] {
            let wanted = if name == "FailedCall(C)" { 0 } else { self.dialogs };
            let found = column(name);
            if found != Some(wanted) {
                complaints.push(format!("sipp: {name} is {found:?}, expected {wanted}"));
            }
        }
        let errors = std::fs::read_to_string(self.folder.join("errors")).unwrap_or_default();
        let odd =
            |line: &&str| line.contains("unexpected") && !line.contains("received 'SIP/2.0 200 OK");
        let unexpected = errors.lines().filter(odd).count();
        if unexpected > 0 {
            let first: String = errors.chars().take(1_500).collect();
            complaints.push(format!("sipp: {unexpected} unexpected messages: {first}"));
        }
        complaints
    }

    /// How often it sent something again.
    pub(crate) fn retransmissions(folder: &Path) -> u64 {
        read(&folder.join("sipp/stat"), "Retransmissions(C)").unwrap_or(0)
    }

    fn column(&self, name: &str) -> Option<u64> {
        read(&self.folder.join("stat"), name)
    }
}

/// The last value of a column of SIPp's statistics, which are parted by semicolons.
fn read(file: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut lines = text.lines();
    let place = lines.next()?.split(';').position(|column| column == name)?;
    lines.last()?.split(';').nth(place)?.parse().ok()
}

impl Drop for Sipp {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
