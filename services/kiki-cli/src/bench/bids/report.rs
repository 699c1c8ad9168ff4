//! The figures of one run: a table, or one JSON object with the units in its keys.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::Args;
use crate::bench::drive::Measured;
use crate::bench::machine;
use crate::bench::turns::{percentiles, rounded};
use crate::error::Failure;
use crate::out;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Bids whose decisions were durable, a second.
    items_per_second: f64,
    server_cpu_s_per_million: f64,
    echo_items_per_second: f64,
    echo_server_cpu_s_per_million: f64,
    /// How many times the CPU time of a bare echo a bid takes at the servers.
    cpu_ratio: f64,
    /// The same of an echo that reads the opportunities and writes bids, with prost, and how many times that.
    messages_echo_server_cpu_s_per_million: f64,
    messages_cpu_ratio: f64,
    /// From a batch's request to its answer.
    latency_us_p50: u64,
    latency_us_p99: u64,
    latency_us_p999: u64,
    /// From a batch's request until its decisions are durable.
    durable_latency_us_p50: u64,
    durable_latency_us_p99: u64,
    durable_latency_us_p999: u64,
    echo_latency_us_p50: u64,
    echo_latency_us_p99: u64,
    echo_latency_us_p999: u64,
    pub(super) bids: u64,
    no_bids: u64,
    no_bids_by_reason: BTreeMap<String, u64>,
    /// Purchases that SyncValue took in meanwhile, a second.
    events_per_second: f64,
    elapsed_s: f64,
    streams: u16,
    batch_items: u16,
    window_batches: u16,
    customers: u32,
    request_bytes: usize,
    answer_bytes: usize,
    cores: usize,
    machine: String,
}

/// What was measured, and the CPU time of the servers meanwhile.
type Run = (Measured, Duration);

impl Report {
    pub(super) fn new(
        args: &Args,
        [request_bytes, answer_bytes]: [usize; 2],
        (bids, cpu): &Run,
        [(echo, echo_cpu), (messages, messages_cpu)]: &[Run; 2],
        (no_bids_by_reason, events): (BTreeMap<String, u64>, u64),
    ) -> Self {
        let (machine, cores) = machine::describe();
        let per_million = |cpu: &Duration, items: u64| cpu.as_secs_f64() * 1e6 / (items.max(1) as f64);
        let server = per_million(cpu, bids.items);
        let echo_server = per_million(echo_cpu, echo.items);
        let messages_server = per_million(messages_cpu, messages.items);
        let [latency_us_p50, latency_us_p99, latency_us_p999] = percentiles(&bids.answer_us);
        let [durable_latency_us_p50, durable_latency_us_p99, durable_latency_us_p999] = percentiles(&bids.final_us);
        let [echo_latency_us_p50, echo_latency_us_p99, echo_latency_us_p999] = percentiles(&echo.answer_us);
        Self {
            items_per_second: rounded(bids.items_per_second()),
            server_cpu_s_per_million: rounded(server),
            echo_items_per_second: rounded(echo.items_per_second()),
            echo_server_cpu_s_per_million: rounded(echo_server),
            cpu_ratio: rounded(server / echo_server.max(f64::MIN_POSITIVE)),
            messages_echo_server_cpu_s_per_million: rounded(messages_server),
            messages_cpu_ratio: rounded(server / messages_server.max(f64::MIN_POSITIVE)),
            latency_us_p50,
            latency_us_p99,
            latency_us_p999,
            durable_latency_us_p50,
            durable_latency_us_p99,
            durable_latency_us_p999,
            echo_latency_us_p50,
            echo_latency_us_p99,
            echo_latency_us_p999,
            bids: bids.items,
            no_bids: bids.others,
            no_bids_by_reason,
            events_per_second: rounded(events as f64 / bids.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)),
            elapsed_s: rounded(bids.elapsed.as_secs_f64()),
            streams: args.streams,
            batch_items: args.batch,
            window_batches: args.window(),
            customers: args.customers,
            request_bytes,
            answer_bytes,
            cores,
            machine,
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        let us = |p: [u64; 3]| p.map(|us| format!("{:>9} us", out::grouped(us))).join("");
        let rate = |items: f64| format!("{}/s", out::grouped(items as u64));
        out::figures(
            json,
            "kiki bench bids",
            self,
            &[
                ("bids, durable", format!("{}  ({} in {:.1} s)", rate(self.items_per_second), out::grouped(self.bids), self.elapsed_s)),
                ("no-bids", reasons(&self.no_bids_by_reason)),
                ("purchases meanwhile", rate(self.events_per_second)),
                ("servers' CPU", format!("{:.2} s per million bids", self.server_cpu_s_per_million)),
                ("latency p50 p99 p99.9", us([self.latency_us_p50, self.latency_us_p99, self.latency_us_p999])),
                ("  until durable", us([self.durable_latency_us_p50, self.durable_latency_us_p99, self.durable_latency_us_p999])),
                ("bare echo", rate(self.echo_items_per_second)),
                ("  its CPU", format!("{:.2} s per million", self.echo_server_cpu_s_per_million)),
                ("  latency", us([self.echo_latency_us_p50, self.echo_latency_us_p99, self.echo_latency_us_p999])),
                ("echo of messages", format!("{:.2} s per million", self.messages_echo_server_cpu_s_per_million)),
                ("CPU, bid : echo", format!("{:.1}, of messages {:.1}", self.cpu_ratio, self.messages_cpu_ratio)),
                ("load", format!("{} streams, {} batches of {} in flight on each", self.streams, self.window_batches, self.batch_items)),
                (
                    "messages",
                    format!("{} bytes out, {} bytes back", out::grouped(self.request_bytes as u64), out::grouped(self.answer_bytes as u64)),
                ),
                ("machine", format!("{}, {} cores", self.machine, self.cores)),
            ],
        )
    }
}

pub(in crate::bench) fn reasons(of: &BTreeMap<String, u64>) -> String {
    let each: Vec<String> = of.iter().map(|(reason, count)| format!("{} {reason}", out::grouped(*count))).collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}
