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
const VERSION: u32 = 10;

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

/// The digest of a state, and the version of the form that it is a digest of.
///
/// # Errors
/// A state that cannot be encoded.
pub fn digest(state: &State) -> std::io::Result<(Hash, u32)> {
    let bytes = postcard::to_stdvec(state).map_err(std::io::Error::other)?;
    Ok((Sha256::digest(&bytes).into(), VERSION))
}

/// The state of a snapshot that fits the log.
#[must_use]
pub fn read(disk: &dyn Disk, path: &Path, tree: &Tree) -> Option<State> {
    let bytes = disk.read(path).ok()?;
    let state = decode(&bytes).filter(|(state, root)| tree.root_at(state.size).is_ok_and(|fits| fits == *root));
    if state.is_none() {
        tracing::warn!(path = %path.display(), "the snapshot does not fit the log; all of the log is folded");
    }
    state.map(|(state, _)| state)
}

/// The state of a snapshot, and the root that is said to belong to it: whether it does is for the caller to check.
#[must_use]
pub fn read_unchecked(disk: &dyn Disk, path: &Path) -> Option<(State, Hash)> {
    decode(&disk.read(path).ok()?)
}

fn decode(bytes: &[u8]) -> Option<(State, Hash)> {
    let good = |snapshot: &Snapshot| snapshot.version == VERSION && snapshot.state_digest == <Hash>::from(Sha256::digest(&snapshot.state));
    let snapshot = postcard::from_bytes::<Snapshot>(bytes).ok().filter(good)?;
    let state: State = postcard::from_bytes(&snapshot.state).ok()?;
    (state.size == snapshot.size).then_some((state, snapshot.root))
}
