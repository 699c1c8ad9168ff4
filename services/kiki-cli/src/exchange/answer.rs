//! What a bidder answers, in either format, and what is wrong with it.

use kiki::pb::openrtb::v2 as pb;
use prost::Message as _;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::notice::{ADVERTISER_BLOCKED, APP_BLOCKED, BELOW_FLOOR, CATEGORY_BLOCKED, INVALID, SEAT_BLOCKED};
use super::request::{Facts, Format, Imp, nanos};

/// A bid response.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) cur: String,
    pub(crate) bids: Vec<Bid>,
}

/// A bid.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Bid {
    pub(crate) seat: String,
    pub(crate) id: String,
    pub(crate) imp: String,
    /// Nanos an impression; none where it is no price.
    pub(crate) price: Option<i64>,
    pub(crate) ad: String,
    pub(crate) adomain: Vec<String>,
    pub(crate) cat: Vec<String>,
    pub(crate) bundle: String,
    pub(crate) has_markup: bool,
    pub(crate) nurl: String,
    pub(crate) burl: String,
    pub(crate) lurl: String,
}

/// What is wrong with an answer, or with one of its bids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// It cannot be read.
    Unreadable,
    /// It answers another request.
    Id,
    /// It is in a currency that the request does not take.
    Currency,
    /// The bid is for an impression that the request does not have.
    Imp,
    /// Its price is none.
    Price,
    BelowFloor,
    /// Neither markup nor an address that it could come from.
    Markup,
    Seat,
    Advertiser,
    Category,
    App,
}

impl Fault {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Id => "id",
            Self::Currency => "currency",
            Self::Imp => "imp",
            Self::Price => "price",
            Self::BelowFloor => "below_floor",
            Self::Markup => "markup",
            Self::Seat => "seat",
            Self::Advertiser => "advertiser",
            Self::Category => "category",
            Self::App => "app",
        }
    }

    /// OpenRTB's loss reason.
    pub(crate) const fn loss(self) -> u32 {
        match self {
            Self::BelowFloor => BELOW_FLOOR,
            Self::Seat => SEAT_BLOCKED,
            Self::Advertiser => ADVERTISER_BLOCKED,
            Self::Category => CATEGORY_BLOCKED,
            Self::App => APP_BLOCKED,
            _ => INVALID,
        }
    }
}

/// Reads an answer of status 200. One without bids is a no-bid.
pub(crate) fn read(format: Format, body: &[u8]) -> Result<Answer, Fault> {
    match format {
        Format::Json => serde_json::from_slice::<Json>(body).map(Answer::from).map_err(|_| Fault::Unreadable),
        Format::Protobuf => pb::BidResponse::decode(body).map(Answer::from).map_err(|_| Fault::Unreadable),
    }
}

impl Answer {
    /// What is wrong with it as a whole.
    pub(crate) fn fault(&self, id: &str, facts: &Facts) -> Option<Fault> {
        let taken = if facts.cur.is_empty() { self.cur == "USD" } else { facts.cur.iter().any(|cur| cur.eq_ignore_ascii_case(&self.cur)) };
        match () {
            () if self.id != id => Some(Fault::Id),
            () if !taken && !self.bids.is_empty() => Some(Fault::Currency),
            () => None,
        }
    }
}

impl Bid {
    /// The impression that it is for and its price, or what is wrong with it.
    pub(crate) fn check<'a>(&self, cur: &str, facts: &'a Facts) -> Result<(&'a Imp, i64), Fault> {
        let imp = facts.imps.iter().find(|imp| imp.id == self.imp).ok_or(Fault::Imp)?;
        let price = self.price.filter(|price| *price > 0).ok_or(Fault::Price)?;
        let listed = |list: &[String], item: &str| list.iter().any(|one| one == item);
        let blocked_advertiser = |domain: &String| facts.badv.iter().any(|blocked| is_below(domain, blocked));
        match () {
            // A floor in another currency is not held against it: no rate says what it comes to.
            () if price < imp.floor && imp.floor_cur == cur => Err(Fault::BelowFloor),
            () if !self.has_markup && self.nurl.is_empty() => Err(Fault::Markup),
            () if !facts.wseat.is_empty() && !listed(&facts.wseat, &self.seat) => Err(Fault::Seat),
            () if listed(&facts.bseat, &self.seat) => Err(Fault::Seat),
            () if self.adomain.iter().any(blocked_advertiser) => Err(Fault::Advertiser),
            () if self.cat.iter().any(|cat| facts.bcat.iter().any(|blocked| is_within(cat, blocked))) => Err(Fault::Category),
            () if !self.bundle.is_empty() && listed(&facts.bapp, &self.bundle) => Err(Fault::App),
            () => Ok((imp, price)),
        }
    }
}

/// Whether a domain is another, or below it.
fn is_below(domain: &str, blocked: &str) -> bool {
    let (domain, blocked) = (domain.to_ascii_lowercase(), blocked.to_ascii_lowercase());
    !blocked.is_empty() && domain.strip_suffix(&blocked).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a category is another, or one of its parts: IAB7-39 is of IAB7.
fn is_within(category: &str, blocked: &str) -> bool {
    category.strip_prefix(blocked).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(default)]
    id: String,
    #[serde(default)]
    cur: Option<String>,
    #[serde(borrow, default)]
    seatbid: Vec<JsonSeat<'a>>,
}

#[derive(Deserialize)]
struct JsonSeat<'a> {
    #[serde(default)]
    seat: String,
    #[serde(borrow, default)]
    bid: Vec<JsonBid<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonBid<'a> {
    id: String,
    impid: String,
    #[serde(borrow)]
    price: Option<&'a RawValue>,
    adid: String,
    adomain: Vec<String>,
    cat: Vec<String>,
    bundle: String,
    adm: Option<serde::de::IgnoredAny>,
    nurl: String,
    burl: String,
    lurl: String,
}

impl From<Json<'_>> for Answer {
    fn from(json: Json<'_>) -> Self {
        let bids = json.seatbid.into_iter().flat_map(|seat| {
            let name = seat.seat;
            seat.bid.into_iter().map(move |bid| Bid {
                seat: name.clone(),
                id: bid.id,
                imp: bid.impid,
                price: bid.price.and_then(|price| nanos(price.get())),
                ad: bid.adid,
                adomain: bid.adomain,
                cat: bid.cat,
                bundle: bid.bundle,
                has_markup: bid.adm.is_some(),
                nurl: bid.nurl,
                burl: bid.burl,
                lurl: bid.lurl,
            })
        });
        // OpenRTB's default.
        Self { id: json.id, cur: json.cur.unwrap_or_else(|| "USD".to_owned()), bids: bids.collect() }
    }
}

impl From<pb::BidResponse> for Answer {
    fn from(answer: pb::BidResponse) -> Self {
        let bids = answer.seatbid.into_iter().flat_map(|seat| {
            let name = seat.seat;
            seat.bid.into_iter().map(move |bid| Bid {
                seat: name.clone(),
                id: bid.id,
                imp: bid.impid,
                price: nanos(&bid.price.to_string()),
                adomain: bid.adomain,
                has_markup: !bid.adm.is_empty(),
                nurl: bid.nurl,
                burl: bid.burl,
                lurl: bid.lurl,
                ..Bid::default()
            })
        });
        Self { id: answer.id, cur: if answer.cur.is_empty() { "USD".to_owned() } else { answer.cur }, bids: bids.collect() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const BODY: &str = r#"{"id":"r","cur":"USD","seatbid":[{"seat":"s","bid":[{"id":"b","impid":"1","price":12.345678,"adm":"<a>","adomain":["Shop.example"],
        "cat":["IAB7-39"],"bundle":"app.a","nurl":"http://h/n","burl":"http://h/b","lurl":"http://h/l","ext":{}}]}],"nbr":null}"#;

    fn facts() -> Facts {
        let imp = Imp { id: "1".to_owned(), floor: 12_345_678, floor_cur: "USD".to_owned(), typical: 1.0 };
        Facts { imps: vec![imp], ..Facts::default() }
    }

    #[test]
    fn both_formats_are_read_alike() {
        let json = read(Format::Json, BODY.as_bytes()).unwrap();
        let bid = &json.bids[0];
        assert_eq!((bid.price, &*bid.imp, &*bid.seat, &*bid.burl), (Some(12_345_678), "1", "s", "http://h/b"));
        let bid = pb::Bid {
            id: "b".into(),
            impid: "1".into(),
            price: 12.345678,
            adm: "<a>".into(),
            adomain: vec!["Shop.example".into()],
            nurl: "http://h/n".into(),
            burl: "http://h/b".into(),
            lurl: "http://h/l".into(),
            ..pb::Bid::default()
        };
        let seat = pb::SeatBid { bid: vec![bid], seat: "s".into() };
        let message = pb::BidResponse { id: "r".into(), seatbid: vec![seat], cur: "USD".into(), nbr: None };
        let mut found = read(Format::Protobuf, &message.encode_to_vec()).unwrap();
        (found.bids[0].cat, found.bids[0].bundle) = (vec!["IAB7-39".to_owned()], "app.a".to_owned()); // the message has no such fields
        assert_eq!(found, json);
        assert_eq!([read(Format::Json, b"{").unwrap_err(), read(Format::Protobuf, b"{").unwrap_err()], [Fault::Unreadable; 2]);
        assert!(read(Format::Json, br#"{"id":"r","nbr":2}"#).unwrap().bids.is_empty());
    }

    #[test]
    fn an_answer_is_held_against_its_request() {
        let answer = read(Format::Json, BODY.as_bytes()).unwrap();
        assert_eq!((answer.fault("r", &facts()), answer.fault("x", &facts())), (None, Some(Fault::Id)));
        let euros = Facts { cur: vec!["EUR".to_owned()], ..facts() };
        assert_eq!(answer.fault("r", &euros), Some(Fault::Currency));
        let list = |text: &str| vec![text.to_owned()];
        let bid = &answer.bids[0];
        assert_eq!(bid.check("USD", &facts()).map(|(imp, price)| (&*imp.id, price)).ok(), Some(("1", 12_345_678)));
        let floor = |floor, cur: &str| Facts {
            imps: vec![Imp { floor, floor_cur: cur.to_owned(), ..facts().imps[0].clone() }],
            ..Facts::default()
        };
        for (expected, bid, facts) in [
            (Fault::Imp, bid.clone(), Facts::default()),
            (Fault::Price, Bid { price: Some(0), ..bid.clone() }, facts()),
            (Fault::Price, Bid { price: None, ..bid.clone() }, facts()),
            (Fault::BelowFloor, bid.clone(), floor(12_345_679, "USD")),
            (Fault::Markup, Bid { has_markup: false, nurl: String::new(), ..bid.clone() }, facts()),
            (Fault::Seat, bid.clone(), Facts { wseat: list("other"), ..facts() }),
            (Fault::Seat, bid.clone(), Facts { bseat: list("s"), ..facts() }),
            (Fault::Advertiser, bid.clone(), Facts { badv: list("shop.EXAMPLE"), ..facts() }),
            (Fault::Advertiser, bid.clone(), Facts { badv: list("example"), ..facts() }),
            (Fault::Category, bid.clone(), Facts { bcat: list("IAB7"), ..facts() }),
            (Fault::App, bid.clone(), Facts { bapp: list("app.a"), ..facts() }),
        ] {
            assert_eq!(bid.check("USD", &facts).err(), Some(expected), "{bid:?} {facts:?}");
        }
        for fine in [floor(12_345_679, "EUR"), Facts { wseat: list("s"), ..facts() }, Facts { badv: list("op.example"), ..facts() }] {
            assert!(bid.check("USD", &fine).is_ok(), "{fine:?}");
        }
        assert!(bid.check("USD", &Facts { bcat: list("IAB7-3"), ..facts() }).is_ok());
    }
}
