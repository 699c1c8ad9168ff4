//! What `kiki up` is told of exchanges and their platforms reaches SyncFlow.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use kiki::clock::{Clock, monotonic};
use serde_json::{Value, json};

use crate::{Running, start};

/// How long something may take to be heard of.
const PATIENCE: Duration = Duration::from_secs(30);
/// Charges of one price before a dearer one is a jump, and a few more.
const USUAL: usize = 70;
/// Impressions that are dearer: one is a jump already, and each one more is another.
const DEAR: usize = 10;

struct Platform {
    _running: Running,
    shield: String,
    flow: String,
    http: String,
    dir: tempfile::TempDir,
}

fn kiki(args: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kiki")).args(args).output().unwrap();
    (output.status.success(), [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat())
}

impl Platform {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
        command.args(["up", "--ports", "auto", "--data"]).arg(dir.path().join("data")).args(more);
        let (running, rows) = start(&mut command);
        let word = |service: &str, nth: usize| {
            let row = rows.iter().find(|row| row.starts_with(service)).unwrap_or_else(|| panic!("{rows:?}"));
            row.split_whitespace().nth(nth).unwrap().trim_start_matches("http://").to_owned()
        };
        let (shield, flow) = (format!("http://{}", word("syncshield", 1)), format!("http://{}", word("syncflow", 1)));
        Self { shield, flow, http: word("syncflow", 2), _running: running, dir }
    }

    /// A policy, terms and a campaign, and customers who have bought before.
    fn prepare(&self) {
        let policy = self.dir.path().join("policy.yaml");
        std::fs::write(&policy, "bid_caps: { USD: 50 }\n").unwrap();
        let (done, said) = kiki(&["policy", "put", "--addr", &self.shield, policy.to_str().unwrap()]);
        assert!(done, "{said}");
        for what in ["terms", "campaign"] {
            let document = format!("{}/../../docs/clients/{what}.yaml", env!("CARGO_MANIFEST_DIR"));
            let (done, said) = kiki(&["put", what, "--client", "acme", "--addr", &self.shield, &document]);
            assert!(done, "{said}");
        }
        let file = self.dir.path().join("purchases.csv");
        // SyncValue says nothing of fewer than ten customers.
        let rows = [50, 20, 0].into_iter().flat_map(|days| (1..13).rev().map(move |customer| (customer, days + customer)));
        let rows = rows.map(|(customer, days)| {
            let at = jiff::Timestamp::from_microsecond(Clock::System.now().0 - days * 86_400_000_000).unwrap();
            format!("order-{customer}-{days},customer-{customer},USD,90,{at}\n")
        });
        std::fs::write(&file, format!("event_id,customer,currency,value,occurred_at\n{}", rows.collect::<String>())).unwrap();
        let file = file.to_str().unwrap().to_owned();
        // SyncFlow hears of the client behind the answers.
        self.until("SyncFlow knows the client", || {
            kiki(&["put", "purchases", "--client", "acme", "--flow", &self.flow, &file]).0.then_some(())
        });
    }

    fn until<T>(&self, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let end = monotonic() + PATIENCE;
        loop {
            if let Some(done) = done() {
                return done;
            }
            assert!(monotonic() < end, "it never was so that {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// An answer's status, and its body.
    fn http(&self, request: &str, body: &str) -> (u16, String) {
        let mut tcp = TcpStream::connect(&self.http).unwrap();
        write!(tcp, "{request} HTTP/1.1\r\nhost: flow\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// The bid on an impression for this customer, where there is one.
    fn bid(&self, id: &str, customer: &str) -> Option<Value> {
        let request = json!({
            "id": id, "tmax": 1000, "imp": [{"id": "1", "banner": {"w": 300, "h": 250}}],
            "site": {"domain": "news.example"}, "user": {"buyeruid": customer}
        });
        let (status, body) = self.http("POST /openrtb2/x1", &request.to_string());
        let answer: Value = (status == 200).then(|| serde_json::from_str(&body).unwrap())?;
        Some(answer["seatbid"][0]["bid"][0].clone())
    }

    fn charge(&self, bid: &Value, price: &str) {
        let url = bid["burl"].as_str().unwrap().replace("${AUCTION_PRICE}", price);
        let path = url.strip_prefix(&format!("http://{}", self.http)).unwrap();
        assert_eq!(self.http(&format!("GET {path}"), "").0, 200);
    }
}

#[test]
fn multipliers_and_bounds_of_what_platforms_charge_reach_syncflow() {
    let more = ["--platforms", "x1=tradedesk", "--fallback-multipliers", "tradedesk=0.5", "--trip-cpm-jump", "tradedesk=1"];
    let platform = Platform::start(&more);
    platform.prepare();
    let price = |bid: Value| bid["price"].as_f64().unwrap();
    let mut number = 0;
    let mut ask = |customer: &str| {
        number += 1;
        platform.bid(&format!("r{number}"), customer)
    };
    let prior = price(platform.until("it bids", || ask("a stranger")));
    // By what SyncValue says of the customer; then by that as the only recent one, as the platform has it.
    let whole = platform.until("SyncValue knows the customer", || ask("customer-1").map(price).filter(|price| *price != prior));
    let who = ["--operator", "ada", "--reason", "a test", "--flow", &platform.flow];
    let (done, said) = kiki(&[&["breakers", "force-open", "syncvalue", "--for", "10m"][..], &who].concat());
    assert!(done, "{said}");
    let half = price(ask("customer-1").unwrap());
    assert!((half / whole - 0.5).abs() < 1e-4, "{half} of {whole}");

    let bids: Vec<Value> = (0..USUAL + DEAR).map(|_| ask("customer-1").unwrap()).collect();
    let (usual, dear) = bids.split_at(USUAL);
    usual.iter().for_each(|bid| platform.charge(bid, "0.01"));
    let listed = || kiki(&["breakers", "list", "--flow", &platform.flow]).1;
    assert!(!listed().contains("it was tripped"), "{}", listed());
    // A pause is a second at first, which a busy machine may miss, and longer each time.
    let tripped = dear.iter().any(|bid| {
        platform.charge(bid, "0.02");
        listed().contains("it was tripped (syncflow: CPM jump")
    });
    assert!(tripped, "{}", listed());
}

#[test]
fn a_bound_for_a_platform_that_no_exchange_has_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiki"));
    command.args(["up", "--ports", "auto", "--trip-spend-velocity", "nobody=2", "--data"]).arg(dir.path().join("data"));
    let mut running = Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(running.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(!lines.any(|line| line == "ready"), "it started");
    let mut said = String::new();
    running.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains(r#"trip-spend-velocity: "nobody" is the platform of no exchange"#), "{said}");
}
