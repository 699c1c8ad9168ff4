//! Drafts and invoices.

use kiki::clock::UnixMicros;

use super::engine::{On, Row, sql};
use super::{Store, StoreError, corrupt, to_i64, to_u64};
use crate::domain::invoice::{Invoice, number};

/// A draft or an invoice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvoiceRow {
    /// The draft's id, which stays.
    pub draft_id: String,
    /// The number, once it is final.
    pub number: Option<String>,
    /// Client id.
    pub client: String,
    /// ISO 4217 code.
    pub currency: String,
    /// The month, `2026-01`.
    pub month: String,
    /// The document's bytes.
    pub document: Vec<u8>,
    /// `client_seq` of the closing that it is computed from.
    pub period_closed_seq: u64,
    /// Of a note, `client_seq` of the closing of the period that it corrects, or of the credit that was agreed; 0 of an invoice.
    pub corrects_seq: u64,
    /// When it became final.
    pub issued_at: Option<UnixMicros>,
    /// Index of its leaf, once the log has it.
    pub leaf: Option<u64>,
}

impl InvoiceRow {
    /// The document, read.
    pub fn invoice(&self) -> Result<Invoice, StoreError> {
        Invoice::from_json(&self.document).map_err(corrupt("invoice"))
    }
}

/// Which invoices to list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Only this client's; empty: all.
    pub client: String,
    /// Only this month's; empty: all.
    pub month: String,
    /// Only those behind this draft id.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl Store {
    /// Keeps a draft; where there is one of its id already, that one stays. Also says whether it is new.
    pub async fn keep_draft(&self, row: &InvoiceRow) -> Result<(InvoiceRow, bool), StoreError> {
        let mut tx = self.write().await?;
        let inserted = sql("INSERT INTO invoice (draft_id, client, currency, month, document, period_closed_seq, corrects_seq)
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (draft_id) DO NOTHING")
        .bind(&row.draft_id)
        .bind(&row.client)
        .bind(&row.currency)
        .bind(&row.month)
        .bind(&row.document)
        .bind(to_i64("period_closed_seq", row.period_closed_seq)?)
        .bind(to_i64("corrects_seq", row.corrects_seq)?)
        .execute(&mut tx)
        .await?;
        let kept = find(&mut tx, &row.draft_id).await?;
        tx.commit().await?;
        let kept = kept.ok_or_else(|| corrupt("invoice")("it is gone"))?;
        Ok((kept, inserted > 0))
    }

    /// Puts another document in a draft's place, as long as it is one.
    pub async fn redraft(&self, id: &str, document: &Invoice) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        let update = sql("UPDATE invoice SET document = $1 WHERE draft_id = $2 AND number IS NULL");
        update.bind(&document.to_json()).bind(id).execute(&mut tx).await?;
        tx.commit().await
    }

    /// Gives a draft the next number behind `stem` and the bytes that `finish` makes of it, at once: a
    /// number is taken only with the invoice that uses it. One that is final already stays as it is.
    /// Also says whether it is new.
    pub async fn finalize(
        &self,
        id: &str,
        stem: &str,
        issued_at: UnixMicros,
        finish: impl FnOnce(Invoice, String) -> Result<Invoice, StoreError>,
    ) -> Result<Option<(InvoiceRow, bool)>, StoreError> {
        let mut tx = self.write().await?;
        let Some(mut row) = find(&mut tx, id).await? else { return Ok(None) };
        if row.number.is_some() {
            return Ok(Some((row, false)));
        }
        if let Some((number, leaf)) = invoiced(&mut tx, &row.client, row.period_closed_seq, row.corrects_seq).await? {
            return Err(StoreError::Invoiced { number, leaf });
        }
        let last = sql("INSERT INTO number_given (stem, last) VALUES ($1, 1)
             ON CONFLICT (stem) DO UPDATE SET last = number_given.last + 1 RETURNING last")
        .bind(stem)
        .row(&mut tx)
        .await?;
        let last = last.ok_or_else(|| corrupt("number")("it is gone"))?;
        let number = number(stem, to_u64("number", last.get("last")?)?);
        row.document = finish(row.invoice()?, number.clone())?.to_json();
        row.number = Some(number);
        row.issued_at = Some(issued_at);
        sql("UPDATE invoice SET number = $1, document = $2, issued_micros = $3 WHERE draft_id = $4")
            .bind(&row.number)
            .bind(&row.document)
            .bind(issued_at.0)
            .bind(&row.draft_id)
            .execute(&mut tx)
            .await?;
        tx.commit().await?;
        Ok(Some((row, true)))
    }

    /// Number and leaf of the document of a closing that the log holds and this ledger did not issue:
    /// its invoice, or its note on the period whose closing stands at `corrects_seq`.
    pub async fn invoiced(&self, client: &str, period_closed_seq: u64, corrects_seq: u64) -> Result<Option<(String, u64)>, StoreError> {
        invoiced(&self.pool, client, period_closed_seq, corrects_seq).await
    }

    /// The invoice of a closing, draft or final.
    pub async fn invoice_of(&self, client: &str, period_closed_seq: u64) -> Result<Option<InvoiceRow>, StoreError> {
        let query = sql("SELECT draft_id, number, client, currency, month, document, period_closed_seq, corrects_seq, issued_micros, leaf
             FROM invoice WHERE client = $1 AND period_closed_seq = $2 AND corrects_seq = 0");
        let query = query.bind(client).bind(to_i64("period_closed_seq", period_closed_seq)?);
        query.row(&self.pool).await?.as_ref().map(row_of).transpose()
    }

    /// Notes that the log holds an invoice's leaf.
    pub async fn recorded(&self, draft_id: &str, leaf: u64) -> Result<(), StoreError> {
        let mut tx = self.write().await?;
        sql("UPDATE invoice SET leaf = $1 WHERE draft_id = $2 AND leaf IS NULL")
            .bind(to_i64("leaf", leaf)?)
            .bind(draft_id)
            .execute(&mut tx)
            .await?;
        tx.commit().await
    }

    /// By a draft's id or an invoice's number.
    pub async fn invoice(&self, id: &str) -> Result<Option<InvoiceRow>, StoreError> {
        find(&self.pool, id).await
    }

    /// Final invoices that the log does not hold yet, as far as is known here.
    pub async fn unrecorded(&self) -> Result<Vec<InvoiceRow>, StoreError> {
        let rows = sql("SELECT draft_id, number, client, currency, month, document, period_closed_seq, corrects_seq, issued_micros, leaf
             FROM invoice WHERE number IS NOT NULL AND leaf IS NULL ORDER BY number");
        rows.rows(&self.pool).await?.iter().map(row_of).collect()
    }

    /// A page of drafts and invoices in order of draft id.
    pub async fn list(&self, page: &Page) -> Result<Vec<InvoiceRow>, StoreError> {
        let rows = sql("SELECT draft_id, number, client, currency, month, document, period_closed_seq, corrects_seq, issued_micros, leaf
             FROM invoice WHERE (client = $1 OR $1 = '') AND (month = $2 OR $2 = '') AND draft_id > $3
             ORDER BY draft_id LIMIT $4")
        .bind(&page.client)
        .bind(&page.month)
        .bind(&page.after)
        .bind(i64::from(page.limit));
        rows.rows(&self.pool).await?.iter().map(row_of).collect()
    }
}

async fn invoiced<'t, 'c: 't>(
    on: impl Into<On<'t, 'c>>,
    client: &str,
    closed_seq: u64,
    corrects_seq: u64,
) -> Result<Option<(String, u64)>, StoreError> {
    let query =
        sql("SELECT number, leaf FROM invoiced WHERE client = $1 AND period_closed_seq = $2 AND corrects_seq = $3 ORDER BY leaf LIMIT 1");
    let query = query.bind(client).bind(to_i64("period_closed_seq", closed_seq)?).bind(to_i64("corrects_seq", corrects_seq)?);
    let Some(row) = query.row(on).await? else { return Ok(None) };
    Ok(Some((row.get("number")?, to_u64("leaf", row.get("leaf")?)?)))
}

async fn find<'t, 'c: 't>(on: impl Into<On<'t, 'c>>, id: &str) -> Result<Option<InvoiceRow>, StoreError> {
    let query = sql("SELECT draft_id, number, client, currency, month, document, period_closed_seq, corrects_seq, issued_micros, leaf
         FROM invoice WHERE draft_id = $1 OR number = $1");
    query.bind(id).row(on).await?.as_ref().map(row_of).transpose()
}

fn row_of(row: &Row) -> Result<InvoiceRow, StoreError> {
    Ok(InvoiceRow {
        draft_id: row.get("draft_id")?,
        number: row.get("number")?,
        client: row.get("client")?,
        currency: row.get("currency")?,
        month: row.get("month")?,
        document: row.get("document")?,
        period_closed_seq: to_u64("period_closed_seq", row.get("period_closed_seq")?)?,
        corrects_seq: to_u64("corrects_seq", row.get("corrects_seq")?)?,
        issued_at: row.get::<Option<i64>>("issued_micros")?.map(UnixMicros),
        leaf: row.get::<Option<i64>>("leaf")?.map(|leaf| to_u64("leaf", leaf)).transpose()?,
    })
}
