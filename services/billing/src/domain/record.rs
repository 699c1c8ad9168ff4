//! What billing keeps of a leaf: the few numbers that an invoice is summed from.

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::leaf::{self, leaf::Body};

/// One leaf's worth, with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Index of the leaf.
    pub leaf: u64,
    /// The client whose it is.
    pub client: String,
    /// Its place among the client's leaves.
    pub client_seq: u64,
    /// ISO 4217 code.
    pub currency: String,
    /// Accounting time: the grant of a settlement's lease, when a conversion or outcome occurred.
    pub at: UnixMicros,
    /// What happened.
    pub entry: Entry,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A batch of impressions was charged, or what was charged was corrected.
    Spend {
        /// Campaign id.
        campaign: String,
        /// Sum of the charges; below 0 for a credit.
        nanos: i64,
        /// How many.
        impressions: u32,
    },
    /// A customer was acquired.
    Acquired {
        /// Campaign id.
        campaign: String,
        /// Who.
        customer: CustomerKey,
        /// The prediction frozen then.
        predicted_micros: i64,
    },
    /// A customer spent (or was refunded).
    Value {
        /// Who.
        customer: CustomerKey,
        /// How much, signed.
        micros: i64,
    },
}

/// A leaf that no invoice can be computed from.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("leaf {leaf}: {field} {problem}")]
pub struct RecordError {
    /// Index of the leaf.
    pub leaf: u64,
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// What billing keeps of a leaf; nothing of most kinds.
pub fn of(header: &leaf::Leaf, body: &Body) -> Result<Option<Record>, RecordError> {
    let bad = |field, problem| RecordError { leaf: header.index, field, problem };
    let time = |field, at: Option<&_>| UnixMicros::from_pb(at).ok_or_else(|| bad(field, "is absent or out of range"));
    let key = |bytes: &[u8]| CustomerKey::from_bytes(bytes).ok_or_else(|| bad("customer", "is not 16 bytes"));
    let (currency, at, entry) = match body {
        Body::Settlements(batch) => {
            let prices = batch.settlements.iter().map(|s| s.price_nanos);
            let nanos = sum(prices).ok_or_else(|| bad("price_nanos", "adds up to more than 64 bits"))?;
            let impressions = u32::try_from(batch.settlements.len()).map_err(|_| bad("settlements", "are too many"))?;
            let entry = Entry::Spend { campaign: batch.campaign.clone(), nanos, impressions };
            (&batch.currency, time("granted_at", batch.granted_at.as_ref())?, entry)
        }
        // A correction is spend without an impression, below 0 for a credit, and billed where it is accounted.
        Body::SpendAdjustment(adjustment) => {
            let (campaign, nanos) = (adjustment.campaign.clone(), adjustment.amount_nanos);
            let entry = Entry::Spend { campaign, nanos, impressions: 0 };
            (&adjustment.currency, time("accounted_at", adjustment.accounted_at.as_ref())?, entry)
        }
        Body::Conversion(conversion) => {
            let entry = Entry::Acquired {
                campaign: conversion.campaign.clone(),
                customer: key(&conversion.customer)?,
                predicted_micros: conversion.predicted_ltv_micros,
            };
            (&conversion.currency, time("occurred_at", conversion.occurred_at.as_ref())?, entry)
        }
        Body::Outcome(outcome) => {
            let entry = Entry::Value { customer: key(&outcome.customer)?, micros: outcome.value_micros };
            (&outcome.currency, time("occurred_at", outcome.occurred_at.as_ref())?, entry)
        }
        _ => return Ok(None),
    };
    let (client, client_seq) = (header.client.clone(), header.client_seq);
    Ok(Some(Record { leaf: header.index, client, client_seq, currency: currency.clone(), at, entry }))
}

fn sum(mut prices: impl Iterator<Item = i64>) -> Option<i64> {
    prices.try_fold(0_i64, i64::checked_add)
}
