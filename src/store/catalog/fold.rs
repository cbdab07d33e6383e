//! What the journal says, folded: the recordings as control knew them. The same fold serves control
//! at run time, the reading verbs, and a rebuild. Folding an entry twice changes nothing.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::controls::Turns;
use super::model::State;
use crate::base::ids::{Position, RsId, StreamId};
use crate::base::time::Wall;
use crate::store::event::{Origin, StreamDescription};
use crate::store::journal::entry::{
    DialogState, Entry, Promise, Sealed, Signalling, SrcFacts, StreamOpened,
};
use crate::store::log::{Marks, learn_marks};
use crate::wire::metadata;

/// Oddities kept per RS: a peer that repeats them must not fill memory.
const QUIRKS_MAX: usize = 256;

/// Everything the journal holds about recordings.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Journalled {
    /// Recordings, by id; ids begin with their time, so this is the order of start.
    pub recordings: BTreeMap<RsId, RsEntry>,
    /// Volume id of the store.
    pub volume: Option<String>,
    /// Stream ids below this are used up.
    pub next_stream: StreamId,
    /// How far each worker's log was durable.
    pub marks: Marks,
}

/// One RS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RsEntry {
    /// Its id.
    pub id: RsId,
    /// When it was accepted.
    pub start: Wall,
    /// When it ended.
    pub end: Option<Wall>,
    /// Where it stands.
    pub state: State,
    /// The dialog.
    #[serde(with = "as_json")]
    pub dialog: DialogState,
    /// The SRC.
    pub src: SrcFacts,
    /// Protection of signalling.
    pub signalling: Signalling,
    /// Oddities, each once.
    pub quirks: Vec<String>,
    /// Salt of its leaves, sealed.
    pub salt: Sealed,
    /// Its streams, closed ones included.
    pub streams: BTreeMap<StreamId, StreamEntry>,
    /// Bodies, by number.
    pub bodies: BTreeMap<u32, Body>,
    /// The recorder's own test call.
    pub own: bool,
    /// Bodies that its INVITE had.
    #[serde(default)]
    pub counted: u32,
    /// What was decided of it.
    pub turns: Turns,
    /// How long it was promised to be kept. `None`: a version that deleted nothing has begun it.
    #[serde(default)]
    pub promise: Option<Promise>,
    /// When what was said of it went: nothing of it is kept any more.
    #[serde(default)]
    pub forgotten: Option<Wall>,
}

/// A journal's type in a binary row: it leaves out what is absent, which only a form that names its
/// fields can read back.
mod as_json {
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&serde_json::to_string(value).map_err(ser::Error::custom)?)
    }

    pub(super) fn deserialize<'de, T: DeserializeOwned, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        serde_json::from_str(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// One stream, as journalled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamEntry {
    /// What it is now.
    pub description: StreamDescription,
    /// Media is wanted.
    pub active: bool,
    /// When it was first accepted.
    pub opened: Wall,
    /// When it was closed: nothing of it comes any more.
    pub closed: Option<Wall>,
    /// All of it stands before this position of its worker's ring; `None`: not known.
    pub through: Option<Position>,
}

/// One body of a SIP request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// When it arrived.
    pub at: Wall,
    /// Method that carried it.
    pub method: String,
    /// CSeq number.
    pub cseq: u32,
    /// Content type as received.
    pub content_type: String,
    /// Content-Disposition as received.
    pub disposition: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Body {
    /// Whether this is RFC 7865 metadata: `application/rs-metadata+xml`, or its label before
    /// registration, `application/rs-metadata`; or a recording's document under another label.
    pub fn is_metadata(&self) -> bool {
        let media_type = self.media_type();
        ["application/rs-metadata+xml", "application/rs-metadata"]
            .iter()
            .any(|known| media_type.eq_ignore_ascii_case(known))
            || (!self.is_sdp() && metadata::is_recording(&self.bytes))
    }

    /// Whether this is an SDP.
    pub fn is_sdp(&self) -> bool {
        self.media_type().eq_ignore_ascii_case("application/sdp")
    }

    /// The charset parameter: it beats the XML declaration (RFC 7865 §5.1).
    pub fn charset(&self) -> Option<&str> {
        self.content_type.split(';').skip(1).find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        })
    }

    fn media_type(&self) -> &str {
        self.content_type.split(';').next().unwrap_or_default().trim()
    }
}

impl Journalled {
    /// All entries, in order. An RS with fewer bodies than its `opened` counts was never accepted: a
    /// cut came before its 200, or its entries are being written at this moment.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut journalled = Journalled::default();
        entries.into_iter().for_each(|entry| journalled.fold(entry));
        journalled.recordings.retain(|_, rs| rs.was_accepted());
        journalled
    }

    /// Leaves out the recordings that are over and of which `is_settled` says so.
    pub fn forget<E>(
        &mut self,
        mut is_settled: impl FnMut(RsId) -> Result<bool, E>,
    ) -> Result<(), E> {
        let ended = self.recordings.values().filter(|rs| rs.end.is_some()).map(|rs| rs.id);
        for id in ended.collect::<Vec<_>>() {
            if is_settled(id)? {
                self.recordings.remove(&id);
            }
        }
        Ok(())
    }

    /// Takes one entry. What names an unknown RS is left out: its `opened` was lost.
    pub fn fold(&mut self, entry: &Entry) {
        match entry {
            Entry::Start { volume, .. } => self.volume = Some(volume.clone()),
            Entry::StreamIds { next } => self.next_stream = self.next_stream.max(*next),
            Entry::Durable { marks, .. } => learn_marks(&mut self.marks, marks),
            Entry::Opened {
                rs,
                at,
                dialog,
                src,
                signalling,
                quirks,
                salt,
                streams,
                own,
                bodies,
                retention,
                ..
            } => {
                let fresh = || RsEntry {
                    id: *rs,
                    start: *at,
                    end: None,
                    state: State::Live,
                    dialog: dialog.clone(),
                    src: src.clone(),
                    signalling: *signalling,
                    quirks: Vec::new(),
                    salt: salt.clone(),
                    streams: BTreeMap::new(),
                    bodies: BTreeMap::new(),
                    own: *own,
                    counted: bodies.unwrap_or(0),
                    turns: Turns::default(),
                    promise: retention.clone(),
                    forgotten: None,
                };
                let entry = self.recordings.entry(*rs).or_insert_with(fresh);
                entry.note(quirks);
                entry.turns.opened(*at, dialog, streams);
                entry.open(*at, streams);
            }
            Entry::Changed { rs, at, dialog, streams, quirks, hold, refused, .. } => {
                if let Some(entry) = self.recordings.get_mut(rs) {
                    entry.dialog = dialog.clone();
                    entry.note(quirks);
                    entry.turns.changed(*at, dialog, (hold.as_ref(), *refused), streams);
                    entry.open(*at, streams);
                    // A request of its SRC: it is there.
                    if entry.end.is_none() {
                        entry.state = State::Live;
                    }
                }
            }
            Entry::Timer { rs, orphan, .. } => {
                if let Some(entry) = self.recordings.get_mut(rs)
                    && entry.end.is_none()
                {
                    entry.state = if *orphan { State::Orphan } else { State::Live };
                }
            }
            Entry::Direction { rs, stream: id, active, at, .. } => {
                if let Some(entry) = self.recordings.get_mut(rs)
                    && let Some(stream) = entry.streams.get_mut(id)
                {
                    stream.active = *active;
                    entry.turns.carried_out(*id, *at, *active);
                }
            }
            Entry::Body { rs, number, at, method, cseq, content_type, disposition, bytes } => {
                if let Some(entry) = self.recordings.get_mut(rs) {
                    entry.bodies.insert(
                        *number,
                        Body {
                            at: *at,
                            method: method.clone(),
                            cseq: *cseq,
                            content_type: content_type.clone(),
                            disposition: disposition.clone(),
                            bytes: STANDARD.decode(bytes).unwrap_or_default(),
                        },
                    );
                }
            }
            Entry::StreamClosed { rs, stream, at, through, .. } => {
                if let Some(stream) =
                    self.recordings.get_mut(rs).and_then(|entry| entry.streams.get_mut(stream))
                {
                    (stream.closed, stream.through) = (Some(*at), *through);
                }
            }
            Entry::Forgotten { rs, at, .. } => {
                if let Some(entry) = self.recordings.get_mut(rs) {
                    entry.forgotten = Some(*at);
                }
            }
            Entry::Ended { rs, at, by, reason, .. } => {
                if let Some(entry) = self.recordings.get_mut(rs) {
                    entry.end = Some(*at);
                    entry.turns.ended(*at, *by, reason);
                    // The SRC was not heard saying BYE, and neither were we: it is gone.
                    entry.state =
                        if *by == Origin::Observed { State::Orphan } else { State::Ended };
                }
            }
        }
    }
}

impl RsEntry {
    /// Whether it was up at some instant of a span.
    pub fn was_up(&self, since: Wall, until: Wall) -> bool {
        self.start <= until && self.end.is_none_or(|end| end >= since)
    }

    /// Whether all of its acceptance is there.
    pub fn was_accepted(&self) -> bool {
        self.bodies.len() >= self.counted as usize
    }

    fn note(&mut self, quirks: &[String]) {
        for quirk in quirks {
            if self.quirks.len() < QUIRKS_MAX && !self.quirks.contains(quirk) {
                self.quirks.push(quirk.clone());
            }
        }
    }

    fn open(&mut self, at: Wall, streams: &[StreamOpened]) {
        for StreamOpened { description, active, .. } in streams {
            let (description, active) = (description.clone(), *active);
            match self.streams.get_mut(&description.stream) {
                Some(known) => (known.description, known.active) = (description, active),
                None => {
                    let (stream, closed, through) = (description.stream, None, None);
                    let entry = StreamEntry { description, active, opened: at, closed, through };
                    self.streams.insert(stream, entry);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_known_by_both_its_types() {
        let body = |content_type: &str| Body {
            at: Wall(0),
            method: "INVITE".to_owned(),
            cseq: 1,
            content_type: content_type.to_owned(),
            disposition: String::new(),
            bytes: Vec::new(),
        };
        assert!(body("Application/RS-Metadata+XML; charset=utf-8").is_metadata());
        assert!(body("application/rs-metadata").is_metadata());
        assert!(!body("application/sdp").is_metadata());
        let disguised = Body { bytes: b"<recording/>".to_vec(), ..body("application/xml") };
        assert!(disguised.is_metadata());
        assert!(!Body { bytes: b"<html/>".to_vec(), ..body("application/xml") }.is_metadata());
        assert_eq!(body("a/b; Charset=\"latin1\"").charset(), Some("latin1"));
    }
}
