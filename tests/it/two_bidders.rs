//! Two SyncFlows on one SyncShield: they share a budget, either takes the other's notices, and what one leaves behind when it
//! is killed is freed or held as the log's marks say.

use std::collections::BTreeSet;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::framed::Scanner;
use kiki::ids::Key;
use kiki::leaf::{self, leaf::Body};
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncflow::v1::*;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{ChargedSlot, LeaseReport, PutCampaignRequest, PutPolicyRequest, PutTermsRequest, ReconcileRequest};
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use syncflow::config::{Deadlines, Venues};
use syncflow::domain::receipt::{Purpose, ReceiptKeys};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::acme;

/// 2026-01-15T12:00:00Z
const START: UnixMicros = UnixMicros(1_768_478_400_000_000);
/// An impression's price: the campaign's cap. The value allows it many times over, whatever was charged by then.
const PRICE: i64 = 10_000_000;
const LEASE_TTL: Duration = Duration::from_secs(60);
const CLOCK_SKEW: Duration = Duration::from_secs(1);
const RECEIPT_KEY: [u8; 32] = [2; 32];

/// A SyncFlow on a runtime of its own, so that it can be killed.
struct Bidder {
    runtime: tokio::runtime::Runtime,
    http: std::net::SocketAddr,
    flow: SyncFlowServiceClient<Channel>,
    bids: u64,
}

struct World {
    data: tempfile::TempDir,
    address: String,
    clock: VirtualClock,
    shield: SyncShieldServiceClient<Channel>,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), syncshield::Error>>,
    asked: u64,
}

impl World {
    /// A SyncShield with one campaign that has room for so many bids.
    async fn new(room: i64) -> Self {
        let (data, clock, stop) = (tempfile::tempdir().unwrap(), VirtualClock::at(START), CancellationToken::new());
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let config = syncshield::Config::new(data.path(), "test.local/log");
        assert_eq!(config.lease_ttl_secs, LEASE_TTL.as_secs());
        let served = tokio::spawn(syncshield::serve(listeners, config, Clock::Virtual(clock.clone()), stop.clone()));
        let mut shield = SyncShieldServiceClient::new(channel(&address).unwrap());
        let bid_caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 10 * PRICE }];
        let policy = PutPolicyRequest { policy: Some(leaf::Policy { bid_caps, ..Default::default() }), ..Default::default() };
        shield.put_policy(policy).await.unwrap();
        shield.put_terms(PutTermsRequest { client: "acme".into(), terms: Some(acme::terms()) }).await.unwrap();
        let mut world = Self { data, address, clock, shield, stop, served, asked: 0 };
        world.put_campaign(room).await;
        world
    }

    /// Puts the campaign with a limit of so many bids.
    async fn put_campaign(&mut self, room: i64) {
        let campaign = leaf::Campaign {
            campaign: "spring".into(),
            currency: "USD".into(),
            zone: "UTC".into(),
            limit_total_micros: room * PRICE / 1_000,
            target_roas_ppm: 2_000_000,
            prior_p_conversion_ppb: 1_000_000,
            prior_ltv_micros: 900_000_000,
            bid_cap_nanos: PRICE,
            creatives: vec![acme::banner("c1", "<b>shop</b>")],
            ..Default::default()
        };
        self.shield.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
    }

    /// A bidder that knows the campaign.
    async fn bidder(&mut self, holder: &str) -> Bidder {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let config = syncflow::Config {
            shield: self.address.clone(),
            value: "http://127.0.0.1:1".into(), // nobody; and no bid names a customer
            pseudonym_key: Key::new([1; 32]),
            receipt_key: Key::new(RECEIPT_KEY),
            holder: Some(holder.to_owned()),
            public_url: "http://flow.example".into(),
            venues: Venues { platforms: vec!["x1=tradedesk".into()], ..Venues::default() },
            notice_window_secs: 3_600,
            frequency: None,
            frequency_budget_ms: 5,
            record: syncflow::config::Record::All,
            clock_skew_ms: CLOCK_SKEW.as_millis() as u64,
            deadlines: Deadlines { network_allowance_ms: 5, deadline_max_ms: 5_000 },
        };
        let clock = Clock::Virtual(self.clock.clone());
        let bound = runtime.spawn(Listeners::bind("127.0.0.1:0", "127.0.0.1:0")).await.unwrap().unwrap();
        let address = format!("http://{}", bound.grpc.local_addr().unwrap());
        let http = bound.http.local_addr().unwrap();
        runtime.spawn(syncflow::serve(bound, config, clock, CancellationToken::new()));
        let mut bidder = Bidder { runtime, http, flow: SyncFlowServiceClient::new(channel(&address).unwrap()), bids: 0 };
        for _ in 0..500 {
            // Of this size there is no creative. Before there are replicas, that is not known.
            if self.offer(&mut bidder, 1).await.is_err_and(|why| why == NoBidReason::NoMatch) {
                return bidder;
            }
            tokio::time::sleep(Duration::from_millis(10)).await; // polls another runtime's progress
        }
        panic!("{holder} has no replica");
    }

    /// Offers an impression; the bid's receipt, or why there is none.
    async fn offer(&mut self, bidder: &mut Bidder, width: u32) -> Result<String, NoBidReason> {
        self.asked += 1;
        let opportunity = Opportunity {
            request_id: format!("r{}", self.asked),
            imp_id: "1".into(),
            exchange: "x1".into(),
            format: leaf::CreativeFormat::Banner.into(),
            width,
            height: 250,
            ..Default::default()
        };
        let request = BidRequest { opportunity: Some(opportunity), await_durable: false };
        match bidder.flow.bid(request).await.unwrap().into_inner().result.unwrap() {
            bid_response::Result::Bid(bid) => {
                assert_eq!(bid.price_nanos, PRICE);
                bidder.bids += 1;
                Ok(bid.receipt)
            }
            bid_response::Result::NoBid(no) => Err(no.reason()),
        }
    }

    async fn bid(&mut self, bidder: &mut Bidder) -> String {
        self.offer(bidder, 300).await.unwrap()
    }

    fn wait(&self, by: Duration) {
        self.clock.advance_to(self.clock.now().plus(by));
    }

    async fn budget(&mut self) -> Money {
        let ask = kiki::pb::syncshield::v1::GetBudgetRequest { client: "acme".into(), campaign: "spring".into() };
        let budget = self.shield.get_budget(ask).await.unwrap().into_inner().budget.unwrap();
        // To the nearest one: a lease has a micro more than its bids take, against rounding.
        let bids = |nanos: Option<leaf::Int128>| (nanos.map_or(0, |nanos| i128::from(&nanos)) + i128::from(PRICE / 2)) / i128::from(PRICE);
        let (settled, held) = (bids(budget.settled_nanos), bids(budget.held_nanos));
        Money { settled, held, leased: bids(budget.leased_nanos), available: bids(budget.available_nanos) }
    }

    /// Ends SyncShield, and audits what it left; what was settled, in bids, and the sizes of all leases by holder, in bids.
    async fn end(self) -> (i128, Vec<(String, i64)>) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
        let key = std::fs::read_to_string(self.data.path().join("log.pub")).unwrap().trim().parse().unwrap();
        let report = syncshield::audit::verify(self.data.path(), &key).expect("an honest log");
        let mut segments: Vec<_> = std::fs::read_dir(self.data.path().join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
        segments.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
        segments.sort();
        let mut leases = Vec::new();
        for bytes in segments.iter().map(|path| std::fs::read(path).unwrap()) {
            for (_, frame) in Scanner::new(&bytes).map(Result::unwrap) {
                if let Body::LeaseGranted(granted) = leaf::decode(frame).unwrap().1 {
                    leases.push((granted.holder, granted.amount_micros * 1_000 / PRICE));
                }
            }
        }
        (report.settled.values().sum::<i128>() / i128::from(PRICE), leases)
    }
}

/// What the log says of the budget, in bids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Money {
    settled: i128,
    held: i128,
    leased: i128,
    available: i128,
}

impl Bidder {
    /// What it shows of what may be overspent, micros.
    async fn overspend_bound(&mut self) -> i128 {
        let ask = GetBudgetRequest { client: "acme".into(), campaign: "spring".into() };
        self.flow.get_budget(ask).await.unwrap(); // it learns what SyncShield says
        let mut socket = tokio::net::TcpStream::connect(self.http).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nhost: flow\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        let line = text.lines().find(|line| line.starts_with("syncflow_overspend_bound_micros{")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

async fn notify(bidder: &mut Bidder, kind: NoticeKind, receipt: &str) -> NoticeStatus {
    let notice = Notice { kind: kind.into(), receipt: receipt.into(), price_nanos: PRICE, ..Default::default() };
    bidder.flow.notify(NotifyRequest { notices: vec![notice] }).await.unwrap().into_inner().results[0].status()
}

fn slot_of(receipt: &str) -> (u64, u32) {
    let receipt = ReceiptKeys::new(&Key::new(RECEIPT_KEY), &[]).open(receipt, Purpose::Notice).unwrap();
    (receipt.lease_id, receipt.sequence)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_bidders_share_a_budget_evenly_to_its_last_bid() {
    const ROOM: i64 = 1_000;
    let mut world = World::new(ROOM).await;
    let mut bidders = [world.bidder("flow-a").await, world.bidder("flow-b").await];
    let (mut slots, mut refused) = (BTreeSet::new(), [false; 2]);
    for n in 0..4 * ROOM as usize {
        if refused == [true; 2] {
            break;
        }
        let [first, second] = &mut bidders;
        let (here, there) = if n.is_multiple_of(2) { (first, second) } else { (second, first) };
        match world.offer(here, 300).await {
            Ok(receipt) => {
                assert!(slots.insert(slot_of(&receipt)), "a slot was given twice");
                // The notice comes to the other one.
                assert_eq!(notify(there, NoticeKind::Bill, &receipt).await, NoticeStatus::Applied);
                assert_eq!(notify(here, NoticeKind::Bill, &receipt).await, NoticeStatus::Duplicate);
            }
            Err(why) => {
                assert_eq!(why, NoBidReason::Budget);
                refused[n % 2] = true;
            }
        }
        world.wait(Duration::from_millis(50));
    }
    let [first, second] = &bidders;
    let all = first.bids + second.bids;
    println!("{} and {} bids of {ROOM}", first.bids, second.bids);
    assert!(all as i64 >= ROOM * 98 / 100 && all as i64 <= ROOM, "{all} bids");
    for bidder in &bidders {
        let share = bidder.bids * 100 / all;
        assert!((40..=60).contains(&share), "{} and {} bids", first.bids, second.bids);
    }
    for bidder in bidders {
        bidder.runtime.shutdown_background();
    }
    let (settled, leases) = world.end().await;
    assert_eq!(settled, i128::from(all));
    let sizes: Vec<i64> = leases.iter().map(|(_, bids)| *bids).collect();
    println!("leases of {sizes:?} bids");
    let largest = sizes.iter().max().unwrap();
    assert!(*largest <= ROOM / 16, "a holder had a sixteenth of the budget at most");
    assert!(sizes.last().unwrap() * 4 <= *largest, "leases get smaller as the budget runs out");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_bidder_leaves_is_free_above_its_mark_and_held_below_it() {
    const ROOM: i64 = 1_600;
    let mut world = World::new(ROOM).await;
    let (mut killed, mut other) = (world.bidder("flow-a").await, world.bidder("flow-b").await);
    let mut receipts = Vec::new();
    for _ in 0..10 {
        receipts.push(world.bid(&mut killed).await);
    }
    let before = world.budget().await;
    assert_eq!((before.held, before.available), (0, i128::from(ROOM) - before.leased));
    killed.runtime.shutdown_background();
    // Until its end its lease is out of the other's reach: it may be alive, and spend.
    world.wait(LEASE_TTL - Duration::from_millis(1));
    assert_eq!(world.budget().await, before);
    world.wait(CLOCK_SKEW);
    let after = world.budget().await;
    println!("of a lease of {} bids with 10 that were made, {} are held and the rest is free", before.leased, after.held);
    // The bound on what a crash leaves held: an eighth of the lease, or room for 32 bids where that is more.
    let bound = (before.leased / 8).max(32);
    assert!((10..=bound).contains(&after.held) && bound < before.leased, "{before:?} {after:?}");
    assert_eq!((after.leased, after.available), (0, i128::from(ROOM) - after.held));
    // Notices of its bids are taken by the other one, each once.
    for receipt in &receipts[..4] {
        assert_eq!(notify(&mut other, NoticeKind::Bill, receipt).await, NoticeStatus::Applied);
        assert_eq!(notify(&mut other, NoticeKind::Bill, receipt).await, NoticeStatus::Duplicate);
    }
    assert_eq!(notify(&mut other, NoticeKind::Loss, &receipts[4]).await, NoticeStatus::Applied);
    assert_eq!(world.budget().await, Money { settled: 4, held: after.held - 5, leased: 0, available: after.available + 1 });
    // Its name is no claim: who comes back under it has another lease, with slots of its own.
    let mut again = world.bidder("flow-a").await;
    assert_ne!(slot_of(&world.bid(&mut again).await).0, slot_of(&receipts[0]).0);
    // The rest is held until the exchange reports: three of them were charged, and their notices lost.
    let (lease_id, _) = slot_of(&receipts[0]);
    let charged = receipts[5..8].iter().map(|receipt| ChargedSlot { sequence: slot_of(receipt).1, price_nanos: PRICE });
    let report = ReconcileRequest {
        client: "acme".into(),
        campaign: "spring".into(),
        platform: "tradedesk".into(),
        until: Some(world.clock.now().into()),
        leases: vec![LeaseReport { lease_id, slots: charged.collect(), ..Default::default() }],
        evidence_sha256: vec![3; 32].into(),
        reason: "the day's report".into(),
    };
    for times in 0..2 {
        let done = world.shield.reconcile(report.clone()).await.unwrap().into_inner();
        assert_eq!(done.settled_slots, if times == 0 { 3 } else { 0 }, "a report that is sent again changes nothing");
    }
    let end = world.budget().await;
    assert_eq!((end.settled, end.held), (7, 0));
    assert_eq!(again.overspend_bound().await, 0);
    // A limit below what is out already: by so much more than it allows may be charged, and it is said.
    world.put_campaign(8).await;
    let bound = again.overspend_bound().await;
    let micros = |bids: i128| bids * i128::from(PRICE) / 1_000;
    assert!((micros(end.leased - 1)..=micros(end.leased - 1) + 1).contains(&bound), "{bound} micros, with {} bids leased", end.leased);
    // And a notice that comes after all finds its slot closed.
    assert_eq!(notify(&mut other, NoticeKind::Bill, &receipts[5]).await, NoticeStatus::Duplicate);
    assert_eq!(notify(&mut other, NoticeKind::Bill, &receipts[9]).await, NoticeStatus::Conflict);
    for bidder in [other, again] {
        bidder.runtime.shutdown_background();
    }
    assert_eq!(world.end().await.0, 7);
}
