//! Subjects' keys in the database of the log, for several SyncShields behind it.
//!
//! A destroyed key is NULL until the log says so, and then its row goes. Every statement may be made twice, so a call
//! whose answer was lost is made again by whoever needs it.
//!
//! The database keeps what it overwrote for a while: old rows until it vacuums, its write-ahead log and backups for as
//! long as they are kept.

use std::sync::Arc;
use std::time::Duration;

use kiki::ids::{CustomerKey, Key};
use kiki::sealed::{KEY_ID, KeyId, key_id};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Config, NoTls, Row};

use super::Subject;
use crate::error::Error;

/// The longest that one statement may take, there.
const STATEMENT: Duration = Duration::from_secs(10);

/// One row per key. The lock makes starting twice at once safe.
const SCHEMA: &str = "
    SELECT pg_advisory_xact_lock(7020107);
    CREATE TABLE IF NOT EXISTS kiki_subject_key (
        log_id TEXT NOT NULL, key_id BYTEA NOT NULL, client TEXT NOT NULL, customer BYTEA NOT NULL, key BYTEA,
        PRIMARY KEY (log_id, key_id));
    CREATE UNIQUE INDEX IF NOT EXISTS kiki_subject_key_live ON kiki_subject_key (log_id, client, customer) WHERE key IS NOT NULL;";
/// The first of two who make a subject's key at once makes it.
const MAKE: &str = "
    INSERT INTO kiki_subject_key (log_id, client, customer, key_id, key)
    SELECT $1, * FROM unnest($2::text[], $3::bytea[], $4::bytea[], $5::bytea[])
    ON CONFLICT (log_id, client, customer) WHERE key IS NOT NULL DO NOTHING";
const FIND: &str = "
    SELECT key FROM unnest($2::text[], $3::bytea[]) WITH ORDINALITY AS wanted (client, customer, place)
    LEFT JOIN kiki_subject_key AS found ON log_id = $1 AND key IS NOT NULL
        AND found.client = wanted.client AND found.customer = wanted.customer
    ORDER BY place";
const DESTROY: &str = "UPDATE kiki_subject_key SET key = NULL WHERE log_id = $1 AND client = $2 AND customer = $3 AND key IS NOT NULL";
const DUE_OF: &str = "SELECT client, key_id FROM kiki_subject_key WHERE log_id = $1 AND client = $2 AND customer = $3 AND key IS NULL";
const DUE: &str = "SELECT client, key_id FROM kiki_subject_key WHERE log_id = $1 AND key IS NULL";
const FORGET: &str = "DELETE FROM kiki_subject_key WHERE log_id = $1 AND key_id = ANY($2) AND key IS NULL";

/// The keys of one log in a database; clones share a connection, which is opened again when it breaks.
#[derive(Clone)]
pub(super) struct PostgresKeys {
    log_id: String,
    config: Config,
    client: Arc<Mutex<Option<Client>>>,
}

impl PostgresKeys {
    pub(super) fn new(config: &Config, log_id: &str) -> Self {
        Self { log_id: log_id.to_owned(), config: config.clone(), client: Arc::default() }
    }

    /// As [`KeyFile::obtain`](super::file::KeyFile::obtain).
    pub(super) async fn obtain(&self, subjects: &[Subject]) -> Result<Vec<Key>, Error> {
        let found = self.find(subjects).await?;
        if let Some(all) = found.iter().cloned().collect() {
            return Ok(all);
        }
        let mut missing: Vec<&Subject> = subjects.iter().zip(&found).filter(|(_, key)| key.is_none()).map(|(subject, _)| subject).collect();
        missing.sort();
        missing.dedup();
        let keys = missing.iter().map(|_| Key::random()).collect::<Result<Vec<_>, _>>();
        let keys = keys.map_err(|e| Error::SubjectKeys(e.to_string()))?;
        let (clients, customers) = columns(missing.into_iter());
        let ids: Vec<_> = keys.iter().map(|key| key_id(key).to_vec()).collect();
        let secrets: Vec<_> = keys.iter().map(|key| key.bytes().to_vec()).collect();
        self.run(async |client| client.execute(MAKE, &[&self.log_id, &clients, &customers, &ids, &secrets]).await).await?;
        let all: Option<Vec<Key>> = self.find(subjects).await?.into_iter().collect();
        // Between the two statements another SyncShield may have erased one of them.
        all.ok_or_else(|| Error::SubjectKeys("a subject was erased meanwhile; try again".into()))
    }

    pub(super) async fn find(&self, subjects: &[Subject]) -> Result<Vec<Option<Key>>, Error> {
        let (clients, customers) = columns(subjects.iter());
        let rows = self.run(async |client| client.query(FIND, &[&self.log_id, &clients, &customers]).await).await?;
        let key = |row: &Row| {
            let key: Option<Vec<u8>> = row.get(0);
            let key = key.map(|key| <[u8; 32]>::try_from(key).map(Key::new));
            key.transpose().map_err(|_| Error::Damaged("a subject's key in the database has another length".into()))
        };
        rows.iter().map(key).collect()
    }

    /// As [`KeyFile::destroy`](super::file::KeyFile::destroy).
    pub(super) async fn destroy(&self, subject: &Subject) -> Result<Vec<KeyId>, Error> {
        let Subject { client: of, customer: CustomerKey(customer) } = subject;
        let customer = &customer[..];
        self.run(async |client| client.execute(DESTROY, &[&self.log_id, of, &customer]).await).await?;
        let rows = self.run(async |client| client.query(DUE_OF, &[&self.log_id, of, &customer]).await).await?;
        rows.iter().map(|row| due(row).map(|(_, id)| id)).collect()
    }

    pub(super) async fn due(&self) -> Result<Vec<(String, KeyId)>, Error> {
        let rows = self.run(async |client| client.query(DUE, &[&self.log_id]).await).await?;
        rows.iter().map(due).collect()
    }

    pub(super) async fn forget(&self, ids: &[KeyId]) -> Result<(), Error> {
        let ids: Vec<&[u8]> = ids.iter().map(|id| &id[..]).collect();
        self.run(async |client| client.execute(FORGET, &[&self.log_id, &ids]).await).await.map(drop)
    }

    async fn run<T>(&self, call: impl AsyncFnOnce(&Client) -> Result<T, tokio_postgres::Error>) -> Result<T, Error> {
        let mut held = self.client.lock().await;
        let client = match held.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await.map_err(failed)?,
        };
        let done = call(&client).await.map_err(failed)?;
        *held = Some(client);
        Ok(done)
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        tokio::spawn(connection); // ends with the client
        let millis = STATEMENT.as_millis();
        client.batch_execute(&format!("SET synchronous_commit = on; SET statement_timeout = {millis}")).await?;
        client.batch_execute(SCHEMA).await?;
        Ok(client)
    }
}

fn failed(error: tokio_postgres::Error) -> Error {
    Error::SubjectKeys(error.as_db_error().map_or_else(|| error.to_string(), |db| db.message().to_owned()))
}

fn columns<'a>(subjects: impl Iterator<Item = &'a Subject>) -> (Vec<&'a str>, Vec<&'a [u8]>) {
    subjects.map(|subject| (subject.client.as_str(), &subject.customer.0[..])).unzip()
}

fn due(row: &Row) -> Result<(String, KeyId), Error> {
    let id: Vec<u8> = row.get(1);
    let id = <[u8; KEY_ID]>::try_from(id).map_err(|_| Error::Damaged("a subject's key id in the database has another length".into()))?;
    Ok((row.get(0), id))
}
