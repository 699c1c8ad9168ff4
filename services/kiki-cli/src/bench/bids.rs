//! `kiki bench bids`: BidStream from this process against a platform in another.

mod events;
mod pinned;
pub(super) mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiki::pb::syncflow::v1::bid_response::Result as Either;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncflow::v1::{BidStreamRequest, BidStreamResponse};
use prost::Message as _;

use super::child::{Platform, Server};
use super::drive::{self, Heard, Load, Measured};
use super::scene::Scene;
use super::target::Target;
use super::{Folder, echo, machine};
use crate::error::{Doing as _, Failure};
use crate::out;
use report::Report;

/// Opportunities of a stream that are under way, unless it is said otherwise.
const IN_FLIGHT: u16 = 512;

/// How the bids are driven.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// How long to measure, seconds; a fifth more is spent warming up, and as long again on each echo.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Opportunities in a message, 1 to 256.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=256))]
    batch: u16,
    /// Streams, each on a connection of its own.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    streams: u16,
    /// Messages of one stream that are sent and whose decisions are not durable yet. Without it, as many as have 512 opportunities:
    /// enough for the log's disk to be waited for by bids, and not by the servers.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
    window: Option<u16>,
    /// Customers that the bids are for; each has bought before.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    customers: u32,
    /// On how many cores, the first of the machine, for the servers and this process together; of several, each in turn: "2,4".
    /// Without it, on those that this process may use.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1_024))]
    cores: Vec<u16>,
    /// Purchases of these customers that SyncValue hears of meanwhile, a second: each has its customer's state and prediction made anew.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=500_000))]
    events_per_second: u32,
    #[command(flatten)]
    platform: Platform,
    /// Where the servers' data folder is made, and removed afterwards: the disk that is measured.
    #[arg(long, default_value = ".")]
    scratch: PathBuf,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Messages of one stream that are under way.
    fn window(&self) -> u16 {
        self.window.unwrap_or_else(|| IN_FLIGHT.div_ceil(self.batch))
    }
}

pub(super) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3_600.0).contains(&seconds) => Ok(seconds),
        _ => Err("from 0.1 to 3600".to_owned()),
    }
}

/// Measures, and prints the figures.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    if !args.cores.is_empty() {
        return pinned::run(&args).await;
    }
    let folder = Folder(args.scratch.join(format!("kiki-bench-{}", std::process::id())));
    std::fs::create_dir(&folder.0).doing(format_args!("making {}", folder.0.display()))?;
    let load = Load { batch: args.batch.into(), window: args.window().into(), duration: Duration::from_secs_f64(args.seconds) };
    let warm_up = Load { duration: load.duration / 5, ..load };
    let progress = out::bar("bench bids", 4);

    let (servers, at) = args.platform.start(None, &folder.0, &[])?;
    let scene = Scene::set(&at, args.customers).await?;
    progress.inc(1);
    bids(&scene, args.streams, warm_up, &NoBids::default()).await?;
    progress.inc(1);
    let no_bids = NoBids::default();
    let events = events::Events::start(&at.value, args.customers, args.events_per_second)?;
    let before = machine::cpu_time(servers.pid())?;
    let bids = bids(&scene, args.streams, load, &no_bids).await?;
    let cpu = machine::cpu_time(servers.pid())?.saturating_sub(before);
    let events = events.end().await?;
    drop(servers);
    progress.inc(1);

    let request = scene.request(0, args.batch.into()).encode_to_vec();
    let messages = (bids.items + bids.others).div_ceil(args.batch.into()).max(1);
    let answer_bytes = usize::try_from(bids.received_bytes / messages).doing("the size of an answer")?;
    let sizes = [request.len(), answer_bytes];
    let (echo, address) = echo::start(answer_bytes)?;
    let echoes = [
        echoed((&echo, &address), echo::STREAM, &request, [warm_up, load], args.streams).await?,
        echoed((&echo, &address), echo::BIDS, &request, [warm_up, load], args.streams).await?,
    ];
    progress.finish_and_clear();

    let report = Report::new(&args, sizes, &(bids, cpu), &echoes, (no_bids.by_reason(), events));
    report.print(args.json)?;
    if report.bids == 0 { Err(Failure::new("no bid was made")) } else { Ok(()) }
}

/// One of the echo's streams, after a warm-up, and the CPU time that it took.
async fn echoed(
    (echo, address): (&Server, &str),
    path: &'static str,
    request: &[u8],
    [warm_up, load]: [Load; 2],
    streams: u16,
) -> Result<(Measured, Duration), Failure> {
    let target = Target::new(address, streams, path, vec![request.to_vec().into()])?;
    target.streams(warm_up).await?;
    let before = machine::cpu_time(echo.pid())?;
    let measured = target.streams(load).await?;
    Ok((measured, machine::cpu_time(echo.pid())?.saturating_sub(before)))
}

/// How many opportunities were answered without a bid, by reason.
#[derive(Debug, Clone, Default)]
pub(super) struct NoBids(Arc<Mutex<BTreeMap<String, u64>>>);

impl NoBids {
    pub(super) fn count(&self, reason: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(reason.to_owned()).or_default() += 1;
    }

    /// Counts the reason of a no-bid; true for a bid.
    pub(super) fn is_bid(&self, result: Option<&Either>) -> bool {
        match result {
            Some(Either::Bid(_)) => return true,
            Some(Either::NoBid(no)) => self.count(no.reason().as_str_name().trim_start_matches("NO_BID_REASON_")),
            None => self.count("NO_ANSWER"),
        }
        false
    }

    /// Forgets what was counted, which was a warm-up's.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn by_reason(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn bids(scene: &Scene, streams: u16, load: Load, no_bids: &NoBids) -> Result<Measured, Failure> {
    let number = Arc::new(AtomicU64::new(0));
    let run = scene.next_run();
    let channels: Result<Vec<_>, _> = (0..streams).map(|_| kiki::runtime::channel(&scene.flow).doing(&scene.flow)).collect();
    let streams = channels?.into_iter().map(|channel| {
        let (scene, number, no_bids) = (run.clone(), number.clone(), no_bids.clone());
        let batch = move |_| scene.request(number.fetch_add(load.batch as u64, Ordering::Relaxed), load.batch);
        let mut flow = SyncFlowServiceClient::new(channel).max_decoding_message_size(kiki::runtime::MAX_MESSAGE);
        let open = |requests| async move { flow.bid_stream(requests).await };
        tokio::spawn(drive::stream::<BidStreamRequest, _, _>(load, open, batch, move |answer| hear(answer, &no_bids)))
    });
    drive::together(streams.collect()).await
}

/// A bid counts; a refusal is an answer that does not.
fn hear(answer: &BidStreamResponse, no_bids: &NoBids) -> Heard {
    let counted = answer.responses.iter().filter(|response| no_bids.is_bid(response.result.as_ref())).count() as u64;
    Heard { answered: answer.responses.len(), counted, acknowledged: answer.acknowledged, bytes: answer.encoded_len() }
}
