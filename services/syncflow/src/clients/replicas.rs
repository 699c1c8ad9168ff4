//! Replicas of the campaigns and the policy, kept by two streams from SyncShield and read without a lock.
//!
//! Invariant: a replica that was not heard of for [`MAX_AGE`] of real time is no replica; heartbeats come each second.
//! A policy that does not compile or whose digest is not its own is not taken: the stream begins anew, the last good one
//! stays, and since a heartbeat counts only behind a good policy, no longer than that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use kiki::guardrail::Policy;
use kiki::pb::syncshield::v1 as shield;
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Backoff, Shield};
use crate::domain::auction::Counts;
use crate::domain::targeting::Campaign;
use crate::metrics::Metrics;

/// How long a replica is good for without a word: ten heartbeats.
pub const MAX_AGE: Duration = Duration::from_secs(10);

/// A campaign with what the log had counted when it was first heard of.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The campaign.
    pub campaign: Arc<Campaign>,
    /// Counts to start with; those of its leases are newer.
    pub counts: Counts,
}

/// All campaigns, in the order of client and id.
pub type Table = Vec<Entry>;

impl Entry {
    fn name(&self) -> (&str, &str) {
        (&self.campaign.client, &self.campaign.id)
    }
}

/// The replicas.
#[derive(Debug)]
pub struct Replicas {
    campaigns: ArcSwap<Table>,
    policy: ArcSwapOption<Policy>,
    campaigns_heard: Mutex<Option<Instant>>,
    policy_heard: Mutex<Option<Instant>>,
    metrics: Metrics,
}

/// What the decisions of a message are made on. One for all of them: a handle that all bids of all threads count would be waited for.
#[derive(Debug)]
pub struct View {
    /// The campaigns.
    pub campaigns: Arc<Table>,
    /// The policy in force.
    pub policy: Arc<Policy>,
}

impl Replicas {
    /// Empty replicas, which [`Replicas::run`] fills.
    #[must_use]
    pub fn new(metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            campaigns: ArcSwap::default(),
            policy: ArcSwapOption::empty(),
            campaigns_heard: Mutex::new(None),
            policy_heard: Mutex::new(None),
            metrics,
        })
    }

    /// Campaigns and policy, where both are there and fresh; else what is missing.
    ///
    /// # Errors
    /// What is missing.
    pub fn view(&self) -> Result<Arc<View>, &'static str> {
        let fresh = |heard: &Mutex<Option<Instant>>| heard.lock().is_some_and(|heard| heard.elapsed() < MAX_AGE);
        if !fresh(&self.campaigns_heard) {
            return Err("the campaigns were not heard of for 10 s");
        }
        if !fresh(&self.policy_heard) {
            return Err("the policy was not heard of for 10 s");
        }
        let policy = self.policy.load_full().ok_or("no policy is in force")?;
        Ok(Arc::new(View { campaigns: self.campaigns.load_full(), policy }))
    }

    /// The campaign, however old the replica.
    #[must_use]
    pub fn campaign(&self, client: &str, campaign: &str) -> Option<Arc<Campaign>> {
        let table = self.campaigns.load();
        let at = table.binary_search_by(|entry| entry.name().cmp(&(client, campaign))).ok()?;
        Some(table[at].campaign.clone())
    }

    /// The policy that was in force last, however old the replica.
    #[must_use]
    pub fn policy(&self) -> Option<Arc<Policy>> {
        self.policy.load_full()
    }

    /// Follows both streams until `stop`.
    pub async fn run(self: Arc<Self>, client: Shield, stop: CancellationToken) {
        let both = async { tokio::join!(self.follow_campaigns(client.clone()), self.follow_policy(client)) };
        let _ = stop.run_until_cancelled(both).await;
    }

    async fn follow_campaigns(&self, mut client: Shield) -> Status {
        let mut backoff = Backoff::new();
        loop {
            let stream = client.watch_campaigns(shield::WatchCampaignsRequest { client: String::new() }).await;
            let ended = match stream {
                Err(status) => status,
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        match next(stream.message()).await {
                            Ok(message) => self.take_campaigns(message),
                            Err(status) => break status,
                        }
                        backoff = Backoff::new();
                    }
                }
            };
            tracing::warn!("campaigns: {}", ended.message());
            tokio::time::sleep(backoff.next()).await;
        }
    }

    async fn follow_policy(&self, mut client: Shield) -> Status {
        let mut backoff = Backoff::new();
        loop {
            let ended = match client.watch_policy(shield::WatchPolicyRequest {}).await {
                Err(status) => status,
                Ok(stream) => {
                    let mut stream = stream.into_inner();
                    loop {
                        match next(stream.message()).await {
                            Ok(message) => match self.take_policy(&message) {
                                Ok(()) => backoff = Backoff::new(),
                                Err(status) => break status,
                            },
                            Err(status) => break status,
                        }
                    }
                }
            };
            tracing::warn!("policy: {}", ended.message());
            tokio::time::sleep(backoff.next()).await;
        }
    }

    fn take_campaigns(&self, message: shield::WatchCampaignsResponse) {
        if message.snapshot || !message.campaigns.is_empty() {
            let before = self.campaigns.load();
            let known: BTreeMap<_, _> = before.iter().map(|entry| (entry.name(), entry)).collect();
            let mut table =
                if message.snapshot { BTreeMap::new() } else { before.iter().map(|entry| (owned(entry.name()), entry.clone())).collect() };
            for one in message.campaigns {
                let Some(campaign) = one.campaign else { continue };
                let key = (one.client.clone(), campaign.campaign.clone());
                match Campaign::compile(&one.client, &campaign, one.horizon_days) {
                    Ok(campaign) => {
                        let counts = one.counts.unwrap_or_default();
                        let counts = Counts { billed: counts.billed_impressions, conversions: counts.conversions };
                        // Counts of later messages come at any moment; decisions would depend on when.
                        let (campaign, counts) = match known.get(&(key.0.as_str(), key.1.as_str())) {
                            Some(entry) => (campaign.following(&entry.campaign), entry.counts),
                            None => (campaign, counts),
                        };
                        table.insert(key, Entry { campaign: Arc::new(campaign), counts });
                    }
                    Err(error) => {
                        tracing::error!("campaign {} of {} is not bid for: {error}", key.1, key.0);
                        table.remove(&key);
                    }
                }
            }
            let count = |some: usize| i64::try_from(some).unwrap_or(i64::MAX);
            let without_terms = table.values().filter(|entry| entry.campaign.horizon_days == 0).count();
            let all = table.len();
            self.campaigns.store(Arc::new(table.into_values().collect()));
            // Once bids are made on them; and no campaign is counted before what it is without.
            self.metrics.campaigns_without_terms.set(count(without_terms));
            self.metrics.campaigns.set(count(all));
        }
        *self.campaigns_heard.lock() = Some(Instant::now());
    }

    fn take_policy(&self, message: &shield::WatchPolicyResponse) -> Result<(), Status> {
        if let Some(document) = &message.policy {
            let policy = Policy::compile(document).map_err(|error| error.to_string()).and_then(|policy| {
                let same = message.digest.as_ref() == policy.digest;
                if same { Ok(policy) } else { Err("its digest is another".to_owned()) }
            });
            let policy = policy.map_err(|error| Status::data_loss(format!("version {} is not applied: {error}", document.version)))?;
            let version = i64::try_from(policy.version).unwrap_or(i64::MAX);
            self.policy.store(Some(Arc::new(policy)));
            self.metrics.policy_version.set(version); // once bids are held against it
        }
        *self.policy_heard.lock() = Some(Instant::now());
        Ok(())
    }
}

fn owned((client, campaign): (&str, &str)) -> (String, String) {
    (client.to_owned(), campaign.to_owned())
}

/// The stream's next message; an error where it ended or fell silent.
async fn next<T>(message: impl Future<Output = Result<Option<T>, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(MAX_AGE, message).await {
        Ok(Ok(Some(message))) => Ok(message),
        Ok(Ok(None)) => Err(Status::unavailable("the stream ended")),
        Ok(Err(status)) => Err(status),
        Err(_) => Err(Status::deadline_exceeded("no heartbeat for 10 s")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use kiki::guardrail;
    use kiki::leaf;

    fn policy(version: u64) -> shield::WatchPolicyResponse {
        let policy = leaf::Policy { version, ..Default::default() };
        let digest = guardrail::digest(&policy).to_vec().into();
        shield::WatchPolicyResponse { policy: Some(policy), digest }
    }

    fn campaign(id: &str, currency: &str, billed: u64) -> shield::ClientCampaign {
        shield::ClientCampaign {
            client: "acme".into(),
            campaign: Some(leaf::Campaign { campaign: id.into(), currency: currency.into(), ..Default::default() }),
            horizon_days: 90,
            counts: Some(shield::CampaignCounts { billed_impressions: billed, conversions: 0 }),
        }
    }

    fn message(snapshot: bool, campaigns: Vec<shield::ClientCampaign>) -> shield::WatchCampaignsResponse {
        shield::WatchCampaignsResponse { campaigns, snapshot }
    }

    fn replicas() -> Arc<Replicas> {
        Replicas::new(Metrics::new(&kiki::runtime::Metrics::new()))
    }

    fn ids(replicas: &Replicas) -> Vec<String> {
        replicas.campaigns.load().iter().map(|entry| entry.campaign.id.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_is_not_heard_of_is_none() {
        let replicas = replicas();
        assert!(replicas.view().is_err());
        replicas.take_campaigns(message(true, vec![]));
        assert!(replicas.view().is_err());
        replicas.take_policy(&policy(1)).unwrap();
        assert_eq!(replicas.view().unwrap().policy.version, 1);
        tokio::time::advance(MAX_AGE - Duration::from_millis(1)).await;
        replicas.take_policy(&shield::WatchPolicyResponse::default()).unwrap();
        assert!(replicas.view().is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(replicas.view().unwrap_err(), "the campaigns were not heard of for 10 s");
        replicas.take_campaigns(message(false, vec![]));
        assert!(replicas.view().is_ok(), "a heartbeat is a word");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_policy_stays_until_it_is_too_old() {
        let replicas = replicas();
        replicas.take_campaigns(message(true, vec![]));
        replicas.take_policy(&policy(1)).unwrap();
        tokio::time::advance(MAX_AGE / 2).await;
        let other = shield::WatchPolicyResponse { digest: vec![0; 32].into(), ..policy(2) };
        assert!(replicas.take_policy(&other).is_err(), "a digest of another");
        assert_eq!(replicas.view().unwrap().policy.version, 1);
        replicas.take_campaigns(message(true, vec![]));
        tokio::time::advance(MAX_AGE / 2).await;
        assert_eq!(replicas.view().unwrap_err(), "the policy was not heard of for 10 s");
        replicas.take_policy(&policy(3)).unwrap();
        assert_eq!(replicas.view().unwrap().policy.version, 3);
        assert_eq!(replicas.metrics.policy_version.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_replaces_a_change_adds_and_what_cannot_be_bid_for_goes() {
        let replicas = replicas();
        replicas.take_campaigns(message(true, vec![campaign("a", "USD", 1), campaign("b", "USD", 1)]));
        replicas.take_campaigns(message(false, vec![campaign("c", "USD", 1), campaign("a", "USD", 9)]));
        assert_eq!(ids(&replicas), ["a", "b", "c"]);
        let first = replicas.campaigns.load()[0].counts;
        assert_eq!(first.billed, 1, "later counts come with leases alone");
        replicas.take_campaigns(message(false, vec![campaign("b", "nonsense", 1)]));
        assert_eq!(ids(&replicas), ["a", "c"]);
        replicas.take_campaigns(message(true, vec![campaign("c", "USD", 1)]));
        assert_eq!((ids(&replicas), replicas.metrics.campaigns.get()), (vec!["c".to_owned()], 1));
        let unsettled = shield::ClientCampaign { horizon_days: 0, ..campaign("d", "USD", 1) };
        replicas.take_campaigns(message(false, vec![unsettled]));
        assert_eq!((replicas.metrics.campaigns.get(), replicas.metrics.campaigns_without_terms.get()), (2, 1));
        replicas.take_campaigns(message(false, vec![campaign("d", "USD", 1)]));
        assert_eq!(replicas.metrics.campaigns_without_terms.get(), 0);
    }
}
