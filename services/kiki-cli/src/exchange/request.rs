//! The requests that are sent: a body that is made once, to which each sending adds its id and its customer.
//!
//! In JSON these go ahead of the rest of the object. In protobuf they go behind it: messages that follow one another are merged,
//! and of a field that comes twice the last counts (protobuf.dev, encoding, "last one wins").

use std::io::Write as _;
use std::sync::LazyLock;

use clap::ValueEnum;
use flate2::Compression;
use flate2::write::GzEncoder;
use kiki::money::parse_decimal;
use kiki::pb::openrtb::v2 as pb;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value as Field};
use serde_json::{Map, Value, json};

use super::auction::{Market, Rule};
use crate::error::{Doing as _, Failure};

/// How requests and answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON.
    Json,
    /// Protobuf with the IAB's field numbers.
    Protobuf,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/x-protobuf",
        }
    }
}

/// A request that can be sent again and again.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    body: Body,
    /// What answers are held against.
    pub(crate) facts: Facts,
}

#[derive(Debug, Clone)]
enum Body {
    /// The members of `user` and those of the request, each with a comma ahead where there are any.
    Json {
        user: String,
        rest: String,
    },
    Protobuf(Vec<u8>),
    /// No object, which no bidder can take: sent as it is.
    Raw(Vec<u8>),
}

/// What a request says of the bids that it takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Facts {
    /// `at` = 1.
    pub(crate) first_price: bool,
    /// None means US dollars.
    pub(crate) cur: Vec<String>,
    pub(crate) imps: Vec<Imp>,
    pub(crate) bcat: Vec<String>,
    pub(crate) badv: Vec<String>,
    pub(crate) bapp: Vec<String>,
    pub(crate) wseat: Vec<String>,
    pub(crate) bseat: Vec<String>,
}

/// An impression that is for sale.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Imp {
    pub(crate) id: String,
    /// Nanos, and in which currency.
    pub(crate) floor: i64,
    pub(crate) floor_cur: String,
    /// Median of what others offer in this place, nanos.
    pub(crate) typical: f64,
}

impl Template {
    /// From the body of a request, asked under `rule` (its own where there is none) and to be answered within `tmax_ms`.
    ///
    /// # Errors
    /// It has no form in protobuf.
    pub(crate) fn new(mut body: Value, format: Format, rule: Option<Rule>, tmax_ms: u32, market: &Market) -> Result<Self, Failure> {
        let Value::Object(fields) = &mut body else {
            return Ok(Self { body: Body::Raw(body.to_string().into_bytes()), facts: Facts::default() });
        };
        fields.remove("id");
        fields.insert("tmax".to_owned(), json!(tmax_ms));
        if let Some(rule) = rule {
            fields.insert("at".to_owned(), json!(rule.at()));
        }
        let facts = Facts::of(fields, market);
        let body = match format {
            Format::Json => {
                let user = fields.remove("user").unwrap_or(Value::Null);
                Body::Json { user: members(&user), rest: members(&body) }
            }
            Format::Protobuf => {
                let request = REQUEST.as_ref().ok_or_else(|| Failure::new("no description of openrtb.v2.BidRequest"))?;
                Body::Protobuf(message(request, &body).encode_to_vec())
            }
        };
        Ok(Self { body, facts })
    }

    /// The request under this id, for this customer if there is one.
    pub(crate) fn addressed(&self, id: &str, customer: Option<&str>) -> Vec<u8> {
        match &self.body {
            Body::Raw(body) => body.clone(),
            Body::Json { user, rest } => {
                let customer = customer.map(|customer| format!(r#","buyeruid":{}"#, json!(customer))).unwrap_or_default();
                let user = format!("{customer}{user}");
                let user = if user.is_empty() { user } else { format!(r#","user":{{{}}}"#, &user[1..]) };
                format!(r#"{{"id":{}{user}{rest}}}"#, json!(id)).into_bytes()
            }
            Body::Protobuf(body) => {
                let user = customer.map(|customer| pb::User { buyeruid: Some(customer.to_owned()), ..Default::default() });
                let head = pb::BidRequest { id: id.to_owned(), user, ..Default::default() };
                [body.as_slice(), &head.encode_to_vec()].concat()
            }
        }
    }
}

/// Packs a body.
///
/// # Errors
/// None that writing to memory can have.
pub(crate) fn gzip(body: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 2), Compression::fast());
    encoder.write_all(body).and_then(|()| encoder.finish()).doing("packing a request")
}

impl Facts {
    fn of(fields: &Map<String, Value>, market: &Market) -> Self {
        let texts = |name: &str| texts(fields.get(name));
        let place = ["site", "app", "dooh"].iter().find_map(|kind| fields.get(*kind)?.get("id")?.as_str()).unwrap_or_default();
        let imps = fields.get("imp").and_then(Value::as_array).into_iter().flatten();
        Self {
            first_price: fields.get("at").and_then(Value::as_i64) == Some(1),
            cur: texts("cur"),
            imps: imps.map(|imp| Imp::of(imp, place, market)).collect(),
            bcat: texts("bcat"),
            badv: texts("badv"),
            bapp: texts("bapp"),
            wseat: texts("wseat"),
            bseat: texts("bseat"),
        }
    }
}

impl Imp {
    fn of(imp: &Value, place: &str, market: &Market) -> Self {
        let text = |name: &str| imp.get(name).and_then(Value::as_str).unwrap_or_default();
        let kind = ["banner", "video", "audio", "native"].iter().find(|kind| imp.get(**kind).is_some()).unwrap_or(&"");
        let cur = text("bidfloorcur");
        Self {
            id: text("id").to_owned(),
            floor: imp.get("bidfloor").and_then(|floor| nanos(&floor.to_string())).unwrap_or(0).max(0),
            floor_cur: if cur.is_empty() { "USD".to_owned() } else { cur.to_ascii_uppercase() },
            typical: market.typical(&format!("{place}/{}/{kind}", text("tagid"))),
        }
    }
}

/// A CPM as nanos an impression: exact where it has six decimals or fewer, as those that come as doubles mostly have not, and then
/// to the nearest.
pub(crate) fn nanos(cpm: &str) -> Option<i64> {
    parse_decimal(cpm, 6).ok().or_else(|| {
        let nanos = (cpm.parse::<f64>().ok()? * 1e6).round();
        (nanos.abs() < 9e15).then_some(nanos as i64)
    })
}

fn texts(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An object's members as JSON, each with a comma ahead.
fn members(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    fields.map(|(name, value)| format!(",{}:{value}", json!(name))).collect()
}

static REQUEST: LazyLock<Option<MessageDescriptor>> =
    LazyLock::new(|| DescriptorPool::decode(kiki::pb::DESCRIPTORS).ok()?.get_message_by_name("openrtb.v2.BidRequest"));

/// A JSON object as the message that means the same, as far as the message has fields for it.
fn message(of: &MessageDescriptor, json: &Value) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        let value = match json.get(field.name()) {
            Some(Value::Array(list)) if field.is_list() => {
                Some(Field::List(list.iter().filter_map(|one| one_value(&field, one)).collect()))
            }
            Some(one) if !field.is_list() => one_value(&field, one),
            _ => None,
        };
        if let Some(value) = value {
            message.set_field(&field, value);
        }
    }
    message
}

fn one_value(field: &FieldDescriptor, json: &Value) -> Option<Field> {
    match field.kind() {
        Kind::String => Some(Field::String(json.as_str()?.to_owned())),
        Kind::Bool => Some(Field::Bool(json.as_bool().unwrap_or(json.as_i64()? != 0))),
        Kind::Int32 => Some(Field::I32(json.as_i64()?.try_into().ok()?)),
        Kind::Double => Some(Field::F64(json.as_f64()?)),
        Kind::Message(of) if json.is_object() => Some(Field::Message(message(&of, json))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MARKET: Market = Market { seed: 1, median: 1_000_000.0, most: 2 };

    fn body() -> Value {
        json!({"id": "old", "at": 2, "user": {"id": "x"}, "cur": ["EUR"], "badv": ["bad.example"], "test": 0,
            "imp": [{"id": "1", "tagid": "top", "banner": {"w": 300, "h": 250}, "bidfloor": 0.29, "bidfloorcur": "eur", "secure": 1}, {"id": "2"}]})
    }

    fn template(format: Format, rule: Option<Rule>) -> Template {
        Template::new(body(), format, rule, 50, &MARKET).unwrap()
    }

    #[test]
    fn a_request_goes_out_under_its_own_id_for_its_customer() {
        let sent =
            |customer| serde_json::from_slice::<Value>(&template(Format::Json, Some(Rule::First)).addressed("a\"1", customer)).unwrap();
        let mut expected = body();
        (expected["id"], expected["tmax"], expected["at"]) = (json!("a\"1"), json!(50), json!(1));
        assert_eq!(sent(None), expected);
        expected["user"]["buyeruid"] = json!("c-7");
        assert_eq!(sent(Some("c-7")), expected);
        let bare = Template::new(json!({}), Format::Json, None, 50, &MARKET).unwrap();
        assert_eq!(bare.addressed("a", None), br#"{"id":"a","tmax":50}"#);
        assert_eq!(bare.addressed("a", Some("c")), br#"{"id":"a","user":{"buyeruid":"c"},"tmax":50}"#);
        assert_eq!(Template::new(json!([1]), Format::Json, None, 50, &MARKET).unwrap().addressed("a", None), b"[1]");
    }

    #[test]
    fn in_protobuf_it_means_the_same() {
        let sent = template(Format::Protobuf, None).addressed("a", Some("c"));
        let request = pb::BidRequest::decode(&*sent).unwrap();
        let user = request.user.unwrap();
        assert_eq!((&*request.id, user.id.as_deref(), user.buyeruid.as_deref()), ("a", Some("x"), Some("c")));
        assert_eq!((request.tmax, request.at, request.test), (Some(50), Some(2), Some(false)));
        assert_eq!((request.imp.len(), request.imp[0].secure, request.imp[0].bidfloor), (2, Some(true), Some(0.29)));
    }

    #[test]
    fn what_answers_are_held_against_is_read_from_the_request() {
        let facts = template(Format::Protobuf, None).facts;
        assert_eq!((facts.first_price, &facts.cur[..], &facts.badv[..]), (false, &["EUR".to_owned()][..], &["bad.example".to_owned()][..]));
        assert_eq!((facts.imps[0].floor, &*facts.imps[0].floor_cur), (290_000, "EUR"));
        assert_eq!((facts.imps[1].floor, &*facts.imps[1].floor_cur), (0, "USD"));
        assert!(facts.imps[0].typical != facts.imps[1].typical, "two places");
        assert!(template(Format::Json, Some(Rule::First)).facts.first_price);
    }

    #[test]
    fn a_price_is_exact_where_it_can_be() {
        assert_eq!(["12.345678", "0.29", "1e-3", "0.1234567"].map(nanos), [Some(12_345_678), Some(290_000), Some(1_000), Some(123_457)]);
        assert_eq!(["", "x", "1e300"].map(nanos), [None; 3]);
    }
}
