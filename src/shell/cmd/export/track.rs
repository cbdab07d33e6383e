//! One stream of an export: its records in, its files out.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use super::packets::{Ends, Form, Packets};
use super::pen::Pen;
use super::senders::{Senders, Sent};
use super::survey::Cut;
use super::video::Video;
use super::wave::{Finished, Wave};
use crate::base::time::Wall;
use crate::store::archive::Seen;
use crate::store::event::{Event, StreamDescription};
use crate::store::export::cover::Cover;
use crate::store::export::decoder::Form as Decoded;
use crate::store::export::encoding::{Encoding, decoded, encoding};
use crate::store::export::timing::Timing;
use crate::store::export::tones::Tones;
use crate::store::export::voice::Voice;
use crate::store::record::{FLAG_RTCP_PORT, RecordKind};
use crate::wire::rtp;

/// Packets held until the earliest sample is known: reordering at the start of a stream reaches no
/// further.
const HELD: usize = 64;
/// Frames of a tone that are made at once.
const TONE_FRAMES: usize = 4_096;
/// Slack behind the recording's own length, seconds: clocks of SRCs run ahead.
const SLACK_S: u64 = 600;

/// What part of the recording is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) from: Option<Wall>,
    pub(super) to: Option<Wall>,
}

impl Range {
    pub(super) fn holds(&self, at: Wall) -> bool {
        self.from.is_none_or(|from| at >= from) && self.to.is_none_or(|to| at < to)
    }
}

/// What every track needs to know.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) dir: &'a Path,
    pub(super) pen: &'a Pen,
    pub(super) range: Range,
    pub(super) local: IpAddr,
    /// Start and end of the recording.
    pub(super) span: (Wall, Wall),
    /// Digits are heard.
    pub(super) tones: bool,
}

/// A stream being exported.
pub(super) struct Track<'a> {
    frame: Frame<'a>,
    description: &'a StreamDescription,
    audio: Option<Audio>,
    video: Option<Video>,
    packets: Packets,
    /// Every packet goes to the packet file, not only those without a decoder.
    all_packets: bool,
    packets_used: bool,
    senders: Senders,
}

/// A finished WAV, and what says where its samples lie in time.
pub(super) struct Heard {
    pub(super) file: String,
    pub(super) wave: Finished,
    pub(super) timing: Timing,
    /// Position of its first sample; `None`: no packet came.
    pub(super) origin: Option<i64>,
    /// Packets and ticks that took the place of others.
    pub(super) over: (u64, u64),
}

impl<'a> Track<'a> {
    /// `form`: packets are wanted in it; `None`: audio, and packets only of what has no decoder.
    /// `cut`: the part of its audio that is wanted.
    pub(super) fn new(
        frame: Frame<'a>,
        description: &'a StreamDescription,
        stem: &str,
        form: Option<Form>,
        cut: Option<Cut>,
    ) -> io::Result<Track<'a>> {
        let audio = match (form, decoded(description)) {
            (None, Some(form)) => Some(Audio::create(&frame, stem, form, cut)?),
            _ => None,
        };
        let video = match (form, &audio) {
            (None, None) => Video::new((frame.dir, frame.pen), stem, &description.formats),
            _ => None,
        };
        let is_opaque = audio.is_none() && video.is_none();
        Ok(Track {
            frame,
            description,
            all_packets: is_opaque,
            packets_used: is_opaque,
            audio,
            video,
            packets: Packets::new(
                (frame.dir, stem),
                form.unwrap_or(Form::Pcapng),
                (description, frame.local),
                frame.pen,
            ),
            senders: Senders::default(),
        })
    }

    pub(super) fn record(&mut self, seen: &Seen<'_>) -> io::Result<()> {
        let meta = &seen.record.meta;
        match meta.kind {
            RecordKind::Rtp => self.rtp(seen),
            RecordKind::Rtcp if self.all_packets => self.put(seen, true),
            RecordKind::Rtcp => {
                if let Some(audio) = &mut self.audio {
                    audio.timing.rtcp(seen.wall(), seen.record.payload);
                }
                Ok(())
            }
            RecordKind::Event => {
                if let Ok(Event::Source { ordinal, ssrc, from }) =
                    Event::from_payload(seen.record.payload)
                {
                    self.senders.told(ordinal, ssrc, from);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn rtp(&mut self, seen: &Seen<'_>) -> io::Result<()> {
        if self.all_packets {
            return self.put(seen, false);
        }
        let Ok(header) = rtp::Header::parse(seen.record.payload) else { return Ok(()) };
        let Ok(payload) = header.payload() else { return Ok(()) };
        if let Some(video) = self.video.as_mut().filter(|video| video.is(header.payload_type())) {
            if !self.frame.range.holds(seen.wall()) {
                return Ok(());
            }
            let meta = &seen.record.meta;
            let of = (meta.source.ordinal(), meta.index.0);
            return video.packet(of, header.timestamp(), seen.wall(), payload);
        }
        let Some(audio) = &mut self.audio else {
            self.packets_used = true;
            return self.put(seen, false);
        };
        match encoding(self.description, header.payload_type()) {
            Encoding::Audio(form) if audio.form.takes(form) => {
                let meta = &seen.record.meta;
                let of = (meta.source.ordinal(), meta.index.0);
                let at = (header.timestamp(), seen.wall());
                audio.packet(of, header.ssrc().0, at, (form, payload))
            }
            Encoding::Event(clock_rate) => {
                let of = (seen.record.meta.source.ordinal(), header.timestamp(), seen.wall());
                audio.event(of, payload, clock_rate);
                Ok(())
            }
            Encoding::Silence => Ok(()),
            _ => {
                self.packets_used = true;
                self.put(seen, false)
            }
        }
    }

    fn put(&mut self, seen: &Seen<'_>, rtcp: bool) -> io::Result<()> {
        if !self.frame.range.holds(seen.wall()) {
            return Ok(());
        }
        let meta = &seen.record.meta;
        let sent = Sent {
            arrival: seen.wall(),
            ordinal: meta.source.ordinal(),
            is_rtcp: rtcp,
            rtcp_port: rtcp && meta.flags & FLAG_RTCP_PORT != 0,
            payload: seen.record.payload,
        };
        let Track { senders, packets, description, frame, .. } = self;
        senders.put(sent, &mut |sent, from| {
            packets.put(&sent, Ends::of(description, from, frame.local, sent.rtcp_port))
        })
    }

    /// What came is written; `sync`: and on the disk.
    pub(super) fn flush(&mut self, sync: bool) -> io::Result<()> {
        if let Some(audio) = &mut self.audio {
            if sync { audio.wave.sync() } else { audio.wave.flush() }?;
        }
        if let Some(video) = &mut self.video {
            video.flush(sync)?;
        }
        self.packets.flush(sync)
    }

    pub(super) fn finish(mut self) -> io::Result<Option<Heard>> {
        if self.packets_used {
            let Track { senders, packets, description, frame, .. } = &mut self;
            senders.finish(&mut |sent, from| {
                packets.put(&sent, Ends::of(description, from, frame.local, sent.rtcp_port))
            })?;
            self.packets.finish(self.frame.span.0)?;
        }
        if let Some(video) = self.video {
            video.finish(self.frame.span.1)?;
        }
        self.audio.map(Audio::finish).transpose()
    }
}

/// The WAV of one stream.
struct Audio {
    wave: Wave,
    file: String,
    form: Decoded,
    voice: Voice,
    cut: Option<Cut>,
    frames_max: u64,
    timing: Timing,
    cover: Cover,
    held: Vec<(i64, Vec<i16>)>,
    tones: Option<Tones>,
    /// Position of the first sample of the file, once known.
    origin: Option<i64>,
}

impl Audio {
    fn create(
        frame: &Frame<'_>,
        stem: &str,
        decoded: Decoded,
        cut: Option<Cut>,
    ) -> io::Result<Audio> {
        let (start, end) = (
            frame.range.from.unwrap_or(frame.span.0).min(frame.span.0),
            frame.range.to.unwrap_or(frame.span.1).max(frame.span.1),
        );
        let seconds = ((end.0 - start.0).max(0) / 1_000_000_000) as u64;
        let frames_max = (seconds + SLACK_S) * u64::from(decoded.rate);
        let file = format!("{stem}.wav");
        Ok(Audio {
            wave: {
                let form = (decoded.rate, u16::from(decoded.channels));
                Wave::create(&frame.dir.join(&file), frame.pen, form, frames_max)?
            },
            file,
            form: decoded,
            voice: Voice::new(decoded),
            cut,
            frames_max,
            timing: Timing::new(decoded.clock_rate),
            cover: Cover::default(),
            held: Vec::new(),
            tones: frame.tones.then(Tones::default),
            origin: cut.and_then(|cut| cut.origin),
        })
    }

    fn packet(
        &mut self,
        of: (u16, u64),
        ssrc: u32,
        at: (u32, Wall),
        (form, payload): (Decoded, &[u8]),
    ) -> io::Result<()> {
        let (timed, samples) = self.voice.packet(of, at, (form, payload));
        if timed.anew {
            self.timing.forget(of.0);
        }
        let source = (of.0, ssrc);
        let position = self.timing.packet(source, timed.timestamp, at.1, timed.ticks);
        self.cover.packet(position, timed.ticks);
        if let Some(origin) = self.origin {
            return self.put(position - origin, &samples);
        }
        self.held.push((position, samples));
        if self.held.len() >= HELD { self.release() } else { Ok(()) }
    }

    fn event(&mut self, of: (u16, u32, Wall), payload: &[u8], clock_rate: u32) {
        if let Some(tones) = &mut self.tones {
            let rates = (clock_rate, self.form.clock_rate);
            tones.packet(of, payload, rates, self.timing.placement());
        }
    }

    /// Puts the tones over what came beside them.
    fn sound(&mut self) -> io::Result<()> {
        let (Some(tones), Some(origin)) = (self.tones.take(), self.origin) else { return Ok(()) };
        for tone in tones.all(self.form.clock_rate, self.timing.placement()) {
            let frames = self.form.frames(tone.ticks).max(0) as u64;
            for first in (0..frames).step_by(TONE_FRAMES) {
                let count = TONE_FRAMES.min((frames - first) as usize);
                let samples = tone.samples(self.form.rate, self.form.channels, first, count);
                self.put_at(self.form.frames(tone.position - origin) + first as i64, &samples)?;
            }
        }
        Ok(())
    }

    fn release(&mut self) -> io::Result<()> {
        self.origin = self.timing.placement().first().map(|(first, _)| first);
        let origin = self.origin.unwrap_or_default();
        for (position, samples) in std::mem::take(&mut self.held) {
            self.put(position - origin, &samples)?;
        }
        Ok(())
    }

    /// Puts samples at so many ticks of the file; what lies outside of it is left out.
    fn put(&mut self, ticks: i64, samples: &[i16]) -> io::Result<()> {
        self.put_at(self.form.frames(ticks), samples)
    }

    fn put_at(&mut self, first: i64, samples: &[i16]) -> io::Result<()> {
        let channels = i64::from(self.form.channels);
        let end = first + samples.len() as i64 / channels;
        let from = first.max(0);
        let to = end.min(self.frames().unwrap_or(self.frames_max) as i64);
        if from >= to {
            return Ok(());
        }
        let slice = ((from - first) * channels) as usize..((to - first) * channels) as usize;
        self.wave.put(from as u64, &samples[slice])
    }

    /// Frames of the file, where the range decides them.
    fn frames(&self) -> Option<u64> {
        self.cut.and_then(|cut| cut.frames)
    }

    fn finish(mut self) -> io::Result<Heard> {
        if self.origin.is_none() {
            self.release()?;
        }
        self.sound()?;
        let placement = self.timing.placement();
        let end = placement.first().map(|(first, _)| first + placement.frames() as i64);
        let recorded = end.zip(self.origin).map_or(0, |(end, origin)| end - origin);
        let recorded = self.form.frames(recorded.max(0)) as u64;
        let frames = self.frames().unwrap_or(recorded.min(self.frames_max));
        let wave = self.wave.finish(frames)?;
        let over = self.cover.over();
        Ok(Heard { file: self.file, wave, timing: self.timing, origin: self.origin, over })
    }
}
