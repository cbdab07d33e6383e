//! Running RSs of which nothing can be kept any more.

use super::Input;
use super::tests::Bench;
use crate::base::ids::Position;
use crate::config::model::{Config, Unrecordable};
use crate::plane::handoff::frame::{Envelope, Frame, WorkerStats};
use crate::store::journal::entry::Entry;

const RING: u64 = 64_000;

/// Media's word of a worker whose ring holds so much.
fn says(bench: &mut Bench, held: u64, error: Option<&str>) {
    let stats = WorkerStats {
        tail: Position(500_000 + held),
        durable: Position(500_000 + held / 2),
        sealed: Position(500_000),
        ring_bytes: RING,
        disk_error: error.map(str::to_owned),
        ..WorkerStats::default()
    };
    bench.input(Input::Media(Envelope { id: 0, fds: 0, frame: Frame::Stats(vec![stats]) }));
    bench.journal_syncs();
}

fn byes(bench: &Bench) -> Vec<&str> {
    let byes = bench.sent.iter().filter(|message| message.method() == Some("BYE"));
    byes.filter_map(|bye| bye.headers.get("Reason")).collect()
}

#[test]
fn an_rs_is_ended_with_a_reason_when_the_ring_is_full_behind_a_failed_disk() {
    let mut bench = Bench::started();
    says(&mut bench, RING, None);
    says(&mut bench, RING / 2, Some("the disk is full"));
    assert_eq!(byes(&bench), [""; 0], "a stall is no failure, and what the ring holds is held");
    says(&mut bench, RING - RING / 100, Some("the disk is full"));
    assert_eq!(byes(&bench), ["SIP;cause=503;text=\"it cannot be recorded any more\""]);
    let ended = |entry: &Entry| matches!(entry, Entry::Ended { bye: true, .. });
    assert!(bench.journal.iter().any(ended), "{:?}", bench.journal);
    says(&mut bench, RING, Some("the disk is full"));
    assert_eq!(byes(&bench).len(), 1);
}

#[test]
fn it_stays_up_where_the_configuration_says_so() {
    let mut bench = Bench::started();
    let mut config = Config::default();
    config.store.unrecordable = Unrecordable::Keep;
    let config = serde_json::to_string(&config).expect("a configuration");
    bench.input(Input::Keeper(Frame::Reload { config }));
    says(&mut bench, RING, Some("the disk is full"));
    assert_eq!(byes(&bench), [""; 0]);
}
