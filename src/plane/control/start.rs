//! The INVITE that starts an RS.

use std::net::{IpAddr, Ipv4Addr};

use super::actor::Control;
use super::effect::Grave;
use super::general::accepts_sdp;
use super::hold::Holding;
use super::job::{Job, Purpose};
use super::lines::{Fit, Locals, Wanted, WantedCrypto};
use super::pictures::Pictures;
use super::recover::{origin_address, state};
use super::renewal::Renewal;
use super::requests::ALLOW;
use super::selection::{select, unwanted_lines};
use super::session::{Phase, Session};
use super::silence::Speaking;
use super::timers::with_timer;
use crate::base::ids::RsId;
use crate::base::limits::{FORMAT_TEXT_BYTES_MAX, LABEL_BYTES_MAX, STREAM_FORMATS_MAX};
use crate::config::model::SrtpPolicy as Configured;
use crate::plane::handoff::frame::Frame;
use crate::proto::session::{
    self as rs_proto, Accepted, Agreed, AnswerOrigin, Body, FeatureTag, Line, Local, Negotiated,
    People, Policy, Recognition, Refusal, Request, Selection, Snapshot, SrtpPolicy,
};
use crate::proto::sip::{IncomingRequest, Reply, Transport, TxnId};
use crate::store::event::{Format, Origin};
use crate::store::journal::entry::{Entry, Signalling, SrcFacts};
use crate::store::journal::keybox::{answer_context, salt_context};
use crate::store::metadata::{attribute, sdp_lines};
use crate::wire::metadata::{DataMode, Root};
use crate::wire::sdes::blank_keys;
use crate::wire::sip::Message;

/// Option tags that a peer may require of us besides `siprec`. `100rel` asks that provisional responses
/// above 100 be reliable (RFC 3262 §3), and we send none.
pub(super) const UNDERSTOOD: [&str; 2] = ["timer", "100rel"];

impl Control {
    /// The rules for a peer at that address, with what its certificate and its password say.
    pub(super) fn policy(
        &self,
        peer: IpAddr,
        identity: Option<&str>,
        user: Option<&str>,
        transport: Transport,
    ) -> Policy {
        let rule = self.rule_of(peer, identity, user);
        let srtp = rule.and_then(|rule| rule.srtp).unwrap_or(self.config.media.srtp_policy());
        Policy {
            strict: self.is_strict(peer, identity, user),
            srtp: match srtp {
                Configured::Require => SrtpPolicy::Require,
                Configured::Prefer => SrtpPolicy::Prefer,
                Configured::Allow => SrtpPolicy::Allow,
            },
            suites: rule
                .and_then(|rule| rule.suites.as_ref())
                .unwrap_or(&self.config.media.suites)
                .iter()
                .copied()
                .collect(),
            unencrypted: rule
                .and_then(|rule| rule.unencrypted)
                .unwrap_or(self.config.media.unencrypted),
            signalling_protected: transport == Transport::Tls,
            lacks: self.lacks(),
        }
    }

    /// Whether RFC 7866 is taken at its word for a peer.
    pub(super) fn is_strict(
        &self,
        peer: IpAddr,
        identity: Option<&str>,
        user: Option<&str>,
    ) -> bool {
        let rule = self.rule_of(peer, identity, user);
        rule.and_then(|rule| rule.strict).unwrap_or(self.config.sip.strict)
    }

    /// The rules for who sent a request.
    pub(super) fn policy_of(&self, request: &IncomingRequest) -> Policy {
        let IncomingRequest { peer, identity, user, transport, .. } = request;
        self.policy(peer.ip(), identity.as_deref(), user.as_deref(), *transport)
    }

    /// The body of a request, sorted.
    pub(super) fn body(message: &Message, policy: &Policy) -> Result<Body, Refusal> {
        if message.body.is_empty() {
            return Ok(Body::default());
        }
        let header = |name| message.headers.get(name).unwrap_or("");
        Body::read(header("Content-Type"), header("Content-Disposition"), &message.body, policy)
    }

    /// Judges, reserves, and asks media and journal; the answer comes when both have said yes.
    pub(super) fn initial_invite(&mut self, request: &IncomingRequest) {
        let policy = self.policy_of(request);
        let judged = match judge(&request.message, &policy, &self.selection, self.peer_of(request))
        {
            Ok(judged) => judged,
            Err(Refused::Unwanted(why)) => {
                // Nothing else of it is written anywhere.
                self.unwanted.count(why);
                let refusal = Refusal::forbidden("the recording policy does not ask for it");
                return self.reply(request.txn, of_refusal(refusal));
            }
            Err(Refused::Unfit(refusal)) => {
                self.log(
                    Grave::Warn,
                    format!("INVITE from {} refused: {} {}", request.peer, refusal.code, {
                        let warning = refusal.headers.iter().find(|(name, _)| *name == "Warning");
                        warning.map_or(refusal.reason, |(_, text)| text)
                    }),
                );
                return self.reply(request.txn, of_refusal(refusal));
            }
        };
        let agreed = match self.agree(&request.message.headers) {
            Ok(agreed) => agreed,
            Err(reply) => return self.reply(request.txn, reply),
        };
        if self.park(request, None) {
            return;
        }
        let wanted = wanted(&judged.negotiated);
        let near = request.local.ip();
        let fits: Vec<Fit> = wanted.iter().map(|line| self.fit(line, near)).collect();
        if let Some(why) = self.obstacle(&fits) {
            self.log(Grave::Error, format!("INVITE from {} refused: {why}", request.peer));
            let reply = self.unavailable(&why);
            return self.reply(request.txn, reply);
        }
        self.open_session(request, judged, &wanted, agreed);
    }

    fn open_session(
        &mut self,
        request: &IncomingRequest,
        judged: Judged,
        wanted: &[Wanted],
        agreed: Option<Agreed>,
    ) {
        let Judged { negotiated, quirks, people, body } = judged;
        let Some(dialog) = self.sip.prospective(request.txn) else { return };
        let IncomingRequest { peer, identity, user, .. } = request;
        let mut session = self.fresh_session(peer.ip(), identity.as_deref(), user.as_deref());
        let (rs, salt) = (session.rs, session.salt);
        let mut entries = Vec::new();
        let near = request.local.ip();
        let locals = self.fill(&mut session, wanted, (near, negotiated.lines.len()), &mut entries);
        session.answer_sdp = self.answer_text(&negotiated, &locals, session.origin, None);
        let left_out = unwanted_lines(&negotiated);
        session.negotiated = Some(negotiated);
        let frames = session
            .streams
            .iter()
            .filter_map(|stream| session.open_frame(&self.keys, stream))
            .map(|open| Frame::Open(Box::new(open)))
            .collect();
        let seal = |secret: &[u8], context: &str| self.keys.seal(&*self.entropy, secret, context);
        entries.push(Entry::Opened {
            rs,
            at: self.now.wall,
            dialog: state(dialog, true),
            src: src_facts(request, &self.config.sip.realm),
            signalling: signalling(request),
            quirks,
            salt: seal(&salt, &salt_context(rs)),
            streams: session.streams.clone(),
            own: false,
            answer: text(&blank_keys(session.answer_sdp.as_bytes())),
            answer_sdp: seal(session.answer_sdp.as_bytes(), &answer_context(rs)),
            bodies: None,
            timer: self.refreshed_now(agreed),
            retention: Some(self.promise(self.peer_of(request), &session.streams, &body)),
        });
        let reply = self
            .with_capabilities(Reply::new(200), request)
            .with("Content-Type", "application/sdp");
        let reply = with_timer(reply, agreed);
        let reply = Reply { body: session.answer_sdp.clone().into_bytes(), ..reply };
        self.sessions.insert(rs, Box::new(session));
        let veil = self.veil(rs, &people, &left_out);
        let of_request = self.bodies_of(rs, &request.message, &body.parts, veil);
        if let Some(Entry::Opened { bodies, .. }) = entries.last_mut() {
            *bodies = Some(of_request.len() as u32);
        }
        entries.extend(of_request);
        if let Some(session) = self.sessions.get_mut(&rs) {
            session.people = people;
        }
        self.note_metadata(rs, &body);
        self.begin(Purpose::Start, rs, Some(request.txn), Some(reply), frames, entries);
        if let Some(job) = self.job_of(request.txn) {
            job.agreed = Some(agreed);
        }
    }

    /// An RS without streams, of that peer.
    pub(super) fn fresh_session(
        &self,
        peer: IpAddr,
        identity: Option<&str>,
        user: Option<&str>,
    ) -> Session {
        let (mut salt, mut alias_key) = ([0; 32], [0; 32]);
        self.entropy.fill(&mut salt);
        self.entropy.fill(&mut alias_key);
        Session {
            rs: self.fresh_rs_id(),
            since: self.now.wall,
            phase: Phase::Starting,
            strict: self.is_strict(peer, identity, user),
            nat: self.rule_of(peer, identity, user).is_some_and(|rule| rule.nat),
            dialog: None,
            salt,
            streams: Vec::new(),
            bodies: 0,
            origin: ((self.now.wall.0 / 1_000_000_000) as u64, 1),
            answer_sdp: String::new(),
            negotiated: None,
            people: People::unknown(),
            alias_key,
            snapshot: Snapshot::default(),
            speaking: Speaking::default(),
            requesting: None,
            pictures: Pictures::default(),
            timer: None,
            armed: None,
            refreshing: None,
            holding: Holding::default(),
            renewal: Renewal::default(),
        }
    }

    /// Gives it streams for the wanted lines, each with a port pair and, where it is secure, a key.
    /// Admission has counted the pairs. `near`: where signalling came in; `lines`: how many the offer has.
    pub(super) fn fill(
        &mut self,
        session: &mut Session,
        wanted: &[Wanted],
        (near, lines): (IpAddr, usize),
        entries: &mut Vec<Entry>,
    ) -> Locals {
        let rs = session.rs;
        session.streams.reserve_exact(wanted.len());
        let mut locals: Locals = (0..lines).map(|_| None).collect();
        for line in wanted {
            let place =
                self.slots.take(self.fit(line, near)).expect("admission counted the free pairs");
            let stream = self.stream_id(entries);
            let key = line.crypto.as_ref().map(|crypto| self.fresh_key(crypto.suite.suite()));
            let sealed = line
                .crypto
                .as_ref()
                .zip(key.as_ref())
                .map(|(crypto, key)| self.seal_crypto((rs, stream), crypto, key));
            session.streams.push(line.stream(rs, stream, place, sealed));
            locals[usize::from(line.line)] = Some((place, key));
        }
        locals
    }

    fn fresh_rs_id(&self) -> RsId {
        let mut random = [0; 10];
        self.entropy.fill(&mut random);
        let millis = (self.now.wall.0 / 1_000_000).max(0) as u64;
        RsId(*uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().as_bytes())
    }

    /// The answer's text with our ports and keys. `before`: the one before it in its dialog, whose `o=`
    /// address stays.
    pub(super) fn answer_text(
        &self,
        negotiated: &Negotiated,
        locals: &Locals,
        origin: (u64, u64),
        before: Option<&str>,
    ) -> String {
        let media = &self.config.media;
        let locals: Vec<Option<Local<'_>>> = locals
            .iter()
            .map(|local| {
                let ((_, _, address), key) = local.as_ref()?;
                let own = media.advertised(address.ip());
                Some(Local { port: address.port(), key: key.as_ref(), address: Some(own) })
            })
            .collect();
        let (session_id, version) = origin;
        // The first line's; where none is recorded, any of ours.
        let first = locals.iter().flatten().find_map(|local| local.address);
        let any = media.address.0.first().map(|ip| media.advertised(*ip));
        let connection = first.or(any).unwrap_or(Ipv4Addr::LOCALHOST.into());
        let address = before.and_then(origin_address).unwrap_or(connection);
        let origin = AnswerOrigin { session_id, version, address, connection };
        rs_proto::emit_answer(negotiated, &locals, &origin)
    }

    /// Both have answered, or one has refused.
    pub(super) fn finish_start(&mut self, job: Job) {
        let Job { rs, txn, reply, refused, agreed, .. } = job;
        let (Some(txn), Some(reply)) = (txn, reply) else { return };
        if let Some(why) = refused {
            return self.give_up_start(rs, txn, reply, &why);
        }
        let dialog = self.sip.respond(self.now.mono, txn, reply);
        let Some(session) = self.sessions.get_mut(&rs) else { return };
        session.phase = Phase::Live;
        session.dialog = dialog;
        session.pictures.note(&[], &session.streams);
        let streams = session.streams.len();
        if let Some(dialog) = dialog {
            self.dialogs.insert(dialog, rs);
        }
        self.agreed(rs, agreed.flatten());
        self.log(Grave::Info, format!("{rs} recording, {streams} streams"));
    }

    /// No 2xx has left: what was opened is closed, and the journal says that nothing was promised.
    fn give_up_start(&mut self, rs: RsId, txn: TxnId, reply: Reply, why: &str) {
        self.log(Grave::Error, format!("{rs} not started: {why}"));
        let cancelled = reply.code == 487;
        let reply = if cancelled { reply } else { self.unavailable(why) };
        let entry = Entry::Ended {
            rs,
            at: self.now.wall,
            by: if cancelled { Origin::Src } else { Origin::Srs },
            reason: format!("not started: {why}"),
            remote_cseq: 0,
            bye: false,
        };
        self.refuse_late(rs, txn, reply, entry);
        self.close_streams(rs, Origin::Srs);
    }
}

/// An offer that is taken.
struct Judged {
    /// Decided line by line.
    negotiated: Negotiated,
    /// What was odd.
    quirks: Vec<String>,
    /// Who is on it, for the recording policy.
    people: People,
    /// The bodies that it came in.
    body: Body,
}

/// Why an INVITE begins no RS.
enum Refused {
    /// It cannot.
    Unfit(Refusal),
    /// The recording policy wants nothing of it.
    Unwanted(String),
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Refused::Unfit(refusal)
    }
}

/// Recognition, negotiation and selection: the decided offer, or the refusal.
fn judge(
    message: &Message,
    policy: &Policy,
    selection: &Selection,
    peer: Option<&str>,
) -> Result<Judged, Refused> {
    let body = Control::body(message, policy)?;
    let require: Vec<&str> = message.headers.list("Require").collect();
    let supported: Vec<&str> = message.headers.list("Supported").collect();
    let contact = message.headers.get("Contact").unwrap_or("");
    let request = Request {
        require: &require,
        supported: &supported,
        understood: &UNDERSTOOD,
        src: FeatureTag::in_contact(contact, "src"),
    };
    let mut quirks = match rs_proto::recognise(&request, &body, policy) {
        Recognition::Rs { quirks } => quirks,
        Recognition::Refuse(refusal) => return Err(refusal.into()),
    };
    let offer = body.offer.as_ref().expect("recognition wants an offer");
    let mut negotiated = rs_proto::negotiate(offer, None, policy);
    if negotiated.accepted().next().is_none() {
        return Err(rs_proto::not_acceptable(&negotiated).into());
    }
    let people = select(selection, peer, &body, &mut negotiated).map_err(Refused::Unwanted)?;
    quirks.extend(negotiated.quirks.iter().cloned());
    quirks.extend(refused_lines(&negotiated));
    if !accepts_sdp(message) {
        quirks.push("Accept leaves out application/sdp, which the answer is".to_owned());
    }
    quirks.extend(metadata_quirks(&body));
    quirks.retain(|quirk| !people.mentions_hidden(quirk));
    Ok(Judged { negotiated, quirks, people, body })
}

/// Lines that are not recorded, in words.
pub(super) fn refused_lines(negotiated: &Negotiated) -> impl Iterator<Item = String> + '_ {
    negotiated.lines.iter().filter_map(|line| {
        let why = line.refused()?;
        Some(format!("m-line {} is not recorded: {why}", line.index + 1))
    })
}

/// What is odd about the metadata, and where it contradicts the SDP (F57). Never a reason to refuse.
/// A partial document can only be held against those before it, which the catalogue does.
pub(super) fn metadata_quirks(body: &Body) -> Vec<String> {
    match body.root() {
        None => Vec::new(),
        Some(Err(fault)) => vec![format!("metadata unreadable: {fault}")],
        Some(Ok(Root::SnapshotRequest { .. })) => {
            vec!["an SRC asks for a snapshot, which only an SRS may".to_owned()]
        }
        Some(Ok(Root::Recording(document))) => {
            let mut quirks = match (document.datamode, &body.offer) {
                (DataMode::Complete, Some(offer)) => {
                    attribute(document, &sdp_lines(offer)).contradictions
                }
                _ => Vec::new(),
            };
            quirks.extend_from_slice(&document.quirks);
            quirks
        }
    }
}

/// The lines that are to be recorded.
pub(super) fn wanted(negotiated: &Negotiated) -> Vec<Wanted> {
    negotiated.accepted().map(|(line, accepted)| want(line, accepted)).collect()
}

fn want(line: &Line, accepted: &Accepted) -> Wanted {
    let known = |format: &&crate::wire::sdp::Format| {
        !accepted.formats.iter().any(|taken| taken.payload_type == format.payload_type)
    };
    // The ones taken first; the rest so that an SRC which sends another one is still understood.
    let formats = accepted.formats.iter().chain(accepted.offered.iter().filter(known));
    // What an SRC writes at any length stays in the journal as it came; beside the media it is
    // bounded, since one frame carries it there.
    let fits = |text: &&str| text.len() <= FORMAT_TEXT_BYTES_MAX;
    Wanted {
        line: line.index,
        label: line.label.as_deref().map(|label| stored_label(label).to_owned()),
        media: head(&line.kind.to_ascii_lowercase(), LABEL_BYTES_MAX),
        transport: head(&line.transport, LABEL_BYTES_MAX),
        formats: formats
            .take(STREAM_FORMATS_MAX)
            .map(|format| Format {
                payload_type: format.payload_type,
                codec: head(&format.codec, FORMAT_TEXT_BYTES_MAX),
                clock_rate: format.clock_rate,
                channels: format.channels,
                fmtp: format.fmtp.as_deref().filter(fits).map(str::to_owned),
            })
            .collect(),
        active: accepted.active,
        barred: line.rests,
        remote: accepted.remote_rtp,
        rtcp_to: accepted.remote_rtcp,
        rtcp_mux: accepted.rtcp_mux,
        crypto: accepted.crypto.as_ref().map(|chosen| WantedCrypto {
            tag: chosen.tag,
            suite: chosen.suite,
            remote: chosen.remote.duplicate(),
        }),
        family: accepted.family,
    }
}

/// As much of a label as is kept.
pub(super) fn stored_label(label: &str) -> &str {
    &label[..label.floor_char_boundary(LABEL_BYTES_MAX)]
}

/// The beginning of a text, at most `max` bytes.
fn head(text: &str, max: usize) -> String {
    text[..text.floor_char_boundary(max)].to_owned()
}

/// A refusal as an answer.
pub(super) fn of_refusal(refusal: Refusal) -> Reply {
    let reply =
        Reply { code: refusal.code, reason: Some(refusal.reason.to_owned()), ..Reply::default() };
    let reply =
        refusal.headers.into_iter().fold(reply, |reply, (name, value)| reply.with(name, value));
    reply.with("Allow", ALLOW)
}

fn src_facts(request: &IncomingRequest, realm: &str) -> SrcFacts {
    let headers = &request.message.headers;
    let stated = || request.message.from().map(|from| from.uri).unwrap_or_default();
    let proven = request.user.as_ref().map(|user| format!("sip:{user}@{realm}"));
    let identity = request.identity.clone().or(proven).unwrap_or_else(stated);
    let agent = headers.get("User-Agent").or_else(|| headers.get("Server")).unwrap_or("");
    SrcFacts { address: Some(request.peer), identity, user_agent: agent.to_owned() }
}

fn signalling(request: &IncomingRequest) -> Signalling {
    match (request.transport, &request.identity) {
        (Transport::Udp, _) => Signalling::Udp,
        (Transport::Tcp, _) => Signalling::Tcp,
        (Transport::Tls, None) => Signalling::Tls,
        (Transport::Tls, Some(_)) => Signalling::Mtls,
    }
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
