//! SyncShield from outside, one module a subject: `cargo test -p syncshield --test it ledger::` runs one. `../sim` is a binary of its own,
//! because it keeps all cores busy.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod budgets;
mod conformance;
#[allow(dead_code)] // the simulation uses the rest
#[path = "../sim/disk.rs"]
mod disk;
mod ending;
mod invoice_events;
mod kill;
mod ledger;
mod moving;
mod mutants;
#[path = "../sim/net.rs"]
mod net;
mod outage;
mod policy;
mod prune;
#[allow(dead_code)] // the simulation uses the rest
#[path = "../sim/rng.rs"]
mod rng;
mod rotation;
mod rpc;
mod skew;
mod store;
mod subjects;
mod tiles;
mod turmoil;
