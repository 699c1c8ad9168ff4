//! The log's leaves added up by a second hand: nothing of SyncShield's own fold is used.

use std::collections::{BTreeMap, BTreeSet};

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};

#[derive(Debug, Default)]
struct Lease {
    amount: i128,
    expires: UnixMicros,
    returned: bool,
    mark: (u32, i128),
    closed: BTreeSet<u32>,
    /// What was held for the closed slots.
    freed: i128,
}

impl Lease {
    fn committed(&self, now: UnixMicros) -> i128 {
        let lives = !self.returned && now < self.expires;
        let all_closed = !lives && self.closed.len() >= self.mark.0 as usize;
        let held = if lives { self.amount } else { self.mark.1 };
        if all_closed { 0 } else { (held - self.freed).max(0) }
    }

    fn close(&mut self, sequence: u32, max_nanos: i64) -> bool {
        self.freed += i128::from(max_nanos);
        self.closed.insert(sequence)
    }
}

/// What a campaign was charged, and what is set aside for it.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    leases: BTreeMap<u64, Lease>,
    pub settled: i128,
    pub corrected: i128,
    /// Slots that were charged, and at what.
    pub slots: BTreeMap<(u64, u32), i64>,
    /// Slots that a notice, and no report, has voided.
    pub voided: BTreeSet<(u64, u32)>,
}

impl Fold {
    /// Takes in the next leaf; at this moment and from it on, what was charged and what may still be is within the limit.
    pub(crate) fn take(&mut self, head: &leaf::Leaf, body: Body, limit: i64) -> Result<(), String> {
        let now = UnixMicros::from_pb(head.recorded_at.as_ref()).unwrap_or_default();
        match body {
            Body::LeaseGranted(granted) => {
                let amount = i128::from(granted.amount_micros) * 1_000;
                let expires = UnixMicros::from_pb(granted.expires_at.as_ref()).unwrap_or_default();
                self.leases.insert(granted.lease_id, Lease { amount, expires, ..Lease::default() });
            }
            Body::LeaseRenewed(renewed) => {
                self.lease(renewed.lease_id)?.expires = UnixMicros::from_pb(renewed.expires_at.as_ref()).unwrap_or_default();
            }
            Body::SpendMark(mark) => self.lease(mark.lease_id)?.mark = (mark.sequence, mark.amount_nanos.into()),
            Body::LeaseReturned(used) => {
                let lease = self.lease(used.lease_id)?;
                (lease.mark, lease.returned) = ((used.sequence, used.amount_nanos.into()), true);
            }
            Body::Settlements(batch) => {
                for one in batch.settlements {
                    let mark = self.lease(batch.lease_id)?.mark.0;
                    if one.sequence >= mark {
                        return Err(format!("slot {} of lease {} was charged above the mark {mark}", one.sequence, batch.lease_id));
                    }
                    if !self.lease(batch.lease_id)?.close(one.sequence, one.max_nanos) {
                        return Err(format!("slot {} of lease {} was closed twice", one.sequence, batch.lease_id));
                    }
                    self.settled += i128::from(one.price_nanos);
                    self.slots.insert((batch.lease_id, one.sequence), one.price_nanos);
                }
            }
            Body::Voids(batch) => {
                for one in batch.voids {
                    if !self.lease(batch.lease_id)?.close(one.sequence, one.max_nanos) {
                        return Err(format!("slot {} of lease {} was closed twice", one.sequence, batch.lease_id));
                    }
                    if one.evidence.is_empty() {
                        self.voided.insert((batch.lease_id, one.sequence));
                    }
                }
            }
            Body::SpendAdjustment(adjustment) => self.corrected += i128::from(adjustment.amount_nanos),
            _ => {}
        }
        let taken = self.settled + self.leases.values().map(|lease| lease.committed(now)).sum::<i128>();
        if taken > i128::from(limit) {
            return Err(format!("at leaf {} {taken} nanos are charged or set aside of {limit}", head.index));
        }
        Ok(())
    }

    fn lease(&mut self, id: u64) -> Result<&mut Lease, String> {
        self.leases.get_mut(&id).ok_or_else(|| format!("no lease {id}"))
    }
}
