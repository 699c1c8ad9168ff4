//! What was measured in turn with others, so that a machine that others use hits all of them; a ratio is the median over the turns.

use std::time::Duration;

use hdrhistogram::Histogram;

use super::drive::Measured;
use crate::error::Failure;

/// What one of them did.
pub(super) struct Turns {
    pub(super) sum: Measured,
    elapsed: Duration,
    /// CPU seconds of the server per million items, turn by turn.
    cpu_s_per_million: Vec<f64>,
}

impl Turns {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { sum: Measured::new()?, elapsed: Duration::ZERO, cpu_s_per_million: Vec::new() })
    }

    /// A turn: what was done, and the server's CPU time.
    pub(super) fn add(&mut self, (measured, cpu): (Measured, Duration)) -> Result<(), Failure> {
        self.cpu_s_per_million.push(cpu.as_secs_f64() * 1e6 / measured.answered().max(1) as f64);
        self.elapsed += measured.elapsed;
        self.sum.add(&measured)
    }

    /// Items that were answered, a second.
    pub(super) fn per_second(&self) -> f64 {
        rounded(self.sum.answered() as f64 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE))
    }

    pub(super) fn cpu(&self) -> f64 {
        rounded(median(self.cpu_s_per_million.clone()))
    }

    /// How many times the other's CPU time an item takes: the median over the turns.
    pub(super) fn cpu_ratio(&self, other: &Self) -> f64 {
        let turns = self.cpu_s_per_million.iter().zip(&other.cpu_s_per_million);
        median(turns.map(|(mine, other)| mine / other.max(f64::MIN_POSITIVE)).collect())
    }
}

/// The 50th, 99th and 99.9th.
pub(super) fn percentiles(of: &Histogram<u64>) -> [u64; 3] {
    [0.5, 0.99, 0.999].map(|quantile| of.value_at_quantile(quantile))
}

/// The middle of an odd number of figures.
pub(super) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

/// To three places: more would be noise.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_the_median_of_the_turns() -> Result<(), Failure> {
        let turn = |items: u64, cpu_ms: u64| {
            let mut measured = Measured::new()?;
            (0..items).for_each(|nth| measured.add_call(Duration::from_micros(5), 10, nth % 2 == 0));
            measured.elapsed = Duration::from_secs(1);
            Ok::<_, Failure>((measured, Duration::from_millis(cpu_ms)))
        };
        let (mut one, mut other) = (Turns::new()?, Turns::new()?);
        for (cpu, others_cpu) in [(20, 10), (90, 10), (30, 10)] {
            one.add(turn(100, cpu)?)?;
            other.add(turn(50, others_cpu)?)?;
        }
        assert!((one.per_second() - 100.0).abs() < 1e-9 && (one.cpu() - 300.0).abs() < 1e-9, "{} {}", one.per_second(), one.cpu());
        assert!((one.cpu_ratio(&other) - 1.5).abs() < 1e-9, "0.3 s to 0.2 s a thousand, and not the mean of the turns");
        assert_eq!((one.sum.items, one.sum.others), (150, 150));
        Ok(())
    }
}
