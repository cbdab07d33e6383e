//! Recordings that have not settled, as the catalogue's thread keeps them: packed. Most of them run for
//! hours, nobody reads them meanwhile, and as they are folded each would be some 8 KiB.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fold::{Body, Journalled, RsEntry};
use crate::base::ids::RsId;
use crate::store::journal::entry::Entry;

/// Unpacked at a time: a burst of calls is folded and packed once.
const LOOSE_MAX: usize = 64;

/// What the journal says of recordings that have not settled.
#[derive(Debug, Default)]
pub struct Unsettled {
    recordings: BTreeMap<RsId, Box<Packed>>,
    /// Those that entries came of since they were packed last, without the bodies that are packed.
    loose: Journalled,
}

#[derive(Debug, Default)]
struct Packed {
    ended: bool,
    /// An [`RsEntry`] without bodies, by postcard.
    entry: Box<[u8]>,
    /// Its bodies with their numbers, one behind the other: more come, none is looked at before its end.
    bodies: Vec<u8>,
}

impl Packed {
    fn add(&mut self, mut entry: RsEntry) {
        let bodies = std::mem::take(&mut entry.bodies);
        self.ended = entry.end.is_some();
        self.entry = pack(&entry).into();
        for body in &bodies {
            let body = pack(&body);
            self.bodies.reserve_exact(body.len());
            self.bodies.extend_from_slice(&body);
        }
    }

    fn entry(&self) -> RsEntry {
        postcard::from_bytes(&self.entry).expect("packed here")
    }

    fn whole(&self) -> RsEntry {
        let mut entry = self.entry();
        let mut rest = &*self.bodies;
        while !rest.is_empty() {
            let ((number, body), behind): ((u32, Body), _) =
                postcard::take_from_bytes(rest).expect("packed here");
            entry.bodies.insert(number, body);
            rest = behind;
        }
        entry
    }
}

fn pack(value: &impl Serialize) -> Vec<u8> {
    postcard::to_allocvec(value).expect("a Vec takes anything")
}

impl Unsettled {
    /// All of these.
    pub fn of(known: Journalled) -> Self {
        let mut unsettled = Unsettled::default();
        for (id, entry) in known.recordings {
            unsettled.recordings.entry(id).or_default().add(entry);
        }
        unsettled
    }

    /// Takes one entry, as [`Journalled::fold`] does.
    pub fn fold(&mut self, entry: &Entry) {
        let Some(id) = entry.rs() else { return };
        if self.loose.recordings.len() >= LOOSE_MAX {
            self.pack();
        }
        if !self.loose.recordings.contains_key(&id)
            && let Some(packed) = self.recordings.get(&id)
        {
            self.loose.recordings.insert(id, packed.entry());
        }
        self.loose.fold(entry);
    }

    /// Packs what is not packed.
    pub fn pack(&mut self) {
        for (id, entry) in std::mem::take(&mut self.loose).recordings {
            self.recordings.entry(id).or_default().add(entry);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let fresh = self.loose.recordings.keys().filter(|id| !self.recordings.contains_key(id));
        self.recordings.len() + fresh.count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that are over, in order.
    pub fn ended(&mut self) -> Vec<RsId> {
        self.pack();
        self.recordings.iter().filter(|(_, packed)| packed.ended).map(|(id, _)| *id).collect()
    }

    /// What the journal says of some of them.
    pub fn journalled(&mut self, ids: &[RsId]) -> Journalled {
        self.pack();
        let known = ids.iter().filter_map(|id| Some((*id, self.recordings.get(id)?.whole())));
        Journalled { recordings: known.collect(), ..Journalled::default() }
    }

    /// Leaves one out: it has settled.
    pub fn forget(&mut self, id: RsId) {
        self.loose.recordings.remove(&id);
        self.recordings.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::base::time::Wall;
    use crate::store::journal::standing_tests::history;

    fn body(rs: RsId, number: u32) -> Entry {
        let (method, content_type) = ("INVITE".to_owned(), "application/sdp".to_owned());
        let (disposition, bytes) = (String::new(), "dj0wDQo=".to_owned());
        let at = Wall(i64::from(number));
        Entry::Body { rs, number, at, method, cseq: 1, content_type, disposition, bytes }
    }

    #[test]
    fn packed_or_not_it_knows_what_the_journal_says() {
        for seed in 0..50 {
            let mut random = Prng::new(seed);
            let (mut unsettled, mut journalled) = (Unsettled::default(), Journalled::default());
            for entry in history(seed, 200) {
                let number = random.below(5) as u32;
                let body = entry.rs().map(|rs| body(rs, number));
                for entry in [Some(entry), body].into_iter().flatten() {
                    for _ in 0..1 + random.below(2) {
                        unsettled.fold(&entry);
                    }
                    journalled.fold(&entry);
                }
                if random.below(8) == 0 {
                    unsettled.pack();
                }
            }
            let known = journalled.recordings;
            assert_eq!(unsettled.len(), known.len(), "seed {seed}");
            let ended = known.values().filter(|rs| rs.end.is_some()).map(|rs| rs.id);
            assert_eq!(unsettled.ended(), ended.collect::<Vec<_>>(), "seed {seed}");
            let ids: Vec<RsId> = known.keys().copied().collect();
            assert_eq!(unsettled.journalled(&ids).recordings, known, "seed {seed}");
            let again = Journalled { recordings: known, ..Journalled::default() };
            let mut again = Unsettled::of(again);
            assert_eq!(again.journalled(&ids).recordings, unsettled.journalled(&ids).recordings);
            ids.iter().for_each(|id| again.forget(*id));
            assert!(again.is_empty());
        }
    }
}
