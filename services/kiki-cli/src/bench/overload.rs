//! `kiki bench overload`: three times as many bid requests as the servers can take, between two spells of a fifth of that.
//!
//! The servers are on one core and [the exchange](crate::exchange) that asks them on the others. It asks over HTTP, by a schedule
//! that no answer holds up, and a request's time is from when it was due; notices of its auctions come on top, and are not turned
//! away. One schedule holds the calm, the overload and the calm again, without a gap, so that recovery begins when the overload ends;
//! ahead of it half a second of overload makes the connections that an exchange has, and does not count.
//! Admitted is what got a bid, or none for another reason than that there were too many.
//!
//! What the machine and the exchange themselves add to the answers is seen from a server of 204s that is asked by the same schedule on
//! the same cores. Each run starts its own servers and finds what they can take; a figure is the median over the runs.

mod course;
mod report;

use std::sync::mpsc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::cores::{self, Cores};
use super::pair::{Asking, Pair, Setting, Stage};
use super::quiet::Disturbed;
use super::{machine, no_content};
use crate::error::Failure;
use crate::exchange::Asked;
use crate::out;
use course::{Course, Seen};
use report::{Report, Run};

/// Requests under way at the most: 0.2 s of 20,000 a second. Each has a connection of its own.
const IN_FLIGHT: u32 = 4_096;
/// How often the servers' memory is looked at during the overload.
const LOOK: Duration = Duration::from_millis(50);

/// How the servers are overloaded.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Cores of the servers: "0", "0-1" or "0,2".
    #[arg(long, default_value_t = cores::first(1))]
    server_cores: Cores,
    /// Cores of the exchange.
    #[arg(long, default_value_t = cores::but_first(1))]
    exchange_cores: Cores,
    /// What the servers can take, requests a second, where that is known; without it, it is found in each run.
    #[arg(long, value_parser = clap::value_parser!(u32).range(10..=300_000))]
    capacity: Option<u32>,
    /// How often everything is done. Odd, for medians.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    runs: u16,
    /// How long the overload lasts, seconds; the calm before it and behind it last half of it each.
    #[arg(long, default_value_t = 10.0, value_parser = super::bids::seconds)]
    seconds: f64,
    /// How long an answer may take, milliseconds.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    tmax: u32,
    #[command(flatten)]
    setting: Setting,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Measures, and prints the figures.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let progress = out::bar("bench overload", u64::from(args.runs));
    let mut runs = Vec::new();
    for nth in 0..args.runs {
        runs.push(one(&args, nth).await?);
        progress.inc(1);
    }
    progress.finish_and_clear();
    Report::new(&args, &runs).print(args.json)
}

async fn one(args: &Args, nth: u16) -> Result<Run, Failure> {
    let (quiet, mut disturbed) = (&args.setting.quiet, Disturbed::default());
    let stage = Stage::new(&args.setting, nth)?;
    let asking = Asking::new(&args.exchange_cores, &stage, &args.setting, args.tmax, IN_FLIGHT)?;
    let pair = Pair::start(&args.server_cores, &asking, &args.setting, &stage, "data").await?;
    let capacity = pair.saturation(args.capacity, quiet, &mut disturbed).await?;
    let course = Course::new(capacity, Duration::from_secs_f64(args.seconds));
    let overloaded = async || {
        let (asked, memory) = tokio::join!(seen(pair.asking(), &course), memory(pair.pid(), &course));
        let (seen, not_sent) = asked?;
        Ok((course.figures(&seen), not_sent, memory?))
    };
    let (figures, not_sent, memory) = quiet.measure(&mut disturbed, overloaded).await?;
    drop(pair);
    let (bare, url) = no_content::start_on(Some(&args.server_cores))?;
    let asked = async || seen(&asking.of(&url), &course).await;
    let (seen_of_bare, _) = quiet.measure(&mut disturbed, asked).await?;
    drop(bare);
    Ok(Run { capacity, figures, not_sent, bare: course.figures(&seen_of_bare), memory, disturbed })
}

/// What was seen of each request of the course, and how many were not sent.
async fn seen(asking: &Asking, course: &Course) -> Result<(Vec<Seen>, u64), Failure> {
    let (see, seen) = mpsc::channel();
    let see = move |asked: &Asked| {
        let _ = see.send(Seen::of(asked)); // who listens is below
    };
    let tally = asking.ask(course.phases(), see).await?;
    Ok((seen.into_iter().collect(), tally.not_sent))
}

/// The servers' resident memory, bytes.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// Right before the overload.
    before: u64,
    /// The most during it and after it.
    peak: u64,
    /// At the end of the calm behind it.
    after: u64,
}

/// Looks at it as the course goes on.
async fn memory(pid: u32, course: &Course) -> Result<Memory, Failure> {
    let start = Instant::now();
    sleep_until(start + course.overload().start).await;
    let before = machine::resident(pid)?;
    let (mut peak, mut after) = (before, before);
    while start.elapsed() < course.end() {
        sleep(LOOK).await;
        after = machine::resident(pid)?;
        peak = peak.max(after);
    }
    Ok(Memory { before, peak, after })
}
