//! Moments of a recording as people say them: a time, or so long after its start.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::QueryError;
use super::time::{EXPECTED, Now, duration, stretch};
use crate::base::time::Wall;

/// One that was said. As text it is RFC 3339, or `+H:MM:SS` with its fraction, and is read back the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Moment {
    /// An instant.
    At(Wall),
    /// So many nanoseconds after the start of whatever is meant.
    Behind(i64),
}

/// Which end of a range is said: a day begins with its midnight, and as an end it is over at the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The first instant that is meant.
    First,
    /// The first one that is not meant any more.
    Last,
}

/// The beginning.
const START: &str = "start";
/// A day is longer, on whichever day clocks are set, and a minute is shorter.
const DAY_NS_MIN: i64 = 3_600_000_000_000;

/// What is said of a recording: `+1:30`, `+90s`, `start`, or a time as [`stretch`] takes it. A time of day is its
/// beginning.
pub fn moment(text: &str, edge: Edge, now: &Now<'_>) -> Result<Moment, QueryError> {
    let said = text.trim();
    if said.eq_ignore_ascii_case(START) {
        return Ok(Moment::Behind(0));
    }
    if let Some(behind) = said.strip_prefix('+') {
        let why = || {
            let at = super::time::place(text, said);
            let why = "expected a length after the start such as +90s, +1:30, +1:02:03 or +1h30m";
            QueryError { text: text.to_owned(), at, why: why.to_owned() }
        };
        return behind_start(behind).map(Moment::Behind).ok_or_else(why);
    }
    let stretch = stretch(text, now).map_err(|error| match error.why == EXPECTED {
        true => QueryError { why: format!("{EXPECTED}; or, after the start, +1:30"), ..error },
        false => error,
    })?;
    let is_day = stretch.to.0.saturating_sub(stretch.from.0) >= DAY_NS_MIN;
    Ok(Moment::At(match edge {
        Edge::Last if is_day => Wall(stretch.to.0.saturating_add(1)),
        _ => stretch.from,
    }))
}

/// `1:30` (minutes and seconds), `1:02:03`, `1:30.5`, `90s`, `1h30m`; in ns.
pub fn behind_start(text: &str) -> Option<i64> {
    if !text.contains(':') {
        return duration(text);
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if part.len() > 9 || !digits(part) || text.ends_with('.') {
        return None;
    }
    let fraction: i64 = format!("{part:0<9}").parse().ok()?;
    let parts: Vec<&str> = whole.split(':').collect();
    if !(2..=3).contains(&parts.len()) {
        return None;
    }
    let mut seconds = 0_i64;
    for (place, part) in parts.into_iter().enumerate() {
        let number: i64 = Some(part).filter(|part| digits(part))?.parse().ok()?;
        // The first may be more than 59: 90:00.
        if place > 0 && (number > 59 || part.len() > 2) {
            return None;
        }
        seconds = seconds.checked_mul(60)?.checked_add(number)?;
    }
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction)
}

impl Moment {
    /// The instant, for what began at `start`.
    pub fn of(self, start: Wall) -> Wall {
        match self {
            Moment::At(at) => at,
            Moment::Behind(ns) => Wall(start.0.saturating_add(ns)),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::At(at) => write!(f, "{at}"),
            Moment::Behind(ns) => {
                let (seconds, part) = (ns / 1_000_000_000, ns % 1_000_000_000);
                let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
                write!(f, "+{hours}:{minutes:02}:{:02}", seconds % 60)?;
                match part {
                    0 => Ok(()),
                    part => f.write_str(format!(".{part:09}").trim_end_matches('0')),
                }
            }
        }
    }
}

/// Text that [`Moment`] does not print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 time such as 2026-01-31T09:30:00Z, or +0:01:30")]
pub struct MomentError;

impl FromStr for Moment {
    type Err = MomentError;
    fn from_str(text: &str) -> Result<Self, MomentError> {
        match text.strip_prefix('+') {
            Some(behind) => behind_start(behind).map(Moment::Behind).ok_or(MomentError),
            None => text.parse().map(Moment::At).map_err(|_| MomentError),
        }
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        moment.to_string()
    }
}

impl TryFrom<String> for Moment {
    type Error = MomentError;
    fn try_from(text: String) -> Result<Self, MomentError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::base::prng::Prng;

    fn said(text: &str, edge: Edge) -> Result<Moment, QueryError> {
        let zones = |name: &str| TimeZone::get(name).ok();
        let zone = TimeZone::get("Europe/Berlin").expect("built in");
        let at = "2026-11-30T13:30:00Z".parse().expect("RFC 3339");
        moment(text, edge, &Now { at, zone, zones: &zones })
    }

    fn at(text: &str) -> Result<Moment, QueryError> {
        Ok(Moment::At(text.parse().expect("RFC 3339")))
    }

    #[test]
    fn a_length_behind_a_plus_is_after_the_start() {
        let behind = |text: &str| match said(text, Edge::First) {
            Ok(Moment::Behind(ns)) => ns / 1_000_000,
            other => panic!("{text}: {other:?}"),
        };
        for (text, ms) in [
            ("+1:30", 90_000),
            ("+90s", 90_000),
            ("+1:02:03", 3_723_000),
            ("+90:00", 5_400_000),
            ("+1h30m", 5_400_000),
            ("+0:01.250", 1_250),
            ("+250ms", 250),
            (" start ", 0),
        ] {
            assert_eq!(behind(text), ms, "{text}");
        }
        for bad in
            ["+", "+1:60", "+1:2:3:4", "+90", "+1:", "+:30", "+1:30.", "+-1:30", "+1:3x", "+1:030"]
        {
            let error = said(bad, Edge::First).expect_err(bad);
            assert!(error.why.starts_with("expected a length after the start"), "{bad}");
        }
    }

    #[test]
    fn a_day_ends_at_its_midnight_and_a_minute_is_its_beginning() {
        assert_eq!(said("2026-11-30", Edge::First), at("2026-11-29T23:00:00Z"));
        assert_eq!(said("2026-11-30", Edge::Last), at("2026-11-30T23:00:00Z"));
        assert_eq!(said("yesterday", Edge::Last), at("2026-11-29T23:00:00Z"));
        assert_eq!(said("2026-10-25", Edge::Last), at("2026-10-25T23:00:00Z"), "25 hours");
        for edge in [Edge::First, Edge::Last] {
            assert_eq!(said("14:05", edge), at("2026-11-30T13:05:00Z"));
            assert_eq!(said("2h ago", edge), at("2026-11-30T11:30:00Z"));
            assert_eq!(said("2026-11-30T14:05:00.5Z", edge), at("2026-11-30T14:05:00.5Z"));
        }
    }

    #[test]
    fn what_is_no_time_is_pointed_at() {
        let error = said("2026-11-30 25:00", Edge::First).expect_err("no such time");
        assert_eq!(
            error.to_string(),
            "expected a time of day from 00:00 to 23:59:59, found 25:00\n  2026-11-30 25:00\n             ^^^^^"
        );
        let error = said("soon", Edge::First).expect_err("no time").to_string();
        assert!(error.contains("05:00Z; or, after the start, +1:30\n  soon\n  ^^^^"), "{error}");
    }

    #[test]
    fn what_is_printed_is_read_back() {
        let mut prng = Prng::new(8);
        for _ in 0..2_000 {
            let ns = (prng.next_u64() >> (1 + prng.below(60))) as i64;
            let moment = if prng.below(2) == 0 { Moment::Behind(ns) } else { Moment::At(Wall(ns)) };
            assert_eq!(moment.to_string().parse(), Ok(moment), "{moment}");
        }
    }
}
