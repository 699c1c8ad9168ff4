//! The holder's side of a budget lease: hands out slots, never above what the log has acknowledged.
//!
//! Invariants: slots are numbered without a gap; the prices of the slots handed out never add up to more
//! than the mark, nor the mark to more than the lease; nothing is handed out at or after the end less the clock skew.
//! What happens depends on the order of calls and on the instants given, and on nothing else.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::money::{Micros, NANOS_PER_MICRO, Nanos};

use super::burn::Taken;

/// A mark is moved by an eighth of the lease, or by room for 32 bids where that is more: a crash then leaves at most that
/// much held for nothing, and a lease costs at most nine writes to the log, a small one two or three.
const MARKS: i128 = 8;
const BIDS_A_MARK: i128 = 32;
/// Slots of the first mark: an eighth of the 65,536 that the log gives a lease.
const OPENING_SLOTS: u32 = 8_192;
/// No lease takes more of a budget: when it runs out, at most so much a holder is out of the others' reach.
const LEASES_A_BUDGET: i64 = 16;
/// Room for so many bids: what a campaign holds before its rate is known, and while it is quiet.
const BIDS_A_LEASE: i128 = 64;
/// 9,000 million of a currency: below what 64 bits of nanos hold, so that a mark always fits.
const MAX_LEASE_MICROS: i64 = 9_000_000_000_000_000;

/// A lease as it was granted, or renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which one, in its log.
    pub lease_id: u64,
    /// Raised by each renewal; an older one is refused by the log.
    pub epoch: u64,
    /// What the slots' prices may add up to.
    pub amount: Micros,
    /// When it was granted.
    pub granted_at: UnixMicros,
    /// When it ends.
    pub expires_at: UnixMicros,
    /// When the client's local day ends, and the lease with it.
    pub day_end: UnixMicros,
    /// How many slots it has.
    pub slots: u32,
    /// The mark in force.
    pub mark: Mark,
}

/// Up to where the holder may spend, or has spent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// Slots below this number.
    pub sequence: u32,
    /// What their prices may add up to.
    pub nanos: i64,
}

/// A slot for one bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The lease.
    pub lease_id: u64,
    /// Its epoch when the slot was taken.
    pub epoch: u64,
    /// The slot's number.
    pub sequence: u32,
    /// When the lease was granted: the spend is accounted there.
    pub granted_at: UnixMicros,
}

/// Why no slot can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The mark must move first; to where says [`Lease::next_mark`].
    NeedsMark,
    /// The lease has no room for this price.
    NeedsLease,
    /// The lease has ended.
    Expired,
}

/// A lease and what was taken of it.
#[derive(Debug, Clone)]
pub struct Lease {
    grant: Grant,
    used: Mark,
    skew: Duration,
    renewed_at: UnixMicros,
    taken_at: UnixMicros,
    /// What had been taken at the last renewal.
    used_before: i64,
    /// A renewal was sent and its answer has not come: the log's epoch may be one further.
    maybe_renewed: bool,
}

impl Lease {
    /// A lease of which nothing was taken yet. `skew`: by how much clocks here and at the log may differ.
    #[must_use]
    pub fn new(grant: Grant, skew: Duration) -> Self {
        let at = grant.granted_at;
        Self { grant, used: Mark::default(), skew, renewed_at: at, taken_at: at, used_before: 0, maybe_renewed: false }
    }

    /// What was granted.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What was taken.
    #[must_use]
    pub fn used(&self) -> Mark {
        self.used
    }

    /// Whether it has ended, by a clock that may be off by the skew.
    #[must_use]
    pub fn expired(&self, now: UnixMicros) -> bool {
        let ends = self.grant.expires_at.min(self.grant.day_end);
        now.plus(self.skew) >= ends
    }

    /// Takes the next slot for a bid that may cost `max`.
    ///
    /// # Errors
    /// [`Refused`], and then nothing was taken.
    pub fn take(&mut self, max: Nanos, now: UnixMicros) -> Result<Slot, Refused> {
        if self.expired(now) {
            return Err(Refused::Expired);
        }
        let sum = i128::from(self.used.nanos) + max.wide();
        if self.used.sequence >= self.grant.slots || sum > self.grant.amount.nanos() {
            return Err(Refused::NeedsLease);
        }
        if self.used.sequence >= self.grant.mark.sequence || sum > i128::from(self.grant.mark.nanos) {
            return Err(Refused::NeedsMark);
        }
        let slot = Slot {
            lease_id: self.grant.lease_id,
            epoch: self.grant.epoch,
            sequence: self.used.sequence,
            granted_at: self.grant.granted_at,
        };
        self.used.sequence += 1;
        self.taken_at = self.taken_at.max(now);
        self.used.nanos = i64::try_from(sum).unwrap_or(i64::MAX); // a mark is an i64 and bounds the sum
        Ok(slot)
    }

    /// Whether less than a third of its life is left, and renewing it is due.
    #[must_use]
    pub fn ageing(&self, now: UnixMicros) -> bool {
        self.grant.expires_at < self.grant.day_end && self.grant.expires_at.since(now) * 3 < self.life()
    }

    /// The log has renewed it.
    pub fn renewed(&mut self, epoch: u64, expires_at: UnixMicros, now: UnixMicros) {
        self.grant.epoch = epoch;
        self.grant.expires_at = expires_at;
        (self.renewed_at, self.used_before) = (now, self.used.nanos);
        self.maybe_renewed = false;
    }

    /// What was taken since the last renewal.
    #[must_use]
    pub fn taken(&self) -> Taken {
        Taken { nanos: self.used.nanos - self.used_before, since: self.renewed_at, life: self.life() }
    }

    fn life(&self) -> Duration {
        self.grant.expires_at.since(self.renewed_at)
    }

    /// Whether it has ended, or no slot was taken for half of its life: the budget has a better use for it.
    #[must_use]
    pub fn idle(&self, now: UnixMicros) -> bool {
        self.expired(now) || now.since(self.taken_at) * 2 >= self.life()
    }

    /// Whether more than twice of it is left than one would ask for anew: a smaller one does.
    #[must_use]
    pub fn oversized(&self, ask: Micros) -> bool {
        self.grant.amount.nanos() - i128::from(self.used.nanos) > 2 * ask.nanos()
    }

    /// Whether its end came while a renewal went unanswered: the log may have been down, and keep it for us.
    #[must_use]
    pub fn may_come_back(&self, now: UnixMicros) -> bool {
        self.maybe_renewed && self.expired(now) && self.grant.expires_at < self.grant.day_end
    }

    /// A renewal is on its way: until its answer comes, whether the log has made it is not known.
    pub fn renewal_sent(&mut self) {
        self.maybe_renewed = true;
    }

    /// The log says that the epoch is not ours. Where that is so by a renewal whose answer did not come, the next one is
    /// taken as ours; its end stays the earlier one. Says whether that explains it.
    pub fn learn_epoch(&mut self) -> bool {
        let explained = std::mem::take(&mut self.maybe_renewed);
        self.grant.epoch += u64::from(explained);
        explained
    }

    /// Where the mark should go so that a slot of `max` fits: a step further, within the lease.
    #[must_use]
    pub fn next_mark(&self, max: Nanos) -> Mark {
        let (grant, used) = (&self.grant, self.used);
        let chunk = (grant.amount.nanos() / MARKS).max(max.wide() * BIDS_A_MARK);
        let nanos = (i128::from(used.nanos) + chunk).min(grant.amount.nanos()).max(i128::from(grant.mark.nanos));
        let slots = grant.slots.div_ceil(MARKS as u32);
        let sequence = used.sequence.saturating_add(slots).min(grant.slots).max(grant.mark.sequence);
        Mark { sequence, nanos: i64::try_from(nanos).unwrap_or(i64::MAX) }
    }

    /// The log has acknowledged a mark. A mark never goes back, so that answers may come in any order.
    pub fn marked(&mut self, mark: Mark) {
        self.grant.mark.sequence = self.grant.mark.sequence.max(mark.sequence);
        self.grant.mark.nanos = self.grant.mark.nanos.max(mark.nanos);
    }
}

/// How much to ask for: twice what is burnt in the life of a lease, so that a hot campaign costs few calls, and no less than
/// room for 64 bids at this price, so that a quiet one holds little; never more than a 16th of the budget that binds,
/// unless a single bid takes more.
#[must_use]
pub fn amount_to_ask(limit_total: Micros, limit_daily: Micros, price: Nanos, burn: Micros) -> Micros {
    let limit = if limit_daily > Micros::ZERO { limit_total.min(limit_daily) } else { limit_total };
    let bids = i64::try_from(price.wide() * BIDS_A_LEASE / NANOS_PER_MICRO + 1).unwrap_or(i64::MAX);
    let most = (limit.get() / LEASES_A_BUDGET).min(MAX_LEASE_MICROS);
    Micros::new(burn.get().saturating_mul(2).max(bids).min(most)).max(least_to_ask(price))
}

/// The least that a bid of this price can use.
#[must_use]
pub fn least_to_ask(price: Nanos) -> Micros {
    let micros = (price.wide() + NANOS_PER_MICRO - 1) / NANOS_PER_MICRO;
    Micros::new(i64::try_from(micros).unwrap_or(i64::MAX).max(1))
}

/// The mark to begin a lease of that amount with. Its slots are the log's to bound.
#[must_use]
pub fn opening_mark(amount: Micros, price: Nanos) -> Mark {
    let nanos = (amount.nanos() / MARKS).max(price.wide() * BIDS_A_MARK).min(amount.nanos());
    Mark { sequence: OPENING_SLOTS, nanos: i64::try_from(nanos).unwrap_or(i64::MAX) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    const SKEW: Duration = Duration::from_secs(1);
    const NOW: UnixMicros = UnixMicros(1_000_000_000);

    fn lease(amount_micros: i64, slots: u32, mark: Mark) -> Lease {
        Lease::new(
            Grant {
                lease_id: 7,
                epoch: 1,
                amount: Micros::new(amount_micros),
                granted_at: NOW,
                expires_at: NOW.plus(Duration::from_secs(60)),
                day_end: NOW.plus(Duration::from_secs(3_600)),
                slots,
                mark,
            },
            SKEW,
        )
    }

    #[test]
    fn hands_out_slots_below_the_mark_alone() {
        let mut lease = lease(10, 100, Mark { sequence: 3, nanos: 2_000 });
        assert_eq!(lease.take(Nanos::new(900), NOW).unwrap().sequence, 0);
        assert_eq!(lease.take(Nanos::new(1_100), NOW).unwrap().sequence, 1);
        assert_eq!(lease.take(Nanos::new(1), NOW), Err(Refused::NeedsMark));
        assert_eq!(lease.next_mark(Nanos::new(100)), Mark { sequence: 15, nanos: 5_200 }, "room for 32 bids");
        assert_eq!(lease.next_mark(Nanos::new(1)), Mark { sequence: 15, nanos: 3_250 }, "an eighth of the lease");
        let next = lease.next_mark(Nanos::new(5_000));
        assert_eq!(next, Mark { sequence: 15, nanos: 10_000 }, "not above the lease");
        lease.marked(next);
        assert_eq!(lease.take(Nanos::new(5_000), NOW).unwrap().sequence, 2);
        assert_eq!(lease.used(), Mark { sequence: 3, nanos: 7_000 });
    }

    #[test]
    fn a_price_above_what_is_left_needs_another_lease() {
        let mut lease = lease(10, 2, Mark { sequence: 2, nanos: 10_000 });
        assert_eq!(lease.take(Nanos::new(10_001), NOW), Err(Refused::NeedsLease));
        lease.take(Nanos::new(10_000), NOW).unwrap();
        assert_eq!(lease.take(Nanos::new(1), NOW), Err(Refused::NeedsLease));
        assert_eq!(lease.take(Nanos::ZERO, NOW).unwrap().sequence, 1);
        assert_eq!(lease.take(Nanos::ZERO, NOW), Err(Refused::NeedsLease), "no slot left");
    }

    #[test]
    fn stops_before_its_end_by_the_clock_skew() {
        let mut lease = lease(10, 10, Mark { sequence: 10, nanos: 10_000 });
        let last = NOW.plus(Duration::from_secs(60) - SKEW);
        assert!(lease.take(Nanos::ZERO, UnixMicros(last.0 - 1)).is_ok());
        assert_eq!(lease.take(Nanos::ZERO, last), Err(Refused::Expired));
    }

    #[test]
    fn stops_at_the_end_of_the_clients_day() {
        let mut lease = lease(10, 10, Mark { sequence: 10, nanos: 10_000 });
        lease.grant.day_end = NOW.plus(Duration::from_secs(5));
        assert_eq!(lease.take(Nanos::ZERO, NOW.plus(Duration::from_secs(5))), Err(Refused::Expired));
    }

    #[test]
    fn a_stale_epoch_is_explained_by_an_unanswered_renewal_and_by_that_alone() {
        let mut lease = lease(10, 10, Mark { sequence: 10, nanos: 10_000 });
        assert!(!lease.learn_epoch());
        lease.renewal_sent();
        assert!(lease.learn_epoch());
        assert_eq!(lease.grant().epoch, 2);
        assert!(!lease.learn_epoch(), "one renewal raises it once");
        lease.renewal_sent();
        lease.renewed(3, NOW.plus(Duration::from_secs(90)), NOW);
        assert!(!lease.learn_epoch(), "an answered one says the epoch itself");
        assert_eq!(lease.grant().epoch, 3);
    }

    #[test]
    fn asks_for_a_share_of_the_budget_and_room_for_some_bids() {
        let burning =
            |burn, total, daily, price| amount_to_ask(Micros::new(total), Micros::new(daily), Nanos::new(price), Micros::new(burn)).get();
        let ask = |total, daily, price| burning(0, total, daily, price);
        assert_eq!(burning(40, 6_400, 0, 1_000), 80, "twice what is burnt");
        assert_eq!(burning(10, 6_400, 0, 1_000), 65, "room for 64 bids and what rounding takes");
        assert_eq!(burning(i64::MAX, 6_400, 0, 1_000), 400, "a 16th at the most");
        assert_eq!(ask(6_400, 640, 1_000), 40, "of the limit that binds");
        assert_eq!(ask(6_400, 0, 1_000_000), 1_000, "or what one bid takes");
        assert_eq!(ask(6_400, 0, 0), 1);
        assert_eq!(burning(i64::MAX, i64::MAX, 0, i64::MAX), i64::MAX / 1_000 + 1);
        assert_eq!(burning(i64::MAX, i64::MAX, 0, 1), MAX_LEASE_MICROS);
        assert_eq!(least_to_ask(Nanos::new(1)), Micros::new(1));
        assert_eq!(least_to_ask(Nanos::new(1_001)), Micros::new(2));
        assert_eq!(opening_mark(Micros::new(80), Nanos::new(1)).nanos, 10_000);
    }

    proptest! {
        #[test]
        fn never_spends_above_its_mark_or_amount(
            amount in 1..1_000_i64, slots in 1..50_u32, prices in prop::collection::vec(0..300_000_i64, 1..200),
        ) {
            let mut lease = lease(amount, slots, Mark::default());
            let mut sum = 0_i128;
            let mut taken = 0;
            for price in prices {
                let price = Nanos::new(price);
                if lease.take(price, NOW) == Err(Refused::NeedsMark) {
                    let next = lease.next_mark(price);
                    lease.marked(next);
                    let slot = lease.take(price, NOW);
                    prop_assert!(slot.is_ok(), "the next mark has room");
                } else if lease.used().sequence == taken {
                    continue;
                }
                sum += price.wide();
                taken += 1;
                prop_assert_eq!(lease.used().sequence, taken);
                prop_assert!(sum <= i128::from(lease.grant().mark.nanos) && sum <= lease.grant().amount.nanos());
                prop_assert!(taken <= lease.grant().mark.sequence && taken <= slots);
            }
        }
    }
}
