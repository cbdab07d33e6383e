//! Who keeps what at one instant: every recording with its class and its holds, and which extents of a
//! segment are due.

use std::collections::{BTreeMap, BTreeSet};

use super::class::Classes;
use super::facts::Facts;
use super::rules::Rules;
use crate::base::ids::{RsId, SourceId, StreamId};
use crate::base::ports::Disk;
use crate::base::time::Wall;
use crate::config::retention::DEFAULT_CLASS;
use crate::store::archive::{Archive, ArchiveError};
use crate::store::journal::entry::Promise;
use crate::store::segment::{SegmentName, clock_at};

/// A segment is thinned when at least one part in so many of its bytes is due …
const WORTH_PARTS: u64 = 4;
/// … or when something has been due for a day: what must go does not wait for others.
const OVERDUE_NS: i64 = 86_400_000_000_000;
/// The recorder's own events a little before and after a recording explain its edges.
const MARGIN_NS: i64 = 10_000_000_000;

/// A recording and what keeps it.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it is.
    pub facts: Facts,
    /// Its class, and how long that keeps it.
    pub kept: Promise,
    /// Holds that hold it, whatever its class says.
    pub held_by: Vec<u64>,
}

impl Member {
    /// What keeps `facts`.
    pub fn of(facts: Facts, classes: &Classes, rules: &Rules) -> Self {
        let kept = classes.kept(&facts, &rules.shortenings);
        let holds = rules.holds.iter().filter(|(_, hold)| hold.query.matches(&facts));
        let held_by = holds.map(|(number, _)| *number).collect();
        Member { facts, kept, held_by }
    }

    /// Until when its last part is kept by its class; `None`: it is open, or kept for ever.
    pub fn keep_until(&self) -> Option<Wall> {
        self.kept.keep.until(self.facts.end?)
    }

    /// Whether a part of it that came last at `last` may go at `now`.
    fn is_due(&self, last: Wall, now: Wall) -> Option<Wall> {
        let until = self.kept.keep.until(last).filter(|_| self.held_by.is_empty())?;
        (until < now).then_some(until)
    }

    /// Whether something of it stays.
    pub fn stays(&self, now: Wall) -> bool {
        self.facts.end.is_none_or(|end| self.is_due(end, now).is_none())
    }
}

/// All recordings of a store.
#[derive(Clone, Debug, Default)]
pub struct Census {
    members: BTreeMap<RsId, Member>,
    owners: BTreeMap<StreamId, RsId>,
    /// When recordings ran of which something stays: start, and the latest end of all up to there.
    stay: Vec<(Wall, Wall)>,
    now: Wall,
    /// How long the recorder's own events are kept where nothing else needs them.
    own: Promise,
}

/// An extent that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its row in the segment.
    pub row: usize,
    /// The source.
    pub source: SourceId,
    /// Its recording; `None`: the recorder's own events.
    pub recording: Option<RsId>,
    /// By which class.
    pub class: String,
    /// Since when.
    pub since: Wall,
    /// Its bytes.
    pub bytes: u64,
}

/// What may go of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPlan {
    /// The segment.
    pub name: SegmentName,
    /// What is due.
    pub due: Vec<Due>,
    /// Bytes of what is there: of the extents.
    pub bytes: u64,
    /// Extents that stay.
    pub stays: usize,
    /// It is worth to write it anew.
    pub worth: bool,
}

impl SegmentPlan {
    /// Bytes that are due.
    pub fn due_bytes(&self) -> u64 {
        self.due.iter().map(|due| due.bytes).sum()
    }

    /// The recordings that lose something.
    pub fn recordings(&self) -> BTreeSet<RsId> {
        self.due.iter().filter_map(|due| due.recording).collect()
    }
}

impl Census {
    /// The recordings as they are kept at `now`.
    pub fn of(
        facts: impl IntoIterator<Item = Facts>,
        classes: &Classes,
        rules: &Rules,
        now: Wall,
    ) -> Self {
        let members: BTreeMap<RsId, Member> =
            facts.into_iter().map(|facts| (facts.id, Member::of(facts, classes, rules))).collect();
        let streams = |(id, member): (&RsId, &Member)| {
            member.facts.streams.iter().map(|stream| (*stream, *id)).collect::<Vec<_>>()
        };
        let owners = members.iter().flat_map(streams).collect();
        let staying = members.values().filter(|member| member.stays(now));
        let mut stay: Vec<(Wall, Wall)> = staying
            .map(|member| (member.facts.start, member.facts.end.unwrap_or(Wall(i64::MAX))))
            .collect();
        stay.sort_unstable();
        let mut latest = Wall(i64::MIN);
        for (_, end) in &mut stay {
            latest = latest.max(*end);
            *end = latest;
        }
        let own = Promise { class: DEFAULT_CLASS.to_owned(), keep: classes.rest() };
        Census { members, owners, stay, now, own }
    }

    /// All of them, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// One of them.
    pub fn member(&self, id: RsId) -> Option<&Member> {
        self.members.get(&id)
    }

    /// Whether a recording of which something stays ran then.
    fn is_needed(&self, first: Wall, last: Wall) -> bool {
        let (first, last) =
            (Wall(first.0.saturating_sub(MARGIN_NS)), Wall(last.0.saturating_add(MARGIN_NS)));
        let begun = self.stay.partition_point(|(start, _)| *start <= last);
        self.stay[..begun].last().is_some_and(|(_, latest)| *latest >= first)
    }

    /// What is due of `source`, whose records came from `first` to `last`: class, and since when. What
    /// no recording is known of stays: that is damage, and nobody's to remove.
    fn due(&self, source: SourceId, (first, last): (Wall, Wall)) -> Option<(&str, Wall)> {
        if source.stream().is_host() {
            let until = self.own.keep.until(last).filter(|until| *until < self.now)?;
            return (!self.is_needed(first, last)).then_some((&*self.own.class, until));
        }
        let member = self.members.get(self.owners.get(&source.stream())?)?;
        let since = member.is_due(last, self.now)?;
        Some((&*member.kept.class, since))
    }

    /// What may go of segment `name`; `None`: nothing.
    pub fn plan<D: Disk>(
        &self,
        archive: &Archive<D>,
        name: SegmentName,
    ) -> Result<Option<SegmentPlan>, ArchiveError> {
        let (footer, gone) = archive.rows_left(name)?;
        let wall = |mono| clock_at(&footer.clocks, mono).wall(mono);
        // The extents of a stream have one key, which goes with the last of them: so they go together.
        let here = || footer.rows.iter().enumerate().filter(|(row, _)| !gone.contains(row));
        let mut last: BTreeMap<StreamId, Wall> = BTreeMap::new();
        for (_, row) in here() {
            let latest = last.entry(row.source.stream()).or_insert(Wall(i64::MIN));
            *latest = wall(row.last_arrival).max(*latest);
        }
        let mut plan = SegmentPlan { name, due: Vec::new(), bytes: 0, stays: 0, worth: false };
        for (place, row) in here() {
            plan.bytes = plan.bytes.saturating_add(row.bytes);
            let span = (wall(row.first_arrival), last[&row.source.stream()]);
            let Some((class, since)) = self.due(row.source, span) else {
                plan.stays += 1;
                continue;
            };
            plan.due.push(Due {
                row: place,
                source: row.source,
                recording: self.owners.get(&row.source.stream()).copied(),
                class: class.to_owned(),
                since,
                bytes: row.bytes,
            });
        }
        let overdue = |due: &Due| self.now.0.saturating_sub(due.since.0) > OVERDUE_NS;
        plan.worth = plan.stays == 0
            || plan.due_bytes() >= plan.bytes / WORTH_PARTS
            || plan.due.iter().any(overdue);
        Ok((!plan.due.is_empty()).then_some(plan))
    }

    /// Bytes of segment `name` that nothing but holds and classes keep, by what keeps them: `hold 3`,
    /// `class desk`. Whoever needs room asks for it.
    pub fn blockers<D: Disk>(
        &self,
        archive: &Archive<D>,
        name: SegmentName,
        sums: &mut BTreeMap<String, u64>,
    ) -> Result<(), ArchiveError> {
        let (footer, gone) = archive.rows_left(name)?;
        for (_, row) in footer.rows.iter().enumerate().filter(|(row, _)| !gone.contains(row)) {
            let owner = self.owners.get(&row.source.stream());
            let Some(member) = owner.and_then(|id| self.members.get(id)) else { continue };
            let by = match member.held_by.first() {
                Some(hold) => format!("hold {hold}"),
                None => format!("class {} ({})", member.kept.class, member.kept.keep),
            };
            *sums.entry(by).or_default() += row.bytes;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{Index, Position, WorkerId};
    use crate::base::keep::Keep;
    use crate::base::time::{ClockMap, Mono};
    use crate::config::model::Config;
    use crate::store::evidence::SigningKey;
    use crate::store::record::{self, RecordKind, RecordMeta};
    use crate::store::segment::{self, Emitter, SegmentFacts, Span};
    use crate::store::test_disk::TestDisk;

    const DAY: i64 = 86_400_000_000_000;

    fn census(holds: &str, now: i64) -> Census {
        let config: Config = toml::from_str(
            "[store]\nretention = \"10d\"\n[[retention]]\nname = \"long\"\nkeep = \"20d\"\npeer = [\"a\"]\n",
        )
        .expect("a configuration");
        let facts = |number: u8, start: i64, end: Option<i64>, peer: &str| Facts {
            id: RsId([number; 16]),
            start: Wall(start * DAY),
            end: end.map(|end| Wall(end * DAY)),
            streams: [StreamId(u64::from(number))].into(),
            peer: Some(peer.to_owned()),
            promise: Some(Promise { class: "default".to_owned(), keep: Keep::Seconds(1) }),
            ..Facts::default()
        };
        let all = [facts(1, 0, Some(1), "b"), facts(2, 0, Some(1), "a"), facts(3, 5, None, "b")];
        let mut rules = Rules::default();
        if !holds.is_empty() {
            let query = super::super::Query::parse(&[holds.to_owned()], None, None);
            let hold = super::super::Hold {
                query: query.expect("a query"),
                reason: String::new(),
                by: String::new(),
                at: Wall(0),
            };
            rules.holds.insert(7, hold);
        }
        Census::of(all, &Classes::of(&config), &rules, Wall(now * DAY))
    }

    fn due(census: &Census, stream: u64, last: i64) -> Option<String> {
        let source = SourceId::new(StreamId(stream), 1);
        census.due(source, (Wall(0), Wall(last * DAY))).map(|(class, _)| class.to_owned())
    }

    #[test]
    fn each_part_goes_by_its_own_age_and_class() {
        let census = census("", 12);
        assert_eq!(due(&census, 1, 1).as_deref(), Some("default"));
        assert_eq!(due(&census, 2, 1), None, "it is kept longer");
        // A line that is open for weeks loses its old parts.
        assert_eq!(due(&census, 3, 1).as_deref(), Some("default"));
        assert_eq!(due(&census, 3, 3), None);
        assert_eq!(due(&census, 9, 1), None, "nobody knows whose it is");
    }

    /// One secret opens both: the first to be due would go, and stay readable to whoever has its bytes.
    #[test]
    fn the_extents_of_a_stream_in_a_segment_go_together() {
        let (mut ring, mut span) = (Vec::new(), Span::new(Position(0)));
        span.add_clock(ClockMap { mono: Mono(0), wall: Wall(0) });
        for (ordinal, day) in [(1, 1), (2, 3)] {
            let meta = RecordMeta {
                kind: RecordKind::Rtp,
                flags: 0,
                generation: 1,
                source: SourceId::new(StreamId(3), ordinal),
                index: Index(0),
                arrival: Mono(day * DAY as u64),
            };
            let at = ring.len();
            ring.resize(at + record::record_bytes(20), 0);
            record::write(&meta, &[0x80; 20], &mut ring[at..]);
            span.add(Position(at as u64), &record::read(&ring[at..]).expect("just written"));
        }
        span.through = Position(ring.len() as u64);
        let name = SegmentName { worker: WorkerId(0), number: 1 };
        let facts = SegmentFacts {
            worker: name.worker,
            volume: [1; 16],
            number: name.number,
            created: Wall(4 * DAY),
            previous: [0; 32],
            packed: true,
        };
        let emitter = Emitter::new(facts, span, |_| Some([0; 32])).expect("a salt");
        let mut copy = |at: Position, out: &mut [u8]| {
            out.copy_from_slice(&ring[at.0 as usize..at.0 as usize + out.len()]);
            Ok(())
        };
        let bytes = emitter.all(&SigningKey::from_seed(&[1; 32]), &mut copy).expect("memory");
        let (disk, store) = (TestDisk::default(), std::path::Path::new("/store"));
        disk.put(&segment::folder(store).join(name.file()), bytes);
        let archive = Archive::open(disk, store);
        // Recording 3 is kept for ten days from each of its records on.
        let plan = |now| census("", now).plan(&archive, name).expect("memory");
        assert_eq!(plan(12), None, "the other one is not due");
        let plan = plan(14).expect("both are");
        assert_eq!((plan.due.len(), plan.stays), (2, 0));
    }

    #[test]
    fn f77_what_is_held_stays_and_so_does_its_evidence() {
        let held = census("peer:b", 400);
        assert_eq!((due(&held, 1, 1), due(&held, 3, 1)), (None, None));
        assert!(due(&held, 2, 1).is_some());
        let host = |census: &Census, from: i64, to: i64| {
            let source = SourceId::new(StreamId::host(crate::base::ids::WorkerId(0)), 0);
            census.due(source, (Wall(from * DAY), Wall(to * DAY))).is_some()
        };
        assert!(!host(&held, 0, 1), "recording 1 is held");
        assert!(host(&held, 2, 3), "nothing ran that stays");
        assert!(!host(&held, 6, 7), "recording 3 is open");
        assert!(host(&census("", 12), -9, -8) && !host(&census("", 12), 0, 1));
    }
}
