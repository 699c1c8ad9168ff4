//! One customer's purchases, in a handful of numbers.
//!
//! What the estimate needs is the count of purchase *days*, the last of them, and the money. Hours carry no signal that
//! the logs we measured on could show, so that purchases of one UTC day are one.
//!
//! - **Duplicates.** The last [`REMEMBERED_IDS`] event ids are kept; a repeat of one of them changes nothing. A repeat
//!   that is older than that counts as a late purchase: value and count go up, the recency does not move.
//! - **Late events** (before the customer's last purchase) count with their value on their day, and so does a day that is new. The
//!   recency does not move.
//! - **Refunds** take from the value, never below zero, and touch neither count nor recency. They take from the last day up to theirs.
//! - **Long histories.** The last [`MAX_DAYS_KEPT`] days are kept one by one, for the model; whenever there is one more, the older half goes
//!   into the sums alone. What is late for a day that went counts as one more day.

use kiki::clock::UnixMicros;

/// How many of a customer's event ids are remembered: 256 x 8 B = 2 kB for the customers who have that many, tens of bytes for
/// most. The busiest customers of the logs that we measured on have 171 events in 18 months, so that even a whole file sent
/// again changes nothing.
pub const REMEMBERED_IDS: usize = 256;
/// The most purchase days of a customer that are kept one by one: 1,024 x 24 B for a customer who has bought daily for three years.
pub const MAX_DAYS_KEPT: usize = 1_024;
/// The largest value of one event, micros: 10^15, a thousand million currency units. Sums of 9,000 such events fit 64 bits,
/// and beyond that they saturate.
pub const MAX_VALUE_MICROS: i64 = 1_000_000_000_000_000;
/// Microseconds in a UTC day.
pub const DAY_MICROS: i64 = 86_400_000_000;

/// The UTC day of an instant, counted from 1970-01-01.
#[must_use]
pub const fn day_of(at: UnixMicros) -> i64 {
    at.0.div_euclid(DAY_MICROS)
}

/// An event's id, in 64 bits: a customer's few ids do not collide (256 of them do once in 10^14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventId(pub u64);

impl EventId {
    /// From the id that the sender gave (FNV-1a, 64 bits). A client that forged a collision would only lose its own event.
    #[must_use]
    pub fn of(id: &str) -> Self {
        Self(id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }
}

/// What a customer did on one day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Day {
    /// Since 1970, UTC.
    pub day: i64,
    /// Units bought; 0 where unknown.
    pub items: u32,
    /// Micros, less refunds; never below zero.
    pub spend_micros: i64,
}

/// A purchase, or a refund where the value is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Whose repeat changes nothing.
    pub id: EventId,
    /// When it happened.
    pub at: UnixMicros,
    /// Micros of the market's currency; at most [`MAX_VALUE_MICROS`] either way. A purchase may be worth nothing.
    pub value_micros: i64,
    /// Units bought; 0 where unknown.
    pub items: u32,
}

/// What an event did to a customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The id is one of the last: nothing.
    Duplicate,
    /// The first purchase.
    Acquired,
    /// A purchase on a later day.
    Returned,
    /// Value or count changed, and the recency did not: the same day again, a late event, or a refund.
    Adjusted,
}

/// One customer as the estimate sees it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Customer {
    /// The first purchase.
    pub first_at: UnixMicros,
    /// The last purchase.
    pub last_at: UnixMicros,
    /// Days with a purchase; 0 where there were only refunds.
    pub days: u32,
    /// What the purchases were worth, micros.
    pub spend_micros: i64,
    /// What was refunded, micros.
    pub refunds_micros: i64,
    /// Events that had an effect.
    pub events: u64,
    /// The sum over the days of their value squared, micros^2.
    pub(crate) squares: f64,
    /// See [`Customer::history`].
    pub(crate) history: Vec<Day>,
    /// Of the last events, at most [`REMEMBERED_IDS`], in the order in which they came.
    pub(crate) recent: Vec<EventId>,
}

impl Customer {
    /// Takes one event in.
    pub fn observe(&mut self, event: &Event) -> Effect {
        if self.recent.contains(&event.id) {
            return Effect::Duplicate;
        }
        if self.recent.len() == REMEMBERED_IDS {
            self.recent.remove(0);
        }
        self.recent.push(event.id);
        self.events += 1;
        let value = event.value_micros.clamp(-MAX_VALUE_MICROS, MAX_VALUE_MICROS);
        if value < 0 {
            self.refund(day_of(event.at), -value);
            return Effect::Adjusted;
        }
        self.purchase(event.at, value, event.items)
    }

    fn refund(&mut self, day: i64, value: i64) {
        self.refunds_micros = self.refunds_micros.saturating_add(value);
        let up_to = self.history.partition_point(|known| known.day <= day);
        if let Some(last) = self.history[..up_to].last_mut() {
            let before = last.spend_micros;
            last.spend_micros = before.saturating_sub(value).max(0);
            self.squares += square(last.spend_micros) - square(before);
        }
    }

    fn purchase(&mut self, at: UnixMicros, value: i64, items: u32) -> Effect {
        let (day, first, last_day) = (day_of(at), self.days == 0, self.last_day());
        self.spend_micros = self.spend_micros.saturating_add(value);
        (self.first_at, self.last_at) = if first { (at, at) } else { (self.first_at.min(at), self.last_at.max(at)) };
        match self.history.binary_search_by_key(&day, |known| known.day) {
            Ok(i) => {
                let known = &mut self.history[i];
                let before = known.spend_micros;
                known.spend_micros = before.saturating_add(value);
                known.items = known.items.saturating_add(items);
                self.squares += square(known.spend_micros) - square(before);
                return Effect::Adjusted;
            }
            // Earlier than what is kept: it may have been counted.
            Err(0) if self.days as usize > self.history.len() => {}
            Err(i) => self.history.insert(i, Day { day, items, spend_micros: value }),
        }
        if self.history.len() > MAX_DAYS_KEPT {
            self.history.drain(..MAX_DAYS_KEPT / 2);
        }
        self.days = self.days.saturating_add(1);
        self.squares += square(value);
        match first {
            true => Effect::Acquired,
            false if day > last_day => Effect::Returned,
            false => Effect::Adjusted,
        }
    }

    /// The last purchase days, in order; see [`MAX_DAYS_KEPT`].
    #[must_use]
    pub fn history(&self) -> &[Day] {
        &self.history
    }

    /// Changes with every event that has an effect: of two that are the same, so are the customers.
    #[must_use]
    pub fn stamp(&self) -> u64 {
        let last = self.recent.last().map_or(0, |id| id.0);
        [self.events, self.spend_micros.cast_unsigned(), self.last_at.0.cast_unsigned()].iter().fold(last, |stamp, x| mix(stamp ^ x))
    }

    /// The UTC day of the last purchase.
    #[must_use]
    pub const fn last_day(&self) -> i64 {
        day_of(self.last_at)
    }

    /// Purchases less refunds, never below zero, micros.
    #[must_use]
    pub fn net_micros(&self) -> i64 {
        self.spend_micros.saturating_sub(self.refunds_micros).max(0)
    }

    /// The scatter of the customer's day values about their mean, in squares of that mean, summed over the days; millionths.
    /// An integer, so that sums over customers never drift. 0 with fewer than two days.
    #[must_use]
    pub fn scatter_millionths(&self) -> i64 {
        if self.days < 2 || self.net_micros() <= 0 {
            return 0;
        }
        let (n, sum) = (f64::from(self.days), self.net_micros() as f64);
        let relative = (self.squares / (sum * sum) * n * n - n).max(0.0);
        (relative * 1e6) as i64 // saturates; n^2 at the most
    }
}

/// The finaliser of SplitMix64 (Steele et al. 2014): every bit of the result depends on every bit of `x`.
#[must_use]
pub const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn square(micros: i64) -> f64 {
    let value = micros as f64;
    value * value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, day: i64, value_micros: i64) -> Event {
        Event { id: EventId(id), at: UnixMicros(day * DAY_MICROS + 7), value_micros, items: 1 }
    }

    fn after(events: &[Event]) -> Customer {
        let mut customer = Customer::default();
        for event in events {
            customer.observe(event);
        }
        customer
    }

    #[test]
    fn counts_days_not_purchases() {
        let customer = after(&[event(1, 10, 5), event(2, 10, 7), event(3, 12, 1)]);
        assert_eq!((customer.days, customer.spend_micros, customer.last_day()), (2, 13, 12));
        assert_eq!(customer.squares, 144.0 + 1.0);
    }

    #[test]
    fn a_repeat_changes_nothing() {
        let mut customer = after(&[event(1, 10, 5), event(2, 11, 5)]);
        let before = customer.clone();
        assert_eq!(customer.observe(&event(1, 10, 5)), Effect::Duplicate);
        assert_eq!(customer, before);
    }

    #[test]
    fn a_repeat_older_than_the_remembered_ids_counts_as_late() {
        let ids = REMEMBERED_IDS as u64;
        let mut customer = after(&(0..=ids).map(|id| event(id, id as i64, 5)).collect::<Vec<_>>());
        assert_eq!(customer.observe(&event(1, 1, 5)), Effect::Duplicate);
        assert_eq!(customer.observe(&event(0, 0, 5)), Effect::Adjusted);
        assert_eq!((customer.last_day(), customer.recent.len()), (ids as i64, REMEMBERED_IDS));
    }

    #[test]
    fn a_late_purchase_moves_value_and_count_but_not_recency() {
        let mut customer = after(&[event(1, 10, 5), event(2, 20, 5)]);
        assert_eq!(customer.observe(&event(3, 15, 8)), Effect::Adjusted);
        assert_eq!((customer.days, customer.spend_micros, customer.last_day()), (3, 18, 20));
        assert_eq!(customer.observe(&event(4, 5, 8)), Effect::Adjusted);
        assert_eq!(day_of(customer.first_at), 5);
    }

    #[test]
    fn a_refund_takes_value_and_never_below_zero() {
        let customer = after(&[event(1, 10, 5), event(2, 11, -3)]);
        assert_eq!((customer.net_micros(), customer.days, customer.last_day()), (2, 1, 10));
        assert_eq!(after(&[event(1, 10, 5), event(2, 11, -9)]).net_micros(), 0);
        assert_eq!(after(&[event(2, 11, -9)]).days, 0);
    }

    #[test]
    fn scatter_is_zero_for_equal_days_and_finite_for_absurd_ones() {
        assert_eq!(after(&[event(1, 1, 9), event(2, 2, 9)]).scatter_millionths(), 0);
        assert_eq!(after(&[event(1, 1, 0), event(2, 2, 9)]).scatter_millionths(), 2_000_000);
        let absurd: Vec<_> = (0..20_000).map(|i| event(i, i as i64 * 2, i64::MAX)).collect();
        assert_eq!(after(&absurd).spend_micros, i64::MAX);
        assert!(after(&absurd).scatter_millionths() >= 0);
    }

    #[test]
    fn days_before_1970_are_days_too() {
        assert_eq!(day_of(UnixMicros(-1)), -1);
        assert_eq!(day_of(UnixMicros(0)), 0);
    }
}
