//! Flows inside a running session, with the real server: session timers refreshed by either side, a
//! client that stops refreshing, snapshots asked for; control killed in between.

#[expect(dead_code, reason = "shared with tests that kill processes")]
mod server;
mod words;

use std::net::UdpSocket;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use floortape::base::ids::{Index, Seq, Ssrc};
use floortape::base::secret::MasterKey;
use floortape::base::suite::Suite;
use floortape::proto::srtp::Context;
use floortape::wire::rtp::Fields;
use rustix::process::Signal;
use serde_json::Value;
use server::{CONTROL, Server, binary, command, free_port, fresh_folder, send, until};
use words::{Media, Src, cseq, ports, sdp, value};

const LIMIT: Duration = Duration::from_secs(10);

/// The only recording.
fn recording(store: &Path) -> Value {
    let output = Command::new(binary())
        .args(["ls", "--json", "--store"])
        .arg(store)
        .output()
        .expect("the binary is built");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(text.lines().next().unwrap_or("null")).unwrap_or(Value::Null)
}

fn serve(folder: &Path, port: u16) -> Server {
    let mut command = command(folder, port);
    command.args(["--set", "sip.min_se_s=2", "--set", "sip.session_expires_s=4"]);
    Server::start(command, folder).ready()
}

/// Kills control and waits until its successor answers.
fn kill_control(server: &Server) {
    let pid = server.child(CONTROL).expect("control runs");
    send(pid, Signal::KILL);
    until("the next control", LIMIT, || server.child(CONTROL).filter(|next| *next != pid));
}

#[test]
fn either_side_refreshes_and_the_timer_outlives_control() {
    // REQ-001: the RS is up past more than two intervals of 4 s, and one BYE ends it.
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let server = serve(&folder, port);
    let mut src = Src::new(port, "Supported: timer\r\nAllow: INVITE, UPDATE, BYE\r\n");
    let (answer, _) = src.invite();
    assert_eq!(value(&answer, "Session-Expires"), "4;refresher=uas");
    let began = Instant::now();
    let first = src.asked("UPDATE", LIMIT).expect("a refresh at half the interval");
    assert!(began.elapsed() >= Duration::from_millis(1_500), "{:?}", began.elapsed());
    assert_eq!(value(&first, "Session-Expires"), "4;refresher=uac");
    assert!(first.ends_with("\r\n\r\n"), "without a body: {first}");
    src.answer(&first, "Session-Expires: 4;refresher=uac\r\n");
    // What this control has promised, the next one keeps.
    kill_control(&server);
    let mut last = cseq(&first);
    for _ in 0..4 {
        let again = src
            .next(LIMIT, |text| text.starts_with("UPDATE ") && cseq(text) > last)
            .expect("a refresh by the successor");
        last = cseq(&again);
        src.answer(&again, "Session-Expires: 4;refresher=uac\r\n");
    }
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(recording(&store)["state"], "live");
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    until("the end", LIMIT, || (recording(&store)["state"] == "ended").then_some(()));

    // Its own refresher, and an interval below ours.
    let mut brief = Src::new(port, "Supported: timer\r\nSession-Expires: 1\r\n");
    let refused = brief.ask("INVITE", "application/sdp", &sdp("sendonly", 1));
    assert!(refused.starts_with("SIP/2.0 422"), "{refused}");
    assert_eq!(value(&refused, "Min-SE"), "2");
}

#[test]
fn f51_a_client_that_stops_refreshing_is_kept_while_it_sends() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let server = serve(&folder, port);
    let fields = "Supported: timer\r\nSession-Expires: 3;refresher=uac\r\n";
    let mut src = Src::new(port, fields);
    let (answer, rtp) = src.invite();
    assert_eq!(value(&answer, "Session-Expires"), "3;refresher=uac");
    assert_eq!(value(&answer, "Require"), "timer");
    // Media comes, refreshes do not.
    let media = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut seq = 0u8;
    let mut say = || {
        let mut packet = vec![0x80, 0, 0, seq, 0, 0, 0, seq, 0, 0, 0, 17];
        packet.resize(172, 0xff);
        seq = seq.wrapping_add(1);
        media.send_to(&packet, ("127.0.0.1", rtp)).expect("loopback");
    };
    let orphan = until("an orphan", LIMIT, || {
        say();
        std::thread::sleep(Duration::from_millis(50));
        Some(recording(&store)).filter(|found| found["state"] == "orphan")
    });
    assert!(orphan["end"].is_null(), "{orphan}");
    assert!(server.told("is an orphan"));
    let invite = src.asked("INVITE", LIMIT).expect("its SRC is asked");
    assert!(invite.contains("a=recvonly"), "{invite}");
    // The SRC answers: it is none any more.
    src.answer(&invite, "Session-Expires: 4;refresher=uac\r\n");
    until("live again", LIMIT, || (recording(&store)["state"] == "live").then_some(()));
    assert!(src.asked("ACK", LIMIT).is_some());

    // One that never sends anything is over with its timer.
    let mut silent = Src::new(port, fields);
    silent.invite();
    let bye = silent.asked("BYE", LIMIT).expect("a BYE");
    assert!(value(&bye, "Reason").contains("session timer expired"), "{bye}");
}

#[test]
fn a_snapshot_is_asked_for_without_base_and_after_a_restart() {
    let (folder, port) = (fresh_folder(), free_port());
    let server = Server::start(command(&folder, port), &folder).ready();
    let mut src = Src::new(port, "Allow: INVITE, UPDATE, BYE\r\n");
    src.invite();
    let partial = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\
        <datamode>partial</datamode></recording>";
    src.ask("UPDATE", "application/rs-metadata+xml", partial);
    let request = src.asked("UPDATE", LIMIT).expect("a snapshot request");
    assert_eq!(value(&request, "Content-Type"), "application/rs-metadata+xml");
    assert_eq!(value(&request, "Content-Disposition"), "recording-session");
    assert!(request.contains("<requestsnapshot"), "{request}");
    assert!(!request.contains("m=audio"), "no SDP in it: {request}");
    src.answer(&request, "");
    let complete = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\
        <datamode>complete</datamode></recording>";
    src.ask("UPDATE", "application/rs-metadata+xml", complete);
    kill_control(&server);
    let last = cseq(&request);
    let again = src
        .next(LIMIT, |text| text.starts_with("UPDATE ") && cseq(text) > last)
        .expect("the successor asks");
    assert!(again.contains("restarted"), "{again}");
    src.answer(&again, "");
    src.ask("BYE", "", "");
}

fn operator(store: &Path, words: &[&str]) -> (i32, String) {
    let mut command = Command::new(binary());
    let output = command.arg("rs").args(words).arg("--store").arg(store).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code().expect("not killed"), said)
}

/// The client that comes with the server does as it is asked, and what it did not send is no gap.
#[test]
fn our_own_client_rests_goes_on_and_ends_a_line_as_the_operator_wants() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let _server = Server::start(command(&folder, port), &folder).ready();
    let mut call = Command::new(binary())
        .args(["src", "call", "--to", &format!("sip:srs@127.0.0.1:{port}")])
        .args(["--streams", "2", "--duration", "4", "--json"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("it runs");
    let source = |place: usize| recording(&store)["streams"][place]["sources"][0].clone();
    until("media", LIMIT, || source(1)["packets"].as_u64().filter(|count| *count >= 25));
    let id = recording(&store)["id"].as_str().expect("an id").to_owned();
    assert_eq!(operator(&store, &["pause", &id]), (0, String::new()));
    std::thread::sleep(Duration::from_millis(1_000));
    assert_eq!(operator(&store, &["resume", &id]), (0, String::new()));
    assert_eq!(operator(&store, &["stop", &id, "--line", "2"]), (0, String::new()));
    assert!(call.wait().expect("ours").success());
    let over = until("the end", LIMIT, || {
        let over = recording(&store);
        (over["state"] == "ended" && over["durable_through"] == over["end"]).then_some(over)
    });
    for stream in over["streams"].as_array().expect("two") {
        assert_ne!(stream["verdict"], "gaps", "{stream}");
        let lost = stream["sources"][0]["lost"].as_object().expect("causes");
        assert!(lost.keys().all(|cause| cause == "paused"), "{stream}");
    }
    let [first, second] = [0, 1].map(|place| {
        let source = &over["streams"][place]["sources"][0];
        source["packets"].as_u64().expect("a count")
    });
    // Four seconds less one of pause; the other line less than that.
    assert!((120..=165).contains(&first) && second < first, "{first}, {second}");
}

#[test]
fn media_in_the_clear_by_agreement_is_recorded_and_called_so() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let mut command = command(&folder, port);
    command.args(["--set", "media.unencrypted=true"]);
    let _server = Server::start(command, &folder).ready();
    let suite = "AES_CM_128_HMAC_SHA1_80 UNENCRYPTED_SRTP UNENCRYPTED_SRTCP";
    let call = Command::new(binary())
        .args(["src", "call", "--to", &format!("sip:srs@127.0.0.1:{port}")])
        .args(["--suite", suite, "--duration", "1"])
        .output()
        .expect("it runs");
    assert!(call.status.success(), "{}", String::from_utf8_lossy(&call.stderr));
    let over = until("the end", LIMIT, || {
        let over = recording(&store);
        (over["state"] == "ended" && over["durable_through"] == over["end"]).then_some(over)
    });
    assert_eq!(over["security"]["media"], "rtp", "{over}");
    for stream in over["streams"].as_array().expect("two") {
        let packets = &stream["sources"][0]["packets"];
        assert_eq!((&stream["suite"], packets), (&suite.into(), &50.into()), "{stream}");
        assert_ne!(stream["verdict"], "gaps", "{stream}");
    }
}

/// REQ-011, use case 5: nothing that comes while the SRS has paused it reaches ring or disk, from an SRC
/// that goes on sending, over the death of control and against the SRC's own offer.
#[test]
fn req011_an_operator_pauses_and_resumes_and_nothing_between_is_stored() {
    for fields in ["Allow: INVITE, UPDATE, BYE\r\n", "Allow: INVITE, BYE\r\n"] {
        let by = if fields.contains("UPDATE") { "UPDATE" } else { "INVITE" };
        let (folder, port) = (fresh_folder(), free_port());
        let store = folder.join("store");
        let server = Server::start(command(&folder, port), &folder).ready();
        let mut src = Src::new(port, fields);
        let (_, rtp) = src.invite();
        let mut media = Media::new(rtp);
        media.send(50);
        let source = || recording(&store)["streams"][0]["sources"][0].clone();
        until("the first packets", LIMIT, || (source()["packets"] == 50).then_some(()));
        let id = recording(&store)["id"].as_str().expect("an id").to_owned();

        assert_eq!(operator(&store, &["pause", &id]), (0, String::new()));
        media.send(50);
        let offer = src.asked(by, LIMIT).expect("the SRC is told");
        assert!(offer.contains("a=inactive") && !offer.contains("a=recvonly"), "{offer}");
        src.answer_sdp(&offer, &sdp("inactive", 2));
        // Its own offer does not undo it, nor does the death of control.
        let answer = src.ask("INVITE", "application/sdp", &sdp("sendonly", 3));
        assert!(answer.contains("a=inactive"), "{answer}");
        src.send("ACK", "", "");
        kill_control(&server);
        until("its successor", LIMIT, || {
            server
                .told("started again")
                .then(|| operator(&store, &["pause", &id]))
                .filter(|o| o.0 == 0)
        });
        media.send(50);
        let answer = src.ask("INVITE", "application/sdp", &sdp("sendonly", 4));
        assert!(answer.contains("a=inactive"), "{answer}");
        src.send("ACK", "", "");

        // A resume is the SRC's to grant.
        for (granted, code) in [(false, 4), (true, 0)] {
            let (store, id) = (store.clone(), id.clone());
            let asking = std::thread::spawn(move || operator(&store, &["resume", &id]));
            let offer = src.next(LIMIT, |text| {
                text.starts_with(&format!("{by} ")) && text.contains("a=recvonly")
            });
            let offer = offer.expect("the SRC is asked");
            let direction = if granted { "sendonly" } else { "inactive" };
            src.answer_sdp(&offer, &sdp(direction, 5));
            let (found, said) = asking.join().expect("no panic");
            assert_eq!(found, code, "{said}: {:#?}", server.lines());
            if !granted {
                media.send(50);
            }
        }
        media.send(50);
        until("the last packets", LIMIT, || (source()["packets"] == 100).then_some(()));
        assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
        let over = until("the end", LIMIT, || {
            let ended = |found: &Value| {
                found["state"] == "ended" && found["durable_through"] == found["end"]
            };
            Some(recording(&store)).filter(ended)
        });
        let stream = &over["streams"][0];
        assert_eq!(stream["sources"][0]["packets"], 100, "{over}");
        let pauses = stream["pauses"].as_array().expect("a list");
        assert!(!pauses.is_empty(), "{over}");
        assert!(pauses.iter().all(|pause| pause["to"].is_string()), "{over}");
        let uid = rustix::process::getuid().as_raw();
        let by_us = |one: &&Value| one["cause"] == format!("operator, uid {uid}");
        let controls = stream["controls"].as_array().expect("a list");
        let actions: Vec<&Value> =
            controls.iter().filter(by_us).map(|one| &one["action"]).collect();
        assert!(actions.contains(&&Value::from("pause")), "{over}");
        assert!(actions.contains(&&Value::from("resume")), "{over}");
        assert!(stream["sources"][0]["unexplained"] == 0, "{over}");
    }
}

/// F60: AudioCodes SBCs are told by INFO to pause; one that passes it on means its recording. A refresh
/// with the old offer does not undo it.
#[test]
fn f60_an_info_of_the_src_pauses_and_resumes() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let server = Server::start(command(&folder, port), &folder).ready();
    let mut src = Src::new(port, "Allow: INVITE, UPDATE, INFO, BYE\r\n");
    let (_, rtp) = src.invite();
    let mut media = Media::new(rtp);
    media.send(30);
    let count = || recording(&store)["streams"][0]["sources"][0]["packets"].clone();
    until("the first packets", LIMIT, || (count() == 30).then_some(()));
    src.fields = "X-AC-Action: Pause-SIPREC;recording-ip-group=SRS\r\n";
    assert!(src.ask("INFO", "", "").starts_with("SIP/2.0 200"));
    media.send(30);
    let offer = src.asked("UPDATE", LIMIT).expect("what was asked for is agreed by SDP, too");
    assert!(offer.contains("a=inactive"), "{offer}");
    src.answer_sdp(&offer, &sdp("inactive", 2));
    src.fields = "";
    let answer = src.ask("INVITE", "application/sdp", &sdp("sendonly", 3));
    assert!(answer.contains("a=inactive"), "{answer}");
    src.send("ACK", "", "");
    kill_control(&server);
    until("its successor", LIMIT, || server.told("started again").then_some(()));
    media.send(30);
    src.fields = "X-AC-Action: resume-siprec\r\n";
    assert!(src.ask("INFO", "", "").starts_with("SIP/2.0 200"));
    let offer = src
        .next(LIMIT, |text| text.starts_with("UPDATE ") && text.contains("a=recvonly"))
        .expect("it is asked what it sends");
    src.answer_sdp(&offer, &sdp("sendonly", 4));
    until("it goes on", LIMIT, || {
        (recording(&store)["streams"][0]["state"] == "active").then_some(())
    });
    media.send(20);
    until("the last packets", LIMIT, || (count() == 50).then_some(()));
    // What an operator has confirmed the SRC does not lift.
    let id = recording(&store)["id"].as_str().expect("an id").to_owned();
    src.fields = "X-AC-Action: pause-siprec\r\n";
    assert!(src.ask("INFO", "", "").starts_with("SIP/2.0 200"));
    let inactive = |text: &str| text.starts_with("UPDATE ") && text.contains("a=inactive");
    let offer = src.next(LIMIT, inactive).expect("it is agreed");
    src.answer_sdp(&offer, &sdp("inactive", 5));
    until("the operator's pause", LIMIT, || {
        (operator(&store, &["pause", &id]).0 == 0).then_some(())
    });
    let offer = src.next(LIMIT, |text| inactive(text) && text != offer).expect("it is told");
    src.answer_sdp(&offer, &sdp("inactive", 6));
    src.fields = "X-AC-Action: resume-siprec\r\n";
    assert!(src.ask("INFO", "", "").starts_with("SIP/2.0 200"));
    media.send(30);
    let resuming = std::thread::spawn({
        let (store, id) = (store.clone(), id.clone());
        move || {
            until("room for a resume", LIMIT, || {
                let (code, said) = operator(&store, &["resume", &id]);
                (code != 75).then_some((code, said))
            })
        }
    });
    let recvonly = |text: &str| text.starts_with("UPDATE ") && text.contains("a=recvonly");
    let offer = src.next(LIMIT, recvonly).expect("the operator's resume");
    src.answer_sdp(&offer, &sdp("sendonly", 7));
    assert_eq!(resuming.join().expect("no panic").0, 0);
    media.send(10);
    until("the packets behind it", LIMIT, || (count() == 60).then_some(()));
    // Something else of an SBC is none of our business.
    src.fields = "X-AC-Action: disconnect\r\n";
    assert!(src.ask("INFO", "", "").starts_with("SIP/2.0 200"));
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    let over = until("the end", LIMIT, || {
        let ended =
            |found: &Value| found["state"] == "ended" && found["durable_through"] == found["end"];
        Some(recording(&store)).filter(ended)
    });
    let controls = over["streams"][0]["controls"].as_array().expect("a list");
    let told: Vec<String> = controls
        .iter()
        .map(|one| format!("{} {} {}", one["action"], one["by"], one["cause"]).replace('"', ""))
        .collect();
    let expected = ["start src INVITE 1", "pause src INFO 2", "resume src INFO 4"];
    assert_eq!(told[..3], expected, "{over}");
    assert!(told[3].starts_with("pause src INFO "), "{over}");
    assert!(told[4].starts_with("resume srs operator, uid "), "{over}");
    assert_eq!(told[5..], ["stop src BYE from the SRC"], "{over}");
}

/// REQ-015: the SRS ends a recording; and what can be said of one that is not there.
#[test]
fn req015_an_operator_stops_a_recording_with_a_reason() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let mut server = Server::start(command(&folder, port), &folder).ready();
    let mut src = Src::new(port, "Allow: INVITE, UPDATE, BYE\r\n");
    let (_, rtp) = src.invite();
    Media::new(rtp).send(20);
    until("the first packets", LIMIT, || {
        (recording(&store)["streams"][0]["sources"][0]["packets"] == 20).then_some(())
    });
    let id = recording(&store)["id"].as_str().expect("an id").to_owned();
    assert_eq!(operator(&store, &["stop", &id, "--reason", "legal hold is over"]).0, 0);
    let bye = src.asked("BYE", LIMIT).expect("a BYE");
    assert!(value(&bye, "Reason").contains("legal hold is over"), "{bye}");
    src.answer(&bye, "");
    let over = until("the end", LIMIT, || {
        Some(recording(&store)).filter(|found| found["state"] == "ended")
    });
    assert_eq!(over["streams"][0]["sources"][0]["packets"], 20, "{over}");
    let (code, said) = operator(&store, &["pause", &id]);
    assert_eq!(code, 3, "{said}");
    assert_eq!(operator(&store, &["stop", &id, "--reason", "a\"b"]).0, 2);
    assert_eq!(operator(&store, &["stop", "00000000000000000000000000000000"]).0, 3);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert_eq!(operator(&store, &["stop", &id]).0, 69);
}

/// An offer of lines 1 and 2.
fn two_lines(version: u32) -> String {
    let line = |label| format!("m=audio 5004 RTP/AVP 0\r\na=label:{label}\r\na=sendonly\r\n");
    format!(
        "v=0\r\no=SRC 7 {version} IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n{}{}",
        line(1),
        line(2)
    )
}

/// REQ-015: the SRS ends one line of a recording by port 0. Nothing of it is stored from then on, whatever
/// its SRC sends or offers, over the death of control; the other line loses nothing.
#[test]
fn req015_an_operator_ends_one_line_by_port_0_and_it_stays_ended() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let server = Server::start(command(&folder, port), &folder).ready();
    let mut src = Src::new(port, "Allow: INVITE, UPDATE, BYE\r\n");
    let answer = src.invite_with("application/sdp", &two_lines(1));
    let to = ports(&answer);
    let (mut kept, mut ended) = (Media::new(to[0]), Media::new(to[1]));
    kept.send(20);
    ended.send(20);
    let counts = |found: &Value| -> Vec<Value> {
        let streams = found["streams"].as_array().expect("a list");
        streams.iter().map(|stream| stream["sources"][0]["packets"].clone()).collect()
    };
    until("the first packets", LIMIT, || (counts(&recording(&store)) == [20, 20]).then_some(()));
    let id = recording(&store)["id"].as_str().expect("an id").to_owned();
    let (code, said) = operator(&store, &["stop", &id, "--line", "3"]);
    assert!(code == 4 && said.contains("its lines are 1, 2"), "{code}: {said}");

    let why = ["stop", &id, "--line", "2", "--reason", "a private word"];
    assert_eq!(operator(&store, &why), (0, String::new()));
    ended.send(20);
    let offer = src.asked("UPDATE", LIMIT).expect("the SRC is told");
    assert_eq!(ports(&offer), [to[0], 0], "{offer}");
    src.answer_sdp(&offer, &two_lines(1).replacen("5004", "5006", 1));
    // Twice is once; and control's death forgets nothing of it.
    assert_eq!(operator(&store, &why), (0, String::new()));
    kill_control(&server);
    until("its successor", LIMIT, || {
        server.told("started again").then(|| operator(&store, &why)).filter(|o| o.0 == 0)
    });
    let answer = src.ask("INVITE", "application/sdp", &two_lines(2));
    assert_eq!(ports(&answer), [to[0], 0], "{answer}");
    src.send("ACK", "", "");
    kept.send(20);
    ended.send(20);
    until("the last packets", LIMIT, || (counts(&recording(&store))[0] == 40).then_some(()));
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    let over = until("the end", LIMIT, || {
        let ended =
            |found: &Value| found["state"] == "ended" && found["durable_through"] == found["end"];
        Some(recording(&store)).filter(ended)
    });
    assert_eq!(counts(&over), [40, 20], "{over}");
    assert!(over["streams"].as_array().is_some_and(|all| all.len() == 2), "{over}");
    let steps = |line: usize| -> Vec<String> {
        let told = |one: &Value| format!("{} {} {}", one["action"], one["by"], one["cause"]);
        let all = over["streams"][line]["controls"].as_array().expect("a list");
        all.iter().map(|one| told(one).replace('"', "")).collect()
    };
    let uid = rustix::process::getuid().as_raw();
    assert_eq!(
        steps(1),
        ["start src INVITE 1", &format!("stop srs operator, uid {uid}")],
        "{over}"
    );
    assert_eq!(steps(0), ["start src INVITE 1", "stop src BYE from the SRC"], "{over}");
    let told = over["quirks"].to_string();
    assert!(told.contains("a private word") && told.contains("offered again"), "{told}");
}

/// REQ-001: an RS that the SRS starts, by an INVITE without offer to an SRC of the configuration.
#[test]
fn req001_an_operator_starts_a_recording_by_calling_its_src() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let mut src = Src::new(port, "Allow: INVITE, UPDATE, BYE\r\n");
    let uri = format!("sip:turret@{}", src.socket.local_addr().expect("bound"));
    let mut command = command(&folder, port);
    command.arg("--set");
    command.arg(format!("peers=[{{name=\"turret\",match=\"127.0.0.1\",call=\"{uri}\"}}]"));
    let server = Server::start(command, &folder).ready();
    let refused = operator(&store, &["start", "sip:somebody@127.0.0.1:9"]);
    assert_eq!(refused.0, 4, "{}", refused.1);

    let asking = std::thread::spawn({
        let (store, uri) = (store.clone(), uri.clone());
        move || operator(&store, &["start", &uri])
    });
    let invite = src.asked("INVITE", LIMIT).expect("it calls");
    assert!(invite.contains("Require: siprec") && invite.ends_with("\r\n\r\n"), "{invite}");
    src.answer_sdp(&invite, &sdp("sendonly", 1));
    let ack = src.asked("ACK", LIMIT).expect("the answer");
    assert!(ack.contains("a=recvonly"), "{ack}");
    assert_eq!(asking.join().expect("no panic").0, 0, "{:#?}", server.lines());
    let mut media = Media::new(words::ports(&ack)[0]);
    media.send(30);
    let count = || recording(&store)["streams"][0]["sources"][0]["packets"].clone();
    until("the packets", LIMIT, || (count() == 30).then_some(()));
    // The dialog outlives control, and the SRC ends it.
    kill_control(&server);
    until("its successor", LIMIT, || server.told("started again").then_some(()));
    media.send(20);
    src.call_id = value(&invite, "Call-ID").to_owned();
    let from = value(&invite, "From");
    src.to_tag = from[from.find(";tag=").expect("a tag")..].to_owned();
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    let over = until("the end", LIMIT, || {
        Some(recording(&store)).filter(|found| found["state"] == "ended")
    });
    until("the last packets", LIMIT, || (count() == 50).then_some(()));
    assert_eq!(over["src"]["identity"], uri, "{over}");
}

/// An offer of one line with the key that is made of `fill`.
fn secure(version: u32, fill: u8) -> String {
    let key = STANDARD.encode([fill; 30]);
    let crypto = format!("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:{key}\r\na=label:1\r\n");
    let offer = sdp("sendonly", version).replace("RTP/AVP", "RTP/SAVP");
    offer.replace("a=label:1\r\n", &crypto)
}

/// F34: an SRC that encrypts with another key than it has offered is asked for an offer after five seconds,
/// answers with the key that it uses, and is recorded from then on.
#[test]
fn f34_an_src_with_another_key_than_it_offered_is_asked_and_recorded() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let server = Server::start(command(&folder, port), &folder).ready();
    let mut src = Src::new(port, "Allow: INVITE, ACK, BYE, CANCEL\r\n");
    let to = ports(&src.invite_with("application/sdp", &secure(1, 1)))[0];
    let master = MasterKey::new(&[2; 30]).expect("the suite's length");
    let context = Context::new(Suite::AesCm128HmacSha1_80, &master).expect("fits");
    let media = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let mut number = 0_u16;
    let mut say = || {
        let timestamp = u32::from(number) * 160;
        let fields =
            Fields { marker: false, payload_type: 0, seq: Seq(number), timestamp, ssrc: Ssrc(17) };
        let mut clear = fields.emit().to_vec();
        clear.extend_from_slice(&[0xff; 160]);
        let mut wire = [0; 256];
        let index = Index(number.into());
        let length = context.protect_rtp(&clear, index, &mut wire).expect("room");
        media.send_to(&wire[..length], ("127.0.0.1", to)).expect("loopback");
        number += 1;
    };
    let began = Instant::now();
    let invite = until("a question", Duration::from_secs(15), || {
        say();
        src.asked("INVITE", Duration::from_millis(20))
    });
    assert!(began.elapsed() >= Duration::from_secs(4), "{:?}", began.elapsed());
    assert!(invite.ends_with("\r\n\r\n"), "the SRC makes the offer: {invite}");
    assert!(server.told("nothing verifies") && server.told("is asked for fresh keys of 1"));
    assert!(recording(&store)["streams"][0]["sources"].as_array().is_some_and(Vec::is_empty));
    src.answer_sdp(&invite, &secure(2, 2));
    let ack = src.asked("ACK", LIMIT).expect("our answer");
    assert!(ack.contains(&format!("m=audio {to} ")) && ack.contains("a=crypto:1 "), "{ack}");
    let packets = || recording(&store)["streams"][0]["sources"][0]["packets"].as_u64();
    until("media", LIMIT, || {
        say();
        std::thread::sleep(Duration::from_millis(20));
        packets().filter(|packets| *packets >= 25)
    });
    let again = |text: &str| text.starts_with("INVITE ") && cseq(text) > cseq(&invite);
    assert_eq!(src.next(Duration::from_secs(1), again), None, "once");
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
    until("the end", LIMIT, || (recording(&store)["state"] == "ended").then_some(()));
}

/// F40: a line that is silent between calls is idle; from when its metadata shows a call on which somebody
/// speaks its silence is an alarm within seconds, and nothing is ended for it.
#[test]
fn f40_silence_in_a_call_is_an_alarm_and_between_calls_it_is_none() {
    let (folder, port) = (fresh_folder(), free_port());
    let store = folder.join("store");
    let server = Server::start(command(&folder, port), &folder).ready();
    let mut src = Src::new(port, "");
    let (_, to) = src.invite();
    let mut media = Media::new(to);
    media.send(20);
    std::thread::sleep(Duration::from_secs(7));
    assert!(!server.told("no media comes"));
    let call = "<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">\
        <session session_id=\"c\"/><participant participant_id=\"ann\"/>\
        <stream stream_id=\"s\" session_id=\"c\"><label>1</label></stream>\
        <participantstreamassoc participant_id=\"ann\"><send>s</send></participantstreamassoc>\
        </recording>";
    src.ask("UPDATE", "application/rs-metadata+xml", call);
    let began = Instant::now();
    let alarm = "no media comes, and by its metadata somebody speaks";
    until("an alarm", LIMIT, || server.told(alarm).then_some(()));
    assert!(began.elapsed() >= Duration::from_millis(3_900), "{:?}", began.elapsed());
    until("media again", LIMIT, || {
        media.send(1);
        server.told("media comes again").then_some(())
    });
    assert_eq!(recording(&store)["state"], "live");
    assert!(src.ask("BYE", "", "").starts_with("SIP/2.0 200"));
}
