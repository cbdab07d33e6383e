//! Lists of places that are made once for a search: to open what a thousand parties are in costs more than to read
//! it, and a search would open it for its count and its page, and for each of its runs. They stand in memory, in
//! tables of the connection's own.

use std::fmt;

use rusqlite::params;

use super::Catalogue;

/// Longer ones are not made: then most of what is looked at is a hit, and it is looked at in order.
const PLACES_MAX: usize = 400_000;

/// A list that was made; the name of its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed(u32);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "temp.listed_{}", self.0)
    }
}

impl Catalogue {
    /// Takes away the lists of the search before.
    pub(super) fn forget_lists(&self) -> rusqlite::Result<()> {
        for list in 0..self.lists.replace(0) {
            self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {}", Listed(list)))?;
        }
        Ok(())
    }

    /// The places in `span` of all recordings that have one of `tags`; without the recorder's own, unless `own`.
    /// `None`: those are too many.
    pub(super) fn list(
        &self,
        tags: &[String],
        span: (i64, i64),
        own: bool,
    ) -> rusqlite::Result<Option<Listed>> {
        let listed = Listed(self.lists.get());
        self.lists.set(listed.0 + 1);
        self.connection
            .execute_batch(&format!("CREATE TABLE {listed} (place INTEGER PRIMARY KEY)"))?;
        let of_party = format!(
            "INSERT OR IGNORE INTO {listed} SELECT place FROM named \
             WHERE party = ?1 AND place BETWEEN ?2 AND ?3"
        );
        let of_client = format!(
            "INSERT OR IGNORE INTO {listed} SELECT rowid FROM words \
             WHERE words MATCH ?1 AND rowid BETWEEN ?2 AND ?3"
        );
        let mut of_party = self.connection.prepare(&of_party)?;
        let mut count = 0;
        for tag in tags {
            count += match tag.strip_prefix('p').and_then(|number| number.parse::<i64>().ok()) {
                Some(party) => of_party.execute(params![party, span.0, span.1])?,
                None => {
                    let text = format!("tag : \"{tag}\"");
                    self.connection.execute(&of_client, params![text, span.0, span.1])?
                }
            };
            if count > PLACES_MAX {
                return Ok(None);
            }
        }
        if !own {
            let text = format!(
                "DELETE FROM {listed} WHERE place IN (SELECT place FROM found WHERE own = 1)"
            );
            self.connection.execute(&text, [])?;
        }
        Ok(Some(listed))
    }
}
