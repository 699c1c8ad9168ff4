//! What a prediction is made of.

use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::money::Currency;
use kiki::pb::syncvalue::v1 as pb;

use super::decode::Question;
use crate::answers::About;
use crate::domain::customer::{Customer, DAY_MICROS, Day};
use crate::domain::serving::{Asked, Loaded, Serving};
use crate::error::Error;

/// Purchase days whose effect is said: each costs a replay.
const MAX_DAYS: usize = 64;

/// As [`explain`]. It may take a replay of years for each of 64 days: not on a thread that others' calls wait for.
pub(super) async fn aside(
    serving: Arc<Serving>,
    customer: Customer,
    question: &Question<'_>,
    currency: Currency,
) -> Result<Option<pb::ExplainResponse>, Error> {
    let (key, at, horizon_days) = (question.key(), question.at, question.horizon_days);
    let campaign = question.campaign.to_owned();
    let explained = tokio::task::spawn_blocking(move || {
        let about = About { key, campaign: &campaign, at, market: 0, currency };
        explain(&serving, &customer, &about, horizon_days)
    });
    explained.await.map_err(|e| Error::Model(e.to_string()))
}

/// Of a customer whom a model answers for; none where none does.
fn explain(serving: &Serving, customer: &Customer, about: &About<'_>, horizon_days: u32) -> Option<pb::ExplainResponse> {
    let key = about.key.unwrap_or_default();
    let (model, _) = serving.choose(&key, about.campaign, about.currency);
    let (model, asked, days) = (model?, Asked::of(about.at, customer, horizon_days), customer.history());
    let (forecast, said) = model.explain(days, asked)?;
    let factors = model.model.factors(&model.table(horizon_days), &said, asked.end, forecast.mean);
    let factor = |(name, input, factor): (&str, f64, f64)| pb::Factor { name: name.into(), input, factor };
    let newest = (0..days.len()).rev().take(MAX_DAYS);
    Some(pb::ExplainResponse {
        prediction: None,
        factors: factors.into_iter().map(factor).collect(),
        days: newest.map(|i| day_effect(model, days, i, asked)).collect(),
    })
}

/// What a day did to the mean: what it would be without it. Nothing is worth 0 without any day.
fn day_effect(model: &Loaded, days: &[Day], i: usize, asked: Asked) -> pb::DayEffect {
    let others: Vec<Day> = days[..i].iter().chain(&days[i + 1..]).copied().collect();
    let without = model.predict(&others, asked);
    let Day { day, items, spend_micros } = days[i];
    pb::DayEffect {
        day: Some(UnixMicros(day.saturating_mul(DAY_MICROS)).into()),
        value_micros: spend_micros,
        items,
        mean_without_micros: without.map_or(0, |prediction| prediction.mean_micros),
    }
}
