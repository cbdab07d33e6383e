//! From records to accounts: reads what the records hold and hands it to the ledgers.

use std::collections::BTreeMap;

use super::evidence::HostEvidence;
use super::stream::{Packet, StreamLedger};
use crate::base::ids::StreamId;
use crate::base::time::{ClockMap, Wall};
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

/// Where the records of one stream go.
pub struct Feed<'a> {
    host: &'a mut HostEvidence,
    /// `None`: they are the recorder's own.
    stream: Option<&'a mut StreamLedger>,
}

impl Ledgers {
    /// Takes a record; `clock` is the map valid for its arrival.
    pub fn record(&mut self, record: &Record<'_>, clock: &ClockMap) {
        self.feed(record.meta.source.stream()).record(record, clock);
    }

    /// Takes records of one stream: who has many in a row looks for its account once.
    pub fn feed(&mut self, stream: StreamId) -> Feed<'_> {
        let Ledgers { streams, host } = self;
        let stream = (!stream.is_host()).then(|| streams.entry(stream).or_default());
        Feed { host, stream }
    }
}

impl Feed<'_> {
    /// Takes a record of the stream; `clock` is the map valid for its arrival.
    pub fn record(&mut self, record: &Record<'_>, clock: &ClockMap) {
        let mut one = Some((*record, *clock));
        self.records(&mut || one.take());
    }

    /// Takes records of the stream until there is none, each with the map valid for its arrival.
    #[inline]
    pub fn records<'r>(&mut self, next: &mut impl FnMut() -> Option<(Record<'r>, ClockMap)>) {
        let mut now = next();
        while let Some((record, clock)) = now {
            // Nearly all are packets of the source before.
            if let Some(ledger) = self.stream.as_deref_mut()
                && let Some(packet) = packet(&record, &clock)
            {
                let mut packets = ledger.packets(packet.ordinal, packet.ssrc);
                packets.take(&packet);
                now = next();
                while let Some((record, clock)) = &now
                    && record.meta.source.ordinal() == packet.ordinal
                    && let Some(packet) = self::packet(record, clock)
                    && packet.ssrc == packets.ssrc()
                {
                    packets.take(&packet);
                    now = next();
                }
                continue;
            }
            self.other(&record, &clock);
            now = next();
        }
    }

    /// One that is no packet, or none that can be read.
    fn other(&mut self, record: &Record<'_>, clock: &ClockMap) {
        let meta = &record.meta;
        let arrival = clock.wall(meta.arrival);
        let Some(ledger) = self.stream.as_deref_mut() else {
            // An event of a newer version tells us nothing; its record stays as it is.
            if let (RecordKind::Event, Ok(event)) = (meta.kind, Event::from_payload(record.payload))
            {
                self.host.event(arrival, |mono| clock.wall(mono), &event);
            }
            return;
        };
        match meta.kind {
            RecordKind::Rtcp => rtcp(ledger, record.payload, arrival),
            RecordKind::Event => {
                if let Ok(event) = Event::from_payload(record.payload) {
                    ledger.event(arrival, |mono| clock.wall(mono), event);
                }
            }
            RecordKind::Rtp | RecordKind::Poison | RecordKind::Pad => {}
        }
    }
}

#[inline]
fn packet<'r>(record: &Record<'r>, clock: &ClockMap) -> Option<Packet<'r>> {
    let meta = &record.meta;
    if meta.kind != RecordKind::Rtp {
        return None;
    }
    let header = rtp::Header::parse(record.payload).ok()?;
    Some(Packet {
        ordinal: meta.source.ordinal(),
        ssrc: header.ssrc().0,
        index: meta.index.0,
        arrival: clock.wall(meta.arrival),
        bytes: record.payload.len() as u64,
        payload_type: header.payload_type(),
        timestamp: header.timestamp(),
        csrcs: header.csrc_bytes(),
        payload: header.payload().unwrap_or_default(),
    })
}

fn rtcp(ledger: &mut StreamLedger, payload: &[u8], arrival: Wall) {
    let Ok(compound) = Compound::parse(payload) else { return };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Index, SourceId, Ssrc};
    use crate::base::time::Mono;
    use crate::store::record::{FLAG_AUTHENTICATED, RecordMeta};

    const STREAM: StreamId = StreamId(3);

    fn take(ledgers: &mut Ledgers, kind: RecordKind, index: u64, payload: &[u8]) {
        let meta = RecordMeta {
            kind,
            flags: FLAG_AUTHENTICATED,
            generation: 1,
            source: SourceId::new(STREAM, u16::from(kind == RecordKind::Rtp)),
            index: Index(index),
            arrival: Mono(index * 20_000_000),
        };
        ledgers.record(&Record { meta, payload, raw: payload }, &ClockMap::default());
    }

    /// RFC 3550 §5.1, by hand: what a mixer sends, who is in it, and what it says of them in SDES.
    #[test]
    fn csrc_lists_of_a_mixer_become_ranges_with_names() {
        let mut ledgers = Ledgers::default();
        for index in 0..100_u64 {
            let csrcs: &[u32] = match index {
                0..40 => &[0xa, 0xb],
                40..60 => &[0xb],
                60..80 => &[],
                _ => &[0xb, 0xc],
            };
            let mut packet =
                vec![0x80 | csrcs.len() as u8, 0, 0, index as u8, 0, 0, 0, 0, 0, 0, 0, 7];
            csrcs.iter().for_each(|csrc| packet.extend(csrc.to_be_bytes()));
            packet.extend([0xff; 160]);
            take(&mut ledgers, RecordKind::Rtp, index, &packet);
        }
        let mut room = [0; 256];
        let mut writer = rtcp::Writer::new(&mut room);
        for (ssrc, cname) in [(7, "bridge@x"), (0xa, "ann@x"), (0xb, "bob@x")] {
            writer.cname(Ssrc(ssrc), cname).expect("room");
        }
        let length = writer.length();
        take(&mut ledgers, RecordKind::Rtcp, 100, &room[..length]);
        let account = ledgers.streams[&STREAM].account(&ledgers.host, None, None);
        let source = &account.sources[0];
        assert_eq!((source.packets, source.cname.as_deref()), (100, Some("bridge@x")));
        let named = |one: &crate::store::catalog::model::Contribution| {
            let names = one.csrcs.iter().map(|own| own.cname.as_deref().unwrap_or("?").to_owned());
            (one.first, one.last, one.packets, names.collect::<Vec<_>>().join(" "))
        };
        let told: Vec<_> = source.contributors.iter().map(named).collect();
        let expected = [
            (0, 39, 40, "ann@x bob@x".to_owned()),
            (40, 59, 20, "bob@x".to_owned()),
            (80, 99, 20, "bob@x ?".to_owned()),
        ];
        assert_eq!(told, expected);
        let last = &source.contributors[2];
        assert_eq!((last.from, last.to), (Wall(80 * 20_000_000), Wall(99 * 20_000_000)));
        assert_eq!(source.contributors_cut, None);
    }
}
