//! A customer's purchase days, read week by week.

use super::features::{Scales, Weeks};
use super::network::INPUTS;
use super::{Day, Fit, Rfv, Table, scaled};
use crate::domain::predictor::expect;

/// Weeks of a block. The network reads from the beginning of the block before that of the question's day: five to ten years, so that
/// no date, however far off, takes it more than 520 steps, and two questions of one block begin at one week.
const BLOCK_WEEKS: i64 = 260;

/// The first day of the week of `day`, where weeks begin every seven days from `cut` both ways.
#[must_use]
pub const fn week_of(day: i64, cut: i64) -> i64 {
    day - (day - cut).rem_euclid(7)
}

/// The first day of the first week that is read of these days for a question about the day `end` and later; none where none is before it.
#[must_use]
pub fn first_week(days: &[Day], (end, cut): (i64, i64)) -> Option<i64> {
    let first = days.first().filter(|first| first.day < end)?;
    let block = (end - 1 - cut).div_euclid(7 * BLOCK_WEEKS);
    Some(week_of(first.day, cut).max(cut + (block - 1) * 7 * BLOCK_WEEKS))
}

/// What is known of a customer before the week that is open.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    known: Weeks,
    /// What the estimate knows.
    pub rfv: Rfv,
    /// The first day of the open week.
    pub begins: i64,
    /// How many of the days are in.
    pub taken: usize,
}

impl Reading {
    /// Nothing but what came before [`first_week`]; none where no day is before `end`.
    #[must_use]
    pub fn begin(days: &[Day], (end, cut): (i64, i64), scales: &Scales) -> Option<Self> {
        let begins = first_week(days, (end, cut))?;
        let mut reading = Self { known: Weeks::new(*scales), rfv: Rfv::default(), begins, taken: 0 };
        reading.take(days, begins);
        reading.known.skip_week();
        Some(reading)
    }

    fn take(&mut self, days: &[Day], end: i64) {
        while let Some(day) = days.get(self.taken).filter(|day| day.day < end) {
            self.rfv.take(day);
            self.known.bought(day.day, day.spend_micros as f64 / 1e6, day.items);
            self.taken += 1;
        }
    }

    /// Ends the open week, before the day `end` if it is not over by then: what it comes to, as the network reads it.
    pub fn close(&mut self, days: &[Day], end: i64, scales: &Scales, (estimate, table): (&Fit, &Table)) -> [f32; INPUTS] {
        let end = end.min(self.begins + 7);
        self.take(days, end);
        self.begins += 7;
        let expected = expect(estimate, table, &self.rfv, end - 1).unwrap_or_default();
        self.known.close(end, scaled(expected, scales))
    }
}
