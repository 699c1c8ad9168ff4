//! Checking proofs. Nothing is trusted but the root, and work is bounded by the proof handed in.

use super::tree::{check_index, check_order, check_rising};
use super::{EMPTY_ROOT, Error, Hash, node_hash, split};

/// Checks that the leaf of this hash is number `index` (from 0) of the `size` leaves under `root`, as
/// [RFC 9162 §2.1.3.2](https://www.rfc-editor.org/rfc/rfc9162.html#section-2.1.3.2) does.
pub fn verify_inclusion(leaf_hash: &Hash, index: u64, size: u64, proof: &[Hash], root: &Hash) -> Result<(), Error> {
    check_index(index, size)?;
    let mut path = Path { node: index, last: size - 1 };
    let mut got = *leaf_hash;
    for (used, sibling) in proof.iter().enumerate() {
        got = match path.climb(used, proof.len())? {
            Side::Left => node_hash(sibling, &got),
            Side::Right => node_hash(&got, sibling),
        };
    }
    path.at_root(proof.len())?;
    same_root(size, root, &got)
}

/// Checks that the first `old` of the `new` leaves under `new_root` are those under `old_root`, as
/// [RFC 9162 §2.1.4.2](https://www.rfc-editor.org/rfc/rfc9162.html#section-2.1.4.2) does.
///
/// From `old` = 0 it is an error: any tree continues the empty one, so a caller that starts there has
/// nothing to prove, and one that got there by mistake should hear of it.
pub fn verify_consistency(old: u64, new: u64, proof: &[Hash], old_root: &Hash, new_root: &Hash) -> Result<(), Error> {
    check_order(old, new)?;
    if old == new {
        if !proof.is_empty() {
            return Err(Error::TooLong { len: proof.len(), used: 0 });
        }
        return same_root(new, new_root, old_root);
    }
    // Both roots are built from the last complete subtree of the old tree. Where that is the whole old
    // tree, the proof leaves it out.
    let (first, rest) = if old.is_power_of_two() { (old_root, proof) } else { proof.split_first().ok_or(Error::TooShort { len: 0 })? };
    let mut path = Path { node: old - 1, last: new - 1 };
    path.rise(path.node.trailing_ones());
    let (mut got_old, mut got_new) = (*first, *first);
    let given = proof.len() - rest.len();
    for (used, sibling) in rest.iter().enumerate() {
        match path.climb(given + used, proof.len())? {
            Side::Left => {
                got_old = node_hash(sibling, &got_old);
                got_new = node_hash(sibling, &got_new);
            }
            Side::Right => got_new = node_hash(&got_new, sibling),
        }
    }
    path.at_root(proof.len())?;
    same_root(old, old_root, &got_old)?;
    same_root(new, new_root, &got_new)
}

/// The root that follows from these leaves, (index, leaf hash) with rising indices, and a proof.
///
/// The proof's shape follows from size and indices: go over the tree from its root, left to right. A range
/// that holds none of the leaves takes the next hash of the proof; a range of one leaf is its hash; any
/// other splits. Hashes left over are an error, as are too few: one set of leaves has one proof.
/// The caller compares the root with the one that it trusts.
pub fn multiproof_root(size: u64, leaves: &[(u64, Hash)], proof: &[Hash]) -> Result<Hash, Error> {
    check_rising(leaves.iter().map(|(index, _)| *index), size)?;
    let mut rest = proof;
    let root = if size == 0 { EMPTY_ROOT } else { range_root(0, size, leaves, &mut rest).ok_or(Error::TooShort { len: proof.len() })? };
    if !rest.is_empty() {
        let used = proof.len() - rest.len();
        return Err(Error::TooLong { len: proof.len(), used });
    }
    Ok(root)
}

/// The root of `start..end`, or nothing where the proof runs out. At most 64 deep, because halves of a u64;
/// at most 128 calls a leaf, because each call holds a leaf or is the sibling of one that does.
fn range_root(start: u64, end: u64, leaves: &[(u64, Hash)], proof: &mut &[Hash]) -> Option<Hash> {
    match leaves {
        [] => proof.split_off_first().copied(),
        [(_, hash)] if end - start == 1 => Some(*hash),
        _ => {
            let middle = start + split(end - start);
            let (left, right) = leaves.split_at(leaves.partition_point(|(index, _)| *index < middle));
            let left = range_root(start, middle, left, proof)?;
            let right = range_root(middle, end, right, proof)?;
            Some(node_hash(&left, &right))
        }
    }
}

/// The way from a node to the root: its number within its level, and that of the level's last node.
/// RFC 9162 calls them fn and sn.
struct Path {
    node: u64,
    last: u64,
}

/// On which side of the path the next hash of the proof stands.
enum Side {
    Left,
    Right,
}

impl Path {
    fn rise(&mut self, levels: u32) {
        self.node = self.node.checked_shr(levels).unwrap_or(0);
        self.last = self.last.checked_shr(levels).unwrap_or(0);
    }

    /// Goes up to the next node that has a sibling and over to its parent.
    fn climb(&mut self, used: usize, len: usize) -> Result<Side, Error> {
        if self.last == 0 {
            return Err(Error::TooLong { len, used });
        }
        if self.node % 2 == 1 || self.node == self.last {
            // The last node of a ragged level has no sibling and stands for its own parent. It is not
            // node 0, as `last` is not 0, so it has a bit to rise to.
            self.rise(self.node.trailing_zeros() + 1);
            Ok(Side::Left)
        } else {
            self.rise(1);
            Ok(Side::Right)
        }
    }

    fn at_root(&self, len: usize) -> Result<(), Error> {
        if self.last == 0 { Ok(()) } else { Err(Error::TooShort { len }) }
    }
}

fn same_root(size: u64, want: &Hash, got: &Hash) -> Result<(), Error> {
    if want == got {
        return Ok(());
    }
    Err(Error::Root { size, want: *want, got: *got })
}

#[cfg(test)]
mod tests;
