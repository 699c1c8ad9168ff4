//! The service, in this process or as one of its own, a small model for it to serve, and what is asked of it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::ids::Key;
use kiki::leaf::PredictionStatus;
use kiki::pb::syncvalue::v1::predict_request::Subject;
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::pb::syncvalue::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use syncvalue::Config;
use syncvalue::domain::customer::Day;
use syncvalue::store::folder::{self, Note};
use syncvalue::train::data::{Log, Protocol, buyers};
use syncvalue::train::learn::Settings;
use syncvalue::train::random::Random;
use syncvalue::train::{Prepared, settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_stream::{StreamExt as _, iter};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

pub type Client = SyncValueServiceClient<Channel>;

const DAY: i64 = 86_400_000_000;
/// "Now" of the tests: 2026-01-01.
pub const NOW: i64 = 20_454 * DAY;
pub const KEY: Key = Key::new([7; 32]);
/// The model's folder.
pub const MODEL: &str = "small";
/// How long a question waits for Redis, and a change: long enough for any machine.
pub const PATIENCE_MS: u64 = 60_000;

/// A folder with a small model of a shop whose regulars buy every two weeks; trained once.
pub fn models() -> &'static Path {
    static FOLDER: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let made = FOLDER.get_or_init(|| {
        let protocol = Protocol { start: 20_300, cut: 20_440, horizon_days: 70 };
        let mut random = Random(3);
        let customer = |i: u64| {
            let first = protocol.start + (random.bits() % 70) as i64;
            let day = |day| Day { day, items: 1, spend_micros: 10_000_000 };
            let times = if i.is_multiple_of(3) { 20 } else { 1 };
            (format!("c{i}"), (0..times).map(|n| day(first + n * 14 + (random.bits() % 5) as i64)).collect())
        };
        let log: Log = (0..240).map(customer).collect();
        let few = Settings { steps: 40, batch: 32, checks: 2, ..settings() };
        let prepared = Prepared::new(&buyers(&log, &protocol, |_| false), &protocol, few, 1).unwrap();
        let model = prepared.model(vec![prepared.member(0, |_| ()).member]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        folder::save(&model, Note::default(), &path.join(MODEL)).unwrap();
        (folder, path)
    });
    &made.1
}

/// In this process, on a clock that stands still.
pub struct Service {
    pub client: Client,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), syncvalue::Error>>,
}

/// What differs between services.
#[derive(Clone, Default)]
pub struct Setup {
    pub states: Vec<String>,
    pub model: bool,
    pub shield: Option<String>,
}

impl Service {
    /// Starts it, and waits until it answers.
    pub async fn start(data: &Path, setup: &Setup) -> Self {
        for _ in 0..100 {
            let mut service = Self::begin(data, setup).await;
            if service.client.get_model(GetModelRequest::default()).await.is_ok() {
                return service;
            }
            // A process that another test starts at this moment has our files until it runs its own program, and with them the locks of a service
            // that has stopped.
            let why = service.refusal().await;
            assert!(why.contains("another process is using it"), "{why}");
        }
        panic!("{}: its lock is held", data.display());
    }

    /// Starts it, whether that works or not.
    pub async fn begin(data: &Path, setup: &Setup) -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let Setup { states, model, shield } = setup.clone();
        let config = Config {
            states,
            states_patience_ms: PATIENCE_MS,
            states_timeout_ms: PATIENCE_MS,
            models: models().into(),
            model: model.then(|| MODEL.to_owned()),
            shield,
            ..Config::new(data.into(), KEY)
        };
        let (shutdown, clock) = (CancellationToken::new(), Clock::Virtual(VirtualClock::at(UnixMicros(NOW))));
        let task = tokio::spawn(syncvalue::serve(listeners, config, clock, shutdown.clone()));
        Self { client: Client::new(channel(&address).unwrap()), shutdown, task }
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// Why it did not start.
    pub async fn refusal(self) -> String {
        self.task.await.unwrap().unwrap_err().to_string()
    }
}

/// As a process of its own; killed when it goes out of scope.
pub struct Process {
    child: Child,
    pub client: Client,
    http: String,
}

impl Process {
    pub async fn start(data: &Path, states: &[String], patience_ms: u64) -> Self {
        let [address, http] = [0; 2].map(|_| format!("127.0.0.1:{}", crate::server::free_port()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_syncvalue"));
        command.args(["--grpc", &address, "--http", &http, "--model", MODEL, "--models"]).arg(models()).arg("--data").arg(data);
        command.args(["--states-patience-ms", &patience_ms.to_string(), "--states-timeout-ms", &PATIENCE_MS.to_string()]);
        if !states.is_empty() {
            command.args(["--states", &states.join(",")]);
        }
        let key = "07".repeat(32);
        let child = command.env("KIKI_PSEUDONYM_KEY", key).env("RUST_LOG", "off").stderr(Stdio::null()).spawn().unwrap();
        let mut process = Self { child, http, client: Client::new(channel(&format!("http://{address}")).unwrap()) };
        for _ in 0..4_000 {
            if process.client.get_model(GetModelRequest::default()).await.is_ok() {
                return process;
            }
            assert_eq!(process.child.try_wait().unwrap(), None, "the process ended at its start");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await; // until it listens
        }
        panic!("{address} does not answer");
    }

    /// What it shows to Prometheus.
    pub async fn metrics(&self) -> String {
        let mut tcp = TcpStream::connect(&self.http).await.unwrap();
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        text
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
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

pub fn event(id: impl ToString, days_ago: i64, value_micros: i64) -> Event {
    Event { event_id: id.to_string(), occurred_at: Some(UnixMicros(NOW - days_ago * DAY).into()), value_micros, items: 1 }
}

/// Events of one message, of customers of one client.
pub fn message(client: &str, events: impl IntoIterator<Item = (String, Event)>) -> ObserveRequest {
    let of = |(customer, event)| ObservedEvent { client: client.into(), customer, currency: "USD".into(), event: Some(event) };
    ObserveRequest { events: events.into_iter().map(of).collect() }
}

pub fn asking(client: &str, subject: Subject) -> PredictRequest {
    PredictRequest {
        client: client.into(),
        subject: Some(subject),
        currency: "USD".into(),
        horizon_days: 70,
        at: Some(UnixMicros(NOW).into()),
        ..Default::default()
    }
}

/// Sends messages, and gives what was acknowledged up to the first error.
pub async fn observe(client: &mut Client, messages: Vec<ObserveRequest>) -> Result<Vec<ObserveResponse>, Status> {
    client.observe(iter(messages)).await?.into_inner().collect().await
}

pub async fn predict(client: &mut Client, of: &str, customer: &str) -> Prediction {
    let request = asking(of, Subject::Customer(customer.into()));
    client.predict(request).await.unwrap().into_inner().prediction.unwrap()
}

/// What the customers are worth, and what customers of whom nothing but these events is known are: the same where each event counts once.
pub async fn are_worth_their_events(client: &mut Client, of: &str, histories: &[(String, Vec<Event>)]) {
    for part in histories.chunks(256) {
        let known = part.iter().map(|(customer, _)| asking(of, Subject::Customer(customer.clone()))).collect();
        let alone = part.iter().map(|(_, events)| asking(of, Subject::History(History { events: events.clone() }))).collect();
        let known = client.predict_batch(PredictBatchRequest { requests: known }).await.unwrap().into_inner().predictions;
        let alone = client.predict_batch(PredictBatchRequest { requests: alone }).await.unwrap().into_inner().predictions;
        for (((customer, events), known), alone) in part.iter().zip(known).zip(alone) {
            assert_eq!(known.status(), PredictionStatus::Ok, "{customer}: {known:?}");
            assert_eq!(known, alone, "{customer}, who has {} events", events.len());
        }
    }
}

/// Whether a call failed because the service, or what it needs, is away: it is sent again.
pub fn is_away(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
}
