//! The keys of subjects: one for each customer of a client of whom personal data is in the log, kept apart from the log.
//!
//! Invariants: a key is on disk before anything that is sealed under it reaches the log; a key that was destroyed never
//! comes back, whatever crashes; it is destroyed before the log says so, and the log says so before the erasure is
//! acknowledged. A crash between these is made good at the next start ([`Subjects::finish`]).
//!
//! Not here: what is sealed, and how (`kiki::sealed`).

pub mod file;
mod postgres;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiki::ids::{CustomerKey, Key};
use kiki::sealed::KeyId;
use parking_lot::Mutex;

use crate::domain::ledger::{Ledger, Recorded};
use crate::error::Error;
use crate::store::{Log, Store};
use file::KeyFile;
use postgres::PostgresKeys;

/// What the record of an erasure says where a crash came before its own reason was recorded.
const AFTER_CRASH: &str = "completed at a start: the request was cut short";

/// A customer of a client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The client.
    pub client: String,
    /// The customer's pseudonym.
    pub customer: CustomerKey,
}

/// All subjects' keys; clones share them. They are where the log is: in a file, or in its database.
#[derive(Clone)]
pub struct Subjects(Keys);

#[derive(Clone)]
enum Keys {
    File {
        path: PathBuf,
        /// Read when it is first needed.
        keys: Arc<Mutex<Option<KeyFile>>>,
    },
    Postgres(Box<PostgresKeys>),
}

impl Subjects {
    /// The keys of a log. `data` is the folder of its own keys.
    #[must_use]
    pub fn of(store: &Store, data: &Path, log_id: &str) -> Self {
        Self(match store {
            Store::Files(_) => Keys::File { path: path(data), keys: Arc::default() },
            Store::Postgres(config) => Keys::Postgres(Box::new(PostgresKeys::new(config, log_id))),
        })
    }

    /// The key of each subject, made where there is none; durable when it returns.
    ///
    /// # Errors
    /// As [`KeyFile::obtain`], or the database's.
    pub async fn obtain(&self, subjects: Vec<Subject>) -> Result<Vec<Key>, Error> {
        match &self.0 {
            Keys::File { path, keys } => with(path, keys, move |keys| keys.obtain(&subjects)).await,
            Keys::Postgres(keys) => keys.obtain(&subjects).await,
        }
    }

    /// The subject's key, where it has one.
    ///
    /// # Errors
    /// The file system's or the database's.
    pub async fn find(&self, subject: Subject) -> Result<Option<Key>, Error> {
        match &self.0 {
            Keys::File { path, keys } => with(path, keys, move |keys| keys.find(&subject)).await,
            Keys::Postgres(keys) => Ok(keys.find(&[subject]).await?.remove(0)),
        }
    }

    /// Destroys the subject's key, and names it and those that were destroyed before and are not recorded.
    ///
    /// # Errors
    /// The file system's or the database's: it is to be asked again.
    pub async fn destroy(&self, subject: Subject) -> Result<Vec<KeyId>, Error> {
        match &self.0 {
            Keys::File { path, keys } => with(path, keys, move |keys| keys.destroy(&subject)).await,
            Keys::Postgres(keys) => keys.destroy(&subject).await,
        }
    }

    /// Destroys the subject's key and records that. None where nothing is sealed for the subject.
    ///
    /// # Errors
    /// A reason out of its limits, and then nothing was done; or a disk that fails, and then it is to be asked again.
    pub async fn erase(&self, log: &Log, subject: Subject, reason: String) -> Result<Option<(KeyId, Recorded)>, Error> {
        let (client, why) = (subject.client.clone(), reason.clone());
        log.run(move |ledger| ledger.check_erasure(&client, &why)).await?;
        let client = subject.client.clone();
        let ids = self.destroy(subject).await?;
        let Some(last) = ids.last().copied() else { return Ok(None) };
        let recorded = self.record(log, client, ids, reason).await?;
        Ok(recorded.map(|recorded| (last, recorded)))
    }

    /// Records what a crash kept from being recorded.
    ///
    /// # Errors
    /// The log takes nothing, or a disk that fails.
    pub async fn finish(&self, log: &Log) -> Result<(), Error> {
        let due = match &self.0 {
            Keys::File { path, keys } => with(path, keys, |keys| Ok(keys.due())).await?,
            Keys::Postgres(keys) => keys.due().await?,
        };
        for (client, id) in due {
            self.record(log, client, vec![id], AFTER_CRASH.into()).await?;
        }
        Ok(())
    }

    async fn record(&self, log: &Log, client: String, ids: Vec<KeyId>, reason: String) -> Result<Option<Recorded>, Error> {
        let of = ids.clone();
        let record = move |ledger: &mut Ledger| {
            // A key that was made for nobody: the request that named this client was refused, or never came to its end.
            if !ledger.state.clients.contains_key(&client) {
                return Ok(None);
            }
            of.iter().try_fold(None, |_, id| ledger.erased(&client, id, &reason).map(Some))
        };
        let recorded = log.run(record).await?;
        match &self.0 {
            Keys::File { path, keys } => with(path, keys, move |keys| keys.forget(&ids)).await?,
            Keys::Postgres(keys) => keys.forget(&ids).await?,
        }
        Ok(recorded)
    }
}

async fn with<T: Send + 'static>(
    path: &Path,
    keys: &Arc<Mutex<Option<KeyFile>>>,
    work: impl FnOnce(&mut KeyFile) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (path, keys) = (path.to_owned(), keys.clone());
    let run = move || {
        let mut keys = keys.lock();
        let open = match keys.take() {
            Some(open) => open,
            None => KeyFile::open(&path)?,
        };
        work(keys.insert(open))
    };
    tokio::task::spawn_blocking(run).await.map_err(|_| Error::Stopped)?
}

/// Where a data folder keeps them: beside the log's secrets, never in the log's folder.
#[must_use]
pub fn path(data: &Path) -> PathBuf {
    data.join("keys").join("subjects")
}
