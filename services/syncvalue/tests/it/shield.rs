//! A stand-in for SyncShield: its log, through nothing but the Tail call's path.

use std::sync::Arc;

use kiki::leaf::Leaf;
use kiki::pb::syncshield::v1::{TailEntry, TailRequest, TailResponse};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// The log's id.
pub const LOG: &str = "kiki.local/log-1";

/// The leaves that it serves.
#[derive(Clone)]
pub struct Shield {
    pub leaves: watch::Sender<Vec<Leaf>>,
    /// How many streams were opened, and where each began.
    pub began: Arc<std::sync::Mutex<Vec<u64>>>,
}

impl Shield {
    pub async fn start(leaves: Vec<Leaf>) -> (Self, String, CancellationToken) {
        let shield = Self { leaves: watch::Sender::new(leaves), began: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (stop, serving) = (CancellationToken::new(), shield.clone());
        let stopped = stop.clone().cancelled_owned();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(serving).serve_with_incoming_shutdown(incoming, stopped));
        (shield, address, stop)
    }

    fn tail(&self, from: u64) -> impl Stream<Item = Result<TailResponse, Status>> + Send + use<> {
        self.began.lock().unwrap().push(from);
        let mut next = from;
        WatchStream::new(self.leaves.subscribe()).map(move |leaves| {
            let new = leaves.iter().filter(|leaf| leaf.index >= next);
            let entries: Vec<_> = new.map(|leaf| TailEntry { index: leaf.index, leaf: leaf.encode_to_vec().into() }).collect();
            next += entries.len() as u64;
            Ok(TailResponse { entries, next_index: next, checkpoint: String::new() })
        })
    }
}

impl tonic::server::NamedService for Shield {
    const NAME: &'static str = "kiki.syncshield.v1.SyncShieldService";
}

/// A hand-written service, because the generated trait would ask for SyncShield's twenty other calls.
impl tower::Service<http::Request<tonic::body::Body>> for Shield {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/kiki.syncshield.v1.SyncShieldService/Tail");
        let shield = self.clone();
        Box::pin(async move {
            let codec = tonic_prost::ProstCodec::<TailResponse, TailRequest>::default();
            Ok(tonic::server::Grpc::new(codec).server_streaming(Tail(shield), request).await)
        })
    }
}

struct Tail(Shield);

impl tonic::server::ServerStreamingService<TailRequest> for Tail {
    type Response = TailResponse;
    type ResponseStream = std::pin::Pin<Box<dyn Stream<Item = Result<TailResponse, Status>> + Send>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<TailRequest>) -> Self::Future {
        let from = request.into_inner().from.unwrap();
        assert!(from.log_id == LOG || from.index == 0);
        std::future::ready(Ok(Response::new(Box::pin(self.0.tail(from.index)))))
    }
}
