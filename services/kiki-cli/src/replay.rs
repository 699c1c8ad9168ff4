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
mod site;
mod terms;

use std::path::{Path, PathBuf};

use billing::domain::invoice::Invoice;
use billing::domain::summary::Summary;
use kiki::tlog::note::VerifyingKey;

use crate::close::{Biller, summarise_month};
use crate::error::{Doing as _, Failure};
use crate::out;
use crate::platform::{self, LOCK};
use account::{Account, Counters};
use drive::{Run, Tally};
use journal::{Entry, Journal, Past};
use plan::{MARKER, Plan, UNPLANNED};
pub use site::Against;
use site::Site;

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
    #[arg(long, conflicts_with_all = ["events", "requests", "budget", "rounds", "month", "currency", "model", "resume", "seed", "against"])]
    pub scenario: Option<Scenario>,
    /// The platform, where it is not one of this process.
    #[command(flatten)]
    pub against: Against,
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
    if args.against.print_env {
        out::say(args.against.env());
        return Ok(());
    }
    let site = args.against.against.then(|| args.against.site()).transpose()?;
    let dir = std::path::absolute(&args.data).doing(format_args!("finding {}", args.data.display()))?;
    if dir.is_dir() {
        // A run that is still going on is neither resumed nor replaced.
        drop(platform::lock(&dir)?);
    }
    if let Some(Scenario::Outage) = args.scenario {
        fresh(&dir)?;
        return outage::run(&dir).await;
    }
    let plan = match args.resume.then(|| Plan::resume(&dir, site.is_some())).transpose()?.flatten() {
        Some(plan) => plan,
        None => {
            if let Some(site) = &site {
                site.untouched().await?;
            }
            fresh(&dir)?;
            Plan::new(&args, &dir)?
        }
    };
    let played = play(&plan, site).await?;
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
    /// Of a log that is elsewhere: its key, and how many of the leaves that were read it has signed, or why they are not believed.
    signed: Option<(VerifyingKey, Result<u64, String>)>,
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

async fn play(plan: &Plan, site: Option<Site>) -> Result<Played, Failure> {
    let (journal, past) = Journal::open(&plan.dir)?;
    let Some(site) = site else {
        return site::on_platform(plan, plan.begin.max(past.until), async |site| month(plan, &site, journal, past).await).await;
    };
    let _lock = platform::lock(&plan.dir)?; // as a platform would hold it
    month(plan, &site, journal, past).await
}

/// The month from its set-up to its invoices.
async fn month(plan: &Plan, site: &Site, mut journal: Journal, past: Past) -> Result<Played, Failure> {
    let start = kiki::clock::monotonic();
    if !past.ready {
        terms::write(plan, &plan.dir)?;
        site.advance_to(plan.begin).await?;
        setup::put(plan, open(&site.at.shield)?).await?;
        setup::observe(plan, open(&site.at.value)?).await?;
        journal.add(&Entry::Ready { at: plan.begin })?;
    }
    setup::taken_in(&site.at).await?;
    let bar = out::bar("bid requests", plan.requests_total());
    let tally = Run::new(plan, journal, past, site)?.drive(&bar).await;
    bar.finish_and_clear();
    let tally = tally?;
    terms::write_clicks(&plan.dir, &tally.clicks)?;
    let (invoices, summary) = save(plan, &mut Biller::new(open(&site.at.billing)?), &tally.invoices).await?;
    let mut account = Account::read(open(&site.at.shield)?, &site.log_id).await?;
    let signed = match &site.key {
        Some(key) => Some((key.clone(), account.signed(open(&site.at.shield)?, key).await)),
        None => None,
    };
    let counters = Counters::read(&site.at.flow_http).await?;
    Ok(Played { tally, account, counters, invoices, summary, signed, seconds: start.elapsed().as_secs_f64() })
}

fn open(address: &str) -> Result<kiki::runtime::Channel, Failure> {
    kiki::runtime::channel(address).doing(address)
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
