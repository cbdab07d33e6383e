//! What an SDP says about its lines that metadata and media can be held against.

use crate::wire::sdp::Description;

/// One m-line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SdpLine {
    /// Position, 0 first.
    pub index: u16,
    /// `a=label`.
    pub label: Option<String>,
    /// Offered: its port is not 0.
    pub live: bool,
    /// `a=ssrc` (RFC 5576).
    pub sources: Vec<AnnouncedSource>,
}

/// An SSRC that the SDP announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedSource {
    /// The SSRC.
    pub ssrc: u32,
    /// Its CNAME, if that is said.
    pub cname: Option<String>,
}

/// Announced per line; an SDP with more is no use for a cross-check.
const SOURCES_MAX: usize = 32;

/// The lines of a description, in order.
pub fn sdp_lines(description: &Description) -> Vec<SdpLine> {
    let lines = description.media.iter().zip(0u16..);
    lines
        .map(|(media, index)| {
            let mut sources: Vec<AnnouncedSource> = Vec::new();
            for value in media.attributes("ssrc") {
                let (ssrc, attribute) = value.split_once(' ').unwrap_or((value, ""));
                let Ok(ssrc) = ssrc.trim().parse() else { continue };
                let cname = attribute.trim().strip_prefix("cname:").map(str::to_owned);
                if let Some(known) = sources.iter_mut().find(|known| known.ssrc == ssrc) {
                    known.cname = cname.or(known.cname.take());
                } else if sources.len() < SOURCES_MAX {
                    sources.push(AnnouncedSource { ssrc, cname });
                }
            }
            SdpLine { index, label: media.label.clone(), live: media.port != 0, sources }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssrc_attributes_of_a_line_are_gathered_by_ssrc() {
        let sdp = b"v=0\r\no=- 1 1 IN IP4 192.0.2.10\r\ns=-\r\nc=IN IP4 192.0.2.10\r\nt=0 0\r\n\
            m=audio 5004 RTP/AVP 0\r\na=label:1\r\na=ssrc:7 msid:x\r\na=ssrc:7 cname:ann@x\r\n\
            a=ssrc:nine cname:y\r\na=ssrc:4294967295\r\nm=audio 0 RTP/AVP 0\r\n";
        let lines = sdp_lines(&Description::parse(sdp).expect("readable"));
        let source =
            |ssrc, cname: Option<&str>| AnnouncedSource { ssrc, cname: cname.map(str::to_owned) };
        assert_eq!(lines[0].sources, [source(7, Some("ann@x")), source(u32::MAX, None)]);
        assert_eq!((lines[0].label.as_deref(), lines[0].live), (Some("1"), true));
        assert_eq!((lines[1].label.as_deref(), lines[1].live), (None, false));
    }
}
