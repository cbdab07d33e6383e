//! Finding recordings: by a plan where the store is in clear; of an encrypted store by looking at each, since
//! nothing of what is said of people stands on its disk in clear.

use rusqlite::types::Value;
use rusqlite::{ToSql, params_from_iter};

use super::compile::{PLACES, Plan, Run};
use super::words::Words;
use super::{Catalogue, engine, unreadable};
use crate::base::ids::RsId;
use crate::store::catalog::RsEntry;
use crate::store::catalog::index::{Find, Found, IndexError, Place};
use crate::store::catalog::model::Recording;
use crate::store::catalog::schema;
use crate::store::query::{Client, Facts};

/// Sealed recordings that are opened at a time.
const OPENED: usize = 64;
/// Where fewer are found by their length, they are sorted; else one walks from the newest until there are
/// enough.
const SORTED_MAX: u64 = 4_096;

impl Catalogue {
    /// See [`crate::store::catalog::Index::find`].
    pub(super) fn search(&self, find: &Find<'_>) -> Result<Found, IndexError> {
        if self.seal.is_some() {
            return self.look_at_each(find);
        }
        let plan = self.plan(find)?;
        let mut found = Found::default();
        let few = plan.by_length && plan.row.is_some() && find.limit > 0;
        let mut runs: Vec<Run> = plan.runs.clone();
        if find.count || few {
            // A run of which there is nothing has no page.
            let mut some = Vec::with_capacity(runs.len());
            for run in runs {
                let count = self.count(&plan, &run).map_err(engine)?;
                found.count += count;
                some.extend((count > 0).then_some(run));
            }
            runs = some;
        }
        let is_few = few && found.count <= SORTED_MAX;
        if find.oldest {
            runs.reverse();
        }
        for run in &mut runs {
            let left = find.limit - found.hits.len();
            if left == 0 {
                break;
            }
            match find.after {
                Some(after) if find.oldest => run.places.0 = run.places.0.max(after.0 + 1),
                Some(after) => run.places.1 = run.places.1.min(after.0 - 1),
                None => {}
            }
            if run.places.0 <= run.places.1 {
                self.page(&plan, run, find.oldest, left, is_few, &mut found.hits)
                    .map_err(engine)?;
            }
        }
        if !find.count {
            found.count = 0;
        }
        Ok(found)
    }

    fn count(&self, plan: &Plan, run: &Run) -> rusqlite::Result<u64> {
        let (source, values) = source(plan, run, Way::Count);
        let mut query = self.connection.prepare_cached(&format!("SELECT count(*) {source}"))?;
        query
            .query_row(params_from_iter(values), |row| row.get::<_, i64>(0))
            .map(|count| count as u64)
    }

    fn page(
        &self,
        plan: &Plan,
        run: &Run,
        oldest: bool,
        limit: usize,
        is_few: bool,
        hits: &mut Vec<(Place, RsId)>,
    ) -> rusqlite::Result<()> {
        let (source, mut values) = source(plan, run, if is_few { Way::Sort } else { Way::Walk });
        let place = place(plan, run);
        let order = if oldest { "" } else { " DESC" };
        // By its length it is found in another order than its place: the `+` says so.
        let sorted = if is_few { "+" } else { "" };
        let text = format!("SELECT {place} {source} ORDER BY {sorted}{place}{order} LIMIT ?");
        values.push(Value::Integer(i64::try_from(limit).unwrap_or(i64::MAX)));
        let mut query = self.connection.prepare_cached(&text)?;
        let places = query.query_map(params_from_iter(values), |row| row.get::<_, i64>(0))?;
        let mut id = self.connection.prepare_cached("SELECT id FROM found WHERE place = ?1")?;
        for place in places {
            let place = place?;
            hits.push((Place(place), RsId(id.query_row([place], |row| row.get(0))?)));
        }
        Ok(())
    }

    /// All recordings in order, the hits of them.
    fn look_at_each(&self, find: &Find<'_>) -> Result<Found, IndexError> {
        let mut found = Found::default();
        let mut at = if find.oldest { i64::MIN } else { i64::MAX };
        if let Some(Place(after)) = find.after.filter(|_| !find.count) {
            at = after;
        }
        let is_behind = |place: i64| match find.after {
            None => true,
            Some(Place(after)) if find.oldest => place > after,
            Some(Place(after)) => place < after,
        };
        loop {
            let some = self.sealed_after(at, find)?;
            let Some(last) = some.last().map(|(place, _)| *place) else { break };
            at = last;
            for (place, facts) in some.into_iter() {
                let Some(facts) = facts else { continue };
                if (facts.own && !find.own) || !find.query.matches(&facts, find.now) {
                    continue;
                }
                found.count += 1;
                if found.hits.len() < find.limit && is_behind(place) {
                    found.hits.push((Place(place), facts.id));
                }
            }
            if !find.count && found.hits.len() >= find.limit {
                break;
            }
        }
        if !find.count {
            found.count = 0;
        }
        Ok(found)
    }

    /// The next few, and their facts where they are whole.
    fn sealed_after(
        &self,
        at: i64,
        find: &Find<'_>,
    ) -> Result<Vec<(i64, Option<Facts>)>, IndexError> {
        let text = if find.oldest { schema::FORWARDS } else { schema::BACKWARDS };
        let mut query = self.connection.prepare_cached(text).map_err(engine)?;
        let mut rows = query.query([&at as &dyn ToSql, &(OPENED as i64)]).map_err(engine)?;
        let mut some = Vec::with_capacity(OPENED);
        while let Some(row) = rows.next().map_err(engine)? {
            let place: i64 = row.get(1).map_err(engine)?;
            let id: String = row.get(0).map_err(engine)?;
            let json = super::whole(row, 2, &id).map_err(engine)?;
            let entry = super::whole(row, 4, &id).map_err(engine)?;
            // What fails its sum is read from the records by whoever asks.
            let facts = json.zip(entry).and_then(|(json, entry)| {
                let json = self.opened(&id, json).ok()?;
                let entry = self.opened(&id, entry).ok()?;
                let recording: Recording = serde_json::from_slice(&json).ok()?;
                let entry: RsEntry = postcard::from_bytes(&entry).ok()?;
                let mut facts = Facts::of(&recording);
                facts.peer = (find.peers)(&Client::of(&entry));
                Some(facts)
            });
            some.push((place, facts));
        }
        Ok(some)
    }

    /// For whoever fills a catalogue of millions at once: pages are kept in so much memory meanwhile.
    pub fn keep_pages(&self, mib: u32) -> Result<(), IndexError> {
        let kib = i64::from(mib) * 1_024;
        self.connection.pragma_update(None, "cache_size", -kib).map_err(engine)
    }

    /// For measurements: puts what is searched of recordings, without the recordings themselves.
    pub fn put_found(&mut self, some: &[(Facts, Client)]) -> Result<(), IndexError> {
        if self.seal.is_some() {
            return Err(unreadable("found", "expected a store in clear"));
        }
        self.together(|index, words: &mut Words| {
            some.iter().try_for_each(|(facts, client)| {
                let place = index.free_place(facts.start, facts.id)?;
                index.put_words(words, place, facts, client)
            })
        })
    }
}

/// How rows are come by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// All of them, to be counted.
    Count,
    /// All of them, to be sorted.
    Sort,
    /// In their order, until there are enough.
    Walk,
}

/// What a run is asked of, and with which values.
fn source(plan: &Plan, run: &Run, way: Way) -> (String, Vec<Value>) {
    let mut values = Vec::new();
    let mut conditions: Vec<String> = Vec::new();
    let from = match (&run.words, plan.listed) {
        (Some(words), _) => {
            conditions.push("words MATCH ?".to_owned());
            values.push(Value::Text(words.clone()));
            match plan.row.is_some() || run.end.is_some() {
                true => "words CROSS JOIN found ON found.place = words.rowid".to_owned(),
                false => "words".to_owned(),
            }
        }
        (None, Some(listed)) => match plan.row.is_some() || run.end.is_some() {
            true => format!("{listed} AS listed CROSS JOIN found ON found.place = listed.place"),
            false => format!("{listed} AS listed"),
        },
        (None, None) if way == Way::Walk => "found NOT INDEXED".to_owned(),
        (None, None) => "found".to_owned(),
    };
    let place = place(plan, run);
    let (first, last) = run.places;
    if first != i64::MIN {
        conditions.push(format!("{place} >= ?"));
        values.push(Value::Integer(first));
    }
    if last != i64::MAX {
        conditions.push(format!("{place} <= ?"));
        values.push(Value::Integer(last));
    }
    let places = format!("AND rowid >= {first} AND rowid <= {last}");
    if let (Some(_), Some(listed)) = (&run.words, plan.listed) {
        conditions.push(format!("words.rowid IN (SELECT rowid FROM {listed} WHERE 1 {places})"));
    }
    let lengths = plan.lengths.iter().filter(|_| run.words.is_some());
    for (text, own) in lengths.chain(&plan.row) {
        conditions.push(text.replace(PLACES, &places));
        values.extend(own.iter().cloned());
    }
    if let Some(end) = run.end {
        conditions.push("found.end >= ?".to_owned());
        values.push(Value::Integer(end.0));
    }
    let conditions = if conditions.is_empty() { "1".to_owned() } else { conditions.join(" AND ") };
    (format!("FROM {from} WHERE {conditions}"), values)
}

/// What a place is called in it.
fn place(plan: &Plan, run: &Run) -> &'static str {
    match (&run.words, plan.listed) {
        (Some(_), _) => "words.rowid",
        (None, Some(_)) => "listed.place",
        (None, None) => "found.place",
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
