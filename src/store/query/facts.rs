//! What a query asks of a recording.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::folding::folded;
use super::words::{WORDS_MAX, coded, plain_session, tokens};
use crate::base::ids::RsId;
use crate::base::time::Wall;
use crate::store::catalog::RsEntry;
use crate::store::catalog::model::{Name, Recording, SealState, State, Verdict};
use crate::wire::aor;

/// Who sent a recording, as the configuration knows peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    /// Where its INVITE came from.
    pub address: IpAddr,
    /// Name in its certificate.
    pub identity: Option<String>,
    /// User that it has proven to be.
    pub user: Option<String>,
}

impl Client {
    /// Of a recording.
    pub fn of(rs: &RsEntry) -> Self {
        Client {
            address: rs.src.address.map_or(rs.dialog.peer.ip(), |address| address.ip()),
            identity: rs.dialog.identity.clone(),
            user: rs.dialog.user.clone(),
        }
    }
}

/// See the module. What is compared is kept as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its id.
    pub id: RsId,
    /// When it began.
    pub start: Wall,
    /// When it ended.
    pub end: Option<Wall>,
    /// Where it stands.
    pub state: State,
    /// The recorder's own test call.
    pub own: bool,
    /// All of it is sealed.
    pub sealed: bool,
    /// Nothing of it is left.
    pub gone: bool,
    /// A hold holds it: whoever knows the holds says so.
    pub held: bool,
    /// Address and name of each party, as received; an empty name where it has none.
    pub parties: Vec<(String, String)>,
    /// Names of parties, each as its words.
    pub names: Vec<Vec<String>>,
    /// Their addresses, each as its words.
    pub aors: Vec<Vec<String>>,
    /// Their addresses, each in all forms in which it is compared, [`folded`].
    pub addresses: Vec<String>,
    /// Names, addresses and the client, [`folded`].
    pub parts: Vec<String>,
    /// Ids of Communication Sessions.
    pub sessions: Vec<String>,
    /// Labels.
    pub labels: Vec<String>,
    /// Codecs.
    pub codecs: Vec<String>,
    /// Its Call-ID.
    pub call: String,
    /// The client, as words.
    pub src: Vec<Vec<String>>,
    /// Name of the client in `[[peers]]`: whoever knows the configuration says so.
    pub peer: Option<String>,
    /// Extension data, groups and reasons, as words.
    pub texts: Vec<Vec<String>>,
    /// Oddities, as words.
    pub quirks: Vec<Vec<String>>,
    /// The worst verdict; `None`: it has no stream.
    pub verdict: Option<Verdict>,
    /// A stream has a loss that nobody wanted.
    pub gap: bool,
    /// It has digits.
    pub dtmf: bool,
    /// It has a line of text.
    pub text_line: bool,
    /// It has a line of video.
    pub video_line: bool,
    /// It has a pause.
    pub pause: bool,
}

/// The worst verdict of a recording's streams.
pub fn worst(recording: &Recording) -> Option<Verdict> {
    recording.streams.iter().map(|stream| stream.verdict).max_by_key(|verdict| match verdict {
        Verdict::Complete => 0,
        Verdict::Continuous => 1,
        Verdict::Empty => 2,
        Verdict::Gaps => 3,
    })
}

impl Facts {
    /// Of a recording as it was read.
    pub fn of(recording: &Recording) -> Self {
        let names = recording.participants.iter().flat_map(|party| &party.names);
        let names: Vec<_> = names.collect();
        let display = || names.iter().filter_map(|name| name.name.as_deref());
        let aors = || names.iter().map(|name| name.aor.as_str());
        let mut parts = vec![folded(&recording.src.identity)];
        parts.extend(aors().chain(display()).map(folded));
        let lines = |media: &str| recording.streams.iter().any(|stream| stream.media == media);
        let gone = recording.retention.as_ref().and_then(|retention| retention.gone.as_ref());
        let src = &recording.src;
        Facts {
            id: recording.id,
            start: recording.start,
            end: recording.end,
            state: recording.state,
            own: recording.own,
            sealed: recording.seal.state == SealState::Sealed,
            gone: gone.is_some_and(|gone| gone.whole),
            held: false,
            parties: {
                let name = |name: &&Name| (name.aor.clone(), name.name.clone().unwrap_or_default());
                let all: BTreeSet<_> = names.iter().map(name).collect();
                all.into_iter().collect()
            },
            names: all_words(display()),
            aors: all_words(aors()),
            addresses: distinct(aors().flat_map(aor::forms).map(|form| folded(&form))),
            parts,
            sessions: distinct(
                recording.sessions.iter().map(|session| coded(&plain_session(&session.session_id))),
            ),
            labels: distinct(recording.streams.iter().map(|stream| coded(&stream.label))),
            codecs: distinct(recording.streams.iter().map(|stream| coded(&stream.codec))),
            call: coded(&recording.call_id),
            src: all_words([&*src.address, &*src.identity, &*src.user_agent].into_iter()),
            peer: None,
            texts: texts(recording),
            quirks: all_words(recording.quirks.iter().map(String::as_str)),
            verdict: worst(recording),
            gap: recording.streams.iter().any(|stream| stream.verdict == Verdict::Gaps),
            dtmf: recording.streams.iter().any(|stream| !stream.dtmf.is_empty()),
            text_line: lines("text"),
            video_line: lines("video"),
            pause: recording.streams.iter().any(|stream| !stream.pauses.is_empty()),
        }
    }
}

fn distinct(all: impl Iterator<Item = String>) -> Vec<String> {
    let mut distinct: Vec<String> = all.collect();
    distinct.sort();
    distinct.dedup();
    distinct
}

/// Texts as words, each text once, as many words as a search looks at.
fn all_words<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Vec<String>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    let mut left = WORDS_MAX;
    for text in texts {
        let mut words = tokens(text);
        words.truncate(left);
        if !words.is_empty() && !all.contains(&words) {
            left -= words.len();
            all.push(words);
        }
    }
    all
}

/// What else the metadata says: groups, reasons, tags, SIP session ids, extension data.
fn texts(recording: &Recording) -> Vec<Vec<String>> {
    let mut texts: Vec<String> = Vec::new();
    for session in &recording.sessions {
        texts.extend(session.sip_session_ids.iter().cloned());
        for reason in &session.reasons {
            texts.push(format!("{} {} {}", reason.protocol, reason.cause, reason.text));
        }
        for member in &session.members {
            texts.extend(member.parameters.iter().map(|(name, value)| format!("{name} {value}")));
        }
    }
    texts.extend(recording.metadata.groups.iter().map(|group| group.group_id.clone()));
    for extension in &recording.metadata.extensions {
        texts.push(extension.name.clone());
        texts.extend(extension.xml.iter().map(|xml| content(xml)));
    }
    all_words(texts.iter().map(String::as_str))
}

/// What an element says: its text and its attributes' values, without names and namespaces.
fn content(xml: &str) -> String {
    let mut out = String::with_capacity(xml.len());
    let mut rest = xml;
    while let Some(open) = rest.find('<') {
        out.push_str(&rest[..open]);
        out.push(' ');
        rest = &rest[open + 1..];
        let mut quote = None;
        let mut name_at = 0;
        let mut value_at = 0;
        let mut end = rest.len();
        for (at, c) in rest.char_indices() {
            match (quote, c) {
                (None, '>') => {
                    end = at + 1;
                    break;
                }
                (None, '"' | '\'') => {
                    quote = Some(c);
                    value_at = at + 1;
                }
                (Some(open), c) if c == open => {
                    if !rest[name_at..value_at].trim_start().starts_with("xmlns") {
                        out.push_str(&rest[value_at..at]);
                        out.push(' ');
                    }
                    quote = None;
                    name_at = at + 1;
                }
                (None, c) if c.is_whitespace() => name_at = at,
                _ => {}
            }
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_its_text_and_its_values() {
        let xml =
            "<t:trade xmlns:t=\"urn:x\" ref='A-1'>Bund <t:side kind=\"b>c\">buy</t:side></t:trade>";
        assert_eq!(tokens(&content(xml)), ["a", "1", "bund", "b", "c", "buy"]);
        assert_eq!(content("<<<\"<é"), " ");
    }
}
