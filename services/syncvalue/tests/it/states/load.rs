//! Redis is killed and restarted while several writers count events in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use syncvalue::store::states::{Key, States};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{change, get, key, patient, put, state};
use crate::masters::until;
use crate::server::Server;

const WRITERS: usize = 4;
const CUSTOMERS: u64 = 8;
/// Events of each writer before the kill, and after the restart.
const EACH: u64 = 200;

/// A state's bytes: of each writer the last of its events that is counted, as 8 bytes.
fn counted(bytes: &[u8]) -> [u64; WRITERS] {
    let (numbers, _) = bytes.as_chunks::<8>();
    let mut counted = [0; WRITERS];
    numbers.iter().zip(&mut counted).for_each(|(number, counted)| *counted = u64::from_be_bytes(*number));
    counted
}

/// Counts a writer's `n`th event of a customer, however often that takes, and says how many tries failed.
async fn count(states: &dyn States, key: &Key, writer: usize, n: u64) -> u64 {
    let mut failed = 0;
    loop {
        match count_once(states, key, writer, n).await {
            Ok(true) => return failed,
            Ok(false) => {}
            Err(_) => {
                failed += 1;
                tokio::time::sleep(std::time::Duration::from_millis(5)).await; // what a caller's own retry does
            }
        }
    }
}

async fn count_once(states: &dyn States, key: &Key, writer: usize, n: u64) -> Result<bool, syncvalue::store::states::Error> {
    let (events, mut numbers) = match get(states, key).await? {
        Some(state) => (state.events, counted(&state.bytes)),
        None => (0, [0; WRITERS]),
    };
    assert!(numbers[writer] + 1 >= n, "event {} of writer {writer} was acknowledged, and is lost", n - 1);
    if numbers[writer] == n {
        return Ok(true); // a try whose answer was lost
    }
    numbers[writer] = n;
    put(states, change(key, events, state(events + 1, numbers.map(u64::to_be_bytes).concat()))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_loses_nothing_acknowledged_and_counts_nothing_twice() {
    let mut server = Server::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (progress, failed) = (Arc::new(watch::Sender::new(0_u64)), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    let keys: Vec<_> = (0..CUSTOMERS).map(|n| key("acme", u128::from(n))).collect();
    for writer in 0..WRITERS {
        let (keys, progress, failed) = (keys.clone(), progress.clone(), failed.clone());
        let states = patient(&[server.url()]); // each a process of its own
        writers.spawn(async move {
            for n in 0..2 * EACH {
                let key = &keys[(n % CUSTOMERS) as usize];
                let failures = count(&states, key, writer, n / CUSTOMERS + 1).await;
                failed.fetch_add(failures, Ordering::Relaxed);
                progress.send_modify(|counted| *counted += 1);
            }
        });
    }
    let half = WRITERS as u64 * EACH;
    progress.subscribe().wait_for(|counted| *counted >= half).await.unwrap();
    server.kill();
    let before = *progress.borrow();
    assert!(before < 2 * half, "the writers were done before the kill");
    assert!(server.run());
    writers.join_all().await;
    let states = patient(&[server.url()]);
    until("Redis is back", async || get(&states, &keys[0]).await.is_ok()).await;
    for key in &keys {
        let state = get(&states, key).await.unwrap().unwrap();
        assert_eq!(counted(&state.bytes), [2 * EACH / CUSTOMERS; WRITERS], "{key}");
        assert_eq!(state.events, WRITERS as u64 * 2 * EACH / CUSTOMERS, "{key}");
    }
    eprintln!("killed after {before} events; {} tries of four writers failed", failed.load(Ordering::Relaxed));
}
