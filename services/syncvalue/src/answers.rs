//! From a question and what is known of a customer to a prediction: the model that is meant to answer does, and the estimate where it cannot.
//!
//! Two steps, so that a market is locked for the first alone: [`Answers::look`] finds what was answered before, or takes down what the networks
//! have to be asked; [`Answers::ask`] asks them.

use std::sync::Arc;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::money::Currency;

use crate::domain::customer::{Customer, Day};
use crate::domain::market::Outlook;
use crate::domain::model::state::State;
use crate::domain::predictor::{Prediction, Reason, Source};
use crate::domain::serving::{Asked, Loaded, Serving};
use crate::metrics::Metrics;
use crate::store::cache::{Cache, Key};
use crate::store::recent::{Answer, Place, Recent};

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
    key: Option<Key>,
    staleness_secs: u32,
    /// What the estimate says.
    fallback: Prediction,
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
        let fallback = estimate();
        let (days, staleness_secs) = (customer.history().to_vec(), fallback.made(about.at, customer).staleness_secs);
        Look::Ask(Box::new(Ask { model, shadow, days, asked, stamp, key, staleness_secs, fallback }))
    }

    /// Asks the networks.
    pub(crate) fn ask(&self, ask: Ask<'_>) -> Prediction {
        let Ask { model, shadow, days, asked, stamp, key, staleness_secs, fallback } = ask;
        let mut state: Option<State> = key.and_then(|key| self.cache.take(&key));
        let said = model.predict(&mut state, &days, asked);
        let prediction = said.unwrap_or(Prediction { source: Source::Estimate(Reason::ModelFailed), ..fallback });
        if let Some(key) = key {
            self.cache.put(key, stamp, asked, prediction, state);
        }
        if let Some(other) = shadow.and_then(|shadow| shadow.predict(&mut None, &days, asked)) {
            self.metrics.compared(&prediction, &other);
        }
        Prediction { staleness_secs, ..prediction }
    }
}
