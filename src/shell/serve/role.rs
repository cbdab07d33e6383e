//! What a child of keeper does first, whichever role it is.

use std::process::ExitCode;

use crate::host::process;
use crate::plane::keeper::{Role, SPARE_NAME};
use crate::shell::exit::{Exit, Failure};
use crate::shell::log;
use crate::shell::serve::{control, link, media};

/// Plays `role` with the link that keeper gave us as standard input.
///
/// SIGTERM and SIGHUP stay blocked, as inherited: keeper says when a role ends. A role whose link
/// to keeper is closed ends by itself, media after making all durable, because nobody would hold
/// its sockets and memory for a successor.
pub fn main(role: Role) -> ExitCode {
    // A spare has its own name until it is needed.
    let name = std::env::args().next().filter(|name| name == SPARE_NAME);
    process::name_self(name.as_deref().unwrap_or(role.name()));
    process::forbid_cores();
    match play(role) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{}: {:#}", role.name(), failure.error);
            failure.exit.into()
        }
    }
}

fn play(role: Role) -> Result<Exit, Failure> {
    let start = link::start().map_err(|error| {
        let why = format!("this name is for the children of `floortape serve` ({error})");
        Failure::new(Exit::Usage, why)
    })?;
    log::start(&start.config.log.level);
    match role {
        Role::Media => media::run(start),
        Role::Control => {
            process::give_memory_back();
            control::run(start)
        }
    }
}
