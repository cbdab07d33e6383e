//! On which lines somebody speaks in an open Communication Session, by the metadata (F40). What was
//! when is `store::metadata`'s, with all its history; this is the state of now in a few words per line,
//! kept for each RS that is up. Rules as there (RFC 7865 §6, RFC 8068 §3): a CS is open without stop-time,
//! a participant sends what its last `participantstreamassoc` says as long as it is in the CS.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::metadata::{DataMode, Document, Id, Stream};

/// Ids of each kind that are kept: a conference of 1,000 with its streams. What a document names above it is
/// not known, and no line is expected to speak for it.
const IDS_MAX: usize = 1_024;
/// Who sends what: each of them a few streams.
const SENDS_MAX: usize = 4 * IDS_MAX;

/// See the module. Ids are kept hashed, 8 octets each.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// Open CSs.
    open: BTreeSet<u64>,
    /// Streams and the CS of each.
    streams: BTreeMap<u64, Option<u64>>,
    /// Streams by label.
    labels: BTreeMap<String, u64>,
    /// Participants and what they send.
    sends: BTreeSet<(u64, u64)>,
    /// Participants that have left a CS: they send nothing of it.
    left: BTreeSet<(u64, u64)>,
    /// What follows: streams on which somebody speaks.
    speaking: BTreeSet<u64>,
}

impl Calls {
    /// Takes a document that came in a request.
    pub fn take(&mut self, document: &Document) {
        if document.datamode == DataMode::Complete {
            *self = Calls::default();
        }
        for session in &document.sessions {
            let id = hash(&session.id);
            if session.stop_time.is_some() {
                self.open.remove(&id);
            } else if self.open.len() < IDS_MAX {
                self.open.insert(id);
            }
        }
        document.streams.iter().for_each(|stream| self.take_stream(stream));
        for one in &document.participant_session {
            let key = (hash(&one.participant), hash(&one.session));
            if one.disassociate_time.is_none() {
                self.left.remove(&key);
            } else if self.left.len() < IDS_MAX {
                self.left.insert(key);
            }
        }
        self.take_sends(document);
        self.speaking =
            self.sends.iter().filter(|one| self.is_said(one)).map(|one| one.1).collect();
    }

    fn take_stream(&mut self, stream: &Stream) {
        let id = hash(&stream.id);
        if stream.disassociate_time.is_some() {
            self.streams.remove(&id);
            return;
        }
        let known = self.streams.get(&id).copied();
        if known.is_none() && self.streams.len() >= IDS_MAX {
            return;
        }
        let session = stream.session.as_ref().map(hash);
        self.streams.insert(id, session.or(known.flatten()));
        let Some(label) = &stream.label else { return };
        if known.is_some() && self.labels.get(label) != Some(&id) {
            self.labels.retain(|_, own| *own != id);
        }
        // One m-line is one stream: who comes with its label takes its place (RFC 7865 §6.7.1).
        let before = self.labels.insert(label.clone(), id);
        if let Some(before) = before.filter(|before| *before != id) {
            self.streams.remove(&before);
        }
    }

    /// A statement is the whole set of its participant; several in a document are one (RFC 7865 §6.8.1).
    fn take_sends(&mut self, document: &Document) {
        for one in &document.participant_stream {
            let participant = hash(&one.participant);
            // In order: those of one stand together.
            while let Some(own) = self.sends.range((participant, 0)..).next().copied()
                && own.0 == participant
            {
                self.sends.remove(&own);
            }
        }
        for one in document.participant_stream.iter().filter(|one| one.disassociate_time.is_none())
        {
            let participant = hash(&one.participant);
            for stream in &one.send {
                if self.sends.len() < SENDS_MAX {
                    self.sends.insert((participant, hash(stream)));
                }
            }
        }
    }

    /// Whether a participant is in the open CS that a stream of its belongs to.
    fn is_said(&self, (participant, stream): &(u64, u64)) -> bool {
        let session = self.streams.get(stream).copied().flatten();
        session.is_some_and(|session| {
            self.open.contains(&session) && !self.left.contains(&(*participant, session))
        })
    }

    /// Whether somebody is said to speak on the line of that label: it belongs to an open CS, and a
    /// participant who has not left it sends it.
    pub fn speaks(&self, label: &str) -> bool {
        self.labels.get(label).is_some_and(|stream| self.speaking.contains(stream))
    }
}

fn hash(id: &Id) -> u64 {
    use std::hash::{Hash as _, Hasher as _};
    let mut hasher = std::hash::DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::metadata::{Root, parse};

    fn document(inner: &str) -> Document {
        let xml =
            format!("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">{inner}</recording>");
        match parse(xml.as_bytes(), None) {
            Ok(Root::Recording(document)) => *document,
            other => panic!("{other:?}"),
        }
    }

    const PARTIAL: &str = "<datamode>partial</datamode>";
    const CALL: &str = "<session session_id=\"c\"/>\
        <participant participant_id=\"ann\"/><participant participant_id=\"bob\"/>\
        <stream stream_id=\"s1\" session_id=\"c\"><label>1</label></stream>\
        <stream stream_id=\"s2\" session_id=\"c\"><label>2</label></stream>\
        <participantsessionassoc participant_id=\"ann\" session_id=\"c\"/>\
        <participantsessionassoc participant_id=\"bob\" session_id=\"c\"/>\
        <participantstreamassoc participant_id=\"ann\"><send>s1</send><recv>s2</recv>\
        </participantstreamassoc>\
        <participantstreamassoc participant_id=\"bob\"><send>s2</send><recv>s1</recv>\
        </participantstreamassoc>";

    fn after(documents: &[&str]) -> [bool; 2] {
        let mut calls = Calls::default();
        documents.iter().for_each(|inner| calls.take(&document(inner)));
        ["1", "2"].map(|label| calls.speaks(label))
    }

    fn partial(inner: &str) -> String {
        format!("{PARTIAL}{inner}")
    }

    #[test]
    fn a_line_speaks_while_its_cs_is_open_and_somebody_sends_it() {
        assert_eq!(after(&[]), [false, false]);
        assert_eq!(after(&[CALL]), [true, true]);
        // RFC 8068 §3.2.3: a stop-time ends all of it.
        let stop = partial(
            "<session session_id=\"c\"><stop-time>2010-12-16T23:41:07Z</stop-time></session>",
        );
        assert_eq!(after(&[CALL, &stop]), [false, false]);
        // The next call on the same lines.
        let next = CALL.replace("\"c\"", "\"d\"");
        assert_eq!(after(&[CALL, &stop, &partial(&next)]), [true, true]);
        // A complete document that names no CS: between calls.
        assert_eq!(after(&[CALL, ""]), [false, false]);
    }

    #[test]
    fn who_is_held_or_has_left_says_nothing_and_the_other_does() {
        // RFC 8068 §3.2.2: her set is empty, he is said to go on.
        let held = partial(
            "<participantstreamassoc participant_id=\"ann\"><recv>s2</recv>\
             </participantstreamassoc>",
        );
        assert_eq!(after(&[CALL, &held]), [false, true]);
        let resumed = partial(
            "<participantstreamassoc participant_id=\"ann\"><send>s1</send>\
             </participantstreamassoc>",
        );
        assert_eq!(after(&[CALL, &held, &resumed]), [true, true]);
        let gone = partial(
            "<participantsessionassoc participant_id=\"bob\" session_id=\"c\">\
             <disassociate-time>2010-12-16T23:41:07Z</disassociate-time></participantsessionassoc>",
        );
        assert_eq!(after(&[CALL, &gone]), [true, false]);
        let back = partial("<participantsessionassoc participant_id=\"bob\" session_id=\"c\"/>");
        assert_eq!(after(&[CALL, &gone, &back]), [true, true]);
    }

    #[test]
    fn a_stream_that_takes_a_label_over_is_the_line_from_then_on() {
        let moved = partial(
            "<session session_id=\"d\"/><stream stream_id=\"s3\" session_id=\"d\"><label>1</label>\
             </stream>",
        );
        assert_eq!(after(&[CALL, &moved]), [false, true], "nobody sends s3");
        let sends = partial(
            "<participantstreamassoc participant_id=\"ann\"><send>s3</send>\
             </participantstreamassoc>",
        );
        assert_eq!(after(&[CALL, &moved, &sends]), [true, true]);
        // A stream of no CS belongs to no open one.
        let alone = CALL.replace("stream_id=\"s1\" session_id=\"c\"", "stream_id=\"s1\"");
        assert_eq!(after(&[&alone]), [false, true]);
    }

    #[test]
    fn what_a_client_makes_up_without_end_is_bounded() {
        let mut calls = Calls::default();
        for round in 0..40 {
            let many: String = (0..100)
                .map(|one| {
                    let id = round * 100 + one;
                    format!(
                        "<session session_id=\"c{id}\"/><stream stream_id=\"s{id}\" \
                         session_id=\"c{id}\"><label>{id}</label></stream>\
                         <participantstreamassoc participant_id=\"p{id}\"><send>s{id}</send>\
                         </participantstreamassoc>"
                    )
                })
                .collect();
            calls.take(&document(&partial(&many)));
        }
        let sizes = [calls.open.len(), calls.streams.len(), calls.labels.len()];
        assert_eq!((sizes, calls.sends.len()), ([IDS_MAX; 3], 4_000));
        assert!(calls.speaks("0") && !calls.speaks("3999"));
    }
}
