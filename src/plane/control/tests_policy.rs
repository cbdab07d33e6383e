//! The recording policy between a scripted SRC, a scripted media and a scripted journal.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Input;
use super::tests::{Bench, request};
use super::tests_timers::with;
use crate::config::model::{Config, Peer, PeerMatch};
use crate::config::policy::{Policy, Rest, Rule, Sources};
use crate::plane::handoff::frame::Frame;
use crate::store::event::Origin;
use crate::store::journal::Standings;
use crate::store::journal::entry::{Entry, StreamOpened};
use crate::wire::sip::Message;

const UPDATE: &str = "Allow: INVITE, UPDATE\r\n";

fn rule(name: &str, record: bool, aor: &str) -> Rule {
    let aor = aor.to_owned().try_into().expect("a pattern");
    Rule {
        name: name.to_owned(),
        record,
        peer: None,
        aor: Some(vec![aor]),
        label: None,
        media: None,
        codec: None,
    }
}

/// Calls of bob are private.
fn private() -> Policy {
    Policy { rules: vec![rule("private", false, "sip:bob@*")], ..Policy::default() }
}

fn under(policy: Policy) -> Bench {
    let mut bench = Bench::up(8);
    reload(&mut bench, policy);
    bench
}

fn reload(bench: &mut Bench, policy: Policy) {
    let mut config = Config { policy, ..Config::default() };
    config.media.streams_max = 8;
    let config = serde_json::to_string(&config).expect("JSON");
    bench.input(Input::Keeper(Frame::Reload { config }));
}

/// A document of calls: each a CS, who is in it, and its label.
fn document(calls: &[(&str, &[&str], &str)]) -> String {
    let mut xml = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">".to_owned();
    for (cs, people, label) in calls {
        xml += &format!("<session session_id=\"{cs}\"/>");
        for who in *people {
            xml += &format!(
                "<participant participant_id=\"p-{who}\"><nameID aor=\"sip:{who}@x\"><name>{who} Q</name>\
                 </nameID></participant><participantsessionassoc participant_id=\"p-{who}\" \
                 session_id=\"{cs}\"/>"
            );
        }
        xml += &format!(
            "<stream stream_id=\"s-{label}\" session_id=\"{cs}\"><label>{label}</label></stream>"
        );
    }
    xml + "</recording>"
}

fn sdp(version: u32, labels: &[&str]) -> String {
    let lines: String = labels
        .iter()
        .map(|label| format!("m=audio 4000 RTP/AVP 0\r\na=sendonly\r\na=label:{label}\r\n"))
        .collect();
    format!(
        "v=0\r\no=src 1 {version} IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n{lines}"
    )
}

/// A request with an offer and a document.
fn both(method: &str, cseq: u32, tag: &str, sdp: &str, xml: &str) -> String {
    let body = format!(
        "--e\r\nContent-Type: application/sdp\r\n\r\n{sdp}\r\n--e\r\n\
         Content-Type: application/rs-metadata+xml\r\nContent-Disposition: recording-session\r\n\r\n\
         {xml}\r\n--e--\r\n"
    );
    let text = request(method, "call-1", cseq, tag, &body);
    with(&text, UPDATE).replacen(
        "Content-Type: application/sdp",
        "Content-Type: multipart/mixed;boundary=e",
        1,
    )
}

/// An UPDATE with a document alone.
fn tell(bench: &mut Bench, cseq: u32, xml: &str) {
    let text = request("UPDATE", "call-1", cseq, &bench.tag(), xml);
    bench.datagram(&text.replace("application/sdp", "application/rs-metadata+xml"));
}

/// Media and journal agree to all.
fn agree(bench: &mut Bench) {
    while !(bench.media.is_empty() && bench.jobs.is_empty()) {
        bench.media_agrees();
        bench.journal_syncs();
    }
}

/// An RS of a call of ann and cid on line 1.
fn started() -> Bench {
    let mut bench = under(private());
    let xml = document(&[("c1", &["ann", "cid"], "1")]);
    bench.datagram(&both("INVITE", 1, "", &sdp(1, &["1"]), &xml));
    agree(&mut bench);
    assert_eq!(bench.codes(), [200]);
    let tag = bench.tag();
    bench.datagram(&request("ACK", "call-1", 1, &tag, ""));
    bench
}

fn stream(bench: &Bench, place: usize) -> StreamOpened {
    let session = bench.control.sessions.values().next().expect("an RS");
    session.streams[place].clone()
}

/// Whether media was asked to pause (or not) by policy.
fn asked(bench: &Bench, wanted: bool) -> bool {
    bench.media.iter().any(|asked| match &asked.frame {
        Frame::Update { stream, by } => stream.active == wanted && *by == Origin::Srs,
        _ => false,
    })
}

/// All that the journal keeps, bodies decoded.
fn kept(bench: &Bench) -> String {
    let text = |entry: &Entry| match entry {
        Entry::Body { bytes, .. } => {
            String::from_utf8_lossy(&STANDARD.decode(bytes).expect("base64")).into_owned()
        }
        other => serde_json::to_string(other).expect("JSON"),
    };
    bench.journal.iter().map(text).collect::<Vec<_>>().join("\n")
}

fn offers(bench: &Bench) -> Vec<Message> {
    let is_offer = |one: &&Message| one.code().is_none() && !one.body.is_empty();
    bench.sent.iter().filter(is_offer).cloned().collect()
}

fn answer(bench: &mut Bench, code: u16, sdp: &str) {
    let offer = offers(bench).pop().expect("an offer");
    let mut text = format!("SIP/2.0 {code} Answer\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        text += &format!("{name}: {}\r\n", offer.headers.get(name).expect("it has it"));
    }
    text += "Contact: <sip:src@192.0.2.10>;+sip.src\r\nContent-Type: application/sdp\r\n";
    bench.datagram(&format!("{text}Content-Length: {}\r\n\r\n{sdp}", sdp.len()));
}

fn body(message: &Message) -> String {
    String::from_utf8_lossy(&message.body).into_owned()
}

#[test]
fn a_call_of_which_nothing_is_wanted_gets_403_and_leaves_a_count() {
    let mut bench = under(private());
    bench.log.clear();
    let xml = document(&[("c1", &["ann", "bob"], "1")]);
    bench.datagram(&both("INVITE", 1, "", &sdp(1, &["1"]), &xml));
    assert_eq!(bench.codes(), [403]);
    let said = bench.last().headers.get("Warning").expect("why").to_owned();
    assert!(said.contains("recording policy") && !said.contains("bob"), "{said}");
    assert!(bench.media.is_empty() && bench.jobs.is_empty() && bench.log.is_empty());
    bench.nothing_is_left();
    let told = bench.control.refused_lately().expect("a count");
    assert!(told.ends_with("1 not recorded by policy: 1 by rule \"private\""), "{told}");
    assert_eq!(bench.control.refused_lately(), None);
    // Listed: what no rule asks for is refused in the same way.
    let listed = Policy {
        record: Rest::Listed,
        rules: vec![rule("ann", true, "sip:ann@x")],
        ..Policy::default()
    };
    let mut bench = under(listed);
    bench.datagram(&both("INVITE", 1, "", &sdp(1, &["1"]), &document(&[("c", &["dan"], "1")])));
    assert_eq!(bench.codes(), [403]);
    bench.datagram(&both("INVITE", 2, "", &sdp(1, &["1"]), "<broken").replace("call-1", "call-2"));
    assert_eq!(bench.codes(), [403, 403]);
    bench.datagram(&both("INVITE", 3, "", &sdp(1, &["1"]), &xml).replace("call-1", "call-3"));
    agree(&mut bench);
    assert_eq!(bench.codes(), [403, 403, 200]);
    assert!(bench.control.refused_lately().is_some_and(|told| told.contains("2 by no rule asks")));
}

#[test]
fn of_two_calls_the_private_one_gets_port_0_and_its_names_are_kept_nowhere() {
    let mut bench = under(private());
    let xml = document(&[("c1", &["ann", "cid"], "1"), ("c2", &["dan", "bob"], "2")]);
    let offer = sdp(1, &["1", "2"]).replace("a=label:2", "a=label:2\r\na=ssrc:7 cname:bob@x");
    bench.datagram(&both("INVITE", 1, "", &offer, &xml));
    agree(&mut bench);
    assert_eq!(bench.codes(), [200]);
    assert!(body(bench.last()).contains("m=audio 0 RTP/AVP 0"), "{}", body(bench.last()));
    assert_eq!(bench.control.slots.used(), 1);
    let kept = kept(&bench);
    assert!(kept.contains("sip:ann@x") && kept.contains("cid Q"), "{kept}");
    assert!(!kept.contains("bob@x") && !kept.contains("bob Q"), "{kept}");
    assert!(!kept.contains("dan@x") && !kept.contains("dan Q"), "{kept}");
    assert!(!kept.contains("\"c2\"") && !kept.contains("p-bob"), "no UUIDs: {kept}");
    assert!(kept.contains("<stream stream_id=\"s-2\""), "what is odd can still be told: {kept}");
    assert!(
        kept.contains("m-line 2 is not recorded: the recording policy leaves it out"),
        "{kept}"
    );
    // Nor are they kept from its end.
    let tag = bench.tag();
    let bye = request("BYE", "call-1", 2, &tag, &xml);
    bench.datagram(&bye.replace("application/sdp", "application/rs-metadata+xml"));
    agree(&mut bench);
    let kept = self::kept(&bench);
    assert_eq!(kept.matches("sip:ann@x").count(), 2, "{kept}");
    assert!(!kept.contains("bob") || !kept.contains("bob@x"), "{kept}");
}

#[test]
fn a_party_that_makes_a_call_private_pauses_it_before_the_200_and_the_src_is_told() {
    let mut bench = started();
    tell(&mut bench, 2, &document(&[("c1", &["ann", "bob"], "1")]));
    assert!(asked(&bench, false), "at once");
    bench.journal_syncs();
    assert_eq!(bench.codes(), [200], "media has not paused it yet");
    bench.media_agrees();
    assert_eq!(bench.codes(), [200, 200]);
    assert_eq!((stream(&bench, 0).active, stream(&bench, 0).barred), (false, Some(true)));
    agree(&mut bench);
    let told = offers(&bench);
    assert_eq!(told.len(), 1);
    assert!(body(&told[0]).contains("a=inactive"), "{}", body(&told[0]));
    answer(&mut bench, 200, &sdp(2, &["1"]).replace("sendonly", "inactive"));
    agree(&mut bench);
    assert_eq!(stream(&bench, 0).barred, Some(true), "that it does not send is our word");
    let kept = kept(&bench);
    assert!(!kept.contains("bob@x") && !kept.contains("bob Q"), "{kept}");
    assert!(kept.contains("m-line 1 rests: the recording policy leaves it out: rule"), "{kept}");
    let paused =
        |entry: &Entry| matches!(entry, Entry::Direction { active: false, by: Origin::Srs, .. });
    assert!(bench.journal.iter().any(paused));
    // An offer does not undo it; the answer says so, and names nobody.
    let tag = bench.tag();
    bench.datagram(&with(&request("INVITE", "call-1", 3, &tag, &sdp(3, &["1"])), UPDATE));
    agree(&mut bench);
    let answered = bench.last_200().clone();
    assert!(body(&answered).contains("a=inactive"), "{}", body(&answered));
    bench.datagram(&request("ACK", "call-1", 3, &tag, ""));
    assert!(!stream(&bench, 0).active);
    // She is alone with Cid again.
    tell(&mut bench, 4, &document(&[("c1", &["ann", "cid"], "1")]));
    assert!(asked(&bench, true));
    agree(&mut bench);
    assert_eq!((stream(&bench, 0).active, stream(&bench, 0).barred), (true, None));
    let told = offers(&bench);
    assert!(body(told.last().expect("one")).contains("a=recvonly"), "{told:?}");
    answer(&mut bench, 200, &sdp(4, &["1"]));
    agree(&mut bench);
    assert!(stream(&bench, 0).active);
    // Bob is back, by an offer this time: its answer says it all.
    let xml = document(&[("c1", &["ann", "bob"], "1")]);
    bench.datagram(&both("INVITE", 5, &tag, &sdp(5, &["1"]), &xml));
    assert!(asked(&bench, false), "at once");
    let before = offers(&bench).len();
    agree(&mut bench);
    assert!(body(bench.last_200()).contains("a=inactive"), "{}", body(bench.last_200()));
    assert_eq!(offers(&bench).len(), before);
    assert_eq!(stream(&bench, 0).barred, Some(true));
    assert!(!self::kept(&bench).contains("bob@x"));
    assert_eq!(bench.control.live(), 1);
}

#[test]
fn an_operator_s_pause_and_a_rule_s_are_two() {
    use super::{Asked, Verb};
    let mut bench = started();
    let rs = *bench.control.sessions.keys().next().expect("an RS");
    bench.input(Input::Asked(Asked { id: 1, uid: 7, verb: Verb::Pause { rs } }));
    agree(&mut bench);
    answer(&mut bench, 200, &sdp(2, &["1"]).replace("sendonly", "inactive"));
    agree(&mut bench);
    tell(&mut bench, 2, &document(&[("c1", &["ann", "bob"], "1")]));
    agree(&mut bench);
    assert_eq!(stream(&bench, 0).barred, Some(true));
    // The operator's is over: the rule's is not.
    bench.input(Input::Asked(Asked { id: 2, uid: 7, verb: Verb::Resume { rs } }));
    agree(&mut bench);
    let told = offers(&bench);
    assert!(body(told.last().expect("one")).contains("a=inactive"), "{told:?}");
    answer(&mut bench, 200, &sdp(3, &["1"]).replace("sendonly", "inactive"));
    agree(&mut bench);
    assert_eq!(bench.outcomes.last(), Some(&(2, super::Outcome::Done)));
    assert!(!stream(&bench, 0).active);
    // Then the rule's is.
    tell(&mut bench, 3, &document(&[("c1", &["ann"], "1")]));
    agree(&mut bench);
    assert!(stream(&bench, 0).active && stream(&bench, 0).barred.is_none());
}

#[test]
fn a_new_line_of_a_private_call_gets_port_0_and_the_running_one_goes_on() {
    let mut bench = started();
    let tag = bench.tag();
    let xml = document(&[("c1", &["ann", "cid"], "1"), ("c2", &["bob"], "2")]);
    bench.datagram(&both("INVITE", 2, &tag, &sdp(2, &["1", "2"]), &xml));
    agree(&mut bench);
    let answered = body(bench.last_200());
    assert!(answered.contains("m=audio 0 ") && answered.contains("a=recvonly"), "{answered}");
    assert!(stream(&bench, 0).active && bench.control.slots.used() == 1);
    assert!(!kept(&bench).contains("bob@x"), "{}", kept(&bench));
    bench.datagram(&request("ACK", "call-1", 2, &tag, ""));
    // Offered again once it is another's, it is recorded, whatever the version says.
    let xml = document(&[("c1", &["ann", "cid"], "1"), ("c3", &["eve"], "2")]);
    bench.datagram(&both("INVITE", 3, &tag, &sdp(2, &["1", "2"]), &xml));
    agree(&mut bench);
    assert_eq!(bench.control.slots.used(), 2);
    let kept = kept(&bench);
    assert!(kept.contains("eve@x") && !kept.contains("under the same o= version"), "{kept}");
}

#[test]
fn what_is_forbidden_rests_also_when_the_request_that_said_so_is_refused() {
    let mut bench = started();
    let private = document(&[("c1", &["ann", "bob"], "1")]);
    tell(&mut bench, 2, &private);
    bench.media_agrees();
    // The journal takes it too late.
    bench.tick(500);
    agree(&mut bench);
    assert_eq!(bench.codes(), [200, 503]);
    assert_eq!((stream(&bench, 0).active, stream(&bench, 0).barred), (false, Some(true)));
    // And at once where nothing is taken at all.
    let mut bench = started();
    let error = Some(super::NotDurable::Journal("EIO".to_owned()));
    bench.input(Input::Persisted { token: 0, error });
    tell(&mut bench, 2, &private);
    assert_eq!(bench.codes(), [200, 503]);
    assert!(asked(&bench, false));
    assert_eq!(stream(&bench, 0).barred, Some(true));
}

#[test]
fn what_is_forbidden_while_another_change_is_under_way_rests_and_stays_so() {
    let mut bench = started();
    let tag = bench.tag();
    bench.datagram(&with(&request("INVITE", "call-1", 2, &tag, &sdp(2, &["1", "2"])), UPDATE));
    tell(&mut bench, 3, &document(&[("c1", &["ann", "bob"], "1")]));
    assert_eq!(bench.codes(), [200, 500]);
    assert!(asked(&bench, false), "at once");
    agree(&mut bench);
    bench.tick(100);
    agree(&mut bench);
    assert_eq!(bench.codes(), [200, 500, 200]);
    bench.datagram(&request("ACK", "call-1", 2, &tag, ""));
    assert_eq!((stream(&bench, 0).active, stream(&bench, 0).barred), (false, Some(true)));
    assert!(stream(&bench, 1).active, "of the other line nothing was said");
    // Nor does an offer undo it that comes before the document is said again.
    bench.datagram(&with(&request("INVITE", "call-1", 4, &tag, &sdp(3, &["1", "2"])), UPDATE));
    agree(&mut bench);
    assert_eq!(stream(&bench, 0).barred, Some(true));
    assert!(body(bench.last_200()).contains("a=inactive"));
}

#[test]
fn what_rests_does_so_behind_a_restart_until_a_complete_document_says_otherwise() {
    let mut before = started();
    tell(&mut before, 2, &document(&[("c1", &["ann", "bob"], "1")]));
    agree(&mut before);
    let mut bench = under(private());
    bench.now = before.now;
    bench.control.recover(bench.clock(), &Standings::of(&before.journal));
    bench.input(Input::MediaUp);
    bench.media_holds(&before.held());
    agree(&mut bench);
    assert_eq!(stream(&bench, 0).barred, Some(true));
    let tag = before.tag();
    bench.sent = before.sent;
    bench.datagram(&with(&request("INVITE", "call-1", 3, &tag, &sdp(3, &["1"])), UPDATE));
    agree(&mut bench);
    assert!(body(bench.last_200()).contains("a=inactive"));
    bench.datagram(&request("ACK", "call-1", 3, &tag, ""));
    let partial = |xml: String| xml.replacen(":1\">", ":1\"><datamode>partial</datamode>", 1);
    tell(&mut bench, 4, &partial(document(&[("c2", &["eve"], "9")])));
    agree(&mut bench);
    assert_eq!(stream(&bench, 0).barred, Some(true), "who was on line 1 is not known");
    assert!(!kept(&bench).contains("eve@x"), "nor whether Eve may be named: {}", kept(&bench));
    tell(&mut bench, 5, &document(&[("c1", &["ann", "cid"], "1")]));
    agree(&mut bench);
    assert_eq!(stream(&bench, 0).barred, None);
    assert!(kept(&bench).contains("cid@x"));
}

#[test]
fn a_reload_holds_from_the_next_document_on() {
    let mut bench = Bench::up(8);
    let xml = document(&[("c1", &["ann", "bob"], "1")]);
    bench.datagram(&both("INVITE", 1, "", &sdp(1, &["1"]), &xml));
    agree(&mut bench);
    let tag = bench.tag();
    bench.datagram(&request("ACK", "call-1", 1, &tag, ""));
    assert!(kept(&bench).contains("bob@x"));
    reload(&mut bench, private());
    assert!(stream(&bench, 0).active, "what runs goes on");
    bench.tick(1_000);
    let asked = |message: &&Message| message.method() == Some("UPDATE");
    let update = bench.sent.iter().find(asked).expect("a snapshot is asked for");
    assert!(body(update).contains("requestsnapshot"), "{update:?}");
    super::tests_timers::answers(&mut bench, 200, "");
    tell(&mut bench, 2, &xml);
    agree(&mut bench);
    assert_eq!(stream(&bench, 0).barred, Some(true));
    reload(&mut bench, Policy::default());
    assert_eq!(stream(&bench, 0).barred, Some(true));
}

#[test]
fn metadata_in_clear_and_strangers_are_refused_each_with_its_reason() {
    let policy = Policy { secure_signalling: true, ..Policy::default() };
    let mut bench = started();
    reload(&mut bench, policy.clone());
    let before = bench.codes().len();
    tell(&mut bench, 2, &document(&[("c1", &["ann", "eve"], "1")]));
    assert_eq!(bench.codes()[before..], [403]);
    let why = bench.last().headers.get("Warning").expect("why");
    assert!(why.contains("over TLS only"), "{why}");
    bench.datagram(&request("INVITE", "call-9", 1, "", &sdp(1, &["1"])));
    bench.datagram(&request("OPTIONS", "call-8", 1, "", ""));
    assert_eq!(bench.codes()[before..], [403, 403, 403]);
    // An end is an end; what it carries is not kept.
    let bye = request("BYE", "call-1", 3, &bench.tag(), &document(&[("c1", &["eve"], "1")]));
    bench.datagram(&bye.replace("application/sdp", "application/rs-metadata+xml"));
    agree(&mut bench);
    assert_eq!(bench.codes().last(), Some(&200));
    assert!(!kept(&bench).contains("eve@x"), "{}", kept(&bench));
    let told = bench.control.refused_lately().expect("a count");
    assert!(told.contains("3 by policy.secure_signalling"), "{told}");

    let mut bench = under(Policy { sources: Sources::Peers, ..Policy::default() });
    bench.datagram(&request("INVITE", "call-1", 1, "", &sdp(1, &["1"])));
    assert_eq!(bench.codes(), [403]);
    let mut config = Config::default();
    config.policy.sources = Sources::Peers;
    config.peers.push(peer());
    let config = serde_json::to_string(&config).expect("JSON");
    bench.input(Input::Keeper(Frame::Reload { config }));
    bench.datagram(&request("INVITE", "call-2", 1, "", &sdp(1, &["1"])));
    agree(&mut bench);
    assert_eq!(bench.codes(), [403, 200]);
}

fn peer() -> Peer {
    Peer {
        name: "sbc-1".to_owned(),
        matches: PeerMatch::Address([192, 0, 2, 10].into()),
        digest: None,
        digest_md5: false,
        strict: None,
        srtp: None,
        suites: None,
        unencrypted: None,
        secure_signalling: None,
        nat: false,
        call: None,
    }
}

#[test]
fn what_is_not_encrypted_is_taken_from_the_peer_that_is_named_for_it() {
    let line = format!("a=crypto:1 AES_CM_256_HMAC_SHA1_80 inline:{}", "A".repeat(62));
    let offer = sdp(1, &["1"]).replace("RTP/AVP", "RTP/SAVP");
    let offer = format!("{offer}{line} UNENCRYPTED_SRTP\r\n");
    let mut bench = Bench::up(8);
    let rules = [(false, None, 488), (true, Some(false), 488), (false, Some(true), 200)];
    for ((general, own, code), call) in rules.into_iter().zip(["call-1", "call-2", "call-3"]) {
        let mut config = Config::default();
        config.media.streams_max = 8;
        config.media.unencrypted = general;
        config.peers.push(Peer { unencrypted: own, ..peer() });
        let config = serde_json::to_string(&config).expect("JSON");
        bench.input(Input::Keeper(Frame::Reload { config }));
        bench.datagram(&request("INVITE", call, 1, "", &offer));
        agree(&mut bench);
        assert_eq!(bench.codes().last(), Some(&code), "{general}, {own:?}");
    }
    let answer = String::from_utf8_lossy(&bench.last().body).into_owned();
    let line = answer.lines().find(|line| line.starts_with("a=crypto:")).expect("secure");
    assert!(line.starts_with("a=crypto:1 AES_CM_256_HMAC_SHA1_80 inline:"), "{line}");
    assert!(line.ends_with(" UNENCRYPTED_SRTP"), "{line}");
    let kept = stream(&bench, 0).description.suite.expect("SRTP").to_string();
    assert_eq!(kept, "AES_CM_256_HMAC_SHA1_80 UNENCRYPTED_SRTP");
}
