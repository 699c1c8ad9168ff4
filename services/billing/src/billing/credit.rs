//! Credits by agreement: decided in the log, and then issued as credit notes.
//!
//! The decision is an event of the invoice and comes first. What counts has its note at once; where a process ends between the
//! two, whoever folds the log next issues it, as does a repeat of the call. The draft's id is the decision's, so that it is issued
//! once, whoever comes first.

use kiki::leaf::{self, invoice_event::Event};

use super::{Billing, Shown};
use crate::domain::invoice::{Decision, Invoice};
use crate::error::Error;
use crate::store::{EventRow, InvoiceRow};

impl Billing {
    /// Gives back a part of a document by agreement: with its credit note. A repeat of the key gives the same note.
    pub async fn credit(
        &self,
        row: InvoiceRow,
        key: String,
        actor: String,
        asked: leaf::InvoiceCredited,
    ) -> Result<(Shown, InvoiceRow), Error> {
        let (client, document) = (row.client.clone(), row.invoice()?);
        let tax = document.tax_on(asked.amount_minor.into())?;
        let tax_minor = i64::try_from(tax).map_err(|_| Error::Field { field: "amount_minor", problem: "is too large".to_owned() })?;
        let event = Some(Event::Credited(leaf::InvoiceCredited { tax_minor, ..asked }));
        if row.number.is_some() && self.store.event_by_key(&client, &key).await?.is_none() {
            // What would stand in the way of the note's proof is found before it is decided.
            self.caught_up().await?;
            self.evidenced(&row, &document).await?;
            self.sheets_sha256(&client, &self.periods_of(&row).await?).await?;
        }
        let invoice = self.happen(row, leaf::InvoiceEvent { key: key.clone(), actor, event, ..Default::default() }).await?;
        let decided = self.store.event_by_key(&client, &key).await?.ok_or(Error::Answer("an event that is not in the log"))?;
        // The log may hold its note, where the ledger is a copy of an older day.
        self.caught_up().await?;
        let note = self.credit_note(&invoice.row, decided).await?;
        Ok((invoice, note))
    }

    /// Issues the notes of credits that count and have none yet, unless what is signed is not folded: then the log may hold them.
    /// Says whether it did. One that fails holds up no other.
    pub(crate) async fn credit_notes(&self) -> Result<bool, Error> {
        let unnoted = self.store.unnoted_credits().await?;
        if unnoted.is_empty() {
            return Ok(true);
        }
        let (_, signed) = self.shield.checkpoint(0).await?;
        if self.store.folded(self.key.name()).await? < signed {
            return Ok(false);
        }
        for (client, decided) in unnoted {
            let number = decided.event.number.clone();
            match self.store.invoice(&number).await? {
                Some(of) if of.client == client => {
                    if let Err(error) = self.credit_note(&of, decided).await {
                        tracing::warn!(%error, number, client, "a credit has no note yet");
                    }
                }
                _ => tracing::error!(number, client, "a credit on a document that this ledger did not issue has no note"),
            }
        }
        Ok(true)
    }

    /// The note of a credit that counts.
    async fn credit_note(&self, of: &InvoiceRow, decided: EventRow) -> Result<InvoiceRow, Error> {
        let draft_id = format!("credit-{}-{}", of.client, decided.client_seq);
        let kept = match self.store.invoice(&draft_id).await? {
            Some(kept) => kept,
            None => self.keep_credit(of, decided, draft_id).await?,
        };
        let document = kept.invoice()?;
        self.issue(kept, &document, None).await
    }

    async fn keep_credit(&self, of: &InvoiceRow, decided: EventRow, draft_id: String) -> Result<InvoiceRow, Error> {
        let need = decided.leaf + 1;
        let (size, root) = self.store.signed(self.key.name()).await?.ok_or(Error::Behind { have: 0, need })?;
        let corrects_seq = decided.client_seq;
        let mut note = credited(&of.invoice()?, decided, &draft_id, (size, hex::encode(root)), self.clock.now())?;
        // The client's leaves may be many more than when the document was issued.
        let periods = self.periods_of(of).await?;
        note.completeness.sheets_sha256 = self.sheets_sha256(&of.client, &periods).await?;
        let draft =
            InvoiceRow { draft_id, number: None, document: note.to_json(), corrects_seq, issued_at: None, leaf: None, ..of.clone() };
        let (kept, fresh) = self.store.keep_draft(&draft).await?;
        if fresh {
            self.metrics.drafted();
        }
        Ok(kept)
    }
}

fn credited(
    of: &Invoice,
    decided: EventRow,
    draft_id: &str,
    signed: (u64, String),
    now: kiki::clock::UnixMicros,
) -> Result<Invoice, Error> {
    let EventRow { leaf, client_seq, event, creditable_minor, .. } = decided;
    let Some(Event::Credited(credited)) = event.event else { return Err(Error::Answer("an event that credits nothing")) };
    let decision = Decision { leaf, client_seq, actor: event.actor, credited, creditable_minor };
    Ok(of.credited(&decision, draft_id.to_owned(), now, signed)?)
}
