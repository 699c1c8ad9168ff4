//! Slots of leases: a settlement says what its lease's grant and its bid's decision say.
//!
//! A decision is recorded in batches and may come behind its settlement, and a crash of SyncFlow may
//! lose one that was not acknowledged: so the two are compared at the end, and a settlement without a
//! decision is counted but is no finding.

use std::collections::BTreeMap;

use kiki::attribution::Slot;
use kiki::leaf;

use super::{Findings, Place};

/// What a bid was made on, as its decision and its settlement have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Bid {
    max_nanos: i64,
    predicted_ltv_micros: i64,
    model: String,
    customer: Vec<u8>,
}

/// The client's leases and their slots.
#[derive(Debug, Default)]
pub(super) struct Slots {
    granted: BTreeMap<u64, leaf::LeaseGranted>,
    decided: BTreeMap<Slot, Bid>,
    /// With the index of the settlement's leaf.
    settled: BTreeMap<Slot, (u64, Bid)>,
}

impl Slots {
    /// A lease is granted once.
    pub(super) fn grant(&mut self, index: u64, lease: &leaf::LeaseGranted, findings: &mut Findings) {
        if self.granted.insert(lease.lease_id, lease.clone()).is_some() {
            findings.add(Place::Leaf(index), format!("grants lease {} a second time", lease.lease_id));
        }
    }

    /// Bids were decided: a slot once.
    pub(super) fn decide(&mut self, index: u64, batch: &leaf::DecisionBatch, findings: &mut Findings) {
        for decision in batch.decisions.iter().filter(|decision| decision.refusals == 0) {
            let slot = Slot { lease_id: decision.lease_id, sequence: decision.sequence };
            let bid = Bid {
                max_nanos: decision.price_nanos,
                predicted_ltv_micros: decision.predicted_ltv_micros,
                model: decision.model.clone(),
                customer: decision.customer.to_vec(),
            };
            let known = self.decided.entry(slot).or_insert_with(|| bid.clone());
            if *known != bid {
                let problem = format!("decides slot {} of lease {} a second time and otherwise", slot.sequence, slot.lease_id);
                findings.add(Place::Leaf(index), problem);
            }
        }
    }

    /// Slots were charged: each once, under the lease as it was granted.
    pub(super) fn settle(&mut self, index: u64, batch: &leaf::SettlementBatch, findings: &mut Findings) {
        let lease = batch.lease_id;
        match self.granted.get(&lease) {
            None => findings.add(Place::Leaf(index), format!("settles lease {lease}, which was not granted before")),
            Some(granted) => {
                let pairs = [
                    ("campaign", batch.campaign != granted.campaign),
                    ("currency", batch.currency != granted.currency),
                    ("granted_at", batch.granted_at != granted.granted_at),
                    ("day_start", batch.day_start != granted.day_start),
                ];
                for (field, _) in pairs.into_iter().filter(|(_, differs)| *differs) {
                    findings.add(Place::Leaf(index), format!("{field} is not that of lease {lease}"));
                }
            }
        }
        for settlement in &batch.settlements {
            let slot = Slot { lease_id: lease, sequence: settlement.sequence };
            let bid = Bid {
                max_nanos: settlement.max_nanos,
                predicted_ltv_micros: settlement.predicted_ltv_micros,
                model: settlement.model.clone(),
                customer: settlement.customer.to_vec(),
            };
            if self.settled.insert(slot, (index, bid)).is_some() {
                findings.add(Place::Leaf(index), format!("slot {} of lease {lease} is settled a second time", slot.sequence));
            }
        }
    }

    /// Compares each settlement with its decision; says how many have none.
    pub(super) fn compare(&self, findings: &mut Findings) -> u64 {
        let mut without = 0;
        for (slot, (index, settled)) in &self.settled {
            match self.decided.get(slot) {
                Some(decided) => differences(*slot, *index, settled, decided, findings),
                None => without += 1,
            }
        }
        without
    }
}

fn differences(slot: Slot, index: u64, settled: &Bid, decided: &Bid, findings: &mut Findings) {
    let mut differs = |field: &str, settled: &dyn std::fmt::Display, decided: &dyn std::fmt::Display| {
        let Slot { lease_id, sequence } = slot;
        let problem = format!("slot {sequence} of lease {lease_id} is settled with {field} {settled} but was decided with {decided}");
        findings.add(Place::Leaf(index), problem);
    };
    if settled.max_nanos != decided.max_nanos {
        differs("max_nanos", &settled.max_nanos, &decided.max_nanos);
    }
    if settled.predicted_ltv_micros != decided.predicted_ltv_micros {
        differs("predicted_ltv_micros", &settled.predicted_ltv_micros, &decided.predicted_ltv_micros);
    }
    if settled.model != decided.model {
        differs("model", &settled.model, &decided.model);
    }
    if settled.customer != decided.customer {
        differs("customer", &hex::encode(&settled.customer), &hex::encode(&decided.customer));
    }
}
