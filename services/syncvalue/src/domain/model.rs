//! The model that the product is named for: a dilated gated recurrent network over a customer's weeks.
//!
//! [`features`] says what a week looks like to it, [`network`] is its arithmetic, [`kernel`] the loops that it is made of, and [`heads`] what
//! comes out, beside what the estimate that every model carries with it expects ([`super::predictor`]). Several networks that
//! were trained alike on other parts of the customers answer together: the mean of their answers.

pub mod features;
pub mod heads;
pub mod kernel;
pub mod network;

use kiki::clock::UnixMicros;
use sha2::{Digest as _, Sha256};

use super::customer::{Customer, DAY_MICROS, Event, EventId};
use super::fit::{Fit, Table};
use super::interval::normal_quantile;
use super::predictor::{self, Expected};
use features::{Scales, Weeks};
use heads::Heads;
use network::{INPUTS, Layout, OUTPUTS};

/// What a customer did on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Since 1970.
    pub day: i64,
    /// Units bought.
    pub items: u32,
    /// Micros; never below zero.
    pub spend_micros: i64,
}

impl Day {
    /// As the estimate takes it in: a customer's days have ids of their own.
    #[must_use]
    pub const fn event(&self) -> Event {
        Event { id: EventId(self.day.cast_unsigned()), at: UnixMicros(self.day * DAY_MICROS), value_micros: self.spend_micros }
    }
}

/// A trained model.
#[derive(Debug, Clone)]
pub struct Model {
    /// Under which its predictions are frozen into decisions.
    pub id: String,
    /// Days that it predicts.
    pub horizon_days: u32,
    /// What values are measured in.
    pub scales: Scales,
    /// Where a member's parameters stand.
    pub layout: Layout,
    /// The parameters of each network.
    pub members: Vec<Vec<f32>>,
    /// The estimate that it was trained beside.
    pub estimate: Fit,
    /// What the estimate expects over the horizon.
    pub table: Table,
}

/// Expected spend over the model's horizon, in currency units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Forecast {
    /// The expected spend.
    pub mean: f64,
    /// Its median.
    pub median: f64,
    /// The chance of any purchase.
    pub active: f64,
    /// The 5 % quantile.
    pub q05: f64,
    /// The 95 % quantile.
    pub q95: f64,
    /// The expected number of purchase days.
    pub count: f64,
}

/// What the estimate expects, as the network has it: spend in units of [`Scales::spend`], days, chance.
#[must_use]
pub fn scaled(expected: Expected, scales: &Scales) -> [f32; 3] {
    [(expected.spend / 1e6 / scales.spend) as f32, expected.count as f32, expected.active as f32]
}

/// A customer's weeks up to the day `end`, counted back from it; the first is that of the first purchase. Empty without one.
///
/// `at_end` is called at each week's end with the number of the week, from the last (0) backwards, and the customer by then.
pub fn weeks(
    days: &[Day],
    end: i64,
    scales: &Scales,
    estimate: (&Fit, &Table),
    mut at_end: impl FnMut(usize, &Customer),
) -> Vec<[f32; INPUTS]> {
    let (mut customer, mut known, mut inputs) = (Customer::default(), Weeks::new(*scales), Vec::new());
    let Some(first) = days.first().filter(|first| first.day < end) else { return inputs };
    let mut days = days.iter().peekable();
    for week in (0..=(end - 1 - first.day) / 7).rev() {
        let end = end - week * 7;
        while let Some(day) = days.next_if(|day| day.day < end) {
            customer.observe(&day.event());
            known.bought(day.day, day.spend_micros as f64 / 1e6, day.items);
        }
        let expected = predictor::expect(estimate.0, estimate.1, &customer, end - 1).unwrap_or_default();
        inputs.push(known.close(end, scaled(expected, scales)));
        at_end(week as usize, &customer);
    }
    inputs
}

impl Model {
    /// The id of these networks: the first 48 bits of the SHA-256 of their parameters and the horizon.
    #[must_use]
    pub fn id_of(members: &[Vec<f32>], horizon_days: u32) -> String {
        let mut digest = Sha256::new();
        members.iter().flatten().for_each(|p| digest.update(p.to_le_bytes()));
        digest.update(horizon_days.to_le_bytes());
        format!("drnn-{}", hex::encode(&digest.finalize()[..6]))
    }

    /// What the members' outputs say together, beside what the estimate expects.
    #[must_use]
    pub fn forecast(&self, outs: &[[f32; OUTPUTS]], expected: &[f32; 3]) -> Forecast {
        let heads = || outs.iter().map(|out| Heads::of(out, expected));
        let mean_of = |what: fn(Heads) -> f32| heads().map(|h| f64::from(what(h))).sum::<f64>() / outs.len().max(1) as f64;
        let (active, location, scale) = (mean_of(|h| h.active), mean_of(|h| h.location), mean_of(|h| h.scale));
        let quantile = |level: f64| {
            // Of the mass above zero, the share below the quantile; without any, the quantile is the zero itself.
            let share = 1.0 - (1.0 - level) / active;
            if share > 0.0 { (location + scale * normal_quantile(share.min(1.0 - 1e-9))).exp() * self.scales.spend } else { 0.0 }
        };
        Forecast {
            mean: mean_of(|h| h.mean.ln()).exp() * self.scales.spend,
            median: quantile(0.5),
            active,
            q05: quantile(0.05),
            q95: quantile(0.95),
            count: mean_of(|h| h.count),
        }
    }
}
