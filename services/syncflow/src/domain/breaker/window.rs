//! The last calls of a closed breaker, counted in [`BUCKETS`] buckets of one atomic word each.
//!
//! | bits | |
//! |---|---|
//! | 13 | calls |
//! | 13 | of them failed |
//! | 13 | of them slow |
//! | 12 | round: how often the buckets have come around |
//! | 13 | the breaker's generation |
//!
//! A bucket of another round or generation is of the past, and the next outcome begins it anew: nothing has to be
//! cleared, and an outcome cannot get into the counts of a generation that is not its own. A full bucket is halved, so
//! that shares stay what they are and the latest calls weigh most.

use std::time::Duration;

use kiki::clock::UnixMicros;

use super::super::atomics::{AtomicU64, BUCKETS, Ordering};

const COUNT_MASK: u64 = (1 << 13) - 1;
const ROUND_MASK: u64 = (1 << 12) - 1;

/// Which calls count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// The last ones, so many; in steps of a tenth, at least 10.
    Calls(u32),
    /// Those of so long a time; in steps of a tenth, at least 10 ms.
    Time(Duration),
}

/// What calls came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tally: Tally,
    round: u64,
    generation: u16,
}

impl Bucket {
    fn unpack(bits: u64) -> Self {
        let tally = Tally { calls: bits & COUNT_MASK, failed: bits >> 13 & COUNT_MASK, slow: bits >> 26 & COUNT_MASK };
        Self { tally, round: bits >> 39 & ROUND_MASK, generation: (bits >> 51) as u16 }
    }

    fn pack(self) -> u64 {
        let Tally { calls, failed, slow } = self.tally;
        calls | failed << 13 | slow << 26 | self.round << 39 | u64::from(self.generation) << 51
    }

    fn with(self, failed: bool, slow: bool) -> Self {
        let Tally { calls, failed: failures, slow: slows } = self.tally;
        let halve = u64::from(calls == COUNT_MASK);
        let tally = Tally {
            calls: (calls >> halve) + 1,
            failed: (failures >> halve) + u64::from(failed),
            slow: (slows >> halve) + u64::from(slow),
        };
        Self { tally, ..self }
    }
}

/// The counts.
#[derive(Debug)]
pub(super) struct Counts {
    /// Calls or milliseconds of one bucket.
    width: u64,
    /// Calls so far; none where time is what counts.
    calls: Option<AtomicU64>,
    buckets: [AtomicU64; BUCKETS as usize],
}

impl Counts {
    pub(super) fn new(window: Window) -> Self {
        let (whole, calls) = match window {
            Window::Calls(calls) => (u64::from(calls), Some(AtomicU64::new(0))),
            Window::Time(time) => (time.as_millis() as u64, None),
        };
        Self { width: (whole / BUCKETS).max(1), calls, buckets: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Adds an outcome.
    pub(super) fn add(&self, generation: u16, failed: bool, slow: bool, now: UnixMicros) {
        let position = match &self.calls {
            Some(calls) => calls.fetch_add(1, Ordering::Relaxed),
            None => position(now),
        };
        let begun = position / self.width;
        let round = (begun / BUCKETS) & ROUND_MASK;
        let bucket = &self.buckets[(begun % BUCKETS) as usize];
        let mut bits = bucket.load(Ordering::Relaxed);
        loop {
            let found = Bucket::unpack(bits);
            let mine = if (found.generation, found.round) == (generation, round) {
                found
            } else if found.generation == generation && found.round == (round + 1) & ROUND_MASK {
                return; // a whole window late: the bucket is somebody else's by now
            } else {
                Bucket { tally: Tally::default(), round, generation }
            };
            match bucket.compare_exchange_weak(bits, mine.with(failed, slow).pack(), Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => bits = changed,
            }
        }
    }

    /// What the calls of the window came to. Asked after adding one: of calls that are added at once, the last to ask sees all.
    pub(super) fn tally(&self, generation: u16, now: UnixMicros) -> Tally {
        let position = match &self.calls {
            Some(calls) => calls.load(Ordering::Relaxed).saturating_sub(1),
            None => position(now),
        };
        let begun = position / self.width;
        let (round, last) = (begun / BUCKETS, begun % BUCKETS);
        let mut sum = Tally::default();
        for (at, bucket) in (0..).zip(&self.buckets) {
            let Bucket { tally, round: found, generation: of } = Bucket::unpack(bucket.load(Ordering::Relaxed));
            let due = if at > last { round.wrapping_sub(1) } else { round };
            if (of, found) == (generation, due & ROUND_MASK) {
                sum = Tally { calls: sum.calls + tally.calls, failed: sum.failed + tally.failed, slow: sum.slow + tally.slow };
            }
        }
        sum
    }
}

/// The place of a call in time, milliseconds.
fn position(now: UnixMicros) -> u64 {
    now.0.max(0) as u64 / 1_000
}
