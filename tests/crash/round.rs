//! One round: a server, a load, kills, and what stands on disk afterwards.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::aim;
use super::caller::Caller;
use super::checked;
use super::judge::{self, Found};
use super::load::Load;
use super::options::{Options, Scenario};
use super::prng::Prng;
use super::process::{binary, fresh_folder_in, try_send};
use super::recorder::{PATIENCE, Recorder, Role, monotonic_ns};
use super::sipp::Sipp;

/// One kill.
pub(crate) struct Kill {
    /// Whom, such as `media+control`.
    pub(crate) roles: String,
    /// In which phase.
    pub(crate) phase: &'static str,
    pub(crate) at_ns: u64,
    /// From the kill to the start of the last worker's successor, where media died.
    pub(crate) gap_ms: Option<f64>,
    /// From the kill to an answer to OPTIONS, where control died alone.
    pub(crate) signalling_ms: Option<f64>,
}

/// How a round ended.
pub(crate) struct Round {
    pub(crate) kills: Vec<Kill>,
    pub(crate) found: Found,
    pub(crate) recordings: u64,
    pub(crate) refused: u64,
    pub(crate) late: u64,
    pub(crate) late_ms_max: u64,
    pub(crate) unsent: u64,
    pub(crate) recovered: u64,
    /// What the product's own ledgers say is lost, by cause.
    pub(crate) lost: BTreeMap<String, u64>,
    /// Where the gaps went, in the product's own words, one line a worker and start.
    pub(crate) gaps: Vec<String>,
    pub(crate) faults: Vec<String>,
}

/// A load that was later than this once did not offer what the round is about.
const LATE_MS_MAX: u64 = 1_000;

impl Round {
    /// Whether the load was what it should be.
    pub(crate) fn is_valid(&self, options: &Options) -> bool {
        let share = self.late as f64 / self.found.sent.max(1) as f64;
        self.late_ms_max <= LATE_MS_MAX && share <= options.late_share && self.unsent == 0
    }
}

/// Plays round number `number`, with `kills` kills. An error is a round that could not be judged.
pub(crate) fn play(options: &Options, number: u64, kills: u64) -> Result<Round, String> {
    // On a disk: what is not synced when a kill comes, and how long a segment takes, is what this is about.
    let folder = fresh_folder_in(&std::env::temp_dir());
    let played = play_in(&folder, options, number, kills);
    if options.keep || std::env::var_os("KEEP").is_some() {
        eprintln!("kept: {}", folder.display());
    } else {
        let _ = std::fs::remove_dir_all(&folder);
    }
    played
}

fn play_in(folder: &Path, options: &Options, number: u64, kills: u64) -> Result<Round, String> {
    let mut prng = Prng::new(options.seed.wrapping_mul(1_000_003) ^ number);
    let more: &[&str] = match options.scenario {
        Scenario::Engine => &["media.engine=\"recvmmsg\""],
        // At 500 streams a segment every fifth of a second, at 20 one every second.
        Scenario::Seal => &["store.segment_mib=1", "store.segment_s=1"],
        _ => &[],
    };
    let mut options = options.clone();
    let mut points = Vec::new();
    if options.scenario == Scenario::Aimed {
        let (plan, aimed) = aim::plan(&mut prng, options.streams);
        (options.faults, points, options.workers) = (Some(plan), aimed, 1);
    }
    if options.scenario != Scenario::Dialogs {
        options.dialogs = 0;
    }
    let options = &options;
    let mut recorder = Recorder::start(options, folder, more)?;
    let mut stage = Stage {
        options,
        recorder: &mut recorder,
        prng: &mut prng,
        kills: Vec::new(),
        complaints: Vec::new(),
    };
    let loads = match options.scenario {
        Scenario::Invite | Scenario::Reply => stage.bursts(kills)?,
        _ => vec![stage.steady(kills)?],
    };
    let (mut kills, complaints) = (stage.kills, stage.complaints);
    let listed = recorder.ended()?;
    let mut faults = verdicts(options, &recorder, &loads, &listed);
    faults.extend(complaints);
    recorder.stop()?;
    let found = match recorder.kek() {
        Some(kek) => {
            faults.extend(checked::in_clear(&recorder.store(), &loads)?);
            checked::judge(folder, &recorder.store(), &loads, kek)?
        }
        None => judge::judge(&recorder.store(), &loads).map_err(|error| error.to_string())?,
    };
    if options.checker && !options.encrypted {
        faults.extend(checked::check(folder, &recorder.store(), &loads));
        faults.extend(checked::searches(&recorder.store(), &loads)?);
    }
    gaps(&mut kills, &found);
    let deaths = deaths(&found);
    if deaths < points.len() {
        faults.push(format!("{deaths} deaths; {} was never passed", points[deaths]));
    }
    kills.extend(points.into_iter().take(deaths).map(|phase| {
        let roles = "media".to_owned();
        Kill { roles, phase, at_ns: 0, gap_ms: None, signalling_ms: None }
    }));
    let sum = |key: &str| loads.iter().filter_map(|load| load[key].as_u64()).sum();
    let streams = loads.iter().flat_map(|load| load["streams"].as_array().into_iter().flatten());
    Ok(Round {
        recordings: listed.len() as u64,
        refused: sum("refused"),
        late: sum("late"),
        late_ms_max: loads.iter().filter_map(|l| l["late_ms_max"].as_u64()).max().unwrap_or(0),
        unsent: streams.filter_map(|stream| stream["unsent"].as_u64()).sum(),
        lost: lost(&listed),
        gaps: recorder.gaps(),
        recovered: found.starts.iter().map(|start| start.recovered).sum(),
        kills,
        found,
        faults,
    })
}

/// What the product itself says of it: every ledger complete, every proof good, one RS an INVITE.
fn verdicts(
    options: &Options,
    recorder: &Recorder,
    loads: &[Value],
    listed: &[Value],
) -> Vec<String> {
    let mut faults = Vec::new();
    let verified = recorder.verb(&["verify", "--all", "--json"]);
    if verified.status.code() != Some(0) {
        let told = String::from_utf8_lossy(&verified.stdout);
        let bad = |line: &&str| !line.contains("\"integrity\":\"ok\"");
        faults.push(format!("verify says {}: {:?}", verified.status, told.lines().find(bad)));
    }
    let streams = loads.iter().flat_map(|load| load["streams"].as_array().into_iter().flatten());
    let mut calls: Vec<&str> = streams.filter_map(|stream| stream["call_id"].as_str()).collect();
    calls.sort_unstable();
    calls.dedup();
    let mut recorded: Vec<&str> = listed.iter().filter_map(|one| one["call_id"].as_str()).collect();
    recorded.sort_unstable();
    let count = recorded.len();
    recorded.dedup();
    if recorded.len() != count {
        faults.push(format!("{} INVITEs became two RSs", count - recorded.len()));
    }
    if options.dialogs > 0 && count != calls.len() + options.dialogs as usize {
        let dialogs = options.dialogs;
        faults.push(format!("{count} RSs of {} calls and {dialogs} dialogs", calls.len()));
    }
    let lost: Vec<_> = calls.iter().filter(|call| recorded.binary_search(call).is_err()).collect();
    if let Some(first) = lost.first() {
        faults.push(format!("{} calls are not listed, such as {first}", lost.len()));
    }
    faults
}

fn lost(listed: &[Value]) -> BTreeMap<String, u64> {
    let mut sum = BTreeMap::new();
    let list = |value: &'static str| move |one: &Value| one[value].as_array().cloned();
    let streams = listed.iter().filter_map(list("streams")).flatten();
    for source in streams.filter_map(|stream| list("sources")(&stream)).flatten() {
        let causes = source["lost"].as_object().cloned().unwrap_or_default();
        let unexplained = ("unexplained".to_owned(), source["unexplained"].clone());
        for (cause, count) in causes.into_iter().chain([unexplained]) {
            *sum.entry(cause).or_default() += count.as_u64().unwrap_or(0);
        }
    }
    sum.retain(|_, count| *count > 0);
    sum
}

/// Deaths of the first worker, those included that came before its start was recorded.
pub(crate) fn deaths(found: &Found) -> usize {
    let own = || found.starts.iter().filter(|start| start.worker == 0).map(|s| s.incarnation);
    (own().max().unwrap_or(0) - own().min().unwrap_or(0)) as usize
}

/// The gap of each kill of media: until the last worker's next start.
fn gaps(kills: &mut [Kill], found: &Found) {
    let workers = found.starts.iter().map(|start| start.worker + 1).max().unwrap_or(0);
    let bounds: Vec<u64> = kills.iter().skip(1).map(|kill| kill.at_ns).chain([u64::MAX]).collect();
    for (kill, bound) in kills.iter_mut().zip(bounds) {
        if !kill.roles.contains("media") {
            continue;
        }
        let next = |worker| {
            let mut own = found.starts.iter().filter(move |start| start.worker == worker);
            own.find(|start| start.at_ns > kill.at_ns && start.at_ns < bound)
        };
        let starts: Option<Vec<u64>> =
            (0..workers).map(|worker| next(worker).map(|start| start.at_ns)).collect();
        // None where it was killed again before it began: the gap is the next one's.
        kill.gap_ms = starts
            .and_then(|starts| starts.into_iter().max())
            .map(|at| (at - kill.at_ns) as f64 / 1e6);
    }
}

struct Stage<'a> {
    options: &'a Options,
    recorder: &'a mut Recorder,
    prng: &'a mut Prng,
    kills: Vec<Kill>,
    complaints: Vec<String>,
}

impl Stage<'_> {
    /// One load of all streams, and kills while it is being sent.
    fn steady(&mut self, kills: u64) -> Result<Value, String> {
        let spacing = self.options.spacing_ms;
        let each = match self.options.scenario {
            // A new `serve` after a second on average, and its start.
            Scenario::All => spacing + 1_500,
            Scenario::Keeper | Scenario::Pair => spacing + 1_000,
            Scenario::Hang => spacing + 3_000,
            // A build that does not work is tried for a while.
            Scenario::Upgrade => spacing + 6_000,
            _ => spacing,
        };
        // Dialogs take 5 s to come up.
        let setup = if self.options.scenario == Scenario::Dialogs { 10 } else { 2 };
        let seconds = self.options.seconds.unwrap_or((kills + 1) * each / 1_000 + setup);
        let mut load = self.load(seconds as f64);
        load.reaches("sending", PATIENCE)?;
        let Options { scenario, dialogs, tcp, .. } = *self.options;
        let (folder, port) = (self.recorder.folder().to_owned(), self.recorder.port());
        let (mut sipp, mut caller) = (None, None);
        if scenario == Scenario::Dialogs && tcp {
            caller = Some(Caller::start(port, dialogs, seconds, self.prng.seed())?);
        } else if scenario == Scenario::Dialogs {
            sipp = Some(Sipp::start(&folder, port, dialogs, seconds)?);
            // SIPp begins an INVITE that got no answer in time as another call, another RS.
            let all = self.options.streams.div_ceil(2) + dialogs;
            self.recorder.until("all dialogs", |own| {
                let listed = own.verb(&["ls", "--json", "--live"]).stdout;
                (listed.iter().filter(|byte| **byte == b'\n').count() as u64 >= all).then_some(())
            })?;
        }
        let mut done = 0;
        let by_themselves = matches!(scenario, Scenario::Faults | Scenario::Aimed);
        while done < kills && !by_themselves {
            let wait = spacing * 3 / 4 + self.prng.below(spacing / 2 + 1);
            pass(Duration::from_millis(wait));
            if load.is_over() {
                break;
            }
            done += self.strike(done)?;
        }
        if let Some(caller) = caller {
            self.complaints.extend(caller.end());
        }
        if let Some(sipp) = sipp {
            self.complaints.extend(sipp.end());
            if Sipp::retransmissions(&folder) == 0 {
                self.complaints.push("sipp repeated nothing: nothing was tried".to_owned());
            }
        }
        let told = load.end()?;
        if tcp && done > 0 && told["reconnected"] == 0 {
            self.complaints.push("the load kept its connection: nothing was tried".to_owned());
        }
        Ok(told)
    }

    fn load(&mut self, seconds: f64) -> Load {
        let mut words = vec![
            format!("--streams={}", self.options.streams),
            format!("--duration={seconds}"),
            format!("--seed={}", self.prng.seed()),
        ];
        match self.options.scenario {
            Scenario::Invite | Scenario::Reply | Scenario::Aimed => {
                words.push("--retry=60".to_owned());
            }
            Scenario::Rekey => words.push("--rekey=0.5".to_owned()),
            // Something to repeat, without taking much of the machine.
            Scenario::Dialogs if self.options.tcp => words.push("--rekey=5".to_owned()),
            _ => {}
        }
        if self.options.plain {
            words.push("--srtp=none".to_owned());
        }
        let transport = if self.options.tcp { "tcp" } else { "udp" };
        Load::start(self.recorder.port(), transport, &words)
    }

    /// The next kill, or two where the scenario wants two; how many.
    fn strike(&mut self, done: u64) -> Result<u64, String> {
        use Role::{Control, Keeper, Media};
        let turn = |roles: &[&'static [Role]]| roles[done as usize % roles.len()];
        match self.options.scenario {
            Scenario::Media | Scenario::Engine => self.kill("steady", &[Media]),
            Scenario::Control => self.kill("steady", &[Control]),
            Scenario::Keeper => self.kill("steady", &[Keeper]),
            Scenario::Pair => {
                self.kill("pair", turn(&[&[Media, Control], &[Keeper, Media], &[Keeper, Control]]))
            }
            Scenario::All => self.kill("all", &[Keeper, Media, Control]),
            Scenario::Restart => {
                self.kill("steady", &[Media])?;
                pass(Duration::from_micros(self.prng.below(60_000)));
                self.kill("restart", &[Media])?;
                Ok(2)
            }
            Scenario::Seal => {
                let folder = self.recorder.store().join("segments");
                self.recorder.until("a segment being written", |_| is_sealing(&folder))?;
                pass(Duration::from_micros(self.prng.below(5_000)));
                self.kill("seal", turn(&[&[Media], &[Media], &[Control]]))
            }
            Scenario::Rekey => self.kill("rekey", turn(&[&[Media], &[Control], &[Media, Control]])),
            Scenario::Invite => self.kill("invite", turn(&[&[Media], &[Control]])),
            Scenario::Hang => self.hang(),
            Scenario::Upgrade => self.upgrade(done),
            Scenario::Reply => self.kill("reply", &[Control]),
            Scenario::Dialogs => self.kill("dialogs", &[Control]),
            Scenario::Faults | Scenario::Aimed => Ok(0),
        }
    }

    fn kill(&mut self, phase: &'static str, roles: &'static [Role]) -> Result<u64, String> {
        let (victims, at_ns) = self.recorder.kill(roles)?;
        if roles.contains(&Role::Keeper) {
            let wait = match self.options.scenario {
                Scenario::All => self.prng.below(2_000),
                _ => self.prng.below(500),
            };
            pass(Duration::from_millis(wait));
            self.recorder.serve_again()?;
        }
        for (role, before) in roles.iter().zip(victims) {
            self.recorder.succeeds(*role, before)?;
        }
        let signalling_ms = match roles {
            [Role::Control] => {
                self.recorder.answers_options()?;
                Some((monotonic_ns() - at_ns) as f64 / 1e6)
            }
            _ => None,
        };
        let names: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        self.kills.push(Kill { roles: names.join("+"), phase, at_ns, gap_ms: None, signalling_ms });
        Ok(1)
    }

    /// Media stands still; keeper must kill it (F07), and the stopped one must never move again.
    fn hang(&mut self) -> Result<u64, String> {
        let (before, at_ns) = self.recorder.signal(Role::Media, Signal::STOP)?;
        self.recorder.succeeds(Role::Media, before)?;
        // Its successor is at work for a while before it would move again.
        pass(Duration::from_millis(200 + self.prng.below(200)));
        try_send(before, Signal::CONT);
        let (roles, phase) = ("media".to_owned(), "hang");
        self.kills.push(Kill { roles, phase, at_ns, gap_ms: None, signalling_ms: None });
        Ok(1)
    }

    /// To the other build, and back to this one (F09); where the other one has fault points set it
    /// cannot work, and goes back by itself.
    fn upgrade(&mut self, done: u64) -> Result<u64, String> {
        let own = binary();
        let other = self.options.other.as_deref().ok_or("upgrade needs --other")?;
        let (build, outcome, phase) = match (&self.options.faults, done % 2) {
            (Some(_), _) => (other, "went back: version", "refused"),
            (None, 0) => (other, "upgraded: version", "upgrade"),
            (None, _) => (&*own, "upgraded: version", "rollback"),
        };
        let at_ns = self.recorder.becomes(build, outcome)?;
        let roles = "media+control".to_owned();
        self.kills.push(Kill { roles, phase, at_ns, gap_ms: None, signalling_ms: None });
        Ok(1)
    }

    /// A load after the other, and a kill while each is being set up.
    fn bursts(&mut self, kills: u64) -> Result<Vec<Value>, String> {
        let mut loads = Vec::new();
        for done in 0..kills {
            let load = self.load(1.0);
            if self.options.scenario == Scenario::Reply {
                load.reaches("sending", PATIENCE)?;
            } else {
                load.reaches("inviting", PATIENCE)?;
                pass(Duration::from_micros(self.prng.below(150_000)));
            }
            self.strike(done)?;
            loads.push(load.end()?);
        }
        Ok(loads)
    }
}

/// Lets a random while pass: the instants of kills are what is drawn here, nothing waits for it.
fn pass(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
    {
        std::thread::sleep(left);
    }
}

fn is_sealing(folder: &Path) -> Option<()> {
    let entries = std::fs::read_dir(folder).ok()?;
    entries
        .flatten()
        .any(|entry| entry.path().extension().is_some_and(|e| e == "tmp"))
        .then_some(())
}
