//! Claims about the reader and writer of session descriptions.

use super::*;
use crate::base::limits::{SDP_LINES_MAX, SDP_MEDIA_MAX};
use crate::base::prng::Prng;
use crate::wire::sdes::SdesError;

fn parse(text: &str) -> Description {
    Description::parse(text.as_bytes()).expect("an sdp")
}

const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n";

#[test]
fn static_payload_types_need_no_rtpmap() {
    let sdp = parse(&format!("{HEAD}m=audio 5004 RTP/AVP 0 3 4 8 9 10 11 18 101\r\n"));
    let formats = &sdp.media[0].formats;
    let found: Vec<(&str, u32, u8)> =
        formats.iter().map(|f| (f.codec.as_str(), f.clock_rate, f.channels)).collect();
    assert_eq!(
        found[..5],
        [
            ("PCMU", 8_000, 1),
            ("GSM", 8_000, 1),
            ("G723", 8_000, 1),
            ("PCMA", 8_000, 1),
            ("G722", 8_000, 1)
        ]
    );
    assert_eq!(
        found[5..],
        [("L16", 44_100, 2), ("L16", 44_100, 1), ("G729", 8_000, 1), ("unknown", 8_000, 1)]
    );
    assert_eq!(sdp.quirks, ["m-line 1 has no rtpmap for payload type 101"]);
}

#[test]
fn lines_that_stop_others_do_not_stop_this_one() {
    // No t=, a blank in the o= user, e/p/u/k/r/z lines, ptime:20.0, a fmtp flag, two c=, ptime at
    // session level, T.38 and MSRP, an upper-case SHA-1, bare LF.
    let sdp = parse(
        "v=0\no=Cisco SIP GW 7616 8309 IN IP4 9.42.25.149\ns=SIP Call\ni=x\nu=http://x\ne=a@b\np=+1\n\
         k=clear:geheim\nr=1 2 3\nz=1 2\nb=AS:64\na=ptime:20\na=X-unknown:1\nnonsense\n\
         m=audio 5004/2 RTP/AVP 96 101\nc=IN IP4 192.0.2.1/127\nc=IN IP4 192.0.2.2\na=rtpmap:96 opus/48000/2\n\
         a=fmtp:96 useinbandfec\na=fmtp:101 0-16\na=ptime:20.0\na=fingerprint:SHA-1 AA:BB\na=label:a_leg\n\
         m=image 5010 udptl t38\na=T38FaxVersion:0\nm=message 2855 TCP/MSRP *\na=path:msrp://x\n\
         m=audio 5006 TCP/RTP/AVP 0\na=label:2\n",
    );
    assert_eq!(sdp.origin.as_ref().expect("o=").username, "Cisco SIP GW");
    assert_eq!(sdp.origin.as_ref().expect("o=").version, "8309");
    let [audio, fax, message, tcp] = sdp.media.as_slice() else { panic!("four lines") };
    assert_eq!((audio.port, audio.ptime), (5004, Some(20)));
    assert_eq!(audio.connection, Some(Connection::Address([192, 0, 2, 1].into())));
    assert_eq!((audio.formats[0].codec.as_str(), audio.formats[0].channels), ("opus", 2));
    assert_eq!(audio.formats[0].fmtp.as_deref(), Some("useinbandfec"));
    assert_eq!(audio.label.as_deref(), Some("a_leg"));
    assert!(audio.fingerprint);
    assert_eq!(audio.attributes("ptime").collect::<Vec<_>>(), ["20.0"]);
    assert_eq!((fax.profile(), fax.tokens[0].as_str()), (Profile::Other, "t38"));
    assert_eq!((message.profile(), message.transport.as_str()), (Profile::Other, "TCP/MSRP"));
    assert_eq!((tcp.profile(), tcp.label.as_deref()), (Profile::Other, Some("2")));
    assert!(!format!("{sdp:?}").contains("geheim"));
}

#[test]
fn media_level_wins_and_hold_is_seen() {
    let sdp = parse(&format!(
        "{HEAD}a=inactive\r\nm=audio 5004 RTP/AVP 0\r\nm=audio 5006 RTP/AVP 0\r\nc=IN IP6 2001:db8::1\r\n\
         a=sendonly\r\na=rtcp:6000\r\nm=audio 5008 RTP/AVP 0\r\nc=IN IP4 0.0.0.0\r\n\
         m=audio 5010 RTP/AVP 0\r\na=rtcp:6001 IN IP4 192.0.2.99\r\na=rtcp-mux\r\n\
         m=audio 5012 RTP/AVP 0\r\nc=IN IP4 media.example.com\r\n"
    ));
    let [first, six, hold, rtcp, host] = sdp.media.as_slice() else { panic!("five lines") };
    assert_eq!(sdp.direction_of(first), Direction::Inactive);
    assert_eq!(sdp.rtcp_address(first), "192.0.2.10:5005".parse().ok());
    assert_eq!(sdp.direction_of(six), Direction::SendOnly);
    assert_eq!(sdp.rtp_address(six), "[2001:db8::1]:5006".parse().ok());
    assert_eq!(sdp.rtcp_address(six), "[2001:db8::1]:6000".parse().ok());
    assert!(sdp.connection_of(hold).expect("c=").is_hold());
    assert_eq!((sdp.rtp_address(hold), sdp.rtcp_address(hold)), (None, None));
    assert_eq!(sdp.rtcp_address(rtcp), "192.0.2.99:6001".parse().ok());
    assert!(rtcp.rtcp_mux);
    assert_eq!(sdp.rtp_address(host), None);
}

#[test]
fn crypto_lines_keep_their_order_and_faults_and_no_text_of_them_holds_a_key() {
    let key = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    let sdp = parse(&format!(
        "{HEAD}a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\nm=audio 5004 RTP/SAVP 0\r\n\
         a=crypto:1 FUTURE inline:{key}\r\na=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:{key}|2^20\r\n\
         a=crypto:2 AES_CM_128_HMAC_SHA1_32 inline:{key}\r\nm=audio 5006 RTP/SAVPF 0\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_32 inline:{key}\r\n"
    ));
    let lines = &sdp.media[0].crypto;
    assert!(matches!(lines[0], Err(SdesError::UnknownSuite { tag: 1, .. })));
    assert_eq!(lines[1].as_ref().expect("valid").tag, 2);
    assert!(matches!(lines[2], Err(SdesError::DuplicateTag { tag: 2 })));
    assert!(sdp.quirks.iter().any(|quirk| quirk.contains("session level")));
    assert!(sdp.quirks.iter().any(|quirk| quirk.contains("m-line 2 repeats an SRTP key")));
    let shown = format!("{sdp:?}");
    assert!(!shown.contains(&key[..8]) && shown.contains("inline:****"), "{shown}");
}

#[test]
fn what_no_answer_could_be_written_to_is_refused() {
    let error = |text: &str| Description::parse(text.as_bytes()).err();
    assert_eq!(error("hello"), Some(SdpError::NoSession));
    assert_eq!(error(""), Some(SdpError::NoSession));
    assert_eq!(error("v=0\r\nm=audio\r\n"), Some(SdpError::MediaLine));
    assert_eq!(error("v=0\r\nm=audio 99999 RTP/AVP 0\r\n"), Some(SdpError::MediaLine));
    assert_eq!(error(&"a=x\r\n".repeat(SDP_LINES_MAX + 1)), Some(SdpError::TooManyLines));
    let many = "m=audio 5004 RTP/AVP 0\r\n".repeat(SDP_MEDIA_MAX + 1);
    assert_eq!(error(&many), Some(SdpError::TooManyMedia));
    assert!(error("v=0\r\n").is_none());
}

#[test]
fn an_echoed_word_cannot_begin_a_line() {
    let mut sdp = Writer::new("-", 1, 1, "2001:db8::20".parse().expect("an address"));
    sdp.media("audio", 9, "RTP/AVP", ["0"].into_iter());
    sdp.attribute("label:x\r\na=crypto:1");
    let text = sdp.finish();
    assert!(text.contains("o=- 1 1 IN IP6 2001:db8::20\r\n"));
    assert!(text.ends_with("a=label:xa=crypto:1\r\n"));
}

#[test]
fn mutations_never_panic() {
    let seed = format!(
        "{HEAD}a=sendonly\r\nm=audio 5004 RTP/SAVP 0 96\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 x=1\r\n\
         a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz|2^20|1:4\r\n\
         a=label:1\r\na=rtcp:53020 IN IP6 2001:db8::1\r\na=rtcp-mux\r\na=ptime:20\r\na=mid:0\r\n\
         m=image 5 udptl t38\r\nc=IN IP4 224.2.1.1/127/3\r\n"
    );
    let mut prng = Prng::new(4566);
    let mut accepted = 0;
    for _ in 0..10_000 {
        let mut bytes = seed.clone().into_bytes();
        for _ in 0..=prng.below(8) {
            let at = prng.below(bytes.len() as u64) as usize;
            match prng.below(4) {
                0 => bytes[at] = prng.next_u64() as u8,
                1 if bytes.len() > 1 => drop(bytes.remove(at)),
                2 => bytes.insert(at, b"\r\n:/ =-0"[prng.below(8) as usize]),
                _ => bytes.truncate(at.max(1)),
            }
        }
        if let Ok(sdp) = Description::parse(&bytes) {
            accepted += 1;
            for media in &sdp.media {
                let _ = (sdp.rtp_address(media), sdp.rtcp_address(media), sdp.direction_of(media));
            }
        }
    }
    assert!(accepted > 1_000);
}
