//! Which model answers for whom.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::money::Currency;
use serde::{Deserialize, Serialize};

use super::customer::{Customer, Day, day_of, mix};
use super::fit::{Table, Tables};
use super::model::state::{Said, State, ask};
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
    pub fn new(number: u32, folder: String, currency: Option<Currency>, model: Model) -> Self {
        Self { number, folder, currency, model, tables: Tables::default() }
    }

    /// What the estimate that the model carries with it expects over a horizon.
    #[must_use]
    pub fn table(&self, horizon_days: u32) -> Arc<Table> {
        self.tables.of(&self.model.estimate, horizon_days)
    }

    /// What a customer with these days is expected to do, and how that was found; `state` is one of an earlier question. None without a day.
    pub fn explain(&self, state: &mut Option<State>, days: &[Day], asked: Asked) -> Option<(Forecast, Said)> {
        let said = ask(&self.model, state, days, asked.end)?;
        let forecast = self.model.over(&self.table(asked.horizon_days), &said, asked.end);
        Some((forecast, said))
    }

    /// The same as money; none where it is no amount, or without a day.
    pub fn predict(&self, state: &mut Option<State>, days: &[Day], asked: Asked) -> Option<Prediction> {
        let (forecast, _) = self.explain(state, days, asked)?;
        Prediction::of_model(&forecast, asked.horizon_days, self.number)
    }
}
