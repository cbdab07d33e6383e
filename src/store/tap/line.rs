//! One line: its records in the order in which they were captured, what is heard and what happens out.

use std::collections::BTreeMap;

use super::mark::LastOf;
use crate::base::ids::Index;
use crate::base::time::Wall;
use crate::store::event::{Event, Format, Origin, StreamDescription};
use crate::store::export::decoder::Form;
use crate::store::export::placement::Placement;
use crate::store::export::voice::Voice;
use crate::store::record::{RecordKind, RecordMeta};
use crate::wire::{event, rtp};

/// What a record comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// Samples, one channel.
    Audio {
        /// Arrival of the packet.
        at: Wall,
        /// Number of its source in the line: sources may speak at once.
        source: u16,
        /// Where it lies on the line, in samples by RTP time ([`Placement`]).
        position: i64,
        /// Them.
        samples: Vec<i16>,
    },
    /// Packets are missing so far.
    Gap {
        /// Arrival of the packet before.
        from: Wall,
        /// Arrival of the one behind it.
        to: Wall,
        /// How many.
        packets: u64,
    },
    /// From here on nothing is recorded.
    Pause {
        /// When.
        at: Wall,
        /// By whom.
        by: Origin,
    },
    /// From here on it is again.
    Resume {
        /// When.
        at: Wall,
        /// By whom.
        by: Origin,
    },
    /// A digit was dialled.
    Digit {
        /// When it began.
        at: Wall,
        /// Which.
        digit: char,
    },
    /// The line is over.
    Closed {
        /// When.
        at: Wall,
    },
}

/// See the module's description.
pub struct Line {
    description: StreamDescription,
    form: Form,
    voice: Voice,
    placement: Placement,
    sources: BTreeMap<u16, Last>,
    paused: bool,
    /// Since the last packet of any source.
    rested: bool,
    closed: bool,
}

#[derive(Clone, Copy)]
struct Last {
    index: Index,
    wall: Wall,
    /// RTP timestamp of the last digits told, and how many events that were.
    digits: Option<(u32, usize)>,
}

impl Line {
    /// `None`: nothing of it can be heard here.
    pub fn new(description: &StreamDescription) -> Option<Self> {
        let form = description.formats.iter().find_map(Form::of)?;
        Some(Line {
            description: description.clone(),
            form,
            voice: Voice::new(form),
            placement: Placement::new(form.clock_rate),
            sources: BTreeMap::new(),
            paused: false,
            rested: false,
            closed: false,
        })
    }

    /// What the line is.
    pub fn description(&self) -> &StreamDescription {
        &self.description
    }

    /// Its sample rate, Hz.
    pub fn rate(&self) -> u32 {
        self.form.rate
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Goes on behind a packet that was given out before; where on the line it lies.
    pub fn go_on(&mut self, ordinal: u16, last: &LastOf) -> i64 {
        let known = Last { index: Index(last.index), wall: last.wall, digits: None };
        self.sources.insert(ordinal, known);
        // At least one frame: the place of an empty packet is nobody's beginning.
        self.form.frames(self.placement.place(ordinal, last.timestamp, last.wall, 1).position)
    }

    /// Takes a record of this line; `tell` hears what it comes to.
    pub fn record(
        &mut self,
        meta: &RecordMeta,
        payload: &[u8],
        wall: Wall,
        tell: &mut dyn FnMut(Happening),
    ) {
        match meta.kind {
            RecordKind::Rtp => self.rtp(meta, payload, wall, tell),
            RecordKind::Event => self.event(payload, wall, tell),
            RecordKind::Rtcp | RecordKind::Poison | RecordKind::Pad => {}
        }
    }

    fn event(&mut self, payload: &[u8], at: Wall, tell: &mut dyn FnMut(Happening)) {
        match Event::from_payload(payload) {
            Ok(Event::Pause { by }) => {
                self.paused = true;
                self.rested = true;
                tell(Happening::Pause { at, by });
            }
            Ok(Event::Resume { by }) => {
                self.paused = false;
                tell(Happening::Resume { at, by });
            }
            Ok(Event::Close { .. }) => {
                self.closed = true;
                tell(Happening::Closed { at });
            }
            Ok(Event::Changed { description, .. }) => self.description = description,
            _ => {}
        }
    }

    fn rtp(
        &mut self,
        meta: &RecordMeta,
        payload: &[u8],
        at: Wall,
        tell: &mut dyn FnMut(Happening),
    ) {
        let Ok(header) = rtp::Header::parse(payload) else { return };
        let Ok(body) = header.payload() else { return };
        let ordinal = meta.source.ordinal();
        let before = self.sources.get(&ordinal).copied();
        let rested = std::mem::take(&mut self.rested);
        if let Some(last) = before {
            let packets = meta.index.0.saturating_sub(last.index.0).saturating_sub(1);
            // What is missing over a pause was not wanted.
            if packets > 0 && !rested {
                tell(Happening::Gap { from: last.wall, to: at, packets });
            }
        }
        let newest = before.is_none_or(|last| meta.index > last.index);
        let mut last = match before {
            Some(last) if !newest => last,
            _ => Last { index: meta.index, wall: at, digits: before.and_then(|last| last.digits) },
        };
        match self.encoding(header.payload_type()) {
            Encoding::Audio(form) => {
                let (timed, samples) = self.voice.packet(
                    (ordinal, meta.index.0),
                    (header.timestamp(), at),
                    (form, body),
                );
                if timed.anew {
                    self.placement.forget(ordinal);
                }
                let samples = one_channel(samples, usize::from(self.form.channels));
                let (timestamp, ticks) = (timed.timestamp, timed.ticks);
                let position = self.placement.place(ordinal, timestamp, at, ticks).position;
                let position = self.form.frames(position);
                tell(Happening::Audio { at, source: ordinal, position, samples });
            }
            Encoding::Digits => {
                // Packets of a digit repeat its timestamp, and may tell of those that follow it.
                let timestamp = header.timestamp();
                let before = last.digits.filter(|(of, _)| *of == timestamp);
                let known = before.map_or(0, |(_, count)| count);
                for digit in event::all(body).skip(known).filter_map(|told| told.digit()) {
                    tell(Happening::Digit { at, digit });
                }
                last.digits = Some((timestamp, known.max(event::all(body).count())));
            }
            Encoding::Other => {}
        }
        self.sources.insert(ordinal, last);
    }

    /// As the export has it.
    fn encoding(&self, payload_type: u8) -> Encoding {
        let formats = &self.description.formats;
        let format = formats.iter().find(|format| format.payload_type == payload_type);
        let form = match format {
            Some(format) => Form::of(format),
            None => Form::of_static(payload_type),
        };
        let is_digits = |format: &&Format| format.codec.eq_ignore_ascii_case("telephone-event");
        match form {
            Some(form) if self.form.takes(form) => Encoding::Audio(form),
            None if format.as_ref().is_some_and(is_digits) => Encoding::Digits,
            _ => Encoding::Other,
        }
    }
}

enum Encoding {
    Audio(Form),
    Digits,
    Other,
}

/// The mean of all channels, as the mix of an export has it.
fn one_channel(samples: Vec<i16>, channels: usize) -> Vec<i16> {
    if channels == 1 {
        return samples;
    }
    let mean = |frame: &[i16]| {
        (frame.iter().map(|sample| i32::from(*sample)).sum::<i32>() / channels as i32) as i16
    };
    samples.chunks_exact(channels).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{RsId, Slot, SourceId, StreamId};
    use crate::base::time::Mono;

    fn line() -> Line {
        let format = |payload_type, codec: &str| Format {
            payload_type,
            codec: codec.to_owned(),
            clock_rate: 8_000,
            channels: 1,
            fmtp: None,
        };
        Line::new(&StreamDescription {
            stream: StreamId(7),
            rs: RsId::default(),
            line: 0,
            label: Some("1".to_owned()),
            media: "audio".to_owned(),
            formats: vec![format(0, "PCMU"), format(101, "telephone-event")],
            suite: None,
            transport: "RTP/AVP".to_owned(),
            slot: Slot(0),
            port: 0,
            remote: None,
        })
        .expect("it has a decoder")
    }

    fn give(line: &mut Line, kind: RecordKind, index: u64, payload: &[u8]) -> Vec<Happening> {
        give_of(line, (kind, u16::from(kind == RecordKind::Rtp)), index, index as i64 * 20, payload)
    }

    fn give_of(
        line: &mut Line,
        (kind, ordinal): (RecordKind, u16),
        index: u64,
        at_ms: i64,
        payload: &[u8],
    ) -> Vec<Happening> {
        let source = SourceId::new(StreamId(7), ordinal);
        let meta = RecordMeta {
            kind,
            flags: 0,
            generation: 1,
            source,
            index: Index(index),
            arrival: Mono(index),
        };
        let mut all = Vec::new();
        line.record(&meta, payload, Wall(at_ms * 1_000_000), &mut |one| all.push(one));
        all
    }

    fn rtp(number: u32, payload_type: u8, body: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type, 0, number as u8];
        packet.extend_from_slice(&(number * 160).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 9]);
        packet.extend_from_slice(body);
        packet
    }

    fn event(line: &mut Line, event: &Event) -> Vec<Happening> {
        give(line, RecordKind::Event, 0, &event.to_payload())
    }

    #[test]
    fn audio_lies_where_rtp_time_says_and_a_gap_is_told() {
        let mut line = line();
        let heard = give(&mut line, RecordKind::Rtp, 1, &rtp(1, 0, &[0xff, 0x80]));
        let at = Wall(20_000_000);
        assert_eq!(
            heard,
            [Happening::Audio { at, source: 1, position: 0, samples: vec![0, 32_124] }]
        );
        let heard = give(&mut line, RecordKind::Rtp, 4, &rtp(4, 0, &[0xff]));
        let to = Wall(80_000_000);
        assert_eq!(heard[0], Happening::Gap { from: at, to, packets: 2 });
        assert_eq!(
            heard[1],
            Happening::Audio { at: to, source: 1, position: 480, samples: vec![0] }
        );
        // One of them comes late: it is heard in its place, and nothing is missing behind it.
        let heard = give(&mut line, RecordKind::Rtp, 3, &rtp(3, 0, &[0xff]));
        assert!(matches!(heard[..], [Happening::Audio { position: 320, .. }]), "{heard:?}");
        let heard = give(&mut line, RecordKind::Rtp, 5, &rtp(5, 0, &[0xff]));
        assert_eq!(heard.len(), 1, "{heard:?}");
    }

    #[test]
    fn what_is_missing_over_a_pause_is_no_gap() {
        let mut line = line();
        give(&mut line, RecordKind::Rtp, 1, &rtp(1, 0, &[0xff]));
        let by = Origin::Srs;
        assert_eq!(event(&mut line, &Event::Pause { by }), [Happening::Pause { at: Wall(0), by }]);
        assert_eq!(
            event(&mut line, &Event::Resume { by }),
            [Happening::Resume { at: Wall(0), by }]
        );
        let heard = give(&mut line, RecordKind::Rtp, 9, &rtp(9, 0, &[0xff]));
        assert!(matches!(heard[..], [Happening::Audio { position: 1_280, .. }]), "{heard:?}");
        let heard = give(&mut line, RecordKind::Rtp, 11, &rtp(11, 0, &[0xff]));
        assert!(matches!(heard[0], Happening::Gap { packets: 1, .. }), "{heard:?}");
    }

    #[test]
    fn a_digit_is_told_once_however_often_it_is_said() {
        let mut line = line();
        let five = [5, 10, 0, 160];
        let first = give(&mut line, RecordKind::Rtp, 1, &rtp(1, 101, &five));
        assert_eq!(first, [Happening::Digit { at: Wall(20_000_000), digit: '5' }]);
        let mut again = rtp(1, 101, &five);
        again[3] = 2;
        assert!(give(&mut line, RecordKind::Rtp, 2, &again).is_empty());
        let next = give(&mut line, RecordKind::Rtp, 3, &rtp(3, 101, &[11, 10, 0, 160]));
        assert!(matches!(next[..], [Happening::Digit { digit: '#', .. }]), "{next:?}");
    }

    #[test]
    fn who_goes_on_behind_a_packet_hears_the_next_one_where_it_would_have_been() {
        let (mut whole, mut later) = (line(), line());
        give(&mut whole, RecordKind::Rtp, 1, &rtp(1, 0, &[0xff; 160]));
        let last =
            LastOf { index: 1, arrival: 1, timestamp: 160, frame: 0, wall: Wall(20_000_000) };
        assert_eq!(later.go_on(1, &last), 0);
        let next = rtp(3, 0, &[0xff; 160]);
        let heard = give(&mut whole, RecordKind::Rtp, 3, &next);
        assert_eq!(heard, give(&mut later, RecordKind::Rtp, 3, &next));
    }

    /// What a tap writes of these packets: source, index, ms, RTP time in packets, and the octet that it is full of.
    fn tapped(packets: &[(u16, u64, i64, u32, u8)]) -> (Vec<i16>, usize) {
        let (mut line, mut out, mut gaps) = (line(), Vec::new(), 0);
        let mut timeline = super::super::Timeline::new(Wall(0), 0, &[line.rate()]);
        for &(ordinal, index, at_ms, time, octet) in packets {
            let packet = rtp(time, 0, &[octet; 160]);
            for one in give_of(&mut line, (RecordKind::Rtp, ordinal), index, at_ms, &packet) {
                match one {
                    Happening::Audio { at, source, position, samples } => {
                        let _ = timeline.put(0, at, (source, position), samples);
                    }
                    _ => gaps += 1,
                }
            }
            timeline.render(Wall(at_ms * 1_000_000), &mut out);
        }
        timeline.flush(&mut out);
        assert_eq!(timeline.adjusted(), (0, 0), "nothing was too late");
        (out, gaps)
    }

    /// 0x8f and 0x9f of G.711 µ-law.
    const LOUD: [i16; 2] = [16_764, 8_316];

    #[test]
    fn a_line_whose_ssrc_changes_is_heard_whole() {
        let before = (0..40).map(|n| (1, n, n as i64 * 20, 1_000 + n as u32, 0x8f));
        // Another SSRC counts packets and time anew, and goes on when its next packet comes.
        let behind = (0..40).map(|n| (2, n, 800 + n as i64 * 20, 77 + n as u32, 0x9f));
        let (out, gaps) = tapped(&before.chain(behind).collect::<Vec<_>>());
        assert_eq!((out.len(), gaps), (80 * 160, 0));
        assert!(out[..6_400].iter().all(|one| *one == LOUD[0]), "{:?}", &out[..9]);
        assert!(out[6_400..].iter().all(|one| *one == LOUD[1]), "{:?}", &out[6_400..6_409]);
    }

    #[test]
    fn two_ssrcs_at_once_are_heard_together() {
        let first = (0..60).map(|n| (1, n, n as i64 * 20, 1_000 + n as u32, 0x8f));
        let second = (0..60).map(|n| (2, n, 400 + n as i64 * 20, 77 + n as u32, 0x9f));
        let mut both: Vec<_> = first.chain(second).collect();
        both.sort_by_key(|packet| packet.2);
        let (out, gaps) = tapped(&both);
        assert_eq!((out.len(), gaps), (80 * 160, 0));
        let is = |range: std::ops::Range<usize>, level: i16| {
            out[range.start * 160..range.end * 160].iter().all(|one| *one == level)
        };
        assert!(is(0..20, LOUD[0]) && is(60..80, LOUD[1]));
        assert!(is(20..60, LOUD[0] + LOUD[1]), "{:?}", &out[3_200..3_210]);
    }
}
