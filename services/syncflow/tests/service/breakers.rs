//! Circuit breakers of platforms, and what an operator does to them.

use std::time::Duration;

use kiki::pb::syncflow::v1 as flow;

use crate::world::{START, World, request};

const PLENTY: i64 = 640_000_000_000;
const TRADEDESK: &str = "platform/tradedesk";

fn overriding(name: &str, what: flow::BreakerOverride, seconds: u64) -> flow::OverrideBreakerRequest {
    flow::OverrideBreakerRequest {
        name: name.into(),
        r#override: what.into(),
        operator: "ada".into(),
        reason: "an incident".into(),
        until: Some(START.plus(Duration::from_secs(seconds)).into()),
    }
}

#[tokio::test]
async fn a_platform_that_is_forced_open_is_not_bid_on_and_no_other_feels_it() {
    let world = World::new(PLENTY).await;
    let mut client = world.flow.clone();
    let open = overriding(TRADEDESK, flow::BreakerOverride::ForceOpen, 60);
    let told = client.override_breaker(open).await.unwrap().into_inner().breaker.unwrap();
    assert_eq!((told.state(), told.operator.as_str()), (flow::BreakerState::ForcedOpen, "ada"));
    let asked = world.value.asked.lock().len();
    let refused = world.bid("r1").await;
    assert_eq!((refused.status, refused.header("x-kiki-no-bid")), (204, Some("PLATFORM")));
    assert_eq!(refused.header("x-kiki-no-bid-detail"), Some("tradedesk: circuit breaker is forced_open"));
    assert_eq!(world.value.asked.lock().len(), asked, "refused before anything is asked");
    assert_eq!(world.post("/openrtb2/x2", &request("r2")).await.status, 200, "another platform");
    world.clock.advance_to(START.plus(Duration::from_secs(60)));
    let seconds = |state: &str| format!(r#"syncflow_circuit_breaker_seconds_total{{platform="{TRADEDESK}",state="{state}"}}"#);
    assert_eq!(world.metric(&seconds("forced_open")).await, 60.0);
    let automatic = overriding(TRADEDESK, flow::BreakerOverride::Automatic, 0);
    let told = client.override_breaker(automatic).await.unwrap().into_inner().breaker.unwrap();
    assert_eq!(told.state(), flow::BreakerState::HalfOpen, "it ended by itself");
    for n in 0..3 {
        assert_eq!(world.bid(&format!("again{n}")).await.status, 200, "a probe");
    }
    let closed = format!(r#"syncflow_circuit_breaker_state_count{{platform="{TRADEDESK}",state="closed"}}"#);
    assert_eq!(world.metric(&closed).await, 1.0);
    world.stop().await;
}

#[tokio::test]
async fn who_watches_sees_all_and_then_what_changed() {
    let world = World::new(PLENTY).await;
    let mut client = world.flow.clone();
    let mut watched = client.watch_breakers(flow::WatchBreakersRequest {}).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap().breakers;
    let names: Vec<&str> = first.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, [TRADEDESK, "syncvalue"]);
    assert!(first.iter().all(|one| one.state() == flow::BreakerState::Closed && one.operator.is_empty()));
    client.override_breaker(overriding("syncvalue", flow::BreakerOverride::Trip, 0)).await.unwrap();
    let [one] = watched.message().await.unwrap().unwrap().breakers.try_into().unwrap();
    assert_eq!((one.name.as_str(), one.state(), one.why.as_str()), ("syncvalue", flow::BreakerState::Open, "it was tripped"));
    assert_eq!((one.operator.as_str(), one.reason.as_str(), one.changes), ("ada", "an incident", 1));
    world.stop().await;
}

#[tokio::test]
async fn an_override_names_its_breaker_its_end_and_who_and_is_the_operators() {
    let world = World::new(PLENTY).await;
    let mut client = world.flow.clone();
    let good = overriding(TRADEDESK, flow::BreakerOverride::ForceClosed, 60);
    for (field, bad) in [
        ("name", flow::OverrideBreakerRequest { name: "platform/none".into(), ..good.clone() }),
        ("override", flow::OverrideBreakerRequest { r#override: 0, ..good.clone() }),
        ("operator", flow::OverrideBreakerRequest { operator: String::new(), ..good.clone() }),
        ("reason", flow::OverrideBreakerRequest { reason: "x".repeat(513), ..good.clone() }),
        ("until", flow::OverrideBreakerRequest { until: None, ..good.clone() }),
        ("until", overriding(TRADEDESK, flow::BreakerOverride::ForceOpen, 0)),
        ("until", overriding(TRADEDESK, flow::BreakerOverride::ForceOpen, 31 * 86_400)),
    ] {
        let status = client.override_breaker(bad).await.unwrap_err();
        assert!(status.code() == tonic::Code::InvalidArgument && status.message().starts_with(field), "{field}: {status}");
    }
    let mut request = tonic::Request::new(good);
    request.metadata_mut().insert(kiki::caller::ROLE, "service".parse().unwrap());
    assert_eq!(client.override_breaker(request).await.unwrap_err().code(), tonic::Code::PermissionDenied);
    world.stop().await;
}

#[tokio::test]
async fn a_platform_whose_impressions_suddenly_cost_twice_as_much_is_not_bid_on() {
    let world = World::new(PLENTY).await;
    for n in 0..70 {
        let bid = world.won(&format!("usual{n}")).await;
        assert_eq!(world.notice(&bid, "burl", "4").await.status, 200);
    }
    let mut bids = Vec::new();
    for n in 0..20 {
        bids.push(world.won(&format!("dear{n}")).await);
    }
    for bid in &bids {
        assert_eq!(world.notice(bid, "burl", "15").await.status, 200, "what was bought is charged all the same");
    }
    assert_eq!(world.bid("after").await.header("x-kiki-no-bid"), Some("PLATFORM"));
    assert_eq!(world.post("/openrtb2/x2", &request("other")).await.status, 200, "another platform");
    let mut watched = world.flow.clone().watch_breakers(flow::WatchBreakersRequest {}).await.unwrap().into_inner();
    let first = watched.message().await.unwrap().unwrap().breakers;
    let tripped = first.iter().find(|one| one.name == TRADEDESK).unwrap();
    assert_eq!((tripped.state(), tripped.operator.as_str()), (flow::BreakerState::Open, "syncflow"));
    assert!(tripped.reason.starts_with("CPM jump"), "{tripped:?}");
    world.stop().await;
}
