//! A campaign's budget: what is settled, and what its leases still hold.
//!
//! A lease sets `amount` aside. Its holder may spend slots below the mark, whose prices add up to at most
//! `mark_nanos`. While the lease lives it commits `amount` less its closed slots; once it has ended (returned or
//! expired), only what is below the mark less the closed slots: expiry frees no money that may have been spent.

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::money::Micros;
use serde::{Deserialize, Serialize};

use super::adjust::excess;
use super::scopes::MAX_WINDOW_SECONDS;

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
/// What ended leases were charged is kept in buckets of this length for the windows.
const BUCKET_MICROS: i64 = 10_000_000;
/// Holders remembered per campaign, for the fair shares of a budget that runs out.
const MAX_HOLDERS: usize = 1_024;

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
    /// The platform that it is spent on; empty where its holder did not say.
    pub platform: String,
    /// What was charged on it.
    pub settled_nanos: i128,
    /// A platform's report has closed what was open of it.
    pub reconciled: bool,
    /// When it was given back.
    returned_at: Option<UnixMicros>,
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
            platform: leaf.platform.clone(),
            settled_nanos: 0,
            reconciled: false,
            returned_at: None,
            closed: Vec::new(),
            charged: Vec::new(),
        }
    }

    /// Whether it may still be marked and renewed.
    #[must_use]
    pub fn lives(&self, now: UnixMicros) -> bool {
        !self.returned && now < self.expires_at
    }

    /// When it ended; not yet, where it lives.
    #[must_use]
    pub fn ended(&self, now: UnixMicros) -> Option<UnixMicros> {
        self.returned_at.or((now >= self.expires_at).then_some(self.expires_at))
    }

    /// Whether it lives, or ended within the last `seconds`.
    #[must_use]
    pub fn in_window(&self, now: UnixMicros, seconds: u32) -> bool {
        self.ended(now).is_none_or(|ended| ended.plus(Duration::from_secs(seconds.into())) > now)
    }

    /// The slots below the mark that are open, in order.
    pub fn open_slots(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.mark_sequence).filter(|sequence| self.slot(*sequence) == SlotState::Open)
    }

    /// Gives it back at what was used.
    pub(crate) fn give_back(&mut self, now: UnixMicros, sequence: u32, nanos: i128) {
        (self.mark_sequence, self.mark_nanos, self.returned) = (sequence, nanos, true);
        self.returned_at = Some(now.min(self.expires_at));
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
    /// Zone of its days.
    pub zone: String,
    /// What was charged, by platform.
    pub platforms: BTreeMap<String, PlatformState>,
    /// Who took leases, and when last.
    holders: BTreeMap<String, UnixMicros>,
    /// What leases that are forgotten were charged, by the bucket that they ended in and platform.
    past: BTreeMap<(UnixMicros, String), i128>,
    keys: BTreeMap<String, u64>,
    keys_by_lease: BTreeMap<u64, String>,
}

/// What was charged on one platform.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlatformState {
    /// Ever.
    pub settled_nanos: i128,
    /// By the day's start.
    pub settled_by_day: BTreeMap<UnixMicros, i128>,
}

/// Over what spend is summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    /// All time.
    Total,
    /// The local day that starts then.
    Day(UnixMicros),
    /// The last so many seconds.
    Window(u32),
}

/// What a grant may still take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Available {
    /// Nanos; below 0 where the scope is overcommitted.
    pub nanos: i128,
    /// Which limit binds: "total" or "daily", say.
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

    /// What a grant for the day may take of the campaign's own limits now.
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

    /// What was charged, over a span and on one platform or all.
    #[must_use]
    pub fn settled_in(&self, now: UnixMicros, platform: Option<&str>, span: Span) -> i128 {
        match (span, platform) {
            (Span::Total, None) => self.settled_nanos,
            (Span::Day(day), None) => self.settled_on(day),
            (Span::Total, Some(platform)) => self.platforms.get(platform).map_or(0, |p| p.settled_nanos),
            (Span::Day(day), Some(platform)) => {
                self.platforms.get(platform).and_then(|p| p.settled_by_day.get(&day)).copied().unwrap_or_default()
            }
            (Span::Window(seconds), _) => {
                let live = self.leases_of(platform).filter(|lease| lease.in_window(now, seconds));
                live.map(|lease| lease.settled_nanos).sum::<i128>() + self.past(now, platform, seconds)
            }
        }
    }

    /// What leases commit, over a span and on one platform or all.
    #[must_use]
    pub fn committed_in(&self, now: UnixMicros, platform: Option<&str>, span: Span) -> i128 {
        let inside = |lease: &&Lease| match span {
            Span::Total => true,
            Span::Day(day) => lease.day_start == day,
            Span::Window(seconds) => lease.in_window(now, seconds),
        };
        self.leases_of(platform).filter(inside).map(|lease| lease.committed(now)).sum()
    }

    fn leases_of<'a>(&'a self, platform: Option<&'a str>) -> impl Iterator<Item = &'a Lease> {
        self.leases.values().filter(move |lease| platform.is_none_or(|platform| lease.platform == platform))
    }

    /// What leases that are forgotten were charged, of those that ended in the window.
    fn past(&self, now: UnixMicros, platform: Option<&str>, seconds: u32) -> i128 {
        let since = UnixMicros(now.0 - i64::from(seconds) * 1_000_000 + 1);
        let in_window = self.past.range((since, String::new())..);
        in_window.filter(|((_, of), _)| platform.is_none_or(|platform| of == platform)).map(|(_, nanos)| nanos).sum()
    }

    /// What was charged, or marked and open, on leases of the last `seconds`.
    #[must_use]
    pub fn burn(&self, now: UnixMicros, platform: Option<&str>, seconds: u32) -> i128 {
        let marked = |l: &Lease| l.settled_nanos + (l.mark_nanos - l.closed_nanos).max(0);
        let live = self.leases_of(platform).filter(|lease| lease.in_window(now, seconds));
        live.map(marked).sum::<i128>() + self.past(now, platform, seconds)
    }

    /// How many holders other than this one took a lease in the last `seconds`.
    #[must_use]
    pub fn other_holders(&self, now: UnixMicros, holder: &str, seconds: u32) -> usize {
        let since = UnixMicros(now.0 - i64::from(seconds) * 1_000_000);
        self.holders.iter().filter(|(name, at)| **at > since && *name != holder).count()
    }

    /// Whether so much less may have been charged on a day, nanos below 0: not more is taken back than was charged.
    pub(crate) fn check_credit(&self, nanos: i128, platform: &str, day: UnixMicros) -> Result<(), String> {
        let forgotten =
            self.settled_by_day.len() == MAX_DAYS && self.settled_by_day.first_key_value().is_some_and(|(first, _)| day < *first);
        let on_day = if forgotten { self.settled_nanos } else { self.settled_on(day) };
        let on_platform = if platform.is_empty() { self.settled_nanos } else { self.settled_in(day, Some(platform), Span::Total) };
        let charged = self.settled_nanos.min(on_day).min(on_platform);
        if nanos >= 0 || charged + nanos >= 0 { Ok(()) } else { Err(excess(nanos, charged, &self.currency)) }
    }

    /// The lease that a request key was granted.
    #[must_use]
    pub fn lease_of_key(&self, key: &str) -> Option<u64> {
        self.keys.get(key).copied()
    }

    pub(crate) fn grant(&mut self, now: UnixMicros, leaf: &leaf::LeaseGranted) {
        self.holders.insert(leaf.holder.clone(), now);
        if self.holders.len() > MAX_HOLDERS
            && let Some(oldest) = self.holders.iter().min_by_key(|(_, at)| **at).map(|(name, _)| name.clone())
        {
            self.holders.remove(&oldest);
        }
        self.leases.insert(leaf.lease_id, Lease::granted(leaf));
        self.keys.insert(leaf.key.clone(), leaf.lease_id);
        self.keys_by_lease.insert(leaf.lease_id, leaf.key.clone());
        if self.keys_by_lease.len() > MAX_KEYS
            && let Some((_, key)) = self.keys_by_lease.pop_first()
        {
            self.keys.remove(&key);
        }
    }

    /// Closes a slot with its charge and where that was; the lease is forgotten once nothing can come of it.
    pub(crate) fn close(&mut self, lease_id: u64, sequence: u32, max_nanos: i64, charge: Option<(i64, &str)>) {
        let Some(lease) = self.leases.get_mut(&lease_id) else { return };
        lease.close(sequence, max_nanos, charge.is_some());
        if let Some((nanos, platform)) = charge {
            let nanos = i128::from(nanos);
            lease.settled_nanos += nanos;
            let platform = if lease.platform.is_empty() { platform.to_owned() } else { lease.platform.clone() };
            let day = lease.day_start;
            self.billed_impressions += 1;
            self.charge(nanos, platform, day);
        }
    }

    /// Adds to what was charged; a correction may take away from it.
    pub(crate) fn charge(&mut self, nanos: i128, platform: String, day: UnixMicros) {
        self.settled_nanos += nanos;
        let platform = self.platforms.entry(platform).or_default();
        platform.settled_nanos += nanos;
        for days in [&mut self.settled_by_day, &mut platform.settled_by_day] {
            *days.entry(day).or_default() += nanos;
            if days.len() > MAX_DAYS {
                days.pop_first();
            }
        }
    }

    /// Takes in a correction.
    pub(crate) fn adjust(&mut self, leaf: &leaf::SpendAdjustment) {
        let day = UnixMicros::from_pb(leaf.day_start.as_ref()).unwrap_or_default();
        if let Some(lease) = self.leases.get_mut(&leaf.lease_id) {
            lease.settled_nanos += i128::from(leaf.amount_nanos);
        }
        self.charge(leaf.amount_nanos.into(), leaf.platform.clone(), day);
    }

    /// Forgets the leases that are done, but for the newest, which can still tell a repeated notice from a contradiction.
    /// The windows keep what the forgotten ones were charged.
    pub(crate) fn forget_done(&mut self, now: UnixMicros) {
        let done: Vec<u64> = self.leases.iter().filter(|(_, lease)| lease.is_done(now)).map(|(id, _)| *id).collect();
        for id in &done[..done.len().saturating_sub(MAX_DONE)] {
            let Some(lease) = self.leases.remove(id) else { continue };
            if let Some(ended) = lease.ended(now) {
                // Up to the bucket's end: a window counts it a little too long rather than too short.
                let bucket = UnixMicros((ended.0.div_euclid(BUCKET_MICROS) + 1) * BUCKET_MICROS);
                *self.past.entry((bucket, lease.platform)).or_default() += lease.settled_nanos;
            }
        }
        let since = UnixMicros(now.0 - i64::from(MAX_WINDOW_SECONDS) * 1_000_000);
        while self.past.first_key_value().is_some_and(|((bucket, _), _)| *bucket <= since) {
            self.past.pop_first();
        }
    }
}
