//! The command `kiki`: up, replay, bench, audit, invoice.
//!
//! A library so that tests can start the platform and play a month as the command does.

pub mod audit;
pub mod bench;
pub mod close;
pub mod error;
mod http;
pub mod invoice;
pub mod keys;
pub mod out;
pub mod platform;
pub mod policy;
pub mod put;
pub mod replay;
pub mod up;
pub mod witness;
