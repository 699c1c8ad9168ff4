//! Where the ledger is kept, and how each engine is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

use super::engine::Pool;
use super::{Store, StoreError};

/// File of the ledger, in its folder.
const LEDGER: &str = "ledger.db";

/// Connections: SQLite has one writer, and a handful of readers keep four cores busy. On PostgreSQL one of them hears
/// of what others fold, and whoever folds has one more.
const CONNECTIONS_MAX: u32 = 8;

/// How long a writer waits for the one before it; a transaction takes milliseconds, and of 65,536 leaves about a second.
const BUSY: Duration = Duration::from_secs(10);

/// Memory of one of SQLite's connections for its pages, in KiB behind a minus: 64 MiB keep the ends of all indices of some thousand
/// campaigns, where a fold writes; its default of 2 MiB reads them again and again.
const SQLITE_CACHE: &str = "-65536";

/// The longest that PostgreSQL may take for one statement.
const STATEMENT: Duration = Duration::from_secs(30);

/// PostgreSQL's tables of the ledger stand in a schema of their own: the database may be another's too, say SyncShield's.
const SCHEMA: &str = "kiki_billing";

/// The schema is made by one process at a time: the lock ends with the statements.
const MAKE_SCHEMA: &str = "SELECT pg_advisory_xact_lock(7020108); CREATE SCHEMA IF NOT EXISTS kiki_billing";

/// Row-level security for the role of clients' calls: of every table that says whose a row is, the rows of the client that the transaction
/// is for; of an approval, if its draft is the client's; and how far the log was followed, which is nobody's. The owner sees all. What is
/// so already is left alone: to change a table waits for all who read it.
const ISOLATE: &str = "SELECT pg_advisory_xact_lock(7020108);
DO $$
DECLARE
    of_clients TEXT;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'kiki_billing_tenant') THEN
        BEGIN
            CREATE ROLE kiki_billing_tenant NOLOGIN;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN -- roles are of all databases: another's Billing was first
        END;
    END IF;
    IF NOT pg_has_role(CURRENT_USER, 'kiki_billing_tenant', 'MEMBER') THEN
        GRANT kiki_billing_tenant TO CURRENT_USER;
    END IF;
    IF NOT has_schema_privilege('kiki_billing_tenant', 'kiki_billing', 'USAGE') THEN
        GRANT USAGE ON SCHEMA kiki_billing TO kiki_billing_tenant;
        GRANT SELECT ON kiki_billing.cursor TO kiki_billing_tenant;
    END IF;
    FOR of_clients IN
        SELECT relname FROM pg_class WHERE relnamespace = 'kiki_billing'::regnamespace AND relkind = 'r' AND NOT relrowsecurity
            AND (relname = 'approval' OR EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'client'))
    LOOP
        EXECUTE format('GRANT SELECT ON kiki_billing.%I TO kiki_billing_tenant', of_clients);
        EXECUTE format('ALTER TABLE kiki_billing.%I ENABLE ROW LEVEL SECURITY', of_clients);
        EXECUTE format('CREATE POLICY own ON kiki_billing.%I FOR SELECT TO kiki_billing_tenant USING (%s)', of_clients,
            CASE of_clients WHEN 'approval' THEN 'EXISTS (SELECT FROM kiki_billing.invoice WHERE invoice.draft_id = approval.draft_id)'
                ELSE 'client = current_setting(''kiki.client'')' END);
    END LOOP;
END $$";

/// PostgreSQL's code for it (its manual, appendix A).
const INSUFFICIENT_PRIVILEGE: &str = "42501";

/// Whether the records take twice the pages that they took when they were last looked at.
const RECORDS_OUTGROWN: &str = "SELECT pg_relation_size(oid) > 2 * relpages::BIGINT * current_setting('block_size')::BIGINT
    FROM pg_class WHERE oid = 'record'::regclass";

/// Where the ledger is kept.
#[derive(Clone)]
pub enum Address {
    /// In SQLite, in a file of this folder: for one Billing.
    Folder(PathBuf),
    /// In a PostgreSQL database, which several Billings share.
    Postgres(Box<PgConnectOptions>),
}

impl fmt::Debug for Address {
    /// Shows no password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(folder) => f.debug_tuple("Folder").field(folder).finish(),
            Self::Postgres(to) => f.debug_tuple("Postgres").field(&to.get_host()).field(&to.get_database()).finish(),
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(folder) = text.strip_prefix("file:").filter(|folder| !folder.is_empty()) {
            return Ok(Self::Folder(folder.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return text.parse().map(|to| Self::Postgres(Box::new(to))).map_err(|e| format!("not a PostgreSQL address: {e}"));
        }
        Err("is file:DIR or postgres://USER@HOST/DATABASE".to_owned()) // not repeated: it may hold a password
    }
}

impl Address {
    /// Connects and brings the schema up to date.
    pub(super) async fn open(&self) -> Result<Pool, StoreError> {
        match self {
            Self::Folder(folder) => open_sqlite(folder).await,
            Self::Postgres(to) => open_postgres(to).await,
        }
    }
}

async fn open_sqlite(folder: &Path) -> Result<Pool, StoreError> {
    std::fs::create_dir_all(folder)?;
    let options = SqliteConnectOptions::new()
        .filename(folder.join(LEDGER))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // With WAL, FULL syncs at every commit: an invoice's number is durable before it is told.
        .synchronous(SqliteSynchronous::Full)
        .pragma("cache_size", SQLITE_CACHE)
        .busy_timeout(BUSY);
    let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).connect_with(options).await?;
    migrations(str::to_owned).run(&pool).await?;
    Ok(Pool::Sqlite(pool))
}

async fn open_postgres(to: &PgConnectOptions) -> Result<Pool, StoreError> {
    let (lock, statement) = (BUSY.as_millis().to_string(), STATEMENT.as_millis().to_string());
    let options = to.clone().options([
        ("search_path", SCHEMA),
        // Durable means written and synced there, whatever the database's own default is.
        ("synchronous_commit", "on"),
        // A writer sees what the one before it wrote, for which it waited.
        ("default_transaction_isolation", "read committed"),
        ("lock_timeout", &lock),
        ("statement_timeout", &statement),
        // Whose machine is gone gives its turn up: probes after 5 s, each second, and three that are not answered.
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "1"),
        ("tcp_keepalives_count", "3"),
    ]);
    let pool = PgPoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(BUSY).connect_with(options).await?;
    let fsync: String = sqlx::query_scalar("SHOW fsync").fetch_one(&pool).await?;
    if fsync != "on" {
        return Err(StoreError::NotDurable);
    }
    sqlx::raw_sql(MAKE_SCHEMA).execute(&pool).await?;
    migrate_postgres(&pool).await?;
    sqlx::raw_sql(ISOLATE).execute(&pool).await.map_err(|error| match error.as_database_error().and_then(|e| e.code()) {
        Some(code) if code == INSUFFICIENT_PRIVILEGE => StoreError::NoTenantRole,
        _ => error.into(),
    })?;
    Ok(Pool::Postgres(pool))
}

/// Text compares by its bytes on SQLite, and on PostgreSQL by the database's locale unless told otherwise.
async fn migrate_postgres(pool: &PgPool) -> Result<(), StoreError> {
    Ok(migrations(|sql| sql.replace(" TEXT ", " TEXT COLLATE \"C\" ")).run(pool).await?)
}

impl Store {
    /// Has PostgreSQL gather what it plans by, where the records have outgrown what it knows of them: by itself it does so a minute or
    /// more after much was folded, and without it tries a client's customers each against each.
    pub(super) async fn know_records(&self) -> Result<(), StoreError> {
        let Pool::Postgres(pool) = &self.pool else { return Ok(()) };
        if sqlx::query_scalar(RECORDS_OUTGROWN).fetch_one(pool).await? {
            // Where somebody else is at it, that will do.
            sqlx::raw_sql("ANALYZE (SKIP_LOCKED) record").execute(pool).await?;
        }
        Ok(())
    }
}

/// The schema's versions, each as `dialect` has it.
fn migrations(dialect: impl Fn(&str) -> String) -> Migrator {
    let files = [
        ("ledger", include_str!("../../migrations/0001_ledger.sql")),
        ("invoiced", include_str!("../../migrations/0002_invoiced.sql")),
        ("course", include_str!("../../migrations/0003_course.sql")),
        ("notes", include_str!("../../migrations/0004_notes.sql")),
        ("credits", include_str!("../../migrations/0005_credits.sql")),
        ("books", include_str!("../../migrations/0006_books.sql")),
        ("agreed", include_str!("../../migrations/0007_agreed.sql")),
        ("spend", include_str!("../../migrations/0008_spend.sql")),
    ];
    let migration = |(version, (name, sql)): (i64, (&'static str, &str))| {
        Migration::new(version, name.into(), MigrationType::Simple, AssertSqlSafe(dialect(sql)).into_sql_str(), false)
    };
    Migrator::with_migrations((1..).zip(files).map(migration).collect())
}
