//! `floortape src call`: the built-in recording client.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use crate::base::suite::{Agreed, Suite};
use crate::client::g711::Law;
use crate::client::media::{PAYLOAD_BYTES, numbered};
use crate::client::{Drops, wav};
use crate::shell::client::load::{self, LoadError, Outcome, Plan, Sent};
use crate::shell::client::signalling::{ConnectError, Target, TlsFiles};
use crate::shell::exit::{Exit, Failure};
use crate::store::evidence::Digest;
use crate::store::export::manifest::hex;

/// Play the recording client: call a recorder and send it streams.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    Call(Box<CallArgs>),
}

/// Call a recorder: N streams in N/K calls, started together, 50 packets a second each.
#[derive(clap::Args)]
struct CallArgs {
    /// Whom to call, such as sip:srs@192.0.2.20:5060;transport=tcp
    #[arg(long, value_name = "URI")]
    to: String,
    /// How media is protected
    #[arg(long, value_enum, default_value = "sdes")]
    srtp: Srtp,
    /// Crypto suite that is offered; with UNENCRYPTED_SRTP or UNENCRYPTED_SRTCP behind a space what is
    /// authenticated only
    #[arg(long, value_name = "NAME", default_value = "AES_CM_128_HMAC_SHA1_80", value_parser = suite)]
    suite: Agreed,
    /// Streams in all
    #[arg(long, value_name = "N", default_value = "2", value_parser = 1..=20_000)]
    streams: i64,
    /// Streams of one call; with 1 a stream carries both parties
    #[arg(long, value_name = "K", default_value = "2", value_parser = 1..=16)]
    streams_per_call: i64,
    /// 16-bit PCM to play, one file a stream, repeated over the streams [default: melodies]
    #[arg(long, value_name = "FILE")]
    wav: Vec<PathBuf>,
    /// Seconds to send [default: 10, or as long as the longest WAV]
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<f64>,
    /// Codec
    #[arg(long, value_enum, default_value = "pcmu")]
    codec: Codec,
    /// Leave out COUNT packets of each stream from packet START on (0 is the first); they still
    /// count as sent in the sender reports
    #[arg(long, value_name = "START:COUNT", conflicts_with = "wav")]
    drop: Option<Drops>,
    /// Send packets that carry their number (64 bits, big-endian), then SplitMix64 words
    /// (little-endian) from the state SEED xor SSRC xor number
    #[arg(long, conflicts_with = "wav")]
    numbered: bool,
    /// Send media of many streams from one port, many packets with each system call, instead of each
    /// stream from the port that it announces: costs the least on the recorder's own machine
    #[arg(long)]
    one_port: bool,
    /// Decides SSRCs, first sequence numbers and timestamps, and numbered payloads; never keys
    /// [default: random]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// Make a call that gets 503 again, not before its Retry-After, for so many seconds
    #[arg(long, value_name = "S", value_parser = seconds)]
    retry: Option<f64>,
    /// Offer new keys in each call by re-INVITE every so many seconds
    #[arg(long, value_name = "S", value_parser = seconds)]
    rekey: Option<f64>,
    /// CA of the server's certificate (PEM), for a `sips:` URI or `transport=tls`; without one no
    /// server is trusted
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Our own certificate (PEM), for servers that ask for one
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// SIP domain that the server's certificate must name [default: the host of --to]
    #[arg(long, value_name = "DOMAIN")]
    tls_domain: Option<String>,
    /// File with one line user:password (mode 0600), to answer challenges with
    #[arg(long, value_name = "FILE")]
    digest: Option<PathBuf>,
    /// Print what was sent as JSON on the last line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Srtp {
    /// Keys in the offer (RFC 4568)
    Sdes,
    /// Plain RTP
    None,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Codec {
    /// G.711 µ-law
    Pcmu,
    /// G.711 A-law
    Pcma,
}

fn suite(text: &str) -> Result<Agreed, String> {
    let names = || Suite::ALL.map(Suite::name).join(", ");
    let parameters = "UNENCRYPTED_SRTP (not with AEAD) or UNENCRYPTED_SRTCP behind it";
    let fault = |_| format!("expected one of {}, perhaps {parameters}", names());
    Agreed::try_from(text.to_owned()).map_err(fault)
}

fn seconds(text: &str) -> Result<f64, String> {
    let fault = || "expected seconds from 0.02 to 1000000".to_owned();
    text.parse().ok().filter(|value| (0.02..=1e6).contains(value)).ok_or_else(fault)
}

fn milliseconds(seconds: Option<f64>) -> u64 {
    seconds.map_or(0, |seconds| (seconds * 1e3) as u64)
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let Role::Call(args) = args.role;
    let plan = plan(&args)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    // A second ^C while the calls are being ended changes nothing: the SRS would be left with them.
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;
    let outcome = load::run(&plan, &stop, &mut |stage| eprintln!("{stage}")).map_err(failure)?;
    let mut out = std::io::stdout().lock();
    if args.json {
        writeln!(out, "{}", report(&outcome, &plan))?;
    } else {
        table(&mut out, &outcome)?;
    }
    if outcome.ended_by_peer > 0 {
        eprintln!("floortape: the recorder ended {} calls early", outcome.ended_by_peer);
    }
    Ok(match (outcome.interrupted, outcome.ended_by_peer == 0) {
        (true, _) => Exit::Interrupted,
        (false, true) => Exit::Yes,
        (false, false) => Exit::No,
    })
}

fn plan(args: &CallArgs) -> Result<Plan, Failure> {
    let target = Target::parse(&args.to).map_err(|error| failure(error.into()))?;
    let mut wavs = Vec::new();
    for path in &args.wav {
        let context = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = std::fs::read(path).map_err(|error| Failure::new(Exit::Io, context(&error)))?;
        wavs.push(wav::parse(&bytes).map_err(|error| Failure::new(Exit::Usage, context(&error)))?);
    }
    let longest = wavs.iter().map(|samples| samples.len().div_ceil(160) as u64).max();
    let packets = match (args.duration, longest) {
        (Some(seconds), _) => load::packets(seconds),
        (None, Some(packets)) => packets,
        (None, None) => load::packets(10.0),
    };
    Ok(Plan {
        target,
        tls: TlsFiles {
            ca: args.tls_ca.clone(),
            own: args.tls_cert.clone().zip(args.tls_key.clone()),
            domain: args.tls_domain.clone(),
        },
        digest: args.digest.clone(),
        suite: (args.srtp == Srtp::Sdes).then_some(args.suite),
        law: if args.codec == Codec::Pcmu { Law::Mu } else { Law::A },
        streams: args.streams as usize,
        streams_per_call: args.streams_per_call as usize,
        wavs,
        numbered: args.numbered,
        one_port: args.one_port,
        retry_ms: milliseconds(args.retry),
        rekey_ms: milliseconds(args.rekey),
        packets,
        drops: args.drop.unwrap_or_default(),
        drops_in: None,
        seed: args.seed.unwrap_or_else(random),
    })
}

pub(crate) fn random() -> u64 {
    use crate::base::ports::Entropy;
    let mut bytes = [0; 8];
    crate::host::entropy::SystemEntropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Which exit code an error of a load means: the contract's.
pub(crate) fn failure(error: LoadError) -> Failure {
    let exit = match &error {
        LoadError::Target(crate::shell::client::signalling::TargetError::Unknown { .. })
        | LoadError::Unreachable { .. } => Exit::Unreachable,
        LoadError::NotTrusted { error: ConnectError::Files(_), .. } => Exit::Io,
        LoadError::NotTrusted { .. } => Exit::Refused,
        LoadError::Target(_) => Exit::Usage,
        LoadError::Refused { code: 503 | 500 | 408 | 480 | 486, .. } => Exit::TryAgain,
        LoadError::Refused { .. } | LoadError::Answer(_) => Exit::Refused,
        LoadError::Media(_) | LoadError::Protect(_) | LoadError::Secret(_) => Exit::Io,
        LoadError::Interrupted => Exit::Interrupted,
    };
    Failure::new(exit, error)
}

fn report(outcome: &Outcome, plan: &Plan) -> serde_json::Value {
    let streams: Vec<_> = outcome
        .streams
        .iter()
        .map(|stream| {
            json!({
                "call_id": stream.call_id,
                "label": stream.label,
                "ssrc": stream.origin.ssrc.0,
                "sent": stream.sent,
                "left_out": stream.left_out,
                "unsent": stream.unsent,
                "first_seq": stream.origin.seq.0,
                "first_timestamp": stream.origin.media,
                "reports_heard": stream.reports_heard,
                "reported_lost": stream.heard_lost,
                "sha256": plan.numbered.then(|| payload_hash(plan, stream)),
            })
        })
        .collect();
    let sent: u64 = outcome.streams.iter().map(|stream| stream.sent).sum();
    // Packets more than a period late, and the latest: a load that says what it did not offer proves
    // nothing.
    let late = outcome.lateness;
    json!({
        "sent": sent,
        "seed": plan.seed,
        "late": late.packets,
        "refused": outcome.refused,
        "rekeyed": outcome.rekeyed.0,
        "rekeys_refused": outcome.rekeyed.1,
        "reconnected": outcome.reconnected,
        "late_ms_max": late.worst_ns / 1_000_000,
        "streams": streams,
    })
}

/// SHA-256 over the payloads of the numbered packets that were sent, in order: made again from seed
/// and number, as any checker can.
fn payload_hash(plan: &Plan, stream: &Sent) -> String {
    let seed = plan.seed ^ u64::from(stream.origin.ssrc.0);
    let left_out = if stream.left_out > 0 { plan.drops } else { Drops::default() };
    let mut hash = Digest::new();
    let mut payload = [0; PAYLOAD_BYTES];
    for number in (0..stream.sent).filter(|number| !left_out.contains(*number)) {
        numbered(seed, number, &mut payload);
        hash.update(&payload);
    }
    hex(&hash.finish())
}

fn table(out: &mut impl Write, outcome: &Outcome) -> std::io::Result<()> {
    writeln!(out, "{:<34} {:>5} {:>10} {:>8} {:>8}", "call", "label", "ssrc", "sent", "left out")?;
    for stream in &outcome.streams {
        let call_id = stream.call_id.split('@').next().unwrap_or_default();
        writeln!(
            out,
            "{call_id:<34} {:>5} {:>10} {:>8} {:>8}",
            stream.label, stream.origin.ssrc.0, stream.sent, stream.left_out
        )?;
    }
    let sent: u64 = outcome.streams.iter().map(|stream| stream.sent).sum();
    writeln!(out, "{sent} packets in {} streams", outcome.streams.len())
}
