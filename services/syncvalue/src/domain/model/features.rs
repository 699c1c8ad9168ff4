//! What a week looks like to the network.

use super::network::INPUTS;

/// What the values of a log are measured in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scales {
    /// Mean spend of a purchase day, currency units.
    pub spend: f64,
    /// Mean items of a purchase day.
    pub items: f64,
}

/// A customer, week by week.
#[derive(Debug, Clone, PartialEq)]
pub struct Weeks {
    scales: Scales,
    first_day: i64,
    last_day: i64,
    days: f64,
    spend: f64,
    items: f64,
    first_spend: f64,
    last_spend: f64,
    most: f64,
    gaps_squared: f64,
    /// This week's.
    week: (f64, f64, f64),
    /// Spend of the last weeks, fading by half in 4, 13 weeks.
    faded: [f64; 2],
    faded_days: [f64; 2],
}

/// What each number is, in their order.
pub const NAMES: [&str; INPUTS] = [
    "week_days",
    "week_spend",
    "week_items",
    "recency",
    "tenure",
    "days",
    "spend",
    "spend_a_day",
    "active_share_of_tenure",
    "spend_fading_4_weeks",
    "spend_fading_13_weeks",
    "days_fading_4_weeks",
    "days_fading_13_weeks",
    "estimate_spend",
    "estimate_active",
    "estimate_days",
    "first_spend",
    "last_spend",
    "largest_spend",
    "items_a_day",
    "one_day_only",
    "recency_in_gaps",
    "irregularity",
    "bought_this_week",
];

/// The log of an amount in units of the mean, not below that of a fiftieth: what is small still differs, and nothing is no infinity.
fn amount(x: f64) -> f64 {
    (x + 0.02).ln()
}

/// What fading sums keep of themselves in a week: half in four weeks, half in thirteen.
const FADE: [f64; 2] = [0.840_896_415_253_714_6, 0.948_070_294_541_229_3];

impl Weeks {
    /// Nothing yet.
    #[must_use]
    pub fn new(scales: Scales) -> Self {
        Self {
            scales,
            first_day: 0,
            last_day: 0,
            days: 0.0,
            spend: 0.0,
            items: 0.0,
            first_spend: 0.0,
            last_spend: 0.0,
            most: 0.0,
            gaps_squared: 0.0,
            week: (0.0, 0.0, 0.0),
            faded: [0.0; 2],
            faded_days: [0.0; 2],
        }
    }

    /// Lets the week go by without looking at it.
    pub fn skip_week(&mut self) {
        self.week = (0.0, 0.0, 0.0);
    }

    /// A day with a purchase of this week, in order. Items that are not known are taken to be as many as usual.
    pub fn bought(&mut self, day: i64, spend: f64, items: u32) {
        let items = if items == 0 { 1.0 } else { f64::from(items) / self.scales.items };
        let spend = spend / self.scales.spend;
        if self.days == 0.0 {
            self.first_day = day;
            self.first_spend = spend;
        } else {
            let gap = (day - self.last_day) as f64;
            self.gaps_squared += gap * gap;
        }
        self.last_day = day;
        self.last_spend = spend;
        self.most = self.most.max(spend);
        self.days += 1.0;
        self.spend += spend;
        self.items += items;
        self.week = (self.week.0 + 1.0, self.week.1 + spend, self.week.2 + items);
    }

    /// The week that ends before the day `end`, as numbers; and begins the next. `expected` is what the estimate expects: spend, days, chance.
    pub fn close(&mut self, end: i64, expected: [f32; 3]) -> [f32; INPUTS] {
        let week = std::mem::take(&mut self.week);
        for ((spend, days), keeps) in self.faded.iter_mut().zip(&mut self.faded_days).zip(FADE) {
            *spend = *spend * keeps + week.1;
            *days = *days * keeps + week.0;
        }
        let (tenure, away) = ((end - self.first_day) as f64, (end - self.last_day) as f64);
        let lived = tenure - away;
        let n = self.days;
        let gap = (lived + 60.0) / n;
        let [spend, count, active] = expected.map(|x| f64::from(x).max(1e-6));
        let numbers = [
            week.0.ln_1p(),
            week.1.ln_1p(),
            week.2.ln_1p(),
            (away / 7.0).ln_1p() - 1.5,
            (tenure / 7.0).ln_1p() - 2.5,
            n.ln(),
            amount(self.spend) - 0.8,
            ((self.spend + 1.0) / (n + 1.0)).ln(),
            lived / tenure,
            self.faded[0].ln_1p(),
            self.faded[1].ln_1p(),
            self.faded_days[0].ln_1p(),
            self.faded_days[1].ln_1p(),
            (spend.ln() + 1.0) / 2.0,
            (active / (1.0 - active).max(1e-6)).ln() / 2.0,
            (count.ln() + 1.0) / 2.0,
            amount(self.first_spend),
            amount(self.last_spend),
            amount(self.most),
            amount(self.items / n),
            f64::from(u8::from(n < 1.5)),
            (away / gap).ln_1p(),
            if n > 2.0 { ((self.gaps_squared - lived * lived / (n - 1.0)) / (n - 2.0)).max(0.0).sqrt() / 7.0 } else { 0.0 }.ln_1p(),
            f64::from(u8::from(week.0 > 0.0)),
        ];
        numbers.map(|x| (x as f32).clamp(-8.0, 8.0))
    }
}
