//! Decisions on their way to the log: in order, in batches, sent again until they are durable.
//!
//! A batch has a number, and a batch sent again has no second effect. Tickets count decisions from the start of the
//! process; a ticket is due once all before it are durable. Bounds: [`MAX_QUEUE`] decisions wait, and then nothing is
//! bid; one batch is under way at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiki::runtime;
use kiki::status::{self, Reason};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;

use super::Backoff;
use crate::domain::targeting::Campaign;
use crate::wire::Fields;

/// Decisions that may wait: at about 200 bytes each, 13 MB.
pub const MAX_QUEUE: usize = 65_536;
/// Decisions of one call: 4 x 256 of 200 bytes are 200 kB, of the megabyte that a call may have.
const MAX_BATCH: usize = 1_024;
/// Decisions of one leaf: 256 of at most 250 bytes (all ids of 63 characters: 350, for which `MAX_LEAF_BYTES` holds).
const MAX_PER_LEAF: usize = 256;
/// Bytes of the decisions of one leaf, of the 65,535 that it may have with its header.
const MAX_LEAF_BYTES: usize = 60_000;
/// A batch is full enough to go at once at this many decisions; else it waits [`WAIT`] for company.
const ENOUGH: usize = 256;
const WAIT: Duration = Duration::from_millis(2);
const RECORD: &str = "/kiki.syncshield.v1.SyncShieldService/Record";
/// A call waits this long for its answer.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);

/// One decision and where it belongs.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The campaign; a leaf is of one.
    pub campaign: Arc<Campaign>,
    /// SHA-256 of the policy that was applied.
    pub policy_digest: [u8; 32],
    /// The bytes of `kiki.log.v1.Decision`.
    pub decision: Vec<u8>,
}

/// The decisions of one leaf.
#[derive(Debug)]
struct Item {
    client: String,
    /// How many.
    count: usize,
    /// The bytes of `kiki.log.v1.DecisionBatch`.
    batch: Vec<u8>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Entry>,
    taken_in: u64,
}

/// The way to the log.
#[derive(Debug)]
pub struct Recorder {
    queue: Mutex<Queue>,
    wake: Notify,
    durable: watch::Sender<u64>,
}

impl Recorder {
    /// Nothing waits yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { queue: Mutex::default(), wake: Notify::new(), durable: watch::Sender::new(0) })
    }

    /// Whether there is room for one opportunity's decisions. Those that ask at the same time may together go over by
    /// what they bring, which the streams' bound bounds.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.queue.lock().waiting.len() < MAX_QUEUE
    }

    /// Takes decisions in. The ticket is due when all of them are durable.
    pub fn push(&self, entries: Vec<Entry>) -> u64 {
        let mut queue = self.queue.lock();
        queue.taken_in += entries.len() as u64;
        queue.waiting.extend(entries);
        let ticket = queue.taken_in;
        drop(queue);
        self.wake.notify_one();
        ticket
    }

    /// Up to which ticket decisions are durable, and changes of that.
    #[must_use]
    pub fn durable(&self) -> watch::Receiver<u64> {
        self.durable.subscribe()
    }

    /// Waits until the ticket is due.
    pub async fn wait(&self, ticket: u64) {
        // The sender lives as long as `self`, so the wait cannot fail.
        let _ = self.durable.subscribe().wait_for(|durable| *durable >= ticket).await;
    }

    /// Sends batches until `stop`, and then what still waits, for as long as `flush` allows.
    pub async fn run(self: Arc<Self>, shield: Channel, source: String, stop: CancellationToken, flush: Duration) {
        let mut source_seq = 0;
        let mut give_up = None;
        loop {
            let due = self.queue.lock().waiting.len();
            if due == 0 {
                if stop.is_cancelled() {
                    return;
                }
                tokio::select! { () = self.wake.notified() => {}, () = stop.cancelled() => {} }
                continue;
            }
            if due < ENOUGH && !stop.is_cancelled() {
                tokio::time::sleep(WAIT).await;
            }
            let (batch, mut items) = self.batch();
            source_seq += 1;
            let mut request = request(&source, source_seq, &items);
            let mut backoff = Backoff::new();
            loop {
                let failed = match tokio::time::timeout(RPC_TIMEOUT, record(shield.clone(), request.clone())).await {
                    Ok(Ok(())) => break,
                    Ok(Err(status)) if leave_out_moved(&mut items, &status) => {
                        if items.is_empty() {
                            source_seq -= 1; // nothing was recorded under it
                            break;
                        }
                        request = self::request(&source, source_seq, &items);
                        continue;
                    }
                    Ok(Err(status)) => status.message().to_owned(),
                    Err(_) => "no answer for 5 s".to_owned(),
                };
                tracing::warn!("{batch} decisions are not durable yet: {failed}");
                if stop.is_cancelled() {
                    let last = *give_up.get_or_insert_with(|| tokio::time::Instant::now() + flush);
                    if tokio::time::Instant::now() >= last {
                        tracing::error!("{} decisions were not recorded", batch as usize + self.queue.lock().waiting.len());
                        return;
                    }
                }
                tokio::time::sleep(backoff.next()).await;
            }
            self.durable.send_modify(|durable| *durable += batch);
        }
    }

    /// The decisions of the next call: how many, and by campaign.
    fn batch(&self) -> (u64, Vec<Item>) {
        let mut queue = self.queue.lock();
        let count = queue.waiting.len().min(MAX_BATCH);
        let entries: Vec<Entry> = queue.waiting.drain(..count).collect();
        drop(queue);
        (count as u64, items(&entries))
    }
}

/// Leaves out the decisions of a client that went to another log since: they cost nothing, and here nobody takes them. The
/// others must not wait for them. Says whether there were any.
fn leave_out_moved(items: &mut Vec<Item>, refused: &Status) -> bool {
    let Some(client) = status::fact(refused, "client").filter(|_| Reason::ClientMoved.is(refused)) else { return false };
    let before = items.len();
    items.retain(|item| item.client != client);
    tracing::warn!(client, refused = refused.message(), "decisions of a client that moved are not recorded");
    items.len() < before
}

/// One item for each client, campaign and policy, in the order of their names, and more where a leaf would be too long.
fn items(entries: &[Entry]) -> Vec<Item> {
    let mut groups: BTreeMap<(&str, &str, [u8; 32]), Vec<Item>> = BTreeMap::new();
    for Entry { campaign, policy_digest, decision } in entries {
        let group = groups.entry((&campaign.client, &campaign.id, *policy_digest)).or_default();
        // With its tag and length, and the head of the batch.
        let full = |item: &Item| item.count >= MAX_PER_LEAF || item.batch.len() + decision.len() + 4 > MAX_LEAF_BYTES;
        if group.last().is_none_or(full) {
            let mut batch = Vec::with_capacity(MAX_PER_LEAF * decision.len());
            let mut head = Fields(&mut batch);
            head.text(1, &campaign.id);
            head.text(2, campaign.currency.code());
            head.bytes(3, policy_digest);
            group.push(Item { client: campaign.client.clone(), count: 0, batch });
        }
        if let Some(item) = group.last_mut() {
            Fields(&mut item.batch).entry(4, decision);
            item.count += 1;
        }
    }
    groups.into_values().flatten().collect()
}

/// The bytes of `kiki.syncshield.v1.RecordRequest`.
fn request(source: &str, source_seq: u64, items: &[Item]) -> Bytes {
    let mut out = Vec::with_capacity(items.iter().map(|item| item.batch.len() + 128).sum());
    let mut to = Fields(&mut out);
    to.text(1, source);
    to.number(2, source_seq);
    for item in items {
        to.message(3, |to| {
            to.text(1, &item.client);
            to.entry(2, &item.batch);
        });
    }
    out.into()
}

/// Calls SyncShield's Record; what it answers is of no use here.
async fn record(shield: Channel, request: Bytes) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(shield);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    client.unary(tonic::Request::new(request), PathAndQuery::from_static(RECORD), runtime::Raw::<Bytes>::default()).await.map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use kiki::leaf;
    use kiki::pb::syncshield::v1 as pb;
    use prost::Message as _;

    fn entry(client: &str, campaign: &str, sequence: u32) -> Entry {
        let leaf = leaf::Campaign { campaign: campaign.into(), currency: "USD".into(), ..Default::default() };
        let decision = leaf::Decision { sequence, model: "m".repeat(63), ..Default::default() };
        let campaign = Arc::new(Campaign::compile(client, &leaf, 90).unwrap());
        Entry { campaign, policy_digest: [1; 32], decision: decision.encode_to_vec() }
    }

    #[test]
    fn decisions_of_a_client_that_moved_hold_up_no_others() {
        let mut items = items(&[entry("acme", "a", 0), entry("other", "a", 1)]);
        let moved = Reason::ClientMoved.status_with("acme went", &[("client", "acme")]);
        assert!(!leave_out_moved(&mut items, &Reason::LogUnavailable.status_with("full", &[("client", "acme")])));
        assert!(leave_out_moved(&mut items, &moved));
        assert_eq!(items.iter().map(|item| item.client.as_str()).collect::<Vec<_>>(), ["other"]);
        assert!(!leave_out_moved(&mut items, &moved), "it is not refused for ever");
    }

    #[test]
    fn groups_by_campaign_keeps_order_and_splits_long_leaves() {
        let entries: Vec<Entry> = (0..600).map(|n| entry("acme", if n % 3 == 0 { "b" } else { "a" }, n)).collect();
        let bytes = request("flow-1", 7, &items(&entries));
        let request = pb::RecordRequest::decode(bytes.clone()).unwrap();
        assert_eq!((request.source.as_str(), request.source_seq), ("flow-1", 7));
        assert_eq!(request.encode_to_vec(), bytes, "as prost writes it");
        let batches: Vec<_> = request
            .items
            .iter()
            .map(|item| match &item.body {
                Some(pb::record_item::Body::Decisions(batch)) => leaf::DecisionBatch::decode(batch.clone()).unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        let shape: Vec<_> = batches.iter().map(|batch| (batch.campaign.as_str(), batch.decisions.len())).collect();
        assert_eq!(shape, [("a", 256), ("a", 144), ("b", 200)]);
        let head = |batch: &leaf::DecisionBatch| batch.currency == "USD" && batch.policy_digest.as_ref() == [1; 32];
        assert!(batches.iter().all(head));
        assert!(batches.iter().all(|batch| batch.decisions.is_sorted_by_key(|decision| decision.sequence)));
        assert!(request.items.iter().all(|item| item.client == "acme"));
    }
}
