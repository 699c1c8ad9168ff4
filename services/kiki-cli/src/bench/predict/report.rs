//! The figures of one run: a table, or one JSON object with the units in its keys.

use std::time::Duration;

use serde::Serialize;

use super::counts::Counts;
use super::{Args, TURNS};
use crate::bench::drive::Measured;
use crate::bench::machine;
use crate::bench::service_time::ServiceTime;
use crate::bench::turns::{Turns, percentiles, rounded};
use crate::error::Failure;
use crate::out;

/// What SyncValue and the echo did in turn.
pub(super) struct Pair {
    value: Turns,
    echo: Turns,
}

impl Pair {
    pub(super) fn new() -> Result<Self, Failure> {
        Ok(Self { value: Turns::new()?, echo: Turns::new()? })
    }

    /// A turn of each: what it did, and the server's CPU time.
    pub(super) fn add(&mut self, value: (Measured, Duration), echo: (Measured, Duration)) -> Result<(), Failure> {
        self.value.add(value)?;
        self.echo.add(echo)
    }

    /// How many times the echo's CPU time an item takes.
    fn cpu_ratio(&self) -> f64 {
        self.value.cpu_ratio(&self.echo)
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// How many times the CPU time of a bare echo a call takes at the server.
    unary_cpu_ratio: f64,
    unary_cpu_s_per_million: f64,
    echo_unary_cpu_s_per_million: f64,
    unary_per_second: f64,
    echo_unary_per_second: f64,
    latency_us_p50: u64,
    latency_us_p99: u64,
    latency_us_p999: u64,
    echo_latency_us_p50: u64,
    echo_latency_us_p99: u64,
    echo_latency_us_p999: u64,
    /// The same at 5,000 calls a second, each counted from when it was due.
    unary_cpu_ratio_at_5000: f64,
    unary_per_second_at_5000: f64,
    latency_us_p50_at_5000: u64,
    latency_us_p99_at_5000: u64,
    latency_us_p999_at_5000: u64,
    echo_latency_us_p50_at_5000: u64,
    echo_latency_us_p99_at_5000: u64,
    echo_latency_us_p999_at_5000: u64,
    /// Inside the server, from the request's message to its answer's: at saturation, and at 5,000 a second.
    service_time_us_p50: f64,
    service_time_us_p99: f64,
    service_time_us_p999: f64,
    service_time_us_p50_at_5000: f64,
    service_time_us_p99_at_5000: f64,
    service_time_us_p999_at_5000: f64,
    /// Streams; an item is a prediction.
    stream_cpu_ratio: f64,
    stream_cpu_s_per_million: f64,
    echo_stream_cpu_s_per_million: f64,
    /// The same beside an echo that reads the questions from protobuf and writes as many predictions to it.
    stream_cpu_ratio_to_protobuf_echo: f64,
    protobuf_echo_stream_cpu_s_per_million: f64,
    stream_items_per_second: f64,
    echo_stream_items_per_second: f64,
    /// Predictions that the model made, of all; and those of them that it had made before.
    share_by_model: f64,
    share_from_cache: f64,
    turns: u32,
    connections: u16,
    in_flight: u16,
    batch_items: u16,
    window_batches: u16,
    customers: u32,
    request_bytes: usize,
    answer_bytes: usize,
    stream_request_bytes: usize,
    stream_answer_bytes: usize,
    cores: usize,
    machine: String,
}

impl Report {
    /// `bytes` are of a request and of an answer, each of a call and of a stream's message.
    pub(super) fn new(
        args: &Args,
        [[request_bytes, stream_request_bytes], [answer_bytes, stream_answer_bytes]]: [[usize; 2]; 2],
        [saturated, paced, streamed, streamed_protobuf]: [&Pair; 4],
        service_time: [&ServiceTime; 2],
        counted: &Counts,
    ) -> Self {
        let (machine, cores) = machine::describe();
        let [latency, echo_latency] = [&saturated.value, &saturated.echo].map(|side| percentiles(&side.sum.answer_us));
        let [at_pace, echo_at_pace] = [&paced.value, &paced.echo].map(|side| percentiles(&side.sum.answer_us));
        let [inside, inside_at_pace] = service_time.map(|time| [0.5, 0.99, 0.999].map(|share| rounded(time.quantile_us(share))));
        Self {
            unary_cpu_ratio: rounded(saturated.cpu_ratio()),
            unary_cpu_s_per_million: saturated.value.cpu(),
            echo_unary_cpu_s_per_million: saturated.echo.cpu(),
            unary_per_second: saturated.value.per_second(),
            echo_unary_per_second: saturated.echo.per_second(),
            latency_us_p50: latency[0],
            latency_us_p99: latency[1],
            latency_us_p999: latency[2],
            echo_latency_us_p50: echo_latency[0],
            echo_latency_us_p99: echo_latency[1],
            echo_latency_us_p999: echo_latency[2],
            unary_cpu_ratio_at_5000: rounded(paced.cpu_ratio()),
            unary_per_second_at_5000: paced.value.per_second(),
            latency_us_p50_at_5000: at_pace[0],
            latency_us_p99_at_5000: at_pace[1],
            latency_us_p999_at_5000: at_pace[2],
            echo_latency_us_p50_at_5000: echo_at_pace[0],
            echo_latency_us_p99_at_5000: echo_at_pace[1],
            echo_latency_us_p999_at_5000: echo_at_pace[2],
            service_time_us_p50: inside[0],
            service_time_us_p99: inside[1],
            service_time_us_p999: inside[2],
            service_time_us_p50_at_5000: inside_at_pace[0],
            service_time_us_p99_at_5000: inside_at_pace[1],
            service_time_us_p999_at_5000: inside_at_pace[2],
            stream_cpu_ratio: rounded(streamed.cpu_ratio()),
            stream_cpu_s_per_million: streamed.value.cpu(),
            echo_stream_cpu_s_per_million: streamed.echo.cpu(),
            stream_cpu_ratio_to_protobuf_echo: rounded(streamed_protobuf.cpu_ratio()),
            protobuf_echo_stream_cpu_s_per_million: streamed_protobuf.echo.cpu(),
            stream_items_per_second: streamed.value.per_second(),
            echo_stream_items_per_second: streamed.echo.per_second(),
            share_by_model: rounded(counted.share_by_model()),
            share_from_cache: rounded(counted.share_from_cache()),
            turns: TURNS,
            connections: args.connections,
            in_flight: args.in_flight,
            batch_items: args.batch,
            window_batches: args.window,
            customers: args.customers,
            request_bytes,
            answer_bytes,
            stream_request_bytes,
            stream_answer_bytes,
            cores,
            machine,
        }
    }

    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        out::figures(json, "kiki bench predict", self, &self.rows())
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let us = |p: [u64; 3]| p.map(|us| format!("{:>9} us", out::grouped(us))).join("");
        let inside = |p: [f64; 3]| p.map(|us| format!("{us:>9.1} us")).join("");
        let rate = |items: f64| format!("{}/s", out::grouped(items as u64));
        let cpu = |value: f64, echo: f64, ratio: f64| format!("{value:.2} s per million, echo {echo:.2} s: {ratio:.2} times");
        let protobuf = (self.protobuf_echo_stream_cpu_s_per_million, self.stream_cpu_ratio_to_protobuf_echo);
        let bytes = |n: usize| out::grouped(n as u64);
        vec![
            ("Predict", format!("{}, echo {}", rate(self.unary_per_second), rate(self.echo_unary_per_second))),
            ("  server's CPU", cpu(self.unary_cpu_s_per_million, self.echo_unary_cpu_s_per_million, self.unary_cpu_ratio)),
            ("  latency p50 p99 p99.9", us([self.latency_us_p50, self.latency_us_p99, self.latency_us_p999])),
            ("    echo", us([self.echo_latency_us_p50, self.echo_latency_us_p99, self.echo_latency_us_p999])),
            ("  inside the server", inside([self.service_time_us_p50, self.service_time_us_p99, self.service_time_us_p999])),
            ("at 5,000/s", format!("{}, CPU {:.2} times the echo's", rate(self.unary_per_second_at_5000), self.unary_cpu_ratio_at_5000)),
            ("  latency", us([self.latency_us_p50_at_5000, self.latency_us_p99_at_5000, self.latency_us_p999_at_5000])),
            ("    echo", us([self.echo_latency_us_p50_at_5000, self.echo_latency_us_p99_at_5000, self.echo_latency_us_p999_at_5000])),
            (
                "  inside the server",
                inside([self.service_time_us_p50_at_5000, self.service_time_us_p99_at_5000, self.service_time_us_p999_at_5000]),
            ),
            ("PredictStream", format!("{}, echo {}", rate(self.stream_items_per_second), rate(self.echo_stream_items_per_second))),
            ("  server's CPU", cpu(self.stream_cpu_s_per_million, self.echo_stream_cpu_s_per_million, self.stream_cpu_ratio)),
            ("  echo by protobuf", format!("{:.2} s: {:.2} times", protobuf.0, protobuf.1)),
            (
                "answers",
                format!("{:.1} % by the model, {:.1} % of them from its cache", self.share_by_model * 100.0, self.share_from_cache * 100.0),
            ),
            ("load", format!("{} connections, {} calls in flight on each", self.connections, self.in_flight)),
            ("  streams", format!("{} batches of {} in flight on each connection", self.window_batches, self.batch_items)),
            ("messages", format!("{} bytes out, {} bytes back", bytes(self.request_bytes), bytes(self.answer_bytes))),
            ("  streams", format!("{} bytes out, {} bytes back", bytes(self.stream_request_bytes), bytes(self.stream_answer_bytes))),
            ("machine", format!("{}, {} cores", self.machine, self.cores)),
        ]
    }
}
