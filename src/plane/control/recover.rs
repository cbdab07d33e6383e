//! What a restarted control knows: the journal, told again to the SIP endpoint and to media.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

use super::actor::Control;
use super::effect::Grave;
use super::hold::Holding;
use super::job::Purpose;
use super::marks::Known;
use super::pictures::Pictures;
use super::renewal::Renewal;
use super::requests::is_sips;
use super::session::{Phase, Session};
use super::silence::Speaking;
use super::timers::with_timer;
use crate::base::ids::{RsId, StreamId};
use crate::base::time::{ClockMap, Wall};
use crate::proto::session::People;
use crate::proto::sip::{self, DialogId, DialogSnapshot, Reply, Transport};
use crate::store::event::Origin;
use crate::store::journal::entry::{Answered, DialogState, Entry, Sealed, StreamOpened};
use crate::store::journal::keybox::{answer_context, salt_context};
use crate::store::journal::standing::{Answer, REPEATS_NS, Standing, Standings};

/// Stream ids are reserved in the journal by the thousand.
pub(super) const STREAM_ID_BLOCK: u64 = 1_000;

/// The last 200 of a restored dialog. It is durable, and that is all that is known: whoever gave it
/// may have died before media had done what it says, so that packets under new keys would fail.
pub(super) struct Owed {
    pub(super) dialog: DialogId,
    /// Of the request that it answers.
    pub(super) cseq: u32,
    pub(super) at: Wall,
    pub(super) reply: Reply,
}

impl Control {
    /// Takes what stands of the journal. RSs that were up go on: with the streams that media still
    /// holds, or, where nothing has survived, with what the store knows of them ([`Self::held`]
    /// finds out). An RS whose port pairs cannot be had any more is told so by BYE.
    pub fn recover(&mut self, now: ClockMap, standings: &Standings) {
        self.now = now;
        self.sip.hold_answers();
        self.stream_ids = standings.stream_ids;
        self.known = Known::restored(&standings.marks);
        for (slot, generation) in &standings.generations {
            self.slots.learn(*slot, *generation);
        }
        // What was not sealed then is not sealed now, however long nothing ran.
        let kept_ns = (self.salts_kept_ms() * 1_000_000) as i64;
        let is_wanted = |at: Wall| standings.alive.0 - at.0 < kept_ns;
        for (rs, over) in standings.over.iter().filter(|(_, over)| is_wanted(over.at)) {
            if let Some(salt) = self.salt(*rs, &over.salt) {
                over.streams.iter().for_each(|stream| self.keep_salt(*rs, salt, *stream));
            }
        }
        for (rs, standing) in &standings.recordings {
            // Its 200 never left. What media holds of it is nobody's, and closed.
            if !standing.was_accepted() {
                self.log(
                    Grave::Warn,
                    format!("{rs} was never accepted: its entries are not whole"),
                );
                continue;
            }
            let Some(salt) = self.salt(*rs, &standing.salt) else { continue };
            let is_open = |stream: &StreamId| {
                standing.streams.iter().any(|open| open.description.stream == *stream)
            };
            if standing.ended.is_none_or(|(_, at)| is_wanted(at)) {
                for stream in standing.all.iter().filter(|stream| !is_open(stream)) {
                    self.keep_salt(*rs, salt, *stream);
                }
            }
            let old = |(_, at): (u32, Wall)| now.wall.0 - at.0 > REPEATS_NS;
            if !(standing.is_quiet() && standing.ended.is_some_and(old)) {
                self.take_back(*rs, salt, standing);
            }
        }
    }

    /// No stream gets an id below `next` from now on: the store holds more than the journal knows of.
    pub fn begin_streams_at(&mut self, next: StreamId) {
        let (free, bound) = self.stream_ids;
        // Behind what was reserved the next block is, and that is journalled.
        self.stream_ids = (free.max(next), bound);
    }

    fn salt(&mut self, rs: RsId, sealed: &Sealed) -> Option<[u8; 32]> {
        let salt = self.keys.open(sealed, &salt_context(rs)).ok();
        let salt = salt.and_then(|salt| salt[..].try_into().ok());
        if salt.is_none() {
            self.log(Grave::Error, format!("{rs}: its salt is sealed by another key"));
        }
        salt
    }

    /// The SDP of an answer, as it was sent.
    fn answer_sdp(&self, rs: RsId, sealed: &Sealed) -> String {
        let answer = self.keys.open(sealed, &answer_context(rs)).unwrap_or_default();
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn take_back(&mut self, rs: RsId, salt: [u8; 32], standing: &Standing) {
        let Standing { dialog, answers, ended, .. } = standing;
        let answer_sdp = self.answer_sdp(rs, &standing.answer_sdp);
        let mut alias_key = [0; 32];
        self.entropy.fill(&mut alias_key);
        let (peer, identity) = (dialog.peer.ip(), dialog.identity.as_deref());
        let user = dialog.user.as_deref();
        let mut session = Session {
            rs,
            since: standing.since,
            phase: Phase::Live,
            strict: self.is_strict(peer, identity, user),
            nat: self.rule_of(peer, identity, user).is_some_and(|rule| rule.nat),
            dialog: None,
            salt,
            streams: standing.streams.clone(),
            bodies: standing.bodies,
            origin: origin(&answer_sdp),
            answer_sdp,
            negotiated: None,
            people: People::unknown(),
            alias_key,
            snapshot: self.snapshot_of(standing),
            speaking: Speaking::default(),
            requesting: None,
            pictures: Pictures::default(),
            timer: standing.timer.as_ref().map(|timer| self.timer_of(timer, standing.orphan)),
            armed: None,
            refreshing: None,
            holding: Holding::restored(standing.hold.clone(), self.now.mono),
            renewal: Renewal::default(),
        };
        let mut lost = Vec::new();
        // Of a version that had one address, and wrote it nowhere else.
        let first = || self.config.media.address.0.first().copied();
        let own = connection_address(&session.answer_sdp).or_else(first);
        session.streams.retain_mut(|stream| {
            let claimed = self.claim(stream, own);
            lost.extend((!claimed).then(|| stream.clone()));
            claimed
        });
        let whole = lost.is_empty();
        for mut stream in standing.leaving.iter().cloned() {
            if self.claim(&mut stream, own) {
                let (slot, generation) = (stream.description.slot, stream.generation);
                self.closing.push((rs, slot, generation, stream.description.stream));
            } else {
                lost.push(stream);
            }
        }
        if ended.is_none() && !whole {
            return self.give_up_rs(session, dialog);
        }
        self.write_off(rs, salt, &lost);
        let id = self.sip.restore(snapshot(dialog));
        if let Some((cseq, at)) = *ended {
            // A BYE whose 200 was lost comes again (RFC 3261 §17.2.2).
            self.sip.restore_answer(id, cseq, "BYE", Reply::new(200));
            if cseq > 0 {
                // Nor do its INVITEs begin another RS.
                self.restore_answers(id, rs, dialog, answers);
            }
            if standing.bye && self.now.wall.0 - at.0 < REPEATS_NS {
                // It may not have left; an SRC that has it answers 481.
                self.say_bye(id, "the recorder has ended the recording");
            }
            self.sip.close(id);
            if session.streams.is_empty() {
                return;
            }
            session.phase = Phase::Ending(self.now.mono);
            self.agenda.session(self.now.mono, rs);
        } else {
            // None where we called it and it has not asked for anything yet.
            if answers.is_empty() && dialog.remote_cseq > 0 {
                self.restore_answer(id, dialog, &session.answer_sdp);
            }
            self.restore_answers(id, rs, dialog, answers);
            self.resume_answer(id, rs, dialog, answers);
            session.dialog = Some(id);
            self.dialogs.insert(id, rs);
            if let Some(due) = session.holding.next_timeout() {
                self.agenda.session(due, rs);
            }
        }
        self.sessions.insert(rs, Box::new(session));
        self.arm_timer(rs);
    }

    /// Takes the port pair of a stream back into use. It is known by its address, since the numbers
    /// are another keeper's where the recorder was down. `own`: the address where the stream does not say
    /// it. False: it cannot be had.
    fn claim(&mut self, stream: &mut StreamOpened, own: Option<IpAddr>) -> bool {
        let Some(ip) = stream.address.or(own) else { return false };
        let Some(slot) = self.slots.at(SocketAddr::new(ip, stream.description.port)) else {
            return false;
        };
        (stream.description.slot, stream.address) = (slot, Some(ip));
        self.slots.claim(slot, stream.generation)
    }

    /// Streams whose port pairs are not ours any more, and that nobody wants: what they hold is kept,
    /// and the journal says that nothing more comes.
    fn write_off(&mut self, rs: RsId, salt: [u8; 32], lost: &[StreamOpened]) {
        let (at, by, through) = (self.now.wall, Origin::Srs, None);
        let mut entries = Vec::new();
        for opened in lost {
            let (stream, slot) = (opened.description.stream, opened.description.slot);
            self.keep_salt(rs, salt, stream);
            entries.push(Entry::StreamClosed { rs, stream, slot, at, by, through });
        }
        if !entries.is_empty() {
            self.begin(Purpose::Quiet, rs, None, None, Vec::new(), entries);
        }
    }

    /// An RS that cannot go on: the SRC hears it at once (rule 9), and what was recorded is kept.
    fn give_up_rs(&mut self, session: Session, dialog: &DialogState) {
        let rs = session.rs;
        self.log(Grave::Error, format!("{rs} not resumed: its ports are not ours any more"));
        let id = self.sip.restore(snapshot(dialog));
        let (at, by) = (self.now.wall, Origin::Srs);
        let mut entries = Vec::new();
        for stream in &session.streams {
            let (slot, stream) = (stream.description.slot, stream.description.stream);
            self.slots.give_back(slot);
            self.keep_salt(rs, session.salt, stream);
            entries.push(Entry::StreamClosed { rs, stream, slot, at, by, through: None });
        }
        let reason = "not resumed: its ports are not ours any more".to_owned();
        entries.push(Entry::Ended { rs, at, by, reason, remote_cseq: 0, bye: true });
        let why = "the recorder was restarted and cannot go on".to_owned();
        self.begin(Purpose::Bye(id, why), rs, None, None, Vec::new(), entries);
    }

    /// What was answered comes again, and gets the same answer (F59).
    fn restore_answers(
        &mut self,
        id: DialogId,
        rs: RsId,
        dialog: &DialogState,
        answers: &VecDeque<Answer>,
    ) {
        // Older ones do not come again, and would take the room of those that may.
        let young = |answer: &&Answer| self.now.wall.0 - answer.at.0 < REPEATS_NS;
        for answer in answers.iter().filter(young) {
            let (reply, answered) = (self.answer_again(rs, dialog, answer), &answer.answered);
            self.sip.restore_answer(id, answered.cseq, &answered.method, reply);
        }
    }

    /// The last 200 is repeated until its ACK comes (RFC 3261 §13.3.1.4), beginning when media is
    /// settled.
    fn resume_answer(
        &mut self,
        id: DialogId,
        rs: RsId,
        dialog: &DialogState,
        answers: &VecDeque<Answer>,
    ) {
        let Some(answer) = answers.back() else { return };
        let reply = self.answer_again(rs, dialog, answer);
        let cseq = answer.answered.cseq;
        self.owed.push(Owed { dialog: id, cseq, at: answer.at, reply });
    }

    fn answer_again(&self, rs: RsId, dialog: &DialogState, answer: &Answer) -> Reply {
        let Answer { answered, sdp, timer, .. } = answer;
        let reply = Reply::new(200);
        if answered.method == "INFO" {
            return reply;
        }
        let reply =
            self.capable(reply, dialog.local, transport(dialog), is_sips(&dialog.remote_target));
        let agreed = timer.map(|timer| *self.timer_of(&timer, false).agreed());
        let mut reply = with_timer(reply, agreed);
        if answered.sdp {
            reply = reply.with("Content-Type", "application/sdp");
            reply.body = self.answer_sdp(rs, sdp).into_bytes();
        }
        reply
    }

    /// The same for a journal that does not say which request it was. A number is used once in a
    /// dialog, so that the method need not be known.
    fn restore_answer(&mut self, id: DialogId, dialog: &DialogState, sdp: &str) {
        let mut reply = self
            .capable(
                Reply::new(200),
                dialog.local,
                transport(dialog),
                is_sips(&dialog.remote_target),
            )
            .with("Content-Type", "application/sdp");
        sdp.as_bytes().clone_into(&mut reply.body);
        for method in ["INVITE", "UPDATE"] {
            self.sip.restore_answer(id, dialog.remote_cseq, method, reply.clone());
        }
    }
}

/// Session id and version of an `o=` line (RFC 4566 §5.2).
fn origin(sdp: &str) -> (u64, u64) {
    let line = sdp.lines().find_map(|line| line.strip_prefix("o=")).unwrap_or("");
    let mut fields = line.split(' ').skip(1).map(|field| field.parse().unwrap_or(1));
    (fields.next().unwrap_or(1), fields.next().unwrap_or(1))
}

/// The address of an `o=` line.
pub(super) fn origin_address(sdp: &str) -> Option<IpAddr> {
    sdp.lines().find_map(|line| line.strip_prefix("o="))?.rsplit(' ').next()?.parse().ok()
}

/// The address of the session's `c=` line.
fn connection_address(sdp: &str) -> Option<IpAddr> {
    let mut session = sdp.lines().take_while(|line| !line.starts_with("m="));
    session.find_map(|line| line.strip_prefix("c="))?.rsplit(' ').next()?.parse().ok()
}

fn transport(dialog: &DialogState) -> Transport {
    Transport::from_label(&dialog.transport).unwrap_or(Transport::Udp)
}

/// The journal's form of a dialog as the endpoint wants it.
pub(super) fn snapshot(state: &DialogState) -> DialogSnapshot {
    DialogSnapshot {
        call_id: state.call_id.clone(),
        local_tag: state.local_tag.clone(),
        remote_tag: state.remote_tag.clone(),
        local_uri: state.local_uri.clone(),
        remote_uri: state.remote_uri.clone(),
        remote_target: state.remote_target.clone(),
        route_set: state.route_set.clone(),
        local_cseq: state.local_cseq,
        remote_cseq: state.remote_cseq,
        transport: transport(state),
        peer: state.peer,
        local: state.local,
        identity: state.identity.clone(),
        user: state.user.clone(),
        answered: state.answered.clone().map(|answered| sip::Answered {
            method: answered.method,
            cseq: answered.cseq,
            via: answered.via,
            record_route: answered.record_route,
        }),
        update: state.update,
        refuses_invite: false,
    }
}

/// The endpoint's form of a dialog as the journal keeps it. `sdp`: whether the answer carries one.
pub(super) fn state(snapshot: DialogSnapshot, sdp: bool) -> DialogState {
    DialogState {
        call_id: snapshot.call_id,
        local_tag: snapshot.local_tag,
        remote_tag: snapshot.remote_tag,
        local_uri: snapshot.local_uri,
        remote_uri: snapshot.remote_uri,
        remote_target: snapshot.remote_target,
        route_set: snapshot.route_set,
        local_cseq: snapshot.local_cseq,
        remote_cseq: snapshot.remote_cseq,
        transport: snapshot.transport.label().to_owned(),
        peer: snapshot.peer,
        local: snapshot.local,
        identity: snapshot.identity,
        user: snapshot.user,
        answered: snapshot.answered.map(|answered| Answered {
            method: answered.method,
            cseq: answered.cseq,
            via: answered.via,
            record_route: answered.record_route,
            sdp,
        }),
        update: snapshot.update,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_an_answer_is_found_again() {
        assert_eq!(origin("v=0\r\no=floortape 77 3 IN IP4 127.0.0.1\r\ns=-\r\n"), (77, 3));
        assert_eq!(origin(""), (1, 1));
        let sdp = "v=0\r\no=floortape 77 3 IN IP6 2001:db8::1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
                   m=audio 20000 RTP/AVP 0\r\nc=IN IP4 192.0.2.2\r\n";
        assert_eq!(origin_address(sdp), "2001:db8::1".parse().ok());
        assert_eq!(connection_address(sdp), "192.0.2.1".parse().ok());
        assert_eq!(
            (origin_address(""), connection_address("m=\r\nc=IN IP4 192.0.2.2")),
            (None, None)
        );
    }
}
