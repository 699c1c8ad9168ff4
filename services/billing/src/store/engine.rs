//! The two engines behind one set of statements: SQLite, embedded, and PostgreSQL.
//!
//! A statement keeps to `BIGINT`, `TEXT` and `BYTEA`, to parameters `$1` and to what both engines know; only the many
//! rows of [`insert_many`] go in by each engine's own quickest way.
//!
//! Deliberately not sqlx's `Any`: it hides what SQLite is to sync, and has no arrays for PostgreSQL.

use std::sync::Arc;

use sqlx::postgres::{PgPool, PgRow};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{AssertSqlSafe, Decode, Postgres, Row as _, Sqlite, Transaction, Type};

use super::StoreError;

/// Most rows of one INSERT on SQLite, which takes 32,766 parameters: 10 a row keep far below.
const SQLITE_ROWS: usize = 1_000;

/// Most rows of one INSERT on PostgreSQL: some 200 bytes each, and a message may have 1 GiB.
const POSTGRES_ROWS: usize = 16_384;

/// Connections to one engine.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    /// As a client may see it: each statement runs under the clients' role, whose policies show that client's rows alone.
    Tenant(PgPool, Arc<str>),
}

/// A transaction that sees one client's rows. The role and the client end with it.
async fn seen_by(pool: &PgPool, client: &str) -> Result<Transaction<'static, Postgres>, sqlx::Error> {
    let mut tx = pool.begin().await?;
    sqlx::query("SET LOCAL ROLE kiki_billing_tenant").execute(&mut *tx).await?;
    sqlx::query("SELECT set_config('kiki.client', $1, true)").bind(client).execute(&mut *tx).await?;
    Ok(tx)
}

/// A transaction.
pub(super) enum Tx<'c> {
    Sqlite(Transaction<'c, Sqlite>),
    Postgres(Transaction<'c, Postgres>),
}

impl Tx<'_> {
    pub(super) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
        .map_err(StoreError::Sql)
    }
}

/// Where a statement runs.
pub(super) enum On<'a, 'c> {
    Pool(&'a Pool),
    Tx(&'a mut Tx<'c>),
}

impl<'a> From<&'a Pool> for On<'a, '_> {
    fn from(pool: &'a Pool) -> Self {
        Self::Pool(pool)
    }
}

impl<'a, 'c> From<&'a mut Tx<'c>> for On<'a, 'c> {
    fn from(tx: &'a mut Tx<'c>) -> Self {
        Self::Tx(tx)
    }
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'a> {
    Integer(Option<i64>),
    Text(Option<&'a str>),
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Integer(Some(value))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(value: Option<i64>) -> Self {
        Self::Integer(value)
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(Some(value))
    }
}

impl<'a> From<&'a Option<String>> for Value<'a> {
    fn from(value: &'a Option<String>) -> Self {
        Self::Text(value.as_deref())
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

impl<'a> From<&'a Vec<u8>> for Value<'a> {
    fn from(value: &'a Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

/// A statement with its parameters.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    sql: &'static str,
    values: Vec<Value<'a>>,
}

/// A statement, to be given its parameters in order.
pub(super) fn sql<'a>(sql: &'static str) -> Statement<'a> {
    Statement { sql, values: Vec::new() }
}

/// sqlx's own query of a statement, for the engine that it is used with.
macro_rules! query {
    ($statement:expr) => {{
        let mut query = sqlx::query($statement.sql);
        for value in $statement.values {
            query = match value {
                Value::Integer(value) => query.bind(value),
                Value::Text(value) => query.bind(value),
                Value::Bytes(value) => query.bind(value),
            };
        }
        query
    }};
}

impl<'a> Statement<'a> {
    pub(super) fn bind(mut self, value: impl Into<Value<'a>>) -> Self {
        self.values.push(value.into());
        self
    }

    /// How many rows it changed. Of one client's view, which changes nothing, a transaction that nobody commits.
    pub(super) async fn execute<'t, 'c: 't>(self, on: impl Into<On<'t, 'c>>) -> Result<u64, StoreError> {
        Ok(match on.into() {
            On::Pool(Pool::Sqlite(pool)) => query!(self).execute(pool).await?.rows_affected(),
            On::Pool(Pool::Postgres(pool)) => query!(self).execute(pool).await?.rows_affected(),
            On::Pool(Pool::Tenant(pool, client)) => query!(self).execute(&mut *seen_by(pool, client).await?).await?.rows_affected(),
            On::Tx(Tx::Sqlite(tx)) => query!(self).execute(&mut **tx).await?.rows_affected(),
            On::Tx(Tx::Postgres(tx)) => query!(self).execute(&mut **tx).await?.rows_affected(),
        })
    }

    /// The one row that it gives, if any.
    pub(super) async fn row<'t, 'c: 't>(self, on: impl Into<On<'t, 'c>>) -> Result<Option<Row>, StoreError> {
        Ok(match on.into() {
            On::Pool(Pool::Sqlite(pool)) => query!(self).fetch_optional(pool).await?.map(Row::Sqlite),
            On::Pool(Pool::Postgres(pool)) => query!(self).fetch_optional(pool).await?.map(Row::Postgres),
            On::Pool(Pool::Tenant(pool, client)) => {
                query!(self).fetch_optional(&mut *seen_by(pool, client).await?).await?.map(Row::Postgres)
            }
            On::Tx(Tx::Sqlite(tx)) => query!(self).fetch_optional(&mut **tx).await?.map(Row::Sqlite),
            On::Tx(Tx::Postgres(tx)) => query!(self).fetch_optional(&mut **tx).await?.map(Row::Postgres),
        })
    }

    /// All rows that it gives.
    pub(super) async fn rows<'t, 'c: 't>(self, on: impl Into<On<'t, 'c>>) -> Result<Vec<Row>, StoreError> {
        let (sqlite, postgres) = match on.into() {
            On::Pool(Pool::Sqlite(pool)) => (query!(self).fetch_all(pool).await?, Vec::new()),
            On::Pool(Pool::Postgres(pool)) => (Vec::new(), query!(self).fetch_all(pool).await?),
            On::Pool(Pool::Tenant(pool, client)) => (Vec::new(), query!(self).fetch_all(&mut *seen_by(pool, client).await?).await?),
            On::Tx(Tx::Sqlite(tx)) => (query!(self).fetch_all(&mut **tx).await?, Vec::new()),
            On::Tx(Tx::Postgres(tx)) => (Vec::new(), query!(self).fetch_all(&mut **tx).await?),
        };
        Ok(sqlite.into_iter().map(Row::Sqlite).chain(postgres.into_iter().map(Row::Postgres)).collect())
    }
}

/// A row of an answer.
pub(super) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// A column by its name.
    pub(super) fn get<'r, T>(&'r self, column: &str) -> Result<T, StoreError>
    where
        T: Type<Sqlite> + Decode<'r, Sqlite> + Type<Postgres> + Decode<'r, Postgres>,
    {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }
}

/// The values of one column, a row each.
pub(super) enum Column<'a> {
    Integers(Vec<i64>),
    Texts(Vec<&'a str>),
    Bytes(Vec<&'a [u8]>),
}

impl Column<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Integers(values) => values.len(),
            Self::Texts(values) => values.len(),
            Self::Bytes(values) => values.len(),
        }
    }
}

/// Inserts a row for each value of the columns, which are all of one length. `conflict` is what stands behind the rows.
pub(super) async fn insert_many(tx: &mut Tx<'_>, table: &str, columns: &[(&str, Column<'_>)], conflict: &str) -> Result<(), StoreError> {
    let names = columns.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let into = format!("INSERT INTO {table} ({names})");
    let len = columns.first().map_or(0, |(_, column)| column.len());
    let step = if matches!(tx, Tx::Sqlite(_)) { SQLITE_ROWS } else { POSTGRES_ROWS };
    for from in (0..len).step_by(step) {
        let until = len.min(from + step);
        match tx {
            Tx::Sqlite(tx) => insert_sqlite(tx, &into, columns, from..until, conflict).await?,
            Tx::Postgres(tx) => insert_postgres(tx, &into, columns, from..until, conflict).await?,
        }
    }
    Ok(())
}

type Rows = std::ops::Range<usize>;

/// As one list of values. Its parameters have no numbers: SQLite looks a numbered one up among all others.
async fn insert_sqlite(
    tx: &mut Transaction<'_, Sqlite>,
    into: &str,
    columns: &[(&str, Column<'_>)],
    rows: Rows,
    conflict: &str,
) -> Result<(), StoreError> {
    let row = format!("({})", vec!["?"; columns.len()].join(", "));
    let values = vec![row.as_str(); rows.len()].join(", ");
    let mut query = sqlx::query(AssertSqlSafe(format!("{into} VALUES {values} {conflict}")));
    for row in rows {
        for (_, column) in columns {
            query = match column {
                Column::Integers(values) => query.bind(values[row]),
                Column::Texts(values) => query.bind(values[row]),
                Column::Bytes(values) => query.bind(values[row]),
            };
        }
    }
    query.execute(&mut **tx).await?;
    Ok(())
}

/// As one array a column: the statement is the same for any number of rows, and so prepared once.
async fn insert_postgres(
    tx: &mut Transaction<'_, Postgres>,
    into: &str,
    columns: &[(&str, Column<'_>)],
    rows: Rows,
    conflict: &str,
) -> Result<(), StoreError> {
    let array = |(n, (_, column)): (usize, &(&str, Column<'_>))| match column {
        Column::Integers(_) => format!("${n}::BIGINT[]"),
        Column::Texts(_) => format!("${n}::TEXT[]"),
        Column::Bytes(_) => format!("${n}::BYTEA[]"),
    };
    let arrays = (1..).zip(columns).map(array).collect::<Vec<_>>().join(", ");
    let mut query = sqlx::query(AssertSqlSafe(format!("{into} SELECT * FROM UNNEST({arrays}) {conflict}")));
    for (_, column) in columns {
        query = match column {
            Column::Integers(values) => query.bind(&values[rows.clone()]),
            Column::Texts(values) => query.bind(&values[rows.clone()]),
            Column::Bytes(values) => query.bind(&values[rows.clone()]),
        };
    }
    query.execute(&mut **tx).await?;
    Ok(())
}
