//! One bid to one invoice over gRPC, with figures that a person can add up; and the metrics that are left behind.

use std::path::Path;
use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::leaf;
use kiki::pb::billing::v1::billing_service_client::BillingServiceClient;
use kiki::pb::billing::v1::{DraftInvoicesRequest, FinalizeInvoiceRequest, GetInvoiceRequest, GetProofBundleRequest};
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncflow::v1::*;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::{PutCampaignRequest, PutPolicyRequest, PutTermsRequest};
use kiki::runtime::Channel;
use kiki::runtime::channel;
use kiki_cli::invoice::{VerifyInvoices, verify_invoices};
use kiki_cli::platform::{Endpoints, LOG_ID, Platform, PlatformConfig, Ports};
use kiki_cli::witness::Server;
use syncshield::store::{Log, Paths};
use syncshield::witness::WitnessAt;

use crate::acme;

/// 2026-01-15T12:00:00Z
const MIDMONTH: i64 = 1_768_478_400_000_000;
/// 2026-02-01T00:00:00Z
const MONTH_END: i64 = 1_769_904_000_000_000;

/// CPM 20.00, which the value allows many times over.
const PRICE_CAP: i64 = 20_000_000;

async fn set_up(shield: &mut SyncShieldServiceClient<Channel>) {
    let bid_caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: PRICE_CAP }];
    shield
        .put_policy(PutPolicyRequest { policy: Some(leaf::Policy { bid_caps, ..Default::default() }), ..Default::default() })
        .await
        .unwrap();
    let campaign = leaf::Campaign {
        campaign: "spring".into(),
        currency: "USD".into(),
        limit_total_micros: 5_000_000,
        target_roas_ppm: 3_000_000,
        prior_p_conversion_ppb: 10_000_000,
        // 1 % of 90.00 at a target of 3.0: worth 0.30 an impression, above the campaign's cap of 0.02.
        prior_ltv_micros: 90_000_000,
        bid_cap_nanos: PRICE_CAP,
        creatives: vec![acme::banner("b1", "<a href=\"${KIKI_CLICK}\">Acme</a>")],
        zone: "UTC".into(),
        ..Default::default()
    };
    shield.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
    shield.put_terms(PutTermsRequest { client: "acme".into(), terms: Some(acme::terms()) }).await.unwrap();
}

fn opportunity(request_id: &str) -> Opportunity {
    Opportunity {
        request_id: request_id.into(),
        imp_id: "1".into(),
        exchange: "exchange-a".into(),
        customer: "customer-1".into(),
        format: leaf::CreativeFormat::Banner.into(),
        width: 300,
        height: 250,
        currency: "USD".into(),
        ..Default::default()
    }
}

/// The campaign reaches the bidder's replica on its own: asks again until it is there.
async fn first_bid(flow: &mut SyncFlowServiceClient<Channel>) -> Bid {
    for attempt in 0..400 {
        let request = BidRequest { opportunity: Some(opportunity(&format!("r{attempt}"))), await_durable: true };
        match flow.bid(request).await.unwrap().into_inner().result.unwrap() {
            bid_response::Result::Bid(bid) => return bid,
            bid_response::Result::NoBid(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
    panic!("no bid although the campaign fits");
}

fn notice(kind: NoticeKind, receipt: &str, price_nanos: i64) -> NotifyRequest {
    NotifyRequest { notices: vec![Notice { kind: kind.into(), receipt: receipt.into(), price_nanos, ..Default::default() }] }
}

async fn status_of(flow: &mut SyncFlowServiceClient<Channel>, request: NotifyRequest) -> NoticeStatus {
    flow.notify(request).await.unwrap().into_inner().results[0].status()
}

fn purchase(event_id: &str, receipt: &str, at: i64) -> ReportConversionsRequest {
    let conversion = ReportedConversion {
        client: "acme".into(),
        event_id: event_id.into(),
        customer: "customer-1".into(),
        currency: "USD".into(),
        value_micros: 40_000_000,
        occurred_at: Some(UnixMicros(at).into()),
        receipt: receipt.into(),
        ..Default::default()
    };
    ReportConversionsRequest { conversions: vec![conversion] }
}

/// The receipt in the click link of the markup.
fn click_receipt(bid: &Bid) -> &str {
    bid.markup.split_once("/click?r=").unwrap().1.split_once('&').unwrap().0
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bid_becomes_one_line_of_one_invoice_that_verifies_offline() {
    let data = tempfile::tempdir().unwrap();
    let clock = VirtualClock::at(UnixMicros(MIDMONTH));
    let kept = tempfile::tempdir().unwrap();
    let (witness_at, witness) = witness(data.path(), kept.path(), &clock).await;
    let config = PlatformConfig {
        ports: Ports::Auto,
        clock: Clock::Virtual(clock.clone()),
        witnesses: vec![witness_at],
        ..PlatformConfig::new(data.path())
    };
    let platform = Platform::start(config).await.unwrap();
    let at = platform.endpoints.clone();
    let mut flow = SyncFlowServiceClient::new(channel(&at.flow).unwrap());
    set_up(&mut SyncShieldServiceClient::new(channel(&at.shield).unwrap())).await;

    let bid = first_bid(&mut flow).await;
    assert_eq!((bid.price_nanos, bid.predicted_ltv_micros), (PRICE_CAP, 90_000_000));
    // A win moves no money at an exchange that settles on the bill; the bill does, once.
    assert_eq!(status_of(&mut flow, notice(NoticeKind::Win, &bid.receipt, 15_000_000)).await, NoticeStatus::Noted);
    assert_eq!(status_of(&mut flow, notice(NoticeKind::Bill, &bid.receipt, PRICE_CAP + 1)).await, NoticeStatus::Refused);
    assert_eq!(status_of(&mut flow, notice(NoticeKind::Bill, &bid.receipt, 15_000_000)).await, NoticeStatus::Applied);
    assert_eq!(status_of(&mut flow, notice(NoticeKind::Bill, &bid.receipt, 15_000_000)).await, NoticeStatus::Duplicate);
    assert_eq!(status_of(&mut flow, notice(NoticeKind::Loss, &bid.receipt, 0)).await, NoticeStatus::Conflict);

    clock.advance_to(UnixMicros(MIDMONTH + 3_600_000_000));
    // What the click brings is good for purchases, and for no notice.
    let click = click_receipt(&bid);
    assert_eq!(status_of(&mut flow, notice(NoticeKind::Loss, click, 0)).await, NoticeStatus::Refused);
    let first = flow.report_conversions(purchase("order-1", click, MIDMONTH + 3_000_000_000)).await.unwrap().into_inner();
    assert_eq!(first.results[0].attributed_campaign, "spring");
    let again = flow.report_conversions(purchase("order-1", click, MIDMONTH + 3_000_000_000)).await.unwrap().into_inner();
    assert!(again.results[0].duplicate);
    let second = flow.report_conversions(purchase("order-2", "", MIDMONTH + 3_500_000_000)).await.unwrap().into_inner();
    assert_eq!(second.results[0].attributed_campaign, "", "a customer is acquired once");

    let bundle = close_month(&at, &clock).await;
    let key = std::fs::read_to_string(data.path().join("log.pub")).unwrap().trim().parse().unwrap();
    billing::verify_bundle(&bundle, &key).expect("an honest bundle");
    check_witnessed(&at, data.path(), witness).await;
    check_metrics(&at).await;
    platform.stop().await.unwrap();
    let report = syncshield::audit::verify(data.path(), &key).expect("an honest log");
    assert_eq!(report.settled.values().sum::<i128>(), 15_000_000);
}

/// A witness of the log that the platform will keep in `data`: where it is, and its key.
async fn witness(data: &Path, folder: &Path, clock: &VirtualClock) -> (WitnessAt, String) {
    let clock = Clock::Virtual(clock.clone());
    Log::open(&Paths::new(data), LOG_ID, clock.clone()).unwrap().close().await;
    let log_key = std::fs::read_to_string(data.join("log.pub")).unwrap().trim().parse().unwrap();
    let server = Server::open(folder, "w/1", vec![(LOG_ID.to_owned(), log_key)], clock).unwrap();
    let key = server.witness().to_string();
    (format!("http://{}+{key}", crate::witness::serve(&server).await).parse().unwrap(), key)
}

/// A bundle that is fetched once the witness has seen the invoice bears its cosignature, and a quorum is checked.
async fn check_witnessed(at: &Endpoints, data: &Path, witness: String) {
    let path = data.join("K2026-000001.bundle");
    let verify = |witnesses, quorum| {
        verify_invoices(&VerifyInvoices { log_key: None, witnesses, quorum, challenge: None, bundles: vec![path.clone()] })
    };
    let cosigned = async {
        loop {
            std::fs::write(&path, fetch(at, "K2026-000001").await).unwrap();
            if verify(vec![witness.clone()], 1).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), cosigned).await.unwrap();
    let twice = verify(vec![witness.clone(), witness.clone()], 2).unwrap_err().to_string();
    assert_eq!(twice, "1 of 1 invoices are not right");
}

async fn fetch(at: &Endpoints, number: &str) -> Vec<u8> {
    let mut billing = BillingServiceClient::new(channel(&at.billing).unwrap());
    let mut chunks =
        billing.get_proof_bundle(GetProofBundleRequest { invoice_id: number.into(), ..Default::default() }).await.unwrap().into_inner();
    let mut bundle = Vec::new();
    while let Some(chunk) = chunks.message().await.unwrap() {
        bundle.extend_from_slice(&chunk.chunk);
    }
    bundle
}

/// Spend 0.015 at baseline 3.0 is 0.045; LTV 90.00; margin 89.955, of which 10 % is 8.9955: 9.00.
async fn close_month(at: &Endpoints, clock: &VirtualClock) -> Vec<u8> {
    let mut billing = BillingServiceClient::new(channel(&at.billing).unwrap());
    let request = || DraftInvoicesRequest { month: "2026-01".into(), ..Default::default() };
    // Who has terms is known from what is signed, which is done once a second.
    let early = async {
        loop {
            let early = billing.draft_invoices(request()).await.unwrap().into_inner();
            if !early.postponed.is_empty() {
                return early;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let early = tokio::time::timeout(Duration::from_secs(20), early).await.unwrap();
    assert_eq!((early.invoices.len(), early.postponed.len()), (0, 1));
    clock.advance_to(UnixMicros(MONTH_END));
    let drafts = billing.draft_invoices(request()).await.unwrap().into_inner().invoices;
    assert_eq!((drafts.len(), drafts[0].total_minor), (1, 900));
    let invoice_id = drafts[0].invoice_id.clone();
    let first = billing.finalize_invoice(FinalizeInvoiceRequest { invoice_id: invoice_id.clone() }).await.unwrap().into_inner();
    let again = billing.finalize_invoice(FinalizeInvoiceRequest { invoice_id }).await.unwrap().into_inner();
    assert_eq!(first, again);
    let number = first.invoice.unwrap().number;
    assert_eq!(number, "K2026-000001");
    let invoice = billing.get_invoice(GetInvoiceRequest { invoice_id: number.clone() }).await.unwrap().into_inner();
    let json: serde_json::Value = serde_json::from_slice(&invoice.json).unwrap();
    assert_eq!((&json["total_invoice_amount"], &json["line_items"][0]["kiki_invoice_amount"]), (&"9.00".into(), &"9.00".into()));
    assert_eq!((&json["due_date"], &json["line_items"][0]["campaign_id"]), (&"2026-03-03".into(), &"spring".into()));
    fetch(at, &number).await
}

async fn check_metrics(at: &Endpoints) {
    let wanted = [
        (
            &at.value_http,
            &["kiki_rpc_duration_seconds_count", "syncvalue_predicted_ltv_total{campaign=\"spring\",client=\"acme\",currency=\"USD\"} 90"]
                [..],
        ),
        (
            &at.flow_http,
            &[
                "syncflow_spend_total{campaign=\"spring\",client=\"acme\",currency=\"USD\",platform=\"exchange-a\"} 0.015",
                "syncflow_budget_spent_micros{",
                "syncflow_budget_limit_micros{",
                "syncflow_circuit_breaker_state_count{platform=\"syncvalue\",state=\"closed\"} 1",
                "kiki_rpc_duration_seconds_count",
            ][..],
        ),
        (&at.shield_http, &["kiki_rpc_duration_seconds_count", "syncshield_log_leaves"][..]),
        (
            &at.billing_http,
            &[
                "kiki_ooaS_revenue_total_micros{currency=\"USD\",month=\"2026-01\"} 9000000",
                "kiki_ooaS_margin_recovered_micros{",
                "kiki_ooaS_invoices_generated_total{",
                "kiki_ooaS_profit_share_percentage",
                "kiki_rpc_duration_seconds_count",
            ][..],
        ),
    ];
    for (address, names) in wanted {
        let address = address.trim_start_matches("http://").to_owned();
        let text = tokio::task::spawn_blocking(move || metrics_of(&address)).await.unwrap();
        for name in names {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} is not in\n{text}");
        }
    }
}

fn metrics_of(address: &str) -> String {
    use std::io::{Read as _, Write as _};
    let mut tcp = std::net::TcpStream::connect(address).unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    tcp.read_to_string(&mut text).unwrap();
    text
}
