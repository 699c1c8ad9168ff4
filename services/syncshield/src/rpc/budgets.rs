//! Budgets between messages and the domain.

use std::collections::BTreeMap;

use kiki::clock::UnixMicros;
use kiki::money::Micros;
use kiki::pb::syncshield::v1 as pb;
use kiki::status;
use tonic::Status;

use super::convert::{at_most, counts, grant};
use crate::domain::budget::{CampaignState, Lease, MAX_SLOTS, Span};
use crate::domain::document;
use crate::domain::ledger::Ledger;
use crate::domain::reconcile::{Charged, MAX_LEASES, Reconciled, Report};
use crate::domain::refusal::Refusal;
use crate::domain::scopes::{DEFAULT_WINDOW_SECONDS, Scope, Standing};

/// An answer about a campaign's money.
pub(super) struct View {
    pub(super) grant: Option<pb::Grant>,
    pub(super) counts: Option<pb::CampaignCounts>,
    pub(super) budget: Option<pb::Budget>,
}

/// A campaign's budget as it stands, with the lease that was asked for.
pub(super) fn view(ledger: &Ledger, client: &str, campaign: &str, lease: Option<(u64, &Lease)>) -> Result<View, Refusal> {
    let state = ledger.state.campaign(client, campaign)?;
    let (now, day) = (ledger.now(), document::local_day(&state.zone, ledger.now())?.0);
    let standings = ledger.state.clients[client].standings(ledger.at(day), campaign, |_| true);
    let grant = lease.map(|(id, lease)| grant(id, client, campaign, &state.currency, lease));
    let budget = pb::Budget {
        client: client.to_owned(),
        campaign: campaign.to_owned(),
        // Without a platform: the limits by platform are among the scopes.
        available_nanos: standings.iter().filter(|s| s.scope.platform.is_empty()).map(Standing::available).min().map(Into::into),
        overcommitted: standings.iter().any(|standing| standing.available() < 0),
        scopes: standings.iter().map(scope).collect(),
        kept_nanos: ledger.outage().map(|_| ledger.kept(state).into()),
        keeps_until: ledger.outage().map(|outage| outage.keeps_until.into()),
        ..budget(state, now, day)
    };
    Ok(View { grant, counts: Some(counts(state)), budget: Some(budget) })
}

/// The budget with the limits that were put for its scopes.
pub(super) fn get(ledger: &Ledger, client: &str, campaign: &str) -> Result<pb::GetBudgetResponse, Refusal> {
    let budget = view(ledger, client, campaign, None)?.budget;
    let currency = &ledger.state.campaign(client, campaign)?.currency;
    let ours = |scope: &Scope| (scope.campaign.is_empty() || scope.campaign == campaign) && scope.currency == *currency;
    let limits = ledger.state.clients[client].limits.iter().filter(|(scope, _)| ours(scope));
    Ok(pb::GetBudgetResponse { budget, limits: limits.map(|(scope, limits)| limits.leaf(scope)).collect() })
}

fn budget(state: &CampaignState, now: UnixMicros, day: UnixMicros) -> pb::Budget {
    let live = |live: bool| state.leases.values().filter(|l| l.lives(now) == live).map(|l| l.committed(now)).sum::<i128>();
    pb::Budget {
        currency: state.currency.clone(),
        limit_total_micros: state.limit_total.get(),
        limit_daily_micros: state.limit_daily.get(),
        settled_nanos: Some(state.settled_nanos.into()),
        held_nanos: Some(live(false).into()),
        leased_nanos: Some(live(true).into()),
        settled_today_nanos: Some(state.settled_on(day).into()),
        committed_today_nanos: Some(state.committed(now, Some(day)).into()),
        platforms: state.platforms.keys().map(|platform| spend(state, platform, now, day)).collect(),
        burn_nanos: Some(state.burn(now, None, DEFAULT_WINDOW_SECONDS).into()),
        holders: u32::try_from(state.other_holders(now, "", DEFAULT_WINDOW_SECONDS)).unwrap_or(u32::MAX),
        ..Default::default()
    }
}

fn spend(state: &CampaignState, platform: &str, now: UnixMicros, day: UnixMicros) -> pb::PlatformSpend {
    let settled = |span| Some(state.settled_in(now, Some(platform), span).into());
    pb::PlatformSpend {
        platform: platform.to_owned(),
        settled_nanos: settled(Span::Total),
        settled_today_nanos: settled(Span::Day(day)),
        settled_window_nanos: settled(Span::Window(DEFAULT_WINDOW_SECONDS)),
    }
}

fn scope(standing: &Standing) -> pb::ScopeBudget {
    pb::ScopeBudget {
        campaign: standing.scope.campaign.clone(),
        platform: standing.scope.platform.clone(),
        limit: standing.kind.leaf().into(),
        own: standing.own,
        version: standing.version,
        limit_micros: Micros::get(standing.limit),
        settled_nanos: Some(standing.settled.into()),
        committed_nanos: Some(standing.committed.into()),
        overcommitted: standing.available() < 0,
    }
}

/// A platform's report as it came.
pub(super) fn report(r: pb::ReconcileRequest) -> Result<Report, Status> {
    at_most("leases", r.leases.len(), MAX_LEASES)?;
    at_most("leases.slots", r.leases.iter().map(|lease| lease.slots.len()).sum(), MAX_SLOTS as usize)?;
    let until = UnixMicros::from_pb(r.until.as_ref()).ok_or_else(|| status::field("until", "is absent or out of range"))?;
    let mut leases = BTreeMap::new();
    for (i, lease) in r.leases.into_iter().enumerate() {
        let charged = match lease.total_nanos {
            Some(_) if !lease.slots.is_empty() => return Err(status::field(&format!("leases[{i}]"), "has slots or a total, not both")),
            Some(total) => Charged::Total(total),
            None => Charged::Slots(lease.slots.iter().map(|slot| (slot.sequence, slot.price_nanos)).collect()),
        };
        if leases.insert(lease.lease_id, charged).is_some() {
            return Err(status::field(&format!("leases[{i}].lease_id"), "is named twice"));
        }
    }
    let (client, campaign, platform, evidence) = (r.client, r.campaign, r.platform, r.evidence_sha256.to_vec());
    Ok(Report { client, campaign, platform, until, leases, evidence, reason: r.reason })
}

pub(super) fn reconciled(done: Reconciled) -> pb::ReconcileResponse {
    pb::ReconcileResponse {
        settled_slots: done.settled,
        voided_slots: done.voided,
        adjusted_leases: done.adjusted,
        freed_nanos: Some(done.freed.into()),
        remaining_leases: done.remaining,
    }
}
