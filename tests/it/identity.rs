//! Who may call what: every role at every RPC, credentials that do not do, and certificates that change under load.

mod certificates;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiki::clock::Clock;
use kiki::leaf::leaf::Body;
use kiki::leaf::{self, AccessKind, AccessRole};
use kiki::pb::log::v1::Position;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{GetBudgetRequest, GetCheckpointRequest, GetPolicyRequest, PutCampaignRequest, TailRequest};
use kiki::roles::{self, ROLES, Role};
use kiki::runtime::{ApiKey, Calling, Channel, Credentials, Listeners, Raw, TrustArgs};
use kiki::status::Reason;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use certificates::Authority;

const LOG: &str = "kiki.local/log-1";
/// How long anything may take that ends by itself: certificates are looked at every 5 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// As a setting gives a role.
fn granted(role: Role) -> String {
    if role == Role::Tenant { "tenant:acme".to_owned() } else { role.to_string() }
}

/// What a caller with an API key calls with.
fn with_key(key: &ApiKey) -> Calling {
    Calling::with(&Credentials { api_key: Some(key.clone()), ..Default::default() }).unwrap()
}

/// A service that runs until it is stopped.
struct Served {
    address: String,
    http: String,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl Served {
    /// On loopback, by what `serve` makes of listeners that trust as they are told.
    async fn start<F, E>(trust: &TrustArgs, serve: impl FnOnce(Listeners, CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Debug,
    {
        let listeners = Listeners::bind_with("127.0.0.1:0", "127.0.0.1:0", trust.open().unwrap()).await.unwrap();
        let (grpc, http) = (listeners.grpc.local_addr().unwrap(), listeners.http.local_addr().unwrap().to_string());
        let stop = CancellationToken::new();
        let serving = serve(listeners, stop.clone());
        let ended = tokio::spawn(async move { serving.await.unwrap() });
        let scheme = if trust.credentials.tls_cert.is_some() { "https" } else { "http" };
        Self { address: format!("{scheme}://localhost:{}", grpc.port()), http, stop, ended }
    }

    async fn shield(dir: &Path, trust: &TrustArgs) -> Self {
        let config = syncshield::Config::new(dir.join("shield"), LOG);
        Self::start(trust, |listeners, stop| syncshield::serve(listeners, config, Clock::System, stop)).await
    }

    async fn end(self) {
        self.stop.cancel();
        self.ended.await.unwrap();
    }
}

/// Calls an RPC with a message of no bytes.
async fn ask(channel: Channel, path: &str) -> Result<(), Status> {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let request = Request::new(tokio_stream::once(Bytes::new()));
    let asked = grpc.streaming(request, path.parse().unwrap(), Raw::<Bytes>::default());
    tokio::time::timeout(PATIENCE, asked).await.expect("an answer").map(drop)
}

/// Whether there was no connection; how that is told depends on when the other side's alert comes.
fn cut_off(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled)
}

fn not_admitted(answer: &Result<(), Status>) -> bool {
    answer.as_ref().is_err_and(|status| Reason::RoleMayNot.is(status) || Reason::Unauthenticated.is(status))
}

/// SyncFlow's settings, as its command line would give them.
fn flow_settings(shield: &str, value: &str) -> syncflow::Config {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        config: syncflow::Config,
    }
    let key = "7".repeat(64);
    let line = ["syncflow", "--shield", shield, "--value", value, "--pseudonym-key", &key, "--receipt-key", &key];
    <Line as clap::Parser>::parse_from(line).config
}

/// The four services, with these API keys. They have none of their own, and get nowhere with each other.
async fn platform(dir: &Path, keys: &Path) -> BTreeMap<&'static str, Served> {
    let trust = TrustArgs { api_keys: Some(keys.to_owned()), ..Default::default() };
    let key = kiki::ids::Key::random().unwrap();
    let shield = Served::shield(dir, &trust).await;
    // When it answers at all, the log's key is there.
    let head = "/kiki.syncshield.v1.SyncShieldService/GetCheckpoint";
    ask(Calling::default().channel(&shield.address).unwrap(), head).await.unwrap_err();
    let settings = syncvalue::Config::new(dir.join("value"), key.clone());
    let value = Served::start(&trust, |listeners, stop| syncvalue::serve(listeners, settings, Clock::System, stop)).await;
    let settings = flow_settings(&shield.address, &value.address);
    let flow = Served::start(&trust, |listeners, stop| syncflow::serve(listeners, settings, Clock::System, stop)).await;
    let log_key = dir.join("shield/log.pub").display().to_string();
    let settings = billing::Config::new(dir.join("billing"), shield.address.clone(), log_key);
    let billing = Served::start(&trust, |listeners, stop| billing::serve(listeners, settings, Clock::System, stop)).await;
    BTreeMap::from([
        ("kiki.syncvalue.v1.SyncValueService", value),
        ("kiki.syncflow.v1.SyncFlowService", flow),
        ("kiki.syncshield.v1.SyncShieldService", shield),
        ("kiki.billing.v1.BillingService", billing),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_role_may_call_what_the_table_says_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let of_roles: Vec<(Role, ApiKey)> = ROLES.into_iter().map(|role| (role, ApiKey::random(&role.to_string()).unwrap())).collect();
    let lines = of_roles.iter().map(|(role, key)| key.line(&granted(*role), jiff::Timestamp::MAX).to_string() + "\n");
    let keys = dir.path().join("keys");
    std::fs::write(&keys, lines.collect::<String>()).unwrap();
    let services = platform(dir.path(), &keys).await;
    let (mut allowed, mut refused) = (0, 0);
    for rpc in roles::rpcs() {
        let service = &services[rpc.service.replace("Admin", "").as_str()];
        let nobody = ask(Calling::default().channel(&service.address).unwrap(), &rpc.path()).await.unwrap_err();
        assert_eq!(nobody.code(), Code::Unauthenticated, "{}", rpc.path());
        for (role, key) in &of_roles {
            let answer = ask(with_key(key).channel(&service.address).unwrap(), &rpc.path()).await;
            assert_eq!(!not_admitted(&answer), rpc.roles.contains(role), "{role} at {}: {answer:?}", rpc.path());
            *if rpc.roles.contains(role) { &mut allowed } else { &mut refused } += 1;
        }
    }
    println!("{allowed} pairs of a role and an RPC were allowed, {refused} refused");
    for service in services.into_values() {
        service.end().await;
    }
}

/// What SyncShield has recorded of accesses, once `enough` of it is there.
async fn accesses(operator: &Calling, shield: &str, enough: impl Fn(&[leaf::Access]) -> bool) -> Vec<leaf::Access> {
    let mut client = SyncShieldServiceClient::new(operator.channel(shield).unwrap());
    let from = Some(Position { log_id: LOG.into(), index: 0 });
    let request = TailRequest { from, client: leaf::OPERATOR.into(), follow: true, without_decisions: true };
    let mut stream = client.tail(request).await.unwrap().into_inner();
    let mut found = Vec::new();
    let seen = async {
        while !enough(&found) {
            for entry in stream.message().await.unwrap().expect("it follows").entries {
                if let Body::Access(access) = leaf::decode(&entry.leaf).unwrap().1 {
                    found.push(access);
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("what was refused is recorded");
    found
}

/// A log with TLS: whose certificate is of `ours`, and who believes `ours`. The operator and a SyncFlow have identities, and two tenants
/// have keys, of which one has expired.
struct Scene {
    dir: tempfile::TempDir,
    ours: Authority,
    trust: TrustArgs,
    acme: ApiKey,
    expired: ApiKey,
}

const OPERATOR_ID: &str = "spiffe://kiki.test/operator";
const FLOW_ID: &str = "spiffe://kiki.test/ns/prod/sa/syncflow";
const GOOD: i32 = 4_000;

impl Scene {
    fn new() -> Self {
        let (dir, ours) = (tempfile::tempdir().unwrap(), Authority::new("ours"));
        let (acme, expired) = (ApiKey::random("acme-1").unwrap(), ApiKey::random("acme-0").unwrap());
        let lines = [acme.line("tenant:acme", jiff::Timestamp::MAX), expired.line("tenant:acme", jiff::Timestamp::UNIX_EPOCH)];
        std::fs::write(dir.path().join("keys"), format!("{}\n{}\n", lines[0], lines[1])).unwrap();
        let scene = Self { dir, ours, trust: TrustArgs::default(), acme, expired };
        let credentials = scene.credentials("server", "spiffe://kiki.test/syncshield", GOOD);
        let identities = [(OPERATOR_ID, "operator"), (FLOW_ID, "syncflow")].map(|(id, role)| format!("{id}={role}")).to_vec();
        let api_keys = Some(scene.dir.path().join("keys"));
        Self { trust: TrustArgs { credentials, identities, api_keys, ..Default::default() }, ..scene }
    }

    /// A folder of one with a certificate of ours.
    fn credentials(&self, name: &str, spiffe: &str, until: i32) -> Credentials {
        let folder = self.dir.path().join(name);
        self.ours.certify(spiffe, until, &folder);
        certificates::put(&folder.join("ca.crt"), &self.ours.pem());
        certificates::of(&folder)
    }

    fn calling(&self, name: &str, spiffe: &str) -> Calling {
        Calling::with(&self.credentials(name, spiffe, GOOD)).unwrap()
    }

    /// One who believes ours and has an API key.
    fn keyed(&self, key: &ApiKey) -> Calling {
        let tls_ca = Some(self.dir.path().join("server/ca.crt"));
        Calling::with(&Credentials { tls_ca, api_key: Some(key.clone()), ..Default::default() }).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_do_not_do_are_refused_and_recorded() {
    let scene = Scene::new();
    let shield = Served::shield(scene.dir.path(), &scene.trust).await;
    let client = |calling: &Calling| SyncShieldServiceClient::new(calling.channel(&shield.address).unwrap());
    let head = || GetCheckpointRequest::default();
    let operator = scene.calling("operator", OPERATOR_ID);
    client(&operator).get_checkpoint(head()).await.unwrap();

    // No credential; a SPIFFE id that has no role; a key that has expired.
    let refused = client(&Calling::with(&Credentials { tls_ca: scene.trust.credentials.tls_ca.clone(), ..Default::default() }).unwrap());
    assert!(Reason::Unauthenticated.is(&{ refused }.get_checkpoint(head()).await.unwrap_err()));
    let stranger = client(&scene.calling("stranger", "spiffe://kiki.test/stranger")).get_checkpoint(head()).await.unwrap_err();
    assert!(Reason::Unauthenticated.is(&stranger) && stranger.message() == "spiffe://kiki.test/stranger has no role here", "{stranger}");
    let expired = client(&scene.keyed(&scene.expired)).get_checkpoint(head()).await.unwrap_err();
    assert!(Reason::Unauthenticated.is(&expired) && expired.message().ends_with("acme-0 has expired"), "{expired}");
    // A role that may not; another tenant's id in the body.
    let flow = client(&scene.calling("flow", FLOW_ID)).get_policy(GetPolicyRequest::default()).await.unwrap_err();
    assert!(Reason::RoleMayNot.is(&flow) && flow.message() == "syncflow may not call GetPolicy", "{flow}");
    let mut acme = client(&scene.keyed(&scene.acme));
    let own = acme.get_budget(GetBudgetRequest { client: "acme".into(), campaign: "spring".into() }).await.unwrap_err();
    assert!(Reason::NotFound.is(&own), "{own}");
    for _ in 0..3 {
        let campaign = Some(leaf::Campaign::default());
        let other = acme.put_campaign(PutCampaignRequest { client: "globex".into(), campaign }).await.unwrap_err();
        assert!(Reason::NotYours.is(&other), "{other}");
    }
    // A certificate of an authority that is not ours, or one that has expired, does not get as far as a call.
    let theirs = scene.dir.path().join("theirs");
    Authority::new("theirs").certify(OPERATOR_ID, GOOD, &theirs);
    certificates::put(&theirs.join("ca.crt"), &scene.ours.pem());
    let old = scene.credentials("old", OPERATOR_ID, 2_021);
    for credentials in [certificates::of(&theirs), old] {
        let outside = client(&Calling::with(&credentials).unwrap()).get_checkpoint(head()).await.unwrap_err();
        assert!(cut_off(&outside), "{outside}");
    }

    let recorded = accesses(&operator, &shield.address, |found| found.iter().map(|access| access.count.max(1)).sum::<u32>() >= 7).await;
    let of = |identity: &str| recorded.iter().filter(|access| access.identity == identity).collect::<Vec<_>>();
    for (identity, role, code, rpc) in [
        ("", AccessRole::Anonymous, "UNAUTHENTICATED", "GetCheckpoint"),
        ("spiffe://kiki.test/stranger", AccessRole::Anonymous, "UNAUTHENTICATED", "GetCheckpoint"),
        ("acme-0", AccessRole::Anonymous, "UNAUTHENTICATED", "GetCheckpoint"),
        (FLOW_ID, AccessRole::Service, "PERMISSION_DENIED", "GetPolicy"),
        ("acme-1", AccessRole::Tenant, "PERMISSION_DENIED", "PutCampaign"),
    ] {
        let found = of(identity);
        assert!(!found.is_empty(), "nothing of {identity:?} in {recorded:?}");
        for access in found {
            let subject = format!("kiki.syncshield.v1.SyncShieldService/{rpc}");
            assert_eq!((access.kind(), access.role(), &*access.code), (AccessKind::Refused, role, code), "{access:?}");
            assert_eq!((&access.subject, access.tenant.as_str()), (&subject, if identity == "acme-1" { "acme" } else { "" }));
        }
    }
    assert_eq!(of("acme-1").iter().map(|access| access.count.max(1)).sum::<u32>(), 3);
    shield.end().await;
}

#[tokio::test]
async fn beyond_loopback_nobody_is_the_operator_by_reaching_the_port() {
    let scene = Scene::new();
    let trust = TrustArgs { identities: Vec::new(), api_keys: None, ..scene.trust.clone() };
    let far = Listeners::bind_with("0.0.0.0:0", "127.0.0.1:0", trust.open().unwrap()).await.unwrap_err().to_string();
    assert!(far.starts_with("KIKI_IDENTITIES: neither they nor KIKI_API_KEYS are given"), "{far}");
    assert!(Listeners::bind_with("127.0.0.1:0", "127.0.0.1:0", trust.open().unwrap()).await.is_ok());
    assert!(Listeners::bind_with("0.0.0.0:0", "127.0.0.1:0", scene.trust.open().unwrap()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_their_authority_change_under_load_and_no_call_fails() {
    let scene = Scene::new();
    let shield = Served::shield(scene.dir.path(), &scene.trust).await;
    let (address, folder) = (Arc::new(shield.address.clone()), scene.dir.path().to_owned());
    let operator = scene.calling("operator", OPERATOR_ID);
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    // Some keep their channel, as services do; one opens a new one for each call.
    let load = |fresh: bool| {
        let (address, calling, stop, calls) = (address.clone(), operator.clone(), stop.clone(), calls.clone());
        tokio::spawn(async move {
            let mut client = SyncShieldServiceClient::new(calling.channel(&address).unwrap());
            while !stop.load(Ordering::Relaxed) {
                if fresh {
                    client = SyncShieldServiceClient::new(calling.channel(&address).unwrap());
                }
                client.get_checkpoint(GetCheckpointRequest::default()).await.unwrap();
                calls.fetch_add(1, Ordering::Relaxed);
            }
        })
    };
    let loads = [load(false), load(false), load(true)];
    // First both believe the old authority and the new one, then both have certificates of the new, and at last neither believes the old.
    let (old, new) = (scene.ours.pem(), Authority::new("new"));
    let both = |ca: &str| ["server", "operator"].map(|name| certificates::put(&folder.join(name).join("ca.crt"), ca));
    both(&format!("{old}{}", new.pem()));
    turned_over(&calls).await;
    new.certify("spiffe://kiki.test/syncshield", GOOD + 1, &folder.join("server"));
    new.certify(OPERATOR_ID, GOOD + 1, &folder.join("operator"));
    turned_over(&calls).await;
    both(&new.pem());
    turned_over(&calls).await;
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.await.expect("no call failed");
    }
    // Who still shows the old authority's certificate is not believed any more, and the new end is what is watched.
    let was = scene.calling("was", OPERATOR_ID);
    let refused = SyncShieldServiceClient::new(was.channel(&address).unwrap()).get_checkpoint(GetCheckpointRequest::default()).await;
    assert!(cut_off(&refused.unwrap_err()));
    let expiry = certificates::scraped(&shield.http, &new, "kiki_tls_certificate_expiry_seconds").await;
    let end: jiff::Timestamp = format!("{}-01-01T00:00:00Z", GOOD + 1).parse().unwrap();
    assert_eq!(expiry, end.as_second().to_string());
    println!("{} calls while certificates changed three times", calls.load(Ordering::Relaxed));
    shield.end().await;
}

/// Waits until both sides have looked at their files again: a client does every 5 s.
async fn turned_over(calls: &AtomicU64) {
    tokio::time::sleep(Duration::from_secs(6)).await;
    let before = calls.load(Ordering::Relaxed);
    let more = async {
        while calls.load(Ordering::Relaxed) < before + 100 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, more).await.expect("calls go on");
}
