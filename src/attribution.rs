//! Attribution: which campaign acquired a customer. A pure function of one client's leaves, the same code where the
//! log is written (SyncShield), where it is billed (Billing) and where an invoice is verified.
//!
//! The rule, `LAST_BILLED_V1`. A purchase acquires its customer for the client when
//! 1. the customer was not acquired before,
//! 2. its value is above 0, and
//! 3. there is an impression of the client in the purchase's currency that was billed no later than the purchase
//!    (`noticed_at <= occurred_at`) and bid on within the look-back window before it
//!    (`occurred_at - lookback <= bid_at`): the one of the receipt that came with the purchase, else the latest of the
//!    customer's own by `bid_at`, then lease, then sequence.
//!
//! Only a customer's last [`MAX_IMPRESSIONS`] billed impressions are kept, which bounds memory and is part of the rule.
//! A receipt whose slot is not among the client's last [`MAX_SLOTS`] billed impressions counts as none.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMicros;
use crate::ids::CustomerKey;
use crate::leaf;

/// Billed impressions kept for each customer. A customer who sees one a minute keeps a quarter of an hour.
pub const MAX_IMPRESSIONS: usize = 16;
/// Billed impressions kept for receipts: about 150 bytes each, so 150 MB for a client at the bound.
pub const MAX_SLOTS: usize = 1_000_000;

/// A slot under a lease: what a receipt names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The lease.
    pub lease_id: u64,
    /// The slot's number under it.
    pub sequence: u32,
}

/// A billed impression, with the prediction that it was bought on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Impression {
    /// Its slot.
    pub slot: Slot,
    /// The campaign that bought it.
    pub campaign: String,
    /// The campaign's currency.
    pub currency: String,
    /// When the bid was made.
    pub bid_at: UnixMicros,
    /// When the charge was noticed.
    pub noticed_at: UnixMicros,
    /// The prediction's mean, micros of the currency.
    pub predicted_ltv_micros: i64,
    /// The model that made it.
    pub model: String,
    /// The prediction's horizon, days.
    pub horizon_days: u32,
}

/// What attribution remembers of one client.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Attribution {
    by_customer: BTreeMap<CustomerKey, Vec<Impression>>,
    by_slot: BTreeMap<Slot, Impression>,
    acquired: BTreeMap<CustomerKey, UnixMicros>,
    events: BTreeMap<String, u64>,
}

impl Attribution {
    /// Takes in a batch of settlements.
    pub fn settled(&mut self, batch: &leaf::SettlementBatch) {
        for settlement in &batch.settlements {
            let slot = Slot { lease_id: batch.lease_id, sequence: settlement.sequence };
            let impression = Impression {
                slot,
                campaign: batch.campaign.clone(),
                currency: batch.currency.clone(),
                bid_at: UnixMicros::from_pb(settlement.bid_at.as_ref()).unwrap_or_default(),
                noticed_at: UnixMicros::from_pb(settlement.noticed_at.as_ref()).unwrap_or_default(),
                predicted_ltv_micros: settlement.predicted_ltv_micros,
                model: settlement.model.clone(),
                horizon_days: settlement.horizon_days,
            };
            if let Some(customer) = CustomerKey::from_bytes(&settlement.customer) {
                let kept = self.by_customer.entry(customer).or_default();
                let at = kept.partition_point(|other| order(other) < order(&impression));
                kept.insert(at, impression.clone());
                if kept.len() > MAX_IMPRESSIONS {
                    kept.remove(0);
                }
            }
            self.by_slot.insert(slot, impression);
            if self.by_slot.len() > MAX_SLOTS {
                self.by_slot.pop_first();
            }
        }
    }

    /// The index of the outcome of this id, if it was taken before.
    #[must_use]
    pub fn index_of(&self, event_id: &str) -> Option<u64> {
        self.events.get(event_id).copied()
    }

    /// Has every outcome so far stand at this index: what follows from the log is in another one from here on.
    pub fn forget_places(&mut self, index: u64) {
        self.events.values_mut().for_each(|at| *at = index);
    }

    /// When the customer was acquired, if it was.
    #[must_use]
    pub fn acquired_at(&self, customer: &CustomerKey) -> Option<UnixMicros> {
        self.acquired.get(customer).copied()
    }

    /// The conversion that this purchase makes, if it makes one.
    #[must_use]
    pub fn conversion(&self, outcome: &leaf::Outcome, lookback: Duration) -> Option<leaf::Conversion> {
        let customer = CustomerKey::from_bytes(&outcome.customer)?;
        let occurred_at = UnixMicros::from_pb(outcome.occurred_at.as_ref())?;
        if outcome.value_micros <= 0 || self.acquired.contains_key(&customer) {
            return None;
        }
        let counts = |impression: &&Impression| {
            impression.currency == outcome.currency
                && impression.noticed_at <= occurred_at
                && impression.bid_at <= occurred_at
                && occurred_at.since(impression.bid_at) <= lookback
        };
        let receipt = Slot { lease_id: outcome.lease_id, sequence: outcome.sequence };
        let by_receipt = outcome.has_receipt.then(|| self.by_slot.get(&receipt)).flatten().filter(counts);
        let last = || self.by_customer.get(&customer)?.iter().rev().find(counts);
        let impression = by_receipt.or_else(last)?;
        Some(leaf::Conversion {
            event_id: outcome.event_id.clone(),
            occurred_at: outcome.occurred_at,
            customer: outcome.customer.clone(),
            campaign: impression.campaign.clone(),
            currency: impression.currency.clone(),
            predicted_ltv_micros: impression.predicted_ltv_micros,
            model: impression.model.clone(),
            horizon_days: impression.horizon_days,
            lease_id: impression.slot.lease_id,
            sequence: impression.slot.sequence,
            rule: leaf::AttributionRule::LastBilledV1.into(),
            by_receipt: by_receipt.is_some(),
        })
    }

    /// Takes in the outcome that stands at `index`; its conversion, if it makes one, stands in the leaf after it.
    pub fn observed(&mut self, outcome: &leaf::Outcome, index: u64) {
        self.events.insert(outcome.event_id.clone(), index);
    }

    /// Takes in a conversion.
    pub fn converted(&mut self, conversion: &leaf::Conversion) {
        if let Some(customer) = CustomerKey::from_bytes(&conversion.customer) {
            let occurred_at = UnixMicros::from_pb(conversion.occurred_at.as_ref()).unwrap_or_default();
            self.acquired.entry(customer).or_insert(occurred_at);
        }
    }
}

fn order(impression: &Impression) -> (UnixMicros, Slot) {
    (impression.bid_at, impression.slot)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(100);

    fn time(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(UnixMicros(seconds * 1_000_000).into())
    }

    fn billed(sequence: u32, bid_at: i64, noticed_at: i64) -> leaf::SettlementBatch {
        leaf::SettlementBatch {
            lease_id: 1,
            campaign: format!("c{sequence}"),
            currency: "USD".into(),
            settlements: vec![leaf::Settlement {
                sequence,
                bid_at: time(bid_at),
                noticed_at: time(noticed_at),
                customer: vec![1; 16].into(),
                predicted_ltv_micros: i64::from(sequence) * 10,
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    fn purchase(at: i64) -> leaf::Outcome {
        leaf::Outcome {
            event_id: format!("e{at}"),
            occurred_at: time(at),
            customer: vec![1; 16].into(),
            currency: "USD".into(),
            value_micros: 5,
            ..Default::default()
        }
    }

    fn seen(batches: &[leaf::SettlementBatch]) -> Attribution {
        let mut attribution = Attribution::default();
        batches.iter().for_each(|batch| attribution.settled(batch));
        attribution
    }

    #[test]
    fn takes_the_last_impression_that_was_billed_before_the_purchase() {
        let attribution = seen(&[billed(2, 60, 70), billed(1, 50, 55), billed(3, 90, 120)]);
        let conversion = attribution.conversion(&purchase(100), WINDOW).expect("attributed");
        assert_eq!((conversion.campaign.as_str(), conversion.predicted_ltv_micros, conversion.by_receipt), ("c2", 20, false));
    }

    #[test]
    fn a_receipt_goes_before_the_last_impression() {
        let attribution = seen(&[billed(1, 50, 55), billed(2, 60, 70)]);
        let outcome = leaf::Outcome { lease_id: 1, sequence: 1, has_receipt: true, ..purchase(100) };
        let conversion = attribution.conversion(&outcome, WINDOW).expect("attributed");
        assert_eq!((conversion.campaign.as_str(), conversion.by_receipt), ("c1", true));
    }

    #[test]
    fn nothing_outside_the_window_after_the_purchase_or_in_another_currency() {
        let attribution = seen(&[billed(1, 50, 55)]);
        assert!(attribution.conversion(&purchase(150), WINDOW).is_some());
        assert!(attribution.conversion(&purchase(151), WINDOW).is_none());
        assert!(attribution.conversion(&purchase(54), WINDOW).is_none());
        assert!(attribution.conversion(&leaf::Outcome { currency: "EUR".into(), ..purchase(100) }, WINDOW).is_none());
        assert!(attribution.conversion(&leaf::Outcome { value_micros: -5, ..purchase(100) }, WINDOW).is_none());
    }

    #[test]
    fn a_customer_is_acquired_once() {
        let mut attribution = seen(&[billed(1, 50, 55)]);
        let conversion = attribution.conversion(&purchase(60), WINDOW).expect("attributed");
        attribution.converted(&conversion);
        assert!(attribution.conversion(&purchase(61), WINDOW).is_none());
    }
}
