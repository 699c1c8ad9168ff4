//! One suite of behaviours for every place where impressions are counted: memory, and a real Redis.

use std::time::Duration;

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use syncflow::domain::frequency::{Customer, Fate, Memory, Question, Shown};
use syncflow::store::Counter;
use syncflow::store::redis::Redis;
use tokio_util::sync::CancellationToken;

use super::server::Server;

const HOUR: i64 = 3_600_000_000;
/// How long an open bid counts.
const WINDOW: Duration = Duration::from_secs(2 * 3_600);

/// A store under a case, whose client is the case's own.
struct Case<'a> {
    store: &'a dyn Counter,
    client: &'a str,
}

impl Case<'_> {
    fn customer(&self, n: u8) -> Customer {
        Customer { client: self.client.to_owned(), key: CustomerKey([n; 16]) }
    }

    fn question(&self, n: u8, campaign: &str, hours: u32) -> Question {
        Question { customer: self.customer(n), campaign: (campaign != "*").then(|| campaign.to_owned()), hours }
    }

    /// What became of customer 1's bid of hour 0 for spring.
    fn take(&self, slot: u32, fate: Fate) {
        self.take_of(1, "spring", slot, 0, fate);
    }

    fn take_of(&self, n: u8, campaign: &str, slot: u32, at: i64, fate: Fate) {
        let at = UnixMicros(at);
        let shown = Shown { slot: (7, slot), campaign: campaign.to_owned(), at, deadline: at.plus(WINDOW) };
        self.store.take(&self.customer(n), &shown, fate, at);
    }

    /// Customer 1's bids for spring in the 24 hours before `now`.
    async fn count(&self, now: i64) -> u32 {
        self.counts(&[(1, "spring", 24)], now).await[0]
    }

    async fn counts(&self, asked: &[(u8, &str, u32)], now: i64) -> Vec<u32> {
        let questions = asked.iter().map(|(n, campaign, hours)| self.question(*n, campaign, *hours)).collect();
        self.store.counts(questions, UnixMicros(now)).await.expect("counts")
    }
}

async fn an_open_bid_counts_until_its_deadline(case: Case<'_>) {
    assert_eq!(case.count(0).await, 0);
    case.take(1, Fate::Open);
    assert_eq!((case.count(0).await, case.count(2 * HOUR - 1).await, case.count(2 * HOUR).await), (1, 1, 0));
}

async fn a_charged_bid_counts_until_its_windows_end(case: Case<'_>) {
    case.take(1, Fate::Open);
    case.take(1, Fate::Charged);
    assert_eq!((case.count(2 * HOUR).await, case.count(24 * HOUR - 1).await, case.count(24 * HOUR).await), (1, 1, 0));
    assert_eq!(case.counts(&[(1, "spring", 1), (1, "spring", 720)], HOUR).await, [0, 1]);
}

async fn a_lost_bid_counts_no_more_and_a_charged_one_is_not_lost(case: Case<'_>) {
    case.take(1, Fate::Open);
    case.take(2, Fate::Open);
    case.take(1, Fate::Lost);
    assert_eq!(case.count(0).await, 1);
    case.take(2, Fate::Charged);
    case.take(2, Fate::Lost);
    case.take(3, Fate::Lost);
    assert_eq!(case.count(0).await, 1);
}

async fn the_same_twice_counts_once_in_any_order(case: Case<'_>) {
    for fate in [Fate::Open, Fate::Open, Fate::Charged, Fate::Charged, Fate::Open] {
        case.take(1, fate);
        assert_eq!(case.count(0).await, 1, "{fate:?}");
    }
    assert_eq!(case.count(3 * HOUR).await, 1, "it is charged still");
}

async fn a_charge_of_an_unknown_bid_counts_at_the_bids_time(case: Case<'_>) {
    case.take(1, Fate::Charged);
    assert_eq!((case.count(24 * HOUR - 1).await, case.count(24 * HOUR).await), (1, 0));
}

async fn each_customer_and_campaign_has_its_own_count_and_all_campaigns_one(case: Case<'_>) {
    case.take_of(1, "spring", 1, 0, Fate::Open);
    case.take_of(1, "autumn", 2, 0, Fate::Open);
    case.take_of(1, "autumn", 3, 0, Fate::Charged);
    case.take_of(2, "spring", 4, 0, Fate::Open);
    let asked = [(1, "spring", 24), (1, "autumn", 24), (1, "*", 24), (2, "*", 24), (2, "autumn", 24), (3, "*", 24)];
    assert_eq!(case.counts(&asked, 0).await, [1, 2, 3, 1, 0, 0]);
    assert_eq!(case.counts(&[], 0).await, [0; 0]);
}

async fn what_was_taken_is_known_to_the_next_question(case: Case<'_>) {
    for slot in 0..1_000 {
        case.take_of(1, "spring", slot, i64::from(slot), Fate::Open);
    }
    assert_eq!(case.count(1_000).await, 1_000);
}

macro_rules! cases {
    ($store:expr; $($case:ident)*) => {{
        let mut passed = 0;
        $($case(Case { store: $store, client: stringify!($case) }).await; passed += 1;)*
        passed
    }};
}

async fn all(store: &dyn Counter) -> u32 {
    cases!(store;
        an_open_bid_counts_until_its_deadline
        a_charged_bid_counts_until_its_windows_end
        a_lost_bid_counts_no_more_and_a_charged_one_is_not_lost
        the_same_twice_counts_once_in_any_order
        a_charge_of_an_unknown_bid_counts_at_the_bids_time
        each_customer_and_campaign_has_its_own_count_and_all_campaigns_one
        what_was_taken_is_known_to_the_next_question
    )
}

fn redis(url: &str) -> (Redis, prometheus::IntCounter) {
    let unshared = prometheus::IntCounter::new("unshared", "not taken").unwrap();
    let (redis, talking) = Redis::new(url, WINDOW, unshared.clone(), CancellationToken::new()).unwrap();
    tokio::spawn(talking);
    (redis, unshared)
}

#[tokio::test]
async fn memory_keeps_every_case() {
    let passed = all(&Memory::default()).await;
    eprintln!("frequency counts in memory: {passed} cases passed");
}

#[tokio::test]
async fn redis_keeps_every_case() {
    let server = Server::start_or_install();
    let (redis, unshared) = redis(&server.url());
    let passed = all(&redis).await;
    eprintln!("frequency counts in Redis: {passed} cases passed");
    assert_eq!(unshared.get(), 0);
}

#[tokio::test]
async fn a_redis_that_is_gone_answers_nothing_and_what_it_misses_is_counted() {
    let server = Server::start_or_install();
    let (redis, unshared) = redis(&server.url());
    let case = Case { store: &redis, client: "acme" };
    case.take(1, Fate::Open);
    assert_eq!(case.count(0).await, 1);
    drop(server);
    let asked = || redis.counts(vec![case.question(1, "spring", 24)], UnixMicros(0));
    assert_eq!((asked().await, asked().await), (None, None));
    case.take(2, Fate::Open);
    assert_eq!((asked().await, unshared.get()), (None, 1));
}
