//! Drafting, finalising and proving invoices: the ledger, the log and the pure domain put together.

mod course;
mod credit;
mod draft;
mod proof;
mod reconcile;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use kiki::access::Accesses;
use kiki::caller::Caller;
use kiki::clock::{Clock, UnixMicros};
use kiki::leaf::{self, leaf::Body};
use kiki::status::{Reason, out_of_reach};
use kiki::tlog::note::VerifyingKey;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Semaphore, watch};

use crate::clients::{self, Issued, Shield};
use crate::domain::bundle::limits;
use crate::domain::document::export::Format;
use crate::domain::document::imports::Books;
use crate::domain::invoice::{Invoice, InvoiceError, Preceding, TermsPrinted, number_stem};
use crate::domain::period::{Month, due_date, issue_date};
use crate::domain::terms::Terms;
use crate::error::Error;
use crate::follower::Progress;
use crate::metrics::Metrics;
use crate::store::{InvoiceRow, Page, Store, StoreError};

pub use course::Shown;
pub(crate) use course::{counts, credits};
pub use draft::Drafted;
pub use reconcile::{Question, Reconciled};

/// How long a call waits for the fold: SyncShield signs at once when asked, and 65,536 leaves are folded in a second or two.
const FOLD_WAIT: Duration = Duration::from_secs(30);

/// Bundles made at once: each may hold its leaves three times over (read, decoded, encoded).
const BUNDLES_AT_ONCE: usize = 2;

/// Exports made at once: the pages of 10,000 lines take seconds of a core.
const EXPORTS_AT_ONCE: usize = 2;

/// Reconciliations made at once: each may hold some 150 MiB of figures, rows and differences.
const RECONCILIATIONS_AT_ONCE: usize = 2;

/// Billing.
#[derive(Debug, Clone)]
pub struct Billing {
    /// The ledger.
    pub store: Store,
    /// The log.
    pub shield: Shield,
    /// The log's key; its name is the log's id.
    pub key: VerifyingKey,
    /// What "now" is.
    pub clock: Clock,
    /// How far the fold has come.
    pub progress: watch::Receiver<Progress>,
    /// What is counted.
    pub metrics: Metrics,
    /// Where it is noted who sees what.
    pub accesses: Accesses,
    approval_required: bool,
    whole_bundle_max: u64,
    bundles: Arc<Semaphore>,
    exports: Arc<Semaphore>,
    reconciliations: Arc<Semaphore>,
}

impl Billing {
    /// From its parts.
    pub fn new(
        store: Store,
        shield: Shield,
        key: VerifyingKey,
        clock: Clock,
        progress: watch::Receiver<Progress>,
        metrics: Metrics,
        accesses: Accesses,
    ) -> Self {
        Self {
            store,
            shield,
            key,
            clock,
            progress,
            metrics,
            accesses,
            approval_required: false,
            whole_bundle_max: limits::WHOLE_MAX,
            bundles: Arc::new(Semaphore::new(BUNDLES_AT_ONCE)),
            exports: Arc::new(Semaphore::new(EXPORTS_AT_ONCE)),
            reconciliations: Arc::new(Semaphore::new(RECONCILIATIONS_AT_ONCE)),
        }
    }

    /// What a caller may see of it: a tenant's calls read under that client alone.
    pub(crate) fn seen_by(&self, caller: &Caller) -> Cow<'_, Self> {
        match caller {
            Caller::Tenant(own) => Cow::Owned(Self { store: self.store.seen_by(own.as_str()), ..self.clone() }),
            _ => Cow::Borrowed(self),
        }
    }

    /// Whether a draft becomes final only once it was approved; unless told otherwise it does not need to be.
    #[must_use]
    pub fn requiring_approval(mut self, required: bool) -> Self {
        self.approval_required = required;
        self
    }

    /// Of a client with more leaves than so many, bundles have a sample.
    #[must_use]
    pub fn with_whole_bundles_up_to(mut self, leaves: u64) -> Self {
        self.whole_bundle_max = leaves;
        self
    }

    /// The invoice of the closing at a `client_seq`; nothing where there was nothing to bill.
    async fn invoice_of(&self, client: &str, closed_seq: u64) -> Result<Option<Preceding>, Error> {
        if let Some((number, leaf)) = self.store.invoiced(client, closed_seq, 0).await? {
            return Ok(Some(Preceding { number, issued_at: self.issued_at(leaf).await? }));
        }
        let Some(row) = self.store.invoice_of(client, closed_seq).await? else { return Ok(None) };
        if row.number.is_none() {
            return Err(Error::NotFinal { id: row.draft_id });
        }
        // Its leaf stands before the note's, by which a note's bundle finds it.
        let row = self.record(row).await?;
        Ok(row.number.zip(row.issued_at).map(|(number, issued_at)| Preceding { number, issued_at }))
    }

    /// The same for a note, which only an invoice that is not void has.
    async fn standing_invoice(&self, note: &InvoiceRow, closed_seq: u64) -> Result<Option<Preceding>, Error> {
        match self.store.void_invoice(&note.client, closed_seq).await? {
            Some(number) if note.number.is_none() => Err(Error::Void { id: note.draft_id.clone(), number }),
            _ => self.invoice_of(&note.client, closed_seq).await,
        }
    }

    /// When the invoice was issued that a leaf is of: one that this ledger did not issue.
    async fn issued_at(&self, leaf: u64) -> Result<UnixMicros, Error> {
        let none = || Error::Answer("another leaf than an invoice's");
        match leaf::decode(&self.shield.leaf(leaf).await?.leaf).map_err(|_| none())?.1 {
            Body::Invoice(invoice) => UnixMicros::from_pb(invoice.issued_at.as_ref()).ok_or_else(none),
            _ => Err(none()),
        }
    }

    /// Gives a draft its number and fixes its bytes, then records it in the log. A repeat gives the
    /// same invoice, and records it if that had failed.
    pub async fn finalize(&self, id: &str) -> Result<InvoiceRow, Error> {
        self.sound()?;
        let row = self.invoice(id).await?;
        let draft = row.invoice()?;
        if draft.agreed().is_some() {
            // Who agreed to it is in the log.
            self.caught_up().await?;
            return self.issue(row, &draft, None).await;
        }
        self.approved(&row).await?;
        if row.number.is_none() {
            self.provable(&row, &draft).await?;
        }
        let corrected = match row.corrects_seq {
            0 => None,
            seq => self.standing_invoice(&row, seq).await?,
        };
        self.issue(row, &draft, corrected).await
    }

    /// The number, the final bytes and the leaf of a draft that may have them.
    async fn issue(&self, row: InvoiceRow, draft: &Invoice, corrected: Option<Preceding>) -> Result<InvoiceRow, Error> {
        let now = self.clock.now();
        let (terms, printed) = self.terms_of(&row.client, draft).await?;
        let year = Month::containing(now, &printed.zone)?.year();
        let stem = number_stem(terms.series(), year, draft.kind);
        let finish = |invoice: Invoice, number: String| finished(invoice, number, corrected, now);
        let finalized = self.store.finalize(&row.draft_id, &stem, now, finish).await?;
        let (row, fresh) = finalized.ok_or(Error::NotFound { id: row.draft_id })?;
        if fresh {
            self.metrics.finalized(&row.invoice()?);
        }
        self.record(row).await
    }

    /// Nothing is changed on a log that contradicts itself.
    fn sound(&self) -> Result<(), Error> {
        self.progress.borrow().fault.clone().map_or(Ok(()), |fault| Err(Error::Fault(fault)))
    }

    /// The terms that a document is dated and numbered by: those in force at its period's end.
    async fn terms_of<'d>(&self, client: &str, document: &'d Invoice) -> Result<(Terms, &'d TermsPrinted), Error> {
        let printed = document.terms().ok_or(InvoiceError::NoPart)?;
        let terms = self.store.terms(client, &document.currency).await?;
        let terms = terms.into_iter().find(|terms| terms.version == printed.version);
        Ok((terms.ok_or(Error::Answer("a document under terms that are not in the log"))?, printed))
    }

    /// Waits until all that is signed is folded; gives how much that is.
    async fn caught_up(&self) -> Result<u64, Error> {
        let (_, signed) = self.shield.checkpoint(0).await?;
        self.folded(signed).await?;
        Ok(signed)
    }

    /// The leaf that terms name as their evidence is one, the client may see it, and it bears the baseline.
    async fn evident(&self, client: &str, terms: &Terms) -> Result<(), Error> {
        let Some(index) = terms.evidence_leaf else { return Ok(()) };
        let refused = |problem: String| Error::Evidence { leaf: index, problem };
        let leaf = self.shield.leaf(index).await.map_err(|error| match error {
            Error::Shield(status) if Reason::PositionOutOfRange.is(&status) => refused("the log is shorter".to_owned()),
            Error::Answer(_) => refused("the log is shorter".to_owned()),
            error => error,
        })?;
        let (header, body) = leaf::decode(&leaf.leaf).map_err(|e| refused(e.to_string()))?;
        match body {
            Body::Evidence(evidence) if header.client == client || header.client == leaf::OPERATOR => {
                terms.check_baseline(&evidence).map_err(refused)
            }
            Body::Evidence(_) => Err(refused("it is another client's".to_owned())),
            _ => Err(refused("it is of another kind".to_owned())),
        }
    }

    /// Records an invoice in the log unless it is there.
    async fn record(&self, row: InvoiceRow) -> Result<InvoiceRow, Error> {
        let to_do = row.leaf.is_none();
        let recorded = self.record_row(row).await;
        if to_do {
            self.count_unrecorded().await?;
        }
        recorded
    }

    async fn record_row(&self, mut row: InvoiceRow) -> Result<InvoiceRow, Error> {
        if let (None, Some(number), Some(at)) = (row.leaf, &row.number, row.issued_at) {
            let document_sha256 = Sha256::digest(&row.document).into();
            let issued = Issued { document_sha256, at, period_closed_seq: row.period_closed_seq, corrects_seq: row.corrects_seq };
            let leaf = clients::invoice_leaf(number, &row.invoice()?, issued)?;
            let index = self.shield.record_invoice(&row.client, leaf).await?;
            self.store.recorded(&row.draft_id, index).await?;
            row.leaf = Some(index);
        }
        Ok(row)
    }

    /// Records what became final and did not reach the log before an end of the process.
    pub async fn record_rest(&self) -> Result<(), Error> {
        self.count_unrecorded().await?;
        for row in self.store.unrecorded().await? {
            let number = row.number.clone().unwrap_or_default();
            match self.record(row).await {
                Err(Error::Shield(status)) if !out_of_reach(&status) => {
                    tracing::error!(number, refused = status.message(), "the log does not take an invoice");
                }
                recorded => drop(recorded?),
            }
        }
        Ok(())
    }

    /// Shows how many final invoices the log does not hold.
    pub async fn count_unrecorded(&self) -> Result<(), Error> {
        let unrecorded = self.store.unrecorded().await?.len();
        self.metrics.unrecorded.set(i64::try_from(unrecorded).unwrap_or(i64::MAX));
        Ok(())
    }

    /// By a draft's id or an invoice's number.
    pub async fn invoice(&self, id: &str) -> Result<InvoiceRow, Error> {
        self.store.invoice(id).await?.ok_or_else(|| Error::NotFound { id: id.to_owned() })
    }

    /// An invoice in a format that others read.
    pub async fn export(&self, row: InvoiceRow, format: Format, books: Books) -> Result<Vec<u8>, Error> {
        if row.number.is_none() {
            return Err(Error::Draft { id: row.draft_id });
        }
        let _one_of_few = self.exports.acquire().await.map_err(|_| Error::Stopped)?;
        let invoice = row.invoice()?;
        let made = tokio::task::spawn_blocking(move || format.file(&invoice, &books));
        Ok(made.await.map_err(|_| Error::Stopped)??)
    }

    /// Waits until the fold covers `size` leaves.
    async fn folded(&self, size: u64) -> Result<(), Error> {
        let mut progress = self.progress.clone();
        let there = progress.wait_for(|progress| progress.folded >= size || progress.fault.is_some());
        let waited = tokio::time::timeout(FOLD_WAIT, there).await;
        let reached = match waited {
            Ok(Ok(progress)) => progress.clone(),
            Ok(Err(_)) => return Err(Error::Stopped),
            Err(_) => self.progress.borrow().clone(),
        };
        match reached.fault {
            Some(fault) => Err(Error::Fault(fault)),
            None if reached.folded < size => Err(Error::Behind { have: reached.folded, need: size }),
            None => Ok(()),
        }
    }

    /// Counts what the ledger holds, at a start.
    pub async fn count(&self) -> Result<(), Error> {
        /// Rows of one page: a few hundred KiB of documents.
        const PAGE: u32 = 100;
        let mut page = Page { limit: PAGE, ..Page::default() };
        loop {
            let rows = self.store.list(&page).await?;
            for row in &rows {
                self.metrics.drafted();
                if row.number.is_some() {
                    self.metrics.finalized(&row.invoice()?);
                }
            }
            match rows.last() {
                Some(last) if rows.len() == PAGE as usize => page.after.clone_from(&last.draft_id),
                _ => return Ok(()),
            }
        }
    }
}

/// A draft's document as the final one: its number, its dates, and number and date of the invoice that it corrects are new, and
/// nothing else.
fn finished(mut invoice: Invoice, number: String, corrected: Option<Preceding>, now: UnixMicros) -> Result<Invoice, StoreError> {
    let date = |e: crate::domain::period::PeriodError| StoreError::Corrupt { what: "draft", problem: e.to_string() };
    let terms = invoice.terms().ok_or_else(|| StoreError::Corrupt { what: "draft", problem: InvoiceError::NoPart.to_string() })?;
    let (issued, due) = (issue_date(now, &terms.zone).map_err(date)?, due_date(now, &terms.zone, terms.payment_days).map_err(date)?);
    let preceding = corrected.as_ref().map(|of| issue_date(of.issued_at, &terms.zone)).transpose().map_err(date)?;
    (invoice.issue_date, invoice.due_date, invoice.invoice_id) = (issued, due, number);
    // What a credit by agreement credits is known when it is drawn up.
    if let Some(corrects) = invoice.corrects.as_mut().filter(|corrects| corrects.agreed.is_none()) {
        (corrects.invoice_id, corrects.issue_date) = (corrected.map(|of| of.number), preceding);
    }
    Ok(invoice)
}
