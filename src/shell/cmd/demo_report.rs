//! What `demo` prints: the ladder, the verdict, the proof. Colour only on a terminal.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use super::demo::flush;
use crate::client::Drops;
use crate::shell::client::load::{Outcome, Step};
use crate::store::catalog::model::{Recording, Source, Stream};

/// Width of the ladder between its two rails.
const RUNG: usize = 34;

/// The paper the report is written on.
pub(super) struct Report {
    is_colourful: bool,
}

impl Report {
    pub(super) fn new(is_colourful: bool) -> Self {
        Report { is_colourful }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.is_colourful { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn head(&self, text: &str) -> std::io::Result<()> {
        writeln!(std::io::stdout(), "\n{}", self.paint("1", text))
    }

    /// A line of progress.
    pub(super) fn stage(&self, text: &str) -> std::io::Result<()> {
        writeln!(std::io::stdout(), "{} {text}", self.paint("36", "·"))?;
        flush()
    }

    /// Who sent what and when.
    pub(super) fn ladder(&self, outcome: &Outcome) -> std::io::Result<()> {
        self.head("SIP, as the client saw it")?;
        let mut out = std::io::stdout().lock();
        let first = outcome.ladder.first().map_or(0, |step| step.at.0);
        writeln!(out, "{:>11}  SRC{}SRS", "", " ".repeat(RUNG - 4))?;
        for step in &outcome.ladder {
            if step.outward && step.line == "BYE" {
                let sent: u64 = outcome.streams.iter().map(|stream| stream.sent).sum();
                let text = format!(" {sent} SRTP packets in {} streams ", outcome.streams.len());
                let rung = self.paint("2", &format!("{text:═^RUNG$}"));
                writeln!(out, "{:>11}  {rung}▶", "")?;
            }
            let seconds = (step.at.0 - first) as f64 / 1e9;
            writeln!(out, "{seconds:>+9.3} s  {}", self.rung(step))?;
        }
        Ok(())
    }

    fn rung(&self, step: &Step) -> String {
        let text = format!(" {} ", step.line);
        if step.outward {
            format!("{}▶", self.paint("32", &format!("{text:─^RUNG$}")))
        } else {
            format!("◀{}", self.paint("34", &format!("{text:─^RUNG$}")))
        }
    }

    /// Sent, on disk, missing with cause. `fault`: what is not as it must be.
    pub(super) fn verdict(
        &self,
        recording: &Recording,
        outcome: &Outcome,
        burst: Drops,
        fault: Option<&str>,
    ) -> std::io::Result<()> {
        self.head("Verdict")?;
        let mut out = std::io::stdout().lock();
        writeln!(
            out,
            "{:<7} {:<22} {:>5} {:>8} {:>8}  {:<11} cause",
            "stream", "speaker", "sent", "on disk", "missing", "verdict"
        )?;
        for sent in &outcome.streams {
            let Some(stream) = recording.streams.iter().find(|stream| stream.label == sent.label)
            else {
                continue;
            };
            let on_disk: u64 = stream.sources.iter().map(|source| source.packets).sum();
            let missing: u64 = stream.sources.iter().map(missing).sum();
            let verdict = serde_json::to_value(stream.verdict)?;
            let verdict = format!("{:<11}", verdict.as_str().unwrap_or_default());
            writeln!(
                out,
                "{:<7} {:<22} {:>5} {on_disk:>8} {missing:>8}  {} {}",
                sent.label,
                speaker(recording, stream),
                sent.sent,
                self.paint(if missing == 0 { "32" } else { "33" }, &verdict),
                causes(stream)
            )?;
            for gap in stream.sources.iter().flat_map(|source| &source.gaps) {
                let start = u64::from(sent.origin.seq.0);
                let (first, last) = (gap.first.wrapping_sub(start), gap.last.wrapping_sub(start));
                writeln!(
                    out,
                    "        packets {first} to {last} missing, from {} to {}",
                    gap.from, gap.to
                )?;
            }
        }
        let last = burst.first + burst.count - 1;
        writeln!(out, "left out on purpose: packets {} to {last} of stream 1", burst.first)?;
        match fault {
            None => writeln!(out, "{}", self.paint("32", "the ledger found exactly that")),
            Some(fault) => writeln!(out, "{}", self.paint("31", &format!("not as sent: {fault}"))),
        }?;
        flush()
    }

    /// What `verify` said.
    pub(super) fn proof(&self, is_proven: bool, told: &str) -> std::io::Result<()> {
        self.head("Proof")?;
        let word = self.verdict_word(is_proven);
        writeln!(std::io::stdout(), "floortape verify: {word}\n{told}")
    }

    /// Where the sound lies.
    pub(super) fn files(&self, folder: &Path, is_proven: bool) -> std::io::Result<()> {
        self.head("To hear it")?;
        let mut out = std::io::stdout().lock();
        let mut names: Vec<_> = std::fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
            .filter(|name| name.ends_with(".wav"))
            .collect();
        names.sort();
        for name in names {
            writeln!(out, "{}", folder.join(name).display())?;
        }
        let word = self.verdict_word(is_proven);
        writeln!(out, "floortape verify {}: {word} (offline, without the store)", folder.display())
    }

    /// The last line.
    pub(super) fn end(&self, is_well: bool, took: Duration) -> std::io::Result<()> {
        let text = if is_well { "demo: all as it should be" } else { "demo: NOT as it should be" };
        let text = self.paint(if is_well { "1;32" } else { "1;31" }, text);
        writeln!(std::io::stdout(), "\n{text}, in {:.1} s", took.as_secs_f64())
    }

    fn verdict_word(&self, is_well: bool) -> String {
        if is_well { self.paint("32", "ok") } else { self.paint("31", "FAILED") }
    }
}

fn missing(source: &Source) -> u64 {
    source.lost.values().sum::<u64>() + source.unexplained
}

/// `net 25, unexplained 1`.
fn causes(stream: &Stream) -> String {
    let mut words = Vec::new();
    for source in &stream.sources {
        for (cause, count) in source.lost.iter().filter(|(_, count)| **count > 0) {
            words.push(format!("{} {count}", cause.label()));
        }
        if source.unexplained > 0 {
            words.push(format!("unexplained {}", source.unexplained));
        }
    }
    words.join(", ")
}

/// Name of whom the stream is attributed to by the metadata.
fn speaker(recording: &Recording, stream: &Stream) -> String {
    let of = |id: &String| {
        let person = recording.participants.iter().find(|one| one.participant_id == *id)?;
        let name = person.names.first()?;
        Some(name.name.clone().unwrap_or_else(|| name.aor.clone()))
    };
    stream.participants.send.iter().filter_map(of).collect::<Vec<_>>().join(", ")
}
