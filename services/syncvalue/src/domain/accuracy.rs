//! What predictions were worth: the customers that a campaign acquired, each with what was predicted when its impression was bid for, and what
//! it then spent up to the horizon.
//!
//! Both come from SyncShield's log: a Conversion says what was predicted, and Outcomes what was spent, from the purchase that was attributed on
//! and with refunds counted. Time is that of the newest record: a customer matures when the log has passed its horizon. What is late for
//! a customer who has matured does not count any more. Depends on the order of the records alone.

use std::collections::{BTreeMap, HashMap, VecDeque};

use kiki::clock::UnixMicros;
use kiki::ids::CustomerKey;
use kiki::money::Currency;

use super::customer::{DAY_MICROS, EventId};
use super::market::{MarketId, Observed};

/// Customers who are waited for, at most: 200 B each. Beyond that, new ones are not counted at all.
pub const MAX_OPEN: usize = 1_000_000;
/// Customers of a currency who have matured and still count: the last so many.
pub const MAX_MATURED: usize = 10_000;
/// Groups of equal size by predicted value.
pub const GROUPS: usize = 10;

/// A customer was attributed to a campaign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributed {
    /// The client and currency.
    pub market: MarketId,
    /// The customer.
    pub customer: CustomerKey,
    /// The purchase that was attributed.
    pub event: EventId,
    /// When it happened.
    pub at: UnixMicros,
    /// What it was worth, micros.
    pub value_micros: i64,
    /// What was predicted, micros, over so many days.
    pub predicted_micros: i64,
    /// The prediction's horizon.
    pub horizon_days: u32,
}

/// Predicted and realised value of one customer, micros.
type Pair = (i64, i64);

#[derive(Debug)]
struct Open {
    event: EventId,
    from: UnixMicros,
    due: i64,
    predicted: i64,
    realised: i64,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Accuracy {
    now: i64,
    open: HashMap<(MarketId, CustomerKey), Vec<Open>>,
    /// Who matures when; the second number tells those of one instant apart.
    due: BTreeMap<(i64, u64), (MarketId, CustomerKey)>,
    taken: u64,
    matured: BTreeMap<Currency, VecDeque<Pair>>,
    /// Customers for whom there was no room.
    pub dropped: u64,
}

/// What it comes to in a currency.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Customers who have matured and count.
    pub customers: usize,
    /// 1 - |sum of predicted - sum of realised| / sum of realised; none where nothing was realised. Below 0 where more was missed than realised.
    pub rate: Option<f64>,
    /// For each group from the least predicted value up: the sum of predicted over that of realised value; none where nothing was realised, or where
    /// there are fewer customers than groups.
    pub calibration: [Option<f64>; GROUPS],
}

impl Accuracy {
    /// What one record says, in the order of time: a customer must not mature by the record's end before its middle is counted.
    pub fn take(&mut self, attributed: &[Attributed], realised: &[Observed]) {
        let mut realised: Vec<&Observed> = realised.iter().collect();
        realised.sort_by_key(|observed| observed.event.at);
        let mut realised = realised.into_iter().peekable();
        let mut attributed: Vec<&Attributed> = attributed.iter().collect();
        attributed.sort_by_key(|attributed| attributed.at);
        for attributed in attributed {
            while let Some(observed) = realised.next_if(|observed| observed.event.at < attributed.at) {
                self.realised(observed);
            }
            self.attributed(attributed);
        }
        realised.for_each(|observed| self.realised(observed));
    }

    /// A customer to wait for.
    fn attributed(&mut self, attributed: &Attributed) {
        self.advance(attributed.at);
        if self.due.len() >= MAX_OPEN {
            self.dropped += 1;
            return;
        }
        let Attributed { market, customer, event, at, value_micros, predicted_micros, horizon_days } = attributed;
        let due = at.0.saturating_add(i64::from(*horizon_days).saturating_mul(DAY_MICROS));
        let key = (market.clone(), *customer);
        self.taken += 1;
        self.due.insert((due, self.taken), key.clone());
        self.open.entry(key).or_default().push(Open {
            event: *event,
            from: *at,
            due,
            predicted: *predicted_micros,
            realised: *value_micros,
        });
    }

    /// What a customer spent.
    fn realised(&mut self, observed: &Observed) {
        let at = observed.event.at;
        self.advance(at);
        let open = self.open.get_mut(&(observed.market.clone(), observed.customer)).into_iter().flatten();
        for customer in open.filter(|open| (open.from.0..open.due).contains(&at.0) && open.event != observed.event.id) {
            customer.realised = customer.realised.saturating_add(observed.event.value_micros);
        }
    }

    /// Lets those mature whose time has come.
    fn advance(&mut self, at: UnixMicros) {
        self.now = self.now.max(at.0);
        while let Some(first) = self.due.first_entry().filter(|first| first.key().0 <= self.now) {
            let ((due, _), key) = first.remove_entry();
            let Some(open) = self.open.get_mut(&key) else { continue };
            if let Some(i) = open.iter().position(|open| open.due == due) {
                let Open { predicted, realised, .. } = open.remove(i);
                let matured = self.matured.entry(key.0.currency).or_default();
                if matured.len() == MAX_MATURED {
                    matured.pop_front();
                }
                matured.push_back((predicted, realised));
            }
            if open.is_empty() {
                self.open.remove(&key);
            }
        }
    }

    /// Forgets a customer who has not matured; one who has is a pair of amounts without a name.
    pub fn erase(&mut self, client: &str, customer: &CustomerKey) {
        self.open.retain(|(market, key), _| market.client.as_str() != client || key != customer);
        self.due.retain(|_, (market, key)| market.client.as_str() != client || key != customer);
    }

    /// Each currency in which somebody has matured.
    #[must_use]
    pub fn figures(&self) -> Vec<(Currency, Figures)> {
        self.matured.iter().map(|(currency, matured)| (*currency, figures(matured.iter().copied().collect()))).collect()
    }
}

fn figures(mut pairs: Vec<Pair>) -> Figures {
    let sums = |pairs: &[Pair]| pairs.iter().fold((0_i128, 0_i128), |(p, r), pair| (p + i128::from(pair.0), r + i128::from(pair.1)));
    let (predicted, realised) = sums(&pairs);
    let rate = (realised > 0).then(|| 1.0 - (predicted - realised).abs() as f64 / realised as f64);
    pairs.sort_unstable();
    let bound = |group: usize| group * pairs.len() / GROUPS;
    let of_group = |group: usize| {
        let (predicted, realised) = sums(&pairs[bound(group)..bound(group + 1)]);
        (realised > 0 && pairs.len() >= GROUPS).then(|| predicted as f64 / realised as f64)
    };
    Figures { customers: pairs.len(), rate, calibration: std::array::from_fn(of_group) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use kiki::ids::ClientId;

    use super::super::customer::{Event, EventId};
    use super::*;

    fn market() -> MarketId {
        MarketId { client: ClientId::parse("acme").unwrap(), currency: Currency::USD }
    }

    fn customer(number: u8) -> CustomerKey {
        CustomerKey([number; 16])
    }

    fn acquired(number: u8, day: i64, value_micros: i64, predicted_micros: i64) -> Attributed {
        let at = UnixMicros(day * DAY_MICROS);
        Attributed { market: market(), customer: customer(number), event: EventId(7), at, value_micros, predicted_micros, horizon_days: 30 }
    }

    fn spent(number: u8, day: i64, value_micros: i64) -> Observed {
        let event = Event { id: EventId(0), at: UnixMicros(day * DAY_MICROS), value_micros, items: 0 };
        Observed { market: market(), customer: customer(number), event }
    }

    #[test]
    fn counts_what_came_up_to_the_horizon_once_it_is_over() {
        let mut accuracy = Accuracy::default();
        accuracy.attributed(&acquired(1, 100, 10, 40));
        accuracy.realised(&spent(1, 99, 1_000)); // before
        let own = spent(1, 100, 10);
        accuracy.realised(&Observed { event: Event { id: EventId(7), ..own.event }, ..own });
        accuracy.realised(&spent(1, 120, 25));
        accuracy.realised(&spent(1, 121, -5));
        accuracy.realised(&spent(2, 129, 9_000)); // somebody else
        assert!(accuracy.figures().is_empty());
        accuracy.realised(&spent(1, 130, 1_000)); // at the horizon's end: no more
        let (currency, figures) = accuracy.figures().swap_remove(0);
        assert_eq!((currency, figures.customers, figures.rate), (Currency::USD, 1, Some(1.0 - 10.0 / 30.0)));
        assert_eq!(figures.calibration, [None; GROUPS]);
        assert!(accuracy.open.is_empty() && accuracy.due.is_empty());
    }

    #[test]
    fn groups_go_by_what_was_predicted() {
        let mut accuracy = Accuracy::default();
        for number in 0..20 {
            // Of the dear half twice as much was predicted as came.
            let value = 10 + i64::from(number);
            accuracy.attributed(&acquired(number, 0, value, if number < 10 { value } else { 2 * value }));
        }
        accuracy.realised(&spent(99, 31, 0));
        let figures = accuracy.figures().swap_remove(0).1;
        assert_eq!(figures.calibration[..5], [Some(1.0); 5]);
        assert_eq!(figures.calibration[5..], [Some(2.0); 5]);
        assert!(figures.rate.unwrap() < 1.0);
    }

    #[test]
    fn a_record_that_spans_months_counts_all_of_them() {
        let mut accuracy = Accuracy::default();
        // The last customer is acquired long after the first has matured.
        let acquired = [acquired(1, 0, 10, 30), acquired(2, 300, 10, 30)];
        accuracy.take(&acquired, &[spent(1, 5, 8), spent(1, 20, 12), spent(1, 31, 99)]);
        let figures = accuracy.figures().swap_remove(0).1;
        assert_eq!((figures.customers, figures.rate), (1, Some(1.0)));
    }

    #[test]
    fn an_erased_customer_never_matures() {
        let mut accuracy = Accuracy::default();
        accuracy.attributed(&acquired(1, 0, 5, 5));
        accuracy.attributed(&acquired(2, 0, 5, 5));
        accuracy.erase("acme", &customer(1));
        accuracy.erase("globex", &customer(2));
        accuracy.realised(&spent(9, 40, 0));
        assert_eq!(accuracy.figures()[0].1.customers, 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut accuracy = Accuracy::default();
        for i in 0..MAX_MATURED + 5 {
            accuracy.attributed(&acquired(1, i as i64 * 31, 1, 1));
        }
        let figures = accuracy.figures().swap_remove(0).1;
        assert_eq!((figures.customers, accuracy.open.len()), (MAX_MATURED, 1));
    }
}
