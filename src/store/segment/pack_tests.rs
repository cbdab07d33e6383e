//! Whatever is packed comes back; whatever is unpacked is bounded.

use super::super::unpack::unpack_into;
use super::super::{first_record, unpack};
use super::*;
use crate::base::ids::StreamId;
use crate::base::prng::Prng;

/// What a sender does, one packet after the other.
struct Sender {
    random: Prng,
    meta: RecordMeta,
    packet: [u8; RTP_BYTES],
    payload_bytes: usize,
}

impl Sender {
    fn new(seed: u64) -> Self {
        let mut random = Prng::new(seed);
        let mut packet = [0x80, 8, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4];
        random.fill(&mut packet[4..8]);
        let meta = RecordMeta {
            kind: RecordKind::Rtp,
            flags: 1,
            generation: 3,
            source: SourceId::new(StreamId(9), 1),
            index: Index(random.below(1 << 20)),
            arrival: Mono(random.next_u64() >> 16),
        };
        Sender { random, meta, packet, payload_bytes: 160 }
    }

    /// A packet 20 ms after the one before, give or take `jitter` ns.
    fn packet(&mut self, jitter: u64, out: &mut Vec<u8>) {
        self.meta.index.0 = self.meta.index.0.wrapping_add(1);
        let late = self.random.below(jitter + 1);
        self.meta.arrival.0 = self.meta.arrival.0.wrapping_add(20_000_000 - jitter / 2 + late);
        self.packet[2..4].copy_from_slice(&(self.meta.index.0 as u16).to_be_bytes());
        let timestamp = timestamp(&self.packet).wrapping_add(160);
        self.packet[4..8].copy_from_slice(&timestamp.to_be_bytes());
        let mut payload = self.packet.to_vec();
        payload.resize(RTP_BYTES + self.payload_bytes, 0);
        self.random.fill(&mut payload[RTP_BYTES..]);
        write(&self.meta, &payload, out);
    }

    /// What is seldom, up to what no sender does.
    fn odd(&mut self, out: &mut Vec<u8>) {
        let random = &mut self.random;
        match random.below(16) {
            0 => self.meta.index.0 = random.next_u64(),
            1 => self.meta.index.0 = self.meta.index.0.wrapping_sub(random.below(9)),
            2 => self.meta.index.0 += random.below(70_000),
            3 => random.fill(&mut self.packet[4..8]),
            4 => self.meta.arrival.0 = random.next_u64(),
            5 => self.meta.arrival.0 = self.meta.arrival.0.wrapping_sub(random.below(1 << 40)),
            6 => self.payload_bytes = random.below(2_000) as usize,
            7 => self.packet[1] ^= 1 << random.below(8),
            // CSRCs, extensions, padding bits.
            8 => self.packet[0] ^= 1 << random.below(8),
            9 => random.fill(&mut self.packet[8..]),
            10 => self.meta.generation = random.next_u64() as u16,
            11 => self.meta.flags = random.next_u64() as u8,
            12 => self.meta.source.0 = random.next_u64(),
            13 => {
                let (kind, bytes) = match random.below(4) {
                    0 => (RecordKind::Rtcp, random.below(200)),
                    1 => (RecordKind::Event, random.below(900)),
                    2 => (RecordKind::Poison, PAYLOAD_BYTES_MAX as u64),
                    // Shorter than an RTP header.
                    _ => (RecordKind::Rtp, random.below(14)),
                };
                let mut payload = vec![0; bytes as usize];
                random.fill(&mut payload);
                let meta = RecordMeta { kind, ..self.meta };
                write(&meta, &payload, out);
            }
            // One that is not as it was written: a bit in header, payload or padding.
            _ => {
                let start = out.len();
                self.packet(0, out);
                let bits = (out.len() - start) as u64 * 8;
                let bit = self.random.below(bits) as usize;
                out[start + bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

fn write(meta: &RecordMeta, payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + record_bytes(payload.len()), 0);
    record::write(meta, payload, &mut out[start..]);
}

/// Packs as an emitter does: as many whole records in a chunk as fit.
fn chunks(records: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let piece = &rest[..rest.len().min(CHUNK_RECORD_BYTES_MAX)];
        let bytes = match whole_records(piece) {
            0 => piece.len(),
            whole => whole,
        };
        put_chunk(&rest[..bytes], true, &mut out);
        rest = &rest[bytes..];
    }
    out
}

#[test]
fn any_sequence_of_records_comes_back_octet_for_octet() {
    for seed in 0..400 {
        let mut sender = Sender::new(seed);
        let (jitter, oddness) = (sender.random.below(1 << 22), 1 + sender.random.below(40));
        let mut records = Vec::new();
        while records.len() < 150_000 {
            match sender.random.below(oddness) {
                0 => sender.odd(&mut records),
                _ => sender.packet(jitter, &mut records),
            }
        }
        let packed = chunks(&records);
        let found = unpack(&packed, records.len() as u64);
        assert!(found.as_deref() == Some(&records[..]), "seed {seed}");
        // Where it says that all sums were computed, none of them is wrong.
        let mut memory = vec![7; 99];
        let found = unpack_into(&packed, records.len() as u64, &mut memory);
        let (mut rest, told) = found.expect("packed");
        assert!(rest == records, "seed {seed}");
        while told && !rest.is_empty() {
            rest = &rest[record::read(rest).expect("a right sum").raw.len()..];
        }
        if let Ok(first) = record::read(&records) {
            let found = first_record(&packed[..first.raw.len() + 64]);
            assert_eq!(found.as_deref(), Some(first.raw), "seed {seed}");
        }
    }
}

#[test]
fn a_g711_packet_takes_its_payload_and_five_octets() {
    for (jitter, most) in [(0, 2.2), (8_000, 3.2), (1 << 20, 4.2), (1 << 24, 5.2)] {
        let mut sender = Sender::new(jitter);
        let mut records = Vec::new();
        (0..10_000).for_each(|_| sender.packet(jitter, &mut records));
        let packed = chunks(&records);
        let told = unpack_into(&packed, u64::MAX, &mut Vec::new()).map(|(_, told)| told);
        assert_eq!(told, Some(true));
        let each = packed.len() as f64 / 10_000.0;
        assert!(each < 160.0 + most, "{each} octets a packet with {jitter} ns of jitter");
    }
}

#[test]
fn nothing_is_longer_than_its_records_and_the_header_of_its_chunk() {
    let mut random = Prng::new(5);
    for bytes in [1, 7, 40, 4_000, CHUNK_RECORD_BYTES_MAX] {
        let mut records = vec![0; bytes];
        random.fill(&mut records);
        for packed in [true, false] {
            let mut out = Vec::new();
            put_chunk(&records, packed, &mut out);
            assert_eq!(out.len(), bytes + CHUNK_HEADER_BYTES);
            assert_eq!(unpack(&out, u64::MAX), Some(records.clone()));
        }
    }
}

#[test]
fn what_is_cut_or_claims_too_much_is_refused() {
    let mut sender = Sender::new(1);
    sender.payload_bytes = 20;
    let mut records = Vec::new();
    (0..40).for_each(|_| sender.packet(1_000, &mut records));
    let packed = chunks(&records);
    assert!(unpack(&packed, records.len() as u64 - 1).is_none(), "more than is allowed");
    for cut in 1..packed.len() {
        assert!(unpack(&packed[..cut], u64::MAX).is_none(), "cut at {cut}");
    }
    let with = |at: usize, value: u32| {
        let mut bytes = packed.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        unpack(&bytes, u64::MAX)
    };
    let (stored, held) = (packed.len() as u32 - 8, records.len() as u32);
    assert!(with(0, stored).is_some() && with(4, held).is_some());
    for wrong in [0, 1, stored - 1, stored + 1, u32::MAX] {
        assert!(with(0, wrong).is_none(), "{wrong} stored");
    }
    for wrong in [0, 1, held - 8, held + 8, u32::MAX] {
        assert!(with(4, wrong).is_none(), "{wrong} of records");
    }
    // A header alone claims no memory.
    let claim = [1_u32.to_le_bytes(), 65_576_u32.to_le_bytes()].concat();
    assert!(unpack(&[&claim[..], &[0]].concat().repeat(1_000), u64::MAX).is_none());
}

/// The extent's sum finds a changed octet; here it is enough that nothing panics and nothing grows.
#[test]
fn a_changed_octet_gives_an_error_or_as_many_octets_of_records() {
    let mut sender = Sender::new(2);
    sender.payload_bytes = 12;
    let mut records = Vec::new();
    for _ in 0..30 {
        sender.packet(1_000, &mut records);
        sender.odd(&mut records);
    }
    records.truncate(whole_records(&records[..records.len().min(8_000)]));
    let packed = chunks(&records);
    for at in 0..packed.len() {
        for bit in 0..8 {
            let mut bytes = packed.clone();
            bytes[at] ^= 1 << bit;
            let found = unpack(&bytes, u64::MAX);
            assert!(found.is_none_or(|found| found.len() == records.len()), "octet {at}");
        }
    }
}
