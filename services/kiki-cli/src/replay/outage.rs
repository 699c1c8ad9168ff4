//! `kiki replay --scenario outage`: SyncValue slows down under a running platform, and what that does to bids, as a timeline:
//! healthy, slow, open on the fallback price, recovery.
//!
//! The four services are real, and so is the slowness: a relay between SyncFlow and SyncValue holds what SyncValue answers
//! for twice the time that the exchange waits. A bid comes each virtual second, from three platforms in turn; the circuit
//! breaker's pauses are of that time. What is checked at the end does not depend on how quick the machine is.

mod relay;
mod timeline;

use std::path::Path;
use std::time::Duration;

use kiki::clock::{Clock, VirtualClock};
use kiki::leaf::CreativeFormat;
use kiki::pb::syncflow::v1 as flow;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::runtime::Channel;
use syncflow::config::Venues;

use crate::bench::{customers, scene};
use crate::error::{Failure, rpc};
use crate::out;
use crate::platform::{Endpoints, Platform, PlatformConfig, Ports};
use relay::Relay;
use timeline::{Seen, Timeline};

/// Exchanges and their platforms: the multipliers of their fallback prices are 1, 0.75 and 1.5.
const PLATFORMS: [&str; 3] = ["google_ads", "x", "tiktok"];
/// Who is bid on; each has bought before.
const CUSTOMERS: u32 = 30;
/// How long the exchange waits, milliseconds; SyncValue has half of it.
const TMAX_MS: u32 = 1_200;
/// How long SyncValue's answers are held while it is slow.
const SLOW: Duration = Duration::from_millis(2 * TMAX_MS as u64);
/// A bid each second.
const EVERY: Duration = Duration::from_secs(1);
/// How long the first bid may take, and between two looks.
const READY: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Bids while all is well, and again at the end.
const HEALTHY: u64 = 12;
/// Bids while the breaker is open. Pauses double from a second; within these some probes find SyncValue still slow.
const OPEN: u64 = 12;
/// Bids in which a breaker has to open or close: its window is the last 100 calls, and its longest pause 30 s.
const PATIENCE: u64 = 100;

/// Plays the outage in `dir` and shows it.
///
/// # Errors
/// A service that failed, or what should have been otherwise.
pub(crate) async fn run(dir: &Path) -> Result<(), Failure> {
    let relay = Relay::start().await?;
    let clock = VirtualClock::at(Clock::System.now());
    let config = PlatformConfig {
        clock: Clock::Virtual(clock.clone()),
        ports: Ports::Auto,
        venues: Venues {
            platforms: PLATFORMS.iter().map(|platform| format!("exchange-{platform}={platform}")).collect(),
            ..Venues::default()
        },
        value_at: Some(relay.address.clone()),
        ..PlatformConfig::new(dir)
    };
    let platform = Platform::start(config).await?;
    relay.to(&platform.endpoints.value);
    let played = play(&platform.endpoints, clock, &relay).await;
    let stopped = platform.stop().await;
    let timeline = played?;
    stopped?;
    out::say(timeline.text());
    match timeline.wrong().as_slice() {
        [] => Ok(()),
        wrong => Err(Failure::new(format!("something is off:\n  {}", wrong.join("\n  ")))),
    }
}

async fn play(at: &Endpoints, clock: VirtualClock, relay: &Relay) -> Result<Timeline, Failure> {
    customers::observe(SyncValueServiceClient::new(super::open(&at.value)?), CUSTOMERS).await?;
    scene::put(SyncShieldServiceClient::new(super::open(&at.shield)?)).await?;
    let flow = SyncFlowServiceClient::new(super::open(&at.flow)?);
    let mut scene = Scene { flow, timeline: Timeline::new(clock.now()), clock, number: 0 };
    scene.ready().await?;
    scene.bids("healthy", |_, count| count >= HEALTHY).await?;
    relay.hold(SLOW);
    scene.bids("slow", |seen, _| seen.breaker == flow::BreakerState::Open).await?;
    scene.bids("open", |_, count| count >= OPEN).await?;
    relay.hold(Duration::ZERO);
    scene.bids("recovery", |seen, _| seen.breaker == flow::BreakerState::Closed).await?;
    scene.bids("healthy again", |_, count| count >= HEALTHY).await?;
    scene.timeline.seconds(&at.flow_http).await?;
    Ok(scene.timeline)
}

struct Scene {
    flow: SyncFlowServiceClient<Channel>,
    clock: VirtualClock,
    timeline: Timeline,
    number: u64,
}

impl Scene {
    /// Bids until one is the last of its phase.
    async fn bids(&mut self, phase: &'static str, last: impl Fn(&Seen, u64) -> bool) -> Result<(), Failure> {
        for count in 1..=PATIENCE {
            let seen = self.bid(phase).await?;
            let done = last(&seen, count);
            self.timeline.add(seen);
            if done {
                break;
            }
        }
        Ok(())
    }

    /// Waits for the first bid: what was put comes to SyncFlow by streams that nobody else sees.
    async fn ready(&mut self) -> Result<(), Failure> {
        let looking = async {
            for number in 0.. {
                if self.ask(&format!("ready-{number}"), PLATFORMS[0]).await?.is_ok() {
                    break;
                }
                tokio::time::sleep(LOOK_EVERY).await; // between two looks
            }
            Ok(())
        };
        tokio::time::timeout(READY, looking).await.map_err(|_| Failure::new(format!("no bid within {} s", READY.as_secs())))?
    }

    async fn bid(&mut self, phase: &'static str) -> Result<Seen, Failure> {
        let (number, at) = (self.number, self.clock.now());
        let platform = PLATFORMS[(number % PLATFORMS.len() as u64) as usize];
        let none =
            |no: flow::NoBid| Failure::new(format!("bid {number} of the phase {phase:?}: {}: {}", no.reason().as_str_name(), no.detail));
        let bid = self.ask(&format!("outage-{number}"), platform).await?.map_err(none)?;
        self.number += 1;
        self.clock.advance_to(at.plus(EVERY));
        let breaker = self.breaker().await?;
        let (prediction, predicted_micros, price_nanos) = (bid.prediction_status(), bid.predicted_ltv_micros, bid.price_nanos);
        Ok(Seen { at, phase, platform, breaker, prediction, predicted_micros, price_nanos })
    }

    /// One impression on offer, and what SyncFlow says to it.
    async fn ask(&mut self, request_id: &str, platform: &str) -> Result<Result<flow::Bid, flow::NoBid>, Failure> {
        let opportunity = flow::Opportunity {
            request_id: request_id.to_owned(),
            imp_id: "1".to_owned(),
            exchange: format!("exchange-{platform}"),
            customer: customers::customer(self.number % u64::from(CUSTOMERS)),
            country: "USA".to_owned(),
            domain: "news.example".to_owned(),
            format: CreativeFormat::Banner.into(),
            width: 300,
            height: 250,
            tmax_ms: TMAX_MS,
            ..Default::default()
        };
        let request = flow::BidRequest { opportunity: Some(opportunity), await_durable: false };
        let answer = self.flow.bid(request).await.map_err(|status| rpc("a bid", &status))?.into_inner();
        match answer.result {
            Some(flow::bid_response::Result::Bid(bid)) => Ok(Ok(bid)),
            Some(flow::bid_response::Result::NoBid(no)) => Ok(Err(no)),
            None => Err(Failure::new("a bid's answer has no result")),
        }
    }

    /// Where the breaker around SyncValue stands.
    async fn breaker(&mut self) -> Result<flow::BreakerState, Failure> {
        let failed = |status: tonic::Status| rpc("watching the breakers", &status);
        let mut watched = self.flow.watch_breakers(flow::WatchBreakersRequest {}).await.map_err(failed)?.into_inner();
        let first = watched.message().await.map_err(failed)?.unwrap_or_default();
        let syncvalue = first.breakers.iter().find(|breaker| breaker.name == "syncvalue");
        syncvalue.map(flow::BreakerStatus::state).ok_or_else(|| Failure::new("there is no breaker around SyncValue"))
    }
}
