//! What was done to each stream, when and by whom, as the journal tells it (REQ-024): pauses have no
//! element in RFC 7865, so that nobody but the recorder can say it.
//!
//! Facts are kept by their time and put together when somebody asks: entries may be taken twice.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::fold::StreamEntry;
use crate::base::ids::StreamId;
use crate::base::time::Wall;
use crate::store::event::Origin;
use crate::store::journal::entry::{DialogState, Hold, StreamOpened};

/// Facts of a kind that are kept per RS: a peer that pauses for ever must not fill memory.
const FACTS_MAX: usize = 65_536;

/// What was done to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Recording of it began: with its RS, or as a line that came to it.
    Start,
    /// Nothing of it is stored from then on.
    Pause,
    /// It is stored again.
    Resume,
    /// It ended: with its RS, or as a line that left it.
    Stop,
}

/// One step in a stream's life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was done.
    pub action: Action,
    /// When it was so: media's own instant where the journal has it, else when it was decided.
    pub at: Wall,
    /// Who asked.
    pub by: Origin,
    /// By what: a request (`INVITE 101`), an operator, the reason of an end.
    pub why: String,
}

/// All that was decided of an RS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// Acceptance and changes, by when they were decided.
    turns: BTreeMap<Wall, Turn>,
    /// When media had paused or resumed a stream: whether it was active then.
    carried_out: BTreeMap<(StreamId, Wall), bool>,
    end: Option<(Wall, Origin, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Turn {
    /// Who and by what; `None`: it takes back the one before, whose request got no 2xx after all.
    asked: Option<(Origin, String)>,
    /// All streams that there are from then on, and whether they are active.
    streams: BTreeMap<StreamId, bool>,
}

impl Turns {
    /// The RS was accepted, or we called for it.
    pub(super) fn opened(&mut self, at: Wall, dialog: &DialogState, streams: &[StreamOpened]) {
        let own = || (Origin::Srs, "INVITE of the SRS".to_owned());
        self.turn(at, Some(request(dialog).unwrap_or_else(own)), streams);
    }

    /// It was changed.
    pub(super) fn changed(
        &mut self,
        at: Wall,
        dialog: &DialogState,
        (hold, refused): (Option<&Hold>, bool),
        streams: &[StreamOpened],
    ) {
        let held = hold.filter(|hold| !hold.tells || hold.ends.is_some());
        let held = held.map(|hold| match (hold.ends, hold.info) {
            (Some(uid), _) => (Origin::Srs, format!("operator, uid {uid}")),
            (None, Some(cseq)) => (Origin::Src, format!("INFO {cseq}")),
            (None, None) => (Origin::Srs, format!("operator, uid {}", hold.uid)),
        });
        // Nobody asked: what the recording policy wants has changed.
        let policy = || (Origin::Srs, "policy".to_owned());
        let asked = held.or_else(|| request(dialog)).unwrap_or_else(policy);
        self.turn(at, (!refused).then_some(asked), streams);
    }

    fn turn(&mut self, at: Wall, asked: Option<(Origin, String)>, streams: &[StreamOpened]) {
        let streams = streams.iter().map(|one| (one.description.stream, one.active)).collect();
        if self.turns.len() < FACTS_MAX {
            self.turns.insert(at, Turn { asked, streams });
        }
    }

    /// Media has carried out a pause or resume.
    pub(super) fn carried_out(&mut self, stream: StreamId, at: Wall, active: bool) {
        if self.carried_out.len() < FACTS_MAX {
            self.carried_out.insert((stream, at), active);
        }
    }

    /// It is over.
    pub(super) fn ended(&mut self, at: Wall, by: Origin, why: &str) {
        self.end = Some((at, by, why.to_owned()));
    }

    /// What was done to a stream of it, in order.
    pub(super) fn of(&self, stream: &StreamEntry) -> Vec<Step> {
        let id = stream.description.stream;
        let mut steps = Vec::new();
        let mut before = None;
        for (at, turn) in self.valid() {
            let Some((by, why)) = turn.asked.clone() else { continue };
            let now = turn.streams.get(&id).copied();
            let mut add = |action| steps.push(Step { action, at: *at, by, why: why.clone() });
            match (before, now) {
                (None, Some(active)) => {
                    add(Action::Start);
                    if !active {
                        add(Action::Pause);
                    }
                }
                (Some(true), Some(false)) => add(Action::Pause),
                (Some(false), Some(true)) => add(Action::Resume),
                (Some(_), None) => {
                    add(Action::Stop);
                    break;
                }
                _ => {}
            }
            before = now;
        }
        let stopped = steps.last().is_some_and(|last| last.action == Action::Stop);
        if let (false, Some((at, by, why))) = (stopped, self.end.clone()) {
            steps.push(Step { action: Action::Stop, at, by, why });
        }
        self.correct(id, &mut steps);
        if let (Some(closed), Some(last)) = (stream.closed, steps.last_mut())
            && last.action == Action::Stop
        {
            // What was under way at the end of the RS is waited for a little.
            last.at = closed.min(self.end.as_ref().map_or(closed, |(end, ..)| *end));
        }
        steps
    }

    /// What was decided and not taken back.
    fn valid(&self) -> Vec<(&Wall, &Turn)> {
        let mut valid = Vec::new();
        for (at, turn) in &self.turns {
            if turn.asked.is_some() {
                valid.push((at, turn));
            } else {
                valid.pop();
            }
        }
        valid
    }

    /// Pauses and resumes are when media had them: at the first instant behind the decision, and before
    /// the next one.
    fn correct(&self, stream: StreamId, steps: &mut [Step]) {
        let ends: Vec<Wall> =
            steps.iter().skip(1).map(|next| next.at).chain([Wall(i64::MAX)]).collect();
        for (step, end) in steps.iter_mut().zip(ends) {
            let active = match step.action {
                Action::Pause => false,
                Action::Resume => true,
                Action::Start | Action::Stop => continue,
            };
            let told = self.carried_out.range((stream, step.at)..=(stream, end));
            let mut same = told.filter(|(_, found)| **found == active);
            if let Some(((_, at), _)) = same.next() {
                step.at = *at;
            }
        }
    }

    /// All instants that [`Self::of`] names.
    pub(super) fn instants(&self, stream: &StreamEntry) -> BTreeSet<Wall> {
        self.of(stream).into_iter().map(|step| step.at).collect()
    }
}

/// The request that an entry stands for.
fn request(dialog: &DialogState) -> Option<(Origin, String)> {
    let answered = dialog.answered.as_ref()?;
    Some((Origin::Src, format!("{} {}", answered.method, answered.cseq)))
}
