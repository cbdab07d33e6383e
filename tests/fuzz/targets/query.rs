//! What people ask for: text of a command line, or of somebody else's.

use floortape::base::ids::RsId;
use floortape::base::time::Wall;
use floortape::store::catalog::model::{State, Verdict};
use floortape::store::query::{Facts, Now, coded, parse, tokens};
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
        Err(error) => {
            let under = error.text.get(error.at.clone());
            assert!(under.is_some(), "{error:?}");
            let shown = error.to_string();
            let lines: Vec<&str> = shown.lines().collect();
            assert!(lines.len() >= 3 && lines.last().is_some_and(|line| line.ends_with('^')));
        }
    }
    for word in tokens(&text) {
        assert_eq!(tokens(&word).concat(), word, "a word is one word");
    }
    let once = coded(&text);
    assert!(once.bytes().all(|byte| !byte.is_ascii() || byte.is_ascii_alphanumeric()));
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
        parts: vec![text.to_lowercase()],
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
