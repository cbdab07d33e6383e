//! What classes and holds ask of a recording.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::base::ids::{RsId, StreamId};
use crate::base::time::Wall;
use crate::config::model::Config;
use crate::proto::session::aor_forms;
use crate::store::catalog::model::{Participant, Recording, Session};
use crate::store::catalog::{RsEntry, named_in};
use crate::store::journal::entry::{Promise, StreamOpened};

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its id.
    pub id: RsId,
    /// When it began.
    pub start: Wall,
    /// When it ended.
    pub end: Option<Wall>,
    /// Its streams.
    pub streams: BTreeSet<StreamId>,
    /// Name of its client in `[[peers]]`.
    pub peer: Option<String>,
    /// Its lines.
    pub lines: Vec<Line>,
    /// Everybody whom its metadata names, each address in all forms in which it is compared.
    pub addresses: Vec<String>,
    /// Ids of its Communication Sessions.
    pub sessions: Vec<String>,
    /// Names, addresses and the client, in lower case: where words are looked for.
    pub words: Vec<String>,
    /// What was promised when it began.
    pub promise: Option<Promise>,
}

/// One line, as far as a class asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// `a=label`.
    pub label: Option<String>,
    /// `audio`, `video` or `text`.
    pub media: String,
    /// The codec that was taken.
    pub codec: String,
}

impl Facts {
    /// What is known of a recording by now.
    pub fn of(rs: &RsEntry, config: &Config) -> Self {
        let (sessions, parties) = named_in(rs);
        Facts::named(rs, &sessions, &parties, config)
    }

    /// The same, of one that has been read.
    pub fn of_recording(recording: &Recording, rs: &RsEntry, config: &Config) -> Self {
        Facts::named(rs, &recording.sessions, &recording.participants, config)
    }

    fn named(rs: &RsEntry, sessions: &[Session], parties: &[Participant], config: &Config) -> Self {
        let (identity, user) = (rs.dialog.identity.as_deref(), rs.dialog.user.as_deref());
        let address = rs.src.address.map_or(rs.dialog.peer.ip(), |address| address.ip());
        let mut facts = Facts {
            id: rs.id,
            start: rs.start,
            end: rs.end,
            streams: rs.streams.keys().copied().collect(),
            peer: peer(config, address, identity, user),
            lines: rs.streams.values().map(|one| line(&one.description)).collect(),
            sessions: sessions.iter().map(|session| session.session_id.clone()).collect(),
            words: vec![rs.src.identity.to_lowercase()],
            promise: rs.promise.clone(),
            ..Facts::default()
        };
        for name in parties.iter().flat_map(|party| &party.names) {
            facts.addresses.extend(aor_forms(&name.aor));
            facts.words.push(name.aor.to_lowercase());
            facts.words.extend(name.name.as_ref().map(|name| name.to_lowercase()));
        }
        facts
    }

    /// What is known of one that begins: by `streams`, the addresses that its metadata names, and
    /// who sends it.
    pub fn of_new(peer: Option<&str>, streams: &[StreamOpened], addresses: &[String]) -> Self {
        Facts {
            peer: peer.map(str::to_owned),
            lines: streams.iter().map(|one| line(&one.description)).collect(),
            addresses: addresses.iter().flat_map(|one| aor_forms(one)).collect(),
            ..Facts::default()
        }
    }
}

fn line(description: &crate::store::event::StreamDescription) -> Line {
    let codec = description.formats.first().map(|format| format.codec.clone());
    Line {
        label: description.label.clone(),
        media: description.media.clone(),
        codec: codec.unwrap_or_default(),
    }
}

fn peer(
    config: &Config,
    address: IpAddr,
    identity: Option<&str>,
    user: Option<&str>,
) -> Option<String> {
    config.peer(address, identity, user).map(|peer| peer.name.clone())
}
