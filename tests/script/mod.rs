//! Requests of a scripted SRC, by any transport.

use std::net::SocketAddr;

use floortape::wire::sip::Message;

/// One dialog of a scripted SRC, as far as its requests go.
pub(crate) struct Script {
    pub(crate) call_id: String,
    pub(crate) to_tag: String,
}

impl Script {
    pub(crate) fn new(call_id: &str) -> Self {
        Script { call_id: call_id.to_owned(), to_tag: String::new() }
    }

    /// A request by `transport` from `local`. `headers`: lines that end in CRLF.
    pub(crate) fn request(
        &self,
        method: &str,
        cseq: u32,
        (transport, local): (&str, SocketAddr),
        headers: &str,
    ) -> String {
        let Script { call_id, to_tag } = self;
        let body = if method == "INVITE" { OFFER } else { "" };
        let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
        let to = if to_tag.is_empty() { String::new() } else { format!(";tag={to_tag}") };
        let branch = format!("{call_id}-{method}-{cseq}-{}", local.port());
        let lower = transport.to_ascii_lowercase();
        format!(
            "{method} sip:srs@127.0.0.1 SIP/2.0\r\n\
             Via: SIP/2.0/{transport} {local};branch=z9hG4bK{branch};rport\r\n\
             From: <sip:src@desk.example>;tag=one\r\nTo: <sip:srs@127.0.0.1>{to}\r\n\
             Call-ID: {call_id}\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
             Contact: <sip:src@{local};transport={lower}>;+sip.src\r\nRequire: siprec\r\n\
             {headers}{content}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    /// Takes our tag from a 200 to the INVITE.
    pub(crate) fn answered(&mut self, message: &Message) {
        assert_eq!(message.code(), Some(200), "{message:?}");
        self.to_tag = message.to().and_then(|to| to.tag().map(str::to_owned)).expect("a tag");
    }
}

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
                     m=audio 40000 RTP/AVP 0\r\na=label:1\r\na=sendonly\r\n";
