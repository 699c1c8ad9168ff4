//! What SyncValue shows to Prometheus, besides the latency of its calls.

use kiki::runtime;
use prometheus::{CounterVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts};

use crate::domain::predictor::{Prediction, Reason};
use crate::store::{Applied, Store};

/// Ends of the buckets of the time inside the service, microseconds: a tenth apart at the least where answers are expected.
const SERVICE_US: [f64; 27] = [
    0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0, 200.0,
    300.0, 500.0, 1_000.0, 10_000.0,
];

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
    /// The time from a message's being decoded to its answer, by RPC.
    pub(crate) predict: Histogram,
    pub(crate) predict_batch: Histogram,
    pub(crate) predict_stream: Histogram,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(metrics: &runtime::Metrics) -> Self {
        let predictions = metrics.add(IntCounterVec::new(
            Opts::new("syncvalue_predictions_total", "predictions that were answered, by why the fallback estimate answered"),
            &["reason"],
        ));
        let options = HistogramOpts::new("syncvalue_service_seconds", "time from a message's being decoded to its answer, by RPC");
        let service = metrics.add(HistogramVec::new(options.buckets(SERVICE_US.map(|us| us / 1e6).to_vec()), &["rpc"]));
        Self {
            predict: service.with_label_values(&["Predict"]),
            predict_batch: service.with_label_values(&["PredictBatch"]),
            predict_stream: service.with_label_values(&["PredictStream"]),
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

    /// Predictions were answered. Each counter is touched once: the cores share them.
    pub(crate) fn predicted(&self, predictions: &[Prediction]) {
        let reasons = [
            (Reason::NoModel, &self.no_model),
            (Reason::UnknownCustomer, &self.unknown_customer),
            (Reason::NoPopulation, &self.no_population),
        ];
        for (reason, counter) in reasons {
            match predictions.iter().filter(|prediction| prediction.reason == reason).count() {
                0 => {}
                count => counter.inc_by(count as u64),
            }
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
