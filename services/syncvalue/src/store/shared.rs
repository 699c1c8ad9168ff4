//! Customers in a Redis or Redis Cluster that several SyncValues share: each is one value, changed by compare-and-set on its number of events.
//!
//! - **Acknowledged** is what Redis has taken; what that is worth is said in [`super::states::redis`]. A message is acknowledged once all of its
//!   events are stored. Of one that failed some may be: sent again, those count as duplicates.
//! - **Once.** Where two replicas make the very same change, it is made once, and both say so. A customer's value carries the ids of its last events, and up to where SyncShield's log is counted in it. Every replica
//!   follows the whole log, at its own pace, and the two tell each of them what another has counted already.
//! - **Here** is what can be made again: the networks' states, which are checked against the customer that was read, and the sums over the population
//!   that the estimate is made from. Those are over the customers of whom *this replica has taken an event* since it started, as they stood when it last
//!   did, whoever counted the event. So a replica that has just started has no estimate of its own; a model's stands in for it, where one is loaded.
//! - **Out of reach.** A question about a customer who cannot be read in time is answered as for one who is not known; events are refused.
//!
//! An erasure asks for the customer in every currency of ISO 4217, in one batch, and forgets what this replica has made of the customer. Each other
//! replica is told as well: it has the networks' states, the place in the sums, and what the log said of the customer, under the pseudonym.

pub(super) mod writer;

use std::ops::Range;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use kiki::money::Currency;
use prometheus::{IntCounter, IntCounterVec};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::kept::{self, LogAt};
use super::states::{Change, Error, Key, MAX_BATCH, State, States};
use crate::domain::customer::Customer;

/// What is known of a customer; an error where that cannot be read.
pub type Known = Result<Option<Customer>, Error>;

/// What is known of the customers of one message.
#[derive(Debug)]
pub enum Fetched {
    /// They are in the market.
    Here,
    /// As they were read, in the order of the questions; none where nothing is known.
    Read(Vec<Known>),
}

impl Fetched {
    /// Those of some of the questions; none where they are in the market.
    #[must_use]
    pub fn some(&self, questions: Range<usize>) -> Option<&[Known]> {
        match self {
            Self::Here => None,
            Self::Read(known) => Some(&known[questions]),
        }
    }
}

/// How often what happened.
#[derive(Debug, Clone)]
pub struct Counters {
    /// States that were read, written or erased, by `call` and `result`.
    pub states: IntCounterVec,
    /// Changes that another replica's came before, and that were made again.
    pub retries: IntCounter,
}

/// See the module; clones are the same one.
#[derive(Debug, Clone)]
pub struct Shared {
    states: Arc<dyn States>,
    /// How long a question waits for its customers.
    patience: Duration,
    counters: Counters,
    /// One at a time; see [`Shared::probe`].
    probing: Arc<Semaphore>,
}

impl Shared {
    /// Customers in `states`, for which a question waits no longer than `patience`.
    #[must_use]
    pub fn new(states: Arc<dyn States>, patience: Duration, counters: Counters) -> Self {
        Self { states, patience, counters, probing: Arc::new(Semaphore::new(1)) }
    }

    /// Customers as they are stored, in the order of their keys, within the patience of a question.
    pub(super) async fn customers(&self, keys: &[Key]) -> Vec<Result<Option<Customer>, Error>> {
        let end = Instant::now() + self.patience;
        let mut known = Vec::with_capacity(keys.len());
        for part in keys.chunks(MAX_BATCH) {
            let read = self.states.get_within(part, end.saturating_duration_since(Instant::now())).await;
            known.extend(self.decoded("get", part, read).into_iter().map(|read| Ok(read?.map(|(customer, _)| customer))));
        }
        let silent = keys.iter().zip(&known).filter(|(_, known)| matches!(known, Err(Error::Unavailable { .. }))).map(|(key, _)| key);
        self.probe(silent.take(MAX_BATCH).cloned().collect());
        known
    }

    /// Asks for customers again with all the time that a call has, behind the questions' back: so that a connection that is lost, or a node that
    /// has gone, is noticed even where every question gives up before.
    fn probe(&self, silent: Vec<Key>) {
        if silent.is_empty() {
            return;
        }
        if let Ok(alone) = self.probing.clone().try_acquire_owned() {
            let states = self.states.clone();
            tokio::spawn(async move {
                let found = states.get(&silent).await;
                tracing::debug!(asked = silent.len(), answered = found.iter().flatten().count(), "asked again for customers' states");
                drop(alone);
            });
        }
    }

    /// The same to change them, with the time of any call.
    async fn read(&self, keys: &[Key]) -> Vec<Result<Option<(Customer, LogAt)>, Error>> {
        let read = self.states.get(keys).await;
        self.decoded("read", keys, read)
    }

    fn decoded(&self, call: &str, keys: &[Key], read: Vec<Result<Option<State>, Error>>) -> Vec<Result<Option<(Customer, LogAt)>, Error>> {
        let decode = |(key, read): (&Key, Result<Option<State>, Error>)| match read? {
            Some(state) => kept::decode(&state).map(Some).map_err(|what| Error::Damaged { key: key.to_string(), what }),
            None => Ok(None),
        };
        let known: Vec<_> = keys.iter().zip(read).map(decode).collect();
        self.count(call, known.iter().map(|known| known.is_ok()));
        known
    }

    /// Changes customers; false where another came before.
    async fn put(&self, changes: Vec<Change>) -> Vec<Result<bool, Error>> {
        let done = self.states.put(changes).await;
        self.count("put", done.iter().map(Result::is_ok));
        self.counters.retries.inc_by(done.iter().filter(|done| matches!(done, Ok(false))).count() as u64);
        done
    }

    /// Forgets them; whether each was known.
    async fn erase(&self, keys: &[Key]) -> Vec<Result<bool, Error>> {
        let mut done = Vec::with_capacity(keys.len());
        for part in keys.chunks(MAX_BATCH) {
            done.extend(self.states.erase(part).await);
        }
        self.count("erase", done.iter().map(Result::is_ok));
        done
    }

    fn count(&self, call: &str, done: impl Iterator<Item = bool>) {
        let (ok, failed): (Vec<bool>, Vec<bool>) = done.partition(|done| *done);
        for (result, count) in [("ok", ok.len()), ("failed", failed.len())] {
            self.counters.states.with_label_values(&[call, result]).inc_by(count as u64);
        }
    }
}

/// Every currency that a market can have: some 180.
fn currencies() -> &'static [Currency] {
    static ALL: LazyLock<Vec<Currency>> = LazyLock::new(|| {
        let letters = || (b'A'..=b'Z').map(char::from);
        let pairs = letters().flat_map(|a| letters().map(move |b| [a, b]));
        let codes = pairs.flat_map(|[a, b]| letters().map(move |c| String::from_iter([a, b, c])));
        codes.filter_map(|code| Currency::parse(&code).ok()).collect()
    });
    &ALL
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kiki::ids::{ClientId, CustomerKey};

    use super::super::states::Answers;
    use super::*;
    use crate::domain::market::MarketId;

    /// Says nothing for as long as it is asked for.
    #[derive(Debug)]
    struct Silent;

    impl States for Silent {
        fn get_within<'a>(&'a self, keys: &'a [Key], patience: Duration) -> Answers<'a, Option<State>> {
            let silent = move || Error::Unavailable { node: "silent".into(), why: format!("no answer within {} ms", patience.as_millis()) };
            Box::pin(async move {
                tokio::time::sleep(patience).await;
                keys.iter().map(|_| Err(silent())).collect()
            })
        }

        fn get<'a>(&'a self, keys: &'a [Key]) -> Answers<'a, Option<State>> {
            self.get_within(keys, Duration::from_secs(1))
        }

        fn put(&self, _: Vec<Change>) -> Answers<'_, bool> {
            panic!("a question changes nothing")
        }

        fn erase<'a>(&'a self, _: &'a [Key]) -> Answers<'a, bool> {
            panic!("a question erases nothing")
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_of_several_batches_waits_for_silent_states_once() {
        let states = IntCounterVec::new(prometheus::Opts::new("states", "states"), &["call", "result"]).unwrap();
        let counters = Counters { states, retries: IntCounter::new("retries", "retries").unwrap() };
        let market = MarketId { client: ClientId::parse("acme").unwrap(), currency: Currency::USD };
        let key = |n: usize| Key { market: market.clone(), customer: CustomerKey((n as u128).to_be_bytes()) };
        let keys: Vec<_> = (0..2 * MAX_BATCH + 1).map(key).collect();
        for patience in [1, 25, 1_000].map(Duration::from_millis) {
            let shared = Shared::new(Arc::new(Silent), patience, counters.clone());
            let asked = Instant::now();
            let answers = shared.customers(&keys).await;
            assert_eq!(asked.elapsed(), patience);
            assert_eq!(answers.len(), keys.len());
            assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Unavailable { .. }))));
        }
    }

    #[test]
    fn every_currency_is_asked_for() {
        let all = currencies();
        assert!((150..=MAX_BATCH).contains(&all.len()), "{}", all.len());
        for code in ["USD", "EUR", "JPY", "KWD", "ZWL"] {
            assert!(Currency::parse(code).is_err() || all.iter().any(|currency| currency.code() == code), "{code}");
        }
    }
}
