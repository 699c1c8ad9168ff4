//! Compiles `proto/` with protox, so that no protoc is needed.

use std::path::PathBuf;

use protox::prost::Message as _;
use protox::prost_reflect::prost_types::FileDescriptorSet;
use protox::prost_reflect::prost_types::field_descriptor_proto::Type;

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
    let descriptors = with_bytes(descriptors, "RecordItem", "decisions");
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}

/// Has a field that is a message generated as the bytes of that message, which are the same on the wire: SyncShield logs
/// decisions as they come, and does not read them.
fn with_bytes(mut descriptors: FileDescriptorSet, message: &str, field: &str) -> FileDescriptorSet {
    let messages = descriptors.file.iter_mut().flat_map(|file| &mut file.message_type);
    let fields = messages.filter(|one| one.name() == message).flat_map(|one| &mut one.field);
    for one in fields.filter(|one| one.name() == field) {
        one.set_type(Type::Bytes);
        one.type_name = None;
    }
    descriptors
}
