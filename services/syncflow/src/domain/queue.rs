//! Whether a queue stands before the bids, and which requests have waited too long in it.
//!
//! After CoDel (Nichols and Jacobson, "Controlling Queue Delay", ACM Queue 10(5), 2012) and its form for servers (Maurer, "Fail at
//! Scale", ACM Queue 13(8), 2015; folly's `Codel`): a queue is bad where it stands. After a pause of the machine some have waited
//! long; once that is worked off the others wait little, and nobody was turned away for it. Where a queue stands, those that have
//! waited longer than twice the target are turned away, so that those that get in still have their time. Where it stands for more
//! than an interval, as many are let in as leave none ([`Rate`]).
//!
//! A queue stands where most requests of an interval have waited longer than the target. CoDel goes by the least wait, which says
//! that of a queue that is first come, first served. A runtime's is not: it takes what has become readable in heaps, and the first
//! of each heap has waited for nothing. WeChat's overload control goes by the mean (Zhou et al., "Overload Control for Scaling WeChat
//! Microservices", SoCC 2018), which one long pause moves.
//!
//! The interval and the target are a fifth of CoDel's 100 ms and 5 ms: those are of links across the world, and a bid has 10 to
//! 100 ms in all.
//!
//! No lock: two words. Of several that begin an interval at once one does it. Time is an argument: the time since the start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::rate::{Rate, Seen};

/// Over which waits are counted.
pub const INTERVAL: Duration = Duration::from_millis(20);
/// A queue in which most wait longer stands.
pub const TARGET: Duration = Duration::from_millis(1);
/// The longest that a request may have waited in a queue that stands.
pub const LONGEST: Duration = Duration::from_millis(2);
/// So many have to have waited: fewer are no queue, though each of them comes to a machine that is busy with something else.
pub const LEAST: u64 = 16;
/// Fewer than one in so many that waited longer are hardly anybody.
const FEW: u64 = 16;
/// More than one in so many are many.
const MANY: u64 = 4;
/// Requests that are counted in an interval, at the most: 1.6 million a second.
const MOST: u64 = 0x7FFF;

/// The waits of requests.
#[derive(Debug, Default)]
pub struct Queue {
    /// The interval's number in the upper half; below it the requests, and in the lowest quarter those that waited longer than the target.
    counted: AtomicU64,
    /// Whether those were the most in the interval before.
    stands: AtomicBool,
    rate: Rate,
}

impl Queue {
    /// How many are let in.
    #[must_use]
    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// A request is there that has waited so long: whether it is turned away.
    pub fn turns_away(&self, waited: Duration, now: Duration) -> bool {
        let interval = u64::from((now.as_micros() / INTERVAL.as_micros()) as u32);
        let one = 1 << 16 | u64::from(waited > TARGET);
        let counted = self.counted.load(Ordering::Relaxed);
        let (requests, long) = (counted >> 16 & 0xFFFF, counted & 0xFFFF);
        if counted >> 32 == interval {
            if requests < MOST {
                self.counted.fetch_add(one, Ordering::Relaxed);
            }
        } else if self.counted.compare_exchange(counted, interval << 32 | one, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // After an interval without requests there is no queue.
            let behind = (counted >> 32) + 1 == interval;
            let stands = behind && long >= LEAST && long * 2 > requests;
            let stood = self.stands.swap(stands, Ordering::Relaxed);
            let seen = match () {
                () if stands && stood => Seen::Stands,
                () if long * FEW < requests => Seen::None,
                () if long * MANY <= requests => Seen::Some,
                () => Seen::Many,
            };
            if behind {
                self.rate.adapt(seen, requests, INTERVAL);
            } else {
                self.rate.forget();
            }
        }
        waited > LONGEST && self.stands.load(Ordering::Relaxed) || !self.rate.lets_in(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A request each tenth of a millisecond from `from` on; how many of them are turned away.
    fn came(queue: &Queue, from: u32, ms: u32, waited: impl Fn(u32) -> Duration) -> usize {
        (0..ms * 10).filter(|nth| queue.turns_away(waited(*nth), MS * from + MS * *nth / 10)).count()
    }

    #[test]
    fn a_pause_turns_nobody_away_and_a_queue_that_stands_does() {
        let queue = Queue::default();
        let worked_off = |nth: u32| (MS * 8).saturating_sub(MS * nth / 10);
        assert_eq!(came(&queue, 20, 20, worked_off), 0);
        assert_eq!(came(&queue, 40, 20, |_| MS * 8), 0, "of the interval before, most waited little");
        assert_eq!(came(&queue, 60, 1, |_| MS * 8), 10, "most of an interval have waited");
        assert_eq!(came(&queue, 61, 1, |_| LONGEST), 0, "not too long");
        assert_eq!(came(&queue, 62, 1, |_| LONGEST + MS / 1_000), 10);
        assert_eq!(came(&queue, 63, 17, |_| MS / 2), 0);
        assert_eq!(came(&queue, 80, 1, |_| MS * 8), 0, "and it was gone");
    }

    #[test]
    fn the_first_of_each_heap_does_not_hide_the_queue() {
        let queue = Queue::default();
        let heaps = |nth: u32| MS * (nth % 10);
        assert_eq!(came(&queue, 20, 20, heaps), 0);
        assert_eq!(came(&queue, 40, 20, heaps), 200 / 10 * 7, "those that waited 3 ms and more");
    }

    #[test]
    fn after_silence_nothing_stands_and_a_few_are_no_queue() {
        let queue = Queue::default();
        assert_eq!(came(&queue, 20, 2, |_| MS * 8), 0);
        assert_eq!(came(&queue, 40, 1, |_| MS * 8), 10, "twenty of the interval before");
        assert_eq!(came(&queue, 80, 1, |_| MS * 8), 0, "none of the interval before");
        assert_eq!(came(&queue, 100, 1, |_| MS * 8), 0, "ten");
    }

    /// One server, first come first served: a bid takes 200 us of it and to be turned away 20 us.
    struct Served {
        away: u64,
        /// From arrival to answer of those that were admitted, in order.
        took: Vec<Duration>,
    }

    fn serve(per_second: u64, seconds: u64, turns_away: impl Fn(Duration, Duration) -> bool) -> Served {
        let (mut free, mut served) = (Duration::ZERO, Served { away: 0, took: Vec::new() });
        for nth in 0..per_second * seconds {
            let came = Duration::from_nanos(nth * 1_000_000_000 / per_second);
            let begun = free.max(came);
            let away = turns_away(begun - came, begun);
            free = begun + Duration::from_micros(if away { 20 } else { 200 });
            if away {
                served.away += 1;
            } else {
                served.took.push(free - came);
            }
        }
        served.took.sort_unstable();
        served
    }

    #[test]
    fn at_three_times_what_is_served_those_admitted_hardly_wait_and_the_server_is_not_idle() {
        let queue = Queue::default();
        let Served { away, took } = serve(15_000, 5, |waited, now| queue.turns_away(waited, now));
        let (half, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
        assert!(half < MS / 2 && most < 3 * MS, "{half:?} and {most:?}");
        // Of 5 s each admitted one takes 200 us and each other 20 us: what a rate leaves free is a tenth.
        let (admitted, busy) = (took.len() as u64, took.len() as u64 * 200 + away * 20);
        assert!(admitted > 15_000 && busy > 4_300_000, "{admitted} and {away}");
        let without = serve(15_000, 5, |_, _| false);
        assert!(without.took.last() > Some(&Duration::from_secs(5)), "what it would be: {:?}", without.took.last());
    }

    #[test]
    fn once_fewer_come_hardly_anybody_is_turned_away() {
        let queue = Queue::default();
        let after = Duration::from_secs(5);
        serve(15_000, 5, |waited, now| queue.turns_away(waited, now));
        let served = serve(1_000, 1, |waited, now| queue.turns_away(waited, after + now));
        assert!(served.away <= 5, "those of the first milliseconds: {}", served.away);
    }

    #[test]
    fn at_half_of_what_is_served_nobody_is_turned_away() {
        let queue = Queue::default();
        let served = serve(2_500, 5, |waited, now| queue.turns_away(waited, now));
        assert_eq!((served.away, served.took.len()), (0, 12_500));
    }
}
