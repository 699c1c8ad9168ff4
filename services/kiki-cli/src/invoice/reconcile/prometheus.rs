//! What Prometheus' counters rose by in each hour.
//!
//! The samples are asked for as they were scraped, hour by hour, and added up here: a sample below the one before is a counter that
//! began again at 0, and a series that was never seen before began at 0. PromQL's `increase` would estimate: it extrapolates to
//! the ends of its window, and leaves out what a series began with, which for a campaign's first hour is all that it counted.
//!
//! Of SyncFlow's counter all instances add up, as each counts what it settled. Every SyncValue reads the whole log, so of
//! theirs the one that counted the most is taken.
//!
//! What an instance counted after its last scrape is lost when it is killed, and then is less than in the log. A SyncValue that begins in
//! an empty folder counts all of the log's past once more, in the hour that it reads it in.

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;
use kiki::money::decimal;
use kiki::pb::billing::v1::{CountedRow, Counter};
use kiki::runtime::series::OTHER;
use serde::Deserialize;

use crate::error::{Doing as _, Failure};
use crate::http::{Content, Http};
use crate::out;

/// An hour, milliseconds: Prometheus' own unit.
const HOUR_MS: i64 = 3_600_000;
/// How far back a series is looked for before the first hour: further than anybody leaves Prometheus off.
const PAST: &str = "7d";
/// Decimals of a figure: nanos of the currency.
const PLACES: i32 = 9;
const FORM: Content = Content { kind: "application/x-www-form-urlencoded", gzip: false };

/// A Prometheus, by the address of its HTTP API.
#[derive(Debug)]
pub(super) struct Prometheus {
    http: Http,
    address: String,
}

/// A series by its labels.
type Labels = BTreeMap<String, String>;

#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    data: Data,
    #[serde(default)]
    error: String,
}

#[derive(Debug, Default, Deserialize)]
struct Data {
    result: Vec<Found>,
}

#[derive(Debug, Deserialize)]
struct Found {
    metric: Labels,
    /// Of an instant: seconds and value.
    value: Option<(f64, String)>,
    /// Of a range.
    #[serde(default)]
    values: Vec<(f64, String)>,
}

/// What a series was last seen at.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    at_ms: i64,
    nanos: i128,
}

/// The counter of a client's, by name.
const fn name(counter: Counter) -> &'static str {
    match counter {
        Counter::PredictedLtv => "syncvalue_predicted_ltv_total",
        Counter::Spend | Counter::Unspecified => "syncflow_spend_total",
    }
}

impl Prometheus {
    pub(super) fn at(address: &str) -> Self {
        Self { http: Http::new(), address: address.trim_end_matches('/').to_owned() }
    }

    /// What a client's counters rose by in each hour of `[from, until)`; both on the hour.
    ///
    /// # Errors
    /// It does not answer, refuses, or has what is no counter of ours.
    pub(super) async fn counted(
        &self,
        counter: Counter,
        client: &str,
        (from, until): (UnixMicros, UnixMicros),
    ) -> Result<Vec<CountedRow>, Failure> {
        let (from, until) = (from.0 / 1_000, until.0 / 1_000);
        let series = |client: &str| format!("{}{{client=\"{client}\"}}", name(counter));
        if !self.query(&series(OTHER), until).await?.is_empty() {
            out::warn(format_args!("{} had more campaigns than it keeps series for: some are counted under {OTHER}", name(counter)));
        }
        let mut seen: BTreeMap<Labels, Seen> = BTreeMap::new();
        for found in self.query(&format!("last_over_time({}[{PAST}])", series(client)), from).await? {
            if let Some((_, value)) = &found.value {
                seen.insert(labels(found.metric), Seen { at_ms: from, nanos: nanos(value)? });
            }
        }
        let mut rows = Vec::new();
        for hour in (from..until).step_by(HOUR_MS as usize) {
            let end = hour + HOUR_MS;
            let mut rose = BTreeMap::new();
            for found in self.query(&format!("{}[1h]", series(client)), end).await? {
                let labels = labels(found.metric);
                let seen = seen.entry(labels.clone()).or_default();
                let more = seen.rise(&found.values, (hour, end))?;
                rose.insert(labels, more);
            }
            rows.extend(figures(counter, &rose).into_iter().map(|((campaign, currency), nanos)| CountedRow {
                hour: Some(UnixMicros(hour * 1_000).into()),
                campaign,
                currency,
                amount: decimal(nanos, PLACES as u32),
            }));
        }
        Ok(rows)
    }

    /// An instant query as of a time, milliseconds.
    async fn query(&self, query: &str, at_ms: i64) -> Result<Vec<Found>, Failure> {
        let url = format!("{}/api/v1/query", self.address);
        let body = format!("query={}&time={}", encoded(query), decimal(at_ms.into(), 3));
        let answer = self.http.post(&url, FORM, body.into_bytes()).await?;
        let read: Answer =
            serde_json::from_slice(&answer.body).doing(format_args!("{url}: {}, which is no answer of Prometheus", answer.status))?;
        if !answer.status.is_success() {
            return Err(Failure::new(format!("{url}: {query}: {}", read.error)));
        }
        Ok(read.data.result)
    }
}

impl Seen {
    /// By how much the samples of `(after, until]` are above this, with what a counter that began again has; it is then the last of them.
    fn rise(&mut self, samples: &[(f64, String)], (after, until): (i64, i64)) -> Result<i128, Failure> {
        let mut more = 0;
        for (seconds, value) in samples {
            // Prometheus prints milliseconds as a fraction.
            let at_ms = (seconds * 1_000.0).round() as i64;
            if at_ms <= after.max(self.at_ms) || at_ms > until {
                continue;
            }
            let nanos = nanos(value)?;
            more += if nanos >= self.nanos { nanos - self.nanos } else { nanos };
            *self = Self { at_ms, nanos };
        }
        Ok(more)
    }
}

/// What makes a series, without the metric's name, which some functions drop.
fn labels(mut metric: Labels) -> Labels {
    metric.remove("__name__");
    metric
}

/// By campaign and currency: the sum over instances, or the most that one of them counted.
fn figures(counter: Counter, rose: &BTreeMap<Labels, i128>) -> BTreeMap<(String, String), i128> {
    let mut figures: BTreeMap<(String, String), i128> = BTreeMap::new();
    for (labels, more) in rose.iter().filter(|(_, more)| **more > 0) {
        let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
        let figure = figures.entry((label("campaign"), label("currency"))).or_default();
        *figure = if counter == Counter::PredictedLtv { (*figure).max(*more) } else { *figure + more };
    }
    figures
}

/// A sample as Prometheus prints it, in nanos, rounded half away from zero: a double of some 16 digits, with an exponent where it
/// is very small or very large.
fn nanos(text: &str) -> Result<i128, Failure> {
    let bad = || Failure::new(format!("a sample of {text:?}, which no counter of ours has"));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| bad())?;
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: i128 = format!("{whole}{part}").parse().ok().filter(|digits| *digits >= 0).ok_or_else(bad)?;
    let places = i32::try_from(part.len()).map_err(|_| bad())?;
    let power = |by: i32| u32::try_from(by).ok().and_then(|by| 10_i128.checked_pow(by));
    match PLACES + exponent - places {
        by @ 0.. => power(by).and_then(|scale| digits.checked_mul(scale)).ok_or_else(bad),
        // Beyond all digits nothing is left of it.
        by => Ok(power(-by).map_or(0, |scale| (digits + scale / 2) / scale)),
    }
}

/// As a value of a form.
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn samples_are_read_as_prometheus_prints_them() {
        for (text, wanted) in [
            ("0", 0),
            ("12", 12_000_000_000),
            ("0.015", 15_000_000),
            ("123.45600000000002", 123_456_000_000),
            ("1e-07", 100),
            ("2.5e+21", 2_500_000_000_000_000_000_000_000_000_000),
            ("0.0000000005", 1),
            ("4e-60", 0),
        ] {
            assert_eq!(nanos(text).unwrap(), wanted, "{text}");
        }
        for text in ["NaN", "+Inf", "-1", "", "1e", "1e400"] {
            assert!(nanos(text).unwrap_err().to_string().contains(text), "{text} was read");
        }
    }

    #[test]
    fn a_counter_that_begins_again_counts_from_nothing() {
        let samples = |of: &[(f64, &str)]| of.iter().map(|(at, value)| (*at, (*value).to_owned())).collect::<Vec<_>>();
        let mut seen = Seen::default();
        // What a series began with counts; what is of the hour before, or after, does not.
        let first = samples(&[(0.0, "99"), (10.0, "5"), (20.5, "7"), (3_600.0, "8"), (3_610.0, "9")]);
        assert_eq!(seen.rise(&first, (0, HOUR_MS)).unwrap(), 8_000_000_000);
        let second = samples(&[(3_600.0, "8"), (3_610.0, "9"), (3_620.0, "2"), (3_630.0, "2"), (3_640.0, "0.5")]);
        assert_eq!(seen.rise(&second, (HOUR_MS, 2 * HOUR_MS)).unwrap(), 3_500_000_000);
        assert_eq!((seen.at_ms, seen.nanos), (3_640_000, 500_000_000));
    }

    #[test]
    fn instances_of_syncflow_add_up_and_of_syncvalues_one_is_taken() {
        let series = |instance: &str, platform: &str| {
            let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let own = [label("campaign", "spring"), label("currency", "USD")];
            own.into_iter().chain([label("instance", instance), label("platform", platform)]).collect::<Labels>()
        };
        let rose = BTreeMap::from([(series("a", "x"), 1), (series("a", "y"), 2), (series("b", "x"), 4), (series("c", "x"), 0)]);
        let figure = |counter| figures(counter, &rose)[&("spring".to_owned(), "USD".to_owned())];
        assert_eq!((figure(Counter::Spend), figure(Counter::PredictedLtv)), (7, 4));
    }

    #[test]
    fn a_query_is_encoded_as_a_form() {
        assert_eq!(encoded("a_b{c=\"d\"}[1h]"), "a_b%7Bc%3D%22d%22%7D%5B1h%5D");
    }
}
