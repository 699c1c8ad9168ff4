//! Records that are not a budget's: decisions, purchases, evidence, the ends of months and invoices.

use std::time::Duration;

use bytes::Bytes;
use kiki::leaf::{self, leaf::Body};

use super::{Ledger, Recorded};
use crate::domain::refusal::Refusal;
use crate::domain::state::{ClientState, Stored, Totals};
use crate::domain::{document, invoice_event};

/// A record that is not a budget's.
#[derive(Debug, Clone)]
pub enum Item {
    /// What SyncFlow decided: the bytes of a `DecisionBatch`, which go into the log as they are.
    Decisions(Bytes),
    /// A purchase or refund.
    Purchase(leaf::Outcome),
    /// A document outside the log.
    Evidence(leaf::Evidence),
    /// The end of a client's month: currency, month and bounds are given, the rest is filled in.
    ClosePeriod(leaf::PeriodClosed),
    /// An invoice that was issued.
    Invoice(leaf::Invoice),
    /// What happened to one.
    InvoiceEvent(leaf::InvoiceEvent),
    /// Somebody saw or made one.
    Access(leaf::Access),
}

impl Ledger {
    /// Records items of a sender's batch, or of none. A batch that came before has no second effect.
    ///
    /// # Errors
    /// The first item that cannot be taken, or a batch that does not follow: nothing was recorded then.
    pub fn record(&mut self, source: &str, source_seq: u64, items: Vec<(String, Item)>) -> Result<Vec<Recorded>, Refusal> {
        if !source.is_empty() {
            let last = self.state.sources.get(source).cloned().unwrap_or_default();
            if source_seq <= last.seq && source_seq > 0 {
                let known = source_seq == last.seq;
                let old = |i: usize| Recorded {
                    index: if known { last.first_index + i as u64 } else { 0 },
                    duplicate: true,
                    ..Default::default()
                };
                return Ok((0..items.len()).map(old).collect());
            }
            if source_seq != last.seq + 1 {
                return Err(Refusal::OutOfOrder(format!("source_seq of {source} is {source_seq}, and {} is next", last.seq + 1)));
            }
        }
        // Two of these could contradict each other, and a request is taken whole or not at all.
        if items.len() > 1 && items.iter().any(|(_, item)| matches!(item, Item::ClosePeriod(_) | Item::Invoice(_) | Item::InvoiceEvent(_)))
        {
            return Err(Refusal::field("items", "a period, an invoice or what happened to one comes alone"));
        }
        for (i, (client, item)) in items.iter().enumerate() {
            self.check_item(&format!("items[{i}]"), client, item, !source.is_empty())?;
        }
        items.into_iter().map(|(client, item)| self.record_one(&client, (source, source_seq), item)).collect()
    }

    fn check_item(&self, path: &str, client: &str, item: &Item, sourced: bool) -> Result<(), Refusal> {
        // The operator's own accesses may be the first leaves of a log.
        if let Item::Access(access) = item
            && client == leaf::OPERATOR
            && sourced
        {
            return document::check_access(&format!("{path}.access"), access);
        }
        let known = self.state.clients.get(client);
        let state = known.ok_or_else(|| Refusal::NotFound { what: "client", id: client.to_owned() })?;
        self.state.check_here(client)?;
        match item {
            Item::Decisions(_) if !sourced => Err(Refusal::field(format!("{path}.decisions"), "come in a batch with a source")),
            Item::Decisions(batch) => {
                let (count, limit) = (batch.len(), leaf::MAX_BYTES - 512); // the head of the leaf
                if count > limit {
                    return Err(Refusal::TooMany { field: format!("{path}.decisions bytes"), count, limit });
                }
                let no_batch = |error| Refusal::field(format!("{path}.decisions"), format!("is no DecisionBatch: {error}"));
                leaf::check_decisions(batch).map_err(no_batch)
            }
            Item::Access(_) if !sourced => Err(Refusal::field(format!("{path}.access"), "comes in a batch with a source")),
            Item::Access(access) => document::check_access(&format!("{path}.access"), access),
            _ if sourced => Err(Refusal::field(path, "has a key of its own and comes without a source")),
            Item::Purchase(outcome) => document::check_outcome(path, outcome),
            Item::Evidence(evidence) => document::check_evidence(path, evidence),
            Item::ClosePeriod(period) => self.check_close(state, path, period),
            Item::Invoice(invoice) => check_invoice(state, path, invoice),
            Item::InvoiceEvent(event) => invoice_event::check_new(state, &format!("{path}.invoice_event"), event),
        }
    }

    fn check_close(&self, state: &ClientState, path: &str, period: &leaf::PeriodClosed) -> Result<(), Refusal> {
        let bounds = document::check_period(path, period)?;
        if !state.terms.contains_key(&period.currency) {
            return Err(Refusal::NotFound { what: "terms in currency", id: period.currency.clone() });
        }
        if let Some(came) = &state.came {
            return Err(Refusal::CameFrom { log_id: came.log_id.clone() });
        }
        if self.now < bounds.1 {
            return Err(Refusal::PeriodOpen { end_micros: bounds.1.0, now_micros: self.now.0 });
        }
        match state.closed.get(&(period.currency.clone(), period.month.clone())) {
            Some(closed) if closed.bounds != bounds => Err(Refusal::KeyReused { what: "period", key: period.month.clone() }),
            _ => Ok(()),
        }
    }

    fn record_one(&mut self, client: &str, source: (&str, u64), item: Item) -> Result<Recorded, Refusal> {
        let again =
            |stored: &Stored| Recorded { index: stored.index, client_seq: stored.client_seq, duplicate: true, ..Default::default() };
        let known = self.state.clients.get(client);
        let body = match item {
            Item::Decisions(batch) => return self.append_decisions(client, source, batch),
            Item::Purchase(outcome) => return self.purchase(client, outcome),
            Item::Evidence(evidence) => match known.and_then(|c| c.evidence.get(evidence.document_sha256.as_ref())) {
                Some(stored) => return Ok(again(stored)),
                None => Body::Evidence(evidence),
            },
            Item::Invoice(invoice) => match known.and_then(|c| c.invoices.get(&invoice.number)) {
                Some(stored) => return Ok(again(stored)),
                None => Body::Invoice(invoice),
            },
            Item::Access(access) => Body::Access(access),
            Item::InvoiceEvent(event) => match known.and_then(|c| c.invoice_events.get(&event.key)) {
                Some(stored) => return Ok(again(stored)),
                None => Body::InvoiceEvent(event),
            },
            Item::ClosePeriod(period) => match known.and_then(|c| c.closed.get(&(period.currency.clone(), period.month.clone()))) {
                Some(closed) => return Ok(again(&closed.at)),
                None => Body::PeriodClosed(self.closing(client, period)),
            },
        };
        self.append(client, source, body)
    }

    fn closing(&self, client: &str, period: leaf::PeriodClosed) -> leaf::PeriodClosed {
        let state = self.state.clients.get(client);
        let totals = state.and_then(|c| c.totals.get(&period.currency)).cloned().unwrap_or_default();
        let Totals { settled_nanos, settlements, conversions, outcome_micros, outcomes, .. } = totals;
        leaf::PeriodClosed {
            first_seq: 1,
            last_seq: state.map_or(0, |c| c.seq),
            settled_nanos: Some(settled_nanos.into()),
            settlements,
            conversions,
            outcome_micros: Some(outcome_micros.into()),
            outcomes,
            terms_version: state.and_then(|c| c.terms.get(&period.currency)).map_or(0, |(version, _)| *version),
            ..period
        }
    }

    /// An Outcome leaf for each purchase, and a Conversion leaf behind it where it acquired the customer.
    fn purchase(&mut self, client: &str, outcome: leaf::Outcome) -> Result<Recorded, Refusal> {
        let attribution = self.state.clients.get(client).map(|c| &c.attribution);
        if let Some(index) = attribution.and_then(|a| a.index_of(&outcome.event_id)) {
            return Ok(Recorded { index, duplicate: true, ..Default::default() });
        }
        let lookback = self.state.terms(client, &outcome.currency).map(|terms| Duration::from_secs(terms.lookback_seconds.into()));
        let conversion = attribution.zip(lookback).and_then(|(a, lookback)| a.conversion(&outcome, lookback));
        let mut recorded = self.append(client, ("", 0), Body::Outcome(outcome))?;
        if let Some(conversion) = conversion {
            recorded.attributed_campaign.clone_from(&conversion.campaign);
            self.append(client, ("", 0), Body::Conversion(conversion))?;
        }
        Ok(recorded)
    }
}

/// A number has one document, and a closing one invoice.
fn check_invoice(state: &ClientState, path: &str, invoice: &leaf::Invoice) -> Result<(), Refusal> {
    document::check_invoice(path, invoice)?;
    let reused = |what| Err(Refusal::KeyReused { what, key: invoice.number.clone() });
    match (state.invoices.get(&invoice.number), state.invoiced.get(&(invoice.period_closed_seq, invoice.corrects_seq))) {
        (Some(stored), _) if stored.digest != invoice.document_sha256 => reused("invoice"),
        (_, Some(number)) if *number != invoice.number => reused("closing of invoice"),
        _ => Ok(()),
    }
}
