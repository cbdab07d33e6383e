//! The recording policy (`[policy]`): who may begin an RS, which of its lines are recorded, and what of
//! its bodies is kept. The rules are `proto/session/selection.rs`'s; here they meet requests, streams
//! and the journal.
//!
//! It is asked at each offer and each document. A line that is new and not wanted gets port 0. One that
//! was begun is paused: media is told in the same job as the rest of the request, so that the answer
//! leaves when it holds, and a refused request takes no pause back. A request without SDP has no answer
//! that could say so: then the SRC hears of it by an offer of ours, as it does of an operator's pause.
//!
//! An INVITE of which nothing is wanted leaves a count by rule and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::actor::Control;
use super::job::{Plan, Purpose};
use super::session::Session;
use crate::base::ids::RsId;
use crate::base::limits::METADATA_NODES_MAX;
use crate::base::time::Wall;
use crate::config::model::{Config, Peer};
use crate::config::policy::{Rest, Sources};
use crate::plane::handoff::frame::Frame;
use crate::plane::retention::{Classes, Facts};
use crate::proto::session::{
    Body, LineFacts, METADATA_TYPE, METADATA_TYPE_OLD, Negotiated, People, Policy, Refusal,
    Selection, SelectionRule, Verdict, WhyRefused, normal_aor,
};
use crate::proto::sip::{IncomingRequest, Reply, Transport};
use crate::store::event::Origin;
use crate::store::evidence::sha256;
use crate::store::journal::entry::{Promise, StreamOpened};
use crate::store::metadata::{Arrival, Model};
use crate::wire::metadata::{self, DataMode, Document, Id, Named, Root};
use crate::wire::multipart::{self, Part};
use crate::wire::sdp;

/// Codecs that only stand beside another one.
const BESIDE: [&str; 7] =
    ["telephone-event", "tone", "CN", "comfort-noise", "red", "rtx", "ulpfec"];

/// What the policy makes of a running RS.
pub(super) struct Choice {
    /// What its metadata says from now on.
    pub(super) people: People,
    /// Lines that rest, and why.
    pub(super) resting: BTreeMap<u16, String>,
    /// Names that were left out before are wanted now, and the document does not say them all.
    pub(super) lacks_names: bool,
    /// It came with a complete document.
    pub(super) complete: bool,
}

/// What is kept of the bodies of one request.
#[derive(Clone, Copy)]
pub(super) struct Veil<'v> {
    people: Option<&'v People>,
    lines: &'v [u16],
    /// Makes the aliases of one RS.
    key: [u8; 32],
}

/// What is counted instead of being logged, by reason.
#[derive(Default)]
pub(super) struct Unwanted {
    fresh: BTreeMap<String, u64>,
    /// Since the start.
    pub(super) total: u64,
}

impl Unwanted {
    /// One more for that reason.
    pub(super) fn count(&mut self, why: String) {
        *self.fresh.entry(why).or_default() += 1;
        self.total += 1;
    }

    /// What came since this was last asked, in words; `None`: nothing.
    pub(super) fn take(&mut self) -> Option<String> {
        let counts = std::mem::take(&mut self.fresh);
        let total: u64 = counts.values().sum();
        let each: Vec<String> =
            counts.iter().map(|(why, count)| format!("{count} by {why}")).collect();
        (total > 0).then(|| format!("{total} not recorded by policy: {}", each.join(", ")))
    }
}

/// The configured rules as they are compared.
pub(super) fn selection(config: &Config) -> Selection {
    let rules = config.policy.rules.iter().map(|rule| SelectionRule {
        name: rule.name.clone(),
        record: rule.record,
        peers: rule.peer.clone(),
        aors: rule
            .aor
            .as_ref()
            .map(|aors| aors.iter().map(|one| normal_aor(one.as_str())).collect()),
        labels: rule.label.clone(),
        media: rule
            .media
            .as_ref()
            .map(|media| media.iter().map(|one| one.name().to_owned()).collect()),
        codecs: rule.codec.clone(),
    });
    Selection { listed_only: config.policy.record == Rest::Listed, rules: rules.collect() }
}

/// The document of a body, if it has one that can be read.
pub(super) fn document(body: &Body) -> Option<Document> {
    match body.root()? {
        Ok(Root::Recording(document)) => Some((**document).clone()),
        _ => None,
    }
}

fn charset(part: &Part) -> Option<String> {
    multipart::parameter(part.header("Content-Type").unwrap_or(""), "charset")
}

/// What holds after `document`. Extensions decide nothing.
fn merged(before: &Document, mut document: Document, method: &str) -> Document {
    document.extensions.clear();
    document.participants.iter_mut().for_each(|one| one.extensions.clear());
    document.sessions.iter_mut().for_each(|one| one.extensions.clear());
    document.streams.iter_mut().for_each(|one| one.extensions.clear());
    let mut model = Model::default();
    // No clock decides here: what the documents say of times is theirs.
    let arrival = |at, method, cseq| Arrival { at: Wall(at), method, cseq };
    if *before != Document::default() {
        let base = Document { datamode: DataMode::Complete, ..before.clone() };
        model.take(&arrival(1, "", 0), base);
    }
    model.take(&arrival(2, method, 1), document);
    model.state()
}

fn rows(document: &Document) -> usize {
    let Document { sessions, participants, streams, .. } = document;
    let Document { participant_session, participant_stream, .. } = document;
    sessions.len()
        + participants.len()
        + streams.len()
        + participant_session.len()
        + participant_stream.len()
}

/// Takes a document into what is known of an RS.
fn learn(people: &mut People, document: Document, method: &str) {
    let whole = document.datamode == DataMode::Complete && method != "BYE";
    let mut state = merged(people.state(), document.clone(), method);
    // Steps without end must not fill memory; what holds by the last one is nearest to the truth.
    let overflows = rows(&state) > METADATA_NODES_MAX || people.known() > METADATA_NODES_MAX;
    if overflows {
        state = merged(&Document::default(), document, method);
    }
    people.set_state(state, whole);
    if overflows {
        people.lose(!whole);
    }
}

/// What the policy asks about a stream that is there.
fn facts(stream: &StreamOpened) -> LineFacts {
    let description = &stream.description;
    let beside = |codec: &str| BESIDE.iter().any(|own| own.eq_ignore_ascii_case(codec));
    let mut codecs = description.formats.iter().map(|format| &format.codec);
    let first = codecs.clone().next();
    LineFacts {
        index: description.line,
        label: description.label.clone(),
        media: description.media.clone(),
        codec: codecs.find(|codec| !beside(codec)).or(first).cloned(),
    }
}

/// Judges the offer of an INVITE: lines that are not wanted are left out of it, and what is left says
/// who is on it. Fails with the reason where nothing is left.
pub(super) fn select(
    selection: &Selection,
    peer: Option<&str>,
    body: &Body,
    negotiated: &mut Negotiated,
) -> Result<People, String> {
    if !selection.is_selective() {
        return Ok(People::unknown());
    }
    let mut people = People::default();
    if let Some(document) = document(body) {
        learn(&mut people, document, "INVITE");
    }
    let lines: Vec<LineFacts> = negotiated.lines.iter().filter_map(|line| line.facts()).collect();
    let verdicts = selection.judge(peer, &lines, &people);
    let unwanted = verdicts.values().find(|verdict| !verdict.records()).map(Verdict::reason);
    for (line, verdict) in verdicts.iter().filter(|(_, verdict)| !verdict.records()) {
        negotiated.leave_out(*line, verdict.reason());
    }
    match unwanted {
        Some(why) if negotiated.accepted().next().is_none() => Err(why),
        _ => {
            let lines: Vec<(LineFacts, bool)> = lines
                .into_iter()
                .map(|line| {
                    let records = verdicts[&line.index].records();
                    (line, records)
                })
                .collect();
            people.sort(selection, peer, &lines);
            Ok(people)
        }
    }
}

/// The lines of an offer that the policy does not want, now or at all.
pub(super) fn unwanted_lines(negotiated: &Negotiated) -> Vec<u16> {
    let unwanted = negotiated
        .lines
        .iter()
        .filter(|line| line.rests || matches!(line.refused(), Some(WhyRefused::Unwanted(_))));
    unwanted.map(|line| line.index).collect()
}

impl<'v> Veil<'v> {
    /// Nothing is left out.
    pub(super) const NONE: Veil<'static> = Veil { people: None, lines: &[], key: [0; 32] };

    /// `lines`: those that are not recorded. `key`: of the RS.
    pub(super) fn of(people: &'v People, lines: &'v [u16], key: [u8; 32]) -> Self {
        Veil { people: (people.hides() || !lines.is_empty()).then_some(people), lines, key }
    }

    /// The bytes of a part as they may be kept.
    pub(super) fn kept(&self, part: &Part) -> Vec<u8> {
        let Some(people) = self.people else { return part.body.clone() };
        let stars = || vec![b'*'; part.body.len()];
        let kind = part.content_type.as_str();
        if kind == "application/sdp" {
            return sdp::veil(&part.body, &|line| self.lines.contains(&line));
        }
        let is_metadata = kind == METADATA_TYPE || kind == METADATA_TYPE_OLD;
        if !is_metadata && !metadata::is_recording(&part.body) {
            // Nobody here knows whom it names.
            return stars();
        }
        let hides = |named: Named<'_>| match named {
            Named::Participant(id) => people.hides_participant(id),
            Named::Session(id) => people.hides_session(id),
        };
        let alias = |id: &Id| {
            let hash = sha256(&[&self.key[..], id.as_str().as_bytes()].concat());
            hash.iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let charset = charset(part);
        metadata::veil(&part.body, charset.as_deref(), &hides, &alias).unwrap_or_else(|_| stars())
    }
}

impl Control {
    /// The rule for a peer at that address, with what its certificate and its password say.
    pub(super) fn rule_of(
        &self,
        peer: IpAddr,
        identity: Option<&str>,
        user: Option<&str>,
    ) -> Option<&Peer> {
        self.config.peer(peer, identity, user)
    }

    /// How long an RS that begins is promised to be kept, by what `body` says of it.
    pub(super) fn promise(
        &self,
        peer: Option<&str>,
        streams: &[StreamOpened],
        body: &Body,
    ) -> Promise {
        let document = document(body).unwrap_or_default();
        let names = document.participants.iter().flat_map(|one| &one.names);
        let addresses: Vec<String> = names.map(|name| name.aor.clone()).collect();
        self.classes.class_of(&Facts::of_new(peer, streams, &addresses))
    }

    /// The name of who sent a request, if the configuration knows it.
    pub(super) fn peer_of(&self, request: &IncomingRequest) -> Option<&str> {
        let IncomingRequest { peer, identity, user, .. } = request;
        self.rule_of(peer.ip(), identity.as_deref(), user.as_deref()).map(|rule| &*rule.name)
    }

    /// The refusal of what must not come this way, or from there. A BYE is never refused: its SRC would
    /// hold the session for over, and we would go on recording.
    pub(super) fn forbidden(&mut self, request: &IncomingRequest) -> Option<Reply> {
        let policy = &self.config.policy;
        let method = request.message.method().unwrap_or("");
        let begins = request.dialog.is_none() && matches!(method, "INVITE" | "OPTIONS");
        if method == "BYE" || method == "ACK" {
            return None;
        }
        let (reason, why) = if self.wants_tls(request)
            && request.transport != Transport::Tls
            && (begins || carries_metadata(request))
        {
            ("secure_signalling", "metadata and new recordings are taken over TLS only")
        } else if policy.sources == Sources::Peers && begins && self.peer_of(request).is_none() {
            ("sources", "recordings are taken from known peers only")
        } else {
            return None;
        };
        self.unwanted.count(format!("policy.{reason}"));
        Some(super::start::of_refusal(Refusal::forbidden(why)))
    }

    /// Whether the metadata of a request that is taken all the same came by a way that the policy
    /// forbids, so that none of it is kept.
    pub(super) fn came_in_clear(&self, request: &IncomingRequest) -> bool {
        self.wants_tls(request) && request.transport != Transport::Tls && carries_metadata(request)
    }

    /// Whether its sender is taken over TLS only.
    fn wants_tls(&self, request: &IncomingRequest) -> bool {
        let IncomingRequest { peer, identity, user, .. } = request;
        let rule = self.rule_of(peer.ip(), identity.as_deref(), user.as_deref());
        let own = rule.and_then(|rule| rule.secure_signalling);
        own.unwrap_or(self.config.policy.secure_signalling)
    }

    /// What is kept of bodies of an RS.
    pub(super) fn veil<'v>(&self, rs: RsId, people: &'v People, lines: &'v [u16]) -> Veil<'v> {
        match self.sessions.get(&rs) {
            Some(session) if self.selection.is_selective() => {
                Veil::of(people, lines, session.alias_key)
            }
            _ => Veil::NONE,
        }
    }

    /// Judges a request of a running RS. `negotiated`: its offer, of which lines are left out or rest;
    /// without one its streams are judged as they are. `None`: the policy wants everything, or there is
    /// nothing new.
    pub(super) fn choose(
        &self,
        rs: RsId,
        request: &IncomingRequest,
        body: &Body,
        negotiated: Option<&mut Negotiated>,
    ) -> Option<Choice> {
        let by = (self.peer_of(request), request.message.method().unwrap_or(""));
        self.choose_by(rs, by, body, negotiated)
    }

    /// The same of what comes from the peer of that name, with a message of that method.
    pub(super) fn choose_by(
        &self,
        rs: RsId,
        (peer, method): (Option<&str>, &str),
        body: &Body,
        negotiated: Option<&mut Negotiated>,
    ) -> Option<Choice> {
        let selection = &self.selection;
        let session = self.sessions.get(&rs)?;
        if !selection.is_selective() {
            return None;
        }
        let document = document(body);
        if document.is_none() && negotiated.is_none() {
            return None;
        }
        let mut people = session.people.clone();
        let complete =
            document.as_ref().is_some_and(|document| document.datamode == DataMode::Complete);
        if let Some(document) = document {
            learn(&mut people, document, method);
        }
        let lines: Vec<LineFacts> = match &negotiated {
            Some(negotiated) => negotiated.lines.iter().filter_map(|line| line.facts()).collect(),
            None => session.streams.iter().map(facts).collect(),
        };
        let verdicts = selection.judge(peer, &lines, &people);
        let mut resting = BTreeMap::new();
        let mut left_out = BTreeMap::new();
        let mut sorted = Vec::new();
        for line in lines {
            let verdict = &verdicts[&line.index];
            let stream = session.stream_on(&line);
            let rests = stream.is_some_and(|stream| stream.barred.is_some());
            // Where something is not known, what was decided while it was stands.
            let wanted = match (verdict, stream) {
                (Verdict::Forbidden(_), _) => false,
                (_, Some(_)) if people.is_partial() => !rests,
                (verdict, _) => verdict.records(),
            };
            if !wanted {
                let why = verdict.reason();
                let list = if stream.is_some() { &mut resting } else { &mut left_out };
                list.insert(line.index, why);
            }
            sorted.push((line, wanted));
        }
        if let Some(negotiated) = negotiated {
            left_out.into_iter().for_each(|(line, why)| negotiated.leave_out(line, why));
            resting.keys().for_each(|line| negotiated.rest(*line));
        }
        people.sort(selection, peer, &sorted);
        let shown = |id| session.people.hides_participant(id) && !people.hides_participant(id);
        let lacks_names = !complete
            && people.state().participants.iter().any(|participant| shown(&participant.id));
        Some(Choice { people, resting, lacks_names, complete })
    }

    /// What is known of an RS, where the policy asks.
    pub(super) fn people_of(&self, rs: RsId) -> Option<People> {
        let session = self.sessions.get(&rs).filter(|_| self.selection.is_selective())?;
        Some(session.people.clone())
    }

    /// What a BYE's document changes about whose names are kept.
    pub(super) fn choose_last(&self, rs: RsId, request: &IncomingRequest) -> Option<People> {
        let mut people = self.people_of(rs)?;
        let session = self.sessions.get(&rs)?;
        let body = Self::body(&request.message, &Policy::default()).ok();
        if let Some(document) = body.as_ref().and_then(document) {
            learn(&mut people, document, "BYE");
            let peer = self.peer_of(request);
            let lines: Vec<LineFacts> = session.streams.iter().map(facts).collect();
            let verdicts = self.selection.judge(peer, &lines, &people);
            let kept = |line: &LineFacts| {
                let forbidden = matches!(verdicts[&line.index], Verdict::Forbidden(_));
                !forbidden && !session.is_barred(line.index)
            };
            let sorted: Vec<(LineFacts, bool)> = lines
                .into_iter()
                .map(|line| {
                    let kept = kept(&line);
                    (line, kept)
                })
                .collect();
            people.sort(&self.selection, peer, &sorted);
        }
        Some(people)
    }

    /// The RS as a request without SDP leaves it.
    pub(super) fn plan_of(&self, rs: RsId, choice: Choice) -> Option<Plan> {
        let session = self.sessions.get(&rs)?;
        let streams: Vec<StreamOpened> = session
            .streams
            .iter()
            .map(|stream| {
                let rests = choice.resting.contains_key(&stream.description.line);
                // In an operator's pause it is not known.
                let sends = stream.barred.unwrap_or(stream.active || session.holding.held);
                StreamOpened {
                    active: sends && !rests && !session.holding.held,
                    barred: rests.then_some(sends),
                    ..stream.clone()
                }
            })
            .collect();
        let mut plan = Plan {
            quirks: told(&session.by_line(), &streams, &choice.resting),
            streams,
            origin: session.origin,
            answer_sdp: session.answer_sdp.clone(),
            people: Some(choice.people),
            lacks_names: choice.lacks_names,
            forgets: choice.complete,
            by_policy: true,
            ..Plan::default()
        };
        let (id, version) = plan.origin;
        let active = |line| {
            let mut streams = plan.streams.iter();
            streams.any(|stream| stream.description.line == line && stream.active)
        };
        let text = super::hold::directed(&plan.answer_sdp, &active, (id, version + 1));
        let before = super::hold::directed(&plan.answer_sdp, &active, (id, version));
        if before != plan.answer_sdp {
            (plan.origin.1, plan.answer_sdp, plan.tells) = (version + 1, text, true);
        }
        Some(plan)
    }

    /// The streams of an RS that is about to refuse a request rest all the same where the policy has
    /// learnt from it what it forbids: that the journal takes nothing, or that another change is under
    /// way, is no reason to record it.
    pub(super) fn rest_at_once(&mut self, rs: RsId, request: &IncomingRequest) {
        let Ok(body) = Self::body(&request.message, &Policy::default()) else { return };
        let Some(choice) = self.choose(rs, request, &body, None) else { return };
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        let mut resting = session.streams.clone();
        resting.retain(|stream| choice.resting.contains_key(&stream.description.line));
        for stream in &mut resting {
            stream.barred.get_or_insert(stream.active || session.holding.held);
            stream.active = false;
        }
        let any = session.bar_as(&resting);
        // What is under way becomes the state, and must not take it back.
        for job in self.jobs.values_mut().filter(|job| job.rs == rs) {
            if let Some(plan) = &mut job.plan {
                bar_as(&mut plan.streams, &resting);
                plan.people = plan.people.take().map(|_| choice.people.clone());
            }
        }
        session.people = choice.people;
        if !any {
            return;
        }
        let session = &self.sessions[&rs];
        let frames = resting
            .iter()
            .filter_map(|stream| session.open_frame(&self.keys, &self.as_asked(rs, stream)))
            .map(|open| Frame::Update { stream: Box::new(open), by: Origin::Srs })
            .collect();
        self.begin(Purpose::Quiet, rs, None, None, frames, Vec::new());
        // Until media agrees.
        self.ask_streams(rs);
    }

    /// The rules are others: what their documents say of RSs that run is not known here where nobody
    /// asked for it before. Their SRCs are asked, one after the other.
    pub(super) fn policy_changed(&mut self) {
        /// The answers of 2,000 come over 40 s and not in one burst.
        const EACH_MS: u64 = 20;
        self.selection = selection(&self.config);
        self.classes = Classes::of(&self.config);
        if !self.selection.is_selective() {
            return;
        }
        let unknown = |session: &&mut Box<Session>| session.people.is_partial();
        let mut at = self.now.mono;
        let mut asked = Vec::new();
        for session in self.sessions.values_mut().filter(unknown) {
            at = at.plus_ms(EACH_MS);
            session.snapshot.ask("the recording policy is another one", at);
            asked.push(session.rs);
        }
        asked.into_iter().for_each(|rs| self.arm_timer(rs));
    }
}

impl Session {
    /// The stream that goes on with a line.
    fn stream_on(&self, line: &LineFacts) -> Option<&StreamOpened> {
        self.streams.iter().find(|stream| {
            let description = &stream.description;
            description.line == line.index && description.media == line.media
        })
    }

    /// Whether the recording policy has that line paused.
    pub(super) fn is_barred(&self, line: u16) -> bool {
        let mut streams = self.streams.iter();
        streams.any(|stream| stream.description.line == line && stream.barred.is_some())
    }

    /// Its streams by m-line.
    pub(super) fn by_line(&self) -> HashMap<u16, StreamOpened> {
        self.streams.iter().map(|one| (one.description.line, one.clone())).collect()
    }

    /// Bars those of its streams that are barred in `streams`. Returns whether any is.
    pub(super) fn bar_as(&mut self, streams: &[StreamOpened]) -> bool {
        bar_as(&mut self.streams, streams)
    }
}

fn bar_as(own: &mut [StreamOpened], streams: &[StreamOpened]) -> bool {
    let mut any = false;
    for own in own {
        let same = |one: &&StreamOpened| one.description.stream == own.description.stream;
        let barred = streams.iter().find(same).and_then(|one| one.barred);
        if barred.is_some() && own.barred.is_none() {
            (own.barred, own.active, any) = (barred, false, true);
        }
    }
    any
}

fn carries_metadata(request: &IncomingRequest) -> bool {
    let body = Control::body(&request.message, &Policy::default());
    body.is_ok_and(|body| body.metadata_part.is_some())
}

/// What changes on lines that were begun, in words.
pub(super) fn told(
    before: &HashMap<u16, StreamOpened>,
    after: &[StreamOpened],
    resting: &BTreeMap<u16, String>,
) -> Vec<String> {
    let words = after.iter().filter_map(|stream| {
        let line = stream.description.line;
        let was = before.get(&line).is_some_and(|before| before.barred.is_some());
        match (was, resting.get(&line)) {
            (false, Some(why)) => Some(format!(
                "m-line {} rests: the recording policy leaves it out: {why}",
                line + 1
            )),
            (true, None) => Some(format!("m-line {} is recorded again", line + 1)),
            _ => None,
        }
    });
    words.collect()
}

/// Lines that the policy does not want at all, in words.
pub(super) fn left_out(negotiated: &Negotiated) -> impl Iterator<Item = String> + '_ {
    negotiated.lines.iter().filter_map(|line| match line.refused()? {
        why @ WhyRefused::Unwanted(_) => {
            Some(format!("m-line {} is not recorded: {why}", line.index + 1))
        }
        _ => None,
    })
}
