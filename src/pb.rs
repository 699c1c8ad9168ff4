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
