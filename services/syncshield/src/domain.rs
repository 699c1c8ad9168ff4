//! What SyncShield decides, as pure functions of the log: no I/O, no clock, no gRPC.
//!
//! [`state::State`] is the fold of the log, and every invariant of a budget is a condition of [`state::State::apply`].
//! [`ledger::Ledger`] turns a request into leaves that this fold accepts. An auditor runs the same fold over the files.

pub mod adjust;
pub mod budget;
pub mod document;
pub mod erase;
pub mod invoice_event;
pub mod keys;
pub mod ledger;
pub mod moving;
pub mod outage;
pub mod policy;
pub mod reconcile;
pub mod refusal;
pub mod rollup;
pub mod scopes;
pub mod state;
