//! Frequency caps, from the request to the decision in the log.

mod conformance;
#[path = "../../../../tests/support/redis.rs"]
mod server;

use std::time::Duration;

use kiki::leaf::{self, policy_rule::Kind};
use serde_json::{Value as Json, json};

use crate::fakes::Manner;
use server::Server;

use crate::world::{Answer, START, World, campaign, client_campaign, policy, prediction, request};

const PLENTY: i64 = 64_000_000_000;
const HOUR: Duration = Duration::from_secs(3_600);

fn cap(id: &str, campaign: &str, most: u32) -> leaf::PolicyRule {
    let kind = Some(Kind::Frequency(leaf::Frequency { most, hours: 24 }));
    leaf::PolicyRule { id: id.into(), client: "acme".into(), campaign: campaign.into(), kind, ..Default::default() }
}

/// With these rules in force, and campaigns of these ids, the first the dearest.
async fn world(rules: Vec<leaf::PolicyRule>, campaigns: &[&str]) -> World {
    world_of(None, rules, campaigns).await
}

async fn world_of(redis: Option<String>, rules: Vec<leaf::PolicyRule>, campaigns: &[&str]) -> World {
    let world = World::counting_in(redis, PLENTY, Manner::Answers(prediction())).await;
    let campaigns = campaigns.iter().zip(0..).map(|(id, n)| {
        let target_roas_ppm = 2_000_000 + n * 500_000;
        client_campaign(leaf::Campaign { campaign: (*id).into(), target_roas_ppm, ..campaign() })
    });
    world.shield.campaigns.send_replace(campaigns.collect());
    world.shield.policy.send_replace(Some(leaf::Policy { rules, ..policy() }));
    world.settle_in().await;
    world
}

async fn ask(world: &World, id: &str, customer: Option<&str>) -> Answer {
    let mut request = request(id);
    request["user"] = customer.map_or(json!({}), |customer| json!({"buyeruid": customer}));
    world.post("/openrtb2/x1", &request).await
}

async fn won(world: &World, id: &str, customer: &str) -> Json {
    let answer = ask(world, id, Some(customer)).await;
    assert_eq!(answer.status, 200, "{id}: {}", answer.head);
    answer.json()["seatbid"][0]["bid"][0].clone()
}

async fn capped(world: &World, id: &str, customer: &str) {
    let answer = ask(world, id, Some(customer)).await;
    assert_eq!((answer.status, answer.header("x-kiki-no-bid")), (204, Some("POLICY")), "{id}");
}

#[tokio::test]
async fn a_customer_has_so_many_impressions_and_each_customer_their_own() {
    let world = world(vec![cap("three-a-day", "spring", 3)], &["spring"]).await;
    for n in 0..3 {
        won(&world, &format!("a{n}"), "ann").await;
    }
    capped(&world, "a3", "ann").await;
    won(&world, "b0", "bob").await;
    let shield = world.stop().await;
    let state = shield.state.lock();
    let refused: Vec<_> = state.decisions.iter().filter(|(_, decision)| decision.refusals != 0).collect();
    let [(campaign, decision)] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((campaign.as_str(), decision.refusals), ("spring", 1 << leaf::Refusal::Frequency as u32));
    assert_eq!((decision.rules.as_slice(), decision.lease_id), (["three-a-day".to_owned()].as_slice(), 0));
}

#[tokio::test]
async fn a_loss_gives_its_impression_back_and_a_charge_does_not() {
    let world = world(vec![cap("one", "spring", 1)], &["spring"]).await;
    let first = won(&world, "r1", "ann").await;
    capped(&world, "r2", "ann").await;
    assert_eq!(world.notice(&first, "lurl", "").await.json()["status"], "applied");
    let second = won(&world, "r3", "ann").await;
    assert_eq!(world.notice(&second, "burl", "9").await.json()["status"], "applied");
    assert_eq!(world.notice(&second, "lurl", "").await.status, 409);
    capped(&world, "r4", "ann").await;
    world.stop().await;
}

#[tokio::test]
async fn without_a_notice_a_bid_counts_until_its_deadline_and_charged_until_the_windows_end() {
    let world = world(vec![cap("one", "spring", 1)], &["spring"]).await;
    let (_open, charged) = (won(&world, "a1", "ann").await, won(&world, "b1", "bob").await);
    assert_eq!(world.notice(&charged, "burl", "9").await.json()["status"], "applied");
    world.clock.advance_to(START.plus(HOUR - Duration::from_micros(1)));
    capped(&world, "a2", "ann").await;
    world.clock.advance_to(START.plus(HOUR)); // the notice window of this world
    won(&world, "a3", "ann").await;
    world.clock.advance_to(START.plus(24 * HOUR - Duration::from_micros(1)));
    capped(&world, "b2", "bob").await;
    world.clock.advance_to(START.plus(24 * HOUR));
    won(&world, "b3", "bob").await;
    world.stop().await;
}

#[tokio::test]
async fn a_cap_of_a_campaign_leaves_the_next_one_and_a_clients_counts_all() {
    let rules = vec![cap("spring", "spring", 1), cap("acme", "", 3)];
    let world = world(rules, &["spring", "autumn"]).await;
    let mut seen = Vec::new();
    for n in 0..3 {
        seen.push(won(&world, &format!("r{n}"), "ann").await["cid"].clone());
    }
    assert_eq!(seen, ["spring", "autumn", "autumn"]);
    capped(&world, "r3", "ann").await;
    world.stop().await;
}

#[tokio::test]
async fn who_has_no_id_has_no_cap_to_keep() {
    let world = world(vec![cap("one", "spring", 1)], &["spring"]).await;
    for n in 0..3 {
        assert_eq!(ask(&world, &format!("r{n}"), None).await.status, 200);
    }
    world.stop().await;
}

/// Waits until Redis has what this SyncFlow told it: a question is answered behind all of that.
async fn told(world: &World, id: &str) {
    let before = world.metric("syncflow_frequency_alone_total").await;
    won(world, id, id).await;
    assert_eq!(world.metric("syncflow_frequency_alone_total").await, before, "Redis did not answer");
}

#[tokio::test]
async fn several_syncflows_count_together() {
    let redis = Server::start_or_install();
    let rules = || vec![cap("one", "spring", 1)];
    let (first, second) =
        (world_of(Some(redis.url()), rules(), &["spring"]).await, world_of(Some(redis.url()), rules(), &["spring"]).await);
    let bid = won(&first, "r1", "ann").await;
    told(&first, "t1").await;
    capped(&second, "r2", "ann").await;
    assert_eq!(first.notice(&bid, "lurl", "").await.json()["status"], "applied");
    told(&first, "t2").await;
    let bid = won(&second, "r3", "ann").await;
    assert_eq!(second.notice(&bid, "burl", "9").await.json()["status"], "applied");
    told(&second, "t3").await;
    capped(&first, "r4", "ann").await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test]
async fn where_redis_is_gone_each_syncflow_goes_by_its_own_counts() {
    let redis = Server::start_or_install();
    let world = world_of(Some(redis.url()), vec![cap("one", "spring", 1)], &["spring"]).await;
    won(&world, "r1", "ann").await;
    drop(redis);
    let before = world.metric("syncflow_frequency_alone_total").await;
    capped(&world, "r2", "ann").await;
    won(&world, "r3", "bob").await;
    assert_eq!(world.metric("syncflow_frequency_alone_total").await, before + 2.0);
    world.stop().await;
}
