//! The suite.

use kiki::leaf::PredictionStatus;
use kiki::pb::syncvalue::v1::predict_request::Subject;
use kiki::pb::syncvalue::v1::*;
use tempfile::TempDir;

use super::Engine;
use super::world::*;
use crate::masters::{Cluster, ask};
use crate::server::Server;

/// A service under a case, whose client is the case's own.
struct Case {
    setup: Setup,
    of: String,
    data: TempDir,
    service: Service,
}

impl Case {
    async fn begin(engine: &Engine, of: &str) -> Self {
        let (setup, data) = (Setup { states: engine.urls(), model: true, shield: None }, tempfile::tempdir().unwrap());
        let service = Service::start(data.path(), &setup).await;
        Self { setup, of: of.into(), data, service }
    }

    async fn observe(&mut self, events: impl IntoIterator<Item = (&str, Event)>) -> (u32, u32) {
        let events = events.into_iter().map(|(customer, event)| (customer.to_owned(), event));
        let acknowledged = observe(&mut self.service.client, vec![message(&self.of, events)]).await.unwrap();
        (acknowledged[0].applied, acknowledged[0].duplicates)
    }

    async fn predict(&mut self, customer: &str) -> Prediction {
        predict(&mut self.service.client, &self.of, customer).await
    }

    async fn is_worth(&mut self, customer: &str, events: &[Event]) {
        are_worth_their_events(&mut self.service.client, &self.of, &[(customer.into(), events.to_vec())]).await;
    }
}

async fn what_is_sent_again_counts_once(mut case: Case) {
    let events = [event(1, 90, 5_000_000), event(2, 60, 7_000_000), event(3, 30, 9_000_000)];
    let all = || events.iter().map(|event| ("c", event.clone()));
    assert_eq!(case.observe(all()).await, (3, 0));
    assert_eq!(case.observe(all()).await, (0, 3));
    assert_eq!(case.observe(all().chain(all()).chain([("c", event(4, 20, 1_000_000))])).await, (1, 6));
    case.is_worth("c", &[&events[..], &[event(4, 20, 1_000_000)]].concat()).await;
}

async fn late_events_count_on_their_day(mut case: Case) {
    let events = [event(1, 90, 5_000_000), event(2, 60, 7_000_000), event(3, 60, 2_000_000), event(4, 30, 9_000_000)];
    for i in [3, 0, 2, 1] {
        assert_eq!(case.observe([("late", events[i].clone())]).await, (1, 0));
    }
    assert_eq!(case.observe([2, 3, 1, 0].map(|i| ("mixed", events[i].clone()))).await, (4, 0));
    case.observe(events.iter().map(|event| ("ordered", event.clone()))).await;
    for customer in ["late", "mixed", "ordered"] {
        case.is_worth(customer, &events).await;
    }
    assert_eq!(case.predict("late").await.staleness_seconds, 30 * 86_400);
}

async fn a_refund_takes_value_alone(mut case: Case) {
    let bought = [event(1, 90, 50_000_000), event(2, 60, 70_000_000)];
    case.observe(["back", "kept"].into_iter().flat_map(|customer| bought.clone().map(|event| (customer, event)))).await;
    let kept = case.predict("kept").await;
    assert_eq!(case.observe([("back", event("r", 50, -60_000_000))]).await, (1, 0));
    let back = case.predict("back").await;
    assert!(back.mean_micros < kept.mean_micros && back.staleness_seconds == kept.staleness_seconds, "{back:?} {kept:?}");
    assert_eq!(case.predict("kept").await, kept);
}

async fn currencies_are_kept_apart(mut case: Case) {
    let mut both = message(&case.of, [("c".into(), event(1, 90, 5_000_000)), ("c".into(), event(1, 90, 5_000_000))]);
    both.events[1].currency = "JPY".into();
    let acknowledged = observe(&mut case.service.client, vec![both]).await.unwrap();
    assert_eq!(acknowledged, [ObserveResponse { applied: 2, duplicates: 0 }]);
    case.observe([("c", event(2, 30, 500_000_000))]).await;
    let yen = PredictRequest { currency: "JPY".into(), ..asking(&case.of, Subject::Customer("c".into())) };
    let requests = vec![yen, asking(&case.of, Subject::Customer("c".into()))];
    let both = case.service.client.predict_batch(PredictBatchRequest { requests }).await.unwrap().into_inner().predictions;
    assert!(both.iter().all(|prediction| prediction.status() == PredictionStatus::Ok), "{both:?}");
    assert!(both[1].mean_micros > 2 * both[0].mean_micros, "{both:?}");
    assert_eq!([90, 30].map(|days| days * 86_400), [both[0].staleness_seconds, both[1].staleness_seconds]);
}

async fn who_is_erased_is_not_known_in_any_currency(mut case: Case) {
    let mut both = message(&case.of, ["gone", "gone", "other"].map(|customer| (customer.to_owned(), event(1, 40, 5_000_000))));
    both.events[1].currency = "CHF".into();
    observe(&mut case.service.client, vec![both]).await.unwrap();
    let other = case.predict("other").await;
    assert_eq!(case.predict("gone").await, other);
    let subject = Some(erase_customer_request::Subject::Customer("gone".into()));
    let request = EraseCustomerRequest { client: case.of.clone(), subject };
    for known in [2, 0] {
        let erased = case.service.client.erase_customer(request.clone()).await.unwrap().into_inner();
        assert_eq!(erased.erased, known);
    }
    for currency in ["USD", "CHF"] {
        let request = PredictRequest { currency: currency.into(), ..asking(&case.of, Subject::Customer("gone".into())) };
        let gone = case.service.client.predict(request).await.unwrap().into_inner().prediction.unwrap();
        assert_eq!(gone.status(), PredictionStatus::Fallback, "{currency}");
    }
    assert_eq!(case.predict("other").await, other);
    // The same event is a new customer's now.
    assert_eq!(case.observe([("gone", event(1, 40, 5_000_000))]).await, (1, 0));
    case.is_worth("gone", &[event(1, 40, 5_000_000)]).await;
}

async fn what_was_acknowledged_is_there_after_a_restart(mut case: Case) {
    let histories: Vec<(String, Vec<Event>)> =
        (0..40).map(|c| (format!("c{c}"), (0..=c % 5).map(|i| event(i, 100 - 11 * i, 4_000_000 + c)).collect())).collect();
    let messages: Vec<_> =
        histories.iter().map(|(customer, events)| message(&case.of, events.iter().map(|e| (customer.clone(), e.clone())))).collect();
    observe(&mut case.service.client, messages.clone()).await.unwrap();
    let before = case.predict("c4").await;
    case.service.stop().await;
    let mut service = Service::start(case.data.path(), &case.setup).await;
    assert_eq!(predict(&mut service.client, &case.of, "c4").await, before);
    let again = observe(&mut service.client, messages).await.unwrap();
    assert!(again.iter().all(|ack| ack.applied == 0 && ack.duplicates > 0), "{again:?}");
    are_worth_their_events(&mut service.client, &case.of, &histories).await;
    service.stop().await;
}

async fn acknowledgements_come_in_the_order_of_the_messages(mut case: Case) {
    let message = |m: i64| message(&case.of, (0..=m).map(|i| (format!("c{}", i % 7), event(format!("{m}-{i}"), 90 - m, 1_000_000))));
    let acknowledged = observe(&mut case.service.client, (0..60).map(message).collect()).await.unwrap();
    assert_eq!(acknowledged.iter().map(|ack| ack.applied).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>());
    assert!(acknowledged.iter().all(|ack| ack.duplicates == 0));
}

async fn one_message_may_hold_hundreds_of_events_of_one_customer(mut case: Case) {
    let events: Vec<_> = (0..600).map(|i| event(i, 650 - i, 1_000_000 + i)).collect();
    assert_eq!(case.observe(events.iter().map(|event| ("busy", event.clone()))).await, (600, 0));
    assert_eq!(case.observe(events[400..].iter().map(|event| ("busy", event.clone()))).await, (0, 200));
    case.is_worth("busy", &events).await;
}

async fn the_parts_of_an_explanation_are_those_of_the_prediction(mut case: Case) {
    case.observe([("c", event(1, 90, 5_000_000)), ("c", event(2, 60, 7_000_000))]).await;
    let request = ExplainRequest { request: Some(asking(&case.of, Subject::Customer("c".into()))) };
    let explained = case.service.client.explain(request).await.unwrap().into_inner();
    assert_eq!(explained.prediction, Some(case.predict("c").await));
    assert_eq!(explained.days.iter().map(|day| day.value_micros).collect::<Vec<_>>(), [7_000_000, 5_000_000]);
}

/// Thirty customers who bought once; the first ten of them every ten days since, one of them several times a day.
fn shop(of: &str) -> Vec<ObserveRequest> {
    let day = |n: i64| {
        let customers = if n == 0 { 30 } else { 10 };
        let often = (0..n % 4).map(move |i| ("c3".to_owned(), event(format!("more-{n}-{i}"), 100 - 10 * n + i, 3_000_000)));
        let each = (0..customers).map(move |c| (format!("c{c}"), event(format!("{c}-{n}"), 100 - 10 * n, 10_000_000 + c)));
        message(of, each.chain(often))
    };
    (0..10).map(day).collect()
}

async fn predictions_of_a_shop(service: &mut Service, of: &str) -> Vec<Prediction> {
    observe(&mut service.client, shop(of)).await.unwrap();
    let customers = (0..30).map(|c| format!("c{c}")).chain(["nobody".to_owned()]);
    let requests = customers.map(|customer| asking(of, Subject::Customer(customer))).collect();
    service.client.predict_batch(PredictBatchRequest { requests }).await.unwrap().into_inner().predictions
}

/// By the model, and by the estimate over the sums that a service has of its own.
async fn predictions_are_those_of_the_embedded_engine(case: Case) {
    for model in [true, false] {
        let mut answers = Vec::new();
        for states in [Vec::new(), case.setup.states.clone()] {
            let data = tempfile::tempdir().unwrap();
            let mut service = Service::start(data.path(), &Setup { states, model, shield: None }).await;
            answers.push(predictions_of_a_shop(&mut service, &format!("{}.{model}", case.of)).await);
            service.stop().await;
        }
        assert_eq!(answers[0], answers[1]);
        let by_model = answers[0].iter().filter(|prediction| prediction.status() == PredictionStatus::Ok).count();
        assert_eq!(by_model, if model { 30 } else { 0 });
        assert!(answers[0].iter().all(|prediction| prediction.mean_micros > 0));
    }
}

macro_rules! cases {
    ($engine:expr; $($case:ident)*) => {{
        let mut passed = 0;
        $(
            let of: String = stringify!($case).chars().take(40).collect();
            $case(Case::begin($engine, &of).await).await;
            passed += 1;
        )*
        passed
    }};
}

async fn all(engine: &Engine) -> u32 {
    cases!(engine;
        what_is_sent_again_counts_once
        late_events_count_on_their_day
        a_refund_takes_value_alone
        currencies_are_kept_apart
        who_is_erased_is_not_known_in_any_currency
        what_was_acknowledged_is_there_after_a_restart
        acknowledgements_come_in_the_order_of_the_messages
        one_message_may_hold_hundreds_of_events_of_one_customer
        the_parts_of_an_explanation_are_those_of_the_prediction
        predictions_are_those_of_the_embedded_engine
    )
}

/// Two services, with the same customers at once.
async fn two_replicas(engine: &Engine) {
    let (setup, of) = (Setup { states: engine.urls(), model: true, shield: None }, "two.replicas");
    let data = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut one = Service::start(data[0].path(), &setup).await;
    let mut two = Service::start(data[1].path(), &setup).await;
    let histories: Vec<(String, Vec<Event>)> =
        (0..6).map(|c| (format!("c{c}"), (0..150).map(|i| event(i, 300 - i, 1_000_000 + c)).collect())).collect();
    // Every event goes to both, and half of them come the other way round.
    let messages = |reverse: bool| {
        let order = (0..150).map(|i| if reverse { 149 - i } else { i });
        let at = |i: usize| message(of, histories.iter().map(|(customer, events)| (customer.clone(), events[i].clone())));
        order.map(at).collect::<Vec<_>>()
    };
    let (first, second) = tokio::join!(observe(&mut one.client, messages(false)), observe(&mut two.client, messages(true)));
    let acknowledged = [first.unwrap(), second.unwrap()].concat();
    let count = |of: fn(&ObserveResponse) -> u32| acknowledged.iter().map(of).sum::<u32>();
    assert_eq!(count(|ack| ack.applied) + count(|ack| ack.duplicates), 2 * 6 * 150);
    for service in [&mut one, &mut two] {
        are_worth_their_events(&mut service.client, of, &histories).await;
    }
    // What one has taken, the other knows at once, also where it was asked before.
    for n in 0..20 {
        let (from, to) = if n % 2 == 0 { (&mut one, &mut two) } else { (&mut two, &mut one) };
        let before = predict(&mut to.client, of, "c0").await;
        observe(&mut from.client, vec![message(of, [("c0".into(), event(format!("new-{n}"), 100 - n, 9_000_000))])]).await.unwrap();
        assert_ne!(predict(&mut to.client, of, "c0").await, before);
    }
    // An erasure at one is an erasure at the other.
    let subject = Some(erase_customer_request::Subject::Customer("c0".into()));
    let erased = one.client.erase_customer(EraseCustomerRequest { client: of.into(), subject }).await.unwrap().into_inner().erased;
    assert_eq!(erased, 1);
    let again = EraseCustomerRequest { client: of.into(), subject: Some(erase_customer_request::Subject::Customer("c0".into())) };
    assert_eq!(two.client.erase_customer(again).await.unwrap().into_inner().erased, 0, "nothing is left");
    let gone = predict(&mut two.client, of, "c0").await;
    assert_eq!(gone.fallback_reason(), FallbackReason::UnknownCustomer, "the model's estimate stands in: {gone:?}");
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_engine_keeps_every_case() {
    eprintln!("embedded: {} cases passed", all(&Engine::Embedded).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_keeps_every_case() {
    let engine = Engine::Redis(Server::start_or_install());
    let passed = all(&engine).await;
    two_replicas(&engine).await;
    eprintln!("one Redis: {passed} cases passed, and two replicas side by side");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_every_case() {
    let cluster = Cluster::start().await;
    let engine = Engine::Cluster(cluster);
    let passed = all(&engine).await;
    two_replicas(&engine).await;
    let Engine::Cluster(cluster) = engine else { unreachable!() };
    let held: Vec<u64> = cluster.nodes.iter().map(|master| ask(master, &["DBSIZE"])).collect();
    assert!(held.iter().all(|customers| *customers > 0), "{held:?} customers: a master has none");
    eprintln!("a cluster of three: {passed} cases passed, and two replicas side by side");
}

#[tokio::test]
async fn events_of_the_embedded_engine_are_not_left_behind_in_silence() {
    let (server, data) = (Server::start_or_install(), tempfile::tempdir().unwrap());
    let mut service = Service::start(data.path(), &Setup::default()).await;
    observe(&mut service.client, shop("acme")).await.unwrap();
    service.stop().await;
    let shared = Setup { states: vec![server.url()], ..Setup::default() };
    let why = Service::begin(data.path(), &shared).await.refusal().await;
    assert!(why.contains("observed without --states"), "{why}");
}
