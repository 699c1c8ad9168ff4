//! `kiki bench predict`: SyncValue as a process of its own, asked by this one, and the bare echo in another.
//!
//! SyncValue and the echo take turns, so that a machine that others use hits both; a ratio is the median over the turns. What
//! is asked for by name is hashed to its pseudonym, as a caller from outside would have it; streams ask by pseudonym, as
//! SyncFlow does.

mod counts;
mod model;
mod questions;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;

use super::child::Server;
use super::drive::{Load, Measured};
use super::service_time::ServiceTime;
use super::target::Target;
use super::{Folder, customers, echo, machine, value};
use crate::error::{Doing as _, Failure};
use crate::http::Http;
use crate::out;
use counts::Counts;
use questions::Questions;
use report::{Pair, Report};

const UNARY: &str = "/kiki.syncvalue.v1.SyncValueService/Predict";
const STREAM: &str = "/kiki.syncvalue.v1.SyncValueService/PredictStream";
/// How often SyncValue and the echo take turns in each measurement.
const TURNS: u32 = 5;
/// Calls a second where latency is measured away from saturation.
const PACE: u32 = 5_000;

/// How SyncValue is asked.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Folder of the model that answers, as `kiki train` writes it. Without it a small one is trained, on customers like those who
    /// are asked for: its networks are as many and as large as those of any.
    #[arg(long)]
    model: Option<PathBuf>,
    /// How long each of the four measurements takes, seconds, and as long again on the echo: calls at saturation, calls at
    /// 5,000 a second, streams, and streams beside an echo that reads and writes protobuf.
    #[arg(long, default_value_t = 10.0, value_parser = super::bids::seconds)]
    seconds: f64,
    /// Customers that are asked for; each has bought before.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    customers: u32,
    /// Connections; a stream on each.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    connections: u16,
    /// Calls under way on each connection at saturation.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    in_flight: u16,
    /// Questions in a message of a stream, 1 to 1,024.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    batch: u16,
    /// Messages of a stream that are sent and not answered.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    window: u16,
    /// Where SyncValue's data folder is made, and removed afterwards.
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
    let progress = out::bar("bench predict", 6);
    let model = match &args.model {
        Some(model) => model.canonicalize().doing(model.display())?,
        None => {
            let scratch = folder.0.clone();
            tokio::task::spawn_blocking(move || model::train(&scratch)).await.doing("training a model")??
        }
    };
    progress.inc(1);
    let (server, grpc, http) = value::start(&folder.0, &model)?;
    let channel = kiki::runtime::channel(&grpc).doing(&grpc)?;
    customers::observe(SyncValueServiceClient::new(channel.clone()), args.customers).await?;
    let questions = Questions::about(args.customers, args.batch.into());
    let answer_bytes = questions.check(channel).await?;
    progress.inc(1);

    let turn = Duration::from_secs_f64(args.seconds) / TURNS;
    let load = Load { batch: args.batch.into(), window: args.window.into(), duration: turn };
    let ([unary_echo, stream_echo], request_bytes) = (answer_bytes, questions.bytes());
    let (unary_echo, stream_echo) = (echo::start(unary_echo)?, echo::start(stream_echo)?);
    let unary = Both {
        value: (&server, Target::new(&grpc, args.connections, UNARY, questions.single.clone())?),
        echo: (&unary_echo.0, Target::new(&unary_echo.1, args.connections, echo::UNARY, questions.single)?),
    };
    let streams = Both {
        value: (&server, Target::new(&grpc, args.connections, STREAM, questions.batches.clone())?),
        echo: (&stream_echo.0, Target::new(&stream_echo.1, args.connections, echo::STREAM, questions.batches.clone())?),
    };
    let protobuf = Both {
        value: streams.value.clone(),
        echo: (&stream_echo.0, Target::new(&stream_echo.1, args.connections, echo::PREDICTIONS, questions.batches)?),
    };

    let metrics = format!("{http}/metrics");
    let metrics = async || Ok::<_, Failure>(Http::new().get(&metrics).await?.body);
    let scrape = async || ServiceTime::read(&metrics().await?, "syncvalue_service_seconds", "rpc=\"Predict\"");
    let counted = Counts::read(&metrics().await?)?;
    let saturated = unary.measure(async |target| target.saturated(args.in_flight, turn).await).await?;
    let between = scrape().await?;
    progress.inc(1);
    let paced = unary.measure(async |target| target.paced(PACE, turn).await).await?;
    let at_pace = scrape().await?.since(&between);
    progress.inc(1);
    let streamed = streams.measure(async |target| target.streams(load).await).await?;
    progress.inc(1);
    let streamed_protobuf = protobuf.measure(async |target| target.streams(load).await).await?;
    let counted = Counts::read(&metrics().await?)?.since(&counted);
    progress.finish_and_clear();
    let pairs = [&saturated, &paced, &streamed, &streamed_protobuf];
    let report = Report::new(&args, [request_bytes, answer_bytes], pairs, [&between, &at_pace], &counted);
    report.print(args.json)
}

/// SyncValue and the echo, each as a process and what it is asked.
struct Both<'a> {
    value: (&'a Server, Target),
    echo: (&'a Server, Target),
}

impl Both<'_> {
    /// Drives both in turn, after a first turn of each that does not count.
    async fn measure(&self, drive: impl AsyncFn(&Target) -> Result<Measured, Failure>) -> Result<Pair, Failure> {
        let mut pair = Pair::new()?;
        for turn in 0..=TURNS {
            let one = async |(server, target): &(&Server, Target)| {
                let before = machine::cpu_time(server.pid())?;
                let measured = drive(target).await?;
                Ok::<_, Failure>((measured, machine::cpu_time(server.pid())?.saturating_sub(before)))
            };
            // Whoever comes second finds the machine as the first left it: they change places.
            let (value, echo) = if turn % 2 == 0 {
                let value = one(&self.value).await?;
                (value, one(&self.echo).await?)
            } else {
                let echo = one(&self.echo).await?;
                (one(&self.value).await?, echo)
            };
            if turn > 0 {
                pair.add(value, echo)?;
            }
        }
        Ok(pair)
    }
}
