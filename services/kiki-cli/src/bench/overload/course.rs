//! The course of a run: calm, overload and calm again, and what its requests came to.

use std::ops::Range;
use std::time::Duration;

use crate::exchange::{Asked, Outcome, Phase};

/// What of the capacity is asked for in the calm.
pub(super) const CALM: f64 = 0.2;
/// How many times the capacity is asked for in the overload.
pub(super) const OVERLOAD: f64 = 3.0;
/// At the start the exchange asks for as much as in the overload, and makes the connections that it then has. That does not count.
const OPENING: Duration = Duration::from_millis(500);
/// Nor does so much of the calm behind it.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// What counts as right behind the overload.
const AFTER: Duration = Duration::from_secs(1);
/// Recovery is looked for in steps of this.
const WINDOW: Duration = Duration::from_millis(100);
/// It is there where of the requests due in a window at most one in so many was not admitted, or took longer than so many times
/// the unloaded 99th percentile.
const ONE_IN: usize = 100;
pub(super) const TIMES_UNLOADED: u64 = 2;

/// When what is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    capacity: f64,
    seconds: Duration,
}

/// What was seen of a request; times in microseconds but for when it was due.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    due: Duration,
    begun_late: u64,
    took: u64,
    outcome: Outcome,
}

impl Seen {
    pub(super) fn of(asked: &Asked) -> Self {
        let micros = |time: Duration| time.as_micros().try_into().unwrap_or(u64::MAX);
        Self { due: asked.due, begun_late: micros(asked.begun_late), took: micros(asked.took), outcome: asked.outcome() }
    }

    fn is_admitted(&self) -> bool {
        matches!(self.outcome, Outcome::Bid | Outcome::NoBid)
    }
}

/// Percentiles of some times, microseconds; zero of none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) count: usize,
}

impl Times {
    fn of(times: impl Iterator<Item = u64>) -> Self {
        let mut times: Vec<u64> = times.collect();
        times.sort_unstable();
        let at = |percent: usize| times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).copied().unwrap_or_default();
        Self { p50: at(50), p99: at(99), count: times.len() }
    }
}

/// What the requests of a course came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figures {
    /// Admitted in the calm before the overload.
    pub(super) unloaded: Times,
    /// Admitted in it, of those the ones with bids, and the rest of it.
    pub(super) admitted: Times,
    pub(super) bids: usize,
    pub(super) refused: Times,
    pub(super) failed: usize,
    /// Those admitted, from when they were begun: without what the exchange itself was late.
    pub(super) since_begun: Times,
    /// How much later than they were due its requests were begun.
    pub(super) begun_late: Times,
    /// Admitted right behind it.
    pub(super) recovery: Times,
    /// From its end until all was well; none where that was not seen.
    pub(super) recovered: Option<Duration>,
}

impl Course {
    pub(super) fn new(capacity: f64, seconds: Duration) -> Self {
        Self { capacity, seconds }
    }

    /// The calm that counts.
    fn calm(&self) -> Range<Duration> {
        let begin = OPENING + WARM_UP;
        begin..begin + self.seconds / 2
    }

    /// When the overload begins and when it ends.
    pub(super) fn overload(&self) -> Range<Duration> {
        let begin = self.calm().end;
        begin..begin + self.seconds
    }

    pub(super) fn end(&self) -> Duration {
        self.overload().end + self.seconds / 2
    }

    pub(super) fn phases(&self) -> Vec<Phase> {
        let (calm, overload) = (self.capacity * CALM, self.capacity * OVERLOAD);
        let phase = |rate, duration| Phase { rate, duration };
        let (before, after) = (self.overload().start - OPENING, self.end() - self.overload().end);
        vec![phase(overload, OPENING), phase(calm, before), phase(overload, self.seconds), phase(calm, after)]
    }

    pub(super) fn figures(&self, seen: &[Seen]) -> Figures {
        let due = |within: Range<Duration>| seen.iter().filter(move |seen| within.contains(&seen.due));
        let admitted_of = |within| due(within).filter(|seen| seen.is_admitted());
        let admitted = |within| Times::of(admitted_of(within).map(|seen| seen.took));
        let (overload, of) = (self.overload(), |outcome| due(self.overload()).filter(move |seen| seen.outcome == outcome));
        let unloaded = admitted(self.calm());
        let well = |from: Duration| {
            let all: Vec<&Seen> = due(from..from + WINDOW).collect();
            let bad = all.iter().filter(|seen| !seen.is_admitted() || seen.took > unloaded.p99 * TIMES_UNLOADED).count();
            !all.is_empty() && bad * ONE_IN <= all.len()
        };
        let windows = (0..).map(|nth| WINDOW * nth).take_while(|after| overload.end + *after + WINDOW <= self.end());
        Figures {
            unloaded,
            admitted: admitted(overload.clone()),
            bids: of(Outcome::Bid).count(),
            refused: Times::of(of(Outcome::Refused).map(|seen| seen.took)),
            failed: of(Outcome::Failed).count(),
            since_begun: Times::of(admitted_of(overload.clone()).map(|seen| seen.took - seen.begun_late)),
            begun_late: Times::of(due(overload.clone()).map(|seen| seen.begun_late)),
            recovery: admitted(overload.end..overload.end + AFTER),
            recovered: windows.clone().find(|after| well(overload.end + *after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A request each millisecond of a course with two seconds of overload.
    fn each_ms(of: impl Fn(u64) -> (Outcome, u64)) -> Figures {
        let course = Course::new(1_000.0, Duration::from_secs(2));
        let seen = |ms: u64| {
            let (outcome, took) = of(ms);
            Seen { due: MS * ms as u32, begun_late: 7, took, outcome }
        };
        course.figures(&(0..6_000).map(seen).collect::<Vec<_>>())
    }

    #[test]
    fn connections_are_made_then_comes_a_fifth_then_three_times_then_a_fifth_and_no_gap() {
        let course = Course::new(1_000.0, Duration::from_secs(2));
        let phases: Vec<_> = course.phases().iter().map(|phase| (phase.rate as u64, phase.duration.as_millis())).collect();
        assert_eq!(phases, [(3_000, 500), (200, 2_500), (3_000, 2_000), (200, 1_000)]);
        assert_eq!((course.calm(), course.overload()), (MS * 2_000..MS * 3_000, MS * 3_000..MS * 5_000));
        assert_eq!(course.end(), MS * 6_000);
    }

    #[test]
    fn those_admitted_are_apart_from_those_refused_and_the_start_does_not_count() {
        let figures = each_ms(|ms| match ms {
            0..2_000 => (Outcome::Bid, 90_000),
            2_000..3_000 => (Outcome::Bid, ms - 1_990),
            3_000..5_000 if ms % 4 == 0 => (Outcome::Bid, 1_500),
            3_000..5_000 if ms % 4 == 1 => (Outcome::NoBid, 4_000),
            3_000..5_000 if ms % 4 == 2 => (Outcome::Refused, 300),
            3_000..5_000 => (Outcome::Failed, 10),
            _ => (Outcome::Bid, 100),
        });
        assert_eq!(figures.unloaded, Times { p50: 509, p99: 999, count: 1_000 });
        assert_eq!(figures.admitted, Times { p50: 1_500, p99: 4_000, count: 1_000 });
        assert_eq!(figures.refused, Times { p50: 300, p99: 300, count: 500 });
        assert_eq!((figures.bids, figures.failed, figures.begun_late.p99, figures.since_begun.p99), (500, 500, 7, 3_993));
        assert_eq!((figures.recovery.p99, figures.recovered), (100, Some(Duration::ZERO)));
    }

    #[test]
    fn it_has_recovered_once_all_but_one_in_a_hundred_are_admitted_in_twice_the_time() {
        let after = |bad: fn(u64) -> bool, outcome, took| {
            each_ms(|ms| if ms >= 5_000 && bad(ms - 5_000) { (outcome, took) } else { (Outcome::Bid, 100) }).recovered
        };
        assert_eq!(after(|ms| ms < 150, Outcome::Bid, 201), Some(MS * 200));
        assert_eq!(after(|ms| ms < 150, Outcome::Bid, 200), Some(Duration::ZERO), "twice the time");
        assert_eq!(after(|ms| ms < 150, Outcome::Refused, 50), Some(MS * 200), "quickly refused is not served");
        assert_eq!(after(|ms| ms < 1, Outcome::Refused, 50), Some(Duration::ZERO), "one of a hundred");
        assert_eq!(after(|_| true, Outcome::Bid, 201), None);
    }
}
