//! How connections are taken in: at most so many, by TLS where there is a certificate, and none that says nothing
//! or takes no answers.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::arrival::{self, Arrivals};
use super::shares::Own;
use super::trust::{Tls, tls};

/// Connections of a listener: at the 28 kB or so that one takes that is idle, 460 MB, and no file descriptors for more. One that sends a
/// frame and never its last byte takes as much more as a frame may have, with all of them 1 GB.
pub const MAX_CONNECTIONS: usize = 16_384;
/// How long a connection may take to say which HTTP it speaks, and a TLS handshake: a round trip around the world takes 0.4 s, and packets
/// get lost.
const FIRST: Duration = Duration::from_secs(10);
/// Bytes by which that is said: HTTP/2's preface (RFC 9113, 3.4). No request over HTTP/1 that names its host is shorter.
const PREFACE: usize = 24;
/// Within twice of this a client takes the next 64 kB of each answer: 13 kbit/s at the least.
const TAKEN: Duration = Duration::from_secs(20);
/// Connections that wait to be served.
const HANDED: usize = 64;
/// How long no connection is accepted after the system had nothing left for one.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is at the other end of a connection, and when its bytes came. Each request over HTTP and each call over gRPC has it among its
/// extensions (over HTTP in axum's `ConnectInfo`).
#[derive(Debug, Clone)]
pub struct Peer {
    arrivals: Arrivals,
    /// What its connection has of what all share.
    pub(super) own: Arc<Own>,
    /// The SPIFFE id of its certificate.
    pub(super) spiffe: Option<Arc<str>>,
}

impl Peer {
    /// How long ago the bytes came that were read last.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.arrivals.waited()
    }
}

/// The places for connections of one listener.
#[derive(Debug, Clone)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    open: prometheus::IntGauge,
    refused: prometheus::IntCounter,
}

/// Counts connections.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    open: IntGaugeVec,
    refused: IntCounterVec,
}

impl Counted {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let open = IntGaugeVec::new(Opts::new("kiki_connections", "connections that are open, by side: grpc or http"), &["side"])?;
        let refused = Opts::new("kiki_connections_refused_total", "connections that there was no place for, or that made no TLS, by side");
        let refused = IntCounterVec::new(refused, &["side"])?;
        registry.register(Box::new(open.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        Ok(Self { open, refused })
    }

    pub(super) fn places(&self, side: &str) -> Places {
        let (open, refused) = (self.open.with_label_values(&[side]), self.refused.with_label_values(&[side]));
        Places { free: Arc::new(Semaphore::new(MAX_CONNECTIONS)), open, refused }
    }
}

/// A place that is taken, until it is dropped.
#[derive(Debug)]
struct Place {
    open: prometheus::IntGauge,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    fn take(&self) -> Option<Place> {
        let Ok(permit) = self.free.clone().try_acquire_owned() else {
            self.refused.inc();
            return None;
        };
        self.open.inc();
        Some(Place { open: self.open.clone(), _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.dec();
    }
}

/// The next connection. What goes wrong with one is its own matter; where the system has nothing left, this waits and tries again.
pub(super) async fn next(listener: &TcpListener) -> TcpStream {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    loop {
        match listener.accept().await {
            Ok((tcp, _)) => return tcp,
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The connections of a listener, until `stop`.
pub(super) fn accept(
    listener: TcpListener,
    tls: Option<Tls>,
    places: Places,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Connection>> {
    let (hand, handed) = mpsc::channel(HANDED);
    tokio::spawn(async move {
        while let Some(tcp) = stop.run_until_cancelled(next(&listener)).await {
            if hand.send(tcp).await.is_err() {
                return;
            }
        }
    });
    dress(ReceiverStream::new(handed), tls, places)
}

/// Makes connections of sockets, on this runtime: each handshake in its own time.
pub(super) fn dress(
    mut sockets: impl Stream<Item = TcpStream> + Send + Unpin + 'static,
    tls: Option<Tls>,
    places: Places,
) -> ReceiverStream<io::Result<Connection>> {
    let (hand, handed) = mpsc::channel(HANDED);
    tokio::spawn(async move {
        while let Some(Some(tcp)) = tokio::select! { tcp = sockets.next() => Some(tcp), () = hand.closed() => None } {
            let Some(place) = places.take() else { continue };
            let connection = arrival::Connection::new(tcp);
            let Some(tls) = tls.clone() else {
                let peer = Peer { arrivals: connection.arrivals(), own: Arc::default(), spiffe: None };
                drop(hand.send(Ok(Connection::new(Io::Plain(connection), peer, place))).await);
                continue;
            };
            let (hand, refused) = (hand.clone(), places.refused.clone());
            tokio::spawn(async move {
                match tokio::time::timeout(FIRST, secure(connection, &tls)).await {
                    Ok(Ok((io, peer))) => drop(hand.send(Ok(Connection::new(io, peer, place))).await),
                    failed => {
                        refused.inc();
                        tracing::debug!(?failed, "no TLS");
                    }
                }
            });
        }
    });
    ReceiverStream::new(handed)
}

async fn secure(connection: arrival::Connection, tls: &Tls) -> io::Result<(Io, Peer)> {
    let arrivals = connection.arrivals();
    let acceptor = tls.now().acceptor().ok_or_else(|| io::Error::other("there is no certificate"))?;
    let stream = acceptor.accept(connection).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let spiffe = certificates.and_then(|chain| chain.first()).and_then(tls::spiffe_id);
    Ok((Io::Tls(Box::new(stream)), Peer { arrivals, own: Arc::default(), spiffe }))
}

/// A connection, in plaintext or not.
#[derive(Debug)]
pub(super) struct Connection {
    io: Io,
    peer: Peer,
    /// Bytes that were read.
    said: usize,
    /// When to look next whether the client is of any use.
    look: Pin<Box<Sleep>>,
    _place: Place,
}

#[derive(Debug)]
enum Io {
    Plain(arrival::Connection),
    Tls(Box<TlsStream<arrival::Connection>>),
}

impl Connection {
    fn new(io: Io, peer: Peer, place: Place) -> Self {
        Self { io, peer, said: 0, look: Box::pin(tokio::time::sleep(FIRST)), _place: place }
    }

    /// What is not ready stays so, unless the client did not say in time what it speaks, or does not take its answers. Who says nothing
    /// later on is for HTTP to notice.
    fn pending<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        while self.look.as_mut().poll(cx).is_ready() {
            if self.said < PREFACE || self.peer.own.unread.turn() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.look.as_mut().reset(Instant::now() + TAKEN);
        }
        Poll::Pending
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer.clone()
    }
}

impl tonic::transport::server::Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buffer),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buffer),
        };
        if read.is_pending() {
            return self.pending(cx);
        }
        self.said = self.said.saturating_add(buffer.filled().len() - before);
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Io::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        };
        if written.is_pending() { self.pending(cx) } else { written }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, parts),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, parts),
        };
        if written.is_pending() { self.pending(cx) } else { written }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
