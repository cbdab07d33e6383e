//! Control as a black box: datagrams, frames and journal answers in; what leaves is judged.

use std::net::SocketAddr;

use super::admission::JOURNAL_WAITS_MAX;
use super::lines::Fit;
use super::{Control, Effect, Input, NotDurable, Outcome, Setup};
use crate::base::family::Family;
use crate::base::ids::{Generation, Position, Slot};
use crate::base::prng::{Prng, Seeded};
use crate::base::time::{ClockMap, Mono, Wall};
use crate::config::model::Config;
use crate::plane::handoff::frame::{Envelope, Frame, HeldSlot, OpenStream, Refusal};
use crate::proto::sip;
use crate::store::archive::{LastSeen, Sought};
use crate::store::journal::Standings;
use crate::store::journal::entry::{Entry, StreamOpened};
use crate::store::journal::keybox::KeyBox;
use crate::wire::sip::{Message, parse_datagram};

const PEER: &str = "192.0.2.10:5060";
const LOCAL: &str = "127.0.0.1:5060";
/// Where the slots of [`Bench`] lie.
pub(super) const HOME: Fit =
    Fit { family: Family::V4, near: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST) };

/// Control between a scripted SRC, a scripted media and a scripted journal.
pub(super) struct Bench {
    pub(super) control: Control,
    pub(super) now: Mono,
    pub(super) sent: Vec<Message>,
    pub(super) media: Vec<Envelope>,
    pub(super) jobs: Vec<(u64, Vec<Entry>)>,
    pub(super) journal: Vec<Entry>,
    pub(super) keeper: Vec<Frame>,
    pub(super) sought: Vec<Sought>,
    pub(super) log: Vec<String>,
    pub(super) outcomes: Vec<(u64, Outcome)>,
}

impl Bench {
    pub(super) fn new(streams_max: u32, seed: u64) -> Self {
        let mut config = Config::default();
        config.media.streams_max = streams_max;
        let slots = (0..8)
            .map(|n| (Slot(n), SocketAddr::from(([127, 0, 0, 1], 20_000 + 2 * n as u16))))
            .collect();
        Self::of(config, slots, seed)
    }

    pub(super) fn of(config: Config, slots: Vec<(Slot, SocketAddr)>, seed: u64) -> Self {
        let control = Control::new(Setup {
            config,
            slots,
            keys: KeyBox::new(&[7; 32]).expect("32 bytes"),
            entropy: Box::new(Seeded::new(seed)),
            seed,
        });
        let (sent, media, jobs) = (Vec::new(), Vec::new(), Vec::new());
        let (journal, keeper, sought, log) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let now = Mono(1_000_000_000);
        let outcomes = Vec::new();
        Bench { control, now, sent, media, jobs, journal, keeper, sought, log, outcomes }
    }

    pub(super) fn up(streams_max: u32) -> Self {
        let mut bench = Bench::new(streams_max, 1);
        bench.input(Input::MediaUp);
        bench.media_agrees();
        bench.media.clear();
        bench
    }

    /// Media says what it holds.
    pub(super) fn media_holds(&mut self, slots: &[HeldSlot]) {
        let asked = self.media.iter().position(|asked| matches!(asked.frame, Frame::Holding));
        let id = self.media.remove(asked.expect("control asks what media holds")).id;
        let frame = Frame::Held { slots: slots.to_vec(), last: true };
        self.input(Input::Media(Envelope { id, fds: 0, frame }));
    }

    pub(super) fn clock(&self) -> ClockMap {
        ClockMap { mono: self.now, wall: Wall(self.now.0 as i64) }
    }

    pub(super) fn input(&mut self, input: Input<'_>) {
        self.control.handle(self.clock(), input);
        while let Some(effect) = self.control.poll() {
            match effect {
                Effect::Transmit { bytes, .. } => {
                    self.sent.push(parse_datagram(&bytes).expect("we send whole messages"));
                }
                Effect::Media(envelope) => self.media.push(envelope),
                Effect::Persist { token, entries } => self.jobs.push((token, entries)),
                Effect::Keeper(frame) => self.keeper.push(frame),
                Effect::LookBack(sought) => self.sought.extend(sought),
                Effect::Log { text, .. } => self.log.push(text),
                Effect::Outcome { id, outcome } => self.outcomes.push((id, outcome)),
                Effect::Disconnect { .. } | Effect::Sealed | Effect::Guessing(_) => {}
            }
        }
    }

    pub(super) fn datagram(&mut self, text: &str) {
        self.datagram_at(LOCAL, text);
    }

    /// A datagram that came in on `local`.
    pub(super) fn datagram_at(&mut self, local: &str, text: &str) {
        let peer = PEER.parse().expect("an address");
        let local = local.parse().expect("an address");
        self.input(Input::Sip(sip::Input::Datagram { local, peer, bytes: text.as_bytes() }));
    }

    pub(super) fn tick(&mut self, ms: u64) {
        self.now = self.now.plus_ms(ms);
        self.input(Input::Sip(sip::Input::Tick));
    }

    /// Media says yes to everything it was asked.
    pub(super) fn media_agrees(&mut self) {
        let applied = self.clock();
        for Envelope { id, frame, .. } in std::mem::take(&mut self.media) {
            let answer = match frame {
                Frame::Open(open) => {
                    Frame::Opened { slot: open.slot, generation: open.generation, applied }
                }
                Frame::Resume(past) => {
                    let OpenStream { slot, generation, .. } = past.open;
                    Frame::Opened { slot, generation, applied }
                }
                Frame::Update { stream, .. } => {
                    Frame::Opened { slot: stream.slot, generation: stream.generation, applied }
                }
                Frame::Close { slot, generation, .. } => {
                    Frame::Closed { slot, generation, applied, through: Position(0) }
                }
                Frame::Holding => Frame::Held { slots: Vec::new(), last: true },
                _ => Frame::Done,
            };
            self.input(Input::Media(Envelope { id, fds: 0, frame: answer }));
        }
        if !self.sought.is_empty() {
            self.looks_back(LastSeen::default());
        }
    }

    /// What media holds for this control.
    pub(super) fn held(&self) -> Vec<HeldSlot> {
        let streams = self.control.sessions.values().flat_map(|session| &session.streams);
        let held = |stream: &StreamOpened| HeldSlot {
            slot: stream.description.slot,
            generation: stream.generation,
            stream: stream.description.stream,
            open: true,
        };
        streams.map(held).collect()
    }

    /// The store says what it knows of the streams that control asked about.
    pub(super) fn looks_back(&mut self, seen: LastSeen) {
        self.sought.clear();
        self.input(Input::LookedBack(Ok(seen)));
    }

    /// The journal makes everything durable.
    pub(super) fn journal_syncs(&mut self) {
        while !self.jobs.is_empty() {
            let (token, entries) = self.jobs.remove(0);
            self.journal.extend(entries);
            self.input(Input::Persisted { token, error: None });
        }
    }

    /// Everything gets its answer, then the grace time of a BYE passes, twice.
    pub(super) fn settles(&mut self) {
        for _ in 0..2 {
            while !(self.media.is_empty() && self.jobs.is_empty()) {
                self.media_agrees();
                self.journal_syncs();
            }
            self.tick(1_000);
        }
        while !(self.media.is_empty() && self.jobs.is_empty()) {
            self.media_agrees();
            self.journal_syncs();
        }
    }

    /// Our tags in the answers to a call.
    pub(super) fn tags_of(&self, call: &str) -> Vec<String> {
        let accepted = |message: &&Message| {
            message.code() == Some(200)
                && message.call_id() == Some(call)
                && !message.body.is_empty()
        };
        let mut tags: Vec<String> = self
            .sent
            .iter()
            .filter(accepted)
            .filter_map(|message| message.to()?.tag().map(str::to_owned))
            .collect();
        tags.dedup();
        tags
    }

    pub(super) fn tag_of(&self, call: &str) -> String {
        self.tags_of(call).pop().unwrap_or_default()
    }

    pub(super) fn nothing_is_left(&self) {
        assert_eq!(self.control.slots.used(), 0, "slots");
        assert_eq!(self.control.job_count(), 0, "jobs");
        assert!(self.control.sessions.is_empty() && self.control.closing.is_empty());
        assert!(self.control.dialogs.is_empty());
    }

    /// Media refuses everything that it was asked.
    pub(super) fn media_refuses(&mut self, why: Refusal) {
        for Envelope { id, frame, .. } in std::mem::take(&mut self.media) {
            let (slot, generation) = match frame {
                Frame::Open(open) => (open.slot, open.generation),
                Frame::Resume(past) => (past.open.slot, past.open.generation),
                Frame::Update { stream, .. } => (stream.slot, stream.generation),
                Frame::Close { slot, generation, .. } => (slot, generation),
                Frame::Holding => (Slot(0), Generation(0)),
                _ => continue,
            };
            let frame = Frame::Refused { slot, generation, why };
            self.input(Input::Media(Envelope { id, fds: 0, frame }));
        }
    }

    /// Status codes of what was sent, 100 left out.
    pub(super) fn codes(&self) -> Vec<u16> {
        self.sent.iter().filter_map(Message::code).filter(|code| *code > 100).collect()
    }

    pub(super) fn last(&self) -> &Message {
        self.sent.last().expect("something was sent")
    }

    /// A running RS with one line.
    pub(super) fn started() -> Self {
        let mut bench = Bench::up(4);
        bench.datagram(&invite("call-1", 1, "", "sendonly", 1));
        bench.media_agrees();
        bench.journal_syncs();
        assert_eq!(bench.codes(), [200]);
        let tag = bench.last().to().and_then(|to| to.tag().map(str::to_owned)).expect("a tag");
        bench.datagram(&request("ACK", "call-1", 1, &tag, ""));
        bench
    }

    /// The last 200 that was sent.
    pub(super) fn last_200(&self) -> &Message {
        self.sent.iter().rfind(|message| message.code() == Some(200)).expect("a 200 was sent")
    }

    pub(super) fn tag(&self) -> String {
        let answer = self.sent.iter().find(|message| message.code() == Some(200));
        answer.and_then(|m| m.to()?.tag().map(str::to_owned)).expect("a 200 was sent")
    }
}

pub(super) fn request(method: &str, call: &str, cseq: u32, tag: &str, body: &str) -> String {
    let to = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
    let kind = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    format!(
        "{method} sip:srs@127.0.0.1 SIP/2.0\r\n\
         Via: SIP/2.0/UDP {PEER};branch=z9hG4bK-{call}-{method}-{cseq}\r\n\
         From: <sip:src@192.0.2.10>;tag=src\r\nTo: <sip:srs@127.0.0.1>{to}\r\n\
         Call-ID: {call}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
         Contact: <sip:src@{PEER}>;+sip.src\r\nRequire: siprec\r\n{kind}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

pub(super) fn sdp(direction: &str, version: u32) -> String {
    format!(
        "v=0\r\no=src 1 {version} IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
         m=audio 4000 RTP/AVP 0\r\na={direction}\r\na=label:96\r\n"
    )
}

pub(super) fn invite(call: &str, cseq: u32, tag: &str, direction: &str, version: u32) -> String {
    request("INVITE", call, cseq, tag, &sdp(direction, version))
}

#[test]
fn answer_waits_for_media_and_journal() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    assert!(bench.codes().is_empty());
    assert!(matches!(bench.media[..], [Envelope { frame: Frame::Open(_), .. }]));
    bench.media_agrees();
    assert!(bench.codes().is_empty(), "the journal has not synced");
    bench.journal_syncs();
    assert_eq!(bench.codes(), [200]);
    let answer = bench.last();
    assert!(answer.headers.get("Contact").is_some_and(|contact| contact.ends_with(">;+sip.srs")));
    let text = String::from_utf8_lossy(&answer.body);
    assert!(text.contains("m=audio 20000 RTP/AVP 0"), "{text}");
    assert!(text.contains("a=label:96") && text.contains("a=recvonly"), "{text}");
    assert!(bench.journal.iter().any(|entry| matches!(entry, Entry::Opened { .. })));
}

#[test]
fn a_refusal_of_media_becomes_503_and_closes_what_was_opened() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.journal_syncs();
    let Envelope { id, frame: Frame::Open(open), .. } = bench.media.remove(0) else {
        panic!("expected Open")
    };
    let (slot, generation, why) = (open.slot, open.generation, Refusal::RingLag);
    bench.input(Input::Media(Envelope {
        id,
        fds: 0,
        frame: Frame::Refused { slot, generation, why },
    }));
    assert!(bench.codes().is_empty(), "a successor would begin it: the journal has it");
    bench.journal_syncs();
    assert_eq!(bench.codes(), [503]);
    assert!(bench.last().headers.get("Retry-After").is_some());
    assert!(matches!(bench.media[..], [Envelope { frame: Frame::Close { .. }, .. }]));
    bench.media_agrees();
    bench.journal_syncs();
    assert_eq!(bench.control.live(), 0);
    assert!(bench.journal.iter().any(|entry| matches!(entry, Entry::Ended { .. })));
    assert!(bench.journal.iter().any(|entry| matches!(entry, Entry::StreamClosed { .. })));
}

#[test]
fn a_failed_journal_refuses_this_and_every_later_invite() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.media_agrees();
    let token = bench.jobs.remove(0).0;
    bench.input(Input::Persisted { token, error: Some(NotDurable::Journal("EIO".to_owned())) });
    bench.datagram(&invite("b", 1, "", "sendonly", 1));
    assert_eq!(bench.codes(), [503, 503]);
}

#[test]
fn f19_while_the_journal_fails_changes_get_503_and_bye_200_until_it_works_again() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    let failed = || Some(NotDurable::Journal("EIO".to_owned()));
    bench.input(Input::Persisted { token: 0, error: failed() });
    bench.datagram(&invite("call-1", 2, &tag, "inactive", 2));
    bench.datagram(&request("UPDATE", "call-1", 3, &tag, ""));
    bench.datagram(&invite("b", 1, "", "sendonly", 1));
    bench.datagram(&request("OPTIONS", "c", 1, "", ""));
    assert_eq!(bench.codes()[1..], [503, 503, 503, 503]);
    assert!(bench.media.is_empty() && bench.jobs.is_empty(), "the RS goes on as it was");
    bench.datagram(&request("BYE", "call-1", 4, &tag, ""));
    let token = bench.jobs.remove(0).0;
    bench.input(Input::Persisted { token, error: failed() });
    assert_eq!(bench.codes().last(), Some(&200), "the RS is over whatever we say");
    bench.input(Input::JournalWorks);
    bench.datagram(&invite("d", 1, "", "sendonly", 1));
    bench.media_agrees();
    bench.journal_syncs();
    assert_eq!(bench.codes().last(), Some(&200));
}

/// Behind a sync that hangs what waits stays bounded: nothing new is promised, an end is still noted.
#[test]
fn f19_a_journal_that_hangs_is_given_no_more_than_ends() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    for number in 0..JOURNAL_WAITS_MAX as u32 + 5 {
        bench.datagram(&request("INFO", "call-1", 2 + number, &tag, ""));
    }
    assert_eq!(bench.jobs.len(), JOURNAL_WAITS_MAX);
    let before = bench.codes().len();
    bench.datagram(&invite("b", 1, "", "sendonly", 1));
    bench.datagram(&invite("call-1", 9_000, &tag, "inactive", 2));
    assert_eq!(bench.codes()[before..], [503, 503]);
    bench.datagram(&request("BYE", "call-1", 9_001, &tag, ""));
    assert_eq!(bench.jobs.len(), JOURNAL_WAITS_MAX + 1);
    bench.journal_syncs();
    bench.media_agrees();
    bench.datagram(&invite("c", 1, "", "sendonly", 1));
    bench.media_agrees();
    bench.journal_syncs();
    assert_eq!(bench.codes().last(), Some(&200));
}

#[test]
fn silence_of_media_becomes_503_after_half_a_second() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.journal_syncs();
    bench.tick(499);
    assert!(!bench.codes().contains(&503));
    bench.tick(1);
    bench.journal_syncs();
    assert_eq!(bench.codes(), [503]);
}

#[test]
fn no_stream_more_than_configured_is_taken_and_options_says_so() {
    let mut bench = Bench::up(1);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.media_agrees();
    bench.journal_syncs();
    bench.datagram(&invite("b", 1, "", "sendonly", 1));
    bench.datagram(&request("OPTIONS", "o", 1, "", ""));
    assert_eq!(bench.codes(), [200, 503, 503]);
}

#[test]
fn before_media_is_up_nothing_is_promised() {
    let mut bench = Bench::new(4, 1);
    bench.datagram(&request("OPTIONS", "o", 1, "", ""));
    bench.input(Input::MediaUp);
    assert!(bench.codes().is_empty(), "what media holds is not known yet");
    bench.media_agrees();
    let last = bench.last();
    assert_eq!(last.code(), Some(200));
    assert!(last.headers.get("Accept").is_some_and(|accept| accept.contains("rs-metadata+xml")));
}

#[test]
fn a_cancelled_invite_leaves_no_rs() {
    let mut bench = Bench::up(4);
    let text = invite("a", 1, "", "sendonly", 1);
    bench.datagram(&text);
    bench.datagram(&text.replace("INVITE", "CANCEL").replace("-CANCEL-", "-INVITE-"));
    bench.media_agrees();
    bench.journal_syncs();
    assert!(bench.codes().contains(&487), "{:?}", bench.codes());
    assert_eq!(bench.control.live(), 0);
    assert!(!bench.codes().iter().any(|code| *code == 200 && bench.last().body.len() > 9));
}

#[test]
fn the_end_is_journaled_before_bye_is_answered() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    bench.datagram(&request("BYE", "call-1", 2, &tag, ""));
    assert_eq!(bench.codes(), [200], "persist before reply");
    bench.journal_syncs();
    assert_eq!(bench.codes(), [200, 200]);
    assert!(bench.media.is_empty(), "late packets are still taken");
    bench.tick(300);
    assert!(matches!(bench.media[..], [Envelope { frame: Frame::Close { .. }, .. }]));
    bench.media_agrees();
    bench.journal_syncs();
    assert!(matches!(bench.journal.last(), Some(Entry::StreamClosed { .. })));
}

#[test]
fn a_restarted_control_opens_its_streams_again_and_answers_the_bye() {
    let before = Bench::started();
    let tag = before.tag();
    let mut after = Bench::new(4, 2);
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    assert!(matches!(after.media[0].frame, Frame::Salts { .. }), "salts come first");
    after.media_holds(&before.held());
    let opens = after.media.iter().filter(|envelope| matches!(envelope.frame, Frame::Open(_)));
    assert_eq!(opens.count(), 1);
    after.media_agrees();
    after.datagram(&request("BYE", "call-1", 2, &tag, ""));
    after.journal_syncs();
    assert_eq!(after.codes(), [200, 200], "the INVITE's, whose ACK has not come, and the BYE's");
    let next = after.control.slots.take(HOME).map(|(slot, generation, _)| (slot, generation));
    assert_ne!(next, Some((Slot(0), Generation(1))), "its slot is in use until it is closed");
}

#[test]
fn a_pause_reaches_media_before_its_200_and_the_journal_keeps_the_instant() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    bench.datagram(&invite("call-1", 2, &tag, "inactive", 2));
    let [Envelope { frame: Frame::Update { stream, .. }, .. }] = &bench.media[..] else {
        panic!("expected one Update")
    };
    assert!(!stream.active);
    bench.journal_syncs();
    assert!(!bench.codes()[1..].contains(&200), "media has not confirmed");
    bench.media_agrees();
    bench.journal_syncs();
    let text = String::from_utf8_lossy(&bench.last().body).into_owned();
    assert!(text.contains("a=inactive"), "{text}");
    assert!(
        bench.journal.iter().any(|entry| matches!(entry, Entry::Direction { active: false, .. }))
    );
}

#[test]
fn a_removed_line_is_closed_and_its_slot_returns() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    let gone = sdp("sendonly", 2).replace("m=audio 4000", "m=audio 0");
    bench.datagram(&request("INVITE", "call-1", 2, &tag, &gone));
    bench.journal_syncs();
    assert_eq!(bench.last().code(), Some(200));
    assert!(String::from_utf8_lossy(&bench.last().body).contains("m=audio 0 "));
    bench.media_agrees();
    bench.journal_syncs();
    assert!(bench.journal.iter().any(|entry| matches!(entry, Entry::StreamClosed { .. })));
    assert_eq!(bench.control.slots.used(), 0);
}

#[test]
fn a_drain_refuses_the_new_and_reports_when_the_last_has_ended() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    bench.input(Input::Keeper(Frame::Drain));
    bench.datagram(&invite("b", 1, "", "sendonly", 1));
    assert_eq!(bench.last().code(), Some(503));
    assert!(bench.keeper.is_empty());
    bench.datagram(&request("BYE", "call-1", 2, &tag, ""));
    bench.journal_syncs();
    bench.tick(300);
    bench.media_agrees();
    bench.journal_syncs();
    assert!(matches!(bench.keeper[..], [Frame::Drained]));
}

#[test]
fn a_drain_says_what_it_waits_for_at_once_and_every_ten_seconds() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    let told = |bench: &Bench| {
        let lines = bench.log.iter().filter(|line| line.starts_with("draining: "));
        lines.cloned().collect::<Vec<_>>()
    };
    assert!(told(&bench).is_empty());
    let rs = *bench.control.sessions.keys().next().expect("an RS");
    bench.input(Input::Keeper(Frame::Drain));
    let first = told(&bench);
    assert_eq!(first.len(), 1);
    assert!(first[0].contains(&format!("1 running, the oldest is {rs} since ")), "{first:?}");
    for _ in 0..99 {
        bench.tick(100);
    }
    assert_eq!(told(&bench).len(), 1);
    bench.tick(100);
    assert_eq!(told(&bench).len(), 2);
    bench.datagram(&request("BYE", "call-1", 2, &tag, ""));
    bench.settles();
    bench.tick(20_000);
    assert_eq!(told(&bench).len(), 2, "it waits for none");
}

#[test]
fn a_stop_says_bye_with_a_reason() {
    let mut bench = Bench::started();
    bench.input(Input::Keeper(Frame::Stop));
    bench.journal_syncs();
    let bye = bench.sent.iter().find(|message| message.method() == Some("BYE")).expect("a BYE");
    assert!(bye.headers.get("Reason").is_some_and(|reason| reason.contains("stopped")));
    bench.tick(1);
    bench.media_agrees();
    bench.journal_syncs();
    assert!(matches!(bench.keeper[..], [Frame::Drained]));
}

#[test]
fn a_stream_that_media_never_took_gives_its_slot_back() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.media_refuses(Refusal::Disk);
    // Media does not know this use of the slot.
    bench.media_refuses(Refusal::Stale);
    bench.settles();
    assert_eq!(bench.codes()[..1], [503]);
    bench.nothing_is_left();
}

#[test]
fn a_close_that_media_had_no_room_for_is_asked_again() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    bench.datagram(&request("BYE", "call-1", 2, &tag, ""));
    bench.journal_syncs();
    bench.tick(300);
    bench.media_refuses(Refusal::RingLag);
    assert_eq!(bench.control.slots.used(), 1, "media still has it");
    bench.settles();
    bench.nothing_is_left();
}

#[test]
fn what_was_asked_while_media_was_away_is_not_waited_for() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    bench.input(Input::MediaDown);
    bench.datagram(&request("BYE", "call-1", 2, &tag, ""));
    bench.journal_syncs();
    bench.tick(300);
    // No link: the close is lost.
    bench.media.clear();
    bench.input(Input::MediaUp);
    bench.settles();
    bench.nothing_is_left();
}

#[test]
fn a_stop_refuses_the_invite_that_is_not_answered_yet() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.input(Input::Keeper(Frame::Stop));
    bench.journal_syncs();
    assert_eq!(bench.codes(), [503]);
    bench.settles();
    assert!(!bench.codes().contains(&200));
    bench.nothing_is_left();
    assert!(matches!(bench.keeper[..], [Frame::Drained]));
}

#[test]
fn a_bye_that_overtakes_a_change_closes_what_the_change_opened() {
    let mut bench = Bench::started();
    let tag = bench.tag();
    let two = sdp("sendonly", 2) + "m=audio 4002 RTP/AVP 0\r\na=sendonly\r\na=label:97\r\n";
    bench.datagram(&request("INVITE", "call-1", 2, &tag, &two));
    let open = bench.media.pop().expect("an Open");
    assert!(matches!(open.frame, Frame::Open(_)));
    bench.datagram(&request("BYE", "call-1", 3, &tag, ""));
    bench.journal_syncs();
    bench.tick(300);
    bench.media_agrees();
    bench.journal_syncs();
    bench.media.push(open);
    bench.settles();
    assert!(bench.codes().contains(&487), "{:?}", bench.codes());
    bench.nothing_is_left();
}

#[test]
fn an_rs_without_ack_ends_by_bye_and_leaves_nothing_even_if_nobody_answers() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.media_agrees();
    bench.journal_syncs();
    let tag = bench.tag();
    bench.tick(32_001);
    // The journal hangs: the BYE waits for it no longer than any answer.
    bench.tick(499);
    assert!(!bench.sent.iter().any(|message| message.method() == Some("BYE")));
    bench.tick(1);
    assert!(bench.sent.iter().any(|message| message.method() == Some("BYE")));
    // The SRC was only slow: what it now says in that dialog is no new RS.
    bench.datagram(&invite("a", 2, &tag, "sendonly", 2));
    assert_eq!(bench.last().code(), Some(481));
    bench.settles();
    bench.nothing_is_left();
    bench.tick(40_000);
    bench.datagram(&request("BYE", "a", 3, &tag, ""));
    assert_eq!(bench.last().code(), Some(481), "the endpoint has forgotten the dialog");
    assert_eq!(bench.control.sip.transactions(), 0);
}

#[test]
fn f59_an_invite_whose_200_was_lost_makes_no_second_rs_after_a_restart() {
    let before = Bench::started();
    let tag = before.tag();
    let mut after = Bench::new(4, 2);
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    after.media_agrees();
    after.media_agrees();
    after.datagram(&invite("call-1", 1, "", "sendonly", 1));
    assert_eq!(after.control.live(), 1);
    let answer = after.last();
    let first = before.sent.iter().find(|message| message.code() == Some(200)).expect("its 200");
    assert_eq!(answer.to().and_then(|to| to.tag().map(str::to_owned)), Some(tag));
    assert_eq!((answer.code(), &answer.body), (Some(200), &first.body));
    for name in ["Contact", "Allow", "Accept", "Supported", "Content-Type"] {
        assert_eq!(answer.headers.get(name), first.headers.get(name), "{name}");
    }
}

#[test]
fn a_bye_whose_200_was_lost_is_answered_after_a_restart_when_all_is_closed() {
    let mut before = Bench::started();
    let tag = before.tag();
    let bye = request("BYE", "call-1", 2, &tag, "");
    before.datagram(&bye);
    before.settles();
    before.nothing_is_left();
    let mut after = Bench::new(4, 2);
    after.now = before.now;
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.datagram(&bye);
    assert_eq!(after.codes(), [200]);
    after.nothing_is_left();
}

#[test]
fn a_stream_that_was_leaving_when_control_died_is_closed_by_its_successor() {
    let mut before = Bench::started();
    let tag = before.tag();
    let gone = sdp("sendonly", 2).replace("m=audio 4000", "m=audio 0");
    before.datagram(&request("INVITE", "call-1", 2, &tag, &gone));
    before.journal_syncs();
    let mut after = Bench::new(4, 2);
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    assert_eq!(after.control.slots.used(), 1, "media still has it");
    after.input(Input::MediaUp);
    after.media_holds(&[]);
    assert!(after.media.iter().any(|asked| matches!(asked.frame, Frame::Close { .. })));
    after.settles();
    assert_eq!(after.control.slots.used(), 0);
}

/// Random calls, answers, refusals, silences and restarts of media: when all calls have ended and
/// media answers again, nothing is left.
#[test]
fn whatever_happens_all_slots_return_and_no_job_is_left() {
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let mut bench = Bench::up(4);
        let mut cseq = 1;
        for step in 0..60 {
            cseq += 1;
            let call = format!("c{}", prng.below(4));
            let tag = bench.tag_of(&call);
            match prng.below(12) {
                0 | 1 => bench.datagram(&invite(&call, cseq, "", "sendonly", 1)),
                2 if !tag.is_empty() => {
                    bench.datagram(&request("BYE", &call, cseq, &tag, ""));
                }
                3 if !tag.is_empty() => {
                    let more = "m=audio 4002 RTP/AVP 0\r\na=sendonly\r\na=label:97\r\n";
                    let text = sdp(["sendonly", "inactive"][prng.below(2) as usize], step);
                    let text = if prng.below(2) == 0 { text } else { text + more };
                    bench.datagram(&request("INVITE", &call, cseq, &tag, &text));
                }
                4 => {
                    let text = invite(&call, cseq, "", "sendonly", 1);
                    bench.datagram(&text);
                    bench.datagram(
                        &text.replace("INVITE", "CANCEL").replace("-CANCEL-", "-INVITE-"),
                    );
                }
                5 => bench.media_refuses(Refusal::RingLag),
                6 => bench.media_refuses(Refusal::Stale),
                7 | 8 => bench.media_agrees(),
                9 => bench.journal_syncs(),
                10 => bench.tick(1 + prng.below(400)),
                _ if prng.below(4) == 0 => {
                    bench.input(Input::MediaDown);
                    bench.media.clear();
                    bench.input(Input::MediaUp);
                }
                _ => bench.datagram(&request("ACK", &call, cseq - 1, &tag, "")),
            }
        }
        bench.settles();
        // Those without ACK end by themselves, the others by this.
        bench.tick(33_000);
        bench.settles();
        for number in 0..4 {
            let call = format!("c{number}");
            for tag in bench.tags_of(&call) {
                cseq += 1;
                bench.datagram(&request("BYE", &call, cseq, &tag, ""));
            }
        }
        bench.settles();
        bench.tick(33_000);
        bench.settles();
        bench.nothing_is_left();
    }
}

#[test]
fn entries_that_cannot_be_kept_refuse_their_invite_and_no_other() {
    let mut bench = Bench::up(4);
    bench.datagram(&invite("a", 1, "", "sendonly", 1));
    bench.media_agrees();
    let token = bench.jobs.remove(0).0;
    let error = Some(NotDurable::Entries("too long".to_owned()));
    bench.input(Input::Persisted { token, error });
    bench.journal_syncs();
    assert_eq!(bench.codes(), [503]);
    bench.settles();
    bench.datagram(&invite("b", 1, "", "sendonly", 1));
    bench.media_agrees();
    bench.journal_syncs();
    assert_eq!(bench.last().code(), Some(200));
}

#[test]
fn whatever_an_src_writes_a_frame_to_media_stays_small_and_labels_are_echoed_whole() {
    let mut bench = Bench::up(4);
    let label = "\u{e9}".repeat(20_000);
    let types: Vec<String> = (96..128).map(|number| number.to_string()).collect();
    let mut text = sdp("sendonly", 1)
        .replace("AVP 0", &format!("AVP 0 {}", types.join(" ")))
        .replace("label:96", &format!("label:{label}"));
    for number in &types {
        text += &format!(
            "a=rtpmap:{number} {}/8000\r\na=fmtp:{number} {}\r\n",
            "c".repeat(5_000),
            "f".repeat(5_000)
        );
    }
    let (local, peer) = (LOCAL.parse().expect("address"), PEER.parse().expect("address"));
    let conn = sip::ConnId(1);
    bench.input(Input::Sip(sip::Input::Connected { conn, local, peer, tls: None }));
    let bytes = request("INVITE", "a", 1, "", &text).replace("/UDP", "/TCP").into_bytes();
    bench.input(Input::Sip(sip::Input::Stream { conn, bytes: &bytes }));
    let frame = bench.media.iter().map(|envelope| envelope.emit().len()).max();
    assert!(frame.is_some_and(|bytes| bytes < crate::base::limits::FRAME_BYTES_MAX), "{frame:?}");
    bench.media_agrees();
    bench.journal_syncs();
    let answer = String::from_utf8_lossy(&bench.last().body).into_owned();
    assert!(answer.contains(&format!("a=label:{label}\r\n")));
}

#[test]
fn salts_of_many_recordings_fit_their_frames() {
    let before = Bench::started();
    let mut entries = Vec::new();
    for number in 0..4_000 {
        for entry in &before.journal {
            let mut entry = entry.clone();
            if let Entry::Opened { rs, dialog, salt, streams, bodies, .. } = &mut entry {
                *bodies = None;
                let keys = KeyBox::new(&[7; 32]).expect("32 bytes");
                let own = crate::base::ids::RsId(u128::to_be_bytes(number));
                let context = crate::store::journal::keybox::salt_context(own);
                *salt = keys.seal(&Seeded::new(1), &[5; 32], &context);
                (*rs, dialog.call_id) = (own, number.to_string());
                streams[0].description.port = 20_000 + 2 * number as u16;
                entries.push(entry);
            }
        }
    }
    let mut after = Bench::new(4, 2);
    let ports: Vec<SocketAddr> =
        (0..4_000).map(|n| SocketAddr::from(([127, 0, 0, 1], 20_000 + 2 * n))).collect();
    after.control.slots.add(Slot(0), &ports);
    after.control.recover(after.clock(), &Standings::of(&entries));
    assert_eq!(after.control.slots.used(), 4_000);
    after.input(Input::MediaUp);
    let frame = after.media.iter().map(|envelope| envelope.emit().len()).max();
    assert!(frame.is_some_and(|bytes| bytes < crate::base::limits::FRAME_BYTES_MAX), "{frame:?}");
}
