//! `POST /spend`: reserve, settle or void one impression, for callers without gRPC. It calls the gRPC service's own handlers,
//! so roles, checks and effects are the same.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{Extensions, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::sync_shield_service_server::SyncShieldService as _;
use kiki::status;
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::Status;

use super::{caller_of, refusal};
use crate::rpc::Service;

/// The body: an object with one of these fields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Spend {
    Reserve(Reserve),
    Settle(Settle),
    Void(Void),
}

/// Fields as in `kiki.syncshield.v1.ReserveRequest`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reserve {
    key: String,
    client: String,
    campaign: String,
    holder: String,
    max_nanos: i64,
    #[serde(default)]
    platform: String,
}

/// Fields as in `kiki.syncshield.v1.SettleItem` and its settlement; times as `2026-01-31T12:00:00Z`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settle {
    client: String,
    campaign: String,
    lease_id: u64,
    #[serde(default)]
    sequence: u32,
    max_nanos: i64,
    price_nanos: i64,
    bid_at: String,
    noticed_at: String,
    #[serde(default)]
    exchange: String,
    #[serde(default)]
    platform: String,
    #[serde(default)]
    predicted_ltv_micros: i64,
    #[serde(default)]
    model: String,
    #[serde(default)]
    horizon_days: u32,
}

/// Fields as in `kiki.syncshield.v1.VoidItem` and its void.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Void {
    client: String,
    campaign: String,
    lease_id: u64,
    #[serde(default)]
    sequence: u32,
    max_nanos: i64,
    #[serde(default)]
    loss_reason: u32,
}

pub(super) async fn answer(State(service): State<Arc<Service>>, extensions: Extensions, Json(spend): Json<Spend>) -> Response {
    let done = match spend {
        Spend::Reserve(reserve) => reserved(&service, &extensions, reserve).await,
        Spend::Settle(settle) => settled(&service, &extensions, settle).await,
        Spend::Void(void) => voided(&service, &extensions, void).await,
    };
    done.map_or_else(|status| refusal(&status), |(code, body)| (code, [(header::CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// The message as gRPC would have brought it, from a caller that may call the RPC.
fn from<T>(extensions: &Extensions, rpc: &str, message: T) -> Result<tonic::Request<T>, Status> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(caller_of(extensions, rpc)?);
    Ok(request)
}

type Done = Result<(StatusCode, Value), Status>;

async fn reserved(service: &Service, extensions: &Extensions, reserve: Reserve) -> Done {
    let Reserve { key, client, campaign, holder, max_nanos, platform } = reserve;
    let request = pb::ReserveRequest { key, client, campaign, holder, max_nanos, platform };
    let pb::ReserveResponse { grant, duplicate } = service.reserve(from(extensions, "Reserve", request)?).await?.into_inner();
    let grant = grant.unwrap_or_default();
    let expires_at = UnixMicros::from_pb(grant.expires_at.as_ref()).and_then(|at| Timestamp::from_microsecond(at.0).ok());
    let body = json!({
        "lease_id": grant.lease_id,
        "epoch": grant.epoch,
        "amount_micros": grant.amount_micros,
        "expires_at": expires_at.map(|at| at.to_string()),
        "duplicate": duplicate,
    });
    Ok((StatusCode::OK, body))
}

async fn settled(service: &Service, extensions: &Extensions, settle: Settle) -> Done {
    let settlement = leaf::Settlement {
        sequence: settle.sequence,
        max_nanos: settle.max_nanos,
        price_nanos: settle.price_nanos,
        bid_at: Some(instant("settle.bid_at", &settle.bid_at)?),
        noticed_at: Some(instant("settle.noticed_at", &settle.noticed_at)?),
        exchange: settle.exchange,
        platform: settle.platform,
        predicted_ltv_micros: settle.predicted_ltv_micros,
        model: settle.model,
        horizon_days: settle.horizon_days,
        ..Default::default()
    };
    let (client, campaign, lease_id) = (settle.client, settle.campaign, settle.lease_id);
    let items = vec![pb::SettleItem { client, campaign, lease_id, settlement: Some(settlement) }];
    Ok(slot(service.settle(from(extensions, "Settle", pb::SettleRequest { items })?).await?.into_inner().results))
}

async fn voided(service: &Service, extensions: &Extensions, void: Void) -> Done {
    let Void { client, campaign, lease_id, sequence, max_nanos, loss_reason } = void;
    let void = Some(leaf::Void { sequence, max_nanos, loss_reason, ..Default::default() });
    let items = vec![pb::VoidItem { client, campaign, lease_id, void }];
    Ok(slot(service.void(from(extensions, "Void", pb::VoidRequest { items })?).await?.into_inner().results))
}

/// What became of the slot. What moved nothing although it should have is a conflict, which no client takes for success.
fn slot(results: Vec<pb::SlotResult>) -> (StatusCode, Value) {
    let result = results.into_iter().next().unwrap_or_default();
    let code = match result.status() {
        pb::SlotStatus::Applied | pb::SlotStatus::Duplicate => StatusCode::OK,
        pb::SlotStatus::Unspecified | pb::SlotStatus::Refused | pb::SlotStatus::Conflict => StatusCode::CONFLICT,
    };
    (code, json!({ "status": result.status().as_str_name(), "error": result.reason }))
}

fn instant(field: &str, text: &str) -> Result<prost_types::Timestamp, Status> {
    let at: Timestamp = text.parse().map_err(|_| status::field(field, format!("{text:?} is not of the form 2026-01-31T12:00:00Z")))?;
    Ok(UnixMicros(at.as_microsecond()).into())
}
