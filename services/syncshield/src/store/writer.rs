//! The one thread that writes: it runs what has queued up, appends the leaves of it all, and then answers.

use std::sync::Arc;

use kiki::clock::Clock;
use kiki::tlog::checkpoint::Checkpoint;
use kiki::tlog::note::SigningKey;
use kiki::tlog::{Hash, leaf_hash};
use tokio::sync::{mpsc, oneshot};

use super::engine::{Appended, Engine};
use super::{Inner, Paths, Signed, catalog, read_checkpoint, snapshot, take_in};
use crate::domain::ledger::Ledger;
use crate::domain::refusal::Refusal;
use crate::domain::state::State;
use crate::error::Error;

/// Leaves in one commit: 16,384 of 200 bytes are 3 MiB, well under what a disk takes in a millisecond or two.
const MAX_COMMIT: usize = 16_384;
/// Requests in one commit, so that one run again after a lost race stays short: 4,096 take some ten milliseconds.
const MAX_REQUESTS: usize = 4_096;
/// Leaves between snapshots: a restart folds at most so many.
const SNAPSHOT_EVERY: u64 = 100_000;
/// How often a batch is run again when another writer was first. Of two equal writers each loses half of the races:
/// one batch in 2^32 would lose them all.
const MAX_RUNS: u32 = 32;
/// Leaves from which hashing on a second thread, while the batch is on its way to the disk, pays for the thread.
const MIN_PARALLEL: usize = 128;

/// What the writer is asked to do.
pub(super) enum Job {
    Run(Box<dyn Request>),
    Sign { min_size: u64, reply: oneshot::Sender<Result<Signed, Error>> },
    Look,
    Close(oneshot::Sender<()>),
}

/// A request that may have to be run again.
pub(super) trait Request: Send {
    /// Runs it; what an earlier run answered is forgotten. Only with `again` it can be run once more.
    fn run(&mut self, ledger: &mut Ledger, again: bool);
    /// Answers with what the last run said, if that is durable.
    fn reply(self: Box<Self>, durable: Result<(), Error>);
}

/// A request with its answer and the one who waits for it.
pub(super) struct Asked<F, T> {
    pub(super) request: Option<F>,
    pub(super) result: Option<Result<T, Refusal>>,
    pub(super) answer: oneshot::Sender<Result<T, Error>>,
}

impl<F, T> Request for Asked<F, T>
where
    F: FnOnce(&mut Ledger) -> Result<T, Refusal> + Clone + Send,
    T: Send,
{
    fn run(&mut self, ledger: &mut Ledger, again: bool) {
        let request = if again { self.request.clone() } else { self.request.take() };
        self.result = request.map(|request| request(ledger));
    }

    fn reply(self: Box<Self>, durable: Result<(), Error>) {
        let Self { result, answer, .. } = *self;
        // Not run: the log could not be read before it.
        let said = result.map_or(Err(Error::Stopped), |result| result.map_err(Error::Refused));
        drop(answer.send(durable.and(said))); // a caller that went away needs no answer
    }
}

/// Starts the writer's thread; it ends when the queue does, or when it is told to.
pub(super) fn start(mut writer: Writer, queue: mpsc::Receiver<Job>) -> Result<(), Error> {
    std::thread::Builder::new().name("log-writer".into()).spawn(move || {
        let closed = writer.run(queue);
        drop(writer); // with its lock, before anybody hears that the log is closed
        closed.map(|reply| reply.send(()))
    })?;
    Ok(())
}

pub(super) struct Writer {
    ledger: Ledger,
    engine: Box<dyn Engine>,
    /// The fold of what is durable, where another writer may make the ledger's own fold void.
    base: Option<State>,
    /// The ledger may hold what is not in the log, or the other way round.
    stale: bool,
    key: SigningKey,
    clock: Clock,
    paths: Paths,
    snapshot_at: u64,
    failed: bool,
    inner: Arc<Inner>,
}

/// What was taken from the queue for one commit.
#[derive(Default)]
struct Batch {
    requests: Vec<Box<dyn Request>>,
    signs: Vec<(u64, oneshot::Sender<Result<Signed, Error>>)>,
    look: bool,
    close: Option<oneshot::Sender<()>>,
}

impl Writer {
    pub(super) fn new(engine: Box<dyn Engine>, state: State, key: SigningKey, clock: Clock, paths: Paths, inner: Arc<Inner>) -> Self {
        let base = engine.shared().then(|| state.clone());
        let snapshot_at = state.size;
        let ledger = Ledger::new(inner.log_id.clone(), state);
        Self { ledger, engine, base, stale: false, key, clock, paths, snapshot_at, failed: false, inner }
    }

    fn run(&mut self, mut queue: mpsc::Receiver<Job>) -> Option<oneshot::Sender<()>> {
        while let Some(first) = queue.blocking_recv() {
            let mut batch = self.take(first, &mut queue);
            let committed = if batch.look || !batch.requests.is_empty() { self.commit(&mut batch.requests) } else { Ok(()) };
            for request in batch.requests {
                request.reply(committed.clone());
            }
            for (min_size, reply) in batch.signs {
                drop(reply.send(self.sign(min_size)));
            }
            if self.ledger.state.size >= self.snapshot_at + SNAPSHOT_EVERY {
                self.snapshot();
            }
            if batch.close.is_some() {
                if let Err(error) = self.sign(0) {
                    tracing::error!(%error, "no checkpoint at the end");
                }
                self.snapshot();
                return batch.close;
            }
        }
        None
    }

    /// Takes what has queued up, and runs the requests of it.
    fn take(&mut self, first: Job, queue: &mut mpsc::Receiver<Job>) -> Batch {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Run(_) if self.failed => {} // dropped: the caller hears that the writer stopped
                Job::Run(mut request) => {
                    if !self.stale {
                        self.run_one(&mut *request);
                    }
                    batch.requests.push(request);
                }
                Job::Sign { min_size, reply } => batch.signs.push((min_size, reply)),
                Job::Look => batch.look = true,
                Job::Close(reply) => batch.close = Some(reply),
            }
            let full = self.ledger.pending() >= MAX_COMMIT || batch.requests.len() >= MAX_REQUESTS;
            next = if full || batch.close.is_some() { None } else { queue.try_recv().ok() };
        }
        batch
    }

    fn run_one(&mut self, request: &mut dyn Request) {
        self.ledger.set_now(self.clock.now());
        request.run(&mut self.ledger, self.base.is_some());
        self.ledger.seal();
    }

    /// Makes the batch durable; where others write too, on the log as it is by then.
    fn commit(&mut self, requests: &mut [Box<dyn Request>]) -> Result<(), Error> {
        for _ in 0..MAX_RUNS {
            if self.failed {
                return Err(Error::Failed);
            }
            if !self.stale && self.append()? {
                return Ok(());
            }
            self.reload()?;
            requests.iter_mut().for_each(|request| self.run_one(&mut **request));
        }
        self.stale = true;
        Err(Error::Contended(MAX_RUNS))
    }

    /// Appends what the ledger has ready. False: another writer was first.
    fn append(&mut self) -> Result<bool, Error> {
        let leaves = self.ledger.take_pending();
        if leaves.is_empty() && self.base.is_none() {
            return Ok(true);
        }
        let expected = self.inner.tree.read().size();
        let (appended, hashes) = append_and_hash(&mut *self.engine, &leaves, expected);
        match appended {
            Ok(Appended::Done(_)) => {}
            Ok(Appended::Lost) if self.base.is_some() => {
                self.stale = true;
                return Ok(false);
            }
            Err(error) if self.base.is_some() => {
                tracing::warn!(%error, "the log was not reached; it is read again before anything more is granted");
                self.stale = true;
                return Err(error);
            }
            lost_or_failed => {
                // Never retried: after a failed fsync nobody knows what the disk holds.
                tracing::error!(outcome = ?lost_or_failed, "the log cannot be written; nothing more is taken");
                self.failed = true;
                return Err(Error::Failed);
            }
        }
        if let Some(base) = &mut self.base {
            for (index, leaf) in (expected..).zip(&leaves) {
                take_in(base, index, leaf).inspect_err(|_| self.failed = true)?;
            }
        }
        let changed = self.ledger.take_catalog_changed();
        self.publish(hashes, changed);
        Ok(true)
    }

    /// Takes in what other writers appended, and starts the ledger anew from there.
    fn reload(&mut self) -> Result<(), Error> {
        let Some(mut base) = self.base.take() else { return Ok(()) };
        let read = self.catch_up(&mut base);
        self.ledger = Ledger::new(self.inner.log_id.clone(), base.clone());
        self.base = Some(base);
        self.stale = read.is_err();
        // A log that does not fold is damaged for good; one that cannot be read may come back.
        self.failed |= matches!(read, Err(Error::Damaged(_)));
        read
    }

    fn catch_up(&mut self, base: &mut State) -> Result<(), Error> {
        let size = self.engine.size()?;
        if size < base.size {
            return Err(Error::Damaged(format!("the log has {size} leaves, and had {} before", base.size)));
        }
        while base.size < size {
            let leaves = self.inner.reader.read(base.size, size, 8 << 20)?;
            if leaves.is_empty() {
                return Err(Error::Damaged(format!("leaf {} is missing", base.size)));
            }
            let mut changed = false;
            let mut hashes = Vec::with_capacity(leaves.len());
            for (index, leaf) in &leaves {
                changed |= take_in(base, *index, leaf)?;
                hashes.push(leaf_hash(leaf));
            }
            self.publish(hashes, false);
            if changed {
                self.inner.catalog.send_replace(Arc::new(catalog(base)));
            }
        }
        Ok(())
    }

    /// Shows durable leaves to the readers.
    fn publish(&mut self, hashes: Vec<Hash>, catalog_changed: bool) {
        if !hashes.is_empty() {
            let mut tree = self.inner.tree.write();
            hashes.into_iter().for_each(|hash| tree.push(hash));
            let size = tree.size();
            drop(tree);
            self.inner.committed.send_replace(size);
        }
        if catalog_changed {
            self.inner.catalog.send_replace(Arc::new(catalog(&self.ledger.state)));
        }
    }

    /// Signs the whole durable log, unless what is signed reaches `min_size` (or all of it, for 0).
    fn sign(&mut self, min_size: u64) -> Result<Signed, Error> {
        if self.failed {
            return Err(Error::Failed);
        }
        let (size, root) = {
            let tree = self.inner.tree.read();
            (tree.size(), tree.root())
        };
        if size < min_size {
            return Err(Error::OutOfRange { asked: min_size, size });
        }
        if let Some(signed) = self.inner.signed.load_full().filter(|signed| signed.size == size) {
            return Ok((*signed).clone());
        }
        let note = Checkpoint { origin: self.inner.log_id.clone(), size, root }.sign(&self.key)?;
        let signed = if self.engine.put_checkpoint(size, note.as_bytes())? {
            Signed { size, note: note.into() }
        } else {
            // Another writer signed as much: what was kept first is what is handed out.
            let kept = read_checkpoint(self.engine.checkpoint()?, &self.key)?;
            let (checkpoint, note) =
                kept.filter(|(kept, _)| kept.size >= size).ok_or_else(|| Error::Database("its newest checkpoint is gone".into()))?;
            if checkpoint.size == size && checkpoint.root != root {
                self.failed = true;
                return Err(Error::Damaged(format!("another root was signed at {size} leaves")));
            }
            Signed { size: checkpoint.size, note: note.into() }
        };
        self.inner.signed.store(Some(Arc::new(signed.clone())));
        Ok(signed)
    }

    /// A snapshot only saves time at the next start, so a failure is told and no more.
    fn snapshot(&mut self) {
        let state = self.base.as_ref().unwrap_or(&self.ledger.state);
        if self.failed || state.size == self.snapshot_at {
            return;
        }
        let root = self.inner.tree.read().root();
        match snapshot::write(&self.paths.snapshot(), state, root) {
            Ok(()) => self.snapshot_at = state.size,
            Err(error) => tracing::warn!(%error, "no snapshot"),
        }
    }
}

/// Appends, and hashes at the same time where that pays: the disk is waited for anyway.
fn append_and_hash(engine: &mut dyn Engine, leaves: &[Vec<u8>], expected: u64) -> (Result<Appended, Error>, Vec<Hash>) {
    let hash = || leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
    if leaves.len() < MIN_PARALLEL {
        return (engine.append(leaves, expected), hash());
    }
    std::thread::scope(|threads| {
        let hashing = threads.spawn(hash);
        let appended = engine.append(leaves, expected);
        let hashes = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (appended, hashes)
    })
}
