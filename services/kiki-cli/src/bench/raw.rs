//! Calls whose messages are bytes as they are, so that one client drives a service and the echo alike, and protobuf is the
//! server's cost alone.

use bytes::Bytes;
use kiki::runtime::Channel;
use kiki::runtime::Raw;
use tokio_stream::Stream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{Request, Response, Status, Streaming};

/// Calls a method of one request and one answer.
pub(super) async fn unary(channel: Channel, path: &'static str, request: Bytes) -> Result<Bytes, Status> {
    let mut client = ready(channel).await?;
    client.unary(Request::new(request), PathAndQuery::from_static(path), Raw::default()).await.map(Response::into_inner)
}

/// Opens a stream in both directions.
pub(super) async fn stream(
    channel: Channel,
    path: &'static str,
    requests: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Response<Streaming<Bytes>>, Status> {
    let mut client = ready(channel).await?;
    client.streaming(Request::new(requests), PathAndQuery::from_static(path), Raw::default()).await
}

async fn ready(channel: Channel) -> Result<tonic::client::Grpc<Channel>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    Ok(client)
}
