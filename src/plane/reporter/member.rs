//! What the reporter knows of one open slot: whom it talks to, under which key and SSRC, and what it
//! said last.

use std::net::SocketAddr;

use super::turn::WorkerState;
use crate::base::ids::{Generation, Index, Ssrc};
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::ports::Region;
use crate::base::prng::Prng;
use crate::base::time::Mono;
use crate::plane::handoff::slot::{CONTROL, LOCAL_INDEX, LOCAL_SSRC, MUX, SlotView};
use crate::plane::handoff::source::SourceView;
use crate::proto::media::{LastSenderReport, Prior, Reception, Report, compose, delay};
use crate::proto::srtp::{Context, SRTCP_INDEX_MAX};
use crate::wire::rtcp::ReportBlock;

/// SRTCP indexes reserved at once. A media process that dies never uses the rest of its reserve, so
/// its successor repeats none: 2^31 of them last for two million starts.
const RESERVE: u64 = 1_000;
/// RR with four blocks (104), SDES with a CNAME of 128 (140), BYE (8), SRTCP trailer (20), rounded up.
pub(super) const DATAGRAM_BYTES: usize = 512;

/// Which state of a slot was read: its control word and when the last command was applied.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Edition {
    control: u64,
    applied: Mono,
}

impl Edition {
    fn of<R: Region>(slot: SlotView<'_, R>) -> Self {
        Edition { control: slot.word(CONTROL), applied: slot.applied().mono }
    }
}

/// One open slot.
pub(super) struct Member {
    pub(super) generation: Generation,
    pub(super) due: Mono,
    /// Whether anything was sent under the present SSRC: who never spoke says no BYE (RFC 3550
    /// §6.3.7).
    pub(super) spoke: bool,
    edition: Option<Edition>,
    /// Where the SRC wants them, and where they go.
    signalled: Option<SocketAddr>,
    to: Option<SocketAddr>,
    mux: bool,
    cname: String,
    context: Option<Context>,
    ssrc: Ssrc,
    /// Last index used, and last one reserved.
    index: u64,
    reserved: u64,
    priors: [(Option<(Ssrc, u16)>, Prior); SOURCES_PER_STREAM],
}

/// A datagram ready to be sent, without its slot.
pub(super) struct Datagram {
    pub(super) mux: bool,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

impl Member {
    /// Begins to report on a slot that opened.
    pub(super) fn join(generation: Generation, now: Mono, prng: &mut Prng) -> Self {
        Member {
            generation,
            due: now.plus_ms(delay(prng, true)),
            spoke: false,
            edition: None,
            signalled: None,
            to: None,
            mux: false,
            cname: String::new(),
            context: None,
            ssrc: Ssrc(0),
            index: 0,
            reserved: 0,
            priors: Default::default(),
        }
    }

    /// Reads destination and key again where a command changed the slot. Does nothing where the
    /// worker is writing just now: the next turn sees a new edition.
    pub(super) fn refresh<R: Region>(&mut self, slot: SlotView<'_, R>) {
        let edition = Edition::of(slot);
        if self.edition == Some(edition) {
            return;
        }
        let (to, cname, keys) = (slot.rtcp_to(), slot.cname(), slot.keys(false));
        if Edition::of(slot) != edition || slot.rtcp_to() != to || slot.cname() != cname {
            return;
        }
        self.context = keys.and_then(|keys| Context::new(keys.suite, &keys.local).ok());
        (self.signalled, self.cname) = (to, cname);
        self.mux = edition.control & MUX != 0;
        self.edition = Some(edition);
    }

    /// The report that is due now. `None` where it has no destination, or no index is left under
    /// this key.
    pub(super) fn report<R: Region>(
        &mut self,
        now: Mono,
        worker: &WorkerState<'_, R>,
        number: u32,
        prng: &mut Prng,
    ) -> Option<Datagram> {
        self.due = now.plus_ms(delay(prng, false));
        // Where the SRC was heard, which address translation may have made another one than it knows of.
        let heard = worker.slot(number).heard();
        self.to = self.signalled.map(|signalled| heard.unwrap_or(signalled));
        self.to?;
        self.choose_ssrc(worker, number, prng);
        let mut blocks = [ReportBlock::default(); SOURCES_PER_STREAM];
        let mut count = 0;
        for place in 0..SOURCES_PER_STREAM {
            let source = SourceView::new(worker.state, worker.geometry, number, place);
            if let Some(block) = self.block(now, source, place) {
                blocks[count] = block;
                count += 1;
            }
        }
        let datagram = self.datagram(worker.slot(number), &blocks[..count], false)?;
        self.spoke = true;
        Some(datagram)
    }

    /// The last words on a slot that closed.
    pub(super) fn bye<R: Region>(&mut self, slot: SlotView<'_, R>) -> Option<Datagram> {
        if self.spoke { self.datagram(slot, &[], true) } else { None }
    }

    /// The block on one source, where packets of it came since the last report.
    fn block<R: Region>(
        &mut self,
        now: Mono,
        source: SourceView<'_, R>,
        place: usize,
    ) -> Option<ReportBlock> {
        let identity = source.identity()?;
        let (known, prior) = &mut self.priors[place];
        if *known != Some(identity) {
            (*known, *prior) = (Some(identity), Prior::default());
        }
        let reception = reception(identity.0, source)?;
        prior.is_behind(&reception).then(|| prior.block(&reception, now))
    }

    /// A fresh SSRC per media start (a repeated SRTCP index under a repeated SSRC would repeat a
    /// nonce), and another one when a source turns out to use it (RFC 3550 §8.2).
    fn choose_ssrc<R: Region>(
        &mut self,
        worker: &WorkerState<'_, R>,
        number: u32,
        prng: &mut Prng,
    ) {
        let taken = |ssrc: Ssrc| {
            (0..SOURCES_PER_STREAM)
                .filter_map(|place| {
                    SourceView::new(worker.state, worker.geometry, number, place).identity()
                })
                .any(|(source, _)| source == ssrc)
        };
        if self.ssrc.0 != 0 && !taken(self.ssrc) {
            return;
        }
        let slot = worker.slot(number);
        let before = Ssrc(slot.word(LOCAL_SSRC) as u32);
        // Five values of 2^32 are refused: the second try all but always ends it.
        for _ in 0..16 {
            self.ssrc = Ssrc(prng.next_u64() as u32);
            if self.ssrc.0 != 0 && self.ssrc != before && !taken(self.ssrc) {
                break;
            }
        }
        self.spoke = false;
        slot.set(LOCAL_SSRC, self.ssrc.0.into());
    }

    fn datagram<R: Region>(
        &mut self,
        slot: SlotView<'_, R>,
        blocks: &[ReportBlock],
        bye: bool,
    ) -> Option<Datagram> {
        let report = Report { ssrc: self.ssrc, cname: &self.cname, blocks, bye };
        let mut clear = [0; DATAGRAM_BYTES];
        let length = compose(&report, &mut clear).ok()?;
        let to = self.to?;
        let bytes = match &self.context {
            None => clear[..length].to_vec(),
            Some(context) => {
                let index = reserve(slot, &mut self.index, &mut self.reserved)?;
                let mut wire = [0; DATAGRAM_BYTES];
                let length = context.protect_rtcp(&clear[..length], index, &mut wire).ok()?;
                wire[..length].to_vec()
            }
        };
        Some(Datagram { mux: self.mux, to, bytes })
    }
}

/// The next SRTCP index. The reserve is written before the first index of it is used; it never falls
/// below what this process used, whatever a new use of the slot writes there meanwhile.
fn reserve<R: Region>(slot: SlotView<'_, R>, index: &mut u64, reserved: &mut u64) -> Option<u32> {
    if *index == *reserved {
        let last = slot.word(LOCAL_INDEX).max(*reserved);
        (*index, *reserved) = (last, last + RESERVE);
        slot.set(LOCAL_INDEX, *reserved);
    }
    *index += 1;
    u32::try_from(*index).ok().filter(|index| *index <= SRTCP_INDEX_MAX)
}

/// What shared state says of a source; `None` before its first packet, or while the worker writes.
fn reception<R: Region>(ssrc: Ssrc, source: SourceView<'_, R>) -> Option<Reception> {
    let (highest, account) = (source.highest()?, source.account());
    if account.packets == 0 || source.account() != account || source.highest() != Some(highest) {
        return None;
    }
    let sr = source.last_sr();
    Some(Reception {
        ssrc,
        lowest: Index(account.lowest),
        highest,
        packets: account.packets,
        jitter: u32::try_from(account.jitter >> 4).unwrap_or(u32::MAX),
        last_sr: (sr.count > 0).then_some(LastSenderReport { ntp: sr.ntp, arrival: sr.arrival }),
    })
}
