//! Which recordings are meant: by id, address, session, word, peer and time. All conditions that a query
//! has must be met, each by one of its values. What it means it means now and in future.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::facts::Facts;
use crate::base::ids::RsId;
use crate::base::time::Wall;
use crate::config::policy::AorPattern;
use crate::proto::session::{aor_fits, normal_aor};
use crate::store::query::{Expr, Named, Term, coded, folded, plain_session};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    /// Recordings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ids: Vec<RsId>,
    /// Addresses of anybody named, in normal form; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aors: Vec<String>,
    /// Communication Sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<String>,
    /// Words in names and addresses, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<String>,
    /// Names of `[[peers]]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// It ran at or after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Wall>,
    /// It ran at or before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Wall>,
}

/// A term that means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Of no known kind, or without a value.
    #[error("expected id:, aor:, session:, word: or peer: and a value, found \"{0}\"")]
    Term(String),
    /// A condition of a kind that there is not; held by it, nothing would be.
    #[error(
        "there is no condition \"{0}:\", only id:, aor:, session:, word: and peer:; an address of that scheme \
         is aor:{0}:…"
    )]
    Kind(String),
    /// No id.
    #[error("expected the id of a recording, found \"{0}\"")]
    Id(String),
    /// No address.
    #[error("{0}")]
    Aor(String),
    /// Without any condition it would mean everything.
    #[error("expected at least one condition: everything is meant by aor:* only")]
    Empty,
    /// The times are the wrong way round.
    #[error("expected the first time before the last one")]
    Times,
}

/// What could be the name of a kind, rightly spelt or not.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// The schemes of addresses that SIP is asked for.
fn is_scheme(text: &str) -> bool {
    ["sip", "sips", "tel"].iter().any(|scheme| text.eq_ignore_ascii_case(scheme))
}

impl Query {
    /// Reads terms. One without a kind is a recording's id, an address, or else a word.
    pub fn parse(
        terms: &[String],
        from: Option<Wall>,
        to: Option<Wall>,
    ) -> Result<Query, QueryError> {
        let mut query = Query { from, to, ..Query::default() };
        for term in terms {
            query.add(term)?;
        }
        if query == Query::default() {
            return Err(QueryError::Empty);
        }
        match (from, to) {
            (Some(from), Some(to)) if from > to => Err(QueryError::Times),
            _ => Ok(query),
        }
    }

    fn add(&mut self, term: &str) -> Result<(), QueryError> {
        let (kind, value) = match term.split_once(':') {
            Some((kind @ ("id" | "aor" | "session" | "word" | "peer"), value)) => (kind, value),
            Some((kind, _)) if is_name(kind) && !is_scheme(kind) => {
                return Err(QueryError::Kind(kind.to_owned()));
            }
            // Addresses have a scheme.
            _ if term.parse::<RsId>().is_ok() => ("id", term),
            _ if term.contains(['@', ':', '*']) || term.starts_with('+') => ("aor", term),
            _ => ("word", term),
        };
        let value = value.trim();
        if value.is_empty() {
            return Err(QueryError::Term(term.to_owned()));
        }
        match kind {
            "id" => {
                let id = value.parse().map_err(|_| QueryError::Id(value.to_owned()))?;
                self.ids.push(id);
            }
            "aor" => {
                AorPattern::try_from(value.to_owned()).map_err(QueryError::Aor)?;
                self.aors.push(normal_aor(value));
            }
            "session" => self.sessions.push(value.to_owned()),
            "word" => self.words.push(value.to_lowercase()),
            _ => self.peers.push(value.to_owned()),
        }
        Ok(())
    }

    /// Whether a recording is meant.
    pub fn matches(&self, facts: &Facts) -> bool {
        let any = |none: bool, found: bool| none || found;
        // As the search compares them: what it finds for a case is what a hold of the same words holds.
        let aor = |own: &String| {
            let own = plain(own);
            facts.addresses.iter().any(|one| aor_fits(&own, &plain(one)))
        };
        let word = |own: &String| {
            let own = plain(own);
            facts.words.iter().any(|one| plain(one).contains(&*own))
        };
        let session = |own: &String| facts.sessions.iter().any(|one| same_session(own, one));
        any(self.ids.is_empty(), self.ids.contains(&facts.id))
            && any(self.aors.is_empty(), self.aors.iter().any(aor))
            && any(self.words.is_empty(), self.words.iter().any(word))
            && any(self.sessions.is_empty(), self.sessions.iter().any(session))
            && any(
                self.peers.is_empty(),
                facts.peer.as_ref().is_some_and(|peer| self.peers.contains(peer)),
            )
            && self.to.is_none_or(|to| facts.start <= to)
            && self.from.is_none_or(|from| facts.end.is_none_or(|end| end >= from))
    }

    /// The same in the language of the search. There the aim is one recording of many, so a word is a whole
    /// word unless it is said otherwise; a hold errs on the side of keeping.
    pub fn expr(&self) -> Expr {
        fn any(of: Vec<Term>) -> Option<Expr> {
            (!of.is_empty()).then(|| Expr::Any(of.into_iter().map(Expr::Term).collect()))
        }
        let session = |id: &String| {
            let word = coded(&plain_session(id));
            Term::Session(Named { word, prefix: false })
        };
        let all = [
            any(self.ids.iter().map(|id| Term::Id(*id)).collect()),
            any(self.aors.iter().map(|aor| Term::Aor(folded(aor))).collect()),
            any(self.sessions.iter().map(session).collect()),
            any(self.words.iter().map(|word| Term::Part(folded(word))).collect()),
            any(self.peers.iter().cloned().map(Term::Peer).collect()),
            self.from.map(|from| Expr::Term(Term::From(from))),
            self.to.map(|to| Expr::Term(Term::To(to))),
        ];
        Expr::All(all.into_iter().flatten().collect())
    }

    /// For people: as it may be typed.
    pub fn text(&self) -> String {
        let mut terms: Vec<String> = Vec::new();
        let mut add = |kind: &str, values: Vec<String>| {
            terms.extend(values.iter().map(|value| format!("{kind}{value}")));
        };
        add("id:", self.ids.iter().map(ToString::to_string).collect());
        add("aor:", self.aors.clone());
        add("session:", self.sessions.clone());
        add("word:", self.words.clone());
        add("peer:", self.peers.clone());
        add("--from ", self.from.iter().map(ToString::to_string).collect());
        add("--to ", self.to.iter().map(ToString::to_string).collect());
        terms.join(" ")
    }
}

/// [`folded`]; most texts are, and a store has millions of them to be held against each hold.
fn plain(text: &str) -> Cow<'_, str> {
    match text.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
        true => Cow::Borrowed(text),
        false => Cow::Owned(folded(text)),
    }
}

/// Ids are compared without case and separators: logs write UUIDs in several ways.
fn same_session(one: &str, other: &str) -> bool {
    one == other || folded(&plain_session(one)) == folded(&plain_session(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(terms: &[&str]) -> Result<Query, QueryError> {
        let terms: Vec<String> = terms.iter().map(|&term| term.to_owned()).collect();
        Query::parse(&terms, None, None)
    }

    fn facts() -> Facts {
        Facts {
            id: RsId([4; 16]),
            start: Wall(100),
            end: Some(Wall(200)),
            addresses: vec!["sip:ann@desk.example".to_owned(), "tel:+49301234".to_owned()],
            words: vec!["ann miller".to_owned(), "sip:ann@desk.example".to_owned()],
            sessions: vec!["urn:uuid:0b3e4bba-7ce1-45f8-9a0a-0c2ea4ad3b40".to_owned()],
            peer: Some("sbc-1".to_owned()),
            ..Facts::default()
        }
    }

    #[test]
    fn every_condition_must_be_met_by_one_of_its_values() {
        let meets = |terms: &[&str]| query(terms).expect("terms").matches(&facts());
        assert!(
            meets(&["sip:*@desk.example"]) && meets(&["aor:+49 30 1234".replace(' ', "").as_str()])
        );
        assert!(meets(&["Miller"]) && meets(&["peer:sbc-1"]) && !meets(&["peer:sbc-2"]));
        assert!(meets(&[&RsId([4; 16]).to_string()]) && !meets(&[&RsId([5; 16]).to_string()]));
        assert!(meets(&["session:0B3E4BBA7CE145F89A0A0C2EA4AD3B40"]));
        assert!(meets(&["aor:bob@x", "aor:ann@desk.example"]), "one address will do");
        assert!(!meets(&["aor:ann@desk.example", "peer:sbc-2"]), "both conditions");
        assert!(meets(&["*"]));
    }

    #[test]
    fn a_name_is_held_however_it_is_spelt_as_the_search_finds_it() {
        let own = Facts {
            addresses: vec!["sip:groß@desk.example".to_owned()],
            words: vec!["jürgen groß".to_owned()],
            ..facts()
        };
        for term in
            ["JURGEN", "Ju\u{308}rgen", "word:GROSS", "sip:GROSS@desk.example", "aor:groß@*"]
        {
            assert!(query(&[term]).expect("a term").matches(&own), "{term}");
        }
        assert!(!query(&["aor:gros@desk.example"]).expect("a term").matches(&own));
    }

    #[test]
    fn times_overlap() {
        let at = |from: Option<i64>, to: Option<i64>| {
            let query = Query::parse(&[], from.map(Wall), to.map(Wall)).expect("times");
            let open = Facts { end: None, ..facts() };
            (query.matches(&facts()), query.matches(&open))
        };
        assert_eq!(at(Some(200), None), (true, true));
        assert_eq!(at(Some(201), None), (false, true), "it may run for ever");
        assert_eq!(at(None, Some(100)), (true, true));
        assert_eq!(at(None, Some(99)), (false, false));
        assert_eq!(Query::parse(&[], Some(Wall(2)), Some(Wall(1))), Err(QueryError::Times));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        assert_eq!(query(&[]), Err(QueryError::Empty));
        assert_eq!(query(&["word:"]), Err(QueryError::Term("word:".to_owned())));
        for kind in ["adr:ann@desk.example", "sesion:0b3e4bba", "ID:1", "xmpp:ann@desk.example"] {
            let name = kind.split(':').next().expect("a kind").to_owned();
            assert_eq!(query(&[kind]), Err(QueryError::Kind(name)), "{kind}");
        }
        for address in ["SIP:ann@desk.example", "aor:xmpp:ann@desk.example", "*:*", "ann@desk:5060"]
        {
            assert!(query(&[address]).is_ok_and(|query| query.aors.len() == 1), "{address}");
        }
        assert_eq!(query(&["id:x"]), Err(QueryError::Id("x".to_owned())));
        assert!(matches!(query(&["aor:a?@x"]), Err(QueryError::Aor(_))));
        let said = query(&["peer:a", "word:B"]).expect("terms");
        assert_eq!(said.text(), "word:b peer:a");
        let json = serde_json::to_string(&said).expect("plain");
        assert_eq!(serde_json::from_str::<Query>(&json).expect("its own"), said);
    }
}
