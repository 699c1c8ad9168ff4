//! The two ways to write a bid request and its response: JSON, and protobuf of `proto/openrtb/v2/openrtb.proto`.
//!
//! A request is read by one reader, whichever way it is written: it is decided alike, and a refusal names the same field.

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiki::pb::openrtb::v2 as pb;
use prost::Message as _;

use crate::domain::openrtb::{self, BidResponse, Document, Malformed, NoBid, from_micros};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Protobuf,
}

const PROTOBUF: &str = "application/x-protobuf";

impl Format {
    /// By the content type; exchanges that send none mean JSON.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Some(Self::Json) };
        let essence = value.to_str().ok()?.split(';').next().unwrap_or_default().trim();
        match essence.to_ascii_lowercase().as_str() {
            PROTOBUF | "application/protobuf" | "application/octet-stream" => Some(Self::Protobuf),
            // Exchanges' own names of JSON: none of them is another format.
            "" | "text/plain" | "application/x-www-form-urlencoded" => Some(Self::Json),
            other => other.ends_with("json").then_some(Self::Json),
        }
    }

    /// The answer to a content type that is neither.
    pub(super) fn unknown() -> Response {
        let message = format!("content-type: application/json and {PROTOBUF} are read");
        (StatusCode::UNSUPPORTED_MEDIA_TYPE, Json(serde_json::json!({ "field": "content-type", "message": message }))).into_response()
    }

    pub(super) fn read(self, body: &[u8]) -> Result<Document<'_>, Malformed> {
        match self {
            Self::Json => Document::json(body),
            Self::Protobuf => Document::protobuf(body),
        }
    }

    /// A reason in place of bids.
    pub(super) fn no_bid(self, NoBid { id, nbr }: NoBid) -> Response {
        match self {
            Self::Json => Json(NoBid { id, nbr }).into_response(),
            Self::Protobuf => {
                let message = pb::BidResponse { id, nbr: Some(nbr), ..Default::default() };
                ([(header::CONTENT_TYPE, PROTOBUF)], message.encode_to_vec()).into_response()
            }
        }
    }

    pub(super) fn write(self, response: BidResponse) -> Response {
        match self {
            Self::Json => Json(response).into_response(),
            Self::Protobuf => ([(header::CONTENT_TYPE, PROTOBUF)], message(response).encode_to_vec()).into_response(),
        }
    }
}

fn message(response: BidResponse) -> pb::BidResponse {
    let BidResponse { id, cur, seatbid } = response;
    let seat = |seat: openrtb::SeatBid| pb::SeatBid { bid: seat.bid.into_iter().map(bid).collect(), seat: seat.seat };
    pb::BidResponse { id, seatbid: seatbid.into_iter().map(seat).collect(), cur, nbr: None }
}

fn bid(bid: openrtb::Bid) -> pb::Bid {
    let whole = |number: u32| i32::try_from(number).ok();
    pb::Bid {
        id: bid.id,
        impid: bid.impid,
        // The double that is nearest to the exact decimal; nothing reads it back as money.
        price: from_micros(bid.price_nanos).parse().unwrap_or_default(),
        nurl: bid.nurl,
        adm: bid.adm,
        adomain: bid.adomain,
        cid: bid.cid,
        crid: bid.crid,
        bundle: bid.bundle,
        w: bid.w.and_then(whole),
        h: bid.h.and_then(whole),
        exp: whole(bid.exp),
        burl: bid.burl,
        lurl: bid.lurl,
        dur: bid.dur.and_then(whole),
        mtype: Some(bid.mtype as i32),
        ext: bid.ext.map(|openrtb::BidExt { dsa: openrtb::Disclosed { behalf, paid, adrender } }| pb::BidExt {
            dsa: Some(pb::DsaResponse { behalf, paid, adrender: adrender == 1 }),
        }),
    }
}

#[cfg(test)]
mod tests;
