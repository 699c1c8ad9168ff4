//! The fold of the log: what was believed goes in, what an invoice is computed from comes out.

use std::collections::BTreeMap;

use kiki::leaf::{self, leaf::Body};
use kiki::tlog::{Frontier, Hash};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::engine::{Column, Row, Tx, insert_many, sql};
use super::hours;
use super::running::Running;
use super::turn::{self, Turn};
use super::{Store, StoreError, corrupt, course, to_i64, to_u64};
use crate::domain::accounting::Closing;
use crate::domain::follow::{Believed, Unreadable};
use crate::domain::invoice::ordinal;
use crate::domain::record::{self, Entry, Record};
use crate::domain::terms::Terms;

/// How far the log was believed.
#[derive(Debug, Clone)]
pub struct Cursor {
    /// The tree's right edge.
    pub frontier: Frontier,
    /// The last sequence of each client.
    pub heads: BTreeMap<String, u64>,
}

impl Turn {
    /// Folds what a checkpoint covers and moves the cursor behind it, in one transaction.
    ///
    /// # Errors
    /// A leaf that cannot be folded, a cursor that is elsewhere, or the engine's. Then nothing is folded.
    pub async fn fold(&mut self, log_id: &str, believed: &Believed) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let end = believed.frontier.size();
        move_cursor(&mut tx, log_id, end - believed.leaves.len() as u64, believed).await?;
        let (mut records, mut running) = (Vec::new(), Running::default());
        for leaf in &believed.leaves {
            match &leaf.body {
                None => {}
                Some(Body::Terms(terms)) => insert_terms(&mut tx, &leaf.header, terms).await?,
                Some(Body::PeriodClosed(closed)) => {
                    running.close(&mut tx, &leaf.header, closed).await?;
                    insert_closing(&mut tx, &leaf.header, closed).await?;
                }
                Some(Body::Invoice(invoice)) => {
                    take_invoice(&mut tx, &leaf.header, invoice).await?;
                    course::issue(&mut tx, &leaf.header, invoice).await?;
                }
                Some(Body::InvoiceEvent(event)) => course::happen(&mut tx, &leaf.header, event).await?,
                Some(body) => {
                    if let Some(record) = record::of(&leaf.header, body).map_err(|e| unreadable(&leaf.header, e))? {
                        records.push((running.take(&mut tx, &record).await?, record));
                    }
                }
            }
        }
        insert_records(&mut tx, &records).await?;
        hours::add(&mut tx, &records).await?;
        running.keep(&mut tx).await?;
        move_heads(&mut tx, believed).await?;
        turn::tell(&mut tx).await?;
        tx.commit().await
    }
}

impl Store {
    /// Where to go on in a log: at its beginning where it was never followed. Of one moment only for who has the turn.
    pub async fn cursor(&self, log_id: &str) -> Result<Cursor, StoreError> {
        let row = sql("SELECT frontier FROM cursor WHERE log_id = $1").bind(log_id).row(&self.pool).await?;
        let frontier = match row {
            Some(row) => serde_json::from_str(row.get("frontier")?).map_err(corrupt("frontier"))?,
            None => Frontier::new(),
        };
        let rows = sql("SELECT client, client_seq FROM client_head").rows(&self.pool).await?;
        let head = |row: &Row| Ok((row.get("client")?, to_u64("client_seq", row.get("client_seq")?)?));
        let heads = rows.iter().map(head).collect::<Result<_, StoreError>>()?;
        Ok(Cursor { frontier, heads })
    }

    /// How many leaves are folded, by whatever process.
    pub async fn folded(&self, log_id: &str) -> Result<u64, StoreError> {
        let row = sql("SELECT next_index FROM cursor WHERE log_id = $1").bind(log_id).row(&self.pool).await?;
        row.map_or(Ok(0), |row| to_u64("next_index", row.get("next_index")?))
    }

    /// Size and root of the signed checkpoint by which the log was last believed.
    pub async fn signed(&self, log_id: &str) -> Result<Option<(u64, Hash)>, StoreError> {
        let row = sql("SELECT signed_size, signed_root FROM cursor WHERE log_id = $1").bind(log_id).row(&self.pool).await?;
        let Some(row) = row else { return Ok(None) };
        let root: &[u8] = row.get("signed_root")?;
        let root = root.try_into().map_err(corrupt("root"))?;
        Ok(Some((to_u64("signed_size", row.get("signed_size")?)?, root)))
    }

    /// How many leaves a client has, and their bytes.
    pub async fn extent(&self, client: &str) -> Result<(u64, u64), StoreError> {
        let row = sql("SELECT client_seq, bytes FROM client_head WHERE client = $1").bind(client).row(&self.pool).await?;
        let Some(row) = row else { return Ok((0, 0)) };
        Ok((to_u64("client_seq", row.get("client_seq")?)?, to_u64("bytes", row.get("bytes")?)?))
    }

    /// The closings of a client in a currency, in the order they were made.
    pub async fn closings(&self, client: &str, currency: &str) -> Result<Vec<Closing>, StoreError> {
        let rows = sql("SELECT body FROM closing WHERE client = $1 AND currency = $2 ORDER BY client_seq")
            .bind(client)
            .bind(currency)
            .rows(&self.pool)
            .await?;
        let read = |row: &Row| {
            let (header, body) = leaf::decode(row.get("body")?).map_err(corrupt("closing"))?;
            match body {
                Body::PeriodClosed(closed) => Closing::of(&header, &closed).map_err(corrupt("closing")),
                _ => Err(corrupt("closing")("not a period's closing")),
            }
        };
        rows.iter().map(read).collect()
    }

    /// The newest terms of clients by currency, or of one client: at most `limit`, behind a client and currency.
    pub async fn newest_terms(&self, client: &str, after: (&str, &str), limit: u32) -> Result<Vec<(String, Terms)>, StoreError> {
        let rows = sql("SELECT client, leaf, body FROM terms AS t WHERE (client = $1 OR $1 = '') AND (client, currency) > ($2, $3)
             AND version = (SELECT MAX(version) FROM terms WHERE client = t.client AND currency = t.currency)
             ORDER BY client, currency LIMIT $4")
        .bind(client)
        .bind(after.0)
        .bind(after.1)
        .bind(i64::from(limit))
        .rows(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((row.get("client")?, terms_of(row)?))).collect()
    }

    /// How many clients by currency, or currencies of one client, have terms behind a client and currency.
    pub async fn clients_behind(&self, client: &str, after: (&str, &str)) -> Result<u64, StoreError> {
        let query = sql("SELECT COUNT(*) AS clients FROM
             (SELECT DISTINCT client, currency FROM terms WHERE (client = $1 OR $1 = '') AND (client, currency) > ($2, $3)) AS t");
        let row = query.bind(client).bind(after.0).bind(after.1).row(&self.pool).await?;
        row.map_or(Ok(0), |row| to_u64("clients", row.get("clients")?))
    }

    /// All versions of a client's terms in a currency, the oldest first.
    pub async fn terms(&self, client: &str, currency: &str) -> Result<Vec<Terms>, StoreError> {
        let query = sql("SELECT leaf, body FROM terms WHERE client = $1 AND currency = $2 ORDER BY version");
        query.bind(client).bind(currency).rows(&self.pool).await?.iter().map(terms_of).collect()
    }
}

async fn move_cursor(tx: &mut Tx<'_>, log_id: &str, wanted: u64, believed: &Believed) -> Result<(), StoreError> {
    let row = sql("SELECT next_index FROM cursor WHERE log_id = $1").bind(log_id).row(&mut *tx).await?;
    let found = row.map_or(Ok(0), |row| to_u64("next_index", row.get("next_index")?))?;
    if found != wanted {
        return Err(StoreError::CursorMoved { wanted, found });
    }
    let frontier = serde_json::to_string(&believed.frontier).map_err(corrupt("frontier"))?;
    sql("INSERT INTO cursor (log_id, next_index, frontier, signed_size, signed_root) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (log_id) DO UPDATE SET next_index = excluded.next_index, frontier = excluded.frontier,
         signed_size = excluded.signed_size, signed_root = excluded.signed_root")
    .bind(log_id)
    .bind(to_i64("next_index", believed.frontier.size())?)
    .bind(&frontier)
    .bind(to_i64("signed_size", believed.signed.0)?)
    .bind(&believed.signed.1[..])
    .execute(tx)
    .await?;
    Ok(())
}

/// The last sequence of each client that had leaves, and how many bytes they were.
async fn move_heads(tx: &mut Tx<'_>, believed: &Believed) -> Result<(), StoreError> {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for leaf in &believed.leaves {
        *bytes.entry(&leaf.header.client).or_default() += leaf.length as u64;
    }
    let bytes = |client: &String| to_i64("bytes", bytes.get(client.as_str()).copied().unwrap_or(0));
    let columns = [
        ("client", Column::Texts(believed.heads.keys().map(String::as_str).collect())),
        ("client_seq", Column::Integers(believed.heads.values().map(|seq| to_i64("client_seq", *seq)).collect::<Result<_, _>>()?)),
        ("bytes", Column::Integers(believed.heads.keys().map(bytes).collect::<Result<_, _>>()?)),
    ];
    let add = "ON CONFLICT (client) DO UPDATE SET client_seq = excluded.client_seq, bytes = client_head.bytes + excluded.bytes";
    insert_many(tx, "client_head", &columns, add).await
}

pub(super) fn unreadable(header: &leaf::Leaf, problem: impl std::fmt::Display) -> StoreError {
    Unreadable { leaf: header.index, client: header.client.clone(), problem: problem.to_string() }.into()
}

/// A second document of a key that has one is the leaf's fault: the log's writer never makes one.
pub(super) fn taken(header: &leaf::Leaf) -> impl Fn(StoreError) -> StoreError {
    |e| match &e {
        StoreError::Sql(sqlx::Error::Database(database)) if database.is_unique_violation() => unreadable(header, e),
        _ => e,
    }
}

async fn insert_terms(tx: &mut Tx<'_>, header: &leaf::Leaf, terms: &leaf::Terms) -> Result<(), StoreError> {
    Terms::of(header.index, terms).map_err(|e| unreadable(header, e))?;
    sql("INSERT INTO terms (client, currency, version, leaf, body) VALUES ($1, $2, $3, $4, $5)")
        .bind(&header.client)
        .bind(&terms.currency)
        .bind(to_i64("version", terms.version)?)
        .bind(to_i64("leaf", header.index)?)
        .bind(&terms.encode_to_vec())
        .execute(tx)
        .await
        .map_err(taken(header))?;
    Ok(())
}

async fn insert_closing(tx: &mut Tx<'_>, header: &leaf::Leaf, closed: &leaf::PeriodClosed) -> Result<(), StoreError> {
    Closing::of(header, closed).map_err(|e| unreadable(header, e))?;
    let body = leaf::Leaf { body: Some(Body::PeriodClosed(closed.clone())), ..header.clone() };
    sql("INSERT INTO closing (client, currency, month, leaf, client_seq, body) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(&header.client)
        .bind(&closed.currency)
        .bind(&closed.month)
        .bind(to_i64("leaf", header.index)?)
        .bind(to_i64("client_seq", header.client_seq)?)
        .bind(&body.encode_to_vec())
        .execute(tx)
        .await
        .map_err(taken(header))?;
    Ok(())
}

/// The log has an invoice's leaf. Where it is of this ledger the invoice is recorded, whether the
/// answer came or not; where not, its number and its closing are taken all the same.
async fn take_invoice(tx: &mut Tx<'_>, header: &leaf::Leaf, invoice: &leaf::Invoice) -> Result<(), StoreError> {
    let query = sql("SELECT document FROM invoice WHERE number = $1 AND client = $2");
    let row = query.bind(&invoice.number).bind(&header.client).row(&mut *tx).await?;
    let document: Option<Vec<u8>> = row.map(|row| row.get("document")).transpose()?;
    if document.is_some_and(|document| Sha256::digest(&document)[..] == invoice.document_sha256[..]) {
        sql("UPDATE invoice SET leaf = $1 WHERE number = $2 AND leaf IS NULL")
            .bind(to_i64("leaf", header.index)?)
            .bind(&invoice.number)
            .execute(tx)
            .await?;
        return Ok(());
    }
    sql("INSERT INTO invoiced (leaf, number, client, period_closed_seq, corrects_seq) VALUES ($1, $2, $3, $4, $5)")
        .bind(to_i64("leaf", header.index)?)
        .bind(&invoice.number)
        .bind(&header.client)
        .bind(to_i64("period_closed_seq", invoice.period_closed_seq)?)
        .bind(to_i64("corrects_seq", invoice.corrects_seq)?)
        .execute(&mut *tx)
        .await?;
    if let Some((stem, ordinal)) = ordinal(&invoice.number) {
        sql("INSERT INTO number_given (stem, last) VALUES ($1, $2) ON CONFLICT (stem)
             DO UPDATE SET last = excluded.last WHERE excluded.last > number_given.last")
        .bind(stem)
        .bind(to_i64("number", ordinal)?)
        .execute(tx)
        .await?;
    }
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

async fn insert_records(tx: &mut Tx<'_>, records: &[(i64, Record)]) -> Result<(), StoreError> {
    let records = || records.iter().map(|(_, record)| record);
    let entries: Vec<_> = records().map(|record| Columns::from(&record.entry)).collect();
    let integers = |of: fn(&Record) -> i64| Column::Integers(records().map(of).collect());
    let columns = [
        // Indices below 2^63: checked when the cursor and the heads moved.
        ("leaf", integers(|record| record.leaf as i64)),
        ("client", Column::Texts(records().map(|record| record.client.as_str()).collect())),
        ("client_seq", integers(|record| record.client_seq as i64)),
        ("currency", Column::Texts(records().map(|record| record.currency.as_str()).collect())),
        ("at_micros", integers(|record| record.at.0)),
        ("kind", Column::Integers(entries.iter().map(|entry| entry.kind).collect())),
        ("campaign", Column::Texts(entries.iter().map(|entry| entry.campaign).collect())),
        ("customer", Column::Bytes(entries.iter().map(|entry| entry.customer).collect())),
        ("amount", Column::Integers(entries.iter().map(|entry| entry.amount).collect())),
        ("count", Column::Integers(entries.iter().map(|entry| entry.count).collect())),
    ];
    insert_many(tx, "record", &columns, "").await
}

fn terms_of(row: &Row) -> Result<Terms, StoreError> {
    let body = leaf::Terms::decode(row.get::<&[u8]>("body")?).map_err(corrupt("terms"))?;
    Terms::of(to_u64("leaf", row.get("leaf")?)?, &body).map_err(corrupt("terms"))
}
