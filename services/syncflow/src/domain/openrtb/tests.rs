#![allow(clippy::unwrap_used)]

use smallvec::smallvec;

use super::*;
use serde_json::{Value, json};

/// What a test reads lives as long as the test's process.
fn read(body: Vec<u8>) -> Result<BidRequest<'static>, Malformed> {
    BidRequest::of(Box::leak(Box::new(Document::json(body.leak())?)))
}

fn parse(value: &Value) -> Result<BidRequest<'static>, Malformed> {
    read(serde_json::to_vec(value).unwrap())
}

fn with_imp(imp: Value) -> Value {
    json!({"id": "r", "site": {"page": "https://news.example/a"}, "imp": [imp]})
}

fn refused_field(value: &Value) -> String {
    parse(value).expect_err("should be refused").field
}

#[test]
fn reads_what_a_bid_needs() {
    let request = parse(&json!({
        "id": "auction-1", "tmax": 120, "at": 1, "cur": ["usd"], "test": 1,
        "bcat": ["IAB25"], "acat": ["IAB22"], "badv": ["Rival.Example"], "bapp": ["com.rival"], "wseat": ["s1"], "bseat": ["s2"],
        "imp": [{
            "id": "1", "secure": 1, "bidfloor": 0.29, "bidfloorcur": "eur",
            "banner": {"w": 300, "h": 250, "format": [{"w": 300, "h": 250}, {"w": 728, "h": 90}, {"wmin": 10, "wratio": 2, "hratio": 1}]},
            "video": {"mimes": ["video/mp4"], "minduration": 5, "maxduration": 30, "w": 640, "h": 480},
            "pmp": {"private_auction": 1, "deals": [{"id": "d", "bidfloor": 5.0}]}
        }],
        "app": {"bundle": "com.example.news", "domain": "News.Example", "cat": ["IAB12"]},
        "device": {"ifa": "abc", "geo": {"country": "de"}},
        "user": {"buyeruid": "", "id": "exchange-7"},
        "regs": {"ext": {"gdpr": 1, "us_privacy": "1YNN"}}
    }))
    .unwrap();
    assert_eq!((request.id, request.tmax_ms, request.at, request.test), ("auction-1", Some(120), 1, true));
    let imp = &request.imps[0];
    let sizes = smallvec![Size { w: 300, h: 250 }, Size { w: 728, h: 90 }];
    assert_eq!(imp.banner, Some(Banner { sizes }));
    assert_eq!((imp.floor_nanos, &*imp.floor_currency, imp.secure), (290_000, "EUR", true));
    let video = imp.video.as_ref().unwrap();
    assert_eq!((video.min_duration_s, video.max_duration_s), (5, Some(30)));
    assert!(imp.private_auction);
    assert_eq!(imp.deals[0].floor_nanos, 5_000_000);
    assert_eq!(request.channel.kind, ChannelKind::App);
    assert_eq!(request.channel.domain.as_deref(), Some("news.example"));
    assert_eq!(request.channel.bundle, Some("com.example.news"));
    assert_eq!(request.device.country.as_deref(), Some("DEU"));
    assert_eq!(request.customer, Some("exchange-7"));
    assert_eq!(request.cur, ["USD"]);
    assert_eq!(request.badv, ["rival.example"]);
    assert_eq!((request.bcat, request.acat), (vec!["IAB25"], vec!["IAB22"]));
    assert_eq!((request.regs.gdpr, request.regs.us_privacy), (Some(true), Some("1YNN")));
    assert!(request.set_aside.is_empty());
}

#[test]
fn tolerates_what_real_traffic_sends() {
    let request = parse(&json!({
        "id": "r", "tmax": "", "at": "", "test": "", "badv": null, "allimps": "",
        "imp": [{"id": "1", "banner": {"w": 160.0, "h": 600.0, "topframe": ""}, "secure": "1", "ext": ""}],
        "device": {"dnt": "", "w": "", "geo": {"country": ""}},
        "regs": {"coppa": "", "ext": null}, "user": {"ext": null, "id": null}
    }))
    .unwrap();
    assert_eq!(request.imps[0].banner.as_ref().unwrap().sizes[..], [Size { w: 160, h: 600 }]);
    assert!(request.imps[0].secure);
    assert_eq!((request.tmax_ms, request.customer), (None, None));
}

#[test]
fn a_sites_domain_is_taken_from_its_page() {
    for (page, domain) in [
        ("https://News.Example/a?b", Some("news.example")),
        ("news.example:8080/a", Some("news.example")),
        ("https://me@news.example#x", Some("news.example")),
        ("/relative", None),
    ] {
        let request = json!({"id": "r", "site": {"page": page}, "imp": [{"id": "1", "banner": {}}]});
        assert_eq!(parse(&request).unwrap().channel.domain.as_deref(), domain, "{page}");
    }
}

#[test]
fn a_childs_id_and_a_limited_devices_id_are_not_used() {
    let mut request = json!({"id": "r", "imp": [{"id": "1", "banner": {}}], "device": {"ifa": "abc"}});
    assert_eq!(parse(&request).unwrap().customer, Some("abc"));
    request["device"]["lmt"] = json!(1);
    assert_eq!(parse(&request).unwrap().customer, None);
    request["user"] = json!({"buyeruid": "u"});
    assert_eq!(parse(&request).unwrap().customer, Some("u"));
    request["regs"] = json!({"coppa": 1});
    assert_eq!(parse(&request).unwrap().customer, None);
    let zeros = json!({"id": "r", "imp": [{"id": "1", "banner": {}}], "device": {"ifa": "00000000-0000"}});
    assert_eq!(parse(&zeros).unwrap().customer, None);
}

#[test]
fn what_is_to_be_disclosed_and_the_supply_chain_are_read_where_either_version_has_them() {
    let of = |regs: Value, source: Value| {
        let request = json!({"id": "r", "imp": [{"id": "1", "banner": {}}], "regs": regs, "source": source});
        let regs = parse(&request).unwrap().regs;
        (regs.dsa, regs.chain_complete)
    };
    let asked = |required, publisher_renders| Dsa { required, publisher_renders };
    let dsa = json!({"dsarequired": 3, "pubrender": 0, "datatopub": 2, "transparency": [{"domain": "x", "dsaparams": [1]}]});
    assert_eq!(of(json!({"ext": {"dsa": dsa}}), json!({"schain": {"complete": 1, "nodes": []}})), (asked(3, Some(0)), Some(true)));
    assert_eq!(of(json!({"dsa": dsa}), json!({"ext": {"schain": {"complete": 0}}})), (asked(3, Some(0)), Some(false)));
    assert_eq!(of(json!({"ext": {"dsa": {"msq_test": 42}}}), json!({"schain": {}})), (asked(0, None), Some(false)));
    assert_eq!(of(json!({}), json!({"ext": ""})), (Dsa::default(), None));
    for (field, regs, source) in [
        ("regs.ext.dsa", json!({"ext": {"dsa": 3}}), json!({})),
        ("regs.ext.dsa.dsarequired", json!({"ext": {"dsa": {"dsarequired": -1}}}), json!({})),
        ("source.schain.complete", json!({}), json!({"schain": {"complete": 7}})),
    ] {
        let request = json!({"id": "r", "imp": [{"id": "1", "banner": {}}], "regs": regs, "source": source});
        assert_eq!(refused_field(&request), field);
    }
}

#[test]
fn a_disclosure_is_shown_once() {
    let shown = |required, publisher, ad| Dsa { required, publisher_renders: publisher }.takes(ad);
    assert!(shown(3, Some(0), true) && !shown(3, Some(0), false), "the publisher cannot");
    assert!(shown(2, Some(1), true) && shown(2, Some(1), false), "the publisher could");
    assert!(!shown(1, Some(2), true) && shown(1, Some(2), false), "the publisher will");
    assert!(shown(1, None, true) && !shown(0, None, true));
}

#[test]
fn refusals_name_their_field() {
    let banner = json!({"w": 1, "h": 1});
    let cases = [
        (json!([]), "body"),
        (json!({"imp": []}), "id"),
        (json!({"id": ""}), "id"),
        (json!({"id": "x".repeat(MAX_ID_BYTES + 1)}), "id"),
        (json!({"id": 7}), "id"),
        (json!({"id": "r"}), "imp"),
        (json!({"id": "r", "tmax": -2}), "tmax"),
        (json!({"id": "r", "imp": {}}), "imp"),
        (json!({"id": "r", "imp": [7]}), "imp[0]"),
        (with_imp(json!({"id": "1"})), "imp[0]"),
        (with_imp(json!({"banner": banner})), "imp[0].id"),
        (with_imp(json!({"id": "1", "banner": 7})), "imp[0].banner"),
        (with_imp(json!({"id": "1", "banner": {"w": -2, "h": 1}})), "imp[0].banner.w"),
        (with_imp(json!({"id": "1", "banner": {"w": "wide", "h": 1}})), "imp[0].banner.w"),
        (with_imp(json!({"id": "1", "banner": {"w": 1, "h": -1}})), "imp[0].banner.h"),
        (with_imp(json!({"id": "1", "banner": {"format": [{"w": 1}]}})), "imp[0].banner.format[0]"),
        (with_imp(json!({"id": "1", "video": {"mimes": []}})), "imp[0].video.mimes"),
        (with_imp(json!({"id": "1", "banner": banner, "bidfloor": -1})), "imp[0].bidfloor"),
        (with_imp(json!({"id": "1", "banner": banner, "bidfloor": "cheap"})), "imp[0].bidfloor"),
        (with_imp(json!({"id": "1", "banner": banner, "secure": 2})), "imp[0].secure"),
        (with_imp(json!({"id": "1", "banner": banner, "pmp": {"deals": [{}]}})), "imp[0].pmp.deals[0].id"),
    ];
    for (request, field) in cases {
        assert_eq!(refused_field(&request), field, "{request}");
    }
    let imps: Vec<Value> = (0..=MAX_IMPS).map(|id| json!({"id": id.to_string(), "banner": {}})).collect();
    let error = parse(&json!({"id": "r", "imp": imps})).unwrap_err();
    assert_eq!(error.to_string(), "imp: has 101 elements, at most 100 are accepted");
    let long = vec![b' '; MAX_BODY_BYTES + 1];
    assert_eq!(Document::json(&long).unwrap_err().field, "body");
    assert_eq!(Document::protobuf(&long).unwrap_err().field, "body");
}

#[test]
fn sets_aside_only_the_part_that_is_at_fault() {
    let native = json!({"request": "{json string}"});
    let request = parse(&json!({"id": "r", "imp": [
        {"id": "1", "banner": {"w": 1, "h": 1}, "native": native},
        {"id": "2", "native": native},
        {"id": "3", "banner": {"w": 1, "h": 1}},
        {"id": "3", "banner": {"w": 2, "h": 2}},
    ]}))
    .unwrap();
    let ids: Vec<&str> = request.imps.iter().map(|imp| imp.id).collect();
    assert_eq!(ids, ["1"]);
    assert_eq!(request.imps[0].native, None);
    let fields: Vec<&str> = request.set_aside.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["imp[0].native.request", "imp[1].native.request", "imp[3].id"]);

    let both = json!({"id": "r", "site": {}, "app": {}, "imp": [{"id": "1", "banner": {"w": 1, "h": 1}}]});
    let both = parse(&both).unwrap();
    assert!(both.imps.is_empty());
    assert_eq!(both.set_aside[0].field, "app");
}

fn native(markup: &Value) -> Result<BidRequest<'static>, Malformed> {
    parse(&with_imp(json!({"id": "1", "native": {"request": markup.to_string()}})))
}

#[test]
fn native_markup_is_checked_inside_its_string() {
    let good = json!({"ver": "1.2", "context": 1, "contextsubtype": 11, "plcmttype": 1,
        "eventtrackers": [{"event": 1, "methods": [1, 2]}],
        "assets": [{"id": 1, "required": 1, "title": {"len": 90}}, {"id": 2, "data": {"type": 500}}]});
    let asked = Native { required: vec![(1, AssetKind::Title)] };
    assert_eq!(native(&good).unwrap().imps[0].native.as_ref(), Some(&asked));
    assert_eq!(native(&json!({"native": good})).unwrap().imps[0].native.as_ref(), Some(&asked));
    let change = |pointer: &str, value: Value| {
        let mut markup = good.clone();
        *markup.pointer_mut(pointer).unwrap() = value;
        native(&markup)
    };
    for (pointer, value, field) in [
        ("/context", json!(376), "context"),
        ("/contextsubtype", json!(31), "contextsubtype"),
        ("/contextsubtype", json!(-1), "contextsubtype"),
        ("/eventtrackers/0/event", json!(5), "eventtrackers[0].event"),
        ("/eventtrackers/0/methods", json!([]), "eventtrackers[0].methods"),
        ("/eventtrackers/0/methods", json!([1, 3]), "eventtrackers[0].methods[1]"),
        ("/assets/1/data/type", json!(13), "assets[1].data.type"),
        ("/assets/1/id", json!(1), "assets[1].id"),
        ("/assets/1/id", json!(null), "assets"),
        ("/assets/0", json!({"id": 1, "title": {}, "img": {}}), "assets[0]"),
        ("/assets/0", json!({"id": 1, "img": {"hmin": -1}}), "assets[0].img.hmin"),
        ("/assets/0", json!({"id": 1, "video": {"mimes": ["a/b"], "protocols": []}}), "assets[0].video.protocols"),
    ] {
        let error = change(pointer, value).unwrap_err();
        assert_eq!(error.field, format!("imp[0].native.request.{field}"));
    }
    for (pointer, value) in [("/plcmttype", json!(11)), ("/assets", json!([])), ("/assets/0", json!({"id": 1}))] {
        let request = change(pointer, value).unwrap();
        assert!(request.imps.is_empty());
        assert_eq!(request.set_aside.len(), 1);
    }
}

#[test]
fn a_price_is_written_digit_for_digit() {
    let bid = Bid {
        id: "1".into(),
        impid: "1".into(),
        price_nanos: 1_234_567,
        adm: "<a>".into(),
        crid: "c".into(),
        cid: "k".into(),
        adomain: vec![],
        bundle: None,
        w: Some(300),
        h: Some(250),
        dur: None,
        nurl: "n".into(),
        burl: "b".into(),
        lurl: "l".into(),
        exp: 60,
        mtype: MarkupType::Banner,
        ext: None,
    };
    let response = BidResponse { id: "r".into(), cur: "USD".into(), seatbid: vec![SeatBid { seat: "acme".into(), bid: vec![bid] }] };
    let text = serde_json::to_string(&response).unwrap();
    assert!(text.contains(r#""price":1.234567,"#), "{text}");
    assert!(text.contains(r#""mtype":1"#) && !text.contains("dur"), "{text}");
}

/// A request with this text as one of its values, or in its place.
fn with(name: &str, value: &str) -> Vec<u8> {
    format!(r#"{{"id":"r","imp":[{{"id":"1","banner":{{"w":1,"h":1}}}}],"{name}":{value}}}"#).into_bytes()
}

#[test]
fn what_is_not_read_may_be_any_json() {
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    for value in [r#""half a pair: \ud800""#, "1e999", &deep, "123456789012345678901234567890"] {
        assert!(read(with("unheard", value)).is_ok(), "{}", &value[..10.min(value.len())]);
        assert!(read(with("id", value)).is_err());
    }
    for value in ["[1,]", "nul", "01", r#""\x""#, "{1:2}", "\u{1}", ""] {
        assert_eq!(read(with("unheard", value)).unwrap_err().field, "body", "{value}");
    }
    let mut latin = with("unheard", "\"x\"");
    let place = latin.iter().position(|byte| *byte == b'x').unwrap();
    latin[place] = 0xe9;
    assert_eq!(read(latin).unwrap_err().field, "body");
    let mut twice = with("tmax", "1");
    twice.extend(with("tmax", "2"));
    assert_eq!(read(twice).unwrap_err().field, "body", "one document, and nothing behind it");
}

#[test]
fn of_a_name_that_stands_twice_the_last_counts() {
    let request =
        read(with("id", r#""s", "imp": [7], "imp": [{"id": "2", "banner": {"w": 1, "w": 3, "h": 3}}], "tmax": 5, "tmax": null"#)).unwrap();
    assert_eq!((request.id, request.tmax_ms, request.imps[0].id), ("s", None, "2"));
    assert_eq!(request.imps[0].banner.as_ref().unwrap().sizes[..], [Size { w: 3, h: 3 }]);
}

#[test]
fn escapes_are_undone_in_names_and_texts() {
    let request = read(br#"{"\u0069d":"\u00e9\n\ud83d\ude00","imp":[{"id":"1","banner":{}}]}"#.to_vec()).unwrap();
    assert_eq!(request.id, "\u{e9}\n\u{1f600}");
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        for document in [Document::json(&body), Document::protobuf(&body)].into_iter().flatten() {
            let _ = BidRequest::of(&document);
        }
    }
}
