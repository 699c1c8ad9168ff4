//! Cross-service tests: one binary, one module a scenario.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::explicit_write, missing_docs)]

#[path = "../support/acme.rs"]
mod acme;
mod identity;
mod moving;
mod one_bid;
#[path = "../support/python.rs"]
mod python;
mod python_client;
mod rotation;
mod tidy;
mod tlog_tiles;
mod tlog_vectors;
mod traces;
mod two_bidders;
mod verify_log;
mod witness;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
