//! `floortape show`: one recording, or all parts of one Communication Session.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;

use super::ls::word;
use super::remote;
use super::show_session::{heading, parts};
use super::store::{StoreArgs, named};
use super::table::{plain, table};
use crate::base::counter::Cause;
use crate::base::keep::Keep;
use crate::base::time::Wall;
use crate::shell::exit::{Exit, Failure};
use crate::shell::kept::Keeping;
use crate::shell::serve::reading::Read;
use crate::shell::when::{When, ZoneArgs};
use crate::store::catalog::model::{
    Contributor, Expiry, Jitter, Participant, Recording, Retention, Source, Stream,
};

/// Show a recording: who, what, and the ledger of every stream.
#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct Args {
    /// Recording id
    #[arg(group = "which", value_name = "ID")]
    id: Option<String>,
    /// All recordings that hold a part of this Communication Session
    #[arg(long, group = "which", value_name = "SESSION_ID")]
    session: Option<String>,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    zone: ZoneArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let when = args.zone.when()?;
    let tz = || when.name();
    let read = || match (&args.id, &args.session) {
        (Some(id), _) => Ok(Read::Show { id: remote::id(id)?, json: args.json, tz: tz() }),
        (None, session) => {
            let session = session.clone().unwrap_or_default();
            Ok(Read::ShowSession { session, json: args.json, tz: tz() })
        }
    };
    if let Some(exit) = remote::instead(&args.store, read)? {
        return Ok(exit);
    }
    let store = args.store.find()?;
    let library = store.library()?;
    let mut recordings = match (&args.id, &args.session) {
        (Some(id), _) => {
            let id = named(&library, id, &store.dir)?.id;
            library.recording(id)?.into_iter().collect::<Vec<_>>()
        }
        (None, Some(session)) => parts(&library, session)?,
        (None, None) => Vec::new(),
    };
    if recordings.is_empty() {
        return Err(Failure::new(Exit::NotFound, "nothing recorded under that name"));
    }
    let keeping = Keeping::of(&store.dir, args.store.keeping()?);
    for recording in &mut recordings {
        if let Some(rs) = library.entry(recording.id)? {
            keeping.tell(recording, &rs);
        }
    }
    let mut out = std::io::stdout().lock();
    if let Some(session) = args.session.as_ref().filter(|_| !args.json) {
        out.write_all(heading(session, &recordings, &when).as_bytes())?;
        out.write_all(b"\n")?;
    }
    for (number, recording) in recordings.iter().enumerate() {
        if args.json {
            serde_json::to_writer(&mut out, recording)?;
            out.write_all(b"\n")?;
        } else {
            if number > 0 {
                out.write_all(b"\n")?;
            }
            out.write_all(text(recording, &when).as_bytes())?;
        }
    }
    Ok(Exit::Yes)
}

/// What is gone of a recording, in words.
pub(crate) fn expiry_words(gone: &Expiry) -> String {
    let part = if gone.whole { "gone" } else { "partly gone" };
    let how = match &*gone.class {
        // Its bytes are still there.
        "" => "its key is destroyed".to_owned(),
        class => format!("class {}", plain(class)),
    };
    format!("{part} by retention since {}, {how}", gone.since)
}

/// How long a recording is kept, in words.
fn kept_words(retention: &Retention, when: &When) -> String {
    let mut words = match (retention.keep, retention.keep_until) {
        (_, Some(until)) => format!("until {}", when.text(until)),
        (Some(Keep::Forever), None) => "for ever".to_owned(),
        (Some(keep), None) => format!("{keep} from its end"),
        (None, None) => "as long as it was promised".to_owned(),
    };
    if let Some(class) = &retention.class {
        let _ = write!(words, ", class {}", plain(class));
    }
    for hold in &retention.held_by {
        let _ = write!(words, ", held by hold {hold}");
    }
    words
}

fn text(recording: &Recording, when: &When) -> String {
    let time = |time: Option<Wall>| time.map_or_else(|| "-".to_owned(), |time| when.both(time));
    let rows = [
        ("recording", recording.id.to_string()),
        ("state", word(&recording.state)),
        ("start", when.both(recording.start)),
        ("end", time(recording.end)),
        ("call-id", plain(&recording.call_id)),
        ("src", plain(&format!("{} at {}", recording.src.identity, recording.src.address))),
        ("agent", plain(&recording.src.user_agent)),
        (
            "security",
            format!(
                "signalling {}, media {}",
                word(&recording.security.signalling),
                word(&recording.security.media)
            ),
        ),
        ("durable", time(recording.durable_through)),
        (
            "seal",
            format!(
                "{} {}",
                word(&recording.seal.state),
                recording.seal.head.as_deref().unwrap_or("")
            ),
        ),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), value]);
    let mut out = table(&rows);
    for quirk in &recording.quirks {
        let _ = writeln!(out, "quirk      {}", plain(quirk));
    }
    if let Some(retention) = &recording.retention {
        let _ = writeln!(out, "kept       {}", kept_words(retention, when));
        if let Some(gone) = &retention.gone {
            let _ = writeln!(out, "gone       {}", expiry_words(gone));
        }
        if let Some(forgotten) = retention.forgotten {
            let _ = writeln!(out, "forgotten  what was said of it, since {}", when.text(forgotten));
        }
    }
    for session in &recording.sessions {
        let time = |time: &Option<String>| plain(time.as_deref().unwrap_or("?"));
        let (id, start, stop) = (&session.session_id, time(&session.start), time(&session.stop));
        let _ = write!(out, "session    {}, {start} to {stop} by the client", plain(id));
        let first = session.periods.first().and_then(|period| period.stated_offset_ms);
        let _ = writeln!(out, "{}", first.map_or_else(String::new, apart));
    }
    for participant in &recording.participants {
        if participant.names.is_empty() {
            let _ = writeln!(out, "party      {} (no name)", plain(&participant.participant_id));
        }
        for name in &participant.names {
            let _ = writeln!(
                out,
                "party      {} {}",
                plain(&name.aor),
                plain(name.name.as_deref().unwrap_or(""))
            );
        }
    }
    let who = |ids: &[String]| {
        let known =
            |id: &&String| recording.participants.iter().find(|known| known.participant_id == **id);
        let names: Vec<String> = ids.iter().filter_map(|id| known(&id)).map(name).collect();
        names.join(", ")
    };
    for stream in &recording.streams {
        let (from, to) = (who(&stream.participants.send), who(&stream.participants.recv));
        stream_text(&mut out, stream, &from, &to, when);
        for one in stream.associations.iter().filter(|one| one.direction == "send") {
            let name = who(std::slice::from_ref(&one.participant_id));
            let (from, to) = (when.text(one.period.from), when.or_now(one.period.to));
            let _ = write!(out, "  {name} sends {from} to {to}");
            if let Some(stated) = &one.period.stated_from {
                let _ = write!(out, ", stated {}", plain(stated));
            }
            let offset = one.period.stated_offset_ms;
            let _ = writeln!(out, "{}", offset.map_or_else(String::new, apart));
        }
    }
    out
}

/// What to call a participant: the name, else the AoR, else the id.
pub(crate) fn name(participant: &Participant) -> String {
    let first = participant.names.first();
    let name = first.and_then(|known| known.name.as_deref().filter(|name| !name.is_empty()));
    let aor = first.map(|known| known.aor.as_str());
    plain(name.or(aor).unwrap_or(&participant.participant_id))
}

/// How far the SRC's clock is from ours, by what it states and when that came.
fn apart(offset_ms: i64) -> String {
    let seconds = offset_ms.unsigned_abs() as f64 / 1_000.0;
    match offset_ms {
        -49..=49 => ", SRC clock as ours".to_owned(),
        ..=-50 => format!(", SRC clock {seconds:.1} s behind"),
        _ => format!(", SRC clock {seconds:.1} s ahead"),
    }
}

fn stream_text(out: &mut String, stream: &Stream, from: &str, to: &str, when: &When) {
    let _ = write!(out, "\nstream {}", plain(&stream.label));
    if !from.is_empty() {
        let _ = write!(out, ", {from} speaking");
    }
    if !to.is_empty() {
        let _ = write!(out, ", heard by {to}");
    }
    let _ = writeln!(
        out,
        ": {} {}/{} {}, {}, {}, {:.3} s unproven",
        stream.media,
        plain(&stream.codec),
        stream.clock_rate,
        stream.suite.as_deref().unwrap_or("in the clear"),
        word(&stream.state),
        word(&stream.verdict),
        stream.unproven_s,
    );
    let head =
        ["SSRC", "FIRST", "LAST", "PACKETS", "SENT", "LOST", "UNEXPLAINED", "AGAIN", "JITTER"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(stream.sources.iter().map(source_row));
    if rows.len() > 1 {
        out.push_str(&table(&rows));
    }
    for source in &stream.sources {
        for gap in &source.gaps {
            let cause = gap.cause.map_or("unexplained", |cause| cause.label());
            let _ = writeln!(
                out,
                "  gap {:08x}: {} to {} ({} packets), {} to {}: {cause}",
                source.ssrc,
                gap.first,
                gap.last,
                gap.last - gap.first + 1,
                when.text(gap.from),
                when.text(gap.to)
            );
        }
    }
    for source in &stream.sources {
        contributors_text(out, source, when);
    }
    // Where the journal does not tell, the records do.
    let pauses = stream.pauses.iter().filter(|_| stream.controls.is_empty());
    for pause in pauses {
        let (from, to) = (when.text(pause.from), when.or_now(pause.to));
        let _ = writeln!(out, "  paused {from} to {to} by {}", pause.cause);
    }
    for control in &stream.controls {
        let at = when.text(control.at);
        let _ = write!(out, "  {} {at} by {}", word(&control.action), word(&control.by));
        if !control.cause.is_empty() {
            let _ = write!(out, ", {}", plain(&control.cause));
        }
        if let Some(stated) = &control.stated {
            let _ = write!(out, ", stated {}", plain(stated));
            if let Ok(stated) = stated.trim().parse::<Wall>() {
                let offset_ms = stated.0.saturating_sub(control.at.0) / 1_000_000;
                let _ = write!(out, "{}", apart(offset_ms));
            }
        }
        for rtp in &control.rtp {
            let _ = write!(out, ", RTP {} of {:08x}", rtp.timestamp, rtp.ssrc);
        }
        out.push('\n');
    }
    for digit in &stream.dtmf {
        let at = when.text(digit.at);
        let _ = writeln!(out, "  digit {} at {at} for {} ms", digit.digit, digit.ms);
    }
    if stream.dtmf_cut {
        out.push_str("  more digits than these came: the packets hold them\n");
    }
    for (label, count) in &stream.drops {
        let _ = writeln!(out, "  not recorded: {count} {label}");
    }
}

/// Who is in a mix when.
fn contributors_text(out: &mut String, source: &Source, when: &When) {
    let name = |one: &Contributor| match &one.cname {
        Some(cname) => format!("{:08x} {}", one.ssrc, plain(cname)),
        None => format!("{:08x}", one.ssrc),
    };
    for one in &source.contributors {
        let who: Vec<String> = one.csrcs.iter().map(name).collect();
        let _ = writeln!(
            out,
            "  mixed {:08x}: {} to {} ({} packets), {} to {}: {}",
            source.ssrc,
            one.first,
            one.last,
            one.packets,
            when.text(one.from),
            when.text(one.to),
            who.join(", ")
        );
    }
    if let Some(cut) = &source.contributors_cut {
        let _ = writeln!(
            out,
            "  mixed {:08x}: from {} on, {}: who is in {} packets changes too often to be told here",
            source.ssrc,
            cut.first,
            when.text(cut.from),
            cut.packets
        );
    }
}

/// What each cause has taken, with its bounds where it cannot be told exactly.
pub(super) fn lost_words(
    lost: &BTreeMap<Cause, u64>,
    ranges: &BTreeMap<Cause, [u64; 2]>,
) -> Vec<String> {
    let causes: BTreeSet<Cause> = lost.keys().chain(ranges.keys()).copied().collect();
    let word = |cause: Cause| {
        let count = lost.get(&cause).copied().unwrap_or(0);
        let bounds = ranges.get(&cause);
        let bounds = bounds.map_or_else(String::new, |[low, high]| format!(" ({low} to {high})"));
        format!("{count} {}{bounds}", cause.label())
    };
    causes.into_iter().map(word).collect()
}

/// Mean and highest, in ms.
fn jitter_text(jitter: Jitter) -> String {
    let ms = |us: u64| us as f64 / 1_000.0;
    format!("{:.1}/{:.1} ms", ms(jitter.mean_us), ms(jitter.max_us))
}

fn source_row(source: &Source) -> Vec<String> {
    let lost = lost_words(&source.lost, &source.lost_range);
    vec![
        format!("{:08x}", source.ssrc),
        source.first_index.to_string(),
        source.last_index.to_string(),
        source.packets.to_string(),
        source.rtcp_sent.map_or_else(|| "-".to_owned(), |sent| sent.to_string()),
        if lost.is_empty() { "0".to_owned() } else { lost.join(", ") },
        source.unexplained.to_string(),
        source.duplicates.to_string(),
        source.jitter.map_or_else(|| "-".to_owned(), jitter_text),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_that_cannot_be_told_exactly_says_so() {
        let lost = [(Cause::Socket, 15), (Cause::Ring, 3)].into();
        let ranges = [(Cause::Socket, [0, 15]), (Cause::Net, [0, 15])].into();
        let mut words = lost_words(&lost, &ranges);
        words.sort();
        assert_eq!(words, ["0 net (0 to 15)", "15 socket (0 to 15)", "3 ring"]);
    }
}
