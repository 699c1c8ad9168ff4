//! The documents of an invoice, in every format.
#![allow(clippy::unwrap_used)]

mod conformance;
mod imports;
mod model;
mod pdf;
mod sample;
mod shapes;
mod xml;
