//! The books at the end: a table, or one JSON object with the units in its keys.

use serde_json::{Value, json};

use super::Args;
use super::tally::{Money, Sum, Tally};
use crate::error::{Doing as _, Failure};
use crate::out;

/// Google sends fewer requests to a bidder while more than 15 % of its answers are invalid or late
/// (developers.google.com/authorized-buyers/rtb/callout-quota-system, "Error throttling").
const THROTTLED_BELOW: f64 = 0.85;
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.99, 0.999];

pub(super) fn print(args: &Args, tally: &Tally) -> Result<(), Failure> {
    out::figures(args.json, &format!("exchange at {}", args.url), &object(args, tally)?, &rows(args, tally))
}

fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn rounded(value: f64, places: i32) -> f64 {
    let unit = 10_f64.powi(places);
    (value * unit).round() / unit
}

fn per_second(tally: &Tally) -> f64 {
    tally.sent as f64 / tally.elapsed.as_secs_f64().max(1e-9)
}

fn object(args: &Args, tally: &Tally) -> Result<Value, Failure> {
    let [p50, p90, p99, p999] = QUANTILES.map(|quantile| tally.latency.value_at_quantile(quantile));
    let money = serde_json::to_value(&tally.money).doing("writing the books")?;
    Ok(json!({
        "requests": tally.sent,
        "not_sent": tally.not_sent,
        "requests_per_second": rounded(per_second(tally), 3),
        "elapsed_s": rounded(tally.elapsed.as_secs_f64(), 3),
        "tmax_ms": args.tmax,
        "in_time": tally.in_time,
        "late": tally.late,
        "good": tally.good,
        "in_time_share": rounded(share(tally.in_time, tally.sent), 6),
        "latency_us_p50": p50,
        "latency_us_p90": p90,
        "latency_us_p99": p99,
        "latency_us_p999": p999,
        "errors_by_status": tally.errors,
        "invalid_by_fault": tally.invalid,
        "with_bids": tally.with_bids,
        "no_bids_by_reason": tally.no_bids,
        "bids": tally.bids,
        "wins": tally.wins,
        "bid_rate": rounded(share(tally.with_bids, tally.sent), 6),
        "win_rate": rounded(share(tally.wins, tally.bids), 6),
        "notices": tally.notices,
        "faults": tally.drawn,
        "money": money,
    }))
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 { "-".to_owned() } else { format!("{:.2} %", share(part, whole) * 100.0) }
}

fn counts<'a, K: AsRef<str> + 'a>(of: impl IntoIterator<Item = (&'a K, &'a u64)>) -> String {
    let each: Vec<String> = of
        .into_iter()
        .map(|(what, count)| {
            let what = if what.as_ref().is_empty() { "no reason given" } else { what.as_ref() };
            format!("{} {what}", out::grouped(*count))
        })
        .collect();
    if each.is_empty() { "none".to_owned() } else { each.join(", ") }
}

fn rows(args: &Args, tally: &Tally) -> Vec<(&'static str, String)> {
    let latency: Vec<String> = QUANTILES.map(|q| format!("{:.2} ms", tally.latency.value_at_quantile(q) as f64 / 1e3)).into();
    let throttled = if tally.sent > 0 && share(tally.good, tally.sent) < THROTTLED_BELOW {
        "; Google would throttle: 85 % have to be valid and in time"
    } else {
        ""
    };
    let faults = [
        ("late", tally.drawn.late),
        ("twice", tally.drawn.duplicate),
        ("lost", tally.drawn.lost),
        ("win after bill", tally.drawn.reordered),
        ("wrong price", tally.drawn.wrong_price),
        ("not shown", tally.drawn.unshown),
    ];
    let faults: Vec<String> = faults.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{} {what}", out::grouped(*n))).collect();
    let mut rows = vec![
        (
            "requests",
            format!(
                "{} at {} a second, {} not sent",
                out::grouped(tally.sent),
                out::grouped(per_second(tally) as u64),
                out::grouped(tally.not_sent)
            ),
        ),
        ("answers in time", format!("{} within {} ms{throttled}", percent(tally.in_time, tally.sent), args.tmax)),
        ("  and valid", percent(tally.good, tally.sent)),
        ("p50 p90 p99 p99.9", latency.join(", ")),
        ("errors", counts(&tally.errors)),
        ("invalid", counts(&tally.invalid)),
        ("bid rate", format!("{}, {} bids", percent(tally.with_bids, tally.sent), out::grouped(tally.bids))),
        ("no bid", counts(&tally.no_bids)),
        ("win rate", format!("{}, {} won", percent(tally.wins, tally.bids), out::grouped(tally.wins))),
        ("notices", counts(&tally.notices)),
        ("faults of notices", if faults.is_empty() { "none".to_owned() } else { faults.join(", ") }),
    ];
    for (currency, money) in &tally.money {
        rows.extend(books(currency, money));
    }
    rows
}

fn books(currency: &str, money: &Money) -> Vec<(&'static str, String)> {
    let row = |sum: &Sum| format!("{:>20} for {}", out::amount(sum.nanos, currency), out::grouped(sum.count));
    let mut rows = vec![("owed", row(&money.owed)), ("  told", row(&money.told))];
    for (name, sum) in [("  lost on the way", money.lost), ("  refused", money.refused), ("  without an answer", money.unanswered)] {
        if sum.count > 0 {
            rows.push((name, row(&sum)));
        }
    }
    rows.push(("booked by the bidder", row(&money.booked)));
    if money.late_bids.count > 0 {
        rows.push(("bid too late", row(&money.late_bids)));
    }
    rows
}
