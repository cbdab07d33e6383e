//! Claims about recognition, negotiation and what is written.

use super::*;
use crate::base::family::Family;
use crate::base::keyring::Keyring;
use crate::base::secret::MasterKey;
use crate::base::suite::{Suite, Suites};
use crate::wire::sdes::CryptoLine;
use crate::wire::sdp::Description;

const HEAD: &str = "s=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n";

fn sdp(version: u32, media: &str) -> Description {
    let text = format!("v=0\r\no=SRC 1 {version} IN IP4 192.0.2.10\r\n{HEAD}{media}");
    Description::parse(text.as_bytes()).expect("an sdp")
}

fn key(octet: u8, suite: Suite) -> MasterKey {
    MasterKey::new(&vec![octet; suite.master_bytes()]).expect("a suite's length")
}

fn crypto(tag: u32, suite: Suite, octet: u8) -> String {
    format!("a=crypto:{}\r\n", CryptoLine::emit(tag, suite, &key(octet, suite)))
}

fn decide(media: &str) -> Negotiated {
    negotiate(&sdp(1, media), None, &Policy::default())
}

fn body(content_type: &str, bytes: &str) -> Body {
    Body::read(content_type, "", bytes.as_bytes(), &Policy::default()).expect("readable")
}

const ORIGIN: AnswerOrigin = AnswerOrigin {
    session_id: 9,
    version: 1,
    address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 20)),
    connection: std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 20)),
};

fn plain_locals(count: usize) -> Vec<Option<Local<'static>>> {
    (0..count)
        .map(|n| Some(Local { port: 20_000 + 2 * n as u16, key: None, address: None }))
        .collect()
}

const LABELLED: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
    m=audio 5004 RTP/AVP 0\r\na=sendonly\r\na=label:1\r\n";
const PLAIN: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
    m=audio 5004 RTP/AVP 0\r\n";

fn code(recognition: Recognition) -> u16 {
    match recognition {
        Recognition::Rs { .. } => 200,
        Recognition::Refuse(refusal) => refusal.code,
    }
}

#[test]
fn recognition_follows_the_table_of_markers() {
    let metadata = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\"/>";
    let with_metadata = format!(
        "--b\r\nContent-Type: application/sdp\r\n\r\n{PLAIN}\r\n--b\r\n\
         Content-Type: application/rs-metadata\r\n\r\n{metadata}\r\n--b--"
    );
    let disguised = with_metadata.replace("application/rs-metadata", "application/xml");
    let mixed = "multipart/mixed;boundary=b";
    // Require, Supported, feature tag, body type, body, lenient, strict.
    type Case<'a> = (&'a [&'a str], &'a [&'a str], FeatureTag, &'a str, &'a str, u16, u16);
    let cases: &[Case<'_>] = &[
        (&["siprec"], &[], FeatureTag::Header, "application/sdp", PLAIN, 200, 200),
        (&["SIPREC"], &[], FeatureTag::Absent, "application/sdp", PLAIN, 200, 403),
        (&[], &["100rel", "siprec"], FeatureTag::Header, "application/sdp", PLAIN, 200, 200),
        (&["siprec"], &[], FeatureTag::InUri, "application/sdp", PLAIN, 200, 403),
        (&[], &[], FeatureTag::Absent, mixed, &with_metadata, 200, 421),
        (&[], &[], FeatureTag::Bare, "application/sdp", LABELLED, 200, 421),
        (&[], &[], FeatureTag::Header, "application/sdp", PLAIN, 421, 421),
        (&[], &[], FeatureTag::Absent, "application/sdp", LABELLED, 421, 421),
        (&["siprec", "x-foo"], &[], FeatureTag::Header, "application/sdp", PLAIN, 420, 420),
        (&["siprec"], &[], FeatureTag::Header, "", "", 488, 488),
        (&[], &[], FeatureTag::Absent, mixed, &disguised, 200, 421),
    ];
    for (at, (require, supported, src, kind, text, lenient, strict)) in cases.iter().enumerate() {
        let request = Request { require, supported, src: *src, ..Request::default() };
        for (policy, wanted) in
            [(Policy::default(), *lenient), (Policy { strict: true, ..Policy::default() }, *strict)]
        {
            let body = Body::read(kind, "", text.as_bytes(), &policy).expect("readable");
            let found = code(recognise(&request, &body, &policy));
            assert_eq!(found, wanted, "case {at}, strict {}", policy.strict);
        }
    }
}

#[test]
fn refusals_carry_their_headers() {
    let refuse = |request: &Request<'_>, body: &Body, policy: &Policy| match recognise(
        request, body, policy,
    ) {
        Recognition::Refuse(refusal) => refusal,
        Recognition::Rs { .. } => panic!("taken"),
    };
    let policy = Policy::default();
    let siprec = Request {
        require: &["siprec", "a", "timer", "b"],
        understood: &["timer"],
        ..Request::default()
    };
    let found = refuse(&siprec, &body("application/sdp", PLAIN), &policy);
    assert_eq!(found.headers, [("Unsupported", "a, b".to_owned())]);
    let found = refuse(&Request::default(), &body("application/sdp", PLAIN), &policy);
    assert_eq!(found.headers, [("Require", "siprec".to_owned())]);
    let offerless = Request { require: &["siprec"], ..Request::default() };
    assert_eq!(refuse(&offerless, &body("", ""), &policy).headers[0].0, "Warning");
}

#[test]
fn unknown_parts_are_refused_unless_optional() {
    let with = |part: &str| {
        let text = format!(
            "--b\r\nContent-Type: application/sdp\r\n\r\n{PLAIN}\r\n--b\r\n{part}\r\n\r\nx\r\n--b--"
        );
        let body = body("multipart/mixed;boundary=b", &text);
        let request =
            Request { require: &["siprec"], src: FeatureTag::Header, ..Request::default() };
        code(recognise(&request, &body, &Policy::default()))
    };
    assert_eq!(with("Content-Type: application/gtd"), 415);
    assert_eq!(
        with("Content-Type: application/gtd\r\nContent-Disposition: signal;handling=required"),
        415
    );
    assert_eq!(
        with("Content-Type: application/gtd\r\nContent-Disposition: signal;handling=optional"),
        200
    );
    assert_eq!(with("Content-Type: application/rs-metadata\r\nContent-Disposition: strange"), 415);
    assert_eq!(with("Content-Type: application/rs-metadata;charset=utf-8"), 200);
    let read = |kind: &str, bytes: &[u8]| Body::read(kind, "", bytes, &Policy::default()).err();
    assert_eq!(read("multipart/mixed;boundary=b", b"nothing").expect("refused").code, 400);
    assert_eq!(read("application/sdp", b"nothing").expect("refused").code, 400);
}

#[test]
fn keys_over_clear_signalling_are_a_quirk_and_strictly_a_refusal() {
    let text = format!(
        "{}{}",
        LABELLED.replace("RTP/AVP", "RTP/SAVP"),
        crypto(1, Suite::AesCm128HmacSha1_80, 1)
    );
    let body = body("application/sdp", &text);
    let request = Request { require: &["siprec"], src: FeatureTag::Header, ..Request::default() };
    let strict = Policy { strict: true, ..Policy::default() };
    assert_eq!(code(recognise(&request, &body, &strict)), 488);
    let safe = Policy { signalling_protected: true, ..strict };
    assert_eq!(code(recognise(&request, &body, &safe)), 200);
    let Recognition::Rs { quirks } = recognise(&request, &body, &Policy::default()) else {
        panic!("refused")
    };
    assert!(quirks[0].contains("unprotected signalling"));
}

#[test]
fn every_line_is_answered_in_place_with_its_transport() {
    let offer = "m=audio 5004 RTP/AVPF 8 0 101 13\r\na=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-16\r\n\
        a=label:a_leg\r\na=sendonly\r\na=rtcp-mux\r\nm=image 5010 udptl t38\r\nm=audio 0 RTP/AVP 0 8\r\n\
        m=application 9 RTP/AVP 100\r\nm=video 5006 RTP/AVP 97 98\r\na=rtpmap:97 H264/90000\r\n\
        a=rtpmap:98 VP8/90000\r\na=label:2\r\na=inactive\r\nm=audio 5012 UDP/TLS/RTP/SAVPF 0\r\n\
        m=text 5014 RTP/AVP 100 98\r\na=rtpmap:98 t140/1000\r\na=rtpmap:100 red/1000\r\na=sendonly\r\n";
    let negotiated = decide(offer);
    let answer = emit_answer(&negotiated, &plain_locals(7), &ORIGIN);
    assert_eq!(
        answer,
        "v=0\r\no=floortape 9 1 IN IP4 192.0.2.20\r\ns=-\r\nc=IN IP4 192.0.2.20\r\nt=0 0\r\n\
         m=audio 20000 RTP/AVPF 8 101 13\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-16\r\na=rtpmap:13 CN/8000\r\na=label:a_leg\r\na=rtcp-mux\r\na=recvonly\r\n\
         m=image 0 udptl t38\r\nm=audio 0 RTP/AVP 0 8\r\nm=application 0 RTP/AVP 100\r\n\
         m=video 20008 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\na=label:2\r\na=inactive\r\n\
         m=audio 0 UDP/TLS/RTP/SAVPF 0\r\n\
         m=text 20012 RTP/AVP 100 98\r\na=rtpmap:100 red/1000\r\na=rtpmap:98 t140/1000\r\na=recvonly\r\n"
    );
    let refused: Vec<_> = negotiated.lines.iter().filter_map(|line| line.refused()).collect();
    assert!(matches!(
        refused.as_slice(),
        [WhyRefused::NotRtp(_), WhyRefused::Removed, WhyRefused::Kind(_), WhyRefused::Dtls]
    ));
    // A line that could not be opened after all gets port 0.
    let mut locals = plain_locals(7);
    locals[0] = None;
    assert!(
        emit_answer(&negotiated, &locals, &ORIGIN).contains("m=audio 0 RTP/AVPF 8 0 101 13\r\n")
    );
}

#[test]
fn directions_and_hold_follow_the_table() {
    for (lines, active) in [
        ("a=sendonly\r\n", true),
        ("a=sendrecv\r\n", true),
        ("", true),
        ("a=inactive\r\n", false),
        ("a=recvonly\r\n", false),
        ("c=IN IP4 0.0.0.0\r\na=sendonly\r\n", false),
        ("c=IN IP4 0.0.0.0\r\n", false),
    ] {
        let negotiated = decide(&format!("m=audio 5004 RTP/AVP 0\r\n{lines}"));
        let (_, accepted) = negotiated.accepted().next().expect("taken");
        assert_eq!(accepted.active, active, "{lines}");
        let answer = emit_answer(&negotiated, &plain_locals(1), &ORIGIN);
        assert!(answer.ends_with(if active { "a=recvonly\r\n" } else { "a=inactive\r\n" }));
        assert_eq!(accepted.remote_rtcp.is_none(), lines.starts_with("c="));
    }
}

#[test]
fn first_acceptable_crypto_line_is_taken_and_answered_with_our_key() {
    let unknown = "a=crypto:1 ARIA_128_CTR_HMAC_SHA1_80 inline:AAAA\r\n";
    let bare = crypto(2, Suite::AesCm128HmacSha1_80, 1);
    let unauthenticated = bare.replace("\r\n", " UNAUTHENTICATED_SRTP\r\n");
    let unencrypted = bare.replace(":2 ", ":3 ").replace("\r\n", " UNENCRYPTED_SRTCP\r\n");
    let inline = bare.split_once("inline:").expect("a key").1.trim();
    let five = (1..=5).map(|mki| format!("inline:{inline}|{mki}:1")).collect::<Vec<_>>();
    let many = format!("a=crypto:4 {} {}\r\n", Suite::AesCm128HmacSha1_80.name(), five.join(";"));
    let good = crypto(5, Suite::AeadAes256Gcm, 2);
    let later = crypto(6, Suite::AesCm128HmacSha1_80, 3);
    let offer = format!(
        "m=audio 5004 RTP/SAVP 0\r\na=sendonly\r\na=label:1\r\n{unknown}{unauthenticated}{unencrypted}{many}{good}{later}"
    );
    let negotiated = decide(&offer);
    let (_, accepted) = negotiated.accepted().next().expect("taken");
    let chosen = accepted.crypto.as_ref().expect("srtp");
    assert_eq!((chosen.tag, chosen.suite), (5, Suite::AeadAes256Gcm.into()));
    assert!(chosen.remote.same(&Keyring::one(key(2, Suite::AeadAes256Gcm))));
    let ours = key(9, Suite::AeadAes256Gcm);
    let locals = [Some(Local { port: 20_000, key: Some(&ours), address: None })];
    let answer = emit_answer(&negotiated, &locals, &ORIGIN);
    let back = Description::parse(answer.as_bytes()).expect("our own");
    let [Ok(line)] = back.media[0].crypto.as_slice() else { panic!("one crypto line") };
    assert_eq!((line.tag, line.suite), (5, Suite::AeadAes256Gcm.into()));
    assert!(line.keys[0].key.same(&ours));
    assert_eq!(back.media[0].transport, "RTP/SAVP");
    // Without a key, or with one of another length, there is no secure answer: port 0.
    assert!(
        emit_answer(&negotiated, &plain_locals(1), &ORIGIN).contains("m=audio 0 RTP/SAVP 0\r\n")
    );
    // MKIs and the derivation rate are the SRC's own affair: our key has none.
    let inline = good.rsplit(' ').next().expect("a key").trim();
    let mki = format!("{}|2^20|1:4;{inline}|2:4 KDR=3 WSH=128\r\n", good.trim());
    let negotiated = decide(&offer.replace(&good, &mki));
    let (_, accepted) = negotiated.accepted().next().expect("taken");
    let chosen = accepted.crypto.as_ref().expect("srtp");
    let mkis: Vec<_> = chosen.remote.mkis().iter().map(|mki| mki.octets()).collect();
    assert_eq!(
        (mkis, chosen.remote.derivation_rate()),
        (vec![vec![0, 0, 0, 1], vec![0, 0, 0, 2]], 3)
    );
    let answer = emit_answer(&negotiated, &locals, &ORIGIN);
    let back = Description::parse(answer.as_bytes()).expect("our own");
    let [Ok(line)] = back.media[0].crypto.as_slice() else { panic!("one crypto line") };
    assert_eq!((line.tag, line.keys[0].mki), (5, None));
    assert!(!format!("{negotiated:?}").contains("inline"));
}

/// What a policy makes of one secure line: the crypto line of the answer, or why there is none.
fn answered(attribute: &str, policy: &Policy) -> Result<String, String> {
    let offer = sdp(1, &format!("m=audio 5004 RTP/SAVP 0\r\na=label:1\r\n{attribute}"));
    let negotiated = negotiate(&offer, None, policy);
    if let Some(why) = negotiated.lines[0].refused() {
        return Err(why.to_string());
    }
    let (_, accepted) = negotiated.accepted().next().expect("taken");
    let ours = key(9, accepted.crypto.as_ref().expect("srtp").suite.suite());
    let locals = [Some(Local { port: 20_000, key: Some(&ours), address: None })];
    let answer = emit_answer(&negotiated, &locals, &ORIGIN);
    let line = answer.lines().find(|line| line.starts_with("a=crypto:")).expect("secure");
    Ok(line.to_owned())
}

#[test]
fn every_usual_suite_is_taken_with_its_spelling_and_f8_where_it_is_named() {
    for suite in Suite::USUAL {
        let line = answered(&crypto(3, *suite, 1), &Policy::default()).expect("taken");
        assert!(line.starts_with(&format!("a=crypto:3 {} inline:", suite.name())), "{line}");
    }
    let registered = crypto(3, Suite::Aes256CmHmacSha1_32, 1);
    let draft = registered.replace("AES_256_CM", "AES_CM_256");
    let line = answered(&draft, &Policy::default()).expect("taken");
    assert!(line.starts_with("a=crypto:3 AES_CM_256_HMAC_SHA1_32 inline:"), "{line}");
    let policy = |suite| Policy { suites: Suites::from_iter([suite]), ..Policy::default() };
    assert!(answered(&draft, &policy(Suite::Aes256CmHmacSha1_32)).is_ok());
    assert!(answered(&draft, &policy(Suite::Aes256CmHmacSha1_80)).is_err());
    let f8 = crypto(3, Suite::F8_128HmacSha1_80, 1);
    let why = answered(&f8, &Policy::default()).expect_err("not a usual one");
    assert!(why.contains("not among those that the configuration takes"), "{why}");
    let line = answered(&f8, &policy(Suite::F8_128HmacSha1_80)).expect("named");
    assert!(line.starts_with("a=crypto:3 F8_128_HMAC_SHA1_80 inline:"), "{line}");
}

#[test]
fn what_is_not_encrypted_is_taken_where_the_policy_says_so_and_answered_alike() {
    let lab = Policy { unencrypted: true, ..Policy::default() };
    let bare = crypto(1, Suite::AesCm128HmacSha1_80, 1);
    for parameters in
        ["UNENCRYPTED_SRTP", "UNENCRYPTED_SRTCP", "UNENCRYPTED_SRTP UNENCRYPTED_SRTCP"]
    {
        let line = bare.replace("\r\n", &format!(" {parameters}\r\n"));
        let why = answered(&line, &Policy::default()).expect_err("not by default");
        assert!(why.contains("unencrypted SRTP or SRTCP is refused by policy"), "{why}");
        let line = answered(&line, &lab).expect("taken");
        assert_eq!(line.splitn(4, ' ').nth(3), Some(parameters));
    }
    // Their order is not what was agreed.
    let turned = bare.replace("\r\n", " UNENCRYPTED_SRTCP UNENCRYPTED_SRTP\r\n");
    let line = answered(&turned, &lab).expect("taken");
    assert!(line.ends_with(" UNENCRYPTED_SRTP UNENCRYPTED_SRTCP"), "{line}");
    assert!(!answered(&bare, &lab).expect("taken").contains("UNENCRYPTED"));
    let unauthenticated = bare.replace("\r\n", " UNENCRYPTED_SRTP UNAUTHENTICATED_SRTP\r\n");
    let why = answered(&unauthenticated, &lab).expect_err("never");
    assert!(why.contains("UNAUTHENTICATED_SRTP is refused by policy"), "{why}");
    let gcm = crypto(1, Suite::AeadAes128Gcm, 1);
    let srtp = gcm.replace("\r\n", " UNENCRYPTED_SRTP\r\n");
    assert!(answered(&srtp, &lab).expect_err("every packet").contains("not usable"));
    let srtcp = gcm.replace("\r\n", " UNENCRYPTED_SRTCP\r\n");
    assert!(answered(&srtcp, &lab).expect("taken").ends_with(" UNENCRYPTED_SRTCP"));
}

#[test]
fn another_agreement_under_the_same_key_is_another_suite() {
    let lab = Policy { unencrypted: true, ..Policy::default() };
    let bare = crypto(1, Suite::AesCm128HmacSha1_80, 1);
    let offer = |line: &str| sdp(1, &format!("m=audio 5004 RTP/SAVP 0\r\na=label:1\r\n{line}"));
    let first = negotiate(&offer(&bare), None, &lab);
    let clear = bare.replace("\r\n", " UNENCRYPTED_SRTP\r\n");
    let second = negotiate(&offer(&clear), Some(&first), &lab);
    assert_eq!(second.lines[0].changes, [LineChange::SuiteChanged]);
}

#[test]
fn no_acceptable_crypto_line_is_port_0_and_alone_488() {
    let bad = "m=audio 5004 RTP/SAVP 0\r\na=label:1\r\na=crypto:1 ARIA_128_CTR_HMAC_SHA1_80 inline:AAAA\r\n\
        a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:AAAA\r\n";
    let negotiated = decide(bad);
    assert!(matches!(negotiated.lines[0].refused(), Some(WhyRefused::NoAcceptableCrypto(_))));
    let refusal = not_acceptable(&negotiated);
    assert_eq!(refusal.code, 488);
    assert!(refusal.headers[0].1.starts_with("304 floortape \"m-line 1: no acceptable a=crypto"));
    let bare = decide("m=audio 5004 RTP/SAVPF 0\r\n");
    assert_eq!(bare.lines[0].refused(), Some(&WhyRefused::NoCrypto));
    let dtls = decide("m=audio 5004 RTP/SAVP 0\r\na=fingerprint:SHA-1 AA\r\n");
    assert_eq!(dtls.lines[0].refused(), Some(&WhyRefused::Dtls));
}

#[test]
fn plain_rtp_follows_the_policy_and_crypto_on_it_is_no_srtp() {
    let secure = format!(
        "m=audio 5004 RTP/SAVP 0\r\na=label:1\r\n{}",
        crypto(1, Suite::AesCm128HmacSha1_80, 1)
    );
    let plain = "m=audio 5006 RTP/AVP 0\r\na=label:1\r\nm=audio 5008 RTP/AVP 0\r\na=label:2\r\n\
        m=audio 5010 RTP/AVP 0\r\n";
    let offer = sdp(1, &format!("{secure}{plain}"));
    for (srtp, taken) in [
        (SrtpPolicy::Allow, vec![0, 1, 2, 3]),
        (SrtpPolicy::Prefer, vec![0, 2, 3]),
        (SrtpPolicy::Require, vec![0]),
    ] {
        let negotiated = negotiate(&offer, None, &Policy { srtp, ..Policy::default() });
        let lines: Vec<u16> = negotiated.accepted().map(|(line, _)| line.index).collect();
        assert_eq!(lines, taken, "{srtp:?}");
    }
    let line = crypto(1, Suite::AesCm128HmacSha1_80, 1);
    let best_effort = decide(&format!("m=audio 5004 RTP/AVP 0\r\na=label:1\r\n{line}"));
    let (_, accepted) = best_effort.accepted().next().expect("taken");
    assert!(accepted.crypto.is_none());
    assert!(best_effort.quirks.iter().any(|quirk| quirk.contains("plain transport")));
}

#[test]
fn a_line_of_a_family_that_we_have_no_address_of_is_refused_in_words() {
    let offer = sdp(
        1,
        "m=audio 5004 RTP/AVP 0\r\na=label:1\r\nm=audio 5006 RTP/AVP 0\r\nc=IN IP6 2001:db8::7\r\n\
         a=label:2\r\nm=audio 5008 RTP/AVP 0\r\nc=IN IP6 ::\r\na=label:3\r\n",
    );
    let families = |negotiated: &Negotiated| -> Vec<Option<Family>> {
        negotiated.lines.iter().map(|line| line.accepted().and_then(|own| own.family)).collect()
    };
    let all = negotiate(&offer, None, &Policy::default());
    assert_eq!(families(&all), [Some(Family::V4), Some(Family::V6), None]);
    let only = Policy { lacks: Some(Family::V6), ..Policy::default() };
    let negotiated = negotiate(&offer, None, &only);
    let taken: Vec<u16> = negotiated.accepted().map(|(line, _)| line.index).collect();
    assert_eq!(taken, [0, 2], "one that is held says nothing of its family");
    let refusal = not_acceptable(&negotiated);
    assert_eq!(refusal.code, 488);
    assert!(refusal.headers[0].1.starts_with("301 floortape \"m-line 2: it sends over IPv6"));
}

/// RFC 3264 §8: `o=` stays when lines move; each line that lies elsewhere says so.
#[test]
fn an_answer_names_each_address_once() {
    let offer = sdp(
        1,
        "m=audio 5004 RTP/AVP 0\r\na=label:1\r\nm=audio 5006 RTP/AVP 0\r\nc=IN IP6 2001:db8::7\r\n\
         a=label:2\r\n",
    );
    let negotiated = negotiate(&offer, None, &Policy::default());
    let ip = |text: &str| text.parse().expect("an address");
    let local = |port, address: &str| Some(Local { port, key: None, address: Some(ip(address)) });
    let locals = [local(20_000, "192.0.2.21"), local(20_100, "2001:db8::21")];
    let origin = AnswerOrigin { connection: ip("192.0.2.21"), ..ORIGIN };
    let answer = emit_answer(&negotiated, &locals, &origin);
    assert!(answer.contains("o=floortape 9 1 IN IP4 192.0.2.20\r\n"), "{answer}");
    let lines: Vec<&str> = answer.lines().filter(|line| line.starts_with("c=")).collect();
    assert_eq!(lines, ["c=IN IP4 192.0.2.21", "c=IN IP6 2001:db8::21"]);
    let second = answer.find("m=audio 20100").expect("the line");
    assert!(answer.find("c=IN IP6").is_some_and(|at| at > second), "{answer}");
}

fn reoffer(current: &str, next: &str, version: u32) -> Negotiated {
    let first = negotiate(&sdp(1, current), None, &Policy::default());
    negotiate(&sdp(version, next), Some(&first), &Policy::default())
}

#[test]
fn an_unchanged_version_is_a_no_op_and_a_changed_body_under_it_is_followed() {
    let line = "m=audio 5004 RTP/AVP 0\r\na=label:1\r\na=sendonly\r\n";
    let same = reoffer(line, line, 1);
    assert!(same.unchanged && same.is_quiet());
    let refreshed = reoffer(line, line, 2);
    assert!(!refreshed.unchanged && refreshed.is_quiet());
    let sneaky = reoffer(line, &line.replace("sendonly", "inactive"), 1);
    assert!(!sneaky.unchanged);
    assert_eq!(sneaky.lines[0].changes, [LineChange::Paused]);
    assert!(sneaky.quirks.iter().any(|quirk| quirk.contains("same o= version")));
}

#[test]
fn a_re_offer_reports_what_changed_on_each_line() {
    let audio = |port: u16, label: &str, direction: &str| {
        format!("m=audio {port} RTP/AVP 0\r\na=label:{label}\r\na={direction}\r\n")
    };
    let before = format!("{}{}", audio(5004, "1", "sendonly"), audio(5006, "2", "inactive"));
    let found = |next: String| {
        let lines = reoffer(&before, &next, 2).lines;
        lines.into_iter().map(|line| line.changes).collect::<Vec<_>>()
    };
    let two = audio(5006, "2", "inactive");
    // Added, removed, paused, resumed.
    let added = found(format!("{before}{}", audio(5008, "3", "sendonly")));
    assert_eq!(added, [vec![], vec![], vec![LineChange::Added { reused: false }]]);
    assert_eq!(found(format!("{}{two}", audio(0, "1", "sendonly")))[0], [LineChange::Removed]);
    assert_eq!(found(format!("{}{two}", audio(5004, "1", "inactive")))[0], [LineChange::Paused]);
    let resumed =
        found(format!("{}{}", audio(5004, "1", "sendonly"), audio(5006, "2", "sendonly")));
    assert_eq!(resumed, [vec![], vec![LineChange::Resumed]]);
    // Moved, relabelled, re-coded, replaced.
    let moved = &found(format!("{}{two}", audio(6004, "1", "sendonly")))[0];
    assert!(matches!(moved.as_slice(), [LineChange::RemoteMoved { .. }, LineChange::RtcpMoved]));
    let relabelled = &found(format!("{}{two}", audio(5004, "9", "sendonly")))[0];
    assert_eq!(relabelled, &[LineChange::Relabelled { from: Some("1".to_owned()) }]);
    let recoded = &found(before.replacen("RTP/AVP 0", "RTP/AVP 8", 1))[0];
    assert_eq!(recoded, &[LineChange::FormatsChanged]);
    let replaced = &found(before.replacen("m=audio", "m=video", 1))[0];
    assert_eq!(replaced, &[LineChange::Replaced]);
    // A slot with port 0 is used again, also for another medium.
    let gone = before.replacen("5004", "0", 1);
    let again = reoffer(&gone, &before.replacen("m=audio", "m=video", 1), 2);
    assert_eq!(again.lines[0].changes, [LineChange::Added { reused: true }]);
    // A line that vanished is told: m-lines may never be fewer.
    let fewer = reoffer(&before, &audio(5004, "1", "sendonly"), 2);
    assert_eq!(fewer.vanished, [1]);
}

#[test]
fn new_keys_new_ports_and_both_are_told_apart() {
    let secure = |port: u16, suite: Suite, octet: u8| {
        format!(
            "m=audio {port} RTP/SAVP 0\r\na=label:1\r\na=sendonly\r\n{}",
            crypto(1, suite, octet)
        )
    };
    let suite = Suite::AesCm128HmacSha1_80;
    let first = secure(5004, suite, 1);
    assert!(reoffer(&first, &secure(5004, suite, 1), 2).is_quiet());
    let rekeyed = reoffer(&first, &secure(5004, suite, 2), 2);
    assert_eq!(rekeyed.lines[0].changes, [LineChange::KeyChanged]);
    let both = reoffer(&first, &secure(6004, suite, 2), 2);
    assert_eq!(both.lines[0].changes.len(), 3);
    assert!(both.lines[0].changes.contains(&LineChange::KeyChanged) && both.quirks.is_empty());
    let stale = reoffer(&first, &secure(6004, suite, 1), 2);
    assert!(stale.quirks.iter().any(|quirk| quirk.contains("without a new key")));
    let other = reoffer(&first, &secure(5004, Suite::AeadAes128Gcm, 2), 2);
    assert_eq!(other.lines[0].changes, [LineChange::SuiteChanged]);
}
