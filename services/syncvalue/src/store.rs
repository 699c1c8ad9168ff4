//! What was observed, by client, currency and customer. Two engines keep it:
//!
//! - embedded (`local`): in memory, behind an event log on disk;
//! - shared ([`shared`]): each customer a value in a Redis or Redis Cluster, for several SyncValues side by side.
//!
//! Either way one writer takes what is waiting as one group, makes it durable, and only then answers, in order.

pub mod cache;
pub mod changes;
pub mod folder;
pub mod kept;
mod local;
pub mod models;
pub mod recent;
pub mod record;
pub mod shared;
pub mod states;
mod wal;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kiki::ids::{ClientId, CustomerKey};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot, watch};

use crate::domain::accuracy::{Accuracy, Attributed};
use crate::domain::customer::Effect;
use crate::domain::market::{Market, MarketId, Observed};
use crate::error::Error;
use changes::{Changes, Watch};
use recent::Recent;
use record::{Erased, Followed, MAX_EVENTS, Record};
use shared::{Fetched, Shared};
use states::Key;

/// Clients times currencies. A market is 40 kB of sums and up to 190 kB of tables: 235 MB for all of them.
pub const MAX_MARKETS: usize = 1_024;
/// Customers of all markets: about 200 B each for most, so 1 GB for all of them. Shared, they are in Redis, and this bounds those whose place in the
/// sums is remembered: about 100 B each.
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
    /// The markets in which an erased customer was known.
    pub known: u32,
    /// The markets, by number, of which something about that customer may be remembered in this process.
    pub erased: Vec<u32>,
}

enum Work {
    Take(Job, Done),
    /// Let go of the log, and say so.
    Close(oneshot::Sender<()>),
}

/// Whom to tell what came of a message.
type Done = oneshot::Sender<Result<Applied, Error>>;

#[derive(Default)]
struct Job {
    events: Vec<Observed>,
    /// Where the events are from SyncShield's log: of each, the index behind its leaf.
    behind: Vec<u64>,
    followed: Option<Followed>,
    erased: Option<Erased>,
    attributed: Vec<Attributed>,
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
    /// None: the customers are here.
    shared: Option<Shared>,
}

#[derive(Debug)]
struct State {
    /// Shared, they have sums and no customers.
    markets: RwLock<HashMap<MarketId, Arc<RwLock<Market>>>>,
    accuracy: Mutex<Accuracy>,
    /// Markets that were ever made.
    numbers: AtomicU32,
    customers: AtomicU64,
    events: AtomicU64,
    followed: watch::Sender<Option<Followed>>,
    /// Written under a market's lock alone: to put something in is to read the market, and to change a customer erases what is there.
    recent: Recent,
    changes: Changes,
}

impl Store {
    /// Reads the event log in `folder` back, and starts the writer.
    ///
    /// # Errors
    /// The log cannot be read, is damaged, or is another process's.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (state, (work, waiting)) = (Arc::new(State::new()), mpsc::channel(MAX_WAITING));
        local::start(folder, &state, waiting)?;
        Ok(Self { state, work, shared: None })
    }

    /// Customers in `shared`; in `folder` is how far SyncShield's log has been read. Redis need not be there yet. The writer runs on the
    /// runtime that this is called on.
    ///
    /// # Errors
    /// The folder cannot be used, or holds events of the embedded engine.
    pub fn open_shared(folder: &Path, shared: Shared) -> Result<Self, Error> {
        let (state, (work, waiting)) = (Arc::new(State::new()), mpsc::channel(MAX_WAITING));
        shared::writer::start(folder, &state, &shared, waiting)?;
        Ok(Self { state, work, shared: Some(shared) })
    }

    /// Hands events to the writer, waiting while its queue is full. Their order is that of these calls.
    ///
    /// # Errors
    /// The writer has stopped.
    pub async fn observe(&self, events: Vec<Observed>) -> Result<Pending, Error> {
        self.take(Job { events, ..Job::default() }).await
    }

    /// Takes events of SyncShield's log in, each with the index behind its leaf, and then the position behind them all; at most
    /// [`MAX_EVENTS`].
    ///
    /// # Errors
    /// The event log failed, or Redis did.
    pub async fn follow(&self, events: Vec<(Observed, u64)>, attributed: Vec<Attributed>, followed: Followed) -> Result<Applied, Error> {
        let (events, behind) = events.into_iter().unzip();
        self.take(Job { events, behind, attributed, followed: Some(followed), erased: None }).await?.applied().await
    }

    /// Forgets a customer of a client, in all currencies.
    ///
    /// # Errors
    /// The event log failed, or Redis did: then some may be erased, and it is to be called again.
    pub async fn erase(&self, client: &ClientId, customer: &CustomerKey) -> Result<Applied, Error> {
        let erased = Erased { client: client.as_str().into(), customer: customer.0.to_vec() };
        self.take(Job { erased: Some(erased), ..Job::default() }).await?.applied().await
    }

    /// Says that SyncShield's log held nothing to take in up to here. It is not written: after a restart it is read again.
    pub fn passed(&self, followed: Followed) {
        self.state.follow(Some(followed));
    }

    async fn take(&self, job: Job) -> Result<Pending, Error> {
        let (done, pending) = oneshot::channel();
        self.work.send(Work::Take(job, done)).await.map_err(|_| Error::LogFailed("the writer has stopped".into()))?;
        Ok(Pending(pending))
    }

    /// What is known of the customers of one message, where it has to be read first; none asks for nobody.
    pub async fn fetch(&self, keys: impl Iterator<Item = Option<Key>>) -> Fetched {
        let Some(shared) = &self.shared else { return Fetched::Here };
        let keys: Vec<Option<Key>> = keys.collect();
        let asked: Vec<Key> = keys.iter().flatten().cloned().collect();
        let mut read = shared.customers(&asked).await.into_iter();
        let of = |key: &Option<Key>| {
            let known = key.as_ref().and_then(|_| read.next()).unwrap_or(Ok(None));
            if let (Some(key), Ok(Some(_))) = (key, &known) {
                self.state.admit(&key.market); // its number keeps it apart in the cache
            }
            known
        };
        Fetched::Read(keys.iter().map(of).collect())
    }

    /// Tells which customers change from now on: those of this process, if they are here.
    #[must_use]
    pub fn watch(&self) -> Watch {
        self.state.changes.watch()
    }

    /// What is said of any customer may be another from now on.
    pub fn all_changed(&self) {
        self.state.changes.tell_all();
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

    /// What predictions were worth, as far as it is known.
    pub fn accuracy<T>(&self, read: impl FnOnce(&Accuracy) -> T) -> T {
        read(&self.state.accuracy.lock())
    }

    /// Customers of all markets; shared: those whom this process has taken an event of.
    #[must_use]
    pub fn customers(&self) -> u64 {
        self.state.customers.load(Ordering::Relaxed)
    }

    /// Events that had an effect, since the log began; shared: since this process did, and by it.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.state.events.load(Ordering::Relaxed)
    }
}

impl State {
    fn new() -> Self {
        Self {
            markets: RwLock::default(),
            accuracy: Mutex::default(),
            numbers: AtomicU32::new(0),
            customers: AtomicU64::new(0),
            events: AtomicU64::new(0),
            followed: watch::Sender::new(None),
            recent: Recent::new(RECENT_BYTES),
            changes: Changes::new(),
        }
    }

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

    /// The market, where there is room for it.
    fn admit(&self, id: &MarketId) -> Option<Arc<RwLock<Market>>> {
        let known = {
            let markets = self.markets.read();
            markets.len() < MAX_MARKETS || markets.contains_key(id)
        };
        known.then(|| self.market(id))
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
        self.accuracy.lock().erase(&erased.client, &customer);
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

    /// What was taken by an engine whose customers are not here.
    fn count(&self, applied: &Result<Applied, Error>) {
        let applied = applied.as_ref().map_or(0, |applied| applied.applied);
        self.events.fetch_add(u64::from(applied), Ordering::Relaxed);
    }

    /// What the log says came of predictions.
    fn judge(&self, job: &Job) {
        if job.followed.is_some() {
            self.accuracy.lock().take(&job.attributed, &job.events);
        }
    }

    /// The same, from a record of it.
    fn judge_again(&self, record: &Record) -> Result<(), String> {
        if record.followed.is_some() {
            let attributed: Vec<_> = record.attributed.iter().map(Attributed::try_from).collect::<Result<_, _>>()?;
            let realised: Vec<_> = record.events.iter().map(Observed::try_from).collect::<Result<_, _>>()?;
            self.accuracy.lock().take(&attributed, &realised);
        }
        Ok(())
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

impl Job {
    /// Its records. A message with a position is one record, so that the two cannot come apart.
    fn records(&self) -> Vec<Record> {
        let of = |events: &[Observed]| Record { events: events.iter().map(Into::into).collect(), ..Record::default() };
        let mut records: Vec<_> = self.events.chunks(MAX_EVENTS).map(of).collect();
        records.extend(self.erased.clone().map(|erased| Record { erased: Some(erased), ..Record::default() }));
        if let Some(followed) = &self.followed {
            if records.is_empty() {
                records.push(Record::default());
            }
            if let Some(last) = records.last_mut() {
                last.followed = Some(followed.clone());
                last.attributed = self.attributed.iter().map(Into::into).collect();
            }
        }
        records
    }
}

fn answer(done: Done, result: Result<Applied, Error>) {
    // A caller that went away does not take the event back: it is in the log.
    drop(done.send(result));
}
