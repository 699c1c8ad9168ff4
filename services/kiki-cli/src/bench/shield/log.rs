//! The log: appending, and the raw work it is compared with; proofs; and over gRPC, leases and Tail.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use kiki::clock::{Clock, monotonic};
use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::runtime::{Listeners, MAX_MESSAGE, channel};
use kiki::tlog::{Tree, leaf_hash, multiproof_root};
use prost::Message as _;
use syncshield::domain::ledger::Item;
use syncshield::store::Log;
use tokio_util::sync::CancellationToken;

use super::{LOG_ID, Report, budget};
use crate::error::{Doing as _, Failure, rpc};

/// Senders, and records in a batch of each: twice what one commit takes, so that one is made while the other is written.
const SENDERS: usize = 128;
const BATCH: usize = 256;
/// Records in a commit, at most.
const COMMIT: usize = SENDERS * BATCH / 2;
/// A record as it stands in the log.
const RECORD_BYTES: usize = 200;
/// Proofs that are made and verified.
const PROOFS: u64 = 2_000;
/// Leases asked for one after the other.
const LEASES: u32 = 500;

/// A decision batch that makes a leaf of 200 bytes.
fn record() -> Item {
    let decision =
        leaf::Decision { opportunity: vec![7; 16].into(), exchange: "x".repeat(71), platform: "meta".into(), ..Default::default() };
    let batch =
        leaf::DecisionBatch { campaign: "c".into(), currency: "USD".into(), policy_digest: vec![9; 32].into(), decisions: vec![decision] };
    Item::Decisions(batch.encode_to_vec().into())
}

/// Appending and the raw work take turns, so that both meet the disk in the same moods.
const TURNS: u32 = 6;

/// Appends batches from many senders, and in turn does what the same bytes take at the least.
pub(super) async fn append(log: &Log, raw: &Path, time: Duration, report: &mut Report) -> Result<(), Failure> {
    budget::campaign(log).await?;
    let first = *log.committed().borrow();
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).doing("making a histogram")?;
    let mut raw = Raw { file: std::fs::File::create(raw).doing("making the raw file")?, tree: Tree::new() };
    let (mut appending, mut working) = (Duration::ZERO, Duration::ZERO);
    for turn in 0..TURNS {
        let start = monotonic();
        let sending = (0..SENDERS).map(|sender| tokio::spawn(send(log.clone(), format!("bench-{turn}-{sender}"), time / TURNS)));
        for sender in sending.collect::<Vec<_>>() {
            latencies.add(sender.await.doing("appending")??).doing("adding up")?;
        }
        appending += start.elapsed();
        working += raw.work(time / TURNS)?;
    }
    let records = *log.committed().borrow() - first;
    report.append_records_per_second = records as f64 / appending.as_secs_f64();
    report.raw_records_per_second = raw.tree.size() as f64 / working.as_secs_f64();
    report.append_ratio_to_raw = report.append_records_per_second / report.raw_records_per_second;
    report.append_latency_us_p50 = latencies.value_at_quantile(0.5);
    report.append_latency_us_p99 = latencies.value_at_quantile(0.99);
    let leaves = log.read(first, 1 << 20).await.doing("reading the log")?;
    report.record_bytes = leaves.iter().map(|(_, leaf)| leaf.len()).sum::<usize>() / leaves.len().max(1);
    Ok(())
}

/// One sender: each batch waits until the one before it is durable.
async fn send(log: Log, source: String, time: Duration) -> Result<Histogram<u64>, Failure> {
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).doing("making a histogram")?;
    let start = monotonic();
    for seq in 1.. {
        if start.elapsed() > time {
            break;
        }
        let items: Vec<_> = (0..BATCH).map(|_| ("acme".to_owned(), record())).collect();
        let (source, sent) = (source.clone(), monotonic());
        log.run(move |ledger| ledger.record(&source, seq, items)).await.doing("recording")?;
        latencies.saturating_record(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    Ok(latencies)
}

/// The least that the same bytes could take: hashed into the tree, written in sequence, synced once for each commit.
struct Raw {
    file: std::fs::File,
    tree: Tree,
}

impl Raw {
    fn work(&mut self, time: Duration) -> Result<Duration, Failure> {
        let bytes: Vec<u8> = (0..COMMIT * RECORD_BYTES).map(|i| (i % 251) as u8).collect();
        let start = monotonic();
        while start.elapsed() < time {
            bytes.chunks(RECORD_BYTES).for_each(|record| self.tree.push(leaf_hash(record)));
            self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).doing("writing the raw file")?;
        }
        Ok(start.elapsed())
    }
}

/// Inclusion of single leaves, spread over the log.
pub(super) async fn proofs(log: &Log, report: &mut Report) -> Result<(), Failure> {
    let size = *log.committed().borrow();
    let mut proven = Vec::new();
    for i in 0..PROOFS {
        let index = i * (size - 1) / PROOFS;
        let leaves = log.read(index, 1).await.doing("reading a leaf")?;
        let (_, leaf) = leaves.first().ok_or_else(|| Failure::new("the log is empty"))?;
        proven.push((index, leaf_hash(leaf)));
    }
    let start = monotonic();
    let made: Result<Vec<_>, _> = proven.iter().map(|(index, _)| log.proof(&[*index], size)).collect();
    let proofs = made.doing("proving")?;
    report.proof_us = start.elapsed().as_secs_f64() * 1e6 / PROOFS as f64;
    let start = monotonic();
    let roots: Result<Vec<_>, _> = proven.iter().zip(&proofs).map(|(leaf, proof)| multiproof_root(size, &[*leaf], proof)).collect();
    report.verify_us = start.elapsed().as_secs_f64() * 1e6 / PROOFS as f64;
    let roots = roots.doing("verifying")?;
    if roots.windows(2).all(|pair| pair[0] == pair[1]) { Ok(()) } else { Err(Failure::new("proofs lead to different roots")) }
}

/// Serves the log that was appended to, over gRPC on loopback.
pub(super) async fn served(data: PathBuf, report: &mut Report) -> Result<(), Failure> {
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.doing("listening")?;
    let address = format!("http://{}", listeners.grpc.local_addr().doing("listening")?);
    let shutdown = CancellationToken::new();
    let config = syncshield::Config::new(data, LOG_ID);
    let serving = tokio::spawn(syncshield::serve(listeners, config, Clock::System, shutdown.clone()));
    let client = SyncShieldServiceClient::new(channel(&address).doing("connecting")?).max_decoding_message_size(MAX_MESSAGE);
    leases(client.clone(), report).await?;
    tail(client, report).await?;
    shutdown.cancel();
    serving.await.doing("serving")?.doing("serving")
}

type Client = SyncShieldServiceClient<kiki::runtime::Channel>;

async fn leases(mut client: Client, report: &mut Report) -> Result<(), Failure> {
    let mut latencies = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).doing("making a histogram")?;
    for n in 0..LEASES {
        let request = pb::LeaseRequest {
            key: format!("lease-{n}"),
            client: "acme".into(),
            campaign: "c".into(),
            holder: "bench".into(),
            amount_micros: 1_000_000,
            least_micros: 1,
            mark_sequence: 0,
            mark_nanos: 0,
            platform: String::new(),
        };
        let sent = monotonic();
        client.lease(request).await.map_err(|status| rpc("leasing", &status))?;
        latencies.saturating_record(u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    report.lease_us_p50 = latencies.value_at_quantile(0.5);
    report.lease_us_p99 = latencies.value_at_quantile(0.99);
    Ok(())
}

async fn tail(mut client: Client, report: &mut Report) -> Result<(), Failure> {
    let start = monotonic();
    let mut stream = client.tail(pb::TailRequest::default()).await.map_err(|status| rpc("following the log", &status))?.into_inner();
    let mut records = 0;
    while let Some(message) = stream.message().await.map_err(|status| rpc("following the log", &status))? {
        records += message.entries.len();
    }
    report.tail_records_per_second = records as f64 / start.elapsed().as_secs_f64();
    Ok(())
}
