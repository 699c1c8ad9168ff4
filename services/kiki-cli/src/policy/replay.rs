//! `kiki audit replay-policy`: what a policy would have refused of the decisions in a log, on files alone.
//!
//! Each recorded decision carries what the guardrails saw, so the answer is the bid path's own. It says what becomes of
//! decisions as they were made: with other bids, budgets and so later prices would have been others too.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use kiki::framed::Scanner;
use kiki::guardrail::{Policy, Refusals};
use kiki::leaf::{self, leaf::Body};

use super::document;
use crate::error::{Doing as _, Failure};
use crate::out;

/// Which log, and which policy.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The policy's document, YAML or JSON.
    #[arg(long)]
    policy: PathBuf,
    /// Only decisions of this month, "2026-03", UTC.
    #[arg(long)]
    month: Option<String>,
    /// SyncShield's data folder.
    dir: PathBuf,
}

/// What a policy would have done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Decisions looked at.
    pub decisions: u64,
    /// Decisions on which the policy of their time and this one agree.
    pub same: u64,
    /// Bids that it would have refused: how many and for how many nanos, by currency.
    pub refused_bids: BTreeMap<String, (u64, i128)>,
    /// Decisions without a bid, for a budget or floor, that it would have refused as well.
    pub refused_others: u64,
    /// Refusals by guardrails that it would not have made.
    pub allowed: u64,
    /// Decisions that recorded only a part of their lists: it might say more of them.
    pub abridged: u64,
    /// Decisions that each of its rules refuses.
    pub rules: BTreeMap<String, u64>,
}

/// Runs `kiki audit replay-policy`.
///
/// # Errors
/// A document or log that cannot be read.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (_, policy) = document::load(&args.policy)?;
    let range = args.month.as_deref().map_or(Ok((i64::MIN, i64::MAX)), month)?;
    let report = replay(&args.dir, &policy, range)?;
    let mut rows = vec![
        ("decisions", out::grouped(report.decisions)),
        ("same", out::grouped(report.same)),
        ("would allow", out::grouped(report.allowed)),
        ("would refuse", format!("{} that were no bids for another reason", out::grouped(report.refused_others))),
    ];
    for (currency, (count, nanos)) in &report.refused_bids {
        rows.push(("would refuse", format!("{} bids, {} offered", out::grouped(*count), out::amount(*nanos, currency))));
    }
    rows.extend(report.rules.iter().map(|(rule, count)| ("rule", format!("{rule}  {}", out::grouped(*count)))));
    if report.abridged > 0 {
        rows.push(("abridged", format!("{} decisions recorded only a part of their lists", out::grouped(report.abridged))));
    }
    out::say(out::table("replayed", &rows));
    Ok(())
}

/// The month's bounds, seconds.
fn month(text: &str) -> Result<(i64, i64), Failure> {
    let bad = || Failure::new(format!("month {text:?} is not of the form 2026-03"));
    let first: Date = format!("{text}-01").parse().map_err(|_| bad())?;
    let start = |date: Date| date.to_zoned(TimeZone::UTC).map(|at| at.timestamp().as_second()).map_err(|_| bad());
    let next = first.last_of_month().tomorrow().map_err(|_| bad())?;
    Ok((start(first)?, start(next)?))
}

/// Holds a policy against the decisions of a log in a range of seconds.
///
/// # Errors
/// A log that cannot be read; `kiki audit verify` says more of it.
pub fn replay(dir: &Path, policy: &Policy, (start, end): (i64, i64)) -> Result<Report, Failure> {
    let paths = syncshield::store::Paths::new(dir);
    let files = syncshield::store::segments::list(&syncshield::store::disk::Files, &paths.log())
        .doing(format_args!("listing {}", paths.log().display()))?;
    if files.is_empty() {
        return Err(Failure::new(format!("there is no log in {}", paths.log().display())));
    }
    let mut report = Report::default();
    for (at, (_, path)) in files.iter().enumerate() {
        let bytes = std::fs::read(path).doing(format_args!("reading {}", path.display()))?;
        for frame in Scanner::new(&bytes) {
            let payload = match frame {
                Ok((_, payload)) => payload,
                Err(_) if at + 1 == files.len() => break, // torn by a crash
                Err(bad) => return Err(Failure::new(format!("{}: {bad}", path.display()))),
            };
            let (head, body) = leaf::decode(payload).doing(path.display())?;
            let Body::Decisions(batch) = body else { continue };
            let when = |decision: &&leaf::Decision| decision.at.as_ref().is_some_and(|at| (start..end).contains(&at.seconds));
            batch.decisions.iter().filter(when).for_each(|decision| report.take_in(policy, &head.client, &batch, decision));
        }
    }
    Ok(report)
}

impl Report {
    fn take_in(&mut self, policy: &Policy, client: &str, batch: &leaf::DecisionBatch, decision: &leaf::Decision) {
        let Some(verdict) = policy.judge(client, batch, decision) else { return };
        self.decisions += 1;
        self.abridged += u64::from(decision.abridged);
        let refused = Refusals(decision.refusals).and(Refusals::GUARDRAILS);
        match (refused.is_empty(), verdict.refusals.is_empty()) {
            (true, true) | (false, false) => self.same += 1,
            (false, true) => self.allowed += 1,
            (true, false) if decision.refusals == 0 => {
                let (count, nanos) = self.refused_bids.entry(batch.currency.clone()).or_default();
                *count += 1;
                *nanos += i128::from(decision.price_nanos);
            }
            (true, false) => self.refused_others += 1,
        }
        for rule in policy.named(&verdict) {
            *self.rules.entry(rule).or_default() += 1;
        }
    }
}
