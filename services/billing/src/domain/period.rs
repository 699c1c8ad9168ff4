//! Billing periods: half-open months that begin and end at midnight in the client's own zone.
//!
//! A zone is looked at only when a month is resolved or an invoice is dated. What is resolved
//! stands in the log as UTC instants, and folds work on those alone.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use kiki::clock::UnixMicros;

/// Longest time to pay that terms may give: a year.
pub const PAYMENT_DAYS_MAX: u32 = 366;

/// Years that a month may lie in: what every date of the invoice, due dates included, can print in four digits.
const YEARS: std::ops::RangeInclusive<i16> = 1970..=9_997;

/// Why a period or a date could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeriodError {
    /// Not a month such as `2026-01`.
    #[error("month {text:?} is not of the form YYYY-MM, from 1970-01 to 9997-12")]
    Month {
        /// What was given.
        text: String,
    },
    /// Not an IANA zone.
    #[error("time zone {name:?} is not in the IANA database")]
    Zone {
        /// What was given.
        name: String,
    },
    /// An instant or date outside what a calendar can hold.
    #[error("{what} is outside the calendar's range")]
    Range {
        /// Which.
        what: &'static str,
    },
}

/// A calendar month, printed `2026-01`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    year: i16,
    month: i8,
}

impl Month {
    /// The year, four digits.
    pub fn year(self) -> i16 {
        self.year
    }

    /// The month that holds an instant in `zone`.
    pub fn containing(at: UnixMicros, zone: &str) -> Result<Self, PeriodError> {
        let date = date_of(at, zone)?;
        Self { year: date.year(), month: date.month() }.checked()
    }

    /// The month after.
    pub fn next(self) -> Self {
        match self.month {
            12 => Self { year: self.year + 1, month: 1 },
            month => Self { year: self.year, month: month + 1 },
        }
    }

    fn checked(self) -> Result<Self, PeriodError> {
        let in_range = YEARS.contains(&self.year) && (1..=12).contains(&self.month);
        if in_range { Ok(self) } else { Err(PeriodError::Month { text: self.to_string() }) }
    }

    fn first_midnight_micros(self, zone: &TimeZone) -> Result<UnixMicros, PeriodError> {
        let range = PeriodError::Range { what: "month" };
        let date = Date::new(self.year, self.month, 1).map_err(|_| range.clone())?;
        // Where clocks skip midnight, the day begins at the first instant that exists.
        let start = date.to_zoned(zone.clone()).map_err(|_| range)?;
        Ok(UnixMicros(start.timestamp().as_microsecond()))
    }
}

impl fmt::Display for Month {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Month {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let err = || PeriodError::Month { text: text.to_owned() };
        let (year, month) = text.split_once('-').ok_or_else(err)?;
        let digits = |part: &str, len| part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(err());
        }
        let (year, month) = (year.parse().map_err(|_| err())?, month.parse().map_err(|_| err())?);
        Self { year, month }.checked().map_err(|_| err())
    }
}

/// A half-open span of time `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Included.
    pub start: UnixMicros,
    /// Excluded.
    pub end: UnixMicros,
}

/// The UTC instants of a month in a zone.
pub fn resolve(month: Month, zone: &str) -> Result<Span, PeriodError> {
    let zone = time_zone(zone)?;
    Ok(Span { start: month.first_midnight_micros(&zone)?, end: month.next().first_midnight_micros(&zone)? })
}

/// The calendar date of an instant in a zone, printed `2026-02-01`.
pub fn issue_date(at: UnixMicros, zone: &str) -> Result<String, PeriodError> {
    Ok(date_of(at, zone)?.to_string())
}

/// The date of an instant in a zone plus `payment_days` calendar days.
pub fn due_date(issued: UnixMicros, zone: &str, payment_days: u32) -> Result<String, PeriodError> {
    let range = || PeriodError::Range { what: "due date" };
    if payment_days > PAYMENT_DAYS_MAX {
        return Err(range());
    }
    let date = date_of(issued, zone)?;
    let due = date.checked_add(i64::from(payment_days).days()).map_err(|_| range())?;
    Ok(due.to_string())
}

/// An instant as RFC 3339 prints it in UTC.
pub fn utc(at: UnixMicros) -> Result<String, PeriodError> {
    Ok(timestamp(at)?.to_string())
}

fn timestamp(at: UnixMicros) -> Result<Timestamp, PeriodError> {
    Timestamp::from_microsecond(at.0).map_err(|_| PeriodError::Range { what: "instant" })
}

fn date_of(at: UnixMicros, zone: &str) -> Result<Date, PeriodError> {
    Ok(timestamp(at)?.to_zoned(time_zone(zone)?).date())
}

pub(super) fn time_zone(name: &str) -> Result<TimeZone, PeriodError> {
    TimeZone::get(name).map_err(|_| PeriodError::Zone { name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn micros(text: &str) -> UnixMicros {
        UnixMicros(text.parse::<Timestamp>().unwrap().as_microsecond())
    }

    fn month(text: &str) -> Month {
        text.parse().unwrap()
    }

    #[test]
    fn months_end_at_midnight_in_the_clients_zone() {
        for (text, zone, start, end) in [
            ("2026-01", "UTC", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"),
            ("2026-03", "Europe/Berlin", "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"),
            ("2025-12", "Asia/Tokyo", "2025-11-30T15:00:00Z", "2025-12-31T15:00:00Z"),
            ("2024-02", "America/New_York", "2024-02-01T05:00:00Z", "2024-03-01T05:00:00Z"),
        ] {
            let span = resolve(month(text), zone).unwrap();
            assert_eq!((span.start, span.end), (micros(start), micros(end)), "{text} {zone}");
        }
    }

    #[test]
    fn in_every_zone_months_follow_each_other_without_gap_or_overlap() {
        let zones: Vec<String> = jiff::tz::db().available().map(|zone| zone.to_string()).collect();
        let offset = |hours: &str| zones.iter().any(|zone| zone == &format!("Etc/GMT{hours}"));
        assert!(offset("+12") && offset("-14") && zones.len() > 400, "from UTC-12 to UTC+14: {zones:?}");
        for zone in &zones {
            // With Samoa's day that never was, and each change of the clocks since.
            let mut at = month("2010-11");
            let mut this = resolve(at, zone).unwrap();
            while at < month("2027-01") {
                let next = resolve(at.next(), zone).unwrap();
                assert!(this.start < this.end);
                assert_eq!(this.end, next.start, "{at} {zone}");
                assert_eq!(Month::containing(this.start, zone).unwrap(), at);
                assert_eq!(Month::containing(UnixMicros(this.end.0 - 1), zone).unwrap(), at);
                (at, this) = (at.next(), next);
            }
        }
    }

    #[test]
    fn a_month_whose_midnight_is_skipped_begins_at_the_first_instant_there_is() {
        // Paraguay moved its clocks from 00:00 to 01:00 on 2017-10-01.
        let span = resolve(month("2017-10"), "America/Asuncion").unwrap();
        assert_eq!(span.start, micros("2017-10-01T04:00:00Z"));
    }

    #[test]
    fn due_date_counts_days_in_the_clients_zone() {
        assert_eq!(due_date(micros("2026-01-18T12:00:00Z"), "UTC", 30).unwrap(), "2026-02-17");
        assert_eq!(due_date(micros("2026-02-01T00:00:00Z"), "UTC", 30).unwrap(), "2026-03-03");
        // Already February in Tokyo.
        assert_eq!(due_date(micros("2026-01-31T15:00:00Z"), "Asia/Tokyo", 30).unwrap(), "2026-03-03");
        assert_eq!(issue_date(micros("2026-01-31T15:00:00Z"), "Asia/Tokyo").unwrap(), "2026-02-01");
        assert!(due_date(UnixMicros(0), "UTC", PAYMENT_DAYS_MAX + 1).is_err());
    }

    #[test]
    fn refuses_what_is_no_month_or_zone() {
        for text in ["2026-1", "2026-13", "2026-00", "26-01", "2026/01", "", "+026-01", "1969-12", "9998-01"] {
            assert!(text.parse::<Month>().is_err(), "{text:?} was read");
        }
        assert!(resolve(month("2026-01"), "Mars/Olympus").is_err());
    }
}
