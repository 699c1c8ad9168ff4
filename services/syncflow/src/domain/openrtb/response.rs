//! The bid response. Only fields that are set are written.

use serde::{Serialize, Serializer};

use super::from_micros;

/// `mtype` of OpenRTB 2.6: what the markup of a bid is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkupType {
    /// HTML.
    Banner = 1,
    /// VAST with video.
    Video = 2,
    /// VAST or DAAST with sound.
    Audio = 3,
    /// Native JSON.
    Native = 4,
}

impl Serialize for MarkupType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(*self as u8)
    }
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BidResponse {
    /// The request's id.
    pub id: String,
    /// ISO currency of the prices.
    pub cur: String,
    /// Bids by the seat that makes them.
    pub seatbid: Vec<SeatBid>,
}

/// The bids of one seat (a client).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeatBid {
    /// The client's id.
    pub seat: String,
    /// Its bids, at most one an impression.
    pub bid: Vec<Bid>,
}

/// One bid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bid {
    /// Unique within the answer.
    pub id: String,
    /// The impression it is for.
    pub impid: String,
    /// Nanos per impression, written as an exact decimal CPM.
    #[serde(rename = "price", serialize_with = "exact_cpm")]
    pub price_nanos: i64,
    /// The markup, with the receipt in its click address.
    pub adm: String,
    /// The creative's id.
    pub crid: String,
    /// The campaign's id.
    pub cid: String,
    /// The advertiser's domains.
    pub adomain: Vec<String>,
    /// The app that is advertised, by its store's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// Width in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub w: Option<u32>,
    /// Height in pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h: Option<u32>,
    /// Seconds of video or sound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dur: Option<u32>,
    /// Win notice.
    pub nurl: String,
    /// Billing notice.
    pub burl: String,
    /// Loss notice.
    pub lurl: String,
    /// Seconds that we wait between the auction and the impression.
    pub exp: u32,
    /// What the markup is.
    pub mtype: MarkupType,
    /// What extensions of the standard have of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ext: Option<BidExt>,
}

/// Extensions of a bid.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BidExt {
    /// Whose ad it is.
    pub dsa: Disclosed,
}

/// Whose ad it is, as DSA Transparency has it. By which parameters users were chosen (`transparency`) is not told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Disclosed {
    /// On whose behalf it is shown.
    pub behalf: String,
    /// Who paid for it.
    pub paid: String,
    /// 1: the markup shows it.
    pub adrender: u8,
}

/// The answer to a request that is not bid on, for exchanges that want to know why.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NoBid {
    /// The request's id.
    pub id: String,
    /// The reason's number in OpenRTB 3.0's list No-Bid Reason Codes, to which 2.6 refers.
    pub nbr: i32,
}

/// A JSON number with exactly the digits of the price: built from text, never from a float.
fn exact_cpm<S: Serializer>(nanos: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    let text = from_micros(*nanos);
    serde_json::value::RawValue::from_string(text).map_err(serde::ser::Error::custom)?.serialize(serializer)
}
