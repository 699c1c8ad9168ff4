//! What the log asks of a file system, and the real one.
//!
//! Everything that the writer and recovery do to files goes through here, call by call, so that a simulation can put
//! a disk in its place that fails, tears and forgets at any one of them. Not here: what the bytes mean.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// A file system, as far as the log needs one.
pub trait Disk: Send + Sync {
    /// Where a segment ends, bytes: what is longer takes no more. Small enough to read into memory whole, as recovery does.
    fn max_segment(&self) -> u64 {
        64 << 20
    }

    /// The files of a folder, in any order.
    ///
    /// # Errors
    /// The file system's.
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>>;

    /// All of a file.
    ///
    /// # Errors
    /// The file system's.
    fn read(&self, path: &Path) -> Result<Vec<u8>>;

    /// So many bytes of a file from an offset on.
    ///
    /// # Errors
    /// The file system's; a file that ends before is one.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>>;

    /// Opens a file to append to, and makes it where there is none. Its name is durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The file system's.
    fn append(&self, path: &Path) -> Result<Box<dyn DiskFile>>;

    /// Makes a file anew, empty.
    ///
    /// # Errors
    /// The file system's.
    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>>;

    /// As [`Disk::create`], readable by its owner alone from the first byte.
    ///
    /// # Errors
    /// The file system's.
    fn create_secret(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        self.create(path)
    }

    /// Gives a file another's name, at once.
    ///
    /// # Errors
    /// The file system's.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file. That it is gone is durable after [`Disk::sync_dir`].
    ///
    /// # Errors
    /// The file system's.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// The file system's.
    fn sync_dir(&self, dir: &Path) -> Result<()>;
}

/// An open file.
pub trait DiskFile: Send {
    /// Its length, bytes.
    ///
    /// # Errors
    /// The file system's.
    fn size(&self) -> Result<u64>;

    /// Appends bytes; of those some may stand there when it fails.
    ///
    /// # Errors
    /// The file system's.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Cuts it to a length, bytes.
    ///
    /// # Errors
    /// The file system's.
    fn cut(&mut self, len: u64) -> Result<()>;

    /// Makes its bytes and length durable. After a failure nobody knows which of them are.
    ///
    /// # Errors
    /// The file system's.
    fn sync(&mut self) -> Result<()>;
}

/// The operating system's files.
#[derive(Debug, Clone, Copy)]
pub struct Files;

impl Disk for Files {
    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        std::fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        File::open(path)?.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    fn append(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().create(true).append(true).open(path)?))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn create_secret(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        use std::os::unix::fs::OpenOptionsExt as _;
        Ok(Box::new(OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        std::fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        File::open(dir)?.sync_all()
    }
}

impl DiskFile for File {
    fn size(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.write_all(bytes)
    }

    fn cut(&mut self, len: u64) -> Result<()> {
        self.set_len(len)
    }

    fn sync(&mut self) -> Result<()> {
        self.sync_data() // the length with it, where it changed
    }
}

/// Replaces a small file so that after a crash the old or the new one stands there, whole.
pub(crate) fn replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let next = path.with_extension("new");
    put(disk, disk.create(&next)?, bytes, &next, path)
}

/// As [`replace`], readable by its owner alone.
pub(crate) fn replace_secret(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let next = path.with_extension("new");
    put(disk, disk.create_secret(&next)?, bytes, &next, path)
}

fn put(disk: &dyn Disk, mut file: Box<dyn DiskFile>, bytes: &[u8], next: &Path, path: &Path) -> Result<()> {
    file.write(bytes)?;
    file.sync()?;
    disk.rename(next, path)?;
    path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))
}

/// Whether a write failed because there was no room: the one failure that passes by itself.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}
