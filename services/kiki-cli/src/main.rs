//! The command `kiki`.

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use kiki::runtime::{Credentials, call_with};
use kiki_cli::error::{Doing as _, Failure};
use kiki_cli::{api_key, bench, breakers, budget, exchange, health, invoice, keys, model, models, policy, put, replay, subject, up};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Bids for the customers that are worth most, never spends more than it was given, and bills what it can prove.
#[derive(Debug, Parser)]
#[command(name = "kiki", version)]
struct Cli {
    #[command(flatten)]
    credentials: Credentials,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs all four services in one process on loopback.
    Up(up::Args),
    /// Makes the keys that services share, once.
    Keys(keys::Args),
    /// Makes an API key, and the line by which services know it.
    ApiKey(api_key::Args),
    /// Asks services whether they serve.
    Health(health::Args),
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
    let mut told = kiki::runtime::reading(Cli::command()).get_matches();
    let result = run(Cli::from_arg_matches_mut(&mut told).unwrap_or_else(|error| error.exit())).await;
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kiki: {failure}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Cli { credentials, command }: Cli) -> Result<(), Failure> {
    call_with(&credentials).doing("reading the credentials")?;
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Keys(args) => keys::run(&args),
        Command::ApiKey(args) => api_key::run(&args),
        Command::Health(args) => health::run(&args, &credentials).await,
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
    }
}
