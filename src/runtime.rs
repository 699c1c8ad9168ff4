//! How every service listens: gRPC with stated limits, health and reflection; HTTP; metrics; and a drain that ends. Beside it
//! what both ends of a call use: a channel, and a codec of bytes.
//!
//! Nothing here is generic over the service, so that each binary compiles it once.

#![allow(clippy::disallowed_methods)] // times real work

mod arrival;
mod cores;
mod raw;
pub mod series;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http;
use axum::routing::get;
use prometheus::{Encoder as _, HistogramOpts, HistogramVec, Registry, TextEncoder};
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tower::{Layer, Service};

pub use arrival::Arrivals;
pub use raw::Raw;

/// The longest message that a service reads or writes: a batch of 4,096 decisions of a few hundred bytes, with room.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Streams of one connection; 4 x the batch of notices that the reference client keeps in flight.
pub const MAX_STREAMS: u32 = 1_024;
/// Bytes of one HTTP/2 frame: a batch of records is some hundred kilobytes, and each frame of it a write and a read.
const MAX_FRAME: u32 = 1 << 20;
/// How long open calls and streams may go on after a shutdown was asked for.
pub const DRAIN: Duration = Duration::from_secs(5);

/// What a service listens on.
#[derive(Debug)]
pub struct Listeners {
    /// gRPC.
    pub grpc: TcpListener,
    /// The service's own HTTP face together with `GET /metrics`.
    pub http: TcpListener,
}

impl Listeners {
    /// Binds both addresses.
    ///
    /// # Errors
    /// The address that could not be bound.
    pub async fn bind(grpc: &str, http: &str) -> std::io::Result<Self> {
        let bind = async |address: &str| {
            TcpListener::bind(address).await.map_err(|e| std::io::Error::new(e.kind(), format!("cannot listen on {address}: {e}")))
        };
        Ok(Self { grpc: bind(grpc).await?, http: bind(http).await? })
    }
}

/// A service's metrics: one registry each, so that four services in one process stay apart.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Where the service registers its own.
    pub registry: Registry,
    latency: HistogramVec,
}

/// Buckets from 25 us to 5 s: bids are in the first ten, closing a month in the last.
const BUCKETS: [f64; 17] =
    [25e-6, 50e-6, 100e-6, 200e-6, 300e-6, 500e-6, 750e-6, 1e-3, 2e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.5, 1.0, 5.0];

impl Metrics {
    /// A registry with the latency histogram of every RPC.
    ///
    /// # Panics
    /// Never: the names are constant and the registry is new.
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let options =
            HistogramOpts::new("kiki_rpc_duration_seconds", "time from the call's head to its answer's, by RPC").buckets(BUCKETS.to_vec());
        let latency = HistogramVec::new(options, &["rpc"]).unwrap_or_else(|e| unreachable!("constant metric: {e}"));
        registry.register(Box::new(latency.clone())).unwrap_or_else(|e| unreachable!("new registry: {e}"));
        Self { registry, latency }
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
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status(service_name, tonic_health::ServingStatus::Serving).await;
    let reflection = || tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(crate::pb::DESCRIPTORS);
    let v1 = reflection().build_v1().map_err(std::io::Error::other)?;
    // Python's grpcio-reflection and k6 speak only this one.
    let v1alpha = reflection().build_v1alpha().map_err(std::io::Error::other)?;
    let grpc = tonic::transport::Server::builder()
        .layer(Timed(metrics.latency.clone()))
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_max_header_list_size(16 << 10)
        .add_routes(routes.add_service(health_service).add_service(v1).add_service(v1alpha));
    let (listener, stop) = (listeners.grpc, shutdown.clone());
    let grpc = async move {
        match threads {
            Threads::EachCore => cores::serve(listener, grpc, stop).await,
            Threads::Callers => {
                let incoming = TcpIncoming::from(listener).map(|accepted| accepted.map(arrival::Connection::new));
                grpc.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await.map_err(std::io::Error::other)
            }
        }
    };
    let text = metrics.clone();
    let app = http.route("/metrics", get(move || std::future::ready(text.text())));
    let web = axum::serve(arrival::Listener(listeners.http), app.into_make_service_with_connect_info::<Arrivals>())
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let both = async {
        let (grpc, web) = tokio::join!(grpc, async move { web.await });
        grpc.and(web)
    };
    let drained = async {
        shutdown.cancelled().await;
        health.set_service_status(service_name, tonic_health::ServingStatus::NotServing).await;
        tokio::time::sleep(DRAIN).await; // the bound on open streams, not a wait for anything
    };
    tokio::select! {
        result = both => result,
        () = drained => Ok(()),
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

/// Sets up tracing from `RUST_LOG`, warnings by default, on standard error.
pub fn init_tracing() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    // A second call (tests) keeps the first's.
    drop(tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init());
}

#[derive(Clone)]
struct Timed(HistogramVec);

impl<S> Layer<S> for Timed {
    type Service = TimedService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TimedService { inner, latency: self.0.clone() }
    }
}

#[derive(Clone)]
struct TimedService<S> {
    inner: S,
    latency: HistogramVec,
}

impl<S, B> Service<http::Request<B>> for TimedService<S>
where
    S: Service<http::Request<B>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        // Paths of services that exist: reflection's own list bounds the label's values only if unknown paths share one.
        let rpc = request.uri().path();
        let histogram = rpc.starts_with("/kiki.").then(|| self.latency.with_label_values(&[rpc]));
        let start = Instant::now();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            if let Some(histogram) = histogram {
                histogram.observe(start.elapsed().as_secs_f64());
            }
            answer
        })
    }
}

/// A channel to another service: connects when first used, and again after a failure.
///
/// # Errors
/// `address` is no URI.
pub fn channel(address: &str) -> Result<tonic::transport::Channel, tonic::transport::Error> {
    Ok(tonic::transport::Endpoint::from_shared(address.to_owned())?
        .tcp_nodelay(true)
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .connect_lazy())
}
