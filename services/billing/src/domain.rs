//! What a client owes, as pure functions of what the log says.
//!
//! Nothing here reads a clock, a network or a disk. Money is exact: sums are `i128` nanos of the
//! currency, fees are rounded once to the currency's minor unit, and no ratio that was rounded for
//! display is ever computed with.

pub mod accounting;
pub mod amount;
pub mod books;
pub mod bundle;
pub mod document;
pub mod fee;
pub mod follow;
pub mod invoice;
pub mod ledger;
pub mod lifecycle;
pub mod period;
pub mod reconcile;
pub mod record;
pub mod summary;
pub mod terms;
