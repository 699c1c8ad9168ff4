//! Billing: what does the client owe, and how can they check it themselves?

pub mod domain;
pub mod store;
