//! Pieces to an expression.

use std::ops::Range;

use super::error::QueryError;
use super::expr::{Bound, Expr, Field, Has, Is, Named, Term};
use super::folding::folded;
use super::key::{self, Key};
use super::lexer::{Kind, Piece, pieces};
use super::time::{self, Now, Stretch};
use super::words::{coded, plain_session, tokens};
use crate::base::ids::RsId;
use crate::store::catalog::model::Verdict;
use crate::wire::aor::normal_aor;

/// Longer than this nobody asks by hand.
pub const QUERY_BYTES_MAX: usize = 8_192;
/// Parentheses and negations within each other.
const DEPTH_MAX: usize = 32;
/// Conditions of one query.
const TERMS_MAX: usize = 256;

/// Understands `text`; times in it as at `now`.
pub fn parse(text: &str, now: &Now<'_>) -> Result<Expr, QueryError> {
    let error = |at, why: String| QueryError { text: text.to_owned(), at, why };
    if text.len() > QUERY_BYTES_MAX {
        let end = (0..=QUERY_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (text, why) =
            (text[..end].to_owned(), format!("expected at most {QUERY_BYTES_MAX} bytes"));
        return Err(QueryError { at: end..end, text, why });
    }
    let pieces = pieces(text)?;
    if pieces.is_empty() {
        let why = "expected what to look for, such as miller, sip:ann@desk.example or has:gap";
        return Err(error(0..text.len(), why.to_owned()));
    }
    if pieces.len() > TERMS_MAX {
        let why = format!("expected at most {TERMS_MAX} terms");
        return Err(error(pieces[TERMS_MAX].at.clone(), why));
    }
    let mut parser = Parser { text, now, pieces, next: 0 };
    let expr = parser.any(0)?;
    match parser.peek() {
        None => Ok(expr),
        Some(piece) => {
            let at = piece.at.clone();
            Err(error(at, "expected \"(\" before this \")\", or nothing".to_owned()))
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    now: &'a Now<'a>,
    pieces: Vec<Piece>,
    next: usize,
}

/// A term's value, and where it stands.
struct Value {
    text: String,
    at: Range<usize>,
    quoted: bool,
}

type Parsed = Result<Expr, QueryError>;

impl Parser<'_> {
    fn peek(&self) -> Option<&Piece> {
        self.pieces.get(self.next)
    }

    fn error<T>(&self, at: &Range<usize>, why: impl Into<String>) -> Result<T, QueryError> {
        Err(QueryError { text: self.text.to_owned(), at: at.clone(), why: why.into() })
    }

    /// Where what is missing should stand.
    fn here(&self) -> Range<usize> {
        self.peek().map_or(self.text.len()..self.text.len(), |piece| piece.at.clone())
    }

    fn any(&mut self, depth: usize) -> Parsed {
        let mut parts = vec![self.all(depth)?];
        while self.peek().is_some_and(|piece| piece.kind == Kind::Or) {
            self.next += 1;
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Parsed {
        let mut parts = vec![self.one(depth)?];
        loop {
            match self.peek().map(|piece| &piece.kind) {
                None | Some(Kind::Or | Kind::Close) => break,
                Some(Kind::And) => self.next += 1,
                Some(_) => {}
            }
            parts.push(self.one(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::All(parts) })
    }

    fn one(&mut self, depth: usize) -> Parsed {
        let here = self.here();
        if depth > DEPTH_MAX {
            return self.error(&here, format!("expected at most {DEPTH_MAX} within each other"));
        }
        let Some(piece) = self.peek().cloned() else {
            return self.error(&here, "expected a term, found the end");
        };
        self.next += 1;
        match piece.kind {
            Kind::Not => Ok(Expr::Not(Box::new(self.one(depth + 1)?))),
            Kind::Open => {
                let inner = self.any(depth + 1)?;
                if !self.peek().is_some_and(|piece| piece.kind == Kind::Close) {
                    let why = "expected \")\" for this \"(\", found the end";
                    return self.error(&piece.at, why);
                }
                self.next += 1;
                Ok(inner)
            }
            Kind::Term { key, value, value_at, quoted } => {
                self.term(key, Value { text: value, at: value_at, quoted })
            }
            Kind::Close => self.error(&piece.at, "expected a term before this \")\""),
            Kind::Or => self.error(&piece.at, "expected a term on each side of OR"),
            Kind::And => self.error(&piece.at, "expected a term on each side of AND"),
        }
    }

    fn term(&mut self, key: Option<(String, Range<usize>)>, mut value: Value) -> Parsed {
        let Some((name, name_at)) = key else { return self.bare(&value) };
        let Some(key) = Key::of(&name) else {
            let why = match key::nearest(&name, key::names()) {
                Some(near) => format!("expected a key, found \"{name}\": did you mean {near}:?"),
                None => {
                    let known: Vec<&str> = key::names().collect();
                    format!(
                        "expected a key, found \"{name}\": known are {}; a word with a colon in it \
                         stands in quotes",
                        known.join(", ")
                    )
                }
            };
            return self.error(&name_at, why);
        };
        if value.text.trim().is_empty() {
            let at = name_at.start..value.at.end.max(name_at.end + 1);
            return self.error(&at, format!("expected a value behind {name}:"));
        }
        if key.is_time() && !value.quoted {
            self.longer_time(&mut value)?;
        }
        self.keyed(key, &value)
    }

    fn keyed(&self, key: Key, value: &Value) -> Parsed {
        let term = match key {
            Key::Id => match value.text.parse() {
                Ok(id) => Term::Id(id),
                Err(_) => {
                    let why = "expected the id of a recording, 32 hexadecimal digits";
                    return self.error(&value.at, why);
                }
            },
            Key::Party | Key::Aor if is_address(&value.text) => self.aor(value)?,
            Key::Party => self.words(Field::Party, value)?,
            Key::Aor => self.words(Field::Aor, value)?,
            Key::Name => self.words(Field::Name, value)?,
            Key::Src => self.words(Field::Src, value)?,
            Key::Text => self.words(Field::Text, value)?,
            Key::Quirk => self.words(Field::Quirk, value)?,
            Key::Word => Term::Part(folded(value.text.trim())),
            Key::Session => Term::Session(self.named(value, |text| coded(&plain_session(text)))?),
            Key::Label => Term::Label(self.named(value, coded)?),
            Key::Call => Term::Call(self.named(value, coded)?),
            Key::Codec => Term::Codec(self.named(value, coded)?),
            Key::Peer => Term::Peer(value.text.trim().to_owned()),
            Key::Has => Term::Has(self.choice(
                value,
                &[
                    ("gap", Has::Gap),
                    ("dtmf", Has::Dtmf),
                    ("text", Has::Text),
                    ("video", Has::Video),
                    ("quirk", Has::Quirk),
                    ("pause", Has::Pause),
                ],
            )?),
            Key::Verdict => Term::Verdict(self.choice(
                value,
                &[
                    ("complete", Verdict::Complete),
                    ("continuous", Verdict::Continuous),
                    ("gaps", Verdict::Gaps),
                    ("empty", Verdict::Empty),
                ],
            )?),
            Key::Is => Term::Is(self.choice(
                value,
                &[
                    ("live", Is::Live),
                    ("held", Is::Held),
                    ("ended", Is::Ended),
                    ("orphan", Is::Orphan),
                    ("own", Is::Own),
                    ("sealed", Is::Sealed),
                    ("gone", Is::Gone),
                ],
            )?),
            Key::Duration => return self.duration(value),
            Key::From => Term::From(self.stretch(value)?.from),
            Key::To => Term::To(self.stretch(value)?.to),
            Key::At => {
                let Stretch { from, to } = self.stretch(value)?;
                return Ok(Expr::All(vec![Expr::Term(Term::From(from)), Expr::Term(Term::To(to))]));
            }
        };
        Ok(Expr::Term(term))
    }

    /// Without a key: an id, an address, or words; also the whole of a session, a label or a Call-ID.
    fn bare(&self, value: &Value) -> Parsed {
        if !value.quoted && value.text.parse::<RsId>().is_ok() {
            return self.keyed(Key::Id, value);
        }
        let mut parts = Vec::new();
        if !value.quoted && is_address(&value.text) {
            parts.push(self.aor(value)?);
        } else if value.text != "*" {
            parts.push(self.words(Field::Any, value)?);
        } else {
            // A lone star is every recording, as a hold has it.
            return Ok(Expr::All(Vec::new()));
        }
        if let Ok(named) = self.named(value, coded) {
            let session = self.named(value, |text| coded(&plain_session(text)))?;
            parts.extend([Term::Session(session), Term::Label(named.clone()), Term::Call(named)]);
        }
        Ok(Expr::Any(parts.into_iter().map(Expr::Term).collect()))
    }

    fn aor(&self, value: &Value) -> Result<Term, QueryError> {
        Ok(Term::Aor(folded(&normal_aor(&value.text))))
    }

    fn words(&self, field: Field, value: &Value) -> Result<Term, QueryError> {
        let (text, prefix) = self.open_end(value)?;
        let words = tokens(text);
        if words.is_empty() {
            return self.error(&value.at, "expected letters or digits");
        }
        Ok(Term::Words { field, words, prefix })
    }

    fn named(&self, value: &Value, code: impl Fn(&str) -> String) -> Result<Named, QueryError> {
        let (text, prefix) = self.open_end(value)?;
        let word = code(text);
        if word.is_empty() {
            return self.error(&value.at, "expected letters or digits");
        }
        Ok(Named { word, prefix })
    }

    /// The value without the star at its end, and whether it had one.
    fn open_end<'v>(&self, value: &'v Value) -> Result<(&'v str, bool), QueryError> {
        let text = value.text.trim();
        let (text, prefix) = match text.strip_suffix('*') {
            Some(text) if !value.quoted => (text, true),
            _ => (text, false),
        };
        if let Some(star) = text.find('*').filter(|_| !value.quoted) {
            let before = &text[..star];
            let instead = match before.chars().all(char::is_alphanumeric) && !before.is_empty() {
                true => format!("{before}* finds whatever begins so, "),
                false => String::new(),
            };
            let why = format!(
                "expected * at the end of a word only: {instead}word:X has X anywhere in a name or address, \
                 and in an address with its @ a * may stand anywhere"
            );
            let skipped = value.text.len() - value.text.trim_start().len();
            let at = value.at.start + skipped + star;
            return self.error(&(at..at + 1), why);
        }
        Ok((text, prefix))
    }

    fn choice<T: Copy>(&self, value: &Value, known: &[(&str, T)]) -> Result<T, QueryError> {
        let text = value.text.trim();
        if let Some((_, found)) = known.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
            return Ok(*found);
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let near = key::nearest(text, names.iter().copied());
        let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
        self.error(&value.at, format!("expected one of {}{near}", names.join(", ")))
    }

    fn duration(&self, value: &Value) -> Parsed {
        let text = value.text.trim();
        let length = |text: &str| match time::duration(text.trim()) {
            Some(ns) => Ok(ns),
            None => {
                let why = "expected a length such as >10m, <=1h30m, 45s or 10m..2h";
                self.error(&value.at, why)
            }
        };
        let term = |bound, ns| Expr::Term(Term::Duration(bound, ns));
        if let Some((least, most)) = text.split_once("..") {
            let (least, most) = (length(least)?, length(most)?);
            if least > most {
                return self.error(&value.at, "expected the shorter length first");
            }
            return Ok(Expr::All(vec![term(Bound::Least, least), term(Bound::Most, most)]));
        }
        let rest = |prefix: &str| text.strip_prefix(prefix);
        Ok(match (rest(">="), rest("<="), rest(">"), rest("<")) {
            (Some(text), ..) => term(Bound::Least, length(text)?),
            (_, Some(text), ..) => term(Bound::Most, length(text)?),
            (_, _, Some(text), _) => term(Bound::Least, length(text)?.saturating_add(1)),
            (_, _, _, Some(text)) => term(Bound::Most, length(text)? - 1),
            _ => term(Bound::Least, length(text)?),
        })
    }

    /// A day may be followed by a time of day, and that by a zone; a length by `ago`. What looks like either and
    /// is none is refused: as a word beside a day it would find something else.
    fn longer_time(&mut self, value: &mut Value) -> Result<(), QueryError> {
        let word = |parser: &Self, at: usize| match parser.pieces.get(at) {
            Some(Piece { kind: Kind::Term { key: None, value, quoted: false, .. }, at }) => {
                Some((value.clone(), at.clone()))
            }
            _ => None,
        };
        if time::duration(&value.text).is_some()
            && let Some((_, at)) =
                word(self, self.next).filter(|(ago, _)| ago.eq_ignore_ascii_case("ago"))
        {
            value.text.push_str(" ago");
            value.at.end = at.end;
            self.next += 1;
            return Ok(());
        }
        for wants_zone in [false, true] {
            let is_day = time::is_day(&value.text);
            if !is_day && !value.text.ends_with(|c: char| c.is_ascii_digit()) {
                break;
            }
            let is_time = is_day || value.text.contains(':');
            // `-05:00` behind a time is a zone, and no "not 05:00".
            let minus = self.pieces.get(self.next).filter(|piece| piece.kind == Kind::Not).cloned();
            if let (true, true, Some(minus)) = (wants_zone, is_time, minus)
                && let Some((more, at)) = word(self, self.next + 1)
                && at.start == minus.at.end
                && more.contains(':')
                && time::offset(&format!("-{more}")).is_some()
            {
                value.text = format!("{} -{more}", value.text);
                value.at.end = at.end;
                self.next += 2;
                break;
            }
            let Some((more, at)) = word(self, self.next) else { break };
            let more = match wants_zone {
                true if time::is_zone(&more) => more,
                true if is_time && time::is_abbreviation(&more) => {
                    let why = format!("{}; a word stands in quotes", time::several(&more));
                    return self.error(&at, why);
                }
                false if time::is_time_of_day(&more) => more,
                false if is_day && time::looks_like_time_of_day(&more) => {
                    match time::with_zone(&more) {
                        Some((time, zone)) => format!("{time} {zone}"),
                        None => {
                            let why = "expected a time of day such as 14:05 or 14:05:09";
                            return self.error(&at, why);
                        }
                    }
                }
                _ => continue,
            };
            if is_time {
                value.text = format!("{} {more}", value.text);
                value.at.end = at.end;
                self.next += 1;
            }
        }
        // `14:05Z`, without a day.
        if let Some((time, zone)) = time::with_zone(&value.text) {
            value.text = format!("{time} {zone}");
        }
        Ok(())
    }

    fn stretch(&self, value: &Value) -> Result<Stretch, QueryError> {
        time::stretch(&value.text, self.now).or_else(|error| {
            // Where it stands in the query as it was said, the caret is under the very part.
            let from = value.at.start + usize::from(value.quoted);
            let is_as_written =
                self.text.get(from..).is_some_and(|rest| rest.starts_with(&*value.text));
            let at = match is_as_written && !error.at.is_empty() {
                true => from + error.at.start..from + error.at.end,
                false => value.at.clone(),
            };
            self.error(&at, error.why)
        })
    }
}

/// Whether it is written as an address of record.
fn is_address(text: &str) -> bool {
    // As people write it: in quotes, with spaces.
    let is_number = |rest: &str| {
        rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.chars().all(|c| c.is_ascii_digit() || "-.*#() ".contains(c))
    };
    let text = text.trim();
    text.contains(['@', ':'])
        || text.strip_prefix('+').is_some_and(is_number)
        // A star alone at the end is a word that goes on; elsewhere in a number, it is of an address.
        || (is_number(text) && text.strip_suffix('*').unwrap_or(text).contains('*'))
}
