//! The value of a customer, pure: what was observed goes in, estimates come out, and time is an argument.
//!
//! A [`market::Market`] is one client's customers in one currency. It keeps a [`customer::Customer`] each, the running
//! sums over all of them in a [`population::Population`], and the [`fit::Fit`] that the sums gave when the day began.
//!
//! Everything depends on the order of the events alone, so that a restart that reads the same events back answers the same.

pub mod accuracy;
pub mod customer;
pub mod drift;
pub mod fit;
pub mod interval;
pub mod market;
pub mod model;
pub mod population;
pub mod predictor;
pub mod serving;
