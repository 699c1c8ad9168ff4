//! Segment files: frames of leaves, in files named by the index of their first leaf.
//!
//! Invariants: a segment is only ever appended to; recovery cuts a torn end only beyond what was signed, and only
//! where nothing valid stands behind it. Damage anywhere else stops the start and says where.
//!
//! Of a pruned segment the file of its leaves is gone, and one of their hashes (32 bytes each) has its name but for the
//! ending: trees and proofs go on, what was said does not. Only the first segments are pruned, never the last; where both
//! files are there, a crash came before the leaves were gone, and nothing is pruned.
//!
//! What stands beyond the last signature is written anew before anything is built on it: after a process that was
//! killed between write and fsync, or that an fsync failed, the system may show bytes that its disk does not have.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use kiki::framed::{self, Frames, Scanner};
use kiki::leaf;
use kiki::tlog::{Hash, Tree, leaf_hash};

use super::disk::{Disk, DiskFile, is_full, replace};
use crate::error::Error;

/// Room that a disk which was full must have before anything is taken again: a commit of a thousand leaves of 200 B.
const ROOM: usize = 256 << 10;

/// How a file of hashes ends.
pub const HASHES: &str = ".hashes";

/// Where each leaf stands.
#[derive(Debug, Default)]
pub struct Index {
    /// Below it there are hashes alone.
    retained: u64,
    segments: Vec<Segment>,
}

#[derive(Debug)]
struct Segment {
    first: u64,
    path: PathBuf,
    /// Start of each frame; 32 bits hold 64 MiB and the largest frame.
    offsets: Vec<u32>,
    end: u32,
}

/// Frames that follow each other in one file.
#[derive(Debug)]
pub struct Range {
    path: PathBuf,
    first: u64,
    offset: u64,
    len: usize,
}

/// Leaves that were appended, for the index.
#[derive(Debug)]
pub struct Placed {
    path: PathBuf,
    first: u64,
    starts: Vec<u32>,
    end: u32,
}

impl Index {
    /// The frames from an index on, of one file, below `size` and of at most `max_bytes` but at least one.
    ///
    /// # Errors
    /// [`Error::Pruned`].
    pub fn range(&self, from: u64, size: u64, max_bytes: usize) -> Result<Option<Range>, Error> {
        if from < self.retained.min(size) {
            return Err(Error::Pruned { asked: from, retained: self.retained });
        }
        Ok(self.find(from, size, max_bytes))
    }

    fn find(&self, from: u64, size: u64, max_bytes: usize) -> Option<Range> {
        if from >= size {
            return None;
        }
        let segment = &self.segments[self.segments.partition_point(|segment| segment.first <= from).checked_sub(1)?];
        let at = (from - segment.first) as usize;
        let last = segment.offsets.len().min((size - segment.first) as usize);
        let start = *segment.offsets.get(at)?;
        let ends = |i: usize| segment.offsets.get(i).copied().unwrap_or(segment.end);
        let within = (at + 1..=last).take_while(|i| (ends(*i) - start) as usize <= max_bytes).last().unwrap_or(at + 1);
        Some(Range { path: segment.path.clone(), first: from, offset: start.into(), len: (ends(within) - start) as usize })
    }

    /// Takes in what was appended.
    pub fn add(&mut self, placed: Placed) {
        match self.segments.last_mut().filter(|segment| segment.path == placed.path) {
            Some(segment) => {
                segment.offsets.extend(placed.starts);
                segment.end = placed.end;
            }
            None => self.segments.push(Segment { first: placed.first, path: placed.path, offsets: placed.starts, end: placed.end }),
        }
    }
}

/// Reads the leaves of a range.
///
/// # Errors
/// The file system's, or a frame that went bad since it was written.
pub fn read(disk: &dyn Disk, range: &Range) -> Result<Vec<(u64, Bytes)>, Error> {
    let bytes = Bytes::from(disk.read_at(&range.path, range.offset, range.len)?);
    let mut leaves = Vec::new();
    for (index, frame) in (range.first..).zip(Scanner::new(&bytes)) {
        let (_, payload) = frame.map_err(|bad| Error::Damaged(format!("leaf {index} in {}: {}", range.path.display(), bad.why)))?;
        leaves.push((index, bytes.slice_ref(payload)));
    }
    Ok(leaves)
}

/// The segments of a folder in order, by their first index. One at the end that was made and never written to is none:
/// the segment before it may still be the one that is written, where there was no room to make the next.
///
/// # Errors
/// The file system's. A folder that does not exist has none.
pub fn list(disk: &dyn Disk, dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let mut found = named(disk, dir, ".seg")?;
    while let Some((_, path)) = found.last()
        && is_empty(disk, path)?
    {
        found.pop();
    }
    Ok(found)
}

fn is_empty(disk: &dyn Disk, path: &Path) -> std::io::Result<bool> {
    match disk.read_at(path, 0, 1) {
        Ok(_) => Ok(false),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(true),
        Err(e) => Err(e),
    }
}

/// The files of hashes of pruned segments, in order, by their first index.
///
/// # Errors
/// As [`list`].
pub fn pruned(disk: &dyn Disk, dir: &Path) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let (mut hashes, leaves) = (named(disk, dir, HASHES)?, list(disk, dir)?);
    hashes.retain(|(first, _)| leaves.iter().all(|(of, _)| of != first));
    Ok(hashes)
}

/// The hashes of the leaves that were pruned: all that is below the first leaf that is left.
///
/// # Errors
/// The file system's, a file that is none of hashes, or a gap.
pub fn pruned_hashes(disk: &dyn Disk, dir: &Path) -> Result<Vec<Hash>, Error> {
    let mut hashes: Vec<Hash> = Vec::new();
    for (first, path) in pruned(disk, dir)? {
        let at = hashes.len() as u64;
        if first != at {
            return Err(Error::Damaged(format!("{} starts at leaf {first}, and {at} stand before it", path.display())));
        }
        let bytes = disk.read(&path)?;
        let (found, rest) = bytes.as_chunks::<32>();
        if found.is_empty() || !rest.is_empty() {
            return Err(Error::Damaged(format!("{} has {} bytes; hashes have 32 each", path.display(), bytes.len())));
        }
        hashes.extend_from_slice(found);
    }
    Ok(hashes)
}

fn named(disk: &dyn Disk, dir: &Path, ending: &str) -> std::io::Result<Vec<(u64, PathBuf)>> {
    let paths = match disk.list(dir) {
        Ok(paths) => paths,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    for path in paths {
        let first = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(ending)).map(str::parse);
        if let Some(Ok(first)) = first {
            found.push((first, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a data folder has records, whole or not.
///
/// # Errors
/// The file system's.
pub fn any_records(paths: &super::Paths) -> std::io::Result<bool> {
    Ok(!list(&super::disk::Files, &paths.log())?.is_empty())
}

/// What recovery found.
pub struct Recovered {
    /// The tree over all leaves.
    pub tree: Tree,
    /// Where they stand.
    pub index: Index,
    /// The writer, at the end.
    pub segments: Segments,
}

/// Reads every segment, checks every frame, and cuts a torn end.
///
/// # Errors
/// Damage at or below `signed` leaves, or with a valid record behind it; says which leaf of which file.
pub fn recover(disk: &Arc<dyn Disk>, dir: &Path, log_id: &str, signed: u64) -> Result<Recovered, Error> {
    let files = list(&**disk, dir)?;
    let mut last = Vec::new();
    let mut cut = false;
    let mut tree: Tree = pruned_hashes(&**disk, dir)?.into_iter().collect();
    let mut index = Index { retained: tree.size(), ..Default::default() };
    for (i, (first, path)) in files.iter().enumerate() {
        if *first != tree.size() {
            return Err(Error::Damaged(format!("{} starts at leaf {first}, and {} stand before it", path.display(), tree.size())));
        }
        let bytes = disk.read(path)?;
        let mut scanned = scan(&bytes, log_id, *first);
        let last_file = i + 1 == files.len();
        if let Some((offset, why)) = scanned.torn_end() {
            let at = *first + scanned.starts.len() as u64;
            let newer = |payload: &[u8]| leaf::decode(payload).is_ok_and(|(head, _)| head.log_id == log_id && head.index > at);
            let behind = !last_file || (scanned.bad.is_some() && framed::valid_frame_behind(&bytes, offset, newer).is_some());
            if *first + scanned.whole as u64 >= signed && !behind {
                tracing::warn!(leaf = at, bytes = bytes.len() - scanned.cut(), "the torn end of the last write is cut");
                scanned.keep_whole();
            } else {
                let reason = if at < signed { "it was signed" } else { "valid records stand behind it" };
                return Err(Error::Damaged(format!("leaf {at} at byte {offset} of {}: {why}; {reason}", path.display())));
            }
        }
        scanned.hashes.into_iter().for_each(|hash| tree.push(hash));
        index.add(Placed { path: path.clone(), first: *first, starts: scanned.starts, end: scanned.end });
        last = bytes;
        cut = (scanned.end as usize) < last.len();
        last.truncate(scanned.end as usize);
    }
    if let Some((_, path)) = files.last().filter(|_| cut || tree.size() > signed) {
        replace(&**disk, path, &last)?;
    }
    let segments = Segments::at_end(disk.clone(), dir, files.last(), tree.size())?;
    Ok(Recovered { tree, index, segments })
}

/// The leaves of one file, up to the first place that holds none.
#[derive(Default)]
struct Scanned {
    starts: Vec<u32>,
    hashes: Vec<Hash>,
    end: u32,
    /// Leaves of whole requests.
    whole: usize,
    bad: Option<(usize, String)>,
}

impl Scanned {
    /// What stands at the end and cannot stay: a bad place, or a request of which leaves are missing.
    fn torn_end(&self) -> Option<(usize, String)> {
        let half = (self.whole < self.starts.len()).then(|| (self.end as usize, "its request is not whole".to_owned()));
        self.bad.clone().or(half)
    }

    fn cut(&self) -> usize {
        self.starts.get(self.whole).copied().unwrap_or(self.end) as usize
    }

    fn keep_whole(&mut self) {
        self.end = self.cut() as u32;
        self.starts.truncate(self.whole);
        self.hashes.truncate(self.whole);
    }
}

fn scan(bytes: &[u8], log_id: &str, first: u64) -> Scanned {
    let mut scanned = Scanned::default();
    for frame in Scanner::new(bytes) {
        let (offset, payload) = match frame {
            Ok(frame) => frame,
            Err(bad) => {
                scanned.bad = Some((bad.offset, bad.why.to_string()));
                break;
            }
        };
        let wrong = match leaf::decode(payload) {
            Ok((head, _)) if head.log_id == log_id && head.index == first + scanned.starts.len() as u64 => {
                scanned.starts.push(offset as u32);
                scanned.hashes.push(leaf_hash(payload));
                scanned.end = (offset + framed::HEADER + payload.len()) as u32;
                scanned.whole = if head.continued { scanned.whole } else { scanned.starts.len() };
                continue;
            }
            Ok((head, _)) => format!("it is leaf {} of {:?}", head.index, head.log_id),
            Err(error) => error.to_string(),
        };
        scanned.bad = Some((offset, wrong));
        break;
    }
    scanned
}

/// The end of the log, where the writer appends.
pub struct Segments {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    len: u64,
    size: u64,
}

impl Segments {
    fn at_end(disk: Arc<dyn Disk>, dir: &Path, last: Option<&(u64, PathBuf)>, size: u64) -> std::io::Result<Self> {
        let path = last.map_or_else(|| dir.join(name(size)), |(_, path)| path.clone());
        let file = disk.append(&path)?;
        disk.sync_dir(dir)?;
        Ok(Self { dir: dir.to_owned(), len: file.size()?, file, path, size, disk })
    }

    /// Appends leaves and makes them durable.
    ///
    /// # Errors
    /// [`Error::Full`] where there was no room: all is as it was before. Any other is the file system's; what the disk
    /// holds is unknown then, and nothing more may be appended.
    pub fn append(&mut self, leaves: &Frames) -> Result<Placed, Error> {
        if self.len >= self.disk.max_segment() {
            self.next_segment()?;
        }
        self.write(leaves.bytes())?;
        self.file.sync()?;
        let (first, start) = (self.size, self.len as u32);
        self.len += leaves.bytes().len() as u64;
        self.size += leaves.len() as u64;
        let starts = leaves.starts().iter().map(|at| start + at).collect();
        Ok(Placed { path: self.path.clone(), first, starts, end: self.len as u32 })
    }

    fn next_segment(&mut self) -> Result<(), Error> {
        let next = (self.size, self.dir.join(name(self.size)));
        match Self::at_end(self.disk.clone(), &self.dir, Some(&next), self.size) {
            Ok(segments) => *self = segments,
            Err(error) if is_full(&error) => return Err(Error::Full),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Writes behind what is durable. Where there is no room for all of it none of it stays: nothing was synced since,
    /// so the disk owes nothing, and the cut is durable before anything else is written in its place.
    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match self.file.write(bytes) {
            Err(error) if is_full(&error) => {
                self.file.cut(self.len)?;
                self.file.sync()?;
                Err(Error::Full)
            }
            written => Ok(written?),
        }
    }

    /// Whether there is room again, tried out on the segment itself.
    ///
    /// # Errors
    /// As [`Segments::append`].
    pub fn has_room(&mut self) -> Result<bool, Error> {
        match self.write(&vec![0; ROOM]) {
            Ok(()) => self.file.cut(self.len).and_then(|()| self.file.sync())?,
            Err(Error::Full) => return Ok(false),
            Err(error) => return Err(error),
        }
        Ok(true)
    }
}

fn name(first: u64) -> String {
    format!("{first:020}.seg")
}
