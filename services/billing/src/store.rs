//! Billing's state in SQLite or PostgreSQL: the fold with its cursor, and the invoices.
//!
//! What a checkpoint made believable and the cursor behind it go in with one transaction, so that a
//! crash loses or doubles nothing. Writing transactions come one after the other on both engines,
//! by a lock that each takes first: so none fails half way for another's sake, none has to be tried
//! again, and what one reads of the ledger is what it is when it commits.

mod address;
mod books;
mod course;
mod engine;
mod fold;
mod hours;
mod invoices;
mod running;
mod sheets;
mod turn;

use sqlx::{Postgres, Transaction};

use crate::domain::follow::Unreadable;
use crate::domain::ledger::Unbalanced;

pub use address::Address;
pub use course::{Approval, Balance, Course, EventRow};
use engine::{Pool, Tx};
pub use fold::Cursor;
pub use invoices::{InvoiceRow, Page};
pub use turn::{Changes, Turn};

/// The role under which clients' calls read PostgreSQL.
const TENANT: &str = "kiki_billing_tenant";

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine failed.
    #[error("ledger: {0}")]
    Sql(#[from] sqlx::Error),
    /// Its folder could not be made.
    #[error("ledger's folder: {0}")]
    Folder(#[from] std::io::Error),
    /// Clients' calls have no role to read under.
    #[error(
        "ledger: the database's user may not make the role {TENANT}, under which clients' calls read; who may has to: \
             CREATE ROLE {TENANT} NOLOGIN; GRANT {TENANT} TO <the user>"
    )]
    NoTenantRole,
    /// The database may lose what it acknowledged.
    #[error("ledger: the database runs with fsync = off: what it acknowledges is not durable")]
    NotDurable,
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
    /// The books do not add up.
    #[error(transparent)]
    Unbalanced(#[from] Unbalanced),
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
    pool: Pool,
}

impl Store {
    /// Opens the ledger and brings its schema up to date.
    ///
    /// # Errors
    /// The engine's, or a ledger of a newer version.
    pub async fn open(address: &Address) -> Result<Self, StoreError> {
        Ok(Self { pool: address.open().await? })
    }

    /// The ledger as a client may see it. On PostgreSQL the database shows no row of another's, whatever is asked; SQLite knows no such
    /// thing, and there what is asked is all that keeps them apart.
    #[must_use]
    pub fn seen_by(&self, client: &str) -> Self {
        match &self.pool {
            Pool::Sqlite(_) => self.clone(),
            Pool::Postgres(pool) | Pool::Tenant(pool, _) => Self { pool: Pool::Tenant(pool.clone(), client.into()) },
        }
    }

    /// A writing transaction: it takes the lock at once.
    async fn write(&self) -> Result<Tx<'static>, StoreError> {
        match &self.pool {
            Pool::Sqlite(pool) => Ok(Tx::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?)),
            // What a client's call writes is the platform's own.
            Pool::Postgres(pool) | Pool::Tenant(pool, _) => {
                let mut tx = pool.begin().await?;
                alone(&mut tx).await?;
                Ok(Tx::Postgres(tx))
            }
        }
    }

    /// Closes all connections, which folds SQLite's write-ahead log into the file.
    pub async fn close(&self) {
        match &self.pool {
            Pool::Sqlite(pool) => pool.close().await,
            Pool::Postgres(pool) | Pool::Tenant(pool, _) => pool.close().await,
        }
    }
}

/// Waits for the transaction before it: PostgreSQL's `BEGIN IMMEDIATE`. Who reads waits for nobody.
async fn alone(tx: &mut Transaction<'_, Postgres>) -> Result<(), StoreError> {
    sqlx::query("SELECT pg_advisory_xact_lock(7020110)").execute(&mut **tx).await?;
    Ok(())
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
