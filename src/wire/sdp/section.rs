//! Splits an SDP body into its session part and its media sections, line by line.

use crate::base::limits::{SDP_LINES_MAX, SDP_MEDIA_MAX};

use super::SdpError;

/// One `x=value` line.
pub(super) struct Line {
    /// The type letter; NUL for a line that has none.
    pub(super) kind: u8,
    /// What follows the `=`, trailing white space cut off; the whole line where there is no type.
    pub(super) value: String,
}

impl Line {
    fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        if bytes.len() >= 2 && bytes[0].is_ascii_alphabetic() && bytes[1] == b'=' {
            Line { kind: bytes[0].to_ascii_lowercase(), value: text[2..].trim().to_owned() }
        } else {
            Line { kind: 0, value: text.to_owned() }
        }
    }

    /// The line as text.
    pub(super) fn text(&self) -> String {
        match self.kind {
            0 => self.value.clone(),
            kind => format!("{}={}", kind as char, self.value),
        }
    }

    /// Name and value of an `a=` line; the value is empty for a flag.
    pub(super) fn attribute(&self) -> Option<(&str, &str)> {
        if self.kind != b'a' {
            return None;
        }
        let (name, value) = self.value.split_once(':').unwrap_or((&self.value, ""));
        Some((name.trim(), value.trim()))
    }
}

/// The lines before the first `m=`, then one list per `m=` with that line first.
pub(super) struct Sections {
    pub(super) session: Vec<Line>,
    pub(super) media: Vec<Vec<Line>>,
}

/// Splits. Any line end is taken (CRLF, LF, CR); bytes that are no UTF-8 are replaced.
pub(super) fn split(body: &[u8]) -> Result<Sections, SdpError> {
    let text = String::from_utf8_lossy(body);
    let mut sections = Sections { session: Vec::new(), media: Vec::new() };
    let mut count = 0;
    for text in text.split(['\r', '\n']).filter(|line| !line.trim().is_empty()) {
        count += 1;
        if count > SDP_LINES_MAX {
            return Err(SdpError::TooManyLines);
        }
        let line = Line::new(text);
        if line.kind == b'm' {
            if sections.media.len() == SDP_MEDIA_MAX {
                return Err(SdpError::TooManyMedia);
            }
            sections.media.push(vec![line]);
        } else {
            sections.media.last_mut().unwrap_or(&mut sections.session).push(line);
        }
    }
    Ok(sections)
}
