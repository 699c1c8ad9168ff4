//! How every service listens: gRPC with stated limits, health and reflection; HTTP; metrics; and a drain that ends. Beside it
//! what both ends of a call use: a channel, and a codec of bytes.
//!
//! Nothing here is generic over the service, so that each binary compiles it once.

mod accept;
mod arrival;
mod bodies;
mod calls;
mod channels;
mod clock;
mod cores;
mod health;
mod identified;
mod program;
mod raw;
pub mod series;
mod settings;
mod shares;
mod traces;
mod trust;
mod web;

use std::future::Future;
use std::io::Write as _;
use std::pin::Pin;
use std::time::Duration;

use axum::routing::get;
use prometheus::process_collector::ProcessCollector;
use prometheus::{Encoder as _, IntGaugeVec, Opts, Registry, TextEncoder};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use calls::Calls;

use crate::access;
use crate::clock::Clock;

pub use accept::{MAX_CONNECTIONS, Peer};
pub use channels::{Calling, Channel, bearer, call_with, channel};
pub use clock::movable;
pub use health::{health, health_at};
pub use identified::caller_of;
pub use program::{Common, program};
pub use raw::Raw;
pub use settings::{reading, settings};
pub use shares::{Reader, Readers};
pub use traces::{TraceArgs, trace};
pub use trust::{ApiKey, Credentials, KeyLine, Plaintext, Trust, TrustArgs, TrustError};

/// The longest message that a service reads or writes: a batch of 4,096 decisions of a few hundred bytes, with room.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Streams of one connection; 4 x the batch of notices that the reference client keeps in flight.
pub const MAX_STREAMS: u32 = 1_024;
/// Bytes of one HTTP/2 frame: a batch of records is some hundred kilobytes, and each frame of it a write. A frame is gathered until it is
/// whole before anything else bounds it, so it is not longer: see [`MAX_CONNECTIONS`].
const MAX_FRAME: u32 = 64 << 10;
/// Bytes of requests that a connection may send ahead of what reads them: with one for each call that may be under way 2 GB, and a thousandth
/// of a second there and back leaves 256 MB a second.
const WINDOW: u32 = 256 << 10;
/// Bytes of a request's headers: four times what a proxy with its traces and a token adds.
const MAX_HEADERS: u32 = 16 << 10;
/// How often a connection is asked whether it is there; where it does not answer in 20 s it is not.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a connection lives: then clients look up addresses and show certificates anew, and calls on it may end.
const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// How long a call may take until its answer begins; the longest is that of a month that is closed.
const CALL: Duration = Duration::from_secs(300);
/// Connections that wait to be accepted, where the kernel allows so many (`net.core.somaxconn`, 4,096 by default). Beyond it clients lose
/// connections that they think they have, and the 128 that tokio leaves waiting are soon there where all clients come back at once.
const BACKLOG: u32 = 4_096;
/// Streams that a client may reset before they are taken up, on one connection; then it is closed (CVE-2023-44487).
const RESET_STREAMS: usize = 64;
/// How long open calls and streams may go on after a shutdown was asked for.
pub const DRAIN: Duration = Duration::from_secs(5);

/// What a service listens on.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: TcpListener,
    /// The service's own HTTP face together with `GET /metrics`.
    pub http: TcpListener,
    /// Whom it believes to be whom.
    pub trust: Trust,
}

impl Listeners {
    /// Binds both addresses, for callers that are taken at their word.
    ///
    /// # Errors
    /// The address that could not be bound, or that is beyond loopback.
    pub async fn bind(grpc: &str, http: &str) -> std::io::Result<Self> {
        Self::bind_with(grpc, http, Trust::default()).await
    }

    /// Binds both addresses.
    ///
    /// # Errors
    /// The address that could not be bound, or that is beyond loopback without TLS and nobody said that it may.
    pub async fn bind_with(grpc: &str, http: &str, trust: Trust) -> std::io::Result<Self> {
        let bind = async |address: &str| {
            bind(address).await.map_err(|e| std::io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
        };
        let (grpc, http) = (bind(grpc).await?, bind(http).await?);
        trust.listen(grpc.local_addr()?, http.local_addr()?)?;
        Ok(Self { grpc, http, trust })
    }
}

/// Listens on the first address of that name that can be had.
async fn bind(address: &str) -> std::io::Result<TcpListener> {
    let listen = |address: std::net::SocketAddr| {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?; // as a restart finds connections of the life before
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    let mut failed = None;
    for address in tokio::net::lookup_host(address).await? {
        match listen(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| std::io::ErrorKind::AddrNotAvailable.into()))
}

/// Binds a service's addresses as it was told; from now on the process calls with what it was given, too.
///
/// # Errors
/// The setting that cannot be, or an address that could not be bound.
pub async fn listen(grpc: &str, http: &str, trust: &TrustArgs) -> std::io::Result<Listeners> {
    let believed = trust.open()?;
    call_with(&trust.credentials)?;
    if believed.takes_all_at_their_word() {
        tracing::warn!("callers are taken at their word: neither KIKI_IDENTITIES nor KIKI_API_KEYS is given");
    }
    Listeners::bind_with(grpc, http, believed).await
}

/// A service's metrics: one registry each, so that four services in one process stay apart.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Where the service registers its own.
    pub registry: Registry,
    calls: Calls,
    connections: accept::Counted,
}

impl Metrics {
    /// A registry with what is counted of every RPC, and of the process.
    ///
    /// # Panics
    /// Never: the names are constant and the registry is new.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let calls = Calls::new(&registry).unwrap_or_else(|e| unreachable!("constant metrics in a new registry: {e}"));
        let connections = accept::Counted::new(&registry).unwrap_or_else(|e| unreachable!("constant metrics in a new registry: {e}"));
        let process = ProcessCollector::for_self();
        registry.register(Box::new(process)).unwrap_or_else(|e| unreachable!("new registry: {e}"));
        Self { registry, calls, connections }
    }

    /// Records calls that are refused or leave no other record, by `send`, until the recording is finished.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn record_calls<F>(
        &self,
        service: &str,
        clock: Clock,
        send: impl Fn(crate::pb::syncshield::v1::RecordRequest) -> F + Send + Sync + 'static,
    ) -> std::io::Result<Recording>
    where
        F: Future<Output = Result<(), tonic::Status>> + Send + 'static,
    {
        let (accesses, recorder) = access::queue(service, REFUSALS, self.calls.unrecorded())?;
        self.calls.note_to(accesses, clock);
        Ok(Recording::start(recorder, send))
    }

    /// Registers a metric and gives it back.
    ///
    /// # Panics
    /// Where the name is taken: a fault that any start shows.
    pub fn add<M: prometheus::core::Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.unwrap_or_else(|e| panic!("metric: {e}"));
        self.registry.register(Box::new(metric.clone())).unwrap_or_else(|e| panic!("metric: {e}"));
        metric
    }

    /// Says which version of a service this is, by its full name.
    fn built(&self, service_name: &str) {
        let service = service_name.split('.').nth(1).unwrap_or(service_name);
        let built = IntGaugeVec::new(Opts::new("kiki_build_info", "1, with the service and its version"), &["service", "version"]);
        self.add(built).with_label_values(&[service, env!("CARGO_PKG_VERSION")]).set(1);
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = Vec::new();
        match TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            Ok(()) => String::from_utf8_lossy(&out).into_owned(),
            Err(e) => format!("# {e}\n"),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// How far apart records of refusals are, so that a flood of them is none of records.
const REFUSALS: Duration = Duration::from_secs(1);
/// How long the end waits for the log to take what is not recorded yet.
const LAST_RECORDS: Duration = Duration::from_secs(5);

/// Accesses that are being recorded.
#[derive(Debug)]
pub struct Recording {
    last: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Recording {
    /// Starts to record by `send`.
    pub fn start<F>(
        recorder: access::Recorder,
        send: impl Fn(crate::pb::syncshield::v1::RecordRequest) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), tonic::Status>> + Send + 'static,
    {
        let last = CancellationToken::new();
        let task = tokio::spawn(recorder.run(last.clone(), send));
        Self { last, task }
    }

    /// Records what is left, for a few seconds at the most.
    pub async fn finish(self) {
        self.last.cancel();
        if tokio::time::timeout(LAST_RECORDS, self.task).await.is_err() {
            tracing::error!("the log did not take the last accesses in time: they are lost");
        }
    }
}

/// A service that serves, until it ends. Boxed, so that it is compiled where it is written: an async function's states are compiled again
/// by each binary and test that awaits it, and a service's are most of its code.
pub type Serving<E> = Pin<Box<dyn Future<Output = Result<(), E>> + Send>>;

/// Serves gRPC and HTTP until `shutdown`, then drains for at most [`DRAIN`].
///
/// # Errors
/// A listener that failed.
pub fn serve(
    listeners: Listeners,
    service_name: &'static str,
    routes: Routes,
    http: axum::Router,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Serving<std::io::Error> {
    Box::pin(serve_on(Threads::Callers, listeners, service_name, routes, http, metrics, shutdown))
}

/// As [`serve`], with gRPC on a thread of its own for each core: for calls that take microseconds, where it costs less CPU
/// (figures stand at the head of `runtime/cores.rs`).
///
/// # Errors
/// A listener or a thread that failed.
pub fn serve_on_each_core(
    listeners: Listeners,
    service_name: &'static str,
    routes: Routes,
    http: axum::Router,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> Serving<std::io::Error> {
    Box::pin(serve_on(Threads::EachCore, listeners, service_name, routes, http, metrics, shutdown))
}

/// Where gRPC's calls run.
enum Threads {
    /// On the runtime of whoever serves.
    Callers,
    EachCore,
}

async fn serve_on(
    threads: Threads,
    listeners: Listeners,
    service_name: &'static str,
    routes: Routes,
    http: axum::Router,
    metrics: Metrics,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    metrics.built(service_name);
    allow_connections();
    let Listeners { grpc: grpc_listener, http: http_listener, trust } = listeners;
    if let Some(tls) = trust.grpc_tls() {
        metrics.add(Ok(tls.expiry()));
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(service_name, tonic_health::ServingStatus::Serving).await;
    let reflection = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(crate::pb::DESCRIPTORS);
    let v1 = reflection().build_v1().map_err(std::io::Error::other)?;
    // Python's grpcio-reflection and k6 speak only this one.
    let v1alpha = reflection().build_v1alpha().map_err(std::io::Error::other)?;
    let grpc = server(metrics.calls.clone().trusting(trust.clone()));
    let grpc = { grpc }.add_routes(routes.add_service(health_service).add_service(v1).add_service(v1alpha));
    let (tls, places, stop) = (trust.grpc_tls(), metrics.connections.places("grpc"), shutdown.clone());
    let grpc = async move {
        match threads {
            Threads::EachCore => cores::serve(grpc_listener, tls, places, grpc, stop).await,
            Threads::Callers => {
                let connections = accept::accept(grpc_listener, tls, places, stop.clone());
                grpc.serve_with_incoming_shutdown(connections, stop.cancelled_owned()).await.map_err(std::io::Error::other)
            }
        }
    };
    let text = metrics.clone();
    let app = http.route("/metrics", get(move || std::future::ready(text.text())));
    let connections = accept::accept(http_listener, trust.http_tls(), metrics.connections.places("http"), shutdown.clone());
    let web = web::serve(connections, app, shutdown.clone());
    let both = async {
        let (grpc, ()) = tokio::join!(grpc, web);
        grpc
    };
    let drained = async {
        shutdown.cancelled().await;
        health.set_service_status(service_name, tonic_health::ServingStatus::NotServing).await;
        tokio::time::sleep(DRAIN).await; // the bound on open streams, not a wait for anything
    };
    let served = tokio::select! {
        result = both => result,
        () = drained => Ok(()),
    };
    drop(tokio::task::spawn_blocking(traces::flush).await); // it waits for the collector
    served
}

/// gRPC with its limits.
fn server(calls: Calls) -> tonic::transport::Server<tower::layer::util::Stack<Calls, tower::layer::util::Identity>> {
    tonic::transport::Server::builder()
        .layer(calls)
        .timeout(CALL)
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_connection_age(CONNECTION_AGE)
        .max_connection_age_grace(CONNECTION_AGE)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS))
        .http2_max_header_list_size(MAX_HEADERS)
}

/// As many file descriptors as the system lets the process have: shells give 1,024.
fn allow_connections() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard); // what there is does for fewer
    }
}

/// Cancels the token on SIGINT or SIGTERM.
pub fn shutdown_on_signal(token: CancellationToken) {
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
            (Ok(mut interrupt), Ok(mut terminate)) => {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
            }
            _ => std::future::pending().await,
        }
        token.cancel();
    });
}

/// How a program ends: with an error it says it, as text.
pub fn exit_code<E: std::fmt::Display>(ended: Result<(), E>) -> std::process::ExitCode {
    match ended {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(std::io::stderr(), "error: {error}")); // whoever reads it may be gone
            std::process::ExitCode::FAILURE
        }
    }
}

/// Sets up tracing from `RUST_LOG`, warnings by default, on standard error.
pub fn init_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    // A second call (tests) keeps the first's.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
}
