//! Three tell who is on a line: the metadata by its label, the SDP by `a=ssrc`, the media by SSRC and
//! CNAME. Where two of them contradict each other that is told; the attribution stays what the
//! metadata says (F57).

use std::collections::{BTreeMap, BTreeSet};

use super::model::Model;
use super::past::Direction;
use super::quirks::Quirks;
use super::sdp_lines::AnnouncedSource;
use crate::base::time::Wall;
use crate::wire::metadata::Id;

/// An SSRC that was heard.
#[derive(Clone, Debug)]
pub struct HeardSource {
    /// The SSRC.
    pub ssrc: u32,
    /// CNAME by its RTCP.
    pub cname: Option<String>,
    /// When its packets came.
    pub span: (Wall, Wall),
}

/// A line and what was heard on it.
#[derive(Clone, Debug)]
pub struct HeardStream {
    /// What to call it.
    pub name: String,
    /// Its `a=label`, if any.
    pub label: Option<String>,
    /// SSRCs that any offer of this RS announced for the line.
    pub announced: Vec<AnnouncedSource>,
    /// SSRCs with packets.
    pub sources: Vec<HeardSource>,
}

/// Contradictions between metadata, SDP and media, in words.
pub fn cross_check(model: &Model, streams: &[HeardStream]) -> Vec<String> {
    let mut quirks = Quirks::default();
    for stream in streams {
        announced(&mut quirks, stream, streams);
    }
    for (at, stream) in streams.iter().enumerate() {
        same_ssrc(&mut quirks, stream, &streams[at + 1..]);
    }
    let senders: Vec<BTreeSet<Id>> =
        streams.iter().map(|stream| senders(model, stream.label.as_deref())).collect();
    let addresses = addresses(model);
    for (stream, senders) in streams.iter().zip(&senders) {
        cname_names_another(&mut quirks, model, stream, senders, &addresses);
    }
    shared_cnames(&mut quirks, streams, &senders);
    quirks.into_vec()
}

/// SDP against media: RFC 5576 `a=ssrc`.
fn announced(quirks: &mut Quirks, stream: &HeardStream, all: &[HeardStream]) {
    for source in &stream.sources {
        let here = stream.announced.iter().find(|own| own.ssrc == source.ssrc);
        let elsewhere = all.iter().find(|other| {
            other.name != stream.name && other.announced.iter().any(|own| own.ssrc == source.ssrc)
        });
        match (here, elsewhere) {
            (Some(own), _) => {
                if let (Some(said), Some(heard)) = (&own.cname, &source.cname)
                    && said != heard
                {
                    quirks.note(&format!(
                        "line {}: SSRC {:08x} has CNAME {heard} in its RTCP and {said} in the SDP",
                        stream.name, source.ssrc
                    ));
                }
            }
            (None, Some(other)) => quirks.note(&format!(
                "SSRC {:08x} is announced for line {} and heard on line {}: the client crosses its \
                 streams, so who speaks on them is in doubt",
                source.ssrc, other.name, stream.name
            )),
            (None, None) if !stream.announced.is_empty() => quirks.note(&format!(
                "line {}: SSRC {:08x} is heard, the SDP announces others (a=ssrc)",
                stream.name, source.ssrc
            )),
            (None, None) => {}
        }
    }
}

/// One SSRC on two lines at a time (RFC 7866 §8.3.2: avoid collisions).
fn same_ssrc(quirks: &mut Quirks, stream: &HeardStream, others: &[HeardStream]) {
    for source in &stream.sources {
        let together = |other: &&HeardStream| {
            other.name != stream.name
                && other.sources.iter().any(|own| {
                    own.ssrc == source.ssrc
                        && own.span.0 < source.span.1
                        && source.span.0 < own.span.1
                })
        };
        for other in others.iter().filter(together) {
            quirks.note(&format!(
                "SSRC {:08x} is heard on lines {} and {} at a time: the client may send one \
                 party's media on both",
                source.ssrc, stream.name, other.name
            ));
        }
    }
}

fn senders(model: &Model, label: Option<&str>) -> BTreeSet<Id> {
    let parts = label.map(|label| model.on_label(label)).unwrap_or_default();
    let send = parts.into_iter().filter(|part| part.direction == Direction::Send);
    send.map(|part| part.participant).collect()
}

/// Participants by `user@host` of their AoRs; `None` where two share one.
fn addresses(model: &Model) -> BTreeMap<String, Option<Id>> {
    let mut addresses: BTreeMap<String, Option<Id>> = BTreeMap::new();
    for row in model.participants().iter() {
        let names = row.names.iter().flat_map(|(names, _)| names);
        let own: BTreeSet<String> = names.filter_map(|name| user_at_host(&name.aor)).collect();
        for address in own {
            addresses
                .entry(address)
                .and_modify(|known| *known = None)
                .or_insert_with(|| Some(row.id.clone()));
        }
    }
    addresses
}

/// Metadata against media: a CNAME that is a participant's address (RFC 7022 allows it, many send it).
fn cname_names_another(
    quirks: &mut Quirks,
    model: &Model,
    stream: &HeardStream,
    senders: &BTreeSet<Id>,
    addresses: &BTreeMap<String, Option<Id>>,
) {
    for cname in stream.sources.iter().filter_map(|source| source.cname.as_deref()) {
        let Some(Some(owner)) = user_at_host(cname).and_then(|own| addresses.get(&own)) else {
            continue;
        };
        if senders.is_empty() || senders.contains(owner) {
            continue;
        }
        let said: Vec<String> = senders.iter().map(|id| name_of(model, id)).collect();
        quirks.note(&format!(
            "line {}: its RTCP says CNAME {cname}, which is {}; the metadata says that {} sends \
             there: check the labels of the client",
            stream.name,
            name_of(model, owner),
            said.join(" and ")
        ));
    }
}

/// One CNAME is one endpoint (RFC 7866 §8.3.1). Where all lines share one it is the SRC's own, and
/// tells nothing.
fn shared_cnames(quirks: &mut Quirks, streams: &[HeardStream], senders: &[BTreeSet<Id>]) {
    let mut lines: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, stream) in streams.iter().enumerate() {
        for cname in stream.sources.iter().filter_map(|source| source.cname.as_deref()) {
            let places = lines.entry(cname).or_default();
            if places.last() != Some(&at) {
                places.push(at);
            }
        }
    }
    if lines.len() < 2 {
        return;
    }
    for (cname, places) in lines {
        for pair in places.windows(2) {
            let (one, other) = (pair[0], pair[1]);
            let apart = senders[one].is_disjoint(&senders[other]);
            if !senders[one].is_empty() && !senders[other].is_empty() && apart {
                quirks.note(&format!(
                    "lines {} and {} share the CNAME {cname}, so one endpoint sends both; the \
                     metadata names different parties",
                    streams[one].name, streams[other].name
                ));
            }
        }
    }
}

/// The first AoR of a participant, else its id.
fn name_of(model: &Model, id: &Id) -> String {
    let row = model.participants().get(id);
    let names = row.and_then(|row| row.names.iter().last().map(|(names, _)| names));
    names.and_then(|names| names.first()).map_or_else(|| id.to_string(), |name| name.aor.clone())
}

/// `user@host` of a SIP, tel or bare address, lower case; `None` where there is no user and host.
fn user_at_host(address: &str) -> Option<String> {
    let address = address.trim().trim_matches(['<', '>']);
    let rest = ["sip:", "sips:"].iter().find_map(|scheme| {
        let head = address.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme).then(|| &address[scheme.len()..])
    });
    let bare = rest.unwrap_or(address).split([';', '?', '>']).next().unwrap_or_default();
    let (user, host) = bare.split_once('@')?;
    let whole = !user.is_empty() && !host.is_empty();
    whole.then(|| format!("{user}@{host}").to_ascii_lowercase())
}
