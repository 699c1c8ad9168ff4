//! Makes the server's routing. It is the one that `kiki::pb` has, but for the messages of Predict, PredictBatch and PredictStream:
//! they come as bytes, and are read where they are (`src/rpc/wire.rs`).

use tonic_build::manual::{Builder, Method, MethodBuilder, Service};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let service = Service::builder()
        .package("kiki.syncvalue.v1")
        .name("SyncValueService")
        .method(raw("predict", "Predict").build())
        .method(raw("predict_batch", "PredictBatch").build())
        .method(raw("predict_stream", "PredictStream").client_streaming().server_streaming().build())
        .method(prost("observe", "Observe").client_streaming().server_streaming().build())
        .method(prost("explain", "Explain").build())
        .method(prost("erase_customer", "EraseCustomer").build())
        .method(prost("get_model", "GetModel").build())
        .method(prost("set_models", "SetModels").build())
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
    let message = |kind: &str| format!("kiki::pb::syncvalue::v1::{route}{kind}");
    let method = Method::builder().name(name).route_name(route).codec_path("tonic_prost::ProstCodec");
    method.input_type(message("Request")).output_type(message("Response"))
}
