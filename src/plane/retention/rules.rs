//! Holds and agreed shortenings: a fold over the audit trail.

use std::collections::BTreeMap;

use super::query::Query;
use crate::base::keep::Keep;
use crate::base::time::Wall;
use crate::store::audit::{Entry, Outcome, action};

/// Keys of what entries say in detail.
pub mod detail {
    /// The query of a hold.
    pub const QUERY: &str = "query";
    /// The class that a proposal is about.
    pub const CLASS: &str = "class";
    /// How long it would keep.
    pub const KEEP: &str = "keep";
    /// The user as whom who acts logged in, where that is another one.
    pub const LOGIN: &str = "login";
}

/// Holds and shortenings as they stand.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// Holds in force, by number: that of their entry.
    pub holds: BTreeMap<u64, Hold>,
    /// What two persons have agreed to.
    pub shortenings: Vec<Shortening>,
    /// What one person has proposed, by number.
    pub proposals: BTreeMap<u64, Proposal>,
    /// Entries that say what this version does not understand: who knows what they hold.
    pub unread: Vec<u64>,
}

/// A hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// What it holds.
    pub query: Query,
    /// Why.
    pub reason: String,
    /// Who began it.
    pub by: String,
    /// When.
    pub at: Wall,
}

/// A shortening in force: of what was there then, in that class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortening {
    /// The class that was promised.
    pub class: String,
    /// How long it is kept from now on.
    pub keep: Keep,
    /// When the second person agreed.
    pub at: Wall,
}

/// A shortening that one person wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The class.
    pub class: String,
    /// How long.
    pub keep: Keep,
    /// Why.
    pub reason: String,
    /// Who: the name of the user who has logged in, where that is known.
    pub person: String,
    /// His name.
    pub by: String,
    /// When.
    pub at: Wall,
}

/// Who acts: the user who has logged in, where that is known, since root is whoever may become it.
fn person(entry: &Entry) -> &str {
    entry.text(detail::LOGIN).unwrap_or(&entry.who.user)
}

impl Proposal {
    /// Whether `person` is somebody else than who proposed it.
    pub fn is_by_another(&self, person: &str) -> bool {
        self.person != person
    }
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;

impl Rules {
    /// All entries, in order.
    pub fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut rules = Rules::default();
        entries.into_iter().for_each(|entry| rules.take(entry));
        rules
    }

    fn take(&mut self, entry: &Entry) {
        if entry.outcome != Outcome::Allowed {
            return;
        }
        let number = || entry.object.parse::<u64>().ok();
        match &*entry.action {
            action::HOLD_ADD => {
                let query = entry.detail.get(detail::QUERY).cloned();
                let query = query.and_then(|query| serde_json::from_value(query).ok());
                match query {
                    Some(query) => {
                        let hold = Hold {
                            query,
                            reason: entry.reason.clone(),
                            by: entry.who.user.clone(),
                            at: entry.at,
                        };
                        self.holds.insert(entry.number, hold);
                    }
                    None => self.unread.push(entry.number),
                }
            }
            action::HOLD_RM => {
                if let Some(number) = number() {
                    self.holds.remove(&number);
                    self.unread.retain(|unread| *unread != number);
                }
            }
            action::RETENTION_PROPOSED => {
                let keep = entry.text(detail::KEEP).and_then(|keep| keep.parse().ok());
                if let (Some(class), Some(keep)) = (entry.text(detail::CLASS), keep) {
                    let proposal = Proposal {
                        class: class.to_owned(),
                        keep,
                        reason: entry.reason.clone(),
                        person: person(entry).to_owned(),
                        by: entry.who.user.clone(),
                        at: entry.at,
                    };
                    self.proposals.insert(entry.number, proposal);
                }
            }
            action::RETENTION_APPROVED => {
                let proposal = number().and_then(|number| self.proposals.remove(&number));
                // Whoever wrote the entry has checked it; a trail is read without trusting him.
                if let Some(one) = proposal.filter(|one| one.is_by_another(person(entry))) {
                    let Proposal { class, keep, .. } = one;
                    self.shortenings.push(Shortening { class, keep, at: entry.at });
                }
            }
            _ => {}
        }
    }
}
