//! The half of the writer that thinks: it runs what has queued up against the ledger, while the batch before is on its
//! way to the disk (`store/commit`).
//!
//! Where others write the same store there is no working ahead: a batch that another writer forestalled is run again on
//! what that writer left, so every answer is one to the log as it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as sync_mpsc;

use kiki::clock::Clock;
use kiki::tlog::leaf_hash;
use tokio::sync::{mpsc, oneshot};

use super::catalog::Catalog;
use super::commit::{After, Batch, Committer};
use super::engine::Appended;
use super::{Inner, Paths, fold, snapshot, take_in};
use crate::domain::ledger::Ledger;
use crate::domain::refusal::Refusal;
use crate::domain::state::State;
use crate::error::Error;

/// Leaves in one commit: 16,384 of 200 bytes are 3 MiB, well under what a disk takes in a millisecond or two.
const MAX_COMMIT: usize = 16_384;
/// Requests in one commit, so that one run again after a lost race stays short: 4,096 take some ten milliseconds.
const MAX_REQUESTS: usize = 4_096;
/// Leaves between snapshots: a restart folds at most so many, at about a microsecond each.
const SNAPSHOT_EVERY: u64 = 1_000_000;
/// How often a batch is run again when another writer was first. Of two equal writers each loses half of the races:
/// one batch in 2^32 would lose them all.
const MAX_RUNS: u32 = 32;

/// What the writer is asked to do.
pub(super) enum Job {
    Run(Box<dyn Request>),
    After(After),
    /// Look for what other writers appended.
    Look,
    /// The disk waits for the next batch.
    Idle,
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

pub(super) struct Writer {
    ledger: Ledger,
    commits: Commits,
    /// The fold of what is durable, where another writer may make the ledger's own fold void.
    base: Option<State>,
    /// The ledger may hold what is not in the log, or the other way round.
    stale: bool,
    clock: Clock,
    paths: Paths,
    snapshot_at: u64,
    inner: Arc<Inner>,
}

/// Who waits for the disk.
enum Commits {
    /// The writer itself; one batch may stay behind until the next comes.
    Here { committer: Box<Committer>, behind: Option<Batch> },
    /// A thread of its own, with one batch in hand and one that waits.
    Thread { send: sync_mpsc::SyncSender<ToDisk>, busy: Arc<AtomicBool>, thread: std::thread::JoinHandle<()> },
}

enum ToDisk {
    Finish(Batch),
    HasRoom(sync_mpsc::SyncSender<Result<bool, Error>>),
    /// Answered when all before it is done.
    Drain(sync_mpsc::SyncSender<()>),
}

impl Writer {
    pub(super) fn new(committer: Committer, state: State, clock: Clock) -> Self {
        let inner = committer.inner.clone();
        let base = committer.engine.shared().then(|| state.clone());
        let (snapshot_at, paths) = (state.size, committer.paths.clone());
        let ledger = Ledger::new(inner.log_id.clone(), state);
        let commits = Commits::Here { committer: Box::new(committer), behind: None };
        Self { ledger, commits, base, stale: false, clock, paths, snapshot_at, inner }
    }

    /// Takes what has queued up behind `first` into the batch, and runs the requests of it.
    fn take(&mut self, first: Job, queue: &mut mpsc::Receiver<Job>, batch: &mut Batch) -> Option<oneshot::Sender<()>> {
        let denied = self.denies(batch);
        if batch.requests.is_empty() {
            batch.first = self.ledger.state.size;
        }
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Run(mut request) => match &denied {
                    Some(error) => request.reply(Err(error.clone())),
                    None => {
                        if !self.stale {
                            self.run_one(&mut *request);
                        }
                        batch.requests.push(request);
                    }
                },
                Job::After(after) => batch.after.push(after),
                Job::Look | Job::Idle => {}
                Job::Close(reply) => return Some(reply),
            }
            next = if self.is_full(batch) { None } else { queue.try_recv().ok() };
        }
        None
    }

    fn is_full(&self, batch: &Batch) -> bool {
        self.ledger.pending() >= MAX_COMMIT || batch.requests.len() >= MAX_REQUESTS
    }

    fn run_one(&mut self, request: &mut dyn Request) {
        self.ledger.set_now(self.clock.now());
        request.run(&mut self.ledger, self.base.is_some());
        self.ledger.seal();
    }

    /// Why nothing is taken now: for good after a failure, and as long as there is no room. What is in the batch by then
    /// was run on what found none.
    fn denies(&mut self, batch: &mut Batch) -> Option<Error> {
        if self.inner.full.load(Ordering::Relaxed) {
            batch.requests.drain(..).for_each(|request| request.reply(Err(Error::Full)));
            match self.commits.has_room().and_then(|room| if room { self.fold_anew() } else { Ok(()) }) {
                Ok(()) => {}
                Err(error) => drop(self.inner.fail(&error)),
            }
        }
        if self.inner.failed.load(Ordering::Relaxed) {
            return Some(Error::Failed);
        }
        self.inner.full.load(Ordering::Relaxed).then_some(Error::Full)
    }

    /// What was run since the disk was full is not in the log: the state is folded from what is durable.
    fn fold_anew(&mut self) -> Result<(), Error> {
        let state = fold(&*self.inner.disk, &self.paths, &self.inner.tree.read(), &*self.inner.reader)?;
        self.ledger = self.ledger.anew(state);
        self.inner.full.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Sends a batch on its way.
    fn hand_over(&mut self, mut batch: Batch, stay_behind: bool) {
        if self.base.is_some() {
            return self.commit_shared(batch);
        }
        batch.leaves = self.ledger.take_pending();
        if self.ledger.take_catalog_changed() {
            batch.catalog = Some(Arc::new(Catalog::of(&self.ledger.state)));
        }
        self.commits.finish(batch, stay_behind);
        if self.ledger.state.size >= self.snapshot_at + SNAPSHOT_EVERY {
            self.snapshot();
        }
    }

    /// Makes the batch durable on the log as it is by then, and answers.
    fn commit_shared(&mut self, batch: Batch) {
        let Batch { mut requests, after, .. } = batch;
        let committed = self.run_until_first(&mut requests);
        for request in requests {
            request.reply(committed.clone());
        }
        let Commits::Here { committer, .. } = &mut self.commits else { unreachable!("a shared store has one thread") };
        committer.answer(after);
        if self.ledger.state.size >= self.snapshot_at + SNAPSHOT_EVERY {
            self.snapshot();
        }
    }

    fn run_until_first(&mut self, requests: &mut [Box<dyn Request>]) -> Result<(), Error> {
        for _ in 0..MAX_RUNS {
            if self.inner.failed.load(Ordering::Relaxed) {
                return Err(Error::Failed);
            }
            if !self.stale && self.append_shared()? {
                return Ok(());
            }
            self.reload()?;
            requests.iter_mut().for_each(|request| self.run_one(&mut **request));
        }
        self.stale = true;
        Err(Error::Contended(MAX_RUNS))
    }

    /// Appends what the ledger has ready. False: another writer was first.
    fn append_shared(&mut self) -> Result<bool, Error> {
        let (Commits::Here { committer, .. }, Some(base)) = (&mut self.commits, &mut self.base) else { return Ok(true) };
        let leaves = self.ledger.take_pending();
        let expected = base.size;
        self.stale = true; // until it is known what became of them
        match committer.append(&leaves, expected) {
            Ok(Appended::Lost) => return Ok(false),
            Err(error) => {
                tracing::warn!(%error, "the log was not reached; it is read again before anything more is granted");
                return Err(error);
            }
            Ok(Appended::Done) => {}
        }
        for (index, leaf) in (expected..).zip(leaves.payloads()) {
            take_in(base, index, leaf).inspect_err(|error| drop(self.inner.fail(error)))?;
        }
        self.stale = false;
        if self.ledger.take_catalog_changed() {
            self.inner.catalog.send_replace(Arc::new(Catalog::of(base)));
        }
        Ok(true)
    }

    /// Takes in what other writers appended, and starts the ledger anew from there.
    fn reload(&mut self) -> Result<(), Error> {
        let Some(mut base) = self.base.take() else { return Ok(()) };
        let read = self.catch_up(&mut base);
        self.ledger = self.ledger.anew(base.clone());
        self.base = Some(base);
        self.stale = read.is_err();
        // A log that does not fold is damaged for good; one that cannot be read may come back.
        if let Err(error @ Error::Damaged(_)) = &read {
            drop(self.inner.fail(error));
        }
        read
    }

    fn catch_up(&mut self, base: &mut State) -> Result<(), Error> {
        let Commits::Here { committer, .. } = &mut self.commits else { return Ok(()) };
        let size = committer.engine.size()?;
        if size < base.size {
            return Err(Error::Damaged(format!("the log has {size} leaves, and had {} before", base.size)));
        }
        while base.size < size {
            let leaves = self.inner.reader.read(base.size, size, 8 << 20)?;
            if leaves.is_empty() {
                return Err(Error::Damaged(format!("leaf {} is missing", base.size)));
            }
            let mut changed = false;
            for (index, leaf) in &leaves {
                changed |= take_in(base, *index, leaf)?;
            }
            committer.show(leaves.iter().map(|(_, leaf)| leaf_hash(leaf)).collect());
            if changed {
                self.inner.catalog.send_replace(Arc::new(Catalog::of(base)));
            }
        }
        Ok(())
    }

    /// A snapshot only saves time at the next start, so a failure is told and no more.
    fn snapshot(&mut self) {
        self.commits.drain();
        let state = self.base.as_ref().unwrap_or(&self.ledger.state);
        let unsure = self.inner.failed.load(Ordering::Relaxed) || self.inner.full.load(Ordering::Relaxed);
        let tree = self.inner.tree.read();
        if unsure || state.size == self.snapshot_at || state.size != tree.size() {
            return;
        }
        let root = tree.root();
        drop(tree);
        match snapshot::write(&*self.inner.disk, &self.paths.snapshot(), state, root) {
            Ok(()) => self.snapshot_at = state.size,
            Err(error) => tracing::warn!(%error, "no snapshot"),
        }
    }

    fn close(&mut self) {
        let (reply, mut signed) = oneshot::channel();
        let after = vec![After::Sign { min_size: 0, reply }];
        self.hand_over(Batch { first: self.ledger.state.size, after, ..Default::default() }, false);
        self.snapshot(); // and with it all that was on its way has arrived
        if let Ok(Err(error)) = signed.try_recv() {
            tracing::error!(%error, "no checkpoint at the end");
        }
    }
}

impl Commits {
    fn on_a_thread(self, jobs: mpsc::WeakSender<Job>) -> Self {
        let Self::Here { committer, .. } = self else { return self };
        let (send, batches) = sync_mpsc::sync_channel(1);
        let busy = Arc::new(AtomicBool::new(false));
        let told = busy.clone();
        let thread = std::thread::spawn(move || keep_writing(*committer, &batches, &told, &jobs));
        Self::Thread { send, busy, thread }
    }

    /// Whether a batch that is handed over now would have to wait.
    fn is_busy(&self) -> bool {
        matches!(self, Self::Thread { busy, .. } if busy.load(Ordering::Acquire))
    }

    /// Ends the thread, and the store with it.
    fn end(self) {
        if let Self::Thread { send, thread, .. } = self {
            drop(send);
            let _ = thread.join(); // an error is a panic, which has been told
        }
    }

    fn finish(&mut self, batch: Batch, stay_behind: bool) {
        match self {
            Self::Here { committer, behind } => {
                if let Some(before) = behind.take() {
                    committer.finish(before);
                }
                if stay_behind {
                    *behind = Some(batch);
                } else {
                    committer.finish(batch);
                }
            }
            Self::Thread { send, busy, .. } => {
                busy.store(true, Ordering::Release);
                // The thread ends only with this sender; where it panicked, those who wait hear that the log is closed.
                drop(send.send(ToDisk::Finish(batch)));
            }
        }
    }

    fn has_room(&mut self) -> Result<bool, Error> {
        self.drain();
        match self {
            Self::Here { committer, .. } => committer.engine.has_room(),
            Self::Thread { send, .. } => {
                let (reply, answer) = sync_mpsc::sync_channel(1);
                drop(send.send(ToDisk::HasRoom(reply)));
                answer.recv().map_err(|_| Error::Stopped)?
            }
        }
    }

    /// Waits until all that was sent on its way has arrived.
    fn drain(&mut self) {
        match self {
            Self::Here { committer, behind } => behind.take().into_iter().for_each(|batch| committer.finish(batch)),
            Self::Thread { send, .. } => {
                let (reply, answer) = sync_mpsc::sync_channel(1);
                drop(send.send(ToDisk::Drain(reply)));
                let _ = answer.recv(); // an error is a thread that is gone: nothing is on its way then
            }
        }
    }
}

/// The thread that waits for the disk.
fn keep_writing(mut committer: Committer, batches: &sync_mpsc::Receiver<ToDisk>, busy: &AtomicBool, writer: &mpsc::WeakSender<Job>) {
    while let Ok(next) = batches.recv() {
        match next {
            ToDisk::Finish(batch) => committer.finish(batch),
            ToDisk::HasRoom(reply) => drop(reply.send(committer.engine.has_room())),
            ToDisk::Drain(reply) => drop(reply.send(())),
        }
        busy.store(false, Ordering::Release);
        if let Some(writer) = writer.upgrade() {
            let _ = writer.try_send(Job::Idle); // where the queue is full, the writer is awake anyway
        }
    }
}

/// The writer in its caller's hand: on a thread, as a task, or turn by turn in a simulation.
pub struct Hand {
    pub(super) writer: Writer,
    pub(super) queue: mpsc::Receiver<Job>,
}

impl Hand {
    /// Starts the threads that write until the log is closed or nobody is left to ask.
    pub(super) fn start(self, jobs: mpsc::WeakSender<Job>) -> Result<(), Error> {
        let ahead = self.writer.base.is_none();
        let work = move || if ahead { self.run_ahead(jobs) } else { self.run_blocking() };
        std::thread::Builder::new().name("log-writer".into()).spawn(work)?;
        Ok(())
    }

    fn run_blocking(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            if let Some(closed) = self.step(first, false) {
                return self.end(Some(closed));
            }
        }
    }

    /// Runs requests while the batch before them is on its way: what comes in meanwhile makes the next one.
    fn run_ahead(mut self, jobs: mpsc::WeakSender<Job>) {
        self.writer.commits = self.writer.commits.on_a_thread(jobs);
        let mut batch = Batch::default();
        let mut closed = None;
        while let Some(first) = self.queue.blocking_recv() {
            closed = self.writer.take(first, &mut self.queue, &mut batch);
            if closed.is_some() {
                break;
            }
            if !batch.is_empty() && (self.writer.is_full(&batch) || !self.writer.commits.is_busy()) {
                self.writer.hand_over(std::mem::take(&mut batch), false);
            }
        }
        if !batch.is_empty() {
            self.writer.hand_over(batch, false);
        }
        if closed.is_some() {
            self.writer.close();
        }
        self.end(closed);
    }

    /// As a task does it: where there is one thread for all, as in a simulated network. It blocks that thread for each commit.
    pub async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            if let Some(closed) = self.step(first, false) {
                return self.end(Some(closed));
            }
        }
    }

    /// One turn over what has queued up, in one commit; nothing where nothing has but what an earlier turn left behind.
    pub fn turn(&mut self) {
        if let Ok(first) = self.queue.try_recv()
            && let Some(closed) = self.step(first, false)
        {
            let _ = closed.send(()); // whoever closed the log may have gone
        }
        self.writer.commits.drain();
    }

    /// As [`Hand::turn`], but the commit stays behind until the requests of the next turn have run, as if the disk took its time.
    pub fn turn_ahead(&mut self) {
        if let Ok(first) = self.queue.try_recv()
            && let Some(closed) = self.step(first, true)
        {
            let _ = closed.send(()); // whoever closed the log may have gone
        }
    }

    fn step(&mut self, first: Job, stay_behind: bool) -> Option<oneshot::Sender<()>> {
        let look = matches!(first, Job::Look);
        let mut batch = Batch::default();
        let closed = self.writer.take(first, &mut self.queue, &mut batch);
        if look || !batch.is_empty() {
            self.writer.hand_over(batch, stay_behind);
        }
        if closed.is_some() {
            self.writer.close();
        }
        closed
    }

    /// Snapshots the fold, as the writer does from time to time.
    pub fn snapshot(&mut self) {
        self.writer.snapshot();
    }

    fn end(self, closed: Option<oneshot::Sender<()>>) {
        self.writer.commits.end(); // with the log's lock, before anybody hears that the log is closed
        if let Some(closed) = closed {
            let _ = closed.send(()); // whoever closed the log may have gone
        }
    }
}
