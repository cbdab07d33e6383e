//! The index and the expression itself answer alike, whatever is asked of whatever was recorded.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::*;
use crate::base::ids::StreamId;
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::host::sqlite::{open_read, open_write};
use crate::store::catalog::index::Index;
use crate::store::catalog::model::{
    Digit, ExtensionSeen, Name, Participant, Pause, Period, Reason, Session, State, Verdict,
};
use crate::store::catalog::{Journalled, sketch};
use crate::store::journal::standing_tests::history;
use crate::store::query::{
    Bound, Expr, Field, Has, Is, Named, Now, Term, coded, folded, parse, plain_session, tokens,
};
use crate::wire::aor::normal_aor;

const NOW: Wall = Wall(1_800_000_000_000_000_000);
const HOUR: i64 = 3_600_000_000_000;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("floortape-find-{name}-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a temp folder");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn pick<'a, T: ?Sized>(prng: &mut Prng, from: &[&'a T]) -> &'a T {
    from[prng.below(from.len() as u64) as usize]
}

const NAMES: [&str; 9] = [
    "Ann Miller",
    "Bob Mills",
    "Miller",
    "Jürgen Ann",
    "JU\u{308}RGEN GROSS",
    "Ann Groß",
    "ann",
    "Łódź",
    "",
];
const AORS: [&str; 7] = [
    "sip:Größe@desk.example",
    "sip:ann@desk.example",
    "sip:bob@desk.example:5060",
    "sips:ann@other.example",
    "tel:+49-30-12",
    "sip:+493012@gw;user=phone",
    "sip:miller@desk.example",
];
const LABELS: [&str; 4] = ["1", "desk-12", "desk-1", "A b"];
const SESSIONS: [&str; 3] =
    ["urn:uuid:0b3e4bba-7ce1-45f8-9a0a-0c2ea4ad3b40", "hVpd7YQgRW2nD22h7q60JQ==", "x-1"];
const TEXTS: [&str; 3] = ["<t:a xmlns:t='urn:x'>Bund 10y</t:a>", "<b ref='DEAL-7'/>", "<c>ann</c>"];

/// What the journal may say of a recording; only its client counts here.
fn entry() -> RsEntry {
    let known = (0..50).map(|seed| {
        let mut journalled = Journalled::default();
        history(seed, 60).iter().for_each(|entry| journalled.fold(entry));
        journalled.recordings
    });
    known.flatten().map(|(_, rs)| rs).find(|rs| !rs.streams.is_empty()).expect("one of many")
}

fn recording(prng: &mut Prng, number: u64, model: &RsEntry) -> (Recording, RsEntry) {
    let mut entry = model.clone();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&prng.next_u64().to_be_bytes());
    id[8..].copy_from_slice(&number.to_be_bytes());
    entry.id = RsId(id);
    entry.start = Wall(NOW.0 - prng.below(300) as i64 * HOUR - prng.below(2_000) as i64);
    let length = match prng.below(4) {
        0 => prng.below(500) as i64 * HOUR,
        1 => prng.below(20) as i64 * HOUR,
        _ => prng.below(5_000) as i64 * 1_000_000_000,
    };
    let peer: SocketAddr = pick(prng, &["192.0.2.7:5060", "192.0.2.8:5060"]).parse().expect("one");
    entry.src.address = Some(peer);
    entry.own = prng.below(8) == 0;
    let mut recording = sketch(&entry);
    recording.end = Some(Wall(recording.start.0 + length));
    recording.state = if prng.below(5) == 0 { State::Orphan } else { State::Ended };
    recording.call_id = format!("Call-{}@x", prng.below(30));
    recording.src.identity = pick(prng, &["sip:sbc@Edge.example", "sip:ann@edge"]).to_owned();
    recording.quirks = (0..prng.below(2)).map(|_| "label 7 twice".to_owned()).collect();
    let period = Period {
        from: recording.start,
        to: None,
        stated_from: None,
        stated_to: None,
        stated_offset_ms: None,
    };
    recording.participants = (0..prng.below(4))
        .map(|number| Participant {
            participant_id: number.to_string(),
            names: vec![Name {
                // So many that what they are in is listed.
                aor: match prng.below(2) {
                    0 => format!("sip:p{}@many.example", prng.below(400)),
                    _ => pick(prng, &AORS).to_owned(),
                },
                name: Some(pick(prng, &NAMES).to_owned()).filter(|name| !name.is_empty()),
            }],
            former_names: Vec::new(),
            periods: Vec::new(),
            defined: true,
        })
        .collect();
    recording.sessions = (0..prng.below(3))
        .map(|_| Session {
            session_id: pick(prng, &SESSIONS).to_owned(),
            start: None,
            stop: None,
            group: None,
            sip_session_ids: Vec::new(),
            periods: Vec::new(),
            recorded: Vec::new(),
            reasons: vec![Reason {
                protocol: "SIP".to_owned(),
                cause: "486".to_owned(),
                text: "Busy Miller".to_owned(),
            }],
            members: Vec::new(),
            lines: Vec::new(),
            groups: Vec::new(),
            defined: true,
        })
        .collect();
    recording.metadata.extensions = (0..prng.below(3))
        .map(|_| ExtensionSeen {
            of: "session".to_owned(),
            ids: Vec::new(),
            namespace: "urn:x".to_owned(),
            name: "trade".to_owned(),
            xml: vec![pick(prng, &TEXTS).to_owned()],
            period: period.clone(),
        })
        .collect();
    for (index, stream) in recording.streams.iter_mut().enumerate() {
        stream.stream = StreamId(number * 100 + index as u64);
        stream.label = pick(prng, &LABELS).to_owned();
        stream.codec = pick(prng, &["PCMA", "opus", "G722"]).to_owned();
        stream.media = pick(prng, &["audio", "audio", "video", "text"]).to_owned();
        let verdicts = [Verdict::Complete, Verdict::Continuous, Verdict::Gaps, Verdict::Empty];
        stream.verdict = verdicts[prng.below(4) as usize];
        if prng.below(3) == 0 {
            stream.dtmf = vec![Digit { at: NOW, digit: "5".to_owned(), ms: 80 }];
        }
        if prng.below(3) == 0 {
            stream.pauses = vec![Pause { from: NOW, to: None, cause: "src".to_owned() }];
        }
    }
    (recording, entry)
}

fn named(prng: &mut Prng, values: &[&str], code: impl Fn(&str) -> String) -> Named {
    let word = code(pick(prng, values));
    let prefix = prng.below(3) == 0;
    let chars = word.chars().count() as u64;
    let length = if prefix { 1 + prng.below(chars) } else { chars };
    Named { word: word.chars().take(length as usize).collect(), prefix }
}

fn term(prng: &mut Prng, ids: &[RsId]) -> Term {
    let instant = |prng: &mut Prng| Wall(NOW.0 - prng.below(320) as i64 * HOUR);
    match prng.below(17) {
        0 => Term::Id(ids[prng.below(ids.len() as u64) as usize]),
        1..=4 => {
            let fields = [
                Field::Any,
                Field::Party,
                Field::Name,
                Field::Aor,
                Field::Src,
                Field::Text,
                Field::Quirk,
            ];
            let texts = [
                "Ann",
                "miller",
                "Ann Miller",
                "desk example",
                "bund",
                "deal 7",
                "7",
                "edge",
                "JÜRGEN",
                "groß",
            ];
            let mut words = tokens(pick(prng, &texts));
            let prefix = prng.below(3) == 0;
            if prefix && let Some(last) = words.last_mut() {
                *last = last.chars().take(1 + prng.below(3) as usize).collect();
            }
            Term::Words { field: fields[prng.below(7) as usize], words, prefix }
        }
        5 => {
            let patterns = [
                "sip:*@desk.example",
                "*",
                "tel:+49*",
                "sip:ann@*",
                "sip:gross*@*",
                "sip:p*@many.example",
                "sip:p1*@many.example",
            ];
            match prng.below(2) {
                0 => Term::Aor(pick(prng, &patterns).to_owned()),
                _ => Term::Aor(folded(&normal_aor(pick(prng, &AORS)))),
            }
        }
        6 => Term::Part(pick(prng, &["ill", "edge.ex", "urg", "@desk", "@many", "zz"]).to_owned()),
        7 => Term::Session(named(prng, &SESSIONS, |text| coded(&plain_session(text)))),
        8 => Term::Label(named(prng, &LABELS, coded)),
        9 => Term::Call(named(prng, &["Call-3@x", "call-12@x", "none"], coded)),
        10 => Term::Codec(named(prng, &["PCMA", "OPUS"], coded)),
        11 => Term::Peer(pick(prng, &["seven", "eight", "none"]).to_owned()),
        12 => {
            let all = [Has::Gap, Has::Dtmf, Has::Text, Has::Video, Has::Quirk, Has::Pause];
            Term::Has(all[prng.below(6) as usize])
        }
        13 => match prng.below(2) {
            0 => Term::Verdict(
                [Verdict::Complete, Verdict::Continuous, Verdict::Gaps, Verdict::Empty]
                    [prng.below(4) as usize],
            ),
            _ => {
                let all =
                    [Is::Live, Is::Held, Is::Ended, Is::Orphan, Is::Own, Is::Sealed, Is::Gone];
                Term::Is(all[prng.below(7) as usize])
            }
        },
        14 => {
            let bound = if prng.below(2) == 0 { Bound::Least } else { Bound::Most };
            Term::Duration(bound, prng.below(200) as i64 * HOUR / 4)
        }
        15 => Term::From(instant(prng)),
        _ => Term::To(instant(prng)),
    }
}

fn expr(prng: &mut Prng, ids: &[RsId], depth: u32) -> Expr {
    let some = |prng: &mut Prng| -> Vec<Expr> {
        (0..1 + prng.below(3)).map(|_| expr(prng, ids, depth + 1)).collect()
    };
    match prng.below(if depth > 2 { 1 } else { 5 }) {
        1 | 2 => Expr::All(some(prng)),
        3 => Expr::Any(some(prng)),
        4 => Expr::Not(Box::new(expr(prng, ids, depth + 1))),
        _ => Expr::Term(term(prng, ids)),
    }
}

fn peers(client: &Client) -> Option<String> {
    match &*client.address.to_string() {
        "192.0.2.7" => Some("seven".to_owned()),
        "192.0.2.8" => Some("eight".to_owned()),
        _ => None,
    }
}

fn find<'a>(query: &'a Expr, own: bool, oldest: bool) -> Find<'a> {
    Find {
        query,
        own,
        now: NOW,
        peers: &peers,
        oldest,
        after: None,
        limit: usize::MAX,
        count: true,
    }
}

#[test]
fn the_index_and_the_expression_answer_alike() {
    let folder = Folder::new("alike");
    let mut prng = Prng::new(11);
    let model = entry();
    let all: Vec<_> = (0..400).map(|number| recording(&mut prng, number, &model)).collect();
    let mut index = open_write(&folder.0).expect("made");
    let rows: Vec<_> = all.iter().map(|(recording, entry)| (recording, entry)).collect();
    index.put(&[], &rows).expect("room");
    let mut facts: BTreeMap<RsId, Facts> = BTreeMap::new();
    for (recording, entry) in &all {
        let mut own = Facts::of(recording);
        own.peer = peers(&Client::of(entry));
        facts.insert(own.id, own);
    }
    let reader = open_read(&folder.0).expect("there");
    let check = |facts: &BTreeMap<RsId, Facts>, prng: &mut Prng, rounds: usize| {
        let ids: Vec<RsId> = facts.keys().copied().collect();
        let mut hits = 0;
        for round in 0..rounds {
            let query = expr(prng, &ids, 0);
            let (own, oldest) = (prng.below(2) == 0, prng.below(3) == 0);
            let found = reader.find(&find(&query, own, oldest)).expect("readable");
            let mut meant: Vec<_> = facts
                .values()
                .filter(|facts| (own || !facts.own) && query.matches(facts, NOW))
                .map(|facts| (Place::of(facts.start, facts.id), facts.id))
                .collect();
            meant.sort();
            if !oldest {
                meant.reverse();
            }
            assert!(found.hits == meant, "round {round}: {query:?}");
            assert_eq!(found.count, meant.len() as u64, "round {round}: {query:?}");
            hits += meant.len();
            // Page by page it is the same.
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let page = Find { after, limit: 7, ..find(&query, own, oldest) };
                let page = reader.find(&page).expect("readable");
                assert_eq!(page.count, found.count);
                let Some((last, _)) = page.hits.last() else { break };
                after = Some(*last);
                paged.extend(page.hits);
            }
            assert!(paged == meant, "round {round}: {query:?}");
        }
        assert!(hits > rounds, "random queries mean something");
    };
    check(&facts, &mut prng, 1_500);
    // A part of them goes, another is put once more.
    for (recording, entry) in &all[..150] {
        match recording.streams.first() {
            Some(stream) if entry.own => {
                let segment = crate::store::segment::SegmentName {
                    worker: crate::base::ids::WorkerId(0),
                    number: 1,
                };
                index.thin(segment, 1, &[stream.stream].into()).expect("room");
            }
            _ => index.forget(recording.id).expect("room"),
        }
        facts.remove(&recording.id);
    }
    index.put(&[], &rows[200..]).expect("room");
    check(&facts, &mut prng, 500);
}

/// Names, labels and addresses in several spellings, each of which is asked for in all others.
#[test]
fn however_a_name_is_spelt_it_is_found() {
    let folder = Folder::new("spelt");
    let (mut prng, model) = (Prng::new(6), entry());
    let spelt = [
        ("Jürgen Groß", "sip:größe@desk.example", "Straße-1"),
        ("JÜRGEN GROSS", "sip:GRÖSSE@desk.example", "STRASSE-1"),
        ("Ju\u{308}rgen GROẞ", "sip:gro\u{308}sse@desk.example", "strasse-1"),
        ("Jurgen Gross", "sip:grosse@desk.example", "STRAẞE-1"),
    ];
    let mut index = open_write(&folder.0).expect("made");
    for (number, (name, aor, label)) in (0..).zip(spelt) {
        let (mut recording, mut entry) = recording(&mut prng, number, &model);
        entry.own = false;
        recording.own = false;
        recording.participants.truncate(0);
        recording.participants.push(Participant {
            participant_id: "1".to_owned(),
            names: vec![Name { aor: aor.to_owned(), name: Some(name.to_owned()) }],
            former_names: Vec::new(),
            periods: Vec::new(),
            defined: true,
        });
        recording.streams.iter_mut().for_each(|stream| stream.label = label.to_owned());
        index.put(&[], &[(&recording, &entry)]).expect("room");
    }
    let no_zones = |_: &str| None;
    let now = Now { at: NOW, zone: jiff::tz::TimeZone::UTC, zones: &no_zones };
    let count = |text: &str| {
        let query = parse(text, &now).unwrap_or_else(|error| panic!("{error}"));
        index.find(&find(&query, false, false)).expect("readable").count
    };
    let begin = |text: &str, chars: usize| text.chars().take(chars).collect::<String>();
    for (name, aor, label) in spelt {
        let (first, last) = name.split_once(' ').expect("two words");
        for text in [
            format!("party:{first}"),
            format!("name:{last}"),
            format!("{last}*"),
            format!("{}*", begin(last, 3)),
            format!("\"{name}\""),
            format!("word:{first}"),
            aor.to_owned(),
            format!("aor:{}*", begin(aor, 7)),
            format!("label:{label}"),
            format!("label:{}*", begin(label, 5)),
        ] {
            assert_eq!(count(&text), 4, "{text}");
        }
    }
    assert_eq!((count("gros"), count("name:grossi*")), (0, 0));
}

#[test]
fn what_is_forgotten_is_in_no_file() {
    let folder = Folder::new("forgotten");
    let mut prng = Prng::new(4);
    let model = entry();
    let mut index = open_write(&folder.0).expect("made");
    let mut all: Vec<_> = (0..60).map(|number| recording(&mut prng, number, &model)).collect();
    for (recording, _) in &mut all[20..22] {
        recording.participants.truncate(0);
        recording.participants.push(Participant {
            participant_id: "1".to_owned(),
            names: vec![Name {
                aor: "sip:zyxwvut@secret.example".to_owned(),
                name: Some("Quetzal Xylophon".to_owned()),
            }],
            former_names: Vec::new(),
            periods: Vec::new(),
            defined: true,
        });
    }
    let rows: Vec<_> = all.iter().map(|(recording, entry)| (recording, entry)).collect();
    index.put(&[], &rows).expect("room");
    let holds = |word: &str| {
        let files = std::fs::read_dir(&folder.0).expect("there").flatten();
        files.into_iter().any(|file| {
            let lower = std::fs::read(file.path()).expect("ours").to_ascii_lowercase();
            lower.windows(word.len()).any(|part| part == word.as_bytes())
        })
    };
    let words = ["quetzal", "xylophon", "zyxwvut", "secret"];
    assert!(words.iter().all(|word| holds(word)));
    index.forget(all[20].0.id).expect("room");
    assert!(words.iter().all(|word| holds(word)), "another has that name, too");
    index.forget(all[21].0.id).expect("room");
    let left: Vec<_> = words.iter().filter(|word| holds(word)).collect();
    assert!(left.is_empty(), "{left:?}");
}
