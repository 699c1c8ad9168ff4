//! Time is an argument: domains take a [`UnixMicros`], and only the shells hold a [`Clock`].

#![allow(clippy::disallowed_methods)] // the one place that may read the system's clocks

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct UnixMicros(pub i64);

impl UnixMicros {
    /// This instant and so many microseconds.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_micros() as i64))
    }

    /// How long since `earlier`; zero where that is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        let micros = self.0.saturating_sub(earlier.0);
        Duration::from_micros(if micros > 0 { micros as u64 } else { 0 })
    }

    /// From a leaf's or message's timestamp; none where it is absent or outside the years 1 to 9999.
    #[must_use]
    pub fn from_pb(time: Option<&prost_types::Timestamp>) -> Option<Self> {
        let time = time?;
        let in_range = (-62_135_596_800..=253_402_300_799).contains(&time.seconds) && (0..1_000_000_000).contains(&time.nanos);
        in_range.then(|| Self(time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000))
    }
}

impl From<UnixMicros> for prost_types::Timestamp {
    fn from(time: UnixMicros) -> Self {
        Self { seconds: time.0.div_euclid(1_000_000), nanos: (time.0.rem_euclid(1_000_000) * 1_000) as i32 }
    }
}

/// What "now" is: the system's clock, or one that a replay or test moves.
#[derive(Debug, Clone, Default)]
pub enum Clock {
    /// The system's clock.
    #[default]
    System,
    /// A clock that somebody moves.
    Virtual(VirtualClock),
}

impl Clock {
    /// Now.
    #[must_use]
    pub fn now(&self) -> UnixMicros {
        match self {
            Self::System => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                UnixMicros(since.as_micros() as i64)
            }
            Self::Virtual(clock) => clock.now(),
        }
    }

    /// Warns where it is not the system's: nothing is then true of this hour.
    pub fn announce(&self) {
        if let Self::Virtual(clock) = self {
            tracing::warn!(
                "on a clock that a replay moves by PUT /clock, from {} microseconds since 1970: for no real money",
                clock.now().0
            );
        }
    }
}

/// A text that names no clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a clock is \"system\", or \"replay:\" with the instant that it stands at, as in replay:2026-01-01T00:00:00Z")]
pub struct ClockError;

impl FromStr for Clock {
    type Err = ClockError;

    /// `system`, or `replay:` with an RFC 3339 instant from 1970 on.
    fn from_str(text: &str) -> Result<Self, ClockError> {
        let Some(instant) = text.strip_prefix("replay:") else {
            return if text == "system" { Ok(Self::System) } else { Err(ClockError) };
        };
        let at: jiff::Timestamp = instant.parse().map_err(|_| ClockError)?;
        let at = UnixMicros(at.as_microsecond());
        if at.0 < 0 { Err(ClockError) } else { Ok(Self::Virtual(VirtualClock::at(at))) }
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug, Clone, Default)]
pub struct VirtualClock(Arc<AtomicI64>);

impl VirtualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn at(start: UnixMicros) -> Self {
        Self(Arc::new(AtomicI64::new(start.0)))
    }

    /// Where it stands.
    #[must_use]
    pub fn now(&self) -> UnixMicros {
        UnixMicros(self.0.load(Ordering::Acquire))
    }

    /// Moves it on; it never goes back. Where it stands then: later than `time` where it already was.
    pub fn advance_to(&self, time: UnixMicros) -> UnixMicros {
        UnixMicros(self.0.fetch_max(time.0, Ordering::AcqRel).max(time.0))
    }
}

/// A monotonic reading, for durations of real work alone.
#[must_use]
pub fn monotonic() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_setting_names_the_systems_clock_or_where_another_stands() {
        assert!(matches!("system".parse(), Ok(Clock::System)));
        assert_eq!("replay:2026-01-01T01:00:00+01:00".parse::<Clock>().unwrap().now(), UnixMicros(1_767_225_600_000_000));
        assert_eq!("replay:1970-01-01T00:00:00Z".parse::<Clock>().unwrap().now(), UnixMicros(0));
        for wrong in
            ["", "System", "replay", "replay:", "replay:0", "replay:2026-01-01", "replay:1969-12-31T23:59:59Z", "2026-01-01T00:00:00Z"]
        {
            assert_eq!(wrong.parse::<Clock>().unwrap_err(), ClockError, "{wrong}");
        }
    }

    #[test]
    fn a_virtual_clock_never_goes_back() {
        let clock = VirtualClock::at(UnixMicros(5));
        assert_eq!((clock.advance_to(UnixMicros(7)), clock.now()), (UnixMicros(7), UnixMicros(7)));
        assert_eq!((clock.advance_to(UnixMicros(6)), clock.now()), (UnixMicros(7), UnixMicros(7)));
    }
}
