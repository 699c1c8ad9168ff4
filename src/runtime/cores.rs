//! gRPC on a thread with a runtime of its own for each core. Connections are accepted in one place and handed round; each
//! stays on its thread, so that no task is stolen or woken across cores.
//!
//! Measured with `kiki bench predict` (SyncValue's Predict, 4 connections of 32 calls; 4 cores that others used as well), the
//! server's CPU time a call as a multiple of that of a bare echo on tokio's threads, which took turns with it; medians of three
//! runs of five turns:
//!
//! | | system allocator | mimalloc | jemalloc |
//! |---|---|---|---|
//! | one runtime of many threads | 1.07 | 1.15 | 1.08 |
//! | this | 0.89 | 0.91 | 0.89 |
//! | streams: one runtime of many threads | 16.6 | 11.6 | 14.9 |
//! | streams: this | 14.6 | 15.1 | 15.2 |
//!
//! So it takes a sixth less CPU where the server is busy; the echo gains as much by it. Where it is not, at 5,000 calls a second,
//! it takes more (1.4 against 1.2), because each core is woken for its own connections. Latency and streams are no different
//! beyond the noise. No allocator is better than the system's beyond the noise, so SyncValue keeps that one (jemalloc would need
//! `make` besides a C compiler).
//!
//! The price: a call that computes for long holds up the others on its core, and one connection uses one core.

use std::net::TcpStream;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Router;
use tower::layer::util::{Identity, Stack};

use super::accept::{self, Places};
use super::calls::Calls;
use super::trust::Tls;

/// Connections that wait for a thread to take them.
const HANDED: usize = 64;

type Grpc = Router<Stack<Calls, Identity>>;
type Ended = std::io::Result<()>;

/// Serves until `shutdown`, and until the connections have drained.
///
/// # Errors
/// The listener or a thread failed.
pub(super) async fn serve(listener: TcpListener, tls: Option<Tls>, places: Places, grpc: Grpc, shutdown: CancellationToken) -> Ended {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (ended, mut ends) = mpsc::channel(cores);
    let dressed = || (tls.clone(), places.clone());
    let threads: Result<Vec<_>, _> = (0..cores).map(|core| start(core, dressed(), grpc.clone(), shutdown.clone(), ended.clone())).collect();
    let threads = threads?;
    drop(ended);
    let mut round = 0;
    while !shutdown.is_cancelled() {
        tokio::select! {
            socket = accept::next(&listener) => {
                // One that cannot change runtimes is gone.
                let Ok(socket) = socket.into_std() else { continue };
                if threads[round].send(socket).await.is_err() {
                    break;
                }
                round = (round + 1) % threads.len();
            }
            ended = ends.recv() => {
                ended.unwrap_or(Ok(()))?;
                break;
            }
            () = shutdown.cancelled() => {}
        }
    }
    drop(listener);
    drop(threads);
    while let Some(ended) = ends.recv().await {
        ended?;
    }
    if shutdown.is_cancelled() { Ok(()) } else { Err(std::io::Error::other("a thread of gRPC has ended")) }
}

/// Starts a thread; it takes what it is sent.
fn start(
    core: usize,
    (tls, places): (Option<Tls>, Places),
    grpc: Grpc,
    shutdown: CancellationToken,
    ended: mpsc::Sender<Ended>,
) -> std::io::Result<mpsc::Sender<TcpStream>> {
    let (hand, handed) = mpsc::channel(HANDED);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let serve = move || {
        let served = runtime.block_on(async {
            let sockets = ReceiverStream::new(handed).filter_map(|socket| tokio::net::TcpStream::from_std(socket).ok());
            let connections = accept::dress(sockets, tls, places);
            grpc.serve_with_incoming_shutdown(connections, shutdown.cancelled_owned()).await
        });
        drop(ended.blocking_send(served.map_err(std::io::Error::other)));
    };
    std::thread::Builder::new().name(format!("grpc-{core}")).spawn(serve)?;
    Ok(hand)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn connections_go_round_the_threads_and_a_shutdown_ends_them() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let thread = get(|| async { std::thread::current().name().unwrap_or_default().to_owned() });
        let routes = tonic::service::Routes::from(axum::Router::new().route("/thread", thread));
        let metrics = crate::runtime::Metrics::new();
        let grpc = tonic::transport::Server::builder().accept_http1(true).layer(metrics.calls).add_routes(routes);
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, None, metrics.connections.places("grpc"), grpc, shutdown.clone()));
        let mut threads: BTreeMap<String, u32> = BTreeMap::new();
        let cores = std::thread::available_parallelism().unwrap().get();
        for _ in 0..2 * cores {
            let mut tcp = tokio::net::TcpStream::connect(address).await.unwrap();
            tcp.write_all(b"GET /thread HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            tcp.read_to_string(&mut answer).await.unwrap();
            *threads.entry(answer.rsplit_once("\r\n\r\n").unwrap().1.to_owned()).or_default() += 1;
        }
        assert_eq!(threads.len(), cores, "{threads:?}");
        assert!(threads.iter().all(|(name, count)| name.starts_with("grpc-") && *count == 2), "{threads:?}");
        shutdown.cancel();
        serving.await.unwrap().unwrap();
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "it listens still");
    }
}
