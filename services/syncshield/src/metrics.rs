//! Budgets as metrics: what was spent where, what is out on leases, what is overcommitted, which limits were alerted.

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf::LimitKind;
use kiki::runtime::Metrics;
use prometheus::{Histogram, HistogramOpts, IntGauge, IntGaugeVec, Opts};
use tokio_util::sync::CancellationToken;

use crate::domain::budget::{CampaignState, Span};
use crate::domain::document;
use crate::domain::ledger::Ledger;
use crate::domain::scopes::DEFAULT_WINDOW_SECONDS;
use crate::store::Log;

/// How often they are read from the fold: it takes the writer a look at every lease.
const EVERY: Duration = Duration::from_secs(2);

/// From 100 us, which is memory alone, to 10 s, which is a disk that is stuck.
const COMMITS: [f64; 16] = [1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How long batches take to become durable; the log has it, and its listener registers it.
pub(crate) fn commit_seconds() -> Histogram {
    let options = HistogramOpts::new("syncshield_log_commit_seconds", "time in which a batch became durable").buckets(COMMITS.to_vec());
    Histogram::with_opts(options).unwrap_or_else(|e| unreachable!("a constant metric: {e}"))
}

/// How the log stands.
pub(crate) struct LogGauges {
    leaves: IntGauge,
    signed: IntGauge,
    writable: IntGauge,
}

impl LogGauges {
    pub(crate) fn new(metrics: &Metrics, log: &Log) -> Self {
        metrics.add(Ok(log.commit_seconds()));
        let gauge = |name: &str, help: &str| metrics.add(IntGauge::new(name, help));
        Self {
            leaves: gauge("syncshield_log_leaves", "durable leaves of the log"),
            signed: gauge("syncshield_log_signed_leaves", "leaves that the newest checkpoint covers"),
            writable: gauge("syncshield_log_writable", "0 where the disk is full or a write failed, and nothing is taken"),
        }
    }

    pub(crate) fn set(&self, log: &Log, leaves: u64) {
        let signed = log.newest_checkpoint().map_or(0, |signed| signed.size);
        self.leaves.set(i64::try_from(leaves).unwrap_or(i64::MAX));
        self.signed.set(i64::try_from(signed).unwrap_or(i64::MAX));
        self.writable.set(log.is_writable().into());
    }
}

/// The gauges of budgets.
#[derive(Clone)]
pub(crate) struct Budgets {
    spent: IntGaugeVec,
    window: IntGaugeVec,
    float: IntGaugeVec,
    kept: IntGaugeVec,
    overcommitted: IntGaugeVec,
    alerted: IntGaugeVec,
    limit: IntGaugeVec,
    used: IntGaugeVec,
}

/// One sample: its labels and value.
type Sample = (Vec<String>, i64);

/// What the fold says, taken on the writer's thread.
#[derive(Default)]
struct Samples {
    spent: Vec<Sample>,
    window: Vec<Sample>,
    float: Vec<Sample>,
    kept: Vec<Sample>,
    overcommitted: Vec<Sample>,
    alerted: Vec<Sample>,
    limit: Vec<Sample>,
    used: Vec<Sample>,
}

impl Budgets {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| metrics.add(IntGaugeVec::new(Opts::new(name, help), labels));
        let limit = ["client", "campaign", "platform", "currency", "limit"];
        Self {
            spent: gauges("syncshield_spent_micros", "charged, micros of the campaign's currency", &limit[..3]),
            window: gauges("syncshield_spent_window_micros", "charged on leases of the last ten minutes, micros", &limit[..3]),
            float: gauges("syncshield_float_micros", "set aside by live leases and not charged: the worst case, micros", &limit[..3]),
            kept: gauges("syncshield_kept_micros", "kept after a start for leases that ended before it, micros", &limit[..2]),
            overcommitted: gauges("syncshield_overcommitted", "1 where a limit of the campaign's scopes is overcommitted", &limit[..2]),
            alerted: gauges("syncshield_budget_alert_percent", "the highest threshold of the limit that was alerted, percent", &limit),
            limit: gauges("syncshield_limit_micros", "a limit in force, micros", &limit),
            used: gauges("syncshield_limit_used_micros", "charged and held against a limit, micros", &limit),
        }
    }

    /// Keeps them up to date until `shutdown`.
    pub(crate) async fn keep(self, log: Log, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
            // While the log takes nothing the gauges stand still.
            let Ok(samples) = log.run(|ledger| Ok(samples(ledger))).await else { continue };
            for (gauges, samples) in [
                (&self.spent, samples.spent),
                (&self.window, samples.window),
                (&self.float, samples.float),
                (&self.kept, samples.kept),
                (&self.overcommitted, samples.overcommitted),
                (&self.alerted, samples.alerted),
                (&self.limit, samples.limit),
                (&self.used, samples.used),
            ] {
                samples.iter().for_each(|(labels, value)| gauges.with_label_values(labels).set(*value));
            }
        }
    }
}

fn micros(nanos: i128) -> i64 {
    i64::try_from(nanos / 1_000).unwrap_or(i64::MAX)
}

fn samples(ledger: &Ledger) -> Samples {
    let mut samples = Samples::default();
    for (client, of) in ledger.state.clients.iter().filter(|(_, of)| of.left.is_none()) {
        for (id, campaign) in &of.campaigns {
            sample_campaign(ledger, client, id, campaign, &mut samples);
        }
        for ((scope, limit, own), raised) in &of.raised {
            let limit = limit_name(LimitKind::try_from(*limit).unwrap_or_default(), *own);
            let labels = vec![client.clone(), scope.campaign.clone(), scope.platform.clone(), scope.currency.clone(), limit];
            samples.alerted.push((labels, raised.threshold.into()));
        }
    }
    samples
}

/// `daily`, say, or `own_daily` of the campaign document's own.
fn limit_name(kind: LimitKind, own: bool) -> String {
    format!("{}{}", if own { "own_" } else { "" }, kind.as_str_name().trim_start_matches("LIMIT_KIND_").to_lowercase())
}

/// What live leases may still spend, by platform; 0 where they have ended since.
fn float(campaign: &CampaignState, now: UnixMicros) -> BTreeMap<&str, i128> {
    let mut float = BTreeMap::new();
    for lease in campaign.leases.values() {
        let of = if lease.lives(now) { lease.committed(now) } else { 0 };
        *float.entry(lease.platform.as_str()).or_default() += of;
    }
    float
}

fn sample_campaign(ledger: &Ledger, client: &str, id: &str, campaign: &CampaignState, samples: &mut Samples) {
    let now = ledger.now();
    let label = || vec![client.to_owned(), id.to_owned()];
    for platform in campaign.platforms.keys() {
        let settled = |span| micros(campaign.settled_in(now, Some(platform), span));
        let labels = || label().into_iter().chain([platform.clone()]).collect();
        samples.spent.push((labels(), settled(Span::Total)));
        samples.window.push((labels(), settled(Span::Window(DEFAULT_WINDOW_SECONDS))));
    }
    for (platform, float) in float(campaign, now) {
        samples.float.push((label().into_iter().chain([platform.to_owned()]).collect(), micros(float)));
    }
    samples.kept.push((label(), micros(ledger.kept(campaign))));
    let Ok((day, _)) = document::local_day(&campaign.zone, now) else { return };
    let standings = ledger.state.clients[client].standings(ledger.at(day), id, |_| true);
    samples.overcommitted.push((label(), standings.iter().any(|s| s.available() < 0).into()));
    for standing in &standings {
        let scope = &standing.scope;
        let limit = limit_name(standing.kind.leaf(), standing.own);
        let labels = || vec![client.to_owned(), scope.campaign.clone(), scope.platform.clone(), scope.currency.clone(), limit.clone()];
        samples.limit.push((labels(), standing.limit.get()));
        samples.used.push((labels(), micros(standing.settled + standing.committed)));
    }
}
