//! Where each customer's state of the recurrent model is kept: in a Redis or Redis Cluster that several
//! SyncValues share.
//!
//! A state is bytes and the number of events that they are made of. A change replaces it only where the stored number is the
//! one that the change was computed from, so that of two writers who read the same state one is refused, reads again, and loses
//! nothing.
//!
//! What a caller must know:
//! - **Absent is not "no events".** A state may have been evicted, or lost with a Redis that failed over; whoever holds the
//!   events computes it again.
//! - **After an error** a change may or may not have been applied. To send it again is safe: where the stored state already
//!   has its number and its bytes, it is applied. The bytes of two different changes to the same number must therefore differ, which
//!   they do where a state carries the ids of its last events.
//! - **After a refusal** the caller reads the state again and looks there whether its event is counted: an earlier try may have been
//!   applied, and another writer have gone on from it.
//! - **An erased customer** starts from nothing. A change from a number above 0 is refused from then on; one from 0 is a new
//!   customer, so whoever erases stops the events of that customer first. Numbers start again after an erasure, so a
//!   change must not be kept back over one.
//!
//! One suite of behaviours runs on a real Redis and a real cluster: `tests/it/states/conformance.rs`.

pub mod redis;

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use kiki::ids::CustomerKey;

use crate::domain::market::MarketId;

/// The largest state, bytes: sixteen times what a model of four layers with 256 numbers each needs.
pub const MAX_BYTES: usize = 64 << 10;
/// The most keys or changes of one call: 16 MiB of the largest states, which take 0.13 s at 1 Gbit/s; 0.5 MiB of usual ones.
pub const MAX_BATCH: usize = 256;

/// Whose state: a client's customer in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client and currency.
    pub market: MarketId,
    /// The customer.
    pub customer: CustomerKey,
}

impl fmt::Display for Key {
    /// `acme:EUR:` and the pseudonym as 32 hexadecimal digits. Neither part has a colon, so two keys never run together.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { market, customer } = self;
        write!(f, "{}:{}:{:032x}", market.client, market.currency, u128::from_be_bytes(customer.0))
    }
}

/// A customer's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How many events it is made of; at least 1.
    pub events: u64,
    /// What the model says of them; at most [`MAX_BYTES`].
    pub bytes: Bytes,
}

/// A state that takes the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Whose.
    pub key: Key,
    /// The events of the state that it was computed from; 0 where there was none.
    pub expected: u64,
    /// The new state. It has at least as many events as `expected`; the same number is the same events by another model.
    pub state: State,
}

/// Why a state was not read or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A state beyond the limit.
    #[error("state.bytes: {got} bytes; at most {MAX_BYTES} are taken")]
    TooLarge {
        /// How many there were.
        got: usize,
    },
    /// A state of fewer events than the one that it was computed from, or of none.
    #[error("state.events: {got}; at least {least} after a state of {expected}")]
    Events {
        /// The state's.
        got: u64,
        /// The change's `expected`.
        expected: u64,
        /// How many there must be.
        least: u64,
    },
    /// More keys or changes in one call than are taken.
    #[error("a call with {got} keys; at most {MAX_BATCH} are taken")]
    TooMany {
        /// How many there were.
        got: usize,
    },
    /// An address that is none.
    #[error("states: {0}")]
    Address(String),
    /// Calls in flight are at their bound.
    #[error("redis: {limit} states are being read and written; no more are taken until some are done")]
    Busy {
        /// The bound.
        limit: usize,
    },
    /// No answer, or one that says to come again. A change may have been applied all the same.
    #[error("redis {node}: {why}")]
    Unavailable {
        /// Host and port; the addresses that were given where none is known yet.
        node: String,
        /// Refused, lost, late, loading, or waiting for the next try.
        why: String,
    },
    /// The server does not do it: it is full, read-only, or does not permit it. Nothing was changed.
    #[error("redis {node} refuses: {why}")]
    Refused {
        /// Host and port.
        node: String,
        /// What it said.
        why: String,
    },
    /// No master serves this part of the cluster.
    #[error("redis: no master serves slot {slot}")]
    NoMaster {
        /// The part.
        slot: u16,
    },
    /// Others changed the customer each time before we did.
    #[error("redis: {key} was changed by others {tries} times in a row")]
    Contended {
        /// Whose state.
        key: String,
        /// How often it was tried.
        tries: u32,
    },
    /// What is stored is not a state.
    #[error("redis: {key} holds {what}, which is no state")]
    Damaged {
        /// Its name in Redis.
        key: String,
        /// What is there.
        what: String,
    },
}

/// An answer for each key or change, in their order: where some cannot be had, the others still are.
pub type Answers<'a, T> = Pin<Box<dyn Future<Output = Vec<Result<T, Error>>> + Send + 'a>>;

/// A place for states. A call that is dropped may have been done, in part or whole.
pub trait States: fmt::Debug + Send + Sync {
    /// Reads the states of at most [`MAX_BATCH`] keys; none where there is none. What has no answer within `patience` is an error, and what
    /// other nodes answered by then is not.
    fn get_within<'a>(&'a self, keys: &'a [Key], patience: Duration) -> Answers<'a, Option<State>>;

    /// The same, with the time that any call has.
    fn get<'a>(&'a self, keys: &'a [Key]) -> Answers<'a, Option<State>>;

    /// Makes at most [`MAX_BATCH`] changes; false where the stored state has another number of events than expected. Changes of
    /// one key are made in their order.
    fn put(&self, changes: Vec<Change>) -> Answers<'_, bool>;

    /// Forgets at most [`MAX_BATCH`] customers, known or not; whether each was known, as far as the last try saw.
    fn erase<'a>(&'a self, keys: &'a [Key]) -> Answers<'a, bool>;
}

/// Whether a call may have so many keys.
fn check_batch(got: usize) -> Result<(), Error> {
    if got > MAX_BATCH { Err(Error::TooMany { got }) } else { Ok(()) }
}

impl Change {
    /// Whether it is within the limits.
    fn check(&self) -> Result<(), Error> {
        let (events, expected) = (self.state.events, self.expected);
        let least = expected.max(1);
        match self.state.bytes.len() {
            got if got > MAX_BYTES => Err(Error::TooLarge { got }),
            _ if events < least => Err(Error::Events { got: events, expected, least }),
            _ => Ok(()),
        }
    }
}
