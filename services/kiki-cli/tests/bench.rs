//! `kiki bench` from outside: short runs, for what they print and leave rather than for their figures.

#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../src/bench/postgres.rs"]
mod postgres;

use std::process::Command;

use serde_json::Value;

fn bench(scratch: &std::path::Path, more: &[&str]) -> String {
    let bids = ["bids", "--seconds", "0.5", "--streams", "2", "--batch", "16", "--customers", "200"];
    run(scratch, &[&bids, more].concat())
}

fn run(scratch: &std::path::Path, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_kiki")).arg("bench").args(args).arg("--scratch").arg(scratch).output().unwrap();
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
fn bids_on_some_cores_while_customers_buy() {
    let scratch = tempfile::tempdir().unwrap();
    let text = bench(scratch.path(), &["--json", "--cores", "1,2", "--events-per-second", "400"]);
    let runs: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(runs.iter().map(|run| run["cores"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)], "{text}");
    for run in &runs {
        assert!(run["bids"].as_u64() > Some(0) && run["events_per_second"].as_f64() > Some(0.0), "{text}");
    }
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "their data was left behind");
}

#[test]
fn the_table_says_what_it_measured_and_on_what() {
    let scratch = tempfile::tempdir().unwrap();
    let text = bench(scratch.path(), &[]);
    for row in ["bids, durable", "servers' CPU", "bare echo", "CPU, bid : echo", "machine"] {
        assert!(text.contains(row), "no row {row:?}: {text}");
    }
}

#[test]
fn predictions_are_compared_with_echoes_in_turn() {
    let scratch = tempfile::tempdir().unwrap();
    let text =
        run(scratch.path(), &["predict", "--seconds", "1", "--customers", "500", "--connections", "2", "--in-flight", "8", "--json"]);
    let figures: Value = serde_json::from_str(&text).unwrap();
    let positive = [
        "unary_cpu_ratio",
        "stream_cpu_ratio",
        "stream_cpu_ratio_to_protobuf_echo",
        "unary_per_second",
        "unary_per_second_at_5000",
        "service_time_us_p50",
        "service_time_us_p999",
        "service_time_us_p999_at_5000",
        "latency_us_p99",
        "latency_us_p99_at_5000",
        "echo_latency_us_p99_at_5000",
        "stream_items_per_second",
        "request_bytes",
        "answer_bytes",
    ];
    for key in positive {
        assert!(figures[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {text}");
    }
    // Neither a call nor a message of a stream is shorter than what one question and its answer hold.
    let bytes = |key: &str| figures[key].as_u64().unwrap();
    assert!(bytes("stream_answer_bytes") > 60 * bytes("answer_bytes") && bytes("stream_request_bytes") > 60 * 30, "{text}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "its data was left behind");
}

#[test]
fn openrtb_is_compared_with_204_and_an_echo_and_a_file_is_measured_too() {
    let scratch = tempfile::tempdir().unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"request":{"id":"r","imp":[{"id":"1","banner":{"w":1,"h":1}}]}}"#).unwrap();
    let file = file.path().display().to_string();
    let args = ["openrtb", "--seconds", "1", "--customers", "200", "--callers", "8", "--requests", &file, "--json"];
    let text = run(scratch.path(), &args);
    let figures: Value = serde_json::from_str(&text).unwrap();
    let positive = [
        "items_per_second",
        "latency_us_p999",
        "bids",
        "unary_items_per_second",
        "unary_latency_us_p50",
        "no_content_items_per_second",
        "echo_items_per_second",
        "cpu_ratio",
        "cpu_ratio_to_no_content",
        "unary_cpu_ratio",
        "file_items_per_second",
        "file_no_bids",
        "request_bytes",
        "unary_answer_bytes",
    ];
    for key in positive {
        assert!(figures[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {text}");
    }
    // Every generated request can be bid on, where the machine keeps up, and the file's one cannot.
    assert_eq!(
        (figures["no_bids"].as_u64(), figures["file_bids"].as_u64()),
        (figures["no_bids_by_reason"]["OVERLOADED"].as_u64().or(Some(0)), Some(0)),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "its data was left behind");
}

#[test]
fn deadlines_are_tried_at_half_and_three_times_of_what_is_said_to_saturate() {
    let scratch = tempfile::tempdir().unwrap();
    let args = ["deadlines", "--runs", "1", "--seconds", "1", "--customers", "50", "--exchange-cores", "0-3", "--tmax", "1000"];
    let text = run(scratch.path(), &[&args[..], &["--saturation", "200", "--half-saturation", "300", "--json"]].concat());
    let figures: Value = serde_json::from_str(&text).unwrap();
    for key in ["half_in_time_share", "half_latency_us_p999", "triple_admitted_in_time_share", "triple_admitted_share"] {
        assert!(figures[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {text}");
    }
    assert_eq!(["saturation_per_second", "half_saturation_per_second"].map(|key| figures[key].as_f64()), [Some(200.0), Some(300.0)]);
    assert_eq!(figures["server_cores"], "0");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "its data was left behind");
}

#[test]
fn an_overload_is_measured_between_two_calms_and_beside_a_server_that_does_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let args = ["overload", "--runs", "1", "--seconds", "2", "--customers", "50", "--exchange-cores", "0-3", "--capacity", "200"];
    let text = run(scratch.path(), &[&args[..], &["--tmax", "1000", "--json"]].concat());
    let figures: Value = serde_json::from_str(&text).unwrap();
    let positive = [
        "unloaded_latency_us_p50",
        "unloaded_latency_us_p99",
        "admitted_latency_us_p99",
        "admitted_to_unloaded_p99",
        "recovery_latency_us_p99",
        "bare_unloaded_latency_us_p99",
        "bare_overload_latency_us_p99",
        "memory_before_mib",
    ];
    for key in positive {
        assert!(figures[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {text}");
    }
    for key in ["refusal_latency_us_p99", "memory_growth_mib"] {
        assert!(figures[key].as_f64().is_some_and(|figure| figure >= 0.0), "{key}: {text}");
    }
    let shares = ["admitted_share", "refused_share", "failed_share", "not_sent_share"].map(|key| figures[key].as_f64().unwrap());
    assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-5 && shares[0] > 0.0, "each request goes one of four ways: {text}");
    // Three times 200 a second for two seconds, give or take what arrivals at random do: six standard deviations.
    let admitted = figures["admitted_per_second"].as_f64().unwrap() / shares[0];
    assert!((admitted - 600.0).abs() < 104.0, "the rate was not kept: {text}");
    assert_eq!((figures["capacity_per_second"].as_f64(), figures["server_cores"].as_str()), (Some(200.0), Some("0")));
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "its data was left behind");
}

#[test]
fn shield_measures_log_policy_leases_and_both_stores() {
    let scratch = tempfile::tempdir().unwrap();
    let server = postgres::Postgres::start_or_install();
    let text = run(scratch.path(), &["shield", "--seconds", "0.3", "--json", "--postgres", &server.url()]);
    let figures: Value = serde_json::from_str(&text).unwrap();
    let positive = [
        "append_records_per_second",
        "append_ratio_to_raw",
        "check_ns_10_rules",
        "check_ns_250_rules",
        "check_ns_1000_rules",
        "lease_us_p50",
        "reserve_settle_per_second_file",
        "reserve_settle_per_second_postgres",
        "proof_us",
        "verify_us",
        "tail_records_per_second",
    ];
    for key in positive {
        assert!(figures[key].as_f64().is_some_and(|figure| figure > 0.0), "{key}: {text}");
    }
    assert!((190..=210).contains(&figures["record_bytes"].as_u64().unwrap()), "{text}");
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0, "its data was left behind");
}
