//! Reconciliation: what the log holds, by campaign and time, to be held against what somebody else counted.
//!
//! [`Totals`] is a fold of a client's leaves: sums in slots of time (days or hours, [`slots`]), each with the leaves that it is
//! made of. Sums do not depend on the order of the leaves. [`compare`] lists where another's figures differ.
//!
//! When a charge is of which slot:
//!
//! - A platform's report has its days in the zone of the ad account, and an impression on the day that it was auctioned and shown
//!   on. So here it is of the day of its bid, in a zone that the caller names: a notice that came hours late, or a slot that a report closed weeks later, does not move
//!   it. The day of the lease, by which budgets and invoices go, is in the campaign's own zone and may be another.
//!   What was corrected since is of the day that it is accounted on.
//! - Prometheus has a charge from when it was counted, and SyncFlow counts it once the log has answered. So there a charge, like
//!   a customer acquired, is of the hour that its leaf was recorded in.
//!
//! Deliberately not here: reading either side, and any change: what a difference calls for is a correction in the log.

pub mod compare;
pub mod slots;

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf::{self, leaf::Body};
use kiki::money::NANOS_PER_MICRO;

use slots::Slots;

/// Leaves that a figure names: more than anybody looks up by hand, and 64 of 8 bytes a figure. The count beside them has no bound.
pub const LEAVES_NAMED: usize = 64;

/// Figures of one reconciliation: 2,000 campaigns on each day of a month. At some 800 bytes with the leaves they are 50 MiB.
pub const CELLS_MAX: usize = 65_536;

/// What is summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Figure {
    /// What a platform was paid, corrections included, by when it was bid for.
    PlatformSpend {
        /// The platform.
        platform: String,
    },
    /// What SyncFlow's `syncflow_spend_total` counts: charges that came by a notice, which name their exchange. What a platform's report closed
    /// later, or corrected, no notice brought.
    CountedSpend,
    /// What SyncValue's `syncvalue_predicted_ltv_total` counts: the prediction of each customer acquired.
    CountedLtv,
}

/// Whose figure, and of when. The order is that of a list to be read: by time first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Which of the [`Slots`].
    pub slot: usize,
    /// Campaign id.
    pub campaign: String,
    /// ISO 4217 code.
    pub currency: String,
}

/// A sum, and what it is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// Nanos of the currency.
    pub nanos: i128,
    /// The part of it that came in the slot's last moments, which another's clock may have in the next: [`Totals::new`].
    pub late_nanos: i128,
    /// Impressions charged, or customers acquired.
    pub items: u64,
    /// The lowest indices of its leaves, ascending: at most [`LEAVES_NAMED`].
    pub leaves: Vec<u64>,
    /// How many leaves it is made of.
    pub leaf_count: u64,
}

/// A leaf that cannot be summed, or one sum too many.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TotalsError {
    /// A field of the leaf is out of its form.
    #[error("leaf {leaf}: {field} is absent or out of range")]
    Field {
        /// Index of the leaf.
        leaf: u64,
        /// The field.
        field: &'static str,
    },
    /// More figures than one reconciliation holds.
    #[error("more than {CELLS_MAX} figures of a campaign and a day or hour; ask for fewer days")]
    TooMany,
}

/// What the log holds, by campaign, currency and slot.
#[derive(Debug)]
pub struct Totals {
    figure: Figure,
    slots: Slots,
    late: Duration,
    cells: BTreeMap<Key, Cell>,
}

/// One leaf's part of a cell.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    nanos: i128,
    late_nanos: i128,
    items: u64,
}

impl Totals {
    /// Nothing yet. What comes less than `late` before a slot's end is marked as such: there another's clock, or the pause between two scrapes,
    /// decides the slot.
    pub fn new(figure: Figure, slots: Slots, late: Duration) -> Self {
        Self { figure, slots, late, cells: BTreeMap::new() }
    }

    /// The slots that it sums in.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// What is summed.
    pub fn figure(&self) -> &Figure {
        &self.figure
    }

    /// The sums.
    pub fn cells(&self) -> &BTreeMap<Key, Cell> {
        &self.cells
    }

    /// Takes a leaf of the client's, each once and in any order.
    ///
    /// # Errors
    /// A time or amount that is missing, or more sums than are held. What was taken before stays.
    pub fn take(&mut self, header: &leaf::Leaf, body: &Body) -> Result<(), TotalsError> {
        match (&self.figure, body) {
            (Figure::PlatformSpend { platform }, Body::Settlements(batch)) => {
                let theirs = |settlement: &&leaf::Settlement| settlement.platform == *platform;
                let entry = |s: &leaf::Settlement| Ok((time(header, "bid_at", s.bid_at.as_ref())?, i128::from(s.price_nanos), 1));
                let entries: Vec<_> = batch.settlements.iter().filter(theirs).map(entry).collect::<Result<_, _>>()?;
                self.add(header.index, &batch.campaign, &batch.currency, entries)
            }
            (Figure::PlatformSpend { platform }, Body::SpendAdjustment(adjustment)) if adjustment.platform == *platform => {
                let at = time(header, "accounted_at", adjustment.accounted_at.as_ref())?;
                let entry = (at, i128::from(adjustment.amount_nanos), 0);
                self.add(header.index, &adjustment.campaign, &adjustment.currency, vec![entry])
            }
            (Figure::CountedSpend, Body::Settlements(batch)) => {
                let at = recorded(header)?;
                let noticed = batch.settlements.iter().filter(|settlement| !settlement.exchange.is_empty());
                let entries = noticed.map(|settlement| (at, i128::from(settlement.price_nanos), 1)).collect();
                self.add(header.index, &batch.campaign, &batch.currency, entries)
            }
            (Figure::CountedLtv, Body::Conversion(conversion)) => {
                let nanos = i128::from(conversion.predicted_ltv_micros.max(0)) * NANOS_PER_MICRO;
                self.add(header.index, &conversion.campaign, &conversion.currency, vec![(recorded(header)?, nanos, 1)])
            }
            _ => Ok(()),
        }
    }

    /// Adds what one leaf says of a campaign: instants, nanos and items.
    fn add(&mut self, leaf: u64, campaign: &str, currency: &str, entries: Vec<(UnixMicros, i128, u64)>) -> Result<(), TotalsError> {
        let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
        for (at, nanos, items) in entries {
            let Some(slot) = self.slots.of(at) else { continue };
            let part = parts.entry(slot).or_default();
            part.nanos += nanos;
            part.items += items;
            if self.slots.span(slot).is_some_and(|span| at.plus(self.late) >= span.end) {
                part.late_nanos += nanos;
            }
        }
        for (slot, part) in parts {
            let key = Key { slot, campaign: campaign.to_owned(), currency: currency.to_owned() };
            if self.cells.len() >= CELLS_MAX && !self.cells.contains_key(&key) {
                return Err(TotalsError::TooMany);
            }
            self.cells.entry(key).or_default().add(leaf, part);
        }
        Ok(())
    }
}

impl Cell {
    fn add(&mut self, leaf: u64, part: Part) {
        self.nanos += part.nanos;
        self.late_nanos += part.late_nanos;
        self.items += part.items;
        self.leaf_count += 1;
        let at = self.leaves.partition_point(|named| *named < leaf);
        if at < LEAVES_NAMED {
            self.leaves.insert(at, leaf);
            self.leaves.truncate(LEAVES_NAMED);
        }
    }
}

/// When the log took a leaf.
///
/// # Errors
/// The leaf does not say.
pub fn recorded(header: &leaf::Leaf) -> Result<UnixMicros, TotalsError> {
    time(header, "recorded_at", header.recorded_at.as_ref())
}

fn time(header: &leaf::Leaf, field: &'static str, at: Option<&prost_types::Timestamp>) -> Result<UnixMicros, TotalsError> {
    UnixMicros::from_pb(at).ok_or(TotalsError::Field { leaf: header.index, field })
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
