//! SyncValue: what is this customer worth?
//!
//! Customers' events come in by Observe, and their outcomes from SyncShield's log; Predict answers what a customer is expected to
//! spend over a horizon, how sure that is, and by which model. Where none is loaded, or it cannot answer, it is the
//! recency-frequency-value estimate of [`domain::predictor`], and the answer says so.
//!
//! - An event is durable before it is acknowledged, and counts once.
//! - The same events in the same order give the same answers, also after a restart. (Several that share their customers: the same of a model.)
//! - A prediction is never negative and never not a number.
//!
//! Not here: prices and P(conversion), which are SyncFlow's, and money that anyone is billed for.

mod answers;
mod clients;
pub mod config;
pub mod domain;
pub mod error;
mod follower;
mod metrics;
mod rpc;
pub mod store;
pub mod train;

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::Clock;
use kiki::ids::Pseudonyms;
use kiki::runtime::{self, Listeners, MAX_MESSAGE, Recording, Serving};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;
pub use error::Error;

use answers::Answers;
use clients::as_service;
use follower::Follower;
use metrics::{Metrics, Psi};
use rpc::Rpc;
use rpc::server::SyncValueServiceServer;
use store::Store;
use store::cache::Cache;
use store::models::Models;
use store::shared::Shared;
use store::states::redis::Redis;

/// The service's name, for health.
pub const SERVICE: &str = "kiki.syncvalue.v1.SyncValueService";

/// Serves until `shutdown`. The event log in `config.data` is read back first, and let go of before this returns.
///
/// # Errors
/// The event log cannot be used, or a listener failed.
pub fn serve(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Serving<Error> {
    Box::pin(run(listeners, config, clock, shutdown))
}

async fn run(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Result<(), Error> {
    let metrics = runtime::Metrics::new();
    let own = Metrics::new(&metrics);
    let store = Arc::new(open(&config, &own).await?);
    let models = Arc::new(Models::open(&config.models, &config.data, config.model.as_deref())?);
    Psi::register(&metrics, models.clone());
    let cache = Cache::new(config.cache_mib as usize * 1_048_576, own.evictions.clone());
    own.observed(&store::Applied::default(), &store);
    own.accuracy(&store);
    let recording = match config.shield.as_deref() {
        Some(shield) => Some(record_calls(&metrics, shield, clock.clone())?),
        None => None,
    };
    let follower = config.shield.clone().map(|shield| Follower::new(shield, store.clone(), own.clone()).run(shutdown.clone()));
    let follower = follower.map(tokio::spawn);
    let http = runtime::movable(axum::Router::new(), &clock, &metrics, &listeners.trust);
    let rpc = Rpc {
        store: store.clone(),
        models,
        answers: Answers { cache: Arc::new(cache), metrics: own.clone() },
        names: Pseudonyms::new(&config.pseudonym_key),
        horizon_days: config.horizon_days,
        clock,
        metrics: own,
        follows: config.shield.is_some(),
        shutdown: shutdown.clone(),
    };
    let service = SyncValueServiceServer::new(rpc).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let routes = Routes::new(service);
    let served = runtime::serve_on_each_core(listeners, SERVICE, routes, http, metrics, shutdown.clone()).await;
    shutdown.cancel(); // a listener that failed ends the follower too
    if let Some(recording) = recording {
        recording.finish().await;
    }
    if let Some(follower) = follower {
        drop(follower.await);
    }
    store.close().await;
    served.map_err(Error::io("cannot serve"))
}

/// Records calls that are refused, or leave no other record.
fn record_calls(metrics: &runtime::Metrics, shield: &str, clock: Clock) -> Result<Recording, Error> {
    let shield = clients::shield(shield)?;
    let send = move |request| {
        let mut shield = shield.clone();
        async move { shield.record(as_service(request)).await.map(drop) }
    };
    metrics.record_calls("syncvalue", clock, send).map_err(Error::io("cannot record calls"))
}

/// The store, with the customers where the settings say.
async fn open(config: &Config, metrics: &Metrics) -> Result<Store, Error> {
    config.check()?;
    let folder = config.data.clone();
    let shared = match config.states.as_slice() {
        [] => None,
        urls => {
            let states = Arc::new(Redis::with_timeout(urls, Duration::from_millis(config.states_timeout_ms))?);
            Some(Shared::new(states, Duration::from_millis(config.states_patience_ms), metrics.states.clone()))
        }
    };
    let opened = tokio::task::spawn_blocking(move || match shared {
        None => Store::open(&folder),
        Some(shared) => Store::open_shared(&folder, shared),
    });
    opened.await.map_err(|e| Error::LogFailed(e.to_string()))?
}
