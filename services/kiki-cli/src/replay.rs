//! `kiki replay`: a month from bid requests to invoices, through the platform's public interfaces, on virtual time.
//!
//! The same seed and input give the same decisions, the same money and the same invoices, as long as no prediction came
//! late; how many did is counted, and any makes a run "not comparable". What the run leaves is enough to check it without
//! us: the log and its key, the invoices with their bundles, the exchange's own ledger, the terms.
//!
//! Not here: any shortcut into a service. Everything goes over gRPC and HTTP.

mod account;
pub(crate) mod auction;
mod clients;
mod drive;
pub(crate) mod events;
mod exchange;
pub(crate) mod generate;
mod journal;
mod outage;
mod plan;
mod report;
pub(crate) mod requests;
mod setup;
mod terms;

use std::path::{Path, PathBuf};

use billing::domain::invoice::Invoice;
use billing::domain::summary::Summary;
use kiki::clock::{Clock, VirtualClock};
use syncflow::config::Venues;

use crate::close::{Biller, summarise_month};
use crate::error::{Doing as _, Failure};
use crate::out;
use crate::platform::{self, Endpoints, LOCK, Platform, PlatformConfig, Ports};
use account::{Account, Counters};
use auction::{EXCHANGES, Rule};
use drive::{Faces, Run, Tally};
use journal::{Entry, Journal};
use plan::{MARKER, Plan, UNPLANNED};

/// How long a lease lives, seconds of virtual time. A request comes every two minutes of it, and a lease that ended between
/// two bids would be renewed for each.
const LEASE_TTL_SECS: u64 = 21_600;

/// Plays a month: bids, notices, purchases, invoices, and verifies what is left.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Folder of the run. One that an earlier replay made is replaced; any other must be empty.
    #[arg(long, env = "KIKI_REPLAY_DATA", default_value = "./kiki-replay")]
    pub data: PathBuf,
    /// Purchases, CSV of cust,date,items,spend. Without it a seeded generator's.
    #[arg(long)]
    pub events: Option<PathBuf>,
    /// Bid requests, a JSON document a line: {"request": {...}} or a bare body. Without it a seeded generator's.
    #[arg(long)]
    pub requests: Option<PathBuf>,
    /// Seed of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Budget of all campaigns together, in the currency. Without it more than the run spends.
    #[arg(long)]
    pub budget: Option<String>,
    /// How often the requests are played.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub rounds: u64,
    /// The month to invoice. Without it the first whole one with at least a third of the purchases before it.
    #[arg(long)]
    pub month: Option<String>,
    /// Currency of the purchases and campaigns.
    #[arg(long, default_value = "USD")]
    pub currency: String,
    /// Folder of the model that predicts values. Without it `kiki-model` where that was trained on these purchases, and the estimate otherwise.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Goes on with a run that was cut off, under the arguments that it began with; one that had not begun begins.
    #[arg(long)]
    pub resume: bool,
    /// Plays this in place of a month.
    #[arg(long, conflicts_with_all = ["events", "requests", "budget", "rounds", "month", "currency", "model", "resume", "seed"])]
    pub scenario: Option<Scenario>,
}

/// What can be played in place of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Scenario {
    /// SyncValue slows down to twice the deadline and recovers: what that does to bids, as a timeline.
    Outage,
}

/// Runs the replay and says what came of it.
///
/// # Errors
/// Input that cannot be read, a service that failed, or anything that the checks at the end find off.
pub async fn run(args: Args) -> Result<(), Failure> {
    let dir = std::path::absolute(&args.data).doing(format_args!("finding {}", args.data.display()))?;
    if dir.is_dir() {
        // A run that is still going on is neither resumed nor replaced.
        drop(platform::lock(&dir)?);
    }
    if let Some(Scenario::Outage) = args.scenario {
        fresh(&dir)?;
        return outage::run(&dir).await;
    }
    let plan = match args.resume.then(|| Plan::resume(&dir)).transpose()?.flatten() {
        Some(plan) => plan,
        None => {
            fresh(&dir)?;
            Plan::new(&args, &dir)?
        }
    };
    let played = play(&plan).await?;
    let checks = report::verify(&plan, &played);
    report::write(&plan, &played, &checks)?;
    out::say(report::text(&plan, &played, &checks));
    match checks.wrong.as_slice() {
        [] => Ok(()),
        wrong => Err(Failure::new(format!("something is off:\n  {}", wrong.join("\n  ")))),
    }
}

/// Empties a replay's folder but for its marker: cut off midway, it is still known as one.
fn clear(dir: &Path) -> std::io::Result<()> {
    for entry in dir.read_dir()? {
        let entry = entry?;
        match entry.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(entry.path())?,
            false if entry.file_name() != MARKER && entry.file_name() != LOCK => std::fs::remove_file(entry.path())?,
            false => {}
        }
    }
    Ok(())
}

/// What a run leaves for the report.
struct Played {
    tally: Tally,
    account: Account,
    counters: Counters,
    invoices: Vec<Invoice>,
    summary: Summary,
    seconds: f64,
}

/// Makes the folder, replacing what an earlier replay left there and nothing else.
fn fresh(dir: &Path) -> Result<(), Failure> {
    let name = dir.display();
    if dir.join(MARKER).is_file() {
        let _lock = platform::lock(dir)?;
        clear(dir).doing(format_args!("replacing {name}"))?;
    } else if dir.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Failure::new(format!("{name} is not empty and not an earlier replay's: name another folder with --data")));
    }
    std::fs::create_dir_all(dir).doing(format_args!("making {name}"))?;
    // From here on it is a replay's own, also when the run is cut off before its plan is made.
    std::fs::write(dir.join(MARKER), UNPLANNED).doing(format_args!("marking {name}"))
}

async fn play(plan: &Plan) -> Result<Played, Failure> {
    let start = kiki::clock::monotonic();
    let (mut journal, past) = Journal::open(&plan.dir)?;
    let clock = VirtualClock::at(plan.begin.max(past.until));
    if !past.ready {
        terms::write(plan, &plan.dir)?;
        on_platform(plan, &clock, async |at: Endpoints| {
            setup::put(plan, open(&at.shield)?).await?;
            setup::observe(plan, open(&at.value)?).await
        })
        .await?;
        journal.add(&Entry::Ready { at: plan.begin })?;
    }
    on_platform(plan, &clock, async |at: Endpoints| {
        setup::taken_in(open(&at.flow)?).await?;
        let faces = Faces {
            clock: clock.clone(),
            flow_http: at.flow_http.clone(),
            flow: open(&at.flow)?,
            value: open(&at.value)?,
            billing: open(&at.billing)?,
        };
        let bar = out::bar("bid requests", plan.requests_total());
        let tally = Run::new(plan, journal, past, faces)?.drive(&bar).await;
        bar.finish_and_clear();
        let tally = tally?;
        terms::write_clicks(&plan.dir, &tally.clicks)?;
        let (invoices, summary) = save(plan, &mut Biller::new(open(&at.billing)?), &tally.invoices).await?;
        let account = Account::read(open(&at.shield)?).await?;
        let counters = Counters::read(&at.flow_http).await?;
        Ok(Played { tally, account, counters, invoices, summary, seconds: start.elapsed().as_secs_f64() })
    })
    .await
}

fn open(address: &str) -> Result<tonic::transport::Channel, Failure> {
    kiki::runtime::channel(address).doing(address)
}

/// Starts the platform on the run's folder, does something with it, and stops it.
async fn on_platform<T>(plan: &Plan, clock: &VirtualClock, task: impl AsyncFnOnce(Endpoints) -> Result<T, Failure>) -> Result<T, Failure> {
    let exchanges = |rule: Rule| EXCHANGES.iter().filter(move |exchange| exchange.rule == rule);
    let config = PlatformConfig {
        clock: Clock::Virtual(clock.clone()),
        ports: Ports::Auto,
        lease_ttl_secs: LEASE_TTL_SECS,
        venues: Venues {
            platforms: EXCHANGES.iter().map(|exchange| format!("{}={}", exchange.id, exchange.platform)).collect(),
            settle_on_win: exchanges(Rule::FirstOnWin).map(|exchange| exchange.id.to_owned()).collect(),
            ..Venues::default()
        },
        model: Some(plan.dir.join(&plan.settings.model)).filter(|_| plan.settings.model != PathBuf::new()),
        ..PlatformConfig::new(&plan.dir)
    };
    let platform = Platform::start(config).await?;
    // A service that fails shows as failing calls first; its own error says more.
    let done = tokio::select! {
        biased;
        () = platform.shutdown.cancelled() => Err(Failure::new("the platform stopped")),
        done = task(platform.endpoints.clone()) => done,
    };
    match (done, platform.stop().await) {
        (done, Ok(())) => done,
        (Ok(_), Err(stopped)) => Err(stopped),
        (Err(first), Err(stopped)) => Err(Failure::new(format!("{first}; {stopped}"))),
    }
}

/// Writes the month's files.
async fn save(plan: &Plan, biller: &mut Biller, numbers: &[String]) -> Result<(Vec<Invoice>, Summary), Failure> {
    let folder = plan.dir.join("invoices");
    std::fs::create_dir_all(&folder).doing(format_args!("making {}", folder.display()))?;
    let mut invoices = Vec::new();
    for number in numbers {
        invoices.push(biller.save(&folder, number).await?);
    }
    let summary = summarise_month(&folder, &plan.settings.month, &invoices)?;
    Ok((invoices, summary))
}
