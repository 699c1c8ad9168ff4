//! What SyncFlow decides, free of tonic, tokio, protobuf services, clocks and I/O: time and state are arguments.

pub mod auction;
pub mod breaker;
pub mod burn;
pub mod click;
pub mod creative;
pub mod fallback;
pub mod frequency;
pub mod lease;
pub mod limit;
pub mod notice;
pub mod openrtb;
pub mod opportunity;
pub mod pacing;
pub mod pricing;
pub mod queue;
pub mod rate;
pub mod receipt;
pub mod shading;
pub mod surge;
pub mod targeting;

/// The atomics of the breaker and the lease, and what decides how many of them a call goes through. The explorations put their own
/// in their place.
mod atomics {
    pub(super) use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

    /// Buckets of a breaker's window. It moves on by one of them at a time.
    pub(super) const BUCKETS: u64 = 10;
}

#[cfg(test)]
mod breaker_tests;
#[cfg(test)]
mod lease_tests;
