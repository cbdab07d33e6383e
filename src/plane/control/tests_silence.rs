//! On which lines media is told that somebody speaks (F40).

use super::Input;
use super::tests::{Bench, request};
use crate::base::ids::{Generation, Slot};
use crate::base::time::Mono;
use crate::plane::handoff::frame::{Envelope, Frame, Notice};

const CALL: &str = "<session session_id=\"c\"/><participant participant_id=\"ann\"/>\
    <stream stream_id=\"s\" session_id=\"c\"><label>96</label></stream>\
    <participantstreamassoc participant_id=\"ann\"><send>s</send></participantstreamassoc>";
const OVER: &str = "<datamode>partial</datamode>\
    <session session_id=\"c\"><stop-time>2010-12-16T23:41:07Z</stop-time></session>";
const LINE: (Slot, Generation) = (Slot(0), Generation(1));

fn tell(bench: &mut Bench, cseq: u32, inner: &str) {
    let tag = bench.tag();
    let xml =
        format!("<recording xmlns=\"urn:ietf:params:xml:ns:recording:1\">{inner}</recording>");
    let text = request("UPDATE", "call-1", cseq, &tag, &xml);
    bench.datagram(&text.replace("application/sdp", "application/rs-metadata+xml"));
    bench.journal_syncs();
}

fn says(bench: &mut Bench, frame: Frame) {
    bench.input(Input::Media(Envelope { id: 0, fds: 0, frame }));
}

/// What a second makes control tell media: since when lines speak, and which do no more.
fn told(bench: &mut Bench) -> (Vec<Mono>, usize) {
    says(bench, Frame::Stats(Vec::new()));
    let mut told = (Vec::new(), 0);
    for asked in std::mem::take(&mut bench.media) {
        if let Frame::Calls { open, over } = asked.frame {
            assert!(open.iter().all(|(slot, generation, _)| (*slot, *generation) == LINE));
            assert!(over.iter().all(|line| *line == LINE));
            told.0.extend(open.iter().map(|(.., since)| *since));
            told.1 += over.len();
        }
    }
    told
}

#[test]
fn f40_media_hears_which_lines_an_open_call_has_and_only_what_changes() {
    let mut bench = Bench::started();
    assert_eq!(told(&mut bench), (vec![], 0), "nobody has said anything");
    let since = bench.now;
    tell(&mut bench, 2, CALL);
    bench.tick(700);
    assert_eq!(told(&mut bench), (vec![since], 0));
    assert_eq!(told(&mut bench), (vec![], 0));
    tell(&mut bench, 3, OVER);
    assert_eq!(told(&mut bench), (vec![], 1));
    // A new call; then a media that knows nothing of it.
    tell(&mut bench, 4, CALL);
    assert_eq!(told(&mut bench).0.len(), 1);
    bench.input(Input::MediaDown);
    bench.input(Input::MediaUp);
    bench.media.clear();
    assert_eq!(told(&mut bench).0.len(), 1);
    // With the RS it is over in any case.
    let tag = bench.tag();
    bench.datagram(&request("BYE", "call-1", 5, &tag, ""));
    bench.journal_syncs();
    assert_eq!(told(&mut bench), (vec![], 1));
}

#[test]
fn f40_a_line_on_which_nobody_is_heard_is_an_alarm_until_somebody_is_or_the_call_is_over() {
    for comes in [true, false] {
        let mut bench = Bench::started();
        tell(&mut bench, 2, CALL);
        let (slot, generation) = LINE;
        says(&mut bench, Frame::Notice(Notice::NobodyHeard { slot, generation }));
        let alarm = bench.log.last().expect("an alarm").clone();
        assert!(alarm.starts_with("alarm:") && alarm.contains("stream 96"), "{alarm}");
        assert!(alarm.contains("by its metadata"), "{alarm}");
        assert_eq!((bench.control.figures().without_media, bench.control.live()), (1, 1));
        bench.log.clear();
        says(&mut bench, Frame::Notice(Notice::MediaBack { slot, generation, comes }));
        assert_eq!(bench.control.figures().without_media, 0);
        assert_eq!(bench.log.iter().any(|text| text.contains("media comes again")), comes);
    }
}
