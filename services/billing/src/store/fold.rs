//! The fold of the log: what was believed goes in, what an invoice is computed from comes out.

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::leaf::{self, leaf::Body};
use kiki::tlog::{Frontier, Hash};
use prost::Message as _;
use sqlx::{QueryBuilder, Row as _, Sqlite, Transaction, sqlite::SqliteRow};

use super::{Store, StoreError, corrupt, to_i64, to_u64};
use crate::domain::accounting::Closing;
use crate::domain::follow::Believed;
use crate::domain::invoice::Terms;
use crate::domain::record::{self, Entry, Record};

/// Rows of one INSERT: SQLite takes 32,766 parameters, and 10 a row keep far below.
const ROWS_PER_INSERT: usize = 1_000;

/// How far the log was believed.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The tree's right edge.
    pub frontier: Frontier,
    /// The last sequence of each client.
    pub heads: BTreeMap<String, u64>,
}

impl Store {
    /// Where to go on in a log: at its beginning where it was never followed.
    pub async fn cursor(&self, log_id: &str) -> Result<Cursor, StoreError> {
        let row = sqlx::query("SELECT frontier FROM cursor WHERE log_id = $1").bind(log_id);
        let frontier = match row.fetch_optional(&self.pool).await? {
            Some(row) => serde_json::from_str(row.try_get("frontier")?).map_err(corrupt("frontier"))?,
            None => Frontier::new(),
        };
        let rows = sqlx::query("SELECT client, client_seq FROM client_head").fetch_all(&self.pool).await?;
        let head = |row: &SqliteRow| Ok((row.try_get("client")?, to_u64("client_seq", row.try_get("client_seq")?)?));
        let heads = rows.iter().map(head).collect::<Result<_, StoreError>>()?;
        Ok(Cursor { frontier, heads })
    }

    /// Size and root of the log as last believed.
    pub async fn believed(&self, log_id: &str) -> Result<Option<(u64, Hash)>, StoreError> {
        let query = sqlx::query("SELECT next_index, root FROM cursor WHERE log_id = $1").bind(log_id);
        let Some(row) = query.fetch_optional(&self.pool).await? else { return Ok(None) };
        let root: &[u8] = row.try_get("root")?;
        let root = root.try_into().map_err(corrupt("root"))?;
        Ok(Some((to_u64("next_index", row.try_get("next_index")?)?, root)))
    }

    /// Folds what a checkpoint covers and moves the cursor behind it, in one transaction.
    pub async fn fold(&self, log_id: &str, believed: &Believed) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let end = believed.frontier.size();
        move_cursor(&mut tx, log_id, end - believed.leaves.len() as u64, believed).await?;
        let mut records = Vec::new();
        for leaf in &believed.leaves {
            match &leaf.body {
                Body::Terms(terms) => insert_terms(&mut tx, &leaf.header, terms).await?,
                Body::PeriodClosed(closed) => insert_closing(&mut tx, &leaf.header, closed).await?,
                Body::Invoice(invoice) => mark_recorded(&mut tx, &leaf.header, invoice).await?,
                body => records.extend(record::of(&leaf.header, body).map_err(corrupt("leaf"))?),
            }
        }
        for rows in records.chunks(ROWS_PER_INSERT) {
            insert_records(&mut tx, rows).await?;
        }
        for (client, seq) in &believed.heads {
            sqlx::query(
                "INSERT INTO client_head (client, client_seq) VALUES ($1, $2)
                 ON CONFLICT (client) DO UPDATE SET client_seq = excluded.client_seq",
            )
            .bind(client)
            .bind(to_i64("client_seq", *seq)?)
            .execute(&mut *tx)
            .await?;
        }
        Ok(tx.commit().await?)
    }

    /// A client's records in a currency up to a sequence, in the log's order.
    pub async fn records(&self, client: &str, currency: &str, last_seq: u64) -> Result<Vec<Record>, StoreError> {
        let rows = sqlx::query(
            "SELECT leaf, client, client_seq, currency, at_micros, kind, campaign, customer, amount, count FROM record
             WHERE client = $1 AND currency = $2 AND client_seq <= $3 ORDER BY client_seq",
        )
        .bind(client)
        .bind(currency)
        .bind(to_i64("client_seq", last_seq)?)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(record_of).collect()
    }

    /// The closings of a client in a currency, in the order they were made.
    pub async fn closings(&self, client: &str, currency: &str) -> Result<Vec<Closing>, StoreError> {
        let rows = sqlx::query("SELECT body FROM closing WHERE client = $1 AND currency = $2 ORDER BY client_seq")
            .bind(client)
            .bind(currency)
            .fetch_all(&self.pool)
            .await?;
        let read = |row: &SqliteRow| {
            let (header, body) = leaf::decode(row.try_get("body")?).map_err(corrupt("closing"))?;
            match body {
                Body::PeriodClosed(closed) => Closing::of(&header, &closed).map_err(corrupt("closing")),
                _ => Err(corrupt("closing")("not a period's closing")),
            }
        };
        rows.iter().map(read).collect()
    }

    /// The newest terms of each client and currency, or of one client.
    pub async fn newest_terms(&self, client: &str) -> Result<Vec<(String, Terms)>, StoreError> {
        let rows = sqlx::query(
            "SELECT client, leaf, body FROM terms AS t WHERE (client = $1 OR $1 = '') AND version =
             (SELECT MAX(version) FROM terms WHERE client = t.client AND currency = t.currency) ORDER BY client, currency",
        )
        .bind(client)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((row.try_get("client")?, terms_of(row)?))).collect()
    }

    /// One version of a client's terms.
    pub async fn terms(&self, client: &str, currency: &str, version: u64) -> Result<Option<Terms>, StoreError> {
        let query = sqlx::query("SELECT leaf, body FROM terms WHERE client = $1 AND currency = $2 AND version = $3");
        let query = query.bind(client).bind(currency).bind(to_i64("version", version)?);
        query.fetch_optional(&self.pool).await?.as_ref().map(terms_of).transpose()
    }
}

async fn move_cursor(tx: &mut Transaction<'_, Sqlite>, log_id: &str, wanted: u64, believed: &Believed) -> Result<(), StoreError> {
    let query = sqlx::query_scalar("SELECT next_index FROM cursor WHERE log_id = $1").bind(log_id);
    let found = to_u64("next_index", query.fetch_optional(&mut **tx).await?.unwrap_or(0))?;
    if found != wanted {
        return Err(StoreError::CursorMoved { wanted, found });
    }
    sqlx::query(
        "INSERT INTO cursor (log_id, next_index, frontier, root) VALUES ($1, $2, $3, $4) ON CONFLICT (log_id)
         DO UPDATE SET next_index = excluded.next_index, frontier = excluded.frontier, root = excluded.root",
    )
    .bind(log_id)
    .bind(to_i64("next_index", believed.frontier.size())?)
    .bind(serde_json::to_string(&believed.frontier).map_err(corrupt("frontier"))?)
    .bind(&believed.root[..])
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn insert_terms(tx: &mut Transaction<'_, Sqlite>, header: &leaf::Leaf, terms: &leaf::Terms) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO terms (client, currency, version, leaf, body) VALUES ($1, $2, $3, $4, $5)")
        .bind(&header.client)
        .bind(&terms.currency)
        .bind(to_i64("version", terms.version)?)
        .bind(to_i64("leaf", header.index)?)
        .bind(terms.encode_to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

async fn insert_closing(tx: &mut Transaction<'_, Sqlite>, header: &leaf::Leaf, closed: &leaf::PeriodClosed) -> Result<(), StoreError> {
    let body = leaf::Leaf { body: Some(Body::PeriodClosed(closed.clone())), ..header.clone() };
    sqlx::query("INSERT INTO closing (client, currency, month, leaf, client_seq, body) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(&header.client)
        .bind(&closed.currency)
        .bind(&closed.month)
        .bind(to_i64("leaf", header.index)?)
        .bind(to_i64("client_seq", header.client_seq)?)
        .bind(body.encode_to_vec())
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// The log has an invoice's leaf: whether its answer came or not, the invoice is recorded.
async fn mark_recorded(tx: &mut Transaction<'_, Sqlite>, header: &leaf::Leaf, invoice: &leaf::Invoice) -> Result<(), StoreError> {
    sqlx::query("UPDATE invoice SET leaf = $1 WHERE number = $2 AND client = $3 AND leaf IS NULL")
        .bind(to_i64("leaf", header.index)?)
        .bind(&invoice.number)
        .bind(&header.client)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// A record's columns that depend on what happened.
struct Columns<'a> {
    kind: i64,
    campaign: &'a str,
    customer: &'a [u8],
    amount: i64,
    count: i64,
}

impl<'a> From<&'a Entry> for Columns<'a> {
    fn from(entry: &'a Entry) -> Self {
        match entry {
            Entry::Spend { campaign, nanos, impressions } => {
                Self { kind: 1, campaign, customer: &[], amount: *nanos, count: i64::from(*impressions) }
            }
            Entry::Acquired { campaign, customer, predicted_micros } => {
                Self { kind: 2, campaign, customer: &customer.0, amount: *predicted_micros, count: 0 }
            }
            Entry::Value { customer, micros } => Self { kind: 3, campaign: "", customer: &customer.0, amount: *micros, count: 0 },
        }
    }
}

async fn insert_records(tx: &mut Transaction<'_, Sqlite>, rows: &[Record]) -> Result<(), StoreError> {
    let mut query =
        QueryBuilder::new("INSERT INTO record (leaf, client, client_seq, currency, at_micros, kind, campaign, customer, amount, count) ");
    query.push_values(rows, |mut row, record| {
        let columns = Columns::from(&record.entry);
        // Indices below 2^63: checked when the cursor and the heads moved.
        row.push_bind(record.leaf as i64)
            .push_bind(&record.client)
            .push_bind(record.client_seq as i64)
            .push_bind(&record.currency)
            .push_bind(record.at.0)
            .push_bind(columns.kind)
            .push_bind(columns.campaign)
            .push_bind(columns.customer)
            .push_bind(columns.amount)
            .push_bind(columns.count);
    });
    query.build().execute(&mut **tx).await?;
    Ok(())
}

fn record_of(row: &SqliteRow) -> Result<Record, StoreError> {
    let customer = || -> Result<CustomerKey, StoreError> {
        CustomerKey::from_bytes(row.try_get("customer")?).ok_or_else(|| corrupt("customer")("not 16 bytes"))
    };
    let (campaign, amount) = (row.try_get("campaign")?, row.try_get("amount")?);
    let entry = match row.try_get::<i64, _>("kind")? {
        1 => {
            let impressions = u32::try_from(row.try_get::<i64, _>("count")?).map_err(corrupt("count"))?;
            Entry::Spend { campaign, nanos: amount, impressions }
        }
        2 => Entry::Acquired { campaign, customer: customer()?, predicted_micros: amount },
        3 => Entry::Value { customer: customer()?, micros: amount },
        kind => return Err(corrupt("record")(format!("kind {kind} is not known"))),
    };
    Ok(Record {
        leaf: to_u64("leaf", row.try_get("leaf")?)?,
        client: row.try_get("client")?,
        client_seq: to_u64("client_seq", row.try_get("client_seq")?)?,
        currency: row.try_get("currency")?,
        at: UnixMicros(row.try_get("at_micros")?),
        entry,
    })
}

fn terms_of(row: &SqliteRow) -> Result<Terms, StoreError> {
    let body = leaf::Terms::decode(row.try_get::<&[u8], _>("body")?).map_err(corrupt("terms"))?;
    Terms::of(to_u64("leaf", row.try_get("leaf")?)?, &body).map_err(corrupt("terms"))
}
