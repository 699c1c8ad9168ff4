//! Reconciliations on the wire.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::ids;
use kiki::pb::billing::v1 as pb;
use kiki::pb::billing::v1::reconcile_request::Against;
use kiki::pb::log::v1::Position;
use kiki::status::{self, Reason};
use tonic::Status;

use crate::billing::{Question, Reconciled};
use crate::domain::amount::Amount;
use crate::domain::reconcile::compare::{Claim, Difference, Kind, ROWS_MAX, Tolerance};
use crate::domain::reconcile::slots::{Day, Slots};
use crate::domain::reconcile::{Figure, Key};

/// Differences of a message: at most 800 bytes each with the leaves that they name.
const DIFFERENCES_A_MESSAGE: usize = 512;
/// Longest time that a scrape may be late by, seconds: an hour is the slot.
const SCRAPE_SECONDS_MAX: u32 = 3_600;

/// Reads the request.
///
/// # Errors
/// The field that is out of its form or limits.
pub(super) fn question(request: pb::ReconcileRequest) -> Result<Question, Status> {
    ids::check("client", &request.client).map_err(|e| status::field("client", e))?;
    let tolerance = request.tolerance.map_or_else(Tolerance::default, |of| Tolerance { minor: of.minor, ppm: of.ppm });
    match request.against {
        Some(Against::PlatformSpend(report)) => platform_spend(request.client, report, tolerance),
        Some(Against::Counted(counted)) => self::counted(request.client, counted, tolerance),
        None => Err(status::field("against", "is missing: a platform's spend, or what was counted")),
    }
}

fn platform_spend(client: String, report: pb::PlatformSpend, tolerance: Tolerance) -> Result<Question, Status> {
    ids::check("platform", &report.platform).map_err(|e| status::field("platform_spend.platform", e))?;
    at_most(report.rows.len(), "platform_spend.rows")?;
    let day = |field: &str, text: &str| text.parse::<Day>().map_err(|e| status::field(field, e));
    let (first, last) = (day("platform_spend.first_day", &report.first_day)?, day("platform_spend.last_day", &report.last_day)?);
    let slots = Slots::days(first, last, &report.zone).map_err(|e| status::field("platform_spend", e))?;
    let mut claims = Vec::with_capacity(report.rows.len());
    for (row, of) in report.rows.into_iter().enumerate() {
        let field = |name: &str| format!("platform_spend.rows[{row}].{name}");
        let slot = slots.of_day(day(&field("day"), &of.day)?);
        let slot = slot.ok_or_else(|| status::field(&field("day"), format!("{} is not from {first} to {last}", of.day)))?;
        claims.push(claim(field, slot, of.campaign, of.currency, &of.amount, of.impressions)?);
    }
    let figure = Figure::PlatformSpend { platform: report.platform };
    Ok(Question { client, figure, slots, late: Duration::ZERO, claims, tolerance })
}

fn counted(client: String, counted: pb::Counted, tolerance: Tolerance) -> Result<Question, Status> {
    let figure = match counted.counter() {
        pb::Counter::Spend => Figure::CountedSpend,
        pb::Counter::PredictedLtv => Figure::CountedLtv,
        pb::Counter::Unspecified => return Err(status::field("counted.counter", "is missing")),
    };
    at_most(counted.rows.len(), "counted.rows")?;
    if counted.scrape_seconds > SCRAPE_SECONDS_MAX {
        let problem = format!("{} is above the limit of {SCRAPE_SECONDS_MAX}", counted.scrape_seconds);
        return Err(status::field("counted.scrape_seconds", problem));
    }
    let instant = |field: &str, at: Option<&prost_types::Timestamp>| {
        UnixMicros::from_pb(at).ok_or_else(|| status::field(field, "is absent or out of range"))
    };
    let (from, until) = (instant("counted.from", counted.from.as_ref())?, instant("counted.until", counted.until.as_ref())?);
    let slots = Slots::hours(from, until).map_err(|e| status::field("counted", e))?;
    let mut claims = Vec::with_capacity(counted.rows.len());
    for (row, of) in counted.rows.into_iter().enumerate() {
        let field = |name: &str| format!("counted.rows[{row}].{name}");
        let hour = instant(&field("hour"), of.hour.as_ref())?;
        let slot = slots.of(hour).filter(|slot| *slot > 0 && slots.span(*slot).is_some_and(|span| span.start == hour));
        let slot = slot.ok_or_else(|| status::field(&field("hour"), "is no hour from the first to the last"))?;
        claims.push(claim(field, slot, of.campaign, of.currency, &of.amount, None)?);
    }
    let late = Duration::from_secs(counted.scrape_seconds.into());
    Ok(Question { client, figure, slots, late, claims, tolerance })
}

fn at_most(rows: usize, field: &str) -> Result<(), Status> {
    if rows > ROWS_MAX {
        Err(Reason::TooMany.status(format!("{field}: {rows} are more than the {ROWS_MAX} that are taken at once")))
    } else {
        Ok(())
    }
}

fn claim(
    field: impl Fn(&str) -> String,
    slot: usize,
    campaign: String,
    currency: String,
    amount: &str,
    items: Option<u64>,
) -> Result<Claim, Status> {
    ids::check("campaign", &campaign).map_err(|e| status::field(&field("campaign"), e))?;
    kiki::money::Currency::parse(&currency).map_err(|e| status::field(&field("currency"), e))?;
    let amount = Amount::parse(amount).map_err(|e| status::field(&field("amount"), e))?;
    Ok(Claim { key: Key { slot, campaign, currency }, amount, items })
}

/// The answer, in messages of bounded size.
pub(super) fn answer(log_id: &str, reconciled: Reconciled) -> Vec<Result<pb::ReconcileResponse, Status>> {
    let Reconciled { until, slots, comparison } = reconciled;
    let total = |(currency, sums): (String, crate::domain::reconcile::compare::Sums)| pb::ReconciledTotal {
        currency,
        log_nanos: Some(sums.log_nanos.into()),
        other_nanos: Some(sums.other_nanos.into()),
    };
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let summary = pb::ReconcileSummary {
        until: Some(Position { log_id: log_id.to_owned(), index: until }),
        compared: count(comparison.compared),
        different: count(comparison.differences.len()),
        totals: comparison.totals.into_iter().map(total).collect(),
    };
    let mut messages = vec![Ok(pb::ReconcileResponse { summary: Some(summary), differences: Vec::new() })];
    let mut differences = comparison.differences.into_iter().map(|difference| on_the_wire(&slots, difference)).peekable();
    while differences.peek().is_some() {
        let differences = differences.by_ref().take(DIFFERENCES_A_MESSAGE).collect();
        messages.push(Ok(pb::ReconcileResponse { summary: None, differences }));
    }
    messages
}

fn on_the_wire(slots: &Slots, difference: Difference) -> pb::FigureDifference {
    let Difference { key, kind, log, other_nanos, other_items } = difference;
    let kind = match kind {
        Kind::MissingInLog => pb::DifferenceKind::MissingInLog,
        Kind::MissingThere => pb::DifferenceKind::MissingThere,
        Kind::Amount => pb::DifferenceKind::Amount,
    };
    let span = slots.span(key.slot);
    pb::FigureDifference {
        kind: kind.into(),
        from: span.map(|span| span.start.into()),
        until: span.map(|span| span.end.into()),
        day: slots.day(key.slot).map(|day| day.to_string()).unwrap_or_default(),
        campaign: key.campaign,
        currency: key.currency,
        log_nanos: Some(log.nanos.into()),
        other_nanos: Some(other_nanos.into()),
        leaves: log.leaves,
        leaf_count: log.leaf_count,
        log_items: log.items,
        other_items,
    }
}
