//! How the client's documents stand, leaf by leaf: so that a credit by agreement counts here as it did for who issued its note.

use std::collections::BTreeMap;

use kiki::leaf::{self, DocumentKind, invoice_event};

use crate::domain::invoice::Decision;
use crate::domain::lifecycle::{Event, Standing, settles};

/// A document that the log holds.
#[derive(Debug)]
struct Document {
    leaf: leaf::Invoice,
    standing: Standing,
}

/// The client's documents by number, and the credits on them.
#[derive(Debug, Default)]
pub(super) struct Courses {
    documents: BTreeMap<String, Document>,
    /// Events that count, by key.
    events: BTreeMap<String, leaf::InvoiceEvent>,
    /// Credits that count, by `client_seq`: with the number of what they credit.
    credits: BTreeMap<u64, (String, Decision)>,
}

impl Courses {
    /// A document was issued.
    pub(super) fn issued(&mut self, invoice: &leaf::Invoice) {
        let (fee, tax) = (invoice.total_minor, invoice.tax_minor);
        let by_agreement = self.credits.contains_key(&invoice.corrects_seq);
        if invoice.kind() == DocumentKind::CreditNote && !by_agreement {
            let corrected = |of: &&mut Document| (of.leaf.period_closed_seq, of.leaf.corrects_seq) == (invoice.corrects_seq, 0);
            if let Some(corrected) = self.documents.values_mut().find(corrected) {
                corrected.standing = corrected.standing.credited(fee, tax).0;
            }
        }
        let standing = Standing::issued(Standing::total_of(invoice.kind(), fee.saturating_add(tax)), tax);
        self.documents.entry(invoice.number.clone()).or_insert(Document { leaf: invoice.clone(), standing });
    }

    /// Something happened to one. What does not apply changes nothing.
    pub(super) fn happened(&mut self, header: &leaf::Leaf, event: &leaf::InvoiceEvent) {
        let (Some(document), Some(happened)) = (self.documents.get_mut(&event.number), Event::of(event)) else { return };
        let dispute = match &event.event {
            Some(invoice_event::Event::Credited(credited)) => self.events.get(&credited.dispute_key),
            _ => None,
        };
        let applied = settles(event, dispute).and_then(|()| document.standing.apply_in(&document.leaf.currency, event, happened));
        let Ok(next) = applied else { return };
        let creditable_minor = document.standing.creditable_minor;
        document.standing = next;
        self.events.insert(event.key.clone(), event.clone());
        if let Some(invoice_event::Event::Credited(credited)) = event.event.clone() {
            let (leaf, client_seq, actor) = (header.index, header.client_seq, event.actor.clone());
            let decision = Decision { leaf, client_seq, actor, credited, creditable_minor };
            self.credits.insert(client_seq, (event.number.clone(), decision));
        }
    }

    /// The credit that the event at a `client_seq` agrees to, and the leaf of what it credits.
    pub(super) fn credit(&self, client_seq: u64) -> Option<(&leaf::Invoice, &Decision)> {
        let (number, decision) = self.credits.get(&client_seq)?;
        Some((&self.documents.get(number)?.leaf, decision))
    }
}
