//! The half of the writer that waits for the disk: it makes batches durable, shows them to the readers, answers those
//! who asked, and signs.
//!
//! Invariants: nobody is answered before the store says that the batch is durable; a checkpoint is signed only over
//! what is durable, and its size is kept apart before anybody sees it; after a failed write nothing more is taken, but
//! for one that found no room: then all is refused that was built on it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use kiki::framed::Frames;
use kiki::tlog::checkpoint::Checkpoint;
use kiki::tlog::note::{Note, Signature};
use kiki::tlog::{Hash, leaf_hash};
use tokio::sync::oneshot;

use super::catalog::Catalog;
use super::engine::{Appended, Engine};
use super::rotate::Keys;
use super::writer::Request;
use super::{Inner, Paths, Signed, open_checkpoint, signed};
use crate::domain::keys::Change;
use crate::error::Error;

/// Leaves from which hashing on a second thread, while the batch is on its way to the disk, pays for the thread.
const MIN_PARALLEL: usize = 128;
/// How often a checkpoint is tried again when another replica's was first; each of those makes the log's longer.
const MAX_SIGNATURES: u32 = 8;

/// What is made durable together, and who waits for it.
#[derive(Default)]
pub(super) struct Batch {
    /// The size of the log that it was made for.
    pub(super) first: u64,
    pub(super) leaves: Frames,
    /// What bidders' replicas are made of, where it changed.
    pub(super) catalog: Option<Arc<Catalog>>,
    pub(super) requests: Vec<Box<dyn Request>>,
    /// What is asked of the signer once the batch is durable.
    pub(super) after: Vec<After>,
}

impl Batch {
    /// Whether nobody waits for it.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.after.is_empty()
    }
}

/// A wish to the signer.
pub(super) enum After {
    Sign {
        min_size: u64,
        reply: oneshot::Sender<Result<Signed, Error>>,
    },
    Cosign {
        signed: Signed,
        signature: Signature,
        reply: oneshot::Sender<Result<(), Error>>,
    },
    /// A new key beside the one that signs, which is `old`; its public half.
    PrepareKey {
        old: String,
        reply: oneshot::Sender<Result<String, Error>>,
    },
    /// The new key in the place of the old one, where the leaf that says so is durable.
    FinishRotation {
        change: Change,
        reply: oneshot::Sender<Result<(), Error>>,
    },
}

pub(super) struct Committer {
    pub(super) engine: Box<dyn Engine>,
    pub(super) keys: Keys,
    pub(super) paths: Paths,
    pub(super) inner: Arc<Inner>,
}

impl Committer {
    /// Makes a batch durable and answers.
    pub(super) fn finish(&mut self, batch: Batch) {
        let Batch { first, leaves, catalog, requests, after } = batch;
        let committed = self.commit(first, &leaves, catalog);
        for request in requests {
            request.reply(committed.clone());
        }
        self.answer(after);
    }

    fn commit(&mut self, first: u64, leaves: &Frames, catalog: Option<Arc<Catalog>>) -> Result<(), Error> {
        if self.inner.failed.load(Relaxed) {
            return Err(Error::Failed);
        }
        if first != self.inner.tree.read().size() {
            return Err(Error::Full); // a batch before this one found no room
        }
        match self.append(leaves, first) {
            Ok(Appended::Done) => {}
            Ok(Appended::Lost) => return Err(self.inner.fail(&Error::Damaged(format!("the log has not {first} leaves any more")))),
            Err(Error::Full) => {
                tracing::error!("the log cannot be written: the disk is full; nothing is granted until there is room");
                self.inner.full.store(true, Relaxed);
                return Err(Error::Full);
            }
            Err(error) => return Err(self.inner.fail(&error)),
        }
        if let Some(catalog) = catalog {
            self.inner.catalog.send_replace(catalog);
        }
        Ok(())
    }

    /// Appends, and hashes at the same time where that pays: the disk is waited for anyway.
    pub(super) fn append(&mut self, leaves: &Frames, expected: u64) -> Result<Appended, Error> {
        let hash = || leaves.payloads().map(leaf_hash).collect::<Vec<_>>();
        let seconds = self.inner.commit_seconds.clone();
        let mut append = || {
            let timer = seconds.start_timer();
            let appended = self.engine.append(leaves, expected);
            timer.observe_duration();
            appended
        };
        let (appended, hashes) = if leaves.len() < MIN_PARALLEL {
            (append()?, hash())
        } else {
            std::thread::scope(|threads| {
                let hashing = threads.spawn(hash);
                let appended = append();
                let hashes = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                appended.map(|appended| (appended, hashes))
            })?
        };
        if appended == Appended::Done {
            self.show(hashes);
        }
        Ok(appended)
    }

    /// Shows durable leaves to the readers.
    pub(super) fn show(&self, hashes: Vec<Hash>) {
        if hashes.is_empty() {
            return;
        }
        let mut tree = self.inner.tree.write();
        hashes.into_iter().for_each(|hash| tree.push(hash));
        let size = tree.size();
        drop(tree);
        self.inner.committed.send_replace(size);
    }

    /// Does what is asked of the signer.
    pub(super) fn answer(&mut self, after: Vec<After>) {
        for wish in after {
            match wish {
                After::Sign { min_size, reply } => drop(reply.send(self.sign(min_size))),
                After::Cosign { signed, signature, reply } => drop(reply.send(self.cosign(&signed, &signature))),
                After::PrepareKey { old, reply } => drop(reply.send(self.prepare_key(&old))),
                After::FinishRotation { change, reply } => drop(reply.send(self.finish_rotation(&change))),
            }
        }
    }

    /// Signs the whole durable log, unless what is signed reaches `min_size` (or all of it, for 0).
    pub(super) fn sign(&mut self, min_size: u64) -> Result<Signed, Error> {
        if self.inner.failed.load(Relaxed) {
            return Err(Error::Failed);
        }
        let (size, root) = {
            let tree = self.inner.tree.read();
            (tree.size(), tree.root())
        };
        if size < min_size {
            return Err(Error::OutOfRange { asked: min_size, size });
        }
        let checkpoint = Checkpoint { origin: self.inner.log_id.clone(), size, root };
        for _ in 0..MAX_SIGNATURES {
            let newest = self.inner.signed.borrow().clone();
            if let Some(signed) = newest.as_deref().filter(|signed| signed.size >= size) {
                return Ok(signed.clone());
            }
            // First of all, so that nothing that was ever handed out can be forgotten.
            signed::write(&*self.inner.disk, self.paths.signed_size(), &checkpoint)?;
            let note = self.keys.sign(&checkpoint)?;
            if self.engine.put_checkpoint(size, &note, newest.as_ref().map(|signed| &*signed.note))? {
                let signed = Signed { size, note: note.into() };
                self.inner.signed.send_replace(Some(Arc::new(signed.clone())));
                return Ok(signed);
            }
            self.adopt()?;
        }
        Err(Error::Contended(MAX_SIGNATURES))
    }

    /// Takes over the checkpoint that another replica put.
    fn adopt(&mut self) -> Result<(), Error> {
        let kept = self.engine.checkpoint()?.ok_or_else(|| Error::Database("its newest checkpoint is gone".into()))?;
        let checkpoint = open_checkpoint(&kept, self.keys.current.verifying_key())?;
        let ours = self.inner.tree.read().root_at(checkpoint.size).ok();
        if ours.is_some_and(|root| root != checkpoint.root) {
            return Err(self.inner.fail(&Error::Damaged(format!("another root was signed at {} leaves", checkpoint.size))));
        }
        self.inner.signed.send_replace(Some(Arc::new(Signed { size: checkpoint.size, note: kept.into() })));
        Ok(())
    }

    /// Adds to a checkpoint, in place of what the same key said of it before. On disk only to the newest: nobody who
    /// reads there needs a cosignature of an older one.
    fn cosign(&mut self, of: &Signed, signature: &Signature) -> Result<(), Error> {
        let known = self.inner.cosigned.load_full();
        if known.as_ref().is_none_or(|known| known.size <= of.size) {
            let so_far = known.filter(|known| known.size == of.size).map_or_else(|| of.note.clone(), |known| known.note.clone());
            self.inner.cosigned.store(Some(Arc::new(Signed { size: of.size, note: with(&so_far, signature)?.into() })));
        }
        for _ in 0..MAX_SIGNATURES {
            let newest = self.inner.signed.borrow().clone();
            let Some(signed) = newest.filter(|signed| signed.size == of.size) else { return Ok(()) };
            let note = with(&signed.note, signature)?;
            if self.engine.put_checkpoint(of.size, &note, Some(&signed.note))? {
                self.inner.signed.send_replace(Some(Arc::new(Signed { size: of.size, note: note.into() })));
                return Ok(());
            }
            self.adopt()?;
        }
        Err(Error::Contended(MAX_SIGNATURES))
    }
}

/// A note with a signature, in place of another by its key.
fn with(note: &str, signature: &Signature) -> Result<String, Error> {
    let mut note = Note::parse(note.as_bytes())?;
    note.signatures.retain(|other| (&other.name, other.id) != (&signature.name, signature.id));
    note.signatures.push(signature.clone());
    Ok(note.to_string())
}
