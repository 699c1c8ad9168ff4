//! A call that one service passes on to another is one trace, under the span of whoever began it.

use std::time::Duration;

use kiki::pb::syncflow::v1::GetBudgetRequest;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::runtime::{TraceArgs, channel, trace};
use kiki_cli::platform::{Platform, PlatformConfig, Ports};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

/// Spans are sent every 5 s.
const PATIENCE: Duration = Duration::from_secs(60);
const TRACE: [u8; 16] = [0xab; 16];
const CALLER: [u8; 8] = [0xcd; 8];

/// A collector that hands on what it is sent.
struct Collector(mpsc::Sender<Span>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let of_resource = request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        for span in of_resource.flat_map(|scope| scope.spans) {
            self.0.send(span).await.map_err(|_| Status::unavailable("nobody collects"))?;
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_through_two_services_is_one_trace_under_its_callers_span() {
    let (send, mut spans) = mpsc::channel(64);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let otlp_endpoint = Some(format!("http://{}", listener.local_addr().unwrap()));
    let collecting = tonic::transport::Server::builder().add_service(TraceServiceServer::new(Collector(send)));
    tokio::spawn(collecting.serve_with_incoming(TcpListenerStream::new(listener)));
    // Of what begins here nothing is sampled: what the collector gets is the caller's.
    trace("kiki", &TraceArgs { otlp_endpoint, trace_sample: 0.0 }).unwrap();
    let data = tempfile::tempdir().unwrap();
    let platform = Platform::start(PlatformConfig { ports: Ports::Auto, ..PlatformConfig::new(data.path()) }).await.unwrap();
    let mut flow = SyncFlowServiceClient::new(channel(&platform.endpoints.flow).unwrap());

    let mut request = Request::new(GetBudgetRequest { client: "acme".into(), campaign: "none".into() });
    let parent = format!("00-{}-{}-01", hex::encode(TRACE), hex::encode(CALLER));
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    assert_eq!(flow.get_budget(request).await.unwrap_err().code(), Code::NotFound);

    let mut next = async || tokio::time::timeout(PATIENCE, spans.recv()).await.expect("a span").expect("the collector runs");
    let (one, two) = (next().await, next().await);
    let (flow, shield) = if one.name.contains("SyncFlow") { (one, two) } else { (two, one) };
    assert_eq!(flow.name, "kiki.syncflow.v1.SyncFlowService/GetBudget");
    assert_eq!(shield.name, "kiki.syncshield.v1.SyncShieldService/GetBudget");
    assert_eq!((&flow.trace_id[..], &shield.trace_id[..]), (&TRACE[..], &TRACE[..]));
    assert_eq!((&flow.parent_span_id[..], &shield.parent_span_id), (&CALLER[..], &flow.span_id));
    platform.stop().await.unwrap();
}
