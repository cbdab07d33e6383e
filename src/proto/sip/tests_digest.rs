//! Digest at work: challenges, counts, back-off, and what they do to a dialog.

use std::net::IpAddr;

use super::digest::{Algorithm, Challenge, Secret};
use super::guard::{DigestPeer, DigestRules, Guard, Judgement};
use crate::base::limits::SIP_NONCES_MAX;
use crate::base::time::Mono;
use crate::wire::sip::{Message, parse_datagram};

const KEY: [u8; 32] = [7; 32];
const URI: &str = "sip:srs@192.0.2.20";

fn source(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

fn at(ms: u64) -> Mono {
    Mono(ms * 1_000_000)
}

fn secret(password: &str) -> Secret {
    Secret::parse(&format!("alice:{password}")).expect("both")
}

fn rules(md5: bool, password: Option<&str>) -> DigestRules {
    let secret = password.map(secret);
    let peer = DigestPeer { address: None, user: "alice".to_owned(), secret, md5 };
    DigestRules { realm: "floortape".to_owned(), peers: vec![peer], everybody: false }
}

fn guard(md5: bool) -> Guard {
    let mut guard = Guard::new(&[0]);
    guard.set_rules(&KEY, rules(md5, Some("secret")));
    guard
}

fn request(user: &str, authorization: Option<&str>) -> Message {
    let field = authorization.map_or(String::new(), |value| format!("Authorization: {value}\r\n"));
    let text = format!(
        "INVITE {URI} SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;branch=z9hG4bK1\r\n\
         From: <sip:{user}@desk.example>;tag=1\r\nTo: <{URI}>\r\nCall-ID: c\r\nCSeq: 1 INVITE\r\n\
         {field}Content-Length: 0\r\n\r\n"
    );
    parse_datagram(text.as_bytes()).expect("whole")
}

fn judge(guard: &mut Guard, now: u64, from: u8, authorization: Option<&str>) -> Judgement {
    guard.judge(at(now), source(from), false, None, &request("alice", authorization))
}

fn challenges(judgement: &Judgement) -> Vec<Challenge> {
    let Judgement::Challenge(values) = judgement else { panic!("no challenge: {judgement:?}") };
    values.iter().map(|value| Challenge::parse(value).expect("ours")).collect()
}

fn answer(challenge: &Challenge, password: &str, count: u32) -> String {
    challenge.answer(&secret(password), ("INVITE", URI), (count, "cnonce"))
}

fn passes(judgement: &Judgement) -> bool {
    *judgement == Judgement::Pass(Some("alice".to_owned()))
}

#[test]
fn rfc8760_the_strongest_is_offered_first_and_md5_to_a_named_peer_only() {
    let offered = |md5| -> Vec<Algorithm> {
        let found = challenges(&judge(&mut guard(md5), 1, 1, None));
        found.iter().map(|challenge| challenge.algorithm).collect()
    };
    assert_eq!(offered(true), Algorithm::ALL);
    assert_eq!(offered(false), [Algorithm::Sha512_256, Algorithm::Sha256]);
    for (md5, algorithm, taken) in [
        (false, Algorithm::Sha512_256, true),
        (false, Algorithm::Sha256, true),
        (true, Algorithm::Md5, true),
        // Nobody offered it.
        (false, Algorithm::Md5, false),
    ] {
        let mut guard = guard(md5);
        let mut challenge = challenges(&judge(&mut guard, 1, 1, None)).remove(0);
        challenge.algorithm = algorithm;
        let judged = judge(&mut guard, 2, 1, Some(&answer(&challenge, "secret", 1)));
        assert_eq!(passes(&judged), taken, "{algorithm:?}");
    }
}

#[test]
fn others_are_not_asked_unless_everybody_is() {
    let mut guard = guard(false);
    let ask = |guard: &mut Guard, certified| {
        guard.judge(at(1), source(1), certified, None, &request("bob", None))
    };
    assert_eq!(ask(&mut guard, false), Judgement::Pass(None));
    guard.set_rules(&KEY, DigestRules { everybody: true, ..rules(false, Some("secret")) });
    assert!(matches!(ask(&mut guard, false), Judgement::Challenge(_)));
    assert_eq!(ask(&mut guard, true), Judgement::Pass(None));
}

#[test]
fn a_peer_whose_password_cannot_be_read_is_never_taken() {
    let mut guard = guard(false);
    guard.set_rules(&KEY, rules(false, None));
    let challenge = challenges(&judge(&mut guard, 1, 1, None)).remove(0);
    assert!(!passes(&judge(&mut guard, 2, 1, Some(&answer(&challenge, "secret", 1)))));
}

#[test]
fn a_count_is_taken_once_in_any_order() {
    let mut guard = guard(false);
    let challenge = challenges(&judge(&mut guard, 1, 1, None)).remove(0);
    let mut use_it = |count| judge(&mut guard, 2, 1, Some(&answer(&challenge, "secret", count)));
    for count in [1, 3, 2, 70, 69, 7] {
        assert!(passes(&use_it(count)), "{count}");
    }
    for count in [1, 3, 70, 69, 7, 6, 0] {
        assert!(challenges(&use_it(count))[0].stale, "{count}");
    }
    assert_eq!(guard.failures, 0, "a replay is no guess");
}

#[test]
fn a_nonce_outlives_its_process_but_neither_its_time_nor_its_source() {
    let mut before = guard(false);
    let challenge = challenges(&judge(&mut before, 1_000, 1, None)).remove(0);
    let own = answer(&challenge, "secret", 1);
    assert!(passes(&judge(&mut guard(false), 2_000, 1, Some(&own))), "a successor takes it");
    let old = judge(&mut guard(false), 302_000, 1, Some(&own));
    assert!(challenges(&old)[0].stale);
    let mut after = guard(false);
    assert!(!challenges(&judge(&mut after, 2_000, 2, Some(&own)))[0].stale, "another source");
    let mut other = Guard::new(&[0]);
    other.set_rules(&[8; 32], rules(false, Some("secret")));
    assert!(!passes(&judge(&mut other, 2_000, 1, Some(&own))), "another machine's");
    assert_eq!((after.failures, other.failures), (0, 0));
}

#[test]
fn f56_guessing_makes_its_source_wait_and_nobody_else() {
    let mut guard = guard(false);
    let mut now = 1_000;
    for round in 0..3 {
        let challenge = challenges(&judge(&mut guard, now, 1, None)).remove(0);
        let judged = judge(&mut guard, now, 1, Some(&answer(&challenge, "guess", 1)));
        assert!(matches!(judged, Judgement::Challenge(_)), "{round}");
    }
    for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
        let challenge = challenges(&judge(&mut guard, now, 1, None)).remove(0);
        judge(&mut guard, now, 1, Some(&answer(&challenge, "guess", 1)));
        // The right password does not help while it waits: that would be a guess as well.
        let right = answer(&challenge, "secret", 2);
        assert_eq!(judge(&mut guard, now, 1, Some(&right)), Judgement::Wait(wait));
        let own = challenges(&judge(&mut guard, now, 2, None)).remove(0);
        assert!(passes(&judge(&mut guard, now, 2, Some(&answer(&own, "secret", 1)))));
        now += wait * 1_000;
    }
    let challenge = challenges(&judge(&mut guard, now, 1, None)).remove(0);
    assert!(passes(&judge(&mut guard, now, 1, Some(&answer(&challenge, "secret", 1)))));
    // Right once: it begins anew.
    judge(&mut guard, now, 1, Some(&answer(&challenge, "guess", 2)));
    assert!(passes(&judge(&mut guard, now, 1, Some(&answer(&challenge, "secret", 3)))));
    assert_eq!(guard.failures, 3 + 8 + 1);
    // Said once, when the wait began, and of the source that guessed.
    let said: Vec<_> = guard.guessing.iter().map(|said| (said.source, said.failures)).collect();
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!((said[0].1, guard.guessing[0].user.as_str()), (4, "alice"));
}

#[test]
fn what_is_kept_of_nonces_is_bounded_and_forgets_no_use() {
    let mut guard = guard(false);
    let mut first = None;
    for number in 0..=SIP_NONCES_MAX as u64 {
        let challenge = challenges(&judge(&mut guard, 1_000 + number, 1, None)).remove(0);
        let own = answer(&challenge, "secret", 1);
        assert!(passes(&judge(&mut guard, 10_000, 1, Some(&own))));
        first.get_or_insert(challenge);
    }
    let first = first.expect("one at least");
    for count in [1, 2] {
        let again = judge(&mut guard, 10_000, 1, Some(&answer(&first, "secret", count)));
        assert!(challenges(&again)[0].stale, "forgotten for want of room: {count}");
    }
}
