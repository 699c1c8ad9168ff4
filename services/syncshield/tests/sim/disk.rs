//! A disk in memory that fails, tears and forgets at the I/O points that it is told to.
//!
//! What the system holds (`live`) and what would survive a loss of power (`durable`) are kept apart; only a sync makes
//! the one the other. What a sync failed to save, no later one saves, though it says so and the bytes can be read: as
//! Linux has it.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use syncshield::store::disk::{Disk, DiskFile};

use crate::rng::Rng;

/// What happens at one I/O point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The machine or process ends in the middle of it: nothing after it happens.
    Crash,
    /// It fails after a part of it, with an error of the device.
    Fail,
    /// It fails after a part of it: there is no room.
    Full,
}

/// What ends a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The system lives on, with all that it holds.
    Kill,
    /// Of what was not synced an arbitrary part is left.
    PowerLoss,
}

#[derive(Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// Bytes that a sync failed to save.
    lost: std::ops::Range<usize>,
}

#[derive(Default)]
struct Inner {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    faults: BTreeMap<u64, Fault>,
    points: u64,
    dead: bool,
    lies: bool,
    swaps: bool,
    rng: Rng,
}

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct SimDisk(Arc<Mutex<Inner>>);

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

fn device() -> Error {
    Error::other("the device failed")
}

fn of(fault: Fault) -> Error {
    if fault == Fault::Full { ErrorKind::StorageFull.into() } else { device() }
}

impl Inner {
    /// Comes to the next I/O point: how far it gets, `whole` parts for all of it, and how it ends.
    fn point(&mut self, whole: usize) -> Result<(usize, Option<Fault>)> {
        if self.dead {
            return Err(device());
        }
        let fault = self.faults.get(&self.points).copied();
        self.points += 1;
        self.dead = fault == Some(Fault::Crash);
        Ok(if fault.is_some() { (self.rng.below(whole as u64 + 1) as usize, fault) } else { (whole, None) })
    }

    /// A call that is done or not: a crash may come before or after it.
    fn whole(&mut self, what: impl FnOnce(&mut Self)) -> Result<()> {
        let (done, fault) = self.point(1)?;
        if fault.is_none() || (fault == Some(Fault::Crash) && done == 1) {
            what(self);
        }
        fault.map_or(Ok(()), |fault| Err(of(fault)))
    }

    fn file(&self, path: &Path) -> Result<&Inode> {
        self.names.get(path).map(|inode| &self.inodes[*inode]).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl SimDisk {
    /// An empty disk with the faults of a seed, by I/O point.
    pub(crate) fn new(seed: u64, faults: BTreeMap<u64, Fault>) -> Self {
        Self(Arc::new(Mutex::new(Inner { rng: Rng::new(seed), faults, ..Inner::default() })))
    }

    /// From here on a sync says that it is done, and does nothing.
    pub(crate) fn lie(&self) {
        self.0.lock().lies = true;
    }

    /// From here on the first two frames of a write trade places.
    pub(crate) fn swap(&self) {
        self.0.lock().swaps = true;
    }

    /// From here on nothing fails any more.
    pub(crate) fn heal(&self) {
        self.0.lock().faults.clear();
    }

    /// How many I/O points were passed.
    pub(crate) fn points(&self) -> u64 {
        self.0.lock().points
    }

    /// Whether a crash ended everything.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// Loses a file for good.
    pub(crate) fn lose(&self, path: &Path) {
        let mut inner = self.0.lock();
        inner.names.remove(path);
        inner.durable_names.remove(path);
    }

    /// What the next process finds.
    pub(crate) fn restart(&self, end: End) {
        let mut guard = self.0.lock();
        let inner = &mut *guard;
        inner.dead = false;
        if end == End::Kill {
            return;
        }
        let mut names = BTreeMap::new();
        let all: std::collections::BTreeSet<_> = inner.names.keys().chain(inner.durable_names.keys()).cloned().collect();
        for path in all {
            let from = if inner.rng.below(2) == 0 { &inner.names } else { &inner.durable_names };
            if let Some(inode) = from.get(&path) {
                names.insert(path, *inode);
            }
        }
        for inode in &mut inner.inodes {
            if inode.live != inode.durable {
                inode.durable = survivor(&mut inner.rng, inode);
            }
            inode.live.clone_from(&inode.durable);
            inode.lost = 0..0;
        }
        inner.durable_names = names.clone();
        inner.names = names;
    }
}

impl Inode {
    fn sync(&mut self) {
        self.durable.clone_from(&self.live);
        self.durable[self.lost.clone()].fill(0);
    }

    fn fail_to_sync(&mut self) {
        let same = self.live.iter().zip(&self.durable).take_while(|(a, b)| a == b).count();
        self.lost = same..self.live.len();
    }

    fn cut(&mut self, len: usize) {
        self.live.truncate(len);
        let len = self.live.len();
        self.lost = self.lost.start.min(len)..self.lost.end.min(len);
    }
}

/// Of bytes that were not synced: none, a part, or a part and then nothing but zeroes.
fn survivor(rng: &mut Rng, inode: &Inode) -> Vec<u8> {
    let same = inode.live.iter().zip(&inode.durable).take_while(|(a, b)| a == b).count();
    if rng.below(3) == 0 {
        return inode.durable.clone();
    }
    let kept = same + rng.below((inode.live.len() - same) as u64 + 1) as usize;
    let mut bytes = inode.live[..kept].to_vec();
    if rng.below(3) == 0 {
        bytes.resize(inode.live.len(), 0);
    }
    bytes
}

impl Disk for SimDisk {
    fn max_segment(&self) -> u64 {
        4_096
    }

    fn list(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        Ok(self.0.lock().names.keys().filter(|path| path.parent() == Some(dir)).cloned().collect())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>> {
        Ok(self.0.lock().file(path)?.live.clone())
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> Result<Vec<u8>> {
        let inner = self.0.lock();
        let bytes = inner.file(path)?.live.get(offset as usize..offset as usize + len);
        bytes.map(<[u8]>::to_vec).ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    fn append(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let mut inner = self.0.lock();
        if !inner.names.contains_key(path) {
            inner.whole(|inner| {
                inner.inodes.push(Inode::default());
                inner.names.insert(path.to_owned(), inner.inodes.len() - 1);
            })?;
        }
        let inode = inner.names[path];
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn create(&self, path: &Path) -> Result<Box<dyn DiskFile>> {
        let mut inner = self.0.lock();
        inner.whole(|inner| {
            inner.inodes.push(Inode::default());
            inner.names.insert(path.to_owned(), inner.inodes.len() - 1);
        })?;
        let inode = inner.names[path];
        Ok(Box::new(SimFile { disk: self.clone(), inode }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.lock().whole(|inner| {
            let inode = inner.names.remove(from).unwrap();
            inner.names.insert(to.to_owned(), inode);
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.0.lock().whole(|inner| {
            inner.names.remove(path);
        })
    }

    fn sync_dir(&self, _: &Path) -> Result<()> {
        self.0.lock().whole(|inner| inner.durable_names = inner.names.clone())
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> Result<u64> {
        Ok(self.disk.0.lock().inodes[self.inode].live.len() as u64)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let mut inner = self.disk.0.lock();
        let (done, fault) = inner.point(bytes.len())?;
        let swapped = if inner.swaps { swapped(bytes) } else { bytes.to_vec() };
        inner.inodes[self.inode].live.extend_from_slice(&swapped[..done]);
        fault.map_or(Ok(()), |fault| Err(of(fault)))
    }

    fn cut(&mut self, len: u64) -> Result<()> {
        self.disk.0.lock().whole(|inner| inner.inodes[self.inode].cut(len as usize))
    }

    fn sync(&mut self) -> Result<()> {
        let mut inner = self.disk.0.lock();
        let lies = inner.lies;
        let synced = inner.whole(|inner| {
            if !lies {
                inner.inodes[self.inode].sync();
            }
        });
        if synced.is_err() {
            inner.inodes[self.inode].fail_to_sync();
        }
        synced
    }
}

fn swapped(bytes: &[u8]) -> Vec<u8> {
    let starts: Vec<usize> = kiki::framed::Scanner::new(bytes).filter_map(|frame| Some(frame.ok()?.0)).collect();
    let [first, second, ..] = starts[..] else { return bytes.to_vec() };
    let end = starts.get(2).copied().unwrap_or(bytes.len());
    [&bytes[second..end], &bytes[first..second], &bytes[end..]].concat()
}
