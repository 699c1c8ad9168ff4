//! The event log: a file of framed records, each durable before it is acknowledged, read back at the start.
//!
//! - A torn end (a bad frame with no good one behind it) was never acknowledged, and is cut off.
//! - A bad frame with a good one behind it is damage: the start stops, says where, and changes nothing.
//! - A write or fsync that failed is never retried: what the disk holds is not known any more.
//!
//! Events of customers who were erased are taken out of the file at the next start, which then writes it anew.
//!
//! There is no snapshot yet: the whole file is read at each start (CDNOW's 67,591 events take 0.1 s).

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use kiki::framed::{self, Bad, Scanner, Why};
use kiki::lock::LockedFile;
use prost::Message as _;

use super::record::{Erased, Observation, Record};
use crate::error::Error;

/// How much is read at a time: 64 of the largest frames.
const CHUNK: usize = 4 << 20;

/// The log's file in its folder.
const FILE: &str = "events.wal";

/// The open log.
#[derive(Debug)]
pub(crate) struct Wal {
    file: LockedFile,
    path: PathBuf,
    buffer: Vec<u8>,
}

/// Whether there is a log in the folder that is not empty.
pub(crate) fn has_records(folder: &Path) -> bool {
    std::fs::metadata(folder.join(FILE)).is_ok_and(|file| file.len() > 0)
}

impl Wal {
    /// Opens the log, hands every record to `apply` in order, and cuts a torn end off.
    pub(crate) fn open(folder: &Path, mut apply: impl FnMut(Record) -> Result<(), String>) -> Result<Self, Error> {
        std::fs::create_dir_all(folder).map_err(Error::io(format!("cannot make the folder {}", folder.display())))?;
        let path = folder.join(FILE);
        let failed = |what: &str| Error::io(format!("{}: cannot {what}", path.display()));
        let file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(failed("open it"))?;
        let mut file = LockedFile::lock(file).map_err(failed("lock it"))?.ok_or_else(|| Error::InUse(path.clone()))?;
        let (mut number, mut erased) = (0_u64, HashMap::new());
        let end = read(&mut file, &path, &mut |record| {
            if let Some(customer) = &record.erased {
                erased.insert(customer.clone(), number);
            }
            number += 1;
            apply(record)
        })?;
        if end < file.metadata().map_err(failed("look at it"))?.len() {
            file.set_len(end).map_err(failed("cut the torn end off"))?;
        }
        if !erased.is_empty() {
            file = without(&mut file, &path, &erased)?;
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

/// Writes the file anew without what was known of customers before they were erased, and without saying who they were.
fn without(file: &mut File, path: &Path, erased: &HashMap<Erased, u64>) -> Result<LockedFile, Error> {
    let new = path.with_extension("new");
    let failed = |what: &str| Error::io(format!("{}: cannot {what}", new.display()));
    let out = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&new).map_err(failed("open it"))?;
    let mut out = LockedFile::lock(out).map_err(failed("lock it"))?.ok_or_else(|| Error::InUse(new.clone()))?;
    file.rewind().map_err(failed("read what it replaces"))?;
    let (mut number, mut buffer) = (0_u64, Vec::new());
    read(file, path, &mut |mut record| {
        let gone = |event: &Observation| {
            let customer = Erased { client: event.client.clone(), customer: event.customer.clone() };
            erased.get(&customer).is_some_and(|when| number < *when)
        };
        record.events.retain(|event| !gone(event));
        record.attributed.retain(|attributed| !attributed.purchase.as_ref().is_some_and(gone));
        record.erased = None;
        number += 1;
        if record == Record::default() {
            return Ok(());
        }
        framed::encode(&mut buffer, &record.encode_to_vec()).map_err(|e| e.to_string())?;
        if buffer.len() >= CHUNK {
            out.write_all(&buffer).map_err(|e| e.to_string())?;
            buffer.clear();
        }
        Ok(())
    })?;
    out.write_all(&buffer).and_then(|()| out.sync_all()).map_err(failed("write it"))?;
    std::fs::rename(&new, path).map_err(failed("put it in place"))?;
    Ok(out)
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
    let means_something = |payload: &[u8]| Record::decode(payload).is_ok_and(|record| record != Record::default());
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
        Record { followed: Some(Followed { log_id: "l".into(), next_index }), ..Record::default() }
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
        let long = |next_index| Record { followed: Some(Followed { log_id: "l".repeat(60_000), next_index }), ..Record::default() };
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
