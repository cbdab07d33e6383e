//! `floortape serve`: the server, in the foreground.

use crate::config;
use crate::host::facts;
use crate::shell::cmd::check::{ConfigArgs, files, told};
use crate::shell::exit::{Exit, Failure};
use crate::shell::log;
use crate::shell::serve::keeper;
use crate::shell::serve::upgrade::{self, Handed};

/// Record: run the server in the foreground until SIGTERM (drains; a second one ends at once).
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    // First of all: nothing may have been opened yet.
    let handed = Handed::inherit();
    let ConfigArgs { files: paths, sets } = args.config;
    // Both are read before anything of ours takes memory or descriptors.
    let machine = facts::machine();
    let load = || config::load_for(&paths, &sets, &machine, files);
    let loaded = match load().map_err(told) {
        Ok(loaded) => loaded,
        Err(failure) => {
            log::start("info");
            return Err(upgrade::failed(handed, failure));
        }
    };
    log::start(&loaded.log.level);
    // Too small a disk is no reason not to start: calls get 503 until there is room (F11).
    if let Ok(free) = facts::room_bytes(loaded.store.dirs().map(facts::existing_folder))
        && let Some(shortfall) = config::reserve_shortfall(&loaded, free)
    {
        tracing::warn!("{shortfall}");
    }
    for doubt in config::doubts(&loaded, &machine) {
        tracing::warn!("{}: {}", doubt.path, doubt.why);
    }
    keeper::run(loaded, handed, &load)
}
