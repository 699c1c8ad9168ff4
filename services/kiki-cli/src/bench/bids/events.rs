//! Purchases that SyncValue hears of while bids are made: each changes what is known of a customer, so that the next bid for it needs
//! a prediction that nobody has computed yet.

use std::time::Duration;

use kiki::clock::Clock;
use kiki::pb::syncvalue::v1::sync_value_service_client::SyncValueServiceClient;
use kiki::pb::syncvalue::v1::{Event, ObserveRequest, ObservedEvent};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::bench::customers::{CLIENT, CURRENCY, customer};
use crate::error::{Doing as _, Failure, rpc};

/// How often a message of those that fell due is sent: of 500,000 a second, 2,500 in each.
const EVERY: Duration = Duration::from_millis(5);
/// Events of one message: what Observe takes.
const MOST: u64 = 4_096;
/// Messages that SyncValue has not taken yet. Beyond it the next ones wait.
const UNTAKEN: usize = 16;

/// The purchases of one measurement.
pub(super) struct Events {
    stop: CancellationToken,
    sending: JoinHandle<Result<u64, Failure>>,
}

impl Events {
    /// Begins to send so many a second, none where that is 0.
    pub(super) fn start(value: &str, customers: u32, per_second: u32) -> Result<Self, Failure> {
        let value = SyncValueServiceClient::new(kiki::runtime::channel(value).doing(value)?);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let sending =
            tokio::spawn(async move { if per_second == 0 { Ok(0) } else { send(value, customers.into(), per_second, stopped).await } });
        Ok(Self { stop, sending })
    }

    /// Sends no more; how many SyncValue has taken.
    pub(super) async fn end(self) -> Result<u64, Failure> {
        self.stop.cancel();
        self.sending.await.doing("sending purchases")?
    }
}

async fn send(
    mut value: SyncValueServiceClient<kiki::runtime::Channel>,
    customers: u64,
    per_second: u32,
    stop: CancellationToken,
) -> Result<u64, Failure> {
    let (messages, outgoing) = mpsc::channel(UNTAKEN);
    tokio::spawn(async move {
        let (start, mut sent, mut tick) = (Instant::now(), 0, interval(EVERY));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(tick.tick()).await.is_some() {
            let due = (start.elapsed().as_secs_f64() * f64::from(per_second)) as u64;
            let events = (sent..due.min(sent + MOST)).map(|number| purchase(number, customers)).collect::<Vec<_>>();
            sent += events.len() as u64;
            if !events.is_empty() && messages.send(ObserveRequest { events }).await.is_err() {
                break; // whoever reads the answers says why
            }
        }
    });
    let failed = |status| rpc("observing purchases", &status);
    let mut answers = value.observe(ReceiverStream::new(outgoing)).await.map_err(failed)?.into_inner();
    let mut taken = 0;
    while let Some(answer) = answers.message().await.map_err(failed)? {
        taken += u64::from(answer.applied);
    }
    Ok(taken)
}

/// A purchase that has just been made, by one of the customers as chance has it.
fn purchase(number: u64, customers: u64) -> ObservedEvent {
    let now = Clock::System.now();
    let event = Event {
        event_id: format!("now-{}-{number}", now.0),
        occurred_at: Some(now.into()),
        value_micros: 10_000_000 + (number * 7 % 50) as i64 * 1_000_000,
        items: 1,
    };
    let which = (number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) % customers;
    ObservedEvent { client: CLIENT.to_owned(), customer: customer(which), currency: CURRENCY.to_owned(), event: Some(event) }
}
