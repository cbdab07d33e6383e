//! Lives of a store: a few cuts each on one file system, the judge after every one of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dialer::Dialer;
use crate::disk::FaultDisk;
use crate::host::{Kind, Mounted, Shutdown, mono, until};
use crate::image::{Loss, Random};
use crate::ring::Copy;
use crate::server::{Load, REFUSED, Server, verb};

/// Cuts of one store before a fresh one is made.
pub(crate) const CUTS_PER_LIFE: u64 = 3;
/// Interval between two syncs.
pub(crate) const COMMIT_MS: u64 = 100;
/// Room for other calls beside the load.
const OTHER_STREAMS: u32 = 60;

/// What the rig is told.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) binary: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) sip: u16,
    pub(crate) media: String,
    pub(crate) streams: u32,
    pub(crate) seed: u64,
    /// Shutdowns of the file system, or cuts of the fault disk, or both in turn.
    pub(crate) shutdowns: bool,
    pub(crate) fault_disk: bool,
    pub(crate) encrypted: Encrypted,
}

/// Which lives have a store that is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encrypted {
    No,
    /// Of each way and file system every other one.
    Turns,
    Yes,
}

/// How the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// K4.
    Shutdown,
    /// K5.
    FaultDisk,
}

/// When it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// While streams are sent.
    Traffic,
    /// While INVITEs arrive.
    Setup,
    /// While a segment is written.
    Seal,
    /// Just after a segment: its log files return to the pool and are begun anew.
    Recycle,
    /// While the server starts; from the second cut on that is a cut during recovery.
    Start,
}

/// A cut: durable marks by worker (`None`: those at the end), the instant up to which answers count,
/// and what was lost.
struct Cut {
    promised: Option<Vec<(u32, u64)>>,
    promised_ns: u64,
    loss: Vec<Loss>,
    /// What it may take at most of what was captured, ns.
    exposed_ns: u64,
}

enum Backing {
    Plain(PathBuf),
    Faulty(FaultDisk),
}

/// One file system and the disk under it. Dropped in this order: unmounted first.
struct Volume {
    mounted: Option<Mounted>,
    backing: Backing,
    kind: Kind,
    direct: bool,
    folder: PathBuf,
}

impl Volume {
    fn make(way: Way, kind: Kind, direct: bool, base: &Path, bytes: usize) -> Result<Self, String> {
        std::fs::create_dir_all(base).map_err(|error| error.to_string())?;
        let backing = match way {
            Way::FaultDisk => Backing::Faulty(
                FaultDisk::mount(&base.join("fuse"), bytes)
                    .map_err(|error| format!("fault disk: {error}"))?,
            ),
            Way::Shutdown => {
                let path = base.join("image");
                let file = std::fs::File::create(&path).map_err(|error| error.to_string())?;
                file.set_len(bytes as u64).map_err(|error| error.to_string())?;
                Backing::Plain(path)
            }
        };
        let folder = base.join("mnt");
        let mut volume = Volume { kind, direct, backing, folder, mounted: None };
        let made = Mounted::make(kind, &volume.file(), &volume.folder, direct)?;
        volume.mounted = Some(made);
        Ok(volume)
    }

    fn file(&self) -> PathBuf {
        match &self.backing {
            Backing::Plain(path) => path.clone(),
            Backing::Faulty(disk) => disk.file(),
        }
    }

    fn unmount(&mut self) -> Result<(), String> {
        self.mounted.take().map_or(Ok(()), |mut mounted| mounted.end())
    }

    /// The power is back.
    fn again(&mut self) -> Result<(), String> {
        self.unmount()?;
        if let Backing::Faulty(disk) = &self.backing {
            disk.revive();
        }
        let mounted = Mounted::again(self.kind, &self.file(), &self.folder, self.direct)?;
        self.mounted = Some(mounted);
        Ok(())
    }
}

/// One store from its making to its last judgement.
pub(crate) struct Life<'a> {
    settings: &'a Settings,
    way: Way,
    number: u64,
    base: PathBuf,
    volumes: Vec<Volume>,
    store: PathBuf,
    journal: PathBuf,
    truth: PathBuf,
    /// The key-encryption key, which no cut touches.
    kek: Option<PathBuf>,
    calls: Vec<String>,
    copies: u32,
}

fn io(error: std::io::Error) -> String {
    error.to_string()
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

impl<'a> Life<'a> {
    pub(crate) fn new(settings: &'a Settings, number: u64) -> Result<Self, String> {
        // Ways and file systems in turn, so that a short run has all of them.
        let shutdown = settings.shutdowns && (number.is_multiple_of(2) || !settings.fault_disk);
        let way = if shutdown { Way::Shutdown } else { Way::FaultDisk };
        let kind = if (number / 2).is_multiple_of(2) { Kind::Ext4 } else { Kind::Xfs };
        let direct = (number / 4).is_multiple_of(2);
        let apart = number % 3 == 2;
        let base = settings.folder.join(format!("life-{number}"));
        let _ = std::fs::remove_dir_all(&base);
        let truth = base.join("truth");
        std::fs::create_dir_all(&truth).map_err(io)?;
        let encrypted = match settings.encrypted {
            Encrypted::No => false,
            // Way, file system and direct I/O turn with bits 0, 1 and 2.
            Encrypted::Turns => number.count_ones() % 2 == 1,
            Encrypted::Yes => true,
        };
        let kek = encrypted.then(|| base.join("kek"));
        if let Some(kek) = &kek {
            let (code, _, said) = verb(&settings.binary, &["kek", "make", &text(kek)])?;
            if code != 0 {
                return Err(format!("kek make: exit code {code}: {said}"));
            }
        }
        let bytes = (384 << 20) + settings.streams as usize * (3 << 20);
        let mut volumes = vec![Volume::make(way, kind, direct, &base.join("a"), bytes)?];
        let store = volumes[0].folder.join("store");
        let mut journal = store.join("journal");
        if apart {
            volumes.push(Volume::make(way, kind, direct, &base.join("b"), 320 << 20)?);
            journal = volumes[1].folder.join("journal");
        }
        let (calls, copies) = (Vec::new(), 0);
        Ok(Life { settings, way, number, base, volumes, store, journal, truth, kek, calls, copies })
    }

    /// What says where the store is, and what opens it.
    fn places(&self) -> Vec<String> {
        let mut places = vec![
            format!("store.dir={:?}", text(&self.store)),
            format!("store.journal_dir={:?}", text(&self.journal)),
        ];
        places.extend(self.kek.as_ref().map(|kek| format!("store.encryption={:?}", text(kek))));
        places
    }

    /// A verb on the store, without a server: exit code, standard output, standard error.
    fn verb(&self, words: &[&str]) -> Result<(i32, String, String), String> {
        let places = self.places();
        let mut words = words.to_vec();
        words.extend(places.iter().flat_map(|place| ["--set", place]));
        verb(&self.settings.binary, &words)
    }

    fn serve(&self) -> Command {
        // The calls of a load whose power went are not hung up: their RSs go on, as they should.
        let streams = self.settings.streams * CUTS_PER_LIFE as u32 + OTHER_STREAMS;
        let mut command = Command::new(&self.settings.binary);
        command.arg("serve");
        let more = [
            format!("store.commit_ms={COMMIT_MS}"),
            "store.segment_mib=1".to_owned(),
            "store.ring_seconds=20".to_owned(),
            "store.reserve_minutes=1".to_owned(),
            format!("sip.udp=[\"127.0.0.1:{}\"]", self.settings.sip),
            "sip.tcp=[]".to_owned(),
            format!("media.ports=\"{}\"", self.settings.media),
            format!("media.streams_max={streams}"),
        ];
        for set in self.places().iter().chain(&more) {
            command.args(["--set", set]);
        }
        command
    }

    /// One cut and its judgement; the report's line.
    pub(crate) fn round(&mut self, round: u64) -> Result<Value, String> {
        let seed = self.settings.seed.wrapping_add(round.wrapping_mul(0x9e37_79b9));
        let mut random = Random::new(seed);
        let moment = match random.below(8) {
            0..3 => Moment::Traffic,
            3 => Moment::Setup,
            4 => Moment::Seal,
            5 => Moment::Recycle,
            _ if round.is_multiple_of(CUTS_PER_LIFE) => Moment::Traffic,
            _ => Moment::Start,
        };
        for volume in &self.volumes {
            if let Backing::Faulty(disk) = &volume.backing {
                // A disk that is as fast as memory has nothing to lose; neither all alike.
                let write = if random.coin() { 0 } else { random.below(1_500) };
                disk.delay_writes(Duration::from_micros(write));
                disk.delay_flushes(Duration::from_micros(random.below(30_000)));
            }
        }
        let begun = Instant::now();
        let mut server = Server::start(&mut self.serve())?;
        let mut ready = None;
        let mut load = None;
        let mut dialer = None;
        if moment == Moment::Start {
            server.run_for(Duration::from_micros(random.below(700_000)));
        } else {
            ready = Some(server.ready()?);
            let name = format!("rig{}x{round}", self.number);
            dialer = Some(Dialer::start(self.settings.sip, name).map_err(io)?);
            let (binary, sip) = (&self.settings.binary, self.settings.sip);
            load = Some(Load::start(binary, sip, self.settings.streams, seed)?);
        }
        let limit = Instant::now() + Duration::from_secs(30);
        while let Some(Err(why)) =
            load.as_mut().filter(|_| moment != Moment::Setup).map(Load::sending)
        {
            // A slow disk may cost an INVITE its 500 ms: 503 is an honest answer, so call again.
            if why != REFUSED || Instant::now() > limit {
                return Err(why);
            }
            let (binary, sip) = (&self.settings.binary, self.settings.sip);
            load = Some(Load::start(binary, sip, self.settings.streams, random.next())?);
        }
        self.wait_for(moment, &server, &mut random)?;
        let Cut { promised, promised_ns, loss, exposed_ns } = self.cut(seed, &server)?;
        let cut_ns = mono();
        let mut copies = server.kill()?;
        if let Some(promised) = promised {
            for copy in &mut copies {
                let mark = promised.iter().find(|(worker, _)| *worker == copy.worker);
                copy.durable = mark.map_or(copy.first, |(_, durable)| *durable);
            }
        }
        drop(load);
        let answered = dialer.map_or_else(Vec::new, Dialer::end);
        let in_time = answered.into_iter().filter(|(_, at)| *at <= promised_ns);
        self.calls.extend(in_time.map(|(call, _)| call));
        let durable: u64 = copies.iter().map(|copy| copy.durable - copy.first).sum();
        self.save(&copies, Some(cut_ns))?;
        for volume in &mut self.volumes {
            volume.again()?;
        }
        let judged = self.judge(false)?;
        let verified = self.verify()?;
        Ok(json!({
            "round": round,
            "life": self.number,
            "seed": seed,
            "file_system": self.volumes[0].kind.name(),
            "way": format!("{:?}", self.way),
            "direct_io": self.volumes[0].direct,
            "journal_apart": self.volumes.len() > 1,
            "encrypted": self.kek.is_some(),
            "moment": format!("{moment:?}"),
            "unsynced": loss.iter().map(Loss::told).collect::<Vec<_>>(),
            "ready_ms": ready.map(|ready| ready.as_millis() as u64),
            "durable_bytes": durable,
            "exposed_ms": exposed_ns as f64 / 1e6,
            "judge": judged,
            "verify": verified,
            "took_ms": begun.elapsed().as_millis() as u64,
        }))
    }

    fn wait_for(&self, moment: Moment, server: &Server, random: &mut Random) -> Result<(), String> {
        let pause = |us| std::thread::sleep(Duration::from_micros(us));
        let limit = Duration::from_secs(15);
        match moment {
            Moment::Start => {}
            Moment::Setup => pause(random.below(250_000)),
            Moment::Traffic => pause(100_000 + random.below(1_900_000)),
            Moment::Seal => {
                let segments = self.store.join("segments");
                until("a segment being written", limit, || {
                    let names = std::fs::read_dir(&segments).ok()?;
                    let mut names = names.flatten().map(|entry| entry.file_name());
                    names.any(|name| name.to_string_lossy().ends_with(".tmp")).then_some(())
                })?;
                pause(random.below(20_000));
            }
            Moment::Recycle => {
                let before = server.follower().sealed();
                until("a segment sealed", limit, || {
                    (server.follower().sealed() > before).then_some(())
                })?;
                pause(random.below(250_000));
            }
        }
        Ok(())
    }

    /// The power goes, on all disks at once. Returns the durable marks and the instant that count.
    ///
    /// On the fault disk a sync either came back before the cut or fails, so whatever was promised
    /// at the end counts. A shutdown has no such edge: a sync that it meets half-way may find its
    /// transaction gone and call that success, so what counts is what was promised before.
    fn cut(&self, seed: u64, server: &Server) -> Result<Cut, String> {
        let mut loss = Vec::new();
        let (mut promised, mut promised_ns) = (None, u64::MAX);
        let mut exposed_ns = 0;
        match self.way {
            Way::FaultDisk => {
                for (place, volume) in self.volumes.iter().enumerate() {
                    if let Backing::Faulty(disk) = &volume.backing {
                        if place == 0 && !seed.is_multiple_of(4) {
                            disk.wait_for_writes(Duration::from_millis(150));
                        }
                        exposed_ns = exposed_ns.max(server.exposed(COMMIT_MS * 1_000_000));
                        loss.push(disk.cut(seed ^ (place as u64) << 32));
                    }
                }
            }
            Way::Shutdown => {
                let folders = self.volumes.iter().map(|volume| volume.folder.as_path());
                let ready: Vec<Shutdown> =
                    folders.map(Shutdown::prepare).collect::<Result<_, _>>()?;
                exposed_ns = server.exposed(COMMIT_MS * 1_000_000);
                (promised, promised_ns) = (Some(server.durable()), mono());
                for shutdown in ready {
                    shutdown.cut()?;
                }
            }
        }
        Ok(Cut { promised, promised_ns, loss, exposed_ns })
    }

    fn save(&mut self, copies: &[Copy], cut_ns: Option<u64>) -> Result<(), String> {
        self.copies += 1;
        for copy in copies {
            copy.save(&self.truth, &format!("{:02}", self.copies), cut_ns).map_err(io)?;
        }
        std::fs::write(self.truth.join("calls.json"), json!(self.calls).to_string()).map_err(io)
    }

    fn judge(&self, last: bool) -> Result<Value, String> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/judge.py");
        let mut python = Command::new("python3");
        python.arg(script).args([&self.store, &self.truth, &self.journal]);
        if last {
            python.arg("--final");
        }
        if let Some(kek) = &self.kek {
            python.arg("--kek").arg(kek);
        }
        let output = python.output().map_err(|error| format!("python3: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let told: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| format!("the judge: {error}: {said}"))?;
        if output.status.success() { Ok(told) } else { Err(format!("the judge says no: {told}")) }
    }

    /// What the product says itself of the store, offline.
    fn verify(&self) -> Result<Value, String> {
        if !self.store.join("volume.json").exists() {
            return Ok(Value::Null);
        }
        let (code, out, said) = self.verb(&["verify", "--all", "--json"])?;
        if code != 0 {
            return Err(format!("verify --all: exit code {code}\n{out}{said}"));
        }
        Ok(json!(out.lines().count()))
    }

    /// The catalogue may be lost, never wrong: without it the same recordings are listed, among
    /// them every one whose INVITE got a 200.
    fn list(&self) -> Result<(), String> {
        let listed = || {
            let (code, out, said) = self.verb(&["ls", "--json"])?;
            let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            if code == 0 { Ok(lines) } else { Err(format!("ls: exit code {code}: {said}")) }
        };
        let indexed = listed()?;
        for entry in std::fs::read_dir(&self.store).map_err(io)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with("catalog.sqlite") {
                std::fs::remove_file(entry.path()).map_err(io)?;
            }
        }
        let bare = listed()?;
        if let Some((with, without)) = indexed.iter().zip(&bare).find(|(one, two)| one != two) {
            return Err(format!("the catalogue says {with}\nwithout it {without}"));
        }
        if indexed.len() != bare.len() {
            let (with, without) = (indexed.len(), bare.len());
            return Err(format!("{with} recordings by the catalogue, {without} without it"));
        }
        let unknown = self.calls.iter().find(|call| {
            let wanted = format!("\"call_id\":{:?}", call);
            !bare.iter().any(|line| line.contains(&wanted))
        });
        unknown.map_or(Ok(()), |call| Err(format!("got a 200 and is not listed: {call}")))
    }

    /// A last start, an end in order, and all of it judged once more.
    pub(crate) fn end(mut self) -> Result<Value, String> {
        let mut server = Server::start(&mut self.serve())?;
        let ready = server.ready()?;
        let copies = server.stop()?;
        self.save(&copies, None)?;
        let judged = self.judge(true)?;
        let verified = self.verify()?;
        self.list()?;
        for volume in &mut self.volumes {
            volume.unmount()?;
            Mounted::check(volume.kind, &volume.file())?;
        }
        let told = json!({
            "end_of_life": self.number,
            "ready_ms": ready.as_millis() as u64,
            "judge": judged,
            "verify": verified,
        });
        self.volumes.clear();
        std::fs::remove_dir_all(&self.base).map_err(io)?;
        Ok(told)
    }
}
