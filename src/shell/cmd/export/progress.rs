//! How far an export is, for somebody who waits for it; and whether he still does.

use std::io::{IsTerminal, Write};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::shell::exit::Exit;

/// How often it is told.
const TELL: Duration = Duration::from_millis(500);
/// How often what is done is made sure of.
const CHECKPOINT: Duration = Duration::from_secs(5);

static STOP: AtomicBool = AtomicBool::new(false);

/// Whether the export is to end early, and what becomes of the process then.
pub(super) struct Interrupt<'a> {
    /// Asked after each so many records and frames, with a count of them all.
    pub(super) asked: &'a dyn Fn(u64) -> bool,
    /// Called once a checkpoint is made; may return, and then nothing more is done.
    pub(super) leave: &'a dyn Fn(),
}

impl Interrupt<'static> {
    /// By Ctrl-C: the first one ends it at a checkpoint, a second one at once.
    pub(super) fn by_user() -> Interrupt<'static> {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            // Without it Ctrl-C ends it at once, which it survives as well.
            let _ = ctrlc::set_handler(|| {
                if STOP.swap(true, Ordering::Relaxed) {
                    std::process::exit(Exit::Interrupted as i32);
                }
            });
        });
        Interrupt {
            asked: &|_| STOP.load(Ordering::Relaxed),
            leave: &|| {
                eprintln!("\nfloortape: interrupted; the same command with --resume goes on");
                std::process::exit(Exit::Interrupted as i32);
            },
        }
    }
}

/// Tells it on a terminal, and says when a checkpoint is due.
pub(super) struct Progress {
    tells: bool,
    what: &'static str,
    began: Instant,
    told: Instant,
    saved: Instant,
}

impl Progress {
    pub(super) fn new() -> Progress {
        let now = Instant::now();
        let tells = std::io::stderr().is_terminal();
        Progress { tells, what: "", began: now, told: now, saved: now }
    }

    /// Another stretch of work begins.
    pub(super) fn begin(&mut self, what: &'static str) {
        (self.what, self.began) = (what, Instant::now());
    }

    /// `done` of `total`, whatever they count.
    pub(super) fn tell(&mut self, done: u64, total: u64, bytes: u64) {
        if !self.tells || self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let share = (done as f64 / total.max(1) as f64).clamp(0.0, 1.0);
        let spent = self.began.elapsed().as_secs_f64();
        let left = if share > 0.01 { spent / share - spent } else { 0.0 };
        let line = format!(
            "{}: {:.0} %, {:.1} MB, {left:.0} s to go",
            self.what,
            share * 100.0,
            bytes as f64 / 1e6
        );
        // Nobody is told what cannot be told.
        let _ = write!(std::io::stderr(), "\r{line:<60}");
    }

    pub(super) fn is_checkpoint_due(&mut self) -> bool {
        let due = self.saved.elapsed() >= CHECKPOINT;
        if due {
            self.saved = Instant::now();
        }
        due
    }

    /// Nothing more is to come.
    pub(super) fn end(&self) {
        if self.tells {
            let _ = write!(std::io::stderr(), "\r{:60}\r", "");
        }
    }
}
