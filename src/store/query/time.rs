//! Times as people say them. What is said is a stretch: a day, a minute, an instant. `from` takes its
//! beginning and `to` its end, so a day that is named is a day that is meant whole.

use std::ops::Range;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{Span, Timestamp};

use super::error::QueryError;
use crate::base::time::Wall;

/// When and where somebody asks.
pub struct Now<'a> {
    /// Our clock.
    pub at: Wall,
    /// The zone of times that are said without one.
    pub zone: TimeZone,
    /// Zones by name; `None`: there is none of that name.
    pub zones: &'a dyn Fn(&str) -> Option<TimeZone>,
}

/// From its first nanosecond to its last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The first.
    pub from: Wall,
    /// The last.
    pub to: Wall,
}

pub(super) const EXPECTED: &str = "expected a time such as 2026-11-30, 2026-11-30 14:05 Europe/Berlin, 14:05, -2h, \
                        2h ago, today, yesterday, or RFC 3339 such as 2026-11-30T14:05:00Z";

/// What is wrong with a time that 64 bits of nanoseconds do not reach.
const FAR: &str = "expected a time between 1678 and 2261";

/// Where `part` stands in `text`, of which it is a piece.
pub(super) fn place(text: &str, part: &str) -> Range<usize> {
    let from = (part.as_ptr() as usize).wrapping_sub(text.as_ptr() as usize).min(text.len());
    from..(from + part.len()).min(text.len())
}

/// What is said.
pub fn stretch(text: &str, now: &Now<'_>) -> Result<Stretch, QueryError> {
    let wrong =
        |part: &str, why: String| QueryError { text: text.to_owned(), at: place(text, part), why };
    let said = text.trim();
    let unknown = |part: &str| wrong(part, EXPECTED.to_owned());
    let instant = |at: Wall| Stretch { from: at, to: at };
    if let Some(back) = backwards(said) {
        let days = back.strip_suffix(['d', 'w']);
        let is_length = days.is_some_and(|days| days.bytes().all(|byte| byte.is_ascii_digit()));
        let why = if is_length && days != Some("") { FAR } else { EXPECTED };
        return ago(back, now).map(instant).ok_or_else(|| wrong(said, why.to_owned()));
    }
    // A zone stands last, behind a space or at the end of a time of day.
    let (spoken, zone) = match said.rsplit_once(char::is_whitespace) {
        Some((before, zone)) if is_zone(zone) => (before.trim_end(), Some(zone)),
        Some((_, zone)) if is_abbreviation(zone) => return Err(wrong(zone, several(zone))),
        Some((_, zone)) if zone.contains('/') => return Err(wrong(zone, no_zone(zone))),
        _ => {
            let last = said.rsplit(['T', 't', ' ']).next().unwrap_or_default();
            match with_zone(last) {
                // With seconds and a day it is an instant, as RFC 3339 has it.
                Some((time, _)) if last.len() < said.len() && time.matches(':').count() > 1 => {
                    (said, None)
                }
                Some((time, zone)) => (&said[..said.len() - last.len() + time.len()], Some(zone)),
                None => (said, None),
            }
        }
    };
    if zone.is_none()
        && let Ok(at) = said.parse::<Wall>()
    {
        return Ok(instant(at));
    }
    let zone = match zone {
        Some(name) => named_zone(name, now).map_err(|why| wrong(name, why))?,
        None => now.zone.clone(),
    };
    let here = Timestamp::from_nanosecond(i128::from(now.at.0)).map_err(|_| unknown(said))?;
    let today = here.to_zoned(zone.clone()).date();
    let yesterday = || today.yesterday().map_err(|_| unknown(said));
    if spoken.eq_ignore_ascii_case("now") {
        return Ok(instant(now.at));
    }
    let between: &[char] =
        if spoken.starts_with(|c: char| c.is_ascii_digit()) { &['T', 't', ' '] } else { &[' '] };
    let (date, time) = match spoken.split_once(between) {
        Some((date, time)) => (Some(date.trim_end()), Some(time.trim_start())),
        None if is_time_of_day(spoken) => (None, Some(spoken)),
        None => (Some(spoken), None),
    };
    let date = match date {
        None => today,
        Some(text) if text.eq_ignore_ascii_case("today") => today,
        Some(text) if text.eq_ignore_ascii_case("yesterday") => yesterday()?,
        Some(text) if is_day(text) => text.parse::<Date>().map_err(|_| {
            let why = format!("expected a day that there is, such as 2026-11-30, found {text}");
            wrong(text, why)
        })?,
        Some(_) => return Err(unknown(said)),
    };
    match time {
        None => whole_day(date, &zone).ok_or_else(|| wrong(said, FAR.to_owned())),
        Some(text) if is_time_of_day(text) => {
            let (time, ns) = time_of_day(text).ok_or_else(|| {
                let why = format!("expected a time of day from 00:00 to 23:59:59, found {text}");
                wrong(text, why)
            })?;
            within(date.to_datetime(time), ns, &zone, text).map_err(|why| wrong(spoken, why))
        }
        Some(text) => Err(wrong(
            text,
            format!("expected a time of day such as 14:05 or 14:05:09, found {text}"),
        )),
    }
}

/// How long ago: `-2h`, `2h ago`.
fn backwards(said: &str) -> Option<&str> {
    if let Some(back) = said.strip_prefix('-') {
        return Some(back);
    }
    let (before, last) = said.rsplit_once(char::is_whitespace)?;
    last.eq_ignore_ascii_case("ago").then(|| before.trim_end())
}

/// A length in words: `90s`, `1h30m`, `2d`; in ns.
pub fn duration(text: &str) -> Option<i64> {
    let mut rest = text;
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let count: i64 = rest[..digits].parse().ok()?;
        let letters = rest[digits..].find(|c: char| c.is_ascii_digit());
        let end = letters.map_or(rest.len(), |letters| digits + letters);
        let seconds = match &rest[digits..end] {
            "ms" => {
                total = total.checked_add(count.checked_mul(1_000_000)?)?;
                rest = &rest[end..];
                continue;
            }
            "s" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 604_800,
            _ => return None,
        };
        let ns = count.checked_mul(seconds)?.checked_mul(1_000_000_000)?;
        total = total.checked_add(ns)?;
        rest = &rest[end..];
    }
    Some(total)
}

/// That long ago. Days are days of the calendar: across a change of the clocks one is 23 or 25 hours.
fn ago(text: &str, now: &Now<'_>) -> Option<Wall> {
    let calendar = text.strip_suffix('d').map(|days| (days, 1));
    let calendar = calendar.or_else(|| text.strip_suffix('w').map(|weeks| (weeks, 7)));
    if let Some((count, days)) = calendar
        && let Ok(count) = count.parse::<i64>()
    {
        let span = Span::new().try_days(count.checked_mul(days)?).ok()?;
        let here =
            Timestamp::from_nanosecond(i128::from(now.at.0)).ok()?.to_zoned(now.zone.clone());
        return wall(here.checked_sub(span).ok()?.timestamp());
    }
    now.at.0.checked_sub(duration(text)?).map(Wall)
}

/// `2026-11-30`.
pub(super) fn is_day(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

/// `14:05`, `14:05:09`, `14:05:09.5`.
pub(super) fn is_time_of_day(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (2..=3).contains(&parts.len())
        && parts[0].len() <= 2
        && digits(parts[0])
        && parts[1].len() == 2
        && digits(parts[1])
        && parts.get(2).is_none_or(|second| {
            let (whole, part) = second.split_once('.').unwrap_or((second, "0"));
            whole.len() == 2 && digits(whole) && digits(part) && part.len() <= 9
        })
}

/// `Europe/Berlin`, `UTC`, `Z`, `+01:00`, `UTC+1`.
pub(super) fn is_zone(text: &str) -> bool {
    let name = |text: &str| {
        text.contains('/')
            && text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(&byte))
    };
    ["utc", "gmt", "z"].iter().any(|known| text.eq_ignore_ascii_case(known))
        || name(text)
        || offset(text).is_some()
}

/// `14:05Z`, `14:05:09+01:00`: a time of day with its zone at its end.
pub(super) fn with_zone(text: &str) -> Option<(&str, &str)> {
    let zone = text.find(|c: char| !c.is_ascii_digit() && !":.".contains(c))?;
    let (time, zone) = text.split_at(zone);
    (is_time_of_day(time) && is_zone(zone)).then_some((time, zone))
}

/// Whether it can hardly be meant as anything else: `14:5`, `14:05Z`.
pub(super) fn looks_like_time_of_day(text: &str) -> bool {
    let Some((hour, rest)) = text.split_once(':') else { return false };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (1..=2).contains(&hour.len())
        && digits(hour)
        && rest.starts_with(|c: char| c.is_ascii_digit())
        && !rest.contains('@')
}

/// Names of zones that are heard more often than the zones' own, and mean several of them, or another one
/// in summer.
pub(super) fn is_abbreviation(text: &str) -> bool {
    const KNOWN: [&str; 29] = [
        "ACST", "AEDT", "AEST", "AKDT", "AKST", "AWST", "BST", "CDT", "CEST", "CET", "CST", "EDT",
        "EEST", "EET", "EST", "HKT", "IST", "JST", "KST", "MDT", "MESZ", "MEZ", "MSK", "MST",
        "NZST", "PDT", "PST", "SGT", "WET",
    ];
    KNOWN.contains(&text)
}

/// `+01:00`, `-0530`, `+1`, `UTC+1`.
pub fn offset(text: &str) -> Option<TimeZone> {
    let named = |text: &str| text.eq_ignore_ascii_case("utc") || text.eq_ignore_ascii_case("gmt");
    let text = match text.split_at_checked(3) {
        Some((name, rest)) if named(name) => rest,
        _ => text,
    };
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits: String = rest.chars().filter(|c| *c != ':').collect();
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i32 = digits.parse().ok()?;
    let (hours, minutes) =
        if digits.len() > 2 { (number / 100, number % 100) } else { (number, 0) };
    if hours > 14 || minutes > 59 {
        return None;
    }
    let seconds = sign * (hours * 3_600 + minutes * 60);
    Some(TimeZone::fixed(Offset::from_seconds(seconds).ok()?))
}

/// What is wrong with a name that stands for several zones.
pub(super) fn several(name: &str) -> String {
    format!("expected a zone such as Europe/Berlin, UTC or +01:00: {name} stands for several")
}

fn no_zone(name: &str) -> String {
    format!("expected a zone such as Europe/Berlin, UTC or +01:00, found {name}")
}

fn named_zone(name: &str, now: &Now<'_>) -> Result<TimeZone, String> {
    if let Some(zone) = offset(name) {
        return Ok(zone);
    }
    if ["utc", "gmt", "z"].iter().any(|known| name.eq_ignore_ascii_case(known)) {
        return Ok(TimeZone::UTC);
    }
    (now.zones)(name).ok_or_else(|| no_zone(name))
}

/// The time, and how many ns what was said is long.
fn time_of_day(text: &str) -> Option<(Time, i64)> {
    let mut parts = text.split(':');
    let hour: i8 = parts.next()?.parse().ok()?;
    let minute: i8 = parts.next()?.parse().ok()?;
    let (second, ns, length) = match parts.next() {
        None => (0, 0, 60_000_000_000),
        Some(text) => {
            let (second, part) = text.split_once('.').unwrap_or((text, ""));
            let unit = 10_i64.pow(9 - part.len() as u32);
            let ns = if part.is_empty() { 0 } else { part.parse::<i64>().ok()? * unit };
            (second.parse().ok()?, i32::try_from(ns).ok()?, unit)
        }
    };
    Some((Time::new(hour, minute, second, ns).ok()?, length))
}

fn whole_day(date: Date, zone: &TimeZone) -> Option<Stretch> {
    // A day may begin at one o'clock, where its midnight is left out.
    let begin = |date: Date| {
        let zoned = zone.to_ambiguous_zoned(date.to_datetime(Time::midnight())).compatible();
        zoned.ok().and_then(|zoned| wall(zoned.timestamp()))
    };
    let (from, to) = (begin(date)?, begin(date.tomorrow().ok()?)?);
    Some(Stretch { from, to: Wall(to.0 - 1) })
}

/// `ns` from a local time on, of which `text` is the time of day. One that is left out, as clocks are set on,
/// is none; one that comes twice, as they are set back, must be said with its offset.
fn within(at: DateTime, ns: i64, zone: &TimeZone, text: &str) -> Result<Stretch, String> {
    let ambiguous = zone.to_ambiguous_zoned(at);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { before, after } => {
            return Err(format!(
                "{at} is left out in that zone: clocks are set from UTC{before} to UTC{after} then"
            ));
        }
        AmbiguousOffset::Fold { before, after } => {
            let date = at.date();
            let reading = |offset: Offset| {
                let (hours, rest) = (offset.seconds() / 3_600, offset.seconds() % 3_600 / 60);
                let sign = if offset.seconds() < 0 { '-' } else { '+' };
                format!("{date} {text}{sign}{:02}:{:02}", hours.abs(), rest.abs())
            };
            return Err(format!(
                "{date} {text} comes twice in that zone, as clocks are set back: write {} or {}",
                reading(before),
                reading(after)
            ));
        }
        AmbiguousOffset::Unambiguous { .. } => {}
    }
    let from = ambiguous.compatible().ok().and_then(|zoned| wall(zoned.timestamp()));
    let from = from.ok_or_else(|| EXPECTED.to_owned())?;
    Ok(Stretch { from, to: Wall(from.0.saturating_add(ns - 1)) })
}

fn wall(at: Timestamp) -> Option<Wall> {
    i64::try_from(at.as_nanosecond()).ok().map(Wall)
}
