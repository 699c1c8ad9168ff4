//! A client's leaves, replayed: whether they follow from each other, and what an invoice needs of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kiki::attribution::Attribution;
use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};

use super::courses::Courses;
use super::sheets::Totals;
use super::slots::Slots;
use super::{Decoded, Findings, Place, Sample};
use crate::domain::accounting::{Closing, Period, calendar};
use crate::domain::books::{self, Statement};
use crate::domain::invoice::{self, Completeness, Correction, Facts, Invoice, Preceding};
use crate::domain::record::{self, Record};
use crate::domain::terms::Terms;

/// What the replay found.
#[derive(Debug, Default)]
pub(super) struct History<'b> {
    /// The leaf that issued the invoice: the client's last.
    pub(super) issued: Option<Issued>,
    /// Settlements whose decision is not among the leaves.
    pub(super) undecided: u64,
    client: String,
    records: Vec<Record>,
    /// What stands in the records' place, where those are a sample.
    sample: Option<&'b Sample>,
    closings: Vec<Closing>,
    /// What each of them says, by its `client_seq`.
    said: BTreeMap<u64, Totals>,
    /// By currency and version.
    terms: BTreeMap<(String, u64), Terms>,
    /// The document of each closing and its leaf's index, by its `client_seq` and that of what it corrects.
    invoiced: BTreeMap<(u64, u64), (u64, leaf::Invoice)>,
    courses: Courses,
}

/// An invoice's leaf.
#[derive(Debug)]
pub(super) struct Issued {
    /// Its index.
    pub(super) leaf: u64,
    /// Index of the last leaf that it is computed from: the closing's or, of a credit by agreement, the decision's.
    pub(super) rests_on: u64,
    /// What it says.
    pub(super) invoice: leaf::Invoice,
}

/// What is closed by the closing that an invoice is of.
#[derive(Debug)]
pub(super) struct Closed {
    /// ISO 4217 code.
    pub(super) currency: String,
    /// All periods of the client in that currency up to this one.
    pub(super) periods: Vec<Period>,
    /// What the closing before says, and this one.
    pub(super) totals: (Totals, Totals),
}

/// Of a sample: the client's leaves follow each other in the log, records and others, and the last issues an invoice.
pub(super) fn follow(leaves: &[Decoded], findings: &mut Findings) {
    let (mut seq, mut recorded_at) = (0, UnixMicros::default());
    for (header, _) in leaves {
        let at = UnixMicros::from_pb(header.recorded_at.as_ref()).filter(|at| *at >= recorded_at);
        if header.client_seq <= seq || at.is_none() {
            findings.add(Place::Leaf(header.index), "client_seq or recorded_at runs back");
        }
        (seq, recorded_at) = (header.client_seq, at.unwrap_or(recorded_at));
    }
    if !matches!(leaves.last(), Some((_, Body::Invoice(_)))) {
        findings.add(Place::File, "the client's last leaf issues no invoice");
    }
}

/// The replay as it goes.
#[derive(Default)]
struct Replay<'b> {
    history: History<'b>,
    seq: u64,
    recorded_at: UnixMicros,
    attribution: Attribution,
    /// Keys of the corrections.
    adjusted: BTreeSet<String>,
    slots: Slots,
    totals: BTreeMap<String, Totals>,
    newest_terms: BTreeMap<String, (u64, Duration)>,
    /// The conversion that the last leaf, an outcome, calls for: with the outcome's index.
    due: Option<(u64, leaf::Conversion)>,
}

impl<'b> History<'b> {
    /// A version of the client's terms.
    pub(super) fn terms(&self, currency: &str, version: u64) -> Option<&Terms> {
        self.terms.get(&(currency.to_owned(), version))
    }

    /// Replays a client's leaves in the log's order; where its records are a sample, the others.
    pub(super) fn replay(leaves: &[Decoded], sample: Option<&'b Sample>, findings: &mut Findings) -> Self {
        let mut replay = Replay::default();
        replay.history.sample = sample;
        for (i, (header, body)) in leaves.iter().enumerate() {
            replay.sequence(header, findings);
            replay.due_conversion(header, body, findings);
            replay.take_in(header, body, findings);
            match record::of(header, body) {
                Ok(record) => replay.history.records.extend(record),
                Err(e) => findings.add(Place::Leaf(header.index), e),
            }
            if let (Body::Invoice(invoice), true) = (body, i + 1 == leaves.len()) {
                replay.issue(header, invoice, findings);
            }
        }
        replay.history.undecided = replay.slots.compare(findings);
        replay.history
    }

    /// The invoice that the leaves give.
    pub(super) fn invoice(&self, log_id: &str, stated: &Completeness) -> Result<Invoice, String> {
        let issued = &self.issued.as_ref().ok_or("no leaf issues the invoice")?.invoice;
        let Some((of, decision)) = self.courses.credit(issued.corrects_seq) else { return self.drawn_up(issued, log_id, stated) };
        if of.period_closed_seq != issued.period_closed_seq {
            return Err(format!("names the closing at client_seq {}, but credits a document of another", issued.period_closed_seq));
        }
        let issued_at = UnixMicros::from_pb(issued.issued_at.as_ref()).ok_or("issued_at is absent")?;
        let signed = (stated.checkpoint_size, stated.checkpoint_root.clone());
        let document = self.drawn_up(of, log_id, stated)?;
        document.credited(decision, issued.number.clone(), issued_at, signed).map_err(|e| e.to_string())
    }

    /// The closing at a `client_seq` and those in its currency before it, and that currency's terms.
    fn closings(&self, closed_seq: u64) -> Result<(Vec<Closing>, Vec<Terms>), String> {
        let at = self.closings.iter().position(|closing| closing.client_seq == closed_seq).ok_or("no closing")?;
        let currency = &self.closings[at].currency;
        let closings = self.closings[..=at].iter().filter(|earlier| earlier.currency == *currency).cloned().collect();
        Ok((closings, self.terms.values().filter(|terms| terms.currency == *currency).cloned().collect()))
    }

    /// What is closed by the closing that the issued document is of.
    pub(super) fn closed(&self) -> Result<Closed, String> {
        let issued = self.issued.as_ref().ok_or("no leaf issues the invoice")?;
        let (closings, terms) = self.closings(issued.invoice.period_closed_seq)?;
        let said = |back: usize| {
            let closing = closings.len().checked_sub(back).and_then(|at| closings.get(at));
            closing.and_then(|closing| self.said.get(&closing.client_seq)).copied().unwrap_or_default()
        };
        let totals = (said(2), said(1));
        let periods = calendar(&closings, &terms).map_err(|e| e.to_string())?;
        Ok(Closed { currency: issued.invoice.currency.clone(), periods, totals })
    }

    /// What the last of `closings` gives.
    fn statement(&self, closings: &[Closing], terms: &[Terms]) -> Result<Statement, String> {
        let Some(sample) = self.sample else {
            return books::statement(self.records.iter(), closings, terms).map_err(|e| e.to_string());
        };
        let periods = calendar(closings, terms).map_err(|e| e.to_string())?;
        let (now, before) = sample.sheets.books(&periods)?;
        books::state(periods, &now, &before).map_err(|e| e.to_string())
    }

    /// The document of a closing: its invoice, or a note on an earlier period.
    fn drawn_up(&self, issued: &leaf::Invoice, log_id: &str, stated: &Completeness) -> Result<Invoice, String> {
        let (closings, terms) = self.closings(issued.period_closed_seq)?;
        let closing = closings.last().ok_or("no closing")?;
        let statement = self.statement(&closings, &terms)?;
        let (closed, account, correction) = match issued.corrects_seq {
            0 => (statement.period.closing, statement.account, None),
            seq => {
                let change = statement.changes.into_iter().find(|change| change.period.closing.client_seq == seq);
                let change = change.ok_or_else(|| format!("no fee of the closing at client_seq {seq} changed"))?;
                let of = change.period.closing.clone();
                let (account, correction) = Correction::of(change, self.preceding(seq)?, closing.month);
                (of, account, Some(correction))
            }
        };
        let issued_at = UnixMicros::from_pb(issued.issued_at.as_ref()).ok_or("issued_at is absent")?;
        let completeness = Completeness {
            log_id: log_id.to_owned(),
            first_client_seq: closing.first_seq,
            last_client_seq: closing.last_seq,
            checkpoint_size: stated.checkpoint_size,
            checkpoint_root: stated.checkpoint_root.clone(),
            period_closed_leaf: closing.leaf,
            sheets_sha256: self.sample.map(|sample| hex::encode(sample.sha256)),
        };
        invoice::build(Facts {
            invoice_id: issued.number.clone(),
            client: self.client.clone(),
            month: closed.month,
            span: closed.span,
            issued_at,
            account,
            correction,
            completeness,
        })
        .map_err(|e| e.to_string())
    }

    /// The invoice of the closing at a `client_seq`, where there was something to bill.
    fn preceding(&self, closed_seq: u64) -> Result<Option<Preceding>, String> {
        let Some((leaf, invoice)) = self.invoiced.get(&(closed_seq, 0)) else { return Ok(None) };
        let issued_at = UnixMicros::from_pb(invoice.issued_at.as_ref());
        let issued_at = issued_at.ok_or_else(|| format!("issued_at of leaf {leaf} is absent"))?;
        Ok(Some(Preceding { number: invoice.number.clone(), issued_at }))
    }
}

impl Replay<'_> {
    /// No leaf of the client is left out, but for a sample's records; and time does not run back.
    fn sequence(&mut self, header: &leaf::Leaf, findings: &mut Findings) {
        let place = Place::Leaf(header.index);
        let follows = if self.history.sample.is_some() { header.client_seq > self.seq } else { header.client_seq == self.seq + 1 };
        if !follows {
            let (due, found) = (self.seq + 1, header.client_seq);
            findings.add(place.clone(), format!("client_seq {due} was due but this is {found}: leaves are missing"));
        }
        self.seq = header.client_seq;
        self.history.client.clone_from(&header.client);
        match UnixMicros::from_pb(header.recorded_at.as_ref()) {
            Some(at) if at >= self.recorded_at => self.recorded_at = at,
            _ => findings.add(place, "recorded_at is absent or runs back"),
        }
    }

    /// The conversion that attribution gives follows its outcome at once, and no other ever comes.
    fn due_conversion(&mut self, header: &leaf::Leaf, body: &Body, findings: &mut Findings) {
        let place = Place::Leaf(header.index);
        match (self.due.take(), body) {
            (Some((_, due)), Body::Conversion(found)) if due == *found => {}
            (Some((_, due)), Body::Conversion(found)) => {
                let (is, was) = (&found.campaign, &due.campaign);
                let figures = (found.predicted_ltv_micros, due.predicted_ltv_micros);
                let problem = format!("conversion of {is} at {} but attribution gives {was} at {}", figures.0, figures.1);
                findings.add(place, problem);
            }
            (Some((outcome, due)), _) => {
                findings.add(Place::Leaf(outcome), format!("acquires a customer for {} but no conversion follows", due.campaign));
            }
            (None, Body::Conversion(_)) => findings.add(place, "conversion that attribution does not give"),
            (None, _) => {}
        }
    }

    fn take_in(&mut self, header: &leaf::Leaf, body: &Body, findings: &mut Findings) {
        let place = || Place::Leaf(header.index);
        match body {
            Body::Settlements(batch) => {
                self.attribution.settled(batch);
                let totals = self.totals.entry(batch.currency.clone()).or_default();
                self.slots.settle(header.index, batch, findings);
                for settlement in &batch.settlements {
                    totals.settled_nanos += i128::from(settlement.price_nanos);
                    totals.settlements += 1;
                }
            }
            Body::SpendAdjustment(adjustment) => {
                let totals = self.totals.entry(adjustment.currency.clone()).or_default();
                totals.settled_nanos += i128::from(adjustment.amount_nanos);
                if !self.adjusted.insert(adjustment.key.clone()) {
                    findings.add(place(), format!("adjusts {:?} a second time", adjustment.key));
                }
            }
            Body::Outcome(outcome) => {
                if let Some(first) = self.attribution.index_of(&outcome.event_id) {
                    findings.add(place(), format!("repeats the outcome of leaf {first}"));
                }
                let lookback = self.newest_terms.get(&outcome.currency).map(|(_, lookback)| *lookback);
                let conversion = lookback.and_then(|lookback| self.attribution.conversion(outcome, lookback));
                self.due = conversion.map(|conversion| (header.index, conversion));
                self.attribution.observed(outcome, header.index);
                let totals = self.totals.entry(outcome.currency.clone()).or_default();
                totals.outcome_micros += i128::from(outcome.value_micros);
                totals.outcomes += 1;
            }
            Body::Conversion(conversion) => {
                self.attribution.converted(conversion);
                self.totals.entry(conversion.currency.clone()).or_default().conversions += 1;
            }
            Body::Terms(terms) => self.terms(header, terms, findings),
            Body::PeriodClosed(closed) => self.close(header, closed, findings),
            Body::LeaseGranted(lease) => self.slots.grant(header.index, lease, findings),
            Body::Decisions(batch) => self.slots.decide(header.index, batch, findings),
            Body::Invoice(invoice) => self.invoiced(header, invoice, findings),
            Body::InvoiceEvent(event) => self.history.courses.happened(header, event),
            _ => {}
        }
    }

    fn terms(&mut self, header: &leaf::Leaf, terms: &leaf::Terms, findings: &mut Findings) {
        let before = self.newest_terms.get(&terms.currency).map_or(0, |(version, _)| *version);
        if terms.version != before + 1 {
            findings.add(Place::Leaf(header.index), format!("terms of version {} after {before}", terms.version));
        }
        let lookback = Duration::from_secs(terms.lookback_seconds.into());
        self.newest_terms.insert(terms.currency.clone(), (terms.version, lookback));
        match Terms::of(header.index, terms) {
            Ok(read) => drop(self.history.terms.insert((terms.currency.clone(), terms.version), read)),
            Err(e) => findings.add(Place::Leaf(header.index), e),
        }
    }

    /// A closing covers everything before it, and its totals are those of the leaves.
    fn close(&mut self, header: &leaf::Leaf, closed: &leaf::PeriodClosed, findings: &mut Findings) {
        let place = || Place::Leaf(header.index);
        if (closed.first_seq, closed.last_seq + 1) != (1, header.client_seq) {
            let problem = format!("closes client_seq {} to {} at {}", closed.first_seq, closed.last_seq, header.client_seq);
            findings.add(place(), problem);
        }
        let totals = Totals {
            settled_nanos: closed.settled_nanos.as_ref().map_or(0, i128::from),
            settlements: closed.settlements,
            conversions: closed.conversions,
            outcome_micros: closed.outcome_micros.as_ref().map_or(0, i128::from),
            outcomes: closed.outcomes,
        };
        self.history.said.insert(header.client_seq, totals);
        let counted = self.totals.entry(closed.currency.clone()).or_default();
        if self.history.sample.is_none() && totals != *counted {
            findings.add(place(), format!("says {totals:?} but its client's leaves give {counted:?}"));
        }
        let newest = self.newest_terms.get(&closed.currency).map_or(0, |(version, _)| *version);
        if closed.terms_version != newest {
            findings.add(place(), format!("names terms {} but {newest} were in force", closed.terms_version));
        }
        match Closing::of(header, closed) {
            Ok(closing) => self.history.closings.push(closing),
            Err(e) => findings.add(place(), e),
        }
    }

    /// A closing is invoiced once, and an earlier period corrected once with it.
    fn invoiced(&mut self, header: &leaf::Leaf, invoice: &leaf::Invoice, findings: &mut Findings) {
        let key = (invoice.period_closed_seq, invoice.corrects_seq);
        if let Some((first, _)) = self.history.invoiced.get(&key) {
            let problem = format!("invoices the closing at client_seq {} again: leaf {first} did already", key.0);
            findings.add(Place::Leaf(header.index), problem);
        } else {
            self.history.invoiced.insert(key, (header.index, invoice.clone()));
            self.history.courses.issued(invoice);
        }
    }

    fn issue(&mut self, header: &leaf::Leaf, invoice: &leaf::Invoice, findings: &mut Findings) {
        let of_closing = |closing: &&Closing| {
            closing.client_seq == invoice.period_closed_seq
                && closing.currency == invoice.currency
                && closing.month.to_string() == invoice.month
        };
        let Some(closing) = self.history.closings.iter().find(of_closing) else {
            let problem = format!("invoice of a closing at client_seq {} that is not there", invoice.period_closed_seq);
            findings.add(Place::Leaf(header.index), problem);
            return;
        };
        let rests_on = self.history.courses.credit(invoice.corrects_seq).map_or(closing.leaf, |(_, decision)| decision.leaf);
        self.history.issued = Some(Issued { leaf: header.index, rests_on, invoice: invoice.clone() });
    }
}
