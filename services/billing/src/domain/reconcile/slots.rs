//! Slots of time that follow each other: the days of a zone, or hours.
//!
//! A zone is looked at when the slots are made; sums go by the resolved instants alone.

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan as _;
use jiff::civil::Date;
use kiki::clock::UnixMicros;

use crate::domain::period::{PeriodError, Span, time_zone};

/// Most days of one reconciliation: a leap year.
pub const DAYS_MAX: usize = 366;
/// Most hours of one reconciliation: a month of 31 days, and the hour that clocks are put back by.
pub const HOURS_MAX: usize = 745;
/// An hour in micros.
const HOUR: i64 = 3_600_000_000;

/// A calendar day, printed `2026-01-31`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(Date);

impl FromStr for Day {
    type Err = SlotsError;

    fn from_str(text: &str) -> Result<Self, SlotsError> {
        // jiff reads other forms too: a day that is printed back as it came is of this one.
        let read = text.parse().ok().map(Self).filter(|day: &Self| day.to_string() == text);
        read.ok_or_else(|| SlotsError::Day { text: text.chars().take(40).collect() })
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why there are no such slots.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotsError {
    /// Not a day such as `2026-01-31`.
    #[error("{text:?} is not a day of the form YYYY-MM-DD")]
    Day {
        /// What was given.
        text: String,
    },
    /// They end before they begin, or there are too many.
    #[error("{count} {what}; from 1 to {max} are taken")]
    Count {
        /// Days or hours.
        what: &'static str,
        /// How many; 0 where the end is not behind the beginning.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// Not on the hour (UTC), as hours of a counter are.
    #[error("an hour begins on the hour, in UTC")]
    Hour,
    /// The zone, or a day that no calendar holds.
    #[error(transparent)]
    Period(#[from] PeriodError),
}

/// Slots, in order. Each is half-open and begins where the one before ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slots {
    /// Where each begins, and where the last ends: ascending, one more than there are slots.
    bounds: Vec<UnixMicros>,
    /// The first, where they are days.
    first: Option<Day>,
}

impl Slots {
    /// The days from `first` to `last`, both included, in an IANA zone. A day that the zone skipped is empty.
    ///
    /// # Errors
    /// No such zone, or no or too many days.
    pub fn days(first: Day, last: Day, zone: &str) -> Result<Self, SlotsError> {
        let range = || PeriodError::Range { what: "day" };
        let zone = time_zone(zone)?;
        let days = (last.0 - first.0).get_days() + 1;
        let count = usize::try_from(days).unwrap_or(0);
        if !(1..=DAYS_MAX).contains(&count) {
            return Err(SlotsError::Count { what: "days", count, max: DAYS_MAX });
        }
        let midnight = |n: i32| {
            let date = first.0.checked_add(n.days()).map_err(|_| range())?;
            let zoned = date.to_zoned(zone.clone()).map_err(|_| range())?;
            Ok(UnixMicros(zoned.timestamp().as_microsecond()))
        };
        Ok(Self { bounds: (0..=days).map(midnight).collect::<Result<_, PeriodError>>()?, first: Some(first) })
    }

    /// Hours of UTC from one to another, the last excluded, and the one ahead of them, which a counter is begun from: slot 0.
    ///
    /// # Errors
    /// Not on the hour, or no or too many hours.
    pub fn hours(from: UnixMicros, until: UnixMicros) -> Result<Self, SlotsError> {
        if from.0 % HOUR != 0 || until.0 % HOUR != 0 {
            return Err(SlotsError::Hour);
        }
        let hours = (until.0.saturating_sub(from.0)) / HOUR;
        let count = usize::try_from(hours).unwrap_or(0);
        if !(1..=HOURS_MAX).contains(&count) {
            return Err(SlotsError::Count { what: "hours", count, max: HOURS_MAX });
        }
        Ok(Self { bounds: (-1..=hours).map(|n| UnixMicros(from.0 + n * HOUR)).collect(), first: None })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.bounds.len() - 1
    }

    /// The slot that an instant is in.
    pub fn of(&self, at: UnixMicros) -> Option<usize> {
        let begun = self.bounds.partition_point(|bound| *bound <= at);
        (1..=self.count()).contains(&begun).then(|| begun - 1)
    }

    /// The slot of a day of theirs.
    pub fn of_day(&self, day: Day) -> Option<usize> {
        let slot = usize::try_from((day.0 - self.first?.0).get_days()).ok()?;
        (slot < self.count()).then_some(slot)
    }

    /// The day that a slot is, where they are days.
    pub fn day(&self, slot: usize) -> Option<Day> {
        let days = i32::try_from(slot).ok()?;
        self.first?.0.checked_add(days.days()).ok().map(Day)
    }

    /// When a slot is.
    pub fn span(&self, slot: usize) -> Option<Span> {
        Some(Span { start: *self.bounds.get(slot)?, end: *self.bounds.get(slot + 1)? })
    }

    /// When all of them are.
    pub fn all(&self) -> Span {
        let end = self.bounds.len() - 1;
        Span { start: self.bounds[0], end: self.bounds[end] }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn micros(text: &str) -> UnixMicros {
        UnixMicros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
    }

    fn days(first: &str, last: &str, zone: &str) -> Result<Slots, SlotsError> {
        Slots::days(first.parse().unwrap(), last.parse().unwrap(), zone)
    }

    #[test]
    fn a_day_is_the_zones_own_also_where_clocks_change() {
        let slots = days("2026-03-28", "2026-03-30", "Europe/Berlin").unwrap();
        let lengths: Vec<i64> = (0..3).map(|slot| slots.span(slot).unwrap()).map(|span| (span.end.0 - span.start.0) / HOUR).collect();
        assert_eq!(lengths, [24, 23, 24]);
        let day = |text: &str| text.parse::<Day>().unwrap();
        assert_eq!((slots.day(2), slots.of_day(day("2026-03-30"))), (Some(day("2026-03-30")), Some(2)));
        assert_eq!((slots.of_day(day("2026-03-31")), slots.of_day(day("2026-03-27"))), (None, None));
        for (at, slot) in [
            ("2026-03-27T22:59:59.999999Z", None),
            ("2026-03-27T23:00:00Z", Some(0)),
            ("2026-03-29T21:59:59.999999Z", Some(1)),
            ("2026-03-29T22:00:00Z", Some(2)),
            ("2026-03-30T22:00:00Z", None),
        ] {
            assert_eq!(slots.of(micros(at)), slot, "{at}");
        }
    }

    #[test]
    fn a_day_that_a_zone_skipped_holds_nothing() {
        let slots = days("2011-12-29", "2011-12-31", "Pacific/Apia").unwrap();
        let spans: Vec<_> = (0..3).map(|slot| slots.span(slot).unwrap()).collect();
        assert_eq!(spans[1].start, spans[1].end);
        assert_eq!(slots.of(spans[1].start), Some(2));
    }

    #[test]
    fn hours_begin_with_the_one_ahead() {
        let slots = Slots::hours(micros("2026-01-01T00:00:00Z"), micros("2026-01-01T02:00:00Z")).unwrap();
        assert_eq!(slots.count(), 3);
        assert_eq!(slots.of(micros("2025-12-31T23:00:00Z")), Some(0));
        assert_eq!(slots.of(micros("2026-01-01T01:59:59Z")), Some(2));
        assert_eq!(Slots::hours(micros("2026-01-01T00:30:00Z"), micros("2026-01-01T02:00:00Z")), Err(SlotsError::Hour));
    }

    #[test]
    fn no_more_and_no_fewer_are_taken_than_there_is_room_for() {
        let count = |answer: Result<Slots, SlotsError>| answer.map(|slots| slots.count());
        assert_eq!(count(days("2024-01-01", "2024-12-31", "UTC")), Ok(DAYS_MAX));
        let many = days("2024-01-01", "2025-01-01", "UTC").unwrap_err().to_string();
        assert_eq!(many, "367 days; from 1 to 366 are taken");
        assert_eq!(days("2024-01-02", "2024-01-01", "UTC").unwrap_err().to_string(), "0 days; from 1 to 366 are taken");
        assert!(days("2024-01-01", "2024-01-02", "Mars/Olympus").is_err());
        let from = micros("2026-01-01T00:00:00Z");
        let hours = |hours: i64| count(Slots::hours(from, UnixMicros(from.0 + hours * HOUR)));
        assert_eq!(hours(745), Ok(746));
        assert!(hours(746).is_err() && hours(0).is_err());
        for text in ["2026-1-01", "20260101", "2026-02-30", "2026-01-01T00:00", ""] {
            assert!(text.parse::<Day>().is_err(), "{text:?} was read");
        }
    }
}
