//! Frequency caps on the bid path: asked last, of what nothing else refuses; told of every bid and notice that matters.
//!
//! A cap needs a customer: a bid without one has no cap to keep, and none refuses it. What is counted are bids of campaigns
//! for which the policy in force has a cap, so without one this costs nothing, and a new cap counts from when it takes force.
//! Asking and counting are two steps: bids for one customer that are decided at the same instant may pass together.

use std::collections::HashMap;
use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::guardrail::{Cap, MAX_NAMED, Policy};
use kiki::ids::CustomerKey;
use kiki::leaf;

use crate::clients::replicas::Replicas;
use crate::domain::auction::Candidate;
use crate::domain::frequency::{Customer, Fate, Memory, Question, Shown};
use crate::domain::receipt::Receipt;
use crate::metrics::Metrics;

/// The customer as each client knows them.
pub type Customers = HashMap<String, Option<CustomerKey>>;

/// Holds caps, and counts for them.
#[derive(Debug)]
pub struct Frequency {
    memory: Memory,
    replicas: Arc<Replicas>,
    metrics: Metrics,
}

impl Frequency {
    /// Nobody has seen anything yet.
    #[must_use]
    pub fn new(replicas: Arc<Replicas>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { memory: Memory::default(), replicas, metrics })
    }

    /// Those that no cap refuses, in their order; then those that one does, with the reason.
    #[must_use]
    pub fn hold(
        &self,
        candidates: Vec<Candidate>,
        customers: &Customers,
        policy: &Policy,
        now: UnixMicros,
    ) -> (Vec<Candidate>, Vec<Candidate>) {
        let held = |mut candidate: Candidate| {
            let caps = caps(policy, &candidate, customers);
            let full = |(cap, question): &(Cap, Question)| self.memory.count(question, now) >= cap.most;
            let rules = caps.iter().filter(|one| full(one)).map(|(cap, _)| &policy.rule_ids()[usize::from(cap.rule)]);
            candidate.rules.extend(rules.take(MAX_NAMED).cloned());
            if !candidate.rules.is_empty() {
                candidate.refusals = candidate.refusals.with(leaf::Refusal::Frequency);
            }
            candidate
        };
        candidates.into_iter().map(held).partition(|candidate| candidate.refusals.is_empty())
    }

    /// Tells of what became of a bid; for one that was made the receipt is what its notices will carry.
    pub fn tell(&self, receipt: &Receipt, fate: Fate, now: UnixMicros) {
        let Some(key) = receipt.customer else { return };
        let Some(policy) = self.replicas.policy() else { return };
        if policy.caps(&receipt.client, &receipt.campaign).is_empty() {
            return;
        }
        let customer = Customer { client: receipt.client.clone(), key };
        let slot = (receipt.lease_id, receipt.sequence);
        let shown = Shown { slot, campaign: receipt.campaign.clone(), at: receipt.bid_at, deadline: receipt.deadline };
        let forgotten = self.memory.take(&customer, &shown, fate, now);
        self.metrics.frequency_forgotten.inc_by(forgotten as u64);
    }
}

/// What has to be asked for a candidate.
fn caps(policy: &Policy, candidate: &Candidate, customers: &Customers) -> Vec<(Cap, Question)> {
    let (client, campaign) = (&candidate.campaign.client, &candidate.campaign.id);
    let Some(key) = customers.get(client).copied().flatten() else { return Vec::new() };
    let question = |cap: Cap| {
        let customer = Customer { client: client.clone(), key };
        (cap, Question { customer, campaign: cap.of_campaign.then(|| campaign.clone()), hours: cap.hours })
    };
    policy.caps(client, campaign).into_iter().map(question).collect()
}
