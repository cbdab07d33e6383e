//! The SDP offer and the whole INVITE body of a [`Call`], and what its answer means.

use std::net::{IpAddr, SocketAddr};

use super::call::{Call, Protection};
use super::metadata;
use super::protect::{ProtectError, Protector};
use crate::wire::multipart::{Part, emit};
use crate::wire::sdes::CryptoLine;
use crate::wire::sdp::{Description, Direction, SdpError, Writer};

/// Why an answer cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not readable.
    #[error("answer: {0}")]
    Sdp(#[from] SdpError),
    /// RFC 3264 §6: as many m-lines as offered.
    #[error("answer: expected {expected} m-lines, found {found}")]
    Lines {
        /// Lines offered.
        expected: usize,
        /// Lines answered.
        found: usize,
    },
    /// Port 0, hold, or no address.
    #[error("answer: the line of label {label} was refused")]
    Refused {
        /// Its label.
        label: String,
    },
    /// The SRS does not want media now.
    #[error("answer: expected recvonly for label {label}, found {found}")]
    Direction {
        /// Its label.
        label: String,
        /// Direction answered.
        found: &'static str,
    },
    /// RFC 4568 §5.1.2: tag and suite of the offer, a key of its own.
    #[error("answer: the line of label {label} has no usable crypto: {why}")]
    Crypto {
        /// Its label.
        label: String,
        /// What was expected.
        why: &'static str,
    },
    /// No context from these keys.
    #[error(transparent)]
    Protect(#[from] ProtectError),
}

/// One accepted line: where its media and reports go, and how they are protected.
pub struct Accepted {
    /// RTP goes here.
    pub rtp_to: SocketAddr,
    /// RTCP goes here.
    pub rtcp_to: SocketAddr,
    /// SRTP contexts; `None` for plain RTP.
    pub protector: Option<Protector>,
}

/// Tag of the one crypto line in each m-line.
const CRYPTO_TAG: u32 = 1;

/// The offer: a sendonly line with a label for each stream (RFC 7866 §7.1.1).
pub fn offer(call: &Call, address: IpAddr) -> String {
    describe(call, address, |_| Turn::Sends)
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Media is sent.
    Sends,
    /// None is sent for now.
    Rests,
    /// None will be sent any more.
    Over,
}

/// The answer to an offer of the SRS, which may have lines rest, go on or end (RFC 7866 §7.2), and what
/// becomes of each of ours.
pub fn answer(
    call: &Call,
    address: IpAddr,
    offer: &[u8],
) -> Result<(String, Vec<Turn>), AnswerError> {
    let sdp = Description::parse(offer)?;
    let (expected, found) = (call.streams.len(), sdp.media.len());
    if expected != found {
        return Err(AnswerError::Lines { expected, found });
    }
    let turns: Vec<Turn> = sdp
        .media
        .iter()
        .map(|media| match sdp.direction_of(media) {
            _ if media.port == 0 => Turn::Over,
            Direction::RecvOnly | Direction::SendRecv => Turn::Sends,
            Direction::SendOnly | Direction::Inactive => Turn::Rests,
        })
        .collect();
    Ok((describe(call, address, |place| turns[place]), turns))
}

fn describe(call: &Call, address: IpAddr, turn: impl Fn(usize) -> Turn) -> String {
    // Any number does that others will not use; the session's own id is random already.
    let id = call.session.0.first_chunk().map_or(1, |head| u64::from_be_bytes(*head) >> 2);
    let mut sdp = Writer::new("floortape", id, call.version, address);
    for (place, stream) in call.streams.iter().enumerate() {
        let turn = turn(place);
        let payload_type = stream.law.payload_type().to_string();
        let transport = match stream.protection {
            Protection::Plain => "RTP/AVP",
            Protection::Sdes { .. } => "RTP/SAVP",
        };
        let port = if turn == Turn::Over { 0 } else { stream.port };
        sdp.media("audio", port, transport, std::iter::once(payload_type.as_str()));
        sdp.attribute(&format!("rtpmap:{payload_type} {}/8000", stream.law.name()));
        sdp.attribute("ptime:20");
        if let Protection::Sdes { suite, key } = &stream.protection {
            let crypto = zeroize::Zeroizing::new(CryptoLine::emit(CRYPTO_TAG, *suite, key));
            sdp.attribute(&format!("crypto:{}", *crypto));
        }
        sdp.attribute(&format!("label:{}", stream.label));
        let direction = match turn {
            Turn::Sends => Direction::SendOnly,
            Turn::Rests | Turn::Over => Direction::Inactive,
        };
        sdp.attribute(direction.name());
    }
    sdp.finish()
}

/// Content-Type and body of the INVITE: offer and complete metadata (RFC 7866 §9.1). `at`: RFC 3339.
pub fn invite_body(call: &Call, address: IpAddr, at: &str) -> (String, Vec<u8>) {
    let sdp = Part::new("application/sdp", None, offer(call, address).into_bytes());
    let xml = Part::new(
        "application/rs-metadata+xml",
        Some("recording-session"),
        metadata::complete(call, at),
    );
    emit(&[sdp, xml], &format!("ft-{}", &call.group.hex()[..16]))
}

/// Reads the answer, line by line by position.
pub fn accept(call: &Call, answer: &[u8]) -> Result<Vec<Accepted>, AnswerError> {
    let sdp = Description::parse(answer)?;
    let (expected, found) = (call.streams.len(), sdp.media.len());
    if expected != found {
        return Err(AnswerError::Lines { expected, found });
    }
    let line = |(stream, media): (&super::StreamPlan, _)| {
        let label = || stream.label.clone();
        let refused = || AnswerError::Refused { label: label() };
        let rtp_to = sdp.rtp_address(media).ok_or_else(refused)?;
        let rtcp_to = sdp.rtcp_address(media).ok_or_else(refused)?;
        let direction = sdp.direction_of(media);
        if direction != Direction::RecvOnly {
            return Err(AnswerError::Direction { label: label(), found: direction.name() });
        }
        let protector = match &stream.protection {
            Protection::Plain => None,
            Protection::Sdes { suite, key } => {
                let fault = |why| AnswerError::Crypto { label: label(), why };
                let crypto = media
                    .crypto
                    .iter()
                    .flatten()
                    .next()
                    .ok_or_else(|| fault("expected a crypto line"))?;
                let theirs = &crypto.keys.first().ok_or_else(|| fault("expected a key"))?.key;
                if crypto.tag != CRYPTO_TAG || crypto.suite != *suite {
                    return Err(fault("expected tag and suite of the offer"));
                }
                if theirs.same(key) {
                    return Err(fault("expected a key of its own, found ours"));
                }
                Some(Protector::new(*suite, key, Some(theirs))?)
            }
        };
        Ok(Accepted { rtp_to, rtcp_to, protector })
    };
    call.streams.iter().zip(&sdp.media).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ports::Entropy;
    use crate::base::suite::Suite;
    use crate::client::g711::Law;
    use crate::wire::multipart;

    struct Counter(std::cell::Cell<u8>);

    impl Entropy for Counter {
        fn fill(&self, out: &mut [u8]) {
            self.0.set(self.0.get() + 1);
            out.fill(self.0.get());
        }
    }

    fn call() -> Call {
        let entropy = Counter(std::cell::Cell::new(0));
        let mut call = Call::new(0, 2, &entropy);
        call.add_stream(4_000, Law::Mu, Some(Suite::AesCm128HmacSha1_80.into()), &entropy);
        call.add_stream(4_002, Law::A, None, &entropy);
        call
    }

    fn local() -> IpAddr {
        IpAddr::from([127, 0, 0, 1])
    }

    /// What an SRS would answer, with this crypto value and these ports.
    fn answer(crypto: &str, ports: [u16; 2]) -> String {
        format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\n\
             m=audio {} RTP/SAVP 0\r\na=crypto:{crypto}\r\na=recvonly\r\n\
             m=audio {} RTP/AVP 8\r\na=rtcp:777\r\na=recvonly\r\n",
            ports[0], ports[1]
        )
    }

    #[test]
    fn body_holds_an_offer_that_reads_back_and_the_metadata() {
        let call = call();
        let (content_type, body) = invite_body(&call, local(), "2026-01-05T09:30:00Z");
        let parts = multipart::parse(&content_type, &body).expect("our own");
        assert_eq!(parts.len(), 2);
        let sdp = Description::parse(&parts[0].body).expect("our own");
        assert_eq!(sdp.direction_of(&sdp.media[0]), Direction::SendOnly);
        assert_eq!(sdp.media[1].label.as_deref(), Some("2"));
        assert_eq!(sdp.media[1].formats[0].codec, "PCMA");
        let crypto = sdp.media[0].crypto[0].as_ref().expect("valid");
        assert_eq!(crypto.suite, Suite::AesCm128HmacSha1_80.into());
        assert!(sdp.quirks.is_empty(), "{:?}", sdp.quirks);
        assert_eq!(parts[1].header("content-disposition"), Some("recording-session"));
    }

    #[test]
    fn an_offer_of_the_srs_has_lines_rest_go_on_and_end() {
        let call = call();
        let offer = |first: &str, port: u16, second: &str| {
            format!(
                "v=0\r\no=- 1 2 IN IP4 127.0.0.9\r\ns=-\r\nc=IN IP4 127.0.0.9\r\nt=0 0\r\n\
                 m=audio 6000 RTP/SAVP 0\r\na={first}\r\nm=audio {port} RTP/AVP 8\r\na={second}\r\n"
            )
        };
        for (first, port, second, wanted) in [
            ("inactive", 6_002, "recvonly", [Turn::Rests, Turn::Sends]),
            ("recvonly", 0, "recvonly", [Turn::Sends, Turn::Over]),
        ] {
            let offer = offer(first, port, second);
            let (text, turns) = super::answer(&call, local(), offer.as_bytes()).expect("two lines");
            assert_eq!(turns, wanted);
            let sdp = Description::parse(text.as_bytes()).expect("our own");
            for ((media, turn), stream) in sdp.media.iter().zip(wanted).zip(&call.streams) {
                assert_eq!(media.port, if turn == Turn::Over { 0 } else { stream.port });
                let sends = sdp.direction_of(media) == Direction::SendOnly;
                assert_eq!(sends, turn == Turn::Sends);
                assert_eq!(media.label.as_deref(), Some(&*stream.label));
            }
        }
        let short = offer("inactive", 6_002, "inactive").replace("m=audio 6002", "a=audio 6002");
        let fault = super::answer(&call, local(), short.as_bytes()).err();
        assert!(matches!(fault, Some(AnswerError::Lines { expected: 2, found: 1 })), "{fault:?}");
    }

    #[test]
    fn answer_gives_ports_by_position_and_a_key_of_its_own_is_asked_for() {
        let call = call();
        let theirs = crate::base::secret::MasterKey::new(&[200; 30]).expect("30 octets");
        let good = CryptoLine::emit(1, Suite::AesCm128HmacSha1_80, &theirs);
        let lines = accept(&call, answer(&good, [6_000, 6_002]).as_bytes()).expect("good");
        assert_eq!(lines[0].rtp_to.to_string(), "127.0.0.9:6000");
        assert_eq!(lines[1].rtcp_to.to_string(), "127.0.0.9:777");
        assert!(lines[0].protector.is_some() && lines[1].protector.is_none());

        let Protection::Sdes { key, .. } = &call.streams[0].protection else { unreachable!() };
        let ours = CryptoLine::emit(1, Suite::AesCm128HmacSha1_80, key);
        let wrong_tag = CryptoLine::emit(2, Suite::AesCm128HmacSha1_80, &theirs);
        for crypto in [&ours, &wrong_tag] {
            let fault = accept(&call, answer(crypto, [6_000, 6_002]).as_bytes()).err();
            assert!(matches!(fault, Some(AnswerError::Crypto { .. })), "{fault:?}");
        }
        let fault = accept(&call, answer(&good, [6_000, 0]).as_bytes()).err();
        assert!(matches!(fault, Some(AnswerError::Refused { label }) if label == "2"));
    }
}
