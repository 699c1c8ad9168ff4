//! The HTTP side of a service, with stated limits.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::RETRY_AFTER;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::accept::Connection;
use super::bodies::{Arriving, BoxError, Leaving, Room};
use super::calls;
use super::shares::Part;
use super::{KEEP_ALIVE, MAX_HEADERS, MAX_STREAMS, WINDOW};

/// How long a request's head may take.
const HEAD: Duration = Duration::from_secs(10);
/// How long a request may take: the body of the longest is 1 MiB.
const WHOLE: Duration = Duration::from_secs(30);
/// Bytes of a connection over HTTP/1 that wait to be read.
const BUFFER: usize = 64 << 10;

/// Serves until `stop`, and until the connections have drained.
pub(super) async fn serve(connections: impl Stream<Item = io::Result<Connection>>, app: Router, stop: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_header_list_size(MAX_HEADERS);
    let (mut connections, draining) = (pin!(connections), GracefulShutdown::new());
    let (under_way, room) = (calls::under_way(), Room::default());
    while let Some(Some(connection)) = stop.run_until_cancelled(connections.next()).await {
        let Ok(connection) = connection else { continue };
        let (peer, app, under_way, room) = (connection.peer(), app.clone(), under_way.clone(), room.clone());
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let (own, room) = (peer.own.clone(), room.clone());
            let place = calls::place(&under_way, &own);
            let mut request = request.map(|body| Body::new(Arriving::http(body, (&room, &own))));
            request.extensions_mut().insert(ConnectInfo(peer.clone()));
            let mut app = app.clone();
            async move {
                let answer = match &place {
                    Some(_) => tokio::time::timeout(WHOLE, app.call(request)).await.map_or_else(|_| late(), |Ok(answer)| answer),
                    None => (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")]).into_response(),
                };
                Ok::<_, Infallible>(answer.map(|body| Answer { body: Leaving::new(body, &room, own), _place: place }))
            }
        });
        let serving = draining.watch(builder.serve_connection(TokioIo::new(connection), service).into_owned());
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::debug!(%error, "a connection ended");
            }
        });
    }
    draining.shutdown().await;
}

fn late() -> Response {
    StatusCode::REQUEST_TIMEOUT.into_response()
}

/// An answer's body, which ends what is under way.
struct Answer {
    body: Leaving<Body>,
    _place: Option<Part>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
