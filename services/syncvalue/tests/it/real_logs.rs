//! The estimate against real purchase logs, by the forecast protocol: nothing after the calibration's end is ever seen.
//!
//! The logs are not part of the project; `KIKI_CONFORMANCE_DATA` says where they are. With `KIKI_PREDICTIONS` set to a folder, the
//! predictions are written there, one CSV a log, for another program to score.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use syncvalue::domain::customer::{DAY_MICROS, Event, EventId};
use syncvalue::domain::market::Market;

struct Log {
    file: &'static str,
    start: i64,
    /// Calibration and holdout are so long each, days.
    days: i64,
    /// What "past spend" gets, which the estimate has to be about as good as or better.
    past_spearman: f64,
}

const LOGS: [Log; 2] = [
    Log { file: "cdnow_daily.csv", start: 9_862, days: 273, past_spearman: 0.395 },
    Log { file: "online_retail_daily.csv", start: 14_944, days: 182, past_spearman: 0.590 },
];

#[test]
fn ranks_customers_and_hits_the_total_on_real_logs() {
    let Some(data) = std::env::var_os("KIKI_CONFORMANCE_DATA").map(|data| PathBuf::from(data).join("ltv")).filter(|data| data.exists())
    else {
        println!("did not run: KIKI_CONFORMANCE_DATA names no folder with ltv/");
        return;
    };
    for log in &LOGS {
        let scored = score(log, &data.join(log.file));
        println!("{}: {} customers, spearman {:.4}, total accuracy {:.4}", log.file, scored.customers, scored.spearman, scored.total);
        assert!(scored.customers > 1_000);
        assert!(scored.spearman > log.past_spearman - 0.02, "{}", scored.spearman);
        assert!(scored.total > 0.85, "{}", scored.total);
        assert!((0.92..0.98).contains(&scored.below_q95), "{}", scored.below_q95);
    }
}

struct Scored {
    customers: usize,
    spearman: f64,
    total: f64,
    below_q95: f64,
}

fn score(log: &Log, file: &Path) -> Scored {
    let text = std::fs::read_to_string(file).unwrap();
    let mut rows: Vec<(i64, String, f64)> = text
        .lines()
        .skip(1)
        .map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            (civil_day(fields[1]) - log.start, fields[0].to_string(), fields[3].parse().unwrap())
        })
        .collect();
    rows.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let mut market = Market::default();
    let mut later: BTreeMap<String, f64> = BTreeMap::new();
    for (line, (day, customer, spend)) in rows.iter().enumerate() {
        if *day < log.days {
            let value_micros = (spend * 1e6).round() as i64;
            let at = UnixMicros(day * DAY_MICROS);
            market.observe(key(customer), &Event { id: EventId(line as u64), at, value_micros, items: 1 });
            later.entry(customer.clone()).or_default();
        } else if *day < 2 * log.days
            && let Some(sum) = later.get_mut(customer)
        {
            *sum += spend;
        }
    }
    let mut csv = String::from("cust,mean,p_active,q05,q95\n");
    let (mut truth, mut means, mut below) = (Vec::new(), Vec::new(), 0.0);
    for (customer, spent) in &later {
        let prediction = market.predict(&key(customer), log.days as u32, UnixMicros(log.days * DAY_MICROS));
        let units = |micros: i64| micros as f64 / 1e6;
        let (mean, q05, q95) = (units(prediction.mean_micros), units(prediction.q05_micros), units(prediction.q95_micros));
        writeln!(csv, "{customer},{mean},{},{q05},{q95}", f64::from(prediction.p_active_ppb) / 1e9).unwrap();
        truth.push(*spent);
        means.push(mean);
        below += f64::from(u8::from(*spent <= q95));
    }
    if let Some(folder) = std::env::var_os("KIKI_PREDICTIONS") {
        std::fs::write(PathBuf::from(folder).join(log.file), csv).unwrap();
    }
    let (sum, predicted): (f64, f64) = (truth.iter().sum(), means.iter().sum());
    let spearman = correlation(&midranks(&truth), &midranks(&means));
    Scored { customers: truth.len(), spearman, total: 1.0 - (predicted - sum).abs() / sum, below_q95: below / truth.len() as f64 }
}

fn key(customer: &str) -> CustomerKey {
    let mut key = [0; 16];
    key[..customer.len()].copy_from_slice(customer.as_bytes());
    CustomerKey(key)
}

/// Days since 1970 of a date "1997-01-31" (Howard Hinnant's days_from_civil).
fn civil_day(date: &str) -> i64 {
    let parts: Vec<i64> = date.split('-').map(|part| part.parse().unwrap()).collect();
    let (year, month, day) = (if parts[1] <= 2 { parts[0] - 1 } else { parts[0] }, parts[1], parts[2]);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn midranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    for run in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let first = order.partition_point(|i| values[*i] < values[run[0]]);
        run.iter().for_each(|i| ranks[*i] = first as f64 + (run.len() as f64 - 1.0) / 2.0);
    }
    ranks
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let mean = |of: &[f64]| of.iter().sum::<f64>() / of.len() as f64;
    let (ma, mb) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| f(a - ma, b - mb)).sum::<f64>();
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}
