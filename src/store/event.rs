//! Events in the record stream: what happened to a stream or to the recorder, in the order in which
//! it happened. Payload of [`super::record::RecordKind::Event`] records, as JSON.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::base::counter::Cause;
use crate::base::ids::{Index, RsId, Slot, Ssrc, StreamId};
use crate::base::suite::Agreed;
use crate::base::time::{ClockMap, Mono, Wall};
use crate::store::audit::Head;

/// What a payload type means on one m-line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// RTP payload type.
    pub payload_type: u8,
    /// Encoding name as offered, for example `PCMU`.
    pub codec: String,
    /// RTP clock rate in Hz.
    pub clock_rate: u32,
    /// Channels; 1 where the offer says nothing.
    pub channels: u8,
    /// The fmtp value, if any.
    pub fmtp: Option<String>,
}

/// What one recorded m-line is. Written into the ring when the stream opens, so that segments alone
/// tell what they hold, and into the journal before the 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamDescription {
    /// The stream.
    pub stream: StreamId,
    /// The RS it belongs to.
    pub rs: RsId,
    /// Position of the m-line in the SDP, 0 first.
    pub line: u16,
    /// `a=label` (RFC 4574), if any.
    pub label: Option<String>,
    /// `audio`, `video` or `text`.
    pub media: String,
    /// The accepted formats, in offer order.
    pub formats: Vec<Format>,
    /// Crypto suite, with what of it is not used; `None` for plain RTP.
    pub suite: Option<Agreed>,
    /// `RTP/AVP` and so on, as offered.
    pub transport: String,
    /// Port pair in use.
    pub slot: Slot,
    /// Our RTP port.
    pub port: u16,
    /// Where the SRC said it sends from (c= and m= of its offer).
    pub remote: Option<SocketAddr>,
}

/// Why a stream or a pause began or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// The SRC asked for it.
    Src,
    /// We did.
    Srs,
    /// Seen in the media itself.
    Observed,
}

/// Drop counters of the host, as totals since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDrops {
    /// Network cards: rx_dropped + rx_missed + rx_fifo over all interfaces.
    pub nic: u64,
    /// softnet_stat column 2 over all cores.
    pub softnet: u64,
    /// UDP MemErrors and InErrors that no socket of ours shows.
    pub udp: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The stream opened; media counts from here.
    Open {
        /// What it is.
        description: StreamDescription,
    },
    /// The stream's description, keys or addresses changed by a re-offer.
    Changed {
        /// What it is now.
        description: StreamDescription,
        /// Whether the SRC's key changed.
        key_changed: bool,
    },
    /// A pause began.
    Pause {
        /// Who asked.
        by: Origin,
    },
    /// A pause ended.
    Resume {
        /// Who asked.
        by: Origin,
    },
    /// The stream closed.
    Close {
        /// Who asked.
        by: Origin,
        /// Datagrams of this stream that ended in a counter other than recorded, by label.
        drops: BTreeMap<String, u64>,
        /// Packets dropped by this stream's sockets (SO_RXQ_OVFL) since it opened.
        socket_drops: u64,
        /// Other streams' packets may be among these.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        shared: bool,
    },
    /// A new SSRC was admitted.
    Source {
        /// Its ordinal in the stream.
        ordinal: u16,
        /// Its SSRC.
        ssrc: Ssrc,
        /// Where it sends from.
        from: SocketAddr,
    },
    /// Evidence about missing packets: `count` packets of this stream ended for `cause` between two
    /// instants. Written within a second of the counter's movement.
    Dropped {
        /// Why.
        cause: Cause,
        /// How many.
        count: u64,
        /// Not before.
        from: Mono,
        /// Not after.
        to: Mono,
        /// The SSRC and indexes, where known.
        ssrc: Option<Ssrc>,
        /// First and last index, where known.
        range: Option<(Index, Index)>,
        /// Other streams' packets may be among them: they share the socket that dropped them.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        shared: bool,
    },
    /// Host drop counters over a span; equal at both ends means that nothing was lost there.
    HostDrops {
        /// Span start.
        from: Mono,
        /// Span end.
        to: Mono,
        /// Totals at the start.
        before: HostDrops,
        /// Totals at the end.
        after: HostDrops,
    },
    /// Both clocks at one instant.
    Clock {
        /// The pair.
        map: ClockMap,
    },
    /// A worker began: first record of an incarnation.
    Started {
        /// Incarnation, 1 first; counts over the life of the store.
        incarnation: u64,
        /// `io_uring` or `recvmmsg`.
        engine: String,
        /// Both clocks.
        map: ClockMap,
        /// Boot id of the kernel (monotonic time starts anew with it).
        boot: String,
        /// Datagrams found in the receive buffers of a dead predecessor and appended.
        recovered: u32,
        /// When the predecessor last turned, if there was one.
        predecessor_last: Option<Mono>,
        /// With new memory after an end that was not clean: everything captured up to then is on disk,
        /// and what came later is lost (F06). `None`: nothing is.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lost_since: Option<Wall>,
    },
    /// Nothing of the stream was recorded between two instants: the recorder as a whole was down.
    /// Wall times, since monotonic time may have started anew in between.
    Gap {
        /// Why: `power`.
        cause: Cause,
        /// The last instant of which everything captured is on disk.
        from: Wall,
        /// When the stream was taken up again.
        to: Wall,
    },
    /// The roll-over counter of a source was found again.
    RocResync {
        /// The source's SSRC.
        ssrc: Ssrc,
        /// The counter found.
        roc: u32,
        /// How long the first packet under it waited for that, in microseconds.
        #[serde(default)]
        us: u64,
    },
    /// Datagrams that are longer than a receive buffer came, and were not kept: a part of one is none
    /// (F26). With the `dropped` event of that second.
    Oversize {
        /// The longest of them, octets.
        octets: u32,
    },
    /// A payload type that was not offered came; its packets are kept as they are (F39).
    PayloadType {
        /// The source's SSRC.
        ssrc: Ssrc,
        /// The type.
        payload_type: u8,
    },
    /// The numbers of a source jumped by more than half their range: it began anew (F41).
    Jump {
        /// The source's SSRC.
        ssrc: Ssrc,
        /// The highest index before.
        from: Index,
        /// The first one behind it.
        to: Index,
    },
    /// Keys do not match: nothing but failing tags for a second (F34).
    AuthFailing {
        /// Packets so far.
        count: u64,
        /// The last sender.
        from: IpAddr,
    },
    /// A metadata document arrived; its bytes are in the journal.
    Metadata {
        /// Number within the RS, 1 first.
        number: u32,
        /// SHA-256 of the body, hex.
        sha256: String,
        /// When it arrived.
        at: Wall,
    },
    /// The newest entry of the audit trail: sealed with the records, so that the trail can neither be cut
    /// nor written anew unseen.
    Audit {
        /// The entry.
        #[serde(flatten)]
        head: Head,
    },
    /// Recovery could not vouch for this span of positions.
    InDoubt {
        /// First position.
        from: u64,
        /// End position.
        to: u64,
        /// What was found.
        why: String,
        /// It was durable: not a cut has taken it, but damage.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        durable: bool,
        /// When what stands before it was written; `None`: nothing does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        since: Option<Wall>,
        /// When what stands behind it was written, or when it was known to be durable.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Wall>,
    },
}

impl Event {
    /// The event as a record payload.
    pub fn to_payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("events hold nothing that JSON cannot")
    }

    /// Reads a payload.
    pub fn from_payload(payload: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(payload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_round_trip() {
        let event = Event::Dropped {
            cause: Cause::Socket,
            count: 3,
            from: Mono(1),
            to: Mono(2),
            ssrc: Some(Ssrc(9)),
            range: Some((Index(4), Index(6))),
            shared: false,
        };
        let payload = event.to_payload();
        assert_eq!(Event::from_payload(&payload).expect("just written"), event);
    }
}
