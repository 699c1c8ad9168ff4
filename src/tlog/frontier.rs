//! The right edge of a tree: all that appending and the root need.

use serde::{Deserialize, Serialize};

use super::{EMPTY_ROOT, Hash, node_hash};

/// A tree known only by the roots of its complete subtrees, largest first: one for each 1 in the binary
/// form of its size (a "compact range" from 0). At most 64 hashes, whatever the size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Frontier {
    size: u64,
    nodes: Vec<Hash>,
}

impl Frontier {
    /// The empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Appends a leaf by its [`leaf_hash`](super::leaf_hash).
    pub fn push(&mut self, leaf: Hash) {
        self.push_seeing(leaf, |_, _| {});
    }

    /// Appends a leaf and shows every subtree that it completes, as (height, root), lowest first, the
    /// leaf itself at height 0.
    pub(super) fn push_seeing(&mut self, leaf: Hash, mut completed: impl FnMut(u32, Hash)) {
        // Like adding 1 in binary: every trailing 1 of the size is a complete subtree as large as what
        // has been built so far, and carries.
        let carries = self.size.trailing_ones();
        let mut node = leaf;
        completed(0, node);
        let kept = self.nodes.len() - carries as usize;
        for (left, height) in self.nodes.drain(kept..).rev().zip(1..) {
            node = node_hash(&left, &node);
            completed(height, node);
        }
        self.nodes.push(node);
        self.size += 1;
    }

    /// The root over all leaves; [`EMPTY_ROOT`] when there is none.
    pub fn root(&self) -> Hash {
        let smallest_first = self.nodes.iter().rev().copied();
        smallest_first.reduce(|right, left| node_hash(&left, &right)).unwrap_or(EMPTY_ROOT)
    }
}

/// What a snapshot says, before it is believed.
#[derive(Deserialize)]
struct Unchecked {
    size: u64,
    nodes: Vec<Hash>,
}

impl TryFrom<Unchecked> for Frontier {
    type Error = String;

    fn try_from(Unchecked { size, nodes }: Unchecked) -> Result<Self, String> {
        if nodes.len() == size.count_ones() as usize {
            return Ok(Self { size, nodes });
        }
        Err(format!("a frontier of {size} leaves has {} nodes, not {}", size.count_ones(), nodes.len()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::tlog::leaf_hash;

    #[test]
    fn survives_a_snapshot() {
        let mut frontier = Frontier::new();
        for i in 0..77u8 {
            frontier.push(leaf_hash(&[i]));
        }
        let json = serde_json::to_string(&frontier).unwrap();
        let mut restored: Frontier = serde_json::from_str(&json).unwrap();
        assert_eq!(restored, frontier);
        restored.push(leaf_hash(b"next"));
        frontier.push(leaf_hash(b"next"));
        assert_eq!(restored.root(), frontier.root());
    }

    #[test]
    fn refuses_a_snapshot_whose_nodes_do_not_fit_its_size() {
        let refused = serde_json::from_str::<Frontier>(r#"{"size":3,"nodes":[]}"#).unwrap_err();
        assert!(refused.to_string().contains("3 leaves has 2 nodes, not 0"), "{refused}");
    }
}
