//! Rounds as JSON lines, and what they sum up to.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::options::Options;
use super::round::{Kill, Round, deaths};

/// One round as one line.
pub(crate) fn line(options: &Options, number: u64, round: &Round) -> Value {
    let kill = |kill: &Kill| {
        json!({
            "roles": kill.roles,
            "phase": kill.phase,
            "at_ns": kill.at_ns,
            "gap_ms": kill.gap_ms,
            "signalling_ms": kill.signalling_ms,
        })
    };
    let found = &round.found;
    json!({
        "scenario": options.scenario.name(),
        "round": number,
        "seed": options.seed,
        "streams": options.streams,
        "faults": options.faults,
        "valid": round.is_valid(options),
        "late": round.late,
        "late_ms_max": round.late_ms_max,
        "unsent": round.unsent,
        "kills": round.kills.iter().map(kill).collect::<Vec<_>>(),
        "deaths": deaths(found),
        "recovered": round.recovered,
        "recordings": round.recordings,
        "refused": round.refused,
        "sent": found.sent,
        "recorded": found.recorded,
        "missing": found.missing,
        "twice": found.twice,
        "wrong": found.wrong,
        "disorder": found.disorder,
        "damaged": found.damaged.len(),
        "lost": round.lost,
        "gaps": round.gaps,
        "complaints": round.faults,
        "holes": found.holes,
    })
}

/// The rounds of a file; none where it does not exist yet. A torn last line is passed over.
pub(crate) fn load(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// Appends a round.
pub(crate) fn append(file: &Path, line: &Value) -> std::io::Result<()> {
    let mut out = OpenOptions::new().create(true).append(true).open(file)?;
    writeln!(out, "{line}")?;
    out.sync_data()
}

/// Kills of a round: those from outside, or, where fault points did it, the deaths that starts tell of.
pub(crate) fn kills(round: &Value) -> u64 {
    let outside = round["kills"].as_array().map_or(0, Vec::len) as u64;
    match outside {
        0 => round["deaths"].as_u64().unwrap_or(0),
        _ => outside,
    }
}

/// Sums of several rounds, in words. Invalid ones are named and left out.
pub(crate) fn sum(rounds: &[Value]) -> String {
    let mut parts: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for round in rounds {
        parts.entry(round["scenario"].as_str().unwrap_or("?")).or_default().push(round);
    }
    let told: Vec<String> = parts.iter().map(|(name, rounds)| part(name, rounds)).collect();
    told.join("\n")
}

fn part(name: &str, rounds: &[&Value]) -> String {
    let valid: Vec<&&Value> = rounds.iter().filter(|round| round["valid"] == true).collect();
    let total = |key: &str| valid.iter().filter_map(|round| round[key].as_u64()).sum::<u64>();
    let worst = |key: &str| valid.iter().filter_map(|round| round[key].as_u64()).max().unwrap_or(0);
    let kills: u64 = valid.iter().map(|round| kills(round)).sum();
    let each = || valid.iter().flat_map(|round| round["kills"].as_array().into_iter().flatten());
    let mut phases: BTreeMap<String, u64> = BTreeMap::new();
    for kill in each() {
        let word = |key: &str| kill[key].as_str().unwrap_or("?").to_owned();
        *phases.entry(format!("{} {}", word("roles"), word("phase"))).or_default() += 1;
    }
    let phases: Vec<String> =
        phases.iter().map(|(phase, count)| format!("{phase} {count}")).collect();
    let late = 100.0 * total("late") as f64 / total("sent").max(1) as f64;
    let latest = worst("late_ms_max");
    let mut told = format!(
        "{name}: {} rounds, {} invalid, up to {} streams, {kills} kills ({}), {} recordings\n  \
         packets sent {}, recorded {}, missing {}, twice {}, wrong {}, out of order {}; {} found in \
         receive buffers; {late:.1} % of the packets left over 10 ms late, the latest {latest} ms\n",
        valid.len(),
        rounds.len() - valid.len(),
        worst("streams"),
        phases.join(", "),
        total("recordings"),
        total("sent"),
        total("recorded"),
        total("missing"),
        total("twice"),
        total("wrong"),
        total("disorder"),
        total("recovered"),
    );
    for (key, what) in [("gap_ms", "media gap"), ("signalling_ms", "signalling gap")] {
        let mut values: Vec<f64> = each().filter_map(|kill| kill[key].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        if let (Some(first), Some(last)) = (values.first(), values.last()) {
            told += &format!(
                "  {what}: min {first:.1}, median {:.1}, p99 {:.1}, worst {last:.1} ms of {}\n",
                quantile(&values, 0.5),
                quantile(&values, 0.99),
                values.len(),
            );
        }
    }
    let lines = valid.iter().flat_map(|round| round["gaps"].as_array().into_iter().flatten());
    let parts = gap_parts(lines.filter_map(Value::as_str));
    if !parts.is_empty() {
        told += &format!("  media gap, median of each part: {}\n", parts.join(", "));
    }
    told.trim_end().to_owned()
}

/// Medians of the parts of lines such as `…: death and exec 10.0, hand-over 3.0; …`, in their order.
fn gap_parts<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut parts: Vec<(&str, Vec<f64>)> = Vec::new();
    for line in lines {
        let Some((_, line)) = line.split_once(": ") else { continue };
        let line = line.split_once(';').map_or(line, |(line, _)| line);
        for part in line.split(", ") {
            let Some((name, ms)) = part.rsplit_once(' ') else { continue };
            let Ok(ms) = ms.parse() else { continue };
            match parts.iter_mut().find(|(known, _)| *known == name) {
                Some((_, all)) => all.push(ms),
                None => parts.push((name, vec![ms])),
            }
        }
    }
    let median = |(name, mut all): (&str, Vec<f64>)| {
        all.sort_by(f64::total_cmp);
        format!("{name} {:.1}", quantile(&all, 0.5))
    };
    parts.into_iter().map(median).collect()
}

/// Of sorted values.
fn quantile(values: &[f64], share: f64) -> f64 {
    let place = (values.len() as f64 * share).ceil() as usize;
    values[place.clamp(1, values.len()) - 1]
}

/// Median gap of media over these rounds.
pub(crate) fn gap_median_ms(rounds: &[Value]) -> Option<f64> {
    let kills = rounds.iter().flat_map(|round| round["kills"].as_array().into_iter().flatten());
    let mut values: Vec<f64> = kills.filter_map(|kill| kill["gap_ms"].as_f64()).collect();
    values.sort_by(f64::total_cmp);
    (!values.is_empty()).then(|| quantile(&values, 0.5))
}
