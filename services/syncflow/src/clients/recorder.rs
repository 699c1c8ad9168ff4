//! Decisions on their way to the log: in order, in batches, sent again until they are durable.
//!
//! A batch has a number, and a batch sent again has no second effect. Tickets count decisions from the start of the
//! process; a ticket is due once all before it are durable. Bounds: [`MAX_QUEUE`] decisions wait, and then nothing is
//! bid; one batch is under way at a time.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiki::runtime;
use kiki::runtime::Channel;
use kiki::status::{self, Reason};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::codegen::http::uri::PathAndQuery;

use super::Backoff;
use crate::domain::targeting::Campaign;
use crate::wire::Fields;

/// Decisions that may wait: at about 200 bytes each, 13 MB, or twice that while leaves grow.
pub const MAX_QUEUE: usize = 65_536;
/// Decisions of one call, which waits for the disk once: at about 200 bytes each 800 kB, of the 8 MB that a call may have.
const MAX_BATCH: usize = 4_096;
/// Leaves of one call: SyncShield takes no more.
const MAX_ITEMS: usize = 1_024;
/// Bytes of one call's decisions, of which the longest have some kilobytes: half of what a call may have.
const MAX_BYTES: usize = 4 << 20;
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
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The campaign; a leaf is of one.
    pub campaign: &'a Arc<Campaign>,
    /// SHA-256 of the policy that was applied.
    pub policy_digest: &'a [u8; 32],
    /// The bytes of `kiki.log.v1.Decision`.
    pub decision: &'a [u8],
}

/// The decisions of one leaf.
#[derive(Debug)]
struct Item {
    campaign: Arc<Campaign>,
    policy_digest: [u8; 32],
    /// How many.
    count: usize,
    /// The bytes of `kiki.log.v1.DecisionBatch`.
    batch: Vec<u8>,
}

/// The decisions of one call. They are in it from the start: nothing is made for a decision alone.
#[derive(Debug, Default)]
struct Batch {
    count: usize,
    bytes: usize,
    items: Vec<Item>,
    /// Which item a campaign's next decision goes into, by the campaign's place in memory, which its item keeps.
    open: HashMap<usize, usize, foldhash::fast::RandomState>,
}

impl Batch {
    fn add(&mut self, Entry { campaign, policy_digest, decision }: Entry<'_>) {
        // With its tag and length, and the head of the batch.
        let room = |item: &Item| item.count < MAX_PER_LEAF && item.batch.len() + decision.len() + 4 <= MAX_LEAF_BYTES;
        let of = |item: &Item| Arc::ptr_eq(&item.campaign, campaign) && item.policy_digest == *policy_digest;
        let open = match self.items.last() {
            Some(last) if of(last) => Some(self.items.len() - 1),
            _ => self.open.get(&(Arc::as_ptr(campaign) as usize)).copied(),
        };
        let at = open.filter(|at| of(&self.items[*at]) && room(&self.items[*at])).unwrap_or_else(|| {
            self.items.push(Item::new(campaign, policy_digest));
            self.open.insert(Arc::as_ptr(campaign) as usize, self.items.len() - 1);
            self.items.len() - 1
        });
        let item = &mut self.items[at];
        Fields(&mut item.batch).entry(4, decision);
        item.count += 1;
        self.count += 1;
        self.bytes += decision.len();
    }

    fn is_full(&self) -> bool {
        self.count >= MAX_BATCH || self.items.len() >= MAX_ITEMS || self.bytes >= MAX_BYTES
    }

    /// In the order of names, so that what is recorded does not depend on who came first.
    fn sorted(mut self) -> Self {
        self.items.sort_by(|one, other| one.name().cmp(&other.name()));
        self
    }
}

impl Item {
    fn new(campaign: &Arc<Campaign>, policy_digest: &[u8; 32]) -> Self {
        let mut batch = Vec::new();
        let mut head = Fields(&mut batch);
        head.text(1, &campaign.id);
        head.text(2, campaign.currency.code());
        head.bytes(3, policy_digest);
        Self { campaign: campaign.clone(), policy_digest: *policy_digest, count: 0, batch }
    }

    fn name(&self) -> (&str, &str, &[u8; 32]) {
        (&self.campaign.client, &self.campaign.id, &self.policy_digest)
    }
}

#[derive(Debug, Default)]
struct Queue {
    batches: VecDeque<Batch>,
    waiting: usize,
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

    /// How many decisions wait for the log.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting
    }

    /// Whether there is room for a message's decisions. Those that ask at the same time may together go over by
    /// what they bring, which the streams' bound bounds.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.waiting() < MAX_QUEUE
    }

    /// Takes decisions in. The ticket is due when all of them are durable.
    pub fn push<'a>(&self, entries: impl Iterator<Item = Entry<'a>>) -> u64 {
        let mut queue = self.queue.lock();
        let Queue { batches, waiting, taken_in } = &mut *queue;
        let empty = *waiting == 0;
        for entry in entries {
            if batches.back().is_none_or(Batch::is_full) {
                batches.push_back(Batch::default());
            }
            if let Some(batch) = batches.back_mut() {
                batch.add(entry);
            }
            *waiting += 1;
            *taken_in += 1;
        }
        let ticket = *taken_in;
        drop(queue);
        if empty {
            self.wake.notify_one();
        }
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
            let due = self.queue.lock().waiting;
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
            let Some(Batch { count: batch, mut items, .. }) = self.next() else { continue };
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
                        tracing::error!("{} decisions were not recorded", batch + self.queue.lock().waiting);
                        return;
                    }
                }
                tokio::time::sleep(backoff.next()).await;
            }
            self.durable.send_modify(|durable| *durable += batch as u64);
        }
    }

    /// The decisions of the next call.
    fn next(&self) -> Option<Batch> {
        let mut queue = self.queue.lock();
        let batch = queue.batches.pop_front()?;
        queue.waiting -= batch.count;
        drop(queue);
        Some(batch.sorted())
    }
}

/// Leaves out the decisions of a client that went to another log since: they cost nothing, and here nobody takes them. The
/// others must not wait for them. Says whether there were any.
fn leave_out_moved(items: &mut Vec<Item>, refused: &Status) -> bool {
    let Some(client) = status::fact(refused, "client").filter(|_| Reason::ClientMoved.is(refused)) else { return false };
    let before = items.len();
    items.retain(|item| item.campaign.client != client);
    tracing::warn!(client, refused = refused.message(), "decisions of a client that moved are not recorded");
    items.len() < before
}

/// The bytes of `kiki.syncshield.v1.RecordRequest`.
fn request(source: &str, source_seq: u64, items: &[Item]) -> Bytes {
    let mut out = Vec::with_capacity(items.iter().map(|item| item.batch.len() + 128).sum());
    let mut to = Fields(&mut out);
    to.text(1, source);
    to.number(2, source_seq);
    for item in items {
        to.message(3, |to| {
            to.text(1, &item.campaign.client);
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

    struct Decided {
        campaign: Arc<Campaign>,
        decision: Vec<u8>,
    }

    fn campaign(client: &str, campaign: &str) -> Arc<Campaign> {
        let leaf = leaf::Campaign { campaign: campaign.into(), currency: "USD".into(), ..Default::default() };
        Arc::new(Campaign::compile(client, &leaf, 90).unwrap())
    }

    fn decided(campaign: &Arc<Campaign>, sequence: u32) -> Decided {
        let decision = leaf::Decision { sequence, model: "m".repeat(63), ..Default::default() };
        Decided { campaign: campaign.clone(), decision: decision.encode_to_vec() }
    }

    fn entries(decided: &[Decided]) -> impl Iterator<Item = Entry<'_>> {
        decided.iter().map(|Decided { campaign, decision }| Entry { campaign, policy_digest: &[1; 32], decision })
    }

    #[test]
    fn decisions_of_a_client_that_moved_hold_up_no_others() {
        let recorder = Recorder::new();
        recorder.push(entries(&[decided(&campaign("acme", "a"), 0), decided(&campaign("other", "a"), 1)]));
        let mut items = recorder.next().unwrap().items;
        let moved = Reason::ClientMoved.status_with("acme went", &[("client", "acme")]);
        assert!(!leave_out_moved(&mut items, &Reason::LogUnavailable.status_with("full", &[("client", "acme")])));
        assert!(leave_out_moved(&mut items, &moved));
        assert_eq!(items.iter().map(|item| item.campaign.client.as_str()).collect::<Vec<_>>(), ["other"]);
        assert!(!leave_out_moved(&mut items, &moved), "it is not refused for ever");
    }

    #[test]
    fn groups_by_campaign_keeps_order_and_splits_long_leaves() {
        let (a, b) = (campaign("acme", "a"), campaign("acme", "b"));
        let all: Vec<Decided> = (0..600).map(|n| decided(if n % 3 == 0 { &b } else { &a }, n)).collect();
        let recorder = Recorder::new();
        assert_eq!(recorder.push(entries(&all)), 600);
        let batch = recorder.next().unwrap();
        let bytes = request("flow-1", 7, &batch.items);
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

    #[test]
    fn a_call_has_the_decisions_of_successive_tickets() {
        let (a, recorder) = (campaign("acme", "a"), Recorder::new());
        for n in 0..MAX_BATCH as u32 + 1 {
            assert_eq!(recorder.push(entries(&[decided(&a, n)])), u64::from(n) + 1);
        }
        assert_eq!(recorder.next().map(|batch| (batch.count, batch.items.len())), Some((MAX_BATCH, 16)));
        assert_eq!(recorder.next().map(|batch| batch.count), Some(1));
        assert!(recorder.next().is_none() && recorder.has_room());
        let campaigns: Vec<_> = (0..=MAX_ITEMS).map(|n| decided(&campaign("acme", &format!("c{n}")), 0)).collect();
        recorder.push(entries(&campaigns));
        assert_eq!(recorder.next().map(|batch| batch.items.len()), Some(MAX_ITEMS), "each is a leaf");
        assert_eq!(recorder.next().map(|batch| batch.count), Some(1));
        let long = vec![0; 4_000];
        recorder.push((0..MAX_BATCH).map(|_| Entry { campaign: &a, policy_digest: &[1; 32], decision: &long }));
        let bytes = recorder.next().map(|batch| request("flow-1", 1, &batch.items).len());
        assert!(bytes.is_some_and(|bytes| (MAX_BYTES..runtime::MAX_MESSAGE * 3 / 4).contains(&bytes)), "{bytes:?}");
    }

    #[test]
    fn a_policy_that_took_force_meanwhile_has_leaves_of_its_own() {
        let (a, recorder) = (campaign("acme", "a"), Recorder::new());
        let decision = decided(&a, 1).decision;
        for digest in [[1; 32], [2; 32], [2; 32], [1; 32]] {
            recorder.push(std::iter::once(Entry { campaign: &a, policy_digest: &digest, decision: &decision }));
        }
        let digests: Vec<_> = recorder.next().unwrap().items.iter().map(|item| (item.policy_digest[0], item.count)).collect();
        assert_eq!(digests, [(1, 1), (1, 1), (2, 2)]);
    }
}
