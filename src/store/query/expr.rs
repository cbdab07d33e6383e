//! A query, understood.

use crate::base::ids::RsId;
use crate::base::time::Wall;

/// What recordings are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// All of these hold; of none: every recording.
    All(Vec<Expr>),
    /// One of these holds; of none: no recording.
    Any(Vec<Expr>),
    /// It does not hold.
    Not(Box<Expr>),
    /// A condition.
    Term(Term),
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Term {
    /// This recording.
    Id(RsId),
    /// These words stand there, one behind the other; `prefix`: the last one may go on.
    Words {
        /// Where.
        field: Field,
        /// As [`super::tokens`] gives them; at least one.
        words: Vec<String>,
        /// The last one may go on.
        prefix: bool,
    },
    /// Somebody whom its metadata names has an address that fits this pattern, in normal form and
    /// [`super::folded`].
    Aor(String),
    /// This stands somewhere in a name, an address or the client's identity; [`super::folded`].
    Part(String),
    /// A Communication Session, by [`super::plain_session`].
    Session(Named),
    /// A line, by [`super::coded`].
    Label(Named),
    /// Its Call-ID, by [`super::coded`].
    Call(Named),
    /// A codec, by [`super::coded`].
    Codec(Named),
    /// Its client has this name in `[[peers]]`.
    Peer(String),
    /// Something is in it.
    Has(Has),
    /// The worst verdict of its streams.
    Verdict(crate::store::catalog::model::Verdict),
    /// Where it stands.
    Is(Is),
    /// It is at least, or at most, so many ns long; that of one that runs is its length by now.
    Duration(Bound, i64),
    /// It ran at or after this.
    From(Wall),
    /// It began at or before this.
    To(Wall),
}

/// A value that is compared as one word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The word.
    pub word: String,
    /// It may go on.
    pub prefix: bool,
}

impl Named {
    /// Whether `word` is meant.
    pub fn fits(&self, word: &str) -> bool {
        if self.prefix { word.starts_with(&self.word) } else { word == self.word }
    }
}

/// Where words are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// In all of these but `Quirk`.
    Any,
    /// Names and addresses.
    Party,
    /// Names.
    Name,
    /// Addresses.
    Aor,
    /// Address, identity and product of the recording client.
    Src,
    /// Extension data, groups, reasons.
    Text,
    /// Oddities.
    Quirk,
}

/// What may be in a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Has {
    /// A loss that nobody wanted.
    Gap,
    /// Digits.
    Dtmf,
    /// A line of real-time text.
    Text,
    /// A line of video.
    Video,
    /// Oddities.
    Quirk,
    /// A pause.
    Pause,
}

/// Where a recording may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Is {
    /// Its RS is up.
    Live,
    /// A hold holds it.
    Held,
    /// Its RS ended by BYE.
    Ended,
    /// Its SRC is gone without one.
    Orphan,
    /// The recorder's own test call.
    Own,
    /// All of it is sealed.
    Sealed,
    /// Nothing of it is left by retention.
    Gone,
}

/// Which side of a length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// So long or longer.
    Least,
    /// So long or shorter.
    Most,
}

impl Expr {
    /// Whether any term of it fits.
    pub fn any(&self, wanted: &dyn Fn(&Term) -> bool) -> bool {
        match self {
            Expr::All(parts) | Expr::Any(parts) => parts.iter().any(|part| part.any(wanted)),
            Expr::Not(part) => part.any(wanted),
            Expr::Term(term) => wanted(term),
        }
    }

    /// Whether it asks what only the records tell: of what runs they are read for it.
    pub fn asks_ledger(&self) -> bool {
        self.any(&|term| match term {
            Term::Has(has) => !matches!(has, Has::Text | Has::Video),
            Term::Verdict(_) | Term::Is(Is::Sealed | Is::Gone) => true,
            Term::Words { field, .. } => *field == Field::Quirk,
            _ => false,
        })
    }

    /// Whether it asks for the recorder's own test calls.
    pub fn asks_own(&self) -> bool {
        self.any(&|term| *term == Term::Is(Is::Own))
    }

    /// The same with each term that `replace` knows put in its place.
    pub fn with(self, replace: &dyn Fn(&Term) -> Option<Expr>) -> Expr {
        let each = |parts: Vec<Expr>| parts.into_iter().map(|part| part.with(replace)).collect();
        match self {
            Expr::All(parts) => Expr::All(each(parts)),
            Expr::Any(parts) => Expr::Any(each(parts)),
            Expr::Not(part) => Expr::Not(Box::new(part.with(replace))),
            Expr::Term(term) => replace(&term).unwrap_or(Expr::Term(term)),
        }
    }
}
