//! Frequency caps on the bid path: asked last, of what nothing else refuses; told of every bid and notice that matters.
//!
//! A cap needs a customer: a bid without one has no cap to keep, and none refuses it. What is counted are bids of campaigns
//! for which the policy in force has a cap, so without one this costs nothing, and a new cap counts from when it takes force.
//! Asking and counting are two steps: bids for one customer that are decided at the same instant may pass together.
//!
//! Several SyncFlows share their counts in a store. Each also counts what it hears of itself: where the store has not
//! answered within its time budget, that is what the cap is held against.

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::guardrail::{Cap, MAX_NAMED, Policy};
use kiki::leaf;
use tokio::time::Instant;

use crate::clients::replicas::Replicas;
use crate::domain::auction::Candidate;
use crate::domain::frequency::{Customer, Fate, Memory, Question, Shown};
use crate::domain::receipt::Receipt;
use crate::metrics::Metrics;
use crate::store::Counter;

/// Holds caps, and counts for them.
#[derive(Debug)]
pub struct Frequency {
    memory: Memory,
    shared: Option<Box<dyn Counter>>,
    budget: Duration,
    replicas: Arc<Replicas>,
    metrics: Metrics,
}

impl Frequency {
    /// Nobody has seen anything yet, but what the shared counts know. They may take `budget` of a bid's time.
    #[must_use]
    pub fn new(shared: Option<Box<dyn Counter>>, budget: Duration, replicas: Arc<Replicas>, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self { memory: Memory::default(), shared, budget, replicas, metrics })
    }

    /// Marks those that a cap refuses. Of those that something else refuses nothing is asked. It takes until `deadline` at the most.
    pub async fn hold(&self, candidates: &mut [Candidate<'_>], policy: &Policy, now: UnixMicros, deadline: Instant) {
        let may = || candidates.iter().filter(|candidate| candidate.refusals.is_empty());
        let asked: Vec<(Vec<Cap>, Vec<Question>)> = may().map(|candidate| caps(policy, candidate)).collect();
        let questions: Vec<Question> = asked.iter().flat_map(|(_, questions)| questions).cloned().collect();
        if questions.is_empty() {
            return;
        }
        let mut counts = self.counts(questions, now, deadline).await.into_iter();
        let may = candidates.iter_mut().filter(|candidate| candidate.refusals.is_empty());
        for (candidate, (caps, _)) in may.zip(asked) {
            let full = caps.into_iter().zip(counts.by_ref()).filter(|(cap, count)| *count >= cap.most);
            let rules: Vec<String> = full.map(|(cap, _)| policy.rule_ids()[usize::from(cap.rule)].clone()).collect();
            if !rules.is_empty() {
                candidate.refusals = candidate.refusals.with(leaf::Refusal::Frequency);
                candidate.rules.extend(rules.into_iter().take(MAX_NAMED));
            }
        }
    }

    async fn counts(&self, questions: Vec<Question>, now: UnixMicros, deadline: Instant) -> Vec<u32> {
        if let Some(shared) = &self.shared {
            let until = deadline.min(Instant::now() + self.budget);
            if let Ok(Some(counts)) = tokio::time::timeout_at(until, shared.counts(questions.clone(), now)).await {
                return counts;
            }
            self.metrics.frequency_alone.inc();
        }
        questions.iter().map(|question| self.memory.count(question, now)).collect()
    }

    /// Tells of what a notice says became of a bid.
    pub fn noticed(&self, receipt: &Receipt, fate: Fate, now: UnixMicros) {
        if let Some(policy) = self.replicas.policy() {
            self.tell(receipt, fate, &policy, now);
        }
    }

    /// Tells of what became of a bid; for one that was made the receipt is what its notices will carry.
    pub fn tell<Id: AsRef<str>>(&self, receipt: &Receipt<Id>, fate: Fate, policy: &Policy, now: UnixMicros) {
        let (client, campaign) = (receipt.client.as_ref(), receipt.campaign.as_ref());
        let Some(key) = receipt.customer.filter(|_| policy.caps_frequency()) else { return };
        if policy.caps(client, campaign).is_empty() {
            return;
        }
        let customer = Customer { client: client.to_owned(), key };
        let slot = (receipt.lease_id, receipt.sequence);
        let shown = Shown { slot, campaign: campaign.to_owned(), at: receipt.bid_at, deadline: receipt.deadline };
        if let Some(shared) = &self.shared {
            shared.take(&customer, &shown, fate, now);
        }
        let forgotten = self.memory.take(&customer, &shown, fate, now);
        self.metrics.frequency_forgotten.inc_by(forgotten as u64);
    }
}

/// The caps of a candidate, and what has to be asked for each.
fn caps(policy: &Policy, candidate: &Candidate<'_>) -> (Vec<Cap>, Vec<Question>) {
    let (client, campaign) = (&candidate.campaign.client, &candidate.campaign.id);
    let Some(key) = candidate.customer else { return Default::default() };
    let caps = policy.caps(client, campaign);
    let question = |cap: &Cap| {
        let customer = Customer { client: client.clone(), key };
        Question { customer, campaign: cap.of_campaign.then(|| campaign.clone()), hours: cap.hours }
    };
    let questions = caps.iter().map(question).collect();
    (caps, questions)
}

#[cfg(test)]
mod tests {
    use kiki::ids::CustomerKey;

    use super::*;
    use crate::store::Counts;

    const BUDGET: Duration = Duration::from_millis(5);

    /// Shared counts that never answer.
    #[derive(Debug)]
    struct Silent;

    impl Counter for Silent {
        fn counts(&self, _: Vec<Question>, _: UnixMicros) -> Counts<'_> {
            Box::pin(std::future::pending())
        }
        fn take(&self, _: &Customer, _: &Shown, _: Fate, _: UnixMicros) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_bid_waits_for_its_budget_and_no_longer_and_then_goes_by_its_own_counts() {
        let metrics = Metrics::new(&kiki::runtime::Metrics::new());
        let frequency = Frequency::new(Some(Box::new(Silent)), BUDGET, Replicas::new(metrics.clone()), metrics.clone());
        let customer = Customer { client: "acme".into(), key: CustomerKey([1; 16]) };
        let (at, deadline) = (UnixMicros(0), UnixMicros(1));
        let shown = Shown { slot: (1, 0), campaign: "spring".into(), at, deadline };
        assert_eq!(frequency.memory.take(&customer, &shown, Fate::Open, at), 0);
        let questions = vec![Question { customer, campaign: None, hours: 1 }];
        let started = Instant::now();
        assert_eq!(frequency.counts(questions.clone(), at, started + 10 * BUDGET).await, [1]);
        assert_eq!((started.elapsed(), metrics.frequency_alone.get()), (BUDGET, 1));
        let started = Instant::now();
        assert_eq!(frequency.counts(questions, at, started + BUDGET / 5).await, [1]);
        assert_eq!((started.elapsed(), metrics.frequency_alone.get()), (BUDGET / 5, 2), "the bid's own deadline comes first");
    }
}
