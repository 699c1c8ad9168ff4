//! Who saw which campaign how often, lately: what frequency caps are held against, in this process's memory.
//!
//! What counts is a bid from the moment that it was made: until its loss is noticed, or until its notices' deadline passes
//! without a charge; a charged one counts on. So a cap is never exceeded while notices are under way, and an exchange that
//! says nothing of lost bids uses it up with them. Each is counted at the time of its bid, whenever its notice comes.
//!
//! Bounded: beyond [`MAX_SEEN`] the oldest are forgotten. A restart forgets all: a cap is a soft limit, and money is
//! counted elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::guardrail::MAX_HOURS;
use kiki::ids::CustomerKey;
use parking_lot::Mutex;

/// Locks, so that customers seldom wait for each other: 16 for each core of a large machine.
const SHARDS: usize = 256;
/// Bids that are remembered. Each has at most 256 bytes with its customer's and campaign's names (63 each), so 256 MiB
/// at most. At a hundred bids a second that are charged or still open, they are the last three hours; at twelve, a day.
pub const MAX_SEEN: usize = 1 << 20;

/// A client's customer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Customer {
    /// The client.
    pub client: String,
    /// The customer's pseudonym.
    pub key: CustomerKey,
}

/// A bid that a customer may have seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its lease and sequence: its name in all notices.
    pub slot: (u64, u32),
    /// Its campaign.
    pub campaign: String,
    /// When it was made.
    pub at: UnixMicros,
    /// Until when it counts without a notice.
    pub deadline: UnixMicros,
}

/// What became of a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was made.
    Open,
    /// It was charged.
    Charged,
    /// It was lost.
    Lost,
}

/// What is asked of the count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Whose impressions.
    pub customer: Customer,
    /// Of which campaign; none is all of the client's.
    pub campaign: Option<String>,
    /// In the last so many hours.
    pub hours: u32,
}

/// The counts.
#[derive(Debug)]
pub struct Memory {
    shards: Box<[Mutex<Shard>]>,
    each: usize,
}

#[derive(Debug, Default)]
struct Shard {
    by_customer: HashMap<Arc<Customer>, Vec<Seen>>,
    /// By the time of the bid and a serial number.
    order: BTreeMap<(UnixMicros, u64), Arc<Customer>>,
    serial: u64,
}

#[derive(Debug)]
struct Seen {
    shown: Shown,
    charged: bool,
    serial: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self::bounded(SHARDS, MAX_SEEN / SHARDS)
    }
}

impl Memory {
    /// So many locks, and so many bids under each.
    fn bounded(shards: usize, each: usize) -> Self {
        Self { shards: (0..shards).map(|_| Mutex::default()).collect(), each }
    }

    /// Pseudonyms are a keyed hash already, so one byte of them spreads the customers.
    fn shard(&self, customer: &Customer) -> &Mutex<Shard> {
        &self.shards[usize::from(customer.key.0[0]) % self.shards.len()]
    }

    /// How many bids count.
    #[must_use]
    pub fn count(&self, question: &Question, now: UnixMicros) -> u32 {
        let shard = self.shard(&question.customer).lock();
        let window = hours(question.hours);
        let counts = |seen: &&Seen| {
            let of_campaign = question.campaign.as_ref().is_none_or(|campaign| *campaign == seen.shown.campaign);
            of_campaign && now < seen.shown.at.plus(window) && (seen.charged || now < seen.shown.deadline)
        };
        let seen = shard.by_customer.get(&question.customer);
        seen.map_or(0, |seen| seen.iter().filter(counts).count() as u32)
    }

    /// Takes in what became of a bid; the same twice counts once. Answers how many bids had to be forgotten for it.
    pub fn take(&self, customer: &Customer, shown: &Shown, fate: Fate, now: UnixMicros) -> usize {
        let mut shard = self.shard(customer).lock();
        shard.forget_before(now);
        if fate == Fate::Lost {
            shard.lost(customer, shown.slot);
            return 0;
        }
        shard.counts(customer, shown, fate == Fate::Charged);
        let beyond = shard.order.len().saturating_sub(self.each);
        (0..beyond).for_each(|_| shard.forget_oldest());
        beyond
    }
}

fn hours(hours: u32) -> Duration {
    Duration::from_secs(u64::from(hours) * 3_600)
}

impl Shard {
    fn counts(&mut self, customer: &Customer, shown: &Shown, charged: bool) {
        let known = self.by_customer.get_mut(customer).and_then(|seen| seen.iter_mut().find(|seen| seen.shown.slot == shown.slot));
        if let Some(seen) = known {
            seen.charged |= charged;
            return;
        }
        let customer = self.by_customer.get_key_value(customer).map_or_else(|| Arc::new(customer.clone()), |(known, _)| known.clone());
        self.serial += 1;
        self.order.insert((shown.at, self.serial), customer.clone());
        self.by_customer.entry(customer).or_default().push(Seen { shown: shown.clone(), charged, serial: self.serial });
    }

    fn lost(&mut self, customer: &Customer, slot: (u64, u32)) {
        let seen = self.by_customer.get(customer).into_iter().flatten().find(|seen| seen.shown.slot == slot && !seen.charged);
        if let Some(key) = seen.map(|seen| (seen.shown.at, seen.serial)) {
            self.forget(key);
        }
    }

    /// What no cap can ask for any more.
    fn forget_before(&mut self, now: UnixMicros) {
        while self.order.keys().next().is_some_and(|(at, _)| at.plus(hours(MAX_HOURS)) <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(key) = self.order.keys().next().copied() {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: (UnixMicros, u64)) {
        let Some(customer) = self.order.remove(&key) else { return };
        if let Some(seen) = self.by_customer.get_mut(&customer) {
            seen.retain(|seen| seen.serial != key.1);
            if seen.is_empty() {
                self.by_customer.remove(&customer);
            }
        }
    }
}

#[cfg(test)]
mod tests;
