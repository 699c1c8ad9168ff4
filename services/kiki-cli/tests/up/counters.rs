//! `kiki invoice reconcile prometheus` against a real Prometheus that scrapes a real `kiki up`, across a crash of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Output};
use std::time::Duration;

use kiki::clock::{Clock, monotonic};
use kiki::leaf;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncflow::v1::*;
use kiki::pb::syncshield::v1::sync_shield_service_client::SyncShieldServiceClient;
use kiki::pb::syncshield::v1::*;
use kiki::runtime::channel;
use serde_json::{Value, json};

use crate::prometheus::Server;
use crate::{Up, acme, up, up_in};

/// How long something may take to be heard of: Prometheus takes up what it is to scrape within ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: i64 = 3_600;

impl Up {
    /// What the command says of this hour and the next: the test may run across the end of one.
    fn counted(&self, prometheus: &Server, from: i64, more: &[&str]) -> Output {
        let instant = |seconds: i64| jiff::Timestamp::from_second(seconds).unwrap().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
        command.args(["invoice", "reconcile", "prometheus", "--client", "acme", "--json", "--addr", &self.at.billing]);
        command.args(["--prometheus", &prometheus.url(), "--from", &instant(from), "--until", &instant(from + 2 * HOUR)]);
        command.args(more).output().unwrap()
    }
}

async fn set_up(up: &Up) {
    let mut shield = SyncShieldServiceClient::new(channel(&up.shield).unwrap());
    let bid_caps = vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 20_000_000 }];
    let policy = leaf::Policy { bid_caps, ..Default::default() };
    shield.put_policy(PutPolicyRequest { policy: Some(policy), ..Default::default() }).await.unwrap();
    let campaign = leaf::Campaign {
        campaign: "spring".into(),
        currency: "USD".into(),
        limit_total_micros: 5_000_000,
        target_roas_ppm: 3_000_000,
        prior_p_conversion_ppb: 10_000_000,
        prior_ltv_micros: 90_000_000,
        bid_cap_nanos: 20_000_000,
        creatives: vec![acme::banner("b1", "<a href=\"${KIKI_CLICK}\">Acme</a>")],
        zone: "UTC".into(),
        ..Default::default()
    };
    shield.put_campaign(PutCampaignRequest { client: "acme".into(), campaign: Some(campaign) }).await.unwrap();
    shield.put_terms(PutTermsRequest { client: "acme".into(), terms: Some(acme::terms()) }).await.unwrap();
}

/// Bids for an impression until the campaign is known, and has it charged.
async fn buy(up: &Up, name: &str, price_nanos: i64) {
    let mut flow = SyncFlowServiceClient::new(channel(&up.at.flow).unwrap());
    let end = monotonic() + PATIENCE;
    for attempt in 0.. {
        let opportunity = Opportunity {
            request_id: format!("{name}-{attempt}"),
            imp_id: "1".into(),
            exchange: "exchange-a".into(),
            customer: "customer-1".into(),
            format: leaf::CreativeFormat::Banner.into(),
            width: 300,
            height: 250,
            currency: "USD".into(),
            ..Default::default()
        };
        let request = BidRequest { opportunity: Some(opportunity), await_durable: true };
        if let Some(bid_response::Result::Bid(bid)) = flow.bid(request).await.unwrap().into_inner().result {
            let notice = Notice { kind: NoticeKind::Bill.into(), receipt: bid.receipt, price_nanos, ..Default::default() };
            let told = flow.notify(NotifyRequest { notices: vec![notice] }).await.unwrap().into_inner();
            assert_eq!(told.results[0].status(), NoticeStatus::Applied);
            return;
        }
        assert!(monotonic() < end, "no bid although the campaign fits");
        tokio::time::sleep(Duration::from_millis(10)).await; // the replica hears of the campaign by itself
    }
}

async fn purchase(up: &Up) {
    let conversion = ReportedConversion {
        client: "acme".into(),
        event_id: "order-1".into(),
        customer: "customer-1".into(),
        currency: "USD".into(),
        value_micros: 40_000_000,
        occurred_at: Some(Clock::System.now().into()),
        ..Default::default()
    };
    let mut flow = SyncFlowServiceClient::new(channel(&up.at.flow).unwrap());
    let reported = flow.report_conversions(ReportConversionsRequest { conversions: vec![conversion] }).await.unwrap().into_inner();
    assert_eq!(reported.results[0].attributed_campaign, "spring");
}

/// Has the log signed to its end, waits until Prometheus has a counter at this, and scraped it again since.
async fn seen(up: &Up, prometheus: &Server, metric: &str, value: &str) {
    let mut shield = SyncShieldServiceClient::new(channel(&up.shield).unwrap());
    let mut tail = shield.tail(TailRequest { without_decisions: true, ..Default::default() }).await.unwrap().into_inner();
    while let Some(message) = tail.message().await.unwrap() {
        shield.get_checkpoint(GetCheckpointRequest { min_size: message.next_index, ..Default::default() }).await.unwrap();
    }
    let (address, end) = (prometheus.url().trim_start_matches("http://").to_owned(), monotonic() + PATIENCE);
    loop {
        let mut tcp = TcpStream::connect(&address).unwrap();
        write!(tcp, "GET /api/v1/query?query={metric} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        if answer.contains(&format!(",\"{value}\"]")) {
            return;
        }
        assert!(monotonic() < end, "{metric} is not {value}: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await; // Prometheus tells nobody
    }
}

fn agreed(output: &Output, total: &str) {
    let said = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{said:?}");
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let sides = &answer["totals"][0];
    assert_eq!((&sides["log"], &sides["other"], &answer["different"]), (&json!(total), &json!(total), &json!(0)), "{said:?}");
}

/// A charge in SyncFlow's name that it never heard of.
async fn uncounted(up: &Up) {
    let mut shield = SyncShieldServiceClient::new(channel(&up.shield).unwrap());
    let lease = LeaseRequest {
        key: "k".into(),
        client: "acme".into(),
        campaign: "spring".into(),
        holder: "h".into(),
        amount_micros: 100_000,
        least_micros: 1,
        mark_sequence: 1,
        mark_nanos: 50_000_000,
        platform: "exchange-a".into(),
    };
    let lease_id = shield.lease(lease).await.unwrap().into_inner().grant.unwrap().lease_id;
    let now = Some(Clock::System.now().into());
    let settlement = leaf::Settlement {
        max_nanos: 50_000_000,
        price_nanos: 50_000_000,
        bid_at: now,
        noticed_at: now,
        exchange: "exchange-a".into(),
        ..Default::default()
    };
    let items = vec![SettleItem { client: "acme".into(), campaign: "spring".into(), lease_id, settlement: Some(settlement) }];
    shield.settle(SettleRequest { items }).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_agree_with_the_log_also_where_they_began_again_and_what_they_lack_is_named() {
    let prometheus = Server::start_or_install();
    let first = up(&[]);
    let from = Clock::System.now().0 / 1_000_000 / HOUR * HOUR;
    prometheus.scrape(&[("flow", &first.at.flow_http), ("value", &first.at.value_http)]);
    set_up(&first).await;
    buy(&first, "first", 15_000_000).await;
    purchase(&first).await;
    seen(&first, &prometheus, "syncflow_spend_total", "0.015").await;
    seen(&first, &prometheus, "syncvalue_predicted_ltv_total", "90").await;
    // Scraped ten times a second: two seconds are plenty.
    agreed(&first.counted(&prometheus, from, &["--scrape-seconds", "2", "--tolerance-minor", "0"]), "0.015000000");
    agreed(&first.counted(&prometheus, from, &["--scrape-seconds", "2", "--counter", "predicted-ltv"]), "90.000000000");

    let Up { _running, dir, .. } = first;
    drop(_running);
    let second = up_in(dir, &[]);
    prometheus.scrape(&[("flow", &second.at.flow_http), ("value", &second.at.value_http)]);
    buy(&second, "second", 12_000_000).await;
    seen(&second, &prometheus, "syncflow_spend_total", "0.012").await;
    agreed(&second.counted(&prometheus, from, &["--scrape-seconds", "2", "--tolerance-minor", "0"]), "0.027000000");

    uncounted(&second).await;
    seen(&second, &prometheus, "syncflow_spend_total", "0.012").await;
    let differs = second.counted(&prometheus, from, &["--scrape-seconds", "0"]);
    assert_eq!((differs.status.code(), differs.stdout.is_empty()), (Some(1), false));
    let answer: Value = serde_json::from_slice(&differs.stdout).unwrap();
    let [difference] = answer["differences"].as_array().unwrap().as_slice() else { panic!("{answer}") };
    assert_eq!((&difference["campaign"], &difference["currency"]), (&json!("spring"), &json!("USD")));
    assert_eq!(
        (&answer["totals"][0]["difference"], difference["leaves"].as_array().map(Vec::is_empty)),
        (&json!("-0.050000000"), Some(false))
    );
}
