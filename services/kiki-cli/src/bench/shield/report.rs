//! The figures of one run: a table, or one JSON object with the units in its keys.

use serde::Serialize;

use crate::bench::machine;
use crate::error::Failure;
use crate::out;

#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Records acknowledged as durable.
    pub(super) append_records_per_second: f64,
    pub(super) append_latency_us_p50: u64,
    pub(super) append_latency_us_p99: u64,
    /// The mean size of a record.
    pub(super) record_bytes: usize,
    /// Records of 200 bytes hashed into the tree, written and synced by one thread.
    pub(super) raw_records_per_second: f64,
    pub(super) append_ratio_to_raw: f64,
    pub(super) check_ns_10_rules: f64,
    pub(super) check_ns_250_rules: f64,
    pub(super) check_ns_1000_rules: f64,
    /// A durable lease over gRPC, one at a time.
    pub(super) lease_us_p50: u64,
    pub(super) lease_us_p99: u64,
    pub(super) reserve_settle_per_second_file: f64,
    pub(super) reserve_settle_per_second_postgres: f64,
    pub(super) proof_us: f64,
    pub(super) verify_us: f64,
    pub(super) tail_records_per_second: f64,
    cores: usize,
    machine: String,
}

impl Report {
    pub(super) fn print(mut self, json: bool) -> Result<(), Failure> {
        (self.machine, self.cores) = machine::describe();
        out::figures(json, "kiki bench shield", &self, &self.rows())
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let rate = |records: f64| format!("{}/s", out::grouped(records as u64));
        vec![
            ("append, durable", format!("{} of {} bytes", rate(self.append_records_per_second), self.record_bytes)),
            ("  until durable p50 p99", format!("{} us, {} us", self.append_latency_us_p50, self.append_latency_us_p99)),
            ("  raw hash, write, sync", rate(self.raw_records_per_second)),
            ("  append to raw", format!("{:.2}", self.append_ratio_to_raw)),
            ("check of 10 rules", format!("{:.0} ns", self.check_ns_10_rules)),
            ("  of 250", format!("{:.0} ns", self.check_ns_250_rules)),
            ("  of 1,000", format!("{:.0} ns", self.check_ns_1000_rules)),
            ("lease over gRPC p50 p99", format!("{} us, {} us", self.lease_us_p50, self.lease_us_p99)),
            ("reserve + settle, files", rate(self.reserve_settle_per_second_file)),
            ("  PostgreSQL", rate(self.reserve_settle_per_second_postgres)),
            ("proof, made", format!("{:.1} us", self.proof_us)),
            ("  verified", format!("{:.1} us", self.verify_us)),
            ("Tail over gRPC", rate(self.tail_records_per_second)),
            ("machine", format!("{} cores, {}", self.cores, self.machine)),
        ]
    }
}
