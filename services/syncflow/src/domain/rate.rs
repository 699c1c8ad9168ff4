//! How many requests a second are let in: any number, until a queue stands before them; then as many as leave none.
//!
//! To turn away only those that have waited too long keeps a queue at that length, and whoever is let in waits in it again at each
//! step that it takes: for a prediction, for a lease. So where a queue stands, fewer are let in from then on than were while it grew,
//! evenly spaced. That is DAGOR's way with the priorities that it admits (Zhou et al., "Overload Control for Scaling WeChat
//! Microservices", SoCC 2018), with a rate: once fewer come than that, nobody is turned away, and what was learned in an overload is in
//! nobody's way after it. The spacing is that of the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! A rate that rises until the queue is back has it back at each of its peaks, and of those let in at a peak there are more than one in a hundred.
//! So it eases where many begin to wait and holds where some do, and otherwise rises the faster the longer all has been well, from next to
//! nothing: after a fall it is slow where the queue was, and soon back where there was none, as CUBIC's window is (Ha, Rhee and Xu,
//! "CUBIC", ACM SIGOPS Operating Systems Review 42(5), 2008).
//!
//! No lock: words of their own. Time is an argument: the time since the start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Where a queue stands the rate falls to this share.
const FALLS: (u64, u64) = (6, 7);
/// Where many waited it falls to this.
const EASES: (u64, u64) = (64, 65);
/// Where hardly anybody did, and some were turned away by the rate, it rises by the number of such intervals in a row over this, and by
/// the second over it at the most.
const RISES: (u64, u64) = (2_048, 128);
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
    /// Most did, and in the interval before.
    Stands,
}

/// The rate.
#[derive(Debug, Default)]
pub struct Rate {
    /// Nanoseconds between two; 0 where any number is let in.
    spacing: AtomicU64,
    /// When the next is due, nanoseconds since the start.
    due: AtomicU64,
    /// Of this interval: how many were let in, and whether any was not.
    let_in: AtomicU64,
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

    /// An interval is over, in which so many came.
    pub fn adapt(&self, seen: Seen, came: u64, interval: Duration) {
        let (let_in, binds) = (self.let_in.swap(0, Ordering::Relaxed), self.binds.swap(false, Ordering::Relaxed));
        let (spacing, was) = (self.spacing.load(Ordering::Relaxed), nanos(interval) / let_in.max(1));
        let well = match seen {
            Seen::None => self.well.load(Ordering::Relaxed) + 1,
            Seen::Some => self.well.load(Ordering::Relaxed),
            Seen::Many | Seen::Stands => 0,
        };
        self.well.store(well, Ordering::Relaxed);
        let spacing = match seen {
            Seen::Stands => (if binds { spacing } else { was }) * FALLS.1 / FALLS.0,
            _ if !binds => spacing * FADES.1 / FADES.0,
            Seen::Many => spacing * EASES.1 / EASES.0,
            Seen::Some => spacing,
            Seen::None => spacing * RISES.0 / (RISES.0 + well.min(RISES.1)),
        };
        let spacing = spacing.min(nanos(interval) * LEAST_SHARE / came.max(1));
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
    fn interval(rate: &Rate, nth: u32, seen: Seen) -> u64 {
        let let_in = (0..200).filter(|tenth| rate.lets_in(INTERVAL * nth + MS * *tenth / 10)).count();
        rate.adapt(seen, 200, INTERVAL);
        let_in as u64
    }

    #[test]
    fn any_number_is_let_in_until_a_queue_stands_and_then_a_seventh_fewer() {
        let rate = Rate::default();
        assert_eq!([0, 1].map(|nth| interval(&rate, nth, Seen::Many)), [200, 200], "many wait now and then");
        assert_eq!(interval(&rate, 2, Seen::Stands), 200);
        let fewer: Vec<u64> = (3..7).map(|nth| interval(&rate, nth, Seen::Stands)).collect();
        assert_eq!(fewer, [171 + 9, 147, 126, 108], "and those of the first millisecond early, once");
    }

    #[test]
    fn it_eases_where_many_waited_holds_where_some_did_and_rises_ever_faster_where_none_did() {
        let rate = Rate::default();
        let after = |nth: u32, seen| {
            let before = rate.per_second();
            interval(&rate, nth, seen);
            rate.per_second() / before
        };
        let near = |ratio: f64, expected: f64| (ratio - expected).abs() < 1e-4;
        for nth in 0..4 {
            interval(&rate, nth, Seen::Stands);
        }
        assert!(near(after(4, Seen::Some), 1.0));
        assert!(near(after(5, Seen::Many), 64.0 / 65.0));
        let rises: Vec<f64> = (6..46).map(|nth| after(nth, Seen::None)).collect();
        for (nth, well) in [(0, 1.0), (1, 2.0), (39, 40.0)] {
            assert!(near(rises[nth], 1.0 + well / 2_048.0), "after {well} intervals: {}", rises[nth]);
        }
        assert!(
            near(after(46, Seen::Some), 1.0) && near(after(47, Seen::None), 1.0 + 41.0 / 2_048.0),
            "where some wait it goes on afterwards"
        );
        after(48, Seen::Many);
        assert!(near(after(49, Seen::None), 1.0 + 1.0 / 2_048.0), "where many do it begins anew");
    }

    #[test]
    fn where_it_turns_nobody_away_it_is_forgotten() {
        for seen in [Seen::None, Seen::Some, Seen::Many] {
            let rate = Rate::default();
            for nth in 0..4 {
                interval(&rate, nth, Seen::Stands);
            }
            assert!(rate.per_second().is_finite());
            (0..100).for_each(|_| rate.adapt(seen, 1, INTERVAL));
            assert_eq!(rate.per_second(), f64::INFINITY, "{seen:?}");
        }
    }

    #[test]
    fn one_in_sixteen_is_let_in_however_long_the_queue_stands() {
        let rate = Rate::default();
        let let_in: Vec<u64> = (0..50).map(|nth| interval(&rate, nth, Seen::Stands)).collect();
        assert!(let_in[20..].iter().all(|let_in| (12..=14).contains(let_in)), "{let_in:?}");
    }

    #[test]
    fn those_of_a_heap_may_be_a_little_early_and_silence_saves_nothing_up() {
        let rate = Rate::default();
        (0..10).for_each(|_| {
            (0..10).for_each(|_| assert!(rate.lets_in(Duration::ZERO) || rate.per_second().is_finite()));
            rate.adapt(Seen::Stands, 10, INTERVAL);
        });
        assert!(rate.per_second() < 500.0, "{}", rate.per_second());
        assert_eq!((0..50).filter(|_| rate.lets_in(MS * 60_000)).count(), 1, "more than a millisecond is between two");
    }
}
