//! The figures of the product's own documents, recomputed exactly.
//!
//! Reads `$KIKI_CONFORMANCE_DATA/billing/golden_cases.json`, which is not part of the repository;
//! the same figures are also unit tests of `domain::fee`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::PathBuf;

use billing::domain::amount::Amount;
use billing::domain::fee::{Carry, FeeTerms, Fees, LineInput, LineStatus, Netting};
use billing::domain::fee::{fees, improvement_pct_2dp, roas_4dp, roi_pct_2dp};
use billing::domain::period::due_date;
use kiki::clock::UnixMicros;
use serde_json::Value;

/// Cases of this file: profit-share invoices and their dates. The rest are other products' plans.
fn ours(id: &str) -> bool {
    id.starts_with("oaas-") || id == "half-cent-up" || id.starts_with("due-net30")
}

#[test]
fn bills_the_golden_cases_exactly() {
    let Some(folder) = std::env::var_os("KIKI_CONFORMANCE_DATA") else {
        println!("golden cases did not run: KIKI_CONFORMANCE_DATA is not set");
        return;
    };
    let path = PathBuf::from(folder).join("billing/golden_cases.json");
    let Ok(bytes) = std::fs::read(&path) else {
        println!("golden cases did not run: {} is not there", path.display());
        return;
    };
    let file: Value = serde_json::from_slice(&bytes).unwrap();
    let mut seen = 0;
    for case in file["cases"].as_array().unwrap() {
        let id = case["id"].as_str().unwrap();
        if ours(id) {
            check(id, case);
            seen += 1;
        }
    }
    println!("{seen} golden cases checked");
    assert!(seen >= 10, "only {seen} golden cases were found");
}

fn check(id: &str, case: &Value) {
    match id {
        "oaas-4-lines" => four_lines(case),
        "oaas-zero-spend" => zero_spend(case),
        "half-cent-up" => half_cent(case),
        _ if id.starts_with("due-net30") => due(case),
        _ => one_line(id, case),
    }
}

/// A decimal of the file as an integer count of `10^-places`.
fn units(value: &Value, places: u32) -> i128 {
    let read = Amount::parse(value.as_str().unwrap()).unwrap();
    read.units() * 10_i128.pow(places - read.places())
}

fn bill(lines: &[(i128, i128)], case: &Value, baseline: &Value) -> Fees {
    let terms = FeeTerms {
        baseline_ppm: i64::try_from(units(baseline, 6)).unwrap(),
        share_ppm: i64::try_from(units(&case["share"], 6)).unwrap(),
        netting: Netting::Client,
        carry_shortfall: false,
        minor_places: 2,
    };
    let named = |(i, &(spend_nanos, ltv_nanos)): (usize, &(i128, i128))| LineInput { campaign: format!("c{i}"), spend_nanos, ltv_nanos };
    fees(&lines.iter().enumerate().map(named).collect::<Vec<_>>(), &terms, &Carry::default()).unwrap()
}

fn one_line(id: &str, case: &Value) {
    // The case of the rounded ratio names the spend alone: its LTV is that of `oaas-acme`.
    let acme = Value::from("131194.00");
    let ltv_text = if case["ltv"].is_null() { &acme } else { &case["ltv"] };
    let (spend, ltv) = (units(&case["spend"], 9), units(ltv_text, 9));
    let billed = bill(&[(spend, ltv)], case, &case["baseline"]);
    let baseline_ppm = i64::try_from(units(&case["baseline"], 6)).unwrap();
    let keeps = billed.margin_minor - billed.fee_minor;
    let figure = |key: &str| match key {
        "margin" => Some(billed.margin_minor),
        "fee" => Some(billed.fee_minor),
        "shortfall" => Some(billed.shortfall_minor),
        "client_keeps" => Some(keeps),
        "baseline_ltv" => Some((ltv - (billed.margin_minor - billed.shortfall_minor) * 10_000_000) / 10_000_000),
        "roas_4dp" | "weighted_roas_4dp" => roas_4dp(spend, ltv).unwrap(),
        "improvement_pct_2dp" | "improvement_pct" => improvement_pct_2dp(spend, ltv, baseline_ppm).unwrap(),
        "roi_pct" => roi_pct_2dp(billed.margin_minor, billed.fee_minor).unwrap(),
        "additional_revenue_text_formula" => Some(billed.margin_minor),
        other => panic!("{id}: figure {other} is not known here"),
    };
    for (key, want) in case["out"].as_object().into_iter().flatten() {
        let want = want.as_str().map(|_| units(want, if key.contains("roas") { 4 } else { 2 }));
        assert_eq!(figure(key), want, "{id}: {key}");
    }
    for (key, never) in case["out_must_not"].as_object().into_iter().flatten() {
        assert_ne!(figure(key), Some(units(never, 2)), "{id}: {key}");
    }
}

fn four_lines(case: &Value) {
    // Margins without spend would be held; with a baseline of 0 any spend leaves LTV as the margin.
    let margins = case["margins"].as_array().unwrap();
    let lines: Vec<_> = margins.iter().map(|m| (1, units(m, 9))).collect();
    let billed = bill(&lines, case, &Value::from("0"));
    let out = &case["out"];
    let want: Vec<_> = out["fees"].as_array().unwrap().iter().map(|f| units(f, 2)).collect();
    assert_eq!(billed.lines.iter().map(|l| l.fee_minor).collect::<Vec<_>>(), want);
    assert_eq!(billed.margin_minor, units(&out["total_margin"], 2));
    assert_eq!(billed.fee_minor, units(&out["total_fee"], 2));
    assert_eq!(billed.margin_minor - billed.fee_minor, units(&out["client_keeps"], 2));
}

fn zero_spend(case: &Value) {
    let billed = bill(&[(units(&case["spend"], 9), units(&case["ltv"], 9))], case, &case["baseline"]);
    assert!(case["out"]["error"].as_str().unwrap().contains("hold line for review"));
    assert_eq!(billed.lines[0].status, LineStatus::HeldForReview);
    assert_eq!((billed.lines[0].margin_minor, billed.fee_minor), (50_000, 0));
}

fn half_cent(case: &Value) {
    let billed = bill(&[(1, units(&case["margin"], 9))], case, &Value::from("0"));
    assert_eq!(billed.fee_minor, units(&case["out"]["fee"], 2));
    assert_ne!(billed.fee_minor, units(&case["out_must_not"]["half_even"], 2));
}

fn due(case: &Value) {
    let issued: jiff::civil::Date = case["issued"].as_str().unwrap().parse().unwrap();
    let noon = issued.at(12, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC).unwrap();
    let got = due_date(UnixMicros(noon.timestamp().as_microsecond()), "UTC", 30).unwrap();
    assert_eq!(got, case["out"]["due"].as_str().unwrap());
}
