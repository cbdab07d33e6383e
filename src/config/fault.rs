//! A configuration fault: where it is, why it is one, how to mend it.

use std::fmt;
use std::ops::Range;

/// One fault of the configuration, printed with line, column and caret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file, or the `--set` argument.
    pub origin: String,
    /// Where in it; `None` where the key has its default.
    pub place: Option<Place>,
    /// The key, such as `media.ports`; empty for a syntax error.
    pub key: String,
    /// Expected and found.
    pub why: String,
    /// How to mend it.
    pub fix: String,
}

/// A place in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Line, 1 first.
    pub line: usize,
    /// Column in characters, 1 first.
    pub column: usize,
    /// The line itself.
    pub text: String,
    /// Characters under the caret.
    pub width: usize,
}

impl Place {
    /// The place of the bytes `span` in `text`; a span behind its end becomes its end.
    pub fn find(text: &str, span: &Range<usize>) -> Self {
        let mut start = span.start.min(text.len());
        while !text.is_char_boundary(start) {
            start -= 1;
        }
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let mut end = span.end.clamp(start, line_end);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        Place {
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end_matches('\r').to_owned(),
            width: text[start..end].chars().count().max(1),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |f: &mut fmt::Formatter<'_>| {
            if self.key.is_empty() {
                writeln!(f, "error: {}", self.why)
            } else {
                writeln!(f, "error: {}: {}", self.key, self.why)
            }
        };
        match &self.place {
            Some(place) => {
                write!(f, "{}:{}:{}: ", self.origin, place.line, place.column)?;
                named(f)?;
                let number = place.line.to_string();
                // Tabs keep their width under the caret.
                let lead: String = place
                    .text
                    .chars()
                    .take(place.column - 1)
                    .map(|c| if c == '\t' { '\t' } else { ' ' })
                    .collect();
                writeln!(f, "  {number} | {}", place.text)?;
                let carets = "^".repeat(place.width);
                writeln!(f, "  {:width$} | {lead}{carets}", "", width = number.len())?;
            }
            None => {
                write!(f, "{}: ", self.origin)?;
                named(f)?;
            }
        }
        write!(f, "  fix: {}", self.fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caret_stands_under_the_value_also_behind_wide_characters() {
        let text = "[sip]\nä = \"x\"\n";
        let at = text.find("\"x\"").expect("it is there");
        let place = Place::find(text, &(at..at + 3));
        assert_eq!((place.line, place.column, place.width), (2, 5, 3));
        let fault = Fault {
            origin: "f.toml".into(),
            place: Some(place),
            key: "sip.ä".into(),
            why: "why".into(),
            fix: "fix".into(),
        };
        assert_eq!(
            fault.to_string(),
            "f.toml:2:5: error: sip.ä: why\n  2 | ä = \"x\"\n    |     ^^^\n  fix: fix"
        );
    }

    #[test]
    fn any_span_has_a_place() {
        for text in ["", "ä", "a\nb", "\n\n"] {
            for start in 0..6 {
                for end in 0..6 {
                    assert!(Place::find(text, &(start..end)).line >= 1);
                }
            }
        }
    }
}
