//! Budgets to be read, and as JSON.

use kiki::clock::UnixMicros;
use kiki::leaf::{Int128, LimitKind, Limits};
use kiki::money::decimal;
use kiki::pb::syncshield::v1::{Budget, GetBudgetResponse, ScopeBudget};
use serde_json::{Value, json};

use crate::out;

fn nanos(sum: Option<&Int128>) -> i128 {
    sum.map_or(0, i128::from)
}

pub(super) fn text(budgets: &[GetBudgetResponse]) -> String {
    let one = |got: &GetBudgetResponse| got.budget.as_ref().map(|budget| text_of(budget, &got.limits));
    budgets.iter().filter_map(one).collect::<Vec<_>>().join("\n\n")
}

fn text_of(budget: &Budget, limits: &[Limits]) -> String {
    let amount = |sum: Option<&Int128>| out::amount(nanos(sum), &budget.currency);
    let holders = if budget.holders == 1 { "1 holder" } else { &format!("{} holders", budget.holders) };
    let mut rows = vec![
        ("settled", amount(budget.settled_nanos.as_ref())),
        ("held", format!("{}  of ended leases, until notices or a report", amount(budget.held_nanos.as_ref()))),
        ("on leases", format!("{}  by {holders}", amount(budget.leased_nanos.as_ref()))),
    ];
    if let (Some(kept), Some(until)) = (&budget.kept_nanos, UnixMicros::from_pb(budget.keeps_until.as_ref())) {
        rows.push(("kept", format!("{}  for holders from before the start, until {}", amount(Some(kept)), at(until))));
    }
    rows.push(("available", amount(budget.available_nanos.as_ref())));
    rows.push(("burns", format!("{}  in ten minutes", amount(budget.burn_nanos.as_ref()))));
    if budget.overcommitted {
        rows.push(("overcommitted", "yes: nothing is granted".to_owned()));
    }
    let paused = limits.iter().filter(|limits| limits.paused).map(|limits| scope(&limits.campaign, &limits.platform));
    rows.extend(paused.map(|scope| ("paused", scope)));
    let heading = format!("{}/{}", budget.client, budget.campaign);
    let mut parts = vec![out::table(&heading, &rows), limit_rows(budget)];
    if !budget.platforms.is_empty() {
        parts.push(platform_rows(budget));
    }
    parts.join("\n")
}

fn at(instant: UnixMicros) -> String {
    jiff::Timestamp::from_microsecond(instant.0).map_or_else(|_| instant.0.to_string(), |at| at.to_string())
}

fn scope(campaign: &str, platform: &str) -> String {
    match (campaign, platform) {
        ("", _) => "client".to_owned(),
        (_, "") => "campaign".to_owned(),
        _ => format!("on {platform}"),
    }
}

fn kind(standing: &ScopeBudget) -> &'static str {
    match standing.limit() {
        LimitKind::Total => "total",
        LimitKind::Daily => "daily",
        LimitKind::Window => "window",
        LimitKind::Unspecified => "",
    }
}

/// What is left of a limit; below 0 where it is overcommitted.
fn left(standing: &ScopeBudget) -> i128 {
    i128::from(standing.limit_micros) * 1_000 - nanos(standing.settled_nanos.as_ref()) - nanos(standing.committed_nanos.as_ref())
}

fn limit_rows(budget: &Budget) -> String {
    let mut rows = vec![["limit", "of", "amount", "settled", "committed", "left", "used"].map(str::to_owned)];
    for standing in &budget.scopes {
        let amount = |nanos: i128| out::amount(nanos, &budget.currency);
        let limit = i128::from(standing.limit_micros) * 1_000;
        let used = nanos(standing.settled_nanos.as_ref()) * 100 / limit.max(1);
        rows.push([
            kind(standing).to_owned(),
            scope(&standing.campaign, &standing.platform),
            amount(limit),
            amount(nanos(standing.settled_nanos.as_ref())),
            amount(nanos(standing.committed_nanos.as_ref())),
            amount(left(standing)),
            format!("{used} %"),
        ]);
    }
    columns(&rows)
}

fn platform_rows(budget: &Budget) -> String {
    let mut rows = vec![["platform", "", "settled", "today", "ten minutes"].map(str::to_owned)];
    for platform in &budget.platforms {
        let amount = |sum: Option<&Int128>| out::amount(nanos(sum), &budget.currency);
        let name = if platform.platform.is_empty() { "(none named)" } else { &platform.platform };
        let sums = [&platform.settled_nanos, &platform.settled_today_nanos, &platform.settled_window_nanos].map(|sum| amount(sum.as_ref()));
        let [settled, today, window] = sums;
        rows.push([name.to_owned(), String::new(), settled, today, window]);
    }
    columns(&rows)
}

/// Names to the left, amounts to the right.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let cell = |(at, text): (usize, &String)| {
        let width = width(at);
        if at < 2 { format!("{text:<width$}") } else { format!("{text:>width$}") }
    };
    let line = |row: &[String; N]| format!("  {}", row.iter().enumerate().map(cell).collect::<Vec<_>>().join("  "));
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn json(budgets: &[GetBudgetResponse]) -> String {
    let one = |got: &GetBudgetResponse| got.budget.as_ref().map(|budget| json_of(budget, &got.limits));
    json!({ "budgets": budgets.iter().filter_map(one).collect::<Vec<_>>() }).to_string()
}

fn json_of(budget: &Budget, limits: &[Limits]) -> Value {
    let amount = |sum: Option<&Int128>| decimal(nanos(sum), 9);
    let scopes = budget.scopes.iter().map(|standing| {
        json!({
            "campaign": standing.campaign, "platform": standing.platform, "limit": kind(standing), "own": standing.own,
            "amount": decimal(standing.limit_micros.into(), 6), "settled": amount(standing.settled_nanos.as_ref()),
            "committed": amount(standing.committed_nanos.as_ref()), "left": decimal(left(standing), 9),
            "overcommitted": standing.overcommitted,
        })
    });
    let platforms = budget.platforms.iter().map(|platform| {
        json!({
            "platform": platform.platform, "settled": amount(platform.settled_nanos.as_ref()),
            "settled_today": amount(platform.settled_today_nanos.as_ref()),
            "settled_window": amount(platform.settled_window_nanos.as_ref()),
        })
    });
    let paused = limits.iter().filter(|l| l.paused).map(|l| json!({ "campaign": l.campaign, "platform": l.platform }));
    json!({
        "client": budget.client, "campaign": budget.campaign, "currency": budget.currency,
        "settled": amount(budget.settled_nanos.as_ref()), "held": amount(budget.held_nanos.as_ref()),
        "leased": amount(budget.leased_nanos.as_ref()), "available": amount(budget.available_nanos.as_ref()),
        "burn": amount(budget.burn_nanos.as_ref()), "holders": budget.holders, "overcommitted": budget.overcommitted,
        "kept": budget.kept_nanos.as_ref().map(|kept| amount(Some(kept))),
        "keeps_until": UnixMicros::from_pb(budget.keeps_until.as_ref()).map(at),
        "limits": scopes.collect::<Vec<_>>(), "platforms": platforms.collect::<Vec<_>>(), "paused": paused.collect::<Vec<_>>(),
    })
}
