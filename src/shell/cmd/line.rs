//! The command line: which verbs there are. A verb exists when it works.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{
    audit, check, demo, doctor, export, hold, kek, key, ls, peaks, play, rebuild, retention, rs,
    search, serve, show, src, tap, verify,
};
use crate::shell::exit::{Exit, Failure};

/// Floortape, a SIPREC Session Recording Server.
#[derive(Parser)]
#[command(name = "floortape", version, max_term_width = 100)]
struct Line {
    #[command(subcommand)]
    verb: Verb,
}

/// One variant per verb; its help is the doc comment of the verb's `Args`.
#[derive(Subcommand)]
enum Verb {
    Demo(demo::Args),
    Serve(serve::Args),
    Check(check::Args),
    Src(src::Args),
    Ls(ls::Args),
    Search(search::Args),
    Show(show::Args),
    Export(export::Args),
    Peaks(peaks::Args),
    Play(play::Args),
    Tap(tap::Args),
    Verify(verify::Args),
    Hold(hold::Args),
    Retention(retention::Args),
    Rebuild(rebuild::Args),
    Key(key::Args),
    Rs(rs::Args),
    Audit(audit::Args),
    Doctor(doctor::Args),
    Kek(kek::Args),
}

impl Verb {
    fn run(self) -> Result<Exit, Failure> {
        match self {
            Verb::Demo(args) => demo::run(args),
            Verb::Serve(args) => serve::run(args),
            Verb::Check(args) => check::run(args),
            Verb::Src(args) => src::run(args),
            Verb::Ls(args) => ls::run(args),
            Verb::Search(args) => search::run(args),
            Verb::Show(args) => show::run(args),
            Verb::Export(args) => export::run(args),
            Verb::Peaks(args) => peaks::run(args),
            Verb::Play(args) => play::run(args),
            Verb::Tap(args) => tap::run(args),
            Verb::Verify(args) => verify::run(args),
            Verb::Hold(args) => hold::run(args),
            Verb::Retention(args) => retention::run(args),
            Verb::Rebuild(args) => rebuild::run(args),
            Verb::Key(args) => key::run(args),
            Verb::Rs(args) => rs::run(args),
            Verb::Audit(args) => audit::run(args),
            Verb::Doctor(args) => doctor::run(args),
            Verb::Kek(args) => kek::run(args),
        }
    }
}

/// 128 + SIGPIPE, as shells have it.
const CLOSED_PIPE: u8 = 141;

/// Parses the command line and runs the verb.
pub fn main() -> ExitCode {
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            // clap writes help to stdout and faults to stderr; a closed pipe is no concern of ours.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Yes }.into();
        }
    };
    ended(line.verb.run())
}

/// Runs the verb that `words` are, for a caller who has put them together and knows that they are one.
pub(crate) fn run(words: Vec<OsString>) -> Result<Exit, Failure> {
    let line = Line::try_parse_from(words).map_err(|error| Failure::new(Exit::Usage, error))?;
    line.verb.run()
}

/// Says what went wrong, if anything did.
pub(crate) fn ended(done: Result<Exit, Failure>) -> ExitCode {
    match done {
        Ok(exit) => exit.into(),
        // As a program that SIGPIPE ends: what nobody has read is no "yes".
        Err(failure) if closed_pipe(&failure.error) => ExitCode::from(CLOSED_PIPE),
        Err(failure) => {
            eprintln!("floortape: {}", told(&failure.error));
            failure.exit.into()
        }
    }
}

/// An error and its causes, without those that the text before them tells already.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether our reader went away (`floortape ls | head`): that ends the output, and nothing is to be said
/// about it. serde_json leaves its own I/O error out of its causes.
fn closed_pipe(error: &anyhow::Error) -> bool {
    use std::io::ErrorKind;
    error.chain().any(|cause| {
        let kind = match cause.downcast_ref::<serde_json::Error>() {
            Some(json) => json.io_error_kind(),
            None => cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind),
        };
        kind == Some(ErrorKind::BrokenPipe)
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let denied = || std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let both = anyhow::Error::new(denied()).context("journal: permission denied");
        assert_eq!(told(&both), "journal: permission denied");
        let apart = anyhow::Error::new(denied()).context("journal");
        assert_eq!(told(&apart), "journal: permission denied");
    }

    #[test]
    fn a_reader_that_went_away_is_known_however_we_wrote() {
        struct Closed;
        impl std::io::Write for Closed {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let json = serde_json::to_writer(Closed, &1).expect_err("closed");
        assert!(closed_pipe(&anyhow::Error::new(json)));
        let plain = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert!(closed_pipe(&anyhow::Error::new(plain).context("the list")));
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(!closed_pipe(&anyhow::Error::new(full)));
    }

    #[test]
    fn the_command_line_is_consistent_and_every_verb_has_help() {
        Line::command().debug_assert();
        for verb in Line::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{} has no help", verb.get_name());
        }
    }
}
