//! SyncShield over real gRPC, and its process on a disk that fails.

use std::io::BufRead as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use prost::Message as _;
use tokio_util::sync::CancellationToken;

const NOON: i64 = 1_770_000_000_000_000;

struct Shield {
    client: SyncShieldServiceClient<Channel>,
    http: String,
    clock: VirtualClock,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), syncshield::Error>>,
    _dir: tempfile::TempDir,
}

async fn shield() -> Shield {
    let mut shield = shield_in(tempfile::tempdir().unwrap(), NOON).await;
    set_up(&mut shield.client).await;
    shield
}

async fn shield_in(dir: tempfile::TempDir, now: i64) -> Shield {
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let (grpc, http) = (listeners.grpc.local_addr().unwrap(), listeners.http.local_addr().unwrap());
    let clock = VirtualClock::at(UnixMicros(now));
    let shutdown = CancellationToken::new();
    let config = syncshield::Config::new(dir.path(), "test.local/log");
    let served = tokio::spawn(syncshield::serve(listeners, config, Clock::Virtual(clock.clone()), shutdown.clone()));
    let client = SyncShieldServiceClient::new(channel(&format!("http://{grpc}")).unwrap());
    Shield { client, http: http.to_string(), clock, shutdown, served, _dir: dir }
}

async fn set_up(client: &mut SyncShieldServiceClient<Channel>) {
    let policy = leaf::Policy {
        bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 50_000_000 }],
        blocked_countries: vec!["PRK".into()],
        ..Default::default()
    };
    client.put_policy(PutPolicyRequest { policy: Some(policy), ..Default::default() }).await.unwrap();
    let campaign = leaf::Campaign {
        campaign: "c".into(),
        currency: "USD".into(),
        zone: "UTC".into(),
        limit_total_micros: 1_000_000,
        target_roas_ppm: 3_000_000,
        ..Default::default()
    };
    client.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
}

fn lease(key: &str) -> LeaseRequest {
    let (client, campaign) = ("acme".into(), "c".into());
    LeaseRequest {
        key: key.into(),
        client,
        campaign,
        holder: "h".into(),
        amount_micros: 600_000,
        least_micros: 1,
        mark_sequence: 2,
        mark_nanos: 2_000,
        ..Default::default()
    }
}

fn settle(lease_id: u64, sequence: u32) -> SettleRequest {
    let time = Some(UnixMicros(NOON).into());
    let settlement =
        leaf::Settlement { sequence, max_nanos: 1_000, price_nanos: 700, bid_at: time, noticed_at: time, ..Default::default() };
    SettleRequest { items: vec![SettleItem { client: "acme".into(), campaign: "c".into(), lease_id, settlement: Some(settlement) }] }
}

#[tokio::test]
async fn a_lease_is_marked_settled_renewed_and_returned() {
    let Shield { mut client, clock, _dir, .. } = shield().await;
    let leased = client.lease(lease("a")).await.unwrap().into_inner();
    let grant = leased.grant.unwrap();
    assert_eq!((grant.amount_micros, grant.mark_sequence, grant.mark_nanos), (600_000, 2, 2_000));
    assert_eq!(i128::from(&leased.budget.unwrap().available_nanos.unwrap()), 400_000_000);
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(client.settle(settle(grant.lease_id, 0)).await.unwrap().into_inner().results[0].status());
    }
    assert_eq!(statuses, [SlotStatus::Applied, SlotStatus::Duplicate]);
    clock.advance_to(UnixMicros(NOON + 30_000_000));
    let renew = RenewRequest { client: "acme".into(), campaign: "c".into(), lease_id: grant.lease_id, epoch: 1 };
    assert_eq!(client.renew(renew.clone()).await.unwrap().into_inner().grant.unwrap().epoch, 2);
    assert!(Reason::StaleEpoch.is(&client.renew(renew).await.unwrap_err()));
    let give_back =
        ReturnRequest { client: "acme".into(), campaign: "c".into(), lease_id: grant.lease_id, epoch: 2, sequence: 2, amount_nanos: 2_000 };
    assert_eq!(client.r#return(give_back).await.unwrap().into_inner().freed_nanos, 600_000_000 - 2_000);
    let budget =
        client.get_budget(GetBudgetRequest { client: "acme".into(), campaign: "c".into() }).await.unwrap().into_inner().budget.unwrap();
    let nanos = |n: Option<leaf::Int128>| i128::from(&n.unwrap());
    assert_eq!((nanos(budget.settled_nanos), nanos(budget.held_nanos), nanos(budget.leased_nanos)), (700, 1_000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_a_holder_renews_the_lease_that_ran_out_meanwhile() {
    let Shield { mut client, clock, shutdown, served, _dir: dir, .. } = shield().await;
    let lease_id = client.lease(lease("a")).await.unwrap().into_inner().grant.unwrap().lease_id;
    shutdown.cancel();
    served.await.unwrap().unwrap();
    drop((client, clock));

    let Shield { mut client, clock, http, _dir, .. } = shield_in(dir, NOON + 600_000_000).await;
    let ask = GetBudgetRequest { client: "acme".into(), campaign: "c".into() };
    let budget = client.get_budget(ask.clone()).await.unwrap().into_inner().budget.unwrap();
    let nanos = |n: Option<leaf::Int128>| n.map(|n| i128::from(&n));
    assert_eq!((nanos(budget.kept_nanos), nanos(budget.available_nanos)), (Some(600_000_000 - 2_000), Some(400_000_000)));
    assert_eq!(UnixMicros::from_pb(budget.keeps_until.as_ref()), Some(UnixMicros(NOON + 660_000_000)));
    until_metric(&http, r#"syncshield_kept_micros{campaign="c",client="acme"} 599998"#).await;
    let taken = client.lease(LeaseRequest { holder: "other".into(), ..lease("b") }).await.unwrap().into_inner().grant.unwrap();
    assert_eq!(taken.amount_micros, 400_000, "what nobody held");
    let renew = RenewRequest { client: "acme".into(), campaign: "c".into(), lease_id, epoch: 1 };
    assert_eq!(client.renew(renew).await.unwrap().into_inner().grant.unwrap().epoch, 2);

    clock.advance_to(UnixMicros(NOON + 661_000_000));
    let budget = client.get_budget(ask).await.unwrap().into_inner().budget.unwrap();
    assert_eq!((nanos(budget.kept_nanos), budget.keeps_until), (None, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_corrections_and_reports_are_records_that_the_audit_checks() {
    let Shield { mut client, clock, http, shutdown, served, _dir: dir } = shield().await;
    let limits = |limit_total_micros, paused| leaf::Limits {
        campaign: "c".into(),
        platform: "meta".into(),
        currency: "USD".into(),
        limit_total_micros,
        paused,
        ..Default::default()
    };
    let put = |limits| PutLimitsRequest { client: "acme".into(), limits: Some(limits), ..Default::default() };
    assert_eq!(client.put_limits(put(limits(400_000, false))).await.unwrap().into_inner().version, 1);
    assert!(Reason::FieldInvalid.is(&client.lease(lease("a")).await.unwrap_err()), "without a platform");
    let on_meta = |key: &str| LeaseRequest { platform: "meta".into(), mark_nanos: 300_000_000, ..lease(key) };
    let grant = client.lease(on_meta("a")).await.unwrap().into_inner().grant.unwrap();
    assert_eq!(grant.amount_micros, 400_000);
    let charged = SettleItem {
        settlement: Some(leaf::Settlement {
            max_nanos: 300_000_000,
            price_nanos: 290_000_000,
            ..settle(1, 0).items[0].settlement.clone().unwrap()
        }),
        ..settle(grant.lease_id, 0).items[0].clone()
    };
    client.settle(SettleRequest { items: vec![charged] }).await.unwrap();
    client.put_limits(put(limits(400_000, true))).await.unwrap();
    let renew = RenewRequest { client: "acme".into(), campaign: "c".into(), lease_id: grant.lease_id, epoch: 1 };
    assert!(Reason::CampaignInactive.is(&client.renew(renew).await.unwrap_err()));
    clock.advance_to(UnixMicros(NOON + 60_000_000));
    let report = ReconcileRequest {
        client: "acme".into(),
        campaign: "c".into(),
        platform: "meta".into(),
        until: Some(UnixMicros(NOON + 60_000_000).into()),
        leases: vec![LeaseReport { lease_id: grant.lease_id, slots: vec![], total_nanos: Some(280_000_000) }],
        evidence_sha256: vec![3; 32].into(),
        reason: "report of the day".into(),
    };
    let done = client.reconcile(report).await.unwrap().into_inner();
    assert_eq!((done.voided_slots, done.adjusted_leases, done.settled_slots), (1, 1, 0));
    let credit = leaf::SpendAdjustment {
        key: "ivt-1".into(),
        campaign: "c".into(),
        platform: "meta".into(),
        currency: "USD".into(),
        amount_nanos: -80_000_000,
        kind: leaf::AdjustmentKind::InvalidTraffic.into(),
        reason: "invalid traffic".into(),
        evidence_sha256: vec![4; 32].into(),
        accounted_at: Some(UnixMicros(NOON).into()),
        ..Default::default()
    };
    let adjust = AdjustRequest { client: "acme".into(), adjustment: Some(credit) };
    let mut as_tenant = tonic::Request::new(adjust.clone());
    as_tenant.metadata_mut().insert("kiki-role", "tenant".parse().unwrap());
    as_tenant.metadata_mut().insert("kiki-client", "acme".parse().unwrap());
    assert!(Reason::NotYours.is(&client.adjust(as_tenant).await.unwrap_err()));
    assert!(!client.adjust(adjust.clone()).await.unwrap().into_inner().duplicate);
    assert!(client.adjust(adjust).await.unwrap().into_inner().duplicate);
    let budget =
        client.get_budget(GetBudgetRequest { client: "acme".into(), campaign: "c".into() }).await.unwrap().into_inner().budget.unwrap();
    assert_eq!(i128::from(&budget.settled_nanos.unwrap()), 200_000_000);
    assert_eq!((budget.scopes.len(), budget.scopes[1].platform.as_str(), budget.scopes[1].version), (2, "meta", 2));
    assert_eq!((budget.platforms.len(), budget.platforms[0].platform.as_str(), budget.holders), (1, "meta", 1));
    let spent = r#"syncshield_spent_micros{campaign="c",client="acme",platform="meta"} 200000"#;
    let alerted = r#"limit="total",platform="meta"} 70"#;
    until_metric(&http, spent).await;
    let text = until_metric(&http, alerted).await;
    assert!(text.contains(r#"syncshield_float_micros{campaign="c",client="acme",platform="meta"} 0"#), "{text}");
    shutdown.cancel();
    served.await.unwrap().unwrap();
    let key = std::fs::read_to_string(dir.path().join("log.pub")).unwrap().trim().parse().unwrap();
    let audit = syncshield::audit::verify(dir.path(), &key).unwrap();
    assert_eq!(audit.settled.into_values().collect::<Vec<_>>(), [200_000_000]);
    let kinds = ["limits", "spend adjustments", "budget alerts", "void batches"].map(|kind| audit.kinds[kind]);
    assert_eq!(kinds, [2, 2, 2, 1], "each version of a limit is alerted");
}

/// Waits until the gauges say so.
async fn until_metric(http: &str, line: &str) -> String {
    for _ in 0..300 {
        let text = get(http, "/metrics");
        if text.contains(line) {
            return text;
        }
        tokio::time::sleep(Duration::from_millis(50)).await; // they are read anew every two seconds
    }
    panic!("{line} is not among {}", get(http, "/metrics"));
}

fn get(address: &str, path: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test]
async fn a_reservation_holds_and_its_key_has_one_effect() {
    let Shield { mut client, _dir, .. } = shield().await;
    let (key, holder) = ("r1".to_owned(), "h".to_owned());
    let reserve = ReserveRequest { key, client: "acme".into(), campaign: "c".into(), holder, max_nanos: 999_999_001, ..Default::default() };
    let first = client.reserve(reserve.clone()).await.unwrap().into_inner();
    let again = client.reserve(reserve.clone()).await.unwrap().into_inner();
    assert_eq!((first.duplicate, again.duplicate), (false, true));
    assert_eq!(first.grant.as_ref().unwrap().amount_micros, 1_000_000);
    let refused = client.reserve(ReserveRequest { key: "r2".into(), ..reserve }).await.unwrap_err();
    assert!(Reason::BudgetExhausted.is(&refused), "{refused}");
    let lease_id = first.grant.unwrap().lease_id;
    let void = VoidItem {
        client: "acme".into(),
        campaign: "c".into(),
        lease_id,
        void: Some(leaf::Void { max_nanos: 1_000_000_000, ..Default::default() }),
    };
    assert_eq!(client.void(VoidRequest { items: vec![void] }).await.unwrap().into_inner().results[0].status(), SlotStatus::Applied);
    assert!(client.lease(lease("a")).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_gives_every_reason_over_grpc_and_http_alike() {
    let Shield { mut client, http, _dir, .. } = shield().await;
    let request = CheckRequest {
        client: "acme".into(),
        campaign: "c".into(),
        currency: "USD".into(),
        price_nanos: 60_000_000,
        country: "PRK".into(),
        ..Default::default()
    };
    let answer = client.check(request).await.unwrap().into_inner();
    assert_eq!((answer.allowed, answer.reasons.len()), (false, 2));
    let body = r#"{"client":"acme","campaign":"c","currency":"USD","price_nanos":60000000,"country":"PRK"}"#;
    let text = post(&http, "/check", body);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains(r#""reasons":["REFUSAL_BID_CAP","REFUSAL_GEO"]"#), "{text}");
    let text = post(&http, "/check", r#"{"client":"acme","campaign":"c","currency":"ZZZ","price_nanos":1}"#);
    assert!(text.starts_with("HTTP/1.1 400") && text.contains("currency"), "{text}");
}

fn post(address: &str, path: &str, body: &str) -> String {
    posted(address, path, "", body)
}

fn posted(address: &str, path: &str, headers: &str, body: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    tcp.write_all((head + body).as_bytes()).unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impression_is_reserved_settled_and_voided_over_http_as_over_grpc() {
    let Shield { mut client, http, _dir, .. } = shield().await;
    let spend = |body: &str| post(&http, "/spend", body);
    let reserve = |key: &str, nanos: u64| {
        let campaign = r#""client":"acme","campaign":"c","holder":"h""#;
        spend(&format!(r#"{{"reserve":{{"key":"{key}",{campaign},"max_nanos":{nanos}}}}}"#))
    };
    let answer = reserve("r1", 600_000_000);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""amount_micros":600000,"duplicate":false"#), "{answer}");
    assert!(reserve("r1", 600_000_000).contains(r#""duplicate":true"#), "one key has one effect");
    let over = reserve("r2", 600_000_000);
    assert!(over.starts_with("HTTP/1.1 429"), "over the budget: {over}");
    assert!(reserve("r2", 0).starts_with("HTTP/1.1 400"));
    let lease_id = 1;
    let slot = format!(r#""client":"acme","campaign":"c","lease_id":{lease_id},"max_nanos":600000000"#);
    let settle = |price: u64, noticed: &str| {
        spend(&format!(r#"{{"settle":{{{slot},"price_nanos":{price},"bid_at":"2026-02-02T02:40:00Z","noticed_at":"{noticed}"}}}}"#))
    };
    let bad = settle(700, "yesterday");
    assert!(bad.starts_with("HTTP/1.1 400") && bad.contains("settle.noticed_at"), "{bad}");
    let now = "2026-02-02T02:40:01Z";
    assert!(settle(700, now).contains(r#""status":"SLOT_STATUS_APPLIED""#));
    assert!(settle(700, now).contains(r#""status":"SLOT_STATUS_DUPLICATE""#));
    let void = spend(&format!(r#"{{"void":{{{slot}}}}}"#));
    assert!(void.starts_with("HTTP/1.1 409") && void.contains("SLOT_STATUS_CONFLICT"), "it was charged: {void}");
    assert!(spend(r#"{"refund":{}}"#).starts_with("HTTP/1.1 422"), "there are three of them");
    assert!(reserve("r3", 900_000_000).starts_with("HTTP/1.1 200"), "what was not charged is free again");
    let held = format!(r#"{{"void":{{"client":"acme","campaign":"c","lease_id":{},"max_nanos":900000000}}}}"#, lease_id + 1);
    assert!(spend(&held).contains(r#""status":"SLOT_STATUS_APPLIED""#));
    let budget = client.get_budget(GetBudgetRequest { client: "acme".into(), campaign: "c".into() }).await.unwrap().into_inner().budget;
    assert_eq!(i128::from(&budget.unwrap().settled_nanos.unwrap()), 700);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_spends_nothing_over_http_and_checks_its_own_alone() {
    let Shield { http, _dir, .. } = shield().await;
    let as_tenant = |path: &str, body: &str| posted(&http, path, "kiki-role: tenant\r\nkiki-client: acme\r\n", body);
    let void = r#"{"void":{"client":"acme","campaign":"c","lease_id":1,"max_nanos":1}}"#;
    assert!(as_tenant("/spend", void).starts_with("HTTP/1.1 403"));
    let check = |client: &str| as_tenant("/check", &format!(r#"{{"client":"{client}","campaign":"c","currency":"USD","price_nanos":1}}"#));
    assert!(check("acme").starts_with("HTTP/1.1 200"));
    assert!(check("globex").starts_with("HTTP/1.1 403"));
}

#[tokio::test]
async fn a_tail_without_decisions_passes_over_them_and_says_how_far_it_got() {
    let Shield { mut client, _dir, .. } = shield().await;
    let batch = leaf::DecisionBatch { campaign: "c".into(), currency: "USD".into(), ..Default::default() };
    let item = RecordItem { client: "acme".into(), body: Some(record_item::Body::Decisions(batch.encode_to_vec().into())) };
    client.record(RecordRequest { source: "flow".into(), source_seq: 1, items: vec![item] }).await.unwrap();
    client.lease(lease("a")).await.unwrap();
    let mut indices = Vec::new();
    for without_decisions in [false, true] {
        let request = TailRequest { without_decisions, ..Default::default() };
        let message = client.tail(request).await.unwrap().into_inner().message().await.unwrap().unwrap();
        assert_eq!(message.next_index, 5);
        indices.push(message.entries.iter().map(|entry| entry.index).collect::<Vec<_>>());
    }
    assert_eq!(indices, [vec![0, 1, 2, 3, 4], vec![0, 1, 3, 4]]);
}

#[tokio::test]
async fn tail_is_gapless_follows_and_ends_with_a_checkpoint_that_covers_it() {
    let Shield { mut client, shutdown, served, _dir, .. } = shield().await;
    let mut tail = client.tail(TailRequest { follow: true, ..Default::default() }).await.unwrap().into_inner();
    client.lease(lease("a")).await.unwrap();
    let mut indices = Vec::new();
    let mut checkpoint = String::new();
    while indices.len() < 4 || checkpoint.is_empty() {
        let message = tail.message().await.unwrap().unwrap();
        indices.extend(message.entries.iter().map(|entry| entry.index));
        checkpoint = message.checkpoint;
    }
    assert_eq!(indices, [0, 1, 2, 3]);
    let size = client.get_checkpoint(GetCheckpointRequest { min_size: 4, ..Default::default() }).await.unwrap().into_inner().size;
    assert_eq!(size, 4);
    let beyond = TailRequest { from: Some(leaf::Position { log_id: String::new(), index: 5 }), ..Default::default() };
    assert!(Reason::PositionOutOfRange.is(&client.tail(beyond).await.unwrap_err()));
    // An open stream does not hold up the end.
    shutdown.cancel();
    served.await.unwrap().unwrap();
}

/// What a stream says next, where the clock stands still and so brings no heartbeat.
async fn heard(tail: &mut tonic::Streaming<TailResponse>) -> (Vec<u64>, Option<u64>) {
    let message = tail.message().await.unwrap().unwrap();
    let signed = message.checkpoint.lines().nth(1).map(|size| size.parse().unwrap());
    (message.entries.iter().map(|entry| entry.index).collect(), signed)
}

#[tokio::test]
async fn a_tail_that_waits_hears_of_each_signature_once_and_without_a_heartbeat() {
    let Shield { mut client, _dir, .. } = shield().await;
    // A paused clock leaps to the next timer when all wait, but not while the runtime has a thread at work.
    tokio::time::pause();
    let (_at_work, ended) = std::sync::mpsc::channel::<()>();
    let patience = tokio::task::spawn_blocking(move || ended.recv_timeout(Duration::from_secs(60)));
    let told = async {
        let sign = |size| GetCheckpointRequest { min_size: size, ..Default::default() };
        let mut tail = client.tail(TailRequest { follow: true, ..Default::default() }).await.unwrap().into_inner();
        client.lease(lease("a")).await.unwrap();
        client.get_checkpoint(sign(4)).await.unwrap();
        while heard(&mut tail).await.1 != Some(4) {}
        client.lease(lease("b")).await.unwrap();
        assert_eq!(heard(&mut tail).await, (vec![4, 5], None), "the checkpoint before it was sent");
        client.get_checkpoint(sign(6)).await.unwrap();
        assert_eq!(heard(&mut tail).await, (vec![], Some(6)));
    };
    tokio::select! {
        () = told => {}
        _ = patience => panic!("a signature was not heard of"),
    }
}

#[tokio::test]
async fn watchers_get_the_whole_and_then_each_change() {
    let Shield { mut client, _dir, .. } = shield().await;
    let mut campaigns = client.watch_campaigns(WatchCampaignsRequest::default()).await.unwrap().into_inner();
    let first = campaigns.message().await.unwrap().unwrap();
    assert_eq!((first.snapshot, first.campaigns.len(), first.campaigns[0].horizon_days), (true, 1, 0));
    let terms = leaf::Terms {
        currency: "USD".into(),
        client_name: "Acme".into(),
        baseline_ppm: 3_000_000,
        basis: leaf::Basis::Predicted.into(),
        netting: leaf::Netting::Client.into(),
        zone: "UTC".into(),
        horizon_days: 90,
        attribution: leaf::AttributionRule::LastBilledV1.into(),
        lookback_seconds: 1,
        ..Default::default()
    };
    client.put_terms(PutTermsRequest { client: "acme".into(), terms: Some(terms) }).await.unwrap();
    let changed = loop {
        let message = campaigns.message().await.unwrap().unwrap();
        if !message.campaigns.is_empty() {
            break message;
        }
    };
    assert_eq!((changed.snapshot, changed.campaigns[0].horizon_days), (false, 90));
    let mut policy = client.watch_policy(WatchPolicyRequest {}).await.unwrap().into_inner();
    assert_eq!(policy.message().await.unwrap().unwrap().policy.unwrap().version, 1);
}

#[tokio::test]
async fn a_tenant_sees_its_own_money_and_moves_none() {
    fn tenant<T>(message: T, client: &str) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("kiki-role", "tenant".parse().unwrap());
        request.metadata_mut().insert("kiki-client", client.parse().unwrap());
        request
    }
    let Shield { mut client, _dir, .. } = shield().await;
    let budget = || GetBudgetRequest { client: "acme".into(), campaign: "c".into() };
    assert!(client.get_budget(tenant(budget(), "acme")).await.is_ok());
    assert!(Reason::NotYours.is(&client.get_budget(tenant(budget(), "globex")).await.unwrap_err()));
    for (client_id, campaigns) in [("acme", 1), ("globex", 0)] {
        let own = tenant(WatchCampaignsRequest { client: client_id.into() }, client_id);
        let first = client.watch_campaigns(own).await.unwrap().into_inner().message().await.unwrap().unwrap();
        assert_eq!(first.campaigns.len(), campaigns, "{client_id}");
        let not_own = tenant(WatchCampaignsRequest { client: if campaigns == 0 { "acme".into() } else { String::new() } }, client_id);
        assert!(Reason::NotYours.is(&client.watch_campaigns(not_own).await.unwrap_err()), "{client_id}");
    }
    assert!(Reason::NotYours.is(&client.lease(tenant(lease("a"), "acme")).await.unwrap_err()));
    assert!(Reason::NotYours.is(&client.settle(tenant(settle(1, 0), "acme")).await.unwrap_err()));
    let close = record_item::Body::ClosePeriod(ClosePeriod::default());
    let record = RecordRequest { items: vec![RecordItem { client: "acme".into(), body: Some(close) }], ..Default::default() };
    assert!(Reason::NotYours.is(&client.record(tenant(record, "acme")).await.unwrap_err()));
}

/// The server's process, with a limit on the size of its files where one is given (in KiB).
fn process(data: &Path, file_limit_kib: Option<u32>) -> (Child, String) {
    // Past the limit a write fails with EFBIG, as it fails with ENOSPC on a full disk.
    let limit = file_limit_kib.map_or(String::new(), |kib| format!("trap '' XFSZ; ulimit -f {kib};"));
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = probe.local_addr().unwrap().to_string();
    drop(probe);
    let script = format!("{limit} exec \"$0\" --grpc {address} --http 127.0.0.1:0 --data \"$1\" --log-id test.local/log");
    let mut command = Command::new("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_syncshield")]).arg(data).env("RUST_LOG", "error").stderr(Stdio::piped());
    (command.spawn().unwrap(), address)
}

async fn connected(address: &str) -> SyncShieldServiceClient<Channel> {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap();
    for _ in 0..2_000 {
        if let Ok(channel) = endpoint.connect().await {
            return SyncShieldServiceClient::new(channel.into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await; // until the process listens
    }
    panic!("{address} does not answer");
}

#[tokio::test]
async fn a_disk_that_fails_denies_everything_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (mut child, address) = process(dir.path(), Some(8));
    let mut client = connected(&address).await;
    set_up(&mut client).await;
    let mut acknowledged = 0;
    let refused = loop {
        match client.lease(LeaseRequest { amount_micros: 1, mark_sequence: 0, ..lease(&format!("k{acknowledged}")) }).await {
            Ok(_) => acknowledged += 1,
            Err(status) => break status,
        }
        assert!(acknowledged < 1_000, "the limit was never reached");
    };
    assert!(Reason::LogUnavailable.is(&refused), "{refused}");
    for _ in 0..3 {
        assert!(Reason::LogUnavailable.is(&client.lease(lease("later")).await.unwrap_err()));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let told: Vec<_> = std::io::BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap).collect();
    assert!(told.iter().any(|line| line.contains("cannot be written")), "{told:?}");
    let (mut child, address) = process(dir.path(), None);
    let mut client = connected(&address).await;
    for key in 0..acknowledged {
        let again =
            client.lease(LeaseRequest { amount_micros: 1, mark_sequence: 0, ..lease(&format!("k{key}")) }).await.unwrap().into_inner();
        assert_eq!(again.grant.unwrap().lease_id, key + 1);
    }
    let next = client.lease(LeaseRequest { amount_micros: 1, ..lease("after") }).await.unwrap().into_inner();
    assert_eq!(next.grant.unwrap().lease_id, acknowledged + 1);
    child.kill().unwrap();
    child.wait().unwrap();
}
