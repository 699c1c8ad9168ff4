//! Tiles on disk: checkpoint, hash tiles and entry bundles as plain files below DIR/tiles, for any static web server
//! and for `kiki audit proof`.
//!
//! Written behind the writer's back: after each new checkpoint, what that checkpoint adds; at the start, whatever is
//! missing or does not fit the tree. `checkpoint` is replaced last, so that all tiles of its size are there when it
//! is. They are a copy and hold up nobody: where they cannot be written, the log goes on and says so.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiki::tlog::leaf_hash;
use kiki::tlog::tile::{self, Kind, Tile};

use super::engine::Reader;
use super::{Log, Paths, Signed};
use crate::error::Error;

/// Bytes of leaves that are read at a time.
const PART: usize = 1 << 20;

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
            let (want, reader, tile) = (self.bytes(&leaves).await?, self.log.reader(), *tile);
            let put = move || if holds_entries(&path, &want) { Ok(()) } else { put_bundle(&path, &*reader, &tile) };
            return match tokio::task::spawn_blocking(put).await.map_err(|_| Error::Stopped)? {
                Err(Error::Pruned { .. }) => Ok(()), // nobody has the leaves of it any more
                put => put,
            };
        }
        let (bytes, full) = (self.bytes(tile).await?, tile.is_full());
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

fn put_file(path: &Path, bytes: &[u8], full: bool) -> std::io::Result<()> {
    put(path, full, |file| file.write_all(bytes))
}

/// Writes a bundle as it is read: one of decisions has some megabytes.
fn put_bundle(path: &Path, reader: &dyn Reader, tile: &Tile) -> Result<(), Error> {
    put(path, tile.is_full(), |file| {
        let (mut next, end) = (tile.start(), tile.start() + tile.width());
        while next < end {
            let leaves = reader.read(next, end, PART)?;
            if leaves.is_empty() {
                return Err(Error::Damaged(format!("leaf {next} is not to be found")));
            }
            next += leaves.len() as u64;
            for (at, leaf) in leaves {
                let length = u16::try_from(leaf.len()).map_err(|_| Error::Damaged(format!("leaf {at} has {} bytes", leaf.len())))?;
                file.write_all(&length.to_be_bytes())?;
                file.write_all(&leaf)?;
            }
        }
        Ok(())
    })
}

/// Whole or not at all, but not synced: what a power failure took is found and written at the next start. With a full tile, its
/// partial ones go.
fn put<E: From<std::io::Error>>(path: &Path, full: bool, write: impl FnOnce(&mut BufWriter<File>) -> Result<(), E>) -> Result<(), E> {
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let next = path.with_extension("new");
    let mut file = BufWriter::with_capacity(1 << 16, File::create(&next)?);
    if let Err(error) = write(&mut file) {
        drop(std::fs::remove_file(&next)); // half a file is of no use
        return Err(error);
    }
    file.flush()?;
    std::fs::rename(&next, path)?;
    if !full {
        return Ok(());
    }
    match std::fs::remove_dir_all(path.with_extension("p")) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}
