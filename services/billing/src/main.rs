//! Billing's own process.
fn main() {}
