//! What of a lease bids may take without a lock: the slots and the money between what was taken and the acknowledged mark.
//!
//! What is left is one word of 64 bits: whoever takes a slot compares and swaps the whole of it, so slots and money
//! change together. A closed window has nothing left, for good; so who closes it learns exactly what was taken.
//!
//! | bits | |
//! |---|---|
//! | 17 | slots left: the log gives a lease 65,536 |
//! | 47 | nanos left: at most 140,737 of a currency. A mark further away is come to by several windows |

use kiki::clock::UnixMicros;
use kiki::money::Nanos;

use super::super::atomics::{AtomicI64, AtomicU64, Ordering};
use super::{Mark, Slot};

const NANOS_BITS: u32 = 47;
const NANOS_MOST: u64 = (1 << NANOS_BITS) - 1;
const SLOTS_MOST: u32 = (1 << (64 - NANOS_BITS)) - 1;

/// Slots of a lease, up to a mark and an instant.
#[derive(Debug)]
pub struct Window {
    lease_id: u64,
    epoch: u64,
    granted_at: UnixMicros,
    until: UnixMicros,
    /// What will have been taken of the lease when nothing is left here.
    end: Mark,
    left: AtomicU64,
    /// When the last slot was taken, microseconds. A taker who was overtaken may set it back by as long as that took.
    taken_at: AtomicI64,
}

/// What the slots of a window say of their lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of {
    pub(super) lease_id: u64,
    pub(super) epoch: u64,
    pub(super) granted_at: UnixMicros,
    pub(super) taken_at: UnixMicros,
}

impl Window {
    /// What lies between what was taken and the mark, until an instant. None where that is nothing.
    pub(super) fn new(of: Of, until: UnixMicros, used: Mark, mark: Mark) -> Option<Self> {
        let slots = mark.sequence.checked_sub(used.sequence).filter(|slots| *slots > 0)?.min(SLOTS_MOST);
        let nanos = u64::try_from(mark.nanos - used.nanos).ok()?.min(NANOS_MOST);
        let end = Mark { sequence: used.sequence + slots, nanos: used.nanos + nanos as i64 };
        let Of { lease_id, epoch, granted_at, taken_at } = of;
        let left = AtomicU64::new(pack(slots, nanos));
        Some(Self { lease_id, epoch, granted_at, until, end, left, taken_at: AtomicI64::new(taken_at.0) })
    }

    /// Takes the next slot for a bid that may cost `max` nanos. None where it has no room for it, has come to its end or was
    /// closed: then the lease itself is to be asked.
    #[must_use]
    pub fn take(&self, max: Nanos, now: UnixMicros) -> Option<Slot> {
        let nanos = u64::try_from(max.get()).ok()?;
        if now >= self.until {
            return None;
        }
        let mut left = self.left.load(Ordering::Acquire);
        let slots = loop {
            let (slots, money) = unpack(left);
            if slots == 0 || money < nanos {
                return None;
            }
            match self.left.compare_exchange(left, pack(slots - 1, money - nanos), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => break slots,
                Err(by_another) => left = by_another,
            }
        };
        if self.taken_at.load(Ordering::Relaxed) < now.0 {
            self.taken_at.store(now.0, Ordering::Relaxed);
        }
        let (lease_id, epoch, granted_at) = (self.lease_id, self.epoch, self.granted_at);
        Some(Slot { lease_id, epoch, sequence: self.end.sequence - slots, granted_at })
    }

    /// What may still be taken at `now`.
    #[must_use]
    pub fn left(&self, now: UnixMicros) -> Nanos {
        let (slots, nanos) = unpack(self.left.load(Ordering::Acquire));
        if slots == 0 || now >= self.until { Nanos::ZERO } else { Nanos::new(nanos as i64) }
    }

    /// What was taken of the lease by now, while this is open.
    pub(super) fn used(&self) -> Mark {
        self.before(self.left.load(Ordering::Acquire))
    }

    /// Closes it: nothing is taken from here on. Says what was taken of the lease in all; asked again, that all of it was.
    pub(super) fn close(&self) -> Mark {
        self.before(self.left.swap(0, Ordering::AcqRel))
    }

    /// When the last slot was taken.
    pub(super) fn taken_at(&self) -> UnixMicros {
        UnixMicros(self.taken_at.load(Ordering::Relaxed))
    }

    fn before(&self, left: u64) -> Mark {
        let (slots, nanos) = unpack(left);
        Mark { sequence: self.end.sequence - slots, nanos: self.end.nanos - nanos as i64 }
    }
}

fn pack(slots: u32, nanos: u64) -> u64 {
    u64::from(slots) << NANOS_BITS | nanos
}

fn unpack(left: u64) -> (u32, u64) {
    ((left >> NANOS_BITS) as u32, left & NANOS_MOST)
}
