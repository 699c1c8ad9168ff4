#![allow(clippy::unwrap_used, clippy::print_stdout)]

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde_json::{Value as Json, json};

use super::*;
use crate::domain::openrtb::BidRequest;

/// The number of a field and its wire type, then what stands there: written by hand, by the numbers of the IAB's file.
fn field(number: u8, wire: u8, rest: &[u8]) -> Vec<u8> {
    let key = u16::from(number) << 3 | u16::from(wire);
    let key = if key < 128 { vec![key as u8] } else { vec![key as u8 | 128, (key >> 7) as u8] };
    [&key[..], rest].concat()
}

fn text(number: u8, text: &str) -> Vec<u8> {
    field(number, 2, &[&[text.len() as u8], text.as_bytes()].concat())
}

fn within(number: u8, parts: &[Vec<u8>]) -> Vec<u8> {
    let inside = parts.concat();
    field(number, 2, &[&[inside.len() as u8], &inside[..]].concat())
}

fn number(of: u8, value: u8) -> Vec<u8> {
    field(of, 0, &[value])
}

#[test]
fn the_numbers_are_those_of_the_iab() {
    let banner = within(2, &[number(1, 120), number(2, 60)]);
    let floor = field(8, 1, &1.5_f64.to_le_bytes());
    let deal = within(2, &[text(1, "d"), field(2, 1, &0.1_f64.to_le_bytes()), text(3, "GBP")]);
    let native = within(13, &[within(50, &[within(6, &[number(1, 7), number(2, 1), within(3, &[number(1, 25)])])])]);
    let video = within(3, &[text(1, "video/mp4"), number(3, 5), number(4, 30), number(6, 64), number(7, 48)]);
    let audio = within(15, &[text(1, "audio/mp4"), number(2, 6), number(3, 31)]);
    let imp = [
        text(1, "1"),
        text(7, "top"),
        banner,
        video,
        audio,
        floor,
        text(9, "eur"),
        number(12, 1),
        native,
        within(11, &[number(1, 1), deal]),
    ];
    let body = [
        text(1, "r"),
        within(2, &imp),
        within(4, &[text(3, "App.example"), text(4, "IAB1"), text(8, "com.app")]),
        within(5, &[within(4, &[text(3, "FRA")]), text(20, "ifa-1"), number(23, 0)]),
        within(6, &[text(2, "buyer"), text(10, "consent")]),
        number(7, 1),
        number(8, 100),
        text(9, "seat"),
        text(17, "other"),
        text(11, "EUR"),
        text(12, "IAB7"),
        text(13, "Bad.example"),
        text(23, "IAB8"),
        text(16, "bad.app"),
        within(14, &[number(4, 1), text(2, "gpp"), within(99, &[text(2, "1YNN"), within(4, &[number(1, 2), number(2, 1)])])]),
        within(19, &[within(4, &[number(1, 1)])]),
        number(15, 0),
        text(98, "unknown"),
    ];
    let same = json!({
        "id": "r", "at": 1, "tmax": 100, "wseat": ["seat"], "bseat": ["other"], "cur": ["EUR"], "bcat": ["IAB7"], "acat": ["IAB8"], "badv": ["Bad.example"],
        "bapp": ["bad.app"], "test": 0,
        "app": {"domain": "App.example", "cat": ["IAB1"], "bundle": "com.app"},
        "device": {"geo": {"country": "FRA"}, "ifa": "ifa-1", "lmt": 0},
        "user": {"buyeruid": "buyer", "consent": "consent"},
        "regs": {"gdpr": 1, "gpp": "gpp", "ext": {"us_privacy": "1YNN", "dsa": {"dsarequired": 2, "pubrender": 1}}}, "source": {"schain": {"complete": 1}},
        "imp": [{
            "id": "1", "tagid": "top", "banner": {"w": 120, "h": 60}, "bidfloor": 1.5, "bidfloorcur": "eur", "secure": 1,
            "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30, "w": 64, "h": 48},
            "audio": {"mimes": ["audio/mp4"], "minduration": 6, "maxduration": 31},
            "native": {"request": {"assets": [{"id": 7, "required": 1, "title": {"len": 25}}]}},
            "pmp": {"private_auction": 1, "deals": [{"id": "d", "bidfloor": 0.1, "bidfloorcur": "GBP"}]},
        }],
    });
    let (body, same) = (body.concat(), same.to_string());
    let (of_protobuf, of_json) = (Format::Protobuf.read(&body).unwrap(), Format::Json.read(same.as_bytes()).unwrap());
    let found = BidRequest::of(&of_protobuf).unwrap();
    assert_eq!(found, BidRequest::of(&of_json).unwrap());
    assert!(found.imps[0].native.is_some() && found.set_aside.is_empty());
}

fn descriptor() -> MessageDescriptor {
    DescriptorPool::decode(kiki::pb::DESCRIPTORS).unwrap().get_message_by_name("openrtb.v2.BidRequest").unwrap()
}

#[test]
fn parts_of_a_message_may_be_scattered() {
    let imp = within(2, &[text(1, "1"), within(2, &[number(1, 120)]), text(7, "top"), within(2, &[number(2, 60)])]);
    let body = [text(12, "IAB7"), text(1, "first"), imp, text(12, "IAB8"), text(1, "r")].concat();
    let document = Format::Protobuf.read(&body).unwrap();
    let request = BidRequest::of(&document).unwrap();
    assert_eq!((request.id, &request.bcat[..]), ("r", &["IAB7", "IAB8"][..]));
    assert_eq!(request.imps[0].banner.as_ref().unwrap().sizes[..], [openrtb::Size { w: 120, h: 60 }]);
}

#[test]
fn what_is_no_message_is_refused() {
    let cut = |bytes: Vec<u8>| bytes[..bytes.len() - 1].to_vec();
    for (body, why) in [
        (number(1, 7), "id has the wire type Varint"),
        (text(8, "x"), "tmax has the wire type LengthDelimited"),
        (cut(text(1, "r")), "id is cut off"),
        (cut(within(2, &[field(8, 1, &1.5_f64.to_le_bytes())])), "imp is cut off"),
        (within(2, &[cut(field(8, 1, &1.5_f64.to_le_bytes()))]), "bidfloor is cut off"),
        (field(1, 2, &[1, 0xff]), "invalid utf-8"),
        (field(7, 0, &[0xff; 10]), "invalid varint"),
        (vec![0], "invalid tag"),
        (field(98, 3, &[]), "invalid varint"),
    ] {
        let error = Format::Protobuf.read(&body).unwrap_err();
        assert!(error.field == "body" && error.message.contains(why), "{error}");
    }
    for amount in [f64::NAN, f64::INFINITY, -1.0] {
        let imp = within(2, &[text(1, "1"), within(2, &[]), field(8, 1, &amount.to_le_bytes())]);
        let body = [text(1, "r"), imp].concat();
        assert_eq!(BidRequest::of(&Format::Protobuf.read(&body).unwrap()).unwrap_err().field, "imp[0].bidfloor");
    }
}

/// A JSON request as the message that means the same; none where a value has no place in the message's fields and their types.
fn message_of(descriptor: &MessageDescriptor, json: &Json) -> Option<DynamicMessage> {
    // In JSON these were sent as extensions before they were part of the standard.
    if descriptor.name() == "RegsExt" && ["coppa", "gpp"].iter().any(|name| json.get(name).is_some()) {
        return None;
    }
    let mut message = DynamicMessage::new(descriptor.clone());
    for field in descriptor.fields() {
        let Some(json) = json.get(field.name()).filter(|json| !json.is_null() && **json != json!("")) else { continue };
        let value = match json {
            Json::Array(list) if field.is_list() => Value::List(list.iter().map(|one| value_of(&field, one)).collect::<Option<_>>()?),
            _ if field.is_list() => return None,
            _ => value_of(&field, json)?,
        };
        message.set_field(&field, value);
    }
    Some(message)
}

fn value_of(field: &FieldDescriptor, json: &Json) -> Option<Value> {
    match field.kind() {
        Kind::String => Some(Value::String(json.as_str()?.to_owned())),
        Kind::Bool => match json.as_i64()? {
            0 => Some(Value::Bool(false)),
            1 => Some(Value::Bool(true)),
            _ => None,
        },
        Kind::Int32 => Some(Value::I32(json.as_i64()?.try_into().ok()?)),
        Kind::Double => Some(Value::F64(json.as_f64()?)),
        Kind::Message(of) if json.is_object() => Some(Value::Message(message_of(&of, json)?)),
        _ => None,
    }
}

#[test]
fn every_real_request_says_the_same_in_protobuf() {
    let Some(folder) = std::env::var_os("KIKI_CONFORMANCE_DATA") else {
        println!("did not run: KIKI_CONFORMANCE_DATA names no folder with openrtb/requests.jsonl");
        return;
    };
    let lines = std::fs::read_to_string(std::path::Path::new(&folder).join("openrtb/requests.jsonl")).unwrap();
    let descriptor = descriptor();
    let (mut same, mut cannot) = (0, 0);
    for line in lines.lines() {
        let line: Json = serde_json::from_str(line).unwrap();
        let Some(message) = message_of(&descriptor, &line["request"]) else {
            cannot += 1;
            continue;
        };
        let (json, protobuf) = (line["request"].to_string(), message.encode_to_vec());
        let (json, protobuf) = (Format::Json.read(json.as_bytes()).unwrap(), Format::Protobuf.read(&protobuf).unwrap());
        let mut of_json = BidRequest::of(&json).unwrap();
        let mut of_protobuf = BidRequest::of(&protobuf).unwrap();
        // Why something was set aside may be told in other words; that it was, may not.
        assert_eq!(of_json.set_aside.len(), of_protobuf.set_aside.len(), "{}", of_json.id);
        of_json.set_aside.clear();
        of_protobuf.set_aside.clear();
        assert_eq!(of_protobuf, of_json);
        same += 1;
    }
    println!("{same} requests say the same in protobuf, {cannot} have a value that protobuf has no place for");
    assert_eq!(same + cannot, 1_828);
    assert!(cannot < 100);
}
