//! What is wrong with a query, and where.

use std::fmt;
use std::ops::Range;

/// A query that means nothing. Shown with the query and a caret under what is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryError {
    /// The query.
    pub text: String,
    /// Which bytes of it; empty at its end where something is missing.
    pub at: Range<usize>,
    /// What was expected and what was found.
    pub why: String,
}

impl std::error::Error for QueryError {}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One line each, whatever was pasted into it.
        let plain = |part: Option<&str>| -> String {
            let visible = |c: char| if c.is_control() { ' ' } else { c };
            part.unwrap_or_default().chars().map(visible).collect()
        };
        let before = self.text.get(..self.at.start).unwrap_or_default().chars().count();
        let under = self.text.get(self.at.clone()).unwrap_or_default().chars().count().max(1);
        writeln!(f, "{}", plain(Some(&self.why)))?;
        writeln!(f, "  {}", plain(Some(&self.text)))?;
        write!(f, "  {}{}", " ".repeat(before), "^".repeat(under))
    }
}
