//! Whether customers still look as those did that a model was trained on: the population stability index of each number that it reads.
//!
//! A number's values in training are cut into at most ten parts of about equal size. With the shares e of training and a of late,
//! PSI = sum (a - e) ln(a / e) over the parts (Siddiqi 2006, "Credit Risk Scorecards", who reads below 0.1 as no change and above 0.25 as a
//! large one). What is counted of late is those predictions for which the networks were asked, each customer at most once a day; it fades, so
//! that the index speaks of the last [`FADES_AT`] or so.

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::model::features::NAMES;
use super::model::network::INPUTS;

/// Parts of a number's range, at most.
const PARTS: usize = 10;
/// Counts are halved when there are so many.
pub const FADES_AT: u32 = 20_000;
/// Fewer say nothing.
const LEAST: u32 = 500;
/// The smallest share that a logarithm is taken of.
const FLOOR: f64 = 1e-4;

/// How a number was spread over those who were trained on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Where one part ends and the next begins: a value belongs to the part of the first edge that is not below it.
    pub edges: Vec<f32>,
    /// The parts' shares: one more than edges.
    pub shares: Vec<f64>,
}

impl Spread {
    /// Of these values.
    #[must_use]
    pub fn of(mut values: Vec<f32>) -> Self {
        values.sort_by(f32::total_cmp);
        let mut edges: Vec<f32> = (1..PARTS).filter_map(|part| values.get(part * values.len() / PARTS).copied()).collect();
        edges.dedup();
        let mut spread = Self { shares: vec![0.0; edges.len() + 1], edges };
        let one = 1.0 / values.len().max(1) as f64;
        for value in values {
            let part = spread.part(value);
            spread.shares[part] += one;
        }
        spread
    }

    fn part(&self, value: f32) -> usize {
        self.edges.partition_point(|edge| *edge < value)
    }

    /// Whether it is one.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.shares.len() == self.edges.len() + 1
            && self.edges.len() < PARTS
            && self.edges.is_sorted()
            && self.shares.iter().all(|share| (0.0..=1.001).contains(share))
    }
}

/// A model's spreads, and what was seen of late.
#[derive(Debug)]
pub struct Drift {
    spreads: Vec<Spread>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    parts: Vec<[u32; PARTS]>,
    all: u32,
}

impl Drift {
    /// Nothing seen yet. Without a spread for each number nothing is counted.
    #[must_use]
    pub fn new(spreads: Vec<Spread>) -> Self {
        let parts = vec![[0; PARTS]; spreads.len()];
        Self { spreads, seen: Mutex::new(Seen { parts, all: 0 }) }
    }

    /// A customer was asked about.
    pub fn saw(&self, inputs: &[f32; INPUTS]) {
        let mut seen = self.seen.lock();
        if seen.all == FADES_AT {
            seen.parts.iter_mut().flatten().for_each(|count| *count /= 2);
            seen.all /= 2;
        }
        seen.all += 1;
        for ((spread, parts), value) in self.spreads.iter().zip(&mut seen.parts).zip(inputs) {
            parts[spread.part(*value)] += 1;
        }
    }

    /// The index of each number, by name; none while too few were seen.
    #[must_use]
    pub fn psi(&self) -> Vec<(&'static str, f64)> {
        let seen = self.seen.lock();
        if seen.all < LEAST {
            return Vec::new();
        }
        let psi = |(spread, parts): (&Spread, &[u32; PARTS])| {
            let all: f64 = parts.iter().map(|count| f64::from(*count)).sum();
            let of = |(expected, count): (&f64, &u32)| {
                let (expected, actual) = (expected.max(FLOOR), (f64::from(*count) / all).max(FLOOR));
                (actual - expected) * (actual / expected).ln()
            };
            spread.shares.iter().zip(parts).map(of).sum()
        };
        NAMES.into_iter().zip(self.spreads.iter().zip(&seen.parts).map(psi)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::random::Random;

    fn seen(change: impl Fn(f32) -> f32) -> f64 {
        let mut random = Random(1);
        let spread = Spread::of((0..5_000).map(|_| random.uniform()).collect());
        assert!(spread.is_sound() && spread.shares.len() == PARTS);
        let drift = Drift::new(vec![spread; INPUTS]);
        assert!(drift.psi().is_empty());
        for _ in 0..3 * FADES_AT {
            drift.saw(&[change(random.uniform()); INPUTS]);
        }
        let psi = drift.psi();
        assert_eq!((psi.len(), psi[3].0), (INPUTS, "recency"));
        psi[0].1
    }

    #[test]
    fn is_small_for_the_same_and_large_for_others() {
        assert!(seen(|x| x) < 0.01);
        let half = seen(|x| x + 0.5);
        assert!((0.5..20.0).contains(&half), "{half}");
    }

    #[test]
    fn knows_the_formula() {
        // Two parts of one half each; all of late are in the second.
        let drift = Drift::new(vec![Spread { edges: vec![0.0], shares: vec![0.5, 0.5] }]);
        (0..LEAST).for_each(|_| drift.saw(&[1.0; INPUTS]));
        let expected = 0.5 * 2_f64.ln() + (FLOOR - 0.5) * (FLOOR / 0.5).ln();
        assert!((drift.psi()[0].1 - expected).abs() < 1e-9);
    }

    #[test]
    fn a_number_that_never_varied_is_one_part_and_the_rest() {
        let spread = Spread::of(vec![2.0; 100]);
        assert_eq!((spread.edges, spread.shares.len()), (vec![2.0], 2));
    }
}
