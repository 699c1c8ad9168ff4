//! A client goes from one SyncShield to another, by the command, as its operator does it.

use std::path::Path;

use kiki::clock::{Clock, UnixMicros};
use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_admin_service_client::SyncShieldAdminServiceClient;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::{self, Reason};
use kiki::tlog::note::VerifyingKey;
use kiki_cli::operate::{MoveClient, move_client};
use prost::Message as _;
use syncshield::store::{Log, Paths};
use tokio_util::sync::CancellationToken;

const LOGS: [&str; 2] = ["kiki.local/log-1", "kiki.local/log-2"];
const AT: i64 = 1_770_000_000_000_000;

struct Shield {
    dir: tempfile::TempDir,
    url: String,
    client: SyncShieldServiceClient<Channel>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), syncshield::Error>>,
}

fn public(dir: &Path) -> VerifyingKey {
    std::fs::read_to_string(dir.join("log.pub")).unwrap().trim().parse().unwrap()
}

impl Shield {
    async fn start(dir: tempfile::TempDir, log_id: &str, peer_logs: Vec<VerifyingKey>) -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let config = syncshield::Config { peer_logs, ..syncshield::Config::new(dir.path(), log_id) };
        let served = tokio::spawn(syncshield::serve(listeners, config, Clock::System, shutdown.clone()));
        let client = SyncShieldServiceClient::new(channel(&url).unwrap());
        Self { dir, url, client, shutdown, served }
    }

    /// Takes a lease of acme's and spends what one slot of it may cost.
    async fn spend(&mut self, key: &str, micros: i64) -> Result<u64, tonic::Status> {
        let lease_id = self.client.lease(lease(key, micros)).await?.into_inner().grant.unwrap().lease_id;
        assert_eq!(self.settle(lease_id, micros).await, SlotStatus::Applied);
        let give_back =
            ReturnRequest { client: "acme".into(), campaign: "c".into(), lease_id, epoch: 1, sequence: 1, amount_nanos: micros * 1_000 };
        self.client.r#return(give_back).await.unwrap();
        Ok(lease_id)
    }

    async fn settle(&mut self, lease_id: u64, micros: i64) -> SlotStatus {
        let at = Some(UnixMicros(AT).into());
        let nanos = micros * 1_000;
        let settlement = leaf::Settlement { max_nanos: nanos, price_nanos: nanos, bid_at: at, noticed_at: at, ..Default::default() };
        let item = SettleItem { client: "acme".into(), campaign: "c".into(), lease_id, settlement: Some(settlement) };
        self.client.settle(SettleRequest { items: vec![item] }).await.unwrap().into_inner().results[0].status()
    }

    async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        self.served.await.unwrap().unwrap();
        self.dir
    }
}

fn lease(key: &str, micros: i64) -> LeaseRequest {
    LeaseRequest {
        key: key.into(),
        client: "acme".into(),
        campaign: "c".into(),
        holder: "h".into(),
        amount_micros: micros,
        least_micros: micros,
        mark_sequence: 1,
        mark_nanos: micros * 1_000,
        ..Default::default()
    }
}

/// Two SyncShields that trust each other's keys; acme has a budget of 1,000 in the first.
async fn two() -> [Shield; 2] {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    for (dir, log_id) in dirs.iter().zip(LOGS) {
        Log::open(&Paths::new(dir.path()), log_id, Clock::System).unwrap().close().await;
    }
    let keys = [public(dirs[0].path()), public(dirs[1].path())];
    let [one, two] = dirs;
    let mut from = Shield::start(one, LOGS[0], vec![keys[1].clone()]).await;
    let to = Shield::start(two, LOGS[1], vec![keys[0].clone()]).await;
    let campaign = leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    };
    for client in ["acme", "other"] {
        from.client.put_campaign(PutCampaignRequest { client: client.into(), campaign: Some(campaign.clone()) }).await.unwrap();
    }
    [from, to]
}

fn moving(from: &Shield, to: &Shield) -> MoveClient {
    MoveClient { from: from.url.clone(), to: to.url.clone(), client: "acme".into() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_spends_moves_and_spends_on_under_the_same_limit() {
    let [mut from, mut to] = two().await;
    let first = from.spend("a", 600).await.unwrap();
    move_client(&moving(&from, &to)).await.unwrap();
    move_client(&moving(&from, &to)).await.unwrap();

    let refused = from.client.lease(lease("b", 1)).await.unwrap_err();
    assert!(Reason::ClientMoved.is(&refused) && refused.message().contains(LOGS[1]), "{refused:?}");
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    let facts = ["client", "log_id"].map(|name| status::fact(&refused, name).unwrap());
    assert_eq!(facts, ["acme", LOGS[1]]);
    // A batch of decisions is refused for its sake, and taken without it under the same number.
    let item = |client: &str| RecordItem {
        client: client.into(),
        body: Some(record_item::Body::Decisions(leaf::DecisionBatch { campaign: "c".into(), ..Default::default() }.encode_to_vec().into())),
    };
    let batch = |clients: &[&str]| RecordRequest {
        source: "flow-1".into(),
        source_seq: 1,
        items: clients.iter().map(|client| item(client)).collect(),
    };
    let refused = from.client.record(batch(&["other", "acme"])).await.unwrap_err();
    assert_eq!(status::fact(&refused, "client").as_deref(), Some("acme"), "{refused:?}");
    from.client.record(batch(&["other"])).await.unwrap();
    assert_eq!(from.settle(first, 600).await, SlotStatus::Refused);

    assert_eq!(to.client.lease(lease("a", 600)).await.unwrap().into_inner().grant.unwrap().lease_id, first, "a replayed key");
    assert_eq!(to.settle(first, 600).await, SlotStatus::Duplicate);
    to.spend("b", 400).await.unwrap();
    assert!(Reason::BudgetExhausted.is(&to.spend("c", 1).await.unwrap_err()));
    // The new log goes on after a restart, from its leaves alone.
    let dir = to.stop().await;
    std::fs::remove_file(Paths::new(dir.path()).snapshot()).unwrap();
    let mut to = Shield::start(dir, LOGS[1], Vec::new()).await;
    assert!(Reason::BudgetExhausted.is(&to.spend("d", 1).await.unwrap_err()));

    for shield in [from, to] {
        let dir = shield.stop().await;
        let report = syncshield::audit::verify(dir.path(), &public(dir.path())).unwrap();
        assert_eq!(report.kinds["clients moved"], 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_broke_off_is_taken_up_again_and_only_a_known_log_is_believed() {
    let [mut from, to] = two().await;
    from.spend("a", 600).await.unwrap();
    let request = ExportClientRequest { client: "acme".into(), to_log_id: LOGS[1].into() };
    let mut admin = SyncShieldAdminServiceClient::new(channel(&from.url).unwrap());
    drop(admin.export_client(request).await.unwrap()); // and here the mover ends

    // Restarted without the other's key, the new one believes nobody.
    let dir = to.stop().await;
    let to = Shield::start(dir, LOGS[1], Vec::new()).await;
    let error = move_client(&moving(&from, &to)).await.unwrap_err().to_string();
    assert!(error.contains("is not one of the 0 logs"), "{error}");
    let key = public(from.dir.path());
    let (from_dir, to_dir) = (from.stop().await, to.stop().await);
    let from = Shield::start(from_dir, LOGS[0], Vec::new()).await;
    let mut to = Shield::start(to_dir, LOGS[1], vec![key]).await;
    move_client(&moving(&from, &to)).await.unwrap();
    to.spend("b", 400).await.unwrap();
    assert!(Reason::BudgetExhausted.is(&to.spend("c", 1).await.unwrap_err()));
    for shield in [from, to] {
        let dir = shield.stop().await;
        syncshield::audit::verify(dir.path(), &public(dir.path())).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_money_at_large_stays() {
    let [mut from, to] = two().await;
    let lease_id = from.client.lease(lease("a", 600)).await.unwrap().into_inner().grant.unwrap().lease_id;
    let request = ExportClientRequest { client: "acme".into(), to_log_id: LOGS[1].into() };
    let mut admin = SyncShieldAdminServiceClient::new(channel(&from.url).unwrap());
    let refused = admin.export_client(request).await.unwrap_err();
    assert!(Reason::ClientBusy.is(&refused) && refused.message().contains("1 live leases and 1 open slots"), "{refused:?}");
    assert_eq!(from.settle(lease_id, 600).await, SlotStatus::Applied, "it is here");
    assert!(move_client(&moving(&from, &to)).await.is_err());
    for shield in [from, to] {
        shield.stop().await;
    }
}
