//! What SyncValue shows to Prometheus, besides the latency of its calls.

use std::sync::Arc;

use kiki::runtime;
use kiki::runtime::series::Series;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::answers::Look;
use crate::domain::accuracy::{Accuracy, Attributed, Figures};
use crate::domain::predictor::{Prediction, Reason, Source};
use crate::store::models::Models;
use crate::store::shared::Counters;
use crate::store::{Applied, Store};

/// Ends of the buckets of the time inside the service, microseconds: a tenth apart at the least where answers are expected.
const SERVICE_US: [f64; 27] = [
    0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0, 200.0,
    300.0, 500.0, 1_000.0, 10_000.0,
];

/// The population stability index of what each model that is loaded reads, found when somebody looks.
#[derive(Clone)]
pub(crate) struct Psi {
    models: Arc<Models>,
    gauge: GaugeVec,
}

impl Psi {
    /// Registers it.
    pub(crate) fn register(metrics: &runtime::Metrics, models: Arc<Models>) {
        let options = Opts::new(
            "syncvalue_input_psi",
            "population stability index of a number that the model reads, of late against training; above 0.25 customers have changed a lot",
        );
        metrics.add(GaugeVec::new(options, &["model", "input"]).map(|gauge| Self { models, gauge }));
    }
}

impl Collector for Psi {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.reset();
        for set in self.models.all() {
            for loaded in [&set.serving, &set.candidate].into_iter().flatten() {
                for (input, psi) in loaded.drift.psi() {
                    self.gauge.with_label_values(&[&loaded.model.id, input]).set(psi);
                }
            }
        }
        self.gauge.collect()
    }
}

/// Ends of the buckets of a logarithm of a ratio: 0.01 is 1 %.
const SHADOW: [f64; 13] = [-2.0, -1.0, -0.5, -0.2, -0.1, -0.02, -0.001, 0.001, 0.02, 0.1, 0.2, 0.5, 1.0];
/// Who answered, by label: a model, or the estimate for a reason.
const SOURCES: [&str; 6] = ["ok", "no_model", "unknown_customer", "no_population", "state_unavailable", "model_failed"];

/// Where it stands in [`SOURCES`].
const fn place(source: Source) -> usize {
    match source {
        Source::Model(_) => 0,
        Source::Estimate(Reason::NoModel) => 1,
        Source::Estimate(Reason::UnknownCustomer) => 2,
        Source::Estimate(Reason::NoPopulation) => 3,
        Source::Estimate(Reason::StateUnavailable) => 4,
        Source::Estimate(Reason::ModelFailed) => 5,
    }
}

/// What predictions were worth.
#[derive(Debug, Clone)]
struct Worth {
    accuracy: GaugeVec,
    matured: IntGaugeVec,
    calibration: GaugeVec,
}

impl Worth {
    fn new(metrics: &runtime::Metrics) -> Self {
        Self {
            accuracy: metrics.add(GaugeVec::new(
                Opts::new(
                    "syncvalue_accuracy_rate",
                    "1 - |sum predicted - sum realised| / sum realised, over the last customers (at most 10,000) whose horizon is over",
                ),
                &["currency"],
            )),
            matured: metrics.add(IntGaugeVec::new(
                Opts::new("syncvalue_matured_customers", "customers that syncvalue_accuracy_rate is made of"),
                &["currency"],
            )),
            calibration: metrics.add(GaugeVec::new(
                Opts::new(
                    "syncvalue_calibration_ratio",
                    "predicted over realised value of those customers, by tenths from the least predicted value (1) up; NaN where nothing was realised",
                ),
                &["currency", "decile"],
            )),
        }
    }

    fn set(&self, currency: &str, figures: &Figures) {
        self.matured.with_label_values(&[currency]).set(figures.customers as i64);
        if let Some(rate) = figures.rate {
            self.accuracy.with_label_values(&[currency]).set(rate);
        }
        for (group, ratio) in figures.calibration.iter().enumerate() {
            self.calibration.with_label_values(&[currency, &(group + 1).to_string()]).set(ratio.unwrap_or(f64::NAN));
        }
    }
}

/// The service's own metrics.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// As in [`SOURCES`].
    sources: [IntCounter; SOURCES.len()],
    /// Of the questions that a model was to answer: those whose answer was known, and those that its networks were asked.
    cache: [IntCounter; 2],
    shadow: Histogram,
    /// Customers whose networks' state had to go.
    pub(crate) evictions: IntCounter,
    /// Of the engine that shares its customers.
    pub(crate) states: Counters,
    events: IntCounterVec,
    customers: IntGauge,
    followed: IntGauge,
    predicted_ltv: Series,
    worth: Worth,
    /// The time from a message's bytes to its answer's, by RPC.
    pub(crate) predict: Histogram,
    pub(crate) predict_batch: Histogram,
    pub(crate) predict_stream: Histogram,
}

impl Metrics {
    /// Registers them.
    pub(crate) fn new(metrics: &runtime::Metrics) -> Self {
        let predictions = metrics.add(IntCounterVec::new(
            Opts::new(
                "syncvalue_predictions_total",
                "predictions that were answered: by a model (ok), or why the fallback estimate answered",
            ),
            &["reason"],
        ));
        let cache = metrics.add(IntCounterVec::new(
            Opts::new(
                "syncvalue_cache_answers_total",
                "questions that a model was to answer: its answer was known (hit), or its networks were asked (miss)",
            ),
            &["result"],
        ));
        let options = HistogramOpts::new("syncvalue_service_seconds", "time from a message's bytes to its answer's, by RPC");
        let service = metrics.add(HistogramVec::new(options.buckets(SERVICE_US.map(|us| us / 1e6).to_vec()), &["rpc"]));
        Self {
            predict: service.with_label_values(&["Predict"]),
            predict_batch: service.with_label_values(&["PredictBatch"]),
            predict_stream: service.with_label_values(&["PredictStream"]),
            sources: SOURCES.map(|label| predictions.with_label_values(&[label])),
            cache: ["hit", "miss"].map(|label| cache.with_label_values(&[label])),
            shadow: metrics.add(Histogram::with_opts(
                HistogramOpts::new(
                    "syncvalue_shadow_log_ratio",
                    "natural logarithm of the mean that the other model of a plan made, over the one that was answered",
                )
                .buckets(SHADOW.to_vec()),
            )),
            evictions: metrics.add(IntCounter::new("syncvalue_cache_evictions_total", "customers whose networks' state had to go")),
            states: Counters {
                states: metrics.add(IntCounterVec::new(
                    Opts::new(
                        "syncvalue_states_total",
                        "customers in Redis: got for questions, read and put for events, erased in each currency; by whether that was possible",
                    ),
                    &["call", "result"],
                )),
                retries: metrics.add(IntCounter::new(
                    "syncvalue_states_retries_total",
                    "changes of customers in Redis that another's came before, and that were made again",
                )),
            },
            events: metrics.add(IntCounterVec::new(Opts::new("syncvalue_events_total", "customer events, by their effect"), &["effect"])),
            customers: metrics.add(IntGauge::new("syncvalue_customers", "customers with at least one event, over all clients")),
            followed: metrics.add(IntGauge::new("syncvalue_followed_index", "next index to be read from SyncShield's log")),
            worth: Worth::new(metrics),
            predicted_ltv: Series::register(
                metrics,
                "syncvalue_predicted_ltv_total",
                "predicted lifetime value of the customers that were attributed, currency units",
                &["client", "campaign", "currency"],
            ),
        }
    }

    /// Questions were looked at.
    pub(crate) fn looked(&self, looks: &[Look<'_>]) {
        let mut counts = [0; 2];
        for look in looks {
            match look {
                Look::Estimated(_) => {}
                Look::Known(_) => counts[0] += 1,
                Look::Ask(_) => counts[1] += 1,
            }
        }
        add(&self.cache, counts);
    }

    /// Predictions were answered.
    pub(crate) fn predicted(&self, predictions: &[Prediction]) {
        let mut counts = [0; SOURCES.len()];
        predictions.iter().for_each(|prediction| counts[place(prediction.source)] += 1);
        add(&self.sources, counts);
    }

    /// Another model made a prediction too.
    pub(crate) fn compared(&self, answered: &Prediction, other: &Prediction) {
        let log = |prediction: &Prediction| (prediction.mean_micros.max(1) as f64).ln();
        self.shadow.observe(log(other) - log(answered));
    }

    /// Events were taken in.
    pub(crate) fn observed(&self, applied: &Applied, store: &Store) {
        for (effect, count) in [("applied", applied.applied), ("duplicate", applied.duplicates), ("dropped", applied.dropped)] {
            self.events.with_label_values(&[effect]).inc_by(u64::from(count));
        }
        self.customers.set(i64::try_from(store.customers()).unwrap_or(i64::MAX));
    }

    /// What predictions were worth, as of now.
    pub(crate) fn accuracy(&self, store: &Store) {
        store.accuracy(Accuracy::figures).iter().for_each(|(currency, figures)| self.worth.set(currency.code(), figures));
    }

    /// The log was read so far.
    pub(crate) fn followed(&self, next_index: u64) {
        self.followed.set(i64::try_from(next_index).unwrap_or(i64::MAX));
    }

    /// A customer was attributed to a campaign on this prediction. A display, so that a float will do.
    pub(crate) fn attributed(&self, customer: &Attributed, campaign: &str) {
        let labels = [customer.market.client.as_str(), campaign, customer.market.currency.code()];
        self.predicted_ltv.add(&labels, customer.predicted_micros.max(0) as f64 / 1e6);
    }
}

/// Each counter is touched once, where it is at all: the cores share them.
fn add<const N: usize>(counters: &[IntCounter; N], counts: [u64; N]) {
    counters.iter().zip(counts).filter(|(_, count)| *count > 0).for_each(|(counter, count)| counter.inc_by(count));
}
