//! A query's text cut into pieces, each with its place.

use std::ops::Range;

use super::error::QueryError;

/// One piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) kind: Kind,
    /// Bytes of the query.
    pub(super) at: Range<usize>,
}

/// What a piece is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    Close,
    Or,
    And,
    Not,
    /// A word or a phrase, with the key before its colon.
    Term {
        key: Option<(String, Range<usize>)>,
        value: String,
        value_at: Range<usize>,
        quoted: bool,
    },
}

/// Schemes of addresses: what stands before their colon is no key.
const SCHEMES: [&str; 7] = ["sip", "sips", "tel", "im", "pres", "urn", "mailto"];

pub(super) fn pieces(text: &str) -> Result<Vec<Piece>, QueryError> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let next = at + c.len_utf8();
        let mut single = |kind| pieces.push(Piece { kind, at: at..next });
        match c {
            c if c.is_whitespace() => {}
            '(' => single(Kind::Open),
            ')' => single(Kind::Close),
            '-' if text[next..].chars().next().is_some_and(|c| !c.is_whitespace()) => {
                single(Kind::Not);
            }
            _ => {
                let piece = term(text, at)?;
                at = piece.at.end;
                pieces.push(piece);
                continue;
            }
        }
        at = next;
    }
    Ok(pieces)
}

fn term(text: &str, start: usize) -> Result<Piece, QueryError> {
    let is_end = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | '"');
    let length = text[start..].find(is_end).unwrap_or(text.len() - start);
    let end = start + length;
    let word = &text[start..end];
    let colon = word.find(':').filter(|at| {
        let name = &word[..*at];
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
            && !SCHEMES.iter().any(|scheme| name.eq_ignore_ascii_case(scheme))
    });
    let key = colon.map(|colon| (word[..colon].to_owned(), start..start + colon));
    let from = colon.map_or(start, |colon| start + colon + 1);
    if from == end && text[from..].starts_with('"') {
        let (value, to) = phrase(text, from)?;
        let value_at = from..to;
        return Ok(Piece {
            kind: Kind::Term { key, value, value_at, quoted: true },
            at: start..to,
        });
    }
    let kind = match word {
        "OR" => Kind::Or,
        "AND" => Kind::And,
        "NOT" => Kind::Not,
        _ => {
            let value = text[from..end].to_owned();
            Kind::Term { key, value, value_at: from..end, quoted: false }
        }
    };
    Ok(Piece { kind, at: start..end })
}

/// What stands between the quote at `start` and the next; a backslash takes one away from its neighbour.
fn phrase(text: &str, start: usize) -> Result<(String, usize), QueryError> {
    let mut value = String::new();
    let mut chars = text[start + 1..].char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, start + 1 + at + 1)),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    let why = "expected a closing quote, found the end".to_owned();
    Err(QueryError { text: text.to_owned(), at: start..text.len(), why })
}
