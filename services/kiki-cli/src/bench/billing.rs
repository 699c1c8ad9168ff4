//! `kiki bench billing`: a month of many clients folded, closed and verified, at three sizes, each ten times the one before.
//!
//! A SyncShield's log is filled in this process, with leases, charges and purchases as bidders and shops bring them. Then Billing
//! follows it over gRPC into an empty ledger; closes the month as `kiki invoice` does, to the last number and leaf; and the bundle
//! of the largest client is fetched and verified as its client would.

mod month;
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use billing::follower::{Following, Progress};
use billing::store::{Address, Store};
use indicatif::ProgressBar;
use kiki::clock::{Clock, VirtualClock, monotonic};
use kiki::runtime::{Listeners, Metrics, channel};
use kiki::tlog::note::VerifyingKey;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Folder;
use super::postgres::Postgres;
use crate::close::Biller;
use crate::error::{Doing as _, Failure};
use crate::out;
use month::{CAMPAIGNS_EACH, LEAVES_EACH, LOG_ID, MONTH, Month};
use report::Report;

/// What is measured, and where.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Campaigns of the largest size, ten a client; the smaller ones have a tenth and a hundredth.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000))]
    campaigns: u64,
    /// Leaves of one client more, whose bundle is verified; likewise. A bundle with more than some 900,000 has a sample of them.
    #[arg(long, default_value_t = 900_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    leaves: u64,
    /// Of a client with more leaves than so many the bundle has a sample. Default: where they do not fit into one.
    #[arg(long, default_value_t = u64::MAX)]
    whole_bundle_max: u64,
    /// Where the data folder is made, and removed afterwards: the disk that is measured.
    #[arg(long, default_value = ".")]
    scratch: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures, and prints the figures.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let folder = Folder(args.scratch.join(format!("kiki-bench-{}", std::process::id())));
    std::fs::create_dir(&folder.0).doing(format_args!("making {}", folder.0.display()))?;
    let progress = out::bar("bench billing", 12);
    let mut report = Report::default();
    for part in [100, 10, 1] {
        let month = Month {
            clients: args.campaigns / part / CAMPAIGNS_EACH,
            large: (args.leaves / part).div_ceil(LEAVES_EACH),
            whole_bundle_max: args.whole_bundle_max,
        };
        let data = folder.0.join(part.to_string());
        one_size(&month, &data, &mut report, &progress).await?;
        std::fs::remove_dir_all(&data).doing(format_args!("removing {}", data.display()))?;
    }
    progress.finish_and_clear();
    report.print(args.json)
}

async fn one_size(month: &Month, data: &Path, report: &mut Report, progress: &ProgressBar) -> Result<(), Failure> {
    let clock = VirtualClock::at(month::DURING);
    let shield_data = data.join("syncshield");
    let records = month.fill(&shield_data, clock.clone()).await?;
    clock.advance_to(month::BEHIND);
    progress.inc(1);
    let shutdown = CancellationToken::new();
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.doing("listening")?;
    let shield = Served {
        address: format!("http://{}", listeners.grpc.local_addr().doing("listening")?),
        serving: tokio::spawn({
            let config = syncshield::Config::new(shield_data.clone(), LOG_ID);
            let served = syncshield::serve(listeners, config, Clock::Virtual(clock.clone()), shutdown.clone());
            async move { served.await.doing("SyncShield") }
        }),
    };
    let log_key = shield_data.join("log.pub");
    let key: VerifyingKey =
        std::fs::read_to_string(&log_key).doing("reading the log's key")?.trim().parse().doing("reading the log's key")?;
    let ledger = data.join("billing");
    report.fold_records.push(records);
    let database = Postgres::start().doing("starting PostgreSQL")?;
    for (address, rates) in [
        (Address::Folder(ledger.clone()), &mut report.fold_records_per_second),
        (database.url().parse().map_err(Failure::new)?, &mut report.fold_records_per_second_postgres),
    ] {
        let folded = fold(&address, &shield.address, &key, &clock).await?;
        rates.push(records as f64 / folded);
        progress.inc(1);
    }
    drop(database);
    close(month, ledger, &shield.address, &log_key, &clock, report).await?;
    progress.inc(1);
    shutdown.cancel();
    shield.serving.await.doing("SyncShield")?
}

/// A service in this process.
struct Served {
    address: String,
    serving: JoinHandle<Result<(), Failure>>,
}

/// Follows the whole log into an empty ledger: how many seconds that took.
async fn fold(address: &Address, shield: &str, key: &VerifyingKey, clock: &VirtualClock) -> Result<f64, Failure> {
    let store = Store::open(address).await.doing("opening the ledger")?;
    let shield = billing::clients::Shield::new(shield, key.name()).doing("connecting to SyncShield")?;
    let (_, size) = shield.checkpoint(0).await.doing("asking for a checkpoint")?;
    let metrics = billing::metrics::Metrics::new(&Metrics::new());
    let (progress, mut followed) = watch::channel(Progress::default());
    let (accesses, _) = kiki::access::queue("billing", Duration::ZERO, metrics.refused_accesses.clone()).doing("starting Billing")?;
    let clock = Clock::Virtual(clock.clone());
    let billing =
        billing::billing::Billing::new(store.clone(), shield.clone(), key.clone(), clock, followed.clone(), metrics.clone(), accesses);
    let shutdown = CancellationToken::new();
    let start = monotonic();
    let following = Following { store: store.clone(), shield, key: key.clone(), progress, metrics, billing, uncredited: true.into() };
    let follower = tokio::spawn(following.run(shutdown.clone()));
    let reached = followed.wait_for(|progress| progress.folded >= size || progress.fault.is_some()).await.doing("following")?.clone();
    let took = start.elapsed().as_secs_f64();
    shutdown.cancel();
    follower.await.doing("following")?;
    store.close().await;
    reached.fault.map_or(Ok(took), |fault| Err(Failure::new(fault)))
}

/// Closes the month, and verifies the bundle of the largest client.
async fn close(
    month: &Month,
    ledger: PathBuf,
    shield: &str,
    log_key: &Path,
    clock: &VirtualClock,
    report: &mut Report,
) -> Result<(), Failure> {
    let shutdown = CancellationToken::new();
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.doing("listening")?;
    let address = format!("http://{}", listeners.grpc.local_addr().doing("listening")?);
    let config = billing::Config::new(ledger, shield.to_owned(), log_key.display().to_string());
    let config = billing::Config { whole_bundle_max: month.whole_bundle_max, ..config };
    let key = config.key().doing("reading the log's key")?;
    let serving = tokio::spawn(billing::serve(listeners, config, Clock::Virtual(clock.clone()), shutdown.clone()));
    let mut biller = Biller::new(channel(&address).doing("connecting to Billing")?);
    let start = monotonic();
    let closed = biller.close(MONTH, &ProgressBar::hidden()).await?;
    report.close_campaigns.push(month.campaigns());
    report.close_campaigns_per_second.push(month.campaigns() as f64 / start.elapsed().as_secs_f64());
    if closed.numbers.len() as u64 != month.clients + 1 {
        return Err(Failure::new(format!("{} invoices of {} clients", closed.numbers.len(), month.clients + 1)));
    }
    // Numbers go by the clients' names, of which the largest is the last.
    let number = closed.numbers.last().map(String::as_str).unwrap_or_default();
    let start = monotonic();
    let bundle = biller.bundle(number, Vec::new()).await?;
    report.bundle_seconds.push(start.elapsed().as_secs_f64());
    report.bundle_bytes.push(bundle.len());
    let start = monotonic();
    let verified = billing::verify_bundle(&bundle, &key);
    let took = start.elapsed().as_secs_f64();
    let verified = verified.map_err(|findings| Failure::new(findings.first().map(ToString::to_string).unwrap_or_default()))?;
    report.verify_leaves.push(verified.leaves);
    report.verify_leaves_per_second.push(verified.leaves as f64 / took);
    shutdown.cancel();
    serving.await.doing("Billing")?.doing("Billing")
}
