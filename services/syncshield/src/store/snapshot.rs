//! Snapshots of the fold, so that a restart does not fold the whole log again.
//!
//! A snapshot says how many leaves it folds, the root over them and the digest of the state. One that does not fit
//! the log, or cannot be read, is only a slower start: the log is the truth.

use std::path::Path;

use kiki::tlog::{Hash, Tree};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::disk::{Disk, replace};
use crate::domain::state::State;

/// Raised whenever the state's form changes.
const VERSION: u32 = 5;

#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    size: u64,
    root: Hash,
    state_digest: Hash,
    state: Vec<u8>,
}

/// Writes the state that `root` belongs to.
///
/// # Errors
/// The file system's.
pub fn write(disk: &dyn Disk, path: &Path, state: &State, root: Hash) -> std::io::Result<()> {
    let bytes = postcard::to_stdvec(state).map_err(std::io::Error::other)?;
    let snapshot = Snapshot { version: VERSION, size: state.size, root, state_digest: Sha256::digest(&bytes).into(), state: bytes };
    replace(disk, path, &postcard::to_stdvec(&snapshot).map_err(std::io::Error::other)?)
}

/// The state of a snapshot that fits the log.
#[must_use]
pub fn read(disk: &dyn Disk, path: &Path, tree: &Tree) -> Option<State> {
    let bytes = disk.read(path).ok()?;
    let fits = |snapshot: &Snapshot| {
        snapshot.version == VERSION
            && tree.root_at(snapshot.size).is_ok_and(|root| root == snapshot.root)
            && snapshot.state_digest == <Hash>::from(Sha256::digest(&snapshot.state))
    };
    let state = postcard::from_bytes::<Snapshot>(&bytes).ok().filter(fits).and_then(|snapshot| postcard::from_bytes(&snapshot.state).ok());
    if state.is_none() {
        tracing::warn!(path = %path.display(), "the snapshot does not fit the log; all of the log is folded");
    }
    state
}
