//! The command `kiki`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kiki_cli::error::Failure;
use kiki_cli::{bench, breakers, budget, exchange, invoice, model, models, policy, put, replay, subject, up};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bids for the customers that are worth most, never spends more than it was given, and bills what it can prove.
#[derive(Debug, Parser)]
#[command(name = "kiki", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs all four services in one process on loopback.
    Up(up::Args),
    /// Plays a month, from bid requests to invoices that verify.
    Replay(replay::Args),
    /// Plays an exchange to a bidder: auctions, notices with the faults of the field, and what it would hold against the bidder.
    Exchange(exchange::Args),
    /// Measures the platform.
    Bench(bench::Args),
    /// Closes a month of a running platform; `verify` checks invoices offline.
    Invoice(invoice::Args),
    /// Budgets: shows, limits, pauses, corrects and reconciles them.
    Budget(budget::Args),
    /// Circuit breakers of SyncFlow: shows and overrides them.
    Breakers(breakers::Args),
    /// Guardrails: puts and stages them, and explains decisions.
    Policy(policy::Args),
    /// Personal data of a client's customers: opens it, and erases them.
    Subject(subject::Args),
    /// Puts terms and campaigns as documents say.
    Put(put::Args),
    /// Models of a running platform: which of them answer, and why they answer so.
    Models(models::Args),
    /// Trains a model of lifetime value on a log of purchases.
    Train(model::TrainArgs),
    /// Scores a log of purchases with a model.
    Predict(model::PredictArgs),
    /// Trains on the first part of a log, predicts the rest of it, and says what that was worth.
    Evaluate(model::EvaluateArgs),
    /// Checks, proves and reads a log offline.
    Audit(invoice::AuditArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    kiki::runtime::init_tracing();
    let result: Result<(), Failure> = match Cli::parse().command {
        Command::Up(args) => up::run(args).await,
        Command::Replay(args) => replay::run(args).await,
        Command::Exchange(args) => exchange::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Invoice(args) => invoice::run(args).await,
        Command::Budget(args) => budget::run(args).await,
        Command::Breakers(args) => breakers::run(args).await,
        Command::Policy(args) => policy::run(args).await,
        Command::Subject(args) => subject::run(args).await,
        Command::Put(args) => put::run(args).await,
        Command::Models(args) => models::run(args).await,
        Command::Train(args) => model::train(&args),
        Command::Predict(args) => model::predict(&args),
        Command::Evaluate(args) => model::evaluate(&args),
        Command::Audit(args) => invoice::run_audit(&args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kiki: {failure}");
            ExitCode::FAILURE
        }
    }
}
