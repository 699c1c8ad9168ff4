//! Proving invoices: with every leaf of the client or, where those are too many for a file, by a sample.

use std::collections::BTreeSet;

use kiki::leaf::{self, leaf::Body};
use kiki::pb::syncshield::v1::{GetCheckpointResponse, TailEntry};
use tokio::task::spawn_blocking;

use super::Billing;
use crate::bundle::{self, BUNDLE_BYTES_MAX, encode_sheets, sheets_sha256};
use crate::domain::accounting::{Period, calendar};
use crate::domain::bundle::limits::TooLarge;
use crate::domain::bundle::sheets::Sheets;
use crate::domain::bundle::{Bundle, Sample, limits, sample, verify};
use crate::domain::invoice::Invoice;
use crate::domain::record;
use crate::error::Error;
use crate::store::InvoiceRow;

/// Sheets that were drawn, and up to what `client_seq` their records count.
struct Drawn {
    sample: Sample,
    currency: String,
    last_seq: u64,
    sheets: BTreeSet<usize>,
}

impl Billing {
    /// The digest that a document of the last of `periods` bears where the client has more leaves than a bundle holds.
    ///
    /// # Errors
    /// Records of which a sample does not fit into a bundle either, among others.
    pub(super) async fn sheets_sha256(&self, client: &str, periods: &[Period]) -> Result<Option<String>, Error> {
        let (leaves, bytes) = self.store.extent(client).await?;
        let size = self.progress.borrow().folded;
        if limits::is_whole(leaves, bytes, size, self.whole_bundle_max) {
            return Ok(None);
        }
        let _one_of_few = self.bundles.acquire().await.map_err(|_| Error::Stopped)?;
        let (sheets, sha256, encoded) = self.sheets(client, periods).await?;
        limits::check_sample(&sheets, encoded as u64, (leaves, bytes), size)?;
        Ok(Some(hex::encode(sha256)))
    }

    /// A client's sheets, their digest, and how long they are in bytes.
    async fn sheets(&self, client: &str, periods: &[Period]) -> Result<(Sheets, kiki::tlog::Hash, usize), Error> {
        let sheets = self.store.sheets(client, periods).await?;
        let encoded = spawn_blocking(move || {
            let encoded = encode_sheets(&sheets);
            (sheets, sheets_sha256(&encoded), encoded.len())
        });
        encoded.await.map_err(|_| Error::Stopped)
    }

    /// What would stand in the way of the invoice's proof is found before its number is taken: the
    /// log up to now is folded, with the numbers and closings that it holds invoices of.
    pub(super) async fn provable(&self, row: &InvoiceRow, draft: &Invoice) -> Result<(), Error> {
        let signed = self.caught_up().await?;
        if draft.completeness.sheets_sha256.is_none() {
            let (leaves, bytes) = self.store.extent(&row.client).await?;
            if let Err(too_large) = limits::check(leaves, bytes, signed, row.document.len() as u64) {
                // It was drawn up when the client had fewer. No figure changes.
                let sheets_sha256 = self.sheets_sha256(&row.client, &self.periods_of(row).await?).await?;
                self.store.redraft(&row.draft_id, &by_sample(draft.clone(), sheets_sha256.ok_or(too_large)?)).await?;
            }
        }
        self.evidenced(row, draft).await
    }

    /// The evidence of each baseline of a document is there and bears it.
    pub(super) async fn evidenced(&self, row: &InvoiceRow, document: &Invoice) -> Result<(), Error> {
        for terms in self.store.terms(&row.client, &row.currency).await? {
            if document.parts.iter().any(|part| part.terms.version == terms.version) {
                self.evident(&row.client, &terms).await?;
            }
        }
        Ok(())
    }

    /// An invoice's proof bundle; where it is a sample, drawn with a challenge. It is checked before it is handed out.
    pub async fn bundle(&self, row: InvoiceRow, challenge: Vec<u8>) -> Result<Vec<u8>, Error> {
        if row.number.is_none() {
            return Err(Error::Draft { id: row.draft_id });
        }
        let _one_of_few = self.bundles.acquire().await.map_err(|_| Error::Stopped)?;
        let row = self.record(row).await?;
        let last = row.leaf.ok_or(Error::Answer("an invoice without a leaf"))?;
        let GetCheckpointResponse { checkpoint, size, rotations } = self.shield.witnessed(last + 1).await?;
        let document = row.invoice()?;
        let drawn = self.drawn(&row, &document, challenge).await?;
        let keep = |entry: &TailEntry| drawn.as_ref().is_none_or(|drawn| drawn.shows(entry));
        let mut leaves = self.shield.client_leaves(&row.client, last, BUNDLE_BYTES_MAX, drawn.is_some(), keep).await?;
        for evidence in document.parts.iter().filter_map(|part| part.terms.evidence_leaf) {
            if let Err(at) = leaves.binary_search_by_key(&evidence, |leaf| leaf.index) {
                leaves.insert(at, self.shield.leaf(evidence).await?);
            }
        }
        let proof = self.shield.proof(leaves.iter().map(|leaf| leaf.index).collect(), size).await?;
        let sample = drawn.map(|drawn| drawn.sample);
        let bundle = Bundle { invoice_json: row.document, checkpoint, rotations, leaves, proof, sample };
        let key = self.key.clone();
        let made = spawn_blocking(move || match verify(&bundle, &key) {
            Ok(_) => within(bundle::encode(bundle)),
            Err(findings) => Err(Error::Fault(findings.first().map(ToString::to_string).unwrap_or_default())),
        });
        made.await.map_err(|_| Error::Stopped)?
    }

    /// The periods of a document's client and currency up to that with which it was drawn up.
    pub(super) async fn periods_of(&self, row: &InvoiceRow) -> Result<Vec<Period>, Error> {
        let mut closings = self.store.closings(&row.client, &row.currency).await?;
        closings.retain(|closing| closing.client_seq <= row.period_closed_seq);
        Ok(calendar(&closings, &self.store.terms(&row.client, &row.currency).await?)?)
    }

    /// The sample of an invoice that is proven by one.
    async fn drawn(&self, row: &InvoiceRow, document: &Invoice, challenge: Vec<u8>) -> Result<Option<Drawn>, Error> {
        let Some(stated) = &document.completeness.sheets_sha256 else { return Ok(None) };
        let periods = self.periods_of(row).await?;
        let (sheets, sha256, _) = self.sheets(&row.client, &periods).await?;
        if hex::encode(sha256) != *stated {
            return Err(Error::Fault(format!("the records give other sheets than {} was drawn up from", document.invoice_id)));
        }
        let last_seq = periods.last().map_or(0, |period| period.closing.last_seq);
        let drawn = sample::drawn(&sheets, &row.document, &challenge);
        Ok(Some(Drawn { sample: Sample { sheets, sha256, challenge }, currency: row.currency.clone(), last_seq, sheets: drawn }))
    }
}

/// A document of which the lines' leaves are no longer listed, because its bundle does not have them all.
fn by_sample(mut document: Invoice, sheets_sha256: String) -> Invoice {
    document.line_items.iter_mut().for_each(|line| line.leaves.clear());
    document.completeness.sheets_sha256 = Some(sheets_sha256);
    document
}

/// A file that can be read again.
fn within(bundle: Vec<u8>) -> Result<Vec<u8>, Error> {
    let (found, max) = (bundle.len() as u64, BUNDLE_BYTES_MAX as u64);
    if found > max { Err(TooLarge { what: "bytes of the bundle", found, max }.into()) } else { Ok(bundle) }
}

impl Drawn {
    /// Whether a bundle shows a leaf: what is no record and invoices rest on, and the records of the sheets that were drawn.
    fn shows(&self, entry: &TailEntry) -> bool {
        // What cannot be read is shown: the check of the bundle names it.
        let Ok((header, body)) = leaf::decode(&entry.leaf) else { return true };
        match record::of(&header, &body) {
            Ok(Some(record)) => {
                let counts = record.currency == self.currency && record.client_seq <= self.last_seq;
                counts && self.sample.sheets.of(&record).is_some_and(|at| self.sheets.contains(&at))
            }
            Ok(None) => matches!(body, Body::Terms(_) | Body::PeriodClosed(_) | Body::Invoice(_) | Body::InvoiceEvent(_)),
            Err(_) => true,
        }
    }
}
