//! The log on disk, and the one writer in front of it.
//!
//! Requests run on the writer's thread against the [`Ledger`]; the leaves of all that had queued up are written in
//! one go and made durable by one `fdatasync` (group commit); only then is anybody answered.
//!
//! Invariants: acknowledged means durable; a checkpoint is signed only over what is durable, and is itself durable
//! before it is handed out; after a failed write or fsync the writer takes nothing more and never tries again, but for a
//! write that found no room: that is cut off again, and the writer denies until there is some.
//!
//! Not here: what a request means (`domain`), and what a file looks like (`store/segments`).

pub mod disk;
pub mod segments;
pub mod signed;
pub mod snapshot;
pub mod tiles;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use arc_swap::ArcSwapOption;
use kiki::clock::{Clock, UnixMicros};
use kiki::leaf;
use kiki::tlog::checkpoint::Checkpoint;
use kiki::tlog::note::{Note, Signature, SigningKey};
use kiki::tlog::tile::{self, Kind, Tile};
use kiki::tlog::{Hash, Tree, leaf_hash};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::domain::ledger::Ledger;
use crate::domain::refusal::Refusal;
use crate::domain::state::State;
use crate::error::Error;
use crate::shadow::Shadow;
use disk::{Disk, Files, replace};
use segments::{Index, Segments};

/// Requests that may wait for the writer. At 1 ms a commit and some hundred requests in each, that is tens of
/// milliseconds of work: beyond it a caller does better to hear no at once.
const MAX_QUEUE: usize = 16_384;
/// Leaves in one commit: 16,384 of 200 bytes are 3 MiB, well under what a disk takes in a millisecond or two.
const MAX_COMMIT: usize = 16_384;
/// Leaves between snapshots: a restart folds at most so many.
const SNAPSHOT_EVERY: u64 = 100_000;

type Reply = Box<dyn FnOnce(Result<(), Error>) + Send>;

enum Job {
    Run(Box<dyn FnOnce(&mut Ledger) -> Reply + Send>),
    Sign { min_size: u64, reply: oneshot::Sender<Result<Signed, Error>> },
    Cosign { size: u64, signature: Signature, reply: oneshot::Sender<Result<(), Error>> },
    Close(oneshot::Sender<()>),
}

/// A signed checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// How many leaves it covers.
    pub size: u64,
    /// The C2SP note.
    pub note: Arc<str>,
}

/// What the replicas of bidders are made of: changes with campaigns, terms and policy.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Campaigns by client and id, with the horizon of the client's terms in their currency (0: no terms).
    pub campaigns: Vec<CatalogEntry>,
    /// The policy in force.
    pub policy: Option<(leaf::Policy, kiki::guardrail::Policy)>,
    /// The policy that is held against decisions without refusing.
    pub shadow: Option<kiki::guardrail::Policy>,
}

/// One campaign of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub struct CatalogEntry {
    /// Whose it is.
    pub client: String,
    /// The document.
    pub campaign: leaf::Campaign,
    /// LTV horizon of the terms, days.
    pub horizon_days: u32,
    /// Charged impressions when the catalog was made.
    pub billed_impressions: u64,
    /// Customers acquired by then.
    pub conversions: u64,
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
    index: RwLock<Index>,
    tree: RwLock<Tree>,
    committed: watch::Sender<u64>,
    catalog: watch::Sender<Arc<Catalog>>,
    signed: ArcSwapOption<Signed>,
    /// There was no room for the last commit; the writer denies.
    full: AtomicBool,
    disk: Arc<dyn Disk>,
    shadow: Shadow,
    clock: Clock,
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
        std::fs::create_dir_all(paths.log())?;
        let lock = lock(&paths.log().join("lock"))?;
        let key = signing_key(paths, log_id)?;
        let (log, mut hand) = Self::open_by_hand(Arc::new(Files), paths, key, clock)?;
        hand.writer.lock = Some(lock);
        std::thread::Builder::new().name("log-writer".into()).spawn(move || hand.run_blocking())?;
        Ok(log)
    }

    /// Recovers the log on any disk and leaves its writer to the caller, who sees to it that there is no other.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open_by_hand(disk: Arc<dyn Disk>, paths: &Paths, key: SigningKey, clock: Clock) -> Result<(Self, Hand), Error> {
        let log_id = key.verifying_key().name().to_owned();
        let signed = read_checkpoint(&*disk, paths, &key)?;
        let kept = signed::read(&*disk, paths.signed_size(), &log_id)?;
        let sizes = [signed.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size), kept.as_ref().map_or(0, |kept| kept.size)];
        let recovered = segments::recover(&disk, &paths.log(), &log_id, sizes[0].max(sizes[1]))?;
        if let Some((checkpoint, _)) = &signed {
            check_root(&recovered.tree, checkpoint)?;
            // A log from before there was such a file, or one whose file was lost.
            if kept.is_none() {
                signed::write(&*disk, paths.signed_size(), checkpoint)?;
            }
        }
        if let Some(kept) = &kept {
            signed::check(&recovered.tree, kept, paths.signed_size())?;
        }
        let state = fold(&*disk, paths, &recovered.tree, &recovered.index)?;
        let (jobs, queue) = mpsc::channel(MAX_QUEUE);
        let catalog = Arc::new(catalog(&state));
        let inner = Arc::new(Inner {
            log_id: log_id.clone(),
            index: RwLock::new(recovered.index),
            committed: watch::channel(recovered.tree.size()).0,
            tree: RwLock::new(recovered.tree),
            catalog: watch::channel(catalog).0,
            shadow: Shadow::new().map_err(|e| Error::Io(Arc::new(std::io::Error::other(e))))?,
            clock: clock.clone(),
            signed: ArcSwapOption::new(signed.map(|(checkpoint, note)| Arc::new(Signed { size: checkpoint.size, note: note.into() }))),
            full: AtomicBool::new(false),
            disk,
        });
        let writer = Writer {
            snapshot_at: state.size,
            ledger: Ledger::new(log_id, state),
            segments: recovered.segments,
            key,
            clock,
            paths: paths.clone(),
            lock: None,
            failed: false,
            inner: inner.clone(),
        };
        Ok((Self { inner, jobs }, Hand { writer, queue }))
    }

    /// Runs a request on the ledger and answers once its leaves are durable.
    ///
    /// # Errors
    /// The request's own refusal, a full queue, or a writer that failed.
    pub async fn run<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Ledger) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Run(Box::new(move |ledger| {
            let result = request(ledger);
            Box::new(move |durable| {
                // A caller that went away needs no answer.
                drop(answer.send(durable.and_then(|()| result.map_err(Error::Refused))));
            })
        }));
        self.jobs.try_send(job).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => Error::QueueFull(MAX_QUEUE),
            mpsc::error::TrySendError::Closed(_) => Error::Stopped,
        })?;
        answered.await.map_err(|_| if self.inner.full.load(Relaxed) { Error::Full } else { Error::Stopped })?
    }

    /// A signed checkpoint of at least `min_size`; 0 takes the newest that there is, or signs the first.
    ///
    /// # Errors
    /// The log is shorter than `min_size`, or its writer failed.
    pub async fn checkpoint(&self, min_size: u64) -> Result<Signed, Error> {
        if let Some(signed) = self.inner.signed.load_full().filter(|signed| signed.size >= min_size) {
            return Ok((*signed).clone());
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Sign { min_size, reply }).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// Adds a witness's signature to the checkpoint of a size; nothing where there is a newer one by now.
    ///
    /// # Errors
    /// The file system's, or a writer that is gone.
    pub async fn cosign(&self, size: u64, signature: Signature) -> Result<(), Error> {
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Cosign { size, signature, reply }).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }

    /// The newest checkpoint that was signed.
    #[must_use]
    pub fn newest_checkpoint(&self) -> Option<Arc<Signed>> {
        self.inner.signed.load_full()
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

    async fn read_until(&self, from: u64, size: u64, max_bytes: usize) -> Result<Vec<(u64, bytes::Bytes)>, Error> {
        let Some(range) = self.inner.index.read().range(from, size, max_bytes) else { return Ok(Vec::new()) };
        let disk = self.inner.disk.clone();
        tokio::task::spawn_blocking(move || segments::read(&*disk, &range)).await.map_err(|_| Error::Stopped)?
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
        tile::bundle(leaves.iter().map(AsRef::as_ref)).map_err(|e| Error::Damaged(format!("{tile}: {e}")))
    }
}

/// The writer in its caller's hand: on a thread, as a task, or turn by turn in a simulation.
pub struct Hand {
    writer: Writer,
    queue: mpsc::Receiver<Job>,
}

impl Hand {
    /// Writes until the log is closed or nobody is left to ask.
    fn run_blocking(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            if let Some(closed) = self.writer.turn(first, &mut self.queue) {
                return self.end(closed);
            }
        }
    }

    /// As a task does it: where there is one thread for all, as in a simulated network. It blocks that thread for each commit.
    pub async fn run(mut self) {
        while let Some(first) = self.queue.recv().await {
            if let Some(closed) = self.writer.turn(first, &mut self.queue) {
                return self.end(closed);
            }
        }
    }

    /// One turn over what has queued up, in one commit; nothing where nothing has.
    pub fn turn(&mut self) {
        if let Ok(first) = self.queue.try_recv()
            && let Some(closed) = self.writer.turn(first, &mut self.queue)
        {
            let _ = closed.send(()); // whoever closed the log may have gone
        }
    }

    /// Snapshots the fold, as the writer does from time to time.
    pub fn snapshot(&mut self) {
        self.writer.snapshot();
    }

    fn end(self, closed: oneshot::Sender<()>) {
        drop(self); // with its lock, before anybody hears that the log is closed
        let _ = closed.send(()); // whoever closed the log may have gone
    }
}

struct Writer {
    ledger: Ledger,
    segments: Segments,
    key: SigningKey,
    clock: Clock,
    paths: Paths,
    snapshot_at: u64,
    failed: bool,
    inner: Arc<Inner>,
    /// Held as long as the writer lives; the system releases it however the process ends.
    lock: Option<File>,
}

impl Writer {
    fn turn(&mut self, first: Job, queue: &mut mpsc::Receiver<Job>) -> Option<oneshot::Sender<()>> {
        let mut replies = Vec::new();
        let mut signs = Vec::new();
        let mut close = None;
        let mut next = Some(first);
        let denies = self.denies();
        while let Some(job) = next {
            match job {
                Job::Run(_) if denies => {} // dropped: the caller hears that the writer stopped, or that the disk is full
                Job::Run(request) => {
                    self.ledger.set_now(self.clock.now());
                    replies.push(request(&mut self.ledger));
                    self.ledger.seal();
                }
                Job::Sign { min_size, reply } => signs.push((min_size, reply)),
                Job::Cosign { size, signature, reply } => drop(reply.send(self.cosign(size, signature))),
                Job::Close(reply) => close = Some(reply),
            }
            next = if self.ledger.pending() < MAX_COMMIT && close.is_none() { queue.try_recv().ok() } else { None };
        }
        let committed = self.commit();
        for reply in replies {
            reply(committed.clone());
        }
        for (min_size, reply) in signs {
            drop(reply.send(self.sign(min_size)));
        }
        if self.ledger.state.size >= self.snapshot_at + SNAPSHOT_EVERY {
            self.snapshot();
        }
        if close.is_some() {
            if let Err(error) = self.sign(0) {
                tracing::error!(%error, "no checkpoint at the end");
            }
            self.snapshot();
        }
        close
    }

    /// Whether nothing is taken now: for good after a failure, and as long as there is no room.
    fn denies(&mut self) -> bool {
        if !self.failed && self.inner.full.load(Relaxed) {
            match self.segments.has_room() {
                Ok(room) => self.inner.full.store(!room, Relaxed),
                Err(error) => self.fail(&error),
            }
        }
        self.failed || self.inner.full.load(Relaxed)
    }

    /// Never retried: after a failed fsync nobody knows what the disk holds.
    fn fail(&mut self, error: &Error) {
        tracing::error!(%error, "the log cannot be written; nothing more is taken");
        self.failed = true;
        self.inner.full.store(false, Relaxed);
    }

    /// There was no room for what the last requests did: the state is folded anew from what is durable.
    fn deny_until_room(&mut self) {
        tracing::error!("the log cannot be written: the disk is full; nothing is granted until there is room");
        self.inner.full.store(true, Relaxed);
        let folded = fold(&*self.inner.disk, &self.paths, &self.inner.tree.read(), &self.inner.index.read());
        match folded {
            Ok(state) => self.ledger = Ledger::new(self.inner.log_id.clone(), state),
            Err(error) => self.fail(&error),
        }
    }

    fn commit(&mut self) -> Result<(), Error> {
        let leaves = self.ledger.take_pending();
        if self.failed {
            return Err(Error::Failed);
        }
        if leaves.is_empty() {
            return Ok(());
        }
        let placed = match self.segments.append(&leaves) {
            Ok(placed) => placed,
            Err(Error::Full) => {
                self.deny_until_room();
                return Err(Error::Full);
            }
            Err(error) => {
                self.fail(&error);
                return Err(Error::Failed);
            }
        };
        let hashes: Vec<Hash> = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
        let mut tree = self.inner.tree.write();
        hashes.into_iter().for_each(|hash| tree.push(hash));
        let size = tree.size();
        drop(tree);
        self.inner.index.write().add(placed);
        self.inner.committed.send_replace(size);
        if self.ledger.take_catalog_changed() {
            self.inner.catalog.send_replace(Arc::new(catalog(&self.ledger.state)));
        }
        Ok(())
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
        let checkpoint = Checkpoint { origin: self.inner.log_id.clone(), size, root };
        // First of all, so that nothing that was ever handed out can be forgotten.
        signed::write(&*self.inner.disk, self.paths.signed_size(), &checkpoint)?;
        let note = checkpoint.sign(&self.key)?;
        replace(&*self.inner.disk, &self.paths.checkpoint(), note.as_bytes())?;
        let signed = Signed { size, note: note.into() };
        self.inner.signed.store(Some(Arc::new(signed.clone())));
        Ok(signed)
    }

    /// Adds to the newest checkpoint, in place of what the same key said of it before.
    fn cosign(&mut self, size: u64, signature: Signature) -> Result<(), Error> {
        let Some(signed) = self.inner.signed.load_full().filter(|signed| signed.size == size) else { return Ok(()) };
        let mut note = Note::parse(signed.note.as_bytes())?;
        note.signatures.retain(|other| (&other.name, other.id) != (&signature.name, signature.id));
        note.signatures.push(signature);
        let note = note.to_string();
        replace(&*self.inner.disk, &self.paths.checkpoint(), note.as_bytes())?;
        self.inner.signed.store(Some(Arc::new(Signed { size, note: note.into() })));
        Ok(())
    }

    /// A snapshot only saves time at the next start, so a failure is told and no more.
    fn snapshot(&mut self) {
        if self.failed || self.ledger.state.size == self.snapshot_at {
            return;
        }
        let root = self.inner.tree.read().root();
        match snapshot::write(&*self.inner.disk, &self.paths.snapshot(), &self.ledger.state, root) {
            Ok(()) => self.snapshot_at = self.ledger.state.size,
            Err(error) => tracing::warn!(%error, "no snapshot"),
        }
    }
}

/// One writer: a second process on the same folder is refused.
fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(Error::Locked(path.display().to_string())),
        Err(std::fs::TryLockError::Error(e)) => Err(e.into()),
    }
}

fn signing_key(paths: &Paths, log_id: &str) -> Result<SigningKey, Error> {
    let path = paths.key();
    let key = if path.exists() { read_key(&path, log_id)? } else { make_key(paths, &path, log_id)? };
    if !paths.public_key().exists() {
        replace(&Files, &paths.public_key(), format!("{}\n", key.verifying_key()).as_bytes())?;
    }
    Ok(key)
}

fn read_key(path: &Path, log_id: &str) -> Result<SigningKey, Error> {
    let key: SigningKey = std::fs::read_to_string(path)?.trim().parse()?;
    let name = key.verifying_key().name();
    if name == log_id { Ok(key) } else { Err(Error::Key(format!("{} signs for {name:?}, not for {log_id:?}", path.display()))) }
}

fn make_key(paths: &Paths, path: &Path, log_id: &str) -> Result<SigningKey, Error> {
    if segments::list(&Files, &paths.log())?.iter().any(|(_, path)| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0)) {
        return Err(Error::Key(format!("{} is missing, and the log has records", path.display())));
    }
    let seed = kiki::ids::Key::random().map_err(|e| Error::Key(e.to_string()))?;
    let key = SigningKey::new(log_id, seed.bytes())?;
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    write_secret(path, &format!("{}\n", key.to_secret_text()))?;
    Ok(key)
}

/// As [`replace`], readable by its owner alone from the first byte.
fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let next = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&next)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

fn read_checkpoint(disk: &dyn Disk, paths: &Paths, key: &SigningKey) -> Result<Option<(Checkpoint, String)>, Error> {
    match disk.read(&paths.checkpoint()) {
        Ok(note) => {
            let checkpoint = Checkpoint::open(&note, key.verifying_key().name(), key.verifying_key())?;
            Ok(Some((checkpoint, String::from_utf8_lossy(&note).into_owned())))
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e.into()),
    }
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

/// The fold of the recovered log, from its snapshot where that fits.
fn fold(disk: &dyn Disk, paths: &Paths, tree: &Tree, index: &Index) -> Result<State, Error> {
    let mut state = snapshot::read(disk, &paths.snapshot(), tree).unwrap_or_default();
    let size = tree.size();
    while state.size < size {
        let Some(range) = index.range(state.size, size, 8 << 20) else { break };
        for (index, bytes) in segments::read(disk, &range)? {
            let (head, body) = leaf::decode(&bytes).map_err(|e| Error::Damaged(format!("leaf {index}: {e}")))?;
            state.apply(&head, &body).map_err(|e| Error::Damaged(format!("leaf {index}: {e}")))?;
        }
    }
    Ok(state)
}

fn catalog(state: &State) -> Catalog {
    let decode = |bytes: &[u8]| <leaf::Campaign as prost::Message>::decode(bytes).ok();
    let mut campaigns = Vec::new();
    for (client, of) in &state.clients {
        for campaign in of.campaigns.values() {
            let Some(document) = decode(&campaign.document) else { continue };
            let horizon_days = state.terms(client, &document.currency).map_or(0, |terms| terms.horizon_days);
            let (billed_impressions, conversions) = (campaign.billed_impressions, campaign.conversions);
            campaigns.push(CatalogEntry { client: client.clone(), campaign: document, horizon_days, billed_impressions, conversions });
        }
    }
    let compiled = |version| {
        let document = state.policies.document(version)?;
        kiki::guardrail::Policy::compile(&document).ok().map(|compiled| (document, compiled))
    };
    let shadow = compiled(state.policies.shadow).map(|(_, compiled)| compiled);
    Catalog { campaigns, policy: compiled(state.policies.active), shadow }
}
