//! SyncValue: what is this customer worth?
//!
//! Customers' events come in by Observe, and their outcomes from SyncShield's log; Predict answers what a customer is expected to
//! spend over a horizon, how sure that is, and by which model. Where none is loaded, or it cannot answer, it is the
//! recency-frequency-value estimate of [`domain::predictor`], and the answer says so.
//!
//! - An event is durable before it is acknowledged, and counts once.
//! - The same events in the same order give the same answers, also after a restart.
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

use kiki::clock::Clock;
use kiki::ids::Pseudonyms;
use kiki::runtime::{self, Listeners, MAX_MESSAGE};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::service::interceptor::InterceptedService;

pub use config::Config;
pub use error::Error;

use answers::Answers;
use follower::Follower;
use metrics::Metrics;
use rpc::Rpc;
use rpc::server::SyncValueServiceServer;
use store::Store;
use store::cache::Cache;
use store::models::Models;

/// The service's name, for health.
pub const SERVICE: &str = "kiki.syncvalue.v1.SyncValueService";

/// Serves until `shutdown`. The event log in `config.data` is read back first, and let go of before this returns.
///
/// # Errors
/// The event log cannot be used, or a listener failed.
pub async fn serve(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Result<(), Error> {
    let folder = config.data.clone();
    let opened = tokio::task::spawn_blocking(move || Store::open(&folder)).await;
    let store = Arc::new(opened.map_err(|e| Error::LogFailed(e.to_string()))??);
    let models = Models::open(&config.models, &config.data, config.model.as_deref())?;
    let metrics = runtime::Metrics::new();
    let own = Metrics::new(&metrics);
    let cache = Cache::new(config.cache_mib as usize * 1_048_576, own.evictions.clone());
    own.observed(&store::Applied::default(), &store);
    let follower = config.shield.clone().map(|shield| Follower::new(shield, store.clone(), own.clone()).run(shutdown.clone()));
    let follower = follower.map(tokio::spawn);
    let rpc = Rpc {
        store: store.clone(),
        models: Arc::new(models),
        answers: Answers { cache: Arc::new(cache), metrics: own.clone() },
        names: Pseudonyms::new(&config.pseudonym_key),
        horizon_days: config.horizon_days,
        clock,
        metrics: own,
        follows: config.shield.is_some(),
        shutdown: shutdown.clone(),
    };
    let service = SyncValueServiceServer::new(rpc).max_decoding_message_size(MAX_MESSAGE).max_encoding_message_size(MAX_MESSAGE);
    let routes = Routes::new(InterceptedService::new(service, kiki::caller::intercept));
    let served = runtime::serve_on_each_core(listeners, SERVICE, routes, axum::Router::new(), metrics, shutdown.clone()).await;
    shutdown.cancel(); // a listener that failed ends the follower too
    if let Some(follower) = follower {
        drop(follower.await);
    }
    store.close().await;
    served.map_err(Error::io("cannot serve"))
}
