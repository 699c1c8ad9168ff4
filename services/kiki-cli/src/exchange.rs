//! `kiki exchange`: an exchange that asks a bidder for bids over HTTP, holds auctions against seeded competitors, sends notices
//! with the faults of the field, and keeps the books.
//!
//! Requests fall due by a schedule that does not wait for answers, so that a slow bidder is asked as often as a fast one. An
//! answer after tmax is in no auction. What the bidder owes is the sum of what was cleared of the impressions that were charged,
//! and each of those is accounted for by what became of its notice, so that it can be held against the bidder's own books to the
//! nano.
//!
//! Not here: private deals (every auction is open), and conversion between currencies: each currency has its own books.

mod answer;
mod auction;
mod drive;
mod hall;
mod notice;
mod post;
mod report;
mod request;
mod tally;

use std::path::PathBuf;
use std::time::Duration;

use kiki::clock::Clock;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::error::Failure;
use crate::http::Http;
use crate::out;
use crate::random::Draws;
use crate::replay::generate;
use crate::replay::requests::Requests;
use auction::Rule;
pub(crate) use drive::{Asked, Outcome, Phase};
use drive::{Exchange, Schedule};
use notice::{Charge, Faults};
pub(crate) use tally::Tally;

pub(crate) use auction::Market;
pub use request::Format;
pub(crate) use request::Template;

/// Requests that the generator makes; they are sent in turn.
const GENERATED: u64 = 4_096;
/// Connections of HTTP/2.
const CONNECTIONS: usize = 4;

/// Plays an exchange to a bidder.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Where bids are asked for.
    #[arg(long, env = "KIKI_EXCHANGE_URL", default_value = "http://127.0.0.1:8080/openrtb2/exchange")]
    pub url: String,
    /// Bid requests, a JSON document a line: {"request": {...}} or a bare body; sent in turn. Without it a seeded generator's.
    #[arg(long)]
    pub requests: Option<PathBuf>,
    /// Seed of everything that is drawn: arrivals, customers, competitors, faults.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Requests a second, on average; the times between them are exponential.
    #[arg(long, default_value_t = 100.0, value_parser = rate)]
    pub rate: f64,
    /// For how long requests fall due, seconds; the last notices go out afterwards.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    pub duration: f64,
    /// As many requests at the most.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    pub count: u64,
    /// Requests under way at the most; one that falls due beyond is not sent, and counted.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: u32,
    /// How requests and answers are written.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    pub format: Format,
    /// Pack the requests.
    #[arg(long)]
    pub gzip: bool,
    /// Speak HTTP/2, over four connections, instead of HTTP/1.1 with keep-alive.
    #[arg(long)]
    pub http2: bool,
    /// How long an answer may take, milliseconds from when its request was due.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub tmax: u32,
    /// What the winner pays. Without it each request's own `at` says, second price where it says nothing.
    #[arg(long, value_enum)]
    pub auction: Option<Rule>,
    /// Which notice charges.
    #[arg(long, value_enum, default_value_t = Charge::Bill)]
    pub charge: Charge,
    /// Requests are for so many customers, customer-0000000 and so on; without it for those that they name.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub customers: Option<u32>,
    /// Median floor of generated requests, as a CPM.
    #[arg(long, default_value_t = 0.5, value_parser = cpm)]
    pub floor: f64,
    /// Median over the placements of what each competitor offers, as a CPM.
    #[arg(long, default_value_t = 2.0, value_parser = cpm)]
    pub competing: f64,
    /// Competitors in an auction, at the most.
    #[arg(long, default_value_t = 3)]
    pub competitors: u8,
    /// What goes wrong with notices.
    #[command(flatten)]
    pub faults: Faults,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    pub json: bool,
}

fn rate(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|rate| (0.01..=1e6).contains(rate)).ok_or_else(|| "from 0.01 to 1000000".to_owned())
}

fn cpm(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|cpm| (0.0..=1e6).contains(cpm)).ok_or_else(|| "from 0 to 1000000".to_owned())
}

fn seconds(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds)).ok_or_else(|| "from 0 to 86400".to_owned())
}

/// Runs it, and says what came of it. Interrupted, it sends no more requests, and ends once the last notice was sent.
///
/// # Errors
/// Requests that cannot be read, or a bidder that answered none.
pub async fn run(args: Args) -> Result<(), Failure> {
    let stop = CancellationToken::new();
    let interrupted = stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupted.cancel();
        }
    });
    let expected = (args.rate * args.duration) as u64;
    let bar = out::bar("bid requests", expected.min(args.count));
    let drawn = bar.clone();
    let phase = Phase { rate: args.rate, duration: Duration::from_secs_f64(args.duration) };
    let tally = play(&args, vec![phase], stop, move |number| drawn.set_position(number), |_| ()).await;
    bar.finish_and_clear();
    let tally = tally?;
    report::print(&args, &tally)?;
    match tally.in_time + tally.late {
        0 => Err(Failure::new(format!("{}: no request was answered", args.url))),
        _ => Ok(()),
    }
}

/// Runs it until the phases have ended, or `stop`, and all notices were sent. The rate and the duration are the phases'.
pub(crate) async fn play(
    args: &Args,
    phases: Vec<Phase>,
    stop: CancellationToken,
    progress: impl Fn(u64) + Send + 'static,
    seen: impl FnMut(&Asked),
) -> Result<Tally, Failure> {
    let tally = drive::run(exchange(args, phases)?, stop, progress, seen).await?;
    match tally.money.iter().find(|(_, money)| !money.adds_up()) {
        Some((currency, money)) => Err(Failure::new(format!("the books do not add up in {currency}: {money:?}"))),
        None => Ok(tally),
    }
}

fn exchange(args: &Args, phases: Vec<Phase>) -> Result<Exchange, Failure> {
    let market = Market { seed: args.seed, median: args.competing * 1e6, most: args.competitors };
    let template = |body| Template::new(body, args.format, args.auction, args.tmax, &market);
    let templates: Result<Vec<Template>, Failure> = bodies(args)?.into_iter().map(template).collect();
    let clients = if args.http2 { (0..CONNECTIONS).map(|_| Http::http2()).collect() } else { vec![Http::new()] };
    Ok(Exchange {
        url: args.url.clone(),
        clients,
        templates: templates?,
        format: args.format,
        gzip: args.gzip,
        market,
        charge: args.charge,
        faults: args.faults,
        tmax: Duration::from_millis(args.tmax.into()),
        customers: args.customers,
        // A bidder may remember a request by its id: microseconds apart, runs share none.
        run: Clock::System.now().0 as u64,
        schedule: Schedule { phases, count: args.count, in_flight: args.in_flight as usize },
    })
}

/// The file's requests but for those that it says are to be refused, or the generator's.
fn bodies(args: &Args) -> Result<Vec<Value>, Failure> {
    let Some(path) = &args.requests else {
        let one = |line| generate::request(&mut Draws::of(args.seed, "request", &[line]), line, args.floor);
        return Ok((0..GENERATED).map(one).collect());
    };
    let bodies: Vec<Value> = Requests::read(path)?.lines.into_iter().filter(|line| !line.known_bad).map(|line| line.body).collect();
    if bodies.is_empty() { Err(Failure::new(format!("{} has no request that is to be answered", path.display()))) } else { Ok(bodies) }
}

#[cfg(test)]
mod tests;
