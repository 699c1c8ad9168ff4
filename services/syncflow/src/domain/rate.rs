//! How many requests a second are let in: any number, until a queue stands before them; then as many as leave none.
//!
//! To turn away only those that have waited too long keeps a queue at that length, and whoever is let in waits in it again at each
//! step that it takes: for a prediction, for a lease. So where a queue stands, fewer are let in from then on than were while it grew,
//! evenly spaced, and a little more after each interval without one. That is DAGOR's way with the priorities that it admits (Zhou et
//! al., "Overload Control for Scaling WeChat Microservices", SoCC 2018), with a rate: once fewer come than that, nobody is turned away,
//! and what was learned in an overload is in nobody's way after it. The spacing is that of the generic cell rate algorithm (ITU-T I.371,
//! annex A).
//!
//! No lock: words of their own. Time is an argument: the time since the start.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Where a queue stands the rate falls to this share.
const FALLS: (u64, u64) = (3, 4);
/// Where there is none, and some were turned away by the rate, it rises to this.
const RISES: (u64, u64) = (17, 16);
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
        let spacing = match (seen, binds) {
            (Seen::None, true) => spacing * RISES.1 / RISES.0,
            (Seen::None, false) => spacing * FADES.1 / FADES.0,
            (Seen::Some, _) => spacing,
            (Seen::Stands, _) => (if binds { spacing } else { was }) * FALLS.1 / FALLS.0,
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
    fn any_number_is_let_in_until_a_queue_stands_and_then_a_quarter_fewer() {
        let rate = Rate::default();
        assert_eq!([0, 1].map(|nth| interval(&rate, nth, Seen::Some)), [200, 200], "some wait now and then");
        assert_eq!(interval(&rate, 2, Seen::Stands), 200);
        let fewer: Vec<u64> = (3..7).map(|nth| interval(&rate, nth, Seen::Stands)).collect();
        assert!(fewer.iter().zip([150, 112, 84, 63]).all(|(let_in, about)| let_in.abs_diff(about) <= 8), "{fewer:?}");
    }

    #[test]
    fn it_rises_where_it_turned_some_away_holds_where_some_waited_and_is_forgotten_where_it_did_nothing() {
        let rate = Rate::default();
        (0..4).for_each(|nth| drop(interval(&rate, nth, Seen::Stands).to_string()));
        let fallen = rate.per_second();
        interval(&rate, 4, Seen::Some);
        assert!((rate.per_second() - fallen).abs() < 1.0, "held");
        interval(&rate, 5, Seen::None);
        assert!((rate.per_second() / fallen - 17.0 / 16.0).abs() < 1e-3, "{} of {fallen}", rate.per_second());
        (0..100).for_each(|_| rate.adapt(Seen::None, 1, INTERVAL));
        assert_eq!(rate.per_second(), f64::INFINITY);
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
