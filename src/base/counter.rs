//! The datagram account: every datagram that reaches us ends in exactly one of these counters,
//! so that their sum is the number of datagrams taken from the sockets.

/// Where a datagram ended. The number is its place in shared state and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Counter {
    /// RTP packet appended to the ring.
    RtpRecorded = 0,
    /// RTCP packet appended to the ring.
    RtcpRecorded = 1,
    /// Shorter than a header, wrong version, lengths that do not fit.
    Malformed = 2,
    /// Arrived on a port that no stream is using.
    NoStream = 3,
    /// SRTP or SRTCP whose tag did not verify.
    AuthFailed = 4,
    /// Index already recorded (RFC 3711 §3.3.2), or the same plain RTP index twice.
    Replayed = 5,
    /// Index below the replay window.
    Late = 6,
    /// Longer than a receive buffer (F26).
    Truncated = 7,
    /// More live SSRCs than a stream may have (F42).
    TooManySources = 8,
    /// From an address that is neither signalled nor latched (plain RTP, strict peer).
    Stranger = 9,
    /// Arrived while the stream was paused (F60).
    Paused = 10,
    /// Waited in quarantine and was given up.
    QuarantineExpired = 11,
    /// Ring had no free space behind the durable watermark.
    RingFull = 12,
    /// Keep-alive: empty datagram, STUN or the like (RFC 6263).
    KeepAlive = 13,
    /// Stored raw because handling it panicked twice (F05).
    Poison = 14,
    /// SRTCP that is unencrypted although the suite demands encryption (E = 0).
    Unencrypted = 15,
}

impl Counter {
    /// All counters, by number.
    pub const ALL: [Counter; 16] = [
        Counter::RtpRecorded,
        Counter::RtcpRecorded,
        Counter::Malformed,
        Counter::NoStream,
        Counter::AuthFailed,
        Counter::Replayed,
        Counter::Late,
        Counter::Truncated,
        Counter::TooManySources,
        Counter::Stranger,
        Counter::Paused,
        Counter::QuarantineExpired,
        Counter::RingFull,
        Counter::KeepAlive,
        Counter::Poison,
        Counter::Unencrypted,
    ];

    /// Short label: JSON keys and metric labels.
    pub const fn label(self) -> &'static str {
        match self {
            Counter::RtpRecorded => "rtp_recorded",
            Counter::RtcpRecorded => "rtcp_recorded",
            Counter::Malformed => "malformed",
            Counter::NoStream => "no_stream",
            Counter::AuthFailed => "auth_failed",
            Counter::Replayed => "replayed",
            Counter::Late => "late",
            Counter::Truncated => "truncated",
            Counter::TooManySources => "too_many_sources",
            Counter::Stranger => "stranger",
            Counter::Paused => "paused",
            Counter::QuarantineExpired => "quarantine_expired",
            Counter::RingFull => "ring_full",
            Counter::KeepAlive => "keep_alive",
            Counter::Poison => "poison",
            Counter::Unencrypted => "unencrypted",
        }
    }

    /// One line for people.
    pub const fn help(self) -> &'static str {
        match self {
            Counter::RtpRecorded => "RTP packets appended to the ring",
            Counter::RtcpRecorded => "RTCP packets appended to the ring",
            Counter::Malformed => "datagrams that are no RTP or RTCP",
            Counter::NoStream => "datagrams on a port that no stream uses",
            Counter::AuthFailed => "SRTP or SRTCP packets whose tag did not verify",
            Counter::Replayed => "packets whose index was already recorded",
            Counter::Late => "packets below the replay window",
            Counter::Truncated => "datagrams longer than a receive buffer",
            Counter::TooManySources => "packets of an SSRC beyond the bound per stream",
            Counter::Stranger => "plain RTP from an address that was not signalled",
            Counter::Paused => "packets that arrived while the stream was paused",
            Counter::QuarantineExpired => "packets that waited for keys in vain",
            Counter::RingFull => "packets for which the ring had no room",
            Counter::KeepAlive => "keep-alive datagrams without media",
            Counter::Poison => "packets stored raw because handling them failed",
            Counter::Unencrypted => "SRTCP packets without the encryption that was agreed",
        }
    }
}

/// Why an index is missing (design: the ledger). What has no evidence is no variant here: it is
/// `unexplained`, counted apart.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Lost before this machine: no local drop counter moved while it was missing, or it is missing
    /// beyond what our own counted.
    Net,
    /// Dropped by the network card or the kernel's backlog.
    Nic,
    /// Dropped by a full socket queue.
    Socket,
    /// No room in the ring.
    Ring,
    /// Its authentication tag did not verify.
    Auth,
    /// Came too late to be told from a replay.
    Late,
    /// Longer than a receive buffer.
    Truncated,
    /// Given up in quarantine.
    Quarantine,
    /// Arrived while paused.
    Paused,
    /// Its handling failed; kept raw.
    Poison,
    /// Lost with the power.
    Power,
    /// Refused by policy.
    Refused,
    /// It was on disk, and is there no more: somebody or something has changed what was stored.
    Damage,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 13] = [
        Cause::Net,
        Cause::Nic,
        Cause::Socket,
        Cause::Ring,
        Cause::Auth,
        Cause::Late,
        Cause::Truncated,
        Cause::Quarantine,
        Cause::Paused,
        Cause::Poison,
        Cause::Power,
        Cause::Refused,
        Cause::Damage,
    ];

    /// The name used in JSON and reports.
    pub const fn label(self) -> &'static str {
        match self {
            Cause::Net => "net",
            Cause::Nic => "nic",
            Cause::Socket => "socket",
            Cause::Ring => "ring",
            Cause::Auth => "auth",
            Cause::Late => "late",
            Cause::Truncated => "truncated",
            Cause::Quarantine => "quarantine",
            Cause::Paused => "paused",
            Cause::Poison => "poison",
            Cause::Power => "power",
            Cause::Refused => "refused",
            Cause::Damage => "damage",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_its_own_place_and_label() {
        for (place, counter) in Counter::ALL.into_iter().enumerate() {
            assert_eq!(counter as usize, place);
            assert!(!counter.help().is_empty());
        }
        let mut labels: Vec<_> = Counter::ALL.iter().map(|counter| counter.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Counter::ALL.len());
    }
}
