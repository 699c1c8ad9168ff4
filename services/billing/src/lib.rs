//! Billing: what does the client owe, and how can they check it themselves?
//!
//! It follows the log leaf by leaf and believes what a signed checkpoint covers and its own hashes
//! confirm; from that it draws up each client's month, and hands out a bundle from which anyone who
//! has the log's public key can do the same offline.
//!
//! Invariants, each tested:
//! - every settlement and conversion is on exactly one invoice;
//! - the fold and its cursor move in one transaction;
//! - of several Billings on one ledger one folds and all serve;
//! - invoice numbers have no gaps, and a number is taken together with the bytes that bear it;
//! - an invoice's bytes never change once it has a number, and their digest is in the log;
//! - a bundle is handed out only when it verifies;
//! - a closing is invoiced once and a number is used once, also by a ledger that was lost or restored:
//!   what the log holds of them is taken;
//! - what could not be proven takes no number: a bundle holds at most 1,048,576 leaves and 1 GiB
//!   ([`domain::bundle::limits`]), and the baseline's evidence is a leaf that the client may see.
//!
//! Who sees or makes a client's documents is on record among the client's leaves ([`kiki::access`]).
//!
//! It stops, rather than guesses, at a leaf that it cannot read: calls then name that leaf and its
//! client, and so does the metric `kiki_billing_unreadable_leaf`.
//!
//! What happens to a final invoice is in the log as well: payments, disputes and the rest, and the
//! double-entry ledger, are a fold of it ([`domain::lifecycle`], [`domain::ledger`]).
//!
//! Deliberately not here: taking money, and what the fee is computed *from*: attribution is
//! [`kiki::attribution`], and the log is SyncShield's.

pub mod billing;
pub mod bundle;
pub mod clients;
pub mod config;
pub mod domain;
pub mod error;
pub mod follower;
pub mod metrics;
mod rpc;
pub mod store;

use std::time::Duration;

use kiki::clock::Clock;
use kiki::pb::billing::v1::billing_service_server::BillingServiceServer;
use kiki::runtime::{self, Listeners, Recording, Serving};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use bundle::verify_bundle;
pub use config::Config;
pub use domain::bundle::{Finding, Place, Report};
pub use error::Error;

/// The service's full name, for health checks.
pub const SERVICE: &str = "kiki.billing.v1.BillingService";

/// Opens the ledger, follows the log into it and serves until `shutdown`.
///
/// # Errors
/// A ledger or key that cannot be read, or a listener that failed.
pub fn serve(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Serving<Error> {
    Box::pin(run(listeners, config, clock, shutdown))
}

async fn run(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Result<(), Error> {
    let key = config.key()?;
    let store = store::Store::open(&config.address()).await?;
    let shield = clients::Shield::new(&config.shield, key.name())?;
    let registry = runtime::Metrics::new();
    let metrics = metrics::Metrics::new(&registry);
    let (progress, followed) = watch::channel(follower::Progress::default());
    // Without a pause: what was given out is on record by the time that somebody asks.
    let (accesses, recorder) = kiki::access::queue("billing", Duration::ZERO, metrics.refused_accesses.clone())?;
    let recorder_of = shield.clone();
    let send = move |accesses| {
        let shield = recorder_of.clone();
        async move { shield.record_accesses(accesses).await }
    };
    let documents = Recording::start(recorder, send.clone());
    let calls = registry.record_calls("billing", clock.clone(), send)?;
    // Webhooks of payment providers will be served here; until then metrics alone.
    let http = runtime::movable(axum::Router::new(), &clock, &registry, &listeners.trust);
    let billing = billing::Billing::new(store.clone(), shield.clone(), key.clone(), clock, followed, metrics.clone(), accesses);
    let billing = billing.requiring_approval(config.approval_required).with_whole_bundles_up_to(config.whole_bundle_max);
    billing.count().await?;
    billing.count_course().await?;
    let following =
        follower::Following { store: store.clone(), shield, key, progress, metrics, billing: billing.clone(), uncredited: true.into() };
    let follower = tokio::spawn(following.run(shutdown.clone()));
    let service =
        BillingServiceServer::new(billing).max_decoding_message_size(runtime::MAX_MESSAGE).max_encoding_message_size(runtime::MAX_MESSAGE);
    let routes = Routes::new(service);
    let served = runtime::serve(listeners, SERVICE, routes, http, registry, shutdown.clone()).await;
    shutdown.cancel();
    let followed = follower.await;
    tokio::join!(documents.finish(), calls.finish());
    store.close().await;
    served?;
    followed.map_err(|_| Error::Stopped)
}
