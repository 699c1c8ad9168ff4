#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::compare::{Claim, Comparison, Kind, Sums, Tolerance, compare};
use super::*;
use crate::domain::amount::Amount;

/// 2026-01-01T00:00:00Z
const JANUARY: i64 = 1_767_225_600_000_000;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;
const ONE: i64 = 1_000_000_000;

fn header(index: u64, recorded_at: i64) -> leaf::Leaf {
    leaf::Leaf { index, client: "acme".into(), recorded_at: Some(UnixMicros(recorded_at).into()), ..Default::default() }
}

fn charge(platform: &str, bid_at: i64, price_nanos: i64) -> leaf::Settlement {
    let bid_at = Some(UnixMicros(bid_at).into());
    leaf::Settlement { platform: platform.into(), exchange: "x".into(), bid_at, price_nanos, ..Default::default() }
}

fn batch(campaign: &str, settlements: Vec<leaf::Settlement>) -> Body {
    Body::Settlements(leaf::SettlementBatch { campaign: campaign.into(), currency: "USD".into(), settlements, ..Default::default() })
}

fn credit(campaign: &str, platform: &str, at: i64, amount_nanos: i64) -> Body {
    Body::SpendAdjustment(leaf::SpendAdjustment {
        campaign: campaign.into(),
        platform: platform.into(),
        currency: "USD".into(),
        amount_nanos,
        accounted_at: Some(UnixMicros(at).into()),
        ..Default::default()
    })
}

fn on_meta(days: &str) -> Totals {
    let slots = Slots::days("2026-01-01".parse().unwrap(), days.parse().unwrap(), "UTC").unwrap();
    Totals::new(Figure::PlatformSpend { platform: "meta".into() }, slots, Duration::ZERO)
}

fn key(slot: usize, campaign: &str) -> Key {
    Key { slot, campaign: campaign.into(), currency: "USD".into() }
}

fn claim(slot: usize, campaign: &str, amount: &str) -> Claim {
    Claim { key: key(slot, campaign), amount: Amount::parse(amount).unwrap(), items: None }
}

fn of_log(leaves: Vec<(i64, Body)>) -> Totals {
    let mut totals = on_meta("2026-01-03");
    for (index, (recorded_at, body)) in (0..).zip(leaves) {
        totals.take(&header(index, recorded_at), &body).unwrap();
    }
    totals
}

fn found(comparison: &Comparison) -> Vec<(Key, Kind, i128, i128, Vec<u64>)> {
    let one = |d: &compare::Difference| (d.key.clone(), d.kind, d.log.nanos, d.other_nanos, d.log.leaves.clone());
    comparison.differences.iter().map(one).collect()
}

#[test]
fn spend_is_of_the_day_of_its_bid_on_its_platform_with_what_was_corrected_since() {
    let late = JANUARY + 20 * DAY;
    let totals = of_log(vec![
        (late, batch("spring", vec![charge("meta", JANUARY + DAY - 1, 2), charge("meta", JANUARY + DAY, 3), charge("x", JANUARY, 5)])),
        (late, credit("spring", "meta", JANUARY + DAY, -1)),
        (late, credit("spring", "", JANUARY, -1)),
        (late, batch("spring", vec![charge("meta", JANUARY - 1, 7)])),
    ]);
    let sums: Vec<_> = totals.cells().iter().map(|(key, cell)| (key.slot, cell.nanos, cell.items, cell.leaves.clone())).collect();
    assert_eq!(sums, [(0, 2, 1, vec![0]), (1, 2, 1, vec![0, 1])]);
}

#[test]
fn a_report_that_rounds_to_what_the_log_has_agrees() {
    let totals = of_log(vec![
        (JANUARY, batch("spring", vec![charge("meta", JANUARY, 1_234_999_999), charge("meta", JANUARY, 1)])),
        (JANUARY, batch("winter", vec![charge("meta", JANUARY, 4_999_999)])),
    ]);
    let agree = |rows: &[Claim]| compare(&totals, rows, Tolerance::default()).unwrap().differences.is_empty();
    // 1.235000000: half a cent to either side; and less than half a cent may be left out.
    assert!(agree(&[claim(0, "spring", "1.23")]) && agree(&[claim(0, "spring", "1.24")]));
    assert!(!agree(&[claim(0, "spring", "1.22")]) && !agree(&[claim(0, "spring", "1.25")]));
    // Zeros at the end may be gone, and say nothing of how exact it is.
    assert!(!agree(&[claim(0, "spring", "1.2")]));
    // Who prints more decimals is taken at them, in every row of the currency.
    assert!(agree(&[claim(0, "spring", "1.235"), claim(0, "winter", "0.005")]));
    assert!(!agree(&[claim(0, "spring", "1.235"), claim(0, "winter", "0.0051")]));
    // Each of the rows of a figure was rounded.
    assert!(agree(&[claim(0, "spring", "0.40"), claim(0, "spring", "0.41"), claim(0, "spring", "0.41"), claim(0, "winter", "0")]));
}

#[test]
fn what_is_missing_or_differs_is_listed_with_its_leaves() {
    let totals = of_log(vec![
        (JANUARY, batch("spring", vec![charge("meta", JANUARY, 10 * ONE)])),
        (JANUARY, batch("spring", vec![charge("meta", JANUARY + DAY, 20 * ONE)])),
        (JANUARY, batch("winter", vec![charge("meta", JANUARY + DAY, 30 * ONE)])),
    ]);
    let rows = [claim(0, "spring", "10.02"), claim(1, "spring", "20.00"), claim(2, "autumn", "1.00"), claim(2, "spring", "0.00")];
    let comparison = compare(&totals, &rows, Tolerance::default()).unwrap();
    let one = i128::from(ONE);
    assert_eq!(
        found(&comparison),
        [
            (key(0, "spring"), Kind::Amount, 10 * one, 10_020_000_000, vec![0]),
            (key(1, "winter"), Kind::MissingThere, 30 * one, 0, vec![2]),
            (key(2, "autumn"), Kind::MissingInLog, 0, one, vec![]),
        ]
    );
    assert_eq!((comparison.compared, comparison.totals["USD"]), (5, Sums { log_nanos: 60 * one, other_nanos: 31_020_000_000 }));
    let tolerated = |minor, ppm| found(&compare(&totals, &rows, Tolerance { minor, ppm }).unwrap()).len();
    assert_eq!([tolerated(1, 0), tolerated(2, 0), tolerated(0, 1_499), tolerated(0, 1_500)], [3, 2, 3, 2]);
}

#[test]
fn a_row_that_cannot_be_compared_is_named() {
    let said = |claim: Claim| compare(&on_meta("2026-01-01"), &[claim], Tolerance::default()).unwrap_err().to_string();
    assert_eq!(said(claim(0, "a", "0.0000000001")), "rows[0].amount: 0.0000000001 has more than 9 decimals, or is too large");
    let gold = Claim { key: Key { currency: "XAU".into(), ..key(0, "a") }, ..claim(0, "a", "1") };
    assert_eq!(said(gold), "rows[0].currency: currency \"XAU\" is not an ISO 4217 currency with a minor unit");
}

fn hours(figure: Figure) -> Totals {
    let slots = Slots::hours(UnixMicros(JANUARY), UnixMicros(JANUARY + 3 * HOUR)).unwrap();
    Totals::new(figure, slots, Duration::from_secs(60))
}

#[test]
fn a_counter_may_have_an_hours_last_moments_in_the_next() {
    let mut totals = hours(Figure::CountedSpend);
    let noticed = |nanos| batch("spring", vec![charge("meta", 0, nanos)]);
    for (index, (at, nanos)) in (0..).zip([(-30, 1), (600, 10), (3_570, 5), (3_600, 100), (7_000, 100)]) {
        totals.take(&header(index, JANUARY + at * SECOND), &noticed(nanos * ONE)).unwrap();
    }
    // What a report closed was never counted.
    let reported = leaf::Settlement { exchange: String::new(), ..charge("meta", 0, 7 * ONE) };
    totals.take(&header(9, JANUARY), &batch("spring", vec![reported])).unwrap();
    let agree = |first: &str, second: &str| {
        let rows = [claim(1, "spring", first), claim(2, "spring", second)];
        found(&compare(&totals, &rows, Tolerance::default()).unwrap()).into_iter().map(|found| found.0.slot).collect::<Vec<_>>()
    };
    let none: [usize; 0] = [];
    // 15 in the first hour: 1 may have come before it, 5 may be in the next.
    for (first, second) in [("15", "200"), ("16", "205"), ("10", "205"), ("11", "200")] {
        assert_eq!(agree(first, second), none, "{first}, {second}");
    }
    assert_eq!((agree("9.99", "200"), agree("16.01", "200"), agree("15", "199"), agree("15", "206")), (vec![1], vec![1], vec![2], vec![2]));
}

#[test]
fn predictions_count_where_a_customer_is_acquired() {
    let mut totals = hours(Figure::CountedLtv);
    let acquired = leaf::Conversion {
        campaign: "spring".into(),
        currency: "USD".into(),
        predicted_ltv_micros: 90_000_000,
        // When it was bought does not matter: SyncValue reads it when it is recorded.
        occurred_at: Some(UnixMicros(0).into()),
        ..Default::default()
    };
    totals.take(&header(4, JANUARY), &Body::Conversion(acquired)).unwrap();
    totals.take(&header(5, JANUARY), &batch("spring", vec![charge("meta", JANUARY, 1)])).unwrap();
    let cell = &totals.cells()[&key(1, "spring")];
    assert_eq!((cell.nanos, cell.items, cell.leaves.as_slice(), totals.cells().len()), (90 * i128::from(ONE), 1, &[4][..], 1));
}

#[test]
fn a_leaf_without_its_time_is_named() {
    let untimed = leaf::Settlement { bid_at: None, ..charge("meta", 0, 1) };
    let error = on_meta("2026-01-01").take(&header(7, JANUARY), &batch("spring", vec![untimed])).unwrap_err();
    assert_eq!(error.to_string(), "leaf 7: bid_at is absent or out of range");
}

#[test]
fn figures_have_a_bound() {
    let mut totals = on_meta("2026-01-01");
    let take =
        |totals: &mut Totals, n: usize| totals.take(&header(n as u64, JANUARY), &batch(&format!("c{n}"), vec![charge("meta", JANUARY, 1)]));
    (0..CELLS_MAX).for_each(|n| take(&mut totals, n).unwrap());
    assert_eq!(take(&mut totals, CELLS_MAX), Err(TotalsError::TooMany));
    take(&mut totals, 0).unwrap();
}

fn leaves() -> impl Strategy<Value = Vec<Body>> {
    let platform = prop::sample::select(vec!["meta", "x"]);
    let campaign = prop::sample::select(vec!["spring", "winter"]);
    let charges = prop::collection::vec((platform.clone(), -DAY..4 * DAY, 0..i64::MAX), 0..5);
    let settled = (campaign.clone(), charges).prop_map(|(campaign, charges)| {
        batch(campaign, charges.into_iter().map(|(platform, at, nanos)| charge(platform, JANUARY + at, nanos)).collect())
    });
    let adjusted = (campaign, platform, 0..3 * DAY, i64::MIN..0).prop_map(|(c, p, at, nanos)| credit(c, p, JANUARY + at, nanos));
    prop::collection::vec(prop_oneof![settled, adjusted], 0..200)
}

proptest! {
    #[test]
    fn sums_and_leaves_do_not_depend_on_the_order_of_the_leaves((ordered, shuffled) in leaves().prop_flat_map(|bodies| {
        let numbered: Vec<(u64, Body)> = (0..).zip(bodies).collect();
        (Just(numbered.clone()), Just(numbered).prop_shuffle())
    })) {
        let sums = |leaves: &[(u64, Body)]| {
            let mut totals = on_meta("2026-01-03");
            leaves.iter().for_each(|(index, body)| totals.take(&header(*index, JANUARY), body).unwrap());
            totals.cells().clone()
        };
        let cells = sums(&ordered);
        prop_assert_eq!(&cells, &sums(&shuffled));
        for cell in cells.values() {
            prop_assert!(cell.leaves.is_sorted() && cell.leaves.len() as u64 == cell.leaf_count.min(LEAVES_NAMED as u64));
        }
    }

    #[test]
    fn a_report_of_the_logs_own_figures_agrees_at_any_decimals(bodies in leaves(), places in 2_u32..=9) {
        let totals = of_log(bodies.into_iter().map(|body| (JANUARY, body)).collect());
        let rounded = |nanos: i128| {
            let unit = 10_i128.pow(9 - places);
            Amount::new((nanos + nanos.signum() * (unit / 2)) / unit, places).unwrap()
        };
        let rows: Vec<_> = totals.cells().iter().map(|(key, cell)| Claim { key: key.clone(), amount: rounded(cell.nanos), items: None }).collect();
        prop_assert_eq!(compare(&totals, &rows, Tolerance::default()).unwrap().differences, []);
    }
}
