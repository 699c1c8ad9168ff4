//! What SyncFlow decides, free of tonic, tokio, protobuf, clocks and I/O: time and state are arguments.

pub mod openrtb;
