//! Who contributed to a mixer's packets, by their CSRC lists (RFC 3550 §5.1, RFC 7866 §8.3.2). Most
//! sources are no mixers and have nothing here.
//!
//! The order of a list says nothing in the RFC, so two lists of the same sources are one. Memory grows
//! with the changes of the list and not with packets, and is bounded against a sender that changes it
//! in each packet: what is beyond the bound is counted, and from where on is told.

use std::collections::BTreeMap;

use super::runs::Runs;
use crate::base::limits::REPLAY_WINDOW;
use crate::base::time::Wall;
use crate::store::catalog::model::{Contribution, ContributionsCut, Contributor};

/// Runs kept of one source: where speakers change every two seconds, those of more than nine hours, at
/// most 150 octets each.
const RUNS_MAX: usize = 16_384;
/// From so many runs on, those that only lost packets part are joined; more often would cost more than
/// it saves.
const JOIN_MIN: usize = 256;
/// RFC 3550 §5.1: the count has four bits.
const LIST_MAX: usize = 15;

/// The lists of one source. A run is of consecutive indexes with the same list, or of two such runs
/// between which nothing was recorded.
#[derive(Clone, Debug, Default)]
pub(super) struct Contributors {
    runs: BTreeMap<u64, Run>,
    /// Runs are joined when there are so many.
    join_at: usize,
    cut: Option<ContributionsCut>,
}

#[derive(Clone, Debug)]
struct Run {
    last: u64,
    /// Arrival of the first index.
    from: Wall,
    /// Arrival of the last index.
    to: Wall,
    packets: u64,
    /// Sorted.
    ssrcs: Vec<u32>,
}

impl Contributors {
    /// Takes the CSRC list of a packet, four octets each, as it came. `recorded`: the indexes of its
    /// source, this one included; each is shown once.
    pub(super) fn packet(&mut self, index: u64, arrival: Wall, csrcs: &[u8], recorded: &Runs) {
        if csrcs.is_empty() {
            return;
        }
        let mut room = [0; LIST_MAX];
        let list = sorted(csrcs, &mut room);
        if let Some((_, run)) = self.runs.range_mut(..=index).next_back() {
            if index <= run.last {
                // Runs are joined where nothing can come any more; what does is in no doubt as long as
                // it says the same.
                run.packets += u64::from(run.ssrcs == list);
                return;
            }
            if index == run.last + 1 && run.ssrcs == list {
                (run.last, run.to) = (index, arrival);
                run.packets += 1;
                return;
            }
        }
        if let Some(cut) = &mut self.cut {
            cut.packets += 1;
        } else if self.has_room(recorded) {
            let ssrcs = list.to_vec();
            let run = Run { last: index, from: arrival, to: arrival, packets: 1, ssrcs };
            self.runs.insert(index, run);
        } else {
            self.cut = Some(ContributionsCut { first: index, from: arrival, packets: 1 });
        }
    }

    fn has_room(&mut self, recorded: &Runs) -> bool {
        if self.runs.len() < self.join_at.max(JOIN_MIN) {
            return true;
        }
        let highest = recorded.bounds().map_or(0, |(_, last)| last);
        // What is further behind is not recorded any more (F24), so nothing parts them later.
        self.join(recorded, highest.saturating_sub(REPLAY_WINDOW));
        self.join_at = (self.runs.len() * 2).clamp(JOIN_MIN, RUNS_MAX);
        // A quarter of it is new the next time, so that all joining together costs little.
        self.runs.len() * 4 <= self.join_at * 3
    }

    /// Joins neighbours with one list between which no packet was recorded, up to index `settled`.
    fn join(&mut self, recorded: &Runs, settled: u64) {
        let mut last: Option<(u64, Run)> = None;
        for (first, run) in std::mem::take(&mut self.runs) {
            match &mut last {
                Some((_, before))
                    if first <= settled
                        && before.ssrcs == run.ssrcs
                        && !recorded.has_any(before.last + 1, first - 1) =>
                {
                    (before.last, before.to) = (run.last, run.to);
                    before.packets += run.packets;
                }
                _ => self.runs.extend(last.replace((first, run))),
            }
        }
        self.runs.extend(last);
    }

    /// The ranges in order, and where they end before the recording does. `name`: the CNAME of an SSRC.
    pub(super) fn told(
        &self,
        recorded: &Runs,
        name: impl Fn(u32) -> Option<String>,
    ) -> (Vec<Contribution>, Option<ContributionsCut>) {
        let mut all = self.clone();
        all.join(recorded, u64::MAX);
        let named = |ssrc: u32| Contributor { ssrc, cname: name(ssrc) };
        let told = |(first, run): (u64, Run)| Contribution {
            first,
            last: run.last,
            from: run.from,
            to: run.to,
            packets: run.packets,
            csrcs: run.ssrcs.into_iter().map(named).collect(),
        };
        (all.runs.into_iter().map(told).collect(), all.cut)
    }
}

/// The list without order and repetitions.
fn sorted<'a>(csrcs: &[u8], room: &'a mut [u32; LIST_MAX]) -> &'a [u32] {
    let mut count = 0;
    for (own, bytes) in room.iter_mut().zip(csrcs.chunks_exact(4)) {
        *own = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        count += 1;
    }
    room[..count].sort_unstable();
    let mut kept = 0;
    for at in 0..count {
        if kept == 0 || room[at] != room[kept - 1] {
            room[kept] = room[at];
            kept += 1;
        }
    }
    &room[..kept]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(list: &[u32]) -> Vec<u8> {
        list.iter().flat_map(|ssrc| ssrc.to_be_bytes()).collect()
    }

    /// What came, in the order in which it came.
    fn heard(packets: impl IntoIterator<Item = (u64, Vec<u32>)>) -> (Contributors, Runs) {
        let (mut contributors, mut recorded) = (Contributors::default(), Runs::default());
        for (time, (index, list)) in packets.into_iter().enumerate() {
            let arrival = Wall(time as i64);
            if recorded.add(index, arrival) {
                contributors.packet(index, arrival, &bytes(&list), &recorded);
            }
        }
        (contributors, recorded)
    }

    fn ranges((contributors, recorded): &(Contributors, Runs)) -> Vec<(u64, u64, u64, Vec<u32>)> {
        let (told, cut) = contributors.told(recorded, |_| None);
        assert_eq!(cut, None);
        let ssrcs = |one: &Contribution| one.csrcs.iter().map(|own| own.ssrc).collect();
        told.iter().map(|one| (one.first, one.last, one.packets, ssrcs(one))).collect()
    }

    #[test]
    fn a_range_ends_where_the_sources_change_and_not_where_their_order_does() {
        let list = |index: u64| match index {
            0..10 => vec![],
            10..20 => vec![7, 9],
            20..30 => vec![9, 7, 9],
            30..40 => vec![9],
            40..50 => vec![],
            _ => vec![9],
        };
        let heard = heard((0..60).map(|index| (index, list(index))));
        let expected = [(10, 29, 20, vec![7, 9]), (30, 39, 10, vec![9]), (50, 59, 10, vec![9])];
        assert_eq!(ranges(&heard), expected);
        let (told, _) = heard.0.told(&heard.1, |ssrc| (ssrc == 9).then(|| "ann".to_owned()));
        assert_eq!((told[0].from, told[0].to), (Wall(10), Wall(29)));
        let names: Vec<_> = told[0].csrcs.iter().map(|one| one.cname.as_deref()).collect();
        assert_eq!(names, [None, Some("ann")]);
    }

    #[test]
    fn a_loss_parts_no_range_and_a_packet_of_nobody_does() {
        let lossy = (0..400_u64).filter(|index| index % 3 != 1);
        let heard = heard(lossy.map(|index| (index, if index == 200 { vec![] } else { vec![5] })));
        assert_eq!(ranges(&heard), [(0, 198, 133, vec![5]), (201, 399, 133, vec![5])]);
    }

    /// Loss alone makes no state that lasts.
    #[test]
    fn a_mixer_on_a_bad_network_is_no_mixer_that_changes_its_list() {
        let lossy = (0..200_000_u64).filter(|index| index % 2 == 0);
        let heard = heard(lossy.map(|index| (index, vec![(index / 50_000) as u32])));
        assert!(heard.0.runs.len() < 4 * REPLAY_WINDOW as usize, "{}", heard.0.runs.len());
        let of =
            |number: u64| (number * 50_000, number * 50_000 + 49_998, 25_000, vec![number as u32]);
        assert_eq!(ranges(&heard), [0, 1, 2, 3].map(of));
    }

    #[test]
    fn a_list_that_changes_in_each_packet_is_cut_and_counted() {
        let heard = heard((0..100_000_u64).map(|index| (index, vec![index as u32; 15])));
        assert!(heard.0.runs.len() <= RUNS_MAX);
        let (told, cut) = heard.0.told(&heard.1, |_| None);
        let cut = cut.expect("was cut");
        assert_eq!(told.iter().map(|one| one.packets).sum::<u64>() + cut.packets, 100_000);
        assert_eq!((cut.first, cut.from), (told.len() as u64, Wall(told.len() as i64)));
        assert!(told.len() >= RUNS_MAX / 2);
    }

    proptest! {
        /// Any loss, repetition and reordering: what a sorted list of the packets says.
        #[test]
        fn agrees_with_a_list_of_all_packets(
            lists in proptest::collection::vec((0_u32..3, any::<bool>(), 0_usize..12), 1..600),
        ) {
            let mut order: Vec<(usize, u64)> = lists
                .iter()
                .enumerate()
                .filter(|(_, (_, lost, _))| !lost)
                .map(|(index, (_, _, late))| (index + late, index as u64))
                .collect();
            order.sort_unstable();
            let list = |index: u64| (1..=lists[index as usize].0).collect::<Vec<u32>>();
            let heard = heard(order.iter().map(|(_, index)| (*index, list(*index))));
            let mut indexes: Vec<u64> = order.iter().map(|(_, index)| *index).collect();
            indexes.sort_unstable();
            let mut expected: Vec<(u64, u64, u64, Vec<u32>)> = Vec::new();
            let mut before = Vec::new();
            for index in indexes {
                let own = list(index);
                match expected.last_mut() {
                    _ if own.is_empty() => {}
                    Some(range) if before == own => {
                        (range.1, range.2) = (index, range.2 + 1);
                    }
                    _ => expected.push((index, index, 1, own.clone())),
                }
                before = own;
            }
            prop_assert_eq!(ranges(&heard), expected);
        }
    }
}
