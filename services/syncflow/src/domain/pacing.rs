//! Pacing: a campaign's daily budget, spread over its day by a multiplier of its bids.
//!
//! The bid is `v / (1 + lambda)`, where lambda is the dual of the budget: Balseiro and Gur, "Learning in Repeated Auctions
//! with Budgets" (Management Science 65, 2019), whose step is `lambda <- max(0, lambda - eps (rho - cost))`. Ours is that
//! step with the mirror map of Balseiro, Lu and Mirrokni, "The Best of Many Worlds: Dual Mirror Descent for Online
//! Allocation Problems" (Operations Research 71, 2023): it is taken on `m = ln(1 + lambda)`, so that a budget of a
//! thousandth of what could be spent is found as fast as one of a half, and never leaves `lambda >= 0`.
//!
//! rho is planned anew at each step from what is left: `k (budget - spent) / (day's end - now)`. That spends evenly with
//! k = 1; with k = 2 what is left falls by the square of the time left, three quarters of the budget in the day's first half.
//! A step is measured in windows of time: it falls by the time that passed, and rises by a charge over what the window was
//! to cost, so what is not to be spent and what is spent balance exactly.
//!
//! Time, charges and totals are arguments. Floats are added, multiplied and divided alone, which is the same on every
//! machine; the multiplier that bids are divided by is an integer, rounded up, and so every bid down.

use std::time::Duration;

use jiff::tz::TimeZone;
use kiki::clock::UnixMicros;
use kiki::leaf;
use kiki::money::{Micros, Nanos, PPM};

/// What a charge is measured against: long enough to have several, short beside a day.
const WINDOW: Duration = Duration::from_secs(900);
/// Towards the day's end the window is a quarter of what is left of it, and no less than this: charges come minutes after bids.
const SHORTEST_WINDOW: Duration = Duration::from_secs(300);
/// Where it begins: a sixth to a seventh of the value. Full value before the first charges are known could burn a day's
/// budget; what is missed in the half hour down from here is made up over the day.
const BEGIN: f64 = 2.0;
/// Where it ends: a millionth of the value is no bid.
const MOST: f64 = 14.0;
/// The most that one word of the log raises it by: it tells what others spent since an earlier one, which may be long ago.
const MOST_OF_A_TOTAL: f64 = 1.0;
/// Less of the day's budget than one in so many is what notices are awaited for, and no reason to bid more or less.
const SETTLED_UP: i128 = 100;

/// How a day's budget is spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The same amount in each hour.
    Even,
    /// What is left falls as the square of the time left: three quarters in the first half of the day.
    FrontLoaded,
}

impl Profile {
    /// How many times the even rate of what is left is spent now.
    const fn haste(self) -> f64 {
        match self {
            Self::Even => 1.0,
            Self::FrontLoaded => 2.0,
        }
    }
}

/// What a campaign's day is to cost, and how it is spread.
#[derive(Debug, Clone)]
pub struct Plan {
    profile: Profile,
    daily: Micros,
    zone: TimeZone,
}

impl Plan {
    /// A campaign's plan; none where it spends as fast as it can, which is also what no daily limit means.
    ///
    /// # Errors
    /// Its zone is unknown.
    pub fn of(campaign: &leaf::Campaign) -> Result<Option<Self>, jiff::Error> {
        let profile = match campaign.pacing() {
            leaf::Pacing::Unspecified | leaf::Pacing::Asap => return Ok(None),
            leaf::Pacing::Even => Profile::Even,
            leaf::Pacing::FrontLoaded => Profile::FrontLoaded,
        };
        if campaign.limit_daily_micros <= 0 {
            return Ok(None);
        }
        let zone = TimeZone::get(&campaign.zone)?;
        Ok(Some(Self { profile, daily: Micros::new(campaign.limit_daily_micros), zone }))
    }

    /// The local day that holds `now`; a day of 24 hours from now on at the end of time, which no zone knows.
    fn day(&self, now: UnixMicros) -> Day {
        let bounds = || -> Result<Day, jiff::Error> {
            let date = jiff::Timestamp::from_microsecond(now.0)?.to_zoned(self.zone.clone()).date();
            let midnight = |date: jiff::civil::Date| date.to_zoned(self.zone.clone()).map(|at| UnixMicros(at.timestamp().as_microsecond()));
            Ok(Day { start: midnight(date)?, end: midnight(date.tomorrow()?)? })
        };
        bounds().unwrap_or(Day { start: now, end: now.plus(Duration::from_secs(86_400)) })
    }
}

#[derive(Debug, Clone, Copy)]
struct Day {
    start: UnixMicros,
    end: UnixMicros,
}

/// Where a campaign stands in its day.
#[derive(Debug, Clone)]
pub struct Pacer {
    plan: Plan,
    day: Day,
    /// The latest instant that was looked at.
    at: UnixMicros,
    /// Charged of the day's budget, nanos.
    spent: i128,
    /// Whether the log has said what was spent before.
    told: bool,
    /// ln(1 + lambda).
    m: f64,
}

impl Pacer {
    /// A campaign of which nothing is known yet.
    #[must_use]
    pub fn new(plan: &Plan, now: UnixMicros) -> Self {
        Self { plan: plan.clone(), day: plan.day(now), at: now, spent: 0, told: false, m: BEGIN }
    }

    /// Time has passed, and the campaign's plan is this: the multiplier that its bids are divided by less one, parts per million.
    pub fn lambda_ppm(&mut self, plan: &Plan, now: UnixMicros) -> u64 {
        self.plan.clone_from(plan);
        if now >= self.day.end {
            (self.day, self.spent) = (plan.day(now), 0);
        }
        // A time in which nothing was offered says little: no more than a window of it counts.
        let passed = now.since(self.at).min(WINDOW);
        self.at = self.at.max(now);
        if self.left() > 0 {
            self.m = (self.m - passed.as_secs_f64() / self.window().as_secs_f64()).max(0.0);
        }
        lambda_ppm(self.m)
    }

    /// An impression was charged that a lease of that instant paid for.
    pub fn charged(&mut self, price: Nanos, granted_at: UnixMicros) {
        if granted_at >= self.day.start && granted_at < self.day.end {
            self.cost(price.wide(), MOST);
        }
    }

    /// The log says what was charged in all of the day that ends then: what others spent is a cost like our own. The first
    /// word is where it begins.
    pub fn total(&mut self, nanos: i128, day_end: UnixMicros) {
        if day_end != self.day.end {
            return;
        }
        if self.told {
            self.cost((nanos - self.spent).max(0), MOST_OF_A_TOTAL);
        } else {
            (self.spent, self.told) = (self.spent.max(nanos), true);
        }
    }

    /// What bids are divided by: 1 + lambda. For people's eyes.
    #[must_use]
    pub fn divisor(&self) -> f64 {
        1.0 + lambda_ppm(self.m) as f64 / PPM as f64
    }

    fn cost(&mut self, nanos: i128, most: f64) {
        let left = self.left();
        self.spent += nanos;
        if left <= 0 {
            return;
        }
        let windows = self.day.end.since(self.at).as_secs_f64() / self.window().as_secs_f64();
        let planned = self.plan.profile.haste() * left as f64 / windows.max(1.0);
        self.m = (self.m + (nanos as f64 / planned).min(most)).min(MOST);
    }

    /// What is left of the day's budget, nanos; nothing where notices alone are awaited.
    fn left(&self) -> i128 {
        let left = self.plan.daily.nanos() - self.spent;
        if left * SETTLED_UP < self.plan.daily.nanos() { 0 } else { left }
    }

    fn window(&self) -> Duration {
        (self.day.end.since(self.at) / 4).clamp(SHORTEST_WINDOW, WINDOW)
    }
}

/// (1 + m/256)^256 in place of e^m, which is of the platform's making; either rises with m, and that is all it has to.
fn lambda_ppm(m: f64) -> u64 {
    let mut multiplier = 1.0 + m / 256.0;
    for _ in 0..8 {
        multiplier *= multiplier;
    }
    ((multiplier - 1.0) * PPM as f64).ceil() as u64
}

/// What may be offered for an impression of that value, rounded down.
#[must_use]
pub fn paced(value: Nanos, lambda_ppm: u64) -> Nanos {
    let divided = value.wide() * PPM / (PPM + i128::from(lambda_ppm));
    Nanos::new(i64::try_from(divided).unwrap_or(i64::MAX)) // no more than the value, which fits
}

#[cfg(test)]
mod tests;
