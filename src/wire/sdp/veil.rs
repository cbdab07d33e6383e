//! A description without what names people on lines that are not to be recorded.

/// Attributes that say how a line is sent, and nothing of whose it is.
const TECHNICAL: [&str; 11] = [
    "label",
    "rtpmap",
    "fmtp",
    "crypto",
    "rtcp",
    "rtcp-fb",
    "ptime",
    "maxptime",
    "content",
    "setup",
    "fingerprint",
];

/// The same bytes with as many `*` instead of each value that may name somebody: on the m-lines that
/// `hides` names by position (0 first) their titles and all attributes but technical ones, and what the
/// whole session says in words (`s=`, `i=`, `u=`, `e=`, `p=`).
pub fn veil(bytes: &[u8], hides: &dyn Fn(u16) -> bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut line = None;
    for whole in bytes.split_inclusive(|byte| *byte == b'\n') {
        if whole.starts_with(b"m=") {
            line = Some(line.map_or(0, |line: u16| line.saturating_add(1)));
        }
        let end = whole.len() - whole.iter().rev().take_while(|b| b"\r\n".contains(b)).count();
        let keeps = match (line, whole.get(..2)) {
            (None, Some(b"s=" | b"i=" | b"u=" | b"e=" | b"p=")) => 2,
            (Some(line), Some(b"i=")) if hides(line) => 2,
            (Some(line), Some(b"a=")) if hides(line) => {
                let colon = whole[..end].iter().position(|byte| *byte == b':').unwrap_or(end);
                let name = whole[2..colon].trim_ascii();
                let technical =
                    TECHNICAL.iter().any(|own| name.eq_ignore_ascii_case(own.as_bytes()));
                if technical { end } else { (colon + 1).min(end) }
            }
            _ => end,
        };
        let keeps = keeps.min(end);
        out.extend(&whole[..keeps]);
        out.resize(out.len() + end - keeps, b'*');
        out.extend(&whole[end..]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::Description;
    use super::*;

    #[test]
    fn names_on_hidden_lines_go_and_the_others_stay() {
        let sdp = "v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=Bob\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
            m=audio 5004 RTP/AVP 0\r\na=label:1\r\na=ssrc:7 cname:ann@x\r\n\
            m=audio 5006 RTP/AVP 0\r\ni=Bob\r\na=label:2\r\na=ssrc:8 cname:bob@x\r\na=sendonly\r\nm=";
        let veiled = veil(sdp.as_bytes(), &|line| line == 1);
        assert_eq!(veiled.len(), sdp.len());
        let text = String::from_utf8(veiled.clone()).expect("stars for ASCII");
        assert!(!text.to_lowercase().contains("bob"), "{text}");
        assert!(text.contains("a=ssrc:7 cname:ann@x\r\n") && text.contains("a=sendonly\r\n"));
        let read = Description::parse(&veiled[..veiled.len() - 2]).expect("still one");
        assert_eq!(read.media[1].label.as_deref(), Some("2"));
        assert_eq!(veil(b"", &|_| true), b"");
        assert_eq!(veil(b"a=x:bob\n", &|_| true), b"a=x:bob\n", "of the session");
    }
}
