//! Spend that runs away: a platform that charges far more a minute, or far more an impression, than it did. Whoever sees one trips
//! the platform's circuit breaker, and bids stop until somebody, or its probes, find that it was nothing.
//!
//! - Velocity: what was charged within this minute, against the mean of earlier minutes. It is asked of a minute with some
//!   charges, after some minutes, so that neither a quiet hour nor a start is a surge.
//! - Jump: what impressions cost now, against what they cost for long: two exponentially weighted means of the clearing
//!   price (after Roberts, "Control Chart Tests Based on Geometric Moving Averages", Technometrics 1, 1959).
//!
//! Integers throughout; a state of some words for each platform and currency; time is an argument and may stand still.

use kiki::clock::UnixMicros;
use kiki::money::{Nanos, PPM};

const MINUTE: i64 = 60_000_000;
/// Minutes that a trailing mean weighs, and those that it needs.
const MINUTES: i128 = 30;
const LEAST_MINUTES: u32 = 5;
/// Charges of a minute below which it is no surge.
const LEAST_A_MINUTE: u32 = 10;
/// Charges that the quick and the slow mean of prices weigh, and those that they need.
const QUICK: i128 = 8;
const SLOW: i128 = 256;
const LEAST_CHARGES: u32 = 64;
/// Means are kept in thousandths of a nano, so that small prices do not vanish in rounding.
const PARTS: i128 = 1_000;

/// From how many times the mean on, parts per million; none: never.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// Spend of a minute.
    pub velocity_ppm: Option<u32>,
    /// Price of an impression.
    pub jump_ppm: Option<u32>,
}

/// What ran away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Spend of a minute.
    Velocity,
    /// Price of an impression.
    Jump,
}

impl Cause {
    /// Its name in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Velocity => "spend_velocity",
            Self::Jump => "cpm_jump",
        }
    }
}

/// What a platform charged in one currency.
#[derive(Debug, Clone, Default)]
pub struct Surge {
    minute: i64,
    spent: i128,
    charged: u32,
    /// Mean of the minutes before, and how many there were.
    a_minute: i128,
    minutes: u32,
    quick: i128,
    slow: i128,
    charges: u32,
}

impl Surge {
    /// An impression was charged: whether that is a surge.
    pub fn charged(&mut self, price: Nanos, bounds: Bounds, now: UnixMicros) -> Option<Cause> {
        self.pass(now.0.div_euclid(MINUTE));
        self.spent += price.wide() * PARTS;
        self.charged = self.charged.saturating_add(1);
        let velocity = self.minutes >= LEAST_MINUTES
            && self.charged >= LEAST_A_MINUTE
            && bounds.velocity_ppm.is_some_and(|ppm| exceeds(self.spent, self.a_minute, ppm));
        let jump = self.priced(price.wide() * PARTS, bounds.jump_ppm);
        if velocity {
            Some(Cause::Velocity)
        } else if jump {
            Some(Cause::Jump)
        } else {
            None
        }
    }

    /// Whether impressions cost so much more than they did. The slow mean learns of a jump too: a market that stays where it
    /// jumped to is bid on again after a hundred charges or so.
    fn priced(&mut self, price: i128, jump_ppm: Option<u32>) -> bool {
        if self.charges == 0 {
            (self.quick, self.slow) = (price, price);
        }
        self.charges = self.charges.saturating_add(1);
        self.quick += (price - self.quick) / QUICK;
        self.slow += (price - self.slow) / SLOW.min(self.charges.into());
        self.charges > LEAST_CHARGES && jump_ppm.is_some_and(|ppm| exceeds(self.quick, self.slow, ppm))
    }

    /// Minutes that are over go into the mean; one that came after a long silence finds none.
    fn pass(&mut self, minute: i64) {
        let over = minute.saturating_sub(self.minute);
        if self.minutes == 0 && self.charged == 0 || over > 10 * MINUTES as i64 {
            (self.minute, self.spent, self.charged, self.a_minute, self.minutes) = (minute, 0, 0, 0, 0);
            return;
        }
        for _ in 0..over {
            self.minutes = self.minutes.saturating_add(1);
            self.a_minute += (self.spent - self.a_minute) / MINUTES.min(self.minutes.into());
            (self.spent, self.charged) = (0, 0);
        }
        self.minute = self.minute.max(minute);
    }
}

/// Whether it is more than so many times the mean, which has to be something.
fn exceeds(value: i128, mean: i128, ppm: u32) -> bool {
    mean > 0 && value * PPM > mean * i128::from(ppm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOUNDS: Bounds = Bounds { velocity_ppm: Some(3_000_000), jump_ppm: Some(2_000_000) };

    fn at(minute: i64) -> UnixMicros {
        UnixMicros(1_768_478_400_000_000 + minute * MINUTE)
    }

    /// So many impressions of that price within the minute, and what they are.
    fn charge(surge: &mut Surge, count: u32, price: i64, bounds: Bounds, minute: i64) -> Vec<Cause> {
        (0..count).filter_map(|_| surge.charged(Nanos::new(price), bounds, at(minute))).collect()
    }

    #[test]
    fn three_times_the_usual_spend_of_a_minute_is_a_surge_and_the_usual_is_none() {
        let mut surge = Surge::default();
        for minute in 0..10 {
            assert_eq!(charge(&mut surge, 20, 1_000, BOUNDS, minute), []);
        }
        assert_eq!(charge(&mut surge, 60, 1_000, BOUNDS, 10), []);
        assert_eq!(charge(&mut surge, 2, 1_000, BOUNDS, 10), [Cause::Velocity; 2], "each charge of it says so");
        assert_eq!(charge(&mut surge, 20, 1_000, BOUNDS, 11), [], "the next minute is another");
        assert_eq!(charge(&mut surge.clone(), 200, 1_000, Bounds::default(), 12), [], "nobody asked");
    }

    #[test]
    fn neither_a_start_nor_a_long_silence_nor_a_few_charges_are_a_surge() {
        let mut surge = Surge::default();
        assert_eq!(charge(&mut surge, 1_000, 1_000, BOUNDS, 0), []);
        for minute in 1..9 {
            charge(&mut surge, 1, 1, BOUNDS, minute);
        }
        let mut few = surge.clone();
        assert_eq!(charge(&mut few, 9, 900, BOUNDS, 200), [], "nine charges are no surge, whatever the hours before");
        assert_eq!(charge(&mut surge, 1_000, 1_000, BOUNDS, 400), [], "the day before is forgotten");
    }

    #[test]
    fn impressions_that_cost_twice_what_they_did_are_a_jump_until_that_is_what_they_cost() {
        let mut surge = Surge::default();
        let bounds = Bounds { velocity_ppm: None, ..BOUNDS };
        assert_eq!(charge(&mut surge, 200, 1_000, bounds, 0), []);
        assert_eq!(charge(&mut surge, 1, 5_000, bounds, 1), [], "a single dear one is none");
        assert_eq!(charge(&mut surge, 100, 1_000, bounds, 2), []);
        let jumps = charge(&mut surge, 1_000, 3_000, bounds, 3).len();
        assert!((50..100).contains(&jumps), "{jumps}: seen within some, and believed after a while");
        assert_eq!(charge(&mut surge, 100, 3_000, bounds, 4), []);
    }

    proptest! {
        #[test]
        fn nothing_overflows_and_nothing_without_bounds_is_a_surge(
            charges in prop::collection::vec((any::<i64>(), -1_000..1_000_000_i64), 0..200),
        ) {
            let (mut free, mut bound) = (Surge::default(), Surge::default());
            for (price, minute) in charges {
                prop_assert_eq!(free.charged(Nanos::new(price), Bounds::default(), at(minute)), None);
                let _ = bound.charged(Nanos::new(price), Bounds { velocity_ppm: Some(0), jump_ppm: Some(u32::MAX) }, at(minute));
            }
        }
    }
}
