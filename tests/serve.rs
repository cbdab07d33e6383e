//! The processes of `floortape serve`, with the real binary: who runs, who comes back, who ends.

mod server;

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use server::{
    CONTROL, MEDIA, Server, argv0, binary, children, command, free_port, fresh_folder, send, until,
};

fn started(folder: &Path) -> Server {
    Server::start(command(folder, free_port()), folder)
}

fn runs(pid: u32, name: &str) -> bool {
    argv0(pid).as_deref() == Some(name)
}

#[test]
fn serve_says_ready_and_its_children_carry_their_names() {
    let server = started(&fresh_folder()).ready();
    let mut names: Vec<_> = children(server.keeper.id()).into_iter().map(|(_, n)| n).collect();
    names.sort();
    assert_eq!(names, [CONTROL, MEDIA]);
    let ready = server.lines().iter().filter(|line| line.starts_with("ready")).count();
    assert_eq!(ready, 1, "{:?}", server.lines());
}

#[test]
fn a_killed_child_is_started_again_each_time() {
    let mut server = started(&fresh_folder()).ready();
    for name in [MEDIA, CONTROL, MEDIA, CONTROL] {
        let before = until(name, Duration::from_secs(3), || server.child(name));
        send(before, Signal::KILL);
        let after = until("a successor", Duration::from_secs(3), || {
            server.child(name).filter(|pid| *pid != before)
        });
        assert_ne!(before, after);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.lines());
}

/// F02: keeper holds the signalling sockets. Nobody is refused while control is being started, and what
/// comes in that time is answered.
#[test]
fn f02_requests_that_come_while_control_is_dead_are_answered_and_never_refused() {
    let (folder, port) = (fresh_folder(), free_port());
    let mut server = Server::start(command(&folder, port), &folder).ready();
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("some port");
    // Connected: an ICMP error would be an error of its own.
    socket.connect(to).expect("an address");
    socket.set_nonblocking(true).expect("a socket");
    let own = socket.local_addr().expect("bound");
    let (mut sent, mut answered) = (0, HashSet::new());
    let hear = |answered: &mut HashSet<u32>| {
        let mut bytes = [0; 4_096];
        loop {
            match socket.recv(&mut bytes) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                    assert!(text.starts_with("SIP/2.0 200"), "{text}");
                    let cseq = text.split("CSeq: ").nth(1).and_then(|cseq| cseq.split(' ').next());
                    answered.insert(cseq.and_then(|cseq| cseq.parse().ok()).expect("a CSeq"));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => panic!("refused: {error}"),
            }
        }
    };
    const KILLS: usize = 5;
    for _ in 0..KILLS {
        let control = until("control", Duration::from_secs(3), || server.child(CONTROL));
        send(control, Signal::KILL);
        let until = Instant::now() + Duration::from_millis(1_200);
        while Instant::now() < until {
            sent += 1;
            let text = format!(
                "OPTIONS sip:srs@{to} SIP/2.0\r\nVia: SIP/2.0/UDP {own};branch=z9hG4bK-{sent}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:src@{own}>;tag=1\r\nTo: <sip:srs@{to}>\r\n\
                 Call-ID: options-{sent}\r\nCSeq: {sent} OPTIONS\r\nContent-Length: 0\r\n\r\n"
            );
            socket.send(text.as_bytes()).expect("never refused");
            drop(TcpStream::connect(to).expect("never refused"));
            hear(&mut answered);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    until("the last answers", Duration::from_secs(3), || {
        hear(&mut answered);
        answered.contains(&sent).then_some(())
    });
    // Those that control had read when it was killed come again in a real dialogue.
    let missing = sent as usize - answered.len();
    assert!(missing <= KILLS, "{missing} of {sent} were not answered: {:#?}", server.lines());
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.lines());
    UdpSocket::bind(to).expect("the port is free again");
}

#[test]
fn sigterm_ends_everything_and_leaves_no_orphan() {
    let mut server = started(&fresh_folder()).ready();
    let (media, control) = (server.child(MEDIA), server.child(CONTROL));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.lines());
    assert!(!runs(media.expect("it ran"), MEDIA));
    assert!(!runs(control.expect("it ran"), CONTROL));
}

#[test]
fn sigint_ends_everything_as_interrupted() {
    let mut server = started(&fresh_folder()).ready();
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(130), "{:?}", server.lines());
}

#[test]
fn a_signal_to_the_whole_group_is_keepers_to_act_on() {
    let mut server = started(&fresh_folder()).ready();
    for name in [MEDIA, CONTROL] {
        send(server.child(name).expect("it runs"), Signal::TERM);
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0), "{:?}", server.lines());
    assert!(!server.told("started again"), "{:?}", server.lines());
}

#[test]
fn a_store_in_use_is_refused() {
    let folder = fresh_folder();
    let server = started(&folder).ready();
    let Output { status, stderr, .. } = command(&folder, free_port()).output().expect("it runs");
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(75), "{said}");
    assert!(said.contains("in use") && said.contains(&server.keeper.id().to_string()), "{said}");
    assert!(server.child(MEDIA).is_some(), "the first one goes on");
}

#[test]
fn a_store_whose_lock_was_removed_is_in_use_all_the_same() {
    let folder = fresh_folder();
    let server = started(&folder).ready();
    std::fs::remove_file(folder.join("store/lock")).expect("it is there");
    let Output { status, stderr, .. } = command(&folder, free_port()).output().expect("it runs");
    let said = String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(75), "{said}");
    let media = server.child(MEDIA).expect("the first one goes on").to_string();
    assert!(said.contains("removed or replaced") && said.contains(&media), "{said}");
}

/// F18: without its journal a store looks empty, to a server and to every reader.
#[test]
fn f18_a_journal_that_is_not_there_is_missed_by_servers_and_readers() {
    let folder = fresh_folder();
    let (store, aside) = (folder.join("store"), folder.join("aside"));
    let port = free_port();
    let mut server = Server::start(command(&folder, port), &folder).ready();
    let to = format!("sip:srs@127.0.0.1:{port}");
    let (code, said) = run(&["src", "call", "--duration=1", "--to", &to]);
    assert_eq!(code, 0, "{said}");
    let begun = || std::fs::read_to_string(store.join("volume.json")).expect("a store");
    until("the note", Duration::from_secs(5), || begun().contains("journal_begun").then_some(()));
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let at = store.to_str().expect("text");
    assert_eq!(run(&["verify", "--all", "--store", at]).0, 0);
    // What has settled is found again by its id, out of the catalogue.
    let listed = run(&["ls", "--json", "--store", at]).1;
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("one recording");
    let id = listed["id"].as_str().expect("an id");
    let out = folder.join("out");
    let out = out.to_str().expect("text");
    assert_eq!(listed["seal"]["state"], "sealed", "{listed}");
    for verb in [&["show", id][..], &["verify", id], &["export", id, "-o", out]] {
        let (code, said) = run(&[verb, &["--store", at]].concat());
        assert_eq!(code, 0, "{verb:?}: {said}");
    }
    assert_eq!(run(&["rs", "stop", id, "--store", at]).0, 69, "nobody serves it");

    // Not mounted: an empty folder; or not even that.
    std::fs::rename(store.join("journal"), &aside).expect("nobody holds it");
    for there in [false, true] {
        if there {
            std::fs::create_dir(store.join("journal")).expect("room");
        }
        let Output { status, stderr, .. } = command(&folder, port).output().expect("it runs");
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(74), "{said}");
        assert!(said.contains("is not the journal of this store"), "{said}");
        for verb in [&["ls"][..], &["verify", "--all"]] {
            let (code, said) = run(&[verb, &["--store", at]].concat());
            assert_eq!(code, 74, "{said}");
            assert!(said.contains("is not the journal of this store"), "{said}");
        }
    }
    std::fs::remove_dir(store.join("journal")).expect("nothing was put there");
    std::fs::rename(&aside, store.join("journal")).expect("mounted again");
    let _third = started(&folder).ready();
    let (code, said) = run(&["ls", "--json", "--store", at]);
    assert_eq!((code, said.lines().count()), (0, 1), "{said}");

    // A byte in the middle of it.
    let first = store.join("journal/00000001.journal");
    let mut bytes = std::fs::read(&first).expect("its first file");
    bytes[40] ^= 1;
    std::fs::write(&first, bytes).expect("ours");
    let (code, said) = run(&["verify", "--all", "--store", at]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("journal 00000001.journal is damaged"), "{said}");
}

fn run(words: &[&str]) -> (i32, String) {
    let out = Command::new(binary()).args(words).output().expect("it runs");
    let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    (out.status.code().expect("not killed"), said)
}

/// A store whose identity or keys are gone is refused, and whole again once they are back. Readers show
/// what there is, and say that nobody vouches for it.
#[test]
fn a_store_that_lost_its_identity_or_a_key_is_not_served_until_it_is_back() {
    let folder = fresh_folder();
    let (store, aside) = (folder.join("store"), folder.join("aside"));
    let port = free_port();
    let mut server = Server::start(command(&folder, port), &folder).ready();
    let to = format!("sip:srs@127.0.0.1:{port}");
    for _ in 0..2 {
        let (code, said) = run(&["src", "call", "--duration=1", "--to", &to]);
        assert_eq!(code, 0, "{said}");
    }
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    let at = store.to_str().expect("text");
    let verify = || run(&["verify", "--all", "--store", at]);
    let (code, said) = verify();
    assert_eq!((code, said.lines().count()), (0, 2), "{said}");
    let volume = std::fs::read_to_string(store.join("volume.json")).expect("a store");
    let volume: serde_json::Value = serde_json::from_str(&volume).expect("JSON");
    let noted = volume["machine_key"].as_str().expect("noted").to_owned();
    let shown = std::fs::read(store.join("evidence/signing.pub")).expect("shown");
    let shown: String = shown[..8].iter().map(|byte| format!("{byte:02x}")).collect();

    // What is gone, what a refusal names, and what each reader comes to then.
    let cases = [
        ("volume.json", "volume.json is not there", "volume.json is not there", 74),
        ("machine.key", &noted[..16], "its salt is sealed by the machine key", 74),
        ("signing.key", shown.as_str(), "proven up to checkpoint", 0),
    ];
    for (name, refusal, verdict, verified) in cases {
        std::fs::rename(store.join(name), &aside).expect("nobody holds it");
        for _ in 0..2 {
            let Output { status, stderr, .. } = command(&folder, port).output().expect("it runs");
            let said = String::from_utf8_lossy(&stderr);
            assert_eq!(status.code(), Some(74), "{name}: {said}");
            assert!(said.contains(refusal) && said.contains(name), "{name}: {said}");
            assert!(!store.join(name).exists(), "{name}: made anew");
        }
        let (code, said) = verify();
        assert_eq!(code, verified, "{name}: {said}");
        assert!(said.contains(verdict), "{name}: {said}");
        let recordings = said.lines().filter(|line| line.contains("  lost 0  ")).count();
        assert_eq!(recordings, 2, "all are reported: {said}");
        std::fs::rename(&aside, store.join(name)).expect("put back");
        assert_eq!(verify().0, 0);
    }
    // Another key in the place of ours.
    let other = fresh_folder();
    let mut server = started(&other).ready();
    server.signal(Signal::TERM);
    server.wait();
    for name in ["machine.key", "signing.key"] {
        std::fs::rename(store.join(name), &aside).expect("ours");
        std::fs::copy(other.join("store").join(name), store.join(name)).expect("ours");
        let Output { status, stderr, .. } = command(&folder, port).output().expect("it runs");
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(74), "{name}: {said}");
        assert!(said.contains("put the right one back"), "{name}: {said}");
        std::fs::rename(&aside, store.join(name)).expect("put back");
    }
    let server = started(&folder).ready();
    assert_eq!(verify().0, 0);
    drop(server);
}

/// Nobody is ended for a store that cannot be gone on with: who records has its keys in memory.
#[test]
fn roles_of_a_killed_keeper_go_on_where_a_key_is_gone() {
    let folder = fresh_folder();
    let (store, port) = (folder.join("store"), free_port());
    let mut first = Server::start(command(&folder, port), &folder).ready();
    let to = format!("sip:srs@127.0.0.1:{port}");
    let call = ["src", "call", "--duration=20", "--to", &to];
    let mut call = Command::new(binary()).args(call).stdout(Stdio::null()).spawn().expect("runs");
    let at = store.to_str().expect("text");
    until("a recording", Duration::from_secs(5), || {
        run(&["ls", "--live", "--store", at]).1.contains("live").then_some(())
    });
    let roles = [MEDIA, CONTROL].map(|name| (first.child(name).expect("it runs"), name));
    first.keeper.kill().expect("ours");
    first.wait();
    for name in ["machine.key", "signing.key"] {
        std::fs::rename(store.join(name), folder.join(name)).expect("ours");
        let Output { status, stderr, .. } = command(&folder, port).output().expect("it runs");
        let said = String::from_utf8_lossy(&stderr);
        assert_eq!(status.code(), Some(74), "{said}");
        assert!(said.contains("was not touched and goes on"), "{said}");
        assert!(roles.iter().all(|(pid, name)| runs(*pid, name)), "{said}");
        std::fs::rename(folder.join(name), store.join(name)).expect("ours");
    }
    let second = started(&folder);
    until("the takeover", Duration::from_secs(10), || {
        second.told("took over memory").then_some(())
    });
    let second = second.ready();
    assert!(run(&["ls", "--live", "--store", at]).1.contains("live"));
    call.kill().expect("ours");
    call.wait().expect("ours");
    drop(second);
}

#[test]
fn an_operator_s_verb_waits_for_a_control_that_is_being_started() {
    let folder = fresh_folder();
    let store = folder.join("store");
    let mut server = started(&folder).ready();
    let at = store.to_str().expect("text").to_owned();
    // Refused by the configuration: so control has heard it.
    let ask = move || run(&["rs", "start", "sip:x@127.0.0.1:9", "--store", &at]);
    assert_eq!(ask().0, 4);
    // A keeper that stands still starts no other control.
    server.signal(Signal::STOP);
    let control = server.child(CONTROL).expect("it runs");
    send(control, Signal::KILL);
    // One that is still dying takes a request along.
    until("its end", Duration::from_secs(5), || (!runs(control, CONTROL)).then_some(()));
    let begun = Instant::now();
    let (code, said) = ask();
    assert_eq!(code, 75, "{said}");
    assert!(said.contains("its control is being started"), "{said}");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
    let asking = std::thread::spawn(ask.clone());
    std::thread::sleep(Duration::from_millis(500));
    server.signal(Signal::CONT);
    let (code, said) = asking.join().expect("no panic");
    assert_eq!(code, 4, "{said}");
    server.signal(Signal::TERM);
    server.wait();
    let begun = Instant::now();
    let (code, said) = ask();
    assert_eq!(code, 69, "{said}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

/// A control without the key would forget every call, and one with another key would begin anew: media
/// goes on without it until the key is back.
#[test]
fn a_control_does_not_start_without_the_machine_key_and_does_once_it_is_back() {
    let folder = fresh_folder();
    let (store, aside) = (folder.join("store"), folder.join("aside"));
    let key = store.join("machine.key");
    let mut server = started(&folder).ready();
    let media = server.child(MEDIA);
    std::fs::rename(&key, &aside).expect("ours");
    send(server.child(CONTROL).expect("it runs"), Signal::KILL);
    until("the reason", Duration::from_secs(5), || {
        server.told("machine.key: expected the one of fingerprint").then_some(())
    });
    assert!(!key.exists(), "none is made");
    std::fs::rename(&aside, &key).expect("ours");
    let at = store.to_str().expect("text");
    until("a control that answers", Duration::from_secs(10), || {
        (run(&["rs", "start", "sip:x@127.0.0.1:9", "--store", at]).0 == 4).then_some(())
    });
    assert_eq!(server.child(MEDIA), media);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_drain_says_what_it_waits_for() {
    let folder = fresh_folder();
    let port = free_port();
    let mut server = Server::start(command(&folder, port), &folder).ready();
    let to = format!("sip:srs@127.0.0.1:{port}");
    let call = ["src", "call", "--duration=3", "--to", &to];
    let mut call = Command::new(binary()).args(call).stdout(Stdio::null()).spawn().expect("runs");
    let store = folder.join("store");
    let at = store.to_str().expect("text");
    until("a recording", Duration::from_secs(5), || {
        run(&["ls", "--live", "--store", at]).1.contains("live").then_some(())
    });
    server.signal(Signal::TERM);
    until("the line", Duration::from_secs(1), || {
        server.told("draining: new RSs get 503; 1 running, the oldest is ").then_some(())
    });
    assert!(call.wait().expect("ours").success());
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn roles_of_a_killed_keeper_end_and_the_store_opens_again() {
    let folder = fresh_folder();
    let mut first = started(&folder).ready();
    let (media, control) = (first.child(MEDIA), first.child(CONTROL));
    first.keeper.kill().expect("ours");
    first.wait();
    let second = started(&folder).ready();
    assert!(!runs(media.expect("it ran"), MEDIA), "no two writers of one store");
    until("the old control ends", Duration::from_secs(3), || {
        (!runs(control.expect("it ran"), CONTROL)).then_some(())
    });
    drop(second);
}

#[test]
fn a_faulty_configuration_ends_with_78_and_shows_the_place() {
    let folder = fresh_folder();
    let file = folder.join("f.toml");
    std::fs::write(&file, "[media]\nstream_max = 5\nports = 7\n").expect("ours");
    for verb in ["serve", "check"] {
        let output =
            Command::new(binary()).args([verb, "-c"]).arg(&file).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("f.toml:2:1: error: media.stream_max: unknown key"), "{said}");
        assert!(said.contains("did you mean \"streams_max\"?"), "{said}");
        assert!(said.contains("f.toml:3:9: error: media.ports"), "{said}");
        assert!(said.contains("    |         ^\n"), "{said}");
        assert!(output.stdout.is_empty());
    }
    std::fs::remove_dir_all(folder).expect("ours");
}

#[test]
fn f72_a_faulty_reload_keeps_the_running_configuration() {
    let folder = fresh_folder();
    let file = folder.join("f.toml");
    std::fs::write(&file, "[log]\nlevel = \"info\"\n").expect("ours");
    let mut command = command(&folder, free_port());
    command.arg("-c").arg(&file);
    let server = Server::start(command, &folder).ready();
    std::fs::write(&file, "[log]\nlevel = \"loud\"\n").expect("ours");
    server.signal(Signal::HUP);
    until("the fault", Duration::from_secs(3), || server.told("not reloaded").then_some(()));
    assert!(server.told("f.toml:2:9: error: log.level"), "{:?}", server.lines());
    std::fs::write(&file, "[log]\nlevel = \"warn\"\n[store]\nring_seconds = 900\n").expect("ours");
    server.signal(Signal::HUP);
    until("the fixed key", Duration::from_secs(3), || {
        server.told("not reloaded: store.ring_seconds").then_some(())
    });
    std::fs::write(&file, "[log]\nlevel = \"warn\"\n").expect("ours");
    server.signal(Signal::HUP);
    until("the reload", Duration::from_secs(3), || {
        server.told("configuration reloaded").then_some(())
    });
}

#[test]
fn a_role_name_without_keeper_is_a_usage_error() {
    use std::os::unix::process::CommandExt;
    let output = Command::new(binary()).arg0(MEDIA).stdin(Stdio::null()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("children of `floortape serve`"), "{said}");
}

/// What `check` shows is what happens: each thread of media and control has the cores of the plan.
#[test]
fn threads_run_where_the_plan_says() {
    let cores = floortape::host::affinity::permitted();
    let (worker, rest) = cores.split_last().expect("one core");
    let folder = fresh_folder();
    let mut command = command(&folder, free_port());
    command.args(["--set", "cpu.workers=0", "--set", &format!("cpu.rx=\"{worker}\"")]);
    let server = Server::start(command, &folder).ready();
    let allowed = |pid: u32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
        let task = |task: std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            let list = floortape::config::cores::parse(list.trim()).expect("a list");
            Some((name.trim().to_owned(), list))
        };
        tasks.flatten().filter_map(task).collect::<Vec<_>>()
    };
    let media = until("media", Duration::from_secs(3), || server.child(MEDIA));
    let control = until("control", Duration::from_secs(3), || server.child(CONTROL));
    // Where the worker has the only core there is no rest.
    let rest = if rest.is_empty() { &cores } else { rest };
    // The kernel's own threads of an io_uring carry the name of who made it.
    let mut names = HashSet::new();
    for (name, list) in allowed(media).into_iter().chain(allowed(control)) {
        if name.starts_with("worker-") {
            assert_eq!(list, [*worker], "{name}");
        } else if !name.starts_with("iou-") {
            assert!(list.iter().all(|core| rest.contains(core)), "{name} on {list:?}");
        }
        names.insert(name);
    }
    for name in ["worker-0", "spool-0", "ahead", "journal", MEDIA] {
        assert!(names.contains(&name[..name.len().min(15)]), "{name} is not in {names:?}");
    }
}

#[test]
fn what_could_be_placed_better_is_said_at_the_start() {
    let cores = floortape::host::affinity::permitted();
    let folder = fresh_folder();
    let mut command = command(&folder, free_port());
    let rx = format!("cpu.rx=\"{}\"", floortape::config::cores::text(&cores));
    command.args(["--set", "cpu.workers=0", "--set", &rx]);
    let server = Server::start(command, &folder).ready();
    assert!(server.told("cpu.rx: workers have all"), "{:?}", server.lines());
}
