//! RTP, RTCP and SRTP packets.

use std::net::SocketAddr;
use std::sync::OnceLock;

use floortape::base::ids::Index;
use floortape::base::keyring::Keyring;
use floortape::base::mki::Mki;
use floortape::base::secret::MasterKey;
use floortape::base::suite::{Agreed, Suite};
use floortape::proto::srtp::Context;
use floortape::wire::ethernet;
use floortape::wire::rtcp::{BLOCKS_MAX, Chunk, Compound, Packet, ReportBlock, Writer};
use floortape::wire::rtp::{Fields, Header, Kind, classify};

/// The key ‖ salt that the corpus of [`srtp`] was protected under: the first bytes of it, as many as
/// the suite takes.
pub const MASTER: [u8; 46] = [0x5a; 46];

/// What a header says lies within the packet, and the fixed part is what the fields give.
pub fn rtp(data: &[u8]) {
    let kind = classify(data);
    let Ok(header) = Header::parse(data) else {
        return;
    };
    assert!(kind != Kind::KeepAlive && kind != Kind::Stun && kind != Kind::Dtls);
    assert!(header.header_bytes() >= 12 && header.header_bytes() <= data.len());
    assert!(header.csrcs().len() <= 15);
    let extension = header.extension().map_or(0, |(_, bytes)| bytes.len() + 4);
    assert_eq!(header.header_bytes(), 12 + header.csrcs().len() * 4 + extension);
    if let Ok(range) = header.payload_range() {
        assert!(range.start == header.header_bytes() && range.end <= data.len());
        assert_eq!(header.payload(), Ok(&data[range]));
    }
    let fields = Fields {
        marker: header.marker(),
        payload_type: header.payload_type(),
        seq: header.seq(),
        timestamp: header.timestamp(),
        ssrc: header.ssrc(),
    };
    let emitted = fields.emit();
    assert_eq!(emitted[0], 0x80);
    assert_eq!(emitted[1..], data[1..12]);
}

/// A compound is walked to its end, and its reports survive being written.
pub fn rtcp(data: &[u8]) {
    let Ok(compound) = Compound::parse(data) else { return };
    assert!(data.len().is_multiple_of(4));
    assert!((1..=data.len() / 4).contains(&compound.packets().count()));
    for packet in compound.packets() {
        assert!(packet.leaving().count() <= 31);
        let mut out = [0; 2_048];
        let mut writer = Writer::new(&mut out);
        match packet {
            Packet::SenderReport { ssrc, info, blocks } => {
                let blocks = all(blocks);
                if writer.sender_report(ssrc, &info, &blocks).is_err() {
                    assert!(blocks.len() > BLOCKS_MAX);
                    continue;
                }
                let length = writer.length();
                let again = Compound::parse(&out[..length]).expect("our own report");
                let Some(Packet::SenderReport { ssrc: s, info: i, blocks: b }) =
                    again.packets().next()
                else {
                    panic!("expected a sender report");
                };
                assert_eq!((s, i, all(b)), (ssrc, info, blocks));
            }
            Packet::ReceiverReport { ssrc, blocks } => {
                let blocks = all(blocks);
                if writer.receiver_report(ssrc, &blocks).is_err() {
                    assert!(blocks.len() > BLOCKS_MAX);
                    continue;
                }
                let length = writer.length();
                let again = Compound::parse(&out[..length]).expect("our own report");
                let Some(Packet::ReceiverReport { ssrc: s, blocks: b }) = again.packets().next()
                else {
                    panic!("expected a receiver report");
                };
                assert_eq!((s, all(b)), (ssrc, blocks));
            }
            Packet::SourceDescription { count, chunks } => {
                assert!(Chunk::all(count, chunks).count() <= usize::from(count));
                for chunk in Chunk::all(count, chunks) {
                    assert!(chunk.cname.is_none_or(|cname| cname.len() <= 255));
                }
            }
            Packet::Bye { .. } => {
                for ssrc in packet.leaving() {
                    let mut out = [0; 64];
                    let mut writer = Writer::new(&mut out);
                    writer.bye(ssrc).expect("there is room");
                    let length = writer.length();
                    let again = Compound::parse(&out[..length]).expect("our own BYE");
                    let bye = again.packets().next().expect("one packet");
                    assert!(bye.leaving().eq([ssrc]));
                }
            }
            Packet::Other { .. } => {}
        }
    }
}

fn all(blocks: &[u8]) -> Vec<ReportBlock> {
    ReportBlock::all(blocks).collect()
}

/// All suites, and then, in the same order, with what of them need not be encrypted.
fn agreed() -> impl Iterator<Item = Agreed> {
    let in_clear = |suite: Suite| Agreed::from(suite).in_clear(!suite.is_aead(), true);
    Suite::ALL.map(Agreed::from).into_iter().chain(Suite::ALL.into_iter().filter_map(in_clear))
}

fn contexts() -> &'static [Context] {
    static CONTEXTS: OnceLock<Vec<Context>> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let context = |agreed: Agreed| {
            let bytes = agreed.suite().master_bytes();
            let master = MasterKey::new(&MASTER[..bytes]).expect("its length");
            Context::new(agreed, &master).expect("its length")
        };
        agreed().map(context).collect()
    })
}

/// Those of SRCs with two keys and MKIs, and session keys that change.
fn marked() -> &'static [Context] {
    static CONTEXTS: OnceLock<Vec<Context>> = OnceLock::new();
    CONTEXTS.get_or_init(|| {
        let context = |agreed: Agreed| {
            let bytes = agreed.suite().master_bytes();
            let keys = [&MASTER[..bytes], &vec![7; bytes]].concat();
            let mkis = [[0, 1], [0, 2]].map(|octets| Mki::new(&octets).expect("fits"));
            let keyring = Keyring::from_parts(&keys, &mkis, 24).expect("two keys");
            Context::of(agreed, &keyring).expect("its length")
        };
        agreed().map(context).collect()
    })
}

/// What unprotects is what protecting gives; what was protected unprotects, and not with a bit
/// flipped.
pub fn srtp(data: &[u8]) {
    let index = Index(0);
    let (mut first, mut second) = (vec![0; data.len() + 64], vec![0; data.len() + 64]);
    for (plain, context) in contexts().iter().zip(marked()) {
        // Their session keys change far behind; the second key's MKI is none that fits.
        for (octets, is_own) in [([0, 1], true), ([0, 2], false)] {
            let Ok(total) = plain.protect_rtp(data, index, &mut first) else { continue };
            let behind = if plain.suite().is_aead() { 0 } else { plain.suite().rtp_tag_bytes() };
            let (before, after) = first[..total].split_at(total - behind);
            let packet = [before, &octets, after].concat();
            let clear = context.unprotect_rtp(&packet, index, &mut second);
            assert_eq!(clear.map(|clear| &second[..clear]).ok(), is_own.then_some(data));
        }
        let clear = context.unprotect_rtp(data, index, &mut second).unwrap_or(0);
        let report = context.unprotect_rtcp(data, &mut second).map_or(0, |(clear, _)| clear);
        assert!(clear.max(report) <= data.len());
    }
    for (place, context) in contexts().iter().enumerate() {
        if let Ok(clear) = context.unprotect_rtp(data, index, &mut first) {
            let total = context.protect_rtp(&first[..clear], index, &mut second);
            assert_eq!(total.map(|total| &second[..total]), Ok(data));
        }
        if let Ok((clear, index)) = context.unprotect_rtcp(data, &mut first) {
            // What need not be encrypted and was is protected again by the suite that must.
            let total = context.protect_rtcp(&first[..clear], index, &mut second).expect("room");
            if second[..total] != *data {
                let strict = &contexts()[place % Suite::ALL.len()];
                let total = strict.protect_rtcp(&first[..clear], index, &mut second);
                assert_eq!(total.map(|total| &second[..total]), Ok(data));
            }
        }
        if let Ok(total) = context.protect_rtp(data, index, &mut first) {
            let clear = context.unprotect_rtp(&first[..total], index, &mut second);
            assert_eq!(clear.map(|clear| &second[..clear]), Ok(data));
            first[data.len() * 7 % total] ^= 1 << (data.len() % 8);
            assert!(context.unprotect_rtp(&first[..total], index, &mut second).is_err());
        }
        let version_2 = data.first().is_some_and(|first| first >> 6 == 2);
        if let Ok(total) = context.protect_rtcp(data, 7, &mut first)
            && version_2
        {
            let clear = context.unprotect_rtcp(&first[..total], &mut second);
            assert_eq!(clear.map(|(clear, index)| (&second[..clear], index)), Ok((data, 7)));
            first[data.len() * 7 % total] ^= 1 << (data.len() % 8);
            assert!(context.unprotect_rtcp(&first[..total], &mut second).is_err());
        }
    }
}

/// A datagram found in a frame lies within it, and framed anew it is found again; its port is where whoever only
/// looks for that finds it.
pub fn frame(data: &[u8]) {
    let port = ethernet::port(&data[..data.len().min(ethernet::PORT_WITHIN)]);
    let Ok(found) = ethernet::datagram(data) else { return };
    assert!(data.as_ptr_range().start <= found.payload.as_ptr());
    assert!(found.payload.as_ptr_range().end <= data.as_ptr_range().end);
    assert_eq!(port, Some(found.port));
    let to = SocketAddr::new(found.from.ip(), found.port);
    let again = ethernet::frame(found.from, to, found.payload);
    assert_eq!(ethernet::datagram(&again), Ok(found));
}
