//! One suite of behaviours of the service, with its customers embedded, in one real Redis, and in a real cluster of three; and what the service does when
//! it is killed, or they are.

mod cases;
mod kill;
mod load;
mod log;
mod outage;
mod world;

use crate::masters::Cluster;
use crate::server::Server;

/// Where customers are kept.
pub enum Engine {
    Embedded,
    Redis(Server),
    Cluster(Cluster),
}

impl Engine {
    /// What the service is told of it.
    pub fn urls(&self) -> Vec<String> {
        match self {
            Self::Embedded => Vec::new(),
            Self::Redis(server) => vec![server.url()],
            Self::Cluster(cluster) => cluster.urls(),
        }
    }
}
