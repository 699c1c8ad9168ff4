//! Decisions on their way to the log: in order, in batches, sent again until they are durable.
//!
//! A batch has a number, and a batch sent again has no second effect. Tickets count decisions from the start of the
//! process; a ticket is due once all before it are durable. Bounds: [`MAX_QUEUE`] decisions wait, and then nothing is
//! bid; one batch is under way at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use kiki::status::{self, Reason};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Backoff, Shield};

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
/// A call waits this long for its answer.
const RPC_TIMEOUT: Duration = Duration::from_secs(5);

/// One decision and where it belongs.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The advertiser.
    pub client: String,
    /// Its campaign.
    pub campaign: String,
    /// The campaign's currency.
    pub currency: String,
    /// SHA-256 of the policy that was applied.
    pub policy_digest: [u8; 32],
    /// The decision.
    pub decision: leaf::Decision,
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
    pub async fn run(self: Arc<Self>, mut shield: Shield, source: String, stop: CancellationToken, flush: Duration) {
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
            let (batch, items) = self.batch();
            source_seq += 1;
            let mut request = pb::RecordRequest { source: source.clone(), source_seq, items };
            let mut backoff = Backoff::new();
            loop {
                let failed = match tokio::time::timeout(RPC_TIMEOUT, shield.record(request.clone())).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(status)) if leave_out_moved(&mut request.items, &status) => {
                        if request.items.is_empty() {
                            source_seq -= 1; // nothing was recorded under it
                            break;
                        }
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
    fn batch(&self) -> (u64, Vec<pb::RecordItem>) {
        let mut queue = self.queue.lock();
        let count = queue.waiting.len().min(MAX_BATCH);
        let entries: Vec<Entry> = queue.waiting.drain(..count).collect();
        drop(queue);
        (count as u64, items(entries))
    }
}

/// Leaves out the decisions of a client that went to another log since: they cost nothing, and here nobody takes them. The
/// others must not wait for them. Says whether there were any.
fn leave_out_moved(items: &mut Vec<pb::RecordItem>, refused: &tonic::Status) -> bool {
    let Some(client) = status::fact(refused, "client").filter(|_| Reason::ClientMoved.is(refused)) else { return false };
    let before = items.len();
    items.retain(|item| item.client != client);
    tracing::warn!(client, refused = refused.message(), "decisions of a client that moved are not recorded");
    items.len() < before
}

/// One item for each client, campaign and policy, in the order of their names, and more where a leaf would be too long.
fn items(entries: Vec<Entry>) -> Vec<pb::RecordItem> {
    type Sized = (leaf::DecisionBatch, usize);
    let mut groups: BTreeMap<(String, String, [u8; 32]), Vec<Sized>> = BTreeMap::new();
    for entry in entries {
        let size = prost::Message::encoded_len(&entry.decision) + 4; // with its tag and length
        let group = groups.entry((entry.client, entry.campaign.clone(), entry.policy_digest)).or_default();
        let full = |(batch, bytes): &Sized| batch.decisions.len() >= MAX_PER_LEAF || bytes + size > MAX_LEAF_BYTES;
        if group.last().is_none_or(full) {
            let policy_digest = entry.policy_digest.to_vec().into();
            let batch = leaf::DecisionBatch { campaign: entry.campaign, currency: entry.currency, policy_digest, decisions: vec![] };
            group.push((batch, 0));
        }
        if let Some((batch, bytes)) = group.last_mut() {
            batch.decisions.push(entry.decision);
            *bytes += size;
        }
    }
    let item = |client: &String, batch| pb::RecordItem { client: client.clone(), body: Some(pb::record_item::Body::Decisions(batch)) };
    groups
        .iter_mut()
        .flat_map(|((client, _, _), batches)| batches.drain(..).map(|(batch, _)| item(client, batch)).collect::<Vec<_>>())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(campaign: &str, sequence: u32) -> Entry {
        Entry {
            client: "acme".into(),
            campaign: campaign.into(),
            currency: "USD".into(),
            policy_digest: [1; 32],
            decision: leaf::Decision { sequence, model: "m".repeat(63), ..Default::default() },
        }
    }

    #[test]
    fn decisions_of_a_client_that_moved_hold_up_no_others() {
        let mut items = items(vec![entry("a", 0), Entry { client: "other".into(), ..entry("a", 1) }]);
        let moved = Reason::ClientMoved.status_with("acme went", &[("client", "acme")]);
        assert!(!leave_out_moved(&mut items, &Reason::LogUnavailable.status_with("full", &[("client", "acme")])));
        assert!(leave_out_moved(&mut items, &moved));
        assert_eq!(items.iter().map(|item| item.client.as_str()).collect::<Vec<_>>(), ["other"]);
        assert!(!leave_out_moved(&mut items, &moved), "it is not refused for ever");
    }

    #[test]
    fn groups_by_campaign_keeps_order_and_splits_long_leaves() {
        let entries = (0..600).map(|n| entry(if n % 3 == 0 { "b" } else { "a" }, n)).collect();
        let items = items(entries);
        let batches: Vec<_> = items
            .iter()
            .map(|item| match &item.body {
                Some(pb::record_item::Body::Decisions(batch)) => batch,
                other => panic!("{other:?}"),
            })
            .collect();
        let shape: Vec<_> = batches.iter().map(|batch| (batch.campaign.as_str(), batch.decisions.len())).collect();
        assert_eq!(shape, [("a", 256), ("a", 144), ("b", 200)]);
        assert!(batches.iter().all(|batch| batch.decisions.is_sorted_by_key(|decision| decision.sequence)));
    }
}
