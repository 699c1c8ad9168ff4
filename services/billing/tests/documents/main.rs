//! The documents of an invoice, in every format.
#![allow(clippy::unwrap_used)]

mod books;
mod conformance;
mod model;
mod pdf;
mod sample;
mod shapes;
mod xml;
