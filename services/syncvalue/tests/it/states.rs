//! One suite of behaviours for every place of states, and what each does beyond it.

mod cluster;
mod conformance;
mod load;
mod redis;

use std::time::Duration;

use bytes::Bytes;
use kiki::ids::{ClientId, CustomerKey};
use kiki::money::Currency;
use syncvalue::domain::market::MarketId;
use syncvalue::store::states::redis::Redis;
use syncvalue::store::states::{Change, Error, Key, State, States};

/// States in a Redis that answers, however slow the machine is.
pub fn patient(urls: &[String]) -> Redis {
    Redis::with_timeout(urls, Duration::from_secs(60)).unwrap()
}

/// A key of a client's customer in US dollars.
pub fn key(client: &str, customer: u128) -> Key {
    let market = MarketId { client: ClientId::parse(client).unwrap(), currency: Currency::USD };
    Key { market, customer: CustomerKey(customer.to_be_bytes()) }
}

pub fn state(events: u64, bytes: impl Into<Bytes>) -> State {
    State { events, bytes: bytes.into() }
}

pub fn change(key: &Key, expected: u64, state: State) -> Change {
    Change { key: key.clone(), expected, state }
}

pub async fn get(states: &dyn States, key: &Key) -> Result<Option<State>, Error> {
    let mut answers = states.get(std::slice::from_ref(key)).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}

pub async fn put(states: &dyn States, change: Change) -> Result<bool, Error> {
    let mut answers = states.put(vec![change]).await;
    assert_eq!(answers.len(), 1);
    answers.remove(0)
}
