//! Histories drawn at random, and what stands of them.

use super::entry::{Answered, DialogState, Entry, Sealed, Signalling, SrcFacts, StreamOpened};
use super::standing::{REPEATS_NS, Standings};
use crate::base::ids::{Generation, Position, RsId, Slot, StreamId, WorkerId};
use crate::base::prng::Prng;
use crate::base::time::Wall;
use crate::store::event::{Origin, StreamDescription};
use crate::store::log::Mark;

const SECOND: i64 = 1_000_000_000;

pub(super) fn rs(number: u64) -> RsId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_be_bytes());
    RsId(id)
}

fn stream(id: u64, generation: u32) -> StreamOpened {
    StreamOpened {
        description: StreamDescription {
            stream: StreamId(id),
            rs: RsId::default(),
            line: 0,
            label: None,
            media: "audio".to_owned(),
            formats: Vec::new(),
            suite: None,
            transport: "RTP/AVP".to_owned(),
            slot: Slot(id as u32 % 8),
            port: 20_000,
            remote: None,
        },
        generation: Generation(generation),
        active: true,
        rtcp_to: None,
        rtcp_mux: false,
        crypto: None,
        barred: None,
        address: None,
    }
}

pub(super) fn dialog(cseq: u32, answered: bool) -> DialogState {
    let address = ([192, 0, 2, 1], 5_060).into();
    DialogState {
        call_id: "c".to_owned(),
        local_tag: "l".to_owned(),
        remote_tag: "r".to_owned(),
        local_uri: String::new(),
        remote_uri: String::new(),
        remote_target: String::new(),
        route_set: Vec::new(),
        local_cseq: 0,
        remote_cseq: cseq,
        transport: "udp".to_owned(),
        peer: address,
        local: address,
        identity: None,
        user: None,
        update: false,
        answered: answered.then(|| Answered {
            method: "INVITE".to_owned(),
            cseq,
            via: vec!["SIP/2.0/UDP 192.0.2.1".to_owned()],
            record_route: Vec::new(),
            sdp: true,
        }),
    }
}

/// What control could have written: every RS opens once, changes, loses streams, ends.
pub(crate) fn history(seed: u64, count: usize) -> Vec<Entry> {
    let mut random = Prng::new(seed);
    let mut entries = Vec::new();
    let (mut live, mut next_rs, mut next_stream): (Vec<(RsId, Vec<u64>, u32)>, _, _) =
        (Vec::new(), 1, 1);
    let mut now = SECOND;
    while entries.len() < count {
        now += random.below(20) as i64 * SECOND;
        let at = Wall(now);
        let sealed =
            |what: &str, random: &mut Prng| Sealed(format!("{what} {}", random.below(99)).into());
        let what = random.below(10);
        if live.is_empty() || what == 0 {
            let id = rs(next_rs);
            next_rs += 1;
            let salt = sealed("salt", &mut random);
            entries.push(Entry::StreamIds { next: StreamId(next_stream + 10) });
            let (durable, segment) = (Position(now as u64), next_rs);
            let mark = Mark { worker: WorkerId(0), durable, segment, at };
            entries.push(Entry::Durable { marks: vec![mark], seal: None });
            entries.push(Entry::Opened {
                rs: id,
                at,
                dialog: dialog(1, true),
                src: SrcFacts::default(),
                signalling: Signalling::Udp,
                quirks: Vec::new(),
                salt,
                streams: vec![stream(next_stream, 1)],
                own: false,
                answer: String::new(),
                answer_sdp: sealed("answer", &mut random),
                bodies: None,
                timer: None,
                retention: None,
            });
            live.push((id, vec![next_stream], 1));
            next_stream += 1;
            continue;
        }
        let place = random.below(live.len() as u64) as usize;
        let (id, streams, cseq) = &mut live[place];
        let rs = *id;
        match what {
            1 => {
                for open in std::mem::take(streams) {
                    let (stream, slot) = (StreamId(open), Slot(open as u32 % 8));
                    entries.push(Entry::StreamClosed {
                        rs,
                        stream,
                        slot,
                        at,
                        by: Origin::Src,
                        through: None,
                    });
                }
                let (by, reason) = (Origin::Src, String::new());
                entries.push(Entry::Ended {
                    rs,
                    at,
                    by,
                    reason,
                    remote_cseq: *cseq + 1,
                    bye: false,
                });
                live.remove(place);
            }
            2 if streams.len() > 1 => {
                let open = streams.remove(0);
                let (stream, slot) = (StreamId(open), Slot(open as u32 % 8));
                entries.push(Entry::StreamClosed {
                    rs,
                    stream,
                    slot,
                    at,
                    by: Origin::Src,
                    through: None,
                });
            }
            _ => {
                *cseq += 1;
                if random.below(3) == 0 {
                    streams.push(next_stream);
                    next_stream += 1;
                }
                let goes = streams.len() > 1 && random.below(3) == 0;
                let gone = goes.then(|| streams.remove(0));
                let mut changed = |answered| Entry::Changed {
                    rs,
                    at,
                    dialog: dialog(*cseq, answered),
                    streams: streams.iter().map(|id| stream(*id, 1 + *cseq)).collect(),
                    quirks: Vec::new(),
                    answer_sdp: sealed("answer", &mut random),
                    timer: None,
                    hold: None,
                    refused: false,
                };
                entries.push(changed(true));
                // Refused after all.
                if *cseq % 5 == 0 {
                    entries.push(changed(false));
                }
                if let Some(gone) = gone {
                    let (stream, slot) = (StreamId(gone), Slot(gone as u32 % 8));
                    entries.push(Entry::StreamClosed {
                        rs,
                        stream,
                        slot,
                        at,
                        by: Origin::Src,
                        through: None,
                    });
                }
            }
        }
    }
    entries
}

/// An RS that lasts, then `count` that end, each `seconds` behind the one before; five entries each.
pub(super) fn short_calls(count: u64, seconds: i64) -> Vec<Entry> {
    let mut entries = Vec::new();
    for call in 0..=count {
        let (id, at) = (rs(call), Wall((1 + call as i64 * seconds) * SECOND));
        let open = stream(call + 1, 1);
        let slot = open.description.slot;
        entries.push(Entry::Opened {
            rs: id,
            at,
            dialog: dialog(1, true),
            src: SrcFacts::default(),
            signalling: Signalling::Udp,
            quirks: Vec::new(),
            salt: Sealed(format!("salt {call}").into()),
            streams: vec![open],
            own: false,
            answer: String::new(),
            answer_sdp: Sealed("".into()),
            bodies: Some(2),
            timer: None,
            retention: None,
        });
        for number in 1..=2 {
            entries.push(Entry::Body {
                rs: id,
                number,
                at,
                method: "INVITE".to_owned(),
                cseq: 1,
                content_type: "application/sdp".to_owned(),
                disposition: String::new(),
                bytes: "AAAA".repeat(100),
            });
        }
        let (stream, by) = (StreamId(call + 1), Origin::Src);
        let last = if call == 0 {
            [
                Entry::StreamIds { next: StreamId(count + 2) },
                Entry::StreamIds { next: StreamId(count + 2) },
            ]
        } else {
            let reason = String::new();
            [
                Entry::StreamClosed { rs: id, stream, slot, at, by, through: None },
                Entry::Ended { rs: id, at, by, reason, remote_cseq: 2, bye: false },
            ]
        };
        entries.extend(last);
    }
    entries
}

/// What is wanted of it: of old answers at least the last one.
pub(super) fn essence(mut standings: Standings) -> Standings {
    standings.forget();
    let alive = standings.alive.0;
    for standing in standings.recordings.values_mut() {
        let standing = std::sync::Arc::make_mut(standing);
        while standing.answers.len() > 1 && alive - standing.answers[0].at.0 >= REPEATS_NS {
            standing.answers.pop_front();
        }
    }
    standings
}

#[test]
fn entries_that_stand_twice_change_nothing() {
    // A snapshot says more than the files that it stands for: what it knows of the next file is
    // read once more behind it.
    for seed in 0..300 {
        let entries = history(seed, 60);
        let wanted = essence(Standings::of(&entries));
        let mut random = Prng::new(seed);
        let through = random.below(60) as usize;
        let known = through + random.below(entries.len() as u64 - through as u64) as usize;
        let mut found = Standings::of(&entries[..known]);
        found.forget();
        entries[through..].iter().for_each(|entry| found.learn(entry));
        assert_eq!(essence(found), wanted, "seed {seed}: {through} to {known}");
    }
}

#[test]
fn what_is_over_is_forgotten_in_time() {
    let mut entries = history(7, 2_000);
    let Standings { alive, .. } = Standings::of(&entries);
    let mut standings = Standings::of(&entries);
    standings.forget();
    let live = standings.recordings.values().filter(|one| one.ended.is_none()).count();
    assert!(!standings.over.is_empty() && standings.recordings.len() - live < 20);
    assert!(standings.recordings.values().all(|one| one.answers.len() <= 8));
    // A day on, nothing is left but what is live, what its streams were, and the numbers used up.
    let at = Wall(alive.0 + 25 * 3_600 * SECOND);
    let start = Entry::Start { version: 1, volume: String::new(), at, kept: false, before: None };
    entries.push(start.clone());
    standings.learn(&start);
    standings.forget();
    assert_eq!((standings.recordings.len(), standings.over.len()), (live, 0));
    assert!(standings.recordings.values().all(|one| one.answers.len() <= 2));
    assert_eq!(standings.stream_ids, Standings::of(&entries).stream_ids);
    assert_eq!(standings.generations, Standings::of(&entries).generations);
}
