//! What is bid on, and what is not and why.

use kiki::leaf;
use kiki::pb::syncflow::v1 as pb;
use serde_json::json;
use syncflow::config::Record;

use crate::fakes::Manner;
use crate::world::{PREDICTED_PRICE, World, campaign, client_campaign, policy, prediction, request};

const PLENTY: i64 = 64_000_000_000;

fn opportunity(id: &str) -> pb::Opportunity {
    pb::Opportunity {
        request_id: id.into(),
        imp_id: "1".into(),
        exchange: "x1".into(),
        customer: "customer-7".into(),
        domain: "news.example".into(),
        format: leaf::CreativeFormat::Banner.into(),
        width: 300,
        height: 250,
        ..Default::default()
    }
}

#[tokio::test]
async fn bids_over_openrtb_with_all_that_an_exchange_needs() {
    let world = World::new(PLENTY).await;
    let answer = world.bid("r1").await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    let response = answer.json();
    assert_eq!((&response["id"], &response["cur"], &response["seatbid"][0]["seat"]), (&json!("r1"), &json!("USD"), &json!("acme")));
    let bid = &response["seatbid"][0]["bid"][0];
    assert_eq!(bid["impid"], "1");
    assert!(answer.body.contains(r#""price":15,"#), "{}", answer.body);
    assert_eq!((&bid["cid"], &bid["crid"], &bid["w"], &bid["mtype"]), (&json!("spring"), &json!("c1"), &json!(300), &json!(1)));
    let between = |text: &str, begin: &str| text.split(begin).nth(1).unwrap().split('&').next().unwrap().to_owned();
    let receipt = between(bid["nurl"].as_str().unwrap(), "/notice/win?r=");
    let click = between(bid["adm"].as_str().unwrap(), "/click?r=");
    assert_ne!(receipt, click);
    let address = format!("http://flow.example/click?r={click}&to=https%3A%2F%2Facme.example%2Fshop%3Fa%3D1");
    assert_eq!(bid["adm"], format!(r#"<a href="{address}">shop</a>"#));
    world.stop().await;
}

#[tokio::test]
async fn every_no_bid_has_its_reason() {
    let world = World::new(PLENTY).await;
    let cases: [(&str, &str, serde_json::Value, &str); 7] = [
        ("x1", "/imp/0/banner/w", json!(301), "NO_MATCH"),
        ("x3", "/id", json!("other exchange"), "NO_MATCH"),
        ("x1", "/site/domain", json!("www.bad.example"), "POLICY"),
        ("x1", "/imp/0/bidfloor", json!(15.000001), "BELOW_FLOOR"),
        ("x1", "/imp/0/bidfloorcur", json!("EUR"), "NO_MATCH"),
        ("x1", "/test", json!(1), "TEST"),
        ("x1", "/app", json!({}), "NO_MATCH"),
    ];
    for (n, (exchange, pointer, value, reason)) in cases.into_iter().enumerate() {
        let mut request = request(&format!("r{n}"));
        (request["test"], request["app"]) = (json!(0), json!(null));
        (request["imp"][0]["bidfloor"], request["imp"][0]["bidfloorcur"]) = (json!(0.01), json!("USD"));
        *request.pointer_mut(pointer).unwrap() = value;
        let answer = world.post(&format!("/openrtb2/{exchange}"), &request).await;
        assert_eq!((answer.status, answer.header("x-kiki-no-bid")), (204, Some(reason)), "{request}");
    }
    assert_eq!(world.metric(r#"syncflow_no_bids_total{reason="NO_MATCH"}"#).await, 4.0);
    world.stop().await;
}

#[tokio::test]
async fn malformed_requests_are_refused_by_field() {
    let world = World::new(PLENTY).await;
    for (path, body, field) in [
        ("/openrtb2/x1", "{".to_owned(), "body"),
        ("/openrtb2/x1", " ".repeat(300_000), "body"),
        ("/openrtb2/x1", r#"{"id":"r","imp":[{"id":"1","banner":{"h":-1}}]}"#.to_owned(), "imp[0].banner.h"),
        ("/openrtb2/X1", "{}".to_owned(), "exchange"),
    ] {
        let answer = world.post_text(path, &body).await;
        assert_eq!((answer.status, answer.json()["field"].as_str()), (400, Some(field)), "{}", answer.body);
    }
    world.stop().await;
}

#[tokio::test]
async fn without_policy_or_campaigns_nothing_is_bid() {
    let world = World::bare(PLENTY, Manner::Answers(prediction())).await;
    assert_eq!(world.bid("r1").await.header("x-kiki-no-bid"), Some("NOT_READY"));
    world.shield.campaigns.send_replace(vec![client_campaign(campaign())]);
    assert_eq!(world.bid("r1").await.header("x-kiki-no-bid"), Some("NOT_READY"));
    world.shield.policy.send_replace(Some(policy()));
    world.settle_in().await;
    assert_eq!(world.bid("r1").await.status, 200, "not ready is no answer to keep");
    world.stop().await;
}

#[tokio::test]
async fn the_same_opportunity_has_the_same_answer_and_one_slot() {
    let world = World::new(PLENTY).await;
    let first = world.bid("r1").await.body;
    assert_eq!(world.bid("r1").await.body, first);
    let mut flow = world.flow.clone();
    let call = pb::BidRequest { opportunity: Some(opportunity("r1")), await_durable: true };
    let same = flow.bid(call).await.unwrap().into_inner();
    let Some(pb::bid_response::Result::Bid(bid)) = same.result else { panic!("{same:?}") };
    assert!(first.contains(&bid.receipt));
    let shield = world.stop().await;
    assert_eq!(shield.state.lock().decisions.len(), 1);
}

#[tokio::test]
async fn the_dearest_of_our_own_campaigns_bids() {
    let world = World::bare(PLENTY, Manner::Answers(prediction())).await;
    let cheap = leaf::Campaign { campaign: "cheap".into(), target_roas_ppm: 4_000_000, ..campaign() };
    let blocked = leaf::Campaign { campaign: "blocked".into(), target_roas_ppm: 1, ..campaign() };
    world.open([cheap, campaign(), blocked].map(client_campaign).to_vec()).await;
    assert_eq!(world.won("r1").await["cid"], "spring");
    let shield = world.stop().await;
    let decisions = &shield.state.lock().decisions;
    let seen: Vec<_> = decisions.iter().map(|(campaign, decision)| (campaign.as_str(), decision.refusals)).collect();
    assert_eq!(seen, [("blocked", 1 << leaf::Refusal::BidCap as u32), ("spring", 0)]);
}

#[tokio::test]
async fn a_grpc_bid_answers_once_its_decision_is_durable() {
    let world = World::new(PLENTY).await;
    world.shield.state.lock().lose_answers = 1;
    let mut flow = world.flow.clone();
    let call = pb::BidRequest { opportunity: Some(opportunity("r1")), await_durable: true };
    let response = flow.bid(call).await.unwrap().into_inner();
    let Some(pb::bid_response::Result::Bid(bid)) = response.result else { panic!("{response:?}") };
    assert_eq!((bid.price_nanos, bid.campaign.as_str()), (PREDICTED_PRICE, "spring"));
    assert!(bid.markup.contains("/click?r="));
    let state = world.shield.state.lock();
    let [(campaign, decision)] = state.decisions.as_slice() else { panic!("{:?}", state.decisions) };
    assert_eq!((campaign.as_str(), decision.price_nanos, decision.sequence), ("spring", PREDICTED_PRICE, 0));
    assert_eq!((decision.platform.as_str(), decision.model.as_str(), decision.customer.len()), ("tradedesk", "rfv-1", 16));
    assert_eq!(state.policy_digests.iter().next().unwrap(), &kiki::guardrail::digest(&policy()));
}

#[tokio::test]
async fn grpc_fields_are_checked_and_named() {
    let world = World::new(PLENTY).await;
    type Change = fn(&mut pb::Opportunity);
    let cases: [(&str, Change); 7] = [
        ("opportunity.request_id", |o| o.request_id.clear()),
        ("opportunity.imp_id", |o| o.imp_id = "x".repeat(129)),
        ("opportunity.exchange", |o| o.exchange = "X".into()),
        ("opportunity.country", |o| o.country = "DE".into()),
        ("opportunity.format", |o| o.format = 0),
        ("opportunity.floor_nanos", |o| o.floor_nanos = -1),
        ("opportunity.currency", |o| o.currency = "XYZ".into()),
    ];
    for (field, change) in cases {
        let mut opportunity = opportunity("r1");
        change(&mut opportunity);
        let call = pb::BidRequest { opportunity: Some(opportunity), await_durable: false };
        let status = world.flow.clone().bid(call).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(status.message().starts_with(field), "{status}");
    }
    world.stop().await;
}

#[tokio::test]
async fn decisions_below_the_floor_are_counted_where_they_are_not_to_be_recorded() {
    for (record, recorded) in [(Record::All, 3), (Record::Refusals, 2)] {
        let world = World::told(64_000_000_000, Manner::Answers(prediction()), |config| config.record = record).await;
        world.open(vec![client_campaign(campaign())]).await;
        world.won("bid").await;
        let mut below = request("below");
        below["imp"][0]["bidfloor"] = json!(1_000);
        assert_eq!(world.post("/openrtb2/x1", &below).await.header("x-kiki-no-bid"), Some("BELOW_FLOOR"));
        let mut refused = request("refused");
        refused["site"]["domain"] = json!("bad.example");
        assert_eq!(world.post("/openrtb2/x1", &refused).await.header("x-kiki-no-bid"), Some("POLICY"));
        let counted = world.metric(r#"syncflow_decisions_counted_total{reason="BELOW_FLOOR"}"#).await;
        assert_eq!(counted, f64::from(3 - recorded), "what is not recorded is counted");
        let shield = world.stop().await;
        assert_eq!(shield.state.lock().decisions.len(), recorded as usize, "{record:?}");
    }
}
