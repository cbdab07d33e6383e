//! How long nobody received, and where that time went: one line per restart (F01).

use std::fmt::Write as _;

use crate::base::ids::WorkerId;
use crate::base::time::Mono;
use crate::plane::worker::Beginning;

/// Instants on the way to the first turn, in order.
#[derive(Clone, Debug)]
pub(super) struct Stages(Vec<(&'static str, Mono)>);

impl Stages {
    /// Begins with what the process did before the worker's thread; `began`: its first instruction,
    /// `go`: keeper has let it go.
    pub(super) fn of_process(began: Mono, go: Mono) -> Self {
        Stages(vec![("death and exec", began), ("hand-over", go)])
    }

    /// The same of a spare, which had everything but the word.
    pub(super) fn of_spare(go: Mono) -> Self {
        Stages(vec![("death", go)])
    }

    /// Begins anew in the same process, at the end of the worker before.
    pub(super) fn of_thread(ended: Mono) -> Self {
        Stages(vec![("end", ended)])
    }

    /// The stage `name` ends now.
    pub(super) fn mark(&mut self, name: &'static str, now: Mono) {
        self.0.push((name, now));
    }

    /// The line, where there was a predecessor.
    pub(super) fn line(mut self, worker: WorkerId, beginning: &Beginning) -> Option<String> {
        let last = beginning.predecessor_last?;
        self.mark("keys", beginning.derived);
        self.mark("recovery", beginning.recovered_at);
        self.mark("arming", beginning.armed_at);
        let ms = |from: Mono, to: Mono| to.since(from) as f64 / 1e6;
        let gap = ms(last, beginning.armed_at);
        let mut line = format!("worker {} receives again after {gap:.1} ms", worker.0);
        let mut before = last;
        for (place, (name, at)) in self.0.into_iter().enumerate() {
            let part = if place == 0 { ": " } else { ", " };
            let _ = write!(line, "{part}{name} {:.1}", ms(before, at));
            before = at;
        }
        let _ = write!(line, "; {} datagrams recovered", beginning.recovered);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_the_gap_and_its_parts() {
        let at = |ms: u64| Mono(ms * 1_000_000);
        let mut stages = Stages::of_process(at(1_010), at(1_013));
        stages.mark("memory", at(1_014));
        let mut beginning = Beginning {
            predecessor_last: Some(at(1_000)),
            recovered: 17,
            derived: at(1_015),
            recovered_at: at(1_016),
            armed_at: at(1_018),
        };
        let line = stages.clone().line(WorkerId(1), &beginning).expect("a restart");
        assert_eq!(
            line,
            "worker 1 receives again after 18.0 ms: death and exec 10.0, hand-over 3.0, memory \
             1.0, keys 1.0, recovery 1.0, arming 2.0; 17 datagrams recovered"
        );
        beginning.predecessor_last = None;
        assert_eq!(stages.line(WorkerId(1), &beginning), None);
    }
}
