//! How large leases are and what they cost in calls: by the rate at which bids use them up.

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf;
use kiki::money::Nanos;
use syncflow::clients::leases::{Leases, NoSlot};
use syncflow::clients::shield as client;
use syncflow::domain::targeting::Campaign;
use syncflow::metrics::Metrics;

use crate::fakes::{Shield, State};
use crate::world::{START, World, campaign};

/// One cent: a CPM of 10.
const PRICE: Nanos = Nanos::new(10_000_000);

/// Leases of one holder, on a budget of 640,000 bids.
struct Holder {
    shield: Shield,
    leases: Arc<Leases>,
    campaign: Arc<Campaign>,
    clock: VirtualClock,
    bids: u64,
}

impl Holder {
    async fn new() -> Self {
        let clock = VirtualClock::at(START);
        let limit = 640_000 * PRICE.get();
        let (shield, address) = Shield::start(Clock::Virtual(clock.clone()), Duration::from_secs(60), limit).await;
        Self::of(clock, limit, shield, client(&address).unwrap())
    }

    /// Whose calls take no time, for paused time.
    fn in_memory() -> Self {
        let (clock, limit) = (VirtualClock::at(START), 640_000 * PRICE.get());
        let (shield, channel) = Shield::start_in_memory(Clock::Virtual(clock.clone()), Duration::from_secs(60), limit);
        Self::of(clock, limit, shield, syncflow::clients::Shield::new(channel.into()))
    }

    fn of(clock: VirtualClock, limit: i64, shield: Shield, client: syncflow::clients::Shield) -> Self {
        let metrics = Metrics::new(&kiki::runtime::Metrics::new());
        let leases = Leases::new(
            client,
            "flow".into(),
            "boot".into(),
            Duration::from_secs(1),
            syncflow::pacing::Pacing::new(metrics.clone()),
            metrics,
        );
        let document = leaf::Campaign { limit_total_micros: limit / 1_000, ..campaign() };
        let campaign = Arc::new(Campaign::compile("acme", &document, 90).unwrap());
        Self { shield, leases, campaign, clock, bids: 0 }
    }

    async fn bid(&mut self, price: Nanos) -> Result<(), NoSlot> {
        self.bids += 1;
        self.leases.take(&self.campaign, "meta", price, self.clock.now()).await.map(drop)
    }

    /// Bids evenly over some seconds.
    async fn bid_for(&mut self, seconds: u64, a_second: u64) {
        for _ in 0..seconds * a_second {
            self.bid(PRICE).await.unwrap();
            self.wait(Duration::from_secs(1) / a_second as u32);
        }
    }

    fn wait(&self, by: Duration) {
        self.clock.advance_to(self.clock.now().plus(by));
    }

    fn now(&self) -> UnixMicros {
        self.clock.now()
    }

    /// How often SyncShield, which nobody finds, is asked for this platform's lease by so many bids.
    async fn asks(&self, platform: &str, bids: u32) -> u32 {
        let before = self.shield.state.lock().asked_lost;
        for _ in 0..bids {
            let refused = self.leases.take(&self.campaign, platform, PRICE, self.now()).await;
            assert!(matches!(refused, Err(NoSlot::Unavailable(_))), "{refused:?}");
        }
        self.shield.state.lock().asked_lost - before
    }

    /// What live leases hold and is not used yet, in bids.
    fn float(&self) -> i64 {
        let state = self.shield.state.lock();
        let live = state.leases.values().filter(|lease| !lease.returned);
        live.map(|lease| lease.amount_nanos).sum::<i64>() / PRICE.get()
    }

    fn calls(&self) -> u64 {
        calls(&self.shield.state.lock())
    }
}

fn calls(state: &State) -> u64 {
    state.grants + state.marks + state.renewals + state.returns.len() as u64
}

#[tokio::test]
async fn a_hot_campaign_costs_few_calls_from_its_first_seconds_on() {
    let mut holder = Holder::new().await;
    holder.bid_for(60, 200).await;
    let first = holder.calls();
    holder.bid_for(240, 200).await;
    let (rest, bids) = (holder.calls() - first, holder.bids);
    assert!(first * 1_000 <= 12_000 * 4, "{first} calls for the first 12,000 bids");
    assert!(rest * 2_000 <= bids - 12_000, "{rest} calls for {} bids: more than one for 2,000", bids - 12_000);
}

#[tokio::test]
async fn a_campaign_that_cools_down_gives_up_its_large_lease_over_a_few_renewals() {
    let mut holder = Holder::new().await;
    holder.bid_for(60, 200).await;
    assert!(holder.float() > 12_000, "{} bids", holder.float());
    for _ in 0..60 {
        holder.bid(PRICE).await.unwrap();
        holder.wait(Duration::from_secs(5));
    }
    assert!(holder.float() < 1_000, "{} bids", holder.float());
    assert!(holder.shield.state.lock().returns.len() < 12, "{} returns", holder.shield.state.lock().returns.len());
}

#[tokio::test]
async fn an_idle_campaign_holds_next_to_nothing_and_then_nothing() {
    let mut holder = Holder::new().await;
    holder.bid(PRICE).await.unwrap();
    assert_eq!(holder.float(), 64, "of 640,000 that the budget has");
    holder.wait(Duration::from_secs(29));
    holder.leases.tend(holder.now()).await;
    assert_eq!(holder.float(), 64);
    holder.wait(Duration::from_secs(1));
    holder.leases.tend(holder.now()).await;
    let state = holder.shield.state.lock();
    assert!(state.leases[&1].returned);
    assert_eq!(state.leases[&1].mark, (1, PRICE.get()), "what was marked and not used is free");
}

#[tokio::test]
async fn a_return_without_an_answer_is_made_good_without_a_bid() {
    let mut holder = Holder::new().await;
    holder.bid(PRICE).await.unwrap();
    holder.wait(Duration::from_secs(61));
    holder.shield.state.lock().overloaded = 1;
    for _ in 0..3 {
        holder.leases.tend(holder.now()).await;
    }
    assert_eq!(holder.shield.state.lock().returns.len(), 2);
    assert!(holder.shield.state.lock().leases[&1].returned);
}

#[tokio::test]
async fn a_lease_that_ran_out_while_syncshield_was_away_is_renewed() {
    let mut holder = Holder::new().await;
    holder.bid(PRICE).await.unwrap();
    holder.wait(Duration::from_secs(45));
    holder.shield.state.lock().away = 2;
    assert!(matches!(holder.bid(PRICE).await, Err(NoSlot::Unavailable(_))), "the renewal is not answered");
    holder.wait(Duration::from_secs(600));
    assert!(matches!(holder.bid(PRICE).await, Err(NoSlot::Unavailable(_))));
    holder.shield.state.lock().keeps_ended = true;
    holder.bid(PRICE).await.unwrap();
    let state = holder.shield.state.lock();
    assert_eq!((state.grants, state.leases[&1].epoch, state.leases[&1].returned), (1, 2, false), "it goes on");
}

#[tokio::test]
async fn a_lease_that_syncshield_did_not_keep_is_returned_and_replaced() {
    let mut holder = Holder::new().await;
    holder.bid(PRICE).await.unwrap();
    holder.wait(Duration::from_secs(45));
    holder.shield.state.lock().away = 1;
    assert!(holder.bid(PRICE).await.is_err());
    holder.wait(Duration::from_secs(600));
    holder.bid(PRICE).await.unwrap();
    let state = holder.shield.state.lock();
    assert_eq!((state.grants, state.leases[&1].returned, state.leases[&1].mark.0), (2, true, 1));
}

#[tokio::test]
async fn a_syncshield_that_is_not_there_is_not_asked_by_every_bid() {
    let world = World::new(640_000_000_000).await;
    world.shield.state.lock().lost = true;
    for n in 0..300 {
        let answer = world.bid(&format!("lost{n}")).await;
        assert_eq!((answer.status, answer.header("x-kiki-no-bid")), (204, Some("NOT_READY")));
    }
    let asked = world.shield.state.lock().asked_lost;
    assert!((50..=150).contains(&asked), "{asked}: the first, and the hundred of the reserve");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_be_asked_again_comes_back_within_ten_seconds_and_with_what_is_asked_for_the_first_time() {
    let holder = Holder::in_memory();
    holder.shield.state.lock().lost = true;
    assert_eq!(holder.asks("meta", 300).await, 101, "the first, and what ten a second are in ten seconds");
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(holder.asks("meta", 300).await, 0, "not yet");
    for (nth, platform) in ["x", "tiktok", "amazon", "linkedin"].into_iter().enumerate() {
        assert_eq!(holder.asks(platform, 1).await, 1, "the first of its own");
        assert_eq!(holder.asks("meta", 10).await, u32::from(nth == 3), "five of those are worth one, the very first among them");
    }
    tokio::time::advance(Duration::from_secs(11)).await;
    assert_eq!(holder.asks("meta", 300).await, 100, "all of it, and no more than before");
    tokio::time::advance(Duration::from_secs(11)).await;
    holder.shield.state.lock().lost = false;
    holder.leases.take(&holder.campaign, "meta", PRICE, holder.now()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn in_paused_time_no_platform_waits_for_the_lease_of_another() {
    let holder = Holder::in_memory();
    holder.shield.mute.send_replace(("meta", false));
    let (leases, campaign, now) = (holder.leases.clone(), holder.campaign.clone(), holder.now());
    let silent =
        tokio::spawn(
            async move { tokio::time::timeout(Duration::from_secs(2), leases.take(&campaign, "meta", PRICE, now)).await.is_err() },
        );
    holder.shield.mute.subscribe().wait_for(|(_, asked)| *asked).await.unwrap();
    let began = tokio::time::Instant::now();
    for platform in ["tradedesk", "x", "tiktok"] {
        for _ in 0..100 {
            holder.leases.take(&holder.campaign, platform, PRICE, now).await.unwrap();
        }
    }
    assert_eq!(began.elapsed(), Duration::ZERO, "not a moment passed for the others");
    assert!(silent.await.unwrap(), "and the silent one's bid took all of its time");
    assert!((Duration::from_secs(2)..Duration::from_millis(2_100)).contains(&began.elapsed()));
}
