//! The randomness of what is simulated: ChaCha8, seeded by what a draw is for, so that a draw depends on nothing drawn before it. A run
//! that was cut off therefore goes on exactly as it would have.
//!
//! Floats are fine here: nothing drawn is money of ours, only the behaviour of customers and competitors.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};

/// A stream of draws.
#[derive(Debug, Clone)]
pub(crate) struct Draws(ChaCha8Rng);

impl Draws {
    /// The stream for `purpose` and the thing with these numbers.
    pub(crate) fn of(seed: u64, purpose: &str, numbers: &[u64]) -> Self {
        let mut hash = Sha256::new();
        hash.update(seed.to_le_bytes());
        hash.update(purpose.as_bytes());
        for number in numbers {
            hash.update(number.to_le_bytes());
        }
        Self(ChaCha8Rng::from_seed(hash.finalize().into()))
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in 0..bound; 0 for an empty range. Its bias is below 2^-32 for the bounds used here.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.0.next_u64()) * bound as u128) >> 64) as usize
    }

    /// True with this probability.
    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// One of a list that is not empty.
    pub(crate) fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Standard normal, by Box and Muller.
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Exponential with this mean.
    pub(crate) fn exponential(&mut self, mean: f64) -> f64 {
        -mean * (1.0 - self.unit()).ln()
    }

    /// Log-normal around this median.
    pub(crate) fn lognormal(&mut self, median: f64, sigma: f64) -> f64 {
        median * (sigma * self.normal()).exp()
    }

    /// Gamma with this shape and scale, by Marsaglia and Tsang (2000).
    pub(crate) fn gamma(&mut self, shape: f64, scale: f64) -> f64 {
        if shape < 1.0 {
            let boost = (1.0 - self.unit()).powf(1.0 / shape);
            return self.gamma(shape + 1.0, scale) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v * scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_their_purpose_alone() {
        let first = |seed, purpose, number| Draws::of(seed, purpose, &[number]).unit();
        assert_eq!(first(1, "a", 2), first(1, "a", 2));
        assert!(first(1, "a", 2) != first(1, "a", 3) && first(1, "a", 2) != first(1, "b", 2) && first(1, "a", 2) != first(2, "a", 2));
    }

    #[test]
    fn means_are_what_they_should_be() {
        let mut draws = Draws::of(7, "test", &[]);
        let mut mean = |draw: fn(&mut Draws) -> f64| (0..20_000).map(|_| draw(&mut draws)).sum::<f64>() / 20_000.0;
        assert!((mean(|d| d.gamma(0.6, 2.0)) - 1.2).abs() < 0.05);
        assert!((mean(|d| d.gamma(3.0, 2.0)) - 6.0).abs() < 0.1);
        assert!((mean(|d| d.exponential(5.0)) - 5.0).abs() < 0.15);
        assert!(mean(Draws::normal).abs() < 0.03);
        assert!((mean(|d| d.below(10) as f64) - 4.5).abs() < 0.1);
    }
}
