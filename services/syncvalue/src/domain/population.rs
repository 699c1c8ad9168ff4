//! The running sums over a market's customers: a life table of purchases.
//!
//! Customers are put in a cell by how often they bought ([`class_of`]) and how many weeks ago they last did. Each cell
//! holds the customer-days that were lived in it and the purchases that ended them; their ratio is the chance that such
//! a customer buys on a day. This is the actuary's (Kaplan-Meier) estimate of the time to the next purchase: customers who
//! have not come back yet count with the days that they have been away, rather than being left out.
//!
//! - O(1) an event. A new UTC day costs [`CLASSES`] x [`RING_DAYS`] additions however many customers there are.
//! - Sums fade with a half-life of two years, so that a market can change.
//! - An event of a day that is over counts as a purchase, and leaves the days that were counted since as they are.

use super::customer::Customer;

/// Lower bounds of the classes, in purchase days.
const CLASS_FLOORS: [u32; 9] = [1, 2, 3, 4, 5, 7, 10, 15, 25];
/// How many classes there are.
pub const CLASSES: usize = CLASS_FLOORS.len();
/// Weeks since the last purchase that are told apart: two years, and one for all that is longer.
pub const WEEKS: usize = 105;
/// Days since the last purchase that are told apart.
pub const RING_DAYS: usize = WEEKS * 7;
/// What a day leaves of the sums: 2^(-1/730).
const DAILY_FADE: f64 = 0.999050933962626;

/// The class of a customer who bought on so many days; none without a purchase.
#[must_use]
pub fn class_of(days: u32) -> Option<usize> {
    CLASS_FLOORS.iter().rposition(|floor| *floor <= days)
}

/// The week of a gap of so many days (1 is the day after the purchase).
const fn week_of(gap_days: i64) -> usize {
    let week = (gap_days - 1) / 7;
    if week < 0 {
        0
    } else if week < WEEKS as i64 {
        week as usize
    } else {
        WEEKS - 1
    }
}

/// One number for each cell.
pub type Cells = Vec<[f64; WEEKS]>;

/// Where a customer stands in the sums: taken out before an event and put back after it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    class: Option<usize>,
    last_day: i64,
    days: u32,
    net_micros: i64,
    scatter_millionths: i64,
    /// What the first day was worth, as long as it is kept.
    first_micros: i64,
}

impl Standing {
    /// Where `customer` stands.
    #[must_use]
    pub fn of(customer: &Customer) -> Self {
        Self {
            class: class_of(customer.days),
            last_day: customer.last_day(),
            days: customer.days,
            net_micros: customer.net_micros(),
            scatter_millionths: customer.scatter_millionths(),
            first_micros: customer.history().first().map_or(0, |day| day.spend_micros),
        }
    }

    /// The day of the last purchase; none without one.
    #[must_use]
    pub fn last_day(&self) -> Option<i64> {
        self.class.map(|_| self.last_day)
    }
}

/// The sums of a market.
#[derive(Debug, Clone)]
pub struct Population {
    /// The newest UTC day that an event had; days before it are counted.
    today: i64,
    exposure: Cells,
    returns: Cells,
    /// Customers by class and day of the last purchase (day modulo [`RING_DAYS`]).
    open: Vec<Vec<u32>>,
    /// Customers whose last purchase is [`RING_DAYS`] ago or longer, by class.
    dormant: [u32; CLASSES],
    /// Customers with at least one purchase.
    pub customers: u64,
    /// Sum of their purchase days.
    pub days: u64,
    /// Sum of their net spend, micros.
    pub net_micros: i128,
    /// Sum of first purchases, micros.
    pub first_micros: i128,
    /// Sum of [`Customer::scatter_millionths`], over customers with two days or more.
    pub scatter_millionths: i128,
}

impl Population {
    /// Nobody yet; the first event is of the day `today`.
    #[must_use]
    pub fn starting(today: i64) -> Self {
        Self {
            today,
            exposure: vec![[0.0; WEEKS]; CLASSES],
            returns: vec![[0.0; WEEKS]; CLASSES],
            open: vec![vec![0; RING_DAYS]; CLASSES],
            dormant: [0; CLASSES],
            customers: 0,
            days: 0,
            net_micros: 0,
            first_micros: 0,
            scatter_millionths: 0,
        }
    }

    /// The newest day that an event had.
    #[must_use]
    pub const fn today(&self) -> i64 {
        self.today
    }

    /// Customer-days by cell.
    #[must_use]
    pub const fn exposure(&self) -> &Cells {
        &self.exposure
    }

    /// Purchases by cell, of customers who had bought before.
    #[must_use]
    pub const fn returns(&self) -> &Cells {
        &self.returns
    }

    /// Counts the days up to `day`, where that is later than today.
    pub fn advance_to(&mut self, day: i64) {
        for _ in 0..RING_DAYS {
            if self.today >= day {
                return;
            }
            self.close_day();
        }
        // Everyone is dormant by now, so that the days that are left are all alike: a geometric series.
        let left = day.saturating_sub(self.today).max(0) as f64;
        let fade = DAILY_FADE.powf(left);
        for class in 0..CLASSES {
            for week in 0..WEEKS {
                self.exposure[class][week] *= fade;
                self.returns[class][week] *= fade;
            }
            self.exposure[class][WEEKS - 1] += f64::from(self.dormant[class]) * (1.0 - fade) / (1.0 - DAILY_FADE);
        }
        self.today = self.today.max(day);
    }

    /// Adds the day that ends to the exposure, and begins the next.
    fn close_day(&mut self) {
        for class in 0..CLASSES {
            for week in 0..WEEKS {
                self.exposure[class][week] *= DAILY_FADE;
                self.returns[class][week] *= DAILY_FADE;
            }
            for gap in 1..RING_DAYS as i64 {
                let away = self.open[class][slot(self.today - gap)];
                self.exposure[class][week_of(gap)] += f64::from(away);
            }
            self.exposure[class][WEEKS - 1] += f64::from(self.dormant[class]);
            // The slot of the day that begins holds those whose last purchase is RING_DAYS before it.
            self.dormant[class] += std::mem::take(&mut self.open[class][slot(self.today + 1)]);
        }
        self.today += 1;
    }

    /// A customer who stood as `before` when it was last seen stands as `after` now.
    pub fn seen(&mut self, before: &Standing, after: &Standing) {
        match (before.class, after.class) {
            (Some(_), None) => return self.left(before), // its purchases were lost
            (Some(_), Some(_)) if after.days > before.days && after.last_day > before.last_day => self.returned(before, after.last_day),
            (None, Some(_)) => self.first_micros += i128::from(after.first_micros),
            _ => {}
        }
        self.moved(before, after);
    }

    /// A customer of `before` bought again on `day`.
    fn returned(&mut self, before: &Standing, day: i64) {
        let Some(class) = before.class else { return };
        let week = week_of(day - before.last_day);
        self.returns[class][week] += 1.0;
        if day == self.today {
            // The day is not over, so that it was not counted; for this customer it ends here.
            self.exposure[class][week] += 1.0;
        }
    }

    /// Moves a customer from where it stood to where it stands.
    fn moved(&mut self, before: &Standing, after: &Standing) {
        if let Some(class) = before.class {
            let place = self.place(class, before.last_day);
            *place = place.saturating_sub(1);
        }
        if let Some(class) = after.class {
            *self.place(class, after.last_day) += 1;
        }
        self.customers += u64::from(before.class.is_none() && after.class.is_some());
        self.days = self.days + u64::from(after.days) - u64::from(before.days);
        self.net_micros += i128::from(after.net_micros) - i128::from(before.net_micros);
        self.scatter_millionths += i128::from(after.scatter_millionths) - i128::from(before.scatter_millionths);
    }

    /// A customer who stood there is gone: from those who may come back, and from the means. The days that were counted stay.
    pub fn left(&mut self, standing: &Standing) {
        let Some(class) = standing.class else { return };
        let place = self.place(class, standing.last_day);
        *place = place.saturating_sub(1);
        self.first_micros -= self.first_micros / i128::from(self.customers); // its mean stays
        self.customers -= 1;
        self.days -= u64::from(standing.days);
        self.net_micros -= i128::from(standing.net_micros);
        self.scatter_millionths -= i128::from(standing.scatter_millionths);
    }

    fn place(&mut self, class: usize, last_day: i64) -> &mut u32 {
        if self.today - last_day < RING_DAYS as i64 { &mut self.open[class][slot(last_day)] } else { &mut self.dormant[class] }
    }
}

const fn slot(day: i64) -> usize {
    day.rem_euclid(RING_DAYS as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_and_weeks_cover_everything() {
        assert_eq!([0, 1, 2, 6, 7, 24, 25, u32::MAX].map(class_of), [None, Some(0), Some(1), Some(4), Some(5), Some(7), Some(8), Some(8)]);
        assert_eq!([-3, 0, 1, 7, 8, 735, 736, i64::MAX].map(week_of), [0, 0, 0, 0, 1, 104, 104, 104]);
    }

    #[test]
    fn a_fade_halves_in_two_years() {
        assert!((DAILY_FADE.powi(730) - 0.5).abs() < 1e-6);
    }

    fn standing(days: u32, last_day: i64) -> Standing {
        Standing { class: class_of(days), last_day, days, ..Standing::default() }
    }

    fn lived(population: &Population) -> f64 {
        population.exposure().iter().flatten().sum()
    }

    #[test]
    fn those_who_stay_away_count_day_by_day() {
        let mut population = Population::starting(100);
        population.moved(&standing(0, 0), &standing(1, 100));
        population.advance_to(109);
        // Days 101 to 108 are over: seven in the first week, one in the second.
        assert!((population.exposure()[0][0] - 7.0).abs() < 0.05);
        assert!((population.exposure()[0][1] - 1.0).abs() < 0.01);
        population.returned(&standing(1, 100), 109);
        assert_eq!(population.returns()[0][1], 1.0);
        assert!((lived(&population) - 9.0).abs() < 0.05);
    }

    #[test]
    fn a_customer_who_went_back_is_counted_as_it_stands() {
        let mut population = Population::starting(100);
        let far = Standing { net_micros: 50, first_micros: 10, ..standing(5, 100) };
        population.seen(&standing(0, 0), &far);
        let near = Standing { net_micros: 20, first_micros: 10, ..standing(2, 90) };
        population.seen(&far, &near);
        assert_eq!((population.customers, population.days, population.net_micros, population.first_micros), (1, 2, 20, 10));
        assert_eq!((population.open[4][slot(100)], population.open[1][slot(90)]), (0, 1));
        population.seen(&near, &standing(0, 0));
        assert_eq!((population.customers, population.days, population.net_micros, population.open[1][slot(90)]), (0, 0, 0, 0));
        assert_eq!(lived(&population), 0.0, "nobody came back");
    }

    #[test]
    fn a_long_silence_costs_no_more_than_the_ring_and_counts_the_same() {
        let run = |days: &[i64]| {
            let mut population = Population::starting(0);
            population.moved(&standing(0, 0), &standing(3, 0));
            days.iter().for_each(|day| population.advance_to(*day));
            population
        };
        let (leap, steps) = (run(&[5_000]), run(&(1..=5_000).collect::<Vec<_>>()));
        assert!((lived(&leap) - lived(&steps)).abs() < 1e-3, "{} {}", lived(&leap), lived(&steps));
        assert_eq!((leap.dormant, leap.today), (steps.dormant, steps.today));
        assert!(lived(&run(&[i64::MAX])).is_finite());
    }

    #[test]
    fn a_dormant_customer_comes_back_from_where_it_went() {
        let mut population = Population::starting(0);
        population.moved(&standing(0, 0), &standing(1, 0));
        population.advance_to(2_000);
        assert_eq!(population.dormant[0], 1);
        population.moved(&standing(1, 0), &standing(2, 2_000));
        assert_eq!((population.dormant[0], population.open[1][slot(2_000)]), (0, 1));
    }
}
