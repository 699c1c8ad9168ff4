//! OpenRTB 2.6 bid requests and responses, as far as a bid needs them.
//!
//! Invariants: whatever [`BidRequest::parse`] returns is within the limits below; prices are whole
//! nanos per impression (a CPM in micros); nothing borrowed is kept. A refusal names its field.
//!
//! Two kinds of fault. What no bidder should answer is [`Malformed`] (HTTP 400). What breaks the
//! specification but occurs in real traffic costs only the part that it is in: the impression, or one of its
//! formats, is *set aside*, and the answer is a no-bid for that part, with the field as the reason:
//!
//! - the same impression id twice (a bid could not say which one it means),
//! - `site`, `app` or `dooh` together (the guardrails could not say where the ad would show),
//! - native markup that is no JSON, has no assets, or names a placement type that does not exist,
//! - a native asset of no kind.
//!
//! Deliberately not here: the exchanges' own extensions, stored requests, and fields that no decision reads.

mod channel;
mod decimal;
mod imp;
mod native;
mod node;
mod response;

use serde_json::Value;

pub use channel::{Channel, ChannelKind, Device, Regs};
pub use decimal::{from_micros, micros_exact};
pub use imp::{Banner, Deal, Imp, Media, Size};
pub use native::{AssetKind, Native};
pub use response::{Bid, BidResponse, MarkupType, SeatBid};

use node::Node;

/// A request body's limit, in bytes. The largest of 1,828 collected ones has 3.4 kB; block lists can be long.
pub const MAX_BODY_BYTES: usize = 256 * 1024;
/// Impressions in one request: long ad pods have some tens. Each may cost a prediction.
pub const MAX_IMPS: usize = 100;
/// Sizes of one banner, and deals of one impression.
pub const MAX_SIZES: usize = 100;
/// Bytes of a request's, an impression's or a deal's id.
pub const MAX_ID_BYTES: usize = 256;
/// Bytes of a customer's id, as everywhere in the product. Longer ones are not used.
pub const MAX_CUSTOMER_BYTES: usize = 128;

/// A field that cannot be accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Malformed {
    /// Its path, such as `imp[0].banner.w`; `body` for the document as a whole.
    pub field: String,
    /// What is wrong with it, with the limit and what was found.
    pub message: String,
}

/// What a bid needs of a bid request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BidRequest {
    /// The auction's id, as the exchange gave it.
    pub id: String,
    /// The impressions that can be bid on.
    pub imps: Vec<Imp>,
    /// What was set aside, and why.
    pub set_aside: Vec<Malformed>,
    /// Where the ad would show.
    pub channel: Channel,
    /// What the ad would show on.
    pub device: Device,
    /// The customer's id with the buyer, else the exchange's, else the device's; none where the law forbids using it.
    pub customer: Option<String>,
    /// Milliseconds that the exchange waits, 0 and absent being no limit of its own.
    pub tmax_ms: Option<u32>,
    /// Auction type: 1 first price, 2 second price plus; larger numbers are the exchange's own.
    pub at: u32,
    /// Currencies accepted, capitals, as many as were named.
    pub cur: Vec<String>,
    /// Blocked content categories of advertisers.
    pub bcat: Vec<String>,
    /// Blocked advertiser domains, in lower case.
    pub badv: Vec<String>,
    /// Blocked applications.
    pub bapp: Vec<String>,
    /// Buyer seats that may bid; empty is all.
    pub wseat: Vec<String>,
    /// Buyer seats that may not bid.
    pub bseat: Vec<String>,
    /// The exchange is testing: the impression is not billed.
    pub test: bool,
    /// What the law says about this user.
    pub regs: Regs,
}

impl BidRequest {
    /// Reads one request body.
    ///
    /// # Errors
    /// [`Malformed`] with the first field that cannot be accepted.
    pub fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let refuse = |message: String| Malformed { field: "body".to_owned(), message };
        if body.len() > MAX_BODY_BYTES {
            return Err(refuse(format!("has {} bytes, at most {MAX_BODY_BYTES} are accepted", body.len())));
        }
        Self::of(&serde_json::from_slice(body).map_err(|error| refuse(format!("is not JSON: {error}")))?)
    }

    /// Reads a request that was parsed already.
    ///
    /// # Errors
    /// [`Malformed`] with the first field that cannot be accepted.
    pub fn of(value: &Value) -> Result<Self, Malformed> {
        if !value.is_object() {
            return Err(Malformed { field: "body".to_owned(), message: "must be a JSON object".to_owned() });
        }
        Self::read(&Node::root(value))
    }

    fn read(root: &Node<'_, '_>) -> Result<Self, Malformed> {
        let id = root.required_text("id", MAX_ID_BYTES)?;
        let tmax_ms = root.count("tmax")?.filter(|tmax| *tmax > 0);
        let mut set_aside = Vec::new();
        let channel = channel::read(root, &mut set_aside)?;
        let regs = channel::regs(root)?;
        let device = channel::device(root)?;
        let customer = channel::customer(root, &regs)?;
        let mut imps = imp::read_all(root, &mut set_aside)?;
        if channel.kind == ChannelKind::Ambiguous {
            imps.clear();
        }
        Ok(Self {
            id,
            imps,
            set_aside,
            channel,
            device,
            customer,
            tmax_ms,
            at: root.count("at")?.unwrap_or(2),
            cur: root.texts("cur")?.iter().map(|cur| cur.to_ascii_uppercase()).collect(),
            bcat: root.texts("bcat")?,
            badv: root.texts("badv")?.iter().map(|domain| domain.to_ascii_lowercase()).collect(),
            bapp: root.texts("bapp")?,
            wseat: root.texts("wseat")?,
            bseat: root.texts("bseat")?,
            test: root.int("test")?.is_some_and(|test| test != 0),
            regs,
        })
    }
}

#[cfg(test)]
mod tests;
