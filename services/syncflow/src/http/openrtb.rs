//! `POST /openrtb2/{exchange}`.

use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{ConnectInfo, FromRequest as _, Path, Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use kiki::ids;
use kiki::leaf::Disclosure;
use kiki::money::Currency;
use kiki::runtime::Peer;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use super::format::Format;
use super::{Web, malformed};
use crate::deadline::Arrival;
use crate::domain::click;
use crate::domain::openrtb::{self, BidExt, BidRequest, BidResponse, Disclosed, Malformed, SeatBid};
use crate::domain::opportunity::Opportunity;
use crate::engine::{Answer, Bid, Offered, Reason, Round};
use crate::load::Places;

/// Seconds that we wait between the auction and the impression: an hour holds the slowest of formats, audio.
const EXPIRES_S: u32 = 3_600;
/// The longest header value that says why: proxies take 8 kB of headers.
const MAX_DETAIL: usize = 200;

pub(super) async fn bid(State(web): State<Web>, mut request: Request) -> Response {
    let (load, metrics) = (&web.engine.load, &web.engine.metrics);
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    // When the request's head came, before it was read and its body was waited for: what has waited has less time.
    let arrival = metrics.stages.looked_at(peer.map(|ConnectInfo(peer)| peer));
    if load.turns_away(arrival.came) {
        drain(request).await;
        return overloaded(&web);
    }
    let exchange = match request.extract_parts::<Path<String>>().await {
        Ok(Path(exchange)) => exchange,
        Err(rejection) => return rejection.into_response(),
    };
    let Some(format) = Format::of(request.headers()) else { return Format::unknown() };
    let body = Bytes::from_request(request, &()).await;
    // Only now, so that nobody has a place whose body does not come.
    let Some(place) = load.place() else { return overloaded(&web) };
    match answer(&web, &exchange, body, format, (arrival, place)).await {
        Ok(answer) => answer,
        Err(error) => {
            metrics.malformed.inc();
            malformed(error)
        }
    }
}

fn overloaded(web: &Web) -> Response {
    web.engine.metrics.turned_away.inc();
    no_bid(NoBid::of(Reason::Overloaded, String::new()), None)
}

/// Reads a body away and keeps nothing of it, so that its connection can be used again: it would be closed while a part is still to come.
async fn drain(request: Request) {
    let mut body = request.with_limited_body().into_body().into_data_stream();
    while let Some(Ok(_)) = body.next().await {}
}

async fn answer(
    web: &Web,
    exchange: &str,
    body: Result<Bytes, BytesRejection>,
    format: Format,
    admitted: (Arrival, Places),
) -> Result<Response, Malformed> {
    ids::check("exchange", exchange).map_err(|error| Malformed { field: "exchange".to_owned(), message: error.to_string() })?;
    let body = body.map_err(|error| Malformed { field: "body".to_owned(), message: error.body_text() })?;
    let document = format.read(&body)?;
    Ok(decide(web, exchange, BidRequest::of(&document)?, format, admitted).await)
}

/// Each impression in turn. A response has one currency: what the first bid counts in holds for the others.
async fn decide(web: &Web, exchange: &str, request: BidRequest<'_>, format: Format, (arrival, place): (Arrival, Places)) -> Response {
    let engine = &web.engine;
    let deadline = engine.deadline(arrival, request.tmax_ms, None);
    let platform = engine.exchanges.platform(exchange);
    let mut currency: Option<Currency> = None;
    let (mut seats, mut waited): (Vec<SeatBid>, _) = (Vec::new(), false);
    let fault = request.set_aside.first();
    let mut why = fault.map(|fault| NoBid { code: INVALID_REQUEST, ..NoBid::of(Reason::NoMatch, fault.to_string()) });
    for imp in &request.imps {
        let mut opportunity = Opportunity::of(&request, imp, exchange, platform);
        if let Some(currency) = currency {
            opportunity.currencies.retain(|one| *one == currency.code());
        }
        let offered = [Offered { opportunity, deadline }];
        let mut round = Round::new(engine, 1);
        let prepared = round.prepare(&offered);
        let mut predictions = round.ask();
        let decided = round.decide(&prepared[0], &mut predictions).await;
        waited |= round.waited();
        match &decided.answer {
            Answer::NoBid(reason, detail) => why = why.or_else(|| Some(NoBid::of(*reason, detail.clone()))),
            Answer::Bid(bid) => {
                currency = Some(bid.campaign().currency);
                seat(&mut seats, &bid.campaign().client, render(web, imp.id, bid, &offered[0].opportunity));
            }
        }
    }
    let encoding = Instant::now();
    let response = match currency {
        Some(cur) => format.write(BidResponse { id: request.id.to_owned(), cur: cur.code().to_owned(), seatbid: seats }),
        None => {
            if request.imps.is_empty() {
                engine.metrics.no_bids.with_label_values(&[Reason::NoMatch.as_str()]).inc(); // nobody else saw it
            }
            let why = why.unwrap_or_else(|| NoBid::of(Reason::NoMatch, String::new()));
            let body = engine.exchanges.wants_reasons(exchange).then(|| openrtb::NoBid { id: request.id.to_owned(), nbr: why.code });
            no_bid(why, body.map(|body| format.no_bid(body)))
        }
    };
    engine.metrics.stages.encoded(&deadline, encoding);
    if !waited {
        place.answered(&deadline);
    }
    response
}

/// Bids of one client stand together.
fn seat(seats: &mut Vec<SeatBid>, client: &str, bid: openrtb::Bid) {
    match seats.iter_mut().find(|seat| seat.seat == client) {
        Some(seat) => seat.bid.push(bid),
        None => seats.push(SeatBid { seat: client.to_owned(), bid: vec![bid] }),
    }
}

fn render(web: &Web, imp_id: &str, bid: &Bid, of: &Opportunity<'_>) -> openrtb::Bid {
    let (campaign, creative) = (bid.campaign(), bid.creative());
    let sized = |pixels: u32| Some(pixels).filter(|pixels| *pixels > 0);
    let [receipt, click] = web.engine.receipts(bid, of);
    let click = click::address(&web.public_url, &click, &creative.click_to);
    // Who shades wants to know; for others the address stays short.
    let min = if bid.market.is_some() { "&min=${AUCTION_MIN_TO_WIN}" } else { "" };
    let notice = |kind: &str, rest: &str| format!("{}/notice/{kind}?r={receipt}{rest}{min}", web.public_url);
    openrtb::Bid {
        id: bid.id(),
        impid: imp_id.to_owned(),
        price_nanos: bid.price.get(),
        adm: creative.render(&click).collect(),
        crid: creative.crid.clone(),
        cid: campaign.id.clone(),
        adomain: creative.adomain.clone(),
        bundle: Some(creative.bundle.clone()).filter(|bundle| !bundle.is_empty()),
        w: sized(creative.size.w),
        h: sized(creative.size.h),
        dur: sized(creative.duration_s),
        nurl: notice("win", "&price=${AUCTION_PRICE}"),
        burl: notice("bill", "&price=${AUCTION_PRICE}"),
        lurl: notice("loss", "&loss=${AUCTION_LOSS}"),
        exp: EXPIRES_S,
        mtype: creative.markup_type(),
        ext: creative.disclosed(of.dsa).map(disclosed),
    }
}

fn disclosed(disclosure: &Disclosure) -> BidExt {
    let Disclosure { behalf, paid, rendered } = disclosure.clone();
    BidExt { dsa: Disclosed { behalf, paid, adrender: u8::from(rendered) } }
}

/// Why nothing was bid.
struct NoBid {
    reason: Reason,
    detail: String,
    /// `nbr`.
    code: i32,
}

/// Numbers of OpenRTB 3.0's list No-Bid Reason Codes (`OpenRTB v3.0 FINAL.md`, "List: No-Bid Reason Codes").
const UNKNOWN: i32 = 0;
const TECHNICAL_ERROR: i32 = 1;
const INVALID_REQUEST: i32 = 2;
const INSUFFICIENT_TIME: i32 = 15;

impl NoBid {
    /// That list has no number for a budget, a price or a rule of our own.
    fn of(reason: Reason, detail: String) -> Self {
        let code = match reason {
            Reason::NotReady | Reason::Platform | Reason::Overloaded => TECHNICAL_ERROR,
            Reason::Deadline => INSUFFICIENT_TIME,
            Reason::NoMatch | Reason::BelowFloor | Reason::Policy | Reason::Budget | Reason::Test => UNKNOWN,
        };
        Self { reason, detail, code }
    }
}

/// 204, or the body that the exchange asks for; either way with what is for people in its head.
fn no_bid(NoBid { reason, detail, .. }: NoBid, body: Option<Response>) -> Response {
    let mut response = body.unwrap_or_else(|| StatusCode::NO_CONTENT.into_response());
    response.headers_mut().insert("x-kiki-no-bid", HeaderValue::from_static(reason.as_str()));
    let printable = |c: &char| c.is_ascii_graphic() || *c == ' ';
    let detail: String = detail.chars().filter(printable).take(MAX_DETAIL).collect();
    if !detail.is_empty()
        && let Ok(detail) = HeaderValue::from_str(&detail)
    {
        response.headers_mut().insert("x-kiki-no-bid-detail", detail);
    }
    response
}
