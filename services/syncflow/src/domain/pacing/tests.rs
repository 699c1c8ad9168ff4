//! The bounds that pacing is held to, on simulated days: seeded second-price auctions with traffic that rises and falls,
//! charges that are heard of minutes after their bids, and a budget that is never overspent, as leases see to.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;

use super::*;

const HOUR: i64 = 3_600_000_000;
/// 2026-01-15 begins in New York.
const NEW_YORK: UnixMicros = UnixMicros(1_768_453_200_000_000);
/// 2026-03-29 begins in Berlin, and has 23 hours.
const BERLIN: UnixMicros = UnixMicros(1_774_738_800_000_000);

fn plan(pacing: leaf::Pacing, daily: i64, zone: &str) -> Option<Plan> {
    let campaign = leaf::Campaign { pacing: pacing.into(), limit_daily_micros: daily, zone: zone.into(), ..Default::default() };
    Plan::of(&campaign).unwrap()
}

/// Auctions in the first and last hour, and at noon.
const RISES: (i64, i64) = (2_000, 8_000);

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// A day's market: values and competing prices spread evenly up to 2,000 and 3,000 nanos.
struct Market {
    seed: u64,
    start: UnixMicros,
    hours: i64,
    /// Auctions in an hour at the least and at the most, which is around noon.
    hourly: (i64, i64),
    /// Until a charge is heard of.
    delay: Duration,
}

impl Market {
    const fn of(seed: u64, start: UnixMicros, hours: i64) -> Self {
        Self { seed, start, hours, hourly: RISES, delay: Duration::from_secs(120) }
    }

    /// What each hour cost, nanos. Bidders take turns; each hears of its own charges, and of all of them once in a minute.
    fn day(&self, budget: i64, plan: Option<&Plan>, pacers: &mut [Pacer]) -> Vec<i64> {
        let mut seeded = Seeded(self.seed);
        let mut hours = vec![0; self.hours as usize];
        let (mut spent, mut settled) = (0_i64, 0_i128);
        let mut charges: VecDeque<(UnixMicros, usize, i64)> = VecDeque::new();
        for hour in 0..self.hours {
            let auctions = self.hourly.0 + (self.hourly.1 - self.hourly.0) * (12 - (hour - 12).abs()) / 12;
            for n in 0..auctions {
                let now = UnixMicros(self.start.0 + hour * HOUR + n * HOUR / auctions);
                while charges.front().is_some_and(|(at, ..)| *at <= now) {
                    let (_, who, price) = charges.pop_front().unwrap();
                    settled += i128::from(price);
                    if let Some(pacer) = pacers.get_mut(who) {
                        pacer.charged(Nanos::new(price), self.start);
                    }
                }
                let who = n as usize % pacers.len().max(1);
                let (value, other) = (Nanos::new(1 + seeded.below(2_000) as i64), seeded.below(3_000) as i64);
                let mut bid = value.get();
                if let (Some(plan), Some(pacer)) = (plan, pacers.get_mut(who)) {
                    if n % (auctions / 60) < 2 {
                        pacer.total(settled, UnixMicros(self.start.0 + self.hours * HOUR));
                    }
                    bid = paced(value, pacer.lambda_ppm(plan, now)).get();
                }
                if bid > other && spent + bid <= budget {
                    spent += other;
                    hours[hour as usize] += other;
                    charges.push_back((now.plus(self.delay), who, other));
                }
            }
        }
        hours
    }
}

/// A simulated day, paced from its very beginning by one bidder that knows nothing yet.
fn paced_day(market: &Market, pacing: leaf::Pacing, budget: i64, zone: &str) -> Vec<i64> {
    let plan = plan(pacing, budget / 1_000, zone);
    let mut pacers: Vec<Pacer> = plan.iter().map(|plan| Pacer::new(plan, market.start)).collect();
    market.day(budget, plan.as_ref(), &mut pacers)
}

fn assert_spent(hours: &[i64], budget: i64, what: &str) {
    let spent: i64 = hours.iter().sum();
    assert!(spent <= budget && spent * 100 >= budget * 99, "{what}: {spent} of {budget}");
}

#[test]
fn a_days_budget_is_spent_to_within_a_hundredth_whatever_it_is_of_what_could_be() {
    let flat = (5_000, 5_000);
    for (seed, percent, hourly) in [(1, 90, flat), (2, 50, RISES), (3, 20, RISES), (4, 5, RISES), (5, 1, RISES)] {
        for (start, hours, zone) in [(NEW_YORK, 24, "America/New_York"), (BERLIN, 23, "Europe/Berlin")] {
            let market = Market { hourly, ..Market::of(seed, start, hours) };
            let all: i64 = paced_day(&market, leaf::Pacing::Asap, i64::MAX, zone).iter().sum();
            let budget = all * percent / 100_000 * 1_000;
            for pacing in [leaf::Pacing::Even, leaf::Pacing::FrontLoaded] {
                let day = paced_day(&market, pacing, budget, zone);
                assert_spent(&day, budget, &format!("{pacing:?}, {percent} % in {zone}"));
            }
        }
    }
}

#[test]
fn each_profile_has_its_shape() {
    let market = Market::of(7, NEW_YORK, 24);
    let all: i64 = paced_day(&market, leaf::Pacing::Asap, i64::MAX, "America/New_York").iter().sum();
    let budget = all / 5_000 * 1_000;
    let quarters = |pacing| {
        let day = paced_day(&market, pacing, budget, "America/New_York");
        let percent = |hours: &[i64]| hours.iter().sum::<i64>() * 100 / budget;
        (percent(&day[..6]), percent(&day[..12]), percent(&day[..18]))
    };
    let within = |(a, b, c): (i64, i64, i64), wanted: (i64, i64, i64)| {
        assert!(((a - wanted.0).abs().max((b - wanted.1).abs()).max((c - wanted.2).abs())) <= 3, "{:?}", (a, b, c));
    };
    within(quarters(leaf::Pacing::Even), (25, 50, 75));
    within(quarters(leaf::Pacing::FrontLoaded), (43, 75, 93));
    assert_eq!(quarters(leaf::Pacing::Asap).1, 99, "unpaced, it is gone by noon");
}

#[test]
fn a_budget_that_is_no_bound_shades_the_first_half_hour_alone() {
    let market = Market::of(8, NEW_YORK, 24);
    let all = paced_day(&market, leaf::Pacing::Asap, i64::MAX, "America/New_York");
    let budget = all.iter().sum::<i64>() / 1_000 * 4_000;
    let day = paced_day(&market, leaf::Pacing::Even, budget, "America/New_York");
    assert!(day[0] < all[0] && day[0] * 2 > all[0], "{} of {}", day[0], all[0]);
    assert!(day[1..].iter().sum::<i64>() * 1_000 > all[1..].iter().sum::<i64>() * 999);
}

#[test]
fn two_bidders_share_a_day_and_one_that_joins_late_finds_its_way() {
    let market = Market::of(9, NEW_YORK, 24);
    let all: i64 = paced_day(&market, leaf::Pacing::Asap, i64::MAX, "America/New_York").iter().sum();
    let budget = all / 4_000 * 1_000;
    let plan = plan(leaf::Pacing::Even, budget / 1_000, "America/New_York").unwrap();
    let mut two = vec![Pacer::new(&plan, NEW_YORK); 2];
    assert_spent(&market.day(budget, Some(&plan), &mut two), budget, "two of them");
    let mut late = Pacer::new(&plan, NEW_YORK);
    late.total(budget.into(), UnixMicros(NEW_YORK.0 + 24 * HOUR));
    assert_eq!(late.lambda_ppm(&plan, NEW_YORK), lambda_ppm(BEGIN), "what was spent before it came is no cost of a moment");
}

#[test]
fn the_same_day_over_again_is_the_same() {
    let market = Market::of(10, BERLIN, 23);
    let day = || paced_day(&market, leaf::Pacing::Even, 2_000_000, "Europe/Berlin");
    assert_eq!(day(), day());
}

#[test]
fn a_new_day_has_its_own_budget_and_a_charge_counts_where_it_was_granted() {
    let plan = plan(leaf::Pacing::Even, 1, "America/New_York").unwrap();
    let mut pacer = Pacer::new(&plan, NEW_YORK);
    let midnight = UnixMicros(NEW_YORK.0 + 24 * HOUR);
    pacer.charged(Nanos::new(1_000), NEW_YORK);
    assert_eq!(pacer.left(), 0);
    pacer.lambda_ppm(&plan, UnixMicros(midnight.0 - 1));
    assert_eq!(pacer.left(), 0);
    pacer.lambda_ppm(&plan, midnight);
    assert_eq!(pacer.left(), 1_000);
    pacer.charged(Nanos::new(500), UnixMicros(midnight.0 - 1));
    pacer.total(500, midnight);
    assert_eq!(pacer.left(), 1_000, "both are of the day before");
    pacer.charged(Nanos::new(500), midnight);
    assert_eq!(pacer.left(), 500);
}

#[test]
fn nothing_is_paced_without_a_profile_and_a_daily_limit_and_a_zone_must_be_one() {
    assert!(plan(leaf::Pacing::Unspecified, 1, "").is_none());
    assert!(plan(leaf::Pacing::Asap, 1, "").is_none());
    assert!(plan(leaf::Pacing::Even, 0, "").is_none());
    let nowhere = leaf::Campaign { pacing: leaf::Pacing::Even.into(), limit_daily_micros: 1, zone: "Mars".into(), ..Default::default() };
    assert!(Plan::of(&nowhere).is_err());
}

#[test]
fn a_bid_is_divided_and_rounded_down() {
    assert_eq!(paced(Nanos::new(i64::MAX), 0), Nanos::new(i64::MAX));
    assert_eq!(paced(Nanos::new(3), 1), Nanos::new(2));
    assert_eq!(paced(Nanos::new(1_000), 1_000_000), Nanos::new(500));
    assert_eq!(paced(Nanos::new(1_000), u64::MAX), Nanos::ZERO);
    assert_eq!(lambda_ppm(0.0), 0);
    let (begin, most) = (lambda_ppm(BEGIN), lambda_ppm(MOST));
    assert!((6_000_000..6_500_000).contains(&begin) && (500_000_000_000..1_300_000_000_000).contains(&most), "{begin} {most}");
}
