//! `floortape check`: whether a configuration is right and this machine can carry it.

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use crate::config::model::{Config, Engine, Steering};
use crate::config::{self, Fault};
use crate::host::{bpf, facts, spare, uring_permit, volume};
use crate::shell::exit::{Exit, Failure};
use crate::shell::{secrets, tls};

/// Check a configuration: syntax, types, arithmetic, then what this machine permits.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
}

/// Which configuration a verb works with.
#[derive(clap::Args, Clone)]
pub struct ConfigArgs {
    /// Configuration file (TOML) [default: built in, on loopback]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Set one key on top of it; VALUE is TOML, a bare word is a text
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

impl ConfigArgs {
    /// The configuration, checked against this machine; prints every fault to stderr.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        let machine = facts::machine();
        config::load_for(self.file.as_deref(), &self.sets, &machine, files).map_err(told)
    }
}

/// What is wrong with the files that a configuration names.
pub(crate) fn files(config: &Config) -> Vec<config::Breach> {
    let mut found = tls::faults(config);
    found.extend(secrets::faults(config));
    found
}

/// Prints the faults and turns them into the exit code for a bad configuration.
pub(crate) fn told(faults: Vec<Fault>) -> Failure {
    for fault in &faults {
        eprintln!("{fault}");
    }
    let plural = if faults.len() == 1 { "" } else { "s" };
    Failure::new(Exit::Config, format!("{} fault{plural} in the configuration", faults.len()))
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let config = args.config.load()?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "configuration  ok: {}", summary(&config))?;
    let unfit = store(&mut out, &config)?;
    let shortfall = facts::disk_free_bytes(&config.store.dir)
        .map(|free| config::reserve_shortfall(&config, free))
        .unwrap_or_else(|error| {
            Some(format!("cannot ask {}: {error}", config.store.dir.display()))
        });
    let faulty = shortfall.is_some();
    writeln!(out, "disk           {}", shortfall.unwrap_or_else(|| "ok".to_owned()))?;
    let expired = certificate(&mut out, &config)?;
    let foreign = addresses(&mut out, &config)?;
    let forbidden = environment(&mut out, &config)?;
    Ok(if unfit || faulty || expired || foreign || forbidden { Exit::Config } else { Exit::Yes })
}

/// Whether `store.dir` is the store that is meant (F18), with its keys. Returns whether it is not.
fn store(out: &mut impl Write, config: &Config) -> std::io::Result<bool> {
    let store = &config.store;
    let fit = spare::guard(&store.dir, store.volume.as_deref(), store.require_mount)
        .and_then(|()| spare::guard_writable(&store.dir))
        .and_then(|()| spare::guard_keys(&store.dir, &config.journal_dir()));
    let volume = volume::read(&store.dir);
    match (&fit, volume) {
        (Err(error), _) => writeln!(out, "store          {error}")?,
        (Ok(()), Ok(volume)) => writeln!(out, "store          ok: {}", volume.id)?,
        (Ok(()), Err(_)) => writeln!(out, "store          ok: made at the first start")?,
    }
    Ok(fit.is_err())
}

/// What the configuration asks for, in one line.
fn summary(config: &Config) -> String {
    let on = match config.address_count() {
        1 => String::new(),
        count => format!(" on {count} addresses"),
    };
    format!(
        "{} streams, {} port pairs{on}, {} worker(s) with a ring of {} MiB, segments of {} MiB",
        config.media.streams_max,
        config.slot_count(),
        config.worker_count(),
        config.ring_bytes() >> 20,
        config.segment_bytes() >> 20
    )
}

/// How long our certificate lasts (F62). Returns whether it has expired.
fn certificate(out: &mut impl Write, config: &Config) -> std::io::Result<bool> {
    let Some(term) = tls::term(&config.sip) else { return Ok(false) };
    writeln!(out, "certificate    {term}")?;
    Ok(term.is_over())
}

/// Whether every address to listen on is this machine's. Returns whether one is not.
fn addresses(out: &mut impl Write, config: &Config) -> std::io::Result<bool> {
    let listed = |key, list: &[SocketAddr]| {
        list.iter().map(|address| (key, address.ip())).collect::<Vec<(&str, IpAddr)>>()
    };
    let mut named = listed("sip.udp", &config.sip.udp);
    named.extend(listed("sip.tcp", &config.sip.tcp));
    named.extend(listed("sip.tls", &config.sip.tls));
    named.extend(config.media.address.0.iter().map(|ip| ("media.address", *ip)));
    let mut foreign = Vec::new();
    for (key, ip) in named {
        if let Err(error) = facts::address_is_ours(ip) {
            foreign.push(format!("{key}: {ip} cannot be bound ({error})"));
        }
    }
    if foreign.is_empty() {
        writeln!(out, "addresses      ok")?;
    }
    for text in &foreign {
        writeln!(out, "addresses      {text}; `ip -brief address` lists what this machine has")?;
    }
    Ok(!foreign.is_empty())
}

/// One line per permission. Returns whether something is missing that the configuration requires;
/// everything else degrades (F75).
fn environment(out: &mut impl Write, config: &Config) -> std::io::Result<bool> {
    let uring = uring_permit::permitted();
    let required = config.media.engine == Engine::IoUring;
    let forbidden = required && uring.is_err();
    let otherwise = if required { "required by media.engine" } else { "recvmmsg is used instead" };
    writeln!(out, "io_uring       {}", verdict(uring, otherwise))?;

    let wanted = config.media.steering;
    let steering = bpf::permitted();
    let astray = wanted == Steering::On && steering.is_err();
    let otherwise = if astray {
        "required by media.steering"
    } else {
        "each port is received from its own socket instead"
    };
    let steering = match wanted {
        Steering::Off => "off by media.steering".to_owned(),
        Steering::Auto | Steering::On => verdict(steering, otherwise),
    };
    writeln!(out, "steering       {steering}")?;

    let memory = config.ring_bytes() * u64::from(config.worker_count());
    let locked = facts::raise_memlock();
    let text = if locked >= memory {
        "ok".to_owned()
    } else {
        format!("limit {} MiB is below the ring: its pages may be swapped", locked >> 20)
    };
    writeln!(out, "locked memory  {text}")?;
    let raised = facts::raise_descriptors();
    writeln!(out, "descriptors    ok: limit raised to {raised}, {} needed", config.descriptors())?;
    let direct = facts::direct_writes_permitted(&config.store.dir);
    writeln!(out, "direct writes  {}", verdict(direct, "buffered writes are used instead"))?;
    Ok(forbidden || astray)
}

fn verdict(permitted: Result<(), impl Display>, otherwise: &str) -> String {
    match permitted {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("not permitted ({error}): {otherwise}"),
    }
}
