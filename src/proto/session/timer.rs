//! Session timers (RFC 4028): what is agreed with a peer, when a refresh is due, and what becomes of
//! an RS whose timer has run out (F51).
//!
//! Media first: an RS from which media still comes is not ended because its signalling is silent. It
//! is an *orphan*: it goes on being recorded, its SRC is asked by re-INVITE, and it ends when nothing
//! has been heard of it for [`SILENT_MS`].

use crate::base::time::{ClockMap, Mono};
use crate::wire::sip::{Headers, Params};

/// An orphan of which neither media nor RTCP came for this long is over (F51).
pub const SILENT_MS: u64 = 30_000;
/// How often the SRC of an orphan is asked whether it is there.
const CALL_AGAIN_MS: u64 = 30_000;
/// How often media is asked while it has not answered.
const ASK_AGAIN_MS: u64 = 5_000;

/// Who refreshes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresher {
    /// We do.
    Us,
    /// The peer does.
    Peer,
}

/// What is agreed for one dialog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Session interval, seconds.
    pub interval_s: u32,
    /// Who refreshes it.
    pub refresher: Refresher,
    /// The peer knows session timers: it counts too.
    pub peer: bool,
}

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerRules {
    /// Least interval taken, seconds.
    pub min_se_s: u32,
    /// Interval that we want, seconds; longer ones are lowered to it. 0: what the peer wants, and no
    /// timer where it wants none.
    pub session_expires_s: u32,
}

/// The interval is below ours: 422 with this Min-SE (RFC 4028 §9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooBrief(pub u32);

/// A Session-Expires value: seconds, and the refresher as the message names it.
fn session_expires(headers: &Headers) -> Option<(u32, Option<String>)> {
    let value = headers.get("Session-Expires")?;
    let (seconds, rest) =
        value.split_once(';').map_or((value, ""), |(seconds, rest)| (seconds, rest));
    let params = Params::parse(rest);
    Some((seconds.trim().parse().ok()?, params.get("refresher").map(str::to_ascii_lowercase)))
}

fn min_se(headers: &Headers) -> Option<u32> {
    headers.get("Min-SE")?.split(';').next()?.trim().parse().ok()
}

fn lists(headers: &Headers, name: &str, tag: &str) -> bool {
    headers.list(name).any(|found| found.trim().eq_ignore_ascii_case(tag))
}

/// Decides what a re-/INVITE or UPDATE of the peer comes to (RFC 4028 §9). `None`: no timer.
///
/// Where the choice of the refresher is ours we take it: a peer has then nothing to do, and its
/// answers tell us that it is there.
pub fn judge_timer(headers: &Headers, rules: &TimerRules) -> Result<Option<Agreed>, TooBrief> {
    let peer = lists(headers, "Supported", "timer") || lists(headers, "Require", "timer");
    let asked = session_expires(headers);
    if let Some((seconds, _)) = asked
        && seconds < rules.min_se_s
        && peer
    {
        return Err(TooBrief(rules.min_se_s));
    }
    // A proxy wrote it for a peer that would not understand the 422.
    let asked = asked.filter(|(seconds, _)| *seconds >= rules.min_se_s);
    let floor = min_se(headers).unwrap_or(0).max(rules.min_se_s);
    let interval_s = match (&asked, rules.session_expires_s) {
        (None, 0) => return Ok(None),
        (None, wanted) => wanted.max(floor),
        (Some((seconds, _)), 0) => *seconds,
        (Some((seconds, _)), wanted) => (*seconds).min(wanted.max(floor)),
    };
    let named = asked.and_then(|(_, refresher)| refresher);
    let refresher = match named.as_deref() {
        Some("uac") if peer => Refresher::Peer,
        _ => Refresher::Us,
    };
    Ok(Some(Agreed { interval_s, refresher, peer }))
}

impl Agreed {
    /// Header fields of the 2xx to a request of the peer (RFC 4028 §9, table 2).
    pub fn of_answer(&self) -> Vec<(String, String)> {
        let refresher = match self.refresher {
            Refresher::Us => "uas",
            Refresher::Peer => "uac",
        };
        let value = format!("{};refresher={refresher}", self.interval_s);
        let mut fields = vec![("Session-Expires".to_owned(), value)];
        if self.refresher == Refresher::Peer {
            fields.push(("Require".to_owned(), "timer".to_owned()));
        }
        fields
    }

    /// Header fields of a request of ours that refreshes (RFC 4028 §7.4).
    pub fn of_request(&self, rules: &TimerRules) -> Vec<(String, String)> {
        // Who refreshes stays as it is (RFC 4028 §7.4): the parameter names roles of this request.
        let refresher = match self.refresher {
            Refresher::Us => "uac",
            Refresher::Peer => "uas",
        };
        vec![
            ("Session-Expires".to_owned(), format!("{};refresher={refresher}", self.interval_s)),
            ("Min-SE".to_owned(), rules.min_se_s.to_string()),
        ]
    }

    /// What the 2xx to a refresh of ours makes of it (RFC 4028 §7.2). A peer that knows timers and
    /// answers without one turns it off; one that does not is refreshed on, so that its silence is
    /// noticed.
    pub fn after(self, answer: &Headers) -> Option<Agreed> {
        match session_expires(answer) {
            Some((seconds, named)) => Some(Agreed {
                // Never at once, whatever a peer says: each refresh would bring the next.
                interval_s: seconds.max(2),
                refresher: match named.as_deref() {
                    Some("uas") => Refresher::Peer,
                    _ => Refresher::Us,
                },
                peer: true,
            }),
            None if self.peer => None,
            None => Some(self),
        }
    }

    /// The interval raised to what a 422 asks for (RFC 4028 §7.3).
    pub fn raised(self, refusal: &Headers) -> Agreed {
        Agreed { interval_s: self.interval_s.max(min_se(refusal).unwrap_or(0)), ..self }
    }

    /// When we refresh, after the last refresh: at half the interval.
    fn refresh_ms(&self) -> u64 {
        u64::from(self.interval_s) * 500
    }

    /// When it has run out: for the side that does not refresh a little early, so that its BYE is no
    /// later than the end (RFC 4028 §10).
    fn expiry_ms(&self) -> u64 {
        let whole = u64::from(self.interval_s) * 1_000;
        match self.refresher {
            Refresher::Us => whole,
            Refresher::Peer => whole - (whole / 3).min(32_000),
        }
    }
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Send a refresh, then say so by [`Timer::asked`].
    Refresh,
    /// Ask the SRC of an orphan by re-INVITE.
    Call,
    /// Find out when the RS was heard last, then say so by [`Timer::heard`].
    Ask,
}

/// What a silent timer means for the RS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The timer runs (again); nothing is to be done.
    Runs,
    /// It goes on being recorded. `first`: it was no orphan before.
    Orphan {
        /// Since now.
        first: bool,
    },
    /// It is over: end it by BYE.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Runs,
    /// Expired: media is asked at that instant.
    Expired {
        ask: Mono,
    },
    /// Media comes all the same.
    Orphan {
        ask: Mono,
        call: Mono,
    },
}

/// The timer of one dialog. Time comes in, what is due comes out.
#[derive(Clone, Debug)]
pub struct Timer {
    agreed: Agreed,
    /// When it was refreshed last, for our refresh and for the end: after a restart the two may
    /// differ.
    since: (Mono, Mono),
    /// Our refresh is not sent before this.
    not_before: Mono,
    /// A refresh of ours is under way.
    asking: bool,
    state: State,
}

impl Timer {
    /// A timer that was agreed, or refreshed, at `now`.
    pub fn new(agreed: Agreed, now: Mono) -> Self {
        let state = State::Runs;
        Timer { agreed, since: (now, now), not_before: now, asking: false, state }
    }

    /// A timer that was refreshed last at `since`, by both clocks, which another process wrote down.
    /// The monotonic clock starts anew with each boot and the wall clock may be set, so that they can
    /// disagree: the earlier end counts for our refresh, the later one for what ends the RS.
    pub fn restored(agreed: Agreed, since: ClockMap, now: ClockMap, orphan: bool) -> Self {
        let by_wall = (now.wall.0 - since.wall.0).max(0) as u64;
        let (least, most) = match now.mono >= since.mono {
            true => {
                let by_mono = now.mono.since(since.mono);
                (by_mono.min(by_wall), by_mono.max(by_wall))
            }
            false => (by_wall, by_wall),
        };
        let before = |age: u64| Mono(now.mono.0.saturating_sub(age));
        let mut timer = Timer::new(agreed, now.mono);
        timer.since = (before(most), before(least));
        if orphan {
            timer.state = State::Orphan { ask: now.mono, call: now.mono };
        }
        timer
    }

    /// What is agreed.
    pub fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// When it was refreshed last, as what ends the RS counts.
    pub fn since(&self) -> Mono {
        self.since.1
    }

    /// Whether its RS is an orphan.
    pub fn is_orphan(&self) -> bool {
        matches!(self.state, State::Orphan { .. })
    }

    /// When [`Self::poll`] has something to say.
    pub fn due(&self) -> Mono {
        match self.state {
            State::Runs => match self.refresh_at() {
                Some(at) => at.min(self.expires_at()),
                None => self.expires_at(),
            },
            State::Expired { ask } => ask,
            State::Orphan { ask, call } => ask.min(call),
        }
    }

    fn refresh_at(&self) -> Option<Mono> {
        let ours = self.agreed.refresher == Refresher::Us && !self.asking;
        ours.then(|| self.since.0.plus_ms(self.agreed.refresh_ms()).max(self.not_before))
    }

    fn expires_at(&self) -> Mono {
        self.since.1.plus_ms(self.agreed.expiry_ms())
    }

    /// What is due at `now`.
    pub fn poll(&mut self, now: Mono) -> Option<Due> {
        if self.due() > now {
            return None;
        }
        let expired = self.expires_at() <= now;
        match &mut self.state {
            State::Runs if expired => {
                self.state = State::Expired { ask: now.plus_ms(ASK_AGAIN_MS) };
                Some(Due::Ask)
            }
            State::Runs => {
                // Whatever comes of it, not at once again.
                self.not_before = now.plus_ms(1_000);
                Some(Due::Refresh)
            }
            State::Orphan { call, .. } if *call <= now => {
                *call = now.plus_ms(CALL_AGAIN_MS);
                Some(Due::Call)
            }
            State::Expired { ask } | State::Orphan { ask, .. } => {
                *ask = now.plus_ms(ASK_AGAIN_MS);
                Some(Due::Ask)
            }
        }
    }

    /// A refresh of ours was sent; its answer comes, or that none comes.
    pub fn asked(&mut self) {
        self.asking = true;
    }

    /// Our refresh could not be sent, or was refused for now: again in `ms`.
    pub fn again_in(&mut self, now: Mono, ms: u64) {
        self.asking = false;
        self.not_before = now.plus_ms(ms);
    }

    /// Our refresh was refused because the interval is too small: at once with a longer one.
    pub fn raise(&mut self, agreed: Agreed) {
        self.asking = false;
        self.agreed = agreed;
    }

    /// Our refresh got no answer: what is heard of the RS decides.
    pub fn unanswered(&mut self, now: Mono) {
        self.asking = false;
        if self.state == State::Runs {
            self.state = State::Expired { ask: now };
        }
    }

    /// When media or RTCP of the RS was authenticated last; `None`: never.
    pub fn heard(&mut self, now: Mono, last: Option<Mono>) -> Fate {
        let first = match self.state {
            State::Runs => return Fate::Runs,
            State::Expired { .. } => true,
            State::Orphan { .. } => false,
        };
        let silent_at = last.map_or(now, |last| last.plus_ms(SILENT_MS));
        if silent_at <= now {
            return Fate::Over;
        }
        let call = match self.state {
            State::Orphan { call, .. } => call,
            _ => now,
        };
        // Nothing to ask before silence could have lasted long enough.
        self.state = State::Orphan { ask: silent_at, call };
        Fate::Orphan { first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Wall;

    const S: u64 = 1_000_000_000;
    const RULES: TimerRules = TimerRules { min_se_s: 90, session_expires_s: 1_800 };

    fn headers(fields: &[(&str, &str)]) -> Headers {
        let mut headers = Headers::default();
        fields.iter().for_each(|(name, value)| headers.push(*name, *value));
        headers
    }

    fn judged(fields: &[(&str, &str)], rules: &TimerRules) -> Option<(u32, Refresher, bool)> {
        let agreed = judge_timer(&headers(fields), rules).expect("long enough")?;
        Some((agreed.interval_s, agreed.refresher, agreed.peer))
    }

    #[test]
    fn an_answer_keeps_to_table_2_of_rfc_4028() {
        use Refresher::{Peer, Us};
        let timer = ("Supported", "100rel, timer");
        for (fields, wanted) in [
            (vec![timer, ("Session-Expires", "600;refresher=uac")], (600, Peer, true)),
            (vec![timer, ("Session-Expires", "600 ; refresher=UAS")], (600, Us, true)),
            (vec![timer, ("Session-Expires", "600")], (600, Us, true)),
            (vec![timer, ("x", "7200;refresher=uac")], (1_800, Peer, true)),
            // Not below what the peer can bear.
            (vec![timer, ("Session-Expires", "7200"), ("Min-SE", "3600")], (3_600, Us, true)),
            (vec![timer], (1_800, Us, true)),
            (vec![], (1_800, Us, false)),
            // Written by a proxy: the peer cannot refresh, nor understand a 422.
            (vec![("Session-Expires", "600;refresher=uac")], (600, Us, false)),
            (vec![("Session-Expires", "20")], (1_800, Us, false)),
            (vec![timer, ("Session-Expires", "soon")], (1_800, Us, true)),
        ] {
            assert_eq!(judged(&fields, &RULES), Some(wanted), "{fields:?}");
        }
        let off = TimerRules { session_expires_s: 0, ..RULES };
        assert_eq!(judged(&[timer], &off), None);
        let asked = [timer, ("Session-Expires", "7200;refresher=uac")];
        assert_eq!(judged(&asked, &off), Some((7_200, Peer, true)));
        let brief = headers(&[timer, ("Session-Expires", "89")]);
        assert_eq!(judge_timer(&brief, &RULES), Err(TooBrief(90)));
    }

    #[test]
    fn what_a_peer_answers_to_our_refresh_counts() {
        let agreed = Agreed { interval_s: 600, refresher: Refresher::Us, peer: true };
        let after = |fields: &[(&str, &str)]| agreed.after(&headers(fields));
        assert_eq!(after(&[]), None, "off");
        let passed_on = after(&[("Session-Expires", "300;refresher=uas")]).expect("on");
        assert_eq!((passed_on.interval_s, passed_on.refresher), (300, Refresher::Peer));
        assert_eq!(after(&[("Session-Expires", "0")]).expect("on").interval_s, 2);
        let unaware = Agreed { peer: false, ..agreed };
        assert_eq!(unaware.after(&headers(&[])), Some(unaware), "refreshed on");
        assert_eq!(agreed.raised(&headers(&[("Min-SE", "900")])).interval_s, 900);
        assert_eq!(agreed.of_request(&RULES)[0].1, "600;refresher=uac");
        assert_eq!(passed_on.of_answer()[1], ("Require".to_owned(), "timer".to_owned()));
    }

    #[test]
    fn we_refresh_at_half_time_and_the_peers_silence_is_noticed_early() {
        let agreed = Agreed { interval_s: 90, refresher: Refresher::Us, peer: true };
        let mut timer = Timer::new(agreed, Mono(0));
        assert_eq!(timer.due(), Mono(45 * S));
        assert_eq!(timer.poll(Mono(45 * S - 1)), None);
        assert_eq!(timer.poll(Mono(45 * S)), Some(Due::Refresh));
        timer.again_in(Mono(45 * S), 2_000);
        assert_eq!(timer.due(), Mono(47 * S));
        assert_eq!(timer.poll(Mono(47 * S)), Some(Due::Refresh));
        timer.asked();
        assert_eq!(timer.due(), Mono(90 * S), "no answer, no second one");
        // 90 s less a third, which is less than 32 s.
        let peers = Agreed { refresher: Refresher::Peer, ..agreed };
        assert_eq!(Timer::new(peers, Mono(0)).due(), Mono(60 * S));
        let long = Agreed { interval_s: 1_800, ..peers };
        assert_eq!(Timer::new(long, Mono(0)).due(), Mono(1_768 * S));
    }

    #[test]
    fn f51_media_keeps_an_expired_rs_until_it_is_silent() {
        let agreed = Agreed { interval_s: 90, refresher: Refresher::Peer, peer: true };
        let mut timer = Timer::new(agreed, Mono(0));
        assert_eq!(timer.poll(Mono(60 * S)), Some(Due::Ask));
        assert_eq!(timer.due(), Mono(65 * S), "media may not answer");
        assert_eq!(timer.heard(Mono(60 * S), Some(Mono(59 * S))), Fate::Orphan { first: true });
        assert!(timer.is_orphan());
        assert_eq!(timer.poll(Mono(60 * S)), Some(Due::Call));
        assert_eq!(timer.poll(Mono(89 * S)), Some(Due::Ask));
        assert_eq!(timer.heard(Mono(89 * S), Some(Mono(89 * S))), Fate::Orphan { first: false });
        assert_eq!(timer.poll(Mono(90 * S)), Some(Due::Call), "again");
        assert_eq!(timer.poll(Mono(119 * S)), Some(Due::Ask));
        assert_eq!(timer.heard(Mono(119 * S), Some(Mono(89 * S))), Fate::Over);
        // Silence from the start is the end at once; an answer that comes late means nothing.
        let mut silent = Timer::new(agreed, Mono(0));
        assert_eq!(silent.heard(Mono(59 * S), None), Fate::Runs);
        assert_eq!(silent.poll(Mono(60 * S)), Some(Due::Ask));
        assert_eq!(silent.heard(Mono(60 * S), None), Fate::Over);
    }

    #[test]
    fn after_a_restart_we_refresh_by_the_earlier_clock_and_end_by_the_later_one() {
        let agreed = Agreed { interval_s: 100, refresher: Refresher::Us, peer: true };
        let map =
            |mono: u64, wall: i64| ClockMap { mono: Mono(mono * S), wall: Wall(wall * S as i64) };
        let since = map(1_000, 5_000);
        let at = |now: ClockMap| {
            let timer = Timer::restored(agreed, since, now, false);
            (timer.refresh_at().expect("ours").0 / S, timer.expires_at().0 / S)
        };
        assert_eq!(at(map(1_010, 5_010)), (1_050, 1_100));
        assert_eq!(at(map(1_010, 5_040)), (1_020, 1_100), "the wall clock was set ahead");
        assert_eq!(at(map(1_040, 5_010)), (1_050, 1_130), "and back");
        assert_eq!(at(map(200, 5_030)), (220, 270), "another boot");
        let mut orphan = Timer::restored(agreed, since, map(1_010, 5_010), true);
        assert_eq!(orphan.poll(Mono(1_010 * S)), Some(Due::Call));
        assert_eq!(orphan.poll(Mono(1_010 * S)), Some(Due::Ask));
    }
}
