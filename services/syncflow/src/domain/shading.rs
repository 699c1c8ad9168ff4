//! Bid shading: in a first-price auction who wins pays the bid, so the best bid is below the value.
//!
//! Of the prices between floor and value, the one is offered with the greatest expected surplus `(v - b) P(win | b)`
//! (Gligorijevic and others, "Bid Shading in The Brave New World of Online Advertising", CIKM 2020; Zhou and others, "An
//! Efficient Deep Distribution Network for Bid Shading in First-Price Auctions", KDD 2021). `v` is what pacing leaves of the
//! value: with a budget whose dual is lambda the surplus is `(v0 - b) P - lambda b P`, which is `1 + lambda` times that.
//!
//! P(win | b) is counted for each market: exchange, place, kinds of ad, currency and floor. Where the exchange says
//! what it took to win (`${AUCTION_MIN_TO_WIN}`), every price is known to have won or not. Otherwise the price that was bid
//! alone is: current status data, whose nonparametric maximum likelihood estimate is the isotonic regression of the wins
//! (Groeneboom and Wellner 1992, part II, proposition 1.2), by pooling adjacent violators. What was seen fades with what
//! is seen after it. A market of which little is known is not shaded.
//!
//! Prices stand on a grid of eight steps to the octave, in integers. Floats count and compare; none becomes a price.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;

use kiki::money::{Currency, Nanos};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use super::notice::Word;
use super::opportunity::{Opportunity, Shape};

/// Markets remembered, 3 kB each.
const MAX_MARKETS: usize = 1_024;
/// Grid: from 2^10 nanos, a CPM of 0.001, over 32 octaves.
const LEVELS: usize = 256;
const LOWEST_OCTAVE: u32 = 10;
/// What of its weight an observation keeps with each later one: half after 1,400.
const KEPT: f32 = 0.999_5;
/// As many observations make a market known.
const ENOUGH: f32 = 50.0;
/// A price that was never tried counts as lost so many times.
const DOUBT: f32 = 0.1;
const PPM: u64 = 1_000_000;

/// Which market an impression is sold in: the same number for what is alike.
pub type Market = NonZeroU64;

/// The market of bids in that currency for an opportunity in a first-price auction; none in another, where the value itself
/// is the best bid.
#[must_use]
pub fn market(opportunity: &Opportunity<'_>, currency: Currency) -> Option<Market> {
    if !opportunity.first_price {
        return None;
    }
    let mut hash = Sha256::new();
    let place = opportunity.places.first().copied().unwrap_or_default();
    for text in [opportunity.exchange, opportunity.placement, place, currency.code()] {
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(text.as_bytes());
    }
    let kind = |shape: &Shape| match shape {
        Shape::Banner(_) => 1,
        Shape::Video(_) => 2,
        Shape::Audio(_) => 4,
        Shape::Native(_) => 8,
    };
    hash.update([opportunity.shapes.iter().fold(0_u8, |kinds, shape| kinds | kind(shape))]);
    hash.update([level(opportunity.floor) as u8 / 4]); // two steps of floors to the octave
    let digest = hash.finalize();
    let number = digest.first_chunk().copied().map_or(0, u64::from_be_bytes);
    Some(NonZeroU64::new(number).unwrap_or(NonZeroU64::MIN))
}

/// What a notice says of the price to beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It took this much to win.
    ToWin(Nanos),
    /// This bid won.
    Won(Nanos),
    /// This bid lost for its price.
    Lost(Nanos),
}

impl Seen {
    /// What a notice of a bid of that price says; nothing where it was lost for something else than its price.
    #[must_use]
    pub fn of(word: Word, bid: Nanos, min_to_win: Option<Nanos>) -> Option<Self> {
        /// AdCOM's loss reasons for a price: below the auction's floor, lost to a higher bid.
        const PRICE: [u32; 2] = [100, 102];
        match (min_to_win.filter(|price| *price > Nanos::ZERO), word) {
            (Some(price), _) => Some(Self::ToWin(price)),
            (None, Word::Win(_) | Word::Bill(_)) => Some(Self::Won(bid)),
            (None, Word::Loss(reason)) => PRICE.contains(&reason).then_some(Self::Lost(bid)),
        }
    }
}

/// What is to be offered, and within what bounds.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// What the impression is worth, and no more than is offered.
    pub value: Nanos,
    /// The floor.
    pub least: Nanos,
    /// The share of bids that try a lower price to learn from it, parts per million.
    pub exploration_ppm: u32,
    /// The opportunity's key, which draws those bids.
    pub key: [u8; 16],
}

/// What is known of each market.
#[derive(Debug, Default)]
pub struct Markets {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    curves: HashMap<Market, Box<Curve>>,
    order: VecDeque<Market>,
}

impl Markets {
    /// The best offer: at most the value, and not below the floor where the value is not.
    #[must_use]
    pub fn offer(&self, market: Market, question: &Question) -> Nanos {
        let inner = self.inner.lock();
        let best = inner.curves.get(&market).and_then(|curve| curve.best(question)).unwrap_or(question.value);
        explored(best, question)
    }

    /// Takes in what a notice said. The oldest market makes room for a new one.
    pub fn saw(&self, market: Market, seen: Seen) {
        let mut inner = self.inner.lock();
        if !inner.curves.contains_key(&market) {
            if inner.order.len() >= MAX_MARKETS
                && let Some(oldest) = inner.order.pop_front()
            {
                inner.curves.remove(&oldest);
            }
            inner.order.push_back(market);
        }
        inner.curves.entry(market).or_default().saw(seen);
    }
}

/// Now and then a lower price than the best, any of them alike, so that what it wins gets known.
fn explored(best: Nanos, question: &Question) -> Nanos {
    let [draw, place] = [0, 8].map(|at| question.key[at..].first_chunk().copied().map_or(0, u64::from_be_bytes));
    let lower = levels(question.least, best);
    if draw % PPM >= u64::from(question.exploration_ppm) || lower.is_empty() {
        return best;
    }
    price(lower.start + (place % lower.len() as u64) as usize)
}

/// What is known of one market, by levels of price.
#[derive(Debug)]
struct Curve {
    /// How often it took a price of this level to win.
    to_win: [f32; LEVELS],
    /// How often a bid of this level was made of which nothing more is known, and won.
    tried: [f32; LEVELS],
    won: [f32; LEVELS],
    seen: f32,
}

impl Default for Curve {
    fn default() -> Self {
        Self { to_win: [0.0; LEVELS], tried: [0.0; LEVELS], won: [0.0; LEVELS], seen: 0.0 }
    }
}

/// Levels that win alike: how often they won of how many, and the lowest price among them.
#[derive(Debug, Clone, Copy)]
struct Pool {
    won: f32,
    of: f32,
    price: Nanos,
}

impl Curve {
    fn saw(&mut self, seen: Seen) {
        for counts in [&mut self.to_win, &mut self.tried, &mut self.won] {
            counts.iter_mut().for_each(|count| *count *= KEPT);
        }
        self.seen = self.seen * KEPT + 1.0;
        match seen {
            Seen::ToWin(price) => self.to_win[level(price)] += 1.0,
            // Between two levels it says that the upper one would have won too.
            Seen::Won(bid) => {
                let at = reached(bid);
                self.tried[at] += 1.0;
                self.won[at] += 1.0;
            }
            Seen::Lost(bid) => self.tried[level(bid)] += 1.0,
        }
    }

    /// The price of the greatest expected surplus, the higher of two that are equal; none where too little is known.
    fn best(&self, question: &Question) -> Option<Nanos> {
        if self.seen < ENOUGH {
            return None;
        }
        let surplus = |pool: &Pool| (question.value.get() - pool.price.get()) as f32 * pool.won / pool.of;
        let pools = self.pools(levels(question.least, question.value));
        let best = pools.iter().filter(|pool| surplus(pool) > 0.0).max_by(|one, other| surplus(one).total_cmp(&surplus(other)))?;
        Some(best.price)
    }

    /// The isotonic regression of the wins over these levels. Of levels that win alike the lowest price is the best.
    fn pools(&self, levels: std::ops::Range<usize>) -> Vec<Pool> {
        let known: f32 = self.to_win.iter().sum();
        let mut beaten: f32 = self.to_win[..levels.start].iter().sum();
        let mut pools: Vec<Pool> = Vec::with_capacity(levels.len());
        for at in levels {
            let mut pool = Pool { won: beaten + self.won[at], of: known + self.tried[at] + DOUBT, price: price(at) };
            beaten += self.to_win[at];
            while let Some(below) = pools.pop_if(|below| below.won * pool.of >= pool.won * below.of) {
                pool = Pool { won: pool.won + below.won, of: pool.of + below.of, price: below.price };
            }
            pools.push(pool);
        }
        pools
    }
}

/// The levels whose prices are within the bounds, both included.
fn levels(least: Nanos, most: Nanos) -> std::ops::Range<usize> {
    let (first, last) = (reached(least), level(most));
    let none = price(first) < least || price(last) > most;
    if none { 0..0 } else { first..(last + 1).max(first) }
}

/// The highest level whose price is not above; the lowest one where all are.
fn level(nanos: Nanos) -> usize {
    let nanos = nanos.get().max(1 << LOWEST_OCTAVE);
    let octave = nanos.ilog2();
    let eighth = (nanos >> (octave - 3)) & 7;
    ((octave - LOWEST_OCTAVE) as usize * 8 + eighth as usize).min(LEVELS - 1)
}

/// The lowest level whose price is not below; the highest one where all are.
fn reached(nanos: Nanos) -> usize {
    let at = level(nanos);
    if price(at) < nanos { (at + 1).min(LEVELS - 1) } else { at }
}

fn price(level: usize) -> Nanos {
    Nanos::new((8 + (level as i64 & 7)) << (LOWEST_OCTAVE as usize - 3 + level / 8))
}

#[cfg(test)]
mod tests;
