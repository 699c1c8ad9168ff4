//! The documents of an invoice, in every format.
#![allow(clippy::unwrap_used)]

mod model;
mod sample;
