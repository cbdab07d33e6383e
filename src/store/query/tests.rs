//! The language: what is understood, what is refused and where, what times mean.

use jiff::tz::TimeZone;

use super::*;
use crate::base::prng::Prng;
use crate::base::time::Wall;

fn zones(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok()
}

fn wall(text: &str) -> Wall {
    text.parse().expect("RFC 3339")
}

/// Half past two in the afternoon of 30 November in Berlin.
fn at(zone: &str) -> Now<'static> {
    let zone = zones(zone).expect("in the zones of this machine");
    Now { at: wall("2026-11-30T13:30:00Z"), zone, zones: &zones }
}

fn understood(text: &str) -> Expr {
    parse(text, &at("Europe/Berlin")).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(text: &str) -> String {
    parse(text, &at("Europe/Berlin")).expect_err(text).to_string()
}

fn term(expr: Expr) -> Term {
    match expr {
        Expr::Term(term) => term,
        other => panic!("{other:?}"),
    }
}

#[test]
fn and_binds_closer_than_or_and_not_closest() {
    let one = |text: &str| Expr::Term(term(understood(text)));
    let (a, b, c) = (one("label:a"), one("label:b"), one("label:c"));
    let not = |expr: &Expr| Expr::Not(Box::new(expr.clone()));
    assert_eq!(
        understood("label:a label:b OR -label:c"),
        Expr::Any(vec![Expr::All(vec![a.clone(), b.clone()]), not(&c)])
    );
    assert_eq!(
        understood("label:a AND (label:b OR NOT label:c)"),
        Expr::All(vec![a, Expr::Any(vec![b, not(&c)])])
    );
    assert_eq!(understood("*"), Expr::All(Vec::new()));
}

#[test]
fn a_bare_term_is_an_id_an_address_or_words() {
    let id = "0190a1b2c3d4e5f60718293a4b5c6d7e";
    assert!(matches!(understood(id), Expr::Term(Term::Id(_))));
    let first = |text: &str| match understood(text) {
        Expr::Any(mut parts) => term(parts.remove(0)),
        other => panic!("{other:?}"),
    };
    assert_eq!(first("SIP:Ann@Desk.example:5060"), Term::Aor("sip:ann@desk.example".to_owned()));
    assert_eq!(first("sip:*@desk.example"), Term::Aor("sip:*@desk.example".to_owned()));
    assert_eq!(first("+4930-1234"), Term::Aor("tel:+49301234".to_owned()));
    let words = |words: &[&str], prefix| Term::Words {
        field: Field::Any,
        words: words.iter().map(|&word| word.to_owned()).collect(),
        prefix,
    };
    assert_eq!(first("Mil*"), words(&["mil"], true));
    assert_eq!(first("\"Ann Müller\""), words(&["ann", "muller"], false));
    assert_eq!(first("desk-12"), words(&["desk", "12"], false));
    assert!(matches!(term(understood("party:ann")), Term::Words { field: Field::Party, .. }));
    assert_eq!(term(understood("party:ann@x")), Term::Aor("sip:ann@x".to_owned()));
    let number = Term::Aor("tel:+49301234".to_owned());
    assert_eq!(term(understood("aor:\"+49 (30) 12-34\"")), number);
    // Behind a time a word is a word.
    for text in ["at:14:05 miller", "on:2026-11-30 \"CET\""] {
        let Expr::All(parts) = understood(text) else { panic!("{text}") };
        assert!(matches!(parts[..], [Expr::All(_), Expr::Any(_)]), "{text}: {parts:?}");
    }
}

#[test]
fn what_is_wrong_is_pointed_at() {
    assert_eq!(
        refused("miller verdit:gaps"),
        "expected a key, found \"verdit\": did you mean verdict:?\n  miller verdit:gaps\n         ^^^^^^"
    );
    assert_eq!(
        refused("has:gaps"),
        "expected one of gap, dtmf, text, video, quirk, pause: did you mean gap?\n  has:gaps\n      ^^^^"
    );
    assert_eq!(
        refused("müller (a OR b"),
        "expected \")\" for this \"(\", found the end\n  müller (a OR b\n         ^"
    );
    for (text, why) in [
        ("", "expected what to look for"),
        ("name:", "expected a value behind name:"),
        ("a OR", "expected a term, found the end"),
        ("OR a", "expected a term on each side of OR"),
        ("a )", "expected \"(\" before this"),
        ("\"a", "expected a closing quote"),
        ("label:a*b", "expected * at the end of a word only: a* finds whatever begins so, word:X"),
        ("an*a", "expected * at the end of a word only: an* finds"),
        ("party:*nna", "expected * at the end of a word only: word:X has X anywhere"),
        ("---", "expected letters or digits"),
        ("id:12", "expected the id of a recording"),
        ("duration:long", "expected a length"),
        ("duration:2h..1h", "expected the shorter length first"),
        ("from:soon", "expected a time such as"),
        ("from:2026-02-30", "expected a day that there is"),
        ("from:9999-12-31", "expected a time between 1678 and 2261"),
        ("from:0001-01-01", "expected a time between 1678 and 2261"),
        ("from:-200000d", "expected a time between 1678 and 2261"),
        ("at:2026-11-30 25:00", "expected a time of day"),
        ("at:2026-11-30 14:05 Europe/Berli", "expected a zone such as"),
        ("at:2026-11-30 14:05 CET", "expected a zone such as"),
        ("at:14:05 EST", "expected a zone such as"),
        ("at:2026-11-30 14:5", "expected a time of day such as"),
        ("at:2026-11-30 14:05Y", "expected a time of day such as"),
        ("zzzz:x", "expected a key, found \"zzzz\": known are id,"),
    ] {
        let said = refused(text);
        assert!(said.starts_with(why), "{text}: {said}");
        assert!(said.lines().count() == 3 && said.ends_with('^'), "{text}: {said}");
    }
    let deep = "(".repeat(100) + "a" + &")".repeat(100);
    assert!(refused(&deep).starts_with("expected at most 32 within each other"));
    assert!(refused(&"a ".repeat(5_000)).starts_with("expected at most 8192 bytes"));
    assert!(refused(&"a ".repeat(300)).starts_with("expected at most 256 terms"));
}

#[test]
fn times_are_stretches_of_the_zone_in_which_they_are_said() {
    let of = |text: &str| match understood(&format!("on:{text}")) {
        Expr::All(parts) => match <[Expr; 2]>::try_from(parts).expect("both ends") {
            [Expr::Term(Term::From(from)), Expr::Term(Term::To(to))] => (from, to),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    };
    let span = |from: &str, to: &str| (wall(from), wall(to));
    assert_eq!(of("2026-11-30"), span("2026-11-29T23:00:00Z", "2026-11-30T22:59:59.999999999Z"));
    assert_eq!(of("today"), of("2026-11-30"));
    assert_eq!(of("yesterday"), of("2026-11-29"));
    assert_eq!(of("14:05"), span("2026-11-30T13:05:00Z", "2026-11-30T13:05:59.999999999Z"));
    assert_eq!(of("2026-11-30 14:05"), of("14:05"));
    assert_eq!(of("\"2026-11-30 14:05\""), of("14:05"));
    assert_eq!(of("2026-11-30 13:05 UTC"), of("14:05"));
    assert_eq!(of("2026-11-30 08:05 America/New_York"), of("14:05"));
    assert_eq!(of("2026-11-30 14:05 +01:00"), of("14:05"));
    assert_eq!(of("2026-11-30 14:05 UTC+1"), of("14:05"));
    assert_eq!(of("2026-11-30 14:05 gmt-05:30"), of("2026-11-30 14:05-05:30"));
    assert_eq!(of("2026-11-30T14:05"), of("14:05"));
    assert_eq!(of("2026-11-30 13:05Z"), of("14:05"));
    assert_eq!(of("2026-11-30 08:05-05:00"), of("14:05"));
    assert_eq!(of("13:05Z"), of("14:05"));
    assert_eq!(of("13:05:00+00:00").1, wall("2026-11-30T13:05:00.999999999Z"));
    let instant = |text: &str| (wall(text), wall(text));
    assert_eq!(of("2026-11-30T14:05:00+01:00"), instant("2026-11-30T13:05:00Z"));
    assert_eq!(of("-2h"), instant("2026-11-30T11:30:00Z"));
    assert_eq!(of("-1h30m"), instant("2026-11-30T12:00:00Z"));
    assert_eq!(of("2h ago"), of("-2h"));
    assert_eq!(of("\"1h30m ago\""), of("-1h30m"));
    assert_eq!(of("now"), instant("2026-11-30T13:30:00Z"));
    assert_eq!(of("2026-11-30T13:05Z"), of("14:05"));
    assert_eq!(of("\"yesterday 14:05\"").0, wall("2026-11-29T13:05:00Z"));
    assert_eq!(of("14:05:09.5").0, wall("2026-11-30T13:05:09.5Z"));
    assert_eq!(of("14:05:09.5").1, wall("2026-11-30T13:05:09.599999999Z"));
}

#[test]
fn clocks_that_are_set_change_nothing_but_what_is_said() {
    let of = |text: &str, zone: &str| stretch_of(text, zone).expect("a time");
    fn stretch_of(text: &str, zone: &str) -> Result<Stretch, String> {
        super::time::stretch(text, &at(zone)).map_err(|error| error.why)
    }
    // Back by an hour: that night is 25 hours, and half past two comes twice.
    let day = of("2026-10-25", "Europe/Berlin");
    assert_eq!(day.to.0 + 1 - day.from.0, 25 * 3_600_000_000_000);
    let said = stretch_of("2026-10-25 02:30", "Europe/Berlin").expect_err("which one?");
    assert_eq!(
        said,
        "2026-10-25 02:30 comes twice in that zone, as clocks are set back: write \
         2026-10-25 02:30+02:00 or 2026-10-25 02:30+01:00"
    );
    // Each reading is what it says, here and in a query.
    for (text, from) in [
        ("2026-10-25 02:30+02:00", "2026-10-25T00:30:00Z"),
        ("2026-10-25 02:30+01:00", "2026-10-25T01:30:00Z"),
        ("2026-11-01 01:30-04:00", "2026-11-01T05:30:00Z"),
        ("2026-11-01 01:30 -05:00", "2026-11-01T06:30:00Z"),
    ] {
        let said = of(text, "America/New_York");
        assert_eq!((said.from, said.to.0 - said.from.0), (wall(from), 59_999_999_999), "{text}");
        let Expr::All(parts) = understood(&format!("on:{text}")) else { panic!("{text}") };
        assert_eq!(parts[..], [Expr::Term(Term::From(said.from)), Expr::Term(Term::To(said.to))]);
    }
    assert!(
        refused("miller on:2026-10-25 02:30")
            .ends_with("02:30+01:00\n  miller on:2026-10-25 02:30\n            ^^^^^^^^^^^^^^^^")
    );
    // On by an hour.
    let day = of("2026-03-29", "Europe/Berlin");
    assert_eq!(day.to.0 + 1 - day.from.0, 23 * 3_600_000_000_000);
    let said = stretch_of("2026-03-29 02:30", "Europe/Berlin").expect_err("there is none");
    assert_eq!(
        said,
        "2026-03-29T02:30:00 is left out in that zone: clocks are set from UTC+01 to UTC+02 then"
    );
    // Days that are counted back are days of the calendar.
    let zone = zones("Europe/Berlin").expect("there");
    let monday = Now { at: wall("2026-10-26T11:00:00Z"), zone, zones: &zones };
    assert_eq!(stretch("-1d", &monday).map(|said| said.from), Ok(wall("2026-10-25T11:00:00Z")));
    assert_eq!(stretch("1d ago", &monday).map(|said| said.from), Ok(wall("2026-10-25T11:00:00Z")));
    assert_eq!(stretch("-2d", &monday).map(|said| said.from), Ok(wall("2026-10-24T10:00:00Z")));
    // In Cairo midnight itself is left out.
    let day = of("2026-04-24", "Africa/Cairo");
    assert_eq!(day.to.0 + 1 - day.from.0, 23 * 3_600_000_000_000);
}

#[test]
fn lengths_are_bounds() {
    let of = |text: &str| match term(understood(text)) {
        Term::Duration(bound, ns) => (bound, ns),
        other => panic!("{other:?}"),
    };
    let minute = 60_000_000_000;
    assert_eq!(of("duration:>10m"), (Bound::Least, 10 * minute + 1));
    assert_eq!(of("duration:>=10m"), (Bound::Least, 10 * minute));
    assert_eq!(of("duration:1h30m"), (Bound::Least, 90 * minute));
    assert_eq!(of("duration:<45s"), (Bound::Most, 45_000_000_000 - 1));
    assert!(matches!(understood("duration:10m..2h"), Expr::All(parts) if parts.len() == 2));
    assert_eq!(duration("99999999999999999d"), None);
    assert_eq!(duration("5"), None);
}

#[test]
fn any_text_is_understood_or_refused() {
    let mut prng = Prng::new(5);
    let bits = [
        "a",
        "ü",
        " ",
        "(",
        ")",
        "\"",
        "-",
        "*",
        ":",
        "OR ",
        "NOT ",
        "has:",
        "from:",
        "2026-11-30",
        "14:05",
        "Europe/Berlin",
        "-2h",
        "duration:",
        ">",
        "1h",
        "..",
        "\\",
        "sip:",
        "@",
        "+49",
        "\u{0}",
        "İ",
        "+01:00",
    ];
    for _ in 0..20_000 {
        let length = prng.below(12);
        let text: String =
            (0..length).map(|_| bits[prng.below(bits.len() as u64) as usize]).collect();
        if let Err(error) = parse(&text, &at("Europe/Berlin")) {
            assert!(error.at.start <= error.at.end && error.text.get(error.at.clone()).is_some());
            assert!(error.to_string().ends_with('^'), "{text}");
        }
    }
}
