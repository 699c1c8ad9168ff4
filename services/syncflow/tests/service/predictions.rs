//! SyncValue's predictions, and what happens without them.

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::ids::CustomerKey;
use kiki::leaf::{self, PredictionStatus};
use kiki::pb::syncvalue::v1 as value;
use serde_json::json;
use syncflow::clients::predictor::{Predictions, Predictor, Questions};
use syncflow::domain::breaker::{Breaker, Settings};
use syncflow::domain::fallback::Predicted;
use syncflow::domain::targeting::Campaign;
use syncflow::metrics::Metrics;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fakes::{Manner, Value};
use crate::world::{PREDICTED_PRICE, PRIOR_PRICE, World, campaign, client_campaign, prediction, request};

const PLENTY: i64 = 640_000_000_000;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn world(manner: Manner) -> World {
    let world = World::bare(PLENTY, manner).await;
    world.open(vec![client_campaign(campaign())]).await;
    world
}

/// The price of the bid, nanos.
async fn price(world: &World, id: &str) -> i64 {
    (world.won(id).await["price"].as_f64().unwrap() * 1e6).round() as i64
}

#[tokio::test]
async fn asks_for_the_pseudonym_in_the_campaigns_currency_and_horizon() {
    let world = world(Manner::Answers(prediction())).await;
    assert_eq!(price(&world, "r1").await, PREDICTED_PRICE);
    let asked = world.value.asked.lock().clone();
    let [one] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!((one.client.as_str(), one.currency.as_str(), one.horizon_days), ("acme", "USD", 90));
    assert!(matches!(&one.subject, Some(value::predict_request::Subject::CustomerKey(key)) if key.len() == 16));
    assert!(one.at.is_some());
    let shield = world.stop().await;
    let status = shield.state.lock().decisions[0].1.prediction_status();
    assert_eq!(status, PredictionStatus::Fallback);
}

#[tokio::test]
async fn a_customer_that_nobody_knows_is_priced_by_the_prior() {
    for reason in [value::FallbackReason::UnknownCustomer, value::FallbackReason::NoPopulation] {
        let unknown = value::Prediction { fallback_reason: reason.into(), ..prediction() };
        let world = world(Manner::Answers(unknown)).await;
        assert_eq!(price(&world, "r1").await, PRIOR_PRICE);
        world.stop().await;
    }
    let world = world(Manner::Answers(prediction())).await;
    let mut anonymous = request("r2");
    anonymous["user"] = json!({});
    let bid = world.post("/openrtb2/x1", &anonymous).await.json();
    assert_eq!(bid["seatbid"][0]["bid"][0]["price"], 10);
    assert!(world.value.asked.lock().is_empty(), "nobody to ask about");
    world.stop().await;
}

#[tokio::test]
async fn predictions_that_name_no_model_are_failures_to_the_breaker() {
    let world = world(Manner::Answers(value::Prediction { model: "No Model".into(), ..prediction() })).await;
    for n in 0..30 {
        assert_eq!(price(&world, &format!("r{n}")).await, PRIOR_PRICE);
    }
    assert_eq!(world.metric(r#"syncflow_circuit_breaker_state_count{platform="syncvalue",state="open"}"#).await, 1.0);
    world.stop().await;
}

#[tokio::test]
async fn a_late_prediction_is_counted_and_the_prior_stands_in_until_the_breaker_opens() {
    let world = world(Manner::Hangs).await;
    assert_eq!(price(&world, "late").await, PRIOR_PRICE);
    assert_eq!(world.metric("syncflow_predictions_late_total").await, 1.0);
    let world = std::sync::Arc::new(world);
    // Fifteen at a time: more would be a queue where the machine is slow, and turned away.
    for first in [0, 15] {
        let one = |n: u32| {
            let world = world.clone();
            tokio::spawn(async move { price(&world, &format!("r{n}")).await })
        };
        let bids: Vec<_> = (first..first + 15).map(one).collect();
        for bid in bids {
            assert_eq!(bid.await.unwrap(), PRIOR_PRICE);
        }
    }
    let state = |state: &str| format!(r#"syncflow_circuit_breaker_state_count{{platform="syncvalue",state="{state}"}}"#);
    assert_eq!((world.metric(&state("open")).await, world.metric(&state("closed")).await), (1.0, 0.0));
    let asked = world.value.asked.lock().len();
    assert_eq!(price(&world, "refused").await, PRIOR_PRICE);
    assert_eq!(world.value.asked.lock().len(), asked, "an open breaker asks nothing");
    let world = std::sync::Arc::into_inner(world).unwrap();
    let shield = world.stop().await;
    assert!(
        shield.state.lock().decisions.iter().all(|(_, one)| one.prediction_status() == PredictionStatus::Prior && one.model == "prior")
    );
}

#[tokio::test]
async fn without_a_prediction_the_median_of_recent_ones_stands_in_times_the_platforms_multiplier() {
    let world = world(Manner::Answers(prediction())).await;
    for (n, mean) in [90_000_000, 30_000_000, 20_000_000].into_iter().enumerate() {
        *world.value.manner.lock() = Manner::Answers(value::Prediction { mean_micros: mean, ..prediction() });
        world.won(&format!("before{n}")).await;
    }
    *world.value.manner.lock() = Manner::Fails;
    assert_eq!(price(&world, "after").await, PREDICTED_PRICE * 6 / 5, "1.2 for tradedesk");
    let mut anonymous = request("anonymous");
    anonymous["user"] = json!({});
    let bid = world.post("/openrtb2/x1", &anonymous).await.json();
    assert_eq!(bid["seatbid"][0]["bid"][0]["price"], 10, "a stranger is priced by the prior");
    assert_eq!(world.metric(r#"syncflow_predictions_total{status="median"}"#).await, 1.0);
    let shield = world.stop().await;
    let decisions = shield.state.lock().decisions.clone();
    let decision = &decisions.iter().find(|(_, one)| one.prediction_status() == PredictionStatus::Median).unwrap().1;
    assert_eq!(decision.model, "recent-median");
    assert_eq!((decision.predicted_ltv_micros, decision.priced_ltv_micros), (30_000_000, 36_000_000), "the fee never sees a multiplier");
}

#[tokio::test]
async fn a_syncvalue_that_comes_back_is_asked_again() {
    let world = world(Manner::Fails).await;
    for n in 0..25 {
        assert_eq!(price(&world, &format!("r{n}")).await, PRIOR_PRICE);
    }
    *world.value.manner.lock() = Manner::Answers(prediction());
    world.clock.advance_to(crate::world::START.plus(std::time::Duration::from_secs(31)));
    let mut last = 0;
    for n in 0..200 {
        last = price(&world, &format!("again{n}")).await;
        if last == PREDICTED_PRICE {
            break;
        }
        let now = kiki::clock::UnixMicros(crate::world::START.0 + (32 + n) * 31_000_000);
        world.clock.advance_to(now); // each pause of the breaker is over
    }
    assert_eq!(last, PREDICTED_PRICE);
    world.stop().await;
}

#[tokio::test]
async fn a_cautious_campaign_prices_less_of_what_is_uncertain() {
    let uncertain = value::Prediction { q05_micros: 10_000_000, ..prediction() };
    let world = World::bare(PLENTY, Manner::Answers(uncertain)).await;
    world.open(vec![client_campaign(leaf::Campaign { caution_ppm: 500_000, ..campaign() })]).await;
    assert_eq!(price(&world, "r1").await, PREDICTED_PRICE * 2 / 3, "20.00: halfway from 30.00 to 10.00");
    let shield = world.stop().await;
    let decision = shield.state.lock().decisions[0].1.clone();
    assert_eq!((decision.predicted_ltv_micros, decision.priced_ltv_micros), (30_000_000, 20_000_000));
}

/// Waits for what another task does; the test's time is its bound.
async fn until(what: impl Fn() -> bool) {
    let turns = async {
        while !what() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, turns).await.expect("it never came");
}

/// A predictor, and what it asks about two customers.
struct Asking {
    value: Value,
    breaker: Arc<Breaker>,
    metrics: Metrics,
    predictor: Predictor,
    campaign: Campaign,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

const CUSTOMERS: [CustomerKey; 2] = [CustomerKey([1; 16]), CustomerKey([2; 16])];
const NOW: Clock = Clock::System;

impl Asking {
    async fn start(manner: Manner) -> Self {
        let ((value, address), stop) = (Value::start(manner).await, CancellationToken::new());
        let breaker = Arc::new(Breaker::new(Settings::default(), 1, NOW.now()));
        let metrics = Metrics::new(&kiki::runtime::Metrics::new());
        let channel = kiki::runtime::channel(&address).unwrap();
        let (predictor, serving) = Predictor::new(channel, breaker.clone(), NOW, metrics.clone(), stop.clone());
        let campaign = Campaign::compile("acme", &campaign(), 90).unwrap();
        Self { value, breaker, metrics, predictor, campaign, stop, serving: tokio::spawn(serving) }
    }

    /// Asks about the customers, in one call.
    fn ask(&self) -> Predictions {
        let mut questions = Questions::for_about(2);
        let places = CUSTOMERS.map(|customer| questions.add(&self.campaign, customer, NOW.now()));
        assert_eq!(places, [0, 1]);
        self.predictor.ask(questions)
    }

    async fn is_answered(&self) {
        let mut predictions = self.ask();
        for place in [0, 1] {
            let said = predictions.of(place, Instant::now() + PATIENCE).await;
            assert!(matches!(said, Predicted::Said(_)), "{said:?}");
        }
    }

    /// Answers the call, once it was asked.
    async fn answer(&self) {
        until(|| self.value.asked.lock().len() == 2).await;
        let (stream, _) = self.value.stream.lock().clone().unwrap();
        let answer = value::PredictStreamResponse { predictions: vec![holding(); 2], ..Default::default() };
        stream.upgrade().unwrap().send(Ok(answer)).await.unwrap();
    }

    /// Which of them are held.
    fn held(&self) -> [bool; 2] {
        let held = self.predictor.held(NOW.now()).unwrap();
        CUSTOMERS.map(|customer| held.get(&customer, &self.campaign.recent, NOW.now()).is_some())
    }

    async fn stop(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

fn holding() -> value::Prediction {
    value::Prediction { holds_ms: 60_000, ..prediction() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_said_is_held_until_syncvalue_says_that_it_no_longer_holds_or_is_gone() {
    let asking = Asking::start(Manner::Answers(holding())).await;
    asking.is_answered().await;
    assert_eq!(asking.held(), [true; 2]);
    let (stream, watches) = asking.value.stream.lock().clone().unwrap();
    assert!(watches);
    let stream = stream.upgrade().unwrap();
    let told = value::PredictStreamResponse { changed: vec![vec![1; 16].into()], ..Default::default() };
    stream.send(Ok(told)).await.unwrap();
    until(|| asking.held() == [false, true]).await;
    asking.is_answered().await;
    assert_eq!(asking.held(), [true; 2], "asked again");
    stream.send(Ok(value::PredictStreamResponse { all_changed: true, ..Default::default() })).await.unwrap();
    until(|| asking.held() == [false; 2]).await;
    asking.is_answered().await;
    let in_a_minute = || UnixMicros(NOW.now().0 + 60_000_000);
    asking.breaker.force(true, in_a_minute(), NOW.now());
    assert!(asking.predictor.held(NOW.now()).is_none(), "somebody mistrusts what it says");
    asking.breaker.force(false, in_a_minute(), NOW.now());
    assert!(asking.breaker.release(NOW.now()));
    assert_eq!(asking.held(), [true; 2]);
    drop(stream);
    asking.value.die();
    until(|| asking.held() == [false; 2]).await;
    asking.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_too_late_for_its_bid_is_held_for_the_next_one() {
    let asking = Asking::start(Manner::Hangs).await;
    let mut predictions = asking.ask();
    for place in [0, 1] {
        let said = predictions.of(place, Instant::now()).await;
        assert!(matches!(said, Predicted::Missing), "{said:?}");
    }
    assert_eq!(asking.metrics.predictions_late.get(), 2);
    drop(predictions);
    asking.answer().await;
    until(|| asking.held() == [true; 2]).await;
    asking.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_waits_for_is_held_too() {
    let asking = Asking::start(Manner::Answers(holding())).await;
    drop(asking.ask()); // before the answer or behind it
    until(|| asking.held() == [true; 2]).await;
    assert_eq!(asking.metrics.predictions_late.get(), 0, "nobody's bid came too early");
    asking.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_more_time_waits_on_for_an_answer_that_was_too_late_for_another() {
    let asking = Asking::start(Manner::Hangs).await;
    let mut predictions = asking.ask();
    assert!(matches!(predictions.of(0, Instant::now()).await, Predicted::Missing));
    asking.answer().await;
    let said = predictions.of(1, Instant::now() + PATIENCE).await;
    assert!(matches!(said, Predicted::Said(_)), "{said:?}");
    assert_eq!(asking.metrics.predictions_late.get(), 1);
    assert_eq!(asking.held(), [true; 2]);
    asking.stop().await;
}
