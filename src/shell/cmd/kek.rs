//! `floortape kek`: the key-encryption key of an encrypted store: make one, wrap a store's keys by another.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::store::StoreArgs;
use crate::base::ports::{Clock, Entropy};
use crate::config::encryption::Encryption;
use crate::host::clock::SystemClock;
use crate::host::entropy::SystemEntropy;
use crate::host::unlocked;
use crate::shell::exit::{Exit, Failure};
use crate::store::export::manifest::hex;
use crate::store::keys::{KEK_BYTES, Kek};

/// Make a key-encryption key, or change that of an encrypted store
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Write 32 random bytes into a new file, mode 0600; keep a copy elsewhere: without it nobody can
    /// read what it encrypts, ever
    Make {
        /// The file; it must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Wrap the keys of a store by another key-encryption key: from then on the old one opens nothing of
    /// it. A server that runs goes on; put the new key into its configuration before its next start
    Wrap {
        /// The new key
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Print by which fingerprint a key is known
    Show {
        /// The key
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    match args.what {
        What::Make { file } => {
            make(&file)?;
            show(&file)
        }
        What::Show { file } => show(&file),
        What::Wrap { to, store } => wrap(&to, &store),
    }
}

fn named(file: &Path) -> impl FnOnce(std::io::Error) -> Failure + '_ {
    move |error| Failure::new(Exit::Io, format!("{}: {error}", file.display()))
}

fn make(file: &Path) -> Result<(), Failure> {
    let mut key = Zeroizing::new([0; KEK_BYTES]);
    SystemEntropy.fill(key.as_mut());
    let written = || -> std::io::Result<()> {
        let mut made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
        made.write_all(key.as_ref())?;
        made.sync_all()?;
        let folder = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    written().map_err(named(file))
}

fn read(file: &Path) -> Result<Kek, Failure> {
    let kek = unlocked::kek(&Encryption::File(file.to_owned()));
    let missing = || Failure::new(Exit::Usage, "expected a key".to_owned());
    kek.map_err(|error| Failure::new(Exit::Io, error.to_string()))?.ok_or_else(missing)
}

fn show(file: &Path) -> Result<Exit, Failure> {
    let fingerprint = hex(&read(file)?.fingerprint());
    writeln!(std::io::stdout(), "{fingerprint}")?;
    Ok(Exit::Yes)
}

fn wrap(to: &Path, args: &StoreArgs) -> Result<Exit, Failure> {
    let store = args.find()?;
    let from = args.kek()?.ok_or_else(|| {
        Failure::new(Exit::NotFound, format!("the store {} is not encrypted", store.dir.display()))
    })?;
    unlocked::rewrap(&store.dir, &from, &read(to)?, SystemClock.map().wall)?;
    show(to)
}
