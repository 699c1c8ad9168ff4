//! What keeps the log's records: the contract that segment files and PostgreSQL both meet.
//!
//! Invariants: a batch is appended whole or not at all, only where the log has the size that the writer expected, and
//! is durable once [`Engine::append`] says so; what was read once is read again for ever; the stored checkpoint only grows.

use std::sync::Arc;

use bytes::Bytes;
use kiki::tlog::Tree;

use crate::error::Error;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is durable, and the log has this size.
    Done(u64),
    /// Another writer was first: the log has grown, and nothing of the batch was written.
    Lost,
}

/// The writer's side of a store.
pub trait Engine: Send {
    /// Compare-and-set: appends a batch where the log has `expected_size` leaves. An empty batch only compares.
    ///
    /// # Errors
    /// The store's. Whether the batch was written is then unknown; nobody may be told that it was.
    fn append(&mut self, batch: &[Vec<u8>], expected_size: u64) -> Result<Appended, Error>;

    /// How many leaves are durable.
    ///
    /// # Errors
    /// The store's.
    fn size(&mut self) -> Result<u64, Error>;

    /// The newest signed note.
    ///
    /// # Errors
    /// The store's.
    fn checkpoint(&mut self) -> Result<Option<Vec<u8>>, Error>;

    /// Keeps a signed note durably, unless the one that is kept covers as much. Says whether it was taken.
    ///
    /// # Errors
    /// The store's.
    fn put_checkpoint(&mut self, size: u64, note: &[u8]) -> Result<bool, Error>;

    /// Whether other processes may append too: then a lost batch is run again, and a failed append may be overcome.
    fn shared(&self) -> bool;

    /// The readers' side.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// The readers' side of a store: it never waits for the writer.
pub trait Reader: Send + Sync {
    /// Leaves from an index on, below `size`: about `max_bytes` of them, at least one where there is one. Blocks.
    ///
    /// # Errors
    /// The store's, or a frame that went bad since it was written.
    fn read(&self, from: u64, size: u64, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error>;
}

/// A store that was opened, with the tree over what it holds.
pub struct Opened {
    /// The store.
    pub engine: Box<dyn Engine>,
    /// The tree.
    pub tree: Tree,
}
