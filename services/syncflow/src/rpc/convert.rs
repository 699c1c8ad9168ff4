//! Between messages and domain values; every refusal names its field.

use bytes::Bytes;
use kiki::clock::UnixMicros;
use kiki::ids;
use kiki::leaf::CreativeFormat;
use kiki::money::{Currency, Nanos};
use kiki::pb::syncflow::v1 as pb;
use kiki::pb::syncshield::v1 as shield;
use smallvec::smallvec;
use tonic::Status;

use super::offer::Offer;
use crate::config::Exchanges;
use crate::domain::click;
use crate::domain::notice::Word;
use crate::domain::openrtb::{Media, Native, Size};
use crate::domain::opportunity::{Opportunity, Shape, key};
use crate::engine::{Answer, Bid, Engine, Reason};
use crate::error::Error;
use crate::notices::{Outcome, Purchase};
use crate::wire::Fields;

/// Bytes of a request's or impression's id.
const MAX_KEY_BYTES: usize = 128;
/// Entries of one list: block lists of exchanges have hundreds.
const MAX_LIST: usize = 4_096;

/// An opportunity, and the exchange's time limit in milliseconds.
pub(super) fn opportunity<'m>(
    path: std::fmt::Arguments<'_>,
    offer: Offer<'m>,
    exchanges: &'m Exchanges,
) -> Result<(Opportunity<'m>, Option<u32>), Error> {
    let field = |name: &str, problem: String| Error::field(format!("{path}.{name}"), problem);
    for (name, id) in [("request_id", offer.request_id), ("imp_id", offer.imp_id)] {
        if !(1..=MAX_KEY_BYTES).contains(&id.len()) {
            return Err(field(name, format!("has {} bytes; 1 to {MAX_KEY_BYTES} are taken", id.len())));
        }
    }
    ids::check("exchange", offer.exchange).map_err(|error| field("exchange", error.to_string()))?;
    if !offer.customer.is_empty() {
        ids::check_customer(offer.customer).map_err(|error| field("customer", error.to_string()))?;
    }
    if offer.placement.len() > MAX_KEY_BYTES {
        return Err(field("placement", format!("has {} bytes; at most {MAX_KEY_BYTES} are taken", offer.placement.len())));
    }
    if !matches!(offer.country.as_bytes(), [] | [b'A'..=b'Z', b'A'..=b'Z', b'A'..=b'Z']) {
        return Err(field("country", "is not three capital letters of ISO 3166-1".to_owned()));
    }
    if offer.floor_nanos < 0 {
        return Err(field("floor_nanos", format!("{} is negative", offer.floor_nanos)));
    }
    for (name, count) in [
        ("categories", offer.categories.len()),
        ("blocked_categories", offer.blocked_categories.len()),
        ("blocked_advertisers", offer.blocked_advertisers.len()),
        ("blocked_apps", offer.blocked_apps.len()),
    ] {
        if count > MAX_LIST {
            return Err(field(name, format!("{count} entries; at most {MAX_LIST} are taken")));
        }
    }
    let currency = if offer.currency.is_empty() { "USD" } else { offer.currency };
    Currency::parse(currency).map_err(|error| field("currency", error.to_string()))?;
    let shape = shape(&offer).ok_or_else(|| field("format", "is required".to_owned()))?;
    let opportunity = Opportunity {
        key: key(offer.exchange, offer.request_id, offer.imp_id),
        exchange: offer.exchange,
        platform: exchanges.platform(offer.exchange),
        customer: Some(offer.customer).filter(|customer| !customer.is_empty()),
        country: offer.country,
        places: Some(offer.domain).filter(|domain| !domain.is_empty()).into_iter().collect(),
        categories: offer.categories,
        shapes: smallvec![shape],
        floor: Nanos::new(offer.floor_nanos),
        floor_currency: currency,
        first_price: offer.auction_type == 1,
        placement: offer.placement,
        currencies: smallvec![currency],
        blocked_categories: offer.blocked_categories,
        blocked_advertisers: offer.blocked_advertisers,
        blocked_apps: offer.blocked_apps,
        ..Default::default()
    };
    Ok((opportunity, Some(offer.tmax_ms).filter(|tmax| *tmax > 0)))
}

/// The message names no content types: its sender has seen to it that the formats it offers play what is common.
fn shape(offer: &Offer<'_>) -> Option<Shape> {
    let media = |mime: &str| Media {
        mimes: vec![mime.to_owned()],
        size: None,
        min_duration_s: 0,
        max_duration_s: Some(offer.duration_seconds_max).filter(|longest| *longest > 0),
    };
    match CreativeFormat::try_from(offer.format).unwrap_or_default() {
        CreativeFormat::Unspecified => None,
        CreativeFormat::Banner => Some(Shape::Banner(smallvec![Size { w: offer.width, h: offer.height }])),
        CreativeFormat::Video => Some(Shape::Video(media("video/mp4"))),
        CreativeFormat::Audio => Some(Shape::Audio(media("audio/mpeg"))),
        CreativeFormat::Native => Some(Shape::Native(Native::default())),
    }
}

/// A message that prost reads.
pub(super) fn read<M: prost::Message + Default>(message: &Bytes) -> Result<M, Status> {
    M::decode(message.as_ref()).map_err(|error| Status::internal(error.to_string())) // as tonic's own decoder has it
}

/// Writes the `BidResponse` to an opportunity.
pub(super) fn answer(answer: &Answer, of: &Opportunity<'_>, engine: &Engine, public_url: &str, to: &mut Fields<'_>) {
    match answer {
        Answer::Bid(bid) => to.message(1, |to| self::bid(bid, of, engine, public_url, to)),
        Answer::NoBid(reason, detail) => to.message(2, |to| {
            to.signed(1, i32::from(no_bid_reason(*reason)));
            to.text(2, detail);
        }),
    }
}

/// Writes the `BidResponse` of what was turned away.
pub(super) fn turned_away(to: &mut Fields<'_>) {
    to.message(2, |to| to.signed(1, i32::from(pb::NoBidReason::Overloaded)));
}

/// Writes a `Bid`.
fn bid(bid: &Bid, of: &Opportunity<'_>, engine: &Engine, public_url: &str, to: &mut Fields<'_>) {
    let (campaign, creative) = (bid.campaign(), bid.creative());
    to.text(1, &bid.id());
    to.text(2, &campaign.client);
    to.text(3, &campaign.id);
    to.text(4, campaign.currency.code());
    to.signed(5, bid.price.get());
    to.text(6, &creative.id);
    let [notice, click] = engine.receipts(bid, of);
    to.text(7, &notice);
    to.signed(8, bid.predicted_ltv.get());
    to.signed(9, i32::from(bid.prediction_status));
    let click = click::address(public_url, &click, &creative.click_to);
    to.parts(10, creative.render(&click));
}

fn no_bid_reason(reason: Reason) -> pb::NoBidReason {
    match reason {
        Reason::NoMatch => pb::NoBidReason::NoMatch,
        Reason::BelowFloor => pb::NoBidReason::BelowFloor,
        Reason::Policy => pb::NoBidReason::Policy,
        Reason::Budget => pb::NoBidReason::Budget,
        Reason::NotReady => pb::NoBidReason::NotReady,
        Reason::Deadline => pb::NoBidReason::Deadline,
        Reason::Test => pb::NoBidReason::Test,
        Reason::Platform => pb::NoBidReason::Platform,
        Reason::Overloaded => pb::NoBidReason::Overloaded,
    }
}

pub(super) fn word(at: usize, notice: &pb::Notice) -> Result<Word, Error> {
    let price = Nanos::new(notice.price_nanos);
    match notice.kind() {
        pb::NoticeKind::Win => Ok(Word::Win(price)),
        pb::NoticeKind::Bill => Ok(Word::Bill(price)),
        pb::NoticeKind::Loss => Ok(Word::Loss(notice.loss_reason)),
        pb::NoticeKind::Unspecified => Err(Error::field(format!("notices[{at}].kind"), "is required")),
    }
}

pub(super) fn outcome(outcome: &Outcome) -> pb::NoticeResult {
    let (status, reason) = match outcome {
        Outcome::Applied => (pb::NoticeStatus::Applied, String::new()),
        Outcome::Duplicate => (pb::NoticeStatus::Duplicate, String::new()),
        Outcome::Noted => (pb::NoticeStatus::Noted, String::new()),
        Outcome::Conflict(why) => (pb::NoticeStatus::Conflict, why.clone()),
        Outcome::Refused(why) => (pb::NoticeStatus::Refused, why.to_string()),
    };
    pb::NoticeResult { status: status.into(), reason }
}

pub(super) fn purchase((at, message): (usize, pb::ReportedConversion)) -> Result<Purchase, Error> {
    let path = format!("conversions[{at}].occurred_at");
    let occurred_at = UnixMicros::from_pb(message.occurred_at.as_ref())
        .ok_or_else(|| Error::field(path, "is required, and must be of the years 1 to 9999"))?;
    Ok(Purchase {
        client: message.client,
        event_id: message.event_id,
        customer: message.customer,
        currency: message.currency,
        value_micros: message.value_micros,
        occurred_at: occurred_at.into(),
        receipt: message.receipt,
        personal: message.personal,
    })
}

pub(super) fn conversion(result: shield::RecordResult) -> pb::ConversionResult {
    pb::ConversionResult { duplicate: result.duplicate, attributed_campaign: result.attributed_campaign, position: result.position }
}
