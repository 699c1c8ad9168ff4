//! SyncFlow over its real ports, among fakes of SyncShield and SyncValue that check what it asks of them.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod bids;
mod breakers;
mod budgets;
mod deadlines;
mod fakes;
mod formats;
mod frequency;
mod fuzz;
mod leases;
mod load;
mod notices;
mod outages;
mod pacing;
mod predictions;
mod shading;
mod streams;
mod world;
