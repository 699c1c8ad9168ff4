//! A campaign's budget: what is settled, and what its leases still hold.
//!
//! A lease sets `amount` aside. Its holder may spend slots below the mark, whose prices add up to at most
//! `mark_nanos`. While the lease lives it commits `amount` less its closed slots; once it has ended (returned or
//! expired), only what is below the mark less the closed slots: expiry frees no money that may have been spent.

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::money::Micros;
use serde::{Deserialize, Serialize};

/// Slots of one lease: its bitmap takes at most 8 KiB.
pub const MAX_SLOTS: u32 = 65_536;
/// The most that one lease may hold: its nanos fit 63 bits (9.2e18), with room.
pub const MAX_LEASE_MICROS: i64 = 9_000_000_000_000_000;
/// Days whose settled sums are kept: more than the longest notice window.
const MAX_DAYS: usize = 64;
/// Leases kept after their end: at most 16 KiB of bitmaps each, 16 MiB a campaign.
const MAX_DONE: usize = 1_024;
/// Request keys kept per campaign; a retry comes within seconds, this is hours of leases.
const MAX_KEYS: usize = 16_384;

/// Money set aside for one holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who holds it.
    pub holder: String,
    /// The epoch in force.
    pub epoch: u64,
    /// What was set aside.
    pub amount: Micros,
    /// When it was granted: its spend is accounted there.
    pub granted_at: UnixMicros,
    /// From here on it commits only what is below the mark.
    pub expires_at: UnixMicros,
    /// The client's local day.
    pub day_start: UnixMicros,
    /// The day's end.
    pub day_end: UnixMicros,
    /// How many slots it has.
    pub slots: u32,
    /// Slots below this may be spent.
    pub mark_sequence: u32,
    /// What they add up to at most.
    pub mark_nanos: i128,
    /// Whether the holder gave it back.
    pub returned: bool,
    /// How many slots are closed, and what had been held for them.
    pub closed_slots: u32,
    /// The sum of the closed slots' holds.
    pub closed_nanos: i128,
    /// A bit for each closed slot, and one for each that was charged.
    closed: Vec<u64>,
    charged: Vec<u64>,
}

/// How a slot was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotState {
    /// Nothing came of it yet.
    Open,
    /// It was charged.
    Charged,
    /// It cost nothing.
    Void,
}

impl Lease {
    /// A lease as its leaf grants it.
    #[must_use]
    pub fn granted(leaf: &leaf::LeaseGranted) -> Self {
        let time = |t: &Option<prost_types::Timestamp>| UnixMicros::from_pb(t.as_ref()).unwrap_or_default();
        let amount = Micros::new(leaf.amount_micros);
        let (mark_sequence, mark_nanos) = if leaf.reservation { (1, amount.nanos()) } else { (0, 0) };
        Self {
            holder: leaf.holder.clone(),
            epoch: leaf.epoch,
            amount,
            granted_at: time(&leaf.granted_at),
            expires_at: time(&leaf.expires_at),
            day_start: time(&leaf.day_start),
            day_end: time(&leaf.day_end),
            slots: leaf.slots,
            mark_sequence,
            mark_nanos,
            returned: false,
            closed_slots: 0,
            closed_nanos: 0,
            closed: Vec::new(),
            charged: Vec::new(),
        }
    }

    /// Whether it may still be marked and renewed.
    #[must_use]
    pub fn lives(&self, now: UnixMicros) -> bool {
        !self.returned && now < self.expires_at
    }

    /// What it commits of its campaign's budget, nanos.
    #[must_use]
    pub fn committed(&self, now: UnixMicros) -> i128 {
        if self.is_done(now) {
            return 0;
        }
        let hold = if self.lives(now) { self.amount.nanos() } else { self.mark_nanos };
        (hold - self.closed_nanos).max(0)
    }

    /// How a slot stands.
    #[must_use]
    pub fn slot(&self, sequence: u32) -> SlotState {
        match (bit(&self.closed, sequence), bit(&self.charged, sequence)) {
            (false, _) => SlotState::Open,
            (true, true) => SlotState::Charged,
            (true, false) => SlotState::Void,
        }
    }

    fn close(&mut self, sequence: u32, max_nanos: i64, charged: bool) {
        set_bit(&mut self.closed, sequence);
        if charged {
            set_bit(&mut self.charged, sequence);
        }
        // Nothing is held for a slot above the mark: its charge frees nothing, and the scope may end up overcommitted.
        if sequence < self.mark_sequence {
            self.closed_slots += 1;
            self.closed_nanos += i128::from(max_nanos);
        }
    }

    /// Nothing can come of it any more.
    fn is_done(&self, now: UnixMicros) -> bool {
        !self.lives(now) && self.closed_slots >= self.mark_sequence
    }
}

fn bit(words: &[u64], at: u32) -> bool {
    words.get(at as usize / 64).is_some_and(|word| (word >> (at % 64)) & 1 == 1)
}

fn set_bit(words: &mut Vec<u64>, at: u32) {
    let word = at as usize / 64;
    if words.len() <= word {
        words.resize(word + 1, 0);
    }
    words[word] |= 1 << (at % 64);
}

/// A campaign with its money.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CampaignState {
    /// The latest `leaf::Campaign`, encoded.
    pub document: Vec<u8>,
    /// Its version.
    pub version: u64,
    /// ISO 4217.
    pub currency: String,
    /// Whether it spends.
    pub paused: bool,
    /// Total limit.
    pub limit_total: Micros,
    /// Daily limit; zero for none.
    pub limit_daily: Micros,
    /// What was charged, ever.
    pub settled_nanos: i128,
    /// What was charged for the leases of a day, by the day's start.
    pub settled_by_day: BTreeMap<UnixMicros, i128>,
    /// Leases of which something may still come.
    pub leases: BTreeMap<u64, Lease>,
    /// Charged impressions.
    pub billed_impressions: u64,
    /// Customers acquired.
    pub conversions: u64,
    keys: BTreeMap<String, u64>,
    keys_by_lease: BTreeMap<u64, String>,
}

/// What a grant may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Nanos; below 0 where the scope is overcommitted.
    pub nanos: i128,
    /// Which limit binds: "total" or "daily".
    pub limit: &'static str,
}

impl CampaignState {
    /// What leases commit, of all days or of one.
    #[must_use]
    pub fn committed(&self, now: UnixMicros, day_start: Option<UnixMicros>) -> i128 {
        self.leases.values().filter(|lease| day_start.is_none_or(|day| lease.day_start == day)).map(|lease| lease.committed(now)).sum()
    }

    /// What was charged on a day's leases.
    #[must_use]
    pub fn settled_on(&self, day_start: UnixMicros) -> i128 {
        self.settled_by_day.get(&day_start).copied().unwrap_or_default()
    }

    /// What a grant for the day may take now.
    #[must_use]
    pub fn available(&self, now: UnixMicros, day_start: UnixMicros) -> Available {
        let total = self.limit_total.nanos() - self.settled_nanos - self.committed(now, None);
        let daily = self.limit_daily.nanos() - self.settled_on(day_start) - self.committed(now, Some(day_start));
        if self.limit_daily > Micros::ZERO && daily < total {
            Available { nanos: daily, limit: "daily" }
        } else {
            Available { nanos: total, limit: "total" }
        }
    }

    /// The lease that a request key was granted.
    #[must_use]
    pub fn lease_of_key(&self, key: &str) -> Option<u64> {
        self.keys.get(key).copied()
    }

    pub(crate) fn grant(&mut self, leaf: &leaf::LeaseGranted) {
        self.leases.insert(leaf.lease_id, Lease::granted(leaf));
        self.keys.insert(leaf.key.clone(), leaf.lease_id);
        self.keys_by_lease.insert(leaf.lease_id, leaf.key.clone());
        if self.keys_by_lease.len() > MAX_KEYS
            && let Some((_, key)) = self.keys_by_lease.pop_first()
        {
            self.keys.remove(&key);
        }
    }

    /// Closes a slot with its charge; the lease is forgotten once nothing can come of it.
    pub(crate) fn close(&mut self, lease_id: u64, sequence: u32, max_nanos: i64, charge_nanos: Option<i64>) {
        let Some(lease) = self.leases.get_mut(&lease_id) else { return };
        lease.close(sequence, max_nanos, charge_nanos.is_some());
        if let Some(charge) = charge_nanos {
            self.settled_nanos += i128::from(charge);
            *self.settled_by_day.entry(lease.day_start).or_default() += i128::from(charge);
            self.billed_impressions += 1;
            if self.settled_by_day.len() > MAX_DAYS {
                self.settled_by_day.pop_first();
            }
        }
    }

    /// Forgets the leases that are done, but for the newest, which can still tell a repeated notice from a contradiction.
    pub(crate) fn forget_done(&mut self, now: UnixMicros) {
        let done: Vec<u64> = self.leases.iter().filter(|(_, lease)| lease.is_done(now)).map(|(id, _)| *id).collect();
        for id in &done[..done.len().saturating_sub(MAX_DONE)] {
            self.leases.remove(id);
        }
    }
}
