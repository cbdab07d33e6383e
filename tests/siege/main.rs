//! The parts of `tests/siege.sh`: a sender of requests that nobody has authorised, a client that begins
//! TLS handshakes and never goes on, and callers who are authorised and time their calls.
//!
//! ```text
//! siege stage FOLDER ADDRESS       CA, certificates and passwords for a server at ADDRESS
//! siege flood --to A --net B …     requests from many addresses
//! siege half --to A --net B …      handshakes that stand half open
//! siege call udp|tls --to A …      calls at a rate; INVITE to 200
//! ```
//! Each prints what it did in a line, and ends with 1 where that is not what was asked of it.

mod call;
mod flood;
mod half;
mod options;
#[expect(dead_code, reason = "shared with tests that refuse certificates")]
#[path = "../pki/mod.rs"]
mod pki;
#[path = "../script/mod.rs"]
mod script;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use options::Options;

/// Peers with a password: whoever comes from one address, and whoever names himself so.
pub(crate) const USERS: [&str; 2] = ["sbc", "desk"];

const USAGE: &str = "\
siege stage FOLDER ADDRESS
siege flood OPTIONS          --to --net [--sources N] [--rate N] [--seconds S]
siege half OPTIONS           --to --net [--sources N] [--connections N] [--seconds S]
siege call udp|tls OPTIONS   --to --from --user --folder [--rate N] [--seconds S] [--limit-ms N]

  --to ADDRESS:PORT     the server
  --net ADDRESS         the first of the addresses to send from; all must be this machine's
  --sources N           how many of them [2000; half: 32]
  --rate N              requests or calls a second, evenly [5000; call: 8]
  --seconds S           how long [10]
  --connections N       half-open ones at a time [256]
  --from ADDRESS        the one to call from
  --user NAME           whose password answers challenges [sbc]
  --folder FOLDER       what `stage` wrote
  --limit-ms N          99 of 100 calls must be answered within [500]";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let told = match &words[..] {
        ["stage", folder, address] => stage(Path::new(folder), address),
        ["flood", rest @ ..] => Options::parse(rest).and_then(|options| flood::run(&options)),
        ["half", rest @ ..] => Options::parse(rest).and_then(|options| half::run(&options)),
        ["call", "udp", rest @ ..] => Options::parse(rest).and_then(|options| call::udp(&options)),
        ["call", "tls", rest @ ..] => Options::parse(rest).and_then(|options| call::tls(&options)),
        // A filter for test names, as cargo passes it to every target: nothing here has one.
        [] => return ExitCode::SUCCESS,
        [first, ..] if !["stage", "flood", "half", "call"].contains(first) => {
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match told {
        Ok(told) => {
            println!("{told}");
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("FAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What server and callers need of files: `ca/…` by [`pki`], `NAME.password` for each of [`USERS`].
fn stage(folder: &Path, address: &str) -> Result<String, String> {
    let ca = pki::Ca::new(folder, "ca");
    ca.issue("srs", &["localhost", address], 2090);
    ca.issue("client", &["sip:client.example"], 2090);
    for user in USERS {
        let path = folder.join(format!("{user}.password"));
        std::fs::write(&path, format!("{user}:secret of {user}\n"))
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)))
            .map_err(|error| error.to_string())?;
    }
    Ok(format!("staged in {}", folder.display()))
}
