//! The HTTP face: `POST /check` with the same checks and errors as gRPC, and `GET /health`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use serde::{Deserialize, Serialize};

use crate::rpc::check;
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

pub(crate) fn router(log: Log) -> Router {
    Router::new()
        .route("/check", post(answer_check))
        .route("/health", get(health))
        .layer(axum::extract::DefaultBodyLimit::max(64 << 10))
        .with_state(log)
}

async fn health(State(log): State<Log>) -> Json<serde_json::Value> {
    Json(serde_json::json!({ "log_id": log.id(), "leaves": *log.committed().borrow() }))
}

async fn answer_check(State(log): State<Log>, Json(body): Json<CheckBody>) -> Response {
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
        Err(status) => {
            let code = match status.code() {
                tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
                tonic::Code::NotFound => StatusCode::NOT_FOUND,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            (code, Json(serde_json::json!({ "error": status.message() }))).into_response()
        }
    }
}
