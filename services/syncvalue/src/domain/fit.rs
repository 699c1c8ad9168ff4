//! What the sums say when a day begins: the chance of a purchase by class and recency, and the usual spend.
//!
//! Cells with little exposure lean on their neighbours: weeks are pooled into bands, a band without data continues the
//! one before as one over the time away (which is how the hazard falls when customers' rates are gamma distributed, as in
//! Fader and Hardie's BG/NBD and Pareto/NBD models), and a class is the pooled rate times a factor that itself starts from the
//! class's neighbouring band. A customer stays in its class over the horizon: classes stand for kinds of customers, and
//! promoting one for each purchase would count on a growth that the data, read that way, does not have (measured: it
//! doubles the forecast).

use std::sync::Arc;

use parking_lot::RwLock;

use super::population::{CLASSES, Cells, Population, WEEKS};

/// Bounds of the bands, in weeks.
const BANDS: [usize; 14] = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 36, 52, 78, WEEKS];
/// What a band's pooled rate leans on, in customer-days.
const BAND_PRIOR_DAYS: f64 = 200.0;
/// What a class's factor leans on, in expected purchases: over the class, and in a band.
const CLASS_PRIOR: f64 = 3.0;
const CELL_PRIOR: f64 = 5.0;
/// Before anyone came back, one purchase in a year is assumed: less than any shop that advertises has.
const RATE_PRIOR: (f64, f64) = (1.0, 365.0);
/// How a day's spend scatters before two days of one customer were seen: as an exponential distribution does.
const SCATTER_PRIOR: (f64, f64) = (10.0, 10.0);

/// The estimate's parameters.
#[derive(Debug, Clone)]
pub struct Fit {
    /// Purchases a day, by class and week since the last.
    rate: Cells,
    /// Customers that it rests on.
    pub customers: u64,
    /// Mean net spend of a purchase day, micros.
    pub spend: f64,
    /// Mean of first purchases, micros.
    pub first_spend: f64,
    /// Variance of a customer's day spends, in squares of their mean.
    pub scatter: f64,
}

impl Fit {
    /// From the sums; none while nobody has bought.
    #[must_use]
    pub fn of(population: &Population) -> Option<Self> {
        if population.customers == 0 {
            return None;
        }
        let (customers, days) = (population.customers as f64, population.days as f64);
        let pairs = (days - customers).max(0.0);
        Some(Self {
            rate: rates(population),
            customers: population.customers,
            spend: population.net_micros.max(0) as f64 / days,
            first_spend: population.first_micros.max(0) as f64 / customers,
            scatter: (population.scatter_millionths.max(0) as f64 / 1e6 + SCATTER_PRIOR.0) / (pairs + SCATTER_PRIOR.1),
        })
    }
}

/// A fit as plain numbers, for a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    /// Purchases a day: for each class, by week since the last.
    pub rate: Vec<f64>,
    /// See [`Fit`].
    pub customers: u64,
    /// See [`Fit`].
    pub spend: f64,
    /// See [`Fit`].
    pub first_spend: f64,
    /// See [`Fit`].
    pub scatter: f64,
}

impl Fit {
    /// Its numbers.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        let Self { rate, customers, spend, first_spend, scatter } = self;
        Numbers { rate: rate.concat(), customers: *customers, spend: *spend, first_spend: *first_spend, scatter: *scatter }
    }

    /// From its numbers; none where they are of another table, or absurd.
    #[must_use]
    pub fn from_numbers(numbers: &Numbers) -> Option<Self> {
        let Numbers { rate, customers, spend, first_spend, scatter } = numbers;
        let (rows, rest) = rate.as_chunks::<WEEKS>();
        let fits = rows.len() == CLASSES && rest.is_empty() && rate.iter().all(|rate| (0.0..=1.0).contains(rate));
        let amounts = [spend, first_spend, scatter].iter().all(|x| x.is_finite() && **x >= 0.0);
        let fit = Self { rate: rows.to_vec(), customers: *customers, spend: *spend, first_spend: *first_spend, scatter: *scatter };
        (fits && amounts && *customers > 0).then_some(fit)
    }
}

fn rates(population: &Population) -> Cells {
    let exposure = banded(population.exposure());
    let returns = banded(population.returns());
    let pooled = pooled_rates(&exposure, &returns);
    let mut rate = vec![[0.0; WEEKS]; CLASSES];
    let mut factor_before = 1.0;
    for (class, row) in rate.iter_mut().enumerate() {
        let expected: f64 = exposure[class].iter().zip(&pooled).map(|(days, rate)| days * rate).sum();
        let bought: f64 = returns[class].iter().sum();
        factor_before = (bought + CLASS_PRIOR * factor_before) / (expected + CLASS_PRIOR);
        let mut factor = factor_before;
        for (band, pool) in pooled.iter().enumerate() {
            factor = (returns[class][band] + CELL_PRIOR * factor) / (exposure[class][band] * pool + CELL_PRIOR);
            row[BANDS[band]..BANDS[band + 1]].fill((pool * factor).min(1.0)); // at most one purchase day a day
        }
    }
    rate
}

type Banded = Vec<[f64; BANDS.len() - 1]>;

fn banded(cells: &Cells) -> Banded {
    let row = |weeks: &[f64; WEEKS]| std::array::from_fn(|band| weeks[BANDS[band]..BANDS[band + 1]].iter().sum());
    cells.iter().map(row).collect()
}

/// Purchases a day over all classes, by band.
fn pooled_rates(exposure: &Banded, returns: &Banded) -> [f64; BANDS.len() - 1] {
    let sum = |of: &Banded| of.iter().flatten().sum::<f64>();
    let mut rate = (sum(returns) + RATE_PRIOR.0) / (sum(exposure) + RATE_PRIOR.1);
    let middle = |band: usize| (BANDS[band] + BANDS[band + 1]) as f64 / 2.0;
    std::array::from_fn(|band| {
        let guess = if band == 0 { rate } else { rate * middle(band - 1) / middle(band) };
        let (days, bought) = exposure.iter().zip(returns).fold((0.0, 0.0), |(days, bought), (e, r)| (days + e[band], bought + r[band]));
        rate = (bought + guess * BAND_PRIOR_DAYS) / (days + BAND_PRIOR_DAYS);
        rate
    })
}

/// What a customer does over a horizon, by class and weeks since the last purchase.
#[derive(Debug, Clone)]
pub struct Table {
    /// The horizon, days.
    pub horizon_days: u32,
    cells: Vec<[Future; WEEKS]>,
}

/// The tables of one fit, by horizon.
#[derive(Debug, Default)]
pub struct Tables(RwLock<Vec<Arc<Table>>>);

/// Horizons whose tables are kept: campaigns of one client and currency share one set of terms, so that one is the rule. A table is
/// 9 classes x 105 weeks x 24 B = 23 kB.
const MAX_TABLES: usize = 8;

impl Tables {
    /// The table of this horizon, made where it is not there yet; always for the same fit.
    #[must_use]
    pub fn of(&self, fit: &Fit, horizon_days: u32) -> Arc<Table> {
        if let Some(table) = self.0.read().iter().find(|table| table.horizon_days == horizon_days) {
            return table.clone();
        }
        let table = Arc::new(Table::of(fit, horizon_days));
        let mut tables = self.0.write();
        tables.retain(|table| table.horizon_days != horizon_days); // somebody else's, of just now
        if tables.len() == MAX_TABLES {
            tables.remove(0);
        }
        tables.push(table.clone());
        table
    }

    /// Forgets them: the fit is another.
    pub fn clear(&mut self) {
        self.0.get_mut().clear();
    }
}

/// Purchase days over a horizon.
#[derive(Debug, Clone, Copy, Default)]
pub struct Future {
    /// Their expected number.
    pub count: f64,
    /// The expected square of it.
    pub square: f64,
    /// The chance that there is none.
    pub silence: f64,
}

impl Future {
    fn mix(self, other: Self, share: f64) -> Self {
        let mix = |a: f64, b: f64| a + (b - a) * share;
        Self { count: mix(self.count, other.count), square: mix(self.square, other.square), silence: mix(self.silence, other.silence) }
    }
}

impl Table {
    /// Renewal by weeks, backwards from the horizon's end: [`CLASSES`] x [`WEEKS`] steps a week, 0.1 ms for a year.
    #[must_use]
    pub fn of(fit: &Fit, horizon_days: u32) -> Self {
        let mut cells = vec![[Future { silence: 1.0, ..Future::default() }; WEEKS]; CLASSES];
        for (class, row) in cells.iter_mut().enumerate() {
            let week = fit.rate[class].map(|rate| (7.0 * rate, 1.0 - (-7.0 * rate).exp()));
            for _ in 0..horizon_days / 7 {
                step(row, &week);
            }
            let part = f64::from(horizon_days % 7) / 7.0;
            if part > 0.0 {
                let whole = *row;
                step(row, &week);
                for (cell, before) in row.iter_mut().zip(whole) {
                    *cell = before.mix(*cell, part);
                }
            }
        }
        Self { horizon_days, cells }
    }

    /// A customer of `class`, so many days after the last purchase's day; between weeks, in proportion.
    #[must_use]
    pub fn future(&self, class: usize, days_since: i64) -> Future {
        let weeks = ((days_since - 1).max(0) as f64 / 7.0).min((WEEKS - 1) as f64);
        let (row, whole) = (&self.cells[class.min(CLASSES - 1)], weeks as usize);
        row[whole].mix(row[(whole + 1).min(WEEKS - 1)], weeks.fract())
    }
}

/// One week more: either a purchase, and the recency begins anew, or none, and it goes on.
fn step(row: &mut [Future; WEEKS], week: &[(f64, f64); WEEKS]) {
    let fresh = row[0];
    for i in 0..WEEKS {
        let away = row[(i + 1).min(WEEKS - 1)]; // not yet stepped: the loop goes up
        let (mean, chance) = week[i];
        row[i] = Future {
            count: mean + chance * fresh.count + (1.0 - chance) * away.count,
            square: mean + mean * mean + 2.0 * mean * fresh.count + chance * fresh.square + (1.0 - chance) * away.square,
            silence: (1.0 - chance) * away.silence,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A fit with one rate everywhere.
    fn level(rate: f64) -> Fit {
        Fit { rate: vec![[rate; WEEKS]; CLASSES], customers: 100, spend: 1.0, first_spend: 1.0, scatter: 1.0 }
    }

    #[test]
    fn a_constant_rate_is_a_poisson_process() {
        let future = Table::of(&level(0.01), 273).future(0, 30);
        assert!((future.count - 2.73).abs() < 0.1, "{future:?}");
        assert!((future.silence - (-2.73_f64).exp()).abs() < 1e-9, "{future:?}");
        assert!((future.square - future.count * (1.0 + future.count)).abs() < 0.3, "{future:?}");
    }

    #[test]
    fn a_longer_horizon_holds_no_fewer_purchases() {
        let fit = level(0.004);
        let futures: Vec<_> = (0..100).map(|days| Table::of(&fit, days).future(3, 12)).collect();
        assert_eq!((futures[0].count, futures[0].silence), (0.0, 1.0));
        assert!(futures.windows(2).all(|pair| pair[0].count < pair[1].count && pair[0].silence > pair[1].silence));
    }

    #[test]
    fn rates_of_an_empty_table_are_small_and_fall_with_the_time_away() {
        let rate = rates(&Population::starting(0));
        assert!(rate.iter().all(|row| row.windows(2).all(|pair| pair[0] >= pair[1] && pair[1] > 0.0)));
        assert!(rate[0][0] < 0.003);
    }
}
