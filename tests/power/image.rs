//! A disk with a volatile write cache, in memory: what it holds, which writes no flush has covered
//! yet, and what a power cut leaves of them.
//!
//! The promise of a real disk is kept and no more: what was written before a flush began is there
//! when the flush has ended. Of the rest any sector may have reached the medium, in any order, in
//! any of the versions written since; a sector itself is whole.

use std::collections::{HashMap, VecDeque};

/// SplitMix64: every choice of the rig follows from a seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// A write that no flush has covered, with what it replaced.
struct Write {
    number: u64,
    offset: usize,
    old: Vec<u8>,
}

/// How a cut chooses among the unsynced writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// None has reached the medium.
    Nothing,
    /// All have.
    All,
    /// Those up to some instant, the last of them torn.
    Prefix,
    /// Whole writes, each by a coin: reordered.
    Writes,
    /// All but one.
    AllButOne,
    /// Only one.
    OnlyOne,
    /// Each sector by itself, in any of its versions: torn and reordered.
    Sectors,
}

const CHOICES: [Choice; 7] = [
    Choice::Sectors,
    Choice::Nothing,
    Choice::Prefix,
    Choice::Writes,
    Choice::AllButOne,
    Choice::OnlyOne,
    Choice::All,
];

/// What a cut did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss {
    pub(crate) choice: Choice,
    /// Bytes of a sector: 512, or 4096 as most disks have them.
    pub(crate) sector: usize,
    /// Writes without a flush.
    pub(crate) writes: usize,
    /// Sectors they touched.
    pub(crate) sectors: usize,
    /// Of these, sectors that do not hold what was written last.
    pub(crate) lost: usize,
}

impl Loss {
    /// For the report.
    pub(crate) fn told(&self) -> serde_json::Value {
        serde_json::json!({
            "choice": format!("{:?}", self.choice), "sector": self.sector, "writes": self.writes,
            "sectors": self.sectors, "lost": self.lost,
        })
    }
}

/// See the module.
pub(crate) struct Image {
    bytes: Vec<u8>,
    unsynced: VecDeque<Write>,
    written: u64,
}

impl Image {
    /// A disk of zeros; memory is taken as it is written.
    pub(crate) fn new(bytes: usize) -> Self {
        Image { bytes: vec![0; bytes], unsynced: VecDeque::new(), written: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn read(&self, offset: usize, bytes: usize) -> &[u8] {
        let start = offset.min(self.bytes.len());
        &self.bytes[start..(start + bytes).min(self.bytes.len())]
    }

    /// Takes a write into the cache; `false`: it is not inside the disk.
    pub(crate) fn write(&mut self, offset: usize, data: &[u8]) -> bool {
        let Some(place) = self.bytes.get_mut(offset..offset + data.len()) else { return false };
        self.unsynced.push_back(Write { number: self.written, offset, old: place.to_vec() });
        self.written += 1;
        place.copy_from_slice(data);
        true
    }

    /// Writes that no flush has covered.
    pub(crate) fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// A flush that begins now covers all writes below this number.
    pub(crate) fn mark(&self) -> u64 {
        self.written
    }

    /// Such a flush has ended.
    pub(crate) fn flushed(&mut self, mark: u64) {
        while self.unsynced.front().is_some_and(|write| write.number < mark) {
            self.unsynced.pop_front();
        }
    }

    /// The cache is lost and the disk goes on: reads show what the medium holds.
    pub(crate) fn lose(&mut self) {
        while let Some(write) = self.unsynced.pop_back() {
            self.bytes[write.offset..write.offset + write.old.len()].copy_from_slice(&write.old);
        }
    }

    /// The power goes: what `seed` takes of the unsynced writes is lost.
    pub(crate) fn cut(&mut self, seed: u64) -> Loss {
        let mut random = Random::new(seed);
        let sector = if random.below(3) == 0 { 512 } else { 4096 };
        // Half of all cuts the nastiest way, the others in turn.
        let choice = match random.below(12) {
            small @ 0..6 => CHOICES[1 + small as usize],
            _ => Choice::Sectors,
        };
        self.cut_by(choice, sector, &mut random)
    }

    fn cut_by(&mut self, choice: Choice, sector: usize, random: &mut Random) -> Loss {
        let writes = std::mem::take(&mut self.unsynced);
        // Of each sector: the writes that touched it, with what was there before each.
        let mut versions: HashMap<usize, Vec<(usize, Vec<u8>)>> = HashMap::new();
        for (place, write) in writes.iter().enumerate() {
            let (mut at, end) = (write.offset, write.offset + write.old.len());
            while at < end {
                let next = (at / sector * sector + sector).min(end);
                let old = write.old[at - write.offset..next - write.offset].to_vec();
                // Sectors are written whole by the kernel; where one is not, its part counts alone.
                versions.entry(at).or_default().push((place, old));
                at = next;
            }
        }
        let picked = random.below(writes.len().max(1) as u64) as usize;
        let torn = random.next();
        let kept_whole: Vec<bool> = (0..writes.len())
            .map(|place| match choice {
                Choice::Nothing => false,
                Choice::All | Choice::Sectors => true,
                Choice::Prefix => place <= picked,
                Choice::Writes => random.coin(),
                Choice::AllButOne => place != picked,
                Choice::OnlyOne => place == picked,
            })
            .collect();
        let mut order: Vec<usize> = versions.keys().copied().collect();
        order.sort_unstable();
        let mut lost = 0;
        for at in &order {
            let touched = &versions[at];
            // How many of the sector's writes reached it: the last kept one decides.
            let reached = match choice {
                Choice::Sectors => random.below(touched.len() as u64 + 1) as usize,
                Choice::Prefix => {
                    let first_sectors = |place: usize| {
                        let write = &writes[place];
                        let sectors = write.old.len().div_ceil(sector) as u64;
                        place < picked
                            || (place == picked
                                && ((at - write.offset) / sector) as u64 <= torn % sectors)
                    };
                    touched.iter().rposition(|(p, _)| first_sectors(*p)).map_or(0, |last| last + 1)
                }
                _ => touched.iter().rposition(|(p, _)| kept_whole[*p]).map_or(0, |last| last + 1),
            };
            // What stood there before the first write that did not.
            if let Some((_, old)) = touched.get(reached) {
                self.bytes[*at..*at + old.len()].copy_from_slice(old);
                lost += 1;
            }
        }
        Loss { choice, sector, writes: writes.len(), sectors: order.len(), lost }
    }
}

/// The rig's own proof that it keeps what it must and loses what it may; needs nothing of the
/// machine.
pub(crate) fn check() {
    let (mut lost, mut kept, mut torn) = (0, 0, 0);
    for seed in 0..2_000 {
        let mut image = Image::new(64 * 1024);
        assert!(image.write(0, &[1; 16 * 1024]));
        image.flushed(image.mark());
        let mark = {
            assert!(image.write(16 * 1024, &[2; 8 * 1024]));
            image.mark()
        };
        // Written while the flush was under way: not covered by it.
        assert!(image.write(32 * 1024, &[3; 16 * 1024]));
        image.flushed(mark);
        assert!(image.write(32 * 1024, &[4; 16 * 1024]));
        assert!(!image.write(64 * 1024 - 1, &[0; 2]), "behind the end");
        let loss = image.cut(seed);
        assert_eq!(loss.writes, 2, "seed {seed}");
        assert!(image.read(0, 16 * 1024).iter().all(|byte| *byte == 1), "seed {seed}: synced");
        assert!(image.read(16 * 1024, 8192).iter().all(|byte| *byte == 2), "seed {seed}: synced");
        let rest = image.read(32 * 1024, 16 * 1024);
        for sector in rest.chunks(loss.sector) {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}: a sector is whole");
            assert!(matches!(sector[0], 0 | 3 | 4), "seed {seed}");
        }
        let new = rest.iter().filter(|byte| **byte == 4).count();
        lost += usize::from(new == 0);
        kept += usize::from(new == rest.len());
        torn += usize::from(new != 0 && new != rest.len());
    }
    assert!(lost > 100 && kept > 100 && torn > 100, "{lost} lost, {kept} kept, {torn} torn");
}
