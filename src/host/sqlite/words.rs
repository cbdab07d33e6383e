//! What of a recording goes into the tables of the search, and comes out of them again.
//!
//! The engine is given words that are cut already (`store/query/words.rs`): of its own rules only one counts,
//! that a space ends a word. Values that are one word whatever they are made of stand in the column `tag`,
//! behind a letter that says what they are.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, params};

use super::{Catalogue, engine, unreadable};
use crate::base::ids::RsId;
use crate::base::time::Wall;
use crate::store::catalog::index::{IndexError, Place};
use crate::store::catalog::model::{State, Verdict};
use crate::store::catalog::schema;
use crate::store::query::{Bound, Client, Facts, folded};
use crate::wire::aor;

/// Between two texts of a column, so that no phrase reaches from one into the next: no letter, so no word of
/// a query, and not ASCII, so no end of a word to the engine.
const BREAK: &str = " \u{a6} ";
/// Lengths from which on a recording has the tags of [`super::compile::LONG`].
pub(super) const LONG_NS: [i64; 3] = [3_600_000_000_000, 36_000_000_000_000, 360_000_000_000_000];

/// Longer than 2^25 seconds, a year, is as long as that.
const STEP_MAX: u32 = 25;

/// Which power of two of seconds a length has reached: its tag narrows what must be looked at.
pub(super) fn step(length_ns: i64) -> u32 {
    let seconds = (length_ns / 1_000_000_000).max(1);
    seconds.ilog2().min(STEP_MAX)
}

/// Tags of all lengths that are at least, or at most, so long, and of some that are not.
pub(super) fn steps(bound: Bound, length_ns: i64) -> Vec<String> {
    let at = step(length_ns);
    let (first, last) = match bound {
        Bound::Least => (at, STEP_MAX),
        Bound::Most => (0, at),
    };
    (first..=last).map(|step| format!("d{step}")).collect()
}

/// Who was named in one transaction: its number, and in how many recordings more than before.
#[derive(Default)]
pub(super) struct Words {
    parties: HashMap<(String, String), (i64, i64)>,
    clients: HashMap<Vec<u8>, (i64, i64)>,
}

/// The row of `words`.
struct Document([String; 6]);

/// The word of a verdict.
pub(super) const fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Complete => "complete",
        Verdict::Continuous => "continuous",
        Verdict::Gaps => "gaps",
        Verdict::Empty => "empty",
    }
}

impl Document {
    fn of(facts: &Facts, parties: &[i64], client: i64) -> Self {
        let column = |texts: &[Vec<String>]| {
            texts.iter().map(|text| text.join(" ")).collect::<Vec<_>>().join(BREAK)
        };
        let mut tags: Vec<String> = Vec::new();
        let mut all = |letter: &str, values: &[String]| {
            tags.extend(values.iter().map(|value| format!("{letter}{value}")));
        };
        all("s", &facts.sessions);
        all("l", &facts.labels);
        all("k", &facts.codecs);
        all("c", std::slice::from_ref(&facts.call));
        tags.extend(parties.iter().map(|party| format!("p{party}")));
        tags.push(format!("q{client}"));
        let length = facts.end.unwrap_or(facts.start).0.saturating_sub(facts.start.0);
        tags.push(format!("d{}", step(length)));
        let long = LONG_NS.iter().zip(super::compile::LONG);
        let verdict = facts.verdict.map(|verdict| format!("v{}", verdict_word(verdict)));
        tags.extend(verdict);
        let flags = [
            (facts.gap, "fgap"),
            (facts.dtmf, "fdtmf"),
            (facts.text_line, "ftext"),
            (facts.video_line, "fvideo"),
            (!facts.quirks.is_empty(), "fquirk"),
            (facts.pause, "fpause"),
            (facts.state == State::Ended, "fended"),
            (facts.state == State::Orphan, "forphan"),
            (facts.own, "fown"),
            (facts.sealed, "fsealed"),
            (facts.gone, "fgone"),
        ];
        let flags = flags.into_iter().chain(long.map(|(ns, tag)| (length >= *ns, tag)));
        tags.extend(flags.filter(|(on, _)| *on).map(|(_, tag)| tag.to_owned()));
        Document([
            column(&facts.names),
            column(&facts.aors),
            column(&facts.src),
            column(&facts.texts),
            column(&facts.quirks),
            tags.join(" "),
        ])
    }
}

const PUT_WORDS: &str = "INSERT INTO words (rowid, name, aor, src, text, quirk, tag) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const DELETE_WORDS: &str = "INSERT INTO words (words, rowid, name, aor, src, text, quirk, tag) \
     VALUES ('delete', ?1, ?2, ?3, ?4, ?5, ?6, ?7)";

impl Catalogue {
    /// A place for a recording that nobody has.
    pub(super) fn free_place(&self, start: Wall, id: RsId) -> Result<i64, IndexError> {
        let wanted = Place::of(start, id).0;
        let mask = (1_i64 << Place::BITS) - 1;
        let mut query = self.connection.prepare_cached(schema::TAKEN).map_err(engine)?;
        for step in 0..=mask {
            let place = (wanted & !mask) | ((wanted + step) & mask);
            if !query.exists([place]).map_err(engine)? {
                return Ok(place);
            }
        }
        Err(unreadable("found", "more than 1,024 recordings began within one microsecond"))
    }

    /// Puts in what is searched of a recording.
    pub(super) fn put_words(
        &self,
        words: &mut Words,
        place: i64,
        facts: &Facts,
        client: &Client,
    ) -> Result<(), IndexError> {
        let (parties, client) = self.numbers(words, facts, client, 1)?;
        let Document([name, aor, src, text, quirk, tag]) = Document::of(facts, &parties, client);
        let put = || -> rusqlite::Result<()> {
            let mut put = self.connection.prepare_cached(PUT_WORDS)?;
            put.execute(params![place, name, aor, src, text, quirk, tag])?;
            let found = "INSERT INTO found VALUES (?1, ?2, ?3, ?4, ?5)";
            let end = facts.end.unwrap_or(facts.start);
            let mut put = self.connection.prepare_cached(found)?;
            put.execute(params![place, facts.id.0, facts.start.0, end.0, facts.own])?;
            let mut put = self.connection.prepare_cached("INSERT INTO named VALUES (?1, ?2)")?;
            for party in &parties {
                put.execute([*party, place])?;
            }
            Ok(())
        };
        put().map_err(engine)
    }

    /// Takes it out again: what was put in must be said once more, word for word.
    pub(super) fn remove_words(
        &self,
        words: &mut Words,
        place: i64,
        facts: &Facts,
        client: &Client,
    ) -> Result<(), IndexError> {
        let (parties, client) = self.numbers(words, facts, client, -1)?;
        let Document([name, aor, src, text, quirk, tag]) = Document::of(facts, &parties, client);
        let delete = || -> rusqlite::Result<()> {
            let mut delete = self.connection.prepare_cached(DELETE_WORDS)?;
            delete.execute(params![place, name, aor, src, text, quirk, tag])?;
            let mut delete =
                self.connection.prepare_cached("DELETE FROM found WHERE place = ?1")?;
            delete.execute([place])?;
            let delete = "DELETE FROM named WHERE party = ?1 AND place = ?2";
            let mut delete = self.connection.prepare_cached(delete)?;
            for party in &parties {
                delete.execute([*party, place])?;
            }
            Ok(())
        };
        delete().map_err(engine)
    }

    /// The numbers of who is named and of who sends, for `more` recordings more.
    fn numbers(
        &self,
        words: &mut Words,
        facts: &Facts,
        client: &Client,
        more: i64,
    ) -> Result<(Vec<i64>, i64), IndexError> {
        let mut parties = Vec::with_capacity(facts.parties.len());
        for party in &facts.parties {
            let number = match words.parties.get_mut(party) {
                Some((number, delta)) => {
                    *delta += more;
                    *number
                }
                None => {
                    let number = self.party(party).map_err(engine)?;
                    words.parties.insert(party.clone(), (number, more));
                    number
                }
            };
            parties.push(number);
        }
        let lower = facts.parts.first().cloned().unwrap_or_default();
        let who = postcard::to_allocvec(&(client, &lower));
        let who = who.map_err(|error| unreadable("clients", error))?;
        let client = match words.clients.get_mut(&who) {
            Some((number, delta)) => {
                *delta += more;
                *number
            }
            None => {
                let number = self.client(&who, &lower).map_err(engine)?;
                words.clients.insert(who, (number, more));
                number
            }
        };
        Ok((parties, client))
    }

    fn party(&self, (aor, name): &(String, String)) -> rusqlite::Result<i64> {
        let known = "SELECT party FROM parties WHERE aor = ?1 AND name = ?2";
        let mut known = self.connection.prepare_cached(known)?;
        if let Some(number) = known.query_row([aor, name], |row| row.get(0)).optional()? {
            return Ok(number);
        }
        let put = "INSERT INTO parties (aor, name, plain_aor, plain_name, recordings) \
                   VALUES (?1, ?2, ?3, ?4, 0)";
        let mut put = self.connection.prepare_cached(put)?;
        let number = put.insert(params![aor, name, folded(aor), folded(name)])?;
        let put = "INSERT OR IGNORE INTO forms VALUES (?1, ?2)";
        let mut put = self.connection.prepare_cached(put)?;
        for form in aor::forms(aor) {
            put.execute(params![folded(&form), number])?;
        }
        Ok(number)
    }

    fn client(&self, who: &[u8], lower: &str) -> rusqlite::Result<i64> {
        let known = "SELECT client FROM clients WHERE who = ?1";
        let mut known = self.connection.prepare_cached(known)?;
        if let Some(number) = known.query_row([who], |row| row.get(0)).optional()? {
            return Ok(number);
        }
        let put = "INSERT INTO clients (who, plain, recordings) VALUES (?1, ?2, 0)";
        self.connection.prepare_cached(put)?.insert(params![who, lower])
    }

    /// Counts who was named, and forgets who is named no more.
    pub(super) fn flush_words(&self, words: Words) -> Result<(), IndexError> {
        let flush = || -> rusqlite::Result<()> {
            let count = "UPDATE parties SET recordings = recordings + ?2 WHERE party = ?1 \
                         RETURNING recordings";
            let mut count = self.connection.prepare_cached(count)?;
            for (number, delta) in words.parties.into_values().filter(|(_, delta)| *delta != 0) {
                let left: i64 = count.query_row(params![number, delta], |row| row.get(0))?;
                if left <= 0 {
                    self.connection.execute("DELETE FROM forms WHERE party = ?1", [number])?;
                    self.connection.execute("DELETE FROM parties WHERE party = ?1", [number])?;
                }
            }
            let count = "UPDATE clients SET recordings = recordings + ?2 WHERE client = ?1 \
                         RETURNING recordings";
            let mut count = self.connection.prepare_cached(count)?;
            for (number, delta) in words.clients.into_values().filter(|(_, delta)| *delta != 0) {
                let left: i64 = count.query_row(params![number, delta], |row| row.get(0))?;
                if left <= 0 {
                    self.connection.execute("DELETE FROM clients WHERE client = ?1", [number])?;
                }
            }
            Ok(())
        };
        flush().map_err(engine)
    }
}
