//! `kiki bench`: what the platform does, and what that costs beside the least that the same traffic could cost.
//!
//! The servers are a process of their own, so that their CPU time is theirs alone; in the same run a bare tonic echo of
//! the same message sizes is measured by the same driver. CPU seconds are the honest unit: wall-clock figures of a
//! shared machine move by a factor of two.

mod bids;
mod billing;
mod child;
mod cores;
pub(crate) mod customers;
mod deadlines;
mod drive;
mod echo;
mod machine;
mod no_content;
mod openrtb;
mod overload;
mod pair;
mod postgres;
mod predict;
mod quiet;
mod raw;
pub(crate) mod scene;
mod service_time;
mod shield;
mod target;
mod turns;
mod value;

use crate::error::Failure;

/// A data folder, removed when the measurement is over, however it ends.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Measures the platform.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum What {
    /// Bids over gRPC, each counted once its decision is durable.
    Bids(bids::Args),
    /// Bid requests over HTTP and bids one by one over gRPC, beside hyper that answers 204 and a bare echo.
    Openrtb(openrtb::Args),
    /// Answers within an exchange's deadline, at half of saturation and at three times it.
    Deadlines(deadlines::Args),
    /// Three times as many bid requests as servers on one core can take: what becomes of those admitted and of the rest, and how soon
    /// all is well again.
    Overload(overload::Args),
    /// Predictions by SyncValue, one by one and in streams.
    Predict(predict::Args),
    /// SyncShield's log, budget and policy, with the raw work on the same disk beside the log.
    Shield(shield::Args),
    /// A month of many clients folded, closed and verified, at three sizes.
    Billing(billing::Args),
    /// The bare echo that the others are compared with.
    #[command(hide = true)]
    EchoServer(echo::Args),
    /// The least that an answer over HTTP costs.
    #[command(hide = true)]
    NoContentServer,
    /// SyncValue alone, as its own binary runs it.
    #[command(hide = true)]
    ValueServer(value::Args),
}

/// Runs a measurement and prints what it found.
///
/// # Errors
/// Servers that did not start, a call that failed, or bids that were not made.
pub async fn run(args: Args) -> Result<(), Failure> {
    let measured = async {
        match args.what {
            What::Bids(args) => bids::run(args).await,
            What::Openrtb(args) => openrtb::run(args).await,
            What::Deadlines(args) => deadlines::run(args).await,
            What::Overload(args) => overload::run(args).await,
            What::Predict(args) => predict::run(args).await,
            What::Shield(args) => shield::run(args).await,
            What::Billing(args) => billing::run(args).await,
            What::EchoServer(args) => echo::serve(args).await,
            What::NoContentServer => no_content::serve().await,
            What::ValueServer(args) => value::serve(args).await,
        }
    };
    // Interrupted, it still stops its servers and removes their data, which happens when the future is dropped.
    tokio::select! {
        measured = measured => measured,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("interrupted")),
    }
}
