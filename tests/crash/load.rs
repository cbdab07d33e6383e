//! The generator: `floortape src call` in a process of its own, numbered packets.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::binary;

/// A load at work. Killed on drop.
pub(crate) struct Load {
    child: Child,
    stages: mpsc::Receiver<String>,
    stdout: Option<JoinHandle<String>>,
}

impl Load {
    /// Calls the server at `port`, over `tcp` or `udp`, with these further words.
    pub(crate) fn start(port: u16, transport: &str, words: &[String]) -> Self {
        let mut child = Command::new(binary())
            .args(["src", "call", "--numbered", "--one-port", "--json", "--to"])
            .arg(format!("sip:srs@127.0.0.1:{port};transport={transport}"))
            .args(words)
            .env_remove("FLOORTAPE_FAULTS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary is built");
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (stage, stages) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = stage.send(line);
            }
        });
        let mut out = child.stdout.take().expect("piped");
        let stdout = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = out.read_to_string(&mut text);
            text
        });
        Load { child, stages, stdout: Some(stdout) }
    }

    /// Waits for a stage such as `sending`.
    pub(crate) fn reaches(&self, stage: &str, patience: Duration) -> Result<(), String> {
        let end = Instant::now() + patience;
        let mut heard = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.stages.recv_timeout(left) {
                Ok(line) if line.starts_with(stage) => return Ok(()),
                Ok(line) => heard.push(line),
                Err(_) => return Err(format!("the load does not reach {stage}: {heard:?}")),
            }
        }
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }

    /// Waits for its end: what it says it sent.
    pub(crate) fn end(mut self) -> Result<Value, String> {
        let text = self.stdout.take().expect("ended once").join().unwrap_or_default();
        let status = self.child.wait().map_err(|error| error.to_string())?;
        let heard: Vec<String> = self.stages.try_iter().collect();
        if !status.success() {
            return Err(format!("the load ended with {status}: {heard:?}"));
        }
        serde_json::from_str(&text).map_err(|error| format!("the load's JSON: {error}"))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
