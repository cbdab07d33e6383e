//! Snapshot requests between a scripted SRC and a scripted journal (RFC 7866 §9.2).

use super::Input;
use super::tests::{Bench, invite, request};
use super::tests_timers::{answers, header, with};
use crate::store::journal::Standings;
use crate::wire::metadata::{Root, parse};

/// An RS whose SRC takes UPDATE.
fn started(allow: &str) -> Bench {
    let mut bench = Bench::up(4);
    bench.datagram(&with(&invite("call-1", 1, "", "sendonly", 1), allow));
    bench.media_agrees();
    bench.journal_syncs();
    let tag = bench.tag();
    bench.datagram(&request("ACK", "call-1", 1, &tag, ""));
    bench
}

fn tell(bench: &mut Bench, cseq: u32, inner: &str) {
    let tag = bench.tag();
    let xml =
        format!("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">{inner}</recording>");
    let text = request("UPDATE", "call-1", cseq, &tag, &xml);
    bench.datagram(&text.replace("application/sdp", "application/rs-metadata+xml"));
    bench.journal_syncs();
}

fn asked(bench: &Bench) -> usize {
    bench.sent.iter().filter(|message| message.method() == Some("UPDATE")).count()
}

const UPDATE: &str = "Allow: INVITE, UPDATE\r\n";
const PARTIAL: &str = "<datamode>partial</datamode>";

#[test]
fn a_partial_document_without_its_base_asks_for_a_snapshot_as_rfc_7866_says() {
    let mut bench = started(UPDATE);
    tell(&mut bench, 2, PARTIAL);
    // Not while its own UPDATE is being answered.
    bench.tick(2_010);
    let update = bench.last().clone();
    assert_eq!((update.method(), asked(&bench)), (Some("UPDATE"), 1));
    assert_eq!(header(&update, "Content-Type"), "application/rs-metadata+xml");
    assert_eq!(header(&update, "Content-Disposition"), "recording-session");
    assert!(header(&update, "Contact").ends_with(";+sip.srs"));
    assert!(matches!(parse(&update.body, None), Ok(Root::SnapshotRequest { reason: Some(_) })));
    answers(&mut bench, 200, "");
    // The SRC's own UPDATE crosses: both get their 200, and the partial builds on what there is.
    tell(&mut bench, 3, PARTIAL);
    tell(&mut bench, 4, "");
    assert_eq!(bench.codes().iter().filter(|code| **code == 200).count(), 4);
    bench.tick(600_000);
    assert_eq!(asked(&bench), 1, "the snapshot has come");
}

#[test]
fn an_src_that_sends_no_snapshot_is_asked_three_times() {
    let mut bench = started(UPDATE);
    tell(&mut bench, 2, PARTIAL);
    bench.tick(2_010);
    for number in 1..=3 {
        assert_eq!(asked(&bench), number);
        answers(&mut bench, 200, "");
        bench.tick(9_999);
        assert_eq!(asked(&bench), number);
        bench.tick(1);
    }
    bench.tick(600_000);
    assert_eq!(asked(&bench), 3);
    assert!(bench.log.iter().any(|line| line.contains("sends no snapshot")), "{:?}", bench.log);
}

#[test]
fn an_src_that_refuses_or_takes_no_update_is_left_alone_and_recorded() {
    let mut bench = started(UPDATE);
    tell(&mut bench, 2, PARTIAL);
    // Not while its own UPDATE is being answered.
    bench.tick(2_010);
    answers(&mut bench, 415, "");
    bench.tick(600_000);
    assert_eq!(asked(&bench), 1);
    let mut bench = started("Allow: INVITE\r\n");
    tell(&mut bench, 2, PARTIAL);
    bench.tick(600_000);
    assert_eq!(asked(&bench), 0);
    assert!(bench.log.iter().any(|line| line.contains("takes no UPDATE")), "{:?}", bench.log);
    assert_eq!(bench.control.live(), 1);
}

#[test]
fn after_a_restart_each_src_that_takes_update_is_asked() {
    let before = started(UPDATE);
    let mut after = Bench::new(4, 2);
    after.now = before.now;
    after.control.recover(after.clock(), &Standings::of(&before.journal));
    after.input(Input::MediaUp);
    after.media_holds(&before.held());
    after.media_agrees();
    after.tick(1_000);
    assert_eq!(asked(&after), 1);
    let xml = String::from_utf8_lossy(&after.last().body).into_owned();
    assert!(xml.contains("restarted"), "{xml}");
    // The 2xx whose ACK may have been missed is repeated meanwhile; its dialog is the same.
    assert_eq!(after.last().call_id(), Some("call-1"));
}
