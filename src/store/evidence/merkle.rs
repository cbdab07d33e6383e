//! The Merkle tree over a segment's leaves: shape and domain separation of RFC 6962 §2.1.

use super::hash::{Digest, Hash, sha256};

/// First byte of what an inner node hashes (RFC 6962 §2.1).
const NODE: u8 = 1;

/// An inner node.
pub fn node(left: &Hash, right: &Hash) -> Hash {
    let mut digest = Digest::new();
    digest.update(&[NODE]);
    digest.update(left);
    digest.update(right);
    digest.finish()
}

/// Largest power of two below `count`; `count` ≥ 2.
fn split(count: usize) -> usize {
    count.next_power_of_two() / 2
}

/// The root over `leaves`; of none it is SHA-256 of nothing (RFC 6962 §2.1).
pub fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => sha256(&[]),
        [only] => *only,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The hashes beside the way from leaf `place` up to the root, lowest first (RFC 6962 §2.1.1).
pub fn path(leaves: &[Hash], place: usize) -> Vec<Hash> {
    if leaves.len() < 2 || place >= leaves.len() {
        return Vec::new();
    }
    let at = split(leaves.len());
    let (left, right) = leaves.split_at(at);
    let (mut below, beside) = if place < at {
        (path(left, place), root(right))
    } else {
        (path(right, place - at), root(left))
    };
    below.push(beside);
    below
}

/// The root that `leaf` at `place` of `count` leaves has by `path`; `None` where the path is not
/// as long as the tree is deep there.
pub fn root_from_path(leaf: &Hash, place: u64, count: u64, path: &[Hash]) -> Option<Hash> {
    if place >= count {
        return None;
    }
    if count == 1 {
        return path.is_empty().then_some(*leaf);
    }
    let (beside, below) = path.split_last()?;
    let at = (count - 1).checked_ilog2().map_or(1, |bits| 1_u64 << bits);
    if place < at {
        Some(node(&root_from_path(leaf, place, at, below)?, beside))
    } else {
        Some(node(beside, &root_from_path(leaf, place - at, count - at, below)?))
    }
}

/// What stands beside several leaves of a tree of `count`: the roots of the largest subtrees that have none of
/// them, from left to right. `known`: place and path of each of them, at least one, in ascending order.
pub fn beside(known: &[(u64, Vec<Hash>)], count: u64) -> Vec<Hash> {
    fn walk(
        known: &[(u64, Vec<Hash>)],
        (first, count): (u64, u64),
        depth: usize,
        out: &mut Vec<Hash>,
    ) {
        if count < 2 {
            return;
        }
        let at = split(count as usize) as u64;
        let (left, right) = known.split_at(known.partition_point(|(place, _)| *place < first + at));
        // The root of the other half, as one of the leaves has it on its path.
        let other = |half: &[(u64, Vec<Hash>)]| {
            let (_, path) = half.first()?;
            path.len().checked_sub(1 + depth).map(|place| path[place])
        };
        let halves = [(left, right, (first, at)), (right, left, (first + at, count - at))];
        for (own, across, span) in halves {
            match own {
                [] => out.extend(other(across)),
                _ => walk(own, span, depth + 1, out),
            }
        }
    }
    let mut out = Vec::new();
    walk(known, (0, count), 0, &mut out);
    out
}

/// The root of a tree of `count` leaves of which `known` (place and hash, ascending) are there and [`beside`] is
/// told; `None` where these do not fit such a tree.
pub fn root_from_leaves(known: &[(u64, Hash)], count: u64, beside: &[Hash]) -> Option<Hash> {
    fn climb(
        known: &[(u64, Hash)],
        (first, count): (u64, u64),
        beside: &mut std::slice::Iter<'_, Hash>,
    ) -> Option<Hash> {
        match known {
            [] => beside.next().copied(),
            [(_, only)] if count == 1 => Some(*only),
            _ if count < 2 => None,
            _ => {
                let at = 1_u64 << (count - 1).ilog2();
                let end = first + at;
                let cut = known.partition_point(|(place, _)| *place < end);
                let (left, right) = known.split_at(cut);
                let left = climb(left, (first, at), beside)?;
                Some(node(&left, &climb(right, (end, count - at), beside)?))
            }
        }
    }
    let ascends = known.windows(2).all(|two| two[0].0 < two[1].0);
    if !ascends || known.last().is_none_or(|(place, _)| *place >= count) {
        return None;
    }
    let mut beside = beside.iter();
    let root = climb(known, (0, count), &mut beside)?;
    beside.next().is_none().then_some(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_leaves_of_every_small_tree_lead_to_its_root_and_no_others_do() {
        for count in 1..=11_usize {
            let leaves: Vec<Hash> = (0..count).map(|n| sha256(&[n as u8])).collect();
            let top = root(&leaves);
            for chosen in 1_u32..1 << count {
                let places: Vec<usize> = (0..count).filter(|n| chosen >> n & 1 == 1).collect();
                let paths: Vec<_> =
                    places.iter().map(|place| (*place as u64, path(&leaves, *place))).collect();
                let mut known: Vec<_> =
                    places.iter().map(|place| (*place as u64, leaves[*place])).collect();
                let mut others = beside(&paths, count as u64);
                let count = count as u64;
                assert_eq!(root_from_leaves(&known, count, &others), Some(top), "{places:?}");
                // A subtree for each turn off a way at most, none where all leaves are there.
                assert_eq!(others.is_empty(), places.len() as u64 == count);
                let last = known.len() - 1;
                known[last].1[0] ^= 1;
                assert_ne!(root_from_leaves(&known, count, &others), Some(top));
                known[last].1[0] ^= 1;
                others.push(top);
                assert_eq!(root_from_leaves(&known, count, &others), None);
                others.pop();
                if others.pop().is_some() {
                    assert_eq!(root_from_leaves(&known, count, &others), None);
                }
            }
        }
        let leaf = sha256(b"x");
        assert_eq!(root_from_leaves(&[], 3, &[leaf]), None);
        assert_eq!(root_from_leaves(&[(3, leaf)], 3, &[leaf, leaf]), None);
        assert_eq!(root_from_leaves(&[(1, leaf), (1, leaf)], 2, &[leaf]), None);
        // Nobody's tree is so large; no way through it is longer than 64.
        assert_eq!(root_from_leaves(&[(0, leaf)], u64::MAX, &[]), None);
    }

    #[test]
    fn every_path_of_every_small_tree_leads_to_its_root_and_no_other() {
        for count in 1..=33_usize {
            let leaves: Vec<Hash> = (0..count).map(|n| sha256(&[n as u8])).collect();
            let top = root(&leaves);
            for place in 0..count {
                let way = path(&leaves, place);
                let found = root_from_path(&leaves[place], place as u64, count as u64, &way);
                assert_eq!(found, Some(top), "leaf {place} of {count}");
                let wrong = root_from_path(&sha256(b"x"), place as u64, count as u64, &way);
                assert_ne!(wrong, Some(top));
                if count > 1 {
                    let cut = &way[1..];
                    assert_ne!(
                        root_from_path(&leaves[place], place as u64, count as u64, cut),
                        Some(top)
                    );
                }
            }
            assert_eq!(root_from_path(&leaves[0], count as u64, count as u64, &[]), None);
        }
    }
}
