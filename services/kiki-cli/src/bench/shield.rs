//! `kiki bench shield`: what the log, the budget and the policy take, in one run and in this process, so that the
//! append can be set against the raw work on the same bytes on the same disk.

mod budget;
mod log;
mod policy;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use kiki::clock::Clock;
use syncshield::store::{Log, Paths, Store};

use super::Folder;
use super::postgres::Postgres;
use crate::error::{Doing as _, Failure};
use crate::out;
use report::Report;

const LOG_ID: &str = "bench.local/log";

/// What is measured, and where.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// How long each of the longer measurements takes, seconds.
    #[arg(long, default_value_t = 3.0, value_parser = super::bids::seconds)]
    seconds: f64,
    /// Where the data folder is made, and removed afterwards: the disk that is measured.
    #[arg(long, default_value = ".")]
    scratch: PathBuf,
    /// A PostgreSQL database to measure; without it a server is started in the system's temporary folder.
    #[arg(long, env = "KIKI_BENCH_POSTGRES", hide_env_values = true)]
    postgres: Option<String>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures, and prints the figures.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let folder = Folder(args.scratch.join(format!("kiki-bench-{}", std::process::id())));
    std::fs::create_dir(&folder.0).doing(format_args!("making {}", folder.0.display()))?;
    let time = Duration::from_secs_f64(args.seconds);
    let progress = out::bar("bench shield", 5);
    let mut report = Report::default();

    let appended = open(&Store::Files(None), folder.0.join("append"))?;
    log::append(&appended, &folder.0.join("raw"), time, &mut report).await?;
    progress.inc(1);
    log::proofs(&appended, &mut report).await?;
    appended.close().await;
    log::served(folder.0.join("append"), &mut report).await?;
    progress.inc(1);
    policy::check(&mut report)?;
    progress.inc(1);

    let files = open(&Store::Files(None), folder.0.join("files"))?;
    report.reserve_settle_per_second_file = budget::reserve_and_settle(&files, time).await?;
    files.close().await;
    progress.inc(1);
    let server = if args.postgres.is_none() { Some(Postgres::start().doing("starting PostgreSQL")?) } else { None };
    let url = args.postgres.clone().or_else(|| server.as_ref().map(Postgres::url)).unwrap_or_default();
    let store: Store = url.parse().map_err(|e| Failure::new(format!("--postgres: {e}")))?;
    let database = open(&store, folder.0.join("postgres"))?;
    report.reserve_settle_per_second_postgres = budget::reserve_and_settle(&database, time).await?;
    database.close().await;
    progress.finish_and_clear();
    report.print(args.json)
}

/// A log; one in a database of which the last run's remains are not ours has an id of its own.
fn open(store: &Store, data: PathBuf) -> Result<Log, Failure> {
    let log_id = match store {
        Store::Files(_) => LOG_ID.to_owned(),
        Store::Postgres(_) => format!("{LOG_ID}-{}-{}", std::process::id(), Clock::System.now().0),
    };
    Log::open_in(store, &Paths::new(&data), &log_id, Clock::System).doing("opening the log")
}
