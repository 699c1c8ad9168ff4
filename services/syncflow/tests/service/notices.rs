//! What comes back after a bid.

use std::time::Duration;

use kiki::ids::{Key, Pseudonyms};
use kiki::pb::syncflow::v1 as pb;
use serde_json::json;
use tonic::{Code, Request};

use crate::world::{PREDICTED_PRICE, START, World, request};

const PLENTY: i64 = 64_000_000_000;

fn receipt(bid: &serde_json::Value) -> String {
    bid["nurl"].as_str().unwrap().split("r=").nth(1).unwrap().split('&').next().unwrap().to_owned()
}

/// The receipt in the click's address.
fn click_receipt(bid: &serde_json::Value) -> String {
    bid["adm"].as_str().unwrap().split("/click?r=").nth(1).unwrap().split('&').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_bill_settles_once_at_what_is_charged() {
    let world = World::new(PLENTY).await;
    let bid = world.won("r1").await;
    assert_eq!(world.notice(&bid, "nurl", "9.5").await.json()["status"], "noted");
    assert_eq!(world.notice(&bid, "burl", "9.500001").await.json()["status"], "applied");
    assert_eq!(world.notice(&bid, "burl", "9.500001").await.json()["status"], "duplicate");
    for (which, price) in [("lurl", ""), ("burl", "9.6")] {
        let conflict = world.notice(&bid, which, price).await;
        assert_eq!((conflict.status, &conflict.json()["status"]), (409, &json!("conflict")), "{which}");
        assert_eq!(conflict.json()["reason"], "closed before with another effect");
    }
    assert_eq!(world.metric(r#"syncflow_notices_total{kind="loss",status="conflict"}"#).await, 1.0);
    assert_eq!(
        world.metric(r#"syncflow_spend_total{campaign="spring",client="acme",currency="USD",platform="tradedesk"}"#).await,
        0.009500001
    );
    let state = world.shield.state.lock();
    let [settlement] = state.settlements.as_slice() else { panic!("{:?}", state.settlements) };
    assert_eq!((settlement.max_nanos, settlement.price_nanos), (PREDICTED_PRICE, 9_500_001));
    assert_eq!((settlement.predicted_ltv_micros, settlement.horizon_days), (30_000_000, 90));
    let customer = Pseudonyms::new(&Key::new([1; 32])).of("acme", "customer-7");
    assert_eq!(settlement.customer, customer.0.as_slice());
}

#[tokio::test]
async fn where_no_bill_comes_the_win_settles() {
    let world = World::new(PLENTY).await;
    let answer = world.post("/openrtb2/x2", &request("r1")).await;
    let bid = &answer.json()["seatbid"][0]["bid"][0];
    assert_eq!(world.notice(bid, "nurl", "15").await.json()["status"], "applied");
    assert_eq!(world.notice(bid, "burl", "15").await.json()["status"], "noted");
    world.stop().await;
}

#[tokio::test]
async fn a_loss_voids_with_its_reason() {
    let world = World::new(PLENTY).await;
    let bid = world.won("r1").await;
    assert_eq!(world.notice(&bid, "lurl", "").await.json()["status"], "applied");
    assert_eq!(world.shield.state.lock().voids[0].loss_reason, 102);
    assert_eq!(world.notice(&bid, "burl", "1").await.status, 409);
}

#[tokio::test]
async fn bad_notices_are_refused() {
    let world = World::new(PLENTY).await;
    let bid = world.won("r1").await;
    for (price, field) in [("${AUCTION_PRICE}", "price"), ("", "price"), ("-1", "price"), ("1.0000001", "price")] {
        let answer = world.notice(&bid, "burl", &price.replace('$', "%24")).await;
        assert_eq!((answer.status, answer.json()["field"].as_str()), (400, Some(field)), "{price}");
    }
    let above = world.notice(&bid, "burl", "15.000001").await;
    assert_eq!((above.status, &above.json()["status"]), (400, &json!("refused")));
    let changed = world.get("/notice/bill?r=AQIDBA&price=1").await;
    assert_eq!((changed.status, changed.json()["field"].as_str()), (400, Some("r")));
    assert_eq!(world.get("/notice/bill").await.status, 400);
    assert_eq!(world.get(&format!("/notice/fill?r={}&price=1", receipt(&bid))).await.json()["field"], "kind");
    world.clock.advance_to(START.plus(Duration::from_secs(3_601)));
    assert_eq!(world.notice(&bid, "burl", "1").await.status, 410);
    assert!(world.shield.state.lock().settlements.is_empty());
}

#[tokio::test]
async fn many_notices_go_in_one_call_and_are_answered_in_order() {
    let world = World::new(PLENTY).await;
    let mut receipts = Vec::new();
    for n in 0..3 {
        receipts.push(receipt(&world.won(&format!("r{n}")).await));
    }
    let notice = |kind: pb::NoticeKind, receipt: &str| pb::Notice {
        kind: kind.into(),
        receipt: receipt.to_owned(),
        price_nanos: 1_000,
        loss_reason: 0,
        ..Default::default()
    };
    let notices = vec![
        notice(pb::NoticeKind::Loss, &receipts[0]),
        notice(pb::NoticeKind::Bill, "forged"),
        notice(pb::NoticeKind::Bill, &receipts[1]),
        notice(pb::NoticeKind::Win, &receipts[2]),
        notice(pb::NoticeKind::Bill, &receipts[1]),
        notice(pb::NoticeKind::Loss, &receipts[1]),
    ];
    let results = world.flow.clone().notify(pb::NotifyRequest { notices }).await.unwrap().into_inner().results;
    use pb::NoticeStatus::{Applied, Conflict, Duplicate, Noted, Refused};
    let statuses: Vec<_> = results.iter().map(pb::NoticeResult::status).collect();
    assert_eq!(statuses, [Applied, Refused, Applied, Noted, Duplicate, Conflict]);
    let many = vec![pb::Notice::default(); 1_025];
    let refused = world.flow.clone().notify(pb::NotifyRequest { notices: many }).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    world.stop().await;
}

#[tokio::test]
async fn a_click_leads_to_the_campaigns_own_page_and_nowhere_else() {
    let world = World::new(PLENTY).await;
    let bid = world.won("r1").await;
    let adm = bid["adm"].as_str().unwrap();
    let click = adm.split('"').nth(1).unwrap().strip_prefix("http://flow.example").unwrap();
    let answer = world.get(click).await;
    let page = format!("https://acme.example/shop?a=1&kiki_receipt={}", click_receipt(&bid));
    assert_eq!((answer.status, answer.header("location")), (302, Some(page.as_str())));
    let elsewhere = world.get(&format!("/click?r={}&to=https%3A%2F%2Fevil.example", click_receipt(&bid))).await;
    assert_eq!((elsewhere.status, elsewhere.header("location")), (400, None));
    assert_eq!(world.get("/click?r=forged&to=https%3A%2F%2Facme.example").await.status, 400);
    world.stop().await;
}

#[tokio::test]
async fn what_a_click_shows_moves_no_money_and_a_notices_receipt_opens_no_click() {
    let world = World::new(PLENTY).await;
    let bid = world.won("r1").await;
    let (receipt, click) = (receipt(&bid), click_receipt(&bid));
    for path in [format!("/notice/bill?r={click}&price=1"), format!("/notice/loss?r={click}&loss=1")] {
        let refused = world.get(&path).await;
        assert_eq!((refused.status, refused.json()["field"].as_str()), (400, Some("r")), "{path}");
    }
    let notice = pb::Notice { kind: pb::NoticeKind::Loss.into(), receipt: click, ..Default::default() };
    let notices = pb::NotifyRequest { notices: vec![notice] };
    let results = world.flow.clone().notify(notices).await.unwrap().into_inner().results;
    assert_eq!(results[0].status(), pb::NoticeStatus::Refused);
    let to = "https%3A%2F%2Facme.example%2Fshop%3Fa%3D1";
    assert_eq!(world.get(&format!("/click?r={receipt}&to={to}")).await.status, 400);
    let report = pb::ReportConversionsRequest { conversions: vec![conversion(&receipt)] };
    world.flow.clone().report_conversions(report).await.unwrap();
    assert_eq!(world.metric("syncflow_receipts_refused_total").await, 1.0);
    let state = world.shield.state.lock();
    assert_eq!((state.purchases[0].1.receipt_lease_id, state.voids.len(), state.settlements.len()), (0, 0, 0));
}

fn conversion(receipt: &str) -> pb::ReportedConversion {
    pb::ReportedConversion {
        client: "acme".into(),
        event_id: "order-1".into(),
        customer: "customer-7".into(),
        currency: "USD".into(),
        value_micros: 12_000_000,
        occurred_at: Some(START.into()),
        receipt: receipt.into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn conversions_go_to_the_log_under_the_pseudonym_with_the_receipts_slot() {
    let world = World::new(PLENTY).await;
    let (first, second) = (world.won("r1").await, world.won("r2").await);
    drop(first);
    let conversions = vec![conversion(&click_receipt(&second)), conversion(""), conversion("forged")];
    let report = pb::ReportConversionsRequest { conversions };
    assert_eq!(world.flow.clone().report_conversions(report).await.unwrap().into_inner().results.len(), 3);
    assert_eq!(world.metric("syncflow_receipts_refused_total").await, 1.0);
    let state = world.shield.state.lock();
    let slots: Vec<_> = state.purchases.iter().map(|(_, one)| (one.receipt_lease_id, one.receipt_sequence)).collect();
    assert_eq!(slots, [(1, 1), (0, 0), (0, 0)]);
    let customer = Pseudonyms::new(&Key::new([1; 32])).of("acme", "customer-7");
    assert_eq!(state.purchases[0].1.customer, customer.0.as_slice());
}

#[tokio::test]
async fn a_tenant_acts_for_itself_alone() {
    let world = World::new(PLENTY).await;
    let as_globex = |message: pb::ReportConversionsRequest| {
        let mut request = Request::new(message);
        request.metadata_mut().insert("kiki-role", "tenant".parse().unwrap());
        request.metadata_mut().insert("kiki-client", "globex".parse().unwrap());
        request
    };
    let report = pb::ReportConversionsRequest { conversions: vec![conversion("")] };
    let refused = world.flow.clone().report_conversions(as_globex(report)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let mut bid = Request::new(pb::BidRequest::default());
    *bid.metadata_mut() = as_globex(Default::default()).metadata().clone();
    assert_eq!(world.flow.clone().bid(bid).await.unwrap_err().code(), Code::PermissionDenied);
    let bad = pb::ReportedConversion { currency: "XYZ".into(), ..conversion("") };
    let report = pb::ReportConversionsRequest { conversions: vec![conversion(""), bad] };
    let refused = world.flow.clone().report_conversions(report).await.unwrap_err();
    assert!(refused.message().starts_with("conversions[1].currency"), "{refused}");
    world.stop().await;
}
