//! States in this process's memory: gone when it ends, and never more than so many bytes.
//!
//! Customers are spread over 64 shards by their pseudonym, which is uniform, each behind a lock of its own that is held
//! for one state at a time. Where a shard is full, room is made by second chance (CLOCK): a hand goes round the
//! shard's states, passes those that were read or changed since it last came by, and forgets the first that was not. That is
//! close to the least recently used one at the price of one bit, and customers who are seen once go before those who come
//! again. The state that is being written is never forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus::IntCounter;

use super::{Answers, Change, Error, Key, MAX_BYTES, State, States, check_batch};

/// Locks: many more than there are cores.
const SHARDS: usize = 64;
/// What a state takes besides its bytes: its key (56 B and a client of 10 or so), its places in two tables that may be half
/// empty (2 x (17 + 56) B), what sharing its bytes with readers takes (40 B), and the allocator's share. By sizes, not measured.
const ENTRY: usize = 300;
/// The least that can be given: each shard has room for the largest state.
pub const LEAST: usize = SHARDS * (MAX_BYTES + ENTRY);

/// States in memory.
#[derive(Debug)]
pub struct Memory {
    shards: Vec<Mutex<Shard>>,
    /// Bytes of one shard.
    room: usize,
    evictions: IntCounter,
}

impl Memory {
    /// Takes up to `bytes`, keys and tables counted in. `evictions` counts the states that had to go.
    ///
    /// # Errors
    /// Fewer than [`LEAST`].
    pub fn new(bytes: usize, evictions: IntCounter) -> Result<Self, Error> {
        if bytes < LEAST {
            return Err(Error::TooSmall { got: bytes, least: LEAST });
        }
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Ok(Self { shards, room: bytes / SHARDS, evictions })
    }

    /// The bytes that are taken, keys and tables counted in.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[usize::from(key.customer.0[15]) % SHARDS]
    }

    fn put_one(&self, change: Change) -> Result<bool, Error> {
        change.check()?;
        let (done, evicted) = self.shard(&change.key).lock().put(change, self.room);
        self.evictions.inc_by(evicted);
        Ok(done)
    }
}

impl States for Memory {
    fn get<'a>(&'a self, keys: &'a [Key]) -> Answers<'a, Option<State>> {
        Box::pin(async move {
            match check_batch(keys.len()) {
                Ok(()) => keys.iter().map(|key| Ok(self.shard(key).lock().get(key))).collect(),
                Err(error) => vec![Err(error); keys.len()],
            }
        })
    }

    fn put(&self, changes: Vec<Change>) -> Answers<'_, bool> {
        Box::pin(async move {
            match check_batch(changes.len()) {
                Ok(()) => changes.into_iter().map(|change| self.put_one(change)).collect(),
                Err(error) => vec![Err(error); changes.len()],
            }
        })
    }

    fn erase<'a>(&'a self, key: &'a Key) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'a>> {
        Box::pin(async move {
            self.shard(key).lock().erase(key);
            Ok(())
        })
    }
}

/// A part of the states.
#[derive(Debug, Default)]
struct Shard {
    places: HashMap<Arc<Key>, usize>,
    entries: Vec<Entry>,
    /// Where the next search for room begins.
    hand: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    key: Arc<Key>,
    state: State,
    /// Read or changed since the hand came by.
    used: bool,
}

impl Entry {
    fn cost(&self) -> usize {
        ENTRY + self.state.bytes.len()
    }
}

impl Shard {
    fn get(&mut self, key: &Key) -> Option<State> {
        let entry = &mut self.entries[*self.places.get(key)?];
        entry.used = true;
        Some(entry.state.clone())
    }

    /// Whether it was done, and how many others had to go.
    fn put(&mut self, change: Change, room: usize) -> (bool, u64) {
        let place = self.places.get(&change.key).copied();
        let stored = place.map(|place| &self.entries[place].state);
        if !change.follows(stored) {
            return (stored == Some(&change.state), 0);
        }
        // A slice of a message would keep all of the message.
        let state = State { bytes: Bytes::copy_from_slice(&change.state.bytes), ..change.state };
        let used = place.is_some(); // a new one has to come again to count as used
        let place = place.unwrap_or_else(|| self.insert(change.key));
        let entry = &mut self.entries[place];
        self.bytes = self.bytes - entry.state.bytes.len() + state.bytes.len();
        (entry.state, entry.used) = (state, used);
        (true, self.make_room(place, room))
    }

    /// A place without bytes.
    fn insert(&mut self, key: Key) -> usize {
        let key = Arc::new(key);
        self.places.insert(key.clone(), self.entries.len());
        self.entries.push(Entry { key, state: State { events: 0, bytes: Bytes::new() }, used: false });
        self.bytes += ENTRY;
        self.entries.len() - 1
    }

    /// Forgets states other than the one at `kept` until the rest fits, and says how many. One alone always fits.
    fn make_room(&mut self, mut kept: usize, room: usize) -> u64 {
        let mut evicted = 0;
        while self.bytes > room {
            self.hand %= self.entries.len();
            if self.hand == kept || std::mem::take(&mut self.entries[self.hand].used) {
                self.hand += 1;
                continue;
            }
            self.remove(self.hand);
            evicted += 1;
            // The last one took the free place.
            if kept == self.entries.len() {
                kept = self.hand;
            }
        }
        evicted
    }

    fn erase(&mut self, key: &Key) {
        if let Some(place) = self.places.get(key).copied() {
            self.remove(place);
        }
    }

    /// Forgets the state at `place`, which the last one takes.
    fn remove(&mut self, place: usize) {
        let gone = self.entries.swap_remove(place);
        self.places.remove(&gone.key);
        self.bytes -= gone.cost();
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.key.clone(), place);
        }
    }
}
