//! What a re-offer changed on one m-line.

use std::net::SocketAddr;

use super::line::{Accepted, Chosen, Line};

/// One difference between the last offer and this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineChange {
    /// Recorded from now on: a new line, or a slot that had port 0.
    Added {
        /// Whether the slot was there before.
        reused: bool,
    },
    /// Not recorded any more.
    Removed,
    /// A live line became another kind of media: end the old stream, begin a new one.
    Replaced,
    /// Media stops (`inactive`, `c=0.0.0.0`).
    Paused,
    /// Media comes again.
    Resumed,
    /// The SRC sends from elsewhere. Keep taking the old address until the new one is heard
    /// (RFC 3264 §8.3.1).
    RemoteMoved {
        /// Before.
        from: Option<SocketAddr>,
        /// Now.
        to: Option<SocketAddr>,
    },
    /// Our RTCP goes elsewhere.
    RtcpMoved,
    /// RTCP began or ceased to share the RTP port.
    MuxChanged,
    /// The SRC's key (or its MKI) changed under the same suite.
    KeyChanged,
    /// The suite changed, and with it the key; also from plain RTP to SRTP and back.
    SuiteChanged,
    /// Another list of formats.
    FormatsChanged,
    /// Another label.
    Relabelled {
        /// Before.
        from: Option<String>,
    },
    /// Another profile, `a=content` or the like that only the answer and the description show.
    Described,
}

/// Compares a line with what it was.
pub(super) fn compare(old: Option<&Line>, new: &Line) -> Vec<LineChange> {
    let reused = old.is_some();
    match (old.and_then(|line| line.accepted().map(|accepted| (line, accepted))), new.accepted()) {
        (None, Some(_)) => vec![LineChange::Added { reused }],
        (Some(_), None) => vec![LineChange::Removed],
        (None, None) => Vec::new(),
        (Some((line, _)), Some(_)) if !line.kind.eq_ignore_ascii_case(&new.kind) => {
            vec![LineChange::Replaced]
        }
        (Some((line, before)), Some(now)) => differences(line, before, new, now),
    }
}

fn differences(old: &Line, before: &Accepted, new: &Line, now: &Accepted) -> Vec<LineChange> {
    let mut changes = Vec::new();
    match (before.active, now.active) {
        (true, false) => changes.push(LineChange::Paused),
        (false, true) => changes.push(LineChange::Resumed),
        _ => {}
    }
    if before.remote_rtp != now.remote_rtp {
        changes.push(LineChange::RemoteMoved { from: before.remote_rtp, to: now.remote_rtp });
    }
    if before.remote_rtcp != now.remote_rtcp {
        changes.push(LineChange::RtcpMoved);
    }
    if before.rtcp_mux != now.rtcp_mux {
        changes.push(LineChange::MuxChanged);
    }
    match (&before.crypto, &now.crypto) {
        (None, None) => {}
        (Some(before), Some(now)) if before.suite == now.suite => {
            if !same_key(before, now) {
                changes.push(LineChange::KeyChanged);
            }
        }
        _ => changes.push(LineChange::SuiteChanged),
    }
    if before.formats != now.formats || before.offered != now.offered {
        changes.push(LineChange::FormatsChanged);
    }
    if old.label != new.label {
        changes.push(LineChange::Relabelled { from: old.label.clone() });
    }
    let tag = |accepted: &Accepted| accepted.crypto.as_ref().map(|crypto| crypto.tag);
    if old.transport != new.transport || before.content != now.content || tag(before) != tag(now) {
        changes.push(LineChange::Described);
    }
    changes
}

pub(super) fn same_key(before: &Chosen, now: &Chosen) -> bool {
    before.remote.same(&now.remote)
}
