//! The control actor: what it holds, where inputs go, and how jobs end.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;

use super::admission::{Admission, RETRY_AFTER_S};
use super::agenda::Agenda;
use super::call::Calling;
use super::effect::{Effect, Grave, Input, NotDurable};
use super::job::{ANSWER_MS, Job, Purpose};
use super::marks::Known;
use super::operator::Outcome;
use super::parked::Parked;
use super::recover::Owed;
use super::requests::outside;
use super::salts::OldSalt;
use super::selection::{Unwanted, selection};
use super::session::{Phase, Session};
use super::settle::{Again, Settling};
use super::slots::Slots;
use crate::base::faults::faulty;
use crate::base::ids::{Generation, RsId, Slot, StreamId};
use crate::base::ports::Entropy;
use crate::base::time::{ClockMap, Mono};
use crate::config::model::Config;
use crate::plane::handoff::frame::{Envelope, Frame, Notice, Refusal};
use crate::plane::retention::Classes;
use crate::proto::session::Selection;
use crate::proto::sip::{self, ClientTxnId, DialogId, Endpoint, EndpointConfig, Reply, TxnId};
use crate::store::archive::LastStream;
use crate::store::event::Origin;
use crate::store::journal::entry::Entry;
use crate::store::journal::keybox::KeyBox;

/// How often a drain is told of.
const DRAIN_TOLD_MS: u64 = 10_000;

/// What control is made from.
pub struct Setup {
    /// The validated configuration.
    pub config: Config,
    /// The port pairs that keeper reserved: RTP addresses by slot.
    pub slots: Vec<(Slot, SocketAddr)>,
    /// Seals keys for the journal.
    pub keys: KeyBox,
    /// Source of keys, salts and ids.
    pub entropy: Box<dyn Entropy>,
    /// Seed of tags and branches.
    pub seed: u64,
}

/// Control: SIP sessions to recordings.
pub struct Control {
    pub(super) config: Config,
    pub(super) sip: Endpoint,
    pub(super) slots: Slots,
    /// Boxed: places in a map are made in dozens, and stay half empty where ids come in order.
    pub(super) sessions: BTreeMap<RsId, Box<Session>>,
    pub(super) dialogs: HashMap<DialogId, RsId>,
    pub(super) admission: Admission,
    pub(super) keys: KeyBox,
    pub(super) entropy: Box<dyn Entropy>,
    pub(super) now: ClockMap,
    pub(super) effects: VecDeque<Effect>,
    /// Next free stream id, and the bound that the journal has reserved.
    pub(super) stream_ids: (StreamId, StreamId),
    pub(super) jobs: BTreeMap<u64, Job>,
    /// Media request → job.
    requests: HashMap<u64, u64>,
    /// Closes that media has not answered, by request.
    closes: HashMap<u64, (Slot, Generation, Origin)>,
    /// Answers to be said again once media is settled.
    pub(super) owed: Vec<Owed>,
    /// What media had no room for, and when to ask again.
    pub(super) again: Vec<(Mono, Again)>,
    pub(super) settling: Settling,
    /// Calls of ours that are not answered, or whose answer is not acknowledged yet.
    pub(super) calling: HashMap<ClientTxnId, Calling>,
    /// Requests that wait for media.
    pub(super) parked: Parked,
    /// Salts of RSs that are over and may have records in no segment yet.
    pub(super) salts: BTreeMap<RsId, OldSalt>,
    /// When they are forgotten, in order.
    pub(super) salts_due: VecDeque<(Mono, RsId)>,
    /// What the store knows of streams that media has yet to take up again.
    pub(super) past: HashMap<StreamId, LastStream>,
    /// Deadlines of session timers.
    pub(super) timers: BTreeSet<(Mono, RsId)>,
    /// Which RS media was asked about, by request (F51).
    pub(super) asked_heard: HashMap<u64, RsId>,
    /// Journal token → job.
    tokens: HashMap<u64, u64>,
    next: u64,
    stopping: bool,
    /// When it is told again what a drain waits for.
    drain_told: Option<Mono>,
    /// Requests in a dialog that were not from the one who made it (F61).
    pub(super) intruders: u64,
    /// Slots of which no media comes, though by the SRC's reports or its metadata it should (F40).
    pub(super) without_media: BTreeSet<(Slot, Generation)>,
    /// Slots on which somebody speaks by the metadata, as media was told.
    pub(super) expected: BTreeSet<(Slot, Generation)>,
    /// Wrong answers to challenges, as far as they are told (F56).
    pub(super) guesses: u64,
    /// What was refused at the edge when that was last told.
    pub(super) told: sip::Tally,
    /// Which lines are recorded.
    pub(super) selection: Selection,
    /// How long what begins is promised to be kept.
    pub(super) classes: Classes,
    /// What the policy has refused since that was last told.
    pub(super) unwanted: Unwanted,
    /// Which RS media was asked about whose keys do not match (F34), by request.
    pub(super) asked_keys: HashMap<u64, RsId>,
    /// Streams that left a running RS and are being closed.
    pub(super) closing: Vec<(RsId, Slot, Generation, StreamId)>,
    /// What is due when.
    pub(super) agenda: Agenda,
    /// How far the logs are durable, as far as was heard.
    pub(super) known: Known,
}

impl Control {
    /// A control without sessions; [`Self::recover`] comes next.
    pub fn new(setup: Setup) -> Self {
        let mut slots = Slots::default();
        for (slot, address) in setup.slots {
            slots.add(slot, &[address]);
        }
        let admission = Admission {
            streams_max: setup.config.media.streams_max as usize,
            ..Admission::default()
        };
        Control {
            sip: Endpoint::new(EndpointConfig {
                seed: setup.seed,
                user_agent: concat!("Floortape/", env!("CARGO_PKG_VERSION")).to_owned(),
                message_bytes_max: setup.config.sip.max_message_bytes,
                streams_for_large: true,
                retry_after_s: RETRY_AFTER_S,
                outside: outside(&setup.config.sip),
                ..EndpointConfig::default()
            }),
            selection: selection(&setup.config),
            classes: Classes::of(&setup.config),
            unwanted: Unwanted::default(),
            config: setup.config,
            slots,
            sessions: BTreeMap::new(),
            dialogs: HashMap::new(),
            admission,
            keys: setup.keys,
            entropy: setup.entropy,
            now: ClockMap::default(),
            effects: VecDeque::new(),
            stream_ids: (StreamId(1), StreamId(1)),
            jobs: BTreeMap::new(),
            requests: HashMap::new(),
            closes: HashMap::new(),
            owed: Vec::new(),
            again: Vec::new(),
            settling: Settling::default(),
            calling: HashMap::new(),
            parked: Parked::default(),
            salts: BTreeMap::new(),
            salts_due: VecDeque::new(),
            past: HashMap::new(),
            timers: BTreeSet::new(),
            asked_heard: HashMap::new(),
            asked_keys: HashMap::new(),
            tokens: HashMap::new(),
            next: 0,
            stopping: false,
            drain_told: None,
            intruders: 0,
            without_media: BTreeSet::new(),
            expected: BTreeSet::new(),
            guesses: 0,
            told: sip::Tally::default(),
            closing: Vec::new(),
            agenda: Agenda::default(),
            known: Known::default(),
        }
    }

    /// Takes one input. `now` is when it was seen.
    pub fn handle(&mut self, now: ClockMap, input: Input<'_>) {
        self.now = now;
        match input {
            Input::Sip(input) => self.sip.handle(now.mono, input),
            Input::Media(envelope) => self.media_says(envelope),
            Input::MediaUp => self.media_up(),
            Input::MediaDown => self.media_down(),
            Input::Persisted { token, error } => self.persisted(token, error),
            Input::JournalWorks => self.journal_works(),
            Input::DiskFree { shortfall } => self.disk_free(shortfall),
            Input::Keeper(frame) => self.keeper_says(frame),
            Input::Digest { key, rules } => self.sip.set_digest(key, rules),
            Input::LookedBack(seen) => self.looked_back(seen),
            Input::Asked(asked) => self.asked(asked),
        }
        self.signalling();
        self.watch_guesses();
        self.expire();
        // What just expired was answered: let the answers out.
        self.signalling();
        self.report_drained();
        self.tell_drain();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Input::Sip`] with a tick is due.
    pub fn next_timeout(&self) -> Option<Mono> {
        let again = self.again.iter().map(|(at, _)| *at).min();
        let timers = self.timers.first().map(|(at, _)| *at);
        let (parked, agenda) = (self.parked.next_timeout(), self.agenda.next_timeout());
        let all = [self.sip.next_timeout(), agenda, again, timers, parked, self.next_ring()];
        all.into_iter().chain([self.drain_told]).flatten().min()
    }

    /// Streams that are recorded, or still resting.
    pub fn streams_used(&self) -> usize {
        self.slots.used()
    }

    /// RSs that are up.
    pub fn live(&self) -> usize {
        self.sessions
            .values()
            .filter(|session| matches!(session.phase, Phase::Starting | Phase::Live))
            .count()
    }

    /// Whether media has been told of every stream that goes on, so that a call would be recorded.
    pub fn is_settled(&self) -> bool {
        self.settling.is_done()
    }

    /// Whether keeper's stop is carried out: every RS has ended and the journal knows.
    pub fn is_over(&self) -> bool {
        self.stopping && self.sessions.is_empty() && self.jobs.is_empty()
    }

    fn signalling(&mut self) {
        while let Some(output) = self.sip.poll() {
            match output {
                sip::Output::Transmit { target, bytes } => {
                    self.effects.push_back(Effect::Transmit { target, bytes });
                }
                sip::Output::Disconnect { conn } => {
                    self.effects.push_back(Effect::Disconnect { conn });
                }
                sip::Output::Request(request) => self.requested(request),
                sip::Output::Cancelled { txn } => self.cancelled(txn),
                sip::Output::AckMissing { dialog } => self.ack_missing(dialog),
                sip::Output::AckUnknown { dialog } => self.ack_unknown(dialog),
                sip::Output::Intruder { dialog, method, peer, identity } => {
                    self.intruded(dialog, &method, peer, identity.as_deref());
                }
                sip::Output::Response { request, dialog, message } => {
                    self.responded(request, dialog, &message);
                }
                sip::Output::RequestFailed { request, dialog, why } => {
                    self.unanswered(request, dialog, why);
                }
                sip::Output::Acked { dialog, .. } => self.acked(dialog),
            }
        }
    }

    /// F56: wrong passwords are told, at powers of two: whoever guesses decides how often.
    fn watch_guesses(&mut self) {
        let failures = self.sip.digest_failures();
        if failures > self.guesses && (failures.is_power_of_two() || self.guesses == 0) {
            let text = format!("security: a digest answer was wrong; {failures} so far");
            self.log(Grave::Warn, text);
        }
        self.guesses = failures;
        self.effects.extend(self.sip.take_guessing().into_iter().map(Effect::Guessing));
    }

    /// F61: BYE or re-INVITE from somebody else. It has got 403; the recording goes on.
    fn intruded(
        &mut self,
        dialog: DialogId,
        method: &str,
        peer: SocketAddr,
        identity: Option<&str>,
    ) {
        self.intruders += 1;
        // Told at powers of two: whoever does it decides how often.
        if !self.intruders.is_power_of_two() {
            return;
        }
        let owner = self.sip.snapshot(dialog).and_then(|dialog| dialog.identity);
        let of = |name: Option<&str>| name.unwrap_or("nobody known").to_owned();
        let rs = self.dialogs.get(&dialog).map_or("a dialog".to_owned(), ToString::to_string);
        let text = format!(
            "security: {method} in {rs} from {peer} ({}) refused, it belongs to {}; {} so far",
            of(identity),
            of(owner.as_deref()),
            self.intruders
        );
        self.log(Grave::Warn, text);
    }

    fn keeper_says(&mut self, frame: Frame) {
        match frame {
            Frame::Drain => {
                self.admission.draining = true;
                self.unpark();
            }
            Frame::Stop => {
                self.admission.draining = true;
                self.stopping = true;
                self.unpark();
                self.end_all("recorder is being stopped");
            }
            Frame::Reload { config } => match serde_json::from_str::<Config>(&config) {
                Ok(config) => {
                    self.admission.streams_max = config.media.streams_max as usize;
                    self.sip.set_outside(outside(&config.sip));
                    self.config = config;
                    self.policy_changed();
                    self.log(Grave::Info, "configuration reloaded".to_owned());
                }
                Err(error) => self.log(Grave::Error, format!("configuration not taken: {error}")),
            },
            _ => {}
        }
    }

    fn report_drained(&mut self) {
        let waiting = self.stopping || self.admission.draining;
        if waiting && self.sessions.is_empty() && self.jobs.is_empty() {
            self.admission.draining = true;
            if !std::mem::replace(&mut self.admission.drained, true) {
                self.effects.push_back(Effect::Keeper(Frame::Drained));
            }
        }
    }

    /// An operator who waits for the end sees what for: at the beginning of a drain, and again and
    /// again.
    fn tell_drain(&mut self) {
        let up = |session: &&Session| matches!(session.phase, Phase::Starting | Phase::Live);
        let all = self.sessions.values().map(|session| &**session);
        let oldest = all.filter(up).min_by_key(|session| session.since);
        let Some(oldest) = oldest.filter(|_| self.admission.draining && !self.stopping) else {
            self.drain_told = None;
            return;
        };
        let (rs, since, now) = (oldest.rs, oldest.since, self.now.mono);
        if self.drain_told.is_none_or(|due| due <= now) {
            self.drain_told = Some(now.plus_ms(DRAIN_TOLD_MS));
            let live = self.live();
            let text = format!(
                "draining: new RSs get 503; {live} running, the oldest is {rs} since {since}"
            );
            self.log(Grave::Info, text);
        }
    }

    fn disk_free(&mut self, shortfall: Option<String>) {
        if shortfall.is_some() != self.admission.disk_shortfall.is_some() {
            match &shortfall {
                Some(why) => {
                    self.log(Grave::Error, format!("new recordings are refused: {why}"));
                }
                None => self.log(Grave::Info, "the disk has room again".to_owned()),
            }
        }
        self.admission.disk_shortfall = shortfall;
    }

    fn media_says(&mut self, envelope: Envelope) {
        let Envelope { id, frame, .. } = envelope;
        match frame {
            Frame::Opened { slot, generation, applied } => {
                if self.settled(id, Ok((slot, generation, applied))) {
                    return;
                }
                self.answered(id, None, Some((slot, generation, applied)));
            }
            Frame::Held { slots, last } => self.held(id, slots, last),
            Frame::Refused { why, .. } => {
                if self.settled(id, Err(&why)) {
                    return;
                }
                self.close_refused(id, &why);
                self.answered(id, Some(why.to_string()), None);
            }
            Frame::Closed { slot, generation, through, .. } => {
                self.closes.remove(&id);
                self.without_media.remove(&(slot, generation));
                self.answered(id, None, None);
                self.stream_closed(slot, generation, Some(through));
            }
            Frame::Done => self.answered(id, None, None),
            Frame::HeardAt { slots } => self.heard(id, &slots),
            Frame::Stats(stats) => {
                self.mark(&stats);
                self.tell_calls();
                self.end_unrecordable(&stats);
                for worker in stats {
                    match worker.disk_error {
                        Some(error) => self.admission.log_errors.insert(worker.worker, error),
                        None => self.admission.log_errors.remove(&worker.worker),
                    };
                }
            }
            Frame::Notice(notice) => self.noticed(notice),
            _ => {}
        }
    }

    fn noticed(&mut self, notice: Notice) {
        match notice {
            Notice::Sealed { worker, file, .. } => {
                self.mark_sealed(worker, &file);
                self.effects.push_back(Effect::Sealed);
            }
            Notice::Disk { worker, error: Some(error), .. } => {
                self.log(Grave::Error, format!("log of worker {}: {error}", worker.0));
                self.admission.log_errors.insert(worker, error);
            }
            Notice::Disk { worker, error: None, warning } => {
                self.admission.log_errors.remove(&worker);
                let (grave, text) = match warning {
                    Some(warning) => (Grave::Error, warning),
                    None => (Grave::Info, "well again".to_owned()),
                };
                self.log(grave, format!("disk of worker {}: {text}", worker.0));
            }
            Notice::AuthFailing { slot, generation } => {
                self.keys_fail(slot, generation);
                if let Some((rs, label)) = self.of_slot(slot) {
                    let text = format!(
                        "alarm: {rs} stream {label}: nothing verifies: its keys do not match, or its \
                         media is not encrypted"
                    );
                    self.log(Grave::Error, text);
                }
            }
            Notice::NoMedia { slot, generation, missing } => {
                if let Some((rs, label)) = self.of_slot(slot) {
                    self.without_media.insert((slot, generation));
                    let text = format!(
                        "alarm: {rs} stream {label}: no media comes, and by the SRC's own reports {missing} \
                         packets were sent"
                    );
                    self.log(Grave::Error, text);
                }
            }
            Notice::NobodyHeard { slot, generation } => {
                if let Some((rs, label)) = self.of_slot(slot) {
                    self.without_media.insert((slot, generation));
                    let text = format!(
                        "alarm: {rs} stream {label}: no media comes, and by its metadata somebody speaks \
                         there in a call that goes on"
                    );
                    self.log(Grave::Error, text);
                }
            }
            Notice::MediaBack { slot, generation, comes } => {
                if self.without_media.remove(&(slot, generation))
                    && comes
                    && let Some((rs, label)) = self.of_slot(slot)
                {
                    self.log(Grave::Info, format!("{rs} stream {label}: media comes again"));
                }
            }
            Notice::PayloadType { slot, payload_type } => {
                if let Some((rs, label)) = self.of_slot(slot) {
                    let text = format!(
                        "{rs} stream {label}: payload type {payload_type} was not offered; it is kept as it \
                         comes"
                    );
                    self.log(Grave::Warn, text);
                }
            }
            Notice::Source { .. } => {}
        }
    }

    fn of_slot(&self, slot: Slot) -> Option<(RsId, String)> {
        self.sessions.values().find_map(|session| {
            let stream = session.streams.iter().find(|s| s.description.slot == slot)?;
            let label = stream.description.label.clone().unwrap_or_default();
            Some((session.rs, label))
        })
    }

    // Jobs.

    pub(super) fn log(&mut self, grave: Grave, text: String) {
        self.effects.push_back(Effect::Log { grave, text });
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Begins a job; `frames` go to media, `entries` to the journal.
    pub(super) fn begin(
        &mut self,
        purpose: Purpose,
        rs: RsId,
        txn: Option<TxnId>,
        reply: Option<Reply>,
        frames: Vec<Frame>,
        entries: Vec<Entry>,
    ) {
        let number = self.number();
        let mut media = HashSet::new();
        for frame in frames {
            let id = self.number();
            media.insert(id);
            self.requests.insert(id, number);
            if let Frame::Close { slot, generation, by } = &frame {
                self.closes.insert(id, (*slot, *generation, *by));
            }
            self.effects.push_back(Effect::Media(Envelope { id, fds: 0, frame }));
        }
        let journal = (!entries.is_empty()).then(|| self.number());
        if let Some(token) = journal {
            self.tokens.insert(token, number);
            self.admission.journal_waits = self.tokens.len();
            self.effects.push_back(Effect::Persist { token, entries });
        }
        // The rule of rules: persist before reply.
        let journal = journal.filter(|_| !faulty!("control.reply_before_persist"));
        // For a quiet one nobody waits, and giving it up would forget that it is owed.
        if !matches!(purpose, Purpose::Quiet) {
            self.agenda.job(self.now.mono.plus_ms(ANSWER_MS), number);
        }
        let job = Job {
            purpose,
            rs,
            txn,
            reply,
            media,
            journal,
            refused: None,
            applied: Vec::new(),
            lost: false,
            verb: None,
            plan: None,
            agreed: None,
        };
        self.jobs.insert(number, job);
        self.finish_if_ready(number);
    }

    fn answered(
        &mut self,
        id: u64,
        refused: Option<String>,
        applied: Option<(Slot, Generation, ClockMap)>,
    ) {
        let Some(number) = self.requests.remove(&id) else { return };
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.media.remove(&id);
        job.refused = job.refused.take().or(refused);
        job.applied.extend(applied);
        self.finish_if_ready(number);
    }

    fn persisted(&mut self, token: u64, error: Option<NotDurable>) {
        if let Some(NotDurable::Journal(error)) = &error
            && self.admission.journal_error.is_none()
        {
            // F19: media goes on; nothing new is promised.
            self.log(Grave::Error, format!("journal failed, new recordings are refused: {error}"));
            self.admission.journal_error = Some(error.clone());
        }
        if self.marked(token, error.is_none()) {
            return;
        }
        let Some(number) = self.tokens.remove(&token) else { return };
        self.admission.journal_waits = self.tokens.len();
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.journal = None;
        let why = error.map(|(NotDurable::Entries(why) | NotDurable::Journal(why))| why);
        job.refused = job.refused.take().or(why);
        self.finish_if_ready(number);
    }

    fn journal_works(&mut self) {
        if self.admission.journal_error.take().is_some() {
            self.log(Grave::Info, "the journal works again: recordings are taken".to_owned());
        }
    }

    /// Media's successor has taken up a stream of `rs`, and with the last one all that a job for it
    /// asks of media: streams are taken up as the job has them. One that adds streams waits in vain,
    /// for those are in no RS yet.
    pub(super) fn retaken(
        &mut self,
        rs: RsId,
        applied: (Slot, Generation, ClockMap),
        is_last: bool,
    ) {
        let waits = |job: &Job| {
            let adds = job.plan.as_ref().is_some_and(|plan| !plan.opened.is_empty());
            job.rs == rs && job.lost && !adds
        };
        let Some((number, job)) = self.jobs.iter_mut().find(|(_, job)| waits(job)) else { return };
        let number = *number;
        job.applied.push(applied);
        if is_last {
            job.lost = false;
            self.finish_if_ready(number);
        }
    }

    fn finish_if_ready(&mut self, number: u64) {
        if self.jobs.get(&number).is_some_and(Job::is_ready)
            && let Some(job) = self.jobs.remove(&number)
        {
            self.finish(job);
        }
    }

    pub(super) fn finish(&mut self, job: Job) {
        let outcome = job.refused.clone().map_or(Outcome::Done, Outcome::Failed);
        if let Some(verb) = job.verb {
            self.outcome(verb, outcome);
        }
        match job.purpose {
            Purpose::Start => self.finish_start(job),
            Purpose::Change => self.finish_change(job),
            Purpose::Answer => self.finish_answer(job),
            Purpose::Refusal => {
                if let (Some(txn), Some(reply)) = (job.txn, job.reply) {
                    self.reply(txn, reply);
                }
            }
            Purpose::Hold => self.finish_hold(job),
            Purpose::Called(request) => self.finish_called(request, job),
            Purpose::Renewed(request) => self.finish_renewed(request, job),
            Purpose::End => self.finish_end(job),
            Purpose::Bye(dialog, why) => self.say_bye(dialog, &why),
            Purpose::Quiet => {}
        }
    }

    /// Refuses a request whose acceptance the journal may hold already: `entry` takes that back, and
    /// the refusal leaves when it is durable, for a successor must not do what was refused. A journal
    /// that fails or hangs holds it up no further.
    pub(super) fn refuse_late(&mut self, rs: RsId, txn: TxnId, refusal: Reply, entry: Entry) {
        if self.admission.journal_error.is_some() {
            self.begin(Purpose::Quiet, rs, None, None, Vec::new(), vec![entry]);
            return self.reply(txn, refusal);
        }
        self.begin(Purpose::Refusal, rs, Some(txn), Some(refusal), Vec::new(), vec![entry]);
    }

    fn expire(&mut self) {
        self.expire_jobs();
        self.run_sessions();
        self.expire_parked();
        self.cancel_calls();
        self.ask_again();
        self.run_timers();
        self.forget_salts(None);
    }

    /// A slot returns only when media has let go of it. What media does not know of it has let go
    /// of, or never held (its open was refused); a full ring or queue is asked again.
    fn close_refused(&mut self, id: u64, why: &Refusal) {
        let Some(close) = self.closes.remove(&id) else { return };
        match why {
            Refusal::Stale | Refusal::NoSlot => self.stream_closed(close.0, close.1, None),
            _ => self.close_again(close),
        }
    }

    /// Ends the job that would start `rs`, if there is one.
    pub(super) fn refuse_start(&mut self, rs: RsId, why: &str) {
        let calls = |job: &Job| job.rs == rs && matches!(job.purpose, Purpose::Called(_));
        let number = self.jobs.iter().find(|(_, job)| calls(job)).map(|(number, _)| *number);
        if let Some(job) = number.and_then(|number| self.jobs.get_mut(&number)) {
            job.refused = Some(why.to_owned());
        }
        if let Some(number) = number {
            return self.finish_if_ready(number);
        }
        let starts = |job: &Job| job.rs == rs && matches!(job.purpose, Purpose::Start);
        let txn = self.jobs.values().find(|job| starts(job)).and_then(|job| job.txn);
        if let Some(txn) = txn {
            self.refuse_job(txn, why);
        }
    }

    /// The job that an INVITE waits for.
    pub(super) fn job_of(&mut self, txn: TxnId) -> Option<&mut Job> {
        self.jobs.values_mut().find(|job| job.txn == Some(txn))
    }

    /// Ends a job early: its INVITE was cancelled.
    pub(super) fn refuse_job(&mut self, txn: TxnId, why: &str) {
        let number = self.jobs.iter().find(|(_, job)| job.txn == Some(txn)).map(|(n, _)| *n);
        if let Some(number) = number {
            if let Some(job) = self.jobs.get_mut(&number) {
                job.refused = Some(why.to_owned());
            }
            self.finish_if_ready(number);
        }
    }

    /// Jobs under way.
    #[cfg(test)]
    pub(super) fn job_count(&self) -> usize {
        self.jobs.len()
    }

    /// Whether a job that changes this RS is still under way.
    pub(super) fn is_busy(&self, rs: RsId) -> bool {
        let open = |session: &Session| session.holding.is_open() || session.renewal.is_open();
        let offers = self.sessions.get(&rs).is_some_and(|session| open(session));
        offers || self.is_changing(rs)
    }

    /// The same, but for an offer of ours that has no answer yet.
    pub(super) fn is_changing(&self, rs: RsId) -> bool {
        let changes = |job: &Job| match job.purpose {
            Purpose::Hold | Purpose::Change | Purpose::Called(_) | Purpose::Renewed(_) => true,
            Purpose::Answer => false,
            _ => job.txn.is_some(),
        };
        self.parked.holds(rs) || self.jobs.values().any(|job| job.rs == rs && changes(job))
    }

    fn media_down(&mut self) {
        self.admission.media_up = false;
        // Its successor will say it again.
        self.without_media.clear();
        self.unsettle();
        self.log(Grave::Warn, "media went away; its successor is being started".to_owned());
        self.forget_asked();
    }

    /// The link to media is another one: its successor gets everything again. Who waits for an answer
    /// of media has it when the streams are taken by the successor ([`Self::retaken`]), or gets 503
    /// in time.
    pub(super) fn forget_asked(&mut self) {
        self.requests.clear();
        self.asked_heard.clear();
        self.asked_keys.clear();
        self.expected.clear();
        self.closes.clear();
        self.again.clear();
        for job in self.jobs.values_mut().filter(|job| !job.media.is_empty()) {
            job.lost |= job.purpose.is_of_streams();
            job.media.clear();
        }
        self.jobs.retain(|_, job| !matches!(job.purpose, Purpose::Quiet) || !job.is_ready());
    }
}
