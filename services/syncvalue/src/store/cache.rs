//! What the networks remember of each customer, and what they last said: in memory, and never more than so many bytes.
//!
//! All of it can be made again from the customer's days, so that what is forgotten costs time and nothing else. Customers are spread over 64
//! shards by their pseudonym, which is uniform, each behind a lock of its own that is held while one entry is looked up. Where a shard is
//! full, room is made by second chance (CLOCK): a hand goes round the shard's entries, passes those that were asked for since it last came by,
//! and forgets the first that was not. That is close to the least recently used one at the price of one bit, and customers who are seen
//! once go before those who come again. Questions that come again and again are answered before they come here ([`super::recent`]).

use std::collections::HashMap;

use foldhash::fast::RandomState;
use kiki::ids::CustomerKey;
use parking_lot::Mutex;
use prometheus::IntCounter;

use crate::domain::model::state::State;
use crate::domain::predictor::Prediction;
use crate::domain::serving::Asked;

/// Locks: many more than there are cores.
const SHARDS: usize = 64;
/// What an entry takes besides the networks' state: itself, and its key's place in a table that may be half empty. By sizes, not measured.
const ENTRY: usize = size_of::<Entry>() + 2 * (size_of::<Key>() + size_of::<usize>());
/// The least that can be given.
pub const LEAST: usize = 1 << 20;

/// Whose, and of which model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The client and currency, by number.
    pub market: u32,
    /// The model, by number.
    pub model: u32,
    /// The customer.
    pub customer: CustomerKey,
}

/// See the module.
#[derive(Debug)]
pub struct Cache {
    shards: Vec<Mutex<Shard>>,
    /// Bytes of one shard.
    room: usize,
    evictions: IntCounter,
}

/// What was answered to which question, when the customer was as the stamp says.
#[derive(Debug, Clone, Copy)]
pub struct Answer {
    /// [`crate::domain::customer::Customer::stamp`].
    pub stamp: u64,
    /// [`Asked::end`].
    pub end: i64,
    /// The answer.
    pub prediction: Prediction,
}

#[derive(Debug, Default)]
struct Shard {
    /// Of customers who are known, whose pseudonyms nobody can choose.
    places: HashMap<Key, usize, RandomState>,
    entries: Vec<Entry>,
    /// Where the next search for room begins.
    hand: usize,
    bytes: usize,
    /// How often a customer of the shard was erased.
    era: u64,
}

#[derive(Debug)]
struct Entry {
    key: Key,
    answer: Answer,
    /// None while a question has it out.
    state: Option<State>,
    /// Asked for since the hand came by.
    used: bool,
}

impl Entry {
    fn cost(&self) -> usize {
        ENTRY + self.state.as_ref().map_or(0, State::bytes)
    }
}

impl Cache {
    /// Takes up to `bytes`, at least [`LEAST`]. `evictions` counts the entries that had to go.
    #[must_use]
    pub fn new(bytes: usize, evictions: IntCounter) -> Self {
        let shards = std::iter::repeat_with(Mutex::default).take(SHARDS).collect();
        Self { shards, room: bytes.max(LEAST) / SHARDS, evictions }
    }

    fn shard(&self, key: &Key) -> &Mutex<Shard> {
        &self.shards[usize::from(key.customer.0[15]) % SHARDS]
    }

    /// The bytes that are taken.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().bytes).sum()
    }

    /// What was answered to the same question when the customer was the same.
    #[must_use]
    pub fn answer(&self, key: &Key, stamp: u64, asked: Asked) -> Option<Prediction> {
        let mut shard = self.shard(key).lock();
        let place = *shard.places.get(key)?;
        let entry = &mut shard.entries[place];
        entry.used = true;
        let Answer { stamp: of, end, prediction } = entry.answer;
        (of == stamp && end == asked.end && prediction.horizon_days == asked.horizon_days).then_some(prediction)
    }

    /// Takes the networks' state out, so that nobody waits while it is stepped on; [`Cache::put`] brings it back.
    #[must_use]
    pub fn take(&self, key: &Key) -> Option<State> {
        let mut shard = self.shard(key).lock();
        let place = *shard.places.get(key)?;
        let state = shard.entries[place].state.take();
        shard.bytes -= state.as_ref().map_or(0, State::bytes);
        state
    }

    /// Which erasures a customer who is still known has outlived: to be taken while the customer is looked at, and given to [`Cache::put`].
    #[must_use]
    pub fn era(&self, key: &Key) -> u64 {
        self.shard(key).lock().era
    }

    /// Keeps what was found, and with it what the networks remember: unless somebody was erased since the customer was looked at, who may be this one.
    pub fn put(&self, key: Key, era: u64, answer: Answer, state: Option<State>) {
        let mut shard = self.shard(&key).lock();
        if shard.era == era {
            self.evictions.inc_by(shard.put(key, answer, state, self.room));
        }
    }

    /// Forgets a customer of a market, whatever the model.
    pub fn erase(&self, market: u32, customer: &CustomerKey) {
        let key = Key { market, model: 0, customer: *customer };
        let mut shard = self.shard(&key).lock();
        shard.era += 1;
        shard.retain(|key| (key.market, &key.customer) != (market, customer));
    }

    /// Forgets what is of other models than these.
    pub fn keep(&self, models: &[u32]) {
        self.shards.iter().for_each(|shard| shard.lock().retain(|key| models.contains(&key.model)));
    }
}

impl Shard {
    /// How many others had to go.
    fn put(&mut self, key: Key, answer: Answer, state: Option<State>, room: usize) -> u64 {
        let place = self.places.get(&key).copied();
        let used = place.is_some(); // a new one has to come again to count as used
        let entry = Entry { key, answer, state, used };
        let place = place.unwrap_or(self.entries.len());
        self.bytes += entry.cost();
        if let Some(before) = self.entries.get_mut(place) {
            self.bytes -= before.cost();
            *before = entry;
        } else {
            self.places.insert(key, place);
            self.entries.push(entry);
        }
        self.make_room(place, room)
    }

    /// Forgets entries other than the one at `kept` until the rest fits, and says how many. One alone always stays.
    fn make_room(&mut self, mut kept: usize, room: usize) -> u64 {
        let mut evicted = 0;
        while self.bytes > room && self.entries.len() > 1 {
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

    fn retain(&mut self, keeps: impl Fn(&Key) -> bool) {
        for place in (0..self.entries.len()).rev() {
            if !keeps(&self.entries[place].key) {
                self.remove(place);
            }
        }
    }

    /// Forgets the entry at `place`, which the last one takes.
    fn remove(&mut self, place: usize) {
        let gone = self.entries.swap_remove(place);
        self.places.remove(&gone.key);
        self.bytes -= gone.cost();
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.key, place);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn key(customer: u8, model: u32) -> Key {
        Key { market: 1, model, customer: CustomerKey([customer; 16]) }
    }

    const ASKED: Asked = Asked { end: 9, horizon_days: 90 };

    fn nothing() -> Prediction {
        Prediction::nothing(90)
    }

    fn said(stamp: u64) -> Answer {
        Answer { stamp, end: ASKED.end, prediction: nothing() }
    }

    fn cache(entries: usize) -> Cache {
        let evictions = IntCounter::new("evictions", "of a test").unwrap();
        Cache { shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(), room: entries * ENTRY, evictions }
    }

    #[test]
    fn answers_the_same_question_of_the_same_customer_alone() {
        let cache = cache(10);
        cache.put(key(1, 1), 0, said(7), None);
        assert_eq!(cache.answer(&key(1, 1), 7, ASKED), Some(nothing()));
        assert_eq!(cache.answer(&key(1, 1), 8, ASKED), None);
        assert_eq!(cache.answer(&key(1, 1), 7, Asked { end: 10, ..ASKED }), None);
        assert_eq!(cache.answer(&key(1, 1), 7, Asked { horizon_days: 91, ..ASKED }), None);
        assert_eq!(cache.answer(&key(1, 2), 7, ASKED), None);
        cache.erase(1, &CustomerKey([1; 16]));
        assert_eq!((cache.answer(&key(1, 1), 7, ASKED), cache.bytes()), (None, 0));
        // A question that was under way brings nobody back.
        cache.put(key(1, 1), 0, said(7), None);
        assert_eq!(cache.answer(&key(1, 1), 7, ASKED), None);
        cache.put(key(1, 1), cache.era(&key(1, 1)), said(7), None);
        assert_eq!(cache.answer(&key(1, 1), 7, ASKED), Some(nothing()));
    }

    #[test]
    fn who_comes_again_outlives_who_came_once() {
        let cache = cache(4);
        // All of one shard.
        let of = |i: u8| Key { customer: CustomerKey([i, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5]), ..key(0, 1) };
        for i in 0..40 {
            cache.put(of(i), 0, said(1), None);
            assert!(i == 0 || cache.answer(&of(0), 1, ASKED).is_some(), "{i}");
        }
        assert_eq!(cache.evictions.get(), 36);
        assert_eq!(cache.bytes(), 4 * ENTRY);
    }

    proptest! {
        #[test]
        fn never_takes_more_than_it_was_given(puts in prop::collection::vec((any::<u8>(), 0..3_u32, any::<bool>()), 0..300)) {
            let cache = cache(3);
            for (customer, model, again) in puts {
                cache.put(key(customer, model), 0, said(1), None);
                if again {
                    prop_assert!(cache.answer(&key(customer, model), 1, ASKED).is_some());
                }
                for shard in &cache.shards {
                    let shard = shard.lock();
                    prop_assert!(shard.bytes <= 3 * ENTRY);
                    prop_assert_eq!(shard.bytes, shard.entries.iter().map(Entry::cost).sum::<usize>());
                    prop_assert!(shard.places.iter().all(|(key, place)| shard.entries[*place].key == *key));
                }
            }
            cache.keep(&[2]);
            prop_assert!(cache.shards.iter().all(|shard| shard.lock().entries.iter().all(|entry| entry.key.model == 2)));
        }
    }
}
