//! SyncShield: may we spend this, and what was done, provably?
//!
//! Invariants (each is a condition of [`domain::state::State::apply`] or of [`store`], and tested):
//! no grant takes settled + held + leased above a limit; a reservation holds all its scopes or none; one idempotency
//! key has one effect; acknowledged means durable; expiry frees no money that may have been spent; a stale epoch is
//! refused; after a failed fsync nothing more is taken.
//!
//! Deliberately not here: prices, predictions and invoices.

pub mod audit;
pub mod config;
pub mod domain;
pub mod error;
mod http;
mod rpc;
pub mod store;

use kiki::clock::Clock;
use kiki::pb::syncshield::v1::sync_shield_service_server::SyncShieldServiceServer;
use kiki::runtime::{self, Listeners, Metrics};
use tokio_util::sync::CancellationToken;
use tonic::service::interceptor::InterceptedService;

pub use config::Config;
pub use error::Error;

/// The service's full name, for health checks.
pub const SERVICE: &str = "kiki.syncshield.v1.SyncShieldService";

/// Recovers the log and serves until `shutdown`; then signs a last checkpoint and closes the log.
///
/// # Errors
/// A log that cannot be recovered, or a listener that failed.
pub async fn serve(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Result<(), Error> {
    let (engine, log_id) = (config.store.clone().unwrap_or(store::Store::Files(None)), config.log_id.clone());
    let paths = match &engine {
        store::Store::Files(Some(dir)) => store::Paths::new(dir),
        _ => store::Paths::new(&config.data),
    };
    let open = move || store::Log::open_in(&engine, &paths, &log_id, clock);
    let log = tokio::task::spawn_blocking(open).await.map_err(|_| Error::Stopped)??;
    let metrics = Metrics::new();
    let service = rpc::Service::new(log.clone(), &config, shutdown.clone());
    let size = metrics.add(prometheus::IntGauge::new("syncshield_log_leaves", "durable leaves of the log"));
    let signing = tokio::spawn(keep_signed(log.clone(), size, shutdown.clone()));
    let grpc = SyncShieldServiceServer::new(service)
        .max_decoding_message_size(runtime::MAX_MESSAGE)
        .max_encoding_message_size(runtime::MAX_MESSAGE);
    let routes = tonic::service::Routes::new(InterceptedService::new(grpc, kiki::caller::intercept));
    let served = runtime::serve(listeners, SERVICE, routes, http::router(log.clone()), metrics, shutdown).await;
    drop(signing.await);
    log.close().await;
    Ok(served?)
}

/// Signs a checkpoint each second in which the log grew, so that followers never wait long for one.
async fn keep_signed(log: store::Log, size: prometheus::IntGauge, shutdown: CancellationToken) {
    let mut committed = log.committed();
    let mut tick = tokio::time::interval(std::time::Duration::from_secs(1));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let leaves = *committed.borrow_and_update();
        size.set(i64::try_from(leaves).unwrap_or(i64::MAX));
        let signed = log.newest_checkpoint().map_or(0, |signed| signed.size);
        if leaves > signed
            && let Err(error) = log.checkpoint(leaves).await
        {
            tracing::warn!(%error, "no checkpoint");
        }
    }
}
