//! The figures of one run: a table, or one JSON object with the units in its keys.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Args, Subject, TURNS};
use crate::bench::bids::NoBids;
use crate::bench::bids::report::reasons;
use crate::bench::machine;
use crate::bench::turns::{Turns, percentiles, rounded};
use crate::error::Failure;
use crate::exchange::Format;
use crate::out;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Requests over HTTP that were answered, a second; and the CPU time of all services for a million of them.
    items_per_second: f64,
    server_cpu_s_per_million: f64,
    latency_us_p50: u64,
    latency_us_p99: u64,
    latency_us_p999: u64,
    bids: u64,
    no_bids: u64,
    no_bids_by_reason: BTreeMap<String, u64>,
    /// The same of unary Bid over gRPC, and of hyper that answers 204.
    unary_items_per_second: f64,
    unary_server_cpu_s_per_million: f64,
    unary_latency_us_p50: u64,
    unary_latency_us_p99: u64,
    unary_latency_us_p999: u64,
    no_content_items_per_second: f64,
    no_content_server_cpu_s_per_million: f64,
    echo_items_per_second: f64,
    echo_server_cpu_s_per_million: f64,
    /// How many times the CPU time of a bare unary echo, and of hyper with 204, a request over HTTP takes; and a Bid, of the echo's.
    cpu_ratio: f64,
    cpu_ratio_to_no_content: f64,
    unary_cpu_ratio: f64,
    /// Requests of the file, where one was given.
    #[serde(flatten)]
    file: Option<File>,
    turns: u32,
    callers: u16,
    customers: u32,
    format: &'static str,
    request_bytes: usize,
    unary_request_bytes: usize,
    unary_answer_bytes: usize,
    cores: usize,
    machine: String,
}

#[derive(Debug, Serialize)]
struct File {
    file_items_per_second: f64,
    file_server_cpu_s_per_million: f64,
    file_cpu_ratio_to_no_content: f64,
    file_bids: u64,
    file_no_bids: u64,
}

impl Report {
    /// `bytes` are of a request over HTTP, and of a request and an answer of Bid.
    pub(super) fn new(
        args: &Args,
        [request_bytes, unary_request_bytes, unary_answer_bytes]: [usize; 3],
        subjects: &[Subject],
    ) -> Result<Self, Failure> {
        let named = |name: &str| subjects.iter().find(|subject| subject.name == name);
        let of = |name: &str| named(name).ok_or_else(|| Failure::new(format!("{name} was not measured")));
        let (http, no_content, bid, echo) = (&of("openrtb")?.turns, &of("no_content")?.turns, &of("bid")?.turns, &of("echo")?.turns);
        let (machine, cores) = machine::describe();
        let [latency, unary_latency] = [http, bid].map(|turns| percentiles(&turns.sum.answer_us));
        Ok(Self {
            items_per_second: http.per_second(),
            server_cpu_s_per_million: http.cpu(),
            latency_us_p50: latency[0],
            latency_us_p99: latency[1],
            latency_us_p999: latency[2],
            bids: http.sum.items,
            no_bids: http.sum.others,
            no_bids_by_reason: of("openrtb")?.no_bids().map(NoBids::by_reason).unwrap_or_default(),
            unary_items_per_second: bid.per_second(),
            unary_server_cpu_s_per_million: bid.cpu(),
            unary_latency_us_p50: unary_latency[0],
            unary_latency_us_p99: unary_latency[1],
            unary_latency_us_p999: unary_latency[2],
            no_content_items_per_second: no_content.per_second(),
            no_content_server_cpu_s_per_million: no_content.cpu(),
            echo_items_per_second: echo.per_second(),
            echo_server_cpu_s_per_million: echo.cpu(),
            cpu_ratio: rounded(http.cpu_ratio(echo)),
            cpu_ratio_to_no_content: rounded(http.cpu_ratio(no_content)),
            unary_cpu_ratio: rounded(bid.cpu_ratio(echo)),
            file: named("file").map(|file| File::new(&file.turns, no_content)),
            turns: TURNS,
            callers: args.callers,
            customers: args.customers,
            format: if args.format == Format::Json { "json" } else { "protobuf" },
            request_bytes,
            unary_request_bytes,
            unary_answer_bytes,
            cores,
            machine,
        })
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        out::figures(json, "kiki bench openrtb", self, &self.rows())?;
        if self.bids == 0 { Err(Failure::new("no bid was made")) } else { Ok(()) }
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let us = |p: [u64; 3]| p.map(|us| format!("{:>9} us", out::grouped(us))).join("");
        let line = |rate: f64, cpu: f64| format!("{:>9}/s  {cpu:>7.2} s of CPU per million", out::grouped(rate as u64));
        let mut rows = vec![
            ("OpenRTB over HTTP", line(self.items_per_second, self.server_cpu_s_per_million)),
            ("  no-bids", reasons(&self.no_bids_by_reason)),
            ("  latency p50 p99 p99.9", us([self.latency_us_p50, self.latency_us_p99, self.latency_us_p999])),
            ("hyper, 204", line(self.no_content_items_per_second, self.no_content_server_cpu_s_per_million)),
            ("Bid over gRPC", line(self.unary_items_per_second, self.unary_server_cpu_s_per_million)),
            ("  latency p50 p99 p99.9", us([self.unary_latency_us_p50, self.unary_latency_us_p99, self.unary_latency_us_p999])),
            ("bare unary echo", line(self.echo_items_per_second, self.echo_server_cpu_s_per_million)),
            ("CPU, OpenRTB : 204", format!("{:.2}, to the echo {:.2}", self.cpu_ratio_to_no_content, self.cpu_ratio)),
            ("CPU, Bid : echo", format!("{:.2}", self.unary_cpu_ratio)),
        ];
        if let Some(file) = &self.file {
            rows.push(("the file's requests", line(file.file_items_per_second, file.file_server_cpu_s_per_million)));
            let (bids, no_bids) = (out::grouped(file.file_bids), out::grouped(file.file_no_bids));
            rows.push((
                "  of them",
                format!("{bids} bids, {no_bids} no-bids, CPU {:.2} times that of 204", file.file_cpu_ratio_to_no_content),
            ));
        }
        rows.extend([
            ("load", format!("{} callers, {} turns of each", self.callers, self.turns)),
            ("requests", format!("{} bytes of {}", out::grouped(self.request_bytes as u64), self.format)),
            ("machine", format!("{}, {} cores", self.machine, self.cores)),
        ]);
        rows
    }
}

impl File {
    fn new(file: &Turns, no_content: &Turns) -> Self {
        Self {
            file_items_per_second: file.per_second(),
            file_server_cpu_s_per_million: file.cpu(),
            file_cpu_ratio_to_no_content: rounded(file.cpu_ratio(no_content)),
            file_bids: file.sum.items,
            file_no_bids: file.sum.others,
        }
    }
}
