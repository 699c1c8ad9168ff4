//! One Redis that is down, slow, full, or has forgotten the script.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use syncvalue::store::states::redis::{MAX_IN_FLIGHT, Redis};
use syncvalue::store::states::{Error, Key, MAX_BATCH, MAX_BYTES, States};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{change, get, key, patient, put, state};
use crate::masters::{ask, until};
use crate::server::Server;

fn signal(server: &Server, signal: &str) {
    assert!(Command::new("kill").args([signal, &server.process().to_string()]).status().unwrap().success());
}

#[test]
fn an_address_that_is_none_is_refused() {
    assert_eq!(Redis::new(&[]).unwrap_err().to_string(), "states: no address of a Redis was given");
    for bad in ["localhost:6379", "http://localhost", "redis+unix:///tmp/redis", "rediss://localhost"] {
        assert!(matches!(Redis::new(&[bad.to_owned()]), Err(Error::Address(_))), "{bad}");
    }
    let shown = format!("{:?}", Redis::new(&["redis://user:secret@localhost:7000".to_owned()]).unwrap());
    assert_eq!(shown, "Redis(localhost:7000)");
}

#[tokio::test]
async fn a_redis_that_is_down_is_an_error_at_once_and_used_when_it_is_back() {
    let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (states, key) = (patient(&[server.url()]), key("acme", 1));
    assert_eq!(put(&states, change(&key, 0, state(1, "a"))).await, Ok(true));
    server.kill();
    for call in 0..20 {
        let error = get(&states, &key).await.unwrap_err();
        let Error::Unavailable { node, why } = error else { panic!("{error}") };
        assert_eq!(node, format!("127.0.0.1:{}", server.port()));
        assert!(why.contains("refused"), "call {call}: {why}");
    }
    assert!(put(&states, change(&key, 1, state(2, "b"))).await.is_err());
    assert!(states.erase(std::slice::from_ref(&key)).await[0].is_err());
    assert!(server.run());
    until("Redis is back", async || get(&states, &key).await.is_ok()).await;
    assert_eq!(get(&states, &key).await, Ok(Some(state(1, "a"))));
    assert_eq!(put(&states, change(&key, 1, state(2, "b"))).await, Ok(true));
}

#[tokio::test]
async fn a_redis_that_was_never_there_is_used_when_it_is() {
    let mut server = Server::start_or_install();
    server.kill();
    let (states, key) = (patient(&[server.url()]), key("acme", 1));
    assert!(get(&states, &key).await.unwrap_err().to_string().contains("refused"));
    assert!(server.run());
    until("Redis is there", async || get(&states, &key).await.is_ok()).await;
}

#[tokio::test]
async fn a_restart_between_two_calls_goes_unnoticed() {
    let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (states, key) = (patient(&[server.url()]), key("acme", 1));
    for events in 0..5 {
        assert_eq!(put(&states, change(&key, events, state(events + 1, "a"))).await, Ok(true));
        server.kill();
        assert!(server.run());
    }
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_an_error_in_time() {
    let server = Server::start_or_install();
    let (states, key) = (Redis::new(&[server.url()]).unwrap(), key("acme", 1));
    assert_eq!(put(&states, change(&key, 0, state(1, "a"))).await, Ok(true));
    signal(&server, "-STOP");
    let error = put(&states, change(&key, 1, state(2, "b"))).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("no answer"), "{error}");
    signal(&server, "-CONT");
    until("Redis answers", async || get(&states, &key).await.is_ok()).await;
    // The change was read by Redis in the end, or it was not.
    let now = get(&states, &key).await.unwrap().unwrap();
    assert!([state(1, "a"), state(2, "b")].contains(&now), "{now:?}");
    assert_eq!(put(&states, change(&key, 1, state(2, "b"))).await, Ok(true), "a retry is safe");
}

/// Nobody is at the other end of its connections. Time stands still but for what is waited for.
#[tokio::test(start_paused = true)]
async fn a_call_has_ended_after_its_time_whatever_it_waits_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}/", listener.local_addr().unwrap());
    let key = key("acme", 1);
    for timeout in [100, 1_000, 60_000].map(Duration::from_millis) {
        let states = Redis::with_timeout(std::slice::from_ref(&url), timeout).unwrap();
        let began = Instant::now();
        assert!(matches!(put(&states, change(&key, 0, state(1, "a"))).await, Err(Error::Unavailable { .. })));
        assert!(began.elapsed() <= timeout, "{:?} of {timeout:?}", began.elapsed());
        let (began, patience) = (Instant::now(), timeout / 10);
        assert!(matches!(&states.get_within(std::slice::from_ref(&key), patience).await[..], [Err(Error::Unavailable { .. })]));
        assert!(began.elapsed() <= patience, "{:?} of {patience:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_script_that_was_forgotten_is_sent_again() {
    let server = Server::start_or_install();
    let (states, keys) = (patient(&[server.url()]), [key("acme", 1), key("acme", 2)]);
    assert_eq!(put(&states, change(&keys[0], 0, state(1, "a"))).await, Ok(true));
    ask::<()>(&server, &["SCRIPT", "FLUSH"]);
    let changes = vec![change(&keys[0], 1, state(2, "b")), change(&keys[1], 1, state(2, "b"))];
    assert_eq!(states.put(changes).await, [Ok(true), Ok(false)]);
    assert_eq!(states.get(&keys).await, [Ok(Some(state(2, "b"))), Ok(None)]);
}

#[tokio::test]
async fn a_full_redis_says_so_and_still_reads() {
    let server = Server::start_or_install();
    let (states, key) = (patient(&[server.url()]), key("acme", 1));
    assert_eq!(put(&states, change(&key, 0, state(1, "a"))).await, Ok(true));
    ask::<()>(&server, &["CONFIG", "SET", "maxmemory", "1"]);
    let error = put(&states, change(&key, 1, state(2, "b"))).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { why, .. } if why.contains("OOM")), "{error}");
    assert_eq!(get(&states, &key).await, Ok(Some(state(1, "a"))));
    assert_eq!(states.erase(std::slice::from_ref(&key)).await, [Ok(true)]);
    assert_eq!(get(&states, &key).await, Ok(None));
}

#[tokio::test]
async fn what_is_no_state_is_an_error_of_its_own_key() {
    let server = Server::start_or_install();
    let (states, keys) = (patient(&[server.url()]), [key("acme", 1), key("acme", 2)]);
    assert_eq!(put(&states, change(&keys[1], 0, state(1, "a"))).await, Ok(true));
    let name = "kiki:state:acme:USD:00000000000000000000000000000001";
    ask::<()>(&server, &["SET", name, "short"]);
    let damaged = Err(Error::Damaged { key: name.into(), what: "5 bytes".into() });
    assert_eq!(states.get(&keys).await, [damaged, Ok(Some(state(1, "a")))]);
    ask::<()>(&server, &["DEL", name]);
    ask::<()>(&server, &["LPUSH", name, "x"]);
    let answers = states.get(&keys).await;
    assert!(matches!(&answers[0], Err(Error::Refused { why, .. }) if why.contains("WRONGTYPE")), "{:?}", answers[0]);
    assert_eq!(answers[1], Ok(Some(state(1, "a"))));
}

#[tokio::test]
async fn a_batch_of_the_largest_states_gets_through() {
    let server = Server::start_or_install();
    let states = patient(&[server.url()]);
    let keys: Vec<_> = (0..MAX_BATCH as u128).map(|n| key("acme", n)).collect();
    let largest = state(1, vec![1; MAX_BYTES]);
    let changes: Vec<_> = keys.iter().map(|key| change(key, 0, largest.clone())).collect();
    // 16 MiB may take longer than a call has on a busy machine, and each call finds what the ones before it put.
    until("all are put", async || states.put(changes.clone()).await.iter().all(|done| *done == Ok(true))).await;
    until("all are got", async || states.get(&keys).await.iter().all(|answer| matches!(answer, Ok(Some(state)) if *state == largest)))
        .await;
}

#[tokio::test]
async fn calls_in_flight_are_bounded() {
    let server = Server::start_or_install();
    let states = Arc::new(patient(&[server.url()]));
    let keys: Arc<Vec<Key>> = Arc::new((0..MAX_BATCH as u128).map(|n| key("acme", n)).collect());
    assert_eq!(states.get(&keys).await, vec![Ok(None); MAX_BATCH]);
    signal(&server, "-STOP");
    let mut calls = JoinSet::new();
    for _ in 0..=MAX_IN_FLIGHT / MAX_BATCH {
        let (states, keys) = (states.clone(), keys.clone());
        calls.spawn(async move { states.get(&keys).await });
    }
    let first = calls.join_next().await.unwrap().unwrap();
    assert!(first.iter().all(|answer| *answer == Err(Error::Busy { limit: MAX_IN_FLIGHT })), "{:?}", first[0]);
    signal(&server, "-CONT");
    let rest = calls.join_all().await.concat();
    assert!(rest.iter().all(|answer| !matches!(answer, Err(Error::Busy { .. }))), "there was room for these");
    until("there is room again", async || states.get(&keys).await.iter().all(Result::is_ok)).await;
}
