//! The HTTP face: `POST /check` and `POST /spend` with the same checks and errors as gRPC, `GET /health`, and the log as C2SP
//! tlog-tiles: `GET /checkpoint`, `GET /tile/...`, and `GET /rotations` for those who know an earlier key. Tiles come from the log
//! itself, not from the files that are written for other
//! servers, and only up to the newest checkpoint. Entry bundles have every client's leaves: whoever may not tail the
//! whole log does not get them.

mod spend;

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{Extensions, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kiki::caller::Caller;
use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use kiki::runtime;
use kiki::tlog::tile::{Kind, Tile};
use serde::{Deserialize, Serialize};

use crate::SERVICE;
use crate::error::Error;
use crate::rpc::{Service, check};
use crate::store::Log;

/// The body of `POST /check`; fields as in `kiki.syncshield.v1.CheckRequest`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckBody {
    client: String,
    campaign: String,
    #[serde(default)]
    platform: String,
    currency: String,
    price_nanos: i64,
    #[serde(default)]
    country: String,
    #[serde(default)]
    categories: Vec<String>,
    #[serde(default)]
    domain: String,
    #[serde(default)]
    predicted_ltv_micros: i64,
    /// Names of `kiki.log.v1.Signal`.
    #[serde(default)]
    signals: Vec<String>,
}

#[derive(Debug, Serialize)]
struct CheckAnswer {
    allowed: bool,
    reasons: Vec<&'static str>,
    policy_version: u64,
    policy_digest: String,
    rules: Vec<String>,
}

pub(crate) fn router(log: Log, service: Arc<Service>) -> Router {
    let spend = Router::new().route("/spend", post(spend::answer)).with_state(service);
    Router::new()
        .route("/check", post(answer_check))
        .route("/health", get(health))
        .route("/checkpoint", get(checkpoint))
        .route("/rotations", get(rotations))
        .route("/tile/{*path}", get(tile))
        .with_state(log)
        .merge(spend)
        .layer(axum::extract::DefaultBodyLimit::max(64 << 10))
}

async fn health(State(log): State<Log>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "log_id": log.id(), "leaves": *log.committed().borrow() }))
}

async fn answer_check(State(log): State<Log>, extensions: Extensions, Json(body): Json<CheckBody>) -> Response {
    if let Err(status) = caller_of(&extensions, "Check").and_then(|caller| caller.act_for(&body.client)) {
        return refusal(&status);
    }
    let CheckBody { client, campaign, platform, currency, price_nanos, country, categories, domain, predicted_ltv_micros, signals } = body;
    if let Some(unknown) = signals.iter().find(|name| leaf::Signal::from_str_name(name).is_none()) {
        return (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "error": format!("signals: {unknown:?} is none") }))).into_response();
    }
    let signals = signals.iter().filter_map(|name| leaf::Signal::from_str_name(name)).map(i32::from).collect();
    let request =
        pb::CheckRequest { client, campaign, platform, currency, price_nanos, country, categories, domain, predicted_ltv_micros, signals };
    match check(&log, &request) {
        Ok(answer) => {
            let reasons =
                answer.reasons.iter().filter_map(|reason| leaf::Refusal::try_from(*reason).ok()).map(|r| r.as_str_name()).collect();
            let policy_digest = answer.policy_digest.iter().map(|byte| format!("{byte:02x}")).collect();
            let pb::CheckResponse { allowed, policy_version, rules, .. } = answer;
            Json(CheckAnswer { allowed, reasons, policy_version, policy_digest, rules }).into_response()
        }
        Err(status) => refusal(&status),
    }
}

fn refusal(status: &tonic::Status) -> Response {
    let code = match status.code() {
        tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
        tonic::Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        tonic::Code::PermissionDenied => StatusCode::FORBIDDEN,
        tonic::Code::NotFound => StatusCode::NOT_FOUND,
        tonic::Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        tonic::Code::FailedPrecondition | tonic::Code::Aborted | tonic::Code::AlreadyExists => StatusCode::CONFLICT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, [(header::CACHE_CONTROL, "no-store")], Json(serde_json::json!({ "error": status.message() }))).into_response()
}

/// The newest checkpoint: it changes, so nobody keeps it.
async fn checkpoint(State(log): State<Log>) -> Response {
    match log.checkpoint(0).await {
        Ok(signed) => {
            let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
            (headers, signed.note.to_string()).into_response()
        }
        Err(error) => refusal(&error.into()),
    }
}

/// Every change of the key that signs, for those who know an earlier one; empty where there was none.
async fn rotations(State(log): State<Log>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, log.rotations().to_string()).into_response()
}

/// A tile: it never changes, so everybody may keep it for ever.
async fn tile(State(log): State<Log>, Path(path): Path<String>, extensions: Extensions) -> Response {
    let Ok(tile) = format!("tile/{path}").parse::<Tile>() else { return no_tile() };
    if tile.kind() == Kind::Entries
        && let Err(status) = caller_of(&extensions, "Tail").and_then(|caller| caller.act_for_all())
    {
        return refusal(&status);
    }
    match log.tile(&tile).await {
        Ok(Some(bytes)) => {
            let kept = [(header::CONTENT_TYPE, "application/octet-stream"), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
            (kept, bytes).into_response()
        }
        Ok(None) | Err(Error::Pruned { .. }) => no_tile(),
        Err(error) => refusal(&error.into()),
    }
}

/// Not kept, because it may come to be.
fn no_tile() -> Response {
    (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-store")], "no such tile under the newest checkpoint\n").into_response()
}

/// Who calls, if that RPC is theirs to call.
fn caller_of(extensions: &Extensions, rpc: &str) -> Result<Caller, tonic::Status> {
    runtime::caller_of(extensions, SERVICE, rpc)
}
