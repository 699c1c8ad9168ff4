//! OpenRTB 2.6 bid requests and responses, as far as a bid needs them.
//!
//! Invariants: whatever [`BidRequest::of`] returns is within the limits below; prices are whole
//! nanos per impression (a CPM in micros). A refusal names its field.
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
//! A document is read in two steps, both without copying: its bytes become a list of the values that are read
//! ([`Document`]), and those a [`BidRequest`] that borrows them. JSON and protobuf differ in the first step alone, so that a
//! request is decided alike in either format, and a refusal names the same field.
//!
//! What is not read is passed over, not refused: it has to be JSON, but a string there may have half of a surrogate pair, a
//! number may be too large for a double, and arrays may be as deep as fits into a body; in what is read, all of these are refused.
//! Bytes that are not UTF-8 are refused wherever they stand. Of a name that an object has twice, the last counts.
//!
//! Deliberately not here: the exchanges' own extensions, stored requests, and fields that no decision reads.

mod channel;
mod decimal;
mod imp;
mod native;
mod node;
mod protobuf;
mod response;
mod shape;
mod tape;

use std::borrow::Cow;

pub use channel::{Channel, ChannelKind, Device, Dsa, Regs};
pub use decimal::{from_micros, micros_exact};
pub use imp::{Banner, Deal, Imp, Media, Size, Sizes};
pub use native::{AssetKind, Native};
pub use response::{Bid, BidExt, BidResponse, Disclosed, MarkupType, NoBid, SeatBid};

use node::Node;
use tape::Tape;

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

impl Malformed {
    fn body(message: impl Into<String>) -> Self {
        Self { field: "body".to_owned(), message: message.into() }
    }
}

/// The body of a request: which values it has, and where.
#[derive(Debug)]
pub struct Document<'a>(Tape<'a>);

impl<'a> Document<'a> {
    /// Reads JSON.
    ///
    /// # Errors
    /// [`Malformed`] where the body is too long or no JSON.
    pub fn json(body: &'a [u8]) -> Result<Self, Malformed> {
        check_length(body)?;
        let text = std::str::from_utf8(body).map_err(|error| Malformed::body(format!("is not JSON: {error}")))?;
        Tape::json(text, &shape::REQUEST).map(Self).map_err(|error| Malformed::body(format!("is not JSON: {error}")))
    }

    /// Reads protobuf.
    ///
    /// # Errors
    /// [`Malformed`] where the body is too long or no message of that type.
    pub fn protobuf(body: &'a [u8]) -> Result<Self, Malformed> {
        check_length(body)?;
        protobuf::tape(body, &shape::REQUEST).map(Self).map_err(|error| Malformed::body(format!("is not openrtb.v2.BidRequest: {error}")))
    }
}

fn check_length(body: &[u8]) -> Result<(), Malformed> {
    match body.len() {
        0..=MAX_BODY_BYTES => Ok(()),
        bytes => Err(Malformed::body(format!("has {bytes} bytes, at most {MAX_BODY_BYTES} are accepted"))),
    }
}

/// What a bid needs of a bid request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BidRequest<'t> {
    /// The auction's id, as the exchange gave it.
    pub id: &'t str,
    /// The impressions that can be bid on.
    pub imps: Vec<Imp<'t>>,
    /// What was set aside, and why.
    pub set_aside: Vec<Malformed>,
    /// Where the ad would show.
    pub channel: Channel<'t>,
    /// What the ad would show on.
    pub device: Device,
    /// The customer's id with the buyer, else the exchange's, else the device's; none where the law forbids using it.
    pub customer: Option<&'t str>,
    /// Milliseconds that the exchange waits, 0 and absent being no limit of its own.
    pub tmax_ms: Option<u32>,
    /// Auction type: 1 first price, 2 second price plus; larger numbers are the exchange's own.
    pub at: u32,
    /// Currencies accepted, capitals, as many as were named.
    pub cur: Vec<Cow<'t, str>>,
    /// Blocked content categories of advertisers.
    pub bcat: Vec<&'t str>,
    /// The only categories of advertisers that are allowed; empty is all.
    pub acat: Vec<&'t str>,
    /// Blocked advertiser domains, in lower case.
    pub badv: Vec<Cow<'t, str>>,
    /// Blocked applications.
    pub bapp: Vec<&'t str>,
    /// Buyer seats that may bid; empty is all.
    pub wseat: Vec<&'t str>,
    /// Buyer seats that may not bid.
    pub bseat: Vec<&'t str>,
    /// The exchange is testing: the impression is not billed.
    pub test: bool,
    /// What the law says about this user.
    pub regs: Regs<'t>,
}

impl<'t> BidRequest<'t> {
    /// Reads a document.
    ///
    /// # Errors
    /// [`Malformed`] with the first field that cannot be accepted.
    pub fn of(Document(tape): &'t Document<'_>) -> Result<Self, Malformed> {
        match Node::root(tape).filter(Node::is_object) {
            Some(root) => Self::read(&root),
            None => Err(Malformed::body("must be a JSON object")),
        }
    }

    fn read(root: &Node<'_, 't>) -> Result<Self, Malformed> {
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
            cur: root.texts("cur")?.into_iter().map(capitals).collect(),
            bcat: root.texts("bcat")?,
            acat: root.texts("acat")?,
            badv: root.texts("badv")?.into_iter().map(small).collect(),
            bapp: root.texts("bapp")?,
            wseat: root.texts("wseat")?,
            bseat: root.texts("bseat")?,
            test: root.int("test")?.is_some_and(|test| test != 0),
            regs,
        })
    }
}

/// In capitals; copied only where it is not.
fn capitals(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) { Cow::Owned(text.to_ascii_uppercase()) } else { Cow::Borrowed(text) }
}

/// In lower case; copied only where it is not.
fn small(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(text.to_ascii_lowercase()) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests;
