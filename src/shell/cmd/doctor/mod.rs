//! `floortape doctor`: what the product says about itself.

mod requirements;

use std::io::Write;

use serde::Serialize;

use requirements::{ROWS, Row};

use super::table::table;
use crate::shell::exit::{Exit, Failure};

/// Say which requirements of RFC 6341 are met, and by which test; exits 1 while one is open.
#[derive(clap::Args)]
pub struct Args {
    /// REQ-001 to REQ-031 and use cases 1 to 12
    #[arg(long, required = true)]
    requirements: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

/// One row as `--json` prints it.
#[derive(Serialize)]
struct Line {
    /// `REQ-001` or `UC-1`.
    id: &'static str,
    /// What it asks, in short.
    asks: &'static str,
    /// `met` or `open`.
    state: &'static str,
    /// Tests that show it, `FILE::NAME`; of an open row those that show a part of it.
    tests: &'static [&'static str],
    /// What is missing, area first; null where it is met.
    open: Option<&'static str>,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let mut out = std::io::stdout().lock();
    let open = ROWS.iter().filter(|row| row.open.is_some()).count();
    if args.json {
        for row in ROWS {
            serde_json::to_writer(&mut out, &line(row))?;
            out.write_all(b"\n")?;
        }
    } else {
        out.write_all(text().as_bytes())?;
        writeln!(out, "\n{} of {} met, {open} open", ROWS.len() - open, ROWS.len())?;
    }
    Ok(if open == 0 { Exit::Yes } else { Exit::No })
}

fn line(row: &Row) -> Line {
    let Row { id, asks, tests, open } = *row;
    let state = if open.is_some() { "open" } else { "met" };
    Line { id, asks, state, tests, open }
}

fn text() -> String {
    let mut rows =
        vec![["ROW", "STATE", "ASKS", "BY, OR WHAT IS MISSING"].map(str::to_owned).to_vec()];
    rows.extend(ROWS.iter().map(line).map(|line| {
        let by = match (line.open, line.tests) {
            (Some(open), _) => open.to_owned(),
            (None, [first, rest @ ..]) => match rest.len() {
                0 => (*first).to_owned(),
                more => format!("{first} and {more} more"),
            },
            (None, []) => String::new(),
        };
        vec![line.id.to_owned(), line.state.to_owned(), line.asks.to_owned(), by]
    }));
    table(&rows)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_row_is_there_once_and_is_met_by_a_test_or_says_what_is_missing() {
        let ids: Vec<&str> = ROWS.iter().map(|row| row.id).collect();
        let wanted: Vec<String> = (1..=31)
            .map(|number| format!("REQ-{number:03}"))
            .chain((1..=12).map(|number| format!("UC-{number}")))
            .collect();
        assert_eq!(ids, wanted);
        for row in ROWS {
            assert!(row.open.is_some() || !row.tests.is_empty(), "{}: met by nothing", row.id);
            let area = row.open.is_none_or(|open| open.split_once(": ").is_some());
            assert!(area, "{}: an open row names its area first", row.id);
        }
    }

    #[test]
    fn every_test_that_is_named_exists() {
        let named: BTreeSet<&str> = ROWS.iter().flat_map(|row| row.tests.iter().copied()).collect();
        for test in named {
            let (file, name) = test.split_once("::").expect("FILE::NAME");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
            let text =
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{test}: {error}"));
            let head = format!("fn {name}() ");
            let at = text.find(&head).unwrap_or_else(|| panic!("{test}: no such function"));
            // Attributes stand right above it.
            let above = text[..at].trim_end();
            let is_test = above.rsplit("\n\n").next().is_some_and(|own| own.contains("#[test]"));
            assert!(is_test, "{test}: no test");
        }
    }

    #[test]
    fn json_has_one_object_for_each_row() {
        for row in ROWS {
            let line = serde_json::to_value(line(row)).expect("plain data");
            assert_eq!(line["state"] == "met", line["open"].is_null(), "{}", row.id);
        }
        assert_eq!(text().lines().count(), ROWS.len() + 1);
    }
}
