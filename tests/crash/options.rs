//! The command line.

use std::path::PathBuf;

/// What is killed, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// Media, at instants spread evenly.
    Media,
    /// Control, likewise.
    Control,
    /// Keeper; a new `serve` follows.
    Keeper,
    /// Two roles at once, every pair in turn.
    Pair,
    /// All three; a new `serve` follows after up to 2 s.
    All,
    /// Media, and its successor again within 60 ms.
    Restart,
    /// Media and control in turn while a burst of INVITEs is under way.
    Invite,
    /// Media and control in turn while all calls change their keys.
    Rekey,
    /// Media and control in turn while a segment is being written.
    Seal,
    /// Media with the second receive engine.
    Engine,
    /// Media stands still (SIGSTOP) until keeper has replaced it.
    Hang,
    /// Control, as soon as the last 200 is there.
    Reply,
    /// Nobody: keeper becomes another build, and then this one again.
    Upgrade,
    /// Control, while SIPp, or over TCP a caller of our own, holds dialogs that never rest.
    Dialogs,
    /// Media by itself, at each fault point of the receive path once.
    Aimed,
    /// Nobody from outside: the fault points of `--faults` do it.
    Faults,
}

impl Scenario {
    pub(crate) const ALL: [(&'static str, Scenario); 16] = [
        ("media", Scenario::Media),
        ("control", Scenario::Control),
        ("keeper", Scenario::Keeper),
        ("pair", Scenario::Pair),
        ("all", Scenario::All),
        ("restart", Scenario::Restart),
        ("invite", Scenario::Invite),
        ("rekey", Scenario::Rekey),
        ("seal", Scenario::Seal),
        ("engine", Scenario::Engine),
        ("hang", Scenario::Hang),
        ("reply", Scenario::Reply),
        ("upgrade", Scenario::Upgrade),
        ("dialogs", Scenario::Dialogs),
        ("aimed", Scenario::Aimed),
        ("faults", Scenario::Faults),
    ];

    pub(crate) fn name(self) -> &'static str {
        let named = |(_, one): &&(_, Scenario)| *one == self;
        Self::ALL.iter().find(named).expect("all are listed").0
    }
}

/// See [`USAGE`].
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) scenario: Scenario,
    pub(crate) streams: u64,
    pub(crate) kills: u64,
    pub(crate) kills_per_round: u64,
    pub(crate) spacing_ms: u64,
    pub(crate) seconds: Option<u64>,
    pub(crate) seed: u64,
    pub(crate) workers: u64,
    pub(crate) plain: bool,
    pub(crate) dialogs: u64,
    pub(crate) tcp: bool,
    pub(crate) ports: String,
    pub(crate) other: Option<PathBuf>,
    pub(crate) resume: Option<PathBuf>,
    pub(crate) faults: Option<String>,
    pub(crate) red: bool,
    pub(crate) gap_median_ms: Option<f64>,
    pub(crate) nice: Option<i64>,
    pub(crate) late_share: f64,
    pub(crate) checker: bool,
    pub(crate) encrypted: bool,
    pub(crate) xdp: bool,
    pub(crate) keep: bool,
}

pub(crate) const USAGE: &str = "\
kill SCENARIO [OPTIONS]     kills a real server under load, judges from disk
kill --report FILE          sums what --resume has gathered
kill                        a few kills of each kind, 20 streams

SCENARIO: media control keeper pair all restart invite rekey seal engine
          hang reply upgrade dialogs aimed faults
  --streams N           SRTP streams, 50 packets/s each [500]
  --kills N             kills in all [40]
  --kills-per-round N   kills of one server, then it is judged [40]
  --spacing-ms N        mean time between kills; each is within a quarter of it [1300]
  --seconds N           length of a round [as long as its kills take]
  --seed N              decides instants, order and packets [1]
  --workers N           media workers [the server's default]
  --plain               RTP instead of SRTP
  --dialogs N           dialogs that never rest, of SIPp [50]
  --tcp                 dialogs and load over TCP; the dialogs are those of a caller of our own, since
                        SIPp gives up calls whose connection falls
  --ports A-B           media ports [10000-31999]
  --other FILE          the build that `upgrade` changes to; with --faults one that must go back
  --resume FILE         append each round to FILE; rounds that stand there already are not repeated
  --faults PLAN         FLOORTAPE_FAULTS of the server (needs a binary built with them: FLOORTAPE=…)
  --red                 a negative control: the round must find something wrong
  --gap-median-ms X     fail where the median gap is longer
  --nice N              nice value of the server; appliance/systemd gives it -10 [ours]
  --late-share X        share of packets that the generator may send over 10 ms late [0.05]
  --checker             let tests/checker.py judge as well
  --xdp                 frames are diverted at the loopback: in a network namespace of its own
  --encrypted           the store is encrypted; tests/checker.py judges alone, with the key
  --keep                keep the stores";

/// A load that was late with more of its packets did not offer what the round is about: 50 packets a
/// second and stream, spread evenly. Where a generator shares its cores with what it measures, a
/// larger share is allowed and told.
const LATE_SHARE: f64 = 0.05;

fn parsed<T: std::str::FromStr>(word: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{word}: expected a number, found {text}"))
}

impl Options {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Options {
            scenario,
            streams: 500,
            kills: 40,
            kills_per_round: 40,
            spacing_ms: 1_300,
            seconds: None,
            seed: 1,
            workers: 0,
            plain: false,
            dialogs: 50,
            tcp: false,
            ports: "10000-31999".to_owned(),
            other: None,
            resume: None,
            faults: None,
            red: false,
            gap_median_ms: None,
            nice: None,
            late_share: LATE_SHARE,
            checker: false,
            encrypted: false,
            xdp: false,
            keep: false,
        }
    }

    /// Reads the words behind the scenario's name.
    pub(crate) fn parse(scenario: Scenario, words: &[String]) -> Result<Self, String> {
        let mut options = Options::new(scenario);
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            let number = |text: &String| parsed::<u64>(word, text);
            match word.as_str() {
                "--streams" => options.streams = number(value()?)?,
                "--kills" => options.kills = number(value()?)?,
                "--kills-per-round" => options.kills_per_round = number(value()?)?.max(1),
                "--spacing-ms" => options.spacing_ms = number(value()?)?,
                "--seconds" => options.seconds = Some(number(value()?)?),
                "--seed" => options.seed = number(value()?)?,
                "--workers" => options.workers = number(value()?)?,
                "--plain" => options.plain = true,
                "--dialogs" => options.dialogs = number(value()?)?,
                "--tcp" => options.tcp = true,
                "--ports" => options.ports.clone_from(value()?),
                "--other" => options.other = Some(PathBuf::from(value()?)),
                "--resume" => options.resume = Some(PathBuf::from(value()?)),
                "--faults" => options.faults = Some(value()?.clone()),
                "--red" => options.red = true,
                "--gap-median-ms" => options.gap_median_ms = Some(parsed(word, value()?)?),
                "--nice" => options.nice = Some(parsed(word, value()?)?),
                "--late-share" => options.late_share = parsed(word, value()?)?,
                "--checker" => options.checker = true,
                "--encrypted" => options.encrypted = true,
                "--xdp" => options.xdp = true,
                "--keep" => options.keep = true,
                _ => return Err(format!("unknown word {word}")),
            }
        }
        Ok(options)
    }
}
