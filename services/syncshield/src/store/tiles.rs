//! Tiles on disk: checkpoint, hash tiles and entry bundles as plain files below DIR/tiles, for any static web server
//! and for `kiki audit proof`.
//!
//! Written behind the writer's back: after each new checkpoint, what that checkpoint adds; at the start, whatever is
//! missing or does not fit the tree. `checkpoint` is replaced last, so that all tiles of its size are there when it
//! is. They are a copy and hold up nobody: where they cannot be written, the log goes on and says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiki::tlog::leaf_hash;
use kiki::tlog::tile::{self, Kind, Tile};

use super::{Log, Paths, Signed};
use crate::error::Error;

/// Brings the folder up to newer and newer checkpoints.
pub struct Publisher {
    log: Log,
    folder: PathBuf,
    /// Up to which checkpoint the files are known to be right.
    done: Option<Arc<Signed>>,
}

impl Publisher {
    /// Knows nothing of the files yet: the first [`Publisher::publish`] looks at all of them.
    #[must_use]
    pub fn new(log: Log, paths: &Paths) -> Self {
        Self { log, folder: paths.tiles(), done: None }
    }

    /// Writes what the newest checkpoint adds, and then that checkpoint.
    ///
    /// # Errors
    /// The file system's; the next call begins again where this one did.
    pub async fn publish(&mut self) -> Result<(), Error> {
        let newest = self.log.newest_checkpoint();
        let Some(signed) = newest.filter(|signed| self.done.as_ref() != Some(signed)) else { return Ok(()) };
        for tile in tile::added(self.done.as_ref().map_or(0, |done| done.size), signed.size) {
            self.put(&tile).await?;
        }
        let (path, note) = (self.folder.join("checkpoint"), signed.note.clone());
        blocking(move || put_file(&path, note.as_bytes(), false)).await?;
        self.done = Some(signed);
        Ok(())
    }

    /// Writes a tile that is not there as it should be.
    async fn put(&self, tile: &Tile) -> Result<(), Error> {
        let path = self.folder.join(tile.to_string());
        if let Some(leaves) = leaf_hashes(tile) {
            let want = self.bytes(&leaves).await?;
            let path = path.clone();
            if blocking(move || Ok(holds_entries(&path, &want))).await? {
                return Ok(());
            }
        }
        let (bytes, full) = match self.bytes(tile).await {
            Err(Error::Pruned { .. }) => return Ok(()), // nobody has the leaves of it any more
            bytes => (bytes?, tile.is_full()),
        };
        blocking(move || if std::fs::read(&path).is_ok_and(|found| found == bytes) { Ok(()) } else { put_file(&path, &bytes, full) }).await
    }

    async fn bytes(&self, tile: &Tile) -> Result<Vec<u8>, Error> {
        self.log.tile(tile).await?.ok_or_else(|| Error::Damaged(format!("{tile} is not to be found")))
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> Result<T, Error> {
    Ok(tokio::task::spawn_blocking(work).await.map_err(|_| Error::Stopped)??)
}

/// The tile of the hashes of a bundle's leaves.
fn leaf_hashes(tile: &Tile) -> Option<Tile> {
    (tile.kind() == Kind::Entries).then(|| Tile::new(Kind::Hashes(0), tile.n(), tile.width() as u16)).flatten()
}

/// Whether a bundle holds the leaves of these hashes: known without reading the log.
fn holds_entries(path: &Path, hashes: &[u8]) -> bool {
    let Ok(found) = std::fs::read(path) else { return false };
    tile::entries(&found)
        .is_ok_and(|leaves| leaves.iter().map(|leaf| leaf_hash(leaf)).eq(tile::hashes(hashes).unwrap_or(&[]).iter().copied()))
}

/// With a full tile, its partial ones go.
fn put_file(path: &Path, bytes: &[u8], full: bool) -> std::io::Result<()> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    write(path, bytes)?;
    if !full {
        return Ok(());
    }
    match std::fs::remove_dir_all(path.with_extension("p")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Whole or not at all, but not synced: what a power failure took is found and written at the next start.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let next = path.with_extension("new");
    std::fs::write(&next, bytes)?;
    std::fs::rename(&next, path)
}
