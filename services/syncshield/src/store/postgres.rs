//! The log on PostgreSQL, for several SyncShields behind one database.
//!
//! A batch is one row of frames; the log's head is one row with its size and newest checkpoint. Appending is one
//! statement, and so one transaction: it moves the head where it stands as expected, and inserts the batch only then.
//!
//! A connection that broke while a batch was on its way says nothing of what became of it. Each batch therefore has a
//! tag of its own: after connecting again, the row at the expected size is ours, another's, or not there, in which case
//! the same compare-and-set is tried again. So an append that was lost on the way is never written twice.
//!
//! Not here: TLS (the database is reached over a private network or a local socket).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiki::clock::monotonic;
use kiki::framed::{Frames, Scanner};
use kiki::leaf;
use kiki::tlog::{Tree, leaf_hash};
use parking_lot::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Row, Statement, types::ToSql};

use super::engine::{Appended, Engine, Opened, Reader};
use crate::error::Error;

/// How long a call tries to reach the database again before it gives up: a restart takes a few seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest that one statement may take, there and here.
const STATEMENT: Duration = Duration::from_secs(10);
/// Rows of one read; `max_bytes` bounds it earlier where batches are large.
const MAX_ROWS: i64 = 1_024;

/// One row per log, one row per batch. The lock makes starting twice at once safe.
const SCHEMA: &str = "
    SELECT pg_advisory_xact_lock(7020107);
    CREATE TABLE IF NOT EXISTS kiki_log (
        log_id TEXT PRIMARY KEY, public_key TEXT NOT NULL, size BIGINT NOT NULL, checkpoint TEXT);
    CREATE TABLE IF NOT EXISTS kiki_log_batch (
        log_id TEXT NOT NULL REFERENCES kiki_log, first BIGINT NOT NULL, tag BYTEA NOT NULL, frames BYTEA NOT NULL,
        PRIMARY KEY (log_id, first));
    ALTER TABLE kiki_log_batch ALTER COLUMN frames SET STORAGE EXTERNAL;";
const CLAIM: &str = "INSERT INTO kiki_log (log_id, public_key, size) VALUES ($1, $2, 0) ON CONFLICT DO NOTHING";
const HEAD: &str = "SELECT size, public_key, checkpoint FROM kiki_log WHERE log_id = $1";
const APPEND: &str = "
    WITH head AS (UPDATE kiki_log SET size = $3 WHERE log_id = $1 AND size = $2 RETURNING log_id)
    INSERT INTO kiki_log_batch (log_id, first, tag, frames) SELECT log_id, $2, $4, $5 FROM head";
const TAG: &str = "SELECT tag FROM kiki_log_batch WHERE log_id = $1 AND first = $2";
const SIGN: &str = "UPDATE kiki_log SET checkpoint = $3 WHERE log_id = $1 AND size >= $2 AND checkpoint IS NOT DISTINCT FROM $4";
const READ: &str = "
    SELECT first, frames FROM (
        SELECT first, frames, sum(octet_length(frames)) OVER (ORDER BY first) - octet_length(frames) AS before
        FROM (SELECT first, frames FROM kiki_log_batch WHERE log_id = $1 AND first < $3 AND first >=
            (SELECT max(first) FROM kiki_log_batch WHERE log_id = $1 AND first <= $2) ORDER BY first LIMIT $5) AS rows
    ) AS summed WHERE before < $4 ORDER BY first";

/// The threads that the connections live on; calls come from threads that may wait.
struct Threads(Option<tokio::runtime::Runtime>);

impl Threads {
    fn new() -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("log-postgres").enable_all().build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs a future there and waits for it here.
    fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> Result<T, Error> {
        let (tell, hear) = std::sync::mpsc::sync_channel(1);
        self.0.as_ref().ok_or(Error::Stopped)?.spawn(async move { drop(tell.send(future.await)) });
        hear.recv().map_err(|_| Error::Stopped)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Not joined: this may be dropped where waiting is not allowed.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A connection with its statements.
struct Session {
    client: Client,
    head: Statement,
    append: Statement,
    tag: Statement,
    sign: Statement,
    read: Statement,
}

impl Session {
    async fn open(config: Config, schema: bool) -> Result<Self, Failed> {
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection); // ends with the client
        let millis = STATEMENT.as_millis();
        // Durable means written and synced there, whatever the database's own default is.
        client.batch_execute(&format!("SET synchronous_commit = on; SET statement_timeout = {millis}")).await?;
        let fsync: String = client.query_one("SELECT current_setting('fsync')", &[]).await?.get(0);
        if fsync != "on" {
            return Err(Failed::Fatal("the database runs with fsync = off: what it acknowledges is not durable".into()));
        }
        if schema {
            client.batch_execute(SCHEMA).await?;
        }
        let [head, append, tag, sign, read] = [HEAD, APPEND, TAG, SIGN, READ].map(|sql| client.prepare(sql));
        let (head, append, tag, sign, read) = (head.await?, append.await?, tag.await?, sign.await?, read.await?);
        Ok(Self { client, head, append, tag, sign, read })
    }
}

/// Why a call failed: it may be tried again on a new connection, or not.
enum Failed {
    Broken(String),
    Fatal(String),
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = match error.as_db_error() {
            Some(db) => format!("{} ({})", db.message(), db.code().code()),
            None => error.to_string(),
        };
        // Classes 08, 53 and 57: connections, resources (also a full disk), shutdown and start.
        let passes = |code: &SqlState| ["08", "53", "57"].contains(&&code.code()[..2]);
        if error.code().is_none_or(passes) { Self::Broken(text) } else { Self::Fatal(text) }
    }
}

/// One connection that is opened again when it breaks.
struct Link {
    threads: Arc<Threads>,
    config: Config,
    /// Create the tables first.
    schema: bool,
    session: Option<Arc<Session>>,
}

impl Link {
    fn new(threads: &Arc<Threads>, config: &Config, schema: bool) -> Self {
        Self { threads: threads.clone(), config: config.clone(), schema, session: None }
    }

    /// One attempt.
    fn attempt<T, F>(&mut self, call: impl FnOnce(Arc<Session>) -> F) -> Result<T, Failed>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        let limit = STATEMENT + Duration::from_secs(1);
        let session = match &self.session {
            Some(session) => session.clone(),
            None => Arc::new(self.within(limit, Session::open(self.config.clone(), self.schema))?),
        };
        let result = self.within(limit, call(session.clone()));
        self.session = (!matches!(result, Err(Failed::Broken(_)))).then_some(session);
        result
    }

    fn within<T: Send + 'static>(
        &self,
        limit: Duration,
        future: impl Future<Output = Result<T, Failed>> + Send + 'static,
    ) -> Result<T, Failed> {
        let timed = async move { tokio::time::timeout(limit, future).await.unwrap_or_else(|_| Err(Failed::Broken("no answer".into()))) };
        self.threads.wait(timed).unwrap_or_else(|e| Err(Failed::Fatal(e.to_string())))
    }

    /// Tries until it is done, refused, or the patience is at its end. Only for calls that may be made twice.
    fn call<T, F>(&mut self, call: impl Fn(Arc<Session>) -> F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failed>> + Send + 'static,
    {
        let start = monotonic();
        loop {
            match self.attempt(&call) {
                Ok(done) => return Ok(done),
                Err(Failed::Fatal(why)) => return Err(Error::Database(why)),
                Err(Failed::Broken(why)) if start.elapsed() > PATIENCE => return Err(Error::Database(why)),
                Err(Failed::Broken(_)) => std::thread::sleep(PAUSE),
            }
        }
    }
}

/// A log in a database.
pub struct Postgres {
    log_id: String,
    link: Link,
    reader: Arc<PostgresReader>,
    /// This writer's name and the number of its next batch: together a batch's tag.
    writer: [u8; 16],
    batches: u64,
}

/// Numbers in the database are signed.
fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

struct Head {
    size: u64,
    public_key: String,
    checkpoint: Option<String>,
}

impl Postgres {
    /// Connects, and creates the tables where there are none.
    ///
    /// # Errors
    /// A database that cannot be reached, or that does not sync what it writes.
    pub fn connect(config: &Config, log_id: &str) -> Result<Self, Error> {
        let threads = Arc::new(Threads::new()?);
        let seed = kiki::ids::Key::random().map_err(|e| Error::Key(e.to_string()))?;
        let mut writer = [0; 16];
        writer.copy_from_slice(&seed.bytes()[..16]);
        let reader = PostgresReader { log_id: log_id.to_owned(), link: Mutex::new(Link::new(&threads, config, false)) };
        let mut postgres =
            Self { log_id: log_id.to_owned(), link: Link::new(&threads, config, true), reader: Arc::new(reader), writer, batches: 0 };
        postgres.head()?;
        postgres.link.schema = false; // altering a table waits for all who use it: once is enough
        Ok(postgres)
    }

    fn head(&mut self) -> Result<Option<Head>, Error> {
        let log_id = self.log_id.clone();
        self.link.call(move |session| {
            let log_id = log_id.clone();
            async move {
                let row = session.client.query_opt(&session.head, &[&log_id]).await?;
                let head = |row: Row| Head { size: row.get::<_, i64>(0).unsigned_abs(), public_key: row.get(1), checkpoint: row.get(2) };
                Ok(row.map(head))
            }
        })
    }

    /// Takes the log for a key where it is new.
    ///
    /// # Errors
    /// The log is another key's, or the database's.
    pub fn claim(&mut self, public_key: &str) -> Result<(), Error> {
        let (log_id, key) = (self.log_id.clone(), public_key.to_owned());
        self.link.call(move |session| {
            let (log_id, key) = (log_id.clone(), key.clone());
            async move { Ok(session.client.execute(CLAIM, &[&log_id, &key]).await.map(drop)?) }
        })?;
        match self.head()? {
            Some(head) if head.public_key == public_key => Ok(()),
            Some(head) => Err(Error::Key(format!("the log in the database is signed by {}, not by {public_key}", head.public_key))),
            None => Err(Error::Database("the log's row is gone".into())),
        }
    }

    /// Reads every batch and hashes every leaf.
    ///
    /// # Errors
    /// Damage, and which leaf; or the database's.
    pub fn load(mut self) -> Result<Opened, Error> {
        let size = self.size()?;
        let mut tree = Tree::new();
        while tree.size() < size {
            let leaves = self.reader.read(tree.size(), size, 8 << 20)?;
            if leaves.is_empty() {
                return Err(Error::Damaged(format!("leaf {} is missing, and the head says {size}", tree.size())));
            }
            leaves.iter().for_each(|(_, leaf)| tree.push(leaf_hash(leaf)));
        }
        Ok(Opened { engine: Box::new(self), tree })
    }

    /// One attempt to append: whether the head moved.
    fn try_append(&mut self, size: u64, expected: u64, tag: &[u8], frames: &Bytes) -> Result<bool, Failed> {
        let (log_id, tag, frames) = (self.log_id.clone(), tag.to_vec(), frames.clone());
        self.link.attempt(move |session| async move {
            let frames: &[u8] = &frames;
            let params: [&(dyn ToSql + Sync); 5] = [&log_id, &number(expected), &number(size), &tag, &frames];
            Ok(session.client.execute(&session.append, &params).await? == 1)
        })
    }

    /// The tag of the batch at an index.
    fn tag_at(&mut self, first: u64) -> Result<Option<Vec<u8>>, Error> {
        let log_id = self.log_id.clone();
        self.link.call(move |session| {
            let log_id = log_id.clone();
            async move { Ok(session.client.query_opt(&session.tag, &[&log_id, &number(first)]).await?.map(|row| row.get(0))) }
        })
    }
}

impl Engine for Postgres {
    fn append(&mut self, batch: &Frames, expected_size: u64) -> Result<Appended, Error> {
        if batch.is_empty() {
            return Ok(if self.size()? == expected_size { Appended::Done } else { Appended::Lost });
        }
        let frames = Bytes::copy_from_slice(batch.bytes());
        self.batches += 1;
        let tag = [&self.writer[..], &self.batches.to_be_bytes()].concat();
        let size = expected_size + batch.len() as u64;
        let start = monotonic();
        let mut unknown = false;
        loop {
            match self.try_append(size, expected_size, &tag, &frames) {
                Ok(true) => return Ok(Appended::Done),
                // After a broken connection the batch in the way may be this very one.
                Ok(false) if unknown && self.tag_at(expected_size)?.is_some_and(|at| at == tag) => return Ok(Appended::Done),
                Ok(false) => return Ok(Appended::Lost),
                Err(Failed::Fatal(why)) => return Err(Error::Database(why)),
                Err(Failed::Broken(why)) if start.elapsed() > PATIENCE => return Err(Error::Database(why)),
                Err(Failed::Broken(_)) => unknown = true,
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn size(&mut self) -> Result<u64, Error> {
        Ok(self.head()?.map_or(0, |head| head.size))
    }

    fn checkpoint(&mut self) -> Result<Option<String>, Error> {
        Ok(self.head()?.and_then(|head| head.checkpoint))
    }

    fn put_checkpoint(&mut self, size: u64, note: &str, instead_of: Option<&str>) -> Result<bool, Error> {
        let (log_id, note, before) = (self.log_id.clone(), note.to_owned(), instead_of.map(str::to_owned));
        self.link.call(move |session| {
            let (log_id, note, before) = (log_id.clone(), note.clone(), before.clone());
            async move { Ok(session.client.execute(&session.sign, &[&log_id, &number(size), &note, &before]).await? == 1) }
        })
    }

    /// A database that was full says so again; there is nothing to try out.
    fn has_room(&mut self) -> Result<bool, Error> {
        Ok(true)
    }

    fn shared(&self) -> bool {
        true
    }

    fn reader(&self) -> Arc<dyn Reader> {
        self.reader.clone()
    }
}

/// Reads over a connection of its own.
struct PostgresReader {
    log_id: String,
    link: Mutex<Link>,
}

impl PostgresReader {
    fn rows(&self, from: u64, size: u64, max_bytes: usize) -> Result<Vec<Row>, Error> {
        let log_id = self.log_id.clone();
        let max = i64::try_from(max_bytes.max(1)).unwrap_or(i64::MAX); // 1: the first row, whatever its size
        self.link.lock().call(move |session| {
            let log_id = log_id.clone();
            async move {
                let params: [&(dyn ToSql + Sync); 5] = [&log_id, &number(from), &number(size), &max, &MAX_ROWS];
                Ok(session.client.query(&session.read, &params).await?)
            }
        })
    }
}

impl Reader for PostgresReader {
    fn read(&self, from: u64, size: u64, max_bytes: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        if from >= size {
            return Ok(Vec::new());
        }
        let mut leaves = Vec::new();
        let (mut next, mut taken) = (None, 0);
        for row in self.rows(from, size, max_bytes)? {
            let (first, frames): (i64, Vec<u8>) = (row.get(0), row.get(1));
            let (first, frames) = (first.unsigned_abs(), Bytes::from(frames));
            let mut index = first;
            if next.is_some_and(|next| next != first) {
                return Err(Error::Damaged(format!("a batch starts at leaf {first}, and another ends before leaf {next:?}")));
            }
            for frame in Scanner::new(&frames) {
                let (_, payload) = frame.map_err(|bad| Error::Damaged(format!("leaf {index} in the database: {}", bad.why)))?;
                let fits = index >= from && index < size && (leaves.is_empty() || taken + payload.len() <= max_bytes);
                if fits {
                    check(&self.log_id, index, payload)?;
                    taken += payload.len();
                    leaves.push((index, frames.slice_ref(payload)));
                } else if index >= from {
                    return Ok(leaves);
                }
                index += 1;
            }
            next = Some(index);
        }
        Ok(leaves)
    }
}

fn check(log_id: &str, index: u64, payload: &[u8]) -> Result<(), Error> {
    match leaf::decode(payload) {
        Ok((head, _)) if head.log_id == log_id && head.index == index => Ok(()),
        Ok((head, _)) => Err(Error::Damaged(format!("leaf {index} in the database is leaf {} of {:?}", head.index, head.log_id))),
        Err(error) => Err(Error::Damaged(format!("leaf {index} in the database: {error}"))),
    }
}
