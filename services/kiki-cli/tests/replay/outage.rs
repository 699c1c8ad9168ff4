//! `kiki replay --scenario outage`.

use super::{kiki, run};

#[test]
fn an_outage_reads_as_healthy_slow_open_on_the_fallback_price_and_recovery() {
    let folder = tempfile::tempdir().unwrap();
    let said = run(kiki(&["replay", "--scenario", "outage", "--data"]).arg(folder.path().join("outage")));
    let rows: Vec<&str> = said.lines().filter(|line| line.get(2..3) == Some(":")).collect();
    // Each row is of a phase, and phases follow each other; within one the breaker may go back and forth.
    let mut phases: Vec<&str> = rows.iter().map(|row| row[7..22].trim()).collect();
    phases.dedup();
    assert_eq!(phases, ["healthy", "slow", "open", "recovery", "healthy again"], "{said}");
    let priced_on = |phase: &str, what: &str| rows.iter().filter(|row| row[7..].starts_with(phase)).all(|row| row.contains(what));
    assert!(
        priced_on("healthy", "SyncValue's answer") && priced_on("slow", "median x multiplier") && priced_on("open", "median x multiplier")
    );
    let last = said.lines().find(|line| line.starts_with("the breaker was closed")).unwrap();
    assert!(last.contains("open "), "{last}");
}

#[test]
fn a_scenario_is_in_place_of_a_month_and_takes_none_of_its_arguments() {
    let output = kiki(&["replay", "--scenario", "outage", "--month", "2025-07"]).output().unwrap();
    assert!(!output.status.success());
}
