//! The log's Merkle tree: an append-only list of leaves under one root hash.
//!
//! The tree is that of [RFC 6962 §2.1] (the same as [RFC 9162 §2.1]) with SHA-256. A leaf's hash is
//! `SHA-256(0x00 || leaf)`, a node's `SHA-256(0x01 || left || right)`; the prefixes keep a node from passing
//! for a leaf. A tree of `n > 1` leaves splits at the largest power of two below `n`, so complete subtrees
//! never change again, and everything here rests on that:
//!
//! * [`Frontier`] keeps only the roots of the complete subtrees on the right edge: enough to append and to
//!   know the root, in O(log n) memory. A follower of the log needs no more.
//! * [`Tree`] keeps every leaf hash and every 256th level above, and makes proofs.
//! * [`verify_inclusion`], [`verify_consistency`] and [`multiproof_root`] check proofs, with nothing but them.
//! * [`portable`] puts leaf, proof and checkpoint in one text, to be verified offline by a third party.
//! * [`tile`] cuts tree and leaves into files that never change, for any web server to hand out.
//! * [`witness`] is what a witness of a log checks before it cosigns.
//! * [`checkpoint`] is the signed statement "at this size, this root", a C2SP signed [`note`].
//!
//! What it is not: storage. Nothing here reads a file, a clock or a socket.
//!
//! [RFC 6962 §2.1]: https://www.rfc-editor.org/rfc/rfc6962.html#section-2.1
//! [RFC 9162 §2.1]: https://www.rfc-editor.org/rfc/rfc9162.html#section-2.1

pub mod checkpoint;
mod frontier;
pub mod note;
pub mod portable;
mod proof;
pub mod tile;
mod tree;
pub mod witness;

pub use checkpoint::Checkpoint;
pub use frontier::Frontier;
pub use proof::{multiproof_root, verify_consistency, verify_inclusion};
pub use tree::Tree;

use sha2::{Digest, Sha256};

/// A SHA-256 hash of a leaf, a node or a whole tree.
pub type Hash = [u8; 32];

/// The root of the tree without leaves: the SHA-256 of nothing.
pub const EMPTY_ROOT: Hash = [
    0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24, 0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b,
    0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55,
];

/// The hash of a leaf's bytes: `SHA-256(0x00 || leaf)`.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0x00]).chain_update(leaf).finalize().into()
}

/// The hash of an inner node: `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([0x01]).chain_update(left).chain_update(right).finalize().into()
}

/// Where a tree of `len >= 2` leaves splits: the largest power of two below `len`.
fn split(len: u64) -> u64 {
    1 << (len - 1).ilog2()
}

/// Why a proof cannot be made, or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such leaf in a tree of this size.
    #[error("leaf index {index} is not in a tree of {size} leaves")]
    Index {
        /// The index asked for, from 0.
        index: u64,
        /// The size of the tree that the proof is about.
        size: u64,
    },
    /// The tree has not grown to that size.
    #[error("size {size} is beyond the tree's {have} leaves")]
    Size {
        /// The size asked for.
        size: u64,
        /// The leaves that there are.
        have: u64,
    },
    /// A consistency proof goes from a smaller tree to a larger one.
    #[error("consistency goes from a smaller tree to a larger, not from size {old} to {new}")]
    Order {
        /// The size said to be the earlier one.
        old: u64,
        /// The size said to be the later one.
        new: u64,
    },
    /// Every tree is consistent with the empty one, so such a proof would say nothing.
    #[error("a consistency proof from the empty tree proves nothing")]
    FromEmpty,
    /// Leaves of a multiproof are in rising order, each once.
    #[error("leaf index {index} follows {previous}, but indices must rise")]
    Unsorted {
        /// The index before it.
        previous: u64,
        /// The index out of order.
        index: u64,
    },
    /// The proof ended while hashes were still needed.
    #[error("proof of {len} hashes is too short")]
    TooShort {
        /// The hashes in the proof.
        len: usize,
    },
    /// Hashes were left over.
    #[error("proof of {len} hashes is too long, {used} are needed")]
    TooLong {
        /// The hashes in the proof.
        len: usize,
        /// The hashes that a proof of this shape has.
        used: usize,
    },
    /// The proof is well formed and leads to another root.
    #[error("root at size {size} should be {want} but the proof gives {got}", want = hex::encode(.want), got = hex::encode(.got))]
    Root {
        /// The size of the tree in question.
        size: u64,
        /// The root that was to be proven.
        want: Hash,
        /// The root that follows from the proof.
        got: Hash,
    },
}
