//! The life of a policy over real gRPC: put, validated, shadowed, approved, rolled back, explained.

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::guardrail;
use kiki::leaf::{self, Stage, policy_rule::Kind};
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Code;

type Client = SyncShieldServiceClient<Channel>;

struct Shield {
    client: Client,
    http: String,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), syncshield::Error>>,
}

impl Shield {
    async fn start(dir: &std::path::Path) -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let (grpc, http) = (listeners.grpc.local_addr().unwrap(), listeners.http.local_addr().unwrap());
        let clock = Clock::Virtual(VirtualClock::at(UnixMicros(1_770_000_000_000_000)));
        let shutdown = CancellationToken::new();
        let config = syncshield::Config::new(dir, "test.local/log");
        let served = tokio::spawn(syncshield::serve(listeners, config, clock, shutdown.clone()));
        Self { client: Client::new(channel(&format!("http://{grpc}")).unwrap()), http: http.to_string(), shutdown, served }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.served.await.unwrap().unwrap();
    }
}

/// A policy that blocks these countries by a rule.
fn policy(author: &str, blocked: &[&str]) -> leaf::Policy {
    let names = blocked.iter().map(|country| (*country).to_owned()).collect();
    let kind = Some(Kind::Countries(leaf::NameList { allow: false, names }));
    leaf::Policy {
        bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 50_000_000 }],
        rules: vec![leaf::PolicyRule { id: "geo".into(), text: "Not there.".into(), kind, ..Default::default() }],
        author: author.into(),
        ..Default::default()
    }
}

async fn put(client: &mut Client, policy: leaf::Policy) -> u64 {
    client.put_policy(PutPolicyRequest { policy: Some(policy), activate_now: false }).await.unwrap().into_inner().version
}

async fn stage(client: &mut Client, version: u64, stage: Stage, actor: &str) -> Result<(u64, u64), Code> {
    let request = StagePolicyRequest { version, stage: stage.into(), actor: actor.into(), reason: "because".into() };
    let answer = client.stage_policy(request).await.map_err(|status| status.code())?.into_inner();
    Ok((answer.active_version, answer.shadow_version))
}

async fn campaign(client: &mut Client) {
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

async fn check(client: &mut Client, country: &str) -> CheckResponse {
    let request = CheckRequest {
        client: "acme".into(),
        campaign: "c".into(),
        currency: "USD".into(),
        price_nanos: 1,
        country: country.into(),
        ..Default::default()
    };
    client.check(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn a_policy_lives_from_proposal_to_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = Shield::start(dir.path()).await;
    let client = &mut shield.client;
    campaign(client).await;
    assert_eq!(put(client, policy("", &["PRK"])).await, 1, "without an author it is in force");
    assert_eq!(put(client, policy("ada", &["PRK", "DEU"])).await, 2);
    assert!(check(client, "DEU").await.allowed, "a proposal refuses nothing");

    assert_eq!(stage(client, 2, Stage::Shadow, "ada").await, Ok((1, 2)));
    assert!(check(client, "DEU").await.allowed, "nor does a shadow");
    assert!(!check(client, "PRK").await.allowed);
    let got = client.get_policy(GetPolicyRequest { version: 0 }).await.unwrap().into_inner();
    assert_eq!((got.active_version, got.shadow_version), (1, 2));
    assert_eq!(got.shadow, Some(ShadowCounts { same: 1, would_refuse: 1, would_allow: 0 }));

    assert_eq!(stage(client, 2, Stage::Active, " Ada ").await, Err(Code::InvalidArgument), "the author does not approve");
    assert_eq!(stage(client, 2, Stage::Active, "").await, Err(Code::InvalidArgument));
    assert_eq!(stage(client, 9, Stage::Active, "bob").await, Err(Code::NotFound));
    assert!(check(client, "DEU").await.allowed, "what was in force stays");
    assert_eq!(stage(client, 2, Stage::Active, "bob").await, Ok((2, 0)));
    let got = client.get_policy(GetPolicyRequest { version: 1 }).await.unwrap().into_inner();
    let at = |position: &Option<leaf::Position>| position.as_ref().map(|at| at.index);
    let said: Vec<_> =
        got.versions.iter().map(|v| (v.version, v.author.as_str(), v.proposed, at(&v.position), v.approver.as_str())).collect();
    assert_eq!(said, [(1, "", false, Some(1), ""), (2, "ada", true, Some(2), "bob")]);
    assert_eq!((at(&got.versions[0].approval), at(&got.versions[1].approval)), (None, Some(4)));
    let refused = check(client, "DEU").await;
    assert_eq!((refused.policy_version, refused.rules), (2, vec!["geo".to_owned()]));

    let bypass = PutPolicyRequest { policy: Some(policy("", &["FRA"])), activate_now: false };
    assert_eq!(client.put_policy(bypass.clone()).await.unwrap_err().code(), Code::InvalidArgument, "approvals are not gone around");
    client.put_policy(PutPolicyRequest { activate_now: true, ..bypass }).await.unwrap();
    assert!(check(client, "PRK").await.allowed, "but by a word that stands in the log");

    assert_eq!(stage(client, 2, Stage::RolledBack, "bob").await, Err(Code::FailedPrecondition), "version 3 is in force");
    assert_eq!(stage(client, 0, Stage::RolledBack, "bob").await, Ok((2, 0)));
    assert_eq!(stage(client, 0, Stage::RolledBack, "bob").await, Ok((1, 0)));
    assert_eq!(stage(client, 0, Stage::RolledBack, "bob").await, Err(Code::FailedPrecondition), "nothing was before the first");
    assert!(check(client, "DEU").await.allowed);
    shield.stop().await;

    let mut again = Shield::start(dir.path()).await;
    assert!(check(&mut again.client, "DEU").await.allowed && !check(&mut again.client, "PRK").await.allowed, "as before the restart");
    again.stop().await;
    let key = std::fs::read_to_string(dir.path().join("log.pub")).unwrap().trim().parse().unwrap();
    let report = syncshield::audit::verify(dir.path(), &key).unwrap();
    assert_eq!((report.kinds["policies"], report.kinds["policy stages"]), (3, 4));
}

#[tokio::test]
async fn a_watcher_hears_of_a_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = Shield::start(dir.path()).await;
    let client = &mut shield.client;
    put(client, policy("", &["PRK"])).await;
    put(client, policy("", &["DEU"])).await;
    let mut stream = client.watch_policy(WatchPolicyRequest {}).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap().unwrap().policy.unwrap().version, 2);
    stage(client, 0, Stage::RolledBack, "bob").await.unwrap();
    let back = loop {
        if let Some(policy) = stream.message().await.unwrap().unwrap().policy {
            break policy;
        }
    };
    assert_eq!(back.version, 1);
    drop(stream);
    shield.stop().await;
}

#[tokio::test]
async fn a_bad_policy_is_named_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = Shield::start(dir.path()).await;
    let client = &mut shield.client;
    put(client, policy("", &["PRK"])).await;
    let mut bad = policy("", &["DEU"]);
    bad.rules[0].id = "No".into();
    let answer = client.validate_policy(ValidatePolicyRequest { policy: Some(bad.clone()) }).await.unwrap().into_inner();
    assert_eq!(answer.field, "policy.rules[0].id");
    let good = client.validate_policy(ValidatePolicyRequest { policy: Some(policy("", &["DEU"])) }).await.unwrap().into_inner();
    assert_eq!((good.field.as_str(), good.rules), ("", 7));
    client.put_policy(PutPolicyRequest { policy: Some(bad), activate_now: true }).await.unwrap_err();
    let mut long = policy("", &["DEU"]);
    long.rules[0].kind = Some(Kind::Places(leaf::NameList { allow: false, names: (0..400).map(|i| format!("{i:0200}")).collect() }));
    let answer = client.validate_policy(ValidatePolicyRequest { policy: Some(long) }).await.unwrap().into_inner();
    assert_eq!(answer.field, "policy", "more than a leaf holds");
    assert_eq!(client.get_policy(GetPolicyRequest { version: 0 }).await.unwrap().into_inner().active_version, 1);
    shield.stop().await;
}

fn decision(country: &str, rules: &[&str], sequence: u32) -> leaf::Decision {
    let refused = if rules.is_empty() { guardrail::Refusals::NONE } else { guardrail::Refusals::NONE.with(leaf::Refusal::Geo) };
    leaf::Decision {
        at: Some(UnixMicros(1_770_000_000_000_000).into()),
        opportunity: vec![sequence as u8; 16].into(),
        price_nanos: 1,
        country: country.into(),
        refusals: refused.0,
        rules: rules.iter().map(|rule| (*rule).to_owned()).collect(),
        lease_id: u64::from(rules.is_empty()) * 7,
        sequence,
        ..Default::default()
    }
}

#[tokio::test]
async fn a_recorded_decision_is_counted_by_the_shadow_and_explained() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = Shield::start(dir.path()).await;
    let client = &mut shield.client;
    campaign(client).await;
    let version = put(client, policy("", &["PRK"])).await;
    put(client, policy("ada", &["DEU"])).await;
    stage(client, 2, Stage::Shadow, "ada").await.unwrap();
    let first = client.get_policy(GetPolicyRequest { version }).await.unwrap().into_inner();
    let decisions = vec![decision("PRK", &["geo"], 1), decision("DEU", &[], 2), decision("FRA", &[], 3)];
    let batch = leaf::DecisionBatch { campaign: "c".into(), currency: "USD".into(), policy_digest: first.digest.clone(), decisions };
    let item = RecordItem { client: "acme".into(), body: Some(record_item::Body::Decisions(batch.encode_to_vec().into())) };
    let record = RecordRequest { source: "flow".into(), source_seq: 1, items: vec![item] };
    client.record(record.clone()).await.unwrap();
    client.record(record).await.unwrap(); // sent again: counted once
    let got = client.get_policy(GetPolicyRequest { version: 0 }).await.unwrap().into_inner();
    assert_eq!(got.shadow, Some(ShadowCounts { same: 1, would_refuse: 1, would_allow: 1 }));

    let by_opportunity = ExplainRequest { client: "acme".into(), opportunity: vec![1; 16].into(), ..Default::default() };
    let explained = client.explain(by_opportunity.clone()).await.unwrap().into_inner().decisions;
    assert_eq!(explained.len(), 1);
    assert_eq!((explained[0].policy_version, &explained[0].policy_digest), (1, &first.digest));
    assert_eq!(explained[0].reasons, [i32::from(leaf::Refusal::Geo)]);
    assert_eq!((explained[0].rules[0].id.as_str(), explained[0].rules[0].text.as_str()), ("geo", "Not there."));

    let by_slot = ExplainRequest { client: "acme".into(), lease_id: 7, sequence: 3, ..Default::default() };
    let explained = client.explain(by_slot).await.unwrap().into_inner().decisions;
    assert_eq!(explained[0].decision.as_ref().unwrap().country, "FRA");
    assert!(explained[0].policy.as_ref().is_some_and(|of| of.version == explained[0].policy_version && of.position.is_some()));
    let other = ExplainRequest { client: "other".into(), ..by_opportunity.clone() };
    assert_eq!(client.explain(other).await.unwrap_err().code(), Code::NotFound, "another client's is not shown");
    let both = ExplainRequest { lease_id: 7, ..by_opportunity };
    assert_eq!(client.explain(both).await.unwrap_err().code(), Code::InvalidArgument);
    shield.stop().await;
}

#[tokio::test]
async fn the_http_check_names_rules_and_takes_signals() {
    let dir = tempfile::tempdir().unwrap();
    let mut shield = Shield::start(dir.path()).await;
    let client = &mut shield.client;
    campaign(client).await;
    let consent = leaf::Consent { refuse: vec![leaf::Signal::Coppa.into()] };
    let mut document = policy("", &["PRK"]);
    document.rules.push(leaf::PolicyRule { id: "children".into(), kind: Some(Kind::Consent(consent)), ..Default::default() });
    put(client, document).await;
    let body = r#"{"client":"acme","campaign":"c","currency":"USD","price_nanos":1,"signals":["SIGNAL_COPPA"]}"#;
    let answer = post(&shield.http, body).await;
    assert!(answer.contains(r#""reasons":["REFUSAL_CONSENT"]"#) && answer.contains(r#""rules":["children"]"#), "{answer}");
    let unknown = post(&shield.http, &body.replace("COPPA", "NONSENSE")).await;
    assert!(unknown.starts_with("HTTP/1.1 400"), "{unknown}");
    shield.stop().await;
}

async fn post(address: &str, body: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /check HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
