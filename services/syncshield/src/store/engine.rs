//! What keeps the log's records: the contract that segment files and PostgreSQL both meet.
//!
//! Invariants: a batch is appended whole or not at all, only where the log has the size that the writer expected, and
//! is durable once [`Engine::append`] says so; what was read once is read again for ever; a checkpoint is replaced
//! only by who knows the one that stands there.

use std::sync::Arc;

use bytes::Bytes;
use kiki::framed::Frames;
use kiki::tlog::Tree;

use crate::error::Error;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is durable.
    Done,
    /// Another writer was first: the log has grown, and nothing of the batch was written.
    Lost,
}

/// The writer's side of a store.
pub trait Engine: Send {
    /// Compare-and-set: appends a batch where the log has `expected_size` leaves. An empty batch only compares.
    ///
    /// # Errors
    /// [`Error::Full`] where there was no room, and nothing was written. After any other of the store's it is unknown
    /// whether the batch was written; nobody may be told that it was.
    fn append(&mut self, batch: &Frames, expected_size: u64) -> Result<Appended, Error>;

    /// How many leaves are durable.
    ///
    /// # Errors
    /// The store's.
    fn size(&mut self) -> Result<u64, Error>;

    /// The newest signed note.
    ///
    /// # Errors
    /// The store's.
    fn checkpoint(&mut self) -> Result<Option<String>, Error>;

    /// Keeps a signed note durably where `instead_of` is what stands there. Says whether it was taken.
    ///
    /// # Errors
    /// The store's.
    fn put_checkpoint(&mut self, size: u64, note: &str, instead_of: Option<&str>) -> Result<bool, Error>;

    /// Whether a store that was full has room again.
    ///
    /// # Errors
    /// The store's.
    fn has_room(&mut self) -> Result<bool, Error>;

    /// Whether other processes may append too: then a lost batch is run again, and a failed append may be overcome.
    fn shared(&self) -> bool;

    /// The readers' side.
    fn reader(&self) -> Arc<dyn Reader>;
}

/// The readers' side of a store: it never waits for the writer.
pub trait Reader: Send + Sync {
    /// Leaves from an index on, below `size`: at most `max_bytes` of them, but one where there is one; none only where
    /// there is none. Blocks.
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
