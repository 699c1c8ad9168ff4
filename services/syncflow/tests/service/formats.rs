//! A request in each format that an exchange may send it in, and what it is answered with.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use kiki::pb::openrtb::v2 as openrtb;
use prost::Message as _;

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
