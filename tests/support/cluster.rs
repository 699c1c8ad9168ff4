//! A Redis Cluster of our own: three masters with a third of the slots each.

use std::time::Duration;

use redis::FromRedisValue;

use crate::server::{Server, free_port};

/// Slots of each master but the last, which has two more.
pub const THIRD: u16 = 16_384 / 3;
/// How long the nodes may take to agree, or to promote a replica.
const AGREEMENT: Duration = Duration::from_secs(20);
/// Between two questions of whether they have.
const PAUSE: Duration = Duration::from_millis(20);

pub struct Cluster {
    pub nodes: Vec<Server>,
}

/// Asks a node over a connection of its own.
pub fn ask<T: FromRedisValue>(server: &Server, words: &[&str]) -> T {
    let mut connection = redis::Client::open(server.url()).unwrap().get_connection().unwrap();
    redis::cmd(words[0]).arg(&words[1..]).query(&mut connection).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Waits until `done` says so.
pub async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !done().await {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(AGREEMENT, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {} s", AGREEMENT.as_secs()));
}

impl Cluster {
    /// Three masters, each of which keeps everything on disk.
    pub async fn start() -> Self {
        let cluster = Self { nodes: (0..3).map(|_| Self::node()).collect() };
        for (n, node) in (0..).zip(&cluster.nodes) {
            let last = if n == 2 { 16_383 } else { (n + 1) * THIRD - 1 };
            ask::<()>(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            ask::<()>(node, &["CLUSTER", "ADDSLOTSRANGE", &(n * THIRD).to_string(), &last.to_string()]);
        }
        cluster.meet().await;
        cluster
    }

    /// One node, which keeps everything on disk.
    pub fn node() -> Server {
        let bus = free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
        let kept = ["--cluster-require-full-coverage", "no", "--appendonly", "yes", "--appendfsync", "always"];
        Server::start_with(&[&options[..], &kept[..]].concat())
    }

    /// Makes all nodes known to each other, and waits until they serve.
    pub async fn meet(&self) {
        for node in &self.nodes[1..] {
            let bus: Vec<String> = ask(node, &["CONFIG", "GET", "cluster-port"]);
            ask::<()>(&self.nodes[0], &["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus[1]]);
        }
        let count = format!("cluster_known_nodes:{}\r", self.nodes.len());
        until("the nodes meet", async || {
            let agreed = |info: String| info.contains("cluster_state:ok\r") && info.contains(&count);
            self.nodes.iter().all(|node| agreed(ask(node, &["CLUSTER", "INFO"])))
        })
        .await;
    }

    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }
}
