//! Thread mode: media and control as threads of one process, handed over by the same frames as
//! processes are. A whole call goes through it: INVITE, RTP, BYE, log, segment, ledger.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::base::ids::{Generation, RsId, Slot, StreamId};
use crate::config::model::Config;
use crate::host::disk::HostDisk;
use crate::host::seqpacket;
use crate::plane::handoff::frame::{Frame, OpenStream};
use crate::plane::keeper::Role;
use crate::shell::exit::{Exit, Failure};
use crate::shell::serve::holdings::Holdings;
use crate::shell::serve::link::{self, Link};
use crate::shell::serve::{control, media};
use crate::store::catalog::Library;
use crate::store::catalog::model::{State, Verdict};
use crate::store::event::StreamDescription;
use crate::wire::sdp::Description;
use crate::wire::sip::{Message, parse_datagram};

type Thread = JoinHandle<Result<Exit, Failure>>;

/// Starts a role as a thread and waits until it says `Ready`.
fn play(
    holdings: &mut Holdings,
    role: Role,
    start: u64,
    config: &Config,
    peer: OwnedFd,
) -> (Thread, Link) {
    let (ours, theirs) = seqpacket::pair().expect("socketpair");
    let thread = std::thread::spawn(move || {
        let start = link::start_on(Link::new(theirs))?;
        match role {
            Role::Media => media::run(start),
            Role::Control => control::run(start),
        }
    });
    let mut link = Link::new(ours);
    holdings.hand_over(&link, role, start, config, Some(peer)).expect("handed over");
    while !matches!(link.recv().expect("the role lives").frame, Frame::Ready) {}
    (thread, link)
}

fn free_port() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("some port is free");
    socket.local_addr().expect("bound")
}

fn config(name: &str) -> Config {
    let dir = std::env::temp_dir().join(format!("floortape-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    let mut config = Config::default();
    config.store.dir = dir;
    config.sip.udp = vec![free_port()];
    config.sip.tcp = Vec::new();
    config.media.streams_max = 2;
    config.media.ports = "46000-46999".to_owned().try_into().expect("a range");
    config
}

/// A request of the scripted SRC.
fn request(method: &str, cseq: u32, own: SocketAddr, tag: &str, body: &str) -> String {
    let content = if body.is_empty() { "" } else { "Content-Type: application/sdp\r\n" };
    let to = if tag.is_empty() { String::new() } else { format!(";tag={tag}") };
    format!(
        "{method} sip:srs@127.0.0.1 SIP/2.0\r\n\
         Via: SIP/2.0/UDP {own};branch=z9hG4bK-{method}-{cseq}\r\n\
         From: <sip:src@127.0.0.1>;tag=1\r\nTo: <sip:srs@127.0.0.1>{to}\r\n\
         Call-ID: thread-mode\r\nCSeq: {cseq} {method}\r\nMax-Forwards: 70\r\n\
         Contact: <sip:src@{own}>;+sip.src\r\nRequire: siprec\r\n{content}\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn final_answer(socket: &UdpSocket) -> Message {
    let mut buffer = [0; 4_096];
    loop {
        let length = socket.recv(&mut buffer).expect("an answer within the time-out");
        let message = parse_datagram(&buffer[..length]).expect("whole");
        if message.code().is_some_and(|code| code >= 200) {
            return message;
        }
    }
}

#[test]
fn a_call_is_recorded_by_threads_that_exchange_the_same_frames() {
    let config = config("threads");
    let mut holdings = Holdings::take(&config, Vec::new()).expect("a fresh store");
    let (near, far) = seqpacket::pair().expect("socketpair");
    let (media, media_link) = play(&mut holdings, Role::Media, 1, &config, near.into_fd());
    let (control, control_link) = play(&mut holdings, Role::Control, 1, &config, far.into_fd());

    call(&config);
    end(control_link, control, "control");
    end(media_link, media, "media");
    judge(&config.store.dir, &config.journal_dir());
    std::fs::remove_dir_all(&config.store.dir).expect("ours");
}

fn tag(answer: &Message) -> String {
    answer.to().and_then(|to| to.tag().map(str::to_owned)).expect("a tag")
}

/// A whole call of fifty packets.
fn call(config: &Config) {
    let sip = UdpSocket::bind("127.0.0.1:0").expect("a port");
    sip.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    sip.connect(config.sip.udp[0]).expect("loopback");
    let own = sip.local_addr().expect("bound");
    let rtp = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=audio {} RTP/AVP 0\r\na=sendonly\r\na=label:1\r\n",
        rtp.local_addr().expect("bound").port()
    );
    // Until all that media holds is known and closed, the answer is 503.
    let deadline = Instant::now() + Duration::from_secs(5);
    let (cseq, answer) = (1..)
        .map(|cseq| {
            sip.send(request("INVITE", cseq, own, "", &sdp).as_bytes()).expect("sent");
            let answer = final_answer(&sip);
            sip.send(request("ACK", cseq, own, &tag(&answer), "").as_bytes()).expect("sent");
            (cseq, answer)
        })
        .find(|(_, answer)| answer.code() != Some(503) || Instant::now() > deadline)
        .expect("endless");
    assert_eq!(answer.code(), Some(200));
    let tag = tag(&answer);
    let port = Description::parse(&answer.body).expect("our SDP").media[0].port;
    for seq in 0..50_u16 {
        let mut packet = vec![0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
        packet[2..4].copy_from_slice(&seq.to_be_bytes());
        packet[4..8].copy_from_slice(&(u32::from(seq) * 160).to_be_bytes());
        packet.extend([0xff; 160]);
        rtp.send_to(&packet, ("127.0.0.1", port)).expect("sent");
    }
    sip.send(request("BYE", cseq + 1, own, &tag, "").as_bytes()).expect("sent");
    assert_eq!(final_answer(&sip).code(), Some(200));
}

/// A control that dies between media's `Opened` and the journal's sync leaves a stream that nobody
/// owns. The first control here is this test; the second one is the real one.
#[test]
fn f02_a_stream_that_died_with_its_control_takes_no_slot_from_the_next_call() {
    let config = config("unowned");
    let mut holdings = Holdings::take(&config, Vec::new()).expect("a fresh store");
    let (near, far) = seqpacket::pair().expect("socketpair");
    let (media, media_link) = play(&mut holdings, Role::Media, 1, &config, near.into_fd());
    let mut first = Link::new(far);
    for slot in [Slot(0), Slot(1)] {
        let open = Frame::Open(Box::new(unowned(slot)));
        first.send(u64::from(slot.0) + 1, open, &[]).expect("it listens");
    }
    for _ in 0..2 {
        while !matches!(first.recv().expect("an answer").frame, Frame::Opened { .. }) {}
    }
    drop(first);
    let (near, far) = seqpacket::pair().expect("socketpair");
    media_link.send(0, Frame::Link, &[near.as_fd()]).expect("it listens");
    let (control, control_link) = play(&mut holdings, Role::Control, 2, &config, far.into_fd());
    call(&config);
    end(control_link, control, "control");
    end(media_link, media, "media");
    judge(&config.store.dir, &config.journal_dir());
    std::fs::remove_dir_all(&config.store.dir).expect("ours");
}

fn unowned(slot: Slot) -> OpenStream {
    OpenStream {
        slot,
        generation: Generation(1),
        description: StreamDescription {
            stream: StreamId(900 + u64::from(slot.0)),
            rs: RsId([9; 16]),
            line: 0,
            label: None,
            media: "audio".to_owned(),
            formats: Vec::new(),
            suite: None,
            transport: "RTP/AVP".to_owned(),
            slot,
            port: 0,
            remote: None,
        },
        salt: [1; 32],
        active: true,
        rtcp_to: None,
        rtcp_mux: false,
        crypto: None,
        strict: false,
        cname: "unowned".to_owned(),
        nat: false,
    }
}

fn end(link: Link, thread: Thread, role: &str) {
    link.send(0, Frame::Stop, &[]).expect("it listens");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !thread.is_finished() {
        assert!(Instant::now() < deadline, "{role} does not end");
        std::thread::yield_now();
    }
    let exit = thread.join().expect("no panic");
    assert!(matches!(exit, Ok(Exit::Yes)), "{role} failed");
}

fn judge(store: &Path, journal: &Path) {
    let library = Library::open(HostDisk, store, journal, None).expect("readable");
    let recordings = library.recordings(|_| true).expect("readable");
    let [recording] = &recordings[..] else { panic!("expected one recording") };
    assert_eq!((recording.state, &*recording.call_id), (State::Ended, "thread-mode"));
    let stream = &recording.streams[0];
    assert_eq!((stream.verdict, &*stream.label), (Verdict::Continuous, "1"));
    assert_eq!((stream.sources[0].packets, stream.sources[0].unexplained), (50, 0));
}
