//! SyncFlow among its fakes, with one campaign, and ways to talk to it.

use std::time::Duration;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::ids::Key;
use kiki::leaf;
use kiki::pb::syncflow::v1::sync_flow_service_client::SyncFlowServiceClient;
use kiki::pb::syncshield::v1 as shield;
use kiki::pb::syncvalue::v1 as value;
use kiki::runtime::Channel;
use kiki::runtime::Listeners;
use serde_json::{Value as Json, json};
use syncflow::config::{Deadlines, Venues};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::fakes::{Manner, Shield, Value};

/// 2026-01-15T12:00:00Z.
pub const START: UnixMicros = UnixMicros(1_768_478_400_000_000);
/// An impression's price: 1 in 1,000 of the prior of 20.00 at 2x is 0.01, a CPM of 10.
pub const PRIOR_PRICE: i64 = 10_000_000;
/// With the predicted 30.00 in place of the prior of 20.00.
pub const PREDICTED_PRICE: i64 = 15_000_000;

pub struct World {
    pub shield: Shield,
    pub value: Value,
    pub clock: VirtualClock,
    pub flow: SyncFlowServiceClient<Channel>,
    http: std::net::SocketAddr,
    shutdown: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), syncflow::Error>>,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub fn prediction() -> value::Prediction {
    value::Prediction {
        mean_micros: 30_000_000,
        model: "rfv-1".into(),
        status: leaf::PredictionStatus::Fallback.into(),
        fallback_reason: value::FallbackReason::NoModel.into(),
        horizon_days: 90,
        ..Default::default()
    }
}

pub fn policy() -> leaf::Policy {
    leaf::Policy {
        version: 1,
        bid_caps: vec![leaf::BidCap { currency: "USD".into(), cap_nanos: 100_000_000 }],
        blocked_domains: vec!["bad.example".into()],
        ..Default::default()
    }
}

pub fn campaign() -> leaf::Campaign {
    leaf::Campaign {
        campaign: "spring".into(),
        version: 1,
        currency: "USD".into(),
        limit_total_micros: 64_000_000,
        target_roas_ppm: 2_000_000,
        prior_p_conversion_ppb: 1_000_000,
        prior_ltv_micros: 20_000_000,
        exchanges: vec!["x1".into(), "x2".into()],
        creatives: vec![leaf::Creative {
            creative: "c1".into(),
            adomain: vec!["acme.example".into()],
            format: leaf::CreativeFormat::Banner.into(),
            width: 300,
            height: 250,
            markup: r#"<a href="${KIKI_CLICK}">shop</a>"#.into(),
            click_url: "https://acme.example/shop?a=1".into(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

pub fn client_campaign(campaign: leaf::Campaign) -> shield::ClientCampaign {
    shield::ClientCampaign { client: "acme".into(), campaign: Some(campaign), horizon_days: 90, counts: None }
}

pub fn request(id: &str) -> Json {
    json!({
        "id": id, "tmax": 2000, "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
        "site": {"domain": "news.example"}, "user": {"buyeruid": "customer-7"}
    })
}

impl World {
    pub async fn new(budget_nanos: i64) -> Self {
        let world = Self::bare(budget_nanos, Manner::Answers(prediction())).await;
        world.open(vec![client_campaign(campaign())]).await;
        world
    }

    /// Without policy and campaigns.
    pub async fn bare(budget_nanos: i64, manner: Manner) -> Self {
        Self::counting_in(None, budget_nanos, manner).await
    }

    /// Without policy and campaigns, its impressions counted in this Redis.
    pub async fn counting_in(frequency: Option<String>, budget_nanos: i64, manner: Manner) -> Self {
        Self::told(budget_nanos, manner, |config| config.frequency = frequency).await
    }

    /// Without policy and campaigns, with something else in its configuration.
    pub async fn told(budget_nanos: i64, manner: Manner, what: impl FnOnce(&mut syncflow::Config)) -> Self {
        let clock = VirtualClock::at(START);
        let (shield, shield_address) = Shield::start(Clock::Virtual(clock.clone()), Duration::from_secs(60), budget_nanos).await;
        let (value, value_address) = Value::start(manner).await;
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let (grpc, http) = (listeners.grpc.local_addr().unwrap(), listeners.http.local_addr().unwrap());
        let mut config = syncflow::Config {
            shield: shield_address,
            value: value_address,
            pseudonym_key: Key::new([1; 32]),
            receipt_key: Key::new([2; 32]),
            holder: Some("flow-test".into()),
            public_url: "http://flow.example/".into(),
            venues: Venues {
                platforms: vec!["x1=tradedesk".into()],
                settle_on_win: vec!["x2".into()],
                no_bid_reasons: vec!["x2".into()],
                fallback_multipliers: vec!["tradedesk=1.2".into()],
                trip_spend_velocity: vec![],
                trip_cpm_jump: vec!["tradedesk=2".into()],
            },
            notice_window_secs: 3_600,
            frequency: None,
            frequency_budget_ms: 1_500, // a busy machine is no Redis that is gone
            record: syncflow::config::Record::All,
            clock_skew_ms: 1_000,
            deadlines: Deadlines { network_allowance_ms: 5, deadline_max_ms: 2_000 },
        };
        what(&mut config);
        let shutdown = CancellationToken::new();
        let served = tokio::spawn(syncflow::serve(listeners, config, Clock::Virtual(clock.clone()), shutdown.clone()));
        let flow = SyncFlowServiceClient::new(kiki::runtime::channel(&format!("http://{grpc}")).unwrap());
        Self { shield, value, clock, flow, http, shutdown, served }
    }

    /// Puts policy and campaigns, the first of them, and waits until they bid.
    pub async fn open(&self, campaigns: Vec<shield::ClientCampaign>) {
        self.shield.campaigns.send_replace(campaigns);
        self.shield.policy.send_replace(Some(policy()));
        self.settle_in().await;
    }

    /// A test is refused as such once both replicas are there, and costs nothing.
    pub async fn settle_in(&self) {
        for n in 0.. {
            let mut probe = request(&format!("probe-{n}"));
            probe["test"] = json!(1);
            let answer = self.post("/openrtb2/x1", &probe).await;
            if answer.header("x-kiki-no-bid") == Some("TEST") {
                return;
            }
            assert!(n < 500, "not ready: {}", answer.head);
            tokio::time::sleep(Duration::from_millis(10)).await; // polls another task's progress
        }
    }

    pub async fn bid(&self, id: &str) -> Answer {
        self.post("/openrtb2/x1", &request(id)).await
    }

    /// The one bid of the answer.
    pub async fn won(&self, id: &str) -> Json {
        let answer = self.bid(id).await;
        assert_eq!(answer.status, 200, "{}", answer.head);
        answer.json()["seatbid"][0]["bid"][0].clone()
    }

    /// Sends the notice that the bid asks for.
    pub async fn notice(&self, bid: &Json, which: &str, price: &str) -> Answer {
        let url = bid[which].as_str().unwrap().replace("${AUCTION_PRICE}", price).replace("${AUCTION_LOSS}", "102");
        self.get(url.strip_prefix("http://flow.example").unwrap()).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: flow\r\nconnection: close\r\n\r\n")).await
    }

    pub async fn post(&self, path: &str, body: &Json) -> Answer {
        self.post_text(path, &body.to_string()).await
    }

    pub async fn post_text(&self, path: &str, body: &str) -> Answer {
        let head = format!("POST {path} HTTP/1.1\r\nhost: flow\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
        self.send(&(head + body)).await
    }

    async fn send(&self, request: &str) -> Answer {
        let (answer, body) = self.exchange(request.as_bytes()).await;
        Answer { body: String::from_utf8(body).unwrap(), ..answer }
    }

    /// Posts bytes with these header lines; the answer's body is not read as text.
    pub async fn post_bytes(&self, path: &str, headers: &[&str], body: &[u8]) -> (Answer, Vec<u8>) {
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: flow\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|line| head += &format!("{line}\r\n"));
        self.exchange(&[head.as_bytes(), b"\r\n", body].concat()).await
    }

    async fn exchange(&self, request: &[u8]) -> (Answer, Vec<u8>) {
        let mut socket = tokio::net::TcpStream::connect(self.http).await.unwrap();
        socket.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (Answer { status, head, body: String::new() }, answer.split_off(end + 4))
    }

    pub async fn metric(&self, line: &str) -> f64 {
        let text = self.get("/metrics").await.body;
        let found = text.lines().find_map(|one| one.strip_prefix(line));
        found.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    pub async fn stop(self) -> Shield {
        self.shutdown.cancel();
        self.served.await.unwrap().unwrap();
        self.shield
    }
}
