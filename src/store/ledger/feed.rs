//! From records to accounts: reads what the records hold and hands it to the ledgers.

use std::collections::BTreeMap;

use super::evidence::HostEvidence;
use super::stream::{Packet, StreamLedger};
use crate::base::ids::StreamId;
use crate::base::time::ClockMap;
use crate::store::event::Event;
use crate::store::record::{Record, RecordKind};
use crate::wire::rtcp::{self, Chunk, Compound};
use crate::wire::rtp;

/// The accounts of several streams and of the recorder itself.
#[derive(Clone, Debug, Default)]
pub struct Ledgers {
    /// Per stream.
    pub streams: BTreeMap<StreamId, StreamLedger>,
    /// Of all workers.
    pub host: HostEvidence,
}

impl Ledgers {
    /// Takes a record; `clock` is the map valid for its arrival.
    pub fn record(&mut self, record: &Record<'_>, clock: &ClockMap) {
        let meta = &record.meta;
        let arrival = clock.wall(meta.arrival);
        let stream = meta.source.stream();
        if meta.kind == RecordKind::Event {
            // An event of a newer version tells us nothing; its record stays as it is.
            let Ok(event) = Event::from_payload(record.payload) else { return };
            if stream.is_host() {
                self.host.event(arrival, |mono| clock.wall(mono), &event);
            } else {
                let ledger = self.streams.entry(stream).or_default();
                ledger.event(arrival, |mono| clock.wall(mono), event);
            }
            return;
        }
        let ledger = self.streams.entry(stream).or_default();
        match meta.kind {
            RecordKind::Rtp => {
                let Ok(header) = rtp::Header::parse(record.payload) else { return };
                ledger.packet(&Packet {
                    ordinal: meta.source.ordinal(),
                    ssrc: header.ssrc().0,
                    index: meta.index.0,
                    arrival,
                    bytes: record.payload.len() as u64,
                    payload_type: header.payload_type(),
                    timestamp: header.timestamp(),
                    payload: header.payload().unwrap_or_default(),
                });
            }
            RecordKind::Rtcp => {
                let Ok(compound) = Compound::parse(record.payload) else { return };
                for packet in compound.packets() {
                    match packet {
                        rtcp::Packet::SenderReport { ssrc, info, .. } => {
                            ledger.sender_report(arrival, ssrc.0, info.packets);
                        }
                        rtcp::Packet::SourceDescription { count, chunks } => {
                            for chunk in Chunk::all(count, chunks) {
                                if let Some(cname) = chunk.cname {
                                    ledger.cname(chunk.ssrc.0, &String::from_utf8_lossy(cname));
                                }
                            }
                        }
                        _ => {}
                    }
                }
            }
            RecordKind::Event | RecordKind::Poison | RecordKind::Pad => {}
        }
    }
}
