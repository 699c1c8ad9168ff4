//! The yardstick: a tonic server that answers every call and every message with so many bytes and does nothing else; and,
//! apart from that, what a stream of predictions costs where nothing is predicted, and one of bids where nothing is decided: messages
//! are read from protobuf and answers written to it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use bytes::Bytes;
use kiki::leaf::PredictionStatus;
use kiki::pb::syncflow::v1::{Bid, BidResponse, BidStreamRequest, BidStreamResponse, bid_response};
use kiki::pb::syncvalue::v1::{PredictStreamRequest, PredictStreamResponse, Prediction};
use kiki::runtime::Raw;
use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, StreamingService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

use super::child::Server;
use crate::error::{Doing as _, Failure};
use crate::out;

const NAME: &str = "kiki.bench.Echo";
pub(super) const STREAM: &str = "/kiki.bench.Echo/Stream";
pub(super) const UNARY: &str = "/kiki.bench.Echo/Unary";
/// Takes messages of PredictStream, and answers each question with the same prediction.
pub(super) const PREDICTIONS: &str = "/kiki.bench.Echo/Predictions";
/// Takes messages of BidStream, and answers each opportunity with the same bid. A message of 64 has about the length that the bare
/// echo's has.
pub(super) const BIDS: &str = "/kiki.bench.Echo/Bids";

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
        Box::pin(async move {
            Ok(match request.uri().path() {
                UNARY => tonic::server::Grpc::new(Raw::default()).unary(echo, request).await,
                PREDICTIONS => tonic::server::Grpc::new(ProstCodec::default()).streaming(Predictions, request).await,
                BIDS => tonic::server::Grpc::new(ProstCodec::default()).streaming(Bids, request).await,
                _ => tonic::server::Grpc::new(Raw::default()).streaming(echo, request).await,
            })
        })
    }
}

impl UnaryService<Bytes> for Echo {
    type Response = Bytes;
    type Future = std::future::Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.answer.clone())))
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

/// The prediction of every answer: of the length that SyncValue's have.
fn prediction() -> Prediction {
    Prediction {
        mean_micros: 50_000_000,
        q05_micros: 10_000_000,
        q95_micros: 150_000_000,
        p_active_ppb: 900_000_000,
        horizon_days: 90,
        model: "drnn-0123456789ab".to_owned(),
        status: PredictionStatus::Ok.into(),
        fallback_reason: 0,
        median_micros: 40_000_000,
        staleness_seconds: 2_592_000,
        holds_ms: 0,
    }
}

struct Predictions;

impl StreamingService<PredictStreamRequest> for Predictions {
    type Response = PredictStreamResponse;
    type ResponseStream = std::pin::Pin<Box<dyn Stream<Item = Result<PredictStreamResponse, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<PredictStreamRequest>>) -> Self::Future {
        let answers = request.into_inner().map(|message| {
            let predictions = message?.requests.iter().map(|_| prediction()).collect();
            Ok(PredictStreamResponse { predictions, ..Default::default() })
        });
        std::future::ready(Ok(Response::new(Box::pin(answers))))
    }
}

/// The bid of every answer: its texts are as many, and about as long, as those of a bid for one campaign.
fn bid() -> BidResponse {
    let bid = Bid {
        bid_id: "4711-1234".to_owned(),
        client: "bench".to_owned(),
        campaign: "bench-campaign".to_owned(),
        currency: "USD".to_owned(),
        price_nanos: 1_000_000,
        creative: "banner".to_owned(),
        receipt: "x".repeat(224),
        predicted_ltv_micros: 50_000_000,
        prediction_status: PredictionStatus::Ok.into(),
        markup: "x".repeat(352),
    };
    BidResponse { result: Some(bid_response::Result::Bid(bid)) }
}

struct Bids;

impl StreamingService<BidStreamRequest> for Bids {
    type Response = BidStreamResponse;
    type ResponseStream = std::pin::Pin<Box<dyn Stream<Item = Result<BidStreamResponse, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<BidStreamRequest>>) -> Self::Future {
        let answers = request.into_inner().map(|message| {
            let responses = message?.opportunities.iter().map(|_| bid()).collect();
            Ok(BidStreamResponse { responses, acknowledged: 0 })
        });
        std::future::ready(Ok(Response::new(Box::pin(answers))))
    }
}
