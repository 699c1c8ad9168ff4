//! What was observed: in memory by client, currency and customer, behind an event log on disk.
//!
//! One thread writes. It takes what is waiting as one group, makes it durable, and only then applies it and answers, in the
//! order of the log; so that a restart, which applies the log's records in order, comes to the same state. After a failed write it
//! takes nothing more.

pub mod cache;
pub mod folder;
pub mod models;
pub mod recent;
pub mod record;
pub mod states;
mod wal;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kiki::ids::{ClientId, CustomerKey};
use parking_lot::RwLock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::domain::customer::Effect;
use crate::domain::market::{Market, MarketId, Observed};
use crate::error::Error;
use recent::Recent;
use record::{Erased, Followed, MAX_EVENTS, Record};
use wal::Wal;

/// Clients times currencies. A market is 40 kB of sums and up to 190 kB of tables: 235 MB for all of them.
pub const MAX_MARKETS: usize = 1_024;
/// Customers of all markets: about 200 B each for most, so 1 GB for all of them.
pub const MAX_CUSTOMERS: u64 = 5_000_000;
/// What the last answers take: 65,536 of 128 B.
const RECENT_BYTES: usize = 8 << 20;
/// Messages that wait for the writer: 512 of at most 4,096 events of 130 B are 270 MB at the very worst, and 1 MB in practice.
const MAX_WAITING: usize = 512;
/// Messages in one group: the rest waits for the next fsync.
const MAX_GROUP: usize = 256;

/// What one message did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Events that had an effect.
    pub applied: u32,
    /// Events whose id was known.
    pub duplicates: u32,
    /// Events of new customers for whom there was no room (from the log alone; a call is refused instead).
    pub dropped: u32,
    /// The markets, by number, in which a customer was forgotten.
    pub erased: Vec<u32>,
}

enum Work {
    Take(Job),
    /// Let go of the log, and say so.
    Close(oneshot::Sender<()>),
}

struct Job {
    events: Vec<Observed>,
    followed: Option<Followed>,
    erased: Option<Erased>,
    done: oneshot::Sender<Result<Applied, Error>>,
}

/// An answer that comes once the events are durable.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Applied, Error>>);

impl Pending {
    /// Waits for it.
    ///
    /// # Errors
    /// The events were not taken, or the log failed, in which case they may or may not be there after a restart.
    pub async fn applied(self) -> Result<Applied, Error> {
        self.0.await.unwrap_or_else(|_| Err(Error::LogFailed("the writer has stopped".into())))
    }
}

/// The observed customers.
#[derive(Debug)]
pub struct Store {
    state: Arc<State>,
    work: mpsc::Sender<Work>,
}

#[derive(Debug)]
struct State {
    markets: RwLock<HashMap<MarketId, Arc<RwLock<Market>>>>,
    /// Markets that were ever made.
    numbers: AtomicU32,
    customers: AtomicU64,
    events: AtomicU64,
    followed: watch::Sender<Option<Followed>>,
    /// Written under a market's lock alone: to put something in is to read the market, and to change a customer erases what is there.
    recent: Recent,
}

impl Store {
    /// Reads the event log in `folder` back, and starts the writer.
    ///
    /// # Errors
    /// The log cannot be read, is damaged, or is another process's.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let state = Arc::new(State {
            markets: RwLock::default(),
            numbers: AtomicU32::new(0),
            customers: AtomicU64::new(0),
            events: AtomicU64::new(0),
            followed: watch::Sender::new(None),
            recent: Recent::new(RECENT_BYTES),
        });
        let wal = Wal::open(folder, |record| {
            for observation in &record.events {
                state.observe(&Observed::try_from(observation)?);
            }
            if let Some(erased) = &record.erased {
                state.erase(erased);
            }
            state.follow(record.followed);
            Ok(())
        })?;
        let (work, waiting) = mpsc::channel(MAX_WAITING);
        let writer = Writer { state: state.clone(), wal, waiting, failed: None };
        let thread = std::thread::Builder::new().name("syncvalue-log".into());
        thread.spawn(move || writer.run()).map_err(Error::io("cannot start the writer"))?;
        Ok(Self { state, work })
    }

    /// Hands events to the writer, waiting while its queue is full. Their order is that of these calls.
    ///
    /// # Errors
    /// The writer has stopped.
    pub async fn observe(&self, events: Vec<Observed>) -> Result<Pending, Error> {
        self.take(events, None, None).await
    }

    /// Takes events of SyncShield's log in together with the position behind them; at most [`MAX_EVENTS`].
    ///
    /// # Errors
    /// The event log failed.
    pub async fn follow(&self, events: Vec<Observed>, followed: Followed) -> Result<Applied, Error> {
        self.take(events, Some(followed), None).await?.applied().await
    }

    /// Forgets a customer of a client, in all currencies.
    ///
    /// # Errors
    /// The event log failed.
    pub async fn erase(&self, client: &ClientId, customer: &CustomerKey) -> Result<Applied, Error> {
        let erased = Erased { client: client.as_str().into(), customer: customer.0.to_vec() };
        self.take(Vec::new(), None, Some(erased)).await?.applied().await
    }

    /// Says that SyncShield's log held nothing to take in up to here. It is not written: after a restart it is read again.
    pub fn passed(&self, followed: Followed) {
        self.state.follow(Some(followed));
    }

    async fn take(&self, events: Vec<Observed>, followed: Option<Followed>, erased: Option<Erased>) -> Result<Pending, Error> {
        let (done, pending) = oneshot::channel();
        let job = Job { events, followed, erased, done };
        self.work.send(Work::Take(job)).await.map_err(|_| Error::LogFailed("the writer has stopped".into()))?;
        Ok(Pending(pending))
    }

    /// Finishes what was handed over, and lets go of the event log. Nothing more is taken.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.work.send(Work::Close(done)).await.is_ok() {
            drop(closed.await); // an error says that the writer is gone already
        }
    }

    /// Up to where SyncShield's log has been read; changes are seen through it.
    #[must_use]
    pub fn followed(&self) -> watch::Receiver<Option<Followed>> {
        self.state.followed.subscribe()
    }

    /// Reads a market, while nothing changes in it, and what was last answered about its customers; an empty one where nobody was
    /// observed in it. What waits to change it waits for this, and later readers behind that.
    pub fn read<T>(&self, market: &MarketId, read: impl FnOnce(&Market, &Recent) -> T) -> T {
        let market = self.state.markets.read().get(market).cloned();
        match market {
            Some(market) => read(&market.read(), &self.state.recent),
            None => read(&Market::default(), &self.state.recent),
        }
    }

    /// Customers of all markets.
    #[must_use]
    pub fn customers(&self) -> u64 {
        self.state.customers.load(Ordering::Relaxed)
    }

    /// Events that had an effect, since the log began.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.state.events.load(Ordering::Relaxed)
    }
}

impl State {
    fn market(&self, id: &MarketId) -> Arc<RwLock<Market>> {
        if let Some(market) = self.markets.read().get(id) {
            return market.clone();
        }
        match self.markets.write().entry(id.clone()) {
            Entry::Occupied(entry) => entry.get().clone(),
            Entry::Vacant(entry) => {
                let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
                entry.insert(Arc::new(RwLock::new(Market::new(number)))).clone()
            }
        }
    }

    fn observe(&self, observed: &Observed) -> Effect {
        let market = self.market(&observed.market);
        let mut market = market.write();
        let before = market.len();
        let effect = market.observe(observed.customer, &observed.event);
        self.recent.erase(market.number, &observed.customer);
        self.customers.fetch_add((market.len() - before) as u64, Ordering::Relaxed);
        self.events.fetch_add(u64::from(effect != Effect::Duplicate), Ordering::Relaxed);
        effect
    }

    /// The markets, by number, in which something was known of the customer.
    fn erase(&self, erased: &Erased) -> Vec<u32> {
        let Some(customer) = CustomerKey::from_bytes(&erased.customer) else { return Vec::new() };
        let markets = self.markets.read();
        let of_client = markets.iter().filter(|(id, _)| id.client.as_str() == erased.client).map(|(_, market)| market);
        let known = of_client.filter_map(|market| {
            let mut market = market.write();
            let known = market.erase(&customer);
            self.recent.erase(market.number, &customer);
            known.then_some(market.number)
        });
        let known: Vec<u32> = known.collect();
        self.customers.fetch_sub(known.len() as u64, Ordering::Relaxed);
        known
    }

    fn follow(&self, followed: Option<Followed>) {
        if followed.is_some() {
            self.followed.send_replace(followed);
        }
    }

    /// Whether the event is of a customer who is not known yet.
    fn is_new(&self, observed: &Observed) -> bool {
        let market = self.markets.read().get(&observed.market).cloned();
        market.is_none_or(|market| market.read().get(&observed.customer).is_none())
    }

    /// Whether all of `events` fit. `coming` customers of the group before them count as there.
    fn room(&self, events: &[Observed], coming: &mut u64) -> Result<(), Error> {
        let new = events.iter().filter(|event| self.is_new(event)).count() as u64;
        if self.customers.load(Ordering::Relaxed) + *coming + new > MAX_CUSTOMERS {
            return Err(Error::Full { what: "customers", limit: MAX_CUSTOMERS as usize });
        }
        let markets = self.markets.read();
        if new > 0 && markets.len() >= MAX_MARKETS && events.iter().any(|event| !markets.contains_key(&event.market)) {
            return Err(Error::Full { what: "pairs of client and currency", limit: MAX_MARKETS });
        }
        *coming += new;
        Ok(())
    }
}

struct Writer {
    state: Arc<State>,
    wal: Wal,
    waiting: mpsc::Receiver<Work>,
    failed: Option<String>,
}

impl Writer {
    /// Until it is closed, or every sender is gone.
    fn run(mut self) {
        let mut work = Vec::new();
        while self.waiting.blocking_recv_many(&mut work, MAX_GROUP) > 0 {
            let (mut group, mut closing) = (Vec::new(), None);
            for work in work.drain(..) {
                match work {
                    Work::Take(job) if closing.is_none() => group.push(job),
                    Work::Take(_) => {} // whoever waits for it sees its sender gone
                    Work::Close(done) => closing = Some(done),
                }
            }
            self.commit(group);
            if let Some(done) = closing {
                drop(self);
                done.send(()).ok();
                return;
            }
        }
    }

    fn commit(&mut self, group: Vec<Job>) {
        let (mut records, mut taken, mut coming) = (Vec::new(), Vec::new(), 0);
        for mut job in group {
            let mut outcome = Applied::default();
            if let Some(reason) = &self.failed {
                answer(job.done, Err(Error::LogFailed(reason.clone())));
                continue;
            }
            if let Err(full) = self.state.room(&job.events, &mut coming) {
                if job.followed.is_none() {
                    answer(job.done, Err(full));
                    continue;
                }
                // The log goes on whatever we have room for: known customers count, new ones stay unknown.
                let all = job.events.len();
                job.events.retain(|event| !self.state.is_new(event));
                outcome.dropped = (all - job.events.len()) as u32;
            }
            records.extend(split(&job));
            taken.push((job, outcome));
        }
        if !records.is_empty()
            && let Err(error) = self.wal.append(&records)
        {
            tracing::error!(%error, "the event log failed; nothing more is taken until a restart");
            self.failed = Some(error.to_string());
        }
        for (job, outcome) in taken {
            let result = match &self.failed {
                None => Ok(self.state.apply(job.events, job.followed, job.erased, outcome)),
                Some(reason) => Err(Error::LogFailed(reason.clone())),
            };
            answer(job.done, result);
        }
    }
}

impl State {
    fn apply(&self, events: Vec<Observed>, followed: Option<Followed>, erased: Option<Erased>, mut outcome: Applied) -> Applied {
        for event in &events {
            match self.observe(event) {
                Effect::Duplicate => outcome.duplicates += 1,
                Effect::Acquired | Effect::Returned | Effect::Adjusted => outcome.applied += 1,
            }
        }
        if let Some(erased) = erased {
            outcome.erased = self.erase(&erased);
        }
        self.follow(followed);
        outcome
    }
}

/// One message's records. A message with a position is one record, so that the two cannot come apart.
fn split(job: &Job) -> Vec<Record> {
    let of = |events: &[Observed]| Record { events: events.iter().map(Into::into).collect(), ..Record::default() };
    let mut records: Vec<_> = job.events.chunks(MAX_EVENTS).map(of).collect();
    records.extend(job.erased.clone().map(|erased| Record { erased: Some(erased), ..Record::default() }));
    if let Some(followed) = &job.followed {
        match records.last_mut() {
            Some(last) => last.followed = Some(followed.clone()),
            None => records.push(Record { followed: Some(followed.clone()), ..Record::default() }),
        }
    }
    records
}

fn answer(done: oneshot::Sender<Result<Applied, Error>>, result: Result<Applied, Error>) {
    // A caller that went away does not take the event back: it is in the log.
    drop(done.send(result));
}
