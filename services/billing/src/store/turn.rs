//! Who folds, and how the others hear of it.
//!
//! One process folds into a ledger at a time. On SQLite it is the only one. On PostgreSQL it holds an advisory lock on
//! the very connection that it folds over: who lost the lock cannot fold, and where a process dies the database ends
//! its connection and the next has its turn.

use sqlx::postgres::PgListener;
use sqlx::{Connection as _, PgConnection};

use super::engine::{Pool, Tx};
use super::{Store, StoreError};

/// The channel on which a fold is told of.
const CHANNEL: &str = "kiki_billing";

/// Waits for the lock without end, and then as long as any other statement may.
const TAKE: [&str; 3] = [
    "SET lock_timeout = 0; SET statement_timeout = 0",
    // One lock a database: it has one ledger.
    "SELECT pg_advisory_lock(7020109)",
    "RESET lock_timeout; RESET statement_timeout",
];

/// The right to fold.
#[derive(Debug)]
pub struct Turn {
    pub(super) holding: Holding,
}

/// What the right rests on.
#[derive(Debug)]
pub(super) enum Holding {
    /// The ledger's file is one process's.
    File(Store),
    /// The connection that has the lock.
    Lock(PgConnection),
}

/// What other processes fold.
#[derive(Debug)]
pub struct Changes(Option<PgListener>);

impl Store {
    /// Waits for the right to fold.
    ///
    /// # Errors
    /// The engine's.
    pub async fn turn(&self) -> Result<Turn, StoreError> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(Turn { holding: Holding::File(self.clone()) }) };
        let mut connection = pool.acquire().await?.detach();
        for statement in TAKE {
            sqlx::raw_sql(statement).execute(&mut connection).await?;
        }
        Ok(Turn { holding: Holding::Lock(connection) })
    }

    /// Begins to hear of what other processes fold.
    ///
    /// # Errors
    /// The engine's.
    pub async fn changes(&self) -> Result<Changes, StoreError> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(Changes(None)) };
        let mut listener = PgListener::connect_with(pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Changes(Some(listener)))
    }
}

impl Turn {
    /// A writing transaction.
    pub(super) async fn write(&mut self) -> Result<Tx<'_>, StoreError> {
        match &mut self.holding {
            Holding::File(store) => store.write().await,
            Holding::Lock(connection) => {
                let mut tx = connection.begin().await?;
                super::alone(&mut tx).await?;
                Ok(Tx::Postgres(tx))
            }
        }
    }
}

impl Changes {
    /// Waits until something may have been folded.
    ///
    /// # Errors
    /// The engine's.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        let Some(listener) = &mut self.0 else { return std::future::pending().await };
        // None: the connection broke, and was made again. What was folded meanwhile was not heard.
        listener.try_recv().await?;
        // What queued up is one change: its listener looks where the cursor is now.
        while listener.next_buffered().is_some() {}
        Ok(())
    }
}

/// Tells the others, when the transaction is committed.
pub(super) async fn tell(tx: &mut Tx<'_>) -> Result<(), StoreError> {
    if let Tx::Postgres(tx) = tx {
        sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(&mut **tx).await?;
    }
    Ok(())
}
