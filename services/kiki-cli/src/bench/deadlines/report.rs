//! The figures of all runs: a table, or one JSON object with the units in its keys.

use serde::Serialize;

use super::Args;
use crate::bench::machine;
use crate::bench::pair::INSIDE;
use crate::bench::quiet::{self, Disturbed};
use crate::bench::turns::{median, rounded};
use crate::error::Failure;
use crate::exchange::Tally;
use crate::out;

/// One run.
pub(super) struct Run {
    /// Bids a second, at the most, of the servers of which half is asked.
    pub(super) half_saturation: f64,
    /// At half of it.
    pub(super) half: Tally,
    /// Microseconds inside SyncFlow meanwhile, 99.9th percentile: from when a request is looked at, and from its arrival on.
    pub(super) inside: Option<[f64; 2]>,
    /// The same rate, asked of a server that does nothing.
    pub(super) bare_half: Tally,
    /// Bids a second, at the most, of the others.
    pub(super) saturation: f64,
    /// At three times it.
    pub(super) triple: Tally,
    pub(super) disturbed: Disturbed,
}

/// Medians over the runs.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    half_saturation_per_second: f64,
    /// Of all answers at half of that: within tmax, counted from when the request was due.
    half_in_time_share: f64,
    half_not_sent_share: f64,
    half_latency_us_p50: f64,
    half_latency_us_p99: f64,
    half_latency_us_p999: f64,
    /// Inside SyncFlow, from when a request is looked at; nothing where SyncFlow has no such histogram.
    half_service_time_us_p999: Option<f64>,
    /// The same from when it came.
    half_response_time_us_p999: Option<f64>,
    /// As much asked of a server that does nothing.
    half_bare_latency_us_p50: f64,
    half_bare_latency_us_p99: f64,
    half_bare_latency_us_p999: f64,
    saturation_per_second: f64,
    /// At three times of that: of the bids, those that came within tmax.
    triple_admitted_in_time_share: f64,
    /// Of all requests that fell due: answered with a bid at any time, and in time; sent away in time; answered too late; and not
    /// sent because too many were under way.
    triple_admitted_share: f64,
    triple_bid_in_time_share: f64,
    triple_shed_share: f64,
    triple_late_share: f64,
    triple_not_sent_share: f64,
    triple_latency_us_p50: f64,
    triple_latency_us_p99: f64,
    tmax_ms: u32,
    network_allowance_ms: u32,
    /// Of the cores' time, what the host gave to others while something was measured: the most of all runs; and how often something was measured
    /// again for that.
    stolen_share: f64,
    measured_again: u32,
    runs: u16,
    server_cores: String,
    exchange_cores: String,
    half_server_cores: String,
    half_exchange_cores: String,
    customers: u32,
    machine: String,
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

impl Report {
    pub(super) fn new(args: &Args, runs: &[Run]) -> Self {
        let of = |figure: &dyn Fn(&Run) -> f64| rounded(median(runs.iter().map(figure).collect()));
        let shares = |figure: &dyn Fn(&Run) -> f64| (median(runs.iter().map(figure).collect()) * 1e6).round() / 1e6;
        let latency = |tally: &dyn Fn(&Run) -> &Tally, quantile| of(&|run| tally(run).latency.value_at_quantile(quantile) as f64);
        let triple = |part: fn(&Tally) -> u64| shares(&|run| share(part(&run.triple), run.triple.sent + run.triple.not_sent));
        let inside: Option<Vec<[f64; 2]>> = runs.iter().map(|run| run.inside).collect();
        let inside = |which: usize| inside.as_ref().map(|runs| rounded(median(runs.iter().map(|run| run[which]).collect())));
        let Disturbed { stolen_share, again } = Disturbed::of(runs.iter().map(|run| run.disturbed));
        Self {
            half_saturation_per_second: of(&|run| run.half_saturation),
            half_in_time_share: shares(&|run| share(run.half.in_time, run.half.sent)),
            half_not_sent_share: shares(&|run| share(run.half.not_sent, run.half.sent + run.half.not_sent)),
            half_latency_us_p50: latency(&|run| &run.half, 0.5),
            half_latency_us_p99: latency(&|run| &run.half, 0.99),
            half_latency_us_p999: latency(&|run| &run.half, 0.999),
            half_service_time_us_p999: inside(0),
            half_response_time_us_p999: inside(1),
            half_bare_latency_us_p50: latency(&|run| &run.bare_half, 0.5),
            half_bare_latency_us_p99: latency(&|run| &run.bare_half, 0.99),
            half_bare_latency_us_p999: latency(&|run| &run.bare_half, 0.999),
            saturation_per_second: of(&|run| run.saturation),
            triple_admitted_in_time_share: shares(&|run| share(run.triple.with_bids, run.triple.with_bids + run.triple.late_bids())),
            triple_admitted_share: triple(|tally| tally.with_bids + tally.late_bids()),
            triple_bid_in_time_share: triple(|tally| tally.with_bids),
            triple_shed_share: triple(Tally::shed),
            triple_late_share: triple(|tally| tally.late),
            triple_not_sent_share: triple(|tally| tally.not_sent),
            triple_latency_us_p50: latency(&|run| &run.triple, 0.5),
            triple_latency_us_p99: latency(&|run| &run.triple, 0.99),
            tmax_ms: args.tmax,
            network_allowance_ms: args.setting.network_allowance_ms,
            stolen_share: rounded(stolen_share * 1e3) / 1e3,
            measured_again: again,
            runs: args.runs,
            server_cores: args.server_cores.to_string(),
            exchange_cores: args.exchange_cores.to_string(),
            half_server_cores: args.half_server_cores.to_string(),
            half_exchange_cores: args.half_exchange_cores.to_string(),
            customers: args.setting.customers,
            machine: machine::describe().0,
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        let percent = |share: f64| format!("{:.3} %", share * 100.0);
        let ms = |us: f64| format!("{:.2} ms", us / 1e3);
        let inside = self.half_service_time_us_p999.zip(self.half_response_time_us_p999).map_or_else(
            || format!("SyncFlow has no {}", INSIDE.join(", ")),
            |(service, response)| format!("p99.9 {service:.0} us from when it looks, {response:.0} us from when the request came"),
        );
        let bare = [self.half_bare_latency_us_p50, self.half_bare_latency_us_p99, self.half_bare_latency_us_p999].map(ms).join(", ");
        let half = [self.half_latency_us_p50, self.half_latency_us_p99, self.half_latency_us_p999].map(ms).join(", ");
        let triple = [self.triple_latency_us_p50, self.triple_latency_us_p99].map(ms).join(", ");
        let of_three = format!(
            "{} bid on in time, {} sent away in time, {} answered late, {} not sent",
            percent(self.triple_bid_in_time_share),
            percent(self.triple_shed_share),
            percent(self.triple_late_share),
            percent(self.triple_not_sent_share)
        );
        let saturation = |per_second: f64, servers: &str, exchange: &str| {
            format!("{} bids/s, servers on core {servers}, exchange on {exchange}", out::grouped(per_second as u64))
        };
        out::figures(
            json,
            "kiki bench deadlines",
            self,
            &[
                ("saturation", saturation(self.half_saturation_per_second, &self.half_server_cores, &self.half_exchange_cores)),
                (
                    "at half of it",
                    format!(
                        "{} within {} ms, {} not sent",
                        percent(self.half_in_time_share),
                        self.tmax_ms,
                        percent(self.half_not_sent_share)
                    ),
                ),
                ("  p50 p99 p99.9", half),
                ("  inside SyncFlow", inside),
                ("  of a bare server", bare),
                ("saturation", saturation(self.saturation_per_second, &self.server_cores, &self.exchange_cores)),
                ("at three times it", format!("{} of the bids in time", percent(self.triple_admitted_in_time_share))),
                ("  of the requests", of_three),
                ("  p50 p99", triple),
                ("allowance", format!("{} ms for the way there and back", self.network_allowance_ms)),
                ("host", quiet::line(self.stolen_share, self.measured_again)),
                ("medians of", format!("{} runs", self.runs)),
                ("machine", self.machine.clone()),
            ],
        )
    }
}
