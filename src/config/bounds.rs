//! What types cannot say: ranges of single values, and arithmetic between keys and machine.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use crate::base::family::Family;
use crate::base::limits::POLICY_BYTES_MAX;
use crate::config::contradictions;
use crate::config::cores;
use crate::config::machine::Machine;
use crate::config::model::{Config, Engine, Evidence, Media, Peer, PeerMatch, Sip, Store};
use crate::config::policy::{Rest, Sources};

/// What the kernel takes (IFNAMSIZ, without the zero behind it).
const INTERFACE_BYTES_MAX: usize = 15;

/// A fault at `path`, not yet placed in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// The key to mend.
    pub path: &'static str,
    /// Expected and found, with numbers.
    pub why: String,
    /// How to mend it; `None`: what the key's own fix says.
    pub fix: Option<String>,
}

pub(super) fn breach(path: &'static str, why: String) -> Breach {
    Breach { path, why, fix: None }
}

/// Checks that need nothing but the configuration.
pub(super) fn values(config: &Config) -> Vec<Breach> {
    let mut found = Vec::new();
    let ranges: [(&str, u64, u64, u64); 14] = [
        ("sip.max_message_bytes", config.sip.max_message_bytes as u64, 65_535, 16 << 20),
        ("sip.min_se_s", config.sip.min_se_s.into(), 2, 86_400),
        ("sip.session_expires_s", config.sip.session_expires_s.into(), 0, 86_400),
        ("media.streams_max", config.media.streams_max.into(), 1, 32_000),
        ("cpu.workers", config.cpu.workers.into(), 0, 256),
        ("store.ring_seconds", config.store.ring_seconds.into(), 1, 3_600),
        ("store.segment_mib", config.store.segment_mib.into(), 1, 4_096),
        ("store.commit_ms", config.store.commit_ms, 1, 10_000),
        ("store.segment_s", config.store.segment_s, 1, 86_400),
        ("evidence.anchor_s", config.evidence.anchor_s, 1, 86_400),
        ("evidence.scrub_days", config.evidence.scrub_days.into(), 0, 365),
        ("evidence.scrub_mib_s", config.evidence.scrub_mib_s.into(), 1, 10_000),
        ("store.reserve_minutes", config.store.reserve_minutes.into(), 0, 1_440),
        ("store.retention_check_s", config.store.retention_check_s, 1, 86_400),
    ];
    for (path, value, least, most) in ranges {
        if !(least..=most).contains(&value) {
            found.push(breach(path, format!("expected {least} to {most}, found {value}")));
        }
    }
    found.extend(signalling(&config.sip));
    found.extend(passwords(config));
    found.extend(calls(config));
    found.extend(policy(config));
    let (wanted, least) = (config.sip.session_expires_s, config.sip.min_se_s);
    if wanted != 0 && wanted < least {
        let why = format!("expected at least sip.min_se_s, {least}, or 0; found {wanted}");
        found.push(breach("sip.session_expires_s", why));
    }
    found.extend(addresses(config));
    let exposed = config.http.listen.iter().find(|at| !at.ip().to_canonical().is_loopback());
    if let (Some(at), None) = (exposed, &config.http.token) {
        let why =
            format!("{at} can be reached from outside, and no http.token is wanted of anybody");
        found.push(Breach {
            path: "http.listen",
            why,
            fix: Some("name a file in http.token, or listen on 127.0.0.1".to_owned()),
        });
    }
    if !["error", "warn", "info", "debug"].contains(&config.log.level.as_str()) {
        found.push(breach("log.level", format!("unknown level \"{}\"", config.log.level)));
    }
    if config.store.dir.as_os_str().is_empty() {
        found.push(breach("store.dir", "expected a folder, found nothing".into()));
    }
    let spare = config.store.spare_dir.as_deref();
    if spare.is_some_and(|spare| spare.as_os_str().is_empty()) {
        found.push(breach("store.spare_dir", "expected a folder, found nothing".into()));
    }
    if spare == Some(&config.store.dir) {
        found.push(breach("store.spare_dir", "it is store.dir: that spares nothing".into()));
    }
    found.extend(segment_dirs(&config.store));
    found.extend(diversion(&config.media));
    for (path, text) in [
        ("cpu.rx", &config.cpu.rx),
        ("cpu.spool", &config.cpu.spool),
        ("cpu.control", &config.cpu.control),
    ] {
        if let Err(why) = cores::parse(text) {
            found.push(breach(path, why));
        }
    }
    if config.cpu.workers == 0 && config.cpu.rx.trim().is_empty() {
        let why = "0 means one worker per core in cpu.rx, and cpu.rx names none".into();
        found.push(breach("cpu.workers", why));
    }
    found.extend(evidence(&config.evidence));
    found.extend(contradictions::values(config));
    let (streams, pairs) = (config.media.streams_max, config.port_pairs());
    if config.pairs_each() < streams {
        let count = config.address_count();
        let on = if count > 1 { format!(" on {count} addresses") } else { String::new() };
        let wanted = u64::from(streams) * u64::from(count);
        let fix = match config.pairs_each() {
            0 => "widen the range".to_owned(),
            most => format!("widen the range, or lower media.streams_max to {most}"),
        };
        found.push(Breach {
            path: "media.ports",
            why: format!(
                "{streams} streams{on} need {wanted} even/odd port pairs ({} ports), \
                 the range {}-{} holds {pairs}",
                2 * wanted,
                config.media.ports.first,
                config.media.ports.last
            ),
            fix: Some(fix),
        });
    }
    found
}

/// What frames are diverted by: a card, and addresses that the program at it can look for.
fn diversion(media: &Media) -> Vec<Breach> {
    let mut found = Vec::new();
    let named = media.interface.as_deref();
    if named.is_some_and(|name| name.is_empty() || name.len() > INTERFACE_BYTES_MAX) {
        let why = format!("expected the name of an interface, 1 to {INTERFACE_BYTES_MAX} bytes");
        found.push(breach("media.interface", why));
    }
    if media.engine != Engine::Xdp {
        return found;
    }
    if named.is_none() {
        let fix =
            Some("set media.interface to the card that media.address is reached by".to_owned());
        let why =
            "\"xdp\" has frames diverted at a card, and media.interface names none".to_owned();
        found.push(Breach { path: "media.engine", why, fix });
    }
    if let Some(ip) = media.address.0.iter().find(|ip| ip.is_unspecified()) {
        let fix = Some("name the addresses, or choose another media.engine".to_owned());
        let why = format!("\"xdp\" has frames diverted by their address, and {ip} is none");
        found.push(Breach { path: "media.address", why, fix });
    }
    found
}

/// Where anchors go. That a file lies on the disk that it vouches for only the machine knows.
fn evidence(evidence: &Evidence) -> Vec<Breach> {
    let mut found = Vec::new();
    let is_syslog = |text: &String| text.starts_with('/') || text.parse::<SocketAddr>().is_ok();
    if let Some(text) = evidence.syslog.as_ref().filter(|text| !is_syslog(text)) {
        let why = format!("expected a socket's path or IP:port, found \"{text}\"");
        found.push(breach("evidence.syslog", why));
    }
    let is_url = |url: &String| {
        url.strip_prefix("http://").is_some_and(|rest| {
            let host = rest.split('/').next().unwrap_or_default();
            !host.is_empty() && !host.contains('@') && rest.bytes().all(|b| b.is_ascii_graphic())
        })
    };
    if let Some(url) = evidence.webhook.as_ref().filter(|url| !is_url(url)) {
        found.push(Breach {
            path: "evidence.webhook",
            why: format!("expected http://HOST:PORT/PATH, found \"{url}\""),
            fix: Some("where TLS is wanted, name a relay on this machine".to_owned()),
        });
    }
    if evidence.webhook_token.is_some() && evidence.webhook.is_none() {
        found.push(breach("evidence.webhook_token", "there is no evidence.webhook".to_owned()));
    }
    found
}

/// An address that is no sender's and no receiver's of its own: IPv4 in the clothes of IPv6, which could
/// be had by two names, or everybody.
fn odd(ip: IpAddr) -> Option<String> {
    match ip {
        IpAddr::V6(six) => {
            let four = six.to_ipv4_mapped()?;
            Some(format!("{ip} is the IPv4 address {four}: write it as such"))
        }
        IpAddr::V4(four) => four.is_broadcast().then(|| format!("{ip} is the broadcast address")),
    }
}

/// Addresses that nobody could send to, and what stands for them outside.
fn addresses(config: &Config) -> Vec<Breach> {
    let mut found = Vec::new();
    let media = &config.media;
    let all = &media.address.0;
    if all.is_empty() {
        found.push(breach("media.address", "expected at least one address, found none".into()));
    }
    for (place, ip) in all.iter().enumerate() {
        let stands_in = media.advertised_of(Family::of(*ip)).is_some();
        if all[..place].contains(ip) {
            found.push(breach("media.address", format!("{ip} stands in it twice")));
        } else if let Some(why) = odd(*ip) {
            found.push(breach("media.address", why));
        } else if ip.is_multicast() || ip.is_unspecified() && !stands_in {
            let why = format!(
                "answers carry this address, so it must be one that SRCs can send to; found {ip}"
            );
            let fix = "name one, or say in media.advertise what SRCs reach this machine by";
            let fix = ip.is_unspecified().then(|| fix.to_owned());
            found.push(Breach { path: "media.address", why, fix });
        }
    }
    let advertised = media.advertise.as_ref().map_or(&[][..], |all| &all.0);
    for (place, ip) in advertised.iter().enumerate() {
        let family = Family::of(*ip);
        let why = if let Some(why) = odd(*ip) {
            why
        } else if ip.is_multicast() || ip.is_unspecified() {
            format!("answers carry this address, so it must be one; found {ip}")
        } else if !all.iter().any(|own| Family::of(*own) == family) {
            format!("{ip} stands for no {family} address: media.address has none")
        } else if advertised[..place].iter().any(|other| Family::of(*other) == family) {
            format!("{ip} is a second {family} address, and one stands for all of them")
        } else {
            continue;
        };
        found.push(breach("media.advertise", why));
    }
    let hosts = config.sip.advertise.as_ref().map_or(&[][..], |all| &all.0);
    for (place, host) in hosts.iter().enumerate() {
        let unfit = |ip: IpAddr| ip.is_multicast() || ip.is_unspecified();
        let why = if let Some(why) = host.name.parse().ok().and_then(odd) {
            why
        } else if host.name.parse().is_ok_and(unfit) {
            format!("answers carry this host, so SRCs must reach it; found {}", host.name)
        } else if hosts[..place].iter().any(|other| other.family() == host.family()) {
            format!("{} is a second one of its kind: one stands for all listeners", host.name)
        } else {
            continue;
        };
        found.push(breach("sip.advertise", why));
    }
    found
}

/// Listeners, and what TLS needs.
fn signalling(sip: &Sip) -> Vec<Breach> {
    let mut found = Vec::new();
    if sip.udp.is_empty() && sip.tcp.is_empty() && sip.tls.is_empty() {
        let why = "no listener: sip.udp, sip.tcp and sip.tls are all empty";
        found.push(breach("sip.udp", why.into()));
    }
    if !sip.tls.is_empty() && (sip.cert.is_none() || sip.key.is_none()) {
        found.push(Breach {
            path: "sip.tls",
            why: "TLS needs a certificate and its key".into(),
            fix: Some("name both PEM files in sip.cert and sip.key".into()),
        });
    }
    if sip.cert.is_some() != sip.key.is_some() {
        let (path, why) = match sip.cert {
            Some(_) => ("sip.cert", "a certificate without its key"),
            None => ("sip.key", "a key without its certificate"),
        };
        let fix = Some("name both, sip.cert and sip.key".into());
        found.push(Breach { path, why: why.into(), fix });
    }
    for (path, wanted) in [
        ("sip.require_client_cert", sip.require_client_cert),
        ("sip.client_crl", sip.client_crl.is_some()),
    ] {
        if wanted && sip.client_ca.is_none() {
            let why = "nothing says which certificates of peers are genuine".into();
            let fix = Some("name the PEM file of their CA in sip.client_ca".into());
            found.push(Breach { path, why, fix });
        }
    }
    let printable = |c: char| c.is_ascii_graphic() || c == ' ';
    if sip.realm.is_empty() || sip.realm.contains(['"', '\\']) || !sip.realm.chars().all(printable)
    {
        found.push(breach("sip.realm", format!("\"{}\" cannot stand in a header", sip.realm)));
    }
    found
}

/// URIs that nobody could be called by.
fn calls(config: &Config) -> Vec<Breach> {
    let is_sip = |uri: &String| {
        let rest = uri.strip_prefix("sip:").or_else(|| uri.strip_prefix("sips:"));
        rest.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_graphic()))
    };
    let wrong =
        config.peers.iter().filter_map(|peer| peer.call.as_ref()).filter(|uri| !is_sip(uri));
    let fix = || Some("write a URI such as sip:src@192.0.2.7:5060;transport=tcp".to_owned());
    wrong
        .map(|uri| Breach { path: "peers", why: format!("{uri} is no SIP URI"), fix: fix() })
        .collect()
}

/// Policies by which nothing would ever be recorded, or that are too long.
fn policy(config: &Config) -> Vec<Breach> {
    let policy = &config.policy;
    let mut found = Vec::new();
    let bytes = serde_json::to_string(policy).map_or(usize::MAX, |text| text.len());
    if bytes > POLICY_BYTES_MAX {
        let why = format!("the rules take {bytes} bytes, expected at most {POLICY_BYTES_MAX}");
        let fix = Some("write fewer addresses: * stands for any characters".into());
        found.push(Breach { path: "policy.rules", why, fix });
    }
    if policy.sources == Sources::Peers && config.peers.is_empty() {
        let fix = Some("add [[peers]] for each client that may record".into());
        let why = "there are no [[peers]], so that nobody could record".into();
        found.push(Breach { path: "policy.sources", why, fix });
    }
    if policy.secure_signalling && config.sip.tls.is_empty() {
        let fix = Some("name a TLS listener in sip.tls".into());
        let why = "nothing listens for TLS, so that nobody could record".into();
        found.push(Breach { path: "policy.secure_signalling", why, fix });
    }
    let secure = |peer: &&Peer| peer.secure_signalling == Some(true);
    if let Some(peer) = config.peers.iter().find(secure).filter(|_| config.sip.tls.is_empty()) {
        let fix = Some("name a TLS listener in sip.tls".into());
        let why = format!("nothing listens for TLS, so that {} could not record", peer.name);
        found.push(Breach { path: "peers", why, fix });
    }
    let in_clear = |peer: &&Peer| {
        let call = peer.call.as_deref().unwrap_or("sips:");
        let secure = peer.secure_signalling.unwrap_or(policy.secure_signalling);
        secure && !call.starts_with("sips:") && !call.contains("transport=tls")
    };
    if let Some(peer) = config.peers.iter().find(in_clear) {
        let fix = Some("write \"sips:\" or add \";transport=tls\" to its call".into());
        let why = format!("{} takes TLS only, and its call is in clear", peer.name);
        found.push(Breach { path: "peers", why, fix });
    }
    if policy.record == Rest::Listed && !policy.rules.iter().any(|rule| rule.record) {
        let fix = Some("add [[policy.rules]] with record = true".into());
        let why = "no rule says what is recorded, so that nothing would be".into();
        found.push(Breach { path: "policy.record", why, fix });
    }
    found
}

/// Passwords that nobody could be asked for.
fn passwords(config: &Config) -> Vec<Breach> {
    let mut found = Vec::new();
    for peer in config.peers.iter().filter(|peer| peer.digest.is_some()) {
        if let PeerMatch::Name(name) = &peer.matches {
            let why = format!("{name} is known by its certificate, and needs no password");
            let fix = Some("remove its digest, or match by address or user:NAME".into());
            found.push(Breach { path: "peers", why, fix });
        }
    }
    if config.sip.require_digest && config.peers.iter().all(|peer| peer.digest.is_none()) {
        let fix = Some("add [[peers]] with match = \"user:NAME\" and digest = FILE".into());
        let why = "no peer has a password, so that nobody could call".into();
        found.push(Breach { path: "sip.require_digest", why, fix });
    }
    found
}

/// Checks against the machine. `config` has passed [`values`].
pub(super) fn machine(config: &Config, machine: &Machine) -> Vec<Breach> {
    let mut found = Vec::new();
    let mib = |bytes: u64| bytes >> 20;
    let ring = config.ring_bytes().saturating_mul(config.worker_count().into());
    if ring > machine.memory_free_bytes / 2 {
        found.push(Breach {
            path: "store.ring_seconds",
            why: format!(
                "{} streams × {} s need a ring of {} MiB in memory, half of the free memory is {} MiB",
                config.media.streams_max,
                config.store.ring_seconds,
                mib(ring),
                mib(machine.memory_free_bytes / 2)
            ),
            fix: Some("lower store.ring_seconds or media.streams_max, or add memory".into()),
        });
    }
    found.extend(contradictions::machine(config, machine));
    let descriptors = config.descriptors();
    if descriptors > machine.descriptors_max {
        found.push(Breach {
            path: "media.streams_max",
            why: format!(
                "{} port pairs and the rest need {descriptors} descriptors, the hard limit is {}",
                config.slot_count(),
                machine.descriptors_max
            ),
            fix: Some(format!(
                "raise the limit (LimitNOFILE={descriptors} in systemd, `ulimit -Hn`), or lower \
                 media.streams_max"
            )),
        });
    }
    found
}

/// Disks of one store: more than a machine has bays.
const SEGMENT_DIRS_MAX: usize = 32;

/// Folders for segments that are none, or the same one twice.
fn segment_dirs(store: &Store) -> Vec<Breach> {
    let mut known: Vec<(&Path, &str)> = vec![(&store.dir, "store.dir")];
    known.extend(store.spare_dir.as_deref().map(|spare| (spare, "store.spare_dir")));
    let mut found = Vec::new();
    for dir in &store.segment_dirs {
        if dir.as_os_str().is_empty() {
            found.push(breach("store.segment_dirs", "expected a folder, found nothing".into()));
        } else if let Some((_, key)) = known.iter().find(|(known, _)| known == dir) {
            let why = format!("{} is in {key} already: expected another disk", dir.display());
            found.push(breach("store.segment_dirs", why));
        }
        known.push((dir, "store.segment_dirs"));
    }
    if store.segment_dirs.len() > SEGMENT_DIRS_MAX {
        let why = format!("{} folders, {SEGMENT_DIRS_MAX} at most", store.segment_dirs.len());
        found.push(breach("store.segment_dirs", why));
    }
    found
}

/// The words for a disk with only `free_bytes` for the reserve; `None` where it is enough. Not
/// among the faults above: a recorder with too small a disk starts all the same and answers 503
/// until there is room (F11).
pub fn reserve_shortfall(config: &Config, free_bytes: u64) -> Option<String> {
    let reserve = config.reserve_bytes();
    (free_bytes < reserve).then(|| {
        format!(
            "{} minutes of {} streams need {} MiB on disk, {} MiB are free in {}",
            config.store.reserve_minutes,
            config.media.streams_max,
            reserve >> 20,
            free_bytes >> 20,
            config.store.dir.display()
        )
    })
}

/// Why less than `store.reserve_minutes` of the present load fit into `free_bytes` (F11); `None`:
/// they do.
pub fn room_shortfall(config: &Config, free_bytes: u64, bytes_per_s: u64) -> Option<String> {
    let reserve = config.room_bytes(bytes_per_s);
    (free_bytes < reserve).then(|| {
        format!(
            "{} minutes at {} KiB/s need {} MiB on disk, {} MiB are free",
            config.store.reserve_minutes,
            bytes_per_s >> 10,
            reserve >> 20,
            free_bytes >> 20
        )
    })
}
