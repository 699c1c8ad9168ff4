//! A client's customers in one currency: their states, the sums over them, and the parameters in force.
//!
//! The parameters are fitted anew before the first event of each UTC day, and whenever the number of customers has doubled since:
//! both depend on the order of the events alone. In between they stand still, so that a prediction costs two look-ups, and many
//! can be made at a time.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use kiki::clock::UnixMicros;
use kiki::ids::{ClientId, CustomerKey};
use kiki::money::Currency;

use super::customer::{Customer, Effect, Event, day_of};
use super::fit::{Fit, Table, Tables};
use super::population::{Population, Standing};
use super::predictor::{self, MIN_POPULATION, Prediction, Reason, Source};

/// A market's name: a client and a currency.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MarketId {
    /// The client.
    pub client: ClientId,
    /// The currency of its values.
    pub currency: Currency,
}

/// An event with the customer and market that it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The client and currency.
    pub market: MarketId,
    /// The customer.
    pub customer: CustomerKey,
    /// What happened.
    pub event: Event,
}

/// The sums over a market's customers, and the parameters that they gave when the day began.
#[derive(Debug, Default)]
pub struct Averages {
    population: Option<Population>,
    fit: Option<Fit>,
    tables: Tables,
}

/// What a market says over one horizon, as it stands.
#[derive(Debug)]
pub struct Outlook<'a> {
    /// None below [`MIN_POPULATION`].
    fitted: Option<(&'a Fit, Arc<Table>)>,
    horizon_days: u32,
}

impl Outlook<'_> {
    /// The horizon, days.
    #[must_use]
    pub const fn horizon_days(&self) -> u32 {
        self.horizon_days
    }

    /// The value of a customer (none: unknown), as of `at`.
    #[must_use]
    pub fn of(&self, customer: Option<&Customer>, at: UnixMicros) -> Prediction {
        let Some((fit, table)) = &self.fitted else { return Prediction::nothing(self.horizon_days) };
        let prediction = predictor::predict(fit, table, customer, day_of(at));
        customer.map_or(prediction, |customer| prediction.made(at, customer))
    }

    /// The value of a customer of whom nothing can be read at the moment, as of `at`: as for one who is not known.
    #[must_use]
    pub fn unavailable(&self, at: UnixMicros) -> Prediction {
        Prediction { source: Source::Estimate(Reason::StateUnavailable), ..self.of(None, at) }
    }
}

impl<'a> Outlook<'a> {
    /// This, or another estimate where too few were observed for one.
    #[must_use]
    pub fn or(self, other: Option<(&'a Fit, Arc<Table>)>) -> Self {
        Self { fitted: self.fitted.or(other), ..self }
    }
}

impl Averages {
    /// A customer who stood as `before` when it was last seen stands as `after` now.
    pub fn seen(&mut self, before: &Standing, after: &Standing) {
        if let Some(day) = after.last_day() {
            self.begin_day(day);
        }
        let Some(population) = &mut self.population else { return };
        population.seen(before, after);
        if population.customers >= MIN_POPULATION.max(2 * self.fit.as_ref().map_or(0, |fit| fit.customers)) {
            self.refit();
        }
    }

    /// Counts the days that have ended and fits anew, where `day` is a new one.
    fn begin_day(&mut self, day: i64) {
        let population = self.population.get_or_insert_with(|| Population::starting(day));
        if day > population.today() {
            population.advance_to(day);
            self.refit();
        }
    }

    fn refit(&mut self) {
        self.fit = self.population.as_ref().filter(|population| population.customers >= MIN_POPULATION).and_then(Fit::of);
        self.tables.clear();
    }

    /// A customer was erased.
    pub fn erased(&mut self, standing: &Standing) {
        if let Some(population) = &mut self.population {
            population.left(standing);
        }
    }

    /// What is expected over `horizon_days`.
    #[must_use]
    pub fn over(&self, horizon_days: u32) -> Outlook<'_> {
        let fitted = self.fit.as_ref().map(|fit| (fit, self.tables.of(fit, horizon_days)));
        Outlook { fitted, horizon_days }
    }
}

/// One client's customers in one currency.
#[derive(Debug, Default)]
pub struct Market {
    /// Its own among all markets; 0 where nobody was observed yet.
    pub number: u32,
    /// Keys that come in are pseudonyms, made with a secret: who sends events cannot choose them to collide.
    customers: HashMap<CustomerKey, Customer, RandomState>,
    /// The sums over them.
    pub averages: Averages,
}

impl Market {
    /// Nobody yet.
    #[must_use]
    pub fn new(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    /// Customers with at least one event.
    #[must_use]
    pub fn len(&self) -> usize {
        self.customers.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.customers.is_empty()
    }

    /// A customer who has had an event.
    #[must_use]
    pub fn get(&self, key: &CustomerKey) -> Option<&Customer> {
        self.customers.get(key)
    }

    /// Takes one event in. A duplicate changes nothing.
    pub fn observe(&mut self, key: CustomerKey, event: &Event) -> Effect {
        let customer = self.customers.entry(key).or_default();
        let before = Standing::of(customer);
        let effect = customer.observe(event);
        if effect != Effect::Duplicate {
            self.averages.seen(&before, &Standing::of(customer));
        }
        effect
    }

    /// Forgets a customer; whether anything was known. What it has done to the sums over all days that are over stays in them, where it is nobody's.
    pub fn erase(&mut self, key: &CustomerKey) -> bool {
        let erased = self.customers.remove(key);
        erased.iter().for_each(|customer| self.averages.erased(&Standing::of(customer)));
        erased.is_some()
    }

    /// The estimate of a customer's value over `horizon_days`, as of `at`.
    #[must_use]
    pub fn predict(&self, key: &CustomerKey, horizon_days: u32, at: UnixMicros) -> Prediction {
        self.averages.over(horizon_days).of(self.get(key), at)
    }
}

/// A customer with this history, whom nobody observed.
#[must_use]
pub fn customer_of(mut history: Vec<Event>) -> Customer {
    history.sort_by_key(|event| (event.at, event.id.0));
    let mut customer = Customer::default();
    for event in &history {
        customer.observe(event);
    }
    customer
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::super::customer::{DAY_MICROS, EventId, MAX_VALUE_MICROS};
    use super::*;

    fn key(customer: u8) -> CustomerKey {
        CustomerKey([customer; 16])
    }

    fn event(id: u64, day: i64, value_micros: i64) -> Event {
        Event { id: EventId(id), at: UnixMicros(day * DAY_MICROS), value_micros, items: 1 }
    }

    fn at(day: i64) -> UnixMicros {
        UnixMicros(day * DAY_MICROS)
    }

    /// Forty customers: the first ten bought eight times, the last of them lately; the others once, 70 days ago.
    fn shop() -> Market {
        let mut market = Market::default();
        for customer in 0..40 {
            market.observe(key(customer), &event(u64::from(customer), 0, 10_000_000));
        }
        for day in 1..=70 {
            for customer in (0..10).filter(|_| day % 10 == 0) {
                market.observe(key(customer), &event(1_000 + day as u64 * 100 + u64::from(customer), day, 10_000_000));
            }
        }
        market
    }

    #[test]
    fn knows_nothing_before_there_is_a_population() {
        let mut market = Market::default();
        assert_eq!(market.predict(&key(1), 90, at(0)), Prediction::nothing(90));
        for customer in 0..MIN_POPULATION as u8 {
            assert_eq!(market.predict(&key(0), 90, at(0)).source, Source::Estimate(Reason::NoPopulation));
            market.observe(key(customer), &event(0, 0, 5));
        }
        assert_eq!(market.predict(&key(0), 90, at(0)).source, Source::Estimate(Reason::NoModel));
    }

    #[test]
    fn a_regular_is_worth_more_than_one_who_stayed_away() {
        let market = shop();
        let [regular, gone, unknown] = [0, 20, 99].map(|customer| market.predict(&key(customer), 90, at(71)));
        assert!(regular.mean_micros > 5 * gone.mean_micros, "{regular:?} {gone:?}");
        assert!(regular.p_active_ppb > gone.p_active_ppb);
        let by = Source::Estimate;
        assert_eq!((regular.source, unknown.source), (by(Reason::NoModel), by(Reason::UnknownCustomer)));
        // A new customer brings the first purchase of 10 at least.
        assert!(unknown.mean_micros >= 10_000_000 && unknown.q05_micros < unknown.q95_micros);
    }

    #[test]
    fn value_fades_as_the_customer_stays_away() {
        let market = shop();
        let means: Vec<_> = [71, 100, 150, 400].map(|day| market.predict(&key(0), 90, at(day)).mean_micros).into();
        assert!(means.windows(2).all(|pair| pair[0] >= pair[1]) && means[3] < means[0] / 2, "{means:?}");
    }

    #[test]
    fn a_history_is_worth_what_the_same_customer_is() {
        let market = shop();
        let history: Vec<_> = (0..=7).rev().map(|i| event(i, i as i64 * 10, 10_000_000)).collect();
        let of = |history| market.averages.over(90).of(Some(&customer_of(history)), at(71));
        assert_eq!(of(history), market.predict(&key(3), 90, at(71)));
        assert_eq!(of(Vec::new()).source, Source::Estimate(Reason::UnknownCustomer));
    }

    #[test]
    fn a_prediction_changes_nothing() {
        let (mut asked, mut quiet) = (shop(), shop());
        for horizon in 1..30 {
            assert!(asked.predict(&key(0), horizon, at(300)).mean_micros > 0);
        }
        for market in [&mut asked, &mut quiet] {
            market.observe(key(0), &event(7, 90, 1));
        }
        assert_eq!(asked.predict(&key(0), 90, at(91)), quiet.predict(&key(0), 90, at(91)));
    }

    /// Customer, id, day and value, wild: negative days, refunds, repeats, absurd amounts.
    fn wild() -> impl Strategy<Value = Vec<(u8, u64, i64, i64)>> {
        let day = prop_oneof![8 => 0..400_i64, 1 => -100_000_000..100_000_000_i64];
        let value = prop_oneof![8 => 0..100_000_000_i64, 2 => -50_000_000..0_i64, 1 => Just(MAX_VALUE_MICROS), 1 => any::<i64>()];
        prop::collection::vec((0..30_u8, 0..200_u64, day, value), 0..200)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))] // each leap over years counts 735 days

        #[test]
        fn is_never_negative_and_its_interval_never_turned_round(
            events in wild(), customer in 0..40_u8, horizon in 1..=predictor::MAX_HORIZON_DAYS, now in any::<i64>(),
        ) {
            let mut market = Market::default();
            for (customer, id, day, value) in &events {
                market.observe(key(*customer), &event(*id, *day, *value));
            }
            for prediction in [market.predict(&key(customer), horizon, UnixMicros(now)), market.predict(&key(customer), 90, at(200))] {
                prop_assert!(prediction.mean_micros >= 0 && prediction.p_active_ppb <= 1_000_000_000);
                prop_assert!(0 <= prediction.q05_micros && prediction.q05_micros <= prediction.q95_micros, "{prediction:?}");
            }
            if let Some(population) = &market.averages.population {
                let cells = population.exposure().iter().chain(population.returns()).flatten();
                prop_assert!(cells.into_iter().all(|cell| cell.is_finite() && *cell >= 0.0));
                let bought = market.customers.values().filter(|customer| customer.days > 0).count();
                prop_assert_eq!(population.customers, bought as u64);
                prop_assert_eq!(population.net_micros, market.customers.values().map(|customer| i128::from(customer.net_micros())).sum::<i128>());
            }
        }

        #[test]
        fn one_order_of_events_gives_one_answer_whoever_asked_in_between(events in wild()) {
            let (mut one, mut other) = (Market::default(), Market::default());
            for (i, (customer, id, day, value)) in events.iter().enumerate() {
                one.observe(key(*customer), &event(*id, *day, *value));
                other.observe(key(*customer), &event(*id, *day, *value));
                other.observe(key(*customer), &event(*id, *day, *value)); // a repeat
                prop_assert!(other.predict(&key(*customer), 1 + i as u32 % 20, at(*day)).mean_micros >= 0);
            }
            for customer in 0..30 {
                prop_assert_eq!(one.predict(&key(customer), 180, at(401)), other.predict(&key(customer), 180, at(401)));
            }
        }
    }
}
