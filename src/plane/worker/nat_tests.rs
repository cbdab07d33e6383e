//! Claims about an SRC behind address translation: who is taken for it, and where reports go, whatever
//! dies meanwhile.

use super::kill_tests::{finish, protected};
use super::model::{GEOMETRY, Machine, REMOTE, RTP_PORTS, TestWorker, master, rtp, stream};
use crate::base::counter::Counter;
use crate::base::ids::SourceId;
use crate::base::ports::Region;
use crate::base::suite::Suite;
use crate::plane::handoff::frame::{Frame, OpenStream};
use crate::plane::handoff::layout::AT_COUNTERS;
use crate::plane::handoff::slot::SlotView;
use crate::proto::srtp::Context;
use crate::store::event::Origin;
use crate::store::record::RecordKind;

const SUITE: Suite = Suite::AeadAes128Gcm;
/// What the translator makes of the SRC, and then again, and somebody else.
const OUTSIDE: &str = "203.0.113.5:1024";
const REBOUND: &str = "203.0.113.5:2048";
const STRANGER: &str = "203.0.113.66:1024";
/// An empty receiver report.
const REPORT: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 7];

fn counted(machine: &Machine, counter: Counter) -> u64 {
    machine.state.load(AT_COUNTERS + counter as usize * 8)
}

fn slot(machine: &Machine, number: u32) -> SlotView<'_, impl Region> {
    SlotView::new(&machine.state, &GEOMETRY, number)
}

fn opened(stream: Box<OpenStream>) -> (Machine, TestWorker) {
    let mut machine = Machine::new(0);
    let mut worker = machine.start();
    let id = machine.command(Frame::Open(stream));
    worker.turn().expect("model");
    assert!(matches!(machine.answer(id), Frame::Opened { .. }));
    (machine, worker)
}

fn behind() -> Box<OpenStream> {
    let mut stream = stream(1, 1, None);
    (stream.nat, stream.rtcp_mux) = (true, true);
    stream.rtcp_to = Some(REMOTE.parse().expect("an address"));
    stream
}

/// Source and index of each RTP packet that was recorded.
fn recorded(machine: &Machine) -> Vec<(SourceId, u64)> {
    let records = machine.records(0).into_iter();
    let rtp = records.filter(|record| record.meta.kind == RecordKind::Rtp);
    rtp.map(|record| (record.meta.source, record.meta.index.0)).collect()
}

#[test]
fn uc7_the_first_sender_of_an_offered_type_is_the_only_one() {
    let (machine, mut worker) = opened(behind());
    let to = RTP_PORTS[1];
    let mut other_type = rtp(7, 1);
    other_type[1] = 96;
    machine.send(STRANGER, to, other_type);
    machine.send(STRANGER, to, REPORT.to_vec());
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::Stranger), 2, "neither is a sender");
    machine.send(OUTSIDE, to, rtp(7, 1));
    machine.send(STRANGER, to, rtp(7, 2));
    machine.send(STRANGER, to, REPORT.to_vec());
    // Its binding is another one now; another SSRC on another port is not known to be it.
    machine.send(REBOUND, to, rtp(7, 2));
    machine.send("203.0.113.5:9", to, rtp(8, 3));
    machine.send(REBOUND, to, rtp(9, 50));
    machine.send(OUTSIDE, to, REPORT.to_vec());
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::Stranger), 5);
    assert_eq!(counted(&machine, Counter::RtcpRecorded), 1);
    let kept: Vec<(u16, u64)> =
        recorded(&machine).iter().map(|(source, index)| (source.ordinal(), *index)).collect();
    assert_eq!(kept, [(1, 1), (1, 2), (2, 50)]);
    assert_eq!(slot(&machine, 1).heard(), OUTSIDE.parse().ok(), "as its last packet came");
    // The signalled address has no more right than anybody.
    machine.send(REMOTE, to, rtp(7, 3));
    worker.turn().expect("model");
    assert_eq!(counted(&machine, Counter::Stranger), 6);
    // Silent for as long as a source that loses its place: whoever sends next.
    machine.pass_ns(6_000_000_000);
    machine.send("198.51.100.9:3000", to, rtp(7, 3));
    machine.send(REBOUND, to, rtp(7, 4));
    worker.turn().expect("model");
    assert_eq!(recorded(&machine).last().map(|(_, index)| *index), Some(3));
    assert_eq!(counted(&machine, Counter::Stranger), 7);
    assert_eq!(slot(&machine, 1).latched(), "198.51.100.9:3000".parse().ok());
}

#[test]
fn uc7_an_offer_that_says_another_address_lets_another_sender_be_the_first() {
    let (mut machine, mut worker) = opened(behind());
    machine.send(OUTSIDE, RTP_PORTS[1], rtp(7, 1));
    worker.turn().expect("model");
    let mut moved = behind();
    moved.description.remote = "10.0.0.9:5004".parse().ok();
    moved.rtcp_to = moved.description.remote;
    machine.command(Frame::Update { stream: moved, by: Origin::Src });
    worker.turn().expect("model");
    assert_eq!((slot(&machine, 1).latched(), slot(&machine, 1).heard()), (None, None));
    machine.send(STRANGER, RTP_PORTS[1], rtp(7, 2));
    worker.turn().expect("model");
    assert_eq!(recorded(&machine).len(), 2);
}

/// Reports follow what authenticates, and nothing else; where RTCP has a port of its own, what comes
/// there.
#[test]
fn uc7_reports_go_to_where_authenticated_media_comes_from() {
    let context = Context::new(SUITE, &master(SUITE, 1)).expect("key of the suite");
    let mut secure = stream(0, 1, Some((SUITE, 1)));
    secure.rtcp_to = Some(REMOTE.parse().expect("an address"));
    secure.rtcp_mux = true;
    let (mut machine, mut worker) = opened(secure);
    let mut forged = protected(&context, 7, 2);
    forged[15] ^= 1;
    machine.send(OUTSIDE, RTP_PORTS[0], protected(&context, 7, 1));
    machine.send(STRANGER, RTP_PORTS[0], forged);
    machine.send(STRANGER, RTP_PORTS[0], protected(&context, 7, 1));
    worker.turn().expect("model");
    assert_eq!(slot(&machine, 0).heard(), OUTSIDE.parse().ok());
    machine.send(REBOUND, RTP_PORTS[0], protected(&context, 7, 2));
    worker.turn().expect("model");
    assert_eq!(slot(&machine, 0).heard(), REBOUND.parse().ok());
    drop(worker);
    let mut worker = machine.start();
    assert_eq!(slot(&machine, 0).heard(), REBOUND.parse().ok(), "whoever comes next knows it");
    let report = |number: u32| {
        let mut wire = vec![0; 64];
        let length = context.protect_rtcp(&REPORT, number, &mut wire).expect("room");
        wire.truncate(length);
        wire
    };
    let mut apart = stream(0, 1, Some((SUITE, 1)));
    apart.rtcp_to = "10.0.0.1:5005".parse().ok();
    machine.command(Frame::Update { stream: apart, by: Origin::Src });
    worker.turn().expect("model");
    machine.send(REBOUND, RTP_PORTS[0], protected(&context, 7, 3));
    worker.turn().expect("model");
    assert_eq!(slot(&machine, 0).heard(), None, "media says nothing of the other port");
    machine.send("203.0.113.5:3000", RTP_PORTS[0] + 1, report(1));
    worker.turn().expect("model");
    assert_eq!(slot(&machine, 0).heard(), "203.0.113.5:3000".parse().ok());
    // Another use of the slot knows nothing of it.
    let mut next = stream(0, 2, Some((SUITE, 1)));
    next.rtcp_to = Some(REMOTE.parse().expect("an address"));
    machine.command(Frame::Open(next));
    worker.turn().expect("model");
    assert_eq!(slot(&machine, 0).heard(), None);
}

#[test]
fn uc7_plain_media_without_a_rule_moves_no_report() {
    let mut plain = stream(1, 1, None);
    (plain.rtcp_to, plain.rtcp_mux) = (Some(REMOTE.parse().expect("an address")), true);
    let (machine, mut worker) = opened(plain);
    machine.send(STRANGER, RTP_PORTS[1], rtp(7, 1));
    worker.turn().expect("model");
    assert_eq!((recorded(&machine).len(), slot(&machine, 1).heard()), (1, None));
}

#[test]
fn uc7_death_after_any_store_takes_the_sender_once_and_nobody_else() {
    let (machine, worker) = opened(behind());
    drop(worker);
    let to = RTP_PORTS[1];
    for (from, seq) in [(OUTSIDE, 1), (STRANGER, 2), (REBOUND, 2), (STRANGER, 3), (OUTSIDE, 3)] {
        let mut packet = rtp(7, seq);
        if from == STRANGER {
            packet.extend_from_slice(&[0xee; 4]);
        }
        machine.send(from, to, packet);
    }
    let mut deaths = 0;
    for stores in 0.. {
        let fork = machine.fork();
        fork.life.set(stores);
        let lived = fork.try_start().turn().is_ok() && fork.life.get() > 0;
        finish(&fork);
        let kept = recorded(&fork);
        let indexes: Vec<u64> = kept.iter().map(|(_, index)| *index).collect();
        assert_eq!(indexes, [1, 2, 3], "after {stores} stores");
        assert!(kept.iter().all(|(source, _)| source.ordinal() == 1), "after {stores} stores");
        let strange = |payload: &[u8]| payload.ends_with(&[0xee; 4]);
        let mut records = fork.records(0).into_iter();
        assert!(!records.any(|record| strange(&record.payload)), "after {stores} stores");
        assert_eq!(slot(&fork, 1).latched(), OUTSIDE.parse().ok(), "after {stores} stores");
        if lived {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 50, "{deaths}");
}
