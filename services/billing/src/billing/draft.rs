//! Drafting: a month is closed in the log, and its invoices and notes are drawn up from the ledger's books.
//!
//! A repeat gives the same: a closing stands in the log for good, and a draft that was kept stays as it is.

use kiki::clock::UnixMicros;
use kiki::status::Reason;

use super::Billing;
use crate::domain::accounting::{Closing, Period, billable_from, calendar};
use crate::domain::books::{self, Account, Statement};
use crate::domain::invoice::{self, Completeness, Correction, Facts};
use crate::domain::period::{Month, resolve};
use crate::domain::terms::{Basis, Terms};
use crate::error::{Error, Postponed};
use crate::store::{InvoiceRow, StoreError};

/// What a page of a month's drafting gave.
#[derive(Debug, Default)]
pub struct Drafted {
    /// Drafts, and invoices that were final already.
    pub invoices: Vec<InvoiceRow>,
    /// Who has to wait.
    pub postponed: Vec<Postponed>,
    /// The last client and currency of the page, and how many come behind them; none where none do.
    pub rest: Option<(String, String, u64)>,
}

/// A period, what it comes to and, of a note, what makes it one.
type Document = (Closing, Account, Option<Correction>);

impl Billing {
    /// Closes the month in the log and drafts an invoice for each client and currency that had
    /// activity, and notes where the fee of an earlier period changed; of one client, or (empty) of
    /// all: of the first `limit` behind a client and currency. A repeat gives the same drafts.
    pub async fn draft(&self, month: Month, client: &str, after: (&str, &str), limit: u32) -> Result<Drafted, Error> {
        self.caught_up().await?;
        let page = self.store.newest_terms(client, after, limit).await?;
        let mut drafted = Drafted::default();
        if let Some((last, terms)) = page.last().filter(|_| page.len() == limit as usize) {
            let behind = self.store.clients_behind(client, (last, &terms.currency)).await?;
            drafted.rest = (behind > 0).then(|| (last.clone(), terms.currency.clone(), behind));
        }
        // All are closed, and then the log is signed and folded once for the page.
        let (mut closed, mut end) = (Vec::new(), 0);
        for (client, newest) in page {
            match self.close(month, &client, &newest).await? {
                Ok(leaf) => {
                    end = end.max(leaf.map_or(0, |leaf| leaf + 1));
                    closed.push((client, newest.currency));
                }
                Err(postponed) => drafted.postponed.push(postponed),
            }
        }
        for Postponed { client, currency, fault, .. } in &drafted.postponed {
            self.metrics.drafted_or_postponed(client, currency, *fault);
        }
        if end > 0 {
            self.shield.checkpoint(end).await?;
            self.folded(end).await?;
        }
        for (client, currency) in closed {
            let closings =
                self.closings(&client, &currency, month).await?.map_err(|_| Error::Answer("a closing that is not in the log"))?;
            let drawn_up = self.draw_up(&client, &closings).await?;
            self.metrics.drafted_or_postponed(&client, &currency, drawn_up.as_ref().err().and_then(|postponed| postponed.fault));
            match drawn_up {
                Ok(invoices) => drafted.invoices.extend(invoices),
                Err(postponed) => drafted.postponed.push(postponed),
            }
        }
        Ok(drafted)
    }

    /// Closes a client's month in the log, unless it is closed or has to wait. Gives the leaf where it closed it.
    async fn close(&self, month: Month, client: &str, newest: &Terms) -> Result<Result<Option<u64>, Postponed>, Error> {
        let currency = &newest.currency;
        let closed = self.closings(client, currency, month).await?;
        let postponed = |reason: String, until, fault| {
            Ok(Err(Postponed { client: client.to_owned(), currency: currency.clone(), reason, until, fault }))
        };
        let terms = self.store.terms(client, currency).await?;
        let (closings, to_close) = match closed {
            Ok(closings) => (closings, false),
            Err(mut closings) => {
                closings.push(Closing::to_come(currency, month, resolve(month, &newest.zone)?, newest.version));
                (closings, true)
            }
        };
        let period = calendar(&closings, &terms)?.pop().ok_or(Error::Answer("no period"))?;
        if let Some(until) = billable_from(&period.parts).filter(|until| self.clock.now() < *until) {
            return postponed(waiting(&period, self.clock.now()).to_owned(), Some(until), None);
        }
        for terms in period.parts.iter().map(|part| &part.terms) {
            match self.evident(client, terms).await {
                Ok(()) => {}
                // One client's fault, and mended by new terms as long as the month is not closed under these:
                // the others' month is drafted all the same.
                Err(error @ Error::Evidence { .. }) => return postponed(error.to_string(), None, Some("evidence")),
                Err(error) => return Err(error),
            }
        }
        if !to_close {
            return Ok(Ok(None));
        }
        match self.shield.close_period(client, currency, month, period.closing.span).await {
            // It went to another log, or came from one: all of its leaves are in neither.
            Err(Error::Shield(status)) if Reason::ClientMoved.is(&status) => {
                postponed(status.message().to_owned(), None, Some("client_moved"))
            }
            closed => Ok(Ok(Some(closed?))),
        }
    }

    /// Draws up the drafts of the last of `closings`: its invoice, where there was activity, and the notes
    /// on earlier periods.
    async fn draw_up(&self, client: &str, closings: &[Closing]) -> Result<Result<Vec<InvoiceRow>, Postponed>, Error> {
        let closing = closings.last().ok_or(Error::Answer("a closing that is not in the log"))?;
        let periods = calendar(closings, &self.store.terms(client, &closing.currency).await?)?;
        let sheets_sha256 = match self.drawn_up_by(client, closing, &periods).await {
            Err(Error::TooLarge(e)) => {
                let currency = closing.currency.clone();
                return Ok(Err(Postponed {
                    client: client.to_owned(),
                    currency,
                    reason: e.to_string(),
                    until: None,
                    fault: Some("too_large"),
                }));
            }
            digest => digest?,
        };
        let (now, before) = self.store.books(client, &periods).await?;
        // Of 10,000 campaigns over years: not beside others' calls.
        let added_up = tokio::task::spawn_blocking(move || books::state(periods, &now, &before));
        let Statement { period, account, changes } = added_up.await.map_err(|_| Error::Stopped)??;
        let mut rows = Vec::new();
        let own = (!account.is_empty()).then_some((period.closing.clone(), account, None));
        let mut documents: Vec<_> = own.into_iter().collect();
        for change in changes {
            let of = change.period.closing.clone();
            if self.store.void_invoice(client, of.client_seq).await?.is_some() {
                continue; // nothing was owed
            }
            // Its number is put in when the note becomes final: by then the invoice must be.
            let (account, correction) = Correction::of(change, None, period.closing.month);
            documents.push((of, account, Some(correction)));
        }
        for (of, mut account, correction) in documents {
            if sheets_sha256.is_none() {
                self.store.name_leaves(client, period.closing.last_seq, &mut account).await?;
            }
            let corrects_seq = if correction.is_some() { of.client_seq } else { 0 };
            if let Some((number, leaf)) = self.store.invoiced(client, period.closing.client_seq, corrects_seq).await? {
                let reason = StoreError::Invoiced { number, leaf }.to_string();
                let currency = period.closing.currency.clone();
                return Ok(Err(Postponed { client: client.to_owned(), currency, reason, until: None, fault: Some("invoiced") }));
            }
            rows.push(self.keep_draft(client, &period.closing, (of, account, correction), sheets_sha256.clone()).await?);
        }
        Ok(Ok(rows))
    }

    /// The digest of the sheets by which the documents of a closing are proven: as its invoice says, where there is one already.
    async fn drawn_up_by(&self, client: &str, closing: &Closing, periods: &[Period]) -> Result<Option<String>, Error> {
        match self.store.invoice_of(client, closing.client_seq).await? {
            Some(kept) => Ok(kept.invoice()?.completeness.sheets_sha256),
            None => self.sheets_sha256(client, periods).await,
        }
    }

    /// Keeps the draft of a document of `of`, drawn up with `closing`.
    async fn keep_draft(
        &self,
        client: &str,
        closing: &Closing,
        document: Document,
        sheets_sha256: Option<String>,
    ) -> Result<InvoiceRow, Error> {
        let (of, account, correction) = document;
        let (checkpoint_size, root) = self.store.signed(self.key.name()).await?.ok_or(Error::Behind { have: 0, need: closing.leaf + 1 })?;
        let (note_on, corrects_seq) = match &correction {
            None => (String::new(), 0),
            Some(_) => (format!("-{}", of.month), of.client_seq),
        };
        let draft_id = format!("draft-{client}-{}-{}{note_on}", closing.currency, closing.month);
        let document = invoice::build(Facts {
            invoice_id: draft_id.clone(),
            client: client.to_owned(),
            month: of.month,
            span: of.span,
            issued_at: self.clock.now(),
            account,
            correction,
            completeness: Completeness {
                log_id: self.key.name().to_owned(),
                first_client_seq: closing.first_seq,
                last_client_seq: closing.last_seq,
                checkpoint_size,
                checkpoint_root: hex::encode(root),
                period_closed_leaf: closing.leaf,
                sheets_sha256,
            },
        })?;
        let row = InvoiceRow {
            draft_id,
            number: None,
            client: client.to_owned(),
            currency: closing.currency.clone(),
            month: closing.month.to_string(),
            document: document.to_json(),
            period_closed_seq: closing.client_seq,
            corrects_seq,
            issued_at: None,
            leaf: None,
        };
        let (kept, fresh) = self.store.keep_draft(&row).await?;
        if fresh {
            self.metrics.drafted();
        }
        Ok(kept)
    }

    /// All closings of a client and currency up to that of a month; or, where that is not closed, all that there are.
    async fn closings(&self, client: &str, currency: &str, month: Month) -> Result<Result<Vec<Closing>, Vec<Closing>>, Error> {
        let mut closings = self.store.closings(client, currency).await?;
        let Some(at) = closings.iter().position(|closing| closing.month == month) else { return Ok(Err(closings)) };
        closings.truncate(at + 1);
        Ok(Ok(closings))
    }
}

/// Why a period cannot be invoiced yet.
fn waiting(period: &Period, now: UnixMicros) -> &'static str {
    if now < period.closing.span.end {
        "the month has not ended"
    } else if period.parts.iter().any(|part| part.terms.basis == Basis::Realised && now < part.matures()) {
        "the horizon of the month's customers has not passed"
    } else {
        "the month's late records are waited for"
    }
}
