//! Recordings that have not settled, as the catalogue's thread keeps them: packed. Most of them run for
//! hours, nobody reads them meanwhile, and as they are folded each would be some 8 KiB.

use std::collections::BTreeMap;

use serde::Serialize;

use super::fold::{Body, Journalled, RsEntry};
use super::slab::{Chain, Piece, Slab};
use crate::base::ids::RsId;
use crate::store::journal::entry::Entry;

/// Unpacked at a time: a burst of calls is folded and packed once.
const LOOSE_MAX: usize = 64;

/// What the journal says of recordings that have not settled.
#[derive(Debug, Default)]
pub struct Unsettled {
    recordings: BTreeMap<RsId, Packed>,
    slab: Slab,
    /// Those that entries came of since they were packed last, without the bodies that are packed.
    loose: Journalled,
}

#[derive(Debug, Default)]
struct Packed {
    ended: bool,
    /// An [`RsEntry`] without bodies, by postcard.
    entry: Option<Piece>,
    /// Each some bodies with their numbers, one behind the other: more come, none is looked at before its
    /// end.
    bodies: Chain,
}

impl Packed {
    fn add(&mut self, slab: &mut Slab, mut entry: RsEntry) {
        let bodies = std::mem::take(&mut entry.bodies);
        self.ended = entry.end.is_some();
        if let Some(before) = self.entry.replace(slab.put(&pack(&entry))) {
            slab.remove(before);
        }
        if !bodies.is_empty() {
            let bodies: Vec<u8> = bodies.iter().flat_map(|body| pack(&body)).collect();
            slab.push(&mut self.bodies, &bodies);
        }
    }

    fn entry(&self, slab: &Slab) -> Option<RsEntry> {
        let entry = slab.get(self.entry.as_ref()?);
        Some(postcard::from_bytes(entry).expect("packed here"))
    }

    fn whole(&self, slab: &Slab) -> Option<RsEntry> {
        let mut entry = self.entry(slab)?;
        for mut rest in slab.strings(&self.bodies) {
            while !rest.is_empty() {
                let ((number, body), behind): ((u32, Body), _) =
                    postcard::take_from_bytes(rest).expect("packed here");
                // The last one that came of a number is first.
                entry.bodies.entry(number).or_insert(body);
                rest = behind;
            }
        }
        Some(entry)
    }

    fn renew(&mut self, slab: &mut Slab) {
        self.entry.iter_mut().for_each(|piece| slab.renew(piece));
        slab.renew_chain(&mut self.bodies);
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
            unsettled.recordings.entry(id).or_default().add(&mut unsettled.slab, entry);
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
            && let Some(entry) =
                self.recordings.get(&id).and_then(|packed| packed.entry(&self.slab))
        {
            self.loose.recordings.insert(id, entry);
        }
        self.loose.fold(entry);
    }

    /// Packs what is not packed.
    pub fn pack(&mut self) {
        for (id, entry) in std::mem::take(&mut self.loose).recordings {
            self.recordings.entry(id).or_default().add(&mut self.slab, entry);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.slab.is_sparse() {
            self.recordings.values_mut().for_each(|packed| packed.renew(&mut self.slab));
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
        let known =
            ids.iter().filter_map(|id| Some((*id, self.recordings.get(id)?.whole(&self.slab)?)));
        Journalled { recordings: known.collect(), ..Journalled::default() }
    }

    /// Leaves one out: it has settled.
    pub fn forget(&mut self, id: RsId) {
        self.loose.recordings.remove(&id);
        let Some(Packed { entry, bodies, .. }) = self.recordings.remove(&id) else { return };
        entry.into_iter().for_each(|piece| self.slab.remove(piece));
        self.slab.remove_chain(bodies);
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
