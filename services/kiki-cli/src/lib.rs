//! The command `kiki`: up, replay, exchange, bench, audit, breakers, budget, invoice, models, policy, subject, train, evaluate, predict.
//!
//! A library so that tests can start the platform and play a month as the command does.

pub mod api_key;
pub mod audit;
pub mod bench;
pub mod breakers;
pub mod budget;
pub mod close;
pub mod error;
pub mod exchange;
pub mod health;
mod http;
pub mod invoice;
pub mod keys;
pub mod model;
pub mod models;
pub mod operate;
pub mod out;
pub mod platform;
pub mod policy;
pub mod purchases;
pub mod put;
mod random;
pub mod replay;
pub mod subject;
pub mod up;
pub mod witness;
