//! All keys by path, with what to write there. A test holds this list, the model and the commented
//! default together.

/// A key and the fix that a fault at it proposes.
pub(super) struct Key {
    /// Table and name.
    pub(super) path: &'static str,
    /// What to write.
    pub(super) fix: &'static str,
}

const fn key(path: &'static str, fix: &'static str) -> Key {
    Key { path, fix }
}

/// Whom a role may be given to.
const WHO: &str = "a list of users by name or number and of groups, such as [\"kim\", \"1001\", \"@desk\"]; [] for none";

/// Every key outside of `[[peers]]`, `[[policy.rules]]` and `[[retention]]`.
pub(super) const KEYS: &[Key] = &[
    key("sip.udp", "a list of address:port, such as [\"127.0.0.1:5060\"]; [] for none"),
    key("sip.tcp", "a list of address:port, such as [\"127.0.0.1:5060\"]; [] for none"),
    key("sip.tls", "a list of address:port, such as [\"192.0.2.20:5061\"]; [] for none"),
    key(
        "sip.advertise",
        "the name or address by which SRCs reach us from outside, such as \"203.0.113.5\"",
    ),
    key("sip.cert", "a PEM file with our certificate first, such as \"/etc/floortape/tls.pem\""),
    key("sip.key", "a PEM file with the key of sip.cert, such as \"/etc/floortape/tls.key\""),
    key("sip.client_ca", "a PEM file with the CA of the peers' certificates"),
    key("sip.client_crl", "a PEM file with the revocation lists of that CA"),
    key("sip.require_client_cert", "true or false"),
    key("sip.realm", "a word for challenges, such as \"floortape\", without quotes in it"),
    key("sip.require_digest", "true or false"),
    key("sip.max_message_bytes", "a number of bytes from 65535 to 16777216"),
    key("sip.strict", "true or false"),
    key("sip.min_se_s", "seconds from 2 to 86400; RFC 4028 wants 90 or more"),
    key("sip.session_expires_s", "seconds from sip.min_se_s to 86400, or 0 for no timer of ours"),
    key("policy.record", "\"all\", or \"listed\" to record only what a rule asks for"),
    key("policy.sources", "\"any\", or \"peers\" for those of [[peers]] only"),
    key("policy.secure_signalling", "true or false"),
    key("policy.rules", "[[policy.rules]] and its keys below"),
    key(
        "media.address",
        "an IP address of this machine that the SRCs can reach, or a list of such addresses",
    ),
    key(
        "media.advertise",
        "the IP address by which SRCs reach media.address from outside; a list of two for both families",
    ),
    key(
        "media.ports",
        "a range such as \"20000-29999\" with 2 ports for each stream on each address",
    ),
    key("media.streams_max", "a number of streams from 1 to 32000"),
    key("media.engine", "\"auto\", \"io_uring\", \"recvmmsg\" or \"xdp\""),
    key("media.interface", "an interface such as \"eth0\", for media.engine \"xdp\""),
    key("media.steering", "\"auto\", \"on\" or \"off\""),
    key("media.srtp", "\"require\", \"prefer\" or \"allow\""),
    key("media.suites", "crypto suites, such as [\"AEAD_AES_256_GCM\"]"),
    key("media.unencrypted", "true or false"),
    key("cpu.workers", "a number from 0 (one per core in cpu.rx) to 256"),
    key("cpu.rx", "cores such as \"2-5\" or \"2,4\"; \"\" for no pinning"),
    key("cpu.spool", "cores such as \"6\" or \"6,7\"; \"\" for those that cpu.rx leaves"),
    key("cpu.control", "cores such as \"0-1\"; \"\" for those that cpu.rx leaves"),
    key("store.dir", "a folder on a local disk, such as \"/var/lib/floortape\""),
    key("store.ring_seconds", "seconds from 1 to 3600"),
    key("store.segment_mib", "MiB from 1 to 4096"),
    key("store.commit_ms", "milliseconds from 1 to 10000"),
    key("store.segment_s", "seconds from 1 to 86400"),
    key("store.packing", "true or false"),
    key("store.journal_dir", "a folder on a local disk"),
    key("store.reserve_minutes", "minutes from 0 to 1440"),
    key("store.spare_dir", "a folder on another local disk than store.dir"),
    key(
        "store.segment_dirs",
        "a list of folders on other local disks, such as [\"/disk2/floortape\"]",
    ),
    key("store.volume", "the id in STORE/volume.json, such as \"0199…\""),
    key("store.require_mount", "true or false"),
    key("store.unrecordable", "\"end\" or \"keep\""),
    key(
        "store.encryption",
        "\"off\", a file of 32 bytes such as \"/etc/floortape/kek\", mode 0600, or \"credential:NAME\"",
    ),
    key("access.operator", WHO),
    key("access.listener", WHO),
    key("access.compliance", WHO),
    key("access.auditor", WHO),
    key("access.reason", "\"never\", or \"listen\" to ask before each listen and export"),
    key("store.retention", "\"forever\", or how long such as \"90d\" or \"7y\""),
    key("store.retention_check_s", "seconds from 1 to 86400"),
    key("evidence.anchor_file", "a file on another disk than store.dir"),
    key(
        "evidence.syslog",
        "a socket such as \"/dev/log\", or an address such as \"192.0.2.5:514\"",
    ),
    key("evidence.webhook", "a URL such as \"http://192.0.2.5:8080/anchors\""),
    key("evidence.webhook_token", "a file with one line, mode 0600"),
    key("evidence.anchor_s", "seconds from 1 to 86400"),
    key("evidence.scrub_days", "days from 0 (never) to 365"),
    key("evidence.scrub_mib_s", "MiB/s from 1 to 10000"),
    key("http.listen", "a list of address:port, such as [\"127.0.0.1:9460\"]; [] for none"),
    key("http.token", "a file with one line, mode 0600, such as \"/etc/floortape/metrics.token\""),
    key("log.level", "\"error\", \"warn\", \"info\" or \"debug\""),
];

/// The keys of one `[[peers]]` table.
pub(super) const PEER_KEYS: &[Key] = &[
    key("name", "a name for reports, such as \"turret-1\""),
    key(
        "match",
        "the IP address that the peer sends from, such as \"192.0.2.7\", the name in its certificate, \
         or \"user:NAME\"",
    ),
    key("digest", "a file with one line user:password, readable by its owner only"),
    key("digest_md5", "true or false"),
    key("strict", "true or false"),
    key("srtp", "\"require\", \"prefer\" or \"allow\""),
    key("suites", "crypto suites, such as [\"AEAD_AES_256_GCM\"]"),
    key("unencrypted", "true or false"),
    key("secure_signalling", "true or false"),
    key("nat", "true or false"),
    key("call", "a SIP URI, such as \"sip:src@192.0.2.7:5060;transport=tcp\""),
];

/// The keys of one `[[policy.rules]]` table.
pub(super) const RULE_KEYS: &[Key] = &[
    key("name", "a name for reports, such as \"no private lines\""),
    key("record", "true or false"),
    key("peer", "a list of names of [[peers]], such as [\"sbc-1\"]"),
    key("aor", "a list of addresses, such as [\"sip:*@private.example\", \"tel:+49*\"]"),
    key("label", "a list of a=label values, such as [\"1\"]"),
    key("media", "a list of \"audio\", \"video\" and \"text\""),
    key("codec", "a list of codecs as SDP names them, such as [\"PCMU\"]"),
];

/// The keys of one `[[retention]]` table.
pub(super) const CLASS_KEYS: &[Key] = &[
    key("name", "a name for reports, such as \"desk calls\""),
    key("keep", "\"forever\", or how long such as \"90d\" or \"7y\""),
    key("peer", "a list of names of [[peers]], such as [\"sbc-1\"]"),
    key("aor", "a list of addresses, such as [\"sip:*@private.example\", \"tel:+49*\"]"),
    key("label", "a list of a=label values, such as [\"1\"]"),
    key("media", "a list of \"audio\", \"video\" and \"text\""),
    key("codec", "a list of codecs as SDP names them, such as [\"PCMU\"]"),
];

/// The fix for `path`.
pub(super) fn fix(path: &str) -> &'static str {
    KEYS.iter().find(|key| key.path == path).map_or("see `floortape.toml`", |key| key.fix)
}

/// The candidate nearest to `wrong`, if one is near enough to be meant.
pub(super) fn nearest<'k>(
    wrong: &str,
    candidates: impl Iterator<Item = &'k str>,
) -> Option<&'k str> {
    candidates
        .map(|candidate| (distance(wrong, candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= candidate.len().div_ceil(3))
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance: single-character edits from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    // A key of a thousand characters is near to nothing; the bound keeps the table small.
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_finds_a_slip_and_ignores_a_stranger() {
        let paths = || ["streams_max", "ports", "address"].into_iter();
        assert_eq!(nearest("stream_max", paths()), Some("streams_max"));
        assert_eq!(nearest("port", paths()), Some("ports"));
        assert_eq!(nearest("colour_of_the_box", paths()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
