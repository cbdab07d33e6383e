//! What people ask for: text of a command line, or of somebody else's.

use floortape::base::ids::RsId;
use floortape::base::time::Wall;
use floortape::store::catalog::model::{State, Verdict};
use floortape::store::query::{Edge, Facts, Moment, Now, QueryError, coded, folded, parse, tokens};
use jiff::tz::TimeZone;

/// A query is understood, and then it means the same whenever it is asked; or it is refused, and then it is
/// shown where.
pub fn query(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let zones =
        |name: &str| (name == "Europe/Berlin").then(|| TimeZone::fixed(jiff::tz::offset(1)));
    let at = Wall(1_790_000_000_000_000_000);
    let now = Now { at, zone: TimeZone::UTC, zones: &zones };
    match parse(&text, &now) {
        Ok(expr) => {
            assert_eq!(parse(&text, &now).as_ref(), Ok(&expr));
            let facts = facts(&text, at);
            assert_eq!(expr.matches(&facts, at), expr.clone().matches(&facts, at));
        }
        Err(error) => is_shown(&error),
    }
    for word in tokens(&text) {
        assert_eq!(tokens(&word).concat(), word, "a word is one word");
    }
    let once = folded(&text);
    assert_eq!(folded(&once), once, "what is folded stays so");
    let once = coded(&text);
    assert!(once.bytes().all(|byte| !byte.is_ascii() || byte.is_ascii_alphanumeric()));
}

/// A moment of a recording is understood, printed, and read back the same; or it is refused, and shown where.
pub fn moment(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let zones = |name: &str| match name {
        // Clocks are set in it, as far ahead as anybody asks.
        "Europe/Berlin" => TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").ok(),
        _ => None,
    };
    let zone = zones("Europe/Berlin").expect("a rule");
    let now = Now { at: Wall(1_790_000_000_000_000_000), zone, zones: &zones };
    let said = |edge| floortape::store::query::moment(&text, edge, &now);
    match (said(Edge::First), said(Edge::Last)) {
        (Ok(first), Ok(last)) => {
            assert_eq!(first.to_string().parse(), Ok(first));
            let start = Wall(1_789_000_000_000_000_000);
            assert!(first.of(start) <= last.of(start));
            assert!(!matches!(first, Moment::Behind(..0)));
        }
        (Err(error), Err(_)) => is_shown(&error),
        (first, last) => panic!("{first:?} {last:?}"),
    }
}

fn is_shown(error: &QueryError) {
    let under = error.text.get(error.at.clone());
    assert!(under.is_some(), "{error:?}");
    let shown = error.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines.len() >= 3 && lines.last().is_some_and(|line| line.ends_with('^')));
}

fn facts(text: &str, at: Wall) -> Facts {
    Facts {
        id: RsId([7; 16]),
        start: Wall(at.0 - 1_000_000_000),
        end: None,
        state: State::Live,
        own: false,
        sealed: false,
        gone: false,
        held: false,
        parties: Vec::new(),
        names: vec![tokens(text)],
        aors: Vec::new(),
        addresses: vec!["sip:ann@desk.example".to_owned()],
        parts: vec![folded(text)],
        sessions: Vec::new(),
        labels: vec![coded(text)],
        codecs: Vec::new(),
        call: String::new(),
        src: Vec::new(),
        peer: None,
        texts: Vec::new(),
        quirks: Vec::new(),
        verdict: Some(Verdict::Gaps),
        gap: true,
        dtmf: false,
        text_line: false,
        video_line: false,
        pause: false,
    }
}
