//! What the exchange knows: each bid that it was answered with, and what became of it. Nothing of this comes from KIKI's own books.

use std::collections::BTreeMap;

/// A slot: the lease and the number under it.
pub(crate) type Slot = (u64, u32);

/// What became of a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It may still win.
    Open,
    Lost,
    /// It won, and costs so many nanos.
    Charged(i64),
}

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub bids: u64,
    pub no_budget: u64,
    pub unanswered: u64,
    pub lost_notices: u64,
    pub refused: u64,
    pub conflicts: u64,
    pub duplicates: u64,
    pub held_at_end: u64,
    pub crashes: u64,
    pub cuts: u64,
}

impl Stats {
    pub(crate) fn add(&mut self, other: &Self) {
        self.bids += other.bids;
        self.no_budget += other.no_budget;
        self.unanswered += other.unanswered;
        self.lost_notices += other.lost_notices;
        self.refused += other.refused;
        self.conflicts += other.conflicts;
        self.duplicates += other.duplicates;
        self.held_at_end += other.held_at_end;
        self.crashes += other.crashes;
        self.cuts += other.cuts;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    /// The campaign's budget, nanos.
    pub limit: i64,
    pub bids: BTreeMap<Slot, (i64, Fate)>,
    /// What notices that were acknowledged said each slot costs; nothing where they said that it lost.
    pub told: BTreeMap<Slot, Option<i64>>,
    /// By how much notices said less than what was charged: an exchange that says that a bid lost, and charges it, may be owed
    /// so much above the budget.
    pub understated: i64,
    /// What must not be.
    pub wrong: Vec<String>,
    pub stats: Stats,
}

impl Book {
    /// What bids may cost at most from here on, and have cost.
    pub(crate) fn exposure(&self) -> i64 {
        let worst = |(price, fate): &(i64, Fate)| match fate {
            Fate::Open => *price,
            Fate::Lost => 0,
            Fate::Charged(charge) => *charge,
        };
        self.bids.values().map(worst).sum()
    }

    pub(crate) fn charged(&self) -> i64 {
        self.bids.values().map(|(_, fate)| if let Fate::Charged(charge) = fate { *charge } else { 0 }).sum()
    }

    /// A bid was answered in time: it is in the auction.
    pub(crate) fn bid(&mut self, slot: Slot, price: i64) {
        self.stats.bids += 1;
        if self.bids.insert(slot, (price, Fate::Open)).is_some() {
            self.wrong.push(format!("slot {slot:?} was given to two bids"));
        }
        let (exposure, most) = (self.exposure(), self.limit + self.understated);
        if exposure > most {
            self.wrong.push(format!("with slot {slot:?}, {exposure} nanos may be charged of {most}"));
        }
    }

    pub(crate) fn decide(&mut self, slot: Slot, fate: Fate) {
        if let Some((_, before)) = self.bids.get_mut(&slot) {
            *before = fate;
        }
    }

    /// A notice was acknowledged to have moved the money, now or before.
    pub(crate) fn told(&mut self, slot: Slot, charge: Option<i64>) {
        self.told.entry(slot).or_insert(charge);
    }
}
