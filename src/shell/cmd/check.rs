//! `floortape check`: whether a configuration is right and this machine can carry it, and which core
//! does what.

use std::fmt::Display;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::path::PathBuf;

use serde::Serialize;

use super::check_map::{Map, Told};
use crate::base::ports::Clock;
use crate::config::encryption::Encryption;
use crate::config::machine::Machine;
use crate::config::model::{Config, Engine, Steering};
use crate::config::{self, Fault};
use crate::host::clock::SystemClock;
use crate::host::{bpf, cards, facts, outlet, spare, unlocked, uring_permit, volume, xdp};
use crate::shell::exit::{Exit, Failure};
use crate::shell::{kept, secrets, tls};
use crate::store::export::manifest::hex;

/// Check a configuration: syntax, types, arithmetic, then what this machine permits; shows which core
/// does what.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub(crate) config: ConfigArgs,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// Which configuration a verb works with.
#[derive(clap::Args, Clone)]
pub struct ConfigArgs {
    /// Configuration file (TOML); a further one stands above those before it, key by key [default: built
    /// in, on loopback]
    #[arg(short = 'c', long = "config", value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Set one key on top of it; VALUE is TOML, a bare word is a text
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) sets: Vec<String>,
}

impl ConfigArgs {
    /// The configuration, checked against this machine; prints every fault to stderr.
    pub(crate) fn load(&self) -> Result<Config, Failure> {
        self.load_for(&facts::machine()).map_err(told)
    }

    /// The same, where it can be had without a fault: for those who ask what they may not need.
    pub(crate) fn load_quietly(&self) -> Option<Config> {
        config::load(&self.files, &self.sets).ok()
    }

    fn load_for(&self, machine: &Machine) -> Result<Config, Vec<Fault>> {
        config::load_for(&self.files, &self.sets, machine, files)
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

/// What was looked at.
#[derive(Serialize)]
struct Line {
    /// In one or two words.
    name: &'static str,
    /// Whether the server would start and record so.
    ok: bool,
    /// `ok`, or what is not.
    text: String,
}

/// A fault as `--json` prints it.
#[derive(Serialize)]
struct FaultLine {
    origin: String,
    line: Option<usize>,
    column: Option<usize>,
    key: String,
    why: String,
    fix: String,
}

/// What `--json` prints.
#[derive(Default, Serialize)]
struct Report {
    /// Whether a server with this configuration would start here and record.
    ok: bool,
    faults: Vec<FaultLine>,
    checks: Vec<Line>,
    placement: Option<Map>,
    /// What cpu.rx could say, with `workers = 0`; null where it says something, or there is no choice.
    proposal: Option<String>,
    /// What works, and not as well as it could.
    warnings: Vec<Told>,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let mut machine = facts::machine();
    let config = match args.config.load_for(&machine) {
        Ok(config) => config,
        Err(faults) => {
            if args.json {
                let lines = faults.iter().map(fault_line).collect();
                print(&Report { faults: lines, ..Report::default() })?;
            }
            return Err(told(faults));
        }
    };
    let cards = facts::cards_of(&config.media.address.0);
    let unasked = cards.as_ref().err().map(ToString::to_string);
    machine.cards = cards.unwrap_or_default();
    let report = report(&config, &machine);
    if args.json {
        print(&report)?;
    } else {
        show(&report, unasked)?;
    }
    Ok(if report.ok { Exit::Yes } else { Exit::Config })
}

fn print(report: &Report) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, report)?;
    out.write_all(b"\n")
}

fn fault_line(fault: &Fault) -> FaultLine {
    let Fault { origin, place, key, why, fix } = fault.clone();
    let (line, column) = place.map(|place| (place.line, place.column)).unzip();
    FaultLine { origin, line, column, key, why, fix }
}

/// One line for each thing that was looked at, the map, and the warnings below it.
fn show(report: &Report, unasked: Option<String>) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for Line { name, text, .. } in &report.checks {
        writeln!(out, "{name:<13}  {text}")?;
    }
    if let Some(map) = &report.placement {
        write!(out, "\n{}", map.text())?;
    }
    if let Some(why) = unasked {
        writeln!(out, "\nnetwork cards are unknown: the kernel may not be asked ({why})")?;
    }
    if let Some(rx) = &report.proposal {
        writeln!(out, "\nto pin them here: [cpu] workers = 0, rx = \"{rx}\"")?;
    }
    for Told { key, why, fix } in &report.warnings {
        write!(out, "\nwarning: {key}: {why}\n  fix: {fix}\n")?;
    }
    Ok(())
}

/// F16: a shortfall, and what keeps the bytes that are there.
fn blocked(config: &Config, why: String) -> String {
    let is_store = config.store.dir.join("segments").is_dir();
    let keeps = is_store.then(|| kept::keeps(config, SystemClock.map().wall));
    match keeps.and_then(Result::ok).filter(|words| !words.is_empty()) {
        Some(words) => format!("{why}; kept by {words}"),
        None => why,
    }
}

fn report(config: &Config, machine: &Machine) -> Report {
    let mut checks = vec![line("configuration", true, format!("ok: {}", summary(config)))];
    checks.push(store(config));
    checks.extend(encryption(config));
    let shortfall = facts::room_bytes(config.store.dirs().map(facts::existing_folder))
        .map(|free| config::reserve_shortfall(config, free))
        .unwrap_or_else(|(folder, error)| {
            Some(format!("cannot ask {}: {error}", folder.display()))
        });
    let shortfall = shortfall.map(|why| blocked(config, why));
    checks.push(line("disk", shortfall.is_none(), shortfall.unwrap_or_else(|| "ok".to_owned())));
    checks.extend(certificate(config));
    checks.extend(addresses(config));
    checks.extend(environment(config));
    let doubts = config::doubts(config, machine).into_iter().chain(beside_itself(config));
    let doubts = doubts.chain(dead_ends(config));
    let warnings: Vec<Told> = doubts.map(Told::from).collect();
    let map = Map::of(config, machine);
    checks.push(line("placement", true, map.summary(warnings.len())));
    let ok = checks.iter().all(|line| line.ok);
    let proposal = config::proposal(config, machine);
    Report { ok, faults: Vec::new(), checks, placement: Some(map), proposal, warnings }
}

fn line(name: &'static str, ok: bool, text: String) -> Line {
    Line { name, ok, text }
}

/// Whether `store.dir` is the store that is meant (F18), with its keys.
fn store(config: &Config) -> Line {
    let store = &config.store;
    let fit = spare::guard(&store.dir, store.volume.as_deref(), store.require_mount)
        .and_then(|()| spare::guard_writable(&store.dir))
        .and_then(|()| spare::guard_keys(&store.dir, &config.journal_dir()));
    let text = match (&fit, volume::read(&store.dir)) {
        (Err(error), _) => error.to_string(),
        (Ok(()), Ok(volume)) => format!("ok: {}", volume.id),
        (Ok(()), Err(_)) => "ok: made at the first start".to_owned(),
    };
    line("store", fit.is_ok(), text)
}

/// Whether the key-encryption key opens the store (F73); nothing where neither is.
fn encryption(config: &Config) -> Option<Line> {
    let (store, wanted) = (&config.store.dir, &config.store.encryption);
    let line = |ok, text| Some(line("encryption", ok, text));
    if let Encryption::Credential(name) = wanted
        && std::env::var_os("CREDENTIALS_DIRECTORY").is_none()
    {
        return line(true, format!("only the service sees the credential {name}"));
    }
    match unlocked::probe(store, wanted) {
        Ok(None) => None,
        Ok(Some(fingerprint)) => line(true, format!("ok: key {}", hex(&fingerprint))),
        Err(error) => line(false, error.to_string()),
    }
}

/// A log that lies where the store does goes and comes back with it.
fn beside_itself(config: &Config) -> Option<config::Breach> {
    let file = config.evidence.anchor_file.as_deref()?;
    let device = |path: &Path| {
        let there = path.ancestors().find(|one| one.exists()).unwrap_or(Path::new("."));
        std::fs::metadata(there).ok().map(|of| std::os::unix::fs::MetadataExt::dev(&of))
    };
    let folder = std::path::absolute(file).ok()?;
    let store = std::path::absolute(&config.store.dir).ok()?;
    (device(&folder).is_some() && device(&folder) == device(&store)).then(|| config::Breach {
        path: "evidence.anchor_file",
        why: "it lies on the disk of store.dir: whoever rolls that back takes the anchors along"
            .into(),
        fix: Some("name a file on another disk, or evidence.syslog or evidence.webhook".into()),
    })
}

/// Places that would take no anchor from the start on; it goes on all the same, and is an alarm minutes later.
fn dead_ends(config: &Config) -> Vec<config::Breach> {
    let evidence = &config.evidence;
    let mut found = Vec::new();
    if let Some(Err(error)) = evidence.webhook_token.as_deref().map(outlet::token_in) {
        let fix = Some("name a file with one line, mode 0600".into());
        found.push(config::Breach { path: "evidence.webhook_token", why: error.to_string(), fix });
    }
    let folder = evidence.anchor_file.as_deref().and_then(Path::parent);
    if let Some(folder) = folder.filter(|folder| *folder != Path::new("") && !folder.is_dir()) {
        let why = format!("there is no folder {}", folder.display());
        let fix = Some("make it, or mount its disk".into());
        found.push(config::Breach { path: "evidence.anchor_file", why, fix });
    }
    found
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

/// How long our certificate lasts (F62).
fn certificate(config: &Config) -> Option<Line> {
    let term = tls::term(&config.sip)?;
    Some(line("certificate", !term.is_over(), term.to_string()))
}

/// Whether every address to listen on is this machine's; a line for each that is not.
fn addresses(config: &Config) -> Vec<Line> {
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
            let text = format!(
                "{key}: {ip} cannot be bound ({error}); `ip -brief address` lists what this machine has"
            );
            foreign.push(line("addresses", false, text));
        }
    }
    if foreign.is_empty() {
        foreign.push(line("addresses", true, "ok".to_owned()));
    }
    foreign
}

/// One line per permission. Wrong is only what the configuration requires; everything else degrades
/// (F75).
fn environment(config: &Config) -> Vec<Line> {
    let uring = uring_permit::permitted();
    let required = config.media.engine == Engine::IoUring;
    let forbidden = required && uring.is_err();
    let otherwise = if required { "required by media.engine" } else { "recvmmsg is used instead" };
    let uring = line("io_uring", !forbidden, verdict(uring, otherwise));

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
    let steering = line("steering", !astray, steering);

    let diversion = (config.media.engine == Engine::Xdp).then(|| diversion(config));

    let memory = config.ring_bytes() * u64::from(config.worker_count());
    let locked = facts::raise_memlock();
    let text = if locked >= memory {
        "ok".to_owned()
    } else {
        format!("limit {} MiB is below the ring: its pages may be swapped", locked >> 20)
    };
    let locked = line("locked memory", true, text);
    let raised = facts::raise_descriptors();
    let text = format!("ok: limit raised to {raised}, {} needed", config.descriptors());
    let descriptors = line("descriptors", true, text);
    let direct = facts::direct_writes_permitted(&config.store.dir);
    let direct = line("direct writes", true, verdict(direct, "buffered writes are used instead"));
    [uring, steering].into_iter().chain(diversion).chain([locked, descriptors, direct]).collect()
}

/// Whether frames can be diverted, and which of them will be.
fn diversion(config: &Config) -> Line {
    let interface = config.media.interface.as_deref().unwrap_or_default();
    let permitted = xdp::permitted().and_then(|()| xdp::Card::named(interface));
    if let Err(error) = permitted {
        return line("diversion", false, format!("{error}: required by media.engine"));
    }
    let (workers, queues) = (u32::from(config.worker_count()), cards::queues(interface));
    match queues {
        Some(queues) if queues < workers => {
            let why =
                format!("{interface} has {queues} queues for {workers} workers: set cpu.workers");
            line("diversion", false, why)
        }
        Some(queues) if queues > workers => {
            let text = format!(
                "what {interface} takes by queues {workers} to {} of {queues} comes by the sockets: \
                 `ethtool -L {interface} combined {workers}`",
                queues - 1
            );
            line("diversion", true, text)
        }
        _ => line("diversion", true, "ok".to_owned()),
    }
}

fn verdict(permitted: Result<(), impl Display>, otherwise: &str) -> String {
    match permitted {
        Ok(()) => "ok".to_owned(),
        Err(error) => format!("not permitted ({error}): {otherwise}"),
    }
}
