//! The crash harness: `kill -9` of a real `floortape serve` under load, and what stands on disk
//! afterwards, read by code that shares nothing with it.
//!
//! ```text
//! cargo test --release --test kill                                  a few kills of each kind
//! cargo test --release --test kill -- media --kills 40              40 kills at 25,000 packets/s
//! cargo test --release --test kill -- media --kills 1000 --resume FILE   goes on where it stopped
//! cargo test --release --test kill -- --report FILE                 the sum of what was gathered
//! ```
//! A round is one server with one load. Its packets carry their number and a content that only
//! their stream has, so the judge sees what is missing, there twice, on the wrong stream or out of
//! order. A round whose generator was late proves nothing: it is said to be INVALID and repeated
//! twice at most. `tests/crash.sh` adds fault points, negative controls and dialogs that never rest.

mod aim;
mod caller;
mod checked;
#[path = "../server/copy.rs"]
mod copy;
mod judge;
mod load;
mod options;
mod prng;
#[path = "../server/process.rs"]
mod process;
mod reader;
mod recorder;
mod report;
mod round;
mod sipp;

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use options::{Options, Scenario, USAGE};
use rustix::process::{getpid, set_child_subreaper};
use serde_json::Value;

/// An INVALID round is repeated so often.
const REPEATS_MAX: u32 = 2;

fn main() -> ExitCode {
    reader::check();
    // Roles outlive their keeper; without this they would become children of process 1.
    set_child_subreaper(Some(getpid())).expect("Linux 3.4 or later");
    let words: Vec<String> = std::env::args().skip(1).collect();
    let scenario = |word: &String| Scenario::ALL.iter().find(|(name, _)| name == word);
    let told = match &words[..] {
        [first, file] if first == "--report" => Ok(report::sum(&report::load(Path::new(file)))),
        [first, rest @ ..] if scenario(first).is_some() => {
            let (_, scenario) = scenario(first).expect("just found");
            match Options::parse(*scenario, rest) {
                Ok(options) => run(&options),
                Err(why) => {
                    eprintln!("{why}\n{USAGE}");
                    return ExitCode::from(2);
                }
            }
        }
        [first, ..] if !first.starts_with('-') => {
            // A filter for test names, as cargo passes it to every target: nothing here has one.
            return ExitCode::SUCCESS;
        }
        [] => few(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match told {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A few kills of each kind, for `cargo test`: all that leave keeper alone beside each other.
fn few() -> Result<String, String> {
    let begin = Instant::now();
    let play = |(scenario, kills): &(Scenario, u64)| {
        let mut options = Options::new(*scenario);
        options.streams = 20;
        options.kills = *kills;
        options.spacing_ms = 300;
        options.ports = "42000-45999".to_owned();
        options.checker = *scenario == Scenario::Media;
        run(&options)
    };
    let beside: Vec<Result<String, String>> = std::thread::scope(|scope| {
        let running: Vec<_> = FEW.iter().map(|one| scope.spawn(move || play(one))).collect();
        running.into_iter().map(|one| one.join().expect("no panic")).collect()
    });
    let mut told: Vec<String> = beside.into_iter().collect::<Result<_, _>>()?;
    told.push(play(&(Scenario::Pair, 3))?);
    Ok(format!("{}\nin {:.0} s", told.join("\n"), begin.elapsed().as_secs_f64()))
}

/// What [`few`] plays at once.
const FEW: &[(Scenario, u64)] = &[
    (Scenario::Media, 4),
    (Scenario::Control, 4),
    (Scenario::Restart, 4),
    (Scenario::Seal, 2),
    (Scenario::Engine, 2),
];

/// Plays rounds until all kills are done; what came out, or why it is not as it should be.
fn run(options: &Options) -> Result<String, String> {
    let mut rounds: Vec<Value> = match &options.resume {
        Some(file) => report::load(file),
        None => Vec::new(),
    };
    rounds.retain(|round| round["scenario"] == options.scenario.name());
    let mut faults: Vec<String> = rounds.iter().filter_map(|round| fault(options, round)).collect();
    let mut invalid = 0;
    loop {
        let valid = rounds.iter().filter(|round| round["valid"] == true);
        let done: u64 = valid.map(report::kills).sum();
        if done >= options.kills || options.kills == 0 && !rounds.is_empty() {
            break;
        }
        let number = rounds.len() as u64;
        let kills = (options.kills - done).min(options.kills_per_round);
        let begin = Instant::now();
        let round = round::play(options, number, kills)?;
        let line = report::line(options, number, &round);
        if let Some(file) = &options.resume {
            report::append(file, &line).map_err(|error| error.to_string())?;
        }
        let name = options.scenario.name();
        eprintln!(
            "{name} round {number}: {} kills, {} packets, {} missing (the ledgers: {:?}), {} twice, {} late \
             (up to {} ms), {:.0} s{}",
            report::kills(&line),
            round.found.recorded,
            round.found.missing,
            round.lost,
            round.found.twice,
            round.late,
            round.late_ms_max,
            begin.elapsed().as_secs_f64(),
            if round.is_valid(options) { "" } else { ": INVALID, the generator was late" },
        );
        if round.is_valid(options) {
            invalid = 0;
            faults.extend(fault(options, &line));
            if report::kills(&line) == 0 && options.kills > 0 {
                return Err(format!("{name}: a round without a kill"));
            }
        } else {
            invalid += 1;
            if invalid > REPEATS_MAX {
                return Err(format!(
                    "{name}: the generator was late {invalid} times in a row: nothing is proven"
                ));
            }
        }
        rounds.push(line);
    }
    let told = report::sum(&rounds);
    if let Some(limit) = options.gap_median_ms
        && let Some(median) = report::gap_median_ms(&rounds).filter(|median| *median > limit)
    {
        faults.push(format!("median gap {median:.1} ms, expected at most {limit}"));
    }
    if faults.is_empty() { Ok(told) } else { Err(format!("{}\n{told}", faults.join("\n"))) }
}

/// What is wrong with a valid round.
fn fault(options: &Options, round: &Value) -> Option<String> {
    if round["valid"] != true {
        return None;
    }
    let count = |key: &str| round[key].as_u64().unwrap_or(0);
    let bad: Vec<String> = ["missing", "twice", "wrong", "disorder", "damaged"]
        .into_iter()
        .filter(|key| count(key) > 0)
        .map(|key| format!("{} {key}", count(key)))
        .collect();
    let complaints = round["complaints"].as_array().filter(|list| !list.is_empty());
    if options.red {
        let green = bad.is_empty() && complaints.is_none();
        return green.then(|| "a negative control found nothing wrong".to_owned());
    }
    if bad.is_empty() && complaints.is_none() {
        return None;
    }
    Some(format!(
        "round {}: {}; {} {}",
        round["round"],
        bad.join(", "),
        complaints.map(|list| Value::Array(list.clone()).to_string()).unwrap_or_default(),
        round["holes"],
    ))
}
