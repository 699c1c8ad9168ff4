//! What comes from outside, damaged in every way that a seeded mutator thinks of: bid requests in both formats, and notices.
//!
//! The short form runs with all tests, the same each time. The long form is `.ci/fuzz`: for minutes, with a new seed in each round,
//! by `KIKI_FUZZ_SEED` and `KIKI_FUZZ_RUNS`. A failure prints its input, and its seed and number of runs repeat it.

mod mutate;
mod notices;
mod reader;

use mutate::Mutator;

/// Inputs of the short form.
const RUNS: usize = 20_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The mutator, and how many inputs to make.
fn fuzzing() -> (Mutator, usize) {
    let runs = number("KIKI_FUZZ_RUNS").and_then(|runs| runs.try_into().ok()).unwrap_or(RUNS);
    (Mutator::new(number("KIKI_FUZZ_SEED").unwrap_or(1)), runs)
}
