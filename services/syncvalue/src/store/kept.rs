//! A customer as it lies in Redis: protobuf, so that a later version may add fields and still read these. An earlier version that changes such a
//! customer leaves out what it does not know, so all replicas must know a field before any needs it.

use kiki::clock::UnixMicros;
use prost::Message;

use super::states::State;
use crate::domain::customer::{Customer, Day, EventId, MAX_DAYS_KEPT, REMEMBERED_IDS};

/// A customer. Its number of events stands ahead of it, in [`State::events`].
///
/// At its largest it is 1,024 days of at most 25 bytes and 256 ids of 8: 28 kB of the 64 kB that a state may have. 70 bytes are usual.
#[derive(Clone, PartialEq, Message)]
struct Kept {
    /// The first purchase, microseconds since 1970.
    #[prost(sint64, tag = "1")]
    first_at: i64,
    /// The last one.
    #[prost(sint64, tag = "2")]
    last_at: i64,
    /// Days with a purchase.
    #[prost(uint32, tag = "3")]
    days: u32,
    /// What the purchases were worth, micros.
    #[prost(int64, tag = "4")]
    spend_micros: i64,
    /// What was refunded, micros.
    #[prost(int64, tag = "5")]
    refunds_micros: i64,
    /// The sum over the days of their value squared.
    #[prost(double, tag = "6")]
    squares: f64,
    /// The days that are kept: the first since 1970, each further one since the one before it.
    #[prost(sint64, repeated, tag = "7")]
    since: Vec<i64>,
    /// Units bought, day by day.
    #[prost(uint32, repeated, tag = "8")]
    items: Vec<u32>,
    /// Micros, day by day.
    #[prost(int64, repeated, tag = "9")]
    spends: Vec<i64>,
    /// Ids of the last events.
    #[prost(fixed64, repeated, tag = "10")]
    recent: Vec<u64>,
    /// The log that the newest outcome came from, see [`LogAt`].
    #[prost(fixed64, tag = "11")]
    log: u64,
    /// The index behind that outcome.
    #[prost(uint64, tag = "12")]
    next_index: u64,
}

/// Up to where a customer's outcomes in SyncShield's log are counted. Each replica reads the whole log, and may be far behind another: what is not
/// beyond this is known, however many events ago it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogAt {
    /// The log's id, in 64 bits.
    pub log: u64,
    /// The index behind the newest outcome.
    pub next_index: u64,
}

impl LogAt {
    /// Behind an outcome of the log of this name.
    #[must_use]
    pub fn new(log_id: &str, next_index: u64) -> Self {
        Self { log: EventId::of(log_id).0, next_index }
    }

    /// Whether what stands there is counted already.
    #[must_use]
    pub fn covers(&self, at: Self) -> bool {
        self.log == at.log && at.next_index <= self.next_index
    }
}

/// What is stored of a customer.
#[must_use]
pub fn encode(customer: &Customer, at: LogAt) -> State {
    let Customer { first_at, last_at, days, spend_micros, refunds_micros, events, squares, history, recent } = customer;
    let before = std::iter::once(0).chain(history.iter().map(|day| day.day));
    let kept = Kept {
        first_at: first_at.0,
        last_at: last_at.0,
        days: *days,
        spend_micros: *spend_micros,
        refunds_micros: *refunds_micros,
        squares: *squares,
        since: history.iter().zip(before).map(|(day, before)| day.day.wrapping_sub(before)).collect(),
        items: history.iter().map(|day| day.items).collect(),
        spends: history.iter().map(|day| day.spend_micros).collect(),
        recent: recent.iter().map(|id| id.0).collect(),
        log: at.log,
        next_index: at.next_index,
    };
    State { events: *events, bytes: kept.encode_to_vec().into() }
}

/// The customer that is stored, and up to where the log is counted.
///
/// # Errors
/// What about it is no customer.
pub fn decode(state: &State) -> Result<(Customer, LogAt), String> {
    let kept = Kept::decode(&*state.bytes).map_err(|e| e.to_string())?;
    let Kept { first_at, last_at, days, spend_micros, refunds_micros, squares, since, items, spends, recent, log, next_index } = kept;
    if since.len() != items.len() || since.len() != spends.len() || since.len() > MAX_DAYS_KEPT {
        return Err(format!("{} days with {} items and {} values; at most {MAX_DAYS_KEPT}", since.len(), items.len(), spends.len()));
    }
    if recent.len() > REMEMBERED_IDS || !squares.is_finite() || [spend_micros, refunds_micros].iter().any(|sum| *sum < 0) {
        return Err(format!("{} ids, at most {REMEMBERED_IDS}, with sums {spend_micros}, {refunds_micros}, {squares}", recent.len()));
    }
    let mut history: Vec<Day> = Vec::with_capacity(since.len());
    for ((since, items), spend_micros) in since.into_iter().zip(items).zip(spends) {
        let day = history.last().map_or(0, |last| last.day).wrapping_add(since);
        if history.last().is_some_and(|last| last.day >= day) || spend_micros < 0 {
            return Err(format!("day {day} with {spend_micros}, behind {:?}", history.last()));
        }
        history.push(Day { day, items, spend_micros });
    }
    let customer = Customer {
        first_at: UnixMicros(first_at),
        last_at: UnixMicros(last_at),
        days,
        spend_micros,
        refunds_micros,
        events: state.events,
        squares,
        history,
        recent: recent.into_iter().map(EventId).collect(),
    };
    Ok((customer, LogAt { log, next_index }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::domain::customer::{DAY_MICROS, Event, MAX_VALUE_MICROS};
    use crate::store::states::MAX_BYTES;

    #[test]
    fn the_largest_customer_fits() {
        let mut customer = Customer::default();
        for i in 0..MAX_DAYS_KEPT as i64 {
            let at = UnixMicros((i * 100_000 - 90_000_000) * DAY_MICROS);
            customer.observe(&Event { id: EventId(u64::MAX - i as u64), at, value_micros: MAX_VALUE_MICROS, items: u32::MAX });
        }
        assert_eq!(customer.history().len(), MAX_DAYS_KEPT);
        let at = LogAt { log: u64::MAX, next_index: u64::MAX };
        let state = encode(&customer, at);
        assert!(state.bytes.len() < 28_000 && state.bytes.len() < MAX_BYTES, "{}", state.bytes.len());
        assert_eq!(decode(&state).unwrap(), (customer, at));
    }

    proptest! {
        #[test]
        fn what_is_kept_is_the_same_customer(
            events in prop::collection::vec((0..500_u64, -200_000_000..200_000_000_i64, any::<i64>(), any::<u32>()), 0..400),
        ) {
            let mut customer = Customer::default();
            for (id, day, value_micros, items) in events {
                let at = UnixMicros(day.saturating_mul(DAY_MICROS / 1_000));
                customer.observe(&Event { id: EventId(id), at, value_micros, items });
            }
            let at = LogAt::new("log", 7);
            prop_assert_eq!(decode(&encode(&customer, at)).unwrap(), (customer, at));
        }

        #[test]
        fn bytes_that_are_none_are_refused_or_a_sound_customer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok((customer, _)) = decode(&State { events: 1, bytes: bytes.into() }) {
                prop_assert!(customer.history.is_sorted_by_key(|day| day.day) && customer.recent.len() <= REMEMBERED_IDS);
            }
        }
    }
}
