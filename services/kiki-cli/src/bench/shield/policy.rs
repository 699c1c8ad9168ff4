//! The check of one bid, at 10, 250 and 1,000 rules.

use std::hint::black_box;

use kiki::clock::monotonic;
use kiki::guardrail::{Bid, Policy};
use kiki::leaf;
use kiki::money::{Currency, Nanos};

use super::Report;
use crate::error::{Doing as _, Failure};

/// Checks of one round, and rounds: the best round counts, as the others were disturbed.
const CHECKS: u32 = 200_000;
const ROUNDS: u32 = 5;

pub(super) fn check(report: &mut Report) -> Result<(), Failure> {
    report.check_ns_10_rules = nanos(10)?;
    report.check_ns_250_rules = nanos(250)?;
    report.check_ns_1000_rules = nanos(1_000)?;
    Ok(())
}

/// So many rules: one cap, and entries of the lists, a bid that passes them all.
fn nanos(rules: usize) -> Result<f64, Failure> {
    let each = (rules - 1) / 3;
    let document = leaf::Policy {
        bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 5_000_000 }],
        blocked_domains: (0..rules - 1 - 2 * each).map(|i| format!("blocked-{i}.example")).collect(),
        blocked_categories: (0..each).map(|i| format!("IAB{i}-{i}")).collect(),
        blocked_countries: (0..each).map(|i| format!("X{i}")).collect(),
        ..Default::default()
    };
    let policy = Policy::compile(&document).doing("compiling the policy")?;
    let categories = ["IAB3-1000".to_owned()];
    let bid = Bid {
        platform: "meta",
        currency: Currency::USD,
        price: Nanos::new(1_000_000),
        country: "DEU",
        categories: &categories,
        domain: "www.shop.example",
    };
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = monotonic();
        for _ in 0..CHECKS {
            black_box(policy.check(black_box(&bid)));
        }
        best = best.min(start.elapsed().as_nanos() as f64 / f64::from(CHECKS));
    }
    Ok(best)
}
