//! Keeper's vigil over its roles: whether they turn (F07), and how long media was away (F01).

use std::time::Duration;

use crate::base::time::Mono;
use crate::plane::keeper::{Role, Watch};
use crate::shell::serve::notify;

/// A worker's turn is a few milliseconds.
const WORKER_HANGS_MS: u64 = 1_000;
/// Control and media's command thread say each second that they turn.
const LOOP_HANGS_MS: u64 = 5_000;
/// An absence above this is an alarm.
const GAP_ALARM_MS: u64 = 1_000;
/// So is a death more than this many within [`DEATHS_NS`].
const DEATHS_MAX: usize = 3;
const DEATHS_NS: u64 = 60_000_000_000;

/// What one look shows.
pub(super) struct Seen<'a> {
    pub(super) now: Mono,
    /// Monotonic ns of each worker's last turn.
    pub(super) workers: &'a [u64],
}

/// One role under watch.
struct Post {
    watch: Watch,
    /// Beats heard.
    beats: u64,
    ready: bool,
}

impl Post {
    fn new() -> Self {
        Post { watch: Watch::new(LOOP_HANGS_MS), beats: 0, ready: false }
    }
}

/// See the module.
pub(super) struct Vigil {
    media: Post,
    control: Post,
    workers: Watch,
    next: Mono,
    /// When media died last, and the last turn of each worker before.
    died: Option<Vec<u64>>,
    deaths: Vec<Mono>,
    /// How often the service manager wants to hear from us, and when next.
    watchdog: Option<(Duration, Mono)>,
}

impl Vigil {
    pub(super) fn new(now: Mono) -> Self {
        Vigil {
            media: Post::new(),
            control: Post::new(),
            workers: Watch::new(WORKER_HANGS_MS),
            next: now,
            died: None,
            deaths: Vec::new(),
            watchdog: notify::watchdog_interval().map(|interval| (interval, now)),
        }
    }

    fn post(&mut self, role: Role) -> &mut Post {
        match role {
            Role::Media => &mut self.media,
            Role::Control => &mut self.control,
        }
    }

    /// A process begins; it is watched once it is ready.
    pub(super) fn started(&mut self, role: Role) {
        *self.post(role) = Post::new();
        if role == Role::Media {
            self.workers.reset();
        }
    }

    /// It is ready. Says how long media was away.
    pub(super) fn ready(&mut self, role: Role, now: Mono, workers: &[u64]) {
        self.post(role).ready = true;
        if role != Role::Media {
            return;
        }
        let Some(before) = self.died.take() else { return };
        // The successor's first turn may be yet to come: then it is now.
        let gaps = before.iter().zip(workers).map(|(last, first)| {
            let first = if first > last { *first } else { now.0 };
            first.saturating_sub(*last)
        });
        let us = gaps.max().unwrap_or(0) / 1_000;
        let (ms, part) = (us / 1_000, us % 1_000);
        tracing::warn!("media was away for {ms}.{part:03} ms");
        if ms >= GAP_ALARM_MS {
            tracing::error!(
                "alarm: nothing was captured for {ms} ms; packets waited in the sockets"
            );
        }
        self.deaths.retain(|death| now.since(*death) < DEATHS_NS);
        if self.deaths.len() > DEATHS_MAX {
            tracing::error!("alarm: media died {} times within a minute", self.deaths.len());
        }
    }

    /// It was reaped.
    pub(super) fn died(&mut self, role: Role, now: Mono, workers: &[u64]) {
        self.post(role).ready = false;
        if role == Role::Media {
            self.died = Some(workers.to_vec());
            self.deaths.push(now);
        }
    }

    /// Its loop turns.
    pub(super) fn beat(&mut self, role: Role) {
        self.post(role).beats += 1;
    }

    /// One look at everything, at most every tenth of a second; a role that hangs.
    pub(super) fn look(&mut self, seen: &Seen<'_>) -> Option<Role> {
        if seen.now < self.next {
            return None;
        }
        self.next = seen.now.plus_ms(super::keeper::LOOK_MS);
        let mut hangs = None;
        if self.media.ready && self.workers.look(seen.now, seen.workers).is_some() {
            hangs = Some(Role::Media);
        }
        for role in [Role::Media, Role::Control] {
            let post = self.post(role);
            if post.ready && post.watch.look(seen.now, &[post.beats]).is_some() {
                hangs = Some(role);
            }
        }
        match hangs {
            // Said once: it is killed now.
            Some(role) => self.post(role).ready = false,
            // Tied to recording: a manager that hears nothing starts all of us again.
            None if self.media.ready => self.pat(seen.now),
            None => {}
        }
        hangs
    }

    fn pat(&mut self, now: Mono) {
        if let Some((interval, next)) = &mut self.watchdog
            && now >= *next
        {
            *next = now.plus_ms(interval.as_millis() as u64);
            notify::say("WATCHDOG=1");
        }
    }
}
