//! Input of our own, where no files are given: customers who buy and drop out, and the bid requests of two exchanges.
//!
//! Shapes: a customer buys at a gamma-distributed rate until it drops out at an exponential age (the Pareto/NBD picture of
//! Schmittlein, Morrison and Colombo, 1987), and spends log-normal amounts around a mean of its own. Requests carry the
//! formats, sizes, floors and countries that open exchanges send, and a few of the oddities. The files are written as
//! though they had been given, so that everything after this reads them in one way.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use jiff::ToSpan as _;
use jiff::civil::Date;
use serde_json::{Value, json};

use crate::error::{Doing as _, Failure};
use crate::random::Draws;

/// The first day of the generated purchases.
const FIRST_DAY: Date = Date::constant(2025, 7, 1);
/// 18 months.
const DAYS: usize = 549;
const CUSTOMERS: u64 = 6_000;
const REQUESTS: u64 = 20_000;
/// Median floor: the customers whom a replay bids for are known, and worth more than an impression on the open web.
const FLOOR_CPM: f64 = 60.0;

/// Writes a purchase file.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn events(path: &Path, seed: u64) -> Result<(), Failure> {
    let mut text = String::from("cust,date,items,spend\n");
    for customer in 0..CUSTOMERS {
        let mut draws = Draws::of(seed, "customer", &[customer]);
        // Most arrive early: the client has been there for a while.
        let arrival = (draws.unit().powf(1.7) * DAYS as f64) as usize;
        let per_day = draws.gamma(0.7, 0.025);
        let alive_days = draws.exponential(240.0);
        let mean_cents = draws.lognormal(4_200.0, 0.5);
        let mut age = 0.0;
        loop {
            let day = arrival + age as usize;
            if day >= DAYS || age > alive_days {
                break;
            }
            purchase(&mut text, &mut draws, customer, day, mean_cents)?;
            // At most one purchase a day: the file has a row a customer and day.
            age += 1.0 + draws.exponential(1.0 / per_day.max(1e-6));
        }
    }
    fs::write(path, text).doing(format_args!("writing {}", path.display()))
}

fn purchase(text: &mut String, draws: &mut Draws, customer: u64, day: usize, mean_cents: f64) -> Result<(), Failure> {
    let date = FIRST_DAY.checked_add((day as i64).days()).doing("counting days")?;
    let items = 1 + draws.exponential(1.5) as u32;
    let cents = draws.lognormal(mean_cents, 0.6).clamp(100.0, 1e7) as u64;
    let sign = if draws.chance(0.01) { "-" } else { "" };
    writeln!(text, "c{customer:05},{date},{items},{sign}{}.{:02}", cents / 100, cents % 100).doing("writing a row")
}

/// Writes a request file.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn requests(path: &Path, seed: u64) -> Result<(), Failure> {
    let mut text = String::new();
    for line in 0..REQUESTS {
        let body = request(&mut Draws::of(seed, "request", &[line]), line, FLOOR_CPM);
        writeln!(text, "{body}").doing("writing a line")?;
    }
    fs::write(path, text).doing(format_args!("writing {}", path.display()))
}

const SIZES: [(u32, u32); 9] = [(300, 250), (300, 250), (300, 250), (728, 90), (320, 50), (320, 50), (300, 600), (160, 600), (468, 60)];
const COUNTRIES: [&str; 12] = ["USA", "USA", "USA", "USA", "DEU", "DEU", "DEU", "GBR", "FRA", "ITA", "ESP", "CAN"];
const CATEGORIES: [&str; 9] = ["IAB1", "IAB2-3", "IAB3-4", "IAB9-30", "IAB12", "IAB15-10", "IAB17", "IAB19-6", "IAB20"];

/// One request, its floors log-normal around `floor_cpm`.
pub(crate) fn request(draws: &mut Draws, line: u64, floor_cpm: f64) -> Value {
    let imps = if draws.chance(0.07) { 2 + draws.below(2) } else { 1 };
    let imps: Vec<Value> = (1..=imps).map(|n| imp(draws, n, floor_cpm)).collect();
    let mut body = json!({
        "id": format!("request-{line}"),
        "imp": imps,
        "at": 2,
        "device": {
            "ua": "Mozilla/5.0",
            "ip": format!("192.0.2.{}", draws.below(256)),
            "geo": { "country": draws.pick(&COUNTRIES) },
        },
        "user": { "id": format!("exchange-user-{}", draws.below(1 << 20)) },
        "bcat": ["IAB7-39", "IAB25"],
        "cur": ["USD"],
    });
    let category = draws.pick(&CATEGORIES);
    let number = draws.below(400);
    let place = if draws.chance(0.4) {
        ("app", json!({ "id": format!("app-{number}"), "bundle": format!("example.app{number}"), "cat": [category] }))
    } else {
        let domain = format!("site{number}.example");
        (
            "site",
            json!({ "id": format!("site-{number}"), "page": format!("https://{domain}/article"), "domain": domain, "cat": [category] }),
        )
    };
    body[place.0] = place.1;
    // A few cannot be bid on: tests of the exchange, other currencies, the advertiser blocked, places that guardrails refuse.
    match draws.below(100) {
        0 => body["test"] = json!(1),
        1 => body["cur"] = json!(["EUR"]),
        2 => body["badv"] = json!(["acme.example", "globex.example"]),
        3 => body["device"]["geo"]["country"] = json!("ATA"),
        4 => body["device"]["geo"]["country"] = json!("PRK"),
        5 => body[place.0]["cat"] = json!(["IAB25-3"]),
        _ => {}
    }
    body
}

fn imp(draws: &mut Draws, number: usize, floor_cpm: f64) -> Value {
    let floor_cpm = (draws.lognormal(floor_cpm, 1.5) * 100.0).round() / 100.0;
    let mut imp = json!({ "id": number.to_string(), "secure": 1, "bidfloor": floor_cpm, "bidfloorcur": "USD" });
    let (w, h) = *draws.pick(&SIZES);
    match draws.below(20) {
        0..=12 => imp["banner"] = json!({ "w": w, "h": h, "format": [{ "w": w, "h": h }], "pos": 1 }),
        13..=16 => {
            let longest = *draws.pick(&[15, 30, 30, 60]);
            imp["video"] = json!({ "mimes": ["video/mp4"], "minduration": 3, "maxduration": longest, "protocols": [2, 3, 7], "w": 640, "h": 480, "plcmt": 1 });
        }
        17..=18 => {
            let assets =
                json!({ "ver": "1.2", "context": 1, "plcmttype": 1, "assets": [{ "id": 1, "required": 1, "title": { "len": 90 } }] });
            imp["native"] = json!({ "ver": "1.2", "request": assets.to_string() });
        }
        _ => imp["audio"] = json!({ "mimes": ["audio/mpeg"], "minduration": 5, "maxduration": 30, "protocols": [9, 10] }),
    }
    imp
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::events::Events;
    use super::super::requests::Requests;
    use super::*;

    #[test]
    fn one_seed_gives_one_input_and_it_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        events(&path("a.csv"), 1).unwrap();
        events(&path("b.csv"), 1).unwrap();
        events(&path("c.csv"), 2).unwrap();
        let read = |name: &str| Events::read(&path(name)).unwrap();
        assert_eq!(read("a.csv").digest, read("b.csv").digest);
        assert_ne!(read("a.csv").digest, read("c.csv").digest);
        let purchases = read("a.csv").purchases.len();
        assert!((12_000..40_000).contains(&purchases), "{purchases}");
        requests(&path("r.jsonl"), 1).unwrap();
        assert_eq!(Requests::read(&path("r.jsonl")).unwrap().lines.len() as u64, REQUESTS);
    }
}
