//! The figures of one run: a table, or one JSON object with the units in its keys and a list by size behind each.

use serde::Serialize;

use crate::bench::machine;
use crate::error::Failure;
use crate::out;

#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    /// Records that Billing keeps, of the log that is followed.
    pub(super) fold_records: Vec<u64>,
    /// Into SQLite, from Billing's first word to SyncShield on.
    pub(super) fold_records_per_second: Vec<f64>,
    pub(super) fold_records_per_second_postgres: Vec<f64>,
    /// Ten a client.
    pub(super) close_campaigns: Vec<u64>,
    /// From the month's closing to the last invoice's leaf in the log, on SQLite.
    pub(super) close_campaigns_per_second: Vec<f64>,
    pub(super) verify_leaves: Vec<u64>,
    pub(super) verify_leaves_per_second: Vec<f64>,
    pub(super) bundle_bytes: Vec<usize>,
    /// Made, checked and handed out by Billing.
    pub(super) bundle_seconds: Vec<f64>,
    cores: usize,
    machine: String,
}

impl Report {
    pub(super) fn print(mut self, json: bool) -> Result<(), Failure> {
        (self.machine, self.cores) = machine::describe();
        out::figures(json, "kiki bench billing", &self, &self.rows())
    }

    fn rows(&self) -> Vec<(&'static str, String)> {
        let counts = |counts: &[u64]| counts.iter().map(|count| format!("{:>12}", out::grouped(*count))).collect::<String>();
        let rates = |rates: &[f64]| rates.iter().map(|rate| format!("{:>10}/s", out::grouped(*rate as u64))).collect::<String>();
        let seconds = |seconds: &[f64]| seconds.iter().map(|seconds| format!("{seconds:>10.2} s")).collect::<String>();
        let megabytes = |bytes: &[usize]| bytes.iter().map(|bytes| format!("{:>9.1} MB", *bytes as f64 / 1e6)).collect::<String>();
        vec![
            ("records folded", counts(&self.fold_records)),
            ("  into SQLite", rates(&self.fold_records_per_second)),
            ("  into PostgreSQL", rates(&self.fold_records_per_second_postgres)),
            ("campaigns closed", counts(&self.close_campaigns)),
            ("  to the last invoice", rates(&self.close_campaigns_per_second)),
            ("leaves of a bundle", counts(&self.verify_leaves)),
            ("  its size", megabytes(&self.bundle_bytes)),
            ("  made and checked in", seconds(&self.bundle_seconds)),
            ("  verified offline", rates(&self.verify_leaves_per_second)),
            ("machine", format!("{} cores, {}", self.cores, self.machine)),
        ]
    }
}
