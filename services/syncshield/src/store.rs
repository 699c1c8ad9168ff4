//! The log on disk, and the one writer in front of it.
//!
//! Requests run on the writer's thread against the [`Ledger`]; the leaves of all that had queued up are written in
//! one go and made durable by one `fdatasync` (group commit); only then is anybody answered.
//!
//! Invariants: acknowledged means durable; a checkpoint is signed only over what is durable, and is itself durable
//! before it is handed out; after a failed write or fsync of a file the writer takes nothing more and never tries again.
//!
//! On a store that others write too (`store/postgres`) a batch that another writer forestalled is run again on what that
//! writer left, so every answer is one to the log as it is, and no request is answered from a fold that was overtaken.
//!
//! Not here: what a request means (`domain`), and what a file or a row looks like (`store/segments`, `store/postgres`).

pub mod engine;
pub mod files;
pub mod postgres;
pub mod segments;
pub mod snapshot;
mod writer;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kiki::clock::Clock;
use kiki::leaf;
use kiki::tlog::checkpoint::Checkpoint;
use kiki::tlog::note::SigningKey;
use kiki::tlog::{Hash, Tree};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::domain::ledger::Ledger;
use crate::domain::refusal::Refusal;
use crate::domain::state::State;
use crate::error::Error;
use engine::{Engine as _, Opened, Reader};
use files::Files;
use postgres::Postgres;
use writer::{Asked, Job, Writer};

/// Requests that may wait for the writer. At 1 ms a commit and some hundred requests in each, that is tens of
/// milliseconds of work: beyond it a caller does better to hear no at once.
const MAX_QUEUE: usize = 16_384;
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

/// What the replicas of bidders are made of: changes with campaigns, terms and policy.
#[derive(Debug, Default)]
pub struct Catalog {
    /// Campaigns by client and id, with the horizon of the client's terms in their currency (0: no terms).
    pub campaigns: Vec<CatalogEntry>,
    /// The policy in force.
    pub policy: Option<(leaf::Policy, kiki::guardrail::Policy)>,
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
    reader: Arc<dyn Reader>,
    tree: RwLock<Tree>,
    committed: watch::Sender<u64>,
    catalog: watch::Sender<Arc<Catalog>>,
    signed: ArcSwapOption<Signed>,
}

/// Which store keeps the log.
#[derive(Debug, Clone)]
pub enum Store {
    /// Segment files: in the data folder, or in another one with all that it holds.
    Files(Option<PathBuf>),
    /// A PostgreSQL database. Its debug form shows no password.
    Postgres(Box<tokio_postgres::Config>),
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

/// A checkpoint that was kept, with its note.
type Kept = (Checkpoint, String);

/// Where a data folder keeps the log.
#[derive(Debug, Clone)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    /// The paths below a data folder.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
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
        Self::open_in(&Store::Files(None), paths, log_id, clock)
    }

    /// Recovers the log of a store and starts its writer; its key, and a snapshot of its fold, are in the data folder.
    ///
    /// # Errors
    /// As [`Self::open`], or the database's.
    pub fn open_in(store: &Store, paths: &Paths, log_id: &str, clock: Clock) -> Result<Self, Error> {
        let (Opened { engine, tree }, signed, key) = recover(store, paths, log_id)?;
        if let Some((checkpoint, _)) = &signed {
            check_root(&tree, checkpoint)?;
        }
        let reader = engine.reader();
        let state = fold(paths, &tree, &*reader)?;
        let (jobs, queue) = mpsc::channel(MAX_QUEUE);
        let catalog = Arc::new(catalog(&state));
        let inner = Arc::new(Inner {
            log_id: log_id.to_owned(),
            reader,
            committed: watch::channel(tree.size()).0,
            tree: RwLock::new(tree),
            catalog: watch::channel(catalog).0,
            signed: ArcSwapOption::new(signed.map(|(checkpoint, note)| Arc::new(Signed { size: checkpoint.size, note: note.into() }))),
        });
        if engine.shared() {
            look_out(jobs.downgrade())?;
        }
        let writer = Writer::new(engine, state, key, clock, paths.clone(), inner.clone());
        writer::start(writer, queue)?;
        Ok(Self { inner, jobs })
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
        if let Some(signed) = self.inner.signed.load_full().filter(|signed| signed.size >= min_size) {
            return Ok((*signed).clone());
        }
        let (reply, answer) = oneshot::channel();
        self.jobs.send(Job::Sign { min_size, reply }).await.map_err(|_| Error::Stopped)?;
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
        let reader = self.inner.reader.clone();
        tokio::task::spawn_blocking(move || reader.read(from, size, max_bytes)).await.map_err(|_| Error::Stopped)?
    }

    /// One multiproof that the leaves are in the tree of `size`.
    ///
    /// # Errors
    /// An index at or beyond `size`, or a size beyond the log.
    pub fn proof(&self, indices: &[u64], size: u64) -> Result<Vec<Hash>, Error> {
        Ok(self.inner.tree.read().multiproof(indices, size)?)
    }
}

/// Replaces a small file so that after a crash the old or the new one stands there, whole.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let next = path.with_extension("new");
    let mut file = File::create(&next)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&next, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

/// Opens a store and the key that signs for it. The checkpoint is read before the leaves, of which others may add some.
fn recover(store: &Store, paths: &Paths, log_id: &str) -> Result<(Opened, Option<Kept>, SigningKey), Error> {
    match store {
        Store::Files(_) => {
            let lock = Files::lock(paths)?;
            let full = |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0);
            let key = signing_key(paths, log_id, segments::list(&paths.log())?.iter().any(|(_, path)| full(path)))?;
            let signed = read_checkpoint(files::read_note(&paths.checkpoint())?, &key)?;
            let opened = Files::recover(lock, paths, log_id, signed.as_ref().map_or(0, |(checkpoint, _)| checkpoint.size))?;
            Ok((opened, signed, key))
        }
        Store::Postgres(config) => {
            let mut postgres = Postgres::connect(config, log_id)?;
            std::fs::create_dir_all(paths.log())?;
            let key = signing_key(paths, log_id, postgres.size()? > 0)?;
            postgres.claim(&key.verifying_key().to_string())?;
            let signed = read_checkpoint(postgres.checkpoint()?, &key)?;
            Ok((postgres.load()?, signed, key))
        }
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

fn signing_key(paths: &Paths, log_id: &str, has_records: bool) -> Result<SigningKey, Error> {
    let path = paths.key();
    if path.exists() {
        let key: SigningKey = std::fs::read_to_string(&path)?.trim().parse()?;
        if key.verifying_key().name() != log_id {
            return Err(Error::Key(format!("{} signs for {:?}, not for {log_id:?}", path.display(), key.verifying_key().name())));
        }
        return Ok(key);
    }
    if has_records {
        return Err(Error::Key(format!("{} is missing, and the log has records", path.display())));
    }
    let seed = kiki::ids::Key::random().map_err(|e| Error::Key(e.to_string()))?;
    let key = SigningKey::new(log_id, seed.bytes())?;
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    write_secret(&path, &key.to_secret_text())?;
    replace(&paths.public_key(), format!("{}\n", key.verifying_key()).as_bytes())?;
    Ok(key)
}

fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()
}

fn read_checkpoint(note: Option<Vec<u8>>, key: &SigningKey) -> Result<Option<Kept>, Error> {
    let Some(note) = note else { return Ok(None) };
    let checkpoint = Checkpoint::open(&note, key.verifying_key().name(), key.verifying_key())?;
    Ok(Some((checkpoint, String::from_utf8_lossy(&note).into_owned())))
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
fn fold(paths: &Paths, tree: &Tree, reader: &dyn Reader) -> Result<State, Error> {
    let mut state = snapshot::read(&paths.snapshot(), tree).unwrap_or_default();
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
    Ok(matches!(body, leaf::leaf::Body::Campaign(_) | leaf::leaf::Body::Terms(_) | leaf::leaf::Body::Policy(_)))
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
    let document = state.policy.as_ref().and_then(|(_, bytes)| <leaf::Policy as prost::Message>::decode(bytes.as_slice()).ok());
    let policy = document.and_then(|document| kiki::guardrail::Policy::compile(&document).ok().map(|compiled| (document, compiled)));
    Catalog { campaigns, policy }
}
