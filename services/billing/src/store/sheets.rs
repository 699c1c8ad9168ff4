//! A client's books in sheets, from all of its records: read for each drafting of a client with too many leaves for a whole bundle,
//! and again for each of its bundles.

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;

use super::engine::{Row, sql};
use super::hours::Book;
use super::{Store, StoreError, corrupt, to_i64, to_u64};
use crate::domain::accounting::Period;
use crate::domain::bundle::sample::sheet_size;
use crate::domain::bundle::sheets::{Sheets, Writer};
use crate::domain::record::{Entry, Record};

/// Records that are read in one statement.
const RECORDS_STEP: i64 = 16_384;

impl Store {
    /// The sheets of the books as they stand at the closing of the last of `periods`, which are all of a client and currency up to
    /// that one, in the log's order.
    ///
    /// # Errors
    /// The engine's.
    pub async fn sheets(&self, client: &str, periods: &[Period]) -> Result<Sheets, StoreError> {
        let mut writer = Writer::new(periods);
        let Some(last) = periods.last() else { return Ok(writer.finish()) };
        let book = Book { client, currency: &last.closing.currency };
        let last_seq = to_i64("last_seq", last.closing.last_seq)?;
        let size = sheet_size(self.records(book, last_seq).await?) as usize;
        self.spend_sheets(book, last_seq, size, &mut writer).await?;
        self.customer_sheets(book, last_seq, size, &mut writer).await?;
        Ok(writer.finish())
    }

    async fn records(&self, book: Book<'_>, last_seq: i64) -> Result<u64, StoreError> {
        // Each condition is that of an index.
        let query = sql("SELECT (SELECT COUNT(*) FROM record WHERE client = $1 AND currency = $2 AND kind = 1 AND client_seq <= $3)
             + (SELECT COUNT(*) FROM record WHERE client = $1 AND currency = $2 AND kind <> 1 AND client_seq <= $3) AS records");
        let row = query.bind(book.client).bind(book.currency).bind(last_seq).row(&self.pool).await?;
        row.map_or(Ok(0), |row| to_u64("records", row.get("records")?))
    }

    /// Spend up to a sequence.
    async fn spend_sheets(&self, book: Book<'_>, last_seq: i64, size: usize, writer: &mut Writer<'_>) -> Result<(), StoreError> {
        let (mut sheet, mut after) = (Vec::with_capacity(size), 0_i64);
        loop {
            let rows = sql("SELECT leaf, client_seq, at_micros, kind, campaign, customer, amount, count FROM record
                 WHERE client = $1 AND currency = $2 AND kind = 1 AND client_seq > $4 AND client_seq <= $3
                 ORDER BY client_seq LIMIT $5")
            .bind(book.client)
            .bind(book.currency)
            .bind(last_seq)
            .bind(after)
            .bind(RECORDS_STEP)
            .rows(&self.pool)
            .await?;
            for row in &rows {
                after = row.get("client_seq")?;
                sheet.push(record(book, row)?);
                if sheet.len() == size {
                    writer.add(&std::mem::take(&mut sheet));
                }
            }
            if (rows.len() as i64) < RECORDS_STEP {
                writer.add(&sheet);
                return Ok(());
            }
        }
    }

    /// What concerns customers up to a sequence.
    async fn customer_sheets(&self, book: Book<'_>, last_seq: i64, size: usize, writer: &mut Writer<'_>) -> Result<(), StoreError> {
        let (mut sheet, mut after): (Vec<Record>, _) = (Vec::with_capacity(size), (Vec::new(), 0_i64, 0_i64));
        loop {
            let rows = sql("SELECT leaf, client_seq, at_micros, kind, campaign, customer, amount, count FROM record
                 WHERE client = $1 AND currency = $2 AND kind <> 1 AND (customer, kind, client_seq) > ($4, $5, $6) AND client_seq <= $3
                 ORDER BY customer, kind, client_seq LIMIT $7")
            .bind(book.client)
            .bind(book.currency)
            .bind(last_seq)
            .bind(&after.0)
            .bind(after.1)
            .bind(after.2)
            .bind(RECORDS_STEP)
            .rows(&self.pool)
            .await?;
            for row in &rows {
                let customer: &[u8] = row.get("customer")?;
                if sheet.len() >= size && after.0 != customer {
                    writer.add(&std::mem::take(&mut sheet));
                }
                after = (customer.to_vec(), row.get("kind")?, row.get("client_seq")?);
                sheet.push(record(book, row)?);
            }
            if (rows.len() as i64) < RECORDS_STEP {
                writer.add(&sheet);
                return Ok(());
            }
        }
    }
}

/// What the fold wrote as a row.
fn record(book: Book<'_>, row: &Row) -> Result<Record, StoreError> {
    let (campaign, amount) = (row.get("campaign")?, row.get("amount")?);
    let customer = || CustomerKey::from_bytes(row.get("customer")?).ok_or_else(|| corrupt("customer")("is not 16 bytes"));
    let entry = match row.get::<i64>("kind")? {
        1 => Entry::Spend { campaign, nanos: amount, impressions: row.get::<i64>("count")?.try_into().map_err(corrupt("count"))? },
        2 => Entry::Acquired { campaign, customer: customer()?, predicted_micros: amount },
        _ => Entry::Value { customer: customer()?, micros: amount },
    };
    Ok(Record {
        leaf: to_u64("leaf", row.get("leaf")?)?,
        client: book.client.to_owned(),
        client_seq: to_u64("client_seq", row.get("client_seq")?)?,
        currency: book.currency.to_owned(),
        at: UnixMicros(row.get("at_micros")?),
        entry,
    })
}
