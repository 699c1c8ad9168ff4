//! `GET /click`: sends the customer on to the landing page, with the receipt for the advertiser to keep.
//!
//! Only to a landing page of the campaign that the receipt names: this is no open redirect.

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::{Web, malformed};
use crate::domain::click::with_receipt;
use crate::domain::openrtb::Malformed;
use crate::domain::receipt::Purpose;

#[derive(Debug, Deserialize)]
pub(super) struct Click {
    #[serde(default)]
    r: String,
    #[serde(default)]
    to: String,
}

pub(super) async fn click(State(web): State<Web>, Query(Click { r, to }): Query<Click>) -> Response {
    let refused = |field: &str, message: String| malformed(Malformed { field: field.to_owned(), message });
    let receipt = match web.notices.open(&r, Purpose::Click) {
        Ok(receipt) => receipt,
        Err(error) => return refused("r", error.to_string()),
    };
    let Some(campaign) = web.engine.replicas.campaign(&receipt.client, &receipt.campaign) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if to.is_empty() || !campaign.creatives.iter().any(|creative| creative.click_url == to) {
        return refused("to", "is no landing page of the campaign".to_owned());
    }
    match header::HeaderValue::from_str(&with_receipt(&to, &r)) {
        Ok(location) => (StatusCode::FOUND, [(header::LOCATION, location)]).into_response(),
        Err(_) => refused("to", "is no address".to_owned()),
    }
}
