//! What came of a stream, as far as it says when: arrivals, and the sender reports (SR) of its sources.
//! [`align`](super::align::align) finds the time lines of all streams of a recording from it.
//!
//! Arrivals: a packet can be late, never early. So the clock of an SRC is the line below all delays that
//! touches the least of them, fitted in a window of half an hour around each minute: what drifts slowly
//! is followed, jitter is not. Sender reports (RFC 3550 §6.4.1) say when a sample was by the sender's own
//! wall clock. That clock may be wrong, but it is one for all sources of a CNAME: between those it says
//! how much later one line's packets come than another's, and by that much each is moved to the
//! earliest. A report that fits neither the packets nor the report before it does not count.
//!
//! Memory: 16 bytes each ten seconds and 24 each report, four a minute at most: 0.3 MB a stream and day.
//! It may be asked at any time, and tells what is known so far.

use std::collections::BTreeMap;

use super::placement::Placement;
use crate::base::time::Wall;
use crate::wire::rtcp::{Chunk, Compound, Packet};

/// Of so many seconds the least delay is kept.
const BUCKET_S: i64 = 10;
/// Reports kept of a source each minute: the median of five minutes is of 20.
const REPORTS_A_MINUTE: u32 = 4;
/// Sources of a stream whose reports are kept: any packet may name any source.
const SOURCES_MAX: usize = 64;
/// Breaks of RTP time that are followed, and holes that are told.
const STRETCHES_MAX: usize = 10_000;
const HOLES_MAX: usize = 100_000;
/// A clock that is so far ahead of the packets that came with it: a day at 700 ppm.
const AHEAD_NS: i64 = 60_000_000_000;
/// Less than this is no silence worth telling, milliseconds.
const HOLE_MS: i64 = 100;

/// What came of one stream.
#[derive(Clone, Debug)]
pub struct Timing {
    pub(super) rate: i64,
    placement: Placement,
    pub(super) stretches: Vec<Stretch>,
    /// The stretch that each source is in.
    current: BTreeMap<u16, usize>,
    pub(super) sources: BTreeMap<u32, Reports>,
    holes: usize,
    pub(super) cut: bool,
}

/// Samples that one clock counted without a break.
#[derive(Clone, Debug)]
pub(super) struct Stretch {
    pub(super) ssrc: u32,
    /// RTP timestamp, position and arrival of its first packet: delays are reckoned from it.
    pub(super) timestamp: u32,
    pub(super) zero: i64,
    pub(super) base: Wall,
    /// First position, and the one behind the last.
    pub(super) from: i64,
    pub(super) to: i64,
    pub(super) lows: Vec<Low>,
    pub(super) holes: Vec<(i64, i64)>,
}

/// The least delay of some seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Low {
    pub(super) position: i64,
    /// Arrival less RTP time, ns, from the stretch's own zero.
    pub(super) delay: i64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Reports {
    pub(super) cname: Option<Vec<u8>>,
    pub(super) kept: Vec<Report>,
    minute: i64,
    in_minute: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) arrival: Wall,
    /// The sender's wall clock, ns.
    pub(super) ntp: i64,
    pub(super) rtp: u32,
}

impl Timing {
    /// Of a stream with an RTP clock of `rate` Hz.
    pub fn new(rate: u32) -> Self {
        Timing {
            rate: i64::from(rate.max(1)),
            placement: Placement::new(rate),
            stretches: Vec::new(),
            current: BTreeMap::new(),
            sources: BTreeMap::new(),
            holes: 0,
            cut: false,
        }
    }

    /// Where everything lies.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// The RTP time of a source begins anew.
    pub fn forget(&mut self, ordinal: u16) {
        self.placement.forget(ordinal);
    }

    /// Takes a packet of `ticks` of audio; returns its position.
    pub fn packet(&mut self, source: (u16, u32), timestamp: u32, arrival: Wall, ticks: u32) -> i64 {
        let (ordinal, ssrc) = source;
        let placed = self.placement.place(ordinal, timestamp, arrival, ticks);
        let position = placed.position;
        let current = self.current.get(&ordinal).copied();
        let goes_on = current.filter(|current| {
            !placed.anew && !self.stretches[*current].is_ahead(position, arrival, self.rate)
        });
        let current = match goes_on {
            Some(current) => current,
            // It has its place, and says no more of time.
            None if self.stretches.len() >= STRETCHES_MAX => {
                self.cut = true;
                return position;
            }
            None => {
                self.stretches.push(Stretch {
                    ssrc,
                    timestamp,
                    zero: position,
                    base: arrival,
                    from: position,
                    to: position,
                    lows: Vec::new(),
                    holes: Vec::new(),
                });
                self.current.insert(ordinal, self.stretches.len() - 1);
                self.stretches.len() - 1
            }
        };
        let rate = self.rate;
        let stretch = &mut self.stretches[current];
        stretch.low(position, arrival, rate);
        let end = position + i64::from(ticks);
        if position - stretch.to > rate * HOLE_MS / 1_000 {
            match self.holes < HOLES_MAX {
                true => stretch.holes.push((stretch.to, position)),
                false => self.cut = true,
            }
            self.holes += 1;
        }
        stretch.to = stretch.to.max(end);
        stretch.from = stretch.from.min(position);
        position
    }

    /// Takes an RTCP datagram.
    pub fn rtcp(&mut self, arrival: Wall, datagram: &[u8]) {
        let Ok(compound) = Compound::parse(datagram) else { return };
        for packet in compound.packets() {
            match packet {
                Packet::SenderReport { ssrc, info, .. } => {
                    let report = Report { arrival, ntp: unix_ns(info.ntp), rtp: info.rtp };
                    if let Some(reports) = self.reports(ssrc.0) {
                        reports.take(report);
                    }
                }
                Packet::SourceDescription { count, chunks } => {
                    for chunk in Chunk::all(count, chunks) {
                        let Some(cname) = chunk.cname else { continue };
                        if let Some(reports) = self.reports(chunk.ssrc.0) {
                            reports.cname = Some(cname.to_vec());
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn reports(&mut self, ssrc: u32) -> Option<&mut Reports> {
        if !self.sources.contains_key(&ssrc) && self.sources.len() >= SOURCES_MAX {
            return None;
        }
        Some(self.sources.entry(ssrc).or_default())
    }
}

/// NTP time (RFC 3550 §4) as ns since 1970. What has the upper bit clear is of the era from 2036 on
/// (RFC 4330 §3), or no wall time at all: either counts on without a step. 0 says that there is none.
fn unix_ns(ntp: u64) -> i64 {
    if ntp == 0 {
        return i64::MIN;
    }
    let seconds = (ntp >> 32) as i64 + if ntp >> 63 == 0 { 1 << 32 } else { 0 };
    (seconds - 2_208_988_800) * 1_000_000_000 + (((ntp & 0xffff_ffff) * 1_000_000_000) >> 32) as i64
}

impl Reports {
    fn take(&mut self, report: Report) {
        let minute = report.arrival.0.div_euclid(60_000_000_000);
        if minute != self.minute {
            (self.minute, self.in_minute) = (minute, 0);
        }
        self.in_minute += 1;
        if self.in_minute <= REPORTS_A_MINUTE {
            self.kept.push(report);
        }
    }
}

impl Stretch {
    fn low(&mut self, position: i64, arrival: Wall, rate: i64) {
        let delay = (arrival.0 - self.base.0) - self.ns(position, rate);
        let bucket = |position: i64| (position - self.zero).div_euclid(BUCKET_S * rate);
        let low = Low { position, delay };
        match self.lows.last_mut() {
            // A straggler of the bucket before is later than what is there.
            Some(last) if bucket(position) <= bucket(last.position) => {
                if delay < last.delay && bucket(position) == bucket(last.position) {
                    *last = low;
                }
            }
            _ => self.lows.push(low),
        }
    }

    /// Whether RTP time has run ahead of ours: small leaps that add up. It bounds a stretch by the
    /// time that it took.
    fn is_ahead(&self, position: i64, arrival: Wall, rate: i64) -> bool {
        self.ns(position, rate) - (arrival.0 - self.base.0) > AHEAD_NS
    }

    /// RTP time of a position, ns from the stretch's zero.
    pub(super) fn ns(&self, position: i64, rate: i64) -> i64 {
        (i128::from(position - self.zero) * 1_000_000_000 / i128::from(rate)) as i64
    }
}
