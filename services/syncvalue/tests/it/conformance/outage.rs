//! Redis goes away under load, and comes back.

use std::process::Command;
use std::time::Duration;

use kiki::pb::syncvalue::v1::predict_request::Subject;
use kiki::pb::syncvalue::v1::*;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::load::{CUSTOMERS, OF, are_as_undisturbed, send_all};
use super::world::*;
use crate::masters::{Cluster, until};
use crate::server::Server;

/// Senders, and the messages of each in all: after the first third Redis goes.
const SENDERS: u64 = 3;
const MESSAGES: u64 = 600;
/// How many messages are answered without a Redis that is gone before it comes back. Its connections are refused, so no question waits for it,
/// however long it may.
const GONE: u64 = 30;
/// How long a question waits for one that hangs, milliseconds, and how many messages are answered meanwhile. Each of them takes that long.
const HANGS: (u64, u64) = (2_000, 5);

/// What was answered to messages that ask for all customers.
#[derive(Debug, Default, Clone, Copy)]
struct Answered {
    /// By the model, all of them.
    whole: u64,
    /// Some by the model, and some without their state.
    mixed: u64,
    /// Nobody's state was to be had.
    none: u64,
}

/// Asks until nobody looks any more. Whatever happens there is an answer, and no customer is ever unknown.
fn ask_on(mut client: Client) -> (watch::Receiver<Answered>, JoinHandle<()>) {
    let (answered, seen) = watch::channel(Answered::default());
    let asking = tokio::spawn(async move {
        let requests: Vec<_> = (0..CUSTOMERS).map(|c| asking(OF, Subject::Customer(format!("c{c}")))).collect();
        while answered.receiver_count() > 0 {
            let request = PredictBatchRequest { requests: requests.clone() };
            let answers = client.predict_batch(request).await.unwrap().into_inner().predictions;
            let reasons: Vec<_> = answers.iter().map(Prediction::fallback_reason).collect();
            let without = reasons.iter().filter(|reason| **reason == FallbackReason::StateUnavailable).count();
            let by_model = reasons.iter().filter(|reason| **reason == FallbackReason::Unspecified).count();
            assert_eq!(without + by_model, CUSTOMERS as usize, "{reasons:?}");
            assert!(answers.iter().all(|prediction| prediction.mean_micros > 0), "a fallback is a new customer's value");
            answered.send_modify(|answered| match (by_model, without) {
                (_, 0) => answered.whole += 1,
                (0, _) => answered.none += 1,
                _ => answered.mixed += 1,
            });
            tokio::task::yield_now().await;
        }
    });
    (seen, asking)
}

/// Waits until it has come to that, for no longer than a question with so much patience may wait for its Redis: so none that is counted did.
async fn reached(answered: &mut watch::Receiver<Answered>, what: impl FnMut(&Answered) -> bool) {
    let waiting = tokio::time::timeout(Duration::from_millis(PATIENCE_MS), answered.wait_for(what));
    waiting.await.expect("it never came to that").unwrap();
}

/// A service under load, with customers that are known.
struct Loaded {
    process: Process,
    senders: Vec<watch::Sender<u64>>,
    sending: JoinSet<()>,
    _data: tempfile::TempDir,
}

impl Loaded {
    async fn start(states: &[String], patience_ms: u64) -> Self {
        let data = tempfile::tempdir().unwrap();
        let process = Process::start(data.path(), states, patience_ms).await;
        let senders: Vec<_> = (0..SENDERS).map(|_| watch::Sender::new(0)).collect();
        let mut sending = JoinSet::new();
        for (sender, acknowledged) in (0..).zip(&senders) {
            sending.spawn(send_all(process.client.clone(), sender, MESSAGES, acknowledged.clone()));
        }
        for sender in &senders {
            sender.subscribe().wait_for(|n| *n >= MESSAGES / 3).await.unwrap();
        }
        Self { process, senders, sending, _data: data }
    }

    fn acknowledged(&self) -> u64 {
        self.senders.iter().map(|sender| *sender.borrow()).sum()
    }

    /// All is sent in the end, and counts once.
    async fn ends_well(&mut self) {
        while let Some(ended) = self.sending.join_next().await {
            ended.unwrap();
        }

        are_as_undisturbed(&mut self.process.client, &[MESSAGES; SENDERS as usize]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn predictions_go_on_without_redis_and_states_come_back_with_it() {
    let mut server = Server::start_with(&["--appendonly", "yes"]);
    let mut loaded = Loaded::start(&[server.url()], PATIENCE_MS).await;
    let (mut answered, asking) = ask_on(loaded.process.client.clone());
    reached(&mut answered, |answered| answered.whole > 0).await;
    server.kill();
    let at_kill = loaded.acknowledged();
    assert!(at_kill < SENDERS * MESSAGES, "the senders were done before the kill");
    reached(&mut answered, |answered| answered.none >= GONE).await;
    let without = *answered.borrow();
    assert!(server.run());
    reached(&mut answered, |answered| answered.whole > without.whole).await;
    loaded.ends_well().await;
    let all = *answered.borrow();
    drop(answered);
    asking.await.unwrap();
    let metrics = loaded.process.metrics().await;
    for (call, result) in [("get", "ok"), ("get", "failed"), ("read", "ok"), ("read", "failed"), ("put", "ok")] {
        assert!(metrics.contains(&format!("syncvalue_states_total{{call=\"{call}\",result=\"{result}\"}}")), "{call} {result}: {metrics}");
    }
    eprintln!("Redis killed after {at_kill} messages, and back: {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_cluster_that_loses_a_node_the_other_customers_are_answered() {
    let mut cluster = Cluster::start().await;
    let mut loaded = Loaded::start(&cluster.urls(), PATIENCE_MS).await;
    let (mut answered, asking) = ask_on(loaded.process.client.clone());
    reached(&mut answered, |answered| answered.whole > 0).await;
    cluster.nodes[1].kill();
    let at_kill = loaded.acknowledged();
    reached(&mut answered, |answered| answered.mixed >= GONE).await;
    let without = *answered.borrow();
    assert!(cluster.nodes[1].run());
    reached(&mut answered, |answered| answered.whole > without.whole).await;
    loaded.ends_well().await;
    let all = *answered.borrow();
    drop(answered);
    asking.await.unwrap();
    eprintln!("a node of three killed after {at_kill} messages, and back: {all:?}");
}

/// Its connections stand, and nobody answers on them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_hangs_holds_up_nobody_else() {
    let cluster = Cluster::start().await;
    let mut loaded = Loaded::start(&cluster.urls(), HANGS.0).await;
    let (mut answered, asking) = ask_on(loaded.process.client.clone());
    reached(&mut answered, |answered| answered.whole > 0).await;
    let signal = |signal: &str| {
        let sent = Command::new("kill").args([signal, &cluster.nodes[1].process().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    reached(&mut answered, |answered| answered.mixed >= HANGS.1).await;
    let without = *answered.borrow();
    signal("-CONT");
    reached(&mut answered, |answered| answered.whole > without.whole).await;
    loaded.ends_well().await;
    let all = *answered.borrow();
    drop(answered);
    asking.await.unwrap();
    assert_eq!(all.none, 0, "{all:?}");
    eprintln!("a node of three stopped, and going on: {all:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_without_redis() {
    let mut server = Server::start_with(&["--appendonly", "yes"]);
    server.kill();
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::start(data.path(), &[server.url()], PATIENCE_MS).await;
    let answer = predict(&mut process.client, OF, "c1").await;
    assert_eq!(answer.fallback_reason(), FallbackReason::StateUnavailable);
    assert!(answer.mean_micros > 0, "as for one whom the model's estimate does not know: {answer:?}");
    let message = message(OF, [("c1".to_owned(), event(1, 30, 5_000_000))]);
    let status = observe(&mut process.client, vec![message.clone()]).await.unwrap_err();
    assert!(is_away(&status) && status.message().contains("redis 127.0.0.1"), "{status}");
    let erase = EraseCustomerRequest { client: OF.into(), subject: Some(erase_customer_request::Subject::Customer("c1".into())) };
    assert!(is_away(&process.client.erase_customer(erase).await.unwrap_err()));
    assert!(server.run());
    until("events are taken", async || observe(&mut process.client, vec![message.clone()]).await.is_ok()).await;
    are_worth_their_events(&mut process.client, OF, &[("c1".into(), vec![event(1, 30, 5_000_000)])]).await;
}
