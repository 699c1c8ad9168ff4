//! From a question and what is known of a customer to a prediction: the model that is meant to answer does, and the estimate where it cannot.
//!
//! Two steps, so that a market is locked for the first alone: [`Answers::look`] finds what was answered before, or takes down what the networks
//! have to be asked; [`Answers::ask`] asks them, a turn at a time.

pub(crate) mod turn;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::money::Currency;

use crate::domain::customer::{Customer, Day};
use crate::domain::market::Outlook;
use crate::domain::model::state::{Asking, Said};
use crate::domain::predictor::{Prediction, Reason, Source};
use crate::domain::serving::{Asked, Loaded, Serving};
use crate::metrics::Metrics;
use crate::store::cache::{self, Cache, Key};
use crate::store::recent::{Answer, Place, Recent};
use turn::Turn;

/// Answers; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    pub(crate) cache: Arc<Cache>,
    pub(crate) metrics: Metrics,
}

/// Who is asked about, on whose behalf, and when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    /// None: a history that nobody observed.
    pub(crate) key: Option<CustomerKey>,
    pub(crate) campaign: &'a str,
    pub(crate) at: UnixMicros,
    /// The market's number.
    pub(crate) market: u32,
    pub(crate) currency: Currency,
}

/// What the networks have to be asked.
#[derive(Debug)]
pub(crate) struct Ask<'s> {
    model: &'s Loaded,
    shadow: Option<&'s Loaded>,
    days: Vec<Day>,
    asked: Asked,
    stamp: u64,
    /// See [`Cache::era`].
    era: u64,
    key: Option<Key>,
    staleness_secs: u32,
    /// What the estimate says.
    pub(crate) fallback: Prediction,
}

/// The first step's outcome.
#[derive(Debug)]
pub(crate) enum Look<'s> {
    /// No model is to answer, or nothing is known of the customer.
    Estimated(Prediction),
    /// The model said so before.
    Known(Prediction),
    Ask(Box<Ask<'s>>),
}

impl Answers {
    /// What was answered to the same question before, found at the customer's place without a look at the customer, who has not changed since.
    pub(crate) fn recall(
        &self,
        (recent, place): (&Recent, Place),
        serving: &Serving,
        about: &About<'_>,
        horizon_days: u32,
    ) -> Option<Prediction> {
        let customer = about.key?;
        let (Some(model), None) = serving.choose(&customer, about.campaign, about.currency) else { return None };
        let answer = recent.get(place, &Key { market: about.market, model: model.number, customer })?;
        let same = answer.end == Asked::end(about.at, answer.last_at) && answer.prediction.horizon_days == horizon_days;
        same.then(|| answer.prediction.made_after(about.at, answer.last_at))
    }

    /// Looks at what is known of a customer (none: unknown). What the cache knows is `recent` from then on, where that is kept.
    pub(crate) fn look<'s>(
        &self,
        recent: Option<&Recent>,
        serving: &'s Serving,
        outlook: &Outlook<'_>,
        customer: Option<&Customer>,
        about: About<'_>,
    ) -> Look<'s> {
        let estimate = || outlook.of(customer, about.at);
        let Some(customer) = customer.filter(|customer| customer.days > 0) else { return Look::Estimated(estimate()) };
        let nobody = CustomerKey::default();
        let (model, shadow) = serving.choose(about.key.as_ref().unwrap_or(&nobody), about.campaign, about.currency);
        let Some(model) = model else { return Look::Estimated(estimate()) };
        let asked = Asked::of(about.at, customer, outlook.horizon_days());
        let key = about.key.map(|customer| Key { market: about.market, model: model.number, customer });
        let stamp = customer.stamp();
        if shadow.is_none()
            && let Some(key) = &key
            && let Some(prediction) = self.cache.answer(key, stamp, asked)
        {
            if let Some(recent) = recent {
                recent.put(key, &Answer { last_at: customer.last_at, end: asked.end, prediction });
            }
            return Look::Known(prediction.made(about.at, customer));
        }
        let era = key.as_ref().map_or(0, |key| self.cache.era(key));
        let fallback = estimate();
        let (days, staleness_secs) = (customer.history().to_vec(), fallback.made(about.at, customer).staleness_secs);
        Look::Ask(Box::new(Ask { model, shadow, days, asked, stamp, era, key, staleness_secs, fallback }))
    }

    /// Asks the networks, of all customers of a model together; the answers in the order of the questions.
    pub(crate) async fn ask(&self, asks: &[Ask<'_>], turn: &mut Turn) -> Vec<Prediction> {
        let mut predictions: Vec<Prediction> = asks.iter().map(|ask| ask.fallback).collect();
        let models: BTreeMap<u32, &Loaded> = asks.iter().map(|ask| (ask.model.number, ask.model)).collect();
        for (number, model) in models {
            let (places, of_model): (Vec<_>, Vec<_>) = asks.iter().enumerate().filter(|(_, ask)| ask.model.number == number).unzip();
            let together = Turn::together(&model.model);
            for (places, asks) in places.chunks(together).zip(of_model.chunks(together)) {
                for (place, prediction) in places.iter().zip(self.ask_one(model, asks, turn).await) {
                    predictions[*place] = prediction;
                }
            }
        }
        predictions
    }

    async fn ask_one(&self, model: &Loaded, asks: &[&Ask<'_>], turn: &mut Turn) -> Vec<Prediction> {
        let asking = |ask: &&'_ Ask<'_>| ask.key.and_then(|key| self.cache.take(&key));
        let states = asks.iter().map(asking);
        let mut askings: Vec<Asking<'_>> =
            states.zip(asks).map(|(state, ask)| Asking { state, days: &ask.days, end: ask.asked.end }).collect();
        let said = turn.ask(&model.model, &mut askings).await;
        let answer = |((ask, asking), said): ((&&Ask<'_>, Asking<'_>), Option<Said>)| {
            let prediction = said.and_then(|said| model.worth(&said, ask.asked));
            let prediction = prediction.unwrap_or(Prediction { source: Source::Estimate(Reason::ModelFailed), ..ask.fallback });
            if let Some(key) = ask.key {
                let answer = cache::Answer { stamp: ask.stamp, end: ask.asked.end, prediction };
                self.cache.put(key, ask.era, answer, asking.state);
            }
            Prediction { staleness_secs: ask.staleness_secs, ..prediction }
        };
        let predictions: Vec<Prediction> = asks.iter().zip(askings).zip(said).map(answer).collect();
        for (ask, prediction) in asks.iter().zip(&predictions) {
            self.compare(ask, prediction, turn).await;
        }
        predictions
    }

    /// What another model says too, where it is to be compared.
    async fn compare(&self, ask: &Ask<'_>, prediction: &Prediction, turn: &mut Turn) {
        let Some(shadow) = ask.shadow else { return };
        let mut asking = [Asking { state: None, days: &ask.days, end: ask.asked.end }];
        let said = turn.ask(&shadow.model, &mut asking).await.pop().flatten();
        if let Some(other) = said.and_then(|said| shadow.of(&said, ask.asked)) {
            self.metrics.compared(prediction, &other);
        }
    }
}
