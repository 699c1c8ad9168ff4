//! The rules of an auction, and who else bids in it.
//!
//! Prices are nanos an impression, which is micros of a CPM. In a first-price auction the winner pays its bid; in a second-price
//! auction it pays the next price or the floor, whichever is higher (OpenRTB 2.6, `at` of 3.2.1, without the cent of "second price
//! plus"). Bids below the floor are in no auction. Between equal prices chance decides.

use clap::ValueEnum;

use crate::random::Draws;

/// What the winner pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// Its bid: `at` = 1.
    First,
    /// The next price, or the floor: `at` = 2.
    Second,
}

impl Rule {
    /// OpenRTB's `at`.
    pub(crate) const fn at(self) -> u8 {
        match self {
            Self::First => 1,
            Self::Second => 2,
        }
    }
}

/// How an auction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cleared {
    /// Which of the offers won.
    pub(crate) winner: usize,
    /// What it pays; never above its offer, never below the floor.
    pub(crate) price: i64,
}

/// Runs an auction. `tie` decides between equal prices. None where no offer reaches the floor and is above 0.
pub(crate) fn clear(rule: Rule, floor: i64, offers: &[i64], tie: usize) -> Option<Cleared> {
    let highest = offers.iter().copied().max().filter(|price| *price >= floor && *price > 0)?;
    let equals: Vec<usize> = offers.iter().enumerate().filter(|(_, price)| **price == highest).map(|(at, _)| at).collect();
    let winner = equals[tie % equals.len()];
    let price = match rule {
        Rule::First => highest,
        Rule::Second => to_beat(floor, offers, winner),
    };
    Some(Cleared { winner, price })
}

/// What an offer had to reach: the highest of the others, or the floor. OpenRTB's `${AUCTION_MIN_TO_WIN}`.
pub(crate) fn to_beat(floor: i64, offers: &[i64], of: usize) -> i64 {
    let others = offers.iter().enumerate().filter(|(at, _)| *at != of).map(|(_, price)| *price);
    others.max().unwrap_or(0).max(floor)
}

/// The other bidders: up to so many in each auction, whose prices are log-normal around the placement's own median.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Market {
    pub(crate) seed: u64,
    /// Median of the placements' medians, nanos.
    pub(crate) median: f64,
    /// The most that bid in one auction.
    pub(crate) most: u8,
}

/// Spread of the placements' medians, and of the prices in one placement.
const SIGMA_PLACEMENTS: f64 = 0.5;
const SIGMA_PRICES: f64 = 0.7;

impl Market {
    /// The median price in a placement, nanos.
    pub(crate) fn typical(&self, placement: &str) -> f64 {
        Draws::of(self.seed, &format!("placement {placement}"), &[]).lognormal(self.median, SIGMA_PLACEMENTS)
    }

    /// What the others offer in one auction.
    pub(crate) fn offers(&self, typical: f64, draws: &mut Draws) -> Vec<i64> {
        let bidders = draws.below(usize::from(self.most) + 1);
        (0..bidders).map(|_| draws.lognormal(typical, SIGMA_PRICES).min(1e18) as i64).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_winner_pays_its_bid_or_the_next_price_or_the_floor() {
        let offers = [700, 900, 400];
        assert_eq!(clear(Rule::First, 100, &offers, 0), Some(Cleared { winner: 1, price: 900 }));
        assert_eq!(clear(Rule::Second, 100, &offers, 0), Some(Cleared { winner: 1, price: 700 }));
        assert_eq!(clear(Rule::Second, 800, &offers, 0), Some(Cleared { winner: 1, price: 800 }));
        assert_eq!(clear(Rule::Second, 900, &offers, 0), Some(Cleared { winner: 1, price: 900 }), "a bid at the floor is in");
        assert_eq!(clear(Rule::Second, 50, &[60], 0), Some(Cleared { winner: 0, price: 50 }), "alone, it pays the floor");
        assert_eq!(clear(Rule::Second, 0, &[60], 0), Some(Cleared { winner: 0, price: 0 }));
        for none in [clear(Rule::First, 901, &offers, 0), clear(Rule::First, 0, &[0, -5], 0), clear(Rule::First, 0, &[], 0)] {
            assert_eq!(none, None);
        }
    }

    #[test]
    fn between_equal_prices_the_tie_decides_and_the_price_is_theirs() {
        let winners = [0, 1, 2, 3].map(|tie| clear(Rule::Second, 1, &[5, 9, 9, 9], tie));
        assert_eq!(winners.map(|cleared| cleared.map(|c| c.winner)), [Some(1), Some(2), Some(3), Some(1)]);
        assert!(winners.iter().flatten().all(|cleared| cleared.price == 9));
    }

    #[test]
    fn what_had_to_be_beaten_is_the_best_of_the_others_or_the_floor() {
        assert_eq!([0, 1].map(|of| to_beat(10, &[5, 20], of)), [20, 10]);
        assert_eq!(to_beat(3, &[7], 0), 3);
    }

    #[test]
    fn a_placement_has_its_own_prices_and_a_seed_its_own_market() {
        let market = Market { seed: 1, median: 1_000.0, most: 3 };
        assert!(market.typical("a") == market.typical("a") && market.typical("a") != market.typical("b"));
        assert!(market.typical("a") != Market { seed: 2, ..market }.typical("a"));
        let mut draws = Draws::of(1, "test", &[]);
        let offers: Vec<Vec<i64>> = (0..4_000).map(|_| market.offers(1_000.0, &mut draws)).collect();
        let count = |n: usize| offers.iter().filter(|offers| offers.len() == n).count();
        assert!((0..=3).all(|n| (900..1_100).contains(&count(n))), "{:?}", [0, 1, 2, 3].map(count));
        let mut all = offers.concat();
        all.sort_unstable();
        assert!((950..1_050).contains(&all[all.len() / 2]), "median {}", all[all.len() / 2]);
    }
}
