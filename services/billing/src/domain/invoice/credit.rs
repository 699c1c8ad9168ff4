//! A credit note by agreement: what the seller gives back of a document though its figures stand, after a dispute, say.
//!
//! The decision is an event of the invoice in the log, which says who decided it, why, how much before tax, and what leaves and
//! what dispute it is about. The note follows from the document that it credits and from that event alone.
//!
//! It is an event, and not a kind of leaf of its own, because the log orders it among the payments and the rest: whether it counts
//! is decided where they are folded ([`crate::domain::lifecycle`]), and only what counts takes a number. It moves the money too,
//! so that nothing that comes between it and its note is taken for granted; the note's leaf moves nothing more.
//!
//! Together with the other credit notes on the document it gives back at most what was billed before tax. The tax is rounded once
//! on each note, as EN 16931 has it, so that the taxes of several notes may come to a cent more or less than the document's.
//!
//! The period's fee as it is computed stays. A note on the period at a later closing is the difference between two computed fees
//! ([`super::Correction`]), whatever was given back by agreement, and so takes none of that back; where both together give back
//! more than was billed, the client has the rest to its credit.

use kiki::clock::UnixMicros;
use kiki::leaf;

use super::{Agreed, Completeness, Corrects, Invoice, InvoiceError, Kind, TaxPrinted};
use crate::domain::amount::Amount;
use crate::domain::books::{Leaves, Reason};
use crate::domain::fee;
use crate::domain::period::{due_date, issue_date};

/// A credit by agreement, as the log has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Index of its leaf.
    pub leaf: u64,
    /// Its place among the client's leaves.
    pub client_seq: u64,
    /// Who decided it.
    pub actor: String,
    /// What was decided.
    pub credited: leaf::InvoiceCredited,
    /// What was billed before tax and no credit note had given back before it.
    pub creditable_minor: i64,
}

impl Invoice {
    /// The tax on an amount before tax, at the document's rate.
    ///
    /// # Errors
    /// A rate that cannot be read, or an amount that is too large.
    pub fn tax_on(&self, net_minor: i128) -> Result<i128, InvoiceError> {
        let Some(tax) = &self.tax else { return Ok(0) };
        let unreadable = || InvoiceError::Unreadable { field: "tax.rate_percentage", value: tax.rate_percentage.clone() };
        Ok(fee::tax(net_minor, tax.rate_ppm().ok_or_else(unreadable)?)?)
    }

    /// The credit note on this document that a decision calls for: under a number or a draft's id, with a checkpoint's size and
    /// root that cover the decision.
    ///
    /// # Errors
    /// A tax that is not the one at the document's rate, or a field that cannot be read.
    pub fn credited(&self, decision: &Decision, id: String, issued_at: UnixMicros, signed: (u64, String)) -> Result<Self, InvoiceError> {
        let places = self.total_invoice_amount.places();
        let minor = |units: i128| Amount::new(units, places);
        let (net, stated) = (i128::from(decision.credited.amount_minor), decision.credited.tax_minor);
        let computed = self.tax_on(net)?;
        if computed != i128::from(stated) {
            return Err(InvoiceError::Tax { stated, computed });
        }
        let before = i128::from(decision.creditable_minor);
        let terms = self.terms().ok_or(InvoiceError::NoPart)?;
        let tax = self.tax.as_ref().map(|tax| Ok::<_, InvoiceError>(TaxPrinted { amount: minor(computed)?, ..tax.clone() }));
        Ok(Self {
            kind: Kind::CreditNote,
            invoice_id: id,
            issue_date: issue_date(issued_at, &terms.zone)?,
            due_date: due_date(issued_at, &terms.zone, terms.payment_days)?,
            corrects: Some(Corrects {
                invoice_id: Some(self.invoice_id.clone()),
                issue_date: Some(self.issue_date.clone()),
                noted_in: self.closing_month().to_owned(),
                reasons: vec![Reason::Agreed],
                amount_before: minor(before)?,
                amount_after: minor(before - net)?,
                agreed: Some(decision.printed()),
            }),
            total_invoice_amount: minor(net)?,
            tax: tax.transpose()?,
            amount_due: minor(net + computed)?,
            client_keeps: minor(self.client_keeps.units() + self.total_invoice_amount.units() - before + net)?,
            line_items: Vec::new(),
            adjustments: Vec::new(),
            completeness: Completeness {
                last_client_seq: decision.client_seq,
                checkpoint_size: signed.0,
                checkpoint_root: signed.1,
                ..self.completeness.clone()
            },
            ..self.clone()
        })
    }
}

impl Decision {
    fn printed(&self) -> Agreed {
        Agreed {
            leaf: self.leaf,
            actor: self.actor.clone(),
            reason: self.credited.reason.clone(),
            dispute_key: self.credited.dispute_key.clone(),
            leaves: self.credited.leaves.iter().copied().collect::<Leaves>().ranges(),
        }
    }
}
