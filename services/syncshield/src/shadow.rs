//! What the shadow policy would have changed: counted over checks and recorded decisions, off the bid path.
//!
//! The counts are this process's, by version; a whole log is counted by `kiki audit replay-policy`.

use kiki::guardrail::{Policy, Refusals};
use kiki::leaf;
use kiki::pb::syncshield::v1::ShadowCounts;
use prometheus::{IntCounterVec, Opts};
use prost::Message as _;

use crate::domain::ledger::Item;
use crate::store::Catalog;

const LABELS: [&str; 2] = ["version", "change"];
const SAME: &str = "same";
const WOULD_REFUSE: &str = "would_refuse";
const WOULD_ALLOW: &str = "would_allow";

/// The counts.
#[derive(Debug, Clone)]
pub struct Shadow {
    counts: IntCounterVec,
}

impl Shadow {
    pub(crate) fn new() -> Result<Self, prometheus::Error> {
        let opts = Opts::new("syncshield_policy_shadow_total", "checks and decisions by what the shadow policy would have changed");
        Ok(Self { counts: IntCounterVec::new(opts, &LABELS)? })
    }

    /// The metric.
    pub(crate) fn metric(&self) -> IntCounterVec {
        self.counts.clone()
    }

    /// The counts of a version.
    #[must_use]
    pub fn of(&self, version: u64) -> ShadowCounts {
        let version = version.to_string();
        let count = |change| self.counts.with_label_values(&[version.as_str(), change]).get();
        ShadowCounts { same: count(SAME), would_refuse: count(WOULD_REFUSE), would_allow: count(WOULD_ALLOW) }
    }

    /// Counts one answer.
    pub(crate) fn count(&self, shadow: &Policy, refused: Refusals, would: Refusals) {
        let mut counts = ShadowCounts::default();
        *change(&mut counts, refused, would) += 1;
        self.add(shadow.version, &counts);
    }

    /// Adds counts to a version's.
    pub(crate) fn add(&self, version: u64, counts: &ShadowCounts) {
        let version = version.to_string();
        for (change, count) in [(SAME, counts.same), (WOULD_REFUSE, counts.would_refuse), (WOULD_ALLOW, counts.would_allow)] {
            self.counts.with_label_values(&[version.as_str(), change]).inc_by(count);
        }
    }
}

fn change(counts: &mut ShadowCounts, refused: Refusals, would: Refusals) -> &mut u64 {
    match (refused.is_empty(), would.is_empty()) {
        (true, false) => &mut counts.would_refuse,
        (false, true) => &mut counts.would_allow,
        _ => &mut counts.same,
    }
}

/// What the shadow policy, where there is one, says to decisions that are about to be recorded.
pub(crate) fn judge(catalog: &Catalog, items: &[(String, Item)]) -> Option<(u64, ShadowCounts)> {
    let shadow = catalog.shadow.as_ref()?;
    let mut counts = ShadowCounts::default();
    for (client, item) in items {
        let Item::Decisions(batch) = item else { continue };
        let Ok(batch) = leaf::DecisionBatch::decode(batch.clone()) else { continue }; // and the log refuses it
        for decision in &batch.decisions {
            let refused = Refusals(decision.refusals).and(Refusals::GUARDRAILS);
            if let Some(would) = shadow.judge(client, &batch, decision) {
                *change(&mut counts, refused, would.refusals) += 1;
            }
        }
    }
    Some((shadow.version, counts))
}

/// Whether a record is a decision's, for the search of one.
pub(crate) fn is_of(decision: &leaf::Decision, opportunity: &[u8], lease_id: u64, sequence: u32) -> bool {
    if opportunity.is_empty() {
        decision.refusals == 0 && decision.lease_id == lease_id && decision.sequence == sequence
    } else {
        decision.opportunity == opportunity
    }
}
