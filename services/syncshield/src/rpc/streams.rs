//! The streams: a reader that does not read holds up nothing but itself.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use kiki::leaf;
use kiki::pb::syncshield::v1 as pb;
use kiki::runtime::Reader;
use tokio::sync::{mpsc, watch};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::store::{Catalog, CatalogEntry, Log, Signed};

/// Messages that wait for a reader: 1 of at most 512 KiB, as a rule. Tail reads no other while it waits.
const MAX_WAITING: usize = 1;
/// Readers. One of Tail is at most 3 MiB while it does not read (48 of them, and what else came with them, were 98 to 141): a message that
/// waits, one that is encoded and of twice its length while it grows, and what the allocator keeps of all that. A service of the platform is
/// three readers.
pub(super) const MAX_READERS: usize = 256;
/// Those of one tenant, or else one connection, where half of them are taken.
pub(super) const READERS_OF_ONE: usize = 16;
/// Bytes of leaves in one message.
const MAX_BYTES: usize = 512 << 10;
/// Campaigns in one message: each is one leaf of at most 64 KiB, so 64 of them are at most 4 MiB.
pub const CAMPAIGNS_A_MESSAGE: usize = 64;
/// A watcher hears at least this often.
const HEARTBEAT: Duration = Duration::from_secs(1);

type Sender<T> = mpsc::Sender<Result<T, Status>>;

fn stream<T, F>(
    reader: Reader,
    shutdown: CancellationToken,
    run: impl FnOnce(Sender<T>) -> F,
) -> Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>
where
    T: Send + 'static,
    F: Future<Output = Option<()>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(MAX_WAITING);
    let running = run(sender);
    tokio::spawn(async move {
        shutdown.run_until_cancelled(running).await;
        drop(reader);
    });
    Box::pin(ReceiverStream::new(receiver))
}

/// Sends, or says that the reader is gone.
async fn send<T>(sender: &Sender<T>, message: T) -> Option<()> {
    sender.send(Ok(message)).await.ok()
}

pub(super) fn tail(
    log: Log,
    from: u64,
    pb::TailRequest { client, follow, without_decisions, .. }: pb::TailRequest,
    reader: Reader,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Stream<Item = Result<pb::TailResponse, Status>> + Send>> {
    stream(reader, shutdown, move |sender| async move {
        let (mut committed, mut checkpoints) = (log.committed(), log.checkpoints());
        let mut next = from;
        let mut sent_checkpoint = 0;
        loop {
            let size = *committed.borrow_and_update();
            while next < size {
                let place = sender.reserve().await.ok()?; // nothing is read before there is room for it
                let leaves = match log.read(next, MAX_BYTES).await {
                    Ok(leaves) => leaves,
                    Err(error) => {
                        place.send(Err(error.into()));
                        return None;
                    }
                };
                next += leaves.len() as u64;
                let all = client.is_empty() && !without_decisions;
                let wanted = |bytes: &[u8]| {
                    all || leaf::decode_all_but_decisions(bytes).is_ok_and(|(head, body)| {
                        let left_out = without_decisions && matches!(body, leaf::leaf::Body::Decisions(_));
                        (client.is_empty() || head.client == client) && !left_out
                    })
                };
                let entries =
                    leaves.into_iter().filter(|(_, bytes)| wanted(bytes)).map(|(index, leaf)| pb::TailEntry { index, leaf }).collect();
                let checkpoint = newer(&checkpoints.borrow(), next, &mut sent_checkpoint);
                place.send(Ok(pb::TailResponse { entries, next_index: next, checkpoint }));
            }
            if !follow {
                return Some(());
            }
            // Who waits for a signature does not wait for a heartbeat.
            let signed = async { checkpoints.wait_for(|newest| due(newest, next, sent_checkpoint).is_some()).await.map(drop) };
            tokio::select! {
                biased; // a checkpoint goes with its leaves where both are there
                changed = committed.changed() => {
                    changed.ok()?;
                    continue;
                }
                signed = signed => signed.ok()?,
                () = tokio::time::sleep(HEARTBEAT) => {}
            }
            let checkpoint = newer(&checkpoints.borrow(), next, &mut sent_checkpoint);
            send(&sender, pb::TailResponse { entries: Vec::new(), next_index: next, checkpoint }).await?;
        }
    })
}

/// The newest checkpoint, where a stream has not sent it and has sent all that it covers.
fn due(newest: &Option<Arc<Signed>>, next: u64, sent: u64) -> Option<&Signed> {
    newest.as_deref().filter(|newest| newest.size > sent && newest.size <= next)
}

/// The text of that, which is then sent; or nothing.
fn newer(newest: &Option<Arc<Signed>>, next: u64, sent: &mut u64) -> String {
    let Some(newest) = due(newest, next, *sent) else { return String::new() };
    *sent = newest.size;
    newest.note.to_string()
}

/// Waits for the next catalog, for at most a heartbeat; none when the log is gone.
async fn next(catalog: &mut watch::Receiver<Arc<Catalog>>) -> Option<Arc<Catalog>> {
    if let Ok(changed) = tokio::time::timeout(HEARTBEAT, catalog.changed()).await {
        changed.ok()?;
    }
    Some(catalog.borrow_and_update().clone())
}

pub(super) fn watch_policy(
    log: &Log,
    reader: Reader,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Stream<Item = Result<pb::WatchPolicyResponse, Status>> + Send>> {
    let mut catalog = log.catalog();
    stream(reader, shutdown, move |sender| async move {
        let mut sent = 0;
        let mut current = catalog.borrow_and_update().clone();
        loop {
            // A rollback leads to an earlier version.
            let fresh = current.policy.as_ref().filter(|(_, compiled)| compiled.version != sent);
            let message = fresh.map_or_else(pb::WatchPolicyResponse::default, |(document, compiled)| {
                sent = compiled.version;
                pb::WatchPolicyResponse { policy: Some(document.clone()), digest: compiled.digest.to_vec().into() }
            });
            send(&sender, message).await?;
            current = next(&mut catalog).await?;
        }
    })
}

pub(super) fn watch_campaigns(
    log: &Log,
    client: String,
    reader: Reader,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Stream<Item = Result<pb::WatchCampaignsResponse, Status>> + Send>> {
    let mut catalog = log.catalog();
    stream(reader, shutdown, move |sender| async move {
        let mut sent: BTreeMap<(String, String), (u64, u32)> = BTreeMap::new();
        let mut current = catalog.borrow_and_update().clone();
        let mut snapshot = true;
        loop {
            let ours = current.campaigns.iter().filter(|entry| client.is_empty() || entry.client == client);
            let mut fresh = Vec::new();
            for entry in ours {
                let key = (entry.client.clone(), entry.campaign.campaign.clone());
                let version = (entry.campaign.version, entry.horizon_days);
                if sent.insert(key, version) != Some(version) {
                    fresh.push(message(entry));
                }
            }
            for campaigns in chunks(fresh) {
                send(&sender, pb::WatchCampaignsResponse { campaigns, snapshot: std::mem::take(&mut snapshot) }).await?;
            }
            current = next(&mut catalog).await?;
        }
    })
}

/// In messages of bounded size; nothing at all is one empty message, which is a heartbeat.
fn chunks(mut all: Vec<pb::ClientCampaign>) -> Vec<Vec<pb::ClientCampaign>> {
    let mut chunks = Vec::new();
    while all.len() > CAMPAIGNS_A_MESSAGE {
        let rest = all.split_off(CAMPAIGNS_A_MESSAGE);
        chunks.push(std::mem::replace(&mut all, rest));
    }
    chunks.push(all);
    chunks
}

fn message(entry: &CatalogEntry) -> pb::ClientCampaign {
    pb::ClientCampaign {
        client: entry.client.clone(),
        campaign: Some(entry.campaign.clone()),
        horizon_days: entry.horizon_days,
        counts: Some(pb::CampaignCounts { billed_impressions: entry.billed_impressions, conversions: entry.conversions }),
    }
}
