//! Subjects' keys in one file of slots, each zeroed in place when its key is destroyed.
//!
//! ```text
//! slot, 128 bytes: client length u8 | client 63 | customer 16 | key id 12 | check 4 | key 32
//! ```
//!
//! A slot is in one of three states: free (all zeroes), live, or due: its key is zeroes and the log has not said so yet.
//! The key's id is a digest of the key, so what a crash left half written, or half zeroed, is no key: it is zeroed at the
//! next start, and due. 128 bytes lie within a sector, so on a real disk that does not happen.
//!
//! Zeroes in place are as good as the file system and the disk below: one that writes elsewhere (copy on write,
//! snapshots, wear levelling) or a backup keeps old keys for as long as it keeps anything.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kiki::ids::{CustomerKey, Key};
use kiki::sealed::{KEY_ID, KeyId, key_id};
use sha2::{Digest as _, Sha256};

use super::Subject;
use crate::error::Error;
use crate::store::disk::is_full;

/// Subjects with personal data: 512 MiB on disk, and in memory at most 180 MiB (21 bytes in each of 2^23 places of a table).
pub const MAX_SUBJECTS: usize = 1 << 22;
/// Bytes of a slot.
const SLOT: usize = 128;
/// Where its parts begin.
const CUSTOMER: usize = 64;
const ID: usize = 80;
const CHECK: usize = 92;
const KEY: usize = 96;

type Bytes = [u8; SLOT];
/// First 16 bytes of SHA-256(client 0x00 customer).
type Tag = [u8; 16];

enum Slot {
    Free,
    Live(Subject, Key),
    Due(Subject, KeyId),
    Bad,
}

/// The file, and where each subject's slot is.
pub struct KeyFile {
    path: PathBuf,
    /// None until there is something to keep.
    file: Option<File>,
    slots: u32,
    live: HashMap<Tag, u32>,
    free: Vec<u32>,
    due: BTreeMap<u32, (Subject, KeyId)>,
    /// A write or sync failed: nobody knows what the disk holds until a restart has read it.
    failed: bool,
}

impl KeyFile {
    /// Reads the file, and makes good what a crash left. Makes none where there is none.
    ///
    /// # Errors
    /// The file system's, or a subject with two keys.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut keys = Self::new(path);
        match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => keys.take_in(file, true)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        Ok(keys)
    }

    /// Reads the file and changes nothing: for who is not the service.
    ///
    /// # Errors
    /// As [`KeyFile::open`].
    pub fn look_at(path: &Path) -> Result<Self, Error> {
        let mut keys = Self::new(path);
        match File::open(path) {
            Ok(file) => keys.take_in(file, false)?,
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
        keys.failed = true; // nothing is written
        Ok(keys)
    }

    fn new(path: &Path) -> Self {
        let path = path.to_owned();
        Self { path, file: None, slots: 0, live: HashMap::new(), free: Vec::new(), due: BTreeMap::new(), failed: false }
    }

    fn take_in(&mut self, file: File, repair: bool) -> Result<(), Error> {
        let len = file.metadata()?.len();
        self.slots = u32::try_from(len / SLOT as u64).map_err(|_| Error::SubjectKeys(format!("{len} bytes are too many")))?;
        let mut reader = std::io::BufReader::with_capacity(1 << 20, &file);
        let mut bytes = [0; SLOT];
        let mut torn = Vec::new();
        for slot in 0..self.slots {
            reader.read_exact(&mut bytes)?;
            match decode(&bytes) {
                Slot::Free => self.free.push(slot),
                Slot::Live(subject, _) => {
                    if self.live.insert(tag(&subject), slot).is_some() {
                        return Err(Error::Damaged(format!("slot {slot} of {} is a subject's second", self.path.display())));
                    }
                }
                Slot::Due(subject, id) => {
                    if bytes[KEY..] != [0; SLOT - KEY] {
                        torn.push((slot, KEY));
                    }
                    self.due.insert(slot, (subject, id));
                }
                Slot::Bad => {
                    torn.push((slot, 0));
                    self.free.push(slot);
                }
            }
        }
        if repair && (!torn.is_empty() || len % SLOT as u64 > 0) {
            tracing::warn!(path = %self.path.display(), slots = torn.len(), "keys that a crash left half written are destroyed");
            file.set_len(u64::from(self.slots) * SLOT as u64)?;
            for (slot, from) in torn {
                file.write_all_at(&[0; SLOT][from..], at(slot) + from as u64)?;
            }
            file.sync_all()?;
        }
        self.file = Some(file);
        Ok(())
    }

    /// The key of each subject, in their order; new ones are on disk when it returns.
    ///
    /// # Errors
    /// [`MAX_SUBJECTS`], no randomness, or the file system's.
    pub fn obtain(&mut self, subjects: &[Subject]) -> Result<Vec<Key>, Error> {
        self.check()?;
        let mut keys = Vec::with_capacity(subjects.len());
        let mut new: Vec<(u32, Tag)> = Vec::new();
        let before = self.slots;
        for subject in subjects {
            let tag = tag(subject);
            let known = new.iter().find(|(_, other)| *other == tag).map(|(slot, _)| *slot);
            let key = match known.or_else(|| self.live.get(&tag).copied()) {
                Some(slot) => self.key_at(slot, subject),
                None => self.room(new.len()).and_then(|slot| {
                    new.push((slot, tag));
                    self.make(slot, subject)
                }),
            };
            match key {
                Ok(key) => keys.push(key),
                Err(error) => return Err(self.undo(error, before, &new)),
            }
        }
        if !new.is_empty() {
            self.sync()?;
            self.live.extend(new.into_iter().map(|(slot, tag)| (tag, slot)));
        }
        Ok(keys)
    }

    /// The subject's key, where it has one.
    ///
    /// # Errors
    /// The file system's.
    pub fn find(&self, subject: &Subject) -> Result<Option<Key>, Error> {
        self.live.get(&tag(subject)).map(|slot| self.key_at(*slot, subject)).transpose()
    }

    /// Destroys the subject's key. Names it, and every earlier one that the log has not heard of.
    ///
    /// # Errors
    /// The file system's: then nobody knows, until a restart.
    pub fn destroy(&mut self, subject: &Subject) -> Result<Vec<KeyId>, Error> {
        self.check()?;
        if let Some(slot) = self.live.get(&tag(subject)).copied() {
            let id = key_id(&self.key_at(slot, subject)?);
            self.write(&[0; SLOT - KEY], at(slot) + KEY as u64)?;
            self.sync()?;
            self.live.remove(&tag(subject));
            self.due.insert(slot, (subject.clone(), id));
        }
        Ok(self.due.values().filter(|(due, _)| due == subject).map(|(_, id)| *id).collect())
    }

    /// Destroyed keys that the log has not heard of.
    #[must_use]
    pub fn due(&self) -> Vec<(String, KeyId)> {
        self.due.values().map(|(subject, id)| (subject.client.clone(), *id)).collect()
    }

    /// The log says of these that they are destroyed: their slots are free.
    ///
    /// # Errors
    /// The file system's.
    pub fn forget(&mut self, ids: &[KeyId]) -> Result<(), Error> {
        self.check()?;
        let done: Vec<u32> = self.due.iter().filter(|(_, (_, id))| ids.contains(id)).map(|(slot, _)| *slot).collect();
        for slot in &done {
            self.write(&[0; SLOT], at(*slot))?;
        }
        if !done.is_empty() {
            self.sync()?;
        }
        for slot in done {
            self.due.remove(&slot);
            self.free.push(slot);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        if self.failed { Err(Error::SubjectKeys(format!("{} failed and is not written", self.path.display()))) } else { Ok(()) }
    }

    fn key_at(&self, slot: u32, subject: &Subject) -> Result<Key, Error> {
        let mut bytes = [0; SLOT];
        let file = self.file.as_ref().ok_or_else(|| Error::SubjectKeys("are not open".into()))?;
        file.read_exact_at(&mut bytes, at(slot))?;
        match decode(&bytes) {
            Slot::Live(found, key) if found == *subject => Ok(key),
            _ => Err(Error::Damaged(format!("slot {slot} of {} changed", self.path.display()))),
        }
    }

    /// A free slot, or one behind the last. `new` slots of this request are not live yet.
    fn room(&mut self, new: usize) -> Result<u32, Error> {
        let count = self.live.len() + self.due.len() + new; // slots that are not free
        if count >= MAX_SUBJECTS {
            let field = "subjects with personal data".into();
            return Err(crate::domain::refusal::Refusal::TooMany { field, count, limit: MAX_SUBJECTS }.into());
        }
        if self.file.is_none() {
            self.file = Some(make(&self.path)?);
        }
        Ok(self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        }))
    }

    fn make(&mut self, slot: u32, subject: &Subject) -> Result<Key, Error> {
        let key = Key::random().map_err(|e| Error::SubjectKeys(e.to_string()))?;
        let file = self.file.as_ref().ok_or_else(|| Error::SubjectKeys("are not open".into()))?;
        file.write_all_at(&encode(subject, &key)?, at(slot))?;
        Ok(key)
    }

    /// A request of which not all keys could be made makes none. Where there was no room that is all; else the file failed.
    fn undo(&mut self, error: Error, before: u32, new: &[(u32, Tag)]) -> Error {
        let full = match &error {
            Error::Io(error) => is_full(error),
            Error::Refused(_) => true,
            _ => false,
        };
        let undone = self.file.as_ref().map_or(Ok(()), |file| {
            file.set_len(u64::from(before) * SLOT as u64)?;
            new.iter().filter(|(slot, _)| *slot < before).try_for_each(|(slot, _)| file.write_all_at(&[0; SLOT], at(*slot)))?;
            file.sync_data()
        });
        self.failed |= undone.is_err() || (!full && self.file.is_some()); // where none could be made, nothing was written
        self.slots = before;
        self.free.extend(new.iter().map(|(slot, _)| *slot).filter(|slot| *slot < before));
        if matches!(&error, Error::Io(_)) && full { Error::Full } else { error }
    }

    fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        let file = self.file.as_ref().ok_or_else(|| Error::SubjectKeys("are not open".into()))?;
        let written = file.write_all_at(bytes, offset);
        self.failed |= written.is_err();
        Ok(written?)
    }

    /// Never retried: after a failed sync nobody knows what the disk holds.
    fn sync(&mut self) -> Result<(), Error> {
        let synced = self.file.as_ref().map_or(Ok(()), File::sync_data);
        self.failed |= synced.is_err();
        Ok(synced?)
    }
}

/// Readable by its owner alone, its name durable.
fn make(path: &Path) -> Result<File, Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn at(slot: u32) -> u64 {
    u64::from(slot) * SLOT as u64
}

fn tag(subject: &Subject) -> Tag {
    let digest = Sha256::new().chain_update(&subject.client).chain_update([0]).chain_update(subject.customer.0).finalize();
    let mut tag = [0; 16];
    tag.copy_from_slice(&digest[..16]);
    tag
}

fn encode(subject: &Subject, key: &Key) -> Result<Bytes, Error> {
    let client = subject.client.as_bytes();
    let mut bytes = [0; SLOT];
    bytes[0] = client.len() as u8;
    let fits = bytes[1..CUSTOMER].get_mut(..client.len());
    fits.ok_or_else(|| Error::SubjectKeys(format!("client of {} bytes", client.len())))?.copy_from_slice(client);
    bytes[CUSTOMER..ID].copy_from_slice(&subject.customer.0);
    bytes[ID..CHECK].copy_from_slice(&key_id(key));
    let check = check_of(&bytes);
    bytes[CHECK..KEY].copy_from_slice(&check);
    bytes[KEY..].copy_from_slice(key.bytes());
    Ok(bytes)
}

/// Against accidents: of all that stays when the key goes.
fn check_of(bytes: &Bytes) -> [u8; KEY - CHECK] {
    let digest = Sha256::digest(&bytes[..CHECK]);
    [digest[0], digest[1], digest[2], digest[3]]
}

fn decode(bytes: &Bytes) -> Slot {
    if *bytes == [0; SLOT] {
        return Slot::Free;
    }
    let client = bytes[1..CUSTOMER].get(..usize::from(bytes[0])).and_then(|client| std::str::from_utf8(client).ok());
    let (Some(client), Some(customer)) = (client, CustomerKey::from_bytes(&bytes[CUSTOMER..ID])) else { return Slot::Bad };
    if bytes[CHECK..KEY] != check_of(bytes) {
        return Slot::Bad;
    }
    let subject = Subject { client: client.to_owned(), customer };
    let (mut id, mut key) = ([0; KEY_ID], [0; SLOT - KEY]);
    id.copy_from_slice(&bytes[ID..CHECK]);
    key.copy_from_slice(&bytes[KEY..]);
    let key = Key::new(key);
    if key_id(&key) == id { Slot::Live(subject, key) } else { Slot::Due(subject, id) }
}

#[cfg(test)]
mod tests;
