//! Times for people: in their own zone, with its offset written beside them. What is stored, and what JSON
//! says, is UTC.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::base::ports::Clock;
use crate::base::time::Wall;
use crate::host::clock::SystemClock;
use crate::shell::exit::{Exit, Failure};
use crate::store::query::{self, Edge, Moment, Now, QueryError, Stretch};

/// The zone of times that are shown and said.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct ZoneArgs {
    /// Zone of the times shown, and of those given without one: Europe/Berlin, UTC, +05:30 [default: TZ, else
    /// that of this machine]
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
}

/// The zone of times that are said to a verb which shows none.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct SaidArgs {
    /// Zone of times that are given without one: Europe/Berlin, UTC, +05:30 [default: TZ, else that of this
    /// machine]
    #[arg(long, value_name = "ZONE")]
    pub(crate) tz: Option<String>,
}

impl SaidArgs {
    /// The range of a recording that `--from` and `--to` say.
    pub(crate) fn range(
        &self,
        from: &Option<String>,
        to: &Option<String>,
    ) -> Result<Said, Failure> {
        self.range_by(("from", from), to)
    }

    /// The same, its beginning by another name.
    pub(crate) fn range_by(
        &self,
        from: (&str, &Option<String>),
        to: &Option<String>,
    ) -> Result<Said, Failure> {
        // Nobody who says no time hears of zones.
        if from.1.is_none() && to.is_none() && self.tz.is_none() {
            return Ok(Said::default());
        }
        ZoneArgs { tz: self.tz.clone() }.when()?.range(from, to)
    }

    /// The time that `key` says, of no recording.
    pub(crate) fn time(&self, key: &str, text: &Option<String>) -> Result<Option<Wall>, Failure> {
        if text.is_none() && self.tz.is_none() {
            return Ok(None);
        }
        let when = ZoneArgs { tz: self.tz.clone() }.when()?;
        Ok(text.as_deref().map(|text| when.said(key, text)).transpose()?.map(|said| said.from))
    }
}

/// A range of a recording, as it was said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) from: Option<Moment>,
    pub(crate) to: Option<Moment>,
}

impl Said {
    /// The range, for a recording that began at `start`.
    pub(crate) fn of(&self, start: Wall) -> Result<(Option<Wall>, Option<Wall>), Failure> {
        let of = |moment: Option<Moment>| moment.map(|moment| moment.of(start));
        let (from, to) = (of(self.from), of(self.to));
        in_order(from, to)?;
        Ok((from, to))
    }
}

fn in_order<T: PartialOrd>(from: Option<T>, to: Option<T>) -> Result<(), Failure> {
    match (from, to) {
        (Some(from), Some(to)) if from >= to => {
            Err(Failure::new(Exit::Usage, "--from must lie before --to"))
        }
        _ => Ok(()),
    }
}

/// A zone in use.
pub(crate) struct When {
    zone: TimeZone,
    named: Option<String>,
}

/// A zone of that name.
pub(crate) fn zone(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("utc") {
        return Some(TimeZone::UTC);
    }
    query::offset(name).or_else(|| TimeZone::get(name).ok())
}

/// Whether that is what TZ may be: a zone, nothing, a path, or a rule as POSIX has them.
fn is_tz(text: &str) -> bool {
    text.is_empty()
        || text.starts_with([':', '/'])
        || zone(text).is_some()
        || TimeZone::posix(text).is_ok()
}

fn misread(key: &str, error: &QueryError) -> Failure {
    Failure::new(Exit::Usage, format!("--{key}: {error}"))
}

fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

impl ZoneArgs {
    /// The zone; it must exist.
    pub(crate) fn when(&self) -> Result<When, Failure> {
        let named = self.tz.clone();
        let zone = match &named {
            None => {
                let own = TimeZone::try_system().unwrap_or(TimeZone::UTC);
                if let Some(name) = std::env::var("TZ").ok().filter(|name| !is_tz(name)) {
                    // Whoever has it misspelt reads times that are not those he thinks.
                    eprintln!(
                        "floortape: TZ: there is no zone {name:?}: times are {}",
                        zone_name(&own)
                    );
                }
                own
            }
            Some(name) => zone(name).ok_or_else(|| {
                let why = format!("--tz: expected a zone such as Europe/Berlin, found \"{name}\"");
                Failure::new(Exit::Usage, why)
            })?,
        };
        Ok(When { zone, named })
    }
}

impl When {
    /// Its name, for whoever shows times in our stead.
    pub(crate) fn name(&self) -> Option<String> {
        self.named.clone().or_else(|| self.zone.iana_name().map(str::to_owned))
    }

    /// An instant as it is stored, in this zone: `2026-11-30T14:05:09.123456789+01:00`. In UTC it is the
    /// same text as in JSON.
    pub(crate) fn text(&self, at: Wall) -> String {
        self.local(at, "%Y-%m-%dT%H:%M:%S.%9f%:z").unwrap_or_else(|| at.to_string())
    }

    /// The same and UTC beside it.
    pub(crate) fn both(&self, at: Wall) -> String {
        match self.local(at, "%Y-%m-%dT%H:%M:%S.%9f%:z") {
            Some(local) => format!("{local} ({at})"),
            None => at.to_string(),
        }
    }

    /// For tables.
    pub(crate) fn to_the_second(&self, at: Wall) -> String {
        self.local(at, "%Y-%m-%d %H:%M:%S%:z").unwrap_or_else(|| {
            let utc = at.to_string();
            format!("{} {}Z", &utc[..10], &utc[11..19])
        })
    }

    /// The end of something, or that it has none yet.
    pub(crate) fn or_now(&self, at: Option<Wall>) -> String {
        at.map_or_else(|| "now".to_owned(), |at| self.text(at))
    }

    /// `None` in UTC.
    fn local(&self, at: Wall, format: &str) -> Option<String> {
        if self.zone == TimeZone::UTC {
            return None;
        }
        let at = Timestamp::from_nanosecond(i128::from(at.0)).ok()?;
        Some(at.to_zoned(self.zone.clone()).strftime(format).to_string())
    }

    /// For times that somebody says.
    pub(crate) fn now(&self) -> Now<'static> {
        Now { at: SystemClock.map().wall, zone: self.zone.clone(), zones: &zone }
    }

    /// A time that somebody says for the option `key`.
    pub(crate) fn said(&self, key: &str, text: &str) -> Result<Stretch, Failure> {
        query::stretch(text, &self.now()).map_err(|error| misread(key, &error))
    }

    /// A moment of a recording that somebody says for the option `key`.
    fn moment(&self, key: &str, text: &str, edge: Edge) -> Result<Moment, Failure> {
        query::moment(text, edge, &self.now()).map_err(|error| misread(key, &error))
    }

    /// The range of a recording that `--from` and `--to` say. What is known before the recording is to be in
    /// order; [`Said::of`] sees to the rest.
    pub(crate) fn range(
        &self,
        (key, from): (&str, &Option<String>),
        to: &Option<String>,
    ) -> Result<Said, Failure> {
        let said = |key, text: &Option<String>, edge| {
            text.as_deref().map(|text| self.moment(key, text, edge)).transpose()
        };
        let range = Said { from: said(key, from, Edge::First)?, to: said("to", to, Edge::Last)? };
        match (range.from, range.to) {
            (Some(Moment::At(from)), Some(Moment::At(to))) => in_order(Some(from), Some(to))?,
            (Some(Moment::Behind(from)), Some(Moment::Behind(to))) => {
                in_order(Some(from), Some(to))?;
            }
            _ => {}
        }
        Ok(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn when(name: &str) -> When {
        ZoneArgs { tz: Some(name.to_owned()) }.when().unwrap_or_else(|_| panic!("{name}"))
    }

    #[test]
    fn the_offset_tells_two_equal_hours_apart() {
        let berlin = when("Europe/Berlin");
        let at = |text: &str| text.parse::<Wall>().expect("RFC 3339");
        // The night in which clocks are set back.
        let first = at("2026-10-25T00:30:00Z");
        let second = at("2026-10-25T01:30:00Z");
        assert_eq!(berlin.to_the_second(first), "2026-10-25 02:30:00+02:00");
        assert_eq!(berlin.to_the_second(second), "2026-10-25 02:30:00+01:00");
        assert_eq!(berlin.text(second).parse(), Ok(second), "what is shown can be said");
        assert_eq!(
            berlin.both(second),
            "2026-10-25T02:30:00.000000000+01:00 (2026-10-25T01:30:00.000000000Z)"
        );
        // And on.
        assert_eq!(berlin.to_the_second(at("2026-03-29T00:59:59Z")), "2026-03-29 01:59:59+01:00");
        assert_eq!(berlin.to_the_second(at("2026-03-29T01:00:00Z")), "2026-03-29 03:00:00+02:00");
    }

    #[test]
    fn a_zone_may_be_an_offset_and_a_misspelt_one_is_known() {
        let at: Wall = "2026-10-25T00:30:00Z".parse().expect("RFC 3339");
        assert_eq!(when("+05:30").to_the_second(at), "2026-10-25 06:00:00+05:30");
        for good in
            ["", "Europe/Berlin", "UTC", "EST5EDT,M3.2.0,M11.1.0", ":/etc/localtime", "-03:00"]
        {
            assert!(is_tz(good), "{good}");
        }
        for bad in ["Europe/Berln", "Nonsense/Zone", "+5 o'clock"] {
            assert!(!is_tz(bad), "{bad}");
        }
    }

    #[test]
    fn in_utc_it_is_what_json_says() {
        let at: Wall = "2026-10-25T00:30:00Z".parse().expect("RFC 3339");
        assert_eq!(when("UTC").text(at), at.to_string());
        assert_eq!(when("utc").to_the_second(at), "2026-10-25 00:30:00Z");
        assert_eq!(when("Asia/Kolkata").to_the_second(at), "2026-10-25 06:00:00+05:30");
        assert!(ZoneArgs { tz: Some("Europe/Berli".to_owned()) }.when().is_err());
    }
}
