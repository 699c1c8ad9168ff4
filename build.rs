//! Compiles `proto/` with protox, so that no protoc is needed.

use std::path::PathBuf;

use protox::prost::Message as _;

const PROTOS: [&str; 7] = [
    "kiki/log/v1/leaf.proto",
    "kiki/syncvalue/v1/syncvalue.proto",
    "kiki/syncshield/v1/syncshield.proto",
    "kiki/syncflow/v1/syncflow.proto",
    "kiki/billing/v1/billing.proto",
    "kiki/billing/v1/bundle.proto",
    "openrtb/v2/openrtb.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("descriptors.bin");
    std::fs::write(out, descriptors.encode_to_vec())?; // what gRPC reflection serves
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
