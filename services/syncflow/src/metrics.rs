//! SyncFlow's metrics, under the product's names. Floats here are for people's eyes; money is counted elsewhere.

use kiki::clock::UnixMicros;
use kiki::leaf::Int128;
use kiki::pb::syncshield::v1::Budget;
use kiki::runtime;
use prometheus::{CounterVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts};

use crate::domain::breaker::{Breaker, State};

/// What the breaker around SyncValue is called in metrics.
const SYNCVALUE: &str = "syncvalue";

/// The metrics; a clone counts into the same.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Bids made, by exchange's platform and currency.
    pub bids: IntCounterVec,
    /// Opportunities not bid on, by reason.
    pub no_bids: IntCounterVec,
    /// OpenRTB requests refused as malformed.
    pub malformed: IntCounter,
    /// Predictions used, by status.
    pub predictions: IntCounterVec,
    /// Predictions that came too late for their bid.
    pub predictions_late: IntCounter,
    /// Notices by kind and what became of them.
    pub notices: IntCounterVec,
    /// Receipts that came with purchases and were not taken.
    pub receipts_refused: IntCounter,
    /// The version of the policy that bids are held against; 0 before the first.
    pub policy_version: IntGauge,
    /// Campaigns that are known.
    pub campaigns: IntGauge,
    /// Bids that frequency caps forgot before their time, because there were too many.
    pub frequency_forgotten: IntCounter,
    /// Bids whose caps were held against this process's own counts, because the shared ones did not answer in time.
    pub frequency_alone: IntCounter,
    /// Bids and notices that the shared counts did not take.
    pub frequency_unshared: IntCounter,
    spend: CounterVec,
    spent: IntGaugeVec,
    limit: IntGaugeVec,
    breaker_state: [IntGauge; State::ALL.len()],
    breaker_changes: IntGauge,
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn new(registry: &runtime::Metrics) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| registry.add(IntCounterVec::new(Opts::new(name, help), labels));
        let gauges = |name: &str, help: &str, labels: &[&str]| registry.add(IntGaugeVec::new(Opts::new(name, help), labels));
        let counter = |name: &str, help: &str| registry.add(IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| registry.add(IntGauge::new(name, help));
        let budget = ["client", "campaign", "currency"];
        let breaker_state =
            gauges("syncflow_circuit_breaker_state_count", "circuit breakers by the state that they are in", &["platform", "state"]);
        Self {
            bids: counters("syncflow_bids_total", "bids made", &["platform", "currency"]),
            no_bids: counters("syncflow_no_bids_total", "opportunities not bid on, by reason", &["reason"]),
            malformed: counter("syncflow_malformed_requests_total", "OpenRTB requests answered with 400"),
            predictions: counters("syncflow_predictions_total", "predictions that prices were made of, by status", &["status"]),
            predictions_late: counter("syncflow_predictions_late_total", "predictions that came too late for their bid"),
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
            spend: registry
                .add(CounterVec::new(Opts::new("syncflow_spend_total", "settled spend, units of the currency"), &["platform", "currency"])),
            spent: gauges("syncflow_budget_spent_micros", "settled spend of the campaign, micros", &budget),
            limit: gauges("syncflow_budget_limit_micros", "total budget of the campaign, micros", &budget),
            breaker_state: State::ALL.map(|state| breaker_state.with_label_values(&[SYNCVALUE, state.as_str()])),
            breaker_changes: gauge("syncflow_circuit_breaker_changes", "state changes of the circuit breaker since the start"),
        }
    }

    /// What SyncShield said of a budget.
    pub fn budget(&self, budget: &Budget) {
        let labels = [budget.client.as_str(), &budget.campaign, &budget.currency];
        let settled = budget.settled_nanos.as_ref().map_or(0, |settled: &Int128| i128::from(settled) / 1_000);
        self.spent.with_label_values(&labels).set(i64::try_from(settled).unwrap_or(i64::MAX));
        self.limit.with_label_values(&labels).set(budget.limit_total_micros);
    }

    /// A settlement that was applied.
    pub fn settled(&self, platform: &str, currency: &str, nanos: i64) {
        self.spend.with_label_values(&[platform, currency]).inc_by(nanos as f64 / 1e9);
    }

    /// Where the breaker stands.
    pub fn breaker(&self, breaker: &Breaker, now: UnixMicros) {
        let state = breaker.state(now);
        for (each, gauge) in State::ALL.into_iter().zip(&self.breaker_state) {
            gauge.set(i64::from(each == state));
        }
        self.breaker_changes.set(i64::try_from(breaker.changes()).unwrap_or(i64::MAX));
    }
}
