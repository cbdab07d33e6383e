//! Identifiers and numbers that must not be mixed up.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A Recording Session: UUID version 7, made by control. Its text form (32 hex digits) is the `id`
/// of the interface contract: stable and URL-safe.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(into = "String", try_from = "String")]
pub struct RsId(pub [u8; 16]);

impl fmt::Display for RsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl From<RsId> for String {
    fn from(id: RsId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RsId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl std::str::FromStr for RsId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let hex: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
        if hex.len() != 32 {
            return Err(IdError { length: hex.len() });
        }
        let mut id = [0_u8; 16];
        for (byte, pair) in id.iter_mut().zip(hex.chunks_exact(2)) {
            let high = (pair[0] as char).to_digit(16).ok_or(IdError { length: 32 })?;
            let low = (pair[1] as char).to_digit(16).ok_or(IdError { length: 32 })?;
            *byte = (high * 16 + low) as u8;
        }
        Ok(RsId(id))
    }
}

/// Text that is no recording id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a recording id of 32 hex digits, found {length} characters")]
pub struct IdError {
    /// Characters found, dashes left out.
    pub length: usize,
}

/// One recorded m-line over its life in one RS. Allocated by control, unique in a store for ever,
/// below 2^47. Numbers from [`StreamId::HOST_FIRST`] on belong to the recorder itself.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The recorder's own "streams": `HOST_FIRST + worker` carries that worker's clock maps,
    /// drop-counter samples and start/stop events.
    pub const HOST_FIRST: u64 = 1 << 47;

    /// The stream that carries a worker's own events.
    pub const fn host(worker: WorkerId) -> Self {
        StreamId(Self::HOST_FIRST + worker.0 as u64)
    }

    /// Whether this is the recorder's own event stream.
    pub const fn is_host(self) -> bool {
        self.0 >= Self::HOST_FIRST
    }
}

/// What storage sorts by: a stream and, within it, one SSRC in order of appearance.
/// Layout: `stream << 16 | ordinal`. Ordinal 0 is the stream itself (its events and RTCP).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct SourceId(pub u64);

impl SourceId {
    /// Joins a stream and an ordinal.
    pub const fn new(stream: StreamId, ordinal: u16) -> Self {
        SourceId(stream.0 << 16 | ordinal as u64)
    }

    /// The stream this source belongs to.
    pub const fn stream(self) -> StreamId {
        StreamId(self.0 >> 16)
    }

    /// 0 for the stream's own events and RTCP, else the SSRC's order of appearance from 1.
    pub const fn ordinal(self) -> u16 {
        self.0 as u16
    }
}

/// A reserved RTP/RTCP port pair and the shared state behind it. Index into the port pool.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Slot(pub u32);

/// Counts the uses of a slot; 0 means closed. A request for another generation is stale.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Generation(pub u32);

/// A media worker, 0 first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct WorkerId(pub u16);

/// An RTP synchronisation source (RFC 3550 §3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Ssrc(pub u32);

/// An RTP sequence number as it stands in the header.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Seq(pub u16);

/// The 48-bit packet index ROC·2^16 + SEQ (RFC 3711 §3.3.1); for plain RTP the extended sequence
/// number counted the same way.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Index(pub u64);

impl Index {
    /// The largest index there is.
    pub const MAX: Index = Index((1 << 48) - 1);

    /// Joins a roll-over counter and a sequence number.
    pub const fn new(roc: u32, seq: Seq) -> Self {
        Index((roc as u64) << 16 | seq.0 as u64)
    }

    /// The roll-over counter.
    pub const fn roc(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The sequence number.
    pub const fn seq(self) -> Seq {
        Seq(self.0 as u16)
    }
}

/// A byte position in a worker's ring. Counts up over the life of the store and never wraps; the
/// place in memory is the position modulo the ring's size.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
pub struct Position(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rs_id_text_round_trips() {
        let id = RsId([0xab; 16]);
        assert_eq!(id.to_string().parse::<RsId>(), Ok(id));
        assert!("xyz".parse::<RsId>().is_err());
        assert!("zz".repeat(16).parse::<RsId>().is_err());
    }

    #[test]
    fn source_id_keeps_stream_and_ordinal() {
        let source = SourceId::new(StreamId(77), 3);
        assert_eq!((source.stream(), source.ordinal()), (StreamId(77), 3));
        assert!(SourceId::new(StreamId::host(WorkerId(1)), 0).stream().is_host());
    }
}
