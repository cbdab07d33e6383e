//! Stories of one stream, and a property over random ones.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::base::ids::{Index, RsId, Slot, StreamId};
use crate::store::event::{Format, HostDrops};

const MS: i64 = 1_000_000;
const S: i64 = 1_000 * MS;

fn wall(mono: Mono) -> Wall {
    Wall(mono.0 as i64)
}

fn packet(index: u64, arrival: Wall) -> Packet<'static> {
    Packet {
        ordinal: 1,
        ssrc: 7,
        index,
        arrival,
        bytes: 172,
        payload_type: 0,
        timestamp: 0,
        csrcs: &[],
        payload: &[],
    }
}

fn opened() -> StreamLedger {
    let mut ledger = StreamLedger::new();
    let format = |payload_type, codec: &str| Format {
        payload_type,
        codec: codec.to_owned(),
        clock_rate: 8_000,
        channels: 1,
        fmtp: None,
    };
    let description = StreamDescription {
        stream: StreamId(1),
        rs: RsId([1; 16]),
        line: 0,
        label: Some("1".to_owned()),
        media: "audio".to_owned(),
        formats: vec![format(0, "PCMU"), format(101, "telephone-event")],
        suite: None,
        transport: "RTP/AVP".to_owned(),
        slot: Slot(0),
        port: 20_000,
        remote: None,
    };
    ledger.event(Wall(0), wall, Event::Open { description });
    ledger
}

fn close(ledger: &mut StreamLedger, at: Wall, drops: &[(&str, u64)], socket_drops: u64) {
    let drops = drops.iter().map(|(label, count)| ((*label).to_owned(), *count)).collect();
    ledger.event(at, wall, Event::Close { by: Origin::Src, drops, socket_drops, shared: false });
}

/// Ten seconds at 50 packets/s but for `lost`.
fn ten_seconds(lost: std::ops::Range<u64>) -> StreamLedger {
    ten_seconds_after(opened(), lost)
}

fn ten_seconds_after(mut ledger: StreamLedger, lost: std::ops::Range<u64>) -> StreamLedger {
    for index in (0..500).filter(|index| !lost.contains(index)) {
        ledger.packet(&packet(index, Wall(index as i64 * 20 * MS)));
    }
    ledger
}

fn host(moved: u64) -> HostEvidence {
    let mut host = HostEvidence::default();
    for second in 0..20_u64 {
        let nic = |at: u64| HostDrops { nic: if at > 5 { moved } else { 0 }, ..Default::default() };
        let event = Event::HostDrops {
            from: Mono(second * S as u64),
            to: Mono((second + 1) * S as u64),
            before: nic(second),
            after: nic(second + 1),
        };
        host.event(Wall((second + 1) as i64 * S), wall, &event);
    }
    host
}

#[test]
fn a_burst_without_local_drops_was_lost_in_the_network() {
    let mut ledger = ten_seconds(250..265);
    close(&mut ledger, Wall(10 * S), &[], 0);
    let account = ledger.account(&host(0), None, None);
    let source = &account.sources[0];
    assert_eq!(account.verdict, Verdict::Gaps);
    assert_eq!((source.packets, source.bytes), (485, 485 * 172));
    assert_eq!((source.first_index, source.last_index), (0, 499));
    assert_eq!(source.lost, [(Cause::Net, 15)].into());
    assert_eq!((source.unexplained, source.lost_range.len()), (0, 0));
    let gap = &source.gaps[0];
    assert_eq!((gap.first, gap.last, gap.cause), (250, 264, Some(Cause::Net)));
    assert_eq!((gap.from, gap.to), (Wall(249 * 20 * MS), Wall(265 * 20 * MS)));
}

/// A sender that begins anew has lost nothing: it could not have sent so many in the time, or its own
/// reports prove it. Without either the numbers count.
#[test]
fn f41_a_jump_is_no_loss_and_a_long_loss_is_no_jump() {
    let story = |jump: u64, pause_s: i64, reports: bool| {
        let mut ledger = opened();
        let mut sent = 0;
        for (base, from) in [(0, 0), (500 + jump, 10 + pause_s)] {
            for number in 0..500 {
                let at = Wall(from * S + number as i64 * 20 * MS);
                ledger.packet(&packet(base + number, at));
                sent += 1;
                if reports && number % 100 == 99 {
                    ledger.sender_report(Wall(at.0 + MS), 7, sent);
                }
            }
        }
        let account = ledger.account(&host(0), None, None);
        let source = &account.sources[0];
        (source.lost.values().sum::<u64>() + source.unexplained, source.gaps.len())
    };
    assert_eq!(story(40_000, 0, false), (0, 0));
    assert_eq!(story(60_000, 5, false), (0, 0));
    // In that time it may have sent them all.
    assert_eq!(story(40_000, 800, false), (40_000, 1));
    assert_eq!(story(40_000, 800, true), (0, 0), "its reports say that it has not");
    assert_eq!(story(20_000, 0, false), (20_000, 1), "less than half of the numbers is a loss");
}

#[test]
fn what_is_gone_by_retention_is_neither_lost_nor_unexplained() {
    let mut ledger = ten_seconds(240..275);
    ledger.expire(1, (250, 264));
    let account = ledger.account(&host(0), None, None);
    let source = &account.sources[0];
    assert_eq!((source.lost[&Cause::Net], source.unexplained, source.gaps.len()), (20, 0, 2));
    let mut ledger = ten_seconds(240..275);
    ledger.expire(1, (200, 280));
    let account = ledger.account(&HostEvidence::default(), None, None);
    let source = &account.sources[0];
    assert_eq!((source.lost.len(), source.unexplained, source.gaps.len()), (0, 0, 0));
    assert_ne!(account.verdict, Verdict::Gaps);
    // Of a source that is gone as a whole nothing is said.
    let mut ledger = opened();
    ledger.expire(1, (0, 500));
    assert_eq!(ledger.account(&host(0), None, None).verdict, Verdict::Empty);
}

#[test]
fn without_samples_around_it_a_gap_is_unexplained() {
    let account = ten_seconds(250..265).account(&HostEvidence::default(), None, None);
    assert_eq!((account.sources[0].unexplained, account.sources[0].lost.len()), (15, 0));
    assert_eq!(account.sources[0].gaps[0].cause, None);
}

#[test]
fn f23_a_moved_host_counter_explains_up_to_its_delta_as_a_range() {
    let account = ten_seconds(250..265).account(&host(10), None, None);
    let source = &account.sources[0];
    assert_eq!(source.lost, [(Cause::Nic, 10)].into());
    assert_eq!(source.lost_range, [(Cause::Nic, [0, 10]), (Cause::Net, [0, 10])].into());
    assert_eq!(source.unexplained, 5, "the rest has no proof: a local counter moved");
}

#[test]
fn a_gap_elsewhere_is_not_blamed_on_a_counter_that_moved_later() {
    let account = ten_seconds(100..110).account(&host(10), None, None);
    assert_eq!(account.sources[0].lost, [(Cause::Net, 10)].into());
}

/// What a further SSRC sent is missing, and nobody may read that nothing is.
#[test]
fn packets_of_ssrcs_without_a_place_are_no_whole_stream() {
    for (drops, verdict) in [
        (&[("too_many_sources", 3)][..], Verdict::Gaps),
        (&[("keep_alive", 3)], Verdict::Continuous),
    ] {
        let mut ledger = ten_seconds(0..0);
        close(&mut ledger, Wall(10 * S), drops, 0);
        let account = ledger.account(&host(0), None, None);
        assert_eq!(account.verdict, verdict);
        assert!(account.sources[0].gaps.is_empty(), "the source that had a place is whole");
    }
}

#[test]
fn two_gaps_do_not_use_the_same_drops_twice() {
    let mut ledger = opened();
    for index in (0..500).filter(|index| !matches!(index, 260..265 | 270..275)) {
        ledger.packet(&packet(index, Wall(index as i64 * 20 * MS)));
    }
    let account = ledger.account(&host(6), None, None);
    let source = &account.sources[0];
    assert_eq!((source.lost[&Cause::Nic], source.unexplained), (6, 4));
}

#[test]
fn a_dropped_event_with_indexes_is_exact() {
    let mut ledger = ten_seconds(250..265);
    let dropped = Event::Dropped {
        cause: Cause::Auth,
        count: 5,
        from: Mono(5 * S as u64),
        to: Mono(6 * S as u64),
        ssrc: Some(crate::base::ids::Ssrc(7)),
        range: Some((Index(250), Index(254))),
        shared: false,
    };
    ledger.event(Wall(6 * S), wall, dropped);
    close(&mut ledger, Wall(10 * S), &[("auth_failed", 5), ("replayed", 2)], 0);
    let account = ledger.account(&host(0), None, None);
    let source = &account.sources[0];
    assert_eq!(source.lost, [(Cause::Auth, 5), (Cause::Net, 10)].into());
    assert_eq!((source.duplicates, source.unexplained), (2, 0));
    assert_eq!(account.drops["auth_failed"], 5);
}

/// `count` packets of the stream ended in its queue, or in one that it shares, within a second.
fn queue_full(ledger: &mut StreamLedger, second: u64, count: u64, shared: bool) {
    let (from, to) = (Mono(second * S as u64), Mono((second + 1) * S as u64));
    let cause = Cause::Socket;
    let event = Event::Dropped { cause, count, from, to, ssrc: None, range: None, shared };
    ledger.event(wall(to), wall, event);
}

#[test]
fn f22_what_is_missing_beyond_a_full_queue_is_the_networks_at_most() {
    let mut ledger = ten_seconds(250..265);
    close(&mut ledger, Wall(10 * S), &[], 12);
    let source = &ledger.account(&host(0), None, None).sources[0];
    assert_eq!(source.lost, [(Cause::Socket, 12), (Cause::Net, 3)].into());
    assert_eq!(source.lost_range, [(Cause::Net, [0, 3])].into());
    assert_eq!((source.unexplained, source.gaps[0].cause), (0, None));
    // Nobody knows what the host's counters say.
    let source = &ledger.account(&HostEvidence::default(), None, None).sources[0];
    assert_eq!((source.lost.len(), source.unexplained), (1, 3));
}

#[test]
fn f22_what_the_network_took_before_a_queue_was_full_stays_the_networks() {
    let mut ledger = opened();
    for index in (0..500).filter(|index| !matches!(index, 210..215 | 320..340)) {
        ledger.packet(&packet(index, Wall(index as i64 * 20 * MS)));
    }
    queue_full(&mut ledger, 6, 20, false);
    close(&mut ledger, Wall(10 * S), &[], 20);
    let source = &ledger.account(&host(0), None, None).sources[0];
    assert_eq!(source.lost, [(Cause::Socket, 20), (Cause::Net, 5)].into());
    assert!(source.lost_range.is_empty(), "seconds lie between them");
}

#[test]
fn f22_drops_of_a_shared_queue_may_be_the_networks() {
    let mut ledger = ten_seconds(250..265);
    queue_full(&mut ledger, 5, 100, true);
    let source = &ledger.account(&host(0), None, None).sources[0];
    assert_eq!((&source.lost, source.unexplained), (&[(Cause::Socket, 15)].into(), 0));
    assert_eq!(source.lost_range, [(Cause::Socket, [0, 15]), (Cause::Net, [0, 15])].into());
}

#[test]
fn complete_needs_counts_that_agree_and_no_unproven_second() {
    let with_reports = |offset: u32| {
        // As a segment has them: reports (ordinal 0) before packets.
        let mut ledger = opened();
        for n in 1..=9 {
            ledger.sender_report(Wall(n * S), 7, n as u32 * 50 + 1 + offset);
        }
        let mut ledger = ten_seconds_after(ledger, 0..0);
        close(&mut ledger, Wall(10 * S), &[], 0);
        ledger.account(&host(0), None, None)
    };
    assert_eq!(with_reports(0).verdict, Verdict::Complete);
    assert_eq!(with_reports(0).sources[0].rtcp_sent, Some(451));
    assert_eq!(with_reports(3).verdict, Verdict::Continuous, "the head is missing");
    let mut silent = ten_seconds(0..0);
    close(&mut silent, Wall(14 * S), &[], 0);
    let account = silent.account(&host(0), None, None);
    assert_eq!(account.verdict, Verdict::Continuous);
    assert_eq!(account.unproven_s, 4.02);
    assert_eq!(StreamLedger::new().account(&host(0), None, None).verdict, Verdict::Empty);
}

#[test]
fn silence_is_proven_by_counts_that_stand_still_or_excused_by_a_pause() {
    let mut ledger = opened();
    for n in 1..=30 {
        ledger.sender_report(Wall(n * S), 7, (n as u32 * 50 + 1).min(500));
    }
    let mut ledger = ten_seconds_after(ledger, 0..0);
    close(&mut ledger, Wall(30 * S), &[], 0);
    assert_eq!(ledger.account(&host(0), None, None).unproven_s, 0.0);

    let mut paused = ten_seconds(0..0);
    paused.event(Wall(10 * S), wall, Event::Pause { by: Origin::Src });
    paused.event(Wall(28 * S), wall, Event::Resume { by: Origin::Src });
    close(&mut paused, Wall(30 * S), &[], 0);
    let account = paused.account(&host(0), None, None);
    assert_eq!(account.unproven_s, 2.0);
    let pause = Pause { from: Wall(10 * S), to: Some(Wall(28 * S)), cause: "src".to_owned() };
    assert_eq!((account.pauses, account.state), (vec![pause], StreamState::Closed));
}

#[test]
fn what_came_in_a_pause_is_no_gap_and_what_is_missing_beside_it_is() {
    let paused = |lost: std::ops::Range<u64>| {
        let mut ledger = ten_seconds(lost);
        ledger.event(Wall(5 * S - 1), wall, Event::Pause { by: Origin::Src });
        ledger.event(Wall(7 * S), wall, Event::Resume { by: Origin::Src });
        let event = Event::Dropped {
            cause: Cause::Paused,
            count: 100,
            from: Mono(5 * S as u64 - 1),
            to: Mono(7 * S as u64),
            ssrc: None,
            range: None,
            shared: false,
        };
        ledger.event(Wall(7 * S), wall, event);
        close(&mut ledger, Wall(10 * S), &[("paused", 100)], 0);
        ledger.account(&host(0), None, None)
    };
    let account = paused(250..350);
    assert_eq!(account.sources[0].lost, [(Cause::Paused, 100)].into());
    assert_eq!(account.verdict, Verdict::Continuous);
    let account = paused(250..360);
    assert_eq!(account.verdict, Verdict::Gaps, "{:?}", account.sources[0].lost);
}

proptest! {
    /// Random loss, reorder and repetition: packets, duplicates and missing agree with a set, and
    /// every missing index has exactly one place.
    #[test]
    fn the_account_adds_up(
        kept in proptest::collection::vec((0_u64..300, 0_i64..40), 1..500),
        delta in 0_u64..20,
        socket in 0_u64..20,
    ) {
        let mut ledger = opened();
        let mut seen = BTreeSet::new();
        for (index, jitter) in &kept {
            ledger.packet(&packet(*index, Wall((*index as i64 * 20 + jitter) * MS)));
            seen.insert(*index);
        }
        close(&mut ledger, Wall(10 * S), &[], socket);
        let account = ledger.account(&host(delta), None, None);
        let source = &account.sources[0];
        let span = seen.last().expect("one") - seen.first().expect("one") + 1;
        prop_assert_eq!(source.packets, seen.len() as u64);
        prop_assert_eq!(source.packets + source.duplicates, kept.len() as u64);
        let lost: u64 = source.lost.values().sum();
        prop_assert_eq!(source.packets + lost + source.unexplained, span);
        let in_gaps: u64 = source.gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
        prop_assert_eq!(in_gaps, span - source.packets);
        prop_assert!(source.lost.get(&Cause::Nic).copied().unwrap_or(0) <= delta);
        prop_assert!(source.lost.get(&Cause::Socket).copied().unwrap_or(0) <= socket);
        let in_queue = source.lost.get(&Cause::Socket).copied().unwrap_or(0);
        prop_assert!(in_queue == socket || !source.lost.contains_key(&Cause::Net));
        prop_assert_eq!(account.verdict == Verdict::Gaps, span > source.packets);
    }
}

/// The power went at 4 s and came back at 7 s; packets until 3.9 s were durable.
fn dark(lost: std::ops::Range<u64>) -> StreamLedger {
    let mut ledger = ten_seconds(lost);
    let (from, to) = (Wall(4 * S), Wall(7 * S));
    ledger.event(Wall(7 * S), wall, Event::Gap { cause: Cause::Power, from, to });
    ledger
}

#[test]
fn f06_what_was_sent_in_the_dark_was_lost_with_the_power_exactly() {
    // The host's counters moved meanwhile: nobody can have counted for us in the dark.
    for host in [host(0), host(90), HostEvidence::default()] {
        let mut ledger = dark(195..351);
        close(&mut ledger, Wall(10 * S), &[], 0);
        let account = ledger.account(&host, None, None);
        let source = &account.sources[0];
        assert_eq!((source.lost[&Cause::Power], source.unexplained), (156, 0));
        assert!(source.lost_range.is_empty(), "exact on both sides");
        let gap = &source.gaps[0];
        assert_eq!((gap.cause, gap.first, gap.last), (Some(Cause::Power), 195, 350));
        assert_eq!((gap.from, gap.to), (Wall(194 * 20 * MS), Wall(351 * 20 * MS)));
        assert_eq!(account.verdict, Verdict::Gaps);
    }
}

#[test]
fn f06_a_hole_that_began_long_before_the_dark_is_a_range() {
    // Nothing came from 1 s on; the power went at 4 s.
    let account = dark(50..351).account(&host(0), None, None);
    let source = &account.sources[0];
    assert_eq!((source.lost[&Cause::Power], source.unexplained), (301, 0));
    assert_eq!(source.lost_range[&Cause::Power], [0, 301]);
}

#[test]
fn f06_a_hole_elsewhere_is_not_the_darkness_and_evidence_with_a_count_goes_first() {
    let mut ledger = dark(195..351);
    // Two short tags that had to speak before the third was believed.
    ledger.event(
        Wall(8 * S),
        wall,
        Event::Dropped {
            cause: Cause::Auth,
            count: 2,
            from: Mono(7 * S as u64),
            to: Mono(8 * S as u64),
            ssrc: None,
            range: None,
            shared: false,
        },
    );
    let account = ledger.account(&HostEvidence::default(), None, None);
    let source = &account.sources[0];
    assert_eq!((source.lost[&Cause::Power], source.lost[&Cause::Auth]), (154, 2));
    let account = dark(400..402).account(&HostEvidence::default(), None, None);
    assert_eq!(account.sources[0].unexplained, 2);
}

/// A host that lost what came after `last`, and began with new memory at `start`.
fn absent(last: Wall, start: Wall) -> HostEvidence {
    let mut host = HostEvidence::default();
    let map = Default::default();
    let started = Event::Started {
        incarnation: 2,
        engine: String::new(),
        map,
        boot: String::new(),
        recovered: 0,
        predecessor_last: None,
        lost_since: Some(last),
    };
    host.event(start, wall, &started);
    host
}

#[test]
fn f06_a_call_that_nobody_took_up_again_misses_its_end() {
    let ledger = ten_seconds(200..500);
    let host = absent(Wall(4 * S), Wall(7 * S));
    let account = |end| ledger.account(&host, Some(end), Some(end));
    let told = account(Wall(7 * S));
    let source = &told.sources[0];
    // 3.98 s to 7 s, 20 ms apart; nobody knows whether they were sent.
    assert_eq!((source.lost[&Cause::Power], source.lost_range[&Cause::Power]), (151, [0, 151]));
    assert_eq!((told.verdict, source.unexplained, source.last_index), (Verdict::Gaps, 0, 199));
    let gap = &source.gaps[0];
    assert_eq!((gap.first, gap.last, gap.cause), (200, 350, Some(Cause::Power)));
    assert_eq!((gap.from, gap.to), (Wall(199 * 20 * MS), Wall(7 * S)));
    // It had ended before the recorder was back; or before it went.
    assert_eq!(account(Wall(5 * S)).sources[0].lost[&Cause::Power], 51);
    assert!(account(Wall(199 * 20 * MS + 19)).sources[0].lost.is_empty());
    // Nothing was wanted of it then.
    let mut paused = ledger.clone();
    paused.event(Wall(199 * 20 * MS), wall, Event::Pause { by: Origin::Src });
    assert!(paused.account(&host, None, None).sources[0].lost.is_empty());
    // It had been closed: what is behind that is on disk.
    let mut closed = ledger.clone();
    close(&mut closed, Wall(5 * S), &[], 0);
    assert!(closed.account(&host, None, None).sources[0].lost.is_empty());
    // A hole before a record that is on disk is none of it, however long ago the host was heard.
    let mut network = opened();
    for index in (0..200).filter(|index| !(100..110).contains(index)) {
        network.packet(&packet(index, Wall(index as i64 * 20 * MS)));
    }
    let mut since = absent(Wall(0), Wall(7 * S));
    for second in 0..7_u64 {
        let (from, to) = (Mono(second * S as u64), Mono((second + 1) * S as u64));
        let (before, after) = (HostDrops::default(), HostDrops::default());
        since.event(Wall(to.0 as i64), wall, &Event::HostDrops { from, to, before, after });
    }
    let lost = &network.account(&since, Some(Wall(7 * S)), None).sources[0];
    assert_eq!(lost.lost, [(Cause::Net, 10), (Cause::Power, 143)].into());
    assert_eq!(lost.lost_range, [(Cause::Power, [0, 143])].into());
    // It went on: the recorder had lost nothing.
    assert!(ten_seconds(0..0).account(&host, None, None).sources[0].lost.is_empty());
}

#[test]
fn f10_what_was_stored_and_is_gone_is_damage() {
    let mut host = host(0);
    let in_doubt = |since: i64, until: i64, durable| Event::InDoubt {
        from: 0,
        to: 8,
        why: "commit group fails its sum".to_owned(),
        durable,
        since: Some(Wall(since * S)),
        until: Some(Wall(until * S)),
    };
    host.event(Wall(12 * S), wall, &in_doubt(4, 5, true));
    host.event(Wall(12 * S), wall, &in_doubt(7, 8, false));
    let mut ledger = opened();
    for index in (0..500).filter(|index| !matches!(index, 205..245 | 360..390 | 450..460)) {
        ledger.packet(&packet(index, Wall(index as i64 * 20 * MS)));
    }
    let account = ledger.account(&host, None, None);
    let source = &account.sources[0];
    let lost = [(Cause::Damage, 40), (Cause::Power, 30), (Cause::Net, 10)];
    assert_eq!((&source.lost, source.unexplained), (&lost.into(), 0));
    assert!(source.lost_range.is_empty());
    assert_eq!(host.losses().iter().filter(|loss| loss.durable).count(), 1);
}

#[test]
fn what_is_sealed_to_its_end_misses_nothing_of_what_stood_behind_the_segments() {
    let account = |tail: bool, closes: bool, in_segments: bool| {
        let mut host = host(0);
        let why = "segment w000-0000000002.seg is not in the store".to_owned();
        let (since, until) = (Wall(2 * S), Wall(i64::MAX));
        host.lose(Loss { since, until, durable: true, tail, why });
        let mut ledger = opened();
        for index in (0..500).filter(|index| !matches!(index, 205..245)) {
            ledger.packet(&packet(index, Wall(index as i64 * 20 * MS)));
        }
        if closes {
            let (drops, socket_drops, shared) = (Default::default(), 0, false);
            let by = Origin::Src;
            ledger.event(Wall(10 * S), wall, Event::Close { by, drops, socket_drops, shared });
        }
        if in_segments {
            ledger.seal_end();
        }
        ledger.account(&host, None, Some(Wall(10 * S))).sources[0].lost.clone()
    };
    assert_eq!(account(true, true, true), [(Cause::Net, 40)].into());
    // It is not known of them: a record in a log may stand before what is missing, or behind it.
    for (tail, closes, in_segments) in
        [(false, true, true), (true, false, true), (true, true, false)]
    {
        let lost = account(tail, closes, in_segments);
        assert!(lost.contains_key(&Cause::Damage), "{tail} {closes} {in_segments}: {lost:?}");
    }
}

#[test]
fn f10_a_loss_without_bounds_takes_nothing_from_behind_the_end() {
    let mut host = host(0);
    let why = "no valid trailer at the end of the file".to_owned();
    let boundless = Event::InDoubt { from: 0, to: 8, why, durable: true, since: None, until: None };
    host.event(Wall(12 * S), wall, &boundless);
    let mut ledger = opened();
    for index in 0..400 {
        ledger.packet(&packet(index, Wall(index as i64 * 20 * MS)));
    }
    let source = &ledger.account(&host, None, Some(Wall(10 * S))).sources[0];
    assert_eq!(source.lost, [(Cause::Damage, 101)].into(), "two seconds of 50 packets");
}
