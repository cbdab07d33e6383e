//! How long something is kept: `forever`, or a number with its unit.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::time::Wall;

/// How long. Longer is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Keep {
    /// So many seconds.
    Seconds(u64),
    /// It never goes.
    Forever,
}

/// Seconds of each unit; a year is 366 days, so that nothing goes a day early.
const UNITS: [(char, u64); 5] =
    [('y', 366 * 86_400), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

impl Keep {
    /// Until when something is kept that ended at `end`; `None`: for ever.
    pub fn until(self, end: Wall) -> Option<Wall> {
        let Keep::Seconds(seconds) = self else { return None };
        let ns = i64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?;
        end.0.checked_add(ns).map(Wall)
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Keep::Seconds(seconds) = *self else { return f.write_str("forever") };
        let whole = UNITS.iter().find(|(_, unit)| seconds > 0 && seconds.is_multiple_of(*unit));
        let (unit, each) = whole.copied().unwrap_or(('s', 1));
        write!(f, "{}{unit}", seconds / each)
    }
}

impl From<Keep> for String {
    fn from(keep: Keep) -> Self {
        keep.to_string()
    }
}

impl FromStr for Keep {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let unit = text.chars().last()?;
            let (_, each) = UNITS.iter().find(|(known, _)| *known == unit)?;
            let number = text.strip_suffix(unit)?;
            let plain = number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse::<u64>().ok().filter(|number| plain && *number > 0)?.checked_mul(*each)
        };
        match parse() {
            _ if text == "forever" => Ok(Keep::Forever),
            Some(seconds) if i64::try_from(seconds).is_ok_and(|s| s < i64::MAX / 2_000_000_000) => {
                Ok(Keep::Seconds(seconds))
            }
            _ => Err(format!(
                "expected \"forever\" or a number with its unit, such as \"90d\" or \"7y\" \
                 (s, m, h, d, y); found \"{text}\""
            )),
        }
    }
}

impl TryFrom<String> for Keep {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_was_read() {
        for text in ["forever", "90d", "7y", "12h", "5s", "45m"] {
            assert_eq!(text.parse::<Keep>().expect("fine").to_string(), text);
        }
        assert_eq!("48h".parse::<Keep>().expect("fine").to_string(), "2d");
        for bad in ["", "d", "90", "-1d", "+1d", "1w", "0d", "forever ", "1.5d", "99999999999999y"]
        {
            assert!(bad.parse::<Keep>().is_err_and(|why| why.contains("\"90d\"")), "{bad}");
        }
    }

    #[test]
    fn longer_is_greater_and_forever_the_greatest() {
        let keep = |text: &str| text.parse::<Keep>().expect("fine");
        assert!(keep("90d") < keep("1y") && keep("100y") < Keep::Forever);
        assert_eq!(keep("2s").until(Wall(5)), Some(Wall(2_000_000_005)));
        assert_eq!(Keep::Forever.until(Wall(5)), None);
    }
}
