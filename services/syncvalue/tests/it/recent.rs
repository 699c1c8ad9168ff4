//! Questions that come again, over gRPC with a trained model: each answer is what the model says of the customer as it is.

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
use syncvalue::train::{Prepared, settings};
use tokio_stream::{StreamExt as _, iter};
use tokio_util::sync::CancellationToken;

const DAY: i64 = 86_400_000_000;
/// "Now": 2026-01-01.
const TODAY: i64 = 20_454;

/// Days of a customer: every 20 to 60 days.
fn days(customer: i64) -> Vec<i64> {
    (0..6).map(|nth| TODAY - 1 - customer % 20 - nth * (20 + customer % 41)).collect()
}

/// A model that was trained for a moment, in `folder`.
fn model(folder: &std::path::Path) {
    let day = |day| Day { day, items: 1, spend_micros: 20_000_000 };
    let log: Log = (0..220).map(|c| (format!("c{c}"), days(c).into_iter().map(day).collect())).collect();
    let protocol = Protocol { start: TODAY - 400, cut: TODAY, horizon_days: 90 };
    let settings = Settings { steps: 6, batch: 32, ..settings() };
    let prepared = Prepared::new(&buyers(&log, &protocol, |_| false), &protocol, settings, 0).unwrap();
    let networks = (0..2).map(|network| prepared.member(network, |_| ()).member).collect();
    folder::save(&prepared.model(networks), Note::default(), folder).unwrap();
}

fn event(day: i64, value_micros: i64) -> Event {
    Event { event_id: format!("{day}-{value_micros}"), occurred_at: Some(UnixMicros(day * DAY).into()), value_micros, items: 1 }
}

fn of(customer: i64, event: Event) -> ObservedEvent {
    ObservedEvent { client: "acme".into(), customer: format!("c{customer}"), currency: "USD".into(), event: Some(event) }
}

async fn predict(client: &mut SyncValueServiceClient<Channel>, subject: Subject, day: i64) -> Prediction {
    let at = Some(UnixMicros(day * DAY).into());
    let request = PredictRequest { client: "acme".into(), subject: Some(subject), currency: "USD".into(), at, ..Default::default() };
    client.predict(request).await.unwrap().into_inner().prediction.unwrap()
}

#[tokio::test]
async fn a_question_that_comes_again_is_answered_of_the_customer_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    model(&data.path().join("models").join("small"));
    let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listeners.grpc.local_addr().unwrap());
    let (config, shutdown) =
        (Config { model: Some("small".into()), ..Config::new(data.path().into(), Key::new([7; 32])) }, CancellationToken::new());
    let clock = Clock::Virtual(VirtualClock::at(UnixMicros(TODAY * DAY)));
    let service = tokio::spawn(syncvalue::serve(listeners, config, clock, shutdown.clone()));
    let mut client = SyncValueServiceClient::new(channel(&address).unwrap());
    let observe = async |client: &mut SyncValueServiceClient<Channel>, events| {
        let answers = client.observe(iter([ObserveRequest { events }])).await.unwrap().into_inner();
        let answers: Vec<_> = answers.collect().await;
        answers.into_iter().for_each(|answer| assert!(answer.unwrap().applied > 0));
    };
    let purchases = (0..30).flat_map(|c| days(c).into_iter().map(move |day| of(c, event(day, 20_000_000))));
    observe(&mut client, purchases.collect()).await;

    let mut history: Vec<Event> = days(3).into_iter().map(|day| event(day, 20_000_000)).collect();
    let changes = [event(TODAY - 1, 500_000_000), event(TODAY - 300, 70_000_000), event(TODAY, -400_000_000), event(TODAY - 2, 20_000_000)];
    for change in changes {
        observe(&mut client, vec![of(3, change.clone())]).await;
        history.push(change);
        for day in [TODAY, TODAY + 1, TODAY + 30] {
            let fresh = predict(&mut client, Subject::History(History { events: history.clone() }), day).await;
            assert_eq!(fresh.status(), PredictionStatus::Ok);
            for again in 0..4 {
                assert_eq!(predict(&mut client, Subject::Customer("c3".into()), day).await, fresh, "{day}, {again}");
            }
        }
    }
    let erased = EraseCustomerRequest { client: "acme".into(), subject: Some(erase_customer_request::Subject::Customer("c3".into())) };
    assert_eq!(client.erase_customer(erased).await.unwrap().into_inner().erased, 1);
    assert_eq!(predict(&mut client, Subject::Customer("c3".into()), TODAY + 30).await.fallback_reason(), FallbackReason::UnknownCustomer);
    shutdown.cancel();
    service.await.unwrap().unwrap();
}
