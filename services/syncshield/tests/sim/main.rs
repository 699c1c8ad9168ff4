//! The budget and log core under simulation: generated requests of several holders, retries, duplicates, clocks that
//! jump, leases that expire, and a disk that fails, tears and forgets, with a model beside it.
//!
//! The writer is the real one, taken turn by turn; only the disk and the clock are simulated. One seed is one history.
//!
//! ```text
//! KIKI_SIM_SEEDS=1000000 cargo test --release -p syncshield --test sim seeds -- --nocapture    a million histories
//! KIKI_SIM_FIRST=1000000 goes on behind those
//! KIKI_SIM_SEED=17 cargo test -p syncshield --test sim seeds -- --nocapture                    one that failed
//! ```

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod disk;
mod model;
mod op;
mod rng;
mod run;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use disk::Fault;
use kiki::tlog::note::SigningKey;
use parking_lot::Mutex;
use run::{Checked, LOG, Plan, Stats, faults, run};

/// Steps of a seed's history: about 150 requests in 60 commits, 190 I/O points.
const STEPS: usize = 80;
/// Seeds of a normal run.
const SEEDS: u64 = 2_000;

fn key() -> SigningKey {
    SigningKey::new(LOG, &[7; 32]).unwrap()
}

fn plan(seed: u64) -> Plan {
    // A quarter of the histories has no faults of the disk; the others have few or many.
    let faults = match seed % 4 {
        0 => BTreeMap::new(),
        1 => faults(seed, 600, 200),
        _ => faults(seed, 2_000, 25),
    };
    Plan { seed, steps: STEPS, faults, lies: None, swaps: None }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// Runs plans on all cores; the sum of what they came to does not depend on who ran which.
fn run_all(count: u64, plan: impl Fn(u64) -> Plan + Sync) -> Stats {
    let (next, sum, wrong) = (AtomicU64::new(0), Mutex::new(Stats::default()), Mutex::new(Vec::new()));
    let key = key();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count || !wrong.lock().is_empty() {
                        break;
                    }
                    let plan = plan(at);
                    match run(&plan, &key) {
                        Ok(stats) => add(&mut sum.lock(), at, &stats),
                        Err(what) => wrong.lock().push(format!("seed {} (case {at}): {what}", plan.seed)),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    sum.into_inner()
}

fn add(sum: &mut Stats, at: u64, stats: &Stats) {
    let mut trace = stats.trace;
    trace.note(&at.to_le_bytes());
    sum.trace.0 = sum.trace.0.wrapping_add(trace.0);
    sum.asked += stats.asked;
    sum.leaves += stats.leaves;
    sum.crashes += stats.crashes;
    sum.points += stats.points;
    sum.full += stats.full;
    sum.ahead += stats.ahead;
    sum.back += stats.back;
}

fn told(what: &str, stats: &Stats) {
    println!(
        "{what}: {} requests, {} leaves, {} I/O points, {} restarts, {} leases renewed after one, {} commits denied for room; digest {:016x}",
        stats.asked, stats.leaves, stats.points, stats.crashes, stats.back, stats.full, stats.trace.0
    );
}

#[test]
fn seeds_keep_every_invariant() {
    if let Some(seed) = number("KIKI_SIM_SEED") {
        return told(&format!("seed {seed}"), &run(&plan(seed), &key()).unwrap());
    }
    let (first, seeds) = (number("KIKI_SIM_FIRST").unwrap_or(0), number("KIKI_SIM_SEEDS").unwrap_or(SEEDS));
    let stats = run_all(seeds, |at| plan(first + at));
    told(&format!("{seeds} seeds from {first} on"), &stats);
    let enough = stats.crashes > seeds && stats.full > 0 && stats.ahead > seeds && stats.leaves > 10 * seeds && stats.back > seeds / 100;
    assert!(seeds < 100 || enough, "it did too little: {stats:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let (first, again) = (run_all(50, plan), run_all(50, plan));
    assert_eq!(first, again);
    assert_ne!(first.trace, run_all(49, plan).trace);
}

/// Every I/O point of a script of 200 requests, each way to fail there; the script goes on after it.
#[test]
fn a_fault_at_every_io_point_of_the_writer_loses_nothing() {
    let script = |faults| Plan { seed: 4, steps: 100, faults, lies: None, swaps: None };
    let points = run(&script(BTreeMap::new()), &key()).unwrap().points;
    assert!(points > 150, "the script passes only {points} I/O points");
    // What the first left is not left in peace either.
    let ways: [&[(u64, Fault)]; 5] = [
        &[(0, Fault::Crash)],
        &[(0, Fault::Crash), (2, Fault::Crash)],
        &[(0, Fault::Fail)],
        &[(0, Fault::Full)],
        &[(0, Fault::Full), (1, Fault::Crash)],
    ];
    let many = ways.len() as u64;
    let stats = run_all(points * many, |at| {
        let of = ways[(at % many) as usize].iter();
        script(of.map(|(behind, fault)| (at / many + behind, *fault)).collect())
    });
    told(&format!("{points} I/O points, {many} ways each"), &stats);
}

/// The first seed whose history is found wrong, of a hundred.
fn caught(change: impl Fn(Plan) -> Plan) -> Checked {
    (0..100).map(|seed| run(&change(plan(seed)), &key())).find_map(Result::err).map_or(Ok(()), Err)
}

#[test]
fn a_disk_that_only_says_that_it_synced_is_found_out() {
    let wrong = caught(|plan| Plan { lies: Some(10), ..plan }).unwrap_err();
    assert!(wrong.contains("acknowledged") || wrong.contains("signed") || wrong.contains("does not start"), "{wrong}");
}

#[test]
fn two_records_that_traded_places_are_found_out() {
    let wrong = caught(|plan| Plan { swaps: Some(10), ..plan }).unwrap_err();
    assert!(wrong.contains("leaf") || wrong.contains("leaves"), "{wrong}");
}
