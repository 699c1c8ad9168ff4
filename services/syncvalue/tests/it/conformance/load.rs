//! Senders that do not give up: what is not acknowledged is sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use kiki::pb::syncvalue::v1::*;
use tokio::sync::watch;
use tokio_stream::{StreamExt as _, iter};

use super::world::*;

/// Customers whom all senders share.
pub const CUSTOMERS: u64 = 50;
/// Events of a message.
const EVENTS: u64 = 4;
/// Whose customers they are.
pub const OF: &str = "acme";

/// The events of a sender's message: always the same.
fn events(sender: u64, n: u64) -> impl Iterator<Item = (String, Event)> {
    (0..EVENTS).map(move |i| {
        let x = (sender * 7_919 + n * EVENTS + i).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        let value = 1_000_000 + (x % 1_000) as i64 * if x.is_multiple_of(17) { -1_000 } else { 10_000 };
        (format!("c{}", x % CUSTOMERS), event(format!("{sender}-{n}-{i}"), 10 + (x / 64 % 130) as i64, value))
    })
}

fn messages(sender: u64, numbers: std::ops::Range<u64>) -> Vec<ObserveRequest> {
    numbers.map(|n| message(OF, events(sender, n))).collect()
}

/// What each customer did, after so many messages of each sender.
pub fn histories(sent: &[u64]) -> Vec<(String, Vec<Event>)> {
    let mut histories: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for (sender, sent) in (0..).zip(sent) {
        for (customer, event) in (0..*sent).flat_map(|n| events(sender, n)) {
            histories.entry(customer).or_default().push(event);
        }
    }
    histories.into_iter().collect()
}

/// One stream, up to its end or an error; counts in `acknowledged`.
pub async fn send(mut client: Client, sender: u64, numbers: std::ops::Range<u64>, acknowledged: &watch::Sender<u64>) {
    let answers = client.observe(iter(messages(sender, numbers))).await;
    let mut answers = match answers {
        Ok(answers) => answers.into_inner(),
        Err(status) => return assert!(is_away(&status), "{status}"),
    };
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(_) => acknowledged.send_modify(|n| *n += 1),
            Err(status) => return assert!(is_away(&status), "{status}"),
        }
    }
}

/// So many messages, however often that takes.
pub async fn send_all(client: Client, sender: u64, messages: u64, acknowledged: watch::Sender<u64>) {
    loop {
        let from = *acknowledged.borrow();
        if from == messages {
            return;
        }
        send(client.clone(), sender, from..messages, &acknowledged).await;
        tokio::time::sleep(Duration::from_millis(5)).await; // what a sender's own retry does
    }
}

/// The customers are worth what they are to an embedded service that was told everything once, and was never disturbed.
pub async fn are_as_undisturbed(client: &mut Client, sent: &[u64]) {
    let histories = histories(sent);
    are_worth_their_events(client, OF, &histories).await;
    let data = tempfile::tempdir().unwrap();
    let mut quiet = Service::start(data.path(), &Setup { model: true, ..Setup::default() }).await;
    for (sender, sent) in (0..).zip(sent) {
        observe(&mut quiet.client, messages(sender, 0..*sent)).await.unwrap();
    }
    for (customer, _) in &histories {
        assert_eq!(predict(client, OF, customer).await, predict(&mut quiet.client, OF, customer).await, "{customer}");
    }
    quiet.stop().await;
}
