//! The writer of the shared engine: one task takes what is waiting as a group, and brings its events into the customers that Redis has.
//!
//! The customers of a group are read and changed in batches. Where another replica's change came first, the customer is read again, and those events
//! that are not counted in it by then are applied again.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiki::ids::{ClientId, CustomerKey};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::super::kept::{self, LogAt};
use super::super::record::Erased;
use super::super::states::{self, Change, Key, MAX_BATCH};
use super::super::wal::{self, Wal};
use super::super::{Applied, Done, Job, MAX_CUSTOMERS, State, Work, answer};
use super::{Shared, currencies};
use crate::domain::customer::{Customer, Effect, REMEMBERED_IDS};
use crate::domain::market::{Market, MarketId, Observed};
use crate::domain::population::Standing;
use crate::error::Error;

/// Messages in one group: fewer than the embedded writer takes, because a group's first has to wait for its last.
const MAX_GROUP: usize = 64;
/// Events of a customer in one change: fewer than the ids that are remembered, so that a change whose answer was lost is known again
/// even where another's came after it.
const MAX_RUN: usize = REMEMBERED_IDS / 2;
/// How often a customer may be changed by others before us: of so many replicas that all want the same customer one wins each time.
const MAX_REFUSALS: u32 = 32;
/// The folder of the position, in that of the data: whoever starts without Redis again does not take it for its own.
const FOLDER: &str = "shared";

/// Starts the writer of `waiting`.
pub(in super::super) fn start(folder: &Path, state: &Arc<State>, shared: &Shared, waiting: mpsc::Receiver<Work>) -> Result<(), Error> {
    if wal::has_records(folder) {
        return Err(Error::NotShared(folder.into()));
    }
    let wal = Wal::open(&folder.join(FOLDER), |record| {
        state.judge_again(&record)?;
        if let Some(erased) = &record.erased {
            state.erase(erased);
        }
        state.follow(record.followed);
        Ok(())
    })?;
    let (state, shared) = (state.clone(), shared.clone());
    let writer = Writer { state, shared, wal: Arc::new(Mutex::new(wal)), failed: None, seen: HashMap::new(), waiting };
    tokio::spawn(writer.run());
    Ok(())
}

struct Writer {
    state: Arc<State>,
    shared: Shared,
    wal: Arc<Mutex<Wal>>,
    failed: Option<String>,
    /// Where customers stood when they were last seen, by market and pseudonym: what they add to the sums. At most [`MAX_CUSTOMERS`].
    seen: HashMap<(u32, CustomerKey), Standing>,
    waiting: mpsc::Receiver<Work>,
}

/// What became of an event, and how its customer stood then.
type Stored = (Effect, Standing);
/// The same, or why it is not stored.
type Outcome = Result<Stored, states::Error>;

/// An event, and where it stands in SyncShield's log, if it is from there.
type Incoming<'a> = (&'a Observed, Option<LogAt>);

impl Writer {
    /// Until it is closed, or every sender is gone.
    async fn run(mut self) {
        let mut work = Vec::new();
        while self.waiting.recv_many(&mut work, MAX_GROUP).await > 0 {
            let mut group = Vec::new();
            for work in work.drain(..) {
                match work {
                    Work::Take(job, done) => match &job.erased {
                        None => group.push((job, done)),
                        Some(erased) => {
                            self.take(std::mem::take(&mut group)).await; // in the order of the calls
                            answer(done, self.erase(erased).await);
                        }
                    },
                    Work::Close(done) => {
                        self.take(group).await;
                        drop(self);
                        done.send(()).ok();
                        return; // whoever waits for more sees its sender gone
                    }
                }
            }
            self.take(group).await;
        }
    }

    async fn take(&mut self, group: Vec<(Job, Done)>) {
        let mut events: Vec<Incoming<'_>> = Vec::new();
        for (job, _) in &group {
            let log = job.followed.as_ref().map_or("", |followed| followed.log_id.as_str());
            let behind = job.behind.iter().map(|index| Some(LogAt::new(log, *index))).chain(std::iter::repeat(None));
            events.extend(job.events.iter().zip(behind));
        }
        let outcomes = store(&self.shared, &events).await;
        for ((observed, _), outcome) in events.iter().zip(&outcomes) {
            if let Ok((_, standing)) = outcome {
                self.see(observed, *standing);
            }
        }
        let mut rest = outcomes.as_slice();
        for (job, done) in group {
            let (its_own, later) = rest.split_at(job.events.len());
            rest = later;
            let result = applied(its_own);
            self.state.count(&result); // whoever waits for the position sees it
            let result = match result {
                Ok(applied) if job.followed.is_some() => self.write(job).await.map(|()| applied),
                result => result,
            };
            answer(done, result);
        }
    }

    /// Brings the sums to where a customer stands now.
    fn see(&mut self, observed: &Observed, now: Standing) {
        let Some(market) = self.state.admit(&observed.market) else { return };
        let mut market = market.write();
        let key = (market.number, observed.customer);
        if self.seen.len() as u64 >= MAX_CUSTOMERS && !self.seen.contains_key(&key) {
            return;
        }
        let before = self.seen.insert(key, now).unwrap_or_default();
        if before != now {
            market.averages.seen(&before, &now);
        }
        self.state.customers.store(self.seen.len() as u64, Ordering::Relaxed);
    }

    /// Makes what the log said and the position durable, or who is forgotten, in a thread that may wait for a disk.
    async fn write(&mut self, job: Job) -> Result<(), Error> {
        if let Some(reason) = &self.failed {
            return Err(Error::LogFailed(reason.clone()));
        }
        let (wal, records) = (self.wal.clone(), job.records());
        let written = tokio::task::spawn_blocking(move || wal.lock().append(&records)).await;
        if let Err(error) = written.unwrap_or_else(|stopped| Err(Error::LogFailed(stopped.to_string()))) {
            tracing::error!(%error, "what the log said could not be written; it is not followed until a restart");
            self.failed = Some(error.to_string());
            return Err(error);
        }
        self.state.judge(&job);
        self.state.follow(job.followed);
        Ok(())
    }

    async fn erase(&mut self, erased: &Erased) -> Result<Applied, Error> {
        let (Ok(client), Some(customer)) = (ClientId::parse(&erased.client), CustomerKey::from_bytes(&erased.customer)) else {
            return Ok(Applied::default());
        };
        let market = |currency| MarketId { client: client.clone(), currency };
        let keys: Vec<Key> = currencies().iter().map(|&currency| Key { market: market(currency), customer }).collect();
        let done = self.shared.erase(&keys).await;
        let mut known = 0;
        for done in done {
            known += u32::from(done?);
        }
        let erased_here = self.forget(&client, customer);
        self.state.erase(erased); // of what predictions were worth
        self.write(Job { erased: Some(erased.clone()), ..Job::default() }).await?;
        Ok(Applied { known, erased: erased_here, ..Applied::default() })
    }

    /// Takes a customer out of the sums; all markets of the client, by number.
    fn forget(&mut self, client: &ClientId, customer: CustomerKey) -> Vec<u32> {
        let markets = self.state.markets.read();
        let forget = |(_, market): (_, &Arc<RwLock<Market>>)| {
            let mut market = market.write();
            if let Some(standing) = self.seen.remove(&(market.number, customer)) {
                market.averages.erased(&standing);
            }
            market.number
        };
        let numbers = markets.iter().filter(|(id, _)| id.client == *client).map(forget).collect();
        self.state.customers.store(self.seen.len() as u64, Ordering::Relaxed);
        numbers
    }
}

/// What came of a message's events; the first error where one was not stored.
fn applied(outcomes: &[Outcome]) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    for outcome in outcomes {
        match outcome.clone()?.0 {
            Effect::Duplicate => applied.duplicates += 1,
            Effect::Acquired | Effect::Returned | Effect::Adjusted => applied.applied += 1,
        }
    }
    Ok(applied)
}

/// The events of one customer, by their place in the group: those that are still to be stored.
struct Run {
    key: Key,
    events: VecDeque<usize>,
    refusals: u32,
}

/// Stores events, each customer's in their order.
async fn store(shared: &Shared, events: &[Incoming<'_>]) -> Vec<Outcome> {
    let mut places: HashMap<Key, usize> = HashMap::new();
    let mut runs: Vec<Run> = Vec::new();
    for (i, (observed, _)) in events.iter().enumerate() {
        let key = Key { market: observed.market.clone(), customer: observed.customer };
        let place = *places.entry(key).or_insert_with_key(|key| {
            runs.push(Run { key: key.clone(), events: VecDeque::new(), refusals: 0 });
            runs.len() - 1
        });
        runs[place].events.push_back(i);
    }
    let untried = states::Error::Unavailable { node: "states".into(), why: "not tried".into() };
    let mut outcomes = vec![Err(untried); events.len()];
    while !runs.is_empty() {
        let batch = runs.split_off(runs.len().saturating_sub(MAX_BATCH));
        runs.extend(round(shared, events, batch, &mut outcomes).await);
    }
    outcomes
}

/// Reads the customers of some runs, and changes them; the runs that are not over.
async fn round(shared: &Shared, events: &[Incoming<'_>], runs: Vec<Run>, outcomes: &mut [Outcome]) -> Vec<Run> {
    let keys: Vec<Key> = runs.iter().map(|run| run.key.clone()).collect();
    let (mut changes, mut tried, mut open) = (Vec::new(), Vec::new(), Vec::new());
    for (mut run, read) in runs.into_iter().zip(shared.read(&keys).await) {
        match read {
            Err(error) => run.fail(&error, outcomes),
            Ok(known) => {
                let (customer, at) = known.unwrap_or_default();
                let expected = customer.events;
                let (state, steps) = run.apply(events, customer, at);
                if state.events == expected {
                    run.done(steps, outcomes); // all of it is known
                    open.push(run);
                } else {
                    changes.push(Change { key: run.key.clone(), expected, state });
                    tried.push((run, steps));
                }
            }
        }
    }
    for ((mut run, steps), done) in tried.into_iter().zip(shared.put(changes).await) {
        match done {
            Ok(true) => run.done(steps, outcomes),
            Ok(false) if run.refusals < MAX_REFUSALS => run.refusals += 1,
            Ok(false) => run.fail(&states::Error::Contended { key: run.key.to_string(), tries: MAX_REFUSALS }, outcomes),
            Err(error) => run.fail(&error, outcomes),
        }
        open.push(run);
    }
    open.retain(|run| !run.events.is_empty());
    open
}

impl Run {
    /// What the first of its events make of a customer.
    fn apply(&self, events: &[Incoming<'_>], mut customer: Customer, mut at: LogAt) -> (states::State, Vec<Stored>) {
        let mut steps = Vec::new();
        for &i in self.events.iter().take(MAX_RUN) {
            let (observed, behind) = events[i];
            let effect = match behind {
                Some(behind) if at.covers(behind) => Effect::Duplicate,
                _ => customer.observe(&observed.event),
            };
            if let (Some(behind), true) = (behind, effect != Effect::Duplicate) {
                at = behind;
            }
            steps.push((effect, Standing::of(&customer)));
        }
        (kept::encode(&customer, at), steps)
    }

    /// Its first events are stored.
    fn done(&mut self, steps: Vec<Stored>, outcomes: &mut [Outcome]) {
        self.refusals = 0;
        for (i, step) in self.events.drain(..steps.len()).zip(steps) {
            outcomes[i] = Ok(step);
        }
    }

    /// None of what is left is.
    fn fail(&mut self, error: &states::Error, outcomes: &mut [Outcome]) {
        self.events.drain(..).for_each(|i| outcomes[i] = Err(error.clone()));
    }
}
