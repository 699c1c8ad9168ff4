//! Personal data over real gRPC: sealed on its way into the log, given back to its client, and erased for good.

use std::path::Path;

use kiki::caller;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::ids::CustomerKey;
use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use kiki::tlog::{Checkpoint, leaf_hash, multiproof_root, note::VerifyingKey};
use syncshield::subjects::file::KeyFile;
use syncshield::subjects::{self, Subject};
use tokio_util::sync::CancellationToken;

const NOON: i64 = 1_770_000_000_000_000;
const EMAIL: &[u8] = b"ada.lovelace@example.com";

struct Shield {
    client: SyncShieldServiceClient<Channel>,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), syncshield::Error>>,
}

async fn start(data: &Path) -> Shield {
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let grpc = listeners.grpc.local_addr().unwrap();
    let config = syncshield::Config::new(data, "test.local/log");
    let clock = Clock::Virtual(VirtualClock::at(UnixMicros(NOON)));
    let shutdown = CancellationToken::new();
    let served = tokio::spawn(syncshield::serve(listeners, config, clock, shutdown.clone()));
    Shield { client: SyncShieldServiceClient::new(channel(&format!("http://{grpc}")).unwrap()), shutdown, served }
}

impl Shield {
    async fn stop(self) {
        self.shutdown.cancel();
        self.served.await.unwrap().unwrap();
    }

    async fn set_up(&mut self) {
        let campaign = leaf::Campaign {
            campaign: "c".into(),
            currency: "USD".into(),
            zone: "UTC".into(),
            limit_total_micros: 1_000_000,
            target_roas_ppm: 3_000_000,
            ..Default::default()
        };
        self.client.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
    }

    async fn buy(&mut self, event: &str, customer: u8, personal: &[u8]) -> Result<RecordResult, tonic::Status> {
        let purchase = Purchase {
            event_id: event.into(),
            occurred_at: Some(UnixMicros(NOON).into()),
            customer: vec![customer; 16].into(),
            currency: "USD".into(),
            value_micros: 5,
            personal: personal.to_vec().into(),
            ..Default::default()
        };
        let items = vec![RecordItem { client: "acme".into(), body: Some(record_item::Body::Purchase(purchase)) }];
        Ok(self.client.record(RecordRequest { items, ..Default::default() }).await?.into_inner().results.remove(0))
    }

    async fn unseal(&mut self, event: &str) -> Result<UnsealResponse, tonic::Status> {
        let request = UnsealRequest { client: "acme".into(), event_id: event.into() };
        Ok(self.client.unseal(request).await?.into_inner())
    }

    async fn erase(&mut self, customer: u8) -> Result<EraseSubjectResponse, tonic::Status> {
        Ok(self.client.erase_subject(erasure(customer)).await?.into_inner())
    }

    async fn leaves(&mut self) -> u64 {
        self.client.get_checkpoint(GetCheckpointRequest { min_size: 0, ..Default::default() }).await.unwrap();
        let mut tail = self.client.tail(TailRequest::default()).await.unwrap().into_inner();
        let mut next = 0;
        while let Some(message) = tail.message().await.unwrap() {
            next = message.next_index;
        }
        next
    }

    /// Waits until the log has so many leaves.
    async fn grown_to(&mut self, leaves: u64) {
        let mut tail = self.client.tail(TailRequest { follow: true, ..Default::default() }).await.unwrap().into_inner();
        while tail.message().await.unwrap().unwrap().next_index < leaves {}
    }
}

fn erasure(customer: u8) -> EraseSubjectRequest {
    EraseSubjectRequest { client: "acme".into(), customer: vec![customer; 16].into(), reason: "a request under article 17".into() }
}

fn ada() -> Subject {
    Subject { client: "acme".into(), customer: CustomerKey([1; 16]) }
}

/// Whether a file anywhere below a folder holds these bytes.
fn holds(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
        if path.is_dir() { holds(&path, bytes) } else { std::fs::read(&path).unwrap().windows(bytes.len()).any(|found| found == bytes) }
    })
}

fn verifies(data: &Path) {
    let key: VerifyingKey = std::fs::read_to_string(data.join("log.pub")).unwrap().trim().parse().unwrap();
    syncshield::audit::verify(data, &key).unwrap();
}

#[tokio::test]
async fn personal_data_is_sealed_given_back_and_erased_while_proofs_hold() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = start(dir.path()).await;
    shield.set_up().await;
    let bought = shield.buy("order-1", 1, EMAIL).await.unwrap();
    shield.buy("order-2", 1, b"ada's second").await.unwrap();
    shield.buy("order-3", 2, b"bob's").await.unwrap();
    let size = shield.leaves().await + 1; // with the record that somebody asked for it
    assert_eq!(shield.unseal("order-1").await.unwrap().personal, EMAIL);
    shield.grown_to(size).await;
    let index = bought.position.unwrap().index;
    let note = shield.client.get_checkpoint(GetCheckpointRequest { min_size: size, ..Default::default() }).await.unwrap().into_inner();
    let leaf = shield.client.tail(TailRequest::default()).await.unwrap().into_inner().message().await.unwrap().unwrap();
    let leaf = leaf.entries[index as usize].leaf.clone();

    let erased = shield.erase(1).await.unwrap();
    assert_eq!(erased.position.as_ref().unwrap().index, size);
    for event in ["order-1", "order-2"] {
        let answer = shield.unseal(event).await.unwrap();
        assert!(answer.erased && answer.personal.is_empty());
        assert_eq!(answer.erasure, erased.position);
    }
    assert_eq!(shield.unseal("order-3").await.unwrap().personal, &b"bob's"[..]);
    // Asked again it has nothing to do, and a purchase that is reported again brings nothing back.
    let again = shield.erase(1).await.unwrap();
    assert!(!erased.duplicate && again == EraseSubjectResponse { duplicate: true, ..erased.clone() });
    assert_eq!(shield.erase(3).await.unwrap(), EraseSubjectResponse::default(), "nothing was ever sealed for them");
    assert!(shield.buy("order-1", 1, EMAIL).await.unwrap().duplicate);
    assert!(shield.unseal("order-1").await.unwrap().erased);

    // The record is as it was, and so is its proof under the checkpoint of then.
    let request = GetProofRequest { log_id: String::new(), indices: vec![index], size: note.size };
    let proof: Vec<_> = shield.client.get_proof(request).await.unwrap().into_inner().proof;
    let proof: Vec<[u8; 32]> = proof.iter().map(|hash| hash[..].try_into().unwrap()).collect();
    let key: VerifyingKey = std::fs::read_to_string(dir.path().join("log.pub")).unwrap().trim().parse().unwrap();
    let signed = Checkpoint::open(note.checkpoint.as_bytes(), key.name(), &key).unwrap();
    assert_eq!(multiproof_root(signed.size, &[(index, leaf_hash(&leaf))], &proof).unwrap(), signed.root);

    shield.stop().await;
    assert!(!holds(dir.path(), EMAIL), "the plain text reached a file");
    verifies(dir.path());
    let mut shield = start(dir.path()).await;
    assert!(shield.unseal("order-1").await.unwrap().erased, "a restart brought it back");
    assert_eq!(shield.unseal("order-3").await.unwrap().personal, &b"bob's"[..]);
    shield.stop().await;
}

#[tokio::test]
async fn a_client_sees_and_erases_its_own_customers_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = start(dir.path()).await;
    shield.set_up().await;
    shield.buy("order-1", 1, EMAIL).await.unwrap();
    shield.buy("order-2", 2, b"").await.unwrap();
    let as_tenant = |client: &str, mut request: tonic::Request<()>| {
        request.metadata_mut().insert(caller::ROLE, "tenant".parse().unwrap());
        request.metadata_mut().insert(caller::CLIENT, client.parse().unwrap());
        request
    };
    let seen = |may| if may { Ok(true) } else { Err(true) };
    for (client, may) in [("globex", false), ("acme", true)] {
        let ask = UnsealRequest { client: "acme".into(), event_id: "order-1".into() };
        let answer = shield.client.unseal(as_tenant(client, tonic::Request::new(())).map(|()| ask)).await;
        assert_eq!(answer.map(|answer| answer.into_inner().personal == EMAIL).map_err(|e| Reason::NotYours.is(&e)), seen(may));
        let answer = shield.client.erase_subject(as_tenant(client, tonic::Request::new(())).map(|()| erasure(1))).await;
        assert_eq!(answer.map(|_| true).map_err(|e| Reason::NotYours.is(&e)), seen(may));
    }
    // What there is not, and what is out of its bounds, is named.
    assert!(Reason::NotFound.is(&shield.unseal("order-2").await.unwrap_err()));
    assert!(Reason::NotFound.is(&shield.unseal("order-9").await.unwrap_err()));
    let long = shield.buy("order-4", 1, &[7; 1_025]).await.unwrap_err();
    assert!(Reason::FieldInvalid.is(&long) && long.message().contains("items[0].purchase.personal: 1025 bytes"), "{long}");
    let nameless = EraseSubjectRequest { reason: String::new(), ..erasure(2) };
    assert!(Reason::FieldInvalid.is(&shield.client.erase_subject(nameless).await.unwrap_err()));
    let stranger = EraseSubjectRequest { client: "nobody".into(), ..erasure(2) };
    assert!(Reason::NotFound.is(&shield.client.erase_subject(stranger).await.unwrap_err()));
    shield.stop().await;
}

/// The key is gone and the log does not say so: the process ended between the two.
#[tokio::test]
async fn an_erasure_that_a_crash_cut_short_is_recorded_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = start(dir.path()).await;
    shield.set_up().await;
    shield.buy("order-1", 1, EMAIL).await.unwrap();
    shield.stop().await;
    KeyFile::open(&subjects::path(dir.path())).unwrap().destroy(&ada()).unwrap();

    let mut shield = start(dir.path()).await;
    let leaves = shield.leaves().await;
    assert_eq!(leaves, 3);
    let answer = shield.unseal("order-1").await.unwrap();
    assert!(answer.erased && answer.erasure.is_some());
    shield.stop().await;
    let mut shield = start(dir.path()).await;
    assert_eq!(shield.leaves().await, leaves + 1, "the erasure stands once, and that it was asked for what is erased");
    shield.stop().await;
    verifies(dir.path());
}

/// The log says so, and the slot was not freed: the process ended between the two.
#[tokio::test]
async fn an_erasure_is_recorded_once_wherever_a_crash_came() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = start(dir.path()).await;
    shield.set_up().await;
    shield.buy("order-1", 1, EMAIL).await.unwrap();
    let live = std::fs::read(subjects::path(dir.path())).unwrap();
    shield.erase(1).await.unwrap();
    let leaves = shield.leaves().await;
    shield.stop().await;
    let mut due = live;
    due[96..].fill(0); // the key alone
    std::fs::write(subjects::path(dir.path()), due).unwrap();

    let mut shield = start(dir.path()).await;
    assert_eq!(shield.leaves().await, leaves);
    assert!(shield.unseal("order-1").await.unwrap().erased);
    shield.stop().await;
    let keys = KeyFile::open(&subjects::path(dir.path())).unwrap();
    assert!(keys.due().is_empty() && keys.find(&ada()).unwrap().is_none());
    verifies(dir.path());
}

/// No key can be kept, so nothing is sealed, and the purchase is refused rather than taken without it.
#[tokio::test]
async fn a_purchase_whose_key_cannot_be_kept_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = start(dir.path()).await;
    shield.set_up().await;
    std::fs::create_dir_all(subjects::path(dir.path())).unwrap(); // a folder where the file would be
    assert!(shield.buy("order-1", 1, EMAIL).await.is_err());
    assert!(!shield.buy("order-1", 1, b"").await.unwrap().duplicate, "it had been recorded");
    std::fs::remove_dir(subjects::path(dir.path())).unwrap();
    shield.buy("order-2", 1, EMAIL).await.unwrap();
    assert_eq!(shield.unseal("order-2").await.unwrap().personal, EMAIL);
    shield.stop().await;
}
