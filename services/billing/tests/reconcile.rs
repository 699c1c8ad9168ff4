//! A platform's report and Prometheus' counters against the log, over gRPC.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub, dead_code)]

#[path = "common/fake_shield.rs"]
mod fake_shield;
#[path = "common/log.rs"]
mod log;

use std::collections::BTreeMap;

use fake_shield::FakeShield;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf::{self, AccessKind, leaf::Body};
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::reconcile_request::Against;
use kiki::pb::billing::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use log::{DAY, FEBRUARY, JANUARY, Log, ONE};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Request;

const HOUR: i64 = DAY / 24;

/// One impression on a platform, in a leaf of its own.
fn charge(log: &mut Log, client: &str, platform: &str, campaign: &str, at: i64, price_nanos: i64) -> u64 {
    let time = Some(UnixMicros(at).into());
    let settlement = leaf::Settlement {
        price_nanos,
        bid_at: time,
        noticed_at: time,
        exchange: "exchange".into(),
        platform: platform.into(),
        customer: vec![7; 16].into(),
        ..Default::default()
    };
    let batch = leaf::SettlementBatch {
        lease_id: 1,
        campaign: campaign.into(),
        currency: "USD".into(),
        granted_at: time,
        day_start: time,
        settlements: vec![settlement],
    };
    log.append(client, Body::Settlements(batch))
}

/// Three days of acme on meta, beside others' and another platform's. Gives the leaves of what meta charged.
fn january() -> (Log, Vec<u64>) {
    let mut log = Log::new();
    log.terms("acme", |_| {});
    let mut leaves = Vec::new();
    for (day, campaign, price) in [(0, "spring", 10), (0, "spring", 20), (1, "spring", 40), (2, "winter", 80)] {
        leaves.push(charge(&mut log, "acme", "meta", campaign, JANUARY + day * DAY, price * ONE));
        charge(&mut log, "acme", "x", campaign, JANUARY + day * DAY, price * ONE);
        charge(&mut log, "beta", "meta", campaign, JANUARY + day * DAY, price * ONE);
    }
    (log, leaves)
}

struct Running {
    client: BillingServiceClient<Channel>,
    http: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), billing::Error>>,
    _data: tempfile::TempDir,
}

impl Running {
    async fn start(shield: &FakeShield) -> Self {
        let data = tempfile::tempdir().unwrap();
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let http = listeners.http.local_addr().unwrap().to_string();
        let log_key = shield.log.lock().unwrap().public().to_string();
        let config = billing::Config::new(data.path(), shield.serve().await, log_key);
        let shutdown = CancellationToken::new();
        let clock = Clock::Virtual(VirtualClock::at(UnixMicros(FEBRUARY)));
        let task = tokio::spawn(billing::serve(listeners, config, clock, shutdown.clone()));
        Self { client: BillingServiceClient::new(channel(&address).unwrap()), http, shutdown, task, _data: data }
    }

    async fn reconcile(&mut self, request: ReconcileRequest) -> Result<(ReconcileSummary, Vec<FigureDifference>), tonic::Status> {
        self.ask(Request::new(request)).await
    }

    async fn ask(&mut self, request: Request<ReconcileRequest>) -> Result<(ReconcileSummary, Vec<FigureDifference>), tonic::Status> {
        let mut stream = self.client.reconcile(request).await?.into_inner();
        let (mut summary, mut differences) = (None, Vec::new());
        while let Some(message) = stream.message().await? {
            assert_eq!(message.summary.is_some(), summary.is_none(), "in the first message alone");
            assert!(message.differences.len() <= 512);
            summary = message.summary.or(summary);
            differences.extend(message.differences);
        }
        Ok((summary.unwrap(), differences))
    }

    async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut socket = tokio::net::TcpStream::connect(&self.http).await.unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).await.unwrap();
        text
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }
}

fn report(rows: &[(&str, &str, &str)]) -> ReconcileRequest {
    let row = |(day, campaign, amount): &(&str, &str, &str)| SpendRow {
        day: (*day).into(),
        campaign: (*campaign).into(),
        currency: "USD".into(),
        amount: (*amount).into(),
        impressions: Some(2),
    };
    let spend = PlatformSpend {
        platform: "meta".into(),
        zone: "UTC".into(),
        first_day: "2026-01-01".into(),
        last_day: "2026-01-31".into(),
        rows: rows.iter().map(row).collect(),
    };
    ReconcileRequest { client: "acme".into(), against: Some(Against::PlatformSpend(spend)), tolerance: None }
}

fn spend_of(request: &mut ReconcileRequest) -> &mut PlatformSpend {
    let Some(Against::PlatformSpend(spend)) = &mut request.against else { panic!("no report") };
    spend
}

fn nanos(sum: Option<leaf::Int128>) -> i128 {
    sum.as_ref().map_or(0, i128::from)
}

const AGREED: [(&str, &str, &str); 3] =
    [("2026-01-01", "spring", "30.00"), ("2026-01-02", "spring", "40"), ("2026-01-03", "winter", "80.00")];

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_agrees_is_on_record_and_counted() {
    let shield = FakeShield::new(january().0);
    let mut billing = Running::start(&shield).await;
    let (summary, differences) = billing.reconcile(report(&AGREED)).await.unwrap();
    assert_eq!(differences, []);
    let total = ReconciledTotal {
        currency: "USD".into(),
        log_nanos: Some((150 * i128::from(ONE)).into()),
        other_nanos: Some((150 * i128::from(ONE)).into()),
    };
    assert_eq!((summary.compared, summary.different, summary.until.unwrap().index, summary.totals), (3, 0, 13, vec![total]));
    let metrics = billing.metrics().await;
    assert!(metrics.contains(r#"kiki_billing_reconciliations_total{against="platform_spend",result="agree"} 1"#), "{metrics}");
    billing.stop().await;
    let log = shield.log.lock().unwrap();
    let (header, Body::Access(access)) = leaf::decode(log.leaves.last().unwrap()).unwrap() else { panic!("no access") };
    assert_eq!((header.client.as_str(), access.kind()), ("acme", AccessKind::Reconcile));
    assert_eq!(access.subject, "meta 2026-01-01 2026-01-31");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_missing_extra_or_other_is_named_with_its_leaves() {
    let (log, leaves) = january();
    let shield = FakeShield::new(log);
    let mut billing = Running::start(&shield).await;
    let rows = [("2026-01-01", "spring", "29.50"), ("2026-01-02", "spring", "40.00"), ("2026-01-05", "autumn", "1.25")];
    let (summary, differences) = billing.reconcile(report(&rows)).await.unwrap();
    assert_eq!((summary.compared, summary.different), (4, 3));
    let one = |d: &FigureDifference| {
        let sides = (nanos(d.log_nanos), nanos(d.other_nanos));
        (d.day.clone(), d.campaign.clone(), d.kind(), sides, d.leaves.clone(), (d.leaf_count, d.log_items, d.other_items))
    };
    let wanted = [
        (
            "2026-01-01".to_owned(),
            "spring".to_owned(),
            DifferenceKind::Amount,
            (30_000_000_000, 29_500_000_000),
            leaves[..2].to_vec(),
            (2, 2, Some(2)),
        ),
        ("2026-01-03".into(), "winter".into(), DifferenceKind::MissingThere, (80_000_000_000, 0), vec![leaves[3]], (1, 1, None)),
        ("2026-01-05".into(), "autumn".into(), DifferenceKind::MissingInLog, (0, 1_250_000_000), vec![], (0, 0, Some(2))),
    ];
    assert_eq!(differences.iter().map(one).collect::<Vec<_>>(), wanted);
    assert_eq!(differences[1].from, Some(UnixMicros(JANUARY + 2 * DAY).into()));
    assert_eq!(differences[1].until, Some(UnixMicros(JANUARY + 3 * DAY).into()));
    let tolerant = ReconcileRequest { tolerance: Some(Tolerance { minor: 125, ppm: 20_000 }), ..report(&rows) };
    assert_eq!(billing.reconcile(tolerant).await.unwrap().1.len(), 1, "1.25 is no difference, and neither are 2 %");
    let metrics = billing.metrics().await;
    for kind in ["amount", "missing_there", "missing_in_log"] {
        let count = if kind == "missing_there" { 2 } else { 1 };
        let line = format!(r#"kiki_billing_reconciliation_differences_total{{against="platform_spend",kind="{kind}"}} {count}"#);
        assert!(metrics.contains(&line), "{line} is not in\n{metrics}");
    }
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_those_of_the_reports_zone() {
    let shield = FakeShield::new(january().0);
    let mut billing = Running::start(&shield).await;
    // In Tokyo, what was bid for at midnight in UTC is of the same day; an hour ahead of midnight there it would be of the day before.
    let mut request = report(&AGREED);
    spend_of(&mut request).zone = "Asia/Tokyo".into();
    assert_eq!(billing.reconcile(request.clone()).await.unwrap().1, []);
    charge(&mut shield.log.lock().unwrap(), "acme", "meta", "spring", JANUARY + 15 * HOUR, ONE);
    let size = shield.log.lock().unwrap().size();
    *shield.signed.lock().unwrap() = size;
    let different = billing.reconcile(request).await.unwrap().1;
    assert_eq!(different.iter().map(|d| (d.day.as_str(), nanos(d.log_nanos))).collect::<Vec<_>>(), [("2026-01-02", 41_000_000_000)]);
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_compared_by_the_hour_of_the_record() {
    let (log, leaves) = january();
    let shield = FakeShield::new(log);
    let mut billing = Running::start(&shield).await;
    // All leaves are recorded in the first microseconds of January.
    let counted = |amounts: &[(&str, &str)], counter: Counter| {
        let row = |(campaign, amount): &(&str, &str)| CountedRow {
            hour: Some(UnixMicros(JANUARY).into()),
            campaign: (*campaign).into(),
            currency: "USD".into(),
            amount: (*amount).into(),
        };
        let counted = Counted {
            counter: counter.into(),
            from: Some(UnixMicros(JANUARY).into()),
            until: Some(UnixMicros(JANUARY + 2 * HOUR).into()),
            scrape_seconds: 60,
            rows: amounts.iter().map(row).collect(),
        };
        ReconcileRequest { client: "acme".into(), against: Some(Against::Counted(counted)), tolerance: None }
    };
    let spent = [("spring", "140"), ("winter", "160")];
    let (summary, differences) = billing.reconcile(counted(&spent, Counter::Spend)).await.unwrap();
    assert_eq!((summary.compared, differences), (2, vec![]));
    let less = [("spring", "139.99"), ("winter", "160.000000001")];
    let differences = billing.reconcile(counted(&less, Counter::Spend)).await.unwrap().1;
    let found: BTreeMap<_, _> = differences.iter().map(|d| (d.campaign.as_str(), (d.kind(), d.leaves[0], d.leaf_count))).collect();
    assert_eq!(found["spring"], (DifferenceKind::Amount, leaves[0], 6));
    assert_eq!(found["winter"], (DifferenceKind::Amount, leaves[3], 2));
    assert_eq!(differences[0].from, Some(UnixMicros(JANUARY).into()));
    // Nobody was acquired.
    let differences = billing.reconcile(counted(&[("spring", "9.5")], Counter::PredictedLtv)).await.unwrap().1;
    assert_eq!(differences.iter().map(FigureDifference::kind).collect::<Vec<_>>(), [DifferenceKind::MissingInLog]);
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_in_full_is_refused() {
    let shield = FakeShield::new(january().0);
    let mut billing = Running::start(&shield).await;
    let unknown = ReconcileRequest { client: "nobody".into(), ..report(&AGREED) };
    let refused = billing.reconcile(unknown).await.unwrap_err();
    assert_eq!(refused.message(), "client: the log has nothing of \"nobody\"");
    let mut tenants = Request::new(report(&AGREED));
    tenants.metadata_mut().insert(kiki::caller::ROLE, "tenant".parse().unwrap());
    tenants.metadata_mut().insert(kiki::caller::CLIENT, "beta".parse().unwrap());
    assert!(Reason::NotYours.is(&billing.ask(tenants).await.unwrap_err()));
    for (row, problem) in [
        (("2026-02-01", "spring", "1"), "platform_spend.rows[0].day: 2026-02-01 is not from 2026-01-01 to 2026-01-31"),
        (("2026-1-1", "spring", "1"), "platform_spend.rows[0].day: \"2026-1-1\" is not a day of the form YYYY-MM-DD"),
        (("2026-01-01", "spring", "1e3"), "platform_spend.rows[0].amount: amount \"1e3\" is not a plain decimal number"),
        (("2026-01-01", "spring", "0.0000000001"), "rows[0].amount: 0.0000000001 has more than 9 decimals, or is too large"),
    ] {
        let refused = billing.reconcile(report(&[row])).await.unwrap_err();
        assert_eq!((refused.message(), Reason::FieldInvalid.is(&refused)), (problem, true));
    }
    let many = report(&vec![("2026-01-01", "spring", "1"); 65_537]);
    assert!(Reason::TooMany.is(&billing.reconcile(many).await.unwrap_err()));
    let mut nowhere = report(&AGREED);
    spend_of(&mut nowhere).zone = "Mars/Olympus".into();
    assert!(billing.reconcile(nowhere).await.unwrap_err().message().contains("Mars/Olympus"));
    // Where the log no longer has all that is asked about, no figure is given.
    billing.reconcile(report(&AGREED)).await.unwrap();
    *shield.begins_at.lock().unwrap() = 3;
    assert!(Reason::PositionOutOfRange.is(&billing.reconcile(report(&AGREED)).await.unwrap_err()));
    billing.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_is_left_out_is_noticed() {
    let shield = FakeShield::new(january().0);
    let mut billing = Running::start(&shield).await;
    billing.reconcile(report(&AGREED)).await.unwrap();
    {
        // The second of acme's charges: served as another client's, so that the tail of acme's leaves is without it.
        let mut log = shield.log.lock().unwrap();
        let (mut header, body) = leaf::decode(&log.leaves[4]).unwrap();
        (header.client, header.body) = ("beta".into(), Some(body));
        log.leaves[4] = prost::Message::encode_to_vec(&header);
    }
    let refused = billing.reconcile(report(&AGREED)).await.unwrap_err();
    assert!(Reason::LogInconsistent.is(&refused) && refused.message().contains("is at client_seq"), "{refused:?}");
    billing.stop().await;
}
