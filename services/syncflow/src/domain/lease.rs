//! The holder's side of a budget lease: hands out slots, never above what the log has acknowledged.
//!
//! Invariants: slots are numbered without a gap; the prices of the slots handed out never add up to more
//! than the mark, nor the mark to more than the lease; nothing is handed out at or after the end less the clock skew.
//! What happens depends on the order of calls and on the instants given, and on nothing else.
//!
//! Most slots are taken without a lock, through the [`Window`] that is open: [`Lease::open`]. Whoever changes the lease
//! shuts it first, and knows by that what was taken.

// Written out, because the exploration includes this file from its own place.
#[path = "lease/window.rs"]
mod window;

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::money::{Micros, NANOS_PER_MICRO, Nanos};

use super::burn::Taken;
pub use window::Window;

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
#[derive(Debug)]
pub struct Lease {
    grant: Grant,
    /// What was taken before the window that is open.
    used: Mark,
    window: Option<Arc<Window>>,
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
        Self { grant, used: Mark::default(), window: None, skew, renewed_at: at, taken_at: at, used_before: 0, maybe_renewed: false }
    }

    /// What was granted.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// What was taken.
    #[must_use]
    pub fn used(&self) -> Mark {
        self.window.as_ref().map_or(self.used, |window| window.used())
    }

    /// Whether it has ended, by a clock that may be off by the skew.
    #[must_use]
    pub fn expired(&self, now: UnixMicros) -> bool {
        let ends = self.grant.expires_at.min(self.grant.day_end);
        now.plus(self.skew) >= ends
    }

    /// What bids may take without asking the lease, up to its mark and until it ages or ends. None where that is nothing.
    pub fn open(&mut self) -> Option<Arc<Window>> {
        self.shut();
        let Grant { lease_id, epoch, granted_at, expires_at, day_end, mark, .. } = self.grant;
        let of = window::Of { lease_id, epoch, granted_at, taken_at: self.taken_at };
        let stops = UnixMicros(expires_at.min(day_end).0.saturating_sub(self.skew.as_micros() as i64));
        // From the first instant on at which less than a third of its life is left.
        let ages = UnixMicros(expires_at.0 - self.life().as_micros().div_ceil(3) as i64 + 1);
        let until = if expires_at < day_end { stops.min(ages) } else { stops };
        let slots = mark.sequence.min(self.grant.slots);
        let nanos = i64::try_from(self.grant.amount.nanos()).unwrap_or(i64::MAX).min(mark.nanos);
        self.window = Window::new(of, until, self.used, Mark { sequence: slots, nanos }).map(Arc::new);
        self.window.clone()
    }

    /// Closes the window, where one is open, and takes in what was taken through it.
    pub fn shut(&mut self) {
        if let Some(window) = self.window.take() {
            (self.used, self.taken_at) = (window.close(), self.taken_at.max(window.taken_at()));
        }
    }

    /// Takes the next slot for a bid that may cost `max`.
    ///
    /// # Errors
    /// [`Refused`], and then nothing was taken.
    pub fn take(&mut self, max: Nanos, now: UnixMicros) -> Result<Slot, Refused> {
        self.shut();
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
        self.shut();
        self.grant.epoch = epoch;
        self.grant.expires_at = expires_at;
        (self.renewed_at, self.used_before) = (now, self.used.nanos);
        self.maybe_renewed = false;
    }

    /// What was taken since the last renewal.
    #[must_use]
    pub fn taken(&self) -> Taken {
        Taken { nanos: self.used().nanos - self.used_before, since: self.renewed_at, life: self.life() }
    }

    fn life(&self) -> Duration {
        self.grant.expires_at.since(self.renewed_at)
    }

    /// Whether it has ended, or no slot was taken for half of its life: the budget has a better use for it.
    #[must_use]
    pub fn idle(&self, now: UnixMicros) -> bool {
        let taken_at = self.window.as_ref().map_or(self.taken_at, |window| window.taken_at());
        self.expired(now) || now.since(taken_at) * 2 >= self.life()
    }

    /// Whether more than twice of it is left than one would ask for anew: a smaller one does.
    #[must_use]
    pub fn oversized(&self, ask: Micros) -> bool {
        self.grant.amount.nanos() - i128::from(self.used().nanos) > 2 * ask.nanos()
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
        let (grant, used) = (&self.grant, self.used());
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
