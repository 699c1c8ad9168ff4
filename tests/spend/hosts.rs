//! The machines: SyncShield with its disk, bidders that keep nothing, and the operator.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::ids::Key;
use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::runtime::Metrics;
use kiki::tlog::note::SigningKey;
use syncflow::config::{Deadlines, Venues};
use syncshield::store::{Log, Paths};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

use crate::acme;
use crate::disk::SimDisk;
use crate::net;
use crate::rng::Rng;

pub(crate) const LOG: &str = "sim.local/log";
/// 2026-02-02T02:40:00Z.
pub(crate) const START: i64 = 1_770_000_000_000_000;
pub(crate) const BIDDERS: usize = 2;
pub(crate) const RECEIPT_KEY: [u8; 32] = [2; 32];
/// An impression's price before any was charged: 1 in 1,000 of the prior of 20.00 at 2x is 0.01. It falls a little from then on.
pub(crate) const PRICE: i64 = 10_000_000;
/// A lease's life. Short, so that many end in a run.
pub(crate) const TTL: Duration = Duration::from_secs(20);
/// By how much clocks may differ, as bidders are told. Half of it is what one is off by at most.
const SKEW_MS: u64 = 1_000;

pub(crate) fn key() -> SigningKey {
    SigningKey::new(LOG, &[7; 32]).unwrap()
}

/// A clock that goes with the simulation's time, and is off by so many microseconds.
fn clock(off: i64) -> VirtualClock {
    let at = move || UnixMicros(START + off + turmoil::sim_elapsed().unwrap_or_default().as_micros() as i64);
    let clock = VirtualClock::at(at());
    let ticking = clock.clone();
    tokio::spawn(async move {
        loop {
            ticking.advance_to(at());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    clock
}

/// The machine that SyncShield runs on, from its start to its end.
pub(crate) async fn shield(disk: SimDisk, mut rng: Rng) -> turmoil::Result {
    let clock = Clock::Virtual(clock(0));
    let (log, mut hand) = match Log::open_by_hand(Arc::new(disk), &Paths::new(Path::new("/sim")), key(), clock) {
        // The disk fails: nothing starts until the machine does.
        Err(syncshield::Error::Io(_)) => std::future::pending().await,
        opened => opened?,
    };
    tokio::spawn(async move {
        loop {
            let slow = rng.one_in(30);
            tokio::time::sleep(Duration::from_millis(if slow { 20 + rng.below(300) } else { 5 })).await;
            if rng.one_in(2) { hand.turn_ahead() } else { hand.turn() }
        }
    });
    let waiting = log.run(|ledger| {
        ledger.wait_for_holders(TTL);
        Ok(())
    });
    waiting.await?;
    let config = syncshield::Config { lease_ttl_secs: TTL.as_secs(), ..syncshield::Config::new("/sim", LOG) };
    let routes = syncshield::routes(&log, &config, CancellationToken::new());
    let listener = turmoil::net::TcpListener::bind("0.0.0.0:50053").await?;
    Server::builder().add_routes(routes).serve_with_incoming(net::incoming(listener)).await?;
    Ok(())
}

/// A channel that gives a silent connection up soon: what a partition drops is not sent again.
fn to_shield() -> Channel {
    let endpoint = Endpoint::from_static("http://shield:50053")
        .connect_timeout(Duration::from_secs(1))
        .http2_keep_alive_interval(Duration::from_secs(1))
        .keep_alive_timeout(Duration::from_secs(1));
    net::channel(endpoint, "shield:50053")
}

/// A SyncFlow, from its start to its end, with a clock that is off by so many microseconds. There is no SyncValue, and nobody
/// whom it could be asked about.
pub(crate) async fn bidder(number: usize, off: i64) -> turmoil::Result {
    let clock = Clock::Virtual(clock(off));
    let config = syncflow::Config {
        shield: String::new(),
        value: String::new(),
        pseudonym_key: Key::new([1; 32]),
        receipt_key: Key::new(RECEIPT_KEY),
        holder: Some(format!("flow-{number}")),
        public_url: "http://flow.example".into(),
        venues: Venues {
            platforms: vec!["x1=tradedesk".into(), "x2=tradedesk".into()],
            settle_on_win: vec!["x2".into()],
            ..Venues::default()
        },
        notice_window_secs: 3_600,
        frequency: None,
        frequency_budget_ms: 5,
        record: syncflow::config::Record::All,
        clock_skew_ms: SKEW_MS,
        deadlines: Deadlines { network_allowance_ms: 5, deadline_max_ms: 1_000 },
    };
    let (stop, registry) = (CancellationToken::new(), Metrics::new());
    let nowhere = Endpoint::from_static("http://value:50051");
    let value = nowhere.connect_with_connector_lazy(tower::service_fn(|_| async { Err::<Nowhere, _>(std::io::Error::other("nobody")) }));
    let (shield, record, value) = (to_shield().into(), to_shield().into(), value.into());
    let channels = syncflow::Channels { shield, record, value, asking: tokio::runtime::Handle::current() };
    let parts = syncflow::start(&config, channels, clock.clone(), &registry, &stop)?;
    let leases = parts.engine.leases.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            leases.tend(clock.now()).await;
        }
    });
    let listener = turmoil::net::TcpListener::bind("0.0.0.0:50052").await?;
    Server::builder().add_routes(parts.routes(stop)).serve_with_incoming(net::incoming(listener)).await?;
    Ok(())
}

type Nowhere = hyper_util::rt::TokioIo<tokio::io::DuplexStream>;

/// Asks SyncShield until there is an answer, over a new connection each time.
pub(crate) async fn until_answered<T, F>(ask: impl Fn(SyncShieldServiceClient<Channel>) -> F) -> Result<T, tonic::Status>
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
{
    loop {
        match tokio::time::timeout(Duration::from_millis(500), ask(SyncShieldServiceClient::new(to_shield()))).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) if matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition) => {
                return Err(status);
            }
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Puts the policy, the campaign and the client's terms.
pub(crate) async fn operator(limit_micros: i64) -> turmoil::Result {
    let bid_caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 10 * PRICE }];
    let policy = PutPolicyRequest { policy: Some(leaf::Policy { bid_caps, ..Default::default() }), ..Default::default() };
    until_answered(|mut shield| {
        let policy = policy.clone();
        async move { shield.put_policy(policy).await }
    })
    .await?;
    let campaign = leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: limit_micros,
        target_roas_ppm: 2_000_000,
        prior_p_conversion_ppb: 1_000_000,
        prior_ltv_micros: 20_000_000,
        creatives: vec![acme::banner("c1", "<b>shop</b>")],
        ..Default::default()
    };
    let put = PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) };
    until_answered(|mut shield| {
        let put = put.clone();
        async move { shield.put_campaign(put).await }
    })
    .await?;
    let put = PutTermsRequest { client: "acme".into(), terms: Some(acme::terms()) };
    until_answered(|mut shield| {
        let put = put.clone();
        async move { shield.put_terms(put).await }
    })
    .await?;
    Ok(())
}
