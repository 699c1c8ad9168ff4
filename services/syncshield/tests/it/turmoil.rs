//! The real gRPC service and real clients on a simulated network: partitions, a machine that loses its power, a disk whose
//! syncs take their time and fail.
//!
//! Holders send each request again until they hear an answer, and some of them once more when they have gone on: requests
//! come twice, late and out of order. In the end every request has had one effect, and the log passes its audit. Network, time and disk are simulated, and the faults are drawn from seeds; the service is the one
//! that ships. Two runs of a seed are alike but not the same: the HTTP stack draws lots of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::task::Context;
use std::time::Duration;

use crate::disk::{End, Fault, SimDisk};
use crate::net;
use crate::rng::Rng;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf;
use kiki::pb::syncshield::v1::record_item::Body;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::tlog::note::SigningKey;
use prost::Message as _;
use syncshield::Error;
use syncshield::audit::{self, Report};
use syncshield::store::{Log, Paths};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};

const LOG: &str = "sim.local/log";
const START: i64 = 1_770_000_000_000_000;
const HOLDERS: u64 = 3;
/// Leases of each holder, each marked, settled and recorded.
const ROUNDS: u64 = 12;
const SEEDS: u64 = 40;
/// I/O points among which the disk's faults lie.
const FAULTY: u64 = 400;

type Client = SyncShieldServiceClient<Channel>;

fn key() -> SigningKey {
    SigningKey::new(LOG, &[7; 32]).unwrap()
}

/// The machine that SyncShield runs on, from its start to its loss of power.
async fn shield(disk: SimDisk, mut rng: Rng) -> turmoil::Result {
    let clock = VirtualClock::at(UnixMicros(START));
    let ticking = clock.clone();
    tokio::spawn(async move {
        loop {
            ticking.advance_to(UnixMicros(START + turmoil::sim_elapsed().unwrap_or_default().as_micros() as i64));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let opened = Log::open_by_hand(Arc::new(disk), &Paths::new(Path::new("/sim")), key(), Clock::Virtual(clock));
    let (log, mut hand) = match opened {
        // The disk fails: nothing starts until the machine does.
        Err(Error::Io(_)) => std::future::pending().await,
        opened => opened?,
    };
    tokio::spawn(async move {
        loop {
            // Most commits are quick. Some stay behind, as if the disk took its time, and all behind them wait.
            let slow = rng.one_in(20);
            tokio::time::sleep(Duration::from_millis(if slow { 20 + rng.below(400) } else { 2 })).await;
            if rng.one_in(2) { hand.turn_ahead() } else { hand.turn() }
        }
    });
    let config = syncshield::Config::new("/sim", LOG);
    let routes = syncshield::routes(&log, &config, CancellationToken::new());
    let listener = turmoil::net::TcpListener::bind("0.0.0.0:50053").await?;
    Server::builder().add_routes(routes).serve_with_incoming(net::incoming(listener)).await?;
    Ok(())
}

fn client() -> Client {
    Client::new(net::channel(Endpoint::from_static("http://shield:50053"), "shield:50053"))
}

/// Asks until there is an answer, over a new connection each time that there was none.
async fn until_answered<T, F>(again: &AtomicU64, mut ask: impl FnMut(Client) -> F) -> T
where
    F: Future<Output = Result<tonic::Response<T>, tonic::Status>> + 'static,
{
    loop {
        match tokio::time::timeout(Duration::from_millis(500), ask(client())).await {
            Ok(Ok(answer)) => {
                // Every fourth request comes once more, behind some that were sent after it.
                let sent = again.load(SeqCst) + turmoil::sim_elapsed().unwrap_or_default().as_micros() as u64;
                if sent.is_multiple_of(4) {
                    let late = ask(client());
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(Duration::from_millis(sent % 1_000)).await;
                        drop(late.await);
                    });
                }
                return answer.into_inner();
            }
            Ok(Err(status)) => assert!(!refuses(&status), "{status}"),
            Err(_) => {}
        }
        again.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An answer of the service, rather than a connection that broke.
fn refuses(status: &tonic::Status) -> bool {
    matches!(status.code(), tonic::Code::InvalidArgument | tonic::Code::FailedPrecondition | tonic::Code::Aborted | tonic::Code::NotFound)
}

async fn holder(number: u64, again: Arc<AtomicU64>) -> turmoil::Result {
    let (acme, c) = (|| "acme".to_owned(), || "c".to_owned());
    for round in 1..=ROUNDS {
        let lease = LeaseRequest {
            key: format!("k{number}-{round}"),
            client: acme(),
            campaign: c(),
            holder: format!("h{number}"),
            amount_micros: 100,
            least_micros: 1,
            ..Default::default()
        };
        let lease_id = until_answered(&again, |mut c| {
            let lease = lease.clone();
            async move { c.lease(lease).await }
        })
        .await;
        let lease_id = lease_id.grant.unwrap().lease_id;
        let mark = MarkRequest { client: acme(), campaign: c(), lease_id, epoch: 1, sequence: 2, amount_nanos: 2_000 };
        until_answered(&again, |mut c| {
            let mark = mark.clone();
            async move { c.mark(mark).await }
        })
        .await;
        let time = Some(UnixMicros(START).into());
        let settlement = leaf::Settlement { max_nanos: 1_000, price_nanos: 700, bid_at: time, noticed_at: time, ..Default::default() };
        let items = vec![SettleItem { client: acme(), campaign: c(), lease_id, settlement: Some(settlement) }];
        until_answered(&again, |mut c| {
            let items = items.clone();
            async move { c.settle(SettleRequest { items }).await }
        })
        .await;
        let batch = leaf::DecisionBatch { campaign: c(), ..Default::default() };
        let items = vec![RecordItem { client: acme(), body: Some(Body::Decisions(batch.encode_to_vec().into())) }];
        let record = RecordRequest { source: format!("flow-{number}"), source_seq: round, items };
        until_answered(&again, |mut c| {
            let record = record.clone();
            async move { c.record(record).await }
        })
        .await;
    }
    Ok(())
}

async fn operator(again: Arc<AtomicU64>) -> turmoil::Result {
    let campaign = leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000_000,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    };
    let put = PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) };
    until_answered(&again, |mut c| {
        let put = put.clone();
        async move { c.put_campaign(put).await }
    })
    .await;
    Ok(())
}

/// What a seed came to.
struct Outcome {
    report: Report,
    again: u64,
    cuts: u64,
    crashes: u64,
}

fn run(seed: u64) -> Outcome {
    let (disk, mut rng, again) = (SimDisk::new(seed, faults(seed)), Rng::new(seed), Arc::new(AtomicU64::new(0)));
    let mut sim = turmoil::Builder::new().rng_seed(seed).simulation_duration(Duration::from_secs(600)).build();
    let machine = disk.clone();
    sim.host("shield", move || shield(machine.clone(), Rng::new(!seed)));
    sim.client("operator", operator(again.clone()));
    while !sim.step().unwrap() {
        if rng.one_in(400) {
            restart(&mut sim, &disk, &mut rng);
        }
    }
    for number in 0..HOLDERS {
        sim.client(format!("holder-{number}"), holder(number, again.clone()));
    }
    let (mut cuts, mut crashes) = (0, 0);
    while !sim.step().unwrap() {
        let holder = format!("holder-{}", rng.below(HOLDERS));
        match rng.below(400) {
            0 | 1 => {
                sim.partition("shield", holder.as_str());
                cuts += 1;
            }
            2..12 => sim.repair("shield", holder.as_str()),
            12 => {
                restart(&mut sim, &disk, &mut rng);
                crashes += 1;
            }
            _ => {}
        }
    }
    assert!(disk.points() > FAULTY, "seed {seed} did not come to all of its faults");
    sim.crash("shield");
    disk.restart(End::PowerLoss);
    Outcome { report: sign_and_audit(disk), again: again.load(SeqCst), cuts, crashes }
}

fn restart(sim: &mut turmoil::Sim<'_>, disk: &SimDisk, rng: &mut Rng) {
    sim.crash("shield");
    disk.restart(if rng.one_in(2) { End::PowerLoss } else { End::Kill });
    sim.bounce("shield");
}

/// A quarter of the seeds has a disk without faults. In the others a sync, write or rename fails, or the machine ends in
/// the middle of it, now and then at the start of its life.
fn faults(seed: u64) -> BTreeMap<u64, Fault> {
    let mut rng = Rng::new(seed ^ 0xfa17);
    let many = if seed.is_multiple_of(4) { 0 } else { 6 };
    (0..many).map(|_| (rng.below(FAULTY), if rng.one_in(3) { Fault::Crash } else { Fault::Fail })).collect()
}

fn sign_and_audit(disk: SimDisk) -> Report {
    let paths = Paths::new(Path::new("/sim"));
    let clock = Clock::Virtual(VirtualClock::at(UnixMicros(START)));
    let open = || Log::open_by_hand(Arc::new(disk.clone()), &paths, key(), clock.clone());
    // What is left of the faults may be met here.
    let (log, mut hand) =
        std::iter::repeat_with(open).find_map(|opened| opened.inspect_err(|_| disk.restart(End::PowerLoss)).ok()).unwrap();
    let mut closed = Box::pin(async move { log.close().await });
    assert!(closed.as_mut().poll(&mut Context::from_waker(std::task::Waker::noop())).is_pending());
    hand.turn();
    audit::verify_on(&disk, Path::new("/sim"), key().verifying_key()).unwrap()
}

#[test]
fn through_partitions_and_losses_of_power_each_request_has_one_effect() {
    let (mut again, mut cuts, mut crashes) = (0, 0, 0);
    for seed in 0..SEEDS {
        let outcome = run(seed);
        let kinds = &outcome.report.kinds;
        for kind in ["leases granted", "spend marks", "settlement batches", "decision batches"] {
            assert_eq!(kinds[kind], HOLDERS * ROUNDS, "{kind} of seed {seed}");
        }
        let charged: i128 = outcome.report.settled.values().sum();
        assert_eq!(charged, i128::from(HOLDERS * ROUNDS) * 700, "seed {seed}");
        (again, cuts, crashes) = (again + outcome.again, cuts + outcome.cuts, crashes + outcome.crashes);
    }
    println!("{SEEDS} seeds: {cuts} partitions, {crashes} losses of power or process, {again} requests sent again");
    assert!(again > SEEDS && cuts > 0 && crashes > 0);
}
