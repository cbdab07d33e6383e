//! Intra pictures, by INFO.

use super::tests::{Bench, invite, request};
use crate::wire::sip::Message;

/// An RS of one video line whose 200 has its ACK.
fn started() -> Bench {
    let mut bench = Bench::up(4);
    bench.datagram(&video("call-1", 1, "", "sendonly", 1));
    bench.media_agrees();
    bench.journal_syncs();
    assert_eq!(infos(&bench).len(), 0, "not before the ACK");
    let tag = bench.tag();
    bench.datagram(&request("ACK", "call-1", 1, &tag, ""));
    bench
}

fn video(call: &str, cseq: u32, tag: &str, direction: &str, version: u32) -> String {
    invite(call, cseq, tag, direction, version).replace("m=audio 4000", "m=video 4000")
}

fn infos(bench: &Bench) -> Vec<Message> {
    bench.sent.iter().filter(|one| one.method() == Some("INFO")).cloned().collect()
}

fn answers(bench: &mut Bench, info: &Message, code: u16) {
    let mut text = format!("SIP/2.0 {code} Answer\r\n");
    for name in ["Via", "From", "To", "Call-ID", "CSeq"] {
        text.push_str(&format!("{name}: {}\r\n", info.headers.get(name).expect("it has it")));
    }
    bench.datagram(&(text + "Content-Length: 0\r\n\r\n"));
}

/// The SRC pauses, and goes on.
fn rests_and_goes_on(bench: &mut Bench, cseq: u32) {
    let tag = bench.tag();
    for (cseq, direction) in [(cseq, "inactive"), (cseq + 1, "sendonly")] {
        bench.datagram(&video("call-1", cseq, &tag, direction, cseq));
        while !(bench.media.is_empty() && bench.jobs.is_empty()) {
            bench.media_agrees();
            bench.journal_syncs();
        }
        bench.datagram(&request("ACK", "call-1", cseq, &tag, ""));
    }
}

#[test]
fn an_src_is_asked_once_each_time_and_not_again_where_it_does_not_know_what_is_meant() {
    let mut bench = started();
    let info = infos(&bench).remove(0);
    assert!(String::from_utf8_lossy(&info.body).contains("<picture_fast_update/>"));
    answers(&mut bench, &info, 200);
    rests_and_goes_on(&mut bench, 2);
    let info = infos(&bench).remove(1);
    answers(&mut bench, &info, 415);
    rests_and_goes_on(&mut bench, 4);
    assert_eq!(infos(&bench).len(), 2);
    assert_eq!(bench.control.sessions.len(), 1);
}

#[test]
fn an_src_that_says_nothing_to_it_is_recorded_on() {
    let mut bench = started();
    assert_eq!(infos(&bench).len(), 1);
    for _ in 0..80 {
        bench.tick(500);
    }
    let session = bench.control.sessions.values().next().expect("it goes on");
    assert!(session.dialog.is_some() && session.streams[0].active);
    assert!(!bench.sent.iter().any(|one| one.method() == Some("BYE")));
}
