//! Between messages and the domain.

use kiki::caller::Caller;
use kiki::guardrail;
use kiki::ids;
use kiki::leaf;
use kiki::money::{Currency, Micros, Nanos};
use kiki::pb::syncshield::v1 as pb;
use kiki::status::{self, Reason};
use tonic::Status;

use crate::domain::budget::{CampaignState, Lease};
use crate::domain::document;
use crate::domain::ledger::{Item, MAX_ITEMS, Recorded, SlotOutcome};
use crate::domain::moving::ELSEWHERE;
use crate::error::Error;
use crate::store::Log;

/// Signals of one request: there are not more.
const MAX_SIGNALS: usize = 32;

pub(super) fn at_most(field: &str, count: usize, limit: usize) -> Result<(), Status> {
    if count <= limit { Ok(()) } else { Err(Reason::TooMany.status(format!("{field}: {count}; at most {limit} are taken"))) }
}

pub(super) fn check_key(field: &'static str, key: &str) -> Result<(), Status> {
    ids::check(field, key).map_err(|e| Reason::FieldInvalid.status(e.to_string()))
}

pub(super) fn check_client(client: &str) -> Result<(), Status> {
    check_key("client", client)?;
    if client == leaf::OPERATOR { Err(status::field("client", format!("{client:?} is the operator's own"))) } else { Ok(()) }
}

pub(super) fn check_log(log: &Log, field: &str, log_id: &str) -> Result<(), Status> {
    let ours = log_id.is_empty() || log_id == log.id();
    if ours { Ok(()) } else { Err(Reason::NotFound.status(format!("{field}: this is {:?}, not {log_id:?}", log.id()))) }
}

pub(super) fn position(log: &Log, field: &str, position: Option<leaf::Position>) -> Result<u64, Status> {
    let Some(position) = position else { return Ok(0) };
    check_log(log, field, &position.log_id)?;
    let size = *log.committed().borrow();
    if position.index > size { Err(Error::OutOfRange { asked: position.index, size }.into()) } else { Ok(position.index) }
}

/// Whether the policy in force allows a bid.
pub(crate) fn check(log: &Log, request: &pb::CheckRequest) -> Result<pb::CheckResponse, Status> {
    let catalog = log.catalog();
    let catalog = catalog.borrow();
    let (_, policy) = catalog.policy.as_ref().ok_or(Error::NoPolicy)?;
    if !catalog.campaigns.iter().any(|entry| entry.client == request.client && entry.campaign.campaign == request.campaign) {
        return Err(Reason::NotFound.status(format!("no campaign {:?}", format!("{}/{}", request.client, request.campaign))));
    }
    let currency = Currency::parse(&request.currency).map_err(|e| status::field("currency", e))?;
    if request.price_nanos < 0 {
        return Err(status::field("price_nanos", format!("{} is below 0", request.price_nanos)));
    }
    at_most("categories", request.categories.len(), guardrail::MAX_ENTRIES)?;
    at_most("signals", request.signals.len(), MAX_SIGNALS)?;
    let bid = guardrail::Bid {
        client: &request.client,
        campaign: &request.campaign,
        platform: &request.platform,
        currency,
        price: Nanos::new(request.price_nanos),
        country: &request.country,
        categories: guardrail::List::Kept(&request.categories),
        places: guardrail::List::Read(&[&request.domain]),
        predicted_ltv: Micros::new(request.predicted_ltv_micros),
        signals: request.signals().fold(0, |bits, signal| bits | 1 << (signal as u32)),
        at: log.now(),
    };
    let verdict = policy.verdict(&bid);
    let refusals = verdict.refusals;
    if let Some(shadow) = &catalog.shadow {
        log.shadow().count(shadow, refusals, shadow.check(&bid));
    }
    Ok(pb::CheckResponse {
        allowed: refusals.is_empty(),
        reasons: refusals.iter().map(i32::from).collect(),
        policy_version: policy.version,
        policy_digest: policy.digest.to_vec().into(),
        rules: policy.named(&verdict),
    })
}

pub(super) fn grant(lease_id: u64, client: &str, campaign: &str, currency: &str, lease: &Lease) -> pb::Grant {
    pb::Grant {
        lease_id,
        epoch: lease.epoch,
        client: client.to_owned(),
        campaign: campaign.to_owned(),
        currency: currency.to_owned(),
        amount_micros: lease.amount.get(),
        granted_at: Some(lease.granted_at.into()),
        expires_at: Some(lease.expires_at.into()),
        day_end: Some(lease.day_end.into()),
        slots: lease.slots,
        mark_sequence: lease.mark_sequence,
        mark_nanos: i64::try_from(lease.mark_nanos).unwrap_or(i64::MAX),
    }
}

pub(super) fn counts(state: &CampaignState) -> pb::CampaignCounts {
    pb::CampaignCounts { billed_impressions: state.billed_impressions, conversions: state.conversions }
}

pub(super) fn settlement(i: usize, settlement: Option<leaf::Settlement>) -> Result<leaf::Settlement, Status> {
    let path = format!("items[{i}].settlement");
    let settlement = settlement.ok_or_else(|| status::field(&path, "is missing"))?;
    document::check_settlement(&path, &settlement).map_err(Error::from)?;
    Ok(settlement)
}

pub(super) fn void(i: usize, void: Option<leaf::Void>) -> Result<leaf::Void, Status> {
    let path = format!("items[{i}].void");
    let void = void.ok_or_else(|| status::field(&path, "is missing"))?;
    document::check_void(&path, &void).map_err(Error::from)?;
    Ok(void)
}

pub(super) fn items(caller: &Caller, items: Vec<pb::RecordItem>) -> Result<Vec<(String, Item)>, Status> {
    use pb::record_item::Body;
    at_most("items", items.len(), MAX_ITEMS)?;
    let convert = |(i, item): (usize, pb::RecordItem)| {
        caller.act_for(&item.client)?;
        if !matches!(item.body, Some(Body::Purchase(_))) {
            caller.act_for_all()?; // a tenant reports its purchases, and nothing else
        }
        let body = match item.body.ok_or_else(|| status::field(&format!("items[{i}].body"), "is missing"))? {
            Body::Decisions(batch) => Item::Decisions(batch),
            Body::Purchase(purchase) => Item::Purchase(outcome(purchase)),
            Body::Evidence(evidence) => Item::Evidence(evidence),
            Body::ClosePeriod(close) => Item::ClosePeriod(leaf::PeriodClosed {
                currency: close.currency,
                month: close.month,
                period_start: close.period_start,
                period_end: close.period_end,
                ..Default::default()
            }),
            Body::Invoice(invoice) => Item::Invoice(invoice),
            Body::InvoiceEvent(event) => Item::InvoiceEvent(event),
            Body::Access(access) => Item::Access(access),
        };
        Ok((item.client, body))
    };
    items.into_iter().enumerate().map(convert).collect()
}

fn outcome(purchase: pb::Purchase) -> leaf::Outcome {
    leaf::Outcome {
        event_id: purchase.event_id,
        occurred_at: purchase.occurred_at,
        customer: purchase.customer,
        currency: purchase.currency,
        value_micros: purchase.value_micros,
        lease_id: purchase.receipt_lease_id,
        sequence: purchase.receipt_sequence,
        has_receipt: purchase.receipt_lease_id > 0,
        sealed: None, // of `personal`, once its key is durable
    }
}

pub(super) fn recorded(log_id: &str, recorded: Recorded) -> pb::RecordResult {
    pb::RecordResult {
        // Of a client that moved here, what it recorded before stands in another log.
        position: (recorded.index != ELSEWHERE).then(|| leaf::Position { log_id: log_id.to_owned(), index: recorded.index }),
        client_seq: recorded.client_seq,
        duplicate: recorded.duplicate,
        attributed_campaign: recorded.attributed_campaign,
    }
}

pub(super) fn slot_results(outcomes: Vec<SlotOutcome>) -> Vec<pb::SlotResult> {
    let convert = |outcome| {
        let (status, reason) = match outcome {
            SlotOutcome::Applied => (pb::SlotStatus::Applied, String::new()),
            SlotOutcome::Duplicate => (pb::SlotStatus::Duplicate, String::new()),
            SlotOutcome::Conflict(reason) => (pb::SlotStatus::Conflict, reason),
            SlotOutcome::Refused(reason) => (pb::SlotStatus::Refused, reason),
        };
        pb::SlotResult { status: status.into(), reason }
    };
    outcomes.into_iter().map(convert).collect()
}
