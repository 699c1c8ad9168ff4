//! The generated protobuf types, clients and servers of `proto/`.

#![allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub, rustdoc::all)]

/// The descriptors of every file under `proto/`, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `kiki.log.v1`: the leaves of the log. Domains use it as [`crate::leaf`].
pub mod log {
    pub mod v1 {
        tonic::include_proto!("kiki.log.v1");
    }
}
/// `kiki.syncvalue.v1`
pub mod syncvalue {
    pub mod v1 {
        tonic::include_proto!("kiki.syncvalue.v1");
    }
}
/// `kiki.syncshield.v1`
pub mod syncshield {
    pub mod v1 {
        tonic::include_proto!("kiki.syncshield.v1");
    }
}
/// `kiki.syncflow.v1`
pub mod syncflow {
    pub mod v1 {
        tonic::include_proto!("kiki.syncflow.v1");
    }
}
/// `openrtb.v2`: bid requests and responses of exchanges.
pub mod openrtb {
    pub mod v2 {
        tonic::include_proto!("openrtb.v2");
    }
}
/// `kiki.billing.v1`
pub mod billing {
    pub mod v1 {
        tonic::include_proto!("kiki.billing.v1");
    }
}

/// The paths of all RPCs of ours, `/service/name`, and whether the client sends a stream.
#[cfg(test)]
pub(crate) fn rpcs() -> Vec<(String, bool)> {
    use prost::Message as _;
    let set = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap_or_default();
    let of_file = |file: prost_types::FileDescriptorProto| {
        let package = file.package().to_owned();
        let of_service = move |service: prost_types::ServiceDescriptorProto| {
            let name = format!("/{package}.{}", service.name());
            service
                .method
                .into_iter()
                .map(move |method| (format!("{name}/{}", method.name()), method.client_streaming()))
                .collect::<Vec<_>>()
        };
        file.service.into_iter().flat_map(of_service).collect::<Vec<_>>()
    };
    set.file.into_iter().flat_map(of_file).collect()
}
