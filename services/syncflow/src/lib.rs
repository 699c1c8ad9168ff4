//! SyncFlow: what do we bid, where, and is that platform healthy?
//!
//! A bid: [`domain::openrtb`] or gRPC -> [`domain::opportunity`] -> [`domain::targeting`] -> a prediction
//! ([`clients::predictor`], behind [`domain::breaker`]) -> [`domain::pricing`], divided by [`pacing`]'s multiplier and shaded by [`domain::shading`] -> guardrails and floor
//! ([`domain::auction`]) -> caps of the customer's impressions ([`frequency`]) -> a slot of a lease ([`clients::leases`]) -> [`domain::receipt`] -> the decision on its way to
//! the log ([`clients::recorder`]). [`engine`] is that path; [`notices`] is the way back.
//!
//! Invariants: spend stays below marks that the log has acknowledged; without a fresh policy and fresh campaigns nothing
//! is bid; decisions depend on the order of requests and on the clock given alone, except for a prediction or a lease
//! that comes too late, which is counted (and, on the system's clock, a prediction is held for as long as SyncValue says). Any instance takes any notice: nothing of a bid is kept but its receipt.
//!
//! Deliberately not here: truth about money (SyncShield's), the value model (SyncValue's).

pub mod breakers;
pub mod clients;
pub mod company;
pub mod config;
pub mod deadline;
pub mod domain;
pub mod engine;
pub mod error;
pub mod frequency;
mod http;
pub mod load;
pub mod metrics;
pub mod notices;
pub mod pacing;
mod rpc;
pub mod store;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use kiki::clock::Clock;
use kiki::ids::{HolderId, Key, Pseudonyms};
use kiki::runtime::Channel;
use kiki::runtime::{self, Listeners, Serving};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::Config;
pub use error::Error;

use breakers::Breakers;
use clients::aside::Aside;
use clients::leases::Leases;
use clients::predictor::Predictor;
use clients::recorder::Recorder;
use clients::replicas::Replicas;
use domain::receipt::ReceiptKeys;
use domain::shading::Markets;
use engine::Engine;
use frequency::Frequency;
use load::Load;
use notices::Notices;
use pacing::Pacing;

/// The service's full name, for health checks.
pub const SERVICE: &str = "kiki.syncflow.v1.SyncFlowService";

/// How long the last decisions and leases may take to reach the log at the end: two calls with their timeout.
const FLUSH: Duration = Duration::from_secs(10);

/// Serves until `shutdown`; then hands the last decisions to the log and gives the leases back.
///
/// # Errors
/// A configuration that cannot be, or a listener that failed.
pub fn serve(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Serving<Error> {
    Box::pin(run(listeners, config, clock, shutdown))
}

async fn run(listeners: Listeners, config: Config, clock: Clock, shutdown: CancellationToken) -> Result<(), Error> {
    let metrics = runtime::Metrics::new();
    // What runs beside the listeners stops after them, so that it can finish what they left.
    let stop = CancellationToken::new();
    let channel = |address: &str| runtime::channel(address);
    let aside = Aside::new()?;
    let value = {
        let _there = aside.enter();
        channel(&config.value)?
    };
    let channels = Channels { shield: channel(&config.shield)?, record: channel(&config.shield)?, value, asking: aside.handle() };
    let shield = clients::shield_over(channels.shield.clone());
    let send = move |request| {
        let mut shield = shield.clone();
        async move { shield.record(request).await.map(drop) }
    };
    let recording = metrics.record_calls("syncflow", clock.clone(), send)?;
    let parts = start(&config, channels, clock.clone(), &metrics, &stop)?;
    let routes = parts.routes(shutdown.clone());
    let web =
        http::router(http::Web { engine: parts.engine.clone(), notices: parts.notices.clone(), public_url: parts.public_url.clone() });
    let web = runtime::movable(web, &clock, &metrics, &listeners.trust);
    let served = runtime::serve(listeners, SERVICE, routes, web, metrics, shutdown).await;
    recording.finish().await;
    stop.cancel();
    for task in parts.tasks {
        drop(task.await); // a task that panicked has said so
    }
    if tokio::time::timeout(FLUSH, parts.engine.leases.give_all_back()).await.is_err() {
        tracing::warn!("leases were not given back within {} s and will expire", FLUSH.as_secs());
    }
    Ok(served?)
}

/// The ways to the other services.
#[derive(Debug, Clone)]
pub struct Channels {
    /// To SyncShield.
    pub shield: Channel,
    /// To SyncShield for decisions, whose batches would stand in the way of leases.
    pub record: Channel,
    /// To SyncValue.
    pub value: Channel,
    /// Where what asks SyncValue runs.
    pub asking: Handle,
}

/// The service without its listeners.
#[derive(Debug)]
pub struct Parts {
    /// The bid path.
    pub engine: Arc<Engine>,
    /// The way back.
    pub notices: Arc<Notices>,
    public_url: Arc<str>,
    /// What runs beside the listeners.
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Parts {
    /// The gRPC service, for any listener. `stop` ends the streams that have no end of their own.
    #[must_use]
    pub fn routes(&self, stop: CancellationToken) -> Routes {
        let (engine, notices, public_url) = (self.engine.clone(), self.notices.clone(), self.public_url.clone());
        let grpc = rpc::server::SyncFlowServiceServer::new(rpc::Service { engine, notices, public_url, stop, readers: rpc::readers() })
            .max_decoding_message_size(runtime::MAX_MESSAGE)
            .max_encoding_message_size(runtime::MAX_MESSAGE);
        Routes::new(grpc)
    }
}

/// Puts the service together and starts what runs beside its listeners, until `stop`.
///
/// # Errors
/// A configuration that cannot be.
pub fn start(
    config: &Config,
    channels: Channels,
    clock: Clock,
    registry: &runtime::Metrics,
    stop: &CancellationToken,
) -> Result<Parts, Error> {
    let (exchanges, boot) = (config::Exchanges::new(&config.venues).map_err(Error::Config)?, boot_id()?);
    let holder = config.holder.clone().unwrap_or_else(|| format!("flow-{boot}"));
    HolderId::parse(&holder).map_err(|error| Error::Config(error.to_string()))?;
    let (metrics, shield, load) = (metrics::Metrics::new(registry), clients::shield_over(channels.shield), Load::new());
    let breakers = breakers(config, &exchanges, seed(&boot), &clock, registry)?;
    let (predictor, predicting) = Predictor::new(channels.value, breakers.syncvalue(), clock.clone(), metrics.clone(), stop.clone());
    let (skew, pacing) = (Duration::from_millis(config.clock_skew_ms), Pacing::new(metrics.clone()));
    let leases = Leases::new(shield.clone(), holder.clone(), boot.clone(), skew, pacing.clone(), metrics.clone());
    metrics::Floating::register(registry, leases.clone(), clock.clone());
    let (replicas, recorder, markets) = (Replicas::new(metrics.clone()), Recorder::new(), Arc::new(Markets::default()));
    metrics::register(registry, &load, &recorder);
    // The holder may be the same after a restart, and batches count from 1 again: the source is another each time.
    let source = format!("{holder:.46}.{boot}");
    let mut tasks = vec![
        channels.asking.spawn(predicting),
        tokio::spawn(replicas.clone().run(shield.clone(), stop.clone())),
        tokio::spawn(recorder.clone().run(channels.record, source, stop.clone(), FLUSH)),
    ];
    let (frequency, counting) = frequency(config, &replicas, &metrics, stop)?;
    tasks.extend(counting.map(tokio::spawn));
    // On virtual time what happens depends on the order of bids alone, and a task ticks in real time.
    if matches!(clock, Clock::System) {
        tasks.push(tokio::spawn(leases.clone().keep_tended(clock.clone(), stop.clone())));
    }
    let (receipts, pseudonyms) = (ReceiptKeys::new(&config.receipt_key, &[]), Pseudonyms::new(&config.pseudonym_key));
    let notices = Arc::new(Notices {
        shield,
        receipts: receipts.clone(),
        exchanges: exchanges.clone(),
        pseudonyms: pseudonyms.clone(),
        leases: leases.clone(),
        frequency: frequency.clone(),
        pacing: pacing.clone(),
        markets: markets.clone(),
        breakers: breakers.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        company: notices::company(&clock),
    });
    let engine = Arc::new(Engine {
        exchanges,
        breakers,
        load,
        replicas,
        leases,
        frequency,
        pacing,
        markets,
        predictor,
        multipliers: config::multipliers(&config.venues).map_err(Error::Config)?,
        recorder,
        record: config.record,
        receipts,
        pseudonyms,
        clock,
        metrics,
        notice_window: Duration::from_secs(config.notice_window_secs),
        network_allowance: Duration::from_millis(config.deadlines.network_allowance_ms),
        deadline_max: Duration::from_millis(config.deadlines.deadline_max_ms),
        memo: engine::Memo::default(),
    });
    Ok(Parts { engine, notices, public_url: config.public_url.trim_end_matches('/').into(), tasks })
}

/// The circuit breakers, with their metrics.
fn breakers(
    config: &Config,
    exchanges: &config::Exchanges,
    seed: u64,
    clock: &Clock,
    registry: &runtime::Metrics,
) -> Result<Arc<Breakers>, Error> {
    let surges = config::surges(&config.venues, exchanges).map_err(Error::Config)?;
    let breakers = Arc::new(Breakers::new(exchanges.named_platforms().into_iter(), surges, seed, clock.clone()));
    metrics::Breaking::register(registry, breakers.clone(), clock.clone());
    Ok(breakers)
}

/// Frequency caps, and the task that keeps them in Redis, where the configuration names one.
fn frequency(
    config: &Config,
    replicas: &Arc<Replicas>,
    metrics: &metrics::Metrics,
    stop: &CancellationToken,
) -> Result<(Arc<Frequency>, Option<impl Future<Output = ()> + Send + 'static>), Error> {
    let window = Duration::from_secs(config.notice_window_secs);
    let redis = |url: &String| store::redis::Redis::new(url, window, metrics.frequency_unshared.clone(), stop.clone());
    let (counter, counting) = config.frequency.as_ref().map(redis).transpose().map_err(Error::Config)?.unzip();
    let shared = counter.map(|counter| Box::new(counter) as Box<dyn store::Counter>);
    let budget = Duration::from_millis(config.frequency_budget_ms);
    Ok((Frequency::new(shared, budget, replicas.clone(), metrics.clone()), counting))
}

/// What draws the jitter of this process's pauses, so that several do not come back at once.
fn seed(boot: &str) -> u64 {
    u64::from_str_radix(boot, 16).unwrap_or_default() // sixteen hexadecimal digits
}

/// Sixteen random hexadecimal digits: this life of the process.
fn boot_id() -> Result<String, Error> {
    let random = Key::random().map_err(|error| Error::Config(format!("no randomness: {error}")))?;
    Ok(random.bytes()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
}
