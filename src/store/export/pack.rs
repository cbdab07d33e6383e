//! What makes an export open on any PC: a page with players and a plain text, both of the same words,
//! and the store's public key in two forms. Everything on it comes from `recording.json` and
//! `timeline.json`; nothing is fetched from anywhere.

use std::fmt::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::manifest::hex;
use super::times::{Times, Why};
use crate::base::shown::plain;
use crate::base::time::Wall;
use crate::store::catalog::model::{Recording, Stream, Verdict};
use crate::store::evidence::PublicKey;

/// The page.
pub const HTML: &str = "README.html";
/// The text.
pub const TEXT: &str = "README.txt";
/// The key as 64 hex digits.
pub const KEY_HEX: &str = "public-key.hex";
/// The key as RFC 8410 has it.
pub const KEY_PEM: &str = "public-key.pem";

/// Silences told a stream; all are in `timeline.json`.
const SILENCES_MAX: usize = 200;
/// Digits of a line that are told.
const DIGITS_MAX: usize = 200;

/// What a reader is told.
#[derive(Clone, Copy, Debug)]
pub struct Pack<'a> {
    /// The recording.
    pub recording: &'a Recording,
    /// When its samples were.
    pub times: &'a Times,
    /// The folder's files, without those of the pack.
    pub files: &'a [String],
    /// When it was exported.
    pub created: Wall,
    /// The part that was asked for.
    pub range: (Option<Wall>, Option<Wall>),
    /// The store's first key, that all others descend from, and the one that signs this.
    pub keys: (PublicKey, PublicKey),
}

/// `public-key.hex`.
pub fn key_hex(key: &PublicKey) -> String {
    format!("{}\n", hex(key))
}

/// `public-key.pem`: SubjectPublicKeyInfo of Ed25519 (RFC 8410 §4), for openssl.
pub fn key_pem(key: &PublicKey) -> String {
    // SEQUENCE { SEQUENCE { OID 1.3.101.112 } BIT STRING of 32 bytes }.
    let mut der = vec![0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
    der.extend_from_slice(key);
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
}

/// A part of either form.
struct Section {
    title: String,
    lines: Vec<String>,
    /// Files to be heard, and what is said of each.
    audio: Vec<(String, String)>,
}

impl Pack<'_> {
    /// `README.txt`.
    pub fn text(&self) -> String {
        let mut out = format!("{}\n", self.title());
        for Section { title, lines, audio } in self.sections() {
            let _ = write!(out, "\n{title}\n{}\n", "-".repeat(title.chars().count()));
            let audio = audio.into_iter().map(|(file, words)| format!("{file}: {words}"));
            for line in lines.into_iter().chain(audio) {
                let _ = writeln!(out, "{}", plain(&line));
            }
        }
        out
    }

    /// `README.html`.
    pub fn html(&self) -> String {
        let title = escaped(&self.title());
        let mut out = format!(
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; \
             media-src 'self' file:; style-src 'unsafe-inline'\">\n<title>{title}</title>\n\
             <style>body{{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}}\
             audio{{width:100%}}code{{overflow-wrap:anywhere}}</style></head><body>\n<h1>{title}</h1>\n"
        );
        for Section { title, lines, audio } in self.sections() {
            let _ = writeln!(out, "<h2>{}</h2>", escaped(&title));
            for (file, words) in audio {
                let (url, name, words) = (url(&file), escaped(&file), escaped(&words));
                let _ = writeln!(
                    out,
                    "<p><a href=\"{url}\">{name}</a>: {words}</p>\n\
                     <audio controls preload=\"none\" src=\"{url}\"></audio>"
                );
            }
            let _ = writeln!(out, "<ul>");
            for line in lines {
                let _ = writeln!(out, "<li>{}</li>", escaped(&line));
            }
            let _ = writeln!(out, "</ul>");
        }
        out.push_str("</body></html>\n");
        out
    }

    fn title(&self) -> String {
        format!("Recording {}", self.recording.id)
    }

    fn sections(&self) -> Vec<Section> {
        let mut sections = vec![self.what(), self.who()];
        sections.extend(self.recording.streams.iter().map(|stream| self.line(stream)));
        sections.push(self.check());
        sections.push(Section {
            title: "Files".to_owned(),
            lines: self.files.iter().map(|file| format!("{file}: {}", meaning(file))).collect(),
            audio: Vec::new(),
        });
        sections
    }

    fn what(&self) -> Section {
        let recording = self.recording;
        let or = |wall: Option<Wall>, other: &str| {
            wall.map_or_else(|| other.to_owned(), |wall| wall.to_string())
        };
        let mut lines = vec![
            format!("From {} to {} (UTC)", recording.start, or(recording.end, "now: it goes on")),
            format!("Recorded from {} ({})", recording.src.identity, recording.src.address),
            format!("Verdict: {}", verdict(recording)),
        ];
        if self.range != (None, None) {
            let (from, to) = (or(self.range.0, "the start"), or(self.range.1, "the end"));
            lines.push(format!("This is the part from {from} to {to}"));
        }
        lines.push(format!("Exported {}", self.created));
        let mixed = self.files.iter().filter(|file| *file == "mixed.wav");
        let words = format!("all lines together, {}", starts(self.times.mixed_start));
        let audio = mixed.map(|file| (file.clone(), words.clone())).collect();
        Section { title: "What it is".to_owned(), lines, audio }
    }

    fn who(&self) -> Section {
        let mut lines = Vec::new();
        for participant in &self.recording.participants {
            for name in &participant.names {
                lines.push(match &name.name {
                    Some(shown) => format!("{shown}, {}", name.aor),
                    None => name.aor.clone(),
                });
            }
        }
        for session in &self.recording.sessions {
            lines.push(format!("Communication session {}", session.session_id));
        }
        if lines.is_empty() {
            lines.push("The recording client named nobody".to_owned());
        }
        Section { title: "Who".to_owned(), lines, audio: Vec::new() }
    }

    fn line(&self, stream: &Stream) -> Section {
        let mut lines = vec![format!(
            "{} {} at {} Hz, verdict {}",
            stream.media,
            stream.codec,
            stream.clock_rate,
            word(stream.verdict)
        )];
        for pause in &stream.pauses {
            let to = pause.to.map_or_else(|| "the end".to_owned(), |to| to.to_string());
            lines.push(format!("Paused from {} to {to} by {}", pause.from, pause.cause));
        }
        for source in &stream.sources {
            for gap in &source.gaps {
                let cause = gap.cause.map_or("unexplained", |cause| cause.label());
                let packets = gap.last - gap.first + 1;
                let (from, to) = (gap.from, gap.to);
                lines.push(format!("{packets} packet(s) missing between {from} and {to}: {cause}"));
            }
        }
        lines.extend(stream.refused_words());
        let (from, to) = self.range;
        let is_ours = |at: Wall| from.is_none_or(|from| at >= from) && to.is_none_or(|to| at < to);
        let digits: Vec<_> = stream.dtmf.iter().filter(|digit| is_ours(digit.at)).collect();
        for digit in digits.iter().take(DIGITS_MAX) {
            lines.push(format!("Dialled {} at {} for {} ms", digit.digit, digit.at, digit.ms));
        }
        if digits.len() > DIGITS_MAX {
            let more = digits.len() - DIGITS_MAX;
            lines.push(format!("and {more} digits more, in recording.json"));
        }
        let mut audio = Vec::new();
        for wav in self.times.wavs.iter().filter(|wav| wav.stream == stream.stream) {
            audio.push((wav.file.clone(), starts(wav.start)));
            for silence in wav.silences.iter().take(SILENCES_MAX) {
                let why = match silence.why {
                    Why::Paused => "paused",
                    Why::Lost => "lost",
                    Why::Idle => "nothing sent, or nothing that is audio",
                };
                lines.push(format!("Silent from {} to {}: {why}", silence.from, silence.to));
            }
            lines.extend(wav.overlap_words());
            if wav.silences.len() > SILENCES_MAX {
                let more = wav.silences.len() - SILENCES_MAX;
                lines.push(format!("and {more} silences more, in timeline.json"));
            }
        }
        Section { title: format!("Line {}", stream.label), lines, audio }
    }

    fn check(&self) -> Section {
        let (first, own) = self.keys;
        let mut lines = vec![
            format!("Public key of the store: {}", hex(&first)),
            "Compare it with the one that you were given beforehand: this page could be anybody's, \
             and a key in the folder that it is to prove proves nothing"
                .to_owned(),
            format!("Then, in this folder: floortape verify . --key {}", hex(&first)),
            "Every file here is in manifest.json with its SHA-256, which that command checks, with \
             the signature and the way of each record to a signed chain head; any sha256 tool does \
             the former"
                .to_owned(),
        ];
        if own != first {
            lines.insert(
                1,
                format!("Signed by its newer key {}, which that one vouches for", hex(&own)),
            );
        }
        Section { title: "How to check it".to_owned(), lines, audio: Vec::new() }
    }
}

/// When a file's first sample was.
fn starts(start: Option<Wall>) -> String {
    start.map_or_else(|| "nothing is heard".to_owned(), |start| format!("starts at {start}"))
}

fn verdict(recording: &Recording) -> String {
    let of = |stream: &Stream| format!("line {} {}", stream.label, word(stream.verdict));
    let words: Vec<String> = recording.streams.iter().map(of).collect();
    if words.is_empty() { "no line".to_owned() } else { words.join(", ") }
}

const fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Complete => "complete",
        Verdict::Continuous => "continuous",
        Verdict::Gaps => "gaps",
        Verdict::Empty => "empty",
    }
}

fn meaning(file: &str) -> &'static str {
    match file {
        "mixed.wav" => "all lines, each in its place in time",
        "timeline.json" => "when each sample was",
        "recording.json" => "the recording with its ledger",
        "proof/records" => "the stored records, as they were sealed",
        _ if file.starts_with("metadata/") => "what the client said of it, as received",
        _ if file.ends_with(".wav") => "one line as audio",
        _ if file.ends_with(".h264") => "one line as video, for players such as VLC and ffplay",
        _ if file.ends_with(".times.txt") => "when its pictures were",
        _ if file.ends_with(".txt") => "what was typed",
        _ if file.ends_with(".pcapng") => "packets, for Wireshark",
        _ if file.ends_with(".rtpdump") => "packets, for rtptools",
        _ => "see the format pages",
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in plain(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A file's name as a reference: its own percent signs are no escapes, and it names no scheme.
fn url(file: &str) -> String {
    let mut out = "./".to_owned();
    for byte in file.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/' => {
                out.push(char::from(byte));
            }
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_src_says_is_text_and_nothing_else() {
        assert_eq!(
            escaped("<script>'\"&\u{1b}[2J\n"),
            "&lt;script&gt;&#39;&quot;&amp;\u{fffd}[2J\u{fffd}"
        );
        assert_eq!(url("%2E.%2Fa~2.wav"), "./%252E.%252Fa%7E2.wav");
    }

    #[test]
    fn the_key_is_what_openssl_reads() {
        // RFC 8410 §10.1: the public key of its example.
        let key = STANDARD.decode("Gb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").expect("base64");
        let key: PublicKey = key.try_into().unwrap_or([0; 32]);
        let pem = key_pem(&key);
        let lines: Vec<&str> = pem.lines().collect();
        assert_eq!(lines[1], "MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=");
        assert_eq!((lines.len(), lines[0]), (3, "-----BEGIN PUBLIC KEY-----"));
        assert_eq!(key_hex(&[0xab; 32]).trim_end(), "ab".repeat(32));
    }
}
