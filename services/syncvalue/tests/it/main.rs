//! SyncValue from outside, one module a subject: `cargo test -p syncvalue --test it states::` runs one.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, unreachable_pub)]

mod conformance;
mod kernel;
#[path = "../../../../tests/support/cluster.rs"]
mod masters;
mod models;
mod real_logs;
mod recent;
#[path = "../../../../tests/support/redis.rs"]
mod server;
mod service;
mod shield;
mod states;
mod train;
mod wire;
