//! The exchange that a replay plays: it asks for bids, runs its auctions, sends notices and keeps its own ledger.

use kiki::clock::UnixMicros;
use kiki::money::{decimal, parse_decimal};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::task::JoinSet;

use super::auction::{Auction, Kind, Notice, exchange};
use super::journal::{Answer, Bid, Charge};
use super::plan::Plan;
use crate::error::{Doing as _, Failure};
use crate::http::Http;
use crate::random::Draws;

/// Notices in flight at a time: enough that the disk's flush is shared by many.
const IN_FLIGHT: usize = 64;
/// Where a notice's path holds the receipt.
const RECEIPT: &str = "${RECEIPT}";

/// Asks for bids on one request.
pub(crate) async fn ask(http: &Http, base: &str, plan: &Plan, number: u64) -> Result<Answer, Failure> {
    let lines = plan.requests.lines.len() as u64;
    let (round, line) = (number / lines, number % lines);
    let mut draws = Draws::of(plan.settings.seed, "place", &[round, line]);
    let exchange = draws.pick(&super::auction::EXCHANGES);
    let customer = plan.events.customers[*draws.pick(&plan.candidates)].clone();
    let body = plan.requests.lines[line as usize].addressed(&format!("{round}-{line}"), &customer, &plan.settings.currency);
    let answer = http.post_json(&format!("{base}/openrtb2/{}", exchange.id), body).await?;
    let mut taken = Answer {
        round,
        line,
        at: plan.request_at(number),
        exchange: exchange.id.to_owned(),
        customer,
        status: answer.status.as_u16(),
        ..Answer::default()
    };
    match taken.status {
        200 => taken.bids = bids(&answer.body, base).map_err(|why| Failure::new(format!("answer to {round}-{line}: {why}")))?,
        204 => taken.reason = answer.no_bid.ok_or_else(|| Failure::new(format!("answer to {round}-{line}: no bid and no reason")))?,
        400 => taken.reason = String::from_utf8_lossy(&answer.body).chars().take(300).collect(),
        status => return Err(Failure::new(format!("answer to {round}-{line}: {status} {}", String::from_utf8_lossy(&answer.body)))),
    }
    Ok(taken)
}

#[derive(Deserialize)]
struct Answered<'a> {
    cur: String,
    #[serde(borrow)]
    seatbid: Vec<Seat<'a>>,
}

#[derive(Deserialize)]
struct Seat<'a> {
    seat: String,
    #[serde(borrow)]
    bid: Vec<Offer<'a>>,
}

#[derive(Deserialize)]
struct Offer<'a> {
    impid: String,
    #[serde(borrow)]
    price: &'a RawValue,
    adm: String,
    cid: String,
    nurl: String,
    burl: String,
    lurl: String,
}

fn bids(body: &[u8], base: &str) -> Result<Vec<Bid>, String> {
    let answered: Answered<'_> = serde_json::from_slice(body).map_err(|e| e.to_string())?;
    let mut bids = Vec::new();
    for seat in &answered.seatbid {
        for offer in &seat.bid {
            let receipt = receipt(&offer.burl).ok_or_else(|| format!("burl {:?} has no receipt", offer.burl))?;
            let click = link(&offer.adm, base).and_then(self::receipt).ok_or_else(|| format!("adm {:?} has no click link", offer.adm))?;
            let path = |url: &String| {
                let path = url.strip_prefix(base).ok_or_else(|| format!("notice {url:?} is not below {base}"))?;
                Ok::<_, String>(path.replace(receipt, RECEIPT))
            };
            bids.push(Bid {
                imp: offer.impid.clone(),
                client: seat.seat.clone(),
                campaign: offer.cid.clone(),
                currency: answered.cur.clone(),
                // A CPM with six decimals is the impression's price in nanos.
                price_nanos: parse_decimal(offer.price.get(), 6).map_err(|e| format!("price: {e}"))?,
                receipt: receipt.to_owned(),
                click: click.to_owned(),
                notices: [path(&offer.nurl)?, path(&offer.burl)?, path(&offer.lurl)?],
            });
        }
    }
    if bids.is_empty() { Err("200 without a bid".to_owned()) } else { Ok(bids) }
}

/// The click link in a markup, to its first character that no address has.
fn link<'a>(markup: &'a str, base: &str) -> Option<&'a str> {
    let link = &markup[markup.find(&format!("{base}/click?"))?..];
    link.split(['"', '\'', '<', '>', ']', ' ']).next()
}

/// The value of `r` in the address of a notice or click.
fn receipt(url: &str) -> Option<&str> {
    url.split_once('?')?.1.split('&').find_map(|pair| pair.strip_prefix("r=")).filter(|receipt| !receipt.is_empty())
}

/// A notice on its way.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub(crate) notice: Notice,
    /// Its path and query.
    pub(crate) path: String,
    /// What the exchange charges with it, if it does.
    pub(crate) charge: Option<Charge>,
}

/// Runs the auctions of an answer's bids: how many were won, and the notices that follow.
pub(crate) fn settle(plan: &Plan, answer: &Answer) -> Result<(u64, Vec<Due>), Failure> {
    let (mut won, mut due) = (0, Vec::new());
    for (place, bid) in (0..).zip(&answer.bids) {
        let exchange =
            exchange(&answer.exchange).ok_or_else(|| Failure::new(format!("the ledger names an exchange {:?}", answer.exchange)))?;
        let auction = Auction {
            seed: plan.settings.seed,
            place: [answer.round, answer.line, place],
            rule: exchange.rule,
            typical_nanos: plan.typical_nanos(),
            floor_nanos: plan.requests.lines[answer.line as usize].floor_nanos(&bid.imp, &plan.settings.currency),
        };
        let outcome = auction.run(answer.at, bid.price_nanos);
        won += u64::from(outcome.won);
        due.extend(outcome.notices.iter().map(|notice| Due {
            notice: *notice,
            path: path(bid, notice),
            charge: notice.charges.then(|| charge(answer, bid, notice)),
        }));
    }
    Ok((won, due))
}

fn path(bid: &Bid, notice: &Notice) -> String {
    let [win, bill, loss] = &bid.notices;
    let template = match notice.kind {
        Kind::Win => win,
        Kind::Bill => bill,
        Kind::Loss => loss,
    };
    template
        .replace("${AUCTION_PRICE}", &decimal(i128::from(notice.price_nanos), 6))
        .replace("${AUCTION_LOSS}", &notice.loss_reason.to_string())
        .replace(RECEIPT, &bid.receipt)
}

fn charge(answer: &Answer, bid: &Bid, notice: &Notice) -> Charge {
    Charge {
        round: answer.round,
        line: answer.line,
        imp: bid.imp.clone(),
        exchange: answer.exchange.clone(),
        client: bid.client.clone(),
        campaign: bid.campaign.clone(),
        currency: bid.currency.clone(),
        customer: answer.customer.clone(),
        bid_at: answer.at,
        notified_at: notice.at,
        price_nanos: notice.price_nanos,
        receipt: bid.receipt.clone(),
        click: bid.click.clone(),
    }
}

/// What became of notices, by the status that they were answered with.
pub(crate) type Statuses = std::collections::BTreeMap<String, u64>;

#[derive(Deserialize)]
struct Told {
    status: String,
}

/// Sends a round of notices, some at a time, and waits for all answers.
pub(crate) async fn send(http: &Http, base: &str, round: &[Due], statuses: &mut Statuses) -> Result<(), Failure> {
    let mut flying = JoinSet::new();
    for due in round {
        if flying.len() >= IN_FLIGHT {
            taken(flying.join_next().await, statuses)?;
        }
        let (http, url, kind) = (http.clone(), format!("{base}{}", due.path), due.notice.kind);
        flying.spawn(async move {
            let answer = http.get(&url).await?;
            if answer.status.as_u16() != 200 {
                return Err(Failure::new(format!("{} notice: {} {}", kind.name(), answer.status, String::from_utf8_lossy(&answer.body))));
            }
            serde_json::from_slice::<Told>(&answer.body).doing("reading a notice's answer")
        });
    }
    while !flying.is_empty() {
        taken(flying.join_next().await, statuses)?;
    }
    Ok(())
}

fn taken(ended: Option<Result<Result<Told, Failure>, tokio::task::JoinError>>, statuses: &mut Statuses) -> Result<(), Failure> {
    if let Some(ended) = ended {
        *statuses.entry(ended.doing("sending a notice")??.status).or_default() += 1;
    }
    Ok(())
}

/// An impression that a customer was shown and the exchange charged.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    /// When the bid was made.
    pub(crate) bid_at: UnixMicros,
    pub(crate) receipt: String,
    /// The receipt that a click on it brings.
    pub(crate) click: String,
}

/// What a customer's impressions so far offer a purchase: a click on one of them, for some of them.
pub(crate) fn click(seed: u64, row: u64, now: UnixMicros, shown: &[Shown], lookback_micros: i64) -> Option<&Shown> {
    let mut draws = Draws::of(seed, "click", &[row]);
    if !draws.chance(0.3) {
        return None;
    }
    let recent: Vec<&Shown> = shown.iter().filter(|shown| shown.bid_at.0 >= now.0 - lookback_micros).collect();
    (!recent.is_empty()).then(|| *draws.pick(&recent))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const BODY: &str = r#"{"id":"0-1","cur":"USD","seatbid":[{"seat":"acme","bid":[{"id":"b","impid":"1","price":12.345678,"adm":"<a href=\"http://h/click?r=def&to=x\">x</a>","crid":"c","cid":"acme-display",
        "adomain":[],"nurl":"http://h/notice/win?r=abc&price=${AUCTION_PRICE}","burl":"http://h/notice/bill?r=abc&price=${AUCTION_PRICE}",
        "lurl":"http://h/notice/loss?r=abc&loss=${AUCTION_LOSS}","exp":3600,"mtype":1}]}]}"#;

    #[test]
    fn a_bid_is_read_to_the_nano() {
        let bids = bids(BODY.as_bytes(), "http://h").unwrap();
        assert_eq!((bids[0].price_nanos, bids[0].receipt.as_str(), bids[0].campaign.as_str()), (12_345_678, "abc", "acme-display"));
        assert_eq!(bids[0].click, "def", "the click's own");
        let notice = Notice { at: UnixMicros(0), kind: Kind::Bill, price_nanos: 9_000_001, loss_reason: 0, charges: true };
        assert_eq!(path(&bids[0], &notice), "/notice/bill?r=abc&price=9.000001");
        let loss = Notice { kind: Kind::Loss, loss_reason: 102, ..notice };
        assert_eq!(path(&bids[0], &loss), "/notice/loss?r=abc&loss=102");
    }

    #[test]
    fn an_answer_that_is_no_bid_response_is_refused() {
        assert!(bids(b"{}", "http://h").is_err());
        assert!(bids(BODY.as_bytes(), "http://other").is_err());
        assert!(bids(br#"{"cur":"USD","seatbid":[]}"#, "http://h").is_err());
        assert!(bids(BODY.replace("/click?r=def", "/").as_bytes(), "http://h").is_err(), "no click link");
    }
}
