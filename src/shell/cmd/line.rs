//! The command line: which verbs there are. A verb exists when it works.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::{check, demo, doctor, export, ls, rebuild, rs, serve, show, src, verify};
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
    Show(show::Args),
    Export(export::Args),
    Verify(verify::Args),
    Rebuild(rebuild::Args),
    Rs(rs::Args),
    Doctor(doctor::Args),
}

impl Verb {
    fn run(self) -> Result<Exit, Failure> {
        match self {
            Verb::Demo(args) => demo::run(args),
            Verb::Serve(args) => serve::run(args),
            Verb::Check(args) => check::run(args),
            Verb::Src(args) => src::run(args),
            Verb::Ls(args) => ls::run(args),
            Verb::Show(args) => show::run(args),
            Verb::Export(args) => export::run(args),
            Verb::Verify(args) => verify::run(args),
            Verb::Rebuild(args) => rebuild::run(args),
            Verb::Rs(args) => rs::run(args),
            Verb::Doctor(args) => doctor::run(args),
        }
    }
}

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
    match line.verb.run() {
        Ok(exit) => exit.into(),
        Err(failure) if closed_pipe(&failure.error) => Exit::Yes.into(),
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

/// Whether our reader went away (`floortape ls | head`): that ends the output, and is no failure.
fn closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
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
    fn the_command_line_is_consistent_and_every_verb_has_help() {
        Line::command().debug_assert();
        for verb in Line::command().get_subcommands() {
            assert!(verb.get_about().is_some(), "{} has no help", verb.get_name());
        }
    }
}
