//! The model that the product is named for: gated recurrent networks over a customer's weeks, dilated or plain, and linear ones.
//!
//! [`features`] says what a week looks like to it, [`network`] is its arithmetic, [`kernel`] the loops that it is made of, and [`heads`] what
//! comes out, beside what the estimate that every model carries with it expects ([`super::predictor`]). Several networks, each
//! trained without another part of the customers, answer together: the mean of their answers ([`Answer`]).

pub mod features;
pub mod given;
pub mod heads;
pub mod kernel;
pub mod network;
pub mod reading;
pub mod serve;
pub mod state;

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::customer::Day;
use super::fit::{Fit, Table};
use super::interval::normal_quantile;
use super::predictor::{self, Expected, Rfv};
use features::Scales;
use given::Given;
use heads::Heads;
use network::{INPUTS, Layout, OUTPUTS};
use reading::Reading;
use state::Said;

/// A trained model.
#[derive(Debug, Clone)]
pub struct Model {
    /// Under which its predictions are frozen into decisions.
    pub id: String,
    /// Days that it predicts.
    pub horizon_days: u32,
    /// A day on which a week begins, since 1970: the one behind the last that it was trained on. Weeks are counted from it both ways.
    pub cut: i64,
    /// What values are measured in.
    pub scales: Scales,
    /// The networks.
    pub members: Vec<Member>,
    /// One that was brought along, and corrects the customer's own estimate. It answers together with the others, if there are any.
    pub given: Option<Arc<dyn Given>>,
    /// What [`Answer::spend`], to the power of `slope`, is multiplied by, so that all customers together are expected to spend what the means say.
    pub level: f64,
    /// How far apart the logs of what customers spent turned out to be, for each unit that [`Answer::spend`] puts them apart.
    pub slope: f64,
    /// The estimate that it was trained beside.
    pub estimate: Fit,
    /// What the estimate expects over the horizon.
    pub table: Table,
}

/// One network of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Where its parameters stand.
    pub layout: Layout,
    /// How much of what it corrects is the customer's own estimate (1), and how much that of a typical customer (0); see [`offset`].
    pub own: f32,
    /// The parameters.
    pub parameters: Vec<f32>,
}

/// What a model's networks say of a customer together, in units of [`Scales::spend`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The expected spend, as the heads of the mean have it: their geometric mean.
    pub mean: f64,
    /// The chance of any purchase.
    pub active: f64,
    /// Mean of the log of what is spent where anything is.
    pub location: f64,
    /// Standard deviation of that log.
    pub scale: f64,
    /// The expected number of purchase days.
    pub count: f64,
}

/// The flattest [`Model::slope`] that is believed.
pub const LEAST_SLOPE: f64 = 0.7;
/// The steepest.
pub const MOST_SLOPE: f64 = 1.4;

/// How much of what sets a customer's baskets apart is not believed of one who surely buys no more; of others it is their chance of that.
const DOUBT: f64 = 0.42;

impl Answer {
    /// The expected spend, up to [`Model::slope`] and [`Model::level`], which are the same for all.
    ///
    /// It is the geometric mean of two estimates. One is the mean's own; it is unbiased, and a few large baskets move it. The other is that of a
    /// log-normal whose scatter is the same for all, which such baskets hardly move; with the customer's own scatter it would not be
    /// robust (exp of half its square). What it says beside the chance, of the size of the baskets, is drawn to that of all customers, the more
    /// the less likely a purchase is ([`DOUBT`]): there, few purchases tell of it.
    #[must_use]
    pub fn spend(&self) -> f64 {
        self.active.powf(1.0 - self.believed()) * (self.mean * self.active * self.location.exp()).powf(self.believed() / 2.0)
    }

    /// How much of the size of the baskets is believed: 1 to 1 - [`DOUBT`].
    fn believed(&self) -> f64 {
        1.0 - DOUBT * (1.0 - self.active)
    }
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

/// What the estimate expects of someone who bought for the usual amount in four months and then not for four weeks: what a network corrects that
/// does not start from the customer's own estimate. It says how things grow with the horizon, and does so for those who matter for totals: what is
/// expected of a customer who has nearly gone hardly grows.
#[must_use]
pub fn typical(estimate: &Fit, table: &Table, scales: &Scales) -> [f32; 3] {
    let usual = Rfv { days: 4, last_day: 3 * 28, net_micros: (4.0 * estimate.spend) as i64 };
    scaled(predictor::expect(estimate, table, &usual, 4 * 28).unwrap_or_default(), scales)
}

/// What a network corrects: `own` of the customer's own estimate and the rest of a typical one's, multiplied (odds for the chance).
#[must_use]
pub fn offset(expected: &[f32; 3], typical: &[f32; 3], own: f32) -> [f32; 3] {
    if own >= 1.0 {
        return *expected;
    }
    let mix = |a: f32, b: f32| own * a + (1.0 - own) * b;
    let log = |x: f32| x.clamp(1e-5, 1e9).ln();
    let odds = |x: f32| (x.clamp(1e-5, 1.0 - 1e-5) / (1.0 - x.clamp(1e-5, 1.0 - 1e-5))).ln();
    let ([a, b, c], [x, y, z]) = (expected, typical);
    [mix(log(*a), log(*x)).exp(), mix(log(*b), log(*y)).exp(), 1.0 / (1.0 + (-mix(odds(*c), odds(*z))).exp())]
}

/// A customer's weeks up to the day `end`, the first of which is that of the first purchase (or [`reading::first_week`]'s). Empty without one. A week
/// begins every seven days from `cut` both ways; the last is as long as it has got.
///
/// `at_end` is called at each week's end with the number of the week, from the last (0) backwards, and the customer by then.
pub fn weeks(
    days: &[Day],
    (end, cut): (i64, i64),
    scales: &Scales,
    estimate: (&Fit, &Table),
    mut at_end: impl FnMut(usize, &Rfv),
) -> Vec<[f32; INPUTS]> {
    let mut inputs = Vec::new();
    let Some(mut reading) = Reading::begin(days, (end, cut), scales) else { return inputs };
    while reading.begins < end {
        inputs.push(reading.close(days, end, scales, estimate));
        at_end(((end - reading.begins).max(0) as usize).div_ceil(7), &reading.rfv);
    }
    inputs
}

impl Model {
    /// The id of these networks: the first 48 bits of the SHA-256 of their parameters and the horizon.
    #[must_use]
    pub fn id_of(members: &[Member], horizon_days: u32) -> String {
        let mut digest = Sha256::new();
        for member in members {
            digest.update(member.own.to_le_bytes());
            member.layout.layers.iter().for_each(|layer| digest.update([layer.dilation as u8]));
            member.parameters.iter().for_each(|p| digest.update(p.to_le_bytes()));
        }
        digest.update(horizon_days.to_le_bytes());
        format!("drnn-{}", hex::encode(&digest.finalize()[..6]))
    }

    /// [`Member::own`] of each network, the one that was brought along last.
    fn owns(&self) -> impl Iterator<Item = f32> {
        self.members.iter().map(|member| member.own).chain(self.given.iter().map(|_| 1.0))
    }

    /// What the networks that said this expect over the table's horizon, as of the end of the day before `end`.
    #[must_use]
    pub fn over(&self, table: &Table, said: &Said, end: i64) -> Forecast {
        let expected = predictor::expect(&self.estimate, table, &said.reading.rfv, end - 1).unwrap_or_default();
        self.forecast(&said.outs, &scaled(expected, &self.scales), &typical(&self.estimate, table, &self.scales))
    }

    /// What the mean is made of: name, what was read, and factor. Their product is `mean`, in currency units: the estimate that the networks start
    /// from, each number of the open week by what it adds to the logarithm through the heads of the mean and of the amount alone, and
    /// what all else adds: the recurrent layers, the chance of a purchase, and the scatter.
    #[must_use]
    pub fn factors(&self, table: &Table, said: &Said, end: i64, mean: f64) -> Vec<(&'static str, f64, f64)> {
        let expected = predictor::expect(&self.estimate, table, &said.reading.rfv, end - 1).unwrap_or_default();
        let (expected, typical) = (scaled(expected, &self.scales), typical(&self.estimate, table, &self.scales));
        let many = self.owns().count().max(1) as f64;
        // How far a logarithm that the networks say moves that of the mean: see `Answer::spend`.
        let moves = self.answer(&said.outs, &expected, &typical).believed() * self.slope;
        let start: f64 = self.owns().map(|own| f64::from(offset(&expected, &typical, own)[0].clamp(1e-5, 1e9)).ln()).sum();
        let start = (moves * start / many).exp() * self.scales.spend;
        let added = |input: usize| {
            // Half of it is the mean's head, half the amount's.
            let weight = |m: &Member| {
                let of = |head: usize| f64::from(m.parameters[m.layout.skip + input * OUTPUTS + head]);
                (of(heads::MEAN) + of(heads::LOCATION)) / 2.0
            };
            (moves * f64::from(said.inputs[input]) * self.members.iter().map(weight).sum::<f64>() / many).exp()
        };
        let read = (0..INPUTS).map(|input| (features::NAMES[input], f64::from(said.inputs[input]), added(input)));
        let mut factors: Vec<_> = std::iter::once(("estimate", 0.0, start)).chain(read).collect();
        let so_far: f64 = factors.iter().map(|(_, _, factor)| factor).product();
        factors.push(("networks_besides", 0.0, if so_far > 0.0 { mean / so_far } else { 0.0 }));
        factors
    }

    /// What the outputs of the members, and behind them that of a network that was brought along, say together, beside what the estimate
    /// expects of the customer and of a typical one.
    #[must_use]
    pub fn answer(&self, outs: &[[f32; OUTPUTS]], expected: &[f32; 3], typical: &[f32; 3]) -> Answer {
        let heads = || outs.iter().zip(self.owns()).map(|(out, own)| Heads::of(out, &offset(expected, typical, own)));
        let mean_of = |what: fn(Heads) -> f32| heads().map(|h| f64::from(what(h))).sum::<f64>() / outs.len().max(1) as f64;
        Answer {
            mean: mean_of(|h| h.mean.ln()).exp(),
            active: mean_of(|h| h.active),
            location: mean_of(|h| h.location),
            scale: mean_of(|h| h.scale),
            count: mean_of(|h| h.count),
        }
    }

    /// What is expected of a customer of whom the members say this.
    #[must_use]
    pub fn forecast_of(&self, answer: &Answer) -> Forecast {
        let Answer { active, location, scale, count, .. } = *answer;
        let quantile = |level: f64| {
            // Of the mass above zero, the share below the quantile; without any, the quantile is the zero itself.
            let share = 1.0 - (1.0 - level) / active;
            if share > 0.0 { (location + scale * normal_quantile(share.min(1.0 - 1e-9))).exp() * self.scales.spend } else { 0.0 }
        };
        let mean = answer.spend().powf(self.slope) * self.level * self.scales.spend;
        Forecast { mean, median: quantile(0.5), active, q05: quantile(0.05), q95: quantile(0.95), count }
    }

    /// What the members' outputs come to, as a forecast.
    #[must_use]
    pub fn forecast(&self, outs: &[[f32; OUTPUTS]], expected: &[f32; 3], typical: &[f32; 3]) -> Forecast {
        self.forecast_of(&self.answer(outs, expected, typical))
    }
}
