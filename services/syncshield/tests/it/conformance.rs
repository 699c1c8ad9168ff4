//! One suite of behaviours for every store of the log, and what PostgreSQL alone has to bear: crashes and rivals.

mod cases;
#[path = "../../../kiki-cli/src/bench/postgres.rs"]
mod postgres;
mod proxy;
mod world;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kiki::ids::CustomerKey;
use kiki::leaf;
use postgres::Postgres;
use proxy::Proxy;
use syncshield::domain::ledger::{Closing, SlotOutcome};
use syncshield::store::Log;
use syncshield::subjects::{Subject, Subjects};
use world::{World, ask, campaign, settlement};

#[tokio::test(flavor = "multi_thread")]
async fn both_stores_behave_alike() {
    let server = Postgres::start_or_install();
    let mut passed = Vec::new();
    for (name, url) in [("file", None), ("postgres", Some(server.url()))] {
        let mut count = 0;
        for (case, run) in cases::ALL {
            eprintln!("{name}: {case}");
            run(World::new(url.as_deref())).await;
            count += 1;
        }
        passed.push(format!("{name} {count} of {}", cases::ALL.len()));
    }
    println!("conformance, cases passed: {}", passed.join(", "));
}

/// Reserves and settles until told to stop; gives the leases whose settlement was acknowledged, and how many calls failed.
async fn load(log: Log, name: String, stop: Arc<AtomicBool>) -> (Vec<u64>, u64) {
    let (mut acknowledged, mut failed) = (Vec::new(), 0);
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let asked = ask(&format!("{name}-{n}"), 1_000);
        // As a client does: the same key again until it is answered.
        let lease_id = loop {
            let again = asked.clone();
            match log.run(move |ledger| ledger.lease(&again)).await {
                Ok(granted) => break granted.lease_id,
                Err(syncshield::Error::Refused(refusal)) => panic!("{refusal}"),
                Err(_) => failed += 1,
            }
        };
        let close = Closing { client: "acme".into(), campaign: "c".into(), lease_id, what: settlement(0, 700_000) };
        loop {
            let close = close.clone();
            match log.run(move |ledger| Ok(ledger.settle(vec![close]))).await {
                // A duplicate: the settlement before it, whose answer was lost, was written.
                Ok(outcome) if matches!(outcome[0], SlotOutcome::Applied | SlotOutcome::Duplicate) => break,
                Ok(outcome) => panic!("{outcome:?}"),
                Err(_) => failed += 1,
            }
        }
        acknowledged.push(lease_id);
    }
    (acknowledged, failed)
}

/// The leases that were settled, each once, as the leaves of the log say.
fn settled(leaves: &[leaf::leaf::Body]) -> Vec<u64> {
    let mut leases: Vec<u64> = leaves
        .iter()
        .filter_map(|body| match body {
            leaf::leaf::Body::Settlements(batch) => Some(batch.lease_id),
            _ => None,
        })
        .collect();
    leases.sort_unstable();
    leases
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_is_killed_under_load_loses_nothing_acknowledged() {
    let mut server = Postgres::start_or_install();
    let proxy = Proxy::start(server.port()).await;
    let world = World::new(Some(&format!("postgres://postgres@{}/postgres", proxy.address)));
    let log = world.open().unwrap();
    log.run(|ledger| ledger.put_campaign("acme", campaign(1_000_000_000_000))).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8).map(|i| tokio::spawn(load(log.clone(), format!("k{i}"), stop.clone()))).collect();
    let mut committed = log.committed();
    let mut answers_lost = 0;
    for round in 0..5_u64 {
        // Some way into the load, however fast it is.
        let enough = *committed.borrow() + 100 + 37 * round;
        committed.wait_for(|size| *size >= enough).await.unwrap();
        let lost = 4 * (round as u32 + 1);
        for _ in 0..lost {
            proxy.lose_an_answer();
            let more = *committed.borrow() + 1;
            committed.wait_for(|size| *size >= more).await.unwrap();
        }
        answers_lost += lost - proxy.to_lose();
        server.kill().unwrap();
        server = tokio::task::spawn_blocking(move || server.run().map(|()| server)).await.unwrap().unwrap();
    }
    let enough = *committed.borrow() + 100;
    committed.wait_for(|size| *size >= enough).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let (mut acknowledged, mut failed) = (Vec::new(), 0);
    for client in clients {
        let (leases, errors) = client.await.unwrap();
        acknowledged.extend(leases);
        failed += errors;
    }
    acknowledged.sort_unstable();
    log.close().await;
    let (state, bodies) = world.strict_fold().await;
    assert!(acknowledged.len() > 200, "{} settled", acknowledged.len());
    assert_eq!(settled(&bodies), acknowledged);
    assert_eq!(state.clients["acme"].totals["USD"].settled_nanos, 700_000 * acknowledged.len() as i128);
    assert!(answers_lost > 40, "{answers_lost} answers were lost");
    println!(
        "5 kills and {answers_lost} lost answers of the database: {} settlements acknowledged, {failed} calls failed, {} leaves, none lost",
        acknowledged.len(),
        state.size
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn two_syncshields_on_one_database_keep_one_budget() {
    const LIMIT: i64 = 300_000;
    let server = Postgres::start_or_install();
    let world = World::new(Some(&server.url()));
    let first = world.open().unwrap();
    let twin = world.twin();
    let logs = [first, twin.open().unwrap()];
    logs[0].run(|ledger| ledger.put_campaign("acme", campaign(LIMIT))).await.unwrap();
    // 8 clients of each ask for twice the limit, every key through both; a key that both take is granted once.
    let clients: Vec<_> = (0..16_usize)
        .map(|i| {
            let log = logs[i % 2].clone();
            tokio::spawn(async move {
                let (mut granted, mut contended) = (Vec::new(), 0_u64);
                for n in 0..75 {
                    let asked = ask(&format!("both-{}-{n}", i / 2), 1_000);
                    loop {
                        let again = asked.clone();
                        match log.run(move |ledger| ledger.lease(&again)).await {
                            Ok(lease) => granted.push(lease.lease_id),
                            Err(syncshield::Error::Contended(_)) => {
                                contended += 1;
                                continue;
                            }
                            Err(syncshield::Error::Refused(_)) => {}
                            Err(error) => panic!("{error}"),
                        }
                        break;
                    }
                }
                (granted, contended)
            })
        })
        .collect();
    let (mut granted, mut contended) = (std::collections::BTreeSet::new(), 0);
    for client in clients {
        let (leases, lost) = client.await.unwrap();
        granted.extend(leases);
        contended += lost;
    }
    assert_eq!(granted.len() as i64, LIMIT / 1_000, "granted to the limit and not a micro more");
    // What one wrote the other shows, and both sign the same history.
    let size = logs.iter().map(|log| *log.committed().borrow()).max().unwrap();
    for log in &logs {
        log.committed().wait_for(|seen| *seen >= size).await.unwrap();
    }
    let heard = logs[1].checkpoints();
    let (a, b) = (logs[0].checkpoint(size).await.unwrap(), logs[1].checkpoint(size).await.unwrap());
    assert_eq!(a.note, b.note);
    assert!(heard.has_changed().unwrap(), "a checkpoint that another replica put is told as well");
    assert_eq!(logs[1].catalog().borrow().campaigns.len(), 1);
    for log in &logs {
        log.close().await;
    }
    let (state, _) = world.strict_fold().await;
    let held = state.campaign("acme", "c").unwrap().committed(state.recorded_at, None);
    assert_eq!(held, i128::from(LIMIT) * 1_000);
    println!("two writers: {} leaves, {} leases, {contended} answers of overload", state.size, granted.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_syncshield_erased_no_other_opens() {
    let server = Postgres::start_or_install();
    let world = World::new(Some(&server.url()));
    let log = world.open().unwrap();
    log.run(|ledger| ledger.put_campaign("acme", campaign(1_000))).await.unwrap();
    let twin = world.twin();
    let other_log = twin.open().unwrap();
    let ada = Subject { client: "acme".into(), customer: CustomerKey([1; 16]) };
    let keys = Subjects::of(&world.store, world.dir.path(), &world.log_id);
    let other = Subjects::of(&twin.store, twin.dir.path(), &twin.log_id);
    // Both make the key at once; there is one.
    let (one, two) = tokio::join!(keys.obtain(vec![ada.clone()]), other.obtain(vec![ada.clone()]));
    assert!(one.unwrap() == two.unwrap());
    let (one, two) = tokio::join!(keys.erase(&log, ada.clone(), "article 17".into()), other.erase(&other_log, ada.clone(), "again".into()));
    assert!(one.unwrap().is_some() || two.unwrap().is_some());
    assert!(keys.find(ada.clone()).await.unwrap().is_none() && other.find(ada).await.unwrap().is_none());
    log.close().await;
    other_log.close().await;
    let (state, _) = world.strict_fold().await;
    assert_eq!(state.clients["acme"].erased.len(), 1, "two records of one erasure");
}
