//! Which model answers for whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::money::Currency;
use serde::{Deserialize, Serialize};

use super::customer::{Customer, Day, day_of, mix};
use super::drift::{Drift, Spread};
use super::fit::{Fit, Table, Tables};
use super::model::state::{Asking, Said, ask};
use super::model::{Forecast, Model};
use super::predictor::Prediction;

/// Of a whole, parts per million.
pub const WHOLE_PPM: u32 = 1_000_000;

/// What was set for a client and currency, or for all that have no plan of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Empty: all clients.
    pub client: String,
    /// ISO 4217; empty: all currencies.
    pub currency: String,
    /// Counts up with each change.
    pub version: u64,
    /// Folder of the model that answers; empty: the estimate does.
    pub serving: String,
    /// Folder of another that answers for a share of the customers; empty: none.
    pub candidate: String,
    /// That share, parts per million, where the campaign has none of its own.
    pub candidate_share_ppm: u32,
    /// The shares of campaigns.
    pub campaign_share_ppm: BTreeMap<String, u32>,
    /// Share of the predictions that the other model makes as well.
    pub shadow_ppm: u32,
}

/// A model that was read from its folder.
#[derive(Debug)]
pub struct Loaded {
    /// Different for each that was ever loaded by this process.
    pub number: u32,
    /// The folder's name.
    pub folder: String,
    /// The only currency that it answers for; none: any.
    pub currency: Option<Currency>,
    /// The model.
    pub model: Model,
    /// Whether customers look as they did in training.
    pub drift: Drift,
    tables: Tables,
}

/// The models of a plan.
#[derive(Debug, Default)]
pub struct Serving {
    /// What was set.
    pub plan: Plan,
    /// The model that answers.
    pub serving: Option<Arc<Loaded>>,
    /// The one that answers for some.
    pub candidate: Option<Arc<Loaded>>,
}

/// A number below [`WHOLE_PPM`] that is one customer's own, and another for another purpose.
fn draw(key: &CustomerKey, purpose: &[u8]) -> u32 {
    let customer = u128::from_le_bytes(key.0);
    let seed = purpose.iter().fold(customer as u64 ^ (customer >> 64) as u64, |seed, byte| mix(seed ^ u64::from(*byte)));
    (mix(seed) % u64::from(WHOLE_PPM)) as u32
}

impl Serving {
    /// The model that answers for this customer and campaign in this currency, and whether another makes the prediction as well.
    #[must_use]
    pub fn choose(&self, key: &CustomerKey, campaign: &str, currency: Currency) -> (Option<&Loaded>, Option<&Loaded>) {
        let knows = |model: &&Loaded| model.currency.is_none_or(|known| known == currency);
        let (serving, candidate) = (self.serving.as_deref().filter(knows), self.candidate.as_deref().filter(knows));
        let Some(candidate) = candidate else { return (serving, None) };
        let share = self.plan.campaign_share_ppm.get(campaign).copied().unwrap_or(self.plan.candidate_share_ppm);
        let (mut answers, mut other) = (serving, Some(candidate));
        if draw(key, campaign.as_bytes()) < share {
            std::mem::swap(&mut answers, &mut other);
        }
        let shadowed = draw(key, b"\0shadow") < self.plan.shadow_ppm;
        (answers, other.filter(|_| shadowed))
    }
}

impl Serving {
    /// The estimate that the model of this plan carries with it, where it knows the currency.
    #[must_use]
    pub fn estimate(&self, currency: Currency, horizon_days: u32) -> Option<(&Fit, Arc<Table>)> {
        let loaded = self.serving.as_deref().filter(|model| model.currency.is_none_or(|known| known == currency))?;
        Some((&loaded.model.estimate, loaded.table(horizon_days)))
    }

    /// Whether another model makes some of the predictions as well.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.candidate.is_some() && self.plan.shadow_ppm > 0
    }

    /// The id of a model of this plan.
    #[must_use]
    pub fn id(&self, number: u32) -> &str {
        let both = [&self.serving, &self.candidate];
        both.into_iter().flatten().find(|loaded| loaded.number == number).map_or("", |loaded| &loaded.model.id)
    }
}

/// Questions about one customer's days as of one day.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// The day behind the last that is known.
    pub end: i64,
    /// Days.
    pub horizon_days: u32,
}

impl Asked {
    /// As of `at`. A customer's last purchase may be later than the question's "now": then it is as if it were today.
    #[must_use]
    pub fn of(at: UnixMicros, customer: &Customer, horizon_days: u32) -> Self {
        Self { end: Self::end(at, customer.last_at), horizon_days }
    }

    /// The day behind the last that is known, of a customer who last bought at `last_at`.
    #[must_use]
    pub fn end(at: UnixMicros, last_at: UnixMicros) -> i64 {
        day_of(at.max(last_at)).saturating_add(1)
    }
}

impl Loaded {
    /// A model of a folder.
    #[must_use]
    pub fn new(number: u32, folder: String, currency: Option<Currency>, model: Model, inputs: Vec<Spread>) -> Self {
        Self { number, folder, currency, model, drift: Drift::new(inputs), tables: Tables::default() }
    }

    /// What the estimate that the model carries with it expects over a horizon.
    #[must_use]
    pub fn table(&self, horizon_days: u32) -> Arc<Table> {
        self.tables.of(&self.model.estimate, horizon_days)
    }

    /// What a customer with these days is expected to do, and how that was found, beside what is kept. None without a day.
    #[must_use]
    pub fn explain(&self, days: &[Day], asked: Asked) -> Option<(Forecast, Said)> {
        let said = ask(&self.model, &mut [Asking { state: None, days, end: asked.end }]).pop()??;
        let forecast = self.model.over(&self.table(asked.horizon_days), &said, asked.end);
        Some((forecast, said))
    }

    /// What [`Loaded::explain`] finds, as money; none where it is no amount.
    #[must_use]
    pub fn predict(&self, days: &[Day], asked: Asked) -> Option<Prediction> {
        let (forecast, _) = self.explain(days, asked)?;
        Prediction::of_model(&forecast, asked.horizon_days, self.number)
    }

    /// What the networks said of a customer, as money; none where it is no amount.
    #[must_use]
    pub fn of(&self, said: &Said, asked: Asked) -> Option<Prediction> {
        let forecast = self.model.over(&self.table(asked.horizon_days), said, asked.end);
        Prediction::of_model(&forecast, asked.horizon_days, self.number)
    }

    /// As [`Loaded::of`], and the customer is counted as seen.
    #[must_use]
    pub fn worth(&self, said: &Said, asked: Asked) -> Option<Prediction> {
        self.drift.saw(&said.inputs);
        self.of(said, asked)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::super::customer::{DAY_MICROS, Event, EventId, MAX_VALUE_MICROS};
    use super::super::fit::{Fit, Numbers};
    use super::super::market::customer_of;
    use super::super::model::Member;
    use super::super::model::features::Scales;
    use super::super::model::network::Layout;
    use super::super::population::{CLASSES, WEEKS};
    use super::*;
    use crate::train::random::Random;

    /// A model of random weights, as large as that: absurd ones too.
    fn model(size: f32, own: f32) -> Loaded {
        let rate = vec![0.01; CLASSES * WEEKS];
        let estimate = Fit::from_numbers(&Numbers { rate, customers: 50, spend: 3e7, first_spend: 2e7, scatter: 1.0 }).unwrap();
        let (layout, mut random) = (Layout::new(&[1, 3]), Random(5));
        let parameters = (0..layout.len).map(|_| size * random.uniform()).collect();
        let (table, scales) = (Table::of(&estimate, 90), Scales { spend: 30.0, items: 2.0 });
        let members = vec![Member { layout, own, parameters }];
        let model =
            Model { id: String::new(), horizon_days: 90, cut: 3, scales, members, given: None, level: 1.0, slope: 1.0, estimate, table };
        Loaded::new(0, String::new(), None, model, Vec::new())
    }

    /// Day, value, items: refunds, absurd amounts, years that are far off.
    fn wild() -> impl Strategy<Value = Vec<(i64, i64, u32)>> {
        let day = prop_oneof![6 => 0..400_i64, 1 => -100_000_000..100_000_000_i64];
        let value = prop_oneof![8 => 0..100_000_000_i64, 2 => -50_000_000..0_i64, 1 => Just(MAX_VALUE_MICROS), 1 => any::<i64>()];
        prop::collection::vec((day, value, prop_oneof![3 => 0..9_u32, 1 => any::<u32>()]), 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn whatever_is_read_a_prediction_is_an_amount_or_none(
            events in wild(), ats in prop::collection::vec(any::<i64>(), 1..4), horizon_days in 1..=3_650_u32,
            size in prop_oneof![Just(0.2_f32), Just(30.0), Just(1e30)], own in prop_oneof![Just(0.0_f32), Just(0.5), Just(1.0)],
        ) {
            let event = |(i, (day, value_micros, items)): (usize, &(i64, i64, u32))| {
                Event { id: EventId(i as u64), at: UnixMicros(day * DAY_MICROS), value_micros: *value_micros, items: *items }
            };
            let customer = customer_of(events.iter().enumerate().map(event).collect());
            let (loaded, mut state) = (model(size, own), None);
            for at in ats {
                let asked = Asked::of(UnixMicros(at), &customer, horizon_days);
                let mut asking = [Asking { state, days: customer.history(), end: asked.end }];
                let said = ask(&loaded.model, &mut asking).remove(0);
                let prediction = said.and_then(|said| loaded.worth(&said, asked));
                prop_assert_eq!(prediction, loaded.predict(customer.history(), asked));
                state = asking[0].state.take();
                prop_assert!(prediction.is_some() || customer.days == 0 || size > 1.0);
                let Some(prediction) = prediction else { continue };
                let Prediction { mean_micros, q05_micros, median_micros, q95_micros, p_active_ppb, .. } = prediction;
                prop_assert!(mean_micros >= 0 && p_active_ppb <= 1_000_000_000);
                prop_assert!(0 <= q05_micros && q05_micros <= median_micros && median_micros <= q95_micros, "{prediction:?}");
            }
        }
    }

    #[test]
    fn a_share_is_a_share_and_one_customers_own() {
        let half = (0..10_000_u32).filter(|i| {
            let mut key = CustomerKey::default();
            key.0[..4].copy_from_slice(&i.to_le_bytes());
            draw(&key, b"spring") < WHOLE_PPM / 2
        });
        let half = half.count();
        assert!((4_800..5_200).contains(&half), "{half}");
    }
}
