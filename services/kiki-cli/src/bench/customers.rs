//! The customers that are asked for: a client's, each of whom has bought within the last year.

use std::time::Duration;

use kiki::clock::{Clock, UnixMicros};
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::pb::syncvalue::v1::{Event, ObserveRequest, ObservedEvent};
use kiki::runtime::Channel;
use syncvalue::domain::customer::{Day, day_of};

use crate::error::{Failure, rpc};

pub(crate) const CLIENT: &str = "bench";
pub(super) const CURRENCY: &str = "USD";
/// Events in one message of Observe; 4,096 are allowed.
const OBSERVED: usize = 2_048;
const DAY: Duration = Duration::from_secs(86_400);

/// The own id of a customer.
pub(crate) fn customer(number: u64) -> String {
    format!("customer-{number:07}")
}

/// A year of purchases: each customer buys every 30 to 135 days, amounts from 5 to 104.
pub(crate) async fn observe(mut value: SyncValueServiceClient<Channel>, customers: u32) -> Result<(), Failure> {
    let now = Clock::System.now();
    let mut events: Vec<ObservedEvent> = (0..u64::from(customers)).flat_map(|number| purchases(number, now)).collect();
    events.sort_by_key(|event| event.event.as_ref().and_then(|event| event.occurred_at.map(|at| at.seconds)));
    let messages: Vec<ObserveRequest> = events.chunks(OBSERVED).map(|events| ObserveRequest { events: events.to_vec() }).collect();
    let (sent, mut acknowledged) = (messages.len(), 0);
    let answers = value.observe(tokio_stream::iter(messages)).await.map_err(|status| rpc("observing purchases", &status))?;
    let mut answers = answers.into_inner();
    while answers.message().await.map_err(|status| rpc("observing purchases", &status))?.is_some() {
        acknowledged += 1;
    }
    if acknowledged == sent { Ok(()) } else { Err(Failure::new(format!("{acknowledged} of {sent} messages of purchases were taken"))) }
}

/// When a customer bought, newest first.
fn times(number: u64, now: UnixMicros) -> impl Iterator<Item = UnixMicros> {
    let every = 30 + number * 7 % 106;
    let ago = (0..12).map(move |nth| 1 + number % every + nth * every).take_while(|days| *days < 365);
    ago.map(move |days| UnixMicros(now.0 - DAY.as_micros() as i64 * days as i64))
}

/// What each of a customer's purchases is worth.
fn value_micros(number: u64) -> i64 {
    5_000_000 + (number * 13 % 100) as i64 * 1_000_000
}

fn purchases(number: u64, now: UnixMicros) -> impl Iterator<Item = ObservedEvent> {
    times(number, now).map(move |at| {
        let (event_id, value_micros) = (format!("{number}-{}", day_of(at)), value_micros(number));
        let event = Event { event_id, occurred_at: Some(at.into()), value_micros, items: 1 };
        ObservedEvent { client: CLIENT.to_owned(), customer: customer(number), currency: CURRENCY.to_owned(), event: Some(event) }
    })
}

/// The same purchases as days, for a training.
pub(super) fn days(number: u64, now: UnixMicros) -> Vec<Day> {
    times(number, now).map(|at| Day { day: day_of(at), items: 1, spend_micros: value_micros(number) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_customer_has_bought() {
        let now = UnixMicros(1_700_000_000_000_000);
        for number in 0..300 {
            let events: Vec<ObservedEvent> = purchases(number, now).collect();
            assert!((2..=12).contains(&events.len()), "{} purchases", events.len());
            assert!(events.iter().all(|e| e.event.as_ref().is_some_and(|e| e.value_micros >= 5_000_000)));
        }
    }
}
