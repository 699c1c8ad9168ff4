//! The suite, on one real Redis and a real cluster.

use std::sync::Arc;

use kiki::ids::ClientId;
use kiki::money::Currency;
use syncvalue::domain::market::MarketId;
use syncvalue::store::states::{Error, Key, MAX_BATCH, MAX_BYTES, State, States};
use tokio::task::JoinSet;

use super::{change, get, patient, put, state};
use crate::masters::{Cluster, ask};
use crate::server::Server;

/// A store under a case, whose client is the case's own.
struct Case {
    states: Arc<dyn States>,
    client: String,
}

impl Case {
    fn key(&self, customer: u128) -> Key {
        super::key(&self.client, customer)
    }

    async fn get(&self, key: &Key) -> Option<State> {
        get(&*self.states, key).await.unwrap()
    }

    async fn put(&self, key: &Key, expected: u64, state: State) -> bool {
        put(&*self.states, change(key, expected, state)).await.unwrap()
    }
}

async fn what_was_never_put_is_absent(case: Case) {
    assert_eq!(case.get(&case.key(1)).await, None);
    assert!(case.states.get(&[]).await.is_empty());
    assert!(case.states.put(Vec::new()).await.is_empty());
}

async fn what_is_put_is_got(case: Case) {
    let states = [(1, 0), (2, 1), (1 << 53, 100), ((1 << 53) + 1, 4 << 10), (u64::MAX, MAX_BYTES)];
    let states: Vec<_> = states.iter().map(|&(events, len)| state(events, vec![0xa5; len])).collect();
    let keys: Vec<_> = (0..).take(states.len()).map(|n| case.key(n)).collect();
    let changes = keys.iter().zip(&states).map(|(key, state)| change(key, 0, state.clone())).collect();
    assert_eq!(case.states.put(changes).await, vec![Ok(true); 5]);
    assert_eq!(case.states.get(&keys).await, states.into_iter().map(|state| Ok(Some(state))).collect::<Vec<_>>());
}

async fn every_byte_is_kept(case: Case) {
    let (key, all) = (case.key(1), (0..=255).collect::<Vec<u8>>());
    assert!(case.put(&key, 0, state(1, all.clone())).await);
    assert_eq!(case.get(&key).await, Some(state(1, all)));
}

async fn a_change_from_another_number_is_refused_and_changes_nothing(case: Case) {
    let (key, other) = (case.key(1), case.key(2));
    assert!(!case.put(&key, 1, state(2, "b")).await, "there is none yet");
    assert_eq!(case.get(&key).await, None);
    assert!(case.put(&key, 0, state(258, "a")).await);
    for expected in [0, 1, 2, 257, 259] {
        assert!(!case.put(&key, expected, state(300, "b")).await, "{expected}");
    }
    assert_eq!((case.get(&key).await, case.get(&other).await), (Some(state(258, "a")), None));
    assert!(case.put(&key, 258, state(259, "b")).await);
    assert_eq!(case.get(&key).await, Some(state(259, "b")));
}

/// Beyond 2^53 neighbouring numbers are one as doubles.
async fn large_numbers_are_told_apart(case: Case) {
    let key = case.key(1);
    assert!(case.put(&key, 0, state(1 << 60, "a")).await);
    assert!(!case.put(&key, (1 << 60) + 1, state(u64::MAX, "b")).await);
    assert!(case.put(&key, 1 << 60, state(u64::MAX, "b")).await);
}

async fn of_four_writers_every_increment_counts_once(case: Case) {
    const WRITERS: u8 = 4;
    const EACH: u64 = 25;
    let key = case.key(1);
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (states, key) = (case.states.clone(), key.clone());
        writers.spawn(async move {
            let mut refused = 0_u64;
            for n in 0..EACH {
                loop {
                    let before = get(&*states, &key).await.unwrap().map_or(0, |state| state.events);
                    tokio::task::yield_now().await; // another writer's turn
                    if put(&*states, change(&key, before, state(before + 1, vec![writer, n as u8]))).await.unwrap() {
                        break;
                    }
                    refused += 1;
                }
            }
            refused
        });
    }
    let refused: u64 = writers.join_all().await.into_iter().sum();
    assert_eq!(case.get(&key).await.unwrap().events, u64::from(WRITERS) * EACH);
    assert!(refused > 0, "the writers never met");
}

async fn a_batch_has_an_outcome_for_each_change(case: Case) {
    let keys: Vec<_> = (0..5).map(|n| case.key(n)).collect();
    assert!(case.put(&keys[1], 0, state(7, "old")).await);
    let changes = vec![
        change(&keys[0], 0, state(1, "new")),
        change(&keys[1], 6, state(8, "stale")),
        change(&keys[2], 3, state(4, "of none")),
        change(&keys[3], 0, state(2, "new")),
        change(&keys[1], 7, state(8, "good")),
    ];
    assert_eq!(case.states.put(changes).await, [Ok(true), Ok(false), Ok(false), Ok(true), Ok(true)]);
    let now = [Some(state(1, "new")), Some(state(8, "good")), None, Some(state(2, "new")), None].map(Ok);
    assert_eq!(case.states.get(&keys).await, now);
}

async fn changes_of_one_key_are_made_in_their_order(case: Case) {
    let key = case.key(1);
    let changes = (0..10).map(|n| change(&key, n, state(n + 1, vec![n as u8]))).collect();
    assert_eq!(case.states.put(changes).await, vec![Ok(true); 10]);
    assert_eq!(case.get(&key).await, Some(state(10, vec![9])));
}

async fn a_retry_with_the_same_bytes_is_done(case: Case) {
    let key = case.key(1);
    for (expected, new) in [(0, state(1, "a")), (1, state(5, "b"))] {
        assert!(case.put(&key, expected, new.clone()).await);
        assert!(case.put(&key, expected, new.clone()).await, "the answer may have been lost");
        assert!(!case.put(&key, expected, state(new.events, "c")).await, "it is another writer's");
        assert_eq!(case.get(&key).await, Some(new));
    }
    assert!(!case.put(&key, 0, state(1, "a")).await, "it is long past");
    assert_eq!(case.get(&key).await, Some(state(5, "b")));
}

async fn the_same_events_by_another_model_take_the_states_place(case: Case) {
    let key = case.key(1);
    assert!(case.put(&key, 0, state(3, "model 1")).await);
    assert!(case.put(&key, 3, state(3, "model 2")).await);
    assert_eq!(case.get(&key).await, Some(state(3, "model 2")));
}

async fn an_erased_customer_is_not_brought_back(case: Case) {
    let (key, other) = (case.key(1), case.key(2));
    assert_eq!(case.states.erase(std::slice::from_ref(&key)).await, [Ok(false)]);
    assert!(case.put(&key, 0, state(3, "a")).await);
    assert!(case.put(&other, 0, state(1, "o")).await);
    assert_eq!(case.states.erase(&[key.clone(), case.key(3)]).await, [Ok(true), Ok(false)]);
    assert_eq!(case.get(&key).await, None);
    assert!(!case.put(&key, 3, state(4, "b")).await);
    assert_eq!((case.get(&key).await, case.get(&other).await), (None, Some(state(1, "o"))));
    assert!(case.put(&key, 0, state(1, "c")).await, "a new customer");
    assert_eq!(case.get(&key).await, Some(state(1, "c")));
}

async fn beyond_a_limit_is_refused_and_the_limit_named(case: Case) {
    let keys: Vec<_> = (0..4).map(|n| case.key(n)).collect();
    let changes = vec![
        change(&keys[0], 0, state(1, vec![0; MAX_BYTES + 1])),
        change(&keys[1], 0, state(0, "no event")),
        change(&keys[2], 5, state(4, "fewer")),
        change(&keys[3], 0, state(1, "good")),
    ];
    let answers = case.states.put(changes).await;
    let said: Vec<_> = answers.iter().map(|answer| answer.as_ref().map_err(ToString::to_string)).collect();
    assert_eq!(said[0], Err("state.bytes: 65537 bytes; at most 65536 are taken".into()));
    assert_eq!(said[1], Err("state.events: 0; at least 1 after a state of 0".into()));
    assert_eq!(said[2], Err("state.events: 4; at least 5 after a state of 5".into()));
    assert_eq!(said[3], Ok(&true));
    assert_eq!(case.states.get(&keys).await, [Ok(None), Ok(None), Ok(None), Ok(Some(state(1, "good")))]);
}

async fn a_batch_has_a_limit(case: Case) {
    let keys: Vec<_> = (0..=MAX_BATCH as u128).map(|n| case.key(n)).collect();
    let changes = |keys: &[Key]| keys.iter().map(|key| change(key, 0, state(1, key.to_string()))).collect::<Vec<_>>();
    let too_many = Error::TooMany { got: MAX_BATCH + 1 };
    assert_eq!(case.states.put(changes(&keys)).await, vec![Err(too_many.clone()); MAX_BATCH + 1]);
    assert_eq!(case.states.get(&keys).await, vec![Err(too_many); MAX_BATCH + 1]);
    let keys = &keys[1..];
    assert_eq!(case.states.get(keys).await, vec![Ok(None); MAX_BATCH]);
    assert_eq!(case.states.put(changes(keys)).await, vec![Ok(true); MAX_BATCH]);
    let stored = keys.iter().map(|key| Ok(Some(state(1, key.to_string())))).collect::<Vec<_>>();
    assert_eq!(case.states.get(keys).await, stored);
}

async fn clients_currencies_and_customers_are_kept_apart(case: Case) {
    let of = |client: &str, currency: &str, customer: u128| {
        let market = MarketId { client: ClientId::parse(client).unwrap(), currency: Currency::parse(currency).unwrap() };
        Key { market, customer: case.key(customer).customer }
    };
    let (client, other) = (case.client.clone(), format!("{}.", case.client));
    let keys = [of(&client, "USD", 1), of(&client, "EUR", 1), of(&other, "USD", 1), of(&client, "USD", 1 << 64), of(&client, "USD", 2)];
    let changes = keys.iter().map(|key| change(key, 0, state(1, key.to_string()))).collect();
    assert_eq!(case.states.put(changes).await, vec![Ok(true); keys.len()]);
    assert_eq!(case.states.erase(&keys[..1]).await, [Ok(true)]);
    let mut left: Vec<_> = keys.iter().map(|key| Ok(Some(state(1, key.to_string())))).collect();
    left[0] = Ok(None);
    assert_eq!(case.states.get(&keys).await, left);
}

macro_rules! cases {
    ($states:expr; $($case:ident)*) => {{
        let mut passed = 0;
        $(
            let client = stringify!($case).chars().take(40).collect();
            $case(Case { states: $states.clone(), client }).await;
            passed += 1;
        )*
        passed
    }};
}

async fn all(states: Arc<dyn States>) -> u32 {
    cases!(states;
        what_was_never_put_is_absent
        what_is_put_is_got
        every_byte_is_kept
        a_change_from_another_number_is_refused_and_changes_nothing
        large_numbers_are_told_apart
        of_four_writers_every_increment_counts_once
        a_batch_has_an_outcome_for_each_change
        changes_of_one_key_are_made_in_their_order
        a_retry_with_the_same_bytes_is_done
        the_same_events_by_another_model_take_the_states_place
        an_erased_customer_is_not_brought_back
        beyond_a_limit_is_refused_and_the_limit_named
        a_batch_has_a_limit
        clients_currencies_and_customers_are_kept_apart
    )
}

#[tokio::test]
async fn redis_keeps_every_case() {
    let server = Server::start_or_install();
    let passed = all(Arc::new(patient(&[server.url()]))).await;
    eprintln!("states in Redis: {passed} cases passed");
}

#[tokio::test]
async fn a_cluster_keeps_every_case() {
    let cluster = Cluster::start().await;
    let passed = all(Arc::new(patient(&cluster.urls()[..1]))).await;
    eprintln!("states in a cluster of three: {passed} cases passed");
    let held: Vec<u64> = cluster.nodes.iter().map(|master| ask(master, &["DBSIZE"])).collect();
    assert!(held.iter().all(|states| *states > 0), "{held:?} states: a master has none");
}
