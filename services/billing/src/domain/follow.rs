//! Following the log: leaves come in, and are believed once a signed checkpoint covers them.
//!
//! The follower hashes every leaf itself and keeps the tree's right edge at the last checkpoint it
//! believed. A newer checkpoint is believed when its root is the one that follows from the leaves
//! in between, which also makes it consistent with the last; then its leaves are handed on, to be
//! folded together with the new edge. What is not covered yet stays in memory and is fetched again
//! after a restart, so that the fold never holds a leaf that the log did not sign for.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use kiki::leaf::{self, client_moved::Side, leaf::Body};
use kiki::tlog::{self, Checkpoint, Frontier, Hash};
use prost::Message as _;

/// Most leaves that wait for a checkpoint: their headers and hashes are some 20 MiB. At half of
/// that a checkpoint and a proof are asked for.
pub const PENDING_MAX: usize = 65_536;

/// Most bytes of the leaves that wait, of those whose bodies the fold needs: decoded they take up to
/// three times as much. At half of that a checkpoint and a proof are asked for; a message of the
/// tail brings at most 512 KiB more before that.
pub const PENDING_BYTES_MAX: usize = 32 << 20;

/// A leaf that this version cannot read. A fold that skipped it would silently be another fold, so
/// that following stops there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("leaf {leaf} of client {client:?} cannot be read: {problem}")]
pub struct Unreadable {
    /// Index of the leaf.
    pub leaf: u64,
    /// The client whose it is; empty where not even that can be read.
    pub client: String,
    /// What is wrong with it.
    pub problem: String,
}

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
    Unreadable(#[from] Unreadable),
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
    /// The leaves are not in the tree that a checkpoint signs.
    #[error("leaves {from} to {until} are not in the log of size {size}: {problem}")]
    Unproven {
        /// The first of them.
        from: u64,
        /// The one behind the last.
        until: u64,
        /// Size of the checkpoint.
        size: u64,
        /// What is wrong.
        problem: String,
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
    #[error("{PENDING_MAX} leaves or {PENDING_BYTES_MAX} bytes from leaf {from} came without a checkpoint")]
    Unsigned {
        /// First leaf that no checkpoint covers.
        from: u64,
    },
}

/// A leaf that waits for its checkpoint.
#[derive(Debug, Clone)]
pub struct Pending {
    /// Its header, without its body; of a leaf whose body is not kept, its index, client and sequence alone.
    pub header: leaf::Leaf,
    /// Its body, where the fold needs it: most of a log are decisions, which it does not.
    pub body: Option<Body>,
    /// Bytes of the leaf.
    pub length: usize,
    hash: Hash,
}

impl Pending {
    fn new(header: leaf::Leaf, body: Body, bytes: &[u8]) -> Self {
        let needed = match &body {
            Body::Settlements(_)
            | Body::SpendAdjustment(_)
            | Body::Conversion(_)
            | Body::Outcome(_)
            | Body::Terms(_)
            | Body::PeriodClosed(_)
            | Body::Invoice(_)
            | Body::InvoiceEvent(_) => true,
            Body::Decisions(_)
            | Body::Access(_)
            | Body::LeaseGranted(_)
            | Body::LeaseRenewed(_)
            | Body::SpendMark(_)
            | Body::LeaseReturned(_)
            | Body::Voids(_)
            | Body::Campaign(_)
            | Body::Policy(_)
            | Body::Evidence(_)
            | Body::Limits(_)
            | Body::BudgetAlert(_)
            | Body::Erased(_)
            | Body::Rollup(_)
            | Body::PolicyStage(_)
            | Body::KeyRotated(_)
            | Body::ClientMoved(_) => false,
        };
        let (length, hash) = (bytes.len(), tlog::leaf_hash(bytes));
        if needed {
            return Self { header, body: Some(body), length, hash };
        }
        let leaf::Leaf { index, client, client_seq, .. } = header;
        Self { header: leaf::Leaf { index, client, client_seq, ..Default::default() }, body: None, length, hash }
    }

    /// Bytes of it that are kept.
    fn kept(&self) -> usize {
        if self.body.is_some() { self.length } else { 0 }
    }
}

/// Whether a client comes here from another log, its first part.
fn arrives(body: &Body) -> bool {
    matches!(body, Body::ClientMoved(leaf::ClientMoved { side: Some(Side::Arrived(arrived)) }) if arrived.part == 0)
}

/// What a checkpoint made believable.
#[derive(Debug)]
pub struct Believed {
    /// The leaves since the last, in order.
    pub leaves: Vec<Pending>,
    /// The tree's right edge after them.
    pub frontier: Frontier,
    /// Size and root that were signed: the frontier's, or of a longer tree that it was proven to be in.
    pub signed: (u64, Hash),
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
    pending_bytes: usize,
    /// Size of the stream's own last checkpoint: its next may be older than what was believed by
    /// proof in between, but not older than this.
    floor: u64,
}

impl Follower {
    /// Goes on from a believed edge and the clients' sequences there.
    pub fn new(log_id: &str, believed: Frontier, heads: BTreeMap<String, u64>) -> Self {
        let floor = believed.size();
        Self { log_id: log_id.to_owned(), believed, heads, pending: VecDeque::new(), pending_bytes: 0, floor }
    }

    /// Index of the leaf that is due.
    pub fn next_index(&self) -> u64 {
        self.believed.size() + self.pending.len() as u64
    }

    /// Whether so many leaves wait that a checkpoint should be asked for.
    pub fn wants_checkpoint(&self) -> bool {
        self.pending.len() >= PENDING_MAX / 2 || self.pending_bytes >= PENDING_BYTES_MAX / 2
    }

    /// Takes the next leaf.
    pub fn push(&mut self, index: u64, bytes: &[u8]) -> Result<(), Fault> {
        let wanted = self.next_index();
        if index != wanted {
            return Err(Fault::Order { wanted, found: index });
        }
        if self.pending.len() >= PENDING_MAX || self.pending_bytes >= PENDING_BYTES_MAX {
            return Err(Fault::Unsigned { from: self.believed.size() });
        }
        let (header, body) = leaf::decode_all_but_decisions(bytes).map_err(|e| {
            // Of a kind that is not known the header still says whose it is.
            let client = leaf::Leaf::decode(bytes).map(|header| header.client).unwrap_or_default();
            Unreadable { leaf: index, client, problem: e.to_string() }
        })?;
        if header.index != index || header.log_id != self.log_id {
            return Err(Fault::Header { index, found: header.index, log_id: header.log_id });
        }
        let head = self.heads.entry(header.client.clone()).or_insert(0);
        // Who comes from another log goes on where it left that.
        if arrives(&body) && header.client_seq > *head {
            *head = header.client_seq - 1;
        }
        if header.client_seq != *head + 1 {
            let (client, found) = (header.client, header.client_seq);
            return Err(Fault::ClientSeq { index, client, wanted: *head + 1, found });
        }
        *head += 1;
        let pending = Pending::new(header, body, bytes);
        self.pending_bytes += pending.kept();
        self.pending.push_back(pending);
        Ok(())
    }

    /// Takes the stream's next checkpoint, whose signature was found good, and hands on what it covers;
    /// nothing of one that is older than what was believed by proof.
    pub fn checkpoint(&mut self, checkpoint: &Checkpoint) -> Result<Option<Believed>, Fault> {
        let (size, believed) = (checkpoint.size, self.believed.size());
        if size < self.floor {
            return Err(Fault::Rollback { size, believed: self.floor });
        }
        if size < believed {
            self.floor = size;
            return Ok(None);
        }
        let received = self.next_index();
        if size > received {
            return Err(Fault::Ahead { size, received });
        }
        let count = usize::try_from(size - believed).unwrap_or(PENDING_MAX);
        let frontier = self.edge(count);
        if frontier.root() != checkpoint.root {
            let (signed, computed) = (hex::encode(checkpoint.root), hex::encode(frontier.root()));
            return Err(Fault::Root { size, signed, computed });
        }
        self.floor = size;
        Ok(Some(self.believe(count, frontier, checkpoint)))
    }

    /// Indices of the leaves that wait.
    pub fn waiting(&self) -> Range<u64> {
        self.believed.size()..self.next_index()
    }

    /// Believes all leaves that wait, by a multiproof of them under a checkpoint of a longer log, whose
    /// signature was found good. The proof begins with what stands before the first of them: that must
    /// be the tree that was believed so far.
    pub fn proven(&mut self, checkpoint: &Checkpoint, proof: &[Hash]) -> Result<Believed, Fault> {
        let Range { start: from, end: until } = self.waiting();
        let size = checkpoint.size;
        let unproven = |problem: String| Fault::Unproven { from, until, size, problem };
        let leaves: Vec<_> = (from..).zip(&self.pending).map(|(index, leaf)| (index, leaf.hash)).collect();
        let root = tlog::multiproof_root(size, &leaves, proof).map_err(|e| unproven(e.to_string()))?;
        if root != checkpoint.root {
            return Err(unproven(format!("they give root {} but {} is signed", hex::encode(root), hex::encode(checkpoint.root))));
        }
        // The tree of the first `from` leaves has a complete subtree for each 1 in that number.
        let before = proof.iter().take(from.count_ones() as usize).copied();
        let joined = before.rev().reduce(|right, left| tlog::node_hash(&left, &right));
        if joined.unwrap_or(tlog::EMPTY_ROOT) != self.believed.root() {
            return Err(unproven("what stands before them is not what was believed".to_owned()));
        }
        let count = self.pending.len();
        Ok(self.believe(count, self.edge(count), checkpoint))
    }

    /// The tree's right edge after the first `count` leaves that wait.
    fn edge(&self, count: usize) -> Frontier {
        let mut frontier = self.believed.clone();
        self.pending.iter().take(count).for_each(|leaf| frontier.push(leaf.hash));
        frontier
    }

    fn believe(&mut self, count: usize, frontier: Frontier, checkpoint: &Checkpoint) -> Believed {
        let leaves: Vec<_> = self.pending.drain(..count).collect();
        self.pending_bytes -= leaves.iter().map(Pending::kept).sum::<usize>();
        let heads = leaves.iter().map(|leaf| (leaf.header.client.clone(), leaf.header.client_seq)).collect();
        self.believed = frontier.clone();
        Believed { leaves, frontier, signed: (checkpoint.size, checkpoint.root), heads }
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
