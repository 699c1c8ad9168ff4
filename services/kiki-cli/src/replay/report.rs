//! What came of a run: the checks on what it left, `result.json`, and the table at the end.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sha2::Digest as _;

use super::Played;
use super::clients::CLIENTS;
use super::plan::Plan;
use crate::error::{Doing as _, Failure};
use crate::invoice::{key, month_table, verify_bundle};
use crate::out;

/// What the checks found.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// What is off, each a line.
    pub(super) wrong: Vec<String>,
    /// Leaves that the audit went through, and how many of them are signed.
    audited: (u64, u64),
    bundles: usize,
}

/// Checks what the run left, on files alone, and that everybody's money agrees.
pub(super) fn verify(plan: &Plan, played: &Played) -> Checks {
    let mut checks = Checks::default();
    let tally = &played.tally;
    match audited(plan, played) {
        Ok((leaves, signed, settled)) => {
            checks.audited = (leaves, signed);
            if settled != tally.charged {
                checks.wrong.push(format!("spend: the log says {settled:?} and the exchange {:?}", tally.charged));
            }
            if signed < leaves {
                checks.wrong.push(format!("log: {signed} of {leaves} leaves are signed"));
            }
        }
        Err(finding) => checks.wrong.push(format!("log: {finding}")),
    }
    let given = played.signed.as_ref().map(|(key, _)| key.to_string());
    for invoice in &played.invoices {
        let path = plan.dir.join("invoices").join(format!("{}.bundle", invoice.invoice_id));
        match verify_bundle(&path, given.as_deref(), None) {
            Ok(_) => checks.bundles += 1,
            Err(findings) => checks.wrong.extend(findings.iter().map(|finding| format!("{}: {finding}", invoice.invoice_id))),
        }
    }
    if tally.answered != plan.requests_total() {
        checks.wrong.push(format!("{} of {} requests were answered", tally.answered, plan.requests_total()));
    }
    if played.account.settlements != tally.charges {
        checks.wrong.push(format!("the exchange charged {} impressions and the log settled {}", tally.charges, played.account.settlements));
    }
    if played.account.outcomes != tally.purchases {
        checks.wrong.push(format!("{} purchases were reported and the log has {}", tally.purchases, played.account.outcomes));
    }
    if let Some(refused) = tally.statuses.iter().find(|(status, _)| status.eq_ignore_ascii_case("refused")) {
        checks.wrong.push(format!("{} notices were refused", refused.1));
    }
    for malformed in &tally.unexpected_400 {
        checks.wrong.push(format!("request refused as malformed: {malformed}"));
    }
    for (campaign, limit, spent) in budgets(plan, played) {
        if spent > limit {
            checks.wrong.push(format!("{campaign} spent {spent} nanos of {limit}"));
        }
    }
    checks
}

/// Leaves, how many of them are signed, and charged nanos by "client/campaign": from the log's files, or, where those are elsewhere, from
/// what Tail gave.
fn audited(plan: &Plan, played: &Played) -> Result<(u64, u64, BTreeMap<String, i128>), String> {
    if let Some((_, signed)) = &played.signed {
        return Ok((played.account.leaves, signed.clone()?, played.account.settled.clone()));
    }
    let key = key(None, &[&plan.dir]).map_err(|e| e.to_string())?;
    let report = syncshield::audit::verify(&plan.dir, &key).map_err(|e| e.to_string())?;
    let settled = report.settled.iter().map(|((client, campaign, _), nanos)| (format!("{client}/{campaign}"), *nanos));
    Ok((report.leaves, report.signed, settled.collect()))
}

/// Each campaign with its limit and what was charged, nanos.
fn budgets(plan: &Plan, played: &Played) -> Vec<(String, i128, i128)> {
    let lines = CLIENTS.iter().flat_map(|client| client.campaigns.iter().map(move |line| (format!("{}/{}", client.id, line.id), line)));
    lines
        .map(|(name, line)| {
            let spent = played.tally.charged.get(&name).copied().unwrap_or(0);
            (name, i128::from(line.limit_micros(plan.settings.budget_micros)) * 1_000, spent)
        })
        .collect()
}

/// Writes `result.json`.
pub(super) fn write(plan: &Plan, played: &Played, checks: &Checks) -> Result<(), Failure> {
    let tally = &played.tally;
    let nanos = |sums: &BTreeMap<String, i128>| {
        sums.iter().map(|(name, sum)| (name.clone(), Value::String(sum.to_string()))).collect::<serde_json::Map<_, _>>()
    };
    let invoices: Vec<Value> = played
        .invoices
        .iter()
        .map(|invoice| json!({ "number": invoice.invoice_id, "client": invoice.client, "currency": invoice.currency, "total": invoice.total_invoice_amount.to_string() }))
        .collect();
    let result = json!({
        "comparable": comparable(played),
        "resumed": tally.resumed > 0,
        "late_predictions": played.counters.late,
        "seed": plan.settings.seed,
        "month": plan.settings.month,
        "budget_micros": plan.settings.budget_micros,
        "requests": tally.answered,
        "requests_with_bids": tally.with_bids,
        "bids": tally.bids,
        "wins": tally.wins,
        "no_bids": tally.no_bids,
        "malformed_expected": tally.expected_400,
        "malformed_unexpected": tally.unexpected_400.len(),
        "decision_sha256": hex::encode(tally.digest.clone().finalize()),
        "settled_nanos": nanos(&played.account.settled),
        "exchange_nanos": nanos(&tally.charged),
        "charges": tally.charges,
        "notices": tally.statuses,
        "purchases": tally.purchases,
        "conversions": played.account.conversions,
        "predicted_ltv_micros": played.account.predicted_ltv_micros.to_string(),
        "predictions_fallback": played.account.fallback,
        "predictions_median": played.account.median,
        "predictions_ok": played.account.by_model(),
        "predictions_prior": played.account.prior,
        "breaker_changes": played.counters.breaker_changes,
        "leaves": played.account.leaves,
        "invoices": invoices,
        "bids_per_second": per_second(played),
        "latency_us_p50": tally.latency.value_at_quantile(0.5),
        "latency_us_p99": tally.latency.value_at_quantile(0.99),
        "latency_us_p999": tally.latency.value_at_quantile(0.999),
        "seconds": played.seconds,
        "wrong": checks.wrong,
    });
    let bytes = serde_json::to_vec_pretty(&result).doing("writing result.json")?;
    std::fs::write(plan.dir.join("result.json"), bytes).doing("writing result.json")
}

/// Whether another run of the same seed and input must decide the same: nothing depended on how fast the machine was. A median stands for a
/// prediction that did not come, be it late or because SyncValue did not get at a customer's state in time.
fn comparable(played: &Played) -> bool {
    let passing = ["DEADLINE", "NOT_READY"].iter().any(|reason| played.tally.no_bids.contains_key(*reason));
    played.counters.late == 0 && played.account.median == 0 && played.tally.resumed == 0 && !passing
}

/// Requests answered in a second of waiting for answers, by this process.
fn per_second(played: &Played) -> u64 {
    let tally = &played.tally;
    (u128::from(tally.latency.len()) * 1_000_000 / u128::from(tally.bidding_micros.max(1))) as u64
}

/// The table at the end.
pub(super) fn text(plan: &Plan, played: &Played, checks: &Checks) -> String {
    let (tally, account, settings) = (&played.tally, &played.account, &plan.settings);
    let currency = settings.currency.as_str();
    let quantile = |at: f64| tally.latency.value_at_quantile(at) as f64 / 1_000.0;
    let share = |part: u64, whole: u64| if whole == 0 { "-".to_owned() } else { format!("{:.1} %", part as f64 * 100.0 / whole as f64) };
    let no_bids = tally.no_bids.iter().map(|(reason, count)| format!("{reason} {}", out::grouped(*count))).collect::<Vec<_>>().join(", ");
    let notices = tally
        .statuses
        .iter()
        .map(|(status, count)| format!("{} {}", out::grouped(*count), status.to_lowercase()))
        .collect::<Vec<_>>()
        .join(", ");
    let (requests, latency) = match tally.latency.len() {
        0 => (format!("{}, all before the resumption", out::grouped(tally.answered)), "-".to_owned()),
        _ => (
            format!("{} at {} a second, one after the other", out::grouped(tally.answered), out::grouped(per_second(played))),
            format!("p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms", quantile(0.5), quantile(0.99), quantile(0.999)),
        ),
    };
    let mut rows = vec![
        ("requests", requests),
        ("latency", latency),
        ("bids", format!("{} on {} requests", out::grouped(tally.bids), out::grouped(tally.with_bids))),
        ("no bid", no_bids),
        (
            "wins",
            format!("{} ({} of bids), {} charged", out::grouped(tally.wins), share(tally.wins, tally.bids), out::grouped(tally.charges)),
        ),
        ("notices", notices),
    ];
    if !tally.unexpected_400.is_empty() || tally.expected_400 > 0 {
        rows.push(("malformed", format!("{} as the input says, {} unexpected", tally.expected_400, tally.unexpected_400.len())));
    }
    let budgets = budgets(plan, played);
    for (campaign, limit, spent) in &budgets {
        let share = if *limit == 0 { 0.0 } else { *spent as f64 * 100.0 / *limit as f64 };
        rows.push((
            "spend",
            format!("{:>18} of {:>18}  {share:>5.1} %  {campaign}", out::amount(*spent, currency), out::amount(*limit, currency)),
        ));
    }
    let median = match account.median {
        0 => String::new(), // as long as every prediction comes in time
        some => format!("{} recent median, ", share(some, account.bids)),
    };
    rows.extend([
        ("customers acquired", format!("{} of {} purchases", out::grouped(account.conversions), out::grouped(account.outcomes))),
        ("predicted LTV", out::amount(account.predicted_ltv_micros * 1_000, currency)),
        (
            "predictions",
            format!(
                "{} by the model, {} fallback estimate, {median}{} campaign prior, {} late",
                share(account.by_model(), account.bids),
                share(account.fallback, account.bids),
                share(account.prior, account.bids),
                played.counters.late
            ),
        ),
        ("breaker changes", played.counters.breaker_changes.to_string()),
        ("log", format!("{} leaves, {} signed", out::grouped(checks.audited.0), out::grouped(checks.audited.1))),
        ("verified", verdict(checks)),
        ("comparable", if comparable(played) { "yes: the same seed gives the same run".to_owned() } else { "not comparable".to_owned() }),
        ("took", format!("{:.1} s", played.seconds)),
        ("files", plan.dir.display().to_string()),
    ]);
    let heading = format!("replay of {}, seed {}", settings.month, settings.seed);
    format!("{}\n\n{}", out::table(&heading, &rows), month_table(&played.summary))
}

fn verdict(checks: &Checks) -> String {
    match checks.wrong.len() {
        0 => format!("log, {} invoices, spend to the nano", checks.bundles),
        wrong => format!("{wrong} things are off"),
    }
}
