//! Billing's state in SQLite: the fold with its cursor, and the invoices.
//!
//! What a checkpoint made believable and the cursor behind it go in with one transaction, so that a
//! crash loses or doubles nothing. The SQL keeps to what other engines know as well.

mod fold;
mod invoices;

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{SqlSafeStr as _, Sqlite, Transaction};

use crate::domain::follow::Unreadable;

pub use fold::Cursor;
pub use invoices::{InvoiceRow, Page};

/// Connections: SQLite has one writer, and a handful of readers keep four cores busy.
const CONNECTIONS_MAX: u32 = 8;

/// How long a writer waits for the one before it; a transaction takes milliseconds.
const BUSY: Duration = Duration::from_secs(10);

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed.
    #[error("ledger: {0}")]
    Sql(#[from] sqlx::Error),
    /// The schema could not be brought up to date.
    #[error("ledger's schema: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// What is stored is not what this version writes.
    #[error("ledger holds a {what} that cannot be read: {problem}")]
    Corrupt {
        /// Which.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A leaf that nothing can be folded from.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The log holds an invoice of the closing that this ledger did not issue.
    #[error("the period was invoiced as {number} in leaf {leaf}, which this ledger did not issue")]
    Invoiced {
        /// Its number.
        number: String,
        /// Index of its leaf.
        leaf: u64,
    },
    /// Somebody else moved the cursor: two followers of one ledger.
    #[error("cursor is at {found} but the fold began at {wanted}: another process follows into this ledger")]
    CursorMoved {
        /// Where the fold began.
        wanted: u64,
        /// Where the cursor is.
        found: u64,
    },
}

/// The ledger.
#[derive(Debug, Clone)]
pub struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens the ledger and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // With WAL, FULL syncs at every commit: an invoice's number is durable before it is told.
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY);
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await?;
        let ledger = include_str!("../migrations/0001_ledger.sql").into_sql_str();
        let invoiced = include_str!("../migrations/0002_invoiced.sql").into_sql_str();
        let notes = include_str!("../migrations/0003_notes.sql").into_sql_str();
        let migrations = vec![
            Migration::new(1, "ledger".into(), MigrationType::Simple, ledger, false),
            Migration::new(2, "invoiced".into(), MigrationType::Simple, invoiced, false),
            Migration::new(3, "notes".into(), MigrationType::Simple, notes, false),
        ];
        Migrator::with_migrations(migrations).run(&pool).await?;
        Ok(Self { pool })
    }

    /// A writing transaction: it takes the lock at once, so that it cannot fail half way for it.
    async fn write(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.pool.begin_with("BEGIN IMMEDIATE").await?)
    }

    /// Closes all connections, which folds the write-ahead log into the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// An index or sequence as the engine holds it: logs of 2^63 leaves are not reached.
fn to_i64(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|e| StoreError::Corrupt { what, problem: e.to_string() })
}

fn to_u64(what: &'static str, value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|e| StoreError::Corrupt { what, problem: e.to_string() })
}

fn corrupt<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> StoreError {
    move |e| StoreError::Corrupt { what, problem: e.to_string() }
}

#[cfg(test)]
mod tests;
