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
//! The target is a fifth of CoDel's 5 ms and an interval at the least a twentieth of its 100 ms: those are of links across the world, and a
//! bid has 10 to 100 ms in all. Where three times as many come as are served, who comes at the end of an interval waits two of them.
//!
//! No lock: words of their own. Of several that begin an interval at once one does it. Time is an argument: the time since the start.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::rate::{Rate, Seen};

/// Over which waits are counted, at the least.
pub const INTERVAL: Duration = Duration::from_millis(5);
/// So many have to have come: of fewer none are a queue, though each of them comes to a machine that is busy with something else.
pub const LEAST: u64 = 16;
/// Until they have, an interval goes on to this. The rate is adapted as often.
pub const ROUND: Duration = Duration::from_millis(20);
/// A queue in which most wait longer stands.
pub const TARGET: Duration = Duration::from_millis(1);
/// The longest that a request may have waited in a queue that stands.
pub const LONGEST: Duration = Duration::from_millis(2);
/// Fewer than one in so many that waited longer are hardly anybody.
const FEW: u64 = 8;
/// More than one in so many are many.
const MANY: u64 = 4;
/// Requests that are counted in an interval, at the most: 1.6 million a second.
const MOST: u64 = 0x1FFF;
/// Times are counted in tenths of a millisecond: 32 bits of them are five days, and begin anew.
const TICK: Duration = Duration::from_micros(100);

/// The waits of requests.
#[derive(Debug, Default)]
pub struct Queue {
    /// When the interval began in the upper half; below it the requests, and in the lowest quarter those that waited longer than the target.
    counted: AtomicU64,
    /// Intervals in a row of which those were the most.
    stands: AtomicU64,
    /// The same of the round, with how long its intervals were in the upper half.
    round: AtomicU64,
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
        let tick = ticks(now) as u32;
        let one = 1 << 16 | u64::from(waited > TARGET);
        let counted = self.counted.load(Ordering::Relaxed);
        let lasted = TICK * tick.wrapping_sub((counted >> 32) as u32);
        let requests = requests(counted);
        if lasted < INTERVAL || requests < LEAST && lasted < ROUND {
            if requests < MOST {
                self.counted.fetch_add(one, Ordering::Relaxed);
            }
        } else if self.counted.compare_exchange(counted, u64::from(tick) << 32 | one, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // Where nobody came for so long there is no queue.
            if lasted < ROUND * 2 { self.over(counted & COUNTS, lasted) } else { self.forget() }
        }
        waited > LONGEST && self.stands.load(Ordering::Relaxed) > 0 || !self.rate.lets_in(now)
    }

    /// An interval is over in which so many were counted. One at a time does this.
    fn over(&self, counted: u64, lasted: Duration) {
        let stands = if requests(counted) >= LEAST && most_waited(counted) { self.stands.load(Ordering::Relaxed) + 1 } else { 0 };
        self.stands.store(stands, Ordering::Relaxed);
        let let_in = self.rate.let_in();
        if !self.rate.is_any() {
            if stands > 1 {
                self.rate.begin(let_in, requests(counted), lasted);
            }
            return;
        }
        let round = self.round.load(Ordering::Relaxed) + (ticks(lasted) << 32 | counted);
        let lasted = TICK * (round >> 32) as u32;
        if lasted < ROUND {
            self.round.store(round, Ordering::Relaxed);
            return;
        }
        let seen = match () {
            () if stands > 0 && most_waited(round) => Seen::Stands,
            () if long(round) * FEW < requests(round) => Seen::None,
            () if long(round) * MANY <= requests(round) => Seen::Some,
            () => Seen::Many,
        };
        self.rate.adapt(seen, requests(round), lasted);
        self.round.store(0, Ordering::Relaxed);
    }

    fn forget(&self) {
        self.stands.store(0, Ordering::Relaxed);
        self.round.store(0, Ordering::Relaxed);
        self.rate.forget();
    }
}

/// The half of a word in which requests are counted.
const COUNTS: u64 = 0xFFFF_FFFF;

fn requests(counted: u64) -> u64 {
    counted >> 16 & 0xFFFF
}

fn long(counted: u64) -> u64 {
    counted & 0xFFFF
}

fn most_waited(counted: u64) -> bool {
    long(counted) * 2 > requests(counted)
}

fn ticks(time: Duration) -> u64 {
    (time.as_micros() / TICK.as_micros()) as u64
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
    fn a_pause_that_is_soon_worked_off_turns_nobody_away_and_a_queue_that_stands_does() {
        let queue = Queue::default();
        let worked_off = |from: u32, by: u32| move |nth: u32| (MS * from).saturating_sub(MS * nth * by / 10);
        assert_eq!(came(&queue, 20, 20, worked_off(8, 4)), 0, "8 ms in 2");
        assert_eq!(came(&queue, 40, 20, worked_off(8, 1)), 10, "8 ms in as many: those that still waited too long after an interval");
        assert!(!queue.rate().is_any(), "and that was all");
        assert_eq!(came(&queue, 60, 5, |_| MS * 8), 0, "of the interval before, most waited little");
        assert_eq!(came(&queue, 65, 1, |_| MS * 8), 10, "most of an interval have waited");
        assert_eq!(came(&queue, 66, 1, |_| LONGEST), 0, "not too long");
        assert_eq!(came(&queue, 67, 1, |_| LONGEST + MS / 1_000), 10);
        assert_eq!(came(&queue, 68, 2, |_| MS / 2), 0);
    }

    #[test]
    fn where_it_stands_for_two_intervals_half_of_those_that_were_let_in_are() {
        let queue = Queue::default();
        assert_eq!(came(&queue, 20, 10, |_| MS * 3 / 2), 0);
        assert_eq!(came(&queue, 30, 20, |_| MS * 3 / 2), 200 / 2 - 5, "and those of the first millisecond early, once");
        assert!((4_990.0..5_010.0).contains(&queue.rate().per_second()), "{}", queue.rate().per_second());
        came(&queue, 50, 1, |_| MS * 3 / 2);
        assert!((4_270.0..4_300.0).contains(&queue.rate().per_second()), "a round is over: {}", queue.rate().per_second());
    }

    #[test]
    fn the_first_of_each_heap_does_not_hide_the_queue() {
        let queue = Queue::default();
        let heaps = |nth: u32| MS * (nth % 10);
        assert_eq!(came(&queue, 20, 5, heaps), 0);
        assert_eq!(came(&queue, 25, 5, heaps), 50 / 10 * 7, "those that waited 3 ms and more");
    }

    #[test]
    fn fewer_are_counted_for_longer_and_after_silence_nothing_stands() {
        let queue = Queue::default();
        let each_ms = |from: u32, ms: u32| (0..ms).filter(|nth| queue.turns_away(MS * 8, MS * (from + nth))).count();
        assert_eq!(each_ms(20, 16), 0);
        assert_eq!(each_ms(36, 3), 3, "there were sixteen");
        assert_eq!(each_ms(100, 1), 0, "none for so long");
        let each_two = |from: u32, ms: u32| (0..ms / 2).filter(|nth| queue.turns_away(MS * 8, MS * (from + nth * 2))).count();
        assert_eq!(each_two(140, 60), 0, "ten in each round");
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
