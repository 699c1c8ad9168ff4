//! The run: requests go out when they are due, whether or not those before were answered.
//!
//! A thread keeps the schedule, so that a busy runtime does not stretch it; a request's time counts from when it was due. Each
//! request is a task: it asks, holds the auctions and hands the notices to the [post](super::post). One task adds up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiki::clock::monotonic;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::answer::{self, Fault};
use super::auction::Market;
use super::hall::{Auctions, Hall};
use super::notice::{Charge, Faults};
use super::post::{self, Delivered, Due};
use super::request::{Facts, Format, Template, gzip};
use super::tally::Tally;
use crate::bench::customers::customer;
use crate::error::Failure;
use crate::http::{self, Content, Http};
use crate::random::Draws;

/// Notices that wait at the most, at some 600 bytes each. Beyond it no requests are sent.
const MAX_WAITING: usize = 1 << 20;
/// Events that wait to be added up.
const EVENTS: usize = 4_096;
/// Our own bidder's word for a request that was one too many.
const OVERLOADED: &str = "OVERLOADED";
/// The longest that the schedule's thread sleeps before it looks whether to go on.
const LOOK: Duration = Duration::from_millis(100);

/// An exchange.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) url: String,
    /// Used in turn.
    pub(crate) clients: Vec<Http>,
    /// Sent in turn; there is one at least.
    pub(crate) templates: Vec<Template>,
    pub(crate) format: Format,
    pub(crate) gzip: bool,
    pub(crate) market: Market,
    pub(crate) charge: Charge,
    pub(crate) faults: Faults,
    pub(crate) tmax: Duration,
    /// Requests are for so many customers; none: for those that they name.
    pub(crate) customers: Option<u32>,
    /// Makes the ids of one run differ from those of another.
    pub(crate) run: u64,
    pub(crate) schedule: Schedule,
}

/// When requests are due.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    /// One behind the other.
    pub(crate) phases: Vec<Phase>,
    pub(crate) count: u64,
    /// Requests under way at the most.
    pub(crate) in_flight: usize,
}

/// A rate, and for how long it is kept up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Phase {
    /// The mean number in a second; the times between them are exponential.
    pub(crate) rate: f64,
    pub(crate) duration: Duration,
}

/// What is added up.
pub(crate) enum Event {
    Asked(Asked),
    Delivered(Delivered),
    /// The schedule has ended: requests that were not sent, and over which time they were due.
    Ended(u64, Duration),
}

/// How a request went.
#[derive(Debug)]
pub(crate) struct Asked {
    /// When it was due, from the start on.
    pub(crate) due: Duration,
    /// How much later it was begun.
    pub(crate) begun_late: Duration,
    /// From when it was due until it was answered, or it was clear that it would not be.
    pub(crate) took: Duration,
    in_time: bool,
    heard: Heard,
}

/// What a request came to, to one who asks whether the bidder took it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Bids, in time or not.
    Bid,
    /// No bid, for another reason than that there were too many requests.
    NoBid,
    /// Turned away because there were too many.
    Refused,
    /// No answer, or one that is none.
    Failed,
}

#[derive(Debug)]
enum Heard {
    /// No answer, or one of another status than 200 and 204.
    Error(String),
    /// No bid, for the reason that the bidder gave.
    NoBid(String),
    /// An answer that is none.
    Invalid(Fault),
    /// It came after tmax, with these offers.
    Late(String, Vec<i64>),
    Auctions(Auctions),
}

impl Heard {
    fn is_valid(&self) -> bool {
        match self {
            Self::NoBid(_) => true,
            Self::Auctions(auctions) => auctions.invalid.is_empty(),
            Self::Error(_) | Self::Invalid(_) | Self::Late(..) => false,
        }
    }
}

/// Runs until the schedule has ended, or `stop`, and all notices were sent. `progress` hears of each request that is due, and
/// `seen` of each that has gone one way or the other.
pub(crate) async fn run(
    exchange: Exchange,
    stop: CancellationToken,
    progress: impl Fn(u64) + Send + 'static,
    mut seen: impl FnMut(&Asked),
) -> Result<Tally, Failure> {
    let (events, mut heard) = mpsc::channel(EVENTS);
    let (letters, incoming) = mpsc::channel(EVENTS);
    let waiting = Arc::new(AtomicUsize::new(0));
    tokio::spawn(post::run(incoming, events.clone(), waiting.clone()));
    let (runtime, exchange) = (Handle::current(), Arc::new(exchange));
    tokio::task::spawn_blocking(move || schedule(&exchange, &runtime, &waiting, &events, &letters, &stop, progress));
    let mut tally = Tally::new()?;
    while let Some(event) = heard.recv().await {
        if let Event::Asked(asked) = &event {
            seen(asked);
        }
        add(&mut tally, event);
    }
    Ok(tally)
}

/// Sends requests as they fall due. What is due while as many are under way as may be is not sent.
fn schedule(
    exchange: &Arc<Exchange>,
    runtime: &Handle,
    waiting: &Arc<AtomicUsize>,
    events: &mpsc::Sender<Event>,
    letters: &mpsc::Sender<Vec<Due>>,
    stop: &CancellationToken,
    progress: impl Fn(u64),
) {
    let Schedule { phases, count, in_flight } = &exchange.schedule;
    let (room, mut draws) = (Arc::new(Semaphore::new(*in_flight)), Draws::of(exchange.market.seed, "arrivals", &[]));
    let start = monotonic();
    let (mut end, mut number, mut not_sent) = (start, 0, 0);
    'phases: for phase in phases {
        let mut due = end; // what is exponential has no memory: each phase may begin anew
        end += phase.duration;
        loop {
            due += Duration::from_secs_f64(draws.exponential(1.0 / phase.rate));
            if due >= end {
                break;
            }
            if number == *count || !wait(due, stop) {
                break 'phases;
            }
            let this = number;
            number += 1;
            progress(number);
            let room = room.clone().try_acquire_owned().ok().filter(|_| waiting.load(Ordering::Relaxed) < MAX_WAITING);
            let Some(room) = room else {
                not_sent += 1;
                continue;
            };
            let (exchange, waiting, events, letters) = (exchange.clone(), waiting.clone(), events.clone(), letters.clone());
            runtime.spawn(async move {
                let mut asked = exchange.ask(this, start, due).await;
                drop(room);
                let notices = asked.notices();
                waiting.fetch_add(notices.len(), Ordering::Relaxed);
                drop(letters.send(notices).await); // the post ends after those who write to it
                drop(events.send(Event::Asked(asked)).await);
            });
        }
    }
    drop(events.blocking_send(Event::Ended(not_sent, start.elapsed())));
}

/// Sleeps until then; false where the run was stopped meanwhile.
fn wait(due: Instant, stop: &CancellationToken) -> bool {
    loop {
        let left = due.saturating_duration_since(monotonic());
        if stop.is_cancelled() || left.is_zero() {
            return !stop.is_cancelled();
        }
        std::thread::sleep(left.min(LOOK)); // exact to 60 us; the runtime's timers are to 1 ms
    }
}

impl Exchange {
    async fn ask(&self, number: u64, start: Instant, due: Instant) -> Asked {
        let begun_late = due.elapsed();
        let template = &self.templates[(number % self.templates.len() as u64) as usize];
        let id = format!("{:x}-{number:x}", self.run);
        let customer = self.customers.map(|customers| {
            let mut draws = Draws::of(self.market.seed, "customer", &[number]);
            customer(draws.below(customers as usize) as u64)
        });
        let client = &self.clients[(number % self.clients.len() as u64) as usize];
        let content = Content { kind: self.format.content_type(), gzip: self.gzip };
        let answer = match self.body(template, &id, customer.as_deref()) {
            Ok(body) => client.post(&self.url, content, body).await,
            Err(failure) => Err(failure),
        };
        let took = due.elapsed();
        let heard = match answer {
            Err(_) => Heard::Error("unreachable".to_owned()),
            Ok(answer) => self.heard(&id, number, &template.facts, &answer, took),
        };
        Asked { due: due - start, begun_late, took, in_time: took <= self.tmax, heard }
    }

    fn body(&self, template: &Template, id: &str, customer: Option<&str>) -> Result<Vec<u8>, Failure> {
        let body = template.addressed(id, customer);
        if self.gzip { gzip(&body) } else { Ok(body) }
    }

    fn heard(&self, id: &str, number: u64, facts: &Facts, answer: &http::Answer, took: Duration) -> Heard {
        let read = match answer.status.as_u16() {
            200 => answer::read(self.format, &answer.body),
            204 => return Heard::NoBid(answer.no_bid.clone().unwrap_or_default()),
            other => return Heard::Error(other.to_string()),
        };
        match read.and_then(|answer| answer.fault(id, facts).map_or(Ok(answer), Err)) {
            Err(fault) => Heard::Invalid(fault),
            Ok(answer) if answer.bids.is_empty() => Heard::NoBid(String::new()),
            Ok(answer) if took > self.tmax => Heard::Late(answer.cur, answer.bids.iter().filter_map(|bid| bid.price).collect()),
            Ok(answer) => Heard::Auctions(Hall::new(self, id, facts, &answer).hold(number)),
        }
    }
}

impl Asked {
    pub(crate) fn outcome(&self) -> Outcome {
        match &self.heard {
            Heard::Late(..) => Outcome::Bid,
            Heard::Auctions(auctions) if auctions.invalid.is_empty() => Outcome::Bid,
            Heard::NoBid(reason) if reason == OVERLOADED => Outcome::Refused,
            Heard::Error(status) if status == "429" || status == "503" => Outcome::Refused,
            Heard::NoBid(_) => Outcome::NoBid,
            Heard::Auctions(_) | Heard::Invalid(_) | Heard::Error(_) => Outcome::Failed,
        }
    }

    fn notices(&mut self) -> Vec<Due> {
        match &mut self.heard {
            Heard::Auctions(auctions) => std::mem::take(&mut auctions.notices),
            _ => Vec::new(),
        }
    }
}

fn add(tally: &mut Tally, event: Event) {
    match event {
        Event::Asked(asked) => asked_one(tally, asked),
        Event::Delivered(Delivered { kind, said, delivery, charge }) => {
            *tally.notices.entry(format!("{} {said}", kind.name())).or_default() += 1;
            if let Some((currency, charged)) = charge {
                tally.money(&currency).delivered(&charged, delivery);
            }
        }
        Event::Ended(not_sent, elapsed) => (tally.not_sent, tally.elapsed) = (not_sent, elapsed),
    }
}

fn asked_one(tally: &mut Tally, Asked { took, in_time, heard, .. }: Asked) {
    tally.sent += 1;
    tally.took(took);
    tally.good += u64::from(in_time && heard.is_valid());
    match heard {
        Heard::Error(status) => {
            *tally.errors.entry(status).or_default() += 1;
            return;
        }
        Heard::NoBid(reason) if in_time => *tally.no_bids.entry(reason).or_default() += 1,
        Heard::NoBid(_) => {}
        Heard::Invalid(fault) => *tally.invalid.entry(fault.as_str()).or_default() += 1,
        Heard::Late(currency, offers) => offers.into_iter().for_each(|offer| tally.money(&currency).late_bids.add(offer)),
        Heard::Auctions(auctions) => auctions.add_to(tally),
    }
    *(if in_time { &mut tally.in_time } else { &mut tally.late }) += 1;
}
