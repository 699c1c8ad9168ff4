//! The embedded store: segment files with one writer.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kiki::framed::Frames;
use kiki::lock::LockedFile;
use parking_lot::RwLock;

use super::Paths;
use super::disk::{Disk, replace};
use super::engine::{Appended, Engine, Opened, Reader};
use super::segments::{self, Index, Segments};
use crate::error::Error;

/// Segment files below one folder.
pub struct SegmentLog {
    disk: Arc<dyn Disk>,
    segments: Segments,
    size: u64,
    checkpoint: PathBuf,
    /// What stands there.
    note: Option<String>,
    index: Arc<RwLock<Index>>,
    /// Held as long as the store lives; the system releases it however the process ends.
    _lock: Option<LockedFile>,
}

impl SegmentLog {
    /// Recovers the segments of a folder, of which `signed` leaves may not be missing.
    ///
    /// # Errors
    /// A damaged log, or the file system's.
    pub fn recover(disk: Arc<dyn Disk>, paths: &Paths, log_id: &str, signed: u64, lock: Option<LockedFile>) -> Result<Opened, Error> {
        let recovered = segments::recover(&disk, &paths.log(), log_id, signed)?;
        let engine = Self {
            note: read_note(&*disk, &paths.checkpoint())?,
            disk,
            segments: recovered.segments,
            size: recovered.tree.size(),
            checkpoint: paths.checkpoint(),
            index: Arc::new(RwLock::new(recovered.index)),
            _lock: lock,
        };
        Ok(Opened { engine: Box::new(engine), tree: recovered.tree })
    }
}

/// Locks a folder: a second process on it is refused.
///
/// # Errors
/// Another process holds it, or the file system's.
pub fn lock(paths: &Paths) -> Result<LockedFile, Error> {
    std::fs::create_dir_all(paths.log())?;
    let path = paths.log().join("lock");
    LockedFile::lock(File::create(&path)?)?.ok_or_else(|| Error::Locked(path.display().to_string()))
}

/// The note in a file, if there is one.
///
/// # Errors
/// The file system's, or text that is none.
pub fn read_note(disk: &dyn Disk, path: &Path) -> Result<Option<String>, Error> {
    match disk.read(path) {
        Ok(note) => Ok(Some(String::from_utf8(note).map_err(|e| Error::Damaged(format!("{}: {e}", path.display())))?)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
}

impl Engine for SegmentLog {
    fn append(&mut self, batch: &Frames, expected_size: u64) -> Result<Appended, Error> {
        if expected_size != self.size {
            return Ok(Appended::Lost);
        }
        if !batch.is_empty() {
            let placed = self.segments.append(batch)?;
            self.index.write().add(placed);
            self.size += batch.len() as u64;
        }
        Ok(Appended::Done)
    }

    fn size(&mut self) -> Result<u64, Error> {
        Ok(self.size)
    }

    fn checkpoint(&mut self) -> Result<Option<String>, Error> {
        Ok(self.note.clone())
    }

    fn put_checkpoint(&mut self, _size: u64, note: &str, instead_of: Option<&str>) -> Result<bool, Error> {
        if self.note.as_deref() != instead_of {
            return Ok(false);
        }
        replace(&*self.disk, &self.checkpoint, note.as_bytes())?;
        self.note = Some(note.to_owned());
        Ok(true)
    }

    fn has_room(&mut self) -> Result<bool, Error> {
        self.segments.has_room()
    }

    fn shared(&self) -> bool {
        false
    }

    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(SegmentReader { disk: self.disk.clone(), index: self.index.clone() })
    }
}

struct SegmentReader {
    disk: Arc<dyn Disk>,
    index: Arc<RwLock<Index>>,
}

impl Reader for SegmentReader {
    fn read(&self, from: u64, size: u64, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let Some(range) = self.index.read().range(from, size, max_bytes)? else { return Ok(Vec::new()) };
        segments::read(&*self.disk, &range)
    }
}
