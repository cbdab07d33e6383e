//! When something held: spans between moments, each by our clock and, where the SRC gave a time, by
//! the SRC's.

use crate::base::time::Wall;

/// One instant, twice: when we were told, and what the SRC said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Arrival of the document that said so.
    pub arrival: Wall,
    /// The time in the document, as received. `None` where it gave none.
    pub stated: Option<String>,
}

/// From one moment to another, or still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Since.
    pub from: Moment,
    /// Until; `None` while it lasts.
    pub to: Option<Moment>,
}

/// The spans of one thing in the order in which they began; none but the last may still last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spans(Vec<Span>);

/// What a statement did to the spans it was about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stated {
    /// Nothing new.
    Same,
    /// It holds from now on.
    Opened,
    /// It holds no more.
    Closed,
    /// It began once more without having ended: the former span was closed.
    BeganAgain,
    /// It ended and nobody had said that it began.
    EndedUnbegun,
}

impl Spans {
    /// All of them.
    pub fn iter(&self) -> std::slice::Iter<'_, Span> {
        self.0.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it never held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The one that lasts.
    pub fn open(&self) -> Option<&Span> {
        self.0.last().filter(|span| span.to.is_none())
    }

    /// Whether it holds now.
    pub fn is_open(&self) -> bool {
        self.open().is_some()
    }

    /// The newest.
    pub fn last(&self) -> Option<&Span> {
        self.0.last()
    }

    pub(super) fn open_mut(&mut self) -> Option<&mut Span> {
        self.0.last_mut().filter(|span| span.to.is_none())
    }

    /// It holds now. Returns whether that is new.
    pub(super) fn hold(&mut self, at: Wall, stated: Option<&str>) -> bool {
        let new = !self.is_open();
        if new {
            let stated = stated.map(str::to_owned);
            self.0.push(Span { from: Moment { arrival: at, stated }, to: None });
        }
        new
    }

    /// It holds no more. Returns whether that is new.
    pub(super) fn end(&mut self, at: Wall, stated: Option<&str>) -> bool {
        let Some(open) = self.open_mut() else { return false };
        open.to = Some(Moment { arrival: at, stated: stated.map(str::to_owned) });
        true
    }

    /// An association with the times that it states (RFC 7865 §6.4, §6.6): a start opens an interval,
    /// a stop closes the open one, both make a closed one; what was said before changes nothing.
    /// Without times it holds, unless `timeless_is_news` is false and it is known already.
    pub(super) fn state(
        &mut self,
        at: Wall,
        from: Option<&str>,
        to: Option<&str>,
        timeless_is_news: bool,
    ) -> Stated {
        match (from, to) {
            (None, None) if !timeless_is_news && !self.0.is_empty() => Stated::Same,
            (None, None) => opened(self.hold(at, None)),
            (Some(from), None) => self.begin(at, from),
            (None, Some(to)) => self.stop(at, to),
            (Some(from), Some(to)) => self.both(at, from, to),
        }
    }

    fn begin(&mut self, at: Wall, from: &str) -> Stated {
        let Some(open) = self.open_mut() else { return opened(self.hold(at, Some(from))) };
        match &open.from.stated {
            Some(known) if known != from => {
                open.to = Some(Moment { arrival: at, stated: None });
                self.hold(at, Some(from));
                Stated::BeganAgain
            }
            _ => {
                open.from.stated = Some(from.to_owned());
                Stated::Same
            }
        }
    }

    fn stop(&mut self, at: Wall, to: &str) -> Stated {
        if self.end(at, Some(to)) {
            return Stated::Closed;
        }
        let Some(last) = self.0.last_mut() else {
            let unknown = Moment { arrival: at, stated: None };
            let to = Moment { arrival: at, stated: Some(to.to_owned()) };
            self.0.push(Span { from: unknown, to: Some(to) });
            return Stated::EndedUnbegun;
        };
        let end = last.to.as_mut().expect("none is open");
        // Said afterwards: when it ended, by the SRC.
        end.stated.get_or_insert_with(|| to.to_owned());
        Stated::Same
    }

    fn both(&mut self, at: Wall, from: &str, to: &str) -> Stated {
        let stated = |moment: &Moment| moment.stated.as_deref() == Some(from);
        if let Some(known) = self.0.iter_mut().rev().find(|span| stated(&span.from)) {
            let new = known.to.is_none();
            let end = known.to.get_or_insert(Moment { arrival: at, stated: None });
            end.stated.get_or_insert_with(|| to.to_owned());
            return if new { Stated::Closed } else { Stated::Same };
        }
        if let Some(open) = self.open_mut().filter(|open| open.from.stated.is_none()) {
            open.from.stated = Some(from.to_owned());
            self.end(at, Some(to));
            return Stated::Closed;
        }
        let from = Moment { arrival: at, stated: Some(from.to_owned()) };
        let to = Moment { arrival: at, stated: Some(to.to_owned()) };
        // Before the open one: the last of the list is the one that lasts.
        let place = self.0.len() - usize::from(self.is_open());
        self.0.insert(place, Span { from, to: Some(to) });
        Stated::Closed
    }
}

fn opened(new: bool) -> Stated {
    if new { Stated::Opened } else { Stated::Same }
}

/// Values that follow each other, one at a time: labels of a stream, its session, a CS's group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Succession<T>(Vec<(T, Span)>);

impl<T> Default for Succession<T> {
    fn default() -> Self {
        Succession(Vec::new())
    }
}

impl<T: PartialEq> Succession<T> {
    /// All of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, (T, Span)> {
        self.0.iter()
    }

    /// How many there were.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there was never one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The present one.
    pub fn now(&self) -> Option<&T> {
        self.0.last().filter(|(_, span)| span.to.is_none()).map(|(value, _)| value)
    }

    /// From now on it is `value`, or nothing. Returns whether that is a change.
    pub(super) fn set(&mut self, at: Wall, value: Option<T>) -> bool {
        if self.now() == value.as_ref() {
            return false;
        }
        let moment = || Moment { arrival: at, stated: None };
        if let Some((_, span)) = self.0.last_mut() {
            span.to.get_or_insert_with(moment);
        }
        if let Some(value) = value {
            self.0.push((value, Span { from: moment(), to: None }));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(said: &[(Option<&str>, Option<&str>)]) -> (Spans, Vec<Stated>) {
        let mut spans = Spans::default();
        let told = said.iter().enumerate();
        let told = told.map(|(at, (from, to))| spans.state(Wall(at as i64), *from, *to, true));
        let told = told.collect();
        (spans, told)
    }

    /// Arrival and stated time of both ends.
    type Shown<'a> = (i64, Option<&'a str>, Option<(i64, Option<&'a str>)>);

    fn shown(spans: &Spans) -> Vec<Shown<'_>> {
        let end = |to: &'_ Moment| to.arrival.0;
        spans
            .iter()
            .map(|span| {
                let to = span.to.as_ref().map(|to| (end(to), to.stated.as_deref()));
                (span.from.arrival.0, span.from.stated.as_deref(), to)
            })
            .collect()
    }

    #[test]
    fn an_interval_opens_closes_and_opens_again() {
        let (all, told) =
            spans(&[(Some("a"), None), (None, Some("b")), (Some("c"), None), (Some("c"), None)]);
        assert_eq!(shown(&all), [(0, Some("a"), Some((1, Some("b")))), (2, Some("c"), None)]);
        assert_eq!(told, [Stated::Opened, Stated::Closed, Stated::Opened, Stated::Same]);
    }

    #[test]
    fn what_is_said_again_changes_nothing() {
        let (all, told) = spans(&[
            (Some("a"), Some("b")),
            (Some("a"), Some("b")),
            (None, Some("b")),
            (Some("c"), None),
            (Some("a"), Some("b")),
        ]);
        assert_eq!(shown(&all), [(0, Some("a"), Some((0, Some("b")))), (3, Some("c"), None)]);
        assert_eq!(told[1..], [Stated::Same, Stated::Same, Stated::Opened, Stated::Same]);
    }

    #[test]
    fn a_start_or_stop_said_later_completes_the_span_it_belongs_to() {
        let (all, _) = spans(&[(None, None), (Some("a"), None), (Some("a"), Some("b"))]);
        assert_eq!(shown(&all), [(0, Some("a"), Some((2, Some("b"))))]);
        let (all, told) = spans(&[(None, Some("b")), (Some("x"), None), (Some("y"), None)]);
        assert_eq!(told, [Stated::EndedUnbegun, Stated::Opened, Stated::BeganAgain]);
        assert_eq!(shown(&all)[1..], [(1, Some("x"), Some((2, None))), (2, Some("y"), None)]);
    }

    #[test]
    fn an_earlier_interval_told_late_stands_before_the_one_that_lasts() {
        let (all, _) = spans(&[(Some("c"), None), (Some("a"), Some("b"))]);
        assert_eq!(shown(&all), [(1, Some("a"), Some((1, Some("b")))), (0, Some("c"), None)]);
    }

    #[test]
    fn a_succession_has_one_value_at_a_time() {
        let mut labels = Succession::default();
        assert!(labels.set(Wall(1), Some("1")));
        assert!(!labels.set(Wall(2), Some("1")));
        assert!(labels.set(Wall(3), Some("2")));
        assert!(labels.set(Wall(4), None));
        assert!(!labels.set(Wall(5), None));
        assert!(labels.set(Wall(6), Some("1")));
        assert_eq!((labels.len(), labels.now()), (3, Some(&"1")));
        let ends: Vec<_> =
            labels.iter().map(|(_, span)| span.to.as_ref().map(|to| to.arrival.0)).collect();
        assert_eq!(ends, [Some(3), Some(4), None]);
    }
}
