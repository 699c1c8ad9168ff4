//! The log: its store, its writer, and what readers see of it.
//!
//! Requests run on the writer's thread against the [`Ledger`] (`store/writer`); the leaves of all that had queued up are
//! appended in one go and made durable together (group commit, `store/commit`); only then is anybody answered.
//!
//! Invariants: acknowledged means durable; a checkpoint is signed only over what is durable, and is itself durable
//! before it is handed out; after a failed write or fsync of a file the writer takes nothing more and never tries again,
//! but for a write that found no room: that is cut off again, and the writer denies until there is some.
//!
//! Not here: what a request means (`domain`), and what a file or a row looks like (`store/segments`, `store/postgres`).

mod catalog;
mod commit;
pub mod disk;
pub mod engine;
pub mod files;
mod keys;
pub mod postgres;
mod prove;
pub mod prune;
pub mod rotate;
pub mod segments;
pub mod signed;
pub mod snapshot;
pub mod tiles;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use kiki::clock::{Clock, UnixMicros};
use kiki::leaf;
use kiki::tlog::checkpoint::Checkpoint;
use kiki::tlog::note::{Signature, SigningKey, VerifyingKey};
use kiki::tlog::tile::{self, Kind, Tile};
use kiki::tlog::{Hash, Tree};
use parking_lot::RwLock;
use prometheus::Histogram;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::domain::ledger::Ledger;
use crate::domain::refusal::Refusal;
use crate::domain::state::State;
use crate::error::Error;
use crate::shadow::Shadow;
pub use catalog::{Catalog, CatalogEntry};
use commit::{After, Committer};
use disk::{Disk, Files};
use engine::{Engine as _, Opened, Reader};
use files::SegmentLog;
use postgres::Postgres;
use rotate::Keys;
pub use writer::Hand;
use writer::{Asked, Job, Writer};

/// Requests that may wait for the writer. At 1 ms a commit and some hundred requests in each, that is tens of
/// milliseconds of work: beyond it a caller does better to hear no at once.
const MAX_QUEUE: usize = 16_384;
/// Reads of leaves at a time, each on a thread of which the allocator keeps what it read last; the others wait for their turn without one.
const MAX_READS: usize = 8;
/// How often the log of a store with several writers is looked at for what the others wrote.
const LOOK: Duration = Duration::from_millis(100);

/// A signed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// How many leaves it covers.
    pub size: u64,
    /// The C2SP note.
    pub note: Arc<str>,
}

/// The log: clones share one writer.
#[derive(Clone)]
pub struct Log {
    inner: Arc<Inner>,
    /// The writer ends when the last of these is gone, or when it is told to.
    jobs: mpsc::Sender<Job>,
}

struct Inner {
    log_id: String,
    reader: Arc<dyn Reader>,
    reads: Arc<Semaphore>,
    tree: RwLock<Tree>,
    committed: watch::Sender<u64>,
    catalog: watch::Sender<Arc<Catalog>>,
    signed: watch::Sender<Option<Arc<Signed>>>,
    /// The newest with a witness's signature, which takes a while to come: `signed` may be newer.
    cosigned: ArcSwapOption<Signed>,
    /// The key that signs.
    public_key: ArcSwap<String>,
    /// Every change of the key, as text.
    rotations: ArcSwap<String>,
    /// There was no room for the last commit; the writer denies.
    full: AtomicBool,
    /// A write failed; the writer denies for good.
    failed: AtomicBool,
    disk: Arc<dyn Disk>,
    shadow: Shadow,
    /// How long batches took to become durable.
    commit_seconds: Histogram,
    clock: Clock,
}

impl Inner {
    /// Never retried: after a failed fsync nobody knows what the disk holds.
    fn fail(&self, error: &Error) -> Error {
        tracing::error!(%error, "the log cannot be written; nothing more is taken");
        self.failed.store(true, Relaxed);
        self.full.store(false, Relaxed);
        Error::Failed
    }
}

/// Which store keeps the log.
#[derive(Debug, Clone)]
pub enum Store {
    /// Segment files: in the data folder, or in another one with all that it holds.
    Files(Option<PathBuf>),
    /// A PostgreSQL database. Its debug form shows no password.
    Postgres(Box<tokio_postgres::Config>),
}

impl Store {
    /// The data folder, where the store has one of its own.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        if let Self::Files(Some(folder)) = self { Some(folder) } else { None }
    }
}

impl std::str::FromStr for Store {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(dir) = text.strip_prefix("file:").filter(|dir| !dir.is_empty()) {
            return Ok(Self::Files(Some(dir.into())));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return text.parse().map(|config| Self::Postgres(Box::new(config))).map_err(|e| format!("not a PostgreSQL address: {e}"));
        }
        Err("is file:DIR or postgres://USER@HOST/DATABASE".to_owned()) // not repeated: it may hold a password
    }
}

/// Where a data folder keeps the log.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
    signed_size: PathBuf,
}

impl Paths {
    /// The paths below a data folder.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), signed_size: root.join("signed-size") }
    }
    /// The same, with the last signed size in a file elsewhere, such as on another disk.
    #[must_use]
    pub fn with_signed_size(self, path: Option<PathBuf>) -> Self {
        Self { signed_size: path.unwrap_or(self.signed_size), ..self }
    }
    /// What was signed last; apart from the log, so that a backup of the log does not bring it back.
    #[must_use]
    pub fn signed_size(&self) -> &Path {
        &self.signed_size
    }
    /// Checkpoint, tiles and entry bundles, as plain files for a web server.
    #[must_use]
    pub fn tiles(&self) -> PathBuf {
        self.root.join("tiles")
    }
    /// Segments, checkpoint and snapshot.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }
    /// The newest signed checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.log().join("checkpoint")
    }
    /// The newest snapshot of the fold.
    #[must_use]
    pub fn snapshot(&self) -> PathBuf {
        self.log().join("snapshot")
    }
    /// The fold of what was pruned, where something was: without it the log does not start.
    #[must_use]
    pub fn opening(&self) -> PathBuf {
        self.log().join("opening")
    }
    /// The signing key: secret.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.root.join("keys").join("log.key")
    }
    /// The verifying key: to be published.
    #[must_use]
    pub fn public_key(&self) -> PathBuf {
        self.root.join("log.pub")
    }
}

impl Log {
    /// Recovers the log of a data folder and starts its writer.
    ///
    /// # Errors
    /// A damaged log, a checkpoint that it does not reach, a key that does not fit, or the file system's.
    pub fn open(paths: &Paths, log_id: &str, clock: Clock) -> Result<Self, Error> {
        Self::open_in(&Store::Files(None), paths, log_id, clock)
    }

    /// Recovers the log of a store and starts its writer; its key, the last signed size and a snapshot of its fold are
    /// in the data folder.
    ///
    /// # Errors
    /// As [`Self::open`], or the database's.
    pub fn open_in(store: &Store, paths: &Paths, log_id: &str, clock: Clock) -> Result<Self, Error> {
        let disk: Arc<dyn Disk> = Arc::new(Files);
        let (opened, key) = match store {
            Store::Files(_) => {
                let lock = files::lock(paths)?;
                let key = Keys::read(&*disk, paths, keys::signing_key(paths, log_id, segments::any_records(paths)?)?)?;
                let signed = signed_size(&*disk, paths, &key.current, files::read_note(&*disk, &paths.checkpoint())?)?;
                (SegmentLog::recover(disk.clone(), paths, log_id, signed, Some(lock))?, key)
            }
            Store::Postgres(config) => {
                std::fs::create_dir_all(paths.log())?;
                let mut postgres = Postgres::connect(config, log_id)?;
                let key = keys::signing_key(paths, log_id, postgres.size()? > 0)?;
                postgres.claim(&key.verifying_key().to_string())?;
                (postgres.load()?, Keys { current: key, next: None })
            }
        };
        let shared = opened.engine.shared();
        let (log, hand) = Self::assemble(disk, paths, key, clock, opened)?;
        hand.start(log.jobs.downgrade())?;
        if shared {
            look_out(log.jobs.downgrade())?;
        }
        Ok(log)
    }

    /// Recovers the log on any disk and leaves its writer to the caller, who sees to it that there is no other.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_by_hand(disk: Arc<dyn Disk>, paths: &Paths, key: SigningKey, clock: Clock) -> Result<(Self, Hand), Error> {
        let keys = Keys::read(&*disk, paths, key)?;
        let signed = signed_size(&*disk, paths, &keys.current, files::read_note(&*disk, &paths.checkpoint())?)?;
        let opened = SegmentLog::recover(disk.clone(), paths, keys.current.verifying_key().name(), signed, None)?;
        Self::assemble(disk, paths, keys, clock, opened)
    }

    /// Holds what the store has against what was signed, and folds it.
    fn assemble(disk: Arc<dyn Disk>, paths: &Paths, keys: Keys, clock: Clock, opened: Opened) -> Result<(Self, Hand), Error> {
        let Opened { mut engine, tree } = opened;
        let key = keys.current.verifying_key();
        let log_id = key.name().to_owned();
        let note = engine.checkpoint()?;
        let checkpoint = note.as_deref().map(|note| open_checkpoint(note, key)).transpose()?;
        let kept = signed::read(&*disk, paths.signed_size(), &log_id)?;
        // Of a store with several writers the checkpoint may be newer than the leaves that were read before it.
        if let Some(checkpoint) = checkpoint.as_ref().filter(|checkpoint| !engine.shared() || checkpoint.size <= tree.size()) {
            check_root(&tree, checkpoint)?;
            // A log from before there was such a file, or one whose file was lost.
            if kept.is_none() {
                signed::write(&*disk, paths.signed_size(), checkpoint)?;
            }
        }
        if let Some(kept) = &kept {
            signed::check(&tree, kept, paths.signed_size())?;
        }
        let reader = engine.reader();
        let state = fold(&*disk, paths, &tree, &*reader)?;
        let signed = checkpoint.zip(note).map(|(checkpoint, note)| Arc::new(Signed { size: checkpoint.size, note: note.into() }));
        let (jobs, queue) = mpsc::channel(MAX_QUEUE);
        let inner = Arc::new(Inner {
            log_id,
            reader,
            reads: Arc::new(Semaphore::new(MAX_READS)),
            committed: watch::channel(tree.size()).0,
            tree: RwLock::new(tree),
            catalog: watch::channel(Arc::new(Catalog::of(&state))).0,
            shadow: Shadow::new().map_err(|e| Error::Io(Arc::new(std::io::Error::other(e))))?,
            commit_seconds: crate::metrics::commit_seconds(),
            clock: clock.clone(),
            signed: watch::channel(signed).0,
            cosigned: ArcSwapOption::empty(),
            public_key: ArcSwap::from_pointee(key.to_string()),
            rotations: ArcSwap::from_pointee(rotate::read_rotations(&*disk, paths)?),
            full: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            disk,
        });
        let mut committer = Committer { engine, keys, paths: paths.clone(), inner: inner.clone() };
        if let Some(change) = state.keys.changes().last() {
            committer.finish_rotation(change)?;
        }
        Ok((Self { inner, jobs }, Hand { writer: Writer::new(committer, state, clock), queue }))
    }

    /// Runs a request on the ledger and answers once its leaves are durable. Where others write the same log it may be
    /// run more than once; only the last run has an effect and an answer.
    ///
    /// # Errors
    /// The request's own refusal, a full queue, or a writer that failed.
    pub async fn run<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Ledger) -> Result<T, Refusal> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Run(Box::new(Asked { request: Some(request), result: None, answer }));
        self.jobs.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::QueueFull(MAX_QUEUE),
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        answered.await.map_err(|_| Error::Stopped)?
    }

    /// A signed checkpoint of at least `min_size`; 0 takes the newest that there is, or signs the first.
    ///
    /// # Errors
    /// The log is shorter than `min_size`, or its writer failed.
    pub async fn checkpoint(&self, min_size: u64) -> Result<Signed, Error> {
        if let Some(signed) = self.newest_checkpoint().filter(|signed| signed.size >= min_size) {
            return Ok((*signed).clone());
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::After(After::Sign { min_size, reply })).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// The newest checkpoint that a witness cosigned since the start.
    #[must_use]
    pub fn cosigned_checkpoint(&self) -> Option<Arc<Signed>> {
        self.inner.cosigned.load_full()
    }

    /// Adds a witness's signature to a checkpoint that was signed.
    ///
    /// # Errors
    /// The file system's, or a writer that is gone.
    pub async fn cosign(&self, signed: Signed, signature: Signature) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::After(After::Cosign { signed, signature, reply })).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// Whether the writer takes leaves: there is room, and no write failed.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        !self.inner.failed.load(Relaxed) && !self.inner.full.load(Relaxed)
    }

    /// How long batches took to become durable.
    #[must_use]
    pub fn commit_seconds(&self) -> Histogram {
        self.inner.commit_seconds.clone()
    }

    /// The newest checkpoint that was signed.
    #[must_use]
    pub fn newest_checkpoint(&self) -> Option<Arc<Signed>> {
        self.inner.signed.borrow().clone()
    }

    /// The newest checkpoint that was signed, and every change of that: a witness's signature is one.
    #[must_use]
    pub fn checkpoints(&self) -> watch::Receiver<Option<Arc<Signed>>> {
        self.inner.signed.subscribe()
    }

    /// Signs what there is, snapshots the fold and stops the writer.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.jobs.send(Job::Close(reply)).await.is_ok() {
            drop(done.await);
        }
    }

    /// The log's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.inner.log_id
    }

    /// How many leaves are durable, and every change of that.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.inner.committed.subscribe()
    }

    /// Now.
    pub(crate) fn now(&self) -> UnixMicros {
        self.inner.clock.now()
    }

    /// What the shadow policy would have changed.
    #[must_use]
    pub fn shadow(&self) -> &Shadow {
        &self.inner.shadow
    }

    /// Campaigns and policy, and every change of them.
    #[must_use]
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.inner.catalog.subscribe()
    }

    /// Durable leaves from an index on: at most `max_bytes` of them, at least one where there is one.
    ///
    /// # Errors
    /// The file system's, or a frame that went bad since it was written.
    pub async fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<(u64, bytes::Bytes)>, Error> {
        let size = *self.inner.committed.borrow();
        self.read_until(from, size, max_bytes).await
    }

    /// What reads leaves, for who reads many of them beside the runtime.
    fn reader(&self) -> Arc<dyn Reader> {
        self.inner.reader.clone()
    }

    async fn read_until(&self, from: u64, size: u64, max_bytes: usize) -> Result<Vec<(u64, bytes::Bytes)>, Error> {
        let reader = self.inner.reader.clone();
        let turn = self.inner.reads.clone().acquire_owned().await.map_err(|_| Error::Stopped)?;
        let read = move || {
            let _turn = turn; // as long as it reads, also where nobody waits for it any more
            reader.read(from, size, max_bytes)
        };
        tokio::task::spawn_blocking(read).await.map_err(|_| Error::Stopped)?
    }

    /// One multiproof that the leaves are in the tree of `size`.
    ///
    /// # Errors
    /// An index at or beyond `size`, or a size beyond the log.
    pub fn proof(&self, indices: &[u64], size: u64) -> Result<Vec<Hash>, Error> {
        Ok(self.inner.tree.read().multiproof(indices, size)?)
    }

    /// The proof that the tree of `old` leaves is how the tree of `new` leaves begins.
    ///
    /// # Errors
    /// A size beyond the log, sizes in the wrong order, or from the empty tree.
    pub fn consistency_proof(&self, old: u64, new: u64) -> Result<Vec<Hash>, Error> {
        Ok(self.inner.tree.read().consistency_proof(old, new)?)
    }

    /// The bytes of a tile of which the newest checkpoint covers everything; none where there is no such.
    ///
    /// # Errors
    /// The file system's, where leaves are read.
    pub async fn tile(&self, tile: &Tile) -> Result<Option<Vec<u8>>, Error> {
        let signed = self.newest_checkpoint().map_or(0, |signed| signed.size);
        if !tile.is_in(signed) {
            return Ok(None);
        }
        match tile.kind() {
            Kind::Hashes(_) => Ok(self.inner.tree.read().tile(tile)),
            Kind::Entries => self.bundle(tile).await.map(Some),
        }
    }

    async fn bundle(&self, tile: &Tile) -> Result<Vec<u8>, Error> {
        let (mut next, end) = (tile.start(), tile.start() + tile.width());
        let mut leaves = Vec::new();
        while next < end {
            // A bundle is at most 256 * 64 KiB; one read stays below that and ends at a file's end.
            let read = self.read_until(next, end, 1 << 20).await?;
            if read.is_empty() {
                return Err(Error::Damaged(format!("leaf {next} is not to be found")));
            }
            next += read.len() as u64;
            leaves.extend(read.into_iter().map(|(_, leaf)| leaf));
        }
        // Megabytes, in fresh memory: milliseconds, which those who bid do not have.
        let bundle = tokio::task::spawn_blocking(move || tile::bundle(leaves.iter().map(AsRef::as_ref)));
        bundle.await.map_err(|_| Error::Stopped)?.map_err(|e| Error::Damaged(format!("{tile}: {e}")))
    }
}

/// Asks the writer now and then to look for what others wrote, as long as the log is open.
fn look_out(jobs: mpsc::WeakSender<Job>) -> Result<(), Error> {
    std::thread::Builder::new().name("log-lookout".into()).spawn(move || {
        loop {
            std::thread::sleep(LOOK);
            let Some(jobs) = jobs.upgrade() else { break };
            if let Err(mpsc::error::TrySendError::Closed(_)) = jobs.try_send(Job::Look) {
                break;
            }
        }
    })?;
    Ok(())
}

fn open_checkpoint(note: &str, key: &VerifyingKey) -> Result<Checkpoint, Error> {
    Ok(Checkpoint::open(note.as_bytes(), key.name(), key)?)
}

/// How many leaves were signed, as far as checkpoint and kept size tell.
fn signed_size(disk: &dyn Disk, paths: &Paths, key: &SigningKey, note: Option<String>) -> Result<u64, Error> {
    let checkpoint = note.map(|note| open_checkpoint(&note, key.verifying_key())).transpose()?;
    let kept = signed::read(disk, paths.signed_size(), key.verifying_key().name())?;
    Ok([checkpoint, kept].into_iter().flatten().map(|signed| signed.size).max().unwrap_or(0))
}

fn check_root(tree: &Tree, checkpoint: &Checkpoint) -> Result<(), Error> {
    if checkpoint.size > tree.size() {
        return Err(Error::Damaged(format!("the log has {} leaves, and {} were signed", tree.size(), checkpoint.size)));
    }
    if tree.root_at(checkpoint.size)? != checkpoint.root {
        return Err(Error::Damaged(format!("the first {} leaves are not those that were signed", checkpoint.size)));
    }
    Ok(())
}

/// The fold of the log, from its snapshot where that fits.
fn fold(disk: &dyn Disk, paths: &Paths, tree: &Tree, reader: &dyn Reader) -> Result<State, Error> {
    let kept = [paths.snapshot(), paths.opening()].into_iter().filter_map(|path| snapshot::read(disk, &path, tree));
    let mut state = kept.max_by_key(|state| state.size).unwrap_or_default();
    while state.size < tree.size() {
        let leaves = reader.read(state.size, tree.size(), 8 << 20)?;
        if leaves.is_empty() {
            return Err(Error::Damaged(format!("leaf {} is missing", state.size)));
        }
        leaves.iter().try_for_each(|(index, bytes)| take_in(&mut state, *index, bytes).map(drop))?;
    }
    Ok(state)
}

/// Folds one leaf; says whether it changed the catalog.
fn take_in(state: &mut State, index: u64, bytes: &[u8]) -> Result<bool, Error> {
    let (head, body) = leaf::decode(bytes).map_err(|e| Error::Damaged(format!("leaf {index}: {e}")))?;
    state.apply(&head, &body).map_err(|e| Error::Damaged(format!("leaf {index}: {e}")))?;
    Ok(crate::domain::ledger::changes_catalog(&body))
}
