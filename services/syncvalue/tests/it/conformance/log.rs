//! Outcomes of SyncShield's log, which every replica follows.

use kiki::clock::UnixMicros;
use kiki::ids::Pseudonyms;
use kiki::leaf::{Leaf, Outcome, Position, leaf::Body};
use kiki::pb::syncvalue::v1::*;

use super::world::*;
use crate::server::Server;
use crate::shield::{LOG, Shield};

/// Outcomes of one customer: more than the ids that are remembered.
const OUTCOMES: u64 = 700;

fn outcome(index: u64, event: &Event) -> Leaf {
    let outcome = Outcome {
        event_id: event.event_id.clone(),
        occurred_at: event.occurred_at,
        customer: Pseudonyms::new(&KEY).of("acme", "busy").0.to_vec().into(),
        currency: "USD".into(),
        value_micros: event.value_micros,
        ..Outcome::default()
    };
    let recorded_at = Some(UnixMicros(NOW).into());
    Leaf { log_id: LOG.into(), index, client: "acme".into(), recorded_at, body: Some(Body::Outcome(outcome)), ..Leaf::default() }
}

async fn followed_to(service: &mut Service, index: u64) -> GetModelResponse {
    let followed_to = Some(Position { log_id: LOG.into(), index });
    service.client.get_model(GetModelRequest { followed_to }).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_replica_reads_the_whole_log_and_it_counts_once() {
    let server = Server::start_or_install();
    // Outcomes say nothing of items.
    let events: Vec<_> = (0..OUTCOMES).map(|i| Event { items: 0, ..event(i, 750 - i as i64, 1_000_000) }).collect();
    let leaves = events.iter().enumerate().map(|(i, event)| outcome(i as u64, event)).collect();
    let (shield, address, stop) = Shield::start(leaves).await;
    let setup = Setup { states: vec![server.url()], model: true, shield: Some(address) };
    let data = [0; 3].map(|_| tempfile::tempdir().unwrap());
    let histories = [("busy".to_owned(), events)];

    // Two at once, and a third that begins when all is counted.
    let mut one = Service::start(data[0].path(), &setup).await;
    let mut two = Service::start(data[1].path(), &setup).await;
    let (a, b) = tokio::join!(followed_to(&mut one, OUTCOMES), followed_to(&mut two, OUTCOMES));
    // Where both made the very same change of the same customer, it was made once, and both say that they did.
    assert!((OUTCOMES..=2 * OUTCOMES).contains(&(a.events + b.events)), "{} {}", a.events, b.events);
    assert_eq!((a.customers, b.customers), (1, 1));
    let mut late = Service::start(data[2].path(), &setup).await;
    assert_eq!(followed_to(&mut late, OUTCOMES).await.events, 0);
    for service in [&mut one, &mut two, &mut late] {
        are_worth_their_events(&mut service.client, "acme", &histories).await;
    }
    // Each goes on where it was.
    two.stop().await;
    let began = shield.began.lock().unwrap().len();
    let mut two = Service::start(data[1].path(), &setup).await;
    assert_eq!(followed_to(&mut two, OUTCOMES).await.events, 0);
    // An outcome that Observe brought already, and one that it did not.
    observe(&mut one.client, vec![message("acme", [("busy".into(), Event { items: 0, ..event("x", 2, 5_000_000) })])]).await.unwrap();
    let new = [event("x", 2, 5_000_000), event("y", 1, 5_000_000)].map(|event| Event { items: 0, ..event });
    shield.leaves.send_modify(|leaves| leaves.extend((OUTCOMES..).zip(&new).map(|(i, event)| outcome(i, event))));
    let [(_, events)] = histories;
    let histories = [("busy".to_owned(), [events.as_slice(), &new].concat())];
    for service in [&mut one, &mut two, &mut late] {
        followed_to(service, OUTCOMES + 2).await;
        are_worth_their_events(&mut service.client, "acme", &histories).await;
    }
    assert_eq!(shield.began.lock().unwrap()[began..], [OUTCOMES]);
    for service in [one, two, late] {
        service.stop().await;
    }
    stop.cancel();
}
