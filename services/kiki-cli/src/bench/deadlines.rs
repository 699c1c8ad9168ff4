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

use std::time::Duration;

use super::cores::{self, Cores};
use super::no_content;
use super::pair::{Asking, Pair, Setting, Stage};
use super::quiet::Disturbed;
use super::service_time::ServiceTime;
use crate::error::Failure;
use crate::exchange::Phase;
use crate::out;
use report::{Report, Run};

/// Requests under way at the most.
const IN_FLIGHT: u32 = 1_024;

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
    /// What the servers on `--server-cores` can take, requests a second, where that is known; without it, it is found in each run.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    saturation: Option<u32>,
    /// What those on `--half-server-cores` can take.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    half_saturation: Option<u32>,
    #[command(flatten)]
    setting: Setting,
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
    let (setting, duration) = (&args.setting, Duration::from_secs_f64(args.seconds));
    let (quiet, mut disturbed) = (&setting.quiet, Disturbed::default());
    let stage = Stage::new(setting, nth)?;
    let asking = Asking::new(&args.half_exchange_cores, &stage, setting, args.tmax, IN_FLIGHT)?;
    let pair = Pair::start(&args.half_server_cores, &asking, setting, &stage, "half").await?;
    let half_saturation = pair.saturation(args.half_saturation, quiet, &mut disturbed).await?;
    let half_of_it = vec![Phase { rate: half_saturation / 2.0, duration }];
    let at_half = async || {
        let before = pair.inside().await;
        let half = pair.asking().ask(half_of_it.clone(), |_| ()).await?;
        let p999 = |(after, before): ([ServiceTime; 2], [ServiceTime; 2])| {
            [0, 1].map(|which| after[which].since(&before[which]).quantile_us(0.999))
        };
        let inside = pair.inside().await.zip(before).map(p999);
        Ok((half, inside))
    };
    let (half, inside) = quiet.measure(&mut disturbed, at_half).await?;
    drop(pair);
    let (bare, url) = no_content::start_on(Some(&args.half_server_cores))?;
    let bare_half = quiet.measure(&mut disturbed, async || asking.of(&url).ask(half_of_it.clone(), |_| ()).await).await?;
    drop(bare);
    let asking = Asking::new(&args.exchange_cores, &stage, setting, args.tmax, IN_FLIGHT)?;
    let pair = Pair::start(&args.server_cores, &asking, setting, &stage, "triple").await?;
    let saturation = pair.saturation(args.saturation, quiet, &mut disturbed).await?;
    let three_times_it = vec![Phase { rate: saturation * 3.0, duration }];
    let triple = quiet.measure(&mut disturbed, async || pair.asking().ask(three_times_it.clone(), |_| ()).await).await?;
    Ok(Run { half_saturation, half, inside, bare_half, saturation, triple, disturbed })
}
