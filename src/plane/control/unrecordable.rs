//! Running RSs of which nothing can be kept any more are told so, that their SRC may end the call or
//! announce it (RFC 6341 use case 10): BYE with Reason.

use std::collections::BTreeMap;

use super::actor::Control;
use super::effect::Grave;
use super::session::Phase;
use crate::base::ids::{RsId, WorkerId};
use crate::config::model::Unrecordable;
use crate::plane::handoff::frame::WorkerStats;
use crate::store::event::Origin;

/// A ring that has less room than one in this many of its bytes has none: what comes now falls.
const FULL_SHARE: u64 = 64;

impl Control {
    /// Ends the RSs with a stream on a worker whose disk has failed and whose ring is full. While the
    /// ring has room everything that comes is held, and the disk may be well again.
    pub(super) fn end_unrecordable(&mut self, stats: &[WorkerStats]) {
        let lost: BTreeMap<WorkerId, &str> = stats
            .iter()
            .filter(|worker| {
                // Room comes back behind what is both on disk and in a segment.
                let kept = worker.durable.min(worker.sealed);
                let held = worker.tail.0.saturating_sub(kept.0);
                held.saturating_add(worker.ring_bytes / FULL_SHARE) >= worker.ring_bytes
            })
            .filter_map(|worker| Some((worker.worker, worker.disk_error.as_deref()?)))
            .collect();
        if lost.is_empty() || self.config.store.unrecordable == Unrecordable::Keep {
            return;
        }
        // As media shares them out.
        let workers = stats.len() as u32;
        let worker = |slot: u32| WorkerId((slot % workers) as u16);
        let ends: Vec<(RsId, String)> = self
            .sessions
            .values()
            .filter(|session| session.phase == Phase::Live)
            .filter_map(|session| {
                let mut streams = session.streams.iter().filter(|stream| stream.active);
                let why = streams
                    .find_map(|stream| lost.get(&worker(stream.description.slot.0)).copied())?;
                Some((session.rs, why.to_owned()))
            })
            .collect();
        for (rs, why) in ends {
            self.log(
                Grave::Error,
                format!("alarm: {rs} is ended, nothing of it can be kept: {why}"),
            );
            self.end_as(rs, "it cannot be recorded any more", Origin::Srs);
        }
    }
}
