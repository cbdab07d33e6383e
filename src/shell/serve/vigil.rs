//! Keeper's vigil over its roles: whether they turn (F07), and how long media was away (F01).

use std::time::Duration;

use crate::base::time::Mono;
use crate::plane::keeper::{Role, Watch};
use crate::shell::serve::notify;

/// A worker's turn is a few milliseconds.
const WORKER_HANGS_MS: u64 = 1_000;
/// Control and media's command thread say each second that they turn.
const LOOP_HANGS_MS: u64 = 5_000;
/// A successor of media waits for no disk and no peer: it receives within a fraction of a second. A
/// spare that has begun says each second that it waits.
const START_HANGS_MS: u64 = 10_000;
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
    /// Whether it stands still on its way to being ready; `None`: what it waits for may take its time.
    begins: Option<Watch>,
    /// Beats heard.
    beats: u64,
    ready: bool,
}

impl Post {
    fn new() -> Self {
        Post { watch: Watch::new(LOOP_HANGS_MS), begins: None, beats: 0, ready: false }
    }
}

/// See the module.
pub(super) struct Vigil {
    media: Post,
    control: Post,
    spare: Post,
    workers: Watch,
    next: Mono,
    /// A role was told to end.
    ending: bool,
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
            spare: Post::new(),
            workers: Watch::new(WORKER_HANGS_MS),
            next: now,
            ending: false,
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

    /// A process begins; it is watched once it is ready, and before that where it has nothing to wait
    /// for: a successor of media over memory that others have made.
    pub(super) fn started(&mut self, role: Role, waits_for_nothing: bool) {
        let begins = waits_for_nothing.then(|| Watch::new(START_HANGS_MS));
        *self.post(role) = Post { begins, ..Post::new() };
        if role == Role::Media {
            self.workers.reset();
        }
    }

    /// A spare of media begins. It beats from when it is ready on.
    pub(super) fn spare_started(&mut self) {
        self.spare = Post { watch: Watch::new(START_HANGS_MS), ..Post::new() };
    }

    /// The spare said something.
    pub(super) fn spare_beats(&mut self) {
        self.spare.beats += 1;
    }

    /// A look at the spare that there is; whether it hangs. Let go, it would only be in the way.
    pub(super) fn spare_hangs(&mut self, now: Mono) -> bool {
        let beats = [self.spare.beats];
        self.spare.watch.look(now, &beats).is_some()
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

    /// It was told to end: from here on it is the machine that is patient. Its workers stand still,
    /// and what they captured may be on its way to a slow disk.
    pub(super) fn ends(&mut self, role: Role) {
        (self.post(role).ready, self.post(role).begins) = (false, None);
        self.ending = true;
    }

    /// Its loop turns.
    pub(super) fn beat(&mut self, role: Role) {
        self.post(role).beats += 1;
    }

    /// Whether it is time for a look: every tenth of a second.
    pub(super) fn is_due(&mut self, now: Mono) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now.plus_ms(super::keeper::LOOK_MS);
        }
        due
    }

    /// One look at both roles; one that hangs.
    pub(super) fn look(&mut self, seen: &Seen<'_>) -> Option<Role> {
        let mut hangs = None;
        if self.media.ready && self.workers.look(seen.now, seen.workers).is_some() {
            hangs = Some(Role::Media);
        }
        for role in [Role::Media, Role::Control] {
            let post = self.post(role);
            let hung = match (&mut post.begins, post.ready) {
                (_, true) => post.watch.look(seen.now, &[post.beats]),
                (Some(begins), false) => begins.look(seen.now, &[0]),
                (None, false) => None,
            };
            if hung.is_some() {
                hangs = Some(role);
            }
        }
        match hangs {
            // Said once: it is killed now.
            Some(role) => (self.post(role).ready, self.post(role).begins) = (false, None),
            // Tied to recording: a manager that hears nothing starts all of us again.
            None if self.media.ready || self.ending => self.pat(seen.now),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn vigil() -> Vigil {
        Vigil::new(Mono(0))
    }

    /// Looks every tenth of a second, `seconds` long from `from_s` on; when which role was said to hang.
    fn hangs(vigil: &mut Vigil, from_s: u64, seconds: u64) -> Vec<(u64, Role)> {
        let look = |tenth: u64| {
            let now = Mono(tenth * 100_000_000);
            let found = vigil.look(&Seen { now, workers: &[tenth] });
            found.map(|role| (tenth / 10, role))
        };
        (from_s * 10..(from_s + seconds) * 10).filter_map(look).collect()
    }

    #[test]
    fn f07_a_successor_of_media_that_never_becomes_ready_hangs_and_is_named_once() {
        let mut vigil = vigil();
        vigil.started(Role::Media, true);
        assert_eq!(hangs(&mut vigil, 0, 40), [(10, Role::Media)]);
        // Its own successor has time of its own.
        vigil.started(Role::Media, true);
        assert_eq!(hangs(&mut vigil, 40, 9), []);
        vigil.ready(Role::Media, Mono(49_000_000_000), &[0]);
        vigil.beat(Role::Media);
        assert_eq!(hangs(&mut vigil, 49, 4), []);
    }

    #[test]
    fn who_was_told_to_end_stands_still_as_it_should() {
        let mut vigil = vigil();
        vigil.started(Role::Media, true);
        vigil.ready(Role::Media, Mono(0), &[0]);
        vigil.ends(Role::Media);
        let still = (0..100)
            .find_map(|tenth| vigil.look(&Seen { now: Mono(tenth * 100_000_000), workers: &[7] }));
        assert_eq!(still, None);
    }

    #[test]
    fn who_may_have_to_wait_is_watched_from_ready_on() {
        let mut vigil = vigil();
        vigil.started(Role::Media, false);
        vigil.started(Role::Control, false);
        assert_eq!(hangs(&mut vigil, 0, 60), []);
    }

    #[test]
    fn a_spare_that_no_longer_beats_hangs() {
        let mut vigil = vigil();
        vigil.spare_started();
        for second in 0..30 {
            assert!(!vigil.spare_hangs(Mono(second * 1_000_000_000)));
            vigil.spare_beats();
        }
        let silent = (300..450_u64).find(|tenth| vigil.spare_hangs(Mono(tenth * 100_000_000)));
        assert!(silent.is_some_and(|tenth| (390..=400).contains(&tenth)), "{silent:?}");
        vigil.spare_started();
        assert!(!vigil.spare_hangs(Mono(45_000_000_000)));
    }
}
