//! `floortape audit`: the audit trail, for people and for other programs.

use std::fmt::Write as _;
use std::io::Write;

use super::remote;
use super::store::StoreArgs;
use super::table::plain;
use crate::base::time::Wall;
use crate::host::audit;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::reading::Read;
use crate::shell::when::SaidArgs;
use crate::store::audit::{Entry, Outcome};

/// Show the audit trail: who listened, exported, held, changed, configured, and who was refused (exit 1:
/// something is wrong with it).
#[derive(clap::Args)]
pub struct Args {
    /// One JSON object an entry
    #[arg(long)]
    json: bool,
    /// Only from then on: a time as `search` takes it (RFC 3339, 14:05, yesterday, 2026-11-30 14:05
    /// Europe/Berlin, -2h)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only this action, such as `export`, or all of a kind, such as `rs`
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only what was done to this: a recording's id, or a hold's
    #[arg(long, value_name = "ID")]
    of: Option<String>,
    #[command(flatten)]
    zone: SaidArgs,
    #[command(flatten)]
    store: StoreArgs,
}

impl Args {
    fn wants(&self, since: Option<Wall>, entry: &Entry) -> bool {
        let is_kind = |wanted: &str| {
            entry.action == wanted
                || entry.action.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('.'))
        };
        since.is_none_or(|since| entry.at >= since)
            && self.action.as_deref().is_none_or(is_kind)
            && self.of.as_deref().is_none_or(|of| entry.object == of)
    }
}

/// Runs the verb.
pub fn run(args: Args) -> Result<Exit, Failure> {
    let since = args.zone.time("since", &args.since)?;
    let read = || {
        let (action, of) = (args.action.clone(), args.of.clone());
        Ok(Read::Audit { json: args.json, since, action, of })
    };
    if let Some(exit) = remote::instead(&args.store, read)? {
        return Ok(exit);
    }
    let store = args.store.find()?;
    let trail = audit::read(&store.dir)?;
    let mut out = std::io::stdout().lock();
    for entry in trail.entries.iter().filter(|entry| args.wants(since, entry)) {
        if args.json {
            serde_json::to_writer(&mut out, entry)?;
            out.write_all(b"\n")?;
        } else {
            out.write_all(line(entry).as_bytes())?;
        }
    }
    for tail in &trail.summary.tails {
        eprintln!(
            "floortape: audit trail: {} ends in {} bytes of an entry that was promised to nobody",
            tail.file, tail.bytes
        );
    }
    for fault in &trail.summary.faults {
        eprintln!("floortape: {fault}");
    }
    if trail.entries.is_empty() && trail.summary.faults.is_empty() {
        eprintln!("floortape: the store has no audit trail yet");
    }
    Ok(if trail.summary.faults.is_empty() { Exit::Yes } else { Exit::No })
}

/// One line: number, when, who, what, to what, why.
fn line(entry: &Entry) -> String {
    let at = entry.at.to_string();
    let role = if entry.who.role.is_empty() { "no role" } else { &entry.who.role };
    let who = plain(&entry.who.user);
    let mut line = format!("{:>6}  {} {}  {who} ({role})  ", entry.number, &at[..10], &at[11..19]);
    let outcome = match entry.outcome {
        Outcome::Allowed => "",
        Outcome::Refused => "REFUSED ",
        Outcome::Failed => "FAILED ",
    };
    let _ = write!(line, "{outcome}{}", plain(&entry.action));
    if !entry.object.is_empty() {
        let _ = write!(line, " {}", plain(&entry.object));
    }
    if !entry.reason.is_empty() {
        let _ = write!(line, ": {}", plain(&entry.reason));
    }
    if let Some(why) = entry.text("why") {
        let _ = write!(line, " [{}]", plain(why));
    }
    if let Some(login) = entry.text("login") {
        let _ = write!(line, " (logged in as {})", plain(login));
    }
    if let Some(changed) = entry.detail.get("changed").and_then(|changed| changed.as_object()) {
        for (key, values) in changed {
            let (from, to) = (&values["from"], &values["to"]);
            let _ = write!(
                line,
                "\n        {}: {} → {}",
                plain(key),
                plain(&from.to_string()),
                plain(&to.to_string())
            );
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::audit::ourselves;
    use crate::store::audit::{Act, action};

    fn entry(act: Act) -> Entry {
        let Act { at, who, action, object, reason, outcome, detail } = act;
        Entry { number: 7, previous: [0; 32], at, who, action, object, reason, outcome, detail }
    }

    #[test]
    fn a_line_says_who_did_what_to_what_and_why_and_no_text_breaks_it() {
        let mut who = ourselves("listener");
        who.user = "kim".into();
        let at = Wall(1_767_225_600_123_456_789);
        let act = Act::new(at, who, action::EXPORT, "ab12").because("a\ncomplaint \u{1b}[31m");
        let said = line(&entry(act.clone()));
        assert!(
            said.starts_with("     7  2026-01-01 00:00:00  kim (listener)  export ab12: a"),
            "{said}"
        );
        assert_eq!(said.matches('\n').count(), 1, "{said}");
        assert!(!said.contains('\u{1b}'));
        let said = line(&entry(act.refused("no role")));
        assert!(said.contains("REFUSED export ab12") && said.contains("[no role]"), "{said}");
    }

    #[test]
    fn a_kind_of_action_is_all_below_it() {
        let act = |action: &str| entry(Act::new(Wall(5), ourselves("owner"), action, "x"));
        let wants = |action: Option<&str>, of: Option<&str>, since: Option<i64>, entry: &Entry| {
            let args = Args {
                json: false,
                since: None,
                action: action.map(str::to_owned),
                of: of.map(str::to_owned),
                zone: SaidArgs::default(),
                store: StoreArgs {
                    store: None,
                    kek: None,
                    config: crate::shell::cmd::check::ConfigArgs { files: vec![], sets: vec![] },
                },
            };
            args.wants(since.map(Wall), entry)
        };
        assert!(wants(Some("rs"), None, None, &act("rs.pause")));
        assert!(wants(Some("rs.pause"), None, None, &act("rs.pause")));
        assert!(!wants(Some("rs"), None, None, &act("rsync")));
        assert!(!wants(None, Some("y"), None, &act("rs.pause")));
        assert!(wants(None, Some("x"), Some(5), &act("rs.pause")));
        assert!(!wants(None, None, Some(6), &act("rs.pause")));
    }
}
