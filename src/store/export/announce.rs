//! What opens a packet file for readers of packets: an announcement (SAP, RFC 2974) with an SDP of the line,
//! so that Wireshark and others know the formats of its payload types without being told.

use std::fmt::Write;
use std::net::IpAddr;

use crate::store::event::StreamDescription;

/// Port of announcements (RFC 2974 §4).
pub const PORT: u16 = 9_875;
/// Stands at the packet in the file, so that nobody takes it for one that was sent.
pub const COMMENT: &str = "Written by the exporter: no recorded packet. The SDP says what the payload types of this \
                           line were agreed to be.";
/// IPv4 group of announcements of global scope, and IPv6 one.
const GROUPS: ([u8; 4], [u16; 8]) = ([224, 2, 127, 254], [0xff0e, 0, 0, 0, 0, 0, 2, 0x7ffe]);

/// Where announcements go to.
pub fn group(local: IpAddr) -> IpAddr {
    match local {
        IpAddr::V4(_) => IpAddr::V4(GROUPS.0.into()),
        IpAddr::V6(_) => IpAddr::V6(GROUPS.1.into()),
    }
}

/// An SDP (RFC 8866) of the line as it was recorded at `local`: one m-line, after decryption `RTP/AVP`.
pub fn sdp(stream: &StreamDescription, local: IpAddr) -> String {
    let family = if local.is_ipv4() { "IP4" } else { "IP6" };
    let name = line(stream.label.as_deref().filter(|label| !label.is_empty()).unwrap_or("-"));
    let mut out = format!("v=0\r\no=- {} 1 IN {family} {local}\r\ns={name}\r\n", stream.stream.0);
    let _ = write!(out, "c=IN {family} {local}\r\nt=0 0\r\n");
    let _ = write!(out, "m={} {} RTP/AVP", line(&stream.media), stream.port);
    for format in &stream.formats {
        let _ = write!(out, " {}", format.payload_type);
    }
    out.push_str("\r\n");
    for format in &stream.formats {
        let (payload_type, codec) = (format.payload_type, line(&format.codec));
        let _ = write!(out, "a=rtpmap:{payload_type} {codec}/{}", format.clock_rate);
        if format.channels > 1 {
            let _ = write!(out, "/{}", format.channels);
        }
        out.push_str("\r\n");
        if let Some(fmtp) = &format.fmtp {
            let _ = write!(out, "a=fmtp:{payload_type} {}\r\n", line(fmtp));
        }
    }
    out
}

/// The announcement of it (RFC 2974 §3).
pub fn announcement(stream: &StreamDescription, local: IpAddr) -> Vec<u8> {
    let sdp = sdp(stream, local);
    // Version 1; of an IPv6 origin bit A is set. No authentication. The hash tells announcements apart.
    let mut out = vec![0x20 | u8::from(local.is_ipv6()) << 4, 0];
    out.extend_from_slice(&(stream.stream.0 as u16).to_be_bytes());
    match local {
        IpAddr::V4(local) => out.extend_from_slice(&local.octets()),
        IpAddr::V6(local) => out.extend_from_slice(&local.octets()),
    }
    out.extend_from_slice(b"application/sdp\0");
    out.extend_from_slice(sdp.as_bytes());
    out
}

/// Nothing that would end a line of it.
fn line(text: &str) -> String {
    text.chars().map(|one| if one.is_control() { ' ' } else { one }).collect()
}

/// What is said of a line of audio that has no decoder here; `None`: it has one, or nothing was agreed. `file`: the
/// one with its packets.
pub fn note(stream: &StreamDescription, file: &str) -> Option<String> {
    if stream.media != "audio" {
        return None;
    }
    let first = stream.formats.first()?;
    let mut out =
        format!("The audio of this line has no decoder here; its packets are in {file}:\n");
    for format in &stream.formats {
        let (payload_type, codec) = (format.payload_type, line(&format.codec));
        let _ = write!(out, "  payload type {payload_type}: {codec}/{}", format.clock_rate);
        if format.channels > 1 {
            let _ = write!(out, ", {} channels", format.channels);
        }
        if let Some(fmtp) = &format.fmtp {
            let _ = write!(out, ", {}", line(fmtp));
        }
        out.push('\n');
    }
    out.push_str(
        "\nTo hear it, open the file in Wireshark: Telephony, RTP, RTP Streams, mark it, Play Streams. It knows\n\
         G.729, G.723, AMR, AMR-WB, iLBC and others, as far as it was built with them.\n",
    );
    let fmtp = first.fmtp.as_deref().unwrap_or_default().replace(' ', "");
    let aligned = fmtp.split(';').any(|one| one.eq_ignore_ascii_case("octet-align=1"));
    let (name, payload_type) = (first.codec.to_ascii_uppercase(), first.payload_type);
    let wav = file.trim_end_matches(".pcapng");
    let by_gstreamer = |encoding: &str, more: &str, chain: &str| {
        format!(
            "\nTo convert it (Wireshark's editcap, and GStreamer):\n\n  editcap -F pcap '{file}' packets.pcap\n  \
             gst-launch-1.0 filesrc location=packets.pcap ! pcapparse dst-port={} \\\n    \
             caps='application/x-rtp,media=audio,clock-rate={},encoding-name={encoding},payload={payload_type}{more}' \\\n    \
             ! {chain} ! audioconvert ! wavenc ! filesink location='{wav}.wav'\n",
            stream.port, first.clock_rate
        )
    };
    let aligned_more =
        ",octet-align=(string)1,crc=(string)0,robust-sorting=(string)0,interleaving=(string)0";
    out.push_str(&match name.as_str() {
        "G729" => format!(
            "\nTo convert it (tshark, xxd, and ffmpeg):\n\n  tshark -r '{file}' -Y 'rtp.p_type == {payload_type}' -T fields \
             -e rtp.payload | xxd -r -p >'{wav}.g729'\n  ffmpeg -f g729 -i '{wav}.g729' '{wav}.wav'\n\nWhat was lost or \
             left out as silence is not filled up by that.\n"
        ),
        "AMR" if aligned => by_gstreamer("AMR", aligned_more, "rtpamrdepay ! amrnbdec"),
        "AMR-WB" if aligned => by_gstreamer("AMR-WB", aligned_more, "rtpamrdepay ! amrwbdec"),
        "ILBC" | "SPEEX" | "GSM" => String::new(),
        "EVS" => "\nTo convert it, 3GPP's reference decoder (TS 26.442, TS 26.443) takes the payloads; Wireshark shows \
                  them.\n"
            .to_owned(),
        _ => String::new(),
    });
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{RsId, Slot, StreamId};
    use crate::store::event::Format;

    fn stream(codec: &str, fmtp: Option<&str>) -> StreamDescription {
        let format = |payload_type, codec: &str, fmtp: Option<&str>| Format {
            payload_type,
            codec: codec.to_owned(),
            clock_rate: 8_000,
            channels: 1,
            fmtp: fmtp.map(str::to_owned),
        };
        StreamDescription {
            stream: StreamId(7),
            rs: RsId([1; 16]),
            line: 0,
            label: Some("desk\r\na=evil".to_owned()),
            media: "audio".to_owned(),
            formats: vec![format(97, codec, fmtp), format(101, "telephone-event", Some("0-15"))],
            suite: None,
            transport: "RTP/SAVP".to_owned(),
            slot: Slot(0),
            port: 20_000,
            remote: None,
        }
    }

    #[test]
    fn an_sdp_says_what_the_payload_types_are_and_nothing_ends_a_line() {
        let local: IpAddr = "192.0.2.9".parse().expect("literal");
        let text = sdp(&stream("AMR", Some("octet-align=1")), local);
        assert!(
            text.contains("m=audio 20000 RTP/AVP 97 101\r\na=rtpmap:97 AMR/8000\r\n"),
            "{text}"
        );
        assert!(
            text.contains("a=fmtp:97 octet-align=1\r\n") && !text.contains("\na=evil"),
            "{text}"
        );
        let parsed = well_formed(&text);
        assert_eq!(parsed, text.lines().count(), "each line is one");
        let sap = announcement(&stream("AMR", None), local);
        assert_eq!(sap[..8], [0x20, 0, 0, 7, 192, 0, 2, 9]);
        let sap = announcement(&stream("AMR", None), "2001:db8::9".parse().expect("literal"));
        assert_eq!((sap[0], sap.len() > 20), (0x30, true));
    }

    /// Lines of the form that RFC 8866 §5 has: a letter, an equals sign, something.
    fn well_formed(text: &str) -> usize {
        let good = |line: &&str| line.len() > 2 && line.as_bytes()[1] == b'=';
        text.split_terminator("\r\n").filter(good).count()
    }

    #[test]
    fn a_note_names_the_format_and_a_way_to_convert_it() {
        let said = |codec, fmtp| note(&stream(codec, fmtp), "2.pcapng").expect("audio");
        assert!(said("G729", None).contains("ffmpeg -f g729 -i '2.g729' '2.wav'"));
        let amr = said("AMR", Some("mode-set=7; octet-align=1"));
        assert!(amr.contains("rtpamrdepay") && amr.contains("payload=97,octet-align=(string)1"));
        assert!(!said("AMR", None).contains("rtpamrdepay"), "that takes aligned octets alone");
        assert!(said("EVS", None).contains("3GPP") && said("XYZ", None).contains("Wireshark"));
        assert_eq!(
            note(&StreamDescription { media: "video".into(), ..stream("VP8", None) }, "v"),
            None
        );
    }
}
