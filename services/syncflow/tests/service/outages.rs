//! What goes on while another service does not: SyncValue killed, slow, failing; SyncShield out of reach; one platform silent.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::fakes::Manner;
use crate::world::{Answer, PREDICTED_PRICE, START, World, prediction, request};

const PLENTY: i64 = 640_000_000_000;
/// The median is what was predicted, times 1.2 for tradedesk.
const FALLBACK_PRICE: i64 = PREDICTED_PRICE * 6 / 5;
/// Predictions may take half of it, less the network's 5: long, so that a busy machine is no outage; and short, for one.
const TMAX_MS: u64 = 2_005;
const SHORT_TMAX_MS: u64 = 1_005;
/// Outcomes that the breaker around SyncValue goes by, and those without which it stays closed.
const WINDOW: u32 = 100;
const LEAST: u32 = 20;

fn price(answer: &Answer) -> i64 {
    assert_eq!(answer.status, 200, "{}", answer.head);
    (answer.json()["seatbid"][0]["bid"][0]["price"].as_f64().unwrap() * 1e6).round() as i64
}

/// Bids one after the other, one a second of the world's time.
struct Bids {
    world: World,
    made: i64,
    tmax_ms: u64,
}

impl Bids {
    /// Ten of them on SyncValue's predictions.
    async fn healthy() -> Self {
        let mut bids = Self { world: World::new(PLENTY).await, made: 0, tmax_ms: TMAX_MS };
        for _ in 0..10 {
            assert_eq!(bids.price().await, PREDICTED_PRICE);
        }
        bids
    }

    async fn price(&mut self) -> i64 {
        self.made += 1;
        let mut request = request(&format!("r{}", self.made));
        request["tmax"] = json!(self.tmax_ms);
        let answer = self.world.post("/openrtb2/x1", &request).await;
        self.world.clock.advance_to(START.plus(Duration::from_secs(self.made as u64)));
        price(&answer)
    }

    async fn is(&self, state: &str) -> bool {
        let name = format!(r#"syncflow_circuit_breaker_state_count{{platform="syncvalue",state="{state}"}}"#);
        self.world.metric(&name).await == 1.0
    }

    async fn seconds(&self, state: &str) -> f64 {
        self.world.metric(&format!(r#"syncflow_circuit_breaker_seconds_total{{platform="syncvalue",state="{state}"}}"#)).await
    }

    /// Bids through the outage: the breaker opens within its window, and each bid is made, at the fallback price where SyncValue
    /// did not answer; then it asks nothing.
    async fn opens(&mut self) {
        let mut bids = 0;
        while !self.is("open").await {
            bids += 1;
            assert!(bids <= WINDOW + WINDOW / 10 + 2, "still closed"); // it moves by tenths, and the first pause may be over
            assert!([PREDICTED_PRICE, FALLBACK_PRICE].contains(&self.price().await));
        }
        assert!(bids + 10 >= LEAST, "after {bids}");
        let asked = self.world.value.asked.lock().len();
        assert_eq!(self.price().await, FALLBACK_PRICE);
        assert_eq!(self.world.value.asked.lock().len(), asked, "an open breaker asks nothing");
    }

    /// SyncValue is well again: the breaker closes, predictions are the price, and the metric has the time in each state.
    async fn closes(mut self) {
        for _ in 0..600 {
            if self.is("closed").await {
                break;
            }
            assert!([PREDICTED_PRICE, FALLBACK_PRICE].contains(&self.price().await));
            tokio::time::sleep(Duration::from_millis(5)).await; // connecting anew pauses in real time
        }
        assert_eq!(self.price().await, PREDICTED_PRICE);
        assert!(self.seconds("open").await >= 1.0, "a pause is a second, less a fifth, and bids come each second");
        let all = [self.seconds("closed").await, self.seconds("open").await, self.seconds("half_open").await];
        assert_eq!(all.iter().sum::<f64>(), self.made as f64, "{all:?}");
        self.world.stop().await;
    }
}

#[tokio::test]
async fn a_syncvalue_that_is_killed_is_bid_without_until_it_is_back() {
    let mut bids = Bids::healthy().await;
    bids.world.value.die();
    bids.opens().await;
    bids.world.value.live();
    bids.closes().await;
}

#[tokio::test]
async fn a_syncvalue_of_twice_the_deadline_is_bid_without_until_it_is_quick() {
    let mut bids = Bids::healthy().await;
    *bids.world.value.manner.lock() = Manner::Slow(prediction(), Duration::from_millis(2 * SHORT_TMAX_MS));
    bids.tmax_ms = SHORT_TMAX_MS;
    bids.opens().await;
    bids.tmax_ms = TMAX_MS;
    *bids.world.value.manner.lock() = Manner::Answers(prediction());
    bids.closes().await;
}

#[tokio::test]
async fn a_syncvalue_that_fails_every_other_time_is_bid_without_until_it_does_not() {
    let mut bids = Bids::healthy().await;
    *bids.world.value.manner.lock() = Manner::Flaky(prediction());
    bids.opens().await;
    *bids.world.value.manner.lock() = Manner::Answers(prediction());
    bids.closes().await;
}

#[tokio::test]
async fn without_syncshield_bids_stop_at_the_mark_and_nothing_is_overspent() {
    let world = World::new(PLENTY).await;
    world.won("r0").await;
    world.shield.state.lock().lost = true;
    let (mut made, mut refused) = (1, 0);
    while refused < 20 {
        let answer = world.bid(&format!("r{}", made + refused)).await;
        match answer.status {
            200 => {
                assert_eq!(refused, 0, "once it has stopped, it has");
                made += 1;
            }
            _ => {
                assert_eq!(answer.header("x-kiki-no-bid"), Some("NOT_READY"));
                refused += 1;
            }
        }
    }
    let shield = world.stop().await;
    let state = shield.state.lock();
    let (slots, nanos) = state.leases[&1].mark;
    assert!(made <= i64::from(slots) && made * PREDICTED_PRICE <= nanos, "{made} bids, {nanos} nanos marked");
    assert!((made + 1) * PREDICTED_PRICE > nanos, "what was marked could be spent");
    assert_eq!(state.decisions.iter().filter(|(_, one)| one.refusals == 0).count() as i64, made, "and each bid is in the log");
}

#[tokio::test]
async fn no_bid_on_one_platform_waits_for_another() {
    let world = Arc::new(World::new(PLENTY).await);
    world.shield.mute.send_replace(("tradedesk", false));
    let waiting = tokio::spawn({
        let world = world.clone();
        async move { world.bid("waits").await }
    });
    world.shield.mute.subscribe().wait_for(|(_, asked)| *asked).await.unwrap();
    for n in 0..20 {
        let other = world.post("/openrtb2/x2", &request(&format!("other{n}"))).await;
        assert_eq!(price(&other), PREDICTED_PRICE);
    }
    assert!(!waiting.is_finished(), "it has two seconds, and all others were answered meanwhile");
    let answer = waiting.await.unwrap();
    assert_eq!((answer.status, answer.header("x-kiki-no-bid")), (204, Some("DEADLINE")));
    world.shield.mute.send_replace(("", false));
    Arc::into_inner(world).unwrap().stop().await;
}
