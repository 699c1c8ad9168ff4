//! The HTTP face: OpenRTB bid requests, notices and clicks.
//!
//! | request | answers |
//! |---|---|
//! | `POST /openrtb2/{exchange}`, JSON or protobuf ([`format`]), gzip or not | 200 with bids in the same format, or with `nbr` where the exchange wants reasons; 204 with `x-kiki-no-bid` (a reason) and `x-kiki-no-bid-detail`; 400, 415 |
//! | `GET` or `POST /notice/{win,bill,loss}?r=&price=&loss=&min=` | 200, 400, 409 against an earlier one, 410 past the deadline, 503 to be sent again |
//! | `GET /click?r=&to=` | 302 to the landing page with `kiki_receipt`, 400, 404 |

mod click;
mod format;
mod openrtb;

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use kiki::money::Nanos;
use serde::Deserialize;
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

use crate::domain::notice::Word;
use crate::domain::openrtb::{MAX_BODY_BYTES, Malformed, micros_exact};
use crate::domain::receipt::{Purpose, ReceiptError};
use crate::engine::Engine;
use crate::error::Error;
use crate::notices::{Heard, Notices, Outcome, Why};

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Web {
    pub(crate) engine: Arc<Engine>,
    pub(crate) notices: Arc<Notices>,
    /// Where exchanges and browsers reach this.
    pub(crate) public_url: Arc<str>,
}

/// The routes.
pub(crate) fn router(web: Web) -> Router {
    Router::new()
        .route("/openrtb2/{exchange}", post(openrtb::bid))
        .route("/notice/{kind}", get(notice).post(notice))
        .route("/click", get(click::click))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES + 1)) // of what was unpacked; one byte more, so that the refusal can say why
        .layer(RequestDecompressionLayer::new())
        .layer(CompressionLayer::new())
        .with_state(web)
}

#[derive(Debug, Deserialize)]
struct Noticed {
    #[serde(default)]
    r: String,
    price: Option<String>,
    loss: Option<String>,
    min: Option<String>,
}

async fn notice(State(web): State<Web>, Path(kind): Path<String>, Query(noticed): Query<Noticed>) -> Response {
    let (receipt, word) = match web.notices.open(&noticed.r, Purpose::Notice).and_then(|receipt| Ok((receipt, word(&kind, &noticed)?))) {
        Ok(notice) => notice,
        Err(Error::Field { path, problem }) => return malformed(Malformed { field: path, message: problem }),
        Err(error) => return malformed(Malformed { field: "r".to_owned(), message: error.to_string() }),
    };
    match web.notices.take_one(Heard { receipt, word, min_to_win: min_to_win(&noticed) }).await {
        Ok(outcome) => answer(outcome),
        Err(error) => {
            let body = Json(serde_json::json!({ "status": "unavailable", "reason": error.to_string() }));
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

/// A price comes as a CPM in decimal: its millionths are the impression's nanos.
fn word(kind: &str, noticed: &Noticed) -> Result<Word, Error> {
    let price = || {
        let text = noticed.price.as_deref().unwrap_or_default();
        let nanos = micros_exact(text).filter(|nanos| *nanos >= 0);
        nanos.map(Nanos::new).ok_or_else(|| Error::field("price", format!("{text:?} is no CPM of at most six decimals")))
    };
    match kind {
        "win" => Ok(Word::Win(price()?)),
        "bill" => Ok(Word::Bill(price()?)),
        // An exchange that leaves the macro in place gives no reason, which is reason 0.
        "loss" => Ok(Word::Loss(noticed.loss.as_deref().and_then(|loss| loss.parse().ok()).unwrap_or(0))),
        _ => Err(Error::field("kind", format!("{kind:?} is none of win, bill and loss"))),
    }
}

/// An exchange that leaves the macro in place does not say.
fn min_to_win(noticed: &Noticed) -> Option<Nanos> {
    noticed.min.as_deref().and_then(micros_exact).map(Nanos::new)
}

fn answer(outcome: Outcome) -> Response {
    let name = outcome.as_str();
    let (status, reason) = match outcome {
        Outcome::Refused(Why::Receipt(error @ ReceiptError::TooOld { .. })) => (StatusCode::GONE, error.to_string()),
        Outcome::Conflict(why) => (StatusCode::CONFLICT, why),
        Outcome::Refused(why) => (StatusCode::BAD_REQUEST, why.to_string()),
        _ => (StatusCode::OK, String::new()),
    };
    (status, Json(serde_json::json!({ "status": name, "reason": reason }))).into_response()
}

fn malformed(error: Malformed) -> Response {
    let body = serde_json::json!({ "field": error.field, "message": error.message });
    (StatusCode::BAD_REQUEST, Json(body)).into_response()
}
