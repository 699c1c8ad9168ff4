//! A file that one process at a time holds, so that two do not work in one folder.

use std::fs::{File, TryLockError};
use std::io;
use std::ops::{Deref, DerefMut};

/// A file whose lock is held. The operating system gives up a killed process's.
///
/// Dropping it unlocks before it closes: a child that is being started has a copy of every open file until it runs its
/// program, and the copy alone would hold the lock for that long.
#[derive(Debug)]
pub struct LockedFile(File);

impl LockedFile {
    /// Locks a file; `None` is one that another holds.
    ///
    /// # Errors
    /// The file system's.
    pub fn lock(file: File) -> io::Result<Option<Self>> {
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for LockedFile {
    fn drop(&mut self) {
        let _ = self.0.unlock(); // closing it does so too, if later
    }
}

impl Deref for LockedFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl DerefMut for LockedFile {
    fn deref_mut(&mut self) -> &mut File {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn one_at_a_time_and_a_copy_of_the_file_holds_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::open(file.path()).unwrap();
        let held = LockedFile::lock(open()).unwrap().unwrap();
        assert!(LockedFile::lock(open()).unwrap().is_none());
        // What a child has until it runs its program.
        let copy = held.try_clone().unwrap();
        drop(held);
        assert!(LockedFile::lock(open()).unwrap().is_some());
        drop(copy);
    }
}
