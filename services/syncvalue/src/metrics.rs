//! What SyncValue shows to Prometheus, besides the latency of its calls.

use kiki::runtime;
use prometheus::{CounterVec, IntCounter, IntCounterVec, IntGauge, Opts};

use crate::domain::predictor::{Prediction, Reason};
use crate::store::{Applied, Store};

/// The service's own metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    no_model: IntCounter,
    unknown_customer: IntCounter,
    no_population: IntCounter,
    events: IntCounterVec,
    customers: IntGauge,
    followed: IntGauge,
    predicted_ltv: CounterVec,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(metrics: &runtime::Metrics) -> Self {
        let predictions = metrics.add(IntCounterVec::new(
            Opts::new("syncvalue_predictions_total", "predictions that were answered, by why the fallback estimate answered"),
            &["reason"],
        ));
        Self {
            no_model: predictions.with_label_values(&["no_model"]),
            unknown_customer: predictions.with_label_values(&["unknown_customer"]),
            no_population: predictions.with_label_values(&["no_population"]),
            events: metrics.add(IntCounterVec::new(Opts::new("syncvalue_events_total", "customer events, by their effect"), &["effect"])),
            customers: metrics.add(IntGauge::new("syncvalue_customers", "customers with at least one event, over all clients")),
            followed: metrics.add(IntGauge::new("syncvalue_followed_index", "next index to be read from SyncShield's log")),
            predicted_ltv: metrics.add(CounterVec::new(
                Opts::new(
                    "syncvalue_predicted_ltv_total",
                    "predicted lifetime value of the customers that were attributed, currency units",
                ),
                &["currency"],
            )),
        }
    }

    /// A prediction was answered.
    pub(crate) fn predicted(&self, prediction: &Prediction) {
        match prediction.reason {
            Reason::NoModel => self.no_model.inc(),
            Reason::UnknownCustomer => self.unknown_customer.inc(),
            Reason::NoPopulation => self.no_population.inc(),
        }
    }

    /// Events were taken in.
    pub(crate) fn observed(&self, applied: &Applied, store: &Store) {
        for (effect, count) in [("applied", applied.applied), ("duplicate", applied.duplicates), ("dropped", applied.dropped)] {
            self.events.with_label_values(&[effect]).inc_by(u64::from(count));
        }
        self.customers.set(i64::try_from(store.customers()).unwrap_or(i64::MAX));
    }

    /// The log was read so far.
    pub(crate) fn followed(&self, next_index: u64) {
        self.followed.set(i64::try_from(next_index).unwrap_or(i64::MAX));
    }

    /// A customer was attributed to a campaign on this prediction. A display, so that a float will do.
    pub(crate) fn attributed(&self, currency: &str, predicted_ltv_micros: i64) {
        self.predicted_ltv.with_label_values(&[currency]).inc_by(predicted_ltv_micros.max(0) as f64 / 1e6);
    }
}
