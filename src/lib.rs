//! What KIKI's services must agree on, and nothing else: the protobuf contract, the bytes of the log and its tree,
//! money, ids, time, countries, attribution, guardrails, errors on the wire, locks, and how a service listens.
//!
//! Who may use whom: `kiki-cli -> services -> kiki`. A service's `domain` uses of this crate only what is free of
//! I/O, protobuf services and clocks; `tests/it/tidy.rs` keeps that.

pub mod access;
pub mod attribution;
pub mod caller;
pub mod clock;
pub mod country;
pub mod framed;
pub mod guardrail;
pub mod ids;
pub mod leaf;
pub mod lock;
pub mod money;
pub mod pb;
pub mod roles;
pub mod rotation;
pub mod runtime;
pub mod sealed;
pub mod status;
pub mod tlog;
pub mod wire;
