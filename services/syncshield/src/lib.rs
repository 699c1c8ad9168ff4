//! SyncShield: may we spend this, and what was done, provably?
//!
//! Invariants (each is a condition of [`domain::state::State::apply`] or of [`store`], and tested):
//! no grant takes settled + held + leased above a limit of any of its scopes; one idempotency
//! key has one effect; acknowledged means durable; expiry frees no money that may have been spent; a stale epoch is
//! refused; after a failed fsync nothing more is taken.
//!
//! Deliberately not here: prices, predictions and invoices.

pub mod audit;
pub mod config;
pub mod domain;
pub mod error;
mod http;
mod metrics;
mod rpc;
pub mod shadow;
pub mod store;
pub mod subjects;
pub mod witness;

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::Clock;
use kiki::pb::syncshield::v1::sync_shield_admin_service_server::SyncShieldAdminServiceServer;
use kiki::pb::syncshield::v1::sync_shield_service_server::{SyncShieldService as _, SyncShieldServiceServer};
use kiki::runtime::{self, Listeners, Metrics, Serving};
use tokio_util::sync::CancellationToken;

pub use config::Config;
pub use error::Error;
pub use rpc::CAMPAIGNS_A_MESSAGE;
use store::tiles::Publisher;
use subjects::Subjects;

/// How long a shutdown waits for the last tiles: a second's leaves take less than a second.
const LAST_TILES: Duration = Duration::from_secs(5);

/// The service's full name, for health checks.
pub const SERVICE: &str = "kiki.syncshield.v1.SyncShieldService";

/// The longest answer: a proof of 1,048,576 leaves scattered over the log, at 34 bytes a hash, and as many again.
const MAX_ANSWER: usize = 72 << 20;

/// Recovers the log and serves until `shutdown`; then signs a last checkpoint and closes the log.
///
/// # Errors
/// A log that cannot be recovered, or a listener that failed.
pub fn serve(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Serving<Error> {
    Box::pin(run(listeners, config, clock, shutdown))
}

async fn run(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Result<(), Error> {
    let store = config.store.clone().unwrap_or(store::Store::Files(None));
    let paths = store::Paths::new(store.folder().unwrap_or(&config.data)).with_signed_size(config.signed_size.clone());
    let (opened, log_id, now) = (paths.clone(), config.log_id.clone(), clock.clone());
    let open = move || store::Log::open_in(&store, &opened, &log_id, now);
    let log = tokio::task::spawn_blocking(open).await.map_err(|_| Error::Stopped)??;
    let lease_ttl = Duration::from_secs(config.lease_ttl_secs);
    log.run(move |ledger| {
        ledger.wait_for_holders(lease_ttl);
        Ok(())
    })
    .await?;
    let metrics = Metrics::new();
    let gauges = metrics::LogGauges::new(&metrics, &log);
    metrics.add(Ok(log.shadow().metric()));
    let budgets = tokio::spawn(metrics::Budgets::new(&metrics).keep(log.clone(), shutdown.clone()));
    let signing = tokio::spawn(keep_signed(log.clone(), gauges, shutdown.clone()));
    let witnessed = witness::Gauges::new(&metrics);
    for at in config.witnesses.clone() {
        // It ends with `shutdown`, and has nothing to finish.
        tokio::spawn(witness::keep_cosigned(log.clone(), at, witnessed.clone(), shutdown.clone()));
    }
    let publishing = tokio::spawn(keep_published(Publisher::new(log.clone(), &paths), shutdown.clone()));
    let subjects = subjects(&config);
    // Before anybody can ask: what a crash left of an erasure is recorded, or nothing starts.
    subjects.finish(&log).await?;
    let service = Arc::new(rpc::Service::new(log.clone(), subjects, &config, shutdown.clone()));
    let routes = routes_of(&log, service.clone(), &config);
    let own = service.clone();
    let send = move |request| {
        let own = own.clone();
        async move { own.record(tonic::Request::new(request)).await.map(drop) }
    };
    let recording = metrics.record_calls("syncshield", clock.clone(), send)?;
    let web = metrics.identified(http::router(log.clone(), service), &listeners.trust);
    let web = runtime::movable(web, &clock, &metrics, &listeners.trust);
    let served = runtime::serve(listeners, SERVICE, routes, web, metrics, shutdown).await;
    recording.finish().await;
    drop((signing.await, budgets.await));
    log.close().await;
    publish_the_last(publishing).await;
    Ok(served?)
}

/// Writes tiles behind each new checkpoint, in its own time.
async fn keep_published(mut publisher: Publisher, shutdown: CancellationToken) -> Publisher {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        if let Some(Err(error)) = shutdown.run_until_cancelled(publisher.publish()).await {
            tracing::warn!(%error, "no tiles");
        }
    }
    publisher
}

/// The files are to end at the last checkpoint. Not for longer than this: what is missing is written at the next start.
async fn publish_the_last(publishing: tokio::task::JoinHandle<Publisher>) {
    if let Ok(mut publisher) = publishing.await
        && !matches!(tokio::time::timeout(LAST_TILES, publisher.publish()).await, Ok(Ok(())))
    {
        tracing::warn!("the tiles end before the last checkpoint");
    }
}

/// The gRPC service over a log, for any listener.
#[must_use]
pub fn routes(log: &store::Log, config: &Config, shutdown: CancellationToken) -> tonic::service::Routes {
    routes_of(log, Arc::new(rpc::Service::new(log.clone(), subjects(config), config, shutdown)), config)
}

fn subjects(config: &Config) -> Subjects {
    let store = config.store.clone().unwrap_or(store::Store::Files(None));
    Subjects::of(&store, store.folder().unwrap_or(&config.data), &config.log_id)
}

fn routes_of(log: &store::Log, service: Arc<rpc::Service>, config: &Config) -> tonic::service::Routes {
    let grpc =
        SyncShieldServiceServer::from_arc(service).max_decoding_message_size(runtime::MAX_MESSAGE).max_encoding_message_size(MAX_ANSWER);
    let admin = SyncShieldAdminServiceServer::new(rpc::Admin::new(log.clone(), config.peer_logs.clone()))
        .max_decoding_message_size(runtime::MAX_MESSAGE);
    tonic::service::Routes::new(grpc).add_service(admin)
}

/// Signs a checkpoint each second in which the log grew, so that followers never wait long for one.
async fn keep_signed(log: store::Log, gauges: metrics::LogGauges, shutdown: CancellationToken) {
    let mut committed = log.committed();
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    while shutdown.run_until_cancelled(tick.tick()).await.is_some() {
        let leaves = *committed.borrow_and_update();
        let signed = log.newest_checkpoint().map_or(0, |signed| signed.size);
        if leaves > signed
            && let Err(error) = log.checkpoint(leaves).await
        {
            tracing::warn!(%error, "no checkpoint");
        }
        gauges.set(&log, leaves);
    }
}
