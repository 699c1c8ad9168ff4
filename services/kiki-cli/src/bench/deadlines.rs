//! `kiki bench deadlines`: answers within an exchange's deadline, at half of what the servers can take and at three times that.
//!
//! The servers are on some cores and [`kiki exchange`](crate::exchange) on others, so that neither takes the other's time. Too much
//! is asked of servers on one core, where whatever they do is in their own way; half of what they can take, of servers on half of
//! the cores. What they can take is the most bids that they make there, a second, as the rate of requests is raised; whether those
//! come in time is what is asked then. Each part of a run starts its own servers; a figure is the median over the runs.
//!
//! What half of it does to the answers, it does in part to those of any server: the machine wakes nobody at once. So a server that answers
//! each request with 204 and does nothing else is asked as much on the same cores, right behind it.

mod report;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

use super::Folder;
use super::child::Server;
use super::cores::{self, Cores};
use super::no_content;
use super::openrtb::biddable;
use super::scene::Scene;
use super::service_time::ServiceTime;
use crate::error::{Doing as _, Failure};
use crate::http::Http;
use crate::out;
use crate::platform::Endpoints;
use report::{Report, Run};

/// The first rate that is tried, requests a second, and by how much more each further one is.
const FIRST_RATE: f64 = 1_000.0;
const STEP: f64 = 1.4;
/// Steps at the most: to 150,000 a second.
const STEPS: u32 = 16;
/// Twice in a row fewer bids than this share of the requests, and the servers are saturated; once, the machine may have been
/// busy with something else.
const KEPT_UP: f64 = 0.9;
/// How long each step takes, seconds.
const STEP_SECONDS: f64 = 2.0;
/// Requests under way at the most.
const IN_FLIGHT: &str = "1024";
const REQUESTS: u64 = 1_024;
const SERVICE_TIME: &str = "syncflow_service_seconds";

/// How the deadlines are tried.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Cores of the servers that are asked for three times what they can take: "0", "0-1" or "0,2".
    #[arg(long, default_value_t = cores::first(1))]
    server_cores: Cores,
    /// Cores of the exchange that asks them.
    #[arg(long, default_value_t = cores::but_first(1))]
    exchange_cores: Cores,
    /// Cores of the servers that are asked for half of what they can take.
    #[arg(long, default_value_t = cores::first(cores::here() / 2))]
    half_server_cores: Cores,
    /// Cores of the exchange that asks those.
    #[arg(long, default_value_t = cores::but_first(cores::here() / 2))]
    half_exchange_cores: Cores,
    /// How often everything is done. Odd, for medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
    /// How long each of the two rates is kept up, seconds.
    #[arg(long, default_value_t = 10.0, value_parser = super::bids::seconds)]
    seconds: f64,
    /// How long an answer may take, milliseconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    tmax: u32,
    /// What of that is for the way there and back, milliseconds: the servers answer so much earlier, or not with a bid.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    network_allowance_ms: u32,
    /// What the servers on `--server-cores` can take, requests a second, where that is known; without it, it is found in each run.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    saturation: Option<u32>,
    /// What those on `--half-server-cores` can take.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    half_saturation: Option<u32>,
    /// Customers that the requests are for; each has bought before.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    customers: u32,
    /// Folder of the model that predicts, as `kiki train` writes it. Without it the estimate does, which needs none.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Where the servers' data folder is made, and removed afterwards.
    #[arg(long, default_value = ".")]
    scratch: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures, and prints the figures.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let progress = out::bar("bench deadlines", u64::from(args.runs));
    let mut runs = Vec::new();
    for nth in 0..args.runs {
        runs.push(one(&args, nth).await?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Report::new(&args, &runs).print(args.json)
}

async fn one(args: &Args, nth: u16) -> Result<Run, Failure> {
    let folder = Folder(args.scratch.join(format!("kiki-bench-{}-{nth}", std::process::id())));
    std::fs::create_dir(&folder.0).doing(format_args!("making {}", folder.0.display()))?;
    let requests = folder.0.join("requests.jsonl");
    let lines: String = (0..REQUESTS).map(|line| format!("{}\n", biddable(line))).collect();
    std::fs::write(&requests, lines).doing(format_args!("writing {}", requests.display()))?;
    let cores = (&args.half_server_cores, &args.half_exchange_cores);
    let pair = Pair::start(args, cores, &folder.0.join("half"), &requests).await?;
    let half_saturation = pair.saturation(args.half_saturation).await?;
    let before = pair.service_time().await;
    let half = pair.ask(half_saturation / 2.0, args.seconds).await?;
    let inside = pair.service_time().await.zip(before).map(|(after, before)| after.since(&before).quantile_us(0.999));
    drop(pair);
    let (bare, url) = no_content::start_on(Some(&args.half_server_cores))?;
    let bare_half = ask(args, &args.half_exchange_cores, &requests, &url, (half_saturation / 2.0, args.seconds)).await?;
    drop(bare);
    let cores = (&args.server_cores, &args.exchange_cores);
    let pair = Pair::start(args, cores, &folder.0.join("triple"), &requests).await?;
    let saturation = pair.saturation(args.saturation).await?;
    let triple = pair.ask(saturation * 3.0, args.seconds).await?;
    Ok(Run { half_saturation, half, inside, bare_half, saturation, triple })
}

/// What `kiki exchange --json` says, as far as it is used here.
#[derive(Debug, Clone, Default, Deserialize)]
struct Books {
    requests: u64,
    not_sent: u64,
    elapsed_s: f64,
    in_time: u64,
    late: u64,
    with_bids: u64,
    latency_us_p50: u64,
    latency_us_p99: u64,
    latency_us_p999: u64,
    errors_by_status: BTreeMap<String, u64>,
    money: BTreeMap<String, Money>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Money {
    late_bids: Sum,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Sum {
    count: u64,
}

impl Books {
    /// Requests that were answered with bids too late: each has one impression.
    fn late_bids(&self) -> u64 {
        self.money.values().map(|money| money.late_bids.count).sum()
    }

    /// Requests that were sent away in time: without a bid, or by a status that says so.
    fn shed(&self) -> u64 {
        let told = |status: &str| self.errors_by_status.get(status).copied().unwrap_or(0);
        self.in_time.saturating_sub(self.with_bids) + told("429") + told("503")
    }
}

/// Servers that bid, and an exchange that asks them.
struct Pair<'a> {
    args: &'a Args,
    _servers: Server,
    at: Endpoints,
    exchange: &'a Cores,
    requests: &'a Path,
}

impl<'a> Pair<'a> {
    async fn start(args: &'a Args, (servers, exchange): (&'a Cores, &'a Cores), data: &Path, requests: &'a Path) -> Result<Self, Failure> {
        let (data, model) = (data.display().to_string(), args.model.as_ref().map(|model| model.display().to_string()));
        let allowance = args.network_allowance_ms.to_string();
        let mut command = vec!["up", "--ports", "auto", "--data", &data, "--network-allowance-ms", &allowance];
        model.iter().for_each(|model| command.extend(["--model", model]));
        let (_servers, lines) = Server::start_on(Some(servers), &command)?;
        let at = Endpoints::of_table(&lines)?;
        Scene::set(&at, args.customers).await?;
        Ok(Self { args, _servers, at, exchange, requests })
    }

    /// None where the servers do not say.
    async fn service_time(&self) -> Option<ServiceTime> {
        let text = Http::new().get(&format!("{}/metrics", self.at.flow_http)).await.ok()?.body;
        ServiceTime::read(&text, SERVICE_TIME, "").ok()
    }

    /// What is known, or else the most bids a second, as the rate is raised until they no longer keep up with it.
    async fn saturation(&self, known: Option<u32>) -> Result<f64, Failure> {
        if let Some(known) = known {
            return Ok(known.into());
        }
        let (mut best, mut rate, mut behind): (f64, f64, u32) = (0.0, FIRST_RATE, 0);
        for _ in 0..STEPS {
            let books = self.ask(rate, STEP_SECONDS).await?;
            let bids = (books.with_bids + books.late_bids()) as f64 / books.elapsed_s.max(f64::MIN_POSITIVE);
            best = best.max(bids);
            behind = if bids < KEPT_UP * rate { behind + 1 } else { 0 };
            if behind == 2 {
                break;
            }
            rate *= STEP;
        }
        if best > 0.0 { Ok(best) } else { Err(Failure::new(format!("no bid at {FIRST_RATE} requests a second and more"))) }
    }

    async fn ask(&self, rate: f64, seconds: f64) -> Result<Books, Failure> {
        let url = format!("{}/openrtb2/bench-exchange", self.at.flow_http);
        ask(self.args, self.exchange, self.requests, &url, (rate, seconds)).await
    }
}

/// Runs `kiki exchange` on its cores, at a rate.
async fn ask(args: &Args, cores: &Cores, requests: &Path, url: &str, (rate, seconds): (f64, f64)) -> Result<Books, Failure> {
    let program = std::env::current_exe().doing("finding this program")?;
    let mut command = Command::new(program);
    let [rate, seconds, tmax, customers] = [format!("{rate:.1}"), seconds.to_string(), args.tmax.to_string(), args.customers.to_string()];
    command.args(["exchange", "--json", "--url", url, "--rate", &rate, "--duration", &seconds, "--tmax", &tmax]);
    command.args(["--customers", &customers, "--in-flight", IN_FLIGHT, "--late", "0", "--requests"]).arg(requests);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let cores = cores.clone();
    let run = tokio::task::spawn_blocking(move || cores::spawn_on(Some(&cores), &mut command)?.wait_with_output());
    let output = run.await.doing("kiki exchange")?.doing("kiki exchange")?;
    if !output.status.success() {
        return Err(Failure::new(format!("kiki exchange: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    serde_json::from_slice(&output.stdout).doing("reading what kiki exchange said")
}
