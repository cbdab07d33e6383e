//! What still stands of all that the journal has said: what control needs to go on (F59), and no
//! more. It grows with what is live, not with what was: [`super::snapshot`] keeps it on disk, so that
//! a start reads the journal from there on.
//!
//! Secrets stay sealed in it. Learning a run of entries a second time, in order, changes nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::{Answered, DialogState, Entry, Hold, Sealed, SessionTimer, StreamOpened};
use crate::base::ids::{Generation, RsId, Slot, StreamId};
use crate::base::time::Wall;
use crate::store::log::{Marks, learn_marks};

/// Answers that are known again, per RS: more are not under way at once.
const ANSWERS_MAX: usize = 8;
/// For this long a request may be repeated (64·T1, RFC 3261 §17.1.2.2).
pub const REPEATS_NS: i64 = 32_000_000_000;
/// RSs that are over, of which the salt is known: 2,500 streams in calls of two, renewed each
/// minute, for ten minutes.
const OVER_MAX: usize = 16_384;
/// A salt is not asked for longer than this: control keeps it for two hours and a segment's span,
/// which is at most an hour.
const OVER_NS: i64 = 24 * 3_600 * 1_000_000_000;

/// Everything that stands. A copy shares what does not change meanwhile, so that it costs little whatever
/// there is: one is made for each snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Standings {
    /// Id of the store whose journal it is; empty where no entry has said it.
    pub volume: String,
    /// RSs that are up, or have just ended.
    pub recordings: BTreeMap<RsId, Arc<Standing>>,
    /// RSs that are over.
    pub over: BTreeMap<RsId, Arc<Over>>,
    /// The next free stream id, and the bound that was reserved.
    pub stream_ids: (StreamId, StreamId),
    /// The last use of each slot.
    pub generations: BTreeMap<Slot, Generation>,
    /// How far each worker's log was durable.
    pub marks: Marks,
    /// The latest instant that any entry names: something ran then.
    pub alive: Wall,
}

/// One RS that is up, or has just ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// When it was accepted.
    pub since: Wall,
    /// The dialog.
    pub dialog: DialogState,
    /// Salt of its leaf hashes, sealed.
    pub salt: Sealed,
    /// Streams that are not closed, in m-line order.
    pub streams: Vec<StreamOpened>,
    /// Streams that have left it and may still be open in media.
    pub leaving: Vec<StreamOpened>,
    /// All streams that it ever had.
    pub all: BTreeSet<StreamId>,
    /// The SDP of our last answer, sealed.
    pub answer_sdp: Sealed,
    /// Its last requests with a 2xx.
    pub answers: VecDeque<Answer>,
    /// Number of its last body.
    pub bodies: u32,
    /// Bodies that its INVITE had: with fewer of them it was never accepted.
    #[serde(default)]
    pub counted: u32,
    /// CSeq of its BYE and when it came, if it is over.
    pub ended: Option<(u32, Wall)>,
    /// Its BYE is ours, and may not have left.
    #[serde(default)]
    pub bye: bool,
    /// Its session timer.
    #[serde(default)]
    pub timer: Option<SessionTimer>,
    /// That has run out, and media still came (F51).
    #[serde(default)]
    pub orphan: bool,
    /// What an operator decided of it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
}

/// A request with a 2xx.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The request.
    pub answered: Answered,
    /// The SDP of the answer, sealed.
    pub sdp: Sealed,
    /// When.
    pub at: Wall,
    /// The session timer that it agrees to.
    #[serde(default)]
    pub timer: Option<SessionTimer>,
}

/// One RS that is over: its salt is wanted until all its records are in segments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Over {
    /// Salt of its leaf hashes, sealed.
    pub salt: Sealed,
    /// All streams that it ever had.
    pub streams: BTreeSet<StreamId>,
    /// When it ended.
    pub at: Wall,
}

impl Default for Standings {
    fn default() -> Self {
        Standings {
            volume: String::new(),
            recordings: BTreeMap::new(),
            over: BTreeMap::new(),
            stream_ids: (StreamId(1), StreamId(1)),
            generations: BTreeMap::new(),
            marks: Marks::new(),
            alive: Wall::default(),
        }
    }
}

impl Standing {
    /// Whether all of its acceptance is there: it stands in several entries, synced together before
    /// the 200 left, and a cut may leave the first ones.
    pub fn was_accepted(&self) -> bool {
        self.bodies >= self.counted
    }

    /// Whether none of its streams can be open.
    pub fn is_quiet(&self) -> bool {
        self.streams.is_empty() && self.leaving.is_empty()
    }

    /// The entry that was just taken stands for a request with a 2xx.
    fn note_answer(&mut self, at: Wall, timer: Option<SessionTimer>) {
        let Some(answered) = self.dialog.answered.clone() else {
            // Its change was refused after all: the 200 that stood ready never left.
            let refused = self.dialog.remote_cseq;
            return self.answers.retain(|answer| answer.answered.cseq != refused);
        };
        self.answers.retain(|answer| {
            answer.answered.cseq != answered.cseq || answer.answered.method != answered.method
        });
        self.answers.push_back(Answer { answered, sdp: self.answer_sdp.clone(), at, timer });
        if self.answers.len() > ANSWERS_MAX {
            self.answers.pop_front();
        }
    }
}

impl Standings {
    /// All entries, in order.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut standings = Standings::default();
        entries.into_iter().for_each(|entry| standings.learn(entry));
        standings
    }

    /// Takes one entry. What names an unknown RS is left out.
    pub fn learn(&mut self, entry: &Entry) {
        self.alive = self.alive.max(written(entry).unwrap_or_default());
        match entry {
            // What is over is read before it where the history is.
            Entry::StreamIds { next } => {
                let (free, bound) = self.stream_ids;
                self.stream_ids = (free.max(*next), bound.max(*next));
            }
            Entry::Durable { marks, .. } => learn_marks(&mut self.marks, marks),
            Entry::Opened { rs, at, dialog, salt, streams, answer_sdp, bodies, timer, .. } => {
                self.use_up(streams);
                let mut standing = Standing {
                    since: *at,
                    dialog: dialog.clone(),
                    salt: salt.clone(),
                    streams: streams.clone(),
                    leaving: Vec::new(),
                    all: ids(streams).collect(),
                    answer_sdp: answer_sdp.clone(),
                    // Few RSs ever have a second one under way.
                    answers: VecDeque::with_capacity(1),
                    bodies: 0,
                    counted: bodies.unwrap_or(0),
                    ended: None,
                    bye: false,
                    timer: *timer,
                    orphan: false,
                    hold: None,
                };
                standing.note_answer(*at, *timer);
                self.over.remove(rs);
                self.recordings.insert(*rs, Arc::new(standing));
            }
            Entry::Changed { rs, at, dialog, streams, answer_sdp, timer, hold, .. } => {
                self.use_up(streams);
                if let Some(standing) = self.standing(*rs) {
                    standing.dialog = dialog.clone();
                    standing.all.extend(ids(streams));
                    let goes = |gone: &StreamOpened| {
                        !ids(streams).any(|stream| stream == gone.description.stream)
                    };
                    standing.leaving.retain(goes);
                    let before = std::mem::replace(&mut standing.streams, streams.clone());
                    standing.leaving.extend(before.into_iter().filter(goes));
                    standing.answer_sdp = answer_sdp.clone();
                    standing.note_answer(*at, *timer);
                    (standing.timer, standing.orphan) = (*timer, false);
                    if hold.is_some() {
                        standing.hold.clone_from(hold);
                    }
                }
            }
            Entry::Timer { rs, timer, orphan, .. } => {
                if let Some(standing) = self.standing(*rs) {
                    (standing.timer, standing.orphan) = (*timer, *orphan);
                }
            }
            Entry::Body { rs, number, .. } => {
                if let Some(standing) = self.standing(*rs) {
                    standing.bodies = *number;
                }
            }
            Entry::StreamClosed { rs, stream, .. } => {
                if let Some(standing) = self.standing(*rs) {
                    standing.streams.retain(|open| open.description.stream != *stream);
                    standing.leaving.retain(|open| open.description.stream != *stream);
                }
            }
            Entry::Ended { rs, remote_cseq, at, bye, .. } => {
                if let Some(standing) = self.standing(*rs) {
                    standing.ended = Some((*remote_cseq, *at));
                    standing.bye = *bye;
                }
            }
            Entry::Start { volume, .. } => self.volume.clone_from(volume),
            Entry::Direction { .. } | Entry::Forgotten { .. } => {}
        }
    }

    /// Forgets what nobody asks for any more, by the clock of the entries: however long nothing
    /// ran, what was not sealed then is not sealed now.
    pub fn forget(&mut self) {
        self.recordings.retain(|_, standing| standing.was_accepted());
        let alive = self.alive.0;
        let is_over = |standing: &Standing| {
            standing.is_quiet() && standing.ended.is_some_and(|(_, at)| alive - at.0 > REPEATS_NS)
        };
        let over = self.recordings.extract_if(.., |_, standing| is_over(standing));
        self.over.extend(over.filter_map(|(rs, standing)| {
            let (_, at) = standing.ended?;
            let (salt, streams) = (standing.salt.clone(), standing.all.clone());
            Some((rs, Arc::new(Over { salt, streams, at })))
        }));
        self.over.retain(|_, over| alive - over.at.0 <= OVER_NS);
        // Ids begin with their time: the oldest are in front.
        while self.over.len() > OVER_MAX {
            self.over.pop_first();
        }
        for standing in self.recordings.values_mut().filter(|one| one.answers.len() > 2) {
            // Older ones do not come again. The last one says what the dialog is at, the one before
            // if the last one turns out to be refused.
            let standing = Arc::make_mut(standing);
            let last = standing.answers.len().saturating_sub(2);
            let mut place = 0;
            standing.answers.retain(|answer| {
                place += 1;
                place > last || alive - answer.at.0 < REPEATS_NS
            });
        }
    }

    fn standing(&mut self, rs: RsId) -> Option<&mut Standing> {
        self.recordings.get_mut(&rs).map(Arc::make_mut)
    }

    fn use_up(&mut self, streams: &[StreamOpened]) {
        for stream in streams {
            let used = self.generations.entry(stream.description.slot).or_default();
            *used = (*used).max(stream.generation);
            let next = StreamId(stream.description.stream.0 + 1);
            if self.stream_ids.0 < next {
                self.stream_ids = (next, self.stream_ids.1.max(next));
            }
        }
    }
}

fn ids(streams: &[StreamOpened]) -> impl Iterator<Item = StreamId> + '_ {
    streams.iter().map(|stream| stream.description.stream)
}

/// When an entry was written, as far as it says.
pub(super) fn written(entry: &Entry) -> Option<Wall> {
    match entry {
        Entry::Start { at, .. }
        | Entry::Opened { at, .. }
        | Entry::Changed { at, .. }
        | Entry::Timer { at, .. }
        | Entry::Direction { at, .. }
        | Entry::Body { at, .. }
        | Entry::StreamClosed { at, .. }
        | Entry::Ended { at, .. } => Some(*at),
        Entry::Durable { marks, .. } => marks.iter().map(|mark| mark.at).max(),
        Entry::StreamIds { .. } | Entry::Forgotten { .. } => None,
    }
}
