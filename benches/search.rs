//! How long a search takes in a catalogue of ten million recordings: twenty fixed queries, each with its exact
//! count and its first page, and the recordings of that page as they would be shown. Cold: the file is dropped
//! from the page cache and opened anew before each. Warm: on an open connection, asked before.
//!
//! The catalogue is made by the product's own writer, in transactions of some thousand recordings; one of fifty
//! is put whole, as the product puts it (its JSON and what the journal said of it), of the others what is
//! searched. So the file stays below what a laptop has; a page reads as many whole recordings as it has hits,
//! those nearest to them. One year, 50,000 parties, of whom one is in each fiftieth recording; lengths from
//! seconds to days; one in fifty has a loss.
//!
//! Aims: p95 of all below 1 s cold and below 100 ms warm; exit 1 where they are missed.
//!
//! `cargo bench --bench search -- [make|ask|all] [DIR] [RECORDINGS]`     all, a temp folder that is removed, 10 M

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

use floortape::base::ids::{RsId, StreamId};
use floortape::base::prng::Prng;
use floortape::base::time::Wall;
use floortape::host::sqlite;
use floortape::store::catalog::model::{
    Digit, Ends, ExtensionSeen, MediaSecurity, Metadata, Name, Participant, Pause, Period,
    Recording, Seal, SealState, Security, Session, Source, Src, State, Stream, StreamState,
    Verdict,
};
use floortape::store::catalog::{Find, Index, RsEntry, Turns};
use floortape::store::journal::entry::{DialogState, Sealed, Signalling, SrcFacts};
use floortape::store::query::{Client, Expr, Facts, Now, parse};
use jiff::tz::TimeZone;

/// 2026-09-21T14:13:20Z: when somebody asks.
const NOW: Wall = Wall(1_790_000_000_000_000_000);
const YEAR_NS: i64 = 365 * 86_400 * 1_000_000_000;
const SECOND: i64 = 1_000_000_000;
const RECORDINGS: u64 = 10_000_000;
/// Of so many one is put whole.
const WHOLE: u64 = 50;
const BATCH: u64 = 50_000;
const PAGE: usize = 20;
/// Of the writer, which fills it in minutes instead of a year.
const PAGES_MIB: u32 = 512;
const COLD: usize = 5;
const WARM: usize = 20;
const COLD_MS: f64 = 1_000.0;
const WARM_MS: f64 = 100.0;

const GIVEN: [&str; 10] =
    ["Anna", "Ben", "Chloe", "David", "Elena", "Farid", "Grace", "Hugo", "Millicent", "Jürgen"];
const FAMILY: [&str; 12] = [
    "Smith",
    "Okafor",
    "Nakamura",
    "Dubois",
    "Rossi",
    "Miller",
    "Kowalski",
    "Haddad",
    "Lindqvist",
    "Mendez",
    "Chen",
    "Milner",
];
const PRODUCTS: [&str; 20] = [
    "bund", "bobl", "schatz", "gilt", "btp", "oat", "brent", "wti", "gasoil", "eurusd", "usdjpy",
    "cable", "swap", "swaption", "repo", "copper", "gold", "power", "gas", "carbon",
];

const QUERIES: [(&str, &str); 20] = [
    ("a name, 1 of 50", "name:hollis"),
    ("a phrase", "\"quentin hollis\""),
    ("an address", "sip:quentin.hollis@desk.example"),
    ("a name with losses", "hollis has:gap"),
    ("losses", "has:gap"),
    ("full text, 1 of 20", "text:bund"),
    ("full text with losses", "text:bund has:gap"),
    ("full text, one", "text:\"deal 777777\""),
    ("a day", "on:2026-03-10"),
    ("a week", "from:2026-03-10 to:2026-03-16"),
    ("a desk of 30 days", "label:desk-17 from:-30d"),
    ("a name of 30 days", "hollis from:-30d"),
    ("long", "duration:>2h"),
    ("long, with a name", "hollis duration:>2h"),
    ("a session", "session:s-777776"),
    ("a Call-ID", "call:c-777777@sbc.example"),
    ("a beginning", "name:quent* from:-90d"),
    ("one of two", "is:orphan OR has:video"),
    ("verdict, codec, not", "verdict:gaps codec:opus -has:dtmf"),
    ("addresses by pattern", "sip:millicent.*@broker8.example from:-90d"),
];

/// Number `number` of `all`: always the same.
fn recording(number: u64, all: u64) -> Recording {
    let mut random = Prng::new(number);
    let mut one = |of: u64| random.below(of) == 0;
    let (gap, dtmf, video, text, pause, quirk) =
        (one(50), one(20), one(200), one(200), one(10), one(33));
    let (own, orphan, long, days) = (one(1_000), one(100), one(100), one(1_000));
    let step = YEAR_NS / all as i64;
    let start = Wall(NOW.0 - YEAR_NS + number as i64 * step + random.below(step as u64) as i64);
    let seconds = match () {
        () if days => 86_400 + random.below(3 * 86_400),
        () if long => 7_200 + random.below(36_000),
        () => 5 + random.below(60) * random.below(20),
    };
    let end = Wall(start.0 + seconds as i64 * SECOND);
    let mut id = [0; 16];
    id[..6].copy_from_slice(&((start.0 / 1_000_000) as u64).to_be_bytes()[2..]);
    id[6..14].copy_from_slice(&number.to_be_bytes());
    id[14..].copy_from_slice(&(random.next_u64() as u16).to_be_bytes());
    let trader = match number % 50 {
        7 => ("sip:quentin.hollis@desk.example".to_owned(), "Quentin Hollis".to_owned()),
        _ => party(random.below(2_000), "desk"),
    };
    let broker = random.below(48_000);
    let broker = party(2_000 + broker, &format!("broker{}", broker % 40));
    let participant = |number: usize, (aor, name): (String, String)| Participant {
        participant_id: format!("{number}"),
        names: vec![Name { aor, name: Some(name) }],
        former_names: Vec::new(),
        periods: Vec::new(),
        defined: true,
    };
    let period = Period {
        from: start,
        to: Some(end),
        stated_from: None,
        stated_to: None,
        stated_offset_ms: None,
    };
    let product = PRODUCTS[random.below(20) as usize];
    let extension = ExtensionSeen {
        of: "session".to_owned(),
        ids: vec!["s".to_owned()],
        namespace: "urn:example:trade".to_owned(),
        name: "trade".to_owned(),
        xml: vec![format!(
            "<t:trade xmlns:t=\"urn:example:trade\">deal {number} {product}</t:trade>"
        )],
        period: period.clone(),
    };
    let media = if video {
        "video"
    } else if text {
        "text"
    } else {
        "audio"
    };
    let codec = ["PCMA", "PCMU", "G722", "opus"][random.below(4) as usize];
    let verdict = match () {
        () if gap => Verdict::Gaps,
        () if one_of(&mut random, 200) => Verdict::Empty,
        () if one_of(&mut random, 3) => Verdict::Continuous,
        () => Verdict::Complete,
    };
    let stream = Stream {
        label: format!("desk-{}", random.below(400)),
        media: media.to_owned(),
        codec: codec.to_owned(),
        clock_rate: 8_000,
        suite: Some("AES_CM_128_HMAC_SHA1_80".to_owned()),
        verdict,
        unproven_s: 0.0,
        participants: Ends { send: vec!["0".to_owned()], recv: vec!["1".to_owned()] },
        associations: Vec::new(),
        state: StreamState::Closed,
        sources: vec![Source {
            ssrc: number as u32,
            cname: None,
            first_index: 1,
            last_index: seconds * 50,
            packets: seconds * 50,
            bytes: seconds * 8_600,
            lost: Default::default(),
            lost_range: Default::default(),
            duplicates: 0,
            jitter: None,
            unexplained: 0,
            first_arrival: Some(start),
            last_arrival: Some(end),
            rtcp_sent: Some(seconds * 50),
            gaps: Vec::new(),
            contributors: Vec::new(),
            contributors_cut: None,
        }],
        pauses: Vec::from_iter(pause.then(|| Pause {
            from: start,
            to: Some(end),
            cause: "src".to_owned(),
        })),
        controls: Vec::new(),
        dtmf: Vec::from_iter(dtmf.then(|| Digit { at: start, digit: "5".to_owned(), ms: 80 })),
        text: None,
        text_lines: Vec::new(),
        text_cut: false,
        dtmf_cut: false,
        stream: StreamId(number),
        drops: Default::default(),
    };
    Recording {
        id: RsId(id),
        state: if orphan { State::Orphan } else { State::Ended },
        start,
        end: Some(end),
        call_id: format!("c-{number}@sbc.example"),
        src: Src {
            address: format!("192.0.2.{}:5061", number % 12),
            identity: format!("sip:sbc-{}.example", number % 12),
            user_agent: "Example-SBC/9.1".to_owned(),
        },
        security: Security { signalling: Signalling::Tls, media: MediaSecurity::Sdes },
        quirks: Vec::from_iter(
            quirk.then(|| "metadata part without Content-Disposition".to_owned()),
        ),
        sessions: vec![Session {
            session_id: format!("s-{}", number & !1),
            start: None,
            stop: None,
            group: None,
            sip_session_ids: Vec::new(),
            periods: vec![period],
            recorded: Vec::new(),
            reasons: Vec::new(),
            members: Vec::new(),
            lines: Vec::new(),
            groups: Vec::new(),
            defined: true,
        }],
        participants: vec![participant(0, trader), participant(1, broker)],
        streams: vec![stream],
        durable_through: Some(end),
        seal: Seal { state: SealState::Sealed, head: None },
        own,
        metadata: Metadata { extensions: vec![extension], ..Metadata::default() },
        account: None,
        retention: None,
    }
}

fn one_of(random: &mut Prng, of: u64) -> bool {
    random.below(of) == 0
}

fn party(number: u64, host: &str) -> (String, String) {
    let (given, family) = (GIVEN[number as usize % 10], FAMILY[number as usize / 10 % 12]);
    let aor =
        format!("sip:{}.{}.{number}@{host}.example", given.to_lowercase(), family.to_lowercase());
    (aor, format!("{given} {family}"))
}

fn entry(recording: &Recording) -> RsEntry {
    let peer: SocketAddr = recording.src.address.parse().expect("ours");
    RsEntry {
        id: recording.id,
        start: recording.start,
        end: recording.end,
        state: recording.state,
        dialog: DialogState {
            call_id: recording.call_id.clone(),
            local_tag: "l".to_owned(),
            remote_tag: "r".to_owned(),
            local_uri: "<sip:srs@192.0.2.90>".to_owned(),
            remote_uri: format!("<{}>", recording.src.identity),
            remote_target: recording.src.identity.clone(),
            route_set: Vec::new(),
            local_cseq: 0,
            remote_cseq: 1,
            transport: "tls".to_owned(),
            peer,
            local: (Ipv4Addr::new(192, 0, 2, 90), 5_061).into(),
            identity: None,
            user: None,
            answered: None,
            update: false,
        },
        src: SrcFacts {
            address: Some(peer),
            identity: recording.src.identity.clone(),
            user_agent: recording.src.user_agent.clone(),
        },
        signalling: Signalling::Tls,
        quirks: recording.quirks.clone(),
        salt: Sealed("".into()),
        streams: Default::default(),
        bodies: Default::default(),
        own: recording.own,
        counted: 0,
        turns: Turns::default(),
        promise: None,
        forgotten: None,
    }
}

fn make(store: &Path, all: u64) {
    let begun = Instant::now();
    let mut index = sqlite::open_write(store).expect("made");
    index.keep_pages(PAGES_MIB).expect("a setting");
    let (sender, receiver) = sync_channel(1);
    // What is generated, and what is cut into words, is made beside the writer.
    std::thread::spawn(move || {
        for first in (0..all).step_by(BATCH as usize) {
            let mut found = Vec::with_capacity(BATCH as usize);
            let mut whole = Vec::new();
            for number in first..(first + BATCH).min(all) {
                let recording = recording(number, all);
                if number % WHOLE == 0 {
                    let entry = entry(&recording);
                    whole.push((recording, entry));
                } else {
                    found.push((Facts::of(&recording), Client::of(&entry(&recording))));
                }
            }
            if sender.send((found, whole)).is_err() {
                return;
            }
        }
    });
    let mut done = 0;
    for (found, whole) in receiver {
        index.put_found(&found).expect("room");
        let rows: Vec<_> = whole.iter().map(|(recording, entry)| (recording, entry)).collect();
        index.put(&[], &rows).expect("room");
        done += (found.len() + whole.len()) as u64;
        if done % (BATCH * 20) == 0 {
            let seconds = begun.elapsed().as_secs_f64();
            eprintln!("{done} recordings, {seconds:.0} s, {:.2} GB", gigabytes(store));
        }
    }
    println!(
        "made {all} recordings in {:.0} s, {:.2} GB",
        begun.elapsed().as_secs_f64(),
        gigabytes(store)
    );
}

fn gigabytes(store: &Path) -> f64 {
    std::fs::metadata(sqlite::path(store)).map_or(0.0, |found| found.len() as f64 / 1e9)
}

/// Takes the file out of the page cache.
fn drop_cache(store: &Path) -> io::Result<()> {
    let file = std::fs::File::open(sqlite::path(store))?;
    file.sync_all()?;
    Ok(rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Counts, finds the first page, and reads as many recordings.
fn ask(index: &dyn Index, query: &Expr, all: u64) -> (u64, usize) {
    let peers = |_: &Client| None;
    let find = Find {
        query,
        own: false,
        now: NOW,
        peers: &peers,
        oldest: false,
        after: None,
        limit: PAGE,
        count: true,
    };
    let found = index.find(&find).expect("it answers");
    for (_, id) in &found.hits {
        let number = u64::from_be_bytes(id.0[6..14].try_into().expect("eight"));
        let whole = recording(number / WHOLE * WHOLE, all).id;
        assert!(index.settled(whole).expect("readable").is_some());
    }
    (found.count, found.hits.len())
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn measure(store: &Path, all: u64) -> bool {
    let no_zones = |_: &str| None;
    let now = Now { at: NOW, zone: TimeZone::UTC, zones: &no_zones };
    println!("{} recordings, {:.2} GB; ms", all, gigabytes(store));
    println!("{:<22} {:>9}  {:>8} {:>8}  {:>8} {:>8}", "", "hits", "cold", "p95", "warm", "p95");
    let (mut colds, mut warms) = (Vec::new(), Vec::new());
    for (name, text) in QUERIES {
        let query = parse(text, &now).unwrap_or_else(|error| panic!("{error}"));
        let mut cold = Vec::new();
        for _ in 0..COLD {
            drop_cache(store).expect("ours");
            let begun = Instant::now();
            let index = sqlite::open_read(store).expect("there");
            ask(&index, &query, all);
            cold.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let index = sqlite::open_read(store).expect("there");
        let (count, _) = ask(&index, &query, all);
        let mut warm = Vec::new();
        for _ in 0..WARM {
            let begun = Instant::now();
            assert_eq!(ask(&index, &query, all).0, count);
            warm.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        cold.sort_by(f64::total_cmp);
        warm.sort_by(f64::total_cmp);
        println!(
            "{name:<22} {count:>9}  {:>8.1} {:>8.1}  {:>8.1} {:>8.1}",
            quantile(&cold, 0.5),
            quantile(&cold, 0.95),
            quantile(&warm, 0.5),
            quantile(&warm, 0.95)
        );
        colds.extend(cold);
        warms.extend(warm);
    }
    colds.sort_by(f64::total_cmp);
    warms.sort_by(f64::total_cmp);
    let (cold, warm) = (quantile(&colds, 0.95), quantile(&warms, 0.95));
    println!(
        "{:<22} {:>9}  {:>8.1} {cold:>8.1}  {:>8.1} {warm:>8.1}",
        "all",
        "",
        quantile(&colds, 0.5),
        quantile(&warms, 0.5)
    );
    cold < COLD_MS && warm < WARM_MS
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let what = words.first().map_or("all", String::as_str);
    let temp = || std::env::temp_dir().join(format!("floortape-search-{}", std::process::id()));
    let store = words.get(1).map_or_else(temp, PathBuf::from);
    let all = words.get(2).map_or(RECORDINGS, |text| text.parse().expect("a number"));
    std::fs::create_dir_all(&store).expect("a folder");
    if what != "ask" {
        make(&store, all);
    }
    let met = what == "make" || measure(&store, all);
    if words.get(1).is_none() {
        std::fs::remove_dir_all(&store).expect("ours");
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
