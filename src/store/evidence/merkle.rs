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

#[cfg(test)]
mod tests {
    use super::*;

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
