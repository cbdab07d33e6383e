//! A stream that goes on after the whole recorder was down (F06): its sources begin where the store
//! says that they were, so that their roll-over counters live on, and the dark span is written down.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::core::Core;
use crate::base::counter::Cause;
use crate::base::ids::StreamId;
use crate::base::limits::SOURCES_PER_STREAM;
use crate::base::ports::{Region, WritableRegion};
use crate::plane::handoff::frame::{KnownSource, ResumeStream};
use crate::plane::handoff::source::Account;
use crate::store::event::Event;
use crate::wire::seq;

/// Port 0 stands for no address: whoever sends with that SSRC is the source.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
/// A source that goes on counts as silent for so long already: its first packet may need a search
/// for its roll-over counter, and nobody else takes its place meanwhile.
const SILENT_NS: u64 = 2_000_000_000;

impl<S: Region, G: WritableRegion> Core<S, G> {
    /// Writes the bounds of the dark span; `None` where the ring has no room.
    pub(super) fn append_gap(&mut self, stream: StreamId, past: &ResumeStream) -> Option<u64> {
        // A wall clock that was set back in between must not turn the span round.
        let to = self.now.wall.max(past.dark_since);
        let event = Event::Gap { cause: Cause::Power, from: past.dark_since, to };
        self.append_event(stream, &event)
    }

    /// Sets up the sources that the store knows. Everything up to the highest index on disk is
    /// refused as repeated from now on: what of it is missing was lost with the power (F33).
    /// `nat`: whoever was heard last is the only sender, wherever the SRC says that it is.
    pub(super) fn begin_known(&mut self, number: u32, sources: &[KnownSource], nat: bool) {
        let last_arrival = self.now.mono.0.saturating_sub(SILENT_NS);
        // Where no sender is known, the one that the SRC signalled stands for it.
        let signalled = self.slot(number).signalled();
        for (place, known) in sources.iter().take(SOURCES_PER_STREAM).enumerate() {
            let mut source = self.source(number, place);
            let from = known.from.or(signalled);
            // Its `source` event stands in the old run's records.
            source.begin(known.ssrc, known.ordinal, from.unwrap_or(UNKNOWN), 0);
            seq::rebuild(&mut source, known.highest);
            source.set_account(&Account { last_arrival, ..Account::default() });
            let latched = if nat { known.from } else { from.filter(|_| signalled.is_none()) };
            if latched.is_some() && self.slot(number).latched().is_none() {
                self.slot(number).set_latched(latched);
            }
        }
    }
}
