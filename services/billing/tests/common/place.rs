//! An empty ledger on either engine: where a test's Billing keeps what it folds.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};

use sqlx::{AssertSqlSafe, Connection as _};

use super::postgres::Postgres;

/// The place, which goes with the test.
pub(crate) struct Place {
    /// As `--store` takes it.
    pub(crate) store: String,
    _folder: tempfile::TempDir,
    _server: Option<Arc<Postgres>>,
}

impl Place {
    /// In a folder.
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { store: format!("file:{}", folder.path().display()), _folder: folder, _server: None }
    }

    /// In a database of its own.
    pub(crate) async fn postgres() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let server = tokio::task::spawn_blocking(shared).await.unwrap();
        let name = format!("ledger{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut connection = sqlx::PgConnection::connect(&server.url()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut connection).await.unwrap();
        let store = format!("{}/{name}", server.url().strip_suffix("/postgres").unwrap());
        Self { store, _folder: tempfile::tempdir().unwrap(), _server: Some(server) }
    }
}

/// One server for all tests that run at the same time; it stops with the last of them.
fn shared() -> Arc<Postgres> {
    static SERVER: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
    let mut server = SERVER.lock().unwrap();
    server.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Postgres::start_or_install());
        *server = Arc::downgrade(&started);
        started
    })
}
