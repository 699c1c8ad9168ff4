//! The check of one bid, at 10, 250 and 1,000 rules.

use std::hint::black_box;

use kiki::clock::monotonic;
use kiki::guardrail::{Policy, sample};

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

fn nanos(rules: usize) -> Result<f64, Failure> {
    let sample = sample(rules);
    let policy = Policy::compile(&sample.policy).doing("compiling the policy")?;
    let bid = sample.bid();
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
