//! What a query means: of one recording, whether it is meant.

use super::expr::{Bound, Expr, Field, Has, Is, Term};
use super::facts::Facts;
use crate::base::time::Wall;
use crate::store::catalog::model::State;
use crate::wire::aor;

impl Expr {
    /// Whether the recording of these facts is meant, at `now`.
    pub fn matches(&self, facts: &Facts, now: Wall) -> bool {
        match self {
            Expr::All(parts) => parts.iter().all(|part| part.matches(facts, now)),
            Expr::Any(parts) => parts.iter().any(|part| part.matches(facts, now)),
            Expr::Not(part) => !part.matches(facts, now),
            Expr::Term(term) => term.matches(facts, now),
        }
    }
}

impl Term {
    fn matches(&self, facts: &Facts, now: Wall) -> bool {
        match self {
            Term::Id(id) => facts.id == *id,
            Term::Words { field, words, prefix } => {
                facts.texts(*field).any(|text| stands_in(text, words, *prefix))
            }
            Term::Aor(pattern) => facts.addresses.iter().any(|one| aor::fits(pattern, one)),
            Term::Part(part) => facts.parts.iter().any(|text| text.contains(part.as_str())),
            Term::Session(named) => facts.sessions.iter().any(|one| named.fits(one)),
            Term::Label(named) => facts.labels.iter().any(|one| named.fits(one)),
            Term::Call(named) => named.fits(&facts.call),
            Term::Codec(named) => facts.codecs.iter().any(|one| named.fits(one)),
            Term::Peer(peer) => facts.peer.as_ref() == Some(peer),
            Term::Has(has) => match has {
                Has::Gap => facts.gap,
                Has::Dtmf => facts.dtmf,
                Has::Text => facts.text_line,
                Has::Video => facts.video_line,
                Has::Quirk => !facts.quirks.is_empty(),
                Has::Pause => facts.pause,
            },
            Term::Verdict(verdict) => facts.verdict == Some(*verdict),
            Term::Is(is) => match is {
                Is::Live => facts.end.is_none(),
                Is::Held => facts.held,
                Is::Ended => facts.end.is_some() && facts.state == State::Ended,
                Is::Orphan => facts.state == State::Orphan,
                Is::Own => facts.own,
                Is::Sealed => facts.sealed,
                Is::Gone => facts.gone,
            },
            Term::Duration(bound, ns) => {
                let length = facts.end.unwrap_or(now).0.saturating_sub(facts.start.0);
                match bound {
                    Bound::Least => length >= *ns,
                    Bound::Most => length <= *ns,
                }
            }
            Term::From(from) => facts.end.is_none_or(|end| end >= *from),
            // An index keeps starts in microseconds.
            Term::To(to) => facts.start.0.div_euclid(1_000) <= to.0.div_euclid(1_000),
        }
    }
}

/// Whether `words` stand in `text` one behind the other.
fn stands_in(text: &[String], words: &[String], prefix: bool) -> bool {
    let Some((last, before)) = words.split_last() else { return false };
    text.windows(words.len()).any(|run| {
        let (end, begin) = run.split_last().expect("as long as words");
        begin == before && if prefix { end.starts_with(last.as_str()) } else { end == last }
    })
}

impl Facts {
    fn texts(&self, field: Field) -> impl Iterator<Item = &Vec<String>> {
        let is = move |wanted: &[Field]| wanted.contains(&field);
        let texts = [
            (&self.names, is(&[Field::Any, Field::Party, Field::Name])),
            (&self.aors, is(&[Field::Any, Field::Party, Field::Aor])),
            (&self.src, is(&[Field::Any, Field::Src])),
            (&self.texts, is(&[Field::Any, Field::Text])),
            (&self.quirks, is(&[Field::Quirk])),
        ];
        texts.into_iter().filter(|(_, wanted)| *wanted).flat_map(|(texts, _)| texts)
    }
}
