//! Who was on which m-line, and when: contributions to a stream, as long as it had that label.

use std::collections::BTreeMap;

use super::model::Model;
use super::past::Direction;
use super::span::{Moment, Span};
use crate::wire::metadata::Id;

/// A participant on a line for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Who.
    pub participant: Id,
    /// By which stream element.
    pub stream: Id,
    /// Which way.
    pub direction: Direction,
    /// Since.
    pub from: Moment,
    /// Until; `None` while it lasts.
    pub to: Option<Moment>,
}

impl Model {
    /// All who were on the line of that label, in order of beginning. By what the metadata says, and
    /// by nothing else: whom it does not name is not in it.
    pub fn on_label(&self, label: &str) -> Vec<Part> {
        let mut labelled: BTreeMap<&Id, Vec<&Span>> = BTreeMap::new();
        for stream in self.streams.iter() {
            for (_, span) in stream.labels.iter().filter(|(own, _)| own == label) {
                labelled.entry(&stream.id).or_default().push(span);
            }
        }
        let mut parts = Vec::new();
        for row in self.contributions.iter() {
            let spans = labelled.get(&row.stream).map(Vec::as_slice).unwrap_or_default();
            let both = spans
                .iter()
                .flat_map(|labelled| row.spans.iter().filter_map(|span| overlap(labelled, span)));
            parts.extend(both.map(|span| Part {
                participant: row.participant.clone(),
                stream: row.stream.clone(),
                direction: row.direction,
                from: span.from,
                to: span.to,
            }));
        }
        parts.sort_by_key(|part| part.from.arrival);
        parts
    }
}

impl Model {
    /// The lines that carried a Communication Session, and when: a stream belongs to a CS if it names
    /// it, or if somebody in the CS is on it. RFC 8068 §3.5 ties a stream of two CSs to the first only.
    pub fn labels_of(&self, session: &Id) -> Vec<(String, Span)> {
        let Some(cs) = self.sessions.get(session) else { return Vec::new() };
        let mut slices: Vec<(&str, Span)> = Vec::new();
        let mut labelled = |stream: &Id, span: &Span| {
            let Some(stream) = self.streams.get(stream) else { return };
            for (label, own) in stream.labels.iter() {
                slices.extend(overlap(own, span).map(|span| (label.as_str(), span)));
            }
        };
        for stream in self.streams.iter() {
            for (_, tied) in stream.sessions.iter().filter(|(own, _)| own == session) {
                for span in cs.spans.iter().filter_map(|span| overlap(tied, span)) {
                    labelled(&stream.id, &span);
                }
            }
        }
        // A stream that has named the session says itself when it is its own: while it names another one
        // (a consultation), the parties of this one are heard in that.
        let speaks_for_itself = |stream: &Id| {
            let row = self.streams.get(stream);
            row.is_some_and(|row| row.sessions.iter().any(|(named, _)| named == session))
        };
        for member in self.memberships.iter().filter(|row| row.session == *session) {
            for place in self.contributions_of(&member.participant) {
                let row = self.contributions.at(place);
                if speaks_for_itself(&row.stream) {
                    continue;
                }
                let both = row.spans.iter().flat_map(|span| {
                    member.spans.iter().filter_map(move |member| overlap(member, span))
                });
                both.for_each(|span| labelled(&row.stream, &span));
            }
        }
        united(slices)
    }
}

/// Slices of one label that touch are one.
fn united(mut slices: Vec<(&str, Span)>) -> Vec<(String, Span)> {
    slices.sort_by(|(one, span), (other, next)| {
        (one, span.from.arrival).cmp(&(other, next.from.arrival))
    });
    let mut united: Vec<(String, Span)> = Vec::new();
    for (label, span) in slices {
        match united.last_mut().filter(|(own, _)| own == label) {
            Some((_, last))
                if last.to.as_ref().is_none_or(|to| to.arrival >= span.from.arrival) =>
            {
                let end = |to: &Option<Moment>| to.as_ref().map(|to| to.arrival);
                let longer = match (end(&last.to), end(&span.to)) {
                    (Some(one), Some(other)) => other > one,
                    (Some(_), None) => true,
                    (None, _) => false,
                };
                if longer {
                    last.to = span.to;
                }
            }
            _ => united.push((label.to_owned(), span)),
        }
    }
    united
}

/// What two spans share; by arrival, since that is the one clock we know. Where both began (or ended)
/// with one document the contribution's moment counts: it may carry the SRC's time.
fn overlap(labelled: &Span, span: &Span) -> Option<Span> {
    let later = labelled.from.arrival > span.from.arrival;
    let from = if later { &labelled.from } else { &span.from }.clone();
    let to = match (&labelled.to, &span.to) {
        (Some(one), Some(other)) if one.arrival < other.arrival => Some(one),
        (Some(_), Some(other)) => Some(other),
        (one, other) => one.as_ref().or(other.as_ref()),
    }
    .cloned();
    // Said and unsaid by one document: it may still tell times of its own.
    let shared = Span { from, to };
    let lasts = shared.to.as_ref().is_none_or(|to| to.arrival > shared.from.arrival);
    let at_once = || shared == *span && labelled.from.arrival == span.from.arrival;
    (lasts || at_once()).then_some(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;

    fn span(from: i64, to: Option<i64>) -> Span {
        let moment = |at| Moment { arrival: Wall(at), stated: None };
        Span { from: moment(from), to: to.map(moment) }
    }

    #[test]
    fn only_what_two_spans_share_counts() {
        assert_eq!(overlap(&span(1, None), &span(2, None)), Some(span(2, None)));
        assert_eq!(overlap(&span(3, Some(9)), &span(2, None)), Some(span(3, Some(9))));
        assert_eq!(overlap(&span(3, Some(9)), &span(4, Some(6))), Some(span(4, Some(6))));
        assert_eq!(overlap(&span(3, Some(4)), &span(4, None)), None);
        assert_eq!(overlap(&span(3, Some(4)), &span(9, Some(12))), None);
    }
}
