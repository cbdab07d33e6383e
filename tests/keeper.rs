//! Death, hang and replacement of keeper and of what it keeps, with real processes and real calls:
//! whoever survives goes on, whoever comes next takes over, and no packet is missing (F03, F07, F09).

#[path = "server/copy.rs"]
mod copy;
mod server;

use std::fs::Permissions;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use copy::copy_program;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::Signal;
use serde_json::Value;
use server::{
    CONTROL, MEDIA, Server, argv0, binary, command, free_port, fresh_folder, send, try_send, until,
};

/// The name of media's spare until it plays media.
const SPARE: &str = "floortape-spare";
const PATIENCE: Duration = Duration::from_secs(20);

/// A store with whoever serves it.
struct Bench {
    folder: PathBuf,
    port: u16,
    binary: PathBuf,
}

fn command_for(bench: &Bench) -> Command {
    command(&bench.folder, bench.port)
}

impl Bench {
    fn new() -> Self {
        let folder = fresh_folder();
        // A copy of its own, which a test may replace.
        let binary = folder.join("floortape");
        copy_program(&server::binary(), &binary);
        Bench { folder, port: free_port(), binary }
    }

    fn serve(&self) -> Server {
        self.start(Command::new(&self.binary)).ready()
    }

    /// Starts a server by `command`, which takes its words.
    fn start(&self, mut command: Command) -> Server {
        let like = command_for(self);
        command.args(like.get_args()).args(["--set", "media.streams_max=12"]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Server::start(command, &self.folder)
    }

    fn call(&self, seconds: u32) -> Child {
        let to = format!("sip:srs@127.0.0.1:{}", self.port);
        let call = Command::new(binary())
            .args(["src", "call", "--numbered", "--json", "--streams=8", "--to", &to])
            .arg(format!("--duration={seconds}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        call.expect("the binary is built")
    }

    fn listed(&self) -> Vec<Value> {
        let store = self.folder.join("store");
        let out = Command::new(binary()).args(["ls", "--json", "--store"]).arg(store).output();
        let out = String::from_utf8(out.expect("it runs").stdout).expect("text");
        out.lines().map(|line| serde_json::from_str(line).expect("JSON lines")).collect()
    }

    fn durable(&self) -> u64 {
        self.listed().iter().flat_map(sources).map(|s| s["packets"].as_u64().expect("count")).sum()
    }

    fn reaches(&self, packets: u64) {
        until("packets on disk", PATIENCE, || (self.durable() >= packets).then_some(()));
    }

    /// The call ended in order, and all that was sent is on disk once.
    fn judge(&self, call: Child, server: &Server) {
        self.judge_among(4, call, server);
    }

    /// The same where the store holds that many recordings by then.
    fn judge_among(&self, recordings: usize, mut call: Child, server: &Server) {
        let mut out = String::new();
        call.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
        assert_eq!(call.wait().expect("ours").code(), Some(0), "{:#?}", server.lines());
        let sent: Value = serde_json::from_str(&out).expect("JSON");
        let listed = until("the end of all recordings", PATIENCE, || {
            let listed = self.listed();
            let over = |r: &Value| r["state"] == "ended" && r["durable_through"] == r["end"];
            (listed.len() == recordings && listed.iter().all(over)).then_some(listed)
        });
        let said = server.lines().join("\n");
        let found: Vec<&Value> = listed.iter().flat_map(sources).collect();
        for stream in sent["streams"].as_array().expect("a list") {
            let source = found.iter().find(|s| s["ssrc"] == stream["ssrc"]).expect("its source");
            assert_eq!(source["packets"], stream["sent"], "{source}\n{said}");
            assert_eq!((&source["duplicates"], &source["unexplained"]), (&0.into(), &0.into()));
            assert_eq!(source["lost"], serde_json::json!({}), "{said}");
        }
        let store = self.folder.join("store");
        let verified =
            Command::new(binary()).args(["verify", "--all", "--store"]).arg(store).output();
        assert_eq!(verified.expect("it runs").status.code(), Some(0), "{said}");
    }
}

fn sources(recording: &Value) -> impl Iterator<Item = &Value> {
    let streams = recording["streams"].as_array().into_iter().flatten();
    streams.flat_map(|stream| stream["sources"].as_array().into_iter().flatten())
}

fn runs(pid: u32, name: &str) -> bool {
    argv0(pid).as_deref() == Some(name)
}

/// Kills keeper and the roles named, waits until the others are seen to go on, and serves anew.
fn keeper_dies(with: &[&str]) {
    let bench = Bench::new();
    let mut first = bench.serve();
    let call = bench.call(8);
    bench.reaches(200);
    let roles = [MEDIA, CONTROL].map(|name| (name, first.child(name).expect("it runs")));
    first.keeper.kill().expect("ours");
    for (name, pid) in roles {
        if with.contains(&name) {
            send(pid, Signal::KILL);
        }
    }
    first.wait();
    if !with.contains(&MEDIA) {
        // It goes on without keeper, up to the disk.
        let before = bench.durable();
        bench.reaches(before + 50);
    }
    let second = bench.serve();
    for (name, pid) in roles {
        assert!(!runs(pid, name), "no two {name}");
        assert!(second.child(name).is_some(), "{name} is the new keeper's child");
    }
    assert!(second.told("took over memory"), "{:#?}", second.lines());
    bench.judge(call, &second);
}

#[test]
fn f03_a_new_keeper_takes_over_from_roles_that_went_on() {
    keeper_dies(&[]);
}

#[test]
fn f03_media_alone_is_enough_for_a_new_keeper() {
    keeper_dies(&[CONTROL]);
}

#[test]
fn f03_control_alone_is_enough_for_a_new_keeper() {
    keeper_dies(&[MEDIA]);
}

/// Of two that would take copies of one memory, one does.
#[test]
fn f03_of_two_new_keepers_one_takes_over() {
    let bench = Bench::new();
    let mut first = bench.serve();
    let call = bench.call(6);
    bench.reaches(200);
    first.keeper.kill().expect("ours");
    first.wait();
    let mut pair = [0, 1].map(|_| bench.start(Command::new(&bench.binary)));
    let refused = until("one to be refused", PATIENCE, || {
        pair.iter_mut().position(|server| server.keeper.try_wait().expect("ours").is_some())
    });
    assert_eq!(pair[refused].wait().code(), Some(75), "{:#?}", pair[refused].lines());
    let taker = &pair[1 - refused];
    until("ready", PATIENCE, || taker.heard("ready").then_some(()));
    assert!(taker.told("took over memory"), "{:#?}", taker.lines());
    bench.judge(call, taker);
}

/// At every instant of a take-over some process holds everything: kills, each a little later than
/// the one before, meet every part of it.
#[test]
fn f03_keepers_killed_while_they_take_over_lose_nothing() {
    let bench = Bench::new();
    let mut servers = vec![bench.serve()];
    let call = bench.call(9);
    bench.reaches(200);
    for round in 0..16 {
        let last = servers.last_mut().expect("never empty");
        last.keeper.kill().expect("ours");
        last.wait();
        let next = bench.start(Command::new(&bench.binary));
        let begun = Instant::now();
        let moment = Duration::from_millis(round * 8);
        until("the moment", PATIENCE, || (begun.elapsed() >= moment).then_some(()));
        servers.push(next);
    }
    let last = servers.last_mut().expect("never empty");
    last.keeper.kill().expect("ours");
    last.wait();
    servers.push(bench.serve());
    bench.judge(call, servers.last().expect("never empty"));
}

/// F09: what another version holds is not touched. Its voice is the test's; the roles are real.
#[test]
fn f09_a_running_recorder_of_another_version_is_left_alone() {
    let bench = Bench::new();
    let mut first = bench.serve();
    let call = bench.call(6);
    bench.reaches(100);
    let roles = [MEDIA, CONTROL].map(|name| (name, first.child(name).expect("it runs")));
    first.keeper.kill().expect("ours");
    first.wait();
    let run = bench.folder.join("store/run");
    let doors = ["media.sock", "control.sock"].map(|name| run.join(name));
    until("the doors", PATIENCE, || doors.iter().all(|door| door.exists()).then_some(()));
    for door in &doors {
        std::fs::rename(door, door.with_extension("away")).expect("ours");
    }
    let voice = std::thread::spawn({
        let door = seqpacket();
        rustix::net::bind(&door, &SocketAddrUnix::new(&doors[0]).expect("short")).expect("free");
        rustix::net::listen(&door, 1).expect("bound");
        move || {
            let caller = rustix::net::accept(&door).expect("a new keeper");
            let mut frame = [0; 64];
            frame[..2].copy_from_slice(&u16::MAX.to_le_bytes());
            rustix::net::send(&caller, &frame, SendFlags::empty()).expect("it listens");
        }
    });
    let mut newer = bench.start(Command::new(&bench.binary));
    assert_eq!(newer.wait().code(), Some(78), "{:#?}", newer.lines());
    assert!(newer.told("of another version"), "{:#?}", newer.lines());
    voice.join().expect("no panic");
    assert!(roles.iter().all(|(name, pid)| runs(*pid, name)), "untouched");
    let before = bench.durable();
    bench.reaches(before + 50);
    for door in &doors {
        std::fs::rename(door.with_extension("away"), door).expect("ours");
    }
    let second = bench.serve();
    bench.judge(call, &second);
}

fn seqpacket() -> OwnedFd {
    rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket")
}

/// The service manager's descriptor store, played: it keeps what it is given until it is told to let
/// go, and hands it to the next start.
struct Manager {
    path: PathBuf,
    held: Arc<Mutex<Vec<OwnedFd>>>,
}

impl Manager {
    fn new(folder: &Path) -> Self {
        let path = folder.join("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("ours");
        let held = Arc::new(Mutex::new(Vec::new()));
        let store = Arc::clone(&held);
        std::thread::spawn(move || {
            loop {
                let (text, fds) = receive(&socket);
                let mut held = store.lock().expect("no panic while held");
                if text.contains("FDSTOREREMOVE=1") {
                    held.clear();
                }
                held.extend(fds);
            }
        });
        Manager { path, held }
    }

    fn held(&self) -> usize {
        self.held.lock().expect("no panic while held").len()
    }

    /// A command that becomes `binary` with the descriptors as sd_listen_fds(3) wants them. Only
    /// the process itself knows its number, and std hands over no descriptor above the third.
    fn launch(&self, binary: &Path) -> Command {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("a pair");
        let held = self.held.lock().expect("no panic while held");
        let fds: Vec<_> = held.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)), "a few letters");
        let bytes = [IoSlice::new(b"x")];
        rustix::net::sendmsg(&ours, &bytes, &mut ancillary, SendFlags::empty()).expect("room");
        let mut command = Command::new("python3");
        command.args(["-c", LAUNCHER]).arg(binary);
        command.stdin(Stdio::from(theirs)).env("NOTIFY_SOCKET", &self.path);
        command
    }
}

const LAUNCHER: &str = r#"
import array, fcntl, os, socket, sys
data = socket.socket(fileno=os.dup(0)).recvmsg(1, socket.CMSG_SPACE(4 * 64))[1][0][2]
fds = [fcntl.fcntl(fd, fcntl.F_DUPFD, 100) for fd in array.array("i", data)]
for place, fd in enumerate(fds):
    os.dup2(fd, 3 + place)
    os.close(fd)
os.environ.update(LISTEN_FDS=str(len(fds)), LISTEN_PID=str(os.getpid()))
os.execv(sys.argv[1], sys.argv[1:])
"#;

fn receive(socket: &UnixDatagram) -> (String, Vec<OwnedFd>) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; 512];
    let mut slices = [IoSliceMut::new(&mut text)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(socket, &mut slices, &mut ancillary, flags).expect("bound");
    let fds = ancillary.drain().flat_map(|part| match part {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let fds = fds.collect();
    (String::from_utf8_lossy(&text[..got.bytes]).into_owned(), fds)
}

#[test]
fn f04_what_the_service_manager_holds_outlives_all_three() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("not tested: no python3 to hand descriptors over");
        return;
    }
    let bench = Bench::new();
    let manager = Manager::new(&bench.folder);
    let mut command = Command::new(&bench.binary);
    command.stdin(Stdio::null()).env("NOTIFY_SOCKET", &manager.path);
    let mut server = bench.start(command).ready();
    until("the store", PATIENCE, || (manager.held() >= 3).then_some(()));
    let call = bench.call(6);
    let mut servers = Vec::new();
    for packets in [200, 600] {
        bench.reaches(packets);
        let roles = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
        server.keeper.kill().expect("ours");
        for pid in roles {
            send(pid, Signal::KILL);
        }
        server.wait();
        let next = bench.start(manager.launch(&bench.binary)).ready();
        assert!(next.told("from the service manager"), "{:#?}", next.lines());
        servers.push(std::mem::replace(&mut server, next));
    }
    bench.judge(call, &server);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:#?}", server.lines());
    until("an empty store", PATIENCE, || (manager.held() == 0).then_some(()));
}

/// The manager's memory is of a run before another one, started by hand, which gave the positions of
/// that ring to other packets.
#[test]
fn f04_what_the_store_has_outrun_is_named_and_dropped() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("not tested: no python3 to hand descriptors over");
        return;
    }
    let bench = Bench::new();
    let manager = Manager::new(&bench.folder);
    let mut command = Command::new(&bench.binary);
    command.stdin(Stdio::null()).env("NOTIFY_SOCKET", &manager.path);
    let mut first = bench.start(command).ready();
    until("the store", PATIENCE, || (manager.held() >= 3).then_some(()));
    bench.judge_among(4, bench.call(1), &first);
    let roles = [MEDIA, CONTROL].map(|name| first.child(name).expect("it runs"));
    first.keeper.kill().expect("ours");
    for pid in roles {
        try_send(pid, Signal::KILL);
    }
    first.wait();
    let mut by_hand = bench.serve();
    bench.judge_among(8, bench.call(1), &by_hand);
    by_hand.signal(Signal::TERM);
    assert_eq!(by_hand.wait().code(), Some(0), "{:#?}", by_hand.lines());
    let mut next = bench.start(manager.launch(&bench.binary)).ready();
    assert!(next.told("another server has used the store since"), "{:#?}", next.lines());
    assert!(!next.told("took up memory"), "{:#?}", next.lines());
    assert!(!next.told("port pairs are free"), "its ports are ours again: {:#?}", next.lines());
    until("a new store", PATIENCE, || (manager.held() >= 3).then_some(()));
    bench.judge_among(12, bench.call(1), &next);
    // What is held now is taken up again.
    let roles = [MEDIA, CONTROL].map(|name| next.child(name).expect("it runs"));
    next.keeper.kill().expect("ours");
    for pid in roles {
        try_send(pid, Signal::KILL);
    }
    next.wait();
    let last = bench.start(manager.launch(&bench.binary)).ready();
    assert!(last.told("took up memory"), "{:#?}", last.lines());
    bench.judge_among(16, bench.call(1), &last);
}

#[test]
fn f04_an_incomplete_store_is_named_and_dropped() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("not tested: no python3 to hand descriptors over");
        return;
    }
    let bench = Bench::new();
    let manager = Manager::new(&bench.folder);
    let mut command = Command::new(&bench.binary);
    command.stdin(Stdio::null()).env("NOTIFY_SOCKET", &manager.path);
    let mut first = bench.start(command).ready();
    until("the store", PATIENCE, || (manager.held() >= 3).then_some(()));
    let roles = [MEDIA, CONTROL].map(|name| first.child(name).expect("it runs"));
    first.keeper.kill().expect("ours");
    for pid in roles {
        try_send(pid, Signal::KILL);
    }
    first.wait();
    manager.held.lock().expect("no panic while held").pop();
    let second = bench.start(manager.launch(&bench.binary)).ready();
    assert!(second.told("cannot be taken up"), "{:#?}", second.lines());
    until("a whole store", PATIENCE, || (manager.held() >= 3).then_some(()));
    bench.judge(bench.call(1), &second);
}

#[test]
fn f03_without_keeper_no_new_rs_is_taken_and_the_roles_end_with_the_last() {
    let bench = Bench::new();
    let mut server = bench.serve();
    let call = bench.call(2);
    bench.reaches(100);
    let roles = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    server.keeper.kill().expect("ours");
    server.wait();
    until("control to notice", PATIENCE, || {
        server.told("running RSs go on without it").then_some(())
    });
    assert_eq!(bench.call(1).wait().expect("ours").code(), Some(75), "503");
    bench.judge(call, &server);
    until("the roles to end", PATIENCE, || {
        (!runs(roles[0], MEDIA) && !runs(roles[1], CONTROL)).then_some(())
    });
}

#[test]
fn f07_a_role_that_hangs_is_replaced_and_loses_nothing() {
    let bench = Bench::new();
    let server = bench.serve();
    let call = bench.call(9);
    bench.reaches(100);
    for name in [MEDIA, CONTROL] {
        let before = server.child(name).expect("it runs");
        send(before, Signal::STOP);
        until("a successor", PATIENCE, || server.child(name).filter(|pid| *pid != before));
        assert!(server.told(&format!("{name} (process {before}) hangs")), "{:#?}", server.lines());
    }
    bench.judge(call, &server);
}

/// A spare that stands still and is let go all the same keeps media's place: it is found by that it
/// never becomes ready.
#[test]
fn f07_a_spare_that_hangs_is_replaced_also_once_it_plays_media() {
    let bench = Bench::new();
    let server = bench.serve();
    let call = bench.call(14);
    bench.reaches(100);
    let spare = until("a spare", PATIENCE, || server.child(SPARE));
    send(spare, Signal::STOP);
    let media = server.child(MEDIA).expect("it runs");
    send(media, Signal::KILL);
    // It may not be reaped yet.
    until("a successor", PATIENCE, || server.child(MEDIA).filter(|pid| *pid != media));
    assert!(server.told(&format!("{MEDIA} (process {spare}) hangs")), "{:#?}", server.lines());
    bench.judge(call, &server);
}

#[test]
fn f09_the_binary_is_replaced_in_mid_call() {
    let bench = Bench::new();
    let server = bench.serve();
    let call = bench.call(4);
    bench.reaches(200);
    let roles = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    replace(&bench.binary, |new| copy_program(&binary(), new));
    server.signal(Signal::USR2);
    until("the upgrade", PATIENCE, || server.told("upgraded: version").then_some(()));
    let after = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    assert!(after[0] != roles[0] && after[1] != roles[1], "both run the new binary");
    bench.judge(call, &server);
}

/// A version that refuses (here: told that it cannot read what it gets) hands everything back, and
/// the one before looks for the next one in the old place.
#[test]
fn f09_a_version_that_cannot_go_on_hands_back_and_a_better_one_follows() {
    let bench = Bench::new();
    let server = bench.serve();
    let call = bench.call(9);
    bench.reaches(200);
    for (round, fault) in ["FLOORTAPE_VERSIONS=other", "FLOORTAPE_FD_ESTATE=9"].iter().enumerate() {
        replace(&bench.binary, |new| refusing(new, &bench.folder.join("real"), fault));
        upgrades(&server, "went back", round + 1);
        let before = bench.durable();
        bench.reaches(before + 50);
    }
    replace(&bench.binary, |new| copy_program(&binary(), new));
    upgrades(&server, "upgraded: version", 1);
    bench.judge(call, &server);
}

/// Asks for an upgrade until `outcome` was told `times`; again where the machine is so busy that the
/// new binary does not say its version in time.
fn upgrades(server: &Server, outcome: &str, times: usize) {
    let count = |text: &str| server.lines().iter().filter(|line| line.contains(text)).count();
    let deadline = Instant::now() + 2 * PATIENCE;
    let mut refused = count("it does not answer");
    server.signal(Signal::USR2);
    while count(outcome) < times {
        assert!(Instant::now() < deadline, "no \"{outcome}\": {:#?}", server.lines());
        let now = count("it does not answer");
        if now > refused {
            refused = now;
            server.signal(Signal::USR2);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The real thing behind a script that answers for it, but lets it find something else than what was
/// left for it.
fn refusing(path: &Path, real: &Path, fault: &str) {
    copy_program(&binary(), real);
    let script = format!(
        "#!/bin/sh\nfor word; do\n  case \"$word\" in --version|--help) exec {real} \"$@\";; esac\n\
         done\nexec 9</dev/null\nexport {fault}\nexec {real} \"$@\"\n",
        real = real.display()
    );
    let text = path.with_extension("sh");
    std::fs::write(&text, script).expect("ours");
    std::fs::set_permissions(&text, Permissions::from_mode(0o755)).expect("ours");
    copy_program(&text, path);
}

#[test]
fn f09_what_is_no_newer_floortape_is_not_started() {
    let bench = Bench::new();
    let server = bench.serve();
    let call = bench.call(3);
    bench.reaches(100);
    let roles = [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs"));
    replace(&bench.binary, |new| copy_program("/bin/false".as_ref(), new));
    server.signal(Signal::USR2);
    until("the refusal", PATIENCE, || server.told("not upgraded").then_some(()));
    assert_eq!(roles, [MEDIA, CONTROL].map(|name| server.child(name).expect("it runs")));
    bench.judge(call, &server);
}

/// As a package manager does it: the old file lives on as long as somebody runs it.
fn replace(binary: &Path, make: impl FnOnce(&Path)) {
    let new = binary.with_extension("new");
    make(&new);
    std::fs::rename(new, binary).expect("ours");
}
