//! SyncFlow's metrics, under the product's names. Floats here are for people's eyes; money is counted elsewhere.

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::Clock;
use kiki::leaf::{Int128, PredictionStatus};
use kiki::money::NANOS_PER_MICRO;
use kiki::pb::syncshield::v1::{Budget, ScopeBudget};
use kiki::runtime::{self, Peer, series::Series};
use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    CounterVec, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, PullingGauge,
};
use tokio::time::Instant;

use crate::breakers::Breakers;
use crate::clients::leases::Leases;
use crate::clients::recorder::{MAX_QUEUE, Recorder};
use crate::deadline::{Arrival, Deadline};
use crate::domain::breaker::State;
use crate::domain::receipt::Receipt;
use crate::engine::Reason;
use crate::load::Load;

/// Statuses of predictions, as [`Metrics::predicted`] counts them.
const STATUSES: [&str; 4] = ["ok", "fallback", "median", "prior"];

/// The metrics; a clone counts into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Bids made, by exchange's platform and currency.
    pub bids: IntCounterVec,
    /// Opportunities not bid on, by reason.
    pub no_bids: IntCounterVec,
    /// Those among them that came while too many were under way.
    pub turned_away: IntCounter,
    /// Decisions below the floor that were counted in place of recorded ([`crate::config::Record`]).
    pub counted_below_floor: IntCounter,
    /// OpenRTB requests refused as malformed.
    pub malformed: IntCounter,
    predictions: [IntCounter; STATUSES.len()],
    /// Predictions that came too late for their bid.
    pub predictions_late: IntCounter,
    /// Predictions that were known, and not asked for.
    pub predictions_held: IntCounter,
    /// How long bids take.
    pub stages: Stages,
    /// Notices by kind and what became of them.
    pub notices: IntCounterVec,
    /// Receipts that came with purchases and were not taken.
    pub receipts_refused: IntCounter,
    /// The version of the policy that bids are held against; 0 before the first.
    pub policy_version: IntGauge,
    /// Campaigns that are known.
    pub campaigns: IntGauge,
    /// Those among them that do not bid, because their client has no terms in their currency.
    pub campaigns_without_terms: IntGauge,
    /// Bids that frequency caps forgot before their time, because there were too many.
    pub frequency_forgotten: IntCounter,
    /// Bids whose caps were held against this process's own counts, because the shared ones did not answer in time.
    pub frequency_alone: IntCounter,
    /// Bids and notices that the shared counts did not take.
    pub frequency_unshared: IntCounter,
    spend: Series,
    spent: IntGaugeVec,
    limit: IntGaugeVec,
    overspend: IntGaugeVec,
    pacing: GaugeVec,
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(registry: &runtime::Metrics) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| registry.add(IntCounterVec::new(Opts::new(name, help), labels));
        let gauges = |name: &str, help: &str, labels: &[&str]| registry.add(IntGaugeVec::new(Opts::new(name, help), labels));
        let counter = |name: &str, help: &str| registry.add(IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| registry.add(IntGauge::new(name, help));
        let predictions = counters("syncflow_predictions_total", "predictions that prices were made of, by status", &["status"]);
        let budget = ["client", "campaign", "currency"];
        let no_bids = counters("syncflow_no_bids_total", "opportunities not bid on, by reason", &["reason"]);
        // Each from 0: a rate has nothing to say of a series' first sample.
        let _ = Reason::ALL.map(|reason| no_bids.with_label_values(&[reason.as_str()]));
        Self {
            bids: counters("syncflow_bids_total", "bids made", &["platform", "currency"]),
            turned_away: no_bids.with_label_values(&["OVERLOADED"]),
            no_bids,
            counted_below_floor: counters(
                "syncflow_decisions_counted_total",
                "decisions that were counted in place of recorded, by reason",
                &["reason"],
            )
            .with_label_values(&["BELOW_FLOOR"]),
            malformed: counter("syncflow_malformed_requests_total", "OpenRTB requests answered with 400"),
            predictions: STATUSES.map(|status| predictions.with_label_values(&[status])),
            predictions_held: counter("syncflow_predictions_held_total", "predictions that were held since they were asked for before"),
            predictions_late: counter("syncflow_predictions_late_total", "predictions that came too late for their bid"),
            stages: Stages::register(registry),
            notices: counters("syncflow_notices_total", "notices by kind and result", &["kind", "status"]),
            receipts_refused: counter("syncflow_receipts_refused_total", "receipts of purchases that were not taken"),
            frequency_forgotten: counter(
                "syncflow_frequency_forgotten_total",
                "bids that frequency caps forgot too early, for want of room",
            ),
            frequency_alone: counter(
                "syncflow_frequency_alone_total",
                "bids capped by this process's counts, the shared ones being late or gone",
            ),
            frequency_unshared: counter("syncflow_frequency_unshared_total", "bids and notices that the shared counts did not take"),
            policy_version: gauge("syncflow_policy_version", "version of the policy that bids are held against"),
            campaigns: gauge("syncflow_campaigns", "campaigns that are known"),
            campaigns_without_terms: gauge("syncflow_campaigns_without_terms", "known campaigns that do not bid for want of terms"),
            spend: Series::register(
                registry,
                "syncflow_spend_total",
                "settled spend, units of the currency",
                &["client", "campaign", "platform", "currency"],
            ),
            spent: gauges("syncflow_budget_spent_micros", "settled spend of the campaign, micros", &budget),
            limit: gauges("syncflow_budget_limit_micros", "total budget of the campaign, micros", &budget),
            overspend: gauges(
                "syncflow_overspend_bound_micros",
                "the most that may be charged above the limit that binds, were every open slot charged in full, micros",
                &budget,
            ),
            pacing: registry.add(GaugeVec::new(
                Opts::new("syncflow_pacing_divisor", "what bids of a paced campaign are divided by: 1 + lambda"),
                &["client", "campaign"],
            )),
        }
    }

    /// So many prices were made of predictions.
    pub fn predicted(&self, status: PredictionStatus, count: u64) {
        let at = match status {
            PredictionStatus::Ok => 0,
            PredictionStatus::Fallback => 1,
            PredictionStatus::Median => 2,
            PredictionStatus::Prior | PredictionStatus::Unspecified => 3,
        };
        self.predictions[at].inc_by(count);
    }

    /// What SyncShield said of a budget.
    pub fn budget(&self, budget: &Budget) {
        let labels = [budget.client.as_str(), &budget.campaign, &budget.currency];
        let settled = budget.settled_nanos.as_ref().map_or(0, |settled: &Int128| i128::from(settled) / 1_000);
        self.spent.with_label_values(&labels).set(i64::try_from(settled).unwrap_or(i64::MAX));
        self.limit.with_label_values(&labels).set(budget.limit_total_micros);
        self.overspend.with_label_values(&labels).set(overspend_bound(budget));
    }

    /// What the bids of a paced campaign are divided by.
    pub fn paced(&self, client: &str, campaign: &str, divisor: f64) {
        self.pacing.with_label_values(&[client, campaign]).set(divisor);
    }

    /// A settlement that was applied.
    pub fn settled(&self, receipt: &Receipt, nanos: i64) {
        let labels = [receipt.client.as_str(), &receipt.campaign, &receipt.platform, receipt.currency.code()];
        self.spend.add(&labels, nanos as f64 / 1e9);
    }
}

/// By how much a budget may be overspent, micros, rounded up: what was charged and is set aside above the limit that binds. No grant
/// takes it above 0; a limit that was lowered under way does, and a charge above what was set aside for it.
fn overspend_bound(budget: &Budget) -> i64 {
    let nanos = |sum: &Option<Int128>| sum.as_ref().map_or(0, i128::from);
    let above = |of: &ScopeBudget| nanos(&of.settled_nanos) + nanos(&of.committed_nanos) - i128::from(of.limit_micros) * NANOS_PER_MICRO;
    let most = budget.scopes.iter().map(above).max().unwrap_or(0).max(0);
    i64::try_from((most + NANOS_PER_MICRO - 1) / NANOS_PER_MICRO).unwrap_or(i64::MAX)
}

/// How long the stages of a bid take (`crate::deadline`), and the whole of it. Of a stream's message one opportunity is timed.
#[derive(Debug, Clone)]
pub struct Stages {
    /// From the question until the predictions are had, or no longer waited for.
    pub predict: Histogram,
    /// From then until it is decided.
    pub guard: Histogram,
    encode: Histogram,
    lag: Histogram,
    service: Histogram,
    response: Histogram,
}

/// From 10 us, below which a clock's own cost shows, to the longest deadlines.
const BUCKETS: [f64; 20] = [
    10e-6, 20e-6, 30e-6, 50e-6, 75e-6, 100e-6, 150e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 2e-3, 3e-3, 5e-3, 8e-3, 10e-3, 30e-3, 0.1, 1.0,
];

impl Stages {
    fn register(registry: &runtime::Metrics) -> Self {
        let options = |name: &str, help: &str| HistogramOpts::new(name, help).buckets(BUCKETS.to_vec());
        let stages = options("syncflow_stage_seconds", "time that bids spend in a stage");
        let stages = registry.add(HistogramVec::new(stages, &["stage"]));
        let [predict, guard, encode] = ["predict", "guard", "encode"].map(|stage| stages.with_label_values(&[stage]));
        let lag = options("syncflow_runtime_lag_seconds", "time from a bid request's arrival until it is looked at");
        let service =
            options("syncflow_service_seconds", "time from when a bid request, or a stream's message, is looked at to the answer's bytes");
        let response =
            options("syncflow_response_seconds", "time from a bid request's arrival, or a stream's message, to the answer's bytes");
        let [lag, service, response] = [lag, service, response].map(|options| registry.add(Histogram::with_opts(options)));
        Self { predict, guard, encode, lag, service, response }
    }

    /// A request is looked at that came as its connection says.
    #[must_use]
    pub fn looked_at(&self, peer: Option<&Peer>) -> Arrival {
        let (now, waited) = (Instant::now(), peer.map_or(Duration::ZERO, Peer::waited));
        self.lag.observe(waited.as_secs_f64());
        Arrival { came: now.checked_sub(waited).unwrap_or(now), looked_at: now }
    }

    /// The answer was encoded, from `encoding` until now.
    pub fn encoded(&self, deadline: &Deadline, encoding: Instant) {
        let now = Instant::now();
        self.encode.observe((now - encoding).as_secs_f64());
        self.service.observe((now - deadline.looked_at).as_secs_f64());
        self.response.observe((now - deadline.began).as_secs_f64());
    }
}

/// What is read when somebody looks: the limit on bids under way and how many there are, and the decisions that wait for the log.
///
/// # Panics
/// Where a name is taken: a fault that any start shows.
pub fn register(registry: &runtime::Metrics, load: &Arc<Load>, recorder: &Arc<Recorder>) {
    register_load(registry, load);
    register_recorder(registry, recorder);
}

fn register_load(registry: &runtime::Metrics, load: &Arc<Load>) {
    let gauge = |name: &str, help: &str, read: fn(&Load) -> f64| {
        let load = load.clone();
        registry.add(PullingGauge::new(name, help, Box::new(move || read(&load))));
    };
    gauge("syncflow_bids_limit", "bids that may be under way at once", |load| load.limit() as f64);
    gauge("syncflow_bids_per_second_limit", "requests that are let in, a second; +Inf where no queue stands", Load::rate);
    gauge("syncflow_bids_under_way", "bids that are under way", |load| load.under_way() as f64);
}

fn register_recorder(registry: &runtime::Metrics, recorder: &Arc<Recorder>) {
    let recorder = recorder.clone();
    let (waiting, limit) = ("syncflow_decisions_waiting", "syncflow_decisions_waiting_limit");
    registry.add(PullingGauge::new(waiting, "decisions that wait for the log", Box::new(move || recorder.waiting() as f64)));
    registry.add(PullingGauge::new(limit, "decisions with which nothing more is bid", Box::new(|| MAX_QUEUE as f64)));
}

/// What leases let this instance spend without another word from SyncShield, read when it is scraped: once SyncShield is out of
/// reach, bids stop within it.
#[derive(Debug, Clone)]
pub struct Floating {
    leases: Arc<Leases>,
    clock: Clock,
    float: IntGaugeVec,
}

impl Floating {
    /// Registers it.
    pub fn register(registry: &runtime::Metrics, leases: Arc<Leases>, clock: Clock) {
        let help = "what leases let this instance spend without another word from SyncShield, micros of the campaign's currency";
        let gauge = IntGaugeVec::new(Opts::new("syncflow_float_micros", help), &["client", "campaign"]);
        registry.add(gauge.map(|float| Self { leases, clock, float }));
    }
}

impl Collector for Floating {
    fn desc(&self) -> Vec<&Desc> {
        self.float.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (client, campaign, micros) in self.leases.floats(self.clock.now()) {
            self.float.with_label_values(&[&client, &campaign]).set(micros.get());
        }
        self.float.collect()
    }
}

/// The circuit breakers as metrics, read when they are scraped: the path of bids pays nothing for them.
#[derive(Debug, Clone)]
pub struct Breaking {
    breakers: Arc<Breakers>,
    clock: Clock,
    state: IntGaugeVec,
    changes: IntGaugeVec,
    seconds: CounterVec,
    /// One scrape at a time, so that none adds the same seconds.
    scraping: Arc<Mutex<()>>,
}

impl Breaking {
    /// Registers them.
    pub fn register(registry: &runtime::Metrics, breakers: Arc<Breakers>, clock: Clock) {
        let opts = |name: &str, help: &str| Opts::new(name, help);
        let labels = ["platform", "state"];
        let made = || {
            Ok(Self {
                breakers,
                clock,
                state: IntGaugeVec::new(
                    opts("syncflow_circuit_breaker_state_count", "circuit breakers by the state that they are in"),
                    &labels,
                )?,
                changes: IntGaugeVec::new(opts("syncflow_circuit_breaker_changes", "state changes since the start"), &labels[..1])?,
                scraping: Arc::default(),
                seconds: CounterVec::new(opts("syncflow_circuit_breaker_seconds_total", "seconds in each state since the start"), &labels)?,
            })
        };
        registry.add(made());
    }
}

impl Collector for Breaking {
    fn desc(&self) -> Vec<&Desc> {
        [self.state.desc(), self.changes.desc(), self.seconds.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _alone = self.scraping.lock();
        let now = self.clock.now();
        for one in self.breakers.iter() {
            let (state, times) = (one.breaker.state(now), one.breaker.times(now));
            for (each, time) in State::ALL.into_iter().zip(times) {
                let labels = [one.name.as_str(), each.as_str()];
                self.state.with_label_values(&labels).set(i64::from(each == state));
                let seconds = self.seconds.with_label_values(&labels);
                seconds.inc_by((time.as_secs_f64() - seconds.get()).max(0.0));
            }
            self.changes.with_label_values(&[&one.name]).set(i64::try_from(one.breaker.changes()).unwrap_or(i64::MAX));
        }
        [self.state.collect(), self.changes.collect(), self.seconds.collect()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_response_waits_until_it_is_looked_at_and_service_begins_then() {
        let (stages, came) = (Stages::register(&runtime::Metrics::new()), Instant::now());
        tokio::time::advance(Duration::from_secs(3)).await;
        let deadline = Deadline::new(Arrival { came, looked_at: Instant::now() }, Duration::from_secs(9));
        tokio::time::advance(Duration::from_secs(2)).await;
        stages.encoded(&deadline, Instant::now());
        let sums = [&stages.service, &stages.response].map(|histogram| histogram.get_sample_sum().round());
        assert_eq!(sums, [2.0, 5.0]);
    }

    #[test]
    fn a_budget_may_be_overspent_by_what_is_open_above_the_limit_that_binds() {
        let scope = |settled: i128, committed: i128, limit_micros| ScopeBudget {
            settled_nanos: Some(settled.into()),
            committed_nanos: Some(committed.into()),
            limit_micros,
            ..Default::default()
        };
        let bound = |scopes| overspend_bound(&Budget { scopes, ..Default::default() });
        assert_eq!(bound(vec![]), 0);
        assert_eq!(bound(vec![scope(600, 400, 1), scope(0, 10, 5)]), 0, "used up is not overspent");
        assert_eq!(bound(vec![scope(600, 401, 1)]), 1, "rounded up");
        assert_eq!(bound(vec![scope(6_000, 4_000, 20), scope(6_000, 4_000, 3)]), 7, "the limit that binds most");
    }
}
