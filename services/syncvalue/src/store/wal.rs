//! The event log: a file of framed records, each durable before it is acknowledged, read back at the start.
//!
//! - A torn end (a bad frame with no good one behind it) was never acknowledged, and is cut off.
//! - A bad frame with a good one behind it is damage: the start stops, says where, and changes nothing.
//! - A write or fsync that failed is never retried: what the disk holds is not known any more.
//!
//! There is no snapshot yet: the whole file is read at each start (CDNOW's 67,591 events take 0.1 s).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use kiki::framed::{self, Bad, Scanner, Why};
use prost::Message as _;

use super::record::Record;
use crate::error::Error;

/// How much is read at a time: 64 of the largest frames.
const CHUNK: usize = 4 << 20;

/// The open log.
#[derive(Debug)]
pub(crate) struct Wal {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
}

impl Wal {
    /// Opens the log, hands every record to `apply` in order, and cuts a torn end off.
    pub(crate) fn open(folder: &Path, mut apply: impl FnMut(Record) -> Result<(), String>) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(Error::io(format!("cannot make the folder {}", folder.display())))?;
        let path = folder.join("events.wal");
        let failed = |what: &str| Error::io(format!("{}: cannot {what}", path.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed("open it"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::InUse(path)),
            Err(TryLockError::Error(e)) => return Err(failed("lock it")(e)),
        }
        let end = read(&mut file, &path, &mut apply)?;
        if end < file.metadata().map_err(failed("look at it"))?.len() {
            file.set_len(end).map_err(failed("cut the torn end off"))?;
        }
        // The folder's entry has to be as durable as what is in the file.
        file.sync_all().and_then(|()| File::open(folder)?.sync_all()).map_err(failed("sync it"))?;
        Ok(Self { file, path, buffer: Vec::new() })
    }

    /// Appends records and makes them durable. After an error the log must not be used again.
    pub(crate) fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        self.buffer.clear();
        for record in records {
            framed::encode(&mut self.buffer, &record.encode_to_vec())
                .map_err(|e| Error::LogFailed(format!("{}: {e}", self.path.display())))?;
        }
        self.file
            .write_all(&self.buffer)
            .and_then(|()| self.file.sync_data())
            .map_err(Error::io(format!("{}: cannot write", self.path.display())))
    }
}

/// Reads all records; gives back where the last good one ends.
fn read(file: &mut File, path: &Path, apply: &mut impl FnMut(Record) -> Result<(), String>) -> Result<u64, Error> {
    let (mut bytes, mut start) = (Vec::new(), 0_u64); // bytes[0] is at `start` in the file
    loop {
        let read = (&*file).take(CHUNK as u64).read_to_end(&mut bytes).map_err(Error::io(format!("{}: cannot read", path.display())))?;
        let mut scanner = Scanner::new(&bytes);
        let mut bad = None;
        for frame in scanner.by_ref() {
            match frame {
                Ok((offset, payload)) => {
                    let unreadable = |why: String| Error::Unreadable { path: path.into(), offset: start + offset as u64, why };
                    apply(Record::decode(payload).map_err(|e| unreadable(e.to_string()))?).map_err(unreadable)?;
                }
                Err(e) => bad = Some(e),
            }
        }
        let done = scanner.offset();
        match bad {
            // The frame goes on in the next chunk.
            Some(Bad { why: Why::Torn, .. }) if read > 0 => {}
            Some(bad) => return stop_at_damage(file, path, &mut bytes, start, bad),
            None if read == 0 => return Ok(start + done as u64),
            None => {}
        }
        bytes.drain(..done);
        start += done as u64;
    }
}

/// A bad frame: an end to cut off, or damage to stop at.
fn stop_at_damage(file: &mut File, path: &Path, bytes: &mut Vec<u8>, start: u64, bad: Bad) -> Result<u64, Error> {
    file.read_to_end(bytes).map_err(Error::io(format!("{}: cannot read", path.display())))?;
    let means_something =
        |payload: &[u8]| Record::decode(payload).is_ok_and(|record| !record.events.is_empty() || record.followed.is_some());
    match framed::valid_frame_behind(bytes, bad.offset, means_something) {
        None => Ok(start + bad.offset as u64),
        Some(good) => {
            let bad = Bad { offset: (start + bad.offset as u64) as usize, ..bad };
            Err(Error::Damaged { path: path.into(), bad, good: start + good as u64 })
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::record::Followed;
    use super::*;

    fn record(next_index: u64) -> Record {
        Record { events: Vec::new(), followed: Some(Followed { log_id: "l".into(), next_index }) }
    }

    fn open(folder: &Path) -> Result<(Wal, Vec<u64>), Error> {
        let mut seen = Vec::new();
        let wal = Wal::open(folder, |record| {
            seen.push(record.followed.unwrap().next_index);
            Ok(())
        })?;
        Ok((wal, seen))
    }

    /// A log of `records` records; gives back its bytes.
    fn written(folder: &Path, records: u64) -> Vec<u8> {
        let (mut wal, _) = open(folder).unwrap();
        wal.append(&(1..=records).map(record).collect::<Vec<_>>()).unwrap();
        std::fs::read(folder.join("events.wal")).unwrap()
    }

    #[test]
    fn a_torn_end_is_cut_off_wherever_it_tore() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(folder.path(), 3);
        let frame = bytes.len() / 3;
        for cut in 2 * frame..bytes.len() {
            std::fs::write(folder.path().join("events.wal"), &bytes[..cut]).unwrap();
            let (mut wal, seen) = open(folder.path()).unwrap();
            assert_eq!(seen, [1, 2]);
            wal.append(&[record(9)]).unwrap();
            drop(wal);
            assert_eq!(open(folder.path()).unwrap().1, [1, 2, 9]);
        }
        let zeroes = [&bytes[..frame], &[0; 4096]].concat();
        std::fs::write(folder.path().join("events.wal"), zeroes).unwrap();
        assert_eq!(open(folder.path()).unwrap().1, [1]);
    }

    #[test]
    fn damage_before_a_good_record_stops_the_start_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = written(folder.path(), 3);
        let frame = bytes.len() / 3;
        for byte in 0..2 * frame {
            let mut damaged = bytes.clone();
            damaged[byte] ^= 0x10;
            std::fs::write(folder.path().join("events.wal"), &damaged).unwrap();
            let error = open(folder.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("byte {}", byte / frame * frame)), "{byte}: {error}");
            assert_eq!(std::fs::read(folder.path().join("events.wal")).unwrap(), damaged);
        }
    }

    #[test]
    fn reads_frames_across_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let long = |next_index| Record { events: Vec::new(), followed: Some(Followed { log_id: "l".repeat(60_000), next_index }) };
        let (mut wal, _) = open(folder.path()).unwrap();
        wal.append(&(0..150).map(long).collect::<Vec<_>>()).unwrap();
        drop(wal);
        assert_eq!(open(folder.path()).unwrap().1, (0..150).collect::<Vec<_>>());
    }

    #[test]
    fn one_process_has_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let first = open(folder.path()).unwrap();
        assert!(matches!(open(folder.path()), Err(Error::InUse(_))));
        drop(first);
        assert!(open(folder.path()).is_ok());
    }
}
