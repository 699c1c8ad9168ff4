//! Which records an invoice is summed from, so that each is billed exactly once.
//!
//! A period's closing covers what the client's log held up to `last_seq` with an accounting time
//! before the period's end. Its invoice is everything that it covers and no earlier closing did:
//! what comes late falls into the next invoice, and a month that was never closed falls into the
//! next that is.
//!
//! LTV on the predicted basis is the sum of the predictions frozen when customers were acquired;
//! on the realised basis, of what the customers acquired in the period spent from their
//! acquisition up to the horizon, refunds included.

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::leaf;
use kiki::money::NANOS_PER_MICRO;

use super::invoice::{Basis, LineFacts, Terms};
use super::period::{Month, Span};
use super::record::{Entry, Record};

/// Seconds in a day of a horizon: horizons are counted in days of 24 hours, whatever the clocks do.
const DAY_SECONDS: u64 = 86_400;

/// A period's closing as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// Index of its leaf.
    pub leaf: u64,
    /// Its place among the client's leaves.
    pub client_seq: u64,
    /// ISO 4217 code.
    pub currency: String,
    /// The month.
    pub month: Month,
    /// Its resolved instants.
    pub span: Span,
    /// First `client_seq` that it covers.
    pub first_seq: u64,
    /// Last `client_seq` that it covers.
    pub last_seq: u64,
    /// Terms that the period is invoiced under.
    pub terms_version: u64,
}

/// A closing that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("period closed in leaf {leaf}: {field} is not valid")]
pub struct ClosingError {
    /// Index of the leaf.
    pub leaf: u64,
    /// The field.
    pub field: &'static str,
}

impl Closing {
    /// Reads a leaf.
    pub fn of(header: &leaf::Leaf, body: &leaf::PeriodClosed) -> Result<Self, ClosingError> {
        let bad = |field| ClosingError { leaf: header.index, field };
        let start = UnixMicros::from_pb(body.period_start.as_ref()).ok_or_else(|| bad("period_start"))?;
        let end = UnixMicros::from_pb(body.period_end.as_ref()).ok_or_else(|| bad("period_end"))?;
        if start >= end {
            return Err(bad("period_end"));
        }
        if body.last_seq >= header.client_seq {
            return Err(bad("last_seq"));
        }
        Ok(Self {
            leaf: header.index,
            client_seq: header.client_seq,
            currency: body.currency.clone(),
            month: body.month.parse().map_err(|_| bad("month"))?,
            span: Span { start, end },
            first_seq: body.first_seq,
            last_seq: body.last_seq,
            terms_version: body.terms_version,
        })
    }

    /// Whether the closing covers a record.
    pub fn covers(&self, record: &Record) -> bool {
        record.client_seq <= self.last_seq && record.at < self.span.end
    }
}

/// How long LTV counts from a customer's acquisition.
pub fn horizon(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * DAY_SECONDS)
}

/// When the period can be invoiced at the earliest: at its end, or once what its customers spend
/// up to the horizon is known.
pub fn billable_from(span: Span, basis: Basis, horizon_days: u32) -> UnixMicros {
    match basis {
        Basis::Predicted => span.end,
        Basis::Realised => span.end.plus(horizon(horizon_days)),
    }
}

/// The campaigns' sums for the invoice of `closing`, from the client's records in its currency, in
/// order of campaign. `earlier` are all closings of the client and currency before this one.
pub fn lines<'a>(
    records: impl Iterator<Item = &'a Record> + Clone,
    closing: &Closing,
    earlier: &[Closing],
    terms: &Terms,
) -> Vec<LineFacts> {
    let billed = |record: &&Record| closing.covers(record) && !earlier.iter().any(|before| before.covers(record));
    let mut lines: BTreeMap<String, LineFacts> = BTreeMap::new();
    let mut acquired: BTreeMap<CustomerKey, (UnixMicros, &str)> = BTreeMap::new();
    for record in records.clone().filter(|r| r.currency == closing.currency).filter(billed) {
        match &record.entry {
            Entry::Spend { campaign, nanos, .. } => {
                line(&mut lines, campaign).add(record.leaf, i128::from(*nanos), 0);
            }
            Entry::Acquired { campaign, customer, predicted_micros } => {
                let predicted = match terms.basis {
                    Basis::Predicted => i128::from(*predicted_micros) * NANOS_PER_MICRO,
                    Basis::Realised => 0,
                };
                line(&mut lines, campaign).add(record.leaf, 0, predicted);
                acquired.entry(*customer).or_insert((record.at, campaign));
            }
            Entry::Value { .. } => {}
        }
    }
    if terms.basis == Basis::Realised {
        realised(records, closing, &acquired, terms, &mut lines);
    }
    let mut lines: Vec<_> = lines.into_values().collect();
    lines.iter_mut().for_each(|line| line.leaves.sort_unstable());
    lines
}

/// Adds what the acquired customers spent from their acquisition up to the horizon.
fn realised<'a>(
    records: impl Iterator<Item = &'a Record>,
    closing: &Closing,
    acquired: &BTreeMap<CustomerKey, (UnixMicros, &str)>,
    terms: &Terms,
    lines: &mut BTreeMap<String, LineFacts>,
) {
    let in_reach = |r: &&Record| r.currency == closing.currency && r.client_seq <= closing.last_seq;
    for record in records.filter(in_reach) {
        let Entry::Value { customer, micros } = &record.entry else { continue };
        let Some((since, campaign)) = acquired.get(customer) else { continue };
        if *since <= record.at && record.at < since.plus(horizon(terms.horizon_days)) {
            line(lines, campaign).add(record.leaf, 0, i128::from(*micros) * NANOS_PER_MICRO);
        }
    }
}

fn line<'a>(lines: &'a mut BTreeMap<String, LineFacts>, campaign: &str) -> &'a mut LineFacts {
    lines.entry(campaign.to_owned()).or_insert_with(|| LineFacts {
        campaign: campaign.to_owned(),
        spend_nanos: 0,
        ltv_nanos: 0,
        leaves: Vec::new(),
    })
}

impl LineFacts {
    /// Sums of 2^63 leaves of 64-bit micros fit into 128 bits of nanos.
    fn add(&mut self, leaf: u64, spend_nanos: i128, ltv_nanos: i128) {
        self.spend_nanos += spend_nanos;
        self.ltv_nanos += ltv_nanos;
        self.leaves.push(leaf);
    }
}

/// Terms that no invoice can be drawn up under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("terms in leaf {leaf}: {field} is not valid")]
pub struct TermsError {
    /// Index of the leaf.
    pub leaf: u64,
    /// The field.
    pub field: &'static str,
}

impl Terms {
    /// Reads a leaf.
    pub fn of(leaf: u64, body: &leaf::Terms) -> Result<Self, TermsError> {
        let bad = |field| TermsError { leaf, field };
        let basis = match body.basis() {
            leaf::Basis::Predicted => Basis::Predicted,
            leaf::Basis::Realised => Basis::Realised,
            leaf::Basis::Unspecified => return Err(bad("basis")),
        };
        let netting = match body.netting() {
            leaf::Netting::Client => super::fee::Netting::Client,
            leaf::Netting::Campaign => super::fee::Netting::Campaign,
            leaf::Netting::Unspecified => return Err(bad("netting")),
        };
        Ok(Self {
            leaf,
            version: body.version,
            baseline_ppm: body.baseline_ppm,
            evidence_leaf: body.baseline_evidence.as_ref().map(|position| position.index),
            share_ppm: body.share_ppm,
            basis,
            netting,
            horizon_days: body.horizon_days,
            lookback_seconds: body.lookback_seconds,
            zone: body.zone.clone(),
            currency: body.currency.clone(),
            payment_days: body.payment_days,
            client_name: body.client_name.clone(),
        })
    }
}

#[cfg(test)]
#[path = "accounting_tests.rs"]
mod tests;
