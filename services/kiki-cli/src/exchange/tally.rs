//! What the exchange holds against the bidder, and what the bidder owes it.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::notice::{Charged, Drawn};
use crate::error::{Doing as _, Failure};

/// Latencies up to a minute, to three figures.
const LONGEST_US: u64 = 60_000_000;

/// How many of something, and what they come to in nanos.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Sum {
    pub(crate) count: u64,
    /// In JSON a text, because numbers there are doubles to many.
    #[serde(serialize_with = "as_text")]
    pub(crate) nanos: i128,
}

fn as_text<S: serde::Serializer>(nanos: &i128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(nanos)
}

impl Sum {
    pub(crate) fn add(&mut self, nanos: i64) {
        self.count += 1;
        self.nanos += i128::from(nanos);
    }
}

/// The money of one currency.
///
/// What is owed is what was cleared of impressions that were charged. By what became of the charging notice it is `told`, `lost`,
/// `refused` or `unanswered`, each at the price that was cleared; what the bidder has booked is `booked`, told prices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Money {
    /// Bids that came too late, at the prices that they offered: the bidder holds that money until it gives them up.
    pub(crate) late_bids: Sum,
    pub(crate) won: Sum,
    pub(crate) owed: Sum,
    pub(crate) told: Sum,
    pub(crate) lost: Sum,
    pub(crate) refused: Sum,
    pub(crate) unanswered: Sum,
    /// What was told with an answer of success, at the price that the notice named.
    pub(crate) booked: Sum,
}

/// What became of a notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Told,
    Refused,
    Unanswered,
}

impl Money {
    /// An impression that the exchange charges.
    pub(crate) fn charge(&mut self, charged: &Charged) {
        self.owed.add(charged.cleared);
        if charged.lost {
            self.lost.add(charged.cleared);
        }
    }

    /// The answer to the notice that charges it.
    pub(crate) fn delivered(&mut self, charged: &Charged, delivery: Delivery) {
        match delivery {
            Delivery::Told => {
                self.told.add(charged.cleared);
                self.booked.add(charged.told);
            }
            Delivery::Refused => self.refused.add(charged.cleared),
            Delivery::Unanswered => self.unanswered.add(charged.cleared),
        }
    }

    /// Whether every impression that is owed for is accounted for.
    pub(crate) fn adds_up(&self) -> bool {
        let parts = [self.told, self.lost, self.refused, self.unanswered];
        let count: u64 = parts.iter().map(|sum| sum.count).sum();
        let nanos: i128 = parts.iter().map(|sum| sum.nanos).sum();
        (count, nanos) == (self.owed.count, self.owed.nanos) && self.booked.count == self.told.count
    }
}

/// The counts of a run.
pub(crate) struct Tally {
    pub(crate) sent: u64,
    /// Due while as many were under way as may be.
    pub(crate) not_sent: u64,
    /// Answers, with bids or without, that were there within tmax; and those that came later.
    pub(crate) in_time: u64,
    pub(crate) late: u64,
    /// Answers that were there in time and in which nothing was wrong.
    pub(crate) good: u64,
    /// Requests in the auctions of which there was a bid.
    pub(crate) with_bids: u64,
    pub(crate) no_bids: BTreeMap<String, u64>,
    /// Requests that were answered with another status, or not.
    pub(crate) errors: BTreeMap<String, u64>,
    /// Answers and bids that were not taken, by what was wrong with them.
    pub(crate) invalid: BTreeMap<&'static str, u64>,
    /// Bids in auctions, and those that won.
    pub(crate) bids: u64,
    pub(crate) wins: u64,
    /// From when a request was due until it was answered, or it was clear that it would not be; microseconds.
    pub(crate) latency: Histogram<u64>,
    /// Over which requests were due.
    pub(crate) elapsed: Duration,
    pub(crate) drawn: Drawn,
    /// Notices by kind and answer.
    pub(crate) notices: BTreeMap<String, u64>,
    pub(crate) money: BTreeMap<String, Money>,
}

impl Tally {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            sent: 0,
            not_sent: 0,
            in_time: 0,
            late: 0,
            good: 0,
            with_bids: 0,
            no_bids: BTreeMap::new(),
            errors: BTreeMap::new(),
            invalid: BTreeMap::new(),
            bids: 0,
            wins: 0,
            latency: Histogram::new_with_bounds(1, LONGEST_US, 3).doing("making a histogram")?,
            elapsed: Duration::ZERO,
            drawn: Drawn::default(),
            notices: BTreeMap::new(),
            money: BTreeMap::new(),
        })
    }

    pub(crate) fn money(&mut self, currency: &str) -> &mut Money {
        self.money.entry(currency.to_owned()).or_default()
    }

    pub(crate) fn took(&mut self, took: Duration) {
        self.latency.saturating_record(took.as_micros().try_into().unwrap_or(u64::MAX).max(1));
    }
}

impl Drawn {
    pub(crate) fn add(&mut self, other: &Self) {
        self.late += other.late;
        self.duplicate += other.duplicate;
        self.lost += other.lost;
        self.reordered += other.reordered;
        self.wrong_price += other.wrong_price;
        self.unshown += other.unshown;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_is_told_lost_refused_or_unanswered() {
        let mut money = Money::default();
        let charged = |cleared, told, lost| Charged { cleared, told, lost };
        for (one, delivery) in [
            (charged(100, 100, false), Some(Delivery::Told)),
            (charged(200, 150, false), Some(Delivery::Told)),
            (charged(50, 75, false), Some(Delivery::Refused)),
            (charged(30, 30, false), Some(Delivery::Unanswered)),
            (charged(7, 7, true), None),
        ] {
            money.charge(&one);
            if let Some(delivery) = delivery {
                assert!(!money.adds_up(), "its notice is under way");
                money.delivered(&one, delivery);
            }
            assert!(money.adds_up(), "{money:?}");
        }
        assert_eq!((money.owed, money.booked), (Sum { count: 5, nanos: 387 }, Sum { count: 2, nanos: 250 }));
    }
}
