//! Makes the server's routing. It is the one that `kiki::pb` has, but for the messages of Bid and BidStream: they go as bytes,
//! written at once from what was decided (`src/rpc/convert.rs`).

use tonic_build::manual::{Builder, Method, MethodBuilder, Service};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let service = Service::builder()
        .package("kiki.syncflow.v1")
        .name("SyncFlowService")
        .method(raw("bid", "Bid").build())
        .method(raw("bid_stream", "BidStream").client_streaming().server_streaming().build())
        .method(prost("notify", "Notify").build())
        .method(prost("report_conversions", "ReportConversions").build())
        .method(prost("get_budget", "GetBudget").build())
        .method(prost("watch_breakers", "WatchBreakers").server_streaming().build())
        .method(prost("override_breaker", "OverrideBreaker").build())
        .build();
    Builder::new().build_client(false).compile(&[service]);
}

/// A method whose messages are bytes to the routing.
fn raw(name: &str, route: &str) -> MethodBuilder {
    let method = Method::builder().name(name).route_name(route).codec_path("kiki::runtime::Raw");
    method.input_type("bytes::Bytes").output_type("Vec<u8>")
}

/// A method whose messages prost reads and writes.
fn prost(name: &str, route: &str) -> MethodBuilder {
    let message = |kind: &str| format!("kiki::pb::syncflow::v1::{route}{kind}");
    let method = Method::builder().name(name).route_name(route).codec_path("tonic_prost::ProstCodec");
    method.input_type(message("Request")).output_type(message("Response"))
}
