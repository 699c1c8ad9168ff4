//! What a check of the guardrails costs: `cargo bench -p syncshield --bench check`.

#![allow(missing_docs)]

use std::hint::black_box;
use std::io::Write as _;

use kiki::clock::monotonic;
use kiki::guardrail::{MAX_RULES, Policy, Sample, sample};

/// Checks in one run, and runs, of which the fastest counts: others had company.
const CHECKS: u32 = 100_000;
const RUNS: usize = 7;

fn main() {
    for count in [10, 250, 1_000, MAX_RULES] {
        measure(&format!("check_ns_{count}_rules"), &sample(count));
    }
    for conditions in [1, 32] {
        measure(&format!("check_ns_250_rules_{conditions}_conditions"), &sample(250).with_conditions(conditions));
    }
}

fn measure(name: &str, sample: &Sample) {
    let Ok(policy) = Policy::compile(&sample.policy) else { return };
    let bid = sample.bid();
    let run = |_| {
        let start = monotonic();
        for _ in 0..CHECKS {
            black_box(policy.check(black_box(&bid)));
        }
        (monotonic() - start).as_nanos() / u128::from(CHECKS)
    };
    let fastest = (0..RUNS).map(run).min().unwrap_or_default();
    drop(writeln!(std::io::stdout(), "{name} {fastest}"));
}
