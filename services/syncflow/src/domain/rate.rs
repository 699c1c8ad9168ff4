//! How many requests a second are let in: any number, until a queue stands before them; then as many as leave none.
//!
//! To turn away only those that have waited too long keeps a queue at that length, and whoever is let in waits in it again at each
//! step that it takes: for a prediction, for a lease. So where a queue stands, half as many are let in from then on as were while it grew,
//! evenly spaced, and fewer until there is none. That is DAGOR's way with the priorities that it admits (Zhou et al., "Overload Control for Scaling WeChat
//! Microservices", SoCC 2018), with a rate: once fewer come than that, nobody is turned away, and what was learned in an overload is in
//! nobody's way after it. The spacing is that of the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! A rate that rises until the queue is back has it back at each of its peaks, and of those let in at a peak there are more than one in a hundred.
//! So it eases where many begin to wait and hardly rises where some do, and otherwise rises the faster the longer all has been well, from next
//! to nothing: after a fall it is slow where the queue was, and soon back where there was none, as CUBIC's window is (Ha, Rhee and Xu,
//! "CUBIC", ACM SIGOPS Operating Systems Review 42(5), 2008).
//!
//! No lock: words of their own. Time is an argument: the time since the start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Where a queue has come to stand, one in so many is let in of those that were.
const BEGINS: u64 = 2;
/// Where it still stands the rate falls to this share.
const FALLS: (u64, u64) = (6, 7);
/// Where many waited it falls to this.
const EASES: (u64, u64) = (64, 65);
/// Where some did it rises by one in so many.
const CREEPS: u64 = 256;
/// Where hardly anybody did, and some were turned away by the rate, it rises by the number of such intervals in a row over this, and by
/// the second over it at the most.
const RISES: (u64, u64) = (1_024, 64);
/// Where there is none, and nobody was turned away by it, it is soon forgotten: ten times as high after ten intervals.
const FADES: (u64, u64) = (5, 4);
/// Of so many that come one is let in at the least: a machine that is busy with something else has queues at any rate.
const LEAST_SHARE: u64 = 16;
/// So much earlier than evenly spaced they may come: requests come in heaps, and are looked at in heaps.
const EARLY: Duration = Duration::from_millis(1);
/// A rate at which this is between two is none: it is more than a server looks at.
const FASTEST: Duration = Duration::from_micros(2);

/// A queue, as it was in an interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Hardly anybody waited too long.
    None,
    /// Some did.
    Some,
    /// Many did.
    Many,
    /// Most did.
    Stands,
}

/// The rate.
#[derive(Debug, Default)]
pub struct Rate {
    /// Nanoseconds between two; 0 where any number is let in.
    spacing: AtomicU64,
    /// When the next is due, nanoseconds since the start.
    due: AtomicU64,
    /// How many were let in since somebody asked.
    let_in: AtomicU64,
    /// Whether any was not, in this interval.
    binds: AtomicBool,
    /// Intervals since the last in which many waited, of those in which hardly anybody did.
    well: AtomicU64,
}

impl Rate {
    /// Whether one that is there now is let in.
    pub fn lets_in(&self, now: Duration) -> bool {
        let (spacing, now) = (self.spacing.load(Ordering::Relaxed), nanos(now));
        let next = |due: u64| (due <= now + nanos(EARLY)).then(|| due.max(now) + spacing);
        let lets_in = spacing == 0 || self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
        if lets_in {
            self.let_in.fetch_add(1, Ordering::Relaxed);
        } else {
            self.binds.store(true, Ordering::Relaxed);
        }
        lets_in
    }

    /// How many were let in since this was last asked.
    pub fn let_in(&self) -> u64 {
        self.let_in.swap(0, Ordering::Relaxed)
    }

    /// Whether not any number is let in.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.spacing.load(Ordering::Relaxed) > 0
    }

    /// A queue has come to stand, while in this time so many came and were let in.
    pub fn begin(&self, let_in: u64, came: u64, within: Duration) {
        self.binds.store(false, Ordering::Relaxed);
        self.well.store(0, Ordering::Relaxed);
        self.set(nanos(within) * BEGINS / let_in.max(1), came, within);
    }

    /// An interval is over, in which so many came.
    pub fn adapt(&self, seen: Seen, came: u64, interval: Duration) {
        let (spacing, binds) = (self.spacing.load(Ordering::Relaxed), self.binds.swap(false, Ordering::Relaxed));
        let well = match seen {
            Seen::None => self.well.load(Ordering::Relaxed) + 1,
            Seen::Some => self.well.load(Ordering::Relaxed),
            Seen::Many | Seen::Stands => 0,
        };
        self.well.store(well, Ordering::Relaxed);
        let spacing = match seen {
            Seen::Stands => spacing * FALLS.1 / FALLS.0,
            _ if !binds => spacing * FADES.1 / FADES.0,
            Seen::Many => spacing * EASES.1 / EASES.0,
            Seen::Some => spacing * CREEPS / (CREEPS + 1),
            Seen::None => spacing * RISES.0 / (RISES.0 + well.min(RISES.1)),
        };
        self.set(spacing, came, interval);
    }

    fn set(&self, spacing: u64, came: u64, within: Duration) {
        let spacing = spacing.min(nanos(within) * LEAST_SHARE / came.max(1));
        self.spacing.store(if spacing < nanos(FASTEST) { 0 } else { spacing }, Ordering::Relaxed);
    }

    /// Nobody came for an interval.
    pub fn forget(&self) {
        self.spacing.store(0, Ordering::Relaxed);
    }

    /// How many a second that is; infinite where it is any number.
    #[must_use]
    pub fn per_second(&self) -> f64 {
        1e9 / self.spacing.load(Ordering::Relaxed) as f64
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const INTERVAL: Duration = Duration::from_millis(20);

    /// A request each tenth of a millisecond of an interval; how many of them are let in.
    fn let_in(rate: &Rate, nth: u32) -> u64 {
        (0..200).filter(|tenth| rate.lets_in(INTERVAL * nth + MS * *tenth / 10)).count() as u64
    }

    /// And what was seen of it.
    fn interval(rate: &Rate, nth: u32, seen: Seen) -> u64 {
        let let_in = let_in(rate, nth);
        rate.adapt(seen, 200, INTERVAL);
        let_in
    }

    /// One that lets in half of 10,000 a second.
    fn begun() -> Rate {
        let rate = Rate::default();
        assert_eq!(let_in(&rate, 0), 200);
        rate.begin(rate.let_in(), 200, INTERVAL);
        rate
    }

    #[test]
    fn any_number_is_let_in_until_a_queue_stands_then_half_and_then_a_seventh_fewer() {
        let rate = begun();
        let fewer: Vec<u64> = (1..6).map(|nth| interval(&rate, nth, Seen::Stands)).collect();
        assert_eq!(fewer, [100 + 5, 86, 73, 63, 54], "and those of the first millisecond early, once");
    }

    #[test]
    fn it_eases_where_many_waited_creeps_where_some_did_and_rises_ever_faster_where_none_did() {
        let rate = begun();
        let after = |nth: u32, seen| {
            let before = rate.per_second();
            interval(&rate, nth, seen);
            rate.per_second() / before
        };
        let near = |ratio: f64, expected: f64| (ratio - expected).abs() < 1e-4;
        assert!(near(after(1, Seen::Some), 257.0 / 256.0));
        assert!(near(after(2, Seen::Many), 64.0 / 65.0));
        let rises: Vec<f64> = (3..33).map(|nth| after(nth, Seen::None)).collect();
        for (nth, well) in [(0, 1.0), (1, 2.0), (29, 30.0)] {
            assert!(near(rises[nth], 1.0 + well / 1_024.0), "after {well} intervals: {}", rises[nth]);
        }
        assert!(
            near(after(33, Seen::Some), 257.0 / 256.0) && near(after(34, Seen::None), 1.0 + 31.0 / 1_024.0),
            "where some wait it goes on"
        );
        after(35, Seen::Many);
        assert!(near(after(36, Seen::None), 1.0 + 1.0 / 1_024.0), "where many do it begins anew");
    }

    #[test]
    fn where_it_turns_nobody_away_it_is_forgotten() {
        for seen in [Seen::None, Seen::Some, Seen::Many] {
            let rate = begun();
            assert!(rate.is_any() && rate.per_second().is_finite());
            (0..100).for_each(|_| rate.adapt(seen, 1, INTERVAL));
            assert!(!rate.is_any() && rate.per_second() == f64::INFINITY, "{seen:?}");
        }
    }

    #[test]
    fn one_in_sixteen_is_let_in_however_long_the_queue_stands_and_though_none_was_while_it_grew() {
        let rate = Rate::default();
        rate.begin(0, 200, INTERVAL);
        let let_in: Vec<u64> = (0..50).map(|nth| interval(&rate, nth, Seen::Stands)).collect();
        assert!(let_in.iter().all(|let_in| (12..=14).contains(let_in)), "{let_in:?}");
    }

    #[test]
    fn those_of_a_heap_may_be_a_little_early_and_silence_saves_nothing_up() {
        let rate = Rate::default();
        rate.begin(1, 16, INTERVAL);
        assert_eq!((0..50).filter(|_| rate.lets_in(MS * 60_000)).count(), 1, "more than a millisecond is between two");
        rate.begin(200, 200, INTERVAL);
        assert_eq!((0..50).filter(|_| rate.lets_in(MS * 120_000)).count(), 6, "five tenths of a millisecond early, and those due");
    }
}
