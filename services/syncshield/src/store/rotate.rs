//! A change of the key that signs, in steps of which each can be the last before a crash:
//!
//! 1. the new key is on disk, beside the one that signs (`keys/log.key.next`); from here on both sign;
//! 2. the KeyRotated leaf is durable;
//! 3. a checkpoint that covers it is durable, signed by both;
//! 4. its proof is kept in `log.rotations`, for those who know the old key;
//! 5. the new key takes the old one's place, and `log.pub` follows; from here on it signs alone.
//!
//! Invariants: the old key is not given up before a checkpoint by both is kept; no checkpoint is signed by the new key
//! alone before that. After 1 a start goes on with the old key, and the new one is used by the next change; from 2 on a start
//! finishes the change before it signs anything else.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiki::leaf::KeyRotated;
use kiki::rotation;
use kiki::tlog::note::SigningKey;
use kiki::tlog::{Checkpoint, Tree};
use tokio::sync::oneshot;

use super::commit::{After, Committer};
use super::disk::{Disk, replace, replace_secret};
use super::writer::Job;
use super::{Log, Paths};
use crate::domain::keys::Change;
use crate::domain::refusal::Refusal;
use crate::error::Error;

/// The keys of a log.
pub(super) struct Keys {
    /// Signs.
    pub(super) current: SigningKey,
    /// Signs too, and will take over.
    pub(super) next: Option<SigningKey>,
}

impl Paths {
    /// Every change of the key, for those who know an earlier one.
    #[must_use]
    pub fn rotations(&self) -> PathBuf {
        self.public_key().with_file_name("log.rotations")
    }

    fn next_key(&self) -> PathBuf {
        self.key().with_file_name("log.key.next")
    }
}

fn read_text(disk: &dyn Disk, path: &Path) -> std::io::Result<Option<String>> {
    match disk.read(path) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(std::io::Error::other),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Every change of a log's key, as text; empty where there was none.
///
/// # Errors
/// The file system's.
pub fn read_rotations(disk: &dyn Disk, paths: &Paths) -> std::io::Result<String> {
    Ok(read_text(disk, &paths.rotations())?.unwrap_or_default())
}

impl Keys {
    /// The key that signs, or what a change put in its place, and the one that a change was to put there.
    pub(super) fn read(disk: &dyn Disk, paths: &Paths, given: SigningKey) -> Result<Self, Error> {
        let name = given.verifying_key().name().to_owned();
        let read = |path: &Path| match read_text(disk, path)? {
            None => Ok(None),
            Some(text) => {
                let key: SigningKey = text.trim().parse()?;
                if key.verifying_key().name() == name {
                    return Ok(Some(key));
                }
                Err(Error::Key(format!("{} signs for {:?}, not for {name:?}", path.display(), key.verifying_key().name())))
            }
        };
        let (current, next) = (read(&paths.key())?.unwrap_or(given), read(&paths.next_key())?);
        Ok(Self { next: next.filter(|next| next.verifying_key() != current.verifying_key()), current })
    }

    /// A checkpoint's note, by both where there are two.
    pub(super) fn sign(&self, checkpoint: &Checkpoint) -> Result<String, Error> {
        Ok(match &self.next {
            Some(next) => checkpoint.sign_by_both(&self.current, next)?,
            None => checkpoint.sign(&self.current)?,
        })
    }
}

/// What became of a wish for another key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Where the KeyRotated leaf stands, and which keys it names.
    pub change: Change,
    /// It had been recorded before.
    pub duplicate: bool,
}

impl Log {
    /// Every change of the key that signs, as [`kiki::rotation`] reads them; empty where there was none.
    #[must_use]
    pub fn rotations(&self) -> Arc<String> {
        self.inner.rotations.load_full()
    }

    /// Replaces the key that signs by a new one. Where a change of this key was recorded before, that is finished and answered.
    ///
    /// # Errors
    /// `old` does not sign, the store has several writers, or a step failed: then the next start goes on.
    pub async fn rotate_key(&self, old: String, actor: String, reason: String) -> Result<Rotated, Error> {
        let key = old.clone();
        let done = self.run(move |ledger| Ok(ledger.state.keys.changes().iter().find(|change| change.old == key).cloned())).await?;
        let duplicate = done.is_some();
        let change = match done {
            Some(change) => change,
            None => {
                let new = self.ask(|reply| After::PrepareKey { old: old.clone(), reply }).await?;
                let body = KeyRotated { old_key: old.clone(), new_key: new.clone(), actor, reason };
                let recorded = self.run(move |ledger| ledger.rotate_key(body)).await?;
                Change { index: recorded.index, client_seq: recorded.client_seq, old, new }
            }
        };
        let finish = change.clone();
        self.ask(|reply| After::FinishRotation { change: finish, reply }).await?;
        Ok(Rotated { change, duplicate })
    }

    async fn ask<T>(&self, wish: impl FnOnce(oneshot::Sender<Result<T, Error>>) -> After) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::After(wish(reply))).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }
}

impl Committer {
    /// Step 1: a new key on disk, and its public half.
    pub(super) fn prepare_key(&mut self, old: &str) -> Result<String, Error> {
        if self.engine.shared() {
            let why = "a log in PostgreSQL has its key in the folder of each SyncShield, and none changes it for all".to_owned();
            return Err(Refusal::OutOfOrder(why).into());
        }
        let current = self.keys.current.verifying_key();
        if old != current.to_string() {
            return Err(Refusal::OutOfOrder(format!("old_key: {old} is to be replaced, and {current} signs")).into());
        }
        if let Some(next) = &self.keys.next {
            return Ok(next.verifying_key().to_string());
        }
        let seed = kiki::ids::Key::random().map_err(|e| Error::Key(e.to_string()))?;
        let next = SigningKey::new(current.name(), seed.bytes())?;
        replace_secret(&*self.inner.disk, &self.paths.next_key(), format!("{}\n", next.to_secret_text()).as_bytes())?;
        let public = next.verifying_key().to_string();
        self.keys.next = Some(next);
        Ok(public)
    }

    /// Steps 3 to 5, once the leaf is durable. A failure stops the writer; the next start begins again at step 3.
    pub(super) fn finish_rotation(&mut self, change: &Change) -> Result<(), Error> {
        self.rotate(change).map_err(|error| self.inner.fail(&error))
    }

    fn rotate(&mut self, change: &Change) -> Result<(), Error> {
        let disk = self.inner.disk.clone();
        let current = self.keys.current.verifying_key().clone();
        let kept = read_rotations(&*disk, &self.paths)?;
        let chain = rotation::read(&kept).map_err(|e| Error::Key(e.to_string()))?;
        let proven = chain.iter().any(|done| done.index == change.index);
        if current.to_string() != change.old {
            if !proven {
                tracing::error!(leaf = change.index, "log.rotations has no proof of a change of key; restore it from a backup");
            }
            return self.publish_key();
        }
        let next = self.keys.next.take().filter(|next| next.verifying_key().to_string() == change.new);
        let next = next.ok_or_else(|| Error::Key(format!("leaf {} changes it to {}, which is not in keys/", change.index, change.new)))?;
        self.keys.next = Some(next.clone());
        let note = self.sign_by_both(&next)?;
        if !proven {
            let text = kept + &self.proof(change.index, &note)?;
            rotation::newest(&text, &current).map_err(|e| Error::Key(e.to_string()))?;
            replace(&*disk, &self.paths.rotations(), text.as_bytes())?;
        }
        disk.rename(&self.paths.next_key(), &self.paths.key())?;
        self.paths.key().parent().map_or(Ok(()), |folder| disk.sync_dir(folder))?;
        (self.keys.current, self.keys.next) = (next, None);
        self.publish_key()
    }

    /// Step 3: the whole log, signed by both. What was signed at that size since step 1 is, and may be cosigned by now.
    fn sign_by_both(&mut self, next: &SigningKey) -> Result<String, Error> {
        let (size, root) = {
            let tree = self.inner.tree.read();
            (tree.size(), tree.root())
        };
        let checkpoint = Checkpoint { origin: self.inner.log_id.clone(), size, root };
        self.sign(size)?;
        Ok(checkpoint.sign_by_both(&self.keys.current, next)?)
    }

    /// Step 4: the proof of the leaf under that checkpoint.
    fn proof(&self, index: u64, note: &str) -> Result<String, Error> {
        let tree: &Tree = &self.inner.tree.read();
        let leaf = self.inner.reader.read(index, index + 1, 1)?.pop().ok_or_else(|| Error::Damaged(format!("leaf {index} is missing")))?;
        Ok(rotation::proof(index, &leaf.1, tree.inclusion_proof(index, tree.size())?, note))
    }

    fn publish_key(&mut self) -> Result<(), Error> {
        let key = self.keys.current.verifying_key().to_string();
        let text = format!("{key}\n");
        self.inner.public_key.store(Arc::new(key));
        if read_text(&*self.inner.disk, &self.paths.public_key())?.as_deref() != Some(&text) {
            replace(&*self.inner.disk, &self.paths.public_key(), text.as_bytes())?;
        }
        let rotations = read_rotations(&*self.inner.disk, &self.paths)?;
        self.inner.rotations.store(Arc::new(rotations));
        Ok(())
    }
}
