//! How many bids may be under way at once, found by how long they take: one more for each round of bids that were in time, a
//! tenth less where more than a tenth of a round were late. What does not fit is turned away at once, while there is time to say so.
//!
//! Additive increase, multiplicative decrease, as in TCP (Chiu and Jain, "Analysis of the Increase and Decrease Algorithms for
//! Congestion Avoidance in Computer Networks", 1989), on concurrency rather than a rate, after Netflix's concurrency-limits
//! (`AIMDLimit`: a tenth off for a late call; more only while the limit is made use of). Ours differ in two things:
//!
//! - Late is what took more than its due: a share of its deadline, and less where bids have been quick. Four times the
//!   quickest bid of the last seconds says that a queue has formed, long before a deadline of 100 ms does.
//! - It goes by rounds, of as many bids as it lets in: some wait for a lease or a disk now and then, and that is no queue; and
//!   those that were let in under an earlier limit say little of this one.
//!
//! No lock: counts and limit are words of their own. Between asking and entering others may enter, and are counted: the limit is
//! never passed but by a message that found nobody, because whoever finds it passed leaves again. Time is an argument: the time
//! since the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Always let in: enough to find out that it goes well again, few enough to be answered by one core within milliseconds.
pub const LEAST: u64 = 16;
/// Before anything is known: sixteen messages of 64 at once.
pub const FIRST: u64 = 1_024;
/// At the most: as many are answered by eight cores within a deadline of 100 ms.
pub const MOST: u64 = 8_192;
/// Below this nothing is late: the clock, the scheduler and a flush of the log take as long.
const QUICK: Duration = Duration::from_micros(500);
/// So many times the quickest bid of late is a queue.
const TIMES_QUICKEST: u32 = 4;
/// Bids of a round, at the least.
const LEAST_ROUND: u64 = 64;
/// A round of which more than one in so many were late lowers the limit, by one in so many.
const TENTH: u64 = 10;
/// The quickest bid is that of this span and the one before it.
const SPAN: Duration = Duration::from_secs(5);

/// The limit.
#[derive(Debug)]
pub struct Limit {
    limit: AtomicU64,
    under_way: AtomicU64,
    /// Of this round: bids in the upper half, late ones in the lower.
    round: AtomicU64,
    /// Of an even and an odd span: its number in the upper half, its quickest bid in microseconds in the lower.
    quickest: [AtomicU64; 2],
}

impl Default for Limit {
    fn default() -> Self {
        let never = || AtomicU64::new(u64::MAX);
        Self { limit: AtomicU64::new(FIRST), under_way: AtomicU64::new(0), round: AtomicU64::new(0), quickest: [never(), never()] }
    }
}

impl Limit {
    /// How many are let in.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.under_way.load(Ordering::Relaxed)
    }

    /// How many of these are let in; they have to leave. Where nothing is under way all of them are: they come in one message,
    /// and its first answer waits for no other's.
    #[must_use]
    pub fn enter(&self, count: u64) -> u64 {
        let before = self.under_way.fetch_add(count, Ordering::Relaxed);
        let room = if before == 0 { count } else { self.get().saturating_sub(before) };
        let entered = count.min(room);
        self.leave(count - entered);
        entered
    }

    /// So many are answered, or given up.
    pub fn leave(&self, count: u64) {
        self.under_way.fetch_sub(count, Ordering::Relaxed);
    }

    /// One took so long, of at most `due`; before it leaves.
    pub fn took(&self, took: Duration, due: Duration, now: Duration) {
        let quickest = self.quickest(took, now);
        self.judge(took > due.min(QUICK.max(quickest * TIMES_QUICKEST)), 1);
    }

    /// So many were answered in turn, the last of them after so long: that it is slower than the quickest says nothing.
    pub fn took_their_turns(&self, count: u64, took: Duration, due: Duration) {
        self.judge(took > due, count);
    }

    fn judge(&self, late: bool, count: u64) {
        let add = count << 32 | if late { count } else { 0 };
        let round = self.round.fetch_add(add, Ordering::Relaxed) + add;
        let (bids, late) = (round >> 32, round & u64::from(u32::MAX));
        // Of several that end the round at once, one does it.
        if bids < self.get().max(LEAST_ROUND) || self.round.compare_exchange(round, 0, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let limit = self.limit.load(Ordering::Relaxed);
        let next = if late * TENTH > bids {
            (limit - limit / TENTH).max(LEAST)
        } else if self.under_way() * 2 >= limit {
            (limit + 1).min(MOST)
        } else {
            limit
        };
        self.limit.store(next, Ordering::Relaxed);
    }

    /// The quickest bid of this span and the one before, this one among them.
    fn quickest(&self, took: Duration, now: Duration) -> Duration {
        let span = u64::from((now.as_secs() / SPAN.as_secs()) as u32);
        let micros = u64::from(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        let mine = span << 32 | micros;
        let slot = &self.quickest[(span % 2) as usize];
        let known = slot.load(Ordering::Relaxed);
        if known >> 32 != span {
            slot.store(mine, Ordering::Relaxed); // another's at the same time may be lost, and the next is not
        } else if mine < known {
            slot.fetch_min(mine, Ordering::Relaxed);
        }
        let counts = |word: &u64| word >> 32 == span || (word >> 32) + 1 == span;
        let words = self.quickest.each_ref().map(|slot| slot.load(Ordering::Relaxed));
        let least = words.iter().filter(|word| counts(word)).map(|word| word & u64::from(u32::MAX)).min();
        Duration::from_micros(least.unwrap_or(micros))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DUE: Duration = Duration::from_millis(50);

    fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    fn full(limit: &Limit) {
        while limit.enter(1) == 1 {}
        assert_eq!(limit.under_way(), limit.get());
    }

    #[test]
    fn what_does_not_fit_is_turned_away_and_leaves_nothing_behind() {
        let limit = Limit::default();
        full(&limit);
        assert_eq!((limit.enter(1), limit.under_way()), (0, FIRST));
        limit.leave(3);
        assert_eq!((limit.enter(5), limit.enter(1)), (3, 0), "as many as there is room for");
        limit.leave(FIRST);
        assert_eq!(limit.enter(2 * FIRST), 2 * FIRST, "one message that finds nobody");
    }

    /// A round with so many late bids in a hundred.
    fn round(limit: &Limit, late: u64) {
        let bids = limit.get().max(LEAST_ROUND);
        for n in 0..bids {
            let took = if n * 100 / bids < late { micros(60_000) } else { micros(200) };
            limit.took(took, DUE, micros(n));
        }
    }

    #[test]
    fn a_round_of_which_a_tenth_was_late_lowers_it_by_a_tenth_and_a_few_do_not() {
        let limit = Limit::default();
        round(&limit, 9);
        assert_eq!(limit.get(), FIRST, "a lease that is renewed, a disk that is flushed");
        round(&limit, 12);
        assert_eq!(limit.get(), FIRST - FIRST / 10);
        (0..100).for_each(|_| round(&limit, 100));
        assert_eq!(limit.get(), LEAST);
    }

    #[test]
    fn it_rises_by_one_for_a_round_in_time_while_it_is_made_use_of() {
        let limit = Limit::default();
        round(&limit, 0);
        assert_eq!(limit.get(), FIRST, "nobody needed it");
        full(&limit);
        round(&limit, 0);
        assert_eq!(limit.get(), FIRST + 1);
        (FIRST..MOST + 5).for_each(|_| {
            full(&limit);
            round(&limit, 0);
        });
        assert_eq!(limit.get(), MOST);
    }

    #[test]
    fn a_queue_is_seen_long_before_the_deadline_and_a_slow_day_is_none() {
        let took = |limit: &Limit, took: u64, second: u64| {
            (0..limit.get().max(LEAST_ROUND)).for_each(|_| limit.took(micros(took), DUE, Duration::from_secs(second)));
        };
        let limit = Limit::default();
        took(&limit, 300, 0);
        took(&limit, 1_200, 1);
        assert_eq!(limit.get(), FIRST, "four times the quickest");
        took(&limit, 1_201, 2);
        assert!(limit.get() < FIRST);
        let lowered = limit.get();
        limit.took_their_turns(lowered, micros(5_000), DUE);
        assert_eq!(limit.get(), lowered, "the last had others before it");
        limit.took_their_turns(lowered, micros(50_001), DUE);
        assert!(limit.get() < lowered, "and half of its time is half of its time");
        // Everything takes 3 ms from now on: after two spans nobody remembers better, and that is no queue.
        (10..20).for_each(|second| took(&limit, 3_000, second));
        let settled = limit.get();
        (20..40).for_each(|second| took(&limit, 3_000, second));
        assert_eq!(limit.get(), settled);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_lets_in_no_more(bids in prop::collection::vec((0..100_000_u64, any::<bool>()), 1..400)) {
            let limit = Limit::default();
            let (mut inside, mut now) = (0, 0);
            for (took, leaves) in bids {
                now += took;
                inside += limit.enter(1);
                prop_assert!(inside <= MOST && limit.under_way() == inside);
                if leaves && inside > 0 {
                    limit.took(micros(took), DUE, micros(now));
                    limit.leave(1);
                    inside -= 1;
                }
                prop_assert!((LEAST..=MOST).contains(&limit.get()));
            }
        }
    }
}
