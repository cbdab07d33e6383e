//! What the journal is told of the logs.

use super::Input;
use super::tests::Bench;
use crate::base::ids::{Position, WorkerId};
use crate::plane::handoff::frame::{Envelope, Frame, Notice, WorkerStats};
use crate::store::journal::entry::Entry;
use crate::store::journal::standing::Standings;

fn says(bench: &mut Bench, frame: Frame) {
    bench.input(Input::Media(Envelope { id: 0, fds: 0, frame }));
}

fn durable(bench: &mut Bench, durable: u64) {
    let stats = WorkerStats { durable: Position(durable), ..WorkerStats::default() };
    says(bench, Frame::Stats(vec![stats]));
}

/// Positions and segment numbers of the marks in the journal.
fn marks(bench: &Bench) -> Vec<(u64, u64)> {
    let entries = bench.journal.iter().filter_map(|entry| match entry {
        Entry::Durable { marks, .. } => Some(marks),
        _ => None,
    });
    entries.flatten().map(|mark| (mark.durable.0, mark.segment)).collect()
}

#[test]
fn marks_are_told_while_they_move_and_one_at_a_time() {
    let mut bench = Bench::up(10);
    durable(&mut bench, 800);
    assert_eq!(bench.jobs.len(), 1);
    bench.tick(6_000);
    durable(&mut bench, 1_600);
    assert_eq!(bench.jobs.len(), 1, "the journal has not answered");
    bench.journal_syncs();
    assert_eq!(marks(&bench), [(800, 0)]);
    let (worker, file) = (WorkerId(0), "w0-0000000007.seg".to_owned());
    says(&mut bench, Frame::Notice(Notice::Sealed { worker, file, through: Position(800) }));
    durable(&mut bench, 1_600);
    bench.journal_syncs();
    bench.tick(500);
    durable(&mut bench, 2_400);
    assert!(bench.jobs.is_empty(), "not so soon again");
    bench.tick(5_000);
    durable(&mut bench, 2_400);
    bench.journal_syncs();
    bench.tick(5_000);
    durable(&mut bench, 2_400);
    assert!(bench.jobs.is_empty(), "nothing moved");
    assert_eq!(marks(&bench), [(800, 0), (1_600, 7), (2_400, 7)]);
}

#[test]
fn a_successor_goes_on_from_the_marks_that_it_finds() {
    let mut bench = Bench::up(10);
    durable(&mut bench, 800);
    let (worker, file) = (WorkerId(0), "w0-0000000007.seg".to_owned());
    says(&mut bench, Frame::Notice(Notice::Sealed { worker, file, through: Position(800) }));
    bench.journal_syncs();
    bench.tick(5_000);
    durable(&mut bench, 808);
    bench.journal_syncs();
    let mut next = Bench::new(10, 2);
    let now = next.clock();
    next.control.recover(now, &Standings::of(&bench.journal));
    durable(&mut next, 808);
    assert!(next.jobs.is_empty(), "the journal knows");
    durable(&mut next, 816);
    next.journal_syncs();
    assert_eq!(marks(&next), [(816, 7)]);
}
