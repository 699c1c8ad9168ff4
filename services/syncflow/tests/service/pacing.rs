//! A paced campaign: it begins below its value, comes closer while nothing is charged, draws back from a charge, and its
//! decisions say how their prices came about.

use std::time::Duration;

use kiki::leaf;

use crate::fakes::Manner;
use crate::world::{PREDICTED_PRICE, START, World, campaign, client_campaign, prediction};

const WINDOW: Duration = Duration::from_secs(900);

#[tokio::test]
async fn bids_follow_what_was_charged_and_decisions_say_how() {
    let world = World::bare(64_000_000_000, Manner::Answers(prediction())).await;
    let paced = leaf::Campaign { pacing: leaf::Pacing::Even.into(), limit_daily_micros: 1_000_000, zone: "UTC".into(), ..campaign() };
    world.open(vec![client_campaign(paced)]).await;
    world.won("r1").await;
    world.clock.advance_to(START.plus(WINDOW));
    let bid = world.won("r2").await;
    assert_eq!(world.notice(&bid, "burl", "1.5").await.status, 200);
    world.won("r3").await;
    let shield = world.stop().await;
    let state = shield.state.lock();
    let decisions: Vec<&leaf::Decision> = state.decisions.iter().map(|(_, decision)| decision).collect();
    for decision in &decisions {
        assert_eq!(decision.value_nanos, PREDICTED_PRICE);
        let offered = i128::from(PREDICTED_PRICE) * 1_000_000 / (1_000_000 + i128::from(decision.pacing_lambda_ppm));
        assert_eq!(i128::from(decision.price_nanos), offered);
    }
    let prices: Vec<i64> = decisions.iter().map(|decision| decision.price_nanos).collect();
    assert!(prices[0] * 2 < prices[1] && prices[2] < prices[1] && prices[0] < prices[2], "{prices:?}");
}

#[tokio::test]
async fn nothing_is_said_of_a_campaign_that_is_not_paced() {
    let world = World::new(64_000_000_000).await;
    world.won("r1").await;
    let shield = world.stop().await;
    let state = shield.state.lock();
    let said: Vec<_> = state.decisions.iter().map(|(_, one)| (one.price_nanos, one.value_nanos, one.pacing_lambda_ppm)).collect();
    assert_eq!(said, [(PREDICTED_PRICE, 0, 0)]);
}
