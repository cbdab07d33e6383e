//! A query in the engine's words.
//!
//! Whatever is a word, a tag or a name becomes one expression over the index of words, which walks lists of
//! places in their order and so needs no sort and no table. Lengths and times that stand deep in a query are
//! asked of `found`. The times that hold of the whole query become a range of places. Many parties at once, as a
//! pattern of addresses may mean, become a list of their places that is made once ([`super::listed`]).

use rusqlite::types::Value;

use super::listed::Listed;
use super::words::{self, LONG_NS, verdict_word};
use super::{Catalogue, engine};
use crate::base::time::Wall;
use crate::store::catalog::index::{Find, IndexError, Place};
use crate::store::catalog::schema;
use crate::store::query::{Bound, Client, Expr, Field, Has, Is, Named, Term};
use crate::wire::aor;

/// Tags of recordings that are longer than [`LONG_NS`].
pub(super) const LONG: [&str; 3] = ["t1", "t2", "t3"];
/// So many lists are merged in one expression: each step of it looks at all of them.
const MERGED_MAX: usize = 64;
/// Selections of one statement, well below the engine's limit.
const SELECTIONS_MAX: usize = 400;
const NEVER: &str = "0";
/// Stands in a condition where a list is to be cut to the places of the run: each is made anew for each run.
pub(super) const PLACES: &str = "{places}";

/// A part of a query.
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    /// An expression over the words.
    Words(String),
    /// A condition on a row of `found`.
    Row(String, Vec<Value>),
    /// Of each of these one list; one of them is enough.
    Tags(Vec<String>),
    /// The places in this list.
    Listed(Listed),
}

/// One run of places, to be asked after the one before.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// Expression over the words; `None`: all rows.
    pub(super) words: Option<String>,
    /// Places, the first and the last.
    pub(super) places: (i64, i64),
    /// It must have ended at or after this.
    pub(super) end: Option<Wall>,
}

/// A query, ready to be asked.
#[derive(Debug)]
pub(super) struct Plan {
    /// The newest first.
    pub(super) runs: Vec<Run>,
    /// Condition on a row of `found`, with its values.
    pub(super) row: Option<(String, Vec<Value>)>,
    /// Conditions on a place that the words gave, with their values.
    pub(super) lengths: Vec<(String, Vec<Value>)>,
    /// All of it is in this list; then only its runs of what is long have words.
    pub(super) listed: Option<Listed>,
    /// A bound of the length is all that is asked for.
    pub(super) by_length: bool,
}

impl Node {
    /// As one expression over the words; `None`: it is none, or one that only excludes.
    fn words(&self) -> Option<String> {
        match self {
            Node::Words(words) => Some(words.clone()),
            Node::Tags(tags) if !tags.is_empty() && tags.len() <= MERGED_MAX => Some(either(tags)),
            Node::All(parts) => {
                let (not, all): (Vec<_>, Vec<_>) =
                    parts.iter().partition(|part| matches!(part, Node::Not(_)));
                let all: Option<Vec<String>> = all.into_iter().map(Node::words).collect();
                let not: Option<Vec<String>> = not.into_iter().map(Node::denied).collect();
                joined(&all?, &not?)
            }
            Node::Any(parts) if !parts.is_empty() => {
                let parts: Option<Vec<String>> = parts.iter().map(Node::words).collect();
                Some(format!("({})", parts?.join(" OR ")))
            }
            _ => None,
        }
    }

    /// What a negation excludes.
    fn denied(&self) -> Option<String> {
        match self {
            Node::Not(part) => part.words(),
            _ => None,
        }
    }

    /// As a condition on a row of `found`.
    fn row(&self, values: &mut Vec<Value>) -> String {
        const LISTED: &str =
            "found.place IN (SELECT rowid FROM words WHERE words MATCH ? {places})";
        if let Some(words) = self.words() {
            values.push(Value::Text(words));
            return LISTED.to_owned();
        }
        let mut each = |parts: &[Node], word: &str, none: &str| match parts {
            [] => none.to_owned(),
            parts => {
                let parts: Vec<String> = parts.iter().map(|part| part.row(values)).collect();
                format!("({})", parts.join(word))
            }
        };
        match self {
            Node::All(parts) => each(parts, " AND ", "1"),
            Node::Any(parts) => each(parts, " OR ", NEVER),
            Node::Not(part) => format!("NOT {}", part.row(values)),
            Node::Row(text, own) => {
                values.extend(own.iter().cloned());
                text.clone()
            }
            Node::Tags(tags) if tags.is_empty() => NEVER.to_owned(),
            Node::Tags(tags) => {
                let chunk = MERGED_MAX.max(tags.len().div_ceil(SELECTIONS_MAX));
                let lists: Vec<&str> = tags
                    .chunks(chunk)
                    .map(|some| {
                        values.push(Value::Text(either(some)));
                        "SELECT rowid FROM words WHERE words MATCH ? {places}"
                    })
                    .collect();
                format!("found.place IN ({})", lists.join(" UNION ALL "))
            }
            Node::Listed(listed) => {
                format!("found.place IN (SELECT rowid FROM {listed} WHERE 1 {{places}})")
            }
            // Has words.
            Node::Words(_) => NEVER.to_owned(),
        }
    }
}

/// One of these tags.
fn either(tags: &[String]) -> String {
    let tags: Vec<String> = tags.iter().map(|tag| format!("\"{tag}\"")).collect();
    format!("tag : ({})", tags.join(" OR "))
}

fn tag(tag: &str) -> Node {
    Node::Words(format!("tag : \"{tag}\""))
}

fn tag_of_step(length_ns: i64) -> String {
    format!("tag : \"d{}\"", words::step(length_ns))
}

fn length(bound: Bound, ns: i64) -> Node {
    let compare = if bound == Bound::Least { ">=" } else { "<=" };
    Node::Row(format!("found.end - found.start {compare} ?"), vec![Value::Integer(ns)])
}

fn named(letter: &str, Named { word, prefix }: &Named) -> Node {
    Node::Words(format!("tag : \"{letter}{word}\"{}", if *prefix { " *" } else { "" }))
}

/// All of these and none of those; `None`: it would only exclude.
fn joined(all: &[String], not: &[String]) -> Option<String> {
    if all.is_empty() {
        return None;
    }
    let all: Vec<String> = all.iter().map(|part| format!("({part})")).collect();
    let mut text = all.join(" AND ");
    for part in not {
        text = format!("({text}) NOT ({part})");
    }
    Some(text)
}

fn columns(field: Field) -> &'static str {
    match field {
        Field::Any => "{name aor src text}",
        Field::Party => "{name aor}",
        Field::Name => "name",
        Field::Aor => "aor",
        Field::Src => "src",
        Field::Text => "text",
        Field::Quirk => "quirk",
    }
}

/// Conditions that all must hold, one by one.
fn conjuncts<'a>(expr: &'a Expr, to: &mut Vec<&'a Expr>) {
    match expr {
        Expr::All(parts) => parts.iter().for_each(|part| conjuncts(part, to)),
        other => to.push(other),
    }
}

impl Catalogue {
    /// Makes a plan of what is wanted.
    pub(super) fn plan(&self, find: &Find<'_>) -> Result<Plan, IndexError> {
        let mut parts = Vec::new();
        conjuncts(find.query, &mut parts);
        let (mut from, mut places): (Option<Wall>, _) = (None, (i64::MIN, i64::MAX));
        let (mut all, mut not, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        let (mut by_length, mut lengths) = (true, Vec::new());
        self.forget_lists().map_err(engine)?;
        let mut others = Vec::new();
        for part in parts {
            match part {
                Expr::Term(Term::From(at)) => from = from.max(Some(*at)),
                Expr::Term(Term::To(at)) => places.1 = places.1.min(Place::span_of(*at).1.0 - 1),
                Expr::Term(Term::Id(id)) => {
                    let place = self.place(&id.to_string())?;
                    let (first, last) = place.map_or((1, 0), |place| (place, place));
                    places = (places.0.max(first), places.1.min(last));
                }
                Expr::Term(Term::Duration(bound, ns)) => lengths.push((*bound, *ns)),
                part => others.push(part),
            }
        }
        let span = (self.floor(from, places.0).map_err(engine)?, places.1);
        for part in others {
            by_length = false;
            let node = self.node(part, find, span)?;
            match (node.words(), node.denied()) {
                (Some(words), _) => all.push(words),
                (None, Some(words)) => not.push(words),
                (None, None) => rows.push(node),
            }
        }
        by_length &= !lengths.is_empty();
        let mut listed = None;
        if all.is_empty() {
            for (bound, ns) in lengths.drain(..) {
                rows.push(length(bound, ns));
            }
            let of_list = |node: &Node| matches!(node, Node::Listed(_));
            if let Some(Node::Listed(list)) =
                rows.iter().position(of_list).map(|at| rows.swap_remove(at))
            {
                listed = Some(list);
            }
        }
        let hits = all.clone();
        let lengths = lengths.into_iter().map(|(bound, ns)| {
            all.push(either(&words::steps(bound, ns)));
            // Only of one step of lengths some are too short, or too long: those are looked up, if they are hits.
            let some: Vec<String> = hits.iter().cloned().chain([tag_of_step(ns)]).collect();
            let some = joined(&some, &[]).expect("not empty");
            let compare = if bound == Bound::Least { ">=" } else { "<=" };
            let text = format!(
                "(words.rowid NOT IN (SELECT rowid FROM words WHERE words MATCH ? {PLACES}) OR \
                 (SELECT of.end - of.start FROM found AS of WHERE of.place = words.rowid) {compare} ?)"
            );
            (text, vec![Value::Text(some), Value::Integer(ns)])
        });
        let lengths: Vec<_> = lengths.collect();
        let mut values = Vec::new();
        let mut row: Vec<String> = Vec::new();
        if all.is_empty() {
            for words in not.drain(..) {
                values.push(Value::Text(words));
                row.push(
                    "found.place NOT IN (SELECT rowid FROM words WHERE words MATCH ? {places})"
                        .to_owned(),
                );
            }
        }
        row.extend(rows.iter().map(|node| node.row(&mut values)));
        // A list has been made without them.
        if !find.own && listed.is_none() {
            match all.is_empty() {
                true => row.insert(0, "found.own = 0".to_owned()),
                false => not.push("tag : \"fown\"".to_owned()),
            }
        }
        let words = |more: Option<&str>| {
            let more = more.map(|tag| format!("tag : \"{tag}\""));
            let all: Vec<String> = all.iter().cloned().chain(more).collect();
            joined(&all, &not)
        };
        let row = (!row.is_empty()).then(|| (row.join(" AND "), values));
        Ok(Plan { runs: runs(from, places, words), row, lengths, listed, by_length })
    }

    pub(super) fn place(&self, id: &str) -> Result<Option<i64>, IndexError> {
        use rusqlite::OptionalExtension;
        let mut query = self.connection.prepare_cached(schema::PLACE).map_err(engine)?;
        query.query_row([id], |row| row.get(0)).optional().map_err(engine)
    }

    /// Below this place there is nothing that reaches `from`.
    fn floor(&self, from: Option<Wall>, first: i64) -> rusqlite::Result<i64> {
        let Some(from) = from else { return Ok(first) };
        let floor = place_before(from, LONG_NS[LONG_NS.len() - 1]);
        let longer = "SELECT rowid FROM words WHERE words MATCH ?1 AND rowid < ?2 LIMIT 1";
        let mut longer = self.connection.prepare_cached(longer)?;
        let tag = format!("tag : \"{}\"", LONG[LONG.len() - 1]);
        let is_there = longer.exists(rusqlite::params![tag, floor])?;
        Ok(if is_there { first } else { first.max(floor) })
    }

    /// `span`: places that count.
    fn node(&self, expr: &Expr, find: &Find<'_>, span: (i64, i64)) -> Result<Node, IndexError> {
        let each = |parts: &[Expr]| -> Result<Vec<Node>, IndexError> {
            parts.iter().map(|part| self.node(part, find, span)).collect()
        };
        Ok(match expr {
            Expr::All(parts) => Node::All(each(parts)?),
            Expr::Any(parts) => Node::Any(each(parts)?),
            Expr::Not(part) => Node::Not(Box::new(self.node(part, find, span)?)),
            Expr::Term(term) => self.term(term, find, span)?,
        })
    }

    fn term(&self, term: &Term, find: &Find<'_>, span: (i64, i64)) -> Result<Node, IndexError> {
        let row = |text: &str, value: i64| Node::Row(text.to_owned(), vec![Value::Integer(value)]);
        let never = || Node::Tags(Vec::new());
        Ok(match term {
            Term::Id(id) => match self.place(&id.to_string())? {
                Some(place) => row("found.place = ?", place),
                None => never(),
            },
            Term::Words { field, words, prefix } => {
                let star = if *prefix { " *" } else { "" };
                Node::Words(format!("{} : \"{}\"{star}", columns(*field), words.join(" ")))
            }
            Term::Aor(pattern) => {
                self.tags(self.parties_of(pattern).map_err(engine)?, find, span)?
            }
            Term::Part(part) => self.tags(self.with_part(part).map_err(engine)?, find, span)?,
            Term::Session(session) => named("s", session),
            Term::Label(label) => named("l", label),
            Term::Call(call) => named("c", call),
            Term::Codec(codec) => named("k", codec),
            Term::Peer(peer) => {
                self.tags(self.clients_of(peer, find.peers).map_err(engine)?, find, span)?
            }
            Term::Has(has) => tag(match has {
                Has::Gap => "fgap",
                Has::Dtmf => "fdtmf",
                Has::Text => "ftext",
                Has::Video => "fvideo",
                Has::Quirk => "fquirk",
                Has::Pause => "fpause",
            }),
            Term::Verdict(verdict) => tag(&format!("v{}", verdict_word(*verdict))),
            Term::Is(is) => tag(match is {
                // Nothing that is settled runs; holds are conditions when they come here.
                Is::Live | Is::Held => return Ok(never()),
                Is::Ended => "fended",
                Is::Orphan => "forphan",
                Is::Own => "fown",
                Is::Sealed => "fsealed",
                Is::Gone => "fgone",
            }),
            Term::Duration(bound, ns) => length(*bound, *ns),
            Term::From(at) => row("found.end >= ?", at.0),
            Term::To(at) => row("found.place < ?", Place::span_of(*at).1.0),
        })
    }

    /// One of these tags: many of them as a list, unless it would be too long.
    fn tags(
        &self,
        tags: Vec<String>,
        find: &Find<'_>,
        span: (i64, i64),
    ) -> Result<Node, IndexError> {
        if tags.len() <= MERGED_MAX {
            return Ok(Node::Tags(tags));
        }
        let listed = self.list(&tags, span, find.own).map_err(engine)?;
        Ok(listed.map_or(Node::Tags(tags), Node::Listed))
    }

    /// Tags of the parties whose address fits.
    fn parties_of(&self, pattern: &str) -> rusqlite::Result<Vec<String>> {
        let begin = pattern.split('*').next().unwrap_or_default();
        let rows = "SELECT form, party FROM forms WHERE form >= ?1 ORDER BY form";
        let mut query = self.connection.prepare_cached(rows)?;
        let mut rows = query.query([begin])?;
        let mut tags = Vec::new();
        while let Some(row) = rows.next()? {
            let form = row.get_ref(0)?.as_str().unwrap_or_default();
            if !form.starts_with(begin) {
                break;
            }
            if aor::fits(pattern, form) {
                tags.push(format!("p{}", row.get::<_, i64>(1)?));
            }
        }
        tags.sort();
        tags.dedup();
        Ok(tags)
    }

    /// Tags of the parties and clients in whose name or address this stands.
    fn with_part(&self, part: &str) -> rusqlite::Result<Vec<String>> {
        let rows = "SELECT 'p' || party FROM parties \
                    WHERE instr(plain_aor, ?1) > 0 OR instr(plain_name, ?1) > 0 \
                    UNION ALL SELECT 'q' || client FROM clients WHERE instr(plain, ?1) > 0";
        let mut query = self.connection.prepare_cached(rows)?;
        query.query_map([part], |row| row.get(0))?.collect()
    }

    /// Tags of the clients that the configuration calls so.
    fn clients_of(
        &self,
        peer: &str,
        peers: &dyn Fn(&Client) -> Option<String>,
    ) -> rusqlite::Result<Vec<String>> {
        let mut query = self.connection.prepare_cached("SELECT client, who FROM clients")?;
        let mut rows = query.query([])?;
        let mut tags = Vec::new();
        while let Some(row) = rows.next()? {
            let who = row.get_ref(1)?.as_blob().unwrap_or_default();
            let Ok((client, _)) = postcard::from_bytes::<(Client, String)>(who) else { continue };
            if peers(&client).as_deref() == Some(peer) {
                tags.push(format!("q{}", row.get::<_, i64>(0)?));
            }
        }
        Ok(tags)
    }
}

/// The place of whatever began so long before: a microsecond more, since a place begins with its own.
fn place_before(from: Wall, ns: i64) -> i64 {
    Place::span_of(Wall(from.0.saturating_sub(ns).saturating_sub(1_000))).0.0
}

/// What overlaps the time from `from` on and begins in `places`: what began in it, whatever its end; what
/// began in the hour before and ended in it; and what began long before, of which only what is that long
/// needs to be looked at.
fn runs(
    from: Option<Wall>,
    places: (i64, i64),
    words: impl Fn(Option<&str>) -> Option<String>,
) -> Vec<Run> {
    let Some(from) = from else {
        return vec![Run { words: words(None), places, end: None }];
    };
    let mut runs = Vec::new();
    let mut add = |words, low: i64, high: i64, end| {
        let places = (low.max(places.0), high.min(places.1));
        if places.0 <= places.1 {
            runs.push(Run { words, places, end });
        }
    };
    let mut above = Place::span_of(from).1.0;
    add(words(None), above, i64::MAX, None);
    for (at, tag) in [None].into_iter().chain(LONG.map(Some)).enumerate() {
        let low = LONG_NS.get(at).map_or(i64::MIN, |ns| place_before(from, *ns));
        add(words(tag), low, above - 1, Some(from));
        above = low;
    }
    runs
}
