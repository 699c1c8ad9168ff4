//! The real process on a real disk: killed under load, and out of room and back.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::leaf;
use kiki::pb::syncshield::v1::record_item::Body;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::status::Reason;
use kiki::tlog::note::VerifyingKey;
use prost::Message as _;
use syncshield::audit::{self, Report};
use tonic::transport::{Channel, Endpoint};

type Client = SyncShieldServiceClient<Channel>;

/// How often the process is killed in one run.
const KILLS: u64 = 50;
/// Senders at once.
const SENDERS: u64 = 4;

/// The server; killed when it goes out of scope.
struct Process {
    child: Child,
    client: Client,
}

impl Process {
    /// Starts it, with a limit on the size of its files where one is given (KiB; only the soft one, so that it can be raised).
    async fn start(data: &Path, file_limit_kib: Option<u32>) -> Self {
        let limit = file_limit_kib.map_or(String::new(), |kib| format!("trap '' XFSZ; ulimit -S -f {kib};"));
        let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = probe.local_addr().unwrap().to_string();
        drop(probe);
        let script = format!("{limit} exec \"$0\" --grpc {address} --http 127.0.0.1:0 --data \"$1\" --log-id test.local/log");
        let mut command = Command::new("bash");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_syncshield")]).arg(data).env("RUST_LOG", "off").stderr(Stdio::null());
        let mut process = Self { child: command.spawn().unwrap(), client: Client::new(Endpoint::from_static("http://x").connect_lazy()) };
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        for _ in 0..4_000 {
            if let Ok(channel) = endpoint.connect().await {
                process.client = Client::new(channel);
                // A connection alone may be to itself: nobody listens yet, and its own port is the one that it asks for.
                if process.client.get_policy(GetPolicyRequest::default()).await.is_ok() {
                    return process;
                }
            }
            assert_eq!(process.child.try_wait().unwrap(), None, "the process ended at its start");
            tokio::time::sleep(Duration::from_millis(5)).await; // until it listens
        }
        panic!("{address} does not answer");
    }

    /// SIGKILL.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn set_up(client: &mut Client) {
    let campaign = leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000_000_000,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    };
    client.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
}

fn lease(key: &str) -> LeaseRequest {
    LeaseRequest {
        key: key.into(),
        client: "acme".into(),
        campaign: "c".into(),
        holder: "h".into(),
        amount_micros: 100,
        least_micros: 1,
        mark_sequence: 1,
        mark_nanos: 1_000,
        ..Default::default()
    }
}

fn settle(lease_id: u64) -> SettleRequest {
    let time = Some(UnixMicros(1_770_000_000_000_000).into());
    let settlement =
        leaf::Settlement { sequence: 0, max_nanos: 1_000, price_nanos: 700, bid_at: time, noticed_at: time, ..Default::default() };
    SettleRequest { items: vec![SettleItem { client: "acme".into(), campaign: "c".into(), lease_id, settlement: Some(settlement) }] }
}

fn record(source: &str, source_seq: u64) -> RecordRequest {
    let batch = leaf::DecisionBatch { campaign: "c".into(), ..Default::default() };
    let item = RecordItem { client: "acme".into(), body: Some(Body::Decisions(batch.encode_to_vec().into())) };
    RecordRequest { source: source.into(), source_seq, items: vec![item] }
}

/// What one sender heard of.
#[derive(Default)]
struct Heard {
    leases: Vec<(String, u64)>,
    /// Leases whose mark reached 9 slots.
    marked: Vec<(String, u64)>,
    settled: Vec<u64>,
    recorded: Option<(String, u64, u64)>,
    signed: u64,
}

/// Sends until the process is gone.
async fn send(mut client: Client, name: String, acknowledged: Arc<AtomicU64>) -> Heard {
    let mut heard = Heard::default();
    for number in 1.. {
        let round = one_of_each(&mut client, &name, number, &acknowledged, &mut heard).await;
        if round.is_err() {
            break;
        }
    }
    heard
}

async fn one_of_each(c: &mut Client, name: &str, number: u64, acknowledged: &AtomicU64, heard: &mut Heard) -> Result<(), tonic::Status> {
    let key = format!("{name}-{number}");
    let lease_id = c.lease(lease(&key)).await?.into_inner().grant.unwrap().lease_id;
    heard.leases.push((key.clone(), lease_id));
    acknowledged.fetch_add(1, SeqCst);
    let mark = MarkRequest { client: "acme".into(), campaign: "c".into(), lease_id, epoch: 1, sequence: 9, amount_nanos: 9_000 };
    c.mark(mark).await?;
    heard.marked.push((key, lease_id));
    acknowledged.fetch_add(1, SeqCst);
    assert_eq!(c.settle(settle(lease_id)).await?.into_inner().results[0].status(), SlotStatus::Applied);
    heard.settled.push(lease_id);
    acknowledged.fetch_add(1, SeqCst);
    let recorded = c.record(record(name, number)).await?.into_inner().results.remove(0);
    heard.recorded = Some((name.to_owned(), number, recorded.position.unwrap().index));
    acknowledged.fetch_add(1, SeqCst);
    if number.is_multiple_of(4) {
        heard.signed = c.get_checkpoint(GetCheckpointRequest { min_size: 0 }).await?.into_inner().size;
    }
    Ok(())
}

/// Everything that a sender heard of is there, and sent again it has no second effect.
async fn is_there(client: &mut Client, heard: &Heard) {
    for (key, lease_id) in &heard.leases {
        assert_eq!(client.lease(lease(key)).await.unwrap().into_inner().grant.unwrap().lease_id, *lease_id);
    }
    for (key, _) in &heard.marked {
        assert_eq!(client.lease(lease(key)).await.unwrap().into_inner().grant.unwrap().mark_sequence, 9);
    }
    for lease_id in &heard.settled {
        assert_eq!(client.settle(settle(*lease_id)).await.unwrap().into_inner().results[0].status(), SlotStatus::Duplicate);
    }
    if let Some((source, number, index)) = &heard.recorded {
        let again = client.record(record(source, *number)).await.unwrap().into_inner().results.remove(0);
        assert!(again.duplicate);
        // Where the next batch reached the disk unheard, this one is an old one, without its place.
        assert!([*index, 0].contains(&again.position.map_or(0, |position| position.index)));
    }
}

fn verified(data: &Path) -> Report {
    let key: VerifyingKey = std::fs::read_to_string(data.join("log.pub")).unwrap().trim().parse().unwrap();
    audit::verify(data, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load_fifty_times_it_keeps_all_that_it_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start(dir.path(), None).await;
    set_up(&mut process.client).await;
    process.client.get_checkpoint(GetCheckpointRequest { min_size: 1 }).await.unwrap();
    let mut moments = Clock::System.now().0 as u64;
    let (mut effects, mut signed) = (0, 0);
    for kill in 0..KILLS {
        let acknowledged = Arc::new(AtomicU64::new(0));
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| tokio::spawn(send(process.client.clone(), format!("s{kill}-{sender}"), acknowledged.clone())))
            .collect();
        moments = moments.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let moment = 1 + (moments >> 33) % 100;
        while acknowledged.load(SeqCst) < moment {
            tokio::task::yield_now().await;
        }
        process.kill();
        let mut all = Vec::new();
        for sender in senders {
            all.push(sender.await.unwrap());
        }
        signed = all.iter().map(|heard| heard.signed).fold(signed, u64::max);
        let report = verified(dir.path());
        assert!(report.signed >= signed, "{} leaves are signed on disk, {signed} were handed out", report.signed);
        process = Process::start(dir.path(), None).await;
        for heard in &all {
            is_there(&mut process.client, heard).await;
        }
        effects += acknowledged.load(SeqCst);
    }
    process.kill();
    println!("{KILLS} kills, {effects} acknowledged effects, {} leaves", verified(dir.path()).leaves);
}

#[tokio::test]
async fn a_full_disk_denies_and_recovers_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    // Past this limit a write fails with EFBIG, as it fails with ENOSPC on a full disk.
    let mut process = Process::start(dir.path(), Some(256)).await;
    set_up(&mut process.client).await;
    let mut leased = Vec::new();
    let filler = |number: u64| {
        let document_sha256 = [&number.to_le_bytes()[..], &[0; 24]].concat().into();
        let evidence = leaf::Evidence { document_sha256, title: "x".repeat(200), currency: "USD".into(), ..Default::default() };
        let item = RecordItem { client: "acme".into(), body: Some(Body::Evidence(evidence)) };
        RecordRequest { items: vec![item], ..Default::default() }
    };
    let refused = loop {
        let number = leased.len() as u64;
        assert!(number < 1_000, "the limit was never reached");
        match process.client.lease(lease(&format!("k{number}"))).await {
            Ok(answer) => leased.push(answer.into_inner().grant.unwrap().lease_id),
            Err(status) => break status,
        }
        if let Err(status) = process.client.record(filler(number)).await {
            break status;
        }
    };
    assert!(Reason::LogUnavailable.is(&refused) && refused.message().contains("disk is full"), "{refused}");
    for _ in 0..3 {
        let refused = process.client.lease(lease("later")).await.unwrap_err();
        assert!(Reason::LogUnavailable.is(&refused), "{refused}");
    }
    let pid = process.child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited:"]).status().unwrap().success());
    // There is room again, and nothing of what was denied has happened.
    let next = process.client.lease(lease("later")).await.unwrap().into_inner().grant.unwrap();
    assert_eq!(next.lease_id, leased.len() as u64 + 1);
    process.client.record(filler(leased.len() as u64 - 1)).await.unwrap();
    for (number, lease_id) in leased.iter().enumerate() {
        let again = process.client.lease(lease(&format!("k{number}"))).await.unwrap().into_inner().grant.unwrap();
        assert_eq!(again.lease_id, *lease_id);
    }
    let size = process.client.get_checkpoint(GetCheckpointRequest { min_size: 0 }).await.unwrap().into_inner().size;
    process.kill();
    let report = verified(dir.path());
    assert!(report.signed >= size);
    assert_eq!((report.kinds["leases granted"], report.kinds["evidence"]), (leased.len() as u64 + 1, leased.len() as u64));
}
