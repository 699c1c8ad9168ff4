//! Which instants belong to which period, and under which terms: so that each is billed exactly once.
//!
//! A period begins where the one that was closed before it ended, and ends where its closing says. So
//! a client that changes its zone, or a month that was never closed, leaves no gap and no overlap: what
//! was before the first closing's end is in the first, and a skipped month in the one that is closed
//! next. A change of terms cuts a period into parts, each of which is computed by itself.
//!
//! A closing covers what the client's log held up to its `last_seq`. What is of a period and comes later
//! is not lost, and its invoice does not change: the difference goes on a note, drawn up with the next
//! closing ([`super::books`]).

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::leaf;

use super::period::{Month, Span};
use super::terms::{Basis, Terms};

/// Seconds in a day of a horizon: horizons are counted in days of 24 hours, whatever the clocks do.
const DAY_SECONDS: u64 = 86_400;

/// A period's closing as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closing {
    /// Index of its leaf.
    pub leaf: u64,
    /// Its place among the client's leaves.
    pub client_seq: u64,
    /// ISO 4217 code.
    pub currency: String,
    /// The month.
    pub month: Month,
    /// Its resolved instants.
    pub span: Span,
    /// First `client_seq` that it covers.
    pub first_seq: u64,
    /// Last `client_seq` that it covers.
    pub last_seq: u64,
    /// Terms that the period is invoiced under.
    pub terms_version: u64,
}

/// A closing that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("period closed in leaf {leaf}: {field} is not valid")]
pub struct ClosingError {
    /// Index of the leaf.
    pub leaf: u64,
    /// The field.
    pub field: &'static str,
}

impl Closing {
    /// One that is not made yet, for what its period will be.
    pub fn to_come(currency: &str, month: Month, span: Span, terms_version: u64) -> Self {
        let currency = currency.to_owned();
        Self { leaf: 0, client_seq: 0, currency, month, span, first_seq: 1, last_seq: u64::MAX, terms_version }
    }

    /// Reads a leaf.
    pub fn of(header: &leaf::Leaf, body: &leaf::PeriodClosed) -> Result<Self, ClosingError> {
        let bad = |field| ClosingError { leaf: header.index, field };
        let start = UnixMicros::from_pb(body.period_start.as_ref()).ok_or_else(|| bad("period_start"))?;
        let end = UnixMicros::from_pb(body.period_end.as_ref()).ok_or_else(|| bad("period_end"))?;
        if start >= end {
            return Err(bad("period_end"));
        }
        // It covers all that was there: which leaves come late follows from their place alone.
        if body.last_seq.checked_add(1) != Some(header.client_seq) {
            return Err(bad("last_seq"));
        }
        Ok(Self {
            leaf: header.index,
            client_seq: header.client_seq,
            currency: body.currency.clone(),
            month: body.month.parse().map_err(|_| bad("month"))?,
            span: Span { start, end },
            first_seq: body.first_seq,
            last_seq: body.last_seq,
            terms_version: body.terms_version,
        })
    }
}

/// A part of a period that is under one version of the terms: `[from, until)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Included.
    pub from: UnixMicros,
    /// Excluded.
    pub until: UnixMicros,
    /// The terms.
    pub terms: Terms,
}

impl Part {
    /// When what its customers spend up to the horizon is over.
    pub fn matures(&self) -> UnixMicros {
        self.until.plus(self.horizon())
    }

    /// How long LTV counts from a customer's acquisition.
    pub fn horizon(&self) -> Duration {
        Duration::from_secs(u64::from(self.terms.horizon_days) * DAY_SECONDS)
    }
}

/// What a closing closes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Period {
    /// Its closing.
    pub closing: Closing,
    /// One after the other without a gap; none where an earlier closing ends later than this.
    pub parts: Vec<Part>,
}

/// A part's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Which period.
    pub period: usize,
    /// Which part of it.
    pub part: usize,
    /// Included.
    pub from: UnixMicros,
    /// Excluded.
    pub until: UnixMicros,
    /// How long LTV counts.
    pub horizon: Duration,
}

impl Slot {
    /// Whether what a customer that was acquired at `since`, in this part, spent at an instant counts.
    pub fn counts(&self, since: UnixMicros, at: UnixMicros) -> bool {
        since <= at && at < since.plus(self.horizon)
    }
}

/// All parts of all periods: they follow each other without a gap.
#[derive(Debug, Clone)]
pub struct Slots(Vec<Slot>);

impl Slots {
    /// The parts of the periods that [`calendar`] gives.
    pub fn of(periods: &[Period]) -> Self {
        let parts = periods.iter().enumerate().flat_map(|(p, period)| period.parts.iter().enumerate().map(move |part| (p, part)));
        let slot =
            |(period, (part, of)): (usize, (usize, &Part))| Slot { period, part, from: of.from, until: of.until, horizon: of.horizon() };
        Self(parts.map(slot).collect())
    }

    /// Where an instant belongs; nothing of one that is not closed yet.
    pub fn at(&self, at: UnixMicros) -> Option<&Slot> {
        self.0.get(self.0.partition_point(|slot| slot.until <= at))
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }
}

/// A closing under terms that are not in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("period closed in leaf {leaf}: terms of version {version} and before are not in the log")]
pub struct NoTerms {
    /// Index of the closing's leaf.
    pub leaf: u64,
    /// The newest version that it knew.
    pub version: u64,
}

/// The periods of a client and currency: `closings` in the log's order, `terms` in order of version.
pub fn calendar(closings: &[Closing], terms: &[Terms]) -> Result<Vec<Period>, NoTerms> {
    let mut periods = Vec::with_capacity(closings.len());
    let mut from = UnixMicros(i64::MIN);
    for closing in closings {
        // Terms that came after a closing do not change it.
        let known = &terms[..terms.partition_point(|terms| terms.version <= closing.terms_version)];
        let no_terms = NoTerms { leaf: closing.leaf, version: closing.terms_version };
        let parts = parts(from, closing.span.end, known).ok_or(no_terms)?;
        periods.push(Period { closing: closing.clone(), parts });
        from = from.max(closing.span.end);
    }
    Ok(periods)
}

/// The parts of `[from, until)` under the terms that are known; nothing where none are.
fn parts(from: UnixMicros, until: UnixMicros, known: &[Terms]) -> Option<Vec<Part>> {
    let first = known.first()?;
    let mut cuts: Vec<UnixMicros> = known.iter().map(|terms| terms.effective_from).filter(|at| (from..until).contains(at)).collect();
    cuts.extend([from, until]);
    cuts.sort_unstable();
    cuts.dedup();
    let mut parts: Vec<Part> = Vec::new();
    for span in cuts.windows(2).filter(|span| span[0] < until) {
        let (from, until) = (span[0], span[1]);
        let terms = known.iter().rev().find(|terms| terms.effective_from <= from).unwrap_or(first);
        match parts.last_mut() {
            Some(last) if last.terms.version == terms.version => last.until = until,
            _ => parts.push(Part { from, until, terms: terms.clone() }),
        }
    }
    Some(parts)
}

/// When a period can be invoiced at the earliest: when its time for late records is over, and what
/// is billed by realised value is known.
pub fn billable_from(parts: &[Part]) -> Option<UnixMicros> {
    let known = |part: &Part| match part.terms.basis {
        Basis::Predicted => part.until,
        Basis::Realised => part.matures(),
    };
    let grace = Duration::from_secs(parts.last()?.terms.grace_seconds.into());
    parts.iter().map(known).max().map(|at| at.plus(grace))
}

#[cfg(test)]
#[path = "accounting_tests.rs"]
mod tests;
