//! The yardstick: a tonic server that answers every message with so many bytes and does nothing else.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, StreamingService};
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::child::Server;
use super::drive::{self, Heard, Load, Measured};
use crate::error::{Doing as _, Failure};
use crate::out;

const NAME: &str = "kiki.bench.Echo";
const PATH: &str = "/kiki.bench.Echo/Stream";

/// How the echo answers.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Length of every answer, bytes.
    #[arg(long)]
    answer_bytes: usize,
}

/// Serves until it is killed.
pub(super) async fn serve(args: Args) -> Result<(), Failure> {
    let listener = TcpListener::bind("127.0.0.1:0").await.doing("listening")?;
    out::say(format_args!("http://{}", listener.local_addr().doing("listening")?));
    out::say("ready");
    let answer = Bytes::from(vec![b'x'; args.answer_bytes]);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    tonic::transport::Server::builder().add_service(Echo { answer }).serve_with_incoming(incoming).await.doing("serving the echo")
}

/// Starts the echo as a process of its own.
pub(super) fn start(answer_bytes: usize) -> Result<(Server, String), Failure> {
    let (server, lines) = Server::start(&["bench", "echo-server", "--answer-bytes", &answer_bytes.to_string()])?;
    let address = lines.into_iter().next().ok_or_else(|| Failure::new("the echo server named no address"))?;
    Ok((server, address))
}

/// Drives streams of requests of so many bytes; every answer is final.
pub(super) async fn drive(channels: Vec<Channel>, load: Load, request_bytes: usize) -> Result<Measured, Failure> {
    let request = Bytes::from(vec![b'x'; request_bytes]);
    let streams = channels.into_iter().map(|channel| {
        let request = request.clone();
        let answered = std::sync::atomic::AtomicU64::new(0);
        let hear = move |answer: &Bytes| {
            let acknowledged = answered.fetch_add(load.batch as u64, std::sync::atomic::Ordering::Relaxed) + load.batch as u64;
            Heard { answered: load.batch, counted: load.batch as u64, acknowledged, bytes: answer.len() }
        };
        let open = |requests| open(channel, requests);
        tokio::spawn(drive::stream(load, open, move |_| request.clone(), hear))
    });
    drive::together(streams.collect()).await
}

async fn open(channel: Channel, requests: impl Stream<Item = Bytes> + Send + 'static) -> Result<Response<Streaming<Bytes>>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    client.streaming(Request::new(requests), http::uri::PathAndQuery::from_static(PATH), Raw).await
}

#[derive(Clone)]
struct Echo {
    answer: Bytes,
}

impl NamedService for Echo {
    const NAME: &'static str = NAME;
}

impl Service<http::Request<tonic::body::Body>> for Echo {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move { Ok(tonic::server::Grpc::new(Raw).streaming(echo, request).await) })
    }
}

impl StreamingService<Bytes> for Echo {
    type Response = Bytes;
    type ResponseStream = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let answer = self.answer.clone();
        let answers = request.into_inner().map(move |message| message.map(|_| answer.clone()));
        std::future::ready(Ok(Response::new(Box::pin(answers))))
    }
}

/// Messages as they are: no protobuf.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
