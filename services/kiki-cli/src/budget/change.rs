//! Commands that leave a record: limits, pauses, corrections, reports.

use std::collections::BTreeSet;
use std::path::Path;

use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use prost::Message as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Adjust, Kind, Reconcile, Scope, Set, Shield, budgets, get, report};
use crate::error::{Doing as _, Failure, rpc};
use crate::out;

/// A report of 65,536 open slots takes one request; more than so many would be 67 million.
const MAX_REQUESTS: usize = 1_024;

pub(super) async fn limits(shield: &mut Shield, scope: &Scope, set: &Set, as_json: bool) -> Result<String, Failure> {
    let (mut limits, version) = in_force(shield, scope).await?;
    let changes = set.total.is_some() || set.daily.is_some() || set.window.is_some() || set.window_seconds.is_some();
    if changes {
        limits.limit_total_micros = set.total.unwrap_or(limits.limit_total_micros);
        limits.limit_daily_micros = set.daily.unwrap_or(limits.limit_daily_micros);
        limits.limit_window_micros = set.window.unwrap_or(limits.limit_window_micros);
        limits.window_seconds = set.window_seconds.unwrap_or(limits.window_seconds);
        limits = put(shield, scope, limits, version).await?;
    }
    Ok(said(scope, &limits, as_json))
}

pub(super) async fn pause(shield: &mut Shield, scope: &Scope, paused: bool, as_json: bool) -> Result<String, Failure> {
    let (mut limits, version) = in_force(shield, scope).await?;
    if limits.paused != paused {
        limits.paused = paused;
        limits = put(shield, scope, limits, version).await?;
    }
    Ok(said(scope, &limits, as_json))
}

/// The limits of a scope as they are, and their version; of version 0 where none were put.
async fn in_force(shield: &mut Shield, scope: &Scope) -> Result<(leaf::Limits, u64), Failure> {
    let budgets = budgets(shield, &scope.client, scope.campaign.clone()).await?;
    let mut currencies: BTreeSet<&str> = budgets.iter().filter_map(|b| b.budget.as_ref()).map(|b| b.currency.as_str()).collect();
    currencies.retain(|currency| scope.currency.as_ref().is_none_or(|wanted| wanted == currency));
    let mut currencies = currencies.into_iter();
    let currency = match (currencies.next(), currencies.next()) {
        (Some(currency), None) => currency.to_owned(),
        (None, _) => return Err(Failure::new(format!("no campaign of {} is in {:?}", scope.client, scope.currency))),
        (Some(one), Some(other)) => return Err(Failure::new(format!("--currency: there are campaigns in {one}, {other}; say which"))),
    };
    let (campaign, platform) = (scope.campaign.clone().unwrap_or_default(), scope.platform.clone().unwrap_or_default());
    let ours = |limits: &&leaf::Limits| limits.campaign == campaign && limits.platform == platform && limits.currency == currency;
    let found = budgets.iter().flat_map(|budget| &budget.limits).find(ours).cloned();
    let limits = found.unwrap_or(leaf::Limits { campaign, platform, currency, ..Default::default() });
    let version = limits.version;
    Ok((limits, version))
}

async fn put(shield: &mut Shield, scope: &Scope, limits: leaf::Limits, version: u64) -> Result<leaf::Limits, Failure> {
    // The zone is that of the campaigns, which the writer knows.
    let asked = leaf::Limits { zone: String::new(), ..limits.clone() };
    let request = pb::PutLimitsRequest { client: scope.client.clone(), limits: Some(asked), expected_version: Some(version) };
    let put = shield.put_limits(request).await.map_err(|status| rpc("putting the limits", &status))?.into_inner();
    Ok(leaf::Limits { version: put.version, ..limits })
}

fn said(scope: &Scope, limits: &leaf::Limits, as_json: bool) -> String {
    let amount = |micros: i64| (micros > 0).then(|| kiki::money::decimal(micros.into(), 6));
    if as_json {
        return json!({
            "client": scope.client, "campaign": limits.campaign, "platform": limits.platform, "currency": limits.currency,
            "version": limits.version, "paused": limits.paused, "total": amount(limits.limit_total_micros),
            "daily": amount(limits.limit_daily_micros), "window": amount(limits.limit_window_micros),
            "window_seconds": limits.window_seconds,
        })
        .to_string();
    }
    let read = |micros: i64| if micros > 0 { out::amount(i128::from(micros) * 1_000, &limits.currency) } else { "none".to_owned() };
    let names = [scope.client.as_str(), &limits.campaign, &limits.platform];
    let heading = names.iter().filter(|name| !name.is_empty()).copied().collect::<Vec<_>>().join("/");
    let seconds = if limits.window_seconds == 0 { 600 } else { limits.window_seconds };
    let rows = [
        ("version", if limits.version == 0 { "none was put".to_owned() } else { limits.version.to_string() }),
        ("total", read(limits.limit_total_micros)),
        ("daily", read(limits.limit_daily_micros)),
        ("window", format!("{} in {seconds} s", read(limits.limit_window_micros))),
        ("paused", if limits.paused { "yes" } else { "no" }.to_owned()),
    ];
    out::table(&heading, &rows)
}

pub(super) async fn adjust(shield: &mut Shield, adjust: Adjust, as_json: bool) -> Result<String, Failure> {
    let (_, digest) = read(&adjust.evidence)?;
    let budget = get(shield, &adjust.client, &adjust.campaign).await?.budget.unwrap_or_default();
    let kind = match adjust.kind {
        Kind::InvalidTraffic => leaf::AdjustmentKind::InvalidTraffic,
        Kind::Platform => leaf::AdjustmentKind::Platform,
    };
    let mut adjustment = leaf::SpendAdjustment {
        campaign: adjust.campaign,
        platform: adjust.platform,
        currency: budget.currency.clone(),
        amount_nanos: adjust.amount,
        kind: kind.into(),
        reason: adjust.reason,
        evidence_sha256: digest.into(),
        accounted_at: Some(instant(adjust.at).into()),
        ..Default::default()
    };
    // The same command given again has the same key, and another correction of the same statement another one.
    let key = adjust.key.unwrap_or_else(|| hex::encode(&Sha256::digest(adjustment.encode_to_vec())[..16]));
    adjustment.key.clone_from(&key);
    let request = pb::AdjustRequest { client: adjust.client, adjustment: Some(adjustment) };
    let done = shield.adjust(request).await.map_err(|status| rpc("recording the correction", &status))?.into_inner();
    let index = done.position.map_or(0, |position| position.index);
    if as_json {
        let amount = kiki::money::decimal(adjust.amount.into(), 9);
        return Ok(
            json!({ "key": key, "leaf": index, "amount": amount, "currency": budget.currency, "duplicate": done.duplicate }).to_string()
        );
    }
    let what = if done.duplicate { "was recorded before" } else { "recorded" };
    Ok(format!("{} {what} as leaf {index}, under the key {key}", out::amount(adjust.amount.into(), &budget.currency)))
}

pub(super) async fn reconcile(shield: &mut Shield, args: Reconcile, as_json: bool) -> Result<String, Failure> {
    let (csv, digest) = read(&args.report)?;
    let leases = report::read(&args.report.display().to_string(), &csv)?;
    let currency = get(shield, &args.client, &args.campaign).await?.budget.unwrap_or_default().currency;
    let request = pb::ReconcileRequest {
        client: args.client,
        campaign: args.campaign,
        platform: args.platform,
        until: Some(instant(args.until).into()),
        leases,
        evidence_sha256: digest.into(),
        reason: args.reason,
    };
    let (mut done, mut freed) = (pb::ReconcileResponse::default(), 0);
    for _ in 0..MAX_REQUESTS {
        let more = shield.reconcile(request.clone()).await.map_err(|status| rpc("taking in the report", &status))?.into_inner();
        done.settled_slots += more.settled_slots;
        done.voided_slots += more.voided_slots;
        done.adjusted_leases += more.adjusted_leases;
        freed += more.freed_nanos.as_ref().map_or(0, i128::from);
        done.remaining_leases = more.remaining_leases;
        if more.remaining_leases == 0 {
            break;
        }
    }
    if done.remaining_leases > 0 {
        let left = done.remaining_leases;
        return Err(Failure::new(format!("{left} leases are left after {MAX_REQUESTS} requests; the same command goes on with them")));
    }
    if as_json {
        return Ok(json!({
            "settled_bids": done.settled_slots, "freed_bids": done.voided_slots, "adjusted_leases": done.adjusted_leases,
            "freed": kiki::money::decimal(freed, 9), "currency": currency,
        })
        .to_string());
    }
    let rows = [
        ("settled", format!("{} bids that the report names", out::grouped(done.settled_slots))),
        ("freed", format!("{} bids that it does not name", out::grouped(done.voided_slots))),
        ("corrected", format!("{} leases to the report's total", out::grouped(done.adjusted_leases.into()))),
        ("free again", out::amount(freed, &currency)),
    ];
    Ok(out::table("reconciled", &rows))
}

fn read(path: &Path) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let bytes = std::fs::read(path).doing(format_args!("reading {}", path.display()))?;
    let digest = Sha256::digest(&bytes).to_vec();
    Ok((bytes, digest))
}

fn instant(at: jiff::Timestamp) -> UnixMicros {
    UnixMicros(at.as_microsecond())
}
