//! SyncValue is killed under load, again and again.

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Engine;
use super::load::{CUSTOMERS, are_as_undisturbed, send, send_all};
use super::world::*;
use crate::masters::Cluster;
use crate::server::Server;

/// How often a process is killed in one run.
const KILLS: u64 = 15;
/// Senders of each process.
const SENDERS: u64 = 2;
/// Messages of a sender between two kills, at most.
const MESSAGES: u64 = 150;

/// Kills one of `replicas` processes after the other; gives the messages that were sent.
async fn killed_again_and_again(engine: &Engine, replicas: u64) {
    let folders: Vec<_> = (0..replicas).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut processes = Vec::new();
    for folder in &folders {
        processes.push(Process::start(folder.path(), &engine.urls(), PATIENCE_MS).await);
    }
    let senders: Vec<watch::Sender<u64>> = (0..SENDERS * replicas).map(|_| watch::Sender::new(0)).collect();
    let (mut sent, mut again) = (vec![0; senders.len()], 0);
    for kill in 0..KILLS {
        let mut tasks = JoinSet::new();
        for (sender, acknowledged) in (0..).zip(&senders) {
            let (client, acknowledged) = (processes[(sender / SENDERS) as usize].client.clone(), acknowledged.clone());
            let from = *acknowledged.borrow();
            sent[sender as usize] = from + MESSAGES;
            tasks.spawn(async move { send(client, sender, from..from + MESSAGES, &acknowledged).await });
        }
        // At another moment each time: once the first sender of the process has so many more.
        let victim = (kill % replicas) as usize;
        let mut first = senders[victim * SENDERS as usize].subscribe();
        let enough = *first.borrow() + 1 + kill * 37 % (MESSAGES / 2);
        let reached = first.wait_for(|n| *n >= enough);
        tokio::time::timeout(std::time::Duration::from_secs(60), reached).await.unwrap().unwrap();
        processes[victim].kill();
        tasks.join_all().await;
        again += sent.iter().zip(&senders).map(|(sent, acknowledged)| sent - *acknowledged.borrow()).sum::<u64>();
        processes[victim] = Process::start(folders[victim].path(), &engine.urls(), PATIENCE_MS).await;
    }
    let mut tasks = JoinSet::new();
    for (sender, acknowledged) in (0..).zip(&senders) {
        let client = processes[(sender / SENDERS) as usize].client.clone();
        tasks.spawn(send_all(client, sender, sent[sender as usize], acknowledged.clone()));
    }
    tasks.join_all().await;
    for process in &mut processes {
        are_as_undisturbed(&mut process.client, &sent).await;
    }
    let total: u64 = sent.iter().sum();
    assert!(again > 0, "every kill came when all was acknowledged");
    eprintln!(
        "killed {KILLS} times; {total} messages of {CUSTOMERS} customers, {again} not acknowledged at a kill: each counts once, none is lost"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_load_the_embedded_engine_loses_nothing_and_counts_nothing_twice() {
    killed_again_and_again(&Engine::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_killed_under_load_lose_nothing_and_count_nothing_twice() {
    killed_again_and_again(&Engine::Redis(Server::start_or_install()), 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_of_a_cluster_killed_under_load_lose_nothing_and_count_nothing_twice() {
    killed_again_and_again(&Engine::Cluster(Cluster::start().await), 2).await;
}
