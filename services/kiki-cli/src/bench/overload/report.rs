//! The figures of all runs: a table, or one JSON object with the units in its keys.

use serde::Serialize;

use super::course::{CALM, Figures, OVERLOAD, TIMES_UNLOADED, Times};
use super::{Args, Memory};
use crate::bench::machine;
use crate::bench::quiet::{self, Disturbed};
use crate::bench::turns::{median, rounded};
use crate::error::Failure;
use crate::out;

const MIB: f64 = 1_048_576.0;

/// One run.
pub(super) struct Run {
    /// Bids a second, at the most.
    pub(super) capacity: f64,
    pub(super) figures: Figures,
    /// Requests that fell due while as many were under way as may be.
    pub(super) not_sent: u64,
    /// The same schedule, asked of a server that does nothing.
    pub(super) bare: Figures,
    pub(super) memory: Memory,
    pub(super) disturbed: Disturbed,
}

impl Run {
    /// What fell due during the overload.
    fn due(&self) -> f64 {
        let Figures { admitted, refused, failed, .. } = self.figures;
        (admitted.count + refused.count + failed).max(1) as f64 + self.not_sent as f64
    }
}

/// Medians over the runs.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    capacity_per_second: f64,
    unloaded_latency_us_p50: f64,
    unloaded_latency_us_p99: f64,
    admitted_latency_us_p50: f64,
    admitted_latency_us_p99: f64,
    /// How many times the unloaded 99th percentile that is, run by run.
    admitted_to_unloaded_p99: f64,
    admitted_per_second: f64,
    /// Of what fell due in the overload: admitted, and with bids among those; turned away; without an answer; not sent because too many were
    /// under way.
    admitted_share: f64,
    bid_share: f64,
    refused_share: f64,
    failed_share: f64,
    not_sent_share: f64,
    refusal_latency_us_p50: f64,
    refusal_latency_us_p99: f64,
    /// From the end of the overload until 99 of 100 requests of a tenth of a second were admitted within twice the unloaded 99th
    /// percentile; null where that was not seen.
    recovery_ms: f64,
    /// Admitted in the first second.
    recovery_latency_us_p99: f64,
    memory_before_mib: f64,
    memory_peak_mib: f64,
    memory_after_mib: f64,
    /// From right before the overload to the most since.
    memory_growth_mib: f64,
    /// Those admitted, from when they were begun: without what the exchange itself was late.
    admitted_since_begun_us_p99: f64,
    /// How much later than they were due requests were begun during the overload, which their latencies hold.
    begun_late_us_p99: f64,
    /// The same schedule, asked of a server that does nothing.
    bare_unloaded_latency_us_p99: f64,
    bare_overload_latency_us_p99: f64,
    tmax_ms: u32,
    network_allowance_ms: u32,
    seconds: f64,
    /// Of the cores' time, what the host gave to others while something was measured: the most of all runs; and how often something was measured
    /// again for that.
    stolen_share: f64,
    measured_again: u32,
    runs: u16,
    server_cores: String,
    exchange_cores: String,
    customers: u32,
    version: &'static str,
    machine: String,
    kernel: String,
}

impl Report {
    pub(super) fn new(args: &Args, runs: &[Run]) -> Self {
        let of = |figure: &dyn Fn(&Run) -> f64| rounded(median(runs.iter().map(figure).collect()));
        let share = |part: &dyn Fn(&Run) -> f64| (median(runs.iter().map(|run| part(run) / run.due()).collect()) * 1e6).round() / 1e6;
        let times = |times: fn(&Figures) -> Times| [of(&|run| times(&run.figures).p50 as f64), of(&|run| times(&run.figures).p99 as f64)];
        let [unloaded_latency_us_p50, unloaded_latency_us_p99] = times(|figures| figures.unloaded);
        let [admitted_latency_us_p50, admitted_latency_us_p99] = times(|figures| figures.admitted);
        let [refusal_latency_us_p50, refusal_latency_us_p99] = times(|figures| figures.refused);
        let mib = |bytes: fn(&Memory) -> u64| of(&|run| bytes(&run.memory) as f64 / MIB);
        let Disturbed { stolen_share, again } = Disturbed::of(runs.iter().map(|run| run.disturbed));
        Self {
            capacity_per_second: of(&|run| run.capacity),
            unloaded_latency_us_p50,
            unloaded_latency_us_p99,
            admitted_latency_us_p50,
            admitted_latency_us_p99,
            admitted_to_unloaded_p99: of(&|run| run.figures.admitted.p99 as f64 / run.figures.unloaded.p99.max(1) as f64),
            admitted_per_second: of(&|run| run.figures.admitted.count as f64 / args.seconds),
            admitted_share: share(&|run| run.figures.admitted.count as f64),
            bid_share: share(&|run| run.figures.bids as f64),
            refused_share: share(&|run| run.figures.refused.count as f64),
            failed_share: share(&|run| run.figures.failed as f64),
            not_sent_share: share(&|run| run.not_sent as f64),
            refusal_latency_us_p50,
            refusal_latency_us_p99,
            recovery_ms: of(&|run| run.figures.recovered.map_or(f64::INFINITY, |recovered| recovered.as_secs_f64() * 1e3)),
            recovery_latency_us_p99: of(&|run| run.figures.recovery.p99 as f64),
            memory_before_mib: mib(|memory| memory.before),
            memory_peak_mib: mib(|memory| memory.peak),
            memory_after_mib: mib(|memory| memory.after),
            memory_growth_mib: mib(|memory| memory.peak - memory.before),
            admitted_since_begun_us_p99: of(&|run| run.figures.since_begun.p99 as f64),
            begun_late_us_p99: of(&|run| run.figures.begun_late.p99 as f64),
            bare_unloaded_latency_us_p99: of(&|run| run.bare.unloaded.p99 as f64),
            bare_overload_latency_us_p99: of(&|run| run.bare.admitted.p99 as f64),
            tmax_ms: args.tmax,
            network_allowance_ms: args.setting.network_allowance_ms,
            seconds: args.seconds,
            stolen_share: rounded(stolen_share * 1e3) / 1e3,
            measured_again: again,
            runs: args.runs,
            server_cores: args.server_cores.to_string(),
            exchange_cores: args.exchange_cores.to_string(),
            customers: args.setting.customers,
            version: env!("CARGO_PKG_VERSION"),
            machine: machine::describe().0,
            kernel: machine::kernel(),
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        let percent = |share: f64| format!("{:.2} %", share * 100.0);
        let ms = |us: f64| format!("{:.2} ms", us / 1e3);
        let both = |p50: f64, p99: f64| format!("{}, {}", ms(p50), ms(p99));
        let cores = format!("servers on core {}, exchange on {}", self.server_cores, self.exchange_cores);
        let rate = |times: f64| out::grouped((self.capacity_per_second * times) as u64);
        let of_it = format!(
            "{}/s: {} admitted, {} refused, {} failed, {} not sent",
            rate(OVERLOAD),
            percent(self.admitted_share),
            percent(self.refused_share),
            percent(self.failed_share),
            percent(self.not_sent_share)
        );
        let recovered = if self.recovery_ms.is_finite() {
            format!("within {TIMES_UNLOADED} times the unloaded p99 after {:.0} ms", self.recovery_ms)
        } else {
            "not seen".to_owned()
        };
        let memory = format!(
            "{:.1} MiB before, {:.1} MiB at the most, {:.1} MiB after",
            self.memory_before_mib, self.memory_peak_mib, self.memory_after_mib
        );
        out::figures(
            json,
            "kiki bench overload",
            self,
            &[
                ("capacity", format!("{} bids/s, {cores}", rate(1.0))),
                ("a fifth of it", format!("{}/s", rate(CALM))),
                ("  p50 p99", both(self.unloaded_latency_us_p50, self.unloaded_latency_us_p99)),
                ("three times it", of_it),
                ("  admitted p50 p99", both(self.admitted_latency_us_p50, self.admitted_latency_us_p99)),
                ("  to unloaded p99", format!("{:.2} times", self.admitted_to_unloaded_p99)),
                ("  refused p50 p99", both(self.refusal_latency_us_p50, self.refusal_latency_us_p99)),
                ("a fifth again", recovered),
                ("  p99 of a second", ms(self.recovery_latency_us_p99)),
                ("memory", memory),
                (
                    "bare server",
                    both(self.bare_unloaded_latency_us_p99, self.bare_overload_latency_us_p99) + " p99 of 204s, at a fifth and three times",
                ),
                (
                    "exchange",
                    format!(
                        "begins requests late by {} p99; admitted since begun {} p99",
                        ms(self.begun_late_us_p99),
                        ms(self.admitted_since_begun_us_p99)
                    ),
                ),
                ("host", quiet::line(self.stolen_share, self.measured_again)),
                ("medians of", format!("{} runs of {} s", self.runs, self.seconds)),
                ("machine", format!("{}, Linux {}", self.machine, self.kernel)),
            ],
        )
    }
}
