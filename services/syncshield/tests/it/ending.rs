//! The real disk, until the process ends: after so many calls that change something, each of them fails.

use std::io::{Error, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use syncshield::store::disk::{Disk, DiskFile, Files};

/// Clones are the same disk.
#[derive(Clone)]
pub(crate) struct Ending {
    left: Arc<AtomicI64>,
    max_segment: u64,
}

impl Ending {
    /// Ends after `calls`; a segment is full at `max_segment` bytes.
    pub(crate) fn after(calls: i64, max_segment: u64) -> Self {
        Self { left: Arc::new(AtomicI64::new(calls)), max_segment }
    }

    /// From here on it ends after `calls`.
    pub(crate) fn end_after(&self, calls: i64) {
        self.left.store(calls, Ordering::SeqCst);
    }

    fn step(&self) -> Result<()> {
        if self.left.fetch_sub(1, Ordering::SeqCst) > 0 { Ok(()) } else { Err(Error::other("the process has ended")) }
    }

    fn file(&self, file: Result<Box<dyn DiskFile>>) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(EndingFile(self.clone(), file?)))
    }
}

impl Disk for Ending {
    fn max_segment(&self) -> u64 {
        self.max_segment
    }
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        Files.list(dir)
    }
    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        Files.read(path)
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        Files.read_at(path, offset, len)
    }
    fn append(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.step()?;
        self.file(Files.append(path))
    }
    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.step()?;
        self.file(Files.create(path))
    }
    fn create_secret(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.step()?;
        self.file(Files.create_secret(path))
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.step()?;
        Files.rename(from, to)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.step()?;
        Files.remove(path)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.step()?;
        Files.sync_dir(dir)
    }
}

struct EndingFile(Ending, Box<dyn DiskFile>);

impl DiskFile for EndingFile {
    fn size(&self) -> Result<u64> {
        self.1.size()
    }
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        // An end in the middle of a write leaves a part of it.
        self.0.step().inspect_err(|_| drop(self.1.write(&bytes[..bytes.len() / 2])))?;
        self.1.write(bytes)
    }
    fn cut(&mut self, len: u64) -> Result<()> {
        self.0.step()?;
        self.1.cut(len)
    }
    fn sync(&mut self) -> Result<()> {
        self.0.step()?;
        self.1.sync()
    }
}
