//! The service over gRPC, on free ports, with a real client.

use std::path::Path;

use crate::shield::{LOG, Shield};
use kiki::caller;
use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::ids::{Key, Pseudonyms};
use kiki::leaf::{Conversion, Leaf, Outcome, Position, PredictionStatus, Void, VoidBatch, leaf::Body};
use kiki::pb::syncvalue::v1::predict_request::Subject;
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::pb::syncvalue::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use syncvalue::Config;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{StreamExt as _, iter};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

const DAY: i64 = 86_400_000_000;
/// "Now" of the tests: 2026-01-01.
const NOW: i64 = 20_454 * DAY;
const KEY: Key = Key::new([7; 32]);

struct Service {
    client: SyncValueServiceClient<Channel>,
    http: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), syncvalue::Error>>,
}

impl Service {
    async fn start(data: &Path, shield: Option<String>) -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let http = listeners.http.local_addr().unwrap().to_string();
        let config = Config { shield, ..Config::new(data.into(), KEY) };
        let shutdown = CancellationToken::new();
        let clock = Clock::Virtual(VirtualClock::at(UnixMicros(NOW)));
        let task = tokio::spawn(syncvalue::serve(listeners, config, clock, shutdown.clone()));
        Self { client: SyncValueServiceClient::new(channel(&address).unwrap()), http, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn observe(&mut self, messages: Vec<ObserveRequest>) -> Result<Vec<ObserveResponse>, Status> {
        self.client.observe(iter(messages)).await?.into_inner().collect().await
    }

    async fn predict(&mut self, customer: &str) -> Prediction {
        let request = asking(Subject::Customer(customer.into()));
        self.client.predict(request).await.unwrap().into_inner().prediction.unwrap()
    }

    async fn model(&mut self, index: u64) -> Result<GetModelResponse, Status> {
        let followed_to = Some(Position { log_id: LOG.into(), index });
        Ok(self.client.get_model(GetModelRequest { followed_to }).await?.into_inner())
    }

    async fn metrics(&self) -> String {
        let mut tcp = TcpStream::connect(&self.http).await.unwrap();
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        text
    }

    /// The metrics once the log was read up to there: they are set after what GetModel waits for.
    async fn metrics_at(&self, index: u64) -> String {
        let followed = format!("syncvalue_followed_index {index}\n");
        let read = async {
            loop {
                let text = self.metrics().await;
                if text.contains(&followed) {
                    return text;
                }
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), read).await.unwrap_or_else(|_| panic!("never {followed}"))
    }
}

fn asking(subject: Subject) -> PredictRequest {
    PredictRequest { client: "acme".into(), subject: Some(subject), currency: "USD".into(), ..Default::default() }
}

fn event(id: impl ToString, days_ago: i64, value_micros: i64) -> Event {
    Event { event_id: id.to_string(), occurred_at: Some(UnixMicros(NOW - days_ago * DAY).into()), value_micros, items: 1 }
}

fn of(customer: impl ToString, event: Event) -> ObservedEvent {
    ObservedEvent { client: "acme".into(), customer: customer.to_string(), currency: "USD".into(), event: Some(event) }
}

/// Thirty customers who bought once, 100 days ago; the first ten of them every ten days since.
fn shop() -> Vec<ObserveRequest> {
    let message = |day: i64, customers: i64| {
        let events = (0..customers).map(|c| of(format!("c{c}"), event(format!("{c}-{day}"), day, 10_000_000))).collect();
        ObserveRequest { events }
    };
    (0..10).map(|i| message(100 - 10 * i, if i == 0 { 30 } else { 10 })).collect()
}

#[tokio::test]
async fn answers_say_by_what_they_were_estimated() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    let nothing = service.predict("c1").await;
    assert_eq!((nothing.fallback_reason(), nothing.mean_micros), (FallbackReason::NoPopulation, 0));
    let acks = service.observe(shop()).await.unwrap();
    assert_eq!(acks.iter().map(|ack| ack.applied).collect::<Vec<_>>(), [30, 10, 10, 10, 10, 10, 10, 10, 10, 10]);
    let (regular, gone, unknown) = (service.predict("c1").await, service.predict("c20").await, service.predict("nobody").await);
    assert_eq!((regular.status(), regular.fallback_reason()), (PredictionStatus::Fallback, FallbackReason::NoModel));
    assert_eq!((regular.model.as_str(), regular.horizon_days), ("rfv-1", 90));
    assert_eq!(unknown.fallback_reason(), FallbackReason::UnknownCustomer);
    assert!(regular.mean_micros > 3 * gone.mean_micros && gone.mean_micros > 0, "{regular:?} {gone:?}");
    assert!(regular.q05_micros <= regular.mean_micros && regular.mean_micros < regular.q95_micros);
    let text = service.metrics().await;
    assert!(text.contains("syncvalue_predictions_total{reason=\"no_model\"} 2"), "{text}");
    assert!(text.contains("syncvalue_customers 30") && text.contains("syncvalue_events_total{effect=\"applied\"} 120"), "{text}");
    assert!(text.contains("kiki_rpc_duration_seconds_count{rpc=\"/kiki.syncvalue.v1.SyncValueService/Predict\"} 4"), "{text}");
    assert!(text.contains("syncvalue_service_seconds_count{rpc=\"Predict\"} 4"), "{text}");
    service.stop().await;
}

#[tokio::test]
async fn a_message_may_ask_across_clients_currencies_and_horizons() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    service.observe(shop()).await.unwrap();
    let dearer = |mut observed: ObservedEvent| {
        observed.client = "globex".into();
        observed.event.as_mut().unwrap().value_micros *= 3;
        observed
    };
    let globex = shop().into_iter().map(|message| ObserveRequest { events: message.events.into_iter().map(dearer).collect() });
    service.observe(globex.collect()).await.unwrap();
    let asked =
        [("acme", "USD", 90), ("acme", "USD", 30), ("globex", "USD", 30), ("acme", "EUR", 90), ("acme", "USD", 90), ("globex", "USD", 90)];
    let requests = asked.map(|(client, currency, horizon_days)| PredictRequest {
        client: client.into(),
        currency: currency.into(),
        horizon_days,
        ..asking(Subject::Customer("c1".into()))
    });
    let request = PredictBatchRequest { requests: requests.to_vec() };
    let together = service.client.predict_batch(request).await.unwrap().into_inner().predictions;
    for (request, answer) in requests.into_iter().zip(&together) {
        assert_eq!(service.client.predict(request).await.unwrap().into_inner().prediction.as_ref(), Some(answer));
    }
    let means: Vec<_> = together.iter().map(|prediction| prediction.mean_micros).collect();
    assert!(means[0] > means[1] && means[2] > means[1] && means[5] > means[0], "{means:?}");
    assert_eq!((means[3], means[4]), (0, means[0]));
    let text = service.metrics().await;
    assert!(text.contains("syncvalue_predictions_total{reason=\"no_model\"} 10"), "{text}");
    assert!(text.contains("syncvalue_predictions_total{reason=\"no_population\"} 2"), "{text}");
    service.stop().await;
}

#[tokio::test]
async fn one_customer_by_name_key_or_history_has_one_value() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    service.observe(shop()).await.unwrap();
    let key = Pseudonyms::new(&KEY).of("acme", "c3");
    let history = History { events: (0..10).map(|i| event(i, 10 + 10 * i, 10_000_000)).collect() };
    let requests = vec![
        asking(Subject::Customer("c3".into())),
        asking(Subject::CustomerKey(key.0.to_vec().into())),
        asking(Subject::History(history)),
        asking(Subject::Customer("c20".into())),
    ];
    let batch = service.client.predict_batch(PredictBatchRequest { requests: requests.clone() }).await.unwrap().into_inner().predictions;
    assert_eq!((&batch[0], &batch[0]), (&batch[1], &batch[2]));
    assert_ne!(batch[0], batch[3]);
    let messages =
        vec![PredictStreamRequest { requests: requests[..2].to_vec() }, PredictStreamRequest { requests: requests[2..].to_vec() }];
    let stream = service.client.predict_stream(iter(messages)).await.unwrap().into_inner();
    let answers: Vec<_> = stream.map(|message| message.unwrap().predictions).collect().await;
    assert_eq!(answers, [&batch[..2], &batch[2..]]);
    let mut other = asking(Subject::Customer("c3".into()));
    other.currency = "EUR".into();
    let other = service.client.predict(other).await.unwrap().into_inner().prediction.unwrap();
    assert_eq!(other.fallback_reason(), FallbackReason::NoPopulation);
    service.stop().await;
}

#[tokio::test]
async fn a_stream_that_watches_says_for_how_long_answers_hold_and_who_changed() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    service.observe(shop()).await.unwrap();
    let (sender, questions) = tokio::sync::mpsc::channel(1);
    let mut watching = Request::new(ReceiverStream::new(questions));
    watching.metadata_mut().insert(caller::WATCH, "changes".parse().unwrap());
    let mut answers = service.client.predict_stream(watching).await.unwrap().into_inner();
    let question = || PredictStreamRequest { requests: vec![asking(Subject::Customer("c1".into()))] };
    sender.send(question()).await.unwrap();
    let before = answers.message().await.unwrap().unwrap().predictions;
    assert_eq!(before[0].holds_ms, 1_000, "an estimate's second");
    assert_eq!(service.predict("c1").await.holds_ms, 0, "who does not watch is not told");

    let key = |customer| Pseudonyms::new(&KEY).of("acme", customer).0.to_vec();
    let bought = |customer: &str| ObserveRequest { events: vec![of(customer, event(format!("{customer}-now"), 0, 90_000_000))] };
    service.observe(vec![bought("c1"), bought("c2")]).await.unwrap();
    let mut changed = Vec::new();
    while changed.len() < 2 {
        let told = answers.message().await.unwrap().unwrap();
        assert!(told.predictions.is_empty() && !told.all_changed, "{told:?}");
        changed.extend(told.changed);
    }
    assert_eq!(changed, [key("c1"), key("c2")]);
    sender.send(question()).await.unwrap();
    let after = answers.message().await.unwrap().unwrap().predictions;
    assert_ne!(after[0].mean_micros, before[0].mean_micros, "of what was bought since");

    let erased = EraseCustomerRequest { client: "acme".into(), subject: Some(erase_customer_request::Subject::Customer("c3".into())) };
    service.client.erase_customer(erased).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().changed, [key("c3")]);
    let plan = ModelPlan { client: "acme".into(), ..Default::default() };
    service.client.set_models(SetModelsRequest { plan: Some(plan), rollback: false }).await.unwrap();
    let told = answers.message().await.unwrap().unwrap();
    assert_eq!((told.all_changed, told.changed.len(), told.predictions.len()), (true, 0, 0));

    drop(sender);
    assert_eq!(answers.message().await.unwrap(), None, "the stream ends with its questions");
    for (role, value, reason) in [("tenant", "changes", Reason::NotYours), ("operator", "all", Reason::FieldInvalid)] {
        let mut request = Request::new(iter([question()]));
        for (name, value) in [(caller::ROLE, role), (caller::CLIENT, "acme"), (caller::WATCH, value)] {
            request.metadata_mut().insert(name, value.parse().unwrap());
        }
        let refused = service.client.predict_stream(request).await.unwrap_err();
        assert!(reason.is(&refused), "{refused}");
    }
    service.stop().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_counts_once() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    service.observe(shop()).await.unwrap();
    let before = (service.predict("c1").await, service.predict("c20").await, service.predict("nobody").await);
    service.stop().await;
    let mut service = Service::start(data.path(), None).await;
    assert_eq!(before, (service.predict("c1").await, service.predict("c20").await, service.predict("nobody").await));
    let again = service.observe(shop()).await.unwrap();
    assert!(again.iter().all(|ack| ack.applied == 0 && ack.duplicates >= 10));
    assert_eq!(before, (service.predict("c1").await, service.predict("c20").await, service.predict("nobody").await));
    let model = service.model(0).await.unwrap();
    assert_eq!((model.customers, model.events, model.followed_to), (30, 120, None));
    service.stop().await;
}

#[tokio::test]
async fn a_damaged_event_log_stops_the_start() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    service.observe(shop()).await.unwrap();
    service.stop().await;
    let file = data.path().join("events.wal");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let error = Service::start(data.path(), None).await.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("bad frame at byte 0") && error.contains("good record at byte"), "{error}");
}

#[tokio::test]
async fn refusals_name_the_field_and_its_limit() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    let good = asking(Subject::Customer("c1".into()));
    let at = Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
    let wrong = [
        (PredictRequest { client: "Acme".into(), ..good.clone() }, "requests[1].client: \"Acme\" is not an id"),
        (PredictRequest { currency: "usd".into(), ..good.clone() }, "requests[1].currency"),
        (PredictRequest { subject: None, ..good.clone() }, "requests[1].subject"),
        (PredictRequest { horizon_days: 3_651, ..good.clone() }, "requests[1].horizon_days: 3651; 1 to 3650"),
        (PredictRequest { at, ..good.clone() }, "requests[1].at"),
        (asking(Subject::Customer(String::new())), "requests[1].customer: an id of 0 bytes"),
        (asking(Subject::CustomerKey(vec![1; 15].into())), "requests[1].customer_key: 15 bytes; 16"),
        (asking(Subject::History(History { events: vec![event("", 1, 1)] })), "requests[1].history.events[0].event_id"),
    ];
    for (request, message) in wrong {
        let status = service.client.predict_batch(PredictBatchRequest { requests: vec![good.clone(), request] }).await.unwrap_err();
        assert!(Reason::FieldInvalid.is(&status) && status.message().starts_with(message), "{}", status.message());
    }
    let mut alien =
        Request::new(PredictBatchRequest { requests: vec![good.clone(), PredictRequest { client: "globex".into(), ..good.clone() }] });
    alien.metadata_mut().insert(caller::ROLE, "tenant".parse().unwrap());
    alien.metadata_mut().insert(caller::CLIENT, "acme".parse().unwrap());
    assert!(Reason::NotYours.is(&service.client.predict_batch(alien).await.unwrap_err()));
    let status = service.client.predict_batch(PredictBatchRequest { requests: vec![good; 1_025] }).await.unwrap_err();
    assert!(Reason::TooMany.is(&status) && status.message().contains("at most 1024"), "{status}");
    let wrong = [
        (Event { event_id: "e".repeat(64), ..event(1, 1, 1) }, "events[1].event.event_id: 64 bytes"),
        (Event { occurred_at: None, ..event(1, 1, 1) }, "events[1].event.occurred_at"),
        (event(1, -2, 1), "events[1].event.occurred_at: 172800 s ahead of now"),
        (event(1, 1, i64::MIN), "events[1].event.value_micros"),
    ];
    for (event_, message) in wrong {
        let events = vec![of("c1", event(0, 1, 1)), of("c1", event_)];
        let status = service.observe(vec![ObserveRequest { events }]).await.unwrap_err();
        assert!(Reason::FieldInvalid.is(&status) && status.message().starts_with(message), "{}", status.message());
    }
    assert_eq!(service.model(0).await.unwrap().events, 0, "a message is taken whole or not at all");
    service.stop().await;
}

#[tokio::test]
async fn a_tenant_sees_itself_alone() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    fn as_tenant<T>(client: &'static str, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(caller::ROLE, "tenant".parse().unwrap());
        request.metadata_mut().insert(caller::CLIENT, client.parse().unwrap());
        request
    }
    let question = || asking(Subject::Customer("c1".into()));
    assert!(service.client.predict(as_tenant("acme", question())).await.is_ok());
    assert!(Reason::NotYours.is(&service.client.predict(as_tenant("globex", question())).await.unwrap_err()));
    let status = service.client.observe(as_tenant("globex", iter(shop()))).await.unwrap().into_inner().next().await.unwrap().unwrap_err();
    assert!(Reason::NotYours.is(&status));
    assert!(Reason::NotYours.is(&service.client.get_model(as_tenant("acme", GetModelRequest::default())).await.unwrap_err()));
    service.stop().await;
}

#[tokio::test]
async fn an_open_stream_does_not_hold_up_the_shutdown() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    let (sender, questions) = tokio::sync::mpsc::channel(1);
    let mut answers = service.client.predict_stream(ReceiverStream::new(questions)).await.unwrap().into_inner();
    sender.send(PredictStreamRequest { requests: vec![asking(Subject::Customer("c1".into()))] }).await.unwrap();
    assert_eq!(answers.message().await.unwrap().unwrap().predictions.len(), 1);
    let stopped = tokio::time::timeout(kiki::runtime::DRAIN / 2, service.stop()).await;
    assert!(stopped.is_ok());
    assert!(answers.message().await.is_ok_and(|answer| answer.is_none()));
}

// ---- following SyncShield's log

fn leaf(index: u64, body: Body) -> Leaf {
    Leaf {
        log_id: LOG.into(),
        index,
        client: "acme".into(),
        recorded_at: Some(UnixMicros(NOW).into()),
        body: Some(body),
        ..Leaf::default()
    }
}

fn outcome(index: u64, customer: &str, event: &Event) -> Leaf {
    leaf(
        index,
        Body::Outcome(Outcome {
            event_id: event.event_id.clone(),
            occurred_at: event.occurred_at,
            customer: Pseudonyms::new(&KEY).of("acme", customer).0.to_vec().into(),
            currency: "USD".into(),
            value_micros: event.value_micros,
            ..Outcome::default()
        }),
    )
}

fn other(index: u64) -> Leaf {
    leaf(index, Body::Voids(VoidBatch { lease_id: 1, campaign: "c".into(), voids: vec![Void::default()] }))
}

/// Outcomes of 300 customers, more than fit one record, with other leaves in between.
fn log() -> Vec<Leaf> {
    let outcomes = (0..600).map(|i| if i % 2 == 0 { outcome(i, &format!("c{i}"), &event(i, 600 - i as i64, 5_000_000)) } else { other(i) });
    outcomes.collect()
}

#[tokio::test]
async fn outcomes_of_the_log_count_once_across_restarts_of_both_sides() {
    let data = tempfile::tempdir().unwrap();
    let (shield, address, stop) = Shield::start(log()).await;
    let mut service = Service::start(data.path(), Some(address)).await;
    let model = service.model(600).await.unwrap();
    assert_eq!((model.customers, model.events, model.followed_to.unwrap().index), (300, 300, 600));
    // The same purchase by Observe is the same purchase.
    let again = ObserveRequest { events: vec![of("c0", event(0, 600, 5_000_000)), of("c0", event("new", 1, 5_000_000))] };
    assert_eq!(service.observe(vec![again]).await.unwrap(), [ObserveResponse { applied: 1, duplicates: 1 }]);
    service.stop().await;
    stop.cancel();
    assert_eq!(*shield.began.lock().unwrap(), [0]);

    let mut longer = log();
    longer.push(outcome(600, "c1000", &event("late", 1, 5_000_000)));
    let (shield, address, stop) = Shield::start(longer).await;
    let mut service = Service::start(data.path(), Some(address)).await;
    let model = service.model(601).await.unwrap();
    assert_eq!((model.customers, model.events), (301, 302));
    // Leaf 599 is no outcome: its position was not written, and it was read again; nothing before it was.
    assert_eq!(*shield.began.lock().unwrap(), [599]);
    // A stream that goes on.
    shield.leaves.send_modify(|leaves| leaves.extend([other(601), outcome(602, "c1000", &event("more", 0, 5_000_000))]));
    assert_eq!(service.model(603).await.unwrap().events, 303);
    service.stop().await;
    stop.cancel();
}

/// A customer who was acquired by the purchase of the leaf before.
fn conversion(index: u64, customer: &str, purchase: &Event, predicted_ltv_micros: i64) -> Leaf {
    leaf(
        index,
        Body::Conversion(Conversion {
            event_id: purchase.event_id.clone(),
            occurred_at: purchase.occurred_at,
            customer: Pseudonyms::new(&KEY).of("acme", customer).0.to_vec().into(),
            campaign: "spring".into(),
            currency: "USD".into(),
            predicted_ltv_micros,
            horizon_days: 30,
            ..Conversion::default()
        }),
    )
}

/// Ten customers who are acquired for 4 each, spend 6 within the horizon and more behind it; 12.5 was predicted for each. The last leaf is
/// of another customer, when all horizons are over.
fn acquired() -> Vec<Leaf> {
    let mut leaves = Vec::new();
    for customer in (0..10).map(|i| format!("c{i}")) {
        let purchase = event(format!("{customer}-first"), 100, 4_000_000);
        leaves.push(outcome(leaves.len() as u64, &customer, &purchase));
        leaves.push(conversion(leaves.len() as u64, &customer, &purchase, 12_500_000));
    }
    for (day, value) in [(90, 6_000_000), (60, 50_000_000)] {
        for customer in (0..10).map(|i| format!("c{i}")) {
            let purchase = event(format!("{customer}-{day}"), day, value);
            leaves.push(outcome(leaves.len() as u64, &customer, &purchase));
        }
    }
    leaves
}

#[tokio::test]
async fn what_was_predicted_is_held_against_what_came_also_after_a_restart() {
    let data = tempfile::tempdir().unwrap();
    let (_, address, stop) = Shield::start(acquired()).await;
    for _ in 0..2 {
        let service = Service::start(data.path(), Some(address.clone())).await;
        let text = service.metrics_at(40).await;
        // 125 predicted, 100 realised.
        assert!(text.contains("syncvalue_accuracy_rate{currency=\"USD\"} 0.75"), "{text}");
        assert!(text.contains("syncvalue_matured_customers{currency=\"USD\"} 10"), "{text}");
        for decile in 1..=10 {
            let line = format!("syncvalue_calibration_ratio{{currency=\"USD\",decile=\"{decile}\"}} 1.25");
            assert!(text.contains(&line), "{text}");
        }
        service.stop().await;
    }
    stop.cancel();
}

#[tokio::test]
async fn attributed_value_counts_by_conversion() {
    let data = tempfile::tempdir().unwrap();
    let (_, address, stop) = Shield::start(acquired()).await;
    let mut service = Service::start(data.path(), Some(address)).await;
    service.model(40).await.unwrap();
    // What is followed is kept first, and counted then.
    let mut text = service.metrics().await;
    while !text.contains("syncvalue_followed_index 40") {
        text = service.metrics().await;
    }
    assert!(text.contains("syncvalue_predicted_ltv_total{campaign=\"spring\",client=\"acme\",currency=\"USD\"} 125"), "{text}");
    service.stop().await;
    stop.cancel();
}

#[tokio::test]
async fn a_log_with_a_gap_is_not_followed_beyond_it() {
    let data = tempfile::tempdir().unwrap();
    let (_, address, stop) = Shield::start(vec![other(0), outcome(2, "c1", &event(1, 1, 1))]).await;
    let mut service = Service::start(data.path(), Some(address)).await;
    let mut request = Request::new(GetModelRequest { followed_to: Some(Position { log_id: LOG.into(), index: 3 }) });
    request.set_timeout(std::time::Duration::from_millis(300));
    let status = service.client.get_model(request).await.unwrap_err();
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status}");
    assert_eq!(service.model(0).await.unwrap().events, 0);
    service.stop().await;
    stop.cancel();
}

#[tokio::test]
async fn waiting_for_a_log_that_nobody_follows_is_refused_at_once() {
    let data = tempfile::tempdir().unwrap();
    let mut service = Service::start(data.path(), None).await;
    assert!(Reason::NotReady.is(&service.model(1).await.unwrap_err()));
    service.stop().await;
}
