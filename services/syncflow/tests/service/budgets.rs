//! Budgets and leases: what is bid never goes above what was granted and marked.

use std::time::Duration;

use kiki::leaf;
use kiki::pb::syncvalue::v1 as value;

use crate::fakes::Manner;
use crate::world::{PREDICTED_PRICE, PRIOR_PRICE, START, World, campaign, client_campaign, prediction, request};

#[tokio::test]
async fn a_budget_is_used_up_to_its_last_bid_and_not_beyond() {
    // Room for ten bids, and all but a nano of an eleventh.
    let world = World::new(11 * PREDICTED_PRICE - 1_000).await;
    let mut bids = 0;
    for n in 0..15 {
        let answer = world.bid(&format!("r{n}")).await;
        match answer.status {
            200 => bids += 1,
            _ => assert_eq!(answer.header("x-kiki-no-bid"), Some("BUDGET"), "{n}"),
        }
    }
    assert_eq!(bids, 10);
    assert_eq!(world.shield.state.lock().refusals, 1, "an exhausted budget is asked about once");
    let shield = world.stop().await;
    let state = shield.state.lock();
    let budget = 1 << leaf::Refusal::Budget as u32;
    assert_eq!(state.decisions.iter().filter(|(_, decision)| decision.refusals == budget).count(), 5);
}

#[tokio::test]
async fn money_that_comes_back_is_bid_again() {
    let world = World::new(PREDICTED_PRICE).await;
    let bid = world.won("r1").await;
    assert_eq!(world.bid("r2").await.header("x-kiki-no-bid"), Some("BUDGET"));
    assert_eq!(world.notice(&bid, "lurl", "").await.status, 200);
    assert_eq!(world.bid("r3").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn a_raised_budget_is_bid_at_once() {
    let world = World::new(PREDICTED_PRICE).await;
    world.won("r1").await;
    assert_eq!(world.bid("r2").await.header("x-kiki-no-bid"), Some("BUDGET"));
    world.shield.state.lock().budget_nanos *= 2;
    assert_eq!(world.bid("r3").await.header("x-kiki-no-bid"), Some("BUDGET"), "not asked again so soon");
    world.clock.advance_to(START.plus(Duration::from_secs(61)));
    assert_eq!(world.bid("r4").await.status, 200, "after a minute of the clock");
    world.stop().await;
}

#[tokio::test]
async fn a_lease_is_renewed_in_its_last_third_and_replaced_after_its_end() {
    let world = World::new(64_000_000_000).await;
    world.won("r1").await;
    world.clock.advance_to(START.plus(Duration::from_secs(30)));
    world.won("r2").await;
    assert_eq!(world.shield.state.lock().renewals, 0);
    world.clock.advance_to(START.plus(Duration::from_secs(45)));
    world.won("r3").await;
    let seen = |state: &crate::fakes::State| (state.renewals, state.grants);
    assert_eq!(seen(&world.shield.state.lock()), (1, 1));
    world.clock.advance_to(START.plus(Duration::from_secs(45 + 59)));
    world.won("r4").await;
    let state = world.shield.state.lock();
    assert_eq!((state.renewals, state.grants), (1, 2), "its end less the clock skew has come");
    assert!(state.leases[&1].returned);
    assert_eq!(state.leases[&1].mark, (3, 3 * PREDICTED_PRICE));
}

#[tokio::test]
async fn bids_at_once_take_each_slot_once() {
    let world = std::sync::Arc::new(World::new(200 * PREDICTED_PRICE).await);
    let mut ids = std::collections::BTreeSet::new();
    // Eight at a time: more would be a queue where the machine is slow, and turned away.
    for first in (0..96).step_by(8) {
        let one = |n: u32| {
            let world = world.clone();
            tokio::spawn(async move { world.won(&format!("r{n}")).await["id"].as_str().unwrap().to_owned() })
        };
        let bids: Vec<_> = (first..first + 8).map(one).collect();
        for bid in bids {
            assert!(ids.insert(bid.await.unwrap()), "a slot was given twice");
        }
    }
}

#[tokio::test]
async fn what_the_log_has_counted_moves_the_price() {
    let world = World::new(64_000_000_000).await;
    {
        // The prior of 1 in 1,000 weighs 1,000 impressions: with 4 of 1,000 more it is 5 in 2,000.
        let counts = &mut world.shield.state.lock().counts;
        (counts.billed_impressions, counts.conversions) = (1_000, 4);
    }
    assert_eq!(world.won("r1").await["price"], 15, "the first lease brings the counts");
    assert_eq!(world.won("r2").await["price"], 37.5);
    world.stop().await;
}

#[tokio::test]
async fn a_paused_campaign_stops() {
    let world = World::new(64_000_000_000).await;
    world.won("r1").await;
    let paused = leaf::Campaign { version: 2, paused: true, ..campaign() };
    world.shield.campaigns.send_replace(vec![client_campaign(paused)]);
    for n in 0.. {
        if world.bid(&format!("p{n}")).await.header("x-kiki-no-bid") == Some("NO_MATCH") {
            break;
        }
        assert!(n < 500);
    }
    world.stop().await;
}

#[tokio::test]
async fn at_the_end_decisions_are_recorded_and_leases_given_back() {
    let world = World::new(64_000_000_000).await;
    for n in 0..5 {
        world.won(&format!("r{n}")).await;
    }
    world.shield.state.lock().lose_answers = 1;
    let shield = world.stop().await;
    let state = shield.state.lock();
    assert_eq!(state.decisions.len(), 5);
    let sequences: Vec<_> = state.decisions.iter().map(|(_, decision)| decision.sequence).collect();
    assert_eq!(sequences, [0, 1, 2, 3, 4]);
    assert!(state.leases.values().all(|lease| lease.returned));
}

#[tokio::test]
async fn each_platform_spends_from_a_lease_of_its_own() {
    let world = World::new(64_000_000_000).await;
    for (n, exchange) in ["x1", "x2", "x1", "x2"].into_iter().enumerate() {
        assert_eq!(world.post(&format!("/openrtb2/{exchange}"), &request(&format!("r{n}"))).await.status, 200);
    }
    let shield = world.stop().await;
    let state = shield.state.lock();
    assert_eq!(state.platforms.values().collect::<Vec<_>>(), ["tradedesk", "x2"]);
    assert_eq!(state.leases.values().map(|lease| lease.mark.0).collect::<Vec<_>>(), [2, 2], "two bids on each");
}

#[tokio::test]
async fn a_paused_budget_stops_with_the_next_renewal_and_is_asked_about_every_five_seconds() {
    let world = World::new(64_000_000_000).await;
    world.won("r1").await;
    world.shield.state.lock().paused = true;
    world.won("r2").await;
    let late = START.plus(Duration::from_secs(45));
    world.clock.advance_to(late);
    for n in 3..6 {
        assert_eq!(world.bid(&format!("r{n}")).await.header("x-kiki-no-bid"), Some("NOT_READY"));
    }
    {
        let state = world.shield.state.lock();
        assert!(state.leases[&1].returned, "what was marked and not used is free");
        assert_eq!((state.leases[&1].mark.0, state.asked_paused), (2, 0));
    }
    world.clock.advance_to(late.plus(Duration::from_secs(5)));
    for n in 6..9 {
        assert_eq!(world.bid(&format!("r{n}")).await.header("x-kiki-no-bid"), Some("NOT_READY"));
    }
    assert_eq!(world.shield.state.lock().asked_paused, 1);
    world.shield.state.lock().paused = false;
    world.clock.advance_to(late.plus(Duration::from_secs(10)));
    world.won("r9").await;
    world.stop().await;
}

const NOT_READY: Option<&str> = Some("NOT_READY");

#[tokio::test]
async fn an_unanswered_return_is_sent_again_in_the_same_words_and_no_slot_is_taken_meanwhile() {
    // The first bid leaves room for one of the prior's price, and not for a second of its own.
    let world = World::new(PREDICTED_PRICE + PRIOR_PRICE).await;
    world.won("r1").await;
    world.shield.state.lock().lose_returns = 1;
    assert_eq!(world.bid("r2").await.header("x-kiki-no-bid"), NOT_READY);
    *world.value.manner.lock() = Manner::Answers(value::Prediction { mean_micros: 20_000_000, ..prediction() });
    let bid = world.won("r3").await;
    assert_eq!((&bid["price"], &bid["id"]), (&serde_json::json!(10), &serde_json::json!("2-0")), "of the second lease");
    let state = world.shield.state.lock();
    assert_eq!((state.returns.len(), &state.returns[0]), (2, &state.returns[1]));
    assert_eq!(state.leases[&1].mark, (1, PREDICTED_PRICE));
}

/// A world with one bid made, at the instant when the lease is to be renewed.
async fn renewal_due() -> World {
    let world = World::new(64_000_000_000).await;
    world.won("r1").await;
    world.clock.advance_to(START.plus(Duration::from_secs(45)));
    world
}

#[tokio::test]
async fn a_full_queue_costs_a_bid_and_not_the_lease() {
    let world = renewal_due().await;
    world.shield.state.lock().overloaded = 1;
    assert_eq!(world.bid("r2").await.header("x-kiki-no-bid"), NOT_READY);
    assert_eq!(world.won("r3").await["id"], "1-1");
    assert_eq!(world.shield.state.lock().grants, 1);
    world.clock.advance_to(START.plus(Duration::from_secs(45 + 59)));
    world.shield.state.lock().overloaded = 1;
    assert_eq!(world.bid("r4").await.header("x-kiki-no-bid"), NOT_READY);
    assert_eq!(world.won("r5").await["id"], "2-0");
    assert!(world.shield.state.lock().leases[&1].returned);
}

#[tokio::test]
async fn after_an_unanswered_renewal_the_lease_goes_on_under_the_next_epoch() {
    let world = renewal_due().await;
    world.shield.state.lock().lose_renewals = 1;
    assert_eq!(world.bid("r2").await.header("x-kiki-no-bid"), NOT_READY);
    assert_eq!(world.won("r3").await["id"], "1-1");
    let shield = world.stop().await;
    let state = shield.state.lock();
    assert_eq!((state.grants, state.leases[&1].epoch, state.leases[&1].returned), (1, 3, true));
}

#[tokio::test]
async fn after_an_unanswered_renewal_the_lease_is_returned_under_the_next_epoch() {
    let world = renewal_due().await;
    world.shield.state.lock().lose_renewals = 1;
    assert_eq!(world.bid("r2").await.header("x-kiki-no-bid"), NOT_READY);
    let shield = world.stop().await;
    let state = shield.state.lock();
    assert_eq!((state.leases[&1].epoch, state.leases[&1].returned), (2, true));
}

#[tokio::test]
async fn a_lease_that_the_log_holds_for_ended_is_returned_all_the_same() {
    let world = renewal_due().await;
    world.shield.state.lock().leases.get_mut(&1).unwrap().expires_at = START;
    assert_eq!(world.won("r2").await["id"], "2-0");
    let state = world.shield.state.lock();
    assert!(state.leases[&1].returned);
    assert_eq!(state.leases[&1].mark, (1, PREDICTED_PRICE));
}

#[tokio::test]
async fn without_syncshield_bids_stop_within_the_bound_that_is_shown() {
    let world = World::new(64_000_000_000).await;
    world.won("r0").await;
    let float = world.metric(r#"syncflow_float_micros{campaign="spring",client="acme"}"#).await as i64 * 1_000;
    assert_eq!(float, 31 * PREDICTED_PRICE, "a lease begins with a mark of 32 bids");
    world.shield.state.lock().overloaded = u32::MAX;
    let mut bids = 0;
    for n in 1..100 {
        let answer = world.bid(&format!("r{n}")).await;
        if answer.status != 200 {
            assert_eq!(answer.header("x-kiki-no-bid"), Some("NOT_READY"));
            break;
        }
        bids += 1;
    }
    assert_eq!(bids * PREDICTED_PRICE, float);
    assert_eq!(world.metric(r#"syncflow_float_micros{campaign="spring",client="acme"}"#).await, 0.0);
}
