//! The recording policy, as values: which lines of an RS are recorded, and whose names may be kept with
//! them (RFC 7865 §10: an SRS stores no metadata that its policy does not ask for).
//!
//! A rule decides about a line by who sends it, who is in its call, its label, media and codec; the
//! first that fits counts. Who is in the call is what the metadata says: where it says nothing, or
//! cannot be read, no rule that asks for an address fits.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::aor;
use crate::wire::metadata::{Document, Id};

/// The rules, in order.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Whether a line that no rule fits is left out.
    pub listed_only: bool,
    /// The rules.
    pub rules: Vec<SelectionRule>,
}

/// One rule: all conditions that it has must be met, each by one of its values.
#[derive(Clone, Debug, Default)]
pub struct SelectionRule {
    /// Its name in reports.
    pub name: String,
    /// What it decides.
    pub record: bool,
    /// Names of peers.
    pub peers: Option<Vec<String>>,
    /// Patterns as [`super::normal_aor`] makes them.
    pub aors: Option<Vec<String>>,
    /// Labels.
    pub labels: Option<Vec<String>>,
    /// Media of m-lines.
    pub media: Option<Vec<String>>,
    /// Codecs.
    pub codecs: Option<Vec<String>>,
}

/// What a policy asks about an m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LineFacts {
    /// Position in the SDP, 0 first.
    pub index: u16,
    /// `a=label`.
    pub label: Option<String>,
    /// `audio`, `video` or `text`.
    pub media: String,
    /// The codec that is taken.
    pub codec: Option<String>,
}

/// What is decided about a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A rule wants it, or none forbids it.
    Record,
    /// The rule of that name forbids it.
    Forbidden(String),
    /// No rule asks for it.
    Unlisted,
}

impl Verdict {
    /// Whether the line is recorded.
    pub fn records(&self) -> bool {
        *self == Verdict::Record
    }

    /// Why not, in words that name nobody.
    pub fn reason(&self) -> String {
        match self {
            Verdict::Record => "it is recorded".to_owned(),
            Verdict::Forbidden(rule) => format!("rule \"{rule}\""),
            Verdict::Unlisted => "no rule asks for it".to_owned(),
        }
    }
}

impl Selection {
    /// Whether anything may be left out.
    pub fn is_selective(&self) -> bool {
        self.listed_only || self.rules.iter().any(|rule| !rule.record)
    }

    /// Decides about each line. `peer`: the name of who sends it. `people`: what the metadata says by
    /// now.
    pub fn judge(
        &self,
        peer: Option<&str>,
        lines: &[LineFacts],
        people: &People,
    ) -> BTreeMap<u16, Verdict> {
        let judged = lines.iter().map(|line| {
            let call = people.call_on(line.label.as_deref());
            (line.index, self.decide(peer, Some(line), &people.addresses(&call.parties)))
        });
        judged.collect()
    }

    /// `line`: `None` for a call of which there is no line. `addresses`: of all its parties.
    fn decide(
        &self,
        peer: Option<&str>,
        line: Option<&LineFacts>,
        addresses: &[String],
    ) -> Verdict {
        let fits = |rule: &&SelectionRule| rule.fits(peer, line, addresses);
        match self.rules.iter().find(fits) {
            Some(rule) if rule.record => Verdict::Record,
            Some(rule) => Verdict::Forbidden(rule.name.clone()),
            None if self.listed_only => Verdict::Unlisted,
            None => Verdict::Record,
        }
    }
}

impl SelectionRule {
    fn fits(&self, peer: Option<&str>, line: Option<&LineFacts>, addresses: &[String]) -> bool {
        let label = line.and_then(|line| line.label.as_deref());
        let codec = line.and_then(|line| line.codec.as_deref());
        is_met(&self.peers, peer, |own, peer| own == peer)
            && is_met(&self.labels, label, |own, label| own == label)
            && is_met(&self.media, line.map(|line| &*line.media), str::eq_ignore_ascii_case)
            && is_met(&self.codecs, codec, str::eq_ignore_ascii_case)
            && self.aors.as_ref().is_none_or(|patterns| {
                patterns.iter().any(|own| addresses.iter().any(|one| aor::fits(own, one)))
            })
    }
}

/// Whether one of the values, where there are any, is that of the line.
fn is_met(
    wanted: &Option<Vec<String>>,
    found: Option<&str>,
    same: impl Fn(&str, &str) -> bool,
) -> bool {
    let any = |wanted: &Vec<String>| found.is_some_and(|f| wanted.iter().any(|own| same(own, f)));
    wanted.as_ref().is_none_or(any)
}

/// What the metadata of one RS says by now, as far as a policy needs it.
#[derive(Clone, Debug, Default)]
pub struct People {
    /// What holds now, as one complete document.
    state: Document,
    /// There was something that is not known: the RS is of before a restart.
    partial: bool,
    /// Participants and CSs that are on a line, or were: whether their names are hidden.
    participants: BTreeMap<Id, bool>,
    sessions: BTreeMap<Id, bool>,
    /// The same of those that are on none, by the last document.
    off_line: (BTreeMap<Id, bool>, BTreeMap<Id, bool>),
}

/// A call as far as it is on a line: its CSs, and who is in them.
#[derive(Debug, Default)]
struct Call<'d> {
    sessions: BTreeSet<&'d Id>,
    parties: BTreeSet<&'d Id>,
}

impl People {
    /// Those of an RS of which documents came that are not known here.
    pub fn unknown() -> Self {
        People { partial: true, ..People::default() }
    }

    /// Whether something came before that is not known.
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// What holds now.
    pub fn state(&self) -> &Document {
        &self.state
    }

    /// What holds from now on. `whole`: a complete document says so.
    pub fn set_state(&mut self, state: Document, whole: bool) {
        self.state = state;
        self.partial &= !whole;
    }

    /// How many it remembers.
    pub fn known(&self) -> usize {
        self.participants.len() + self.sessions.len()
    }

    /// Remembers nobody but whom the state has. `partial`: nor is that all.
    pub fn lose(&mut self, partial: bool) {
        self.partial |= partial;
        self.forget();
    }

    /// Whether the names of a participant are not to be kept.
    pub fn hides_participant(&self, id: &Id) -> bool {
        let known = self.participants.get(id).or_else(|| self.off_line.0.get(id));
        known.copied().unwrap_or(self.partial)
    }

    /// Whether what identifies a CS is not to be kept.
    pub fn hides_session(&self, id: &Id) -> bool {
        let known = self.sessions.get(id).or_else(|| self.off_line.1.get(id));
        known.copied().unwrap_or(self.partial)
    }

    /// Whether anything is hidden.
    pub fn hides(&self) -> bool {
        let (participants, sessions) = &self.off_line;
        let mut all = [&self.participants, &self.sessions, participants, sessions].into_iter();
        self.partial || all.any(|some| some.values().any(|hidden| *hidden))
    }

    /// Whether a text has an id of somebody hidden that may be an address.
    pub fn mentions_hidden(&self, text: &str) -> bool {
        let (free, idle) = &self.off_line;
        let mut all = [&self.participants, &self.sessions, free, idle].into_iter().flatten();
        all.any(|(id, hidden)| {
            *hidden && !id.is_uuid() && !id.as_str().is_empty() && text.contains(id.as_str())
        })
    }

    /// Forgets who is not in the state any more: behind a complete document, once that is kept.
    pub fn forget(&mut self) {
        let Document { participants, sessions, .. } = &self.state;
        let (free, idle) = &mut self.off_line;
        for known in [&mut self.participants, free] {
            known.retain(|id, _| participants.iter().any(|own| own.id == *id));
        }
        for known in [&mut self.sessions, idle] {
            known.retain(|id, _| sessions.iter().any(|own| own.id == *id));
        }
    }

    /// Sorts whose names may be kept: of those on lines, who is in a call that is recorded. `lines`:
    /// those of the RS, and whether each is recorded. Who is on no line is judged by address and peer
    /// alone, and who has left one stays as he was unless a rule now forbids him.
    pub fn sort(&mut self, selection: &Selection, peer: Option<&str>, lines: &[(LineFacts, bool)]) {
        let (mut participants, mut sessions) = (BTreeMap::new(), BTreeMap::new());
        // A line that is recorded, and of which nothing says whose it is.
        let mut vague = false;
        // Who is in a recorded call and in another one is kept: the order of the two rounds.
        for wanted in [false, true] {
            for (line, _) in lines.iter().filter(|(_, recorded)| *recorded == wanted) {
                let call = self.stated_call(line.label.as_deref());
                vague |= wanted && call.parties.is_empty() && call.sessions.is_empty();
                sessions.extend(call.sessions.into_iter().map(|id| (id.clone(), !wanted)));
                participants.extend(call.parties.into_iter().map(|id| (id.clone(), !wanted)));
            }
        }
        let (mut free, mut idle) = (BTreeMap::new(), BTreeMap::new());
        let decide = |parties: &BTreeSet<&Id>, before: Option<&bool>| {
            let verdict = selection.decide(peer, None, &self.addresses(parties));
            match (before, verdict) {
                (Some(true), _) | (_, Verdict::Forbidden(_)) => true,
                (Some(false), _) | (None, Verdict::Record) => self.partial && before.is_none(),
                (None, Verdict::Unlisted) => self.partial || !vague,
            }
        };
        for session in &self.state.sessions {
            if !sessions.contains_key(&session.id) {
                let members = self.members(&session.id);
                let hidden = decide(&members, self.sessions.get(&session.id));
                idle.insert(session.id.clone(), hidden);
                for id in members.into_iter().filter(|id| !participants.contains_key(*id)) {
                    *free.entry(id.clone()).or_insert(hidden) &= hidden;
                }
            }
        }
        for participant in &self.state.participants {
            let id = &participant.id;
            if !participants.contains_key(id) && !free.contains_key(id) {
                let hidden = decide(&BTreeSet::from([id]), self.participants.get(id));
                free.insert(id.clone(), hidden);
            }
        }
        // Who was on a line and is on none has his place below, or is forbidden now.
        for (id, hidden) in &free {
            self.participants.entry(id.clone()).and_modify(|known| *known |= *hidden);
        }
        for (id, hidden) in &idle {
            self.sessions.entry(id.clone()).and_modify(|known| *known |= *hidden);
        }
        self.off_line = (free, idle);
        self.participants.extend(participants);
        self.sessions.extend(sessions);
    }

    /// The call on the line of that label. Where nothing says which CS it is, all that are there.
    fn call_on(&self, label: Option<&str>) -> Call<'_> {
        let mut call = self.stated_call(label);
        if !call.sessions.is_empty() {
            return call;
        }
        for session in &self.state.sessions {
            call.parties.extend(self.members(&session.id));
        }
        call.parties.extend(self.state.participant_stream.iter().map(|one| &one.participant));
        if call.parties.is_empty() {
            // Whoever is named at all, but for those who have left a line.
            let all = self.state.participants.iter().map(|one| &one.id);
            call.parties.extend(all.filter(|id| !self.participants.contains_key(id)));
        }
        call
    }

    /// The same as far as the metadata says it: the CS that the stream names, and who is on it. A CS
    /// without a stream of its own comes over that of its parties (RFC 8068 §3.5).
    fn stated_call(&self, label: Option<&str>) -> Call<'_> {
        let mut call = Call::default();
        let Some(label) = label else { return call };
        let Document { streams, participant_session, .. } = &self.state;
        for stream in streams.iter().filter(|one| one.label.as_deref() == Some(label)) {
            call.sessions.extend(&stream.session);
            call.parties.extend(self.ends(&stream.id));
        }
        let has_stream = |id: &Id| streams.iter().any(|one| one.session.as_ref() == Some(id));
        let over = participant_session
            .iter()
            .filter(|one| call.parties.contains(&one.participant) && !has_stream(&one.session));
        call.sessions.extend(over.map(|one| &one.session));
        for session in &call.sessions {
            call.parties.extend(self.members(session));
        }
        call
    }

    /// Who sends or receives a stream.
    fn ends(&self, stream: &Id) -> impl Iterator<Item = &Id> {
        let all = self.state.participant_stream.iter();
        let on = all.filter(move |one| one.send.contains(stream) || one.recv.contains(stream));
        on.map(|one| &one.participant)
    }

    /// Who is in a CS: its members, and who is on a stream of it.
    fn members(&self, session: &Id) -> BTreeSet<&Id> {
        let Document { streams, participant_session, .. } = &self.state;
        let stated = participant_session.iter().filter(|one| one.session == *session);
        let mut members: BTreeSet<&Id> = stated.map(|one| &one.participant).collect();
        for stream in streams.iter().filter(|one| one.session.as_ref() == Some(session)) {
            members.extend(self.ends(&stream.id));
        }
        members
    }

    /// All addresses of them, as they are compared.
    fn addresses(&self, parties: &BTreeSet<&Id>) -> Vec<String> {
        let of = self.state.participants.iter().filter(|one| parties.contains(&one.id));
        of.flat_map(|one| &one.names).flat_map(|name| aor::forms(&name.aor)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::metadata::{Root, parse};

    /// Ann and Bob in `c1` on lines 1 and 2, Cid and Dan in `c2` on line 3, Eve in `c3` on none.
    const TWO_CALLS: &str = "<session session_id=\"c1\"/><session session_id=\"c2\"/>\
        <session session_id=\"c3\"/>\
        <participant participant_id=\"ann\"><nameID aor=\"sip:Ann@open.example:5060\"/></participant>\
        <participant participant_id=\"bob\"><nameID aor=\"tel:+49-30-12\"/></participant>\
        <participant participant_id=\"cid\"><nameID aor=\"sips:cid@private.example\"/></participant>\
        <participant participant_id=\"dan\"><nameID aor=\"sip:dan@open.example\"/></participant>\
        <participant participant_id=\"eve\"><nameID aor=\"sip:eve@open.example\"/></participant>\
        <stream stream_id=\"s1\" session_id=\"c1\"><label>1</label></stream>\
        <stream stream_id=\"s2\" session_id=\"c1\"><label>2</label></stream>\
        <stream stream_id=\"s3\" session_id=\"c2\"><label>3</label></stream>\
        <participantsessionassoc participant_id=\"cid\" session_id=\"c2\"/>\
        <participantsessionassoc participant_id=\"dan\" session_id=\"c2\"/>\
        <participantsessionassoc participant_id=\"eve\" session_id=\"c3\"/>\
        <participantstreamassoc participant_id=\"ann\"><send>s1</send></participantstreamassoc>\
        <participantstreamassoc participant_id=\"bob\"><send>s2</send></participantstreamassoc>";

    fn people(inner: &str) -> People {
        let xml =
            format!("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">{inner}</recording>");
        let mut people = People::default();
        match parse(xml.as_bytes(), None) {
            Ok(Root::Recording(document)) => people.set_state(*document, true),
            other => panic!("{other:?}"),
        }
        people
    }

    fn line(index: u16, label: &str) -> LineFacts {
        LineFacts {
            index,
            label: Some(label.to_owned()),
            media: "audio".to_owned(),
            codec: Some("PCMU".to_owned()),
        }
    }

    fn lines() -> Vec<LineFacts> {
        vec![line(0, "1"), line(1, "2"), line(2, "3")]
    }

    fn rule(name: &str, record: bool) -> SelectionRule {
        SelectionRule { name: name.to_owned(), record, ..SelectionRule::default() }
    }

    fn some(values: &[&str]) -> Option<Vec<String>> {
        Some(values.iter().map(|value| (*value).to_owned()).collect())
    }

    fn private() -> Selection {
        let rule =
            SelectionRule { aors: some(&["sip:*@private.example"]), ..rule("private", false) };
        Selection { listed_only: false, rules: vec![rule] }
    }

    /// Which lines are recorded.
    fn recorded(selection: &Selection, peer: Option<&str>, people: &People) -> Vec<bool> {
        selection.judge(peer, &lines(), people).values().map(Verdict::records).collect()
    }

    /// Judges and sorts; whose names are hidden.
    fn hidden(selection: &Selection, people: &mut People) -> Vec<&'static str> {
        let verdicts = selection.judge(None, &lines(), people);
        let sorted: Vec<_> = lines()
            .into_iter()
            .map(|line| {
                let records = verdicts[&line.index].records();
                (line, records)
            })
            .collect();
        people.sort(selection, None, &sorted);
        let of = |id: &&'static str| people.hides_participant(&Id::new(id));
        ["ann", "bob", "cid", "dan", "eve"].into_iter().filter(of).collect()
    }

    #[test]
    fn a_line_is_judged_by_all_who_are_in_its_call() {
        let people = people(TWO_CALLS);
        assert_eq!(recorded(&private(), None, &people), [true, true, false]);
        // Bob only receives nothing and sends line 2; line 1 is of the same call.
        let numbers = SelectionRule { aors: some(&["tel:+49*"]), ..rule("numbers", false) };
        let selection = Selection { listed_only: false, rules: vec![numbers] };
        assert_eq!(recorded(&selection, None, &people), [false, false, true]);
    }

    #[test]
    fn the_first_rule_that_fits_decides_and_all_its_conditions_must_be_met() {
        let people = people(TWO_CALLS);
        let label = SelectionRule {
            labels: some(&["3", "9"]),
            peers: some(&["sbc-1"]),
            media: some(&["AUDIO"]),
            codecs: some(&["pcmu"]),
            ..rule("but this one", true)
        };
        let mut selection = private();
        selection.rules.insert(0, label);
        assert_eq!(recorded(&selection, Some("sbc-1"), &people), [true, true, true]);
        assert_eq!(recorded(&selection, Some("sbc-2"), &people), [true, true, false]);
        assert_eq!(recorded(&selection, None, &people), [true, true, false]);
        selection.rules[0].codecs = some(&["G729"]);
        assert_eq!(recorded(&selection, Some("sbc-1"), &people), [true, true, false]);
    }

    #[test]
    fn listed_records_what_a_rule_asks_for_and_nothing_else() {
        let ann = SelectionRule { aors: some(&["sip:ann@*"]), ..rule("ann", true) };
        let selection = Selection { listed_only: true, rules: vec![ann] };
        let people = people(TWO_CALLS);
        assert_eq!(recorded(&selection, None, &people), [true, true, false]);
        let judged = selection.judge(None, &lines(), &people);
        assert_eq!(judged[&2].reason(), "no rule asks for it");
        // Without metadata nobody is known.
        assert_eq!(recorded(&selection, None, &People::default()), [false, false, false]);
        assert_eq!(recorded(&private(), None, &People::default()), [true, true, true]);
    }

    #[test]
    fn where_the_metadata_ties_a_line_to_no_call_all_that_are_in_it_count() {
        let inner = TWO_CALLS.replace("<label>3</label>", "").replace("<label>2</label>", "");
        let people = people(&inner);
        assert_eq!(recorded(&private(), None, &people), [true, false, false]);
        let bare = "<participant participant_id=\"x\"><nameID aor=\"sip:x@private.example\"/></participant>";
        assert_eq!(recorded(&private(), None, &self::people(bare)), [false, false, false]);
    }

    #[test]
    fn a_mixed_stream_is_judged_by_the_parties_of_every_call_that_it_carries() {
        // RFC 8068 §3.5: the second call has no stream of its own.
        let inner = "<session session_id=\"c1\"/><session session_id=\"c2\"/>\
            <participant participant_id=\"ann\"><nameID aor=\"sip:ann@x\"/></participant>\
            <participant participant_id=\"cid\"><nameID aor=\"sip:cid@private.example\"/></participant>\
            <stream stream_id=\"s1\" session_id=\"c1\"><label>1</label></stream>\
            <participantsessionassoc participant_id=\"ann\" session_id=\"c1\"/>\
            <participantsessionassoc participant_id=\"ann\" session_id=\"c2\"/>\
            <participantsessionassoc participant_id=\"cid\" session_id=\"c2\"/>\
            <participantstreamassoc participant_id=\"ann\"><send>s1</send></participantstreamassoc>";
        assert!(!recorded(&private(), None, &people(inner))[0]);
        // With one of its own it is there alone.
        let own = "<stream stream_id=\"s3\" session_id=\"c2\"><label>3</label></stream>";
        let both = people(&format!("{inner}{own}"));
        assert_eq!(recorded(&private(), None, &both), [true, false, false]);
    }

    #[test]
    fn names_are_kept_of_those_in_a_recorded_call_only() {
        let mut people = people(TWO_CALLS);
        assert_eq!(hidden(&private(), &mut people), ["cid", "dan"]);
        assert!(people.hides_session(&Id::new("c2")) && !people.hides_session(&Id::new("c1")));
        assert!(people.hides());
        assert!(people.mentions_hidden("an unknown participant cid"));
        assert!(!people.mentions_hidden("an unknown participant ann"));
        let ann = SelectionRule { aors: some(&["sip:ann@*"]), ..rule("ann", true) };
        let listed = Selection { listed_only: true, rules: vec![ann] };
        assert_eq!(hidden(&listed, &mut self::people(TWO_CALLS)), ["cid", "dan", "eve"]);
        // Who is on no line is judged by his address.
        let eve = SelectionRule { aors: some(&["sip:eve@*"]), ..rule("eve", false) };
        let selection = Selection { listed_only: false, rules: vec![eve] };
        assert_eq!(hidden(&selection, &mut self::people(TWO_CALLS)), ["eve"]);
        let third = SelectionRule { labels: some(&["3"]), ..rule("third", false) };
        let selection = Selection { listed_only: false, rules: vec![third] };
        assert_eq!(hidden(&selection, &mut self::people(TWO_CALLS)), ["cid", "dan"]);
    }

    #[test]
    fn who_has_left_stays_as_he_was_until_a_complete_document_leaves_him_out() {
        let third = SelectionRule { labels: some(&["3"]), ..rule("third", false) };
        let selection = Selection { listed_only: false, rules: vec![third] };
        let mut people = people(TWO_CALLS);
        assert_eq!(hidden(&selection, &mut people), ["cid", "dan"]);
        // Both calls are over; a partial document names their parties once more.
        let mut after = people.state().clone();
        after.sessions.clear();
        after.participant_session.clear();
        after.participant_stream.clear();
        after.streams.iter_mut().for_each(|stream| stream.session = None);
        people.set_state(after, false);
        assert_eq!(hidden(&selection, &mut people), ["cid", "dan"]);
        people.set_state(Document::default(), true);
        people.forget();
        assert!(!people.hides_participant(&Id::new("cid")), "an id that may be somebody else's");
    }

    #[test]
    fn behind_a_restart_names_are_kept_of_those_only_who_are_known_to_be_recorded() {
        let mut people = People::unknown();
        assert!(people.hides() && people.hides_participant(&Id::new("x")));
        let mut known = self::people(TWO_CALLS).state().clone();
        known.participants.truncate(4);
        people.set_state(known.clone(), false);
        assert_eq!(hidden(&private(), &mut people), ["cid", "dan", "eve"]);
        people.set_state(known, true);
        assert!(!people.is_partial());
    }
}
