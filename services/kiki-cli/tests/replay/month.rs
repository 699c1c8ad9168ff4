//! A month that nothing disturbs.

use std::path::Path;

use serde_json::Value;

use super::{Input, kiki, recompute, result, run, verify};

#[test]
fn a_month_ends_in_invoices_that_verify_and_that_a_stranger_recomputes() {
    let input = Input::new();
    let said = run(&mut input.replay("run", &["--rounds", "2"]));
    let dir = input.path("run");
    let result = result(&dir);
    assert_eq!(result["requests"], 600);
    for what in ["bids", "wins", "charges", "conversions"] {
        assert!(result[what].as_u64().unwrap() > 0, "no {what}: {said}");
    }
    assert_eq!(result["settled_nanos"], result["exchange_nanos"], "the log and the exchange differ");
    assert_eq!(result["wrong"], Value::Array(vec![]), "{said}");
    verify(&dir);
    recompute(&dir);
}

#[test]
fn one_seed_makes_the_same_decisions_and_bills_the_same_money() {
    let input = Input::new();
    let [one, two] = ["one", "two"].map(|name| {
        run(&mut input.replay(name, &[]));
        result(&input.path(name))
    });
    assert!(one["comparable"] == true && two["comparable"] == true, "a prediction came late: {one} {two}");
    for what in ["decision_sha256", "bids", "wins", "settled_nanos", "conversions", "invoices", "no_bids"] {
        assert_eq!(one[what], two[what], "{what} differs");
    }
    run(&mut input.replay("other", &["--seed", "2"]));
    assert_ne!(result(&input.path("other"))["decision_sha256"], one["decision_sha256"], "the seed has no effect");
}

#[test]
fn a_budget_that_is_used_up_stops_the_bidding_and_is_never_exceeded() {
    let input = Input::new();
    run(&mut input.replay("free", &[]));
    let spent = |name| -> i128 {
        let settled = result(&input.path(name))["settled_nanos"].clone();
        settled.as_object().unwrap().values().map(|nanos| nanos.as_str().unwrap().parse::<i128>().unwrap()).sum()
    };
    let free = spent("free");
    // Whole cents, so that the budget can be said exactly.
    let cents = free / 2 / 10_000_000;
    let budget = format!("{}.{:02}", cents / 100, cents % 100);
    run(&mut input.replay("tight", &["--budget", &budget]));
    let tight = result(&input.path("tight"));
    assert!(tight["no_bids"]["BUDGET"].as_u64().unwrap() > 0, "the budget was never used up: {tight}");
    assert!(spent("tight") <= cents * 10_000_000, "{} spent of {budget}", spent("tight"));
    assert!(spent("tight") > cents * 5_000_000, "half of {budget} was left");
    verify(&input.path("tight"));
    recompute(&input.path("tight"));
}

/// The real input of the acceptance list, where it is.
#[test]
fn real_purchases_and_requests_are_all_answered() {
    let Some(data) = std::env::var_os("KIKI_CONFORMANCE_DATA").map(|data| Path::new(&data).to_owned()).filter(|data| data.exists()) else {
        println!("real input: DID NOT RUN, KIKI_CONFORMANCE_DATA leads nowhere");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("run");
    let mut command = kiki(&["replay"]);
    command.arg("--events").arg(data.join("ltv/cdnow_daily.csv")).arg("--requests").arg(data.join("openrtb/requests.jsonl"));
    let said = run(command.arg("--data").arg(&dir));
    let result = result(&dir);
    let no_bids: u64 = result["no_bids"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(result["requests"], 1_828);
    assert_eq!(result["requests_with_bids"].as_u64().unwrap() + no_bids, 1_828, "{said}");
    assert_eq!(result["malformed_unexpected"], 0, "{said}");
    for what in ["bids", "wins", "conversions"] {
        assert!(result[what].as_u64().unwrap() > 0, "no {what}: {said}");
    }
    verify(&dir);
    recompute(&dir);
    println!("{said}");
}

/// What `kiki train` made of these purchases, `kiki replay` of them serves.
#[test]
fn a_model_that_was_trained_on_the_purchases_predicts_them() {
    let Some(data) = std::env::var_os("KIKI_CONFORMANCE_DATA").map(|data| Path::new(&data).to_owned()).filter(|data| data.exists()) else {
        println!("real input: DID NOT RUN, KIKI_CONFORMANCE_DATA leads nowhere");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let events = data.join("ltv/cdnow_daily.csv");
    run(kiki(&["train", "--steps", "20", "--currency", "USD"]).arg("--events").arg(&events).current_dir(folder.path()));
    let mut command = kiki(&["replay", "--data", "run"]);
    command.arg("--events").arg(&events).arg("--requests").arg(data.join("openrtb/requests.jsonl"));
    let said = run(command.current_dir(folder.path()));
    let result = result(&folder.path().join("run"));
    // Customers who are known are predicted by the model, and the others come by their campaign's prior.
    assert!(result["predictions_ok"].as_u64().unwrap() > 100, "{said}");
    assert_eq!(result["predictions_fallback"], 0, "{said}");
    assert_eq!(result["wrong"], Value::Array(vec![]), "{said}");
}
