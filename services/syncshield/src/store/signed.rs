//! The last signed size, kept apart from the log.
//!
//! A log that was restored from an old backup comes back shorter than what was signed, with its old checkpoint, and
//! nothing in its folder can tell. This small file, best on another disk than the log, can: it is written and on disk
//! before a checkpoint is handed out, and a log that does not reach it, or holds other leaves, is not opened again.
//!
//! It holds the text of the checkpoint that was signed (origin, size, root), without the signature.

use std::path::Path;

use kiki::tlog::Tree;
use kiki::tlog::checkpoint::Checkpoint;

use super::disk::Disk;
use crate::error::Error;

/// What was signed last; none where nothing ever was.
///
/// # Errors
/// A file that cannot be read, or is not of this log.
pub fn read(disk: &dyn Disk, path: &Path, log_id: &str) -> Result<Option<Checkpoint>, Error> {
    let text = match disk.read(path) {
        Ok(bytes) => String::from_utf8(bytes).map_err(|e| Error::Damaged(format!("{}: {e}", path.display())))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let signed: Checkpoint = text.parse().map_err(|e| Error::Damaged(format!("{}: {e}", path.display())))?;
    if signed.origin != log_id {
        return Err(Error::Damaged(format!("{} is of log {:?}, not of {log_id:?}", path.display(), signed.origin)));
    }
    Ok(Some(signed))
}

/// Writes what is about to be signed; on disk when it returns.
///
/// # Errors
/// The file system's: then nothing may be signed.
pub fn write(disk: &dyn Disk, path: &Path, signed: &Checkpoint) -> std::io::Result<()> {
    super::disk::replace(disk, path, signed.to_string().as_bytes())
}

/// Whether the log has all that was signed, leaf for leaf.
///
/// # Errors
/// A log that came back shorter, or other.
pub fn check(tree: &Tree, signed: &Checkpoint, path: &Path) -> Result<(), Error> {
    let (size, path) = (signed.size, path.display());
    if size > tree.size() {
        return Err(Error::Rewound(format!("{size} leaves were signed, says {path}, and the log came back with {}", tree.size())));
    }
    if tree.root_at(size)? != signed.root {
        return Err(Error::Rewound(format!("the first {size} leaves are not those that were signed, says {path}")));
    }
    Ok(())
}
