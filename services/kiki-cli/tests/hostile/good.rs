//! The client that does what it should.

use kiki::pb::billing::v1::ListInvoicesRequest;
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::syncflow::v1::WatchBreakersRequest;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{GetPolicyRequest, TailRequest};
use kiki::pb::syncvalue::v1::GetModelRequest;
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::runtime::{Channel, channel};
use kiki_cli::platform::Endpoints;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{host, soon};

const REQUEST: &str = r#"{"id":"r","imp":[{"id":"1","banner":{"w":300,"h":250}}],"site":{"domain":"news.example"}}"#;

/// Round after round on connections that are kept, and one on new ones when all is over.
pub async fn rounds(at: Endpoints, made: watch::Sender<u64>, stop: CancellationToken) {
    let mut clients = Clients::new(&at);
    while !stop.is_cancelled() {
        soon("a good round", clients.round(&at)).await;
        made.send_modify(|made| *made += 1);
    }
    soon("a good round after all", round(&at)).await;
}

/// A call of each service, on new connections.
pub async fn round(at: &Endpoints) {
    Clients::new(at).round(at).await;
}

struct Clients {
    shield: SyncShieldServiceClient<Channel>,
    value: SyncValueServiceClient<Channel>,
    flow: SyncFlowServiceClient<Channel>,
    billing: BillingServiceClient<Channel>,
}

impl Clients {
    fn new(at: &Endpoints) -> Self {
        let to = |address: &str| channel(address).unwrap();
        Self {
            shield: SyncShieldServiceClient::new(to(&at.shield)),
            value: SyncValueServiceClient::new(to(&at.value)),
            flow: SyncFlowServiceClient::new(to(&at.flow)),
            billing: BillingServiceClient::new(to(&at.billing)),
        }
    }

    async fn round(&mut self, at: &Endpoints) {
        self.shield.get_policy(GetPolicyRequest::default()).await.map(drop).or_else(none_yet).expect("SyncShield");
        self.shield.tail(TailRequest::default()).await.expect("Tail").into_inner().message().await.expect("Tail's messages");
        self.value.get_model(GetModelRequest::default()).await.expect("SyncValue");
        let breakers = self.flow.watch_breakers(WatchBreakersRequest::default()).await.expect("SyncFlow");
        breakers.into_inner().message().await.expect("where breakers stand");
        self.billing.list_invoices(ListInvoicesRequest::default()).await.expect("Billing");
        for (address, request, body, wanted) in [
            (&at.shield_http, "GET /health", "", 200),
            (&at.value_http, "GET /metrics", "", 200),
            (&at.flow_http, "POST /openrtb2/x1", REQUEST, 204),
            (&at.billing_http, "GET /metrics", "", 200),
        ] {
            assert_eq!(http(address, request, body).await, wanted, "{request}");
        }
    }
}

/// There is no policy on a new platform.
fn none_yet(status: tonic::Status) -> Result<(), tonic::Status> {
    if status.code() == tonic::Code::NotFound { Ok(()) } else { Err(status) }
}

/// An answer's status.
async fn http(address: &str, request: &str, body: &str) -> u16 {
    let mut tcp = TcpStream::connect(host(address)).await.expect("a connection");
    let head = format!("{request} HTTP/1.1\r\nhost: kiki\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    tcp.write_all(head.as_bytes()).await.expect("to send a request");
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer).split(' ').nth(1).expect("a status").parse().expect("a status")
}
