//! Following the log: leaves come in, and are believed once a signed checkpoint covers them.
//!
//! The follower hashes every leaf itself and keeps the tree's right edge at the last checkpoint it
//! believed. A newer checkpoint is believed when its root is the one that follows from the leaves
//! in between, which also makes it consistent with the last; then its leaves are handed on, to be
//! folded together with the new edge. What is not covered yet stays in memory and is fetched again
//! after a restart, so that the fold never holds a leaf that the log did not sign for.

use std::collections::{BTreeMap, VecDeque};

use kiki::leaf::{self, LeafError, leaf::Body};
use kiki::tlog::{self, Checkpoint, Frontier, Hash};

/// Most leaves that wait for a checkpoint. A leaf is at most 64 KiB and a few hundred bytes as a
/// rule; 65,536 of 512 bytes are 32 MiB. At half of that a checkpoint is asked for.
pub const PENDING_MAX: usize = 65_536;

/// Why the log can no longer be followed: each is a fault of the log, not of the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A gap or a repeat.
    #[error("leaf {found} came where leaf {wanted} was due")]
    Order {
        /// Index due.
        wanted: u64,
        /// Index that came.
        found: u64,
    },
    /// The leaf says that it stands elsewhere.
    #[error("leaf {index} says that it is leaf {found} of log {log_id:?}")]
    Header {
        /// Where it was sent as.
        index: u64,
        /// Index in its header.
        found: u64,
        /// Log in its header.
        log_id: String,
    },
    /// A client's own sequence has a gap or a repeat.
    #[error("leaf {index}: {client:?} is at client_seq {wanted} but the leaf has {found}")]
    ClientSeq {
        /// Index of the leaf.
        index: u64,
        /// The client.
        client: String,
        /// Sequence due.
        wanted: u64,
        /// Sequence in the leaf.
        found: u64,
    },
    /// Not a leaf that this version knows.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The leaves do not give the checkpoint's root.
    #[error("checkpoint of size {size} has root {signed} but the leaves give {computed}")]
    Root {
        /// Size of the checkpoint.
        size: u64,
        /// Root that was signed, hexadecimal.
        signed: String,
        /// Root of the leaves, hexadecimal.
        computed: String,
    },
    /// The log went back behind what was believed.
    #[error("checkpoint of size {size} came after one of size {believed}")]
    Rollback {
        /// Size of the checkpoint.
        size: u64,
        /// Size believed before.
        believed: u64,
    },
    /// A checkpoint over leaves that were not sent.
    #[error("checkpoint of size {size} came when leaves up to {received} had been sent")]
    Ahead {
        /// Size of the checkpoint.
        size: u64,
        /// Leaves received.
        received: u64,
    },
    /// The log signs nothing.
    #[error("{PENDING_MAX} leaves from {from} came without a checkpoint")]
    Unsigned {
        /// First leaf that no checkpoint covers.
        from: u64,
    },
}

/// A leaf that waits for its checkpoint.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Its header, without its body.
    pub header: leaf::Leaf,
    /// Its body.
    pub body: Body,
    hash: Hash,
}

/// What a checkpoint made believable.
#[derive(Debug)]
pub struct Believed {
    /// The leaves since the last, in order.
    pub leaves: Vec<Pending>,
    /// The tree's right edge after them.
    pub frontier: Frontier,
    /// Root there, which the checkpoint signs.
    pub root: Hash,
    /// New last sequence of each client that has leaves among them.
    pub heads: BTreeMap<String, u64>,
}

/// The follower of one log.
#[derive(Debug)]
pub struct Follower {
    log_id: String,
    believed: Frontier,
    /// Last sequence of each client, up to the last leaf received. One entry a client: clients are few.
    heads: BTreeMap<String, u64>,
    pending: VecDeque<Pending>,
}

impl Follower {
    /// Goes on from a believed edge and the clients' sequences there.
    pub fn new(log_id: &str, believed: Frontier, heads: BTreeMap<String, u64>) -> Self {
        Self { log_id: log_id.to_owned(), believed, heads, pending: VecDeque::new() }
    }

    /// Index of the leaf that is due.
    pub fn next_index(&self) -> u64 {
        self.believed.size() + self.pending.len() as u64
    }

    /// Whether so many leaves wait that a checkpoint should be asked for.
    pub fn wants_checkpoint(&self) -> bool {
        self.pending.len() >= PENDING_MAX / 2
    }

    /// Takes the next leaf.
    pub fn push(&mut self, index: u64, bytes: &[u8]) -> Result<(), Fault> {
        let wanted = self.next_index();
        if index != wanted {
            return Err(Fault::Order { wanted, found: index });
        }
        if self.pending.len() >= PENDING_MAX {
            return Err(Fault::Unsigned { from: self.believed.size() });
        }
        let (header, body) = leaf::decode(bytes)?;
        if header.index != index || header.log_id != self.log_id {
            return Err(Fault::Header { index, found: header.index, log_id: header.log_id });
        }
        let head = self.heads.entry(header.client.clone()).or_insert(0);
        if header.client_seq != *head + 1 {
            let (client, found) = (header.client, header.client_seq);
            return Err(Fault::ClientSeq { index, client, wanted: *head + 1, found });
        }
        *head += 1;
        self.pending.push_back(Pending { header, body, hash: tlog::leaf_hash(bytes) });
        Ok(())
    }

    /// Takes a checkpoint whose signature was found good, and hands on what it covers.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<Believed, Fault> {
        let (size, believed) = (checkpoint.size, self.believed.size());
        if size < believed {
            return Err(Fault::Rollback { size, believed });
        }
        let received = self.next_index();
        if size > received {
            return Err(Fault::Ahead { size, received });
        }
        let count = usize::try_from(size - believed).unwrap_or(PENDING_MAX);
        let mut frontier = self.believed.clone();
        self.pending.iter().take(count).for_each(|leaf| frontier.push(leaf.hash));
        let root = frontier.root();
        if root != checkpoint.root {
            return Err(Fault::Root { size, signed: hex::encode(checkpoint.root), computed: hex::encode(root) });
        }
        let leaves: Vec<_> = self.pending.drain(..count).collect();
        let heads = leaves.iter().map(|leaf| (leaf.header.client.clone(), leaf.header.client_seq)).collect();
        self.believed = frontier.clone();
        Ok(Believed { leaves, frontier, root, heads })
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
