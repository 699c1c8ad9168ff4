//! What was last answered about each customer, read without a lock of its own and without a write: cores that answer at the same time
//! do not wait for each other's memory, which is most of what a look-up costs.
//!
//! What is here is true of the customer as it is: it is put here while nothing changes in the customer's market, and whatever changes
//! the customer erases it before anybody reads the market again. So neither the customer nor the cache has to be looked at.
//!
//! An answer's slot is two cache lines, with a count that is odd while it is written (a seqlock: Boehm, "Can seqlocks get along with
//! programming language memory models?", 2012). Who reads while another writes reads nothing, and who would put something while another
//! does, does not: what is not here is found where it comes from. A customer of a market has two neighbouring slots, whatever the model.

use std::hash::BuildHasher as _;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, fence};

use foldhash::fast::RandomState;
use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;

use super::cache::Key;
use crate::domain::predictor::{Prediction, Reason, Source};

/// An answer, and what says to which questions it is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// The customer's last purchase.
    pub last_at: UnixMicros,
    /// The day behind the last that was known.
    pub end: i64,
    /// What a model said; without its staleness.
    pub prediction: Prediction,
}

/// See the module.
#[derive(Debug)]
pub struct Recent {
    hasher: RandomState,
    /// Pairs of slots; as many as a power of two.
    pairs: Box<[[Slot; 2]]>,
}

#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    /// Of writes, twice; odd while it is written.
    count: AtomicU64,
    /// Asked for since somebody looked for a place.
    used: AtomicBool,
    words: [AtomicU64; WORDS],
}

type Words = [u64; WORDS];
const WORDS: usize = 11;
/// Where a customer's answers stand.
#[derive(Debug, Clone, Copy)]
pub struct Place(usize);

/// Bits of the last word: there is an answer, and it is the estimate's because the model failed.
const THERE: u64 = 1;
const FAILED: u64 = 2;

/// The first three words say whose it is.
fn words_of(key: &Key, answer: &Answer) -> Words {
    let Answer { last_at, end, prediction } = answer;
    let [who, whom] = halves(&key.customer);
    let model = u64::from(key.market) << 32 | u64::from(key.model);
    let chance = u64::from(prediction.p_active_ppb) << 32 | u64::from(prediction.horizon_days);
    let micros = [prediction.mean_micros, prediction.median_micros, prediction.q05_micros, prediction.q95_micros];
    let [mean, median, q05, q95] = micros.map(i64::cast_unsigned);
    let failed = if matches!(prediction.source, Source::Model(_)) { 0 } else { FAILED };
    [who, whom, model, last_at.0.cast_unsigned(), end.cast_unsigned(), chance, mean, median, q05, q95, THERE | failed]
}

fn answer_of([.., model, last_at, end, chance, mean, median, q05, q95, flags]: Words) -> Answer {
    let [mean_micros, median_micros, q05_micros, q95_micros] = [mean, median, q05, q95].map(u64::cast_signed);
    let source = if flags & FAILED == 0 { Source::Model(model as u32) } else { Source::Estimate(Reason::ModelFailed) };
    let (p_active_ppb, horizon_days) = ((chance >> 32) as u32, chance as u32);
    let prediction =
        Prediction { mean_micros, median_micros, q05_micros, q95_micros, p_active_ppb, horizon_days, source, staleness_secs: 0 };
    Answer { last_at: UnixMicros(last_at.cast_signed()), end: end.cast_signed(), prediction }
}

fn halves(customer: &CustomerKey) -> [u64; 2] {
    let both = u128::from_le_bytes(customer.0);
    [both as u64, (both >> 64) as u64]
}

fn is_of(words: &Words, key: &Key) -> bool {
    let [who, whom] = halves(&key.customer);
    words[..3] == [who, whom, u64::from(key.market) << 32 | u64::from(key.model)] && words[WORDS - 1] & THERE != 0
}

impl Slot {
    /// None while it is written.
    fn read(&self) -> Option<Words> {
        let before = self.count.load(Acquire);
        let words = self.words.each_ref().map(|word| word.load(Relaxed));
        fence(Acquire); // the words before the count
        (before.is_multiple_of(2) && self.count.load(Relaxed) == before).then_some(words)
    }

    /// Whether it was written, rather than somebody else was at it.
    fn write(&self, words: Words) -> bool {
        let before = self.count.load(Relaxed);
        if !before.is_multiple_of(2) || self.count.compare_exchange(before, before + 1, Acquire, Relaxed).is_err() {
            return false;
        }
        fence(Release); // the count before the words
        self.words.iter().zip(words).for_each(|(place, word)| place.store(word, Relaxed));
        self.count.store(before + 2, Release);
        true
    }

    /// Erases what is of a customer of a market. Whoever else writes is done in nanoseconds.
    fn erase(&self, market: u32, customer: &CustomerKey) {
        let words = loop {
            match self.read() {
                Some(words) => break words,
                None => std::hint::spin_loop(),
            }
        };
        if words[..2] == halves(customer) && (words[2] >> 32) as u32 == market {
            while !self.write([0; WORDS]) {
                std::hint::spin_loop();
            }
        }
    }
}

impl Recent {
    /// Takes at most `bytes`, or the least that it can.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let pairs = 1 << (bytes / size_of::<[Slot; 2]>()).max(1).ilog2();
        Self { hasher: RandomState::default(), pairs: std::iter::repeat_with(Default::default).take(pairs).collect() }
    }

    /// Where a customer's answers stand. The processor fetches them from memory meanwhile: to know where many stand before the first is
    /// looked at takes half the time.
    #[must_use]
    pub fn place(&self, market: u32, customer: &CustomerKey) -> Place {
        let place = self.hasher.hash_one((market, customer)) as usize & (self.pairs.len() - 1);
        let [first, _] = &self.pairs[place];
        std::hint::black_box((first.count.load(Relaxed), first.words[WORDS - 1].load(Relaxed)));
        Place(place)
    }

    fn pair(&self, place: Place) -> &[Slot; 2] {
        &self.pairs[place.0]
    }

    /// The last answer of this model about the customer whose place it is, where it still is here.
    #[must_use]
    pub fn get(&self, place: Place, key: &Key) -> Option<Answer> {
        let (slot, words) = self.find(place, key)?;
        if !slot.used.load(Relaxed) {
            slot.used.store(true, Relaxed);
        }
        Some(answer_of(words))
    }

    fn find(&self, place: Place, key: &Key) -> Option<(&Slot, Words)> {
        let read = |slot| Slot::read(slot).filter(|words| is_of(words, key)).map(|words| (slot, words));
        self.pair(place).iter().find_map(read)
    }

    /// Puts an answer in the place of the one before, in a free one, or in that of one that nobody asked for.
    pub fn put(&self, key: &Key, answer: &Answer) {
        let place = self.place(key.market, &key.customer);
        let pair = self.pair(place);
        let own = || self.find(place, key).map(|(slot, _)| slot);
        let free = || pair.iter().find(|slot| slot.words[WORDS - 1].load(Relaxed) & THERE == 0);
        let unused = || pair.iter().find(|slot| !slot.used.swap(false, Relaxed));
        own().or_else(free).or_else(unused).unwrap_or(&pair[0]).write(words_of(key, answer));
    }

    /// Forgets a customer of a market, whatever the model.
    pub fn erase(&self, market: u32, customer: &CustomerKey) {
        self.pair(self.place(market, customer)).iter().for_each(|slot| slot.erase(market, customer));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(customer: u8, market: u32, model: u32) -> Key {
        Key { market, model, customer: CustomerKey([customer; 16]) }
    }

    fn get(recent: &Recent, key: &Key) -> Option<Answer> {
        recent.get(recent.place(key.market, &key.customer), key)
    }

    /// A customer whose answers stand elsewhere than this one's: places are hashes of a random seed.
    fn elsewhere(recent: &Recent, from: &Key) -> u8 {
        let Place(taken) = recent.place(from.market, &from.customer);
        (0..=u8::MAX).find(|other| recent.place(from.market, &key(*other, 1, 1).customer).0 != taken).expect("256 customers, 256 pairs")
    }

    /// One whose every number is `n`.
    fn answer(n: u32, model: u32) -> Answer {
        let micros = i64::from(n);
        let prediction = Prediction {
            mean_micros: micros,
            median_micros: micros,
            q05_micros: micros,
            q95_micros: micros,
            p_active_ppb: n,
            horizon_days: n,
            source: Source::Model(model),
            staleness_secs: 0,
        };
        Answer { last_at: UnixMicros(micros), end: micros, prediction }
    }

    #[test]
    fn keeps_the_last_answer_of_each_model_until_the_customer_is_erased() {
        let recent = Recent::new(1 << 16);
        let other = elsewhere(&recent, &key(1, 1, 1));
        recent.put(&key(1, 1, 1), &answer(5, 1));
        recent.put(&key(1, 1, 2), &answer(6, 2));
        recent.put(&key(1, 1, 1), &answer(7, 1));
        let failed =
            Answer { prediction: Prediction { source: Source::Estimate(Reason::ModelFailed), ..answer(8, 3).prediction }, ..answer(8, 3) };
        recent.put(&key(other, 1, 3), &failed);
        assert_eq!(
            [key(1, 1, 1), key(1, 1, 2), key(other, 1, 3)].map(|key| get(&recent, &key)),
            [Some(answer(7, 1)), Some(answer(6, 2)), Some(failed)]
        );
        assert_eq!([key(1, 2, 1), key(1, 1, 3), key(other, 0, 0)].map(|key| get(&recent, &key)), [None; 3]);
        recent.erase(1, &CustomerKey([1; 16]));
        assert_eq!([key(1, 1, 1), key(1, 1, 2)].map(|key| get(&recent, &key)), [None; 2]);
        assert!(get(&recent, &key(other, 1, 3)).is_some());
    }

    #[test]
    fn who_is_asked_for_stays_when_others_come() {
        let recent = Recent::new(0);
        assert_eq!(size_of_val(&*recent.pairs), 256);
        recent.put(&key(0, 1, 1), &answer(9, 1));
        for other in 1..100 {
            assert_eq!(get(&recent, &key(0, 1, 1)), Some(answer(9, 1)), "{other}");
            recent.put(&key(other, 1, 1), &answer(1, 1));
            assert!(get(&recent, &key(0, 1, 1)).is_some(), "{other}");
        }
    }

    #[test]
    fn readers_see_whole_answers_while_others_write() {
        let recent = Recent::new(0);
        std::thread::scope(|scope| {
            for first in 0..3_u32 {
                let recent = &recent;
                scope.spawn(move || (0..50_000).for_each(|n| recent.put(&key((n % 5) as u8, 1, 0), &answer(n * 3 + first, 0))));
            }
            let mut seen = 0;
            while seen < 50_000 {
                for customer in 0..5 {
                    if let Some(seen) = get(&recent, &key(customer, 1, 0)) {
                        assert_eq!(seen, answer(seen.prediction.horizon_days, 0));
                        assert_eq!(seen.end / 3 % 5, i64::from(customer));
                    }
                    seen += 1;
                }
            }
        });
    }

    proptest! {
        #[test]
        fn words_hold_an_answer(who: [u8; 16], numbers: [u32; 4], micros: [i64; 6]) {
            let ([market, model, p_active_ppb, horizon_days], [mean_micros, median_micros, q05_micros, q95_micros, end, last]) = (numbers, micros);
            let (key, source) = (Key { market, model, customer: CustomerKey(who) }, Source::Model(model));
            let prediction =
                Prediction { mean_micros, median_micros, q05_micros, q95_micros, p_active_ppb, horizon_days, source, staleness_secs: 0 };
            let answer = Answer { last_at: UnixMicros(last), end, prediction };
            let words = words_of(&key, &answer);
            prop_assert!(is_of(&words, &key));
            prop_assert_eq!(answer_of(words), answer);
        }
    }
}
