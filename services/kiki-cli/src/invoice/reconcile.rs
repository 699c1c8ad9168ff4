//! `kiki invoice reconcile`: what a platform says that it charged, or what Prometheus counted, against the log.
//!
//! Nothing is changed: what a difference calls for is `kiki budget adjust`, or `kiki budget reconcile` with the platform's report bid by bid.

mod prometheus;
mod report;
mod show;

use std::path::PathBuf;

use billing::domain::period::Month;
use billing::domain::reconcile::slots::{Day, Slots};
use kiki::clock::{Clock, UnixMicros};
use kiki::pb::billing::v1 as pb;
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::reconcile_request::Against;

use crate::error::{Doing as _, Failure, rpc};
use crate::out;
use prometheus::Prometheus;

/// What is held against the log.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Command {
    /// A platform's report of spend, by day and campaign.
    Platform(Platform),
    /// What Prometheus' counters rose by, by hour and campaign.
    Prometheus(Counters),
}

/// Whose figures, and how they are shown.
#[derive(Debug, Clone, clap::Args)]
struct Whose {
    /// The advertiser.
    #[arg(long)]
    client: String,
    /// Billing's address.
    #[arg(long, env = "KIKI_BILLING", default_value = "http://127.0.0.1:50054")]
    addr: String,
    /// Of the log's figure, parts per million: it may be off by so much.
    #[arg(long, default_value_t = 0)]
    tolerance_ppm: u32,
    /// One JSON object instead of text, with exact amounts.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, clap::Args)]
struct Platform {
    #[command(flatten)]
    whose: Whose,
    /// The platform, as rules and budgets name it.
    #[arg(long)]
    platform: String,
    /// CSV with the columns `date` (2026-01-31), `campaign` (as here), `currency` and `spend` (units of the currency), and `impressions` if it has
    /// them, in any order among others. Rows of one date, campaign and currency add up.
    #[arg(long)]
    report: PathBuf,
    /// IANA zone of the report's days: that of the ad account. An impression is of the day that its bid was made on.
    #[arg(long, default_value = "UTC")]
    zone: String,
    /// The month that the report is of, "2026-01". Without it, and without --first-day, the report's own first and last dates: then
    /// a day that is missing at either end is not noticed.
    #[arg(long, conflicts_with_all = ["first_day", "last_day"])]
    month: Option<Month>,
    /// The first day that the report is of.
    #[arg(long, requires = "last_day")]
    first_day: Option<Day>,
    /// The last.
    #[arg(long, requires = "first_day")]
    last_day: Option<Day>,
    /// In the currency's minor unit: a figure may be off by so much. It may always be off by what rounding explains.
    #[arg(long, default_value_t = 0)]
    tolerance_minor: u32,
}

#[derive(Debug, Clone, clap::Args)]
struct Counters {
    #[command(flatten)]
    whose: Whose,
    /// Prometheus' address, where it answers its HTTP API.
    #[arg(long, env = "KIKI_PROMETHEUS", default_value = "http://127.0.0.1:9090")]
    prometheus: String,
    /// Which counter.
    #[arg(long, value_enum, default_value = "spend")]
    counter: Counter,
    /// The first hour (UTC), as 2026-01-01T00:00:00Z.
    #[arg(long)]
    from: jiff::Timestamp,
    /// The end of the last hour: at most 745 hours later.
    #[arg(long)]
    until: jiff::Timestamp,
    /// The longest time from a record of the log to the scrape that shows it, seconds: the scrape interval and a little more. What was
    /// recorded so shortly before an hour's end may be counted in either hour.
    #[arg(long, default_value_t = 75)]
    scrape_seconds: u32,
    /// In the currency's minor unit: a figure may be off by so much. Counters are doubles.
    #[arg(long, default_value_t = 1)]
    tolerance_minor: u32,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Counter {
    /// `syncflow_spend_total`: what was charged by notices.
    Spend,
    /// `syncvalue_predicted_ltv_total`: predicted lifetime value of the customers acquired.
    PredictedLtv,
}

/// Runs the command.
///
/// # Errors
/// A report that cannot be read, what Billing refused, or that something differs.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Platform(args) => platform(args).await,
        Command::Prometheus(args) => counters(args).await,
    }
}

async fn counters(args: Counters) -> Result<(), Failure> {
    let instant = |at: jiff::Timestamp| UnixMicros(at.as_microsecond());
    let (from, until) = (instant(args.from), instant(args.until));
    Slots::hours(from, until).doing("--from, --until")?;
    if until > Clock::System.now() {
        out::warn(format_args!("{} is not over: what comes until then is on neither side", args.until));
    }
    let counter = match args.counter {
        Counter::Spend => pb::Counter::Spend,
        Counter::PredictedLtv => pb::Counter::PredictedLtv,
    };
    let rows = Prometheus::at(&args.prometheus).counted(counter, &args.whose.client, (from, until)).await?;
    let heading = format!("{} as counted, {} to {}", args.whose.client, args.from, args.until);
    let scrape_seconds = args.scrape_seconds;
    let counted = pb::Counted { counter: counter.into(), from: Some(from.into()), until: Some(until.into()), scrape_seconds, rows };
    let tolerance = pb::Tolerance { minor: args.tolerance_minor, ppm: args.whose.tolerance_ppm };
    ask(&args.whose, Against::Counted(counted), tolerance, show::Other { name: "counted", heading }).await
}

async fn platform(args: Platform) -> Result<(), Failure> {
    let name = args.report.display().to_string();
    let csv = std::fs::read(&args.report).doing(format_args!("reading {name}"))?;
    let rows = report::read(&name, &csv)?;
    let (first, last) = days(&args, &name, &rows)?;
    let heading = format!("{} on {}, {first} to {last} in {}", args.whose.client, args.platform, args.zone);
    let report = pb::PlatformSpend {
        platform: args.platform,
        zone: args.zone,
        first_day: first.to_string(),
        last_day: last.to_string(),
        rows: rows.into_iter().map(|row| row.spend).collect(),
    };
    let tolerance = pb::Tolerance { minor: args.tolerance_minor, ppm: args.whose.tolerance_ppm };
    ask(&args.whose, Against::PlatformSpend(report), tolerance, show::Other { name: "platform", heading }).await
}

/// The days that the report is of; all of its rows are of one of them.
fn days(args: &Platform, name: &str, rows: &[report::Row]) -> Result<(Day, Day), Failure> {
    let told = match (args.month, args.first_day.zip(args.last_day)) {
        (Some(month), _) => Some(report::days_of(month)?),
        (None, days) => days,
    };
    let own = rows.iter().map(|row| row.day).min().zip(rows.iter().map(|row| row.day).max());
    let (first, last) = told.or(own).ok_or_else(|| Failure::new(format!("{name}: no rows; name the days with --month or --first-day")))?;
    match rows.iter().find(|row| !(first..=last).contains(&row.day)) {
        Some(row) => Err(Failure::new(format!("{name}: row {}, column date: {} is not from {first} to {last}", row.number, row.day))),
        None => Ok((first, last)),
    }
}

/// Asks Billing, shows what it says, and fails where anything differs.
async fn ask(whose: &Whose, against: Against, tolerance: pb::Tolerance, other: show::Other) -> Result<(), Failure> {
    let channel = kiki::runtime::channel(&whose.addr).doing(&whose.addr)?;
    let mut billing = BillingServiceClient::new(channel).max_encoding_message_size(kiki::runtime::MAX_MESSAGE);
    let request = pb::ReconcileRequest { client: whose.client.clone(), against: Some(against), tolerance: Some(tolerance) };
    let failed = |status: tonic::Status| rpc("reconciling", &status);
    let mut stream = billing.reconcile(request).await.map_err(failed)?.into_inner();
    let (mut summary, mut differences) = (pb::ReconcileSummary::default(), Vec::new());
    while let Some(message) = stream.message().await.map_err(failed)? {
        summary = message.summary.unwrap_or(summary);
        differences.extend(message.differences);
    }
    out::say(if whose.json { show::json(&summary, &differences) } else { show::text(&other, &summary, &differences) });
    match differences.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{count} of {} figures differ", summary.compared))),
    }
}
