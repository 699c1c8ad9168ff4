//! The embedded store: segment files with one writer.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::Paths;
use super::engine::{Appended, Engine, Opened, Reader};
use super::segments::{self, Index, Segments};
use crate::error::Error;

/// Segment files below one folder, locked.
pub struct Files {
    segments: Segments,
    size: u64,
    /// What the kept checkpoint covers.
    signed: u64,
    checkpoint: PathBuf,
    index: Arc<RwLock<Index>>,
    /// Held as long as the store lives; the system releases it however the process ends.
    _lock: Lock,
}

/// The right to write a folder's log, until it is dropped.
pub struct Lock {
    /// Locked until it is closed.
    _file: File,
}

impl Files {
    /// Locks a folder: a second process on it is refused.
    ///
    /// # Errors
    /// Another process holds it, or the file system's.
    pub fn lock(paths: &Paths) -> Result<Lock, Error> {
        std::fs::create_dir_all(paths.log())?;
        let path = paths.log().join("lock");
        let file = File::create(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked(path.display().to_string())),
            Err(std::fs::TryLockError::Error(e)) => Err(e.into()),
        }
    }

    /// Recovers the segments of a folder, of which `signed` leaves may not be missing.
    ///
    /// # Errors
    /// A damaged log, or the file system's.
    pub fn recover(lock: Lock, paths: &Paths, log_id: &str, signed: u64) -> Result<Opened, Error> {
        let recovered = segments::recover(&paths.log(), log_id, signed)?;
        let index = Arc::new(RwLock::new(recovered.index));
        let size = recovered.tree.size();
        let files = Self { segments: recovered.segments, size, signed, checkpoint: paths.checkpoint(), index, _lock: lock };
        Ok(Opened { engine: Box::new(files), tree: recovered.tree })
    }
}

impl Engine for Files {
    fn append(&mut self, batch: &[Vec<u8>], expected_size: u64) -> Result<Appended, Error> {
        if expected_size != self.size {
            return Ok(Appended::Lost);
        }
        if !batch.is_empty() {
            let placed = self.segments.append(batch)?;
            self.index.write().add(placed);
            self.size += batch.len() as u64;
        }
        Ok(Appended::Done(self.size))
    }

    fn size(&mut self) -> Result<u64, Error> {
        Ok(self.size)
    }

    fn checkpoint(&mut self) -> Result<Option<Vec<u8>>, Error> {
        read_note(&self.checkpoint)
    }

    fn put_checkpoint(&mut self, size: u64, note: &[u8]) -> Result<bool, Error> {
        if self.signed >= size && self.checkpoint.exists() {
            return Ok(false);
        }
        super::replace(&self.checkpoint, note)?;
        self.signed = size;
        Ok(true)
    }

    fn shared(&self) -> bool {
        false
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(FilesReader(self.index.clone()))
    }
}

struct FilesReader(Arc<RwLock<Index>>);

impl Reader for FilesReader {
    fn read(&self, from: u64, size: u64, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let Some(range) = self.0.read().range(from, size, max_bytes) else { return Ok(Vec::new()) };
        segments::read(&range)
    }
}

/// The note in a file, if there is one.
///
/// # Errors
/// The file system's.
pub(super) fn read_note(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match std::fs::read(path) {
        Ok(note) => Ok(Some(note)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}
