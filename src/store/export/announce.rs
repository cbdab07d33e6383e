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

/// Bits of a frame of speech of each type, the last one of comfort noise (3GPP TS 26.101 and TS 26.201).
const AMR_BITS: [u16; 9] = [95, 103, 118, 134, 148, 159, 204, 244, 39];
const AMR_WB_BITS: [u16; 10] = [132, 177, 253, 285, 317, 365, 397, 461, 477, 40];

/// From payloads in the bandwidth-efficient form of RFC 4867 §4.3, one a line in hexadecimal, to its file format (§5).
const UNPACK: &str = r#"import sys
sizes = BITS
out = sys.stdout.buffer
out.write(b"HEAD\n")
for line in sys.stdin:
    bits = "".join(f"{octet:08b}" for octet in bytes.fromhex(line.strip().replace(":", "")))
    at, frames, more = 4, [], True
    while more and at + 6 <= len(bits):
        more = bits[at] == "1"
        frames.append((int(bits[at + 1:at + 5], 2), int(bits[at + 5])))
        at += 6
    for kind, quality in frames:
        size = sizes[kind] if kind < len(sizes) else 0
        frame, at = bits[at:at + size], at + size
        octets = [int(frame[n:n + 8].ljust(8, "0"), 2) for n in range(0, len(frame), 8)]
        if len(frame) == size:
            out.write(bytes([kind << 3 | quality << 2] + octets))
"#;

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
    let says = |wanted: &str| {
        fmtp.split(';').any(|one| {
            one.get(..wanted.len()).is_some_and(|head| head.eq_ignore_ascii_case(wanted))
        })
    };
    let aligned = fmtp.split(';').any(|one| one.eq_ignore_ascii_case("octet-align=1"));
    // RFC 4867 §8.1: any of these means octets that are aligned in another way.
    let framed =
        ["octet-align=1", "crc=1", "robust-sorting=1", "interleaving="].into_iter().any(says);
    let efficient = !framed && first.channels <= 1;
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
    let by_python = |bits: &[u16], head: &str| {
        format!(
            "\nTo convert it (tshark, Python, and ffmpeg; the bits of several frames stand one behind the other in a \
             packet):\n\ncat >'{wav}.py' <<'END'\n{}END\ntshark -r '{file}' -Y 'rtp.p_type == {payload_type}' -T fields -e \
             rtp.payload | python3 '{wav}.py' >'{wav}.amr'\nffmpeg -i '{wav}.amr' '{wav}.wav'\n\nWhat was lost or left out \
             is not filled up by that.\n",
            UNPACK.replace("HEAD", head).replace("BITS", &format!("{bits:?}"))
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
        "AMR" if efficient => by_python(&AMR_BITS, "#!AMR"),
        "AMR-WB" if efficient => by_python(&AMR_WB_BITS, "#!AMR-WB"),
        "EVS" => format!(
            "\nNo player decodes EVS. 3GPP's reference decoder (TS 26.443) does, and it takes no RTP: frames have to be \
             brought\ninto the file format of TS 26.445, Annex A.2.6, before. No command for that was tried here. The payloads, \
             one a line\nin hexadecimal (tshark):\n\n  tshark -r '{file}' -Y 'rtp.p_type == {payload_type}' -T fields -e \
             rtp.payload >'{wav}.evs.txt'\n"
        ),
        _ => String::new(),
    });
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

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

    /// Two frames of GStreamer's encoder of AMR (12.2 kbit/s, a tone), packed into one packet by hand.
    #[test]
    fn what_a_note_says_of_amr_does_what_it_says() {
        const PACKET: &str = "fbcf2403b3481063c7ecce01faf5347415c000092c996d307800001b41200365b2d7adf9000347980e6035a8c\
                              da4750f350f42709be0f47fa206bc1069e18b";
        const FRAMES: &str = "3c2403b3481063c7ecce01faf5347415c000092c996d307800001b41200365b03c2d7adf9000347980e6035a8c\
                              da4750f350f42709be0f47fa206bc1069e18b0";
        let note = note(&stream("AMR", None), "2.pcapng").expect("audio");
        let (_, rest) = note.split_once("<<'END'\n").expect("a script");
        let (script, _) = rest.split_once("END\n").expect("its end");
        let mut line = Command::new("python3");
        let python = line.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut python) = python else {
            println!("skipped: no python3 here");
            return;
        };
        let mut input = python.stdin.take().expect("piped");
        // Behind it nothing of one that is cut short.
        writeln!(input, "{PACKET}\nfbcf24").expect("it reads");
        drop(input);
        let out = python.wait_with_output().expect("it ends");
        assert!(out.status.success());
        let text: String = out.stdout.iter().map(|octet| format!("{octet:02x}")).collect();
        let head: String = b"#!AMR\n".iter().map(|octet| format!("{octet:02x}")).collect();
        assert_eq!(text, head + FRAMES);
    }

    #[test]
    fn a_note_names_the_format_and_a_way_to_convert_it() {
        let said = |codec, fmtp| note(&stream(codec, fmtp), "2.pcapng").expect("audio");
        assert!(said("G729", None).contains("ffmpeg -f g729 -i '2.g729' '2.wav'"));
        let amr = said("AMR", Some("mode-set=7; octet-align=1"));
        assert!(amr.contains("rtpamrdepay") && amr.contains("payload=97,octet-align=(string)1"));
        for (codec, fmtp) in [("AMR", None), ("amr-wb", Some("mode-set=2"))] {
            let efficient = said(codec, fmtp);
            assert!(!efficient.contains("rtpamrdepay"), "that takes aligned octets alone");
            assert!(efficient.contains("python3 '2.py' >'2.amr'"), "{efficient}");
        }
        for fmtp in ["crc=1", "mode-set=7; robust-sorting=1", "interleaving=4"] {
            assert!(
                !said("AMR", Some(fmtp)).contains("python3"),
                "{fmtp} is neither of both forms"
            );
        }
        assert!(said("EVS", None).contains("3GPP") && said("XYZ", None).contains("Wireshark"));
        assert_eq!(
            note(&StreamDescription { media: "video".into(), ..stream("VP8", None) }, "v"),
            None
        );
    }
}
