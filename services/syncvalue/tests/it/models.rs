//! Models over gRPC: which one answers, what it says, and how that changes while calls go on.

use std::collections::BTreeSet;
use std::path::Path;

use kiki::clock::{Clock, UnixMicros, VirtualClock};
use kiki::ids::Key;
use kiki::leaf::PredictionStatus;
use kiki::pb::syncvalue::v1::predict_request::Subject;
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::pb::syncvalue::v1::*;
use kiki::runtime::Channel;
use kiki::runtime::{Listeners, channel};
use kiki::status::Reason;
use syncvalue::Config;
use syncvalue::domain::customer::Day;
use syncvalue::domain::model::Model;
use syncvalue::store::folder::{self, Note};
use syncvalue::train::data::{Protocol, buyers};
use syncvalue::train::learn::{Kind, Settings};
use syncvalue::train::random::Random;
use syncvalue::train::{Prepared, predict, settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_stream::iter;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};

const DAY: i64 = 86_400_000_000;
/// The day on which the tests ask: eleven days into a week of the model's, so that its last week is open.
const TODAY: i64 = 20_454;
const PROTOCOL: Protocol = Protocol { start: TODAY - 151, cut: TODAY - 11, horizon_days: 70 };
const KEY: Key = Key::new([7; 32]);

/// Customers of whom every third buys every two weeks, up to today.
fn shop() -> Vec<(String, Vec<Day>)> {
    let mut random = Random(3);
    let customer = |i: u64| {
        let first = PROTOCOL.start + (random.bits() % 70) as i64;
        let spend_micros = if i.is_multiple_of(6) { 100_000_000 } else { 10_000_000 };
        let times = if i.is_multiple_of(3) { 20 } else { 1 };
        let day = |n: i64| Day { day: first + n * 14 + (random.bits() % 5) as i64, items: 1 + (i % 3) as u32, spend_micros };
        (format!("c{i}"), (0..times).map(day).filter(|day| day.day <= TODAY).collect())
    };
    (0..240).map(customer).collect()
}

/// Trains quickly: it has to say something, not to be good.
fn train(folder: &Path, seed: u64, currency: Option<&str>) -> Model {
    let log = shop().into_iter().collect();
    let buyers = buyers(&log, &PROTOCOL, |_| false);
    let kind = |dilations: &[usize]| Kind { dilations: dilations.into(), own: 1.0 };
    let settings = Settings { members: vec![kind(&[1, 2]), kind(&[1])], steps: 40, batch: 32, checks: 2, ..settings() };
    let prepared = Prepared::new(&buyers, &PROTOCOL, settings, seed).unwrap();
    let model = prepared.model((0..2).map(|member| prepared.member(member, |_| ()).member).collect());
    let note = Note { currency: currency.map(Into::into), inputs: prepared.spreads(), ..Note::default() };
    folder::save(&model, note, folder).unwrap();
    model
}

struct Service {
    client: SyncValueServiceClient<Channel>,
    http: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), syncvalue::Error>>,
}

impl Service {
    /// With the models in `data`/models.
    async fn start(data: &Path, model: Option<&str>) -> Self {
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
        let http = listeners.http.local_addr().unwrap().to_string();
        let config = Config { model: model.map(Into::into), ..Config::new(data.into(), KEY) };
        let shutdown = CancellationToken::new();
        let clock = Clock::Virtual(VirtualClock::at(UnixMicros(TODAY * DAY + DAY / 2)));
        let task = tokio::spawn(syncvalue::serve(listeners, config, clock, shutdown.clone()));
        Self { client: SyncValueServiceClient::new(channel(&address).unwrap()), http, shutdown, task }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn observe(&mut self, events: Vec<ObservedEvent>) -> ObserveResponse {
        let messages: Vec<_> = events.chunks(1_000).map(|events| ObserveRequest { events: events.to_vec() }).collect();
        let mut acks = self.client.observe(iter(messages)).await.unwrap().into_inner();
        let mut sum = ObserveResponse::default();
        while let Some(ack) = acks.message().await.unwrap() {
            sum = ObserveResponse { applied: sum.applied + ack.applied, duplicates: sum.duplicates + ack.duplicates };
        }
        sum
    }

    async fn ask(&mut self, request: PredictRequest) -> Prediction {
        self.client.predict(request).await.unwrap().into_inner().prediction.unwrap()
    }

    async fn metrics(&self) -> String {
        let mut tcp = TcpStream::connect(&self.http).await.unwrap();
        tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        tcp.read_to_string(&mut text).await.unwrap();
        text
    }

    async fn set(&mut self, plan: ModelPlan) -> Result<SetModelsResponse, Status> {
        Ok(self.client.set_models(SetModelsRequest { plan: Some(plan), rollback: false }).await?.into_inner())
    }
}

fn asking(customer: impl Into<String>) -> PredictRequest {
    let subject = Some(Subject::Customer(customer.into()));
    PredictRequest { client: "acme".into(), currency: "USD".into(), subject, horizon_days: 70, ..Default::default() }
}

fn event(id: String, day: &Day) -> Event {
    let at = UnixMicros(day.day * DAY + DAY / 3);
    Event { event_id: id, occurred_at: Some(at.into()), value_micros: day.spend_micros, items: day.items }
}

fn of(customer: &str, event: Event) -> ObservedEvent {
    ObservedEvent { client: "acme".into(), customer: customer.into(), currency: "USD".into(), event: Some(event) }
}

/// The shop's purchases in the order of time.
fn events() -> Vec<ObservedEvent> {
    let shop = shop();
    let mut all: Vec<_> = shop.iter().flat_map(|(id, days)| days.iter().map(move |day| (day.day, id, day))).collect();
    all.sort_by_key(|(day, id, _)| (*day, *id));
    all.into_iter().map(|(day, id, of_day)| of(id, event(format!("{id}-{day}"), of_day))).collect()
}

#[tokio::test]
async fn it_says_what_the_model_says_offline_whenever_it_was_asked_before() {
    let data = tempfile::tempdir().unwrap();
    let model = train(&data.path().join("models/first"), 1, None);
    let shop = shop();
    let days: Vec<&[Day]> = shop.iter().map(|(_, days)| &**days).collect();
    let offline = predict(&model, &days, TODAY + 1);
    let mut service = Service::start(data.path(), Some("first")).await;
    let events = events();
    let (early, late) = events.split_at(events.len() / 2);
    service.observe(early.to_vec()).await;
    let requests: Vec<_> = shop.iter().map(|(id, _)| asking(id)).collect();
    let batch = PredictBatchRequest { requests: requests.clone() };
    let before = service.client.predict_batch(batch.clone()).await.unwrap().into_inner().predictions;
    service.observe(late.to_vec()).await;
    for _ in 0..2 {
        let now = service.client.predict_batch(batch.clone()).await.unwrap().into_inner().predictions;
        for (((id, days), prediction), forecast) in shop.iter().zip(&now).zip(&offline) {
            assert_eq!((prediction.status(), &*prediction.model), (PredictionStatus::Ok, &*model.id), "{id}");
            let micros = |units: f64| (units * 1e6) as i64;
            assert_eq!(prediction.mean_micros, micros(forecast.mean), "{id}");
            assert_eq!(prediction.median_micros, micros(forecast.median), "{id}");
            assert_eq!((prediction.q05_micros, prediction.q95_micros), (micros(forecast.q05), micros(forecast.q95)), "{id}");
            assert_eq!(prediction.p_active_ppb, (forecast.active * 1e9) as u32, "{id}");
            let since = (TODAY - days.last().unwrap().day) * 86_400 + 43_200 - 28_800;
            assert_eq!(i64::from(prediction.staleness_seconds), since, "{id}");
            // A history that nobody observed is worth the same.
            let history = History { events: days.iter().map(|day| event(day.day.to_string(), day)).collect() };
            let told = PredictRequest { subject: Some(Subject::History(history)), ..asking(id) };
            assert_eq!(&service.ask(told).await, prediction, "{id}");
        }
        assert_ne!(before, now);
    }
    let unknown = service.ask(asking("nobody")).await;
    assert_eq!((unknown.status(), unknown.fallback_reason()), (PredictionStatus::Fallback, FallbackReason::UnknownCustomer));
    // A longer horizon is worth more, and both are the model's.
    let [short, long] = [30, 200].map(|horizon_days| PredictRequest { horizon_days, ..asking("c3") });
    let (short, long) = (service.ask(short).await, service.ask(long).await);
    assert!(0 < short.mean_micros && 2 * short.mean_micros < long.mean_micros && long.status() == PredictionStatus::Ok);
    service.stop().await;
}

#[tokio::test]
async fn a_late_purchase_counts_where_it_belongs_and_an_erased_customer_is_nobody() {
    let data = tempfile::tempdir().unwrap();
    let model = train(&data.path().join("models/first"), 1, None);
    let mut service = Service::start(data.path(), Some("first")).await;
    let (id, mut days) = shop().swap_remove(3);
    service.observe(events()).await;
    service.ask(asking(&id)).await;
    let late = Day { day: days[2].day + 1, items: 1, spend_micros: 77_000_000 };
    assert_eq!(service.observe(vec![of(&id, event("late".into(), &late))]).await.applied, 1);
    assert_eq!(service.observe(vec![of(&id, event("late".into(), &late))]).await.duplicates, 1);
    days.insert(3, late);
    let refund = Day { day: days[5].day, items: 0, spend_micros: -4_000_000 };
    service.observe(vec![of(&id, event("refund".into(), &refund))]).await;
    days[5].spend_micros -= 4_000_000;
    let expected = (predict(&model, &[&days], TODAY + 1)[0].mean * 1e6) as i64;
    assert_eq!(service.ask(asking(&id)).await.mean_micros, expected);

    let erase = |customer: &str| EraseCustomerRequest {
        client: "acme".into(),
        subject: Some(erase_customer_request::Subject::Customer(customer.into())),
    };
    assert_eq!(service.client.erase_customer(erase(&id)).await.unwrap().into_inner().erased, 1);
    assert_eq!(service.client.erase_customer(erase(&id)).await.unwrap().into_inner().erased, 0);
    assert_eq!(service.ask(asking(&id)).await.fallback_reason(), FallbackReason::UnknownCustomer);
    assert_eq!(service.client.get_model(GetModelRequest::default()).await.unwrap().into_inner().customers, 239);
    service.stop().await;
    // The next start takes what was known of it off the disk.
    let wal = data.path().join("events.wal");
    let before = std::fs::metadata(&wal).unwrap().len();
    let mut service = Service::start(data.path(), Some("first")).await;
    assert_eq!(service.ask(asking(&id)).await.fallback_reason(), FallbackReason::UnknownCustomer);
    assert_eq!(service.ask(asking("c4")).await.status(), PredictionStatus::Ok);
    service.stop().await;
    let bytes = std::fs::read(&wal).unwrap();
    let pseudonym = kiki::ids::Pseudonyms::new(&KEY).of("acme", &id).0;
    assert!((bytes.len() as u64) < before && !bytes.windows(16).any(|some| some == pseudonym));
}

#[tokio::test]
async fn plans_say_who_answers_and_can_be_taken_back() {
    let data = tempfile::tempdir().unwrap();
    let models = data.path().join("models");
    let first = train(&models.join("first"), 1, None);
    let second = train(&models.join("second"), 2, Some("USD"));
    let mut service = Service::start(data.path(), None).await;
    service.observe(events()).await;
    assert_eq!(service.ask(asking("c3")).await.fallback_reason(), FallbackReason::NoModel);

    let serving = |name: &str| ModelPlan { serving: name.into(), ..Default::default() };
    let set = service.set(serving("first")).await.unwrap();
    assert_eq!((set.plan.unwrap().version, &*set.models[0].id), (1, &*first.id));
    assert_eq!(service.ask(asking("c3")).await.model, first.id);

    // Half of the customers of one campaign, all of another, none of the rest.
    let plan = ModelPlan {
        version: 1,
        candidate: "second".into(),
        campaign_share_ppm: [("spring".to_owned(), 500_000), ("summer".to_owned(), 1_000_000)].into(),
        shadow_ppm: 1_000_000,
        ..serving("first")
    };
    service.set(plan.clone()).await.unwrap();
    let mut by = async |campaign: &str| {
        let requests = shop().iter().map(|(id, _)| PredictRequest { campaign: campaign.into(), ..asking(id) }).collect();
        let answers = service.client.predict_batch(PredictBatchRequest { requests }).await.unwrap().into_inner().predictions;
        answers.iter().filter(|prediction| prediction.model == second.id).count()
    };
    assert_eq!((by("summer").await, by("winter").await), (240, 0));
    let half = by("spring").await;
    assert!((90..150).contains(&half), "{half}");
    assert_eq!(by("spring").await, half);
    // In another currency the candidate knows nothing.
    let euros = |mut observed: ObservedEvent| {
        observed.currency = "EUR".into();
        observed
    };
    service.observe(events().into_iter().map(euros).collect()).await;
    let asked = PredictRequest { currency: "EUR".into(), campaign: "summer".into(), ..asking("c3") };
    assert_eq!(service.ask(asked).await.model, first.id);

    // A plan of a client's own, and back.
    service.set(ModelPlan { client: "acme".into(), ..serving("second") }).await.unwrap();
    assert_eq!(service.ask(asking("c3")).await.model, second.id);
    let own = ModelPlan { client: "acme".into(), ..Default::default() };
    service.client.set_models(SetModelsRequest { plan: Some(own), rollback: true }).await.unwrap();
    assert_eq!(service.ask(asking("c3")).await.model, first.id);
    service.set(ModelPlan { client: "acme".into(), ..serving("second") }).await.unwrap();
    let stale = service.set(plan.clone()).await.unwrap_err();
    assert!(Reason::OutOfOrder.is(&stale) && stale.message().contains("plan.version: 1; the last is 2"), "{stale}");
    let back = SetModelsRequest { plan: None, rollback: true };
    let back = service.client.set_models(back).await.unwrap().into_inner().plan.unwrap();
    assert_eq!((back.version, &*back.serving, &*back.candidate), (3, "first", ""));
    let info = service.client.get_model(GetModelRequest::default()).await.unwrap().into_inner();
    assert_eq!((info.plans.len(), info.status(), &*info.model), (2, PredictionStatus::Ok, &*first.id));
    service.stop().await;
    let mut service = Service::start(data.path(), None).await;
    assert_eq!(service.ask(asking("c3")).await.model, second.id);
    service.stop().await;
}

#[tokio::test]
async fn a_plan_that_is_wrong_changes_nothing() {
    let data = tempfile::tempdir().unwrap();
    train(&data.path().join("models/first"), 1, None);
    let mut service = Service::start(data.path(), Some("first")).await;
    let good = ModelPlan { serving: "first".into(), candidate: "first".into(), ..Default::default() };
    let wrong = [
        (ModelPlan { serving: "../first".into(), ..good.clone() }, "serving: \"../first\""),
        (ModelPlan { serving: "none".into(), ..good.clone() }, "serving: "),
        (ModelPlan { candidate_share_ppm: 1_000_001, ..good.clone() }, "candidate_share_ppm: 1000001; at most 1000000"),
        (ModelPlan { candidate: String::new(), shadow_ppm: 1, ..good.clone() }, "shadow_ppm: there is no candidate"),
        (ModelPlan { client: "No!".into(), ..good.clone() }, "client: "),
        (ModelPlan { currency: "usd".into(), ..good.clone() }, "currency: "),
    ];
    for (plan, why) in wrong {
        let status = service.set(plan).await.unwrap_err();
        assert!(status.message().starts_with(why), "{status}");
    }
    let mut tenant = Request::new(SetModelsRequest { plan: Some(good), rollback: false });
    tenant.metadata_mut().insert(kiki::caller::ROLE, "tenant".parse().unwrap());
    tenant.metadata_mut().insert(kiki::caller::CLIENT, "acme".parse().unwrap());
    assert!(Reason::NotYours.is(&service.client.set_models(tenant).await.unwrap_err()));
    service.stop().await;
    let missing = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let config = Config { model: Some("none".into()), ..Config::new(data.path().into(), KEY) };
    let error = syncvalue::serve(missing, config, Clock::System, CancellationToken::new()).await.unwrap_err();
    assert!(error.to_string().contains("none"), "{error}");
}

#[tokio::test]
async fn no_call_is_lost_while_models_change() {
    let data = tempfile::tempdir().unwrap();
    let ids = ["first", "second"].map(|name| train(&data.path().join("models").join(name), name.len() as u64, None).id);
    let mut service = Service::start(data.path(), Some("first")).await;
    service.observe(events()).await;
    let (stop, client) = (CancellationToken::new(), service.client.clone());
    let asking = {
        let stop = stop.clone();
        tokio::spawn(async move {
            let (mut client, mut seen, mut asked) = (client, BTreeSet::new(), 0);
            while !stop.is_cancelled() {
                let prediction = client.predict(asking(format!("c{}", asked % 240))).await.unwrap().into_inner().prediction.unwrap();
                assert_eq!(prediction.status(), PredictionStatus::Ok);
                seen.insert(prediction.model);
                asked += 1;
            }
            seen
        })
    };
    for version in 0..20_u64 {
        let serving = ["second", "first"][version as usize % 2].to_owned();
        service.set(ModelPlan { serving, version, ..Default::default() }).await.unwrap();
        // Each is asked at least once.
        service.ask(self::asking("c3")).await;
    }
    stop.cancel();
    assert_eq!(asking.await.unwrap(), ids.into());
    service.stop().await;
}

#[tokio::test]
async fn others_are_answered_while_a_message_takes_years_of_steps() {
    let data = tempfile::tempdir().unwrap();
    train(&data.path().join("models/first"), 1, None);
    let mut service = Service::start(data.path(), Some("first")).await;
    service.observe(events()).await;
    let first = service.ask(asking("c3")).await;
    // Everybody, ten years after the last purchase, in a market where nothing is kept yet.
    let at = Some(UnixMicros((TODAY + 3_600) * DAY).into());
    let requests: Vec<_> = shop().iter().cycle().take(1_024).map(|(id, _)| PredictRequest { at, ..asking(id) }).collect();
    let mut client = service.client.clone();
    let batch = tokio::spawn(async move { client.predict_batch(PredictBatchRequest { requests }).await.unwrap().into_inner().predictions });
    let mut between = 0;
    while !batch.is_finished() {
        assert_eq!(service.ask(asking("c3")).await, first);
        between += 1;
    }
    assert!(batch.await.unwrap().iter().all(|prediction| prediction.status() == PredictionStatus::Ok));
    assert!(between > 100, "{between}");
    service.stop().await;
}

#[tokio::test]
async fn metrics_say_how_models_compare_and_whether_customers_changed() {
    let data = tempfile::tempdir().unwrap();
    let model = train(&data.path().join("models/first"), 1, None);
    train(&data.path().join("models/second"), 2, None);
    let mut service = Service::start(data.path(), None).await;
    service.observe(events()).await;
    let plan = ModelPlan { serving: "first".into(), candidate: "second".into(), shadow_ppm: 1_000_000, ..Default::default() };
    service.set(plan).await.unwrap();
    let at = |days: i64| Some(UnixMicros((TODAY + days) * DAY).into());
    for days in [0, 1, 700] {
        let requests = shop().iter().map(|(id, _)| PredictRequest { at: at(days), ..asking(id) }).collect();
        service.client.predict_batch(PredictBatchRequest { requests }).await.unwrap();
    }
    let text = service.metrics().await;
    assert!(text.contains("syncvalue_shadow_log_ratio_count 720"), "{text}");
    assert!(text.contains("syncvalue_predictions_total{reason=\"ok\"} 720"), "{text}");
    let psi = |input: &str| {
        let name = format!("syncvalue_input_psi{{input=\"{input}\",model=\"{}\"}} ", model.id);
        text.lines().find_map(|line| line.strip_prefix(&*name)).unwrap().parse::<f64>().unwrap()
    };
    // A third of the questions is of two years later: nobody was away that long; what was spent at first is as it was.
    assert!(psi("recency") > 0.25 && psi("first_spend") < 0.1, "{text}");
    service.stop().await;
}

#[tokio::test]
async fn an_explanation_adds_up() {
    let data = tempfile::tempdir().unwrap();
    let model = train(&data.path().join("models/first"), 1, None);
    let mut service = Service::start(data.path(), Some("first")).await;
    service.observe(events()).await;
    let (id, days) = shop().swap_remove(3);
    let explain = |customer: &str| ExplainRequest { request: Some(asking(customer)) };
    let explained = service.client.explain(explain(&id)).await.unwrap().into_inner();
    let prediction = explained.prediction.unwrap();
    assert_eq!(prediction, service.ask(asking(&id)).await);
    let product: f64 = explained.factors.iter().map(|factor| factor.factor).product();
    assert!((product * 1e6 / prediction.mean_micros as f64 - 1.0).abs() < 1e-6, "{product} {prediction:?}");
    assert_eq!(explained.factors.len(), 26);
    assert_eq!(explained.days.len(), days.len());
    for (i, effect) in explained.days.iter().enumerate() {
        let mut others = days.clone();
        others.remove(days.len() - 1 - i);
        let without = predict(&model, &[&others], TODAY + 1)[0].mean;
        // The question is of a day that the newest purchase may not be before.
        assert_eq!(effect.mean_without_micros, (without * 1e6) as i64);
    }
    let nobody = service.client.explain(explain("nobody")).await.unwrap().into_inner();
    assert!(nobody.factors.is_empty() && nobody.days.is_empty());
    service.stop().await;
}
