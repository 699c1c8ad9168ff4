//! What the network's outputs mean, beside what the estimate expects.

use super::network::OUTPUTS;

/// log(mean / the estimate's).
pub const MEAN: usize = 0;
/// Log-odds of a purchase, less the estimate's.
pub const ACTIVE: usize = 1;
/// Log of what a buyer spends, less that of the estimate's mean of a buyer.
pub const LOCATION: usize = 2;
/// log of the scatter of that log.
pub const SCALE: usize = 3;
/// log(days / the estimate's).
pub const COUNT: usize = 4;

/// What is expected of a customer; amounts in the units of the estimate's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heads {
    /// Spend.
    pub mean: f32,
    /// The chance of a purchase.
    pub active: f32,
    /// Mean of the log of what is spent where anything is.
    pub location: f32,
    /// Standard deviation of that log.
    pub scale: f32,
    /// Purchase days.
    pub count: f32,
}

impl Heads {
    /// From the outputs and what the estimate expects: spend, days, chance.
    #[must_use]
    pub fn of(out: &[f32; OUTPUTS], expected: &[f32; 3]) -> Self {
        let [spend, count, active] = expected.map(|x| x.clamp(1e-5, 1e9));
        let active = active.min(1.0 - 1e-5);
        let odds = (active / (1.0 - active)).ln();
        let factor = |x: f32| x.clamp(-10.0, 10.0).exp();
        Self {
            mean: spend * factor(out[MEAN]),
            active: 1.0 / (1.0 + (-(odds + out[ACTIVE])).clamp(-30.0, 30.0).exp()),
            location: (spend / active).ln() + out[LOCATION].clamp(-10.0, 10.0),
            scale: 0.05 + out[SCALE].clamp(-4.0, 4.0).exp(),
            count: count * factor(out[COUNT]),
        }
    }
}
