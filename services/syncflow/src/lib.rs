//! SyncFlow: what do we bid, where, and is that platform healthy?

pub mod domain;
