//! The time that a bid has: what the exchange and the caller allow, less what the network takes of it, split over three stages.
//!
//! | stage | ends at | what is late then |
//! |---|---|---|
//! | predict: SyncValue | a half | the prediction; [`crate::domain::fallback`] stands in |
//! | guard: price, guardrails, caps, a slot | nine tenths | the bid; there is none, and nothing is asked or taken for it |
//! | encode: the answer's bytes | the end | nothing: its slot is taken, so it is sent |
//!
//! What is past its stage's end is dropped before it costs: no question is sent, no campaign priced, no slot taken.

use std::time::Duration;

use tokio::time::Instant;

/// When a request, or a stream's message, was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// When it came: before anybody had the time to read it, as far as that is known.
    pub came: Instant,
    /// When somebody had.
    pub looked_at: Instant,
}

impl Arrival {
    /// It is looked at as it comes.
    #[must_use]
    pub const fn at_once(now: Instant) -> Self {
        Self { came: now, looked_at: now }
    }
}

/// The instants of a bid's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadline {
    /// When the request came.
    pub began: Instant,
    /// When it was looked at.
    pub looked_at: Instant,
    /// Until when predictions are waited for.
    pub predict: Instant,
    /// Until when a slot may be taken.
    pub guard: Instant,
    /// Whether its stages go into the histograms: of a stream's messages that are answered together, one opportunity's do.
    pub timed: bool,
}

impl Deadline {
    /// So much time from when it came.
    #[must_use]
    pub fn new(Arrival { came: began, looked_at }: Arrival, whole: Duration) -> Self {
        Self { began, looked_at, predict: began + whole / 2, guard: began + (whole - whole / 10), timed: true }
    }

    /// The shortest of the limits, less the allowance.
    #[must_use]
    pub fn of(arrival: Arrival, limits: impl IntoIterator<Item = Duration>, longest: Duration, allowance: Duration) -> Self {
        Self::new(arrival, limits.into_iter().fold(longest, Duration::min).saturating_sub(allowance))
    }

    /// Whether it is too late for a question to SyncValue.
    #[must_use]
    pub fn too_late_to_ask(&self, now: Instant) -> bool {
        now >= self.predict
    }

    /// Whether it is too late for a bid.
    #[must_use]
    pub fn too_late_to_bid(&self, now: Instant) -> bool {
        now >= self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_shortest_limit_counts_less_the_allowance_and_is_split() {
        let began = Instant::now();
        let millis = Duration::from_millis;
        let of = |limits: &[u64]| Deadline::of(Arrival::at_once(began), limits.iter().map(|ms| millis(*ms)), millis(1_000), millis(2));
        let deadline = of(&[102, 300]);
        assert_eq!((deadline.predict - began, deadline.guard - began), (millis(50), millis(90)));
        assert_eq!(of(&[]), of(&[5_000]), "never longer than what is configured");
        let at = |ms| began + millis(ms);
        assert_eq!([49, 50, 90].map(|ms| deadline.too_late_to_ask(at(ms))), [false, true, true]);
        assert_eq!([50, 89, 90].map(|ms| deadline.too_late_to_bid(at(ms))), [false, false, true]);
        assert!(of(&[2]).too_late_to_bid(began), "what the network takes alone leaves no time");
    }
}
