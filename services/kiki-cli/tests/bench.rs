//! `kiki bench` from outside: short runs, for what they print and leave rather than for their figures.

#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;

use serde_json::Value;

fn bench(scratch: &std::path::Path, more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
    command.args(["bench", "bids", "--seconds", "0.5", "--streams", "2", "--batch", "16", "--customers", "200"]);
    let output = command.arg("--scratch").arg(scratch).args(more).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn bids_are_counted_once_durable_and_compared_with_an_echo() {
    let scratch = tempfile::tempdir().unwrap();
    let text = bench(scratch.path(), &["--json"]);
    let figures: Value = serde_json::from_str(&text).unwrap();
    assert!(figures.is_object() && text.lines().count() == 1, "not one object: {text}");
    let positive = [
        "items_per_second",
        "server_cpu_s_per_million",
        "echo_server_cpu_s_per_million",
        "cpu_ratio",
        "latency_us_p50",
        "latency_us_p99",
        "latency_us_p999",
        "durable_latency_us_p50",
        "bids",
        "cores",
    ];
    for key in positive {
        assert!(figures[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {text}");
    }
    assert!(figures["latency_us_p50"].as_u64() <= figures["durable_latency_us_p50"].as_u64(), "durable before it was answered: {text}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "its data was left behind");
}

#[test]
fn the_table_says_what_it_measured_and_on_what() {
    let scratch = tempfile::tempdir().unwrap();
    let text = bench(scratch.path(), &[]);
    for row in ["bids, durable", "servers' CPU", "bare echo", "CPU, bid : echo", "machine"] {
        assert!(text.contains(row), "no row {row:?}: {text}");
    }
}
