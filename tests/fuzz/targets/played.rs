//! What packets carry besides audio: real-time text, digits and video. An input is a run of packets: of each a step of
//! the index, a length, and so many bytes.

use floortape::base::ids::{RsId, Slot, StreamId};
use floortape::base::time::Wall;
use floortape::store::event::{Event, Format, StreamDescription};
use floortape::store::export::h264::H264;
use floortape::store::export::placement::Placement;
use floortape::store::export::tones::Tones;
use floortape::store::ledger::{HostEvidence, Packet, StreamLedger};
use floortape::wire::event;
use floortape::wire::red::{BLOCKS_MAX, Red};

/// Payload type of redundant data; that of text is one less.
const RED: u8 = 99;

/// Step of the index and payload, in turn.
fn packets(mut data: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut index = 1_000_u64;
    std::iter::from_fn(move || {
        let [step, length, rest @ ..] = data else { return None };
        index = index.wrapping_add_signed(i64::from(*step as i8));
        let (payload, behind) = rest.split_at(usize::from(*length).min(rest.len()));
        data = behind;
        Some((index, payload))
    })
}

/// A stream of audio with payload type 0.
pub(super) fn description(codec: &str, clock_rate: u32) -> StreamDescription {
    let codec = codec.to_owned();
    let format = Format { payload_type: 0, codec, clock_rate, channels: 1, fmtp: None };
    StreamDescription { formats: vec![format], ..of_formats("audio", []) }
}

/// One with formats of a clock of 1,000 ticks a second.
fn of_formats<const N: usize>(media: &str, formats: [(u8, &str); N]) -> StreamDescription {
    let format = |(payload_type, codec): (u8, &str)| Format {
        payload_type,
        codec: codec.to_owned(),
        clock_rate: 1_000,
        channels: 1,
        fmtp: None,
    };
    StreamDescription {
        stream: StreamId(9),
        rs: RsId([4; 16]),
        line: 0,
        label: None,
        media: media.to_owned(),
        formats: formats.map(format).into(),
        suite: None,
        transport: "RTP/AVP".to_owned(),
        slot: Slot(0),
        port: 20_000,
        remote: None,
    }
}

/// What is read lies within the payload, and text is never longer than what came and a mark for each packet.
pub fn text(data: &[u8]) {
    let mut ledger = StreamLedger::new();
    let description = of_formats("text", [(RED, "red"), (RED - 1, "t140")]);
    ledger.event(Wall(0), |_| Wall(0), Event::Open { description });
    let (mut bytes, mut count) = (0, 0);
    for (number, (index, payload)) in packets(data).enumerate() {
        if let Some(red) = Red::parse(payload) {
            assert!(red.earlier.len() <= BLOCKS_MAX);
            let all: usize = red.earlier.iter().map(|block| block.data.len()).sum();
            assert!(all + red.primary.len() < payload.len());
        }
        bytes += payload.len();
        count += 1 + BLOCKS_MAX;
        ledger.packet(&Packet {
            ordinal: 1,
            ssrc: 7,
            index,
            arrival: Wall(number as i64 * 300_000_000),
            bytes: payload.len() as u64,
            payload_type: RED - (number % 3 == 2) as u8,
            timestamp: number as u32,
            csrcs: &[],
            payload,
        });
    }
    let (lines, _) = ledger.account(&HostEvidence::default(), None, None).text;
    let text: usize = lines.iter().map(|line| line.text.len()).sum();
    // A byte that is no character becomes three.
    assert!(text <= 3 * (bytes + count), "{text} of {bytes}");
}

/// A digit for each event at most, none longer than what was told of it and what was lost between its parts; and
/// a tone is as long as its digit.
pub fn digits(data: &[u8]) {
    let mut ledger = StreamLedger::new();
    let description = of_formats("audio", [(0, "PCMU"), (RED, "telephone-event")]);
    let rate = description.formats[1].clock_rate;
    ledger.event(Wall(0), |_| Wall(0), Event::Open { description });
    let mut placement = Placement::new(rate);
    placement.place(1, 0, Wall(0), 20);
    let (mut tones, mut events) = (Tones::default(), 0);
    for (number, (index, payload)) in packets(data).enumerate() {
        let told: Vec<event::Told> = event::all(payload).collect();
        assert_eq!(told.len(), payload.len() / 4);
        let mut behind = 0;
        for one in &told {
            assert_eq!(one.behind, behind);
            behind += u32::from(one.duration);
        }
        events += told.len();
        let (timestamp, arrival) = (number as u32 / 3 * 0xffff, Wall(number as i64 * 20_000_000));
        tones.packet((1, timestamp, arrival), payload, (rate, rate), &placement);
        ledger.packet(&Packet {
            ordinal: 1,
            ssrc: 7,
            index,
            arrival,
            bytes: payload.len() as u64,
            payload_type: RED,
            timestamp,
            csrcs: &[],
            payload,
        });
    }
    let digits = ledger.account(&HostEvidence::default(), None, None).dtmf;
    assert!(digits.len() <= events);
    let most = 0xffff * events as u64 * 1_000 / u64::from(rate);
    assert!(digits.iter().all(|digit| digit.digit.len() == 1 && digit.ms <= most));
    let tones = tones.all(rate, &placement);
    assert!(tones.len() <= events);
    for tone in &tones {
        assert!((0..=0xffff).contains(&tone.ticks));
        let count = tone.ticks.min(50) as usize;
        assert_eq!(tone.samples(rate, 2, 0, count).len(), 2 * count);
    }
}

/// What leaves is no more than what came, with start codes, and begins with one.
pub fn h264(data: &[u8]) {
    let mut video = H264::new(None);
    let (mut came, mut left) = (0, 0);
    let mut take = |picked: floortape::store::export::h264::Picked| {
        assert!(picked.bytes.is_empty() || picked.bytes.starts_with(&[0, 0, 0, 1]));
        assert!(picked.pictures.iter().all(|(_, at)| *at < picked.bytes.len()));
        left += picked.bytes.len();
    };
    for (number, (index, payload)) in packets(data).enumerate() {
        came += payload.len();
        take(video.packet(index, number as u32 / 3, payload));
    }
    take(video.finish());
    assert!(left <= 5 * came + 8, "{left} of {came}");
}
