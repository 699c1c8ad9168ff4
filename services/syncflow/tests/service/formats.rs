//! A request in each format that an exchange may send it in, and what it is answered with.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use kiki::leaf;
use kiki::pb::openrtb::v2 as openrtb;
use prost::Message as _;
use serde_json::json;

use crate::fakes::Manner;
use crate::world::*;

const PLENTY: i64 = 64_000_000_000;
const BIDS: &str = "/openrtb2/x1";

fn banner(id: &str) -> openrtb::BidRequest {
    let banner = openrtb::Banner { w: Some(300), h: Some(250), ..Default::default() };
    let imp = openrtb::Imp { id: "1".into(), banner: Some(banner), ..Default::default() };
    let site = openrtb::Site { domain: Some("www.news.example".into()), ..Default::default() };
    openrtb::BidRequest { id: id.into(), imp: vec![imp], site: Some(site), cur: vec!["USD".into()], ..Default::default() }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_request_in_protobuf_is_answered_in_protobuf() {
    let world = World::new(PLENTY).await;
    let body = banner("p1").encode_to_vec();
    for (n, kind) in ["application/x-protobuf", "application/octet-stream; charset=x"].into_iter().enumerate() {
        let headers = [&*format!("content-type: {kind}")];
        let (answer, found) = world.post_bytes(BIDS, &headers, &body).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-protobuf")), "{n}: {}", answer.head);
        let response = openrtb::BidResponse::decode(&*found).unwrap();
        let bid = &response.seatbid[0].bid[0];
        assert_eq!((&*response.id, &*response.cur, &*bid.impid, bid.w, bid.mtype), ("p1", "USD", "1", Some(300), Some(1)));
        assert!(bid.price > 0.0 && bid.adm.contains("/click?") && bid.nurl.contains("/notice/win"), "{bid:?}");
    }
    let (refused, _) =
        world.post_bytes(BIDS, &["content-type: application/x-protobuf"], &openrtb::BidRequest::default().encode_to_vec()).await;
    assert_eq!(refused.status, 400);
    let (refused, why) = world.post_bytes(BIDS, &["content-type: application/x-protobuf"], b"{}").await;
    assert_eq!(refused.status, 400);
    assert!(String::from_utf8(why).unwrap().contains(r#""field":"body""#));
    let json = request("j1").to_string();
    for kind in ["application/json; charset=utf-8", "application/vnd.exchange+json", "text/plain"] {
        let (answer, _) = world.post_bytes(BIDS, &[&*format!("content-type: {kind}")], json.as_bytes()).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{kind}");
    }
    let (refused, why) = world.post_bytes(BIDS, &["content-type: text/xml"], &body).await;
    assert_eq!(refused.status, 415);
    assert!(String::from_utf8(why).unwrap().contains("application/x-protobuf"));
    world.stop().await;
}

#[tokio::test]
async fn a_request_may_be_gzipped_and_so_may_its_answer() {
    let world = World::new(PLENTY).await;
    let body = request("g1").to_string();
    let (answer, _) = world.post_bytes(BIDS, &["content-encoding: gzip", "accept-encoding: gzip"], &gzip(body.as_bytes())).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, Some("gzip")), "{}", answer.head);
    let (answer, found) = world.post_bytes(BIDS, &["content-encoding: gzip"], &gzip(body.as_bytes())).await;
    assert_eq!((answer.status, answer.header("content-encoding")), (200, None));
    assert!(String::from_utf8(found).unwrap().contains(r#""id":"g1""#));
    // The limit is that of what was unpacked, however small it came; and what is no gzip is refused.
    for body in [gzip(" ".repeat(300_000).as_bytes()), body.into_bytes()] {
        let (refused, why) = world.post_bytes(BIDS, &["content-encoding: gzip"], &body).await;
        assert_eq!(refused.status, 400, "{}", refused.head);
        assert!(String::from_utf8(why).unwrap().contains(r#""field":"body""#));
    }
    let (refused, _) = world.post_bytes(BIDS, &["content-encoding: br"], b"x").await;
    assert_eq!(refused.status, 415);
    world.stop().await;
}

#[tokio::test]
async fn an_exchange_that_wants_to_know_is_told_why_there_is_no_bid() {
    let world = World::new(PLENTY).await;
    let mut small = request("n1");
    small["imp"][0]["banner"] = json!({"w": 1, "h": 1});
    let answer = world.post("/openrtb2/x2", &small).await;
    assert_eq!((answer.status, answer.json()), (200, json!({"id": "n1", "nbr": 0})));
    assert_eq!(answer.header("x-kiki-no-bid"), Some("NO_MATCH"));
    let mut both = request("n2");
    both["app"] = json!({});
    assert_eq!(world.post("/openrtb2/x2", &both).await.json(), json!({"id": "n2", "nbr": 2}));
    let mut late = request("n3");
    late["tmax"] = json!(1); // less than the network takes
    assert_eq!(world.post("/openrtb2/x2", &late).await.json(), json!({"id": "n3", "nbr": 15}));
    let message = openrtb::BidRequest { test: Some(true), ..banner("n4") }.encode_to_vec();
    let (answer, found) = world.post_bytes("/openrtb2/x2", &["content-type: application/x-protobuf"], &message).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-protobuf")));
    let expected = openrtb::BidResponse { id: "n4".into(), nbr: Some(0), ..Default::default() };
    assert_eq!(openrtb::BidResponse::decode(&*found).unwrap(), expected);
    assert_eq!(world.post("/openrtb2/x1", &small).await.status, 204, "others are not");
    world.stop().await;
}

#[tokio::test]
async fn whose_ad_it_is_is_told_where_an_exchange_asks() {
    let world = World::bare(PLENTY, Manner::Answers(prediction())).await;
    let mut campaign = campaign();
    let disclosure = leaf::Disclosure { behalf: "Acme".into(), paid: "Acme Holding".into(), rendered: true };
    campaign.creatives[0].disclosure = Some(disclosure);
    world.open(vec![client_campaign(campaign)]).await;
    let mut asks = request("d1");
    asks["regs"] = json!({"ext": {"dsa": {"dsarequired": 3, "pubrender": 0}}});
    let told = json!({"dsa": {"behalf": "Acme", "paid": "Acme Holding", "adrender": 1}});
    assert_eq!(world.post(BIDS, &asks).await.json()["seatbid"][0]["bid"][0]["ext"], told);
    asks["id"] = json!("d2");
    asks["regs"]["ext"]["dsa"]["pubrender"] = json!(2);
    let both = world.post(BIDS, &asks).await;
    assert_eq!((both.status, both.header("x-kiki-no-bid")), (204, Some("NO_MATCH")), "it would be shown twice");
    assert!(world.won("d3").await.get("ext").is_none(), "nobody asked");
    let dsa = openrtb::DsaRequest { dsarequired: Some(1), pubrender: None };
    let regs = openrtb::Regs { ext: Some(openrtb::RegsExt { dsa: Some(dsa), ..Default::default() }), ..Default::default() };
    let message = openrtb::BidRequest { regs: Some(regs), ..banner("d4") }.encode_to_vec();
    let (_, found) = world.post_bytes(BIDS, &["content-type: application/x-protobuf"], &message).await;
    let bid = openrtb::BidResponse::decode(&*found).unwrap().seatbid.remove(0).bid.remove(0);
    let told = openrtb::DsaResponse { behalf: "Acme".into(), paid: "Acme Holding".into(), adrender: true };
    assert_eq!(bid.ext.unwrap().dsa, Some(told));
    world.stop().await;
}

#[tokio::test]
async fn an_advertised_app_is_named_and_not_shown_where_it_is_blocked() {
    let world = World::bare(PLENTY, Manner::Answers(prediction())).await;
    let mut campaign = campaign();
    campaign.creatives[0].bundle = "com.acme.shop".into();
    world.open(vec![client_campaign(campaign)]).await;
    assert_eq!(world.won("a1").await["bundle"], "com.acme.shop");
    let mut blocks = request("a2");
    blocks["bapp"] = json!(["com.rival", "com.acme.shop"]);
    let refused = world.post(BIDS, &blocks).await;
    assert_eq!((refused.status, refused.header("x-kiki-no-bid")), (204, Some("NO_MATCH")));
    let header = ["content-type: application/x-protobuf"];
    let asks = |id: &str, bapp: &str| openrtb::BidRequest { bapp: vec![bapp.into()], ..banner(id) }.encode_to_vec();
    let (answer, found) = world.post_bytes(BIDS, &header, &asks("a3", "com.rival")).await;
    assert_eq!(answer.status, 200);
    let bid = openrtb::BidResponse::decode(&*found).unwrap().seatbid.remove(0).bid.remove(0);
    assert_eq!(bid.bundle.as_deref(), Some("com.acme.shop"));
    assert_eq!(world.post_bytes(BIDS, &header, &asks("a4", "com.acme.shop")).await.0.status, 204);
    world.stop().await;
}
