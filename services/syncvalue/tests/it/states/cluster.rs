//! What happens to states in a cluster when one of its masters is lost.

use std::process::Command;
use std::time::Duration;

use syncvalue::store::states::{Change, Error, Key, State, States};

use super::{change, get, key, patient, put, state};
use crate::masters::{Cluster, THIRD, ask, until};
use crate::server::Server;

impl Cluster {
    /// Adds a replica of the master `n`, and waits until it has all of its states.
    async fn add_replica(&mut self, n: usize) {
        self.nodes.push(Self::node());
        self.meet().await;
        let replica = self.nodes.last().unwrap();
        let id: String = ask(&self.nodes[n], &["CLUSTER", "MYID"]);
        ask::<()>(replica, &["CLUSTER", "REPLICATE", &id]);
        until("the replica follows", async || ask::<String>(replica, &["INFO", "replication"]).contains("master_link_status:up")).await;
    }

    /// Which master has a customer's state.
    fn home(&self, key: &Key) -> usize {
        let slot: u16 = ask(&self.nodes[0], &["CLUSTER", "KEYSLOT", &name(key)]);
        usize::from(slot / THIRD).min(2)
    }
}

/// A key's name in Redis.
fn name(key: &Key) -> String {
    format!("kiki:state:{key}")
}

/// Customers of all masters, each with a state of one event.
async fn customers(states: &dyn States) -> Vec<Key> {
    let keys: Vec<_> = (0..64).map(|n| key("acme", n)).collect();
    let changes = keys.iter().map(|key| change(key, 0, state(1, key.to_string()))).collect();
    assert_eq!(states.put(changes).await, vec![Ok(true); 64]);
    keys
}

fn first(key: &Key) -> Option<State> {
    Some(state(1, key.to_string()))
}

/// From one event to the second.
fn second(key: &Key) -> Change {
    change(key, 1, state(2, key.to_string()))
}

#[tokio::test]
async fn a_node_that_is_silent_does_not_take_the_answers_of_the_others_with_it() {
    let cluster = Cluster::start().await;
    let states = patient(&cluster.urls());
    let keys = customers(&states).await;
    let signal = |signal: &str| {
        let sent = Command::new("kill").args([signal, &cluster.nodes[1].process().to_string()]).status();
        assert!(sent.unwrap().success());
    };
    signal("-STOP");
    let patience = Duration::from_secs(5);
    let answers = states.get_within(&keys, patience).await;
    for (key, answer) in keys.iter().zip(answers) {
        match cluster.home(key) {
            1 => assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}"),
            _ => assert_eq!(answer, Ok(first(key))),
        }
    }
    signal("-CONT");
    until("all are got", async || states.get_within(&keys, patience).await.iter().all(Result::is_ok)).await;
}

#[tokio::test]
async fn of_a_cluster_that_lost_a_master_the_others_go_on_and_it_comes_back() {
    let mut cluster = Cluster::start().await;
    let states = patient(&cluster.urls()[..1]);
    let keys = customers(&states).await;
    let lost = keys.iter().map(|key| cluster.home(key) == 1).collect::<Vec<_>>();
    cluster.nodes[1].kill();
    for _ in 0..20 {
        let answers = states.get(&keys).await;
        for ((key, lost), answer) in keys.iter().zip(&lost).zip(answers) {
            match answer {
                Ok(state) => assert!(!lost && state == first(key), "{key}: {state:?}"),
                Err(error) => assert!(*lost && error.to_string().contains("refused"), "{key}: {error}"),
            }
        }
    }
    let changes = keys.iter().map(second).collect();
    let done: Vec<_> = states.put(changes).await.into_iter().map(|done| done.is_ok()).collect();
    assert_eq!(done, lost.iter().map(|lost| !lost).collect::<Vec<_>>());
    assert!(cluster.nodes[1].run());
    let gone = keys.iter().zip(&lost).find(|(_, lost)| **lost).unwrap().0;
    until("the master is back", async || get(&states, gone).await.is_ok()).await;
    for (key, lost) in keys.iter().zip(&lost) {
        let events = if *lost { 1 } else { 2 };
        assert_eq!(get(&states, key).await, Ok(Some(state(events, key.to_string()))));
    }
}

#[tokio::test]
async fn a_promoted_replica_is_found() {
    let mut cluster = Cluster::start().await;
    cluster.add_replica(0).await;
    let states = patient(&cluster.urls()[..3]);
    let keys = customers(&states).await;
    let moved: Vec<_> = keys.iter().filter(|key| cluster.home(key) == 0).collect();
    let (master, replica) = (&cluster.nodes[0], &cluster.nodes[3]);
    let sizes = || (ask::<u64>(master, &["DBSIZE"]), ask::<u64>(replica, &["DBSIZE"]));
    until("the replica has the states", async || sizes().0 == sizes().1).await;
    cluster.nodes[0].kill();
    until("the replica serves", async || put(&states, second(moved[0])).await.is_ok()).await;
    assert_eq!(get(&states, moved[0]).await, Ok(Some(state(2, moved[0].to_string()))));
    for key in &moved[1..] {
        assert_eq!(get(&states, key).await, Ok(first(key)));
        assert_eq!(put(&states, second(key)).await, Ok(true));
    }
    assert!(ask::<String>(&cluster.nodes[3], &["INFO", "replication"]).contains("role:master"));
}

#[tokio::test]
async fn a_slot_is_followed_while_it_moves_and_after() {
    let cluster = Cluster::start().await;
    let states = patient(&cluster.urls()[..1]);
    customers(&states).await;
    let moving = (64..).map(|n| key("acme", n)).find(|key| cluster.home(key) == 0).unwrap();
    let (from, to) = (&cluster.nodes[0], &cluster.nodes[1]);
    let slot = ask::<u16>(from, &["CLUSTER", "KEYSLOT", &name(&moving)]).to_string();
    let id = |node| ask::<String>(node, &["CLUSTER", "MYID"]);
    ask::<()>(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
    ask::<()>(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    for node in [from, to] {
        ask::<()>(node, &["SCRIPT", "FLUSH"]);
    }
    // The old master sends on what it has not, or has not any more.
    assert_eq!(get(&states, &moving).await, Ok(None));
    assert_eq!(put(&states, change(&moving, 0, state(1, moving.to_string()))).await, Ok(true));
    assert_eq!(get(&states, &moving).await, Ok(first(&moving)));
    let there = ask::<Vec<String>>(to, &["CLUSTER", "GETKEYSINSLOT", &slot, "10"]);
    assert_eq!(there, [name(&moving)]);
    for node in [to, from] {
        ask::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &id(to)]);
    }
    assert_eq!(put(&states, second(&moving)).await, Ok(true));
    assert_eq!(get(&states, &moving).await, Ok(Some(state(2, moving.to_string()))));
}

#[tokio::test]
async fn several_addresses_of_servers_without_a_cluster_are_refused() {
    let servers = [Server::start_or_install(), Server::start_or_install()];
    let states = patient(&servers.each_ref().map(Server::url));
    let Err(Error::Unavailable { why, .. }) = get(&states, &key("acme", 1)).await else { panic!("it was answered") };
    assert!(why.contains("is no cluster, and several addresses were given"), "{why}");
}
