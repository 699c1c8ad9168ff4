//! Servers that bid on some cores, and [an exchange](crate::exchange) that asks them on others, so that neither takes the other's time.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use tokio_util::sync::CancellationToken;

use super::Folder;
use super::child::{Platform, Server};
use super::cores::{self, Cores};
use super::openrtb::biddable;
use super::quiet::{Disturbed, Quiet};
use super::scene::Scene;
use super::service_time::ServiceTime;
use crate::error::{Doing as _, Failure};
use crate::exchange::{self, Asked, Phase, Tally};
use crate::http::Http;
use crate::platform::Endpoints;

/// The first rate that is tried, requests a second, and by how much more each further one is.
const FIRST_RATE: f64 = 1_000.0;
const STEP: f64 = 1.4;
/// Steps at the most: to 150,000 a second.
const STEPS: u32 = 16;
/// Once so many times as many were asked for as bids were ever made, the servers are saturated.
const BEYOND: f64 = 2.0;
/// Steps at the least: at the first the machine may have been busy with something else.
const LEAST_STEPS: u32 = 4;
/// How long each step takes.
const STEP_TIME: Duration = Duration::from_secs(2);
const REQUESTS: u64 = 1_024;
/// SyncFlow's histograms of the time from when a request is looked at, and from its arrival on.
pub(super) const INSIDE: [&str; 2] = ["syncflow_service_seconds", "syncflow_response_seconds"];

/// What the servers and the exchange are given.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Setting {
    /// What of tmax is for the way there and back, milliseconds: the servers answer so much earlier, or not with a bid.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub(super) network_allowance_ms: u32,
    /// Customers that the requests are for; each has bought before.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(super) customers: u32,
    #[command(flatten)]
    platform: Platform,
    /// Where the servers' data folder is made, and removed afterwards.
    #[arg(long, default_value = ".")]
    pub(super) scratch: PathBuf,
    #[command(flatten)]
    pub(super) quiet: Quiet,
}

/// The folder of a run, with the requests that are sent.
pub(super) struct Stage {
    folder: Folder,
    requests: PathBuf,
}

impl Stage {
    pub(super) fn new(setting: &Setting, nth: u16) -> Result<Self, Failure> {
        let folder = Folder(setting.scratch.join(format!("kiki-bench-{}-{nth}", std::process::id())));
        std::fs::create_dir(&folder.0).doing(format_args!("making {}", folder.0.display()))?;
        let requests = folder.0.join("requests.jsonl");
        let lines: String = (0..REQUESTS).map(|line| format!("{}\n", biddable(line))).collect();
        std::fs::write(&requests, lines).doing(format_args!("writing {}", requests.display()))?;
        Ok(Self { folder, requests })
    }

    /// A folder in it.
    fn data(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }
}

/// An exchange, and whom it asks.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    cores: Cores,
    args: exchange::Args,
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    args: exchange::Args,
}

impl Asking {
    /// One on these cores, with so many requests under way at the most.
    pub(super) fn new(cores: &Cores, stage: &Stage, setting: &Setting, tmax_ms: u32, in_flight: u32) -> Result<Self, Failure> {
        let [requests, customers] = [stage.requests.display().to_string(), setting.customers.to_string()];
        let [tmax, in_flight] = [tmax_ms, in_flight].map(|number| number.to_string());
        let options = ["exchange", "--late", "0", "--requests", &requests, "--customers", &customers];
        let more = ["--tmax", &tmax, "--in-flight", &in_flight];
        let Options { args } = Options::try_parse_from(options.into_iter().chain(more)).doing("the exchange's options")?;
        Ok(Self { cores: cores.clone(), args })
    }

    /// The same, of a server at this address.
    pub(super) fn of(&self, url: &str) -> Self {
        Self { args: exchange::Args { url: url.to_owned(), ..self.args.clone() }, ..self.clone() }
    }

    /// At these rates, one behind the other.
    pub(super) async fn ask(&self, phases: Vec<Phase>, seen: impl FnMut(&Asked) + Send + 'static) -> Result<Tally, Failure> {
        let args = self.args.clone();
        let stop = CancellationToken::new();
        let (stopped, _stops) = (stop.clone(), stop.drop_guard());
        cores::run_on(&self.cores, move || async move { exchange::play(&args, phases, stopped, |_| (), seen).await }).await?
    }
}

/// Servers that bid, and an exchange that asks them.
pub(super) struct Pair {
    servers: Server,
    at: Endpoints,
    asking: Asking,
}

impl Pair {
    /// Servers on these cores, with their data in a folder of that name. They have bid for each customer. A model's predictions hold until
    /// midnight, so SyncFlow asks about none of up to some 65,000 customers again; an estimate holds for a second.
    pub(super) async fn start(cores: &Cores, asking: &Asking, setting: &Setting, stage: &Stage, name: &str) -> Result<Self, Failure> {
        let allowance = setting.network_allowance_ms.to_string();
        let more = ["--network-allowance-ms", &allowance];
        let (servers, at) = setting.platform.start(Some(cores), &stage.data(name), &more)?;
        Scene::set(&at, setting.customers).await?.bid_for_each().await?;
        let asking = asking.of(&format!("{}/openrtb2/bench-exchange", at.flow_http));
        Ok(Self { servers, at, asking })
    }

    /// The servers' process.
    pub(super) fn pid(&self) -> u32 {
        self.servers.pid()
    }

    /// None where the servers do not say.
    pub(super) async fn inside(&self) -> Option<[ServiceTime; 2]> {
        let text = Http::new().get(&format!("{}/metrics", self.at.flow_http)).await.ok()?.body;
        let [service, response] = INSIDE.map(|metric| ServiceTime::read(&text, metric, "").ok());
        Some([service?, response?])
    }

    /// What is known, or else the most bids a second, as the rate is raised to well beyond that.
    pub(super) async fn saturation(&self, known: Option<u32>, quiet: &Quiet, disturbed: &mut Disturbed) -> Result<f64, Failure> {
        if let Some(known) = known {
            return Ok(known.into());
        }
        let (mut best, mut rate): (f64, f64) = (0.0, FIRST_RATE);
        for step in 0..STEPS {
            let asked = async || self.asking.ask(vec![Phase { rate, duration: STEP_TIME }], |_| ()).await;
            let tally = quiet.measure(disturbed, asked).await?;
            best = best.max((tally.with_bids + tally.late_bids()) as f64 / tally.elapsed.as_secs_f64().max(f64::MIN_POSITIVE));
            if step + 1 >= LEAST_STEPS && rate >= BEYOND * best {
                break;
            }
            rate *= STEP;
        }
        if best > 0.0 { Ok(best) } else { Err(Failure::new(format!("no bid at {FIRST_RATE} requests a second and more"))) }
    }

    /// The exchange that asks them.
    pub(super) fn asking(&self) -> &Asking {
        &self.asking
    }
}

impl Tally {
    /// Requests that were answered with bids too late: each has one impression.
    pub(super) fn late_bids(&self) -> u64 {
        self.money.values().map(|money| money.late_bids.count).sum()
    }

    /// Requests that were sent away in time: without a bid, or by a status that says so.
    pub(super) fn shed(&self) -> u64 {
        let told = |status: &str| self.errors.get(status).copied().unwrap_or(0);
        self.in_time.saturating_sub(self.with_bids) + told("429") + told("503")
    }
}
