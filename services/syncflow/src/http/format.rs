//! The two ways to write a bid request and its response: JSON, and protobuf of `proto/openrtb/v2/openrtb.proto`.
//!
//! A request in protobuf becomes the JSON that means the same, by the names of its fields, and is read by the one reader: so that
//! a request is decided alike in either format, and a refusal names the same field.

use std::sync::LazyLock;

use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use kiki::pb::openrtb::v2 as pb;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};

use crate::domain::openrtb::{self, BidRequest, BidResponse, MAX_BODY_BYTES, Malformed, from_micros};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Protobuf,
}

const PROTOBUF: &str = "application/x-protobuf";

/// None only if the descriptors that were built in are damaged.
static REQUEST: LazyLock<Option<MessageDescriptor>> =
    LazyLock::new(|| DescriptorPool::decode(kiki::pb::DESCRIPTORS).ok()?.get_message_by_name("openrtb.v2.BidRequest"));

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

    pub(super) fn parse(self, body: &[u8]) -> Result<BidRequest, Malformed> {
        match self {
            Self::Json => BidRequest::parse(body),
            Self::Protobuf => protobuf(body),
        }
    }

    pub(super) fn write(self, response: BidResponse) -> Response {
        match self {
            Self::Json => Json(response).into_response(),
            Self::Protobuf => ([(header::CONTENT_TYPE, PROTOBUF)], message(response).encode_to_vec()).into_response(),
        }
    }
}

fn protobuf(body: &[u8]) -> Result<BidRequest, Malformed> {
    let refuse = |message: String| Malformed { field: "body".to_owned(), message };
    if body.len() > MAX_BODY_BYTES {
        return Err(refuse(format!("has {} bytes, at most {MAX_BODY_BYTES} are accepted", body.len())));
    }
    let request = REQUEST.clone().ok_or_else(|| refuse("cannot be read as protobuf here".to_owned()))?;
    let message = DynamicMessage::decode(request, body).map_err(|error| refuse(format!("is not openrtb.v2.BidRequest: {error}")))?;
    let options = SerializeOptions::new().use_proto_field_name(true).stringify_64_bit_integers(false);
    let value = message.serialize_with_options(serde_json::value::Serializer, &options);
    BidRequest::of(&value.map_err(|error| refuse(error.to_string()))?)
}

fn message(response: BidResponse) -> pb::BidResponse {
    let BidResponse { id, cur, seatbid } = response;
    let seat = |seat: openrtb::SeatBid| pb::SeatBid { bid: seat.bid.into_iter().map(bid).collect(), seat: seat.seat };
    pb::BidResponse { id, seatbid: seatbid.into_iter().map(seat).collect(), cur }
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
        w: bid.w.and_then(whole),
        h: bid.h.and_then(whole),
        exp: whole(bid.exp),
        burl: bid.burl,
        lurl: bid.lurl,
        dur: bid.dur.and_then(whole),
        mtype: Some(bid.mtype as i32),
    }
}

#[cfg(test)]
mod tests;
