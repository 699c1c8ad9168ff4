//! What became of a lease's slots: charged or void, once.

use kiki::leaf::{self, leaf::Body};

use super::{Ledger, Recorded};
use crate::domain::budget::SlotState;
use crate::domain::refusal::Refusal;

/// Settlements in one leaf: about 150 bytes each, 38 KiB of the 64 that a leaf may have.
const MAX_PER_LEAF: usize = 256;

/// What became of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotOutcome {
    /// It was closed.
    Applied,
    /// It had been closed, in the same way.
    Duplicate,
    /// It had been closed in another way: nothing changed.
    Conflict(String),
    /// It cannot be closed, and why.
    Refused(String),
}

/// Closes one slot.
#[derive(Debug, Clone)]
pub struct Closing<T> {
    /// Whose.
    pub client: String,
    /// Which campaign's.
    pub campaign: String,
    /// Which lease's.
    pub lease_id: u64,
    /// With what.
    pub what: T,
}

impl Ledger {
    /// Closes slots with their charges: one leaf for each run of items of one lease.
    pub fn settle(&mut self, items: Vec<Closing<leaf::Settlement>>) -> Vec<SlotOutcome> {
        self.close(
            items,
            SlotState::Charged,
            |s| s.sequence,
            |ledger, client, campaign, lease_id, mut settlements: Vec<leaf::Settlement>| {
                let state = ledger.state.campaign(client, campaign)?;
                let lease = ledger.state.lease(client, campaign, lease_id)?;
                for settlement in &mut settlements {
                    settlement.excess = settlement.price_nanos > settlement.max_nanos || settlement.sequence >= lease.mark_sequence;
                    // Whose charge it is stands in the leaf, also where the holder did not say.
                    if settlement.platform.is_empty() {
                        settlement.platform.clone_from(&lease.platform);
                    }
                }
                let (granted_at, day_start) = (Some(lease.granted_at.into()), Some(lease.day_start.into()));
                let batch = leaf::SettlementBatch {
                    lease_id,
                    campaign: campaign.to_owned(),
                    currency: state.currency.clone(),
                    granted_at,
                    day_start,
                    settlements,
                };
                ledger.append(client, ("", 0), Body::Settlements(batch))
            },
        )
    }

    /// Closes slots that cost nothing.
    pub fn void(&mut self, items: Vec<Closing<leaf::Void>>) -> Vec<SlotOutcome> {
        self.close(
            items,
            SlotState::Void,
            |v| v.sequence,
            |ledger, client, campaign, lease_id, voids| {
                let batch = leaf::VoidBatch { lease_id, campaign: campaign.to_owned(), voids };
                ledger.append(client, ("", 0), Body::Voids(batch))
            },
        )
    }

    fn close<T>(
        &mut self,
        items: Vec<Closing<T>>,
        becomes: SlotState,
        sequence: impl Fn(&T) -> u32,
        write: impl Fn(&mut Self, &str, &str, u64, Vec<T>) -> Result<Recorded, Refusal>,
    ) -> Vec<SlotOutcome> {
        let mut outcomes = Vec::with_capacity(items.len());
        let mut items = items.into_iter().peekable();
        while let Some(first) = items.next() {
            let (client, campaign, lease_id) = (first.client, first.campaign, first.lease_id);
            let mut run = Vec::new();
            let mut taken = std::collections::BTreeSet::new();
            let mut next = Some(first.what);
            let start = outcomes.len();
            while let Some(what) = next {
                let outcome = self.slot(&client, &campaign, lease_id, sequence(&what), becomes);
                let outcome =
                    if outcome == SlotOutcome::Applied && !taken.insert(sequence(&what)) { SlotOutcome::Duplicate } else { outcome };
                if outcome == SlotOutcome::Applied {
                    run.push(what);
                }
                outcomes.push(outcome);
                let same = |i: &Closing<T>| i.client == client && i.campaign == campaign && i.lease_id == lease_id;
                next = if run.len() < MAX_PER_LEAF { items.next_if(same).map(|i| i.what) } else { None };
            }
            if !run.is_empty()
                && let Err(refusal) = write(self, &client, &campaign, lease_id, run)
            {
                let refused = |outcome: &mut SlotOutcome| {
                    if *outcome == SlotOutcome::Applied {
                        *outcome = SlotOutcome::Refused(refusal.to_string())
                    }
                };
                outcomes[start..].iter_mut().for_each(refused);
            }
        }
        outcomes
    }

    fn slot(&self, client: &str, campaign: &str, lease_id: u64, sequence: u32, becomes: SlotState) -> SlotOutcome {
        match self.state.lease(client, campaign, lease_id) {
            Ok(lease) if sequence >= lease.slots => SlotOutcome::Refused(format!("slot {sequence}: lease {lease_id} has {}", lease.slots)),
            Ok(lease) => match lease.slot(sequence) {
                SlotState::Open => SlotOutcome::Applied,
                was if was == becomes => SlotOutcome::Duplicate,
                was => SlotOutcome::Conflict(format!("slot {sequence} of lease {lease_id} is {was:?}, and would become {becomes:?}")),
            },
            // A lease is forgotten long after all of it that was spent is closed.
            Err(Refusal::NotFound { what: "lease", .. }) if (1..=self.state.last_lease_id).contains(&lease_id) => SlotOutcome::Duplicate,
            Err(refusal) => SlotOutcome::Refused(refusal.to_string()),
        }
    }
}
