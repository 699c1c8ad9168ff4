//! What bids on one platform feel of another: `cargo bench -p syncflow --bench neighbours`.
//!
//! One caller asks for bids on a platform, one after the other. Beside it, other callers ask for bids on one that is well; on one whose
//! leases SyncShield never answers and whose breaker is held closed, so that each bid on it waits until its deadline; on one whose
//! breaker is open; or nobody does. They take turns, so that a machine that others use hits all of them, and what is printed are
//! medians over the turns, ratios to the turns beside the one that is well. SyncFlow is whole, over gRPC, among the fakes of its tests;
//! all of it is in this process.

#![allow(missing_docs, clippy::unwrap_used)]

#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../tests/service/fakes.rs"]
mod fakes;
#[allow(dead_code, unreachable_pub, reason = "the tests use more of it")]
#[path = "../tests/service/world.rs"]
mod world;

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kiki::leaf;
use kiki::pb::syncflow::v1 as pb;
use pb::bid_response::Result as Answer;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

use fakes::Manner;
use world::{START, World, campaign, client_campaign, prediction};

/// Odd, for medians.
const TURNS: usize = 21;
const TURN: Duration = Duration::from_millis(250);
/// Callers of the other platform, and how often each asks. Bids on a platform that is slow wait for as long. Where more than one bid in
/// ten waits like that, and its breaker is held closed, SyncFlow's limit on bids under way falls, which all platforms share.
const NEIGHBOURS: u64 = 8;
const EVERY: Duration = Duration::from_millis(100);
/// Long enough that nothing else is given up on a busy machine.
const PLENTY: Duration = Duration::from_secs(2);
/// More than is bid in all turns.
const BUDGET_NANOS: i64 = 1_000_000_000_000_000;

/// An exchange, which is a platform of the same name, and what becomes of bids on it; without a name nobody asks.
struct Neighbour {
    name: &'static str,
    due: Option<pb::NoBidReason>,
}

const WELL: Neighbour = Neighbour { name: "well", due: None };
const NEIGHBOUR_KINDS: [Neighbour; 4] = [
    WELL,
    Neighbour { name: "", due: None },
    Neighbour { name: "slow", due: Some(pb::NoBidReason::Deadline) },
    Neighbour { name: "open", due: Some(pb::NoBidReason::Platform) },
];

/// Asks for bids under ids of their own.
#[derive(Clone)]
struct Asker {
    flow: pb::sync_flow_service_client::SyncFlowServiceClient<kiki::runtime::Channel>,
    number: Arc<AtomicU64>,
}

impl Asker {
    /// Why there is no bid; none where there is one.
    async fn ask(&mut self, exchange: &str, tmax: Duration) -> Option<pb::NoBidReason> {
        let opportunity = pb::Opportunity {
            request_id: format!("r{}", self.number.fetch_add(1, Ordering::Relaxed)),
            imp_id: "1".into(),
            exchange: exchange.into(),
            customer: "customer-7".into(),
            format: leaf::CreativeFormat::Banner.into(),
            width: 300,
            height: 250,
            tmax_ms: tmax.as_millis() as u32,
            ..Default::default()
        };
        let request = pb::BidRequest { opportunity: Some(opportunity), await_durable: false };
        match self.flow.bid(request).await.unwrap().into_inner().result {
            Some(Answer::Bid(_)) => None,
            Some(Answer::NoBid(no_bid)) => Some(no_bid.reason()),
            None => panic!("neither a bid nor a reason"),
        }
    }
}

#[tokio::main]
async fn main() {
    let world = World::told(BUDGET_NANOS, Manner::Answers(prediction()), |config| {
        let all = ["measured", "well", "slow", "open"];
        config.venues.platforms = all.map(|name| format!("{name}={name}")).into();
        config.venues.trip_cpm_jump.clear();
    })
    .await;
    let everywhere = leaf::Campaign { exchanges: vec![], ..campaign() };
    world.open(vec![client_campaign(everywhere)]).await;
    world.shield.mute.send_replace(("slow", false));
    force(&world, "platform/slow", pb::BreakerOverride::ForceClosed).await;
    force(&world, "platform/open", pb::BreakerOverride::ForceOpen).await;
    let asker = Asker { flow: world.flow.clone(), number: Arc::default() };
    let mut took: [Vec<[f64; 2]>; NEIGHBOUR_KINDS.len()] = Default::default();
    for turn in 0..=TURNS {
        // Who hears nothing for ten seconds bids on nothing.
        world.shield.policy.send_modify(|_| {});
        world.shield.campaigns.send_modify(|_| {});
        for (neighbour, took) in NEIGHBOUR_KINDS.iter().zip(&mut took) {
            let percentiles = beside(&asker, neighbour).await;
            took.extend((turn > 0).then_some(percentiles)); // the first one does not count
        }
    }
    for (neighbour, mine) in NEIGHBOUR_KINDS.iter().zip(&took) {
        let of = |nth: usize| median(mine.iter().map(|turn| turn[nth]).collect());
        let ratio = |nth: usize| median(mine.iter().zip(&took[0]).map(|(mine, well)| mine[nth] / well[nth]).collect());
        let name = if neighbour.name.is_empty() { "nobody" } else { neighbour.name };
        let figures = format!("p50 {:7.1} us  {:4.2}   p99 {:7.1} us  {:4.2}", of(0), ratio(0), of(1), ratio(1));
        drop(writeln!(std::io::stdout(), "beside {name:<7} {figures}"));
    }
    world.stop().await;
}

/// The median and the 99th percentile of how long bids took beside it, microseconds.
async fn beside(asker: &Asker, neighbour: &Neighbour) -> [f64; 2] {
    let mut callers = JoinSet::new();
    if !neighbour.name.is_empty() {
        for _ in 0..NEIGHBOURS {
            callers.spawn(ask_on(asker.clone(), neighbour.name, neighbour.due));
        }
    }
    let (mut asker, end, mut took) = (asker.clone(), Instant::now() + TURN, Vec::new());
    while Instant::now() < end {
        let asked = Instant::now();
        assert_eq!(asker.ask("measured", PLENTY).await, None, "a bid beside {}", neighbour.name);
        took.push(asked.elapsed().as_nanos() as f64 / 1e3);
    }
    assert!(callers.try_join_next().is_none(), "a caller of {} ended", neighbour.name);
    took.sort_by(f64::total_cmp);
    [took[took.len() / 2], took[took.len() * 99 / 100]]
}

/// Until it is stopped; everything has to come out as is due.
async fn ask_on(mut asker: Asker, exchange: &'static str, due: Option<pb::NoBidReason>) {
    let mut ticks = interval(EVERY);
    let tmax = if due == Some(pb::NoBidReason::Deadline) { EVERY } else { PLENTY };
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        assert_eq!(asker.ask(exchange, tmax).await, due, "on {exchange}");
    }
}

async fn force(world: &World, name: &str, what: pb::BreakerOverride) {
    let request = pb::OverrideBreakerRequest {
        name: name.into(),
        r#override: what.into(),
        operator: "bench".into(),
        reason: "bench".into(),
        until: Some(START.plus(Duration::from_secs(3_600)).into()),
    };
    world.flow.clone().override_breaker(request).await.unwrap();
}

/// The middle of an odd number of figures.
fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
