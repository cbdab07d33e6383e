//! `rounds`: runs lives one after the other and reports: a JSON line per round, a summary at the
//! end. With `--resume FILE` the lines go to FILE and what FILE holds already is not done again.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::round::{CUTS_PER_LIFE, Encrypted, Life, Settings};

/// Above the durable mark a cut may cost the records of one commit interval and one sync, as the
/// spool measures its own. This much more is allowed for the way from the wire into the ring, which
/// the judge counts as well, and for a spool that gets no core on a machine with two for all.
const BEYOND_MS_MAX: f64 = 250.0;

/// Options as `--name=value`.
pub(crate) fn run(options: &[&str]) -> Result<String, String> {
    let mut given = BTreeMap::new();
    for option in options {
        let pair = option.strip_prefix("--").and_then(|option| option.split_once('='));
        let (name, value) = pair.ok_or_else(|| format!("expected --name=value: {option}"))?;
        given.insert(name, value);
    }
    let text = |name: &str, default: &str| (*given.get(name).unwrap_or(&default)).to_owned();
    let number = |name: &str, default: u64| {
        let value = text(name, &default.to_string());
        value.parse::<u64>().map_err(|error| format!("--{name}={value}: {error}"))
    };
    let ways = text("ways", "both");
    if !["both", "shutdown", "fault-disk"].contains(&ways.as_str()) {
        return Err(format!("--ways={ways}: expected both, shutdown or fault-disk"));
    }
    let encrypted = match text("encrypted", "turns").as_str() {
        "no" => Encrypted::No,
        "turns" => Encrypted::Turns,
        "yes" => Encrypted::Yes,
        other => return Err(format!("--encrypted={other}: expected no, turns or yes")),
    };
    let settings = Settings {
        binary: PathBuf::from(text("binary", env!("CARGO_BIN_EXE_floortape"))),
        folder: PathBuf::from(text("folder", "/tmp/floortape-power")),
        sip: number("sip", 5690)? as u16,
        media: text("media", "52000-57999"),
        streams: number("streams", 50)? as u32,
        seed: number("seed", 1)?,
        shutdowns: ways != "fault-disk",
        fault_disk: ways != "shutdown",
        encrypted,
    };
    let rounds = number("rounds", 30)?;
    let from = number("from", 0)?;
    let file = given.get("resume").map(PathBuf::from);
    let keep_going = text("keep-going", "no") == "yes";
    let mut report = Report::new(file.as_deref())?;
    for life in from / CUTS_PER_LIFE..rounds.div_ceil(CUTS_PER_LIFE) {
        if report.done.contains(&life) {
            continue;
        }
        if let Err(why) = one_life(&settings, life, rounds, &mut report) {
            report.failed.push(format!("life {life}: {why}"));
            report.line(&json!({ "failed": life, "why": why }))?;
            if !keep_going {
                break;
            }
        }
    }
    report.summary(&settings)
}

fn one_life(
    settings: &Settings,
    number: u64,
    rounds: u64,
    report: &mut Report,
) -> Result<(), String> {
    let mut life = Life::new(settings, number)?;
    let mut lines = Vec::new();
    for round in number * CUTS_PER_LIFE..((number + 1) * CUTS_PER_LIFE).min(rounds) {
        let line = life.round(round).map_err(|why| {
            format!("round {round}, repeat with --seed={} --from={round}: {why}", settings.seed)
        })?;
        report.line(&line)?;
        lines.push(line);
    }
    let end = life.end()?;
    report.line(&end)?;
    lines.push(end);
    report.lines.extend(lines);
    Ok(())
}

struct Report {
    file: Option<std::fs::File>,
    done: Vec<u64>,
    lines: Vec<Value>,
    failed: Vec<String>,
}

impl Report {
    fn new(path: Option<&Path>) -> Result<Self, String> {
        let mut report =
            Report { file: None, done: Vec::new(), lines: Vec::new(), failed: Vec::new() };
        let Some(path) = path else { return Ok(report) };
        let before = std::fs::read_to_string(path).unwrap_or_default();
        let lines: Vec<Value> =
            before.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        report.done = lines.iter().filter_map(|line| line["end_of_life"].as_u64()).collect();
        // A life that was broken off is done again as a whole.
        let whole = |line: &&Value| {
            let life = line["life"].as_u64().or(line["end_of_life"].as_u64());
            life.is_some_and(|life| report.done.contains(&life))
        };
        report.lines = lines.iter().filter(whole).cloned().collect();
        let file = OpenOptions::new().create(true).append(true).open(path);
        report.file = Some(file.map_err(|error| format!("{}: {error}", path.display()))?);
        Ok(report)
    }

    fn line(&mut self, line: &Value) -> Result<(), String> {
        println!("{line}");
        if let Some(file) = &mut self.file {
            writeln!(file, "{line}").map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn summary(&self, settings: &Settings) -> Result<String, String> {
        let rounds: Vec<&Value> = self.lines.iter().filter(|line| line["round"].is_u64()).collect();
        let sum = |key: &str| -> u64 {
            rounds.iter().filter_map(|line| line["judge"][key].as_u64()).sum()
        };
        // A life carries them on: the last judgement has all of them.
        let ends = |key: &str| -> u64 {
            let ends = self.lines.iter().filter(|line| line["end_of_life"].is_u64());
            ends.filter_map(|line| line["judge"][key].as_u64()).sum()
        };
        let count =
            |key: &str, value: &str| rounds.iter().filter(|line| line[key] == value).count();
        let worst = rounds
            .iter()
            .filter_map(|line| line["judge"]["lost_ms"].as_f64())
            .fold(0.0_f64, f64::max);
        let beyond = rounds
            .iter()
            .filter_map(|line| {
                Some(line["judge"]["lost_ms"].as_f64()? - line["exposed_ms"].as_f64()?)
            })
            .fold(0.0_f64, f64::max);
        let most = rounds.iter().filter_map(|line| line["judge"]["lost_above"].as_u64()).max();
        let mut ready: Vec<u64> =
            self.lines.iter().filter_map(|line| line["ready_ms"].as_u64()).collect();
        ready.sort_unstable();
        let summary = json!({
            "rounds": rounds.len(),
            "ext4": count("file_system", "ext4"),
            "xfs": count("file_system", "xfs"),
            "shutdown": count("way", "Shutdown"),
            "fault_disk": count("way", "FaultDisk"),
            "encrypted": rounds.iter().filter(|line| line["encrypted"] == true).count(),
            "seed": settings.seed,
            "streams": settings.streams,
            "records_below_the_mark_lost": sum("lost_below"),
            "records_of_no_ring": sum("invented"),
            "keys_on_disk": ends("keys"),
            "nonces_on_disk": ends("nonces"),
            "above_the_mark_ms_max": worst,
            "above_the_mark_beyond_interval_and_sync_ms_max": beyond,
            "above_the_mark_records_max": most,
            "ready_ms_median": ready.get(ready.len() / 2),
            "ready_ms_max": ready.last(),
            "failed": self.failed,
        });
        if !self.failed.is_empty() || rounds.is_empty() {
            return Err(format!("{summary:#}"));
        }
        if beyond > BEYOND_MS_MAX {
            return Err(format!(
                "{beyond} ms more than an interval and a sync lost above the mark: {summary:#}"
            ));
        }
        Ok(format!("{summary:#}"))
    }
}
